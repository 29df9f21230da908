//! What a mount process knows under leases: attributes, names that are there, names that are not.
//!
//! Everything that ends or changes knowledge draws a *stamp* from one counter; so does every
//! request before it is sent, with [`LeaseCache::begin`].
//!
//! Invariant: a value is entered only from a reply that granted its lease, to a request begun
//! after the last loss of a lease and the last change of that inode or name by this process, and
//! while no such change and no return of a lease is under way. A value is used only while its
//! leases are held and the home was heard of in time. Leases survive this process's own changes;
//! values do not, unless the reply tells them anew. A lease that is given up passes through the list
//! of returns, so that the door drops what it made of it first.
//!
//! Nothing here waits: locks are held for a few steps of one shard. Deliberately without requests,
//! doors and clocks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ringfs_placement::ClusterMap;
use ringfs_platform::MailboxSender;
use ringfs_wire::{Attributes, InodeNumber, InodeType, Lease, Name, TargetId, Timestamp};

use crate::bounded::Bounded;
use crate::cache::heads::Head;
use crate::cache::names::NameRecord;
pub(crate) use crate::cache::names::{Found, Named};

mod heads;
mod names;

/// Parts of the cache that are locked by themselves.
const SHARDS: usize = 64;
/// A shard remembers at least this many inodes.
const SHARD_INODES_MIN: usize = 16;

/// What the lease shard is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Leases of a target.
    Target(TargetId),
    /// To look at the list of returns.
    Returns,
}

/// How things stand with one target.
#[derive(Debug, Default)]
struct TargetState {
    /// Leases hold until then: nanoseconds of the monotonic clock, zero for not at all.
    valid_until: AtomicU64,
    /// Only requests begun since may enter anything.
    since: AtomicU64,
    /// Whether the lease shard knows that leases are wanted.
    wanted: AtomicBool,
}

/// What is known of an inode.
#[derive(Debug, Default)]
struct Inode {
    lease: Lease,
    /// When a lease was last lost or returned.
    lost: u64,
    /// When a change by this process last began or ended.
    changed: u64,
    /// Changes by this process that are under way.
    changing: u32,
    /// Leases on the way back.
    returning: u32,
    /// Names the present lease on the names.
    names: u64,
    /// Names the present lease on the content.
    content: u64,
    /// Of a directory: under the lease on the content with this number, names that are not noted
    /// are missing.
    complete: u64,
    attributes: Option<Attributes>,
    head: Option<Head>,
}

impl Inode {
    /// Forgets what was held under `lease`.
    fn lose(&mut self, lease: Lease, stamp: u64) {
        self.lease = self.lease.without(lease);
        self.lost = stamp;
        if self.attributes.as_ref().is_some_and(|known| !self.lease.contains(needed(known))) {
            self.attributes = None;
        }
        if content_of(self).is_none() {
            self.head = None;
        }
    }
}

#[derive(Debug, Default)]
struct Shard {
    inodes: Bounded<InodeNumber, Inode>,
    /// Latest loss or change of an inode that is not among them.
    inodes_floor: u64,
    names: Bounded<(InodeNumber, Name), NameRecord>,
    /// Latest change of a name that is not among them.
    names_floor: u64,
    /// Bytes of the heads that are kept of its inodes.
    heads: Arc<AtomicUsize>,
}

/// What is held of an inode: for the one who answers a question about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Until when the attributes hold.
    pub(crate) attributes_until: Option<Duration>,
    /// Number of the lease on the content.
    pub(crate) content: Option<u64>,
}

/// Bytes read while this holds are true for as long as it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Number of the lease on the content.
    content: u64,
    /// When the last change by this process ended.
    changed: u64,
}

/// A change of one inode that began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) inode: InodeNumber,
    /// When it began.
    stamp: u64,
    held: Lease,
}

/// The cache of one mount process.
#[derive(Debug)]
pub(crate) struct LeaseCache {
    map: ClusterMap,
    stamps: AtomicU64,
    shards: Vec<Mutex<Shard>>,
    shard_inodes_max: usize,
    targets: RwLock<BTreeMap<TargetId, Arc<TargetState>>>,
    returns: Mutex<Vec<(InodeNumber, Lease)>>,
    wishes: MailboxSender<Wish>,
}

