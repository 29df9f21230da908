//! System calls about file locks. Linux leaves them to the mount.

use ringfs_wire::{Errno, LockMode, LockSpace};

use super::abi::{Opcode, Writer};
use super::connection::Kernel;
use super::files::File;

/// `F_RDLCK`, `F_WRLCK`, `F_UNLCK`.
const READ: u32 = 0;
const WRITE: u32 = 1;
const UNLOCK: u32 = 2;
/// `FUSE_LK_FLOCK`.
const LOCK_FLOCK: u32 = 1;
/// The last byte a file can have.
const LAST_BYTE: u64 = i64::MAX as u64;

impl Kernel {
    /// fcntl(2) with F_SETLK, or flock(2) with LOCK_NB; without a mode: unlocks.
    pub(crate) async fn lock(
        &self,
        file: File,
        space: LockSpace,
        (first, last): (u64, u64),
        mode: Option<LockMode>,
    ) -> Result<(), Errno> {
        let kind = match mode {
            Some(LockMode::Shared) => READ,
            Some(LockMode::Exclusive) => WRITE,
            None => UNLOCK,
        };
        let (start, end, flags) = match space {
            LockSpace::Posix => (first, last, 0),
            LockSpace::Flock => (0, LAST_BYTE, LOCK_FLOCK),
        };
        let mut body = Writer::default();
        body.u64(file.handle).u64(file.owner).u64(start).u64(end).u32(kind).u32(1);
        body.u32(flags).u32(0);
        self.call(Opcode::SetLock, file.inode, &body.0).await.map(drop)
    }
}
