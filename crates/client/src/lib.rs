//! The RingFS client: paths, striping, handles, sessions and errno.
//!
//! Every door to the file system (mount, command line, libraries) goes through [`Client`]. It
//! names the home of each inode and the owner of each chunk by the cluster map, and holds no
//! state that others could miss: attributes kept beside an open file are checked against the home
//! by every read. A mount shares one [`SharedClient`] between its threads; what it caches it holds
//! leases on, and gives up before anybody else's change is acknowledged.
//!
//! Invariant: an operation that returned an error with a known outcome changed nothing that a
//! later operation could see, except bytes of a failed write inside the old size; an operation
//! that returned success is at the servers. Deliberately absent: write-behind, and locks.
#![forbid(unsafe_code)]

mod bounded;
mod cache;
mod change;
mod client;
mod cluster;
mod credentials;
mod directory;
mod error;
mod file;
mod holes;
mod keeper;
mod leased;
mod lock_table;
mod locks;
mod metadata;
mod mutations;
mod nameless;
mod notify;
mod open;
mod path;
mod read;
mod read_ahead;
mod references;
mod session;
mod shared;
mod stripe;
mod tree;
mod unsynced;
mod write;
mod xattrs;

pub use client::{Client, ClientOptions};
pub use cluster::{ChunkPlacement, PLACEMENT_LEN_MAX, SpaceUsage};
pub use credentials::Credentials;
pub use error::{ClientError, Place, Subject};
pub use file::OpenFile;
pub use leased::{Leased, LeasedEntry, LeasedPage};
#[cfg(feature = "mutations")]
pub use mutations::Mutations;
pub use open::OpenMode;
pub use path::{MAX_PATH_LEN, MAX_SYMLINKS_FOLLOWED};
pub use shared::{Revoked, SharedClient};
pub use tree::{Walk, WalkEntry};
pub use unsynced::ToldLosses;
