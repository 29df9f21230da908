//! What the kernel may cache: answers with promises, and under which leases its pages were read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfs_client::Leased;
use ringfs_wire::{Attributes, InodeNumber, InodeType};

use crate::abi::{Abi, AttrOut, DirectoryEntry, EntryOut, OpenOut, Reply, StatxOut};
use crate::gate::{Moment, Passage};
use crate::operations::stat;
use crate::worker::Worker;

/// Inodes listed with a lease, per part of a table.
const INODES_PER_PART_MAX: usize = 16_384;
const PARTS: u64 = 16;
/// Inodes remembered in case they are removed, per part of the table.
const SEEN_PER_PART_MAX: usize = 2_048;

/// What answers a request, with leases where they count.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing in it is cached.
    Plain(Reply),
    /// Bytes that the kernel may cache although no lease covers them: they are dropped at once.
    Unleased(Reply, InodeNumber),
    /// A name and its inode, and with an open file its handle.
    Entry(Leased<Attributes>, Option<OpenOut>),
    /// A name that this directory lacks.
    Missing(InodeNumber, Duration),
    /// An inode.
    Attributes(Leased<Attributes>),
    /// An inode, with its time of birth.
    Statx(Leased<Attributes>),
    /// A part of a directory with its inodes.
    Listing(Vec<ListedEntry>),
}

/// One entry of a listing.
#[derive(Debug)]
pub(crate) struct ListedEntry {
    pub(crate) entry: DirectoryEntry,
    pub(crate) name: Vec<u8>,
    /// Absent for `.` and `..` and for what vanished meanwhile: the kernel then keeps no inode.
    pub(crate) attributes: Option<Leased<Attributes>>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Plain(reply)
    }
}

impl Answer {
    /// The inode whose pages are to be dropped behind it.
    pub(crate) fn unleased_pages(&self) -> Option<InodeNumber> {
        match self {
            Self::Unleased(_, inode) => Some(*inode),
            _ => None,
        }
    }

    /// Whether it may let the kernel cache anything.
    pub(crate) fn promises(&self) -> bool {
        let leased = |leased: &Leased<Attributes>| {
            leased.attributes_until.is_some() || leased.names_until.is_some()
        };
        match self {
            Self::Plain(_) | Self::Unleased(..) => false,
            Self::Missing(..) => true,
            Self::Entry(attributes, _) | Self::Attributes(attributes) | Self::Statx(attributes) => {
                leased(attributes)
            }
            Self::Listing(entries) => {
                entries.iter().any(|entry| entry.attributes.as_ref().is_some_and(leased))
            }
        }
    }
}

/// For how long the kernel may keep a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Promise {
    attributes: Duration,
    names: Duration,
}

impl Worker {
    /// The bytes of an answer. `passage` is there if it promises anything.
    pub(crate) fn reply_of(
        &self,
        answer: Answer,
        moment: Moment,
        passage: Option<&Passage<'_>>,
    ) -> Reply {
        let now = self.platform.monotonic();
        let promise = |leased: &Leased<Attributes>| {
            self.promise(leased.value.inode, leased, now, moment, passage)
        };
        match answer {
            Answer::Plain(reply) | Answer::Unleased(reply, _) => reply,
            Answer::Entry(leased, open) => {
                self.mount.seen.note(&leased.value);
                let entry = Reply::of(&entry_out(&leased.value, promise(&leased)));
                match open {
                    Some(open) => entry.with(&open),
                    None => entry,
                }
            }
            Answer::Missing(directory, until) => {
                let held = passage.is_some_and(|passage| passage.may_promise(directory, moment));
                let valid = if held { until.saturating_sub(now) } else { Duration::ZERO };
                if !valid.is_zero() {
                    self.mount.promises.note_name(directory);
                }
                Reply::of(&EntryOut {
                    entry_valid: valid.as_secs(),
                    entry_valid_nanos: valid.subsec_nanos(),
                    ..Default::default()
                })
            }
            Answer::Attributes(leased) => {
                self.mount.seen.note(&leased.value);
                let valid = promise(&leased).attributes;
                Reply::of(&AttrOut {
                    valid: valid.as_secs(),
                    valid_nanos: valid.subsec_nanos(),
                    padding: 0,
                    attr: stat::attr(&leased.value),
                })
            }
            Answer::Statx(leased) => {
                let valid = promise(&leased).attributes;
                Reply::of(&StatxOut {
                    valid: valid.as_secs(),
                    valid_nanos: valid.subsec_nanos(),
                    stat: stat::statx(&leased.value),
                    ..Default::default()
                })
            }
            Answer::Listing(entries) => {
                let mut bytes = Vec::new();
                for listed in entries {
                    if let Some(leased) = &listed.attributes {
                        self.mount.seen.note(&leased.value);
                    }
                    // Linux enters listed names under the epoch of that moment, not of its request:
                    // a name that was taken back in between would seem good.
                    let nameless =
                        |leased: Leased<Attributes>| Leased { names_until: None, ..leased };
                    let entry = listed
                        .attributes
                        .map(nameless)
                        .map(|leased| entry_out(&leased.value, promise(&leased)));
                    entry.unwrap_or_default().put(&mut bytes);
                    put_entry(&listed.entry, &listed.name, &mut bytes);
                }
                Reply::bytes(bytes)
            }
        }
    }

