//! Clusters come up, go down, come back, and live beside each other.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use ringfs_tests::{Sandbox, wait_until};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_cluster_comes_up_goes_down_and_comes_back() {
    let sandbox = Sandbox::new();
    let summary = sandbox.ok(["up", "--nodes", "2", "--targets", "2"]);
    assert!(summary.contains("2 node(s), 4 target(s)"), "{summary}");
    let status = sandbox.status("ringfs");
    assert_eq!(status["health"], "ok");
    let id = status["id"].clone();
    sandbox.ok(["mkdir", "/kept"]);

    // Over a running cluster nothing happens.
    let before = sandbox.pids("ringfs");
    assert!(sandbox.ok(["up"]).contains("runs already"));
    assert_eq!(sandbox.pids("ringfs"), before);

    assert!(sandbox.ok(["down"]).contains("2 node(s) stopped"));
    let status = sandbox.run(["status", "--json"]);
    assert_eq!(status.code, Some(1));
    assert!(status.stdout.contains("\"health\": \"down\""), "{}", status.stdout);
    sandbox.run(["ls", "/"]).assert_refused(1, "is down: start it with `ringfs up");
    assert!(sandbox.ok(["down"]).contains("was not running"));

    sandbox.ok(["up"]);
    assert_eq!(sandbox.status("ringfs")["id"], id);
    assert_eq!(sandbox.ok(["ls", "/"]), "kept\n");

    sandbox.ok(["down", "--wipe"]);
    assert!(!sandbox.path(".local/share/ringfs/ringfs").exists());
    sandbox.run(["ls", "/"]).assert_refused(1, "there is no cluster \"ringfs\"");
}

#[test]
fn what_is_missing_is_started_and_the_rest_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--nodes", "2", "--targets", "1"]);
    let before = sandbox.pids("ringfs");
    sandbox.kill(&before[1..]);
    wait_until("the end of a killed server", || sandbox.pids("ringfs")[1].is_none());
    assert_eq!(sandbox.run(["status"]).code, Some(1));
    let summary = sandbox.ok(["up"]);
    assert!(summary.contains("is complete again"), "{summary}");
    let after = sandbox.pids("ringfs");
    assert_eq!(after[0], before[0]);
    assert!(after[1].is_some() && after[1] != before[1]);
    assert_eq!(sandbox.status("ringfs")["health"], "ok");
}

#[test]
fn a_status_waits_no_longer_for_a_server_that_died() {
    /// Less than a status grants a server that lives, more than anything else takes.
    const WELL_BELOW_PATIENCE: Duration = Duration::from_secs(8);
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--nodes", "2", "--targets", "1"]);
    let nodes = sandbox.pids("ringfs");
    let silent = Pid::from_raw(nodes[1].expect("it runs")).expect("process ids are positive");
    kill_process(silent, Signal::STOP).unwrap();
    let mut command = sandbox.command(["status", "--json"]);
    let asking = command.stdout(Stdio::piped()).spawn().unwrap();
    // It has a connection to the node that is silent: what is left to do is to wait.
    wait_until("a status that asks", || is_connecting(asking.id()));
    let start = Instant::now();
    sandbox.kill(&nodes[1..]);
    let output = asking.wait_with_output().unwrap();
    assert!(start.elapsed() < WELL_BELOW_PATIENCE, "{:?}", start.elapsed());
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["health"], "degraded", "{status}");
    assert_eq!(status["nodes"][1]["targets"][0]["state"], "down", "{status}");
    assert!(status["nodes"][1]["pid"].is_null(), "{status}");
}

/// Whether a process has sockets: a program that only starts has none.
fn is_connecting(pid: u32) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.any(|link| link.to_string_lossy().starts_with("socket:"))
}

#[test]
fn a_second_cluster_lives_beside_the_first() {
    let sandbox = Sandbox::new();
    let data = sandbox.path("elsewhere");
    sandbox.ok(["up", "--targets", "1"]);
    sandbox.ok(["up", "--name", "second", "--targets", "1", "--data", data.to_str().unwrap()]);
    sandbox.ok(["mkdir", "/first"]);
    sandbox.ok(["mkdir", "--name", "second", "/second"]);
    assert_eq!(sandbox.ok(["ls"]), "first\n");
    assert_eq!(sandbox.ok(["ls", "--name", "second"]), "second\n");
    let mut command = sandbox.command(["ls"]);
    let output = command.env("RINGFS_CLUSTER", "second").output().unwrap();
    assert_eq!(output.stdout, b"second\n");
    sandbox.ok(["down", "--name", "second", "--wipe"]);
    assert!(!data.exists());
    assert_eq!(sandbox.ok(["ls"]), "first\n");
}

#[test]
fn a_node_runs_in_the_foreground_and_stops_on_sigterm() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--targets", "1"]);
    sandbox.ok(["mkdir", "/kept"]);
    sandbox.ok(["down"]);
    let mut node = sandbox.start(["serve", "--node", "0"]);
    wait_until("a node that serves", || {
        assert!(node.try_wait().unwrap().is_none(), "the node ended");
        sandbox.status("ringfs")["health"] == "ok"
    });
    assert_eq!(sandbox.ok(["ls"]), "kept\n");
    sandbox.run(["serve", "--node", "0"]).assert_refused(1, "node 0 runs already");
    sandbox.run(["serve", "--node", "7"]).assert_refused(1, "has no node 7");
    let pid = Pid::from_raw(node.id() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

#[test]
fn a_node_serves_although_its_log_cannot_be_written() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--targets", "1"]);
    sandbox.ok(["down"]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = sandbox.command(["serve", "--node", "0"]);
    let mut node = command.stderr(full).spawn().unwrap();
    wait_until("a node that serves", || {
        assert!(node.try_wait().unwrap().is_none(), "the node ended");
        sandbox.status("ringfs")["health"] == "ok"
    });
    sandbox.ok(["mkdir", "/made"]);
    sandbox.ok(["down"]);
    assert_eq!(node.wait().unwrap().code(), Some(0));
}

#[test]
fn a_node_with_few_descriptors_serves_many_files() {
    const FILES: usize = 120;
    let sandbox = Sandbox::new();
    let up = sandbox.command(["up", "--targets", "1"]);
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--nofile=64").arg(up.get_program()).args(up.get_args());
    for (name, value) in up.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    let output = limited.output().expect("util-linux is there");
    assert!(output.status.success(), "{output:?}");
    // Each reaches beyond the head, and so has a local file of its own.
    let (folder, copy) = (sandbox.path("folder"), sandbox.path("copy"));
    std::fs::create_dir(&folder).unwrap();
    for index in 0..FILES {
        std::fs::write(folder.join(index.to_string()), vec![index as u8; 100_000]).unwrap();
    }
    sandbox.ok(["put", "--sync", folder.to_str().unwrap(), "/"]);
    sandbox.ok(["get", "/folder", copy.to_str().unwrap()]);
    for index in 0..FILES {
        let found = std::fs::read(copy.join(index.to_string())).unwrap();
        assert!(found == vec![index as u8; 100_000], "{index}");
    }
    assert_eq!(sandbox.status("ringfs")["health"], "ok");
}

#[test]
fn logs_tell_which_node_said_what() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--nodes", "2", "--targets", "1"]);
    let logs = sandbox.ok(["logs"]);
    assert!(logs.contains("node 0 | ") && logs.contains("node 1 | "), "{logs}");
    let one = sandbox.ok(["logs", "--node", "1", "-n", "1"]);
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(!one.contains("node 1 | "), "{one}");
    sandbox.run(["logs", "--node", "2"]).assert_refused(1, "has no node 2");
}
