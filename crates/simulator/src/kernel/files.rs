//! System calls about the attributes and contents of one inode.
//!
//! Cached handles read through pages and write through them to the mount; direct ones go past the
//! pages. A page that is being read or written is busy, and whoever wants it waits.

use std::ops::Range;

use ringfs_wire::{Errno, InodeNumber};

use super::abi::{self, Attr, Opcode, Reader, Writer};
use super::cache::{PAGE, pages_of};
use super::connection::Kernel;
use crate::operation::Space;

/// Most bytes of one read request.
const READ_LEN_MAX: u64 = 128 << 10;
/// Pages read ahead of what was asked for.
const READ_AHEAD_PAGES: u64 = 4;

/// An open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct File {
    pub(crate) inode: InodeNumber,
    pub(super) handle: u64,
    /// Whose locks go when it is closed; zero for nobody's.
    pub(super) owner: u64,
    is_direct: bool,
}

impl File {
    /// The same file, in the hands of somebody who locks.
    pub(crate) fn owned_by(self, owner: u64) -> Self {
        Self { owner, ..self }
    }
}

/// Pages that are busy until this is dropped.
struct Busy<'a> {
    kernel: &'a Kernel,
    inode: InodeNumber,
    pages: Range<u64>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.kernel.cache.borrow_mut().unlock_pages(self.inode, &self.pages);
        self.kernel.changed.notify();
    }
}

/// What a change of attributes sets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) mode: Option<u32>,
    pub(crate) size: Option<u64>,
    /// Access and modification time, in seconds.
    pub(crate) times: Option<(u32, u32)>,
    /// Through this open file.
    pub(crate) file: Option<File>,
}

