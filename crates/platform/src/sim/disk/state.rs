//! One simulated disk: its tree, its open files and its space.
//!
//! Invariant: used space never exceeds the capacity by an operation that succeeded. Operations
//! here are instantaneous; latency and the fate of dropped ones are the business of `operation`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::super::Faults;
use super::super::executor::DiskTrouble;
use super::super::random::Generator;
use super::file::BLOCK_BYTES;
use super::tree::{Errno, Object, ObjectId, ObjectKind, Tree};
use crate::disk::{FileKind, FileStat, Space};
use crate::{Buffer, OpenFlags, Slice};

/// Alignment that direct I/O wants.
const DIRECT_ALIGNMENT: u64 = 4096;

/// An open file of a process.
struct OpenFile {
    object: ObjectId,
    flags: OpenFlags,
}

/// The disk of a node.
pub(in super::super) struct DiskState {
    pub(super) tree: Tree,
    files: BTreeMap<u64, OpenFile>,
    next_file: u64,
    capacity_blocks: u64,
    /// Blocks that may be in use by now, if that is less.
    limit_blocks: Option<u64>,
    trouble: DiskTrouble,
}

/// What an operation sees of the world when it is executed.
pub(super) struct Circumstances<'a> {
    pub(super) now: Duration,
    pub(super) wall: Duration,
    pub(super) faults: Faults,
    pub(super) generator: &'a mut Generator,
}

impl DiskState {
    pub(in super::super) fn new(capacity_bytes: u64) -> Self {
        DiskState {
            tree: Tree::new(),
            files: BTreeMap::new(),
            next_file: 1,
            capacity_blocks: capacity_bytes / BLOCK_BYTES,
            limit_blocks: None,
            trouble: DiskTrouble::default(),
        }
    }

    /// Closes what a dead process had open.
    pub(in super::super) fn close_all(&mut self) {
        self.files.clear();
        self.tree.close_all();
    }

    pub(in super::super) fn power_cut(&mut self, generator: &mut Generator) {
        self.tree.power_cut(generator);
        self.trouble = DiskTrouble::default();
    }

    /// A new process has not met any error; what a failed sync dropped stays dropped.
    pub(in super::super) fn forget_errors(&mut self) {
        self.trouble.since = None;
    }

    pub(in super::super) fn trouble(&self) -> DiskTrouble {
        self.trouble
    }

    /// Leaves so many bytes free, or all there are.
    pub(in super::super) fn limit_space(&mut self, bytes: Option<u64>) {
        self.limit_blocks = bytes.map(|bytes| self.all_used_blocks() + bytes / BLOCK_BYTES);
    }

    fn all_used_blocks(&self) -> u64 {
        self.tree.objects().filter(|object| object.in_use()).map(used_blocks).sum()
    }

    fn free_blocks(&self) -> u64 {
        let most = self.limit_blocks.unwrap_or(u64::MAX).min(self.capacity_blocks);
        most.saturating_sub(self.all_used_blocks())
    }

    /// Whether an operation fails, by chance.
    fn fails(&mut self, per_mille: u32, circumstances: &mut Circumstances<'_>) -> bool {
        let fails = circumstances.generator.chance(per_mille);
        if fails {
            self.trouble.since.get_or_insert(circumstances.now);
        }
        fails
    }

    fn claim(&self, blocks: u64, faults: &Faults) -> Result<(), Errno> {
        let refused = blocks > 0 && (faults.no_space || blocks > self.free_blocks());
        if refused { Err(libc::ENOSPC) } else { Ok(()) }
    }

    pub(super) fn open(
        &mut self,
        path: &Path,
        flags: OpenFlags,
        mode: u32,
        now: Duration,
    ) -> Result<u64, Errno> {
        let object = match self.tree.find(path) {
            Ok(object) => object,
            Err(libc::ENOENT) if flags.create => {
                self.tree.create(path, FileKind::File, mode, now)?
            }
            Err(errno) => return Err(errno),
        };
        let writes = flags.write || flags.append;
        if writes || flags.truncate {
            self.tree.file(object)?;
        }
        if flags.truncate && writes {
            self.tree.file(object)?.truncate(0);
        }
        self.add_file(object, flags)
    }

