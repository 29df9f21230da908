//! Loss of power: `powercut --rounds N [--seed S] [--seconds T] [--canary]`.
//!
//! Runs a cluster of two nodes with two targets each on one disk that loses what was not flushed.
//! Each round writers work for up to T seconds and note what a sync has acknowledged; then the
//! power goes: the disk keeps what was flushed and any part of the rest, all servers are killed, and
//! mostly the mount. The cluster comes back on what the disk has kept, which has to hold everything
//! promised; `ringfs check` finds nothing. Needs root, /dev/fuse, a loop device, and ext4. Exit
//! status: 0 every promise kept, 1 a finding, 2 wrong use.
//!
//! With `--canary` the writers omit their syncs, and the run has to fail.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this program is about real processes, threads and files"
)]

mod load;
mod pieces;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringfs_tests::random::Random;
use ringfs_tests::{FaultyDisk, Image, Sandbox, wait_until};
use rustix::fs::OFlags;

use crate::load::{Syncs, Writer};

const USAGE: &str = "usage: powercut --rounds N [--seed S] [--seconds T] [--canary]";
/// Size of the disk: logs of four targets, which grow to some 100 MiB each, and data.
const DISK_BYTES: usize = 896 << 20;
const DEFAULT_SECONDS: u64 = 3;

struct Options {
    rounds: usize,
    seed: u64,
    seconds: u64,
    canary: bool,
}

/// What a round came to.
struct Round {
    promises: usize,
    flushes: u64,
    restart: Duration,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { rounds: 0, seed: 1, seconds: DEFAULT_SECONDS, canary: false };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--rounds" => options.rounds = arguments.next()?.parse().ok()?,
            "--seed" => options.seed = arguments.next()?.parse().ok()?,
            "--seconds" => options.seconds = arguments.next()?.parse().ok()?,
            "--canary" => options.canary = true,
            _ => return None,
        }
    }
    (options.rounds > 0 && options.seconds > 0).then_some(options)
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => {
            println!("every promise kept");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FINDING {why}");
            ExitCode::from(1)
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let mut machine = Machine::new(options)?;
    let (mut promises, mut flushes, mut restarts) = (0, 0, Vec::new());
    for number in 0..options.rounds {
        let round = machine.round(number).map_err(|why| format!("round {number}: {why}"))?;
        promises += round.promises;
        flushes += round.flushes;
        restarts.push(round.restart.as_secs_f64());
    }
    restarts.sort_by(f64::total_cmp);
    println!(
        "{} losses of power, {promises} promises of syncs, {flushes} flushes of the disk; servers \
         back after {:.2} s (median), {:.2} s at most",
        options.rounds,
        restarts[restarts.len() / 2],
        restarts[restarts.len() - 1],
    );
    machine.sandbox.ok(["down"]);
    Ok(())
}

/// What is left when the power has gone.
struct Lost {
    image: Image,
    moment: Instant,
    flushes: u64,
    kills_mount: bool,
}

type Writers = Vec<(&'static str, Box<dyn Writer>)>;

/// The machine whose power goes, with everything on it.
struct Machine<'a> {
    options: &'a Options,
    sandbox: Sandbox,
    disk: Option<FaultyDisk>,
    root: PathBuf,
    random: Random,
    writers: Writers,
}

impl<'a> Machine<'a> {
    fn new(options: &'a Options) -> Result<Self, String> {
        let sandbox = Sandbox::new();
        let root = sandbox.path("mount");
        fs::create_dir(&root).map_err(|error| error.to_string())?;
        let root = root.canonicalize().map_err(|error| error.to_string())?;
        let dice = |thread| Random::new(options.seed, thread);
        let syncs = if options.canary { Syncs::Omitted } else { Syncs::Carried };
        let writers: Writers = vec![
            ("files", Box::new(load::Files::new(dice(1), syncs))),
            ("more files", Box::new(load::Files::new(dice(2), syncs))),
            ("blocks", Box::new(load::Blocks::new(dice(3), syncs))),
            ("names", Box::new(load::Names::new(dice(4), syncs))),
            ("appends", Box::new(load::Appends::new(dice(5), syncs, OFlags::empty()))),
            ("O_SYNC", Box::new(load::Appends::new(dice(6), syncs, OFlags::SYNC))),
            ("O_DSYNC", Box::new(load::Appends::new(dice(7), syncs, OFlags::DSYNC))),
            ("order", Box::new(load::Order::new())),
        ];
        let mut machine = Self { options, sandbox, disk: None, root, random: dice(0), writers };
        machine.insert(Image::empty(DISK_BYTES))?;
        let data = machine.data();
        machine.sandbox.ok(["up", "--nodes", "2", "--targets", "2", "--data", text(&data)]);
        machine.sandbox.ok(["mount", text(&machine.root)]);
        Ok(machine)
    }

