//! What `up` decides before it touches anything. Pure.

use std::net::IpAddr;
use std::str::FromStr;

use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry};
use ringfs_platform::Address;
use ringfs_wire::{ClusterId, HEAD_SIZE, NodeId, TargetId};

use crate::cluster::Settings;
use crate::units::{parse_size, show_size};

/// Nodes of a new cluster unless given.
const NODES_DEFAULT: u32 = 1;
/// Most nodes, and most targets per node, that one `up` starts.
pub(crate) const COUNT_MAX: u32 = 1024;
/// Disk space that a new target takes at once: a log in use and two segments kept free.
const TARGET_BYTES: u64 = 3 * (16 << 20);
/// Largest chunk.
const CHUNK_SIZE_MAX: u64 = 1 << 30;

/// What the user asked `up` for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) name: String,
    pub(crate) nodes: Option<u32>,
    pub(crate) targets: Option<u32>,
    pub(crate) chunk_size: Option<u32>,
    pub(crate) listen: Option<ListenWish>,
}

/// Where nodes shall listen: node `i` on `port + i`, or on free ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListenWish {
    pub(crate) ip: IpAddr,
    pub(crate) port: Option<u16>,
}

impl FromStr for ListenWish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self { ip, port: None });
        }
        match text.parse::<std::net::SocketAddr>() {
            Ok(address) if address.port() == 0 => Ok(Self { ip: address.ip(), port: None }),
            Ok(address) => Ok(Self { ip: address.ip(), port: Some(address.port()) }),
            Err(_) => Err("expected IP or IP:PORT, such as 127.0.0.1:7000".to_owned()),
        }
    }
}

impl ListenWish {
    /// The addresses that the user chose, if the ports were.
    pub(crate) fn chosen(&self, nodes: u32) -> Result<Option<Vec<Address>>, String> {
        let Some(first) = self.port else { return Ok(None) };
        let port = |node: u32| u16::try_from(u32::from(first) + node).ok();
        let address = |node| port(node).map(|port| Address::Tcp((self.ip, port).into()));
        let addresses: Option<Vec<_>> = (0..nodes).map(address).collect();
        addresses.map(Some).ok_or_else(|| {
            format!("{nodes} nodes from port {first} on do not fit: choose a lower port")
        })
    }
}

/// Reads a chunk size.
pub(crate) fn parse_chunk_size(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    if size.is_power_of_two() && (HEAD_SIZE..=CHUNK_SIZE_MAX).contains(&size) {
        return Ok(size as u32);
    }
    Err(format!("expected a power of two from {} to 1 GiB", show_size(HEAD_SIZE)))
}

impl Wish {
    pub(crate) fn node_count(&self) -> u32 {
        self.nodes.unwrap_or(NODES_DEFAULT)
    }

    pub(crate) fn targets_per_node(&self, cores: u32) -> u32 {
        self.targets.unwrap_or(cores.clamp(1, COUNT_MAX))
    }

    /// Disk space that a new cluster takes at once, in bytes.
    pub(crate) fn space_needed(&self, cores: u32) -> u64 {
        u64::from(self.node_count()) * u64::from(self.targets_per_node(cores)) * TARGET_BYTES
    }

    /// The settings of a new cluster.
    pub(crate) fn create(
        &self,
        cluster: ClusterId,
        addresses: &[Address],
        cores: u32,
    ) -> Result<Settings, String> {
        let per_node = self.targets_per_node(cores);
        let nodes = (0..).zip(addresses);
        let nodes = nodes.map(|(id, to)| NodeEntry { id: NodeId(id), address: to.to_string() });
        let targets = 0..self.node_count() * per_node;
        let targets =
            targets.map(|id| TargetEntry { id: TargetId(id), node: NodeId(id / per_node) });
        let mut parts = MapParts::new(cluster, &self.name, nodes.collect(), targets.collect());
        parts.chunk_size = self.chunk_size.unwrap_or(parts.chunk_size);
        let map = ClusterMap::new(parts).map_err(|error| error.to_string())?;
        let ports_are_chosen = self.listen.is_some_and(|listen| listen.port.is_some());
        Ok(Settings { map, ports_are_chosen })
    }

