//! Requests and their replies, one struct each, with the opcode that names them on the wire.
//!
//! A request's bulk (file data) travels beside the body and is not part of these types. Requests
//! marked *mutation* carry a slot and are executed exactly once.

use crate::attributes::{AttributeChanges, Attributes, FilePermissions, InodeType};
use crate::codec::{DecodeError, Reader, Wire, wire_enum, wire_struct};
use crate::file_locks::{FileLock, HeldLock, LockOwner, LockRange, LockReply};
use crate::ids::{Generation, InodeNumber, Lineage, OperationId, SessionId, TargetId};
use crate::lease::Lease;
use crate::name::Name;
use crate::scan::{
    InodePage, NamePage, OpenOperation, Repair, SegmentPage, VerifyCursor, VerifyPage,
};
use crate::status::Status;
use crate::steps::{Step, StepResult};
use crate::xattrs::{XattrMode, XattrName};

/// A request: its opcode, what answers it, and whether it takes a slot.
pub trait Request: Wire {
    /// What a successful reply carries.
    type Reply: Wire;
    /// The number on the wire.
    const OPCODE: u16;
    /// Whether it must be executed exactly once and so carries a slot.
    const MUTATION: bool;
}

macro_rules! requests {
    ($(
        $(#[$doc:meta])*
        $opcode:literal $kind:ident $name:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        } -> $reply:ty;
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
            wire_struct!($name { $($field),* });
            impl Request for $name {
                type Reply = $reply;
                const OPCODE: u16 = $opcode;
                const MUTATION: bool = requests!(@$kind);
            }
        )*

        /// Any request, decoded by its opcode.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is documented at its struct")]
        pub enum AnyRequest { $($name($name),)* }

        impl AnyRequest {
            /// Decodes the body that belongs to `opcode`.
            pub fn decode(opcode: u16, body: &[u8]) -> Result<Self, DecodeError> {
                match opcode {
                    $($opcode => Ok(Self::$name(<$name>::from_bytes(body)?)),)*
                    _ => Err(DecodeError::Invalid("opcode")),
                }
            }

            /// The request's name, for logs.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            /// Whether it carries a slot.
            pub fn is_mutation(&self) -> bool {
                match self { $(Self::$name(_) => <$name as Request>::MUTATION,)* }
            }
        }
    };
    (@query) => { false };
    (@mutation) => { true };
}

