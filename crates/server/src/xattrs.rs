//! Extended attributes, kept at the inode's home.

use ringfs_store::xattrs;
#[cfg(feature = "mutations")]
use ringfs_wire::XattrMode;
use ringfs_wire::{Errno, GetXattr, ListXattrs, RemoveXattr, SetXattr, Wire, XattrName};

use crate::target::{Answer, Caller, Target, reply};

/// Bytes of a transaction around the value it sets.
const RECORDS_LEN_MAX: u64 = 4096;

impl Target {
    pub(crate) async fn set_xattr(&self, request: &SetXattr, caller: Caller) -> Answer {
        let SetXattr { inode, name, value, mode, kill_sgid } = request;
        let _claim = self.claim(caller.session, &[(*inode, self.changed(*inode))]).await?;
        self.settled_inode(*inode).await?;
        self.room(true)?;
        #[cfg(feature = "mutations")]
        let mode = if self.mutations.ignore_xattr_mode { &XattrMode::Any } else { mode };
        xattrs::check_set(&self.store.state(), *inode, name, value, *mode)?;
        // A transaction lies in one log file.
        if value.len() as u64 + RECORDS_LEN_MAX > self.store.options().log_segment_bytes {
            return Err(Errno::ENOSPC.into());
        }
        let mut tx = self.store.transaction();
        xattrs::set(&mut tx, *inode, name, value, *kill_sgid, self.now());
        let answer = self.attributes_of(*inode)?.to_bytes();
        self.record_reply(&mut tx, caller, &answer);
        tx.commit();
        Ok((answer, None))
    }

    pub(crate) async fn remove_xattr(&self, request: &RemoveXattr, caller: Caller) -> Answer {
        let RemoveXattr { inode, name } = request;
        let _claim = self.claim(caller.session, &[(*inode, self.changed(*inode))]).await?;
        self.settled_inode(*inode).await?;
        self.room(false)?;
        let mut tx = self.store.transaction();
        xattrs::remove(&mut tx, *inode, name, self.now())?;
        let answer = self.attributes_of(*inode)?.to_bytes();
        self.record_reply(&mut tx, caller, &answer);
        tx.commit();
        Ok((answer, None))
    }

    pub(crate) async fn get_xattr(&self, request: &GetXattr) -> Answer {
        self.settled_inode(request.inode).await?;
        let state = self.store.state();
        let value = state.xattr(request.inode, &request.name).ok_or(Errno::ENODATA)?;
        reply(&value.to_vec())
    }

    pub(crate) async fn list_xattrs(&self, request: &ListXattrs) -> Answer {
        self.settled_inode(request.inode).await?;
        let state = self.store.state();
        let names: Vec<XattrName> =
            state.xattrs_of(request.inode).map(|(name, _)| name.clone()).collect();
        reply(&names)
    }
}
