//! A node: one server process with its targets and its door.
//!
//! The door listens, lets only holders of the cluster key in, and hands each connection to the
//! shard of the target it names. Shards share nothing but these mailboxes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use ringfs_placement::ClusterMap;
use ringfs_platform::{
    Address, Link, Listener, MailboxReceiver, MailboxSender, Platform, Shard, StorageError, mailbox,
};
use ringfs_rpc::{ClusterKey, Connections, FRAMING, Greeted, Identity, Peer, PeerOptions, greet};
use ringfs_store::{Store, StoreOptions};
use ringfs_wire::{FilePermissions, InodeNumber, NodeId, SessionId, TargetId};

use crate::ServerError;
use crate::mutations::is_defective;
use crate::target::{Parts, Target};

/// Connections on their way to a target.
const MAILBOX_BOUND: usize = 256;
/// Handshakes in progress; more are turned away.
const HANDSHAKES_MAX: u32 = 256;
/// Pause after a failed accept, such as when descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a server tries to reach another before it answers busy.
const PARTNER_DEADLINE: Duration = Duration::from_secs(5);

/// What a node needs to start.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Which node of the map this is.
    pub node: NodeId,
    /// The cluster map.
    pub map: ClusterMap,
    /// The cluster key.
    pub key: ClusterKey,
    /// The node's directory; its targets live in `target-<id>` below it.
    pub directory: PathBuf,
    /// Where to listen.
    pub listen: Address,
    /// Settings of the targets' stores. Target, cluster, root and chunk size are filled in.
    pub store: StoreOptions,
    /// Deliberate defects.
    #[cfg(feature = "mutations")]
    pub mutations: crate::Mutations,
}

impl NodeOptions {
    /// The usual options of `node`.
    pub fn new(
        node: NodeId,
        map: ClusterMap,
        key: ClusterKey,
        directory: PathBuf,
        listen: Address,
    ) -> Self {
        let store = StoreOptions::new(map.cluster(), TargetId::default());
        NodeOptions {
            node,
            map,
            key,
            directory,
            listen,
            store,
            #[cfg(feature = "mutations")]
            mutations: crate::Mutations::default(),
        }
    }
}

enum ToShard {
    /// Every target of the node is ready, and the door opens.
    Open,
    Connection(Greeted),
    Stop,
}

/// A running node. Dropping it leaves it running; [`Node::stop`] ends it.
pub struct Node {
    address: Address,
    shards: Vec<(MailboxSender<ToShard>, Shard)>,
    stop_requested: MailboxReceiver<()>,
    close_door: MailboxSender<()>,
}

/// Starts a node: listens, recovers its targets, opens the door.
pub async fn start(platform: &Platform, options: NodeOptions) -> Result<Node, ServerError> {
    let targets: Vec<_> = options.map.targets_of(options.node).collect();
    if targets.is_empty() {
        return Err(ServerError::NoTargets { node: options.node });
    }
    let listener = platform
        .listen(&options.listen, FRAMING)
        .await
        .map_err(|source| ServerError::Listen { address: options.listen.to_string(), source })?;
    let (request_stop, stop_requested) = mailbox(1);
    let mut shards = BTreeMap::new();
    let mut starting = Vec::new();
    for target in targets {
        let (sender, receiver) = mailbox(MAILBOX_BOUND);
        let (ready, is_ready) = mailbox(1);
        let plan = ShardPlan { target, options: options.clone(), stop: request_stop.clone() };
        let body = move |platform: Platform| -> ringfs_platform::ShardBody {
            Box::pin(run_shard(platform, plan, receiver, ready))
        };
        let shard = platform.start_shard(&format!("target-{target}"), body);
        shards.insert(target, (sender, shard));
        starting.push((target, is_ready));
    }
    for (target, is_ready) in starting {
        let started = is_ready.receive().await;
        let started = started.unwrap_or(Err(ServerError::ShardEnded { target }));
        if let Err(error) = started {
            stop_shards(shards.into_values().collect()).await;
            return Err(error);
        }
    }
    let address = listener.address();
    let (close_door, door_closed) = mailbox(1);
    let door = Door {
        platform: platform.clone(),
        identity: identity(&options),
        shards: shards.iter().map(|(id, (sender, _))| (*id, sender.clone())).collect(),
        handshakes: Cell::new(0),
    };
    for (sender, _) in shards.values() {
        // A shard that has ended needs no telling.
        let _ = sender.send(ToShard::Open).await;
    }
    platform.spawn(keep_door(Rc::new(door), listener, door_closed));
    Ok(Node { address, shards: shards.into_values().collect(), stop_requested, close_door })
}

impl Node {
    /// Where the node listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits until a client asks the node to stop.
    pub async fn stopped(&self) {
        // An error says that every target is gone, which is a stop as well.
        let _ = self.stop_requested.receive().await;
    }

    /// Closes the door, then syncs and closes every target.
    pub async fn stop(self) {
        let _ = self.close_door.send(()).await;
        stop_shards(self.shards).await;
    }
}

async fn stop_shards(shards: Vec<(MailboxSender<ToShard>, Shard)>) {
    for (sender, _) in &shards {
        // A shard that has ended needs no telling.
        let _ = sender.send(ToShard::Stop).await;
    }
    shards.into_iter().for_each(|(_, shard)| shard.join());
}

fn identity(options: &NodeOptions) -> Identity {
    Identity {
        cluster: options.map.cluster(),
        key: options.key.clone(),
        session: SessionId::default(),
        holder: SessionId::default(),
    }
}

