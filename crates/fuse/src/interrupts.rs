//! Requests that wait for something a person may lose patience with.
//!
//! An interrupt may come before the request it means, because they reach different workers: the
//! latest ones are remembered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::AbortHandle;

/// Interrupts remembered for requests that have not come yet.
const EARLY_MAX: usize = 256;

/// The waits of a mount, by the number of their request.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<u64, AbortHandle>,
    early: VecDeque<u64>,
}

impl Waits {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins to wait; `abort` ends it.
    pub(crate) fn begin(&self, unique: u64, abort: AbortHandle) {
        let mut state = self.state();
        match state.early.iter().position(|early| *early == unique) {
            Some(index) => {
                state.early.remove(index);
                abort.abort();
            }
            None => {
                state.waiting.insert(unique, abort);
            }
        }
    }

    /// A request waits no longer.
    pub(crate) fn end(&self, unique: u64) {
        self.state().waiting.remove(&unique);
    }

    /// A request was interrupted.
    pub(crate) fn interrupt(&self, unique: u64) {
        let mut state = self.state();
        if let Some(abort) = state.waiting.remove(&unique) {
            drop(state);
            abort.abort();
            return;
        }
        if state.early.len() >= EARLY_MAX {
            state.early.pop_front();
        }
        state.early.push_back(unique);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_ends_its_wait_whichever_comes_first() {
        let waits = Waits::default();
        let (abort, _) = AbortHandle::new_pair();
        waits.begin(1, abort.clone());
        waits.interrupt(2);
        assert!(!abort.is_aborted());
        waits.interrupt(1);
        assert!(abort.is_aborted());
        let (early, _) = AbortHandle::new_pair();
        waits.begin(2, early.clone());
        assert!(early.is_aborted());
        let (late, _) = AbortHandle::new_pair();
        waits.begin(2, late.clone());
        waits.end(2);
        waits.interrupt(2);
        assert!(!late.is_aborted());
    }
}
