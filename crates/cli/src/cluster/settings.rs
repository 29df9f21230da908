//! `cluster.toml`: the cluster map and where it listens, as text that people may read.
//!
//! Invariant: the file is replaced as a whole (temporary file, fsync, rename, fsync of the
//! directory), so that a reader sees the old or the new one. Format 1 is the only one there is.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry};
use ringfs_platform::Address;
use ringfs_wire::{ClusterId, Epoch, NodeId, TargetId};
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// The format of `cluster.toml` that this program writes; it reads none newer.
const SETTINGS_FORMAT: u32 = 1;

const COMMENT: &str = "# Written by ringfs. The nodes' data depends on it: change nothing but by \
                       ringfs itself.\n";

/// What `cluster.toml` says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Nodes, targets, addresses, chunk size.
    pub(crate) map: ClusterMap,
    /// Whether the user chose the ports: then they are never exchanged for free ones.
    pub(crate) ports_are_chosen: bool,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    name: String,
    id: String,
    epoch: u64,
    arc_bits: u8,
    chunk_size: u32,
    ports_are_chosen: bool,
    node: Vec<NodeText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeText {
    id: u32,
    address: String,
    targets: Vec<u32>,
}

impl Settings {
    /// Reads the file; `None` if there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, CliError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text)
                .map(Some)
                .map_err(|why| CliError::failed(format!("{}: {why}", path.display()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                let directory = path.parent().unwrap_or(path).display();
                Err(CliError::failed(format!(
                    "{directory} is not a directory: choose another with --data DIR"
                )))
            }
            Err(error) => Err(CliError::local("read", path, error)),
        }
    }

    /// Replaces the file, durably.
    pub(crate) fn write(&self, path: &Path) -> Result<(), CliError> {
        let temporary = path.with_extension("toml.new");
        let replace = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(self.to_text().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
        };
        replace().map_err(|error| CliError::local("write", path, error))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let short = |error: toml::de::Error| {
            format!("damaged: {} (restore it from a copy)", error.message())
        };
        let FormatOnly { format } = toml::from_str(text).map_err(short)?;
        if format > SETTINGS_FORMAT {
            return Err(format!(
                "written by a newer ringfs (format {format}; this program knows formats up to \
                 {SETTINGS_FORMAT}): use that version"
            ));
        }
        let text: Text = toml::from_str(text).map_err(short)?;
        let id = u128::from_str_radix(&text.id, 16).map_err(|_| "damaged: id".to_owned())?;
        let mut parts = MapParts {
            cluster: ClusterId(id),
            name: text.name,
            epoch: Epoch(text.epoch),
            arc_bits: text.arc_bits,
            chunk_size: text.chunk_size,
            nodes: Vec::new(),
            targets: Vec::new(),
        };
        for node in text.node {
            let id = NodeId(node.id);
            node.address.parse::<Address>().map_err(|error| error.to_string())?;
            let targets = node.targets.into_iter();
            parts.targets.extend(targets.map(|t| TargetEntry { id: TargetId(t), node: id }));
            parts.nodes.push(NodeEntry { id, address: node.address });
        }
        let map = ClusterMap::new(parts).map_err(|error| error.to_string())?;
        Ok(Self { map, ports_are_chosen: text.ports_are_chosen })
    }

    fn to_text(&self) -> String {
        let parts = self.map.parts();
        let node = |node: &NodeEntry| NodeText {
            id: node.id.0,
            address: node.address.clone(),
            targets: self.map.targets_of(node.id).map(|target| target.0).collect(),
        };
        let text = Text {
            format: SETTINGS_FORMAT,
            name: parts.name.clone(),
            id: parts.cluster.to_string(),
            epoch: parts.epoch.0,
            arc_bits: parts.arc_bits,
            chunk_size: parts.chunk_size,
            ports_are_chosen: self.ports_are_chosen,
            node: parts.nodes.iter().map(node).collect(),
        };
        let body = toml::to_string(&text).expect("plain numbers and strings have a text form");
        format!("{COMMENT}{body}")
    }

    /// The address of a node.
    pub(crate) fn address(&self, node: NodeId) -> Address {
        let entry = self.map.node(node).expect("the caller took the node from this map");
        entry.address.parse().expect("addresses were parsed when the settings were made")
    }

    /// The next epoch's settings, with these addresses.
    pub(crate) fn with_addresses(&self, addresses: &[Address]) -> Self {
        let mut parts = self.map.parts().clone();
        assert_eq!(parts.nodes.len(), addresses.len(), "one address per node");
        for (node, address) in parts.nodes.iter_mut().zip(addresses) {
            node.address = address.to_string();
        }
        parts.epoch = Epoch(parts.epoch.0 + 1);
        let map = ClusterMap::new(parts).expect("only addresses and the epoch changed");
        Self { map, ports_are_chosen: self.ports_are_chosen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let nodes = ["127.0.0.1:7000", "127.0.0.1:7001"];
        let nodes = nodes
            .iter()
            .zip(0..)
            .map(|(address, id)| NodeEntry { id: NodeId(id), address: (*address).to_owned() });
        let targets = (0..4).map(|id| TargetEntry { id: TargetId(id), node: NodeId(id / 2) });
        let parts = MapParts::new(ClusterId(0xab), "scratch", nodes.collect(), targets.collect());
        Settings { map: ClusterMap::new(parts).unwrap(), ports_are_chosen: true }
    }

    #[test]
    fn settings_survive_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.toml");
        assert_eq!(Settings::read(&path).unwrap(), None);
        settings().write(&path).unwrap();
        assert_eq!(Settings::read(&path).unwrap(), Some(settings()));
        let moved =
            settings().with_addresses(&["[::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        moved.write(&path).unwrap();
        let read = Settings::read(&path).unwrap().unwrap();
        assert_eq!(read.map.epoch(), Epoch(2));
        assert_eq!(read.address(NodeId(1)).to_string(), "[::1]:2");
    }

    #[test]
    fn the_text_is_format_1() {
        let expected = "format = 1\nname = \"scratch\"\n\
            id = \"000000000000000000000000000000ab\"\nepoch = 1\narc_bits = 16\n\
            chunk_size = 4194304\nports_are_chosen = true\n\n\
            [[node]]\nid = 0\naddress = \"127.0.0.1:7000\"\ntargets = [0, 1]\n\n\
            [[node]]\nid = 1\naddress = \"127.0.0.1:7001\"\ntargets = [2, 3]\n";
        assert_eq!(settings().to_text(), format!("{COMMENT}{expected}"));
    }

    #[test]
    fn damage_and_newer_formats_are_told() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = settings().to_text();
            assert!(text.contains(from), "{from}");
            let why = Settings::parse(&text.replace(from, to)).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check("format = 1", "format = 2\nquorum = 3", "newer ringfs (format 2");
        check("format = 1", "", "damaged");
        check("epoch = 1", "epoch = -1", "damaged");
        check("00ab", "00zz", "damaged");
        check("127.0.0.1:7000", "nowhere", "no address");
        check("[0, 1]", "[0, 2]", "two targets have one id");
        check("chunk_size = 4194304", "chunk_size = 5", "chunk size");
    }
}
