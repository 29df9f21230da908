//! Child processes: this program, started again with a task on its standard input.
//!
//! Both sides speak lines of JSON. Invariant: no child outlives its parent. The kernel kills it
//! when the parent dies, a dropped [`Child`] is killed and waited for, and the end of standard
//! input ends it in order. The one exception cleans up after everybody and then ends by itself.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use ringfs_platform::{MailboxReceiver, mailbox};
use serde::{Deserialize, Serialize};

use crate::bare::{BareClient, BareServer};
use crate::bare_mount::BareMountTask;
use crate::bulk::BulkClient;
use crate::cluster::{MountTask, NodeTask};
use crate::directory::Leftovers;
use crate::echo::EchoClient;
use crate::error::{BenchError, Context};
use crate::memory::FillClient;
use crate::metadata::MetadataClient;
use crate::recovery::ProbeClient;
use crate::suite::{CopyClient, Order, SuiteClient};
use crate::timing::Measure;

/// The only argument of a program that is to be a child.
pub const CHILD_COMMAND: &str = "bench-child";

/// Phases that may wait for a child; there is never more than one.
const PHASES_MAX: usize = 16;
/// Words of a child that may wait for its parent; there is never more than one.
const WORDS_MAX: usize = 16;
/// How often a parent that waits for a child looks whether it was interrupted.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Whether the benchmark has to end early. Clones are one switch.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// Processes without which it cannot go on.
    needed: Arc<Vec<u32>>,
}

impl Interrupt {
    /// A switch that the user turns on by `flag`.
    pub fn new(flag: Arc<AtomicBool>) -> Self {
        Self { flag, needed: Arc::default() }
    }

    /// The same switch; it turns on also when one of these processes ends.
    pub(crate) fn needing(&self, processes: Vec<u32>) -> Self {
        Self { flag: self.flag.clone(), needed: Arc::new(processes) }
    }

    /// Waits, but no longer than until it is turned on.
    pub(crate) fn wait(&self, duration: Duration) -> Result<(), BenchError> {
        let begin = Instant::now();
        while let Some(left) = duration.checked_sub(begin.elapsed()).filter(|left| !left.is_zero())
        {
            self.check()?;
            std::thread::sleep(left.min(LOOK_INTERVAL));
        }
        self.check()
    }

    /// An error once it is turned on.
    fn check(&self) -> Result<(), BenchError> {
        if self.flag.load(Ordering::Relaxed) {
            return Err(BenchError::Interrupted);
        }
        match self.needed.iter().find(|process| !is_running(**process)) {
            Some(process) => Err(BenchError::ServerEnded(*process)),
            None => Ok(()),
        }
    }
}

/// Whether a process runs; one that ended and was not waited for does not.
fn is_running(process: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The state is the first field behind the name, which may hold anything.
    let state = text.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().next());
    state.is_some_and(|state| !matches!(state, "Z" | "X" | "x"))
}

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Be a node of a cluster.
    Node(NodeTask),
    /// Serve the bare loops.
    BareServer(BareServer),
    /// Call the bare loops.
    BareClient(BareClient),
    /// Call Echo.
    Echo(EchoClient),
    /// Create and look up.
    Metadata(MetadataClient),
    /// Write and read.
    Bulk(BulkClient),
    /// Create many files.
    Fill(FillClient),
    /// Create and look up, and find the longest call.
    Probe(ProbeClient),
    /// Serve a mount of a cluster.
    Mount(MountTask),
    /// Serve a mount of files in memory.
    BareMount(BareMountTask),
    /// Copy memory.
    Copy(CopyClient),
    /// Run the workloads of the suite.
    Suite(SuiteClient),
    /// Remove what the benchmark made when the parent has ended.
    Remove(Leftovers),
}

