//! The open files of all processes that use the mount.
//!
//! Any worker serves any handle: the table says what a handle is, and which workers have come to
//! hold state for it and must hear of its end. It counts the handles through which a file can be
//! written. Invariant: numbers are never reused, so that a late message about a closed handle
//! means nothing. Nothing is locked over an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringfs_client::ToldLosses;
use ringfs_wire::{Attributes, InodeNumber};

/// Parts of the table, so that workers seldom wait for each other.
const PARTS: u64 = 16;

/// Workers of one mount, at most: those that hold state of a handle are bits of one word.
pub(crate) const WORKERS_MAX: usize = 64;

/// What is known of an open file.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    /// Its attributes when it was opened.
    pub(crate) attributes: Attributes,
    /// Which losses its syncs have told.
    pub(crate) told: ToldLosses,
    /// Whether a write through it has taken away what lets a program run with rights of its
    /// owner.
    pub(crate) has_killed_privileges: bool,
    /// Whether it counts among those that can write.
    writes: bool,
    /// Owners of POSIX locks taken through it whose end the kernel has not told.
    lock_owners: Vec<u64>,
    /// The workers that hold state for it, as bits.
    workers: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    next: AtomicU64,
    parts: [Mutex<BTreeMap<u64, Handle>>; PARTS as usize],
    /// How many open files of an inode can write it, pages of mappings included.
    writers: [Mutex<BTreeMap<InodeNumber, u32>>; PARTS as usize],
}

impl Handles {
    fn part(&self, number: u64) -> MutexGuard<'_, BTreeMap<u64, Handle>> {
        let part = &self.parts[(number % PARTS) as usize];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writers(&self, inode: InodeNumber) -> MutexGuard<'_, BTreeMap<InodeNumber, u32>> {
        let part = &self.writers[(inode.0 % PARTS) as usize];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a file that `worker` has opened, and gives its number.
    pub(crate) fn open(
        &self,
        attributes: Attributes,
        told: ToldLosses,
        worker: usize,
        writes: bool,
    ) -> u64 {
        assert!(worker < WORKERS_MAX, "workers are counted when a mount is made");
        if writes {
            *self.writers(attributes.inode).entry(attributes.inode).or_default() += 1;
        }
        // Zero is what the kernel sends for no handle.
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let handle = Handle {
            attributes,
            told,
            has_killed_privileges: false,
            writes,
            lock_owners: Vec::new(),
            workers: 1 << worker,
        };
        self.part(number).insert(number, handle);
        number
    }

    /// What a handle is.
    pub(crate) fn get(&self, number: u64) -> Option<Handle> {
        self.part(number).get(&number).cloned()
    }

    /// Notes that `worker` holds state for a handle. False when it has been closed.
    pub(crate) fn join(&self, number: u64, worker: usize) -> bool {
        let mut part = self.part(number);
        let found = part.get_mut(&number);
        found.map(|handle| handle.workers |= 1 << worker).is_some()
    }

    /// Notes that a write through a handle has taken privileges away.
    pub(crate) fn note_killed_privileges(&self, number: u64) {
        if let Some(handle) = self.part(number).get_mut(&number) {
            handle.has_killed_privileges = true;
        }
    }

    /// Notes that `owner` locks through a handle.
    pub(crate) fn note_lock_owner(&self, number: u64, owner: u64) {
        if let Some(handle) = self.part(number).get_mut(&number)
            && !handle.lock_owners.contains(&owner)
        {
            handle.lock_owners.push(owner);
        }
    }

    /// Notes that the locks of `owner` end.
    pub(crate) fn forget_lock_owner(&self, number: u64, owner: u64) {
        if let Some(handle) = self.part(number).get_mut(&number) {
            handle.lock_owners.retain(|known| *known != owner);
        }
    }

    /// The owners that may have locks through a handle.
    pub(crate) fn lock_owners(&self, number: u64) -> Vec<u64> {
        self.part(number).get(&number).map_or(Vec::new(), |handle| handle.lock_owners.clone())
    }

    /// Whether an open file of this mount can write the inode.
    pub(crate) fn can_be_written(&self, inode: InodeNumber) -> bool {
        self.writers(inode).contains_key(&inode)
    }

    /// Notes that nothing is written through a handle any more; tells whether that could be.
    pub(crate) fn end_writing(&self, number: u64) -> bool {
        let mut part = self.part(number);
        let found = part.get_mut(&number).filter(|handle| handle.writes);
        let Some(handle) = found else { return false };
        handle.writes = false;
        let inode = handle.attributes.inode;
        drop(part);
        let mut writers = self.writers(inode);
        if let Some(count) = writers.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                writers.remove(&inode);
            }
        }
        true
    }

    /// Removes a handle and gives the workers that hold state for it.
    pub(crate) fn close(&self, number: u64) -> Vec<usize> {
        self.end_writing(number);
        let workers = self.part(number).remove(&number).map_or(0, |handle| handle.workers);
        (0..WORKERS_MAX).filter(|worker| workers & (1 << worker) != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use ringfs_wire::{FilePermissions, Generation, InodeNumber, InodeType, Timestamp};

    use super::*;

    fn attributes(inode: u64) -> Attributes {
        Attributes {
            inode: InodeNumber(inode),
            kind: InodeType::File,
            permissions: FilePermissions { mode: 0o644, uid: 0, gid: 0 },
            links: 1,
            device: 0,
            size: 0,
            generation: Generation(0),
            reach: 0,
            allocated: 0,
            chunk_size: 4096,
            parent: InodeNumber::ROOT,
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
            changed: Timestamp::default(),
            created: Timestamp::default(),
            has_xattrs: false,
        }
    }

    #[test]
    fn a_handle_ends_at_all_workers_that_used_it() {
        let handles = Handles::default();
        let first = handles.open(attributes(5), ToldLosses::default(), 3, true);
        let second = handles.open(attributes(5), ToldLosses::default(), 0, false);
        assert_ne!(first, second);
        assert!(first != 0 && handles.join(first, 7) && handles.join(first, 3));
        handles.note_lock_owner(first, 11);
        handles.note_lock_owner(first, 12);
        handles.note_lock_owner(first, 11);
        handles.forget_lock_owner(first, 11);
        assert_eq!((handles.lock_owners(first), handles.lock_owners(second)), (vec![12], vec![]));
        assert_eq!(handles.close(first), [3, 7]);
        assert_eq!((handles.close(first), handles.join(first, 1)), (Vec::new(), false));
        assert!(handles.get(first).is_none() && handles.get(second).is_some());
    }

    #[test]
    fn those_that_can_write_are_counted_once_each() {
        let (handles, inode) = (Handles::default(), InodeNumber(5));
        let [first, second] = [true, true]
            .map(|writes| handles.open(attributes(5), ToldLosses::default(), 0, writes));
        let reader = handles.open(attributes(5), ToldLosses::default(), 0, false);
        handles.end_writing(first);
        handles.close(first);
        handles.end_writing(reader);
        assert!(handles.can_be_written(inode) && !handles.can_be_written(InodeNumber(6)));
        handles.close(second);
        assert!(!handles.can_be_written(inode));
    }
}
