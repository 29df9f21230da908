//! File locks between clients, through deaths and restarts.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringfs_client::{Client, ClientError};
use ringfs_platform::{Platform, SimulatedNode};
use ringfs_wire::{Errno, FileLock, InodeNumber, LockMode, LockOwner, LockRange, LockSpace};

use crate::world::{OWNER, name, run};

use LockMode::{Exclusive, Shared};

fn lock(id: u64, start: u64, last: u64, mode: LockMode) -> FileLock {
    let owner = LockOwner { space: LockSpace::Posix, id };
    FileLock { owner, range: LockRange { start, last }, mode, pid: id as u32 }
}

fn errno<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Errno {
    result.unwrap_err().errno()
}

async fn new_file(client: &Client) -> InodeNumber {
    client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap().inode()
}

/// Starts to wait for a lock; the result when it is there.
fn wait(
    platform: &Platform,
    client: &Client,
    inode: InodeNumber,
    lock: FileLock,
) -> Rc<Cell<Option<Result<(), ClientError>>>> {
    let result = Rc::new(Cell::new(None));
    let (client, told) = (client.clone(), result.clone());
    platform.spawn(async move { told.set(Some(client.lock(inode, lock, true).await)) });
    result
}

/// The server whose target is an inode's home.
fn server_of(client: &Client, inode: InodeNumber) -> u32 {
    let map = client.map();
    map.node_of(map.home(inode)).unwrap().id.0
}

#[test]
fn a_lock_is_handed_over_when_it_is_given_back() {
    run(|world| async move {
        let (a, b, platform) = (world.client(0), world.client(1), world.platform(1));
        let inode = new_file(&a).await;
        a.lock(inode, lock(1, 0, 99, Exclusive), false).await.unwrap();
        assert_eq!(errno(b.lock(inode, lock(1, 50, 60, Shared), false).await), Errno::EAGAIN);
        let found = b.test_lock(inode, lock(1, 50, 60, Shared)).await.unwrap().unwrap();
        assert_eq!((found.range, found.pid), (LockRange { start: 0, last: 99 }, 1));
        // Another owner of the same client, and the owner itself.
        assert!(a.test_lock(inode, lock(2, 50, 60, Shared)).await.unwrap().is_some());
        assert!(a.test_lock(inode, lock(1, 50, 60, Shared)).await.unwrap().is_none());
        let waiting = wait(&platform, &b, inode, lock(1, 50, 60, Exclusive));
        platform.sleep(Duration::from_secs(5)).await;
        assert!(waiting.take().is_none());
        a.unlock(inode, lock(1, 0, 0, Shared).owner, LockRange { start: 40, last: 70 })
            .await
            .unwrap();
        platform.sleep(Duration::from_millis(50)).await;
        waiting.take().expect("handed over at once").unwrap();
        // The rest stays; closing gives it back.
        assert_eq!(errno(b.lock(inode, lock(1, 30, 39, Shared), false).await), Errno::EAGAIN);
        a.release_locks(inode, lock(1, 0, 0, Shared).owner).await.unwrap();
        b.lock(inode, lock(1, 0, 99, Exclusive), false).await.unwrap();
    });
}

#[test]
fn any_client_of_a_process_unlocks_what_another_locked() {
    run(|world| async move {
        let process = world.process(0);
        let platform = world.platform(0);
        let (first, second) = (process.client(&platform), process.client(&platform));
        let other = world.client(1);
        let inode = new_file(&first).await;
        first.lock(inode, lock(1, 0, 9, Exclusive), false).await.unwrap();
        second.lock(inode, lock(1, 10, 19, Exclusive), false).await.unwrap();
        second
            .unlock(inode, lock(1, 0, 0, Shared).owner, LockRange { start: 0, last: 9 })
            .await
            .unwrap();
        other.lock(inode, lock(1, 0, 9, Exclusive), false).await.unwrap();
        // Locks stay as long as one client of the process lives.
        second.close().await.unwrap();
        assert_eq!(errno(other.lock(inode, lock(1, 10, 19, Shared), false).await), Errno::EAGAIN);
        first.close().await.unwrap();
        other.lock(inode, lock(1, 10, 19, Shared), false).await.unwrap();
    });
}

#[test]
fn a_client_that_dies_lets_go_within_its_sessions_life() {
    run(|world| async move {
        let (a, b, platform) = (world.client(0), world.client(1), world.platform(1));
        let inode = new_file(&a).await;
        a.lock(inode, lock(1, 0, 99, Exclusive), false).await.unwrap();
        // It holds on for as long as it lives, whatever it does otherwise.
        let waiting = wait(&platform, &b, inode, lock(1, 0, 9, Exclusive));
        platform.sleep(Duration::from_secs(90)).await;
        assert!(waiting.take().is_none());
        world.simulation.kill(SimulatedNode(100));
        platform.sleep(Duration::from_secs(44)).await;
        waiting.take().expect("granted").unwrap();
    });
}

