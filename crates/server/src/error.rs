//! Why a node cannot start or go on.

use std::path::PathBuf;

use ringfs_store::StoreError;
use ringfs_wire::{NodeId, TargetId};

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on: free it or choose another.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A target's directory cannot be opened or recovered.
    #[error("target {target} in {directory}: {source}")]
    Target {
        /// The target.
        target: TargetId,
        /// Where it lives.
        directory: PathBuf,
        /// What is wrong with it.
        source: StoreError,
    },
    /// The target's directory cannot be made.
    #[error("cannot make directory {directory}: {source}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What the system said.
        source: ringfs_platform::StorageError,
    },
    /// An address in the cluster map cannot be understood: repair the map.
    #[error("the cluster map gives node {node} no usable address: {text:?}")]
    Address {
        /// The node.
        node: NodeId,
        /// What the map says.
        text: String,
    },
    /// The map gives this node no targets: check node number and map.
    #[error("the cluster map has no targets for node {node}")]
    NoTargets {
        /// The node.
        node: NodeId,
    },
    /// A target's shard ended before it was ready.
    #[error("the shard of target {target} ended before it was ready")]
    ShardEnded {
        /// The target.
        target: TargetId,
    },
}
