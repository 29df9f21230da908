//! The limits of the machine, measured in the same run: what the same processes reach when they
//! do no more than move bytes and frames.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::servers::Servers;
use crate::bare::{BareClient, BareRuntime, BareServer};
use crate::cluster::Cluster;
use crate::echo::EchoClient;
use crate::error::BenchError;
use crate::process::{Child, Interrupt, Parent, Phase, Task, run_phase, start_clients_watching};
use crate::timing::{Measure, Recorder, median_us, rate_of_sum, sum_of_rates};

/// Bytes copied at once, and from which area: more than caches hold.
const COPY_PIECE: usize = 1 << 20;
const COPY_AREA: usize = 64 << 20;

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum LimitKind {
    /// Copying memory.
    Memory,
    /// Frames there and back between bare processes.
    BareEcho,
    /// Echo requests to the cluster.
    EchoRpc,
    /// Bytes sent over a socket and written to a file.
    BareWrite,
    /// Bytes read from a file and sent over a socket.
    BareRead,
    /// Echo requests to the cluster by one client alone.
    EchoAlone,
    /// The same part in a mount of files in memory. Measured part by part.
    BareMount,
    /// The same part in a directory of the place where stores lie. Measured part by part.
    Plain,
}

impl LimitKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            LimitKind::Memory => "memcpy",
            LimitKind::BareEcho => "bare-echo",
            LimitKind::EchoRpc => "echo-rpc",
            LimitKind::BareWrite => "bare-write",
            LimitKind::BareRead => "bare-read",
            LimitKind::EchoAlone => "echo-alone",
            LimitKind::BareMount => "bare-mount",
            LimitKind::Plain => "plain",
        }
    }

    /// What it is, in a line.
    pub(crate) fn description(self) -> &'static str {
        match self {
            LimitKind::Memory => "memory copied, 1 MiB at a time from 64 MiB, by every client",
            LimitKind::BareEcho => "frames of 80 bytes echoed over loopback TCP by a bare loop",
            LimitKind::EchoRpc => "Echo requests answered by the cluster",
            LimitKind::BareWrite => "1 MiB sent over loopback TCP and written to a fresh file",
            LimitKind::BareRead => "1 MiB read from that file and sent over loopback TCP",
            LimitKind::EchoAlone => "Echo requests answered by the cluster to one client alone",
            LimitKind::BareMount => "the same in a mount that is served from memory",
            LimitKind::Plain => "the same in a plain directory",
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            LimitKind::BareEcho | LimitKind::EchoRpc | LimitKind::EchoAlone => "ops/s",
            _ => "MiB/s",
        }
    }
}

/// What one limit came to in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LimitFigure {
    pub(crate) kind: LimitKind,
    pub(crate) rate: f64,
    /// The median client's median duration of one operation.
    pub(crate) median_us: f64,
    /// Processor time of the serving process for each GiB.
    pub(crate) cpu_seconds_per_gib: Option<f64>,
}

impl LimitFigure {
    fn new(kind: LimitKind, rate: f64, measures: &[Measure]) -> Self {
        Self { kind, rate, median_us: median_us(measures), cpu_seconds_per_gib: None }
    }
}

/// A process that copies memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CopyClient {
    milliseconds: u64,
}

impl CopyClient {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        let from = vec![0x5a_u8; COPY_AREA];
        let mut to = vec![0_u8; COPY_AREA];
        parent.ready(Vec::new())?;
        BareRuntime::Polling.run(async {
            while parent.next().await.is_some() {
                let mut recorder = Recorder::new();
                let limit = Duration::from_millis(self.milliseconds);
                let mut last = Instant::now();
                while last - recorder.begin < limit {
                    for (to, from) in to.chunks_mut(COPY_PIECE).zip(from.chunks(COPY_PIECE)) {
                        std::hint::black_box(&mut *to).copy_from_slice(from);
                        let now = Instant::now();
                        recorder.note(COPY_PIECE as u64, now - last);
                        last = now;
                    }
                }
                parent.done(recorder.finish())?;
            }
            Ok(())
        })
    }
}

/// The processes that show the limits.
pub(crate) struct Limits {
    copy: Vec<Child>,
    bare: Vec<Child>,
    echo: Vec<Child>,
    #[allow(dead_code, reason = "ends with its clients")]
    server: Child,
    serving: Servers,
}

impl Limits {
    /// Starts them; `cluster` answers the Echo requests.
    pub(crate) fn start(
        plan: &Plan,
        directory: PathBuf,
        cluster: Option<&Cluster>,
        interrupt: &Interrupt,
    ) -> Result<Self, BenchError> {
        let runtime = if plan.polling { BareRuntime::Polling } else { BareRuntime::Compio };
        let threads = plan.targets;
        let server = Task::BareServer(BareServer { runtime, threads, directory });
        let mut server = Child::start_watching("the bare server", &server, interrupt)?;
        let addresses = server.ready()?;
        let seconds = plan.limit_seconds;
        let bytes = plan.bare_bytes;
        let bare = BareClient { runtime, address: String::new(), seconds, bytes, number: 0 };
        let start = |name, tasks: Vec<Task>| start_clients_watching(name, &tasks, interrupt);
        let milliseconds = (seconds * 1e3) as u64;
        let copy = (0..plan.clients).map(|_| Task::Copy(CopyClient { milliseconds }));
        let echo = cluster.map(|cluster| {
            let client = |number| EchoClient { cluster: cluster.clone(), number, seconds };
            (0..plan.clients).map(client).map(Task::Echo).collect()
        });
        Ok(Self {
            copy: start("memory client", copy.collect())?,
            bare: start("bare client", bare.tasks(plan.clients, &addresses))?,
            echo: start("echo client", echo.unwrap_or_default())?,
            serving: Servers::new(vec![server.id()]),
            server,
        })
    }

    /// Measures every limit once.
    pub(crate) fn round(&mut self) -> Result<Vec<LimitFigure>, BenchError> {
        let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
        let mut found = Vec::new();
        let copied = run_phase(&mut self.copy, Phase::Echo)?;
        let rate = mebibytes(sum_of_rates(&copied));
        found.push(LimitFigure::new(LimitKind::Memory, rate, &copied));
        let echoed = run_phase(&mut self.bare, Phase::Echo)?;
        found.push(LimitFigure::new(LimitKind::BareEcho, sum_of_rates(&echoed), &echoed));
        for (kind, clients) in [(LimitKind::EchoRpc, usize::MAX), (LimitKind::EchoAlone, 1)] {
            let clients = clients.min(self.echo.len());
            if clients > 0 {
                let echoed = run_phase(&mut self.echo[..clients], Phase::Echo)?;
                found.push(LimitFigure::new(kind, sum_of_rates(&echoed), &echoed));
            }
        }
        for (kind, phase) in
            [(LimitKind::BareWrite, Phase::Write), (LimitKind::BareRead, Phase::Read)]
        {
            let before = self.serving.before();
            let moved = run_phase(&mut self.bare, phase)?;
            let spent = self.serving.since(before);
            let bytes: u64 = moved.iter().map(|measure| measure.count).sum();
            let gibibytes = bytes as f64 / f64::from(1 << 30);
            found.push(LimitFigure {
                cpu_seconds_per_gib: Some(spent.cpu_seconds / gibibytes.max(f64::MIN_POSITIVE)),
                ..LimitFigure::new(kind, mebibytes(rate_of_sum(&moved)), &moved)
            });
        }
        run_phase(&mut self.bare, Phase::Clean)?;
        Ok(found)
    }
}
