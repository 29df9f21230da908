//! Scaling, worked out: how evenly directories and chunks fall on the targets of large clusters,
//! and what rates, connections and memory follow from what one target and one node can do.
//!
//! The placement is the real one; the speeds are given. Deliberately without processes: it says
//! what the design allows, not what a network adds.

use clap::Args;
use ringfs_placement::{ClusterMap, MapParts, NodeEntry, TargetEntry, directory_field};
use ringfs_wire::{ClusterId, InodeNumber, NodeId, TargetId};

use crate::error::BenchError;
use crate::report::Report;

/// Cluster sizes that are worked out, in nodes.
const SIZES: [u32; 3] = [16, 256, 4_096];
/// Every client's directory is the only one, or one of many.
const DIRECTORIES: [u32; 2] = [1, 64];
/// Chunks of the file that each client writes.
const CHUNKS_PER_CLIENT: u64 = 256;

/// What one node has, and what it can do.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScaleOptions {
    /// Targets of each node.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4))]
    targets: u32,
    /// Client processes of each node.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: u32,
    /// Empty files that one target creates per second.
    #[arg(long, default_value_t = 40_000.0)]
    creates: f64,
    /// GiB that one node takes in per second, by its disks and its network.
    #[arg(long, default_value_t = 5.0)]
    bandwidth: f64,
    /// Microseconds of a round trip: a client has one operation at a time.
    #[arg(long, default_value_t = 30.0)]
    round_trip: f64,
    /// KiB that one connection takes at either end.
    #[arg(long, default_value_t = 21.0)]
    connection: f64,
    /// Placements tried; figures are medians of them.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Works out clusters of all sizes.
pub(crate) fn run(options: &ScaleOptions) -> Result<Report, BenchError> {
    let ScaleOptions { targets, clients, rounds, .. } = options;
    let setting = format!(
        "{targets} targets and {clients} clients per node; per target {} creates/s, per node {} \
         GiB/s; {} us round trip; {rounds} placements",
        options.creates, options.bandwidth, options.round_trip
    );
    let mut report = Report::new("scale", setting);
    for nodes in SIZES {
        add_size(&mut report, options, nodes)?;
    }
    Ok(report.finish())
}

fn add_size(report: &mut Report, options: &ScaleOptions, nodes: u32) -> Result<(), BenchError> {
    let map = map_of(nodes, options.targets)?;
    let all_targets = f64::from(nodes * options.targets);
    let rounds = || 0..options.rounds;
    for directories in DIRECTORIES {
        let evenness = |round| evenness_of_directories(&map, options, nodes, directories, round);
        let asked = f64::from(nodes * options.clients) * 1e6 / options.round_trip;
        let rate = |round| (options.creates * all_targets * evenness(round)).min(asked);
        let rates = rounds().map(rate);
        let name = format!("{nodes} nodes: creates, {directories} directories per client");
        report.add(&name, "/s", rates.collect(), "");
    }
    let one: Vec<f64> = rounds().map(|_| options.creates).collect();
    report.add(&format!("{nodes} nodes: creates, one directory for all"), "/s", one, "");
    let bandwidth = |round| {
        options.bandwidth * f64::from(nodes) * evenness_of_chunks(&map, options, nodes, round)
    };
    let rates = rounds().map(bandwidth).collect();
    report.add(&format!("{nodes} nodes: 1 GiB written per client"), "GiB/s", rates, "");
    // Whoever uses many files comes to all targets, and every node is used by all clients.
    let connections = f64::from(options.clients) * all_targets;
    let each = |value: f64| rounds().map(|_| value).collect::<Vec<f64>>();
    let name = format!("{nodes} nodes: connections per node, each way");
    report.add(&name, "", each(connections), "");
    let memory = 2.0 * connections * options.connection / 1024.0;
    report.add(&format!("{nodes} nodes: their memory per node"), "MiB", each(memory), "");
    let shared = 2.0 * f64::from(nodes) * options.connection / 1024.0;
    let name = format!("{nodes} nodes: the same, nodes sharing connections");
    report.add(&name, "MiB", each(shared), "");
    Ok(())
}

fn map_of(nodes: u32, targets: u32) -> Result<ClusterMap, BenchError> {
    let address = |node: u32| format!("10.{}.{}.1:7000", node >> 8 & 255, node & 255);
    let entries = (0..nodes).map(|node| NodeEntry { id: NodeId(node), address: address(node) });
    let owned = (0..nodes * targets)
        .map(|target| TargetEntry { id: TargetId(target + 1), node: NodeId(target / targets) });
    let parts = MapParts::new(ClusterId(1), "scale", entries.collect(), owned.collect());
    ClusterMap::new(parts).map_err(|error| BenchError::Unexpected(error.to_string()))
}

/// The mean share of a target in relation to the largest: all wait for the fullest one.
fn evenness(counts: &[u64]) -> f64 {
    let largest = counts.iter().copied().max().unwrap_or(0).max(1);
    counts.iter().sum::<u64>() as f64 / counts.len() as f64 / largest as f64
}

fn evenness_of_directories(
    map: &ClusterMap,
    options: &ScaleOptions,
    nodes: u32,
    directories: u32,
    round: u32,
) -> f64 {
    let mut counts = vec![0; (nodes * options.targets) as usize];
    for number in 0..nodes * options.clients * directories {
        let name = format!("round-{round}-directory-{number}");
        let field = directory_field(InodeNumber::ROOT, name.as_bytes());
        counts[map.home(InodeNumber::new(field, 1)).0 as usize - 1] += 1;
    }
    evenness(&counts)
}

fn evenness_of_chunks(map: &ClusterMap, options: &ScaleOptions, nodes: u32, round: u32) -> f64 {
    let mut counts = vec![0; nodes as usize];
    for client in 0..nodes * options.clients {
        let inode = InodeNumber::new(client, u64::from(round) + 1);
        for index in 0..CHUNKS_PER_CLIENT {
            let owner = map.chunk_owner(inode, index);
            counts[((owner.0 - 1) / options.targets) as usize] += 1;
        }
    }
    evenness(&counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_waits_for_the_fullest() {
        assert!((evenness(&[2, 2, 2]) - 1.0).abs() < 1e-9);
        assert!((evenness(&[1, 3]) - 2.0 / 3.0).abs() < 1e-9);
        assert!(evenness(&[0, 0]).abs() < 1e-9);
    }

    #[test]
    fn the_largest_cluster_has_a_map() {
        let map = map_of(4_096, 4).expect("a map of 16,384 targets");
        assert_eq!(map.targets().len(), 16_384);
    }
}
