//! The ring compiled into a table: arc → owner, one index per look-up.
//!
//! An arc is all hashes with the same top bits. Its owner is the ring's owner of its first hash,
//! so the table is as minimal in its moves as the ring. All placement goes through arcs.

use std::collections::BTreeMap;

use ringfs_wire::{InodeNumber, TargetId};

use crate::keys::chunk_hash;
use crate::ring::{HashRing, VIRTUAL_NODES_PER_NODE};

/// The fewest bits that index a table.
pub const ARC_BITS_MIN: u8 = 1;
/// Bits for clusters of ordinary size: 65,536 arcs, a table of 256 KiB.
pub const ARC_BITS_DEFAULT: u8 = 16;
/// As many as the field of an inode number holds; the table takes 64 MiB then.
pub const ARC_BITS_MAX: u8 = 24;

/// Arcs there should be for each point of the ring; with fewer than one the table balances visibly
/// worse than the ring (at 4,096 targets 1.88 with 16 bits, 1.28 with 20).
const ARCS_PER_POINT: u64 = 2;

/// Who owns which arc.
///
/// The fullest target has, over the mean: 1.04 with 4 targets, 1.10 with 16, 1.18 with 64 (16 bits),
/// 1.23 with 256 (18 bits), 1.29 with 1,024 (19 bits); measured by the tests with ids from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcTable {
    bits: u8,
    owners: Box<[TargetId]>,
}

/// How many bits should index the table of a cluster that is made with so many targets. They are
/// fixed when the cluster is made: other bits would move keys between targets that stay.
pub fn arc_bits_for(target_count: usize) -> u8 {
    let arcs = target_count as u64 * u64::from(VIRTUAL_NODES_PER_NODE) * ARCS_PER_POINT;
    let bits = (ARC_BITS_DEFAULT..ARC_BITS_MAX).find(|&bits| arcs <= 1 << bits);
    bits.unwrap_or(ARC_BITS_MAX)
}

impl ArcTable {
    /// Compiles `ring` into 2^`bits` arcs.
    ///
    /// # Panics
    /// On an empty ring, or bits outside [`ARC_BITS_MIN`] to [`ARC_BITS_MAX`]: a validated
    /// [`ClusterMap`](crate::ClusterMap) has neither.
    pub fn new(ring: &HashRing, bits: u8) -> Self {
        assert!((ARC_BITS_MIN..=ARC_BITS_MAX).contains(&bits), "{bits} bits cannot index arcs");
        let first = ring.owner(0).expect("a ring that owns arcs has targets");
        let mut points = ring.points().peekable();
        let owner = |arc: u64| {
            let hash = arc << (u64::BITS - u32::from(bits));
            while points.next_if(|&(point, _)| point < hash).is_some() {}
            // Behind the last point the ring closes.
            points.peek().map_or(first, |&(_, target)| target)
        };
        ArcTable { bits, owners: (0..1 << bits).map(owner).collect() }
    }

    /// The owner of the key with this hash.
    pub fn owner(&self, hash: u64) -> TargetId {
        self.owners[self.arc(hash)]
    }

    /// The home of an inode. Its field stands in the number's top bits, so the number is placed
    /// like any hash.
    pub fn home(&self, inode: InodeNumber) -> TargetId {
        self.owner(inode.0)
    }

    /// The owner of chunk `index` of a file.
    pub fn chunk_owner(&self, inode: InodeNumber, index: u64) -> TargetId {
        self.owner(chunk_hash(inode, index))
    }

    /// The arc of the key with this hash.
    pub fn arc(&self, hash: u64) -> usize {
        (hash >> (u64::BITS - u32::from(self.bits))) as usize
    }

    /// How many arcs there are.
    pub fn arc_count(&self) -> usize {
        self.owners.len()
    }

    /// How many arcs each owner has.
    pub fn counts(&self) -> BTreeMap<TargetId, usize> {
        let mut counts = BTreeMap::new();
        for &owner in &self.owners {
            *counts.entry(owner).or_insert(0) += 1;
        }
        counts
    }

