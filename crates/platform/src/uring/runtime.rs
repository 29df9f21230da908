//! One runtime per thread: its start, its clocks, its randomness.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Once, OnceLock};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use compio::driver::{DriverType, ProactorBuilder};
use compio::runtime::Runtime;

use super::{IoUringBackend, activity};
use crate::{RuntimeOptions, ShardBody};

/// The real world, as one thread sees it.
#[derive(Clone)]
pub struct Platform {
    shared: Rc<Shared>,
}

/// How many wakes from other threads fit before they have to queue behind a lock.
const SYNC_QUEUE_SIZE: usize = 1024;
/// Idle spins in vain, at most, before a thread that was busy parks at once.
const SPIN_CREDIT_MAX: u32 = 8;

struct Shared {
    options: RuntimeOptions,
    polling: bool,
    disk: IoUringBackend,
}

/// Builds a runtime over io_uring, or over polling where it is asked for or all there is.
fn build(options: &RuntimeOptions) -> io::Result<Runtime> {
    if options.polling {
        return build_with(options, DriverType::Poll, false);
    }
    // The flags need Linux 6.1; without them io_uring still beats polling.
    let refusal = match build_with(options, DriverType::IoUring, true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            build_with(options, DriverType::IoUring, false)
        }
        result => result,
    };
    match refusal {
        Err(error) if is_refusal(&error) => {
            static LOGGED: Once = Once::new();
            LOGGED.call_once(|| {
                tracing::warn!("the kernel refuses io_uring ({error}): falling back to polling");
            });
            build_with(options, DriverType::Poll, false)
        }
        result => result,
    }
}

/// Whether io_uring is missing, forbidden, or not given the memory it wants.
fn is_refusal(error: &io::Error) -> bool {
    let refusals = [libc::ENOSYS, libc::EPERM, libc::EACCES, libc::EINVAL, libc::ENOMEM];
    error.kind() == io::ErrorKind::Unsupported
        || error.raw_os_error().is_some_and(|errno| refusals.contains(&errno))
}

fn build_with(
    options: &RuntimeOptions,
    driver: DriverType,
    one_thread: bool,
) -> io::Result<Runtime> {
    let mut proactor = ProactorBuilder::new();
    proactor.capacity(options.ring_entries).driver_type(driver);
    if one_thread {
        proactor.single_issuer(true).defer_taskrun(true);
    }
    let mut builder = Runtime::builder();
    builder.with_proactor(proactor).sync_queue_size(SYNC_QUEUE_SIZE);
    builder.build()
}

/// Turns this thread into a runtime and drives the future of `body` to its end.
pub(crate) fn run<T, F>(options: RuntimeOptions, body: impl FnOnce(Platform) -> F) -> io::Result<T>
where
    F: Future<Output = T>,
{
    let runtime = build(&options)?;
    let polling = runtime.driver_type().is_polling();
    let shared = Rc::new(Shared { options, polling, disk: IoUringBackend::new() });
    let result = catch_unwind(AssertUnwindSafe(|| {
        runtime.enter(|| drive(&runtime, options.spin, async { body(Platform { shared }).await }))
    }));
    // Tasks are dropped here, after any unwinding has ended.
    drop(runtime);
    result.map_err(|panic| resume_unwind(panic))
}

/// Alternates between tasks and the ring until `future` is done.
fn drive<T>(runtime: &Runtime, spin: Duration, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let waker = runtime.waker();
    let mut context = Context::from_waker(&waker);
    let mut spinner = Spinner::new(spin);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            runtime.run();
            return result;
        }
        if runtime.run() || spinner.keeps_spinning() {
            runtime.poll_with(Some(Duration::ZERO));
        } else {
            runtime.poll();
        }
    }
}

/// Decides whether an idle thread spins, which halves the time of a round trip, or parks.
///
/// Spinning has to earn its keep: each spin that ends without anything arriving costs credit, and
/// without credit the thread parks at once. What arrives within a spin's length after the last
/// arrival earns credit, whether it was caught spinning or parked.
struct Spinner {
    spin: Duration,
    credit: u32,
    seen: u64,
    last_arrival: Instant,
    parked: bool,
}

impl Spinner {
    fn new(spin: Duration) -> Self {
        let last_arrival = Instant::now();
        Spinner { spin, credit: 0, seen: activity::count(), last_arrival, parked: false }
    }

    fn keeps_spinning(&mut self) -> bool {
        if self.spin.is_zero() {
            return false;
        }
        let now = Instant::now();
        let idle = now - self.last_arrival;
        let count = activity::count();
        if count != self.seen {
            self.seen = count;
            self.last_arrival = now;
            self.parked = false;
            if idle <= self.spin {
                self.credit = (self.credit + 1).min(SPIN_CREDIT_MAX);
            }
            return self.credit > 0;
        }
        if self.parked || self.credit == 0 {
            return false;
        }
        if idle < self.spin {
            return true;
        }
        self.credit -= 1;
        self.parked = true;
        false
    }
}

impl Platform {
    pub(crate) fn is_polling(&self) -> bool {
        self.shared.polling
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        compio::runtime::spawn(task).detach();
    }

    pub(crate) fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }

    pub(crate) fn wall(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    pub(crate) async fn sleep(&self, duration: Duration) {
        compio::time::sleep(duration).await;
    }

    pub(crate) fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn random_bytes(&self, out: &mut [u8]) {
        let mut filled = 0;
        while filled < out.len() {
            match rustix::rand::getrandom(&mut out[filled..], rustix::rand::GetRandomFlags::empty())
            {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel has no randomness: {error}"),
            }
        }
    }

    pub(crate) fn boot_id(&self) -> u128 {
        static BOOT_ID: OnceLock<u128> = OnceLock::new();
        *BOOT_ID.get_or_init(|| {
            let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
            let digits = text.unwrap_or_default().trim().replace('-', "");
            u128::from_str_radix(&digits, 16).unwrap_or_else(|_| {
                // Without a boot id every start must count as a boot: the careful direction.
                tracing::warn!("the kernel offers no boot id; treating this start as a new boot");
                u128::from(self.random_u64()) << 64 | u128::from(self.random_u64())
            })
        })
    }

    pub(crate) fn disk(&self) -> IoUringBackend {
        self.shared.disk.clone()
    }

    pub(crate) fn start_shard<F>(&self, name: &str, body: F) -> JoinHandle<()>
    where
        F: FnOnce(Platform) -> ShardBody + Send + 'static,
    {
        let options = self.shared.options;
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = run(options, body) {
                tracing::error!("a shard could not start: {error}");
            }
        });
        thread.expect("the system has no more threads")
    }
}
