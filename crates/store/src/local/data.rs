//! Contents of files of a [`LocalFileSystem`]: the head and the chunks as one run of bytes.

use ringfs_platform::{Buffer, Slice};
use ringfs_wire::{Attributes, Errno, Generation, HEAD_SIZE, InodeNumber};

use super::{LocalFile, LocalFileSystem};
use crate::error::StoreError;
use crate::namespace;
use crate::record::{PendingCut, Record};

/// Chunks are announced this far ahead, in bytes, because each announcement is synced.
const REACH_STEP: u64 = 256 << 20;
/// Longest file: what fits a signed offset.
const SIZE_MAX: u64 = i64::MAX as u64;

/// The part of `offset..end` in the chunk (or head) that holds `offset`.
fn piece_end(offset: u64, end: u64, chunk_size: u32) -> u64 {
    if offset < HEAD_SIZE {
        return end.min(HEAD_SIZE);
    }
    let chunk = u64::from(chunk_size);
    end.min(offset - offset % chunk + chunk)
}

impl LocalFile {
    /// Reads up to `len` bytes; fewer only at the end of the file.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Buffer, StoreError> {
        let system = &self.system.0;
        let _guard = system.content.shared(self.inode).await;
        let file = self.system.attributes(self.inode)?;
        let end = offset.saturating_add(len as u64).min(file.size);
        let mut bytes = Buffer::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let next = piece_end(at, end, file.chunk_size);
            let piece = self.read_piece(&file, at, (next - at) as usize).await?;
            bytes.extend_from_slice(&piece);
            // What is not stored is a hole.
            bytes.resize((next - offset) as usize, 0);
            at = next;
        }
        Ok(bytes)
    }

    async fn read_piece(
        &self,
        file: &Attributes,
        offset: u64,
        len: usize,
    ) -> Result<Buffer, StoreError> {
        let store = &self.system.0.store;
        if offset >= HEAD_SIZE {
            return store
                .read_chunk(self.inode, file.generation, file.chunk_size, offset, len)
                .await;
        }
        let record = store.state().inodes.get(&self.inode).map(|record| (**record).clone());
        store.read_head(&record.ok_or(StoreError::Missing)?, offset, len).await
    }

    /// Writes all of `data`.
    pub async fn write(&self, offset: u64, data: Slice) -> Result<(), StoreError> {
        let system = &self.system.0;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        let end = end.ok_or(Errno::EFBIG)?;
        if data.is_empty() {
            return Ok(());
        }
        let _guard = system.content.exclusive(self.inode).await;
        system.store.room(true)?;
        let mut file = self.system.attributes(self.inode)?;
        if end.max(file.size) > HEAD_SIZE && end > file.size {
            file = self.system.clean_tail(file).await?;
        }
        let mut allocated = 0;
        if end > HEAD_SIZE {
            allocated = self.write_chunks(&file, offset, &data).await?;
        }
        let now = self.system.now();
        let head_len = HEAD_SIZE.saturating_sub(offset).min(data.len() as u64) as usize;
        let position = if head_len > 0 {
            let (store, head) = (&system.store, data.slice(0..head_len));
            let generation = file.generation;
            let no_more = |_: &Attributes| Vec::new();
            let written = store
                .write_head(self.inode, generation, offset, head, end, allocated, now, no_more);
            written.await?.1
        } else {
            let mut tx = system.store.transaction();
            namespace::change(&mut tx, self.inode, |inode| {
                inode.attributes.size = inode.attributes.size.max(end);
                inode.attributes.account(allocated);
                inode.attributes.modified = now;
                inode.attributes.changed = now;
            });
            tx.commit()
        };
        system.clean_tails.borrow_mut().insert(self.inode);
        system.store.written(position).await
    }

    /// Writes what lies beyond the head; gives how many bytes that allocated. Until the caller has moved the size, the chunks beyond
    /// it do not count as clean.
    async fn write_chunks(
        &self,
        file: &Attributes,
        offset: u64,
        data: &Slice,
    ) -> Result<i64, StoreError> {
        let system = &self.system.0;
        let end = offset + data.len() as u64;
        if end > file.reach {
            let mut tx = system.store.transaction();
            namespace::change(&mut tx, self.inode, |inode| {
                inode.attributes.reach = end.next_multiple_of(REACH_STEP);
            });
            // Durable first, so that whatever a power cut takes, no chunk is ever left behind.
            system.store.synced(tx.commit()).await?;
        }
        system.clean_tails.borrow_mut().remove(&self.inode);
        let mut at = offset.max(HEAD_SIZE);
        let mut allocated = 0;
        while at < end {
            let next = piece_end(at, end, file.chunk_size);
            let piece = data.slice((at - offset) as usize..(next - offset) as usize);
            let store = &system.store;
            let written =
                store.write_chunk(self.inode, file.generation, file.chunk_size, at, piece);
            allocated += written.await?;
            at = next;
        }
        Ok(allocated)
    }

    /// Sets the size: cuts, or extends with zeros.
    pub async fn truncate(&self, size: u64) -> Result<(), StoreError> {
        let system = &self.system.0;
        if size > SIZE_MAX {
            return Err(Errno::EFBIG.into());
        }
        let _guard = system.content.exclusive(self.inode).await;
        let mut file = self.system.attributes(self.inode)?;
        system.store.room(size > file.size)?;
        if size > file.size {
            file = self.system.clean_tail(file).await?;
        }
        self.system.resize(&file, size).await
    }

    /// Makes the file durable, data and size.
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.system.0.store.sync_inode(self.inode).await
    }
}

