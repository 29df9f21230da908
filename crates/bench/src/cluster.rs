//! Clusters: one of one node for the benchmark alone, or one that runs already; and how the
//! processes know of each other.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringfs_client::{Client, ClientOptions};
use ringfs_fuse::MountOptions;
use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry};
use ringfs_platform::RuntimeOptions;
use ringfs_rpc::ClusterKey;
use ringfs_server::NodeOptions;
use ringfs_wire::{Attributes, ClusterId, FilePermissions, InodeNumber, Name, NodeId, TargetId};
use serde::{Deserialize, Serialize};

use crate::directory::WorkDirectory;
use crate::error::{BenchError, Context};
use crate::process::{Child, Interrupt, Parent, Task};

/// The only node.
const NODE: NodeId = NodeId(1);
/// Threads that serve a mount, and inodes it caches: as `ringfs mount` chooses them.
const MOUNT_WORKERS_MIN: usize = 2;
const MOUNT_WORKERS_MAX: usize = 8;
const MOUNT_CACHE_INODES: usize = 256 << 10;
/// How often and at which intervals it is tried whether the address of a killed node is free.
const FREE_ATTEMPTS: u32 = 1000;
const FREE_PAUSE: Duration = Duration::from_millis(10);
/// How many names are tried until a directory is homed on the wanted target.
const DIRECTORY_ATTEMPTS: u32 = 1000;

/// What every process of the cluster knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    map: ClusterMap,
    /// In hexadecimal.
    key: String,
    /// No io_uring.
    polling: bool,
}

impl Cluster {
    /// A cluster that runs already.
    pub fn new(map: ClusterMap, key: &ClusterKey, polling: bool) -> Self {
        Self { map, key: key.to_hex(), polling }
    }

    /// Starts a cluster of one node.
    pub(crate) fn start(work: &WorkDirectory, targets: u32) -> Result<(Child, Self), BenchError> {
        Self::start_watching(work, targets, false, &Interrupt::default())
    }

    /// The same; waiting for it ends when `interrupt` is turned on.
    pub(crate) fn start_watching(
        work: &WorkDirectory,
        targets: u32,
        polling: bool,
        interrupt: &Interrupt,
    ) -> Result<(Child, Self), BenchError> {
        let (cluster, task) = Self::prepare_with(work, targets, polling)?;
        let mut child = Child::start_watching("the node", &Task::Node(task), interrupt)?;
        child.ready()?;
        Ok((child, cluster))
    }

    /// A cluster of one node, and the task that is this node.
    pub(crate) fn prepare(
        work: &WorkDirectory,
        targets: u32,
    ) -> Result<(Self, NodeTask), BenchError> {
        Self::prepare_with(work, targets, false)
    }

    fn prepare_with(
        work: &WorkDirectory,
        targets: u32,
        polling: bool,
    ) -> Result<(Self, NodeTask), BenchError> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.context("find a free port")?.to_string();
        let id = ClusterId(u128::from(u64::from_le_bytes(random()?)));
        let nodes = vec![NodeEntry { id: NODE, address }];
        let entries = (1..=targets).map(|id| TargetEntry { id: TargetId(id), node: NODE });
        let map = ClusterMap::new(MapParts::new(id, "bench", nodes, entries.collect()))
            .map_err(|error| BenchError::Unexpected(error.to_string()))?;
        let key = random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let cluster = Self { map, key, polling };
        let directory = work.make("node")?;
        let task = NodeTask { cluster: cluster.clone(), directory, takes_snapshots: true };
        Ok((cluster, task))
    }

    /// The target that the client with this number works with.
    pub(crate) fn target_of(&self, client: u32) -> TargetId {
        let targets = self.map.targets();
        targets[client as usize % targets.len()].id
    }

    /// Whether a directory lies on the target that the client with this number works with.
    pub(crate) fn is_at_turn(&self, directory: InodeNumber, client: u32) -> bool {
        self.map.home(directory) == self.target_of(client)
    }

    fn key(&self) -> Result<ClusterKey, BenchError> {
        let key = ClusterKey::from_hex(&self.key);
        key.map_err(|error| BenchError::Unexpected(error.to_string()))
    }

    fn runtime(&self) -> RuntimeOptions {
        RuntimeOptions { polling: self.polling, ..RuntimeOptions::default() }
    }

    /// Runs `body` as a client of the cluster, in a runtime on this thread.
    pub(crate) fn run_client(
        &self,
        body: impl AsyncFnOnce(&Client) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        self.run_client_with(ClientOptions::default(), body)
    }

    /// The same with other deadlines.
    pub(crate) fn run_client_with(
        &self,
        options: ClientOptions,
        body: impl AsyncFnOnce(&Client) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let (map, key) = (self.map.clone(), self.key()?);
        let run = ringfs_platform::run(self.runtime(), |platform| async move {
            let client = Client::new(&platform, map, key, options);
            body(&client).await?;
            client.close().await?;
            Ok(())
        });
        run.context("start a runtime")?
    }
}

