//! The calls of one peer: what each needs to be sent again, and in which order.
//!
//! Invariant: numbers grow in the order of first sending, so walking the map is that order. Pure
//! bookkeeping: no clock, no I/O, no waking.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use ringfs_platform::{Frame, Slice};
use ringfs_wire::{FrameHeader, Lineage, NO_SLOT, References, Request, SLOTS_PER_SESSION};

use crate::CallError;

/// Shortest wait before something is tried again.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
/// Longest wait before something is tried again.
const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// How often the time that attempts of one call have doubles.
const DOUBLINGS_MAX: u32 = 4;

/// A call about to be entered.
pub(super) struct NewCall {
    pub(super) opcode: u16,
    pub(super) body: Vec<u8>,
    pub(super) bulk: Option<Slice>,
    pub(super) slot: Option<u16>,
    pub(super) deadline: Duration,
}

/// What came back for a call.
pub(super) struct Reply {
    /// Header and body.
    pub(super) head: Vec<u8>,
    pub(super) status: u32,
    pub(super) bulk: Option<Slice>,
    /// Of the target, when it answered.
    pub(super) lineage: Lineage,
}

pub(super) struct Call {
    pub(super) opcode: u16,
    body: Vec<u8>,
    bulk: Option<Slice>,
    slot: u16,
    sequence: u64,
    pub(super) deadline: Duration,
    /// When it was sent on the present connection.
    pub(super) sent_at: Option<Duration>,
    /// When it shall be sent again, after the server asked for patience.
    pub(super) resend_at: Option<Duration>,
    /// How often the server asked for patience.
    pub(super) retries: u32,
    /// How many attempts were given up because the answer took too long.
    late: u32,
    /// Whether a caller waits; the peer's own calls have none.
    owned: bool,
    waker: Option<Waker>,
    outcome: Option<Result<Reply, CallError>>,
}

impl Call {
    pub(super) fn is_open(&self) -> bool {
        self.outcome.is_none()
    }

    /// When the present attempt is given up. Each has twice the time of the one before: what takes
    /// a server long takes it as long the next time.
    fn attempt_due(&self, attempt_deadline: Duration) -> Option<Duration> {
        let patience = attempt_deadline.saturating_mul(1 << self.late.min(DOUBLINGS_MAX));
        self.sent_at.map(|sent| sent.saturating_add(patience))
    }

    /// When the time keeper must look at it next.
    fn due(&self, attempt_deadline: Duration) -> Duration {
        let attempt = self.attempt_due(attempt_deadline);
        [attempt, self.resend_at].into_iter().flatten().fold(self.deadline, Duration::min)
    }
}

