//! What only the simulated variant promises: faults, and their exact repetition.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{
    Address, Buffer, Disk, DiskTrouble, Faults, Frame, FrameLengths, Framing, OpenFlags, Outcome,
    Platform, SimulatedNode, Simulation, SimulationOptions, Slice, StorageError,
};

const A: SimulatedNode = SimulatedNode(1);
const B: SimulatedNode = SimulatedNode(2);
const BLOCK: usize = 4096;

/// Frames of one byte each, without any header to speak of.
const FRAMING: Framing =
    Framing { header_len: 1, lengths: |_| Ok(FrameLengths { body: 0, bulk: 0 }) };

fn world(seed: u64, faults: Faults) -> Simulation {
    Simulation::new(seed, SimulationOptions { faults, ..SimulationOptions::default() })
}

/// Runs a task on `node` to its end and gives its result.
fn on<T: 'static, F: Future<Output = T> + 'static>(
    simulation: &Simulation,
    node: SimulatedNode,
    body: impl FnOnce(Platform) -> F,
) -> T {
    let result = Rc::new(RefCell::new(None));
    let slot = result.clone();
    let platform = simulation.platform(node);
    let task = body(platform.clone());
    platform.spawn(async move {
        let value = task.await;
        *slot.borrow_mut() = Some(value);
    });
    let outcome = simulation.run_until(|| result.borrow().is_some(), Duration::from_secs(3600));
    assert_eq!(outcome, Outcome::Done);
    result.take().expect("done")
}

fn pass(simulation: &Simulation, time: Duration) {
    simulation.run_until(|| false, time);
}

async fn write_file(disk: &Disk, path: &str, byte: u8, blocks: usize) {
    let flags = OpenFlags::CREATE;
    let file = disk.open(Path::new(path), flags, 0o600).await.expect("open");
    disk.write(&file, 0, Slice::from(vec![byte; blocks * BLOCK])).await.expect("write");
}

async fn sync_file(disk: &Disk, path: &str) -> Result<(), StorageError> {
    let file = disk.open(Path::new(path), OpenFlags::READ_WRITE, 0).await.expect("open");
    disk.sync_data(&file).await
}

async fn read_file(disk: &Disk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenFlags::READ, 0).await.ok()?;
    let len = 1 << 20;
    let (result, buffer) = disk.read(&file, 0, Buffer::with_capacity(len), len).await;
    result.expect("read");
    Some(buffer.to_vec())
}

fn read_on(simulation: &Simulation, path: &'static str) -> Option<Vec<u8>> {
    on(simulation, A, move |platform| async move { read_file(&platform.disk(), path).await })
}

fn frame(byte: u8) -> Frame {
    Frame { head: vec![byte], bulk: None }
}

fn address() -> Address {
    "10.0.0.1:7000".parse().expect("an address")
}

/// A node that counts what it receives, and how its last connection ended.
#[derive(Clone, Default)]
struct Sink {
    received: Rc<RefCell<Vec<u8>>>,
    ended: Rc<Cell<Option<ErrorKind>>>,
}

impl Sink {
    fn start(&self, simulation: &Simulation, node: SimulatedNode) {
        let platform = simulation.platform(node);
        let sink = self.clone();
        platform.clone().spawn(async move {
            let listener = platform.listen(&address(), FRAMING).await.expect("listen");
            loop {
                let (_sender, mut receiver) = listener.accept().await.expect("accept").split();
                sink.ended.set(loop {
                    match receiver.receive().await {
                        Ok(frame) => sink.received.borrow_mut().push(frame.head[0]),
                        Err(error) => break Some(error.kind()),
                    }
                });
            }
        });
        pass(simulation, Duration::from_millis(1));
    }
}

