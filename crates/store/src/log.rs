//! The write-ahead log while the store is open: collecting groups, writing and syncing batches.
//!
//! Invariant: positions are bytes since the store was created and each log file covers
//! `segment_bytes` of them, so a position tells its file. One task writes, in order; whatever is
//! committed meanwhile becomes the next batch. After a failed write or sync nothing is ever
//! synced again: what the kernel kept of the lost pages is unknown. What was committed before is
//! still written, as far as that goes, so that it may be shown.

mod batch;
mod replay;
mod walk;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{Buffer, Disk, FileHandle, OpenFlags, Platform, Slice, StorageError};

use crate::error::StoreError;
use batch::{BATCH_ALIGNMENT, BATCH_HEADER, BatchHeader, FLAG_CLEAN, FLAG_NEXT_FILE, finish};
pub(crate) use replay::{Replayed, replay};
use ringfs_platform::Signal;
pub(crate) use walk::{Walked, walk};

/// How often a log without space looks whether there is some.
const SPACE_RETRY: Duration = Duration::from_millis(500);
/// Files kept free beyond the current one, so that deletes work on a full disk.
const SPARE_FILES: u64 = 2;
/// A batch that has grown to this takes no further group, in bytes.
const BATCH_TARGET: usize = 1 << 20;
/// Mode of the files of a store.
pub(crate) const FILE_MODE: u32 = 0o600;

const NAME_PREFIX: &str = "log-";

/// Path of the log file that starts at `start`.
pub(crate) fn file_path(directory: &Path, start: u64) -> PathBuf {
    directory.join(format!("{NAME_PREFIX}{start:016x}"))
}

/// The start in a log file's name.
fn parse_name(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(NAME_PREFIX)?, 16).ok()
}

/// A batch ready to be written.
struct Sealed {
    start: u64,
    end: u64,
    bytes: Slice,
}

/// The batch that collects groups, and those waiting to be written.
struct Pending {
    start: u64,
    bytes: Option<Buffer>,
    sealed: VecDeque<Sealed>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.bytes.is_none() && self.sealed.is_empty()
    }
}

/// The log of an open store.
pub(crate) struct Log {
    disk: Disk,
    directory: PathBuf,
    segment_bytes: u64,
    incarnation: u64,
    pending: RefCell<Pending>,
    committed: Cell<u64>,
    written: Cell<u64>,
    synced: Cell<u64>,
    images: Cell<u64>,
    files: RefCell<BTreeMap<u64, Rc<FileHandle>>>,
    dirty_files: RefCell<BTreeSet<u64>>,
    failed: RefCell<Option<StorageError>>,
    /// Nothing more is written.
    stuck: Cell<bool>,
    closing: Cell<bool>,
    /// End of the last batch that is written, once that is known.
    last: Cell<u64>,
    no_space: Cell<bool>,
    /// Something was committed, or the log is closing.
    work: Signal,
    /// Files are wanted, or the log is closing.
    provision: Signal,
    /// Any of the positions moved, a file appeared, or the log failed.
    progress: Signal,
    /// The log failed or closes.
    end: Signal,
}

impl Log {
    /// A log that goes on at `replayed.end` in a new life.
    pub(crate) fn new(
        disk: Disk,
        directory: &Path,
        segment_bytes: u64,
        incarnation: u64,
        replayed: &Replayed,
    ) -> Self {
        let start = replayed.end.next_multiple_of(BATCH_ALIGNMENT);
        Self {
            disk,
            directory: directory.to_owned(),
            segment_bytes,
            incarnation,
            pending: RefCell::new(Pending { start, bytes: None, sealed: VecDeque::new() }),
            committed: Cell::new(start),
            written: Cell::new(start),
            synced: Cell::new(start),
            images: Cell::new(start),
            files: RefCell::default(),
            dirty_files: RefCell::default(),
            failed: RefCell::new(None),
            stuck: Cell::new(false),
            closing: Cell::new(false),
            last: Cell::new(u64::MAX),
            no_space: Cell::new(false),
            work: Signal::default(),
            provision: Signal::default(),
            progress: Signal::default(),
            end: Signal::default(),
        }
    }

