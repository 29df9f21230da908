//! Disks with faults: the one that loses what was not flushed does so, and keeps the rest; servers on
//! slow and failing ones.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ringfs_tests::random::Random;
use ringfs_tests::{FaultyDisk, Image, Manner, Sandbox, can_mount, random_bytes, wait_until};

#[test]
fn a_cut_keeps_what_was_synced() {
    if !can_mount() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut image = Image::empty(64 << 20);
    for round in 0..6 {
        let mut random = Random::new(5, round);
        let disk = FaultyDisk::insert(image, &folder.path().join(round.to_string())).unwrap();
        for earlier in 0..round {
            let found = fs::read(disk.path().join(earlier.to_string())).unwrap();
            assert!(found == random_bytes(earlier as u64, 100_000), "{earlier} in {round}");
        }
        let path = disk.path().join(round.to_string());
        fs::write(&path, random_bytes(round as u64, 100_000)).unwrap();
        let is_liar = round == 5;
        disk.set_manner(Manner { lies: is_liar, ..Manner::default() });
        File::open(&path).unwrap().sync_all().unwrap();
        File::open(disk.path()).unwrap().sync_all().unwrap();
        assert!(disk.flushes() > 0, "a sync reaches the disk");
        (image, _) = disk.cut(&mut random);
    }
    // The last sync was none: with nothing of it kept, the file is not there.
    let mut bare = Random::new(6, 0);
    let disk = FaultyDisk::insert(image, &folder.path().join("last")).unwrap();
    fs::write(disk.path().join("unsynced"), b"x").unwrap();
    disk.set_manner(Manner { lies: true, ..Manner::default() });
    File::open(disk.path().join("unsynced")).unwrap().sync_all().unwrap();
    let is_lost = (0..20).any(|attempt| {
        let (image, _) = disk.cut(&mut bare);
        let folder = folder.path().join(format!("lost-{attempt}"));
        !FaultyDisk::insert(image, &folder).unwrap().path().join("unsynced").exists()
    });
    assert!(is_lost, "a disk that lies about its flushes loses what was synced");
}

fn write_and_sync(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[test]
fn a_slow_disk_is_waited_for_and_a_failing_one_stops_its_target() {
    const DELAY: Duration = Duration::from_millis(40);
    const FILES: usize = 5;
    if !can_mount() {
        return;
    }
    let sandbox = Sandbox::new();
    let place = |name: &str| sandbox.path("").canonicalize().unwrap().join(name);
    let (machine, mounted) = (place("machine"), place("mounted"));
    let mut disk = FaultyDisk::insert(Image::empty(192 << 20), &machine).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let data = text(&disk.path().join("data"));
    sandbox.ok(["up", "--targets", "1", "--data", &data, "--mount", &text(&mounted)]);
    disk.set_manner(Manner { delay: DELAY, ..Manner::default() });
    let content = |index: usize| random_bytes(index as u64, 150_000);
    for index in 0..FILES {
        write_and_sync(&mounted.join(index.to_string()), &content(index)).unwrap();
    }
    disk.set_manner(Manner { refuses: true, ..Manner::default() });
    let error = write_and_sync(&mounted.join("refused"), b"x").unwrap_err();
    let refused =
        [rustix::io::Errno::IO, rustix::io::Errno::ROFS].map(|errno| errno.raw_os_error());
    assert!(error.raw_os_error().is_some_and(|errno| refused.contains(&errno)), "{error}");
    let status = sandbox.status("ringfs");
    let state = status["nodes"][0]["targets"][0]["state"].as_str().unwrap();
    assert!(state.starts_with("failed: "), "{status}");
    for index in 0..FILES {
        let found = fs::read(mounted.join(index.to_string())).unwrap();
        assert!(found == content(index), "{index} is read from the failed target");
    }

    // What was synced is on the disk, whatever became of the rest.
    let (image, _) = disk.cut(&mut Random::new(1, 1));
    sandbox.kill(&sandbox.pids("ringfs"));
    disk.turn_off();
    wait_until("the end of a killed server", || sandbox.pids("ringfs")[0].is_none());
    drop(disk);
    disk = FaultyDisk::insert(image, &machine).unwrap();
    sandbox.ok(["up"]);
    for index in 0..FILES {
        let found = fs::read(mounted.join(index.to_string())).unwrap();
        assert!(found == content(index), "{index}");
    }
    sandbox.ok(["down"]);
    drop(disk);
}
