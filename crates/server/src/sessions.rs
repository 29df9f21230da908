//! Sessions of one target: who is alive, what they reference, which mutations are running.
//!
//! Replies of finished mutations are in the store, logged with the mutation itself. Everything
//! here is rebuilt after a restart: logged sessions get a full lifetime to come back and name their
//! references again, and until that has passed nothing unreferenced is removed. Invariant: silence
//! ends a session only if this target was able to hear it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringfs_platform::Signal;
use ringfs_wire::{InodeNumber, SessionId};

/// A session that is not heard of for this long has ended: longer than an operation may take, so
/// that a client that was stopped or cut off for less goes on as if nothing had been.
pub(crate) const SESSION_LIFETIME: Duration = Duration::from_secs(40);

/// The same of a session that holds leases and nothing else. Others wait for it while it is silent,
/// and a client that finds it ended only has to ask anew for what it caches.
pub(crate) const LEASE_LIFETIME: Duration = Duration::from_secs(10);

/// Silence counts again for everybody so long after this target itself did not get to listen.
const RECOVERY: Duration = LEASE_LIFETIME;
/// A check of silence that comes so late shows that this target did not get to listen.
const LATE: Duration = Duration::from_millis(500);
/// So long before silence ends a session it is looked whether this target listens.
const NOTICE: Duration = Duration::from_secs(1);

struct Session {
    /// The session that holds its leases; zero for none.
    holder: SessionId,
    last_seen: Duration,
    connected: bool,
    references: BTreeSet<InodeNumber>,
}

#[derive(Default)]
struct Table {
    sessions: BTreeMap<SessionId, Session>,
    /// How many sessions reference an inode.
    referenced: BTreeMap<InodeNumber, u32>,
    /// Slots whose mutation is being executed.
    running: BTreeSet<(SessionId, u16)>,
    /// Number of the last request that arrived for a slot.
    arrivals: BTreeMap<(SessionId, u16), u64>,
    /// No session ends before this instant.
    spared_until: Duration,
}

impl Table {
    /// When a session ends if it is not heard of until then.
    fn due(&self, id: SessionId, session: &Session) -> Duration {
        let lifetime = if session.holder == id { LEASE_LIFETIME } else { SESSION_LIFETIME };
        (session.last_seen + lifetime).max(self.spared_until)
    }
}

/// The sessions of one target.
#[derive(Default)]
pub(crate) struct Sessions {
    table: RefCell<Table>,
    finished: Signal,
    opened: Signal,
}

impl Sessions {
    /// Opens a session, unless it is open, and notes its holder.
    pub(crate) fn open(&self, session: SessionId, holder: SessionId, now: Duration) {
        let references = BTreeSet::new();
        let fresh = || Session { holder, last_seen: now, connected: false, references };
        let mut table = self.table.borrow_mut();
        let entry = table.sessions.entry(session).or_insert_with(fresh);
        (entry.holder, entry.last_seen) = (holder, now);
        drop(table);
        self.opened.notify();
    }

    /// Who holds the leases of a session, if that is alive here.
    pub(crate) fn holder_of(&self, session: SessionId) -> Option<SessionId> {
        let table = self.table.borrow();
        let holder = table.sessions.get(&session)?.holder;
        table.sessions.get(&holder).is_some_and(|entry| entry.holder == holder).then_some(holder)
    }

    /// Notes a sign of life of an open session.
    pub(crate) fn seen(&self, session: SessionId, now: Duration) {
        if let Some(entry) = self.table.borrow_mut().sessions.get_mut(&session) {
            entry.last_seen = now;
        }
    }

    /// Whether the session is alive here.
    pub(crate) fn is_known(&self, session: SessionId) -> bool {
        self.table.borrow().sessions.contains_key(&session)
    }

    /// Notes that the session has a connection, or has none.
    pub(crate) fn connected(&self, session: SessionId, connected: bool) {
        if let Some(entry) = self.table.borrow_mut().sessions.get_mut(&session) {
            entry.connected = connected;
        }
    }

    /// Whether a session that nobody renews must stay: it holds nothing, and its connection shows
    /// that its client lives. Leases end with silence, whatever the connection says.
    pub(crate) fn is_idle(&self, session: SessionId) -> bool {
        let table = self.table.borrow();
        table.sessions.get(&session).is_some_and(|entry| {
            entry.connected && entry.references.is_empty() && entry.holder != session
        })
    }

