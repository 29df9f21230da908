//! Storm of kills: `storm --seconds N [--seed S] [--writers W] [--canary]`.
//!
//! Runs a cluster of two nodes with two targets each and two mounts, with writers that record what
//! was acknowledged, and kills servers and mounts without warning all the time. Afterwards every
//! acknowledged name and byte has to be there, and `ringfs check` finds nothing. Needs root and
//! /dev/fuse. Exit status: 0 nothing lost, 1 a finding, 2 wrong use.
//!
//! With `--canary` a file is taken away behind the writers' backs, and the run has to fail.
//!
//! Deliberately not here: loss of power, which `powercut` is about.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this program is about real processes, threads and files"
)]

mod killer;
mod model;
mod program;
mod records;
mod world;
mod writer;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use ringfs_tests::Sandbox;
use ringfs_tests::random::Random;

use crate::killer::{Event, Killer};
use crate::program::Program;
use crate::world::{MOUNTS, World};
use crate::writer::Writer;

const USAGE: &str = "usage: storm --seconds N [--seed S] [--writers W] [--canary]";
const NODES: usize = 2;
const DEFAULT_WRITERS: usize = 6;
/// Longest a call may take: three steps with the operation deadline each, and room.
const CALL_PATIENCE: Duration = Duration::from_secs(110);
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

struct Options {
    seconds: u64,
    seed: u64,
    writers: usize,
    canary: bool,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { seconds: 0, seed: 1, writers: DEFAULT_WRITERS, canary: false };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => options.seconds = arguments.next()?.parse().ok()?,
            "--seed" => options.seed = arguments.next()?.parse().ok()?,
            "--writers" => options.writers = arguments.next()?.parse().ok()?,
            "--canary" => options.canary = true,
            _ => return None,
        }
    }
    (options.seconds > 0 && options.writers > 0).then_some(options)
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(findings) => {
            findings.iter().for_each(|finding| println!("FINDING {finding}"));
            ExitCode::from(1)
        }
    }
}

fn run(options: &Options) -> Result<(), Vec<String>> {
    let sandbox = Sandbox::new();
    let place = |index: usize| sandbox.path(&format!("mount-{index}"));
    let told = |error: std::io::Error| vec![error.to_string()];
    let roots: [PathBuf; MOUNTS] = std::array::from_fn(place);
    sandbox.ok(["up", "--nodes", &NODES.to_string(), "--targets", "2"]);
    for root in &roots {
        fs::create_dir(root).map_err(told)?;
        sandbox.ok(["mount", &root.to_string_lossy()]);
    }
    let roots = roots.map(|root| root.canonicalize().expect("it was just made"));
    let world = World::new(roots, &sandbox.path(""), options.writers + 2);
    let shared = world.root(0).join("shared");
    fs::create_dir(&shared).map_err(told)?;
    fs::create_dir(world.root(0).join("program")).map_err(told)?;
    (0..records::FILES)
        .try_for_each(|file| fs::write(world.root(0).join(records::path(file)), []))
        .map_err(told)?;
    let writers = (0..options.writers).map(|index| Writer::new(&world, index, options.seed));
    let mut writers: Vec<Writer<'_>> = writers.collect::<Result<_, _>>().map_err(told)?;
    let mut program = Program::new(&world, &sandbox, options.writers, options.seed);
    let mut killer = Killer {
        world: &world,
        sandbox: &sandbox,
        random: Random::new(options.seed, options.writers + 1),
        index: options.writers + 1,
        nodes: NODES,
    };
    killer.prepare().map_err(told)?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let events = storm(&world, &sandbox, &mut writers, &mut program, &mut killer, end);
    tell(&world, &events, &writers);
    if world.findings().is_empty() {
        if options.canary {
            take_away(&writers[0], &world);
        }
        verify(&world, &killer, &writers, &program);
    }
    match world.findings() {
        findings if findings.is_empty() => {
            println!("nothing acknowledged is missing");
            Ok(())
        }
        findings => Err(findings),
    }
}

