//! Which segments there were when the store was closed in order.
//!
//! A segment that vanished while nobody looked would read as a hole. The list is written at the end
//! of a life and believed only at the start of the next; after anything but an orderly end there is
//! none, and what the disk shows is all that is known. Little-endian: magic, incarnation, count
//! `u32`, then inode `u64` and run `u32` of each, crc32c of all before.

use std::path::Path;

use ringfs_platform::{Buffer, Disk, OpenFlags, StorageError};
use ringfs_wire::{DecodeError, InodeNumber, Reader, Wire};

use super::{Chunks, Key};
use crate::format::{checked, replace_small};

const NAME: &str = "segments.list";
const MAGIC: u64 = u64::from_le_bytes(*b"RingSegs");

impl Chunks {
    /// Writes the list at the end of the life `incarnation`, durably.
    pub(crate) async fn write_manifest(
        &self,
        directory: &Path,
        incarnation: u64,
    ) -> Result<(), StorageError> {
        let mut out = Vec::new();
        MAGIC.put(&mut out);
        incarnation.put(&mut out);
        let keys = self.keys_after((InodeNumber(0), 0), usize::MAX);
        keys.put(&mut out);
        replace_small(&self.disk, directory, NAME, out).await
    }

    /// At the start of the life after `incarnation`: counts on every segment that was there at its
    /// end. Those that are missing are met by whoever uses them, and by checks.
    pub(crate) async fn expect_manifest(&self, directory: &Path, incarnation: u64) {
        let path = directory.join(NAME);
        let keys = match read(&self.disk, &path).await.map(|b| b.map(|bytes| parse(&bytes))) {
            Ok(Some(Ok((of, keys)))) if of == incarnation => keys,
            Ok(None | Some(Ok(_))) => return,
            Ok(Some(Err(_))) | Err(_) => {
                let file = path.display();
                tracing::error!(%file, "cannot be read; segments that are gone will not be missed");
                return;
            }
        };
        for key in keys.into_iter().filter(|key| !self.exists(*key)) {
            tracing::error!(file = %self.path(key).display(), "a segment is gone from the disk");
            self.segments.borrow_mut().entry(key.0).or_default().insert(key.1);
        }
    }

    /// Stops counting on a segment that is not on the disk: what it held reads as zeros from now
    /// on. False if it is there, or unknown.
    pub(crate) async fn forget_missing(&self, key: Key) -> Result<bool, StorageError> {
        match self.disk.stat(&self.path(key)).await {
            Err(StorageError::NotFound(_)) if self.exists(key) => {}
            Err(StorageError::NotFound(_)) | Ok(_) => return Ok(false),
            Err(error) => return Err(error),
        }
        self.open.borrow_mut().pop(&key);
        self.forget(key);
        Ok(true)
    }
}

async fn read(disk: &Disk, path: &Path) -> Result<Option<Buffer>, StorageError> {
    let file = match disk.open(path, OpenFlags::READ, 0).await {
        Ok(file) => file,
        Err(StorageError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = disk.stat_handle(&file).await?.size as usize;
    let (result, bytes) = disk.read(&file, 0, Buffer::with_capacity(len), len).await;
    result.map(|_| Some(bytes))
}

fn parse(bytes: &[u8]) -> Result<(u64, Vec<Key>), DecodeError> {
    let mut reader = Reader::new(checked(bytes)?);
    if u64::get(&mut reader)? != MAGIC {
        return Err(DecodeError::Invalid("magic"));
    }
    let manifest = (u64::get(&mut reader)?, Vec::get(&mut reader)?);
    reader.finish()?;
    Ok(manifest)
}

impl crate::Store {
    /// Stops counting on a segment that is not on the disk; false if it is there, or unknown.
    pub async fn forget_missing_segment(
        &self,
        inode: InodeNumber,
        run: u32,
    ) -> Result<bool, crate::StoreError> {
        let engine = self.engine();
        let _guard = engine.chunk_locks.exclusive(inode).await;
        Ok(engine.chunks.forget_missing((inode, run)).await?)
    }
}
