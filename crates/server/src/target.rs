//! One target at work: what its handlers share, and how a request becomes an answer.
//!
//! Invariant: an answer leaves only after every log record that it could depend on has been
//! written, so nobody is ever told of something that a `kill -9` takes back. Mutations run at most
//! once per (session, slot, sequence); their replies are logged with them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use ringfs_placement::ClusterMap;
use ringfs_platform::{MailboxSender, Platform, Slice};
use ringfs_rpc::{CallError, Incoming, Outgoing, Peer, Response, Service};
use ringfs_store::{LogPosition, MAX_REPLY_LEN, Record, Store, Transaction};
use ringfs_wire::{
    AnyRequest, CreateReply, Errno, FrameHeader, Hello, InodeNumber, NO_SLOT, OperationId, Request,
    SLOTS_PER_SESSION, SessionId, Status, TargetId, TargetStatus, Timestamp, Welcome, Wire,
};

use crate::file_locks::FileLocks;
use crate::leases::{Claim, Leases};
use crate::locks::Locks;
use crate::mutations::is_defective;
use crate::operation::Decided;
use crate::sessions::{SESSION_LIFETIME, Sessions};
use crate::settled::Settled;

/// Pause between two attempts to reach another target about work that must come to an end.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Shortest pause between two looks for sessions that have ended.
const EXPIRY_PAUSE: Duration = Duration::from_millis(100);

/// What a handler gives back: the encoded reply and its bulk.
pub(crate) type Answer = Result<(Vec<u8>, Option<Slice>), Status>;

/// The identity of a mutation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) session: SessionId,
    pub(crate) slot: u16,
    pub(crate) sequence: u64,
}

/// One target. Handlers live in the sibling modules.
pub(crate) struct Target {
    pub(crate) id: TargetId,
    pub(crate) platform: Platform,
    pub(crate) map: Rc<ClusterMap>,
    pub(crate) store: Store,
    pub(crate) locks: Locks,
    pub(crate) sessions: Sessions,
    pub(crate) leases: Rc<Leases>,
    /// What operations prepared here have claimed.
    pub(crate) prepared_claims: RefCell<BTreeMap<OperationId, Vec<Claim>>>,
    /// Operations of others that were decided here: what prepares them once more comes late.
    pub(crate) decided: RefCell<Decided>,
    pub(crate) file_locks: FileLocks,
    /// Operations this target coordinates and has not decided.
    pub(crate) undecided: RefCell<BTreeSet<OperationId>>,
    /// Files whose unwritten tail is known to be clean since this start.
    pub(crate) cleaned: RefCell<BTreeSet<InodeNumber>>,
    pub(crate) settled: Settled,
    /// Monotonic instant before which nameless inodes are kept for sessions that may come back.
    pub(crate) grace_until: Cell<Duration>,
    peers: BTreeMap<TargetId, Peer>,
    last_time: Cell<Timestamp>,
    expiring: Cell<bool>,
    stop: MailboxSender<()>,
    this: Weak<Target>,
    #[cfg(feature = "mutations")]
    pub(crate) mutations: crate::Mutations,
}

/// What a target is made of.
pub(crate) struct Parts {
    pub(crate) platform: Platform,
    pub(crate) id: TargetId,
    pub(crate) map: Rc<ClusterMap>,
    /// Recovered.
    pub(crate) store: Store,
    /// Every other target.
    pub(crate) peers: BTreeMap<TargetId, Peer>,
    /// Asks the node to stop.
    pub(crate) stop: MailboxSender<()>,
    #[cfg(feature = "mutations")]
    pub(crate) mutations: crate::Mutations,
}

