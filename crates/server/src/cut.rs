//! Cuts: dropping what a file holds beyond a length, for truncation, removal and dead writers.
//!
//! A cut raises the inode's content generation. The home logs and syncs it first, so that a
//! generation never goes back, then tells every owner of a chunk that may exist; owners refuse
//! older generations from then on and answer when the cut is durable with them. While a cut runs,
//! the inode is locked: nobody learns the new generation before every owner has it, so no write
//! under it can be cut by mistake. Cuts of removed inodes run in the background.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use ringfs_store::{HeadSlot, PendingCut, Record, namespace, xattrs};
use ringfs_wire::{
    AnyRequest, AttributeChanges, Attributes, Cut, DiscardTail, Errno, Generation, HEAD_SIZE,
    InodeNumber, InodeType, SessionId, SpaceChange, Status, TargetId, Wire,
};

use crate::coherence::WRITTEN;
use crate::data::SIZE_MAX;
use crate::locks::{Held, Holder, LockKey};
use crate::metadata::apply;
use crate::mutations::is_defective;
use crate::target::{Answer, Caller, RETRY_PAUSE, Target, reply};

/// What a resize does to an inode.
pub(crate) struct Resize<'a> {
    /// New size; `None` keeps it and only cuts what lies beyond.
    pub(crate) size: Option<u64>,
    pub(crate) changes: &'a AttributeChanges,
    /// Whose leases it spares.
    pub(crate) session: SessionId,
    /// Whom it is answered to; nobody when it drops what a writer has left who cannot report it.
    pub(crate) caller: Option<Caller>,
    /// Cut at every target, also beyond what was announced, and go above this generation.
    pub(crate) above: Option<Generation>,
    /// Bytes allocated for chunks that are not counted yet.
    pub(crate) allocated: i64,
}

impl Resize<'_> {
    /// What is to be cut from the chunks when a file from `before` ends at `at`: beyond the head
    /// everything up to its reach may hold bytes that were never acknowledged.
    fn cut(&self, inode: InodeNumber, before: &Attributes, at: u64) -> Option<PendingCut> {
        let is_forced = self.above.is_some();
        let reach = if is_forced { SIZE_MAX } else { before.reach };
        (reach > at.max(HEAD_SIZE)).then(|| PendingCut {
            inode,
            generation: self.generation(before, at, true),
            // Where chunks hold nothing of the file, a forced cut leaves nothing.
            length: if is_forced && at <= HEAD_SIZE { 0 } else { at },
            reach,
            chunk_size: before.chunk_size,
            final_cut: false,
        })
    }

    /// The content generation afterwards. Clients count on it: within one generation a size only
    /// grows.
    fn generation(&self, before: &Attributes, at: u64, cuts_chunks: bool) -> Generation {
        if !cuts_chunks && at >= before.size {
            return before.generation;
        }
        Generation(before.generation.max(self.above.unwrap_or_default()).0 + 1)
    }
}

impl Target {
    /// Truncates or extends a file, together with other attribute changes.
    pub(crate) async fn set_size(
        &self,
        inode: InodeNumber,
        size: u64,
        changes: &AttributeChanges,
        caller: Caller,
    ) -> Answer {
        if size > SIZE_MAX {
            return Err(Errno::EFBIG.into());
        }
        let session = caller.session;
        let caller = Some(caller);
        let resize =
            Resize { size: Some(size), changes, session, caller, above: None, allocated: 0 };
        reply(&self.resize(inode, resize).await?)
    }

    pub(crate) async fn discard_tail(&self, request: &DiscardTail, caller: Caller) -> Answer {
        let changes = AttributeChanges::default();
        let session = caller.session;
        let changes = &changes;
        let (caller, allocated) = (Some(caller), request.allocated);
        let resize = Resize { size: None, changes, session, caller, above: None, allocated };
        reply(&self.resize(request.inode, resize).await?)
    }

