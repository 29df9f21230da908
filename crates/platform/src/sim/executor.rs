//! Drives a simulated world: the control in the hands of a test, and what a node's tasks see.
//!
//! Invariant: of the ready tasks one is picked by chance; when none is ready, time jumps to the
//! next timer. Nothing here reads a real clock or real entropy.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::random::SimulationRng;
use super::world::{Event, Jump, TimerKey, World, WorldRef, nanoseconds};
use super::{Faults, Outcome, SimulatedBackend, SimulatedNode, SimulationOptions};

/// Polls without any passing of time that count as a livelock.
const POLLS_PER_INSTANT_MAX: u64 = 5_000_000;

/// What has gone wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskTrouble {
    /// When an operation first failed under the present process.
    pub since: Option<Duration>,
    /// A sync has failed since the power was last cut: what it should have written is in the page
    /// cache only, and no later sync writes it.
    pub lost_writes: bool,
}

/// A whole world on one thread: nodes, disks, network and clock, driven by one seed.
pub struct Simulation {
    pub(super) world: WorldRef,
}

impl Simulation {
    /// A world that unfolds from `seed`.
    pub fn new(seed: u64, options: SimulationOptions) -> Self {
        Simulation { world: Rc::new(RefCell::new(World::new(seed, options))) }
    }

    /// The platform of the process that runs on `node`. After [`Simulation::kill`] or
    /// [`Simulation::power_cut`] it belongs to a new process, and older ones are dead.
    pub fn platform(&self, node: SimulatedNode) -> crate::Platform {
        let process = self.world.borrow_mut().node(node).process;
        crate::Platform::Simulated(Platform { world: self.world.clone(), node, process })
    }

    /// Runs until `done` holds, for at most `limit` of virtual time from now. `done` is asked
    /// before each step.
    pub fn run_until(&self, mut done: impl FnMut() -> bool, limit: Duration) -> Outcome {
        let deadline = self.world.borrow().now().saturating_add(nanoseconds(limit));
        let mut polls = 0;
        loop {
            if done() {
                return Outcome::Done;
            }
            if self.step() {
                polls += 1;
                if polls > POLLS_PER_INSTANT_MAX {
                    tracing::error!("livelock: {polls} polls and no time has passed");
                    return Outcome::Stalled;
                }
                continue;
            }
            polls = 0;
            let jump = self.world.borrow_mut().jump(deadline);
            match jump {
                Jump::Fired => {}
                Jump::BeyondDeadline => return Outcome::TimedOut,
                Jump::NoTimers => return Outcome::Stalled,
            }
        }
    }

    /// Polls one ready task; false when none is ready.
    fn step(&self) -> bool {
        let picked = self.world.borrow_mut().pick();
        let Some((id, mut future, waker)) = picked else { return false };
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        let rest = match poll {
            Poll::Ready(()) => {
                drop(future);
                None
            }
            Poll::Pending => Some(future),
        };
        let dead = self.world.borrow_mut().put_back(id, rest);
        drop(dead);
        true
    }

    /// A hash of every choice, timer and message so far: the same seed gives the same trace.
    pub fn trace(&self) -> u64 {
        self.world.borrow().trace()
    }

