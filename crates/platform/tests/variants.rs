//! One contract for all variants: io_uring, polling, and the simulation from several seeds.

mod contract;

use std::cell::Cell;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{
    Faults, Outcome, Platform, RuntimeOptions, SimulatedNode, Simulation, SimulationOptions, run,
};

const SEEDS: u64 = 10;

/// One part of the contract: runs with an empty directory to work in.
type Part = fn(Platform, PathBuf) -> Pin<Box<dyn Future<Output = ()>>>;

fn options_with_spin() -> RuntimeOptions {
    RuntimeOptions { spin: Duration::from_micros(50), ..RuntimeOptions::default() }
}

fn on_kernel(part: Part, options: RuntimeOptions) {
    let dir = tempfile::tempdir().expect("a directory to work in");
    let path = dir.path().to_owned();
    run(options, |platform| part(platform, path)).expect("a runtime");
}

/// Runs a part in a slow but faultless world and gives the trace.
fn simulate(part: Part, seed: u64) -> u64 {
    let faults = Faults {
        delay_max: Duration::from_millis(3),
        disk_latency_max: Duration::from_millis(3),
        ..Faults::default()
    };
    let options = SimulationOptions { faults, ..SimulationOptions::default() };
    let simulation = Simulation::new(seed, options);
    let platform = simulation.platform(SimulatedNode(1));
    let done = Rc::new(Cell::new(false));
    let finished = done.clone();
    let start = |platform: Platform| async move {
        let dir = PathBuf::from("/work");
        platform.disk().mkdir(&dir, 0o700).await.expect("mkdir");
        part(platform, dir).await;
        finished.set(true);
    };
    platform.spawn(start(platform.clone()));
    let outcome = simulation.run_until(|| done.get(), Duration::from_secs(600));
    assert_eq!(outcome, Outcome::Done, "seed {seed}");
    simulation.trace()
}

macro_rules! contract {
    ($($module:ident :: $part:ident),* $(,)?) => {
        $(mod $part {
            use super::*;

            const PART: Part = |platform, dir| Box::pin(contract::$module::$part(platform, dir));

            #[test]
            fn io_uring() {
                on_kernel(PART, RuntimeOptions::default());
            }

            #[test]
            fn polling() {
                on_kernel(PART, RuntimeOptions { polling: true, ..RuntimeOptions::default() });
            }

            #[test]
            fn spinning() {
                on_kernel(PART, options_with_spin());
            }

            #[test]
            fn simulated() {
                for seed in 0..SEEDS {
                    assert_eq!(simulate(PART, seed), simulate(PART, seed), "seed {seed}");
                }
            }
        })*
    };
}

contract! {
    disk::reads_what_was_written,
    disk::opens_as_asked,
    disk::transfers_directly,
    disk::keeps_names,
    disk::keeps_sparse_files,
    disk::locks_exclude,
    disk::runs_operations_at_once,
    disk::survives_dropped_operations,
    time::keeps_time,
    time::runs_tasks,
    time::draws_numbers,
    time::runs_shards,
    time::bounds_mailboxes,
    links::carries_frames,
    links::bulk_is_aligned,
    links::pipelines,
    links::holds_back,
    links::ends_in_order,
    links::half_a_link_stays_open,
    links::refuses_bad_headers,
    links::tells_who_listens,
    links::reunites_halves,
    links::moves_between_shards,
}
