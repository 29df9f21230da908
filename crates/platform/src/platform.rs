//! The handle to the world that every task carries, and the start of runtimes.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::future::{Either, select};

use crate::net::{LinkKind, ListenerKind};
#[cfg(feature = "sim")]
use crate::sim;
use crate::{Address, Disk, Framing, Link, Listener, on, uring};

/// The first task of a shard.
pub type ShardBody = Pin<Box<dyn Future<Output = ()>>>;

/// How long an idle thread spins; about one round trip over a local network.
const SPIN: Duration = Duration::from_micros(50);
/// Threads spin by default only on machines with more processors.
const SPINNING_PROCESSORS_MIN: usize = 4;

/// How a thread becomes a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// Uses polling even where io_uring is available.
    pub polling: bool,
    /// How long an idle thread spins before it parks; zero parks at once. Used only while work
    /// has recently arrived that fast, so an idle process sleeps. The default is zero on machines
    /// of up to four processors, where spinning would take time from those it waits for.
    pub spin: Duration,
    /// Entries of the submission queue.
    pub ring_entries: u32,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = if processors > SPINNING_PROCESSORS_MIN { SPIN } else { Duration::ZERO };
        RuntimeOptions { polling: false, spin, ring_entries: 512 }
    }
}

/// Turns this thread into a runtime and drives `body` to its end.
///
/// Uses io_uring unless the kernel refuses it or `options.polling` is set. When `body` returns,
/// everything it spawned dies.
pub fn run<T, F>(options: RuntimeOptions, body: impl FnOnce(Platform) -> F) -> io::Result<T>
where
    F: Future<Output = T>,
{
    uring::run(options, |platform| body(Platform::Uring(platform)))
}

/// The door to the world. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub enum Platform {
    /// The real world.
    Uring(uring::Platform),
    /// A node of a [`sim::Simulation`].
    #[cfg(feature = "sim")]
    Simulated(sim::Platform),
}

impl Platform {
    /// Starts a task. It is not waited for and dies with its runtime or simulated node.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        on!(Platform, self, platform => platform.spawn(task));
    }

    /// Time since an arbitrary start; never goes backwards.
    pub fn monotonic(&self) -> Duration {
        on!(Platform, self, platform => platform.monotonic())
    }

    /// Time since the Unix epoch; may jump, and in simulation is skewed per node.
    pub fn wall(&self) -> Duration {
        on!(Platform, self, platform => platform.wall())
    }

    /// Waits for `duration` to pass.
    pub async fn sleep(&self, duration: Duration) {
        on!(Platform, self, platform => platform.sleep(duration).await);
    }

    /// Drives `future` for at most `duration`; `None` when that passed, with `future` dropped.
    pub async fn timeout<T>(
        &self,
        duration: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        match select(pin!(future), pin!(self.sleep(duration))).await {
            Either::Left((value, _)) => Some(value),
            Either::Right(_) => None,
        }
    }

    /// A random number: from the operating system, or seeded.
    pub fn random_u64(&self) -> u64 {
        on!(Platform, self, platform => platform.random_u64())
    }

    /// Fills `out` with random bytes.
    pub fn random_bytes(&self, out: &mut [u8]) {
        on!(Platform, self, platform => platform.random_bytes(out));
    }

    /// Changes only when unsynced page cache may have been lost: a boot, or a simulated power cut.
    pub fn boot_id(&self) -> u128 {
        on!(Platform, self, platform => platform.boot_id())
    }

    /// Resident memory of this process in bytes; 0 in simulation or where the system does not tell.
    pub fn resident_memory(&self) -> u64 {
        match self {
            Self::Uring(_) => {
                let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
                let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
                pages.unwrap_or(0) * rustix::param::page_size() as u64
            }
            #[cfg(feature = "sim")]
            Self::Simulated(_) => 0,
        }
    }

    /// Whether a thread of this machine, which may be of another process, has a group among its
    /// supplementary ones. In simulation none has any.
    pub fn is_in_group(&self, thread: u32, group: u32) -> bool {
        match self {
            Self::Uring(_) => {
                let status = std::fs::read_to_string(format!("/proc/{thread}/status"));
                let status = status.unwrap_or_default();
                let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
                let mut groups = groups.unwrap_or_default().split_whitespace();
                groups.any(|found| found.parse() == Ok(group))
            }
            #[cfg(feature = "sim")]
            Self::Simulated(_) => false,
        }
    }

    /// What drives this platform, for log lines and status: "io_uring", "polling" or "simulated".
    pub fn driver_name(&self) -> &'static str {
        match self {
            Platform::Uring(platform) if platform.is_polling() => "polling",
            Platform::Uring(_) => "io_uring",
            #[cfg(feature = "sim")]
            Platform::Simulated(_) => "simulated",
        }
    }

    /// The disk.
    pub fn disk(&self) -> Disk {
        match self {
            Platform::Uring(platform) => Disk::Uring(platform.disk()),
            #[cfg(feature = "sim")]
            Platform::Simulated(platform) => Disk::Simulated(platform.disk()),
        }
    }

    /// Listens on `address` for connections that carry frames of `framing`.
    pub async fn listen(&self, address: &Address, framing: Framing) -> io::Result<Listener> {
        Ok(Listener(match self {
            Platform::Uring(platform) => {
                ListenerKind::Uring(platform.listen(address, framing).await?)
            }
            #[cfg(feature = "sim")]
            Platform::Simulated(platform) => {
                ListenerKind::Simulated(platform.listen(address, framing).await?)
            }
        }))
    }

    /// Connects to a listener.
    pub async fn connect(&self, address: &Address, framing: Framing) -> io::Result<Link> {
        Ok(Link(match self {
            Platform::Uring(platform) => LinkKind::Uring(platform.connect(address, framing).await?),
            #[cfg(feature = "sim")]
            Platform::Simulated(platform) => {
                LinkKind::Simulated(platform.connect(address, framing).await?)
            }
        }))
    }

    /// Starts a shard that drives the future of `body` to its end: on a thread and runtime of its
    /// own, or in simulation as a task of the same node.
    pub fn start_shard<F>(&self, name: &str, body: F) -> Shard
    where
        F: FnOnce(Platform) -> ShardBody + Send + 'static,
    {
        match self {
            Platform::Uring(platform) => {
                Shard { thread: Some(platform.start_shard(name, |platform| body(platform.into()))) }
            }
            #[cfg(feature = "sim")]
            Platform::Simulated(platform) => {
                platform.spawn(body(self.clone()));
                Shard { thread: None }
            }
        }
    }
}

impl From<uring::Platform> for Platform {
    fn from(platform: uring::Platform) -> Self {
        Platform::Uring(platform)
    }
}

/// A running shard. Dropping it lets the shard run on.
#[derive(Debug)]
pub struct Shard {
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Shard {
    /// Waits for the shard's thread to end. In simulation it returns at once.
    ///
    /// Blocks the calling thread, so a runtime must not call it on a shard that needs its help.
    pub fn join(self) {
        if let Some(thread) = self.thread
            && thread.join().is_err()
        {
            tracing::error!("a shard ended by a panic");
        }
    }
}
