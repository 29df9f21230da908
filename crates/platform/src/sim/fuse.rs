//! A simulated mount: the test plays the kernel, a task of a node the process that serves it.
//!
//! Invariant, as with a real kernel: requests and replies of different operations overtake one
//! another by chance, notifies are carried out one after another, and when nothing of the serving
//! process is left its connection is closed. What the bytes mean is the kernel player's business,
//! except that a reply must come through the channel that received its request.

#![allow(clippy::host_endian_bytes, reason = "the FUSE protocol is in the machine's order")]

mod kernel;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

pub use kernel::{FuseEvent, FuseKernel, NotifyCompletion};

use super::SimulatedNode;
use super::executor::{Platform, Sleep};
use super::world::World;
use crate::fuse::{FuseError, MountRequest, RECEIVE_CAPACITY_MIN};
use crate::{Buffer, Slice};

/// Requests and replies take up to this long, so that they overtake one another.
const DELAY_MAX: Duration = Duration::from_micros(20);
/// Bytes of the header that opens every request, and of the one that opens every reply.
const REQUEST_HEADER_LEN: usize = 40;
const REPLY_HEADER_LEN: usize = 16;
/// Requests without a reply: FORGET and BATCH_FORGET.
const UNANSWERED: [u32; 2] = [2, 42];

/// What both sides share; thread-safe by type, used by one thread.
#[derive(Debug, Default)]
struct Connection {
    request: MountedAs,
    /// Unmounted: no request comes any more.
    unmounted: bool,
    /// Nothing of the serving process is left.
    closed: bool,
    initialised: bool,
    channels: u64,
    requests: VecDeque<Vec<u8>>,
    receivers: Vec<Waker>,
    /// Which channel has received the request of this unique number.
    received: BTreeMap<u64, u64>,
    replies: VecDeque<Vec<u8>>,
    notifies: VecDeque<(u64, Vec<u8>)>,
    next_notify: u64,
    /// Notifies that the kernel has not carried out, and who waits for which.
    open_notifies: BTreeSet<u64>,
    notify_waiters: BTreeMap<u64, Waker>,
    kernel: Vec<Waker>,
}

/// How the mount was asked for.
#[derive(Debug, Default)]
struct MountedAs {
    source: String,
    allow_other: bool,
    read_only: bool,
}

type ConnectionRef = Arc<Mutex<Connection>>;

/// All mounts of a world; a connection stays until its place is mounted again.
#[derive(Default)]
pub(super) struct Mounts {
    connections: BTreeMap<(SimulatedNode, PathBuf), ConnectionRef>,
}

/// A request on its way to the serving process.
pub(super) struct Delivery {
    connection: ConnectionRef,
    request: Vec<u8>,
}

fn lock(connection: &ConnectionRef) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake_all(wakers: &mut Vec<Waker>) {
    for waker in wakers.drain(..) {
        waker.wake();
    }
}

impl Connection {
    fn close(&mut self) {
        self.closed = true;
        self.requests.clear();
        self.notifies.clear();
        wake_all(&mut self.kernel);
    }

    fn unmount(&mut self) {
        self.unmounted = true;
        wake_all(&mut self.receivers);
        // Nothing is cached any more, so notifies have nothing to do.
        self.notifies.clear();
        for waker in std::mem::take(&mut self.notify_waiters).into_values() {
            waker.wake();
        }
    }
}

impl Delivery {
    pub(super) fn arrive(self) {
        let mut connection = lock(&self.connection);
        if !connection.closed && !connection.unmounted {
            connection.requests.push_back(self.request);
            wake_all(&mut connection.receivers);
        }
    }
}

impl World {
    /// Closes the connections of the process that ran on `node`.
    pub(super) fn close_mounts(&mut self, node: SimulatedNode) {
        for ((at, _), connection) in &self.mounts.connections {
            if *at == node {
                lock(connection).close();
            }
        }
    }
}

/// What the serving process holds; the connection closes with its last clone.
#[derive(Debug)]
struct End {
    connection: ConnectionRef,
}

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.connection).close();
    }
}

#[derive(Debug)]
pub(crate) struct FuseMount {
    end: Arc<End>,
    directory: PathBuf,
}

impl Platform {
    pub(crate) async fn mount_fuse(&self, request: &MountRequest) -> Result<FuseMount, FuseError> {
        self.fuse_delay().await;
        let directory = request.directory.clone();
        let mut world = self.world.borrow_mut();
        let place = (self.node, directory.clone());
        let older = world.mounts.connections.get(&place);
        let in_use = older.is_some_and(|older| {
            let older = lock(older);
            !older.closed && !older.unmounted
        });
        if in_use || !world.is_alive(self.node, self.process) {
            return Err(FuseError::AlreadyMounted(directory));
        }
        let MountRequest { source, allow_other, read_only, .. } = request.clone();
        let request = MountedAs { source, allow_other, read_only };
        let connection = Arc::new(Mutex::new(Connection { request, ..Connection::default() }));
        world.mounts.connections.insert(place, connection.clone());
        Ok(FuseMount { end: Arc::new(End { connection }), directory })
    }

