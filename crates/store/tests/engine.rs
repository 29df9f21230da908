//! The engine's promises one by one, on the simulated disk.

mod support;

use std::cell::Cell;
use std::rc::Rc;

use ringfs_platform::{Faults, OpenFlags, Platform, Slice};
use ringfs_store::{Record, Store, StoreError};
use ringfs_wire::{Generation, HEAD_SIZE, InodeNumber, Timestamp, XattrName};
use support::{DIRECTORY, World, file_record, open, options};

const FILE: InodeNumber = InodeNumber(100);
const ONE: Generation = Generation(1);
const CHUNK: u32 = 8192;

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

async fn open_with_file(platform: &Platform) -> ringfs_store::Store {
    let store = open(platform).await;
    let mut tx = store.transaction();
    tx.put(Record::PutInode { inode: file_record(FILE) });
    store.written(tx.commit()).await.expect("written");
    store
}

async fn write(store: &ringfs_store::Store, offset: u64, data: &[u8]) {
    let end = offset + data.len() as u64;
    let written =
        store.write_head(FILE, ONE, offset, Slice::from(data), end, 0, at(1), |_| Vec::new()).await;
    let (_, position) = written.expect("written");
    store.written(position).await.expect("in the log");
}

async fn head(store: &ringfs_store::Store) -> Vec<u8> {
    let inode = (*store.state().inodes[&FILE]).clone();
    let mut bytes = store.read_head(&inode, 0, HEAD_SIZE as usize).await.expect("read").to_vec();
    let size = inode.attributes.size as usize;
    assert!(bytes.iter().skip(size).all(|byte| *byte == 0), "bytes beyond the size");
    bytes.resize(size, 0);
    bytes
}

#[test]
fn a_store_is_found_again_after_a_kill() {
    let world = World::new(1);
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        assert!(store.recovery().created);
        write(&store, 0, b"ring").await;
    });
    world.kill();
    world.run(|platform| async move {
        let store = open(&platform).await;
        assert!(!store.recovery().clean && !store.recovery().power_lost);
        assert_eq!(head(&store).await, b"ring");
        assert!(store.state().inodes.contains_key(&InodeNumber::ROOT));
        store.close().await.expect("closed");
    });
    world.kill();
    world.run(|platform| async move {
        let store = open(&platform).await;
        assert!(store.recovery().clean);
        assert_eq!(head(&store).await, b"ring");
    });
}

#[test]
fn what_is_synced_survives_a_power_cut() {
    for seed in 0..50 {
        let world = World::new(seed);
        world.run(|platform| async move {
            let store = open_with_file(&platform).await;
            write(&store, 0, &[7; 5000]).await;
            store
                .write_chunk(FILE, ONE, CHUNK, 3 * 8192, Slice::from(&b"chunk"[..]))
                .await
                .unwrap();
            store.sync_inode(FILE).await.expect("synced");
            write(&store, 5000, b"unsynced").await;
        });
        world.power_cut();
        world.run(|platform| async move {
            let store = open(&platform).await;
            assert!(store.recovery().power_lost);
            let head = head(&store).await;
            assert!(head.len() == 5000 || head.len() == 5008);
            assert!(head.iter().take(5000).all(|byte| *byte == 7));
            let chunk = store.read_chunk(FILE, ONE, CHUNK, 3 * 8192, 100).await.unwrap();
            assert_eq!(&*chunk, b"chunk");
        });
    }
}

#[test]
fn a_directory_of_segments_made_just_before_a_kill_keeps_its_name() {
    for seed in 0..8 {
        let world = World::new(seed);
        world.run(|platform| async move { drop(open(&platform).await) });
        world.kill();
        // What a life leaves that ends before it has synced the name of a new directory.
        world.run(|platform| async move {
            let shard = format!("{DIRECTORY}/segments/{:02x}", FILE.0 & 0xff);
            platform.disk().mkdir(shard.as_ref(), 0o700).await.expect("made");
        });
        world.kill();
        world.run(|platform| async move {
            let store = open(&platform).await;
            store.write_chunk(FILE, ONE, CHUNK, 0, Slice::from(&b"chunk"[..])).await.unwrap();
            store.sync_inode(FILE).await.expect("synced");
        });
        world.power_cut();
        let found = world.run(|platform| async move {
            let store = open(&platform).await;
            store.read_chunk(FILE, ONE, CHUNK, 0, 5).await.expect("read").to_vec()
        });
        assert_eq!(found, b"chunk", "seed {seed}");
    }
}

