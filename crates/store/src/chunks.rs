//! Segment files: what this target holds of files beyond their heads.
//!
//! One sparse local file per inode and run of 1,024 chunks, chunk i at (i mod 1,024) × chunk
//! size, so a file offset tells the place in it. Invariant: which segments exist is known in
//! memory, and a dirty mark is dropped only when the sync that began after it has succeeded.
//! Deliberately without generations and cuts, which `store` keeps in the log.

mod holes;
mod manifest;
mod scan;
mod space;

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasherDefault;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use lru::LruCache;
use ringfs_platform::{Buffer, Disk, FileHandle, OpenFlags, Slice, StorageError};
use ringfs_wire::{HEAD_SIZE, InodeNumber};

use crate::log::FILE_MODE;

use space::Segment;

pub use holes::Extents;
pub use scan::SegmentContent;

/// Chunks in one segment file.
const CHUNKS_PER_SEGMENT: u64 = 1024;
const DIRECTORY_MODE: u32 = 0o700;

type Key = (InodeNumber, u32);

/// What was changed since it was last made durable. The number rises with each change.
#[derive(Default)]
struct Dirty {
    changes: u64,
    segments: BTreeMap<Key, u64>,
    directories: BTreeMap<u8, u64>,
}

/// The segment files of an open store.
pub(crate) struct Chunks {
    disk: Disk,
    root: PathBuf,
    segments: RefCell<BTreeMap<InodeNumber, BTreeSet<u32>>>,
    directories: RefCell<BTreeSet<u8>>,
    open: RefCell<LruCache<Key, Rc<Segment>, BuildHasherDefault<DefaultHasher>>>,
    dirty: RefCell<Dirty>,
}

fn shard_of(inode: InodeNumber) -> u8 {
    (inode.0 & 0xff) as u8
}

fn parse_name(name: &str) -> Option<Key> {
    let (inode, run) = name.split_once('-')?;
    Some((InodeNumber(u64::from_str_radix(inode, 16).ok()?), run.parse().ok()?))
}

/// Bytes of a file that one segment covers.
fn run_bytes(chunk_size: u32) -> u64 {
    u64::from(chunk_size) * CHUNKS_PER_SEGMENT
}

