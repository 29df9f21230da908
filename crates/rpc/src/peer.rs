//! The calling side.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{Address, Platform, Slice};
use ringfs_wire::{Epoch, InodeNumber, Request, TargetId};

use crate::{CallError, Identity};

/// How patient and how greedy a [`Peer`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// How long one attempt may take before the connection is given up and the call sent again.
    pub attempt_deadline: Duration,
    /// How long a call may take over all attempts.
    pub operation_deadline: Duration,
    /// How long a connection without calls stays open.
    pub idle_close: Duration,
    /// Calls that may wait for replies at one time; further ones queue.
    pub max_in_flight: usize,
    /// Bytes of bulk that those calls may carry; a larger call goes alone.
    pub max_bulk_in_flight: usize,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            attempt_deadline: Duration::from_secs(2),
            operation_deadline: Duration::from_secs(30),
            idle_close: Duration::from_secs(30),
            max_in_flight: 128,
            max_bulk_in_flight: 32 << 20,
        }
    }
}

/// A successful reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<T> {
    /// The message.
    pub reply: T,
    /// The data that came with it.
    pub bulk: Option<Slice>,
}

/// One target, as one shard talks to it. Clones share connection, slots and credits.
#[derive(Clone)]
pub struct Peer {
    target: TargetId,
    has_state: Rc<Cell<bool>>,
}

impl Peer {
    /// A peer that connects when the first call is made. `epoch` is the version of the caller's
    /// map, read when a frame is sent; `references` names the inodes on which the session holds
    /// references at the target, and is asked after every reconnect.
    pub fn new(
        _platform: &Platform,
        _address: Address,
        target: TargetId,
        _identity: Identity,
        _epoch: Rc<Cell<Epoch>>,
        _references: Rc<dyn Fn(TargetId) -> Vec<InodeNumber>>,
        _options: PeerOptions,
    ) -> Peer {
        Peer { target, has_state: Rc::default() }
    }

    /// Makes a call with the deadline of the options.
    pub async fn call<R: Request>(
        &self,
        request: &R,
        bulk: Option<Slice>,
    ) -> Result<Response<R::Reply>, CallError> {
        self.call_until(request, bulk, Duration::ZERO).await
    }

    /// Makes a call that ends when the monotonic clock reaches `deadline`.
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn call_until<R: Request>(
        &self,
        _request: &R,
        _bulk: Option<Slice>,
        _deadline: Duration,
    ) -> Result<Response<R::Reply>, CallError> {
        Err(CallError::Deadline { target: self.target, last: "not connected".to_owned() })
    }

    /// The target.
    pub fn target(&self) -> TargetId {
        self.target
    }

    /// Whether a session may exist at the target that must be renewed: a mutation was sent, or
    /// [`Self::mark_state`] was called.
    pub fn has_state(&self) -> bool {
        self.has_state.get()
    }

    /// Notes that the session holds something at the target without a mutation, such as a
    /// reference taken by a lookup that opens.
    pub fn mark_state(&self) {
        self.has_state.set(true);
    }
}
