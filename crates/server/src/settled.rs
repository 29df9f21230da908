//! Sizes that no power loss takes back, for clients that then read without asking the home.
//!
//! A size is noted with the end of the log when somebody asks for it; once the log is durable up
//! to there, so is the size. Invariant: what is told was the size under the generation of the
//! same answer, at a moment whose log is durable; within a generation sizes only grow. Kept in
//! memory for the files asked for last: nothing is lost with it but time.

use std::cell::RefCell;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::num::NonZeroUsize;

use lru::LruCache;
use ringfs_store::LogPosition;
use ringfs_wire::{Generation, InodeNumber};

/// Files whose sizes are noted.
const FILES_MAX: usize = 4096;

#[derive(Clone, Copy)]
struct Noted {
    generation: Generation,
    size: u64,
    /// Durable up to here means that the size is.
    position: LogPosition,
}

/// What is known of the sizes of files.
pub(crate) struct Settled {
    noted: RefCell<LruCache<InodeNumber, Noted, BuildHasherDefault<DefaultHasher>>>,
}

impl Default for Settled {
    fn default() -> Self {
        let capacity = NonZeroUsize::new(FILES_MAX).unwrap_or(NonZeroUsize::MIN);
        let noted = LruCache::with_hasher(capacity, BuildHasherDefault::default());
        Self { noted: RefCell::new(noted) }
    }
}

impl Settled {
    /// A size that the file has durably, 0 while nothing is known, where it has `size` now. Of the
    /// log, everything is written up to the first of `extent` and durable up to the second.
    pub(crate) fn size(
        &self,
        inode: InodeNumber,
        generation: Generation,
        size: u64,
        extent: (LogPosition, LogPosition),
    ) -> u64 {
        let (committed, synced) = extent;
        let mut noted = self.noted.borrow_mut();
        let known = noted.get(&inode).copied().filter(|known| known.generation == generation);
        let is_durable = |position: LogPosition| position <= synced;
        if is_durable(committed) {
            noted.put(inode, Noted { generation, size, position: committed });
            return size;
        }
        match known {
            // It gets its chance to become durable.
            Some(known) if !is_durable(known.position) => 0,
            Some(known) => {
                if known.size < size {
                    noted.put(inode, Noted { generation, size, position: committed });
                }
                known.size
            }
            None => {
                noted.put(inode, Noted { generation, size, position: committed });
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_told_once_the_log_is_durable_up_to_it() {
        let settled = Settled::default();
        let ask = |generation, size, committed, synced| {
            let extent = (LogPosition(committed), LogPosition(synced));
            settled.size(InodeNumber(7), Generation(generation), size, extent)
        };
        assert_eq!(ask(1, 100, 10, 5), 0);
        assert_eq!(ask(1, 120, 12, 9), 0, "the size noted first is not durable yet");
        assert_eq!(ask(1, 130, 14, 10), 100);
        assert_eq!(ask(1, 130, 16, 14), 130, "noted with the answer before");
        assert_eq!(ask(2, 90, 16, 14), 0, "another generation");
        assert_eq!(ask(2, 90, 16, 16), 90);
    }
}
