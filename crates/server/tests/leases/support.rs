//! A node of several targets on the simulator, and mounts that cache what it leases them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry};
use ringfs_platform::{
    Address, Outcome, Platform, SimulatedNode, Simulation, SimulationOptions, Slice,
};
use ringfs_rpc::{ClusterKey, Identity, Peer, PeerOptions};
use ringfs_server::{Node, NodeOptions};
use ringfs_wire::{
    AttributeChanges, AttributesGet, AttributesResult, ClusterId, DirectoryPlace, FilePermissions,
    InodeNumber, InodeType, Lease, LeasePoll, LeaseRelease, LookupReply, MetadataCreate,
    MetadataLookup, MetadataUpdate, Name, NodeId, Request, SessionId, Status, TargetId,
};

pub(crate) const ROOT: InodeNumber = InodeNumber::ROOT;
pub(crate) const WRITTEN: Lease = Lease::ATTRIBUTES.or(Lease::CONTENT);

const SERVER: SimulatedNode = SimulatedNode(0);
const CLIENT: SimulatedNode = SimulatedNode(1);
const TARGETS: u32 = 3;
/// Virtual time that a test may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Pause between two looks at something that has no signal.
const PAUSE: Duration = Duration::from_millis(20);

/// The node and where its clients run.
pub(crate) struct World {
    simulation: Rc<Simulation>,
    node: Rc<RefCell<Option<Node>>>,
    map: ClusterMap,
    /// How many names were used.
    names: Cell<u32>,
    pub(crate) platform: Platform,
}

/// Runs `test` on a fresh node.
pub(crate) fn run<F, T>(test: F)
where
    F: FnOnce(Rc<World>) -> T,
    T: Future<Output = ()> + 'static,
{
    let simulation = Rc::new(Simulation::new(1, SimulationOptions::default()));
    let platform = simulation.platform(CLIENT);
    let world = Rc::new(World {
        simulation: Rc::clone(&simulation),
        node: Rc::default(),
        map: map(),
        names: Cell::default(),
        platform: platform.clone(),
    });
    let done = Rc::new(Cell::new(false));
    let (finished, its_world, test) = (Rc::clone(&done), Rc::clone(&world), test(world));
    platform.spawn(async move {
        its_world.start().await;
        test.await;
        finished.set(true);
    });
    assert_eq!(simulation.run_until(|| done.get(), PATIENCE), Outcome::Done, "the test ends");
}

impl World {
    async fn start(&self) {
        let (server, kept, map) =
            (self.simulation.platform(SERVER), Rc::clone(&self.node), self.map.clone());
        self.simulation.platform(SERVER).spawn(async move {
            let directory = PathBuf::from("/node");
            // It is there already when this is a restart.
            let _ = server.disk().mkdir(&directory, 0o700).await;
            let options = NodeOptions::new(NodeId(0), map, key(), directory, address());
            *kept.borrow_mut() = Some(ringfs_server::start(&server, options).await.unwrap());
        });
        while self.node.borrow().is_none() {
            self.platform.sleep(PAUSE).await;
        }
    }

    /// Kills the node and starts it again.
    pub(crate) async fn restart(&self) {
        self.simulation.kill(SERVER);
        self.node.borrow_mut().take();
        self.start().await;
    }

    fn peers(&self, session: u64, holder: u64) -> BTreeMap<TargetId, Peer> {
        let peer = |id| {
            let identity = Identity {
                cluster: ClusterId(1),
                key: key(),
                session: SessionId(session),
                holder: SessionId(holder),
            };
            let epoch = Rc::new(Cell::new(self.map.epoch()));
            let none = Rc::new(|_| Vec::new());
            let options = PeerOptions::default();
            Peer::new(&self.platform, address(), id, identity, epoch, none, options)
        };
        (0..TARGETS).map(|id| (TargetId(id), peer(TargetId(id)))).collect()
    }

    /// A client that caches nothing.
    pub(crate) fn client(self: &Rc<Self>, number: u64) -> Mount {
        Mount {
            world: Rc::clone(self),
            workers: self.peers(number, 0),
            peers: BTreeMap::new(),
            seen: Rc::default(),
            answers: Rc::new(Cell::new(true)),
            lives: Rc::new(Cell::new(true)),
        }
    }

    /// A mount whose leases every target knows.
    pub(crate) async fn mount(self: &Rc<Self>, number: u64) -> Mount {
        let holder = 1000 * number;
        let mut mount = self.client(number);
        (mount.workers, mount.peers) = (self.peers(number, holder), self.peers(holder, holder));
        for (id, peer) in &mount.peers {
            let ready = Rc::new(Cell::new(false));
            self.platform.spawn(mount.poll(peer.clone(), Rc::clone(&ready)));
            while !ready.get() {
                self.platform.sleep(PAUSE).await;
            }
            // The second poll has been read when something sent after it is answered.
            mount.peers[id].call(&ringfs_wire::Echo {}, None).await.unwrap();
        }
        mount
    }

    /// A directory in the root whose home is, or is not, that of the root.
    pub(crate) async fn directory(&self, by: &Mount, beside_root: bool) -> (InodeNumber, Name) {
        loop {
            self.names.set(self.names.get() + 1);
            let name = name(&format!("d{}", self.names.get()));
            let request = create(ROOT, &name, InodeType::Directory);
            let made = by.ask(ROOT, &request).await.unwrap().inode;
            if (self.map.home(made) == self.map.home(ROOT)) == beside_root {
                return (made, name);
            }
        }
    }
}

