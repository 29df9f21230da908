//! The client against a file system in memory, in the simulator.
#![allow(missing_docs, reason = "tests")]

mod content;
mod fake;
mod leases;
mod names;
mod opening;
