//! What clients of a run do, and what they are told.
//!
//! Operations name inodes by the numbers that earlier results gave, so each is one step (or a few
//! steps) of the file system and never a walk along a path. Names and symlink targets are small
//! numbers with a fixed spelling.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ringfs_wire::{
    Attributes, Errno, InodeNumber, InodeType, LockMode, LockSpace, Name, RenameMode, XattrMode,
    XattrName,
};

use crate::content::Tag;

/// A name out of the run's small pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Label(pub(crate) u8);

impl Label {
    /// How it is spelled in the file system.
    pub(crate) fn name(self) -> Name {
        Name::new(self.to_string().as_bytes()).expect("a letter is a name")
    }

    /// Where it stands in listings. No two labels collide.
    pub(crate) fn cookie(self) -> u64 {
        ringfs_store::namespace::first_cookie(&self.name())
    }

    /// The label spelled `name`.
    pub(crate) fn parse(name: &Name) -> Option<Self> {
        match name.as_bytes() {
            [letter @ b'a'..=b'z'] => Some(Self(letter - b'a')),
            _ => None,
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(b'a' + self.0))
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) directory: InodeNumber,
    pub(crate) label: Label,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.directory, self.label)
    }
}

/// The target of the symlink made by operation `tag`.
pub(crate) fn symlink_target(tag: Tag) -> Vec<u8> {
    format!("target-{tag}").into_bytes()
}

/// An extended attribute out of the run's small pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(pub(crate) u8);

impl Key {
    /// How it is spelled in the file system.
    pub(crate) fn name(self) -> XattrName {
        XattrName::new(format!("user.{}", self.0).as_bytes()).expect("a number is a name")
    }

    /// The key spelled `name`.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        std::str::from_utf8(name.strip_prefix(b"user.")?).ok()?.parse().ok().map(Self)
    }
}

/// The value that operation `tag` sets.
pub(crate) fn xattr_value(tag: Tag) -> Vec<u8> {
    let filler = vec![b'x'; (tag % 5) as usize * 700];
    [format!("{tag}-").into_bytes(), filler].concat()
}

/// The operation that set a value.
pub(crate) fn xattr_tag(value: &[u8]) -> Option<Tag> {
    let digits = value.split(|byte| *byte == b'-').next()?;
    let tag = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (xattr_value(tag) == value).then_some(tag)
}

/// Bytes of a file that are locked: the first ones.
pub(crate) const LOCK_CELLS: u64 = 6;

/// What is done to the space of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Reserved; bytes stay.
    Allocate { keep_size: bool },
    /// Given back; bytes are zeros.
    Punch,
    /// Bytes are zeros.
    Zero { keep_size: bool },
}

impl Space {
    /// Whether bytes become zeros.
    pub(crate) fn zeroes(self) -> bool {
        !matches!(self, Self::Allocate { .. })
    }

    /// Whether the file extends to the end of the range.
    pub(crate) fn extends(self) -> bool {
        matches!(self, Self::Allocate { keep_size: false } | Self::Zero { keep_size: false })
    }
}

