//! The rules of extended attributes, as checks and effects in a transaction.
//!
//! Values lie in memory with the rest of the state, so what one inode may have is bounded. Setting
//! or removing one moves the inode's change time. Access control lists and mode bits are kept in
//! step (see [`crate::Acl`]). Deliberately without permission checks: those are the caller's.

use ringfs_wire::{
    AttributeChanges, Errno, InodeNumber, InodeType, MAX_XATTR_LIST_LEN, MAX_XATTR_VALUE_LEN,
    Timestamp, XattrMode, XattrName,
};

use crate::acl::Acl;
use crate::namespace::change;
use crate::record::Record;
use crate::state::State;
use crate::store::Transaction;

/// Bytes of names and values that one inode may have.
pub const XATTRS_PER_INODE_MAX: usize = 1 << 20;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o0010;
const PERMISSION_BITS: u32 = 0o777;

/// Whether an attribute could be set to a value.
pub fn check_set(
    state: &State,
    inode: InodeNumber,
    name: &XattrName,
    value: &[u8],
    mode: XattrMode,
) -> Result<(), Errno> {
    let kind = state.inodes.get(&inode).ok_or(Errno::ENOENT)?.attributes.kind;
    if value.len() > MAX_XATTR_VALUE_LEN {
        return Err(Errno::E2BIG);
    }
    check_kind(kind, name)?;
    if name.is_acl() {
        Acl::parse(value)?;
    }
    match (state.xattr(inode, name), mode) {
        (Some(_), XattrMode::Create) => return Err(Errno::EEXIST),
        (None, XattrMode::Replace) => return Err(Errno::ENODATA),
        _ => {}
    }
    let (mut list, mut all) = (name.as_bytes().len() + 1, name.as_bytes().len() + value.len());
    for (other, value) in state.xattrs_of(inode).filter(|(other, _)| *other != name) {
        list += other.as_bytes().len() + 1;
        all += other.as_bytes().len() + value.len();
    }
    if list > MAX_XATTR_LIST_LEN || all > XATTRS_PER_INODE_MAX {
        return Err(Errno::ENOSPC);
    }
    Ok(())
}

fn check_kind(kind: InodeType, name: &XattrName) -> Result<(), Errno> {
    let is_directory = kind == InodeType::Directory;
    match kind {
        _ if name.is_default_acl() && !is_directory => Err(Errno::EACCES),
        InodeType::Symlink if name.is_acl() => Err(Errno::EOPNOTSUPP),
        InodeType::File | InodeType::Directory => Ok(()),
        _ if name.as_bytes().starts_with(b"user.") => Err(Errno::EPERM),
        _ => Ok(()),
    }
}

/// Sets a checked attribute. An access control list sets the mode's permission bits, and clears
/// setgid if `kill_sgid`; one that says no more than a mode is not kept.
pub fn set(
    tx: &mut Transaction,
    inode: InodeNumber,
    name: &XattrName,
    value: &[u8],
    kill_sgid: bool,
    now: Timestamp,
) {
    let acl = if name.is_acl() { Acl::parse(value).ok().flatten() } else { None };
    let is_kept = match &acl {
        Some(acl) => name.is_default_acl() || !acl.is_trivial(),
        None => !name.is_acl(),
    };
    let (old_mode, is_same) = {
        let state = tx.state();
        let old = state.xattr(inode, name);
        let mode = state.inodes.get(&inode).map_or(0, |found| found.attributes.permissions.mode);
        (mode, if is_kept { old == Some(value) } else { old.is_none() })
    };
    let mode = match acl.filter(|_| name.is_access_acl()) {
        Some(acl) => {
            let kept = if kill_sgid { !(PERMISSION_BITS | SETGID) } else { !PERMISSION_BITS };
            old_mode & kept | acl.permission_bits()
        }
        None => old_mode,
    };
    if is_same && mode == old_mode {
        return;
    }
    if is_kept {
        tx.put(Record::PutXattr { inode, name: name.clone(), value: value.to_vec() });
    } else {
        delete(tx, inode, name);
    }
    let has_xattrs = has_any(tx, inode);
    change(tx, inode, |found| {
        found.attributes.has_xattrs = has_xattrs;
        found.attributes.permissions.mode = mode;
        found.attributes.changed = now;
    });
}

