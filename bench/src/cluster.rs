//! A cluster of one node, and how its processes know of each other.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;

use ringfs_client::{Client, ClientOptions};
use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry};
use ringfs_platform::RuntimeOptions;
use ringfs_rpc::ClusterKey;
use ringfs_server::NodeOptions;
use ringfs_wire::{Attributes, ClusterId, FilePermissions, InodeNumber, Name, NodeId, TargetId};
use serde::{Deserialize, Serialize};

use crate::directory::WorkDirectory;
use crate::error::{BenchError, Context};
use crate::process::{Child, Parent, Task};

/// The only node.
const NODE: NodeId = NodeId(1);
/// How many names are tried until a directory is homed on the wanted target.
const DIRECTORY_ATTEMPTS: u32 = 1000;

/// What every process of the cluster knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cluster {
    id: u64,
    address: String,
    targets: u32,
    key: String,
}

impl Cluster {
    /// Starts the node.
    pub(crate) fn start(work: &WorkDirectory, targets: u32) -> Result<(Child, Self), BenchError> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.context("find a free port")?.to_string();
        let (id, key) = (u64::from_le_bytes(random()?), random::<32>()?);
        let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let cluster = Self { id, address, targets, key };
        let task = NodeTask { cluster: cluster.clone(), directory: work.make("node")? };
        let mut child = Child::start("the node", &Task::Node(task))?;
        child.ready()?;
        Ok((child, cluster))
    }

    /// The target that the client with this number works with.
    pub(crate) fn target_of(&self, client: u32) -> TargetId {
        TargetId(1 + client % self.targets)
    }

    fn map(&self) -> Result<ClusterMap, BenchError> {
        let nodes = vec![NodeEntry { id: NODE, address: self.address.clone() }];
        let targets = (1..=self.targets).map(|id| TargetEntry { id: TargetId(id), node: NODE });
        let parts =
            MapParts::new(ClusterId(u128::from(self.id)), "bench", nodes, targets.collect());
        ClusterMap::new(parts).map_err(|error| BenchError::Unexpected(error.to_string()))
    }

    fn key(&self) -> Result<ClusterKey, BenchError> {
        let key = ClusterKey::from_hex(&self.key);
        key.map_err(|error| BenchError::Unexpected(error.to_string()))
    }

    /// Runs `body` as a client of the cluster, in a runtime on this thread.
    pub(crate) fn run_client(
        &self,
        body: impl AsyncFnOnce(&Client) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let (map, key) = (self.map()?, self.key()?);
        let run = ringfs_platform::run(RuntimeOptions::default(), |platform| async move {
            let client = Client::new(&platform, map, key, ClientOptions::default());
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
}

impl NodeTask {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        let Self { cluster, directory } = self;
        let (map, key) = (cluster.map()?, cluster.key()?);
        let unusable = |_| BenchError::Unexpected(format!("address {}", cluster.address));
        let listen = cluster.address.parse().map_err(unusable)?;
        let options = NodeOptions::new(NODE, map, key, directory, listen);
        let run = ringfs_platform::run(RuntimeOptions::default(), |platform| async move {
            let node = ringfs_server::start(&platform, options).await?;
            parent.ready(vec![node.address().to_string()])?;
            while parent.next().await.is_some() {}
            node.stop().await;
            Ok(())
        });
        run.context("start a runtime")?
    }
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

fn random<const LEN: usize>() -> Result<[u8; LEN], BenchError> {
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