impl Target {
    /// A target over its recovered store.
    pub(crate) fn new(parts: Parts) -> Rc<Self> {
        let grace_until = Cell::new(parts.platform.monotonic() + SESSION_LIFETIME);
        let (locks, leases) = (Locks::default(), Rc::<Leases>::default());
        #[cfg(feature = "mutations")]
        {
            locks.set_mutations(parts.mutations);
            leases.set_mutations(parts.mutations);
        }
        Rc::new_cyclic(|this| Self {
            id: parts.id,
            map: parts.map,
            store: parts.store,
            locks,
            sessions: Sessions::default(),
            leases,
            prepared_claims: RefCell::default(),
            decided: RefCell::default(),
            file_locks: FileLocks::default(),
            undecided: RefCell::default(),
            cleaned: RefCell::default(),
            settled: Settled::default(),
            grace_until,
            peers: parts.peers,
            last_time: Cell::default(),
            expiring: Cell::new(false),
            stop: parts.stop,
            this: this.clone(),
            platform: parts.platform,
            #[cfg(feature = "mutations")]
            mutations: parts.mutations,
        })
    }

    /// Takes up what the last life left open: sessions, operations, cuts, nameless inodes. Called
    /// when the door opens: before, no session could come back.
    pub(crate) fn resume(&self) {
        let now = self.platform.monotonic();
        let sessions: Vec<_> = {
            let state = self.store.state();
            state.sessions.iter().map(|(session, known)| (*session, known.holder)).collect()
        };
        // Sessions are logged before their clients know of them: where there is none, as after the
        // first start, nobody comes back.
        let nobody = sessions.is_empty() || is_defective!(self, no_grace);
        let grace = if nobody { Duration::ZERO } else { SESSION_LIFETIME };
        self.grace_until.set(now + grace);
        let awaited = sessions.iter().map(|(session, _)| *session);
        self.file_locks.await_sessions(awaited, now);
        for (session, holder) in sessions {
            self.sessions.open(session, holder, now);
            if session == holder {
                self.open_leases(holder, !is_defective!(self, forget_holders));
            }
        }
        self.watch_sessions();
        self.resume_operations();
        self.resume_cuts();
        let target = self.shared();
        self.platform.spawn(async move {
            target.platform.sleep(grace).await;
            target.reap_nameless();
        });
    }

    /// A counted handle on this target, for tasks.
    ///
    /// # Panics
    /// Never while a handler runs: whoever calls holds the target.
    pub(crate) fn shared(&self) -> Rc<Self> {
        self.this.upgrade().expect("a running handler holds its target")
    }

    /// The wall clock, never going backwards on this target.
    pub(crate) fn now(&self) -> Timestamp {
        let now = Timestamp::from(self.platform.wall()).max(self.last_time.get());
        self.last_time.set(now);
        now
    }

    /// Calls another target.
    pub(crate) async fn call<R: Request>(
        &self,
        target: TargetId,
        request: &R,
        bulk: Option<Slice>,
    ) -> Result<Response<R::Reply>, Status> {
        let peer = self.peers.get(&target).ok_or(Status::Malformed)?;
        peer.call(request, bulk).await.map_err(|error| match error {
            CallError::Status { status, .. } => status,
            CallError::Deadline { .. } => Status::Busy,
            other => {
                tracing::warn!(target = %target, error = %other, "cannot work with a target");
                Status::Failed(Errno::EIO)
            }
        })
    }

    /// Adds a mutation's reply to its transaction, which makes it exactly-once.
    pub(crate) fn record_reply(&self, tx: &mut Transaction, caller: Caller, body: &[u8]) {
        for record in self.reply_records(caller, body) {
            tx.put(record);
        }
    }

    /// The records of [`Target::record_reply`]: none for a session that has ended meanwhile.
    pub(crate) fn reply_records(&self, caller: Caller, body: &[u8]) -> Vec<Record> {
        assert!(body.len() <= MAX_REPLY_LEN, "a mutation's reply fits its slot");
        if is_defective!(self, forget_reply_slot) {
            return Vec::new();
        }
        let Caller { session, slot, sequence } = caller;
        if !self.store.state().sessions.contains_key(&session) {
            return Vec::new();
        }
        vec![Record::PutSlot { session, slot, sequence, reply: body.to_vec() }]
    }

    /// Refuses work that the store has no room for.
    pub(crate) fn room(&self, growing: bool) -> Result<(), Status> {
        self.store.room(growing).map_err(|error| error.status())
    }

