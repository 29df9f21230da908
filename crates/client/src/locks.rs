//! File locks: asked of the inode's home, kept in a table of the process, given back.
//!
//! Invariant: a wish whose caller goes away, or whose outcome is unknown, is given up at the home
//! as well, which then holds for its owner what it held before. A lock that the home lost is an
//! error (`EIO`) of its owner's next call, never silently taken anew.

use std::time::Duration;

use ringfs_wire::{
    Errno, FileLock, HeldLock, InodeNumber, LockCancel, LockClear, LockOwner, LockRange, LockReply,
    LockSet, LockSpace, LockTest,
};

use crate::client::Client;
use crate::error::{ClientError, Subject};
use crate::lock_table::{Begin, Place};

/// Wishes of one client that wait at homes at one time. Each takes a place among the requests in
/// flight; what waits beyond asks from time to time.
const PARKED_MAX: usize = 32;

/// Pause before a wish that is not waited for at the home is asked again.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// Pause before looking again whether a wish given up is settled.
const SETTLE_INTERVAL: Duration = Duration::from_millis(5);

impl Client {
    /// Locks a range of an inode, instead of whatever the owner had of it before. If others hold
    /// it: waits for it for as long as that takes, or fails with `EAGAIN`. A wait that would close
    /// a circle of POSIX locks at one home fails with `EDEADLK`.
    ///
    /// Dropping the future gives the wish up.
    pub async fn lock(
        &self,
        inode: InodeNumber,
        lock: FileLock,
        wait: bool,
    ) -> Result<(), ClientError> {
        let result = self.set_lock(inode, lock, wait).await;
        result.map_err(|error| error.during("lock", Subject::Inode(inode)))
    }

    /// A lock of another owner that excludes `lock`; none if it could be had now.
    pub async fn test_lock(
        &self,
        inode: InodeNumber,
        lock: FileLock,
    ) -> Result<Option<FileLock>, ClientError> {
        let tested = self.ask_home(inode, &LockTest { inode, lock }, self.deadline()).await;
        tested.map_err(|error| error.during("test a lock of", Subject::Inode(inode)))
    }

    /// Unlocks a range.
    pub async fn unlock(
        &self,
        inode: InodeNumber,
        owner: LockOwner,
        range: LockRange,
    ) -> Result<(), ClientError> {
        let place = self.place(inode, owner);
        let result = async {
            let registration = self.begin_lock(place).await?;
            if !self.shared.locks.is_user(place) {
                return Ok(());
            }
            match self.clear_lock(place, range, registration).await? {
                true => Ok(()),
                false => self.begin_lock(place).await.map(drop),
            }
        };
        result.await.map_err(|error| error.during("unlock", Subject::Inode(inode)))
    }

    /// Gives back everything an owner has locked of an inode, at the end of its use. Asks nobody
    /// if there is nothing.
    pub async fn release_locks(
        &self,
        inode: InodeNumber,
        owner: LockOwner,
    ) -> Result<(), ClientError> {
        let place = self.place(inode, owner);
        let result = async {
            if self.shared.locks.is_user(place) {
                let registration = loop {
                    match self.begin_lock(place).await {
                        // Nobody needs to know any more.
                        Err(error) if error.is(Errno::EIO) => {}
                        result => break result?,
                    }
                };
                self.clear_lock(place, LockRange::ALL, registration).await?;
            }
            self.shared.locks.forget(place);
            Ok(())
        };
        result.await.map_err(|error: ClientError| error.during("unlock", Subject::Inode(inode)))
    }

    fn place(&self, inode: InodeNumber, owner: LockOwner) -> Place {
        Place { target: self.map().home(inode), inode, owner }
    }

    /// The registration to name, as soon as nothing of the owner's is unsettled.
    async fn begin_lock(&self, place: Place) -> Result<u64, ClientError> {
        let deadline = self.deadline();
        loop {
            match self.shared.locks.begin(place) {
                Begin::Go(registration) => return Ok(registration),
                Begin::Lost => return Err(Errno::EIO.into()),
                Begin::Settling if self.shared.platform.monotonic() >= deadline.0 => {
                    return Err(Errno::EIO.into());
                }
                Begin::Settling => self.shared.platform.sleep(SETTLE_INTERVAL).await,
            }
        }
    }

