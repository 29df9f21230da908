//! Names of one simulated disk: directories, what they lead to, and what a power cut leaves.
//!
//! Invariant: `changes` holds, in order, every change of names since the last sync of a directory
//! that it touches. Applied to the durable names they give the current ones. A rename between two
//! directories is one change and never half done.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path};
use std::time::Duration;

use super::super::random::Generator;
use super::file::FileData;
use crate::disk::FileKind;

/// An object of the disk; never used twice.
pub(super) type ObjectId = u64;

pub(super) const ROOT: ObjectId = 1;

type Names = BTreeMap<OsString, ObjectId>;

pub(super) struct Object {
    pub(super) kind: ObjectKind,
    pub(super) mode: u32,
    pub(super) modified: Duration,
    pub(super) handles: u32,
    pub(super) locked_by: Option<u64>,
    /// Whether a current name leads here.
    named: bool,
    /// Whether a durable name leads here.
    named_durably: bool,
}

pub(super) enum ObjectKind {
    File(Box<FileData>),
    Directory { names: Names, durable: Names },
}

impl Object {
    fn new(kind: ObjectKind, mode: u32, modified: Duration) -> Self {
        Object {
            kind,
            mode,
            modified,
            handles: 0,
            locked_by: None,
            named: true,
            named_durably: false,
        }
    }

    pub(super) fn file_kind(&self) -> FileKind {
        match &self.kind {
            ObjectKind::File(_) => FileKind::File,
            ObjectKind::Directory { .. } => FileKind::Directory,
        }
    }

    /// Whether a current name or a handle leads here, so that its space is in use.
    pub(super) fn in_use(&self) -> bool {
        self.named || self.handles > 0
    }
}

/// A change of names: what is taken away and what is put, each at most once.
struct Change {
    sequence: u64,
    remove: Option<(ObjectId, OsString)>,
    insert: Option<(ObjectId, OsString, ObjectId)>,
}

impl Change {
    fn directories(&self) -> impl Iterator<Item = ObjectId> {
        let removed = self.remove.as_ref().map(|(directory, _)| *directory);
        removed.into_iter().chain(self.insert.as_ref().map(|(directory, ..)| *directory))
    }
}

/// All objects and names of a disk.
pub(super) struct Tree {
    objects: BTreeMap<ObjectId, Object>,
    next_object: ObjectId,
    changes: Vec<Change>,
    sequence: u64,
}

/// The errno of a failed operation on names.
pub(super) type Errno = i32;

impl Tree {
    pub(super) fn new() -> Self {
        let kind = ObjectKind::Directory { names: Names::new(), durable: Names::new() };
        let mut root = Object::new(kind, 0o755, Duration::ZERO);
        root.named_durably = true;
        Tree {
            objects: BTreeMap::from([(ROOT, root)]),
            next_object: ROOT + 1,
            changes: Vec::new(),
            sequence: 0,
        }
    }

    pub(super) fn object(&self, id: ObjectId) -> Result<&Object, Errno> {
        self.objects.get(&id).ok_or(libc::ENOENT)
    }

