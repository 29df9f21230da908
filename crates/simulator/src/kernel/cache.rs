//! What the kernel remembers of a mount: names, attributes and pages, and who may touch them now.
//!
//! Invariant: nothing here is believed for longer than the mount said, names not beyond the epoch
//! they were asked for in, and attributes not if the inode changed after they were asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use ringfs_wire::InodeNumber;

use super::abi::{Attr, Entry, TimedAttr};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// A name in a directory, or that there is none.
#[derive(Clone, Copy, Debug)]
struct Dentry {
    node: Option<InodeNumber>,
    until: Duration,
    epoch: u64,
}

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It leads there.
    Positive(InodeNumber),
    /// There is no such name.
    Negative,
    /// It led there; ask whether it still does.
    Stale(InodeNumber),
    /// Nothing.
    Unknown,
}

/// What is known of an inode.
#[derive(Debug, Default)]
struct Inode {
    attr: Option<Attr>,
    until: Duration,
    /// When it last changed here, by the mount's counter of such changes.
    version: u64,
    size: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
    /// Pages being read or written.
    busy: BTreeSet<u64>,
    /// Exclusive use: of a directory by who changes its names, of a file by who writes.
    is_taken: bool,
    /// Shared uses: look-ups in a directory.
    shared: u32,
}

/// Everything the kernel remembers of one mount.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    epoch: u64,
    versions: u64,
    dentries: BTreeMap<(InodeNumber, Vec<u8>), Dentry>,
    inodes: BTreeMap<InodeNumber, Inode>,
    /// How often something remembered was the answer.
    pub(crate) hits: u64,
}

impl Cache {
    /// To be read before a request that asks for names.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// To be read before a request that asks for attributes.
    pub(crate) fn version(&self) -> u64 {
        self.versions
    }

    /// No name remembered is true any more.
    pub(crate) fn increment_epoch(&mut self) {
        self.epoch += 1;
    }

    fn inode(&mut self, inode: InodeNumber) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    /// What is known of a name now.
    pub(crate) fn name(&mut self, directory: InodeNumber, name: &[u8], now: Duration) -> Known {
        let Some(dentry) = self.dentries.get(&(directory, name.to_vec())) else {
            return Known::Unknown;
        };
        let is_true = dentry.epoch == self.epoch && now < dentry.until;
        match (dentry.node, is_true) {
            (Some(node), true) => Known::Positive(node),
            (Some(node), false) => Known::Stale(node),
            (None, true) => Known::Negative,
            (None, false) => Known::Unknown,
        }
    }

    /// Enters what a look-up that began in `epoch` found.
    pub(crate) fn enter_name(
        &mut self,
        (directory, name): (InodeNumber, &[u8]),
        entry: &Entry,
        epoch: u64,
        now: Duration,
    ) {
        let node = (entry.node.0 != 0).then_some(entry.node);
        let until = now.saturating_add(Duration::from_nanos(entry.valid));
        self.dentries.insert((directory, name.to_vec()), Dentry { node, until, epoch });
    }

    /// Forgets a name.
    pub(crate) fn drop_name(&mut self, directory: InodeNumber, name: &[u8]) {
        self.dentries.remove(&(directory, name.to_vec()));
    }

    /// A rename of ours: the dentry moves, for as long as it was true.
    pub(crate) fn move_name(
        &mut self,
        (from, old): (InodeNumber, &[u8]),
        (to, new): (InodeNumber, &[u8]),
    ) {
        let moved = self.dentries.remove(&(from, old.to_vec()));
        self.dentries.remove(&(to, new.to_vec()));
        if let Some(dentry) = moved {
            self.dentries.insert((to, new.to_vec()), dentry);
        }
    }

