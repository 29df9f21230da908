//! The pieces of a namespace operation. Each step changes state at one home; an operation whose
//! steps lie at several homes runs them as one two-phase commit.

use crate::attributes::{FilePermissions, InodeType};
use crate::codec::{wire_enum, wire_struct};
use crate::ids::InodeNumber;
use crate::name::Name;
use crate::xattrs::XattrName;

/// One change at one home. Steps are messages and, in a prepare, log records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Enter a name in a directory. The name must be free, or hold exactly `replaces`.
    PutName {
        /// The directory; at this home.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it shall name.
        inode: InodeNumber,
        /// Its type.
        kind: InodeType,
        /// The inode that the name must hold now and loses.
        replaces: Option<InodeNumber>,
    },
    /// Remove a name. It must hold exactly `inode`.
    TakeName {
        /// The directory; at this home.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// What it must hold.
        inode: InodeNumber,
    },
    /// Create a directory inode with a number this home allocates from `field`.
    CreateDirectory {
        /// Hash field of the new number; belongs to this home.
        field: u32,
        /// Its parent.
        parent: InodeNumber,
        /// Its name there.
        name: Name,
        /// Mode and owner.
        permissions: FilePermissions,
        /// Chunk size that new files in it inherit.
        chunk_size: u32,
        /// Extended attributes it inherits from its parent.
        xattrs: Vec<(XattrName, Vec<u8>)>,
    },
    /// One more name for an inode that is no directory.
    AddLink {
        /// The inode; at this home.
        inode: InodeNumber,
    },
    /// One name less for an inode that is no directory.
    DropLink {
        /// The inode; at this home.
        inode: InodeNumber,
    },
    /// Remove a directory inode, which must be empty.
    DropDirectory {
        /// The directory; at this home.
        inode: InodeNumber,
    },
    /// An inode was renamed: its change time moves, a directory learns its new parent and name.
    Move {
        /// The inode; at this home.
        inode: InodeNumber,
        /// Its new directory.
        directory: InodeNumber,
        /// Its new name.
        name: Name,
    },
    /// Hold the lock under which directories change parents; at the home of the root.
    LockRenames {},
}
wire_enum!(Step, "step" {
    1 => PutName { directory, name, inode, kind, replaces },
    2 => TakeName { directory, name, inode },
    3 => CreateDirectory { field, parent, name, permissions, chunk_size, xattrs },
    4 => AddLink { inode },
    5 => DropLink { inode },
    6 => DropDirectory { inode },
    7 => Move { inode, directory, name },
    8 => LockRenames {},
});

/// What a prepared step tells the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepResult {
    /// The inode the step is about; for [`Step::CreateDirectory`] the new number.
    pub inode: InodeNumber,
}
wire_struct!(StepResult { inode });