    /// Waits until a log position survives power loss.
    pub(crate) async fn synced(&self, position: LogPosition) -> Result<(), Status> {
        self.store.synced(position).await.map_err(|error| error.status())
    }

    async fn answer(&self, call: &Incoming) -> Answer {
        if call.header.target != self.id || !self.owns(&call.request) {
            return Err(Status::Moved);
        }
        let session = call.header.session;
        if session != SessionId::default() {
            if !self.sessions.is_known(session) {
                return Err(Status::SessionExpired);
            }
            self.sessions.seen(session, self.platform.monotonic());
            self.file_locks.heard_of(session, &call.request);
        }
        let answer = if call.request.is_mutation() {
            self.exactly_once(call).await
        } else {
            self.query(call).await
        };
        if tells_no_state(&call.request) || is_defective!(self, answer_unwritten) {
            return answer;
        }
        let position = self.store.position();
        let written = match call.request.is_mutation() {
            true => self.store.written(position).await,
            // What a device error has left is still read.
            false => self.store.shown(position).await,
        };
        written.map_err(|error| error.status()).and(answer)
    }

    async fn exactly_once(&self, call: &Incoming) -> Answer {
        let FrameHeader { session, slot, sequence, .. } = call.header;
        if slot >= SLOTS_PER_SESSION || slot == NO_SLOT || session == SessionId::default() {
            return Err(Status::Malformed);
        }
        let Some(_running) = self.sessions.run(session, slot).await else {
            return Err(Status::Busy);
        };
        let stored = self.stored_reply(session, slot);
        match stored {
            Some((last, _)) if last > sequence => return Err(Status::SlotStale),
            Some((last, reply)) if last == sequence => {
                self.settled(&call.request).await?;
                self.reference_again(&call.request, session, &reply);
                return Ok((reply, None));
            }
            _ => {}
        }
        self.mutation(call, Caller { session, slot, sequence }).await
    }

    /// A create that opened, answered from its slot after a restart: references are not logged.
    fn reference_again(&self, request: &AnyRequest, session: SessionId, reply: &[u8]) {
        let opens = match request {
            AnyRequest::MetadataCreate(request) => request.open,
            AnyRequest::CreateNameless(_) => true,
            _ => false,
        };
        if opens
            && let Ok(reply) = CreateReply::from_bytes(reply)
            && self.store.state().inodes.contains_key(&reply.inode)
        {
            self.sessions.reference(session, reply.inode);
        }
    }

    fn stored_reply(&self, session: SessionId, slot: u16) -> Option<(u64, Vec<u8>)> {
        let state = self.store.state();
        let reply = state.sessions.get(&session)?.slots.get(&slot)?;
        Some((reply.sequence, reply.reply.to_vec()))
    }

    async fn mutation(&self, call: &Incoming, caller: Caller) -> Answer {
        let bulk = call.bulk.clone().unwrap_or_else(Slice::empty);
        match &call.request {
            AnyRequest::MetadataCreate(request) => self.create(request, bulk, caller).await,
            AnyRequest::MetadataDelete(request) => self.delete(request, caller).await,
            AnyRequest::MetadataUpdate(request) => self.update(request, caller).await,
            AnyRequest::Link(request) => self.link(request, caller).await,
            AnyRequest::Rename(request) => self.rename(request, caller).await,
            AnyRequest::HeadWrite(request) => self.head_write(request, bulk, caller).await,
            AnyRequest::Reserve(request) => self.reserve(request, caller).await,
            AnyRequest::Extend(request) => self.extend(request, caller).await,
            AnyRequest::ChunkWriteExtend(request) => {
                self.chunk_write_extend(request, bulk, caller).await
            }
            AnyRequest::DiscardTail(request) => self.discard_tail(request, caller).await,
            AnyRequest::Append(request) => self.append(request, bulk, caller).await,
            AnyRequest::CreateNameless(request) => self.create_nameless(request, caller).await,
            AnyRequest::SetXattr(request) => self.set_xattr(request, caller).await,
            AnyRequest::RemoveXattr(request) => self.remove_xattr(request, caller).await,
            AnyRequest::HeadPunch(request) => self.head_punch(request, caller).await,
            AnyRequest::HeadAllocate(request) => self.head_allocate(request, caller).await,
            _ => Err(Status::Malformed),
        }
    }

