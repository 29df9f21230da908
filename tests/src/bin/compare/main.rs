//! Compares a mount with a local directory: `compare [--seed S] [--seeds N] [--steps M] [--replay FILE]
//! --local DIR DIR_A DIR_B`.
//!
//! Carries out the same random system calls, as two users, on a local directory and on one file system
//! that DIR_A and DIR_B both show, step by step now through one and now through the other. Results,
//! errors, data and what becomes of attributes must be the same after each step, whole trees after
//! every hundred. Steps that end in a difference are shortened and printed, one in a line, as `--replay`
//! reads them. Exit status: 0 no difference, 1 a difference, 2 wrong use.
//!
//! Deliberately not here: calls at the same time (the program `stress` makes those) and faults.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this program is about real mounts and files"
)]

mod content;
mod differences;
mod generate;
mod pair;
mod shrink;
mod side;
mod step;
mod tree;
mod user;
mod watch;
mod xattrs;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use ringfs_tests::random::Random;
use rustix::fs::Mode;

use crate::generate::Generator;
use crate::pair::Pair;
use crate::step::Step;

const USAGE: &str =
    "usage: compare [--seed S] [--seeds N] [--steps M] [--replay FILE] --local DIR DIR_A DIR_B";
const DEFAULT_STEPS: usize = 2000;
/// Steps after which the dice are told anew what exists.
const KNOWN_STEPS: usize = 20;
const UMASK: u32 = 0o022;
/// How ext4 names itself in `statfs`.
const EXT4: rustix::fs::FsWord = 0xef53;
const EXIT_DIFFERENCE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    seed: u64,
    seeds: u64,
    steps: usize,
    replay: Option<PathBuf>,
    local: PathBuf,
    mounts: [PathBuf; 2],
}

/// Steps that were taken, the last of which showed a difference.
struct Difference {
    steps: Vec<Step>,
    text: String,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let (mut seed, mut seeds, mut steps) = (1, 1, DEFAULT_STEPS);
    let (mut replay, mut local, mut mounts) = (None, None, Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => seed = arguments.next()?.parse().ok()?,
            "--seeds" => seeds = arguments.next()?.parse().ok()?,
            "--steps" => steps = arguments.next()?.parse().ok()?,
            "--replay" => replay = Some(PathBuf::from(arguments.next()?)),
            "--local" => local = Some(PathBuf::from(arguments.next()?)),
            _ if argument.starts_with("--") => return None,
            _ => mounts.push(PathBuf::from(argument)),
        }
    }
    Some(Options { seed, seeds, steps, replay, local: local?, mounts: mounts.try_into().ok()? })
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    rustix::process::umask(Mode::from_raw_mode(UMASK));
    if !rustix::fs::statfs(&options.local).is_ok_and(|found| found.f_type == EXT4) {
        println!(
            "{} is not on ext4: its own ways may show as differences",
            options.local.display()
        );
    }
    match run(&options) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(difference)) => {
            let lines =
                difference.steps.iter().map(|step| serde_json::to_string(step).unwrap_or_default());
            println!(
                "DIFFERENCE: {}\nafter these {} steps:",
                difference.text,
                difference.steps.len()
            );
            lines.for_each(|line| println!("{line}"));
            ExitCode::from(EXIT_DIFFERENCE)
        }
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(options: &Options) -> io::Result<Option<Difference>> {
    if let Some(file) = &options.replay {
        let text = fs::read_to_string(file)?;
        let steps: Result<Vec<Step>, _> = text.lines().map(serde_json::from_str).collect();
        return replay(options, &steps?);
    }
    for seed in options.seed..options.seed + options.seeds {
        if let Some(found) = explore(options, seed)? {
            println!("seed {seed}: differs after {} steps: {}", found.steps.len(), found.text);
            return shorten(options, found).map(Some);
        }
        println!("seed {seed}: {} steps, no difference", options.steps);
    }
    Ok(None)
}

fn pair(options: &Options) -> io::Result<Pair> {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let name = format!("compare-{}-{run}", std::process::id());
    Pair::new(&options.local, &options.mounts, &name)
}

/// Random steps until there is a difference, or there were enough.
fn explore(options: &Options, seed: u64) -> io::Result<Option<Difference>> {
    let mut pair = pair(options)?;
    let mut generator = Generator { random: Random::new(seed, 0), known: Vec::new() };
    let mut steps = Vec::new();
    let mut text = Ok(());
    while text.is_ok() && steps.len() < options.steps {
        if steps.len().is_multiple_of(KNOWN_STEPS) {
            generator.known = pair.local.known()?;
        }
        let step = generator.step();
        text = pair.run(&step);
        steps.push(step);
    }
    finish(pair, steps, text)
}

/// The same for steps that are known.
fn replay(options: &Options, steps: &[Step]) -> io::Result<Option<Difference>> {
    let mut pair = pair(options)?;
    for (index, step) in steps.iter().enumerate() {
        if let Err(text) = pair.run(step) {
            return finish(pair, steps[..=index].to_vec(), Err(text));
        }
    }
    finish(pair, steps.to_vec(), Ok(()))
}

fn finish(
    pair: Pair,
    steps: Vec<Step>,
    text: Result<(), String>,
) -> io::Result<Option<Difference>> {
    let text = text.and_then(|()| pair.compare_trees());
    let end = pair.end();
    match text.and(end) {
        Ok(()) => Ok(None),
        Err(text) => Ok(Some(Difference { steps, text })),
    }
}

fn shorten(options: &Options, found: Difference) -> io::Result<Difference> {
    let taken = |steps: &[Step]| Some(replay(options, steps).ok()??.steps.len());
    let steps = shrink::shrink(found.steps, taken);
    let text = match replay(options, &steps)? {
        Some(again) => again.text,
        None => format!("{} (not every time)", found.text),
    };
    Ok(Difference { steps, text })
}
