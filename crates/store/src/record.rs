//! Log records: physical, idempotent puts and deletes of everything a target keeps durably.
//!
//! Invariant: applying a record twice, or a run of records again from any earlier point, ends in
//! the same state; so a snapshot may be fuzzy. A tag that this version does not know means the
//! store was written by a newer one. Deliberately without file data: heads and chunks are written
//! beside the log.

use ringfs_wire::{
    Attributes, DecodeError, Generation, InodeNumber, InodeType, Name, OperationId, Reader,
    SessionId, Step, StepResult, TargetId, Timestamp, Wire, XattrName,
};

/// Longest reply a slot keeps, in bytes.
pub const MAX_REPLY_LEN: usize = 256;

/// Low bits of a directory cookie that tell apart names of one hash.
pub const COLLISION_BITS: u32 = 4;

/// First cookie of a real entry; smaller ones stand for `.` and `..` where they are shown.
pub const FIRST_COOKIE: u64 = 1 << COLLISION_BITS;

/// Implements [`Wire`] for a struct as its fields in order.
macro_rules! record_struct {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(Wire::put(&self.$field, out);)*
            }
            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self { $($field: Wire::get(reader)?),* })
            }
        }
    };
}

/// Size classes of head slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SlotClass {
    /// 4 KiB.
    Kib4 = 0,
    /// 8 KiB.
    Kib8 = 1,
    /// 16 KiB.
    Kib16 = 2,
    /// 32 KiB.
    Kib32 = 3,
    /// 64 KiB: a whole head.
    Kib64 = 4,
}

impl SlotClass {
    /// All classes, smallest first.
    pub const ALL: [Self; 5] = [Self::Kib4, Self::Kib8, Self::Kib16, Self::Kib32, Self::Kib64];

    /// Bytes in a slot of this class.
    pub const fn bytes(self) -> u64 {
        4096 << self as u8
    }

    /// The smallest class that holds `len` bytes, at most a whole head.
    pub fn holding(len: u64) -> Self {
        *Self::ALL.iter().find(|class| class.bytes() >= len).unwrap_or(&Self::Kib64)
    }
}

impl Wire for SlotClass {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let index = usize::from(u8::get(reader)?);
        Self::ALL.get(index).copied().ok_or(DecodeError::Invalid("slot class"))
    }
}

/// Where the head of a file lies in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeadSlot {
    /// Size of the slot.
    pub class: SlotClass,
    /// Number of the slot within its class.
    pub index: u32,
}
record_struct!(HeadSlot { class, index });

/// What only some inodes have; boxed, because most have none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RareFields {
    /// Target of a symlink, else empty.
    pub symlink: Vec<u8>,
    /// A directory's name in its parent.
    pub name: Option<Name>,
    /// Born without a name, and never given one: unlike a file that lost its last name, it may be.
    pub never_named: bool,
}
record_struct!(RareFields { symlink, name, never_named });

/// One inode as its home keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// What `stat` shows.
    pub attributes: Attributes,
    /// Where the head lies, if a byte of it was ever written. Changed by [`Inode::place_head`].
    pub head: Option<HeadSlot>,
    /// Symlink target, directory name, whether it is still to be named.
    pub rare: Option<Box<RareFields>>,
}

impl Inode {
    /// An inode without head, symlink target or name.
    pub fn new(attributes: Attributes) -> Self {
        Self { attributes, head: None, rare: None }
    }

    /// The same with a symlink target.
    pub fn with_symlink(mut self, symlink: Vec<u8>) -> Self {
        if !symlink.is_empty() {
            self.rare.get_or_insert_default().symlink = symlink;
        }
        self
    }

    /// The same with a name in its parent.
    pub fn with_name(mut self, name: Name) -> Self {
        self.rare.get_or_insert_default().name = Some(name);
        self
    }

    /// The same without a name, until it is given its first.
    pub fn without_name(mut self) -> Self {
        self.attributes.links = 0;
        self.rare.get_or_insert_default().never_named = true;
        self
    }

    /// Whether it was born without a name and has had none since.
    pub fn was_never_named(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.never_named)
    }

    /// It has a name now.
    pub(crate) fn forget_namelessness(&mut self) {
        if self.was_never_named() {
            self.rare = None;
        }
    }

    /// The head lies in another slot now, or in none; the space it takes is accounted.
    pub fn place_head(&mut self, head: Option<HeadSlot>) {
        let bytes = |head: Option<HeadSlot>| head.map_or(0, |slot| slot.class.bytes());
        let others = self.attributes.allocated.saturating_sub(bytes(self.head));
        self.attributes.allocated = others.saturating_add(bytes(head));
        self.head = head;
    }

    /// No chunk of it is left: what it takes is its head.
    pub fn lose_chunks(&mut self) {
        self.attributes.allocated = self.head.map_or(0, |slot| slot.class.bytes());
    }

    /// Target of a symlink, else empty.
    pub fn symlink(&self) -> &[u8] {
        self.rare.as_ref().map_or(&[], |rare| &rare.symlink)
    }

    /// A directory's name in its parent.
    pub fn name(&self) -> Option<&Name> {
        self.rare.as_ref()?.name.as_ref()
    }
}

