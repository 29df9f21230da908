//! One of the two file systems: carries out steps in a directory of its own and says what came of
//! them, in words that do not depend on which file system it was.
//!
//! Invariant: every path is taken relative to the directory, so that both sides can be asked in the
//! same words, whatever lies above.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ringfs_tests::Mapper;
use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags,
    SeekFrom, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::content;
use crate::step::{
    Allocation, Call, Flag, Locking, On, Renaming, SLOTS, Step, Time, expand, shorten,
};
use crate::tree;
use crate::user::run_as;
use crate::xattrs;

/// Directories between the one that is compared and the one that steps start from, for those that
/// lead upwards.
const DEPTH: usize = 6;

/// What came of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Failed(String),
    Done,
    Number(u64),
    Bytes(Vec<u8>),
    Text(Vec<String>),
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) file: OwnedFd,
    mount: usize,
    direct: bool,
}

/// A file system under comparison, with one or two doors to it.
#[derive(Debug)]
pub(crate) struct Side {
    /// What is compared and in the end removed, by way of each door.
    pub(crate) bases: [PathBuf; 2],
    paths: [PathBuf; 2],
    pub(crate) starts: [OwnedFd; 2],
    pub(crate) slots: [Option<Handle>; SLOTS],
}

/// The result of a call that has one.
pub(crate) type Called<R = Outcome> = Result<R, Errno>;

impl Side {
    /// Makes an empty directory in these two, which show the same.
    pub(crate) fn new(doors: &[PathBuf; 2], name: &str) -> io::Result<Self> {
        let bases = doors.each_ref().map(|door| door.join(name));
        let below: PathBuf = std::iter::repeat_n("r", DEPTH).collect();
        let paths = bases.each_ref().map(|base| base.join(&below));
        for path in &paths {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        }
        let open = |path: &Path| rustix::fs::open(path, OFlags::DIRECTORY, Mode::empty());
        let starts = [open(&paths[0])?, open(&paths[1])?];
        Ok(Self { bases, paths, starts, slots: Default::default() })
    }

