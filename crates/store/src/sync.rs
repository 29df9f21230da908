//! Making things durable: rounds shared by everybody who waits, the background sync, snapshots.
//!
//! Invariant: a round captures the end of the log, syncs the slab, marks the log, syncs the log,
//! in that order; so a durable record never points to a head image that is not durable. Nothing
//! runs while nothing is dirty.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::StorageError;
use ringfs_wire::InodeNumber;

use crate::error::StoreError;
use crate::format::{self, Life};
use crate::locks::Locks;
use crate::snapshot::{SnapshotStart, SnapshotWriter};
use crate::store::{Engine, Store, is_defective};
use ringfs_platform::Signal;

/// The lock that snapshots take turns on.
const SNAPSHOT_TURN: InodeNumber = InodeNumber(0);

/// Bytes of a snapshot that each byte of log pays for.
const SNAPSHOT_BYTES_PER_LOG_BYTE: u64 = 2;

/// What the sync task is asked for.
#[derive(Default)]
pub(crate) struct Syncer {
    wanted: Cell<u64>,
    close: Cell<bool>,
    closed: RefCell<Option<Result<(), StoreError>>>,
    changed: Signal,
    snapshot_due: Signal,
    snapshots: Locks,
}

impl Syncer {
    /// Asks for a round that reaches `position`.
    pub(crate) fn want(&self, position: u64) {
        if position > self.wanted.get() {
            self.wanted.set(position);
            self.changed.notify();
        }
    }

    /// Lets the sync task look again, and whoever waits for it.
    pub(crate) fn wake(&self) {
        self.changed.notify();
    }

    /// Lets the snapshot task look again.
    pub(crate) fn wake_snapshots(&self) {
        self.snapshot_due.notify();
    }
}

impl Store {
    /// Makes durable what this target holds of one inode.
    pub async fn sync_inode(&self, inode: InodeNumber) -> Result<(), StoreError> {
        let engine = self.engine();
        let floor = engine.state.borrow().floors.get(&inode).copied();
        if !is_defective!(engine.options, skip_chunk_sync) {
            engine.chunks.sync_inode(inode).await.map_err(|error| engine.sync_failed(error))?;
        }
        if let Some(floor) = floor {
            engine.settle_floor(inode, floor);
        }
        engine.synced(engine.log.committed()).await
    }

    /// Makes everything durable.
    pub async fn sync_all(&self) -> Result<(), StoreError> {
        let engine = self.engine();
        engine.sync_chunks().await?;
        engine.synced(engine.log.committed()).await
    }

    /// Writes a snapshot and drops the log before it.
    pub async fn snapshot(&self) -> Result<(), StoreError> {
        self.engine().snapshot().await
    }

    /// Syncs everything and marks the store as closed in order. Nobody may use it meanwhile.
    pub async fn close(self) -> Result<(), StoreError> {
        let engine = self.engine();
        engine.syncer.close.set(true);
        engine.syncer.wake();
        engine.syncer.wake_snapshots();
        let closed = || {
            let failed = engine.log.check().err().map(Err);
            engine.syncer.closed.borrow().clone().or(failed)
        };
        engine.syncer.changed.until(closed).await
    }
}

impl Engine {
    /// Waits until everything before `position` is durable.
    pub(crate) async fn synced(&self, position: u64) -> Result<(), StoreError> {
        self.syncer.want(position);
        self.log.synced(position).await
    }

    /// Whether anything is not durable.
    pub(crate) fn is_dirty(&self) -> bool {
        self.log.committed() > self.log.synced_to() || self.chunks.is_dirty()
    }

    /// What a failed sync means: the end of all writing.
    fn sync_failed(&self, error: StorageError) -> StoreError {
        match is_defective!(self.options, forget_failed_sync) {
            true => StoreError::Failed(error),
            false => self.log.fail(error),
        }
    }

    fn is_wanted(&self) -> bool {
        let wanted = self.syncer.wanted.get().min(self.log.committed());
        wanted > self.log.synced_to() || self.syncer.close.get() || self.log.check().is_err()
    }

    /// The task that syncs. Ends when the store closes or fails.
    pub(crate) async fn run_syncer(self: Rc<Self>) {
        let interval = self.options.sync_interval;
        let mut deadline: Option<Duration> = None;
        loop {
            let is_due = || self.is_dirty() && !is_defective!(self.options, no_background_sync);
            let due = || (self.is_wanted() || is_due()).then_some(());
            self.syncer.changed.until(due).await;
            let now = self.platform.monotonic();
            let until = *deadline.get_or_insert(now + interval);
            if !self.is_wanted() && now < until {
                let wanted = self.syncer.changed.until(|| self.is_wanted().then_some(()));
                self.platform.timeout(until - now, wanted).await;
            }
            if self.log.check().is_err() {
                self.syncer.wake();
                return;
            }
            let full = self.platform.monotonic() >= until || self.syncer.close.get();
            let failed = self.sync_round(full).await.is_err();
            if failed && !is_defective!(self.options, forget_failed_sync) {
                self.syncer.wake();
                return;
            }
            if full || !self.is_dirty() {
                deadline = None;
            }
            if self.syncer.close.get() {
                let incarnation = self.log.incarnation();
                if let Err(error) = self.chunks.write_manifest(&self.directory, incarnation).await {
                    tracing::warn!("cannot note which segments there are: {error}");
                }
                let mut closed = self.log.close().await;
                if closed.is_ok() {
                    closed = self.note_end().await.map_err(|error| self.log.fail(error));
                }
                *self.syncer.closed.borrow_mut() = Some(closed);
                self.syncer.wake();
                return;
            }
        }
    }

