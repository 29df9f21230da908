//! File data: heads of files homed here, chunks of files from anywhere, and cuts.
//!
//! Invariant: writes to a head are serialised per inode and leave no byte beyond the size; a
//! chunk request runs either wholly before a cut or is checked against the floor after it.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{Buffer, Slice, StorageError};
use ringfs_wire::{Attributes, Generation, HEAD_SIZE, InodeNumber, InodeType, Timestamp};

use crate::chunks::{Chunks, Extents};
use crate::error::StoreError;
use crate::locks::InodeGuard;
use crate::record::{Floor, HeadSlot, Inode, Record};
use crate::store::{Engine, LogPosition, Store, Transaction};

/// How long a floor outlives the last segment of its inode: two session lifetimes, so that no
/// request of an older generation is still on its way.
const FLOOR_LIFETIME: Duration = Duration::from_secs(80);

/// Which floors await a sync, and which their end.
#[derive(Default)]
pub(crate) struct FloorKeeper {
    unsettled: RefCell<BTreeSet<InodeNumber>>,
    expiring: RefCell<VecDeque<(Duration, InodeNumber)>>,
}

impl Store {
    /// Waits for the right to change head and size of `inode`; [`Store::write_head`] takes it
    /// itself. Hold it around [`Store::shrink_head`] and the commit of its result.
    pub async fn lock_inode(&self, inode: InodeNumber) -> InodeGuard {
        self.engine().head_locks.exclusive(inode).await
    }

    /// Reads from the head of `inode` as it is now; shorter where the slot ends: the rest is
    /// zeros.
    pub async fn read_head(
        &self,
        inode: &Inode,
        offset: u64,
        len: usize,
    ) -> Result<Buffer, StoreError> {
        let engine = self.engine();
        // The caller's copy may be older than its slot's next owner.
        let head = {
            let state = engine.state.borrow();
            state.inodes.get(&inode.attributes.inode).ok_or(StoreError::Missing)?.head
        };
        match head {
            None => Ok(Buffer::with_capacity(0)),
            Some(slot) => Ok(engine.heads.read(slot, offset, len).await?),
        }
    }

    /// Writes into the head of a file and logs the new attributes, with what `extra` makes of
    /// them, as one group. The file extends to `end` at least: to the end of `data`, or further
    /// where its chunks are written already; those have `allocated` bytes that are not counted yet.
    #[allow(clippy::too_many_arguments, reason = "one write is what they describe")]
    pub async fn write_head(
        &self,
        inode: InodeNumber,
        generation: Generation,
        offset: u64,
        data: Slice,
        end: u64,
        allocated: i64,
        now: Timestamp,
        extra: impl FnOnce(&Attributes) -> Vec<Record>,
    ) -> Result<(Attributes, LogPosition), StoreError> {
        let _guard = self.lock_inode(inode).await;
        let data_end = offset.checked_add(data.len() as u64).filter(|end| *end <= HEAD_SIZE);
        let data_end = data_end.ok_or(StoreError::Invalid("a write beyond the head"))?;
        let engine = self.engine();
        let before = engine.writable(inode, generation)?;
        engine.log.room(true)?;
        let fresh = match before.head {
            _ if data.is_empty() => None,
            Some(slot) if data_end <= slot.class.bytes().min(before.attributes.size) => {
                let result = engine.heads.overwrite(slot, offset, data).await;
                result.map_err(|error| engine.disk_error(error))?;
                None
            }
            _ => Some(engine.extended_image(&before, offset, &data).await?),
        };
        let mut record = match engine.writable(inode, generation) {
            Ok(record) => record,
            Err(error) => {
                fresh.into_iter().for_each(|slot| engine.heads.give_back(slot));
                return Err(error);
            }
        };
        record.place_head(fresh.or(record.head));
        record.attributes.account(allocated);
        let attributes = &mut record.attributes;
        attributes.size = attributes.size.max(data_end).max(end);
        attributes.modified = now;
        attributes.changed = now;
        let attributes = attributes.clone();
        let mut transaction = self.transaction();
        transaction.put(Record::PutInode { inode: record });
        extra(&attributes).into_iter().for_each(|record| transaction.put(record));
        Ok((attributes, transaction.commit()))
    }

