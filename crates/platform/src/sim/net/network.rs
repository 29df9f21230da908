//! The simulated network: listeners, connections and messages under way.
//!
//! Invariant, per connection and direction: messages arrive in order and at most once; a broken
//! connection loses a suffix. An end learns of a break some time after it happened and may send
//! into the void until then. Messages into a partition wait; they arrive when it heals, unless
//! the connection broke before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::super::SimulatedNode;
use super::super::world::{Event, World};
use crate::{Address, Frame};

/// Bytes under way or unread in one direction, beyond which a sender waits.
const WINDOW_BYTES: usize = 4 << 20;
/// Connections that may wait to be accepted.
const BACKLOG_MAX: usize = 1024;
/// An end usually learns of a break within this time,
const NOTICE_SHORT_MAX: Duration = Duration::from_millis(200);
/// but one in eight only within this.
const NOTICE_LONG_MAX: Duration = Duration::from_secs(8);
/// A connection with messages stuck in a partition breaks after at least this time.
const STUCK_MIN: Duration = Duration::from_secs(5);
/// The spread of that time.
const STUCK_SPREAD: Duration = Duration::from_secs(10);
/// The first port handed out to listeners that name none.
const FIRST_FREE_PORT: u16 = 40_000;

/// Something the network does at a later time.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum NetworkEvent {
    /// The next message to this end may have arrived.
    Deliver(u64, usize),
    /// Messages to this end have been stuck for long.
    Stuck(u64, usize),
}

/// How a connection ends, as seen by one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Orderly,
    Broken,
}

enum Item {
    Frame(Frame),
    Ending(Ending),
}

struct EndState {
    node: SimulatedNode,
    process: u64,
    /// Messages on their way to this end, with arrival times that never decrease.
    flight: VecDeque<(u64, Item)>,
    /// Arrived and unread.
    inbox: VecDeque<Frame>,
    /// Bytes in `flight` and `inbox`.
    queued_bytes: usize,
    /// What a reader gets once the inbox is empty; set, it also fails senders.
    ending: Option<Ending>,
    /// Nobody holds this end any more.
    released: bool,
    stuck_timer: bool,
    receiver: Option<Waker>,
    sender: Option<Waker>,
}

impl EndState {
    fn new(node: SimulatedNode, process: u64) -> Self {
        EndState {
            node,
            process,
            flight: VecDeque::new(),
            inbox: VecDeque::new(),
            queued_bytes: 0,
            ending: None,
            released: false,
            stuck_timer: false,
            receiver: None,
            sender: None,
        }
    }

    fn finish(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        self.wake();
    }

