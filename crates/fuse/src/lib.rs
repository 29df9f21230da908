//! The mount: RingFS as a directory, served to the kernel over its FUSE protocol.
//!
//! [`mount`] makes a directory show the cluster's namespace. Several worker threads, each with a
//! runtime and a [`ringfs_client::Client`] of its own, take requests from one queue of the kernel;
//! any of them serves any request. Shared by all of them are the table of open handles and the
//! cache of leases, neither of which is ever locked over an await.
//!
//! Invariant: what the kernel is told it may cache is held under a lease and never for longer
//! than the lease; a lease is given back only when the kernel has dropped what it cached under
//! it. Deliberately absent: write-behind (the kernel's writeback cache is not used, so a
//! successful `write` is at the servers) and permission checks (the kernel does them).
#![forbid(unsafe_code)]
#![allow(unexpected_cfgs, reason = "cargo-fuzz sets `fuzzing`")]

mod abi;
mod connection;
mod error;
mod failure;
mod gate;
mod handles;
mod interrupts;
mod kernel_cache;
mod mounted;
mod operations;
mod revocation;
mod worker;

pub use connection::{Agreement, REQUEST_DATA_MAX, REQUEST_LEN_MAX, agree};
pub use error::MountError;
pub use mounted::{MountOptions, Mounted, mount};

/// Decodes `bytes` as a request of the kernel, for fuzzing.
#[cfg(fuzzing)]
pub fn decode_any(bytes: &[u8]) {
    if let Ok(abi::Request { operation: abi::Operation::Write { data, .. }, .. }) =
        abi::Request::decode(bytes)
    {
        assert!(data.end <= bytes.len(), "the data of a write lies in its request");
    }
}
