//! An LRU cache from path to inode, so that deep paths are not walked again and again.
//!
//! Invariant: whoever removes or moves a name invalidates it, and everything below it; so an
//! entry is never wrong, only absent. Attributes are not cached: they are in memory anyway.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::num::NonZeroUsize;

use lru::LruCache;
use ringfs_wire::InodeNumber;

/// Which inodes recently used paths lead to.
#[derive(Debug)]
pub struct MetadataCache {
    entries: LruCache<String, InodeNumber, BuildHasherDefault<DefaultHasher>>,
    hits: u64,
    misses: u64,
}

impl MetadataCache {
    /// An empty cache of at most `capacity` paths.
    pub fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        let entries = LruCache::with_hasher(capacity, BuildHasherDefault::default());
        Self { entries, hits: 0, misses: 0 }
    }

    /// The inode of a path, if it is cached.
    pub fn get(&mut self, path: &str) -> Option<InodeNumber> {
        let found = self.entries.get(path).copied();
        match found {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        found
    }

    /// Remembers a path; the one unused for longest makes room.
    pub fn insert(&mut self, path: &str, inode: InodeNumber) {
        self.entries.put(path.to_owned(), inode);
    }

    /// Forgets a path and every path below it.
    pub fn invalidate(&mut self, path: &str) {
        self.entries.pop(path);
        let below = format!("{path}/");
        let stale: Vec<String> = self
            .entries
            .iter()
            .filter(|(cached, _)| cached.starts_with(&below))
            .map(|(cached, _)| cached.clone())
            .collect();
        for path in stale {
            self.entries.pop(&path);
        }
    }

    /// Look-ups that were answered, and that were not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_path_makes_room_and_trees_are_forgotten() {
        let mut cache = MetadataCache::new(3);
        for (index, path) in ["/a", "/a/b", "/ab"].iter().enumerate() {
            cache.insert(path, InodeNumber(index as u64));
        }
        assert_eq!(cache.get("/a"), Some(InodeNumber(0)));
        cache.insert("/c", InodeNumber(9));
        assert_eq!(cache.get("/a/b"), None, "unused for longest");
        cache.insert("/a/b", InodeNumber(1));
        cache.invalidate("/a");
        assert_eq!((cache.get("/a"), cache.get("/a/b")), (None, None));
        assert_eq!(cache.get("/c"), Some(InodeNumber(9)));
        assert_eq!(cache.hits_and_misses(), (2, 3));
    }
}
