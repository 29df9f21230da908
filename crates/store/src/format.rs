//! What marks a directory as a store: the `format` file, written once, and the `life` file,
//! rewritten at every start.
//!
//! `format`: magic, version, cluster, target, bytes of a log file, crc32c. `life`: how often the
//! store was opened, boot id of that start, log position up to which it found everything durable
//! or made it so, lineage, whether it was closed in order, crc32c. Invariant: both are replaced by
//! a synced rename, so they are whole or absent; a directory with foreign files is never made a
//! store.
//!
//! `failed` is there while a device error may have taken what the page cache held.

use std::path::{Path, PathBuf};

use ringfs_platform::{Buffer, Disk, FileHandle, OpenFlags, StorageError};
use ringfs_wire::{ClusterId, DecodeError, Lineage, Reader, TargetId, Wire};

use crate::error::StoreError;
use crate::log::FILE_MODE;

const FORMAT_NAME: &str = "format";
const LIFE_NAME: &str = "life";
const LOCK_NAME: &str = "lock";
const FAILED_NAME: &str = "failed";
const MAGIC: u64 = u64::from_le_bytes(*b"RingStor");
/// Version of everything in the directory. History: 1 = first; 2 = sessions name their holder; 3 =
/// inodes tell what space they take; 4 = the life file names a lineage.
const VERSION: u32 = 4;
/// Files this small are read whole.
const SMALL_FILE: usize = 4096;
const DIRECTORY_MODE: u32 = 0o700;
/// Bytes that a log file may have, in multiples of the unit.
const LOG_FILE_SIZES: std::ops::RangeInclusive<u64> = 4 << 10..=1 << 30;
const LOG_FILE_UNIT: u64 = 8;

/// What a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) cluster: ClusterId,
    pub(crate) target: TargetId,
    pub(crate) log_segment_bytes: u64,
}

/// When it was last opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) incarnation: u64,
    pub(crate) boot: u128,
    /// Everything in the log before this position, and every head image it points to, was made
    /// durable by that start.
    pub(crate) durable: u64,
    /// Drawn anew where unsynced changes may have been lost.
    pub(crate) lineage: Lineage,
    /// It ended in order, with everything synced.
    pub(crate) ended: bool,
}

