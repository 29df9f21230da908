//! A bound on the bytes held in memory.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Bytes that may be held at a time.
pub(super) struct Budget {
    total: usize,
    free: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

/// Bytes held; given back when dropped.
pub(super) struct Share<'a> {
    budget: &'a Budget,
    len: usize,
}

impl Budget {
    pub(super) fn new(total: usize) -> Self {
        Self { total, free: Cell::new(total), waiting: RefCell::default() }
    }

    /// Waits until `len` bytes are free and takes them. More than there are at all is granted
    /// when everything is free.
    pub(super) async fn take(&self, len: usize) -> Share<'_> {
        let len = len.min(self.total);
        poll_fn(|context| {
            let free = self.free.get();
            if free < len {
                self.waiting.borrow_mut().push(context.waker().clone());
                return Poll::Pending;
            }
            self.free.set(free - len);
            Poll::Ready(())
        })
        .await;
        Share { budget: self, len }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.free.set(self.budget.free.get() + self.len);
        self.budget.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn no_more_is_held_than_allowed() {
        let budget = Budget::new(10);
        let first = budget.take(6).now_or_never().unwrap();
        assert!(budget.take(5).now_or_never().is_none());
        let second = budget.take(4).now_or_never().unwrap();
        drop((first, second));
        let all = budget.take(99).now_or_never().unwrap();
        assert!(budget.take(1).now_or_never().is_none());
        drop(all);
        assert!(budget.take(10).now_or_never().is_some());
    }
}
