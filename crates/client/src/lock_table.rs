//! The file locks that a client process holds, as its threads share them.
//!
//! Invariant: what stands here was granted, and neither given back nor told to be lost; so it can
//! be stated again to a home that restarted. Never held over an await.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringfs_wire::{
    FileLock, HeldLock, InodeNumber, LockOwner, LockRange, LockRanges, LocksRestate, TargetId,
};

/// The locks of one owner in one inode.
#[derive(Default)]
struct Owned {
    ranges: LockRanges,
    pid: u32,
    /// The home forgot locks of this owner, who does not know yet.
    is_lost: bool,
    /// Wishes that were given up and about which the home is being told.
    settling: u32,
    /// The home may hold more for this owner than is known here.
    is_doubtful: bool,
}

/// The locks at one target.
#[derive(Default)]
struct AtTarget {
    /// The number under which the target keeps them; zero before it has told one.
    registration: u64,
    owners: BTreeMap<(InodeNumber, LockOwner), Owned>,
}

/// All locks of a client process.
#[derive(Default)]
pub(crate) struct LockTable {
    targets: Mutex<BTreeMap<TargetId, AtTarget>>,
}

/// Whose locks, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) target: TargetId,
    pub(crate) inode: InodeNumber,
    pub(crate) owner: LockOwner,
}

/// Whether an owner may ask for something now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Yes, naming this registration.
    Go(u64),
    /// Not before what was given up is settled.
    Settling,
    /// Locks were lost, which has now been told.
    Lost,
}

impl LockTable {
    fn targets(&self) -> MutexGuard<'_, BTreeMap<TargetId, AtTarget>> {
        // No change here is left half done by a panic.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, place: Place, change: impl FnOnce(&mut Owned) -> T) -> Option<T> {
        let mut targets = self.targets();
        let owned = targets.get_mut(&place.target)?.owners.get_mut(&(place.inode, place.owner))?;
        Some(change(owned))
    }

    /// Begins a request of an owner.
    pub(crate) fn begin(&self, place: Place) -> Begin {
        let mut targets = self.targets();
        let at = targets.entry(place.target).or_default();
        let Some(owned) = at.owners.get_mut(&(place.inode, place.owner)) else {
            return Begin::Go(at.registration);
        };
        if owned.settling > 0 {
            Begin::Settling
        } else if std::mem::take(&mut owned.is_lost) {
            Begin::Lost
        } else {
            Begin::Go(at.registration)
        }
    }

    /// Notes a lock that was granted.
    pub(crate) fn granted(&self, target: TargetId, registration: u64, held: HeldLock) {
        let mut targets = self.targets();
        let at = targets.entry(target).or_default();
        at.registration = registration;
        let lock = held.lock;
        let owned = at.owners.entry((held.inode, lock.owner)).or_default();
        owned.ranges.set(lock.range, Some(lock.mode));
        owned.pid = lock.pid;
    }

    /// Notes that a range is not locked any more.
    pub(crate) fn cleared(&self, place: Place, range: LockRange) {
        self.change(place, |owned| owned.ranges.set(range, None));
    }

    /// Notes that a target has forgotten what it kept under a registration.
    pub(crate) fn lost(&self, target: TargetId, registration: u64) {
        let mut targets = self.targets();
        let Some(at) = targets.get_mut(&target).filter(|at| at.registration == registration) else {
            return;
        };
        at.registration = 0;
        for owned in at.owners.values_mut().filter(|owned| !owned.ranges.is_empty()) {
            owned.ranges = LockRanges::default();
            owned.is_lost = true;
        }
    }

    /// Notes that a wish is given up and the home told.
    pub(crate) fn settle(&self, place: Place) {
        let mut targets = self.targets();
        let at = targets.entry(place.target).or_default();
        let owned = at.owners.entry((place.inode, place.owner)).or_default();
        owned.settling += 1;
        owned.is_doubtful = true;
    }

    /// Notes that the home has been told, or could not be.
    pub(crate) fn settled(&self, place: Place) {
        self.change(place, |owned| owned.settling = owned.settling.saturating_sub(1));
    }

    /// What an owner holds within a range.
    pub(crate) fn held(&self, place: Place, range: LockRange) -> Vec<FileLock> {
        let held = self.change(place, |owned| {
            let lock = |(range, mode)| FileLock { owner: place.owner, range, mode, pid: owned.pid };
            owned.ranges.within(range).into_iter().map(lock).collect()
        });
        held.unwrap_or_default()
    }

    /// Whether the home may hold anything for an owner.
    pub(crate) fn is_user(&self, place: Place) -> bool {
        let may_hold =
            |owned: &mut Owned| owned.is_doubtful || owned.settling > 0 || !owned.ranges.is_empty();
        self.change(place, may_hold).unwrap_or(false)
    }

    /// Forgets an owner that the home has forgotten.
    pub(crate) fn forget(&self, place: Place) {
        if let Some(at) = self.targets().get_mut(&place.target) {
            at.owners.remove(&(place.inode, place.owner));
        }
    }

    /// What a home that may have restarted is to be told.
    pub(crate) fn restatement(&self, target: TargetId) -> Option<LocksRestate> {
        let targets = self.targets();
        let at = targets.get(&target).filter(|at| at.registration != 0)?;
        let of_owner = |(&(inode, owner), owned): (&(InodeNumber, LockOwner), &Owned)| {
            let pid = owned.pid;
            let held =
                |(range, mode)| HeldLock { inode, lock: FileLock { owner, range, mode, pid } };
            owned.ranges.iter().map(held).collect::<Vec<_>>()
        };
        let locks = at.owners.iter().flat_map(of_owner).collect();
        Some(LocksRestate { registration: at.registration, locks })
    }
}

