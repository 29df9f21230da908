//! Counts what this thread has seen happen, so that an idle runtime knows whether waiting for
//! more without parking pays.

use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Something arrived: a frame, a completion, a message of another shard.
pub(crate) fn note() {
    COUNT.set(COUNT.get().wrapping_add(1));
}

/// How much arrived so far.
pub(super) fn count() -> u64 {
    COUNT.get()
}
