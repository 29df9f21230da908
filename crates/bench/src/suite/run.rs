//! A run of the suite: starts everything, leads the clients through the parts of every round, and
//! collects what came of it.
//!
//! Invariant: whatever ends a run, its clients end first, then the mount and the servers made for
//! it, and then everything it made is removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::limits::{LimitKind, Limits};
use super::part::Part;
use super::plan::{DoorChoice, Plan, Running, check_fits};
use super::results::{Figure, Results};
use super::servers::Servers;
use super::worker::{Order, Site, SuiteClient, expected};
use crate::cluster::{Cluster, MountTask, random};
use crate::directory::{Leftovers, MOUNT, Remover, WorkDirectory};
use crate::error::{BenchError, Context};
use crate::process::{Child, Interrupt, Phase, Task, run_phase, start_clients_watching};
use crate::timing::{Measure, median_us, slowest_percent_us};

/// What directories of a run are called, before a random number.
const PREFIX: &str = "bench-";
/// Longer than any part may take: the part ends with its count.
const NO_LIMIT: u64 = u64::MAX;

/// Runs the suite. `progress` is told what begins.
pub fn run(
    plan: &Plan,
    interrupt: &Interrupt,
    progress: &mut dyn FnMut(&str),
) -> Result<Results, BenchError> {
    plan.check()?;
    plan.check_room()?;
    let seed = u64::from_le_bytes(random()?);
    progress("starting");
    let mut stage = Stage::start(plan, seed, interrupt)?;
    let mut results = Results::new(plan, &stage.description, seed);
    for round in 1..=plan.rounds {
        let told = format!("round {round} of {}", plan.rounds);
        progress(&format!("{told}: limits"));
        results.note_limits(stage.limits.round()?);
        for side in &mut stage.sides {
            let mut told = |part: &str| progress(&format!("{told}: {} {part}", side.name));
            let figures = side.lead.round(plan, round, &mut told)?;
            results.note_round(side.is_against, figures);
        }
    }
    progress("removing what was made");
    stage.end()?;
    Ok(results.finish())
}

/// One of the two places where the suite runs.
struct Side {
    name: String,
    is_against: bool,
    lead: Lead,
}

/// Everything that runs, in the order in which it ends.
struct Stage {
    sides: Vec<Side>,
    limits: Limits,
    mount: Option<Child>,
    node: Option<Child>,
    removers: Vec<Remover>,
    #[allow(dead_code, reason = "removes the directory in the end")]
    work: WorkDirectory,
    description: String,
}

impl Stage {
    fn start(plan: &Plan, seed: u64, interrupt: &Interrupt) -> Result<Self, BenchError> {
        let work = WorkDirectory::new(plan.store.as_deref())?;
        let name = format!("{PREFIX}{:08x}", u32::from_le_bytes(random()?));
        let (mut node, mut mount) = (None, None);
        let running = match &plan.door {
            DoorChoice::Client(Some(running)) => Some(running.clone()),
            DoorChoice::Directory(_, running) => running.clone(),
            DoorChoice::Client(None) | DoorChoice::Mount => {
                let started =
                    Cluster::start_watching(&work, plan.targets, plan.polling, interrupt)?;
                let servers = vec![started.0.id()];
                node = Some(started.0);
                Some(Running { cluster: started.1, name: String::new(), servers })
            }
        };
        let mut servers = running.as_ref().map_or_else(Vec::new, |known| known.servers.clone());
        let mut removers = Vec::new();
        let site = match (&plan.door, &running) {
            (DoorChoice::Client(_), Some(running)) => {
                let path = make_in_cluster(plan, &running.cluster, &name)?;
                if node.is_none() {
                    let in_cluster = Some((running.cluster.clone(), path.clone()));
                    removers.push(Remover::start(Leftovers { in_cluster, ..Default::default() })?);
                }
                Site::Cluster(running.cluster.clone(), path)
            }
            (DoorChoice::Mount, Some(running)) => {
                let directory = work.make(MOUNT)?;
                let cluster = running.cluster.clone();
                let task = Task::Mount(MountTask { cluster, directory: directory.clone() });
                let mut child = Child::start_watching("the mount", &task, interrupt)?;
                child.ready()?;
                servers.push(child.id());
                mount = Some(child);
                Site::Directory(make_directory(&directory, &name)?)
            }
            (DoorChoice::Directory(path, _), _) => {
                let (made, remover) = make_removed(path, &name)?;
                removers.push(remover);
                Site::Directory(made)
            }
            (_, None) => return Err(BenchError::Unexpected("no cluster".to_owned())),
        };
        let interrupt = &interrupt.needing(servers.clone());
        let lead = |site: Site, name, servers| {
            let clients = start_workers(plan, seed, &site, name, interrupt)?;
            Ok::<_, BenchError>(Lead { clients, servers: Servers::new(servers) })
        };
        let mut sides = vec![Side {
            name: plan.door_name(),
            is_against: false,
            lead: lead(site, "client", servers)?,
        }];
        if let Some(path) = &plan.against {
            let (made, remover) = make_removed(path, &name)?;
            removers.push(remover);
            let lead = lead(Site::Directory(made), "client beside", Vec::new())?;
            sides.push(Side { name: path.display().to_string(), is_against: true, lead });
        }
        let cluster = running.as_ref().map(|running| &running.cluster);
        let limits = Limits::start(plan, work.make("bare")?, cluster, interrupt)?;
        let description = plan.describe(running.as_ref(), work.path());
        Ok(Self { sides, limits, mount, node, removers, work, description })
    }

