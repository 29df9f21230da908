//! One operation under way on a simulated disk: its latency, and its fate when it is dropped.
//!
//! Invariant: an operation is executed at one instant after its start, at most once. Dropped
//! before that, its outcome is unknown: never, at once, or when it would have been, by chance;
//! when its process was killed, not later than the kill.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::super::SimulatedNode;
use super::super::executor::Platform;
use super::super::world::{Event, TimerKey, World, nanoseconds};
use super::state::{Circumstances, DiskState};

/// What may become of an operation that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It changes nothing, so nothing is done.
    Forgotten,
    /// It is executed or not.
    Unknown,
    /// It is executed, now or later.
    Certain,
}

type Execution = Box<dyn FnOnce(&mut DiskState, &mut Circumstances<'_>)>;

/// An operation whose caller is gone.
pub(in super::super) struct LateOperation {
    process: u64,
    execution: Execution,
}

impl LateOperation {
    /// Executes it, unless its process died meanwhile: a kernel finishes or cancels what a dying
    /// process has under way before its locks are released.
    pub(in super::super) fn apply(self, world: &mut World, node: SimulatedNode) {
        if world.is_alive(node, self.process) {
            execute(world, node, self.execution);
        }
    }
}

fn execute<R>(
    world: &mut World,
    node: SimulatedNode,
    action: impl FnOnce(&mut DiskState, &mut Circumstances<'_>) -> R,
) -> R {
    let generator = world.generator.clone();
    let mut circumstances = Circumstances {
        now: Duration::from_nanos(world.now()),
        wall: world.wall(node),
        faults: world.node(node).disk_faults.unwrap_or(*world.faults()),
        generator: &mut generator.borrow_mut(),
    };
    action(&mut world.node(node).disk, &mut circumstances)
}

/// An operation under way; gives `None` when its process is dead.
pub(super) struct Operation<R, A>
where
    R: 'static,
    A: FnOnce(&mut DiskState, &mut Circumstances<'_>) -> R + 'static,
{
    platform: Platform,
    at: u64,
    timer: Option<TimerKey>,
    action: Option<A>,
    /// Undoes what a result holds, such as an open file, when nobody receives it.
    discard: fn(&mut DiskState, R),
    fate: Fate,
}

impl<R, A> Unpin for Operation<R, A>
where
    R: 'static,
    A: FnOnce(&mut DiskState, &mut Circumstances<'_>) -> R + 'static,
{
}

impl<R, A> Operation<R, A>
where
    R: 'static,
    A: FnOnce(&mut DiskState, &mut Circumstances<'_>) -> R + 'static,
{
    pub(super) fn start(
        platform: &Platform,
        fate: Fate,
        action: A,
        discard: fn(&mut DiskState, R),
    ) -> Self {
        let world = platform.world.borrow();
        let latency = nanoseconds(world.options.disk_latency);
        let at = world.now() + latency + world.up_to(world.faults().disk_latency_max);
        drop(world);
        let action = Some(action);
        Operation { platform: platform.clone(), at, timer: None, action, discard, fate }
    }
}

impl<R, A> Future for Operation<R, A>
where
    R: 'static,
    A: FnOnce(&mut DiskState, &mut Circumstances<'_>) -> R + 'static,
{
    type Output = Option<R>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let this = &mut *self;
        let Platform { world, node, process } = &this.platform;
        let mut world = world.borrow_mut();
        match this.timer {
            None => {
                this.timer = Some(world.add_timer(this.at, Event::Wake(context.waker().clone())));
                return Poll::Pending;
            }
            Some(timer) if world.update_timer(timer, context.waker()) => return Poll::Pending,
            Some(_) => {}
        }
        let Some(action) = this.action.take() else { return Poll::Pending };
        if !world.is_alive(*node, *process) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(execute(&mut world, *node, action)))
    }
}

impl<R, A> Drop for Operation<R, A>
where
    R: 'static,
    A: FnOnce(&mut DiskState, &mut Circumstances<'_>) -> R + 'static,
{
    fn drop(&mut self) {
        let Platform { world, node, process } = &self.platform;
        let mut world = world.borrow_mut();
        if let Some(timer) = self.timer {
            world.remove_timer(timer);
        }
        let Some(action) = self.action.take() else { return };
        if self.fate == Fate::Forgotten || world.ended {
            return;
        }
        let alive = world.is_alive(*node, *process);
        let never = match self.fate {
            Fate::Certain => !alive && world.chance(500),
            _ => world.below(3) == 0,
        };
        if never {
            return;
        }
        let discard = self.discard;
        let execution: Execution = Box::new(move |disk, circumstances| {
            let result = action(disk, circumstances);
            discard(disk, result);
        });
        if alive && world.chance(500) {
            let late = LateOperation { process: *process, execution };
            world.add_timer(self.at, Event::Disk(*node, late));
        } else {
            execute(&mut world, *node, execution);
        }
    }
}
