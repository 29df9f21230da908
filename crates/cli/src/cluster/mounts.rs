//! The mounts of a cluster on this machine: which process serves which directory.
//!
//! ```text
//! mounts/<hash>-<pid>.mount   who serves it       mounts/<hash>.log    what it logged
//!                                                 mounts/<hash>.lock   one start at a time
//! ```
//!
//! Invariant: a process removes the mark of its mount when that ends in order. Else a mark outlives
//! its process; that it is dead is told by its start time. A directory may have several marks: a
//! process whose mount was taken away still serves what is open. The latest one counts.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
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

    /// The latest mount at `place`, unless it was ended in order.
    pub(crate) fn mount_at(&self, place: &Path) -> Result<Option<MountRecord>, CliError> {
        let records = self.mounts()?.into_iter().filter(|record| record.place == place);
        Ok(records.max_by_key(|record| record.process.started))
    }

    /// The mount at `place` that process `pid` serves.
    pub(crate) fn mount_of(&self, place: &Path, pid: u32) -> Result<Option<MountRecord>, CliError> {
        read(&self.mount_file(place, &format!("-{pid}.mount")))
    }

    /// Removes the mark of a mount whose process has ended.
    pub(crate) fn forget_mount(&self, record: &MountRecord) {
        let name = format!("-{}.mount", record.process.pid);
        // One that stays is seen to be dead.
        let _ = std::fs::remove_file(self.mount_file(&record.place, &name));
    }

    /// Where the process of the mount at `place` logs.
    pub(crate) fn mount_log(&self, place: &Path) -> PathBuf {
        self.mount_file(place, ".log")
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

    fn mount_file(&self, place: &Path, suffix: &str) -> PathBuf {
        let hash = xxh64(place.as_os_str().as_bytes(), 0);
        self.path().join(MOUNTS).join(format!("{hash:016x}{suffix}"))
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
    path: PathBuf,
    record: MountRecord,
    /// Held until the mount is ready.
    lock: Option<File>,
}

impl MountMark {
    /// Marks `place` as served by this process, and keeps others from mounting there until it is
    /// ready.
    pub(crate) fn set(directory: &Directory, place: &Path) -> Result<Self, CliError> {
        directory.create_mounts()?;
        let lock = Some(lock(&directory.mount_file(place, ".lock"), place)?);
        for record in directory.mounts()? {
            if record.place == place && !record.process.is_alive() {
                directory.forget_mount(&record);
            }
        }
        let process = ProcessIdentity::current()
            .ok_or_else(|| CliError::failed("cannot read /proc/self/stat: is /proc mounted?"))?;
        let path = directory.mount_file(place, &format!("-{}.mount", process.pid));
        let record = MountRecord { process, is_ready: false, place: place.to_owned() };
        let mark = Self { path, record, lock };
        mark.write()?;
        Ok(mark)
    }

    /// Says that the mount answers.
    pub(crate) fn set_ready(&mut self) -> Result<(), CliError> {
        self.record.is_ready = true;
        self.lock = None;
        self.write()
    }

    /// The mount has ended in order.
    pub(crate) fn clear(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    fn write(&self) -> Result<(), CliError> {
        let temporary = self.path.with_extension("new");
        let written = std::fs::write(&temporary, self.record.to_bytes())
            .and_then(|()| std::fs::rename(&temporary, &self.path));
        written.map_err(|error| CliError::local("write", &self.path, error))
    }
}

fn lock(path: &Path, place: &Path) -> Result<File, CliError> {
    let options = OpenOptions::new().write(true).create(true).truncate(false).clone();
    let file = options.open(path).map_err(|error| CliError::local("write", path, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(CliError::failed(format!(
            "{}: another ringfs mount is at work here: wait for it to end",
            place.display()
        ))),
        Err(error) => Err(CliError::local("lock", path, error)),
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
        assert!(MountMark::set(&directory, place).is_err(), "one start at a time");
        let record = directory.mount_at(place).unwrap().unwrap();
        assert!(record.process.is_alive() && !record.is_ready);
        mark.set_ready().unwrap();
        assert!(directory.mount_at(place).unwrap().unwrap().is_ready);
        assert!(directory.mount_of(place, std::process::id()).unwrap().unwrap().is_ready);
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
