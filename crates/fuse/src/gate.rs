//! What makes a revocation and the replies under way to the kernel exclude each other.
//!
//! A reply that lets the kernel cache something must not reach it after the notify that takes
//! the same thing away. So a reply notes the moment before its lease was looked at, passes the
//! gate, sees that its inode was not revoked since, and stays inside until it has been written; a
//! revocation marks its inode and then waits until all replies are out that had passed before.
//! Nobody waits inside for anything but the kernel.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use ringfs_wire::InodeNumber;

/// Inodes share this many marks; one mark too many only keeps something out of the cache.
const MARKS: usize = 4_096;

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The number of the next reply or revocation.
    next: u64,
    inside: BTreeSet<u64>,
    /// When an inode of this class was last revoked.
    marks: Vec<u64>,
    waiting: Vec<Waker>,
}

/// A moment before which a lease may have been revoked unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

/// A reply on its way to the kernel.
#[derive(Debug)]
pub(crate) struct Passage<'a> {
    gate: &'a Gate,
    number: u64,
}

impl Default for Gate {
    fn default() -> Self {
        let state =
            State { next: 1, inside: BTreeSet::new(), marks: vec![0; MARKS], waiting: Vec::new() };
        Self { state: Mutex::new(state) }
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The moment to note before a lease is looked at.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.state().next)
    }

    /// Lets a reply pass. It is out when the passage is dropped.
    pub(crate) fn pass(&self) -> Passage<'_> {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.inside.insert(number);
        Passage { gate: self, number }
    }

    /// Marks `inode` as revoked and waits for the replies that had passed before.
    pub(crate) async fn revoke(&self, inode: InodeNumber) {
        let number = {
            let mut state = self.state();
            let number = state.next;
            state.next += 1;
            state.marks[class(inode)] = number;
            number
        };
        poll_fn(|context| {
            let mut state = self.state();
            if state.inside.first().is_none_or(|oldest| *oldest > number) {
                return Poll::Ready(());
            }
            state.waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Passage<'_> {
    /// Whether leases on `inode` that were held at `moment` are still held.
    pub(crate) fn may_promise(&self, inode: InodeNumber, moment: Moment) -> bool {
        self.gate.state().marks[class(inode)] < moment.0
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.gate.state();
            state.inside.remove(&self.number);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Multiplier that spreads inode numbers over the marks (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

fn class(inode: InodeNumber) -> usize {
    (inode.0.wrapping_mul(SPREAD) >> 32) as usize % MARKS
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const INODE: InodeNumber = InodeNumber(7);

    #[test]
    fn a_revocation_waits_for_the_replies_before_it_only() {
        let gate = Gate::default();
        let moment = gate.now();
        let early = gate.pass();
        assert!(early.may_promise(INODE, moment));
        let mut revoking = Box::pin(gate.revoke(INODE));
        assert!(revoking.as_mut().now_or_never().is_none());
        let late = gate.pass();
        assert!(!late.may_promise(INODE, moment), "revoked since");
        assert!(late.may_promise(InodeNumber(8), moment), "another inode");
        drop(early);
        assert!(revoking.as_mut().now_or_never().is_some(), "must not wait for later replies");
        assert!(late.may_promise(INODE, gate.now()), "a lease got afterwards");
    }
}