#[test]
fn a_kill_and_then_a_power_cut_keep_what_the_start_between_found() {
    let world = World::new(15);
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        write(&store, 0, b"ring").await;
    });
    world.kill();
    world.run(|platform| async move {
        let store = open(&platform).await;
        store.sync_inode(FILE).await.expect("nothing left to sync");
    });
    world.power_cut();
    world.run(|platform| async move {
        let store = open(&platform).await;
        assert_eq!(head(&store).await, b"ring");
    });
}

#[test]
fn the_background_sync_makes_everything_durable_and_then_rests() {
    let world = World::new(3);
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        write(&store, 0, b"ring").await;
        store.write_chunk(FILE, ONE, CHUNK, 0, Slice::from(&b"chunk"[..])).await.unwrap();
        platform.sleep(std::time::Duration::from_secs(2)).await;
        std::mem::forget(store);
    });
    assert_eq!(world.rest(), ringfs_platform::Outcome::Stalled, "an idle store sleeps");
    world.power_cut();
    world.run(|platform| async move {
        let store = open(&platform).await;
        assert_eq!(head(&store).await, b"ring");
        assert_eq!(&*store.read_chunk(FILE, ONE, CHUNK, 0, 5).await.unwrap(), b"chunk");
    });
}

#[test]
fn heads_grow_shrink_and_keep_zeros_beyond_the_size() {
    World::new(4).run(|platform| async move {
        let store = open_with_file(&platform).await;
        let mut model = Vec::new();
        for (offset, len) in [(0, 10), (5, 3), (4000, 200), (100, 8000), (60_000, 5536), (0, 1)] {
            let data = vec![(offset % 251 + 1) as u8; len];
            write(&store, offset as u64, &data).await;
            model.resize(model.len().max(offset + len), 0);
            model[offset..offset + len].copy_from_slice(&data);
            assert_eq!(head(&store).await, model);
        }
        for len in [60_000, 4097, 100, 0] {
            let guard = store.lock_inode(FILE).await;
            let mut inode = (*store.state().inodes[&FILE]).clone();
            inode.head = store.shrink_head(&inode, len).await.expect("shrunk");
            inode.attributes.size = len;
            let mut tx = store.transaction();
            tx.put(Record::PutInode { inode });
            tx.commit();
            drop(guard);
            model.truncate(len as usize);
            assert_eq!(head(&store).await, model);
        }
        let beyond = Slice::from(&b"xy"[..]);
        let refused = store
            .write_head(FILE, ONE, HEAD_SIZE - 1, beyond.clone(), 0, 0, at(1), |_| Vec::new())
            .await;
        assert!(matches!(refused, Err(StoreError::Invalid(_))));
        let stale =
            store.write_head(FILE, Generation(0), 0, beyond, 2, 0, at(1), |_| Vec::new()).await;
        assert_eq!(stale, Err(StoreError::StaleGeneration));
    });
}

