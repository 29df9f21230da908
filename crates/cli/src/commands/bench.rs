//! `ringfs bench`: measures a cluster, a mount or any directory beside the limits of the machine.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use ringfs_bench::suite::{self, CLIENTS_MAX, DoorChoice, Plan, Results, Running};
use ringfs_bench::{BenchError, Cluster, Interrupt};
use ringfs_platform::fuse::{self, MountState};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::commands::mounting::cluster_of;
use crate::commands::{ClusterChoice, Found};
use crate::environment::Environment;
use crate::error::{CliError, plain};
use crate::output::Output;
use crate::remote::check_running;
use crate::units::parse_size;

/// What a run does unless told otherwise, and what a quick one does.
const FULL: Amounts = Amounts {
    rounds: 9,
    seconds: 1.0,
    limit_seconds: 1.0,
    size: 512 << 20,
    files: 100_000,
    bare_bytes: 256 << 20,
};
const QUICK: Amounts = Amounts {
    rounds: 1,
    seconds: 0.5,
    limit_seconds: 0.3,
    size: 64 << 20,
    files: 10_000,
    bare_bytes: 64 << 20,
};
/// Exit code of a run that a second signal ends at once.
const EXIT_INTERRUPTED: i32 = 130;

struct Amounts {
    rounds: u32,
    seconds: f64,
    limit_seconds: f64,
    size: u64,
    files: u64,
    bare_bytes: u64,
}

/// Measure a cluster, a mount or any directory, beside the limits of the machine
///
/// Runs the workloads of the IO500 from several client processes and compares every byte that is
/// read with what was written. Without --name, --data and RINGFS_CLUSTER a cluster is made for the
/// run and removed afterwards. All files lie in one new directory, `bench-` and a number, which is
/// removed in the end, also when the run is interrupted. docs/performance.md says what each phase does.
#[derive(Args, Debug)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// How files are reached: `client` (the client library), `mount` (a mount of the cluster, at
    /// DIR if there are several), or any directory
    #[arg(long, value_name = "client|mount [DIR]|DIR", num_args = 1..=2, default_value = "client")]
    door: Vec<String>,
    /// Do the same in this directory in turn, and show the ratio
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// Where a cluster made for the run keeps its data, and the bare loops their files
    /// [default: /dev/shm]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Targets of a cluster made for the run
    #[arg(long, value_name = "N", default_value_t = 2)]
    targets: u32,
    /// Client processes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(CLIENTS_MAX)))]
    clients: u32,
    /// Rounds; figures are medians of them [default: 9, or 1 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Seconds after which writing phases end [default: 1, or 0.5 with --quick]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Bytes after which they end, per client [default: 512MiB, or 64MiB with --quick]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Files after which they end, per client [default: 100000, or 10000 with --quick]
    #[arg(long, value_name = "N")]
    files: Option<u64>,
    /// Run only phases whose names begin so, and those whose files they use
    #[arg(long, value_name = "PHASE", num_args = 1..)]
    only: Vec<String>,
    /// Before the first round, watch the servers at rest for so many seconds
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    idle: f64,
    /// In a directory or mount: drop what this machine caches of files before they are read
    #[arg(long)]
    drop_caches: bool,
    /// Take less than a minute; the figures are rough
    #[arg(long)]
    quick: bool,
    /// Write the results as JSON; `-` prints them instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots, one HTML file that needs no other
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Flip a bit between writing and reading: the run has to fail
    #[arg(long, hide = true)]
    damage: bool,
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Usage(text) => Self::Usage(text),
            BenchError::Io { action, source } => {
                Self::failed(format!("bench: cannot {action}: {}", plain(&source)))
            }
            BenchError::Interrupted => Self::failed("bench: interrupted; what it made is removed"),
            error => Self::failed(format!("bench: {error}")),
        }
    }
}

