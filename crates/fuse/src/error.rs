//! Why a mount did not come about, or ended.

use std::io;

use ringfs_client::ClientError;
use ringfs_platform::fuse::FuseError;

/// Why a mount did not come about, or ended, by what the user does next.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The directory cannot be mounted or unmounted.
    #[error(transparent)]
    Directory(#[from] FuseError),
    /// The cluster does not answer, or not well: see whether it runs.
    #[error(transparent)]
    Cluster(#[from] ClientError),
    /// The kernel is too old.
    #[error(
        "the kernel speaks version {major}.{minor} of the FUSE protocol; RingFS needs 7.31 or \
         newer (Linux 5.4)"
    )]
    KernelTooOld {
        /// The kernel's major version.
        major: u32,
        /// The kernel's minor version.
        minor: u32,
    },
    /// The kernel broke the connection off, or the protocol.
    #[error("the connection to the kernel failed: {0}")]
    Connection(#[from] io::Error),
}
