//! Open files: the handle, and the state that all handles of one file share.
//!
//! Invariant: the attributes kept here are hints. No operation succeeds on their word alone: the
//! home, whose unsynced changes a power loss may have undone, has confirmed size and generation
//! during the operation; but for reads below a size that the home has called settled. Of two replies that may have overtaken each other the newer is kept; a
//! reply to a question during which nothing else arrived is kept even if it goes back.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::lock::Mutex;
use ringfs_platform::Slice;
use ringfs_rpc::Response;
use ringfs_wire::{
    Attributes, Errno, Generation, HEAD_SIZE, HeadRead, HeadReadReply, InodeNumber, Request,
    SpaceChange, Sync, TargetId, Timestamp,
};

use crate::client::{Client, Deadline};
use crate::error::{ClientError, Subject};
use crate::mutations::is_defective;
use crate::open::OpenMode;
use crate::read_ahead::ReadAhead;
use crate::session::Session;
use crate::stripe::chunk_part;
use crate::unsynced::ToldLosses;

/// With more chunks per target than this, a sync asks all targets instead of computing owners.
const CHUNKS_PER_TARGET_COMPUTED: u64 = 64;

/// One count on a session's reference; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reference {
    references: Rc<crate::references::References>,
    inode: InodeNumber,
}

impl Reference {
    pub(crate) async fn count(session: &Rc<Session>, inode: InodeNumber) -> Self {
        let references = session.references.clone();
        references.count(inode).await;
        Self { references, inode }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.references.release(self.inode);
    }
}

/// How far data is written and how far the home knows.
#[derive(Debug, Default)]
pub(crate) struct Extension {
    /// Held by whoever tells the home of a write.
    pub(crate) sending: Mutex<()>,
    /// Highest end of a write that the home is to be told of, and the generation it was written
    /// under.
    pub(crate) pending: Cell<(Generation, u64)>,
    /// How many requests were begun.
    pub(crate) begun: Cell<u64>,
    /// The latest that succeeded: which one it was, its generation, and the size after it.
    pub(crate) told: Cell<(u64, Generation, u64)>,
}

impl Extension {
    pub(crate) fn add_pending(&self, generation: Generation, end: u64) {
        let (pending_under, pending) = self.pending.get();
        if generation > pending_under {
            self.pending.set((generation, end));
        } else if generation == pending_under {
            self.pending.set((generation, end.max(pending)));
        }
    }
}

/// How long a settled size is used. Owners remember cuts longer than this and the longest read.
const SETTLED_LIFETIME: Duration = Duration::from_secs(10);

/// A size that the file keeps under one generation, and until when to count on it.
#[derive(Clone, Copy, Debug, Default)]
struct Settled {
    generation: Generation,
    size: u64,
    until: Duration,
}

/// What the handles of a file share.
pub(crate) struct FileState {
    pub(crate) client: Client,
    /// The one it was opened under; the reference is the session's.
    session: Rc<Session>,
    attributes: RefCell<Attributes>,
    /// Counts the replies taken over.
    replies: Cell<u64>,
    /// What the home told after the latest change through this state.
    told: RefCell<Option<Attributes>>,
    /// How far data is written and how far the home knows.
    pub(crate) extension: Extension,
    /// Bytes that owners have reported as allocated for chunks, less those freed, and that the
    /// home has not been told of.
    unreported: Cell<i64>,
    settled: Cell<Settled>,
    /// The last change after which the home was told that somebody reads.
    touched: Cell<Timestamp>,
    /// Held by whoever announces a reach.
    pub(crate) reserving: Mutex<()>,
    /// None where another client of the process holds the inode.
    reference: RefCell<Option<Reference>>,
}

impl FileState {
    pub(crate) fn new(
        client: &Client,
        session: &Rc<Session>,
        attributes: Attributes,
        reference: Option<Reference>,
    ) -> Self {
        // The state serves handles of every user: checks happen when a handle is made.
        let client = Client { shared: client.shared.clone(), credentials: None };
        Self {
            client,
            session: session.clone(),
            attributes: RefCell::new(attributes),
            replies: Cell::new(0),
            told: RefCell::default(),
            extension: Extension::default(),
            unreported: Cell::new(0),
            settled: Cell::default(),
            touched: Cell::default(),
            reserving: Mutex::default(),
            reference: RefCell::new(reference),
        }
    }

    pub(crate) fn is_of(&self, session: &Rc<Session>) -> bool {
        Rc::ptr_eq(&self.session, session)
    }

    /// Takes a reference over, which lasts as long as the state.
    pub(crate) fn hold(&self, reference: Reference) {
        let surplus = self.reference.borrow_mut().replace(reference);
        drop(surplus);
    }

