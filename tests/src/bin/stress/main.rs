//! Stress checker of two mounts of one file system: `stress --seconds N [--seed S] [--processes P]
//! [--only FAMILY,...] [--canary CALL] DIR_A DIR_B`.
//!
//! Owns a random mixed workload of P threads, half of them at home in either directory, and an
//! oracle in its own memory that knows every change. What any thread sees after a change was
//! acknowledged must be that change, through whichever mount. Exit status: 0 nothing stale, 1 a
//! violation, 2 wrong use, 3 a call that does not return.
//!
//! With `--canary` the oracle forgets changes made by that call, and the run has to fail.
//!
//! Deliberately not here: faults. Every call is expected to succeed.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this program is about real mounts, threads and files"
)]

mod attributes;
mod blocks;
mod bytes;
mod exclusion;
mod logs;
mod names;
mod oracle;
mod probe;
mod texts;
mod watch;
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::oracle::Clock;
use crate::watch::Tally;
use crate::world::{Step, Worker, World};

const USAGE: &str = "usage: stress --seconds N [--seed S] [--processes P] [--only FAMILY,...] [--canary CALL] DIR_A \
     DIR_B\nfamilies: names, blocks, texts, attributes, exclusion, logs";
/// What a step can be about, with its share of the mix.
const FAMILIES: [(&str, usize); 6] =
    [("names", 10), ("blocks", 7), ("texts", 5), ("attributes", 4), ("exclusion", 3), ("logs", 3)];
/// A step changes something, rather than only look, all but once in so many times.
const LOOK_ONE_IN: usize = 4;
const DEFAULT_SECONDS: u64 = 60;
const DEFAULT_THREADS: usize = 8;
const THREADS_MAX: usize = 256;
const EXIT_VIOLATION: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    seconds: u64,
    seed: u64,
    threads: usize,
    /// One entry per share of a family in the mix.
    mix: Vec<&'static str>,
    canary: Option<String>,
    directories: [PathBuf; 2],
}

fn parse(arguments: impl Iterator<Item = String>) -> Option<Options> {
    let (mut seconds, mut seed, mut threads) = (DEFAULT_SECONDS, 1, DEFAULT_THREADS);
    let (mut directories, mut canary) = (Vec::new(), None);
    let mut mix = mix_of(|_| true);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next()?.parse().ok()?,
            "--seed" => seed = arguments.next()?.parse().ok()?,
            "--processes" => threads = arguments.next()?.parse().ok()?,
            "--only" => {
                let only = arguments.next()?;
                mix = mix_of(|family| only.split(',').any(|name| name == family));
            }
            "--canary" => canary = Some(arguments.next()?),
            _ if argument.starts_with("--") => return None,
            _ => directories.push(PathBuf::from(argument)),
        }
    }
    let directories = directories.try_into().ok()?;
    ((1..=THREADS_MAX).contains(&threads) && !mix.is_empty()).then_some(Options {
        mix,
        seconds,
        seed,
        threads,
        canary,
        directories,
    })
}

fn mix_of(wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let chosen = FAMILIES.iter().filter(|(family, _)| wanted(family));
    chosen.flat_map(|&(family, share)| std::iter::repeat_n(family, share)).collect()
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    rustix::process::umask(rustix::fs::Mode::empty());
    let name = format!("stress-{}", std::process::id());
    let roots = options.directories.each_ref().map(|directory| directory.join(&name));
    let prepared =
        fs::create_dir(&roots[0]).and_then(|()| probe::probe(&roots)).and_then(|abilities| {
            let clock = Clock::with_canary(options.canary.clone());
            World::new(roots.clone(), abilities, options.threads, clock)
        });
    let world = match prepared {
        Ok(world) => world,
        Err(error) => {
            eprintln!("stress: {}: {error}", roots[0].display());
            // What there is of it; the error above is the one that counts.
            let _ = fs::remove_dir_all(&roots[0]);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    println!("{} threads, seed {}, {:?}", options.threads, options.seed, world.abilities);
    let tally = run(&world, &options);
    tally.print();
    if tally.failed {
        println!("left as it is: {}", roots[0].display());
        return ExitCode::from(EXIT_VIOLATION);
    }
    drop(world);
    // Removed through the other mount than it was made through.
    match fs::remove_dir_all(&roots[1]).and_then(|()| probe::absent(&roots[0])) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("clean-up of {}: {error}", roots[1].display());
            ExitCode::from(EXIT_VIOLATION)
        }
    }
}

/// Runs the threads until time is up or one of them fails.
fn run(world: &World, options: &Options) -> Tally {
    let start = Instant::now();
    let deadline = start + Duration::from_secs(options.seconds);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let watchdog = scope.spawn(|| watch::guard(world, options.seconds));
        let workers: Vec<_> = (0..options.threads)
            .map(|thread| scope.spawn(move || work(world, thread, options, deadline)))
            .collect();
        for worker in workers {
            // A thread that panics is a failed run, not a lost one.
            let (counts, unjudged, failed) =
                worker.join().unwrap_or_else(|_| (BTreeMap::new(), 0, true));
            tally.add(counts, unjudged, failed);
        }
        world.stop.store(true, Ordering::SeqCst);
        watchdog.thread().unpark();
    });
    tally.elapsed = start.elapsed();
    tally
}

/// One thread: random steps until told to stop.
fn work(
    world: &World,
    thread: usize,
    options: &Options,
    deadline: Instant,
) -> (BTreeMap<&'static str, u64>, u64, bool) {
    let mut worker = Worker::new(world, thread, options.seed);
    let mut failed = false;
    while !world.stopped() && Instant::now() < deadline {
        if let Err(failure) = step(&mut worker, &options.mix) {
            world.stop.store(true, Ordering::SeqCst);
            println!("thread {thread}: {failure}");
            failed = true;
        }
    }
    (std::mem::take(&mut worker.counts), worker.unjudged, failed)
}

/// One step of the mix.
fn step(worker: &mut Worker<'_>, mix: &[&str]) -> Step {
    let world = worker.world;
    let mount = worker.pick_mount();
    let look = worker.random.one_in(LOOK_ONE_IN);
    match *worker.random.pick(mix) {
        "names" if look => world.names.look(worker, mount),
        "names" => world.names.hand_off(worker, mount),
        "blocks" if look => world.blocks.look(worker, mount),
        "blocks" => world.blocks.hand_off(worker, mount),
        "texts" if look => world.texts.look(worker, mount),
        "texts" => world.texts.hand_off(worker, mount),
        "attributes" if look => world.attributes.look(worker, mount),
        "attributes" => world.attributes.hand_off(worker, mount),
        "exclusion" => world.exclusion.attempt(worker, mount),
        _ if look => world.logs.look(worker, mount),
        _ => world.logs.append(worker, mount),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn parsed(line: &str) -> Option<super::Options> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_is_understood_or_refused() {
        let options = parsed("--seconds 5 --seed 9 --processes 4 /a /b").expect("right");
        assert_eq!((options.seconds, options.seed, options.threads), (5, 9, 4));
        for wrong in [
            "",
            "/a",
            "/a /b /c",
            "--seconds /a /b",
            "--processes 0 /a /b",
            "--x /a /b",
            "--only x /a /b",
        ] {
            assert!(parsed(wrong).is_none(), "{wrong}");
        }
    }
}
