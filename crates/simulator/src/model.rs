//! The reference model: one file system in memory, every operation one atomic step.
//!
//! A model is a value: cheap to clone, compared by its hash. It answers two questions about an
//! operation: with which errors must (or may) it fail here, and what is the model after it. An
//! inode whose creation had an unknown outcome has no number until some result shows it.
//! Deliberately lacks permissions, and times other than those set by hand.

mod effect;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use ringfs_wire::{Errno, InodeNumber, InodeType};

use crate::content::{Content, Tag};
use crate::operation::{Key, Label, Operation, Outcome, Place, Reply, Shown};

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
    /// It never had a name, and may get its first one.
    pub(crate) is_nameless: bool,
    pub(crate) xattrs: BTreeMap<Key, Tag>,
    /// Seconds, while they are what a caller set.
    pub(crate) accessed: Option<u32>,
    /// The same, or [`MOVED`].
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
    /// A disk was full.
    pub(crate) lacked_space: bool,
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

/// A time that a write has moved to its own: later than any that a caller sets.
pub(crate) const MOVED: u32 = u32::MAX;
/// Callers set times before this second.
pub(crate) const SET_MAX: u32 = 1 << 30;
/// The mode of the root of a new cluster.
const ROOT_MODE: u32 = 0o755;
/// Names that lead to a directory beside those of its subdirectories: its own, and `.`.
const OWN_LINKS: u32 = 2;

impl Inode {
    pub(crate) fn new(kind: Kind, mode: u32) -> Self {
        let xattrs = BTreeMap::new();
        Self { kind, mode, links: 1, is_nameless: false, xattrs, accessed: None, modified: None }
    }

    /// The same, before it has a name.
    fn without_name(self) -> Self {
        Self { links: 0, is_nameless: true, ..self }
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
        if *outcome == Outcome::Failed(Errno::ENOSPC) {
            let may_be = context.lacked_space && operation.needs_space();
            return may_be.then(|| self.without_space(operation));
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
        shown.kind == inode.wire_kind()
            && shown.mode == inode.mode
            && shown.links == links
            && shown.size == size
            && admits_time(inode.accessed, shown.accessed)
            && admits_time(inode.modified, shown.modified)
    }
}

/// Whether a time that is known like this may be shown like that.
pub(crate) fn admits_time(known: Option<u32>, shown: (i64, u32)) -> bool {
    match known {
        None => true,
        Some(MOVED) => shown.0 >= i64::from(SET_MAX),
        Some(seconds) => shown == (i64::from(seconds), 0),
    }
}

/// How many separate moments an operation with this outcome is seen at.
pub(crate) fn stages(operation: &Operation, outcome: &Outcome) -> usize {
    match (operation, outcome) {
        (Operation::Lookup { .. } | Operation::Create { .. }, Outcome::Done(_)) => 2,
        (Operation::ListPages { .. }, Outcome::Done(Reply::Pages(pages))) => pages.len(),
        (Operation::Write { offset, len, .. }, Outcome::Done(_)) => {
            1 + usize::from(effect::first_part(*offset, *len) < *len)
        }
        _ => 1,
    }
}

/// The same for one whose outcome is unknown: it may have ended after any of them.
pub(crate) fn unknown_stages(operation: &Operation) -> usize {
    match operation {
        Operation::Write { offset, len, .. } => {
            1 + usize::from(effect::first_part(*offset, *len) < *len)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
