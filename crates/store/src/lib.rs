//! Durable state of one RingFS target and the POSIX operations on it.
//!
//! Metadata is a write-ahead log plus ordered maps in memory ([`State`]); small files lie in a
//! slab of head slots, everything beyond the head in sparse segment files. All disk access goes
//! through `ringfs_platform`; nothing here knows of sessions' connections, placement or clocks.
//!
//! Invariant: what [`Store::synced`] has confirmed survives power loss, what [`Store::written`]
//! has confirmed survives the death of the process, and recovery finds a prefix of the committed
//! transactions that contains both.
#![forbid(unsafe_code)]

mod record;
mod state;

mod local;
mod metadata;
pub mod namespace;

mod acl;
pub mod xattrs;

mod store;

mod data;
mod numbers;
mod open;
mod sync;

mod chunks;
mod format;
mod heads;
mod locks;
mod log;
mod snapshot;
mod verify;

mod error;

pub use acl::Acl;
pub use chunks::{Extents, SegmentContent};
pub use error::StoreError;
pub use local::{LocalFile, LocalFileSystem, LocalOptions, MetadataCache};
pub use locks::InodeGuard;
pub use metadata::{DirectoryEntry, DirectoryMetadata, FileMetadata, LISTED_CHUNKS_MAX};
pub use record::{
    COLLISION_BITS, Dentry, FIRST_COOKIE, Floor, HeadSlot, Inode, MAX_REPLY_LEN, PendingCut,
    Prepared, RangeKind, RareFields, Record, SlotClass,
};
pub use state::{Entry, Session, SlotReply, State};
#[cfg(feature = "mutations")]
pub use store::Mutations;
pub use store::{LogPosition, Recovery, Store, StoreOptions, Transaction, Usage};