    /// After an orderly end: the log is durable up to here, and what it points to.
    async fn note_end(&self) -> Result<(), StorageError> {
        let (incarnation, durable) = (self.log.incarnation(), self.log.written_to());
        let (boot, lineage) = (self.platform.boot_id(), self.lineage);
        let life = Life { incarnation, boot, durable, lineage, ended: true };
        format::write_life(&self.disk, &self.directory, life).await
    }

    /// The task that notes a device error for the next start. Ends with the store.
    pub(crate) async fn run_failure(self: Rc<Self>) {
        if let StoreError::Failed(_) = self.log.stopped().await
            && let Err(error) = format::note_failure(&self.disk, &self.directory).await
        {
            tracing::error!("cannot note that the store failed: {error}");
        }
    }

    async fn sync_round(self: &Rc<Self>, full: bool) -> Result<(), StoreError> {
        if full {
            self.sync_chunks().await?;
            self.forget_floors();
        }
        let position = self.log.committed();
        let new_images = match is_defective!(self.options, skip_head_sync) {
            true => true,
            false => self.heads.sync().await.map_err(|error| self.sync_failed(error))?,
        };
        match self.options.syncs_log() {
            true => {
                let synced = self.log.sync(position, new_images).await?;
                synced.map_err(|error| self.sync_failed(error))?;
            }
            false => {
                self.log.written(position).await?;
                self.log.finish_sync(position);
            }
        }
        self.heads.release(self.log.synced_to());
        Ok(())
    }

    /// Makes all chunks durable, and settles the cuts that this makes durable.
    async fn sync_chunks(self: &Rc<Self>) -> Result<(), StoreError> {
        let floors = self.unsettled_floors();
        self.chunks.sync_all().await.map_err(|error| self.sync_failed(error))?;
        for (inode, floor) in floors {
            self.settle_floor(inode, floor);
        }
        Ok(())
    }

    /// The task that takes snapshots. Ends when the store closes or fails.
    pub(crate) async fn run_snapshots(self: Rc<Self>) {
        loop {
            let due = || {
                let ends = self.log.check().is_err() || self.syncer.close.get();
                (self.is_snapshot_due() || ends).then_some(())
            };
            self.syncer.snapshot_due.until(due).await;
            if self.log.check().is_err() || self.syncer.close.get() {
                return;
            }
            if let Err(error) = self.snapshot().await {
                tracing::warn!("no snapshot was taken: {error}");
                if self
                    .platform
                    .timeout(self.options.sync_interval, self.until_closed())
                    .await
                    .is_some()
                {
                    return;
                }
            }
        }
    }

    async fn until_closed(&self) {
        let closed = || (self.log.check().is_err() || self.syncer.close.get()).then_some(());
        self.syncer.snapshot_due.until(closed).await;
    }

    /// Whether the log has grown enough: by as much as was asked for, and by a part of the last
    /// snapshot, so that what snapshots write stays in proportion to what the log does.
    pub(crate) fn is_snapshot_due(&self) -> bool {
        let grown = self.log.committed().saturating_sub(self.snapshot_position.get());
        let least = self.snapshot_bytes.get() / SNAPSHOT_BYTES_PER_LOG_BYTE;
        grown >= self.options.snapshot_after_bytes.max(least)
    }

    /// Writes a snapshot and drops the log before it.
    pub(crate) async fn snapshot(self: &Rc<Self>) -> Result<(), StoreError> {
        let _turn = self.syncer.snapshots.exclusive(SNAPSHOT_TURN).await;
        self.log.check()?;
        let position = self.log.batch_boundary();
        if position == self.snapshot_position.get() {
            return Ok(());
        }
        let start = SnapshotStart { position, incarnation: self.log.incarnation() };
        let created = SnapshotWriter::create(&self.disk, &self.directory, start).await;
        let mut writer = created.map_err(|error| self.disk_error(error))?;
        let bytes = match writer.write_state(&self.platform, &self.state).await {
            Ok(bytes) => bytes,
            Err(error @ StorageError::NoSpace(_)) => {
                writer.discard().await.map_err(|error| self.disk_error(error))?;
                return Err(error.into());
            }
            Err(error) => return Err(self.log.fail(error)),
        };
        // The snapshot shows effects of records that are younger than its start.
        self.synced(self.log.committed()).await?;
        writer.publish().await.map_err(|error| self.disk_error(error))?;
        self.snapshot_position.set(position);
        self.snapshot_bytes.set(bytes);
        self.log.drop_before(position).await.map_err(|error| self.disk_error(error))
    }
}
