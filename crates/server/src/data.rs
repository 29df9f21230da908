//! File content: heads at the home, chunks at their owners, and the size between them.

use std::ops::Range;

use ringfs_platform::{Buffer, Slice};
use ringfs_store::{Inode, StoreError, namespace, xattrs};
use ringfs_wire::{
    APPEND_OWNERS_MAX, Acknowledged, Append, AppendReply, Attributes, ChunkRead, ChunkWrite,
    ChunkWriteExtend, Errno, Extend, Generation, HEAD_SIZE, HeadRead, HeadReadReply, HeadWrite,
    InodeNumber, InodeType, MAX_BULK_LEN, Reserve, SpaceChange, Status, Sync, Wire,
};

use crate::coherence::WRITTEN;
use crate::locks::{Held, LockKey};
use crate::mutations::is_defective;
use crate::target::{Answer, Caller, Target, empty, reply};

/// Largest file: offsets are signed to programs.
pub(crate) const SIZE_MAX: u64 = i64::MAX as u64;

/// How often a head is read again because its slot moved meanwhile.
const HEAD_READ_ATTEMPTS: usize = 16;

/// Where a write goes in a head, and how far the file extends after it.
pub(crate) struct HeadPiece {
    pub(crate) inode: InodeNumber,
    pub(crate) generation: Generation,
    pub(crate) offset: u64,
    pub(crate) end: u64,
    /// Bytes allocated for chunks that are not counted yet.
    pub(crate) allocated: i64,
}

/// Appended bytes in chunks.
#[derive(Default)]
struct Placed {
    /// Bytes that this allocated.
    allocated: i64,
    /// Other targets that took some of them, by the first acknowledgement of each.
    owners: Vec<Acknowledged>,
}

impl Placed {
    fn note(&mut self, by: Acknowledged) {
        if self.owners.iter().all(|owner| owner.target != by.target) {
            self.owners.push(by);
        }
    }
}

impl Target {
    pub(crate) async fn head_read(&self, request: &HeadRead) -> Answer {
        let mut found = self.file(request.inode).await?;
        if request.touch {
            self.note_access(request.inode);
        }
        for _ in 0..HEAD_READ_ATTEMPTS {
            let bytes = self.head_slot(&found, request.offset, u64::from(request.length)).await?;
            let now = self.file(request.inode).await?;
            // A slot that is still the inode's own cannot have been given to another file.
            if now.head == found.head {
                let Attributes { generation, size, reach, .. } = now.attributes;
                let extent = self.store.extent();
                // Owners learn of cuts below the reach only: beyond it they would not refuse.
                let known = size.min(reach);
                let settled = self.settled.size(request.inode, generation, known, extent);
                let reply = HeadReadReply { attributes: now.attributes, settled };
                return Ok((reply.to_bytes(), bytes));
            }
            found = now;
        }
        Err(Status::Busy)
    }

    /// Bytes of a file's head, never past its size.
    pub(crate) async fn head_bytes(
        &self,
        found: &Inode,
        offset: u64,
        length: u64,
    ) -> Result<Slice, Status> {
        let bytes = self.head_slot(found, offset, length).await?;
        let now = self.store.state().inodes.get(&found.attributes.inode).map(|inode| inode.head);
        if now != Some(found.head) {
            return Err(Status::Busy);
        }
        Ok(bytes.unwrap_or_else(Slice::empty))
    }

    async fn head_slot(
        &self,
        found: &Inode,
        offset: u64,
        length: u64,
    ) -> Result<Option<Slice>, Status> {
        let end = found.attributes.size.min(HEAD_SIZE).min(offset.saturating_add(length));
        if found.head.is_none() || offset >= end {
            return Ok(None);
        }
        let read = self.store.read_head(found, offset, (end - offset) as usize).await;
        let bytes: Buffer = read.map_err(|error| error.status())?;
        Ok((!bytes.is_empty()).then(|| Slice::from(bytes)))
    }

