//! Holes and reserved space: of the heads homed here, and of the chunks that this target owns.
//!
//! Invariant: as for writes, a request runs under the content generation it names or not at all.
//! None changes the size. Requests about chunks do not move the times either: the caller tells the
//! home afterwards.

use ringfs_platform::Buffer;
use ringfs_store::namespace;
use ringfs_wire::{
    ALLOCATE_CHUNKS_MAX, ChunkAllocate, ChunkExtents, ChunkPunch, EXTENTS_MAX, Errno, Extent,
    ExtentsReply, HEAD_SIZE, HeadAllocate, HeadPunch, SpaceChange, Status, Wire,
};

use crate::coherence::WRITTEN;
use crate::data::{HeadPiece, SIZE_MAX, gone, store_status};
use crate::locks::{Held, LockKey};
use crate::target::{Answer, Caller, Target, reply};

impl Target {
    pub(crate) async fn head_punch(&self, request: &HeadPunch, caller: Caller) -> Answer {
        let HeadPunch { inode, generation, start, end, allocated } = *request;
        if start >= end || end > HEAD_SIZE {
            return Err(Errno::EINVAL.into());
        }
        self.room(false)?;
        let _claim = self.claim(caller.session, &[(inode, WRITTEN)]).await?;
        let held = Held::new(&self.locks, self.locks.task());
        // Whoever changes size or slot holds this as well.
        self.locks.lock(&self.platform, &[LockKey::Content(inode)], held.holder()).await?;
        let found = self.file(inode).await?;
        let known = &found.attributes;
        if self.is_stale(known.generation != generation) {
            return Err(Status::StaleGeneration);
        }
        let end = end.min(known.size);
        let is_data = found.head.is_some() && start < end;
        if is_data && (start > 0 || end < known.size.min(HEAD_SIZE)) {
            let mut zeros = Buffer::with_capacity((end - start) as usize);
            zeros.resize((end - start) as usize, 0);
            let piece = HeadPiece { inode, generation, offset: start, end, allocated };
            let written = self.write_head_here(piece, zeros.freeze(), |attributes| {
                self.reply_records(caller, &attributes.to_bytes())
            });
            return reply(&written.await?);
        }
        let _head_lock = self.store.lock_inode(inode).await;
        // It may have gone with its last reference meanwhile.
        self.attributes_of(inode).map_err(gone)?;
        let now = self.now();
        let mut tx = self.store.transaction();
        namespace::change(&mut tx, inode, |inode| {
            if is_data {
                inode.place_head(None);
            }
            inode.attributes.account(allocated);
            inode.attributes.modified = now;
            inode.attributes.changed = now;
        });
        let answer = self.attributes_of(inode)?.to_bytes();
        self.record_reply(&mut tx, caller, &answer);
        tx.commit();
        Ok((answer, None))
    }

    pub(crate) async fn head_allocate(&self, request: &HeadAllocate, caller: Caller) -> Answer {
        let HeadAllocate { inode, generation, end } = *request;
        if end > HEAD_SIZE {
            return Err(Errno::EINVAL.into());
        }
        self.room(true)?;
        let _claim = self.claim(caller.session, &[(inode, WRITTEN)]).await?;
        let held = Held::new(&self.locks, self.locks.task());
        self.locks.lock(&self.platform, &[LockKey::Content(inode)], held.holder()).await?;
        let _head_lock = self.store.lock_inode(inode).await;
        let found = self.file(inode).await?;
        if self.is_stale(found.attributes.generation != generation) {
            return Err(Status::StaleGeneration);
        }
        let slot = self.store.reserve_head(&found, end).await.map_err(store_status)?;
        // It may have gone with its last reference meanwhile.
        self.attributes_of(inode).map_err(gone)?;
        let mut tx = self.store.transaction();
        namespace::change(&mut tx, inode, |inode| inode.place_head(Some(slot)));
        let answer = self.attributes_of(inode)?.to_bytes();
        self.record_reply(&mut tx, caller, &answer);
        tx.commit();
        Ok((answer, None))
    }

    pub(crate) async fn chunk_extents(&self, request: &ChunkExtents) -> Answer {
        let ChunkExtents { inode, generation, chunk_size, offset, limit } = *request;
        check_chunk_size(chunk_size)?;
        let limit = limit.clamp(1, EXTENTS_MAX) as usize;
        let found = self.store.chunk_extents(inode, generation, chunk_size, offset, limit).await;
        let found = found.map_err(store_status)?;
        let extent = |range: std::ops::Range<u64>| Extent { start: range.start, end: range.end };
        let extents = found.data.into_iter().map(extent).collect();
        reply(&ExtentsReply { extents, until: found.until })
    }

    pub(crate) async fn chunk_punch(&self, request: &ChunkPunch) -> Answer {
        let ChunkPunch { inode, generation, chunk_size, start, end } = *request;
        check_range(chunk_size, start, end)?;
        self.room(false)?;
        #[cfg(feature = "mutations")]
        if self.mutations.skip_punch {
            return reply(&SpaceChange { allocated: 0 });
        }
        let punched = self.store.punch_chunks(inode, generation, chunk_size, start..end).await;
        reply(&SpaceChange { allocated: punched.map_err(store_status)? })
    }

    pub(crate) async fn chunk_allocate(&self, request: &ChunkAllocate) -> Answer {
        let ChunkAllocate { inode, generation, chunk_size, start, end } = *request;
        check_range(chunk_size, start, end)?;
        let chunk = u64::from(chunk_size);
        let chunks = start / chunk..end.div_ceil(chunk);
        if chunks.end - chunks.start > ALLOCATE_CHUNKS_MAX {
            return Err(Status::Malformed);
        }
        let mut change = SpaceChange { allocated: 0 };
        for index in chunks.filter(|index| self.map.chunk_owner(inode, *index) == self.id) {
            self.room(true)?;
            let part = start.max(index * chunk)..end.min((index + 1).saturating_mul(chunk));
            let allocated = self.store.allocate_chunk(inode, generation, chunk_size, part).await;
            change.allocated += allocated.map_err(store_status)?;
        }
        reply(&change)
    }
}

fn check_chunk_size(chunk_size: u32) -> Result<(), Status> {
    let is_valid = chunk_size.is_power_of_two() && u64::from(chunk_size) >= HEAD_SIZE;
    if is_valid { Ok(()) } else { Err(Status::Malformed) }
}

fn check_range(chunk_size: u32, start: u64, end: u64) -> Result<(), Status> {
    check_chunk_size(chunk_size)?;
    let is_valid = start >= HEAD_SIZE && start < end && end <= SIZE_MAX;
    if is_valid { Ok(()) } else { Err(Status::Malformed) }
}