/// Sends `count` numbered frames, one each millisecond, keeping the link open for `linger`.
fn start_source(simulation: &Simulation, node: SimulatedNode, count: u8, linger: Duration) {
    let platform = simulation.platform(node);
    platform.clone().spawn(async move {
        let link = platform.connect(&address(), FRAMING).await.expect("connect");
        let (mut sender, _receiver) = link.split();
        for index in 0..count {
            if sender.send(vec![frame(index)]).await.is_err() {
                return;
            }
            platform.sleep(Duration::from_millis(1)).await;
        }
        platform.sleep(linger).await;
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let faults = Faults {
        connection_loss_per_mille: 20,
        delay_max: Duration::from_millis(2),
        disk_latency_max: Duration::from_millis(1),
        ..Faults::default()
    };
    let trace = |seed| {
        let simulation = world(seed, faults);
        let sink = Sink::default();
        sink.start(&simulation, A);
        start_source(&simulation, B, 50, Duration::ZERO);
        pass(&simulation, Duration::from_millis(20));
        on(&simulation, A, |platform| async move {
            write_file(&platform.disk(), "/file", 7, 20).await;
        });
        simulation.power_cut(A);
        let left = read_on(&simulation, "/file");
        pass(&simulation, Duration::from_secs(20));
        (simulation.trace(), simulation.now(), left, sink.received.take())
    };
    let traces: BTreeSet<u64> = (0..50)
        .map(|seed| {
            assert!(trace(seed) == trace(seed), "seed {seed}");
            trace(seed).0
        })
        .collect();
    assert_eq!(traces.len(), 50, "every seed is a world of its own");
}

#[test]
fn runs_end_as_they_should() {
    let simulation = world(1, Faults::default());
    assert_eq!(simulation.run_until(|| true, Duration::ZERO), Outcome::Done);
    assert_eq!(simulation.run_until(|| false, Duration::from_secs(1)), Outcome::Stalled);
    let platform = simulation.platform(A);
    platform.clone().spawn(async move { platform.sleep(Duration::from_secs(100)).await });
    assert_eq!(simulation.run_until(|| false, Duration::from_secs(1)), Outcome::TimedOut);
    assert_eq!(simulation.now(), Duration::from_secs(1));
    assert_eq!(simulation.run_until(|| false, Duration::from_secs(200)), Outcome::Stalled);
    assert_eq!(simulation.now(), Duration::from_secs(100));
}

#[test]
fn a_finished_simulation_leaves_nothing_behind() {
    let marker = Rc::new(());
    let simulation = world(1, Faults::default());
    Sink::default().start(&simulation, A);
    let platform = simulation.platform(B);
    let held = marker.clone();
    platform.clone().spawn(async move {
        let _held = held;
        let _link = platform.connect(&address(), FRAMING).await.expect("connect");
        write_file(&platform.disk(), "/file", 1, 1).await;
        std::future::pending::<()>().await;
    });
    pass(&simulation, Duration::from_secs(1));
    assert_eq!(Rc::strong_count(&marker), 2);
    drop(simulation);
    assert_eq!(Rc::strong_count(&marker), 1);
}

#[test]
fn a_kill_ends_the_process_and_keeps_the_disk() {
    let simulation = world(3, Faults::default());
    let ticks = Rc::new(Cell::new(0));
    let counter = ticks.clone();
    let old = simulation.platform(A);
    let boot = old.boot_id();
    old.spawn({
        let platform = old.clone();
        async move {
            write_file(&platform.disk(), "/file", 5, 3).await;
            let file = platform.disk().open(Path::new("/file"), OpenFlags::READ_WRITE, 0).await;
            platform.disk().lock(file.as_ref().expect("open")).await.expect("lock");
            let _listener = platform.listen(&address(), FRAMING).await.expect("listen");
            loop {
                platform.sleep(Duration::from_millis(1)).await;
                counter.set(counter.get() + 1);
            }
        }
    });
    pass(&simulation, Duration::from_millis(50));
    assert!(ticks.get() > 10);
    simulation.kill(A);
    let before = ticks.get();
    old.spawn(async { panic!("a dead process starts nothing") });
    pass(&simulation, Duration::from_millis(50));
    assert_eq!(ticks.get(), before);
    assert_eq!(read_on(&simulation, "/file"), Some(vec![5; 3 * BLOCK]));
    on(&simulation, A, |platform| async move {
        let disk = platform.disk();
        let file = disk.open(Path::new("/file"), OpenFlags::READ_WRITE, 0).await.expect("open");
        disk.lock(&file).await.expect("the lock died with its process");
        platform.listen(&address(), FRAMING).await.expect("so did the listener");
    });
    assert_eq!(simulation.platform(A).boot_id(), boot);
}

/// What a power cut leaves of a synced file of ones that was overwritten with twos and grown.
fn cut_overwritten_file(seed: u64) -> Vec<u8> {
    let simulation = world(seed, Faults::default());
    on(&simulation, A, |platform| async move {
        let disk = platform.disk();
        write_file(&disk, "/file", 1, 4).await;
        sync_file(&disk, "/file").await.expect("sync");
        disk.sync_directory(Path::new("/")).await.expect("sync directory");
        write_file(&disk, "/file", 2, 8).await;
    });
    let boot = simulation.platform(A).boot_id();
    simulation.power_cut(A);
    assert_ne!(simulation.platform(A).boot_id(), boot);
    read_on(&simulation, "/file").expect("its name is durable")
}

#[test]
fn a_power_cut_leaves_any_part_of_what_was_not_synced() {
    let (mut old, mut new, mut torn, mut zero, mut grown) = (0, 0, 0, 0, 0);
    for seed in 0..200 {
        let left = cut_overwritten_file(seed);
        assert!([4 * BLOCK, 8 * BLOCK].contains(&left.len()), "seed {seed}");
        grown += usize::from(left.len() == 8 * BLOCK);
        for (index, block) in left.chunks(BLOCK).enumerate() {
            let mut sectors = block.chunks(512).map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors are atomic");
                sector[0]
            });
            let kinds: BTreeSet<u8> = sectors.by_ref().collect();
            let allowed: &[u8] = if index < 4 { &[1, 2] } else { &[0, 2] };
            assert!(kinds.iter().all(|kind| allowed.contains(kind)), "seed {seed}: {kinds:?}");
            match (kinds.len(), kinds.first()) {
                (1, Some(1)) => old += 1,
                (1, Some(2)) => new += 1,
                (1, _) => zero += 1,
                _ => torn += 1,
            }
        }
    }
    let counts = [old, new, torn, zero, grown];
    assert!(counts.iter().all(|count| *count > 20), "all kinds happen: {counts:?}");
}

