//! The references a session holds on inodes: taken by opening, counted here, dropped in batches.
//!
//! At the home a reference is held or not; how many handles share it is known only here. After the
//! last handle it is kept a while: who opens the file again need not ask for it.
//!
//! Invariant: while a handle exists, the home holds the reference; it certainly does once that is
//! confirmed, until it is being dropped. Requests of one connection may
//! be carried out in any order, so a reference is never taken while its drop is on the way: who
//! opens by number waits for the drop; who opened by name, and so could not know, takes it again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::Platform;
use ringfs_wire::{InodeNumber, References as ReferencesRequest, TargetId};

use crate::notify::Notify;
use crate::session::Session;

/// Most references dropped by one request.
const DROP_BATCH_MAX: usize = 1_024;
/// For how long references outlive the last handle, and how many of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    time: Duration,
    count: usize,
}

impl Keep {
    /// Where nothing is cached: long enough that closing costs next to nothing.
    pub(crate) const BRIEFLY: Self = Self { time: Duration::from_millis(50), count: 256 };
    /// Where opening again needs nothing else.
    pub(crate) const CACHED: Self = Self { time: Duration::from_secs(1), count: 8_192 };
}

/// What this side knows of one inode's reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    /// This many handles.
    Held(usize),
    /// No handle is left; the home has not been told.
    Queued,
    /// No handle is left; the home is being told.
    Dropping,
}

/// All references of a session.
#[derive(Debug, Default)]
pub(crate) struct References {
    inodes: RefCell<BTreeMap<InodeNumber, Holding>>,
    /// Inodes of which the home certainly has noted the reference.
    confirmed: RefCell<BTreeSet<InodeNumber>>,
    queued: RefCell<BTreeSet<InodeNumber>>,
    /// Opens by name on the way.
    opening: Cell<usize>,
    /// Inodes whose drop is on the way.
    dropping: RefCell<BTreeSet<InodeNumber>>,
    /// Inodes whose drop ended during one of those opens.
    dropped_meanwhile: RefCell<BTreeSet<InodeNumber>>,
    changed: Notify,
    /// What is queued is dropped at once.
    hurried: Cell<bool>,
    stopped: Cell<bool>,
}

/// An open by name on the way.
pub(crate) struct Opening {
    references: Rc<References>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        let left = self.references.opening.get() - 1;
        self.references.opening.set(left);
        if left == 0 {
            self.references.dropped_meanwhile.take();
        }
    }
}

impl References {
    /// Whether nothing is open.
    pub(crate) fn is_empty(&self) -> bool {
        !self.inodes.borrow().values().any(|holding| matches!(holding, Holding::Held(_)))
    }

    /// The inodes whose references the home is to have, among those that `selects`.
    pub(crate) fn held(&self, selects: impl Fn(InodeNumber) -> bool) -> Vec<InodeNumber> {
        let inodes = self.inodes.borrow();
        let held = inodes.iter().filter(|(_, holding)| **holding != Holding::Dropping);
        held.map(|(inode, _)| *inode).filter(|inode| selects(*inode)).collect()
    }

    /// Begins an open by name; the result lives until the reference is counted.
    pub(crate) fn begin_opening(self: &Rc<Self>) -> Opening {
        self.opening.set(self.opening.get() + 1);
        Opening { references: self.clone() }
    }

    /// Whether a drop of `inode` may have overtaken the open by name that found it.
    pub(crate) fn is_doubtful(&self, inode: InodeNumber) -> bool {
        self.dropping.borrow().contains(&inode) || self.dropped_meanwhile.borrow().contains(&inode)
    }

    /// Notes that the home has the reference on an inode, which has a handle.
    pub(crate) fn confirm(&self, inode: InodeNumber) {
        if matches!(self.inodes.borrow().get(&inode), Some(Holding::Held(_))) {
            self.confirmed.borrow_mut().insert(inode);
        }
    }

