//! Whole-cluster tests of RingFS from one seed: workload, faults, reference model and checkers.
//!
//! Everything a run does follows from its seed, so a failure is replayed by its number. The
//! reference model is the one definition of what the file system means; servers and clients are
//! the real ones, on a simulated platform. Nothing imports this crate.
#![forbid(unsafe_code)]

mod actor;
mod audit;
mod checker;
mod cluster;
mod content;
mod door;
mod durability;
mod kernel;
mod locks;
mod model;
mod mounts;
mod mutation;
mod operation;
mod run;
mod strikes;
mod subjects;
mod tree;
mod workload;

pub use mutation::Mutation;
pub use run::{Figures, Report, RunOptions, run};
