//! Opening a store: checks, recovery, a new life.
//!
//! Invariant: everything recovered is made durable, and the new incarnation is, before the first
//! new record; so what a start has shown to anybody never disappears in a later crash.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use ringfs_platform::{Disk, OpenFlags, Platform, StorageError};
use ringfs_wire::{
    Attributes, FilePermissions, Generation, InodeNumber, InodeType, Lineage, Timestamp,
};

use crate::chunks::{Chunks, root_path};
use crate::error::StoreError;
use crate::format::{self, Format, Life};
use crate::heads::Heads;
use crate::log::{self, Log, Replayed};
use crate::record::{HeadSlot, Inode, Record};
use crate::snapshot::{self, SnapshotStart};
use crate::state::State;
use crate::store::{Engine, Recovery, StoreOptions, Transaction};

/// A head slot that a record of the log allocated.
struct Allocation {
    /// Of the record's batch.
    position: u64,
    inode: InodeNumber,
    /// What the inode had before.
    replaced: Option<HeadSlot>,
}

pub(crate) async fn open(
    platform: &Platform,
    directory: &Path,
    options: StoreOptions,
) -> Result<Rc<Engine>, StoreError> {
    let disk = platform.disk();
    let lock = format::lock(&disk, directory).await?;
    let wanted = Format {
        cluster: options.cluster,
        target: options.target,
        log_segment_bytes: options.log_segment_bytes,
    };
    let (found, created) = format::check_or_create(&disk, directory, wanted).await?;
    let life = format::read_life(&disk, directory).await?;
    let boot = platform.boot_id();
    let power_lost = life.incarnation > 0 && life.boot != boot;

    let Recovered { state, snapshot, snapshot_bytes, replayed, allocations } =
        recover(&disk, directory, &found, life.durable).await?;
    format::check_life(directory, life, replayed.incarnation)?;
    let state = RefCell::new(state);
    let lost = match power_lost {
        true => lost_images(allocations, replayed.images),
        false => BTreeMap::new(),
    };
    let heads = Heads::open(&disk, directory, &state, &lost).await?;
    for (inode, replaced) in lost {
        let found = state.borrow().inodes.get(&inode).map(|i| (i.head, i.attributes.size));
        if let Some((Some(slot), size)) = found.filter(|(head, _)| *head != replaced) {
            heads.restore(slot, replaced, size).await?;
        }
    }
    let chunks = Chunks::open(&disk, root_path(directory), options.open_segments).await?;
    match replayed.clean {
        true => chunks.expect_manifest(directory, life.incarnation).await,
        false => chunks.mark_all(),
    }
    sync_recovered(&disk, directory, &heads, &replayed).await?;

    let life = begin_life(platform, directory, life, replayed.end).await?;
    let (bytes, incarnation) = (found.log_segment_bytes, life.incarnation);
    let log = Log::new(disk.clone(), directory, bytes, incarnation, &replayed);
    log.adopt_files(&replayed.files).await?;

    let recovery = Recovery { created, clean: created || replayed.clean, power_lost };
    let engine = Rc::new(Engine {
        platform: platform.clone(),
        disk,
        directory: directory.to_owned(),
        options,
        recovery,
        lineage: life.lineage,
        state,
        log,
        heads,
        chunks,
        floors: Default::default(),
        numbers: Default::default(),
        syncer: Default::default(),
        head_locks: Default::default(),
        chunk_locks: Default::default(),
        snapshot_position: Cell::new(snapshot.position),
        snapshot_bytes: Cell::new(snapshot_bytes),
        _lock: lock,
    });
    start_tasks(&engine);
    let ready = finish(&engine).await;
    if ready.is_err() {
        engine.stop();
    }
    ready.map(|()| engine)
}

/// What snapshot and log give.
struct Recovered {
    state: State,
    snapshot: SnapshotStart,
    snapshot_bytes: u64,
    replayed: Replayed,
    allocations: Vec<Allocation>,
}

/// Reads snapshot and log.
async fn recover(
    disk: &Disk,
    directory: &Path,
    format: &Format,
    durable: u64,
) -> Result<Recovered, StoreError> {
    let mut state = State::default();
    let (snapshot, snapshot_bytes) = snapshot::load(disk, directory, &mut state).await?;
    let mut allocations = Vec::new();
    let apply = |position: u64, record: Record| {
        if let Record::PutInode { inode } = &record
            && let Some(slot) = inode.head
        {
            let inode = inode.attributes.inode;
            let replaced = state.inodes.get(&inode).and_then(|old| old.head);
            if replaced != Some(slot) {
                allocations.push(Allocation { position, inode, replaced });
            }
        }
        state.apply(record);
    };
    let bytes = format.log_segment_bytes;
    let replayed = log::replay(disk, directory, bytes, snapshot, durable, apply).await?;
    state.take_freed();
    Ok(Recovered { state, snapshot, snapshot_bytes, replayed, allocations })
}

