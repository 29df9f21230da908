//! What changes of a segment do to the space it takes, as the local file system tells.
//!
//! Invariant: what was reported of a segment since it was made adds up to what it takes, less what
//! is still to be reported; no change reports more than its own range. So changes beside one
//! another, and space that a local file system takes ahead of writes or for itself, are not
//! counted twice, and what a failed change left is reported by later ones. It is a hint: a report
//! may be lost, and after a start everything that is there counts as reported. A local file system
//! that does not tell is none of the caller's business.

use std::cell::Cell;
use std::ops::Range;

use ringfs_platform::{Disk, FileHandle};
use ringfs_wire::BLOCK_SIZE;

/// An open segment.
pub(super) struct Segment {
    pub(super) file: FileHandle,
    /// Bytes reported; not known before the first change.
    reported: Cell<Option<u64>>,
}

impl Segment {
    /// One that was just made.
    pub(super) fn new(file: FileHandle) -> Self {
        Self { file, reported: Cell::new(Some(0)) }
    }

    /// One that was there.
    pub(super) fn found(file: FileHandle) -> Self {
        Self { file, reported: Cell::new(None) }
    }

    async fn on_disk(&self, disk: &Disk) -> Option<u64> {
        disk.stat_handle(&self.file).await.ok().map(|stat| stat.allocated_bytes)
    }

    fn report(&self, reported: u64, now: u64) -> i64 {
        self.reported.set(Some(now));
        now.wrapping_sub(reported).cast_signed()
    }

    /// Before a change: what the segment takes.
    pub(super) async fn begin(&self, disk: &Disk) -> Option<u64> {
        let now = self.on_disk(disk).await;
        if self.reported.get().is_none() {
            self.reported.set(now);
        }
        now
    }

    /// After a write or reservation of `range`: how many bytes it allocated.
    pub(super) async fn grown(&self, disk: &Disk, range: Range<u64>) -> i64 {
        let now = self.on_disk(disk).await;
        let (Some(now), Some(reported)) = (now, self.reported.get()) else { return 0 };
        let blocks = range.end.next_multiple_of(BLOCK_SIZE) - range.start / BLOCK_SIZE * BLOCK_SIZE;
        self.report(reported, now.min(reported.saturating_add(blocks)))
    }

    /// After a punch: how many bytes it freed, as a negative number.
    pub(super) async fn punched(&self, disk: &Disk, before: Option<u64>) -> i64 {
        let now = self.on_disk(disk).await;
        let (Some(now), Some(before), Some(reported)) = (now, before, self.reported.get()) else {
            return 0;
        };
        // Space that was never reported stays unreported.
        self.report(reported, reported.saturating_sub(before.saturating_sub(now)))
    }

    /// After a truncation: how many bytes it freed, as a negative number.
    pub(super) async fn shrunk(&self, disk: &Disk) -> i64 {
        let now = self.on_disk(disk).await;
        let (Some(now), Some(reported)) = (now, self.reported.get()) else { return 0 };
        self.report(reported, now.min(reported))
    }

    /// Before it is removed: how many bytes that frees, as a negative number.
    pub(super) async fn lost(&self, disk: &Disk) -> i64 {
        self.begin(disk).await;
        self.reported.get().map_or(0, |reported| self.report(reported, 0))
    }
}
