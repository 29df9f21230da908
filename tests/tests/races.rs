//! Races of two mounts of one cluster: whatever the order in which calls meet, what comes of them is
//! what comes of some order. Each test goes on for two seconds, or for RINGFS_RACE_SECONDS.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringfs_tests::random::Random;
use ringfs_tests::{Sandbox, can_mount, interpreter};
use rustix::fs::{CWD, RenameFlags, renameat_with};

const DEFAULT_SECONDS: u64 = 2;
/// So many rounds there are at least, or changes in a storm.
const ROUNDS_MIN: usize = 10;
/// Threads, half of them on either mount.
const THREADS: usize = 8;

/// A cluster of four targets with two mounts.
struct Mounts {
    doors: [PathBuf; 2],
    _sandbox: Sandbox,
}

impl Mounts {
    fn new() -> Option<Self> {
        if !can_mount() {
            return None;
        }
        let sandbox = Sandbox::new();
        let base = sandbox.path("").canonicalize().expect("the sandbox is there");
        let doors = ["a", "b"].map(|name| base.join(name));
        let text = |path: &Path| path.to_str().expect("paths of tests are text").to_owned();
        sandbox.ok(["up", "--nodes", "2", "--targets", "2", "--mount", &text(&doors[0])]);
        fs::create_dir(&doors[1]).expect("it is new");
        sandbox.ok(["mount", &text(&doors[1])]);
        Some(Self { doors, _sandbox: sandbox })
    }

    /// A path as a thread names it.
    fn path(&self, thread: usize, name: &str) -> PathBuf {
        self.doors[thread % 2].join(name)
    }
}

fn deadline() -> Instant {
    let seconds = std::env::var("RINGFS_RACE_SECONDS").ok().and_then(|text| text.parse().ok());
    Instant::now() + Duration::from_secs(seconds.unwrap_or(DEFAULT_SECONDS))
}