#[test]
fn names_survive_in_a_prefix() {
    let mut counts = BTreeSet::new();
    for seed in 0..100 {
        let simulation = world(seed, Faults::default());
        on(&simulation, A, |platform| async move {
            let disk = platform.disk();
            for name in ["/kept", "/also kept"] {
                disk.mkdir(Path::new(name), 0o700).await.expect("mkdir");
            }
            disk.sync_directory(Path::new("/")).await.expect("sync");
            for name in ["/a", "/b", "/c", "/d"] {
                disk.create(Path::new(name), 0o600).await.expect("create");
            }
            disk.rmdir(Path::new("/also kept")).await.expect("rmdir");
        });
        simulation.power_cut(A);
        let names: Vec<String> = on(&simulation, A, |platform| async move {
            let items = platform.disk().list(Path::new("/")).await.expect("list");
            items.iter().map(|item| item.name.to_string_lossy().into_owned()).collect()
        });
        let created: String = names.iter().filter(|name| name.len() == 1).cloned().collect();
        assert!("abcd".starts_with(&created), "seed {seed}: {names:?}");
        assert!(names.contains(&"kept".to_owned()), "seed {seed}: {names:?}");
        assert!(names.contains(&"also kept".to_owned()) || created == "abcd", "seed {seed}");
        counts.insert(names.len());
    }
    assert_eq!(counts, BTreeSet::from([2, 3, 4, 5, 6]), "all prefixes happen");
}

