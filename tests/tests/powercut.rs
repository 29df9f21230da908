//! A few losses of power, and a proof that what is lost by them is seen.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::process::{Command, Output};

use ringfs_tests::can_mount;

fn powercut(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_powercut");
    Command::new(program).args(arguments).output().expect("the program starts")
}

#[test]
fn what_was_synced_survives_a_loss_of_power() {
    if !can_mount() {
        return;
    }
    let output = powercut(&["--rounds", "2", "--seconds", "1", "--seed", "3"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.ends_with("every promise kept\n"), "{text}");
}

#[test]
fn a_promise_without_a_sync_is_caught() {
    if !can_mount() {
        return;
    }
    let output = powercut(&["--rounds", "5", "--seconds", "1", "--canary"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FINDING round"), "{text}");
    assert!(
        text.contains("synced") || text.contains("version") || text.contains("names"),
        "{text}"
    );
}
