//! A server with a service that remembers what it was asked, and peers to ask it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use ringfs_platform::{Address, Platform, SimulatedNode, Simulation, Slice};
use ringfs_rpc::{
    ClusterKey, Connections, FRAMING, Identity, Incoming, Outgoing, Peer, PeerOptions, Service,
    greet,
};
use ringfs_wire::{
    AnyRequest, ClusterId, DeleteReply, Epoch, Generation, Hello, InodeNumber, Lineage,
    MetadataDelete, Name, SessionId, SpaceChange, Status, TargetId, Welcome, Wire,
};

pub(crate) const SERVER: SimulatedNode = SimulatedNode(0);
pub(crate) const CLIENT: SimulatedNode = SimulatedNode(1);
pub(crate) const TARGET: TargetId = TargetId(7);
pub(crate) const SESSION: SessionId = SessionId(99);

pub(crate) fn address() -> Address {
    Address::Tcp(SocketAddr::from(([10, 0, 0, 1], 7000)))
}

pub(crate) fn identity() -> Identity {
    let key = ClusterKey::from_hex(&"5a".repeat(32)).unwrap();
    Identity { cluster: ClusterId(1), key, session: SESSION, holder: SESSION }
}

/// One remembered request of a slot.
type SlotEntry = (u64, Vec<u8>);

/// Answers, and remembers.
pub(crate) struct Recorder {
    platform: Platform,
    /// How long each request takes, by turns; the last one stays.
    pub(crate) delays: RefCell<Vec<Duration>>,
    /// What to answer instead, by turns.
    pub(crate) answers: RefCell<Vec<Status>>,
    pub(crate) admission: Cell<Option<Status>>,
    /// What connections are welcomed with.
    pub(crate) lineage: Cell<Lineage>,
    pub(crate) hellos: RefCell<Vec<Hello>>,
    /// Requests in the order they began: opcode, slot, sequence.
    pub(crate) begun: RefCell<Vec<(AnyRequest, u16, u64)>>,
    /// Offsets of chunk writes in the order they took effect.
    pub(crate) written: RefCell<Vec<u64>>,
    /// How often each mutation was executed, by the name it carries.
    pub(crate) executed: RefCell<BTreeMap<Vec<u8>, u32>>,
    slots: RefCell<BTreeMap<(SessionId, u16), SlotEntry>>,
    pub(crate) running: Cell<usize>,
    pub(crate) running_max: Cell<usize>,
    pub(crate) disconnects: Cell<usize>,
    pub(crate) rejections: RefCell<Vec<String>>,
}

impl Recorder {
    pub(crate) fn new(platform: &Platform) -> Rc<Self> {
        Rc::new(Self {
            platform: platform.clone(),
            delays: RefCell::default(),
            answers: RefCell::default(),
            admission: Cell::default(),
            lineage: Cell::default(),
            hellos: RefCell::default(),
            begun: RefCell::default(),
            written: RefCell::default(),
            executed: RefCell::default(),
            slots: RefCell::default(),
            running: Cell::default(),
            running_max: Cell::default(),
            disconnects: Cell::default(),
            rejections: RefCell::default(),
        })
    }

    async fn answer(&self, call: Incoming) -> Outgoing {
        let delay = {
            let mut delays = self.delays.borrow_mut();
            if delays.len() > 1 { Some(delays.remove(0)) } else { delays.first().copied() }
        };
        if let Some(delay) = delay {
            self.platform.sleep(delay).await;
        }
        let answer = self.answers.borrow_mut().pop();
        if let Some(status) = answer {
            return Outgoing::status(status);
        }
        match call.request {
            AnyRequest::MetadataDelete(request) => self.execute(&call.header, &request.name),
            AnyRequest::ChunkWrite(request) => {
                self.written.borrow_mut().push(request.offset);
                Outgoing::reply(SpaceChange { allocated: 0 }.to_bytes())
            }
            AnyRequest::ChunkRead(request) => {
                let bulk = vec![request.offset as u8; request.length as usize];
                Outgoing::with_bulk(Vec::new(), Slice::from(bulk))
            }
            _ => Outgoing::reply(Vec::new()),
        }
    }