    pub(crate) fn attributes(&self) -> Ref<'_, Attributes> {
        self.attributes.borrow()
    }

    pub(crate) fn inode(&self) -> InodeNumber {
        self.attributes.borrow().inode
    }

    /// The session of this file, unless the client has moved on to another. A file that another
    /// client holds does not depend on this one's session.
    pub(crate) fn session(&self) -> Result<Rc<Session>, ClientError> {
        if self.reference.borrow().is_none() {
            return Ok(self.client.current_session());
        }
        if self.session.has_ended() { Err(Errno::ESTALE.into()) } else { Ok(self.session.clone()) }
    }

    /// Carries out a change of the file's bytes, whose replies are accepted by this state: of the
    /// attributes that the process caches, only those of the last reply are left. The hints here
    /// would not do: they keep the largest size known, and a cut within the head lowers it without
    /// a new generation.
    pub(crate) async fn changing<T>(
        &self,
        change: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let begun = self.client.begin_change(&[self.inode()], &[]);
        self.told.take();
        let result = change.await;
        match &result {
            Ok(_) => begun.done(self.told.take().as_ref(), &[]),
            Err(error) => begun.failed(error),
        }
        result
    }

    /// A call to the home of this file.
    pub(crate) async fn call<R: Request>(
        &self,
        request: &R,
        bulk: Option<Slice>,
        deadline: Deadline,
    ) -> Result<Response<R::Reply>, ClientError> {
        let result =
            self.client.call_home(&self.session()?, self.inode(), request, bulk, deadline).await;
        result.map_err(|error| {
            // The reference did not hold it: the session was gone for a while.
            if error.is(Errno::ENOENT) { Errno::ESTALE.into() } else { error }
        })
    }

    /// Notes that an owner has changed chunks, and what it reported.
    pub(crate) fn note_chunks(&self, response: &Response<SpaceChange>) {
        self.client.shared.unsynced.changed(self.inode(), response.by);
        self.note_space(response.reply);
    }

    /// Notes what an owner has reported.
    pub(crate) fn note_space(&self, change: SpaceChange) {
        self.unreported.set(self.unreported.get().saturating_add(change.allocated));
    }

    /// A call to the home of this file that tells what owners have reported, and is answered with
    /// the attributes after it. If it may have been carried out, all that counts as told.
    pub(crate) async fn report<R: Request<Reply = Attributes>>(
        &self,
        request: impl FnOnce(i64) -> R,
        bulk: Option<Slice>,
        deadline: Deadline,
    ) -> Result<Attributes, ClientError> {
        let allocated = self.unreported.take();
        let response = self.call(&request(allocated), bulk, deadline).await;
        if response.as_ref().is_err_and(|error| !error.is_outcome_unknown()) {
            self.note_space(SpaceChange { allocated });
        }
        let attributes = response?.reply;
        self.accept(&attributes)?;
        Ok(attributes)
    }

    /// Asks for the attributes after a request that was refused as stale. Of a file that has lost
    /// all its chunks nothing is left to be told.
    pub(crate) async fn refresh_stale(
        &self,
        deadline: Deadline,
    ) -> Result<Attributes, ClientError> {
        let known = self.refresh(deadline).await?;
        if known.reach <= HEAD_SIZE {
            self.unreported.set(0);
        }
        Ok(known)
    }

    /// Takes over attributes that a server sent, unless newer ones are known. Within one
    /// generation size and reach only grow, because every shrink is a new generation.
    pub(crate) fn adopt(&self, new: &Attributes) {
        let mut known = self.attributes.borrow_mut();
        if new.inode != known.inode || new.generation < known.generation {
            return;
        }
        self.replies.set(self.replies.get() + 1);
        let same = new.generation == known.generation;
        let (size, reach) = (known.size.max(new.size), known.reach.max(new.reach));
        if !same || new.changed >= known.changed {
            *known = new.clone();
        }
        if same {
            known.size = size;
            known.reach = reach;
        }
    }

    /// Checks and takes over the attributes that the home told after a change.
    pub(crate) fn accept(&self, attributes: &Attributes) -> Result<(), ClientError> {
        self.accept_hint(attributes)?;
        *self.told.borrow_mut() = Some(attributes.clone());
        Ok(())
    }

    fn accept_hint(&self, attributes: &Attributes) -> Result<(), ClientError> {
        if attributes.inode != self.inode() {
            let home = self.session.home(self.inode());
            return Err(ClientError::protocol(home, "attributes of another inode"));
        }
        self.client.note(attributes)?;
        self.adopt(attributes);
        Ok(())
    }

    /// Asks the home for the attributes of now.
    pub(crate) async fn refresh(&self, deadline: Deadline) -> Result<Attributes, ClientError> {
        Ok(self.read_head(0, 0, false, deadline).await?.0)
    }

    /// The attributes under which `range` can be read without asking the home: it lies in chunks,
    /// below a size that neither power loss nor, under this generation, anybody takes back. With
    /// `touch` the home must know that somebody has read since the last change: only it can move
    /// the access time.
    pub(crate) fn settled(&self, range: &Range<u64>, touch: bool) -> Option<Attributes> {
        let Settled { generation, size, until } = self.settled.get();
        let known = self.attributes();
        let holds = range.start >= HEAD_SIZE
            && range.end <= size
            && generation == known.generation
            && self.client.shared.platform.monotonic() < until
            && !(touch && self.is_unread(&known));
        holds.then(|| known.clone())
    }

    /// Whether nobody is known to have read since the last change.
    fn is_unread(&self, known: &Attributes) -> bool {
        known.accessed <= known.last_change() && self.touched.get() != known.last_change()
    }

    /// An owner knows of a newer generation.
    pub(crate) fn unsettle(&self) {
        self.settled.take();
    }

    /// Asks the home for attributes and bytes of the head; whether for somebody who reads. If
    /// nothing else arrived meanwhile, the reply counts even where it goes back.
    pub(crate) async fn read_head(
        &self,
        offset: u64,
        length: u32,
        touch: bool,
        deadline: Deadline,
    ) -> Result<(Attributes, Option<Slice>), ClientError> {
        let replies = self.replies.get();
        let request = HeadRead { inode: self.inode(), offset, length, touch };
        let until = self.client.shared.platform.monotonic() + SETTLED_LIFETIME;
        let response = self.call(&request, None, deadline).await?;
        let HeadReadReply { attributes, settled: size } = response.reply;
        let is_latest = self.replies.get() == replies;
        self.accept_hint(&attributes)?;
        if touch {
            self.touched.set(attributes.last_change());
            if let Some(cache) = &self.client.shared.cache {
                cache.note_access(&attributes);
            }
        }
        let generation = attributes.generation;
        self.settled.set(Settled { generation, size, until });
        if is_latest {
            *self.attributes.borrow_mut() = attributes.clone();
        }
        Ok((attributes, response.bulk))
    }

    /// The targets that may hold chunks of a range of the file.
    pub(crate) fn owners(&self, range: Range<u64>) -> BTreeSet<TargetId> {
        let map = self.client.map();
        let range = chunk_part(&range);
        if range.is_empty() {
            return BTreeSet::new();
        }
        let (inode, chunk_size) = (self.inode(), u64::from(self.attributes().chunk_size));
        let chunks = range.start / chunk_size..range.end.div_ceil(chunk_size);
        let computed_max = CHUNKS_PER_TARGET_COMPUTED * map.targets().len() as u64;
        if chunks.end - chunks.start > computed_max {
            return map.targets().iter().map(|entry| entry.id).collect();
        }
        chunks.map(|index| map.chunk_owner(inode, index)).collect()
    }

    /// Asks several targets the same, all at once; their answers in the order of the targets.
    pub(crate) async fn call_owners<R: Request>(
        &self,
        owners: &BTreeSet<TargetId>,
        request: &R,
        deadline: Deadline,
    ) -> Result<Vec<R::Reply>, ClientError> {
        let replies = self.ask_owners(owners, request, deadline).await?.into_iter();
        replies.map(|reply| reply.map(|response| response.reply)).collect()
    }

    /// As [`FileState::call_owners`], for a request that changes chunks: what is reported counts,
    /// also where others fail.
    pub(crate) async fn change_owners<R: Request<Reply = SpaceChange>>(
        &self,
        owners: &BTreeSet<TargetId>,
        request: &R,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let replies = self.ask_owners(owners, request, deadline).await?;
        replies.iter().flatten().for_each(|response| self.note_chunks(response));
        replies.into_iter().try_for_each(|reply| reply.map(drop))
    }

    async fn ask_owners<R: Request>(
        &self,
        owners: &BTreeSet<TargetId>,
        request: &R,
        deadline: Deadline,
    ) -> Result<Vec<Result<Response<R::Reply>, ClientError>>, ClientError> {
        let session = &self.session()?;
        let asked = join_all(owners.iter().map(|owner| async move {
            self.client.call_target(session, *owner, request, None, deadline).await
        }));
        Ok(asked.await)
    }

    async fn sync_owners(
        &self,
        owners: &BTreeSet<TargetId>,
        begun: u64,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let request = Sync { inode: Some(self.inode()) };
        let replies = self.ask_owners(owners, &request, deadline).await?;
        let unsynced = &self.client.shared.unsynced;
        replies.iter().flatten().for_each(|by| unsynced.synced(self.inode(), by.by, begun));
        replies.into_iter().try_for_each(|reply| reply.map(drop))
    }

    /// Owners first, the home last: a durable size never covers data that is not.
    async fn sync(&self) -> Result<(), ClientError> {
        let deadline = self.client.deadline();
        let unsynced = &self.client.shared.unsynced;
        let begun = unsynced.now();
        if is_defective!(self.client.shared.options, sync_home_only) {
            let request = Sync { inode: Some(self.inode()) };
            return self.call(&request, None, deadline).await.map(drop);
        }
        // Data that others have written counts too, and may reach further than is known here.
        let early = self.owners(0..self.attributes().reach);
        let (synced, refreshed) =
            join(self.sync_owners(&early, begun, deadline), self.refresh(deadline)).await;
        synced?;
        let now = refreshed?;
        let reach = now.reach.max(now.size);
        let late: BTreeSet<_> = self.owners(0..reach).difference(&early).copied().collect();
        self.sync_owners(&late, begun, deadline).await?;
        let synced = self.call(&Sync { inode: Some(self.inode()) }, None, deadline).await?;
        unsynced.synced(self.inode(), synced.by, begun);
        Ok(())
    }
}