/// The node as a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeTask {
    cluster: Cluster,
    directory: PathBuf,
    takes_snapshots: bool,
}

impl NodeTask {
    /// The same, but its log is all it writes.
    pub(crate) fn without_snapshots(self) -> Self {
        Self { takes_snapshots: false, ..self }
    }

    /// Waits until its address is free again: the kernel takes down the ring of a killed process, and
    /// the sockets in it, after the process is gone.
    pub(crate) fn wait_until_free(&self) -> Result<(), BenchError> {
        let address = self.cluster.map.node(NODE).map_or("", |node| &node.address);
        for _ in 0..FREE_ATTEMPTS {
            if TcpListener::bind(address).is_ok() {
                return Ok(());
            }
            std::thread::sleep(FREE_PAUSE);
        }
        Err(BenchError::Unexpected(format!("{address} is still in use")))
    }

    /// Where its targets live.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        let Self { cluster, directory, takes_snapshots } = self;
        let key = cluster.key()?;
        let node = cluster.map.node(NODE);
        let address = node.map(|node| node.address.clone()).unwrap_or_default();
        let unusable = |_| BenchError::Unexpected(format!("address {address}"));
        let listen = address.parse().map_err(unusable)?;
        let mut options = NodeOptions::new(NODE, cluster.map.clone(), key, directory, listen);
        if !takes_snapshots {
            options.store.snapshot_after_bytes = u64::MAX;
        }
        let run = ringfs_platform::run(cluster.runtime(), |platform| async move {
            let node = ringfs_server::start(&platform, options).await?;
            parent.ready(vec![node.address().to_string()])?;
            while parent.next().await.is_some() {}
            node.stop().await;
            Ok(())
        });
        run.context("start a runtime")?
    }
}

/// A mount as a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MountTask {
    pub(crate) cluster: Cluster,
    pub(crate) directory: PathBuf,
}

impl MountTask {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        let Self { cluster, directory } = self;
        // Without the permission the mount works as well, only under scarce memory it may wait.
        ringfs_platform::fuse::become_io_flusher();
        let options = MountOptions {
            directory,
            map: cluster.map.clone(),
            key: cluster.key()?,
            client: ClientOptions::default(),
            workers: mount_workers(),
            allow_other: false,
            caching: true,
            cache_inodes: MOUNT_CACHE_INODES,
        };
        let run = ringfs_platform::run(cluster.runtime(), |platform| async move {
            let mounted = ringfs_fuse::mount(&platform, options).await?;
            parent.ready(Vec::new())?;
            while parent.next().await.is_some() {}
            mounted.unmount().await?;
            Ok(())
        });
        run.context("start a runtime")?
    }
}

/// Threads that serve a mount.
pub(crate) fn mount_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.clamp(MOUNT_WORKERS_MIN, MOUNT_WORKERS_MAX)
}

/// A name of 24 bytes.
pub(crate) fn file_name(client: u32, index: u64) -> Result<Name, BenchError> {
    name(&format!("file-{client:03}-{index:015}"))
}

/// Who may do what with files of a benchmark.
pub(crate) const PERMISSIONS: FilePermissions = FilePermissions { mode: 0o755, uid: 0, gid: 0 };

/// A new directory under the root whose home is `target`. `prefix` tells it from others.
pub(crate) async fn make_directory(
    client: &Client,
    prefix: &str,
    target: TargetId,
) -> Result<InodeNumber, BenchError> {
    for attempt in 0..DIRECTORY_ATTEMPTS {
        let name = name(&format!("{prefix}-{attempt}"))?;
        let made: Attributes = client.mkdir(InodeNumber::ROOT, &name, PERMISSIONS).await?;
        if client.home(made.inode).0 == target {
            return Ok(made.inode);
        }
        client.rmdir(InodeNumber::ROOT, &name).await?;
    }
    Err(BenchError::Unexpected(format!("no directory name leads to target {target}")))
}

fn name(text: &str) -> Result<Name, BenchError> {
    Name::new(text.as_bytes()).map_err(|errno| BenchError::Unexpected(format!("{text}: {errno:?}")))
}

/// Random bytes.
pub(crate) fn random<const LEN: usize>() -> Result<[u8; LEN], BenchError> {
    let mut bytes = [0; LEN];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled.map_err(io::Error::from).context("get random bytes")? {
        count if count == LEN => Ok(bytes),
        _ => Err(BenchError::Unexpected("too few random bytes".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_24_bytes() {
        for (client, index) in [(0, 0), (255, 1_000_000)] {
            let name = file_name(client, index).expect("a name");
            assert_eq!(name.as_bytes().len(), 24);
        }
    }
}
