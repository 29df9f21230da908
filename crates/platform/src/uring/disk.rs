//! The kernel's file systems behind `StorageBackend`.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{self, AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::disk::{
    DirectoryItem, FileHandle, FileKind, FileStat, HandleKind, ReadOutcome, Space, StorageBackend,
};
use crate::{Buffer, FailureContext, OpenFlags, Slice, StorageError};

/// An open descriptor and the path it was opened by, for error texts.
#[derive(Debug)]
pub(crate) struct File {
    descriptor: Rc<OwnedFd>,
    path: Rc<Path>,
}

/// The real disk.
#[derive(Clone, Debug)]
pub struct IoUringBackend {
    _private: (),
}

fn file_of(handle: &FileHandle) -> Result<&File, StorageError> {
    match &handle.0 {
        HandleKind::Uring(file) => Ok(file),
        #[cfg(feature = "sim")]
        HandleKind::Simulated(_) => {
            Err(StorageError::InvalidHandle(FailureContext::without_path("use file")))
        }
    }
}

fn at_path<T>(
    operation: &'static str,
    path: &Path,
    result: Result<T, Errno>,
) -> Result<T, StorageError> {
    result.map_err(|errno| {
        StorageError::from_errno(errno.raw_os_error(), FailureContext::new(operation, path))
    })
}

