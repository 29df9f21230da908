//! Why a client operation failed, by what the caller does next.
//!
//! Codes come from the servers or from here; the text is made when an error is shown.

use std::fmt;

use ringfs_rpc::CallError;
use ringfs_wire::{Errno, InodeNumber, Name, Status, TargetId};

/// What an operation was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// Nothing in particular, or the whole cluster.
    #[default]
    Cluster,
    /// An inode.
    Inode(InodeNumber),
    /// A name in a directory.
    Entry(InodeNumber, Name),
    /// A path, as the caller gave it.
    Path(Box<[u8]>),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the cluster"),
            Self::Inode(inode) => write!(f, "inode {inode}"),
            Self::Entry(directory, name) => write!(f, "\"{name}\" in directory {directory}"),
            Self::Path(path) => f.write_str(&String::from_utf8_lossy(path)),
        }
    }
}

/// What was being done, and to what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// A verb: "write", "look up".
    pub operation: &'static str,
    /// What it was about.
    pub subject: Subject,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = if self.operation.is_empty() { "operate on" } else { self.operation };
        write!(f, "cannot {operation} {}", self.subject)
    }
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The file system said no: the application deals with it.
    #[error("{place}: {status}")]
    Failed {
        /// Where.
        place: Place,
        /// Why.
        status: Status,
    },
    /// A target did not answer in time. Whether the operation happened is unknown; try again when
    /// the target is back.
    #[error(
        "{place}: target {target} does not answer ({last}); see `ringfs status`, it is not known \
         whether the operation happened"
    )]
    Unreachable {
        /// Where.
        place: Place,
        /// Who did not answer.
        target: TargetId,
        /// What the last attempt ended with.
        last: String,
    },
    /// A target refuses this client: wrong cluster, key or version.
    #[error("{place}: target {target} refuses this client: {reason}")]
    Refused {
        /// Where.
        place: Place,
        /// Who refuses.
        target: TargetId,
        /// Why.
        reason: String,
    },
    /// The session was silent for too long at a target: open files are stale, and whether the
    /// operation happened is unknown. Close them and go on; [`crate::Client::renew_session`]
    /// starts over at once.
    #[error("{place}: the session expired at target {target}; files opened before are stale")]
    SessionExpired {
        /// Where.
        place: Place,
        /// Which target ended it.
        target: TargetId,
    },
    /// A target stopped writing after an error of its device: an operator has to act. Whether the
    /// operation happened shows when its node has been started again.
    #[error(
        "{place}: target {target} stopped writing after a device error; see the log of its node"
    )]
    TargetFailed {
        /// Where.
        place: Place,
        /// Which target.
        target: TargetId,
    },
    /// A target answered what no correct server answers.
    #[error("{place}: target {target} broke the protocol: {what}")]
    Protocol {
        /// Where.
        place: Place,
        /// Which target.
        target: TargetId,
        /// What was wrong.
        what: String,
    },
}

impl ClientError {
    /// A refusal decided here.
    pub(crate) fn refused(errno: Errno) -> Self {
        Self::Failed { place: Place::default(), status: Status::Failed(errno) }
    }

    pub(crate) fn protocol(target: TargetId, what: impl Into<String>) -> Self {
        Self::Protocol { place: Place::default(), target, what: what.into() }
    }

    /// What a call to `target` ended with.
    pub(crate) fn from_call(error: CallError, target: TargetId) -> Self {
        let place = Place::default();
        match error {
            CallError::Status { status: Status::SessionExpired, .. } => {
                Self::SessionExpired { place, target }
            }
            CallError::Status { status: Status::TargetFailed, .. } => {
                Self::TargetFailed { place, target }
            }
            CallError::Status { status, .. } => Self::Failed { place, status },
            CallError::Deadline { target, last } => Self::Unreachable { place, target, last },
            CallError::Refused { refusal, address, .. } => {
                Self::Refused { place, target, reason: format!("at {address}, {refusal}") }
            }
            CallError::BadReply { error, .. } => {
                Self::Protocol { place, target, what: error.to_string() }
            }
            CallError::TooLarge { .. } => Self::Failed { place, status: Errno::EINVAL.into() },
        }
    }

    /// Says what was being done, unless a more exact place is known already.
    pub(crate) fn during(mut self, operation: &'static str, subject: Subject) -> Self {
        let place = self.place_mut();
        if place.operation.is_empty() {
            *place = Place { operation, subject };
        }
        self
    }

    /// Names the path the caller gave instead of the inode met on its way.
    pub(crate) fn on_path(mut self, operation: &'static str, path: &[u8]) -> Self {
        *self.place_mut() = Place { operation, subject: Subject::Path(path.into()) };
        self
    }

    fn place_mut(&mut self) -> &mut Place {
        match self {
            Self::Failed { place, .. }
            | Self::Unreachable { place, .. }
            | Self::Refused { place, .. }
            | Self::SessionExpired { place, .. }
            | Self::TargetFailed { place, .. }
            | Self::Protocol { place, .. } => place,
        }
    }

    /// The errno an application is shown.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Failed { status, .. } => status.errno(),
            Self::Unreachable { .. } => Errno::EIO,
            Self::Refused { .. } => Errno::EACCES,
            Self::SessionExpired { .. } => Errno::ESTALE,
            Self::TargetFailed { .. } => Errno::EROFS,
            Self::Protocol { .. } => Errno::EPROTO,
        }
    }

    /// Whether the operation may have happened all the same. Otherwise it did not.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::SessionExpired { .. }
                | Self::TargetFailed { .. }
                | Self::Protocol { .. }
        )
    }

    /// Whether the content generation of the request was too old.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Failed { status: Status::StaleGeneration, .. })
    }

    pub(crate) fn is(&self, errno: Errno) -> bool {
        matches!(self, Self::Failed { status: Status::Failed(found), .. } if *found == errno)
    }
}

impl From<Errno> for ClientError {
    fn from(errno: Errno) -> Self {
        Self::refused(errno)
    }
}
