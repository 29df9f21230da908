//! The same calls on a mount and on a local directory, and the program that compares them: it finds
//! nothing where there is nothing, and does find what differs.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringfs_tests::{Sandbox, can_mount, skip};
use tempfile::TempDir;

/// A directory that every user may enter, on the local disk.
fn directory() -> TempDir {
    let made = tempfile::tempdir().expect("a directory");
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(made.path(), open_to_all).expect("it is ours");
    made
}

fn compare(arguments: &[&str], local: &Path, doors: [&Path; 2]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "240"]).arg(env!("CARGO_BIN_EXE_compare"));
    command.args(arguments).arg("--local").arg(local).args(doors);
    command.output().expect("the program starts")
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("only root can be two users");
    }
    root
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// Two nodes of two targets each with two mounts.
fn mounts() -> (Sandbox, [PathBuf; 2]) {
    let sandbox = Sandbox::new();
    let base = sandbox.path("").canonicalize().expect("the sandbox is there");
    let (one, two) = (base.join("one"), base.join("two"));
    sandbox.ok(["up", "--nodes", "2", "--targets", "2", "--mount", text(&one)]);
    std::fs::create_dir(&two).expect("it is new");
    sandbox.ok(["mount", text(&two)]);
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    (sandbox, [one, two])
}

fn assert_no_difference(output: &Output) {
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_mount_does_what_a_local_directory_does() {
    if !can_mount() {
        return;
    }
    let (local, (_sandbox, [one, two])) = (directory(), mounts());
    let output = compare(&["--seeds", "4", "--steps", "700"], local.path(), [&one, &two]);
    assert_no_difference(&output);
}

/// Each file holds steps after which something was not as on a local directory.
#[test]
fn what_differed_once_does_no_more() {
    if !can_mount() {
        return;
    }
    let (local, (_sandbox, [one, two])) = (directory(), mounts());
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compare");
    for file in files.read_dir().expect("they are there").flatten() {
        let output = compare(&["--replay", text(&file.path())], local.path(), [&one, &two]);
        assert_no_difference(&output);
    }
}

#[test]
fn a_local_directory_does_what_another_one_does() {
    if !is_root() {
        return;
    }
    let (local, other) = (directory(), directory());
    let output = compare(&["--seed", "9", "--steps", "1500"], local.path(), [other.path(); 2]);
    assert_no_difference(&output);
    let left = |directory: &TempDir| directory.path().read_dir().expect("a directory").count();
    assert_eq!((left(&local), left(&other)), (0, 0), "the program cleans up");
}

#[test]
fn a_difference_is_found_and_shortened() {
    if !is_root() {
        return;
    }
    // Two doors to different rooms: what is made through one is not seen through the other.
    let (local, one, two) = (directory(), directory(), directory());
    let doors = [one.path(), two.path()];
    let output = compare(&["--seed", "5", "--steps", "500"], local.path(), doors);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("DIFFERENCE"), "{told}");
    let steps: Vec<&str> = told.lines().filter(|line| line.starts_with('{')).collect();
    assert!((1..=3).contains(&steps.len()), "{told}");
    let file = local.path().join("steps");
    std::fs::write(&file, steps.join("\n")).expect("there is room");
    let again = compare(&["--replay", file.to_str().expect("text")], local.path(), doors);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
}
