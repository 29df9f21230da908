//! Memory: what a server process holds at rest, and what every inode adds.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use ringfs_client::Client;
use ringfs_wire::InodeType;
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::cluster::{Cluster, PERMISSIONS, file_name, make_directory};
use crate::directory::WorkDirectory;
use crate::error::{BenchError, Context};
use crate::process::{Parent, Phase, Task, run_phase, start_clients};
use crate::report::Report;
use crate::timing::{Recorder, rate_of_sum};

/// Creates that one client has under way.
const DEPTH: usize = 32;
/// Time for background work of the server, such as syncs and snapshots, to come to rest.
const REST: Duration = Duration::from_secs(3);

/// A process that creates many files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FillClient {
    cluster: Cluster,
    number: u32,
    inodes: u64,
}

impl FillClient {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        self.cluster.run_client(async |client| {
            client.echo(self.cluster.target_of(self.number)).await?;
            parent.ready(Vec::new())?;
            while parent.next().await.is_some() {
                let mut recorder = Recorder::new();
                self.fill(client).await?;
                recorder.note(self.inodes, Duration::ZERO);
                parent.done(recorder.finish())?;
            }
            Ok(())
        })
    }

    async fn fill(&self, client: &Client) -> Result<(), BenchError> {
        let target = self.cluster.target_of(self.number);
        let prefix = format!("client-{}", self.number);
        let directory = make_directory(client, &prefix, target).await?;
        let creates = (0..self.inodes).map(|index| async move {
            let name = file_name(self.number, index)?;
            client.mknod(directory, &name, InodeType::File, PERMISSIONS, 0).await?;
            Ok::<_, BenchError>(())
        });
        stream::iter(creates).buffer_unordered(DEPTH).try_collect::<()>().await
    }
}

/// Clients that together create `inodes` files.
pub(crate) fn fill_tasks(cluster: &Cluster, clients: u32, inodes: u64) -> Vec<Task> {
    let share = |number: u32| {
        let more = u64::from(u64::from(number) < inodes % u64::from(clients));
        inodes / u64::from(clients) + more
    };
    let task = |number| FillClient { cluster: cluster.clone(), number, inodes: share(number) };
    (0..clients).map(|number| Task::Fill(task(number))).collect()
}

/// Measures the memory of a server.
pub(crate) fn run(common: &Common, inodes: u64) -> Result<Report, BenchError> {
    if inodes == 0 {
        return Err(BenchError::Usage("--inodes takes 1 and more".to_owned()));
    }
    let targets = common.targets.unwrap_or(1);
    let setting = format!(
        "1 node with {targets} target(s); {inodes} files with names of 24 bytes in {} directories",
        common.clients
    );
    let mut report = Report::new("memory", setting);
    let work = WorkDirectory::new(common.directory.as_deref())?;
    let (node, cluster) = Cluster::start(&work, targets)?;
    std::thread::sleep(REST);
    let at_rest = resident(node.id(), "VmRSS:")?;
    let mut clients = start_clients("client", fill_tasks(&cluster, common.clients, inodes))?;
    let connected = resident(node.id(), "VmRSS:")?;
    let measures = run_phase(&mut clients, Phase::Create)?;
    for client in clients {
        client.finish()?;
    }
    std::thread::sleep(REST);
    let filled = resident(node.id(), "VmRSS:")?;
    let peak = resident(node.id(), "VmHWM:")?;
    let per_inode = filled.saturating_sub(at_rest) as f64 / inodes as f64;
    let mebibytes = |bytes: u64| vec![bytes as f64 / f64::from(1 << 20)];
    report.add("at rest", "MiB", mebibytes(at_rest), "");
    report.add("with clients connected", "MiB", mebibytes(connected), "");
    report.add("filled", "MiB", mebibytes(filled), "");
    report.add("highest ever", "MiB", mebibytes(peak), "");
    report.add("per inode, beyond at rest", "bytes", vec![per_inode], "");
    report.add("creates while filling", "/s", vec![rate_of_sum(&measures)], "");
    node.finish()?;
    Ok(report.finish())
}

/// Resident memory of a process in bytes, now or at its highest.
pub(crate) fn resident(process: u32, field: &str) -> Result<u64, BenchError> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).context(format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let kibibytes =
        kibibytes.ok_or_else(|| BenchError::Unexpected(format!("no {field} {path}")))?;
    Ok(kibibytes << 10)
}
