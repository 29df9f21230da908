//! Waking the one task that drives a connection, and that driving itself.
//!
//! Invariant: a ring is never lost. It is remembered until the task has looked at everything
//! once more; only then does the task sleep. One task listens to a bell, any number ring it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Tells one task that something changed.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Cell<bool>,
    /// Whether the listener must be woken; while it runs it looks by itself.
    asleep: Cell<bool>,
    /// Kept from one sleep to the next, so that a ring costs no clone.
    listener: Cell<Option<Waker>>,
}

impl Bell {
    /// Wakes the listener, now or as soon as it listens.
    pub(crate) fn ring(&self) {
        self.rung.set(true);
        if self.asleep.replace(false)
            && let Some(listener) = self.listener.take()
        {
            listener.wake_by_ref();
            self.listener.set(Some(listener));
        }
    }

    /// Waits for a ring since the last one heard.
    pub(crate) async fn heard(&self) {
        poll_fn(|context| {
            if self.rung.replace(false) {
                return Poll::Ready(());
            }
            self.listen(context);
            Poll::Pending
        })
        .await;
    }

    fn listen(&self, context: &Context<'_>) {
        let listener = match self.listener.take() {
            Some(old) if old.will_wake(context.waker()) => old,
            _ => context.waker().clone(),
        };
        self.listener.set(Some(listener));
        self.asleep.set(true);
    }
}

/// Drives both directions of a connection in one task until one of them ends or `stop` says so.
///
/// The reader goes first, so that replies it made at once leave with the same turn of the writer.
/// Either may wait with [`until`] for conditions whose change rings `bell`.
pub(crate) async fn pump<T>(
    bell: &Bell,
    mut stop: impl FnMut() -> Option<T>,
    reader: impl Future<Output = T>,
    writer: impl Future<Output = T>,
) -> T {
    let (mut reader, mut writer) = (pin!(reader), pin!(writer));
    poll_fn(|context| {
        bell.asleep.set(false);
        loop {
            if let Some(end) = stop() {
                return Poll::Ready(end);
            }
            if let Poll::Ready(end) = reader.as_mut().poll(context) {
                return Poll::Ready(end);
            }
            // What rang so far, the writer and `stop` are about to see.
            bell.rung.set(false);
            if let Poll::Ready(end) = writer.as_mut().poll(context) {
                return Poll::Ready(end);
            }
            if let Some(end) = stop() {
                return Poll::Ready(end);
            }
            if !bell.rung.replace(false) {
                bell.listen(context);
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Waits, inside [`pump`], until `condition` holds.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    poll_fn(|_| if condition() { Poll::Ready(()) } else { Poll::Pending }).await;
}