#[test]
fn a_cut_refuses_older_writes_and_drops_chunks_once() {
    let world = World::new(5);
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        for chunk in [0u64, 5, 1024, 3000] {
            let data = Slice::from(&[9u8; 8192][..]);
            store.write_chunk(FILE, ONE, CHUNK, chunk * 8192, data).await.expect("written");
        }
        store.cut_chunks(FILE, Generation(2), 5 * 8192 + 10, CHUNK).await.expect("cut");
        let read = |offset| store.read_chunk(FILE, Generation(2), CHUNK, offset, 8192);
        assert_eq!(&*read(0).await.unwrap(), &[9u8; 8192]);
        assert_eq!(&*read(5 * 8192).await.unwrap(), &[9u8; 10]);
        assert!(read(1024 * 8192).await.unwrap().is_empty());
        let data = Slice::from(&b"new"[..]);
        let stale = store.write_chunk(FILE, ONE, CHUNK, 0, data.clone()).await;
        assert_eq!(stale, Err(StoreError::StaleGeneration));
        let two = Generation(2);
        store.write_chunk(FILE, two, CHUNK, 3000 * 8192, data).await.expect("written");
        store.cut_chunks(FILE, two, 0, CHUNK).await.expect("repeated");
        assert_eq!(&*read(3000 * 8192).await.unwrap(), b"new");
        store.written(store.position()).await.expect("written");
    });
    world.kill();
    world.run(|platform| async move {
        let store = open(&platform).await;
        let stale = store.write_chunk(FILE, ONE, CHUNK, 0, Slice::from(&b"x"[..])).await;
        assert_eq!(stale, Err(StoreError::StaleGeneration));
        let two = Generation(2);
        store.cut_chunks(FILE, two, 0, CHUNK).await.expect("repeated after a kill");
        assert_eq!(&*store.read_chunk(FILE, two, CHUNK, 3000 * 8192, 3).await.unwrap(), b"new");
        store.cut_chunks(FILE, Generation(3), 0, CHUNK).await.expect("dropped");
        assert!(store.state().floors.contains_key(&FILE));
        platform.sleep(std::time::Duration::from_secs(81)).await;
        let mut tx = store.transaction();
        tx.put(Record::DeleteInode { inode: FILE });
        tx.commit();
        platform.sleep(std::time::Duration::from_secs(2)).await;
        assert!(store.state().floors.is_empty(), "floors end two session lifetimes later");
    });
}

#[test]
fn changes_of_a_segment_report_what_they_did() {
    const CHUNK: u32 = 1 << 17;
    let world = World::new(6);
    let write = async |store: &ringfs_store::Store, offset: u64, len: usize| {
        let data = Slice::from(vec![9u8; len]);
        store.write_chunk(FILE, ONE, CHUNK, offset, data).await.expect("written")
    };
    world.run(async move |platform| {
        let store = open_with_file(&platform).await;
        assert_eq!(write(&store, 1 << 20, 10_000).await, 12_288);
        assert_eq!(write(&store, (1 << 20) + 10_000, 10_000).await, 8_192, "a block is shared");
        assert_eq!(write(&store, 1 << 20, 20_000).await, 0, "written over");
        let punched = store.punch_chunks(FILE, ONE, CHUNK, (1 << 20) + 1..(1 << 20) + 9_000);
        assert_eq!(punched.await, Ok(-4_096), "one whole block");
        let reserved = store.allocate_chunk(FILE, ONE, CHUNK, 1 << 20..(1 << 20) + 65_536);
        assert_eq!(reserved.await, Ok(65_536 - 16_384));
        // Two writes at once, the first of a segment of its own.
        let far = u64::from(CHUNK) * 5_000;
        let both = [write(&store, far, 8_192), write(&store, far + 8_192, 8_192)];
        let both = futures_util::future::join_all(both).await;
        assert_eq!(both.iter().sum::<i64>(), 16_384);
        store.written(store.position()).await.expect("written");
    });
    world.kill();
    world.run(async move |platform| {
        let store = open(&platform).await;
        assert_eq!(write(&store, (1 << 20) + 4_096, 65_536).await, 4_096, "after a start");
        let two = Generation(2);
        let cut = store.cut_chunks(FILE, two, (1 << 20) + 8_192, CHUNK).await;
        assert_eq!(cut, Ok(8_192 - 16_384 - 65_536 - 4_096), "both segments");
        assert_eq!(store.cut_chunks(FILE, two, (1 << 20) + 8_192, CHUNK).await, Ok(0));
    });
}

#[test]
fn a_cut_leaves_no_segment_without_data() {
    let world = World::new(4);
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        for chunk in [1, 5] {
            let data = Slice::from(&[9u8; 8192][..]);
            store.write_chunk(FILE, ONE, CHUNK, chunk * 8192, data).await.expect("written");
        }
        store.cut_chunks(FILE, Generation(2), 3 * 8192, CHUNK).await.expect("cut");
        assert_eq!(store.segments_after(InodeNumber(0), 0, 9), [(FILE, 0)]);
        store.cut_chunks(FILE, Generation(3), 8000, CHUNK).await.expect("cut");
        assert_eq!(store.segments_after(InodeNumber(0), 0, 9), []);
    });
}

