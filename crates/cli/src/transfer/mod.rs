//! Copying trees into a cluster and out of it.
//!
//! Invariant: whatever was copied has its attributes; a directory gets its own after everything
//! in it, since each entry made would change its times. Memory is bounded by [`WORKERS`],
//! [`BYTES_IN_FLIGHT_MAX`] and the names of the directories on the way. A failure of one entry is
//! told and the others go on, unless the cluster itself is out of reach.

mod budget;
mod get;
mod pieces;
mod progress;
mod put;
mod queue;

pub(crate) use get::get;
pub(crate) use put::put;

use std::collections::BTreeMap;
use std::path::Path;

use ringfs_client::ClientError;
use ringfs_wire::Errno;

use crate::error::CliError;
use crate::transfer::progress::Progress;

/// Entries copied at a time.
const WORKERS: usize = 48;
/// Bytes of file data held in memory at a time.
const BYTES_IN_FLIGHT_MAX: usize = 64 << 20;
/// Bytes of a file copied in one step; files larger than this are copied in parallel steps.
const PIECE_LEN: u64 = 4 << 20;
/// Pieces of one file copied at a time.
const PIECES_IN_FLIGHT: usize = 8;

/// What the user wants of a copy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TransferOptions {
    /// Read everything back and compare.
    pub(crate) checksum: bool,
    /// Make everything durable at the end.
    pub(crate) sync: bool,
    /// The destination is the copy itself, even if a directory of that name exists.
    pub(crate) no_target_directory: bool,
}

/// Why an entry was not copied.
enum Failure {
    /// Something on this machine.
    Local(CliError),
    /// Something in the cluster.
    Cluster(ClientError),
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Local(error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Cluster(error)
    }
}

impl Failure {
    /// Tells what became of the entry at `path`. The copy ends if nothing further can work.
    fn tell(self, path: &Path, progress: &Progress) {
        let error = match self {
            Self::Local(error) => return progress.fail(&error),
            Self::Cluster(error) => error,
        };
        let is_hopeless = match &error {
            ClientError::Failed { .. } => matches!(error.errno(), Errno::ENOSPC | Errno::EROFS),
            _ => true,
        };
        let text = CliError::failed(format!("{}: {error}", path.display()));
        match is_hopeless {
            true => progress.abort(&text),
            false => progress.fail(&text),
        }
    }
}

/// Files with several names: the first name is copied, the others become links to the copy.
struct LinkTable<Key, Copy, Item> {
    files: BTreeMap<Key, LinkState<Copy, Item>>,
}

enum LinkState<Copy, Item> {
    /// Being copied; these names wait for it.
    Copying(Vec<Item>),
    Done(Copy),
}

/// What to do with one name of such a file.
enum LinkStep<Copy> {
    /// Copy the file, then call [`LinkTable::finish`].
    CopyFile,
    /// Link to the copy.
    Link(Copy),
    /// The name waits; it comes back when the copy is done.
    Wait,
}

impl<Key: Ord + Clone, Copy: Clone, Item> LinkTable<Key, Copy, Item> {
    fn new() -> Self {
        Self { files: BTreeMap::new() }
    }

    fn step(&mut self, key: &Key, item: impl FnOnce() -> Item) -> LinkStep<Copy> {
        match self.files.get_mut(key) {
            None => {
                self.files.insert(key.clone(), LinkState::Copying(Vec::new()));
                LinkStep::CopyFile
            }
            Some(LinkState::Done(copy)) => LinkStep::Link(copy.clone()),
            Some(LinkState::Copying(waiting)) => {
                waiting.push(item());
                LinkStep::Wait
            }
        }
    }

    /// The copy is done, or failed with `None`: the names that waited come back, to link to it or
    /// to try a copy of their own.
    fn finish(&mut self, key: &Key, copy: Option<Copy>) -> Vec<Item> {
        let state = match copy {
            Some(copy) => self.files.insert(key.clone(), LinkState::Done(copy)),
            None => self.files.remove(key),
        };
        match state {
            Some(LinkState::Copying(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_copied_and_others_link_to_it() {
        let mut table: LinkTable<u32, &str, &str> = LinkTable::new();
        assert!(matches!(table.step(&1, || "a"), LinkStep::CopyFile));
        assert!(matches!(table.step(&1, || "b"), LinkStep::Wait));
        assert!(matches!(table.step(&2, || "c"), LinkStep::CopyFile));
        assert_eq!(table.finish(&1, None), ["b"]);
        assert!(matches!(table.step(&1, || "b"), LinkStep::CopyFile));
        assert!(table.finish(&1, Some("copy")).is_empty());
        assert!(matches!(table.step(&1, || "d"), LinkStep::Link("copy")));
    }
}
