//! The two tasks behind a peer: the driver connects and moves frames, the time keeper holds the
//! peer's one timer.
//!
//! Invariant: both live only while there is a call or an open connection, and neither polls.

use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{Frame, LinkReceiver, LinkSender};
use ringfs_wire::{
    FrameHeader, LocksRestate, NO_SLOT, References, Request, SessionId, Status, Wire,
};

use super::Inner;
use super::calls::{NewCall, Reply, backoff};
use crate::bell::{pump, until};
use crate::handshake::{Unwelcome, introduce};
use crate::{CallError, FRAMING, Refusal};

/// Inodes named in one frame of references; keeps the body well below its limit.
const REFERENCES_PER_FRAME: usize = 64 << 10;

/// Why a connection is given up from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// A call waited for its reply longer than an attempt may take.
    AttemptLate,
    /// There was nothing to do.
    Idle,
    /// The last [`super::Peer`] was dropped.
    Abandoned,
}

/// How an attempt to have a connection ended.
enum End {
    /// Nobody needs it any longer.
    Unneeded,
    /// It failed; another one may succeed.
    Broken(String),
    /// No attempt will succeed.
    Refused(Refusal),
    /// The target ended the session or will not serve it.
    Status(Status),
}

impl Inner {
    pub(super) fn interrupt(&self, interrupt: Interrupt) {
        self.interrupt.set(Some(interrupt));
        self.bell.ring();
    }

    /// Starts driver and time keeper unless they run.
    pub(super) fn ensure_driver(self: &Rc<Self>) {
        let mut calls = self.calls.borrow_mut();
        if calls.driving {
            return;
        }
        calls.driving = true;
        let keeping = std::mem::replace(&mut calls.keeping, true);
        drop(calls);
        self.platform.spawn(self.clone().drive());
        if keeping {
            self.alarm.ring();
        } else {
            self.platform.spawn(self.clone().keep_time());
        }
    }

    async fn drive(self: Rc<Self>) {
        let mut failures = 0;
        loop {
            let end = self.attempt(&mut failures).await;
            self.calls.borrow_mut().disconnected();
            let broken = self.conclude(end);
            if self.stop_if_unneeded() {
                return;
            }
            if broken {
                let pause = backoff(failures, self.platform.random_u64());
                failures = failures.saturating_add(1);
                self.platform.sleep(pause).await;
                if self.stop_if_unneeded() {
                    return;
                }
            }
        }
    }

    /// Tells the callers how an attempt ended; whether it is worth another one after a pause.
    fn conclude(&self, end: End) -> bool {
        let (target, address) = (self.target, &self.address);
        match end {
            End::Unneeded => return false,
            End::Refused(refusal) => {
                tracing::debug!(%target, %address, %refusal, "target cannot be used");
                let address = address.to_string();
                self.end_all(&CallError::Refused { target, address, refusal });
            }
            End::Status(status @ (Status::Busy | Status::Recovering)) => {
                self.calls.borrow_mut().note_trouble(status.to_string());
            }
            End::Status(status) => {
                tracing::debug!(%target, %address, %status, "target does not admit the session");
                self.end_all(&CallError::Status { status, body: Vec::new() });
            }
            End::Broken(reason) => {
                tracing::debug!(%target, %address, reason, "connection failed");
                self.calls.borrow_mut().note_trouble(reason);
            }
        }
        true
    }

    fn end_all(&self, error: &CallError) {
        let wakers = self.calls.borrow_mut().end_all(error);
        wakers.into_iter().for_each(|waker| waker.wake());
    }

    fn stop_if_unneeded(&self) -> bool {
        let mut calls = self.calls.borrow_mut();
        let stop = !calls.are_wanted();
        if stop {
            calls.driving = false;
            drop(calls);
            self.alarm.ring();
        }
        stop
    }