requests! {
    /// Find a name in a directory, or with no name the inode itself; optionally open it. A name
    /// whose inode lives elsewhere is answered without attributes and not opened.
    0x10 query MetadataLookup {
        /// The directory, or the inode itself when `name` is absent.
        directory: InodeNumber,
        /// The name to find.
        name: Option<Name>,
        /// Take a reference on the inode for the session, if it lives here too.
        open: bool,
        /// Send the head of a regular file as bulk, if the inode lives here too.
        head: bool,
        /// With the head: move the access time if it is due.
        touch: bool,
        /// What the session's holder wants to cache of the inode found; with a name and
        /// [`Lease::CONTENT`], of the directory if the name is missing.
        lease: Lease,
    } -> LookupReply;

    /// Create an inode and its name. Directories may span two homes. *Mutation.*
    0x11 mutation MetadataCreate {
        /// The directory; the request goes to its home.
        directory: InodeNumber,
        /// The new name.
        name: Name,
        /// What to create.
        kind: InodeType,
        /// Mode and owner.
        permissions: FilePermissions,
        /// Mode bits to clear, unless the directory has a default ACL; zero where the caller has
        /// done so.
        umask: u32,
        /// Device number of a device node, else 0.
        device: u64,
        /// Target of a symlink, else empty.
        symlink: Vec<u8>,
        /// Fail with `EEXIST` if the name exists; otherwise an existing regular file is the reply.
        /// With it, bulk is what a regular file begins with: at most a head.
        exclusive: bool,
        /// Take a reference on the result for the session.
        open: bool,
        /// What the session's holder wants to cache of the result.
        lease: Lease,
    } -> CreateReply;

    /// Remove a name and, when it was the last, the inode. *Mutation.*
    0x12 mutation MetadataDelete {
        /// The directory; the request goes to its home.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// `rmdir` instead of `unlink`.
        is_directory: bool,
    } -> DeleteReply;

    /// Change attributes, including the size (truncate). *Mutation.*
    0x13 mutation MetadataUpdate {
        /// The inode; the request goes to its home.
        inode: InodeNumber,
        /// What to change.
        changes: AttributeChanges,
    } -> Attributes;

    /// Attributes of several inodes of one home.
    0x14 query AttributesGet {
        /// The inodes, at most 1,024.
        inodes: Vec<InodeNumber>,
        /// What the session's holder wants to cache of each.
        lease: Lease,
        /// The parent and name under which a directory, the only inode asked for, was found; with
        /// [`Lease::NAMES`], which is granted only if that is where it is.
        named: Option<DirectoryPlace>,
    } -> Vec<AttributesResult>;

    /// Give a name to an existing inode. *Mutation.*
    0x15 mutation Link {
        /// The inode, no directory.
        inode: InodeNumber,
        /// Its type, as the caller knows it.
        kind: InodeType,
        /// The directory of the new name; the request goes to its home.
        directory: InodeNumber,
        /// The new name.
        name: Name,
    } -> ();

    /// Move a name. *Mutation.*
    0x16 mutation Rename {
        /// Directory of the old name.
        from_directory: InodeNumber,
        /// The old name.
        from_name: Name,
        /// Directory of the new name; the request goes to its home.
        to_directory: InodeNumber,
        /// The new name.
        to_name: Name,
        /// What happens to an inode that has the new name.
        mode: RenameMode,
    } -> ();

    /// A page of a directory.
    0x17 query ReadDirectory {
        /// The directory.
        directory: InodeNumber,
        /// Cookie of the last entry seen; 0 starts.
        after: u64,
        /// Most entries wanted.
        limit: u32,
        /// What the session's holder wants to cache of each inode that lives here.
        lease: Lease,
        /// Whether the access time of the directory moves, if it is due.
        touch: bool,
    } -> DirectoryPage;

    /// The target of a symlink.
    0x18 query ReadLink {
        /// The symlink.
        inode: InodeNumber,
        /// Whether its access time moves, if it is due.
        touch: bool,
    } -> Vec<u8>;

    /// Read from the head. The bulk of the reply may be shorter than asked: the rest is zeros up
    /// to the size.
    0x20 query HeadRead {
        /// The file.
        inode: InodeNumber,
        /// First byte, below the head size.
        offset: u64,
        /// Bytes wanted.
        length: u32,
        /// Whether the access time moves, if it is due: somebody reads, here or beyond the head.
        touch: bool,
    } -> HeadReadReply;

    /// Write into the head and extend the file when it ends later. *Mutation.*
    0x21 mutation HeadWrite {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the writer.
        generation: Generation,
        /// First byte; offset + bulk length stays within the head.
        offset: u64,
        /// Ask others for what they cache, and do not wait for them: for dirty pages, which the
        /// writer itself cannot drop before it is answered. A later *Sync* waits.
        lazy: bool,
        /// Bytes that owners have reported as allocated for chunks of the file, less those freed,
        /// and that the home has not been told of.
        allocated: i64,
    } -> Attributes;

    /// Announce writes beyond the head up to `reach`, before the first of them. *Mutation.*
    0x22 mutation Reserve {
        /// The file.
        inode: InodeNumber,
        /// Highest byte offset the caller may write.
        reach: u64,
    } -> Attributes;

    /// Chunks are written up to `end`: the file extends to there at least, and its times move.
    /// *Mutation.*
    0x23 mutation Extend {
        /// The file.
        inode: InodeNumber,
        /// Content generation the chunks were written under.
        generation: Generation,
        /// Highest contiguous end written.
        end: u64,
        /// The write lay within the size, which must not grow: stale if `end` is beyond it.
        overwrite: bool,
        /// As in [`HeadWrite`].
        lazy: bool,
        /// As in [`HeadWrite`].
        allocated: i64,
    } -> Attributes;

    /// Write the bulk into a chunk that the home itself owns, and extend the file to its end: what
    /// *ChunkWrite* and *Extend* do one after the other. *Mutation.*
    0x2b mutation ChunkWriteExtend {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the writer.
        generation: Generation,
        /// Bytes in a chunk of this file.
        chunk_size: u32,
        /// First byte, by its offset in the file; everything lies within one chunk.
        offset: u64,
        /// As in [`Extend`].
        overwrite: bool,
        /// As in [`HeadWrite`].
        lazy: bool,
        /// As in [`HeadWrite`], without what this write allocates.
        allocated: i64,
    } -> Attributes;

    /// A write beyond the size failed half-way: cut what it may have left. *Mutation.*
    0x24 mutation DiscardTail {
        /// The file.
        inode: InodeNumber,
        /// As in [`HeadWrite`].
        allocated: i64,
    } -> Attributes;

    /// Append the bulk at the end of the file, wherever that is. *Mutation.*
    0x25 mutation Append {
        /// The file.
        inode: InodeNumber,
    } -> AppendReply;

    /// Read from a chunk. The bulk of the reply may be shorter than asked: the rest is a hole.
    0x28 query ChunkRead {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the reader.
        generation: Generation,
        /// Bytes in a chunk of this file.
        chunk_size: u32,
        /// First byte, by its offset in the file.
        offset: u64,
        /// Bytes wanted; within one chunk.
        length: u32,
    } -> ();

    /// Write the bulk into a chunk. Idempotent under its generation.
    0x29 query ChunkWrite {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the writer.
        generation: Generation,
        /// Bytes in a chunk of this file.
        chunk_size: u32,
        /// First byte, by its offset in the file; the bulk stays within one chunk.
        offset: u64,
    } -> SpaceChange;

    /// Make durable what this target holds of one inode (its chunks, or its attributes, head and
    /// names), or of everything.
    0x2a query Sync {
        /// The inode, or everything.
        inode: Option<InodeNumber>,
    } -> ();

    /// Change references of the session on inodes of this home. A reference is held or not, it
    /// does not count, so repeating this is harmless.
    0x30 query References {
        /// Inodes newly referenced.
        take: Vec<InodeNumber>,
        /// Inodes no longer referenced.
        drop: Vec<InodeNumber>,
    } -> ();

    /// Keep the session alive.
    0x31 query SessionRenew {} -> ();

    /// End the session: its references are dropped and its slots forgotten.
    0x32 query SessionClose {} -> ();

    /// Wait until leases of the session are asked back, at most about a second. Keeps the session
    /// alive, and with it every lease it holds here.
    0x33 query LeasePoll {
        /// Highest number seen in an answer of this incarnation; 0 at first.
        after: u64,
        /// The incarnation known; 0 at first. One that is not current is answered at once, and
        /// nothing that was leased before is valid any more.
        incarnation: u64,
    } -> LeasePollReply;

    /// Give leases back: because they were asked back, or because they are not wanted any more.
    /// Until this is answered the holder asks for no lease on these inodes and ignores those it
    /// is given, because this may take them away again.
    0x34 query LeaseRelease {
        /// What is no longer cached.
        releases: Vec<(InodeNumber, Lease)>,
    } -> ();

    /// The cluster map, encoded by the placement crate.
    0x40 query MapGet {} -> Vec<u8>;

    /// What a target holds.
    0x41 query StatusGet {} -> TargetStatus;

    /// Stop the whole node in order, after syncing.
    0x42 query Shutdown {} -> ();

    /// Answer at once; measures the round trip.
    0x43 query Echo {} -> ();

    /// Check and lock steps of an operation, durably. Never waits: answers busy. Between servers.
    0x50 query Prepare {
        /// The operation.
        operation: OperationId,
        /// Steps at this home; several prepares of one operation add up.
        steps: Vec<Step>,
        /// Whose leases the operation spares; zero for nobody's.
        holder: SessionId,
    } -> PrepareReply;

    /// The outcome of a prepared operation. Between servers.
    0x51 query Decide {
        /// The operation.
        operation: OperationId,
        /// Apply (true) or release (false).
        commit: bool,
    } -> ();

    /// Ask a coordinator how an operation ended. Between servers.
    0x52 query OutcomeGet {
        /// The operation.
        operation: OperationId,
    } -> Outcome;

    /// Raise the generation of an inode's chunks here and drop everything from `length` on,
    /// durably. Between servers.
    0x53 query Cut {
        /// The inode.
        inode: InodeNumber,
        /// Requests with an older generation are refused from now on.
        generation: Generation,
        /// First byte that goes.
        length: u64,
        /// Bytes in a chunk of this file.
        chunk_size: u32,
    } -> SpaceChange;

    /// The name a directory holds for an inode, without waiting for locks. Between servers.
    0x54 query PeekName {
        /// The directory.
        directory: InodeNumber,
        /// The name.
        name: Name,
    } -> PeekReply;

    /// Make the part of a range that lies in the head and below the size a hole. *Mutation.*
    0x63 mutation HeadPunch {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the caller.
        generation: Generation,
        /// First byte.
        start: u64,
        /// End of the range, within the head.
        end: u64,
        /// As in [`HeadWrite`].
        allocated: i64,
    } -> Attributes;

    /// Reserve space for the head up to `end`; bytes, size and times stay as they are. *Mutation.*
    0x69 mutation HeadAllocate {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the caller.
        generation: Generation,
        /// End of the range, within the head.
        end: u64,
    } -> Attributes;

    /// Where a target's chunks of a file hold data.
    0x60 query ChunkExtents {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the reader.
        generation: Generation,
        /// Bytes in a chunk of this file.
        chunk_size: u32,
        /// First byte of interest, by its offset in the file.
        offset: u64,
        /// Most extents wanted; the target may send fewer.
        limit: u32,
    } -> ExtentsReply;

    /// Make what a target has of a range a hole. Idempotent under its generation.
    0x61 query ChunkPunch {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the caller.
        generation: Generation,
        /// Bytes in a chunk of this file.
        chunk_size: u32,
        /// First byte, by its offset in the file, beyond the head.
        start: u64,
        /// End of the range.
        end: u64,
    } -> SpaceChange;

    /// Reserve space for those chunks of a range that the target owns; bytes stay as they are.
    /// Idempotent under its generation.
    0x62 query ChunkAllocate {
        /// The file.
        inode: InodeNumber,
        /// Content generation known to the caller.
        generation: Generation,
        /// Bytes in a chunk of this file.
        chunk_size: u32,
        /// First byte, by its offset in the file, beyond the head.
        start: u64,
        /// End of the range, which spans at most [`ALLOCATE_CHUNKS_MAX`] chunks.
        end: u64,
    } -> SpaceChange;

    /// A lock of somebody else that excludes one; none if it could be had.
    0x64 query LockTest {
        /// The inode; the request goes to its home.
        inode: InodeNumber,
        /// The lock.
        lock: FileLock,
    } -> Option<FileLock>;

    /// Lock a range, whatever the owner had of it before. Repeating it does nothing more.
    0x65 query LockSet {
        /// The inode; the request goes to its home.
        inode: InodeNumber,
        /// The lock wanted.
        lock: FileLock,
        /// Queue for it if others hold it, instead of `EAGAIN`; asked again soon, it keeps its
        /// place.
        wait: bool,
        /// With `wait`: be answered when it is granted, or after a second.
        park: bool,
        /// Tells this wish from others of its owner.
        ticket: u64,
        /// The number under which the home keeps the client's locks, 0 if it has not told one.
        registration: u64,
    } -> LockReply;

    /// Unlock a range. Repeating it does nothing more.
    0x66 query LockClear {
        /// The inode; the request goes to its home.
        inode: InodeNumber,
        /// Whose lock.
        owner: LockOwner,
        /// What to unlock.
        range: LockRange,
        /// As in [`LockSet`].
        registration: u64,
    } -> LockReply;

    /// Give a wish up. If it was granted, the range is again as it was.
    0x67 query LockCancel {
        /// The inode; the request goes to its home.
        inode: InodeNumber,
        /// Whose wish.
        owner: LockOwner,
        /// The range it was for.
        range: LockRange,
        /// The wish.
        ticket: u64,
        /// What the owner holds within the range.
        held: Vec<FileLock>,
    } -> ();

    /// All locks that the client process holds at this home, which may have forgotten them.
    0x68 query LocksRestate {
        /// The number under which they were kept.
        registration: u64,
        /// The locks.
        locks: Vec<HeldLock>,
    } -> ();

    /// Set an extended attribute. An access control list changes the mode with it. *Mutation.*
    0x70 mutation SetXattr {
        /// The inode; the request goes to its home.
        inode: InodeNumber,
        /// The attribute.
        name: XattrName,
        /// Its new value, at most 64 KiB.
        value: Vec<u8>,
        /// What happens when it exists, or does not.
        mode: XattrMode,
        /// With an access control list: clear setgid, because the caller is not of the group.
        kill_sgid: bool,
    } -> Attributes;

    /// Remove an extended attribute. *Mutation.*
    0x71 mutation RemoveXattr {
        /// The inode; the request goes to its home.
        inode: InodeNumber,
        /// The attribute.
        name: XattrName,
    } -> Attributes;

    /// The value of an extended attribute; `ENODATA` if there is none.
    0x72 query GetXattr {
        /// The inode.
        inode: InodeNumber,
        /// The attribute.
        name: XattrName,
    } -> Vec<u8>;

    /// Create a regular file without a name, and take a reference on it for the session. [`Link`]
    /// may give it its first name; otherwise it goes with its last reference. *Mutation.*
    0x74 mutation CreateNameless {
        /// The directory whose home keeps it, and from which it inherits.
        directory: InodeNumber,
        /// Mode and owner.
        permissions: FilePermissions,
        /// Mode bits to clear, unless the directory has a default ACL.
        umask: u32,
        /// What the session's holder wants to cache of it.
        lease: Lease,
    } -> CreateReply;

    /// The extended attributes of an inode, in the order of their names.
    0x73 query ListXattrs {
        /// The inode.
        inode: InodeNumber,
    } -> Vec<XattrName>;

    /// A page of the inodes that a target keeps, for a check.
    0x80 query ScanInodes {
        /// The last one seen; 0 starts.
        after: InodeNumber,
        /// Most wanted; at most [`SCAN_PAGE_MAX`](crate::SCAN_PAGE_MAX) are sent.
        limit: u32,
    } -> InodePage;

    /// A page of the names that a target keeps, for a check.
    0x81 query ScanNames {
        /// Directory of the last one seen; 0 starts.
        directory: InodeNumber,
        /// Its cookie.
        cookie: u64,
        /// Most wanted.
        limit: u32,
    } -> NamePage;

    /// A page of the segments that a target keeps, for a check.
    0x82 query ScanSegments {
        /// Inode of the last one seen; 0 starts.
        inode: InodeNumber,
        /// Its run.
        run: u32,
        /// Most wanted.
        limit: u32,
    } -> SegmentPage;

    /// What a target has not ended yet, for a check.
    0x83 query ScanOperations {} -> Vec<OpenOperation>;

    /// Read some of the target's own files and compare their checksums, for a check.
    0x84 query Verify {
        /// Where to go on; the default starts.
        cursor: VerifyCursor,
    } -> VerifyPage;

    /// Correct a record, durably; false if what it names is not so any more. Repeating it is
    /// harmless. For a check, and between servers.
    0x85 query RepairRecord {
        /// What to do.
        repair: Repair,
    } -> bool;
}

