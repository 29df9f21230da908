//! The client itself: its options, its map, its current session, and the calls everything else is
//! made of.
//!
//! Invariant: a request goes to whom the newest known map names; a map is replaced by a newer one
//! of the same cluster only.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ringfs_placement::ClusterMap;
use ringfs_platform::{Platform, Slice};
use ringfs_rpc::{CallError, ClusterKey, Response};
use ringfs_wire::{
    Acknowledged, Attributes, Epoch, Errno, InodeNumber, InodeType, Request, SessionClose,
    SessionId, Status, TargetId,
};

use crate::cache::LeaseCache;
use crate::credentials::Credentials;
use crate::error::{ClientError, Subject};
use crate::file::FileState;
use crate::lock_table::LockTable;
use crate::references::Keep;
use crate::session::Session;
use crate::unsynced::Unsynced;

/// How often one operation may start over because the ground moved under it.
pub(crate) const RETRIES_MAX: u32 = 200;

/// First pause before starting over, when nothing else has already taken time.
const BACKOFF_FIRST: Duration = Duration::from_millis(1);
/// Longest pause before starting over.
const BACKOFF_MAX: Duration = Duration::from_millis(200);

/// How patient and how parallel a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// How long an operation may take; then its outcome is unknown.
    pub operation_deadline: Duration,
    /// How long one attempt of a call may take before it is sent again.
    pub attempt_deadline: Duration,
    /// Requests for pieces of chunks that one read, write or tree operation keeps in flight.
    pub parallel_chunks: usize,
    /// Whether reading moves access times, by the rule of `relatime`.
    pub access_times: bool,
    /// Deliberate defects.
    #[cfg(feature = "mutations")]
    pub mutations: crate::Mutations,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            operation_deadline: Duration::from_secs(30),
            attempt_deadline: Duration::from_secs(2),
            parallel_chunks: 16,
            access_times: false,
            #[cfg(feature = "mutations")]
            mutations: crate::Mutations::default(),
        }
    }
}

/// When an operation gives up, by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub(crate) Duration);

/// One user of a cluster, on one thread. Clones share session, map and open files.
///
/// Dropping a future of this crate leaves the outcome of its operation unknown. Dropping the last
/// clone leaves the session to expire at the servers; [`Client::close`] ends it at once.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Rc<Shared>,
    pub(crate) credentials: Option<Rc<Credentials>>,
}

/// What all clients of a process have in common.
#[derive(Clone, Default)]
pub(crate) struct Process {
    /// Who holds its leases and locks; zero for a client that stands alone.
    pub(crate) holder: SessionId,
    /// What it caches, if it does.
    pub(crate) cache: Option<Arc<LeaseCache>>,
    /// Its file locks.
    pub(crate) locks: Arc<LockTable>,
    /// Its changes that are not durable.
    pub(crate) unsynced: Arc<Unsynced>,
}

/// What all clones of a client share.
pub(crate) struct Shared {
    pub(crate) platform: Platform,
    pub(crate) options: ClientOptions,
    key: ClusterKey,
    /// Who holds leases and locks of the process; zero where that is the session itself.
    holder: SessionId,
    /// What the process caches under them.
    pub(crate) cache: Option<Arc<LeaseCache>>,
    map: Rc<RefCell<Rc<ClusterMap>>>,
    epoch: Rc<Cell<Epoch>>,
    session: RefCell<Rc<Session>>,
    /// The file locks of the process.
    pub(crate) locks: Arc<LockTable>,
    /// The changes of the process that are not durable.
    pub(crate) unsynced: Arc<Unsynced>,
    /// How many wishes for locks wait at homes.
    pub(crate) parked_locks: Cell<usize>,
    /// Files that somebody has open, so that all handles of a file share one state.
    pub(crate) files: RefCell<BTreeMap<InodeNumber, Weak<FileState>>>,
    /// Bytes that handles keep of what they have read.
    pub(crate) read_ahead: Rc<Cell<u64>>,
}

/// For how long closed files are kept.
fn kept(is_cached: bool) -> Keep {
    if is_cached { Keep::CACHED } else { Keep::BRIEFLY }
}

impl Client {
    /// A client of the cluster that `map` describes. Connects when the first call needs it.
    pub fn new(
        platform: &Platform,
        map: ClusterMap,
        key: ClusterKey,
        options: ClientOptions,
    ) -> Client {
        Self::of_process(platform, map, key, options, Process::default())
    }

    /// One of the clients of a process.
    pub(crate) fn of_process(
        platform: &Platform,
        map: ClusterMap,
        key: ClusterKey,
        options: ClientOptions,
        process: Process,
    ) -> Client {
        let Process { holder, cache, locks, unsynced } = process;
        let epoch = Rc::new(Cell::new(map.epoch()));
        let map = Rc::new(RefCell::new(Rc::new(map)));
        let (keep, ids) = (kept(cache.is_some()), ids(platform, holder));
        let session = Session::new(platform, &key, &map, &epoch, options, keep, ids);
        session.state_locks(&locks);
        let shared = Shared {
            platform: platform.clone(),
            options,
            key,
            holder,
            cache,
            map,
            epoch,
            session: RefCell::new(session),
            locks,
            unsynced,
            parked_locks: Cell::new(0),
            files: RefCell::default(),
            read_ahead: Rc::default(),
        };
        Client { shared: Rc::new(shared), credentials: None }
    }