impl Chunks {
    /// Finds the segments under `root`, which is created when missing.
    pub(crate) async fn open(
        disk: &Disk,
        root: PathBuf,
        open_segments: usize,
    ) -> Result<Self, StorageError> {
        match disk.mkdir(&root, DIRECTORY_MODE).await {
            Ok(()) | Err(StorageError::AlreadyExists(_)) => {}
            Err(error) => return Err(error),
        }
        let mut segments: BTreeMap<InodeNumber, BTreeSet<u32>> = BTreeMap::new();
        let mut directories = BTreeSet::new();
        for item in disk.list(&root).await? {
            let Some(shard) = item.name.to_str().and_then(|n| u8::from_str_radix(n, 16).ok())
            else {
                continue;
            };
            directories.insert(shard);
            for file in disk.list(&root.join(&item.name)).await? {
                if let Some((inode, run)) = file.name.to_str().and_then(parse_name) {
                    segments.entry(inode).or_default().insert(run);
                }
            }
        }
        // A life that ended between making a directory and syncing its name leaves that to us.
        disk.sync_directory(&root).await?;
        let capacity = NonZeroUsize::new(open_segments).unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            disk: disk.clone(),
            root,
            segments: RefCell::new(segments),
            directories: RefCell::new(directories),
            open: RefCell::new(LruCache::with_hasher(capacity, BuildHasherDefault::default())),
            dirty: RefCell::default(),
        })
    }

    fn directory(&self, shard: u8) -> PathBuf {
        self.root.join(format!("{shard:02x}"))
    }

    fn path(&self, (inode, run): Key) -> PathBuf {
        self.directory(shard_of(inode)).join(format!("{:016x}-{run}", inode.0))
    }

    /// Whether any segment of the inode exists.
    pub(crate) fn has_any(&self, inode: InodeNumber) -> bool {
        self.segments.borrow().contains_key(&inode)
    }

    fn exists(&self, (inode, run): Key) -> bool {
        self.segments.borrow().get(&inode).is_some_and(|runs| runs.contains(&run))
    }

    /// Carries out what opens a file for a moment or longer, at the cost of segments that are open
    /// and not in use, if there are no descriptors left.
    async fn with_descriptor<T>(
        &self,
        open: impl AsyncFn() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        loop {
            match open().await {
                Err(error) if error.is_out_of_descriptors() && self.close_idle() => {}
                result => return result,
            }
        }
    }

    /// Closes the segment that was not in use for longest; whether there was one.
    fn close_idle(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let idle = open.iter().rev().find(|(_, segment)| Rc::strong_count(segment) == 1);
        let idle = idle.map(|(key, _)| *key);
        idle.is_some_and(|key| open.pop(&key).is_some())
    }

    async fn open_file(&self, key: Key, flags: OpenFlags) -> Result<FileHandle, StorageError> {
        let path = self.path(key);
        let mode = if flags.create { FILE_MODE } else { 0 };
        self.with_descriptor(async || self.disk.open(&path, flags, mode).await).await
    }

    async fn segment(&self, key: Key) -> Result<Rc<Segment>, StorageError> {
        if let Some(segment) = self.open.borrow_mut().get(&key) {
            return Ok(segment.clone());
        }
        let file = self.open_file(key, OpenFlags::READ_WRITE).await?;
        Ok(self.keep_open(key, Segment::found(file)))
    }

    /// The segment for a change: made where it is missing.
    async fn segment_or_new(&self, key: Key) -> Result<Rc<Segment>, StorageError> {
        match self.exists(key) {
            true => self.segment(key).await,
            false => self.create(key).await,
        }
    }

    /// One that was opened beside this one stays, because it knows what was reported of it.
    fn keep_open(&self, key: Key, segment: Segment) -> Rc<Segment> {
        self.open.borrow_mut().get_or_insert(key, || Rc::new(segment)).clone()
    }

    async fn create(&self, key: Key) -> Result<Rc<Segment>, StorageError> {
        let shard = shard_of(key.0);
        if !self.directories.borrow().contains(&shard) {
            match self.disk.mkdir(&self.directory(shard), DIRECTORY_MODE).await {
                Ok(()) | Err(StorageError::AlreadyExists(_)) => {}
                Err(error) => return Err(error),
            }
            self.with_descriptor(async || self.disk.sync_directory(&self.root).await).await?;
            self.directories.borrow_mut().insert(shard);
        }
        let file = self.open_file(key, OpenFlags::CREATE).await?;
        self.segments.borrow_mut().entry(key.0).or_default().insert(key.1);
        self.mark_directory(shard);
        Ok(self.keep_open(key, Segment::new(file)))
    }

    fn mark_segment(&self, key: Key) {
        let mut dirty = self.dirty.borrow_mut();
        dirty.changes += 1;
        let change = dirty.changes;
        dirty.segments.insert(key, change);
    }

    fn mark_directory(&self, shard: u8) {
        let mut dirty = self.dirty.borrow_mut();
        dirty.changes += 1;
        let change = dirty.changes;
        dirty.directories.insert(shard, change);
    }

    /// Counts everything as changed: after a kill nobody knows what the kernel has yet to write.
    pub(crate) fn mark_all(&self) {
        let mut dirty = self.dirty.borrow_mut();
        for (inode, runs) in &*self.segments.borrow() {
            dirty.segments.extend(runs.iter().map(|run| ((*inode, *run), 0)));
        }
        dirty.directories.extend(self.directories.borrow().iter().map(|shard| (*shard, 0)));
    }

    /// Whether anything awaits a sync.
    pub(crate) fn is_dirty(&self) -> bool {
        let dirty = self.dirty.borrow();
        !dirty.segments.is_empty() || !dirty.directories.is_empty()
    }

    /// The segment of a range, and where in it the range starts.
    ///
    /// # Errors
    /// When the range crosses chunks.
    pub(crate) fn locate(
        inode: InodeNumber,
        chunk_size: u32,
        offset: u64,
        len: usize,
    ) -> Option<(Key, u64)> {
        let size = u64::from(chunk_size);
        let end = offset.checked_add(len as u64)?;
        if size == 0 || len == 0 || offset / size != (end - 1) / size {
            return None;
        }
        let run = offset / run_bytes(chunk_size);
        Some(((inode, u32::try_from(run).ok()?), offset % run_bytes(chunk_size)))
    }

    /// Reads; short where the segment ends.
    pub(crate) async fn read(
        &self,
        key: Key,
        offset: u64,
        len: usize,
    ) -> Result<Buffer, StorageError> {
        if !self.exists(key) {
            return Ok(Buffer::with_capacity(0));
        }
        let segment = self.segment(key).await?;
        let buffer = Buffer::with_capacity(len);
        let (result, buffer) = self.disk.read(&segment.file, offset, buffer, len).await;
        result.map(|_| buffer)
    }

    /// Writes, creating the segment where needed; gives how many bytes that allocated.
    pub(crate) async fn write(
        &self,
        key: Key,
        offset: u64,
        data: Slice,
    ) -> Result<i64, StorageError> {
        let segment = self.segment_or_new(key).await?;
        segment.begin(&self.disk).await;
        let end = offset + data.len() as u64;
        // Before, because a dropped write may still happen; after, because a sync that ran beside
        // the write did not cover it.
        self.mark_segment(key);
        let written = self.disk.write(&segment.file, offset, data).await;
        self.mark_segment(key);
        written?;
        Ok(segment.grown(&self.disk, offset..end).await)
    }

    /// Drops everything of the inode from `length` on, and gives how many bytes that freed, as a
    /// negative number; of a file that loses all its chunks it is not told. Nobody else may use
    /// its segments meanwhile.
    pub(crate) async fn drop_from(
        &self,
        inode: InodeNumber,
        length: u64,
        chunk_size: u32,
    ) -> Result<i64, StorageError> {
        let runs = self.segments.borrow().get(&inode).cloned().unwrap_or_default();
        let mut change = 0;
        for run in runs {
            let key = (inode, run);
            let start = u64::from(run) * run_bytes(chunk_size);
            if start >= length {
                if length > HEAD_SIZE {
                    change += self.segment(key).await?.lost(&self.disk).await;
                }
                self.remove(key).await?;
            } else if start + run_bytes(chunk_size) > length {
                let segment = self.segment(key).await?;
                segment.begin(&self.disk).await;
                if self.disk.stat_handle(&segment.file).await?.size > length - start {
                    self.disk.truncate(&segment.file, length - start).await?;
                    self.mark_segment(key);
                }
                change += segment.shrunk(&self.disk).await;
                // The owner of no chunk below the cut is not told when the file is removed.
                if self.is_empty(&segment).await? {
                    self.remove(key).await?;
                }
            }
        }
        Ok(change)
    }

    /// Whether it has neither bytes nor reserved space. Some local file systems tell no space of
    /// what they keep in an inode or have yet to write.
    async fn is_empty(&self, segment: &Segment) -> Result<bool, StorageError> {
        Ok(self.disk.stat_handle(&segment.file).await?.allocated_bytes == 0
            && self.disk.next_data(&segment.file, 0).await?.is_none())
    }

    async fn remove(&self, key: Key) -> Result<(), StorageError> {
        self.open.borrow_mut().pop(&key);
        // Before the file goes, so that a sync beside this one does not miss it.
        self.forget(key);
        match self.disk.unlink(&self.path(key)).await {
            Ok(()) | Err(StorageError::NotFound(_)) => {}
            Err(error) => {
                self.segments.borrow_mut().entry(key.0).or_default().insert(key.1);
                self.mark_segment(key);
                return Err(error);
            }
        }
        self.mark_directory(shard_of(key.0));
        Ok(())
    }

    fn forget(&self, key: Key) {
        let mut segments = self.segments.borrow_mut();
        if let Some(runs) = segments.get_mut(&key.0) {
            runs.remove(&key.1);
            if runs.is_empty() {
                segments.remove(&key.0);
            }
        }
        self.dirty.borrow_mut().segments.remove(&key);
    }

    /// Makes the segments of one inode durable, and their names.
    pub(crate) async fn sync_inode(&self, inode: InodeNumber) -> Result<(), StorageError> {
        let segments = {
            let dirty = self.dirty.borrow();
            let range = (inode, 0)..=(inode, u32::MAX);
            dirty.segments.range(range).map(|(key, change)| (*key, *change)).collect::<Vec<_>>()
        };
        for (key, change) in segments {
            self.sync_segment(key, change).await?;
        }
        let shard = shard_of(inode);
        let change = self.dirty.borrow().directories.get(&shard).copied();
        match change {
            Some(change) => self.sync_directory(shard, change).await,
            None => Ok(()),
        }
    }

    /// Makes all segments durable that are dirty now.
    pub(crate) async fn sync_all(&self) -> Result<(), StorageError> {
        let (segments, directories) = {
            let dirty = self.dirty.borrow();
            (dirty.segments.clone(), dirty.directories.clone())
        };
        for (key, change) in segments {
            self.sync_segment(key, change).await?;
        }
        for (shard, change) in directories {
            self.sync_directory(shard, change).await?;
        }
        Ok(())
    }

    async fn sync_segment(&self, key: Key, change: u64) -> Result<(), StorageError> {
        if !self.exists(key) {
            return Ok(());
        }
        // Opened beside the cache: a segment removed and made anew while this waits must not find
        // its predecessor there.
        let cached = self.open.borrow_mut().get(&key).cloned();
        let segment = match cached {
            Some(segment) => segment,
            None => match self.open_file(key, OpenFlags::READ_WRITE).await {
                Ok(file) => Rc::new(Segment::found(file)),
                // A cut removed it meanwhile.
                Err(StorageError::NotFound(_)) if !self.exists(key) => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        self.disk.sync_data(&segment.file).await?;
        let mut dirty = self.dirty.borrow_mut();
        if dirty.segments.get(&key) == Some(&change) {
            dirty.segments.remove(&key);
        }
        Ok(())
    }

    async fn sync_directory(&self, shard: u8, change: u64) -> Result<(), StorageError> {
        if self.directories.borrow().contains(&shard) {
            let directory = self.directory(shard);
            self.with_descriptor(async || self.disk.sync_directory(&directory).await).await?;
        }
        let mut dirty = self.dirty.borrow_mut();
        if dirty.directories.get(&shard) == Some(&change) {
            dirty.directories.remove(&shard);
        }
        Ok(())
    }

    /// Bytes on disk.
    pub(crate) async fn used(&self) -> Result<u64, StorageError> {
        let keys: Vec<Key> = {
            let segments = self.segments.borrow();
            segments
                .iter()
                .flat_map(|(inode, runs)| runs.iter().map(|run| (*inode, *run)))
                .collect()
        };
        let mut used = 0;
        for key in keys {
            match self.disk.stat(&self.path(key)).await {
                Ok(stat) => used += stat.allocated_bytes,
                Err(StorageError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(used)
    }
}

/// Path of the segments in the directory of a store.
pub(crate) fn root_path(directory: &Path) -> PathBuf {
    directory.join("segments")
}
