//! Open files: the handle, and the state that all handles of one file share.
//!
//! Invariant: the attributes kept here never go back: of two replies, the one with the newer
//! generation, then the newer change time wins, and within one generation the size only grows,
//! because every shrink is a new generation.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::lock::Mutex;
use ringfs_wire::{
    Attributes, Errno, Extend, Generation, HEAD_SIZE, HeadRead, InodeNumber, Status, Sync,
    TargetId, Timestamp,
};

use crate::client::{Client, Deadline};
use crate::error::{ClientError, Subject};
use crate::open::OpenMode;
use crate::session::Session;

/// How long the home may not know of the times of an overwrite.
const TIMES_DELAY_MAX: Duration = Duration::from_secs(1);

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

/// What the handles of a file share.
pub(crate) struct FileState {
    pub(crate) client: Client,
    session: Rc<Session>,
    attributes: RefCell<Attributes>,
    /// Highest end whose data is written, under the generation it was written under.
    pub(crate) written: Cell<(Generation, u64)>,
    /// Held by whoever tells the home a new size.
    pub(crate) extending: Mutex<()>,
    /// Held by whoever announces a reach.
    pub(crate) reserving: Mutex<()>,
    /// When the last overwrite happened, if the home does not know.
    times: Cell<Option<Timestamp>>,
    _reference: Reference,
}

impl FileState {
    pub(crate) fn new(
        client: &Client,
        session: &Rc<Session>,
        attributes: Attributes,
        reference: Reference,
    ) -> Self {
        // The state serves handles of every user: checks happen when a handle is made.
        let client = Client { shared: client.shared.clone(), credentials: None };
        Self {
            client,
            session: session.clone(),
            written: Cell::new((attributes.generation, 0)),
            attributes: RefCell::new(attributes),
            extending: Mutex::default(),
            reserving: Mutex::default(),
            times: Cell::new(None),
            _reference: reference,
        }
    }

    pub(crate) fn is_of(&self, session: &Rc<Session>) -> bool {
        Rc::ptr_eq(&self.session, session)
    }

