//! What can be wrong, in words, and what to do about it.
//!
//! Two looks have seen the same thing when their findings are equal: whatever may change while a
//! cluster is in use is part of a finding.

use std::fmt;

use ringfs_wire::{
    ChunkRange, Damage, DamageKind, DirectoryPlace, Generation, HeadPlace, InodeNumber, InodeType,
    Name, OpenKind, OperationId, Timestamp,
};

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A file of a target is not what was written.
    Damaged {
        /// What and where.
        damage: Damage,
    },
    /// A name leads to an inode that does not exist.
    DanglingName {
        /// The directory.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it leads to.
        inode: InodeNumber,
    },
    /// A name lies in a directory that does not exist.
    NameWithoutDirectory {
        /// The directory.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it leads to.
        inode: InodeNumber,
    },
    /// A name has the type of its inode wrong.
    WrongType {
        /// The directory.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it leads to.
        inode: InodeNumber,
        /// The type it gives.
        given: InodeType,
        /// The type that the inode has.
        kind: InodeType,
    },
    /// An inode that counts names has none.
    Orphan {
        /// The inode.
        inode: InodeNumber,
        /// Its type.
        kind: InodeType,
        /// It holds nothing.
        is_empty: bool,
        /// Its change time.
        changed: Timestamp,
    },
    /// An inode that counts no names, and that nobody has open, is still there.
    Unreleased {
        /// The inode.
        inode: InodeNumber,
        /// Its change time.
        changed: Timestamp,
    },
    /// An inode counts other names than there are.
    WrongLinks {
        /// The inode.
        inode: InodeNumber,
        /// What it counts.
        links: u32,
        /// How many there are.
        names: u32,
        /// Its change time.
        changed: Timestamp,
    },
    /// A directory counts other entries than it has.
    WrongCounts {
        /// The directory.
        inode: InodeNumber,
        /// Entries it counts.
        size: u64,
        /// Entries it has.
        entries: u64,
        /// Links it counts.
        links: u32,
        /// Links it should.
        expected: u32,
    },
    /// A directory says that it is elsewhere than its name.
    WrongPlace {
        /// The directory.
        inode: InodeNumber,
        /// Where its name lies.
        place: DirectoryPlace,
        /// Its change time.
        changed: Timestamp,
    },
    /// A directory has more than one name.
    ManyNames {
        /// The directory.
        inode: InodeNumber,
        /// How many.
        names: u32,
    },
    /// Directories that lie in each other and cannot be reached.
    Cycle {
        /// One of them.
        inode: InodeNumber,
        /// How many.
        count: u64,
    },
    /// A target keeps an inode that belongs to another.
    WrongHome {
        /// The inode.
        inode: InodeNumber,
    },
    /// The head of a file lies where that of another does.
    SharedHead {
        /// The file.
        inode: InodeNumber,
        /// Where.
        head: HeadPlace,
    },
    /// A target keeps chunks of an inode that does not exist.
    LeakedChunks {
        /// The inode.
        inode: InodeNumber,
        /// Bytes they take.
        bytes: u64,
    },
    /// A target keeps chunks beyond everything that was announced.
    ChunksBeyond {
        /// The file.
        inode: InodeNumber,
        /// The first of them.
        chunk: u64,
        /// What was announced.
        reach: u64,
        /// Version of the content.
        generation: Generation,
    },
    /// A target keeps chunks that belong to another.
    ChunksAstray {
        /// The file.
        inode: InodeNumber,
        /// The chunks.
        chunks: ChunkRange,
        /// Bytes in a chunk.
        chunk_size: u32,
    },
    /// A segment that a target counts on is not on its disk.
    SegmentMissing {
        /// The file.
        inode: InodeNumber,
        /// Which run of chunks.
        run: u32,
    },
    /// A target knows of a cut that the file's home does not.
    GenerationAhead {
        /// The file.
        inode: InodeNumber,
        /// Version of the content at the home.
        home: Generation,
        /// Version at the target.
        generation: Generation,
    },
    /// An operation has not ended.
    Unended {
        /// What it is.
        kind: OpenKind,
        /// The operation.
        operation: OperationId,
        /// Inodes it is about.
        inodes: Vec<InodeNumber>,
    },
}

