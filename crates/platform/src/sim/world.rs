//! The state of a simulated world: tasks, virtual time and the nodes; network and disks hang off it.
//!
//! Invariant: the world is borrowed only for the length of one call and never while a task is
//! polled or dropped, so destructors of tasks may call into it. Every choice comes from one
//! generator and is mixed into the trace.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use super::disk::{DiskState, LateOperation};
use super::fuse::{Delivery, Mounts};
use super::net::{Network, NetworkEvent};
use super::random::Generator;
use super::{Faults, SimulatedNode, SimulationOptions};

/// Wall clocks start here, in seconds since the Unix epoch, so dates look like dates.
const WALL_START_SECONDS: u64 = 1_800_000_000;

pub(super) type WorldRef = Rc<RefCell<World>>;
pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()>>>;

/// A task's slot and the use of that slot, so a late waker cannot wake a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TaskId {
    index: u32,
    generation: u32,
}

/// What wakers and handoffs reach; thread-safe by type, used by one thread.
#[derive(Default)]
pub(super) struct Shared {
    ready: Mutex<Vec<TaskId>>,
    /// Ends of connections whose handoff was dropped before anyone adopted it.
    pub(super) abandoned: Mutex<Vec<(u64, usize)>>,
}

struct Wakeup {
    id: TaskId,
    queued: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        }
    }
}

struct Task {
    node: SimulatedNode,
    /// `None` while the task is being polled.
    future: Option<TaskFuture>,
    wakeup: Arc<Wakeup>,
}

#[derive(Default)]
struct TaskSlot {
    generation: u32,
    task: Option<Task>,
}

/// What happens when a timer fires.
pub(super) enum Event {
    Wake(Waker),
    Network(NetworkEvent),
    Disk(SimulatedNode, LateOperation),
    Fuse(Delivery),
    /// A node gets the processor again, if it is not to wait for longer by now.
    Resume(SimulatedNode),
}

/// When a timer fires, and which of those at the same instant it is.
pub(super) type TimerKey = (u64, u64);

/// One machine.
pub(super) struct Node {
    /// Counts the processes that ran here; what belongs to an older one is dead.
    pub(super) process: u64,
    pub(super) boot_id: u128,
    pub(super) wall_offset: i64,
    pub(super) disk: DiskState,
    /// In place of the common ones, as far as they concern disks.
    pub(super) disk_faults: Option<Faults>,
    /// Until when its tasks do not run.
    stalled_until: u64,
    /// Tasks that are ready meanwhile.
    held_up: Vec<TaskId>,
}

/// How a jump to the next timer went.
pub(super) enum Jump {
    Fired,
    BeyondDeadline,
    NoTimers,
}

pub(super) struct World {
    pub(super) shared: Arc<Shared>,
    pub(super) generator: Rc<RefCell<Generator>>,
    pub(super) options: SimulationOptions,
    pub(super) network: Network,
    pub(super) mounts: Mounts,
    pub(super) ended: bool,
    now: u64,
    trace: u64,
    tasks: Vec<TaskSlot>,
    free_slots: Vec<u32>,
    timers: BTreeMap<TimerKey, Event>,
    next_timer: u64,
    nodes: BTreeMap<SimulatedNode, Node>,
}

