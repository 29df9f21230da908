//! Correcting single records, as a check of the cluster asks for.
//!
//! Invariant: nothing is done unless what the request names is still so here and no operation is
//! at work on it; so a request that is repeated, late or based on an old look changes nothing. The
//! answer leaves when the change is durable. What may be repaired at all is the checker's decision.

use ringfs_store::{Record, namespace};
use ringfs_wire::{
    AttributeChanges, ChunkRange, DirectoryPlace, Generation, InodeNumber, InodeType, Lease, Name,
    Repair, RepairRecord, SessionId, Status, Step, Timestamp,
};

use crate::cut::Resize;
use crate::locks::{Held, LockKey};
use crate::operation::{Operation, Plan};
use crate::target::{Answer, Caller, Target, reply};

/// Repairs belong to no session.
const NOBODY: Caller = Caller { session: SessionId(0), slot: 0, sequence: 0 };

impl Target {
    pub(crate) async fn repair(&self, request: &RepairRecord) -> Answer {
        self.room(false)?;
        let repaired = match request.repair.clone() {
            Repair::DropChunks { inode } => self.drop_chunks(inode).await?,
            Repair::PunchChunks { inode, chunk_size, chunks } => {
                self.punch_foreign(inode, chunk_size, chunks).await?
            }
            Repair::CutTail { inode, above } => self.cut_tail(inode, above).await?,
            Repair::SetLinks { inode, changed, links } => {
                self.set_links(inode, changed, links).await?
            }
            Repair::CountDirectory { inode } => self.count_directory(inode).await?,
            Repair::SetPlace { inode, changed, place } => {
                self.set_place(inode, changed, place).await?
            }
            Repair::Adopt { directory, name, inode, kind } => {
                self.adopt(directory, name, inode, kind).await?
            }
            Repair::Free { inode, changed } => self.free(inode, changed).await?,
            Repair::ForgetSegment { inode, run } => {
                let forgotten = self.store.forget_missing_segment(inode, run).await;
                forgotten.map_err(|error| error.status())?
            }
            Repair::DropName { directory, name, inode } => {
                self.drop_name(directory, name, inode).await?
            }
        };
        if repaired {
            tracing::warn!(target = %self.id, repair = ?request.repair, "repaired");
            self.synced(self.store.position()).await?;
        }
        reply(&repaired)
    }

    /// Owner: chunks of an inode that is gone for good; its number is never used again.
    async fn drop_chunks(&self, inode: InodeNumber) -> Result<bool, Status> {
        if self.store.state().inodes.contains_key(&inode) {
            return Ok(false);
        }
        let floor = self.store.state().floors.get(&inode).copied();
        let generation = Generation(floor.map_or(1, |floor| floor.generation.0.saturating_add(1)));
        let chunk_size = floor.map_or(self.map.chunk_size(), |floor| floor.chunk_size);
        let cut = self.store.cut_chunks(inode, generation, 0, chunk_size).await;
        cut.map_err(|error| error.status())?;
        self.store.sync_inode(inode).await.map_err(|error| error.status())?;
        Ok(true)
    }

    /// Chunks that the map puts elsewhere: nobody reads or writes them here.
    async fn punch_foreign(
        &self,
        inode: InodeNumber,
        chunk_size: u32,
        chunks: ChunkRange,
    ) -> Result<bool, Status> {
        let ChunkRange { start, end } = chunks;
        let is_ours = |index| self.map.chunk_owner(inode, index) == self.id;
        if start >= end || end - start > ringfs_wire::ALLOCATE_CHUNKS_MAX || chunk_size == 0 {
            return Err(Status::Malformed);
        }
        if (start..end).any(is_ours) {
            return Ok(false);
        }
        let size = u64::from(chunk_size);
        let range = start.saturating_mul(size)..end.saturating_mul(size);
        let any = Generation(u64::MAX);
        let punched = self.store.punch_chunks(inode, any, chunk_size, range).await;
        punched.map_err(|error| error.status())?;
        self.store.sync_inode(inode).await.map_err(|error| error.status())?;
        Ok(true)
    }

    /// Home: a cut at the size that every target hears of, whatever was announced.
    async fn cut_tail(&self, inode: InodeNumber, above: Generation) -> Result<bool, Status> {
        let known = self.attributes_of(inode);
        if !known.is_ok_and(|known| known.kind == InodeType::File && known.generation <= above) {
            return Ok(false);
        }
        let changes = AttributeChanges::default();
        let resize = Resize {
            size: None,
            changes: &changes,
            session: NOBODY.session,
            caller: None,
            above: Some(above),
            allocated: 0,
        };
        self.resize(inode, resize).await?;
        Ok(true)
    }

    /// Takes back what others cache of an inode, locks it, and runs `change`, unless the inode has
    /// changed since `changed` or is gone.
    async fn correct(
        &self,
        inode: InodeNumber,
        changed: Option<Timestamp>,
        leases: Lease,
        change: impl FnOnce(&mut ringfs_store::Inode),
    ) -> Result<bool, Status> {
        let _claim = self.claim(NOBODY.session, &[(inode, leases)]).await?;
        let held = Held::new(&self.locks, self.locks.task());
        let keys = [LockKey::Content(inode), LockKey::Inode(inode)];
        self.locks.lock(&self.platform, &keys, held.holder()).await?;
        let known = self.attributes_of(inode);
        if !known.is_ok_and(|known| changed.is_none_or(|changed| known.changed == changed)) {
            return Ok(false);
        }
        let now = self.now();
        let mut tx = self.store.transaction();
        namespace::change(&mut tx, inode, |inode| {
            change(inode);
            inode.attributes.changed = now;
        });
        tx.commit();
        Ok(true)
    }

