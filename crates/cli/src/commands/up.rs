//! `ringfs up`: makes a cluster, or brings one back, waits until all its nodes answer, and mounts it
//! when asked.
//!
//! Invariant: a failed `up` stops what it started and removes what it made; a cluster that was
//! there before is left as it was.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::future::{Either, join_all, select};
use ringfs_client::{Client, ClientOptions};
use ringfs_platform::fuse::{self, MountState};
use ringfs_platform::{Address, Platform};
use ringfs_wire::{AttributeChanges, ClusterId, InodeNumber, NodeId};

use crate::admin::Admin;
use crate::cluster::{Directory, Registry, Settings};
use crate::commands::launch::{self, Started};
use crate::commands::mounting::{self, MountChoice};
use crate::commands::plan::{COUNT_MAX, ListenWish, Wish, parse_chunk_size};
use crate::commands::{ClusterChoice, Found, ports, run_on_platform};
use crate::environment::Environment;
use crate::error::{CliError, plain};
use crate::output::Output;
use crate::remote::User;
use crate::units::show_size;

/// How long the port of a killed node may stay taken.
const PORT_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at.
const PORT_LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Mode of a data directory: what lies inside belongs to the users of the cluster, not to everybody
/// on the machine.
const DATA_MODE: u32 = 0o700;
/// Mode of a mount point, less the umask; a mount shows the mode of the root directory instead.
const MOUNT_MODE: u32 = 0o777;

/// Start a cluster on this machine, or bring it back
///
/// Starts the nodes of a cluster as background processes and waits until all of them answer.
/// The first time it makes the cluster; later it brings the same cluster back with all its files.
/// Nodes that run already are left alone.
#[derive(Args, Debug)]
pub(crate) struct UpArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Server processes [default: 1, or what the cluster has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    nodes: Option<u32>,
    /// Targets (threads with a directory each) per node [default: one per core, or what the
    /// cluster has]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNT_MAX)))]
    targets: Option<u32>,
    /// Size of the pieces in which files are spread over targets [default: 4MiB]
    #[arg(long, value_name = "SIZE", value_parser = parse_chunk_size)]
    chunk_size: Option<u32>,
    /// Address to listen on; with a port, node I listens on PORT + I [default: 127.0.0.1, free
    /// ports]
    #[arg(long, value_name = "IP[:PORT]")]
    listen: Option<ListenWish>,
    /// Mount it at this directory, which is made if it is missing
    #[arg(long, value_name = "DIR")]
    mount: Option<PathBuf>,
    /// How long to wait for the nodes to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

impl UpArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let name = self.choice.name(environment)?;
        let wish = Wish {
            name: name.to_owned(),
            nodes: self.nodes,
            targets: self.targets,
            chunk_size: self.chunk_size,
            listen: self.listen,
        };
        let directory = self.locate(name, environment)?;
        run_on_platform(environment, async |platform| {
            let patience = Duration::from_secs(self.wait);
            let mount = self.mount.as_deref();
            Up { platform, environment, wish, directory, mount, patience }.run().await
        })
    }

    /// Where the cluster lies or shall lie.
    fn locate(&self, name: &str, environment: &Environment) -> Result<Directory, CliError> {
        let registry = Registry(environment);
        let Some(path) = &self.choice.data else { return registry.find(name) };
        let wanted = Directory::at(path)?;
        if let Some(known) = registry.registered(name)?
            && known != wanted
            && known.settings()?.is_some_and(|settings| settings.map.name() == name)
        {
            return Err(CliError::failed(format!(
                "cluster \"{name}\" already lies in {}: give the new one another --name, or remove \
                 the old one with `ringfs down --name {name} --wipe`",
                known.path().display()
            )));
        }
        Ok(wanted)
    }
}

struct Up<'a> {
    platform: Platform,
    environment: &'a Environment,
    wish: Wish,
    directory: Directory,
    mount: Option<&'a Path>,
    patience: Duration,
}

/// Where to mount.
struct Place {
    path: PathBuf,
    /// The cluster is mounted there already.
    is_served: bool,
}

