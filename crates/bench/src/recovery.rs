//! Recovery: how long a killed node takes until it serves again, from its log alone and with a
//! snapshot, by the number of inodes; and what a client notices while snapshots are taken.
//!
//! The node is killed, so its files come from the page cache, as after the end of a process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringfs_client::Client;
use ringfs_wire::InodeType;
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::cluster::{Cluster, NodeTask, PERMISSIONS, file_name, make_directory};
use crate::directory::WorkDirectory;
use crate::error::{BenchError, Context};
use crate::memory::{fill_tasks, resident};
use crate::process::{Child, Parent, Phase, Task, run_phase, start_clients};
use crate::report::Report;
use crate::timing::{Measure, Recorder, rate_of_sum};

/// Numbers of probing clients, by arm; those that fill count from 0.
const PROBES_BEFORE: u32 = 300;
const PROBES_DURING: u32 = 600;
/// How often a directory is looked at until a snapshot is complete, and for how long.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(120);

/// A client process that creates and looks up in turn, one call at a time, from the first moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProbeClient {
    cluster: Cluster,
    number: u32,
    seconds: f64,
}

impl ProbeClient {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        self.cluster.run_client(async |client| {
            client.echo(self.cluster.target_of(self.number)).await?;
            parent.ready(Vec::new())?;
            while parent.next().await.is_some() {
                parent.done(self.probe(client).await?)?;
            }
            Ok(())
        })
    }

    async fn probe(&self, client: &Client) -> Result<Measure, BenchError> {
        let mut recorder = Recorder::new();
        let target = self.cluster.target_of(self.number);
        let directory = make_directory(client, &format!("probe-{}", self.number), target).await?;
        let measured = Duration::from_secs_f64(self.seconds);
        let (mut last, mut index) = (Instant::now(), 0);
        while last - recorder.begin < measured {
            let name = file_name(self.number, index / 2)?;
            if index % 2 == 0 {
                client.mknod(directory, &name, InodeType::File, PERMISSIONS, 0).await?;
            } else {
                client.lookup(directory, &name).await?;
            }
            index += 1;
            let now = Instant::now();
            recorder.note(1, now - last);
            last = now;
        }
        Ok(recorder.finish())
    }
}

/// The node of a benchmark, killed and started again.
struct Node<'a> {
    task: &'a NodeTask,
    child: Child,
}

impl<'a> Node<'a> {
    fn start(task: &'a NodeTask) -> Result<(Self, Duration), BenchError> {
        let begin = Instant::now();
        let mut child = Child::start("the node", &Task::Node(task.clone()))?;
        child.ready()?;
        Ok((Self { task, child }, begin.elapsed()))
    }

    /// Kills it without notice and starts it with `task`, `rounds` times; seconds until it served.
    fn kill(self, task: &'a NodeTask, rounds: u32) -> Result<(Self, Vec<f64>), BenchError> {
        let mut node = self;
        let mut seconds = Vec::new();
        for _ in 0..rounds {
            drop(node.child);
            task.wait_until_free()?;
            let (started, time) = Self::start(task)?;
            seconds.push(time.as_secs_f64());
            node = started;
        }
        Ok((node, seconds))
    }

    /// Complete snapshots of all targets, and unfinished ones.
    fn snapshots(&self) -> Result<(Vec<PathBuf>, usize), BenchError> {
        let (mut complete, mut unfinished) = (Vec::new(), 0);
        for target in std::fs::read_dir(self.task.directory()).context("list the node")?.flatten() {
            let files = std::fs::read_dir(target.path()).into_iter().flatten().flatten();
            for path in files.map(|file| file.path()) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                match name.starts_with("snapshot-") {
                    true if name.ends_with(".tmp") => unfinished += 1,
                    true => complete.push(path),
                    false => {}
                }
            }
        }
        Ok((complete, unfinished))
    }

    /// Waits until there is a complete snapshot and none is being written.
    fn wait_for_snapshot(&self) -> Result<u64, BenchError> {
        let begin = Instant::now();
        while begin.elapsed() < SNAPSHOT_LIMIT {
            if let (complete, 0) = self.snapshots()?
                && !complete.is_empty()
            {
                let sizes = complete.iter().filter_map(|path| Some(path.metadata().ok()?.len()));
                return Ok(sizes.sum());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Err(BenchError::Unexpected("no snapshot was taken".to_owned()))
    }
}

fn probe(cluster: &Cluster, common: &Common, first: u32) -> Result<Vec<Measure>, BenchError> {
    let task = |number| ProbeClient { cluster: cluster.clone(), number, seconds: common.seconds };
    let tasks = (first..first + common.clients).map(|number| Task::Probe(task(number)));
    let mut clients = start_clients("probe", tasks.collect())?;
    let measures = run_phase(&mut clients, Phase::Create)?;
    clients.into_iter().try_for_each(Child::finish)?;
    Ok(measures)
}

fn add_probe(report: &mut Report, name: &str, measures: &[Measure]) {
    let longest = measures.iter().map(|measure| measure.longest_ns).max().unwrap_or(0);
    report.add(&format!("calls {name}"), "/s", vec![rate_of_sum(measures)], "");
    report.add(&format!("longest call {name}"), "ms", vec![f64::from(longest) / 1e6], "");
}

/// Measures recovery and the pause that snapshots make.
pub(crate) fn run(common: &Common, inodes: u64) -> Result<Report, BenchError> {
    if inodes == 0 {
        return Err(BenchError::Usage("--inodes takes 1 and more".to_owned()));
    }
    let targets = common.targets.unwrap_or(1);
    let setting = format!(
        "1 node with {targets} target(s); {inodes} empty files with names of 24 bytes; {} clients \
         that create and look up for {} s",
        common.clients, common.seconds
    );
    let mut report = Report::new("recovery", setting);
    let work = WorkDirectory::new(common.directory.as_deref())?;
    let (cluster, usual) = Cluster::prepare(&work, targets)?;
    let without_snapshots = usual.clone().without_snapshots();
    let (node, _) = Node::start(&without_snapshots)?;
    let mut clients = start_clients("client", fill_tasks(&cluster, common.clients, inodes))?;
    let filled = run_phase(&mut clients, Phase::Create)?;
    clients.into_iter().try_for_each(Child::finish)?;
    report.add("creates while filling", "/s", vec![rate_of_sum(&filled)], "");

    let before = probe(&cluster, common, PROBES_BEFORE)?;
    let (node, from_log) = node.kill(&without_snapshots, common.rounds)?;
    // Much of the log is no part of a snapshot, so the first change begins one.
    let (node, _) = node.kill(&usual, 1)?;
    let during = probe(&cluster, common, PROBES_DURING)?;
    let snapshot_bytes = node.wait_for_snapshot()?;
    let (node, from_snapshot) = node.kill(&usual, common.rounds)?;

    report.add("until ready, log only", "s", from_log, "");
    report.add("until ready, with a snapshot", "s", from_snapshot, "");
    report.add("snapshot", "MiB", vec![snapshot_bytes as f64 / f64::from(1 << 20)], "");
    add_probe(&mut report, "without snapshots", &before);
    add_probe(&mut report, "while one is taken", &during);
    let peak = resident(node.child.id(), "VmHWM:")? as f64 / f64::from(1 << 20);
    report.add("memory after recovery, highest", "MiB", vec![peak], "");
    node.child.finish()?;
    Ok(report.finish())
}
