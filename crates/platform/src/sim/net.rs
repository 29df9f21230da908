//! Links between simulated nodes: what tasks hold. The state behind them is in `network`.

mod network;

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

pub(super) use network::{Network, NetworkEvent};

use super::Platform;
use super::executor::Sleep;
use super::world::{Shared, WorldRef, nanoseconds};
use crate::{Address, Buffer, Frame, Framing};

/// How long a connection attempt into a partition takes to fail.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// One end of a connection; releases it when dropped.
struct End {
    world: WorldRef,
    connection: u64,
    end: usize,
    peer: String,
    /// A handoff has taken the end over.
    moved: bool,
}

impl End {
    fn new(world: WorldRef, connection: u64, end: usize, peer: String) -> Self {
        End { world, connection, end, peer, moved: false }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if !self.moved {
            self.world.borrow_mut().release_end(self.connection, self.end);
        }
    }
}

pub(crate) struct Listener {
    platform: Platform,
    address: Address,
    framing: Framing,
}

impl Platform {
    pub(crate) async fn listen(&self, address: &Address, framing: Framing) -> io::Result<Listener> {
        let mut world = self.world.borrow_mut();
        if !world.is_alive(self.node, self.process) {
            return Err(ErrorKind::NetworkDown.into());
        }
        let address = match address {
            Address::Tcp(tcp) if tcp.port() == 0 => {
                Address::Tcp(SocketAddr::new(tcp.ip(), world.network.free_port()))
            }
            other => other.clone(),
        };
        world.network.listen(&address, self.node, self.process)?;
        drop(world);
        Ok(Listener { platform: self.clone(), address, framing })
    }

    pub(crate) async fn connect(&self, address: &Address, framing: Framing) -> io::Result<Link> {
        let (there, back) = {
            let world = self.world.borrow();
            let base = nanoseconds(world.options.network_delay);
            let delay_max = world.faults().delay_max;
            (base + world.up_to(delay_max), base + world.up_to(delay_max))
        };
        Sleep::new(&self.world, there).await;
        let reachable = self.world.borrow().is_reachable(self.node, address);
        if !reachable {
            Sleep::new(&self.world, nanoseconds(CONNECT_TIMEOUT)).await;
            return Err(ErrorKind::TimedOut.into());
        }
        let connection = self.world.borrow_mut().connect(self.node, self.process, address)?;
        let end = End::new(self.world.clone(), connection, 0, address.to_string());
        Sleep::new(&self.world, back).await;
        Ok(Link { end, framing })
    }
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<Link> {
        let connection = poll_fn(|context| {
            let mut world = self.platform.world.borrow_mut();
            match world.network.accept(self.platform.node, &self.address, context.waker()) {
                None => Poll::Ready(Err(io::Error::from(ErrorKind::NotConnected))),
                Some(None) => Poll::Pending,
                Some(Some(connection)) => Poll::Ready(Ok(connection)),
            }
        })
        .await?;
        let world = self.platform.world.clone();
        let peer = world.borrow().network.peer_name(connection);
        Ok(Link { end: End::new(world, connection, 1, peer), framing: self.framing })
    }

    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Platform { world, node, process } = &self.platform;
        let mut world = world.borrow_mut();
        if world.is_alive(*node, *process) {
            world.close_listener(*node, &self.address);
        }
    }
}

pub(crate) struct Link {
    end: End,
    framing: Framing,
}

impl Link {
    pub(crate) fn split(self) -> (LinkSender, LinkReceiver) {
        let end = Rc::new(self.end);
        let sender = LinkSender { end: end.clone(), framing: self.framing };
        (sender, LinkReceiver { end, framing: self.framing })
    }

    pub(crate) fn reunite(sender: LinkSender, receiver: LinkReceiver) -> Link {
        assert!(Rc::ptr_eq(&sender.end, &receiver.end), "halves of different links");
        drop(sender);
        let LinkReceiver { end, framing } = receiver;
        let end = Rc::into_inner(end).expect("a link has two halves");
        Link { end, framing }
    }

    pub(crate) fn peer(&self) -> String {
        self.end.peer.clone()
    }

    pub(crate) fn into_handoff(self) -> Handoff {
        let Link { mut end, framing } = self;
        let peer = std::mem::take(&mut end.peer);
        let shared = end.world.borrow().shared.clone();
        end.moved = true;
        Handoff { end: Some((end.connection, end.end)), shared, framing, peer }
    }
}

/// Names the end instead of holding the world, so that it is `Send` like the real one.
pub(crate) struct Handoff {
    /// `None` once adopted.
    end: Option<(u64, usize)>,
    shared: Arc<Shared>,
    framing: Framing,
    peer: String,
}

impl Handoff {
    pub(crate) fn adopt(mut self, platform: &Platform) -> io::Result<Link> {
        let world = platform.world.clone();
        let (connection, end) = self.end.take().ok_or(ErrorKind::NotConnected)?;
        let end = End::new(world, connection, end, std::mem::take(&mut self.peer));
        Ok(Link { end, framing: self.framing })
    }
}

impl Drop for Handoff {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            self.shared.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(end);
        }
    }
}

pub(crate) struct LinkSender {
    end: Rc<End>,
    framing: Framing,
}

impl LinkSender {
    pub(crate) async fn send(&mut self, frames: Vec<Frame>) -> io::Result<()> {
        let End { world, connection, end, .. } = &*self.end;
        let delay = {
            let world = world.borrow();
            nanoseconds(world.options.network_delay) + world.up_to(world.faults().delay_max)
        };
        for frame in frames {
            check_frame(&self.framing, &frame)
                .map_err(|text| io::Error::new(ErrorKind::InvalidInput, text))?;
            // The receiver gets bytes of its own, as over a real connection.
            let bulk = frame.bulk.filter(|bulk| !bulk.is_empty());
            let bulk = bulk.map(|bulk| Buffer::from_slice(&bulk).freeze());
            let mut frame = Some(Frame { head: frame.head, bulk });
            poll_fn(|context| {
                let mut world = world.borrow_mut();
                world.send(*connection, *end, &mut frame, delay, context.waker())
            })
            .await?;
        }
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.end.world.borrow_mut().shut_end(self.end.connection, self.end.end);
    }
}

pub(crate) struct LinkReceiver {
    end: Rc<End>,
    framing: Framing,
}

impl LinkReceiver {
    pub(crate) async fn receive(&mut self) -> io::Result<Frame> {
        let End { world, connection, end, .. } = &*self.end;
        let frame = poll_fn(|context| {
            world.borrow_mut().network.receive(*connection, *end, context.waker())
        })
        .await?;
        if let Err(text) = check_frame(&self.framing, &frame) {
            world.borrow_mut().shut_end(*connection, *end);
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        Ok(frame)
    }
}

/// Whether the header of `frame` says what the frame holds.
fn check_frame(framing: &Framing, frame: &Frame) -> Result<(), &'static str> {
    let Some(header) = frame.head.get(..framing.header_len) else {
        return Err("a frame is shorter than its header");
    };
    let lengths = (framing.lengths)(header).map_err(|error| error.0)?;
    let bulk = frame.bulk.as_ref().map_or(0, |bulk| bulk.len());
    if lengths.body != frame.head.len() - framing.header_len || lengths.bulk != bulk {
        return Err("the lengths in a frame's header are wrong");
    }
    Ok(())
}
