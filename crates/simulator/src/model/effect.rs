//! What an operation that succeeds does to the model, and what it may have answered.

use std::collections::BTreeMap;

use ringfs_wire::{InodeNumber, RenameMode};

use super::{Context, Id, Inode, Kind, MOVED, Model};
use crate::content::{Content, Mark};
use crate::operation::{Label, Listed, Operation, Page, Place, Reply, Shown, xattr_tag};

impl Model {
    /// Carries out an operation that succeeds; nothing if it cannot have given `reply`.
    pub(super) fn perform(
        &self,
        operation: &Operation,
        stage: usize,
        reply: Option<&Reply>,
        context: &Context<'_>,
    ) -> Option<Self> {
        let shown = match reply {
            Some(Reply::Attributes(shown)) => Some(shown),
            _ => None,
        };
        let mut next = self.clone();
        match *operation {
            Operation::Lookup { place } => next.see(place, shown?)?,
            Operation::CreateNameless { mode, .. } => {
                let inode = Inode::new(Kind::File(Content::default()), mode);
                next.add(inode.without_name(), shown, context)?;
            }
            Operation::Create { place, .. } if self.find(place).is_some() => {
                // Found: an unseen reply leaves nothing to check and nothing to change.
                if let Some(shown) = shown {
                    next.see(place, shown)?;
                }
            }
            Operation::Create { place, mode, .. } => {
                next.make(place, Inode::new(Kind::File(Content::default()), mode), shown, context)?;
            }
            Operation::MakeDirectory { place, mode } => {
                let parent = Id::Number(place.directory);
                let kind = Kind::Directory { entries: BTreeMap::new(), parent };
                next.make(place, Inode::new(kind, mode), shown, context)?;
            }
            Operation::Symlink { place, tag } => {
                next.make(place, Inode::new(Kind::Symlink(tag), 0o777), shown, context)?;
            }
            Operation::Unlink { place } | Operation::RemoveDirectory { place } => next.take(place),
            Operation::Link { inode, place } => {
                next.put(place, Id::Number(inode));
                next.change(Id::Number(inode), |inode| {
                    inode.links += 1;
                    inode.is_nameless = false;
                });
            }
            Operation::Rename { from, to, mode: RenameMode::Exchange } => next.exchange(from, to),
            Operation::Rename { from, to, .. } => next.rename(from, to),
            _ => next.perform_on_inode(operation, stage, reply)?,
        }
        Some(next)
    }

    /// What an operation leaves that met a full disk: at most some of its bytes below the size.
    pub(super) fn without_space(&self, operation: &Operation) -> Self {
        let mut next = self.clone();
        let (inode, offset, len, mark) = match *operation {
            Operation::Write { inode, offset, len, tag } => (inode, offset, len, Mark::write(tag)),
            Operation::Fallocate { inode, offset, len, space } if space.zeroes() => {
                (inode, offset, len, Mark::ZEROS)
            }
            _ => return next,
        };
        if self.inode(Id::Number(inode)).is_some() {
            next.change(Id::Number(inode), |inode| {
                if let Kind::File(content) = &mut inode.kind {
                    let len = content.read_len(offset, len);
                    content.blur(offset, len, mark);
                }
                inode.modified = None;
            });
        }
        next
    }

    /// What is about one inode, whatever its name.
    fn perform_on_inode(
        &mut self,
        operation: &Operation,
        stage: usize,
        reply: Option<&Reply>,
    ) -> Option<()> {
        let inode = match operation.inode() {
            Some(inode) => inode,
            None => return Some(()),
        };
        let id = Id::Number(inode);
        match *operation {
            Operation::ReadDirectory { directory } => self.list(directory, reply)?,
            Operation::ListPages { directory, .. } => {
                if let Some(Reply::Pages(pages)) = reply {
                    self.list_page(directory, &pages[stage])?;
                }
            }
            Operation::ReadLink { .. } => {
                let Kind::Symlink(tag) = self.inode(id)?.kind else { return None };
                let expected = Reply::Target(crate::operation::symlink_target(tag));
                if reply.is_some_and(|reply| *reply != expected) {
                    return None;
                }
            }
            Operation::SetXattr { .. }
            | Operation::GetXattr { .. }
            | Operation::ListXattrs { .. }
            | Operation::RemoveXattr { .. } => self.use_xattr(id, operation, reply)?,
            Operation::Lock { .. }
            | Operation::Unlock { .. }
            | Operation::Close { .. }
            | Operation::SyncFile { .. }
            | Operation::SyncDirectory { .. } => {}
            _ => {
                self.touch(id, operation, stage, reply)?;
                if let Some(Reply::Attributes(shown)) = reply
                    && !self.shows(self.inode(id)?, shown)
                {
                    return None;
                }
            }
        }
        Some(())
    }

