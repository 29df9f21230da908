//! Attributes: reading and changing them.

use ringfs_client::Leased;
use ringfs_wire::{
    AttributeChanges, Attributes, Errno, FilePermissions, InodeNumber, InodeType, Timestamp,
};

use crate::abi::{InHeader, SetAttrIn, fattr, mode};
use crate::failure::{Failure, gone_is_stale};
use crate::kernel_cache::Answer;
use crate::operations::Outcome;
use crate::operations::privileges::has_privileges;
use crate::worker::Worker;

impl Worker {
    pub(crate) async fn get_attributes(&self, inode: InodeNumber) -> Outcome {
        Ok(Answer::Attributes(self.find_attributes(inode).await?))
    }

    pub(crate) async fn statx(&self, inode: InodeNumber) -> Outcome {
        Ok(Answer::Statx(self.find_attributes(inode).await?))
    }

    /// The attributes of an inode; of a removed one as it was, for who still uses it.
    async fn find_attributes(&self, inode: InodeNumber) -> Result<Leased<Attributes>, Failure> {
        let failure = match self.client.attributes_leased(inode).await {
            Ok(found) => return Ok(found),
            Err(error) => Failure::from(error),
        };
        match self.mount.seen.removed(inode) {
            Some(removed) if failure.0 == Errno::ENOENT => Ok(Leased::unleased(removed)),
            _ => Err(gone_is_stale(failure)),
        }
    }

    pub(crate) async fn set_attributes(&self, header: &InHeader, wanted: &SetAttrIn) -> Outcome {
        let inode = InodeNumber(header.node);
        let mut changes = self.changes(wanted);
        if changes == AttributeChanges::default() {
            // A `chown` that names neither owner nor group, or an operation that follows. The
            // kernel leaves it to us to take privileges away, and has not asked whether the caller
            // may; if not, what follows does it.
            let found = self.find_attributes(inode).await?;
            let FilePermissions { mode, uid, .. } = found.value.permissions;
            changes.kill_privileges = header.uid == 0 || header.uid == uid;
            let is_program = found.value.kind != InodeType::Directory && has_privileges(mode);
            if !changes.kill_privileges && is_program {
                return Ok(Answer::Attributes(found));
            }
        }
        changes.kill_setgid = self.changes_take_setgid(header, inode, &changes).await?;
        let changed = self.client.update_leased(inode, changes).await.map_err(gone_is_stale)?;
        Ok(Answer::Attributes(changed))
    }

    fn changes(&self, wanted: &SetAttrIn) -> AttributeChanges {
        let has = |bit: u32| wanted.valid & bit != 0;
        let now = || Timestamp::from(self.platform.wall());
        let time = |set: u32, now_bit: u32, seconds: u64, nanos: u32| {
            if has(now_bit) {
                Some(now())
            } else {
                has(set).then(|| Timestamp { seconds: seconds as i64, nanos: nanos.min(NANOS_MAX) })
            }
        };
        AttributeChanges {
            mode: has(fattr::MODE).then_some(wanted.mode & mode::PERMISSIONS),
            uid: has(fattr::UID).then_some(wanted.uid),
            gid: has(fattr::GID).then_some(wanted.gid),
            size: has(fattr::SIZE).then_some(wanted.size),
            accessed: time(fattr::ATIME, fattr::ATIME_NOW, wanted.accessed, wanted.accessed_nanos),
            modified: time(fattr::MTIME, fattr::MTIME_NOW, wanted.modified, wanted.modified_nanos),
            kill_privileges: has(fattr::KILL_SUIDGID),
            kill_setgid: false,
        }
    }
}

/// Nanoseconds within a second, at most.
const NANOS_MAX: u32 = 999_999_999;
