//! How a client of a run reaches the cluster: as a library, or through a mount.

mod mounted;
mod raw;

use ringfs_client::ClientError;
use ringfs_wire::{Errno, InodeNumber};

pub(crate) use mounted::MountDoor;
pub(crate) use raw::RawDoor;

use crate::operation::{Operation, Outcome, Reply};

/// A way to the cluster.
pub(crate) enum Door {
    Raw(RawDoor),
    Mount(MountDoor),
}

/// How an operation failed.
pub(crate) enum Trouble {
    /// With this error, and without effect.
    Failed(Errno),
    /// It may have happened, or still happen.
    Unknown(String),
    /// Like this, and the client's session is over.
    Expired(Outcome),
}

impl Door {
    /// Inodes open through it.
    pub(crate) fn held(&self) -> Vec<InodeNumber> {
        match self {
            Self::Raw(door) => door.held(),
            Self::Mount(door) => door.held(),
        }
    }

    /// Closes everything without waiting for it.
    pub(crate) fn drop_handles(&self) {
        match self {
            Self::Raw(door) => door.drop_handles(),
            Self::Mount(door) => door.drop_handles(),
        }
    }

    /// Carries out one operation.
    pub(crate) async fn perform(&self, operation: &Operation) -> Result<Reply, Trouble> {
        match self {
            Self::Raw(door) => door.perform(operation).await.map_err(Trouble::from),
            Self::Mount(door) => door.perform(operation).await,
        }
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        let outcome = match error.errno() {
            _ if error.is_outcome_unknown() => Outcome::Unknown(error.to_string()),
            Errno::EIO | Errno::EROFS => Outcome::Unknown(error.to_string()),
            errno => Outcome::Failed(errno),
        };
        match (error, outcome) {
            (ClientError::SessionExpired { .. }, outcome) => Self::Expired(outcome),
            (_, Outcome::Failed(errno)) => Self::Failed(errno),
            (error, _) => Self::Unknown(error.to_string()),
        }
    }
}