    /// Whether the home has the reference on an inode, which has a handle.
    pub(crate) fn is_confirmed(&self, inode: InodeNumber) -> bool {
        self.confirmed.borrow().contains(&inode)
    }

    /// Drops the reference on an inode at once if it has no handle: it has been removed.
    pub(crate) fn hurry(&self, inode: InodeNumber) {
        if self.queued.borrow().contains(&inode) {
            self.hurried.set(true);
            self.changed.notify_all();
        }
    }

    /// Counts one more handle, after a drop that is on the way has arrived.
    pub(crate) async fn count(&self, inode: InodeNumber) {
        loop {
            let changed = self.changed.notified();
            if self.try_count(inode) {
                return;
            }
            changed.await;
        }
    }

    fn try_count(&self, inode: InodeNumber) -> bool {
        let mut inodes = self.inodes.borrow_mut();
        let holding = inodes.entry(inode).or_insert(Holding::Held(0));
        match holding {
            Holding::Held(count) => *count += 1,
            Holding::Queued => {
                self.queued.borrow_mut().remove(&inode);
                *holding = Holding::Held(1);
            }
            Holding::Dropping => return false,
        }
        true
    }

    /// One handle less. The home is told in the background when it was the last.
    pub(crate) fn release(&self, inode: InodeNumber) {
        let mut inodes = self.inodes.borrow_mut();
        let Some(holding) = inodes.get_mut(&inode) else { return };
        match holding {
            Holding::Held(1) => {
                *holding = Holding::Queued;
                let mut queued = self.queued.borrow_mut();
                queued.insert(inode);
                if queued.len() == 1 || queued.len() >= Keep::BRIEFLY.count {
                    self.changed.notify_all();
                }
            }
            Holding::Held(count) => *count -= 1,
            Holding::Queued | Holding::Dropping => {}
        }
    }

    /// Ends the task that drops references.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
        self.changed.notify_all();
    }

    /// Waits for more to drop, or for files to be opened again.
    async fn gather(&self, platform: &Platform, keep: Keep) {
        let is_due = || {
            let queued = self.queued.borrow().len();
            queued == 0 || queued >= keep.count || self.hurried.get() || self.stopped.get()
        };
        let due = async {
            loop {
                let changed = self.changed.notified();
                if is_due() {
                    return;
                }
                changed.await;
            }
        };
        if !is_due() {
            platform.timeout(keep.time, due).await;
        }
        self.hurried.set(false);
    }

    /// A batch of queued inodes of one home that none of `busy` is, marked as being dropped.
    fn next_batch(
        &self,
        home: impl Fn(InodeNumber) -> TargetId,
        busy: &BTreeSet<TargetId>,
    ) -> Option<(TargetId, Vec<InodeNumber>)> {
        let mut queued = self.queued.borrow_mut();
        let target = queued.iter().map(|inode| home(*inode)).find(|home| !busy.contains(home))?;
        let of_target = queued.iter().copied().filter(|inode| home(*inode) == target);
        let batch: Vec<InodeNumber> = of_target.take(DROP_BATCH_MAX).collect();
        let mut inodes = self.inodes.borrow_mut();
        for inode in &batch {
            queued.remove(inode);
            self.confirmed.borrow_mut().remove(inode);
            inodes.insert(*inode, Holding::Dropping);
        }
        self.dropping.borrow_mut().extend(&batch);
        Some((target, batch))
    }

    fn finish_batch(&self, batch: &[InodeNumber]) {
        let mut inodes = self.inodes.borrow_mut();
        let mut dropping = self.dropping.borrow_mut();
        for inode in batch {
            inodes.remove(inode);
            dropping.remove(inode);
        }
        drop((inodes, dropping));
        if self.opening.get() > 0 {
            self.dropped_meanwhile.borrow_mut().extend(batch);
        }
        self.changed.notify_all();
    }
}

