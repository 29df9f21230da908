//! The errno that answers a request: the one place where it is chosen.

use ringfs_client::ClientError;
use ringfs_wire::{Errno, Status};

use crate::abi::Malformed;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) Errno);

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self(Errno::EINVAL)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let errno = match &error {
            ClientError::Failed { status: Status::Failed(errno), .. } => *errno,
            ClientError::TargetFailed { .. } => Errno::EROFS,
            // It may have happened: nobody may try it again unasked, as a stale name would be.
            ClientError::SessionExpired { .. }
            | ClientError::Failed { .. }
            | ClientError::Unreachable { .. }
            | ClientError::Refused { .. }
            | ClientError::Protocol { .. } => Errno::EIO,
        };
        if errno == Errno::EIO || errno == Errno::EROFS {
            tracing::warn!(%error, "answered {}", errno.name());
        } else {
            tracing::debug!(%error, "answered {}", errno.name());
        }
        Self(errno)
    }
}

/// What an operation on an inode number, not on a name, fails with: where the inode is gone, the
/// kernel has to look the name up again.
pub(crate) fn gone_is_stale(failure: impl Into<Failure>) -> Failure {
    match failure.into() {
        Failure(Errno::ENOENT) => Failure(Errno::ESTALE),
        failure => failure,
    }
}
