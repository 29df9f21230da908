//! The POSIX rules of names and links, as checks and effects of [`Step`]s.
//!
//! A step is checked against the state, then turned into records in a transaction. Operations
//! whose steps all lie here run check and effect in one go; operations over several homes check
//! when they prepare and take effect when they are decided, with locks (the caller's business)
//! keeping what was checked true in between. Nothing here waits, sends or reads a clock.

use ringfs_wire::{
    Attributes, Errno, FilePermissions, Generation, HEAD_SIZE, InodeNumber, InodeType, Name,
    Status, Step, StepResult, Timestamp,
};
use xxhash_rust::xxh64::xxh64;

use crate::record::{COLLISION_BITS, Dentry, Inode, PendingCut, Record};
use crate::state::State;
use crate::store::Transaction;

/// Most names one inode may have.
pub const MAX_LINKS: u32 = 1 << 20;

/// Names whose hashes agree in 59 bits, at most.
const COLLISIONS: u64 = 1 << COLLISION_BITS;

/// First cookie of the entries that hash to `name`'s value: the top 59 bits of xxHash64 (seed 0)
/// above a 4-bit collision index. The top bit stays clear because programs see cookies as signed
/// offsets; values below 16 stay free for the start, `.` and `..`.
pub fn first_cookie(name: &Name) -> u64 {
    (xxh64(name.as_bytes(), 0) >> (COLLISION_BITS + 1)).max(1) << COLLISION_BITS
}

/// The entry of a directory under a name.
pub fn find(state: &State, directory: InodeNumber, name: &Name) -> Option<Dentry> {
    let first = first_cookie(name);
    let range = (directory, first)..(directory, first + COLLISIONS);
    state.dentries.range(range).find(|(_, entry)| entry.name == *name).map(
        |((_, cookie), entry)| Dentry {
            directory,
            cookie: *cookie,
            name: name.clone(),
            inode: entry.inode,
            kind: entry.kind,
        },
    )
}

/// Whether a directory has no entries.
pub fn is_empty(state: &State, directory: InodeNumber) -> bool {
    state.dentries.range((directory, 0)..=(directory, u64::MAX)).next().is_none()
}

/// The record of a directory that still has a name. `ENOENT` when it is gone, `ENOTDIR` when it is
/// something else.
pub fn directory(state: &State, inode: InodeNumber) -> Result<&Inode, Errno> {
    let found = state.inodes.get(&inode).ok_or(Errno::ENOENT)?;
    if found.attributes.kind != InodeType::Directory {
        return Err(Errno::ENOTDIR);
    }
    if found.attributes.links == 0 {
        return Err(Errno::ENOENT);
    }
    Ok(found)
}

/// Whether a step could take effect now. `Busy` says that the state is not what the coordinator
/// saw: it looks again.
pub fn check(state: &State, step: &Step) -> Result<(), Status> {
    match step {
        Step::PutName { directory: parent, name, replaces, .. } => {
            directory(state, *parent)?;
            match (find(state, *parent, name).map(|entry| entry.inode), replaces) {
                (None, None) => free_cookie(state, *parent, name).map(|_| ()),
                (Some(held), Some(expected)) if held == *expected => Ok(()),
                (Some(_), None) => Err(Errno::EEXIST.into()),
                _ => Err(Status::Busy),
            }
        }
        Step::TakeName { directory: parent, name, inode } => {
            directory(state, *parent)?;
            match find(state, *parent, name) {
                Some(entry) if entry.inode == *inode => Ok(()),
                _ => Err(Status::Busy),
            }
        }
        Step::AddLink { inode } => {
            let found = state.inodes.get(inode).ok_or(Errno::ENOENT)?;
            let Attributes { kind, links, .. } = found.attributes;
            match kind {
                InodeType::Directory => Err(Errno::EPERM.into()),
                _ if links == 0 && !found.was_never_named() => Err(Errno::ENOENT.into()),
                _ if links >= MAX_LINKS => Err(Errno::EMLINK.into()),
                _ => Ok(()),
            }
        }
        Step::DropLink { inode } => match linked(state, *inode)?.kind {
            InodeType::Directory => Err(Errno::EISDIR.into()),
            _ => Ok(()),
        },
        Step::DropDirectory { inode } => {
            directory(state, *inode)?;
            if is_empty(state, *inode) { Ok(()) } else { Err(Errno::ENOTEMPTY.into()) }
        }
        Step::Move { inode, .. } => linked(state, *inode).map(|_| ()),
        Step::CreateDirectory { .. } | Step::LockRenames {} => Ok(()),
    }
}

