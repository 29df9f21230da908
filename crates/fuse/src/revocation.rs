//! Taking back what the kernel has cached, when a lease has to be given back.
//!
//! Invariant: when a revocation returns, nothing that was promised under the lease before is in
//! the kernel any more, and no reply that promises it is on its way. Names are dropped all at
//! once, by raising the connection's epoch, because that takes no lock of the kernel; the names
//! that are still good are answered again from the cache of leases.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use ringfs_client::Revoked;
use ringfs_platform::fuse::FuseNotifier;
use ringfs_wire::{InodeNumber, Lease};

use crate::abi;
use crate::worker::MountState;

/// Names of this many inodes are told apart; beyond it every revocation drops all names.
const NAMED_MAX: usize = 1 << 20;
/// Inodes share this many counters; a shared one only costs a notify more.
const COUNTERS: u64 = 1_024;
/// How often pages are dropped again because READs without a lease went on meanwhile. They end,
/// because each such READ drops its pages itself.
const DROPS_MAX: u32 = 100;

/// What the kernel may have cached, as far as it matters for taking it back.
#[derive(Debug)]
pub(crate) struct Promises {
    /// Inodes whose names, and directories whose missing names, were promised since the epoch was
    /// last raised. `None`: too many to tell.
    named: Mutex<Option<BTreeSet<InodeNumber>>>,
    /// Inodes whose pages are being dropped, and by how many revocations.
    dropping: Mutex<BTreeMap<InodeNumber, u32>>,
    /// READs that filled pages without a lease, by inode.
    unleased: Vec<AtomicU64>,
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            named: Mutex::new(Some(BTreeSet::new())),
            dropping: Mutex::default(),
            unleased: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Promises {
    /// Notes that a name of `inode`, or a name missing in it, is promised to the kernel.
    pub(crate) fn note_name(&self, inode: InodeNumber) {
        let mut named = self.named();
        if let Some(inodes) = &mut *named {
            inodes.insert(inode);
            if inodes.len() > NAMED_MAX {
                *named = None;
            }
        }
    }

    fn named(&self) -> MutexGuard<'_, Option<BTreeSet<InodeNumber>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_name(&self, inode: InodeNumber) -> bool {
        self.named().as_ref().is_none_or(|inodes| inodes.contains(&inode))
    }

    fn forget_names(&self) {
        *self.named() = Some(BTreeSet::new());
    }

    fn dropping(&self) -> MutexGuard<'_, BTreeMap<InodeNumber, u32>> {
        self.dropping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// If pages of `inode` are being dropped, notes that a READ fills some without a lease, so
    /// that they are dropped once more. Such a READ must wait for nothing that the revocation
    /// holds up, because the drop waits for the READ's pages.
    pub(crate) fn may_read_unleased(&self, inode: InodeNumber) -> bool {
        let dropping = self.dropping();
        let is_dropping = dropping.contains_key(&inode);
        if is_dropping {
            self.unleased(inode).fetch_add(1, Ordering::SeqCst);
        }
        is_dropping
    }

    fn begin_dropping(&self, inode: InodeNumber) {
        *self.dropping().entry(inode).or_default() += 1;
    }

    /// Ends a drop, unless a READ without a lease has come in since there were `before` of them
    /// and this is not the `last` attempt.
    fn end_dropping(&self, inode: InodeNumber, before: u64, last: bool) -> bool {
        let mut dropping = self.dropping();
        if !last && self.unleased(inode).load(Ordering::SeqCst) != before {
            return false;
        }
        if let Some(count) = dropping.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                dropping.remove(&inode);
            }
        }
        true
    }

    fn unleased(&self, inode: InodeNumber) -> &AtomicU64 {
        &self.unleased[(inode.0 % COUNTERS) as usize]
    }
}

/// The way from a revocation to the kernel; lives on the lease shard.
pub(crate) struct KernelRevocations {
    state: Arc<MountState>,
    notifier: FuseNotifier,
    /// Held while names are dropped: whoever finds his name dropped already must wait for it.
    dropping_names: futures_util::lock::Mutex<()>,
}

impl KernelRevocations {
    pub(crate) fn new(state: Arc<MountState>, notifier: FuseNotifier) -> Self {
        Self { state, notifier, dropping_names: Default::default() }
    }

    async fn notify(&self, message: Vec<u8>) {
        note_failure(self.notifier.notify(message).await);
    }

    async fn drop_pages(&self, inode: InodeNumber) {
        let promises = &self.state.promises;
        promises.begin_dropping(inode);
        for attempt in 1.. {
            let before = promises.unleased(inode).load(Ordering::SeqCst);
            let message = abi::notify_invalidate_inode(inode.0, true);
            note_failure(self.notifier.notify_waiting(message).await);
            if promises.end_dropping(inode, before, attempt == DROPS_MAX) {
                break;
            }
        }
    }

    async fn drop_names(&self, inode: InodeNumber) {
        let _guard = self.dropping_names.lock().await;
        let promises = &self.state.promises;
        if self.state.agreement.names_can_be_dropped() && promises.has_name(inode) {
            // First, so that what is promised from now on is noted for the next time.
            promises.forget_names();
            self.notify(abi::notify_increase_epoch()).await;
        }
    }
}

/// Without a connection there is no cache either.
pub(crate) fn note_failure(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "the kernel did not take a notify");
    }
}

impl Revoked for KernelRevocations {
    fn revoked<'a>(&'a self, inode: InodeNumber, lease: Lease) -> LocalBoxFuture<'a, ()> {
        async move {
            tracing::trace!(%inode, ?lease, "revoked");
            self.state.gate.revoke(inode).await;
            if lease.contains(Lease::CONTENT) {
                self.drop_pages(inode).await;
            } else if lease.contains(Lease::ATTRIBUTES) {
                self.notify(abi::notify_invalidate_inode(inode.0, false)).await;
            }
            if !lease.and(Lease::NAMES.or(Lease::CONTENT)).is_none() {
                self.drop_names(inode).await;
            }
        }
        .boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_forgotten_together_and_noted_anew() {
        let (promises, inode) = (Promises::default(), InodeNumber(3));
        assert!(!promises.has_name(inode));
        promises.note_name(inode);
        assert!(promises.has_name(inode) && !promises.has_name(InodeNumber(4)));
        promises.forget_names();
        assert!(!promises.has_name(inode));
    }

    #[test]
    fn drops_of_one_inode_are_counted() {
        let (promises, inode) = (Promises::default(), InodeNumber(3));
        assert!(!promises.may_read_unleased(inode));
        promises.begin_dropping(inode);
        promises.begin_dropping(inode);
        assert!(promises.end_dropping(inode, 0, false));
        assert!(promises.may_read_unleased(inode));
        assert!(!promises.end_dropping(inode, 0, false), "a READ came in");
        assert!(promises.end_dropping(inode, 1, false) && !promises.may_read_unleased(inode));
    }
}