#[cfg(test)]
mod tests {
    use ringfs_wire::{LockMode, LockSpace};

    use super::*;

    const OWNER: LockOwner = LockOwner { space: LockSpace::Posix, id: 3 };
    const PLACE: Place = Place { target: TargetId(1), inode: InodeNumber(7), owner: OWNER };

    fn held(start: u64, last: u64) -> HeldLock {
        let range = LockRange { start, last };
        let lock = FileLock { owner: OWNER, range, mode: LockMode::Exclusive, pid: 9 };
        HeldLock { inode: PLACE.inode, lock }
    }

    #[test]
    fn what_was_granted_is_stated_again_until_it_is_given_back() {
        let table = LockTable::default();
        assert_eq!((table.restatement(PLACE.target), table.begin(PLACE)), (None, Begin::Go(0)));
        table.granted(PLACE.target, 50, held(0, 9));
        table.granted(PLACE.target, 50, held(10, 19));
        table.cleared(PLACE, LockRange { start: 5, last: 14 });
        let stated = table.restatement(PLACE.target).expect("locks");
        assert_eq!(stated.registration, 50);
        assert_eq!(stated.locks, [held(0, 4), held(15, 19)]);
        assert_eq!(table.held(PLACE, LockRange { start: 3, last: 16 }).len(), 2);
        assert!(table.is_user(PLACE));
        table.forget(PLACE);
        assert!(!table.is_user(PLACE));
        assert_eq!(table.restatement(PLACE.target).expect("a registration").locks, []);
    }

    #[test]
    fn a_loss_is_told_once_to_each_owner_who_had_something() {
        let table = LockTable::default();
        table.granted(PLACE.target, 50, held(0, 9));
        table.lost(PLACE.target, 49);
        assert_eq!(table.begin(PLACE), Begin::Go(50), "an older loss");
        table.lost(PLACE.target, 50);
        let other = Place { inode: InodeNumber(8), ..PLACE };
        assert_eq!(table.begin(other), Begin::Go(0));
        assert_eq!((table.begin(PLACE), table.begin(PLACE)), (Begin::Lost, Begin::Go(0)));
    }

    #[test]
    fn who_gave_up_waits_until_that_is_settled() {
        let table = LockTable::default();
        table.settle(PLACE);
        assert_eq!((table.begin(PLACE), table.is_user(PLACE)), (Begin::Settling, true));
        table.settled(PLACE);
        assert_eq!((table.begin(PLACE), table.is_user(PLACE)), (Begin::Go(0), true));
    }
}
