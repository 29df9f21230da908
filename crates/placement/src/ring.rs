//! The consistent-hash ring of targets.
//!
//! Each target stands on the ring at many points; a key belongs to the first point at or after its
//! hash, clockwise. The points of a target depend on its id alone, so a target that comes or goes
//! moves only its own keys.

use std::collections::BTreeMap;

use ringfs_wire::TargetId;
use xxhash_rust::xxh64::xxh64;

use crate::keys::XXHASH_SEED;

/// Points on the ring for each target. More would balance better and cost a larger ring; the
/// imbalance they leave is measured in the tests of [`ArcTable`](crate::ArcTable).
pub const VIRTUAL_NODES_PER_NODE: u32 = 150;

/// The ring: every target's points in clockwise order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashRing {
    points: BTreeMap<u64, TargetId>,
}

impl HashRing {
    /// The ring of these targets, in whatever order they come.
    pub fn new(targets: impl IntoIterator<Item = TargetId>) -> Self {
        let mut points = BTreeMap::new();
        for target in targets {
            for index in 0..VIRTUAL_NODES_PER_NODE {
                let owner = points.entry(point(target, index)).or_insert(target);
                // Two targets on one point: the lower id has it, whatever the order.
                *owner = target.min(*owner);
            }
        }
        HashRing { points }
    }

    /// All points with their targets, clockwise.
    pub fn points(&self) -> impl Iterator<Item = (u64, TargetId)> + '_ {
        self.points.iter().map(|(&point, &target)| (point, target))
    }

    /// The target that owns the key with this hash; none on an empty ring.
    pub fn owner(&self, hash: u64) -> Option<TargetId> {
        let clockwise = self.points.range(hash..).chain(&self.points);
        clockwise.map(|(_, &target)| target).next()
    }
}

/// Where on the ring a target's virtual node of this index stands.
fn point(target: TargetId, index: u32) -> u64 {
    xxh64(format!("{}:{index}", target.0).as_bytes(), XXHASH_SEED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ring(count: u32) -> HashRing {
        HashRing::new((0..count).map(TargetId))
    }

    #[test]
    fn golden_points() {
        assert_eq!(point(TargetId(0), 0), 0x7c81_8cc7_4601_0852);
        assert_eq!(point(TargetId(0), 149), 0x3fca_861b_43d5_dbe8);
        assert_eq!(point(TargetId(17), 42), 0x2930_b9d3_7fad_8bbb);
        assert_eq!(point(TargetId(u32::MAX), 0), 0x2d1c_6115_e954_b484);
    }

    #[test]
    fn golden_owners() {
        let ring = ring(4);
        let owners: Vec<u32> =
            (0..16_u64).filter_map(|sixteenth| ring.owner(sixteenth << 60)).map(|t| t.0).collect();
        assert_eq!(owners, [3, 2, 0, 1, 2, 2, 0, 3, 0, 0, 2, 0, 1, 1, 0, 0]);
    }

    #[test]
    fn a_key_on_a_point_belongs_to_it_and_the_ring_closes() {
        let ring = ring(3);
        for (&hash, &target) in &ring.points {
            assert_eq!(ring.owner(hash), Some(target));
        }
        let (&last, _) = ring.points.last_key_value().unwrap();
        let (_, &first) = ring.points.first_key_value().unwrap();
        assert_eq!(ring.owner(last + 1), Some(first));
        assert_eq!(ring.points.len() as u32, 3 * VIRTUAL_NODES_PER_NODE);
    }

    #[test]
    fn an_empty_ring_owns_nothing() {
        assert_eq!(ring(0).owner(7), None);
    }

    proptest! {
        #[test]
        fn the_order_of_targets_is_irrelevant(
            mut ids in proptest::collection::vec(any::<u32>().prop_map(TargetId), 1..8),
        ) {
            let forwards = HashRing::new(ids.iter().copied());
            ids.reverse();
            prop_assert_eq!(forwards, HashRing::new(ids));
        }

        #[test]
        fn every_key_has_one_owner(count in 1..20_u32, hash in any::<u64>()) {
            let owner = ring(count).owner(hash).unwrap();
            prop_assert!(owner.0 < count);
        }
    }
}
