//! The first request of a connection: which version and which abilities are used.

use std::io;

use ringfs_platform::fuse::{FuseChannel, READ_AHEAD_MAX};

use crate::abi::{self, InitIn, InitOut, Operation, Reply, Request, init};
use crate::error::MountError;

/// Largest READ and WRITE: 1 MiB.
pub const REQUEST_DATA_MAX: u32 = 1 << 20;
/// What a request needs beside its data.
const REQUEST_HEAD_MAX: usize = 4_096;
/// Room for any request.
pub const REQUEST_LEN_MAX: usize = REQUEST_DATA_MAX as usize + REQUEST_HEAD_MAX;

/// Pages of 4 KiB in the largest READ and WRITE.
const PAGES_MAX: u16 = (REQUEST_DATA_MAX / 4_096) as u16;
/// Read-aheads and asynchronous writes that the kernel keeps in flight.
const BACKGROUND_MAX: u16 = 128;
/// From this many on the kernel slows writers down.
const CONGESTION_THRESHOLD: u16 = BACKGROUND_MAX / 4 * 3;
/// Nanoseconds between two times that can be told apart.
const TIME_GRANULARITY: u32 = 1;

/// Abilities used where the kernel has them.
///
/// With `AUTO_INVAL_DATA` a READ of cached pages first sees to it that the size is one that a
/// lease covers: a notify drops attributes, but not the size that reads are measured by.
const WANTED: u64 = init::ASYNC_READ
    | init::POSIX_LOCKS
    | init::FLOCK_LOCKS
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::DONT_MASK
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::POSIX_ACL
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::HANDLE_KILLPRIV_V2
    | init::SETXATTR_EXT
    | init::INIT_EXT
    | init::DIRECT_IO_ALLOW_MMAP;

/// What was agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The protocol's minor version.
    pub(crate) minor: u32,
    /// The abilities in use, as flags of INIT.
    pub(crate) flags: u64,
}

impl Agreement {
    /// Whether the kernel can be made to forget all names. Elsewhere names are never cached,
    /// because taking back a single name waits for a lock that its directory's user may hold.
    pub(crate) fn names_can_be_dropped(self) -> bool {
        self.minor >= abi::MINOR_INCREASE_EPOCH
    }
}

/// Receives INIT on the first channel of a connection and answers it as mounts of RingFS do: for
/// them, and for whoever is compared with them.
pub async fn agree(channel: &FuseChannel) -> Result<Agreement, MountError> {
    loop {
        let Some(bytes) = channel.receive(REQUEST_LEN_MAX).await? else {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        };
        let request = Request::decode(&bytes).ok();
        let Some(Request { header, operation: Operation::Init(offer) }) = request else {
            return Err(io::Error::other("the first request was not INIT").into());
        };
        if offer.major > abi::MAJOR {
            // The kernel asks again in the version that this names.
            let reply = Reply::of(&InitOut { major: abi::MAJOR, ..Default::default() });
            let (head, bulk) = reply.finish(header.unique);
            channel.reply(head, bulk).await?;
            continue;
        }
        if offer.major < abi::MAJOR || offer.minor < abi::MINOR_MIN {
            return Err(MountError::KernelTooOld { major: offer.major, minor: offer.minor });
        }
        let (agreement, answer) = settle(&offer);
        let (head, bulk) = Reply::of(&answer).finish(header.unique);
        channel.reply(head, bulk).await?;
        return Ok(agreement);
    }
}

/// What is used of an offer.
fn settle(offer: &InitIn) -> (Agreement, InitOut) {
    let mut offered = u64::from(offer.flags);
    if offered & init::INIT_EXT != 0 {
        offered |= u64::from(offer.flags2) << 32;
    }
    let flags = WANTED & offered;
    let minor = offer.minor.min(abi::MINOR);
    let answer = InitOut {
        major: abi::MAJOR,
        minor,
        max_readahead: READ_AHEAD_MAX,
        flags: flags as u32,
        flags2: (flags >> 32) as u32,
        max_background: BACKGROUND_MAX,
        congestion_threshold: CONGESTION_THRESHOLD,
        max_write: REQUEST_DATA_MAX,
        time_granularity: TIME_GRANULARITY,
        max_pages: PAGES_MAX,
        ..Default::default()
    };
    (Agreement { minor, flags }, answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_sides_know_is_used() {
        let offer =
            InitIn { major: 7, minor: 99, flags: u32::MAX, flags2: u32::MAX, ..Default::default() };
        let (agreement, answer) = settle(&offer);
        assert_eq!((agreement.minor, answer.minor), (abi::MINOR, abi::MINOR));
        assert_eq!(agreement.flags, WANTED);
        assert_eq!(u64::from(answer.flags) | u64::from(answer.flags2) << 32, WANTED);
        assert!(agreement.names_can_be_dropped());

        let offer =
            InitIn { major: 7, minor: 31, flags: 1 << 5, flags2: u32::MAX, ..Default::default() };
        let (agreement, answer) = settle(&offer);
        assert_eq!((answer.minor, answer.flags, answer.flags2), (31, 1 << 5, 0));
        assert!(!agreement.names_can_be_dropped());
    }
}
