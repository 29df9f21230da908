//! The simulated variant: a whole cluster on one thread, from one seed.

mod disk;
mod executor;
mod fuse;
mod net;
mod random;
mod world;

use std::time::Duration;

pub(crate) use disk::File;
pub use disk::SimulatedBackend;
pub use executor::{DiskTrouble, Platform, Simulation};
pub(crate) use fuse::{FuseChannel, FuseHandoff, FuseMount, FuseNotifier};
pub use fuse::{FuseEvent, FuseKernel, NotifyCompletion};
pub(crate) use net::{Handoff, Link, LinkReceiver, LinkSender, Listener};
pub use random::SimulationRng;

/// A machine of the simulation: one disk, one clock skew, one process at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimulatedNode(pub u32);

/// How a run of the simulation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The caller's condition holds.
    Done,
    /// It does not hold, and nothing can ever happen again.
    Stalled,
    /// It does not hold at the limit of virtual time.
    TimedOut,
}

/// What goes wrong by itself, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Chance in a thousand, per message, that its connection breaks: this message and every
    /// later one in either direction is lost.
    pub connection_loss_per_mille: u32,
    /// Messages take up to this much longer.
    pub delay_max: Duration,
    /// Chance in a thousand, per message, that its connection holds it up, and what follows it, for
    /// up to [`Faults::hold_up_max`]. Other connections go on, so what is sent again on one of
    /// them arrives first.
    pub hold_up_per_mille: u32,
    /// Longest that a message is held up.
    pub hold_up_max: Duration,
    /// Disk operations take up to this much longer.
    pub disk_latency_max: Duration,
    /// Chance in a thousand that a sync fails; the data it should have synced is dropped.
    pub fsync_failure_per_mille: u32,
    /// Chance in a thousand that a write fails.
    pub write_failure_per_mille: u32,
    /// Chance in a thousand that a read fails.
    pub read_failure_per_mille: u32,
    /// Every operation that needs new space fails.
    pub no_space: bool,
}

/// The world at its best; [`Faults`] make it worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimulationOptions {
    /// Faults from the start.
    pub faults: Faults,
    /// What every disk operation takes at least.
    pub disk_latency: Duration,
    /// What every message takes at least.
    pub network_delay: Duration,
    /// Size of each node's disk.
    pub capacity_bytes: u64,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        SimulationOptions {
            faults: Faults::default(),
            disk_latency: Duration::from_micros(20),
            network_delay: Duration::from_micros(50),
            capacity_bytes: 1 << 40,
        }
    }
}