/// Most chunks that the range of one [`ChunkAllocate`] spans.
pub const ALLOCATE_CHUNKS_MAX: u64 = 1_024;

/// Most extents in one reply to [`ChunkExtents`].
pub const EXTENTS_MAX: u32 = 4_096;

/// A range of a file that may hold something else than zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte, by its offset in the file.
    pub start: u64,
    /// End.
    pub end: u64,
}
wire_struct!(Extent { start, end });

/// Body of a reply to [`ChunkExtents`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtentsReply {
    /// In ascending order.
    pub extents: Vec<Extent>,
    /// Up to where in the file these are all; the greatest number when none follow.
    pub until: u64,
}
wire_struct!(ExtentsReply { extents, until });

/// What a change of chunks did to the space they take, as their owner reports it. A hint: a
/// request that is repeated reports nothing again, and what of a cut lies in a file that is empty
/// afterwards, or gone, is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceChange {
    /// Bytes allocated, less bytes freed.
    pub allocated: i64,
}
wire_struct!(SpaceChange { allocated });

/// Where a directory is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPlace {
    /// Its parent.
    pub parent: InodeNumber,
    /// Its name there.
    pub name: Name,
}
wire_struct!(DirectoryPlace { parent, name });

/// What a [`Rename`] does when the new name exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RenameMode {
    /// The inode there loses the name.
    Replace = 0,
    /// Fail with `EEXIST`.
    NoReplace = 1,
    /// The two names change places; fail with `ENOENT` if there is none.
    Exchange = 2,
}

