//! Every benchmark runs to its end with tiny counts, gives figures, and leaves nothing behind.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "process tests start processes and look at files from outside"
)]

use std::process::Command;

fn check(arguments: &[&str], rows: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_ringfs-bench"))
        .args(arguments)
        .args(["--json", "--clients", "2", "--directory"])
        .arg(directory.path())
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for name in rows {
        let mut found = report["rows"].as_array().expect("rows").iter();
        let row = found.find(|row| row["name"] == *name).expect("a row of each arm");
        assert!(row["median"].as_f64().expect("a figure") > 0.0, "{row}");
    }
    let left: Vec<_> = std::fs::read_dir(directory.path()).expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn echo() {
    check(
        &["echo", "--rounds", "1", "--seconds", "0.05"],
        &["bare compio echo", "bare echo, runtime of platform", "RingFS Echo"],
    );
}

#[test]
fn metadata() {
    check(
        &["metadata", "--rounds", "1", "--seconds", "0.05"],
        &["bare compio echo", "RingFS Echo", "create", "stat"],
    );
}

#[test]
fn bulk() {
    check(
        &["bulk", "--rounds", "2", "--mebibytes", "6"],
        &["bare receive + pwrite", "RingFS write", "bare pread + send", "RingFS read"],
    );
}

#[test]
fn memory() {
    check(&["memory", "--inodes", "200"], &["at rest", "filled", "creates while filling"]);
}
