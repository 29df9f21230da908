//! Links: connections that carry whole frames.
//!
//! Invariant, per connection: frames arrive in order and at most once; when a connection breaks,
//! a suffix is lost. What a frame's header means is the caller's business; this module only asks
//! its [`Framing`] for lengths, before anything is allocated. No retries, no reconnects.

use std::io;

#[cfg(feature = "sim")]
use crate::sim;
use crate::uring;
use crate::{Address, Platform, Slice, on};

/// How to find the end of a frame: the fixed header's length and its reader.
#[derive(Clone, Copy)]
pub struct Framing {
    /// Bytes of the fixed header that opens every frame.
    pub header_len: usize,
    /// Reads the lengths from a header of `header_len` bytes; refuses bad magic, version or size.
    pub lengths: fn(&[u8]) -> Result<FrameLengths, FramingError>,
}

/// What follows a header on the stream: header, then body, then bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLengths {
    /// Bytes of the small body.
    pub body: usize,
    /// Bytes of bulk data, received into a page-aligned buffer.
    pub bulk: usize,
}

/// Why a header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FramingError(pub &'static str);

impl From<FramingError> for io::Error {
    fn from(error: FramingError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// One frame, as sent and as received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Header and body, contiguous.
    pub head: Vec<u8>,
    /// Bulk data; `None` where its length is zero.
    pub bulk: Option<Slice>,
}

/// Accepts connections on one address until dropped.
pub struct Listener(pub(crate) ListenerKind);

pub(crate) enum ListenerKind {
    Uring(uring::Listener),
    #[cfg(feature = "sim")]
    Simulated(sim::Listener),
}

impl Listener {
    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<Link> {
        match &self.0 {
            ListenerKind::Uring(listener) => Ok(Link(LinkKind::Uring(listener.accept().await?))),
            #[cfg(feature = "sim")]
            ListenerKind::Simulated(listener) => {
                Ok(Link(LinkKind::Simulated(listener.accept().await?)))
            }
        }
    }

    /// The address it listens on, with the real port.
    pub fn address(&self) -> Address {
        on!(ListenerKind, &self.0, listener => listener.address())
    }
}

/// A connection; closed when it, or both of its halves, are dropped.
pub struct Link(pub(crate) LinkKind);

pub(crate) enum LinkKind {
    Uring(uring::Link),
    #[cfg(feature = "sim")]
    Simulated(sim::Link),
}

impl Link {
    /// Separates the directions, so that two tasks can drive them.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        match self.0 {
            LinkKind::Uring(link) => {
                let (sender, receiver) = link.split();
                (LinkSender(SenderKind::Uring(sender)), LinkReceiver(ReceiverKind::Uring(receiver)))
            }
            #[cfg(feature = "sim")]
            LinkKind::Simulated(link) => {
                let (sender, receiver) = link.split();
                (
                    LinkSender(SenderKind::Simulated(sender)),
                    LinkReceiver(ReceiverKind::Simulated(receiver)),
                )
            }
        }
    }

    /// Puts the halves of one link together again, so that it can move to another shard after
    /// its first frames were exchanged here. Nothing may be in flight on either half.
    ///
    /// # Panics
    /// When the halves belong to different platforms.
    pub fn reunite(sender: LinkSender, receiver: LinkReceiver) -> Link {
        match (sender.0, receiver.0) {
            (SenderKind::Uring(sender), ReceiverKind::Uring(receiver)) => {
                Link(LinkKind::Uring(uring::Link::reunite(sender, receiver)))
            }
            #[cfg(feature = "sim")]
            (SenderKind::Simulated(sender), ReceiverKind::Simulated(receiver)) => {
                Link(LinkKind::Simulated(sim::Link::reunite(sender, receiver)))
            }
            #[cfg(feature = "sim")]
            _ => panic!("halves of a real and of a simulated link"),
        }
    }

    /// The other end, for log lines.
    pub fn peer(&self) -> String {
        on!(LinkKind, &self.0, link => link.peer())
    }

    /// Prepares the link, frames received but not yet read included, to move to another shard.
    pub fn into_handoff(self) -> Handoff {
        match self.0 {
            LinkKind::Uring(link) => Handoff(HandoffKind::Uring(link.into_handoff())),
            #[cfg(feature = "sim")]
            LinkKind::Simulated(link) => Handoff(HandoffKind::Simulated(link.into_handoff())),
        }
    }
}

/// A link on its way to another shard of the same process; `Send`.
pub struct Handoff(pub(crate) HandoffKind);

pub(crate) enum HandoffKind {
    Uring(uring::Handoff),
    #[cfg(feature = "sim")]
    Simulated(sim::Handoff),
}

impl Handoff {
    /// Makes the link usable on the shard of `platform`.
    pub fn adopt(self, platform: &Platform) -> io::Result<Link> {
        match (self.0, platform) {
            (HandoffKind::Uring(handoff), Platform::Uring(platform)) => {
                Ok(Link(LinkKind::Uring(handoff.adopt(platform)?)))
            }
            #[cfg(feature = "sim")]
            (HandoffKind::Simulated(handoff), Platform::Simulated(platform)) => {
                Ok(Link(LinkKind::Simulated(handoff.adopt(platform)?)))
            }
            #[cfg(feature = "sim")]
            _ => Err(io::Error::other("a link cannot move between real and simulated platforms")),
        }
    }
}

/// The sending half of a [`Link`].
pub struct LinkSender(pub(crate) SenderKind);

pub(crate) enum SenderKind {
    Uring(uring::LinkSender),
    #[cfg(feature = "sim")]
    Simulated(sim::LinkSender),
}

impl LinkSender {
    /// Sends `frames` in order and in one go. Small frames are coalesced; bulk is not copied.
    ///
    /// Not safe to cancel: a dropped send may leave half a frame on the stream. The link then
    /// refuses every further send, so the peer sees a broken connection, never a garbled one.
    pub async fn send(&mut self, frames: Vec<Frame>) -> io::Result<()> {
        on!(SenderKind, &mut self.0, sender => sender.send(frames).await)
    }

    /// Shuts the connection in both directions; pending receives on either side end.
    pub fn close(&self) {
        on!(SenderKind, &self.0, sender => sender.close());
    }
}

/// The receiving half of a [`Link`].
pub struct LinkReceiver(pub(crate) ReceiverKind);

pub(crate) enum ReceiverKind {
    Uring(uring::LinkReceiver),
    #[cfg(feature = "sim")]
    Simulated(sim::LinkReceiver),
}

impl LinkReceiver {
    /// Waits for the next frame.
    ///
    /// An orderly end between frames is `UnexpectedEof`, an end inside a frame and a refused
    /// header are `InvalidData`. Not safe to cancel: keep it in one task until it returns.
    pub async fn receive(&mut self) -> io::Result<Frame> {
        on!(ReceiverKind, &mut self.0, receiver => receiver.receive().await)
    }
}
