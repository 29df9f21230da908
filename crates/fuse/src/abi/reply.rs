//! Replies and notifies as the kernel reads them.

use ringfs_platform::Slice;
use ringfs_wire::Errno;

use super::codec::Abi;
use super::constants::notify;
use super::structs::{InvalidateInode, OutHeader};

/// What answers a request: fixed parts, then bulk bytes that are not copied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    fixed: Vec<u8>,
    bulk: Vec<Slice>,
}

impl Reply {
    /// Success with nothing to say.
    pub(crate) fn empty() -> Self {
        Self::default()
    }

    /// A reply of one structure.
    pub(crate) fn of(part: &impl Abi) -> Self {
        Self::empty().with(part)
    }

    /// This reply with a further structure.
    pub(crate) fn with(mut self, part: &impl Abi) -> Self {
        part.put(&mut self.fixed);
        self
    }

    /// A reply of bytes made here.
    pub(crate) fn bytes(fixed: Vec<u8>) -> Self {
        Self { fixed, bulk: Vec::new() }
    }

    /// A reply of bytes that stay where they are.
    pub(crate) fn bulk(bulk: Vec<Slice>) -> Self {
        Self { fixed: Vec::new(), bulk }
    }

    /// The bytes for the channel: the head, and what follows it.
    pub(crate) fn finish(self, unique: u64) -> (Vec<u8>, Vec<Slice>) {
        let bulk_len: usize = self.bulk.iter().map(|slice| slice.len()).sum();
        let len = OutHeader::SIZE + self.fixed.len() + bulk_len;
        let head = message(len, 0, unique, &self.fixed);
        (head, self.bulk)
    }

    /// The bytes of a refusal.
    pub(crate) fn refusal(unique: u64, errno: Errno) -> Vec<u8> {
        message(OutHeader::SIZE, -errno.0, unique, &[])
    }
}

fn message(len: usize, error: i32, unique: u64, body: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(OutHeader::SIZE + body.len());
    OutHeader { len: len as u32, error, unique }.put(&mut head);
    head.extend_from_slice(body);
    head
}

fn notification(code: i32, body: &[u8]) -> Vec<u8> {
    message(OutHeader::SIZE + body.len(), code, 0, body)
}

/// The kernel drops the attributes of an inode, and with `pages` all its cached bytes.
pub(crate) fn notify_invalidate_inode(node: u64, pages: bool) -> Vec<u8> {
    // A negative offset spares the pages; a length of zero means up to the end.
    let offset = if pages { 0 } else { -1 };
    let mut body = Vec::with_capacity(InvalidateInode::SIZE);
    InvalidateInode { node, offset, len: 0 }.put(&mut body);
    notification(notify::INVALIDATE_INODE, &body)
}

/// The kernel asks again for every name it has cached.
pub(crate) fn notify_increase_epoch() -> Vec<u8> {
    notification(notify::INCREASE_EPOCH, &[])
}
