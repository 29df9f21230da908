//! Real trees go through a cluster unharmed, across restarts and kills.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::path::Path;

use ringfs_tests::{Sandbox, compare_trees, make_tree, random_bytes, wait_until};

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

fn tree(sandbox: &Sandbox) -> std::path::PathBuf {
    let tree = sandbox.path("tree");
    make_tree(&tree);
    tree
}

#[track_caller]
fn get_and_compare(sandbox: &Sandbox, remote: &str, original: &Path, copy: &str) {
    let copy = sandbox.path(copy);
    sandbox.ok(["get", remote, text(&copy)]);
    compare_trees(original, &copy);
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let sandbox = Sandbox::new();
    let tree = tree(&sandbox);
    sandbox.ok(["up", "--nodes", "2", "--targets", "2"]);
    let summary = sandbox.ok(["put", "--checksum", text(&tree), "/"]);
    assert!(summary.starts_with("put: "), "{summary}");
    get_and_compare(&sandbox, "/tree", &tree, "copy 1");
    // Again over what is there: the same tree, not a second one.
    sandbox.ok(["put", text(&tree), "/"]);
    sandbox.ok(["get", "--checksum", "-T", "/tree", text(&sandbox.path("copy 1"))]);
    compare_trees(&tree, &sandbox.path("copy 1"));
    let status = sandbox.status("ringfs");
    for node in status["nodes"].as_array().unwrap() {
        for target in node["targets"].as_array().unwrap() {
            assert!(target["used_bytes"].as_u64().unwrap() > 0, "{target}");
        }
    }
    sandbox.ok(["down"]);
    sandbox.ok(["up"]);
    get_and_compare(&sandbox, "/tree", &tree, "copy 2");
    sandbox.ok(["rm", "-r", "/tree"]);
    assert_eq!(sandbox.ok(["ls", "/"]), "");
}

#[test]
fn a_tree_with_small_chunks_comes_back_as_it_was() {
    let sandbox = Sandbox::new();
    let tree = tree(&sandbox);
    sandbox.ok(["up", "--nodes", "1", "--targets", "3", "--chunk-size", "64k"]);
    sandbox.ok(["put", text(&tree), "/"]);
    get_and_compare(&sandbox, "/tree", &tree, "copy");
}

#[test]
fn a_tree_comes_back_without_io_uring() {
    let sandbox = Sandbox::new();
    let tree = tree(&sandbox);
    let run = |arguments: &[&str]| {
        let output = sandbox.command(arguments).env("RINGFS_IO", "poll").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["up", "--nodes", "2", "--targets", "1"]);
    run(&["put", text(&tree), "/"]);
    run(&["get", "/tree", text(&sandbox.path("copy"))]);
    compare_trees(&tree, &sandbox.path("copy"));
}

#[test]
fn killed_servers_lose_nothing_and_a_repeated_put_completes() {
    let sandbox = Sandbox::new();
    let tree = tree(&sandbox);
    let big = sandbox.path("big");
    std::fs::create_dir(&big).unwrap();
    for index in 0..8 {
        std::fs::write(big.join(index.to_string()), random_bytes(index, 24 << 20)).unwrap();
    }
    sandbox.ok(["up", "--nodes", "2", "--targets", "2"]);
    sandbox.ok(["put", text(&tree), "/"]);
    let pids = sandbox.pids("ringfs");
    let mut put = sandbox.start(["put", text(&big), "/"]);
    wait_until("the copy's directory", || {
        assert!(put.try_wait().unwrap().is_none(), "the copy ended early");
        sandbox.ok(["ls", "/"]) == "big\ntree\n"
    });
    sandbox.kill(&pids);
    // At once: processes that are still on their way out hold ports and locks for a while.
    sandbox.ok(["up"]);
    assert_eq!(sandbox.status("ringfs")["epoch"], 1);
    // It may have outlived the servers or not: its requests are retried.
    put.wait().unwrap();
    get_and_compare(&sandbox, "/tree", &tree, "tree copy");
    sandbox.ok(["put", text(&big), "/"]);
    get_and_compare(&sandbox, "/big", &big, "big copy");
}

#[test]
fn names_change_as_they_do_locally() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--nodes", "2", "--targets", "2"]);
    let file = sandbox.path("file");
    std::fs::write(&file, random_bytes(5, 300_000)).unwrap();
    sandbox.ok(["mkdir", "-p", "/a/b/c"]);
    sandbox.ok(["mkdir", "-p", "/a/b/c"]);
    sandbox.run(["mkdir", "/a"]).assert_refused(1, "it exists");
    sandbox.ok(["put", text(&file), "/a/b"]);
    sandbox.ok(["put", text(&file), "/a/other"]);
    sandbox.ok(["mv", "/a/b", "/moved"]);
    sandbox.ok(["mv", "/a/other", "/moved"]);
    sandbox.ok(["ln", "/moved/file", "/hard"]);
    sandbox.ok(["ln", "-s", "moved/file", "/soft"]);
    assert_eq!(sandbox.ok(["ls", "/"]), "a\nhard\nmoved\nsoft\n");
    assert_eq!(sandbox.ok(["ls", "/moved"]), "c\nfile\nother\n");
    let output = sandbox.command(["cat", "/soft"]).output().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == std::fs::read(&file).unwrap());
    let long = sandbox.ok(["ls", "-l", "/"]);
    assert!(long.contains("soft -> moved/file"), "{long}");
    let tree = sandbox.ok(["tree", "/"]);
    assert!(tree.contains("├── moved/") && tree.contains("│   ├── file"), "{tree}");
    let stat = sandbox.ok(["stat", "/hard"]);
    assert!(stat.contains("links 2") && stat.contains("chunks  1 of 4.00 MiB"), "{stat}");
    assert!(stat.contains("home  target "), "{stat}");
    assert!(sandbox.ok(["df"]).contains("ringfs"));
    sandbox.run(["rm", "/moved"]).assert_refused(1, "give -r to remove it");
    sandbox.run(["rm", "/none"]).assert_refused(1, "/none");
    sandbox.ok(["rm", "-f", "/none"]);
    sandbox.ok(["rm", "-r", "/moved", "/hard", "/soft", "/a"]);
    assert_eq!(sandbox.ok(["ls"]), "");
    let wrong = sandbox.run(["ls", "relative"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("did you mean /relative?"), "{wrong:?}");
}

#[test]
fn what_cannot_be_copied_is_named_and_the_rest_is_copied() {
    let sandbox = Sandbox::new();
    sandbox.ok(["up", "--targets", "1"]);
    let tree = sandbox.path("tree");
    std::fs::create_dir_all(tree.join("clash")).unwrap();
    std::fs::write(tree.join("fine"), "fine").unwrap();
    sandbox.ok(["mkdir", "/tree"]);
    sandbox.ok(["put", text(&tree.join("fine")), "/tree/clash"]);
    let outcome = sandbox.run(["put", text(&tree), "/"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("tree/clash: its place in the cluster"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("1 failure(s)"), "{}", outcome.stderr);
    assert_eq!(sandbox.ok(["ls", "/tree"]), "clash\nfine\n");
    let missing = sandbox.run(["put", "/does/not/exist", "/"]);
    assert!(missing.stderr.contains("cannot read /does/not/exist"), "{missing:?}");
    sandbox.run(["put", text(&tree), "/no/such/place"]).assert_refused(1, "/no/such/place");
}