struct Door {
    platform: Platform,
    identity: Identity,
    shards: BTreeMap<TargetId, MailboxSender<ToShard>>,
    handshakes: Cell<u32>,
}

async fn keep_door(door: Rc<Door>, listener: Listener, closed: MailboxReceiver<()>) {
    loop {
        let (accepted, closing) = (pin!(listener.accept()), pin!(closed.receive()));
        match select(accepted, closing).await {
            Either::Left((Ok(link), _)) => {
                if door.handshakes.get() >= HANDSHAKES_MAX {
                    tracing::warn!(peer = link.peer(), "turned away: too many handshakes");
                    continue;
                }
                door.handshakes.set(door.handshakes.get() + 1);
                let door = Rc::clone(&door);
                let platform = door.platform.clone();
                platform.spawn(async move {
                    door.welcome(link).await;
                    door.handshakes.set(door.handshakes.get() - 1);
                });
            }
            Either::Left((Err(error), _)) => {
                tracing::warn!(%error, "cannot accept a connection");
                door.platform.sleep(ACCEPT_PAUSE).await;
            }
            Either::Right(_) => return,
        }
    }
}

impl Door {
    async fn welcome(&self, link: Link) {
        let targets: Vec<_> = self.shards.keys().copied().collect();
        match greet(&self.platform, link, &self.identity, &targets).await {
            Ok(greeted) => {
                if let Some(shard) = self.shards.get(&greeted.target) {
                    // A shard that has ended closes the connection by dropping it.
                    let _ = shard.send(ToShard::Connection(greeted)).await;
                }
            }
            Err(rejection) => tracing::warn!(%rejection, "connection refused"),
        }
    }
}

struct ShardPlan {
    target: TargetId,
    options: NodeOptions,
    stop: MailboxSender<()>,
}

async fn run_shard(
    platform: Platform,
    plan: ShardPlan,
    inbox: MailboxReceiver<ToShard>,
    ready: MailboxSender<Result<(), ServerError>>,
) {
    let target = match open_target(&platform, plan).await {
        Ok(target) => target,
        Err(error) => {
            // Nobody waits for the answer only when the node is being dropped.
            let _ = ready.send(Err(error)).await;
            return;
        }
    };
    let _ = ready.send(Ok(())).await;
    let connections = Rc::new(Connections::new());
    if is_defective!(target, keep_old_connections) {
        #[cfg(feature = "mutations")]
        connections.keep_old();
    }
    while let Some(message) = inbox.receive().await {
        let greeted = match message {
            ToShard::Open => {
                target.resume();
                continue;
            }
            ToShard::Connection(greeted) => greeted,
            ToShard::Stop => break,
        };
        let (connections, target) = (Rc::clone(&connections), Rc::clone(&target));
        let connection_platform = platform.clone();
        platform.spawn(async move {
            connections.serve(&connection_platform, greeted, target).await;
        });
    }
    if let Err(error) = target.store.clone().close().await {
        tracing::error!(target = %target.id, %error, "the target was not closed cleanly");
    }
}

async fn open_target(platform: &Platform, plan: ShardPlan) -> Result<Rc<Target>, ServerError> {
    let ShardPlan { target, options, stop } = plan;
    let map = Rc::new(options.map.clone());
    let directory = options.directory.join(format!("target-{target}"));
    if let Err(source) = make_directory(platform, &options.directory, &directory).await {
        return Err(ServerError::Directory { directory, source });
    }
    let is_root_home = map.home(InodeNumber::ROOT) == target;
    let root = is_root_home.then_some(FilePermissions { mode: 0o755, uid: 0, gid: 0 });
    let store_options = StoreOptions {
        target,
        cluster: map.cluster(),
        root,
        chunk_size: map.chunk_size(),
        ..options.store.clone()
    };
    let store = Store::open(platform, &directory, store_options)
        .await
        .map_err(|source| ServerError::Target { target, directory, source })?;
    let peers = peers(platform, &options, &map, target)?;
    Ok(Target::new(Parts {
        platform: platform.clone(),
        id: target,
        map,
        store,
        peers,
        stop,
        #[cfg(feature = "mutations")]
        mutations: options.mutations,
    }))
}

/// Makes a target's directory, for good: what is synced in it must not lose its name.
async fn make_directory(
    platform: &Platform,
    parent: &Path,
    directory: &Path,
) -> Result<(), StorageError> {
    match platform.disk().mkdir(directory, 0o700).await {
        Ok(()) | Err(StorageError::AlreadyExists { .. }) => {
            platform.disk().sync_directory(parent).await
        }
        Err(error) => Err(error),
    }
}

fn peers(
    platform: &Platform,
    options: &NodeOptions,
    map: &ClusterMap,
    own: TargetId,
) -> Result<BTreeMap<TargetId, Peer>, ServerError> {
    let epoch = Rc::new(Cell::new(map.epoch()));
    let mut peers = BTreeMap::new();
    for entry in map.targets().iter().filter(|entry| entry.id != own) {
        let node = map.node_of(entry.id).ok_or(ServerError::NoTargets { node: entry.node })?;
        let address = node
            .address
            .parse::<Address>()
            .map_err(|_| ServerError::Address { node: node.id, text: node.address.clone() })?;
        let peer_options =
            PeerOptions { operation_deadline: PARTNER_DEADLINE, ..PeerOptions::default() };
        let peer = Peer::new(
            platform,
            address,
            entry.id,
            identity(options),
            Rc::clone(&epoch),
            Rc::new(|_| Vec::new()),
            peer_options,
        );
        peers.insert(entry.id, peer);
    }
    Ok(peers)
}
