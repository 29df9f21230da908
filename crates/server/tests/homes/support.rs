//! A node of several targets on the simulator, and a session that asks them.

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
use ringfs_server::NodeOptions;
use ringfs_wire::{
    Attributes, AttributesGet, AttributesResult, ClusterId, Errno, FilePermissions, InodeNumber,
    InodeType, Lease, MetadataCreate, MetadataLookup, Name, NodeId, Request, SessionId, Status,
    TargetId,
};

const SERVER: SimulatedNode = SimulatedNode(0);
const CLIENT: SimulatedNode = SimulatedNode(1);
/// Virtual time that a test may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long an inode may stay that nobody has a name or a use for.
const REMOVAL_SECONDS_MAX: u32 = 5;

/// A session with every target of the node.
pub(crate) struct Session {
    simulation: Rc<Simulation>,
    platform: Platform,
    map: ClusterMap,
    peers: BTreeMap<TargetId, Peer>,
}

/// Runs `test` as a client of a fresh node with `targets` targets.
pub(crate) fn run<F, T>(targets: u32, test: F)
where
    F: FnOnce(Session) -> T,
    T: Future<Output = ()> + 'static,
{
    let simulation = Rc::new(Simulation::new(1, SimulationOptions::default()));
    let map = map(targets);
    let node = Rc::new(RefCell::new(None));
    let (server, kept, its_map) = (simulation.platform(SERVER), Rc::clone(&node), map.clone());
    simulation.platform(SERVER).spawn(async move {
        let directory = PathBuf::from("/node");
        server.disk().mkdir(&directory, 0o700).await.unwrap();
        let options = NodeOptions::new(NodeId(0), its_map, key(), directory, address());
        *kept.borrow_mut() = Some(ringfs_server::start(&server, options).await.unwrap());
    });
    let up = simulation.run_until(|| node.borrow().is_some(), PATIENCE);
    assert_eq!(up, Outcome::Done, "the node starts");
    let platform = simulation.platform(CLIENT);
    let peers = (0..targets).map(|id| (TargetId(id), peer(&platform, &map, TargetId(id))));
    let session = Session {
        simulation: Rc::clone(&simulation),
        peers: peers.collect(),
        platform: platform.clone(),
        map,
    };
    let test = test(session);
    let done = Rc::new(Cell::new(false));
    let finished = Rc::clone(&done);
    platform.spawn(async move {
        test.await;
        finished.set(true);
    });
    assert_eq!(simulation.run_until(|| done.get(), PATIENCE), Outcome::Done, "the test ends");
}

fn address() -> Address {
    Address::Tcp(SocketAddr::from(([10, 0, 0, 1], 7000)))
}

fn map(targets: u32) -> ClusterMap {
    let node = NodeEntry { id: NodeId(0), address: address().to_string() };
    let targets = (0..targets).map(|id| TargetEntry { id: TargetId(id), node: NodeId(0) });
    let parts = MapParts::new(ClusterId(1), "test", vec![node], targets.collect());
    ClusterMap::new(parts).unwrap()
}

fn key() -> ClusterKey {
    ClusterKey::from_hex(&"5a".repeat(32)).unwrap()
}

fn peer(platform: &Platform, map: &ClusterMap, target: TargetId) -> Peer {
    let identity =
        Identity { cluster: ClusterId(1), key: key(), session: SessionId(9), holder: SessionId(0) };
    let epoch = Rc::new(Cell::new(map.epoch()));
    let no_references = Rc::new(|_| Vec::new());
    Peer::new(platform, address(), target, identity, epoch, no_references, PeerOptions::default())
}

impl Session {
    /// Sets the node's clock to so many hours after the true time.
    pub(crate) fn set_clock(&self, hours: i64) {
        self.simulation.skew_wall(SERVER, hours * 3_600_000_000_000);
    }

    /// Whose `inode` is.
    pub(crate) fn home(&self, inode: InodeNumber) -> TargetId {
        self.map.home(inode)
    }

