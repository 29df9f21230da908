//! Promises of docs/semantics.md that take real processes, disks and mounts to keep.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ringfs_tests::{Sandbox, can_mount, random_bytes, wait_until};

const MIB: u64 = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// Two nodes of two targets each with two mounts, the second with these options more.
fn mounts(options: &[&str]) -> (Sandbox, PathBuf, PathBuf) {
    let sandbox = Sandbox::new();
    let base = sandbox.path("").canonicalize().expect("the sandbox is there");
    let (one, two) = (base.join("one"), base.join("two"));
    sandbox.ok(["up", "--nodes", "2", "--targets", "2", "--mount", text(&one)]);
    fs::create_dir(&two).expect("it is new");
    sandbox.ok([&["mount", text(&two)], options].concat());
    (sandbox, one, two)
}

/// Bytes that the chunks of all files take on the disks of a cluster.
fn taken(directory: &Path) -> u64 {
    let below = fs::read_dir(directory).into_iter().flatten().flatten();
    below
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => taken(&entry.path()),
            Ok(found) if is_segment(&entry.path()) => found.blocks() * 512,
            _ => 0,
        })
        .sum()
}

fn is_segment(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "segments")
}

#[test]
fn the_space_of_removed_files_comes_back_also_from_servers_that_were_dead() {
    if !can_mount() {
        return;
    }
    let (sandbox, one, _) = mounts(&[]);
    let data = sandbox.path(".local/share/ringfs/ringfs");
    for name in ["first", "second"] {
        let file = File::create(one.join(name)).unwrap();
        file.write_all_at(&random_bytes(1, 40 * MIB as usize), 0).unwrap();
    }
    assert!(taken(&data) >= 78 * MIB, "{}", taken(&data));
    fs::remove_file(one.join("first")).unwrap();
    wait_until("the space of a removed file", || taken(&data) <= 42 * MIB);
    // One server does not hear of the removal, and the other dies in the midst of it.
    let pids = sandbox.pids("ringfs");
    sandbox.kill(&pids[1..]);
    let removal = std::thread::spawn({
        let path = one.join("second");
        move || fs::remove_file(path)
    });
    sandbox.kill(&pids[..1]);
    wait_until("the end of killed servers", || sandbox.pids("ringfs").iter().all(Option::is_none));
    sandbox.ok(["up"]);
    let removed = removal.join().expect("it returns");
    if removed.is_err() {
        // It was not carried out, or nobody knows.
        let _ = fs::remove_file(one.join("second"));
    }
    wait_until("the space of all removed files", || taken(&data) == 0);
}

#[test]
fn a_write_that_has_returned_has_moved_the_times_on_every_mount() {
    if !can_mount() {
        return;
    }
    let (_sandbox, one, two) = mounts(&[]);
    let paths = [one.join("file"), two.join("file")];
    let files = paths.each_ref().map(|path| {
        File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
    });
    let times = |path: &PathBuf| {
        let found = fs::metadata(path).unwrap();
        ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()))
    };
    // In the head, across its end, beyond it, and over what was there.
    for (round, offset) in [0, 65_000, 5 * MIB, 100, 70_000, 5 * MIB].into_iter().enumerate() {
        let before = paths.each_ref().map(times);
        assert_eq!(before[0], before[1], "round {round}");
        files[round % 2].write_all_at(&[1; 2000], offset).unwrap();
        for (path, before) in paths.iter().zip(before) {
            let after = times(path);
            assert!(after.0 > before.0 && after.1 > before.1, "round {round}: {path:?}");
            assert_eq!(after.0, after.1, "the home's clock is one");
        }
    }
}

#[test]
fn reading_moves_access_times_but_not_on_mounts_without() {
    if !can_mount() {
        return;
    }
    let (_sandbox, one, two) = mounts(&["--noatime"]);
    fs::create_dir(one.join("directory")).unwrap();
    fs::write(one.join("directory/file"), "a text").unwrap();
    let accessed = |path: &Path| {
        let found = fs::metadata(path).unwrap();
        ((found.atime(), found.atime_nsec()), (found.mtime(), found.mtime_nsec()))
    };
    let read = |mount: &Path| {
        assert_eq!(fs::read(mount.join("directory/file")).unwrap(), b"a text");
        assert_eq!(fs::read_dir(mount.join("directory")).unwrap().count(), 1);
    };
    let names = ["directory", "directory/file"];
    read(&two);
    for name in names {
        let (accessed, modified) = accessed(&one.join(name));
        assert!(accessed <= modified, "{name}: nobody has read but a mount that does not tell");
    }
    read(&one);
    let seen = names.map(|name| accessed(&one.join(name)));
    assert!(seen.iter().all(|(accessed, modified)| accessed > modified), "{seen:?}");
    read(&one);
    assert_eq!(names.map(|name| accessed(&one.join(name))), seen, "once is enough");
    fs::write(one.join("directory/file"), "a text").unwrap();
    read(&one);
    let (accessed, modified) = accessed(&one.join("directory/file"));
    assert!(accessed > modified, "read since the last change");
}
