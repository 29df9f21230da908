//! The limits of the machine, measured in the same run: what the same processes reach when they
//! do no more than move bytes and frames.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::bare::{BareClient, BareRuntime, BareServer};
use crate::cluster::Cluster;
use crate::echo::EchoClient;
use crate::error::BenchError;
use crate::process::{Child, Interrupt, Parent, Phase, Task, run_phase, start_clients_watching};
use crate::timing::{Recorder, rate_of_sum, sum_of_rates};

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
}

impl LimitKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            LimitKind::Memory => "memcpy",
            LimitKind::BareEcho => "bare-echo",
            LimitKind::EchoRpc => "echo-rpc",
            LimitKind::BareWrite => "bare-write",
            LimitKind::BareRead => "bare-read",
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
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            LimitKind::BareEcho | LimitKind::EchoRpc => "ops/s",
            _ => "MiB/s",
        }
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
            server,
        })
    }

    /// Measures every limit once.
    pub(crate) fn round(&mut self) -> Result<Vec<(LimitKind, f64)>, BenchError> {
        let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
        let mut found = Vec::new();
        let copied = run_phase(&mut self.copy, Phase::Echo)?;
        found.push((LimitKind::Memory, mebibytes(sum_of_rates(&copied))));
        let echoed = run_phase(&mut self.bare, Phase::Echo)?;
        found.push((LimitKind::BareEcho, sum_of_rates(&echoed)));
        if !self.echo.is_empty() {
            let echoed = run_phase(&mut self.echo, Phase::Echo)?;
            found.push((LimitKind::EchoRpc, sum_of_rates(&echoed)));
        }
        for (kind, phase) in
            [(LimitKind::BareWrite, Phase::Write), (LimitKind::BareRead, Phase::Read)]
        {
            let moved = run_phase(&mut self.bare, phase)?;
            found.push((kind, mebibytes(rate_of_sum(&moved))));
        }
        run_phase(&mut self.bare, Phase::Clean)?;
        Ok(found)
    }
}
