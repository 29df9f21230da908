//! New inodes: what they get from their directory, and those that are born without a name.

use ringfs_store::{HeadSlot, Inode, RangeKind, Record, Transaction, namespace, xattrs};
use ringfs_wire::{
    CreateNameless, CreateReply, FilePermissions, InodeNumber, InodeType, Lease, MetadataCreate,
    Status, Timestamp, Wire, XattrName,
};

use crate::locks::LockKey;
use crate::target::{Answer, Caller, Target, reply};

/// setgid: entries of such a directory inherit its group.
const SETGID: u32 = 0o2000;

/// What a new inode gets from its directory and its creator.
pub(crate) struct Heritage {
    pub(crate) permissions: FilePermissions,
    pub(crate) chunk_size: u32,
    pub(crate) xattrs: Vec<(XattrName, Vec<u8>)>,
}

impl Heritage {
    /// Adds the extended attributes of a new inode to its transaction.
    pub(crate) fn put_xattrs(self, tx: &mut Transaction, inode: InodeNumber) {
        for (name, value) in self.xattrs {
            tx.put(Record::PutXattr { inode, name, value });
        }
    }
}

/// The head of a file that is about to be made, already written; given back unless it is placed.
pub(crate) struct NewHead<'a> {
    target: &'a Target,
    slot: Option<HeadSlot>,
    len: u64,
}

impl NewHead<'_> {
    /// Makes it the head of a new inode.
    pub(crate) fn place(mut self, inode: &mut Inode) {
        inode.place_head(self.slot.take());
        inode.attributes.size = self.len;
    }
}

impl Drop for NewHead<'_> {
    fn drop(&mut self) {
        self.slot.into_iter().for_each(|slot| self.target.store.give_back_head(slot));
    }
}

impl Target {
    /// Writes what a new file is to begin with, if anything.
    pub(crate) async fn new_head(&self, data: &[u8]) -> Result<Option<NewHead<'_>>, Status> {
        if data.is_empty() {
            return Ok(None);
        }
        let slot = self.store.new_head(data).await.map_err(|error| error.status())?;
        Ok(Some(NewHead { target: self, slot: Some(slot), len: data.len() as u64 }))
    }

    /// What something new in a directory of this home gets.
    pub(crate) fn heritage(
        &self,
        directory: InodeNumber,
        kind: InodeType,
        mut permissions: FilePermissions,
        umask: u32,
    ) -> Result<Heritage, Status> {
        let state = self.store.state();
        let parent = &namespace::directory(&state, directory)?.attributes;
        let (mode, xattrs) =
            xattrs::inherited(&state, directory, kind, permissions.mode & 0o7777, umask);
        permissions.mode = mode;
        if parent.permissions.mode & SETGID != 0 {
            permissions.gid = parent.permissions.gid;
            if kind == InodeType::Directory {
                permissions.mode |= SETGID;
            }
        }
        Ok(Heritage { permissions, chunk_size: parent.chunk_size, xattrs })
    }

    pub(crate) async fn create_nameless(&self, request: &CreateNameless, caller: Caller) -> Answer {
        let CreateNameless { directory, permissions, umask, .. } = *request;
        self.room(true)?;
        let sequence = self.store.allocate(RangeKind::Inode).await.map_err(|e| e.status())?;
        let number = InodeNumber::new(directory.field(), sequence);
        // A directory whose removal is decided elsewhere is still here until that is heard.
        self.locks.free(&self.platform, &[LockKey::Inode(directory)]).await?;
        let kind = InodeType::File;
        let heritage = self.heritage(directory, kind, permissions, umask)?;
        let now = self.now();
        let inode = namespace::new_inode(number, kind, heritage.permissions, directory, now);
        let mut inode = inode.without_name();
        inode.attributes.chunk_size = heritage.chunk_size;
        inode.attributes.has_xattrs = !heritage.xattrs.is_empty();
        let mut answer = CreateReply {
            inode: number,
            kind,
            created: true,
            attributes: Some(inode.attributes.clone()),
            lease: Lease::NONE,
            directory: None,
        };
        let mut tx = self.store.transaction();
        tx.put(Record::PutInode { inode });
        heritage.put_xattrs(&mut tx, number);
        // Kept without what is leased: when it is repeated, the leases may be gone.
        self.record_reply(&mut tx, caller, &answer.to_bytes());
        tx.commit();
        self.sessions.reference(caller.session, number);
        // A session that has ended meanwhile keeps nothing.
        self.reap(number);
        answer.lease = self.grant(caller.session, number, request.lease.without(Lease::NAMES));
        reply(&answer)
    }
}

/// The record of anything new but a directory.
pub(crate) fn new_inode(
    request: &MetadataCreate,
    number: InodeNumber,
    heritage: &Heritage,
    now: Timestamp,
) -> Inode {
    let permissions = heritage.permissions;
    let mut inode = namespace::new_inode(number, request.kind, permissions, request.directory, now);
    inode.attributes.chunk_size = heritage.chunk_size;
    inode.attributes.has_xattrs = !heritage.xattrs.is_empty();
    inode.attributes.device = request.device;
    if request.kind == InodeType::Symlink {
        inode.attributes.size = request.symlink.len() as u64;
        inode = inode.with_symlink(request.symlink.clone());
    }
    inode
}