/// Creates the directory where needed and takes its lock.
pub(crate) async fn lock(disk: &Disk, directory: &Path) -> Result<FileHandle, StoreError> {
    match disk.mkdir(directory, DIRECTORY_MODE).await {
        Ok(()) => {
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            disk.sync_directory(parent.unwrap_or(Path::new("."))).await?;
        }
        Err(StorageError::AlreadyExists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    if disk.stat(&directory.join(FORMAT_NAME)).await.is_err() {
        refuse_foreign(disk, directory).await?;
    }
    let path = directory.join(LOCK_NAME);
    let file = disk.open(&path, OpenFlags::CREATE, FILE_MODE).await?;
    match disk.lock(&file).await {
        Ok(()) => Ok(file),
        Err(StorageError::AlreadyExists(_)) => Err(StoreError::Locked(directory.to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Fails if a directory without a format file holds anything but an interrupted creation.
async fn refuse_foreign(disk: &Disk, directory: &Path) -> Result<(), StoreError> {
    for item in disk.list(directory).await? {
        let name = item.name.to_string_lossy();
        if name != LOCK_NAME && name != temporary_name(FORMAT_NAME) {
            let what = format!("is not empty (`{name}`) and holds no RingFS store");
            return Err(StoreError::WrongStore { directory: directory.to_owned(), what });
        }
    }
    Ok(())
}

/// Reads the format file, or writes it in a new store; whether the store is new.
pub(crate) async fn check_or_create(
    disk: &Disk,
    directory: &Path,
    wanted: Format,
) -> Result<(Format, bool), StoreError> {
    let wrong = |what: String| StoreError::WrongStore { directory: directory.to_owned(), what };
    let Some(bytes) = read_small(disk, &directory.join(FORMAT_NAME)).await? else {
        let mut out = Vec::new();
        MAGIC.put(&mut out);
        VERSION.put(&mut out);
        wanted.cluster.put(&mut out);
        wanted.target.put(&mut out);
        wanted.log_segment_bytes.put(&mut out);
        replace_small(disk, directory, FORMAT_NAME, out).await?;
        return Ok((wanted, true));
    };
    let damaged = |_| StoreError::Damaged {
        file: directory.join(FORMAT_NAME),
        offset: 0,
        what: "the format file cannot be read",
    };
    let mut reader = Reader::new(&bytes);
    if u64::get(&mut reader).map_err(damaged)? != MAGIC {
        return Err(wrong("holds no RingFS store".to_owned()));
    }
    let content = checked(&bytes).map_err(damaged)?;
    let version = u32::get(&mut reader).map_err(damaged)?;
    if version != VERSION {
        return Err(wrong(format!("has format {version}; this RingFS reads format {VERSION}")));
    }
    let found = read_format(content).map_err(damaged)?;
    if found.cluster != wanted.cluster {
        let (found, wanted) = (found.cluster, wanted.cluster);
        return Err(wrong(format!("belongs to cluster {found}, not to {wanted}")));
    }
    if found.target != wanted.target {
        let (found, wanted) = (found.target, wanted.target);
        return Err(wrong(format!("belongs to target {found}, not to {wanted}")));
    }
    Ok((found, false))
}

fn read_format(content: &[u8]) -> Result<Format, DecodeError> {
    let mut reader = Reader::new(content);
    u64::get(&mut reader)?;
    u32::get(&mut reader)?;
    let (cluster, target) = (Wire::get(&mut reader)?, Wire::get(&mut reader)?);
    let log_segment_bytes: u64 = Wire::get(&mut reader)?;
    reader.finish()?;
    let is_possible = LOG_FILE_SIZES.contains(&log_segment_bytes);
    if !is_possible || !log_segment_bytes.is_multiple_of(LOG_FILE_UNIT) {
        return Err(DecodeError::Invalid("log file size"));
    }
    Ok(Format { cluster, target, log_segment_bytes })
}

/// Reads the life file; a store that was never opened has none.
pub(crate) async fn read_life(disk: &Disk, directory: &Path) -> Result<Life, StoreError> {
    let path = directory.join(LIFE_NAME);
    let Some(bytes) = read_small(disk, &path).await? else {
        return Ok(Life::default());
    };
    let read = |bytes: &[u8]| -> Result<Life, DecodeError> {
        let mut reader = Reader::new(checked(bytes)?);
        let (incarnation, boot) = (Wire::get(&mut reader)?, Wire::get(&mut reader)?);
        let (durable, lineage) = (Wire::get(&mut reader)?, Wire::get(&mut reader)?);
        Ok(Life { incarnation, boot, durable, lineage, ended: Wire::get(&mut reader)? })
    };
    read(&bytes).map_err(|_| StoreError::Damaged {
        file: path,
        offset: 0,
        what: "the life file cannot be read",
    })
}

/// Fails if the life file is older than the log, or gone: it was replaced, durably, before the first
/// batch of each life.
pub(crate) fn check_life(directory: &Path, life: Life, incarnation: u64) -> Result<(), StoreError> {
    if life.incarnation >= incarnation {
        return Ok(());
    }
    let what = "the life file is missing or older than the log";
    Err(StoreError::Damaged { file: directory.join(LIFE_NAME), offset: 0, what })
}

/// Replaces the life file, durably.
pub(crate) async fn write_life(
    disk: &Disk,
    directory: &Path,
    life: Life,
) -> Result<(), StorageError> {
    let mut out = Vec::new();
    life.incarnation.put(&mut out);
    life.boot.put(&mut out);
    life.durable.put(&mut out);
    life.lineage.put(&mut out);
    life.ended.put(&mut out);
    replace_small(disk, directory, LIFE_NAME, out).await
}

/// Notes for the next start that a device error may have taken unsynced changes. The page cache
/// keeps the note where the disk does not: a machine that lost that has lost power.
pub(crate) async fn note_failure(disk: &Disk, directory: &Path) -> Result<(), StorageError> {
    disk.open(&directory.join(FAILED_NAME), OpenFlags::CREATE, FILE_MODE).await.map(drop)
}

/// Whether a device error was noted.
pub(crate) async fn has_failed(disk: &Disk, directory: &Path) -> Result<bool, StorageError> {
    match disk.stat(&directory.join(FAILED_NAME)).await {
        Ok(_) => Ok(true),
        Err(StorageError::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A device error counts no more: the lineage is a new one.
pub(crate) async fn forget_failure(disk: &Disk, directory: &Path) -> Result<(), StorageError> {
    disk.unlink(&directory.join(FAILED_NAME)).await
}

/// Reads the settings of a store again: their files, and whether each is whole.
pub(crate) async fn verify(
    disk: &Disk,
    directory: &Path,
) -> Result<Vec<(PathBuf, bool)>, StorageError> {
    let mut found = Vec::new();
    for name in [FORMAT_NAME, LIFE_NAME] {
        let path = directory.join(name);
        let bytes = read_small(disk, &path).await?;
        found.push((path, bytes.is_some_and(|bytes| checked(&bytes).is_ok())));
    }
    Ok(found)
}

/// The content in front of a valid checksum.
pub(crate) fn checked(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    let at = bytes.len().checked_sub(4).ok_or(DecodeError::Truncated)?;
    let (content, checksum) = bytes.split_at(at);
    if crc32c::crc32c(content) != u32::from_bytes(checksum)? {
        return Err(DecodeError::Invalid("checksum"));
    }
    Ok(content)
}

fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}

async fn read_small(disk: &Disk, path: &Path) -> Result<Option<Buffer>, StorageError> {
    let file = match disk.open(path, OpenFlags::READ, 0).await {
        Ok(file) => file,
        Err(StorageError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let buffer = Buffer::with_capacity(SMALL_FILE);
    let (result, buffer) = disk.read(&file, 0, buffer, SMALL_FILE).await;
    result.map(|_| Some(buffer))
}

/// Replaces a file with `content` and its checksum, durably.
pub(crate) async fn replace_small(
    disk: &Disk,
    directory: &Path,
    name: &str,
    mut content: Vec<u8>,
) -> Result<(), StorageError> {
    crc32c::crc32c(&content).put(&mut content);
    let temporary = directory.join(temporary_name(name));
    let file = disk.open(&temporary, OpenFlags::CREATE.with_truncate(), FILE_MODE).await?;
    disk.write(&file, 0, content.into()).await?;
    disk.fsync(&file).await?;
    disk.rename(&temporary, &directory.join(name)).await?;
    disk.sync_directory(directory).await
}
