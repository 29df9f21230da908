//! The kernel's side of the FUSE protocol, version 7.45: requests as it writes them, replies and
//! notifies as it reads them.
//!
//! Written from the structures of `linux/fuse.h` and sharing nothing with the mount's own codecs,
//! so that each checks the other. Only what the simulated system calls need.
#![allow(clippy::host_endian_bytes, reason = "the FUSE protocol is in the machine's order")]

use ringfs_wire::{Errno, InodeNumber, InodeType};

/// Protocol version of this kernel.
const VERSION: (u32, u32) = (7, 45);
/// Bytes of a request's header.
const IN_HEADER_LEN: usize = 40;
/// Bytes of a reply's header.
const OUT_HEADER_LEN: usize = 16;
/// Bytes of `fuse_entry_out`.
const ENTRY_LEN: usize = 128;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names of the protocol")]
pub(crate) enum Opcode {
    Lookup = 1,
    GetAttr = 3,
    SetAttr = 4,
    ReadLink = 5,
    Symlink = 6,
    MakeDirectory = 9,
    Unlink = 10,
    RemoveDirectory = 11,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    Release = 18,
    Fsync = 20,
    SetXattr = 21,
    GetXattr = 22,
    ListXattr = 23,
    RemoveXattr = 24,
    Flush = 25,
    Init = 26,
    OpenDirectory = 27,
    ReleaseDirectory = 29,
    FsyncDirectory = 30,
    SetLock = 32,
    Create = 35,
    Fallocate = 43,
    ReadDirectoryPlus = 44,
    Rename = 45,
    SyncFs = 50,
    TmpFile = 51,
}

/// `FOPEN_DIRECT_IO`.
pub(crate) const OPEN_DIRECT: u32 = 1;
/// `FOPEN_KEEP_CACHE`.
pub(crate) const OPEN_KEEP_CACHE: u32 = 2;
/// `FUSE_READ_LOCKOWNER`: the read goes past the pages.
pub(crate) const READ_DIRECT: u32 = 2;
/// `O_RDONLY`.
pub(crate) const READ_ONLY: u32 = 0;
/// `O_RDWR`.
pub(crate) const READ_WRITE: u32 = 2;
/// `O_EXCL`.
pub(crate) const EXCLUSIVE: u32 = 0o200;
/// `O_CREAT`.
pub(crate) const CREATE: u32 = 0o100;
/// `FALLOC_FL_*`.
pub(crate) const KEEP_SIZE: u32 = 1;
pub(crate) const PUNCH_HOLE: u32 = 2;
pub(crate) const ZERO_RANGE: u32 = 0x10;
/// `FUSE_RELEASE_FLOCK_UNLOCK`.
pub(crate) const RELEASE_FLOCK_UNLOCK: u32 = 2;
/// `O_TMPFILE`.
pub(crate) const TMPFILE: u32 = 0o20_200_000;
/// `O_APPEND`.
pub(crate) const APPEND: u32 = 0o2000;
/// `RENAME_NOREPLACE`.
pub(crate) const NO_REPLACE: u32 = 1;
/// `RENAME_EXCHANGE`.
pub(crate) const EXCHANGE: u32 = 2;
/// `FATTR_*`: which fields of a change are meant.
pub(crate) const SET_MODE: u32 = 1;
pub(crate) const SET_SIZE: u32 = 1 << 3;
pub(crate) const SET_ACCESSED: u32 = 1 << 4;
pub(crate) const SET_MODIFIED: u32 = 1 << 5;
pub(crate) const SET_HANDLE: u32 = 1 << 6;

/// Flags offered at the start: what Linux 6.18 offers and a mount may rely on here.
const INIT_FLAGS: u32 = 1 // ASYNC_READ
    | 1 << 1 // POSIX_LOCKS
    | 1 << 3 // ATOMIC_O_TRUNC
    | 1 << 5 // BIG_WRITES
    | 1 << 6 // DONT_MASK
    | 1 << 10 // FLOCK_LOCKS
    | 1 << 12 // AUTO_INVAL_DATA
    | 1 << 13 // DO_READDIRPLUS
    | 1 << 14 // READDIRPLUS_AUTO
    | 1 << 15 // ASYNC_DIO
    | 1 << 16 // WRITEBACK_CACHE
    | 1 << 18 // PARALLEL_DIROPS
    | 1 << 20 // POSIX_ACL
    | 1 << 22 // MAX_PAGES
    | 1 << 23 // CACHE_SYMLINKS
    | 1 << 25 // EXPLICIT_INVAL_DATA
    | 1 << 28 // HANDLE_KILLPRIV_V2
    | 1 << 29 // SETXATTR_EXT
    | 1 << 30; // INIT_EXT
