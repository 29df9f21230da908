//! The door through system calls, for mounts and any other file system: paths, and the standard
//! library's calls one after the other, as most programs make them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ringfs_platform::{Buffer, Slice};
use ringfs_wire::InodeNumber;
use rustix::fs::{Advice, OFlags};

use super::{Access, Door, WANTED_SIZE, Walked, is_wanted};
use crate::cluster::Cluster;
use crate::error::{BenchError, Context};

/// What `statfs` calls a file system in user space, such as a mount of RingFS.
const FUSE_MAGIC: i64 = 0x6573_5546;

/// Files in a directory.
pub(crate) struct DirectoryDoor {
    root: PathBuf,
    /// What it shows, if it is a mount.
    cluster: Option<Cluster>,
}

impl DirectoryDoor {
    pub(crate) fn new(root: &Path, cluster: Option<Cluster>) -> Self {
        Self { root: root.to_owned(), cluster }
    }
}

impl Door for DirectoryDoor {
    type Place = PathBuf;
    type File = fs::File;

    fn root(&self) -> PathBuf {
        self.root.clone()
    }

    async fn make_directory(&self, at: &PathBuf, name: &str) -> Result<PathBuf, BenchError> {
        let path = at.join(name);
        fs::create_dir(&path).map_err(|error| failed("make", at, name, error))?;
        Ok(path)
    }

    async fn enter(&self, at: &PathBuf, name: &str) -> Result<PathBuf, BenchError> {
        Ok(at.join(name))
    }

    async fn create(&self, at: &PathBuf, name: &str) -> Result<fs::File, BenchError> {
        let opened =
            fs::File::options().read(true).write(true).create_new(true).open(at.join(name));
        opened.map_err(|error| failed("create", at, name, error))
    }

    async fn open(&self, at: &PathBuf, name: &str, access: Access) -> Result<fs::File, BenchError> {
        let mut options = fs::File::options();
        options.read(true).write(access == Access::Write);
        if access == Access::ReadDirect {
            options.custom_flags(OFlags::DIRECT.bits() as i32);
        }
        let opened = options.open(at.join(name));
        opened.map_err(|error| failed("open", at, name, error))
    }

    async fn write(&self, file: &fs::File, offset: u64, data: Slice) -> Result<(), BenchError> {
        file.write_all_at(&data, offset).context("write")
    }

    async fn read(
        &self,
        file: &fs::File,
        offset: u64,
        len: usize,
    ) -> Result<Vec<Slice>, BenchError> {
        let mut buffer = Buffer::with_capacity(len);
        buffer.set_len(len);
        let mut filled = 0;
        while filled < len {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read"),
            }
        }
        buffer.truncate(filled);
        Ok(vec![buffer.freeze()])
    }

    async fn sync(&self, file: &fs::File) -> Result<(), BenchError> {
        file.sync_all().context("sync")
    }

    async fn forget(&self, file: &fs::File) -> Result<(), BenchError> {
        // Only what is on the disk is dropped.
        file.sync_data().context("sync")?;
        let dropped = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        dropped.map_err(std::io::Error::from).context("drop what is cached of a file")
    }

    async fn close(&self, file: fs::File) -> Result<(), BenchError> {
        drop(file);
        Ok(())
    }

    async fn size(&self, at: &PathBuf, name: &str) -> Result<u64, BenchError> {
        let metadata = fs::symlink_metadata(at.join(name));
        Ok(metadata.map_err(|error| failed("look at", at, name, error))?.len())
    }

    async fn remove(&self, at: &PathBuf, name: &str) -> Result<(), BenchError> {
        fs::remove_file(at.join(name)).map_err(|error| failed("remove", at, name, error))
    }

    fn has_targets(&self) -> bool {
        self.cluster.is_some()
    }

    async fn is_at_turn(&self, place: &PathBuf, who: u32) -> Result<bool, BenchError> {
        let Some(cluster) = &self.cluster else { return Ok(true) };
        let found = fs::metadata(place).context(format!("look at {}", place.display()))?;
        Ok(cluster.is_at_turn(InodeNumber(found.ino()), who))
    }

    async fn rename_directory(&self, at: &PathBuf, from: &str, to: &str) -> Result<(), BenchError> {
        let renamed = fs::rename(at.join(from), at.join(to));
        renamed.map_err(|error| failed("rename", at, from, error))
    }

    async fn remove_directory(&self, at: &PathBuf, name: &str) -> Result<(), BenchError> {
        fs::remove_dir(at.join(name)).map_err(|error| failed("remove", at, name, error))
    }

    async fn walk(&self, at: &PathBuf) -> Result<Walked, BenchError> {
        let action = || format!("read {}", at.display());
        let mut walked = Walked::default();
        for entry in fs::read_dir(at).context(action())? {
            let entry = entry.context(action())?;
            walked.entries += 1;
            // Only what may be wanted is looked at closer.
            if is_wanted(entry.file_name().as_bytes()) {
                let metadata = entry.metadata().context(action())?;
                walked.matches += u64::from(metadata.is_file() && metadata.len() == WANTED_SIZE);
            }
        }
        Ok(walked)
    }

    async fn remove_tree(&self, name: &str) -> Result<(), BenchError> {
        let removed = fs::remove_dir_all(self.root.join(name));
        removed.map_err(|error| failed("remove", &self.root, name, error))
    }

    async fn used(&self) -> Result<Option<u64>, BenchError> {
        let action = || format!("look at the file system of {}", self.root.display());
        let found = rustix::fs::statfs(&self.root).map_err(std::io::Error::from);
        let found = found.context(action())?;
        let blocks = found.f_blocks.saturating_sub(found.f_bfree);
        Ok((found.f_type == FUSE_MAGIC).then(|| blocks * found.f_bsize as u64))
    }
}

fn failed(doing: &str, at: &Path, name: &str, source: std::io::Error) -> BenchError {
    BenchError::Io { action: format!("{doing} {}", at.join(name).display()), source }
}