    async fn query(&self, call: &Incoming) -> Answer {
        let session = call.header.session;
        match &call.request {
            AnyRequest::MetadataLookup(request) => self.lookup(request, session).await,
            AnyRequest::AttributesGet(request) => self.attributes_get(request, session).await,
            AnyRequest::ReadDirectory(request) => self.read_directory(request, session).await,
            AnyRequest::ReadLink(request) => self.read_link(request).await,
            AnyRequest::HeadRead(request) => self.head_read(request).await,
            AnyRequest::ChunkRead(request) => self.chunk_read(request).await,
            AnyRequest::ChunkWrite(request) => {
                self.chunk_write(request, call.bulk.clone().unwrap_or_else(Slice::empty)).await
            }
            AnyRequest::Sync(request) => self.sync(request).await,
            AnyRequest::References(request) => {
                request.drop.iter().for_each(|inode| self.unreference(session, *inode));
                request.take.iter().for_each(|inode| self.sessions.reference(session, *inode));
                empty()
            }
            AnyRequest::SessionRenew(_) | AnyRequest::Echo(_) => empty(),
            AnyRequest::LeasePoll(request) => self.lease_poll(request, session).await,
            AnyRequest::LeaseRelease(request) => self.lease_release(request, session),
            AnyRequest::SessionClose(_) => {
                self.end_session(session);
                empty()
            }
            AnyRequest::MapGet(_) => reply(&self.map.encode()),
            AnyRequest::StatusGet(_) => self.status().await,
            AnyRequest::Shutdown(_) => {
                // Full means that a stop is already on its way.
                let _ = self.stop.try_send(());
                empty()
            }
            AnyRequest::Prepare(request) => self.prepare(request).await,
            AnyRequest::Decide(request) => self.decide(request).await,
            AnyRequest::OutcomeGet(request) => self.outcome(request),
            AnyRequest::Cut(request) => self.cut(request).await,
            AnyRequest::PeekName(request) => self.peek_name(request).await,
            AnyRequest::GetXattr(request) => self.get_xattr(request).await,
            AnyRequest::ListXattrs(request) => self.list_xattrs(request).await,
            AnyRequest::LockTest(request) => self.lock_test(request, session),
            AnyRequest::LockSet(request) => self.lock_set(request, session).await,
            AnyRequest::LockClear(request) => self.lock_clear(request, session),
            AnyRequest::LockCancel(request) => self.lock_cancel(request, session),
            AnyRequest::LocksRestate(request) => self.locks_restate(request, session),
            AnyRequest::ChunkExtents(request) => self.chunk_extents(request).await,
            AnyRequest::ChunkPunch(request) => self.chunk_punch(request).await,
            AnyRequest::ChunkAllocate(request) => self.chunk_allocate(request).await,
            AnyRequest::ScanInodes(request) => self.scan_inodes(request),
            AnyRequest::ScanNames(request) => self.scan_names(request),
            AnyRequest::ScanSegments(request) => self.scan_segments(request).await,
            AnyRequest::ScanOperations(_) => self.scan_operations(),
            AnyRequest::Verify(request) => self.verify(request).await,
            AnyRequest::RepairRecord(request) => self.repair(request).await,
            _ => Err(Status::Malformed),
        }
    }

