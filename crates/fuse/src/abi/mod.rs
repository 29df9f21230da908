//! The kernel's FUSE protocol as bytes: constants, structures, requests and replies.
//!
//! Numbers are those of `linux/fuse.h`, protocol 7.45; integers have the byte order of the
//! machine. Invariant: any bytes decode to a request or an error; nothing here panics on what the
//! kernel sends. Knows nothing of what an operation does.

mod codec;
mod constants;
mod reply;
mod request;
mod structs;
#[cfg(test)]
mod tests;

pub(crate) use codec::{Abi, Malformed};
pub(crate) use constants::*;
pub(crate) use reply::{Reply, notify_increase_epoch, notify_invalidate_inode};
pub(crate) use request::{Operation, Request};
pub(crate) use structs::*;
