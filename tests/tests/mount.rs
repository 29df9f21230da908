//! A cluster as a directory: files go in and out, and mounts, servers and other mounts may die or
//! come back meanwhile. Real mounts, so these tests need root and /dev/fuse.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringfs_tests::{Sandbox, can_mount, compare_trees, make_tree, random_bytes, wait_until};

/// Seconds that a program may spend in a mount.
const PATIENCE: &str = "120";

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// A program that uses a mount: killed if the mount does not let it end.
fn program(words: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PATIENCE]).args(words).stdin(Stdio::null());
    command
}

#[track_caller]
fn run(words: &[&str]) {
    let output = program(words).output().expect("coreutils are there");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {}: {errors}", output.status);
}

/// A mount point that does not exist yet, by its real path.
fn place(sandbox: &Sandbox, name: &str) -> PathBuf {
    let parent = sandbox.path("").canonicalize().expect("the sandbox is there");
    parent.join(name)
}

/// The process that serves a mount.
fn server_of(sandbox: &Sandbox, mounted: &Path) -> i32 {
    let mount = sandbox.mount("ringfs", mounted).expect("it is mounted");
    assert_eq!(mount["state"], "mounted", "{mount}");
    mount["pid"].as_i64().expect("a mount has a process") as i32
}

/// Kills the process of a mount and waits until the status knows.
fn kill_server_of(sandbox: &Sandbox, mounted: &Path) {
    sandbox.kill(&[Some(server_of(sandbox, mounted))]);
    wait_until("the end of a killed mount process", || {
        sandbox.mount("ringfs", mounted).is_none_or(|mount| mount["pid"].is_null())
    });
}

#[test]
fn trees_go_in_and_out_and_outlive_the_mount() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let (original, mounted, copy) =
        (sandbox.path("original"), place(&sandbox, "a/b"), sandbox.path("copy"));
    fs::create_dir(&original).unwrap();
    make_tree(&original);
    let up = ["up", "--nodes", "2", "--targets", "2", "--mount", text(&mounted)];
    let summary = sandbox.ok(up);
    assert!(summary.contains(&format!("mounted at {}", text(&mounted))), "{summary}");
    assert!(sandbox.ok(["up", "--mount", text(&mounted)]).contains("runs already"));

    let inside = mounted.join("tree");
    run(&["cp", "-a", text(&original), text(&inside)]);
    compare_trees(&original, &inside);
    run(&["cp", "-a", text(&inside), text(&copy)]);
    compare_trees(&original, &copy);
    assert_eq!(sandbox.ok(["ls", "/"]), "tree\n");

    sandbox.ok(["unmount", text(&mounted)]);
    assert_eq!(fs::read_dir(&mounted).unwrap().count(), 0);
    wait_until("the end of the mount process", || sandbox.mount("ringfs", &mounted).is_none());
    sandbox.ok(["mount", text(&mounted)]);
    compare_trees(&original, &inside);

    let summary = sandbox.ok(["down"]);
    assert!(summary.contains("2 node(s) stopped, 1 mount(s) ended"), "{summary}");
    assert_eq!(fs::read_dir(&mounted).unwrap().count(), 0);
    sandbox.ok(["up", "--mount", text(&mounted)]);
    assert!(inside.join("sizes").is_dir());
    sandbox.ok(["down", "--wipe"]);
}

#[test]
fn a_killed_mount_is_mounted_over_or_taken_away() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let mounted = place(&sandbox, "mounted");
    sandbox.ok(["up", "--targets", "2", "--mount", text(&mounted)]);
    let content = random_bytes(1, 3_000_000);
    fs::write(mounted.join("kept"), &content).unwrap();
    kill_server_of(&sandbox, &mounted);
    sandbox.ok(["mount", text(&mounted)]);
    assert!(fs::read(mounted.join("kept")).unwrap() == content);

    kill_server_of(&sandbox, &mounted);
    sandbox.ok(["unmount", text(&mounted)]);
    sandbox.run(["unmount", text(&mounted)]).assert_refused(1, "nothing is mounted here");

    sandbox.ok(["mount", text(&mounted)]);
    kill_server_of(&sandbox, &mounted);
    sandbox.ok(["down"]);
    assert_eq!(fs::read_dir(&mounted).unwrap().count(), 0);
}

