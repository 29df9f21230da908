//! `ringfs bench` runs to its end through every door, notices damage, and leaves nothing behind.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};

use ringfs_tests::{Sandbox, can_mount};
use rustix::process::{Pid, Signal};

/// So little that a run takes seconds even on a busy machine.
const SMALL: [&str; 11] = [
    "bench",
    "--quick",
    "--seconds",
    "0.05",
    "--size",
    "2MiB",
    "--files",
    "120",
    "--clients",
    "2",
    "--store",
];

/// All phases, in their order.
const PHASES: [&str; 15] = [
    "ior-easy-write",
    "rnd4K-write",
    "mdtest-easy-write",
    "ior-hard-write",
    "mdtest-hard-write",
    "write4K-fsync",
    "find",
    "ior-easy-read",
    "rnd4K-read",
    "mdtest-easy-stat",
    "ior-hard-read",
    "mdtest-hard-stat",
    "mdtest-easy-delete",
    "mdtest-hard-read",
    "mdtest-hard-delete",
];

/// A small run with these arguments, in JSON; its files go to `store` where they have no other
/// place.
fn measure(sandbox: &Sandbox, arguments: &[&str]) -> serde_json::Value {
    let store = directory(sandbox, "store");
    let all = SMALL.iter().copied().chain([store.as_str()]).chain(arguments.iter().copied());
    let results = sandbox.ok(all.chain(["--json", "-"]));
    assert_empty(Path::new(&store));
    serde_json::from_str(&results).expect("results are JSON")
}

fn directory(sandbox: &Sandbox, name: &str) -> String {
    let path = sandbox.path(name);
    std::fs::create_dir_all(&path).expect("directories can be made");
    path.to_str().expect("paths of tests are text").to_owned()
}

#[track_caller]
fn assert_empty(directory: &Path) {
    let entries = std::fs::read_dir(directory).expect("the directory is there");
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    assert!(names.is_empty(), "{names:?}");
}

/// Every phase has done something on `side`.
fn assert_whole(results: &serde_json::Value, side: &str) {
    let phases = results["phases"].as_array().expect("results have phases");
    let names: Vec<_> =
        phases.iter().map(|phase| phase["name"].as_str().expect("a name")).collect();
    assert_eq!(names, PHASES);
    for phase in phases {
        let figure = |name: &str| phase[side][name].as_f64().expect("a figure");
        assert!(figure("median") > 0.0 && figure("operations") > 0.0, "{phase}");
        assert!(figure("seconds") > 0.0, "{phase}");
    }
    assert!(results["scores"][side]["total"].as_f64().expect("a score") > 0.0);
}

fn limits(results: &serde_json::Value) -> Vec<&str> {
    let limits = results["limits"].as_array().expect("results have limits");
    limits.iter().map(|limit| limit["name"].as_str().expect("a name")).collect()
}

#[test]
fn a_cluster_is_made_measured_beside_a_directory_and_removed() {
    let sandbox = Sandbox::new();
    let beside = directory(&sandbox, "beside");
    let report = sandbox.path("report.html");
    let page = report.to_str().expect("paths of tests are text");
    let results =
        measure(&sandbox, &["--rounds", "2", "--against", beside.as_str(), "--html", page]);
    assert_whole(&results, "door");
    assert_whole(&results, "against");
    let shown = ["memcpy", "bare-echo", "echo-rpc", "bare-write", "bare-read", "echo-alone"];
    assert_eq!(limits(&results), shown);
    assert!(results["limits"][3]["server_cpu_seconds_per_gib"].is_f64());
    let phase = &results["phases"][0];
    assert_eq!(phase["door"]["rounds"].as_array().map(Vec::len), Some(2));
    assert!(phase["door"]["server_peak_bytes"].as_f64().expect("a server is here") > 1e6);
    assert!(phase["to_limit"]["median"].as_f64().expect("a limit") > 0.0);
    assert!(std::fs::read_to_string(&report).expect("a report").contains("</html>"));
    assert_empty(Path::new(&beside));
}

#[test]
fn a_running_cluster_and_any_directory_are_measured_and_left_as_they_were() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--nodes", "2", "--targets", "1"]);
    sandbox.ok(["mkdir", "/mine"]);
    let results = measure(&sandbox, &["--name", "ringfs"]);
    assert_whole(&results, "door");
    assert_eq!(sandbox.ok(["ls", "/"]), "mine\n");

    let plain = directory(&sandbox, "plain");
    std::fs::write(sandbox.path("plain/mine"), "x").expect("files can be written");
    let results = measure(&sandbox, &["--door", plain.as_str()]);
    assert_whole(&results, "door");
    assert_eq!(limits(&results), ["memcpy", "bare-echo", "bare-write", "bare-read"]);
    std::fs::remove_file(sandbox.path("plain/mine")).expect("it was left alone");
    assert_empty(Path::new(&plain));
}

#[test]
fn a_mount_is_made_for_the_run_or_found() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    assert_whole(&measure(&sandbox, &["--door", "mount", "--drop-caches"]), "door");
    let place = directory(&sandbox, "place");
    sandbox.ok(["up", "--targets", "1", "--mount", place.as_str()]);
    let results = measure(&sandbox, &["--door", "mount", place.as_str()]);
    assert_whole(&results, "door");
    assert!(limits(&results).contains(&"echo-rpc"));
    assert_eq!(sandbox.ok(["ls", "/"]), "");
}