    /// Counts the latest sign of life of a process as one of its session; whether that was later
    /// than the session's own.
    pub(crate) fn lives_with_its_process(&self, session: SessionId) -> bool {
        let table = &mut *self.table.borrow_mut();
        let Some(entry) = table.sessions.get(&session) else { return false };
        let (holder, own) = (entry.holder, entry.last_seen);
        let of_process = table.sessions.values().filter(|other| other.holder == holder);
        let latest = of_process.map(|other| other.last_seen).max().unwrap_or(own);
        if holder == SessionId::default() || latest <= own {
            return false;
        }
        if let Some(entry) = table.sessions.get_mut(&session) {
            entry.last_seen = latest;
        }
        true
    }

    /// How many sessions are alive.
    pub(crate) fn count(&self) -> usize {
        self.table.borrow().sessions.len()
    }

    /// Adds a reference of a live session.
    pub(crate) fn reference(&self, session: SessionId, inode: InodeNumber) {
        let table = &mut *self.table.borrow_mut();
        if let Some(entry) = table.sessions.get_mut(&session)
            && entry.references.insert(inode)
        {
            *table.referenced.entry(inode).or_default() += 1;
        }
    }

    /// Drops a reference.
    pub(crate) fn unreference(&self, session: SessionId, inode: InodeNumber) {
        let table = &mut *self.table.borrow_mut();
        if let Some(entry) = table.sessions.get_mut(&session)
            && entry.references.remove(&inode)
        {
            drop_count(&mut table.referenced, inode);
        }
    }

    /// Whether any session references the inode.
    pub(crate) fn is_referenced(&self, inode: InodeNumber) -> bool {
        self.table.borrow().referenced.contains_key(&inode)
    }

    /// Ends a session and gives what it referenced.
    pub(crate) fn end(&self, session: SessionId) -> BTreeSet<InodeNumber> {
        let table = &mut *self.table.borrow_mut();
        let slots: Vec<_> =
            table.arrivals.range((session, 0)..=(session, u16::MAX)).map(|(key, _)| *key).collect();
        for key in slots {
            table.arrivals.remove(&key);
        }
        let references = table.sessions.remove(&session).map(|entry| entry.references);
        let references = references.unwrap_or_default();
        for inode in &references {
            drop_count(&mut table.referenced, *inode);
        }
        references
    }

    /// Sessions that have not been heard of for a lifetime, none of whose mutations is running;
    /// and when the next one may follow.
    pub(crate) fn expired(&self, now: Duration) -> (Vec<SessionId>, Option<Duration>) {
        let table = self.table.borrow();
        let is_running = |session: &SessionId| {
            table.running.range((*session, 0)..=(*session, u16::MAX)).next().is_some()
        };
        let due = table.sessions.iter().map(|(id, session)| (*id, table.due(*id, session)));
        let (dead, alive): (Vec<_>, Vec<_>) =
            due.partition(|(id, due)| *due <= now && !is_running(id));
        let next = alive.into_iter().map(|(_, due)| due).min();
        (dead.into_iter().map(|(id, _)| id).collect(), next)
    }

    /// Waits until a session is opened that may end before `next`.
    pub(crate) async fn sooner(&self, next: Duration) {
        let is_sooner = || {
            let table = self.table.borrow();
            table.sessions.iter().any(|(id, session)| table.due(*id, session) < next)
        };
        self.opened.until(|| is_sooner().then_some(())).await;
    }

    /// When to look next, if `next` is when a session may end.
    pub(crate) fn next_look(now: Duration, next: Duration) -> Duration {
        if now + NOTICE < next { next - NOTICE } else { next }
    }

    /// Notes that a look meant for `planned` is taken `now`. If that is late, this target did not
    /// get to listen: who was silent may not have been heard, and gets time to be.
    pub(crate) fn looked(&self, planned: Duration, now: Duration) {
        if planned + LATE < now {
            tracing::warn!(late = ?now - planned, "this target was held up; it spares its sessions");
            self.table.borrow_mut().spared_until = now + RECOVERY;
        }
    }

    /// Waits until the slot is idle and marks it running until the guard is dropped. Nothing is
    /// given to a request that a later one of its slot has overtaken: its sender has gone on to
    /// another connection, perhaps to another operation, and must not be acted for any more.
    pub(crate) async fn run(&self, session: SessionId, slot: u16) -> Option<Running<'_>> {
        let key = (session, slot);
        let arrival = {
            let mut table = self.table.borrow_mut();
            let last = table.arrivals.entry(key).or_default();
            *last += 1;
            *last
        };
        self.finished.notify();
        let turn = || {
            let mut table = self.table.borrow_mut();
            if table.arrivals.get(&key) != Some(&arrival) {
                return Some(false);
            }
            table.running.insert(key).then_some(true)
        };
        let is_mine = self.finished.until(turn).await;
        // Not made before it is known to be ours: dropping one ends the turn of the slot.
        is_mine.then(|| Running { sessions: self, key })
    }
}

