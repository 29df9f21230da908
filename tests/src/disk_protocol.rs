//! As much of the kernel's FUSE protocol as one file needs, as bytes.
//!
//! Numbers are those of `linux/fuse.h`; integers have the byte order of the machine. Knows nothing
//! of what the file is.

/// The name of the only file.
pub(crate) const FILE_NAME: &str = "image";
/// Longest write that the kernel is allowed.
pub(crate) const WRITE_BYTES_MAX: usize = 1 << 20;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSYS: i32 = 38;

const ROOT: u64 = 1;
const FILE: u64 = 2;
const HEAD_BYTES: usize = 40;
/// What is known of the file stays true.
const VALID_SECONDS: u64 = 3_600;
const PAGE_BYTES: usize = 4_096;
/// ASYNC_READ, BIG_WRITES and MAX_PAGES.
const INIT_FLAGS: u32 = 1 | 1 << 5 | 1 << 22;
const MAX_PAGES: u16 = (WRITE_BYTES_MAX / PAGE_BYTES) as u16;
const OPEN_DIRECT: u32 = 1;

pub(crate) struct Head {
    unique: u64,
}

pub(crate) enum Request<'a> {
    Begin {
        minor: u32,
    },
    Find {
        is_there: bool,
    },
    Attributes {
        of_file: bool,
    },
    Open,
    Read {
        offset: usize,
        len: usize,
    },
    Write {
        offset: usize,
        bytes: &'a [u8],
    },
    Flush,
    Space,
    /// A formality.
    Nothing,
    /// It wants no answer.
    Unwanted,
    Unknown,
}

pub(crate) enum Answer {
    Begun { minor: u32 },
    Entry { size: usize },
    Attributes { of_file: bool, size: usize },
    Opened,
    Bytes(Vec<u8>),
    Written(usize),
    Space,
    Done,
    Silence,
    Error(i32),
}

#[expect(clippy::host_endian_bytes, reason = "the kernel runs on this machine")]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[expect(clippy::host_endian_bytes, reason = "the kernel runs on this machine")]
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The request in these bytes; `None` if the kernel sends what it never does.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Head, Request<'_>)> {
    let (opcode, unique, node) = (u32_at(bytes, 4)?, u64_at(bytes, 8)?, u64_at(bytes, 16)?);
    let body = bytes.get(HEAD_BYTES..)?;
    let place = || Some((u64_at(body, 8)? as usize, u32_at(body, 16)? as usize));
    let request = match opcode {
        1 => Request::Find { is_there: body.strip_suffix(b"\0") == Some(FILE_NAME.as_bytes()) },
        2 | 36 | 42 => Request::Unwanted,
        // A change of attributes is answered with those there are.
        3 | 4 => Request::Attributes { of_file: node != ROOT },
        14 | 27 => Request::Open,
        15 => {
            let (offset, len) = place()?;
            Request::Read { offset, len }
        }
        16 => {
            let (offset, len) = place()?;
            Request::Write { offset, bytes: body.get(40..40 + len)? }
        }
        17 => Request::Space,
        20 => Request::Flush,
        18 | 25 | 29 | 38 => Request::Nothing,
        26 => Request::Begin { minor: u32_at(body, 4)? },
        _ => Request::Unknown,
    };
    Some((Head { unique }, request))
}

#[derive(Default)]
struct Bytes(Vec<u8>);

#[expect(clippy::host_endian_bytes, reason = "the kernel runs on this machine")]
impl Bytes {
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }
    fn zeros(mut self, len: usize) -> Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }
    fn attributes(self, of_file: bool, size: usize) -> Self {
        let (node, mode, size) = match of_file {
            true => (FILE, 0o100600, size as u64),
            false => (ROOT, 0o040700, 0),
        };
        // Number, size, blocks; three times and their parts of a second; mode and links; owner,
        // group, device; block size and flags.
        let told = self.u64(node).u64(size).u64(size / 512).zeros(24 + 12);
        told.u32(mode).u32(1).zeros(12).u32(PAGE_BYTES as u32).u32(0)
    }
}

/// The answer as the kernel reads it, if it waits for one.
pub(crate) fn encode(head: &Head, answer: &Answer) -> Option<Vec<u8>> {
    let empty = Bytes::default();
    let (error, body) = match answer {
        Answer::Silence => return None,
        Answer::Error(errno) => (-errno, empty),
        Answer::Done => (0, empty),
        Answer::Bytes(bytes) => (0, Bytes(bytes.clone())),
        Answer::Written(len) => (0, empty.u32(*len as u32).u32(0)),
        Answer::Opened => (0, empty.u64(1).u32(OPEN_DIRECT).u32(0)),
        Answer::Attributes { of_file, size } => {
            (0, empty.u64(VALID_SECONDS).u64(0).attributes(*of_file, *size))
        }
        Answer::Entry { size } => {
            let valid = empty.u64(FILE).u64(0).u64(VALID_SECONDS).u64(VALID_SECONDS).u64(0);
            (0, valid.attributes(true, *size))
        }
        Answer::Begun { minor } => {
            let version = empty.u32(7).u32(*minor).u32(PAGE_BYTES as u32).u32(INIT_FLAGS);
            let limits = version.u16(16).u16(12).u32(WRITE_BYTES_MAX as u32).u32(1);
            (0, limits.u16(MAX_PAGES).zeros(64 - 30))
        }
        Answer::Space => (0, empty.zeros(80)),
    };
    let len = 16 + body.0.len();
    let message = Bytes::default().u32(len as u32).u32(error as u32).u64(head.unique);
    Some([message.0, body.0].concat())
}
