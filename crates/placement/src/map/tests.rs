//! What a map accepts, whom it names, and that its parts come back in order.

use super::*;

fn parts(node_count: u32, targets_per_node: u32) -> MapParts {
    let nodes = (0..node_count)
        .map(|id| NodeEntry { id: NodeId(id), address: format!("127.0.0.1:{}", 7000 + id) });
    let targets = (0..node_count * targets_per_node)
        .map(|id| TargetEntry { id: TargetId(id), node: NodeId(id / targets_per_node) });
    MapParts::new(ClusterId(7), "scratch", nodes.collect(), targets.collect())
}

#[test]
fn a_map_names_owners_and_their_nodes() {
    let map = ClusterMap::new(parts(2, 3)).unwrap();
    assert_eq!((map.epoch(), map.chunk_size(), map.name()), (Epoch(1), CHUNK_SIZE, "scratch"));
    assert_eq!(map.node_of(TargetId(4)).unwrap().address, "127.0.0.1:7001");
    assert_eq!(map.node_of(TargetId(6)), None);
    assert_eq!(map.targets_of(NodeId(1)).collect::<Vec<_>>(), [3, 4, 5].map(TargetId));
    let home = map.home(InodeNumber::ROOT);
    assert_eq!(home, map.arcs().owner(0));
    assert!(map.node_of(home).is_some());
    let owners: std::collections::BTreeSet<TargetId> =
        (0..100).map(|index| map.chunk_owner(InodeNumber::ROOT, index)).collect();
    assert_eq!(owners.len(), 6, "the chunks of one file use every target");
    let shares: f64 = map.targets().iter().map(|target| map.share_of_arcs(target.id)).sum();
    assert!((shares - 1.0).abs() < 1e-9);
}

#[test]
fn the_order_of_the_parts_is_irrelevant() {
    let mut reversed = parts(3, 2);
    reversed.nodes.reverse();
    reversed.targets.reverse();
    assert_eq!(ClusterMap::new(reversed).unwrap(), ClusterMap::new(parts(3, 2)).unwrap());
}

#[test]
fn an_address_moves_nothing() {
    let before = ClusterMap::new(parts(2, 2)).unwrap();
    let mut next = before.parts().clone();
    next.epoch.0 += 1;
    next.nodes[0].address = "[::1]:9".to_owned();
    assert_eq!(ClusterMap::new(next).unwrap().arcs(), before.arcs());
}

#[test]
fn impossible_maps_are_refused() {
    let check = |why: &str, change: fn(&mut MapParts)| {
        let mut wrong = parts(2, 2);
        change(&mut wrong);
        let error = ClusterMap::new(wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{error:?} does not speak of {why:?}");
    };
    check("name", |parts| parts.name.clear());
    check("name", |parts| parts.name = "a/b".to_owned());
    check("name", |parts| parts.name = "..".to_owned());
    check("name", |parts| parts.name = "n".repeat(65));
    check("arc bits", |parts| parts.arc_bits = 0);
    check("arc bits", |parts| parts.arc_bits = 25);
    check("chunk size", |parts| parts.chunk_size = 0);
    check("chunk size", |parts| parts.chunk_size = 5 << 20);
    check("chunk size", |parts| parts.chunk_size = 32 << 10);
    check("chunk size", |parts| parts.chunk_size = 1 << 31);
    check("no target", |parts| parts.targets.clear());
    check("address", |parts| parts.nodes[0].address.clear());
    check("address", |parts| parts.nodes[0].address = "a b".to_owned());
    check("unknown node", |parts| parts.targets[0].node = NodeId(9));
    check("two nodes", |parts| parts.nodes[1].id = NodeId(0));
    check("two targets", |parts| parts.targets[1].id = TargetId(0));
    check("16384 targets", |parts| {
        let target = parts.targets[0];
        parts.targets =
            (0..=TARGETS_MAX as u32).map(|id| TargetEntry { id: TargetId(id), ..target }).collect();
    });
}
