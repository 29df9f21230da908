//! The engine of one target: opening it, transactions on its state, and the way to its files.

use std::cell::{Cell, Ref, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{Buffer, Platform, Slice};
use ringfs_wire::{
    Attributes, CHUNK_SIZE, ClusterId, FilePermissions, Generation, InodeNumber, TargetId,
    Timestamp,
};

use crate::error::StoreError;
use crate::record::{HeadSlot, Inode, RangeKind, Record};
use crate::signal::{InodeGuard, Locks};
use crate::state::State;

/// A place in the log, in bytes since the store was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition(pub u64);

/// What a store needs to know when it is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The target this store belongs to.
    pub target: TargetId,
    /// The cluster the target belongs to.
    pub cluster: ClusterId,
    /// Bytes of one log file. Fixed when the store is created.
    pub log_segment_bytes: u64,
    /// Bytes of log after which a snapshot is taken.
    pub snapshot_after_bytes: u64,
    /// How long a change may stay in the page cache only.
    pub sync_interval: Duration,
    /// Segment files kept open.
    pub open_segments: usize,
    /// Create the root directory with this owner and mode, if the store has none.
    pub root: Option<FilePermissions>,
    /// Bytes in a chunk of new files.
    pub chunk_size: u32,
}

impl StoreOptions {
    /// The usual options of `target` in `cluster`.
    pub fn new(cluster: ClusterId, target: TargetId) -> Self {
        Self {
            target,
            cluster,
            log_segment_bytes: 16 << 20,
            snapshot_after_bytes: 64 << 20,
            sync_interval: Duration::from_secs(1),
            open_segments: 1024,
            root: None,
            chunk_size: CHUNK_SIZE,
        }
    }
}

/// What opening a store found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The store is new.
    pub created: bool,
    /// It was closed in order.
    pub clean: bool,
    /// The machine lost its page cache since the store was last open.
    pub power_lost: bool,
}

/// Space of a target, in bytes, and its inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Size of the local file system.
    pub capacity: u64,
    /// What is free there.
    pub available: u64,
    /// What heads and chunks take.
    pub used: u64,
    /// Inodes homed here.
    pub inodes: u64,
}

/// The engine of one target. Clones share it; it stays on its thread.
#[derive(Clone)]
pub struct Store(Rc<Inner>);

struct Inner {
    state: RefCell<State>,
    position: Cell<u64>,
    heads: Locks,
}

impl Store {
    /// Opens the store in `directory`, creating it when that is empty or missing, and recovers.
    pub async fn open(
        _platform: &Platform,
        _directory: &Path,
        _options: StoreOptions,
    ) -> Result<Store, StoreError> {
        let (state, position, heads) = Default::default();
        Ok(Self(Rc::new(Inner { state, position, heads })))
    }

    /// What opening found.
    pub fn recovery(&self) -> Recovery {
        Recovery { created: true, clean: true, power_lost: false }
    }

    /// The state as of now.
    pub fn state(&self) -> Ref<'_, State> {
        self.0.state.borrow()
    }

    /// Starts a transaction. It must not be held across an await.
    pub fn transaction(&self) -> Transaction {
        Transaction { store: self.clone(), records: Vec::new() }
    }

    /// The position after the last commit.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.0.position.get())
    }

    /// Waits until everything before `position` is in the kernel.
    pub async fn written(&self, _position: LogPosition) -> Result<(), StoreError> {
        Ok(())
    }

    /// Waits until everything before `position` is durable.
    pub async fn synced(&self, _position: LogPosition) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether a change may be made: fails after a device error, and when preallocated log space
    /// runs low. Changes that free space (`growing` false) may use the reserve.
    pub fn room(&self, _growing: bool) -> Result<(), StoreError> {
        Ok(())
    }

    /// A number that was never returned before and never will be, across power cuts.
    pub async fn allocate(&self, _kind: RangeKind) -> Result<u64, StoreError> {
        Err(StoreError::NoSpace)
    }

    /// Waits for the right to change head and size of `inode`; [`Store::write_head`] takes it
    /// itself. Hold it around [`Store::shrink_head`] and the commit of its result.
    pub async fn lock_inode(&self, inode: InodeNumber) -> InodeGuard {
        self.0.heads.exclusive(inode).await
    }

    /// Reads from the head; shorter where the slot ends: the rest is zeros.
    pub async fn read_head(
        &self,
        _inode: &Inode,
        _offset: u64,
        _len: usize,
    ) -> Result<Buffer, StoreError> {
        Err(StoreError::Missing)
    }

    /// Writes into the head of a file and logs the new attributes, with what `extra` makes of
    /// them, as one group.
    pub async fn write_head(
        &self,
        _inode: InodeNumber,
        _generation: Generation,
        _offset: u64,
        _data: Slice,
        _end: u64,
        _now: Timestamp,
        _extra: impl FnOnce(&Attributes) -> Vec<Record>,
    ) -> Result<(Attributes, LogPosition), StoreError> {
        Err(StoreError::Missing)
    }

    /// A fresh slot with the first `new_len` bytes of the head and zeros; the caller holds
    /// [`Store::lock_inode`] and logs it in the inode's record.
    pub async fn shrink_head(
        &self,
        _inode: &Inode,
        _new_len: u64,
    ) -> Result<Option<HeadSlot>, StoreError> {
        Err(StoreError::Missing)
    }

    /// Reads from a chunk; short where a hole follows.
    pub async fn read_chunk(
        &self,
        _inode: InodeNumber,
        _generation: Generation,
        _chunk_size: u32,
        _offset: u64,
        _len: usize,
    ) -> Result<Buffer, StoreError> {
        Err(StoreError::Missing)
    }

    /// Writes into a chunk.
    pub async fn write_chunk(
        &self,
        _inode: InodeNumber,
        _generation: Generation,
        _chunk_size: u32,
        _offset: u64,
        _data: Slice,
    ) -> Result<(), StoreError> {
        Err(StoreError::Missing)
    }

    /// Refuses older generations of an inode from now on and drops its chunks from `length` on.
    /// Repeating a cut does nothing. Durable after [`Store::sync_inode`].
    pub async fn cut_chunks(
        &self,
        _inode: InodeNumber,
        _generation: Generation,
        _length: u64,
        _chunk_size: u32,
    ) -> Result<LogPosition, StoreError> {
        Err(StoreError::Missing)
    }

    /// Makes durable what this target holds of one inode.
    pub async fn sync_inode(&self, _inode: InodeNumber) -> Result<(), StoreError> {
        Ok(())
    }

    /// Makes everything durable.
    pub async fn sync_all(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Writes a snapshot and drops the log before it.
    pub async fn snapshot(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Space and inodes.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        Ok(Usage { capacity: 0, available: 0, used: 0, inodes: 0 })
    }

    /// Syncs everything and marks the store as closed in order.
    pub async fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Changes that are applied at once and logged as one atomic group. Dropping a transaction
/// commits it: what the state shows is always logged.
#[must_use]
pub struct Transaction {
    store: Store,
    records: Vec<Record>,
}

impl Transaction {
    /// Applies `record` and remembers it.
    pub fn put(&mut self, record: Record) {
        self.store.0.state.borrow_mut().apply(record.clone());
        self.records.push(record);
    }

    /// The state with everything put so far.
    pub fn state(&self) -> Ref<'_, State> {
        self.store.state()
    }

    /// Hands the group to the log; the position to wait for.
    pub fn commit(self) -> LogPosition {
        self.store.position()
    }
}
