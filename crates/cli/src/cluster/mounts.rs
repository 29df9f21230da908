//! The mounts of a cluster on this machine: which process serves which directory.
//!
//! ```text
//! mounts/<hash>.mount   who serves it    mounts/<hash>.log   what it logged
//! ```
//!
//! Invariant: a mark is locked by the process it names for as long as that serves the mount, so a
//! directory has one mount of a cluster at most. A mark may outlive its process: then its start
//! time tells. Marks of mounts that ended in order are empty.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use xxhash_rust::xxh64::xxh64;

use crate::cluster::{Directory, ProcessIdentity};
use crate::error::CliError;

/// Where marks and logs of mounts lie in a data directory.
pub(crate) const MOUNTS: &str = "mounts";

const STARTING: &str = "starting";
const READY: &str = "ready";

/// What a mark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountRecord {
    /// The process that serves the mount, or served it until it died.
    pub(crate) process: ProcessIdentity,
    /// Whether the mount has answered.
    pub(crate) is_ready: bool,
    /// The mount point, without symbolic links.
    pub(crate) place: PathBuf,
}

impl MountRecord {
    /// Reads what `to_bytes` wrote; the path may hold any byte, so it goes to the end.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
        let process = ProcessIdentity::parse(std::str::from_utf8(lines.next()?).ok()?)?;
        let is_ready = lines.next()? == READY.as_bytes();
        let place = PathBuf::from(OsString::from_vec(lines.next()?.to_vec()));
        place.is_absolute().then_some(Self { process, is_ready, place })
    }

    fn to_bytes(&self) -> Vec<u8> {
        let state = if self.is_ready { READY } else { STARTING };
        let mut bytes = format!("{}\n{state}\n", self.process).into_bytes();
        bytes.extend_from_slice(self.place.as_os_str().as_bytes());
        bytes
    }
}

impl Directory {
    /// The mounts that were not ended in order, by mount point.
    pub(crate) fn mounts(&self) -> Result<Vec<MountRecord>, CliError> {
        let directory = self.path().join(MOUNTS);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(CliError::local("read the directory", &directory, error)),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| CliError::local("read", &directory, error))?.path();
            if path.extension().is_some_and(|extension| extension == "mount") {
                records.extend(read(&path)?);
            }
        }
        records.sort_by(|one, other| one.place.cmp(&other.place));
        Ok(records)
    }

    /// The mount at `place`, unless it was ended in order.
    pub(crate) fn mount_at(&self, place: &Path) -> Result<Option<MountRecord>, CliError> {
        Ok(read(&self.mount_file(place, "mount"))?.filter(|record| record.place == place))
    }

    /// Where the process of the mount at `place` logs.
    pub(crate) fn mount_log(&self, place: &Path) -> PathBuf {
        self.mount_file(place, "log")
    }

    /// Makes the directory for marks and logs.
    pub(crate) fn create_mounts(&self) -> Result<(), CliError> {
        let directory = self.path().join(MOUNTS);
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(CliError::local("create the directory", &directory, error))
            }
            _ => Ok(()),
        }
    }

    fn mount_file(&self, place: &Path, extension: &str) -> PathBuf {
        let hash = xxh64(place.as_os_str().as_bytes(), 0);
        self.path().join(MOUNTS).join(format!("{hash:016x}.{extension}"))
    }
}

fn read(path: &Path) -> Result<Option<MountRecord>, CliError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(MountRecord::parse(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::local("read", path, error)),
    }
}

/// Says which process serves a mount, for as long as it does.
pub(crate) struct MountMark {
    file: File,
    path: PathBuf,
    record: MountRecord,
}

impl MountMark {
    /// Marks `place` as served by this process.
    pub(crate) fn set(directory: &Directory, place: &Path) -> Result<Self, CliError> {
        directory.create_mounts()?;
        let path = directory.mount_file(place, "mount");
        let options = OpenOptions::new().write(true).create(true).truncate(false).clone();
        let file = options.open(&path).map_err(|error| CliError::local("write", &path, error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(CliError::failed(format!(
                    "{} is still served by another process: unmount it first",
                    place.display()
                )));
            }
            Err(error) => return Err(CliError::local("lock", &path, error)),
        }
        let process = ProcessIdentity::current()
            .ok_or_else(|| CliError::failed("cannot read /proc/self/stat: is /proc mounted?"))?;
        let record = MountRecord { process, is_ready: false, place: place.to_owned() };
        let mut mark = Self { file, path, record };
        mark.write()?;
        Ok(mark)
    }

    /// Says that the mount answers.
    pub(crate) fn set_ready(&mut self) -> Result<(), CliError> {
        self.record.is_ready = true;
        self.write()
    }

    /// The mount ends in order.
    pub(crate) fn clear(&mut self) {
        let _ = self.file.set_len(0);
    }

    fn write(&mut self) -> Result<(), CliError> {
        let bytes = self.record.to_bytes();
        let write = |file: &mut File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.write_all_at(&bytes, 0)?;
            file.flush()
        };
        write(&mut self.file).map_err(|error| CliError::local("write", &self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_who_serves_what() {
        let outer = tempfile::tempdir().unwrap();
        let directory = Directory::at(outer.path()).unwrap();
        assert_eq!(directory.mounts().unwrap(), []);
        let place = Path::new(std::ffi::OsStr::from_bytes(b"/odd\nplace \xff"));
        let mut mark = MountMark::set(&directory, place).unwrap();
        assert!(MountMark::set(&directory, place).is_err(), "one process per mount");
        let record = directory.mount_at(place).unwrap().unwrap();
        assert!(record.process.is_alive() && !record.is_ready);
        mark.set_ready().unwrap();
        assert!(directory.mount_at(place).unwrap().unwrap().is_ready);
        let other = MountMark::set(&directory, Path::new("/a")).unwrap();
        let places = |records: Vec<MountRecord>| -> Vec<PathBuf> {
            records.into_iter().map(|record| record.place).collect()
        };
        assert_eq!(places(directory.mounts().unwrap()), [Path::new("/a"), place]);
        mark.clear();
        drop(other);
        assert_eq!(places(directory.mounts().unwrap()), [Path::new("/a")]);
        assert_eq!(directory.mount_at(place).unwrap(), None);
    }

    #[test]
    fn damaged_marks_count_as_none() {
        let record = MountRecord {
            process: ProcessIdentity::current().unwrap(),
            is_ready: true,
            place: "/a".into(),
        };
        assert_eq!(MountRecord::parse(&record.to_bytes()), Some(record.clone()));
        let bytes = record.to_bytes();
        for len in 0..bytes.len() - 2 {
            assert_eq!(MountRecord::parse(&bytes[..len]), None, "{len}");
        }
        assert_eq!(MountRecord::parse(b"x\nready\n/a"), None);
        assert_eq!(MountRecord::parse(&bytes[..bytes.len() - 2]), None);
    }
}
