//! The calling side: one target, as one shard talks to it.
//!
//! Invariant: a call keeps its slot and sequence over all attempts, and no sequence is ever used
//! for two calls. Credits bound what is in flight; further calls queue in order. A call ends at
//! its deadline, whatever the network does.

mod calls;
mod driver;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringfs_platform::{Address, Platform, Slice};
use ringfs_wire::{
    Acknowledged, Epoch, HEADER_LEN, InodeNumber, Lineage, LocksRestate, MAX_BODY_LEN,
    MAX_BULK_LEN, Request, SLOTS_PER_SESSION, SessionId, Status, TargetId, Wire,
};

use crate::bell::Bell;
use crate::semaphore::Semaphore;
use crate::{CallError, Identity};
use calls::{Calls, NewCall, Reply};
use driver::Interrupt;

/// How patient and how greedy a [`Peer`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// How long the first attempt may take before the connection is given up and the call sent
    /// again; each further one has twice the time.
    pub attempt_deadline: Duration,
    /// How long a call may take over all attempts.
    pub operation_deadline: Duration,
    /// How long a connection without calls stays open, at least.
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
    /// Who sent it.
    pub by: Acknowledged,
}

/// One target, as one shard talks to it. Clones share connection, slots and credits; with the
/// last of them the connection closes.
pub struct Peer {
    inner: Rc<Inner>,
}

/// Tells the file locks that the client's process holds at a target, if any.
pub type LockStatement = Rc<dyn Fn(TargetId) -> Option<LocksRestate>>;

/// What the peer's handles, its driver and its time keeper share.
struct Inner {
    platform: Platform,
    address: Address,
    target: TargetId,
    identity: Identity,
    epoch: Rc<Cell<Epoch>>,
    references: Rc<dyn Fn(TargetId) -> Vec<InodeNumber>>,
    /// What is stated after the references.
    locks: RefCell<Option<LockStatement>>,
    options: PeerOptions,
    slots: Semaphore,
    credits: Semaphore,
    bulk_credits: Semaphore,
    /// How many [`Peer`]s there are.
    handles: Cell<usize>,
    has_state: Cell<bool>,
    calls: RefCell<Calls>,
    /// Wakes the driver: something to send, or an interrupt.
    bell: Bell,
    /// Wakes the time keeper: something is due earlier than it thinks.
    alarm: Bell,
    interrupt: Cell<Option<Interrupt>>,
    /// Of the target, as the present connection was welcomed.
    lineage: Cell<Lineage>,
}

impl Peer {
    /// A peer that connects when the first call is made. `epoch` is the version of the caller's
    /// map, read when a frame is sent; `references` names the inodes on which the session holds
    /// references at the target, and is asked after every reconnect.
    pub fn new(
        platform: &Platform,
        address: Address,
        target: TargetId,
        identity: Identity,
        epoch: Rc<Cell<Epoch>>,
        references: Rc<dyn Fn(TargetId) -> Vec<InodeNumber>>,
        options: PeerOptions,
    ) -> Peer {
        let inner = Inner {
            platform: platform.clone(),
            address,
            target,
            identity,
            epoch,
            references,
            locks: RefCell::default(),
            options,
            slots: Semaphore::new(usize::from(SLOTS_PER_SESSION)),
            credits: Semaphore::new(options.max_in_flight),
            bulk_credits: Semaphore::new(options.max_bulk_in_flight),
            handles: Cell::new(1),
            has_state: Cell::new(false),
            calls: RefCell::new(Calls::new()),
            bell: Bell::default(),
            alarm: Bell::default(),
            interrupt: Cell::new(None),
            lineage: Cell::default(),
        };
        Peer { inner: Rc::new(inner) }
    }

    /// Has the file locks stated again after every reconnect, behind the references.
    pub fn state_locks(&self, locks: LockStatement) {
        *self.inner.locks.borrow_mut() = Some(locks);
    }

    /// Makes a call with the deadline of the options.
    pub async fn call<R: Request>(
        &self,
        request: &R,
        bulk: Option<Slice>,
    ) -> Result<Response<R::Reply>, CallError> {
        let now = self.inner.platform.monotonic();
        self.run(request, bulk, now, now + self.inner.options.operation_deadline).await
    }

    /// Makes a call that ends when the monotonic clock reaches `deadline`.
    ///
    /// Dropping the future leaves the outcome unknown.
    pub async fn call_until<R: Request>(
        &self,
        request: &R,
        bulk: Option<Slice>,
        deadline: Duration,
    ) -> Result<Response<R::Reply>, CallError> {
        self.run(request, bulk, self.inner.platform.monotonic(), deadline).await
    }

    /// The target.
    pub fn target(&self) -> TargetId {
        self.inner.target
    }

    /// Whether a session may exist at the target that must be renewed: a mutation was sent, or
    /// [`Self::mark_state`] was called.
    pub fn has_state(&self) -> bool {
        self.inner.has_state.get() && self.inner.identity.session != SessionId::default()
    }

