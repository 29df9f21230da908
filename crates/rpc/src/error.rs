//! How calls fail, by what the caller does next.

use ringfs_wire::{DecodeError, Errno, Status, TargetId};

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server's answer. Retrying gives the same answer, unless the status says otherwise.
    #[error("{status}")]
    Status {
        /// What it said.
        status: Status,
        /// What came with it, such as the newer map of [`Status::Moved`].
        body: Vec<u8>,
    },
    /// No answer in time. Whether the request was carried out is unknown.
    #[error("target {target} did not answer in time ({last})")]
    Deadline {
        /// Who was asked.
        target: TargetId,
        /// The last trouble seen on the way.
        last: String,
    },
    /// The two sides cannot work together; nothing was sent. A new attempt needs another
    /// configuration.
    #[error("target {target} at {address} cannot be used: {refusal}")]
    Refused {
        /// Who was asked.
        target: TargetId,
        /// Where.
        address: String,
        /// Why.
        refusal: Refusal,
    },
    /// Body or bulk exceed what a frame can carry; nothing was sent.
    #[error("{len} bytes are too many for one request")]
    TooLarge {
        /// How many there were.
        len: usize,
    },
    /// The server claims success, but its reply cannot be understood. The request was carried out.
    #[error("the reply of target {target} cannot be understood: {error}")]
    BadReply {
        /// Who answered.
        target: TargetId,
        /// What was wrong.
        error: DecodeError,
    },
}

impl CallError {
    /// The server's status, if the server answered.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The errno an application is shown.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Status { status, .. } => status.errno(),
            Self::Deadline { .. } => Errno::EIO,
            Self::Refused { .. } => Errno::ECONNREFUSED,
            Self::TooLarge { .. } => Errno::EINVAL,
            Self::BadReply { .. } => Errno::EPROTO,
        }
    }
}

/// Why two sides cannot work together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// They speak different protocol versions.
    #[error("it speaks another protocol version; use the same release on both sides")]
    Version,
    /// The other side belongs to another cluster.
    #[error("it belongs to another cluster")]
    Cluster,
    /// The other side does not know our cluster key.
    #[error("it holds another cluster key")]
    Key,
    /// The target is not served at that address.
    #[error("the target is not served there")]
    Target,
    /// The other side does not understand the handshake.
    #[error("it does not understand the handshake")]
    Malformed,
}

impl Refusal {
    /// How a server says it in the handshake.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Version => Status::Failed(Errno::EPROTO),
            Self::Cluster => Status::Failed(Errno::EXDEV),
            Self::Key => Status::Failed(Errno::EACCES),
            Self::Target => Status::Failed(Errno::ENOENT),
            Self::Malformed => Status::Malformed,
        }
    }

    /// What a status means as the answer to a handshake frame before the welcome.
    pub(crate) fn from_status(status: Status) -> Self {
        match status {
            Status::Failed(Errno::EPROTO) => Self::Version,
            Status::Failed(Errno::EXDEV) => Self::Cluster,
            Status::Failed(Errno::EACCES) => Self::Key,
            Status::Failed(Errno::ENOENT) => Self::Target,
            _ => Self::Malformed,
        }
    }
}