pub(super) struct Calls {
    calls: BTreeMap<u64, Call>,
    next: u64,
    /// Numbers of calls to be sent on the present connection.
    outbox: VecDeque<u64>,
    sequences: [u64; SLOTS_PER_SESSION as usize],
    free_slots: Vec<u16>,
    last: String,
    /// Whether the driver's task runs.
    pub(super) driving: bool,
    /// Whether the time keeper's task runs.
    pub(super) keeping: bool,
    /// Whether frames can be sent.
    pub(super) connected: bool,
    /// Whether there ever was a connection.
    pub(super) was_connected: bool,
    /// When the time keeper will look next.
    pub(super) armed: Option<Duration>,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self {
            calls: BTreeMap::new(),
            // Zero is the number of the handshake.
            next: 1,
            outbox: VecDeque::new(),
            sequences: [0; SLOTS_PER_SESSION as usize],
            free_slots: (0..SLOTS_PER_SESSION).rev().collect(),
            last: "not connected".to_owned(),
            driving: false,
            keeping: false,
            connected: false,
            was_connected: false,
            armed: None,
        }
    }

    /// Takes a free slot.
    ///
    /// # Panics
    /// When there is none: the caller holds one of as many credits.
    pub(super) fn take_slot(&mut self) -> u16 {
        self.free_slots.pop().expect("as many slots as credits for them")
    }

    pub(super) fn return_slot(&mut self, slot: u16) {
        self.free_slots.push(slot);
    }

    /// Enters a call, last in the order of sending.
    pub(super) fn insert(&mut self, new: NewCall) -> u64 {
        let id = self.add(new, true);
        if self.connected {
            self.outbox.push_back(id);
        }
        id
    }

    fn add(&mut self, new: NewCall, owned: bool) -> u64 {
        let id = self.next;
        self.next += 1;
        let sequence = new.slot.map_or(0, |slot| {
            let sequence = &mut self.sequences[usize::from(slot)];
            *sequence += 1;
            *sequence
        });
        let call = Call {
            opcode: new.opcode,
            body: new.body,
            bulk: new.bulk,
            slot: new.slot.unwrap_or(NO_SLOT),
            sequence,
            deadline: new.deadline,
            sent_at: None,
            resend_at: None,
            retries: 0,
            late: 0,
            owned,
            waker: None,
            outcome: None,
        };
        self.calls.insert(id, call);
        id
    }

    /// Takes the outcome of a call if it is there, else notes whom to wake.
    pub(super) fn poll(&mut self, id: u64, waker: &Waker) -> Option<Result<Reply, CallError>> {
        let call = self.calls.get_mut(&id).expect("a call stays until its caller removes it");
        let outcome = call.outcome.take();
        if outcome.is_none() && !call.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            call.waker = Some(waker.clone());
        }
        outcome
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Call> {
        self.calls.remove(&id)
    }

    /// The call with this number, if it still waits for its reply.
    pub(super) fn open_mut(&mut self, id: u64) -> Option<&mut Call> {
        self.calls.get_mut(&id).filter(|call| call.is_open())
    }

    /// Ends a call; gives whom to wake.
    pub(super) fn end(&mut self, id: u64, outcome: Result<Reply, CallError>) -> Option<Waker> {
        let call = self.calls.get_mut(&id)?;
        if !call.owned {
            self.calls.remove(&id);
            return None;
        }
        call.outcome = Some(outcome);
        call.waker.take()
    }

    /// Ends all calls with the same error; gives whom to wake.
    pub(super) fn end_all(&mut self, error: &CallError) -> Vec<Waker> {
        let open = self.calls.iter().filter(|(_, call)| call.is_open());
        let ids = open.map(|(id, _)| *id).collect::<Vec<_>>();
        ids.into_iter().filter_map(|id| self.end(id, Err(error.clone()))).collect()
    }

    /// Whether any caller waits for a reply.
    pub(super) fn are_wanted(&self) -> bool {
        self.calls.values().any(|call| call.owned && call.is_open())
    }

    /// How many calls were ever made; tells the time keeper whether there was any activity.
    pub(super) fn activity(&self) -> u64 {
        self.next
    }

    /// A connection begins: everything that waits is sent again, the peer's own `first` calls
    /// ahead of it.
    pub(super) fn connected(&mut self, first: Vec<NewCall>) {
        self.connected = true;
        self.was_connected = true;
        self.outbox = first.into_iter().map(|new| self.add(new, false)).collect();
        let waiting = self.calls.iter().filter(|(_, call)| call.is_open() && call.owned);
        self.outbox.extend(waiting.filter(|(_, call)| call.resend_at.is_none()).map(|(id, _)| *id));
    }

    /// The connection is gone; nothing counts as sent, and the peer's own calls belonged to it.
    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.outbox.clear();
        self.calls.retain(|_, call| call.owned);
        for call in self.calls.values_mut() {
            call.sent_at = None;
        }
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Frames for everything to be sent, and whether any of them gives the session state. `header` comes
    /// without what belongs to the single call.
    pub(super) fn take_outgoing(
        &mut self,
        header: FrameHeader,
        now: Duration,
    ) -> (Vec<Frame>, bool) {
        let mut state = false;
        let mut frames = Vec::with_capacity(self.outbox.len());
        for id in self.outbox.drain(..) {
            // Callers may have gone since.
            let Some(call) = self.calls.get_mut(&id).filter(|call| call.is_open()) else {
                continue;
            };
            call.sent_at = Some(now);
            state |= call.slot != NO_SLOT || call.opcode == References::OPCODE;
            let header = FrameHeader {
                opcode: call.opcode,
                request: id,
                sequence: call.sequence,
                slot: call.slot,
                ..header
            };
            let bulk_len = call.bulk.as_ref().map_or(0, |bulk| bulk.len());
            frames
                .push(Frame { head: header.frame(&call.body, bulk_len), bulk: call.bulk.clone() });
        }
        (frames, state)
    }

    /// What has come due at `now`.
    pub(super) fn expire(&mut self, now: Duration, attempt_deadline: Duration) -> Expired {
        let mut expired = Expired { late: Vec::new(), resend: false, attempt: false };
        for (id, call) in self.calls.iter_mut().filter(|(_, call)| call.is_open()) {
            if call.deadline <= now {
                expired.late.push(*id);
            } else if call.resend_at.is_some_and(|at| at <= now) {
                call.resend_at = None;
                if self.connected {
                    self.outbox.push_back(*id);
                    expired.resend = true;
                }
            } else if call.attempt_due(attempt_deadline).is_some_and(|due| due <= now) {
                call.late += 1;
                expired.attempt = true;
            }
        }
        if expired.attempt {
            // The connection is given up with all it carries.
            self.calls.values_mut().for_each(|call| call.sent_at = None);
        }
        expired
    }

    /// When something comes due; `None` without open calls.
    pub(super) fn next_due(&self, attempt_deadline: Duration) -> Option<Duration> {
        let open = self.calls.values().filter(|call| call.is_open());
        open.map(|call| call.due(attempt_deadline)).min()
    }

    pub(super) fn is_earlier_than_armed(&self, due: Duration) -> bool {
        self.armed.is_none_or(|armed| due < armed)
    }

    /// Notes the trouble that a late call will report.
    pub(super) fn note_trouble(&mut self, trouble: String) {
        self.last = trouble;
    }

    pub(super) fn last_trouble(&self) -> String {
        self.last.clone()
    }
}

/// What [`Calls::expire`] found.
pub(super) struct Expired {
    /// Calls past their deadline.
    pub(super) late: Vec<u64>,
    /// Whether something is to be sent again.
    pub(super) resend: bool,
    /// Whether an attempt took too long.
    pub(super) attempt: bool,
}

/// How long to wait after the failure with this number, counted from 0: doubling, and by a random
/// part shorter so that many do not come back at once.
pub(super) fn backoff(failures: u32, random: u64) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
    full / 2 + full.mul_f64(0.5 * (random >> 32) as f64 / f64::from(u32::MAX))
}
