//! A run of the suite: starts everything, leads the clients through the parts of every round, and
//! collects what came of it.
//!
//! Invariant: whatever ends a run, its clients end first, then the mount and the servers made for
//! it, and then everything it made is removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::limits::{LimitKind, Limits};
use super::part::Part;
use super::plan::{DoorChoice, Plan, Running, check_fits};
use super::results::{Figure, IdleRow, Results, SideKind};
use super::servers::Servers;
use super::worker::{Order, Site, SuiteClient, expected};
use crate::bare_mount::BareMountTask;
use crate::cluster::{Cluster, MountTask, random};
use crate::directory::{BARE_MOUNT, Leftovers, MOUNT, Remover, WorkDirectory};
use crate::error::{BenchError, Context};
use crate::process::{Child, Interrupt, Phase, Task, run_phase, start_clients_watching};
use crate::timing::{Measure, median_us, slowest_percent_us};

/// What directories of a run are called, before a random number.
const PREFIX: &str = "bench-";
/// How long servers are left alone before they are watched at rest.
const SETTLING: Duration = Duration::from_secs(2);
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
    if plan.idle_seconds > 0.0 {
        progress("watching the servers at rest");
        results.note_idle(stage.watch_rest(plan.idle_seconds)?);
    }
    for round in 1..=plan.rounds {
        let told = format!("round {round} of {}", plan.rounds);
        progress(&format!("{told}: limits"));
        results.note_limits(stage.limits.round()?);
        for side in &mut stage.sides {
            let mut told = |part: &str| progress(&format!("{told}: {} {part}", side.name));
            let figures = side.lead.round(plan, &side.parts, round, &mut told)?;
            results.note_round(side.kind, figures);
        }
    }
    progress("removing what was made");
    stage.end()?;
    Ok(results.finish())
}

/// One of the places where parts run.
struct Side {
    name: String,
    kind: SideKind,
    parts: Vec<Part>,
    lead: Lead,
}

/// Everything that runs, in the order in which it ends.
struct Stage {
    sides: Vec<Side>,
    limits: Limits,
    /// Of the cluster, and bare.
    mounts: Vec<Child>,
    node: Option<Child>,
    interrupt: Interrupt,
    removers: Vec<Remover>,
    #[allow(dead_code, reason = "removes the directory in the end")]
    work: WorkDirectory,
    description: String,
}

impl Stage {
    fn start(plan: &Plan, seed: u64, interrupt: &Interrupt) -> Result<Self, BenchError> {
        let work = WorkDirectory::new(plan.store.as_deref())?;
        let name = format!("{PREFIX}{:08x}", u32::from_le_bytes(random()?));
        let (mut node, mut mounts, mut removers) = (None, Vec::new(), Vec::new());
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
        let cluster = running.as_ref().map(|running| running.cluster.clone());
        let mut servers = running.as_ref().map_or_else(Vec::new, |known| known.servers.clone());
        let site = match (&plan.door, &cluster) {
            (DoorChoice::Client(_), Some(cluster)) => {
                let path = make_in_cluster(plan, cluster, &name)?;
                if node.is_none() {
                    let in_cluster = Some((cluster.clone(), path.clone()));
                    removers.push(Remover::start(Leftovers { in_cluster, ..Default::default() })?);
                }
                Site::Cluster(cluster.clone(), path)
            }
            (DoorChoice::Mount, Some(cluster)) => {
                let directory = work.make(MOUNT)?;
                let task = MountTask { cluster: cluster.clone(), directory: directory.clone() };
                let child = start_mount("the mount", Task::Mount(task), interrupt)?;
                servers.push(child.id());
                mounts.push(child);
                Site::Directory(make_directory(&directory, &name)?, Some(cluster.clone()))
            }
            (DoorChoice::Directory(path, _), _) => {
                let (made, remover) = make_removed(path, &name)?;
                removers.push(remover);
                Site::Directory(made, cluster.clone())
            }
            (_, None) => return Err(BenchError::Unexpected("no cluster".to_owned())),
        };
        let interrupt = interrupt.needing(servers.clone());
        let stand = Stand { plan, seed, interrupt: &interrupt };
        let mut sides =
            vec![stand.side(plan.door_name(), SideKind::Door, plan.parts(), site, servers)?];
        stand.limits(&work, &name, &mut sides, &mut mounts)?;
        if let Some(path) = &plan.against {
            let (made, remover) = make_removed(path, &name)?;
            removers.push(remover);
            let name = path.display().to_string();
            let site = Site::Directory(made, None);
            sides.push(stand.side(name, SideKind::Against, plan.parts(), site, Vec::new())?);
        }
        let limits = Limits::start(plan, work.make("bare")?, cluster.as_ref(), &interrupt)?;
        let description = plan.describe(running.as_ref(), work.path());
        Ok(Self { sides, limits, mounts, node, interrupt, removers, work, description })
    }

