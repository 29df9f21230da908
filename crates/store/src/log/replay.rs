//! Reading the log back after a start.
//!
//! A batch that is not there, or not whole, ends the log, if nothing says that the log was ever
//! durable beyond it; then it is the torn tail of a crash. Otherwise durable data is damaged and
//! the store refuses to start rather than forget it.

use std::path::Path;

use ringfs_platform::{Buffer, Disk, OpenFlags, StorageError};
use ringfs_wire::{DecodeError, Reader, Wire};

use super::batch::{
    BATCH_ALIGNMENT, BATCH_HEADER, BatchError, FLAG_CLEAN, FLAG_NEXT_FILE, looks_like_batch, parse,
};
use super::{file_path, parse_name};
use crate::error::StoreError;
use crate::record::{Record, UNKNOWN_TAG};
use crate::snapshot::{POSITION_MAX, SnapshotStart};

/// What replay found.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Where the log ends.
    pub(crate) end: u64,
    /// Starts of all log files.
    pub(crate) files: Vec<u64>,
    /// Head images of records before this are durable.
    pub(crate) images: u64,
    /// The highest incarnation seen.
    pub(crate) incarnation: u64,
    /// Whether the store was closed in order.
    pub(crate) clean: bool,
}

struct Replay<'a, F> {
    disk: &'a Disk,
    directory: &'a Path,
    segment_bytes: u64,
    synced: u64,
    found: Replayed,
    apply: F,
}

/// Reads the log from `start` and hands each record to `apply` with the position of its batch.
/// `durable` is known to have been durable once.
pub(crate) async fn replay(
    disk: &Disk,
    directory: &Path,
    segment_bytes: u64,
    start: SnapshotStart,
    durable: u64,
    apply: impl FnMut(u64, Record),
) -> Result<Replayed, StoreError> {
    let mut files = Vec::new();
    for item in disk.list(directory).await? {
        let start = item.name.to_str().and_then(parse_name);
        files.extend(start.filter(|s| s.is_multiple_of(segment_bytes) && *s <= POSITION_MAX));
    }
    files.sort_unstable();
    let SnapshotStart { position: end, incarnation } = start;
    let found = Replayed { end, files, incarnation, images: durable, ..Replayed::default() };
    let synced = end.max(durable);
    let mut replay = Replay { disk, directory, segment_bytes, synced, found, apply };
    replay.run().await?;
    Ok(replay.found)
}

impl<F: FnMut(u64, Record)> Replay<'_, F> {
    async fn run(&mut self) -> Result<(), StoreError> {
        loop {
            let file = self.found.end / self.segment_bytes * self.segment_bytes;
            if !self.found.files.contains(&file) {
                return self.end_here(file, &[]).await;
            }
            let bytes = self.read_file(file).await?;
            if !self.replay_file(file, &bytes)? {
                return self.end_here(file, &bytes).await;
            }
        }
    }

    async fn read_file(&self, file: u64) -> Result<Buffer, StorageError> {
        let path = file_path(self.directory, file);
        let handle = self.disk.open(&path, OpenFlags::READ, 0).await?;
        let size = self.disk.stat_handle(&handle).await?.size;
        let len = size.min(self.segment_bytes) as usize;
        let (result, bytes) = self.disk.read(&handle, 0, Buffer::with_capacity(len), len).await;
        result.map(|_| bytes)
    }

    /// Replays the batches of one file from where the log stands; whether it goes on in the next.
    fn replay_file(&mut self, file: u64, bytes: &[u8]) -> Result<bool, StoreError> {
        loop {
            let at = (self.found.end - file) as usize;
            if at + BATCH_HEADER > self.segment_bytes as usize {
                self.found.end = file + self.segment_bytes;
                return Ok(true);
            }
            let Some(rest) = bytes.get(at..) else { return Ok(false) };
            let (header, groups) = match parse(rest, self.found.end) {
                Ok(batch) => batch,
                Err(BatchError::Absent) => return Ok(false),
                Err(BatchError::Newer(version)) => {
                    return Err(self.newer(format!("log batches of version {version}")));
                }
            };
            if header.incarnation < self.found.incarnation {
                return Ok(false);
            }
            self.apply_groups(file, at, groups)?;
            self.found.incarnation = header.incarnation;
            self.found.images = self.found.images.max(header.images);
            self.found.clean = header.flags & FLAG_CLEAN != 0;
            self.synced = self.synced.max(header.synced);
            if header.flags & FLAG_NEXT_FILE != 0 {
                self.found.end = file + self.segment_bytes;
                return Ok(true);
            }
            let end = self.found.end + (BATCH_HEADER + groups.len()) as u64;
            self.found.end = end.next_multiple_of(BATCH_ALIGNMENT);
        }
    }

    fn apply_groups(&mut self, file: u64, at: usize, groups: &[u8]) -> Result<(), StoreError> {
        let result = self.apply_all(groups);
        result.map_err(|error| match error {
            UNKNOWN_TAG => self.newer("log records of an unknown kind".to_owned()),
            _ => self.damaged(file, at as u64, "a log record that cannot be read"),
        })
    }

    fn apply_all(&mut self, groups: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(groups);
        while reader.remaining() > 0 {
            let len = u32::get(&mut reader)? as usize;
            let mut group = Reader::new(reader.take(len)?);
            while group.remaining() > 0 {
                let record = Record::get(&mut group)?;
                (self.apply)(self.found.end, record);
            }
        }
        Ok(())
    }

    /// Decides whether the log may end where it stands, looking for signs that it was durable
    /// beyond: `bytes` is the rest of its file, later files are read.
    async fn end_here(&mut self, file: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let at = self.found.end - file;
        let damaged = self.damaged(file, at, "a durable log batch is missing or torn");
        if self.found.end < self.synced || self.marks_beyond(file, at, bytes) {
            return Err(damaged);
        }
        let later: Vec<u64> = self.found.files.iter().copied().filter(|f| *f > file).collect();
        for next in later {
            let bytes = self.read_file(next).await?;
            if self.marks_beyond(next, 0, &bytes) {
                return Err(damaged);
            }
        }
        Ok(())
    }

    /// Whether a batch from `at` on says that the log was durable beyond its present end.
    fn marks_beyond(&self, file: u64, at: u64, bytes: &[u8]) -> bool {
        let offsets = (at as usize..bytes.len()).step_by(BATCH_ALIGNMENT as usize);
        offsets.filter(|offset| looks_like_batch(&bytes[*offset..])).any(|offset| {
            parse(&bytes[offset..], file + offset as u64)
                .is_ok_and(|(header, _)| header.synced > self.found.end)
        })
    }

    fn damaged(&self, file: u64, offset: u64, what: &'static str) -> StoreError {
        StoreError::Damaged { file: file_path(self.directory, file), offset, what }
    }

    fn newer(&self, what: String) -> StoreError {
        let what = format!("holds {what}; a newer RingFS wrote this store");
        StoreError::WrongStore { directory: self.directory.to_owned(), what }
    }
}
