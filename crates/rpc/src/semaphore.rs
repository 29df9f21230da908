//! Credits: a counted resource that is handed out in the order of asking.
//!
//! Invariant: amounts granted and amounts available add up to the capacity; nobody overtakes the
//! one who waits longest. Dropping a waiting [`Semaphore::acquire`] gives back what it was granted.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

pub(crate) struct Semaphore {
    state: RefCell<State>,
}

struct State {
    available: usize,
    next_ticket: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    ticket: u64,
    amount: usize,
    waker: Option<Waker>,
}

impl Semaphore {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State { available: capacity, next_ticket: 0, waiting: VecDeque::new() };
        Self { state: RefCell::new(state) }
    }

    /// Takes `amount` if it is free and nobody waits.
    pub(crate) fn try_acquire(&self, amount: usize) -> bool {
        let mut state = self.state.borrow_mut();
        let free = state.waiting.is_empty() && state.available >= amount;
        if free {
            state.available -= amount;
        }
        free
    }

    /// Waits for `amount`, at most the capacity. Whoever got it calls [`Self::release`].
    pub(crate) fn acquire(&self, amount: usize) -> Acquire<'_> {
        let mut state = self.state.borrow_mut();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.push_back(Waiting { ticket, amount, waker: None });
        drop(state);
        // The queue may have been empty and the amount free.
        self.grant();
        Acquire { semaphore: self, ticket, amount, taken: false }
    }

    pub(crate) fn release(&self, amount: usize) {
        self.state.borrow_mut().available += amount;
        self.grant();
    }

    /// Serves the front of the queue as far as what is available goes.
    fn grant(&self) {
        loop {
            let mut state = self.state.borrow_mut();
            let available = state.available;
            let Some(front) = state.waiting.pop_front_if(|front| front.amount <= available) else {
                return;
            };
            state.available -= front.amount;
            drop(state);
            if let Some(waker) = front.waker {
                waker.wake();
            }
        }
    }
}

/// A place in the queue of a [`Semaphore`].
pub(crate) struct Acquire<'a> {
    semaphore: &'a Semaphore,
    ticket: u64,
    amount: usize,
    taken: bool,
}

impl Future for Acquire<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.semaphore.state.borrow_mut();
        let ticket = self.ticket;
        match state.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
            Ok(index) => {
                state.waiting[index].waker = Some(context.waker().clone());
                Poll::Pending
            }
            Err(_) => {
                drop(state);
                self.taken = true;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.semaphore.state.borrow_mut();
        let ticket = self.ticket;
        match state.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket) {
            Ok(index) => {
                state.waiting.remove(index);
                drop(state);
                // A smaller one behind may fit now.
                self.semaphore.grant();
            }
            Err(_) => {
                drop(state);
                self.semaphore.release(self.amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn nobody_overtakes_and_nothing_leaks() {
        let semaphore = Semaphore::new(10);
        assert!(semaphore.try_acquire(6));
        let mut large = semaphore.acquire(8);
        let mut small = semaphore.acquire(1);
        assert!(large.now_or_never_ref().is_none() && small.now_or_never_ref().is_none());
        assert!(!semaphore.try_acquire(1), "would overtake");
        drop(large);
        assert!(small.now_or_never_ref().is_some(), "the one in front left");
        let granted_unseen = semaphore.acquire(3);
        drop(granted_unseen);
        semaphore.release(1);
        semaphore.release(6);
        assert!(semaphore.try_acquire(10), "all came back");
        assert!(!semaphore.try_acquire(1));
    }

    impl Acquire<'_> {
        fn now_or_never_ref(&mut self) -> Option<()> {
            Pin::new(self).now_or_never()
        }
    }
}
