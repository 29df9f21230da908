//! The task that keeps a process's leases: it listens at every target where leases are held, has
//! the door drop what is asked back, and gives it back.
//!
//! Invariant: leases of a target count as valid for less than its servers keep them after the
//! last sign of life they can have had; when they lapse, or the target has forgotten them, the
//! door drops everything before anything is entered anew. A lease is given back only after the
//! door has dropped what it made of it, and nothing is entered for an inode while one is on its
//! way. Deliberately without requests of its own about inodes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ringfs_placement::ClusterMap;
use ringfs_platform::{MailboxReceiver, Platform};
use ringfs_rpc::{CallError, ClusterKey};
use ringfs_wire::{
    InodeNumber, Lease, LeasePoll, LeasePollReply, LeaseRelease, Revocation, SessionId, Status,
    TargetId,
};

use crate::cache::{LeaseCache, Wish};
use crate::client::ClientOptions;
use crate::mutations::is_defective;
use crate::references::Keep;
use crate::session::Session;
use crate::shared::Revoked;

/// For so long after a sign of life was sent leases are used: a second less than the target keeps
/// them for a holder it does not hear of, and that second is there to drop what the door has.
const VALIDITY: Duration = Duration::from_secs(9);
/// How long one poll may take; a target answers within about a second.
const POLL_DEADLINE: Duration = Duration::from_secs(3);
/// Pause after a poll that failed at once.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Most leases given back by one request.
const RELEASE_BATCH_MAX: usize = 1_024;
/// Longest wait for the door when everything ends: it may be gone itself.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The session that holds the leases of a process.
pub(crate) fn lease_session(
    platform: &Platform,
    map: &ClusterMap,
    key: &ClusterKey,
    options: ClientOptions,
    holder: SessionId,
) -> Rc<Session> {
    let epoch = Rc::new(Cell::new(map.epoch()));
    let map = Rc::new(RefCell::new(Rc::new(map.clone())));
    Session::new(platform, key, &map, &epoch, options, Keep::BRIEFLY, (holder, holder))
}

/// Keeps leases until the mailbox of wishes is closed.
pub(crate) async fn keep(
    platform: &Platform,
    cache: Arc<LeaseCache>,
    session: Rc<Session>,
    wishes: &MailboxReceiver<Wish>,
    revoked: Rc<dyn Revoked>,
) {
    let keeper = Rc::new(Keeper {
        platform: platform.clone(),
        cache,
        session,
        revoked,
        kept: RefCell::default(),
        releases: RefCell::default(),
        releasing: RefCell::default(),
    });
    while let Some(wish) = wishes.receive().await {
        if let Wish::Target(target) = wish
            && keeper.kept.borrow_mut().insert(target)
        {
            let keeper = keeper.clone();
            platform.spawn(async move { keeper.keep_target(target).await });
        }
        keeper.give_back();
    }
    keeper.end().await;
}

struct Keeper {
    platform: Platform,
    cache: Arc<LeaseCache>,
    session: Rc<Session>,
    revoked: Rc<dyn Revoked>,
    /// Targets that are listened to.
    kept: RefCell<BTreeSet<TargetId>>,
    /// What waits to be given back.
    releases: RefCell<BTreeMap<TargetId, Vec<(InodeNumber, Lease)>>>,
    /// Targets to which something is being given back.
    releasing: RefCell<BTreeSet<TargetId>>,
}

impl Keeper {
    /// For how long a sign of life counts.
    fn validity(&self) -> Duration {
        match is_defective!(self.session.options(), trust_leases_long) {
            true => 3 * VALIDITY,
            false => VALIDITY,
        }
    }