impl Drop for FileState {
    fn drop(&mut self) {
        let inode = self.inode();
        if let Ok(mut files) = self.client.shared.files.try_borrow_mut()
            && files.get(&inode).is_some_and(|file| file.strong_count() == 0)
        {
            files.remove(&inode);
        }
    }
}

/// An open regular file. Clones are one handle. Several tasks may use it at the same time.
///
/// Dropping the last clone closes it. Nothing is delayed until then.
#[derive(Clone)]
pub struct OpenFile {
    pub(crate) file: Rc<FileState>,
    mode: OpenMode,
    /// Whether reads move the access time.
    pub(crate) touches: bool,
    pub(crate) ahead: Rc<ReadAhead>,
    told: ToldLosses,
}

impl OpenFile {
    pub(crate) fn new(file: Rc<FileState>, mode: OpenMode) -> Self {
        let touches = file.client.shared.options.access_times;
        let told = file.client.shared.unsynced.told();
        Self { file, mode, touches, ahead: Rc::default(), told }
    }

    /// The same file for reads that leave its access time alone.
    pub fn without_access_time(mut self) -> Self {
        self.touches = false;
        self
    }

    /// The same handle in another client of the process.
    pub(crate) fn sharing(self, told: &ToldLosses) -> Self {
        Self { told: told.clone(), ..self }
    }