    /// An exchange of ours.
    pub(crate) fn exchange_names(
        &mut self,
        (from, old): (InodeNumber, &[u8]),
        (to, new): (InodeNumber, &[u8]),
    ) {
        let here = self.dentries.remove(&(from, old.to_vec()));
        let there = self.dentries.remove(&(to, new.to_vec()));
        if let Some(dentry) = here {
            self.dentries.insert((to, new.to_vec()), dentry);
        }
        if let Some(dentry) = there {
            self.dentries.insert((from, old.to_vec()), dentry);
        }
    }

    /// Attributes that are true now.
    pub(crate) fn attr(&mut self, inode: InodeNumber, now: Duration) -> Option<Attr> {
        let found = self.inodes.get(&inode)?;
        let attr = found.attr.filter(|_| now < found.until)?;
        self.hits += 1;
        Some(Attr { size: found.size_of(attr), ..attr })
    }

    /// Attributes asked for at `version`; nothing if the inode has changed here since.
    pub(crate) fn enter_attr(&mut self, reply: &TimedAttr, version: u64, now: Duration) {
        let found = self.inode(reply.attr.inode);
        tracing::trace!(inode = %reply.attr.inode, size = reply.attr.size, valid = reply.valid, version, known = found.version, "attributes");
        if found.version > version {
            found.until = Duration::ZERO;
            return;
        }
        found.set(reply, now);
        self.versions += 1;
        let version = self.versions;
        self.inode(reply.attr.inode).version = version;
    }

    /// Attributes that came with the answer to a change of ours: they count whatever came between.
    pub(crate) fn set_attr(&mut self, reply: &TimedAttr, now: Duration) {
        self.versions += 1;
        let version = self.versions;
        let found = self.inode(reply.attr.inode);
        found.version = version;
        found.set(reply, now);
    }

    /// The attributes changed in a way only the mount knows.
    pub(crate) fn drop_attr(&mut self, inode: InodeNumber) {
        self.inode(inode).until = Duration::ZERO;
    }

    /// The mount takes back attributes; replies under way no longer count.
    pub(crate) fn revoke_attr(&mut self, inode: InodeNumber) {
        self.versions += 1;
        let version = self.versions;
        let found = self.inode(inode);
        found.version = version;
        found.until = Duration::ZERO;
    }

    /// The size as last known.
    pub(crate) fn size(&mut self, inode: InodeNumber) -> u64 {
        self.inode(inode).size
    }

    /// A read came back short: the file ends here, unless it changed meanwhile.
    pub(crate) fn shrink_size(&mut self, inode: InodeNumber, size: u64, version: u64) {
        self.versions += 1;
        let counter = self.versions;
        let found = self.inode(inode);
        if found.version <= version && size < found.size {
            found.size = size;
            found.version = counter;
        }
    }

    /// A write of ours ended at `end`.
    pub(crate) fn note_written(&mut self, inode: InodeNumber, end: u64) {
        self.versions += 1;
        let version = self.versions;
        let found = self.inode(inode);
        found.version = version;
        found.size = found.size.max(end);
        found.until = Duration::ZERO;
    }

    /// A page, if it is here.
    pub(crate) fn page(&mut self, inode: InodeNumber, index: u64) -> Option<&[u8]> {
        let page = self.inodes.get(&inode)?.pages.get(&index)?;
        self.hits += 1;
        Some(page)
    }

    /// Keeps what was read of whole pages; beyond the bytes read they are zeros.
    pub(crate) fn fill_pages(&mut self, inode: InodeNumber, pages: Range<u64>, bytes: &[u8]) {
        let found = self.inode(inode);
        for index in pages.clone() {
            let start = ((index - pages.start) * PAGE) as usize;
            let mut page = vec![0; PAGE as usize];
            let part = bytes.get(start..).unwrap_or_default();
            let len = part.len().min(PAGE as usize);
            page[..len].copy_from_slice(&part[..len]);
            found.pages.insert(index, page.into());
        }
    }

