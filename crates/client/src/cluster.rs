//! The cluster as a whole: its targets, its space, and where a file lies.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use ringfs_wire::{
    Attributes, Echo, HEAD_SIZE, InodeNumber, NodeId, Shutdown, StatusGet, Sync, TargetId,
    TargetStatus,
};

use crate::client::Client;
use crate::error::{ClientError, Subject};

/// Most chunks that [`Client::placement`] lists.
pub const PLACEMENT_LEN_MAX: u64 = 1 << 16;

/// Where a chunk of a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkPlacement {
    /// The chunk.
    pub index: u64,
    /// Its owner.
    pub target: TargetId,
    /// The node that runs the owner.
    pub node: NodeId,
}

/// What a cluster holds, in bytes and inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceUsage {
    /// Bytes of the local file systems of all nodes.
    pub capacity: u64,
    /// Bytes free on them.
    pub available: u64,
    /// Bytes of file data held, as allocated.
    pub used: u64,
    /// Inodes.
    pub inodes: u64,
    /// Targets that refuse writes after a device error.
    pub failed_targets: u32,
}

impl Client {
    /// The home of an inode, and the node that runs it.
    pub fn home(&self, inode: InodeNumber) -> (TargetId, NodeId) {
        let home = self.map().home(inode);
        (home, self.node_of(home))
    }

    /// The owners of the chunks of a file, in order; the first [`PLACEMENT_LEN_MAX`] of them. A
    /// chunk that lies within the head does not exist and is not listed.
    pub fn placement_of(&self, attributes: &Attributes) -> Vec<ChunkPlacement> {
        if attributes.size <= HEAD_SIZE || attributes.chunk_size == 0 {
            return Vec::new();
        }
        let map = self.map();
        let chunk_size = u64::from(attributes.chunk_size);
        let indices = HEAD_SIZE / chunk_size..attributes.size.div_ceil(chunk_size);
        let placement = indices.take(PLACEMENT_LEN_MAX as usize).map(|index| {
            let target = map.chunk_owner(attributes.inode, index);
            ChunkPlacement { index, target, node: self.node_of(target) }
        });
        placement.collect()
    }

    /// As [`Client::placement_of`], with the attributes of now.
    pub async fn placement(&self, inode: InodeNumber) -> Result<Vec<ChunkPlacement>, ClientError> {
        Ok(self.placement_of(&self.attributes(inode).await?))
    }

    /// What one target holds and how it is.
    pub async fn target_status(&self, target: TargetId) -> Result<TargetStatus, ClientError> {
        let session = self.current_session();
        let result = self.call_target(&session, target, &StatusGet {}, None, self.deadline()).await;
        let response = result.map_err(|error| error.during("query", Subject::Cluster))?;
        Ok(response.reply)
    }

    /// Space and inodes of the whole cluster. Nodes on one machine, which have one host in their
    /// addresses, are taken to share one local file system: its capacity counts once.
    pub async fn statfs(&self) -> Result<SpaceUsage, ClientError> {
        let map = self.map();
        let targets = map.targets().iter();
        let answers = join_all(targets.map(|entry| async move {
            self.target_status(entry.id).await.map(|status| (entry.id, status))
        }));
        let mut usage = SpaceUsage::default();
        let mut disks: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for answer in answers.await {
            let (target, status) = answer?;
            let node = map.node_of(target).expect("targets come from this map");
            let disk = disks.entry(host_of(&node.address).to_owned()).or_default();
            *disk = (disk.0.max(status.capacity), disk.1.max(status.available));
            usage.used = usage.used.saturating_add(status.used);
            usage.inodes = usage.inodes.saturating_add(status.inodes);
            usage.failed_targets += u32::from(status.failed);
        }
        for (capacity, available) in disks.into_values() {
            usage.capacity = usage.capacity.saturating_add(capacity);
            usage.available = usage.available.saturating_add(available);
        }
        Ok(usage)
    }

    /// Makes everything durable that any client was told is done.
    pub async fn sync_all(&self) -> Result<(), ClientError> {
        let (map, session, deadline) = (self.map(), self.current_session(), self.deadline());
        let unsynced = &self.shared.unsynced;
        let begun = unsynced.now();
        let asked = join_all(map.targets().iter().map(|entry| {
            let session = &session;
            async move {
                let request = Sync { inode: None };
                let called = self.call_target(session, entry.id, &request, None, deadline);
                called.await.map(|response| response.by)
            }
        }));
        let answers = asked.await;
        let synced = answers.iter().flatten().map(|by| (by.target, by.lineage)).collect();
        unsynced.synced_all(&synced, begun);
        let result: Result<(), ClientError> = answers.into_iter().try_for_each(|by| by.map(drop));
        let result = result.and_then(|()| Ok(unsynced.tell_all()?));
        result.map_err(|error| error.during("sync", Subject::Cluster))
    }

    /// A round trip to a target that does nothing.
    pub async fn echo(&self, target: TargetId) -> Result<(), ClientError> {
        let session = self.current_session();
        let result = self.call_target(&session, target, &Echo {}, None, self.deadline()).await;
        result.map(drop).map_err(|error| error.during("reach", Subject::Cluster))
    }

    /// Stops the node that runs `target` in order, after it has synced.
    pub async fn shutdown(&self, target: TargetId) -> Result<(), ClientError> {
        let session = self.current_session();
        let result = self.call_target(&session, target, &Shutdown {}, None, self.deadline()).await;
        result.map(drop).map_err(|error| error.during("stop a node of", Subject::Cluster))
    }

    fn node_of(&self, target: TargetId) -> NodeId {
        let map = self.map();
        map.node_of(target).map_or(NodeId(0), |node| node.id)
    }
}

/// The machine in a node's address, without the port.
fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}