wire_enum!(RenameMode, "rename mode" {
    0 => Replace {},
    1 => NoReplace {},
    2 => Exchange {},
});

/// Body of a reply to [`MetadataLookup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupReply {
    /// The inode found.
    pub inode: InodeNumber,
    /// Its type.
    pub kind: InodeType,
    /// Its attributes, when it lives at the answering home; else ask its own home.
    pub attributes: Option<Attributes>,
    /// What the holder may cache of it.
    pub lease: Lease,
}
wire_struct!(LookupReply { inode, kind, attributes, lease });

/// Body of a reply to [`MetadataCreate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateReply {
    /// The inode created, or found.
    pub inode: InodeNumber,
    /// Its type.
    pub kind: InodeType,
    /// Whether it is new.
    pub created: bool,
    /// Its attributes, when it lives at the answering home.
    pub attributes: Option<Attributes>,
    /// What the holder may cache of it; none when the reply is repeated.
    pub lease: Lease,
    /// The attributes of the directory after it, for who holds leases; none when the reply is
    /// repeated.
    pub directory: Option<Attributes>,
}
wire_struct!(CreateReply { inode, kind, created, attributes, lease, directory });

/// Body of a reply to [`MetadataDelete`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteReply {
    /// As in [`CreateReply`].
    pub directory: Option<Attributes>,
}
wire_struct!(DeleteReply { directory });

