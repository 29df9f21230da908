//! Somebody else on another mount, who does small things one after the other and notes how long each
//! of them takes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::crowd;

/// Where it keeps its own files.
pub(crate) const DIRECTORY: &str = "beside";

/// Between two rounds, so that most of the machine is the crowd's.
const PAUSE: Duration = Duration::from_millis(10);

/// How long calls of one kind took.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    count: u64,
    total: Duration,
    longest: Duration,
}

/// All calls.
#[derive(Debug, Default)]
pub(crate) struct Calls(BTreeMap<&'static str, Times>);

/// The bystander.
#[derive(Debug)]
pub(crate) struct Bystander {
    beside: PathBuf,
    crowded: PathBuf,
    stopped: AtomicBool,
}

impl Bystander {
    /// Somebody who sees the crowd's place here.
    pub(crate) fn new(place: &Path) -> Self {
        Self {
            beside: place.join(DIRECTORY),
            crowded: place.join(crowd::DIRECTORY),
            stopped: AtomicBool::new(false),
        }
    }

    /// Ends `act` soon.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Does small things until stopped.
    pub(crate) fn act(&self) -> io::Result<Calls> {
        let mut calls = Calls::default();
        while !self.stopped.load(Ordering::Relaxed) {
            let (own, inside) = (self.beside.join("own"), self.crowded.join("guest"));
            calls.time("create beside", || File::create_new(&own).map(drop))?;
            calls.time("write beside", || fs::write(&own, "a few words"))?;
            calls.time("read beside", || fs::read(&own).map(drop))?;
            calls.time("list beside", || {
                fs::read_dir(&self.beside).map(|found| assert!(found.count() <= 1))
            })?;
            calls.time("remove beside", || fs::remove_file(&own))?;
            calls.time("stat of the directory", || fs::metadata(&self.crowded).map(drop))?;
            calls.time("create inside", || File::create_new(&inside).map(drop))?;
            calls.time("stat inside", || fs::metadata(&inside).map(drop))?;
            calls.time("remove inside", || fs::remove_file(&inside))?;
            thread::sleep(PAUSE);
        }
        Ok(calls)
    }
}

impl Calls {
    fn time<R>(
        &mut self,
        name: &'static str,
        call: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        let start = Instant::now();
        let result = call();
        let times = self.0.entry(name).or_default();
        let took = start.elapsed();
        times.count += 1;
        times.total += took;
        times.longest = times.longest.max(took);
        result.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))
    }

    /// The longest of all.
    pub(crate) fn longest(&self) -> Duration {
        self.0.values().map(|times| times.longest).max().unwrap_or_default()
    }

    /// How many there were, and the longest of each kind.
    pub(crate) fn tell(&self) -> String {
        let count: u64 = self.0.values().map(|times| times.count).sum();
        let total: Duration = self.0.values().map(|times| times.total).sum();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let kinds =
            self.0.iter().map(|(name, times)| format!("{name} {:.1}", milliseconds(times.longest)));
        format!(
            "the bystander's {count} calls took {:.2} ms on average, at most (ms): {}",
            milliseconds(total) / count.max(1) as f64,
            kinds.collect::<Vec<_>>().join(", ")
        )
    }
}
