//! Numbers of the protocol.

/// The protocol's major version.
pub(crate) const MAJOR: u32 = 7;
/// The newest minor version known here.
pub(crate) const MINOR: u32 = 45;
/// The oldest minor version served: Linux 5.4.
pub(crate) const MINOR_MIN: u32 = 31;
/// From this minor version on the kernel forgets all names on request, without taking locks.
pub(crate) const MINOR_INCREASE_EPOCH: u32 = 44;

/// Defines an enum whose values are numbers of the protocol.
macro_rules! opcodes {
    ($($name:ident = $number:literal),* $(,)?) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub(crate) enum Opcode { $($name = $number),* }

        impl Opcode {
            /// Every opcode.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// The opcode with this number.
            pub(crate) fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}
opcodes! {
    Lookup = 1, Forget = 2, GetAttr = 3, SetAttr = 4, ReadLink = 5, Symlink = 6, Mknod = 8,
    Mkdir = 9, Unlink = 10, Rmdir = 11, Rename = 12, Link = 13, Open = 14, Read = 15, Write = 16,
    StatFs = 17, Release = 18, Fsync = 20, SetXattr = 21, GetXattr = 22, ListXattr = 23,
    RemoveXattr = 24, Flush = 25, Init = 26, OpenDir = 27, ReadDir = 28, ReleaseDir = 29,
    FsyncDir = 30, GetLock = 31, SetLock = 32, SetLockWait = 33, Access = 34, Create = 35,
    Interrupt = 36, Destroy = 38, Ioctl = 39, Poll = 40, BatchForget = 42, Fallocate = 43,
    ReadDirPlus = 44, Rename2 = 45, Lseek = 46, CopyFileRange = 47, SyncFs = 50, TmpFile = 51,
    Statx = 52, CopyFileRange64 = 53,
}

/// Flags of INIT, both halves as one number.
pub(crate) mod init {
    pub(crate) const ASYNC_READ: u64 = 1 << 0;
    pub(crate) const POSIX_LOCKS: u64 = 1 << 1;
    pub(crate) const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub(crate) const BIG_WRITES: u64 = 1 << 5;
    pub(crate) const DONT_MASK: u64 = 1 << 6;
    pub(crate) const FLOCK_LOCKS: u64 = 1 << 10;
    pub(crate) const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub(crate) const DO_READDIRPLUS: u64 = 1 << 13;
    pub(crate) const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub(crate) const ASYNC_DIO: u64 = 1 << 15;
    pub(crate) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(crate) const POSIX_ACL: u64 = 1 << 20;
    pub(crate) const MAX_PAGES: u64 = 1 << 22;
    pub(crate) const CACHE_SYMLINKS: u64 = 1 << 23;
    pub(crate) const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub(crate) const SETXATTR_EXT: u64 = 1 << 29;
    pub(crate) const INIT_EXT: u64 = 1 << 30;
    pub(crate) const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// `valid` bits of SETATTR.
pub(crate) mod fattr {
    pub(crate) const MODE: u32 = 1 << 0;
    pub(crate) const UID: u32 = 1 << 1;
    pub(crate) const GID: u32 = 1 << 2;
    pub(crate) const SIZE: u32 = 1 << 3;
    pub(crate) const ATIME: u32 = 1 << 4;
    pub(crate) const MTIME: u32 = 1 << 5;
    pub(crate) const ATIME_NOW: u32 = 1 << 7;
    pub(crate) const MTIME_NOW: u32 = 1 << 8;
    pub(crate) const KILL_SUIDGID: u32 = 1 << 11;
}

/// Flags of a reply to OPEN and CREATE.
pub(crate) mod fopen {
    pub(crate) const DIRECT_IO: u32 = 1 << 0;
    pub(crate) const KEEP_CACHE: u32 = 1 << 1;
    pub(crate) const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
}

/// `open_flags` of OPEN and CREATE: the open cuts the file and takes privileges away.
pub(crate) const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `read_flags` of READ: a program reads past the page cache; without it pages are filled.
pub(crate) const READ_LOCKOWNER: u32 = 1 << 1;
/// `write_flags` of WRITE: dirty pages of a mapping, through whichever handle was at hand.
pub(crate) const WRITE_CACHE: u32 = 1 << 0;
/// `write_flags` of WRITE: the write takes privileges away.
pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `release_flags` of RELEASE: the handle's flock locks end.
pub(crate) const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// `flags` of GETLK and SETLK: a flock lock, not a POSIX one.
pub(crate) const LOCK_FLOCK: u32 = 1 << 0;
/// `setxattr_flags`: an access ACL set by somebody outside the group clears setgid.
pub(crate) const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;

/// Codes of notifies.
pub(crate) mod notify {
    pub(crate) const INVALIDATE_INODE: i32 = 2;
    pub(crate) const INCREASE_EPOCH: i32 = 8;
}

/// Open flags of Linux, on x86-64 and AArch64 alike where they agree.
pub(crate) mod open {
    pub(crate) const ACCESS_MODE: u32 = 0o3;
    pub(crate) const READ_ONLY: u32 = 0;
    pub(crate) const CREATE_EXCLUSIVE: u32 = 0o200;
    pub(crate) const TRUNCATE: u32 = 0o1000;
    pub(crate) const APPEND: u32 = 0o2000;
    /// Part of O_SYNC as well.
    pub(crate) const DATA_SYNC: u32 = 0o10000;
    pub(crate) const NO_ACCESS_TIME: u32 = 0o1000000;
    #[cfg(target_arch = "x86_64")]
    pub(crate) const DIRECT: u32 = 0o40000;
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) const DIRECT: u32 = 0o200000;
}

/// Flags of RENAME2.
pub(crate) mod rename {
    pub(crate) const NO_REPLACE: u32 = 1;
    pub(crate) const EXCHANGE: u32 = 2;
}

/// Kinds of locks.
pub(crate) mod lock {
    pub(crate) const READ: u32 = 0;
    pub(crate) const WRITE: u32 = 1;
    pub(crate) const UNLOCK: u32 = 2;
}

/// Modes of FALLOCATE.
pub(crate) mod allocate {
    pub(crate) const KEEP_SIZE: u32 = 0x01;
    pub(crate) const PUNCH_HOLE: u32 = 0x02;
    pub(crate) const ZERO_RANGE: u32 = 0x10;
}

/// `whence` of LSEEK; the kernel carries out the others itself.
pub(crate) mod seek {
    pub(crate) const DATA: u32 = 3;
    pub(crate) const HOLE: u32 = 4;
}

/// File types in a mode.
pub(crate) mod mode {
    pub(crate) const TYPE_MASK: u32 = 0o170000;
    pub(crate) const FIFO: u32 = 0o010000;
    pub(crate) const CHARACTER: u32 = 0o020000;
    pub(crate) const DIRECTORY: u32 = 0o040000;
    pub(crate) const BLOCK: u32 = 0o060000;
    pub(crate) const FILE: u32 = 0o100000;
    pub(crate) const SYMLINK: u32 = 0o120000;
    pub(crate) const SOCKET: u32 = 0o140000;
    /// Permission, setuid, setgid and sticky bits.
    pub(crate) const PERMISSIONS: u32 = 0o7777;
}

/// `mask` of a STATX reply: all that `stat` shows, and the time of birth.
pub(crate) const STATX_BASIC_AND_BIRTH: u32 = 0xfff;
