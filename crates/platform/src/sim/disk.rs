//! A simulated disk.

use std::path::Path;

use crate::disk::{DirectoryItem, FileHandle, FileStat, ReadOutcome, Space, StorageBackend};
use crate::{Buffer, FailureContext, OpenFlags, Slice, StorageError};

/// An open file of a simulated disk.
#[derive(Debug)]
pub(crate) struct File;

/// The disk of a simulated node.
#[derive(Clone, Debug)]
pub struct SimulatedBackend {
    _private: (),
}

impl SimulatedBackend {
    pub(super) fn new() -> Self {
        SimulatedBackend { _private: () }
    }
}

fn unsupported() -> StorageError {
    StorageError::Unsupported(FailureContext::without_path("simulate"))
}

impl StorageBackend for SimulatedBackend {
    async fn open(
        &self,
        _path: &Path,
        _flags: OpenFlags,
        _mode: u32,
    ) -> Result<FileHandle, StorageError> {
        Err(unsupported())
    }
    async fn close(&self, _file: FileHandle) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn read(
        &self,
        _file: &FileHandle,
        _offset: u64,
        buffer: Buffer,
        _len: usize,
    ) -> ReadOutcome {
        (Err(unsupported()), buffer)
    }
    async fn write(
        &self,
        _file: &FileHandle,
        _offset: u64,
        _data: Slice,
    ) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn create(&self, _path: &Path, _mode: u32) -> Result<FileHandle, StorageError> {
        Err(unsupported())
    }
    async fn unlink(&self, _path: &Path) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn stat(&self, _path: &Path) -> Result<FileStat, StorageError> {
        Err(unsupported())
    }
    async fn mkdir(&self, _path: &Path, _mode: u32) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn rmdir(&self, _path: &Path) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn fsync(&self, _file: &FileHandle) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn stat_handle(&self, _file: &FileHandle) -> Result<FileStat, StorageError> {
        Err(unsupported())
    }
    async fn sync_data(&self, _file: &FileHandle) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn sync_directory(&self, _path: &Path) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn rename(&self, _from: &Path, _to: &Path) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn truncate(&self, _file: &FileHandle, _len: u64) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn punch(&self, _file: &FileHandle, _offset: u64, _len: u64) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn allocate(
        &self,
        _file: &FileHandle,
        _offset: u64,
        _len: u64,
    ) -> Result<(), StorageError> {
        Err(unsupported())
    }
    async fn list(&self, _path: &Path) -> Result<Vec<DirectoryItem>, StorageError> {
        Err(unsupported())
    }
    async fn next_data(
        &self,
        _file: &FileHandle,
        _offset: u64,
    ) -> Result<Option<u64>, StorageError> {
        Err(unsupported())
    }
    async fn next_hole(&self, _file: &FileHandle, _offset: u64) -> Result<u64, StorageError> {
        Err(unsupported())
    }
    async fn space(&self, _path: &Path) -> Result<Space, StorageError> {
        Err(unsupported())
    }
    async fn lock(&self, _file: &FileHandle) -> Result<(), StorageError> {
        Err(unsupported())
    }
}