#[test]
fn single_costs_are_measured_beside_their_limits() {
    let sandbox = Sandbox::new();
    let results = measure(&sandbox, &["--only", "alone", "--idle", "0.2"]);
    let ratio = &results["phases"][0]["to_limit"];
    assert_eq!(ratio["to"], "echo-alone");
    assert!(ratio["median_us"].as_f64().expect("a ratio of durations") > 0.0);
    assert!(results["idle"]["resident_bytes"].as_f64().expect("a server is here") > 1e6);
    if !can_mount() {
        return;
    }
    let only = ["--door", "mount", "--only", "lease", "direct", "create-unlink"];
    let results = measure(&sandbox, &only);
    let phases = results["phases"].as_array().expect("results have phases");
    let beside: Vec<_> = phases
        .iter()
        .map(|phase| {
            assert!(phase["to_limit"]["median"].as_f64().expect("a ratio") > 0.0, "{phase}");
            let text = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
            (text(&phase["name"]), text(&phase["to_limit"]["to"]))
        })
        .collect();
    let expected = [
        ("ior-easy-write", "bare-mount"),
        ("rnd4K-write", "bare-mount"),
        ("create-unlink", "bare-mount"),
        ("direct4K-read", "bare-mount"),
        ("direct1M-read", "bare-mount"),
        ("lease-stat", "plain"),
        ("lease-read4K", "plain"),
        ("lease-read1M", "plain"),
        ("lease-open", "bare-mount"),
    ];
    assert_eq!(beside, expected.map(|(name, to)| (name.to_owned(), to.to_owned())));
}

#[test]
fn a_flipped_bit_fails_the_run() {
    let sandbox = Sandbox::new();
    let plain = directory(&sandbox, "plain");
    for door in ["client", plain.as_str()] {
        let store = directory(&sandbox, "store");
        let arguments = SMALL.iter().copied().chain([store.as_str(), "--door", door, "--damage"]);
        let outcome = sandbox.run(arguments);
        outcome.assert_refused(1, "ior-easy/file.0: the byte at 1 is not what was written");
        assert_empty(Path::new(&store));
        assert_empty(Path::new(&plain));
    }
}

#[test]
fn what_cannot_be_measured_is_told_in_one_line() {
    let sandbox = Sandbox::new();
    let store = directory(&sandbox, "store");
    let refuse = |arguments: &[&str], code, text: &str| {
        let all = SMALL.iter().copied().chain([store.as_str()]).chain(arguments.iter().copied());
        sandbox.run(all).assert_refused(code, text);
        assert_empty(Path::new(&store));
    };
    refuse(&["--door", "fuse"], 2, "expected client, mount, mount DIR");
    refuse(&["--door", "mount", store.as_str()], 2, "lies in no mount of RingFS");
    refuse(&["--door", "/does/not/exist"], 1, "no such file");
    refuse(&["--json", "/does/not/exist/file"], 2, "cannot be a file");
    refuse(&["--rounds", "0"], 2, "--rounds takes 1");
    refuse(&["--only", "lease"], 2, "it is about mounts and directories");
    refuse(&["--name", "other"], 1, "there is no cluster \"other\"");
    let huge = ["bench", "--size", "900TiB", "--store", store.as_str()];
    sandbox.run(huge).assert_refused(1, "choose a smaller --size");
}

#[test]
fn an_interrupted_run_removes_what_it_made() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--targets", "1"]);
    let store = directory(&sandbox, "store");
    for (signal, code) in [(Signal::INT, Some(1)), (Signal::KILL, None)] {
        let arguments = [
            "bench",
            "--name",
            "ringfs",
            "--clients",
            "2",
            "--size",
            "8MiB",
            "--files",
            "2000",
            "--rounds",
            "1000",
            "--store",
            store.as_str(),
        ];
        let mut command = sandbox.command(arguments);
        let mut run =
            command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
        // What removes the directory is there before the first round.
        let made = loop {
            let listed = sandbox.ok(["ls", "/"]);
            if let Some(name) = listed.lines().find(|name| name.starts_with("bench-")) {
                break format!("/{name}");
            }
        };
        while !sandbox.ok(["ls", made.as_str()]).contains("round-1") {}
        let pid = Pid::from_raw(run.id() as i32).expect("process ids are positive");
        rustix::process::kill_process(pid, signal).expect("the run goes on");
        // The stream ends with the last process of the run.
        let said = end_of(&mut run);
        assert_eq!(run.wait().expect("it ends").code(), code, "{said}");
        assert!(code.is_none() || said.contains("what it made is removed"), "{said}");
        assert_eq!(sandbox.ok(["ls", "/"]), "", "{said}");
        assert_empty(Path::new(&store));
    }
}

fn end_of(run: &mut Child) -> String {
    let mut said = String::new();
    let errors = run.stderr.as_mut().expect("a stream");
    errors.read_to_string(&mut said).expect("what programs say is text");
    said
}

#[test]
fn a_cluster_that_goes_away_fails_the_run() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--targets", "1"]);
    let store = directory(&sandbox, "store");
    let arguments = [
        "bench",
        "--name",
        "ringfs",
        "--clients",
        "2",
        "--size",
        "8MiB",
        "--files",
        "2000",
        "--rounds",
        "1000",
        "--store",
        store.as_str(),
    ];
    let mut command = sandbox.command(arguments);
    let mut run = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
    while !sandbox.ok(["ls", "/"]).contains("bench-") {}
    sandbox.kill(&sandbox.pids("ringfs"));
    let said = end_of(&mut run);
    assert_eq!(run.wait().expect("it ends").code(), Some(1), "{said}");
    assert!(said.contains("which serves the cluster, has ended"), "{said}");
    assert!(said.contains("is left behind"), "{said}");
    assert_empty(Path::new(&store));
}