/// Lets all threads do something at the same moment, round after round, and one of them judge.
fn rounds(
    threads: usize,
    act: impl Fn(usize, usize) + Sync,
    judge: impl Fn(usize) + Sync,
) -> usize {
    let (barrier, end) = (Barrier::new(threads), deadline());
    let (is_over, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..threads {
            let (barrier, is_over, count, act, judge) = (&barrier, &is_over, &count, &act, &judge);
            scope.spawn(move || {
                loop {
                    barrier.wait();
                    if is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let round = count.load(Ordering::SeqCst);
                    act(thread, round);
                    if barrier.wait().is_leader() {
                        judge(round);
                        count.fetch_add(1, Ordering::SeqCst);
                        let is_enough = round >= ROUNDS_MIN && Instant::now() >= end;
                        is_over.store(is_enough, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    count.into_inner()
}

fn count_of(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::SeqCst)
}

/// Runs threads until time is up and enough has happened.
fn storm(act: impl Fn(usize, &mut Random) + Sync, is_enough: impl Fn() -> bool + Sync) {
    let end = deadline();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (act, is_enough) = (&act, &is_enough);
            scope.spawn(move || {
                let mut random = Random::new(1, thread);
                while Instant::now() < end || !is_enough() {
                    act(thread, &mut random);
                }
            });
        }
    });
}

#[test]
fn one_of_all_exclusive_creators_wins() {
    let Some(mounts) = Mounts::new() else { return };
    let winners = AtomicUsize::new(0);
    let kinds = ["file", "directory", "symlink"];
    let act = |thread: usize, round: usize| {
        let path = mounts.path(thread, &format!("{}-{round}", kinds[round % kinds.len()]));
        let made = match round % kinds.len() {
            0 => File::create_new(&path).map(drop),
            1 => fs::create_dir(&path),
            _ => std::os::unix::fs::symlink("nowhere", &path),
        };
        match made {
            Ok(()) => drop(winners.fetch_add(1, Ordering::SeqCst)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
        }
    };
    let judge = |round| assert_eq!(winners.swap(0, Ordering::SeqCst), 1, "round {round}");
    let count = rounds(THREADS, act, judge);
    let listed = fs::read_dir(&mounts.doors[1]).unwrap().count();
    assert_eq!(listed, count);
}

/// The directories and names that storms are about.
const DIRECTORIES: [&str; 2] = ["left", "right"];
const NAMES: usize = 4;

fn any_name(random: &mut Random) -> String {
    format!("{}/{}", random.pick(&DIRECTORIES), random.below(NAMES))
}

/// All names there are, with inode and link count, as one mount shows them.
fn all_names(door: &Path) -> BTreeMap<String, (u64, u64)> {
    let mut found = BTreeMap::new();
    for directory in DIRECTORIES {
        for entry in fs::read_dir(door.join(directory)).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{directory}/{}", entry.file_name().display());
            let attributes = fs::symlink_metadata(entry.path()).unwrap();
            assert_eq!(found.insert(name, (attributes.ino(), attributes.nlink())), None);
        }
    }
    found
}

#[test]
fn link_counts_are_right_after_a_storm_on_the_same_names() {
    let Some(mounts) = Mounts::new() else { return };
    for directory in DIRECTORIES {
        fs::create_dir(mounts.path(0, directory)).unwrap();
    }
    let done = AtomicUsize::new(0);
    storm(
        |thread, random| {
            let (from, to) =
                (mounts.path(thread, &any_name(random)), mounts.path(thread, &any_name(random)));
            let result = match random.below(5) {
                0 => File::create_new(&to).map(drop),
                1 => fs::remove_file(&from),
                2 => fs::hard_link(&from, &to),
                3 => fs::rename(&from, &to),
                _ => renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE).map_err(Into::into),
            };
            match result {
                Ok(()) => drop(done.fetch_add(1, Ordering::SeqCst)),
                Err(error) => {
                    let expected = [ErrorKind::NotFound, ErrorKind::AlreadyExists];
                    assert!(
                        expected.contains(&error.kind()),
                        "{} {}: {error}",
                        from.display(),
                        to.display()
                    );
                }
            }
        },
        || count_of(&done) >= 5 * ROUNDS_MIN,
    );
    let found = all_names(&mounts.doors[0]);
    assert_eq!(found, all_names(&mounts.doors[1]), "both mounts show the same");
    for (name, (inode, links)) in &found {
        let names = found.values().filter(|(other, _)| other == inode).count() as u64;
        assert_eq!(*links, names, "links of {name}");
    }
}

#[test]
fn no_name_is_lost_by_renames_that_replace_nothing() {
    let Some(mounts) = Mounts::new() else { return };
    let mut inodes = BTreeSet::new();
    for directory in DIRECTORIES {
        fs::create_dir(mounts.path(0, directory)).unwrap();
        for name in 0..NAMES / 2 {
            let path = mounts.path(0, &format!("{directory}/{name}"));
            fs::write(&path, "kept").unwrap();
            inodes.insert(fs::metadata(&path).unwrap().ino());
        }
    }
    storm(
        |thread, random| {
            let (from, to) = (any_name(random), any_name(random));
            let (from, to) = (mounts.path(thread, &from), mounts.path(thread, &to));
            let how = [RenameFlags::NOREPLACE, RenameFlags::EXCHANGE];
            // Whatever it says, nothing may be lost.
            let _ = renameat_with(CWD, &from, CWD, &to, *random.pick(&how));
        },
        || true,
    );
    for door in &mounts.doors {
        let found: Vec<_> = all_names(door).into_values().collect();
        let left: BTreeSet<u64> = found.iter().map(|(inode, _)| *inode).collect();
        assert_eq!((&left, found.len()), (&inodes, inodes.len()));
        assert!(found.iter().all(|(_, links)| *links == 1), "{found:?}");
    }
}

#[test]
fn records_appended_by_eight_writers_are_whole_and_there_once() {
    let Some(mounts) = Mounts::new() else { return };
    let written = AtomicUsize::new(0);
    storm(
        |thread, random| {
            let path = mounts.path(thread, "log");
            let mut log = OpenOptions::new().append(true).create(true).open(path).unwrap();
            for _ in 0..20 {
                let number = written.fetch_add(1, Ordering::SeqCst);
                let filler = "x".repeat(random.below(3000));
                log.write_all(format!("<{number} {} {filler}>\n", filler.len()).as_bytes())
                    .unwrap();
            }
        },
        || count_of(&written) >= ROUNDS_MIN,
    );
    let written = written.into_inner();
    for door in &mounts.doors {
        let text = fs::read_to_string(door.join("log")).unwrap();
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let record = line.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
            let mut words = record.unwrap_or_else(|| panic!("torn: {line}")).splitn(3, ' ');
            let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
            let (record, length) = (number().expect("a number"), number().expect("a length"));
            assert_eq!(words.next().map(str::len), Some(length), "record {record}");
            assert!(seen.insert(record), "record {record} twice");
        }
        assert_eq!(seen.len(), written, "all are there");
    }
}

#[test]
fn nothing_made_in_a_directory_is_lost_while_it_is_renamed() {
    let Some(mounts) = Mounts::new() else { return };
    for directory in DIRECTORIES {
        fs::create_dir(mounts.path(0, directory)).unwrap();
    }
    let places = DIRECTORIES.map(|directory| format!("{directory}/moving"));
    fs::create_dir(mounts.path(0, &places[0])).unwrap();
    let (made, moves) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let numbers = AtomicUsize::new(0);
    let all = std::sync::Mutex::new(BTreeSet::new());
    storm(
        |thread, random| {
            if thread < 2 {
                let (from, to) = if random.one_in(2) { (0, 1) } else { (1, 0) };
                let (from, to) =
                    (mounts.path(thread, &places[from]), mounts.path(thread, &places[to]));
                moves.fetch_add(usize::from(fs::rename(from, to).is_ok()), Ordering::SeqCst);
                return;
            }
            let name = numbers.fetch_add(1, Ordering::SeqCst).to_string();
            let path = mounts.path(thread, &format!("{}/{name}", random.pick(&places)));
            match File::create_new(path) {
                Ok(_) => {
                    made.fetch_add(1, Ordering::SeqCst);
                    all.lock().unwrap().insert(name);
                }
                Err(error) => {
                    // The second is what Linux says of a path that moves away under it.
                    let expected = [ErrorKind::NotFound, ErrorKind::StaleNetworkFileHandle];
                    assert!(expected.contains(&error.kind()), "{error}");
                }
            }
        },
        || count_of(&made).min(count_of(&moves)) >= ROUNDS_MIN,
    );
    let (made, numbers) = (all.into_inner().unwrap(), numbers.into_inner());
    for door in &mounts.doors {
        let place =
            places.iter().map(|place| door.join(place)).find(|place| place.is_dir()).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let found: BTreeSet<String> =
            fs::read_dir(place).unwrap().map(|entry| name(entry).unwrap()).collect();
        let lost: Vec<_> = made.difference(&found).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(found.len() <= numbers);
    }
}

#[test]
fn a_directory_is_removed_or_filled_but_never_both() {
    let Some(mounts) = Mounts::new() else { return };
    let (removed, filled) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let prepare = |round: usize| fs::create_dir(mounts.path(0, &format!("d{round}"))).unwrap();
    prepare(0);
    let act = |thread: usize, round: usize| {
        let directory = mounts.path(thread + round, &format!("d{round}"));
        if thread == 0 {
            match fs::remove_dir(&directory) {
                Ok(()) => drop(removed.fetch_add(1, Ordering::SeqCst)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty, "{error}"),
            }
        } else {
            let made = match thread {
                1 => File::create_new(directory.join("file")).map(drop),
                2 => fs::create_dir(directory.join("below")),
                _ => std::os::unix::fs::symlink("nowhere", directory.join("link")),
            };
            match made {
                Ok(()) => drop(filled.fetch_add(1, Ordering::SeqCst)),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
        }
    };
    let judge = |round: usize| {
        let (removed, filled) =
            (removed.swap(0, Ordering::SeqCst), filled.swap(0, Ordering::SeqCst));
        assert!(
            (removed == 1) != (filled > 0),
            "round {round}: {removed} removed, {filled} filled"
        );
        for door in &mounts.doors {
            let found = fs::read_dir(door.join(format!("d{round}"))).map(Iterator::count);
            assert_eq!(found.ok(), (filled > 0).then_some(filled), "round {round}");
        }
        prepare(round + 1);
    };
    rounds(4, act, judge);
}

/// A process that locks a file on request: `lock` waits for the lock, `count` adds one to the number in
/// the file, `unlock` gives it back. Each is answered by a line.
const LOCKER: &str = r"
import fcntl, os, sys
handle = os.open(sys.argv[2], os.O_RDWR)
lock = fcntl.flock if sys.argv[1] == 'flock' else fcntl.lockf
for line in sys.stdin:
    word = line.strip()
    if word == 'lock':
        lock(handle, fcntl.LOCK_EX)
    elif word == 'unlock':
        lock(handle, fcntl.LOCK_UN)
    else:
        number = int(os.pread(handle, 20, 0) or b'0')
        os.pwrite(handle, b'%d' % (number + 1), 0)
    print(word, flush=True)
";

struct Locker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Locker {
    fn start(kind: &str, file: &Path) -> Self {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal=KILL", "200", interpreter(), "-c", LOCKER, kind]);
        command.arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 is there");
        let input = process.stdin.take().expect("asked for");
        let output = BufReader::new(process.stdout.take().expect("asked for"));
        Self { process, input, output }
    }

    fn ask(&mut self, word: &str) {
        self.input.write_all(format!("{word}\n").as_bytes()).expect("it listens");
    }

    fn hear(&mut self, word: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        assert_eq!(line.trim(), word);
    }

    fn call(&mut self, word: &str) {
        self.ask(word);
        self.hear(word);
    }

    /// Kills it; `timeout` has one child.
    fn kill(mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let child = fs::read_to_string(children).expect("timeout runs");
        let child = child.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
        let child = child.expect("timeout has a child");
        rustix::process::kill_process(child, rustix::process::Signal::KILL).expect("it lives");
        self.process.wait().expect("it was started");
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_lock_goes_from_mount_to_mount_also_when_its_holder_is_killed() {
    let Some(mounts) = Mounts::new() else { return };
    for kind in ["flock", "fcntl"] {
        let start = |thread: usize| Locker::start(kind, &mounts.path(thread, kind));
        fs::write(mounts.path(0, kind), "0").unwrap();
        let mut expected = 0;
        let mut holder = start(0);
        holder.call("lock");
        let end = deadline();
        while Instant::now() < end || expected < 4 {
            let mut next = start(expected + 1);
            next.ask("lock");
            holder.call("count");
            expected += 1;
            // Every second one is killed with the lock in its hands.
            if expected % 2 == 0 {
                holder.kill();
            } else {
                holder.call("unlock");
            }
            next.hear("lock");
            holder = next;
        }
        let number = fs::read_to_string(mounts.path(0, kind)).unwrap();
        assert_eq!(number, expected.to_string(), "{kind}");
    }
}

#[test]
fn counting_under_a_lock_misses_nothing() {
    let Some(mounts) = Mounts::new() else { return };
    for kind in ["flock", "fcntl"] {
        fs::write(mounts.path(0, kind), "0").unwrap();
        let counted = AtomicUsize::new(0);
        let end = deadline();
        thread::scope(|scope| {
            for thread in 0..4 {
                let (mounts, counted) = (&mounts, &counted);
                scope.spawn(move || {
                    let mut locker = Locker::start(kind, &mounts.path(thread, kind));
                    while Instant::now() < end {
                        ["lock", "count", "unlock"].iter().for_each(|word| locker.call(word));
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        let number = fs::read_to_string(mounts.path(1, kind)).unwrap();
        assert_eq!(number, counted.into_inner().to_string(), "{kind}");
    }
}
