//! Leases of one target: who may cache what of which inode, and how that is taken back.
//!
//! Invariant: while a [`Claim`] is held, nobody but its holder is granted what it claims; once it
//! is clear, nobody else has it either. A change claims what it conflicts with before it takes a lock or looks at anything, and lets go
//! when it has taken effect. A revocation stays pending until its holder answers or expires,
//! whether the change that caused it still waits or not; for a while after it nothing is granted to
//! others, so that the change, tried again, gets through.
//!
//! Deliberately kept in memory only: after a restart no claim is clear until every holder that
//! the log names has learned that its leases are gone. Whether what is granted is true is the
//! caller's business.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::mutations::is_defective;
use ringfs_platform::{Platform, Signal};
use ringfs_wire::{InodeNumber, Lease, Revocation, SessionId, Status};

/// Longest wait for holders inside one request; then the answer is busy.
const WAIT_MAX: Duration = Duration::from_millis(1000);
/// Nothing is granted to others for so long after a revocation; but a file's content, if it was
/// given back in time: who reads through a cache has to wait for it.
pub(crate) const HOLD: Duration = Duration::from_millis(1000);
/// Leases granted at one time, at most: about 30 bytes each.
const LEASES_MAX: usize = 4 << 20;
/// Revocations in one answer, at most.
const REVOCATIONS_MAX: usize = 8192;
/// Holds that may have ended and are still kept, at least.
const HOLDS_KEPT: usize = 64;

/// What a change takes back of one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The inode.
    pub(crate) inode: InodeNumber,
    /// What others may not cache meanwhile.
    pub(crate) lease: Lease,
    /// Which of it is granted again as soon as the change is through.
    pub(crate) brief: Lease,
}

/// A mount that caches.
struct Holder {
    /// Names this life of its leases.
    incarnation: u64,
    /// It knows the incarnation, so whatever it cached in an earlier one is gone.
    present: bool,
    /// It may cache what this target granted before its restart.
    awaited: bool,
    /// Inodes of its pending revocations, by number.
    queue: BTreeMap<u64, InodeNumber>,
    called: Rc<Signal>,
}

struct Pending {
    number: u64,
    lease: Lease,
    brief: Lease,
    by: SessionId,
    since: Duration,
}

struct Hold {
    lease: Lease,
    until: Duration,
}

#[derive(Default)]
struct Table {
    granted: BTreeMap<(InodeNumber, SessionId), Lease>,
    holders: BTreeMap<SessionId, Holder>,
    /// How many holders are awaited.
    awaited: usize,
    pending: BTreeMap<(InodeNumber, SessionId), Pending>,
    /// Claims by inode and number, with who made them.
    claims: BTreeMap<(InodeNumber, u64), (SessionId, Lease)>,
    /// What only one holder is granted, by inode and that holder.
    holds: BTreeMap<(InodeNumber, SessionId), Hold>,
    /// Holds are looked through when there are more.
    holds_limit: usize,
    #[cfg(feature = "mutations")]
    mutations: crate::Mutations,
    /// Last number of a revocation or claim.
    number: u64,
}

/// The leases of one target. Holders are named by their session; zero is nobody.
#[derive(Default)]
pub(crate) struct Leases {
    table: RefCell<Table>,
    /// A lease was given back, or a holder is no longer awaited.
    cleared: Signal,
}

impl Leases {
    /// Switches deliberate defects on.
    #[cfg(feature = "mutations")]
    pub(crate) fn set_mutations(&self, mutations: crate::Mutations) {
        self.table.borrow_mut().mutations = mutations;
    }

    /// A holder has opened its session, or is known from before a restart and therefore awaited.
    /// `incarnation` is not zero and was never used for it.
    pub(crate) fn open(&self, holder: SessionId, incarnation: u64, awaited: bool) {
        let table = &mut *self.table.borrow_mut();
        table.holders.entry(holder).or_insert_with(|| {
            table.awaited += usize::from(awaited);
            let (queue, called) = (BTreeMap::new(), Rc::default());
            Holder { incarnation, present: false, awaited, queue, called }
        });
    }

    /// A holder's session has ended: it caches nothing any more.
    pub(crate) fn end(&self, holder: SessionId, now: Duration) {
        let table = &mut *self.table.borrow_mut();
        let Some(ended) = table.holders.remove(&holder) else { return };
        for inode in ended.queue.into_values() {
            table.complete(inode, holder, Lease::ALL, now);
        }
        table.granted.retain(|(_, by), _| *by != holder);
        table.awaited -= usize::from(ended.awaited);
        ended.called.notify();
        self.cleared.notify();
    }

    /// Grants what is free of `wanted`. What the holder caches must be true at this moment.
    pub(crate) fn grant(
        &self,
        inode: InodeNumber,
        wanted: Lease,
        holder: SessionId,
        now: Duration,
    ) -> Lease {
        let table = &mut *self.table.borrow_mut();
        let is_present = table.holders.get(&holder).is_some_and(|known| known.present);
        if wanted.is_none() || !is_present || table.granted.len() >= LEASES_MAX {
            return Lease::NONE;
        }
        let lease = match is_defective!(table, grant_claimed) {
            true => wanted,
            false => wanted.without(table.refused(inode, holder, now)),
        };
        if !lease.is_none() {
            let held = table.granted.entry((inode, holder)).or_default();
            *held = held.or(lease);
        }
        lease
    }