    /// Takes over the files that recovery found: the current one and spares; the rest goes.
    pub(crate) async fn adopt_files(&self, starts: &[u64]) -> Result<(), StorageError> {
        let current = self.file_start(self.pending.borrow().start);
        let last = current + SPARE_FILES * self.segment_bytes;
        for &start in starts {
            let path = file_path(&self.directory, start);
            if start < current {
                continue;
            }
            if start > last {
                self.disk.unlink(&path).await?;
                continue;
            }
            let file = self.disk.open(&path, OpenFlags::READ_WRITE, FILE_MODE).await?;
            self.disk.allocate(&file, 0, self.segment_bytes).await?;
            self.disk.fsync(&file).await?;
            self.files.borrow_mut().insert(start, Rc::new(file));
        }
        while self.missing_file().is_some() {
            match self.create_file().await {
                Err(StorageError::NoSpace(_)) if self.files.borrow().contains_key(&current) => {
                    tracing::warn!("no space for further log files; only deletes go on");
                    self.no_space.set(true);
                    break;
                }
                made => made?,
            }
        }
        self.disk.sync_directory(&self.directory).await
    }

    /// Where the file that holds `position` starts.
    pub(crate) fn file_start(&self, position: u64) -> u64 {
        position / self.segment_bytes * self.segment_bytes
    }

