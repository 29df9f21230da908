//! Locks on files: what they are, and the ranges one owner holds.
//!
//! Invariant of [`LockRanges`]: ranges are disjoint, and neighbours of one mode are one range.

use std::collections::BTreeMap;

use crate::codec::{DecodeError, Reader, Wire, wire_enum, wire_struct};
use crate::ids::InodeNumber;

/// Which locks exclude each other: those of one space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LockSpace {
    /// Locks of byte ranges, by fcntl.
    Posix = 0,
    /// Locks of whole files, by flock.
    Flock = 1,
}

wire_enum!(LockSpace, "lock space" {
    0 => Posix {},
    1 => Flock {},
});

/// What a lock excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LockMode {
    /// Exclusive locks of others.
    Shared = 1,
    /// All locks of others.
    Exclusive = 2,
}

impl LockMode {
    /// Whether two owners cannot have these at once.
    pub fn excludes(self, other: LockMode) -> bool {
        self == Self::Exclusive || other == Self::Exclusive
    }
}

wire_enum!(LockMode, "lock mode" {
    1 => Shared {},
    2 => Exclusive {},
});

/// Who locks, among those of one client process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockOwner {
    /// The space of its locks.
    pub space: LockSpace,
    /// A number the client chose.
    pub id: u64,
}
wire_struct!(LockOwner { space, id });

/// Bytes of a file, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    /// First byte.
    pub start: u64,
    /// Last byte, not before the first.
    pub last: u64,
}

impl LockRange {
    /// Every byte there can be.
    pub const ALL: Self = Self { start: 0, last: u64::MAX };

    /// What both have.
    fn overlap(self, other: Self) -> Option<Self> {
        let (start, last) = (self.start.max(other.start), self.last.min(other.last));
        (start <= last).then_some(Self { start, last })
    }
}

impl Wire for LockRange {
    fn put(&self, out: &mut Vec<u8>) {
        self.start.put(out);
        self.last.put(out);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (start, last) = (u64::get(reader)?, u64::get(reader)?);
        if start > last {
            Err(DecodeError::Invalid("lock range"))
        } else {
            Ok(Self { start, last })
        }
    }
}

/// A lock, held or wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    /// Whose it is.
    pub owner: LockOwner,
    /// What it covers.
    pub range: LockRange,
    /// What it excludes.
    pub mode: LockMode,
    /// The process that asked for it, to be shown to others.
    pub pid: u32,
}
wire_struct!(FileLock { owner, range, mode, pid });

/// A lock that a client holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// The locked inode.
    pub inode: InodeNumber,
    /// The lock.
    pub lock: FileLock,
}
wire_struct!(HeldLock { inode, lock });

/// Body of the answer to a request that changes locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockReply {
    /// Done. The number under which the home keeps the locks of the client process.
    Done(u64),
    /// Others hold what is wanted: ask again.
    Waiting,
    /// The home keeps no locks under the number that the request named: they are lost.
    Lost,
}

impl Wire for LockReply {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done(registration) => {
                out.push(0);
                registration.put(out);
            }
            Self::Waiting => out.push(1),
            Self::Lost => out.push(2),
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(reader)? {
            0 => Ok(Self::Done(u64::get(reader)?)),
            1 => Ok(Self::Waiting),
            2 => Ok(Self::Lost),
            _ => Err(DecodeError::Invalid("lock reply")),
        }
    }
}

/// The ranges that one owner has locked in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockRanges {
    /// By first byte: last byte and mode.
    ranges: BTreeMap<u64, (u64, LockMode)>,
}