fn kind_of(file_type: fs::FileType) -> FileKind {
    match file_type {
        fs::FileType::RegularFile => FileKind::File,
        fs::FileType::Directory => FileKind::Directory,
        fs::FileType::Symlink => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

fn stat_of(stat: &fs::Stat) -> FileStat {
    FileStat {
        size: stat.st_size.max(0).cast_unsigned(),
        allocated_bytes: stat.st_blocks.max(0).cast_unsigned() * 512,
        mode: stat.st_mode & 0o7777,
        kind: kind_of(fs::FileType::from_raw_mode(stat.st_mode)),
        modified: Duration::new(
            stat.st_mtime.max(0).cast_unsigned(),
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
    }
}

impl IoUringBackend {
    pub(crate) fn new() -> Self {
        IoUringBackend { _private: () }
    }

    fn open_raw(
        &self,
        operation: &'static str,
        path: &Path,
        flags: OFlags,
        mode: u32,
    ) -> Result<FileHandle, StorageError> {
        let mode = Mode::from_bits_truncate(mode);
        let descriptor = at_path(operation, path, fs::open(path, flags, mode))?;
        Ok(FileHandle(HandleKind::Uring(File {
            descriptor: Rc::new(descriptor),
            path: Rc::from(path),
        })))
    }
}

impl StorageBackend for IoUringBackend {
    async fn open(
        &self,
        path: &Path,
        flags: OpenFlags,
        mode: u32,
    ) -> Result<FileHandle, StorageError> {
        let flags = OFlags::from_bits_retain(flags.to_linux_flags().cast_unsigned());
        self.open_raw("open", path, flags, mode)
    }

    async fn close(&self, file: FileHandle) -> Result<(), StorageError> {
        file_of(&file)?;
        drop(file);
        Ok(())
    }

    async fn read(
        &self,
        file: &FileHandle,
        offset: u64,
        mut buffer: Buffer,
        len: usize,
    ) -> ReadOutcome {
        let file = match file_of(file) {
            Ok(file) => file,
            Err(error) => return (Err(error), buffer),
        };
        buffer.set_len(0);
        if buffer.capacity() < len {
            let context = FailureContext::new("read", &file.path);
            return (Err(StorageError::BufferTooSmall(context)), buffer);
        }
        buffer.set_len(len);
        let mut done = 0;
        while done < len {
            match rustix::io::pread(&file.descriptor, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => {
                    buffer.set_len(0);
                    return (at_path("read", &file.path, Err(errno)), buffer);
                }
            }
        }
        buffer.set_len(done);
        (Ok(done), buffer)
    }

    async fn write(&self, file: &FileHandle, offset: u64, data: Slice) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let mut done = 0;
        while done < data.len() {
            match rustix::io::pwrite(&file.descriptor, &data[done..], offset + done as u64) {
                Ok(0) => return at_path("write", &file.path, Err(Errno::IO)),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return at_path("write", &file.path, Err(errno)),
            }
        }
        Ok(())
    }

    async fn create(&self, path: &Path, mode: u32) -> Result<FileHandle, StorageError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        self.open_raw("create", path, flags, mode)
    }

    async fn unlink(&self, path: &Path) -> Result<(), StorageError> {
        at_path("unlink", path, fs::unlink(path))
    }

    async fn stat(&self, path: &Path) -> Result<FileStat, StorageError> {
        at_path("stat", path, fs::lstat(path)).map(|stat| stat_of(&stat))
    }

    async fn mkdir(&self, path: &Path, mode: u32) -> Result<(), StorageError> {
        at_path("mkdir", path, fs::mkdir(path, Mode::from_bits_truncate(mode)))
    }

    async fn rmdir(&self, path: &Path) -> Result<(), StorageError> {
        at_path("rmdir", path, fs::unlinkat(CWD, path, AtFlags::REMOVEDIR))
    }

    async fn fsync(&self, file: &FileHandle) -> Result<(), StorageError> {
        let file = file_of(file)?;
        at_path("fsync", &file.path, fs::fsync(&file.descriptor))
    }

    async fn stat_handle(&self, file: &FileHandle) -> Result<FileStat, StorageError> {
        let file = file_of(file)?;
        at_path("stat", &file.path, fs::fstat(&file.descriptor)).map(|stat| stat_of(&stat))
    }

    async fn sync_data(&self, file: &FileHandle) -> Result<(), StorageError> {
        let file = file_of(file)?;
        at_path("sync data", &file.path, fs::fdatasync(&file.descriptor))
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = at_path("sync directory", path, fs::open(path, flags, Mode::empty()))?;
        at_path("sync directory", path, fs::fsync(&directory))
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        at_path("rename", from, fs::rename(from, to))
    }

    async fn truncate(&self, file: &FileHandle, len: u64) -> Result<(), StorageError> {
        let file = file_of(file)?;
        at_path("truncate", &file.path, fs::ftruncate(&file.descriptor, len))
    }

    async fn punch(&self, file: &FileHandle, offset: u64, len: u64) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        at_path("punch", &file.path, fs::fallocate(&file.descriptor, flags, offset, len))
    }

    async fn allocate(&self, file: &FileHandle, offset: u64, len: u64) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let flags = FallocateFlags::empty();
        at_path("allocate", &file.path, fs::fallocate(&file.descriptor, flags, offset, len))
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryItem>, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = at_path("list", path, fs::open(path, flags, Mode::empty()))?;
        let mut items = Vec::new();
        for entry in at_path("list", path, fs::Dir::read_from(&directory))? {
            let entry = at_path("list", path, entry)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = OsStr::from_bytes(name).to_owned();
                items.push(DirectoryItem { name, kind: kind_of(entry.file_type()) });
            }
        }
        items.sort();
        Ok(items)
    }

    async fn next_data(&self, file: &FileHandle, offset: u64) -> Result<Option<u64>, StorageError> {
        let file = file_of(file)?;
        match fs::seek(&file.descriptor, SeekFrom::Data(offset)) {
            Err(Errno::NXIO) => Ok(None),
            result => at_path("seek data", &file.path, result).map(Some),
        }
    }

    async fn next_hole(&self, file: &FileHandle, offset: u64) -> Result<u64, StorageError> {
        let file = file_of(file)?;
        match fs::seek(&file.descriptor, SeekFrom::Hole(offset)) {
            Err(Errno::NXIO) => at_path("seek hole", &file.path, Err(Errno::INVAL)),
            result => at_path("seek hole", &file.path, result),
        }
    }

    async fn space(&self, path: &Path) -> Result<Space, StorageError> {
        let stat = at_path("read space of", path, fs::statvfs(path))?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    async fn lock(&self, file: &FileHandle) -> Result<(), StorageError> {
        let file = file_of(file)?;
        match fs::flock(&file.descriptor, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                Err(StorageError::AlreadyExists(FailureContext::new("lock", &file.path)))
            }
            result => at_path("lock", &file.path, result),
        }
    }
}
