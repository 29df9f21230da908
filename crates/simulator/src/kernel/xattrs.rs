//! System calls about extended attributes. Linux remembers none of them.

use ringfs_wire::{Errno, InodeNumber, XattrMode, XattrName};

use super::abi::{Opcode, Writer};
use super::connection::Kernel;

/// Bytes of the buffer that programs bring for a value or a list.
const BUFFER_LEN: u32 = 64 << 10;
/// `XATTR_CREATE`.
const CREATE: u32 = 1;
/// `XATTR_REPLACE`.
const REPLACE: u32 = 2;

impl Kernel {
    /// setxattr(2).
    pub(crate) async fn set_xattr(
        &self,
        inode: InodeNumber,
        name: &XattrName,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Errno> {
        let flags = match mode {
            XattrMode::Any => 0,
            XattrMode::Create => CREATE,
            XattrMode::Replace => REPLACE,
        };
        let mut body = Writer::default();
        body.u32(value.len() as u32).u32(flags).u32(0).u32(0).name(name.as_bytes()).bytes(value);
        self.change_xattrs(Opcode::SetXattr, inode, body).await
    }

    /// removexattr(2).
    pub(crate) async fn remove_xattr(
        &self,
        inode: InodeNumber,
        name: &XattrName,
    ) -> Result<(), Errno> {
        let mut body = Writer::default();
        body.name(name.as_bytes());
        self.change_xattrs(Opcode::RemoveXattr, inode, body).await
    }

    async fn change_xattrs(
        &self,
        opcode: Opcode,
        inode: InodeNumber,
        body: Writer,
    ) -> Result<(), Errno> {
        let _taken = self.take(inode).await;
        let done = self.call(opcode, inode, &body.0).await;
        self.cache.borrow_mut().drop_attr(inode);
        done.map(drop)
    }

    /// getxattr(2).
    pub(crate) async fn get_xattr(
        &self,
        inode: InodeNumber,
        name: &XattrName,
    ) -> Result<Vec<u8>, Errno> {
        let mut body = Writer::default();
        body.u32(BUFFER_LEN).u32(0).name(name.as_bytes());
        self.call(Opcode::GetXattr, inode, &body.0).await
    }

    /// listxattr(2): names, each with a zero behind it.
    pub(crate) async fn list_xattrs(&self, inode: InodeNumber) -> Result<Vec<u8>, Errno> {
        let mut body = Writer::default();
        body.u32(BUFFER_LEN).u32(0);
        self.call(Opcode::ListXattr, inode, &body.0).await
    }
}
