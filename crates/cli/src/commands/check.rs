//! `ringfs check`: do the records of all targets fit together, and repairing those that do not.

use std::time::Instant;

use clap::Args;
use ringfs_check::{Checker, Outcome, Problem, RepairOptions, Report, Unread};
use ringfs_client::{Client, ClientOptions};
use ringfs_platform::Platform;
use ringfs_wire::{Errno, FilePermissions, InodeNumber, InodeType, Name};
use serde::Serialize;

use crate::commands::{ClusterChoice, Found, run_on_platform};
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::{Output, complain};
use crate::units::show_size;

/// Where what has lost its name is put.
const LOST_AND_FOUND: &str = "lost+found";
/// A repair may bring up what it hid: repaired and checked this often at most.
const REPAIR_ROUNDS: u32 = 3;

/// Check that everything the servers keep fits together
///
/// Asks the running servers, also while the cluster is in use: names without inodes and inodes
/// without names, wrong counts, chunks that nobody misses or that are missing, operations that do
/// not end, and the checksums of the servers' own files. What looks wrong is looked at again six
/// seconds later before it counts.
///
/// Exit code 0 if everything fits, 1 if problems were found (and not all repaired), 3 if something
/// could not be checked.
#[derive(Args, Debug)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    choice: ClusterChoice,
    /// Repair what is safe to repair, and check again
    #[arg(long)]
    repair: bool,
    /// With --repair: remove names whose inodes do not exist
    #[arg(long, requires = "repair")]
    drop_dangling: bool,
    /// With --repair: let files read as zeros where they have lost data for good
    #[arg(long, requires = "repair")]
    accept_loss: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct CheckReport {
    cluster: String,
    /// Everything was looked at and fits, or has been repaired.
    clean: bool,
    inodes: u64,
    names: u64,
    chunks: u64,
    bytes: u64,
    verified_bytes: u64,
    seconds: f64,
    problems: Vec<ProblemReport>,
    repairs: Vec<RepairReport>,
    unchecked: Vec<UncheckedReport>,
}

#[derive(Debug, Serialize)]
struct ProblemReport {
    kind: &'static str,
    target: u32,
    inode: Option<String>,
    path: Option<String>,
    what: String,
    advice: &'static str,
}

#[derive(Debug, Serialize)]
struct RepairReport {
    #[serde(flatten)]
    problem: ProblemReport,
    /// `repaired`, `gone` or why it failed.
    outcome: String,
}

#[derive(Debug, Serialize)]
struct UncheckedReport {
    target: u32,
    why: String,
}

impl CheckArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let found = self.choice.find(environment)?;
        run_on_platform(environment, async |platform| self.check(&platform, &found).await)
    }

    async fn check(&self, platform: &Platform, found: &Found) -> Result<(), CliError> {
        let start = Instant::now();
        let (map, key) = (found.settings.map.clone(), found.directory.key()?);
        let checker = Checker::new(platform, map, &key).map_err(CliError::failed)?;
        let down = down(found)?;
        let all_down = down.len() == found.settings.map.targets().len();
        let mut report = match all_down {
            true => Report { unread: down.clone(), ..Report::default() },
            false => checker.check(down.clone()).await,
        };
        let mut repairs = Vec::new();
        let rounds = if self.repair { REPAIR_ROUNDS } else { 0 };
        for _ in 0..rounds {
            let done = self.repair(platform, found, &checker, &report).await?;
            let is_over = !done.iter().any(|(_, outcome)| *outcome == Outcome::Repaired);
            repairs.extend(done);
            if is_over {
                break;
            }
            report = checker.check(down.clone()).await;
        }
        let told = tell(found, &report, &repairs, start.elapsed().as_secs_f64());
        let mut output = Output::new();
        match self.json {
            true => {
                let text = serde_json::to_string_pretty(&told);
                output.line(text.expect("numbers and strings have a JSON form"))?;
            }
            false => show(&told, &mut output)?,
        }
        output.finish()?;
        if all_down {
            let name = found.settings.map.name();
            complain(&format_args!(
                "cluster \"{name}\" is down and can only be checked while it runs: start it with \
                 `ringfs up --name {name}`"
            ));
        }
        match (report.unread.is_empty(), report.problems.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(CliError::Said),
            (false, _) => Err(CliError::Unchecked),
        }
    }

    /// Repairs what may be repaired; what became of it.
    async fn repair(
        &self,
        platform: &Platform,
        found: &Found,
        checker: &Checker,
        report: &Report,
    ) -> Result<Vec<(Problem, Outcome)>, CliError> {
        let needs_directory = report.problems.iter().any(Problem::needs_lost_and_found);
        let lost_and_found = match needs_directory {
            true => Some(lost_and_found(platform, found).await?),
            false => None,
        };
        let options = RepairOptions {
            lost_and_found,
            drop_dangling: self.drop_dangling,
            accept_loss: self.accept_loss,
        };
        let mut done = Vec::new();
        for problem in &report.problems {
            match checker.repair(problem, options).await {
                Outcome::Left => {}
                outcome => done.push((problem.clone(), outcome)),
            }
        }
        Ok(done)
    }
}