#[test]
fn a_mount_in_use_can_be_unmounted_and_mounted_again() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let mounted = place(&sandbox, "mounted");
    sandbox.ok(["up", "--targets", "1", "--mount", text(&mounted)]);
    let name = mounted.join("file");
    let mut open = fs::File::options().create_new(true).read(true).write(true).open(&name).unwrap();
    open.write_all(b"before").unwrap();
    let first = server_of(&sandbox, &mounted);
    let told = sandbox.run(["unmount", text(&mounted)]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stderr.contains("programs still have files open"), "{told:?}");
    assert_eq!(sandbox.mount("ringfs", &mounted).unwrap()["state"], "leaving");
    sandbox.ok(["mount", text(&mounted)]);
    open.write_all(b" and after").unwrap();
    assert_eq!(fs::read_to_string(&name).unwrap(), "before and after");
    drop(open);
    // Without open files the first process ends.
    let image = format!("/proc/{first}/exe");
    wait_until("the end of the first mount process", || !Path::new(&image).exists());
    assert_ne!(server_of(&sandbox, &mounted), first);
}

/// A copy that takes a while.
fn start_copy(from: &Path, to: &Path) -> Child {
    let mut command = program(&["cp", "-a", text(from), text(to)]);
    command.stderr(Stdio::piped()).spawn().expect("coreutils are there")
}

#[test]
fn a_copy_goes_on_when_all_servers_were_killed() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let (original, mounted) = (sandbox.path("original"), place(&sandbox, "mounted"));
    fs::create_dir(&original).unwrap();
    for index in 0..400 {
        fs::write(original.join(index.to_string()), random_bytes(index, 200_000)).unwrap();
    }
    sandbox.ok(["up", "--nodes", "2", "--targets", "2", "--mount", text(&mounted)]);
    let copy = mounted.join("copy");
    let copying = start_copy(&original, &copy);
    wait_until("the first 20 copies", || fs::read_dir(&copy).map_or(0, Iterator::count) >= 20);
    sandbox.kill(&sandbox.pids("ringfs"));
    wait_until("the end of killed servers", || sandbox.pids("ringfs").iter().all(Option::is_none));
    sandbox.ok(["up"]);
    let output = copying.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    compare_trees(&original, &copy);
}

#[test]
fn what_was_copied_before_the_mount_was_killed_is_there() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let mounted = place(&sandbox, "mounted");
    sandbox.ok(["up", "--targets", "2", "--mount", text(&mounted)]);
    let script = "i=0; while echo \"line $i\" > \"$0/$i\"; do echo $i; i=$((i + 1)); done";
    let mut command = program(&["sh", "-c", script, text(&mounted)]);
    let writing = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the first 50 files", || fs::read_dir(&mounted).unwrap().count() >= 50);
    kill_server_of(&sandbox, &mounted);
    let output = writing.wait_with_output().unwrap();
    sandbox.ok(["mount", text(&mounted)]);
    let acknowledged = String::from_utf8(output.stdout).unwrap();
    assert!(acknowledged.lines().count() >= 49);
    for index in acknowledged.lines() {
        let line = fs::read_to_string(mounted.join(index)).unwrap();
        assert_eq!(line, format!("line {index}\n"));
    }
}

#[test]
fn two_mounts_see_each_others_changes() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let (one, two) = (place(&sandbox, "one"), place(&sandbox, "two"));
    sandbox.ok(["up", "--targets", "2", "--mount", text(&one)]);
    fs::create_dir(&two).unwrap();
    sandbox.ok(["mount", text(&two)]);
    for round in 0..20_u64 {
        let (from, to) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let content = random_bytes(round, 10_000 + 50_000 * round as usize);
        fs::write(from.join("file"), &content).unwrap();
        assert!(fs::read(to.join("file")).unwrap() == content, "round {round}");
        assert_eq!(fs::metadata(from.join("file")).unwrap().len(), content.len() as u64);
        let name = format!("name {round}");
        assert!(!to.join(&name).exists() && !from.join(&name).exists());
        fs::rename(to.join("file"), from.parent().unwrap().join("x")).unwrap_err();
        fs::rename(to.join("file"), to.join(&name)).unwrap();
        assert!(from.join(&name).exists() && !from.join("file").exists());
        fs::set_permissions(to.join(&name), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(fs::metadata(from.join(&name)).unwrap().permissions().mode() & 0o777, 0o600);
        fs::remove_file(from.join(&name)).unwrap();
        assert!(!to.join(&name).exists());
        assert_eq!(fs::read_dir(to).unwrap().count(), 0);
    }
    // What the program does beside the mounts is seen as well.
    sandbox.ok(["mkdir", "/made"]);
    assert!(one.join("made").is_dir() && two.join("made").is_dir());
}

