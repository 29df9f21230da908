//! What cannot work is refused in one clear line, and nothing half-made stays behind.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use ringfs_tests::{Sandbox, random_bytes, skip, wait_for, wait_until};

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

#[test]
fn another_shape_than_the_data_has_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--nodes", "2", "--targets", "1"]);
    sandbox.run(["up", "--nodes", "3"]).assert_refused(1, "made with 2 node(s), not 3");
    sandbox.ok(["down"]);
    sandbox.run(["up", "--targets", "2"]).assert_refused(1, "1 target(s) per node, not 2");
    sandbox.run(["up", "--chunk-size", "1M"]).assert_refused(1, "not 1.00 MiB");
    sandbox.ok(["up", "--nodes", "2", "--targets", "1", "--chunk-size", "4M"]);
}

#[test]
fn data_of_others_is_left_alone() {
    let sandbox = Sandbox::new();
    let data = sandbox.path("data");
    sandbox.ok(["up", "--targets", "1", "--data", text(&data)]);
    let other = ["up", "--name", "other", "--data", text(&data)];
    sandbox.run(other).assert_refused(1, "it holds cluster \"ringfs\", not \"other\"");
    let moved = sandbox.path("moved");
    let second = ["up", "--data", text(&moved)];
    sandbox.run(second).assert_refused(1, "cluster \"ringfs\" already lies in");
    assert!(!moved.exists());
    sandbox.ok(["down"]);

    let settings = data.join("cluster.toml");
    let original = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, original.replace("format = 1", "format = 2\nnew = true")).unwrap();
    sandbox.run(["up"]).assert_refused(1, "written by a newer ringfs (format 2");
    std::fs::write(&settings, "damaged").unwrap();
    sandbox.run(["up"]).assert_refused(1, "damaged");
    std::fs::write(&settings, original).unwrap();
    sandbox.ok(["up"]);

    let foreign = sandbox.path("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "text").unwrap();
    let over = ["up", "--name", "third", "--data", text(&foreign)];
    sandbox.run(over).assert_refused(1, "is not empty and holds no cluster");
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1);
}

#[test]
fn data_of_a_target_of_another_cluster_is_refused() {
    let sandbox = Sandbox::new();
    for name in ["one", "two"] {
        sandbox.ok(["up", "--name", name, "--targets", "1", "--data", text(&sandbox.path(name))]);
        sandbox.ok(["down", "--name", name]);
    }
    let target = |name: &str| sandbox.path(name).join("node-0/target-0");
    std::fs::remove_dir_all(target("two")).unwrap();
    std::fs::rename(target("one"), target("two")).unwrap();
    let outcome = sandbox.run(["up", "--name", "two"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("node 0 ended while starting"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("belongs to cluster"), "{}", outcome.stderr);
    assert_eq!(sandbox.pids("two"), [None]);
}

#[test]
fn unusable_directories_are_refused_without_a_trace() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("file");
    std::fs::write(&file, "text").unwrap();
    let up = |data: &Path| sandbox.run(["up", "--targets", "1", "--data", text(data)]);
    up(&file).assert_refused(1, "is not a directory");
    up(&file.join("below")).assert_refused(1, "is not a directory");
    up(Path::new("/proc/ringfs/data"))
        .assert_refused(1, "cannot create the directory /proc/ringfs");
    let deep = sandbox.path("a/b/c");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let on_taken = ["up", "--data", text(&deep), "--listen", &listen];
    sandbox.run(on_taken).assert_refused(1, "address already in use");
    assert!(!sandbox.path("a").exists());
    assert!(!sandbox.path(".local").exists());
}

/// A small file system of its own, if this user may mount one.
fn with_mount(sandbox: &Sandbox, options: &str, body: impl FnOnce(&Path)) {
    if !rustix::process::geteuid().is_root() {
        return skip("mounting needs root");
    }
    let place = sandbox.path("mounted");
    std::fs::create_dir(&place).unwrap();
    let mount = ["-t", "tmpfs", "-o", options, "ringfs-test", text(&place)];
    if !Command::new("mount").args(mount).status().is_ok_and(|status| status.success()) {
        return skip("this machine forbids mounting");
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&place)));
    assert!(Command::new("umount").arg(&place).status().unwrap().success());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_full_disk_is_refused_at_the_start() {
    let sandbox = Sandbox::new();
    with_mount(&sandbox, "size=40m", |place| {
        let data = place.join("data");
        let up = ["up", "--targets", "1", "--data", text(&data)];
        sandbox.run(up).assert_refused(1, "is full");
        assert!(!data.exists());
    });
}

#[test]
fn a_read_only_disk_is_refused_at_the_start() {
    let sandbox = Sandbox::new();
    with_mount(&sandbox, "ro", |place| {
        let up = |data: &Path| sandbox.run(["up", "--targets", "1", "--data", text(data)]);
        up(&place.join("data")).assert_refused(1, "read-only file system");
        up(place).assert_refused(1, "read-only file system");
        assert_eq!(std::fs::read_dir(place).unwrap().count(), 0);
    });
}

#[test]
fn a_port_taken_meanwhile_is_exchanged_or_told() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--nodes", "2", "--targets", "1"]);
    let address = |node: usize| {
        let status = sandbox.status("ringfs");
        status["nodes"][node]["address"].as_str().unwrap().to_owned()
    };
    let first = address(0);
    let pids = sandbox.pids("ringfs");
    sandbox.kill(&pids[..1]);
    wait_until("the end of a killed server", || sandbox.pids("ringfs")[0].is_none());
    // The kernel takes the sockets of a killed ring back a while after the process has gone.
    let thief = wait_for("the port of a killed server", || TcpListener::bind(&first).ok());
    // The other node runs and knows this one by its port.
    let told = sandbox.run(["up"]);
    told.assert_refused(1, &format!("cannot listen on {first}: address already in use"));
    assert_eq!(sandbox.pids("ringfs"), [None, pids[1]]);
    sandbox.ok(["down"]);
    sandbox.ok(["up"]);
    assert_ne!(address(0), first);
    assert_eq!(sandbox.status("ringfs")["epoch"], 2);
    drop(thief);
}

#[test]
fn strangers_are_turned_away_and_the_server_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--targets", "1"]);
    sandbox.ok(["mkdir", "/kept"]);
    let pids = sandbox.pids("ringfs");
    let status = sandbox.status("ringfs");
    let address = status["nodes"][0]["address"].as_str().unwrap();
    for seed in 0..20 {
        let mut stranger = TcpStream::connect(address).unwrap();
        // The server may close before everything is sent.
        let _ = stranger.write_all(&random_bytes(seed, 1 + 500 * seed as usize));
        let _ = stranger.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stranger.read_to_end(&mut answer);
        assert!(answer.len() < 1024, "a stranger got {} bytes", answer.len());
    }
    let key = sandbox.path(".local/share/ringfs/ringfs/key");
    let right = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, "0".repeat(64)).unwrap();
    let outcome = sandbox.run(["ls"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("another cluster key"), "{}", outcome.stderr);
    std::fs::write(&key, right).unwrap();
    assert_eq!(sandbox.ok(["ls"]), "kept\n");
    assert_eq!(sandbox.pids("ringfs"), pids);
    assert!(sandbox.ok(["logs"]).contains("connection refused"));
}
