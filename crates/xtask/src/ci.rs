//! The one check: every step in order, with its time, and a summary at the end.
//!
//! A step that fails does not hide the later ones, except set-up. The last lines say what failed, and
//! why, so that the end of a log is enough to act on. Two profiles are built: dev for
//! the tests, release for the shipped program and the simulator; fuzzing has a build of its own.

use std::time::{Duration, Instant};

use crate::Simulation;
use crate::command::{self, Failure, Outcome};
use crate::failures::{self, FailedTest};
use crate::fsx::{self, Exercise};
use crate::{layers, licences, pjdfstest, setup, symbols, tidy};

/// Seeds that each run of the whole check simulates.
pub(crate) const SIMULATOR_SEEDS: u64 = 200;

/// Seeds within which each deliberate defect has to be caught.
pub(crate) const MUTATION_SEEDS: u64 = 1_000;

/// Seconds that each fuzz target runs: enough to see that it works and that nothing shallow broke.
const FUZZ_SECONDS: u64 = 15;

/// Minutes that a step may take; the whole check is meant to end within twenty.
const STEP_MINUTES: u64 = 30;
/// Minutes that one run of the simulator may take, whatever the number of seeds.
const SIMULATION_MINUTES: u64 = 240;

/// How a step ends: as it should,
const PASSED: &str = "ok";
/// not at all, because this machine cannot run it,
const SKIPPED: &str = "skipped";
/// or with findings.
const FAILED: &str = "FAILED";

/// Failed tests that are shown with their output; of further ones only the name.
const TESTS_SHOWN: usize = 10;

/// What has been done so far.
#[derive(Default)]
struct Report {
    /// Of each step its name, its time, and how it ended.
    steps: Vec<(&'static str, Duration, &'static str)>,
    /// Of each step that failed, why.
    reasons: Vec<(&'static str, Vec<String>)>,
    /// Tests passed and failed, as nextest counted them.
    tests: (u64, u64),
    failed_tests: Vec<FailedTest>,
}

/// Run every step.
pub(crate) fn run() -> Outcome {
    let start = Instant::now();
    let mut report = Report::default();
    if let Err(failure) = report.step("set-up", setup::run) {
        let _ = report.close(start.elapsed());
        return Err(failure);
    }
    // Each step has printed its own failure and is counted; the later ones run all the same.
    let _ = report.step("format", || cargo(&["fmt", "--all", "--check"]));
    let _ = report.step("layers", layers::run);
    let _ = report.step("tidy", tidy::run);
    let _ = report.step("licences", licences::run);
    let _ = report.step("lint", || clippy(&["--workspace", "--all-targets"]));
    let _ = report.step("lint as shipped", || clippy(&["-p", "ringfs"]));
    let _ = report.step("simulator", || {
        simulate(&Simulation { seeds: SIMULATOR_SEEDS, start: 0, mutation: None, rest: Vec::new() })
    });
    let _ = report.step("symbols", symbols::run);
    let mut tests = (0, 0);
    let _ = report.step("tests", || test(&mut tests));
    report.tests = tests;
    // Without a report the end of the step's output has to do.
    report.failed_tests = command::read(&failures::report())
        .map_or_else(|_| Vec::new(), |text| failures::parse(&text));
    let _ = report.step("pjdfstest", || pjdfstest::run(None));
    let _ = report.step("fsx", || fsx::run(&Exercise::short()));
    let _ = report.step("doc tests", || cargo(&["test", "--locked", "--workspace", "--doc"]));
    let _ = report.step("fuzz", || setup::fuzz_all(FUZZ_SECONDS));
    report.close(start.elapsed())
}

/// Run the simulator, with the product's optimisation.
pub(crate) fn simulate(simulation: &Simulation) -> Outcome {
    let mut command = command::cargo(SIMULATION_MINUTES);
    command
        .args(["run", "--quiet", "--release", "-p", "ringfs-simulator", "--"])
        .args(["--seeds", &simulation.seeds.to_string()])
        .args(["--start", &simulation.start.to_string()]);
    if let Some(mutation) = &simulation.mutation {
        command.args(["--mutation", mutation]);
    }
    command::run(command.args(&simulation.rest))
}

/// Have the simulator catch deliberate defects.
pub(crate) fn catch_mutations(names: &[String], seeds: u64) -> Outcome {
    let mut command = command::cargo(SIMULATION_MINUTES);
    command.args(["run", "--quiet", "--release", "-p", "ringfs-simulator", "--"]).args([
        "--seeds",
        &seeds.to_string(),
        "--mutations",
    ]);
    command::run(command.args(names))
}

fn cargo(arguments: &[&str]) -> Outcome {
    command::run(command::cargo(STEP_MINUTES).args(arguments))
}

fn clippy(selection: &[&str]) -> Outcome {
    let mut command = command::cargo(STEP_MINUTES);
    command.args(["clippy", "--locked"]).args(selection).args(["--", "-D", "warnings"]);
    command::run(&mut command)
}

/// Run all tests; the process tests use the program as it is shipped.
fn test(counts: &mut (u64, u64)) -> Outcome {
    // That of an earlier run would tell of tests that pass now.
    let _ = std::fs::remove_file(failures::report());
    let mut command = command::cargo(STEP_MINUTES);
    command
        .args(["nextest", "run", "--locked", "--workspace", "--profile=ci"])
        .env("RINGFS_BIN", command::root().join(symbols::PROGRAM));
    command::observe(&mut command, |line| {
        if let Some(found) = parse_summary(line) {
            *counts = found;
        }
    })
}

/// Tests passed and failed, if this is the line with which nextest closes.
fn parse_summary(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("Summary")?;
    let (_, counts) = rest.split_once("run:")?;
    let count = |word: &str| -> u64 {
        let parts = counts.split(',').map(|part| part.split(['(', ')']).next().unwrap_or(part));
        let matching = parts.filter(|part| part.contains(word));
        matching.filter_map(|part| part.split_whitespace().next()?.parse::<u64>().ok()).sum()
    };
    Some((count("passed"), count("failed") + count("timed out") + count("exec failed")))
}

impl Report {
    fn step(&mut self, name: &'static str, run: impl FnOnce() -> Outcome) -> Outcome {
        eprintln!("=== {name}");
        let start = Instant::now();
        let outcome = run();
        let elapsed = start.elapsed();
        let word = match &outcome {
            Ok(()) => PASSED,
            Err(Failure::Skipped(_)) => SKIPPED,
            Err(_) => FAILED,
        };
        if let Err(failure) = &outcome {
            eprintln!("{failure}");
        }
        eprintln!("=== {name}: {word}, {:.1} s", elapsed.as_secs_f64());
        if let (Err(failure), FAILED) = (&outcome, word) {
            let mut reasons = vec![failure.to_string()];
            if let Failure::Ended(_, last) = failure {
                reasons.extend(last.iter().cloned());
            }
            self.reasons.push((name, reasons));
        }
        self.steps.push((name, elapsed, word));
        outcome
    }