    /// The slot protocol as a store keeps it.
    fn execute(&self, header: &ringfs_wire::FrameHeader, name: &Name) -> Outgoing {
        let mut slots = self.slots.borrow_mut();
        let entry = slots.entry((header.session, header.slot)).or_default();
        if header.sequence < entry.0 {
            return Outgoing::status(Status::SlotStale);
        }
        if header.sequence > entry.0 {
            *self.executed.borrow_mut().entry(name.as_bytes().to_vec()).or_default() += 1;
            *entry = (header.sequence, DeleteReply::default().to_bytes());
        }
        Outgoing::reply(entry.1.clone())
    }
}

impl Service for Recorder {
    fn admit(&self, hello: Hello) -> LocalBoxFuture<'_, Result<Welcome, Status>> {
        self.hellos.borrow_mut().push(hello);
        let admitted =
            self.admission.get().map_or(Ok(Welcome { lineage: self.lineage.get() }), Err);
        Box::pin(async move { admitted })
    }

    fn handle(&self, call: Incoming) -> LocalBoxFuture<'_, Outgoing> {
        let entry = (call.request.clone(), call.header.slot, call.header.sequence);
        self.begun.borrow_mut().push(entry);
        self.running.set(self.running.get() + 1);
        self.running_max.set(self.running_max.get().max(self.running.get()));
        Box::pin(async move {
            let outgoing = self.answer(call).await;
            self.running.set(self.running.get() - 1);
            outgoing
        })
    }

    fn disconnected(&self, _: SessionId) {
        self.disconnects.set(self.disconnects.get() + 1);
    }
}

/// Serves `TARGET` at [`address`] on the present process of the server's node.
pub(crate) fn start_server(platform: &Platform, service: &Rc<Recorder>) {
    let (platform, service) = (platform.clone(), service.clone());
    let task = platform.clone();
    task.spawn(async move {
        let listener = platform.listen(&address(), FRAMING).await.unwrap();
        let connections = Rc::new(Connections::new());
        while let Ok(link) = listener.accept().await {
            let (inner, service) = (platform.clone(), service.clone());
            let connections = connections.clone();
            platform.spawn(async move {
                let server = Identity { session: SessionId(0), ..identity() };
                match greet(&inner, link, &server, &[TargetId(3), TARGET]).await {
                    Ok(greeted) => connections.serve(&inner, greeted, service).await,
                    Err(rejection) => {
                        service.rejections.borrow_mut().push(rejection.reason.to_string());
                    }
                }
            });
        }
    });
}

pub(crate) fn peer_with(platform: &Platform, identity: Identity, options: PeerOptions) -> Peer {
    let epoch = Rc::new(Cell::new(Epoch(1)));
    Peer::new(platform, address(), TARGET, identity, epoch, Rc::new(|_| Vec::new()), options)
}

pub(crate) fn peer(platform: &Platform) -> Peer {
    peer_with(platform, identity(), PeerOptions::default())
}

/// A mutation that can be told from all others.
pub(crate) fn mutation(name: &str) -> MetadataDelete {
    let name = Name::new(name.as_bytes()).unwrap();
    MetadataDelete { directory: InodeNumber::ROOT, name, is_directory: false }
}

pub(crate) fn chunk_write(offset: u64) -> ringfs_wire::ChunkWrite {
    let generation = Generation(1);
    ringfs_wire::ChunkWrite { inode: InodeNumber(5), generation, chunk_size: 1 << 22, offset }
}

/// A world with a server in it.
pub(crate) struct World {
    pub(crate) simulation: Simulation,
    pub(crate) service: Rc<Recorder>,
    pub(crate) client: Platform,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let simulation = Simulation::new(seed, Default::default());
        let server = simulation.platform(SERVER);
        let service = Recorder::new(&server);
        start_server(&server, &service);
        let client = simulation.platform(CLIENT);
        Self { simulation, service, client }
    }

    /// Runs `task` on the client's node to its end.
    pub(crate) fn run<T: 'static>(&self, task: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        self.client.spawn(async move {
            let value = task.await;
            *slot.borrow_mut() = Some(value);
        });
        let limit = Duration::from_secs(600);
        let outcome = self.simulation.run_until(|| result.borrow().is_some(), limit);
        assert_eq!(outcome, ringfs_platform::Outcome::Done, "the task must end");
        result.take().unwrap()
    }

    pub(crate) fn wait(&self, duration: Duration) {
        let platform = self.client.clone();
        self.run(async move { platform.sleep(duration).await });
    }
}
