//! Bounded queues between shards: the only thing that crosses from one shard to another.
//!
//! Invariant: no more than `bound` messages ever wait; a sender waits instead. Messages of one
//! sender arrive in order. Works between threads and, in simulation, between tasks.

use std::fmt;

/// Creates a queue that holds at most `bound` messages. Either side is cloneable; the queue closes
/// when all of the other side is gone.
///
/// # Panics
/// When `bound` is zero.
pub fn mailbox<T: Send>(bound: usize) -> (MailboxSender<T>, MailboxReceiver<T>) {
    let (sender, receiver) = async_channel::bounded(bound);
    (MailboxSender { sender }, MailboxReceiver { receiver })
}

/// The message came back: nobody will ever receive it.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side of the mailbox is gone")]
pub struct MailboxClosed<T>(pub T);

// By hand, because the message need not be printable.
impl<T> fmt::Debug for MailboxClosed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MailboxClosed")
    }
}

/// Why [`MailboxSender::try_send`] gave the message back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// The bound is reached; the receiver is behind.
    #[error("the mailbox is full")]
    Full(T),
    /// All receivers are gone.
    #[error("the other side of the mailbox is gone")]
    Closed(T),
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full",
            TrySendError::Closed(_) => "Closed",
        })
    }
}

/// The sending side of a [`mailbox`]; may move to any thread.
#[derive(Debug)]
pub struct MailboxSender<T> {
    sender: async_channel::Sender<T>,
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        MailboxSender { sender: self.sender.clone() }
    }
}

impl<T: Send> MailboxSender<T> {
    /// Queues `message`, waiting while the mailbox is full.
    pub async fn send(&self, message: T) -> Result<(), MailboxClosed<T>> {
        self.sender.send(message).await.map_err(|error| MailboxClosed(error.into_inner()))
    }

    /// Queues `message` if there is room at once.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.sender.try_send(message).map_err(|error| match error {
            async_channel::TrySendError::Full(message) => TrySendError::Full(message),
            async_channel::TrySendError::Closed(message) => TrySendError::Closed(message),
        })
    }

    /// Closes the mailbox for both sides; queued messages can still be received.
    pub fn close(&self) {
        self.sender.close();
    }
}

/// The receiving side of a [`mailbox`]; may move to any thread.
#[derive(Debug)]
pub struct MailboxReceiver<T> {
    receiver: async_channel::Receiver<T>,
}

impl<T> Clone for MailboxReceiver<T> {
    fn clone(&self) -> Self {
        MailboxReceiver { receiver: self.receiver.clone() }
    }
}

impl<T: Send> MailboxReceiver<T> {
    /// Waits for the next message; `None` once the mailbox is closed and empty.
    pub async fn receive(&self) -> Option<T> {
        let message = self.receiver.recv().await.ok();
        crate::uring::activity::note();
        message
    }

    /// The next message if one waits.
    pub fn try_receive(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}
