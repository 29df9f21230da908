//! The serving side: the current connection of every session, and the tasks that answer.
//!
//! Invariant: at most one connection per session starts requests, and it starts none before every
//! data request of the session's older connections has ended; so a stale data frame can never
//! overwrite newer bytes. Requests and bytes in flight are bounded per connection. Any bytes from
//! outside end the connection at worst.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringfs_platform::{Frame, LinkReceiver, LinkSender, Platform};
use ringfs_wire::{
    AnyRequest, ClusterId, Errno, FrameHeader, LeasePoll, MAX_BODY_LEN, MAX_BULK_LEN, NO_SLOT,
    Request, SLOTS_PER_SESSION, SessionId, Status, TargetId,
};

use crate::bell::{Bell, pump, until};
use crate::handshake::{GREETING_DEADLINE, welcome};
use crate::{Greeted, Incoming, Outgoing, Service};

/// Requests of one connection that may be running, their unsent replies included.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// Bytes of bulk that running requests and unsent replies of one connection may hold; the last
/// one taken may exceed it.
pub const BULK_IN_FLIGHT_MAX: usize = 64 << 20;

/// The current connection of every session at one target.
#[derive(Clone, Default)]
pub struct Connections {
    sessions: Rc<RefCell<BTreeMap<SessionId, Session>>>,
    /// A deliberate defect: older connections of a session go on beside newer ones.
    #[cfg(feature = "mutations")]
    keeps_old: Rc<Cell<bool>>,
}

/// Present while a session has a connection or a data request running.
#[derive(Default)]
struct Session {
    current: Option<Rc<Connection>>,
    /// Data requests running, of whichever connection.
    data_running: usize,
}

/// Why a connection ended.
enum End {
    /// By us.
    Closed,
    /// By the other end, or on the way.
    Gone(String),
    /// By us, because of what the other end sent.
    Bad(String),
}

impl Connections {
    /// No connections yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Switches a deliberate defect on: older connections of a session go on beside newer ones.
    #[cfg(feature = "mutations")]
    pub fn keep_old(&self) {
        self.keeps_old.set(true);
    }

    /// Whether older connections go on: never, but for a deliberate defect.
    fn keeps_old(&self) -> bool {
        #[cfg(feature = "mutations")]
        return self.keeps_old.get();
        #[cfg(not(feature = "mutations"))]
        false
    }

    /// Serves a greeted connection until it ends or a newer one of its session takes its place.
    pub async fn serve(&self, platform: &Platform, greeted: Greeted, service: Rc<dyn Service>) {
        let Greeted { hello, target, cluster, handoff } = greeted;
        let link = match handoff.adopt(platform) {
            Ok(link) => link,
            Err(error) => return tracing::warn!(%error, "cannot take over a connection"),
        };
        let peer = Rc::<str>::from(link.peer());
        let (mut sender, mut receiver) = link.split();
        let connection = Rc::new(Connection {
            cluster,
            target,
            session: hello.session,
            peer: peer.clone(),
            closed: Cell::new(false),
            bell: Bell::default(),
            outbox: RefCell::default(),
            running: Cell::new(0),
            bulk: Cell::new(0),
        });
        self.enter(&connection);
        self.data_ended(&connection).await;
        if !connection.closed.get() {
            let admitted = service.admit(hello.clone()).await;
            let refused = admitted.is_err();
            let frame = welcome(cluster, target, admitted);
            let sent = platform.timeout(GREETING_DEADLINE, sender.send(vec![frame])).await;
            if !refused && matches!(sent, Some(Ok(()))) {
                let end = self.run(platform, &connection, &mut sender, &mut receiver, &service);
                match end.await {
                    End::Closed => {}
                    End::Gone(reason) => tracing::debug!(%peer, reason, "connection ended"),
                    End::Bad(reason) => tracing::warn!(%peer, reason, "connection closed"),
                }
            }
        }
        sender.close();
        if self.leave(&connection) {
            service.disconnected(hello.session);
        }
    }

    /// Closes the connection of a session, as when the session has ended.
    pub fn close(&self, session: SessionId) {
        if let Some(Session { current: Some(connection), .. }) =
            self.sessions.borrow().get(&session)
        {
            connection.close();
        }
    }