    /// Asks the home of `at`.
    pub(crate) async fn ask<R: Request>(
        &self,
        at: InodeNumber,
        request: &R,
    ) -> Result<R::Reply, Status> {
        let answer = self.peers[&self.home(at)].call(request, None).await;
        answer.map(|response| response.reply).map_err(|error| error.status().expect("a status"))
    }

    /// Sends data to the home of `at`.
    pub(crate) async fn send<R: Request>(
        &self,
        at: InodeNumber,
        request: &R,
        data: &[u8],
    ) -> Result<R::Reply, Status> {
        let answer = self.peers[&self.home(at)].call(request, Some(Slice::from(data))).await;
        answer.map(|response| response.reply).map_err(|error| error.status().expect("a status"))
    }

    /// The bytes that the home of `at` answers with.
    pub(crate) async fn bulk<R: Request>(&self, at: InodeNumber, request: &R) -> Vec<u8> {
        let answer = self.peers[&self.home(at)].call(request, None).await.unwrap();
        answer.bulk.expect("bytes").to_vec()
    }

    /// The errno that asking the home of `at` ends with.
    pub(crate) async fn refusal<R: Request>(&self, at: InodeNumber, request: &R) -> Errno {
        self.ask(at, request).await.err().expect("a refusal").errno()
    }

    /// Creates `request` and returns its number.
    pub(crate) async fn create(&self, request: MetadataCreate) -> InodeNumber {
        self.ask(request.directory, &request).await.unwrap().inode
    }

    /// The attributes of an inode.
    pub(crate) async fn attributes(&self, inode: InodeNumber) -> Result<Attributes, Status> {
        let request = AttributesGet { inodes: vec![inode], lease: Lease::NONE, named: None };
        match self.ask(inode, &request).await?.remove(0) {
            AttributesResult::Found(attributes, _) => Ok(*attributes),
            AttributesResult::Failed(status) => Err(status),
        }
    }

    /// Waits, asking ever again, until an inode is gone. A node that has started for the first
    /// time keeps nothing for sessions that might come back.
    pub(crate) async fn until_gone(&self, inode: InodeNumber) {
        for _ in 0..REMOVAL_SECONDS_MAX {
            if self.attributes(inode).await == Err(Status::Failed(Errno::ENOENT)) {
                return;
            }
            self.platform.sleep(Duration::from_secs(1)).await;
        }
        panic!("{inode:?} is still there");
    }

    /// What a name holds.
    pub(crate) async fn find(
        &self,
        directory: InodeNumber,
        text: &str,
    ) -> Result<InodeNumber, Status> {
        let (name, lease) = (Some(name(text)), Lease::NONE);
        let request =
            MetadataLookup { directory, name, open: false, head: false, touch: false, lease };
        Ok(self.ask(directory, &request).await?.inode)
    }

    /// Directories below `directory` whose homes differ, one per target.
    pub(crate) async fn directories(&self, directory: InodeNumber) -> Vec<InodeNumber> {
        let mut found = BTreeMap::new();
        for number in 0.. {
            if found.len() == self.peers.len() {
                break;
            }
            let text = format!("d{number}");
            let inode = match self.find(directory, &text).await {
                Ok(inode) => inode,
                Err(_) => self.create(create(directory, &text, InodeType::Directory, 0o755)).await,
            };
            found.entry(self.home(inode)).or_insert(inode);
        }
        found.into_values().collect()
    }
}

/// A valid name.
pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

/// A request to create something.
pub(crate) fn create(
    directory: InodeNumber,
    text: &str,
    kind: InodeType,
    mode: u32,
) -> MetadataCreate {
    MetadataCreate {
        directory,
        name: name(text),
        kind,
        permissions: FilePermissions { mode, uid: 0, gid: 0 },
        umask: 0,
        device: 0,
        symlink: Vec::new(),
        exclusive: true,
        open: false,
        lease: Lease::NONE,
    }
}