    /// Ends everything in order, and tells what did not.
    fn end(self) -> Result<(), BenchError> {
        for side in self.sides {
            side.lead.clients.into_iter().try_for_each(Child::finish)?;
        }
        drop(self.limits);
        self.removers.into_iter().try_for_each(Remover::finish)?;
        self.mount.map_or(Ok(()), Child::finish)?;
        self.node.map_or(Ok(()), Child::finish)
    }
}

/// The clients of one side, led through the parts.
struct Lead {
    clients: Vec<Child>,
    servers: Servers,
}

impl Lead {
    /// Runs every part once, on files of this round alone.
    fn round(
        &mut self,
        plan: &Plan,
        round: u32,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<(Part, Figure)>, BenchError> {
        self.first(Order::Make { round })?;
        self.all(Order::Enter { round })?;
        let mut made: BTreeMap<Part, u64> = BTreeMap::new();
        let mut figures = Vec::new();
        for part in plan.parts() {
            progress(part.name());
            let (figure, count) = match part {
                Part::Find => (self.find(&made)?, 0),
                _ => self.part(plan, part, &made)?,
            };
            made.insert(part, count);
            figures.push((part, figure));
            if part == Part::IorEasyWrite && plan.damage {
                self.first(Order::Damage)?;
            }
        }
        progress("removal");
        self.first(Order::Clean { round })?;
        Ok(figures)
    }

    /// Runs one part; what came of it, and how much each client did.
    fn part(
        &mut self,
        plan: &Plan,
        part: Part,
        made: &BTreeMap<Part, u64>,
    ) -> Result<(Figure, u64), BenchError> {
        let limited = (plan.seconds * 1e3) as u64;
        let (milliseconds, count) = match part.made_by() {
            // Random reads go on for a time, all others through everything there is.
            Some(maker) if part == Part::RandomRead => (limited, made[&maker]),
            Some(maker) => (NO_LIMIT, made[&maker]),
            None => (limited, plan.count_max(part)),
        };
        if plan.drop_caches && part.reads() {
            self.all(Order::Forget { part, count })?;
        }
        let before = self.servers.before();
        let begun = self.all(Order::Begin { part, milliseconds, count })?;
        let mut all = begun.clone();
        let mut count = begun.iter().map(|measure| measure.count).max().unwrap_or(0);
        if part.wears_out() {
            let rest = self.all(Order::GoOn { part, count })?;
            all.extend(rest.into_iter().filter(|measure| measure.count > 0));
        }
        let operations: u64 = all.iter().map(|measure| measure.count).sum();
        let mut sync_seconds = None;
        if part.is_synced() {
            let synced = self.all(Order::Sync)?;
            sync_seconds = Some(span_seconds(&synced));
            all.extend(synced);
        } else {
            self.all(Order::Close)?;
        }
        let spent = (!self.servers.is_empty()).then(|| self.servers.since(before));
        if part.made_by().is_none() && !part.wears_out() {
            count = 0;
        }
        let figure = Figure {
            operations,
            seconds: span_seconds(&all),
            sync_seconds,
            median_us: median_us(&begun),
            slowest_percent_us: slowest_percent_us(&begun),
            spent,
        };
        Ok((figure, count))
    }

    /// Walks through everything, and checks that all of it is found.
    fn find(&mut self, made: &BTreeMap<Part, u64>) -> Result<Figure, BenchError> {
        let before = self.servers.before();
        let order = Order::Begin { part: Part::Find, milliseconds: NO_LIMIT, count: NO_LIMIT };
        let walked = self.all(order)?;
        let spent = (!self.servers.is_empty()).then(|| self.servers.since(before));
        let clients = self.clients.len() as u32;
        let made = |maker| made.get(&maker).copied().unwrap_or(0);
        let (easy, hard) = (made(Part::MdtestEasyWrite), made(Part::MdtestHardWrite));
        let wanted = expected(clients, easy, hard);
        let operations = walked.iter().map(|measure| measure.count).sum();
        let matches: u64 = walked.iter().map(|measure| measure.matches).sum();
        if (operations, matches) != (wanted.entries, wanted.matches) {
            return Err(BenchError::Wrong(format!(
                "a walk found {operations} entries and {matches} of those looked for, where there \
                 are {} and {}",
                wanted.entries, wanted.matches
            )));
        }
        Ok(Figure {
            operations,
            seconds: span_seconds(&walked),
            sync_seconds: None,
            median_us: 0.0,
            slowest_percent_us: 0.0,
            spent,
        })
    }

    fn all(&mut self, order: Order) -> Result<Vec<Measure>, BenchError> {
        run_phase(&mut self.clients, Phase::Suite(order))
    }

    fn first(&mut self, order: Order) -> Result<(), BenchError> {
        run_phase(&mut self.clients[..1], Phase::Suite(order)).map(drop)
    }
}

/// From the first begin to the last end.
fn span_seconds(measures: &[Measure]) -> f64 {
    let begin = measures.iter().map(|measure| measure.begin_ns).min().unwrap_or(0);
    let end = measures.iter().map(|measure| measure.end_ns).max().unwrap_or(0);
    (end.saturating_sub(begin) as f64 / 1e9).max(1e-9)
}

fn start_workers(
    plan: &Plan,
    seed: u64,
    site: &Site,
    name: &str,
    interrupt: &Interrupt,
) -> Result<Vec<Child>, BenchError> {
    let (clients, random_transfers) = (plan.clients, plan.random_transfers());
    let tasks = (0..clients).map(|number| {
        let site = site.clone();
        Task::Suite(SuiteClient { site, number, clients, seed, random_transfers })
    });
    start_clients_watching(name, &tasks.collect::<Vec<_>>(), interrupt)
}

/// Makes the directory of the run in a cluster, if there is room.
fn make_in_cluster(plan: &Plan, cluster: &Cluster, name: &str) -> Result<String, BenchError> {
    let path = format!("/{name}");
    cluster.run_client(async |client| {
        let free = client.statfs().await?.available;
        check_fits(plan.round_space(), free, "the cluster", "another cluster")?;
        let (parent, name) = client.resolve_parent(&path).await?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let permissions =
            ringfs_wire::FilePermissions { mode: 0o755, uid: uid.as_raw(), gid: gid.as_raw() };
        client.mkdir(parent.inode, &name, permissions).await?;
        Ok(())
    })?;
    Ok(path)
}

fn make_directory(parent: &Path, name: &str) -> Result<PathBuf, BenchError> {
    let path = parent.join(name);
    std::fs::create_dir(&path).context(format!("make {}", path.display()))?;
    Ok(path)
}

/// Makes the directory of the run in another, and sees to its end.
fn make_removed(parent: &Path, name: &str) -> Result<(PathBuf, Remover), BenchError> {
    let parent = std::path::absolute(parent).context(format!("find {}", parent.display()))?;
    // The two sides may share a parent.
    let path = match make_directory(&parent, name) {
        Err(_) if parent.join(name).exists() => make_directory(&parent, &format!("{name}-beside"))?,
        made => made?,
    };
    let directories = vec![path.clone()];
    let remover = Remover::start(Leftovers { directories, ..Default::default() })?;
    Ok((path, remover))
}

impl Plan {
    /// Most operations of a part that writes, per client.
    fn count_max(&self, part: Part) -> u64 {
        match part {
            Part::IorEasyWrite => self.easy_transfers(),
            Part::IorHardWrite => self.hard_transfers(),
            Part::RandomWrite | Part::SyncEach => self.random_transfers(),
            _ => self.files,
        }
    }

