//! The kernel's side of a simulated mount, in the hands of a test.

use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;

use super::{ConnectionRef, DELAY_MAX, Delivery, REQUEST_HEADER_LEN, lock, u32_at, wake_all};
use crate::sim::world::{Event, WorldRef};
use crate::sim::{SimulatedNode, Simulation};

/// Plays the kernel for one mount: sends requests, receives replies and notifies.
///
/// It belongs to no process: it may be used by the test itself and by tasks of any node, and
/// outlives the process that serves the mount.
#[derive(Clone)]
pub struct FuseKernel {
    world: WorldRef,
    connection: ConnectionRef,
}

/// What the serving process wrote.
#[derive(Debug)]
pub enum FuseEvent {
    /// The reply to a request, out header included.
    Reply(Vec<u8>),
    /// A notify, out header included. The next one may come before this one is completed.
    Notify(Vec<u8>, NotifyCompletion),
}

/// The promise to carry out a notify. Dropping it without keeping it leaves the sender waiting
/// for ever.
#[derive(Debug)]
pub struct NotifyCompletion {
    connection: ConnectionRef,
    id: u64,
}

impl NotifyCompletion {
    /// The notify is carried out: the sender's future resolves.
    pub fn complete(self) {
        let mut connection = lock(&self.connection);
        connection.open_notifies.remove(&self.id);
        if let Some(waker) = connection.notify_waiters.remove(&self.id) {
            waker.wake();
        }
        wake_all(&mut connection.kernel);
    }
}

impl Simulation {
    /// The kernel's side of what is mounted at `directory` of `node`; `None` before it is
    /// mounted. After a new mount at the same place it is that one's.
    pub fn fuse_kernel(&self, node: SimulatedNode, directory: &Path) -> Option<FuseKernel> {
        let world = self.world.borrow();
        let place = (node, directory.to_owned());
        let connection = world.mounts.connections.get(&place)?.clone();
        Some(FuseKernel { world: self.world.clone(), connection })
    }
}

impl FuseKernel {
    /// Queues a request for the serving process; lost when that is gone or the mount unmounted.
    /// Requests sent at about the same time arrive in any order.
    ///
    /// # Panics
    /// When `request` is no request: shorter than the in header, or with a wrong length in it.
    pub fn send(&self, request: Vec<u8>) {
        assert!(request.len() >= REQUEST_HEADER_LEN, "shorter than the in header");
        assert_eq!(u32_at(&request, 0) as usize, request.len(), "a wrong length");
        let mut world = self.world.borrow_mut();
        let at = world.now() + world.up_to(DELAY_MAX);
        let delivery = Delivery { connection: self.connection.clone(), request };
        world.add_timer(at, Event::Fuse(delivery));
    }

    /// Waits for what the serving process writes next; `None` once nothing of the process is
    /// left and all it wrote was received.
    pub async fn receive(&self) -> Option<FuseEvent> {
        poll_fn(|context| {
            let mut connection = lock(&self.connection);
            let notify = !connection.notifies.is_empty();
            let reply = !connection.replies.is_empty();
            let both = notify && reply;
            if notify && (!both || self.world.borrow().chance(500)) {
                let next = connection.notifies.pop_front();
                return Poll::Ready(next.map(|(id, message)| {
                    let connection = self.connection.clone();
                    FuseEvent::Notify(message, NotifyCompletion { connection, id })
                }));
            }
            if reply {
                return Poll::Ready(connection.replies.pop_front().map(FuseEvent::Reply));
            }
            if connection.closed {
                return Poll::Ready(None);
            }
            connection.kernel.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Unmounts, as an administrator does: the serving process receives what is queued, then
    /// learns that the mount is gone.
    pub fn unmount(&self) {
        lock(&self.connection).unmount();
    }

    /// Whether nothing of the serving process is left: each use of the mount fails with ENOTCONN.
    pub fn is_closed(&self) -> bool {
        lock(&self.connection).closed
    }

    /// Whether the mount was asked to be read-only.
    pub fn is_read_only(&self) -> bool {
        lock(&self.connection).request.read_only
    }

    /// Whether the mount was asked to be usable by other users.
    pub fn allows_others(&self) -> bool {
        lock(&self.connection).request.allow_other
    }

    /// What the mount calls its device.
    pub fn source(&self) -> String {
        lock(&self.connection).request.source.clone()
    }
}

impl std::fmt::Debug for FuseKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FuseKernel({})", self.source())
    }
}