    /// Puts written bytes into the pages that are here, and keeps those written as a whole.
    pub(crate) fn write_pages(&mut self, inode: InodeNumber, offset: u64, bytes: &[u8]) {
        let found = self.inode(inode);
        let end = offset + bytes.len() as u64;
        for index in pages_of(offset, end) {
            let (start, stop) = (offset.max(index * PAGE), end.min((index + 1) * PAGE));
            let part = &bytes[(start - offset) as usize..(stop - offset) as usize];
            if part.len() as u64 == PAGE {
                found.pages.insert(index, part.into());
            } else if let Some(page) = found.pages.get_mut(&index) {
                let at = (start % PAGE) as usize;
                page[at..at + part.len()].copy_from_slice(part);
            }
        }
    }

    /// Drops pages.
    pub(crate) fn drop_pages(&mut self, inode: InodeNumber, pages: Range<u64>) {
        let found = self.inode(inode);
        found.pages.retain(|index, _| !pages.contains(index));
    }

    /// Drops what lies beyond `size`, and zeroes the rest of the page it ends in.
    pub(crate) fn truncate_pages(&mut self, inode: InodeNumber, size: u64) {
        self.drop_pages(inode, size.div_ceil(PAGE)..u64::MAX);
        let found = self.inode(inode);
        found.size = size;
        if let Some(page) = found.pages.get_mut(&(size / PAGE)) {
            page[(size % PAGE) as usize..].fill(0);
        }
    }

    /// Marks pages busy, if none of them is.
    pub(crate) fn try_lock_pages(&mut self, inode: InodeNumber, pages: &Range<u64>) -> bool {
        let found = self.inode(inode);
        if found.busy.iter().any(|index| pages.contains(index)) {
            return false;
        }
        found.busy.extend(pages.clone());
        true
    }

    /// Whether none of these pages is busy.
    pub(crate) fn are_idle(&mut self, inode: InodeNumber, pages: &Range<u64>) -> bool {
        !self.inode(inode).busy.iter().any(|index| pages.contains(index))
    }

    /// Ends what [`Self::try_lock_pages`] began.
    pub(crate) fn unlock_pages(&mut self, inode: InodeNumber, pages: &Range<u64>) {
        self.inode(inode).busy.retain(|index| !pages.contains(index));
    }

    /// Takes an inode for exclusive use, if nobody uses it.
    pub(crate) fn try_take(&mut self, inode: InodeNumber) -> bool {
        let found = self.inode(inode);
        let is_free = !found.is_taken && found.shared == 0;
        found.is_taken |= is_free;
        is_free
    }

    /// Takes an inode for shared use, if nobody has it exclusively.
    pub(crate) fn try_share(&mut self, inode: InodeNumber) -> bool {
        let found = self.inode(inode);
        found.shared += u32::from(!found.is_taken);
        !found.is_taken
    }

    /// Ends an exclusive or a shared use.
    pub(crate) fn give_back(&mut self, inode: InodeNumber, is_exclusive: bool) {
        let found = self.inode(inode);
        match is_exclusive {
            true => found.is_taken = false,
            false => found.shared -= 1,
        }
    }
}

impl Inode {
    fn set(&mut self, reply: &TimedAttr, now: Duration) {
        let attr = reply.attr;
        if attr.kind() == ringfs_wire::InodeType::File && attr.size < self.size {
            let keep = attr.size.div_ceil(PAGE);
            self.pages.retain(|index, _| *index < keep);
            if let Some(page) = self.pages.get_mut(&(attr.size / PAGE)) {
                page[(attr.size % PAGE) as usize..].fill(0);
            }
        }
        self.attr = Some(attr);
        self.size = attr.size;
        self.until = now.saturating_add(Duration::from_nanos(reply.valid));
    }

    fn size_of(&self, attr: Attr) -> u64 {
        match attr.kind() {
            ringfs_wire::InodeType::File => self.size,
            _ => attr.size,
        }
    }
}

/// The pages that hold bytes `start..end`.
pub(crate) fn pages_of(start: u64, end: u64) -> Range<u64> {
    start / PAGE..end.div_ceil(PAGE)
}