    pub(crate) async fn resize(
        &self,
        inode: InodeNumber,
        resize: Resize<'_>,
    ) -> Result<Attributes, Status> {
        let _claim = self.claim(resize.session, &[(inode, WRITTEN)]).await?;
        let held = Held::new(&self.locks, self.locks.task());
        let keys = [LockKey::Content(inode), LockKey::Inode(inode)];
        self.locks.lock(&self.platform, &keys, held.holder()).await?;
        let before = self.resizable(inode)?;
        let size = resize.size.unwrap_or(before.size);
        self.room(size > before.size)?;
        let at = size.min(before.size);
        let head_lock = self.store.lock_inode(inode).await;
        let head = self.resized_head(inode, &before, at).await?;
        let cut = resize.cut(inode, &before, at);
        let cuts_chunks = cut.is_some();
        let now = self.now();
        let mut tx = self.store.transaction();
        namespace::change(&mut tx, inode, |inode| {
            if resize.size.is_some() {
                inode.attributes.modified = now;
            }
            apply(&mut inode.attributes, resize.changes, now);
            inode.attributes.size = size;
            if let Some(head) = head {
                inode.place_head(head);
            }
            inode.attributes.account(resize.allocated);
            if at <= HEAD_SIZE {
                inode.lose_chunks();
            }
            inode.attributes.generation = resize.generation(&before, at, cuts_chunks);
            if cuts_chunks {
                inode.attributes.reach = if at > HEAD_SIZE { at } else { 0 };
            }
        });
        xattrs::follow_changes(&mut tx, inode, resize.changes);
        let mut after = self.attributes_of(inode)?;
        if let Some(cut) = cut {
            tx.put(Record::PutCut { cut });
        }
        if let Some(caller) = resize.caller {
            self.record_reply(&mut tx, caller, &after.to_bytes());
        }
        let position = tx.commit();
        drop(head_lock);
        self.cleaned.borrow_mut().insert(inode);
        if !cuts_chunks {
            // Final as other cuts beyond the head, though only a hole is cut off.
            if before.size > at.max(HEAD_SIZE) {
                self.synced(position).await?;
            }
        } else {
            // What a writer left who is gone was never counted.
            self.drive_cut(inode, held.keep(), resize.caller.is_some());
            if !is_defective!(self, answer_cut_early) {
                self.locks.free(&self.platform, &[LockKey::Inode(inode)]).await?;
            }
            if let Ok(now) = self.attributes_of(inode) {
                after.allocated = now.allocated;
            }
        }
        Ok(after)
    }