impl Up<'_> {
    async fn run(self) -> Result<(), CliError> {
        if self.directory.settings()?.is_none() && !self.directory.is_free()? {
            return Err(CliError::failed(format!(
                "{} is not empty and holds no cluster: choose another directory with --data DIR",
                self.directory.path().display()
            )));
        }
        mounting::check_data_is_local(self.directory.path())?;
        let mut made = make_directories(self.directory.path(), DATA_MODE, "--data")?;
        let mut is_new = false;
        let result = self.run_in_directory(&mut is_new, &mut made).await;
        if result.is_err() {
            if is_new {
                self.directory.wipe_contents()?;
                Registry(self.environment).forget(&self.wish.name)?;
            }
            for directory in made.iter().rev() {
                // Whatever came to lie in it meanwhile is not ours to remove.
                let _ = std::fs::remove_dir(directory);
            }
        }
        result
    }

    async fn run_in_directory(
        &self,
        is_new: &mut bool,
        made: &mut Vec<PathBuf>,
    ) -> Result<(), CliError> {
        let _lock = self.directory.lock()?;
        let existing = self.directory.settings()?;
        *is_new = existing.is_none();
        let place = match self.mount {
            Some(directory) => Some(self.prepare_place(directory, made)?),
            None => None,
        };
        let settings = match existing {
            Some(settings) => {
                self.wish.check_existing(&settings).map_err(|why| {
                    let place = self.directory.path().display();
                    CliError::failed(format!("{place} cannot be used: {why}"))
                })?;
                self.adapt_addresses(settings).await?
            }
            None => self.create()?,
        };
        Registry(self.environment).remember(&self.wish.name, &self.directory)?;
        let started = self.start(&settings, *is_new, place.as_ref()).await?;
        summarise(&self.directory, &settings, &started)
    }

    /// Makes sure that the cluster can be mounted at `directory`, which is made if it is missing.
    fn prepare_place(&self, directory: &Path, made: &mut Vec<PathBuf>) -> Result<Place, CliError> {
        let state = fuse::mount_state(directory);
        if matches!(state, Ok(MountState::NotMounted) | Err(_)) {
            let path = std::path::absolute(directory)
                .map_err(|error| CliError::local("find", directory, error))?;
            mounting::check_apart(&path, self.directory.path())?;
            made.extend(make_directories(&path, MOUNT_MODE, "--mount")?);
        }
        let path = fuse::resolve(directory)?;
        let is_served = mounting::is_served(&self.directory, &self.wish.name, &path)?;
        if !is_served {
            mounting::prepare_place(&self.directory, &path)?;
        }
        Ok(Place { path, is_served })
    }

    /// Makes the files of a new cluster.
    fn create(&self) -> Result<Settings, CliError> {
        self.check_space()?;
        let count = self.wish.node_count();
        let listen = self
            .wish
            .listen
            .unwrap_or(ListenWish { ip: std::net::Ipv4Addr::LOCALHOST.into(), port: None });
        let addresses = match listen.chosen(count).map_err(CliError::Usage)? {
            Some(addresses) => addresses,
            None => ports::choose(&self.platform, listen.ip, count)?,
        };
        for (node, address) in (0..).zip(&addresses) {
            ports::check_free(address)
                .map_err(|error| port_taken(NodeId(node), address, &error))?;
        }
        let id = [self.platform.random_u64(), self.platform.random_u64()];
        let cluster = ClusterId(u128::from(id[0]) << 64 | u128::from(id[1]));
        let settings = self.wish.create(cluster, &addresses, self.environment.cores);
        let settings = settings.map_err(CliError::Usage)?;
        self.directory.create_key(&self.platform)?;
        // Last: a directory without it counts as empty.
        self.directory.write_settings(&settings)?;
        Ok(settings)
    }

    fn check_space(&self) -> Result<(), CliError> {
        let path = self.directory.path();
        let space = rustix::fs::statvfs(path)
            .map_err(|error| CliError::local("look at the file system of", path, error))?;
        let available = space.f_bavail.saturating_mul(space.f_frsize);
        let needed = self.wish.space_needed(self.environment.cores);
        if available < needed {
            return Err(CliError::failed(format!(
                "the disk of {} is full: {} are free, the targets' logs need {}: free some space, \
                 choose another disk with --data DIR, or fewer --targets",
                path.display(),
                show_size(available),
                show_size(needed)
            )));
        }
        Ok(())
    }

    /// Exchanges ports that other programs took meanwhile, where nobody relies on them yet.
    async fn adapt_addresses(&self, settings: Settings) -> Result<Settings, CliError> {
        // Mounts know the nodes by their addresses as other nodes do.
        let mounts = self.directory.mounts()?;
        let mut is_one_running = mounts.iter().any(|mount| mount.process.is_alive());
        let mut taken = None;
        for node in settings.map.nodes() {
            if self.directory.process(node.id)?.is_some() {
                is_one_running = true;
                continue;
            }
            let address = settings.address(node.id);
            if let Err(error) = self.port_is_free(node.id, &address).await {
                taken = Some(port_taken(node.id, &address, &error));
            }
        }
        let moved = match self.wish.listen {
            Some(_) if is_one_running => None,
            Some(listen) => self.move_to(&settings, listen)?,
            None => None,
        };
        match (moved, taken) {
            (Some(moved), _) => {
                self.directory.write_settings(&moved)?;
                Ok(moved)
            }
            (None, None) => Ok(settings),
            (None, Some(taken)) if is_one_running || settings.ports_are_chosen => Err(taken),
            (None, Some(_)) => {
                let Address::Tcp(old) = settings.address(NodeId(0)) else {
                    return Ok(settings);
                };
                let count = settings.map.nodes().len() as u32;
                let addresses = ports::choose(&self.platform, old.ip(), count)?;
                let settings = settings.with_addresses(&addresses);
                self.directory.write_settings(&settings)?;
                Ok(settings)
            }
        }
    }

    /// Waits until a node could listen at its address, if its last process was killed: the kernel
    /// takes back the sockets of a ring only some time after the process has gone.
    async fn port_is_free(&self, node: NodeId, address: &Address) -> Result<(), std::io::Error> {
        let patience = match self.directory.has_died(node) {
            true => PORT_PATIENCE,
            false => Duration::ZERO,
        };
        let end = self.platform.monotonic() + patience;
        loop {
            let result = ports::check_free(address);
            if result.is_ok() || self.platform.monotonic() >= end {
                return result;
            }
            self.platform.sleep(PORT_LOOK_INTERVAL).await;
        }
    }

    /// The settings at the addresses asked for, if those differ from what there is.
    fn move_to(
        &self,
        settings: &Settings,
        listen: ListenWish,
    ) -> Result<Option<Settings>, CliError> {
        let count = settings.map.nodes().len() as u32;
        let chosen = listen.chosen(count).map_err(CliError::Usage)?;
        let has = |index: u32| settings.address(settings.map.nodes()[index as usize].id);
        let addresses = match chosen {
            Some(addresses) if (0..).zip(&addresses).all(|(index, to)| has(index) == *to) => {
                return Ok(None);
            }
            Some(addresses) => addresses,
            None => ports::choose(&self.platform, listen.ip, count)?,
        };
        for (node, address) in settings.map.nodes().iter().zip(&addresses) {
            ports::check_free(address).map_err(|error| port_taken(node.id, address, &error))?;
        }
        let mut moved = settings.with_addresses(&addresses);
        moved.ports_are_chosen = listen.port.is_some();
        Ok(Some(moved))
    }

    /// Starts what does not run and waits until everything answers; on failure stops what it
    /// started.
    async fn start(
        &self,
        settings: &Settings,
        is_new: bool,
        place: Option<&Place>,
    ) -> Result<Vec<NodeId>, CliError> {
        let admin = Admin::new(&self.platform, settings, self.directory.key()?);
        let mut started: Vec<Started> = Vec::new();
        let mut result = self.start_and_wait(settings, &admin, &mut started).await;
        if is_new && result.is_ok() {
            result = self.own_root(settings).await;
        }
        if let Some(place) = place.filter(|place| result.is_ok() && !place.is_served) {
            let found = Found { directory: self.directory.clone(), settings: settings.clone() };
            let how = MountChoice::default();
            result = mounting::start(&self.platform, &found, &place.path, &how).await.map(drop);
        }
        let nodes = started.iter().map(|process| process.node).collect();
        if result.is_err() {
            let stops = started.into_iter().map(|process| process.stop(&self.platform));
            join_all(stops).await;
        }
        result.map(|()| nodes)
    }

    /// Gives the root directory of a new cluster to the user who made it.
    async fn own_root(&self, settings: &Settings) -> Result<(), CliError> {
        let user = User::current();
        if user.is_root() {
            return Ok(());
        }
        let key = self.directory.key()?;
        let client =
            Client::new(&self.platform, settings.map.clone(), key, ClientOptions::default());
        let changes = AttributeChanges {
            uid: Some(user.uid),
            gid: Some(user.gid),
            ..AttributeChanges::default()
        };
        client.update(InodeNumber::ROOT, changes).await?;
        Ok(client.close().await?)
    }

    async fn start_and_wait(
        &self,
        settings: &Settings,
        admin: &Admin,
        started: &mut Vec<Started>,
    ) -> Result<(), CliError> {
        let nodes = settings.map.nodes().iter();
        let results = join_all(nodes.map(|node| self.bring_up(settings, admin, node.id))).await;
        let mut outcome = Ok(());
        for (process, result) in results {
            started.extend(process);
            outcome = outcome.and(result);
        }
        outcome
    }

    /// Waits until a node answers, starting it if it does not run, or turns out to be ending.
    /// Returns the process if this started one.
    async fn bring_up(
        &self,
        settings: &Settings,
        admin: &Admin,
        node: NodeId,
    ) -> (Option<Started>, Result<(), CliError>) {
        let answers = |process| {
            launch::answers(&self.platform, admin, settings, node, process, self.patience)
        };
        match self.directory.process(node) {
            Err(error) => return (None, Err(error)),
            Ok(None) => {}
            Ok(Some(process)) => {
                let ended = process.ended_within(&self.platform, self.patience);
                match select(pin!(answers(None)), pin!(ended)).await {
                    Either::Left((result, _)) => return (None, result),
                    Either::Right((true, _)) => {}
                    Either::Right((false, answered)) => return (None, answered.await),
                }
            }
        }
        let address = settings.address(node);
        if let Err(error) = self.port_is_free(node, &address).await {
            return (None, Err(port_taken(node, &address, &error)));
        }
        match launch::start(&self.directory, settings, node) {
            Err(error) => (None, Err(error)),
            Ok(mut process) => {
                let result = answers(Some(&mut process)).await;
                (Some(process), result)
            }
        }
    }
}

