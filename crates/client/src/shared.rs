//! What the clients of one mount process share: the cluster, the identity under which the process
//! holds leases, and what it caches under them.
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

use crate::cache::{LeaseCache, Wish};
use crate::client::{Client, ClientOptions, Process};
use crate::keeper;

/// Wishes to the lease shard that may wait; one that finds no room is made again when the need
/// arises again.
const WISHES_MAX: usize = 1_024;

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
    /// Its holder is the lease session, where something is cached.
    process: Process,
    sender: MailboxSender<Wish>,
    receiver: MailboxReceiver<Wish>,
}

impl SharedClient {
    /// The cluster that `map` describes. About `cache_inodes` inodes are cached under leases; with
    /// `None` nothing is, and no lease is asked for.
    pub fn new(
        platform: &Platform,
        map: ClusterMap,
        key: ClusterKey,
        options: ClientOptions,
        cache_inodes: Option<usize>,
    ) -> SharedClient {
        let (sender, receiver) = mailbox(WISHES_MAX);
        let cache = cache_inodes
            .map(|inodes| Arc::new(LeaseCache::new(map.clone(), inodes, sender.clone())));
        // Zero is no session.
        let holder = SessionId(platform.random_u64().max(1));
        let process = Process { holder, cache, ..Process::default() };
        let shared = Shared { map, key, options, process, sender, receiver };
        SharedClient { shared: Arc::new(shared) }
    }

    /// A client for the calling thread, with a session and connections of its own.
    pub fn client(&self, platform: &Platform) -> Client {
        let Shared { map, key, options, process, .. } = &*self.shared;
        Client::of_process(platform, map.clone(), key.clone(), *options, process.clone())
    }

    /// Keeps the leases of the process and answers the servers that want one back, until
    /// [`SharedClient::end`]. Runs once, on a thread where nothing else delays it.
    pub async fn keep_leases(&self, platform: &Platform, revoked: Rc<dyn Revoked>) {
        let Shared { map, key, options, process, receiver, .. } = &*self.shared;
        match &process.cache {
            Some(cache) => {
                let session = keeper::lease_session(platform, map, key, *options, process.holder);
                keeper::keep(platform, cache.clone(), session, receiver, revoked).await;
            }
            None => while receiver.receive().await.is_some() {},
        }
    }

    /// Ends [`SharedClient::keep_leases`], which gives all leases back. Clients go on, and cache
    /// nothing.
    pub fn end(&self) {
        self.shared.sender.close();
    }
}

impl std::fmt::Debug for SharedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedClient({})", self.shared.map.name())
    }
}
