//! What all threads share, what one thread has, and how a run ends.
//!
//! Invariant: every system call on the mounts goes through `Worker::call`, so that it has a window
//! in the oracle's time, is counted, and is known to the watchdog while it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringfs_tests::Mapper;
use ringfs_tests::random::Random;

use crate::attributes::Attributes;
use crate::blocks::Blocks;
use crate::exclusion::Exclusion;
use crate::logs::Logs;
use crate::names::{Held, Names};
use crate::oracle::{By, Clock, Legal, Window};
use crate::texts::Texts;

/// One of the two mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mount(usize);

impl Mount {
    /// The mount in which a thread is at home.
    pub(crate) fn of_thread(thread: usize) -> Self {
        Self(thread % 2)
    }

    /// The other one.
    pub(crate) fn other(self) -> Self {
        Self(1 - self.0)
    }

    /// 0 or 1.
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// A or B.
    pub(crate) fn letter(self) -> char {
        if self.0 == 0 { 'A' } else { 'B' }
    }
}

/// Why a run fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something was seen that was not current at any moment of the observation.
    Stale { object: String, mount: Mount, expected: String, seen: String },
    /// A call that had to succeed did not.
    Refused { call: &'static str, object: String, mount: Mount, error: io::Error },
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stale { object, mount, expected, seen } => {
                writeln!(out, "STALE: {object} through mount {}", mount.letter())?;
                writeln!(out, "  expected: {expected}")?;
                write!(out, "  seen:     {seen}")
            }
            Self::Refused { call, object, mount, error } => {
                write!(out, "REFUSED: {call} of {object} through mount {}: {error}", mount.letter())
            }
        }
    }
}

/// The outcome of one step of a workload.
pub(crate) type Step = Result<(), Failure>;

/// What the file system under test can do beyond the minimum.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abilities {
    /// Both mounts show the same inode numbers.
    pub(crate) same_inodes: bool,
    pub(crate) rename_flags: bool,
    pub(crate) xattrs: bool,
    pub(crate) punch: bool,
    pub(crate) flock: bool,
    pub(crate) mapping: bool,
    pub(crate) direct: bool,
}

/// What a thread is doing, for the watchdog.
#[derive(Clone, Debug)]
pub(crate) struct Doing {
    pub(crate) call: &'static str,
    pub(crate) mount: Mount,
    pub(crate) object: PathBuf,
    pub(crate) since: Instant,
}

/// Where a thread reports what it does.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    pub(crate) doing: Mutex<Option<Doing>>,
    pub(crate) calls: AtomicU64,
}

/// What all threads share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) roots: [PathBuf; 2],
    pub(crate) abilities: Abilities,
    pub(crate) stop: AtomicBool,
    pub(crate) desks: Vec<Desk>,
    pub(crate) names: Names,
    pub(crate) blocks: Blocks,
    pub(crate) texts: Texts,
    pub(crate) attributes: Attributes,
    pub(crate) exclusion: Exclusion,
    pub(crate) logs: Logs,
    next_id: AtomicU64,
}

impl World {
    /// Makes all objects through both mounts.
    pub(crate) fn new(
        roots: [PathBuf; 2],
        abilities: Abilities,
        threads: usize,
        clock: Clock,
    ) -> io::Result<Self> {
        Ok(Self {
            names: Names::new(&roots)?,
            blocks: Blocks::new(&roots)?,
            texts: Texts::new(&roots)?,
            attributes: Attributes::new(&roots)?,
            exclusion: Exclusion::new(&roots)?,
            logs: Logs::new(&roots)?,
            clock,
            roots,
            abilities,
            stop: AtomicBool::new(false),
            desks: (0..threads).map(|_| Desk::default()).collect(),
            next_id: AtomicU64::new(1),
        })
    }

    /// A path as one mount names it.
    pub(crate) fn path(&self, mount: Mount, name: &Path) -> PathBuf {
        self.roots[mount.index()].join(name)
    }

    /// A number that nothing else has.
    pub(crate) fn fresh_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether threads should end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What one thread has.
#[derive(Debug)]
pub(crate) struct Worker<'a> {
    pub(crate) world: &'a World,
    pub(crate) thread: usize,
    pub(crate) home: Mount,
    pub(crate) random: Random,
    /// Files kept open while their names come and go.
    pub(crate) held: Vec<Held>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Observations that could not be judged: the history did not reach back.
    pub(crate) unjudged: u64,
    mappers: [Option<Mapper>; 2],
}

/// Stale handles in a row that one call may meet, and the pause after each.
const STALE_MAX: usize = 5_000;
const STALE_PAUSE: Duration = Duration::from_millis(1);