    /// The part of all arcs that `target` owns, from 0 to 1.
    pub fn share(&self, target: TargetId) -> f64 {
        let owned = self.owners.iter().filter(|&&owner| owner == target).count();
        owned as f64 / self.owners.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(ids: impl IntoIterator<Item = u32>, bits: u8) -> ArcTable {
        ArcTable::new(&HashRing::new(ids.into_iter().map(TargetId)), bits)
    }

    /// Arcs that change their owner, by (owner before, owner after).
    fn moves(before: &ArcTable, after: &ArcTable) -> Vec<(TargetId, TargetId)> {
        let pairs = before.owners.iter().copied().zip(after.owners.iter().copied());
        pairs.filter(|(old, new)| old != new).collect()
    }

    /// The fullest target's arcs over the mean.
    fn imbalance(count: u32, bits: u8) -> f64 {
        let table = table(0..count, bits);
        let fullest = table.counts().values().copied().max().unwrap();
        fullest as f64 * f64::from(count) / table.arc_count() as f64
    }

    #[test]
    fn the_fullest_target_stays_near_the_mean() {
        let check = |count: u32, bits: u8, expected: f64| {
            let measured = imbalance(count, bits);
            assert!((measured - expected).abs() < 0.001, "{count} targets: {measured:.3}");
        };
        check(1, 16, 1.0);
        check(2, 16, 1.049);
        check(4, 16, 1.041);
        check(16, 16, 1.099);
        check(64, 16, 1.177);
        check(256, 18, 1.230);
        check(1024, 16, 1.359);
        check(1024, 19, 1.293);
    }

    #[test]
    fn bits_grow_with_the_cluster() {
        let check = |count, expected| assert_eq!(arc_bits_for(count), expected, "{count} targets");
        check(1, ARC_BITS_DEFAULT);
        check(64, ARC_BITS_DEFAULT);
        check(218, ARC_BITS_DEFAULT);
        check(219, 17);
        check(1024, 19);
        check(4096, 21);
        check(usize::MAX >> 16, ARC_BITS_MAX);
    }

    #[test]
    fn golden_table() {
        let table = table(0..4, 4);
        let owners: Vec<u32> = table.owners.iter().map(|target| target.0).collect();
        assert_eq!(owners, [3, 2, 0, 1, 2, 2, 0, 3, 0, 0, 2, 0, 1, 1, 0, 0]);
    }

    #[test]
    fn the_root_lies_on_the_first_arc() {
        let table = table(0..4, ARC_BITS_DEFAULT);
        assert_eq!(table.home(InodeNumber::ROOT), table.owners[0]);
    }

    proptest! {
        // Each case compiles whole tables.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_table_agrees_with_the_ring(count in 1..20_u32, bits in ARC_BITS_MIN..=12) {
            let ring = HashRing::new((0..count).map(TargetId));
            let table = ArcTable::new(&ring, bits);
            for (arc, &owner) in table.owners.iter().enumerate() {
                prop_assert_eq!(Some(owner), ring.owner((arc as u64) << (64 - bits)));
            }
        }

        #[test]
        fn a_number_alone_tells_its_home(
            field in 0..1_u32 << 24,
            sequence in 0..1_u64 << 40,
            bits in ARC_BITS_MIN..=16,
        ) {
            let table = table(0..5, bits);
            let home = table.home(InodeNumber::new(field, sequence));
            prop_assert_eq!(home, table.owner(u64::from(field) << 40));
            prop_assert_eq!(home, table.owners[(field >> (24 - bits)) as usize]);
        }

        #[test]
        fn shares_add_up(count in 1..20_u32) {
            let table = table(0..count, 12);
            let sum: f64 = (0..count).map(|id| table.share(TargetId(id))).sum();
            prop_assert!((sum - 1.0).abs() < 1e-9);
            prop_assert_eq!(table.counts().values().sum::<usize>(), table.arc_count());
            prop_assert_eq!(table.share(TargetId(count)), 0.0);
        }

        #[test]
        fn a_target_that_comes_or_goes_moves_only_its_share(
            ids in proptest::collection::btree_set(0..10_000_u32, 2..24),
            choice in any::<proptest::sample::Index>(),
        ) {
            let changed = *choice.get(&ids.iter().copied().collect::<Vec<_>>());
            let with = table(ids.iter().copied(), ARC_BITS_DEFAULT);
            let without = table(ids.iter().copied().filter(|&id| id != changed), ARC_BITS_DEFAULT);
            let changed = TargetId(changed);
            let moved = moves(&without, &with);
            // Coming, it only takes; going, it only gives: the same arcs, the other way round.
            prop_assert!(moved.iter().all(|&(_, new)| new == changed));
            prop_assert_eq!(moved.len(), with.counts()[&changed]);
            let fair = 1.0 / ids.len() as f64;
            let share = moved.len() as f64 / with.arc_count() as f64;
            prop_assert!((0.5 * fair..1.6 * fair).contains(&share), "{share} instead of {fair}");
        }
    }
}
