//! The simulator plays the kernel above a mount: names, attributes and pages cached as Linux does
//! it, the locks it takes, and the FUSE requests in between.
//!
//! Follows Linux 6.18 where it matters for coherence: names hold for their time and their epoch,
//! attributes unless the inode changed after they were asked for, pages until they are taken back;
//! an invalidation waits for pages that are being read or written. It knows no paths: system calls
//! name inodes by number, as a process with everything open would.

mod abi;
mod cache;
mod connection;
mod files;
mod locks;
mod names;
mod xattrs;

pub(crate) use abi::{Attr, Listed as Entry};
pub(crate) use connection::{Kernel, NOT_CONNECTED};
pub(crate) use files::{Change, File};
