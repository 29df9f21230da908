//! Round trips: our Echo RPC beside a bare echo of frames of the same size.

use serde::{Deserialize, Serialize};

use crate::Common;
use crate::bare::{BareClient, BareRuntime, BareServer};
use crate::cluster::Cluster;
use crate::directory::WorkDirectory;
use crate::error::BenchError;
use crate::process::{Child, Parent, Phase, Task, run_phase, start_clients};
use crate::report::Report;
use crate::timing::{median_us, repeat, slowest_percent_us, sum_of_rates};

const BARE: &str = "bare compio echo";
const BARE_SPINNING: &str = "bare echo, runtime of platform";
const OURS: &str = "RingFS Echo";

/// A process that calls Echo, one call at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EchoClient {
    pub(crate) cluster: Cluster,
    pub(crate) number: u32,
    pub(crate) seconds: f64,
}

impl EchoClient {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        let target = self.cluster.target_of(self.number);
        self.cluster.run_client(async |client| {
            client.echo(target).await?;
            parent.ready(Vec::new())?;
            while parent.next().await.is_some() {
                let measure =
                    repeat(self.seconds, async |_| Ok(client.echo(target).await?)).await?;
                parent.done(measure)?;
            }
            Ok(())
        })
    }
}

/// One server with its clients, and what they have shown.
pub(crate) struct Arm {
    name: &'static str,
    // Clients go before their server does.
    clients: Vec<Child>,
    server: Option<Child>,
    rates: Vec<f64>,
    medians_us: Vec<f64>,
    slowest_us: Vec<f64>,
}

impl Arm {
    pub(crate) fn new(name: &'static str, clients: Vec<Child>, server: Option<Child>) -> Self {
        let (rates, medians_us, slowest_us) = Default::default();
        Self { name, clients, server, rates, medians_us, slowest_us }
    }

    /// A bare server and clients that echo.
    pub(crate) fn bare(
        name: &'static str,
        runtime: BareRuntime,
        common: &Common,
        threads: u32,
        work: &WorkDirectory,
    ) -> Result<Self, BenchError> {
        let server = BareServer { runtime, threads, directory: work.path().to_owned() };
        let (server, addresses) = server.start()?;
        let client = BareClient {
            runtime,
            address: String::new(),
            seconds: common.seconds,
            bytes: 0,
            number: 0,
        };
        let clients = start_clients("bare client", client.tasks(common.clients, &addresses))?;
        Ok(Self::new(name, clients, Some(server)))
    }

    /// Runs one round of `phase`.
    pub(crate) fn round(&mut self, phase: Phase) -> Result<(), BenchError> {
        let measures = run_phase(&mut self.clients, phase)?;
        self.rates.push(sum_of_rates(&measures));
        self.medians_us.push(median_us(&measures));
        self.slowest_us.push(slowest_percent_us(&measures));
        Ok(())
    }

    pub(crate) fn report(&self, report: &mut Report, to: &str) {
        report.add(self.name, "/s", self.rates.clone(), to);
    }

    pub(crate) fn report_durations(&self, report: &mut Report) {
        let Self { name, medians_us, slowest_us, .. } = self;
        report.add(&format!("{name}, median"), "us", medians_us.clone(), "");
        report.add(&format!("{name}, 99th percentile"), "us", slowest_us.clone(), "");
    }

    pub(crate) fn finish(self) -> Result<(), BenchError> {
        for client in self.clients {
            client.finish()?;
        }
        self.server.map_or(Ok(()), Child::finish)
    }
}

/// Measures Echo beside bare echoes.
pub(crate) fn run(common: &Common) -> Result<Report, BenchError> {
    let targets = common.targets.unwrap_or(1);
    let setting = format!(
        "{} client processes at depth 1 over loopback TCP, frames of 80 bytes, {targets} serving \
         thread(s), {} rounds of {} s",
        common.clients, common.rounds, common.seconds
    );
    let mut report = Report::new("echo", setting);
    let work = WorkDirectory::new(common.directory.as_deref())?;
    let (node, cluster) = Cluster::start(&work, targets)?;
    let client = |number| EchoClient { cluster: cluster.clone(), number, seconds: common.seconds };
    let tasks = (0..common.clients).map(|number| Task::Echo(client(number))).collect();
    let mut arms = [
        Arm::bare(BARE, BareRuntime::Compio, common, targets, &work)?,
        Arm::bare(BARE_SPINNING, BareRuntime::Platform, common, targets, &work)?,
        Arm::new(OURS, start_clients("client", tasks)?, Some(node)),
    ];
    for _ in 0..common.rounds {
        for arm in &mut arms {
            arm.round(Phase::Echo)?;
        }
    }
    arms.iter().for_each(|arm| arm.report(&mut report, BARE));
    arms.iter().for_each(|arm| arm.report_durations(&mut report));
    for arm in arms {
        arm.finish()?;
    }
    Ok(report.finish())
}
