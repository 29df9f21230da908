//! `ringfs serve`: runs one node in the foreground, as supervisors want it and as `up` uses it.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::pin::pin;

use clap::Args;
use futures_util::future::select;
use ringfs_platform::{Address, MailboxReceiver, Platform};
use ringfs_server::NodeOptions;
use ringfs_wire::NodeId;
use rustix::fs::FlockOperation;

use crate::cluster::{Directory, ProcessIdentity};
use crate::commands::{ClusterChoice, Found, run_on_platform, service};
use crate::environment::Environment;
use crate::error::CliError;

/// Run one node of a cluster in the foreground, for supervisors
///
/// The cluster must have been made by `ringfs up`. SIGTERM and SIGINT stop the node in order,
/// a second one at once. Logs go to the standard error; RINGFS_LOG chooses what.
#[derive(Args, Debug)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Number of the node
    #[arg(long, value_name = "I")]
    node: u32,
    /// Listen here instead of at the node's address in the cluster map
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<Address>,
    /// Become a session of its own, independent of the terminal
    #[arg(long, hide = true)]
    detached: bool,
}

impl ServeArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        if self.detached {
            service::detach();
        }
        service::start_log();
        let found = self.choice.find(environment)?;
        let node = NodeId(self.node);
        if found.settings.map.node(node).is_none() {
            return Err(CliError::failed(format!(
                "cluster \"{}\" has no node {node}, but {}",
                found.settings.map.name(),
                found.settings.map.nodes().len()
            )));
        }
        let mut mark = Mark::set(&found.directory, node)?;
        let signals = service::listen_for_signals()?;
        let listen = self.listen.clone();
        let result = run_on_platform(environment, async |platform| {
            serve(&platform, &found, node, listen, signals).await
        });
        mark.clear();
        result
    }
}

async fn serve(
    platform: &Platform,
    found: &Found,
    id: NodeId,
    listen: Option<Address>,
    signals: MailboxReceiver<i32>,
) -> Result<(), CliError> {
    let mut options = NodeOptions::new(
        id,
        found.settings.map.clone(),
        found.directory.key()?,
        found.directory.node(id),
        listen.unwrap_or_else(|| found.settings.address(id)),
    );
    // The other half is for connections, and for what is opened for a moment.
    let targets = found.settings.map.targets_of(id).count().max(1);
    let share = service::raise_descriptor_limit() / 2 / targets as u64;
    let share = usize::try_from(share).unwrap_or(usize::MAX);
    options.store.open_segments = options.store.open_segments.min(share);
    let running = ringfs_server::start(platform, options)
        .await
        .map_err(|error| CliError::failed(format!("node {id} cannot start: {error}")))?;
    let name = found.settings.map.name();
    tracing::info!(cluster = name, node = id.0, address = %running.address(), "serving");
    select(pin!(running.stopped()), pin!(signals.receive())).await;
    tracing::info!("stopping");
    running.stop().await;
    tracing::info!("stopped in order");
    Ok(())
}

/// Makes the names that lead to a directory durable: what is synced in it must be found again
/// after a power cut. Directories further up that this user cannot open are older than the cluster.
fn keep_name(directory: &Path) -> std::io::Result<()> {
    let mut above = directory.ancestors().skip(1);
    above.next().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
    for ancestor in above {
        if File::open(ancestor).and_then(|opened| opened.sync_all()).is_err() {
            break;
        }
    }
    Ok(())
}

/// Says which process a node is, for as long as it runs.
struct Mark {
    file: File,
}

impl Mark {
    fn set(directory: &Directory, node: NodeId) -> Result<Self, CliError> {
        let path = directory.pid(node);
        let home = directory.node(node);
        std::fs::create_dir_all(&home)
            .map_err(|error| CliError::local("create the directory", &home, error))?;
        keep_name(&home).map_err(|error| CliError::local("sync the directory of", &home, error))?;
        let failed = |error: std::io::Error| CliError::local("write", &path, error);
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path).map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(CliError::failed(format!("node {node} runs already")));
            }
            Err(error) => return Err(CliError::local("lock", &path, error)),
        }
        let identity = ProcessIdentity::current()
            .ok_or_else(|| CliError::failed("cannot read /proc/self/stat: is /proc mounted?"))?;
        let write = |file: &mut File| -> std::io::Result<()> {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            writeln!(file, "{identity}")
        };
        write(&mut file).map_err(failed)?;
        Ok(Self { file })
    }

    /// The process ends in order; after anything else its start time tells.
    fn clear(&mut self) {
        let _ = self.file.set_len(0);
    }
}
