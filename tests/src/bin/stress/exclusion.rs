//! Mutual exclusion between the mounts: a name that only one can create, a lock that only one can
//! hold, and a counter that its holder alone reads and writes.
//!
//! Invariant: nobody else is inside while a thread is, the counter is what the last holder left,
//! and nobody is refused while nobody else tries or holds.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};

use crate::oracle::Window;
use crate::world::{Failure, Mount, Step, Worker};

/// Attempts remembered after they ended: enough to outlive an observation.
const ENDED_ATTEMPTS_MAX: usize = 4096;

/// What excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Create,
    Directory,
    Link,
    Symlink,
    Flock,
}

const METHODS: [Method; 5] =
    [Method::Create, Method::Directory, Method::Link, Method::Symlink, Method::Flock];

/// An attempt that succeeded or may yet.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    begin: u64,
    /// When its hold ended; the far future before.
    end: u64,
}

#[derive(Debug)]
struct Lock {
    method: Method,
    path: PathBuf,
    counter_path: PathBuf,
    counter: AtomicU64,
    inside: AtomicBool,
    attempts: Mutex<Vec<Attempt>>,
    /// The counter's file, open through either mount from beginning to end.
    open: [File; 2],
}

/// All locks.
#[derive(Debug)]
pub(crate) struct Exclusion {
    locks: Vec<Lock>,
}

/// What holds a lock of the file system while it lives.
type Guard = Option<File>;

impl Exclusion {
    /// Makes the counters.
    pub(crate) fn new(roots: &[PathBuf; 2]) -> io::Result<Self> {
        let mut locks = Vec::new();
        for (index, method) in METHODS.into_iter().enumerate() {
            let counter_path = PathBuf::from(format!("counter-{index}"));
            let maker = roots[index % 2].join(&counter_path);
            fs::write(maker, 0_u64.to_le_bytes())?;
            let open = |root: &PathBuf| {
                OpenOptions::new().read(true).write(true).open(root.join(&counter_path))
            };
            locks.push(Lock {
                method,
                path: PathBuf::from(format!("lock-{index}")),
                open: [open(&roots[0])?, open(&roots[1])?],
                counter_path,
                counter: AtomicU64::new(0),
                inside: AtomicBool::new(false),
                attempts: Mutex::new(Vec::new()),
            });
        }
        Ok(Self { locks })
    }

    /// Tries to enter, and if it may, counts and leaves.
    pub(crate) fn attempt(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let lock = worker.random.pick(&self.locks);
        if lock.method == Method::Flock && !worker.world.abilities.flock {
            return Ok(());
        }
        lock.attempt(worker, mount)
    }
}

impl Lock {
    fn attempt(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let begin = worker.world.clock.tick();
        self.attempts().push(Attempt { begin, end: u64::MAX });
        let wait = self.method == Method::Flock && worker.random.one_in(3);
        let call = self.call(wait);
        let path = worker.world.path(mount, &self.path);
        let source = worker.world.path(mount, &self.counter_path);
        let (window, result) = worker.call(call, mount, &self.path, || match self.method {
            Method::Create => File::create_new(&path).map(|_| None),
            Method::Directory => fs::create_dir(&path).map(|()| None),
            Method::Link => fs::hard_link(&source, &path).map(|()| None),
            Method::Symlink => std::os::unix::fs::symlink(&source, &path).map(|()| None),
            Method::Flock => {
                let file = File::open(&source)?;
                let how = FlockOperation::NonBlockingLockExclusive;
                flock(&file, if wait { FlockOperation::LockExclusive } else { how })?;
                Ok(Some(file))
            }
        });
        match result {
            Ok(guard) => self.inside(worker, mount, begin, guard),
            Err(error) if refuses(self.method, &error) => self.judge_refusal(mount, begin, window),
            Err(error) => {
                let object = self.path.display().to_string();
                Err(Failure::Refused { call, object, mount, error })
            }
        }
    }

    fn call(&self, wait: bool) -> &'static str {
        match self.method {
            Method::Create => "lock-create",
            Method::Directory => "lock-mkdir",
            Method::Link => "lock-link",
            Method::Symlink => "lock-symlink",
            Method::Flock if wait => "flock-wait",
            Method::Flock => "flock",
        }
    }

    fn inside(&self, worker: &mut Worker<'_>, mount: Mount, begin: u64, guard: Guard) -> Step {
        let stale = |expected: String, seen: String| {
            let object = format!("{} ({:?})", self.path.display(), self.method);
            Failure::Stale { object, mount, expected, seen }
        };
        if self.inside.swap(true, Ordering::SeqCst) {
            return Err(stale("nobody else inside".to_owned(), "two holders".to_owned()));
        }
        let expected = self.counter.load(Ordering::SeqCst);
        let open = &self.open[mount.index()];
        let fresh = worker.random.one_in(2);
        let path = worker.world.path(mount, &self.counter_path);
        let (_, seen) = worker.must("counter-read", mount, &self.counter_path, || {
            let mut bytes = [0; 8];
            if fresh {
                File::open(&path)?.read_exact_at(&mut bytes, 0)?;
            } else {
                open.read_exact_at(&mut bytes, 0)?;
            }
            Ok(u64::from_le_bytes(bytes))
        })?;
        if seen != expected {
            return Err(stale(format!("counter at {expected}"), format!("counter at {seen}")));
        }
        worker.must("counter-write", mount, &self.counter_path, || {
            open.write_all_at(&(expected + 1).to_le_bytes(), 0)
        })?;
        self.counter.store(expected + 1, Ordering::SeqCst);
        self.inside.store(false, Ordering::SeqCst);
        self.leave(worker, mount, begin, guard)
    }

    fn leave(&self, worker: &mut Worker<'_>, mount: Mount, begin: u64, guard: Guard) -> Step {
        let path = worker.world.path(mount, &self.path);
        let (window, ()) = worker.must("unlock", mount, &self.path, || match self.method {
            Method::Directory => fs::remove_dir(&path),
            // Closing alone would unlock too, but some time after close returns.
            Method::Flock => match &guard {
                Some(file) => flock(file, FlockOperation::Unlock).map_err(io::Error::from),
                None => Ok(()),
            },
            _ => fs::remove_file(&path),
        })?;
        let mut attempts = self.attempts();
        if let Some(mine) = attempts.iter_mut().find(|attempt| attempt.begin == begin) {
            mine.end = window.end;
        }
        if attempts.len() > ENDED_ATTEMPTS_MAX {
            let oldest = attempts.iter().filter(|one| one.end != u64::MAX).map(|one| one.end).min();
            attempts.retain(|attempt| Some(attempt.end) != oldest);
        }
        Ok(())
    }

    /// A refusal is legal only if somebody else tried or held meanwhile.
    fn judge_refusal(&self, mount: Mount, begin: u64, window: Window) -> Step {
        let mut attempts = self.attempts();
        attempts.retain(|attempt| attempt.begin != begin);
        let other = attempts.iter().any(|one| one.begin <= window.end && one.end >= window.begin);
        if other {
            return Ok(());
        }
        let last = attempts.iter().map(|attempt| attempt.end).max().unwrap_or(0);
        Err(Failure::Stale {
            object: format!("{} ({:?})", self.path.display(), self.method),
            mount,
            expected: format!(
                "free since {last} (this attempt: {} to {})",
                window.begin, window.end
            ),
            seen: "refused".to_owned(),
        })
    }

    fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuses(method: Method, error: &io::Error) -> bool {
    let kind =
        if method == Method::Flock { ErrorKind::WouldBlock } else { ErrorKind::AlreadyExists };
    error.kind() == kind
}