impl LocalFileSystem {
    /// Makes sure that chunks beyond the size are holes, before the size grows over them.
    async fn clean_tail(&self, file: Attributes) -> Result<Attributes, StoreError> {
        if !self.0.clean_tails.borrow().contains(&file.inode) {
            if file.reach > file.size.max(HEAD_SIZE) {
                self.cut(&file, file.size, file.size).await?;
            }
            self.0.clean_tails.borrow_mut().insert(file.inode);
        }
        self.attributes(file.inode)
    }

    async fn resize(&self, file: &Attributes, size: u64) -> Result<(), StoreError> {
        if size < file.size {
            return self.cut(file, size, size).await;
        }
        let now = self.now();
        let mut tx = self.0.store.transaction();
        namespace::change(&mut tx, file.inode, |inode| {
            inode.attributes.size = size;
            inode.attributes.modified = now;
            inode.attributes.changed = now;
        });
        self.0.store.written(tx.commit()).await
    }

    /// Drops everything from `at` on and sets the size.
    async fn cut(&self, file: &Attributes, at: u64, size: u64) -> Result<(), StoreError> {
        let store = &self.0.store;
        let lock = store.lock_inode(file.inode).await;
        let record = store.state().inodes.get(&file.inode).map(|record| (**record).clone());
        let record = record.ok_or(StoreError::Missing)?;
        let head = store.shrink_head(&record, at).await?;
        let cuts_chunks = file.reach > at.max(HEAD_SIZE);
        let generation = Generation(file.generation.0 + u64::from(cuts_chunks));
        let now = self.now();
        let mut tx = store.transaction();
        namespace::change(&mut tx, file.inode, |inode| {
            inode.place_head(head);
            if at <= HEAD_SIZE {
                inode.lose_chunks();
            }
            inode.attributes.size = size;
            inode.attributes.generation = generation;
            inode.attributes.modified = now;
            inode.attributes.changed = now;
            if cuts_chunks {
                inode.attributes.reach = if at > HEAD_SIZE { file.reach } else { 0 };
            }
        });
        if cuts_chunks {
            let (inode, reach, chunk_size) = (file.inode, file.reach, file.chunk_size);
            let length = at;
            let cut = PendingCut { inode, generation, length, reach, chunk_size, final_cut: false };
            tx.put(Record::PutCut { cut });
        }
        let position = tx.commit();
        drop(lock);
        if cuts_chunks {
            self.carry_out_cut(file.inode).await?;
        }
        store.written(position).await
    }

    /// Carries out the cut that is logged for an inode. What the store logs of it comes before
    /// the end of the cut, so that a power cut never finds it ended and undone.
    pub(super) async fn carry_out_cut(&self, inode: InodeNumber) -> Result<(), StoreError> {
        let store = &self.0.store;
        let Some(cut) = store.state().cuts.get(&inode).cloned() else { return Ok(()) };
        let freed = store.cut_chunks(inode, cut.generation, cut.length, cut.chunk_size).await?;
        let mut tx = store.transaction();
        if tx.state().cuts.get(&inode) == Some(&cut) {
            tx.put(Record::DeleteCut { inode });
            namespace::account_cut(&mut tx, &cut, freed);
        }
        store.written(tx.commit()).await
    }

    /// Carries out the cut of an inode that is gone, if it left chunks, in the background.
    pub(super) fn start_cut(&self, inode: InodeNumber) {
        self.0.clean_tails.borrow_mut().remove(&inode);
        if !self.0.store.state().cuts.contains_key(&inode) {
            return;
        }
        let system = self.clone();
        self.0.platform.spawn(async move {
            if let Err(error) = system.carry_out_cut(inode).await {
                tracing::warn!("chunks of a removed file stay until the next start: {error}");
            }
        });
    }
}
