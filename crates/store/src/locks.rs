//! Locks per inode, between tasks of one thread.
//!
//! Invariant: no waiter holds anything while it waits, and a dropped waiter leaves nothing
//! behind. Deliberately not usable across threads.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringfs_wire::InodeNumber;

fn register(wakers: &mut Vec<Waker>, context: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
        wakers.push(context.waker().clone());
    }
}

#[derive(Debug, Default)]
struct LockState {
    shared: u32,
    exclusive: bool,
    waiting_exclusive: u32,
    wakers: Vec<Waker>,
}

/// Shared and exclusive locks, one per inode. An exclusive waiter goes before later shared ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks(Rc<RefCell<BTreeMap<InodeNumber, LockState>>>);

/// A lock held, or waited for; dropping it gives it up.
#[derive(Debug)]
pub struct InodeGuard {
    locks: Locks,
    inode: InodeNumber,
    exclusive: bool,
    held: bool,
}

impl Locks {
    /// Waits for the lock of `inode` alone.
    pub(crate) async fn exclusive(&self, inode: InodeNumber) -> InodeGuard {
        self.0.borrow_mut().entry(inode).or_default().waiting_exclusive += 1;
        self.acquire(InodeGuard { locks: self.clone(), inode, exclusive: true, held: false }).await
    }

    /// Waits for the lock of `inode` beside other shared holders.
    pub(crate) async fn shared(&self, inode: InodeNumber) -> InodeGuard {
        self.acquire(InodeGuard { locks: self.clone(), inode, exclusive: false, held: false }).await
    }

    async fn acquire(&self, mut guard: InodeGuard) -> InodeGuard {
        poll_fn(|context| {
            let mut entries = self.0.borrow_mut();
            let entry = entries.entry(guard.inode).or_default();
            let free = match guard.exclusive {
                true => entry.shared == 0 && !entry.exclusive,
                false => !entry.exclusive && entry.waiting_exclusive == 0,
            };
            if !free {
                register(&mut entry.wakers, context);
                return Poll::Pending;
            }
            if guard.exclusive {
                entry.exclusive = true;
                entry.waiting_exclusive -= 1;
            } else {
                entry.shared += 1;
            }
            Poll::Ready(())
        })
        .await;
        guard.held = true;
        guard
    }
}

impl Drop for InodeGuard {
    fn drop(&mut self) {
        let mut entries = self.locks.0.borrow_mut();
        let Some(entry) = entries.get_mut(&self.inode) else { return };
        match (self.held, self.exclusive) {
            (true, true) => entry.exclusive = false,
            (true, false) => entry.shared -= 1,
            (false, true) => entry.waiting_exclusive -= 1,
            (false, false) => {}
        }
        let wakers = std::mem::take(&mut entry.wakers);
        if entry.shared == 0 && !entry.exclusive && entry.waiting_exclusive == 0 {
            entries.remove(&self.inode);
        }
        drop(entries);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn an_exclusive_waiter_goes_before_later_shared_ones() {
        let locks = Locks::default();
        let inode = InodeNumber(7);
        let first = locks.shared(inode).now_or_never().expect("free");
        let mut writer = Box::pin(locks.exclusive(inode));
        assert!(writer.as_mut().now_or_never().is_none());
        assert!(locks.shared(inode).now_or_never().is_none());
        assert!(locks.shared(InodeNumber(8)).now_or_never().is_some());
        drop(first);
        let held = writer.now_or_never().expect("its turn");
        assert!(locks.shared(inode).now_or_never().is_none());
        drop(held);
        assert!(locks.shared(inode).now_or_never().is_some());
        assert!(locks.0.borrow().is_empty());
    }
}
