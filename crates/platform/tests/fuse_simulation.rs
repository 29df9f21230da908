//! The simulated FUSE channel: the test plays the kernel.
#![allow(clippy::host_endian_bytes, reason = "the FUSE protocol is in the machine's order")]

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::fuse::{FuseChannel, FuseError, FuseMount, MountRequest};
use ringfs_platform::sim::{FuseEvent, FuseKernel, NotifyCompletion};
use ringfs_platform::{Outcome, Platform, SimulatedNode, Simulation, SimulationOptions, Slice};

const DAEMON: SimulatedNode = SimulatedNode(1);
/// Runs what belongs to the kernel and its users.
const KERNEL: SimulatedNode = SimulatedNode(2);
const PLACE: &str = "/mnt";
const CAPACITY: usize = 8192;
const GETATTR: u32 = 3;
const FORGET: u32 = 2;
const INIT: u32 = 26;
const SEEDS: u64 = 20;

fn world(seed: u64) -> Simulation {
    Simulation::new(seed, SimulationOptions::default())
}

fn request() -> MountRequest {
    MountRequest {
        directory: PLACE.into(),
        source: "ringfs#test".to_owned(),
        allow_other: false,
        read_only: true,
        max_read: 0,
    }
}

fn message(opcode: u32, unique: u64) -> Vec<u8> {
    let mut bytes = [40, opcode].map(u32::to_ne_bytes).concat();
    bytes.extend(unique.to_ne_bytes());
    bytes.resize(40, 0);
    bytes
}

fn reply(unique: u64, bulk: &[u8]) -> Vec<u8> {
    let mut bytes = [16 + bulk.len() as u32, 0].map(u32::to_ne_bytes).concat();
    bytes.extend(unique.to_ne_bytes());
    bytes
}

fn unique_of(message: &[u8]) -> u64 {
    u64::from_ne_bytes(message[8..16].try_into().expect("eight bytes"))
}

/// Answers everything but FORGET with four bytes that tell the channel.
async fn serve(channel: FuseChannel, name: u8, served: Rc<Cell<u32>>) {
    while let Some(message) = channel.receive(CAPACITY).await.expect("receive") {
        served.set(served.get() + 1);
        if message[4] == FORGET as u8 {
            continue;
        }
        let bulk = vec![Slice::from(&[name; 3][..]), Slice::from(&[name][..])];
        channel.reply(reply(unique_of(&message), &[0; 4]), bulk).await.expect("reply");
    }
}

/// Mounts and answers INIT.
async fn greet(platform: &Platform) -> (FuseMount, FuseChannel) {
    let mount = platform.mount_fuse(&request()).await.expect("mount");
    assert!(mount.handoff().is_err(), "too early");
    let channel = mount.first().expect("first").adopt(platform).expect("adopt");
    let init = channel.receive(CAPACITY).await.expect("receive").expect("INIT");
    channel.reply(reply(unique_of(&init), &[]), Vec::new()).await.expect("reply");
    (mount, channel)
}

/// Starts `body` on the daemon's node, and gives the kernel's side once it is mounted.
fn start<F>(simulation: &Simulation, body: impl FnOnce(Platform) -> F) -> FuseKernel
where
    F: Future<Output = ()> + 'static,
{
    let platform = simulation.platform(DAEMON);
    platform.spawn(body(platform.clone()));
    let kernel = || {
        let kernel = simulation.fuse_kernel(DAEMON, Path::new(PLACE));
        kernel.filter(|kernel| !kernel.is_closed())
    };
    let outcome = simulation.run_until(|| kernel().is_some(), Duration::from_secs(1));
    assert_eq!(outcome, Outcome::Done);
    kernel().expect("a mount")
}

/// Collects what the daemon writes: replies, and notifies that nobody completes yet.
#[derive(Default)]
struct Received {
    replies: Vec<Vec<u8>>,
    notifies: Vec<(Vec<u8>, NotifyCompletion)>,
    ended: bool,
}

fn listen(simulation: &Simulation, kernel: &FuseKernel) -> Rc<RefCell<Received>> {
    let received = Rc::new(RefCell::new(Received::default()));
    let (log, kernel) = (received.clone(), kernel.clone());
    simulation.platform(KERNEL).spawn(async move {
        while let Some(event) = kernel.receive().await {
            let mut log = log.borrow_mut();
            match event {
                FuseEvent::Reply(bytes) => log.replies.push(bytes),
                FuseEvent::Notify(bytes, completion) => log.notifies.push((bytes, completion)),
            }
        }
        log.borrow_mut().ended = true;
    });
    received
}

fn pass(simulation: &Simulation) {
    simulation.run_until(|| false, Duration::from_secs(1));
}