/// Adds the records of a checked step to a transaction. `referenced` tells whether a session holds
/// the inode: a nameless inode lives on while one does.
///
/// # Panics
/// When the step was not checked against this state: what it needs is missing.
pub fn execute(
    tx: &mut Transaction,
    step: &Step,
    result: StepResult,
    now: Timestamp,
    referenced: &dyn Fn(InodeNumber) -> bool,
) {
    match step {
        Step::PutName { directory, name, inode, kind, .. } => {
            put_name(tx, *directory, name, *inode, *kind, now);
        }
        Step::TakeName { directory, name, .. } => take_name(tx, *directory, name, now),
        Step::CreateDirectory { parent, name, permissions, chunk_size, xattrs, .. } => {
            let mut inode =
                new_inode(result.inode, InodeType::Directory, *permissions, *parent, now);
            inode.attributes.chunk_size = *chunk_size;
            inode.attributes.has_xattrs = !xattrs.is_empty();
            inode = inode.with_name(name.clone());
            tx.put(Record::PutInode { inode });
            for (name, value) in xattrs.clone() {
                tx.put(Record::PutXattr { inode: result.inode, name, value });
            }
        }
        Step::AddLink { inode } => change(tx, *inode, |inode| {
            inode.attributes.links += 1;
            inode.attributes.changed = now;
            inode.forget_namelessness();
        }),
        Step::DropLink { inode } => {
            change(tx, *inode, |inode| {
                inode.attributes.links -= 1;
                inode.attributes.changed = now;
            });
            reap(tx, *inode, referenced);
        }
        Step::DropDirectory { inode } => {
            change(tx, *inode, |inode| {
                inode.attributes.links = 0;
                inode.attributes.changed = now;
            });
            reap(tx, *inode, referenced);
        }
        Step::Move { inode, directory, name } => change(tx, *inode, |inode| {
            inode.attributes.changed = now;
            if inode.attributes.kind == InodeType::Directory {
                inode.attributes.parent = *directory;
                inode.rare.get_or_insert_default().name = Some(name.clone());
            }
        }),
        Step::LockRenames {} => {}
    }
}

/// Removes an inode that has neither name nor reference, and notes the chunks still to be cut.
pub fn reap(tx: &mut Transaction, inode: InodeNumber, referenced: &dyn Fn(InodeNumber) -> bool) {
    let gone = match tx.state().inodes.get(&inode) {
        Some(found) if found.attributes.links == 0 && !referenced(inode) => {
            found.attributes.clone()
        }
        _ => return,
    };
    tx.put(Record::DeleteInode { inode });
    if gone.reach > HEAD_SIZE {
        let cut = PendingCut {
            inode,
            generation: Generation(gone.generation.0 + 1),
            length: 0,
            reach: gone.reach,
            chunk_size: gone.chunk_size,
            final_cut: true,
        };
        tx.put(Record::PutCut { cut });
    }
}

/// A fresh inode with one name (directories: two links).
pub fn new_inode(
    inode: InodeNumber,
    kind: InodeType,
    permissions: FilePermissions,
    parent: InodeNumber,
    now: Timestamp,
) -> Inode {
    let attributes = Attributes {
        inode,
        kind,
        permissions,
        links: if kind == InodeType::Directory { 2 } else { 1 },
        device: 0,
        size: 0,
        generation: Generation(1),
        reach: 0,
        allocated: 0,
        chunk_size: ringfs_wire::CHUNK_SIZE,
        parent,
        accessed: now,
        modified: now,
        changed: now,
        created: now,
        has_xattrs: false,
    };
    Inode::new(attributes)
}

