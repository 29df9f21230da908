//! Names: those that are there, and those that are not.
//!
//! Invariant: a name that is noted holds while the lease does under which it was found: on the names
//! of its inode, or on the content of the directory that lacks it. Of a directory that was empty
//! under a lease on its content, all names are noted from then on, until one of them is forgotten.

use std::time::Duration;

use ringfs_wire::{InodeNumber, Lease, Name};

use super::{LeaseCache, Shard, content_of};

/// Names remembered for each inode that may be.
const NAMES_PER_INODE: usize = 2;

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Nothing,
    /// It was missing; that still holds if the directory's content lease has this number.
    Missing(u64),
    /// It named this inode; that still holds if the inode's names lease has this number.
    Inode(InodeNumber, u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct NameRecord {
    known: Known,
    /// When a change by this process last began or ended.
    changed: u64,
    /// Changes by this process that are under way.
    changing: u32,
}

/// What is known of a name and may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It has to be asked for.
    Unknown,
    /// It is missing until then, or until the directory's content lease has another number.
    Missing(Duration, u64),
    /// It names this inode until then.
    Inode(InodeNumber, Duration),
}

/// What a name names after a change by this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nobody knows.
    Unknown,
    /// Nothing.
    Missing,
    /// The inode it was given to.
    Made(InodeNumber),
    /// Probably this inode: another one may have come in between unseen.
    Probably(InodeNumber),
}

impl LeaseCache {
    /// Notes that a request begun at `begun` found `name` to name `inode`, under the lease on the
    /// inode's names that has the number `names`; zero when there is none.
    pub(crate) fn enter_name(
        &self,
        begun: u64,
        directory: InodeNumber,
        name: &Name,
        inode: InodeNumber,
        names: u64,
    ) {
        self.enter_known(begun, directory, name, Known::Inode(inode, names));
    }

    /// Notes that a request begun at `begun` did not find `name`, and what it was granted on the
    /// directory.
    pub(crate) fn enter_missing(
        &self,
        begun: u64,
        directory: InodeNumber,
        name: &Name,
        granted: Lease,
        now: Duration,
    ) {
        let mut number = 0;
        if granted.contains(Lease::CONTENT) {
            let mut shard = self.shard(directory);
            if self.is_open(directory, begun, now) && self.make_room(&mut shard, directory) {
                let entry = shard.inode(directory);
                if begun >= entry.lost && entry.returning == 0 {
                    if !entry.lease.contains(Lease::CONTENT) {
                        entry.content = self.stamp();
                        entry.lease = entry.lease.or(Lease::CONTENT);
                    }
                    number = entry.content;
                }
            }
        }
        self.enter_known(begun, directory, name, Known::Missing(number));
    }

    /// What is known of a name.
    pub(crate) fn name(&self, directory: InodeNumber, name: &Name, now: Duration) -> Found {
        let (inode, names) = {
            let mut shard = self.shard(directory);
            let known = match shard.names.get(&(directory, name.clone())) {
                None => Known::Missing(shard.complete(directory)),
                Some(record) if record.changing > 0 => Known::Nothing,
                Some(record) => record.known,
            };
            match known {
                Known::Nothing | Known::Inode(_, 0) | Known::Missing(0) => return Found::Unknown,
                Known::Inode(inode, names) => (inode, names),
                Known::Missing(number) => {
                    let until = self.valid_until(directory, now);
                    let content = shard.inodes.get(&directory).and_then(|entry| content_of(entry));
                    return match (until, content) {
                        (Some(until), Some(found)) if found == number => {
                            Found::Missing(until, number)
                        }
                        _ => Found::Unknown,
                    };
                }
            }
        };
        let mut shard = self.shard(inode);
        let until = self.valid_until(inode, now);
        let entry = shard.inodes.get(&inode);
        let entry = entry.filter(|e| e.lease.contains(Lease::NAMES) && e.names == names);
        match (until, entry) {
            (Some(until), Some(_)) => Found::Inode(inode, until),
            _ => Found::Unknown,
        }
    }

    /// What a name named when it was last seen, whether that still holds or not: `None` when it
    /// was never seen, `Some(None)` when it was missing.
    pub(crate) fn last_seen(
        &self,
        directory: InodeNumber,
        name: &Name,
    ) -> Option<Option<InodeNumber>> {
        let mut shard = self.shard(directory);
        let Some(record) = shard.names.get(&(directory, name.clone())) else {
            return (shard.complete(directory) > 0).then_some(None);
        };
        match record.known {
            Known::Nothing => None,
            Known::Missing(_) => Some(None),
            Known::Inode(inode, _) => Some(Some(inode)),
        }
    }

    /// A change of a name by this process begins.
    pub(crate) fn begin_name(&self, directory: InodeNumber, name: &Name) -> u64 {
        let mut shard = self.shard(directory);
        let stamp = self.stamp();
        let record = self.name_record(&mut shard, directory, name);
        record.changing += 1;
        record.changed = stamp;
        record.known = Known::Nothing;
        stamp
    }

    /// A change of a name ended.
    pub(crate) fn end_name(&self, begun: u64, directory: InodeNumber, name: &Name, named: Named) {
        let names = match named {
            Named::Made(inode) => {
                let mut shard = self.shard(inode);
                let entry = shard.inodes.get(&inode).filter(|entry| entry.lost <= begun);
                entry.filter(|e| e.lease.contains(Lease::NAMES)).map_or(0, |entry| entry.names)
            }
            _ => 0,
        };
        let mut shard = self.shard(directory);
        let content = shard.inodes.get(&directory).filter(|entry| entry.lost <= begun);
        let content = content.and_then(|entry| content_of(entry)).unwrap_or(0);
        let stamp = self.stamp();
        let record = self.name_record(&mut shard, directory, name);
        record.changing = record.changing.saturating_sub(1);
        let was_alone = record.changing == 0 && record.changed == begun;
        record.changed = stamp;
        record.known = match named {
            _ if !was_alone => Known::Nothing,
            Named::Unknown => Known::Nothing,
            Named::Missing => Known::Missing(content),
            Named::Made(inode) | Named::Probably(inode) => Known::Inode(inode, names),
        };
    }

    fn enter_known(&self, begun: u64, directory: InodeNumber, name: &Name, known: Known) {
        let mut shard = self.shard(directory);
        let record = self.name_record(&mut shard, directory, name);
        if record.changing == 0 && begun >= record.changed {
            record.known = known;
        }
    }

    fn name_record<'a>(
        &self,
        shard: &'a mut Shard,
        directory: InodeNumber,
        name: &Name,
    ) -> &'a mut NameRecord {
        let key = (directory, name.clone());
        if shard.names.len() >= NAMES_PER_INODE * self.shard_inodes_max
            && !shard.names.contains(&key)
            && let Some(victim) = shard.names.victim(|record| record.changing == 0)
            && let Some(record) = shard.names.remove(&victim)
        {
            shard.names_floor = shard.names_floor.max(record.changed);
            if let Some(directory) = shard.inodes.get(&victim.0) {
                directory.complete = 0;
            }
        }
        let changed = shard.names_floor;
        shard.names.get_or_insert(&key, || NameRecord {
            known: Known::Nothing,
            changed,
            changing: 0,
        })
    }
}

impl Shard {
    /// The number of the lease under which names of a directory are missing that are not noted;
    /// zero if there is none.
    fn complete(&mut self, directory: InodeNumber) -> u64 {
        let entry = self.inodes.get(&directory);
        entry
            .and_then(|entry| content_of(entry).filter(|number| *number == entry.complete))
            .unwrap_or(0)
    }
}
