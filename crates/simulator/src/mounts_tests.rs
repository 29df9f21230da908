//! What kernels cache of files in the moments after they were written.

use std::future::Future;

use futures_util::future::join;
use ringfs_platform::Platform;
use ringfs_platform::sim::{Simulation, SimulationOptions};
use ringfs_rpc::ClusterKey;
use ringfs_wire::InodeNumber;

use super::*;
use crate::kernel::File;
use crate::workload::{Knowledge, Swarm};

const MACHINES: [SimulatedNode; 2] = [SimulatedNode(100), SimulatedNode(101)];
/// Longest that a scene may take.
const LIMIT: Duration = Duration::from_secs(100);
const LEN: u64 = 3 * 4096;

/// Plays a scene on two machines that have the cluster mounted.
fn play<F: Future<Output = ()> + 'static>(
    seed: u64,
    scene: impl FnOnce([Rc<Kernel>; 2], Platform) -> F,
) {
    let simulation = Simulation::new(seed, SimulationOptions::default());
    let rng = simulation.random();
    let mut swarm = Swarm::draw(&rng);
    swarm.calm();
    let platform = simulation.platform(MACHINES[0]);
    let cluster = Cluster::new(&swarm, ClusterKey::generate(&platform), None);
    let shared = Rc::new(Shared {
        simulation,
        rng,
        swarm,
        knowledge: RefCell::new(Knowledge::new()),
        events: RefCell::default(),
        moment: Default::default(),
        is_stopping: Default::default(),
        was_full: Default::default(),
    });
    cluster.machines().into_iter().for_each(|node| cluster.start(&shared, node));
    let simulation = &shared.simulation;
    assert_eq!(simulation.run_until(|| cluster.is_up(), LIMIT), Progress::Done);
    let mut mounts = Mounts::default();
    let kernels =
        MACHINES.map(|node| mounts.kernel(&shared, &cluster, node).expect("it is mounted"));
    let has_ended = Rc::new(std::cell::Cell::new(false));
    let (scene, ended) = (scene(kernels, platform.clone()), has_ended.clone());
    platform.spawn(async move {
        scene.await;
        ended.set(true);
    });
    assert_eq!(simulation.run_until(|| has_ended.get(), LIMIT), Progress::Done);
    mounts.check().expect("no mount misbehaves");
}

/// A file that this kernel made and holds open for writing.
async fn written(kernel: &Kernel) -> (File, InodeNumber) {
    let (file, attr) = kernel.create((InodeNumber::ROOT, b"file"), 0o644, true).await.unwrap();
    kernel.write(file, 0, &[7; LEN as usize]).await.unwrap();
    (file, attr.inode)
}

/// Whether what is read by a new handle is read from pages the second time.
async fn reads_pages(kernel: &Kernel, inode: InodeNumber) -> bool {
    let reading = kernel.open_to_read(inode).await.unwrap();
    assert_eq!(kernel.read(reading, 0, 2 * LEN).await.unwrap(), [7; LEN as usize]);
    let before = kernel.hits();
    assert_eq!(kernel.read(reading, 0, LEN).await.unwrap(), [7; LEN as usize]);
    let hits = kernel.hits() - before;
    kernel.close(reading).await.unwrap();
    hits >= LEN / 4096
}

#[test]
fn a_file_is_cached_as_soon_as_its_writer_has_closed_it() {
    play(1, |[kernel, _], _| async move {
        let (file, inode) = written(&kernel).await;
        assert!(!reads_pages(&kernel, inode).await, "it is open for writing");
        kernel.close(file).await.unwrap();
        assert!(reads_pages(&kernel, inode).await);
        let again = kernel.open(inode).await.unwrap();
        assert!(!reads_pages(&kernel, inode).await, "it is open for writing again");
        kernel.close(again).await.unwrap();
        assert!(reads_pages(&kernel, inode).await);
    });
}

#[test]
fn a_file_that_another_mount_has_just_changed_is_read_past_the_pages() {
    play(1, |[here, there], _| async move {
        let (file, inode) = written(&here).await;
        here.close(file).await.unwrap();
        assert!(reads_pages(&here, inode).await);
        let file = there.open(inode).await.unwrap();
        there.write(file, 0, &[7]).await.unwrap();
        there.close(file).await.unwrap();
        assert!(!reads_pages(&here, inode).await);
    });
}

#[test]
fn two_mounts_that_cache_a_file_append_to_it_at_once() {
    (0..20).for_each(append_at_once);
}

fn append_at_once(seed: u64) {
    play(seed, |[here, there], platform| async move {
        let (file, inode) = written(&here).await;
        here.close(file).await.unwrap();
        // Beyond the time in which what was contested is granted to nobody.
        platform.sleep(Duration::from_secs(5)).await;
        for kernel in [&here, &there] {
            assert!(reads_pages(kernel, inode).await, "both cache it");
        }
        let begun = platform.monotonic();
        let appends = join(here.append(inode, b"one"), there.append(inode, b"two"));
        let (one, two) = appends.await;
        assert_eq!((one, two), (Ok(()), Ok(())));
        assert!(
            platform.monotonic() - begun < Duration::from_secs(5),
            "neither waits for the other's pages"
        );
    });
}
