//! `ringfs check` on real servers whose files were damaged on purpose.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::path::{Path, PathBuf};

use ringfs_tests::Sandbox;
use serde_json::Value;

/// A file of this size has chunks at every target.
const LARGE: usize = 24 << 20;

/// Starts a cluster with a tree in it.
fn cluster(sandbox: &Sandbox) {
    sandbox.ok(["up", "--nodes", "2", "--targets", "2", "--chunk-size", "1MiB"]);
    let tree = sandbox.path("tree");
    std::fs::create_dir_all(tree.join("below")).unwrap();
    std::fs::write(tree.join("below/small"), "a few bytes").unwrap();
    std::fs::write(tree.join("large"), vec![7; LARGE]).unwrap();
    std::fs::hard_link(tree.join("below/small"), tree.join("link")).unwrap();
    sandbox.ok(["put", tree.to_str().unwrap(), "/"]);
}

fn check(sandbox: &Sandbox, code: i32, more: &[&str]) -> Value {
    let outcome = sandbox.run([&["check", "--json"], more].concat());
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn kinds(report: &Value) -> Vec<&str> {
    let problems = report["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["kind"].as_str().unwrap()).collect()
}

/// Files below the data directory whose path contains `part`.
fn files(directory: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, part));
        } else if path.to_str().unwrap().contains(part) {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn what_fits_is_told_in_one_line() {
    let sandbox = Sandbox::new();
    cluster(&sandbox);
    let text = sandbox.ok(["check"]);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("5 inode(s), 5 name(s)") && text.contains("everything fits"), "{text}");
    let report = check(&sandbox, 0, &[]);
    assert_eq!((report["clean"].as_bool(), kinds(&report).len()), (Some(true), 0));
}

#[test]
fn a_lost_segment_and_leaked_chunks_are_found_and_repaired() {
    let sandbox = Sandbox::new();
    cluster(&sandbox);
    let data = sandbox.path(".local/share/ringfs/ringfs");
    let segment = files(&data, "/segments/").remove(0);
    let saved = sandbox.path("saved");
    std::fs::rename(&segment, &saved).unwrap();
    let report = check(&sandbox, 1, &[]);
    assert_eq!(kinds(&report), ["segment-missing"]);
    assert_eq!(report["problems"][0]["path"], "/tree/large");
    std::fs::rename(&saved, &segment).unwrap();
    assert_eq!(check(&sandbox, 0, &[])["clean"], true);

    // Chunks of an inode that does not exist, where a server finds them when it starts.
    sandbox.ok(["down"]);
    let shard = segment.parent().unwrap().with_file_name("63");
    std::fs::create_dir_all(&shard).unwrap();
    let leak = shard.join("0000770000000063-0");
    std::fs::write(&leak, vec![1; 300_000]).unwrap();
    sandbox.ok(["up"]);
    let report = check(&sandbox, 1, &[]);
    assert_eq!(kinds(&report), ["leaked-chunks"]);
    assert_eq!(report["problems"][0]["inode"], "770000000063");
    let report = check(&sandbox, 0, &["--repair"]);
    assert_eq!(report["repairs"][0]["outcome"], "repaired");
    assert!(!leak.exists());
    assert_eq!(check(&sandbox, 0, &[])["clean"], true);
    let copy = sandbox.path("copy");
    sandbox.ok(["get", "/tree/large", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(copy).unwrap(), vec![7; LARGE]);
}

#[test]
fn a_segment_that_goes_while_its_server_is_down_is_missed() {
    let sandbox = Sandbox::new();
    cluster(&sandbox);
    sandbox.ok(["down"]);
    let segment = files(&sandbox.path(".local/share/ringfs/ringfs"), "/segments/").remove(0);
    std::fs::remove_file(&segment).unwrap();
    // Also at a later start.
    for _ in 0..2 {
        sandbox.ok(["up"]);
        let report = check(&sandbox, 1, &["--repair"]);
        assert_eq!(kinds(&report), ["segment-missing"]);
        let copy = sandbox.path("copy");
        let get = sandbox.run(["get", "/tree/large", copy.to_str().unwrap()]);
        assert_eq!(get.code, Some(1), "no zeros in place of what was lost");
        sandbox.ok(["down"]);
    }
    sandbox.ok(["up"]);
    let report = check(&sandbox, 0, &["--repair", "--accept-loss"]);
    assert_eq!(report["repairs"][0]["outcome"], "repaired");
    sandbox.ok(["get", "/tree/large", sandbox.path("rest").to_str().unwrap()]);
    assert_eq!(std::fs::read(sandbox.path("rest")).unwrap().len(), LARGE);
}

#[test]
fn damaged_files_are_named_whether_their_server_runs_or_not() {
    let sandbox = Sandbox::new();
    cluster(&sandbox);
    let data = sandbox.path(".local/share/ringfs/ringfs");
    let log = files(&data.join("node-1"), "/log-0000000000000000").remove(0);
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[100] ^= 1;
    // In place: the server has the file open.
    std::fs::write(&log, &bytes).unwrap();
    let report = check(&sandbox, 1, &[]);
    assert_eq!(kinds(&report), ["damaged-file"]);
    let what = report["problems"][0]["what"].as_str().unwrap();
    assert!(what.contains(log.to_str().unwrap()) && what.contains("damaged at byte"), "{what}");

    sandbox.ok(["down"]);
    let outcome = sandbox.run(["up"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("damaged at byte"), "{outcome:?}");
    let status = sandbox.run(["status"]).stdout;
    assert!(status.contains("Down: node 1 cannot start") && status.contains("damaged at byte"));
    let outcome = sandbox.run(["check"]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let text = &outcome.stdout;
    let expected = "not checked: target(s) 2, 3: node 1 cannot start: target 2 in";
    assert!(text.contains(expected) && text.contains("damaged at byte"), "{text}");
}

#[test]
fn a_cluster_that_is_down_is_not_checked() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--targets", "1"]);
    sandbox.ok(["down"]);
    let outcome = sandbox.run(["check"]);
    outcome.assert_refused(3, "can only be checked while it runs: start it with `ringfs up");
}
