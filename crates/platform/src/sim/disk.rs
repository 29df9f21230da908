//! The simulated disk.
//!
//! Fault model, and why a store must survive it: names are durable only after their directory's
//! sync and survive a power cut in a prefix; unsynced blocks survive in any subset and version,
//! torn at 512 bytes (kernels write back in any order); a failed sync drops the dirty data it
//! should have synced (Linux marks the pages clean); a sync covers for sure only what was written
//! before it started; operations dropped in flight are executed or not, now or later.

mod file;
mod operation;
mod state;
mod tree;

use std::path::Path;
use std::time::Duration;

pub(super) use operation::LateOperation;
use operation::{Fate, Operation};
use state::Circumstances;
pub(super) use state::DiskState;

use super::executor::Platform;
use crate::disk::{
    DirectoryItem, FileHandle, FileKind, FileStat, HandleKind, ReadOutcome, Space, StorageBackend,
};
use crate::{Buffer, FailureContext, OpenFlags, Slice, StorageError};

/// An open file of a simulated disk.
pub(crate) struct File {
    platform: Platform,
    id: u64,
    path: Box<Path>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({} on node {})", self.path.display(), self.platform.node.0)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let Platform { world, node, .. } = &self.platform;
        world.borrow_mut().node(*node).disk.close(self.id);
    }
}

/// The disk of a simulated node.
#[derive(Clone)]
pub struct SimulatedBackend {
    platform: Platform,
}

fn file_of(handle: &FileHandle) -> Result<&File, StorageError> {
    match &handle.0 {
        HandleKind::Simulated(file) => Ok(file),
        HandleKind::Uring(_) => {
            Err(StorageError::InvalidHandle(FailureContext::without_path("use file")))
        }
    }
}

type Outcome<T> = Result<T, i32>;

impl SimulatedBackend {
    pub(super) fn new(platform: Platform) -> Self {
        SimulatedBackend { platform }
    }

    async fn run<T: 'static>(
        &self,
        operation: &'static str,
        path: &Path,
        fate: Fate,
        action: impl FnOnce(&mut DiskState, &mut Circumstances<'_>) -> Outcome<T> + 'static,
    ) -> Result<T, StorageError> {
        let outcome = Operation::start(&self.platform, fate, action, |_, _| {}).await;
        outcome
            .unwrap_or(Err(libc::EIO))
            .map_err(|errno| StorageError::from_errno(errno, FailureContext::new(operation, path)))
    }

    async fn run_open(
        &self,
        operation: &'static str,
        path: &Path,
        fate: Fate,
        action: impl FnOnce(&mut DiskState, Duration, &Path) -> Outcome<u64> + 'static,
    ) -> Result<FileHandle, StorageError> {
        let owned = path.to_owned();
        let action = move |disk: &mut DiskState, circumstances: &mut Circumstances<'_>| {
            action(disk, circumstances.wall, &owned)
        };
        let discard = |disk: &mut DiskState, opened: Outcome<u64>| {
            if let Ok(id) = opened {
                disk.close(id);
            }
        };
        let outcome = Operation::start(&self.platform, fate, action, discard).await;
        match outcome.unwrap_or(Err(libc::EIO)) {
            Ok(id) => {
                let platform = self.platform.clone();
                Ok(FileHandle(HandleKind::Simulated(File { platform, id, path: path.into() })))
            }
            Err(errno) => {
                Err(StorageError::from_errno(errno, FailureContext::new(operation, path)))
            }
        }
    }

    async fn sync(&self, operation: &'static str, file: &FileHandle) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        let start = {
            let mut world = self.platform.world.borrow_mut();
            let disk = &mut world.node(self.platform.node).disk;
            disk.start_sync(id).map_err(|errno| {
                StorageError::from_errno(errno, FailureContext::new(operation, &file.path))
            })?
        };
        self.run(operation, &file.path, Fate::Certain, move |disk, circumstances| {
            disk.finish_sync(id, start, circumstances)
        })
        .await
    }
}

impl StorageBackend for SimulatedBackend {
    async fn open(
        &self,
        path: &Path,
        flags: OpenFlags,
        mode: u32,
    ) -> Result<FileHandle, StorageError> {
        let changes = flags.create || flags.truncate;
        let fate = if changes { Fate::Unknown } else { Fate::Forgotten };
        self.run_open("open", path, fate, move |disk, wall, path| {
            disk.open(path, flags, mode, wall)
        })
        .await
    }

    async fn close(&self, file: FileHandle) -> Result<(), StorageError> {
        let id = file_of(&file)?.id;
        let path = file_of(&file)?.path.clone();
        self.run("close", &path, Fate::Forgotten, move |disk, _| {
            disk.close(id);
            Ok(())
        })
        .await
    }

