//! Extended attributes: what Linux asks of sizes and flags; the rest is the home's.

use ringfs_wire::{Errno, InodeNumber, XattrMode, XattrName};

use crate::abi::{GetXattrOut, InHeader, Operation, Reply, SETXATTR_ACL_KILL_SGID, SetXattrIn};
use crate::failure::{Failure, gone_is_stale};
use crate::operations::Outcome;
use crate::worker::Worker;

/// `flags` of `setxattr`: it must not exist.
const CREATE: u32 = 1;
/// Names that only root is shown begin like this.
const PRIVILEGED: &[u8] = b"trusted.";
/// `flags` of `setxattr`: it must exist.
const REPLACE: u32 = 2;

impl Worker {
    /// A removed inode that is still used has attributes to show, but no extended ones: the kernel
    /// looks for an access list on the way through a directory.
    fn bare_if_removed(&self, inode: InodeNumber, failure: Failure) -> Failure {
        match failure {
            Failure(Errno::ESTALE) if self.mount.seen.removed(inode).is_some() => {
                Failure(Errno::ENODATA)
            }
            failure => failure,
        }
    }

    pub(crate) async fn perform_on_xattr(
        &self,
        header: &InHeader,
        operation: &Operation<'_>,
    ) -> Outcome {
        let inode = InodeNumber(header.node);
        match operation {
            Operation::SetXattr { arguments, name, value } => {
                let SetXattrIn { flags, setxattr_flags, .. } = *arguments;
                let mode = match flags {
                    0 => XattrMode::Any,
                    CREATE => XattrMode::Create,
                    REPLACE => XattrMode::Replace,
                    _ => return Err(Errno::EINVAL.into()),
                };
                let kill_sgid = setxattr_flags & SETXATTR_ACL_KILL_SGID != 0;
                let name = XattrName::new(name)?;
                let set = self.client.set_xattr(inode, &name, value, mode, kill_sgid).await;
                set.map_err(gone_is_stale)?;
                Ok(Reply::empty().into())
            }
            Operation::RemoveXattr { name } => {
                let name = XattrName::new(name)?;
                self.client.remove_xattr(inode, &name).await.map_err(gone_is_stale)?;
                Ok(Reply::empty().into())
            }
            Operation::GetXattr { size, name } => {
                let name = match XattrName::new(name) {
                    Ok(name) => name,
                    // What cannot be set is not there.
                    Err(Errno::EINVAL) => return Err(Errno::ENODATA.into()),
                    Err(errno) => return Err(errno.into()),
                };
                let value = self.client.get_xattr(inode, &name).await.map_err(gone_is_stale);
                sized(value.map_err(|failure| self.bare_if_removed(inode, failure))?, *size)
            }
            Operation::ListXattr { size } => {
                let names = self.client.list_xattrs(inode).await.map_err(gone_is_stale)?;
                let mut list = Vec::new();
                // The kernel asks of those who name one whether they may see it.
                let is_shown =
                    |name: &&XattrName| header.uid == 0 || !name.as_bytes().starts_with(PRIVILEGED);
                for name in names.iter().filter(is_shown) {
                    list.extend_from_slice(name.as_bytes());
                    list.push(0);
                }
                sized(list, *size)
            }
            _ => Err(Failure(Errno::ENOSYS)),
        }
    }
}

/// `bytes` if they fit `size`; their length if that is zero.
fn sized(bytes: Vec<u8>, size: u32) -> Outcome {
    match size as usize {
        0 => Ok(Reply::of(&GetXattrOut { size: bytes.len() as u32, padding: 0 }).into()),
        room if bytes.len() > room => Err(Errno::ERANGE.into()),
        _ => Ok(Reply::bytes(bytes).into()),
    }
}
