//! The reference model: one file system in memory, every operation one atomic step.
//!
//! A model is a value: cheap to clone, compared by its hash. It answers two questions about an
//! operation: with which errors must (or may) it fail here, and what is the model after it. An
//! inode whose creation had an unknown outcome has no number until some result shows it.
//! Deliberately lacks permissions, and times other than those set by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use ringfs_wire::{Errno, InodeNumber, InodeType};

use crate::content::{Content, Mark, Tag};
use crate::operation::{Label, Listed, Operation, Outcome, Place, Reply, Shown};

/// What the model calls an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Id {
    /// Its number is known.
    Number(InodeNumber),
    /// Made by the operation with this serial, whose result nobody saw.
    Unseen(u64),
}

/// What an inode is, and what only that kind has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    File(Content),
    Directory { entries: BTreeMap<Label, Id>, parent: Id },
    Symlink(Tag),
}

/// One inode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Inode {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    /// Names of it.
    pub(crate) links: u32,
    /// Seconds, while they are what a caller set.
    pub(crate) accessed: Option<u32>,
    /// Seconds, while they are what a caller set.
    pub(crate) modified: Option<u32>,
}

#[derive(Clone, Debug)]
struct Hashed {
    inode: Rc<Inode>,
    hash: u64,
}

/// A file system at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    inodes: BTreeMap<Id, Hashed>,
    hash: u64,
}

/// What an operation's effect depends on beside the model.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The caller has the inode open.
    pub(crate) held: bool,
    /// Names what the operation makes if nobody saw the number.
    pub(crate) serial: u64,
    /// Numbers seen before: nothing new may have one of them.
    pub(crate) used: &'a BTreeSet<InodeNumber>,
}

/// With which errors an operation fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It succeeds.
    Never,
    /// It fails, with one of these.
    Always(Vec<Errno>),
    /// It may fail with one of these.
    Perhaps(Vec<Errno>),
}

/// The mode of the root of a new cluster.
const ROOT_MODE: u32 = 0o755;
/// Names that lead to a directory beside those of its subdirectories: its own, and `.`.
const OWN_LINKS: u32 = 2;
/// A missing inode is told as one of these.
const GONE: [Errno; 2] = [Errno::ENOENT, Errno::ESTALE];

impl Inode {
    fn new(kind: Kind, mode: u32) -> Self {
        Self { kind, mode, links: 1, accessed: None, modified: None }
    }

    /// What the wire calls its kind.
    pub(crate) fn wire_kind(&self) -> InodeType {
        match self.kind {
            Kind::File(_) => InodeType::File,
            Kind::Directory { .. } => InodeType::Directory,
            Kind::Symlink(_) => InodeType::Symlink,
        }
    }
}

impl Model {
    /// A new cluster: a root and nothing in it.
    pub(crate) fn new() -> Self {
        let root = Id::Number(InodeNumber::ROOT);
        let kind = Kind::Directory { entries: BTreeMap::new(), parent: root };
        let mut model = Self { inodes: BTreeMap::new(), hash: 0 };
        model.set(root, Inode::new(kind, ROOT_MODE));
        model
    }

    /// Equal models have equal hashes; unequal ones almost never do.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// The inode called `id`.
    pub(crate) fn inode(&self, id: Id) -> Option<&Inode> {
        self.inodes.get(&id).map(|hashed| &*hashed.inode)
    }

    /// Every inode.
    pub(crate) fn inodes(&self) -> impl Iterator<Item = (Id, &Inode)> {
        self.inodes.iter().map(|(id, hashed)| (*id, &*hashed.inode))
    }

    /// Puts an inode in place of what `id` was.
    pub(crate) fn set(&mut self, id: Id, inode: Inode) {
        self.remove(id);
        let mut hasher = DefaultHasher::new();
        (id, &inode).hash(&mut hasher);
        let hash = hasher.finish();
        self.hash = self.hash.wrapping_add(hash);
        self.inodes.insert(id, Hashed { inode: Rc::new(inode), hash });
    }

    /// Forgets an inode.
    fn remove(&mut self, id: Id) {
        if let Some(old) = self.inodes.remove(&id) {
            self.hash = self.hash.wrapping_sub(old.hash);
        }
    }

    /// Changes one inode, which must exist.
    pub(crate) fn change(&mut self, id: Id, change: impl FnOnce(&mut Inode)) {
        let mut inode = self.inode(id).expect("the caller has found the inode").clone();
        change(&mut inode);
        self.set(id, inode);
    }

    fn entries(&self, directory: InodeNumber) -> Option<&BTreeMap<Label, Id>> {
        match &self.inode(Id::Number(directory))?.kind {
            Kind::Directory { entries, .. } => Some(entries),
            _ => None,
        }
    }

    /// What `place` names.
    pub(crate) fn find(&self, place: Place) -> Option<(Id, &Inode)> {
        let id = *self.entries(place.directory)?.get(&place.label)?;
        Some((id, self.inode(id).expect("names lead to inodes")))
    }