    /// Whether it was done; otherwise the home has lost what it had.
    async fn clear_lock(
        &self,
        place: Place,
        range: LockRange,
        registration: u64,
    ) -> Result<bool, ClientError> {
        let Place { target, inode, owner } = place;
        let request = LockClear { inode, owner, range, registration };
        let (session, deadline) = (self.current_session(), self.deadline());
        match self.call_home(&session, inode, &request, None, deadline).await {
            Ok(response) if response.reply != LockReply::Lost => {
                self.shared.locks.cleared(place, range);
                Ok(true)
            }
            Ok(_) | Err(ClientError::SessionExpired { .. }) => {
                self.shared.locks.lost(target, registration);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn set_lock(
        &self,
        inode: InodeNumber,
        lock: FileLock,
        wait: bool,
    ) -> Result<(), ClientError> {
        let place = self.place(inode, lock.owner);
        let ticket = self.shared.platform.random_u64();
        let mut wish = Wish { client: self, place, range: lock.range, ticket, is_open: false };
        loop {
            let registration = self.begin_lock(place).await?;
            let session = self.current_session();
            let parked = if wait { Parked::try_new(self) } else { None };
            let park = parked.is_some();
            let request = LockSet { inode, lock, wait, park, ticket, registration };
            wish.is_open = true;
            let answer = self.call_home(&session, inode, &request, None, self.deadline()).await;
            drop(parked);
            match answer.map(|response| response.reply) {
                Ok(LockReply::Done(registration)) => {
                    let held = HeldLock { inode, lock };
                    self.shared.locks.granted(place.target, registration, held);
                    session.mark_state(place.target);
                    wish.is_open = false;
                    return Ok(());
                }
                Ok(LockReply::Waiting) if park => {}
                Ok(LockReply::Waiting) => self.shared.platform.sleep(ASK_INTERVAL).await,
                Ok(LockReply::Lost) => self.shared.locks.lost(place.target, registration),
                Err(ClientError::SessionExpired { .. }) => {
                    self.shared.locks.lost(place.target, registration);
                    wish.is_open = false;
                    return Err(Errno::EIO.into());
                }
                Err(error) => {
                    // Where it is unknown, dropping the wish settles it.
                    wish.is_open = error.is_outcome_unknown();
                    if !wish.is_open && lock.owner.space == LockSpace::Flock {
                        // Given up before it could be exchanged.
                        self.shared.locks.cleared(place, LockRange::ALL);
                    }
                    return Err(error);
                }
            }
        }
    }
}

/// One of those that wait at homes.
struct Parked<'a>(&'a Client);

impl<'a> Parked<'a> {
    fn try_new(client: &'a Client) -> Option<Self> {
        let parked = &client.shared.parked_locks;
        if parked.get() >= PARKED_MAX {
            return None;
        }
        parked.set(parked.get() + 1);
        Some(Self(client))
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let parked = &self.0.shared.parked_locks;
        parked.set(parked.get() - 1);
    }
}

/// A wish that the home may know of. Dropped while open, it is given up there.
struct Wish<'a> {
    client: &'a Client,
    place: Place,
    range: LockRange,
    ticket: u64,
    is_open: bool,
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        let (client, place) = (self.client.clone(), self.place);
        let (range, ticket) = (self.range, self.ticket);
        let locks = client.shared.locks.clone();
        if place.owner.space == LockSpace::Flock {
            // The home may have given the old lock up for the new one.
            locks.cleared(place, range);
        }
        locks.settle(place);
        client.shared.platform.clone().spawn(async move {
            let held = locks.held(place, range);
            let Place { inode, owner, .. } = place;
            let request = LockCancel { inode, owner, range, ticket, held };
            let (session, deadline) = (client.current_session(), client.deadline());
            let told = client.call_home(&session, inode, &request, None, deadline).await;
            if let Err(error) = told {
                tracing::warn!(%inode, %error, "a lock that nobody waits for may have been taken");
            }
            locks.settled(place);
        });
    }
}
