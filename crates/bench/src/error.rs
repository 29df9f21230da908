//! Why a benchmark gives no figures.

use std::io;

use ringfs_client::ClientError;
use ringfs_fuse::MountError;
use ringfs_server::ServerError;

/// Why a benchmark gives no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The arguments make no sense: change them.
    #[error("{0}")]
    Usage(String),
    /// There is not enough room for what the arguments ask for.
    #[error("{0}")]
    NoRoom(String),
    /// The user ended the benchmark.
    #[error("interrupted")]
    Interrupted,
    /// A process that serves the cluster has ended.
    #[error("process {0}, which serves the cluster, has ended")]
    ServerEnded(u32),
    /// Something else was read or found than what was written: figures would mean nothing.
    #[error("{0}")]
    Wrong(String),
    /// The machine refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// A client's operation failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The node did not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The mount did not come to be, or broke.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A child process told of an error, or ended too early.
    #[error("{child}: {reason}")]
    Child {
        /// Which one.
        child: String,
        /// What it said.
        reason: String,
    },
    /// Something answered what cannot be: a defect.
    #[error("unexpected: {0}")]
    Unexpected(String),
}

/// Says what was tried when the machine refuses it.
pub(crate) trait Context<T> {
    /// Wraps the error.
    fn context(self, action: impl Into<String>) -> Result<T, BenchError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, action: impl Into<String>) -> Result<T, BenchError> {
        self.map_err(|source| BenchError::Io { action: action.into(), source })
    }
}
