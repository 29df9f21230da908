//! What answers requests: the seam between this crate and the server.

use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use ringfs_platform::Slice;
use ringfs_wire::{AnyRequest, FrameHeader, Hello, SessionId, Status, Welcome};

/// Answers the requests for one target.
pub trait Service {
    /// Decides whether a connection may begin, after its key was proved and the session's older
    /// connection has come to rest. May open the session, and waits until that cannot be
    /// forgotten: from then on the caller counts on being known. [`Status::Busy`] and
    /// [`Status::Recovering`] make the caller try again, [`Status::SessionExpired`] ends its calls.
    fn admit(&self, hello: Hello) -> LocalBoxFuture<'_, Result<Welcome, Status>>;

    /// Carries out one request. Polled first where it was read, so requests of one connection
    /// begin in the order they were sent; it goes on as a task of its own.
    fn handle(&self, call: Incoming) -> LocalBoxFuture<'_, Outgoing>;

    /// The connection of this session is gone and no newer one has taken its place.
    fn disconnected(&self, session: SessionId) {
        let _ = session;
    }
}

/// A request as it arrived, checked and decoded.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its header: session, slot and sequence are the identity of a mutation.
    pub header: FrameHeader,
    /// The request.
    pub request: AnyRequest,
    /// The data that came with it.
    pub bulk: Option<Slice>,
    /// Where it came from, for log lines.
    pub peer: Rc<str>,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The encoded reply; or a status and what goes with it.
    pub result: Result<Vec<u8>, (Status, Vec<u8>)>,
    /// The data that goes with it.
    pub bulk: Option<Slice>,
}

impl Outgoing {
    /// Success, with an encoded reply.
    pub fn reply(body: Vec<u8>) -> Self {
        Self { result: Ok(body), bulk: None }
    }

    /// Success, with an encoded reply and data.
    pub fn with_bulk(body: Vec<u8>, bulk: Slice) -> Self {
        Self { result: Ok(body), bulk: Some(bulk) }
    }

    /// Failure.
    pub fn status(status: Status) -> Self {
        Self { result: Err((status, Vec::new())), bulk: None }
    }
}
