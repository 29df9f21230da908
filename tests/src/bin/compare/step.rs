//! What is done to both file systems: one system call (or a few that belong together) per step.
//!
//! Invariant: a step says everything that decides its outcome, so that a list of steps can be written
//! down, shortened and carried out again. Steps name files by paths and open ones by *slots*.

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

/// Files that are open at a time, at most.
pub(crate) const SLOTS: usize = 6;

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// Through which of the mounts; the local directory has but one door.
    pub(crate) mount: usize,
    /// As which user.
    pub(crate) user: User,
    pub(crate) call: Call,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum User {
    Root,
    /// Somebody with a group of its own and one more.
    Somebody,
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Call {
    Open {
        slot: usize,
        path: String,
        flags: Vec<Flag>,
        mode: u32,
    },
    Close {
        slot: usize,
    },
    Read {
        slot: usize,
        length: usize,
        offset: Option<u64>,
        vectors: usize,
    },
    Write {
        slot: usize,
        length: usize,
        offset: Option<u64>,
        vectors: usize,
        fill: u8,
    },
    Seek {
        slot: usize,
        from: Whence,
        offset: i64,
    },
    /// All holes of a file: what they tell must fit its bytes.
    Holes {
        slot: usize,
    },
    SetLength {
        slot: usize,
        length: u64,
    },
    Allocate {
        slot: usize,
        kind: Allocation,
        offset: u64,
        length: u64,
    },
    Copy {
        from: usize,
        from_offset: u64,
        to: usize,
        to_offset: u64,
        length: usize,
    },
    Sync {
        slot: usize,
        data_only: bool,
    },
    /// Writes through a shared mapping and synchronises it, or reads through one.
    Map {
        path: String,
        offset: u64,
        length: usize,
        fill: Option<u8>,
    },
    Lock {
        slot: usize,
        kind: Locking,
    },
    Rename {
        from: String,
        to: String,
        kind: Renaming,
    },
    Link {
        from: String,
        to: String,
        follow: bool,
    },
    /// Gives a name to what is open.
    Name {
        slot: usize,
        to: String,
    },
    Symlink {
        target: String,
        path: String,
    },
    ReadLink {
        path: String,
    },
    MakeDirectory {
        path: String,
        mode: u32,
    },
    MakePipe {
        path: String,
        mode: u32,
    },
    RemoveDirectory {
        path: String,
    },
    Unlink {
        path: String,
    },
    /// The names in a directory, in pages of `page` bytes, and again from the middle.
    List {
        path: String,
        page: usize,
    },
    Stat {
        on: On,
    },
    Access {
        path: String,
        mode: u32,
    },
    ChangeMode {
        on: On,
        mode: u32,
    },
    ChangeOwner {
        on: On,
        owner: Option<u32>,
        group: Option<u32>,
    },
    SetTimes {
        on: On,
        accessed: Time,
        modified: Time,
    },
    SetAttribute {
        on: On,
        name: String,
        length: usize,
        fill: u8,
        how: Setting,
    },
    GetAttribute {
        on: On,
        name: String,
    },
    ListAttributes {
        on: On,
    },
    RemoveAttribute {
        on: On,
        name: String,
    },
}

/// What a call is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum On {
    Slot(usize),
    Path(String),
    /// A path whose last name is not followed if it is a symlink.
    Itself(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Whence {
    Start,
    Current,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Allocation {
    Extend,
    KeepSize,
    Punch,
    Zero,
    ZeroKeepSize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Locking {
    Shared,
    Exclusive,
    Unlock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Renaming {
    Plain,
    NoReplace,
    Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Setting {
    Either,
    Create,
    Replace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Time {
    Now,
    Omit,
    At { seconds: i64, nanoseconds: i64 },
}

/// A flag of `open`; without one of the first two a file is opened for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Flag {
    WriteOnly,
    ReadWrite,
    Create,
    Exclusive,
    Truncate,
    Append,
    Nameless,
    Direct,
    NoFollow,
    Directory,
    PathOnly,
    Synchronous,
}

impl Flag {
    /// What the system calls it.
    pub(crate) fn bits(self) -> OFlags {
        match self {
            Self::WriteOnly => OFlags::WRONLY,
            Self::ReadWrite => OFlags::RDWR,
            Self::Create => OFlags::CREATE,
            Self::Exclusive => OFlags::EXCL,
            Self::Truncate => OFlags::TRUNC,
            Self::Append => OFlags::APPEND,
            Self::Nameless => OFlags::TMPFILE,
            Self::Direct => OFlags::DIRECT,
            Self::NoFollow => OFlags::NOFOLLOW,
            Self::Directory => OFlags::DIRECTORY,
            Self::PathOnly => OFlags::PATH,
            Self::Synchronous => OFlags::SYNC,
        }
    }
}

impl On {
    fn path(&self) -> Option<&str> {
        match self {
            Self::Slot(_) => None,
            Self::Path(path) | Self::Itself(path) => Some(path),
        }
    }

    fn slot(&self) -> Option<usize> {
        if let Self::Slot(slot) = self { Some(*slot) } else { None }
    }
}

impl Call {
    /// The paths that it names.
    pub(crate) fn paths(&self) -> Vec<&str> {
        match self {
            Self::Open { path, .. }
            | Self::Map { path, .. }
            | Self::Symlink { path, .. }
            | Self::ReadLink { path }
            | Self::MakeDirectory { path, .. }
            | Self::MakePipe { path, .. }
            | Self::RemoveDirectory { path }
            | Self::Unlink { path }
            | Self::List { path, .. }
            | Self::Access { path, .. } => vec![path],
            Self::Rename { from, to, .. } | Self::Link { from, to, .. } => vec![from, to],
            Self::Name { to, .. } => vec![to],
            _ => self.on().and_then(On::path).into_iter().collect(),
        }
    }

    /// The open files that it names.
    pub(crate) fn slots(&self) -> Vec<usize> {
        match self {
            Self::Open { slot, .. }
            | Self::Close { slot }
            | Self::Read { slot, .. }
            | Self::Write { slot, .. }
            | Self::Seek { slot, .. }
            | Self::Holes { slot }
            | Self::SetLength { slot, .. }
            | Self::Allocate { slot, .. }
            | Self::Sync { slot, .. }
            | Self::Lock { slot, .. }
            | Self::Name { slot, .. } => vec![*slot],
            Self::Copy { from, to, .. } => vec![*from, *to],
            _ => self.on().and_then(On::slot).into_iter().collect(),
        }
    }

    fn on(&self) -> Option<&On> {
        match self {
            Self::Stat { on }
            | Self::ChangeMode { on, .. }
            | Self::ChangeOwner { on, .. }
            | Self::SetTimes { on, .. }
            | Self::SetAttribute { on, .. }
            | Self::GetAttribute { on, .. }
            | Self::ListAttributes { on }
            | Self::RemoveAttribute { on, .. } => Some(on),
            _ => None,
        }
    }
}

/// Names that are long or strange, as steps write them, and as they are.
const STRANGE: [(&str, &[u8]); 3] =
    [("LONG", &[b'l'; 255]), ("TOOLONG", &[b't'; 256]), ("ODD", b"\xff\xfe \n\"\\")];

/// The path that the one of a step stands for.
pub(crate) fn expand(path: &str) -> Vec<u8> {
    let part = |part: &str| {
        let strange = STRANGE.iter().find(|(short, _)| *short == part);
        strange.map_or(part.as_bytes(), |(_, name)| name).to_vec()
    };
    path.split('/').map(part).collect::<Vec<_>>().join(&b'/')
}

/// The other way round.
pub(crate) fn shorten(path: &[u8]) -> String {
    let part = |part: &[u8]| {
        let strange = STRANGE.iter().find(|(_, name)| *name == part);
        let plain = || String::from_utf8_lossy(part).into_owned();
        strange.map_or_else(plain, |(short, _)| (*short).to_owned())
    };
    path.split(|&byte| byte == b'/').map(part).collect::<Vec<_>>().join("/")
}