    /// Connects and moves frames until the connection ends.
    async fn attempt(&self, failures: &mut u32) -> End {
        let patience = self.options.attempt_deadline;
        let opening = async {
            let link = self.platform.connect(&self.address, FRAMING).await?;
            let (mut sender, mut receiver) = link.split();
            let fresh = !self.has_state.get();
            let welcome = introduce(
                &self.platform,
                &mut sender,
                &mut receiver,
                &self.identity,
                self.target,
                fresh,
            )
            .await?;
            Ok::<_, Unwelcome>((sender, receiver, welcome))
        };
        let opened = self.platform.timeout(patience, opening).await;
        let (mut sender, mut receiver, welcome) = match opened {
            Some(Ok(opened)) => opened,
            Some(Err(Unwelcome::Refused(refusal))) => return End::Refused(refusal),
            Some(Err(Unwelcome::Status(status))) => return End::Status(status),
            Some(Err(Unwelcome::Broken(reason))) => return End::Broken(reason),
            None => return End::Broken(format!("no connection within {patience:?}")),
        };
        let first = self.reintroduction();
        self.interrupt.set(None);
        self.lineage.set(welcome.lineage);
        self.calls.borrow_mut().connected(first);
        self.alarm.ring();
        let reader = self.read(&mut receiver, failures);
        let end = pump(&self.bell, || self.stopped(), reader, self.write(&mut sender)).await;
        sender.close();
        end
    }

    /// What a reconnected session tells the target first: the references it holds, and the locks
    /// of its process.
    fn reintroduction(&self) -> Vec<NewCall> {
        let first_ever = !self.calls.borrow().was_connected;
        if first_ever || self.identity.session == SessionId::default() {
            return Vec::new();
        }
        let held = (self.references)(self.target);
        let deadline = self.platform.monotonic() + self.options.operation_deadline;
        let call = |opcode, body| NewCall { opcode, body, bulk: None, slot: None, deadline };
        let references = held.chunks(REFERENCES_PER_FRAME).map(|take| {
            let body = References { take: take.to_vec(), drop: Vec::new() }.to_bytes();
            call(References::OPCODE, body)
        });
        let locks = self.locks.borrow().clone().and_then(|locks| locks(self.target));
        let locks = locks.map(|locks| call(LocksRestate::OPCODE, locks.to_bytes()));
        references.chain(locks).collect()
    }

    fn stopped(&self) -> Option<End> {
        if self.handles.get() == 0 {
            return Some(End::Unneeded);
        }
        match self.interrupt.take()? {
            Interrupt::AttemptLate => {
                Some(End::Broken(format!("no answer within {:?}", self.options.attempt_deadline)))
            }
            Interrupt::Idle | Interrupt::Abandoned => {
                (!self.calls.borrow().are_wanted()).then_some(End::Unneeded)
            }
        }
    }

    async fn write(&self, sender: &mut LinkSender) -> End {
        loop {
            until(|| self.calls.borrow().has_outgoing()).await;
            let now = self.platform.monotonic();
            let header = FrameHeader {
                opcode: 0,
                cluster: self.identity.cluster,
                epoch: self.epoch.get(),
                session: self.identity.session,
                request: 0,
                sequence: 0,
                slot: NO_SLOT,
                reply: false,
                target: self.target,
                status: 0,
            };
            let (frames, state) = self.calls.borrow_mut().take_outgoing(header, now);
            if state {
                self.has_state.set(true);
            }
            if frames.is_empty() {
                continue;
            }
            // The time keeper may have looked when these still waited to be sent.
            if self.calls.borrow().is_earlier_than_armed(now + self.options.attempt_deadline) {
                self.alarm.ring();
            }
            if let Err(error) = sender.send(frames).await {
                return End::Broken(error.to_string());
            }
        }
    }