    /// A holder gives leases back.
    pub(crate) fn release(
        &self,
        holder: SessionId,
        releases: &[(InodeNumber, Lease)],
        now: Duration,
    ) {
        let table = &mut *self.table.borrow_mut();
        for (inode, lease) in releases {
            let key = (*inode, holder);
            if let Some(held) = table.granted.get_mut(&key) {
                *held = held.without(*lease);
                if held.is_none() {
                    table.granted.remove(&key);
                }
            }
            table.complete(*inode, holder, *lease, now);
        }
        self.cleared.notify();
    }

    /// An inode is gone for good: nobody can look at what is cached of it.
    pub(crate) fn forget(&self, inode: InodeNumber, now: Duration) {
        let table = &mut *self.table.borrow_mut();
        let sessions = (inode, SessionId(0))..=(inode, SessionId(u64::MAX));
        let holders: Vec<_> = table.granted.range(sessions).map(|((_, by), _)| *by).collect();
        for holder in holders {
            table.granted.remove(&(inode, holder));
            table.complete(inode, holder, Lease::ALL, now);
        }
    }

    /// Whether others than the one who changes it have looked at an inode lately: something of it
    /// was taken back from them, or is being.
    pub(crate) fn is_contested(&self, inode: InodeNumber, now: Duration) -> bool {
        let table = self.table.borrow();
        let sessions = (inode, SessionId(0))..=(inode, SessionId(u64::MAX));
        table.pending.range(sessions.clone()).next().is_some()
            || table.holds.range(sessions).any(|(_, hold)| hold.until > now)
    }

    /// Claims everything in `conflicts` for `by` and asks the other holders for it; waits for
    /// nobody.
    pub(crate) fn claim(
        self: &Rc<Self>,
        conflicts: Vec<Conflict>,
        by: SessionId,
        now: Duration,
    ) -> Claim {
        let table = &mut *self.table.borrow_mut();
        table.number += 1;
        let number = table.number;
        for conflict in &conflicts {
            let claimed = table.claims.entry((conflict.inode, number)).or_default();
            *claimed = (by, claimed.1.or(conflict.lease));
            table.revoke(*conflict, by, now);
        }
        Claim { leases: Rc::clone(self), number, by, conflicts }
    }

    /// Waits until nobody has to give anything of an inode back; busy when that takes too long.
    pub(crate) async fn settled(
        &self,
        platform: &Platform,
        inode: InodeNumber,
    ) -> Result<(), Status> {
        let sessions = (inode, SessionId(0))..=(inode, SessionId(u64::MAX));
        let settled = || {
            let table = self.table.borrow();
            table.pending.range(sessions.clone()).next().is_none().then_some(())
        };
        if settled().is_some() {
            return Ok(());
        }
        platform.timeout(WAIT_MAX, self.cleared.until(settled)).await.ok_or(Status::Busy)
    }

    /// The incarnation that a holder has to know. Hearing it from the holder makes it present.
    pub(crate) fn heard(&self, holder: SessionId, incarnation: u64) -> Option<u64> {
        let table = &mut *self.table.borrow_mut();
        let known = table.holders.get_mut(&holder)?;
        if known.incarnation == incarnation {
            known.present = true;
            if std::mem::take(&mut known.awaited) {
                table.awaited -= 1;
                self.cleared.notify();
            }
        }
        Some(known.incarnation)
    }

    /// Waits for revocations of a holder with numbers above `after`; `None` when it has ended.
    pub(crate) async fn called(
        &self,
        platform: &Platform,
        holder: SessionId,
        after: u64,
    ) -> Option<Vec<Revocation>> {
        let called = Rc::clone(&self.table.borrow().holders.get(&holder)?.called);
        let ready = || match self.revocations(holder, after) {
            Some(found) if found.is_empty() => None,
            found => Some(found),
        };
        platform.timeout(WAIT_MAX, called.until(ready)).await.unwrap_or(Some(Vec::new()))
    }

    fn revocations(&self, holder: SessionId, after: u64) -> Option<Vec<Revocation>> {
        let table = self.table.borrow();
        let queue = &table.holders.get(&holder)?.queue;
        let asked = queue.range(after.saturating_add(1)..).take(REVOCATIONS_MAX);
        let lease = |inode| table.pending.get(&(inode, holder)).map_or(Lease::NONE, |p| p.lease);
        Some(
            asked
                .map(|(number, inode)| Revocation {
                    number: *number,
                    inode: *inode,
                    lease: lease(*inode),
                })
                .collect(),
        )
    }
}

