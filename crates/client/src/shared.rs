//! What the clients of one mount process share: the cluster, and the identity under which the
//! process holds leases.
//!
//! Invariant: every client made here names the same holder, so that the servers take all of them
//! for one cache. Nothing here is held over an await.

use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use ringfs_placement::ClusterMap;
use ringfs_platform::{MailboxReceiver, MailboxSender, Platform, mailbox};
use ringfs_rpc::ClusterKey;
use ringfs_wire::{InodeNumber, Lease, SessionId};

use crate::client::{Client, ClientOptions};

/// Requests to the lease shard that may wait; more are made again when the need arises again.
const REQUESTS_MAX: usize = 1_024;

/// The door that passes what it was granted on to somebody else, such as the kernel.
pub trait Revoked {
    /// Drops what was cached under `lease` of `inode`. When it returns, the lease is given back:
    /// nothing stale may be shown from then on.
    fn revoked<'a>(&'a self, inode: InodeNumber, lease: Lease) -> LocalBoxFuture<'a, ()>;
}

/// One cluster as all threads of a mount process use it. Clones are the same.
#[derive(Clone)]
pub struct SharedClient {
    shared: Arc<Shared>,
}

struct Shared {
    map: ClusterMap,
    key: ClusterKey,
    options: ClientOptions,
    /// The lease session's id; zero where nothing is cached.
    holder: SessionId,
    requests: MailboxSender<()>,
    receiver: MailboxReceiver<()>,
}

impl SharedClient {
    /// The cluster that `map` describes. Up to `cache_inodes` inodes are cached under leases; with
    /// `None` nothing is, and no lease is asked for.
    pub fn new(
        platform: &Platform,
        map: ClusterMap,
        key: ClusterKey,
        options: ClientOptions,
        cache_inodes: Option<usize>,
    ) -> SharedClient {
        // Zero is no session.
        let holder = cache_inodes.map(|_| SessionId(platform.random_u64().max(1)));
        let (requests, receiver) = mailbox(REQUESTS_MAX);
        let holder = holder.unwrap_or_default();
        let shared = Shared { map, key, options, holder, requests, receiver };
        SharedClient { shared: Arc::new(shared) }
    }

    /// A client for the calling thread, with a session and connections of its own.
    pub fn client(&self, platform: &Platform) -> Client {
        let shared = &self.shared;
        Client::of_holder(
            platform,
            shared.map.clone(),
            shared.key.clone(),
            shared.options,
            shared.holder,
        )
    }

    /// Keeps the leases of the process and answers the servers that want one back, until
    /// [`SharedClient::end`]. Runs once, on a thread where nothing else delays it.
    pub async fn keep_leases(&self, platform: &Platform, revoked: Rc<dyn Revoked>) {
        let _ = (platform, revoked);
        while self.shared.receiver.receive().await.is_some() {}
    }

    /// Ends [`SharedClient::keep_leases`], which gives all leases back. Clients go on, and cache
    /// nothing.
    pub fn end(&self) {
        self.shared.requests.close();
    }
}

impl std::fmt::Debug for SharedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedClient({})", self.shared.map.name())
    }
}