impl Finding {
    /// A short name, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Damaged { .. } => "damaged-file",
            Self::DanglingName { .. } => "dangling-name",
            Self::NameWithoutDirectory { .. } => "name-without-directory",
            Self::WrongType { .. } => "wrong-type",
            Self::Orphan { .. } => "orphan",
            Self::Unreleased { .. } => "unreleased",
            Self::WrongLinks { .. } => "wrong-links",
            Self::WrongCounts { .. } => "wrong-counts",
            Self::WrongPlace { .. } => "wrong-place",
            Self::ManyNames { .. } => "many-names",
            Self::Cycle { .. } => "cycle",
            Self::WrongHome { .. } => "wrong-home",
            Self::SharedHead { .. } => "shared-head",
            Self::LeakedChunks { .. } => "leaked-chunks",
            Self::ChunksBeyond { .. } => "chunks-beyond",
            Self::ChunksAstray { .. } => "chunks-astray",
            Self::SegmentMissing { .. } => "segment-missing",
            Self::GenerationAhead { .. } => "generation-ahead",
            Self::Unended { .. } => "unended-operation",
        }
    }

    /// The inode it is about: of a name, the directory.
    pub fn inode(&self) -> Option<InodeNumber> {
        match self {
            Self::Damaged { .. } => None,
            Self::DanglingName { directory, .. }
            | Self::NameWithoutDirectory { directory, .. }
            | Self::WrongType { directory, .. } => Some(*directory),
            Self::Unended { inodes, .. } => inodes.first().copied(),
            Self::Orphan { inode, .. }
            | Self::Unreleased { inode, .. }
            | Self::WrongLinks { inode, .. }
            | Self::WrongCounts { inode, .. }
            | Self::WrongPlace { inode, .. }
            | Self::ManyNames { inode, .. }
            | Self::Cycle { inode, .. }
            | Self::WrongHome { inode }
            | Self::SharedHead { inode, .. }
            | Self::LeakedChunks { inode, .. }
            | Self::ChunksBeyond { inode, .. }
            | Self::ChunksAstray { inode, .. }
            | Self::SegmentMissing { inode, .. }
            | Self::GenerationAhead { inode, .. } => Some(*inode),
        }
    }

    /// The name it is about.
    pub fn name(&self) -> Option<&Name> {
        match self {
            Self::DanglingName { name, .. }
            | Self::NameWithoutDirectory { name, .. }
            | Self::WrongType { name, .. } => Some(name),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Damaged { damage } => match damage.kind {
                DamageKind::Unreadable => "look at the disk and the kernel's log",
                _ => "restore the file from a copy, or copy out what can be read",
            },
            Self::DanglingName { .. } => "remove the name with --repair --drop-dangling",
            Self::Orphan { is_empty: true, .. } | Self::Unreleased { .. } => "--repair removes it",
            Self::Orphan { .. } => "--repair names it in /lost+found",
            Self::WrongLinks { .. } | Self::WrongCounts { .. } => "--repair counts anew",
            Self::WrongPlace { .. } => "--repair corrects it",
            Self::LeakedChunks { .. } | Self::ChunksAstray { .. } => "--repair drops them",
            Self::ChunksBeyond { .. } => "--repair cuts the file at its size",
            Self::GenerationAhead { .. } => "--repair makes the file writable again",
            Self::SegmentMissing { .. } => {
                "put it back while the node is down, or lose its bytes with --repair --accept-loss"
            }
            Self::ManyNames { .. } => "remove all names but one",
            Self::Unended { .. } => "see `ringfs status` and `ringfs logs`, and check again",
            Self::NameWithoutDirectory { .. }
            | Self::WrongType { .. }
            | Self::Cycle { .. }
            | Self::WrongHome { .. }
            | Self::SharedHead { .. } => "copy out what is needed and report it",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { damage } => show_damage(damage, f),
            Self::DanglingName { inode, .. } => {
                write!(f, "the name leads to inode {inode}, which does not exist")
            }
            Self::NameWithoutDirectory { .. } => f.write_str("the name's directory does not exist"),
            Self::WrongType { inode, given, kind, .. } => {
                write!(f, "the name says that inode {inode} is a {given:?}, but it is a {kind:?}")
            }
            Self::Orphan { is_empty: true, .. } => f.write_str("no name leads to it; it is empty"),
            Self::Orphan { .. } => f.write_str("no name leads to it"),
            Self::Unreleased { .. } => {
                f.write_str("it has lost its last name, nobody has it open, and it is still there")
            }
            Self::WrongLinks { links, names, .. } => {
                write!(f, "it counts {links} name(s) and has {names}")
            }
            Self::WrongCounts { size, entries, links, expected, .. } => write!(
                f,
                "the directory counts {size} entries and {links} links, but has {entries} and \
                 {expected}"
            ),
            Self::WrongPlace { place, .. } => write!(
                f,
                "the directory does not know its place: it is \"{}\" in directory {}",
                place.name, place.parent
            ),
            Self::ManyNames { names, .. } => write!(f, "the directory has {names} names"),
            Self::Cycle { count, .. } => {
                write!(f, "{count} directories lie in each other, out of reach")
            }
            Self::WrongHome { .. } => f.write_str("the inode belongs to another target"),
            Self::SharedHead { head, .. } => write!(
                f,
                "its first bytes lie in slot {} of class {}, where those of another file do",
                head.index, head.class
            ),
            Self::LeakedChunks { bytes, .. } => {
                write!(f, "{bytes} bytes of chunks of an inode that does not exist")
            }
            Self::ChunksBeyond { chunk, reach, .. } => {
                write!(f, "chunk {chunk} lies beyond everything announced ({reach} bytes)")
            }
            Self::ChunksAstray { chunks, .. } => {
                write!(f, "chunks {} to {} belong elsewhere", chunks.start, chunks.end - 1)
            }
            Self::SegmentMissing { run, .. } => {
                write!(f, "segment {run} of the file is gone from the disk")
            }
            Self::GenerationAhead { home, generation, .. } => write!(
                f,
                "the target expects generation {generation} of the content, the home has {home}"
            ),
            Self::Unended { kind, operation, .. } => show_open(*kind, *operation, f),
        }
    }
}

fn show_damage(damage: &Damage, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let file = String::from_utf8_lossy(&damage.file);
    let what = match damage.kind {
        DamageKind::Missing => "the file is missing",
        DamageKind::Short => "the file ends too early",
        DamageKind::Checksum => "wrong checksum",
        DamageKind::Content => "the content has no meaning",
        DamageKind::Unreadable => "cannot be read",
    };
    write!(f, "{file}: damaged at byte {}: {what}", damage.offset)
}

fn show_open(kind: OpenKind, operation: OperationId, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let OperationId { coordinator, number } = operation;
    match kind {
        OpenKind::Prepared => {
            write!(f, "operation {number} of target {coordinator} waits for its outcome")
        }
        OpenKind::Committed => write!(f, "operation {number} is not carried out everywhere"),
        OpenKind::Cut => write!(f, "a cut to generation {number} does not end"),
    }
}