/// Order of replies, which channels served, and the trace.
fn shared_mount(seed: u64) -> (Vec<u64>, [u32; 2], u64) {
    let simulation = world(seed);
    let served = [Rc::new(Cell::new(0)), Rc::new(Cell::new(0))];
    let [first, second] = served.clone();
    let kernel = start(&simulation, |platform| async move {
        let (mount, channel) = greet(&platform).await;
        let handoff = mount.handoff().expect("handoff");
        let other = platform.clone();
        platform.spawn(async move {
            serve(handoff.adopt(&other).expect("adopt"), 2, second).await;
        });
        serve(channel, 1, first).await;
    });
    assert!(kernel.is_read_only() && !kernel.allows_others());
    assert_eq!(kernel.source(), "ringfs#test");
    let received = listen(&simulation, &kernel);
    kernel.send(message(INIT, 1));
    pass(&simulation);
    received.borrow_mut().replies.clear();
    for unique in 10..30 {
        kernel.send(message(GETATTR, unique));
    }
    kernel.send(message(FORGET, 30));
    pass(&simulation);
    kernel.unmount();
    pass(&simulation);
    let received = received.borrow();
    assert!(received.ended, "the daemon let go of everything");
    assert!(received.replies.iter().all(|reply| reply.len() == 20));
    let order = received.replies.iter().map(|reply| unique_of(reply)).collect();
    (order, served.map(|served| served.get()), simulation.trace())
}

#[test]
fn requests_overtake_one_another_by_seed() {
    let mut orders = Vec::new();
    for seed in 0..SEEDS {
        let (mut order, served, trace) = shared_mount(seed);
        assert_eq!((order.clone(), served, trace), shared_mount(seed), "seed {seed}");
        assert_eq!(served.iter().sum::<u32>(), 21);
        orders.push(order.clone());
        order.sort_unstable();
        assert!(order.into_iter().eq(10..30));
    }
    orders.dedup();
    assert!(orders.len() > 1, "chance has a say");
}

#[test]
fn notifies_resolve_when_completed_and_one_that_waits_holds_up_no_other() {
    let simulation = world(1);
    let done = Rc::new(Cell::new(0));
    let count = done.clone();
    let kernel = start(&simulation, |platform| async move {
        let (mount, channel) = greet(&platform).await;
        for unique in [7, 8] {
            let (notifier, count) = (mount.notifier(), count.clone());
            platform.spawn(async move {
                notifier.notify(reply(unique, &[])).await.expect("notify");
                count.set(count.get() + 1);
            });
        }
        serve(channel, 1, Rc::default()).await;
    });
    let received = listen(&simulation, &kernel);
    kernel.send(message(INIT, 1));
    pass(&simulation);
    assert_eq!((done.get(), received.borrow().notifies.len()), (0, 2));
    for expected in 1..=2 {
        let (_, completion) = received.borrow_mut().notifies.pop().expect("a notify");
        completion.complete();
        pass(&simulation);
        assert_eq!(done.get(), expected);
    }
}

#[test]
fn a_killed_daemon_answers_no_more_and_its_place_is_free() {
    let simulation = world(2);
    let body = |platform: Platform| async move {
        let (_mount, channel) = greet(&platform).await;
        serve(channel, 1, Rc::default()).await;
    };
    let kernel = start(&simulation, body);
    let received = listen(&simulation, &kernel);
    kernel.send(message(INIT, 1));
    pass(&simulation);
    assert_eq!(received.borrow().replies.len(), 1);
    kernel.send(message(GETATTR, 2));
    simulation.kill(DAEMON);
    pass(&simulation);
    assert!(kernel.is_closed() && received.borrow().ended);
    assert_eq!(received.borrow().replies.len(), 1);

    let next = start(&simulation, body);
    let received = listen(&simulation, &next);
    next.send(message(INIT, 1));
    pass(&simulation);
    assert_eq!(received.borrow().replies.len(), 1);
}

#[test]
fn a_place_is_mounted_once_and_unmounted_by_its_daemon() {
    let simulation = world(3);
    let unmounted = Rc::new(Cell::new(false));
    let is_unmounted = unmounted.clone();
    let kernel = start(&simulation, |platform| async move {
        let (mount, channel) = greet(&platform).await;
        let again = platform.mount_fuse(&request()).await;
        assert!(matches!(again, Err(FuseError::AlreadyMounted(_))), "{again:?}");
        mount.unmount().await.expect("unmount");
        mount.notifier().notify(reply(1, &[])).await.expect("nothing to do");
        assert!(channel.receive(CAPACITY).await.expect("receive").is_none());
        is_unmounted.set(true);
    });
    kernel.send(message(INIT, 1));
    pass(&simulation);
    assert!(unmounted.get() && kernel.is_closed());
}