impl LeaseCache {
    /// A cache of about `inodes_max` inodes; `wishes` reach the lease shard.
    pub(crate) fn new(map: ClusterMap, inodes_max: usize, wishes: MailboxSender<Wish>) -> Self {
        Self {
            map,
            stamps: AtomicU64::new(1),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_inodes_max: (inodes_max / SHARDS).max(SHARD_INODES_MIN),
            targets: RwLock::default(),
            returns: Mutex::default(),
            wishes,
        }
    }

    /// The stamp of a request that is about to be sent.
    pub(crate) fn begin(&self) -> u64 {
        self.stamps.load(Ordering::SeqCst)
    }

    /// Whether a request to the home of `inode` may ask for leases now. If not, the lease shard
    /// hears that they are wanted.
    pub(crate) fn may_ask(&self, inode: InodeNumber, now: Duration) -> bool {
        let target = self.map.home(inode);
        let state = self.target(target);
        if state.valid_until.load(Ordering::SeqCst) > nanoseconds(now) {
            return true;
        }
        let is_new = !state.wanted.swap(true, Ordering::SeqCst);
        if is_new && self.wishes.try_send(Wish::Target(target)).is_err() {
            state.wanted.store(false, Ordering::SeqCst);
        }
        false
    }

    /// Takes over the attributes in a reply to a request begun at `begun`, as far as the reply
    /// granted a lease on them. Gives the number of the lease on the inode's names, zero for none.
    pub(crate) fn enter(
        &self,
        begun: u64,
        attributes: &Attributes,
        granted: Lease,
        now: Duration,
    ) -> u64 {
        let inode = attributes.inode;
        let mut shard = self.shard(inode);
        if granted.is_none() || !self.is_open(inode, begun, now) {
            return 0;
        }
        if !self.make_room(&mut shard, inode) {
            return 0;
        }
        let entry = shard.inode(inode);
        if begun < entry.lost || entry.returning > 0 {
            return 0;
        }
        let gained = granted.without(entry.lease);
        if gained.contains(Lease::NAMES) {
            entry.names = self.stamp();
        }
        if gained.contains(Lease::CONTENT) {
            entry.content = self.stamp();
        }
        entry.lease = entry.lease.or(granted);
        let is_settled = entry.changing == 0 && begun >= entry.changed;
        if is_settled && granted.contains(needed(attributes)) {
            entry.attributes = Some(attributes.clone());
            // All that comes into an empty directory under the lease is noted on its way.
            if attributes.kind == InodeType::Directory && attributes.size == 0 {
                entry.complete = entry.content;
            }
        }
        if granted.contains(Lease::NAMES) { entry.names } else { 0 }
    }

    /// The attributes of an inode, if they are known.
    pub(crate) fn attributes(
        &self,
        inode: InodeNumber,
        now: Duration,
    ) -> Option<(Attributes, Held)> {
        let mut shard = self.shard(inode);
        let until = self.valid_until(inode, now)?;
        let entry = shard.inodes.get(&inode)?;
        let attributes = entry.attributes.clone()?;
        let held = Held { attributes_until: Some(until), content: content_of(entry) };
        Some((attributes, held))
    }

    /// Notes an access time that a home told in passing. It has no part in what a lease promises.
    pub(crate) fn note_access(&self, told: &Attributes) {
        let mut shard = self.shard(told.inode);
        let known = shard.inodes.get(&told.inode).and_then(|entry| entry.attributes.as_mut());
        // Others may be of before or after somebody set it.
        if let Some(known) = known.filter(|known| known.changed == told.changed) {
            known.accessed = known.accessed.max(told.accessed);
        }
    }

    /// Forgets attributes whose access time a home has moved without telling it.
    pub(crate) fn note_read(&self, inode: InodeNumber, now: Timestamp) {
        let mut shard = self.shard(inode);
        if let Some(entry) = shard.inodes.get(&inode) {
            entry.attributes.take_if(|attributes| attributes.access_is_due(now));
        }
    }

    /// The number of the lease on the content of an inode, if it is held.
    pub(crate) fn content(&self, inode: InodeNumber, now: Duration) -> Option<u64> {
        let mut shard = self.shard(inode);
        self.valid_until(inode, now)?;
        shard.inodes.get(&inode).and_then(|entry| content_of(entry))
    }