    fn wake(&mut self) {
        for waker in [self.receiver.take(), self.sender.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn last_arrival(&self) -> u64 {
        self.flight.back().map_or(0, |(at, _)| *at)
    }
}

struct Connection {
    ends: [EndState; 2],
    /// Nothing sent from now on arrives.
    broken: bool,
}

/// Where a listener is found: a Unix socket only by those on its node.
type Place = (Option<SimulatedNode>, Address);

fn place(node: SimulatedNode, address: &Address) -> Place {
    match address {
        Address::Tcp(_) => (None, address.clone()),
        Address::Unix(_) => (Some(node), address.clone()),
    }
}

struct ListenerState {
    node: SimulatedNode,
    process: u64,
    backlog: VecDeque<u64>,
    waker: Option<Waker>,
}

/// All listeners and connections of a world.
#[derive(Default)]
pub(in super::super) struct Network {
    listeners: BTreeMap<Place, ListenerState>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    /// Pairs of which the first does not reach the second.
    partitions: BTreeSet<(SimulatedNode, SimulatedNode)>,
    ports_taken: u16,
}

fn frame_bytes(frame: &Frame) -> usize {
    frame.head.len() + frame.bulk.as_ref().map_or(0, |bulk| bulk.len())
}

fn pair(a: SimulatedNode, b: SimulatedNode) -> (SimulatedNode, SimulatedNode) {
    (a.min(b), a.max(b))
}

impl Network {
    pub(super) fn free_port(&mut self) -> u16 {
        let port = FIRST_FREE_PORT + self.ports_taken % (u16::MAX - FIRST_FREE_PORT);
        self.ports_taken = self.ports_taken.wrapping_add(1);
        port
    }

    pub(super) fn listen(
        &mut self,
        address: &Address,
        node: SimulatedNode,
        process: u64,
    ) -> io::Result<()> {
        let place = place(node, address);
        if self.listeners.contains_key(&place) {
            return Err(ErrorKind::AddrInUse.into());
        }
        let state = ListenerState { node, process, backlog: VecDeque::new(), waker: None };
        self.listeners.insert(place, state);
        Ok(())
    }

    /// The next connection at `address`; `None` without a listener there.
    pub(super) fn accept(
        &mut self,
        node: SimulatedNode,
        address: &Address,
        waker: &Waker,
    ) -> Option<Option<u64>> {
        let listener = self.listeners.get_mut(&place(node, address))?;
        let connection = listener.backlog.pop_front();
        if connection.is_none() {
            listener.waker = Some(waker.clone());
        }
        Some(connection)
    }

    /// What the accepting side calls the connecting one.
    pub(super) fn peer_name(&self, connection: u64) -> String {
        match self.connections.get(&connection) {
            Some(connection) => format!("node {}", connection.ends[0].node.0),
            None => String::from("a lost node"),
        }
    }

    pub(super) fn receive(
        &mut self,
        connection: u64,
        end: usize,
        waker: &Waker,
    ) -> Poll<io::Result<Frame>> {
        let Some(connection) = self.connections.get_mut(&connection) else {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        };
        let state = &mut connection.ends[end];
        if let Some(frame) = state.inbox.pop_front() {
            state.queued_bytes -= frame_bytes(&frame);
            if let Some(waker) = connection.ends[1 - end].sender.take() {
                waker.wake();
            }
            return Poll::Ready(Ok(frame));
        }
        match state.ending {
            Some(Ending::Orderly) => Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
            Some(Ending::Broken) => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            None => {
                state.receiver = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    /// Whether messages to this end of a connection get stuck.
    fn is_cut_off(&self, connection: &Connection, end: usize) -> bool {
        let [from, to] = [connection.ends[1 - end].node, connection.ends[end].node];
        self.partitions.contains(&(from, to))
    }

    fn between(&self, a: SimulatedNode, b: SimulatedNode) -> Vec<u64> {
        let joins = |connection: &Connection| {
            pair(connection.ends[0].node, connection.ends[1].node) == pair(a, b)
        };
        self.connections.iter().filter(|(_, c)| joins(c)).map(|(id, _)| *id).collect()
    }
}

impl World {
    /// Whether a connection attempt gets an answer, be it a refusal.
    pub(super) fn is_reachable(&self, from: SimulatedNode, address: &Address) -> bool {
        let listener = self.network.listeners.get(&place(from, address));
        let partitions = &self.network.partitions;
        listener.is_none_or(|listener| {
            let there = listener.node;
            !partitions.contains(&(from, there)) && !partitions.contains(&(there, from))
        })
    }

    pub(super) fn connect(
        &mut self,
        node: SimulatedNode,
        process: u64,
        address: &Address,
    ) -> io::Result<u64> {
        if !self.is_alive(node, process) {
            return Err(ErrorKind::NetworkDown.into());
        }
        let network = &mut self.network;
        let listener = network.listeners.get_mut(&place(node, address));
        let listener = listener.ok_or(ErrorKind::ConnectionRefused)?;
        if listener.backlog.len() >= BACKLOG_MAX {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let id = network.next_connection;
        network.next_connection += 1;
        let there = EndState::new(listener.node, listener.process);
        let ends = [EndState::new(node, process), there];
        network.connections.insert(id, Connection { ends, broken: false });
        listener.backlog.push_back(id);
        if let Some(waker) = listener.waker.take() {
            waker.wake();
        }
        self.note(id ^ 0xc0 << 56);
        Ok(id)
    }

    pub(super) fn close_listener(&mut self, node: SimulatedNode, address: &Address) {
        if let Some(listener) = self.network.listeners.remove(&place(node, address)) {
            for connection in listener.backlog {
                self.release_end(connection, 1);
            }
        }
    }

    /// Sends `frame`, or waits for room in the window.
    pub(super) fn send(
        &mut self,
        id: u64,
        end: usize,
        frame: &mut Option<Frame>,
        delay: u64,
        waker: &Waker,
    ) -> Poll<io::Result<()>> {
        let loss_per_mille = self.faults().connection_loss_per_mille;
        let lost = self.chance(loss_per_mille);
        let hold_up = match self.chance(self.faults().hold_up_per_mille) {
            true => self.up_to(self.faults().hold_up_max),
            false => 0,
        };
        let now = self.now();
        let Some(connection) = self.network.connections.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        };
        if connection.ends[end].ending.is_some() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let there = &mut connection.ends[1 - end];
        if there.queued_bytes > WINDOW_BYTES && !connection.broken {
            connection.ends[end].sender = Some(waker.clone());
            return Poll::Pending;
        }
        let Some(frame) = frame.take() else { return Poll::Ready(Ok(())) };
        if connection.broken || there.released {
            return Poll::Ready(Ok(()));
        }
        if lost {
            self.break_connection(id);
            return Poll::Ready(Ok(()));
        }
        there.queued_bytes += frame_bytes(&frame);
        let at = there.last_arrival().max(now + delay + hold_up);
        there.flight.push_back((at, Item::Frame(frame)));
        self.add_timer(at, Event::Network(NetworkEvent::Deliver(id, 1 - end)));
        Poll::Ready(Ok(()))
    }

    /// Ends both directions at one end; the other learns after all that is under way.
    pub(super) fn shut_end(&mut self, id: u64, end: usize) {
        let delay = nanos(self.options.network_delay) + self.up_to(self.faults().delay_max);
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let already = connection.ends[end].ending.is_some();
        connection.ends[end].finish(Ending::Orderly);
        if !already && !connection.broken {
            self.push_ending(id, 1 - end, Ending::Orderly, delay);
        }
    }

    /// Nobody holds this end any more. Closing with unread data resets, as a kernel does.
    pub(in super::super) fn release_end(&mut self, id: u64, end: usize) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let EndState { node, process, released, .. } = connection.ends[end];
        // The ends of a dead process fall to `disconnect_node`.
        if released || !self.is_alive(node, process) {
            return;
        }
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let unread = !connection.ends[end].inbox.is_empty();
        if unread && !connection.broken {
            self.break_connection(id);
        } else {
            self.shut_end(id, end);
        }
        self.forget_end(id, end);
    }

    fn forget_end(&mut self, id: u64, end: usize) {
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let state = &mut connection.ends[end];
        state.released = true;
        state.inbox.clear();
        state.finish(Ending::Orderly);
        if connection.ends[1 - end].released {
            self.network.connections.remove(&id);
        }
    }

    fn push_ending(&mut self, id: u64, end: usize, ending: Ending, delay: u64) {
        let now = self.now();
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let state = &mut connection.ends[end];
        let at = state.last_arrival().max(now + delay);
        state.flight.push_back((at, Item::Ending(ending)));
        self.add_timer(at, Event::Network(NetworkEvent::Deliver(id, end)));
    }

    /// Loses a suffix of what is under way, in both directions, and everything later.
    fn break_connection(&mut self, id: u64) {
        self.note(id ^ 0xb0 << 56);
        for end in 0..2 {
            let Some(connection) = self.network.connections.get(&id) else { return };
            let stuck = self.network.is_cut_off(connection, end);
            let flying = connection.ends[end].flight.len() as u64;
            let kept = if stuck { 0 } else { self.below(flying + 1) };
            let long = self.chance(125);
            let notice = self.up_to(if long { NOTICE_LONG_MAX } else { NOTICE_SHORT_MAX });
            let Some(connection) = self.network.connections.get_mut(&id) else { return };
            connection.broken = true;
            let state = &mut connection.ends[end];
            for (_, item) in state.flight.drain(kept as usize..) {
                if let Item::Frame(frame) = item {
                    state.queued_bytes -= frame_bytes(&frame);
                }
            }
            if let Some(waker) = connection.ends[1 - end].sender.take() {
                waker.wake();
            }
            self.push_ending(id, end, Ending::Broken, notice);
        }
    }

    pub(in super::super) fn network_event(&mut self, event: NetworkEvent) {
        match event {
            NetworkEvent::Deliver(id, end) => self.deliver(id, end),
            NetworkEvent::Stuck(id, end) => {
                let Some(connection) = self.network.connections.get_mut(&id) else { return };
                connection.ends[end].stuck_timer = false;
                let waiting = !connection.ends[end].flight.is_empty() && !connection.broken;
                let connection = &self.network.connections[&id];
                if waiting && self.network.is_cut_off(connection, end) {
                    self.break_connection(id);
                }
            }
        }
    }

    fn deliver(&mut self, id: u64, end: usize) {
        let now = self.now();
        let stuck_at = now + nanos(STUCK_MIN) + self.up_to(STUCK_SPREAD);
        let network = &mut self.network;
        let Some(connection) = network.connections.get(&id) else { return };
        let partitioned = network.is_cut_off(connection, end);
        let Some(connection) = network.connections.get_mut(&id) else { return };
        let state = &mut connection.ends[end];
        let Some((at, item)) = state.flight.front() else { return };
        if *at > now {
            return;
        }
        // A break is noticed locally, by a timeout; all else has to come through.
        if partitioned && !matches!(item, Item::Ending(Ending::Broken)) {
            if !state.stuck_timer {
                state.stuck_timer = true;
                self.add_timer(stuck_at, Event::Network(NetworkEvent::Stuck(id, end)));
            }
            return;
        }
        match state.flight.pop_front() {
            Some((_, Item::Frame(frame))) if !state.released => {
                state.inbox.push_back(frame);
                if let Some(waker) = state.receiver.take() {
                    waker.wake();
                }
            }
            Some((_, Item::Frame(frame))) => state.queued_bytes -= frame_bytes(&frame),
            Some((_, Item::Ending(ending))) => state.finish(ending),
            None => {}
        }
    }

    pub(in super::super) fn set_partition(&mut self, a: SimulatedNode, b: SimulatedNode, on: bool) {
        self.set_one_way_partition(a, b, on);
        self.set_one_way_partition(b, a, on);
    }

    pub(in super::super) fn set_one_way_partition(
        &mut self,
        from: SimulatedNode,
        to: SimulatedNode,
        on: bool,
    ) {
        self.note(0xa0 << 56 ^ u64::from(from.0) << 20 ^ u64::from(to.0) << 1 ^ u64::from(on));
        if on {
            self.network.partitions.insert((from, to));
            return;
        }
        self.network.partitions.remove(&(from, to));
        for id in self.network.between(from, to) {
            for end in 0..2 {
                self.resume(id, end);
            }
        }
    }

    /// Sends what was stuck on its way again.
    fn resume(&mut self, id: u64, end: usize) {
        let now = self.now();
        let at = now + nanos(self.options.network_delay) + self.up_to(self.faults().delay_max);
        let Some(connection) = self.network.connections.get_mut(&id) else { return };
        let mut count = 0;
        for (arrival, _) in &mut connection.ends[end].flight {
            if *arrival <= at {
                *arrival = at;
                count += 1;
            }
        }
        for _ in 0..count {
            self.add_timer(at, Event::Network(NetworkEvent::Deliver(id, end)));
        }
    }

    pub(in super::super) fn break_links(&mut self, a: SimulatedNode, b: SimulatedNode) {
        for id in self.network.between(a, b) {
            if self.network.connections.get(&id).is_some_and(|connection| !connection.broken) {
                self.break_connection(id);
            }
        }
    }

    /// Takes away listeners and connections of dead processes on `node`. A killed process's
    /// kernel ends its connections in order, or resets them; a machine without power just falls
    /// silent.
    pub(in super::super) fn disconnect_node(&mut self, node: SimulatedNode, silent: bool) {
        let process = self.node(node).process;
        let dead = |at: SimulatedNode, by: u64| at == node && by < process;
        let listeners: Vec<Address> = (self.network.listeners.iter())
            .filter(|(_, listener)| dead(listener.node, listener.process))
            .map(|((_, address), _)| address.clone())
            .collect();
        for address in listeners {
            self.close_listener(node, &address);
        }
        let ends: Vec<(u64, usize)> = (self.network.connections.iter())
            .flat_map(|(id, connection)| [(*id, 0, connection), (*id, 1, connection)])
            .filter(|(_, end, connection)| {
                let state = &connection.ends[*end];
                !state.released && dead(state.node, state.process)
            })
            .map(|(id, end, _)| (id, end))
            .collect();
        for (id, end) in ends {
            if silent || self.chance(500) {
                self.break_connection(id);
            } else {
                self.shut_end(id, end);
            }
            self.forget_end(id, end);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    super::super::world::nanoseconds(duration)
}
