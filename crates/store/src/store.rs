//! The engine of one target: opening it, transactions on its state, and the way to its files.

use std::cell::{Cell, Ref, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{Disk, FileHandle, Platform, StorageError};
use ringfs_wire::{
    CHUNK_SIZE, ClusterId, Errno, FilePermissions, InodeNumber, Lineage, TargetId, Timestamp, Wire,
};

use crate::chunks::Chunks;
use crate::data::FloorKeeper;
use crate::error::StoreError;
use crate::heads::Heads;
use crate::locks::Locks;
use crate::log::Log;
use crate::numbers::Numbers;
use crate::record::Record;
use crate::state::State;
use crate::sync::Syncer;

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
    /// Bytes of log after which a snapshot is taken; more if the snapshot before was large.
    pub snapshot_after_bytes: u64,
    /// How long a change may stay in the page cache only.
    pub sync_interval: Duration,
    /// Segment files kept open.
    pub open_segments: usize,
    /// Create the root directory with this owner and mode, if the store has none.
    pub root: Option<FilePermissions>,
    /// Bytes in a chunk of new files.
    pub chunk_size: u32,
    /// Deliberate defects.
    #[cfg(feature = "mutations")]
    pub mutations: Mutations,
}

/// Deliberate defects, to show that the simulator would find them.
#[cfg(feature = "mutations")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutations {
    /// Count log batches as durable without syncing them.
    pub skip_log_sync: bool,
    /// Hand out numbers without reserving them in the log.
    pub reuse_inode_numbers: bool,
    /// Accept data requests of any generation.
    pub skip_generation_check: bool,
    /// Answer that an inode is synced without syncing its chunks.
    pub skip_chunk_sync: bool,
    /// Count heads as durable without syncing the slab.
    pub skip_head_sync: bool,
    /// Sync only when asked.
    pub no_background_sync: bool,
    /// Go on after a failed sync as if it had not failed.
    pub forget_failed_sync: bool,
    /// Need room for removing as for anything else.
    pub refuse_removal: bool,
}