impl BenchArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        self.check_files()?;
        let plan = self.plan(environment)?;
        let interrupt = watch_signals()?;
        let is_watched = std::io::stderr().is_terminal();
        let mut progress = |text: &str| {
            if is_watched {
                // The line is written over by the next.
                let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            }
        };
        let results = suite::run(&plan, &interrupt, &mut progress);
        progress("");
        self.show(&results?)
    }

    fn plan(&self, environment: &Environment) -> Result<Plan, CliError> {
        let amounts = if self.quick { &QUICK } else { &FULL };
        Ok(Plan {
            door: self.door(environment)?,
            against: self.against.clone(),
            store: self.store.clone(),
            clients: self.clients,
            targets: self.targets,
            rounds: self.rounds.unwrap_or(amounts.rounds),
            seconds: self.seconds.unwrap_or(amounts.seconds),
            limit_seconds: self
                .seconds
                .map_or(amounts.limit_seconds, |s| s.min(amounts.limit_seconds)),
            size: self.size.unwrap_or(amounts.size),
            files: self.files.unwrap_or(amounts.files),
            bare_bytes: self.size.map_or(amounts.bare_bytes, |size| size.min(amounts.bare_bytes)),
            only: self.only.clone(),
            idle_seconds: self.idle,
            drop_caches: self.drop_caches,
            polling: environment.polling,
            damage: self.damage,
        })
    }

    fn door(&self, environment: &Environment) -> Result<DoorChoice, CliError> {
        let running = match self.choice.is_given(environment) {
            true => Some(self.choice.find(environment)?),
            false => None,
        };
        let words: Vec<&str> = self.door.iter().map(String::as_str).collect();
        match (words.as_slice(), running) {
            (["client"], None) => Ok(DoorChoice::Client(None)),
            (["client"], Some(found)) => {
                Ok(DoorChoice::Client(Some(running_cluster(&found, environment, None)?)))
            }
            (["mount"], None) => Ok(DoorChoice::Mount),
            (["mount"], Some(found)) => {
                let place = only_mount(&found)?;
                let running = running_cluster(&found, environment, Some(&place))?;
                Ok(DoorChoice::Directory(place, Some(running)))
            }
            (["mount", directory], found) => {
                let directory = resolve(directory)?;
                let found = match found {
                    Some(found) => found,
                    None => self.shown_at(&directory, environment)?,
                };
                let running = running_cluster(&found, environment, Some(&directory))?;
                Ok(DoorChoice::Directory(directory, Some(running)))
            }
            ([directory], found) if directory.contains('/') || directory.starts_with('.') => {
                let directory = resolve(directory)?;
                let running =
                    found.map(|found| running_cluster(&found, environment, Some(&directory)));
                Ok(DoorChoice::Directory(directory, running.transpose()?))
            }
            _ => Err(CliError::Usage(format!(
                "--door is \"{}\": expected client, mount, mount DIR, or a directory with a slash \
                 in it, such as ./data",
                words.join(" ")
            ))),
        }
    }

    /// The cluster that is mounted at or above `directory`.
    fn shown_at(&self, directory: &Path, environment: &Environment) -> Result<Found, CliError> {
        for ancestor in directory.ancestors() {
            if let Ok(MountState::Ringfs { source, .. }) = fuse::mount_state(ancestor) {
                return ClusterChoice::named(cluster_of(&source)).find(environment);
            }
        }
        let directory = directory.display();
        Err(CliError::Usage(format!(
            "{directory} lies in no mount of RingFS: say --door {directory} to measure whatever it is"
        )))
    }

    /// Says at once what would otherwise be found out after the run.
    fn check_files(&self) -> Result<(), CliError> {
        let files = self.json.iter().filter(|path| !is_output(path)).chain(&self.html);
        for path in files {
            let above = path.parent().filter(|above| !above.as_os_str().is_empty());
            if path.is_dir() || above.is_some_and(|above| !above.is_dir()) {
                return Err(CliError::Usage(format!("{} cannot be a file", path.display())));
            }
        }
        Ok(())
    }

    fn show(&self, results: &Results) -> Result<(), CliError> {
        let write = |path: &Path, text: String| {
            std::fs::write(path, text).map_err(|error| CliError::local("write", path, error))
        };
        if let Some(path) = &self.html {
            write(path, results.to_html())?;
        }
        let mut output = Output::new();
        match &self.json {
            Some(path) if is_output(path) => output.bytes(results.to_json().as_bytes())?,
            json => {
                if let Some(path) = json {
                    write(path, results.to_json())?;
                }
                output.bytes(results.to_string().as_bytes())?;
            }
        }
        output.finish()
    }
}

fn is_output(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A run ends in order at the first signal, and at once at the second.
fn watch_signals() -> Result<Interrupt, CliError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .map_err(|error| CliError::failed(format!("cannot watch signals: {error}")))?;
    }
    Ok(Interrupt::new(flag))
}

fn resolve(directory: &str) -> Result<PathBuf, CliError> {
    let path = Path::new(directory);
    match path.canonicalize() {
        Ok(path) if path.is_dir() => Ok(path),
        Ok(_) => Err(CliError::Usage(format!("--door: {directory} is no directory"))),
        Err(error) => Err(CliError::local("find", path, error)),
    }
}

/// The one place on this machine where a cluster is mounted.
fn only_mount(found: &Found) -> Result<PathBuf, CliError> {
    let records = found.directory.mounts()?.into_iter();
    let mut ready = records.filter(|record| record.is_ready && record.process.is_alive());
    let name = found.settings.map.name();
    match (ready.next(), ready.next()) {
        (Some(record), None) => Ok(record.place),
        (None, _) => Err(CliError::failed(format!(
            "cluster \"{name}\" is not mounted on this machine: mount it with `ringfs mount --name \
             {name} DIR`"
        ))),
        (Some(_), Some(_)) => Err(CliError::Usage(format!(
            "cluster \"{name}\" is mounted at several places: say which with --door mount DIR"
        ))),
    }
}

/// A cluster that runs, with its processes of this machine: nodes, and the mount above `place`.
fn running_cluster(
    found: &Found,
    environment: &Environment,
    place: Option<&Path>,
) -> Result<Running, CliError> {
    check_running(found)?;
    let map = &found.settings.map;
    let mut servers = Vec::new();
    for node in map.nodes() {
        servers.extend(found.directory.process(node.id)?.map(|process| process.pid));
    }
    if let Some(place) = place {
        let records = found.directory.mounts()?.into_iter();
        let serving = records.filter(|record| {
            place.starts_with(&record.place) && record.is_ready && record.process.is_alive()
        });
        servers.extend(serving.map(|record| record.process.pid));
    }
    let cluster = Cluster::new(map.clone(), &found.directory.key()?, environment.polling);
    Ok(Running { cluster, name: map.name().to_owned(), servers })
}