/// A part of a task: what a parent tells a child to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Round trips.
    Echo,
    /// Create empty files.
    Create,
    /// Look up files, uncached.
    Stat,
    /// Write a fresh file.
    Write,
    /// Read it.
    Read,
    /// Remove it. Not measured.
    Clean,
    /// A step of the suite.
    Suite(Order),
}

/// What a child tells its parent.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Say {
    /// It is ready; a server tells where it listens.
    Ready(Vec<String>),
    /// A phase has ended.
    Done(Measure),
    /// It gives up.
    Failed(String),
}

/// A running child.
pub(crate) struct Child {
    name: String,
    child: std::process::Child,
    /// `None` once closed.
    input: Option<ChildStdin>,
    /// What it says, line by line.
    words: Receiver<String>,
    interrupt: Interrupt,
}

impl Child {
    /// Starts a child. It is not waited for: see [`Child::ready`].
    pub(crate) fn start(name: &str, task: &Task) -> Result<Child, BenchError> {
        Self::start_watching(name, task, &Interrupt::default())
    }

    /// The same; waiting for it ends when `interrupt` is turned on.
    pub(crate) fn start_watching(
        name: &str,
        task: &Task,
        interrupt: &Interrupt,
    ) -> Result<Child, BenchError> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.arg(CHILD_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Whoever types Ctrl-C ends the parent; it, or its end, takes the children along.
        command.process_group(0);
        let mut child = command.spawn().context(format!("start {name}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(BenchError::Unexpected("a child without pipes".to_owned()));
        };
        let mut child = Child {
            name: name.to_owned(),
            child,
            input: Some(input),
            words: listen_to(output),
            interrupt: interrupt.clone(),
        };
        child.tell(task)?;
        Ok(child)
    }

    /// Waits until the child is ready; the addresses it listens on.
    pub(crate) fn ready(&mut self) -> Result<Vec<String>, BenchError> {
        match self.hear()? {
            Say::Ready(addresses) => Ok(addresses),
            other => Err(self.failed(format!("said {other:?} instead of ready"))),
        }
    }

    /// Tells the child to run a phase.
    pub(crate) fn order(&mut self, phase: Phase) -> Result<(), BenchError> {
        self.tell(&phase)
    }

    /// Waits for the end of the phase.
    pub(crate) fn done(&mut self) -> Result<Measure, BenchError> {
        match self.hear()? {
            Say::Done(measure) => Ok(measure),
            other => Err(self.failed(format!("said {other:?} instead of a measure"))),
        }
    }

    /// Ends the child in order and waits for it.
    pub(crate) fn finish(mut self) -> Result<(), BenchError> {
        self.input = None;
        let status = self.child.wait().context(format!("wait for {}", self.name))?;
        if status.success() {
            return Ok(());
        }
        // It may have said why.
        while let Ok(line) = self.words.recv() {
            if let Ok(Say::Failed(reason)) = serde_json::from_str(&line) {
                return Err(self.failed(reason));
            }
        }
        Err(self.failed(format!("ended with {status}")))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn tell(&mut self, message: &impl Serialize) -> Result<(), BenchError> {
        let Some(input) = &mut self.input else {
            return Err(self.failed("was told something after its end".to_owned()));
        };
        write_line(input, message).context(format!("tell {} what to do", self.name))
    }

    fn hear(&mut self) -> Result<Say, BenchError> {
        let line = loop {
            match self.words.recv_timeout(LOOK_INTERVAL) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Timeout) => self.interrupt.check()?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.failed("ended without a word".to_owned()));
                }
            }
        };
        match serde_json::from_str(&line) {
            Ok(Say::Failed(reason)) => Err(self.failed(reason)),
            Ok(say) => Ok(say),
            Err(error) => Err(self.failed(format!("cannot be understood: {error}"))),
        }
    }

    fn failed(&self, reason: String) -> BenchError {
        BenchError::Child { child: self.name.clone(), reason }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.input = None;
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what a child says on a thread of its own, so that waiting for it can end early.
fn listen_to(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = sync_channel(WORDS_MAX);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Starts one client process per task and waits until all are ready.
pub(crate) fn start_clients(name: &str, tasks: Vec<Task>) -> Result<Vec<Child>, BenchError> {
    start_clients_watching(name, &tasks, &Interrupt::default())
}

/// The same; waiting for them ends when `interrupt` is turned on.
pub(crate) fn start_clients_watching(
    name: &str,
    tasks: &[Task],
    interrupt: &Interrupt,
) -> Result<Vec<Child>, BenchError> {
    let started = tasks
        .iter()
        .enumerate()
        .map(|(index, task)| Child::start_watching(&format!("{name} {index}"), task, interrupt));
    let mut children = started.collect::<Result<Vec<_>, _>>()?;
    for child in &mut children {
        child.ready()?;
    }
    Ok(children)
}

/// Runs one phase on all clients at once.
pub(crate) fn run_phase(clients: &mut [Child], phase: Phase) -> Result<Vec<Measure>, BenchError> {
    for client in clients.iter_mut() {
        client.order(phase)?;
    }
    clients.iter_mut().map(Child::done).collect()
}

/// The parent, as a child sees it.
pub(crate) struct Parent {
    phases: MailboxReceiver<Phase>,
}

impl Parent {
    /// Says that this child is ready.
    pub(crate) fn ready(&self, addresses: Vec<String>) -> Result<(), BenchError> {
        say(&Say::Ready(addresses))
    }

    /// Tells how a phase went.
    pub(crate) fn done(&self, measure: Measure) -> Result<(), BenchError> {
        say(&Say::Done(measure))
    }

    /// The next phase to run; `None` when it is time to end.
    pub(crate) async fn next(&self) -> Option<Phase> {
        self.phases.receive().await
    }
}

/// Runs as a child until the parent closes standard input; whether all went well.
pub fn run_child() -> bool {
    match try_child() {
        Ok(()) => true,
        Err(error) => {
            // Where nobody listens any longer there is nobody to tell.
            let _ = say(&Say::Failed(error.to_string()));
            false
        }
    }
}

fn try_child() -> Result<(), BenchError> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("read the task")?;
    let task = serde_json::from_str(&line)
        .map_err(|error| BenchError::Unexpected(format!("no task: {error}")))?;
    if let Task::Remove(leftovers) = task {
        return leftovers.remove_after_parent();
    }
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill)
        .map_err(std::io::Error::from)
        .context("ask for an end together with the parent")?;
    let parent = Parent { phases: listen() };
    match task {
        Task::Node(node) => node.run(&parent),
        Task::BareServer(server) => server.run(&parent),
        Task::BareClient(client) => client.run(&parent),
        Task::Echo(client) => client.run(&parent),
        Task::Metadata(client) => client.run(&parent),
        Task::Bulk(client) => client.run(&parent),
        Task::Fill(client) => client.run(&parent),
        Task::Probe(client) => client.run(&parent),
        Task::Mount(mount) => mount.run(&parent),
        Task::BareMount(mount) => mount.run(&parent),
        Task::Copy(client) => client.run(&parent),
        Task::Suite(client) => client.run(&parent),
        Task::Remove(_) => Ok(()),
    }
}

/// Reads what to run on a thread of its own, so that the runtime goes on between them.
fn listen() -> MailboxReceiver<Phase> {
    let (sender, receiver) = mailbox(PHASES_MAX);
    std::thread::spawn(move || {
        let mut line = String::new();
        while matches!(std::io::stdin().read_line(&mut line), Ok(1..)) {
            match serde_json::from_str(&line) {
                Ok(phase) if sender.try_send(phase).is_ok() => {}
                _ => break,
            }
            line.clear();
        }
        sender.close();
    });
    receiver
}

fn say(message: &Say) -> Result<(), BenchError> {
    write_line(&mut std::io::stdout().lock(), message).context("answer the parent")
}

fn write_line(out: &mut impl Write, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}
