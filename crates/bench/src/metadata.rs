//! Metadata: empty files created and looked up, beside echo to the same node in the same run.
//!
//! Every client works in a directory of its own; the directories are spread evenly over the
//! targets. A create is one name and one inode in one request; a stat is a look-up that brings
//! the attributes, and nothing is cached.

use ringfs_client::Client;
use ringfs_wire::{InodeNumber, InodeType};
use serde::{Deserialize, Serialize};

use crate::Common;
use crate::bare::BareRuntime;
use crate::cluster::{Cluster, PERMISSIONS, file_name, make_directory};
use crate::directory::WorkDirectory;
use crate::echo::Arm;
use crate::error::BenchError;
use crate::process::{Parent, Phase, Task, run_phase, start_clients};
use crate::report::Report;
use crate::timing::{Measure, median_us, repeat, slowest_percent_us, sum_of_rates};

/// Leads through all files in an order that no cache foresees; a prime.
const STRIDE: u64 = 2_654_435_761;

const BARE: &str = "bare compio echo";
const ECHO: &str = "RingFS Echo";

/// A process that creates and looks up, one call at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MetadataClient {
    cluster: Cluster,
    number: u32,
    seconds: f64,
}

impl MetadataClient {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        self.cluster.run_client(async |client| {
            let mut worker = Worker { task: &self, client, round: 0, files: None };
            client.echo(self.cluster.target_of(self.number)).await?;
            parent.ready(Vec::new())?;
            while let Some(phase) = parent.next().await {
                parent.done(worker.phase(phase).await?)?;
            }
            Ok(())
        })
    }
}

struct Worker<'a> {
    task: &'a MetadataClient,
    client: &'a Client,
    round: u32,
    /// The directory of this round and how many files it holds.
    files: Option<(InodeNumber, u64)>,
}

impl Worker<'_> {
    async fn phase(&mut self, phase: Phase) -> Result<Measure, BenchError> {
        let (client, number) = (self.client, self.task.number);
        let target = self.task.cluster.target_of(number);
        match (phase, self.files) {
            (Phase::Create, _) => {
                self.round += 1;
                let prefix = format!("client-{number}-round-{}", self.round);
                let directory = make_directory(client, &prefix, target).await?;
                let mut count = 0;
                let measure = repeat(self.task.seconds, async |index| {
                    let name = file_name(number, index)?;
                    client.mknod(directory, &name, InodeType::File, PERMISSIONS, 0).await?;
                    count = index + 1;
                    Ok(())
                });
                let measure = measure.await?;
                self.files = Some((directory, count));
                Ok(measure)
            }
            (Phase::Stat, Some((directory, count))) if count > 0 => {
                repeat(self.task.seconds, async |index| {
                    let name = file_name(number, index.wrapping_mul(STRIDE) % count)?;
                    client.lookup(directory, &name).await?;
                    Ok(())
                })
                .await
            }
            (Phase::Echo, _) => {
                repeat(self.task.seconds, async |_| Ok(client.echo(target).await?)).await
            }
            _ => Err(BenchError::Unexpected(format!("{phase:?} has nothing to work on"))),
        }
    }
}

/// Measures creates and look-ups beside echo.
pub(crate) fn run(common: &Common) -> Result<Report, BenchError> {
    let targets = common.targets.unwrap_or(2);
    let setting = format!(
        "{} client processes at depth 1, 1 node with {targets} target(s), names of 24 bytes in one \
         directory per client, {} rounds of {} s",
        common.clients, common.rounds, common.seconds
    );
    let mut report = Report::new("metadata", setting);
    let work = WorkDirectory::new(common.directory.as_deref())?;
    let (node, cluster) = Cluster::start(&work, targets)?;
    let task =
        |number| MetadataClient { cluster: cluster.clone(), number, seconds: common.seconds };
    let tasks = (0..common.clients).map(|number| Task::Metadata(task(number)));
    let mut clients = start_clients("client", tasks.collect())?;
    let mut bare = Arm::bare(BARE, BareRuntime::Compio, common, targets, &work)?;
    let phases = [(ECHO, Phase::Echo), ("create", Phase::Create), ("stat", Phase::Stat)];
    let mut figures = phases.map(|(name, phase)| (name, phase, Figures::default()));
    for _ in 0..common.rounds {
        bare.round(Phase::Echo)?;
        for (_, phase, figures) in &mut figures {
            figures.note(&run_phase(&mut clients, *phase)?);
        }
    }
    bare.report(&mut report, "");
    for (name, phase, figures) in &figures {
        let to = if *phase == Phase::Echo { BARE } else { ECHO };
        report.add(name, "/s", figures.rates.clone(), to);
    }
    for (name, _, figures) in figures {
        report.add(&format!("{name}, median"), "us", figures.medians_us, "");
        report.add(&format!("{name}, 99th percentile"), "us", figures.slowest_us, "");
    }
    for client in clients {
        client.finish()?;
    }
    bare.finish()?;
    node.finish()?;
    Ok(report.finish())
}

#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    medians_us: Vec<f64>,
    slowest_us: Vec<f64>,
}

impl Figures {
    fn note(&mut self, measures: &[Measure]) {
        self.rates.push(sum_of_rates(measures));
        self.medians_us.push(median_us(measures));
        self.slowest_us.push(slowest_percent_us(measures));
    }
}