    /// Makes `connection` the session's current one. Servers have no session and may have several.
    fn enter(&self, connection: &Rc<Connection>) {
        if connection.is_between_servers() {
            return;
        }
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.entry(connection.session).or_default();
        if let Some(older) = session.current.replace(connection.clone())
            && !self.keeps_old()
        {
            older.close();
        }
    }

    /// Forgets `connection`; whether it was its session's current one.
    fn leave(&self, connection: &Rc<Connection>) -> bool {
        connection.close();
        self.update(connection, |session| {
            let current =
                session.current.as_ref().is_some_and(|current| Rc::ptr_eq(current, connection));
            if current {
                session.current = None;
            }
            current
        })
    }

    /// Waits until no data request of the session runs, or `connection` is closed.
    async fn data_ended(&self, connection: &Rc<Connection>) {
        let running = || {
            let sessions = self.sessions.borrow();
            sessions.get(&connection.session).is_some_and(|session| session.data_running > 0)
        };
        while !connection.closed.get() && running() && !self.keeps_old() {
            connection.bell.heard().await;
        }
    }

    /// Changes a session's entry and drops it once it says nothing.
    fn update<T>(&self, connection: &Connection, change: impl FnOnce(&mut Session) -> T) -> T {
        let mut sessions = self.sessions.borrow_mut();
        let session = sessions.entry(connection.session).or_default();
        let result = change(session);
        if session.current.is_none() && session.data_running == 0 {
            sessions.remove(&connection.session);
        }
        result
    }

    async fn run(
        &self,
        platform: &Platform,
        connection: &Rc<Connection>,
        sender: &mut LinkSender,
        receiver: &mut LinkReceiver,
        service: &Rc<dyn Service>,
    ) -> End {
        let reader = async {
            loop {
                until(|| connection.has_room()).await;
                let frame = match receiver.receive().await {
                    Ok(frame) => frame,
                    Err(error) if error.kind() == ErrorKind::InvalidData => {
                        return End::Bad(error.to_string());
                    }
                    Err(error) => return End::Gone(error.to_string()),
                };
                match connection.check(frame) {
                    Ok(call) => self.begin(platform, connection, service, call),
                    Err(reason) => return End::Bad(reason),
                }
                if connection.closed.get() {
                    return End::Closed;
                }
            }
        };
        let stop = || connection.closed.get().then_some(End::Closed);
        pump(&connection.bell, stop, reader, connection.write(sender)).await
    }

    /// Starts a request. Most end at once and need no task.
    fn begin(
        &self,
        platform: &Platform,
        connection: &Rc<Connection>,
        service: &Rc<dyn Service>,
        call: Incoming,
    ) {
        let running = Running::new(self, connection, &call);
        let service = service.clone();
        let mut handler = Box::pin(async move {
            let outgoing = service.handle(call).await;
            running.end(outgoing);
        });
        // The task, if there must be one, polls again and so registers its own waker.
        match Pin::new(&mut handler).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => {}
            Poll::Pending => platform.spawn(handler),
        }
    }
}

/// One connection, as its own task and its running requests see it.
struct Connection {
    cluster: ClusterId,
    target: TargetId,
    session: SessionId,
    peer: Rc<str>,
    /// No further request starts and no further reply is sent.
    closed: Cell<bool>,
    bell: Bell,
    /// Replies not yet sent.
    outbox: RefCell<Vec<Frame>>,
    /// Requests running or with an unsent reply.
    running: Cell<usize>,
    /// Bytes of bulk that those hold.
    bulk: Cell<usize>,
}

impl Connection {
    fn is_between_servers(&self) -> bool {
        self.session == SessionId::default()
    }

    fn close(&self) {
        self.closed.set(true);
        self.bell.ring();
    }

    fn has_room(&self) -> bool {
        self.running.get() < REQUESTS_IN_FLIGHT_MAX && self.bulk.get() < BULK_IN_FLIGHT_MAX
    }