impl Wire for Inode {
    fn put(&self, out: &mut Vec<u8>) {
        self.attributes.put(out);
        self.head.put(out);
        self.rare.is_some().put(out);
        if let Some(rare) = &self.rare {
            rare.put(out);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            attributes: Wire::get(reader)?,
            head: Wire::get(reader)?,
            rare: Option::<RareFields>::get(reader)?.map(Box::new),
        })
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dentry {
    /// The directory.
    pub directory: InodeNumber,
    /// 59-bit hash of the name, then [`COLLISION_BITS`]; at least [`FIRST_COOKIE`].
    pub cookie: u64,
    /// The name.
    pub name: Name,
    /// What it names.
    pub inode: InodeNumber,
    /// The type of that.
    pub kind: InodeType,
}
record_struct!(Dentry { directory, cookie, name, inode, kind });

/// An operation this target has promised to carry out if its coordinator says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The operation.
    pub operation: OperationId,
    /// Steps at this home, and what each answered.
    pub steps: Vec<(Step, StepResult)>,
    /// The time the operation stamps.
    pub now: Timestamp,
}
record_struct!(Prepared { operation, steps, now });

/// A cut that the home has decided and the chunk owners have yet to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCut {
    /// The file.
    pub inode: InodeNumber,
    /// Requests with an older generation are refused from the cut on.
    pub generation: Generation,
    /// First byte that goes.
    pub length: u64,
    /// Highest byte that may exist.
    pub reach: u64,
    /// Bytes in a chunk of the file.
    pub chunk_size: u32,
    /// Whether the inode is gone.
    pub final_cut: bool,
}
record_struct!(PendingCut { inode, generation, length, reach, chunk_size, final_cut });

/// What a chunk owner remembers of the cuts of one inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Lowest generation accepted.
    pub generation: Generation,
    /// Bytes in a chunk of the file.
    pub chunk_size: u32,
    /// The newest cut is not carried out yet: first byte that goes.
    pub pending: Option<u64>,
    /// Cuts are carried out but not durable: first byte that went. A power cut may bring bytes
    /// from here on back, so they are dropped again after one.
    pub unsettled: Option<u64>,
}
record_struct!(Floor { generation, chunk_size, pending, unsettled });

/// A series of numbers that are never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RangeKind {
    /// Sequence parts of inode numbers.
    Inode = 1,
    /// Numbers of operations this target coordinates.
    Operation = 2,
}

impl Wire for RangeKind {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self as u8);
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(reader)? {
            1 => Ok(Self::Inode),
            2 => Ok(Self::Operation),
            _ => Err(DecodeError::Invalid("range kind")),
        }
    }
}

macro_rules! records {
    ($(
        $(#[$doc:meta])*
        $tag:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }
    )*) => {
        /// One change of the durable state.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Record {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: $type),* },)*
        }

        impl Wire for Record {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name { $($field),* } => {
                        out.push($tag);
                        $(Wire::put($field, out);)*
                    })*
                }
            }
            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match u8::get(reader)? {
                    $($tag => Ok(Self::$name { $($field: Wire::get(reader)?),* }),)*
                    _ => Err(UNKNOWN_TAG),
                }
            }
        }
    };
}

/// What decoding answers for a record of a newer version.
pub(crate) const UNKNOWN_TAG: DecodeError = DecodeError::Invalid("record tag");

records! {
    /// An inode is as given.
    1 PutInode {
        /// The inode.
        inode: Inode,
    }
    /// There is no such inode, and none of its extended attributes.
    2 DeleteInode {
        /// Its number.
        inode: InodeNumber,
    }
    /// A name is as given.
    3 PutDentry {
        /// The name.
        dentry: Dentry,
    }
    /// There is no such name.
    4 DeleteDentry {
        /// The directory.
        directory: InodeNumber,
        /// The name's key in it.
        cookie: u64,
    }
    /// A session is known here.
    5 PutSession {
        /// The session.
        session: SessionId,
        /// The session that holds the leases of the same process; zero where nothing is cached.
        holder: SessionId,
    }
    /// The session has ended; its slots go with it.
    6 DeleteSession {
        /// The session.
        session: SessionId,
    }
    /// A mutation was executed: how it was answered.
    7 PutSlot {
        /// The session, which must be known.
        session: SessionId,
        /// The slot.
        slot: u16,
        /// The mutation's number within the slot.
        sequence: u64,
        /// Body of the successful reply, at most [`MAX_REPLY_LEN`] bytes.
        reply: Vec<u8>,
    }
    /// An operation is prepared here.
    8 PutPrepared {
        /// The operation.
        prepared: Prepared,
    }
    /// The operation is settled here.
    9 DeletePrepared {
        /// The operation.
        operation: OperationId,
    }
    /// An operation that this target coordinates is committed.
    10 PutCommitted {
        /// The operation.
        operation: OperationId,
        /// Who has yet to carry it out durably.
        participants: Vec<TargetId>,
    }
    /// All participants have settled the operation.
    11 DeleteCommitted {
        /// The operation.
        operation: OperationId,
    }
    /// Chunk owners have yet to be told of a cut.
    12 PutCut {
        /// The cut.
        cut: PendingCut,
    }
    /// All owners know of the cut.
    13 DeleteCut {
        /// The file.
        inode: InodeNumber,
    }
    /// A chunk owner's memory of cuts.
    14 PutFloor {
        /// The file.
        inode: InodeNumber,
        /// The memory.
        floor: Floor,
    }
    /// Nothing older can arrive any more.
    15 DeleteFloor {
        /// The file.
        inode: InodeNumber,
    }
    /// Numbers below `end` may have been used.
    16 PutRange {
        /// Which numbers.
        kind: RangeKind,
        /// First number that is certainly unused.
        end: u64,
    }
    /// An extended attribute is as given.
    17 PutXattr {
        /// The inode, which must exist; the attribute goes with it.
        inode: InodeNumber,
        /// The attribute.
        name: XattrName,
        /// Its value.
        value: Vec<u8>,
    }
    /// There is no such extended attribute.
    18 DeleteXattr {
        /// The inode.
        inode: InodeNumber,
        /// The attribute.
        name: XattrName,
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