impl LockRanges {
    /// How many ranges there are.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What is locked, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (LockRange, LockMode)> {
        self.ranges
            .iter()
            .map(|(start, (last, mode))| (LockRange { start: *start, last: *last }, *mode))
    }

    /// What is locked within `range`, cut to it, in ascending order.
    pub fn within(&self, range: LockRange) -> Vec<(LockRange, LockMode)> {
        let before = self.ranges.range(..=range.last).rev();
        let mut found: Vec<_> = before
            .map_while(|(start, (last, mode))| {
                Some((LockRange { start: *start, last: *last }.overlap(range)?, *mode))
            })
            .collect();
        found.reverse();
        found
    }

    /// The first lock that excludes one of `mode` somewhere in `range`.
    pub fn conflict(&self, range: LockRange, mode: LockMode) -> Option<(LockRange, LockMode)> {
        let hit = |(found, held): &(LockRange, LockMode)| {
            held.excludes(mode) && found.overlap(range).is_some()
        };
        match mode {
            LockMode::Exclusive => {
                let first = self.within(range).first()?.0.start;
                let (start, (last, mode)) = self.ranges.range(..=first).next_back()?;
                Some((LockRange { start: *start, last: *last }, *mode))
            }
            LockMode::Shared => self.iter().find(hit),
        }
    }

    /// Whether `mode` is held everywhere in `range`, or more than it.
    pub fn covers(&self, range: LockRange, mode: LockMode) -> bool {
        let mut next = Some(range.start);
        for (found, held) in self.within(range) {
            if next != Some(found.start) || mode == LockMode::Exclusive && held != mode {
                return false;
            }
            next = found.last.checked_add(1);
        }
        next.is_none_or(|next| next > range.last)
    }

    /// Locks `range` in `mode`, whatever was there; with `None` unlocks it.
    pub fn set(&mut self, mut range: LockRange, mode: Option<LockMode>) {
        let touched = self.within(range);
        for (found, held) in touched {
            let (start, (last, _)) = self
                .ranges
                .range(..=found.start)
                .next_back()
                .map(|(start, value)| (*start, *value))
                .expect("what is within a range is there");
            self.ranges.remove(&start);
            if start < range.start {
                self.ranges.insert(start, (range.start - 1, held));
            }
            if last > range.last {
                self.ranges.insert(range.last + 1, (last, held));
            }
        }
        let Some(mode) = mode else { return };
        if let Some((start, (last, held))) = self.ranges.range(..range.start).next_back()
            && *held == mode
            && last + 1 == range.start
        {
            range.start = *start;
        }
        if let Some(next) = range.last.checked_add(1)
            && let Some((last, held)) = self.ranges.get(&next).copied()
            && held == mode
        {
            self.ranges.remove(&next);
            range.last = last;
        }
        self.ranges.insert(range.start, (range.last, mode));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES: u64 = 24;

    /// One mode per byte.
    type Model = [Option<LockMode>; BYTES as usize];

    fn mode() -> impl Strategy<Value = Option<LockMode>> {
        prop_oneof![Just(None), Just(Some(LockMode::Shared)), Just(Some(LockMode::Exclusive))]
    }

    fn range() -> impl Strategy<Value = LockRange> {
        (0..BYTES, 0..BYTES).prop_map(|(a, b)| LockRange { start: a.min(b), last: a.max(b) })
    }

    fn bytes(range: LockRange) -> std::ops::RangeInclusive<usize> {
        range.start as usize..=range.last as usize
    }

    fn model_of(ranges: &LockRanges) -> Model {
        let mut model = [None; BYTES as usize];
        for (range, mode) in ranges.iter() {
            model[bytes(range)].fill(Some(mode));
        }
        model
    }

    proptest! {
        #[test]
        fn ranges_agree_with_a_mode_per_byte(
            steps in prop::collection::vec((range(), mode()), 1..40),
            asked in range(),
        ) {
            let (mut ranges, mut model) = (LockRanges::default(), Model::default());
            for (range, mode) in steps {
                ranges.set(range, mode);
                model[bytes(range)].fill(mode);
                prop_assert_eq!(model_of(&ranges), model);
                let pairs: Vec<_> = ranges.iter().collect();
                for pair in pairs.windows(2) {
                    let ((a, held), (b, next)) = (pair[0], pair[1]);
                    prop_assert!(a.last < b.start && (a.last + 1 < b.start || held != next));
                }
            }
            let part = &model[bytes(asked)];
            for wanted in [LockMode::Shared, LockMode::Exclusive] {
                let hit = part.iter().position(|held| held.is_some_and(|h| h.excludes(wanted)));
                let found = ranges.conflict(asked, wanted);
                prop_assert_eq!(found.is_some(), hit.is_some());
                if let (Some((found, held)), Some(hit)) = (found, hit) {
                    let at = asked.start + hit as u64;
                    prop_assert!(found.start <= at && at <= found.last);
                    prop_assert_eq!(model[at as usize], Some(held));
                }
                let covered = part.iter().all(|held| match wanted {
                    LockMode::Shared => held.is_some(),
                    LockMode::Exclusive => *held == Some(wanted),
                });
                prop_assert_eq!(ranges.covers(asked, wanted), covered);
            }
        }
    }

    #[test]
    fn the_last_byte_there_can_be_is_locked_like_any_other() {
        let mut ranges = LockRanges::default();
        ranges.set(LockRange::ALL, Some(LockMode::Exclusive));
        ranges.set(LockRange { start: 10, last: u64::MAX }, None);
        assert!(!ranges.covers(LockRange::ALL, LockMode::Shared));
        ranges.set(LockRange { start: 10, last: u64::MAX }, Some(LockMode::Exclusive));
        assert_eq!(ranges.count(), 1);
        assert!(ranges.covers(LockRange::ALL, LockMode::Exclusive));
    }
}
