//! Which target owns what: hash ring, arcs and the cluster map of RingFS.
//!
//! Invariant: with one map every key has exactly one owner, whoever computes it; between two maps
//! that differ by one target, no key moves between two targets that both maps hold. Owners depend
//! on target ids alone, so a node that changes its address moves nothing.
//!
//! Pure: nothing here performs I/O, reads a clock or knows who is alive.
#![forbid(unsafe_code)]

mod arcs;
mod encoding;
mod error;
mod keys;
mod map;
mod ring;

pub use arcs::{ARC_BITS_DEFAULT, ARC_BITS_MAX, ARC_BITS_MIN, ArcTable, arc_bits_for};
pub use error::PlacementError;
pub use keys::{XXHASH_SEED, chunk_hash, directory_field};
pub use map::{ClusterMap, MAP_FORMAT, MapParts, NodeEntry, TARGETS_MAX, TargetEntry};
pub use ring::{HashRing, VIRTUAL_NODES_PER_NODE};