/// The second word of flags: DIRECT_IO_ALLOW_MMAP.
const INIT_FLAGS_2: u32 = 1 << 4;
/// Flags that a mount must not ask for: WRITEBACK_CACHE.
const INIT_FORBIDDEN: u32 = 1 << 16;
/// Flags that a mount must ask for, because this kernel behaves as they say: AUTO_INVAL_DATA.
const INIT_REQUIRED: u32 = 1 << 12;

/// A request's bytes.
pub(crate) fn request(opcode: Opcode, unique: u64, node: InodeNumber, body: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.u32((IN_HEADER_LEN + body.len()) as u32).u32(opcode as u32).u64(unique).u64(node.0);
    // User, group and process of the caller; length of extensions; padding.
    out.u32(0).u32(0).u32(1).u32(0).bytes(body);
    out.0
}

/// Builds the body of a request.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// A name and its terminator.
    pub(crate) fn name(&mut self, name: &[u8]) -> &mut Self {
        self.bytes(name).bytes(&[0])
    }
}

/// The body of the first request.
pub(crate) fn init() -> Vec<u8> {
    let mut out = Writer::default();
    out.u32(VERSION.0).u32(VERSION.1).u32(1 << 17).u32(INIT_FLAGS).u32(INIT_FLAGS_2);
    out.bytes(&[0; 44]);
    out.0
}

/// Checks what the mount agreed to.
pub(crate) fn check_init(body: &[u8]) -> Result<(), String> {
    let mut reader = Reader(body);
    let (major, minor) = (reader.u32()?, reader.u32()?);
    let (_readahead, flags) = (reader.u32()?, reader.u32()?);
    if major != VERSION.0 || minor > VERSION.1 {
        return Err(format!("the mount speaks FUSE {major}.{minor}"));
    }
    let is_refused = flags & INIT_FORBIDDEN != 0 || flags & !INIT_FLAGS != 0;
    if is_refused || flags & INIT_REQUIRED != INIT_REQUIRED {
        return Err(format!("the mount asks for flags {flags:#x}"));
    }
    Ok(())
}

/// What came from the mount.
#[derive(Debug)]
pub(crate) enum Message {
    /// An answer: to which request, and how it ended.
    Reply(u64, Result<Vec<u8>, Errno>),
    /// Attributes, and pages of a range if there is one, are no longer true.
    InvalidateInode { inode: InodeNumber, offset: i64, len: i64 },
    /// No name is true any more.
    IncrementEpoch,
}

/// Reads a message.
pub(crate) fn message(bytes: &[u8]) -> Result<Message, String> {
    let mut reader = Reader(bytes);
    let (len, error, unique) = (reader.u32()?, reader.u32()? as i32, reader.u64()?);
    if len as usize != bytes.len() || bytes.len() < OUT_HEADER_LEN {
        return Err(format!("a message of {} bytes says it has {len}", bytes.len()));
    }
    match (unique, error) {
        (0, 2) => Ok(Message::InvalidateInode {
            inode: InodeNumber(reader.u64()?),
            offset: reader.u64()? as i64,
            len: reader.u64()? as i64,
        }),
        (0, 8) => Ok(Message::IncrementEpoch),
        (0, other) => Err(format!("notify {other}, which takes locks or is not known")),
        (_, 0) => Ok(Message::Reply(unique, Ok(reader.0.to_vec()))),
        (_, error) if (-4095..0).contains(&error) => {
            let errno = Errno(-error);
            Ok(Message::Reply(unique, Err(errno)))
        }
        (_, error) => Err(format!("a reply with error {error}")),
    }
}

/// `fuse_attr`, as far as it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) inode: InodeNumber,
    pub(crate) size: u64,
    pub(crate) accessed: (i64, u32),
    pub(crate) modified: (i64, u32),
    pub(crate) mode: u32,
    pub(crate) links: u32,
}