    /// Watches the servers while nobody asks them anything.
    fn watch_rest(&self, seconds: f64) -> Result<IdleRow, BenchError> {
        let servers = &self.sides[0].lead.servers;
        // Whoever has just connected may still have something to say.
        self.interrupt.wait(SETTLING)?;
        let (begin, before) = (Instant::now(), servers.before());
        self.interrupt.wait(Duration::from_secs_f64(seconds))?;
        let spent = servers.since(before);
        let seconds = begin.elapsed().as_secs_f64();
        let cpu_percent = spent.cpu_seconds / seconds * 100.0;
        let resident_bytes = servers.resident_bytes();
        Ok(IdleRow { seconds, cpu_percent, resident_bytes })
    }

    /// Ends everything in order, and tells what did not.
    fn end(self) -> Result<(), BenchError> {
        for side in self.sides {
            side.lead.clients.into_iter().try_for_each(Child::finish)?;
        }
        drop(self.limits);
        self.removers.into_iter().try_for_each(Remover::finish)?;
        self.mounts.into_iter().try_for_each(Child::finish)?;
        self.node.map_or(Ok(()), Child::finish)
    }
}

/// What all sides have in common.
struct Stand<'a> {
    plan: &'a Plan,
    seed: u64,
    interrupt: &'a Interrupt,
}

impl Stand<'_> {
    fn side(
        &self,
        name: String,
        kind: SideKind,
        parts: Vec<Part>,
        site: Site,
        servers: Vec<u32>,
    ) -> Result<Side, BenchError> {
        let told = format!("client of {name}");
        let clients = start_workers(self.plan, self.seed, &site, &told, self.interrupt)?;
        Ok(Side { name, kind, parts, lead: Lead { clients, servers: Servers::new(servers) } })
    }

    /// Starts what a mount is compared with.
    fn limits(
        &self,
        work: &WorkDirectory,
        name: &str,
        sides: &mut Vec<Side>,
        mounts: &mut Vec<Child>,
    ) -> Result<(), BenchError> {
        for kind in [LimitKind::BareMount, LimitKind::Plain] {
            let parts = self.plan.parts_beside(kind);
            if parts.is_empty() {
                continue;
            }
            let mut servers = Vec::new();
            let parent = match kind {
                LimitKind::BareMount => {
                    let directory = work.make(BARE_MOUNT)?;
                    let task = BareMountTask { directory: directory.clone() };
                    let task = Task::BareMount(task);
                    let child = start_mount("the bare mount", task, self.interrupt)?;
                    servers.push(child.id());
                    mounts.push(child);
                    directory
                }
                _ => work.make(kind.name())?,
            };
            let site = Site::Directory(make_directory(&parent, name)?, None);
            let named = kind.name().to_owned();
            sides.push(self.side(named, SideKind::Limit(kind), parts, site, servers)?);
        }
        Ok(())
    }
}

fn start_mount(name: &str, task: Task, interrupt: &Interrupt) -> Result<Child, BenchError> {
    let mut child = Child::start_watching(name, &task, interrupt)?;
    child.ready()?;
    Ok(child)
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
        parts: &[Part],
        round: u32,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Vec<(Part, Figure)>, BenchError> {
        self.first(Order::Make { round })?;
        self.all(Order::Enter { round })?;
        let mut made: BTreeMap<Part, u64> = BTreeMap::new();
        let mut figures = Vec::new();
        for &part in parts {
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
            // Some go on for a time, all others through everything there is.
            Some(maker) if part.is_timed() => (limited, made[&maker]),
            Some(maker) => (NO_LIMIT, made[&maker]),
            None => (limited, plan.count_max(part)),
        };
        if plan.drop_caches && part.reads() {
            self.all(Order::Forget { part, count })?;
        }
        if part.is_prepared() {
            self.all(Order::Prepare { part })?;
        }
        let before = self.servers.before();
        let order = Phase::Suite(Order::Begin { part, milliseconds, count });
        let clients = if part.is_alone() { 1 } else { self.clients.len() };
        let begun = run_phase(&mut self.clients[..clients], order)?;
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
        let count = |maker| made.get(&maker).copied().unwrap_or(0);
        let (easy, hard) = (count(Part::MdtestEasyWrite), count(Part::MdtestHardWrite));
        let own = [Part::IorEasyWrite, Part::SyncEach];
        let own = own.iter().filter(|part| made.contains_key(part)).count() as u64;
        let wanted = expected(clients, own, easy, hard);
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
            part if part.is_prepared() => NO_LIMIT,
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
