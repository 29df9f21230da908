//! Processes that get no processor for a while: as long as an operation may take, nobody is told of
//! an error, and nothing that was open or locked is lost.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringfs_client::{Client, ClientError, OpenFile};
use ringfs_platform::SimulatedNode;
use ringfs_wire::{FileLock, InodeNumber, LockMode, LockOwner, LockRange, LockSpace};

use crate::world::{OWNER, World, name, run};

/// A bit less than an operation may take.
const LONG: Duration = Duration::from_secs(25);
/// The machine of the first client.
const FIRST: SimulatedNode = SimulatedNode(100);

/// What a client does on and on.
struct Work {
    client: Client,
    nameless: OpenFile,
    open: OpenFile,
    rounds: Cell<u64>,
    failure: RefCell<Option<ClientError>>,
}

const LOCK: FileLock = FileLock {
    owner: LockOwner { space: LockSpace::Posix, id: 1 },
    range: LockRange::ALL,
    mode: LockMode::Exclusive,
    pid: 1,
};

impl Work {
    async fn start(world: &World, machine: u32) -> Rc<Self> {
        let client = world.client(machine);
        let make = |text: String| {
            let client = client.clone();
            async move { client.create(InodeNumber::ROOT, &name(&text), OWNER, true).await.unwrap() }
        };
        let open = make(format!("open {machine}")).await;
        let nameless = make(format!("nameless {machine}")).await;
        client.unlink(InodeNumber::ROOT, &name(&format!("nameless {machine}"))).await.unwrap();
        client.lock(open.inode(), LOCK, false).await.unwrap();
        let rounds = Cell::default();
        let work = Rc::new(Work { client, nameless, open, rounds, failure: RefCell::default() });
        let (working, platform) = (work.clone(), world.platform(machine));
        platform.clone().spawn(async move {
            while working.failure.borrow().is_none() {
                let result = working.round().await;
                *working.failure.borrow_mut() = result.err();
                working.rounds.set(working.rounds.get() + 1);
                platform.sleep(Duration::from_millis(100)).await;
            }
        });
        work
    }

    async fn round(&self) -> Result<(), ClientError> {
        let (root, made) = (InodeNumber::ROOT, name(&format!("made {}", self.open.inode())));
        drop(self.client.create(root, &made, OWNER, true).await?);
        self.client.unlink(root, &made).await?;
        self.nameless.append(vec![1; 100]).await?;
        self.open.write(self.rounds.get() * 1_000, vec![2; 1_000]).await?;
        self.client.lock(self.open.inode(), LOCK, false).await
    }

    /// Nothing has failed, and it goes on.
    async fn check(&self, world: &World) {
        let rounds = self.rounds.get();
        world.platform(50).sleep(Duration::from_secs(20)).await;
        assert_eq!(*self.failure.borrow(), None);
        assert!(self.rounds.get() > rounds + 10, "it goes on");
        let size = self.client.attributes(self.nameless.inode()).await.unwrap().size;
        assert!(size >= self.rounds.get() * 100, "{size}");
        let other = world.client(51);
        let lock = FileLock { owner: LockOwner { id: 2, ..LOCK.owner }, ..LOCK };
        assert!(other.test_lock(self.open.inode(), lock).await.unwrap().is_some(), "still locked");
    }
}

#[test]
fn a_client_that_stalls_goes_on_as_if_nothing_had_been() {
    run(|world| async move {
        let (one, two) = (Work::start(&world, 0).await, Work::start(&world, 1).await);
        for stall in [Duration::from_secs(11), LONG] {
            // At some moment of a round, whichever comes.
            world.platform(50).sleep(Duration::from_micros(1_234_567)).await;
            world.simulation.stall(FIRST, stall);
            let before = two.rounds.get();
            world.platform(50).sleep(stall).await;
            assert!(two.rounds.get() > before + 50, "others go on meanwhile");
            one.check(&world).await;
        }
        two.check(&world).await;
    });
}

#[test]
fn a_server_that_stalls_counts_nobodys_silence() {
    run(|world| async move {
        let work = Work::start(&world, 0).await;
        let idle = world.client(1);
        let open = idle.create(InodeNumber::ROOT, &name("idle"), OWNER, true).await.unwrap();
        for (node, stall) in [(0, LONG), (1, LONG), (0, Duration::from_secs(12))] {
            world.simulation.stall(SimulatedNode(node), stall);
            world.platform(50).sleep(stall).await;
            work.check(&world).await;
        }
        drop(work);
        // Longer than any session lives; what is asked later finds everything.
        for node in [0, 1] {
            world.simulation.stall(SimulatedNode(node), Duration::from_secs(100));
        }
        world.platform(50).sleep(Duration::from_secs(102)).await;
        open.write(0, vec![1; 200_000]).await.unwrap();
    });
}

#[test]
fn a_client_may_stall_while_all_servers_start_again() {
    run(|world| async move {
        let work = Work::start(&world, 0).await;
        world.platform(50).sleep(Duration::from_millis(777)).await;
        for node in [0, 1] {
            world.kill(node);
        }
        world.platform(50).sleep(Duration::from_secs(2)).await;
        for node in [0, 1] {
            world.start(node);
        }
        world.simulation.stall(FIRST, Duration::from_secs(15));
        world.platform(50).sleep(Duration::from_secs(15)).await;
        work.check(&world).await;
    });
}
