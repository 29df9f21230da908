//! The table of file locks: who holds what, who waits for what. Pure decisions, no clock, no I/O.
//!
//! Invariant: no two owners hold what excludes each other. Owners belong to *groups*: the sessions
//! of one client process, together. A group's locks are kept under a registration number, and end
//! with its last session. Wishes of one inode are granted in the order they came, except that one
//! that cannot be granted yet holds up nobody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ringfs_wire::{
    Errno, FileLock, HeldLock, InodeNumber, LockMode, LockOwner, LockRange, LockRanges, LockSpace,
    SessionId,
};

/// Most ranges that one group may have locked.
pub(crate) const LOCKS_PER_GROUP_MAX: usize = 16_384;
/// Most wishes that wait at one target.
const WISHES_MAX: usize = 65_536;
/// A wish that is not repeated for this long is forgotten.
const WISH_LIFETIME: Duration = Duration::from_secs(4);
/// Most owners looked at in search of a deadlock.
const DEADLOCK_OWNERS_MAX: usize = 1_024;

/// An owner, whichever of its process's sessions speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) group: SessionId,
    pub(crate) owner: LockOwner,
}

/// Something wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) inode: InodeNumber,
    pub(crate) holder: Holder,
    pub(crate) range: LockRange,
    pub(crate) mode: LockMode,
    pub(crate) pid: u32,
    pub(crate) ticket: u64,
}

struct Waiting {
    wish: Wish,
    until: Duration,
}

#[derive(Default)]
struct Held {
    ranges: LockRanges,
    pid: u32,
}

#[derive(Default)]
struct Inode {
    held: BTreeMap<Holder, Held>,
    waiting: VecDeque<Waiting>,
}

#[derive(Default)]
struct Group {
    /// Zero until something was locked.
    registration: u64,
    sessions: BTreeSet<SessionId>,
    locks: usize,
}

/// What becomes of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Granted,
    /// It waits in the queue.
    Queued,
    Refused(Errno),
}

/// The locks of one target.
#[derive(Default)]
pub(crate) struct Table {
    inodes: BTreeMap<InodeNumber, Inode>,
    groups: BTreeMap<SessionId, Group>,
    group_of: BTreeMap<SessionId, SessionId>,
    /// The inodes on which an owner waits for something.
    waits: BTreeMap<Holder, BTreeSet<InodeNumber>>,
    wishes: usize,
    /// Counts the changes after which a wish may fare better than before.
    changes: u64,
}

impl Inode {
    /// The first lock of another owner of the space that excludes this.
    fn conflict(&self, holder: Holder, range: LockRange, mode: LockMode) -> Option<FileLock> {
        let others = self.held.iter().filter(|(other, _)| excludes(other, &holder));
        let hits = others.filter_map(|(other, held)| {
            let (range, mode) = held.ranges.conflict(range, mode)?;
            Some(FileLock { owner: other.owner, range, mode, pid: held.pid })
        });
        hits.min_by_key(|lock| lock.range.start)
    }

    fn can_have(&self, wish: &Wish) -> bool {
        self.conflict(wish.holder, wish.range, wish.mode).is_none()
    }

    /// Whether a wish that came earlier excludes this one and could be granted now.
    fn is_overtaking(&self, wish: &Wish) -> bool {
        let earlier = self.waiting.iter().take_while(|other| other.wish.ticket != wish.ticket);
        earlier.map(|other| &other.wish).any(|other| {
            excludes(&other.holder, &wish.holder)
                && other.mode.excludes(wish.mode)
                && other.range.start <= wish.range.last
                && wish.range.start <= other.range.last
                && self.can_have(other)
        })
    }
}

/// Whether locks of two owners can exclude each other at all.
fn excludes(a: &Holder, b: &Holder) -> bool {
    a != b && a.owner.space == b.owner.space
}

impl Table {
    /// Notes that a session speaks for a group.
    pub(crate) fn join(&mut self, session: SessionId, group: SessionId) {
        if let Some(old) = self.group_of.insert(session, group)
            && old != group
        {
            self.leave(session, old);
        }
        self.groups.entry(group).or_default().sessions.insert(session);
    }

    /// Notes the end of a session.
    pub(crate) fn end_session(&mut self, session: SessionId) {
        if let Some(group) = self.group_of.remove(&session) {
            self.leave(session, group);
        }
    }

    fn leave(&mut self, session: SessionId, group: SessionId) {
        let Some(entry) = self.groups.get_mut(&group) else { return };
        entry.sessions.remove(&session);
        if !entry.sessions.is_empty() {
            return;
        }
        let was_used = entry.registration != 0;
        self.groups.remove(&group);
        if !was_used {
            return;
        }
        let inodes: Vec<_> = self.inodes.keys().copied().collect();
        for inode in inodes {
            if let Some(entry) = self.inodes.get_mut(&inode) {
                entry.held.retain(|holder, _| holder.group != group);
            }
            self.drop_wishes(inode, |waiting| waiting.wish.holder.group == group);
        }
        self.changes += 1;
    }

