//! One session: its identity, a peer per target, the references it holds, and the task that keeps
//! it alive.
//!
//! Invariant: a session id is drawn at random and never used again; the slots of a target belong
//! to exactly one peer of the session for its whole life, so that no sequence number is ever used
//! for two requests.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ringfs_placement::ClusterMap;
use ringfs_platform::{Address, Platform};
use ringfs_rpc::{ClusterKey, Identity, Peer, PeerOptions};
use ringfs_wire::{Epoch, Errno, SessionClose, SessionId, SessionRenew, Status, TargetId};

use crate::client::ClientOptions;
use crate::error::ClientError;
use crate::lock_table::LockTable;
use crate::references::{self, Keep, References};

/// How often a session is renewed where it holds state, many times within its life of 40 s.
const RENEW_INTERVAL: Duration = Duration::from_secs(3);

/// How long a target that holds no state is told of the end.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);

/// One session and its peers.
pub(crate) struct Session {
    platform: Platform,
    identity: Identity,
    map: Rc<RefCell<Rc<ClusterMap>>>,
    epoch: Rc<Cell<Epoch>>,
    options: ClientOptions,
    peers: RefCell<BTreeMap<TargetId, Peer>>,
    pub(crate) references: Rc<References>,
    /// The file locks of its process, to be stated again where it reconnects.
    locks: OnceCell<Arc<LockTable>>,
    expired: Cell<bool>,
    ended: Cell<bool>,
    is_renewing: Cell<bool>,
}

impl Session {
    /// What it was made with.
    pub(crate) fn options(&self) -> ClientOptions {
        self.options
    }

    pub(crate) fn new(
        platform: &Platform,
        key: &ClusterKey,
        map: &Rc<RefCell<Rc<ClusterMap>>>,
        epoch: &Rc<Cell<Epoch>>,
        options: ClientOptions,
        keep: Keep,
        (id, holder): (SessionId, SessionId),
    ) -> Rc<Session> {
        let cluster = map.borrow().cluster();
        let session = Rc::new(Session {
            platform: platform.clone(),
            identity: Identity { cluster, key: key.clone(), session: id, holder },
            map: map.clone(),
            epoch: epoch.clone(),
            options,
            peers: RefCell::default(),
            references: Rc::default(),
            locks: OnceCell::new(),
            expired: Cell::new(false),
            ended: Cell::new(false),
            is_renewing: Cell::new(false),
        });
        references::start_dropping(platform, &session, keep);
        session
    }

    /// Has the locks of the process stated again by peers made from now on.
    pub(crate) fn state_locks(&self, locks: &Arc<LockTable>) {
        self.locks.get_or_init(|| locks.clone());
    }

    /// The peer for `target`, made when first asked for.
    pub(crate) fn peer(&self, target: TargetId) -> Result<Peer, ClientError> {
        if let Some(peer) = self.peers.borrow().get(&target) {
            return Ok(peer.clone());
        }
        let map = self.map.borrow().clone();
        let node = map.node_of(target).ok_or(Errno::EINVAL)?;
        let address: Address = node.address.parse().map_err(|_| {
            let reason = format!("the map has no valid address for it: {}", node.address);
            ClientError::Refused { place: Default::default(), target, reason }
        })?;
        let references = Rc::downgrade(&self.references);
        let map = self.map.clone();
        let held_at = move |target: TargetId| match references.upgrade() {
            Some(references) => references.held(|inode| map.borrow().home(inode) == target),
            None => Vec::new(),
        };
        let options = PeerOptions {
            attempt_deadline: self.options.attempt_deadline,
            operation_deadline: self.options.operation_deadline,
            ..PeerOptions::default()
        };
        let (identity, epoch) = (self.identity.clone(), self.epoch.clone());
        let peer =
            Peer::new(&self.platform, address, target, identity, epoch, Rc::new(held_at), options);
        if let Some(locks) = self.locks.get().cloned() {
            peer.state_locks(Rc::new(move |target| locks.restatement(target)));
        }
        self.peers.borrow_mut().insert(target, peer.clone());
        Ok(peer)
    }

    /// Has the next call to `target` go over a connection of its own. Only for a session that
    /// changes nothing: its requests have no identity that could be used twice.
    pub(crate) fn forget_peer(&self, target: TargetId) {
        let peer = self.peers.borrow_mut().remove(&target);
        debug_assert!(peer.is_none_or(|peer| !peer.has_state()), "the slots stay with a peer");
    }

    /// The home of an inode by the newest map.
    pub(crate) fn home(&self, inode: ringfs_wire::InodeNumber) -> TargetId {
        self.map.borrow().home(inode)
    }

    /// When a call that starts now gives up.
    pub(crate) fn call_deadline(&self) -> Duration {
        self.platform.monotonic() + self.options.operation_deadline
    }

    /// The targets at which the servers remember this session.
    pub(crate) fn targets_with_state(&self) -> Vec<TargetId> {
        let peers = self.peers.borrow();
        peers.iter().filter(|(_, peer)| peer.has_state()).map(|(target, _)| *target).collect()
    }

    /// Notes that the session holds something at `target` that must be kept alive.
    pub(crate) fn mark_state(self: &Rc<Self>, target: TargetId) {
        if let Some(peer) = self.peers.borrow().get(&target) {
            peer.mark_state();
        }
        self.keep_alive();
    }

    /// Notes that a server ended the session.
    pub(crate) fn expire(&self) {
        if !self.expired.replace(true) {
            tracing::warn!(session = %self.identity.session, "the session expired at a server");
        }
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.expired.get()
    }

    /// Tells targets that hold nothing but the session's name to forget it. One that does not hear
    /// forgets it by itself.
    pub(crate) async fn leave(&self) {
        let deadline = self.platform.monotonic() + LEAVE_DEADLINE;
        let stateless: Vec<_> = {
            let peers = self.peers.borrow();
            peers.values().filter(|peer| !peer.has_state()).cloned().collect()
        };
        join_all(stateless.iter().map(|peer| peer.call_until(&SessionClose {}, None, deadline)))
            .await;
    }

    /// Stops keeping the session alive.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        self.references.stop();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Starts renewing, unless that runs already: called whenever a server has come to hold
    /// something of this session. A client that only looks around has no such task.
    pub(crate) fn keep_alive(self: &Rc<Self>) {
        if self.is_renewing.replace(true) || self.ended.get() {
            return;
        }
        let (session, platform) = (Rc::downgrade(self), self.platform.clone());
        self.platform.spawn(async move {
            loop {
                platform.sleep(RENEW_INTERVAL).await;
                match session.upgrade() {
                    Some(session) if !session.ended.get() => session.renew().await,
                    _ => return,
                }
            }
        });
    }

    /// Renews once wherever the session holds state. A target that does not answer is asked again
    /// next time.
    async fn renew(&self) {
        let deadline = self.platform.monotonic() + RENEW_INTERVAL;
        let targets = self.targets_with_state();
        join_all(targets.into_iter().map(|target| async move {
            let Ok(peer) = self.peer(target) else { return };
            if let Err(error) = peer.call_until(&SessionRenew {}, None, deadline).await {
                if error.status() == Some(Status::SessionExpired) {
                    self.expire();
                }
                tracing::debug!(%target, %error, "could not renew the session");
            }
        }))
        .await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.references.stop();
    }
}