    fn use_xattr(&mut self, id: Id, operation: &Operation, reply: Option<&Reply>) -> Option<()> {
        let known = &self.inode(id)?.xattrs;
        match (*operation, reply) {
            (Operation::SetXattr { key, tag, .. }, _) => {
                self.change(id, |inode| {
                    inode.xattrs.insert(key, tag);
                });
            }
            (Operation::RemoveXattr { key, .. }, _) => {
                self.change(id, |inode| {
                    inode.xattrs.remove(&key);
                });
            }
            (Operation::GetXattr { key, .. }, Some(Reply::Value(value))) => {
                return (xattr_tag(value) == known.get(&key).copied()).then_some(());
            }
            (Operation::ListXattrs { .. }, Some(Reply::Keys(keys))) => {
                return known.keys().eq(keys).then_some(());
            }
            _ => {}
        }
        Some(())
    }

    /// Operations on one inode that is no directory, or on the attributes of any.
    fn touch(
        &mut self,
        id: Id,
        operation: &Operation,
        stage: usize,
        reply: Option<&Reply>,
    ) -> Option<()> {
        let mut inode = self.inode(id)?.clone();
        match (*operation, &mut inode.kind) {
            (Operation::Open { .. } | Operation::Stat { .. }, _) => return Some(()),
            (Operation::Chmod { mode, .. }, _) => inode.mode = mode,
            (Operation::SetTimes { accessed, modified, .. }, kind) => {
                // A write beside this may be seen before it moves the times.
                let is_settled = !matches!(kind, Kind::File(content) if !content.is_untouched());
                inode.accessed = Some(accessed);
                inode.modified = is_settled.then_some(modified);
            }
            (Operation::Truncate { size, .. }, Kind::File(content)) => {
                content.set_size(size);
                inode.modified = None;
            }
            (Operation::Read { offset, len, .. }, Kind::File(content)) => {
                if let Some(Reply::Data(data)) = reply {
                    let is_whole = data.len() as u64 == content.read_len(offset, len);
                    return (is_whole && content.check(offset, data).is_ok()).then_some(());
                }
                return Some(());
            }
            (Operation::Write { offset, len, tag, .. }, Kind::File(content)) => {
                let part = if stage == 0 { first_part(offset, len) } else { len };
                if reply.is_some() {
                    content.write(offset, part, Mark::write(tag));
                } else {
                    let (size, end) = (content.size(), offset + part);
                    content.blur(offset, len, Mark::write(tag));
                    // Nobody is shown a size before what lies below it.
                    let new = offset.max(size);
                    content.write(new, end.saturating_sub(new), Mark::write(tag));
                }
                inode.modified = (reply.is_some() && part == len).then_some(MOVED);
            }
            (Operation::Fallocate { offset, len, space, .. }, Kind::File(content)) => {
                if space.zeroes() {
                    content.zero(offset, len, reply.is_some());
                }
                if space.extends() {
                    content.observe_size(content.size().max(offset + len));
                }
                inode.modified = None;
            }
            (Operation::Append { len, tag, .. }, Kind::File(content)) => {
                let end = content.size();
                if matches!(reply, Some(Reply::Offset(offset)) if *offset != end) {
                    return None;
                }
                content.write(end, len, Mark::append(tag, end));
                inode.modified = reply.map(|_| MOVED);
            }
            _ => return None,
        }
        self.set(id, inode);
        Some(())
    }

    /// A name showed an inode: it must be that one, or one not seen yet.
    fn see(&mut self, place: Place, shown: &Shown) -> Option<()> {
        let (id, inode) = self.find(place)?;
        if inode.wire_kind() != shown.kind {
            return None;
        }
        self.identify(id, shown.inode)
    }

    /// `id` turned out to have this number.
    fn identify(&mut self, id: Id, number: InodeNumber) -> Option<()> {
        if id == Id::Number(number) {
            return Some(());
        }
        if matches!(id, Id::Number(_)) || self.inode(Id::Number(number)).is_some() {
            return None;
        }
        let inode = self.inode(id)?.clone();
        self.remove(id);
        self.set(Id::Number(number), inode);
        let holders: Vec<Id> = (self.inodes())
            .filter(|(_, inode)| match &inode.kind {
                Kind::Directory { entries, parent } => {
                    *parent == id || entries.values().any(|entry| *entry == id)
                }
                _ => false,
            })
            .map(|(holder, _)| holder)
            .collect();
        for holder in holders {
            self.change(holder, |inode| {
                if let Kind::Directory { entries, parent } = &mut inode.kind {
                    let seen = entries.values_mut().chain([parent]).filter(|entry| **entry == id);
                    seen.for_each(|entry| *entry = Id::Number(number));
                }
            });
        }
        Some(())
    }