    /// Whether the map puts what the request is about on this target.
    fn owns(&self, request: &AnyRequest) -> bool {
        let home = |inode: InodeNumber| self.map.home(inode) == self.id;
        let chunk = |inode: InodeNumber, offset: u64, chunk_size: u32| {
            self.map.chunk_owner(inode, offset / u64::from(chunk_size.max(1))) == self.id
        };
        match request {
            AnyRequest::MetadataLookup(request) => home(request.directory),
            AnyRequest::MetadataCreate(request) => home(request.directory),
            AnyRequest::MetadataDelete(request) => home(request.directory),
            AnyRequest::MetadataUpdate(request) => home(request.inode),
            AnyRequest::AttributesGet(request) => request.inodes.iter().all(|inode| home(*inode)),
            AnyRequest::Link(request) => home(request.directory),
            AnyRequest::Rename(request) => home(request.to_directory),
            AnyRequest::ReadDirectory(request) => home(request.directory),
            AnyRequest::ReadLink(request) => home(request.inode),
            AnyRequest::HeadRead(request) => home(request.inode),
            AnyRequest::HeadWrite(request) => home(request.inode),
            AnyRequest::Reserve(request) => home(request.inode),
            AnyRequest::Extend(request) => home(request.inode),
            AnyRequest::DiscardTail(request) => home(request.inode),
            AnyRequest::Append(request) => home(request.inode),
            AnyRequest::HeadPunch(request) => home(request.inode),
            AnyRequest::HeadAllocate(request) => home(request.inode),
            AnyRequest::LockTest(request) => home(request.inode),
            AnyRequest::LockSet(request) => home(request.inode),
            AnyRequest::LockClear(request) => home(request.inode),
            AnyRequest::LockCancel(request) => home(request.inode),
            AnyRequest::ChunkWriteExtend(r) => {
                home(r.inode) && chunk(r.inode, r.offset, r.chunk_size)
            }
            AnyRequest::ChunkRead(r) => chunk(r.inode, r.offset, r.chunk_size),
            AnyRequest::ChunkWrite(r) => chunk(r.inode, r.offset, r.chunk_size),
            AnyRequest::PeekName(request) => home(request.directory),
            AnyRequest::CreateNameless(request) => home(request.directory),
            AnyRequest::SetXattr(request) => home(request.inode),
            AnyRequest::RemoveXattr(request) => home(request.inode),
            AnyRequest::GetXattr(request) => home(request.inode),
            AnyRequest::ListXattrs(request) => home(request.inode),
            _ => true,
        }
    }

    /// Drops a reference and, when it was the last on a nameless inode, the inode.
    pub(crate) fn unreference(&self, session: SessionId, inode: InodeNumber) {
        self.sessions.unreference(session, inode);
        self.reap(inode);
    }

    /// Ends a session nobody renewed; its frames are refused from now on.
    fn expire_session(&self, session: SessionId) {
        let has_slots = {
            let state = self.store.state();
            state.sessions.get(&session).is_some_and(|logged| !logged.slots.is_empty())
        };
        if !has_slots && self.sessions.is_idle(session) {
            // A process keeps its locks alive by another session; without any they end.
            if !self.file_locks.is_user(session) {
                self.sessions.seen(session, self.platform.monotonic());
                return;
            }
            if self.sessions.lives_with_its_process(session) {
                return;
            }
        }
        if has_slots {
            tracing::info!(target = %self.id, %session, "session expired");
        }
        self.end_session(session);
    }

    /// Ends a session: its slots and references go, and what it may have half-written is cut.
    fn end_session(&self, session: SessionId) {
        let references = self.sessions.end(session);
        self.leases.end(session, self.platform.monotonic());
        if !is_defective!(self, keep_dead_locks) {
            self.file_locks.end_session(session);
        }
        if self.store.state().sessions.contains_key(&session) {
            let mut tx = self.store.transaction();
            tx.put(Record::DeleteSession { session });
            tx.commit();
        }
        for inode in references {
            // What it wrote into chunks without being answered may show or not.
            self.recall_content(inode);
            self.reap(inode);
            self.cut_dead_tail(inode);
        }
    }