    pub(super) fn create(&mut self, path: &Path, mode: u32, now: Duration) -> Result<u64, Errno> {
        let object = self.tree.create(path, FileKind::File, mode, now)?;
        self.add_file(object, OpenFlags::READ_WRITE)
    }

    fn add_file(&mut self, object: ObjectId, flags: OpenFlags) -> Result<u64, Errno> {
        self.tree.object_mut(object)?.handles += 1;
        let id = self.next_file;
        self.next_file += 1;
        self.files.insert(id, OpenFile { object, flags });
        Ok(id)
    }

    /// Closes an open file; nothing happens when its process died before.
    pub(super) fn close(&mut self, file: u64) {
        let Some(open) = self.files.remove(&file) else { return };
        if let Ok(object) = self.tree.object_mut(open.object) {
            object.handles = object.handles.saturating_sub(1);
            if object.locked_by == Some(file) {
                object.locked_by = None;
            }
        }
    }

    fn open_file(&self, file: u64) -> Result<&OpenFile, Errno> {
        self.files.get(&file).ok_or(libc::EBADF)
    }

    pub(super) fn object_of(&self, file: u64) -> Result<ObjectId, Errno> {
        Ok(self.open_file(file)?.object)
    }

    fn writable(&self, file: u64) -> Result<ObjectId, Errno> {
        let open = self.open_file(file)?;
        if open.flags.write || open.flags.append { Ok(open.object) } else { Err(libc::EBADF) }
    }

    /// Reads into the front of `buffer`, which has room for `len` bytes.
    pub(super) fn read(
        &mut self,
        file: u64,
        offset: u64,
        buffer: &mut Buffer,
        len: usize,
        circumstances: &mut Circumstances<'_>,
    ) -> Result<usize, Errno> {
        let open = self.open_file(file)?;
        if !open.flags.read {
            return Err(libc::EBADF);
        }
        check_alignment(open.flags, offset, len)?;
        let object = open.object;
        if self.fails(circumstances.faults.read_failure_per_mille, circumstances) {
            return Err(libc::EIO);
        }
        let data = self.tree.file(object)?;
        let count = data.size().saturating_sub(offset).min(len as u64) as usize;
        buffer.set_len(count);
        data.read(offset, &mut buffer[..count]);
        Ok(count)
    }

    pub(super) fn write(
        &mut self,
        file: u64,
        offset: u64,
        data: &Slice,
        circumstances: &mut Circumstances<'_>,
    ) -> Result<(), Errno> {
        let object = self.writable(file)?;
        let flags = self.open_file(file)?.flags;
        check_alignment(flags, offset, data.len())?;
        let offset = if flags.append { self.tree.file(object)?.size() } else { offset };
        let end = offset.checked_add(data.len() as u64).ok_or(libc::EFBIG)?;
        i64::try_from(end).map_err(|_| libc::EFBIG)?;
        let needed = self.tree.file(object)?.needed_blocks(offset, data.len() as u64);
        self.claim(needed, &circumstances.faults)?;
        let fails = self.fails(circumstances.faults.write_failure_per_mille, circumstances);
        // A failed write may have reached the file in part.
        let reached = if fails {
            circumstances.generator.below(data.len() as u64 + 1) as usize
        } else {
            data.len()
        };
        self.tree.object_mut(object)?.modified = circumstances.wall;
        self.tree.file(object)?.write(offset, &data[..reached]);
        if fails { Err(libc::EIO) } else { Ok(()) }
    }

    pub(super) fn truncate(&mut self, file: u64, len: u64, now: Duration) -> Result<(), Errno> {
        let object = self.writable(file)?;
        i64::try_from(len).map_err(|_| libc::EINVAL)?;
        self.tree.object_mut(object)?.modified = now;
        self.tree.file(object)?.truncate(len);
        Ok(())
    }