    pub(super) fn object_mut(&mut self, id: ObjectId) -> Result<&mut Object, Errno> {
        self.objects.get_mut(&id).ok_or(libc::ENOENT)
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    pub(super) fn file(&mut self, id: ObjectId) -> Result<&mut FileData, Errno> {
        match &mut self.object_mut(id)?.kind {
            ObjectKind::File(data) => Ok(data),
            ObjectKind::Directory { .. } => Err(libc::EISDIR),
        }
    }

    fn names(&self, directory: ObjectId) -> Result<&Names, Errno> {
        match &self.object(directory)?.kind {
            ObjectKind::Directory { names, .. } => Ok(names),
            ObjectKind::File(_) => Err(libc::ENOTDIR),
        }
    }

    pub(super) fn find(&self, path: &Path) -> Result<ObjectId, Errno> {
        let mut id = ROOT;
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => id = *self.names(id)?.get(name).ok_or(libc::ENOENT)?,
                Component::ParentDir | Component::Prefix(_) => return Err(libc::EINVAL),
            }
        }
        Ok(id)
    }

    /// The directory that holds the last name of `path`, and that name.
    fn find_parent<'a>(&self, path: &'a Path) -> Result<(ObjectId, &'a OsStr), Errno> {
        let name = path.file_name().ok_or(libc::EINVAL)?;
        let parent = self.find(path.parent().unwrap_or(Path::new("/")))?;
        self.names(parent)?;
        Ok((parent, name))
    }

    pub(super) fn list(&self, id: ObjectId) -> Result<Vec<(OsString, FileKind)>, Errno> {
        self.names(id)?
            .iter()
            .map(|(name, id)| Ok((name.clone(), self.object(*id)?.file_kind())))
            .collect()
    }

    pub(super) fn create(
        &mut self,
        path: &Path,
        kind: FileKind,
        mode: u32,
        now: Duration,
    ) -> Result<ObjectId, Errno> {
        let (parent, name) = self.find_parent(path)?;
        if self.names(parent)?.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let kind = match kind {
            FileKind::Directory => {
                ObjectKind::Directory { names: Names::new(), durable: Names::new() }
            }
            _ => ObjectKind::File(Box::default()),
        };
        let id = self.next_object;
        self.next_object += 1;
        self.objects.insert(id, Object::new(kind, mode, now));
        self.change(None, Some((parent, name.to_owned(), id)));
        Ok(id)
    }

    pub(super) fn remove(&mut self, path: &Path, kind: FileKind) -> Result<(), Errno> {
        let (parent, name) = self.find_parent(path)?;
        let id = *self.names(parent)?.get(name).ok_or(libc::ENOENT)?;
        match (self.object(id)?.file_kind(), kind) {
            (FileKind::Directory, FileKind::File) => return Err(libc::EISDIR),
            (FileKind::File, FileKind::Directory) => return Err(libc::ENOTDIR),
            (FileKind::Directory, _) if !self.names(id)?.is_empty() => {
                return Err(libc::ENOTEMPTY);
            }
            _ => {}
        }
        self.change(Some((parent, name.to_owned())), None);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let (from_parent, from_name) = self.find_parent(from)?;
        let (to_parent, to_name) = self.find_parent(to)?;
        let id = *self.names(from_parent)?.get(from_name).ok_or(libc::ENOENT)?;
        let directory = self.object(id)?.file_kind() == FileKind::Directory;
        if directory && to.starts_with(from) && to != from {
            return Err(libc::EINVAL);
        }
        if let Some(old) = self.names(to_parent)?.get(to_name) {
            if *old == id {
                return Ok(());
            }
            match (directory, self.object(*old)?.file_kind() == FileKind::Directory) {
                (true, false) => return Err(libc::ENOTDIR),
                (false, true) => return Err(libc::EISDIR),
                (true, true) if !self.names(*old)?.is_empty() => return Err(libc::ENOTEMPTY),
                _ => {}
            }
        }
        let remove = Some((from_parent, from_name.to_owned()));
        self.change(remove, Some((to_parent, to_name.to_owned(), id)));
        Ok(())
    }

    fn change(
        &mut self,
        remove: Option<(ObjectId, OsString)>,
        insert: Option<(ObjectId, OsString, ObjectId)>,
    ) {
        self.sequence += 1;
        let change = Change { sequence: self.sequence, remove, insert };
        self.apply(&change, false);
        self.changes.push(change);
    }

    /// Applies a change to the current or to the durable names.
    fn apply(&mut self, change: &Change, durably: bool) {
        let mut lost = Vec::new();
        if let Some((directory, name)) = &change.remove {
            lost.extend(self.names_mut(*directory, durably).and_then(|names| names.remove(name)));
        }
        if let Some((directory, name, id)) = &change.insert {
            lost.extend(
                self.names_mut(*directory, durably)
                    .and_then(|names| names.insert(name.clone(), *id)),
            );
        }
        for id in lost {
            self.set_named(id, durably, false);
        }
        if let Some((_, _, id)) = &change.insert {
            self.set_named(*id, durably, true);
        }
    }

    fn names_mut(&mut self, directory: ObjectId, durably: bool) -> Option<&mut Names> {
        match &mut self.objects.get_mut(&directory)?.kind {
            ObjectKind::Directory { names, durable } => Some(if durably { durable } else { names }),
            ObjectKind::File(_) => None,
        }
    }

    fn set_named(&mut self, id: ObjectId, durably: bool, named: bool) {
        if let Some(object) = self.objects.get_mut(&id) {
            if durably {
                object.named_durably = named;
            } else {
                object.named = named;
            }
        }
    }

    /// Forgets objects that nothing leads to and no power cut can bring back.
    fn collect(&mut self) {
        let pending: BTreeSet<ObjectId> = (self.changes.iter())
            .filter_map(|change| change.insert.as_ref().map(|(_, _, id)| *id))
            .collect();
        self.objects.retain(|id, object| {
            object.named || object.named_durably || object.handles > 0 || pending.contains(id)
        });
    }

    /// Notes the start of a sync of a directory.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Makes the names of `directory` durable as they were at `sequence`, with all that those
    /// changes rest on.
    pub(super) fn sync_directory(&mut self, directory: ObjectId, sequence: u64) {
        let mut wanted = BTreeSet::from([directory]);
        let mut keep = Vec::new();
        let mut commit = Vec::new();
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            let touched = change.directories().any(|directory| wanted.contains(&directory));
            if touched && change.sequence <= sequence {
                wanted.extend(change.directories());
                commit.push(change);
            } else {
                keep.push(change);
            }
        }
        keep.reverse();
        self.changes = keep;
        for change in commit.into_iter().rev() {
            self.apply(&change, true);
        }
        self.collect();
    }

    pub(super) fn close_all(&mut self) {
        for object in self.objects.values_mut() {
            object.handles = 0;
            object.locked_by = None;
            if let ObjectKind::File(data) = &mut object.kind {
                data.forget_syncs();
            }
        }
        self.collect();
    }

    /// Reduces names and contents to what a power cut leaves of them.
    pub(super) fn power_cut(&mut self, generator: &mut Generator) {
        // How likely a change ends its directory's surviving prefix: never, at once, or between.
        let stop_per_mille = [0, 1000, 500, 100][generator.below(4) as usize];
        let mut stopped = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            let stops = change.directories().any(|directory| stopped.contains(&directory))
                || generator.chance(stop_per_mille);
            if stops {
                stopped.extend(change.directories());
            } else {
                self.apply(&change, true);
            }
        }
        let mut reachable = BTreeSet::new();
        let mut open = vec![ROOT];
        while let Some(id) = open.pop() {
            let Some(object) = self.objects.get_mut(&id) else { continue };
            reachable.insert(id);
            object.named = true;
            object.named_durably = true;
            match &mut object.kind {
                ObjectKind::File(data) => data.power_cut(generator),
                ObjectKind::Directory { names, durable } => {
                    names.clone_from(durable);
                    open.extend(durable.values());
                }
            }
        }
        self.objects.retain(|id, _| reachable.contains(id));
    }
}