    /// A number that rises with each change after which a wish may fare better.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The group a session speaks for.
    pub(crate) fn group(&self, session: SessionId) -> Option<SessionId> {
        self.group_of.get(&session).copied()
    }

    /// The number of a group's registration, 0 if it has none.
    pub(crate) fn registration(&self, group: SessionId) -> u64 {
        self.groups.get(&group).map_or(0, |entry| entry.registration)
    }

    /// Registers a group that has no registration.
    pub(crate) fn register(&mut self, group: SessionId, registration: u64) {
        if let Some(entry) = self.groups.get_mut(&group)
            && entry.registration == 0
        {
            entry.registration = registration;
        }
    }

    /// Takes over what a group held before this target started, unless it is registered already
    /// or something excludes it.
    pub(crate) fn restate(&mut self, group: SessionId, registration: u64, locks: &[HeldLock]) {
        if self.registration(group) != 0 || locks.len() > LOCKS_PER_GROUP_MAX {
            return;
        }
        let is_free = |held: &HeldLock| {
            let holder = Holder { group, owner: held.lock.owner };
            let inode = self.inodes.get(&held.inode);
            inode.is_none_or(|entry| {
                entry.conflict(holder, held.lock.range, held.lock.mode).is_none()
            })
        };
        if !locks.iter().all(is_free) {
            return;
        }
        self.register(group, registration);
        for HeldLock { inode, lock } in locks {
            let holder = Holder { group, owner: lock.owner };
            self.put(*inode, holder, lock.range, Some(lock.mode), lock.pid);
        }
    }

    /// A lock of another owner that excludes this one.
    pub(crate) fn conflict(&self, wish: &Wish) -> Option<FileLock> {
        self.inodes.get(&wish.inode)?.conflict(wish.holder, wish.range, wish.mode)
    }

    /// Grants a wish, or queues it, or refuses it. A queued wish is decided again by asking again.
    pub(crate) fn decide(&mut self, wish: &Wish, wait: bool, now: Duration) -> Decision {
        self.drop_wishes(wish.inode, |waiting| waiting.until <= now);
        let entry = self.inodes.entry(wish.inode).or_default();
        let is_free = entry.can_have(wish);
        if is_free && !(wait && entry.is_overtaking(wish)) {
            self.withdraw(wish.inode, wish.ticket);
            let group = self.groups.get(&wish.holder.group);
            if group.is_none_or(|group| group.locks >= LOCKS_PER_GROUP_MAX) {
                self.tidy(wish.inode);
                return Decision::Refused(Errno::ENOLCK);
            }
            self.put(wish.inode, wish.holder, wish.range, Some(wish.mode), wish.pid);
            return Decision::Granted;
        }
        if wish.holder.owner.space == LockSpace::Flock && !is_free && self.holds(wish) {
            // As Linux does: a lock is given up before it is exchanged for another.
            self.put(wish.inode, wish.holder, LockRange::ALL, None, wish.pid);
        }
        if !wait {
            self.tidy(wish.inode);
            return Decision::Refused(Errno::EAGAIN);
        }
        if wish.holder.owner.space == LockSpace::Posix && self.closes_cycle(wish) {
            self.withdraw(wish.inode, wish.ticket);
            self.tidy(wish.inode);
            return Decision::Refused(Errno::EDEADLK);
        }
        self.queue(wish, now + WISH_LIFETIME)
    }

    fn queue(&mut self, wish: &Wish, until: Duration) -> Decision {
        let entry = self.inodes.entry(wish.inode).or_default();
        let queued = entry.waiting.iter_mut().find(|other| other.wish.ticket == wish.ticket);
        if let Some(waiting) = queued {
            waiting.until = until;
            return Decision::Queued;
        }
        if self.wishes >= WISHES_MAX {
            self.tidy(wish.inode);
            return Decision::Refused(Errno::ENOLCK);
        }
        entry.waiting.push_back(Waiting { wish: *wish, until });
        self.wishes += 1;
        self.waits.entry(wish.holder).or_default().insert(wish.inode);
        Decision::Queued
    }

    /// Whether the owner holds anything of the inode.
    fn holds(&self, wish: &Wish) -> bool {
        self.inodes.get(&wish.inode).is_some_and(|entry| entry.held.contains_key(&wish.holder))
    }

    /// Whether a wish is queued.
    pub(crate) fn is_queued(&self, inode: InodeNumber, ticket: u64) -> bool {
        let entry = self.inodes.get(&inode);
        entry.is_some_and(|entry| entry.waiting.iter().any(|other| other.wish.ticket == ticket))
    }

