//! The cluster map: which nodes and targets there are, as of one epoch.
//!
//! Invariant: a [`ClusterMap`] that exists is valid and in canonical order, and carries the arc
//! table of its targets. It does not change; the next epoch is another map.

use ringfs_wire::{CHUNK_SIZE, ClusterId, Epoch, HEAD_SIZE, InodeNumber, NodeId, TargetId};

use crate::arcs::{ARC_BITS_MAX, ARC_BITS_MIN, ArcTable, arc_bits_for};
use crate::error::PlacementError;
use crate::ring::HashRing;

/// The format of the map's encodings that this program writes; it reads none newer.
pub const MAP_FORMAT: u16 = 1;

/// The most targets, and so the most nodes, of a cluster.
pub const TARGETS_MAX: usize = 16_384;

/// The longest name of a cluster, in bytes.
const NAME_LEN_MAX: usize = 64;
/// The longest address of a node, in bytes.
const ADDRESS_LEN_MAX: usize = 255;
/// The largest chunk: 1 GiB, so that a segment of 1024 of them stays below every local limit.
const CHUNK_SIZE_MAX: u32 = 1 << 30;
/// The smallest chunk: the head of a file fits into its chunk 0.
const CHUNK_SIZE_MIN: u32 = HEAD_SIZE as u32;

/// A node and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeEntry {
    /// The node.
    pub id: NodeId,
    /// Its address, in the notation of `platform`.
    pub address: String,
}

/// A target and the node that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetEntry {
    /// The target.
    pub id: TargetId,
    /// Its node.
    pub node: NodeId,
}

/// What a map says, not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapParts {
    /// The cluster's random identity.
    pub cluster: ClusterId,
    /// The cluster's name.
    pub name: String,
    /// Version of the map.
    pub epoch: Epoch,
    /// How many top bits of a hash index the arc table; fixed for the life of the cluster.
    pub arc_bits: u8,
    /// Bytes in a chunk, a power of two.
    pub chunk_size: u32,
    /// The nodes.
    pub nodes: Vec<NodeEntry>,
    /// The targets.
    pub targets: Vec<TargetEntry>,
}

impl MapParts {
    /// The first map of a new cluster, with chunks of the default size.
    pub fn new(
        cluster: ClusterId,
        name: &str,
        nodes: Vec<NodeEntry>,
        targets: Vec<TargetEntry>,
    ) -> Self {
        MapParts {
            cluster,
            name: name.to_owned(),
            epoch: Epoch(1),
            arc_bits: arc_bits_for(targets.len()),
            chunk_size: CHUNK_SIZE,
            nodes,
            targets,
        }
    }

    /// Brings nodes and targets into order and checks everything.
    fn normalise(&mut self) -> Result<(), PlacementError> {
        self.nodes.sort();
        self.targets.sort();
        let has_node = |target: &TargetEntry| self.node(target.node).is_some();
        let rules = [
            (
                is_name(&self.name),
                "a name is 1 to 64 of A-Z a-z 0-9 - _ . and begins with none of - _ .",
            ),
            ((ARC_BITS_MIN..=ARC_BITS_MAX).contains(&self.arc_bits), "arc bits are 1 to 24"),
            (is_chunk_size(self.chunk_size), "a chunk size is a power of two, 64 KiB to 1 GiB"),
            (self.nodes.len() <= TARGETS_MAX, "there are more than 16384 nodes"),
            (!self.targets.is_empty(), "there is no target"),
            (self.targets.len() <= TARGETS_MAX, "there are more than 16384 targets"),
            (self.nodes.iter().all(has_address), "an address is empty, too long or holds a blank"),
            (is_distinct(&self.nodes, |node| node.id), "two nodes have one id"),
            (is_distinct(&self.targets, |target| target.id), "two targets have one id"),
            (self.targets.iter().all(has_node), "a target lies on an unknown node"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some(&(_, why)) => Err(PlacementError::Invalid(why)),
        }
    }

    /// The node with this id; the nodes are in order.
    fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        let index = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        self.nodes.get(index)
    }
}

/// Who owns what, as of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMap {
    parts: MapParts,
    arcs: ArcTable,
}

impl ClusterMap {
    /// Checks `parts`, brings them into canonical order and compiles their arc table.
    pub fn new(mut parts: MapParts) -> Result<Self, PlacementError> {
        parts.normalise()?;
        let ring = HashRing::new(parts.targets.iter().map(|target| target.id));
        let arcs = ArcTable::new(&ring, parts.arc_bits);
        Ok(ClusterMap { parts, arcs })
    }

    /// What the map says; the next epoch's map starts from a copy of it.
    pub fn parts(&self) -> &MapParts {
        &self.parts
    }

    /// The cluster's random identity.
    pub fn cluster(&self) -> ClusterId {
        self.parts.cluster
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Version of the map.
    pub fn epoch(&self) -> Epoch {
        self.parts.epoch
    }

    /// Bytes in a chunk.
    pub fn chunk_size(&self) -> u32 {
        self.parts.chunk_size
    }

    /// The nodes, in order of their ids.
    pub fn nodes(&self) -> &[NodeEntry] {
        &self.parts.nodes
    }

    /// The targets, in order of their ids.
    pub fn targets(&self) -> &[TargetEntry] {
        &self.parts.targets
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        self.parts.node(id)
    }

    /// The node that runs `target`.
    pub fn node_of(&self, target: TargetId) -> Option<&NodeEntry> {
        let index = self.parts.targets.binary_search_by_key(&target, |entry| entry.id).ok()?;
        self.node(self.parts.targets.get(index)?.node)
    }

    /// The targets that `node` runs, in order.
    pub fn targets_of(&self, node: NodeId) -> impl Iterator<Item = TargetId> + '_ {
        self.parts.targets.iter().filter(move |target| target.node == node).map(|target| target.id)
    }

    /// The arc table.
    pub fn arcs(&self) -> &ArcTable {
        &self.arcs
    }

    /// The home of an inode.
    pub fn home(&self, inode: InodeNumber) -> TargetId {
        self.arcs.home(inode)
    }

    /// The owner of chunk `index` of a file.
    pub fn chunk_owner(&self, inode: InodeNumber, index: u64) -> TargetId {
        self.arcs.chunk_owner(inode, index)
    }

    /// The part of all arcs that `target` owns, from 0 to 1.
    pub fn share_of_arcs(&self, target: TargetId) -> f64 {
        self.arcs.share(target)
    }
}

/// Names go into paths, unit names and log lines unquoted.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= NAME_LEN_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(is_plain)
}

fn is_chunk_size(size: u32) -> bool {
    size.is_power_of_two() && (CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&size)
}

fn has_address(node: &NodeEntry) -> bool {
    (1..=ADDRESS_LEN_MAX).contains(&node.address.len())
        && node.address.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether no two neighbours of an ordered list have the same id.
fn is_distinct<T, I: PartialEq>(ordered: &[T], id: impl Fn(&T) -> I) -> bool {
    ordered.windows(2).all(|pair| id(&pair[0]) != id(&pair[1]))
}

#[cfg(test)]
mod tests;