/// Body of a reply to [`PeekName`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeekReply {
    /// What the name holds.
    pub inode: InodeNumber,
    /// Its type.
    pub kind: InodeType,
}
wire_struct!(PeekReply { inode, kind });

/// Body of a reply to [`Append`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendReply {
    /// Where the data begins.
    pub offset: u64,
    /// The attributes after it.
    pub attributes: Attributes,
    /// Other targets than the home that hold some of the data, and have not synced it.
    pub owners: Vec<Acknowledged>,
}
wire_struct!(AppendReply { offset, attributes, owners });

/// Who acknowledged something, and when in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The target.
    pub target: TargetId,
    /// What it had not lost anything since.
    pub lineage: Lineage,
}
wire_struct!(Acknowledged { target, lineage });

/// Owners named in an [`AppendReply`], at most: it has to fit the slot of its mutation.
pub const APPEND_OWNERS_MAX: usize = 8;

/// Body of a reply to [`HeadRead`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadReadReply {
    /// The file's attributes.
    pub attributes: Attributes,
    /// A size that the file has durably under this generation: no power loss takes it back.
    pub settled: u64,
}
wire_struct!(HeadReadReply { attributes, settled });

/// One answer of [`AttributesGet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributesResult {
    /// The attributes, and what the holder may cache of the inode.
    Found(Box<Attributes>, Lease),
    /// Why there are none.
    Failed(Status),
}

