//! Where the directories of a run seem to lie, to have some of them moved into each other at once.
//!
//! A guess from what clients were told; what is drawn from it may fail as any other call.

use std::collections::BTreeMap;

use ringfs_platform::sim::SimulationRng;
use ringfs_wire::{InodeNumber, RenameMode};

use crate::operation::{Label, Operation, Place};

/// The tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    places: BTreeMap<Place, InodeNumber>,
    /// The other half of a crossing that a client has begun in this round.
    counterpart: Option<Operation>,
}

impl Tree {
    /// A directory was made.
    pub(crate) fn made(&mut self, place: Place, inode: InodeNumber) {
        self.places.insert(place, inode);
    }

    /// A name was moved.
    pub(crate) fn moved(&mut self, from: Place, to: Place) {
        match self.places.remove(&from) {
            Some(inode) => self.places.insert(to, inode),
            None => self.places.remove(&to),
        };
    }

    /// An inode is gone.
    pub(crate) fn forget(&mut self, inode: InodeNumber) {
        self.places.retain(|place, named| *named != inode && place.directory != inode);
    }

    /// A new round.
    pub(crate) fn begin_round(&mut self) {
        self.counterpart = None;
    }

    /// One of two renames that together make a circle of two directories and one below each.
    pub(crate) fn crossing(&mut self, rng: &SimulationRng) -> Option<Operation> {
        if !rng.chance(500) {
            return None;
        }
        if let Some(counterpart) = self.counterpart.take() {
            return Some(counterpart);
        }
        let inner = self.places.iter().filter_map(|(place, child)| {
            let parent = place.directory;
            let (above, _) = self.places.iter().find(|(_, inode)| **inode == parent)?;
            Some((*above, parent, *child))
        });
        let inner: Vec<_> = inner.collect();
        let pick = || inner.get(rng.below(inner.len().max(1) as u64) as usize).copied();
        let ((first, one, below_one), (second, other, below_other)) = (pick()?, pick()?);
        if one == other || below_one == other || below_other == one {
            return None;
        }
        let into = |directory| Place { directory, label: Label(rng.below(2) as u8) };
        let mode = RenameMode::Replace;
        self.counterpart = Some(Operation::Rename { from: second, to: into(below_one), mode });
        Some(Operation::Rename { from: first, to: into(below_other), mode })
    }
}