fn port_taken(node: NodeId, address: &Address, error: &std::io::Error) -> CliError {
    CliError::failed(format!(
        "node {node} cannot listen on {address}: {}. Stop the program that uses it, or choose \
         other addresses with --listen while the cluster is down",
        plain(error)
    ))
}

/// Makes `path` with `mode` and the directories above it; returns those that were missing,
/// outermost first. `flag` chooses another path.
fn make_directories(path: &Path, mode: u32, flag: &str) -> Result<Vec<PathBuf>, CliError> {
    use std::os::unix::fs::DirBuilderExt;
    let missing = path.ancestors().take_while(|ancestor| !ancestor.exists());
    let mut missing: Vec<PathBuf> = missing.map(Path::to_owned).collect();
    missing.reverse();
    for (index, directory) in missing.iter().enumerate() {
        let mut builder = std::fs::DirBuilder::new();
        if directory == path {
            builder.mode(mode);
        }
        if let Err(error) = builder.create(directory) {
            for made in missing[..index].iter().rev() {
                let _ = std::fs::remove_dir(made);
            }
            return Err(CliError::failed(format!(
                "cannot create the directory {}: {}: choose another with {flag} DIR",
                directory.display(),
                plain(&error)
            )));
        }
    }
    match path.is_dir() {
        true => Ok(missing),
        false => Err(CliError::failed(format!(
            "{} is not a directory: choose another with {flag} DIR",
            path.display()
        ))),
    }
}

fn summarise(
    directory: &Directory,
    settings: &Settings,
    started: &[NodeId],
) -> Result<(), CliError> {
    let map = &settings.map;
    let mut output = Output::new();
    let what = match (started.len(), map.nodes().len()) {
        (0, _) => "runs already",
        (some, all) if some < all => "is complete again",
        _ => "is up",
    };
    output.line(format_args!(
        "Cluster \"{}\" {what}: {} node(s), {} target(s), epoch {}, data in {}",
        map.name(),
        map.nodes().len(),
        map.targets().len(),
        map.epoch(),
        directory.path().display()
    ))?;
    for node in map.nodes() {
        let pid = directory.process(node.id)?.map_or(0, |process| process.pid);
        let how = if started.contains(&node.id) { "started" } else { "was running" };
        output.line(format_args!("  node {}  {}  pid {pid}  {how}", node.id, node.address))?;
    }
    for mount in directory.mounts()? {
        if mounting::describe(directory, &mount)? == Some("mounted") {
            let (place, pid) = (mount.place.display(), mount.process.pid);
            output.line(format_args!("  mounted at {place}  pid {pid}"))?;
        }
    }
    output.finish()
}