#[test]
fn a_cut_repeated_after_a_power_cut_drops_old_bytes_and_no_durable_new_ones() {
    let two = Generation(2);
    for seed in 0..60 {
        let world = World::new(seed);
        let synced = seed % 2 == 0;
        world.run(move |platform| async move {
            let store = open_with_file(&platform).await;
            for chunk in [0u64, 1, 2, 1500] {
                let data = Slice::from(&[1u8; 8192][..]);
                store.write_chunk(FILE, ONE, CHUNK, chunk * 8192, data).await.expect("written");
            }
            store.sync_inode(FILE).await.expect("synced");
            store.cut_chunks(FILE, two, 8192, CHUNK).await.expect("cut");
            let data = Slice::from(&[2u8; 100][..]);
            store.write_chunk(FILE, two, CHUNK, 2 * 8192, data).await.expect("written");
            match synced {
                true => store.sync_inode(FILE).await.expect("synced"),
                false => store.synced(store.position()).await.expect("synced"),
            }
        });
        world.power_cut();
        world.run(move |platform| async move {
            let store = open(&platform).await;
            store.cut_chunks(FILE, two, 8192, CHUNK).await.expect("repeated by the home");
            let mut found = Vec::new();
            for chunk in [0u64, 1, 2, 1500] {
                let read = store.read_chunk(FILE, two, CHUNK, chunk * 8192, 8192).await;
                found.push(read.expect("read").to_vec());
            }
            assert_eq!(found[0], [1; 8192], "seed {seed}: before the cut");
            for bytes in &found[1..] {
                assert!(!bytes.contains(&1), "seed {seed}: cut bytes came back");
            }
            if synced {
                assert_eq!(found[2], [2; 100], "seed {seed}: durable after the cut");
            }
        });
    }
}

#[test]
fn numbers_are_never_used_twice() {
    let world = World::new(6);
    let mut highest = 0;
    for round in 0..6 {
        let numbers = world.run(|platform| async move {
            let store = open(&platform).await;
            let mut numbers = Vec::new();
            for _ in 0..3 {
                numbers.push(store.allocate(ringfs_store::RangeKind::Inode).await.expect("number"));
            }
            numbers
        });
        assert!(numbers.is_sorted() && numbers[0] > highest, "{numbers:?} after {highest}");
        highest = numbers[2];
        if round % 2 == 0 { world.power_cut() } else { world.kill() }
    }
}

#[test]
fn a_snapshot_replaces_the_log_before_it() {
    let world = World::new(7);
    world.run(|platform| async move {
        let store = open(&platform).await;
        for round in 0..40u64 {
            let mut tx = store.transaction();
            for index in 0..100 {
                let inode = file_record(InodeNumber(1000 + round * 100 + index));
                tx.put(Record::PutInode { inode });
            }
            tx.commit();
        }
        store.snapshot().await.expect("a snapshot");
        let mut tx = store.transaction();
        tx.put(Record::DeleteInode { inode: InodeNumber(1000) });
        store.synced(tx.commit()).await.expect("synced");
        let logs = platform.disk().list(DIRECTORY.as_ref()).await.expect("listed");
        let logs = logs.iter().filter(|item| item.name.to_string_lossy().starts_with("log-"));
        assert!(logs.count() <= 4, "old log files are gone");
    });
    world.power_cut();
    world.run(|platform| async move {
        let store = open(&platform).await;
        let state = store.state();
        assert_eq!(state.inodes.len(), 4000);
        assert!(!state.inodes.contains_key(&InodeNumber(1000)));
    });
}