    fn is_directory(&self, id: Id) -> bool {
        matches!(self.inode(id), Some(Inode { kind: Kind::Directory { .. }, .. }))
    }

    /// How this model would refuse the operation. `held`: the caller has the inode open.
    pub(crate) fn refusal(&self, operation: &Operation, held: bool) -> Refusal {
        let mut errors = Vec::new();
        match operation {
            Operation::Lookup { place } => {
                self.refuse_parent(place.directory, &mut errors);
                if self.find(*place).is_none() {
                    errors.push(Errno::ENOENT);
                }
            }
            Operation::Create { place, exclusive, .. } => {
                self.refuse_parent(place.directory, &mut errors);
                match self.find(*place).map(|(_, inode)| &inode.kind) {
                    Some(_) if *exclusive => errors.push(Errno::EEXIST),
                    Some(Kind::Directory { .. }) => errors.extend([Errno::EISDIR, Errno::EEXIST]),
                    Some(Kind::Symlink(_)) => errors.extend([Errno::ELOOP, Errno::EEXIST]),
                    Some(Kind::File(_)) | None => {}
                }
            }
            Operation::MakeDirectory { place, .. } | Operation::Symlink { place, .. } => {
                self.refuse_new(*place, &mut errors);
            }
            Operation::Link { inode, place } => {
                self.refuse_new(*place, &mut errors);
                match self.inode(Id::Number(*inode)) {
                    Some(inode) if inode.links > 0 => {}
                    _ => errors.extend(GONE),
                }
            }
            Operation::Unlink { place } => match self.find(*place) {
                None => errors.push(Errno::ENOENT),
                Some((id, _)) if self.is_directory(id) => {
                    errors.extend([Errno::EISDIR, Errno::EPERM]);
                }
                Some(_) => {}
            },
            Operation::RemoveDirectory { place } => match self.find(*place) {
                None => errors.push(Errno::ENOENT),
                Some((_, Inode { kind: Kind::Directory { entries, .. }, .. })) => {
                    if !entries.is_empty() {
                        errors.push(Errno::ENOTEMPTY);
                    }
                }
                Some(_) => errors.push(Errno::ENOTDIR),
            },
            Operation::Rename { from, to, no_replace } => {
                self.refuse_rename(*from, *to, *no_replace, &mut errors);
            }
            Operation::SyncAll | Operation::Close { .. } => {}
            Operation::ReadDirectory { directory: inode }
            | Operation::SyncDirectory { directory: inode }
            | Operation::ReadLink { inode }
            | Operation::Stat { inode }
            | Operation::Chmod { inode, .. }
            | Operation::SetTimes { inode, .. }
            | Operation::Open { inode }
            | Operation::Truncate { inode, .. }
            | Operation::Read { inode, .. }
            | Operation::Write { inode, .. }
            | Operation::Append { inode, .. }
            | Operation::SyncFile { inode } => match self.inode(Id::Number(*inode)) {
                None => errors.extend(GONE),
                Some(inode) if inode.links == 0 && !held => return Refusal::Perhaps(GONE.into()),
                Some(_) => {}
            },
        }
        if errors.is_empty() { Refusal::Never } else { Refusal::Always(errors) }
    }

    fn refuse_parent(&self, directory: InodeNumber, errors: &mut Vec<Errno>) {
        if self.inode(Id::Number(directory)).is_none_or(|inode| inode.links == 0) {
            errors.extend(GONE);
        }
    }

    fn refuse_new(&self, place: Place, errors: &mut Vec<Errno>) {
        self.refuse_parent(place.directory, errors);
        if self.find(place).is_some() {
            errors.push(Errno::EEXIST);
        }
    }

    fn refuse_rename(&self, from: Place, to: Place, no_replace: bool, errors: &mut Vec<Errno>) {
        let Some((source, _)) = self.find(from) else {
            // The new name may be looked at first.
            errors.push(Errno::ENOENT);
            if no_replace && self.find(to).is_some() {
                errors.push(Errno::EEXIST);
            }
            return;
        };
        self.refuse_parent(to.directory, errors);
        if self.is_directory(source) && self.is_below(Id::Number(to.directory), source) {
            errors.push(Errno::EINVAL);
        }
        let Some((target, replaced)) = self.find(to) else { return };
        if no_replace {
            errors.push(Errno::EEXIST);
        }
        if source == target {
            return;
        }
        match (self.is_directory(source), &replaced.kind) {
            (true, Kind::Directory { entries, .. }) => {
                if !entries.is_empty() {
                    errors.extend([Errno::ENOTEMPTY, Errno::EEXIST]);
                }
            }
            (true, _) => errors.push(Errno::ENOTDIR),
            (false, Kind::Directory { entries, .. }) => {
                errors.push(Errno::EISDIR);
                if !entries.is_empty() {
                    errors.push(Errno::ENOTEMPTY);
                }
            }
            (false, _) => {}
        }
    }

