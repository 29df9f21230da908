//! The two encodings of a cluster map: bytes for the wire, named fields (TOML, JSON) for people.
//!
//! Both open with the format, so that a newer map is recognised before anything else is believed,
//! and both go through the checks of [`ClusterMap::new`] when they are read.
//!
//! Format history: 1, the first.

use ringfs_wire::{ClusterId, DecodeError, Epoch, NodeId, Reader, TargetId, Wire};
use serde::{Deserialize, Serialize};

use crate::error::PlacementError;
use crate::map::{ClusterMap, MAP_FORMAT, MapParts, NodeEntry, TargetEntry};

impl ClusterMap {
    /// The map as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        MAP_FORMAT.put(&mut out);
        self.parts().put(&mut out);
        out
    }

    /// The map that these bytes hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlacementError> {
        let mut reader = Reader::new(bytes);
        check_format(u16::get(&mut reader)?)?;
        let parts = MapParts::get(&mut reader)?;
        reader.finish()?;
        ClusterMap::new(parts)
    }
}

fn check_format(found: u16) -> Result<(), PlacementError> {
    match found {
        0 => Err(PlacementError::Malformed(DecodeError::Invalid("format"))),
        1..=MAP_FORMAT => Ok(()),
        _ => Err(PlacementError::NewerFormat { found, known: MAP_FORMAT }),
    }
}

impl Wire for MapParts {
    fn put(&self, out: &mut Vec<u8>) {
        self.cluster.put(out);
        put_text(&self.name, out);
        self.epoch.put(out);
        self.arc_bits.put(out);
        self.chunk_size.put(out);
        self.nodes.put(out);
        self.targets.put(out);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(MapParts {
            cluster: ClusterId::get(reader)?,
            name: get_text(reader)?,
            epoch: Epoch::get(reader)?,
            arc_bits: u8::get(reader)?,
            chunk_size: u32::get(reader)?,
            nodes: Vec::get(reader)?,
            targets: Vec::get(reader)?,
        })
    }
}

impl Wire for NodeEntry {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        put_text(&self.address, out);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(NodeEntry { id: NodeId::get(reader)?, address: get_text(reader)? })
    }
}

impl Wire for TargetEntry {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.node.put(out);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(TargetEntry { id: TargetId::get(reader)?, node: NodeId::get(reader)? })
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    text.as_bytes().to_vec().put(out);
}

fn get_text(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    String::from_utf8(Vec::get(reader)?).map_err(|_| DecodeError::Invalid("text"))
}

/// A map with named fields.
#[derive(Serialize, Deserialize)]
struct NamedMap {
    format: u16,
    /// In hexadecimal, since TOML knows no number of 128 bits.
    cluster: String,
    name: String,
    epoch: u64,
    arc_bits: u8,
    chunk_size: u32,
    nodes: Vec<NamedNode>,
    targets: Vec<NamedTarget>,
}

#[derive(Serialize, Deserialize)]
struct NamedNode {
    id: u32,
    address: String,
}

#[derive(Serialize, Deserialize)]
struct NamedTarget {
    id: u32,
    node: u32,
}

impl Serialize for ClusterMap {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        NamedMap::from(self.parts()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ClusterMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let named = NamedMap::deserialize(deserializer)?;
        ClusterMap::try_from(named).map_err(serde::de::Error::custom)
    }
}

impl From<&MapParts> for NamedMap {
    fn from(parts: &MapParts) -> Self {
        let node = |node: &NodeEntry| NamedNode { id: node.id.0, address: node.address.clone() };
        let target = |target: &TargetEntry| NamedTarget { id: target.id.0, node: target.node.0 };
        NamedMap {
            format: MAP_FORMAT,
            cluster: parts.cluster.to_string(),
            name: parts.name.clone(),
            epoch: parts.epoch.0,
            arc_bits: parts.arc_bits,
            chunk_size: parts.chunk_size,
            nodes: parts.nodes.iter().map(node).collect(),
            targets: parts.targets.iter().map(target).collect(),
        }
    }
}

impl TryFrom<NamedMap> for ClusterMap {
    type Error = PlacementError;

    fn try_from(named: NamedMap) -> Result<Self, PlacementError> {
        check_format(named.format)?;
        let cluster = u128::from_str_radix(&named.cluster, 16)
            .map_err(|_| PlacementError::Invalid("the cluster id is a hexadecimal number"))?;
        let node = |node: NamedNode| NodeEntry { id: NodeId(node.id), address: node.address };
        let target = |target: NamedTarget| TargetEntry {
            id: TargetId(target.id),
            node: NodeId(target.node),
        };
        ClusterMap::new(MapParts {
            cluster: ClusterId(cluster),
            name: named.name,
            epoch: Epoch(named.epoch),
            arc_bits: named.arc_bits,
            chunk_size: named.chunk_size,
            nodes: named.nodes.into_iter().map(node).collect(),
            targets: named.targets.into_iter().map(target).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map() -> ClusterMap {
        let nodes = vec![NodeEntry { id: NodeId(1), address: "a:1".to_owned() }];
        let targets = vec![TargetEntry { id: TargetId(2), node: NodeId(1) }];
        ClusterMap::new(MapParts::new(ClusterId(0xfeed), "x", nodes, targets)).unwrap()
    }

    /// Format 1: never to change.
    #[rustfmt::skip]
    const GOLDEN: &[u8] = &[
        1, 0,
        0xed, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 0, 0, b'x',
        1, 0, 0, 0, 0, 0, 0, 0,
        16,
        0, 0, 64, 0,
        1, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, b'a', b':', b'1',
        1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0,
    ];

    #[test]
    fn golden_bytes() {
        assert_eq!(map().encode(), GOLDEN);
        assert_eq!(ClusterMap::decode(GOLDEN).unwrap(), map());
    }

    #[test]
    fn named_fields_come_back() {
        let json = serde_json::to_string(&map()).unwrap();
        assert_eq!(serde_json::from_str::<ClusterMap>(&json).unwrap(), map());
        let toml = toml::to_string(&map()).unwrap();
        assert_eq!(toml::from_str::<ClusterMap>(&toml).unwrap(), map());
        assert!(toml.starts_with("format = 1\ncluster = \"0000"), "{toml}");
    }

    #[test]
    fn a_newer_format_is_named() {
        let mut newer = GOLDEN.to_vec();
        newer[0] = 2;
        let expected = PlacementError::NewerFormat { found: 2, known: 1 };
        assert_eq!(ClusterMap::decode(&newer), Err(expected.clone()));
        let toml = toml::to_string(&map()).unwrap().replace("format = 1", "format = 2");
        let error = toml::from_str::<ClusterMap>(&toml).unwrap_err().to_string();
        assert!(error.contains(&expected.to_string()), "{error}");
    }

    #[test]
    fn every_prefix_is_refused() {
        for length in 0..GOLDEN.len() {
            assert!(ClusterMap::decode(&GOLDEN[..length]).is_err(), "{length} bytes");
        }
        assert!(ClusterMap::decode(&[GOLDEN, b"x"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
            noise in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut damaged = GOLDEN.to_vec();
            damaged[at.index(GOLDEN.len())] = byte;
            if let Ok(read) = ClusterMap::decode(&damaged) {
                prop_assert_eq!(read.encode(), damaged);
            }
            prop_assert!(ClusterMap::decode(&noise).is_err());
        }
    }
}