impl Wire for AttributesResult {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Found(attributes, lease) => {
                out.push(1);
                attributes.put(out);
                lease.put(out);
            }
            Self::Failed(status) => {
                out.push(0);
                status.put(out);
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(reader)? {
            1 => Ok(Self::Found(Box::new(Attributes::get(reader)?), Lease::get(reader)?)),
            0 => Ok(Self::Failed(Status::get(reader)?)),
            _ => Err(DecodeError::Invalid("attributes result")),
        }
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryItem {
    /// Where to go on after it.
    pub cookie: u64,
    /// The name.
    pub name: Name,
    /// What it names.
    pub inode: InodeNumber,
    /// Its type.
    pub kind: InodeType,
    /// Its attributes, when it lives at the directory's home.
    pub attributes: Option<Attributes>,
    /// What the holder may cache of it.
    pub lease: Lease,
}
wire_struct!(DirectoryItem { cookie, name, inode, kind, attributes, lease });

/// Body of a reply to [`ReadDirectory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPage {
    /// Entries in cookie order.
    pub items: Vec<DirectoryItem>,
    /// Whether the directory ends here.
    pub end: bool,
}
wire_struct!(DirectoryPage { items, end });

/// One request for leases back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// Rises with every one; another one for the same inode takes the place of this.
    pub number: u64,
    /// The inode.
    pub inode: InodeNumber,
    /// What must not be cached of it any more.
    pub lease: Lease,
}
wire_struct!(Revocation { number, inode, lease });