/// Runs all threads until the end, or until one of them finds something.
fn storm(
    world: &World,
    sandbox: &Sandbox,
    writers: &mut [Writer<'_>],
    program: &mut Program<'_>,
    killer: &mut Killer<'_>,
    end: Instant,
) -> Vec<Event> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for writer in writers.iter_mut() {
            threads.push(scope.spawn(|| writer.run().unwrap_or_else(|why| world.fail(why))));
        }
        threads.push(scope.spawn(|| program.run().unwrap_or_else(|why| world.fail(why))));
        let killing = scope.spawn(|| {
            let events = killer.run(end);
            world.stop();
            events
        });
        while !threads.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(WATCH_INTERVAL);
            if let Some(worker) = world.hanging(CALL_PATIENCE) {
                world
                    .fail(format!("a call of worker {worker} takes longer than {CALL_PATIENCE:?}"));
                end_mounts(world, sandbox);
            }
        }
        killing.join().unwrap_or_else(|_| {
            world.fail("the killer panicked".to_owned());
            Vec::new()
        })
    })
}

/// Ends calls that do not end by themselves.
fn end_mounts(world: &World, sandbox: &Sandbox) {
    for index in 0..MOUNTS {
        let mount = sandbox.mount("ringfs", world.root(index));
        let pid = mount.and_then(|mount| mount["pid"].as_i64());
        sandbox.kill(&[pid.map(|pid| pid as i32)]);
    }
}

fn take_away(writer: &Writer<'_>, world: &World) {
    let files = writer.model.files();
    let (path, _) = files.first().expect("a writer has files");
    fs::remove_file(world.root(0).join(&writer.name).join(path)).expect("it is there");
}

fn verify(world: &World, killer: &Killer<'_>, writers: &[Writer<'_>], program: &Program<'_>) {
    let start = Instant::now();
    let check = || -> Result<(), String> {
        writers.iter().try_for_each(Writer::verify)?;
        program.verify()?;
        for file in 0..records::FILES {
            let bytes = fs::read(world.root(1).join(records::path(file)));
            verify_records(file, &bytes.map_err(|error| error.to_string())?, writers)?;
        }
        let checked = killer.sandbox.run(["check"]);
        match checked.code {
            Some(0) => Ok(()),
            _ => Err(format!("ringfs check: {}{}", checked.stdout, checked.stderr)),
        }
    };
    match check() {
        Ok(()) => {
            println!("everything compared and checked in {:.1} s", start.elapsed().as_secs_f64())
        }
        Err(why) => world.fail(why),
    }
}

fn verify_records(file: usize, bytes: &[u8], writers: &[Writer<'_>]) -> Result<(), String> {
    let found = records::decode(bytes).map_err(|why| format!("{}: {why}", records::path(file)))?;
    for (index, writer) in (0..).zip(writers) {
        for (_, number) in writer.appended.iter().filter(|(of, _)| *of == file) {
            if !found.contains(&(index, *number)) {
                return Err(format!("log{file}: record {number} of writer {index} is missing"));
            }
        }
    }
    for (index, number) in found {
        let writer = &writers[index as usize];
        let key = (file, number);
        if !writer.appended.contains(&key) && !writer.appended_maybe.contains(&key) {
            return Err(format!("log{file}: record {number} of writer {index} belongs elsewhere"));
        }
    }
    Ok(())
}

fn tell(world: &World, events: &[Event], writers: &[Writer<'_>]) {
    let (acknowledged, longest) = world.totals();
    let seconds = world.seconds();
    let unknown = |writer: &Writer<'_>| writer.model.doubt_count() + writer.appended_maybe.len();
    println!(
        "{seconds:.0} s: {} strikes, killed {} servers and {} mounts; {acknowledged} changes \
         acknowledged ({:.0}/s), {} of unknown outcome, longest wait {:.1} s",
        events.len(),
        events.iter().map(|event| event.servers).sum::<usize>(),
        events.iter().map(|event| event.mounts).sum::<usize>(),
        acknowledged as f64 / seconds,
        writers.iter().map(unknown).sum::<usize>(),
        longest.as_secs_f64(),
    );
    let kinds = [("servers", (true, false)), ("mounts", (false, true)), ("both", (true, true))];
    for (what, kind) in kinds {
        let belongs = |event: &&Event| (event.servers > 0, event.mounts > 0) == kind;
        let times = |of: fn(&Event) -> Duration| {
            let mut times: Vec<f64> =
                events.iter().filter(belongs).map(|event| of(event).as_secs_f64()).collect();
            times.sort_by(f64::total_cmp);
            let median = times.get(times.len() / 2).copied().unwrap_or(0.0);
            format!("median {median:.2}, most {:.2} s", times.last().copied().unwrap_or(0.0))
        };
        println!(
            "  {what}: away {}; restart {}; then whole after {}",
            times(|event| event.away),
            times(|event| event.restart),
            times(|event| event.whole)
        );
    }
}
