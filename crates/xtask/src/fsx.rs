//! fsx on two mounts of one cluster: random operations on a file, each read compared.
//!
//! Two files are exercised at a time, one on each mount. A seed chooses operations and profile, so a
//! failure is run again by its seed alone.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};

use crate::command::{self, Failure, Outcome};
use crate::mounted::{self, Mounted};
use crate::setup;

/// Minutes that a run may take beyond those for its operations.
const RUN_MINUTES: u64 = 10;
/// Operations that take less than a minute, also on a busy machine with a slow disk.
const OPERATIONS_PER_MINUTE: u64 = 500;

/// Files exercised at the same time, each on a mount of its own.
const MOUNTS: u64 = 2;

/// What is to be run.
#[derive(clap::Args)]
pub(crate) struct Exercise {
    /// How many seeds to run
    #[arg(long, default_value_t = 8)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    start: u64,
    /// Operations of each seed
    #[arg(long, default_value_t = 200_000)]
    operations: u64,
}

/// File and operation sizes, in bytes.
struct Profile {
    name: &'static str,
    file_len_max: u64,
    operation_len_max: u64,
}

/// Chosen in turn: many operations about the end of a head, whole heads and what follows, and
/// several chunks.
const PROFILES: [Profile; 3] = [
    Profile { name: "fine", file_len_max: 128 << 10, operation_len_max: 5_000 },
    Profile { name: "small", file_len_max: 256 << 10, operation_len_max: 64 << 10 },
    Profile { name: "large", file_len_max: 16 << 20, operation_len_max: 256 << 10 },
];

/// How often each operation comes, relative to the others: all that the tool has. It never unmaps
/// what it read through a mapping, and many mappings slow down every later operation.
const WEIGHTS: &str = "\
[weights]
close_open = 1
read = 10
write = 10
mapread = 4
mapwrite = 10
invalidate = 1
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 2
punch_hole = 4
sendfile = 4
posix_fadvise = 2
copy_file_range = 4
";

/// One file being exercised.
struct Run {
    name: String,
    command: Command,
    child: Child,
    output: PathBuf,
}

impl Exercise {
    /// What the whole check runs: about a minute.
    pub(crate) fn short() -> Self {
        Self { seeds: 6, start: 1, operations: 2_000 }
    }
}

/// Run all seeds, whatever comes of each.
pub(crate) fn run(exercise: &Exercise) -> Outcome {
    mounted::check_machine()?;
    setup::install_suites()?;
    let mounted = Mounted::start("fsx", MOUNTS as usize)?;
    let seeds: Vec<u64> = (exercise.start..exercise.start + exercise.seeds).collect();
    let mut failures = Vec::new();
    for together in seeds.chunks(MOUNTS as usize) {
        let runs: Outcome<Vec<Run>> = (0..)
            .zip(together)
            .map(|(mount, &seed)| start(&mounted, mount, seed, exercise.operations))
            .collect();
        failures.extend(runs?.into_iter().filter_map(|run| finish(run).err()));
    }
    mounted.end()?;
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(first),
    }
}

fn start(mounted: &Mounted, mount: usize, seed: u64, operations: u64) -> Outcome<Run> {
    let profile = &PROFILES[(seed % PROFILES.len() as u64) as usize];
    let name = format!("seed {seed}, {} operations, profile {}", operations, profile.name);
    let path = |suffix: &str| mounted.path(&format!("seed-{seed}.{suffix}"));
    let (configuration, output) = (path("toml"), path("output"));
    let unwritten = |error| Failure::Unreadable(format!("{}: {error}", output.display()));
    fs::write(&configuration, configure(profile)).map_err(unwritten)?;
    let log = File::create(&output).map_err(unwritten)?;
    let minutes = RUN_MINUTES + operations / OPERATIONS_PER_MINUTE;
    let mut command = command::program(&command::tool("fsx").to_string_lossy(), minutes);
    command.arg("-f").arg(&configuration).args(["-N", &operations.to_string()]);
    command.args(["-S", &seed.to_string()]).arg("-P").arg(mounted.path(""));
    command.arg(mounted.mount(mount).join(format!("seed-{seed}")));
    command.stdout(log.try_clone().map_err(unwritten)?).stderr(log);
    let child = command.spawn().map_err(unwritten)?;
    Ok(Run { name, command, child, output })
}

fn configure(profile: &Profile) -> String {
    let Profile { file_len_max, operation_len_max, .. } = profile;
    // The tool takes the refusal to allocate no bytes for a missing feature.
    format!("flen = {file_len_max}\n[opsize]\nmin = 1\nmax = {operation_len_max}\n{WEIGHTS}")
}

/// Wait for the end of a run and say how it was.
fn finish(mut run: Run) -> Outcome {
    let passed = run.child.wait().is_ok_and(|status| status.success());
    eprintln!("fsx: {}: {}", run.name, if passed { "ok" } else { "FAILED" });
    if passed {
        return Ok(());
    }
    let text = command::read(&run.output)?;
    eprintln!("{text}");
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(command::LAST_LINES)..].iter();
    let call = format!("{} ({})", command::line(&run.command), run.name);
    Err(Failure::Ended(call, last.map(|&line| line.to_owned()).collect()))
}