    fn resizable(&self, inode: InodeNumber) -> Result<Attributes, Status> {
        let found = self.attributes_of(inode).map_err(|_| Errno::ESTALE)?;
        match found.kind {
            InodeType::File => Ok(found),
            InodeType::Directory => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// The head slot after cutting at `at`, when it changes.
    async fn resized_head(
        &self,
        inode: InodeNumber,
        before: &Attributes,
        at: u64,
    ) -> Result<Option<Option<HeadSlot>>, Status> {
        if at >= before.size.min(HEAD_SIZE) {
            return Ok(None);
        }
        let found = self.store.state().inodes.get(&inode).map(|found| (**found).clone());
        let slot = self.store.shrink_head(&found.ok_or(Errno::ESTALE)?, at).await;
        Ok(Some(slot.map_err(|error| error.status())?))
    }

    /// A stored reply of a cut that is still running must not be given out yet.
    pub(crate) async fn settled(&self, request: &AnyRequest) -> Result<(), Status> {
        let inode = match request {
            AnyRequest::MetadataUpdate(request) => request.inode,
            AnyRequest::DiscardTail(request) => request.inode,
            _ => return Ok(()),
        };
        self.locks.free(&self.platform, &[LockKey::Inode(inode)]).await
    }

    /// Before the first announcement of new writes since this start, or the first extension by who
    /// needed none: what writers of the last life left beyond the size goes.
    pub(crate) async fn clean_tail(
        &self,
        inode: InodeNumber,
        session: SessionId,
    ) -> Result<(), Status> {
        let found = self.attributes_of(inode).map_err(|_| Errno::ESTALE)?;
        let may_be_dirty = found.reach > found.size.max(HEAD_SIZE);
        let is_clean = self.cleaned.borrow().contains(&inode) || is_defective!(self, keep_old_tail);
        if may_be_dirty && !is_clean {
            let changes = &AttributeChanges::default();
            let resize =
                Resize { size: None, changes, session, caller: None, above: None, allocated: 0 };
            self.resize(inode, resize).await?;
        }
        self.cleaned.borrow_mut().insert(inode);
        Ok(())
    }

    /// Cuts what a dead writer may have left beyond the size.
    pub(crate) fn cut_dead_tail(&self, inode: InodeNumber) {
        let dirty = self.attributes_of(inode).is_ok_and(|found| {
            found.kind == InodeType::File && found.reach > found.size.max(HEAD_SIZE)
        });
        if !dirty {
            return;
        }
        self.cleaned.borrow_mut().remove(&inode);
        let target = self.shared();
        self.platform.spawn(async move {
            // If this fails, the tail stays marked and the next writer's announcement cuts it.
            let _ = target.clean_tail(inode, SessionId::default()).await;
        });
    }

    /// Owner: raises the generation and drops everything from a length on.
    pub(crate) async fn cut(&self, request: &Cut) -> Answer {
        reply(&self.cut_here(request).await?)
    }

    async fn cut_here(&self, request: &Cut) -> Result<SpaceChange, Status> {
        let Cut { inode, generation, length, chunk_size } = *request;
        let chunk_size = chunk_size.max(1);
        let cut = self.store.cut_chunks(inode, generation, length, chunk_size).await;
        let allocated = cut.map_err(|error| error.status())?;
        // The home counts on what was cut staying gone: a later extension must read as zeros.
        if !is_defective!(self, unsynced_cut) {
            self.store.sync_inode(inode).await.map_err(|error| error.status())?;
        }
        Ok(SpaceChange { allocated })
    }

    /// Runs the pending cut of an inode, whose lock `holder` has, to its end.
    fn drive_cut(&self, inode: InodeNumber, holder: Holder, accounts: bool) {
        let target = self.shared();
        self.platform.spawn(async move {
            let _held = Held::new(&target.locks, holder);
            target.carry_out(inode, accounts).await;
        });
    }

    /// Runs the pending cut of a removed inode, if it has one.
    pub(crate) fn drive_final_cut(&self, inode: InodeNumber) {
        self.cleaned.borrow_mut().remove(&inode);
        let is_final = self.store.state().cuts.get(&inode).is_some_and(|cut| cut.final_cut);
        if is_final {
            let target = self.shared();
            self.platform.spawn(async move { target.carry_out(inode, false).await });
        }
    }

    /// `accounts` says whether what it frees was counted.
    async fn carry_out(&self, inode: InodeNumber, accounts: bool) {
        let Some(cut) = self.store.state().cuts.get(&inode).cloned() else { return };
        if self.synced(self.store.position()).await.is_err() {
            return;
        }
        let owners = self.owners_of(&cut);
        let freed = join_all(owners.into_iter().map(|owner| self.cut_at(owner, &cut))).await;
        let mut tx = self.store.transaction();
        tx.put(Record::DeleteCut { inode });
        if accounts {
            let freed = freed.iter().fold(0, |sum: i64, change| sum.saturating_add(*change));
            namespace::account_cut(&mut tx, &cut, freed);
        }
        tx.commit();
    }

    async fn cut_at(&self, owner: TargetId, cut: &PendingCut) -> i64 {
        let request = Cut {
            inode: cut.inode,
            generation: cut.generation,
            length: cut.length,
            chunk_size: cut.chunk_size,
        };
        loop {
            let done = if owner == self.id {
                self.cut_here(&request).await
            } else {
                self.call(owner, &request, None).await.map(|response| response.reply)
            };
            if let Ok(change) = done {
                return change.allocated;
            }
            self.platform.sleep(RETRY_PAUSE).await;
        }
    }

    /// The owners of every chunk a cut may have to drop.
    fn owners_of(&self, cut: &PendingCut) -> BTreeSet<TargetId> {
        let chunk = u64::from(cut.chunk_size.max(1));
        let chunks = cut.length / chunk..cut.reach.div_ceil(chunk);
        let targets = self.map.targets();
        // With many chunks every target has some; asking the ring for each would only cost time.
        if chunks.end.saturating_sub(chunks.start) > 8 * targets.len() as u64 {
            return targets.iter().map(|entry| entry.id).collect();
        }
        chunks.map(|index| self.map.chunk_owner(cut.inode, index)).collect()
    }

    /// After a restart: every pending cut goes on; inodes being cut are locked again.
    pub(crate) fn resume_cuts(&self) {
        let cuts: Vec<_> = self.store.state().cuts.values().cloned().collect();
        for cut in cuts {
            if cut.final_cut {
                self.drive_final_cut(cut.inode);
                continue;
            }
            let holder = self.locks.task();
            let keys = [LockKey::Content(cut.inode), LockKey::Inode(cut.inode)];
            let taken = self.locks.try_lock(&keys, holder);
            assert!(taken.is_ok(), "an inode being cut is in no other operation");
            self.drive_cut(cut.inode, holder, true);
        }
    }
}