/// The node that a path of the cluster lives on.
fn node_of(sandbox: &Sandbox, path: &str) -> usize {
    let told = sandbox.ok(["stat", path]);
    let (_, node) = told.split_once(" on node ").expect("a home is on a node");
    node.split(' ').next().expect("it has a number").parse().expect("it is one")
}

#[test]
fn what_a_dead_server_holds_fails_at_the_deadline_and_the_rest_goes_on() {
    const DEADLINE: Duration = Duration::from_secs(3);
    /// The deadline and what a busy machine adds to it; less than the deadline unless given.
    const SOON: Duration = Duration::from_secs(20);
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let mounted = place(&sandbox, "mounted");
    fs::create_dir(&mounted).unwrap();
    sandbox.ok(["up", "--nodes", "2", "--targets", "1"]);
    let deadline = DEADLINE.as_secs().to_string();
    sandbox.ok(["mount", "--deadline", &deadline, text(&mounted)]);
    let dead = 1 - node_of(&sandbox, "/");
    let names: Vec<String> = (0..10).map(|index| format!("d{index}")).collect();
    names.iter().for_each(|name| fs::create_dir(mounted.join(name)).unwrap());
    let find = |node| names.iter().find(|name| node_of(&sandbox, &format!("/{name}")) == node);
    let lost = mounted.join(find(dead).expect("ten directories are on both nodes"));
    let kept = mounted.join(find(1 - dead).expect("ten directories are on both nodes"));
    fs::write(lost.join("file"), b"content").unwrap();

    sandbox.kill(&sandbox.pids("ringfs")[dead..=dead]);
    let start = Instant::now();
    let error = fs::write(lost.join("other"), b"x").unwrap_err();
    let waited = start.elapsed();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    assert!(waited >= DEADLINE && waited < SOON, "{waited:?}");
    fs::write(kept.join("file"), b"content").unwrap();
    assert_eq!(fs::read(kept.join("file")).unwrap(), b"content");
    let logs = sandbox.ok(["logs"]);
    let told = logs.lines().find(|line| line.starts_with("mount ") && line.contains("EIO"));
    assert!(told.is_some_and(|line| line.contains("does not answer")), "{logs}");

    sandbox.ok(["up"]);
    assert_eq!(fs::read(lost.join("file")).unwrap(), b"content");
    fs::write(lost.join("other"), b"x").unwrap();
}

/// A small file system of its own for the data of a cluster.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(sandbox: &Sandbox, size: &str) -> Self {
        let path = place(sandbox, "small");
        fs::create_dir(&path).unwrap();
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "none", text(&path)]);
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The sandbox takes it away if this fails.
        let _ = program(&["umount", "--lazy", text(&self.0)]).status();
    }
}