    async fn fuse_delay(&self) {
        let delay = self.world.borrow().up_to(DELAY_MAX);
        Sleep::new(&self.world, delay).await;
    }
}

impl FuseMount {
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn first(&self) -> FuseHandoff {
        FuseHandoff { end: self.end.clone(), channel: 0 }
    }

    pub(crate) fn handoff(&self) -> io::Result<FuseHandoff> {
        let mut connection = lock(&self.end.connection);
        if !connection.initialised {
            return Err(io::Error::new(ErrorKind::InvalidInput, "INIT has not been answered"));
        }
        connection.channels += 1;
        Ok(FuseHandoff { end: self.end.clone(), channel: connection.channels })
    }

    pub(crate) fn notifier(&self) -> FuseNotifier {
        FuseNotifier { end: self.end.clone() }
    }

    pub(crate) async fn unmount(&self) -> Result<(), FuseError> {
        lock(&self.end.connection).unmount();
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) struct FuseHandoff {
    end: Arc<End>,
    channel: u64,
}

impl FuseHandoff {
    pub(crate) fn adopt(self, platform: &Platform) -> FuseChannel {
        FuseChannel { end: self.end, channel: self.channel, platform: platform.clone() }
    }
}

pub(crate) struct FuseChannel {
    end: Arc<End>,
    channel: u64,
    platform: Platform,
}

impl std::fmt::Debug for FuseChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FuseChannel({})", self.channel)
    }
}

impl FuseChannel {
    pub(crate) async fn receive(&self, capacity: usize) -> io::Result<Option<Buffer>> {
        assert!(capacity >= RECEIVE_CAPACITY_MIN, "no FUSE request fits");
        let request = poll_fn(|context| {
            let mut connection = lock(&self.end.connection);
            if let Some(request) = connection.requests.pop_front() {
                if !UNANSWERED.contains(&u32_at(&request, 4)) {
                    connection.received.insert(u64_at(&request, 8), self.channel);
                }
                return Poll::Ready(Some(request));
            }
            if connection.unmounted || connection.closed {
                return Poll::Ready(None);
            }
            connection.receivers.push(context.waker().clone());
            Poll::Pending
        });
        let Some(request) = request.await else { return Ok(None) };
        assert!(request.len() <= capacity, "a request is larger than what was announced");
        Ok(Some(Buffer::from_slice(&request)))
    }

    pub(crate) async fn reply(&self, head: Vec<u8>, bulk: Vec<Slice>) -> io::Result<()> {
        let mut reply = head;
        bulk.iter().for_each(|slice| reply.extend_from_slice(slice));
        if reply.len() < REPLY_HEADER_LEN || u32_at(&reply, 0) as usize != reply.len() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the length of a reply is wrong"));
        }
        self.platform.fuse_delay().await;
        let mut connection = lock(&self.end.connection);
        // Else the kernel has given the request up.
        if let Some(channel) = connection.received.remove(&u64_at(&reply, 8)) {
            assert_eq!(channel, self.channel, "a reply left through another channel");
            connection.initialised = true;
            if !connection.closed {
                connection.replies.push_back(reply);
                wake_all(&mut connection.kernel);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct FuseNotifier {
    end: Arc<End>,
}

impl FuseNotifier {
    pub(crate) async fn notify(&self, message: Vec<u8>, _waits: bool) -> io::Result<()> {
        if message.len() < REPLY_HEADER_LEN || u32_at(&message, 0) as usize != message.len() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the length of a notify is wrong"));
        }
        let id = {
            let mut connection = lock(&self.end.connection);
            let id = connection.next_notify;
            connection.next_notify += 1;
            if !connection.closed && !connection.unmounted {
                connection.open_notifies.insert(id);
                connection.notifies.push_back((id, message));
                wake_all(&mut connection.kernel);
            }
            id
        };
        poll_fn(|context| {
            let mut connection = lock(&self.end.connection);
            if !connection.open_notifies.contains(&id) || connection.unmounted {
                return Poll::Ready(Ok(()));
            }
            connection.notify_waiters.insert(id, context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The native-endian number at `offset`.
///
/// # Panics
/// When the bytes end before it: the player of the kernel, or the caller, has checked that.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

/// As [`u32_at`].
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}
