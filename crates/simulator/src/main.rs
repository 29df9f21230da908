//! Runs seeds, each twice, and tells what failed.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a development tool: it uses every core and measures its own speed"
)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use ringfs_simulator::{Figures, Mutation, Report, RunOptions, run};

/// Runs whole simulated clusters and checks everything their clients saw
#[derive(Parser)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// A deliberate defect to switch on, which has to be caught
    #[arg(long)]
    mutation: Option<Mutation>,
    /// Switch every deliberate defect on, or these, one after the other: all have to be caught
    #[arg(long, num_args = 0.., conflicts_with = "mutation")]
    mutations: Option<Vec<Mutation>>,
    /// Seeds run at the same time; by default one per core
    #[arg(long)]
    jobs: Option<usize>,
    /// Print the history of seeds that pass, too
    #[arg(long)]
    verbose: bool,
    /// Let nothing go wrong: what fails then is wrong without any fault
    #[arg(long)]
    calm: bool,
    /// Go on after a seed has failed
    #[arg(long)]
    keep_going: bool,
}

/// What all seeds came to.
#[derive(Default)]
struct Totals {
    seeds: u64,
    failures: Vec<u64>,
    figures: Figures,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    match &arguments.mutations {
        Some(some) if some.is_empty() => catch_all(&arguments, Mutation::value_variants()),
        Some(some) => catch_all(&arguments, some),
        None => {
            let begin = Instant::now();
            let totals = simulate(&arguments, arguments.mutation);
            totals.conclude(&arguments, begin.elapsed().as_secs_f64())
        }
    }
}

/// Switches defects on, one after the other, and tells by which seed each is caught.
fn catch_all(arguments: &Arguments, mutations: &[Mutation]) -> ExitCode {
    let mut missed = 0;
    for &mutation in mutations {
        let begin = Instant::now();
        let totals = simulate(arguments, Some(mutation));
        let verdict = match totals.failures.iter().min() {
            Some(seed) => format!("seed {seed}"),
            None => {
                missed += 1;
                String::from("MISSED")
            }
        };
        let (name, promise) = (name(mutation), mutation.promise());
        let seconds = begin.elapsed().as_secs_f64();
        println!("{name:24} {promise:52} {verdict:>11}  {} seeds, {seconds:.0} s", totals.seeds);
    }
    println!("{} of {} defects caught", mutations.len() - missed, mutations.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs seeds, on all cores.
fn simulate(arguments: &Arguments, mutation: Option<Mutation>) -> Totals {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(cores).max(1);
    let next = AtomicU64::new(arguments.start);
    let end = arguments.start.saturating_add(arguments.seeds);
    let is_over = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let (report, failure) = run_twice(seed, arguments, mutation);
                    let is_failure = failure.is_some();
                    let mut totals = totals.lock().unwrap_or_else(|poison| poison.into_inner());
                    totals.add(seed, &report, is_failure);
                    show(seed, arguments, mutation, &report, failure);
                    if is_failure && !arguments.keep_going {
                        is_over.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap_or_else(|poison| poison.into_inner())
}

/// What a defect is called on the command line.
fn name(mutation: Mutation) -> String {
    mutation.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Runs a seed with and without checking; both must take the same course.
fn run_twice(
    seed: u64,
    arguments: &Arguments,
    mutation: Option<Mutation>,
) -> (Report, Option<String>) {
    let options = RunOptions { mutation, is_calm: arguments.calm, check: true };
    let report = run(seed, options);
    let mut failure = report.failure.clone();
    if mutation.is_some() {
        // A seed that fails without the defect as well has not caught it.
        failure = failure
            .filter(|_| run(seed, RunOptions { mutation: None, ..options }).failure.is_none());
        return (report, failure);
    }
    if failure.is_none() {
        let again = run(seed, RunOptions { check: false, ..options });
        if again.trace != report.trace {
            failure = Some(format!(
                "two runs of one seed differ: traces {:016x} and {:016x}",
                report.trace, again.trace
            ));
        }
    }
    (report, failure)
}

fn show(
    seed: u64,
    arguments: &Arguments,
    mutation: Option<Mutation>,
    report: &Report,
    failure: Option<String>,
) {
    if arguments.mutations.is_some() && !arguments.verbose {
        return;
    }
    if let Some(mutation) = mutation
        && failure.is_some()
        && !arguments.verbose
    {
        println!("seed {seed} fails with {}, and passes without", name(mutation));
        return;
    }
    if failure.is_some() || arguments.verbose {
        println!("{}", report.history);
    }
    if let Some(failure) = failure {
        println!("seed {seed} FAILED: {failure}");
        println!("replay: cargo xtask sim --seeds 1 --start {seed}\n");
    }
}

impl Totals {
    fn add(&mut self, seed: u64, report: &Report, is_failure: bool) {
        self.seeds += 1;
        self.figures.add(&report.figures);
        if is_failure {
            self.failures.push(seed);
        }
    }

    fn conclude(mut self, arguments: &Arguments, seconds: f64) -> ExitCode {
        self.failures.sort_unstable();
        let Totals { seeds, figures, .. } = &self;
        let per_seed = |count: u64| count as f64 / (*seeds).max(1) as f64;
        println!(
            "{seeds} seeds in {seconds:.1} s: {:.0} per minute, each run twice",
            *seeds as f64 * 60.0 / seconds
        );
        println!(
            "per seed: {:.1} operations ({:.2} of unknown outcome), {:.2} server kills, {:.2} power \
             cuts, {:.2} client kills, {:.2} connections broken, {:.2} partitions, {:.2} stalls, {:.2} disks with \
             errors, {:.2} full disks, {:.2} jumps of clocks, {:.1} virtual \
             seconds; {} rounds undecided; {:.1} calls answered by kernels",
            per_seed(figures.operations),
            per_seed(figures.unknown),
            per_seed(figures.kills),
            per_seed(figures.power_cuts),
            per_seed(figures.client_kills),
            per_seed(figures.broken_links),
            per_seed(figures.partitions),
            per_seed(figures.stalls),
            per_seed(figures.disk_errors),
            per_seed(figures.full_disks),
            per_seed(figures.clock_jumps),
            per_seed(figures.virtual_ms) / 1000.0,
            figures.undecided,
            per_seed(figures.cache_hits),
        );
        match (arguments.mutation.map(name), self.failures.first()) {
            (Some(mutation), Some(seed)) => {
                println!("mutation {mutation} caught by seed {seed} after {seeds} seeds");
                ExitCode::SUCCESS
            }
            (Some(mutation), None) => {
                println!("mutation {mutation} NOT caught");
                ExitCode::FAILURE
            }
            (None, Some(_)) => {
                println!("{} seeds failed: {:?}", self.failures.len(), self.failures);
                ExitCode::FAILURE
            }
            (None, None) => ExitCode::SUCCESS,
        }
    }
}