/// Body of a reply to [`LeasePoll`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasePollReply {
    /// Random, and another one whenever the target has forgotten the holder's leases.
    pub incarnation: u64,
    /// What is asked back, by number; what is not answered stays in the list.
    pub revocations: Vec<Revocation>,
}
wire_struct!(LeasePollReply { incarnation, revocations });

/// What a target holds and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStatus {
    /// The target.
    pub target: TargetId,
    /// Bytes of the local file system it lives on.
    pub capacity: u64,
    /// Bytes still free there.
    pub available: u64,
    /// Bytes of file data it holds (heads and chunks, as allocated on disk).
    pub used: u64,
    /// Inodes homed here.
    pub inodes: u64,
    /// Live sessions.
    pub sessions: u32,
    /// Operations over several homes not yet settled.
    pub open_operations: u32,
    /// Whether it refuses writes after a device error.
    pub failed: bool,
    /// The errno that growth is refused with, or all changes if it has failed; 0 if none is.
    pub refusal: u32,
    /// Resident memory of the node's process, in bytes.
    pub node_memory: u64,
    /// Process id of the node.
    pub process: u32,
}
wire_struct!(TargetStatus {
    target,
    capacity,
    available,
    used,
    inodes,
    sessions,
    open_operations,
    failed,
    refusal,
    node_memory,
    process,
});

/// Body of a reply to [`Prepare`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareReply {
    /// Every step is checked, locked and durable; one result per step.
    Prepared(Vec<StepResult>),
    /// A step is impossible, or (busy) must wait; nothing of this request was locked.
    Refused(Status),
}

impl Wire for PrepareReply {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Prepared(results) => {
                out.push(1);
                results.put(out);
            }
            Self::Refused(status) => {
                out.push(0);
                status.put(out);
            }
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::get(reader)? {
            1 => Ok(Self::Prepared(Vec::get(reader)?)),
            0 => Ok(Self::Refused(Status::get(reader)?)),
            _ => Err(DecodeError::Invalid("prepare reply")),
        }
    }
}

/// How an operation over several homes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Not decided yet.
    Undecided = 0,
    /// Apply it.
    Committed = 1,
    /// Release it; also the answer about operations the coordinator does not know.
    Aborted = 2,
}

wire_enum!(Outcome, "outcome" {
    0 => Undecided {},
    1 => Committed {},
    2 => Aborted {},
});

#[cfg(test)]
mod tests;