/// A client process: a worker's session and, if it caches, the session of its leases.
pub(crate) struct Mount {
    world: Rc<World>,
    workers: BTreeMap<TargetId, Peer>,
    peers: BTreeMap<TargetId, Peer>,
    seen: Rc<RefCell<Vec<(InodeNumber, Lease)>>>,
    /// Whether it answers revocations.
    pub(crate) answers: Rc<Cell<bool>>,
    /// Whether it polls at all.
    pub(crate) lives: Rc<Cell<bool>>,
}

impl Mount {
    fn poll(&self, peer: Peer, ready: Rc<Cell<bool>>) -> impl Future<Output = ()> + 'static {
        let (seen, answers, lives) =
            (Rc::clone(&self.seen), Rc::clone(&self.answers), Rc::clone(&self.lives));
        let platform = self.world.platform.clone();
        async move {
            let (mut after, mut incarnation) = (0, 0);
            while lives.get() {
                let Ok(answer) = peer.call(&LeasePoll { after, incarnation }, None).await else {
                    return;
                };
                ready.set(incarnation != 0);
                if answer.reply.incarnation != incarnation {
                    (after, incarnation) = (0, answer.reply.incarnation);
                    ready.set(true);
                    continue;
                }
                for asked in answer.reply.revocations {
                    after = asked.number;
                    seen.borrow_mut().push((asked.inode, asked.lease));
                    while !answers.get() {
                        platform.sleep(PAUSE).await;
                    }
                    let releases = vec![(asked.inode, asked.lease)];
                    peer.call(&LeaseRelease { releases }, None).await.unwrap();
                }
            }
        }
    }

    /// What it was asked for since the last look, by inode.
    pub(crate) fn asked(&self) -> Vec<(InodeNumber, Lease)> {
        let mut asked = std::mem::take(&mut *self.seen.borrow_mut());
        asked.sort_by_key(|(inode, _)| *inode);
        asked
    }

    /// Asks the home of `at`.
    pub(crate) async fn ask<R: Request>(
        &self,
        at: InodeNumber,
        request: &R,
    ) -> Result<R::Reply, Status> {
        self.ask_with(at, request, None).await
    }

    /// The same with data.
    pub(crate) async fn ask_with<R: Request>(
        &self,
        at: InodeNumber,
        request: &R,
        bulk: Option<Slice>,
    ) -> Result<R::Reply, Status> {
        let answer = self.workers[&self.world.map.home(at)].call(request, bulk).await;
        answer.map(|response| response.reply).map_err(|error| error.status().expect("a status"))
    }

    /// Looks a name up, or the inode itself, and takes all leases it is given.
    pub(crate) async fn look(
        &self,
        at: InodeNumber,
        name: Option<&Name>,
    ) -> Result<LookupReply, Status> {
        let (name, lease) = (name.cloned(), Lease::ALL);
        let request =
            MetadataLookup { directory: at, name, open: false, head: false, touch: false, lease };
        self.ask(at, &request).await
    }

    /// Attributes of a directory, and all leases, as found in the root under a name.
    pub(crate) async fn look_far(&self, inode: InodeNumber, name: &Name) -> Lease {
        let named = Some(DirectoryPlace { parent: ROOT, name: name.clone() });
        let request = AttributesGet { inodes: vec![inode], lease: Lease::ALL, named };
        match self.ask(inode, &request).await.unwrap().remove(0) {
            AttributesResult::Found(_, lease) => lease,
            AttributesResult::Failed(status) => panic!("{status}"),
        }
    }

    pub(crate) async fn file(&self, directory: InodeNumber, text: &str) -> InodeNumber {
        self.ask(directory, &create(directory, &name(text), InodeType::File)).await.unwrap().inode
    }

    pub(crate) async fn chmod(&self, inode: InodeNumber, mode: u32) -> Result<(), Status> {
        let changes = AttributeChanges { mode: Some(mode), ..AttributeChanges::default() };
        self.ask(inode, &MetadataUpdate { inode, changes }).await.map(|_| ())
    }
}

/// A request to create something.
pub(crate) fn create(directory: InodeNumber, name: &Name, kind: InodeType) -> MetadataCreate {
    MetadataCreate {
        directory,
        name: name.clone(),
        kind,
        permissions: FilePermissions { mode: 0o755, uid: 0, gid: 0 },
        umask: 0,
        device: 0,
        symlink: Vec::new(),
        exclusive: true,
        open: false,
        lease: Lease::NONE,
    }
}

/// A valid name.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn address() -> Address {
    Address::Tcp(SocketAddr::from(([10, 0, 0, 1], 7000)))
}

fn map() -> ClusterMap {
    let node = NodeEntry { id: NodeId(0), address: address().to_string() };
    let targets = (0..TARGETS).map(|id| TargetEntry { id: TargetId(id), node: NodeId(0) });
    let parts = MapParts::new(ClusterId(1), "test", vec![node], targets.collect());
    ClusterMap::new(parts).unwrap()
}

fn key() -> ClusterKey {
    ClusterKey::from_hex(&"5a".repeat(32)).unwrap()
}
