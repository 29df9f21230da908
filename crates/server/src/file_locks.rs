//! File locks at their inode's home: requests, waiting, and coming back after a restart.
//!
//! Locks live in memory. A target that starts with sessions of its last life grants nothing until
//! each of them has been heard of, or [`GRACE`] has passed: their clients state again what they
//! hold. A group that has not done so by then has lost its locks, and is told.

mod table;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use ringfs_platform::Signal;
use ringfs_wire::{
    AnyRequest, Errno, Hello, LockCancel, LockClear, LockReply, LockSet, LockTest, LocksRestate,
    SessionId, Status,
};

use crate::data::gone;
use crate::target::{Answer, Target, empty, reply};
use table::{Decision, Holder, Table, Wish};

/// Longest wait for a lock before the client has to ask again; well below its attempt deadline.
const PARK_MAX: Duration = Duration::from_secs(1);

/// How long a target that has started waits for clients to state their locks. Less than an operation
/// may take, so that no call for a lock fails because of clients that have died.
const GRACE: Duration = Duration::from_secs(20);

/// The file locks of one target.
#[derive(Default)]
pub(crate) struct FileLocks {
    table: RefCell<Table>,
    changed: Signal,
    /// Sessions of the last life that have not been heard of.
    awaited: RefCell<BTreeSet<SessionId>>,
    /// Monotonic instant after which nobody is waited for.
    grace_until: Cell<Duration>,
}

/// How a group stands with this target.
enum Standing {
    Good(SessionId),
    Lost,
}

impl FileLocks {
    /// After a start: for a while nothing is granted while one of `sessions` is missing.
    pub(crate) fn await_sessions(&self, sessions: impl Iterator<Item = SessionId>, now: Duration) {
        self.awaited.borrow_mut().extend(sessions);
        self.grace_until.set(now + GRACE);
    }

    /// Notes who a session speaks for.
    pub(crate) fn join(&self, hello: &Hello) {
        let is_alone = hello.holder == SessionId::default();
        let group = if is_alone { hello.session } else { hello.holder };
        self.change(|table| table.join(hello.session, group));
    }

    /// Notes that a request arrived. What a session holds it states before anything else.
    pub(crate) fn heard_of(&self, session: SessionId, request: &AnyRequest) {
        if !matches!(request, AnyRequest::References(_) | AnyRequest::LocksRestate(_)) {
            self.awaited.borrow_mut().remove(&session);
        }
    }

    /// Notes the end of a session; its group's locks go with the last one.
    pub(crate) fn end_session(&self, session: SessionId) {
        self.awaited.borrow_mut().remove(&session);
        self.change(|table| table.end_session(session));
    }

    /// Whether a session may hold locks.
    pub(crate) fn is_user(&self, session: SessionId) -> bool {
        let table = self.table.borrow();
        table.group(session).is_some_and(|group| table.registration(group) != 0)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.table.borrow_mut();
        let before = table.changes();
        let result = change(&mut table);
        let has_changed = table.changes() != before;
        drop(table);
        if has_changed {
            self.changed.notify();
        }
        result
    }

    fn is_recovering(&self, now: Duration) -> bool {
        now < self.grace_until.get() && !self.awaited.borrow().is_empty()
    }

    fn standing(
        &self,
        session: SessionId,
        registration: u64,
        now: Duration,
    ) -> Result<Standing, Status> {
        let table = self.table.borrow();
        let group = table.group(session).ok_or(Status::SessionExpired)?;
        let known = table.registration(group);
        if registration == 0 || registration == known {
            return Ok(Standing::Good(group));
        }
        if known == 0 && self.is_recovering(now) {
            // Another session of the group may be about to state its locks.
            return Err(Status::Recovering);
        }
        Ok(Standing::Lost)
    }
}