    /// How the bytes of an inode stand: nothing without a lease on them, and while this process
    /// changes them.
    pub(crate) fn standing(&self, inode: InodeNumber, now: Duration) -> Option<Standing> {
        let mut shard = self.shard(inode);
        self.valid_until(inode, now)?;
        let entry = shard.inodes.get(&inode).filter(|entry| entry.changing == 0)?;
        content_of(entry).map(|content| Standing { content, changed: entry.changed })
    }

    /// A change of an inode by this process begins.
    pub(crate) fn begin_change(&self, inode: InodeNumber) -> Begun {
        let mut shard = self.shard(inode);
        self.make_room(&mut shard, inode);
        let stamp = self.stamp();
        let entry = shard.inode(inode);
        entry.changing += 1;
        entry.changed = stamp;
        entry.attributes = None;
        entry.head = None;
        Begun { inode, stamp, held: entry.lease }
    }

    /// A change ended, and the home told these attributes after it. They count if no other change
    /// of this process could have overtaken it.
    pub(crate) fn end_change(&self, begun: &Begun, attributes: Option<&Attributes>) {
        let mut shard = self.shard(begun.inode);
        let stamp = self.stamp();
        let Some(entry) = shard.inodes.get(&begun.inode) else { return };
        entry.changing = entry.changing.saturating_sub(1);
        let was_alone = entry.changing == 0 && entry.changed == begun.stamp;
        entry.changed = stamp;
        let told = attributes.filter(|told| told.inode == begun.inode && was_alone);
        let kept = begun.held.and(entry.lease);
        let is_kept = |told: &Attributes| kept.contains(needed(told)) && entry.lost <= begun.stamp;
        if let Some(told) = told.filter(|told| is_kept(told)) {
            entry.attributes = Some(told.clone());
        }
    }

    /// A change ended, and nobody knows whether it happened or still will: nothing is kept.
    pub(crate) fn abandon_change(&self, begun: &Begun) {
        self.end_change(begun, None);
        let mut shard = self.shard(begun.inode);
        let stamp = self.stamp();
        if let Some(entry) = shard.inodes.get(&begun.inode) {
            self.give_up(begun.inode, entry, stamp);
        }
    }

    /// A lease is asked back. Nothing is entered for the inode until [`Self::returned`]; tells
    /// whether the door may have made something of it.
    pub(crate) fn revoke(&self, inode: InodeNumber, lease: Lease) -> bool {
        let mut shard = self.shard(inode);
        let stamp = self.stamp();
        let entry = shard.inode(inode);
        let may_be_used = !entry.lease.and(lease).is_none() || entry.returning > 0;
        entry.returning += 1;
        entry.lose(lease, stamp);
        may_be_used
    }

    /// The home has what was revoked or returned.
    pub(crate) fn returned(&self, inode: InodeNumber) {
        let mut shard = self.shard(inode);
        let stamp = self.stamp();
        let Some(entry) = shard.inodes.get(&inode) else { return };
        entry.returning = entry.returning.saturating_sub(1);
        entry.lost = stamp;
        if shard.inodes.len() > self.shard_inodes_max {
            shard.forget(inode);
        }
    }

