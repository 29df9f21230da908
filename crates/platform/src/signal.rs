//! Waiting for a condition on state that other tasks of the same shard change.
//!
//! Whoever changes the state calls [`Signal::notify`]; every waiter then looks again. There is no
//! queue and no fairness, and a dropped waiter leaves nothing behind but a spurious wake-up.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Wakes tasks that wait for a change.
#[derive(Debug, Default)]
pub struct Signal {
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Makes every waiter look again.
    pub fn notify(&self) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until `condition` gives a value. Code that follows directly runs before any other
    /// task, so what the condition saw still holds there.
    pub async fn until<T>(&self, mut condition: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match condition() {
            Some(value) => Poll::Ready(value),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    waiting.push(context.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}