impl World {
    pub(super) fn new(seed: u64, options: SimulationOptions) -> Self {
        World {
            shared: Arc::default(),
            generator: Rc::new(RefCell::new(Generator::new(seed))),
            options,
            network: Network::default(),
            mounts: Mounts::default(),
            ended: false,
            now: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            tasks: Vec::new(),
            free_slots: Vec::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
            nodes: BTreeMap::new(),
        }
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.options.faults
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn wall(&self, node: SimulatedNode) -> Duration {
        let offset = self.nodes.get(&node).map_or(0, |node| node.wall_offset);
        let wall = Duration::from_secs(WALL_START_SECONDS) + Duration::from_nanos(self.now);
        let distance = Duration::from_nanos(offset.unsigned_abs());
        if offset >= 0 { wall + distance } else { wall.saturating_sub(distance) }
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    /// Mixes `value` into the trace.
    pub(super) fn note(&mut self, value: u64) {
        self.trace = (self.trace ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.generator.borrow_mut().below(bound)
    }

    pub(super) fn chance(&self, per_mille: u32) -> bool {
        self.generator.borrow_mut().chance(per_mille)
    }

    /// A duration of up to `max`, in nanoseconds.
    pub(super) fn up_to(&self, max: Duration) -> u64 {
        if max.is_zero() { 0 } else { self.below(nanoseconds(max).saturating_add(1)) }
    }

    /// The machine called `node`, which exists from its first mention.
    pub(super) fn node(&mut self, node: SimulatedNode) -> &mut Node {
        let generator = &self.generator;
        let capacity_bytes = self.options.capacity_bytes;
        self.nodes.entry(node).or_insert_with(|| Node {
            process: 0,
            boot_id: generator.borrow_mut().next_u128(),
            wall_offset: 0,
            disk: DiskState::new(capacity_bytes),
            disk_faults: None,
            stalled_until: 0,
            held_up: Vec::new(),
        })
    }

    /// Whether `process` is what runs on `node`.
    pub(super) fn is_alive(&self, node: SimulatedNode, process: u64) -> bool {
        !self.ended && self.nodes.get(&node).is_some_and(|node| node.process == process)
    }

    pub(super) fn add_timer(&mut self, at: u64, event: Event) -> TimerKey {
        let key = (at.max(self.now), self.next_timer);
        self.next_timer += 1;
        self.timers.insert(key, event);
        key
    }

    pub(super) fn remove_timer(&mut self, key: TimerKey) {
        self.timers.remove(&key);
    }

    /// Replaces the waker of a timer; false when the timer has fired.
    pub(super) fn update_timer(&mut self, key: TimerKey, waker: &Waker) -> bool {
        match self.timers.get_mut(&key) {
            Some(Event::Wake(old)) => {
                old.clone_from(waker);
                true
            }
            _ => false,
        }
    }

    /// Adds a task; gives the future back when its process is dead.
    pub(super) fn add_task(
        &mut self,
        node: SimulatedNode,
        process: u64,
        future: TaskFuture,
    ) -> Result<(), TaskFuture> {
        if !self.is_alive(node, process) {
            return Err(future);
        }
        let index = self.free_slots.pop().unwrap_or_else(|| {
            self.tasks.push(TaskSlot::default());
            u32::try_from(self.tasks.len() - 1).expect("fewer than 2^32 simulated tasks")
        });
        let slot = &mut self.tasks[index as usize];
        let id = TaskId { index, generation: slot.generation };
        let shared = self.shared.clone();
        let wakeup = Arc::new(Wakeup { id, queued: AtomicBool::new(false), shared });
        wakeup.wake_by_ref();
        slot.task = Some(Task { node, future: Some(future), wakeup });
        Ok(())
    }

    /// Takes a ready task, chosen by chance, out of its slot to be polled.
    pub(super) fn pick(&mut self) -> Option<(TaskId, TaskFuture, Waker)> {
        let shared = self.shared.clone();
        let mut ready = shared.ready.lock().unwrap_or_else(PoisonError::into_inner);
        while !ready.is_empty() {
            let index = self.below(ready.len() as u64) as usize;
            let id = ready.swap_remove(index);
            let slot = &mut self.tasks[id.index as usize];
            if slot.generation != id.generation {
                continue;
            }
            let Some(task) = &mut slot.task else { continue };
            if let Some(node) = self.nodes.get_mut(&task.node)
                && node.stalled_until > self.now
            {
                node.held_up.push(id);
                continue;
            }
            let Some(future) = task.future.take() else { continue };
            task.wakeup.queued.store(false, Ordering::Relaxed);
            let waker = Waker::from(task.wakeup.clone());
            self.note(u64::from(id.index) << 32 | u64::from(id.generation));
            return Some((id, future, waker));
        }
        None
    }

    /// Lets no task of `node` run before `until`.
    pub(super) fn stall(&mut self, node: SimulatedNode, until: u64) {
        self.node(node).stalled_until = until;
        self.add_timer(until, Event::Resume(node));
    }

    /// Forgets a stall together with the tasks that it holds up.
    pub(super) fn end_stall(&mut self, node: SimulatedNode) {
        let node = self.node(node);
        node.stalled_until = 0;
        node.held_up.clear();
    }

    /// Lets the tasks of `node` run again, unless a later stall holds them up.
    fn let_run(&mut self, node: SimulatedNode) {
        let now = self.now;
        let node = self.node(node);
        if node.stalled_until <= now {
            let held_up = std::mem::take(&mut node.held_up);
            self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner).extend(held_up);
        }
    }

    /// Puts a polled task back, or frees its slot when `future` is `None`. Gives the future back
    /// when the task was killed meanwhile.
    pub(super) fn put_back(
        &mut self,
        id: TaskId,
        future: Option<TaskFuture>,
    ) -> Option<TaskFuture> {
        let slot = &mut self.tasks[id.index as usize];
        if slot.generation != id.generation {
            return future;
        }
        match (future, &mut slot.task) {
            (Some(future), Some(task)) => {
                task.future = Some(future);
                None
            }
            _ => self.free_task(id.index),
        }
    }

    fn free_task(&mut self, index: u32) -> Option<TaskFuture> {
        let slot = &mut self.tasks[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        self.free_slots.push(index);
        slot.task.take().and_then(|task| task.future)
    }

    /// Takes out all tasks of `node`, or of all nodes; the caller drops them with the world free.
    pub(super) fn take_tasks(&mut self, node: Option<SimulatedNode>) -> Vec<TaskFuture> {
        let doomed: Vec<usize> = (0..self.tasks.len())
            .filter(|index| {
                let task = self.tasks[*index].task.as_ref();
                task.is_some_and(|task| node.is_none_or(|node| task.node == node))
            })
            .collect();
        doomed.into_iter().filter_map(|index| self.free_task(index as u32)).collect()
    }

    /// Moves to the next instant with a timer and fires all of that instant.
    pub(super) fn jump(&mut self, deadline: u64) -> Jump {
        let abandoned = std::mem::take(
            &mut *self.shared.abandoned.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for (connection, end) in abandoned {
            self.release_end(connection, end);
        }
        let Some((&(at, _), _)) = self.timers.first_key_value() else { return Jump::NoTimers };
        if at > deadline {
            self.now = self.now.max(deadline);
            return Jump::BeyondDeadline;
        }
        self.now = at;
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > at {
                break;
            }
            let ((_, sequence), event) = entry.remove_entry();
            self.note(at ^ sequence.rotate_left(40));
            match event {
                Event::Wake(waker) => waker.wake(),
                Event::Network(event) => self.network_event(event),
                Event::Disk(node, operation) => operation.apply(self, node),
                Event::Fuse(delivery) => delivery.arrive(),
                Event::Resume(node) => self.let_run(node),
            }
        }
        Jump::Fired
    }
}

/// `duration` in nanoseconds; some 584 years at most.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
