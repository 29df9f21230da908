//! What a target knows, as ordered maps in memory.
//!
//! Invariant: [`State::apply`] is the only code that changes them, at run time and at replay, so
//! replaying the log gives the state that produced it, but for access times. Deliberately without
//! I/O and without checks: whoever writes a record has checked it.

use std::collections::BTreeMap;

use ringfs_wire::{
    InodeNumber, InodeType, Name, OperationId, SessionId, TargetId, Timestamp, XattrName,
};

use crate::record::{Floor, HeadSlot, Inode, PendingCut, Prepared, RangeKind, Record};

/// What a name in a directory leads to; directory and cookie are its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Name,
    /// What it names.
    pub inode: InodeNumber,
    /// The type of that.
    pub kind: InodeType,
}

/// The last mutation executed in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotReply {
    /// Its number.
    pub sequence: u64,
    /// How it was answered.
    pub reply: Box<[u8]>,
}

/// A client process as a target knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The session that holds the leases of the same process; zero where nothing is cached.
    pub holder: SessionId,
    /// Slots that were used.
    pub slots: BTreeMap<u16, SlotReply>,
}

/// The durable state of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Inodes homed here.
    pub inodes: BTreeMap<InodeNumber, Box<Inode>>,
    /// Extended attributes of inodes homed here: whole values, in memory.
    pub xattrs: BTreeMap<(InodeNumber, XattrName), Box<[u8]>>,
    /// Names in directories homed here, by directory and cookie.
    pub dentries: BTreeMap<(InodeNumber, u64), Entry>,
    /// Known sessions.
    pub sessions: BTreeMap<SessionId, Session>,
    /// Operations prepared here.
    pub prepared: BTreeMap<OperationId, Prepared>,
    /// Committed operations coordinated here, with who has yet to settle.
    pub committed: BTreeMap<OperationId, Vec<TargetId>>,
    /// Cuts of inodes homed here that owners have yet to learn of.
    pub cuts: BTreeMap<InodeNumber, PendingCut>,
    /// What this target, as a chunk owner, remembers of cuts.
    pub floors: BTreeMap<InodeNumber, Floor>,
    /// End of the numbers that may have been used, by kind.
    pub ranges: BTreeMap<RangeKind, u64>,
    /// Head slots that lost their inode since they were last collected.
    freed: Vec<HeadSlot>,
}

impl State {
    /// Makes `record` true.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::PutInode { inode } => self.put_inode(inode),
            Record::DeleteInode { inode } => {
                let old = self.inodes.remove(&inode);
                self.freed.extend(old.and_then(|old| old.head));
                self.drop_xattrs(inode);
            }
            Record::PutDentry { dentry } => {
                let entry = Entry { name: dentry.name, inode: dentry.inode, kind: dentry.kind };
                self.dentries.insert((dentry.directory, dentry.cookie), entry);
            }
            Record::DeleteDentry { directory, cookie } => {
                self.dentries.remove(&(directory, cookie));
            }
            Record::PutSession { session, holder } => {
                self.sessions.entry(session).or_default().holder = holder;
            }
            Record::DeleteSession { session } => {
                self.sessions.remove(&session);
            }
            Record::PutSlot { session, slot, sequence, reply } => {
                // In a fuzzy replay the session may be gone already; its end comes again later.
                let slots = &mut self.sessions.entry(session).or_default().slots;
                slots.insert(slot, SlotReply { sequence, reply: reply.into() });
            }
            Record::PutPrepared { prepared } => {
                self.prepared.insert(prepared.operation, prepared);
            }
            Record::DeletePrepared { operation } => {
                self.prepared.remove(&operation);
            }
            Record::PutCommitted { operation, participants } => {
                self.committed.insert(operation, participants);
            }
            Record::DeleteCommitted { operation } => {
                self.committed.remove(&operation);
            }
            Record::PutCut { cut } => {
                self.cuts.insert(cut.inode, cut);
            }
            Record::DeleteCut { inode } => {
                self.cuts.remove(&inode);
            }
            Record::PutFloor { inode, floor } => {
                self.floors.insert(inode, floor);
            }
            Record::DeleteFloor { inode } => {
                self.floors.remove(&inode);
            }
            Record::PutRange { kind, end } => {
                self.ranges.insert(kind, end);
            }
            Record::PutXattr { inode, name, value } => {
                self.xattrs.insert((inode, name), value.into());
            }
            Record::DeleteXattr { inode, name } => {
                self.xattrs.remove(&(inode, name));
            }
        }
    }

    /// Moves an access time, without a record: it may be lost until the inode is next written down.
    pub(crate) fn note_access(&mut self, inode: InodeNumber, now: Timestamp) {
        if let Some(found) = self.inodes.get_mut(&inode) {
            found.attributes.accessed = now;
        }
    }

    /// The extended attributes of an inode, in the order of their names.
    pub fn xattrs_of(
        &self,
        inode: InodeNumber,
    ) -> impl Iterator<Item = (&XattrName, &[u8])> + use<'_> {
        let from = (inode, XattrName::first());
        let of_inode = self.xattrs.range(from..).take_while(move |((of, _), _)| *of == inode);
        of_inode.map(|((_, name), value)| (name, &**value))
    }

    /// The value of an extended attribute.
    pub fn xattr(&self, inode: InodeNumber, name: &XattrName) -> Option<&[u8]> {
        self.xattrs.get(&(inode, name.clone())).map(|value| &**value)
    }

    fn drop_xattrs(&mut self, inode: InodeNumber) {
        let names: Vec<_> = self.xattrs_of(inode).map(|(name, _)| name.clone()).collect();
        for name in names {
            self.xattrs.remove(&(inode, name));
        }
    }

    fn put_inode(&mut self, inode: Inode) {
        let head = inode.head;
        let number = inode.attributes.inode;
        match self.inodes.entry(number) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Box::new(inode));
            }
            std::collections::btree_map::Entry::Occupied(mut occupied) => {
                let old = std::mem::replace(&mut **occupied.get_mut(), inode);
                if old.head != head {
                    self.freed.extend(old.head);
                }
            }
        }
    }

    /// Head slots that lost their inode since the last call.
    pub(crate) fn take_freed(&mut self) -> Vec<HeadSlot> {
        std::mem::take(&mut self.freed)
    }
}
