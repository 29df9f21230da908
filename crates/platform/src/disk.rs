//! The disk: what every storage backend offers, and the closed choice between them.
//!
//! Invariant: buffers are owned by the operation while it runs; dropping an operation's future
//! means *outcome unknown* and frees nothing the kernel still uses. Successful writes are in the
//! kernel, not on the device: durability is asked for by `fsync`, `sync_data`, `sync_directory`.
//! Deliberately without memory maps and without recursive operations.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::uring;
use crate::{Buffer, IoUringBackend, OpenFlags, Slice, StorageError, on};
#[cfg(feature = "sim")]
use crate::{SimulatedBackend, sim};

/// An open file. Closed by `close`, or when dropped.
#[derive(Debug)]
pub struct FileHandle(pub(crate) HandleKind);

#[derive(Debug)]
pub(crate) enum HandleKind {
    Uring(uring::File),
    #[cfg(feature = "sim")]
    Simulated(sim::File),
}

/// What kind of object a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Anything else: sockets, pipes, devices.
    Other,
}

/// What is known about a file on the local disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Length in bytes.
    pub size: u64,
    /// Bytes of disk space in use.
    pub allocated_bytes: u64,
    /// Permission bits, without the file type.
    pub mode: u32,
    /// What it is.
    pub kind: FileKind,
    /// Last change of the contents, since the Unix epoch.
    pub modified: Duration,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirectoryItem {
    /// The name, without its directory.
    pub name: OsString,
    /// What it leads to.
    pub kind: FileKind,
}

/// Space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What is left for this process.
    pub available: u64,
}

/// The result of a read: how many bytes, and the buffer whatever happened.
pub type ReadOutcome = (Result<usize, StorageError>, Buffer);

macro_rules! storage_backend {
    ($($(#[$doc:meta])* fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        /// One way to reach files. Implemented by [`IoUringBackend`] and, under the feature `sim`,
        /// by `SimulatedBackend`; [`Disk`] is its only user.
        ///
        /// Buffers are owned and nothing needs to be `Send`: borrowed buffers are unsound under
        /// completion I/O when an operation is dropped, and a ring belongs to one thread.
        #[allow(async_fn_in_trait, reason = "futures stay on the thread of their ring")]
        pub trait StorageBackend {
            $($(#[$doc])* async fn $name(&self $(, $argument: $type)*) -> $result;)*
        }

        impl Disk {
            $($(#[$doc])* pub async fn $name(&self $(, $argument: $type)*) -> $result {
                on!(Disk, self, disk => disk.$name($($argument),*).await)
            })*
        }
    };
}

/// The disk of a platform: a closed choice of storage backends. Cheap to clone.
#[derive(Clone)]
pub enum Disk {
    /// The kernel's file systems.
    Uring(IoUringBackend),
    /// A simulated disk.
    #[cfg(feature = "sim")]
    Simulated(SimulatedBackend),
}

// Without the simulation there is one variant and nothing to choose at run time.
#[cfg(not(feature = "sim"))]
const _: () = assert!(
    size_of::<Disk>() == size_of::<IoUringBackend>()
        && size_of::<FileHandle>() == size_of::<uring::File>()
        && size_of::<crate::Link>() == size_of::<uring::Link>()
        && size_of::<crate::Platform>() == size_of::<uring::Platform>()
);

storage_backend! {
    /// Opens a file; `mode` counts when it is created.
    fn open(&self, path: &Path, flags: OpenFlags, mode: u32) -> Result<FileHandle, StorageError>;
    /// Closes a file and gives its lock up. Says nothing about durability; dropping does as well.
    fn close(&self, file: FileHandle) -> Result<(), StorageError>;
    /// Reads up to `len` bytes into the front of `buffer` and sets its length to what was read;
    /// fewer only at the end of the file.
    fn read(&self, file: &FileHandle, offset: u64, buffer: Buffer, len: usize) -> ReadOutcome;
    /// Writes all of `data`, or fails. Files opened to append ignore `offset`.
    fn write(&self, file: &FileHandle, offset: u64, data: Slice) -> Result<(), StorageError>;
    /// Creates a file that must not exist, for reading and writing.
    fn create(&self, path: &Path, mode: u32) -> Result<FileHandle, StorageError>;
    /// Removes the name of a file.
    fn unlink(&self, path: &Path) -> Result<(), StorageError>;
    /// What a path leads to; symbolic links are not followed.
    fn stat(&self, path: &Path) -> Result<FileStat, StorageError>;
    /// Creates a directory.
    fn mkdir(&self, path: &Path, mode: u32) -> Result<(), StorageError>;
    /// Removes an empty directory.
    fn rmdir(&self, path: &Path) -> Result<(), StorageError>;
    /// Makes contents and attributes of a file durable.
    fn fsync(&self, file: &FileHandle) -> Result<(), StorageError>;
    /// What is known about an open file.
    fn stat_handle(&self, file: &FileHandle) -> Result<FileStat, StorageError>;
    /// Makes contents and size of a file durable.
    fn sync_data(&self, file: &FileHandle) -> Result<(), StorageError>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> Result<(), StorageError>;
    /// Renames within one file system, replacing an existing target.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError>;
    /// Sets the length; new bytes read as zeros.
    fn truncate(&self, file: &FileHandle, len: u64) -> Result<(), StorageError>;
    /// Makes a hole that reads as zeros; the length stays.
    fn punch(&self, file: &FileHandle, offset: u64, len: u64) -> Result<(), StorageError>;
    /// Reserves space, growing the file where needed; new bytes read as zeros.
    fn allocate(&self, file: &FileHandle, offset: u64, len: u64) -> Result<(), StorageError>;
    /// The names in a directory, sorted, without `.` and `..`.
    fn list(&self, path: &Path) -> Result<Vec<DirectoryItem>, StorageError>;
    /// The first offset of data at or after `offset`; `None` if only a hole follows, or the end.
    fn next_data(&self, file: &FileHandle, offset: u64) -> Result<Option<u64>, StorageError>;
    /// The first offset of a hole at or after `offset`; the end of the file counts as a hole.
    /// Beyond the end of the file it fails with `InvalidOffset`.
    fn next_hole(&self, file: &FileHandle, offset: u64) -> Result<u64, StorageError>;
    /// Space of the file system that holds `path`.
    fn space(&self, path: &Path) -> Result<Space, StorageError>;
    /// Takes an exclusive lock on the file, held until it is closed; `AlreadyExists` while another
    /// opener, in this process or another, holds it.
    fn lock(&self, file: &FileHandle) -> Result<(), StorageError>;
}