impl Target {
    pub(crate) fn lock_test(&self, request: &LockTest, session: SessionId) -> Answer {
        self.attributes_of(request.inode).map_err(gone)?;
        let locks = &self.file_locks;
        if locks.is_recovering(self.platform.monotonic()) {
            return Err(Status::Recovering);
        }
        let group = locks.table.borrow().group(session).ok_or(Status::SessionExpired)?;
        let lock = request.lock;
        let wish = Wish {
            inode: request.inode,
            holder: Holder { group, owner: lock.owner },
            range: lock.range,
            mode: lock.mode,
            pid: lock.pid,
            ticket: 0,
        };
        reply(&locks.table.borrow().conflict(&wish))
    }

    pub(crate) async fn lock_set(&self, request: &LockSet, session: SessionId) -> Answer {
        let LockSet { inode, lock, wait, park, ticket, registration } = *request;
        self.attributes_of(inode).map_err(gone)?;
        let (locks, platform) = (&self.file_locks, &self.platform);
        let group = match locks.standing(session, registration, platform.monotonic())? {
            Standing::Good(group) => group,
            Standing::Lost => return reply(&LockReply::Lost),
        };
        if locks.is_recovering(platform.monotonic()) {
            return Err(Status::Recovering);
        }
        let fresh = platform.random_u64().max(1);
        locks.table.borrow_mut().register(group, fresh);
        let holder = Holder { group, owner: lock.owner };
        let wish =
            Wish { inode, holder, range: lock.range, mode: lock.mode, pid: lock.pid, ticket };
        let decide = || locks.change(|table| table.decide(&wish, wait, platform.monotonic()));
        let mut decision = decide();
        if decision == Decision::Queued && park {
            let decided = locks.changed.until(|| {
                if !locks.table.borrow().is_queued(inode, ticket) {
                    // Given up meanwhile, or ended with its session.
                    return Some(Decision::Refused(Errno::EINTR));
                }
                Some(decide()).filter(|decision| *decision != Decision::Queued)
            });
            decision = platform.timeout(PARK_MAX, decided).await.unwrap_or(Decision::Queued);
        }
        #[cfg(feature = "mutations")]
        if self.mutations.share_locks && lock.mode == ringfs_wire::LockMode::Shared {
            decision = Decision::Granted;
        }
        match decision {
            Decision::Granted => reply(&LockReply::Done(locks.table.borrow().registration(group))),
            Decision::Queued => reply(&LockReply::Waiting),
            Decision::Refused(errno) => Err(errno.into()),
        }
    }

    pub(crate) fn lock_clear(&self, request: &LockClear, session: SessionId) -> Answer {
        let LockClear { inode, owner, range, registration } = *request;
        let locks = &self.file_locks;
        let group = match locks.standing(session, registration, self.platform.monotonic())? {
            Standing::Good(group) => group,
            Standing::Lost => return reply(&LockReply::Lost),
        };
        locks.change(|table| table.clear(inode, Holder { group, owner }, range));
        reply(&LockReply::Done(locks.table.borrow().registration(group)))
    }

    pub(crate) fn lock_cancel(&self, request: &LockCancel, session: SessionId) -> Answer {
        let LockCancel { inode, owner, range, ticket, ref held } = *request;
        let locks = &self.file_locks;
        let group = locks.table.borrow().group(session).ok_or(Status::SessionExpired)?;
        locks.change(|table| {
            // What is still queued was not granted and has changed nothing.
            if !table.withdraw(inode, ticket) {
                table.reset(inode, Holder { group, owner }, range, held);
            }
        });
        // Its request may be parked here.
        locks.changed.notify();
        empty()
    }

    pub(crate) fn locks_restate(&self, request: &LocksRestate, session: SessionId) -> Answer {
        let locks = &self.file_locks;
        // Later it would be a claim on what others may have had in between.
        if request.registration != 0 && locks.is_recovering(self.platform.monotonic()) {
            let group = locks.table.borrow().group(session).ok_or(Status::SessionExpired)?;
            locks.change(|table| table.restate(group, request.registration, &request.locks));
        }
        empty()
    }
}