    fn close(self, elapsed: Duration) -> Outcome {
        eprintln!("=== summary");
        for (name, elapsed, word) in &self.steps {
            eprintln!("{word:>7} {:>7.1} s  {name}", elapsed.as_secs_f64());
        }
        let ended = |wanted: &str| -> Vec<&'static str> {
            let steps = self.steps.iter().filter(|step| step.2 == wanted);
            steps.map(|&(name, ..)| name).collect()
        };
        let failed = ended(FAILED);
        let (tests_passed, tests_failed) = self.tests;
        eprintln!(
            "{} of {} steps ok, {:.0} s",
            ended(PASSED).len(),
            self.steps.len(),
            elapsed.as_secs_f64(),
        );
        self.show_reasons();
        println!("{tests_passed} passed, {tests_failed} failed");
        if failed.is_empty() { Ok(()) } else { Err(Failure::Steps(failed)) }
    }

    /// Say why steps failed. What is known of single tests tells more than the end of their step.
    fn show_reasons(&self) {
        for (name, reasons) in &self.reasons {
            if *name == "tests" && !self.failed_tests.is_empty() {
                continue;
            }
            eprintln!("=== {name}: FAILED");
            reasons.iter().for_each(|line| eprintln!("    {line}"));
        }
        for (index, test) in self.failed_tests.iter().enumerate() {
            eprintln!("=== FAILED ({}): {}", test.kind, test.name);
            if index < TESTS_SHOWN {
                test.lines.iter().for_each(|line| eprintln!("    {line}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_nextest_is_read() {
        let check = |line, expected| assert_eq!(parse_summary(line), expected, "{line}");
        check("     Summary [   0.1s] 3 tests run: 3 passed, 0 skipped", Some((3, 0)));
        check("     Summary [   0.1s] 3 tests run: 3 passed (1 slow), 0 skipped", Some((3, 0)));
        check(
            "     Summary [  60.1s] 7/9 tests run: 4 passed (2 leaky), 2 failed, 1 timed out, 0 skipped",
            Some((4, 3)),
        );
        check("        PASS [   0.1s] xtask tests::summary", None);
    }
}