/// One call of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Lookup {
        place: Place,
    },
    Create {
        place: Place,
        exclusive: bool,
        mode: u32,
    },
    MakeDirectory {
        place: Place,
        mode: u32,
    },
    Symlink {
        place: Place,
        tag: Tag,
    },
    Unlink {
        place: Place,
    },
    RemoveDirectory {
        place: Place,
    },
    Link {
        inode: InodeNumber,
        place: Place,
    },
    Rename {
        from: Place,
        to: Place,
        mode: RenameMode,
    },
    CreateNameless {
        directory: InodeNumber,
        mode: u32,
    },
    ReadDirectory {
        directory: InodeNumber,
    },
    /// Reads a directory a few entries at a time.
    ListPages {
        directory: InodeNumber,
        limit: u32,
    },
    ReadLink {
        inode: InodeNumber,
    },
    Stat {
        inode: InodeNumber,
    },
    Chmod {
        inode: InodeNumber,
        mode: u32,
    },
    SetTimes {
        inode: InodeNumber,
        accessed: u32,
        modified: u32,
    },
    SetXattr {
        inode: InodeNumber,
        key: Key,
        tag: Tag,
        mode: XattrMode,
    },
    GetXattr {
        inode: InodeNumber,
        key: Key,
    },
    ListXattrs {
        inode: InodeNumber,
    },
    RemoveXattr {
        inode: InodeNumber,
        key: Key,
    },
    Open {
        inode: InodeNumber,
    },
    Close {
        inode: InodeNumber,
    },
    Truncate {
        inode: InodeNumber,
        size: u64,
    },
    Read {
        inode: InodeNumber,
        offset: u64,
        len: u64,
    },
    Write {
        inode: InodeNumber,
        offset: u64,
        len: u64,
        tag: Tag,
    },
    Append {
        inode: InodeNumber,
        len: u64,
        tag: Tag,
    },
    Fallocate {
        inode: InodeNumber,
        offset: u64,
        len: u64,
        space: Space,
    },
    /// Without waiting for it. The range counts bytes, the last one included.
    Lock {
        inode: InodeNumber,
        space: LockSpace,
        range: (u64, u64),
        mode: LockMode,
    },
    Unlock {
        inode: InodeNumber,
        space: LockSpace,
        range: (u64, u64),
    },
    SyncFile {
        inode: InodeNumber,
    },
    SyncDirectory {
        directory: InodeNumber,
    },
    SyncAll,
}

impl Operation {
    /// The names it is about.
    pub(crate) fn places(&self) -> Vec<Place> {
        match *self {
            Self::Lookup { place }
            | Self::Create { place, .. }
            | Self::MakeDirectory { place, .. }
            | Self::Symlink { place, .. }
            | Self::Unlink { place }
            | Self::RemoveDirectory { place }
            | Self::Link { place, .. } => vec![place],
            Self::Rename { from, to, .. } => vec![from, to],
            _ => Vec::new(),
        }
    }

    /// Whether it may need room on a disk. Removing never does.
    pub(crate) fn needs_space(&self) -> bool {
        matches!(
            self,
            Self::Create { .. }
                | Self::MakeDirectory { .. }
                | Self::Symlink { .. }
                | Self::CreateNameless { .. }
                | Self::Link { .. }
                | Self::Rename { .. }
                | Self::Chmod { .. }
                | Self::SetTimes { .. }
                | Self::SetXattr { .. }
                | Self::Truncate { .. }
                | Self::Write { .. }
                | Self::Append { .. }
                | Self::Fallocate { .. }
        )
    }

    /// Whether it changes nothing that others can see.
    pub(crate) fn is_query(&self) -> bool {
        matches!(
            self,
            Self::Lookup { .. }
                | Self::ReadLink { .. }
                | Self::ReadDirectory { .. }
                | Self::ListPages { .. }
                | Self::Stat { .. }
                | Self::GetXattr { .. }
                | Self::ListXattrs { .. }
                | Self::Open { .. }
                | Self::Close { .. }
                | Self::Read { .. }
                | Self::Lock { .. }
                | Self::Unlock { .. }
                | Self::SyncFile { .. }
                | Self::SyncDirectory { .. }
                | Self::SyncAll
        )
    }

    /// Whether it makes something durable.
    pub(crate) fn is_sync(&self) -> bool {
        matches!(self, Self::SyncFile { .. } | Self::SyncDirectory { .. } | Self::SyncAll)
    }

    /// The inode it is about, if it names one.
    pub(crate) fn inode(&self) -> Option<InodeNumber> {
        match *self {
            Self::Link { inode, .. }
            | Self::ReadLink { inode }
            | Self::Stat { inode }
            | Self::Chmod { inode, .. }
            | Self::SetTimes { inode, .. }
            | Self::SetXattr { inode, .. }
            | Self::GetXattr { inode, .. }
            | Self::ListXattrs { inode }
            | Self::RemoveXattr { inode, .. }
            | Self::Open { inode }
            | Self::Close { inode }
            | Self::Truncate { inode, .. }
            | Self::Read { inode, .. }
            | Self::Write { inode, .. }
            | Self::Append { inode, .. }
            | Self::Fallocate { inode, .. }
            | Self::Lock { inode, .. }
            | Self::Unlock { inode, .. }
            | Self::SyncFile { inode } => Some(inode),
            Self::ReadDirectory { directory }
            | Self::ListPages { directory, .. }
            | Self::SyncDirectory { directory } => Some(directory),
            _ => None,
        }
    }
}

