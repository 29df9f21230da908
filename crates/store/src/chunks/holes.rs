//! Holes and reserved space in segment files.
//!
//! Invariant: what is punched reads as zeros, what is reserved keeps its bytes. Where a segment
//! has data is what the local file system says; it may call zeros data, never data a hole.

use std::ops::Range;

use ringfs_platform::StorageError;
use ringfs_wire::InodeNumber;

use super::{Chunks, Key, run_bytes};

/// Where an inode's segments hold data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    /// Ranges of the file, ascending.
    pub data: Vec<Range<u64>>,
    /// Up to where in the file this is everything; `u64::MAX` when nothing follows.
    pub until: u64,
}

impl Chunks {
    /// The segments that a range of the file touches, and the part of it in each, by offsets in
    /// the segment.
    fn segments_in(
        &self,
        inode: InodeNumber,
        chunk_size: u32,
        range: &Range<u64>,
    ) -> Vec<(Key, Range<u64>)> {
        let run_bytes = run_bytes(chunk_size);
        if run_bytes == 0 || range.is_empty() {
            return Vec::new();
        }
        let run_of = |offset: u64| u32::try_from(offset / run_bytes).unwrap_or(u32::MAX);
        let segments = self.segments.borrow();
        let Some(runs) = segments.get(&inode) else { return Vec::new() };
        let touched = runs.range(run_of(range.start)..=run_of(range.end - 1));
        let part = |run: u32| {
            let start = u64::from(run) * run_bytes;
            let end = range.end.saturating_sub(start).min(run_bytes);
            range.start.saturating_sub(start)..end
        };
        touched.map(|run| ((inode, *run), part(*run))).collect()
    }

    /// Makes what is here of a range of the file a hole; gives how many bytes that freed, as a
    /// negative number.
    pub(crate) async fn punch(
        &self,
        inode: InodeNumber,
        chunk_size: u32,
        range: Range<u64>,
    ) -> Result<i64, StorageError> {
        let mut change = 0;
        for (key, part) in self.segments_in(inode, chunk_size, &range) {
            let segment = self.segment(key).await?;
            let before = segment.begin(&self.disk).await;
            // As for a write: it may still happen when dropped, and a sync beside it covers nothing.
            self.mark_segment(key);
            let punched = self.disk.punch(&segment.file, part.start, part.end - part.start).await;
            self.mark_segment(key);
            punched?;
            change += segment.punched(&self.disk, before).await;
        }
        Ok(change)
    }

    /// Reserves space for a range of one segment; gives how many bytes that allocated.
    pub(crate) async fn allocate(
        &self,
        key: Key,
        offset: u64,
        len: u64,
    ) -> Result<i64, StorageError> {
        let segment = self.segment_or_new(key).await?;
        segment.begin(&self.disk).await;
        self.mark_segment(key);
        let allocated = self.disk.allocate(&segment.file, offset, len).await;
        self.mark_segment(key);
        allocated?;
        Ok(segment.grown(&self.disk, offset..offset + len).await)
    }

    /// Where data lies from `from` on: at most `limit` ranges.
    pub(crate) async fn extents(
        &self,
        inode: InodeNumber,
        chunk_size: u32,
        from: u64,
        limit: usize,
    ) -> Result<Extents, StorageError> {
        let mut found = Extents { data: Vec::new(), until: u64::MAX };
        for (key, part) in self.segments_in(inode, chunk_size, &(from..u64::MAX)) {
            let base = u64::from(key.1) * run_bytes(chunk_size);
            let segment = self.segment(key).await?;
            let file = &segment.file;
            let mut at = part.start;
            while let Some(start) = self.disk.next_data(file, at).await? {
                at = match self.disk.next_hole(file, start).await {
                    Ok(end) => end.max(start),
                    // A cut of this moment: what began here is gone.
                    Err(StorageError::InvalidOffset(_)) => break,
                    Err(error) => return Err(error),
                };
                found.data.push(base + start..base + at);
                if found.data.len() >= limit {
                    found.until = base + at;
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }
}