    async fn set_links(
        &self,
        inode: InodeNumber,
        changed: Timestamp,
        links: u32,
    ) -> Result<bool, Status> {
        let is_file = |target: &Self| {
            target.attributes_of(inode).is_ok_and(|known| known.kind != InodeType::Directory)
        };
        if !is_file(self) || links == 0 {
            return Ok(false);
        }
        let correct = |inode: &mut ringfs_store::Inode| inode.attributes.links = links;
        self.correct(inode, Some(changed), Lease::ATTRIBUTES, correct).await
    }

    async fn count_directory(&self, inode: InodeNumber) -> Result<bool, Status> {
        let known = self.attributes_of(inode);
        if !known.is_ok_and(|known| known.kind == InodeType::Directory && known.links > 0) {
            return Ok(false);
        }
        let leases = Lease::ATTRIBUTES.or(Lease::CONTENT);
        let store = self.store.clone();
        let correct = |inode: &mut ringfs_store::Inode| {
            let number = inode.attributes.inode;
            let state = store.state();
            let inside = state.dentries.range((number, 0)..=(number, u64::MAX));
            let (mut entries, mut subdirectories) = (0, 0);
            for (_, entry) in inside {
                entries += 1;
                subdirectories += u32::from(entry.kind == InodeType::Directory);
            }
            inode.attributes.size = entries;
            inode.attributes.links = 2 + subdirectories;
        };
        self.correct(inode, None, leases, correct).await
    }

    async fn set_place(
        &self,
        inode: InodeNumber,
        changed: Timestamp,
        place: DirectoryPlace,
    ) -> Result<bool, Status> {
        let known = self.attributes_of(inode);
        let is_directory = known.is_ok_and(|known| known.kind == InodeType::Directory);
        if !is_directory || inode == InodeNumber::ROOT {
            return Ok(false);
        }
        let DirectoryPlace { parent, name } = place;
        let correct = |inode: &mut ringfs_store::Inode| {
            inode.attributes.parent = parent;
            *inode = inode.clone().with_name(name);
        };
        self.correct(inode, Some(changed), Lease::ALL, correct).await
    }

    /// Home of a directory: enters a name for an inode that has none, as one operation.
    async fn adopt(
        &self,
        directory: InodeNumber,
        name: Name,
        inode: InodeNumber,
        kind: InodeType,
    ) -> Result<bool, Status> {
        let held = namespace::find(&self.store.state(), directory, &name);
        if let Some(held) = held {
            return Ok(held.inode == inode);
        }
        let mut plan = Plan::new(self);
        let put = Step::PutName { directory, name: name.clone(), inode, kind, replaces: None };
        plan.add(directory, put, inode);
        plan.add(inode, Step::Move { inode, directory, name }, inode);
        let _claim = plan.claim(self, NOBODY).await?;
        let operation = Operation::begin(self, NOBODY).await?;
        plan.run_in(operation, None).await?;
        Ok(true)
    }

    /// Home: removes an inode without a name. What counts names that nobody has may hold no
    /// content; what counts none goes as if its last user had closed it.
    async fn free(&self, inode: InodeNumber, changed: Timestamp) -> Result<bool, Status> {
        let Ok(known) = self.attributes_of(inode) else { return Ok(false) };
        let is_empty = match known.kind {
            InodeType::File => known.size == 0,
            InodeType::Directory => namespace::is_empty(&self.store.state(), inode),
            _ => false,
        };
        if self.is_referenced(inode) {
            return Err(Status::Busy);
        }
        if known.links > 0 && !is_empty || known.changed != changed || inode == InodeNumber::ROOT {
            return Ok(false);
        }
        let unlink = |inode: &mut ringfs_store::Inode| inode.attributes.links = 0;
        let unlinked = self.correct(inode, Some(changed), Lease::ALL, unlink).await?;
        if unlinked {
            self.reap(inode);
        }
        Ok(unlinked)
    }

    /// Home of a directory: takes a name away whose inode is known to be gone.
    async fn drop_name(
        &self,
        directory: InodeNumber,
        name: Name,
        inode: InodeNumber,
    ) -> Result<bool, Status> {
        let key = LockKey::Name(directory, name.clone());
        let claimed = [(directory, Lease::CONTENT)];
        let _claim = self.claim(NOBODY.session, &claimed).await?;
        self.locks.free(&self.platform, std::slice::from_ref(&key)).await?;
        let found = namespace::find(&self.store.state(), directory, &name);
        let Some(entry) = found.filter(|entry| entry.inode == inode) else { return Ok(false) };
        if self.store.state().inodes.contains_key(&inode) {
            return Ok(false);
        }
        let (has_directory, now) = (self.store.state().inodes.contains_key(&directory), self.now());
        let mut tx = self.store.transaction();
        tx.put(Record::DeleteDentry { directory, cookie: entry.cookie });
        if has_directory {
            namespace::change(&mut tx, directory, |parent| {
                let attributes = &mut parent.attributes;
                let lost = u32::from(entry.kind == InodeType::Directory);
                attributes.links = attributes.links.saturating_sub(lost);
                attributes.size = attributes.size.saturating_sub(1);
                attributes.modified = now;
                attributes.changed = now;
            });
        }
        tx.commit();
        Ok(true)
    }
}
