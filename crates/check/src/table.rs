//! What a check remembers of each inode, in as few bytes as it can.

use ringfs_wire::{Generation, InodeFact, InodeNumber, InodeType, Timestamp};

/// Somebody has it open, or may have.
const OPEN: u8 = 1;
/// An operation is at work on it.
const BUSY: u8 = 2;
/// It holds nothing.
const EMPTY: u8 = 4;

const NANOS: i64 = 1_000_000_000;

/// One inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) inode: InodeNumber,
    pub(crate) reach: u64,
    pub(crate) generation: Generation,
    /// Nanoseconds since 1970.
    changed: i64,
    pub(crate) links: u32,
    /// Names seen so far.
    pub(crate) names: u32,
    pub(crate) chunk_size: u32,
    pub(crate) kind: InodeType,
    flags: u8,
}

// A million inodes take 48 MB.
const _: () = assert!(size_of::<Known>() == 48);

impl Known {
    fn new(fact: &InodeFact) -> Self {
        let entries = fact.directory.as_ref().map_or(0, |directory| directory.entries);
        let is_plain = matches!(fact.kind, InodeType::File | InodeType::Directory);
        let is_empty = is_plain && fact.size == 0 && entries == 0;
        let flag = |is: bool, bit: u8| if is { bit } else { 0 };
        Self {
            inode: fact.inode,
            reach: fact.reach,
            generation: fact.generation,
            changed: to_nanos(fact.changed),
            links: fact.links,
            names: 0,
            chunk_size: fact.chunk_size,
            kind: fact.kind,
            flags: flag(fact.open, OPEN) | flag(fact.busy, BUSY) | flag(is_empty, EMPTY),
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.flags & OPEN != 0
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.flags & BUSY != 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flags & EMPTY != 0
    }

    pub(crate) fn changed(&self) -> Timestamp {
        let (seconds, nanos) = (self.changed.div_euclid(NANOS), self.changed.rem_euclid(NANOS));
        Timestamp { seconds, nanos: nanos as u32 }
    }
}

/// Times that do not fit are nobody's: a repair that names one is refused.
fn to_nanos(time: Timestamp) -> i64 {
    time.seconds.saturating_mul(NANOS).saturating_add(i64::from(time.nanos))
}

/// The inodes of one target, by number.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Known>);

impl Table {
    /// Adds an inode; false if it does not come in order.
    pub(crate) fn push(&mut self, fact: &InodeFact) -> bool {
        if self.0.last().is_some_and(|last| last.inode >= fact.inode) {
            return false;
        }
        self.0.push(Known::new(fact));
        true
    }

    pub(crate) fn get(&self, inode: InodeNumber) -> Option<&Known> {
        let at = self.0.binary_search_by_key(&inode, |known| known.inode).ok()?;
        Some(&self.0[at])
    }

    pub(crate) fn get_mut(&mut self, inode: InodeNumber) -> Option<&mut Known> {
        let at = self.0.binary_search_by_key(&inode, |known| known.inode).ok()?;
        Some(&mut self.0[at])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Known> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive() {
        for (seconds, nanos) in [(0, 0), (1_800_000_000, 999_999_999), (-1, 1), (-2, 0)] {
            let time = Timestamp { seconds, nanos };
            let changed = to_nanos(time);
            let (seconds, nanos) = (changed.div_euclid(NANOS), changed.rem_euclid(NANOS));
            assert_eq!(Timestamp { seconds, nanos: nanos as u32 }, time);
        }
    }
}
