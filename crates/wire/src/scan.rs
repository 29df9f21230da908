//! What a check of the whole cluster asks of a target: what it keeps, record by record, and the
//! repair of single records.
//!
//! A fact is what one target knows at one moment; only a checker that has the facts of all targets
//! can say whether they fit together. What they may hold by the time a repair arrives is checked
//! again by the target that carries it out.

use crate::attributes::{InodeType, Timestamp};
use crate::codec::{wire_enum, wire_struct};
use crate::ids::{Generation, InodeNumber, OperationId, TargetId};
use crate::messages::DirectoryPlace;
use crate::name::Name;

/// Most facts in one page.
pub const SCAN_PAGE_MAX: u32 = 1_024;

/// One inode as its target keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeFact {
    /// The inode.
    pub inode: InodeNumber,
    /// What it is.
    pub kind: InodeType,
    /// Names it counts.
    pub links: u32,
    /// Its size, as in its attributes.
    pub size: u64,
    /// Version of its content.
    pub generation: Generation,
    /// Highest announced byte beyond the head.
    pub reach: u64,
    /// Bytes in a chunk.
    pub chunk_size: u32,
    /// Last change of attributes.
    pub changed: Timestamp,
    /// Where its head lies.
    pub head: Option<HeadPlace>,
    /// Somebody has it open, or may have.
    pub open: bool,
    /// An operation is at work on it.
    pub busy: bool,
    /// What there is more to a directory.
    pub directory: Option<DirectoryFact>,
}
wire_struct!(InodeFact {
    inode,
    kind,
    links,
    size,
    generation,
    reach,
    chunk_size,
    changed,
    head,
    open,
    busy,
    directory,
});

/// A slot of the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeadPlace {
    /// Size class, from 0.
    pub class: u8,
    /// Number of the slot within its class.
    pub index: u32,
}
wire_struct!(HeadPlace { class, index });

/// A directory as its home keeps it. All of it is counted at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryFact {
    /// Where it says that it is; none for the root.
    pub place: Option<DirectoryPlace>,
    /// Names that lie in it.
    pub entries: u64,
    /// How many of these lead to directories.
    pub subdirectories: u32,
}
wire_struct!(DirectoryFact { place, entries, subdirectories });

/// One name as the directory's target keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameFact {
    /// The directory.
    pub directory: InodeNumber,
    /// The name's key in it.
    pub cookie: u64,
    /// The name.
    pub name: Name,
    /// What it leads to.
    pub inode: InodeNumber,
    /// The type of that, as the directory has it.
    pub kind: InodeType,
    /// An operation is at work on it.
    pub busy: bool,
}
wire_struct!(NameFact { directory, cookie, name, inode, kind, busy });

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFact {
    /// The file it belongs to.
    pub inode: InodeNumber,
    /// Which run of chunks.
    pub run: u32,
    /// Bytes it takes on disk.
    pub allocated: u64,
    /// The target counts on it, but it is not on the disk.
    pub missing: bool,
    /// Requests about the file with an older generation are refused here; 0 if none was cut.
    pub generation: Generation,
    /// A cut has yet to be carried out.
    pub cutting: bool,
    /// Bytes in a chunk, as taken for `chunks`.
    pub chunk_size: u32,
    /// Chunks of the file that hold data, as ascending ranges.
    pub chunks: Vec<ChunkRange>,
}
wire_struct!(SegmentFact {
    inode,
    run,
    allocated,
    missing,
    generation,
    cutting,
    chunk_size,
    chunks,
});

/// Chunks of a file, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkRange {
    /// The first.
    pub start: u64,
    /// The first that is not meant.
    pub end: u64,
}
wire_struct!(ChunkRange { start, end });

/// What waits to be ended at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum OpenKind {
    /// An operation that is prepared, whose outcome is not known here.
    Prepared = 0,
    /// A committed operation that not all participants have carried out.
    Committed = 1,
    /// A cut that not all owners know of.
    Cut = 2,
}
wire_enum!(OpenKind, "open kind" {
    0 => Prepared {},
    1 => Committed {},
    2 => Cut {},
});

/// Something that a target has not ended yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpenOperation {
    /// What it is.
    pub kind: OpenKind,
    /// The operation; of a cut, the home and the new generation.
    pub operation: OperationId,
    /// Inodes it is about.
    pub inodes: Vec<InodeNumber>,
    /// Who has yet to settle a committed operation.
    pub participants: Vec<TargetId>,
}
wire_struct!(OpenOperation { kind, operation, inodes, participants });

