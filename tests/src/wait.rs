//! Waiting for what other processes bring about. A test never sleeps in place of a condition; the
//! pause between two looks is there because the processes waited for need the processor.

use std::thread;
use std::time::{Duration, Instant};

/// Longest wait: much longer than anything takes on a machine that does other things beside.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `look` gives a value.
///
/// # Panics
/// When it does not in two minutes; says that it waited for `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        thread::sleep(PAUSE);
    }
}

/// Waits until `holds` does.
///
/// # Panics
/// As [`wait_for`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
