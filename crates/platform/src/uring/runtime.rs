//! One runtime per thread: its start, its clocks, its randomness.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use compio::driver::{DriverType, ProactorBuilder};
use compio::runtime::Runtime;

use super::IoUringBackend;
use crate::{RuntimeOptions, ShardBody};

/// The real world, as one thread sees it.
#[derive(Clone)]
pub struct Platform {
    shared: Rc<Shared>,
}

struct Shared {
    options: RuntimeOptions,
    disk: IoUringBackend,
}

fn build(options: &RuntimeOptions) -> io::Result<Runtime> {
    let mut proactor = ProactorBuilder::new();
    proactor.capacity(options.ring_entries);
    if options.polling {
        proactor.driver_type(DriverType::Poll);
    } else {
        proactor.driver_type(DriverType::IoUring).single_issuer(true).defer_taskrun(true);
    }
    Runtime::builder().with_proactor(proactor).build()
}

/// Turns this thread into a runtime and drives the future of `body` to its end.
pub(crate) fn run<T, F>(options: RuntimeOptions, body: impl FnOnce(Platform) -> F) -> io::Result<T>
where
    F: Future<Output = T>,
{
    let runtime = build(&options)?;
    let shared = Rc::new(Shared { options, disk: IoUringBackend::new() });
    Ok(runtime.block_on(async { body(Platform { shared }).await }))
}

impl Platform {
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
