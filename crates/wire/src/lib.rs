//! What RingFS nodes and clients say to each other, as pure data: identifiers, attributes,
//! messages, the frame header and their little-endian encoding.
//!
//! Invariant: decoding any bytes either gives a valid value or a [`DecodeError`]; it never
//! panics and never allocates more than the input could fill. Nothing here performs I/O, reads a
//! clock or knows where an inode lives.
#![forbid(unsafe_code)]

mod attributes;
mod codec;
mod file_locks;
mod greeting;
mod header;
mod ids;
mod lease;
mod messages;
mod name;
mod scan;
mod status;
mod steps;
mod xattrs;

pub use attributes::{
    AttributeChanges, Attributes, BLOCK_SIZE, FilePermissions, InodeType, Timestamp,
};
pub use codec::{DecodeError, Reader, Wire};
pub use file_locks::{
    FileLock, HeldLock, LockMode, LockOwner, LockRange, LockRanges, LockReply, LockSpace,
};
pub use greeting::{Challenge, HELLO_OPCODE, Hello, Proof, Welcome};
pub use header::{
    FrameHeader, HEADER_LEN, HeaderError, MAGIC, MAX_BODY_LEN, MAX_BULK_LEN, NO_SLOT,
    PROTOCOL_VERSION,
};
pub use ids::{
    CHUNK_SIZE, ClusterId, Epoch, Generation, HEAD_SIZE, InodeNumber, Lineage, NodeId, OperationId,
    SLOTS_PER_SESSION, SessionId, TargetId,
};
pub use lease::Lease;
pub use messages::*;
pub use name::{MAX_NAME_LEN, MAX_SYMLINK_LEN, Name};
pub use scan::{
    ChunkRange, Damage, DamageKind, DirectoryFact, HeadPlace, InodeFact, InodePage, NameFact,
    NamePage, OpenKind, OpenOperation, Repair, SCAN_PAGE_MAX, SegmentFact, SegmentPage,
    VerifyCursor, VerifyPage,
};
pub use status::{Errno, Status};
pub use steps::{Step, StepResult};
pub use xattrs::{
    MAX_XATTR_LIST_LEN, MAX_XATTR_NAME_LEN, MAX_XATTR_VALUE_LEN, XattrMode, XattrName,
};