    /// The same client on behalf of a user: operations check that user's permissions first. A
    /// client made by [`Client::new`] checks nothing, for doors where somebody else has.
    pub fn with_credentials(&self, credentials: Credentials) -> Client {
        Client { shared: self.shared.clone(), credentials: Some(Rc::new(credentials)) }
    }

    /// The newest known map of the cluster.
    pub fn map(&self) -> Rc<ClusterMap> {
        self.shared.map.borrow().clone()
    }

    /// Ends the session at the servers: references go and unlinked files that only this client
    /// held open are freed. Open files and clones become stale.
    pub async fn close(self) -> Result<(), ClientError> {
        let session = self.current_session();
        session.leave().await;
        let deadline = self.deadline();
        let closed =
            join_all(session.targets_with_state().into_iter().map(|target| {
                let (client, session) = (&self, &session);
                async move {
                    client.call_target(session, target, &SessionClose {}, None, deadline).await
                }
            }));
        let closed = closed.await.into_iter().map(|result| match result {
            Ok(_) | Err(ClientError::SessionExpired { .. }) => Ok(()),
            Err(error) => Err(error),
        });
        session.end();
        let result: Result<(), ClientError> = closed.collect();
        result.map_err(|error| error.during("close the session of", Subject::Cluster))
    }

    /// Starts a new session. Files opened before are stale from now on; operations still running
    /// end as they can.
    pub fn renew_session(&self) {
        let shared = &self.shared;
        let (platform, options) = (&shared.platform, shared.options);
        let (key, map, epoch) = (&shared.key, &shared.map, &shared.epoch);
        let (keep, ids) = (kept(shared.cache.is_some()), ids(platform, shared.holder));
        let fresh = Session::new(platform, key, map, epoch, options, keep, ids);
        fresh.state_locks(&shared.locks);
        let old = shared.session.replace(fresh);
        old.end();
        // Handles of the old session keep their state alive themselves.
        shared.files.borrow_mut().clear();
    }

    /// Starts a new session if the servers have ended the old one, also with files open under it.
    pub fn renew_expired_session(&self) {
        let has_expired = self.shared.session.borrow().has_expired();
        if has_expired {
            self.renew_session();
        }
    }

    /// The session for a new operation. One that expired is replaced as soon as nothing is open
    /// under it.
    pub(crate) fn current_session(&self) -> Rc<Session> {
        let session = self.shared.session.borrow().clone();
        if session.has_expired() && session.references.is_empty() {
            self.renew_session();
            return self.shared.session.borrow().clone();
        }
        session
    }

    pub(crate) fn deadline(&self) -> Deadline {
        Deadline(self.shared.platform.monotonic() + self.shared.options.operation_deadline)
    }

    /// A pause before the `attempt`-th new start of an operation; an error when it had enough.
    pub(crate) async fn back_off(
        &self,
        attempt: u32,
        deadline: Deadline,
        reason: Status,
    ) -> Result<(), ClientError> {
        let platform = &self.shared.platform;
        let longest = (BACKOFF_FIRST * (1 << attempt.min(10))).min(BACKOFF_MAX);
        let pause = longest / 2 + longest.mul_f64(0.5 * random_fraction(platform));
        if attempt >= RETRIES_MAX || platform.monotonic() + pause >= deadline.0 {
            return Err(ClientError::Failed { place: Default::default(), status: reason });
        }
        platform.sleep(pause).await;
        Ok(())
    }

    /// A call to a target that is known, such as one per target of the cluster.
    pub(crate) async fn call_target<R: Request>(
        &self,
        session: &Rc<Session>,
        target: TargetId,
        request: &R,
        bulk: Option<Slice>,
        deadline: Deadline,
    ) -> Result<Response<R::Reply>, ClientError> {
        let peer = session.peer(target)?;
        let result = peer.call_until(request, bulk, deadline.0).await;
        if R::MUTATION {
            session.keep_alive();
        }
        result.map_err(|error| {
            if error.status() == Some(Status::SessionExpired) {
                session.expire();
            }
            ClientError::from_call(error, target)
        })
    }

    /// A call to the target that `place` finds in the map; follows the map when it moves.
    pub(crate) async fn call_placed<R: Request>(
        &self,
        session: &Rc<Session>,
        place: impl Fn(&ClusterMap) -> TargetId,
        request: &R,
        bulk: Option<Slice>,
        deadline: Deadline,
    ) -> Result<Response<R::Reply>, ClientError> {
        let mut attempt = 0;
        loop {
            let target = place(&self.map());
            let peer = session.peer(target)?;
            let result = peer.call_until(request, bulk.clone(), deadline.0).await;
            if R::MUTATION {
                session.keep_alive();
            }
            match result {
                Ok(response) => return Ok(response),
                Err(CallError::Status { status: Status::Moved, body }) => {
                    if !self.adopt_map(&body) {
                        self.back_off(attempt, deadline, Status::Moved).await?;
                    }
                    attempt += 1;
                }
                Err(error) => {
                    if error.status() == Some(Status::SessionExpired) {
                        session.expire();
                    }
                    return Err(ClientError::from_call(error, target));
                }
            }
        }
    }