    fn promise<T>(
        &self,
        inode: InodeNumber,
        leased: &Leased<T>,
        now: Duration,
        moment: Moment,
        passage: Option<&Passage<'_>>,
    ) -> Promise {
        if !passage.is_some_and(|passage| passage.may_promise(inode, moment)) {
            return Promise::default();
        }
        let rest = |until: Option<Duration>| until.unwrap_or_default().saturating_sub(now);
        let names = if self.mount.agreement.names_can_be_dropped() {
            rest(leased.names_until)
        } else {
            Duration::ZERO
        };
        if !names.is_zero() {
            self.mount.promises.note_name(inode);
        }
        Promise { attributes: rest(leased.attributes_until), names }
    }
}

fn entry_out(attributes: &Attributes, promise: Promise) -> EntryOut {
    EntryOut {
        node: attributes.inode.0,
        // Numbers are never used twice.
        generation: 0,
        entry_valid: promise.names.as_secs(),
        entry_valid_nanos: promise.names.subsec_nanos(),
        attr_valid: promise.attributes.as_secs(),
        attr_valid_nanos: promise.attributes.subsec_nanos(),
        attr: stat::attr(attributes),
    }
}

/// Appends an entry, its name, and zeros up to a multiple of eight.
pub(crate) fn put_entry(entry: &DirectoryEntry, name: &[u8], out: &mut Vec<u8>) {
    entry.put(out);
    out.extend_from_slice(name);
    out.resize(out.len().next_multiple_of(8), 0);
}

/// What inodes last looked like, for processes that still use one that was removed: they stand in
/// a directory, hold a pipe open, or have just been led to it by its name.
///
/// Asked only when the home has said that the inode is gone; numbers are never used twice.
#[derive(Debug, Default)]
pub(crate) struct LastSeen {
    parts: [Mutex<SeenPart>; PARTS as usize],
}

/// The inodes seen lately, and those seen before them.
#[derive(Debug, Default)]
struct SeenPart {
    lately: BTreeMap<InodeNumber, Attributes>,
    before: BTreeMap<InodeNumber, Attributes>,
}

impl LastSeen {
    fn part(&self, inode: InodeNumber) -> MutexGuard<'_, SeenPart> {
        let part = &self.parts[(inode.0 % PARTS) as usize];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the kernel is told of an inode.
    fn note(&self, attributes: &Attributes) {
        let mut part = self.part(attributes.inode);
        if part.lately.len() >= SEEN_PER_PART_MAX {
            part.before = std::mem::take(&mut part.lately);
        }
        part.lately.insert(attributes.inode, attributes.clone());
    }

    /// A removed inode as it is shown to those that still use it.
    pub(crate) fn removed(&self, inode: InodeNumber) -> Option<Attributes> {
        let part = self.part(inode);
        let known = part.lately.get(&inode).or_else(|| part.before.get(&inode)).cloned()?;
        // A file that is open exists; for others the name is looked up again.
        let size = if known.kind == InodeType::Directory { 0 } else { known.size };
        (known.kind != InodeType::File).then_some(Attributes { links: 0, size, ..known })
    }
}

/// Leases by which something is known of inodes, by their numbers.
///
/// Of pages: what the kernel holds of an inode listed here was read under the lease listed, or has
/// been dropped since.
#[derive(Debug, Default)]
pub(crate) struct LeaseNumbers {
    parts: [Mutex<BTreeMap<InodeNumber, u64>>; PARTS as usize],
}

impl LeaseNumbers {
    fn part(&self, inode: InodeNumber) -> MutexGuard<'_, BTreeMap<InodeNumber, u64>> {
        let part = &self.parts[(inode.0 % PARTS) as usize];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this lease is the one listed.
    pub(crate) fn is(&self, inode: InodeNumber, lease: u64) -> bool {
        self.part(inode).get(&inode) == Some(&lease)
    }

    /// Lists a lease, or that there is none; tells whether it was listed before.
    pub(crate) fn note(&self, inode: InodeNumber, lease: Option<u64>) -> bool {
        let mut part = self.part(inode);
        let Some(lease) = lease else {
            part.remove(&inode);
            return false;
        };
        if part.len() >= INODES_PER_PART_MAX && !part.contains_key(&inode) {
            part.clear();
        }
        part.insert(inode, lease) == Some(lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_outlive_an_open_only_under_one_lease() {
        let (pages, inode) = (LeaseNumbers::default(), InodeNumber(9));
        assert!(!pages.note(inode, Some(1)), "nothing is known of them");
        assert!(pages.note(inode, Some(1)) && pages.is(inode, 1));
        assert!(!pages.note(inode, Some(2)) && !pages.is(inode, 1), "lost in between");
        assert!(pages.note(inode, Some(2)) && !pages.note(inode, None));
        assert!(!pages.is(inode, 2) && !pages.note(inode, Some(2)));
    }
}