/// Removes an attribute. `ENODATA` if there is none; an access control list may be missing.
pub fn remove(
    tx: &mut Transaction,
    inode: InodeNumber,
    name: &XattrName,
    now: Timestamp,
) -> Result<(), Errno> {
    let exists = tx.state().xattr(inode, name).is_some();
    if !exists && !name.is_acl() {
        return Err(Errno::ENODATA);
    }
    if exists {
        delete(tx, inode, name);
        let has_xattrs = has_any(tx, inode);
        change(tx, inode, |found| {
            found.attributes.has_xattrs = has_xattrs;
            found.attributes.changed = now;
        });
    }
    Ok(())
}

/// The mode of something new in a directory, and the access control lists it gets: the directory's
/// default list decides, or else `umask`.
pub fn inherited(
    state: &State,
    directory: InodeNumber,
    kind: InodeType,
    mode: u32,
    umask: u32,
) -> (u32, Vec<(XattrName, Vec<u8>)>) {
    if kind == InodeType::Symlink {
        return (mode, Vec::new());
    }
    let default = state.xattr(directory, &XattrName::default_acl());
    let Some(acl) = default.and_then(|value| Acl::parse(value).ok().flatten()) else {
        return (mode & !(umask & PERMISSION_BITS), Vec::new());
    };
    let mut lists = Vec::new();
    if kind == InodeType::Directory {
        lists.push((XattrName::default_acl(), acl.encode()));
    }
    let own = acl.inherited(mode);
    let mode = mode & !PERMISSION_BITS | own.permission_bits();
    if !own.is_trivial() {
        lists.push((XattrName::access_acl(), own.encode()));
    }
    (mode, lists)
}

/// What follows a change of attributes: the access control list keeps in step with the mode, and a
/// program whose bytes or owner change loses its capabilities.
pub fn follow_changes(tx: &mut Transaction, inode: InodeNumber, changes: &AttributeChanges) {
    if changes.mode.is_some() {
        follow_mode(tx, inode);
    }
    let is_owner = changes.uid.is_some() || changes.gid.is_some();
    if is_owner || changes.size.is_some() || changes.kill_privileges {
        drop_capability(tx, inode);
    }
}

/// Keeps the access control list in step with permission bits that were set.
fn follow_mode(tx: &mut Transaction, inode: InodeNumber) {
    let name = XattrName::access_acl();
    let changed = {
        let state = tx.state();
        let mode = state.inodes.get(&inode).map_or(0, |found| found.attributes.permissions.mode);
        let acl = state.xattr(inode, &name).and_then(|value| Acl::parse(value).ok().flatten());
        acl.map(|acl| acl.with_permission_bits(mode).encode())
    };
    if let Some(value) = changed {
        tx.put(Record::PutXattr { inode, name, value });
    }
}

/// The mode without what lets a program run with its owner's rights: setuid, and setgid where it
/// means that, or in any case.
pub fn without_privileges(mode: u32, kill_setgid: bool) -> u32 {
    if kill_setgid || mode & GROUP_EXECUTE != 0 {
        mode & !(SETUID | SETGID)
    } else {
        mode & !SETUID
    }
}

/// The record that takes a program's capabilities away, as every write to it must. That the inode
/// may have attributes stays said of it.
pub fn without_capability(state: &State, inode: InodeNumber) -> Option<Record> {
    if state.xattrs.is_empty() {
        return None;
    }
    let name = XattrName::capability();
    state.xattr(inode, &name).map(|_| Record::DeleteXattr { inode, name: name.clone() })
}

/// Takes a program's capabilities away in a transaction that changes it.
pub fn drop_capability(tx: &mut Transaction, inode: InodeNumber) {
    let record = without_capability(&tx.state(), inode);
    record.into_iter().for_each(|record| tx.put(record));
}

fn has_any(tx: &Transaction, inode: InodeNumber) -> bool {
    tx.state().xattrs_of(inode).next().is_some()
}

fn delete(tx: &mut Transaction, inode: InodeNumber, name: &XattrName) {
    let exists = tx.state().xattr(inode, name).is_some();
    if exists {
        tx.put(Record::DeleteXattr { inode, name: name.clone() });
    }
}
