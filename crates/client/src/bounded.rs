//! A map that forgets what has not been used for long.
//!
//! Invariant: an entry is given up only by [`Bounded::victim`], which passes over entries used
//! since it last came by. How large the map may grow is its owner's business.

use std::collections::BTreeMap;

/// How many entries a search for a victim looks at, at most.
const SEARCH_LEN_MAX: usize = 128;

/// The map.
#[derive(Debug)]
pub(crate) struct Bounded<K, V> {
    index: BTreeMap<K, usize>,
    slots: Vec<Option<Slot<K, V>>>,
    free: Vec<usize>,
    /// Where the search for a victim goes on.
    hand: usize,
}

#[derive(Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    used: bool,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { index: BTreeMap::new(), slots: Vec::new(), free: Vec::new(), hand: 0 }
    }
}

impl<K: Ord + Clone, V> Bounded<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.index.contains_key(key)
    }

    /// The value of `key`, which counts as used.
    pub(crate) fn get(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.slots[*self.index.get(key)?].as_mut()?;
        slot.used = true;
        Some(&mut slot.value)
    }

    /// The value of `key`, made if there is none.
    pub(crate) fn get_or_insert(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V {
        let position = match self.index.get(key) {
            Some(position) => *position,
            None => {
                let position = self.free.pop().unwrap_or_else(|| {
                    self.slots.push(None);
                    self.slots.len() - 1
                });
                self.index.insert(key.clone(), position);
                position
            }
        };
        let fresh = || Slot { key: key.clone(), value: make(), used: true };
        let slot = self.slots[position].get_or_insert_with(fresh);
        slot.used = true;
        &mut slot.value
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let position = self.index.remove(key)?;
        self.free.push(position);
        self.slots[position].take().map(|slot| slot.value)
    }

    /// An entry that has not been used lately, among those that `may` go; none if the search
    /// meets none soon.
    pub(crate) fn victim(&mut self, may: impl Fn(&V) -> bool) -> Option<K> {
        // Twice round: the first time may only show that all were used.
        for _ in 0..(2 * self.slots.len()).min(SEARCH_LEN_MAX) {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let Some(slot) = &mut self.slots[self.hand] else { continue };
            if !std::mem::take(&mut slot.used) && may(&slot.value) {
                return Some(slot.key.clone());
            }
        }
        None
    }

    /// All entries, in no order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.slots.iter_mut().flatten().map(|slot| (&slot.key, &mut slot.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_stays_longer() {
        let mut map = Bounded::default();
        for key in 0..4 {
            map.get_or_insert(&key, || key * 10);
        }
        let first = map.victim(|_| true).unwrap();
        map.remove(&first);
        let kept = (0..4).find(|key| *key != first).unwrap();
        assert_eq!(map.get(&kept), Some(&mut (kept * 10)));
        for _ in 0..2 {
            let next = map.victim(|_| true).unwrap();
            assert_ne!(next, kept);
            assert_eq!(map.remove(&next), Some(next * 10));
        }
        assert_eq!((map.len(), map.contains(&kept), map.contains(&first)), (1, true, false));
        assert_eq!(map.victim(|value| *value < 0), None);
        map.get_or_insert(&9, || 90);
        assert_eq!(map.iter_mut().count(), 2);
    }
}
