//! File locks: kept at the inode's home for all mounts, whichever worker asks.
//!
//! The kernel ends a process's POSIX locks with FLUSH and a handle's flock locks with RELEASE. Of
//! locks that belong to an open file description it says nothing at the end; so a handle
//! remembers who locked through it, and what no FLUSH has ended is ended when it is closed.

use futures_util::future::abortable;
use ringfs_wire::{Errno, FileLock, InodeNumber, LockMode, LockOwner, LockRange, LockSpace};

use crate::abi::{
    self, FlushIn, InHeader, LOCK_FLOCK, LockIn, LockOut, RELEASE_FLOCK_UNLOCK, ReleaseIn, Reply,
    lock,
};
use crate::failure::{Failure, gone_is_stale};
use crate::operations::Outcome;
use crate::worker::Worker;

/// The last byte a file can have, as the kernel names the end of every file.
const LAST_BYTE: u64 = i64::MAX as u64;

impl Worker {
    pub(crate) async fn get_lock(&self, inode: InodeNumber, arguments: &LockIn) -> Outcome {
        let found = match wanted(arguments)? {
            Some(lock) => self.client.test_lock(inode, lock).await.map_err(gone_is_stale)?,
            None => return Err(Errno::EINVAL.into()),
        };
        let lock = match found {
            Some(held) => abi::FileLock {
                start: held.range.start.min(LAST_BYTE),
                end: held.range.last.min(LAST_BYTE),
                kind: match held.mode {
                    LockMode::Shared => lock::READ,
                    LockMode::Exclusive => lock::WRITE,
                },
                pid: held.pid,
            },
            None => abi::FileLock { kind: lock::UNLOCK, ..arguments.lock },
        };
        Ok(Reply::of(&LockOut { lock }).into())
    }

    pub(crate) async fn set_lock(
        &self,
        header: &InHeader,
        arguments: &LockIn,
        wait: bool,
    ) -> Outcome {
        let inode = InodeNumber(header.node);
        let Some(wanted) = wanted(arguments)? else {
            let unlocked = self.client.unlock(inode, owner(arguments), range(arguments)?).await;
            unlocked.map_err(gone_is_stale)?;
            return Ok(Reply::empty().into());
        };
        if wanted.owner.space == LockSpace::Posix {
            self.mount.handles.note_lock_owner(arguments.handle, arguments.owner);
        }
        let locking = self.client.lock(inode, wanted, wait);
        if !wait {
            locking.await.map_err(gone_is_stale)?;
            return Ok(Reply::empty().into());
        }
        let (locking, abort) = abortable(locking);
        self.mount.waits.begin(header.unique, abort);
        let result = locking.await;
        self.mount.waits.end(header.unique);
        match result {
            Ok(locked) => locked.map_err(gone_is_stale)?,
            Err(_) => return Err(Errno::EINTR.into()),
        }
        Ok(Reply::empty().into())
    }

    /// Ends the POSIX locks of a process that closes a descriptor.
    pub(crate) async fn release_locks_of_process(
        &self,
        inode: InodeNumber,
        arguments: &FlushIn,
    ) -> Result<(), Failure> {
        self.mount.handles.forget_lock_owner(arguments.handle, arguments.lock_owner);
        self.release_locks(inode, LockSpace::Posix, arguments.lock_owner).await
    }

    /// Ends the locks that belong to a handle.
    pub(crate) async fn release_locks_of_handle(&self, inode: InodeNumber, arguments: &ReleaseIn) {
        let is_flock = arguments.release_flags & RELEASE_FLOCK_UNLOCK != 0;
        let flock = is_flock.then_some((LockSpace::Flock, arguments.lock_owner));
        let posix = self.mount.handles.lock_owners(arguments.handle);
        let posix = posix.into_iter().map(|owner| (LockSpace::Posix, owner));
        for (space, owner) in posix.chain(flock) {
            if let Err(Failure(errno)) = self.release_locks(inode, space, owner).await {
                tracing::warn!(%inode, "locks of a closed file were not released: {errno}");
            }
        }
    }

    async fn release_locks(
        &self,
        inode: InodeNumber,
        space: LockSpace,
        id: u64,
    ) -> Result<(), Failure> {
        let released = self.client.release_locks(inode, LockOwner { space, id }).await;
        released.map_err(gone_is_stale)
    }

    /// The process that waits for the request with this number was interrupted. Only waits for
    /// locks and for the space of all servers end early.
    pub(crate) fn interrupt(&self, unique: u64) {
        self.mount.waits.interrupt(unique);
    }
}

fn owner(arguments: &LockIn) -> LockOwner {
    let is_flock = arguments.flags & LOCK_FLOCK != 0;
    let space = if is_flock { LockSpace::Flock } else { LockSpace::Posix };
    LockOwner { space, id: arguments.owner }
}

fn range(arguments: &LockIn) -> Result<LockRange, Errno> {
    let abi::FileLock { start, end, .. } = arguments.lock;
    if owner(arguments).space == LockSpace::Flock {
        return Ok(LockRange::ALL);
    }
    if start > end { Err(Errno::EINVAL) } else { Ok(LockRange { start, last: end }) }
}

/// The lock that a request is about; `None` to unlock.
fn wanted(arguments: &LockIn) -> Result<Option<FileLock>, Errno> {
    let mode = match arguments.lock.kind {
        lock::READ => LockMode::Shared,
        lock::WRITE => LockMode::Exclusive,
        lock::UNLOCK => return Ok(None),
        _ => return Err(Errno::EINVAL),
    };
    let (owner, range) = (owner(arguments), range(arguments)?);
    Ok(Some(FileLock { owner, range, mode, pid: arguments.lock.pid }))
}