    /// Writes the head of a file that is about to be made; the caller logs the slot in its record,
    /// or gives it back with [`Store::give_back_head`].
    pub async fn new_head(&self, data: &[u8]) -> Result<HeadSlot, StoreError> {
        if data.len() as u64 > HEAD_SIZE {
            return Err(StoreError::Invalid("a write beyond the head"));
        }
        let engine = self.engine();
        engine.log.room(true)?;
        let written = engine.heads.write_image(Buffer::from_slice(data)).await;
        written.map_err(|error| engine.disk_error(error))
    }

    /// Gives back a slot that no record points to.
    pub fn give_back_head(&self, slot: HeadSlot) {
        self.engine().heads.give_back(slot);
    }

    /// A slot with the first `new_len` bytes of the head and zeros after them; the caller holds
    /// [`Store::lock_inode`] and logs it in the inode's record, or leaks it until the next start.
    pub async fn shrink_head(
        &self,
        inode: &Inode,
        new_len: u64,
    ) -> Result<Option<HeadSlot>, StoreError> {
        let engine = self.engine();
        let Some(slot) = inode.head.filter(|_| new_len > 0) else { return Ok(None) };
        if new_len >= slot.class.bytes() || new_len >= inode.attributes.size {
            return Ok(Some(slot));
        }
        let image = engine.heads.read(slot, 0, new_len as usize).await?;
        let fresh = engine.heads.write_image(image).await;
        fresh.map(Some).map_err(|error| engine.disk_error(error))
    }

    /// A slot with the same head and room for `end` bytes, which may be the one it has; the caller
    /// holds [`Store::lock_inode`] and logs it in the inode's record, or leaks it until the next
    /// start.
    pub async fn reserve_head(&self, inode: &Inode, end: u64) -> Result<HeadSlot, StoreError> {
        let engine = self.engine();
        let kept = inode.attributes.size.min(HEAD_SIZE) as usize;
        let mut image = match inode.head {
            Some(slot) if slot.class.bytes() >= end => return Ok(slot),
            Some(slot) => engine.heads.read(slot, 0, kept).await?,
            None => Buffer::with_capacity(end as usize),
        };
        image.resize(image.len().max(end as usize), 0);
        let fresh = engine.heads.write_image(image).await;
        fresh.map_err(|error| engine.disk_error(error))
    }

    /// Reads from a chunk; short where a hole follows.
    pub async fn read_chunk(
        &self,
        inode: InodeNumber,
        generation: Generation,
        chunk_size: u32,
        offset: u64,
        len: usize,
    ) -> Result<Buffer, StoreError> {
        let engine = self.engine();
        let (key, at) = Chunks::locate(inode, chunk_size, offset, len)
            .ok_or(StoreError::Invalid("a read across chunks"))?;
        let _guard = engine.chunk_locks.shared(inode).await;
        engine.check_floor(inode, generation)?;
        Ok(engine.chunks.read(key, at, len).await?)
    }

    /// Writes into a chunk; gives how many bytes that allocated.
    pub async fn write_chunk(
        &self,
        inode: InodeNumber,
        generation: Generation,
        chunk_size: u32,
        offset: u64,
        data: Slice,
    ) -> Result<i64, StoreError> {
        let engine = self.engine();
        let (key, at) = Chunks::locate(inode, chunk_size, offset, data.len())
            .ok_or(StoreError::Invalid("a write across chunks"))?;
        let _guard = engine.chunk_locks.shared(inode).await;
        engine.log.check()?;
        engine.check_floor(inode, generation)?;
        let was_dirty = engine.is_dirty();
        let result = engine.chunks.write(key, at, data).await;
        if !was_dirty {
            engine.syncer.wake();
        }
        result.map_err(|error| engine.disk_error(error))
    }

    /// Makes what is here of a range of the file a hole; gives how many bytes that freed, as a
    /// negative number.
    pub async fn punch_chunks(
        &self,
        inode: InodeNumber,
        generation: Generation,
        chunk_size: u32,
        range: Range<u64>,
    ) -> Result<i64, StoreError> {
        let engine = self.engine();
        let _guard = engine.chunk_locks.shared(inode).await;
        engine.log.check()?;
        engine.check_floor(inode, generation)?;
        engine.changed(engine.chunks.punch(inode, chunk_size, range).await)
    }

