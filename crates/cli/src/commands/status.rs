//! `ringfs status`: how a cluster is, for people and as JSON.

use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures_util::future::{Either, join_all, select};
use ringfs_platform::Platform;
use ringfs_wire::{TargetId, TargetStatus};
use serde::Serialize;

use crate::admin::Admin;
use crate::cluster::ProcessIdentity;
use crate::commands::{ClusterChoice, Found, mounting, run_on_platform};
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::{Output, Table};
use crate::units::show_size;

/// How long a target may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show nodes, targets, mounts, capacity, health
///
/// Exit code 0 if everything is well, 1 if a node is down, or a target has failed or is full.
#[derive(Args, Debug)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// Every target answers and takes writes.
    Ok,
    /// Some do not.
    Degraded,
    /// None answers.
    Down,
}

#[derive(Debug, Serialize)]
pub(crate) struct ClusterReport {
    pub(crate) name: String,
    id: String,
    epoch: u64,
    pub(crate) health: Health,
    data: String,
    chunk_size: u32,
    pub(crate) capacity_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) used_bytes: u64,
    pub(crate) inodes: u64,
    nodes: Vec<NodeReport>,
    mounts: Vec<MountReport>,
}

#[derive(Debug, Serialize)]
struct MountReport {
    directory: String,
    /// `mounted`, `starting`, `leaving`: unmounted while files are open, or `dead`: what a killed
    /// process has left.
    state: &'static str,
    pid: Option<u32>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    node: u32,
    address: String,
    pid: Option<u32>,
    /// What it complained of when it ended, if it did.
    why_down: Option<String>,
    memory_bytes: Option<u64>,
    targets: Vec<TargetReport>,
}

#[derive(Debug, Serialize)]
struct TargetReport {
    target: u32,
    /// `ok`; `full` and why, if only deletes go on; `failed` and why; or why it does not answer.
    state: String,
    /// From 0 to 1.
    share_of_arcs: f64,
    #[serde(flatten)]
    counts: Option<Counts>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Counts {
    capacity_bytes: u64,
    available_bytes: u64,
    used_bytes: u64,
    inodes: u64,
    sessions: u32,
    open_operations: u32,
}

impl StatusArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let found = self.choice.find(environment)?;
        run_on_platform(environment, async |platform| {
            let report = inspect(&platform, &found).await?;
            let mut output = Output::new();
            if self.json {
                let text = serde_json::to_string_pretty(&report);
                output.line(text.expect("numbers and strings have a JSON form"))?;
            } else {
                show(&report, &mut output)?;
            }
            output.finish()?;
            match report.health {
                Health::Ok => Ok(()),
                Health::Degraded | Health::Down => Err(CliError::Said),
            }
        })
    }
}

/// Asks every target how it is.
pub(crate) async fn inspect(platform: &Platform, found: &Found) -> Result<ClusterReport, CliError> {
    let admin = Admin::new(platform, &found.settings, found.directory.key()?);
    let map = &found.settings.map;
    let mut nodes = Vec::new();
    for node in map.nodes() {
        nodes.push((node, found.directory.process(node.id)?));
    }
    let reports = nodes.into_iter().map(async |(node, process)| {
        let targets = map.targets_of(node.id);
        let asked = targets
            .map(async |target| (target, ask(platform, &admin, target, process.as_ref()).await));
        let answers = join_all(asked).await;
        let memory_bytes = answers
            .iter()
            .find_map(|(_, answer)| answer.as_ref().ok().map(|status| status.node_memory));
        let pid = process.filter(ProcessIdentity::is_alive).map(|process| process.pid);
        NodeReport {
            node: node.id.0,
            address: node.address.clone(),
            pid,
            why_down: pid.is_none().then(|| found.directory.last_complaint(node.id)).flatten(),
            memory_bytes,
            targets: answers
                .into_iter()
                .map(|(target, answer)| judge(target, answer, map.share_of_arcs(target)))
                .collect(),
        }
    });
    let nodes = join_all(reports).await;
    Ok(summarise(found, nodes, inspect_mounts(found)?))
}

/// Asks one target, for as long as its process lives.
async fn ask(
    platform: &Platform,
    admin: &Admin,
    target: TargetId,
    process: Option<&ProcessIdentity>,
) -> Result<TargetStatus, String> {
    let down = || Err("down".to_owned());
    let Some(process) = process else { return down() };
    let answered = pin!(admin.status(target, PATIENCE));
    let ended = pin!(process.ended_within(platform, PATIENCE));
    match select(answered, ended).await {
        Either::Left((answer, _)) => answer.map_err(|error| error.to_string()),
        Either::Right((true, _)) => down(),
        Either::Right((false, answered)) => answered.await.map_err(|error| error.to_string()),
    }
}

fn show_errno(errno: u32) -> String {
    let errno = i32::try_from(errno).unwrap_or(0);
    std::io::Error::from_raw_os_error(errno).to_string()
}