#[test]
fn a_rename_between_directories_is_whole() {
    let mut moved = 0;
    for seed in 0..100 {
        let simulation = world(seed, Faults::default());
        on(&simulation, A, move |platform| async move {
            let disk = platform.disk();
            disk.mkdir(Path::new("/x"), 0o700).await.expect("mkdir");
            disk.mkdir(Path::new("/y"), 0o700).await.expect("mkdir");
            write_file(&disk, "/x/file", 9, 1).await;
            sync_file(&disk, "/x/file").await.expect("sync");
            for directory in ["/x", "/y", "/"] {
                disk.sync_directory(Path::new(directory)).await.expect("sync");
            }
            disk.rename(Path::new("/x/file"), Path::new("/y/file")).await.expect("rename");
            if seed % 2 == 0 {
                disk.sync_directory(Path::new("/y")).await.expect("sync");
            }
        });
        simulation.power_cut(A);
        let (x, y) = (read_on(&simulation, "/x/file"), read_on(&simulation, "/y/file"));
        assert!(x.is_some() != y.is_some(), "seed {seed}: one name, never two or none");
        assert!(y.is_some() || seed % 2 == 1, "seed {seed}: a synced rename lasts");
        moved += usize::from(y.is_some() && seed % 2 == 1);
    }
    assert!(moved > 5 && moved < 45, "unsynced renames survive or not: {moved}");
}

#[test]
fn a_failed_sync_drops_what_it_should_have_synced() {
    let faults = Faults { fsync_failure_per_mille: 1000, ..Faults::default() };
    let simulation = world(1, Faults::default());
    on(&simulation, A, |platform| async move {
        let disk = platform.disk();
        write_file(&disk, "/file", 1, 1).await;
        sync_file(&disk, "/file").await.expect("sync");
        disk.sync_directory(Path::new("/")).await.expect("sync directory");
        write_file(&disk, "/file", 2, 1).await;
    });
    simulation.set_faults(faults);
    let failed =
        on(&simulation, A, |platform| async move { sync_file(&platform.disk(), "/file").await });
    assert_eq!(failed.expect_err("must fail").errno(), 5);
    simulation.set_faults(Faults::default());
    assert_eq!(read_on(&simulation, "/file"), Some(vec![2; BLOCK]), "the cache still has it");
    on(&simulation, A, |platform| async move {
        sync_file(&platform.disk(), "/file").await.expect("nothing is dirty any more");
    });
    simulation.power_cut(A);
    assert_eq!(read_on(&simulation, "/file"), Some(vec![1; BLOCK]), "but the device never did");
}

#[test]
fn a_sync_covers_for_sure_only_what_was_there_when_it_started() {
    let mut covered = 0;
    for seed in 0..100 {
        let faults = Faults { disk_latency_max: Duration::from_millis(5), ..Faults::default() };
        let simulation = world(seed, faults);
        on(&simulation, A, |platform| async move {
            let disk = platform.disk();
            write_file(&disk, "/file", 1, 1).await;
            disk.sync_directory(Path::new("/")).await.expect("sync directory");
            let file = disk.open(Path::new("/file"), OpenFlags::READ_WRITE, 0).await.expect("open");
            let late = async {
                platform.sleep(Duration::from_micros(10)).await;
                disk.write(&file, 0, Slice::from(vec![2; BLOCK])).await.expect("write");
            };
            let (synced, ()) = futures_util::join!(disk.sync_data(&file), late);
            synced.expect("sync");
        });
        simulation.power_cut(A);
        let left = read_on(&simulation, "/file").expect("durable");
        assert!(left.iter().all(|byte| [1, 2].contains(byte)) && left.len() == BLOCK);
        covered += usize::from(left[0] == 2);
    }
    assert!(covered > 10 && covered < 90, "by chance: {covered}");
}

