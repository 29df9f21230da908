//! The suite: the workloads of the IO500 over RingFS or any directory, with the limits of the
//! machine measured beside them in the same run.
//!
//! Client processes run each part at the same time, from a common beginning; every byte that is
//! read is compared with what was written. What each part does and how its rate is counted stands
//! in docs/performance.md. Deliberately absent: clients on other machines.

mod content;
mod door;
mod html;
mod limits;
mod part;
mod plan;
mod results;
mod run;
mod score;
mod servers;
mod worker;

pub(crate) use limits::CopyClient;
pub use plan::{CLIENTS_MAX, DoorChoice, Plan, Running};
pub use results::Results;
pub use run::run;
pub use score::Score;
pub(crate) use worker::{Order, SuiteClient};
