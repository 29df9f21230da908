//! The kernel's file systems behind `StorageBackend`.
//!
//! What may block for long goes through the ring (or, under polling, through its thread pool).
//! What is answered from memory is called inline, because a ring round trip costs three to four
//! times such a call: look-ups of attributes, small buffered writes, small reads that the page
//! cache can serve, and everything that lies in a file system in memory, which never waits for a
//! device and for which a ring would only wake a thread. Operations hold the descriptor, so a dropped one never meets a reused number.

use std::cell::OnceCell;
use std::ffi::{CString, OsStr};
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::driver::op::{
    CreateDir, CurrentDir, OpenFile, ReadAt, Rename, Sync, TruncateFile, Unlink, WriteAt,
};
use rustix::fs::{self, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use super::activity;
use super::window::Window;
use crate::disk::{
    DirectoryItem, FileHandle, FileKind, FileStat, HandleKind, ReadOutcome, Space, StorageBackend,
};
use crate::{BUFFER_ALIGNMENT, Buffer, FailureContext, OpenFlags, Slice, StorageError};

/// Buffered writes up to this size are copied into the page cache inline.
const INLINE_WRITE_MAX: usize = 32 << 10;
/// Buffered reads up to this size first ask the page cache inline, without waiting for the device.
const INLINE_READ_MAX: usize = 64 << 10;

/// What `statfs` calls a file system in memory.
const TMPFS_MAGIC: fs::FsWord = 0x0102_1994;

/// An open descriptor and the path it was opened by, for error texts.
#[derive(Debug)]
pub(crate) struct File {
    descriptor: Arc<OwnedFd>,
    direct: bool,
    /// Whether it lies in a file system in memory; looked up when first asked.
    in_memory: OnceCell<bool>,
    path: Box<Path>,
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

/// Runs one operation through the ring.
async fn submit<O: compio::driver::OpCode + 'static>(operation: O) -> (Result<usize, Errno>, O) {
    let BufResult(result, operation) = compio::runtime::submit(operation).await;
    activity::note();
    let result = result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    (result, operation)
}

/// Runs a call that no ring operation covers where it may block.
pub(super) async fn offload<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    let result = compio::runtime::spawn_blocking(call).await;
    activity::note();
    // It cannot be cancelled here, and a panic of the call goes on.
    result.unwrap_or_else(|error| std::panic::panic_any(error.to_string()))
}

fn c_path(operation: &'static str, path: &Path) -> Result<CString, StorageError> {
    let bytes = path.as_os_str().as_bytes();
    CString::new(bytes).map_err(|_| StorageError::NotFound(FailureContext::new(operation, path)))
}

impl IoUringBackend {
    pub(crate) fn new() -> Self {
        IoUringBackend { _private: () }
    }

    async fn open_raw(
        &self,
        operation: &'static str,
        path: &Path,
        flags: OFlags,
        mode: u32,
    ) -> Result<OwnedFd, StorageError> {
        let mode = Mode::from_bits_truncate(mode);
        let open = OpenFile::new(CurrentDir, c_path(operation, path)?, flags, mode);
        let (result, open) = submit(open).await;
        at_path(operation, path, result)?;
        Ok(open.into_inner())
    }

    async fn sync(
        &self,
        operation: &'static str,
        handle: &FileHandle,
        data_only: bool,
    ) -> Result<(), StorageError> {
        let file = file_of(handle)?;
        let (result, _) = submit(Sync::new(file.descriptor.clone(), data_only)).await;
        at_path(operation, &file.path, result).map(|_| ())
    }

    async fn fallocate(
        &self,
        operation: &'static str,
        handle: &FileHandle,
        flags: FallocateFlags,
        (offset, len): (u64, u64),
    ) -> Result<(), StorageError> {
        let file = file_of(handle)?;
        let descriptor = file.descriptor.clone();
        let result = offload(move || fs::fallocate(&descriptor, flags, offset, len)).await;
        at_path(operation, &file.path, result)
    }
}

