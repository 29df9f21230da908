//! A signal between tasks of one thread: "something changed, look again".
//!
//! Invariant: a waiter made before a signal is woken by it, whether or not it was polled yet.
//! Nothing is queued; several signals may be seen as one.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The signal.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    count: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notify {
    /// Wakes everybody who waits.
    pub(crate) fn notify_all(&self) {
        self.count.set(self.count.get() + 1);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Waits for the first signal after this call (not after the first poll).
    pub(crate) fn notified(&self) -> impl Future<Output = ()> + '_ {
        let seen = self.count.get();
        poll_fn(move |context| {
            if self.count.get() != seen {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
    }
}