    /// A regular file of this home.
    pub(crate) async fn file(&self, inode: InodeNumber) -> Result<Inode, Status> {
        let found = self.settled_inode(inode).await.map_err(gone)?;
        match found.attributes.kind {
            InodeType::File => Ok(found),
            InodeType::Directory => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    pub(crate) async fn head_write(
        &self,
        request: &HeadWrite,
        data: Slice,
        caller: Caller,
    ) -> Answer {
        let end = request.offset.checked_add(data.len() as u64);
        if data.is_empty() || end.is_none_or(|end| end > HEAD_SIZE) {
            return Err(Errno::EINVAL.into());
        }
        self.room(true)?;
        let _claim = self.claim_bytes(caller.session, request.inode, request.lazy).await?;
        let content = LockKey::Content(request.inode);
        let held = Held::new(&self.locks, self.locks.task());
        self.locks.lock(&self.platform, &[content], held.holder()).await?;
        self.file(request.inode).await?;
        let HeadWrite { inode, generation, offset, allocated, .. } = *request;
        let end = offset + data.len() as u64;
        let head = HeadPiece { inode, generation, offset, end, allocated };
        let written = self.write_head_here(head, data, |attributes| {
            self.reply_records(caller, &attributes.to_bytes())
        });
        reply(&written.await?)
    }

    pub(crate) async fn write_head_here(
        &self,
        piece: HeadPiece,
        data: Slice,
        extra: impl FnOnce(&Attributes) -> Vec<ringfs_store::Record>,
    ) -> Result<Attributes, Status> {
        let HeadPiece { inode, generation, offset, end, allocated } = piece;
        let now = self.now();
        let extra = |attributes: &Attributes| {
            let mut records = extra(attributes);
            records.extend(xattrs::without_capability(&self.store.state(), inode));
            records
        };
        let written = self
            .store
            .write_head(inode, generation, offset, data, end, allocated, now, extra)
            .await;
        written.map(|(attributes, _)| attributes).map_err(store_status)
    }

    pub(crate) async fn reserve(&self, request: &Reserve, caller: Caller) -> Answer {
        if request.reach > SIZE_MAX {
            return Err(Errno::EFBIG.into());
        }
        self.room(true)?;
        self.clean_tail(request.inode, caller.session).await?;
        let found = self.file(request.inode).await?;
        if found.attributes.reach >= request.reach {
            return reply(&found.attributes);
        }
        let mut tx = self.store.transaction();
        namespace::change(&mut tx, request.inode, |inode| {
            inode.attributes.reach = request.reach;
        });
        let answer = self.attributes_of(request.inode)?.to_bytes();
        self.record_reply(&mut tx, caller, &answer);
        // Durable before any chunk is written: whatever power loss takes, the home knows how far
        // chunks may reach, and no chunk is ever left behind.
        self.synced(tx.commit()).await?;
        Ok((answer, None))
    }

    pub(crate) async fn extend(&self, request: &Extend, caller: Caller) -> Answer {
        if !request.overwrite {
            // A writer that found the file announced far enough has announced nothing itself. If
            // there was something to cut, its data went as well, and it hears that it is stale.
            self.clean_tail(request.inode, caller.session).await?;
        }
        let _claim = self.claim_bytes(caller.session, request.inode, request.lazy).await?;
        let found = self.file(request.inode).await?;
        let known = &found.attributes;
        // A power loss may have taken back the size that the writer took for granted.
        let end_max = if request.overwrite { known.size } else { known.reach.max(HEAD_SIZE) };
        if self.is_stale(known.generation != request.generation || request.end > end_max) {
            return Err(Status::StaleGeneration);
        }
        self.room(false)?;
        let now = self.now();
        let mut tx = self.store.transaction();
        namespace::change(&mut tx, request.inode, |inode| {
            let attributes = &mut inode.attributes;
            attributes.size = attributes.size.max(request.end);
            attributes.account(request.allocated);
            attributes.modified = now;
            attributes.changed = now;
        });
        xattrs::drop_capability(&mut tx, request.inode);
        let answer = self.attributes_of(request.inode)?.to_bytes();
        self.record_reply(&mut tx, caller, &answer);
        tx.commit();
        Ok((answer, None))
    }

    /// Whether a request is refused for its generation.
    pub(crate) fn is_stale(&self, stale: bool) -> bool {
        stale && !is_defective!(self, skip_generation_check)
    }

    pub(crate) async fn append(&self, request: &Append, data: Slice, caller: Caller) -> Answer {
        if data.is_empty() {
            return Err(Errno::EINVAL.into());
        }
        self.room(true)?;
        let inode = request.inode;
        self.clean_tail(inode, caller.session).await?;
        let _claim = self.claim(caller.session, &[(inode, WRITTEN)]).await?;
        let held = Held::new(&self.locks, self.locks.task());
        let keys = [LockKey::Content(inode), LockKey::Inode(inode)];
        let keys = if is_defective!(self, unserialised_appends) { &[] } else { &keys[..] };
        self.locks.lock(&self.platform, keys, held.holder()).await?;
        let before = self.attributes_of(inode).map_err(gone)?;
        if before.kind != InodeType::File {
            return Err(Errno::EINVAL.into());
        }
        let offset = before.size;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        let end = end.ok_or(Errno::EFBIG)?;
        let head_len = (HEAD_SIZE.saturating_sub(offset) as usize).min(data.len());
        let mut placed = Placed::default();
        if end > HEAD_SIZE {
            let from = offset + head_len as u64;
            let rest = data.slice(head_len..data.len());
            match self.append_chunks(&before, from, rest).await {
                Ok(now) => placed = now,
                Err(status) => {
                    // What it left beyond the size goes before anybody extends the file.
                    self.cleaned.borrow_mut().remove(&inode);
                    return Err(status);
                }
            }
        }
        if head_len == 0 {
            return self.append_size(inode, offset..end, placed, caller);
        }
        let Placed { allocated, owners } = placed;
        let head = HeadPiece { inode, generation: before.generation, offset, end, allocated };
        let written = self.write_head_here(head, data.slice(0..head_len), |attributes| {
            let (attributes, owners) = (attributes.clone(), owners.clone());
            let answer = AppendReply { offset, attributes, owners };
            self.reply_records(caller, &answer.to_bytes())
        });
        let attributes = written.await?;
        reply(&AppendReply { offset, attributes, owners })
    }

    fn append_size(
        &self,
        inode: InodeNumber,
        appended: Range<u64>,
        placed: Placed,
        caller: Caller,
    ) -> Answer {
        let now = self.now();
        let mut tx = self.store.transaction();
        namespace::change(&mut tx, inode, |inode| {
            inode.attributes.size = appended.end;
            inode.attributes.account(placed.allocated);
            inode.attributes.modified = now;
            inode.attributes.changed = now;
        });
        xattrs::drop_capability(&mut tx, inode);
        let attributes = self.attributes_of(inode)?;
        let owners = placed.owners;
        let answer = AppendReply { offset: appended.start, attributes, owners }.to_bytes();
        self.record_reply(&mut tx, caller, &answer);
        tx.commit();
        Ok((answer, None))
    }

    /// Places appended bytes beyond the head in the chunks, after announcing them.
    async fn append_chunks(
        &self,
        file: &Attributes,
        from: u64,
        data: Slice,
    ) -> Result<Placed, Status> {
        let end = from + data.len() as u64;
        if file.reach < end {
            let chunk = u64::from(file.chunk_size);
            let mut tx = self.store.transaction();
            namespace::change(&mut tx, file.inode, |inode| {
                inode.attributes.reach = end.next_multiple_of(chunk).min(SIZE_MAX);
            });
            self.synced(tx.commit()).await?;
        }
        let mut at = from;
        let mut placed = Placed::default();
        while at < end {
            let chunk = u64::from(file.chunk_size);
            let stop = ((at / chunk + 1) * chunk).min(end).min(at + MAX_BULK_LEN as u64);
            let piece = data.slice((at - from) as usize..(stop - from) as usize);
            let request = ChunkWrite {
                inode: file.inode,
                generation: file.generation,
                chunk_size: file.chunk_size,
                offset: at,
            };
            let owner = self.map.chunk_owner(file.inode, at / chunk);
            let written = if owner == self.id {
                self.write_chunk_here(&request, piece).await?
            } else {
                let response = self.call(owner, &request, Some(piece)).await?;
                placed.note(response.by);
                response.reply
            };
            placed.allocated += written.allocated;
            at = stop;
        }
        // More than can be named are durable before the answer.
        for surplus in placed.owners.drain(placed.owners.len().min(APPEND_OWNERS_MAX)..) {
            let request = Sync { inode: Some(file.inode) };
            let synced = self.call(surplus.target, &request, None).await?;
            if synced.by.lineage != surplus.lineage {
                return Err(Status::Busy);
            }
        }
        Ok(placed)
    }

    pub(crate) async fn chunk_read(&self, request: &ChunkRead) -> Answer {
        let ChunkRead { inode, generation, chunk_size, offset, length } = *request;
        within_chunk(chunk_size, offset, u64::from(length))?;
        let read = self.store.read_chunk(inode, generation, chunk_size, offset, length as usize);
        let bytes = read.await.map_err(store_status)?;
        Ok((Vec::new(), (!bytes.is_empty()).then(|| Slice::from(bytes))))
    }

    pub(crate) async fn chunk_write(&self, request: &ChunkWrite, data: Slice) -> Answer {
        reply(&self.write_chunk_here(request, data).await?)
    }

    /// Data first, then size, as where they lie at two targets.
    pub(crate) async fn chunk_write_extend(
        &self,
        request: &ChunkWriteExtend,
        data: Slice,
        caller: Caller,
    ) -> Answer {
        let ChunkWriteExtend { inode, generation, chunk_size, offset, overwrite, lazy, .. } =
            *request;
        let end = offset.checked_add(data.len() as u64).ok_or(Status::Malformed)?;
        let write = ChunkWrite { inode, generation, chunk_size, offset };
        let written = self.write_chunk_here(&write, data).await?;
        let allocated = request.allocated.saturating_add(written.allocated);
        self.extend(&Extend { inode, generation, end, overwrite, lazy, allocated }, caller).await
    }

    async fn write_chunk_here(
        &self,
        request: &ChunkWrite,
        data: Slice,
    ) -> Result<SpaceChange, Status> {
        let ChunkWrite { inode, generation, chunk_size, offset } = *request;
        within_chunk(chunk_size, offset, data.len() as u64)?;
        self.room(true)?;
        let write = self.store.write_chunk(inode, generation, chunk_size, offset, data);
        Ok(SpaceChange { allocated: write.await.map_err(store_status)? })
    }

    pub(crate) async fn sync(&self, request: &Sync) -> Answer {
        let synced = match request.inode {
            Some(inode) => {
                // What lazy writes asked for, others have given up by then.
                self.leases.settled(&self.platform, inode).await?;
                self.store.sync_inode(inode).await
            }
            None => self.store.sync_all().await,
        };
        synced.map_err(|error| error.status())?;
        empty()
    }
}

/// A handle whose inode is gone is stale; a path would have been told `ENOENT` before.
pub(crate) fn gone(status: Status) -> Status {
    match status {
        Status::Failed(Errno::ENOENT) => Errno::ESTALE.into(),
        other => other,
    }
}

pub(crate) fn store_status(error: StoreError) -> Status {
    gone(error.status())
}

fn within_chunk(chunk_size: u32, offset: u64, length: u64) -> Result<(), Status> {
    let chunk = u64::from(chunk_size);
    let end = offset.checked_add(length).filter(|end| *end <= SIZE_MAX);
    match end {
        Some(end)
            if chunk.is_power_of_two()
                && chunk >= HEAD_SIZE
                && length > 0
                && length <= MAX_BULK_LEN as u64
                && offset / chunk == (end - 1) / chunk =>
        {
            Ok(())
        }
        _ => Err(Status::Malformed),
    }
}