/// A page of facts.
macro_rules! pages {
    ($($(#[$doc:meta])* $name:ident of $item:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            /// In ascending order of their keys.
            pub items: Vec<$item>,
            /// Whether nothing follows.
            pub end: bool,
        }
        wire_struct!($name { items, end });
    )*};
}
pages! {
    /// Inodes of a target.
    InodePage of InodeFact;
    /// Names of a target.
    NamePage of NameFact;
    /// Segments of a target.
    SegmentPage of SegmentFact;
}

/// Where the reading of a target's files stands. Only the target gives it a meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyCursor {
    /// Which kind of file.
    pub stage: u8,
    /// Which file.
    pub file: u64,
    /// Where in it, in bytes.
    pub offset: u64,
}
wire_struct!(VerifyCursor { stage, file, offset });

/// What is wrong with a file of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DamageKind {
    /// The file is not there.
    Missing = 0,
    /// The file ends before what it must hold.
    Short = 1,
    /// A checksum, or what it covers, is wrong.
    Checksum = 2,
    /// The checksum is right and the content has no meaning.
    Content = 3,
    /// The device did not give the bytes.
    Unreadable = 4,
}
wire_enum!(DamageKind, "damage kind" {
    0 => Missing {},
    1 => Short {},
    2 => Checksum {},
    3 => Content {},
    4 => Unreadable {},
});

/// Damage of a target's files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damage {
    /// Path of the file on the target's machine.
    pub file: Vec<u8>,
    /// Where in it.
    pub offset: u64,
    /// What is wrong.
    pub kind: DamageKind,
}
wire_struct!(Damage { file, offset, kind });

/// Some of a target's files, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyPage {
    /// What is wrong with them.
    pub damages: Vec<Damage>,
    /// Bytes that were read.
    pub bytes: u64,
    /// Where to go on; none at the end.
    pub next: Option<VerifyCursor>,
}
wire_struct!(VerifyPage { damages, bytes, next });

/// A change of one record that makes it fit the others. Each names what it takes to be there; a
/// target at which that is not so any more leaves everything as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Drop all chunks of an inode that does not exist; at their owner.
    DropChunks {
        /// The inode.
        inode: InodeNumber,
    },
    /// Drop chunks that belong to another owner.
    PunchChunks {
        /// The file.
        inode: InodeNumber,
        /// Bytes in a chunk.
        chunk_size: u32,
        /// The chunks.
        chunks: ChunkRange,
    },
    /// Cut off, at every target, what lies beyond the size; at the home.
    CutTail {
        /// The file.
        inode: InodeNumber,
        /// The new generation is higher than this.
        above: Generation,
    },
    /// Correct the number of names of something that is no directory.
    SetLinks {
        /// The inode; at its home.
        inode: InodeNumber,
        /// Its change time.
        changed: Timestamp,
        /// How many names it has.
        links: u32,
    },
    /// Count the entries of a directory anew.
    CountDirectory {
        /// The directory; at its home.
        inode: InodeNumber,
    },
    /// Tell a directory where it is.
    SetPlace {
        /// The directory; at its home.
        inode: InodeNumber,
        /// Its change time.
        changed: Timestamp,
        /// Where its only name lies.
        place: DirectoryPlace,
    },
    /// Give an inode without a name one.
    Adopt {
        /// The directory; the request goes to its home.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it shall lead to.
        inode: InodeNumber,
        /// The type of that.
        kind: InodeType,
    },
    /// Remove an inode that has no name, and no content unless it counts no name either.
    Free {
        /// The inode; at its home.
        inode: InodeNumber,
        /// Its change time.
        changed: Timestamp,
    },
    /// Stop counting on a segment that is not on the disk; at its owner.
    ForgetSegment {
        /// The file.
        inode: InodeNumber,
        /// Which run of chunks.
        run: u32,
    },
    /// Remove a name that leads to nothing.
    DropName {
        /// The directory; at its home.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it leads to.
        inode: InodeNumber,
    },
}
wire_enum!(Repair, "repair" {
    1 => DropChunks { inode },
    2 => PunchChunks { inode, chunk_size, chunks },
    3 => CutTail { inode, above },
    4 => SetLinks { inode, changed, links },
    5 => CountDirectory { inode },
    6 => SetPlace { inode, changed, place },
    7 => Adopt { directory, name, inode, kind },
    8 => Free { inode, changed },
    9 => DropName { directory, name, inode },
    10 => ForgetSegment { inode, run },
});