    /// A call to the home of `inode`, under a session of the caller's.
    pub(crate) async fn call_home<R: Request>(
        &self,
        session: &Rc<Session>,
        inode: InodeNumber,
        request: &R,
        bulk: Option<Slice>,
        deadline: Deadline,
    ) -> Result<Response<R::Reply>, ClientError> {
        let called = self.call_placed(session, |map| map.home(inode), request, bulk, deadline);
        let response = called.await?;
        if R::MUTATION {
            self.shared.unsynced.changed(inode, response.by);
        }
        Ok(response)
    }

    /// A call to the home of `inode` that belongs to no open file. When the session turns out to
    /// have expired and nothing is open under it, a query is asked again under a new one.
    pub(crate) async fn ask_home<R: Request>(
        &self,
        inode: InodeNumber,
        request: &R,
        deadline: Deadline,
    ) -> Result<R::Reply, ClientError> {
        Ok(self.ask_home_itself(inode, request, deadline).await?.reply)
    }

    /// As [`Client::ask_home`], for a change that also concerns `others`, where they live at the
    /// same home. Elsewhere it is durable already.
    pub(crate) async fn ask_home_about<R: Request>(
        &self,
        inode: InodeNumber,
        others: &[InodeNumber],
        request: &R,
        deadline: Deadline,
    ) -> Result<R::Reply, ClientError> {
        let response = self.ask_home_itself(inode, request, deadline).await?;
        others.iter().for_each(|other| self.note_changed(*other, response.by));
        Ok(response.reply)
    }

    /// Notes that the home of an inode has changed it, if that is who answered.
    pub(crate) fn note_changed(&self, inode: InodeNumber, by: Acknowledged) {
        if self.map().home(inode) == by.target {
            self.shared.unsynced.changed(inode, by);
        }
    }

    /// As [`Client::ask_home`]; tells who answered.
    pub(crate) async fn ask_home_itself<R: Request>(
        &self,
        inode: InodeNumber,
        request: &R,
        deadline: Deadline,
    ) -> Result<Response<R::Reply>, ClientError> {
        let mut session = self.current_session();
        loop {
            match self.call_home(&session, inode, request, None, deadline).await {
                Ok(response) => return Ok(response),
                Err(error @ ClientError::SessionExpired { .. }) => {
                    let current = self.current_session();
                    if R::MUTATION || Rc::ptr_eq(&current, &session) {
                        return Err(error);
                    }
                    session = current;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes over a map that a server sent, if it is newer and of this cluster.
    fn adopt_map(&self, encoded: &[u8]) -> bool {
        let current = self.map();
        let newer = match ClusterMap::decode(encoded) {
            Ok(map) if map.cluster() == current.cluster() && map.epoch() > current.epoch() => map,
            Ok(_) => return false,
            Err(error) => {
                tracing::warn!(%error, "ignored a cluster map that a server sent");
                return false;
            }
        };
        tracing::info!(epoch = %newer.epoch(), "adopted a newer cluster map");
        self.shared.epoch.set(newer.epoch());
        *self.shared.map.borrow_mut() = Rc::new(newer);
        true
    }

    /// Passes attributes that a server sent on to the open file they belong to.
    pub(crate) fn note(&self, attributes: &Attributes) -> Result<(), ClientError> {
        let is_file = attributes.kind == InodeType::File;
        if is_file && attributes.chunk_size == 0 || attributes.size > i64::MAX as u64 {
            let home = self.map().home(attributes.inode);
            return Err(ClientError::protocol(home, "attributes that no file can have"));
        }
        if let Some(file) = self.open_state(attributes.inode) {
            file.adopt(attributes);
        }
        Ok(())
    }

    /// The state of an inode that is open under the current session.
    pub(crate) fn open_state(&self, inode: InodeNumber) -> Option<Rc<FileState>> {
        self.shared.files.borrow().get(&inode).and_then(Weak::upgrade)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.map().name())
    }
}

/// The name of a new session, and of its holder.
fn ids(platform: &Platform, holder: SessionId) -> (SessionId, SessionId) {
    // Zero is no session.
    (SessionId(platform.random_u64().max(1)), holder)
}

/// A number from 0 up to 1.
fn random_fraction(platform: &Platform) -> f64 {
    (platform.random_u64() >> 32) as f64 / f64::from(u32::MAX)
}

/// Ends a loop of new starts that each took a round trip.
pub(crate) fn check_attempts(attempt: u32) -> Result<(), ClientError> {
    if attempt < RETRIES_MAX { Ok(()) } else { Err(Errno::EIO.into()) }
}