pub(crate) use ringfs_platform::is_defective;

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
            #[cfg(feature = "mutations")]
            mutations: Mutations::default(),
        }
    }

    /// Whether log batches are really synced: always, but for a deliberate defect.
    pub(crate) fn syncs_log(&self) -> bool {
        !is_defective!(self, skip_log_sync)
    }

    /// Whether numbers are reserved in the log: always, but for a deliberate defect.
    pub(crate) fn reserves_numbers(&self) -> bool {
        !is_defective!(self, reuse_inode_numbers)
    }

    /// Whether generations are checked: always, but for a deliberate defect.
    pub(crate) fn checks_generations(&self) -> bool {
        !is_defective!(self, skip_generation_check)
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

/// Freed slots waiting for a sync beyond this many bytes ask for one.
const FREED_BYTES_MAX: u64 = 64 << 20;

/// The engine of one target. Clones share it; it stays on its thread. Its tasks end with the
/// last clone.
#[derive(Clone)]
pub struct Store(Rc<Handle>);

struct Handle(Rc<Engine>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What handles and tasks share.
pub(crate) struct Engine {
    pub(crate) platform: Platform,
    pub(crate) disk: Disk,
    pub(crate) directory: PathBuf,
    pub(crate) options: StoreOptions,
    pub(crate) recovery: Recovery,
    pub(crate) lineage: Lineage,
    pub(crate) state: RefCell<State>,
    pub(crate) log: Log,
    pub(crate) heads: Heads,
    pub(crate) chunks: Chunks,
    pub(crate) floors: FloorKeeper,
    pub(crate) numbers: Numbers,
    pub(crate) syncer: Syncer,
    /// Writes to heads, one per inode at a time.
    pub(crate) head_locks: Locks,
    /// Use of chunks (shared) against cuts (exclusive).
    pub(crate) chunk_locks: Locks,
    /// Where the newest snapshot starts.
    pub(crate) snapshot_position: Cell<u64>,
    /// Bytes of the newest snapshot.
    pub(crate) snapshot_bytes: Cell<u64>,
    /// Held while the store is open.
    pub(crate) _lock: FileHandle,
}

impl Engine {
    /// Logs a group of encoded records that are applied already.
    pub(crate) fn commit(&self, group: &[u8]) -> LogPosition {
        let was_dirty = self.is_dirty();
        let position = self.log.append(group);
        let freed = self.state.borrow_mut().take_freed();
        if self.heads.freed(position, freed) > FREED_BYTES_MAX {
            self.syncer.want(position);
        }
        // The tasks are woken only when they have something to do: commits are frequent.
        if !was_dirty {
            self.syncer.wake();
        }
        if self.is_snapshot_due() {
            self.syncer.wake_snapshots();
        }
        LogPosition(position)
    }

    /// Turns an error of the local disk into what the caller is told: a full disk changes
    /// nothing, a missing file concerns its users, files in use are closed soon; any other error
    /// stops the store.
    pub(crate) fn disk_error(&self, error: StorageError) -> StoreError {
        match error {
            StorageError::NoSpace(_) => StoreError::NoSpace,
            // A segment that was taken away: whoever needs it is told, the others go on.
            error @ StorageError::NotFound(_) => StoreError::Storage(error),
            // Nothing was opened, so nothing has changed.
            error if error.is_out_of_descriptors() => StoreError::Storage(error),
            error => self.log.fail(error),
        }
    }

    /// Whether a generation is too old to be served.
    pub(crate) fn is_stale(&self, stale: bool) -> bool {
        stale && self.options.checks_generations()
    }

    pub(crate) fn stop(&self) {
        self.log.stop();
        self.syncer.wake();
        self.syncer.wake_snapshots();
        self.numbers.wake();
    }
}

impl Store {
    /// Opens the store in `directory`, creating it when that is empty or missing, and recovers.
    pub async fn open(
        platform: &Platform,
        directory: &Path,
        options: StoreOptions,
    ) -> Result<Store, StoreError> {
        let engine = crate::open::open(platform, directory, options).await?;
        Ok(Self::from_engine(engine))
    }

    pub(crate) fn from_engine(engine: Rc<Engine>) -> Self {
        Self(Rc::new(Handle(engine)))
    }

    pub(crate) fn engine(&self) -> &Rc<Engine> {
        &self.0.0
    }

    /// What opening found.
    pub fn recovery(&self) -> Recovery {
        self.engine().recovery
    }

    /// The same as in an earlier life if nothing that was acknowledged in between was lost.
    pub fn lineage(&self) -> Lineage {
        self.engine().lineage
    }

    /// The options it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.engine().options
    }

    /// The state as of now.
    pub fn state(&self) -> Ref<'_, State> {
        self.engine().state.borrow()
    }

    /// Moves an access time, in memory only.
    pub fn note_access(&self, inode: InodeNumber, now: Timestamp) {
        self.engine().state.borrow_mut().note_access(inode, now);
    }

    /// Starts a transaction. It must not be held across an await.
    pub fn transaction(&self) -> Transaction {
        Transaction { engine: self.engine().clone(), group: Vec::new() }
    }

    /// The position after the last commit.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.engine().log.committed())
    }

    /// Waits until everything before `position` is in the kernel.
    pub async fn written(&self, position: LogPosition) -> Result<(), StoreError> {
        self.engine().log.written(position.0).await
    }

    /// The same where nothing depends on this store staying in order: what a device error has
    /// left may be shown.
    pub async fn shown(&self, position: LogPosition) -> Result<(), StoreError> {
        self.engine().log.shown(position.0).await
    }

    /// The end of the log, and the end of what is durable of it.
    pub fn extent(&self) -> (LogPosition, LogPosition) {
        let log = &self.engine().log;
        (LogPosition(log.committed()), LogPosition(log.synced_to()))
    }

    /// Waits until everything before `position` is durable.
    pub async fn synced(&self, position: LogPosition) -> Result<(), StoreError> {
        self.engine().synced(position.0).await
    }

    /// Whether a change may be made: fails after a device error, and when preallocated log space
    /// runs low. Changes that free space (`growing` false) may use the reserve.
    pub fn room(&self, growing: bool) -> Result<(), StoreError> {
        let engine = self.engine();
        engine.log.room(growing || is_defective!(engine.options, refuse_removal))
    }

    /// Whether the store refuses changes after a device error.
    pub fn has_failed(&self) -> bool {
        self.engine().log.check().is_err()
    }

    /// Why changes that need room are refused, or all of them if the store has failed.
    pub fn refusal(&self) -> Option<Errno> {
        match self.engine().log.room(true).err()? {
            StoreError::NoSpace => Some(Errno::ENOSPC),
            StoreError::Failed(error) => Some(Errno(error.errno())),
            _ => Some(Errno::EIO),
        }
    }

    /// Space and inodes.
    pub async fn usage(&self) -> Result<Usage, StoreError> {
        let engine = self.engine();
        let space = engine.disk.space(&engine.directory).await?;
        let used = engine.heads.used() + engine.chunks.used().await?;
        let inodes = engine.state.borrow().inodes.len() as u64;
        Ok(Usage { capacity: space.total, available: space.available, used, inodes })
    }
}

/// Changes that are applied at once and logged as one atomic group. Dropping a transaction
/// commits it: what the state shows is always logged.
#[must_use]
pub struct Transaction {
    engine: Rc<Engine>,
    group: Vec<u8>,
}

impl Transaction {
    pub(crate) fn of(engine: &Rc<Engine>) -> Self {
        Self { engine: engine.clone(), group: Vec::new() }
    }

    /// Applies `record` and remembers it.
    pub fn put(&mut self, record: Record) {
        record.put(&mut self.group);
        self.engine.state.borrow_mut().apply(record);
    }

    /// The state with everything put so far.
    pub fn state(&self) -> Ref<'_, State> {
        self.engine.state.borrow()
    }

    /// Hands the group to the log; the position to wait for. Without a record it is the position
    /// of the last commit.
    pub fn commit(mut self) -> LogPosition {
        self.flush()
    }

    fn flush(&mut self) -> LogPosition {
        let group = std::mem::take(&mut self.group);
        if group.is_empty() {
            return LogPosition(self.engine.log.committed());
        }
        self.engine.commit(&group)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.flush();
    }
}