/// Starts the task that tells homes which references are gone: at most one request per home at a
/// time, so that a home that does not answer delays no other.
pub(crate) fn start_dropping(platform: &Platform, session: &Rc<Session>, keep: Keep) {
    let (references, platform) = (session.references.clone(), platform.clone());
    let session = Rc::downgrade(session);
    let busy: Rc<RefCell<BTreeSet<TargetId>>> = Rc::default();
    platform.clone().spawn(async move {
        loop {
            let changed = references.changed.notified();
            references.gather(&platform, keep).await;
            while let Some(session) = session.upgrade() {
                let batch = references.next_batch(|inode| session.home(inode), &busy.borrow());
                let Some((target, batch)) = batch else { break };
                busy.borrow_mut().insert(target);
                let busy = busy.clone();
                platform.spawn(async move {
                    drop_batch(&session, target, &batch).await;
                    busy.borrow_mut().remove(&target);
                    session.references.finish_batch(&batch);
                });
            }
            if references.stopped.get() {
                return;
            }
            changed.await;
        }
    });
}

/// A drop that fails needs nothing more: the home forgets the reference with the session, and a
/// reconnecting session restates only what it holds.
async fn drop_batch(session: &Session, target: TargetId, batch: &[InodeNumber]) {
    let Ok(peer) = session.peer(target) else { return };
    let request = ReferencesRequest { take: Vec::new(), drop: batch.to_vec() };
    if let Err(error) = peer.call_until(&request, None, session.call_deadline()).await {
        tracing::debug!(%target, %error, "could not give references back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: InodeNumber = InodeNumber(7);

    fn batch_of(references: &References) -> Option<Vec<InodeNumber>> {
        references.next_batch(|_| TargetId(1), &BTreeSet::new()).map(|(_, batch)| batch)
    }

    #[test]
    fn the_last_handle_queues_a_drop_and_a_new_one_revives_it() {
        let references = References::default();
        assert!(references.try_count(INODE) && references.try_count(INODE));
        references.release(INODE);
        assert_eq!((batch_of(&references), references.is_empty()), (None, false));
        references.release(INODE);
        assert!(references.is_empty());
        assert_eq!(references.held(|_| true), vec![INODE], "a home that restarts has to know it");
        assert!(references.try_count(INODE));
        assert_eq!((batch_of(&references), references.held(|_| true)), (None, vec![INODE]));
    }

    #[test]
    fn a_reference_is_certain_from_its_confirmation_to_its_drop() {
        let references = References::default();
        references.confirm(INODE);
        assert!(!references.is_confirmed(INODE), "nobody holds it");
        assert!(references.try_count(INODE) && !references.is_confirmed(INODE));
        references.confirm(INODE);
        references.release(INODE);
        assert!(references.try_count(INODE) && references.is_confirmed(INODE));
        references.release(INODE);
        batch_of(&references).expect("a drop is due");
        assert!(!references.is_confirmed(INODE) && references.held(|_| true).is_empty());
    }

    #[test]
    fn nothing_is_taken_while_its_drop_is_on_the_way() {
        let references = Rc::new(References::default());
        assert!(references.try_count(INODE));
        references.release(INODE);
        let early = references.begin_opening();
        let batch = batch_of(&references).expect("a drop is due");
        assert!(!references.try_count(INODE), "must wait for the drop");
        assert!(references.is_doubtful(INODE));
        references.finish_batch(&batch);
        assert!(references.is_doubtful(INODE), "the open may have been carried out before");
        drop(early);
        assert!(!references.is_doubtful(INODE) && references.try_count(INODE));
    }

    #[test]
    fn an_open_by_name_that_begins_during_a_drop_is_doubtful() {
        let references = Rc::new(References::default());
        assert!(references.try_count(INODE));
        references.release(INODE);
        let batch = batch_of(&references).expect("a drop is due");
        let opening = references.begin_opening();
        references.finish_batch(&batch);
        assert!(references.is_doubtful(INODE));
        drop(opening);
    }
}