    /// Whether `id` is `ancestor` or lies in the tree below it.
    fn is_below(&self, mut id: Id, ancestor: Id) -> bool {
        loop {
            if id == ancestor {
                return true;
            }
            match self.inode(id).map(|inode| &inode.kind) {
                Some(Kind::Directory { parent, .. }) if *parent != id => id = *parent,
                _ => return false,
            }
        }
    }

    /// The model after one stage of an operation that ended with `outcome`, or nothing when it
    /// cannot have ended like that here.
    pub(crate) fn after(
        &self,
        operation: &Operation,
        stage: usize,
        outcome: &Outcome,
        context: &Context<'_>,
    ) -> Option<Self> {
        if stage > 0 && matches!(operation, Operation::Lookup { .. } | Operation::Create { .. }) {
            // The attributes shown are those of a later moment.
            let Outcome::Done(Reply::Attributes(shown)) = outcome else { return None };
            let id = Id::Number(shown.inode);
            return self.shows(self.inode(id)?, shown).then(|| self.clone());
        }
        let refusal = self.refusal(operation, context.held);
        match (outcome, refusal) {
            (Outcome::Failed(errno), Refusal::Always(errors) | Refusal::Perhaps(errors)) => {
                errors.contains(errno).then(|| self.clone())
            }
            (Outcome::Failed(_), Refusal::Never) => None,
            (Outcome::Done(_) | Outcome::Unknown(_), Refusal::Always(_)) => None,
            (Outcome::Done(reply), _) => self.perform(operation, stage, Some(reply), context),
            (Outcome::Unknown(_), _) => self.perform(operation, stage, None, context),
        }
    }

    /// Whether a client may have been shown this of an inode.
    fn shows(&self, inode: &Inode, shown: &Shown) -> bool {
        let (links, size) = match &inode.kind {
            Kind::File(content) => (inode.links, content.size()),
            Kind::Symlink(tag) => {
                (inode.links, crate::operation::symlink_target(*tag).len() as u64)
            }
            Kind::Directory { entries, .. } => {
                let below = entries.values().filter(|id| self.is_directory(**id)).count() as u32;
                let links = if inode.links == 0 { 0 } else { OWN_LINKS + below };
                (links, entries.len() as u64)
            }
        };
        let time = |known: Option<u32>, seen: (i64, u32)| {
            known.is_none_or(|seconds| seen == (i64::from(seconds), 0))
        };
        shown.kind == inode.wire_kind()
            && shown.mode == inode.mode
            && shown.links == links
            && shown.size == size
            && time(inode.accessed, shown.accessed)
            && time(inode.modified, shown.modified)
    }

    /// Carries out an operation that succeeds; nothing if it cannot have given `reply`.
    fn perform(
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
                next.change(Id::Number(inode), |inode| inode.links += 1);
            }
            Operation::Rename { from, to, .. } => next.rename(from, to),
            Operation::ReadDirectory { directory } => next.list(directory, reply)?,
            Operation::ReadLink { inode } => {
                let Kind::Symlink(tag) = self.inode(Id::Number(inode))?.kind else { return None };
                let expected = Reply::Target(crate::operation::symlink_target(tag));
                if reply.is_some_and(|reply| *reply != expected) {
                    return None;
                }
            }
            Operation::SyncAll
            | Operation::Close { .. }
            | Operation::SyncFile { .. }
            | Operation::SyncDirectory { .. } => {}
            Operation::Open { inode }
            | Operation::Stat { inode }
            | Operation::Chmod { inode, .. }
            | Operation::SetTimes { inode, .. }
            | Operation::Truncate { inode, .. }
            | Operation::Read { inode, .. }
            | Operation::Write { inode, .. }
            | Operation::Append { inode, .. } => {
                let id = Id::Number(inode);
                next.touch(id, operation, stage, reply)?;
                if let Some(shown) = shown
                    && !next.shows(next.inode(id)?, shown)
                {
                    return None;
                }
            }
        }
        Some(next)
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
                    content.blur(offset, len, Mark::write(tag));
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
                inode.modified = None;
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
        let id = shown.map_or(Id::Unseen(context.serial), |shown| Id::Number(shown.inode));
        let is_used = shown.is_some_and(|shown| context.used.contains(&shown.inode));
        if is_used || self.inode(id).is_some() {
            return None;
        }
        self.set(id, inode);
        self.put(place, id);
        Some(())
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
fn first_part(offset: u64, len: u64) -> u64 {
    match ringfs_wire::HEAD_SIZE.saturating_sub(offset) {
        0 => len,
        room => room.min(len),
    }
}

/// How many separate moments an operation with this outcome is seen at.
pub(crate) fn stages(operation: &Operation, outcome: &Outcome) -> usize {
    match (operation, outcome) {
        (Operation::Lookup { .. } | Operation::Create { .. }, Outcome::Done(_)) => 2,
        (Operation::Write { offset, len, .. }, Outcome::Done(_)) => {
            1 + usize::from(first_part(*offset, *len) < *len)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