/// Accounts what the owners of chunks report to have freed by a cut; nothing where that was known
/// when the cut was decided, because no chunk is left.
pub fn account_cut(tx: &mut Transaction, cut: &PendingCut, freed: i64) {
    let is_left = tx.state().inodes.contains_key(&cut.inode);
    if is_left && freed != 0 && cut.length > HEAD_SIZE {
        change(tx, cut.inode, |inode| inode.attributes.account(freed));
    }
}

/// Rewrites an inode's record.
///
/// # Panics
/// When the inode does not exist.
pub fn change(tx: &mut Transaction, inode: InodeNumber, edit: impl FnOnce(&mut Inode)) {
    let found = tx.state().inodes.get(&inode).map(|found| (**found).clone());
    let mut found = found.expect("a checked step's inode exists");
    edit(&mut found);
    tx.put(Record::PutInode { inode: found });
}

fn linked(state: &State, inode: InodeNumber) -> Result<&Attributes, Status> {
    match state.inodes.get(&inode) {
        Some(found) if found.attributes.links > 0 => Ok(&found.attributes),
        _ => Err(Errno::ENOENT.into()),
    }
}

fn free_cookie(state: &State, directory: InodeNumber, name: &Name) -> Result<u64, Status> {
    let first = first_cookie(name);
    (first..first + COLLISIONS)
        .find(|cookie| !state.dentries.contains_key(&(directory, *cookie)))
        .ok_or(Errno::ENOSPC.into())
}

fn put_name(
    tx: &mut Transaction,
    directory: InodeNumber,
    name: &Name,
    inode: InodeNumber,
    kind: InodeType,
    now: Timestamp,
) {
    let replaced = find(&tx.state(), directory, name);
    let cookie = match &replaced {
        Some(entry) => entry.cookie,
        None => free_cookie(&tx.state(), directory, name).expect("checked: a cookie is free"),
    };
    let dentry = Dentry { directory, cookie, name: name.clone(), inode, kind };
    tx.put(Record::PutDentry { dentry });
    let lost = replaced.as_ref().map(|entry| entry.kind);
    change(tx, directory, |parent| {
        let attributes = &mut parent.attributes;
        attributes.links += u32::from(kind == InodeType::Directory);
        attributes.links -= u32::from(lost == Some(InodeType::Directory));
        attributes.size += u64::from(lost.is_none());
        touch(attributes, now);
    });
}

fn take_name(tx: &mut Transaction, directory: InodeNumber, name: &Name, now: Timestamp) {
    let entry = find(&tx.state(), directory, name).expect("checked: the name exists");
    tx.put(Record::DeleteDentry { directory, cookie: entry.cookie });
    change(tx, directory, |parent| {
        let attributes = &mut parent.attributes;
        attributes.links -= u32::from(entry.kind == InodeType::Directory);
        attributes.size -= 1;
        touch(attributes, now);
    });
}

fn touch(attributes: &mut Attributes, now: Timestamp) {
    attributes.modified = now;
    attributes.changed = now;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_cookies() {
        let hash = |name: &[u8]| first_cookie(&Name::new(name).unwrap()) >> COLLISION_BITS;
        assert_eq!(hash(b"home"), 0x0378_337d_e63e_4520);
        let long = b"a name longer than one stripe of the hash";
        assert_eq!(hash(long), 0x0031_aba1_6308_3eb3);
    }

    proptest! {
        #[test]
        fn cookies_are_positive_and_spare_the_reserved(
            name in "[^/\0]{1,60}".prop_filter("reserved", |name| name != "." && name != ".."),
            collision in 0..COLLISIONS,
        ) {
            let cookie = first_cookie(&Name::new(name.as_bytes()).unwrap()) | collision;
            prop_assert!(cookie > 2);
            prop_assert!(i64::try_from(cookie).is_ok());
        }
    }
}
