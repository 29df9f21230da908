//! A few seeds under every fault, and each deliberate defect: what the nightly swarm does at large.

use ringfs_simulator::{Mutation, RunOptions, run};

/// Seeds that once found a defect, and some others.
const SEEDS: [u64; 10] = [0, 1, 6, 18, 47, 378, 505, 653, 1485, 4010];

#[test]
fn seeds_pass_and_take_the_same_course_twice() {
    for seed in SEEDS {
        let options = RunOptions { check: true, ..RunOptions::default() };
        let report = run(seed, options);
        assert_eq!(report.failure, None, "seed {seed}\n{}", report.history);
        let again = run(seed, RunOptions { check: false, ..options });
        assert_eq!(report.trace, again.trace, "seed {seed} takes two courses");
    }
}

#[test]
fn a_defect_is_caught() {
    let options =
        RunOptions { mutation: Some(Mutation::DropLogSync), check: true, ..RunOptions::default() };
    assert!((0..50).any(|seed| run(seed, options).failure.is_some()), "no seed caught it");
}