    pub(super) fn punch(&mut self, file: u64, offset: u64, len: u64) -> Result<(), Errno> {
        let object = self.writable(file)?;
        check_range(offset, len)?;
        self.tree.file(object)?.punch(offset, len);
        Ok(())
    }

    pub(super) fn allocate(
        &mut self,
        file: u64,
        offset: u64,
        len: u64,
        faults: &Faults,
    ) -> Result<(), Errno> {
        let object = self.writable(file)?;
        check_range(offset, len)?;
        let needed = self.tree.file(object)?.unreserved_blocks(offset, len);
        self.claim(needed, faults)?;
        self.tree.file(object)?.reserve(offset, len);
        Ok(())
    }

    /// Notes the start of a sync of a file's contents.
    pub(super) fn start_sync(&mut self, file: u64) -> Result<u64, Errno> {
        let object = self.object_of(file)?;
        Ok(self.tree.file(object)?.start_sync())
    }

    pub(super) fn finish_sync(
        &mut self,
        file: u64,
        start: u64,
        circumstances: &mut Circumstances<'_>,
    ) -> Result<(), Errno> {
        let object = self.object_of(file)?;
        let fails = self.fails(circumstances.faults.fsync_failure_per_mille, circumstances);
        self.trouble.lost_writes |= fails;
        let data = self.tree.file(object)?;
        if fails {
            data.fail_sync();
            return Err(libc::EIO);
        }
        data.finish_sync(start, circumstances.generator);
        Ok(())
    }

    pub(super) fn sync_directory(
        &mut self,
        path: &Path,
        start: u64,
        circumstances: &mut Circumstances<'_>,
    ) -> Result<(), Errno> {
        let directory = self.tree.find(path)?;
        self.tree.list(directory)?;
        if self.fails(circumstances.faults.fsync_failure_per_mille, circumstances) {
            return Err(libc::EIO);
        }
        self.tree.sync_directory(directory, start);
        Ok(())
    }

    pub(super) fn stat(&self, object: ObjectId) -> Result<FileStat, Errno> {
        let object = self.tree.object(object)?;
        let size = match &object.kind {
            ObjectKind::File(data) => data.size(),
            ObjectKind::Directory { .. } => BLOCK_BYTES,
        };
        Ok(FileStat {
            size,
            allocated_bytes: used_blocks(object) * BLOCK_BYTES,
            mode: object.mode & 0o7777,
            kind: object.file_kind(),
            modified: object.modified,
        })
    }

    pub(super) fn space(&self, path: &Path) -> Result<Space, Errno> {
        self.tree.find(path)?;
        let total = self.capacity_blocks * BLOCK_BYTES;
        Ok(Space { total, available: self.free_blocks() * BLOCK_BYTES })
    }

    pub(super) fn lock(&mut self, file: u64) -> Result<(), Errno> {
        let object = self.object_of(file)?;
        let object = self.tree.object_mut(object)?;
        match object.locked_by {
            Some(holder) if holder != file => Err(libc::EEXIST),
            _ => {
                object.locked_by = Some(file);
                Ok(())
            }
        }
    }
}

fn used_blocks(object: &Object) -> u64 {
    match &object.kind {
        ObjectKind::File(data) => data.used_blocks(),
        ObjectKind::Directory { .. } => 0,
    }
}

fn check_alignment(flags: OpenFlags, offset: u64, len: usize) -> Result<(), Errno> {
    let aligned =
        offset.is_multiple_of(DIRECT_ALIGNMENT) && (len as u64).is_multiple_of(DIRECT_ALIGNMENT);
    if flags.direct && !aligned { Err(libc::EINVAL) } else { Ok(()) }
}

fn check_range(offset: u64, len: u64) -> Result<(), Errno> {
    let end = offset.checked_add(len).ok_or(libc::EFBIG)?;
    i64::try_from(end).map_err(|_| libc::EFBIG)?;
    if len == 0 { Err(libc::EINVAL) } else { Ok(()) }
}