    /// Listens to one target.
    async fn keep_target(self: &Rc<Self>, target: TargetId) {
        let mut incarnation = 0;
        let mut after = 0;
        while !self.session.has_ended() {
            let sent = self.platform.monotonic();
            match self.poll(target, LeasePoll { after, incarnation }).await {
                Ok(reply) if reply.incarnation == incarnation => {
                    self.drop_lapsed(target).await;
                    if self.session.has_ended() {
                        return;
                    }
                    self.cache.prolong(target, sent + self.validity());
                    after = self.answer(&reply.revocations).max(after);
                }
                Ok(reply) => {
                    tracing::debug!(%target, "a new life of the leases of a target");
                    self.drop_all(target).await;
                    if self.session.has_ended() {
                        return;
                    }
                    // Nothing is granted before the next poll has named the new life.
                    self.cache.prolong(target, sent + self.validity());
                    (incarnation, after) = (reply.incarnation, 0);
                }
                Err(error) => {
                    if error.status() == Some(Status::SessionExpired) {
                        tracing::warn!(%target, "the lease session expired");
                        self.drop_all(target).await;
                        // The session is opened anew by the next connection.
                        self.session.forget_peer(target);
                        (incarnation, after) = (0, 0);
                    } else {
                        tracing::debug!(%target, %error, "a poll for revocations failed");
                        self.drop_lapsed(target).await;
                    }
                    self.platform.sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// One poll, given up no later than the leases lapse.
    async fn poll(
        &self,
        target: TargetId,
        request: LeasePoll,
    ) -> Result<LeasePollReply, CallError> {
        let now = self.platform.monotonic();
        let deadline = match self.cache.validity(target) {
            Some(until) => until.min(now + POLL_DEADLINE),
            None => now + POLL_DEADLINE,
        };
        let Ok(peer) = self.session.peer(target) else {
            return Err(CallError::Deadline { target, last: "it is not in the map".into() });
        };
        peer.call_until(&request, None, deadline).await.map(|response| response.reply)
    }

    /// Starts to answer what a target asks back; tells the highest number.
    fn answer(self: &Rc<Self>, revocations: &[Revocation]) -> u64 {
        for revocation in revocations {
            let Revocation { inode, lease, .. } = *revocation;
            let may_be_used = self.cache.revoke(inode, lease);
            self.drop_and_release(inode, lease, may_be_used);
        }
        revocations.iter().map(|revocation| revocation.number).max().unwrap_or(0)
    }

    /// Gives back what the cache has no room for.
    fn give_back(self: &Rc<Self>) {
        for (inode, lease) in self.cache.take_returns() {
            self.drop_and_release(inode, lease, true);
        }
    }

    fn drop_and_release(self: &Rc<Self>, inode: InodeNumber, lease: Lease, may_be_used: bool) {
        if !may_be_used {
            self.release(inode, lease);
            return;
        }
        if is_defective!(self.session.options(), release_before_drop) {
            self.release(inode, lease);
        }
        let keeper = self.clone();
        self.platform.spawn(async move {
            keeper.revoked.revoked(inode, lease).await;
            keeper.release(inode, lease);
        });
    }

    /// Gives a lease back with the next request to its home.
    fn release(self: &Rc<Self>, inode: InodeNumber, lease: Lease) {
        let target = self.cache.home(inode);
        self.releases.borrow_mut().entry(target).or_default().push((inode, lease));
        if self.releasing.borrow_mut().insert(target) {
            let keeper = self.clone();
            self.platform.spawn(async move {
                while let Some(batch) = keeper.next_batch(target) {
                    keeper.release_batch(target, batch).await;
                }
            });
        }
    }

    /// What goes back next; when there is nothing, nobody is releasing any more.
    fn next_batch(&self, target: TargetId) -> Option<Vec<(InodeNumber, Lease)>> {
        let mut releases = self.releases.borrow_mut();
        let waiting = releases.get_mut(&target).filter(|waiting| !waiting.is_empty());
        let Some(waiting) = waiting else {
            self.releasing.borrow_mut().remove(&target);
            return None;
        };
        let rest = waiting.split_off(waiting.len().min(RELEASE_BATCH_MAX));
        Some(std::mem::replace(waiting, rest))
    }

    async fn release_batch(&self, target: TargetId, releases: Vec<(InodeNumber, Lease)>) {
        let request = LeaseRelease { releases };
        while !self.session.has_ended() {
            let Ok(peer) = self.session.peer(target) else { break };
            let deadline = self.session.call_deadline();
            match peer.call_until(&request, None, deadline).await {
                Ok(_) => break,
                // The session holds nothing there any more.
                Err(error) if error.status() == Some(Status::SessionExpired) => break,
                Err(error) => {
                    tracing::debug!(%target, %error, "could not give leases back");
                    self.platform.sleep(RETRY_PAUSE).await;
                }
            }
        }
        for (inode, _) in request.releases {
            self.cache.returned(inode);
        }
    }

    /// If the leases of a target have lapsed, everything they covered goes.
    async fn drop_lapsed(&self, target: TargetId) {
        let now = self.platform.monotonic();
        if self.cache.validity(target).is_some_and(|until| until <= now) {
            tracing::warn!(%target, "the leases of a target lapsed");
            self.drop_all(target).await;
        }
    }

    /// Drops whatever was held of a target's leases, here and in the door.
    async fn drop_all(&self, target: TargetId) {
        let dropped = self.cache.drop_target(target);
        let revoked = dropped.iter().map(|(inode, lease)| self.revoked.revoked(*inode, *lease));
        join_all(revoked).await;
    }

    /// Gives everything back and ends the session.
    async fn end(&self) {
        let targets = self.kept.borrow().clone();
        let dropping = join_all(targets.iter().map(|target| self.drop_all(*target)));
        let _ = self.platform.timeout(END_PATIENCE, dropping).await;
        self.session.end();
        for target in targets {
            // A reply that was on its way may have prolonged them.
            self.cache.drop_target(target);
        }
        self.session.leave().await;
    }
}