    /// Takes a wish out of the queue; whether it was there.
    pub(crate) fn withdraw(&mut self, inode: InodeNumber, ticket: u64) -> bool {
        self.drop_wishes(inode, |waiting| waiting.wish.ticket == ticket)
    }

    /// Takes the wishes that `is_over` out of the queue; whether there were any.
    fn drop_wishes(&mut self, inode: InodeNumber, is_over: impl Fn(&Waiting) -> bool) -> bool {
        let Some(entry) = self.inodes.get_mut(&inode) else { return false };
        let queue = std::mem::take(&mut entry.waiting);
        let (over, kept): (VecDeque<_>, VecDeque<_>) = queue.into_iter().partition(|w| is_over(w));
        entry.waiting = kept;
        self.wishes -= over.len();
        for Waiting { wish, .. } in &over {
            let waits_on = entry.waiting.iter().any(|other| other.wish.holder == wish.holder);
            if let Some(inodes) = self.waits.get_mut(&wish.holder).filter(|_| !waits_on) {
                inodes.remove(&inode);
                if inodes.is_empty() {
                    self.waits.remove(&wish.holder);
                }
            }
        }
        if !over.is_empty() {
            // Those behind may have waited for their turn only.
            self.changes += 1;
        }
        self.tidy(inode);
        !over.is_empty()
    }

    /// Whether somebody who keeps `wish` from being granted waits, through however many others,
    /// for its owner.
    fn closes_cycle(&self, wish: &Wish) -> bool {
        let mut seen = BTreeSet::new();
        let mut next = self.blockers(wish);
        while let Some(holder) = next.pop() {
            if holder == wish.holder {
                return true;
            }
            if !seen.insert(holder) || seen.len() > DEADLOCK_OWNERS_MAX {
                continue;
            }
            for inode in self.waits.get(&holder).into_iter().flatten() {
                let Some(entry) = self.inodes.get(inode) else { continue };
                let wishes = entry.waiting.iter().map(|waiting| &waiting.wish);
                next.extend(wishes.filter(|w| w.holder == holder).flat_map(|w| self.blockers(w)));
            }
        }
        false
    }

    fn blockers(&self, wish: &Wish) -> Vec<Holder> {
        let Some(entry) = self.inodes.get(&wish.inode) else { return Vec::new() };
        let others = entry.held.iter().filter(|(other, _)| excludes(other, &wish.holder));
        let blocking =
            others.filter(|(_, held)| held.ranges.conflict(wish.range, wish.mode).is_some());
        blocking.map(|(holder, _)| *holder).collect()
    }

    /// Unlocks a range.
    pub(crate) fn clear(&mut self, inode: InodeNumber, holder: Holder, range: LockRange) {
        self.put(inode, holder, range, None, 0);
    }

    /// Sets what an owner holds within a range to `locks`, as far as nothing excludes them.
    pub(crate) fn reset(
        &mut self,
        inode: InodeNumber,
        holder: Holder,
        range: LockRange,
        locks: &[FileLock],
    ) {
        self.clear(inode, holder, range);
        for lock in locks {
            let start = lock.range.start.max(range.start);
            let last = lock.range.last.min(range.last);
            if start > last {
                continue;
            }
            let (part, entry) = (LockRange { start, last }, self.inodes.get(&inode));
            if entry.is_none_or(|entry| entry.conflict(holder, part, lock.mode).is_none()) {
                self.put(inode, holder, part, Some(lock.mode), lock.pid);
            }
        }
    }

    fn put(
        &mut self,
        inode: InodeNumber,
        holder: Holder,
        range: LockRange,
        mode: Option<LockMode>,
        pid: u32,
    ) {
        let Some(group) = self.groups.get_mut(&holder.group) else { return };
        let entry = self.inodes.entry(inode).or_default();
        let held = entry.held.entry(holder).or_default();
        let before = held.ranges.count();
        held.ranges.set(range, mode);
        group.locks = group.locks + held.ranges.count() - before;
        match mode {
            Some(LockMode::Exclusive) => {}
            // Less may be held than before.
            _ => self.changes += 1,
        }
        if mode.is_some() {
            held.pid = pid;
        }
        if held.ranges.is_empty() {
            entry.held.remove(&holder);
        }
        self.tidy(inode);
    }

    /// Forgets an inode of which nothing is left.
    fn tidy(&mut self, inode: InodeNumber) {
        let Some(entry) = self.inodes.get(&inode) else { return };
        if entry.held.is_empty() && entry.waiting.is_empty() {
            self.inodes.remove(&inode);
        }
    }
}

#[cfg(test)]
mod tests;