impl Table {
    /// What `holder` is not granted of an inode now.
    fn refused(&self, inode: InodeNumber, holder: SessionId, now: Duration) -> Lease {
        let sessions = (inode, SessionId(0))..=(inode, SessionId(u64::MAX));
        let asked = self.pending.range(sessions);
        // What the holder itself is asked for, it does not get again before it has answered.
        let asked = asked
            .filter(|((_, of), pending)| *of == holder || pending.by != holder)
            .map(|(_, pending)| pending.lease);
        let claims = self.claims.range((inode, 0)..=(inode, u64::MAX));
        let claimed = claims.filter(|(_, (by, _))| *by != holder).map(|(_, (_, lease))| *lease);
        let holds = (inode, SessionId(0))..=(inode, SessionId(u64::MAX));
        let held = self.holds.range(holds);
        let held = held
            .filter(|((_, by), hold)| *by != holder && hold.until > now)
            .map(|(_, hold)| hold.lease);
        asked.chain(claimed).chain(held).fold(Lease::NONE, Lease::or)
    }

    /// Whether every other holder knows of the restart. Its own leases a change spares anyway; and
    /// a mount may be unable to drop everything before a write of its own is answered.
    fn awaits_none_but(&self, by: SessionId) -> bool {
        let own = self.holders.get(&by).is_some_and(|holder| holder.awaited);
        self.awaited == usize::from(own)
    }

    /// Whether a claim by `by` waits for nobody's part in a conflict.
    fn is_clear(&self, conflict: &Conflict, by: SessionId) -> bool {
        let sessions = (conflict.inode, SessionId(0))..=(conflict.inode, SessionId(u64::MAX));
        let mut others = self.granted.range(sessions).filter(|((_, holder), _)| *holder != by);
        others.all(|(_, lease)| lease.and(conflict.lease).is_none())
    }

    fn revoke(&mut self, conflict: Conflict, by: SessionId, now: Duration) {
        let Conflict { inode, lease, brief } = conflict;
        let sessions = (inode, SessionId(0))..=(inode, SessionId(u64::MAX));
        for ((_, holder), held) in self.granted.range(sessions) {
            let asked = held.and(lease);
            if *holder == by || asked.is_none() {
                continue;
            }
            let Some(known) = self.holders.get_mut(holder) else { continue };
            let before = self.pending.get(&(inode, *holder));
            if before.is_some_and(|pending| pending.lease.contains(asked)) {
                continue;
            }
            let (mut asked, mut since) = (asked, now);
            if let Some(pending) = before {
                known.queue.remove(&pending.number);
                asked = asked.or(pending.lease);
                since = pending.since;
            }
            self.number += 1;
            let pending = Pending { number: self.number, lease: asked, brief, by, since };
            known.queue.insert(self.number, inode);
            self.pending.insert((inode, *holder), pending);
            known.called.notify();
        }
    }

    /// Some of what was asked of a holder is no longer with it.
    fn complete(&mut self, inode: InodeNumber, holder: SessionId, lease: Lease, now: Duration) {
        let key = (inode, holder);
        let Some(pending) = self.pending.get_mut(&key) else { return };
        let (by, answered) = (pending.by, pending.lease.and(lease));
        // Who had to wait for long has given up and comes back later.
        let is_late = now.saturating_sub(pending.since) >= WAIT_MAX;
        let held = if is_late { answered } else { answered.without(pending.brief) };
        pending.lease = pending.lease.without(lease);
        if pending.lease.is_none() {
            let number = pending.number;
            self.pending.remove(&key);
            if let Some(known) = self.holders.get_mut(&holder) {
                known.queue.remove(&number);
            }
        }
        self.hold((inode, by), held, now);
    }

    fn hold(&mut self, key: (InodeNumber, SessionId), lease: Lease, now: Duration) {
        if lease.is_none() {
            return;
        }
        let until = now + HOLD;
        let hold = self.holds.entry(key).or_insert(Hold { lease, until });
        let before = if hold.until > now { hold.lease } else { Lease::NONE };
        *hold = Hold { lease: lease.or(before), until };
        if self.holds.len() > self.holds_limit {
            self.holds.retain(|_, hold| hold.until > now);
            self.holds_limit = 2 * self.holds.len() + HOLDS_KEPT;
        }
    }
}

/// What a change has claimed; given back when dropped.
pub(crate) struct Claim {
    leases: Rc<Leases>,
    number: u64,
    by: SessionId,
    conflicts: Vec<Conflict>,
}

impl Claim {
    /// Whether nobody else has anything of it, nor may have from before a restart.
    pub(crate) fn is_clear(&self) -> bool {
        let table = self.leases.table.borrow();
        self.conflicts.is_empty()
            || (table.awaits_none_but(self.by)
                && self.conflicts.iter().all(|c| table.is_clear(c, self.by)))
    }

    /// Waits until it is clear; busy when that takes too long.
    pub(crate) async fn cleared(&self, platform: &Platform) -> Result<(), Status> {
        if self.is_clear() {
            return Ok(());
        }
        let clear = self.leases.cleared.until(|| self.is_clear().then_some(()));
        platform.timeout(WAIT_MAX, clear).await.ok_or(Status::Busy)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.leases.table.borrow_mut();
        for conflict in &self.conflicts {
            table.claims.remove(&(conflict.inode, self.number));
        }
    }
}

#[cfg(test)]
#[path = "leases_tests.rs"]
mod tests;
