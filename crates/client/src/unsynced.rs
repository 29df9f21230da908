//! What the process has changed and not made durable, and whether that may be lost.
//!
//! Every acknowledgement comes with the lineage of the target that gave it: as long as that stays
//! the same, the target has lost nothing. A sync that is answered under another one than a change
//! before it cannot promise that change. Invariant: a loss is told once to each open file that was
//! open when it happened, by the first of its syncs that covers it, and once each to whoever syncs
//! the inode without a handle, or everything.
//!
//! Bounded: the inodes remembered are those changed last. Nothing is locked over an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringfs_wire::{Acknowledged, Errno, InodeNumber, Lineage, TargetId};

/// Parts of the table, so that threads seldom wait for each other.
const PARTS: u64 = 16;
/// Inodes remembered in one part; then the half that was changed longest ago is forgotten.
const INODES_PER_PART: usize = 4_096;

/// Which losses an open file has been told of. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct ToldLosses(Arc<AtomicU64>);

/// The changes of a process that are not durable.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    /// Orders changes, syncs and losses.
    clock: AtomicU64,
    parts: [Mutex<BTreeMap<InodeNumber, Changes>>; PARTS as usize],
    /// When the latest loss was found.
    lost: AtomicU64,
    /// Which losses those who sync everything were told of.
    told: AtomicU64,
}

/// The changes of one inode.
#[derive(Debug, Default)]
struct Changes {
    at: Vec<ChangesAt>,
    /// When a loss was last found; zero if none was.
    lost: u64,
    /// Which losses those without a handle were told of.
    told: u64,
}

/// Those at one target.
#[derive(Debug)]
struct ChangesAt {
    target: TargetId,
    /// Of the earliest.
    lineage: Lineage,
    /// Of the latest, and when it was.
    latest: (Lineage, u64),
}

impl Changes {
    fn moment(&self) -> u64 {
        self.at.iter().map(|at| at.latest.1).fold(self.lost, u64::max)
    }

    /// What was changed before `begun` is durable now, if it is there; whether it may be lost.
    fn synced(&mut self, by: Acknowledged, begun: u64) -> bool {
        let found = self.at.iter().position(|at| at.target == by.target);
        let Some(index) = found else { return false };
        let at = &mut self.at[index];
        let is_lost = at.lineage != by.lineage;
        let (latest, moment) = at.latest;
        match moment > begun {
            true => at.lineage = latest,
            false => drop(self.at.swap_remove(index)),
        }
        is_lost
    }

    /// The same of several targets at once.
    fn synced_all(&mut self, by: &BTreeMap<TargetId, Lineage>, begun: u64) -> bool {
        let changed: Vec<TargetId> = self.at.iter().map(|at| at.target).collect();
        let synced = changed.into_iter().filter_map(|target| Some((target, *by.get(&target)?)));
        synced.fold(false, |is_lost, (target, lineage)| {
            self.synced(Acknowledged { target, lineage }, begun) | is_lost
        })
    }
}

impl Unsynced {
    fn part(&self, inode: InodeNumber) -> MutexGuard<'_, BTreeMap<InodeNumber, Changes>> {
        let part = &self.parts[(inode.0 % PARTS) as usize];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present moment: what is changed from now on is younger.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// What a file opened now has been told of: everything.
    pub(crate) fn told(&self) -> ToldLosses {
        ToldLosses(Arc::new(AtomicU64::new(self.now())))
    }

    /// Notes that a target has acknowledged a change of an inode.
    pub(crate) fn changed(&self, inode: InodeNumber, by: Acknowledged) {
        let moment = self.tick();
        let mut part = self.part(inode);
        if part.len() >= INODES_PER_PART && !part.contains_key(&inode) {
            forget_half(&mut part);
        }
        let changes = part.entry(inode).or_default();
        let latest = (by.lineage, moment);
        match changes.at.iter_mut().find(|at| at.target == by.target) {
            Some(at) => at.latest = latest,
            None => {
                let Acknowledged { target, lineage } = by;
                changes.at.push(ChangesAt { target, lineage, latest });
            }
        }
    }

    /// Notes that a target has synced an inode, asked after the moment `begun`.
    pub(crate) fn synced(&self, inode: InodeNumber, by: Acknowledged, begun: u64) {
        let mut part = self.part(inode);
        let Some(changes) = part.get_mut(&inode) else { return };
        if changes.synced(by, begun) {
            self.note_loss(changes);
            tracing::warn!(%inode, target = %by.target, "{LOST}");
        }
        if changes.moment() == 0 {
            part.remove(&inode);
        }
    }

    /// Notes which targets have synced everything, asked after the moment `begun`.
    pub(crate) fn synced_all(&self, by: &BTreeMap<TargetId, Lineage>, begun: u64) {
        let mut lost = 0;
        for part in &self.parts {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            for changes in part.values_mut() {
                if changes.synced_all(by, begun) {
                    self.note_loss(changes);
                    lost += 1;
                }
            }
            part.retain(|_, changes| changes.moment() > 0);
        }
        if lost > 0 {
            tracing::warn!(inodes = lost, "{LOST}");
        }
    }

    fn note_loss(&self, changes: &mut Changes) {
        let moment = self.tick();
        changes.lost = moment;
        self.lost.fetch_max(moment, Ordering::SeqCst);
    }

    /// Fails if an inode has lost something since an open file was last told, or was opened.
    pub(crate) fn tell(&self, inode: InodeNumber, told: &ToldLosses) -> Result<(), Errno> {
        let lost = self.part(inode).get(&inode).map_or(0, |changes| changes.lost);
        tell(lost, told.0.fetch_max(lost, Ordering::SeqCst))
    }

