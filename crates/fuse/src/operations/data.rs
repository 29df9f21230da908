//! The bytes of files.

use std::time::Duration;

use ringfs_client::OpenFile;
use ringfs_platform::Slice;
use ringfs_wire::{Errno, InodeNumber};

use crate::abi::{
    CopyFileRangeIn, CopyFileRangeOut, FallocateIn, InHeader, LseekIn, LseekOut, READ_LOCKOWNER,
    ReadIn, Reply, WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn, WriteOut, allocate, open, seek,
};
use crate::failure::{Failure, gone_is_stale};
use crate::kernel_cache::Answer;
use crate::operations::Outcome;
use crate::worker::Worker;

/// Bytes moved at a time by a copy within the mount.
const COPY_PIECE: u64 = 1 << 20;
/// Bytes moved by one COPY_FILE_RANGE, so that it ends within its deadline; programs go on where
/// it ended.
const COPY_MAX: u64 = 64 << 20;

/// How often a READ that fills pages asks again for a lease that is contested.
const LEASE_ATTEMPTS: u32 = 200;
/// The pause between two such attempts.
const LEASE_PAUSE: Duration = Duration::from_millis(5);

impl Worker {
    pub(crate) async fn read(&self, inode: InodeNumber, arguments: &ReadIn) -> Outcome {
        let mut file = self.file(arguments.handle).await?;
        if arguments.flags & open::NO_ACCESS_TIME != 0 {
            file = file.without_access_time();
        }
        let fills_pages = arguments.read_flags & READ_LOCKOWNER == 0;
        let unleased = self.mount.caching && fills_pages && !self.lease_pages(inode).await?;
        let (offset, size) = (arguments.offset, arguments.size as usize);
        let read = match fills_pages {
            true => file.read_first(offset, size).await,
            // The kernel reads nothing ahead here.
            false => file.read_on(offset, size).await,
        };
        let reply = Reply::bulk(read.map_err(gone_is_stale)?);
        Ok(if unleased { Answer::Unleased(reply, inode) } else { reply.into() })
    }

    /// Whether what the kernel may cache of a READ is under a lease. A file that others change all
    /// the time is read without one in the end.
    async fn lease_pages(&self, inode: InodeNumber) -> Result<bool, Failure> {
        for _ in 0..LEASE_ATTEMPTS {
            if self.client.content_lease(inode).await.map_err(gone_is_stale)?.is_some() {
                return Ok(true);
            }
            if self.mount.promises.may_read_unleased(inode) {
                return Ok(false);
            }
            self.platform.sleep(LEASE_PAUSE).await;
        }
        Ok(false)
    }

    pub(crate) async fn write(
        &self,
        header: &InHeader,
        arguments: &WriteIn,
        data: Slice,
    ) -> Outcome {
        let file = self.file(arguments.handle).await?;
        if arguments.write_flags & WRITE_KILL_SUIDGID != 0 {
            self.kill_privileges(header, &file, arguments.handle).await?;
        }
        let is_writeback = arguments.write_flags & WRITE_CACHE != 0;
        let is_append = arguments.flags & open::APPEND != 0;
        if is_writeback {
            file.write_back(arguments.offset, data).await
        } else if is_append {
            file.append(data).await.map(drop)
        } else {
            file.write(arguments.offset, data).await
        }
        .map_err(gone_is_stale)?;
        if arguments.write_flags & WRITE_KILL_SUIDGID != 0 {
            self.kill_late_privileges(header, &file).await?;
        }
        // The kernel leaves this to whoever serves writes that pass the page cache.
        if arguments.flags & open::DATA_SYNC != 0 {
            file.sync().await.map_err(gone_is_stale)?;
        }
        Ok(Reply::of(&WriteOut { size: arguments.size, padding: 0 }).into())
    }

    pub(crate) async fn copy_file_range(
        &self,
        header: &InHeader,
        wanted: &CopyFileRangeIn,
        wide: bool,
    ) -> Outcome {
        let source = self.file(wanted.handle_in).await?;
        let target = self.file(wanted.handle_out).await?;
        if header.uid != 0 {
            self.kill_privileges(header, &target, wanted.handle_out).await?;
        }
        let len = wanted.len.min(COPY_MAX);
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(COPY_PIECE) as usize;
            let copied = self.copy_piece(&source, &target, wanted, done, piece).await;
            match copied {
                Ok(0) => break,
                Ok(count) => done += count,
                // What was copied counts; the next call meets the error again.
                Err(_) if done > 0 => break,
                Err(failure) => return Err(failure),
            }
        }
        if header.uid != 0 {
            self.kill_late_privileges(header, &target).await?;
        }
        Ok(if wide {
            Reply::of(&CopyFileRangeOut { bytes_copied: done }).into()
        } else {
            Reply::of(&WriteOut { size: done as u32, padding: 0 }).into()
        })
    }

    async fn copy_piece(
        &self,
        source: &OpenFile,
        target: &OpenFile,
        wanted: &CopyFileRangeIn,
        done: u64,
        len: usize,
    ) -> Result<u64, Failure> {
        let overflow = Errno::EOVERFLOW;
        let from = wanted.offset_in.checked_add(done).ok_or(overflow)?;
        let to = wanted.offset_out.checked_add(done).ok_or(overflow)?;
        let bytes = source.read(from, len).await.map_err(gone_is_stale)?;
        let count = bytes.len() as u64;
        if count > 0 {
            target.write(to, bytes).await.map_err(gone_is_stale)?;
        }
        Ok(count)
    }

    pub(crate) async fn fallocate(&self, header: &InHeader, arguments: &FallocateIn) -> Outcome {
        let inode = InodeNumber(header.node);
        let FallocateIn { handle, offset, length, mode, .. } = *arguments;
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64);
        let range = offset..end.ok_or(Errno::EFBIG)?;
        let file = self.file(handle).await?;
        // The kernel says nothing about privileges here or in a copy.
        if header.uid != 0 {
            self.kill_privileges(header, &file, handle).await?;
        }
        let keep_size = mode & allocate::KEEP_SIZE != 0;
        match mode & !allocate::KEEP_SIZE {
            0 => file.allocate(range, keep_size).await,
            allocate::PUNCH_HOLE if keep_size => file.punch(range).await,
            allocate::ZERO_RANGE => file.zero(range, keep_size).await,
            _ => return Err(Errno::EOPNOTSUPP.into()),
        }
        .map_err(gone_is_stale)?;
        if header.uid != 0 {
            self.kill_late_privileges(header, &file).await?;
        }
        if keep_size {
            // For this change Linux would still believe attributes that it asked for before.
            self.drop_attributes(inode).await;
        }
        Ok(Reply::empty().into())
    }

    pub(crate) async fn lseek(&self, arguments: &LseekIn) -> Outcome {
        let LseekIn { handle, offset, whence, .. } = *arguments;
        let file = self.file(handle).await?;
        let offset = match whence {
            seek::DATA => file.seek_data(offset).await,
            seek::HOLE => file.seek_hole(offset).await,
            _ => return Err(Errno::EINVAL.into()),
        }
        .map_err(gone_is_stale)?;
        Ok(Reply::of(&LseekOut { offset }).into())
    }
}