#[test]
fn a_dropped_write_happens_or_not() {
    let outcomes: BTreeSet<u8> = (0..30)
        .map(|seed| {
            let simulation = world(seed, Faults::default());
            on(&simulation, A, |platform| async move {
                let disk = platform.disk();
                write_file(&disk, "/file", 1, 1).await;
                let file =
                    disk.open(Path::new("/file"), OpenFlags::READ_WRITE, 0).await.expect("open");
                let write = disk.write(&file, 0, Slice::from(vec![2; BLOCK]));
                let done = platform.timeout(Duration::from_micros(1), write).await;
                assert!(done.is_none());
                platform.sleep(Duration::from_secs(1)).await;
            });
            read_on(&simulation, "/file").expect("written")[0]
        })
        .collect();
    assert_eq!(outcomes, BTreeSet::from([1, 2]));
}

#[test]
fn space_is_bounded_and_can_be_reserved() {
    let options = SimulationOptions { capacity_bytes: 1 << 20, ..SimulationOptions::default() };
    let simulation = Simulation::new(1, options);
    on(&simulation, A, |platform| async move {
        let disk = platform.disk();
        let reserved = disk.create(Path::new("/reserved"), 0o600).await.expect("create");
        disk.allocate(&reserved, 0, 512 << 10).await.expect("allocate");
        let other = disk.create(Path::new("/other"), 0o600).await.expect("create");
        let data = |len: usize| Slice::from(vec![1; len]);
        let full = disk.write(&other, 0, data(600 << 10)).await;
        assert!(matches!(full, Err(StorageError::NoSpace(_))), "{full:?}");
        disk.write(&other, 0, data(512 << 10)).await.expect("just fits");
        assert_eq!(disk.space(Path::new("/")).await.expect("space").available, 0);
        disk.write(&reserved, 0, data(512 << 10)).await.expect("has its space");
        let full = disk.allocate(&other, 512 << 10, 1).await;
        assert!(matches!(full, Err(StorageError::NoSpace(_))), "{full:?}");
        disk.punch(&reserved, 0, 256 << 10).await.expect("punch");
        drop(other);
        disk.unlink(Path::new("/other")).await.expect("unlink");
        let available = disk.space(Path::new("/")).await.expect("space").available;
        assert_eq!(available, 768 << 10);
        disk.punch(&reserved, (300 << 10) + 10, 20).await.expect("punch");
        let available = disk.space(Path::new("/")).await.expect("space").available;
        assert_eq!(available, 768 << 10, "no whole block was given back");
    });
    simulation.set_faults(Faults { no_space: true, ..Faults::default() });
    on(&simulation, A, |platform| async move {
        let disk = platform.disk();
        let file = disk.open(Path::new("/reserved"), OpenFlags::READ_WRITE, 0).await.expect("open");
        let full = disk.write(&file, 0, Slice::from(vec![1; BLOCK])).await;
        assert!(matches!(full, Err(StorageError::NoSpace(_))), "{full:?}");
        disk.write(&file, 300 << 10, Slice::from(vec![1; BLOCK])).await.expect("reserved");
    });
}

#[test]
fn a_broken_connection_loses_a_suffix() {
    let mut shortened = 0;
    for seed in 0..100 {
        let faults = Faults {
            connection_loss_per_mille: 50,
            delay_max: Duration::from_millis(4),
            ..Faults::default()
        };
        let simulation = world(seed, faults);
        let sink = Sink::default();
        sink.start(&simulation, A);
        start_source(&simulation, B, 20, Duration::from_secs(1));
        pass(&simulation, Duration::from_secs(30));
        let received = sink.received.take();
        let expected: Vec<u8> = (0..received.len() as u8).collect();
        assert_eq!(received, expected, "seed {seed}: in order, at most once");
        let broken = received.len() < 20;
        shortened += usize::from(broken);
        if broken {
            assert_eq!(sink.ended.get(), Some(ErrorKind::ConnectionReset), "seed {seed}");
        }
    }
    assert!(shortened > 20 && shortened < 95, "{shortened}");
}

