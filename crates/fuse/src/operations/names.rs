//! Names: look-up, creation, links, removal, renaming.

use ringfs_wire::{Errno, FilePermissions, InodeNumber, InodeType, Name, RenameMode};

use crate::abi::{InHeader, MkdirIn, MknodIn, Operation, Reply, mode, rename};
use crate::failure::gone_is_stale;
use crate::kernel_cache::Answer;
use crate::operations::Outcome;
use crate::worker::Worker;

impl Worker {
    pub(crate) async fn perform_on_name(
        &self,
        header: &InHeader,
        operation: &Operation<'_>,
    ) -> Outcome {
        let node = InodeNumber(header.node);
        match operation {
            Operation::Lookup { name } => self.lookup(node, name).await,
            Operation::ReadLink => {
                let target = self.client.read_link(node).await.map_err(gone_is_stale)?;
                Ok(Reply::bytes(target).into())
            }
            Operation::Symlink { name, target } => {
                let (name, permissions) = (Name::new(name)?, permissions(header, 0o777));
                let made = self.client.symlink_leased(node, &name, target, permissions).await?;
                Ok(Answer::Entry(made, None))
            }
            Operation::Mknod { arguments, name } => self.mknod(header, name, arguments).await,
            Operation::Mkdir { arguments, name } => {
                let MkdirIn { mode, umask } = *arguments;
                let (name, permissions) = (Name::new(name)?, permissions(header, mode));
                let made = self.client.mkdir_leased(node, &name, permissions, umask).await?;
                Ok(Answer::Entry(made, None))
            }
            Operation::Unlink { name } => {
                self.client.unlink(node, &Name::new(name)?).await?;
                Ok(Reply::empty().into())
            }
            Operation::Rmdir { name } => {
                self.client.rmdir(node, &Name::new(name)?).await?;
                Ok(Reply::empty().into())
            }
            Operation::Link { old_node, name } => {
                let (inode, name) = (InodeNumber(*old_node), Name::new(name)?);
                Ok(Answer::Entry(self.client.link_leased(inode, node, &name).await?, None))
            }
            Operation::Rename { new_directory, flags, old_name, new_name } => {
                let mode = match *flags {
                    0 => RenameMode::Replace,
                    rename::NO_REPLACE => RenameMode::NoReplace,
                    rename::EXCHANGE => RenameMode::Exchange,
                    _ => return Err(Errno::EINVAL.into()),
                };
                let (from, to) = (Name::new(old_name)?, Name::new(new_name)?);
                self.client.rename(node, &from, InodeNumber(*new_directory), &to, mode).await?;
                Ok(Reply::empty().into())
            }
            _ => Err(Errno::ENOSYS.into()),
        }
    }

    async fn lookup(&self, directory: InodeNumber, name: &[u8]) -> Outcome {
        let found = self.client.lookup_leased(directory, &Name::new(name)?).await?;
        match (&found.value, found.names_until) {
            (Some(_), _) => {
                let entry = found.map(|attributes| attributes.expect("matched as present"));
                Ok(Answer::Entry(entry, None))
            }
            (None, Some(until)) if self.mount.agreement.names_can_be_dropped() => {
                Ok(Answer::Missing(directory, until))
            }
            (None, _) => Err(Errno::ENOENT.into()),
        }
    }

    async fn mknod(&self, header: &InHeader, name: &[u8], arguments: &MknodIn) -> Outcome {
        let MknodIn { mode, device, umask, .. } = *arguments;
        let kind = match mode & mode::TYPE_MASK {
            0 | mode::FILE => InodeType::File,
            mode::FIFO => InodeType::Fifo,
            mode::SOCKET => InodeType::Socket,
            mode::CHARACTER => InodeType::CharacterDevice,
            mode::BLOCK => InodeType::BlockDevice,
            _ => return Err(Errno::EINVAL.into()),
        };
        let device = match kind {
            InodeType::CharacterDevice | InodeType::BlockDevice => u64::from(device),
            _ => 0,
        };
        let (name, permissions) = (Name::new(name)?, permissions(header, mode));
        let directory = InodeNumber(header.node);
        let made =
            self.client.mknod_leased(directory, &name, kind, permissions, umask, device).await?;
        Ok(Answer::Entry(made, None))
    }
}

/// Mode and owner of what the sender of a request creates.
pub(crate) fn permissions(header: &InHeader, mode: u32) -> FilePermissions {
    FilePermissions { mode: mode & mode::PERMISSIONS, uid: header.uid, gid: header.gid }
}
