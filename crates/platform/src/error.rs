//! What can go wrong on a disk, sorted by what the caller does next.
//!
//! Invariant: every error has an errno ([`StorageError::errno`]) and says which operation failed
//! and, where known, on which path. Errors of links are `std::io::Error`s.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Which operation failed, and on which path where one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureContext {
    /// The operation, as a verb: "open", "sync data".
    pub operation: &'static str,
    /// The path it was done on.
    pub path: Option<PathBuf>,
}

impl FailureContext {
    /// The context of `operation` on `path`.
    pub fn new(operation: &'static str, path: &Path) -> Self {
        FailureContext { operation, path: Some(path.to_owned()) }
    }

    /// The context of an operation without a path.
    pub fn without_path(operation: &'static str) -> Self {
        FailureContext { operation, path: None }
    }
}

impl fmt::Display for FailureContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{} {}", self.operation, path.display()),
            None => f.write_str(self.operation),
        }
    }
}

/// A failed disk operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The device or the kernel refused; the errno tells why. On a write or sync path: stop writing.
    #[error("{1}: {message}", message = describe(*.0))]
    IoError(i32, FailureContext),
    /// The path, or a directory on the way, does not exist.
    #[error("{0}: not found")]
    NotFound(FailureContext),
    /// The process lacks the right.
    #[error("{0}: permission denied")]
    PermissionDenied(FailureContext),
    /// The name exists already, or the lock is held by another opener.
    #[error("{0}: exists already")]
    AlreadyExists(FailureContext),
    /// The handle is closed or does not allow this operation.
    #[error("{0}: invalid file handle")]
    InvalidHandle(FailureContext),
    /// Offset or length are out of range, or unaligned for direct I/O.
    #[error("{0}: invalid offset or length")]
    InvalidOffset(FailureContext),
    /// The buffer has less capacity than the requested length.
    #[error("{0}: buffer too small")]
    BufferTooSmall(FailureContext),
    /// This file system or kernel does not offer the operation.
    #[error("{0}: not supported here")]
    Unsupported(FailureContext),
    /// The ring itself failed, not the operation on it.
    #[error("{0}: the io_uring refused the operation")]
    IoUringError(FailureContext),
    /// The device or the quota is full.
    #[error("{0}: no space left")]
    NoSpace(FailureContext),
    /// The directory has entries.
    #[error("{0}: directory not empty")]
    NotEmpty(FailureContext),
    /// A component of the path is no directory.
    #[error("{0}: not a directory")]
    NotADirectory(FailureContext),
    /// The path is a directory where a file is needed.
    #[error("{0}: is a directory")]
    IsADirectory(FailureContext),
    /// An invariant of this crate broke.
    #[error("{0}: internal error")]
    Internal(FailureContext),
}

fn describe(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl StorageError {
    /// Sorts `errno` into its variant.
    pub fn from_errno(errno: i32, context: FailureContext) -> Self {
        match errno {
            libc::ENOENT => StorageError::NotFound(context),
            libc::EACCES | libc::EPERM => StorageError::PermissionDenied(context),
            libc::EEXIST => StorageError::AlreadyExists(context),
            libc::EBADF => StorageError::InvalidHandle(context),
            libc::EINVAL | libc::EOVERFLOW | libc::EFBIG => StorageError::InvalidOffset(context),
            libc::EOPNOTSUPP | libc::ENOSYS => StorageError::Unsupported(context),
            libc::ENOSPC | libc::EDQUOT => StorageError::NoSpace(context),
            libc::ENOTEMPTY => StorageError::NotEmpty(context),
            libc::ENOTDIR => StorageError::NotADirectory(context),
            libc::EISDIR => StorageError::IsADirectory(context),
            other => StorageError::IoError(other, context),
        }
    }

    /// Sorts an I/O error into its variant; one without an errno counts as EIO.
    pub fn from_io(error: &io::Error, context: FailureContext) -> Self {
        Self::from_errno(error.raw_os_error().unwrap_or(libc::EIO), context)
    }

    /// The errno that describes this error best.
    pub fn errno(&self) -> i32 {
        match self {
            StorageError::IoError(errno, _) => *errno,
            StorageError::NotFound(_) => libc::ENOENT,
            StorageError::PermissionDenied(_) => libc::EACCES,
            StorageError::AlreadyExists(_) => libc::EEXIST,
            StorageError::InvalidHandle(_) => libc::EBADF,
            StorageError::InvalidOffset(_) | StorageError::BufferTooSmall(_) => libc::EINVAL,
            StorageError::Unsupported(_) => libc::EOPNOTSUPP,
            StorageError::NoSpace(_) => libc::ENOSPC,
            StorageError::NotEmpty(_) => libc::ENOTEMPTY,
            StorageError::NotADirectory(_) => libc::ENOTDIR,
            StorageError::IsADirectory(_) => libc::EISDIR,
            StorageError::IoUringError(_) | StorageError::Internal(_) => libc::EIO,
        }
    }

    /// Whether the process, or the machine, has as many files open as it may.
    pub fn is_out_of_descriptors(&self) -> bool {
        matches!(self, StorageError::IoError(libc::EMFILE | libc::ENFILE, _))
    }

    /// What was being done when it failed.
    pub fn context(&self) -> &FailureContext {
        match self {
            StorageError::IoError(_, context)
            | StorageError::NotFound(context)
            | StorageError::PermissionDenied(context)
            | StorageError::AlreadyExists(context)
            | StorageError::InvalidHandle(context)
            | StorageError::InvalidOffset(context)
            | StorageError::BufferTooSmall(context)
            | StorageError::Unsupported(context)
            | StorageError::IoUringError(context)
            | StorageError::NoSpace(context)
            | StorageError::NotEmpty(context)
            | StorageError::NotADirectory(context)
            | StorageError::IsADirectory(context)
            | StorageError::Internal(context) => context,
        }
    }
}

impl From<StorageError> for io::Error {
    fn from(error: StorageError) -> Self {
        let kind = io::Error::from_raw_os_error(error.errno()).kind();
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_failed_where() {
        let context = || FailureContext::new("open", Path::new("/data/log"));
        let check = |errno: i32, text: &str| {
            let error = StorageError::from_errno(errno, context());
            assert_eq!(error.to_string(), text);
            assert_eq!(error.context(), &context());
        };
        check(libc::ENOENT, "open /data/log: not found");
        check(libc::EROFS, "open /data/log: Read-only file system (os error 30)");
        check(libc::EIO, "open /data/log: Input/output error (os error 5)");
    }

    #[test]
    fn errno_survives_the_variant() {
        for errno in
            [libc::ENOENT, libc::EROFS, libc::EEXIST, libc::ENOSPC, libc::EIO, libc::ENOTEMPTY]
        {
            let error = StorageError::from_errno(errno, FailureContext::without_path("test"));
            assert_eq!(error.errno(), errno);
        }
    }
}
