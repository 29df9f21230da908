//! Development commands of RingFS: the one check, the layering table, the simulator runner.
//!
//! Each module owns one check and can be run alone; `ci` runs them all, in order. A check either
//! finds nothing or says in one line per finding what is wrong and where. Nothing here is shipped.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a development tool: it reads sources and starts compilers, and is never simulated"
)]

mod ci;
mod command;
mod failures;
mod fsx;
mod layers;
mod licences;
mod mounted;
mod picture;
mod pjdfstest;
mod setup;
mod symbols;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development commands of RingFS.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check, as the continuous integration does
    Ci,
    /// Install the tools that the checks need
    Setup,
    /// Check which crate depends on which
    Layers,
    /// Check the rules of writing that no compiler knows
    Tidy,
    /// Check licences and origins of all dependencies against deny.toml
    Licences,
    /// Check that the shipped program holds nothing of the simulator
    Symbols,
    /// Record the README's terminal picture anew; takes root and /dev/fuse
    Picture,
    /// Test a mount against POSIX with pjdfstest; takes root and /dev/fuse
    Pjdfstest {
        /// Run only the cases whose names hold this
        filter: Option<String>,
    },
    /// Exercise files on two mounts with fsx; takes root and /dev/fuse
    Fsx(fsx::Exercise),
    /// Run the cluster simulator
    Sim(Simulation),
    /// Switch deliberate defects on, one after the other: the simulator has to catch each
    Mutations {
        /// Which ones; all if none is named
        names: Vec<String>,
        /// How many seeds each may take
        #[arg(long, default_value_t = ci::MUTATION_SEEDS)]
        seeds: u64,
    },
    /// Fuzz one target of fuzz/
    Fuzz {
        /// Name of the fuzz target
        target: String,
        /// How long to fuzz
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
}

/// What the simulator is to run.
#[derive(clap::Args)]
struct Simulation {
    /// How many seeds to run
    #[arg(long, default_value_t = ci::SIMULATOR_SEEDS)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// A deliberate defect to switch on, which the simulator has to catch
    #[arg(long)]
    mutation: Option<String>,
    /// Further arguments for the simulator, after `--`
    #[arg(last = true)]
    rest: Vec<String>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Ci => ci::run(),
        Task::Setup => setup::run(),
        Task::Layers => layers::run(),
        Task::Tidy => tidy::run(),
        Task::Licences => licences::run(),
        Task::Symbols => symbols::run(),
        Task::Picture => picture::run(),
        Task::Pjdfstest { filter } => pjdfstest::run(filter.as_deref()),
        Task::Fsx(exercise) => fsx::run(&exercise),
        Task::Sim(simulation) => ci::simulate(&simulation),
        Task::Mutations { names, seeds } => ci::catch_mutations(&names, seeds),
        Task::Fuzz { target, seconds } => setup::fuzz(&target, seconds),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
