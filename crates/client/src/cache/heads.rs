//! Heads that came with an open, for the first read of it.
//!
//! Invariant: a head is kept under the same conditions as attributes, and dropped with the lease
//! on the content and by every change of this process. It is given out once: the door keeps what
//! it has read. Their bytes are bounded; those that nobody has read make room.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ringfs_wire::InodeNumber;

use super::{LeaseCache, Shard, content_of};

/// Bytes of all heads that one shard keeps, at most.
const SHARD_BYTES_MAX: usize = 512 << 10;

/// The bytes of a small file.
#[derive(Debug)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    /// What all heads of the shard hold together.
    total: Arc<AtomicUsize>,
}

impl Head {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

impl LeaseCache {
    /// Keeps the bytes of a file from the reply to a request begun at `begun` that also granted a
    /// lease on them and has been entered.
    pub(crate) fn enter_head(&self, begun: u64, inode: InodeNumber, bytes: &[u8], now: Duration) {
        let mut shard = self.shard(inode);
        if !self.is_open(inode, begun, now) {
            return;
        }
        shard.make_room_for(bytes.len());
        let total = shard.heads.clone();
        let Some(entry) = shard.inodes.get(&inode) else { return };
        let is_settled = entry.changing == 0 && begun >= entry.changed && begun >= entry.lost;
        if is_settled && content_of(entry).is_some() {
            total.fetch_add(bytes.len(), Ordering::Relaxed);
            entry.head = Some(Head { bytes: bytes.to_vec(), total });
        }
    }

    /// Gives out the bytes of a file, if they are kept and true.
    pub(crate) fn take_head(&self, inode: InodeNumber, now: Duration) -> Option<Head> {
        let mut shard = self.shard(inode);
        self.valid_until(inode, now)?;
        let entry = shard.inodes.get(&inode).filter(|entry| entry.changing == 0)?;
        content_of(entry)?;
        entry.head.take()
    }
}

impl Shard {
    /// Drops all heads if there is no room for so many bytes more.
    fn make_room_for(&mut self, len: usize) {
        if self.heads.load(Ordering::Relaxed) + len > SHARD_BYTES_MAX {
            self.inodes.iter_mut().for_each(|(_, entry)| entry.head = None);
        }
    }
}
