//! The disk that loses what was not flushed does so, and keeps the rest.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests are about real processes and real files"
)]

use std::fs::{self, File};

use ringfs_tests::random::Random;
use ringfs_tests::{FaultyDisk, Image, Manner, can_mount, random_bytes};

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