    /// The same for whoever has no handle.
    pub(crate) fn tell_anybody(&self, inode: InodeNumber) -> Result<(), Errno> {
        let mut part = self.part(inode);
        let Some(changes) = part.get_mut(&inode) else { return Ok(()) };
        tell(changes.lost, std::mem::replace(&mut changes.told, changes.lost))
    }

    /// The same for whoever syncs everything.
    pub(crate) fn tell_all(&self) -> Result<(), Errno> {
        let lost = self.lost.load(Ordering::SeqCst);
        tell(lost, self.told.fetch_max(lost, Ordering::SeqCst))
    }
}

/// What the log says of a loss.
const LOST: &str =
    "changes that were not synced may be lost: a target lost power, or its disk failed";

fn tell(lost: u64, told: u64) -> Result<(), Errno> {
    if lost > told { Err(Errno::EIO) } else { Ok(()) }
}

/// Forgets the half of the inodes that were changed longest ago.
fn forget_half(part: &mut BTreeMap<InodeNumber, Changes>) {
    let mut moments: Vec<u64> = part.values().map(Changes::moment).collect();
    let middle = moments.len() / 2;
    let (_, median, _) = moments.select_nth_unstable(middle);
    let median = *median;
    part.retain(|_, changes| changes.moment() > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: InodeNumber = InodeNumber(5);

    fn by(target: u32, lineage: u64) -> Acknowledged {
        Acknowledged { target: TargetId(target), lineage: Lineage(lineage) }
    }

    /// Syncs at one target, through one open file.
    fn sync(unsynced: &Unsynced, told: &ToldLosses, by: Acknowledged) -> Result<(), Errno> {
        unsynced.synced(FILE, by, unsynced.now());
        unsynced.tell(FILE, told)
    }

    #[test]
    fn a_loss_is_told_once_to_each_open_file() {
        let unsynced = Unsynced::default();
        let [one, other] = [unsynced.told(), unsynced.told()];
        unsynced.changed(FILE, by(1, 7));
        unsynced.changed(FILE, by(2, 3));
        assert_eq!(sync(&unsynced, &one, by(2, 3)), Ok(()));
        assert_eq!(sync(&unsynced, &one, by(1, 8)), Err(Errno::EIO));
        let late = unsynced.told();
        for (told, expected) in [(&one, Ok(())), (&other, Err(Errno::EIO)), (&late, Ok(()))] {
            assert_eq!(sync(&unsynced, told, by(1, 8)), expected);
        }
        assert_eq!(sync(&unsynced, &other, by(1, 8)), Ok(()));
        assert_eq!(unsynced.tell_anybody(FILE), Err(Errno::EIO));
        assert_eq!(unsynced.tell_anybody(FILE), Ok(()));
        assert_eq!((unsynced.tell_all(), unsynced.tell_all()), (Err(Errno::EIO), Ok(())));
    }

    #[test]
    fn what_was_synced_before_is_not_lost() {
        let unsynced = Unsynced::default();
        let told = unsynced.told();
        unsynced.changed(FILE, by(1, 7));
        assert_eq!(sync(&unsynced, &told, by(1, 7)), Ok(()));
        assert!(unsynced.part(FILE).is_empty());
        assert_eq!(sync(&unsynced, &told, by(1, 8)), Ok(()));
        unsynced.changed(FILE, by(1, 8));
        assert_eq!(sync(&unsynced, &told, by(1, 8)), Ok(()));
        assert_eq!(unsynced.tell_all(), Ok(()));
    }

    #[test]
    fn a_change_during_a_sync_waits_for_the_next() {
        let unsynced = Unsynced::default();
        let told = unsynced.told();
        unsynced.changed(FILE, by(1, 7));
        let begun = unsynced.now();
        unsynced.changed(FILE, by(1, 8));
        unsynced.synced(FILE, by(1, 8), begun);
        assert_eq!(unsynced.tell(FILE, &told), Err(Errno::EIO), "the first one is lost");
        assert_eq!(sync(&unsynced, &told, by(1, 8)), Ok(()), "the second one is not");
        unsynced.changed(FILE, by(1, 8));
        let begun = unsynced.now();
        unsynced.changed(FILE, by(1, 8));
        unsynced.synced(FILE, by(1, 8), begun);
        assert_eq!(sync(&unsynced, &told, by(1, 9)), Err(Errno::EIO));
    }

    #[test]
    fn a_sync_of_everything_finds_what_any_inode_lost() {
        let unsynced = Unsynced::default();
        let (told, other) = (unsynced.told(), InodeNumber(6));
        unsynced.changed(FILE, by(1, 7));
        unsynced.changed(other, by(2, 7));
        let begun = unsynced.now();
        let lineages = [by(1, 8), by(2, 7)].map(|by| (by.target, by.lineage));
        unsynced.synced_all(&BTreeMap::from(lineages), begun);
        assert_eq!(unsynced.tell_all(), Err(Errno::EIO));
        assert_eq!(unsynced.tell(FILE, &told), Err(Errno::EIO));
        assert_eq!(unsynced.tell(other, &told), Ok(()));
    }

    #[test]
    fn those_changed_last_are_remembered() {
        let unsynced = Unsynced::default();
        let told = unsynced.told();
        for number in 0..=INODES_PER_PART as u64 {
            unsynced.changed(InodeNumber(number * PARTS), by(1, 7));
        }
        assert!(unsynced.part(InodeNumber(0)).len() <= INODES_PER_PART / 2 + 1);
        let last = InodeNumber(INODES_PER_PART as u64 * PARTS);
        unsynced.synced(last, by(1, 8), unsynced.now());
        assert_eq!(unsynced.tell(last, &told), Err(Errno::EIO));
    }
}