    fn door_name(&self) -> String {
        match &self.door {
            DoorChoice::Client(_) => "client".to_owned(),
            DoorChoice::Mount => "mount".to_owned(),
            DoorChoice::Directory(path, _) => path.display().to_string(),
        }
    }

    fn describe(&self, running: Option<&Running>, work: &Path) -> String {
        let place = match running {
            Some(running) if !running.name.is_empty() => format!("cluster \"{}\"", running.name),
            Some(_) => {
                format!(
                    "1 node x {} target(s) made for the run, in {}",
                    self.targets,
                    work.display()
                )
            }
            None => "no cluster".to_owned(),
        };
        format!(
            "door {}, {place}; {} client process(es); {} round(s); parts that write end after {} s, \
             {} MiB or {} files per client{}",
            self.door_name(),
            self.clients,
            self.rounds,
            self.seconds,
            self.size >> 20,
            self.files,
            if self.drop_caches { "; caches dropped before reading" } else { "" }
        )
    }
}

/// Which limit a part is compared with. Without a cluster only memory limits a directory.
pub(super) fn limit_of(part: Part, has_cluster: bool) -> Option<LimitKind> {
    match part.limit() {
        limit if has_cluster => limit,
        Some(LimitKind::BareWrite | LimitKind::BareRead) => Some(LimitKind::Memory),
        _ => None,
    }
}
