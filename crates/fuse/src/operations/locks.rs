//! File locks. The kernel is not told of them, so it keeps them itself, for this mount alone.

use ringfs_wire::{Errno, InodeNumber};

use crate::abi::{FlushIn, InHeader, LockIn, ReleaseIn};
use crate::failure::Failure;
use crate::operations::Outcome;
use crate::worker::Worker;

impl Worker {
    pub(crate) async fn get_lock(&self, inode: InodeNumber, arguments: &LockIn) -> Outcome {
        let _ = (inode, arguments);
        Err(Errno::ENOSYS.into())
    }

    pub(crate) async fn set_lock(
        &self,
        header: &InHeader,
        arguments: &LockIn,
        wait: bool,
    ) -> Outcome {
        let _ = (header, arguments, wait);
        Err(Errno::ENOSYS.into())
    }

    /// Ends the POSIX locks of a process that closes a descriptor.
    pub(crate) async fn release_locks_of_process(
        &self,
        inode: InodeNumber,
        arguments: &FlushIn,
    ) -> Result<(), Failure> {
        let _ = (inode, arguments);
        Ok(())
    }

    /// Ends the flock locks of a handle.
    pub(crate) async fn release_locks_of_handle(&self, inode: InodeNumber, arguments: &ReleaseIn) {
        let _ = (inode, arguments);
    }

    /// The process that waits for the request with this number was interrupted.
    pub(crate) fn interrupt(&self, unique: u64) {
        tracing::trace!(unique, "interrupted");
    }
}
