//! The servers of a run: their machines, their starts and their ends.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringfs_client::ClientOptions;
use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry};
use ringfs_platform::sim::SimulatedNode;
use ringfs_platform::{Platform, StorageError};
use ringfs_rpc::ClusterKey;
use ringfs_server::NodeOptions;
use ringfs_store::StoreOptions;
use ringfs_wire::{ClusterId, InodeNumber, NodeId, TargetId};

use crate::actor::Shared;
use crate::mutation::Mutation;
use crate::workload::Swarm;

/// Few enough that descriptors are closed and opened again.
const OPEN_SEGMENTS: usize = 4;
/// Bits of the arc table: enough for a handful of targets, and quick to build for every seed.
const ARC_BITS: u8 = 8;
/// Identity of the simulated cluster.
const CLUSTER: ClusterId = ClusterId(0x5eed);
/// Where servers listen: the address of node `i` ends in `i`.
const PORT: u16 = 7000;

/// One server.
struct Server {
    node: SimulatedNode,
    /// It has been started, and has not ended since.
    is_running: Cell<bool>,
    /// It could not start, because of its disk.
    has_given_up: Rc<Cell<bool>>,
    is_up: Rc<Cell<bool>>,
    started_at: Rc<Cell<Duration>>,
    ended_at: Cell<Duration>,
}

/// All servers of a run.
pub(crate) struct Cluster {
    pub(crate) map: ClusterMap,
    pub(crate) key: ClusterKey,
    servers: Vec<Server>,
    /// Why a server could not start.
    pub(crate) failure: Rc<RefCell<Option<String>>>,
    mutation: Option<Mutation>,
    /// Small enough that log files fill, snapshots are taken and old logs go within a run.
    log_segment_bytes: u64,
}

impl Cluster {
    /// A cluster of the seed's shape; no server runs yet.
    pub(crate) fn new(swarm: &Swarm, key: ClusterKey, mutation: Option<Mutation>) -> Self {
        let node_entry = |i: u32| NodeEntry { id: NodeId(i), address: address(i) };
        let targets = (0..swarm.nodes * swarm.targets_per_node)
            .map(|i| TargetEntry { id: TargetId(i), node: NodeId(i % swarm.nodes) });
        let nodes = (0..swarm.nodes).map(node_entry).collect();
        let mut parts = MapParts::new(CLUSTER, "simulated", nodes, targets.collect());
        parts.arc_bits = ARC_BITS;
        parts.chunk_size = swarm.chunk_size;
        let servers = (0..swarm.nodes).map(|i| Server {
            node: SimulatedNode(i),
            is_running: Cell::default(),
            has_given_up: Rc::default(),
            is_up: Rc::default(),
            started_at: Rc::default(),
            ended_at: Cell::default(),
        });
        Self {
            map: ClusterMap::new(parts).expect("the map is valid"),
            key,
            servers: servers.collect(),
            failure: Rc::default(),
            mutation,
            log_segment_bytes: swarm.log_segment_bytes,
        }
    }

    /// What clients of the run are made with.
    pub(crate) fn client_options(&self) -> ClientOptions {
        let mut options = ClientOptions::default();
        if let Some(mutation) = self.mutation {
            mutation.apply_to_client(&mut options);
        }
        options
    }

    /// Machines of the cluster.
    pub(crate) fn machines(&self) -> Vec<SimulatedNode> {
        self.servers.iter().map(|server| server.node).collect()
    }

    /// Whether every server has recovered and is open.
    pub(crate) fn is_up(&self) -> bool {
        self.servers.iter().all(|server| server.is_up.get())
    }

    /// The machine that runs a target.
    pub(crate) fn machine_of(&self, target: TargetId) -> SimulatedNode {
        SimulatedNode(self.map.node_of(target).map_or(0, |node| node.id.0))
    }

    /// The home of an inode.
    pub(crate) fn home(&self, inode: InodeNumber) -> TargetId {
        self.map.home(inode)
    }

    fn server(&self, node: SimulatedNode) -> &Server {
        &self.servers[node.0 as usize]
    }

    /// When the server of a machine last came up.
    pub(crate) fn started_at(&self, node: SimulatedNode) -> Duration {
        self.server(node).started_at.get()
    }

    /// When the server of a machine, which is down, last ended while it was up.
    pub(crate) fn worked_until(&self, node: SimulatedNode) -> Duration {
        self.server(node).ended_at.get()
    }

    /// Whether a server has been started and has not ended since.
    pub(crate) fn is_running(&self, node: SimulatedNode) -> bool {
        self.server(node).is_running.get()
    }

    /// Whether a server could not start because of its disk.
    pub(crate) fn has_given_up(&self, node: SimulatedNode) -> bool {
        self.server(node).has_given_up.get()
    }

    /// Notes that a server is gone.
    pub(crate) fn note_down(&self, node: SimulatedNode, now: Duration) {
        let server = self.server(node);
        server.is_running.set(false);
        if server.is_up.replace(false) {
            server.ended_at.set(now);
        }
    }

    /// Starts a server on its machine, unless it runs.
    pub(crate) fn start(&self, shared: &Rc<Shared>, node: SimulatedNode) {
        let server = self.server(node);
        if server.is_running.replace(true) {
            return;
        }
        server.has_given_up.set(false);
        let platform = shared.simulation.platform(node);
        let mut options = NodeOptions {
            node: NodeId(node.0),
            map: self.map.clone(),
            key: self.key.clone(),
            directory: PathBuf::from("/data"),
            listen: address(node.0).parse().expect("the address is valid"),
            store: store_options(self.log_segment_bytes),
            mutations: Default::default(),
        };
        if let Some(mutation) = self.mutation {
            mutation.apply(&mut options);
        }
        let (is_up, started_at) = (server.is_up.clone(), server.started_at.clone());
        let (failure, shared) = (self.failure.clone(), shared.clone());
        let has_given_up = server.has_given_up.clone();
        platform.clone().spawn(async move {
            let made = make_directory(&platform, &options.directory).await;
            let started = match made {
                Ok(()) => ringfs_server::start(&platform, options).await.map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match started {
                Ok(server) => {
                    is_up.set(true);
                    started_at.set(shared.simulation.now());
                    // A task that held the world for good would keep it from ever being freed.
                    drop(shared);
                    server.stopped().await;
                }
                // Started again once the disk is what it should be.
                Err(_) if shared.has_bad_disk(node) => has_given_up.set(true),
                Err(error) => {
                    *failure.borrow_mut() =
                        Some(format!("server {} cannot start: {error}", node.0));
                }
            }
        });
    }
}

fn store_options(log_segment_bytes: u64) -> StoreOptions {
    StoreOptions {
        log_segment_bytes,
        snapshot_after_bytes: log_segment_bytes / 2 * 3,
        open_segments: OPEN_SEGMENTS,
        ..StoreOptions::new(CLUSTER, TargetId::default())
    }
}

/// A node's directory is there for good before its server starts, as after `ringfs up`.
async fn make_directory(platform: &Platform, path: &Path) -> Result<(), StorageError> {
    let disk = platform.disk();
    match disk.mkdir(path, 0o700).await {
        Ok(()) | Err(StorageError::AlreadyExists { .. }) => {
            disk.sync_directory(Path::new("/")).await
        }
        Err(error) => Err(error),
    }
}

fn address(node: u32) -> String {
    format!("10.0.0.{}:{PORT}", node + 1)
}