    /// Virtual time since the start.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.world.borrow().now())
    }

    /// Draws from the same stream as the world itself.
    pub fn random(&self) -> SimulationRng {
        SimulationRng::new(self.world.borrow().generator.clone())
    }

    /// Kills the process on `node`: tasks, listeners, links, FUSE connections and locks are gone;
    /// the disk keeps all written data. Operations in flight are executed or not.
    pub fn kill(&self, node: SimulatedNode) {
        self.end_process(node, 1);
        let mut world = self.world.borrow_mut();
        world.disconnect_node(node, false);
        let disk = &mut world.node(node).disk;
        disk.close_all();
        disk.forget_errors();
    }

    /// Cuts the power of `node`: like `kill`, but of what was not synced only a part survives,
    /// and the boot id changes.
    ///
    /// Per 4 KiB block the durable version, any later one, or a mix of two at 512 bytes remains;
    /// names created, removed or renamed since their directory's last sync survive in a prefix.
    pub fn power_cut(&self, node: SimulatedNode) {
        self.end_process(node, 2);
        let mut world = self.world.borrow_mut();
        world.disconnect_node(node, true);
        let generator = world.generator.clone();
        let mut generator = generator.borrow_mut();
        let node = world.node(node);
        node.disk.close_all();
        node.disk.power_cut(&mut generator);
        node.boot_id = generator.next_u128();
    }

    fn end_process(&self, node: SimulatedNode, kind: u64) {
        let doomed = {
            let mut world = self.world.borrow_mut();
            world.note(kind << 32 | u64::from(node.0));
            world.end_stall(node);
            world.node(node).process += 1;
            world.close_mounts(node);
            world.take_tasks(Some(node))
        };
        // With the world free: destructors of tasks call into it.
        drop(doomed);
    }

    /// Takes the processor from the process on `node` for a while: none of its tasks runs. Messages
    /// arrive and timers go off meanwhile, unseen. A new process there runs at once.
    pub fn stall(&self, node: SimulatedNode, duration: Duration) {
        let mut world = self.world.borrow_mut();
        world.note(3 << 32 | u64::from(node.0));
        let until = world.now().saturating_add(nanoseconds(duration));
        world.stall(node, until);
    }

    /// Separates two nodes, or joins them again. Messages between them wait; a connection with
    /// waiting messages breaks after some seconds, and a new one cannot be made.
    pub fn partition(&self, a: SimulatedNode, b: SimulatedNode, on: bool) {
        self.world.borrow_mut().set_partition(a, b, on);
    }

    /// Keeps messages from one node from reaching another, or lets them through again. Those of the
    /// other direction arrive; a new connection needs both.
    pub fn partition_one_way(&self, from: SimulatedNode, to: SimulatedNode, on: bool) {
        self.world.borrow_mut().set_one_way_partition(from, to, on);
    }

    /// Breaks every connection between two nodes.
    pub fn break_links(&self, a: SimulatedNode, b: SimulatedNode) {
        self.world.borrow_mut().break_links(a, b);
    }

    /// Sets how many nanoseconds the wall clock of `node` is ahead.
    pub fn skew_wall(&self, node: SimulatedNode, offset: i64) {
        self.world.borrow_mut().node(node).wall_offset = offset;
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().options.faults = faults;
    }

    /// Gives the disk of `node` faults of its own, or the common ones again.
    pub fn set_disk_faults(&self, node: SimulatedNode, faults: Option<Faults>) {
        self.world.borrow_mut().node(node).disk_faults = faults;
    }

    /// Leaves `bytes` free on the disk of `node`, or what there really is.
    pub fn limit_space(&self, node: SimulatedNode, bytes: Option<u64>) {
        self.world.borrow_mut().node(node).disk.limit_space(bytes);
    }

    /// What has gone wrong with the disk of `node` under its present process.
    pub fn disk_trouble(&self, node: SimulatedNode) -> DiskTrouble {
        self.world.borrow_mut().node(node).disk.trouble()
    }

    /// Mixes `value` into the trace.
    pub fn note(&self, value: u64) {
        self.world.borrow_mut().note(value);
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        let doomed = {
            let mut world = self.world.borrow_mut();
            world.ended = true;
            world.take_tasks(None)
        };
        drop(doomed);
    }
}

/// One process of a [`Simulation`], as its tasks see it.
#[derive(Clone)]
pub struct Platform {
    pub(super) world: WorldRef,
    pub(super) node: SimulatedNode,
    pub(super) process: u64,
}

impl Platform {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let rejected = self.world.borrow_mut().add_task(self.node, self.process, Box::pin(task));
        drop(rejected);
    }

    pub(crate) fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.world.borrow().now())
    }

    pub(crate) fn wall(&self) -> Duration {
        self.world.borrow().wall(self.node)
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        Sleep::new(&self.world, nanoseconds(duration)).await;
    }

    pub(crate) fn random_u64(&self) -> u64 {
        self.world.borrow().generator.borrow_mut().next()
    }

    pub(crate) fn random_bytes(&self, out: &mut [u8]) {
        SimulationRng::new(self.world.borrow().generator.clone()).fill(out);
    }

    pub(crate) fn boot_id(&self) -> u128 {
        self.world.borrow_mut().node(self.node).boot_id
    }

    pub(crate) fn disk(&self) -> SimulatedBackend {
        SimulatedBackend::new(self.clone())
    }
}

/// Waits for a point in virtual time.
pub(super) struct Sleep {
    world: WorldRef,
    at: u64,
    timer: Option<TimerKey>,
}

impl Sleep {
    pub(super) fn new(world: &WorldRef, nanoseconds: u64) -> Self {
        let at = world.borrow().now().saturating_add(nanoseconds);
        Sleep { world: world.clone(), at, timer: None }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut world = this.world.borrow_mut();
        match this.timer {
            Some(timer) if world.update_timer(timer, context.waker()) => Poll::Pending,
            Some(_) => {
                this.timer = None;
                Poll::Ready(())
            }
            // Even a sleep of zero lets others run first.
            None => {
                let event = Event::Wake(context.waker().clone());
                this.timer = Some(world.add_timer(this.at, event));
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.world.borrow_mut().remove_timer(timer);
        }
    }
}
