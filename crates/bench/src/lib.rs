//! What RingFS costs, each figure beside its bare limit in the same run.
//!
//! Servers and clients are processes of their own: this program, started again. The program that
//! uses this library hands them to [`run_child`] when it is called with [`CHILD_COMMAND`] as its
//! only argument. Figures are medians of rounds, and ratios are medians of the ratios of single
//! rounds. Deliberately absent: anything tuned for one machine.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark measures from outside: it starts processes, reads the machine's clock, \
              and runs the bare loops without platform"
)]

mod bare;
mod bare_mount;
mod bulk;
mod cluster;
mod developer;
mod directory;
mod echo;
mod error;
mod memory;
mod metadata;
mod process;
mod recovery;
mod report;
mod scale;
pub mod suite;
mod timing;

pub use cluster::Cluster;
use developer::Common;
pub use developer::run_program;
pub use error::BenchError;
pub use process::{CHILD_COMMAND, Interrupt, run_child};