impl Attr {
    /// The kind, from the type bits of the mode.
    pub(crate) fn kind(&self) -> InodeType {
        match self.mode & 0o170_000 {
            0o040_000 => InodeType::Directory,
            0o120_000 => InodeType::Symlink,
            _ => InodeType::File,
        }
    }
}

/// Attributes with the nanoseconds they hold for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedAttr {
    pub(crate) attr: Attr,
    pub(crate) valid: u64,
}

/// `fuse_entry_out`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Zero says that there is no such name.
    pub(crate) node: InodeNumber,
    /// Nanoseconds that the name holds for.
    pub(crate) valid: u64,
    pub(crate) attr: TimedAttr,
}

/// One entry of a directory, with the inode's attributes if the mount knew them.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) entry: Entry,
    pub(crate) inode: InodeNumber,
    pub(crate) offset: u64,
    pub(crate) kind: u32,
    pub(crate) name: Vec<u8>,
}

/// Reads replies; short input is an error.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self.0.split_first_chunk().ok_or("a message is too short")?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_ne_bytes(self.take()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_ne_bytes(self.take()?))
    }

    /// `fuse_attr`.
    fn attr(&mut self) -> Result<Attr, String> {
        let (inode, size, _blocks) = (InodeNumber(self.u64()?), self.u64()?, self.u64()?);
        let (accessed, modified, _changed) = (self.u64()?, self.u64()?, self.u64()?);
        let (accessed_ns, modified_ns, _changed_ns) = (self.u32()?, self.u32()?, self.u32()?);
        let (mode, links) = (self.u32()?, self.u32()?);
        let (_uid, _gid, _device, _block, _flags) =
            (self.u32()?, self.u32()?, self.u32()?, self.u32()?, self.u32()?);
        let accessed = (accessed as i64, accessed_ns);
        let modified = (modified as i64, modified_ns);
        Ok(Attr { inode, size, accessed, modified, mode, links })
    }

    /// `fuse_attr_out`.
    pub(crate) fn timed_attr(&mut self) -> Result<TimedAttr, String> {
        let (seconds, nanos, _) = (self.u64()?, self.u32()?, self.u32()?);
        Ok(TimedAttr { valid: span(seconds, nanos), attr: self.attr()? })
    }

    /// `fuse_entry_out`.
    pub(crate) fn entry(&mut self) -> Result<Entry, String> {
        let (node, generation) = (InodeNumber(self.u64()?), self.u64()?);
        if generation != 0 {
            return Err(format!("generation {generation}: numbers are never used twice"));
        }
        let (entry, attr) = (self.u64()?, self.u64()?);
        let (entry_ns, attr_ns) = (self.u32()?, self.u32()?);
        let valid = span(attr, attr_ns);
        let attr = TimedAttr { valid, attr: self.attr()? };
        Ok(Entry { node, valid: span(entry, entry_ns), attr })
    }

    /// `fuse_open_out`: handle and flags.
    pub(crate) fn opened(&mut self) -> Result<(u64, u32), String> {
        let (handle, flags, _) = (self.u64()?, self.u32()?, self.u32()?);
        Ok((handle, flags))
    }

    /// A run of `fuse_direntplus`.
    pub(crate) fn listing(&mut self) -> Result<Vec<Listed>, String> {
        let mut listing = Vec::new();
        while !self.0.is_empty() {
            let entry = self.entry()?;
            let (inode, offset) = (InodeNumber(self.u64()?), self.u64()?);
            let (len, kind) = (self.u32()? as usize, self.u32()?);
            // Entries are padded to eight bytes; the fixed part is a multiple of that.
            const { assert!((ENTRY_LEN + 24).is_multiple_of(8)) };
            let padded = len.next_multiple_of(8);
            let name = self.0.get(..len).ok_or("a directory entry is cut off")?.to_vec();
            self.0 = self.0.get(padded..).ok_or("a directory entry lacks its padding")?;
            listing.push(Listed { entry, inode, offset, kind, name });
        }
        Ok(listing)
    }
}

fn span(seconds: u64, nanos: u32) -> u64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(nanos))
}