    /// Reserves space for a range of one chunk, whose bytes stay; gives how many bytes that
    /// allocated.
    pub async fn allocate_chunk(
        &self,
        inode: InodeNumber,
        generation: Generation,
        chunk_size: u32,
        range: Range<u64>,
    ) -> Result<i64, StoreError> {
        let engine = self.engine();
        let len = range.end.saturating_sub(range.start);
        let (key, at) = Chunks::locate(inode, chunk_size, range.start, len as usize)
            .ok_or(StoreError::Invalid("space across chunks"))?;
        let _guard = engine.chunk_locks.shared(inode).await;
        engine.log.check()?;
        engine.check_floor(inode, generation)?;
        engine.changed(engine.chunks.allocate(key, at, len).await)
    }

    /// Where the chunks here hold data, from `from` on: at most `limit` ranges.
    pub async fn chunk_extents(
        &self,
        inode: InodeNumber,
        generation: Generation,
        chunk_size: u32,
        from: u64,
        limit: usize,
    ) -> Result<Extents, StoreError> {
        let engine = self.engine();
        let _guard = engine.chunk_locks.shared(inode).await;
        engine.check_floor(inode, generation)?;
        Ok(engine.chunks.extents(inode, chunk_size, from, limit).await?)
    }

    /// Refuses older generations of an inode from now on and drops its chunks from `length` on.
    /// Repeating a cut does nothing. Durable after [`Store::sync_inode`]. Gives how many bytes that
    /// freed, as a negative number; where nothing of the chunks is left it is not told.
    pub async fn cut_chunks(
        &self,
        inode: InodeNumber,
        generation: Generation,
        length: u64,
        chunk_size: u32,
    ) -> Result<i64, StoreError> {
        let engine = self.engine();
        let _guard = engine.chunk_locks.exclusive(inode).await;
        engine.log.room(false)?;
        let old = engine.state.borrow().floors.get(&inode).copied();
        let done = |floor: Floor| {
            floor.generation > generation
                || floor.generation == generation && floor.pending.is_none()
        };
        if old.is_some_and(done) {
            return Ok(0);
        }
        let unsettled = old.and_then(|floor| floor.unsettled);
        let floor = Floor { generation, chunk_size, pending: Some(length), unsettled };
        if !engine.chunks.has_any(inode) {
            engine.put_floor(inode, Floor { pending: None, ..floor });
            engine.expire_floor(inode);
            return Ok(0);
        }
        engine.put_floor(inode, floor);
        engine.carry_out(inode, floor, length).await
    }
}

impl Engine {
    /// The record of a file that may be written under `generation`.
    fn writable(&self, inode: InodeNumber, generation: Generation) -> Result<Inode, StoreError> {
        let state = self.state.borrow();
        let record = state.inodes.get(&inode).ok_or(StoreError::Missing)?;
        if record.attributes.kind != InodeType::File {
            return Err(StoreError::Invalid("data of something that is no regular file"));
        }
        if self.is_stale(record.attributes.generation != generation) {
            return Err(StoreError::StaleGeneration);
        }
        Ok(Inode::clone(record))
    }

    /// A fresh slot with the head of `inode` and `data` over it.
    async fn extended_image(
        &self,
        inode: &Inode,
        offset: u64,
        data: &[u8],
    ) -> Result<HeadSlot, StoreError> {
        let end = offset as usize + data.len();
        let kept = inode.attributes.size.min(HEAD_SIZE) as usize;
        let mut image = match inode.head {
            Some(slot) => self.heads.read(slot, 0, kept).await?,
            None => Buffer::with_capacity(end),
        };
        image.resize(image.len().max(end), 0);
        image[offset as usize..end].copy_from_slice(data);
        self.heads.write_image(image).await.map_err(|error| self.disk_error(error))
    }

    /// After an attempt to change holes or reserved space: whatever became of it awaits a sync. A
    /// local file system that cannot do it is no reason to stop.
    fn changed<T>(&self, result: Result<T, StorageError>) -> Result<T, StoreError> {
        self.syncer.wake();
        match result {
            Err(error @ StorageError::Unsupported(_)) => Err(StoreError::Storage(error)),
            result => result.map_err(|error| self.disk_error(error)),
        }
    }