/// Targets whose nodes do not run, and why as far as their logs tell.
fn down(found: &Found) -> Result<Vec<Unread>, CliError> {
    let map = &found.settings.map;
    let mut down = Vec::new();
    for node in map.nodes() {
        if found.directory.process(node.id)?.is_none() {
            let complaint = found.directory.last_complaint(node.id);
            let why = complaint.unwrap_or_else(|| format!("node {} is down", node.id));
            let targets = map.targets_of(node.id);
            down.extend(targets.map(|target| Unread { target, why: why.clone() }));
        }
    }
    Ok(down)
}

/// The directory for what has lost its name, made where it is missing.
async fn lost_and_found(platform: &Platform, found: &Found) -> Result<InodeNumber, CliError> {
    let (map, key) = (found.settings.map.clone(), found.directory.key()?);
    let client = Client::new(platform, map, key, ClientOptions::default());
    let name = Name::new(LOST_AND_FOUND.as_bytes()).expect("the name is valid");
    let permissions = FilePermissions { mode: 0o700, uid: 0, gid: 0 };
    let directory = match client.mkdir(InodeNumber::ROOT, &name, permissions).await {
        Ok(made) => made,
        Err(error) if error.errno() == Errno::EEXIST => {
            client.lookup(InodeNumber::ROOT, &name).await?
        }
        Err(error) => return Err(error.into()),
    };
    client.close().await?;
    match directory.kind {
        InodeType::Directory => Ok(directory.inode),
        _ => Err(CliError::failed(format!(
            "/{LOST_AND_FOUND} is no directory: move it away, then repair again"
        ))),
    }
}

fn tell(
    found: &Found,
    report: &Report,
    repairs: &[(Problem, Outcome)],
    seconds: f64,
) -> CheckReport {
    let problem = |problem: &Problem| ProblemReport {
        kind: problem.finding.kind(),
        target: problem.target.0,
        inode: problem.finding.inode().map(|inode| inode.to_string()),
        path: problem.path.clone(),
        what: problem.finding.to_string(),
        advice: problem.finding.advice(),
    };
    let repair = |(repaired, outcome): &(Problem, Outcome)| {
        let outcome = match outcome {
            Outcome::Repaired => "repaired".to_owned(),
            Outcome::Gone | Outcome::Left => "gone".to_owned(),
            Outcome::Failed(why) => why.clone(),
        };
        RepairReport { problem: problem(repaired), outcome }
    };
    let unchecked = report.unread.iter();
    CheckReport {
        cluster: found.settings.map.name().to_owned(),
        clean: report.is_clean(),
        inodes: report.counts.inodes,
        names: report.counts.names,
        chunks: report.counts.chunks,
        bytes: report.counts.bytes,
        verified_bytes: report.verified_bytes,
        seconds,
        problems: report.problems.iter().map(problem).collect(),
        repairs: repairs.iter().map(repair).collect(),
        unchecked: unchecked
            .map(|unread| UncheckedReport { target: unread.target.0, why: unread.why.clone() })
            .collect(),
    }
}

fn show(report: &CheckReport, output: &mut Output) -> Result<(), CliError> {
    for RepairReport { problem, outcome } in &report.repairs {
        let doing = match outcome.as_str() {
            "repaired" => "repaired".to_owned(),
            "gone" => "gone by itself".to_owned(),
            why => format!("cannot be repaired ({why})"),
        };
        output.line(format_args!("{doing}: {}", describe(problem)))?;
    }
    for problem in &report.problems {
        output.line(format_args!("problem: {}; {}", describe(problem), problem.advice))?;
    }
    for targets in report.unchecked.chunk_by(|a, b| a.why == b.why) {
        let ids: Vec<_> = targets.iter().map(|unchecked| unchecked.target.to_string()).collect();
        let why = &targets[0].why;
        output.line(format_args!("not checked: target(s) {}: {why}", ids.join(", ")))?;
    }
    let verdict = match (report.problems.len(), report.unchecked.len()) {
        (0, 0) => "everything fits".to_owned(),
        (problems, 0) => format!("{problems} problem(s)"),
        (problems, unchecked) => {
            format!("{problems} problem(s), {unchecked} target(s) could not be checked")
        }
    };
    output.line(format_args!(
        "Cluster \"{}\": {} inode(s), {} name(s), {} chunk(s), {}; {} of the servers' files read; \
         {:.1} s: {verdict}",
        report.cluster,
        report.inodes,
        report.names,
        report.chunks,
        show_size(report.bytes),
        show_size(report.verified_bytes),
        report.seconds
    ))
}

/// What is wrong, and where.
fn describe(problem: &ProblemReport) -> String {
    let inode = problem.inode.as_deref();
    let place = match (&problem.path, inode) {
        (Some(path), Some(inode)) => format!("{path} (inode {inode}, target {})", problem.target),
        (None, Some(inode)) => format!("inode {inode} (target {})", problem.target),
        (_, None) => format!("target {}", problem.target),
    };
    format!("{place}: {}", problem.what)
}