    /// Which losses it has been told of.
    pub fn told_losses(&self) -> &ToldLosses {
        &self.told
    }

    /// The inode.
    pub fn inode(&self) -> InodeNumber {
        self.file.inode()
    }

    /// How it was opened.
    pub fn mode(&self) -> OpenMode {
        self.mode
    }

    /// The attributes as of the latest reply about this file.
    pub fn attributes(&self) -> Attributes {
        self.file.attributes().clone()
    }

    /// The attributes as of now.
    pub async fn refresh(&self) -> Result<Attributes, ClientError> {
        let refreshed = self.file.refresh(self.file.client.deadline()).await;
        refreshed.map_err(|error| self.explain(error, "read the attributes of"))
    }

    /// Cuts the file to `size` bytes, or extends it with zeros.
    pub async fn truncate(&self, size: u64) -> Result<(), ClientError> {
        let result = async {
            self.check_write()?;
            self.file.session()?;
            self.file.client.truncate(self.inode(), size).await
        };
        let attributes = result.await.map_err(|error| self.explain(error, "truncate"))?;
        self.file.adopt(&attributes);
        Ok(())
    }

    /// Makes contents and attributes durable, whichever client wrote them. `EIO`, once, if some of
    /// what this process changed since its last sync may be lost.
    pub async fn sync(&self) -> Result<(), ClientError> {
        let result = async {
            self.file.sync().await?;
            Ok(self.file.client.shared.unsynced.tell(self.inode(), &self.told)?)
        };
        result.await.map_err(|error| self.explain(error, "sync"))
    }

    /// Closes the handle. Does not make anything durable that was not.
    pub async fn close(self) -> Result<(), ClientError> {
        Ok(())
    }

    pub(crate) fn check_read(&self) -> Result<(), Errno> {
        if self.mode.read { Ok(()) } else { Err(Errno::EBADF) }
    }

    pub(crate) fn check_write(&self) -> Result<(), Errno> {
        if self.mode.write { Ok(()) } else { Err(Errno::EBADF) }
    }

    pub(crate) fn explain(&self, error: ClientError, operation: &'static str) -> ClientError {
        error.during(operation, Subject::Inode(self.inode()))
    }
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenFile({}, {:?})", self.inode(), self.mode)
    }
}
