//! Repairing what is safe to repair: one record at a time, by the target that keeps it.

use ringfs_wire::{InodeNumber, Name, Repair, RepairRecord, TargetId};

use crate::checker::{Checker, Problem};
use crate::finding::Finding;

/// What may be repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairOptions {
    /// The directory that takes what has lost its name; without one, that stays as it is.
    pub lost_and_found: Option<InodeNumber>,
    /// Remove names that lead to nothing.
    pub drop_dangling: bool,
    /// Let files read as zeros where their segments are lost.
    pub accept_loss: bool,
}

/// What became of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is repaired.
    Repaired,
    /// Repairing it is not safe, or was not asked for.
    Left,
    /// It was not so any more.
    Gone,
    /// It could not be repaired.
    Failed(String),
}

impl Problem {
    /// Whether repairing it needs a directory for what has lost its name.
    pub fn needs_lost_and_found(&self) -> bool {
        matches!(self.finding, Finding::Orphan { is_empty: false, .. })
    }
}

impl Checker {
    /// Repairs a problem, if that is safe.
    pub async fn repair(&self, problem: &Problem, options: RepairOptions) -> Outcome {
        let Some((target, repair)) = self.plan(problem, options) else { return Outcome::Left };
        match self.ask(target, &RepairRecord { repair }).await {
            Ok(true) => Outcome::Repaired,
            Ok(false) => Outcome::Gone,
            Err(unread) => Outcome::Failed(unread.why),
        }
    }

    /// Who has to do what.
    fn plan(&self, problem: &Problem, options: RepairOptions) -> Option<(TargetId, Repair)> {
        let home = |inode: InodeNumber| self.map().home(inode);
        Some(match problem.finding.clone() {
            Finding::LeakedChunks { inode, .. } => (problem.target, Repair::DropChunks { inode }),
            Finding::ChunksAstray { inode, chunks, chunk_size } => {
                (problem.target, Repair::PunchChunks { inode, chunk_size, chunks })
            }
            Finding::ChunksBeyond { inode, generation, .. } => {
                (home(inode), Repair::CutTail { inode, above: generation })
            }
            Finding::GenerationAhead { inode, generation, .. } => {
                (home(inode), Repair::CutTail { inode, above: generation })
            }
            Finding::WrongLinks { inode, names: links, changed, .. } => {
                (home(inode), Repair::SetLinks { inode, changed, links })
            }
            Finding::WrongCounts { inode, .. } => (home(inode), Repair::CountDirectory { inode }),
            Finding::WrongPlace { inode, place, changed } => {
                (home(inode), Repair::SetPlace { inode, changed, place })
            }
            Finding::Unreleased { inode, changed }
            | Finding::Orphan { inode, is_empty: true, changed, .. } => {
                (home(inode), Repair::Free { inode, changed })
            }
            Finding::Orphan { inode, kind, .. } => {
                let directory = options.lost_and_found?;
                let name = Name::new(format!("{inode}").as_bytes()).ok()?;
                (home(directory), Repair::Adopt { directory, name, inode, kind })
            }
            Finding::DanglingName { directory, name, inode } if options.drop_dangling => {
                (home(directory), Repair::DropName { directory, name, inode })
            }
            Finding::SegmentMissing { inode, run } if options.accept_loss => {
                (problem.target, Repair::ForgetSegment { inode, run })
            }
            _ => return None,
        })
    }
}