/// Inodes whose head images may not be what was written, because records from `images` on
/// allocated them, and the last slot of each that is durable.
fn lost_images(
    allocations: Vec<Allocation>,
    images: u64,
) -> BTreeMap<InodeNumber, Option<HeadSlot>> {
    let mut lost = BTreeMap::new();
    for allocation in allocations.into_iter().filter(|a| a.position >= images) {
        lost.entry(allocation.inode).or_insert(allocation.replaced);
    }
    lost
}

/// After a kill the page cache holds what was never synced. If it cannot be made durable now, it
/// never will be.
async fn sync_recovered(
    disk: &Disk,
    directory: &Path,
    heads: &Heads,
    replayed: &Replayed,
) -> Result<(), StorageError> {
    let synced = async {
        heads.sync_everything().await?;
        sync_log_files(disk, directory, replayed).await
    };
    let result = synced.await;
    if result.is_err()
        && let Err(error) = format::note_failure(disk, directory).await
    {
        tracing::error!("cannot note that the store failed: {error}");
    }
    result
}

/// Writes down that the store is open, and whether all that was acknowledged before is there.
async fn begin_life(
    platform: &Platform,
    directory: &Path,
    last: Life,
    durable: u64,
) -> Result<Life, StorageError> {
    let (disk, boot) = (platform.disk(), platform.boot_id());
    let has_failed = format::has_failed(&disk, directory).await?;
    let is_whole = last.incarnation > 0 && !has_failed && (last.ended || last.boot == boot);
    // Zero is no lineage.
    let lineage = if is_whole { last.lineage } else { Lineage(platform.random_u64().max(1)) };
    let incarnation = last.incarnation.saturating_add(1);
    let life = Life { incarnation, boot, durable, lineage, ended: false };
    format::write_life(&disk, directory, life).await?;
    if has_failed {
        format::forget_failure(&disk, directory).await?;
    }
    Ok(life)
}

/// Makes the log durable.
async fn sync_log_files(
    disk: &Disk,
    directory: &Path,
    replayed: &Replayed,
) -> Result<(), StorageError> {
    for start in &replayed.files {
        let path = log::file_path(directory, *start);
        let file = disk.open(&path, OpenFlags::READ_WRITE, 0).await?;
        disk.fsync(&file).await?;
    }
    disk.sync_directory(directory).await
}

fn start_tasks(engine: &Rc<Engine>) {
    let task = engine.clone();
    engine.platform.spawn(async move { task.log.run_writer().await });
    let task = engine.clone();
    engine.platform.spawn(async move { task.log.run_provision(&task.platform).await });
    engine.platform.spawn(engine.clone().run_syncer());
    engine.platform.spawn(engine.clone().run_snapshots());
    engine.platform.spawn(engine.clone().run_failure());
}

/// What needs a running log: unfinished cuts, and the root directory.
async fn finish(engine: &Rc<Engine>) -> Result<(), StoreError> {
    engine.repeat_cuts().await?;
    let has_root = engine.state.borrow().inodes.contains_key(&InodeNumber::ROOT);
    if let Some(permissions) = engine.options.root.filter(|_| !has_root) {
        let now = Timestamp::from(engine.platform.wall());
        let inode = root(permissions, engine.options.chunk_size, now);
        let mut transaction = Transaction::of(engine);
        transaction.put(Record::PutInode { inode });
        let position = transaction.commit();
        engine.synced(position.0).await?;
    }
    Ok(())
}

fn root(permissions: FilePermissions, chunk_size: u32, now: Timestamp) -> Inode {
    Inode::new(Attributes {
        inode: InodeNumber::ROOT,
        kind: InodeType::Directory,
        permissions,
        links: 2,
        device: 0,
        size: 0,
        generation: Generation(0),
        reach: 0,
        allocated: 0,
        chunk_size,
        parent: InodeNumber::ROOT,
        accessed: now,
        modified: now,
        changed: now,
        created: now,
        has_xattrs: false,
    })
}
