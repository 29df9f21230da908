//! The program `ringfs-bench`: single costs of RingFS, for those who work on it. Each benchmark
//! alternates between its arms for several rounds, so that a disturbance of the machine meets
//! both. Deliberately absent: whole workloads; those are the suite's.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::BenchError;
use crate::report::Report;
use crate::scale::ScaleOptions;
use crate::{bulk, echo, memory, metadata, process, recovery, scale};

/// Measures RingFS beside bare loops over the same sockets and files.
#[derive(Parser)]
#[command(name = "ringfs-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Echo RPCs per second, beside a bare echo of frames of the same size.
    Echo(Common),
    /// Empty files created and looked up per second, beside echo to the same node.
    Metadata(Common),
    /// 1 MiB sequential writes and reads, beside bare loops over the same sockets and disk.
    Bulk {
        #[command(flatten)]
        common: Common,
        /// MiB that each client writes and reads per round.
        #[arg(long, default_value_t = 256)]
        mebibytes: u64,
    },
    /// Resident memory of a server at rest and per inode.
    Memory {
        #[command(flatten)]
        common: Common,
        /// Files to create, with names of 24 bytes.
        #[arg(long, default_value_t = 1_000_000)]
        inodes: u64,
    },
    /// Time until a killed node serves again, and the longest call while a snapshot is taken.
    Recovery {
        #[command(flatten)]
        common: Common,
        /// Files to create, with names of 24 bytes.
        #[arg(long, default_value_t = 1_000_000)]
        inodes: u64,
    },
    /// What the placement allows on large clusters, given what one target and one node can do.
    Scale(ScaleOptions),
    /// What this program does as a child of itself; the task comes on standard input.
    #[command(name = process::CHILD_COMMAND, hide = true)]
    Child,
}

/// What all benchmarks have in common.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Client processes, each with one operation at a time.
    #[arg(long, default_value_t = 4)]
    pub(crate) clients: u32,
    /// Targets of the node: threads that serve. [default: 1 for echo, memory and recovery, otherwise 2]
    #[arg(long)]
    pub(crate) targets: Option<u32>,
    /// Rounds; each runs every arm once.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: u32,
    /// Seconds that one arm is measured per round, where time is fixed.
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Where stores and bare files go. [default: /dev/shm, or the system's temporary directory]
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Common {
    fn check(&self) -> Result<(), BenchError> {
        let wrong = if self.clients == 0 || self.clients > 256 {
            "--clients takes 1 to 256"
        } else if self.rounds == 0 {
            "--rounds takes 1 and more"
        } else if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            "--seconds takes more than 0, up to 3600"
        } else if self.targets.is_some_and(|targets| targets == 0 || targets > 64) {
            "--targets takes 1 to 64"
        } else {
            return Ok(());
        };
        Err(BenchError::Usage(wrong.to_owned()))
    }
}

/// Does what the arguments of the program `ringfs-bench` ask for.
pub fn run_program() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let (result, json) = match Cli::parse().command {
        Command::Child => return ExitCode::from(u8::from(!process::run_child())),
        Command::Echo(common) => (checked(&common, || echo::run(&common)), common.json),
        Command::Metadata(common) => (checked(&common, || metadata::run(&common)), common.json),
        Command::Bulk { common, mebibytes } => {
            (checked(&common, || bulk::run(&common, mebibytes)), common.json)
        }
        Command::Memory { common, inodes } => {
            (checked(&common, || memory::run(&common, inodes)), common.json)
        }
        Command::Recovery { common, inodes } => {
            (checked(&common, || recovery::run(&common, inodes)), common.json)
        }
        Command::Scale(options) => (scale::run(&options), options.json),
    };
    match result {
        Ok(report) => {
            print!("{}", if json { report.to_json() } else { report.to_string() });
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ringfs-bench: {error}");
            ExitCode::from(if matches!(error, BenchError::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn checked(
    common: &Common,
    benchmark: impl FnOnce() -> Result<Report, BenchError>,
) -> Result<Report, BenchError> {
    common.check()?;
    benchmark()
}