#[test]
fn snapshots_come_by_themselves() {
    let world = World::new(8);
    world.run(|platform| async move {
        let mut options = options();
        options.snapshot_after_bytes = 100_000;
        let store =
            ringfs_store::Store::open(&platform, DIRECTORY.as_ref(), options).await.unwrap();
        for index in 0..2000u64 {
            let mut tx = store.transaction();
            tx.put(Record::PutInode { inode: file_record(InodeNumber(1000 + index)) });
            store.written(tx.commit()).await.expect("written");
        }
        platform.sleep(std::time::Duration::from_secs(3)).await;
        let names = platform.disk().list(DIRECTORY.as_ref()).await.expect("listed");
        assert!(names.iter().any(|item| item.name.to_string_lossy().starts_with("snapshot-")));
    });
}

#[test]
fn foreign_and_busy_directories_are_refused() {
    World::new(9).run(|platform| async move {
        let disk = platform.disk();
        let store = open(&platform).await;
        let second = ringfs_store::Store::open(&platform, DIRECTORY.as_ref(), options()).await;
        assert!(matches!(second.err(), Some(StoreError::Locked(_))));
        store.close().await.expect("closed");
        platform.sleep(std::time::Duration::from_secs(1)).await;
        let mut other = options();
        other.cluster = ringfs_wire::ClusterId(77);
        let refused = ringfs_store::Store::open(&platform, DIRECTORY.as_ref(), other).await;
        let text = refused.err().expect("another cluster").to_string();
        assert!(text.contains("belongs to cluster"), "{text}");

        disk.mkdir("/photos".as_ref(), 0o755).await.expect("made");
        disk.create("/photos/cat".as_ref(), 0o644).await.expect("created");
        let refused = ringfs_store::Store::open(&platform, "/photos".as_ref(), options()).await;
        let text = refused.err().expect("a foreign directory").to_string();
        assert!(text.contains("`cat`"), "{text}");
    });
}

#[test]
fn damage_of_durable_batches_is_an_error() {
    let world = World::new(10);
    let log = format!("{DIRECTORY}/log-0000000000000000");
    let path = log.clone();
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        for round in 0..10 {
            write(&store, 0, &[round; 10]).await;
            store.synced(store.position()).await.expect("synced");
        }
    });
    world.kill();
    let damage = |offset: u64| {
        let path = path.clone();
        world.run(move |platform| async move {
            let disk = platform.disk();
            let file = disk.open(path.as_ref(), OpenFlags::READ_WRITE, 0).await.expect("opened");
            disk.write(&file, offset, Slice::from(&b"damage"[..])).await.expect("written");
        });
    };
    damage(300);
    let refused = world.run(|platform| async move {
        ringfs_store::Store::open(&platform, DIRECTORY.as_ref(), options()).await.err()
    });
    match refused {
        Some(StoreError::Damaged { file, offset, .. }) => {
            assert_eq!(file, std::path::Path::new(&log));
            assert!(offset <= 300);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_torn_tail_is_cut() {
    let world = World::new(13);
    let end = world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        write(&store, 0, b"first").await;
        store.synced(store.position()).await.expect("synced");
        write(&store, 0, b"again").await;
        write(&store, 0, b"grown further").await;
        store.position().0
    });
    world.kill();
    world.run(move |platform| async move {
        let disk = platform.disk();
        let path = format!("{DIRECTORY}/log-0000000000000000");
        let file = disk.open(path.as_ref(), OpenFlags::READ_WRITE, 0).await.expect("opened");
        disk.write(&file, end - 3, Slice::from(&b"?"[..])).await.expect("written");
        drop(file);
        let store = open(&platform).await;
        assert_eq!(head(&store).await, b"again");
        write(&store, 0, b"goes on").await;
        assert_eq!(head(&store).await, b"goes on");
    });
}

#[test]
fn a_failed_sync_stops_the_store_for_good() {
    let world = World::new(11);
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        std::mem::forget(store);
    });
    world.kill();
    let mut faults =
        ringfs_platform::Faults { fsync_failure_per_mille: 1000, ..Default::default() };
    let simulation = world.simulation.clone();
    world.run(move |platform| async move {
        let store = open(&platform).await;
        simulation.set_faults(faults);
        write(&store, 0, b"x").await;
        let failed = store.synced(store.position()).await;
        assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
        faults.fsync_failure_per_mille = 0;
        simulation.set_faults(faults);
        assert!(matches!(store.synced(store.position()).await, Err(StoreError::Failed(_))));
        assert!(matches!(store.room(false), Err(StoreError::Failed(_))));
    });
}

