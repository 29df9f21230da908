//! Work that makes more work: items for a fixed number of workers on one thread.
//!
//! Last in, first out, so that a tree is copied depth first and few items wait.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Items to be worked on.
pub(super) struct Queue<T> {
    items: RefCell<Vec<T>>,
    /// Items waiting or being worked on: when there are none, no more can come.
    outstanding: Cell<usize>,
    idle: RefCell<Vec<Waker>>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { items: RefCell::default(), outstanding: Cell::new(0), idle: RefCell::default() }
    }

    pub(super) fn push(&self, item: T) {
        self.outstanding.set(self.outstanding.get() + 1);
        self.items.borrow_mut().push(item);
        if let Some(waker) = self.idle.borrow_mut().pop() {
            waker.wake();
        }
    }

    /// The next item, or `None` when all are done. Whoever took an item calls [`Self::done`].
    pub(super) async fn next(&self) -> Option<T> {
        poll_fn(|context| {
            if let Some(item) = self.items.borrow_mut().pop() {
                return Poll::Ready(Some(item));
            }
            if self.outstanding.get() == 0 {
                return Poll::Ready(None);
            }
            self.idle.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// An item is worked on; what it led to was pushed before.
    pub(super) fn done(&self) {
        let outstanding = self.outstanding.get();
        assert!(outstanding > 0, "an item is done once");
        self.outstanding.set(outstanding - 1);
        if outstanding == 1 {
            self.idle.borrow_mut().drain(..).for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    #[test]
    fn workers_end_when_all_work_is_done() {
        let queue = Queue::new();
        let count = Cell::new(0);
        queue.push(4_u32);
        let work = async || {
            while let Some(depth) = queue.next().await {
                count.set(count.get() + 1);
                for _ in 0..depth {
                    queue.push(depth - 1);
                }
                queue.done();
            }
        };
        join_all((0..7).map(|_| work())).now_or_never().expect("nothing else is waited for");
        // 1 + 4 (1 + 3 (1 + 2 (1 + 1))).
        assert_eq!(count.get(), 65);
    }
}
