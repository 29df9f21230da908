//! Whether a user may do something. Used by doors behind which no kernel checks.
//!
//! Deliberately absent: access control lists and capabilities; root passes every check.

use ringfs_wire::{AttributeChanges, Attributes, Errno, InodeNumber, Name};

use crate::client::Client;
use crate::error::ClientError;

/// The sticky bit of a directory: only owners remove from it.
const STICKY: u32 = 0o1000;

/// On whose behalf operations are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user; zero passes every check.
    pub uid: u32,
    /// The user's group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// What somebody wants to do with an inode: the bits of one digit of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access(pub(crate) u32);

impl Access {
    pub(crate) const READ: Self = Self(4);
    pub(crate) const WRITE: Self = Self(2);
    /// Execute a file, search a directory.
    pub(crate) const SEARCH: Self = Self(1);
    /// Change the names in a directory.
    pub(crate) const CHANGE: Self = Self(3);
}

impl Credentials {
    fn is_root(&self) -> bool {
        self.uid == 0
    }

    fn is_member(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    pub(crate) fn owns(&self, attributes: &Attributes) -> bool {
        self.is_root() || self.uid == attributes.permissions.uid
    }

    /// Whether the mode bits allow `access`.
    pub(crate) fn permit(&self, attributes: &Attributes, access: Access) -> bool {
        let permissions = attributes.permissions;
        let shift = if self.uid == permissions.uid {
            6
        } else if self.is_member(permissions.gid) {
            3
        } else {
            0
        };
        self.is_root() || permissions.mode >> shift & access.0 == access.0
    }

    /// Whether these changes are allowed.
    fn check_changes(&self, now: &Attributes, changes: &AttributeChanges) -> Result<(), Errno> {
        let owner = self.owns(now);
        let gives_away = changes.uid.is_some_and(|uid| uid != now.permissions.uid);
        let regroups = changes.gid.is_some_and(|gid| gid != now.permissions.gid);
        let group_ok = changes.gid.is_none_or(|gid| self.is_member(gid));
        let writes = self.permit(now, Access::WRITE);
        let touches = changes.accessed.is_some() || changes.modified.is_some();
        if !self.is_root() && (gives_away || regroups && !(owner && group_ok))
            || changes.mode.is_some() && !owner
        {
            return Err(Errno::EPERM);
        }
        if changes.size.is_some() && !writes || touches && !(owner || writes) {
            return Err(Errno::EACCES);
        }
        Ok(())
    }
}

impl Client {
    /// The user to check for, if there is one to whom anything could be denied.
    pub(crate) fn checked_user(&self) -> Option<&Credentials> {
        self.credentials.as_deref().filter(|user| !user.is_root())
    }

    /// Fails with `EACCES` unless the user may access `inode` so.
    pub(crate) async fn require(
        &self,
        inode: InodeNumber,
        access: Access,
    ) -> Result<(), ClientError> {
        let Some(user) = self.checked_user() else { return Ok(()) };
        let attributes = self.fetch(inode, self.deadline()).await?;
        if user.permit(&attributes, access) { Ok(()) } else { Err(Errno::EACCES.into()) }
    }

    /// Fails unless the user may remove this name.
    pub(crate) async fn require_removal(
        &self,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<(), ClientError> {
        let Some(user) = self.checked_user() else { return Ok(()) };
        let deadline = self.deadline();
        let parent = self.fetch(directory, deadline).await?;
        if !user.permit(&parent, Access::CHANGE) {
            return Err(Errno::EACCES.into());
        }
        if parent.permissions.mode & STICKY != 0 && !user.owns(&parent) {
            let victim = self.find_attributes(directory, name, deadline).await?;
            if !user.owns(&victim) {
                return Err(Errno::EPERM.into());
            }
        }
        Ok(())
    }

    /// Fails unless the user may make these changes.
    pub(crate) async fn require_changes(
        &self,
        inode: InodeNumber,
        changes: &AttributeChanges,
    ) -> Result<(), ClientError> {
        let Some(user) = self.checked_user() else { return Ok(()) };
        let now = self.fetch(inode, self.deadline()).await?;
        Ok(user.check_changes(&now, changes)?)
    }
}

#[cfg(test)]
mod tests {
    use ringfs_wire::{FilePermissions, Generation, InodeType, Timestamp};

    use super::*;

    fn file(mode: u32, uid: u32, gid: u32) -> Attributes {
        let time = Timestamp::default();
        Attributes {
            inode: InodeNumber(9),
            kind: InodeType::File,
            permissions: FilePermissions { mode, uid, gid },
            links: 1,
            device: 0,
            size: 0,
            generation: Generation(1),
            reach: 0,
            allocated: 0,
            chunk_size: 1 << 22,
            parent: InodeNumber::ROOT,
            accessed: time,
            modified: time,
            changed: time,
            created: time,
            has_xattrs: false,
        }
    }

    fn user(uid: u32, groups: &[u32]) -> Credentials {
        Credentials { uid, gid: uid, groups: groups.to_vec() }
    }

    #[test]
    fn the_most_specific_class_decides() {
        let check = |mode, user: Credentials, access, expect| {
            assert_eq!(user.permit(&file(mode, 1, 50), access), expect, "{mode:o} {user:?}");
        };
        check(0o600, user(1, &[]), Access::READ, true);
        check(0o600, user(2, &[50]), Access::READ, false);
        check(0o640, user(2, &[50]), Access::READ, true);
        check(0o604, user(2, &[50]), Access::READ, false);
        check(0o604, user(3, &[]), Access::READ, true);
        check(0o066, user(1, &[50]), Access::WRITE, false);
        check(0o000, user(0, &[]), Access::WRITE, true);
        check(0o711, user(3, &[]), Access::CHANGE, false);
    }

    #[test]
    fn owners_change_modes_and_writers_change_contents() {
        let check = |user: Credentials, changes: AttributeChanges, expect| {
            assert_eq!(user.check_changes(&file(0o664, 1, 50), &changes), expect, "{user:?}");
        };
        let mode = AttributeChanges { mode: Some(0o600), ..Default::default() };
        let size = AttributeChanges { size: Some(0), ..Default::default() };
        let owner = AttributeChanges { uid: Some(2), ..Default::default() };
        let group = AttributeChanges { gid: Some(60), ..Default::default() };
        check(user(1, &[]), mode.clone(), Ok(()));
        check(user(2, &[50]), mode, Err(Errno::EPERM));
        check(user(2, &[50]), size.clone(), Ok(()));
        check(user(2, &[]), size, Err(Errno::EACCES));
        check(user(1, &[]), owner.clone(), Err(Errno::EPERM));
        check(user(0, &[]), owner, Ok(()));
        check(user(1, &[60]), group.clone(), Ok(()));
        check(user(1, &[]), group, Err(Errno::EPERM));
    }
}
