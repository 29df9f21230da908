//! With which errors the model refuses an operation.

use ringfs_wire::{Errno, InodeNumber, RenameMode, XattrMode};

use super::{Id, Kind, Model, Refusal};
use crate::operation::{Operation, Place};

/// A missing inode is told as one of these.
const GONE: [Errno; 2] = [Errno::ENOENT, Errno::ESTALE];

impl Model {
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
                self.refuse_create(*place, *exclusive, &mut errors);
            }
            Operation::MakeDirectory { place, .. } | Operation::Symlink { place, .. } => {
                self.refuse_new(*place, &mut errors);
            }
            Operation::Link { inode, place } => {
                self.refuse_new(*place, &mut errors);
                match self.inode(Id::Number(*inode)) {
                    Some(inode) if inode.links > 0 || (inode.is_nameless && held) => {}
                    // It lives as long as anybody has it open.
                    Some(inode) if inode.is_nameless && errors.is_empty() => {
                        return Refusal::Perhaps(GONE.into());
                    }
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
            Operation::RemoveDirectory { place } => {
                self.refuse_remove_directory(*place, &mut errors);
            }
            Operation::CreateNameless { directory, .. } => {
                self.refuse_parent(*directory, &mut errors);
            }
            Operation::Rename { from, to, mode: RenameMode::Exchange } => {
                self.refuse_exchange(*from, *to, &mut errors);
            }
            Operation::Rename { from, to, mode } => {
                self.refuse_rename(*from, *to, *mode == RenameMode::NoReplace, &mut errors);
            }
            Operation::SyncAll | Operation::Close { .. } => {}
            Operation::Lock { inode, .. } | Operation::Unlock { inode, .. } => {
                return self.refuse_lock(*inode, held);
            }
            Operation::SetXattr { inode, .. }
            | Operation::GetXattr { inode, .. }
            | Operation::ListXattrs { inode }
            | Operation::RemoveXattr { inode, .. } => {
                return self.refuse_xattr(*inode, operation, held);
            }
            _ => match operation.inode().map(|inode| self.inode(Id::Number(inode))) {
                Some(None) => errors.extend(GONE),
                Some(Some(inode)) if inode.links == 0 && !held => {
                    return Refusal::Perhaps(GONE.into());
                }
                _ => {}
            },
        }
        if errors.is_empty() { Refusal::Never } else { Refusal::Always(errors) }
    }

    fn refuse_create(&self, place: Place, exclusive: bool, errors: &mut Vec<Errno>) {
        self.refuse_parent(place.directory, errors);
        match self.find(place).map(|(_, inode)| &inode.kind) {
            Some(_) if exclusive => errors.push(Errno::EEXIST),
            Some(Kind::Directory { .. }) => errors.extend([Errno::EISDIR, Errno::EEXIST]),
            Some(Kind::Symlink(_)) => errors.extend([Errno::ELOOP, Errno::EEXIST]),
            Some(Kind::File(_)) | None => {}
        }
    }

    fn refuse_remove_directory(&self, place: Place, errors: &mut Vec<Errno>) {
        match self.find(place).map(|(_, inode)| &inode.kind) {
            None => errors.push(Errno::ENOENT),
            Some(Kind::Directory { entries, .. }) if entries.is_empty() => {}
            Some(Kind::Directory { .. }) => errors.push(Errno::ENOTEMPTY),
            Some(_) => errors.push(Errno::ENOTDIR),
        }
    }

    /// Who holds which locks is judged elsewhere.
    fn refuse_lock(&self, inode: InodeNumber, held: bool) -> Refusal {
        let errors = GONE.into_iter().chain([Errno::EAGAIN]);
        match self.inode(Id::Number(inode)) {
            Some(inode) if inode.links > 0 || held => Refusal::Perhaps(vec![Errno::EAGAIN]),
            _ => Refusal::Perhaps(errors.collect()),
        }
    }

    /// A removed directory that is still used has no extended attributes, through a mount.
    fn refuse_xattr(&self, inode: InodeNumber, operation: &Operation, held: bool) -> Refusal {
        let gone = GONE.into_iter().chain([Errno::ENODATA]);
        let Some(found) = self.inode(Id::Number(inode)) else {
            return Refusal::Always(gone.collect());
        };
        let has = |key| found.xattrs.contains_key(key);
        let error = match operation {
            Operation::SetXattr { key, mode: XattrMode::Create, .. } if has(key) => {
                Some(Errno::EEXIST)
            }
            Operation::SetXattr { key, mode: XattrMode::Replace, .. }
            | Operation::GetXattr { key, .. }
            | Operation::RemoveXattr { key, .. }
                if !has(key) =>
            {
                Some(Errno::ENODATA)
            }
            _ => None,
        };
        let is_unsure = found.links == 0 && !held;
        match error {
            None if is_unsure => Refusal::Perhaps(gone.collect()),
            None => Refusal::Never,
            Some(errno) if is_unsure => Refusal::Always(gone.chain([errno]).collect()),
            Some(errno) => Refusal::Always(vec![errno]),
        }
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

    fn refuse_exchange(&self, from: Place, to: Place, errors: &mut Vec<Errno>) {
        self.refuse_parent(to.directory, errors);
        let (source, target) = (self.find(from), self.find(to));
        if source.is_none() || target.is_none() {
            errors.push(Errno::ENOENT);
        }
        for (moved, place) in [(source, to), (target, from)] {
            if let Some((id, _)) = moved
                && self.is_directory(id)
                && self.is_below(Id::Number(place.directory), id)
            {
                errors.push(Errno::EINVAL);
            }
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
}
