//! Why the store did not do what it was asked, sorted by what the caller does next.

use std::path::PathBuf;

use ringfs_platform::StorageError;
use ringfs_wire::{Errno, Status};

/// A refusal of the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The request carries an older content generation than the file.
    #[error("stale content generation")]
    StaleGeneration,
    /// The operation breaks a rule of POSIX file systems.
    #[error("{0}")]
    Refused(Errno),
    /// There is no such inode here.
    #[error("no such inode")]
    Missing,
    /// No room to log or store more.
    #[error("no space left")]
    NoSpace,
    /// A request that no caller should make: out of the head, across chunks.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    /// A device error stopped all writing; an operator has to act.
    #[error("stopped writing after a device error: {0}")]
    Failed(StorageError),
    /// Durable data is not what was written. Restore it or give the target up.
    #[error("{}: damaged at byte {offset}: {what}", file.display())]
    Damaged {
        /// The damaged file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// The directory belongs to something else.
    #[error("{}: {what}", directory.display())]
    WrongStore {
        /// The directory.
        directory: PathBuf,
        /// What was found in it, and what was expected.
        what: String,
    },
    /// Another process has the store open.
    #[error("{}: in use by another process", .0.display())]
    Locked(PathBuf),
    /// The store was closed meanwhile.
    #[error("the store is closed")]
    Closed,
    /// One operation on the local disk failed and nothing has changed.
    #[error(transparent)]
    Storage(StorageError),
}

impl StoreError {
    /// The answer to a request that met this error.
    pub fn status(&self) -> Status {
        match self {
            Self::StaleGeneration => Status::StaleGeneration,
            Self::Refused(errno) => Status::Failed(*errno),
            Self::Missing => Status::Failed(Errno::ENOENT),
            Self::NoSpace => Status::Failed(Errno::ENOSPC),
            Self::Invalid(_) => Status::Failed(Errno::EINVAL),
            Self::Failed(_) | Self::Damaged { .. } | Self::Closed => Status::TargetFailed,
            Self::WrongStore { .. } | Self::Locked(_) => Status::Failed(Errno::EIO),
            // Files that are in use now are closed soon.
            Self::Storage(error) if error.is_out_of_descriptors() => Status::Busy,
            Self::Storage(error) => Status::Failed(Errno(error.errno())),
        }
    }
}

impl From<Errno> for StoreError {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NoSpace(_) => Self::NoSpace,
            error => Self::Storage(error),
        }
    }
}