#[test]
fn what_was_changed_before_a_failed_sync_is_shown() {
    let world = World::new(23);
    let simulation = world.simulation.clone();
    world.run(move |platform| async move {
        let store = open_with_file(&platform).await;
        simulation.set_faults(Faults { fsync_failure_per_mille: 1000, ..Default::default() });
        let syncing = store.clone();
        let failed = Rc::new(Cell::new(false));
        let slot = failed.clone();
        platform.spawn(async move { slot.set(syncing.sync_all().await.is_err()) });
        // Changes go on while the sync is under way, until it fails.
        while !failed.get() {
            let mut tx = store.transaction();
            tx.put(Record::PutInode { inode: file_record(FILE) });
            drop(tx);
            platform.sleep(std::time::Duration::from_micros(1)).await;
        }
        assert!(store.written(store.position()).await.is_err());
        store.shown(store.position()).await.expect("in the kernel");
    });
}

#[test]
fn a_head_that_no_file_was_made_of_is_used_again() {
    World::new(13).run(|platform| async move {
        let store = open(&platform).await;
        let before = store.usage().await.unwrap().used;
        for _ in 0..100 {
            let slot = store.new_head(&[1; 5_000]).await.unwrap();
            assert_eq!(store.usage().await.unwrap().used, before + 8_192);
            store.give_back_head(slot);
        }
        assert_eq!(store.usage().await.unwrap().used, before);
    });
}

#[test]
fn an_orderly_end_is_one_whatever_is_still_being_done() {
    for seed in 0..30 {
        let world = World::new(seed);
        world.run(|platform| async move {
            let store = open_with_file(&platform).await;
            let (busy, clock) = (store.clone(), platform.clone());
            platform.spawn(async move {
                for number in 0.. {
                    let mut tx = busy.transaction();
                    tx.put(Record::PutInode { inode: file_record(InodeNumber(1000 + number)) });
                    let _ = tx.commit();
                    clock.sleep(std::time::Duration::from_micros(20)).await;
                }
            });
            platform.sleep(std::time::Duration::from_millis(1)).await;
            store.close().await.expect("closed");
            platform.sleep(std::time::Duration::from_millis(100)).await;
        });
        world.kill();
        world.run(|platform| async move {
            let store = open(&platform).await;
            assert!(store.recovery().clean);
            // What was not written did not happen: the numbers go on without a gap.
            let inodes = store.state().inodes.keys().filter(|i| i.0 >= 1000).count() as u64;
            assert!(inodes > 10, "{inodes}");
            let last = InodeNumber(1000 + inodes - 1);
            assert_eq!(store.state().inodes.keys().next_back(), Some(&last));
        });
    }
}

#[test]
fn a_full_disk_refuses_growth_and_allows_deletes() {
    let world = World::new(12);
    let simulation = world.simulation.clone();
    world.run(move |platform| async move {
        let store = open(&platform).await;
        simulation.set_faults(ringfs_platform::Faults { no_space: true, ..Default::default() });
        let mut created = 0u64;
        while store.room(true).is_ok() {
            let mut tx = store.transaction();
            tx.put(Record::PutInode { inode: file_record(InodeNumber(1000 + created)) });
            store.written(tx.commit()).await.expect("the log has spare files");
            created += 1;
            assert!(created < 10_000);
        }
        for index in 0..created {
            store.room(false).expect("deletes may use the reserve");
            let mut tx = store.transaction();
            tx.put(Record::DeleteInode { inode: InodeNumber(1000 + index) });
            store.written(tx.commit()).await.expect("written");
        }
        simulation.set_faults(ringfs_platform::Faults::default());
        // Nobody has to be refused for the space to be noticed.
        platform.sleep(std::time::Duration::from_secs(1)).await;
        store.room(true).expect("there is space again");
    });
}

