//! The watchdog over all threads, and the sums at the end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::world::World;

/// A call that takes longer hangs: an operation's deadline is 30 s.
const CALL_SECONDS_MAX: u64 = 40;
/// Calls that are reported as slow, without being wrong.
const SLOW_SECONDS: u64 = 5;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A run goes on for this long after its time, for the last calls to return.
const GRACE_SECONDS: u64 = 60;
const EXIT_HANG: i32 = 3;

/// Ends the process if a call does not return or nothing happens any more. Returns when the run
/// is over.
pub(crate) fn guard(world: &World, seconds: u64) {
    let start = Instant::now();
    let (mut last_calls, mut last_change) = (0, start);
    let mut reported: BTreeMap<usize, Instant> = BTreeMap::new();
    while !world.stopped() || busy(world) {
        thread::park_timeout(LOOK_EVERY);
        let calls = world.desks.iter().map(|desk| desk.calls.load(Ordering::Relaxed)).sum::<u64>();
        if calls != last_calls {
            (last_calls, last_change) = (calls, Instant::now());
        }
        for (thread, desk) in world.desks.iter().enumerate() {
            let doing = desk.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(doing) = doing else { continue };
            let seconds = doing.since.elapsed().as_secs();
            if seconds >= CALL_SECONDS_MAX {
                hang(world, &format!("{} of thread {thread} does not return", doing.call));
            }
            if seconds >= SLOW_SECONDS && reported.insert(thread, doing.since) != Some(doing.since)
            {
                println!("slow: {} of {} by thread {thread}", doing.call, doing.object.display());
            }
        }
        if last_change.elapsed().as_secs() >= CALL_SECONDS_MAX {
            hang(world, "no progress");
        }
        if start.elapsed().as_secs() > seconds + GRACE_SECONDS {
            hang(world, "the run does not end");
        }
    }
}

fn busy(world: &World) -> bool {
    let doing = |desk: &crate::world::Desk| {
        desk.doing.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    };
    world.desks.iter().any(doing)
}

/// Says what every thread does and where the kernel has it, and leaves: joining is no option.
fn hang(world: &World, why: &str) -> ! {
    println!("HANG: {why}");
    for (thread, desk) in world.desks.iter().enumerate() {
        let doing = desk.doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match doing {
            Some(doing) => println!(
                "  thread {thread}: {} of {} through {} for {} ms",
                doing.call,
                doing.object.display(),
                doing.mount.letter(),
                doing.since.elapsed().as_millis()
            ),
            None => println!("  thread {thread}: between calls"),
        }
    }
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let stack = std::fs::read_to_string(task.path().join("stack")).unwrap_or_default();
        let name = task.file_name();
        println!("  kernel stack of {}:", Path::new(&name).display());
        for line in stack.lines() {
            println!("    {line}");
        }
    }
    std::process::exit(EXIT_HANG);
}

/// What a run did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: BTreeMap<&'static str, u64>,
    unjudged: u64,
    pub(crate) failed: bool,
    pub(crate) elapsed: Duration,
}

impl Tally {
    /// Adds one thread.
    pub(crate) fn add(&mut self, counts: BTreeMap<&'static str, u64>, unjudged: u64, failed: bool) {
        for (call, count) in counts {
            *self.counts.entry(call).or_default() += count;
        }
        self.unjudged += unjudged;
        self.failed |= failed;
    }

    /// Prints the sums.
    pub(crate) fn print(&self) {
        let millis = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        for (call, count) in &self.counts {
            println!("{call:>16} {count:>9} {:>8}/s", count * 1000 / millis);
        }
        let total: u64 = self.counts.values().sum();
        let per_second = total * 1000 / millis;
        println!("{total} calls in {:.1} s, {per_second}/s", self.elapsed.as_secs_f64());
        println!("{} observations too old to judge", self.unjudged);
        println!("{}", if self.failed { "FAILED" } else { "0 stale" });
    }
}