#[test]
fn a_full_disk_keeps_what_it_has_and_goes_on_when_there_is_room() {
    const NO_SPACE: Option<i32> = Some(rustix::io::Errno::NOSPC.raw_os_error());
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let disk = SmallDisk::new(&sandbox, "80m");
    let (data, filler) = (disk.0.join("data"), disk.0.join("filler"));
    let mounted = place(&sandbox, "mounted");
    sandbox.ok(["up", "--targets", "1", "--data", text(&data), "--mount", text(&mounted)]);
    let (kept, content) = (mounted.join("kept"), random_bytes(1, 1_000_000));
    fs::write(&kept, &content).unwrap();
    fs::write(mounted.join("doomed"), random_bytes(2, 1_000_000)).unwrap();
    // Another program takes the rest of the disk.
    let error = fs::write(&filler, vec![0; 100 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), NO_SPACE);
    let error = fs::write(mounted.join("big"), vec![1; 2_000_000]).unwrap_err();
    assert_eq!(error.raw_os_error(), NO_SPACE, "{error}");
    // Names go on until the log, which was reserved in advance, is full as well.
    let value = vec![b'v'; 60_000];
    let fill = |index: usize| -> std::io::Result<()> {
        let path = mounted.join(format!("name {index}"));
        fs::File::create(&path)?;
        let flags = rustix::fs::XattrFlags::empty();
        Ok(rustix::fs::setxattr(&path, "user.value", &value, flags)?)
    };
    let mut made = 0;
    let error = loop {
        match fill(made) {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), NO_SPACE, "{error}");
    assert!(made > 20, "{made}");
    let status = sandbox.status("ringfs");
    let state = status["nodes"][0]["targets"][0]["state"].as_str().unwrap();
    assert!(state.starts_with("full: No space left"), "{status}");
    assert!(fs::read(&kept).unwrap() == content);
    fs::remove_file(mounted.join("doomed")).unwrap();
    (0..made / 2).for_each(|index| fs::remove_file(mounted.join(format!("name {index}"))).unwrap());

    fs::remove_file(&filler).unwrap();
    wait_until("room", || fs::write(mounted.join("big"), vec![1; 2_000_000]).is_ok());
    wait_until("a target that is well", || sandbox.status("ringfs")["health"] == "ok");
    assert!(fs::read(&kept).unwrap() == content);
    let checked = sandbox.run(["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    sandbox.ok(["down"]);
}

/// Whether a process waits in the system call that asks for the space of a file system.
fn is_in_statfs(pid: u32) -> bool {
    let number = if cfg!(target_arch = "x86_64") { "137" } else { "43" };
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.split(' ').next() == Some(number)
}

#[test]
fn a_question_for_space_ends_with_its_process_when_all_servers_are_dead() {
    /// Less than the servers are given to come back, more than the death of a process takes.
    const WELL_BELOW_DEADLINE: Duration = Duration::from_secs(15);
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let mounted = place(&sandbox, "mounted");
    sandbox.ok(["up", "--targets", "1", "--mount", text(&mounted)]);
    sandbox.kill(&sandbox.pids("ringfs"));
    // The answer to the last question may still hold: then another one is asked.
    let start = || Command::new("stat").args(["-f", text(&mounted)]).stdout(Stdio::null()).spawn();
    let mut asking = start().expect("coreutils are there");
    wait_until("a question that waits", || {
        if asking.try_wait().unwrap().is_some() {
            asking = start().expect("coreutils are there");
        }
        is_in_statfs(asking.id())
    });
    let killed = Instant::now();
    asking.kill().unwrap();
    asking.wait().unwrap();
    assert!(killed.elapsed() < WELL_BELOW_DEADLINE, "{:?}", killed.elapsed());
}

/// Bytes on disk, as `du` shows them.
fn space(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn every_mount_tells_the_space_that_files_take() {
    const MIB: u64 = 1 << 20;
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let (one, two) = (place(&sandbox, "one"), place(&sandbox, "two"));
    sandbox.ok(["up", "--nodes", "2", "--targets", "2", "--mount", text(&one)]);
    fs::create_dir(&two).unwrap();
    sandbox.ok(["mount", text(&two)]);
    let (path, other) = (one.join("sparse"), two.join("sparse"));
    let check = |expected: u64, what: &str| {
        assert_eq!((space(&path), space(&other)), (expected, expected), "{what}");
    };
    let file = fs::File::create(&path).unwrap();
    check(0, "empty");
    file.set_len(100 << 30).unwrap();
    check(0, "a hole");
    file.write_all_at(&random_bytes(1, MIB as usize), 0).unwrap();
    file.write_all_at(&random_bytes(2, MIB as usize), (100 << 30) - MIB).unwrap();
    check(2 * MIB, "both ends");
    let copy = sandbox.path("copy");
    run(&["cp", "--sparse=always", text(&path), text(&copy)]);
    run(&["cp", text(&copy), text(&two.join("back"))]);
    assert!(space(&copy) <= 2 * MIB + MIB / 8 && space(&one.join("back")) == 2 * MIB);
    run(&["fallocate", "--punch-hole", "--offset", "4096", "--length", "1044480", text(&path)]);
    check(MIB + (64 << 10), "punched: the slot of the head stays");
    run(&["fallocate", "--length", "32M", text(&path)]);
    check(33 * MIB, "reserved");
    file.set_len(17 * MIB).unwrap();
    check(17 * MIB, "cut");
    fs::write(&other, b"ten bytes!").unwrap();
    check(4096, "small");
    let line = sandbox.ok(["ls", "--space", "/sparse"]);
    assert_eq!(line.split_whitespace().next(), Some("4096"), "{line}");
    fs::File::create(&other).unwrap();
    check(0, "emptied");
}

#[test]
fn what_cannot_be_mounted_is_told_in_one_line() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let (mounted, file) = (place(&sandbox, "mounted"), sandbox.path("file"));
    fs::write(&file, "text").unwrap();
    fs::create_dir(&mounted).unwrap();
    let mount = |place: &Path| sandbox.run(["mount", text(place)]);
    mount(&mounted).assert_refused(1, "there is no cluster \"ringfs\"");
    sandbox.ok(["up", "--targets", "1"]);
    mount(&sandbox.path("missing")).assert_refused(1, "no such directory");
    mount(&sandbox.path("missing/below")).assert_refused(1, "no such directory");
    mount(&file).assert_refused(1, "not a directory");
    mount(Path::new("/proc")).assert_refused(1, "a file system of type proc is mounted here");
    mount(&sandbox.path(".local")).assert_refused(1, "the cluster's own data lies in it");
    mount(&sandbox.path(".local/share/ringfs/ringfs/node-0")).assert_refused(1, "lies in");
    let unmount = |place: &Path| sandbox.run(["unmount", text(place)]);
    unmount(&mounted).assert_refused(1, "nothing is mounted here");
    unmount(&sandbox.path("missing")).assert_refused(1, "no such directory");
    unmount(Path::new("/proc")).assert_refused(1, "of type proc");

    sandbox.ok(["mount", text(&mounted)]);
    mount(&mounted).assert_refused(1, "cluster \"ringfs\" is mounted here already");
    let inside = mounted.join("data");
    let nested = ["up", "--name", "nested", "--targets", "1", "--data", text(&inside)];
    sandbox.run(nested).assert_refused(1, "a mount of RingFS");
    sandbox.ok(["down"]);
    mount(&mounted).assert_refused(1, "is down: start it with `ringfs up");
    assert_eq!(fs::read_dir(&mounted).unwrap().count(), 0);

    // A failed `up --mount` leaves nothing behind.
    let over = ["up", "--name", "other", "--targets", "1", "--mount", text(&file)];
    sandbox.run(over).assert_refused(1, "is not a directory");
    assert!(!sandbox.path(".local/share/ringfs/other").exists());
}

#[test]
fn missing_parts_of_the_system_are_told_in_one_line() {
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let mounted = place(&sandbox, "mounted");
    fs::create_dir(&mounted).unwrap();
    sandbox.ok(["up", "--targets", "1"]);
    let mount = sandbox.command(["mount", text(&mounted)]);
    let within = |prefix: &[&str]| {
        let mut command = Command::new(prefix[0]);
        command.args(&prefix[1..]).arg(mount.get_program()).args(mount.get_args());
        command.env("HOME", sandbox.path("")).env_remove("XDG_DATA_HOME");
        command.env_remove("XDG_STATE_HOME").env_remove("RINGFS_CLUSTER");
        ringfs_tests::Outcome::from(command.output().expect("util-linux is there"))
    };
    let bare = "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && exec \"$0\" \"$@\"";
    let without_device = within(&["unshare", "--mount", "sh", "-c", bare]);
    without_device.assert_refused(1, "cannot open /dev/fuse");
    let powerless = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let hidden = ["env", "PATH=/nonexistent"];
    let without_helper = within(&[&powerless[..], &hidden[..]].concat());
    without_helper.assert_refused(1, "install the package fuse3");
}
