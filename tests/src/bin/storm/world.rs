//! What all threads of a storm share: the mounts, which are taken away and come back, the clock, and
//! who waits for what since when.
//!
//! Invariant: a mount is put back only while nobody is in a call on it, so that no call ever meets
//! the bare directory below. It is killed at any time.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Mounts of the cluster.
pub(crate) const MOUNTS: usize = 2;

pub(crate) struct World {
    roots: [PathBuf; MOUNTS],
    gates: [RwLock<()>; MOUNTS],
    journals: PathBuf,
    start: Instant,
    stopped: AtomicBool,
    workers: Vec<Worker>,
    findings: Mutex<Vec<String>>,
}

/// What one thread has done. Times are in milliseconds.
#[derive(Debug, Default)]
struct Worker {
    /// When its call began, since the start of the world, and 1; 0 between calls.
    busy_since: AtomicU64,
    acknowledged: AtomicU64,
    longest: AtomicU64,
}

impl World {
    pub(crate) fn new(roots: [PathBuf; MOUNTS], journals: &Path, workers: usize) -> Self {
        Self {
            roots,
            gates: Default::default(),
            journals: journals.to_owned(),
            start: Instant::now(),
            stopped: AtomicBool::new(false),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            findings: Mutex::default(),
        }
    }

    pub(crate) fn root(&self, mount: usize) -> &Path {
        &self.roots[mount]
    }

    /// Where a writer notes what was acknowledged: a local file.
    pub(crate) fn journal(&self, name: &str) -> PathBuf {
        self.journals.join(format!("{name}.journal"))
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Something is wrong: the run ends.
    pub(crate) fn fail(&self, finding: String) {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
        self.stop();
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls on a mount that is there, `preferred` if it is.
    pub(crate) fn on_a_mount<T>(
        &self,
        worker: usize,
        preferred: usize,
        call: impl FnOnce(&Path) -> T,
    ) -> T {
        let other = (preferred + 1) % MOUNTS;
        let (mount, _gate) = match (self.gates[preferred].try_read(), self.gates[other].try_read())
        {
            (Ok(gate), _) => (preferred, gate),
            (_, Ok(gate)) => (other, gate),
            _ => (preferred, self.gates[preferred].read().unwrap_or_else(PoisonError::into_inner)),
        };
        let busy = &self.workers[worker].busy_since;
        busy.store(self.millis() + 1, Ordering::SeqCst);
        let result = call(&self.roots[mount]);
        busy.store(0, Ordering::SeqCst);
        result
    }

    /// Keeps everybody off a mount.
    pub(crate) fn without_mount<T>(&self, mount: usize, call: impl FnOnce(&Path) -> T) -> T {
        let _gate = self.gates[mount].write().unwrap_or_else(PoisonError::into_inner);
        call(&self.roots[mount])
    }

    /// A change of this worker was acknowledged, so long after it was first asked for.
    pub(crate) fn count(&self, worker: usize, took: Duration) {
        let worker = &self.workers[worker];
        worker.acknowledged.fetch_add(1, Ordering::SeqCst);
        worker.longest.fetch_max(took.as_millis() as u64, Ordering::SeqCst);
    }

    /// Changes acknowledged, and the longest time one took.
    pub(crate) fn totals(&self) -> (u64, Duration) {
        let acknowledged = |worker: &Worker| worker.acknowledged.load(Ordering::SeqCst);
        let longest = |worker: &Worker| worker.longest.load(Ordering::SeqCst);
        let total = self.workers.iter().map(acknowledged).sum();
        let most = self.workers.iter().map(longest).max().unwrap_or(0);
        (total, Duration::from_millis(most))
    }

    /// A worker whose call began longer ago than `limit`.
    pub(crate) fn hanging(&self, limit: Duration) -> Option<usize> {
        let now = self.millis();
        self.workers.iter().position(|worker| {
            let since = worker.busy_since.load(Ordering::SeqCst);
            since != 0 && now.saturating_sub(since) > limit.as_millis() as u64
        })
    }

    fn millis(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}