    async fn read(
        &self,
        file: &FileHandle,
        offset: u64,
        mut buffer: Buffer,
        len: usize,
    ) -> ReadOutcome {
        buffer.set_len(0);
        let file = match file_of(file) {
            Ok(file) => file,
            Err(error) => return (Err(error), buffer),
        };
        let context = FailureContext::new("read", &file.path);
        if buffer.capacity() < len {
            return (Err(StorageError::BufferTooSmall(context)), buffer);
        }
        let id = file.id;
        let action = move |disk: &mut DiskState, circumstances: &mut Circumstances<'_>| {
            let result = disk.read(id, offset, &mut buffer, len, circumstances);
            (result, buffer)
        };
        let outcome = Operation::start(&self.platform, Fate::Forgotten, action, |_, _| {}).await;
        let (result, buffer) =
            outcome.unwrap_or_else(|| (Err(libc::EIO), Buffer::with_capacity(len)));
        (result.map_err(|errno| StorageError::from_errno(errno, context)), buffer)
    }

    async fn write(&self, file: &FileHandle, offset: u64, data: Slice) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        self.run("write", &file.path, Fate::Unknown, move |disk, circumstances| {
            disk.write(id, offset, &data, circumstances)
        })
        .await
    }

    async fn create(&self, path: &Path, mode: u32) -> Result<FileHandle, StorageError> {
        self.run_open("create", path, Fate::Unknown, move |disk, wall, path| {
            disk.create(path, mode, wall)
        })
        .await
    }

    async fn unlink(&self, path: &Path) -> Result<(), StorageError> {
        let owned = path.to_owned();
        self.run("unlink", path, Fate::Unknown, move |disk, _| {
            disk.tree.remove(&owned, FileKind::File)
        })
        .await
    }

    async fn stat(&self, path: &Path) -> Result<FileStat, StorageError> {
        let owned = path.to_owned();
        self.run("stat", path, Fate::Forgotten, move |disk, _| disk.stat(disk.tree.find(&owned)?))
            .await
    }

    async fn mkdir(&self, path: &Path, mode: u32) -> Result<(), StorageError> {
        let owned = path.to_owned();
        self.run("mkdir", path, Fate::Unknown, move |disk, circumstances| {
            let wall = circumstances.wall;
            disk.tree.create(&owned, FileKind::Directory, mode, wall).map(|_| ())
        })
        .await
    }

    async fn rmdir(&self, path: &Path) -> Result<(), StorageError> {
        let owned = path.to_owned();
        self.run("rmdir", path, Fate::Unknown, move |disk, _| {
            disk.tree.remove(&owned, FileKind::Directory)
        })
        .await
    }

    async fn fsync(&self, file: &FileHandle) -> Result<(), StorageError> {
        self.sync("fsync", file).await
    }

    async fn stat_handle(&self, file: &FileHandle) -> Result<FileStat, StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        self.run("stat", &file.path, Fate::Forgotten, move |disk, _| disk.stat(disk.object_of(id)?))
            .await
    }

    async fn sync_data(&self, file: &FileHandle) -> Result<(), StorageError> {
        self.sync("sync data", file).await
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), StorageError> {
        let owned = path.to_owned();
        let start = {
            let mut world = self.platform.world.borrow_mut();
            world.node(self.platform.node).disk.tree.sequence()
        };
        self.run("sync directory", path, Fate::Certain, move |disk, circumstances| {
            disk.sync_directory(&owned, start, circumstances)
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        let (source, target) = (from.to_owned(), to.to_owned());
        self.run("rename", from, Fate::Unknown, move |disk, _| disk.tree.rename(&source, &target))
            .await
    }

    async fn truncate(&self, file: &FileHandle, len: u64) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        self.run("truncate", &file.path, Fate::Unknown, move |disk, circumstances| {
            disk.truncate(id, len, circumstances.wall)
        })
        .await
    }

    async fn punch(&self, file: &FileHandle, offset: u64, len: u64) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        self.run("punch", &file.path, Fate::Unknown, move |disk, _| disk.punch(id, offset, len))
            .await
    }

    async fn allocate(&self, file: &FileHandle, offset: u64, len: u64) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        self.run("allocate", &file.path, Fate::Unknown, move |disk, circumstances| {
            disk.allocate(id, offset, len, &circumstances.faults)
        })
        .await
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryItem>, StorageError> {
        let owned = path.to_owned();
        self.run("list", path, Fate::Forgotten, move |disk, _| {
            let names = disk.tree.list(disk.tree.find(&owned)?)?;
            Ok(names.into_iter().map(|(name, kind)| DirectoryItem { name, kind }).collect())
        })
        .await
    }

    async fn next_data(&self, file: &FileHandle, offset: u64) -> Result<Option<u64>, StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        self.run("seek data", &file.path, Fate::Forgotten, move |disk, _| {
            let object = disk.object_of(id)?;
            Ok(disk.tree.file(object)?.next_data(offset))
        })
        .await
    }

    async fn next_hole(&self, file: &FileHandle, offset: u64) -> Result<u64, StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        self.run("seek hole", &file.path, Fate::Forgotten, move |disk, _| {
            let object = disk.object_of(id)?;
            let data = disk.tree.file(object)?;
            if offset >= data.size() { Err(libc::EINVAL) } else { Ok(data.next_hole(offset)) }
        })
        .await
    }

    async fn space(&self, path: &Path) -> Result<Space, StorageError> {
        let owned = path.to_owned();
        self.run("read space of", path, Fate::Forgotten, move |disk, _| disk.space(&owned)).await
    }

    async fn lock(&self, file: &FileHandle) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let id = file.id;
        self.run("lock", &file.path, Fate::Unknown, move |disk, _| disk.lock(id)).await
    }
}