fn new_handle(descriptor: OwnedFd, direct: bool, path: &Path) -> FileHandle {
    let descriptor = Arc::new(descriptor);
    let in_memory = OnceCell::new();
    FileHandle(HandleKind::Uring(File { descriptor, direct, in_memory, path: path.into() }))
}

impl File {
    fn is_in_memory(&self) -> bool {
        *self.in_memory.get_or_init(|| {
            fs::fstatfs(&self.descriptor).is_ok_and(|found| found.f_type == TMPFS_MAGIC)
        })
    }

    /// Reads what the page cache holds; the count of bytes, and whether that is all there is.
    fn read_cached(&self, offset: u64, buffer: &mut Buffer, len: usize) -> (usize, bool) {
        let mut done = 0;
        // File systems in memory know no such flag.
        let flags = match self.is_in_memory() {
            true => ReadWriteFlags::empty(),
            false => ReadWriteFlags::NOWAIT,
        };
        while done < len {
            let part = &mut [IoSliceMut::new(&mut buffer[done..])];
            match rustix::io::preadv2(&self.descriptor, part, offset + done as u64, flags) {
                Ok(0) => return (done, true),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                // Not cached, or a file system without the flag. Real errors come again below.
                Err(_) => return (done, false),
            }
        }
        (done, true)
    }

    async fn read(
        &self,
        offset: u64,
        mut buffer: Buffer,
        len: usize,
    ) -> (Result<usize, Errno>, Buffer) {
        let mut done = 0;
        if !self.direct && (len <= INLINE_READ_MAX || self.is_in_memory()) {
            buffer.set_len(len);
            let (count, finished) = self.read_cached(offset, &mut buffer, len);
            if finished {
                return (Ok(count), buffer);
            }
            done = count;
        }
        while done < len {
            let window = Window::new(buffer, done..len);
            let read = ReadAt::new(self.descriptor.clone(), offset + done as u64, window);
            let (result, read) = submit(read).await;
            buffer = read.into_inner().buffer;
            match result {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return (Err(errno), buffer),
            }
            // A direct transfer that ends unaligned has met the end of the file.
            if self.direct && !done.is_multiple_of(BUFFER_ALIGNMENT) {
                break;
            }
        }
        (Ok(done), buffer)
    }

