//! What the process-level tests share: a sandbox with its own home in which the real program runs,
//! trees of files to move through it, dice, and a process that maps files.
//!
//! Invariant: a sandbox stops every server and ends every mount it started, whatever becomes of its
//! test.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

mod disk;
mod disk_protocol;
mod mapper;
pub mod random;
mod sandbox;
mod tree;
mod wait;

pub use disk::{FaultyDisk, Image, Manner};
pub use mapper::{Mapper, interpreter};
pub use sandbox::{Outcome, Sandbox, can_mount, skip};
pub use tree::{compare_trees, make_tree, random_bytes};
pub use wait::{wait_for, wait_until};