impl Kernel {
    async fn make_busy(&self, inode: InodeNumber, pages: Range<u64>) -> Busy<'_> {
        let lock = || self.cache.borrow_mut().try_lock_pages(inode, &pages).then_some(());
        self.changed.until(lock).await;
        Busy { kernel: self, inode, pages }
    }

    /// open(2) for reading and writing.
    pub(crate) async fn open(&self, inode: InodeNumber) -> Result<File, Errno> {
        self.open_as(inode, abi::READ_WRITE).await
    }

    /// open(2) for reading.
    pub(crate) async fn open_to_read(&self, inode: InodeNumber) -> Result<File, Errno> {
        self.open_as(inode, abi::READ_ONLY).await
    }

    async fn open_as(&self, inode: InodeNumber, flags: u32) -> Result<File, Errno> {
        let mut body = Writer::default();
        body.u32(flags).u32(0);
        let (handle, flags) =
            self.ask(Opcode::Open, inode, &body.0, |reader| reader.opened()).await?;
        Ok(self.opened(inode, handle, flags).await)
    }

    /// What every open does in the end: pages go, unless the mount vouches for them.
    pub(super) async fn opened(&self, inode: InodeNumber, handle: u64, flags: u32) -> File {
        let is_direct = flags & abi::OPEN_DIRECT != 0;
        if !is_direct && flags & abi::OPEN_KEEP_CACHE == 0 {
            let pages = 0..u64::MAX;
            let are_idle = || self.cache.borrow_mut().are_idle(inode, &pages).then_some(());
            self.changed.until(are_idle).await;
            self.cache.borrow_mut().drop_pages(inode, 0..u64::MAX);
        }
        File { inode, handle, owner: 0, is_direct }
    }

    /// close(2), and what follows it.
    pub(crate) async fn close(&self, file: File) -> Result<(), Errno> {
        let mut body = Writer::default();
        body.u64(file.handle).u32(0).u32(0).u64(file.owner);
        let flushed = self.call(Opcode::Flush, file.inode, &body.0).await;
        let mut body = Writer::default();
        let flags = if file.owner == 0 { 0 } else { abi::RELEASE_FLOCK_UNLOCK };
        body.u64(file.handle).u32(0).u32(flags).u64(file.owner);
        self.call(Opcode::Release, file.inode, &body.0).await?;
        flushed.map(drop)
    }

    /// chmod(2), utimensat(2), truncate(2) and their relatives.
    pub(crate) async fn change(&self, inode: InodeNumber, change: Change) -> Result<Attr, Errno> {
        let _taken = self.take(inode).await;
        let Change { mode, size, times, file } = change;
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let valid = bit(mode.is_some(), abi::SET_MODE)
            | bit(size.is_some(), abi::SET_SIZE)
            | bit(times.is_some(), abi::SET_ACCESSED | abi::SET_MODIFIED)
            | bit(file.is_some(), abi::SET_HANDLE);
        let (accessed, modified) = times.unwrap_or_default();
        let mut body = Writer::default();
        body.u32(valid).u32(0).u64(file.map_or(0, |file| file.handle));
        body.u64(size.unwrap_or_default()).u64(0);
        body.u64(u64::from(accessed)).u64(u64::from(modified)).u64(0);
        body.u32(0).u32(0).u32(0).u32(mode.unwrap_or_default()).u32(0).u32(0).u32(0).u32(0);
        let reply = self.ask(Opcode::SetAttr, inode, &body.0, |reader| reader.timed_attr()).await;
        let mut cache = self.cache.borrow_mut();
        match reply {
            Ok(reply) => {
                cache.set_attr(&reply, self.now());
                if let Some(size) = size {
                    cache.truncate_pages(inode, size);
                }
                Ok(reply.attr)
            }
            Err(errno) => {
                cache.drop_attr(inode);
                Err(errno)
            }
        }
    }

    /// pread(2).
    pub(crate) async fn read(&self, file: File, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        if file.is_direct {
            return self.read_direct(file, offset, len).await;
        }
        // Reads are measured by a size that holds now, as with AUTO_INVAL_DATA.
        self.attr(file.inode).await?;
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let at = offset + bytes.len() as u64;
            if at >= self.cache.borrow_mut().size(file.inode) {
                break;
            }
            let index = at / PAGE;
            let is_here = self.cache.borrow_mut().page(file.inode, index).is_some();
            if !is_here {
                let wanted = pages_of(at, offset + len).end;
                self.read_pages(file, index..wanted).await?;
            }
            let mut cache = self.cache.borrow_mut();
            // Looked at after the page is here: a short read has moved the end.
            let end = cache.size(file.inode).min(offset + len).min((index + 1) * PAGE);
            let Some(page) = cache.page(file.inode, index) else { continue };
            if end <= at {
                break;
            }
            let start = (at % PAGE) as usize;
            bytes.extend_from_slice(&page[start..start + (end - at) as usize]);
        }
        Ok(bytes)
    }

    /// Brings missing pages in, and some more.
    async fn read_pages(&self, file: File, wanted: Range<u64>) -> Result<(), Errno> {
        let last = self.cache.borrow_mut().size(file.inode).div_ceil(PAGE);
        let most = wanted.start + READ_LEN_MAX / PAGE;
        let end = (wanted.end + READ_AHEAD_PAGES).min(last).min(most).max(wanted.start + 1);
        // One page at first: whoever holds it may be bringing in just this.
        let first = self.make_busy(file.inode, wanted.start..wanted.start + 1).await;
        if self.cache.borrow_mut().page(file.inode, wanted.start).is_some() {
            return Ok(());
        }
        let mut rest = Vec::new();
        let mut stop = wanted.start + 1;
        while stop < end {
            let mut cache = self.cache.borrow_mut();
            let is_here = cache.page(file.inode, stop).is_some();
            if is_here || !cache.try_lock_pages(file.inode, &(stop..stop + 1)) {
                break;
            }
            rest.push(Busy { kernel: self, inode: file.inode, pages: stop..stop + 1 });
            stop += 1;
        }
        let version = self.cache.borrow().version();
        let pages = wanted.start..stop;
        let (offset, len) = (pages.start * PAGE, (pages.end - pages.start) * PAGE);
        let bytes = self.request_read(file, offset, len).await?;
        let mut cache = self.cache.borrow_mut();
        if (bytes.len() as u64) < len {
            cache.shrink_size(file.inode, offset + bytes.len() as u64, version);
        }
        cache.fill_pages(file.inode, pages, &bytes);
        drop(cache);
        drop((first, rest));
        Ok(())
    }

    async fn request_read(&self, file: File, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let mut body = Writer::default();
        let flags = if file.is_direct { abi::READ_DIRECT } else { 0 };
        body.u64(file.handle).u64(offset).u32(len as u32).u32(flags).u64(0);
        body.u32(abi::READ_WRITE).u32(0);
        let bytes = self.call(Opcode::Read, file.inode, &body.0).await?;
        if bytes.len() as u64 > len {
            self.accuse(format!("{} bytes for a read of {len}", bytes.len()));
            return Err(Errno::EIO);
        }
        Ok(bytes)
    }

    async fn read_direct(&self, file: File, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < len {
            let wanted = (len - bytes.len() as u64).min(READ_LEN_MAX);
            let part = self.request_read(file, offset + bytes.len() as u64, wanted).await?;
            let is_short = (part.len() as u64) < wanted;
            bytes.extend_from_slice(&part);
            if is_short {
                break;
            }
        }
        Ok(bytes)
    }

    /// pwrite(2).
    pub(crate) async fn write(&self, file: File, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let _taken = self.take(file.inode).await;
        self.write_taken(file, offset, data, 0).await
    }

    /// write(2) with O_APPEND: where it lands only the mount knows.
    pub(crate) async fn append(&self, inode: InodeNumber, data: &[u8]) -> Result<(), Errno> {
        let mut body = Writer::default();
        body.u32(abi::READ_WRITE | abi::APPEND).u32(0);
        let (handle, flags) =
            self.ask(Opcode::Open, inode, &body.0, |reader| reader.opened()).await?;
        let file = self.opened(inode, handle, flags).await;
        let written = {
            let _taken = self.take(inode).await;
            let end = self.cache.borrow_mut().size(inode);
            self.write_taken(file, end, data, abi::APPEND).await
        };
        self.close(file).await?;
        written
    }

    async fn write_taken(
        &self,
        file: File,
        offset: u64,
        data: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        let (inode, end) = (file.inode, offset + data.len() as u64);
        let pages = pages_of(offset, end);
        // A direct write holds no pages while it waits; it drops them before and after.
        let _busy = match file.is_direct {
            true => {
                self.drop_idle_pages(inode, pages.clone()).await;
                None
            }
            false => Some(self.make_busy(inode, pages.clone()).await),
        };
        let mut body = Writer::default();
        body.u64(file.handle).u64(offset).u32(data.len() as u32).u32(0).u64(0);
        body.u32(abi::READ_WRITE | flags).u32(0).bytes(data);
        let read = |reader: &mut Reader<'_>| Ok(u64::from(reader.u32()?));
        let written = self.ask(Opcode::Write, inode, &body.0, read).await;
        if file.is_direct {
            self.drop_idle_pages(inode, pages.clone()).await;
        }
        let mut cache = self.cache.borrow_mut();
        match written {
            Ok(count) if count == data.len() as u64 => {
                if !file.is_direct {
                    cache.write_pages(inode, offset, data);
                }
                cache.note_written(inode, end);
                Ok(())
            }
            Ok(count) => {
                drop(cache);
                self.accuse(format!("{count} of {} bytes written", data.len()));
                Err(Errno::EIO)
            }
            Err(errno) => {
                cache.drop_pages(inode, pages);
                cache.drop_attr(inode);
                Err(errno)
            }
        }
    }

    /// fallocate(2).
    pub(crate) async fn fallocate(
        &self,
        file: File,
        offset: u64,
        len: u64,
        space: Space,
    ) -> Result<(), Errno> {
        let _taken = self.take(file.inode).await;
        let mut mode = match space {
            Space::Allocate { .. } => 0,
            Space::Punch => abi::PUNCH_HOLE,
            Space::Zero { .. } => abi::ZERO_RANGE,
        };
        if !space.extends() {
            mode |= abi::KEEP_SIZE;
        }
        let mut body = Writer::default();
        body.u64(file.handle).u64(offset).u64(len).u32(mode).u32(0);
        self.call(Opcode::Fallocate, file.inode, &body.0).await?;
        if space.extends() {
            self.cache.borrow_mut().note_written(file.inode, offset + len);
        }
        if space.zeroes() {
            self.drop_idle_pages(file.inode, pages_of(offset, offset + len)).await;
        }
        self.cache.borrow_mut().drop_attr(file.inode);
        Ok(())
    }

    /// fsync(2).
    pub(crate) async fn sync(&self, file: File) -> Result<(), Errno> {
        let mut body = Writer::default();
        body.u64(file.handle).u32(0).u32(0);
        self.call(Opcode::Fsync, file.inode, &body.0).await.map(drop)
    }
}