    /// Sends everything there is to send in one go, again and again.
    async fn write(&self, sender: &mut LinkSender) -> End {
        loop {
            until(|| !self.outbox.borrow().is_empty()).await;
            let frames = self.outbox.take();
            let (count, bulk) = (frames.len(), frames.iter().map(bulk_len).sum());
            if let Err(error) = sender.send(frames).await {
                return End::Gone(error.to_string());
            }
            let had_room = self.has_room();
            self.running.set(self.running.get() - count);
            self.release_bulk(bulk);
            if !had_room {
                self.bell.ring();
            }
        }
    }

    fn release_bulk(&self, len: usize) {
        self.bulk.set(self.bulk.get() - len);
    }

    /// Decodes a frame; the error says what is wrong with it.
    fn check(&self, frame: Frame) -> Result<Incoming, String> {
        let (header, body, bulk) =
            FrameHeader::parse(&frame.head).map_err(|error| error.to_string())?;
        let request = AnyRequest::decode(header.opcode, body)
            .map_err(|error| format!("opcode {:#x}: {error}", header.opcode))?;
        let ours = header.cluster == self.cluster
            && header.session == self.session
            && header.target == self.target;
        let slot = if request.is_mutation() {
            header.slot < SLOTS_PER_SESSION
        } else {
            header.slot == NO_SLOT
        };
        if header.reply || !ours || bulk != bulk_len(&frame) {
            return Err(format!("{} does not belong on this connection", request.name()));
        }
        if !slot {
            return Err(format!("{} with a wrong slot", request.name()));
        }
        Ok(Incoming { header, request, bulk: frame.bulk, peer: self.peer.clone() })
    }
}

fn bulk_len(frame: &Frame) -> usize {
    frame.bulk.as_ref().map_or(0, |bulk| bulk.len())
}

/// A request that has begun. Ends with its reply, or by being dropped.
struct Running {
    connections: Connections,
    connection: Rc<Connection>,
    header: FrameHeader,
    bulk: usize,
}

impl Running {
    fn new(connections: &Connections, connection: &Rc<Connection>, call: &Incoming) -> Self {
        let bulk = call.bulk.as_ref().map_or(0, |bulk| bulk.len());
        connection.running.set(connection.running.get() + 1);
        connection.bulk.set(connection.bulk.get() + bulk);
        let running = Self {
            connections: connections.clone(),
            connection: connection.clone(),
            header: call.header,
            bulk,
        };
        if running.counts_as_data() {
            running.connections.update(connection, |session| session.data_running += 1);
        }
        running
    }

    /// Mutations are kept apart from their repetitions by their slot; everything else of a
    /// session must have ended before a newer connection begins, but for what only waits.
    fn counts_as_data(&self) -> bool {
        self.header.slot == NO_SLOT
            && self.header.opcode != LeasePoll::OPCODE
            && !self.connection.is_between_servers()
    }

    fn end(self, outgoing: Outgoing) {
        if !self.connection.closed.get() {
            let frame = self.reply(outgoing);
            self.connection.bulk.set(self.connection.bulk.get() + bulk_len(&frame));
            self.connection.outbox.borrow_mut().push(frame);
            self.connection.bell.ring();
        }
    }

    fn reply(&self, outgoing: Outgoing) -> Frame {
        let Outgoing { result, bulk } = outgoing;
        let (status, body) = match result {
            Ok(body) => (0, body),
            Err((status, body)) => (status.code(), body),
        };
        let bulk = bulk.filter(|bulk| !bulk.is_empty());
        let bulk_len = bulk.as_ref().map_or(0, |bulk| bulk.len());
        let header = FrameHeader { reply: true, status, ..self.header };
        if body.len() > MAX_BODY_LEN || bulk_len > MAX_BULK_LEN {
            tracing::error!(opcode = header.opcode, "a reply is too large for a frame");
            let header = FrameHeader { status: Status::Failed(Errno::EIO).code(), ..header };
            return Frame { head: header.frame(&[], 0), bulk: None };
        }
        Frame { head: header.frame(&body, bulk_len), bulk }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.connection.release_bulk(self.bulk);
        if !self.counts_as_data() {
            return;
        }
        self.connections.update(&self.connection, |session| {
            session.data_running -= 1;
            if session.data_running == 0
                && let Some(current) = &session.current
            {
                current.bell.ring();
            }
        });
    }
}