    /// What is to be returned, because there is no room for it. The lease shard has the door drop
    /// it, gives it back, and tells with [`Self::returned`].
    pub(crate) fn take_returns(&self) -> Vec<(InodeNumber, Lease)> {
        std::mem::take(&mut *self.returns.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the validity of a target's leases, and forgets what was held under them: for the door.
    pub(crate) fn drop_target(&self, target: TargetId) -> Vec<(InodeNumber, Lease)> {
        self.target(target).valid_until.store(0, Ordering::SeqCst);
        let mut dropped = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let stamp = self.stamp();
            for (inode, entry) in shard.inodes.iter_mut() {
                if !entry.lease.is_none() && self.map.home(*inode) == target {
                    dropped.push((*inode, entry.lease));
                    entry.lose(Lease::ALL, stamp);
                }
            }
            shard.inodes_floor = stamp;
        }
        dropped
    }

    /// Leases of a target hold until `until`. If they did not hold before, only what is asked for
    /// from now on may be entered.
    pub(crate) fn prolong(&self, target: TargetId, until: Duration) {
        let state = self.target(target);
        if state.valid_until.load(Ordering::SeqCst) == 0 {
            state.since.store(self.stamp(), Ordering::SeqCst);
        }
        state.valid_until.store(nanoseconds(until), Ordering::SeqCst);
    }

    /// Until when leases of a target hold, whether that has passed or not.
    pub(crate) fn validity(&self, target: TargetId) -> Option<Duration> {
        let until = self.target(target).valid_until.load(Ordering::SeqCst);
        (until > 0).then(|| Duration::from_nanos(until))
    }

    /// The home of an inode.
    pub(crate) fn home(&self, inode: InodeNumber) -> TargetId {
        self.map.home(inode)
    }

    /// The next stamp.
    fn stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn shard(&self, inode: InodeNumber) -> MutexGuard<'_, Shard> {
        // Sequences are dense and hash fields uneven: a multiplication spreads both.
        let mixed = inode.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let shard = &self.shards[mixed as usize % SHARDS];
        // Every step leaves a shard whole, so a panic elsewhere does not spoil it.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self, target: TargetId) -> Arc<TargetState> {
        let known = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = known.get(&target) {
            return state.clone();
        }
        drop(known);
        let mut known = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        known.entry(target).or_default().clone()
    }

    /// Until when leases at the home of an inode hold, if they do.
    fn valid_until(&self, inode: InodeNumber, now: Duration) -> Option<Duration> {
        self.validity(self.map.home(inode)).filter(|until| *until > now)
    }

    /// Whether replies of the home of an inode to requests begun at `begun` may be entered.
    fn is_open(&self, inode: InodeNumber, begun: u64, now: Duration) -> bool {
        let state = self.target(self.map.home(inode));
        state.valid_until.load(Ordering::SeqCst) > nanoseconds(now)
            && begun >= state.since.load(Ordering::SeqCst)
    }

    /// Makes room for an inode; tells whether there is some. More than the bound is kept only
    /// while leases are on their way back.
    fn make_room(&self, shard: &mut Shard, inode: InodeNumber) -> bool {
        if shard.inodes.len() < self.shard_inodes_max || shard.inodes.contains(&inode) {
            return true;
        }
        let victim = shard.inodes.victim(|entry| entry.changing == 0 && entry.returning == 0);
        if let Some(victim) = victim {
            let stamp = self.stamp();
            match shard.inodes.get(&victim) {
                Some(entry) if !entry.lease.is_none() => self.give_up(victim, entry, stamp),
                _ => shard.forget(victim),
            }
        }
        shard.inodes.len() < 2 * self.shard_inodes_max
    }

    /// Puts the leases of an inode on the list of returns.
    fn give_up(&self, inode: InodeNumber, entry: &mut Inode, stamp: u64) {
        let lease = entry.lease;
        if lease.is_none() {
            return;
        }
        entry.lose(Lease::ALL, stamp);
        entry.returning += 1;
        let mut returns = self.returns.lock().unwrap_or_else(PoisonError::into_inner);
        returns.push((inode, lease));
        if returns.len() == 1 {
            // A mailbox that is full has a wish in it that leads to the list as well.
            let _ = self.wishes.try_send(Wish::Returns);
        }
    }
}

impl Shard {
    fn inode(&mut self, inode: InodeNumber) -> &mut Inode {
        let floor = self.inodes_floor;
        let fresh = || Inode { lost: floor, changed: floor, ..Inode::default() };
        self.inodes.get_or_insert(&inode, fresh)
    }

    /// Forgets an inode of which nothing is held, unless something is under way.
    fn forget(&mut self, inode: InodeNumber) {
        let Some(entry) = self.inodes.get(&inode) else { return };
        if entry.changing == 0 && entry.returning == 0 && entry.lease.is_none() {
            self.inodes_floor = self.inodes_floor.max(entry.lost).max(entry.changed);
            self.inodes.remove(&inode);
        }
    }
}

/// The leases without which attributes are not known: a directory's change with its content.
fn needed(attributes: &Attributes) -> Lease {
    match attributes.kind {
        InodeType::Directory => Lease::ATTRIBUTES.or(Lease::CONTENT),
        _ => Lease::ATTRIBUTES,
    }
}

fn content_of(entry: &Inode) -> Option<u64> {
    entry.lease.contains(Lease::CONTENT).then_some(entry.content)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