#[test]
fn a_circle_is_told_to_the_last_who_joins() {
    run(|world| async move {
        let (a, b, platform) = (world.client(0), world.client(1), world.platform(1));
        let inode = new_file(&a).await;
        a.lock(inode, lock(1, 0, 0, Exclusive), false).await.unwrap();
        b.lock(inode, lock(1, 1, 1, Exclusive), false).await.unwrap();
        let waiting = wait(&platform, &b, inode, lock(1, 0, 0, Exclusive));
        platform.sleep(Duration::from_millis(100)).await;
        assert_eq!(errno(a.lock(inode, lock(1, 1, 1, Exclusive), true).await), Errno::EDEADLK);
        a.release_locks(inode, lock(1, 0, 0, Shared).owner).await.unwrap();
        platform.sleep(Duration::from_millis(100)).await;
        waiting.take().expect("granted").unwrap();
    });
}

#[test]
fn a_wish_given_up_is_never_granted_and_takes_nothing_away() {
    run(|world| async move {
        let (a, b, platform) = (world.client(0), world.client(1), world.platform(1));
        let inode = new_file(&a).await;
        a.lock(inode, lock(1, 0, 9, Shared), false).await.unwrap();
        b.lock(inode, lock(1, 0, 9, Shared), false).await.unwrap();
        // Interrupted at every moment of a wait, and of a grant that nobody learns of.
        for micros in [0, 10, 50, 100, 300, 1_000, 5_000, 2_000_000] {
            let wish = b.lock(inode, lock(1, 0, 20, Exclusive), true);
            let given_up = platform.timeout(Duration::from_micros(micros), wish).await;
            assert!(given_up.is_none(), "{micros}");
            let wish = b.lock(inode, lock(1, 30, 40, Exclusive), true);
            if platform.timeout(Duration::from_micros(micros), wish).await.is_some() {
                b.unlock(inode, lock(1, 0, 0, Shared).owner, LockRange { start: 30, last: 40 })
                    .await
                    .unwrap();
            }
            platform.sleep(Duration::from_millis(50)).await;
            assert!(a.test_lock(inode, lock(1, 10, 99, Exclusive)).await.unwrap().is_none());
            let kept = a.test_lock(inode, lock(1, 0, 9, Exclusive)).await.unwrap().unwrap();
            assert_eq!((kept.range, kept.mode), (LockRange { start: 0, last: 9 }, Shared));
        }
    });
}

#[test]
fn locks_survive_the_restart_of_their_home() {
    run(|world| async move {
        let (a, b, platform) = (world.client(0), world.client(1), world.platform(1));
        let inode = new_file(&a).await;
        a.lock(inode, lock(1, 0, 9, Exclusive), false).await.unwrap();
        let server = server_of(&a, inode);
        world.kill(server);
        platform.sleep(Duration::from_secs(1)).await;
        world.start(server);
        // Nothing is granted before the holder has had its time; then it is still refused.
        assert_eq!(errno(b.lock(inode, lock(1, 0, 0, Shared), false).await), Errno::EAGAIN);
        a.lock(inode, lock(1, 5, 20, Shared), false).await.unwrap();
        b.lock(inode, lock(1, 5, 20, Shared), false).await.unwrap();
        a.release_locks(inode, lock(1, 0, 0, Shared).owner).await.unwrap();
        b.lock(inode, lock(1, 0, 20, Exclusive), false).await.unwrap();
    });
}

#[test]
fn a_lock_lost_while_its_client_was_away_is_an_error_once() {
    run(|world| async move {
        let (a, b, platform) = (world.client(0), world.client(1), world.platform(1));
        let inode = new_file(&a).await;
        a.lock(inode, lock(1, 0, 9, Exclusive), false).await.unwrap();
        let server = SimulatedNode(server_of(&a, inode));
        world.simulation.partition(SimulatedNode(100), server, true);
        platform.sleep(Duration::from_secs(45)).await;
        b.lock(inode, lock(1, 0, 9, Exclusive), false).await.unwrap();
        world.simulation.partition(SimulatedNode(100), server, false);
        platform.sleep(Duration::from_secs(5)).await;
        assert_eq!(errno(a.lock(inode, lock(1, 0, 9, Shared), false).await), Errno::EIO);
        assert_eq!(errno(a.lock(inode, lock(1, 0, 9, Shared), false).await), Errno::EAGAIN);
        b.release_locks(inode, lock(1, 0, 0, Shared).owner).await.unwrap();
        a.lock(inode, lock(1, 0, 9, Shared), false).await.unwrap();
    });
}