    /// Notes that the session holds something at the target without a mutation, such as a
    /// reference taken by a lookup that opens.
    pub fn mark_state(&self) {
        self.inner.has_state.set(true);
    }

    async fn run<R: Request>(
        &self,
        request: &R,
        bulk: Option<Slice>,
        now: Duration,
        deadline: Duration,
    ) -> Result<Response<R::Reply>, CallError> {
        let inner = &self.inner;
        let body = request.to_bytes();
        let bulk = bulk.filter(|bulk| !bulk.is_empty());
        let bulk_len = bulk.as_ref().map_or(0, |bulk| bulk.len());
        if body.len() > MAX_BODY_LEN || bulk_len > MAX_BULK_LEN {
            return Err(CallError::TooLarge { len: body.len().max(bulk_len) });
        }
        if deadline <= now {
            return Err(inner.late());
        }
        let mut claim = Claim::new(inner);
        claim.credits(R::MUTATION, bulk_len, deadline).await?;
        let request = NewCall { opcode: R::OPCODE, body, bulk, slot: claim.slot, deadline };
        let id = inner.start(request, now);
        claim.call = Some(id);
        let Reply { head, status, bulk, lineage } =
            poll_fn(|context| match inner.calls.borrow_mut().poll(id, context.waker()) {
                Some(outcome) => Poll::Ready(outcome),
                None => Poll::Pending,
            })
            .await?;
        let body = &head[HEADER_LEN..];
        if status != 0 {
            let status = Status::from_code(status);
            return Err(CallError::Status { status, body: body.to_vec() });
        }
        match R::Reply::from_bytes(body) {
            Ok(reply) => {
                let by = Acknowledged { target: inner.target, lineage };
                Ok(Response { reply, bulk, by })
            }
            Err(error) => Err(CallError::BadReply { target: inner.target, error }),
        }
    }
}

impl Clone for Peer {
    fn clone(&self) -> Self {
        self.inner.handles.set(self.inner.handles.get() + 1);
        Peer { inner: self.inner.clone() }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let handles = self.inner.handles.get() - 1;
        self.inner.handles.set(handles);
        if handles == 0 {
            self.inner.interrupt(Interrupt::Abandoned);
        }
    }
}

impl Inner {
    /// The error of a call whose deadline has passed.
    fn late(&self) -> CallError {
        CallError::Deadline { target: self.target, last: self.calls.borrow().last_trouble() }
    }

    /// Enters a call whose credits are there, and sees to it that somebody sends it.
    fn start(self: &Rc<Self>, request: NewCall, now: Duration) -> u64 {
        let due = request.deadline.min(now + self.options.attempt_deadline);
        let mut calls = self.calls.borrow_mut();
        let id = calls.insert(request);
        let early = calls.is_earlier_than_armed(due);
        drop(calls);
        self.ensure_driver();
        self.bell.ring();
        if early {
            self.alarm.ring();
        }
        id
    }
}

/// What a call holds; dropping it gives everything back, whether the call ended or not.
struct Claim<'a> {
    inner: &'a Inner,
    slot: Option<u16>,
    credit: bool,
    bulk: usize,
    call: Option<u64>,
}

impl<'a> Claim<'a> {
    fn new(inner: &'a Inner) -> Self {
        Self { inner, slot: None, credit: false, bulk: 0, call: None }
    }

    /// Takes a slot for a mutation, a credit, and credit for bulk, always in this order.
    async fn credits(
        &mut self,
        mutation: bool,
        bulk: usize,
        deadline: Duration,
    ) -> Result<(), CallError> {
        let inner = self.inner;
        if mutation {
            inner.wait(&inner.slots, 1, deadline).await?;
            self.slot = Some(inner.calls.borrow_mut().take_slot());
        }
        inner.wait(&inner.credits, 1, deadline).await?;
        self.credit = true;
        let bulk = bulk.min(inner.options.max_bulk_in_flight);
        if bulk > 0 {
            inner.wait(&inner.bulk_credits, bulk, deadline).await?;
            self.bulk = bulk;
        }
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut calls = self.inner.calls.borrow_mut();
        // Dropped after the borrow ends: the call may hold a waker.
        let call = self.call.and_then(|id| calls.remove(id));
        if let Some(slot) = self.slot {
            calls.return_slot(slot);
        }
        drop(calls);
        drop(call);
        if self.slot.is_some() {
            self.inner.slots.release(1);
        }
        if self.credit {
            self.inner.credits.release(1);
        }
        if self.bulk > 0 {
            self.inner.bulk_credits.release(self.bulk);
        }
    }
}

impl Inner {
    /// Takes `amount` from `semaphore`. Only a call that must queue needs a timer of its own.
    async fn wait(
        &self,
        semaphore: &Semaphore,
        amount: usize,
        deadline: Duration,
    ) -> Result<(), CallError> {
        if semaphore.try_acquire(amount) {
            return Ok(());
        }
        let patience = deadline.saturating_sub(self.platform.monotonic());
        let acquired = self.platform.timeout(patience, semaphore.acquire(amount)).await;
        acquired.ok_or_else(|| self.late())
    }
}
