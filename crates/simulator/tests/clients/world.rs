//! A cluster of two nodes with two targets each, and machines for clients.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringfs_client::{Client, ClientOptions, SharedClient};
use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry};
use ringfs_platform::{Outcome, Platform, SimulatedNode, Simulation, SimulationOptions};
use ringfs_rpc::ClusterKey;
use ringfs_server::{Node, NodeOptions};
use ringfs_store::{Store, StoreOptions};
use ringfs_wire::{ClusterId, FilePermissions, Name, NodeId, TargetId};

pub(crate) const NODES: u32 = 2;
const TARGETS: u32 = 4;
/// The machine of the first client.
const FIRST_CLIENT: u32 = 100;
/// Virtual time that a test may take.
const TEST_TIME: Duration = Duration::from_secs(600);

pub(crate) const CHUNK: u64 = 1 << 17;
pub(crate) const OWNER: FilePermissions = FilePermissions { mode: 0o644, uid: 0, gid: 0 };

pub(crate) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// The cluster and whatever tests do to it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) simulation: Rc<Simulation>,
    pub(crate) map: ClusterMap,
    pub(crate) key: ClusterKey,
    servers: Rc<RefCell<Vec<Option<Node>>>>,
}

fn store_options() -> StoreOptions {
    StoreOptions { log_segment_bytes: 1 << 20, ..StoreOptions::new(ClusterId(1), TargetId(0)) }
}

fn address(node: u32) -> String {
    format!("10.0.0.{}:7000", node + 1)
}

impl World {
    fn new() -> Self {
        let nodes = (0..NODES).map(|i| NodeEntry { id: NodeId(i), address: address(i) }).collect();
        let targets =
            (0..TARGETS).map(|i| TargetEntry { id: TargetId(i), node: NodeId(i % NODES) });
        let mut parts = MapParts::new(ClusterId(1), "test", nodes, targets.collect());
        parts.arc_bits = 8;
        parts.chunk_size = CHUNK as u32;
        Self {
            simulation: Rc::new(Simulation::new(1, SimulationOptions::default())),
            map: ClusterMap::new(parts).unwrap(),
            key: ClusterKey::from_hex(&"5a".repeat(32)).unwrap(),
            servers: Rc::new(RefCell::new((0..NODES).map(|_| None).collect())),
        }
    }

    /// Starts a server; it may take a while.
    pub(crate) fn start(&self, node: u32) {
        let (world, platform) = (self.clone(), self.simulation.platform(SimulatedNode(node)));
        platform.clone().spawn(async move {
            let directory = PathBuf::from("/data");
            let _ = platform.disk().mkdir(&directory, 0o700).await;
            platform.disk().sync_directory(Path::new("/")).await.unwrap();
            let listen = address(node).parse().unwrap();
            let (map, key) = (world.map.clone(), world.key.clone());
            let mut options = NodeOptions::new(NodeId(node), map, key, directory, listen);
            options.store = store_options();
            let server = ringfs_server::start(&platform, options).await.unwrap();
            world.servers.borrow_mut()[node as usize] = Some(server);
        });
    }

    /// Changes what a target keeps while its server is down: nobody sees it come.
    pub(crate) async fn tamper(&self, target: TargetId, change: impl FnOnce(&Store)) {
        self.tamper_with(target, async move |store| change(&store)).await;
    }

    /// As [`World::tamper`], with a change that takes its time.
    pub(crate) async fn tamper_with(&self, target: TargetId, change: impl AsyncFnOnce(Store)) {
        let node = target.0 % NODES;
        let platform = self.simulation.platform(SimulatedNode(node));
        let options = store_options();
        let directory = PathBuf::from(format!("/data/target-{target}"));
        let options = StoreOptions { target, ..options };
        let store = Store::open(&platform, &directory, options).await.unwrap();
        change(store.clone()).await;
        store.close().await.unwrap();
    }

    /// Kills a server: what it told its kernel stays.
    pub(crate) fn kill(&self, node: u32) {
        self.simulation.kill(SimulatedNode(node));
        self.servers.borrow_mut()[node as usize] = None;
    }

    /// Cuts the power of a server's machine: what was not synced may be lost.
    pub(crate) fn cut_power(&self, node: u32) {
        self.simulation.power_cut(SimulatedNode(node));
        self.servers.borrow_mut()[node as usize] = None;
    }

    /// The platform of a client's machine.
    pub(crate) fn platform(&self, machine: u32) -> Platform {
        self.simulation.platform(SimulatedNode(FIRST_CLIENT + machine))
    }

    /// What the clients of one process share, on a machine.
    pub(crate) fn process(&self, machine: u32) -> SharedClient {
        let options = ClientOptions::default();
        let (map, key) = (self.map.clone(), self.key.clone());
        SharedClient::new(&self.platform(machine), map, key, options, None)
    }

    /// A client on a machine.
    pub(crate) fn client(&self, machine: u32) -> Client {
        let options = ClientOptions::default();
        Client::new(&self.platform(machine), self.map.clone(), self.key.clone(), options)
    }

    /// What the clients of a mount on a machine share; it caches about `inodes` inodes.
    pub(crate) fn shared(&self, machine: u32, inodes: usize) -> SharedClient {
        let (map, key) = (self.map.clone(), self.key.clone());
        let options = ClientOptions::default();
        SharedClient::new(&self.platform(machine), map, key, options, Some(inodes))
    }
}

/// Runs a test once all servers are up.
pub(crate) fn run<F: Future<Output = ()> + 'static>(test: impl FnOnce(World) -> F) {
    let world = World::new();
    (0..NODES).for_each(|node| world.start(node));
    let is_up = || world.servers.borrow().iter().all(Option::is_some);
    assert_eq!(world.simulation.run_until(is_up, Duration::from_secs(60)), Outcome::Done);
    let done = Rc::new(Cell::new(false));
    let (finished, test) = (done.clone(), test(world.clone()));
    // The machine that runs the test itself never dies.
    world.simulation.platform(SimulatedNode(FIRST_CLIENT - 1)).spawn(async move {
        test.await;
        finished.set(true);
    });
    assert_eq!(world.simulation.run_until(|| done.get(), TEST_TIME), Outcome::Done);
}