    /// Keeps one task running that ends sessions nobody renews, as long as there are sessions.
    fn watch_sessions(&self) {
        if self.sessions.count() == 0 || self.expiring.replace(true) {
            return;
        }
        let target = self.shared();
        self.platform.spawn(async move {
            loop {
                let now = target.platform.monotonic();
                let (dead, next) = target.sessions.expired(now);
                for session in dead {
                    target.expire_session(session);
                }
                let Some(next) = next else { break };
                let planned = Sessions::next_look(now, next).max(now + EXPIRY_PAUSE);
                let sooner = target.sessions.sooner(next);
                if target.platform.timeout(planned - now, sooner).await.is_none() {
                    target.sessions.looked(planned, target.platform.monotonic());
                }
            }
            target.expiring.set(false);
            target.watch_sessions();
        });
    }

    async fn status(&self) -> Answer {
        let usage = self.store.usage().await.map_err(|error| error.status())?;
        let open = {
            let state = self.store.state();
            state.prepared.len() + state.committed.len() + state.cuts.len()
        };
        let status = TargetStatus {
            target: self.id,
            capacity: usage.capacity,
            available: usage.available,
            used: usage.used,
            inodes: usage.inodes,
            sessions: self.sessions.count() as u32,
            open_operations: open as u32,
            failed: self.store.has_failed(),
            refusal: self.store.refusal().map_or(0, |errno| errno.0.unsigned_abs()),
            node_memory: self.platform.resident_memory(),
            process: std::process::id(),
        };
        Ok((status.to_bytes(), None))
    }
}

impl Service for Target {
    fn admit(&self, hello: Hello) -> LocalBoxFuture<'_, Result<Welcome, Status>> {
        Box::pin(async move {
            let session = hello.session;
            let welcome = Welcome { lineage: self.store.lineage() };
            if session == SessionId::default() {
                return Ok(welcome);
            }
            let logged = self.store.state().sessions.get(&session).map(|known| known.holder);
            if !hello.fresh && logged.is_none() {
                return Err(Status::SessionExpired);
            }
            let holder = hello.holder;
            self.sessions.open(session, holder, self.platform.monotonic());
            if holder == session {
                self.open_leases(holder, false);
            }
            self.sessions.connected(session, true);
            self.file_locks.join(&hello);
            self.watch_sessions();
            // Whoever only reads from a stopped target need not be known to the next life.
            if logged == Some(holder) || self.store.has_failed() && holder != session {
                return Ok(welcome);
            }
            self.room(false)?;
            let mut tx = self.store.transaction();
            tx.put(Record::PutSession { session, holder });
            // Once welcome, the client counts on being known, whatever happens to this server.
            self.synced(tx.commit()).await?;
            Ok(welcome)
        })
    }

    fn disconnected(&self, session: SessionId) {
        self.sessions.connected(session, false);
    }

    fn handle(&self, call: Incoming) -> LocalBoxFuture<'_, Outgoing> {
        Box::pin(async move {
            match self.answer(&call).await {
                Ok((body, bulk)) => Outgoing { result: Ok(body), bulk },
                Err(Status::Moved) => {
                    Outgoing { result: Err((Status::Moved, self.map.encode())), bulk: None }
                }
                Err(status) => Outgoing { result: Err((status, Vec::new())), bulk: None },
            }
        })
    }
}

/// Whether the answer depends on nothing that the log has yet to write. These are answered even by
/// a target that a device error has stopped: otherwise nobody could learn of it.
fn tells_no_state(request: &AnyRequest) -> bool {
    matches!(
        request,
        AnyRequest::StatusGet(_)
            | AnyRequest::Echo(_)
            | AnyRequest::MapGet(_)
            | AnyRequest::Shutdown(_)
            | AnyRequest::SessionRenew(_)
            | AnyRequest::LeasePoll(_)
            | AnyRequest::LeaseRelease(_)
            | AnyRequest::ChunkRead(_)
            | AnyRequest::ChunkExtents(_)
            | AnyRequest::Verify(_)
    )
}

/// A successful answer without content.
pub(crate) fn empty() -> Answer {
    Ok((Vec::new(), None))
}

/// A successful answer without bulk.
pub(crate) fn reply<T: Wire>(value: &T) -> Answer {
    Ok((value.to_bytes(), None))
}