fn drop_count(referenced: &mut BTreeMap<InodeNumber, u32>, inode: InodeNumber) {
    if let Some(count) = referenced.get_mut(&inode) {
        *count -= 1;
        if *count == 0 {
            referenced.remove(&inode);
        }
    }
}

/// Marks a slot whose mutation is being executed.
pub(crate) struct Running<'a> {
    sessions: &'a Sessions,
    key: (SessionId, u16),
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.sessions.table.borrow_mut().running.remove(&self.key);
        self.sessions.finished.notify();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn only_the_last_request_of_a_slot_gets_its_turn() {
        let sessions = Sessions::default();
        let session = SessionId(1);
        let running = sessions.run(session, 3).now_or_never().expect("idle").expect("the last");
        let mut older = Box::pin(sessions.run(session, 3));
        assert!(older.as_mut().now_or_never().is_none(), "waits for the one that runs");
        let mut newest = Box::pin(sessions.run(session, 3));
        assert!(newest.as_mut().now_or_never().is_none());
        assert!(older.now_or_never().expect("overtaken").is_none());
        assert!(newest.as_mut().now_or_never().is_none(), "the first still runs");
        drop(running);
        let running = newest.now_or_never().expect("its turn").expect("the last");
        assert!(sessions.run(session, 4).now_or_never().expect("another slot").is_some());
        drop(running);
    }

    #[test]
    fn references_are_held_or_not_and_end_with_the_session() {
        let sessions = Sessions::default();
        let (a, b, inode) = (SessionId(1), SessionId(2), InodeNumber(9));
        sessions.reference(a, inode);
        assert!(!sessions.is_referenced(inode), "an unknown session holds nothing");
        sessions.open(a, SessionId(0), Duration::ZERO);
        sessions.open(b, SessionId(0), Duration::from_secs(5));
        sessions.reference(a, inode);
        sessions.reference(a, inode);
        sessions.reference(b, inode);
        sessions.unreference(a, inode);
        assert!(sessions.is_referenced(inode));
        let (dead, next) = sessions.expired(SESSION_LIFETIME);
        assert_eq!((dead, next), (vec![a], Some(SESSION_LIFETIME + Duration::from_secs(5))));
        assert_eq!(sessions.end(b).into_iter().collect::<Vec<_>>(), [inode]);
        assert!(!sessions.is_referenced(inode));
    }

    #[test]
    fn leases_end_sooner_than_sessions() {
        let sessions = Sessions::default();
        let (worker, holder) = (SessionId(1), SessionId(2));
        sessions.open(worker, holder, Duration::ZERO);
        sessions.open(holder, holder, Duration::ZERO);
        assert_eq!(sessions.expired(LEASE_LIFETIME), (vec![holder], Some(SESSION_LIFETIME)));
    }

    #[test]
    fn an_idle_session_lives_as_long_as_its_process() {
        let sessions = Sessions::default();
        let (idle, busy, holder, alone) = (SessionId(1), SessionId(2), SessionId(3), SessionId(4));
        sessions.open(idle, holder, Duration::ZERO);
        sessions.open(busy, holder, Duration::ZERO);
        sessions.open(alone, SessionId(0), Duration::ZERO);
        assert!(!sessions.lives_with_its_process(idle), "nobody was heard of");
        let heard = Duration::from_secs(30);
        sessions.seen(busy, heard);
        assert!(sessions.lives_with_its_process(idle));
        assert!(!sessions.lives_with_its_process(idle), "not twice for one sign of life");
        assert!(!sessions.lives_with_its_process(alone));
        assert_eq!(sessions.expired(SESSION_LIFETIME).0, [alone]);
        assert_eq!(sessions.expired(heard + SESSION_LIFETIME).0, [idle, busy, alone]);
    }

    #[test]
    fn nobody_ends_for_a_silence_that_could_not_be_heard() {
        let sessions = Sessions::default();
        sessions.open(SessionId(1), SessionId(0), Duration::ZERO);
        let planned = Sessions::next_look(Duration::ZERO, SESSION_LIFETIME);
        assert_eq!(planned, SESSION_LIFETIME - NOTICE);
        sessions.looked(planned, planned + Duration::from_millis(1));
        assert_eq!(Sessions::next_look(planned, SESSION_LIFETIME), SESSION_LIFETIME);
        assert_eq!(sessions.expired(SESSION_LIFETIME), (vec![SessionId(1)], None));
        let late = planned + Duration::from_secs(20);
        sessions.looked(planned, late);
        assert_eq!(sessions.expired(late), (vec![], Some(late + RECOVERY)));
    }
}