    /// Whether an existing cluster is what the user asked for; else why not.
    pub(crate) fn check_existing(&self, settings: &Settings) -> Result<(), String> {
        let map = &settings.map;
        if map.name() != self.name {
            return Err(format!(
                "it holds cluster \"{}\", not \"{}\": choose another --data, or --name {}",
                map.name(),
                self.name,
                map.name()
            ));
        }
        let nodes = map.nodes().len();
        let per_node = map.targets_of(map.nodes()[0].id).count();
        let differ = |what: &str, have: String, want: String, flag: &str| {
            Err(format!(
                "its cluster was made with {have} {what}, not {want}: leave {flag} away to bring \
                 it back, or give another --name for a new cluster"
            ))
        };
        if self.nodes.is_some_and(|wanted| wanted as usize != nodes) {
            let want = self.node_count().to_string();
            return differ("node(s)", nodes.to_string(), want, "--nodes");
        }
        if let Some(wanted) = self.targets.filter(|wanted| *wanted as usize != per_node) {
            let have = per_node.to_string();
            return differ("target(s) per node", have, wanted.to_string(), "--targets");
        }
        if let Some(wanted) = self.chunk_size.filter(|wanted| *wanted != map.chunk_size()) {
            let (have, want) = (show_size(map.chunk_size().into()), show_size(wanted.into()));
            return differ("chunks", have, want, "--chunk-size");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish { name: "a".into(), nodes: Some(2), targets: Some(3), ..Wish::default() }
    }

    fn settings() -> Settings {
        let addresses = ["127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
        wish().create(ClusterId(7), &addresses, 8).unwrap()
    }

    #[test]
    fn a_new_cluster_has_the_shape_asked_for() {
        let settings = settings();
        assert_eq!(settings.map.targets().len(), 6);
        let second: Vec<_> = settings.map.targets_of(NodeId(1)).collect();
        assert_eq!(second, [TargetId(3), TargetId(4), TargetId(5)]);
        assert_eq!(wish().space_needed(8), 6 * TARGET_BYTES);
        let bare = Wish { name: "a".into(), ..Wish::default() };
        assert_eq!((bare.node_count(), bare.targets_per_node(8)), (1, 8));
    }

    #[test]
    fn existing_clusters_are_compared() {
        let check = |wish: Wish, expected: Option<&str>| {
            let result = wish.check_existing(&settings());
            match (&result, expected) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
                _ => panic!("{wish:?}: {result:?}"),
            }
        };
        check(wish(), None);
        check(Wish { name: "a".into(), ..Wish::default() }, None);
        check(Wish { name: "b".into(), ..Wish::default() }, Some("holds cluster \"a\""));
        check(Wish { nodes: Some(3), ..wish() }, Some("2 node(s), not 3"));
        check(Wish { targets: Some(1), ..wish() }, Some("3 target(s) per node, not 1"));
        check(Wish { chunk_size: Some(4 << 20), ..wish() }, None);
        check(Wish { chunk_size: Some(1 << 20), ..wish() }, Some("4.00 MiB chunks, not 1.00 MiB"));
    }

    #[test]
    fn listen_wishes_are_read() {
        let read = |text: &str| text.parse::<ListenWish>().ok();
        let local = "127.0.0.1".parse().unwrap();
        assert_eq!(read("127.0.0.1"), Some(ListenWish { ip: local, port: None }));
        assert_eq!(read("127.0.0.1:0"), Some(ListenWish { ip: local, port: None }));
        let chosen = read("127.0.0.1:7000").unwrap();
        let addresses = chosen.chosen(2).unwrap().unwrap();
        assert_eq!(addresses[1].to_string(), "127.0.0.1:7001");
        assert!(read("127.0.0.1:65535").unwrap().chosen(2).is_err());
        assert!(read("::1").is_some() && read("[::1]:7").is_some());
        assert!(read("localhost:7000").is_none() && read("").is_none());
    }

    #[test]
    fn chunk_sizes_are_powers_of_two() {
        assert_eq!(parse_chunk_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_chunk_size("64k"), Ok(1 << 16));
        for bad in ["32k", "3MiB", "2GiB", "0", "x"] {
            assert!(parse_chunk_size(bad).is_err(), "{bad}");
        }
    }
}