#[test]
fn a_short_partition_delays_and_a_long_one_breaks() {
    for (length, arrives) in [(2, true), (60, false)] {
        let simulation = world(5, Faults::default());
        let sink = Sink::default();
        sink.start(&simulation, A);
        start_source(&simulation, B, 20, Duration::from_secs(100));
        pass(&simulation, Duration::from_millis(10));
        simulation.partition(A, B, true);
        pass(&simulation, Duration::from_millis(500));
        let through = sink.received.borrow().len();
        assert!(through > 0 && through < 15, "{through}");
        let refused = on(&simulation, B, |platform| async move {
            let start = platform.monotonic();
            let link = platform.connect(&address(), FRAMING).await;
            (link.err().map(|error| error.kind()), platform.monotonic() - start)
        });
        assert_eq!(refused.0, Some(ErrorKind::TimedOut));
        assert!(refused.1 >= Duration::from_secs(1));
        pass(&simulation, Duration::from_secs(length).saturating_sub(refused.1));
        simulation.partition(A, B, false);
        pass(&simulation, Duration::from_secs(10));
        assert_eq!(sink.received.borrow().len() == 20, arrives, "after {length} s");
        assert_eq!(sink.ended.get(), (!arrives).then_some(ErrorKind::ConnectionReset));
    }
}

#[test]
fn a_partition_may_stop_one_direction_only() {
    for (from, to, arrives) in [(A, B, true), (B, A, false)] {
        let simulation = world(5, Faults::default());
        let sink = Sink::default();
        sink.start(&simulation, A);
        start_source(&simulation, B, 20, Duration::from_secs(100));
        pass(&simulation, Duration::from_millis(10));
        simulation.partition_one_way(from, to, true);
        pass(&simulation, Duration::from_secs(4));
        assert_eq!(sink.received.borrow().len() == 20, arrives);
        let refused = on(&simulation, B, |platform| async move {
            platform.connect(&address(), FRAMING).await.err().map(|error| error.kind())
        });
        assert_eq!(refused, Some(ErrorKind::TimedOut), "a connection needs both directions");
    }
}

#[test]
fn what_is_held_up_arrives_late_and_in_order() {
    let faults =
        Faults { hold_up_per_mille: 100, hold_up_max: Duration::from_secs(5), ..Faults::default() };
    let mut late = 0;
    for seed in 0..20 {
        let simulation = world(seed, faults);
        let sink = Sink::default();
        sink.start(&simulation, A);
        start_source(&simulation, B, 20, Duration::from_secs(1_000));
        pass(&simulation, Duration::from_secs(1));
        late += usize::from(sink.received.borrow().len() < 20);
        pass(&simulation, Duration::from_secs(200));
        assert!(sink.received.borrow().iter().copied().eq(0..20), "all, in order");
    }
    assert!(late > 5, "{late}");
}

#[test]
fn a_disk_of_its_own_faults_says_what_went_wrong() {
    let simulation = world(1, Faults::default());
    assert_eq!(simulation.disk_trouble(A), DiskTrouble::default());
    let faults = Faults { fsync_failure_per_mille: 1_000, ..Faults::default() };
    simulation.set_disk_faults(A, Some(faults));
    for (node, is_well) in [(A, false), (B, true)] {
        let synced = on(&simulation, node, |platform| async move {
            write_file(&platform.disk(), "/f", 1, 1).await;
            sync_file(&platform.disk(), "/f").await
        });
        assert_eq!(synced.is_ok(), is_well);
        let trouble = simulation.disk_trouble(node);
        assert_eq!((trouble.since.is_none(), trouble.lost_writes), (is_well, !is_well));
    }
    simulation.set_disk_faults(A, None);
    simulation.kill(A);
    let trouble = simulation.disk_trouble(A);
    assert_eq!((trouble.since, trouble.lost_writes), (None, true), "the page cache is still there");
    simulation.power_cut(A);
    assert_eq!(simulation.disk_trouble(A), DiskTrouble::default());
}