    pub(crate) fn attributes(&self) -> Ref<'_, Attributes> {
        self.attributes.borrow()
    }

    pub(crate) fn inode(&self) -> InodeNumber {
        self.attributes.borrow().inode
    }

    /// The session of this file, unless the client has moved on to another.
    pub(crate) fn session(&self) -> Result<&Rc<Session>, ClientError> {
        if self.session.has_ended() { Err(Errno::ESTALE.into()) } else { Ok(&self.session) }
    }

    /// A call to the home of this file.
    pub(crate) async fn call<R: ringfs_wire::Request>(
        &self,
        request: &R,
        bulk: Option<ringfs_platform::Slice>,
        deadline: Deadline,
    ) -> Result<ringfs_rpc::Response<R::Reply>, ClientError> {
        let result =
            self.client.call_home(self.session()?, self.inode(), request, bulk, deadline).await;
        result.map_err(|error| {
            // The reference did not hold it: the session was gone for a while.
            if error.is(Errno::ENOENT) { Errno::ESTALE.into() } else { error }
        })
    }

    /// Takes over attributes that a server sent.
    pub(crate) fn adopt(&self, new: &Attributes) {
        let mut known = self.attributes.borrow_mut();
        let order = |attributes: &Attributes| (attributes.generation, attributes.changed);
        if new.inode != known.inode || new.generation < known.generation {
            return;
        }
        let same = new.generation == known.generation;
        let (size, reach) = (known.size.max(new.size), known.reach.max(new.reach));
        if order(new) >= order(&known) {
            *known = new.clone();
        }
        if same {
            known.size = size;
            known.reach = reach;
        }
    }

    /// Checks and takes over the attributes of a reply.
    pub(crate) fn accept(&self, attributes: &Attributes) -> Result<(), ClientError> {
        if attributes.inode != self.inode() {
            let home = self.session.home(self.inode());
            return Err(ClientError::protocol(home, "attributes of another inode"));
        }
        self.client.note(attributes)?;
        self.adopt(attributes);
        Ok(())
    }

    /// Asks the home for the attributes of now.
    pub(crate) async fn refresh(&self, deadline: Deadline) -> Result<(), ClientError> {
        let request = HeadRead { inode: self.inode(), offset: 0, length: 0 };
        let response = self.call(&request, None, deadline).await?;
        self.accept(&response.reply)
    }

    /// Notes that contents changed within the size; the home learns the time within a second.
    pub(crate) fn note_overwrite(self: &Rc<Self>, when: Timestamp) {
        if self.times.replace(Some(when)).is_some() {
            return;
        }
        let (file, platform) = (self.clone(), self.client.shared.platform.clone());
        self.client.shared.platform.spawn(async move {
            platform.sleep(TIMES_DELAY_MAX).await;
            if let Err(error) = file.flush_times().await {
                tracing::warn!(%error, "the time of a write did not reach the file's home");
            }
        });
    }

    /// Tells the home the time of overwrites it does not know of.
    pub(crate) async fn flush_times(&self) -> Result<(), ClientError> {
        let Some(modified) = self.times.take() else { return Ok(()) };
        let deadline = self.client.deadline();
        let inode = self.inode();
        let mut attempt = 0;
        loop {
            let generation = self.attributes().generation;
            // An end of zero never extends.
            let request = Extend { inode, generation, end: 0, modified };
            match self.call(&request, None, deadline).await {
                Err(error) if error.is_stale() => {
                    self.refresh(deadline).await?;
                    if self.attributes().modified >= modified {
                        return Ok(());
                    }
                    self.client.back_off(attempt, deadline, Status::Busy).await?;
                    attempt += 1;
                }
                result => return self.accept(&result?.reply),
            }
        }
    }

    /// The targets that may hold chunks of the first `reach` bytes.
    fn owners(&self, reach: u64) -> BTreeSet<TargetId> {
        let map = self.client.map();
        let all = || map.targets().iter().map(|entry| entry.id).collect();
        if reach <= HEAD_SIZE {
            return BTreeSet::new();
        }
        let (inode, chunk_size) = (self.inode(), u64::from(self.attributes().chunk_size));
        let chunks = reach.div_ceil(chunk_size);
        if chunks > CHUNKS_PER_TARGET_COMPUTED * map.targets().len() as u64 {
            return all();
        }
        (HEAD_SIZE / chunk_size..chunks).map(|index| map.chunk_owner(inode, index)).collect()
    }

    async fn sync_owners(
        &self,
        owners: &BTreeSet<TargetId>,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let session = self.session()?;
        let request = Sync { inode: Some(self.inode()) };
        let request = &request;
        let synced = join_all(owners.iter().map(|owner| async move {
            self.client.call_target(session, *owner, request, None, deadline).await.map(drop)
        }));
        synced.await.into_iter().collect()
    }

    /// Owners first, the home last: a durable size never covers data that is not.
    async fn sync(&self) -> Result<(), ClientError> {
        self.flush_times().await?;
        let deadline = self.client.deadline();
        // Data that others have written counts too, and may reach further than is known here.
        let early = self.owners(self.attributes().reach);
        let (synced, refreshed) =
            join(self.sync_owners(&early, deadline), self.refresh(deadline)).await;
        synced?;
        refreshed?;
        let reach = self.attributes().reach.max(self.attributes().size);
        let late: BTreeSet<_> = self.owners(reach).difference(&early).copied().collect();
        self.sync_owners(&late, deadline).await?;
        self.call(&Sync { inode: Some(self.inode()) }, None, deadline).await?;
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
/// Dropping the last clone closes it; an error that only [`OpenFile::close`] or
/// [`OpenFile::sync`] could tell is then logged.
#[derive(Clone)]
pub struct OpenFile {
    pub(crate) file: Rc<FileState>,
    mode: OpenMode,
}

impl OpenFile {
    pub(crate) fn new(_client: &Client, file: Rc<FileState>, mode: OpenMode) -> Self {
        Self { file, mode }
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
        let result = async {
            self.file.flush_times().await?;
            self.file.refresh(self.file.client.deadline()).await
        };
        result.await.map_err(|error| self.explain(error, "read the attributes of"))?;
        Ok(self.attributes())
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

    /// Makes contents and attributes durable, whichever client wrote them.
    pub async fn sync(&self) -> Result<(), ClientError> {
        self.file.sync().await.map_err(|error| self.explain(error, "sync"))
    }

    /// Closes the handle. Does not make anything durable that was not.
    pub async fn close(self) -> Result<(), ClientError> {
        self.file.flush_times().await.map_err(|error| self.explain(error, "close"))
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
