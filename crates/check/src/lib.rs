//! Checks of a whole cluster: what each target keeps must fit what all others keep.
//!
//! Running servers list their records page by page; [`Join`] puts them together and says what does
//! not fit. A cluster that is in use changes meanwhile, so only what looks wrong in two looks in
//! the same way counts ([`Checker`]). Repairs are requests about single records, which the target
//! concerned checks again.
//!
//! Invariant: nothing is changed but by [`Checker::repair`]. Memory: 48 bytes per inode, about 100
//! per directory and one bit per small file; names and chunks pass through. Deliberately without
//! files of its own: what lies on the disks is the targets' business, also when it is damaged.
#![forbid(unsafe_code)]

mod finding;

mod join;
mod table;
mod tree;

mod checker;
mod repair;

pub use checker::{CheckError, Checker, Problem, Report, Unread};
pub use finding::Finding;
pub use join::{Counts, Join};
pub use repair::{Outcome, RepairOptions};
