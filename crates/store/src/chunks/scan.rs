//! What the segments hold, chunk by chunk, for a check of the cluster.
//!
//! Files are opened beside the cache, by their names: what is shown is what lies on the disk under
//! them, and no descriptor in use makes way.

use std::ops::Range;

use ringfs_platform::{OpenFlags, StorageError};
use ringfs_wire::InodeNumber;

use super::{CHUNKS_PER_SEGMENT, Chunks, Key};

/// A segment on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentContent {
    /// Bytes it takes on disk.
    pub allocated: u64,
    /// It should be there and is not.
    pub missing: bool,
    /// Chunks of the file that hold data, as ascending ranges of their indices.
    pub chunks: Vec<Range<u64>>,
}

impl Chunks {
    /// Segments behind `after`, at most `limit`.
    pub(crate) fn keys_after(&self, after: Key, limit: usize) -> Vec<Key> {
        let segments = self.segments.borrow();
        let keys = segments
            .range(after.0..)
            .flat_map(|(inode, runs)| runs.iter().map(move |run| (*inode, *run)));
        keys.filter(|key| *key > after).take(limit).collect()
    }

    /// What lies in a segment; nothing if there is no such segment any more.
    pub(crate) async fn content(
        &self,
        key: Key,
        chunk_size: u32,
    ) -> Result<Option<SegmentContent>, StorageError> {
        let file = match self.disk.open(&self.path(key), OpenFlags::READ, 0).await {
            Ok(file) => file,
            Err(StorageError::NotFound(_)) => {
                let missing = SegmentContent { missing: true, ..SegmentContent::default() };
                return Ok(self.exists(key).then_some(missing));
            }
            Err(error) => return Err(error),
        };
        let allocated = self.disk.stat_handle(&file).await?.allocated_bytes;
        let (chunk, first) = (u64::from(chunk_size.max(1)), u64::from(key.1) * CHUNKS_PER_SEGMENT);
        let mut chunks: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        while let Some(data) = self.disk.next_data(&file, at * chunk).await? {
            // In holes made by allocation a local file system may go back; the chunk does not.
            let index = (data / chunk).max(at);
            at = index + 1;
            match chunks.last_mut() {
                Some(last) if last.end == first + index => last.end += 1,
                _ => chunks.push(first + index..first + index + 1),
            }
        }
        Ok(Some(SegmentContent { allocated, missing: false, chunks }))
    }
}

impl crate::Store {
    /// Segments behind the one of `inode` and `run`, in order, at most `limit`.
    pub fn segments_after(
        &self,
        inode: InodeNumber,
        run: u32,
        limit: usize,
    ) -> Vec<(InodeNumber, u32)> {
        self.engine().chunks.keys_after((inode, run), limit)
    }

    /// What lies in a segment; nothing if there is no such segment any more.
    pub async fn segment(
        &self,
        inode: InodeNumber,
        run: u32,
        chunk_size: u32,
    ) -> Result<Option<SegmentContent>, crate::StoreError> {
        let engine = self.engine();
        // No cut runs meanwhile.
        let _guard = engine.chunk_locks.shared(inode).await;
        Ok(engine.chunks.content((inode, run), chunk_size).await?)
    }
}
