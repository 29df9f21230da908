//! A crowded directory: `crowd [--entries N] [--processes P] [--watch PID,...] DIR_A DIR_B`.
//!
//! P processes create N files in one directory below DIR_A, list it, look at every file and remove
//! them again. Meanwhile a bystander does small things through DIR_B, which shows the same file system:
//! beside that directory and in it. Told are the times of each phase, the memory of the processes
//! watched, and the longest call of the bystander. Exit status: 0 as it should be, 1 a call failed,
//! something was listed wrongly or the bystander was held up, 2 wrong use.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this program is about real mounts, processes and files"
)]

mod bystander;
mod crowd;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use crate::bystander::Bystander;
use crate::crowd::Phase;

const USAGE: &str =
    "usage: crowd [--entries N] [--processes P] [--longest MS] [--watch PID,...] DIR_A DIR_B";
const DEFAULT_ENTRIES: usize = 1_000_000;
const DEFAULT_PROCESSES: usize = 4;
/// How long a call of the bystander may take.
const DEFAULT_LONGEST: u64 = 100;
const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;

/// What the command line asks for.
#[derive(Clone, Debug)]
struct Options {
    entries: usize,
    processes: usize,
    longest: Duration,
    watch: Vec<u32>,
    /// This process is one of the crowd: its number, and what it does.
    member: Option<(usize, Phase)>,
    directories: [PathBuf; 2],
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let (mut entries, mut processes) = (DEFAULT_ENTRIES, DEFAULT_PROCESSES);
    let (mut watch, mut member, mut directories) = (Vec::new(), None, Vec::new());
    let mut longest = DEFAULT_LONGEST;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--entries" => entries = arguments.next()?.parse().ok()?,
            "--processes" => processes = arguments.next()?.parse().ok()?,
            "--longest" => longest = arguments.next()?.parse().ok()?,
            "--watch" => {
                let list: Result<_, _> = arguments.next()?.split(',').map(str::parse).collect();
                watch = list.ok()?;
            }
            "--member" => {
                let number = arguments.next()?.parse().ok()?;
                member = Some((number, Phase::named(&arguments.next()?)?));
            }
            _ if argument.starts_with("--") => return None,
            _ => directories.push(PathBuf::from(argument)),
        }
    }
    let directories = directories.try_into().ok()?;
    let longest = Duration::from_millis(longest);
    (processes > 0).then_some(Options { entries, processes, longest, watch, member, directories })
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(EXIT_USAGE);
    };
    let result = match options.member {
        Some((number, phase)) => {
            let share = crowd::share(options.entries, options.processes, number);
            crowd::perform(&options.directories[0], phase, share, options.entries).map(|()| true)
        }
        None => run(&options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILURE),
        Err(error) => {
            println!("crowd: {error}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// All phases; whether the bystander was never held up.
fn run(options: &Options) -> io::Result<bool> {
    let name = format!("crowd-{}", std::process::id());
    let [here, there] = options.directories.each_ref().map(|directory| directory.join(&name));
    fs::create_dir(&here)?;
    fs::create_dir(here.join(crowd::DIRECTORY))?;
    fs::create_dir(here.join(bystander::DIRECTORY))?;
    tell_memory(options, "before");
    let mut on_time = true;
    for phase in Phase::ALL {
        let bystander = Bystander::new(&there);
        let start = Instant::now();
        let (result, calls) = thread::scope(|scope| {
            let watching = scope.spawn(|| bystander.act());
            let result = perform(options, &name, phase);
            bystander.stop();
            (result, watching.join().expect("the bystander returns its errors"))
        });
        let seconds = start.elapsed().as_secs_f64();
        result?;
        let calls = calls?;
        println!(
            "{}: {seconds:.1} s, {:.0} per second; {}",
            phase.name(),
            options.entries as f64 / seconds,
            calls.tell()
        );
        tell_memory(options, phase.name());
        on_time &= calls.longest() <= options.longest;
    }
    fs::remove_dir_all(&here)?;
    if !on_time {
        println!("the bystander was held up for more than {:?}", options.longest);
    }
    Ok(on_time)
}

/// One phase by all processes.
fn perform(options: &Options, name: &str, phase: Phase) -> io::Result<()> {
    let program = std::env::current_exe()?;
    let mut members = Vec::new();
    for number in 0..options.processes.min(phase.processes_max()) {
        let mut command = Command::new(&program);
        command.args(["--entries", &options.entries.to_string()]);
        let processes = options.processes.min(phase.processes_max());
        command.args(["--processes", &processes.to_string()]);
        command.args(["--member", &number.to_string(), phase.name()]);
        let places = options.directories.each_ref().map(|directory| directory.join(name));
        members.push(command.args(places).spawn()?);
    }
    let ends: Vec<_> = members.iter_mut().map(|member| member.wait()).collect();
    match ends.into_iter().all(|end| end.is_ok_and(|status| status.success())) {
        true => Ok(()),
        false => Err(io::Error::other(format!("the crowd failed to {}", phase.name()))),
    }
}

/// The memory of the processes watched, in MiB.
fn tell_memory(options: &Options, moment: &str) {
    let memory = |pid: &u32| -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(format!("{pid}: {} MiB", kib >> 10))
    };
    let told: Vec<_> = options.watch.iter().filter_map(memory).collect();
    if !told.is_empty() {
        println!("  memory ({moment}): {}", told.join(", "));
    }
}
