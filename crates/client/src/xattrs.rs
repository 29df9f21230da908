//! Extended attributes, by inode number. Values and lists are whole: what a caller's buffer holds
//! is the door's business.

use ringfs_wire::{
    Attributes, Errno, GetXattr, InodeNumber, ListXattrs, MAX_XATTR_VALUE_LEN, RemoveXattr,
    SetXattr, XattrMode, XattrName,
};

use crate::client::Client;
use crate::credentials::Access;
use crate::error::{ClientError, Subject};

impl Client {
    /// Sets an extended attribute. An access control list changes the mode with it, and clears
    /// setgid if `kill_sgid`.
    pub async fn set_xattr(
        &self,
        inode: InodeNumber,
        name: &XattrName,
        value: &[u8],
        mode: XattrMode,
        kill_sgid: bool,
    ) -> Result<Attributes, ClientError> {
        let result = async {
            if value.len() > MAX_XATTR_VALUE_LEN {
                return Err(Errno::E2BIG.into());
            }
            self.require_xattr_change(inode, name).await?;
            let (name, value) = (name.clone(), value.to_vec());
            let request = SetXattr { inode, name, value, mode, kill_sgid };
            self.change_inode(inode, &request).await
        };
        result.await.map_err(|error| error.during("set an attribute of", Subject::Inode(inode)))
    }

    /// Removes an extended attribute; `ENODATA` if there is none.
    pub async fn remove_xattr(
        &self,
        inode: InodeNumber,
        name: &XattrName,
    ) -> Result<Attributes, ClientError> {
        let result = async {
            self.require_xattr_change(inode, name).await?;
            let request = RemoveXattr { inode, name: name.clone() };
            self.change_inode(inode, &request).await
        };
        result.await.map_err(|error| error.during("remove an attribute of", Subject::Inode(inode)))
    }

    /// The value of an extended attribute; `ENODATA` if there is none.
    pub async fn get_xattr(
        &self,
        inode: InodeNumber,
        name: &XattrName,
    ) -> Result<Vec<u8>, ClientError> {
        let result = async {
            if name.as_bytes().starts_with(b"user.") {
                self.require(inode, Access::READ).await?;
            }
            if self.has_no_xattrs(inode) {
                return Err(Errno::ENODATA.into());
            }
            let request = GetXattr { inode, name: name.clone() };
            self.ask_home(inode, &request, self.deadline()).await
        };
        result.await.map_err(|error| error.during("read an attribute of", Subject::Inode(inode)))
    }

    /// The names of the extended attributes of an inode, sorted.
    pub async fn list_xattrs(&self, inode: InodeNumber) -> Result<Vec<XattrName>, ClientError> {
        if self.has_no_xattrs(inode) {
            return Ok(Vec::new());
        }
        let result = self.ask_home(inode, &ListXattrs { inode }, self.deadline()).await;
        result.map_err(|error| error.during("list the attributes of", Subject::Inode(inode)))
    }

    /// Whether it is known under a lease that an inode has none: kernels ask for access lists and
    /// capabilities of everything.
    fn has_no_xattrs(&self, inode: InodeNumber) -> bool {
        self.known_attributes(inode).is_some_and(|known| !known.value.has_xattrs)
    }

    /// Fails unless the user may change this attribute: who writes the file, those of programs;
    /// its owner, access control lists; nobody but root, the others.
    async fn require_xattr_change(
        &self,
        inode: InodeNumber,
        name: &XattrName,
    ) -> Result<(), ClientError> {
        let Some(user) = self.checked_user() else { return Ok(()) };
        if name.as_bytes().starts_with(b"user.") {
            return self.require(inode, Access::WRITE).await;
        }
        let attributes = self.fetch(inode, self.deadline()).await?;
        match name.is_acl() && user.owns(&attributes) {
            true => Ok(()),
            false => Err(Errno::EPERM.into()),
        }
    }
}
