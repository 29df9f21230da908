//! Why a command did not do what it was asked, sorted by what `main` does next: which exit code,
//! and whether there is anything left to say.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The end of a command that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The arguments make no sense together: shown with exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Refused or failed; the text says what, where, and what to do about it.
    #[error("{0}")]
    Failed(String),
    /// The local machine refused a file operation.
    #[error("cannot {doing} {path}: {why}", path = path.display(), why = plain(source))]
    Local { doing: &'static str, path: PathBuf, source: io::Error },
    /// Everything has been said already.
    #[error("")]
    Said,
    /// Everything has been said already: something could not be checked.
    #[error("")]
    Unchecked,
    /// Nobody reads the output any more, as with `| head`: end quietly.
    #[error("the output was closed")]
    OutputClosed,
}

impl CliError {
    /// A failure told in one line.
    pub(crate) fn failed(text: impl fmt::Display) -> Self {
        Self::Failed(text.to_string())
    }

    /// A failed local file operation; `doing` completes "cannot … PATH".
    pub(crate) fn local(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Local { doing, path: path.to_owned(), source: source.into() }
    }

    /// A failed write to standard output.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("cannot write to the standard output: {error}")),
        }
    }
}

/// An I/O error without the number that means nothing to most.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_lowercase()
}