    fn make(
        &mut self,
        place: Place,
        inode: Inode,
        shown: Option<&Shown>,
        context: &Context<'_>,
    ) -> Option<()> {
        let id = self.add(inode, shown, context)?;
        self.put(place, id);
        Some(())
    }

    /// A new inode, which no name leads to yet.
    fn add(&mut self, inode: Inode, shown: Option<&Shown>, context: &Context<'_>) -> Option<Id> {
        let id = shown.map_or(Id::Unseen(context.serial), |shown| Id::Number(shown.inode));
        let is_used = shown.is_some_and(|shown| context.used.contains(&shown.inode));
        if is_used || self.inode(id).is_some() {
            return None;
        }
        self.set(id, inode);
        Some(id)
    }

    fn put(&mut self, place: Place, id: Id) {
        self.change(Id::Number(place.directory), |directory| {
            directory.modified = None;
            if let Kind::Directory { entries, .. } = &mut directory.kind {
                entries.insert(place.label, id);
            }
        });
    }

    /// Takes a name away; what has none left may live on while somebody has it open.
    fn take(&mut self, place: Place) {
        let Some((id, _)) = self.find(place) else { return };
        self.change(Id::Number(place.directory), |directory| {
            directory.modified = None;
            if let Kind::Directory { entries, .. } = &mut directory.kind {
                entries.remove(&place.label);
            }
        });
        self.change(id, |inode| inode.links -= 1);
    }

    fn rename(&mut self, from: Place, to: Place) {
        let Some((source, _)) = self.find(from) else { return };
        if self.find(to).is_some_and(|(target, _)| target == source) {
            return;
        }
        self.take(to);
        self.change(Id::Number(from.directory), |directory| {
            directory.modified = None;
            if let Kind::Directory { entries, .. } = &mut directory.kind {
                entries.remove(&from.label);
            }
        });
        self.put(to, source);
        self.change(source, |inode| {
            if let Kind::Directory { parent, .. } = &mut inode.kind {
                *parent = Id::Number(to.directory);
            }
        });
    }

    /// Two names change places.
    fn exchange(&mut self, from: Place, to: Place) {
        let (Some((source, _)), Some((target, _))) = (self.find(from), self.find(to)) else {
            return;
        };
        if source == target {
            return;
        }
        for (place, id) in [(from, target), (to, source)] {
            self.put(place, id);
            self.change(id, |inode| {
                if let Kind::Directory { parent, .. } = &mut inode.kind {
                    *parent = Id::Number(place.directory);
                }
            });
        }
    }

    /// Part of a listing: what there is between two cookies, at one moment.
    fn list_page(&mut self, directory: InodeNumber, page: &Page) -> Option<()> {
        let entries = self.entries(directory)?.clone();
        let inside = |label: &Label| page.after < label.cookie() && label.cookie() <= page.until;
        let expected: Vec<_> = entries.iter().filter(|(label, _)| inside(label)).collect();
        if expected.len() != page.entries.len() {
            return None;
        }
        for (Listed { label, inode, kind }, (expected, id)) in page.entries.iter().zip(expected) {
            if label != expected || self.inode(*id)?.wire_kind() != *kind {
                return None;
            }
            self.identify(*id, *inode)?;
        }
        Some(())
    }

    fn list(&mut self, directory: InodeNumber, reply: Option<&Reply>) -> Option<()> {
        let Some(Reply::Entries(listed)) = reply else { return Some(()) };
        let entries = self.entries(directory)?.clone();
        if entries.len() != listed.len() {
            return None;
        }
        for (Listed { label, inode, kind }, (expected, id)) in listed.iter().zip(&entries) {
            if label != expected || self.inode(*id)?.wire_kind() != *kind {
                return None;
            }
            self.identify(*id, *inode)?;
        }
        Some(())
    }
}

/// Bytes of a write that may be visible before the rest: those in the head, if it begins there.
pub(super) fn first_part(offset: u64, len: u64) -> u64 {
    match ringfs_wire::HEAD_SIZE.saturating_sub(offset) {
        0 => len,
        room => room.min(len),
    }
}
