//! `ringfs mount`: shows a cluster as a directory.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::future::{Either, select};
use ringfs_client::ClientOptions;
use ringfs_fuse::MountOptions;
use ringfs_platform::{MailboxReceiver, Platform, fuse};
use ringfs_wire::InodeNumber;

use crate::admin::Admin;
use crate::cluster::MountMark;
use crate::commands::mounting::{self, MountChoice};
use crate::commands::{ClusterChoice, Found, launch, run_on_platform, service};
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::Output;
use crate::remote::{User, check_running};

/// Threads that serve a mount unless given, at least and at most.
const WORKERS_MIN: u32 = 2;
const WORKERS_MAX: u32 = 8;
/// Inodes that a mount caches at most; each takes less than a kilobyte.
const CACHE_INODES: usize = 256 << 10;

/// Mount a cluster at a directory
///
/// Programs use the files in the cluster like those on a local disk. Returns when the directory
/// is ready; a process in the background serves it until `ringfs unmount` or `ringfs down`.
#[derive(Args, Debug)]
pub(crate) struct MountArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    #[command(flatten)]
    how: MountChoice,
    /// Serve the mount in this process, until it is unmounted or receives SIGTERM or SIGINT
    #[arg(long)]
    foreground: bool,
    /// Become a session of its own, independent of the terminal
    #[arg(long, hide = true)]
    detached: bool,
    /// How long to wait for the servers to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    wait: u64,
    /// An existing directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl MountArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let found = self.choice.find(environment)?;
        check_running(&found)?;
        let place = fuse::resolve(&self.directory)?;
        if self.foreground {
            return self.serve(environment, &found, &place);
        }
        run_on_platform(environment, async |platform| {
            self.check(&platform, &found, &place).await?;
            let pid = mounting::start(&platform, &found, &place, &self.how).await?;
            let mut output = Output::new();
            let (name, place) = (found.settings.map.name(), place.display());
            output.line(format_args!("Cluster \"{name}\" is mounted at {place}  pid {pid}"))?;
            output.finish()
        })
    }

    /// Whether the mount can work: the place is free and the root directory's home answers.
    async fn check(
        &self,
        platform: &Platform,
        found: &Found,
        place: &Path,
    ) -> Result<(), CliError> {
        mounting::prepare_place(&found.directory, place)?;
        let map = &found.settings.map;
        let home = map.node_of(map.home(InodeNumber::ROOT)).expect("homes come from this map").id;
        let admin = Admin::new(platform, &found.settings, found.directory.key()?);
        let patience = Duration::from_secs(self.wait);
        launch::answers(platform, &admin, &found.settings, home, None, patience).await
    }

    fn serve(
        &self,
        environment: &Environment,
        found: &Found,
        place: &Path,
    ) -> Result<(), CliError> {
        if self.detached {
            service::detach();
        }
        // Before other threads start: they inherit it.
        let is_flusher = fuse::become_io_flusher();
        service::start_log();
        if !is_flusher {
            tracing::debug!("not permitted to become an I/O flusher");
        }
        service::ignore_hangup()?;
        service::raise_descriptor_limit();
        let signals = service::listen_for_signals()?;
        run_on_platform(environment, async |platform| {
            self.check(&platform, found, place).await?;
            let mut mark = MountMark::set(&found.directory, place)?;
            let options = self.options(environment, found, place)?;
            let result = serve(&platform, options, &mut mark, signals).await;
            mark.clear();
            result
        })
    }

    fn client_options(&self) -> ClientOptions {
        let options = ClientOptions::default();
        let deadline = self.how.deadline.map(|seconds| Duration::from_secs(seconds.into()));
        let operation_deadline = deadline.unwrap_or(options.operation_deadline);
        let attempt_deadline = options.attempt_deadline.min(operation_deadline);
        let access_times = !self.how.noatime;
        ClientOptions { operation_deadline, attempt_deadline, access_times, ..options }
    }

    fn options(
        &self,
        environment: &Environment,
        found: &Found,
        place: &Path,
    ) -> Result<MountOptions, CliError> {
        let workers = environment.cores.clamp(WORKERS_MIN, WORKERS_MAX);
        Ok(MountOptions {
            directory: place.to_owned(),
            map: found.settings.map.clone(),
            key: found.directory.key()?,
            client: self.client_options(),
            workers: self.how.workers.unwrap_or(workers) as usize,
            allow_other: self.how.allow_other || User::current().is_root(),
            caching: !self.how.no_cache,
            cache_inodes: CACHE_INODES,
        })
    }
}

/// Mounts, and serves the mount until it is gone or a signal asks to end it.
async fn serve(
    platform: &Platform,
    options: MountOptions,
    mark: &mut MountMark,
    signals: MailboxReceiver<i32>,
) -> Result<(), CliError> {
    let (name, place) = (options.map.name().to_owned(), options.directory.clone());
    let mounted = ringfs_fuse::mount(platform, options).await.map_err(CliError::failed)?;
    tracing::info!(cluster = name, directory = %place.display(), "mounted");
    if let Err(error) = mark.set_ready() {
        // Nobody would know of it.
        let _ = mounted.unmount().await;
        return Err(error);
    }
    let is_signalled = match select(pin!(mounted.ended()), pin!(signals.receive())).await {
        Either::Left((result, _)) => {
            result.map_err(CliError::failed)?;
            false
        }
        Either::Right(_) => true,
    };
    if is_signalled {
        tracing::info!("unmounting");
        mounted.unmount().await.map_err(CliError::failed)?;
    }
    tracing::info!("unmounted");
    Ok(())
}