    fn check_floor(&self, inode: InodeNumber, generation: Generation) -> Result<(), StoreError> {
        let state = self.state.borrow();
        let stale = state.floors.get(&inode).is_some_and(|floor| generation < floor.generation);
        if self.is_stale(stale) { Err(StoreError::StaleGeneration) } else { Ok(()) }
    }

    fn put_floor(self: &Rc<Self>, inode: InodeNumber, floor: Floor) {
        let mut unsettled = self.floors.unsettled.borrow_mut();
        match floor.unsettled {
            Some(_) => unsettled.insert(inode),
            None => unsettled.remove(&inode),
        };
        let mut transaction = Transaction::of(self);
        transaction.put(Record::PutFloor { inode, floor });
        transaction.commit();
    }

    /// Drops chunks from `length` on and notes that it is done but not durable.
    async fn carry_out(
        self: &Rc<Self>,
        inode: InodeNumber,
        floor: Floor,
        length: u64,
    ) -> Result<i64, StoreError> {
        let result = self.chunks.drop_from(inode, length, floor.chunk_size).await;
        let change = result.map_err(|error| self.disk_error(error))?;
        let unsettled = Some(floor.unsettled.map_or(length, |before| before.min(length)));
        self.put_floor(inode, Floor { pending: None, unsettled, ..floor });
        if !self.chunks.has_any(inode) {
            self.expire_floor(inode);
        }
        Ok(change)
    }

    /// Floors whose cuts the next sync of chunks makes durable.
    pub(crate) fn unsettled_floors(&self) -> Vec<(InodeNumber, Floor)> {
        let state = self.state.borrow();
        let unsettled = self.floors.unsettled.borrow();
        unsettled.iter().filter_map(|i| Some((*i, *state.floors.get(i)?))).collect()
    }

    /// Notes that the cuts in `floor`, as it was before a sync of the inode's chunks, are durable.
    pub(crate) fn settle_floor(self: &Rc<Self>, inode: InodeNumber, floor: Floor) {
        let unchanged = self.state.borrow().floors.get(&inode) == Some(&floor);
        if unchanged && floor.pending.is_none() && floor.unsettled.is_some() {
            self.put_floor(inode, Floor { unsettled: None, ..floor });
        }
    }

    fn expire_floor(&self, inode: InodeNumber) {
        let at = self.platform.monotonic() + FLOOR_LIFETIME;
        self.floors.expiring.borrow_mut().push_back((at, inode));
    }

    /// Drops floors that nothing can need any more.
    pub(crate) fn forget_floors(self: &Rc<Self>) {
        let now = self.platform.monotonic();
        while let Some((_, inode)) = self.floors.pop_due(now) {
            let floor = self.state.borrow().floors.get(&inode).copied();
            let Some(floor) = floor.filter(|_| !self.chunks.has_any(inode)) else { continue };
            if floor.pending.is_some() || floor.unsettled.is_some() || self.floors.is_queued(inode)
            {
                continue;
            }
            let mut transaction = Transaction::of(self);
            transaction.put(Record::DeleteFloor { inode });
            transaction.commit();
        }
    }

    /// After a start: carries out what was decided and not done, or done and perhaps lost.
    pub(crate) async fn repeat_cuts(self: &Rc<Self>) -> Result<(), StoreError> {
        let floors: Vec<_> = {
            let state = self.state.borrow();
            state.floors.iter().map(|(inode, floor)| (*inode, *floor)).collect()
        };
        for (inode, floor) in floors {
            let lost = floor.unsettled.filter(|_| self.recovery.power_lost);
            match [floor.pending, lost].into_iter().flatten().min() {
                Some(length) => {
                    self.carry_out(inode, floor, length).await?;
                }
                None => {
                    if floor.unsettled.is_some() {
                        self.floors.unsettled.borrow_mut().insert(inode);
                    }
                    if !self.chunks.has_any(inode) {
                        self.expire_floor(inode);
                    }
                }
            }
        }
        Ok(())
    }
}

impl FloorKeeper {
    fn pop_due(&self, now: Duration) -> Option<(Duration, InodeNumber)> {
        let mut expiring = self.expiring.borrow_mut();
        if expiring.front()?.0 > now {
            return None;
        }
        expiring.pop_front()
    }

    /// Whether a later end of the inode's floor is queued.
    fn is_queued(&self, inode: InodeNumber) -> bool {
        self.expiring.borrow().iter().any(|(_, queued)| *queued == inode)
    }
}