/// The test above is tested: an engine that reserves nothing is found out.
#[cfg(feature = "mutations")]
#[test]
fn reused_numbers_are_caught() {
    let world = World::new(14);
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(world.run(|platform| async move {
            let mut options = options();
            options.mutations.reuse_inode_numbers = true;
            let store = ringfs_store::Store::open(&platform, DIRECTORY.as_ref(), options).await;
            store.expect("opened").allocate(ringfs_store::RangeKind::Inode).await.expect("number")
        }));
        world.kill();
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn extended_attributes_survive_and_go_with_their_inode() {
    let world = World::new(21);
    let name = |text: &str| XattrName::new(text.as_bytes()).expect("valid");
    let values = move |store: &ringfs_store::Store| -> Vec<(XattrName, usize)> {
        let state = store.state();
        state.xattrs_of(FILE).map(|(name, value)| (name.clone(), value.len())).collect()
    };
    let expected = [(name("trusted.a"), 3), (name("user.b"), 20_000)];
    let other = InodeNumber(101);
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        for number in 0..20 {
            let mut tx = store.transaction();
            tx.put(Record::PutInode { inode: file_record(other) });
            let (inode, value) = (other, vec![7; 20_000]);
            let name = name(&format!("user.{number}"));
            tx.put(Record::PutXattr { inode, name, value });
            store.written(tx.commit()).await.expect("written");
        }
        let mut tx = store.transaction();
        let put =
            |text, len| Record::PutXattr { inode: FILE, name: name(text), value: vec![1; len] };
        tx.put(put("user.b", 20_000));
        tx.put(put("user.c", 1));
        tx.put(put("trusted.a", 3));
        tx.put(Record::DeleteXattr { inode: FILE, name: name("user.c") });
        store.written(tx.commit()).await.expect("written");
        store.close().await.expect("closed");
    });
    world.kill();
    let found = world.run(|platform| async move {
        let store = open(&platform).await;
        assert_eq!(store.state().xattrs_of(other).count(), 20);
        let mut tx = store.transaction();
        tx.put(Record::DeleteInode { inode: other });
        store.synced(tx.commit()).await.expect("synced");
        values(&store)
    });
    assert_eq!(found, expected);
    world.power_cut();
    let found = world.run(|platform| async move {
        let store = open(&platform).await;
        assert_eq!(store.state().xattrs_of(other).count(), 0, "they go with the inode");
        values(&store)
    });
    assert_eq!(found, expected);
}

#[test]
fn a_lineage_lasts_as_long_as_nothing_is_lost() {
    let world = World::new(21);
    let lineage = |keep: bool| {
        world.run(move |platform| async move {
            let store = open(&platform).await;
            let lineage = store.lineage();
            match keep {
                true => store.close().await.expect("closed"),
                false => std::mem::forget(store),
            }
            lineage
        })
    };
    let first = lineage(false);
    world.kill();
    assert_eq!(lineage(true), first, "the page cache is still there");
    world.power_cut();
    assert_eq!(lineage(false), first, "all was synced");
    world.power_cut();
    let second = lineage(false);
    assert_ne!(second, first, "nobody knows");
    world.kill();
    assert_eq!(lineage(false), second);
}

#[test]
fn a_lineage_ends_with_a_failed_sync() {
    let world = World::new(22);
    let first = world.run(|platform| async move {
        let store = open(&platform).await;
        store.lineage()
    });
    world.kill();
    let failing = Faults { fsync_failure_per_mille: 1000, ..Faults::default() };
    let simulation = world.simulation.clone();
    world.run(|platform| async move {
        let store = open_with_file(&platform).await;
        simulation.set_faults(failing);
        store.sync_all().await.unwrap_err();
        platform.sleep(std::time::Duration::from_millis(10)).await;
        assert_eq!(store.lineage(), first);
    });
    world.kill();
    let simulation = world.simulation.clone();
    world.run(|platform| async move {
        // A start that cannot sync what it finds notes the same.
        Store::open(&platform, DIRECTORY.as_ref(), options()).await.err().expect("no sync works");
        simulation.set_faults(Faults::default());
        let second = open(&platform).await;
        assert_ne!(second.lineage(), first);
    });
}