    fn folder(&self) -> PathBuf {
        self.sandbox.path("machine")
    }

    fn data(&self) -> PathBuf {
        self.folder().join("disk/data")
    }

    fn insert(&mut self, image: Image) -> Result<(), String> {
        // The one before goes first: both are at the same place.
        self.disk = None;
        let disk = FaultyDisk::insert(image, &self.folder()).map_err(|error| error.to_string())?;
        self.disk = Some(disk);
        Ok(())
    }

    /// Works, loses power, comes back, and compares.
    fn round(&mut self, number: usize) -> Result<Round, String> {
        let place = self.root.join(format!("round-{number}"));
        // They belong to threads while the machine changes.
        let mut writers = std::mem::take(&mut self.writers);
        begin(&self.root, &place, &mut writers).map_err(|error| format!("beginning: {error}"))?;
        let millis = 200 + self.random.below(self.options.seconds as usize * 1000);
        let stop = &AtomicBool::new(false);
        let round = thread::scope(|scope| {
            let threads: Vec<_> = writers
                .iter_mut()
                .map(|(name, writer)| {
                    let named = move |why| format!("{name}: {why}");
                    scope.spawn(move || load::run(writer.as_mut(), stop).map_err(named))
                })
                .collect();
            thread::sleep(Duration::from_millis(millis as u64));
            let lost = self.lose_power(stop);
            // A mount that has survived waits for its servers, and its writers with it.
            let round = lost.and_then(|lost| Ok((lost.moment, self.bring_back(lost)?)));
            for thread in threads {
                thread.join().map_err(|_| "a writer panicked".to_owned())??;
            }
            round
        });
        let (moment, mut round) = round?;
        for (name, writer) in &writers {
            let judged = writer.verify(&place.join(name), moment);
            judged.map_err(|why| format!("{name}: {why}"))?;
            round.promises += writer.promises(moment);
        }
        self.writers = writers;
        let checked = self.sandbox.run(["check"]);
        if checked.code != Some(0) {
            return Err(format!("ringfs check: {}{}", checked.stdout, checked.stderr));
        }
        fs::remove_dir_all(&place).map_err(|error| format!("cleaning up: {error}"))?;
        Ok(round)
    }

    fn lose_power(&mut self, stop: &AtomicBool) -> Result<Lost, String> {
        let kills_mount = !self.random.one_in(3);
        let mut pids = self.sandbox.pids("ringfs");
        if kills_mount {
            let mount = self.sandbox.mount("ringfs", &self.root);
            pids.push(mount.and_then(|mount| mount["pid"].as_i64()).map(|pid| pid as i32));
        }
        let disk = self.disk.as_ref().expect("a disk is in");
        let flushes = disk.flushes();
        let (image, moment) = disk.cut(&mut self.random);
        self.sandbox.kill(&pids);
        stop.store(true, Ordering::SeqCst);
        disk.turn_off();
        for pid in pids.iter().flatten() {
            let program = format!("/proc/{pid}/exe");
            wait_until("the end of a killed process", || fs::read_link(&program).is_err());
        }
        Ok(Lost { image, moment, flushes, kills_mount })
    }

    /// Starts everything on what the disk has kept.
    fn bring_back(&mut self, lost: Lost) -> Result<Round, String> {
        self.insert(lost.image)?;
        let start = Instant::now();
        let run = |words: &[&str]| {
            let outcome = self.sandbox.run(words);
            (outcome.code == Some(0)).then_some(()).ok_or(format!("{words:?}: {}", outcome.stderr))
        };
        run(&["up"])?;
        let restart = start.elapsed();
        if lost.kills_mount {
            run(&["mount", text(&self.root)])?;
        }
        Ok(Round { promises: 0, flushes: lost.flushes, restart })
    }
}

fn begin(root: &Path, place: &Path, writers: &mut Writers) -> std::io::Result<()> {
    let sync = |directory: &Path| fs::File::open(directory)?.sync_all();
    fs::create_dir(place)?;
    sync(root)?;
    for (name, writer) in writers {
        let directory = place.join(name);
        fs::create_dir(&directory)?;
        sync(place)?;
        writer.begin(&directory)?;
    }
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of a sandbox are text")
}