#[test]
fn a_disk_fills_up_and_gets_its_space_back() {
    let simulation = world(1, Faults::default());
    let write = |path: &'static str, blocks: usize| {
        on(&simulation, A, move |platform| async move {
            let disk = platform.disk();
            let file = disk.open(Path::new(path), OpenFlags::CREATE, 0o600).await.expect("open");
            disk.write(&file, 0, Slice::from(vec![1; blocks * BLOCK])).await
        })
    };
    write("/old", 4).expect("there is room");
    simulation.limit_space(A, Some(2 * BLOCK as u64));
    assert!(matches!(write("/new", 3), Err(StorageError::NoSpace(_))));
    write("/new", 2).expect("that much is left");
    simulation.limit_space(A, None);
    write("/new", 3).expect("there is room again");
}

#[test]
fn a_stalled_process_goes_on_where_it_was() {
    for seed in 0..20 {
        let simulation = world(seed, Faults::default());
        let sink = Sink::default();
        sink.start(&simulation, A);
        start_source(&simulation, B, 20, Duration::from_secs(100));
        pass(&simulation, Duration::from_millis(10));
        simulation.stall(A, Duration::from_secs(15));
        let before = sink.received.borrow().len();
        pass(&simulation, Duration::from_secs(14));
        assert_eq!(sink.received.borrow().len(), before, "nothing runs");
        pass(&simulation, Duration::from_secs(2));
        assert_eq!(sink.received.borrow().len(), 20, "everything has arrived");
        simulation.stall(A, Duration::from_secs(100));
        simulation.kill(A);
        let start = simulation.now();
        on(&simulation, A, |platform| async move { platform.sleep(Duration::from_secs(1)).await });
        assert_eq!(simulation.now() - start, Duration::from_secs(1), "a new process runs at once");
    }
}

#[test]
fn peers_notice_a_kill_and_a_power_cut() {
    for (seed, cut) in (0..40).map(|seed| (seed, seed % 2 == 0)) {
        let simulation = world(seed, Faults::default());
        let sink = Sink::default();
        sink.start(&simulation, A);
        start_source(&simulation, B, 200, Duration::ZERO);
        pass(&simulation, Duration::from_millis(20));
        if cut {
            simulation.power_cut(B)
        } else {
            simulation.kill(B)
        }
        pass(&simulation, Duration::from_secs(10));
        let ended = sink.ended.get().expect("the end is noticed");
        let orderly = ended == ErrorKind::UnexpectedEof;
        assert!(orderly || ended == ErrorKind::ConnectionReset, "seed {seed}: {ended}");
        assert!(!(orderly && cut), "seed {seed}: a machine without power says no farewell");
    }
}

#[test]
fn links_break_on_demand_and_wall_clocks_differ() {
    let simulation = world(9, Faults::default());
    let sink = Sink::default();
    sink.start(&simulation, A);
    start_source(&simulation, B, 200, Duration::ZERO);
    pass(&simulation, Duration::from_millis(20));
    simulation.break_links(A, B);
    pass(&simulation, Duration::from_secs(10));
    assert_eq!(sink.ended.get(), Some(ErrorKind::ConnectionReset));
    simulation.skew_wall(A, -1_500_000_000);
    let (a, b) = (simulation.platform(A), simulation.platform(B));
    assert_eq!(b.wall() - a.wall(), Duration::from_millis(1500));
    assert_eq!(a.monotonic(), b.monotonic());
}
