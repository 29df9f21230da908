//! A RingFS node: its targets, their request handlers, and the operations that span two homes.
//!
//! Each target runs on a shard of its own and shares nothing with its siblings; the node's door
//! accepts connections, proves who is there and hands them to the target they name. Everything a
//! client is told has reached this server's kernel before (contract line 1). The client's side of
//! any protocol is deliberately absent: servers talk to each other through `rpc` alone.
#![forbid(unsafe_code)]

mod birth;
mod coherence;
mod cut;
mod data;
mod error;
mod fallocate;
mod file_locks;
mod leases;
mod locks;
mod metadata;
mod mutations;
mod node;
mod operation;
mod rename;
mod repair;
mod scan;
mod sessions;
mod settled;
mod target;
mod xattrs;

pub use error::ServerError;
#[cfg(feature = "mutations")]
pub use mutations::Mutations;
pub use node::{Node, NodeOptions, start};
