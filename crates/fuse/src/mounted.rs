//! Making a mount, and its end.
//!
//! The process of a mount is its workers; this is what starts them, waits for them, and takes the
//! mount away. Invariant: when the mount ends, in whichever way, every worker closes its session,
//! so that the servers free what only this mount held.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringfs_client::{Client, ClientOptions, SharedClient};
use ringfs_placement::ClusterMap;
use ringfs_platform::fuse::{FuseMount, MountRequest};
use ringfs_platform::{MailboxReceiver, Platform, mailbox};
use ringfs_rpc::ClusterKey;
use ringfs_wire::InodeNumber;

use crate::connection::{self, REQUEST_DATA_MAX};
use crate::error::MountError;
use crate::handles::WORKERS_MAX;
use crate::revocation::KernelRevocations;
use crate::worker::{Message, MountState, Worker};

/// How long an unmount waits for processes that still use the mount.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of a mount waits for the servers to take the leases back. Without them the
/// leases expire.
const LEASES_PATIENCE: Duration = Duration::from_secs(3);
/// Messages to one worker that may wait.
const MESSAGES_MAX: usize = 1_024;

/// What to mount, where and how.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The mount point.
    pub directory: PathBuf,
    /// The cluster.
    pub map: ClusterMap,
    /// Its key.
    pub key: ClusterKey,
    /// Deadlines and parallelism of the clients.
    pub client: ClientOptions,
    /// Threads that serve requests, at least 1 and at most 64.
    pub workers: usize,
    /// Other users than the one who mounts may use the mount.
    pub allow_other: bool,
    /// Names, attributes and pages are cached under leases; without it nothing is.
    pub caching: bool,
    /// Inodes of which something is cached, at most.
    pub cache_inodes: usize,
}

/// A mount that this process serves.
pub struct Mounted {
    platform: Platform,
    mount: FuseMount,
    state: Arc<MountState>,
    shared: SharedClient,
    /// One message from each worker, when it has ended.
    ended: MailboxReceiver<Result<(), String>>,
    /// Closes when the leases have been given back.
    leases_ended: MailboxReceiver<()>,
    workers: usize,
}

/// Mounts the cluster. Returns when the cluster has answered and the kernel is served.
pub async fn mount(platform: &Platform, options: MountOptions) -> Result<Mounted, MountError> {
    let workers = options.workers.clamp(1, WORKERS_MAX);
    let cache_inodes = options.caching.then_some(options.cache_inodes);
    let shared = SharedClient::new(
        platform,
        options.map.clone(),
        options.key.clone(),
        options.client,
        cache_inodes,
    );
    check_cluster(&shared.client(platform)).await?;
    let request = MountRequest {
        directory: options.directory.clone(),
        source: format!("ringfs#{}", options.map.name()),
        allow_other: options.allow_other,
        read_only: false,
        max_read: REQUEST_DATA_MAX,
    };
    let mount = platform.mount_fuse(&request).await?;
    match start(platform, &mount, &shared, &options, workers).await {
        Ok(Started { state, ended, leases_ended }) => {
            let platform = platform.clone();
            Ok(Mounted { platform, mount, state, shared, ended, leases_ended, workers })
        }
        Err(error) => {
            shared.end();
            if let Err(error) = mount.unmount().await {
                tracing::warn!(%error, "could not take back a mount that failed");
            }
            Err(error)
        }
    }
}

/// The root must answer before anybody is led into the mount.
async fn check_cluster(client: &Client) -> Result<(), MountError> {
    let root = client.attributes(InodeNumber::ROOT).await;
    let closed = client.clone().close().await;
    root?;
    closed?;
    Ok(())
}

/// What runs.
struct Started {
    state: Arc<MountState>,
    ended: MailboxReceiver<Result<(), String>>,
    leases_ended: MailboxReceiver<()>,
}

/// Agrees with the kernel and starts the workers.
async fn start(
    platform: &Platform,
    mount: &FuseMount,
    shared: &SharedClient,
    options: &MountOptions,
    workers: usize,
) -> Result<Started, MountError> {
    let first = mount.first()?.adopt(platform)?;
    let agreement = connection::agree(&first).await?;
    drop(first);
    tracing::debug!(minor = agreement.minor, flags = agreement.flags, "agreed with the kernel");
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..workers).map(|_| mailbox::<Message>(MESSAGES_MAX)).unzip();
    let state = Arc::new(MountState::new(agreement, options.caching, senders));
    let (end, ended) = mailbox(workers);
    for (index, messages) in receivers.into_iter().enumerate() {
        let handoff = if index == 0 { mount.first()? } else { mount.handoff()? };
        let (shared, state, end) = (shared.clone(), state.clone(), end.clone());
        let notifier = mount.notifier();
        platform.start_shard(&format!("mount-{index}"), move |platform| {
            Box::pin(async move {
                let client = shared.client(&platform);
                let result = match handoff.adopt(&platform) {
                    Ok(channel) => {
                        let worker =
                            Worker::new(&platform, client, channel, notifier, state, index);
                        Rc::new(worker).run(messages).await
                    }
                    Err(error) => Err(error),
                };
                let _ = end.send(result.map_err(|error| error.to_string())).await;
            })
        });
    }
    let (lease_end, leases_ended) = mailbox(1);
    if options.caching {
        let (shared, state, notifier) = (shared.clone(), state.clone(), mount.notifier());
        platform.start_shard("mount-leases", move |platform| {
            Box::pin(async move {
                let revocations = Rc::new(KernelRevocations::new(state, notifier));
                shared.keep_leases(&platform, revocations).await;
                lease_end.close();
            })
        });
    }
    Ok(Started { state, ended, leases_ended })
}

impl Mounted {
    /// Waits until the mount has ended, because somebody unmounted it or the connection broke.
    pub async fn ended(&self) -> Result<(), MountError> {
        let mut result = Ok(());
        for _ in 0..self.workers {
            match self.ended.receive().await {
                Some(Ok(())) => {}
                Some(Err(text)) => result = Err(std::io::Error::other(text).into()),
                None => break,
            }
        }
        self.shared.end();
        // The mailbox closes without a message.
        let _ = self.platform.timeout(LEASES_PATIENCE, self.leases_ended.receive()).await;
        result
    }

    /// Takes the mount away. Processes that still use it have a few seconds to finish; then their
    /// files fail.
    pub async fn unmount(self) -> Result<(), MountError> {
        self.mount.unmount().await?;
        if let Some(result) = self.platform.timeout(UNMOUNT_PATIENCE, self.ended()).await {
            return result;
        }
        tracing::warn!("files of the mount are still open; they fail from now on");
        self.state.stop();
        let _ = self.platform.timeout(UNMOUNT_PATIENCE, self.ended()).await;
        Ok(())
    }
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mounted({})", self.mount.directory().display())
    }
}
