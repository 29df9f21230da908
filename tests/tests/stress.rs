//! The stress checker itself: it finds nothing on a local directory, and does find what is stale.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::path::Path;
use std::process::{Command, Output};

fn stress(arguments: &[&str], directories: [&Path; 2]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stress"))
        .args(arguments)
        .args(directories)
        .output()
        .expect("the checker starts")
}

#[test]
fn a_local_directory_seen_twice_is_never_stale() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = stress(&["--seconds", "4"], [directory.path(); 2]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.ends_with("0 stale\n"), "{text}");
    assert!(text.contains("mapping: true"), "mappings are part of the check: {text}");
    let left = directory.path().read_dir().expect("a directory").count();
    assert_eq!(left, 0, "the checker cleans up");
}

#[test]
fn every_kind_of_stale_answer_is_found() {
    for call in ["create", "unlink", "rename", "chmod", "pwrite", "text-append", "utimens"] {
        let directory = tempfile::tempdir().expect("a directory");
        let arguments = ["--seconds", "40", "--canary", call];
        let output = stress(&arguments, [directory.path(); 2]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{call}: {text}");
        assert!(text.contains("STALE") || text.contains("REFUSED"), "{call}: {text}");
    }
}

#[test]
fn two_different_directories_are_refused() {
    let (one, other) = (tempfile::tempdir(), tempfile::tempdir());
    let directories = [one.as_ref(), other.as_ref()].map(|made| made.expect("a directory").path());
    let empty = |path: &Path| path.read_dir().expect("a directory").count() == 0;
    let output = stress(&["--seconds", "1"], directories);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("not seen through the other directory"), "{text}");
    assert!(directories.into_iter().all(empty), "nothing is left behind");
}
