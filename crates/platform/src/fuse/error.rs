//! What can go wrong when mounting and unmounting, sorted by what the user does next.

use std::io;
use std::path::PathBuf;

/// Why a mount could not be made or taken away.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    /// The kernel offers no FUSE here.
    #[error(
        "cannot open /dev/fuse ({0}): load the kernel module with `modprobe fuse`, or pass the \
         device into the container"
    )]
    NoDevice(io::Error),
    /// This process is not root, and the program that mounts for others is missing.
    #[error(
        "{}: mounting takes root or the program fusermount3: install the package fuse3",
        .0.display()
    )]
    NoHelper(PathBuf),
    /// The kernel or fusermount3 refused; the text says why.
    #[error("{}: not permitted: {reason}", directory.display())]
    NotPermitted {
        /// The mount point.
        directory: PathBuf,
        /// What the refusal said.
        reason: String,
    },
    /// There is nothing at the mount point.
    #[error("{}: no such directory", .0.display())]
    MountPointMissing(PathBuf),
    /// The mount point is not a directory.
    #[error("{}: not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Something is mounted there.
    #[error("{}: something is mounted here already", .0.display())]
    AlreadyMounted(PathBuf),
    /// A mount of ours whose process has died is there: unmount it and try again.
    #[error("{}: a mount without a process is here; unmount it first", .0.display())]
    Stale(PathBuf),
    /// Nothing is mounted there.
    #[error("{}: nothing is mounted here", .0.display())]
    NotMounted(PathBuf),
    /// What is mounted there is not ours.
    #[error("{}: this is a mount of type {kind}, not of RingFS", directory.display())]
    OtherFileSystem {
        /// The mount point.
        directory: PathBuf,
        /// The type of the file system.
        kind: String,
    },
    /// Anything else.
    #[error("{operation} {}: {error}", path.display())]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The path it was done on.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}
