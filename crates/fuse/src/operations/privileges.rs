//! What lets programs run with other rights than their user's, and goes when somebody else changes
//! their bytes: setuid, setgid, file capabilities.
//!
//! Invariant: a change by a user without rights over the file leaves none of it, whichever mount has
//! given it and when. Deliberately not here: whether the caller may do the change (the kernel asks).

use ringfs_client::OpenFile;
use ringfs_wire::{AttributeChanges, Errno, FilePermissions, InodeNumber};

use crate::abi::InHeader;
use crate::failure::{Failure, gone_is_stale};
use crate::worker::Worker;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
/// Without this, setgid runs nothing with the group's rights, and stays if the group writes.
const GROUP_EXECUTE: u32 = 0o010;
/// Modes under which file capabilities count.
const EXECUTE_BITS: u32 = 0o111;

/// Whether a mode has what a change by anybody else takes away.
pub(crate) fn has_privileges(mode: u32) -> bool {
    mode & SETUID != 0 || mode & (SETGID | GROUP_EXECUTE) == SETGID | GROUP_EXECUTE
}

impl Worker {
    /// Whether setgid goes although the group may not execute: the caller is not of the group.
    pub(crate) fn takes_setgid(&self, header: &InHeader, known: &FilePermissions) -> bool {
        known.mode & (SETGID | GROUP_EXECUTE) == SETGID
            && header.uid != 0
            && header.gid != known.gid
            && !self.platform.is_in_group(header.pid, known.gid)
    }

    /// Takes away what a change by this caller must not leave: asked of the home when the mode
    /// shows it, and once per handle for capabilities, which it does not show.
    pub(crate) async fn kill_privileges(
        &self,
        header: &InHeader,
        file: &OpenFile,
        handle: u64,
    ) -> Result<(), Failure> {
        let mode = file.attributes().permissions.mode;
        let known = self.mount.handles.get(handle).ok_or(Errno::EBADF)?;
        let may_have_capabilities = mode & EXECUTE_BITS != 0 && !known.has_killed_privileges;
        if self.take_privileges(header, file, may_have_capabilities).await? {
            self.mount.handles.note_killed_privileges(handle);
        }
        Ok(())
    }

    /// The same once the change is done: its reply tells of privileges given meanwhile elsewhere.
    pub(crate) async fn kill_late_privileges(
        &self,
        header: &InHeader,
        file: &OpenFile,
    ) -> Result<(), Failure> {
        self.take_privileges(header, file, false).await.map(drop)
    }

    async fn take_privileges(
        &self,
        header: &InHeader,
        file: &OpenFile,
        always: bool,
    ) -> Result<bool, Failure> {
        let (inode, known) = (file.inode(), file.attributes().permissions);
        let kill_setgid = self.takes_setgid(header, &known);
        let takes = always || kill_setgid || has_privileges(known.mode);
        if takes {
            let changes =
                AttributeChanges { kill_privileges: true, kill_setgid, ..Default::default() };
            self.client.update(inode, changes).await.map_err(gone_is_stale)?;
            self.drop_attributes(inode).await;
        }
        Ok(takes)
    }

    /// Whether `changes` of attributes take setgid away that the group cannot use.
    pub(crate) async fn changes_take_setgid(
        &self,
        header: &InHeader,
        inode: InodeNumber,
        changes: &AttributeChanges,
    ) -> Result<bool, Failure> {
        let gives_away = changes.uid.is_some() || changes.gid.is_some();
        if header.uid == 0 || changes.mode.is_some() || !(changes.kill_privileges || gives_away) {
            return Ok(false);
        }
        let found = self.client.attributes_leased(inode).await.map_err(gone_is_stale)?;
        Ok(self.takes_setgid(header, &found.value.permissions))
    }
}