    /// Closes everything and removes the directory.
    pub(crate) fn end(mut self) -> io::Result<()> {
        for slot in 0..SLOTS {
            self.close(slot);
        }
        fs::remove_dir_all(&self.bases[0])?;
        match fs::remove_dir_all(&self.bases[1]) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What exists, as steps name it.
    pub(crate) fn known(&self) -> io::Result<Vec<String>> {
        let found = tree::walk(&self.paths[0])?;
        let names = found[1..].iter().map(|path| tree::relative(&self.paths[0], path));
        Ok(names.map(|name| shorten(&name)).collect())
    }

    /// Carries out a step.
    pub(crate) fn run(&mut self, step: &Step, mapper: &mut Mapper) -> Outcome {
        let result = if let Call::Map { path, offset, length, fill } = &step.call {
            let path = self.absolute(step.mount, path);
            Ok(map(mapper, &path, *offset, *length, *fill))
        } else {
            run_as(step.user, || self.call(step.mount, &step.call))
        };
        result.unwrap_or_else(|error| Outcome::Failed(format!("{error:?}")))
    }

    fn call(&mut self, mount: usize, call: &Call) -> Called {
        match call {
            Call::Open { slot, path, flags, mode } => self.open(mount, *slot, path, flags, *mode),
            Call::Close { slot } => {
                self.handle(*slot)?;
                self.close(*slot);
                Ok(Outcome::Done)
            }
            Call::Read { slot, length, offset, vectors } => {
                let handle = self.handle(*slot)?;
                let (length, offset) = handle.aligned(*length, *offset);
                content::read(&handle.file, length, offset, *vectors)
            }
            Call::Write { slot, length, offset, vectors, fill } => {
                let handle = self.handle(*slot)?;
                let (length, offset) = handle.aligned(*length, *offset);
                content::write(&handle.file, length, offset, *vectors, *fill)
            }
            Call::Seek { slot, from, offset } => {
                content::seek(&self.handle(*slot)?.file, *from, *offset)
            }
            Call::Holes { slot } => content::holes(&self.handle(*slot)?.file),
            Call::Copy { from, from_offset, to, to_offset, length } => {
                let (from, to) = (self.handle(*from)?, self.handle(*to)?);
                if from.direct || to.direct {
                    return Ok(Outcome::Done);
                }
                content::copy(&from.file, *from_offset, &to.file, *to_offset, *length)
            }
            Call::SetLength { slot, length } => {
                done(rustix::fs::ftruncate(&self.handle(*slot)?.file, *length))
            }
            Call::Allocate { slot, kind, offset, length } => {
                let file = &self.handle(*slot)?.file;
                done(rustix::fs::fallocate(file, allocation(*kind), *offset, *length))
            }
            Call::Sync { slot, data_only } => {
                let file = &self.handle(*slot)?.file;
                done(if *data_only { rustix::fs::fdatasync(file) } else { rustix::fs::fsync(file) })
            }
            Call::Lock { slot, kind } => {
                done(rustix::fs::flock(&self.handle(*slot)?.file, locking(*kind)))
            }
            _ => self.name(mount, call),
        }
    }

    /// Calls about names.
    fn name(&mut self, mount: usize, call: &Call) -> Called {
        let start = &self.starts[mount];
        let at = |path: &str| expand(path);
        match call {
            Call::Rename { from, to, kind } => {
                let flags = match kind {
                    Renaming::Plain => RenameFlags::empty(),
                    Renaming::NoReplace => RenameFlags::NOREPLACE,
                    Renaming::Exchange => RenameFlags::EXCHANGE,
                };
                done(rustix::fs::renameat_with(start, at(from), start, at(to), flags))
            }
            Call::Link { from, to, follow } => {
                let flags = if *follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
                done(rustix::fs::linkat(start, at(from), start, at(to), flags))
            }
            Call::Name { slot, to } => {
                let Handle { file, mount, .. } = self.handle(*slot)?;
                // To the kernel the other mount is another file system.
                let start = &self.starts[*mount];
                done(rustix::fs::linkat(file, "", start, at(to), AtFlags::EMPTY_PATH))
            }
            Call::Symlink { target, path } => {
                done(rustix::fs::symlinkat(at(target), start, at(path)))
            }
            Call::ReadLink { path } => {
                let target = rustix::fs::readlinkat(start, at(path), Vec::new())?;
                Ok(Outcome::Bytes(target.into_bytes()))
            }
            Call::MakeDirectory { path, mode } => {
                done(rustix::fs::mkdirat(start, at(path), Mode::from_raw_mode(*mode)))
            }
            Call::MakePipe { path, mode } => {
                let mode = Mode::from_raw_mode(*mode);
                done(rustix::fs::mknodat(start, at(path), FileType::Fifo, mode, 0))
            }
            Call::RemoveDirectory { path } => {
                done(rustix::fs::unlinkat(start, at(path), AtFlags::REMOVEDIR))
            }
            Call::Unlink { path } => done(rustix::fs::unlinkat(start, at(path), AtFlags::empty())),
            Call::List { path, page } => content::list(start, &at(path), *page),
            Call::Access { path, mode } => {
                let access = Access::from_bits_truncate(*mode);
                done(rustix::fs::accessat(start, at(path), access, AtFlags::EACCESS))
            }
            _ => self.attribute(mount, call),
        }
    }

    /// Calls about attributes.
    fn attribute(&self, mount: usize, call: &Call) -> Called {
        match call {
            Call::Stat { on } => Ok(Outcome::Text(vec![describe(&self.stat(mount, on)?)])),
            Call::ChangeMode { on, mode } => {
                let mode = Mode::from_raw_mode(*mode);
                done(match on {
                    On::Slot(slot) => rustix::fs::fchmod(&self.handle(*slot)?.file, mode),
                    On::Path(path) | On::Itself(path) => {
                        let start = &self.starts[mount];
                        rustix::fs::chmodat(start, expand(path), mode, AtFlags::empty())
                    }
                })
            }
            Call::ChangeOwner { on, owner, group } => {
                let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
                done(match self.at(on) {
                    Ok((path, flags)) => {
                        rustix::fs::chownat(&self.starts[mount], path, owner, group, flags)
                    }
                    Err(slot) => rustix::fs::fchown(&self.handle(slot)?.file, owner, group),
                })
            }
            Call::SetTimes { on, accessed, modified } => {
                let times = Timestamps {
                    last_access: timespec(*accessed),
                    last_modification: timespec(*modified),
                };
                match self.at(on) {
                    Ok((path, flags)) => {
                        rustix::fs::utimensat(&self.starts[mount], path, &times, flags)
                    }
                    Err(slot) => rustix::fs::futimens(&self.handle(slot)?.file, &times),
                }?;
                let stat = self.stat(mount, on)?;
                Ok(Outcome::Text(told_times(&stat, *accessed, *modified)))
            }
            _ => xattrs::call(call, |on| match on {
                On::Slot(slot) => Ok(xattrs::Target::Open(&self.handle(*slot)?.file)),
                On::Path(path) => Ok(xattrs::Target::Path(self.absolute(mount, path))),
                On::Itself(path) => Ok(xattrs::Target::Itself(self.absolute(mount, path))),
            }),
        }
    }

    /// How a path is named to the calls that take one; a slot otherwise.
    fn at(&self, on: &On) -> Result<(Vec<u8>, AtFlags), usize> {
        match on {
            On::Slot(slot) => Err(*slot),
            On::Path(path) => Ok((expand(path), AtFlags::empty())),
            On::Itself(path) => Ok((expand(path), AtFlags::SYMLINK_NOFOLLOW)),
        }
    }

    /// What `stat` says.
    pub(crate) fn stat(&self, mount: usize, on: &On) -> Called<Stat> {
        match self.at(on) {
            Ok((path, flags)) => rustix::fs::statat(&self.starts[mount], path, flags),
            Err(slot) => rustix::fs::fstat(&self.handle(slot)?.file),
        }
    }

    fn absolute(&self, mount: usize, path: &str) -> PathBuf {
        self.paths[mount].join(std::ffi::OsString::from_vec(expand(path)))
    }

    fn handle(&self, slot: usize) -> Called<&Handle> {
        self.slots[slot].as_ref().ok_or(Errno::BADF)
    }

    /// A mount hears of the end of a file some time after `close` has returned: what must have
    /// happened by then is done before.
    fn close(&mut self, slot: usize) {
        if let Some(handle) = self.slots[slot].take() {
            let _ = rustix::fs::flock(&handle.file, FlockOperation::Unlock);
        }
    }

    fn open(&mut self, mount: usize, slot: usize, path: &str, flags: &[Flag], mode: u32) -> Called {
        self.close(slot);
        let bits =
            flags.iter().fold(OFlags::NONBLOCK | OFlags::CLOEXEC, |bits, flag| bits | flag.bits());
        let mode = Mode::from_raw_mode(mode);
        let file = rustix::fs::openat(&self.starts[mount], expand(path), bits, mode)?;
        // Pipes join the processes of one mount, not those of two.
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Fifo {
            return Ok(Outcome::Text(vec!["a pipe".to_owned()]));
        }
        self.slots[slot] = Some(Handle { file, mount, direct: flags.contains(&Flag::Direct) });
        Ok(Outcome::Done)
    }
}

impl Handle {
    /// Direct transfers are of whole blocks.
    fn aligned(&self, length: usize, offset: Option<u64>) -> (usize, Option<u64>) {
        let block = content::BLOCK;
        if self.direct {
            (
                length.next_multiple_of(block),
                Some(offset.unwrap_or(0) / block as u64 * block as u64),
            )
        } else {
            (length, offset)
        }
    }
}

fn done(result: Called<()>) -> Called {
    result.map(|()| Outcome::Done)
}

fn map(mapper: &mut Mapper, path: &Path, offset: u64, length: usize, fill: Option<u8>) -> Outcome {
    // The process that maps reads lines of text.
    if path.to_str().is_none() {
        return Outcome::Done;
    }
    let result = match fill {
        Some(fill) => {
            let bytes = content::pattern(length, fill);
            mapper.write_once(path, offset, &bytes).map(|()| Outcome::Done)
        }
        None => mapper.read_once(path, offset, length).map(Outcome::Bytes),
    };
    result.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
}

fn allocation(kind: Allocation) -> FallocateFlags {
    match kind {
        Allocation::Extend => FallocateFlags::empty(),
        Allocation::KeepSize => FallocateFlags::KEEP_SIZE,
        Allocation::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        Allocation::Zero => FallocateFlags::ZERO_RANGE,
        Allocation::ZeroKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
    }
}

fn locking(kind: Locking) -> FlockOperation {
    match kind {
        Locking::Shared => FlockOperation::NonBlockingLockShared,
        Locking::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Locking::Unlock => FlockOperation::NonBlockingUnlock,
    }
}

fn timespec(time: Time) -> Timespec {
    match time {
        Time::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Time::Omit => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Time::At { seconds, nanoseconds } => Timespec { tv_sec: seconds, tv_nsec: nanoseconds },
    }
}

/// The times that were chosen, as they are now.
fn told_times(stat: &Stat, accessed: Time, modified: Time) -> Vec<String> {
    let mut told = Vec::new();
    if matches!(accessed, Time::At { .. }) {
        told.push(format!("accessed {}.{}", stat.st_atime, stat.st_atime_nsec));
    }
    if matches!(modified, Time::At { .. }) {
        told.push(format!("modified {}.{}", stat.st_mtime, stat.st_mtime_nsec));
    }
    told
}

/// What both file systems must agree about; the length of a directory is its own business.
pub(crate) fn describe(stat: &Stat) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let size = if kind == FileType::Directory { 0 } else { stat.st_size };
    let (mode, links) = (stat.st_mode & 0o7777, stat.st_nlink);
    format!("{kind:?} {mode:o} of {}:{}, {links} links, {size} bytes", stat.st_uid, stat.st_gid)
}

/// Where everything below is found by path.
pub(crate) fn seek_start(file: &OwnedFd) -> Called<u64> {
    rustix::fs::seek(file, SeekFrom::Start(0))
}

/// What `lstat` says of an absolute path.
pub(crate) fn lstat(path: &Path) -> Called<Stat> {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}