    /// End of the last committed group.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.get()
    }

    /// Everything before this is durable.
    pub(crate) fn synced_to(&self) -> u64 {
        self.synced.get()
    }

    /// Everything before this is in the kernel.
    pub(crate) fn written_to(&self) -> u64 {
        self.written.get()
    }

    /// Bytes of one log file.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// How often the store had been opened when this log was.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Adds one atomic group; returns its end.
    pub(crate) fn append(&self, group: &[u8]) -> u64 {
        let needed = 4 + group.len();
        assert!(
            (BATCH_HEADER * 2 + needed) as u64 <= self.segment_bytes,
            "a transaction must fit into one log file"
        );
        let full = self.pending.borrow().bytes.as_ref().is_some_and(|bytes| {
            let end = self.pending.borrow().start + (bytes.len() + needed) as u64;
            let file_end = self.file_start(self.pending.borrow().start) + self.segment_bytes;
            bytes.len() + needed > BATCH_TARGET || end > file_end
        });
        if full {
            self.seal(0);
        }
        if self.pending.borrow().bytes.is_none() {
            self.start_batch(BATCH_HEADER + needed);
        }
        let mut pending = self.pending.borrow_mut();
        let start = pending.start;
        let bytes = pending.bytes.as_mut().expect("a batch was just started");
        bytes.extend_from_slice(&(group.len() as u32).to_le_bytes());
        bytes.extend_from_slice(group);
        let end = start + bytes.len() as u64;
        drop(pending);
        self.committed.set(end);
        self.work.notify();
        end
    }

    /// Starts a batch of at least `len` bytes, in the next file if it does not fit into this one.
    fn start_batch(&self, len: usize) {
        let start = self.pending.borrow().start;
        let file_end = self.file_start(start) + self.segment_bytes;
        if start + len as u64 > file_end {
            if start + BATCH_HEADER as u64 <= file_end {
                self.pending.borrow_mut().bytes = Some(Buffer::zeroed(BATCH_HEADER));
                self.seal(FLAG_NEXT_FILE);
            }
            self.pending.borrow_mut().start = file_end;
            self.provision.notify();
        }
        self.pending.borrow_mut().bytes = Some(Buffer::zeroed(BATCH_HEADER));
    }

    /// Ends the batch that collects groups, if there is one.
    fn seal(&self, flags: u16) {
        let mut pending = self.pending.borrow_mut();
        let Some(mut bytes) = pending.bytes.take() else { return };
        let start = pending.start;
        let header = BatchHeader {
            flags,
            position: start,
            incarnation: self.incarnation,
            synced: self.synced.get(),
            images: self.images.get(),
        };
        finish(&mut bytes, header);
        let end = start + bytes.len() as u64;
        assert!(end <= self.file_start(start) + self.segment_bytes, "a batch stays in its file");
        pending.sealed.push_back(Sealed { start, end, bytes: bytes.freeze() });
        pending.start = end.next_multiple_of(BATCH_ALIGNMENT);
    }

    /// Writes an empty batch, for the marks in its header.
    fn mark(&self, flags: u16) -> u64 {
        self.seal(0);
        self.start_batch(BATCH_HEADER);
        self.seal(flags);
        self.work.notify();
        self.pending.borrow().sealed.back().map_or(0, |sealed| sealed.end)
    }

    /// A position that is the start of a batch, with everything committed before it.
    pub(crate) fn batch_boundary(&self) -> u64 {
        self.seal(0);
        self.work.notify();
        self.pending.borrow().start
    }

    /// The failure that stopped the log.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match &*self.failed.borrow() {
            Some(error) => Err(StoreError::Failed(error.clone())),
            None if self.closing.get() => Err(StoreError::Closed),
            None => Ok(()),
        }
    }

    /// Stops all writing for ever.
    pub(crate) fn fail(&self, error: StorageError) -> StoreError {
        if self.failed.borrow().is_none() {
            tracing::error!("the store stops writing: {error}");
            *self.failed.borrow_mut() = Some(error.clone());
        }
        self.progress.notify();
        self.end.notify();
        StoreError::Failed(error)
    }

    /// Waits until the log has failed or closes; why.
    pub(crate) async fn stopped(&self) -> StoreError {
        self.end.until(|| self.check().err()).await
    }

    /// Waits until `reached` holds, or the log has failed.
    async fn wait(&self, reached: impl Fn() -> bool) -> Result<(), StoreError> {
        let check = || match self.check() {
            Err(error) => Some(Err(error)),
            Ok(()) => reached().then_some(Ok(())),
        };
        self.progress.until(check).await
    }

    /// Waits until everything before `position` is in the kernel.
    pub(crate) async fn written(&self, position: u64) -> Result<(), StoreError> {
        self.wait(|| self.written.get() >= position).await
    }

    /// Waits until everything before `position` is in the kernel, also after a failure; fails if it
    /// never will be.
    pub(crate) async fn shown(&self, position: u64) -> Result<(), StoreError> {
        let check = || match self.written.get() >= position {
            true => Some(Ok(())),
            false if self.stuck.get() || self.closing.get() => self.check().err().map(Err),
            false => None,
        };
        self.progress.until(check).await
    }

    /// Waits until everything before `position` is durable; somebody has to run [`Log::sync`].
    pub(crate) async fn synced(&self, position: u64) -> Result<(), StoreError> {
        self.wait(|| self.synced.get() >= position).await
    }

    /// Whether preallocated space suffices for a change.
    pub(crate) fn room(&self, growing: bool) -> Result<(), StoreError> {
        self.check()?;
        if !self.no_space.get() {
            return Ok(());
        }
        self.provision.notify();
        let position = self.pending.borrow().start;
        let files = self.files.borrow();
        let end = files.last_key_value().map_or(0, |(start, _)| start + self.segment_bytes);
        // What is committed but not written yet is already counted in the position.
        if growing || end < position + self.segment_bytes / 2 {
            return Err(StoreError::NoSpace);
        }
        Ok(())
    }

    /// The task that writes. Ends when the log closes, or cannot be written.
    pub(crate) async fn run_writer(&self) {
        loop {
            let has_work = || {
                let pending = self.pending.borrow();
                let ready = pending.bytes.is_some() || !pending.sealed.is_empty();
                (ready || self.closing.get()).then_some(ready)
            };
            if !self.work.until(has_work).await || self.closing.get() {
                return;
            }
            self.seal(0);
            let next = self.pending.borrow_mut().sealed.pop_front();
            if let Some(sealed) = next
                && self.write_batch(sealed).await.is_err()
            {
                self.stuck.set(true);
                self.progress.notify();
                return;
            }
            if self.written.get() >= self.last.get() {
                return;
            }
        }
    }

    async fn write_batch(&self, sealed: Sealed) -> Result<(), StoreError> {
        let start = self.file_start(sealed.start);
        let has_file = || self.files.borrow().contains_key(&start);
        // After a failure nobody makes files.
        let decided = || has_file() || self.no_space.get() || self.check().is_err();
        self.progress.until(|| decided().then_some(())).await;
        let Some(file) = self.files.borrow().get(&start).cloned() else {
            self.check()?;
            let context = ringfs_platform::FailureContext::new("extend the log", &self.directory);
            return Err(self.fail(StorageError::NoSpace(context)));
        };
        let result = self.disk.write(&file, sealed.start - start, sealed.bytes).await;
        result.map_err(|error| self.fail(error))?;
        // Only now: a sync that ran beside the write did not cover it.
        self.dirty_files.borrow_mut().insert(start);
        self.written.set(sealed.end);
        self.progress.notify();
        Ok(())
    }

    /// Makes everything written before now durable and says so up to `position`, which must be
    /// written and whose head images must be durable. One caller at a time. A sync that the device
    /// failed is the caller's to judge.
    pub(crate) async fn sync(
        &self,
        position: u64,
        new_images: bool,
    ) -> Result<Result<(), StorageError>, StoreError> {
        self.written(position).await?;
        if new_images {
            self.images.set(position);
            let mark = self.mark(0);
            self.written(mark).await?;
        }
        let dirty = self.dirty_files.take();
        for start in dirty {
            let file = self.files.borrow().get(&start).cloned();
            if let Some(file) = file
                && let Err(error) = self.disk.sync_data(&file).await
            {
                return Ok(Err(error));
            }
        }
        self.check()?;
        let is_news = position > self.synced.get();
        self.finish_sync(position);
        // Where nothing follows that would say so: damage to what is durable is told from the torn
        // tail of a crash by such marks only.
        if is_news && self.committed.get() == position && self.pending.borrow().is_empty() {
            self.mark(0);
        }
        Ok(Ok(()))
    }

    /// Counts everything before `position` as durable and lets go of files no longer written.
    pub(crate) fn finish_sync(&self, position: u64) {
        self.synced.set(self.synced.get().max(position));
        let current = self.file_start(self.synced.get().min(self.written.get()));
        self.files.borrow_mut().retain(|start, _| *start >= current);
        self.progress.notify();
    }

    fn missing_file(&self) -> Option<u64> {
        let current = self.file_start(self.pending.borrow().start);
        let files = self.files.borrow();
        let first = self.file_start(self.written.get());
        let starts = (0..).map(|index| first + index * self.segment_bytes);
        let mut wanted = starts.take_while(|s| *s <= current + SPARE_FILES * self.segment_bytes);
        wanted.find(|start| !files.contains_key(start))
    }

    /// The task that keeps spare files. Ends when the log closes or fails.
    pub(crate) async fn run_provision(&self, platform: &Platform) {
        loop {
            let wanted = || (self.closing.get() || self.missing_file().is_some()).then_some(());
            self.provision.until(wanted).await;
            if self.closing.get() || self.check().is_err() {
                return;
            }
            match self.create_file().await {
                Ok(()) => self.no_space.set(false),
                Err(StorageError::NoSpace(_)) => {
                    if !self.no_space.replace(true) {
                        tracing::warn!("no space for further log files; only deletes go on");
                    }
                    self.progress.notify();
                    // Tried again when a change next asks for room, or soon, so that none has to.
                    platform.timeout(SPACE_RETRY, self.wait_for_demand()).await;
                }
                Err(error) => {
                    self.fail(error);
                    return;
                }
            }
            self.progress.notify();
        }
    }

    async fn wait_for_demand(&self) {
        let mut first = true;
        self.provision.until(|| (!std::mem::take(&mut first)).then_some(())).await;
    }

    async fn create_file(&self) -> Result<(), StorageError> {
        let Some(start) = self.missing_file() else { return Ok(()) };
        let path = file_path(&self.directory, start);
        let file = self.disk.create(&path, FILE_MODE).await?;
        let made = match self.disk.allocate(&file, 0, self.segment_bytes).await {
            Ok(()) => self.disk.fsync(&file).await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            drop(file);
            self.disk.unlink(&path).await?;
            return Err(error);
        }
        self.disk.sync_directory(&self.directory).await?;
        self.files.borrow_mut().insert(start, Rc::new(file));
        Ok(())
    }

    /// Removes log files wholly before `position`.
    pub(crate) async fn drop_before(&self, position: u64) -> Result<(), StorageError> {
        for item in self.disk.list(&self.directory).await? {
            let start = item.name.to_str().and_then(parse_name);
            if let Some(start) =
                start.filter(|start| start.saturating_add(self.segment_bytes) <= position)
            {
                self.disk.unlink(&file_path(&self.directory, start)).await?;
            }
        }
        self.disk.sync_directory(&self.directory).await
    }

    /// Marks the log as closed in order, durably.
    pub(crate) async fn close(&self) -> Result<(), StoreError> {
        self.images.set(self.committed.get());
        let mark = self.mark(FLAG_CLEAN);
        // What is committed from now on is never written, and so never acknowledged.
        self.last.set(mark);
        self.sync(mark, false).await?.map_err(|error| self.fail(error))
    }

    /// Ends the tasks.
    pub(crate) fn stop(&self) {
        self.closing.set(true);
        self.end.notify();
        self.work.notify();
        self.provision.notify();
        self.progress.notify();
    }
}