fn judge(target: TargetId, answer: Result<TargetStatus, String>, share: f64) -> TargetReport {
    let counts = answer.as_ref().ok().map(|status| Counts {
        capacity_bytes: status.capacity,
        available_bytes: status.available,
        used_bytes: status.used,
        inodes: status.inodes,
        sessions: status.sessions,
        open_operations: status.open_operations,
    });
    let state = match answer {
        Ok(status) if status.failed => format!("failed: {}", show_errno(status.refusal)),
        Ok(status) if status.refusal > 0 => format!("full: {}", show_errno(status.refusal)),
        Ok(_) => "ok".to_owned(),
        Err(why) => why,
    };
    TargetReport { target: target.0, state, share_of_arcs: share, counts }
}

/// The mounts on this machine.
fn inspect_mounts(found: &Found) -> Result<Vec<MountReport>, CliError> {
    let mut reports = Vec::new();
    for record in found.directory.mounts()? {
        if let Some(state) = mounting::describe(&found.directory, &record)? {
            reports.push(MountReport {
                directory: record.place.display().to_string(),
                state,
                pid: record.process.is_alive().then_some(record.process.pid),
            });
        }
    }
    Ok(reports)
}

fn summarise(found: &Found, nodes: Vec<NodeReport>, mounts: Vec<MountReport>) -> ClusterReport {
    let map = &found.settings.map;
    let targets = || nodes.iter().flat_map(|node| &node.targets);
    let sum = |of: fn(&Counts) -> u64| targets().filter_map(|t| t.counts.as_ref()).map(of).sum();
    // All targets of `up` share one local file system: it is counted once.
    let widest = |of: fn(&Counts) -> u64| {
        targets().filter_map(|t| t.counts.as_ref()).map(of).max().unwrap_or(0)
    };
    let health = match (targets().all(|t| t.state == "ok"), targets().any(|t| t.counts.is_some())) {
        (true, _) => Health::Ok,
        (false, true) => Health::Degraded,
        (false, false) => Health::Down,
    };
    ClusterReport {
        name: map.name().to_owned(),
        id: map.cluster().to_string(),
        epoch: map.epoch().0,
        health,
        data: found.directory.path().display().to_string(),
        chunk_size: map.chunk_size(),
        capacity_bytes: widest(|counts| counts.capacity_bytes),
        available_bytes: widest(|counts| counts.available_bytes),
        used_bytes: sum(|counts| counts.used_bytes),
        inodes: sum(|counts| counts.inodes),
        nodes,
        mounts,
    }
}

fn show(report: &ClusterReport, output: &mut Output) -> Result<(), CliError> {
    let health = match report.health {
        Health::Ok => "ok",
        Health::Degraded => "DEGRADED",
        Health::Down => "down",
    };
    output.line(format_args!(
        "Cluster \"{}\"  health {health}  epoch {}  id {}",
        report.name, report.epoch, report.id
    ))?;
    output.line(format_args!("Data in {}", report.data))?;
    if report.health != Health::Down {
        output.line(format_args!(
            "{} used, {} of {} available, {} inode(s), chunks of {}",
            show_size(report.used_bytes),
            show_size(report.available_bytes),
            show_size(report.capacity_bytes),
            report.inodes,
            show_size(report.chunk_size.into())
        ))?;
    }
    output.line("")?;
    let mut nodes = Table::new(&[2, 3], &["NODE", "ADDRESS", "PID", "MEMORY"]);
    let head = ["TARGET", "NODE", "STATE", "USED", "INODES", "ARCS", "SESSIONS", "OPEN"];
    let mut targets = Table::new(&[3, 4, 5, 6, 7], &head);
    let dash = || "-".to_owned();
    for node in &report.nodes {
        nodes.row(vec![
            node.node.to_string(),
            node.address.clone(),
            node.pid.map_or_else(dash, |pid| pid.to_string()),
            node.memory_bytes.map_or_else(dash, show_size),
        ]);
        for target in &node.targets {
            let counts = target.counts;
            targets.row(vec![
                target.target.to_string(),
                node.node.to_string(),
                target.state.clone(),
                counts.map_or_else(dash, |counts| show_size(counts.used_bytes)),
                counts.map_or_else(dash, |counts| counts.inodes.to_string()),
                format!("{:.1}%", target.share_of_arcs * 100.0),
                counts.map_or_else(dash, |counts| counts.sessions.to_string()),
                counts.map_or_else(dash, |counts| counts.open_operations.to_string()),
            ]);
        }
    }
    nodes.lines().iter().try_for_each(|line| output.line(line))?;
    output.line("")?;
    targets.lines().iter().try_for_each(|line| output.line(line))?;
    show_complaints(report, output)?;
    if !report.mounts.is_empty() {
        let mut mounts = Table::new(&[2], &["MOUNT", "STATE", "PID"]);
        for mount in &report.mounts {
            let pid = mount.pid.map_or_else(dash, |pid| pid.to_string());
            mounts.row(vec![mount.directory.clone(), mount.state.to_owned(), pid]);
        }
        output.line("")?;
        mounts.lines().iter().try_for_each(|line| output.line(line))?;
    }
    if report.health == Health::Down {
        output.line(format_args!("\nStart it with: ringfs up --name {}", report.name))?;
    }
    Ok(())
}

/// Why nodes that are down ended.
fn show_complaints(report: &ClusterReport, output: &mut Output) -> Result<(), CliError> {
    let mut complaints = report.nodes.iter().filter_map(|node| node.why_down.as_ref());
    complaints.try_for_each(|why| output.line(format_args!("\nDown: {why}")))
}
