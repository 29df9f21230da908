//! As much of the kernel's FUSE protocol as the bare mount speaks: requests are read at the places
//! where `linux/fuse.h` has their fields, and replies put together in the same way.
//!
//! Integers have the byte order of the machine. What the kernel never sends reads as zeros.
#![expect(clippy::host_endian_bytes, reason = "the kernel runs on this machine")]

use std::ops::Range;

/// Requests that are known.
pub(super) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const READDIRPLUS: u32 = 44;
}

/// A SETATTR that sets the size has this bit.
pub(super) const SET_SIZE: u32 = 1 << 3;
/// Flags of an open file.
pub(super) const DIRECT_IO: u32 = 1 << 0;
pub(super) const KEEP_CACHE: u32 = 1 << 1;
pub(super) const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
/// Flags of open(2): those that tell reading from writing, and others.
pub(super) const ACCESS_MODE: u32 = 0o3;
pub(super) const APPEND: u32 = 0o2000;
#[cfg(target_arch = "x86_64")]
pub(super) const DIRECT: u32 = 0o40000;
#[cfg(not(target_arch = "x86_64"))]
pub(super) const DIRECT: u32 = 0o200000;
/// Type bits of a mode.
pub(super) const DIRECTORY: u32 = 0o040000;
pub(super) const FILE: u32 = 0o100000;

/// Bytes of what precedes a request and a reply.
const REQUEST_HEAD_LEN: usize = 40;
const REPLY_HEAD_LEN: usize = 16;
/// Bytes of a directory entry before its name, and of an inode with its validity.
const LISTED_LEN: usize = 24;
pub(super) const ENTRY_LEN: usize = 128;
/// What `stat` and `statfs` show.
const SECTOR_LEN: u64 = 512;
const BLOCK_LEN: u32 = 4_096;
const NAME_LEN_MAX: u32 = 255;
/// Blocks that seem free, always: 4 TiB.
const BLOCKS: u64 = 1 << 30;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(i32);

impl Errno {
    pub(super) const NO_ENTRY: Errno = Errno(2);
    pub(super) const EXISTS: Errno = Errno(17);
    pub(super) const NOT_DIRECTORY: Errno = Errno(20);
    pub(super) const IS_DIRECTORY: Errno = Errno(21);
    pub(super) const NO_SYSTEM_CALL: Errno = Errno(38);
    pub(super) const NOT_EMPTY: Errno = Errno(39);
    pub(super) const NO_DATA: Errno = Errno(61);
}

/// A request of the kernel.
pub(super) struct Request<'a> {
    pub(super) opcode: u32,
    pub(super) unique: u64,
    pub(super) node: u64,
    /// Who asks.
    pub(super) uid: u32,
    pub(super) gid: u32,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let body = bytes.get(REQUEST_HEAD_LEN..)?;
        Some(Self {
            opcode: u32_at(bytes, 4),
            unique: u64_at(bytes, 8),
            node: u64_at(bytes, 16),
            uid: u32_at(bytes, 24),
            gid: u32_at(bytes, 28),
            body,
        })
    }

    /// The number at this place behind the head.
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32_at(self.body, at)
    }

    pub(super) fn u64(&self, at: usize) -> u64 {
        u64_at(self.body, at)
    }

    /// The name that begins at this place.
    pub(super) fn name(&self, at: usize) -> &'a [u8] {
        let rest = self.body.get(at..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Where in the whole request the data lie that begin at this place behind the head.
    pub(super) fn data(&self, at: usize, len: u32) -> Range<usize> {
        let end = self.body.len().min(at + len as usize);
        REQUEST_HEAD_LEN + at.min(end)..REQUEST_HEAD_LEN + end
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u32::from_ne_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u64::from_ne_bytes(*field))
}

/// A reply in the making, with room for its head. Its memory is used again.
pub(super) struct Reply(Vec<u8>);

impl Reply {
    pub(super) fn new() -> Self {
        Self(vec![0; REPLY_HEAD_LEN])
    }

    pub(super) fn clear(&mut self) {
        self.0.truncate(REPLY_HEAD_LEN);
    }

    pub(super) fn body_len(&self) -> usize {
        self.0.len() - REPLY_HEAD_LEN
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// An inode: 88 bytes.
    pub(super) fn attributes(&mut self, number: u64, size: u64, mode: u32, uid: u32, gid: u32) {
        self.u64(number).u64(size).u64(size.div_ceil(SECTOR_LEN));
        // Times, then their nanoseconds.
        self.u64(0).u64(0).u64(0).u32(0).u32(0).u32(0);
        self.u32(mode).u32(1).u32(uid).u32(gid).u32(0).u32(BLOCK_LEN).u32(0);
    }

    /// An entry of a directory, padded to eight bytes.
    pub(super) fn listed(&mut self, number: u64, mode: u32, name: &[u8]) {
        let end = self.0.len() + listed_len(name);
        // The number is the cookie as well.
        self.u64(number).u64(number).u32(name.len() as u32).u32(mode >> 12);
        self.0.extend_from_slice(name);
        self.0.resize(end, 0);
    }

    /// The bytes of the reply when `bulk` more follow it; only the head if it refuses.
    pub(super) fn finish(&mut self, unique: u64, result: Result<(), Errno>, bulk: usize) -> &[u8] {
        let error = result.map_or_else(|errno| -errno.0, |()| 0);
        if error != 0 {
            self.clear();
        }
        let len = (self.0.len() + bulk) as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0[4..8].copy_from_slice(&error.to_ne_bytes());
        self.0[8..16].copy_from_slice(&unique.to_ne_bytes());
        &self.0
    }
}

/// Bytes of an entry of a directory.
pub(super) fn listed_len(name: &[u8]) -> usize {
    (LISTED_LEN + name.len()).next_multiple_of(8)
}

/// What `statfs` shows: as much space as anybody wants.
pub(super) fn put_space(reply: &mut Reply) {
    reply.u64(BLOCKS).u64(BLOCKS).u64(BLOCKS).u64(BLOCKS).u64(BLOCKS);
    reply.u32(BLOCK_LEN).u32(NAME_LEN_MAX).u32(BLOCK_LEN).u32(0);
    (0..3).for_each(|_| {
        reply.u64(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_have_the_lengths_of_the_protocol() {
        let mut reply = Reply::new();
        reply.attributes(1, 2, 3, 4, 5);
        assert_eq!(reply.body_len(), 88);
        reply.clear();
        put_space(&mut reply);
        assert_eq!(reply.body_len(), 80);
        assert_eq!(reply.finish(9, Ok(()), 4)[..4], 100_u32.to_ne_bytes());
        assert_eq!(reply.finish(9, Err(Errno::EXISTS), 0).len(), REPLY_HEAD_LEN);
        reply.clear();
        reply.listed(1, FILE, b"name");
        assert_eq!(reply.body_len(), listed_len(b"name"));
        assert_eq!(reply.body_len(), 32);
    }

    #[test]
    fn requests_that_end_early_read_as_zeros() {
        assert!(Request::parse(&[0; 39]).is_none());
        let bytes = [1; 50];
        let request = Request::parse(&bytes).expect("a head");
        assert_eq!((request.u64(4), request.u32(20)), (0, 0));
        assert_eq!((request.name(2).len(), request.name(99).len()), (8, 0));
        assert_eq!((request.data(4, 3), request.data(4, 99)), (44..47, 44..50));
    }
}
