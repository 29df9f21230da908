//! Both sides of this crate in the simulator.
#![allow(missing_docs, reason = "tests")]

mod calls;
mod refusals;
mod support;
