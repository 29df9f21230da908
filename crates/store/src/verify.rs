//! Reading the files of an open store again: do the disks still hold what was written?
//!
//! Settings, snapshot and log are read whole and their checksums compared; of the slab only the
//! lengths can be checked. It goes page by page beside everything else: a file that a newer
//! snapshot has taken away meanwhile is no damage, reading goes on in what took its place. Nothing
//! is repaired and nothing stopped here.

use std::path::{Path, PathBuf};

use ringfs_platform::{Buffer, OpenFlags, StorageError};
use ringfs_wire::{Damage, DamageKind, DecodeError, Reader, VerifyCursor, VerifyPage, Wire};

use crate::error::StoreError;
use crate::format;
use crate::heads;
use crate::log::{self, Walked};
use crate::record::Record;
use crate::snapshot;
use crate::store::{Engine, Store};

/// Bytes read for one page, about.
const PAGE_BYTES: u64 = 16 << 20;

/// Stages, in this order; 0 are the settings.
const SNAPSHOT: u8 = 1;
const LOG: u8 = 2;
const SLAB: u8 = 3;

impl Store {
    /// Reads some of the store's files from `cursor` on. The default cursor starts; a cursor that
    /// makes no sense does as well.
    pub async fn verify(&self, cursor: VerifyCursor) -> Result<VerifyPage, StoreError> {
        let engine = self.engine();
        match cursor.stage {
            SNAPSHOT => engine.verify_snapshot(cursor).await,
            LOG => engine.verify_log(cursor).await,
            SLAB => engine.verify_slab().await,
            _ => engine.verify_settings().await,
        }
    }
}

/// Damage as a page tells it.
pub(crate) fn damage(path: &Path, offset: u64, kind: DamageKind) -> Damage {
    Damage { file: path.as_os_str().as_encoded_bytes().to_vec(), offset, kind }
}

/// Decodes records, one after another.
pub(crate) fn check_records(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 {
        Record::get(&mut reader)?;
    }
    Ok(())
}

impl Engine {
    async fn verify_settings(&self) -> Result<VerifyPage, StoreError> {
        let mut damages = Vec::new();
        for (path, is_whole) in format::verify(&self.disk, &self.directory).await? {
            if !is_whole {
                damages.push(damage(&path, 0, DamageKind::Checksum));
            }
        }
        Ok(VerifyPage { damages, bytes: 0, next: Some(self.snapshot_cursor()) })
    }

    /// Where reading goes on after the settings: the newest snapshot, or the log's beginning.
    fn snapshot_cursor(&self) -> VerifyCursor {
        match self.snapshot_position.get() {
            0 => VerifyCursor { stage: LOG, file: 0, offset: 0 },
            file => VerifyCursor { stage: SNAPSHOT, file, offset: 0 },
        }
    }

    async fn verify_snapshot(&self, cursor: VerifyCursor) -> Result<VerifyPage, StoreError> {
        let VerifyCursor { file, offset, .. } = cursor;
        let to_log = VerifyCursor { stage: LOG, file, offset: 0 };
        let page = |damages, bytes, next| VerifyPage { damages, bytes, next: Some(next) };
        let read = snapshot::verify(&self.disk, &self.directory, file, offset, PAGE_BYTES).await;
        match read {
            Ok((end, true)) => Ok(page(Vec::new(), end - offset, to_log)),
            Ok((end, false)) => {
                Ok(page(Vec::new(), end - offset, VerifyCursor { offset: end, ..cursor }))
            }
            // A newer one has taken its place.
            Err(_) if self.snapshot_position.get() != file => {
                Ok(page(Vec::new(), 0, self.snapshot_cursor()))
            }
            Err((path, offset, kind)) => Ok(page(vec![damage(&path, offset, kind)], 0, to_log)),
        }
    }

    /// One log file, from the position in the cursor up to what is written.
    async fn verify_log(&self, cursor: VerifyCursor) -> Result<VerifyPage, StoreError> {
        let position = cursor.file.max(self.snapshot_position.get());
        let written = self.log.written_to();
        let done = VerifyCursor { stage: SLAB, file: 0, offset: 0 };
        if position >= written {
            return Ok(VerifyPage { damages: Vec::new(), bytes: 0, next: Some(done) });
        }
        let start = self.log.file_start(position);
        let following = start + self.log.segment_bytes();
        let next = |position| match position < written {
            true => VerifyCursor { stage: LOG, file: position, offset: 0 },
            false => done,
        };
        let path = log::file_path(&self.directory, start);
        let (walked, bytes) = match self.read_log_file(&path, self.log.segment_bytes()).await {
            Ok(bytes) => {
                let len = bytes.len() as u64;
                (log::walk(&bytes, start, position, written, self.log.segment_bytes()), len)
            }
            Err(error) => (Walked::Damaged(position, kind_of(&error)), 0),
        };
        let (damages, next) = match walked {
            Walked::To(end) => (Vec::new(), next(end)),
            // A newer snapshot has made it superfluous.
            Walked::Damaged(..) if self.snapshot_position.get() > position => {
                (Vec::new(), self.snapshot_cursor())
            }
            // Where the next batch begins is not known any more, but in the next file it is.
            Walked::Damaged(at, kind) => (vec![damage(&path, at - start, kind)], next(following)),
        };
        Ok(VerifyPage { damages, bytes, next: Some(next) })
    }

    async fn read_log_file(&self, path: &Path, len: u64) -> Result<Buffer, StorageError> {
        let file = self.disk.open(path, OpenFlags::READ, 0).await?;
        let buffer = Buffer::with_capacity(len as usize);
        let (result, bytes) = self.disk.read(&file, 0, buffer, len as usize).await;
        result.map(|_| bytes)
    }

    /// The slab files have the bytes that were given to slots.
    async fn verify_slab(&self) -> Result<VerifyPage, StoreError> {
        let mut damages = Vec::new();
        for (class, end) in self.heads.lengths().into_iter().filter(|(_, len)| *len > 0) {
            let path: PathBuf = heads::file_path(&self.directory, class);
            match self.disk.stat(&path).await {
                Ok(stat) if stat.size >= end => {}
                Ok(stat) => damages.push(damage(&path, stat.size, DamageKind::Short)),
                Err(error) => damages.push(damage(&path, 0, kind_of(&error))),
            }
        }
        Ok(VerifyPage { damages, bytes: 0, next: None })
    }
}

/// What a failed read of a file that must be there says about it.
pub(crate) fn kind_of(error: &StorageError) -> DamageKind {
    match error {
        StorageError::NotFound(_) => DamageKind::Missing,
        _ => DamageKind::Unreadable,
    }
}
