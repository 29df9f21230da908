//! A short storm of kills, and a proof that the storm sees what is missing.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::process::{Command, Output};

use ringfs_tests::can_mount;

fn storm(arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_storm");
    Command::new(program).args(arguments).output().expect("the storm starts")
}

#[test]
fn nothing_acknowledged_is_lost_in_a_storm_of_kills() {
    if !can_mount() {
        return;
    }
    let output = storm(&["--seconds", "10", "--seed", "7"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.ends_with("nothing acknowledged is missing\n"), "{text}");
}

#[test]
fn a_storm_sees_what_is_missing() {
    if !can_mount() {
        return;
    }
    let output = storm(&["--seconds", "2", "--writers", "2", "--canary"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FINDING w0/") && text.contains("it is gone"), "{text}");
}