/// The attributes a client was shown, as far as the model knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) inode: InodeNumber,
    pub(crate) kind: InodeType,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// Seconds and nanoseconds.
    pub(crate) accessed: (i64, u32),
    /// Seconds and nanoseconds.
    pub(crate) modified: (i64, u32),
}

impl From<&Attributes> for Shown {
    fn from(attributes: &Attributes) -> Self {
        Self {
            inode: attributes.inode,
            kind: attributes.kind,
            mode: attributes.permissions.mode,
            links: attributes.links,
            size: attributes.size,
            accessed: (attributes.accessed.seconds, attributes.accessed.nanos),
            modified: (attributes.modified.seconds, attributes.modified.nanos),
        }
    }
}

/// One entry a directory showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) label: Label,
    pub(crate) inode: InodeNumber,
    pub(crate) kind: InodeType,
}

/// Part of a listing: everything with a cookie behind `after`, up to `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) after: u64,
    pub(crate) until: u64,
    /// Sorted by label.
    pub(crate) entries: Vec<Listed>,
}

/// What a successful call gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nothing,
    Attributes(Shown),
    /// Sorted by label.
    Entries(Vec<Listed>),
    /// In the order of cookies, each as of a moment of its own.
    Pages(Vec<Page>),
    Target(Vec<u8>),
    Value(Vec<u8>),
    /// Sorted.
    Keys(Vec<Key>),
    Data(Rc<[u8]>),
    Offset(u64),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done(Reply),
    Failed(Errno),
    /// The caller gave up, died, or lost its session: it may have happened, or still happen.
    Unknown(String),
}