    async fn write(&self, offset: u64, mut data: Slice) -> Result<(), Errno> {
        if !self.direct && (data.len() <= INLINE_WRITE_MAX || self.is_in_memory()) {
            let mut done = 0;
            while done < data.len() {
                match rustix::io::pwrite(&self.descriptor, &data[done..], offset + done as u64) {
                    Ok(0) => return Err(Errno::IO),
                    Ok(count) => done += count,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            return Ok(());
        }
        let mut done = 0;
        let len = data.len();
        while done < len {
            let rest = IoBuf::slice(data, done..);
            let write = WriteAt::new(self.descriptor.clone(), offset + done as u64, rest);
            let (result, write) = submit(write).await;
            data = write.into_inner().into_inner();
            match result {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn list_names(path: &Path) -> Result<Vec<DirectoryItem>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = fs::open(path, flags, Mode::empty())?;
    let mut items = Vec::new();
    for entry in fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let mut file_type = entry.file_type();
        if file_type == fs::FileType::Unknown {
            let stat = fs::statat(&directory, entry.file_name(), fs::AtFlags::SYMLINK_NOFOLLOW)?;
            file_type = fs::FileType::from_raw_mode(stat.st_mode);
        }
        let name = OsStr::from_bytes(name).to_owned();
        items.push(DirectoryItem { name, kind: kind_of(file_type) });
    }
    items.sort();
    Ok(items)
}

impl StorageBackend for IoUringBackend {
    async fn open(
        &self,
        path: &Path,
        flags: OpenFlags,
        mode: u32,
    ) -> Result<FileHandle, StorageError> {
        let linux = OFlags::from_bits_retain(flags.to_linux_flags().cast_unsigned());
        Ok(new_handle(self.open_raw("open", path, linux, mode).await?, flags.direct, path))
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
        buffer.set_len(0);
        let file = match file_of(file) {
            Ok(file) => file,
            Err(error) => return (Err(error), buffer),
        };
        if buffer.capacity() < len {
            let context = FailureContext::new("read", &file.path);
            return (Err(StorageError::BufferTooSmall(context)), buffer);
        }
        let (result, mut buffer) = file.read(offset, buffer, len).await;
        buffer.set_len(result.unwrap_or(0));
        (at_path("read", &file.path, result), buffer)
    }

    async fn write(&self, file: &FileHandle, offset: u64, data: Slice) -> Result<(), StorageError> {
        let file = file_of(file)?;
        at_path("write", &file.path, file.write(offset, data).await)
    }

    async fn create(&self, path: &Path, mode: u32) -> Result<FileHandle, StorageError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(new_handle(self.open_raw("create", path, flags, mode).await?, false, path))
    }

    async fn unlink(&self, path: &Path) -> Result<(), StorageError> {
        let unlink = Unlink::new(CurrentDir, c_path("unlink", path)?, false);
        at_path("unlink", path, submit(unlink).await.0).map(|_| ())
    }

    async fn stat(&self, path: &Path) -> Result<FileStat, StorageError> {
        at_path("stat", path, fs::lstat(path)).map(|stat| stat_of(&stat))
    }

    async fn mkdir(&self, path: &Path, mode: u32) -> Result<(), StorageError> {
        let mode = Mode::from_bits_truncate(mode);
        let mkdir = CreateDir::new(CurrentDir, c_path("mkdir", path)?, mode);
        at_path("mkdir", path, submit(mkdir).await.0).map(|_| ())
    }

    async fn rmdir(&self, path: &Path) -> Result<(), StorageError> {
        let rmdir = Unlink::new(CurrentDir, c_path("rmdir", path)?, true);
        at_path("rmdir", path, submit(rmdir).await.0).map(|_| ())
    }

    async fn fsync(&self, file: &FileHandle) -> Result<(), StorageError> {
        self.sync("fsync", file, false).await
    }

    async fn stat_handle(&self, file: &FileHandle) -> Result<FileStat, StorageError> {
        let file = file_of(file)?;
        at_path("stat", &file.path, fs::fstat(&file.descriptor)).map(|stat| stat_of(&stat))
    }

    async fn sync_data(&self, file: &FileHandle) -> Result<(), StorageError> {
        self.sync("sync data", file, true).await
    }

    async fn sync_directory(&self, path: &Path) -> Result<(), StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = self.open_raw("sync directory", path, flags, 0).await?;
        let (result, _) = submit(Sync::new(directory, false)).await;
        at_path("sync directory", path, result).map(|_| ())
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        let (source, target) = (c_path("rename", from)?, c_path("rename", to)?);
        let rename = Rename::new(CurrentDir, source, CurrentDir, target);
        at_path("rename", from, submit(rename).await.0).map(|_| ())
    }

    async fn truncate(&self, file: &FileHandle, len: u64) -> Result<(), StorageError> {
        let file = file_of(file)?;
        let truncate = TruncateFile::new(file.descriptor.clone(), len);
        at_path("truncate", &file.path, submit(truncate).await.0).map(|_| ())
    }

    async fn punch(&self, file: &FileHandle, offset: u64, len: u64) -> Result<(), StorageError> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        self.fallocate("punch", file, flags, (offset, len)).await
    }

    async fn allocate(&self, file: &FileHandle, offset: u64, len: u64) -> Result<(), StorageError> {
        self.fallocate("allocate", file, FallocateFlags::empty(), (offset, len)).await
    }

    async fn list(&self, path: &Path) -> Result<Vec<DirectoryItem>, StorageError> {
        let owned = path.to_owned();
        at_path("list", path, offload(move || list_names(&owned)).await)
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