/// An error that may be a stale handle.
pub(crate) trait MayBeStale {
    fn is_stale(&self) -> bool;
}

impl MayBeStale for io::Error {
    fn is_stale(&self) -> bool {
        self.kind() == io::ErrorKind::StaleNetworkFileHandle
    }
}

impl MayBeStale for rustix::io::Errno {
    fn is_stale(&self) -> bool {
        *self == rustix::io::Errno::STALE
    }
}

/// Repeats a call that ends with a stale handle. Linux gives a path walk up in that way, after one
/// try more, when it meets a directory that another mount has moved to another parent while names
/// are being changed on its own: it cannot take the locks it needs to follow.
pub(crate) fn patiently<R, E: MayBeStale>(
    mut body: impl FnMut() -> Result<R, E>,
) -> impl FnOnce() -> Result<R, E> {
    move || {
        for _ in 0..STALE_MAX {
            match body() {
                Err(error) if error.is_stale() => std::thread::sleep(STALE_PAUSE),
                result => return result,
            }
        }
        body()
    }
}

impl<'a> Worker<'a> {
    /// A thread's beginning.
    pub(crate) fn new(world: &'a World, thread: usize, seed: u64) -> Self {
        Self {
            world,
            thread,
            home: Mount::of_thread(thread),
            random: Random::new(seed, thread),
            held: Vec::new(),
            counts: BTreeMap::new(),
            unjudged: 0,
            mappers: [None, None],
        }
    }

    /// Runs one system call (or a few that count as one) and says when it ran.
    pub(crate) fn call<R>(
        &mut self,
        call: &'static str,
        mount: Mount,
        object: &Path,
        body: impl FnOnce() -> R,
    ) -> (Window, R) {
        let desk = &self.world.desks[self.thread];
        let doing = Doing { call, mount, object: object.to_owned(), since: Instant::now() };
        *desk.doing.lock().unwrap_or_else(PoisonError::into_inner) = Some(doing);
        let begin = self.world.clock.tick();
        let result = body();
        let end = self.world.clock.tick();
        *desk.doing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        desk.calls.fetch_add(1, Ordering::Relaxed);
        *self.counts.entry(call).or_default() += 1;
        (Window { begin, end }, result)
    }

    /// The same for a call that has to succeed.
    pub(crate) fn must<R>(
        &mut self,
        call: &'static str,
        mount: Mount,
        object: &Path,
        body: impl FnMut() -> io::Result<R>,
    ) -> Result<(Window, R), Failure> {
        let (window, result) = self.call(call, mount, object, patiently(body));
        match result {
            Ok(value) => Ok((window, value)),
            Err(error) => {
                let object = object.display().to_string();
                Err(Failure::Refused { call, object, mount, error })
            }
        }
    }

    /// This thread as the maker of a change.
    pub(crate) fn by(&self, mount: Mount, call: &'static str) -> By {
        By { thread: self.thread, mount: mount.letter(), call }
    }

    /// Mostly the mount in which the thread is at home.
    pub(crate) fn pick_mount(&mut self) -> Mount {
        if self.random.one_in(8) { self.home.other() } else { self.home }
    }

    /// Like `must`, for a call that goes through the process that maps this thread's files.
    pub(crate) fn mapped<R>(
        &mut self,
        call: &'static str,
        mount: Mount,
        object: &Path,
        mut body: impl FnMut(&mut Mapper) -> io::Result<R>,
    ) -> Result<(Window, R), Failure> {
        let mut mapper = match self.mappers[mount.index()].take() {
            Some(mapper) => Ok(mapper),
            None => Mapper::start(),
        };
        let done = self.must(call, mount, object, || match &mut mapper {
            Ok(mapper) => body(mapper),
            Err(error) => Err(io::Error::new(error.kind(), "no process for mappings")),
        });
        self.mappers[mount.index()] = mapper.ok();
        done
    }

    /// Fails unless what was seen is legal.
    pub(crate) fn judge<T: Clone + fmt::Debug>(
        &mut self,
        legal: &Legal<T>,
        mount: Mount,
        object: impl FnOnce() -> String,
        seen: &dyn fmt::Debug,
        matches: impl Fn(&T) -> bool,
    ) -> Step {
        if !legal.complete {
            self.unjudged += 1;
        }
        if legal.allows(matches) {
            return Ok(());
        }
        let (object, expected) = (object(), legal.describe());
        Err(Failure::Stale { object, mount, expected, seen: format!("{seen:?}") })
    }
}