/// One call with its time span.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Who called.
    pub(crate) client: usize,
    pub(crate) operation: Operation,
    /// Whether the caller held the inode open when it called.
    pub(crate) held: bool,
    /// Order of the calls and returns of a run.
    pub(crate) called: u64,
    pub(crate) returned: u64,
    /// Virtual time of the call and the return, for people and for durability.
    pub(crate) called_at: Duration,
    pub(crate) returned_at: Duration,
    /// A disk was full while it ran.
    pub(crate) lacked_space: bool,
    pub(crate) outcome: Outcome,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lookup { place } => write!(f, "lookup {place}"),
            Self::Create { place, exclusive: true, mode } => {
                write!(f, "create {place} exclusively, mode {mode:o}")
            }
            Self::Create { place, mode, .. } => write!(f, "create {place}, mode {mode:o}"),
            Self::MakeDirectory { place, mode } => write!(f, "mkdir {place}, mode {mode:o}"),
            Self::Symlink { place, tag } => write!(f, "symlink {place} to #{tag}"),
            Self::Unlink { place } => write!(f, "unlink {place}"),
            Self::RemoveDirectory { place } => write!(f, "rmdir {place}"),
            Self::Link { inode, place } => write!(f, "link {inode} as {place}"),
            Self::Rename { from, to, mode } => match mode {
                RenameMode::Replace => write!(f, "rename {from} to {to}"),
                RenameMode::NoReplace => write!(f, "rename {from} to {to}, no replace"),
                RenameMode::Exchange => write!(f, "exchange {from} and {to}"),
            },
            Self::CreateNameless { directory, mode } => {
                write!(f, "create nameless in {directory}, mode {mode:o}")
            }
            Self::ReadDirectory { directory } => write!(f, "readdir {directory}"),
            Self::ListPages { directory, limit } => {
                write!(f, "readdir {directory} by {limit}")
            }
            Self::ReadLink { inode } => write!(f, "readlink {inode}"),
            Self::Stat { inode } => write!(f, "stat {inode}"),
            Self::Chmod { inode, mode } => write!(f, "chmod {inode} {mode:o}"),
            Self::SetTimes { inode, accessed, modified } => {
                write!(f, "utimens {inode} {accessed} {modified}")
            }
            Self::SetXattr { inode, key, tag, mode } => {
                write!(f, "setxattr {inode} {} #{tag} {mode:?}", key.0)
            }
            Self::GetXattr { inode, key } => write!(f, "getxattr {inode} {}", key.0),
            Self::ListXattrs { inode } => write!(f, "listxattr {inode}"),
            Self::RemoveXattr { inode, key } => write!(f, "removexattr {inode} {}", key.0),
            Self::Open { inode } => write!(f, "open {inode}"),
            Self::Close { inode } => write!(f, "close {inode}"),
            Self::Truncate { inode, size } => write!(f, "truncate {inode} to {size}"),
            Self::Read { inode, offset, len } => write!(f, "read {inode} {offset}+{len}"),
            Self::Write { inode, offset, len, tag } => {
                write!(f, "write {inode} {offset}+{len} #{tag}")
            }
            Self::Append { inode, len, tag } => write!(f, "append {inode} {len} #{tag}"),
            Self::Fallocate { inode, offset, len, space } => {
                write!(f, "fallocate {inode} {offset}+{len} {space:?}")
            }
            Self::Lock { inode, space, range: (first, last), mode } => {
                write!(f, "lock {inode} {space:?} {first}..={last} {mode:?}")
            }
            Self::Unlock { inode, space, range: (first, last) } => {
                write!(f, "unlock {inode} {space:?} {first}..={last}")
            }
            Self::SyncFile { inode } => write!(f, "fsync {inode}"),
            Self::SyncDirectory { directory } => write!(f, "fsync directory {directory}"),
            Self::SyncAll => write!(f, "sync all"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(Reply::Nothing) => write!(f, "ok"),
            Self::Done(Reply::Attributes(shown)) => write!(f, "{shown}"),
            Self::Done(Reply::Entries(entries)) => show_entries(entries, f),
            Self::Done(Reply::Pages(pages)) => {
                pages.iter().try_for_each(|page| show_entries(&page.entries, f))
            }
            Self::Done(Reply::Target(target)) => write!(f, "\"{}\"", target.escape_ascii()),
            Self::Done(Reply::Value(value)) => match xattr_tag(value) {
                Some(tag) => write!(f, "#{tag}"),
                None => write!(f, "\"{}\"", value.escape_ascii()),
            },
            Self::Done(Reply::Keys(keys)) => {
                write!(f, "{:?}", keys.iter().map(|key| key.0).collect::<Vec<_>>())
            }
            Self::Done(Reply::Data(data)) => write!(f, "{} bytes", data.len()),
            Self::Done(Reply::Offset(offset)) => write!(f, "at {offset}"),
            Self::Failed(errno) => write!(f, "{}", errno.name()),
            Self::Unknown(why) => write!(f, "unknown ({why})"),
        }
    }
}

fn show_entries(entries: &[Listed], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "[")?;
    for Listed { label, inode, kind } in entries {
        write!(f, " {label}={inode}({kind:?})")?;
    }
    write!(f, " ]")
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inode, kind, mode, links, size, accessed, modified } = self;
        write!(f, "{inode} {kind:?} mode {mode:o} links {links} size {size}")?;
        // Of times only those set by hand tell anything.
        let set = |(seconds, nanos): (i64, u32)| (nanos == 0).then_some(seconds);
        if let Some(seconds) = set(*accessed) {
            write!(f, " accessed {seconds}")?;
        }
        match set(*modified) {
            Some(seconds) => write!(f, " modified {seconds}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>10.4}..{:<10.4} client {}  {}{}  ->  {}",
            self.called_at.as_secs_f64(),
            self.returned_at.as_secs_f64(),
            self.client,
            self.operation,
            if self.held { " (open)" } else { "" },
            self.outcome
        )
    }
}