    async fn read(&self, receiver: &mut LinkReceiver, failures: &mut u32) -> End {
        loop {
            let result = match receiver.receive().await {
                Ok(frame) => self.accept(frame),
                Err(error) => Err(error.to_string()),
            };
            match result {
                Ok(()) => *failures = 0,
                Err(reason) => return End::Broken(reason),
            }
        }
    }

    /// Hands a reply to its call; the error says what is wrong with the frame.
    fn accept(&self, frame: Frame) -> Result<(), String> {
        let (header, _, bulk_len) =
            FrameHeader::parse(&frame.head).map_err(|error| error.to_string())?;
        let bulk = frame.bulk.as_ref().map_or(0, |bulk| bulk.len());
        let ours = header.cluster == self.identity.cluster
            && header.session == self.identity.session
            && header.target == self.target;
        if !header.reply || !ours || bulk != bulk_len {
            return Err("a frame that is no reply to us".to_owned());
        }
        let mut calls = self.calls.borrow_mut();
        let Some(call) = calls.open_mut(header.request) else {
            // Its caller has gone.
            return Ok(());
        };
        if call.opcode != header.opcode {
            return Err("a reply to another request".to_owned());
        }
        if header.status != 0
            && let status @ (Status::Busy | Status::Recovering) = Status::from_code(header.status)
        {
            let pause = backoff(call.retries, self.platform.random_u64());
            let at = self.platform.monotonic() + pause;
            call.retries = call.retries.saturating_add(1);
            call.sent_at = None;
            call.resend_at = Some(at);
            calls.note_trouble(status.to_string());
            if calls.is_earlier_than_armed(at) {
                drop(calls);
                self.alarm.ring();
            }
            return Ok(());
        }
        let (status, lineage) = (header.status, self.lineage.get());
        let reply = Reply { head: frame.head, status, bulk: frame.bulk, lineage };
        let waker = calls.end(header.request, Ok(reply));
        drop(calls);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Ends late calls, late attempts and idle connections. Sleeps until the earliest of them.
    async fn keep_time(self: Rc<Self>) {
        loop {
            let now = self.platform.monotonic();
            self.expire(now);
            let Some(Watch { due, idle_since }) = self.arm(now) else { return };
            let slept = self.sleep_until(due, now).await;
            if slept && idle_since == Some(self.calls.borrow().activity()) {
                self.interrupt(Interrupt::Idle);
            }
        }
    }

    /// Notes when to look next; `None` once the driver has gone.
    fn arm(&self, now: Duration) -> Option<Watch> {
        let mut calls = self.calls.borrow_mut();
        if !calls.driving {
            calls.keeping = false;
            calls.armed = None;
            return None;
        }
        let next = calls.next_due(self.options.attempt_deadline);
        let due = next.unwrap_or(now + self.options.idle_close);
        calls.armed = Some(due);
        Some(Watch { due, idle_since: next.is_none().then(|| calls.activity()) })
    }

    /// Sleeps until `due` or the alarm; whether the time has come.
    async fn sleep_until(&self, due: Duration, now: Duration) -> bool {
        self.platform.timeout(due.saturating_sub(now), self.alarm.heard()).await.is_none()
    }

    fn expire(&self, now: Duration) {
        let mut calls = self.calls.borrow_mut();
        let expired = calls.expire(now, self.options.attempt_deadline);
        let error = |last| CallError::Deadline { target: self.target, last };
        let mut wakers = Vec::new();
        for id in expired.late {
            let last = calls.last_trouble();
            wakers.extend(calls.end(id, Err(error(last))));
        }
        let (resend, attempt) = (expired.resend, expired.attempt && calls.connected);
        drop(calls);
        wakers.into_iter().for_each(|waker| waker.wake());
        if attempt {
            self.interrupt(Interrupt::AttemptLate);
        } else if resend {
            self.bell.ring();
        }
    }
}

/// What the time keeper waits for.
struct Watch {
    due: Duration,
    /// Without any call open, how many calls there had been.
    idle_since: Option<u64>,
}
