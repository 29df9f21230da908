//! Calls: identity over retries, order, deadlines, credits, cancellation.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join_all, select};
use ringfs_platform::{Faults, Simulation, Slice};
use ringfs_rpc::{CallError, Peer, PeerOptions, REQUESTS_IN_FLIGHT_MAX};
use ringfs_wire::{
    AnyRequest, ChunkRead, Echo, Epoch, Generation, InodeNumber, MAX_BULK_LEN, SLOTS_PER_SESSION,
    Status,
};

use crate::support::*;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn calls_carry_bodies_and_bulk_both_ways() {
    let world = World::new(1);
    let peer = peer(&world.client);
    world.run(async move {
        assert!(!peer.has_state());
        peer.call(&Echo {}, None).await.unwrap();
        assert!(!peer.has_state(), "a query leaves nothing behind");
        let data = Slice::from(vec![9; 100_000]);
        peer.call(&chunk_write(4096), Some(data)).await.unwrap();
        let generation = Generation(1);
        let read = ChunkRead {
            inode: InodeNumber(5),
            generation,
            chunk_size: 1 << 22,
            offset: 3,
            length: 70_000,
        };
        let response = peer.call(&read, None).await.unwrap();
        assert_eq!(response.bulk.as_deref(), Some(&[3; 70_000][..]));
        peer.call(&mutation("a"), None).await.unwrap();
        assert!(peer.has_state());
        let huge = Slice::from(vec![0; MAX_BULK_LEN + 1]);
        let error = peer.call(&chunk_write(0), Some(huge)).await.unwrap_err();
        assert_eq!(error, CallError::TooLarge { len: MAX_BULK_LEN + 1 });
    });
    assert_eq!(world.service.hellos.borrow().len(), 1, "one connection serves them all");
}

/// Mutations from several tasks over a network that breaks all the time.
fn exactly_once(seed: u64) -> u64 {
    let world = World::new(seed);
    let faults = Faults {
        connection_loss_per_mille: 40,
        delay_max: Duration::from_millis(30),
        ..Faults::default()
    };
    world.simulation.set_faults(faults);
    let peer = peer(&world.client);
    world.run(async move {
        join_all((0..6).map(|task| {
            let peer = peer.clone();
            async move {
                for index in 0..20 {
                    let name = format!("{task}-{index}");
                    peer.call(&mutation(&name), None).await.unwrap();
                    peer.call(&chunk_write(index), Some(Slice::from(vec![1; 5000]))).await.unwrap();
                }
            }
        }))
        .await;
    });
    let service = &world.service;
    assert_eq!(service.executed.borrow().len(), 120);
    assert!(service.executed.borrow().values().all(|count| *count == 1), "seed {seed}");
    assert!(service.hellos.borrow().len() > 3, "connections must have broken");
    assert!(service.hellos.borrow().iter().skip(20).all(|hello| !hello.fresh));
    world.simulation.trace()
}

#[test]
fn mutations_keep_their_identity_over_lost_connections() {
    for seed in 0..20 {
        assert_eq!(exactly_once(seed), exactly_once(seed), "seed {seed} must replay");
    }
}

#[test]
fn calls_survive_a_killed_server() {
    let world = World::new(3);
    *world.service.delays.borrow_mut() = vec![500 * MILLISECOND];
    let peer = peer(&world.client);
    let done = Rc::new(Cell::new(false));
    let flag = done.clone();
    world.client.spawn(async move {
        peer.call(&mutation("x"), None).await.unwrap();
        flag.set(true);
    });
    world.wait(100 * MILLISECOND);
    world.simulation.kill(SERVER);
    world.wait(SECOND);
    let server = world.simulation.platform(SERVER);
    let service = Recorder::new(&server);
    start_server(&server, &service);
    assert!(!done.get());
    world.wait(3 * SECOND);
    assert!(done.get());
    assert_eq!(service.executed.borrow()[&b"x"[..]], 1);
    assert_eq!(service.begun.borrow()[0].2, 1, "the same sequence as before");
}

#[test]
fn a_killed_client_leaves_a_server_that_goes_on() {
    for seed in 0..20 {
        let world = World::new(seed);
        *world.service.delays.borrow_mut() = vec![100 * MILLISECOND];
        let doomed = peer(&world.client);
        world.client.spawn(async move {
            let calls = (0..200).map(|index| {
                let doomed = doomed.clone();
                async move { doomed.call(&mutation(&index.to_string()), None).await.map(drop) }
            });
            join_all(calls).await;
        });
        world.wait(150 * MILLISECOND);
        world.simulation.kill(CLIENT);
        let client = world.simulation.platform(CLIENT);
        let world = World { client, ..world };
        let next = peer(&world.client);
        world.run(async move { next.call(&Echo {}, None).await.unwrap() });
        assert!(world.service.executed.borrow().values().all(|count| *count == 1));
    }
}

#[test]
fn a_partition_ends_calls_at_their_deadline_and_burns_the_sequence() {
    let world = World::new(4);
    let peer = peer(&world.client);
    let first = peer.clone();
    world.run(async move { first.call(&mutation("before"), None).await.unwrap() });
    world.simulation.partition(SERVER, CLIENT, true);
    let (platform, second) = (world.client.clone(), peer.clone());
    let (error, took) = world.run(async move {
        let start = platform.monotonic();
        let error = second.call(&mutation("lost"), None).await.unwrap_err();
        (error, platform.monotonic() - start)
    });
    assert!(matches!(error, CallError::Deadline { target: TARGET, .. }), "{error}");
    assert!(took >= 30 * SECOND && took < 31 * SECOND, "{took:?}");
    world.simulation.partition(SERVER, CLIENT, false);
    let (platform, third) = (world.client.clone(), peer);
    world.run(async move {
        let deadline = platform.monotonic() + 20 * SECOND;
        third.call_until(&mutation("after"), None, deadline).await.unwrap();
        let late = third.call_until(&Echo {}, None, platform.monotonic()).await;
        assert!(matches!(late, Err(CallError::Deadline { .. })));
    });
    let begun = world.service.begun.borrow();
    let (_, slot, sequence) = begun.last().unwrap();
    assert_eq!((*slot, *sequence), (0, 3), "the lost call keeps its number for itself");
}

#[test]
fn a_stale_data_frame_never_overwrites_newer_bytes() {
    let world = World::new(5);
    // The first write takes longer than an attempt: it is sent again while it still runs.
    *world.service.delays.borrow_mut() = vec![5 * SECOND, Duration::ZERO];
    let peer = peer(&world.client);
    world.run(async move {
        peer.call(&chunk_write(1), None).await.unwrap();
        peer.call(&chunk_write(2), None).await.unwrap();
    });
    world.wait(10 * SECOND);
    let written = world.service.written.borrow().clone();
    assert_eq!(written.last(), Some(&2), "{written:?}");
    assert_eq!(written[0], 1);
    assert!(written.len() >= 3, "the first write was repeated: {written:?}");
    assert_eq!(world.service.running_max.get(), 1, "no data request beside an older one");
}

#[test]
fn what_always_takes_longer_than_a_first_attempt_succeeds() {
    let world = World::new(5);
    *world.service.delays.borrow_mut() = vec![5 * SECOND];
    let peer = peer(&world.client);
    world.run(async move {
        peer.call(&chunk_write(1), None).await.unwrap();
    });
    assert!(world.service.written.borrow().len() >= 2, "it was repeated");
}

#[test]
fn each_attempt_has_its_deadline_also_after_patience_was_asked_for() {
    for seed in 0..20 {
        let world = World::new(seed);
        *world.service.answers.borrow_mut() = vec![Status::Busy];
        *world.service.delays.borrow_mut() = vec![Duration::ZERO, 20 * SECOND, Duration::ZERO];
        let (peer, platform) = (peer(&world.client), world.client.clone());
        let taken = world.run(async move {
            peer.call(&mutation("x"), None).await.unwrap();
            platform.monotonic()
        });
        assert_eq!(world.service.begun.borrow().len(), 3, "busy, too slow, answered");
        assert!(taken < 5 * SECOND, "seed {seed}: {taken:?}");
    }
}

#[test]
fn patience_is_asked_for_and_granted() {
    let world = World::new(6);
    *world.service.answers.borrow_mut() =
        vec![Status::Busy, Status::Recovering, Status::Busy, Status::Recovering];
    let peer = peer(&world.client);
    let again = peer.clone();
    world.run(async move { again.call(&mutation("x"), None).await.unwrap() });
    let begun = world.service.begun.borrow().clone();
    assert_eq!(begun.len(), 5);
    assert!(begun.iter().all(|entry| *entry == begun[0]), "one identity");

    *world.service.answers.borrow_mut() = vec![Status::Busy; 10_000];
    let (platform, again) = (world.client.clone(), peer.clone());
    let error = world.run(async move {
        let deadline = platform.monotonic() + 5 * SECOND;
        again.call_until(&mutation("y"), None, deadline).await.unwrap_err()
    });
    assert_eq!(error.errno(), ringfs_wire::Errno::EIO);
    assert!(error.to_string().contains("busy"), "{error}");
    assert!(world.service.begun.borrow().len() < 60, "the pauses grow");

    *world.service.answers.borrow_mut() = vec![Status::StaleGeneration];
    let error = world.run(async move { peer.call(&chunk_write(0), None).await.unwrap_err() });
    assert_eq!(error.status(), Some(Status::StaleGeneration));
}

#[test]
fn credits_bound_what_is_in_flight() {
    let check = |options: PeerOptions, calls: usize, mutations: bool, bound: usize| {
        let world = World::new(7);
        *world.service.delays.borrow_mut() = vec![50 * MILLISECOND];
        let peer = peer_with(&world.client, identity(), options);
        world.run(async move {
            join_all((0..calls).map(|index| {
                let peer = peer.clone();
                async move {
                    let bulk = Some(Slice::from(vec![1; 1000]));
                    if mutations {
                        peer.call(&mutation(&index.to_string()), None).await.map(drop)
                    } else {
                        peer.call(&chunk_write(index as u64), bulk).await.map(drop)
                    }
                }
            }))
            .await
            .into_iter()
            .for_each(|result| result.unwrap());
        });
        assert_eq!(world.service.running_max.get(), bound);
        assert_eq!(world.service.begun.borrow().len(), calls, "nothing was sent twice");
    };
    let options = PeerOptions::default();
    check(PeerOptions { max_in_flight: 4, ..options }, 50, false, 4);
    check(PeerOptions { max_bulk_in_flight: 3500, ..options }, 50, false, 3);
    check(options, 300, true, usize::from(SLOTS_PER_SESSION));
    check(PeerOptions { max_in_flight: 1000, ..options }, 600, false, REQUESTS_IN_FLIGHT_MAX);
}

#[test]
fn a_dropped_call_burns_its_sequence_and_its_reply_is_ignored() {
    let world = World::new(8);
    *world.service.delays.borrow_mut() = vec![100 * MILLISECOND];
    let peer = peer(&world.client);
    let platform = world.client.clone();
    world.run(async move {
        {
            let dropped = mutation("dropped");
            let call = Box::pin(peer.call(&dropped, None));
            let nap = Box::pin(platform.sleep(20 * MILLISECOND));
            select(call, nap).await;
        }
        peer.call(&mutation("next"), None).await.unwrap();
        let calls = (0..64).map(|index| {
            let peer = peer.clone();
            async move { peer.call(&mutation(&format!("m{index}")), None).await.unwrap() }
        });
        join_all(calls).await;
    });
    let begun = world.service.begun.borrow();
    let identities = begun.iter().map(|(_, slot, sequence)| (*slot, *sequence)).collect::<Vec<_>>();
    assert_eq!(identities[..2], [(0, 1), (0, 2)]);
    assert_eq!(world.service.running_max.get(), 64, "its slot came back");
}

#[test]
fn references_come_first_after_a_reconnect() {
    let world = World::new(9);
    let asked = Rc::new(RefCell::new(Vec::new()));
    let log = asked.clone();
    let peer = Peer::new(
        &world.client,
        address(),
        TARGET,
        identity(),
        Rc::new(Cell::new(Epoch(1))),
        Rc::new(move |target| {
            log.borrow_mut().push(target);
            vec![InodeNumber(11), InodeNumber(12)]
        }),
        PeerOptions::default(),
    );
    let first = peer.clone();
    world.run(async move { first.call(&mutation("a"), None).await.unwrap() });
    assert!(asked.borrow().is_empty(), "not on the first connection");
    world.simulation.break_links(SERVER, CLIENT);
    let second = peer.clone();
    world.run(async move { second.call(&mutation("b"), None).await.unwrap() });
    assert_eq!(*asked.borrow(), [TARGET]);
    let begun = world.service.begun.borrow();
    let AnyRequest::References(references) = &begun[1].0 else { panic!("{begun:?}") };
    assert_eq!((references.take.len(), references.drop.len()), (2, 0));
    assert!(matches!(begun[2].0, AnyRequest::MetadataDelete(_)));
    let fresh = world.service.hellos.borrow().iter().map(|hello| hello.fresh).collect::<Vec<_>>();
    assert_eq!(fresh, [true, false]);
}

#[test]
fn an_expired_session_ends_every_call() {
    let world = World::new(10);
    let peer = peer(&world.client);
    let first = peer.clone();
    world.run(async move { first.call(&mutation("a"), None).await.unwrap() });
    world.service.admission.set(Some(Status::SessionExpired));
    world.simulation.break_links(SERVER, CLIENT);
    let errors = world.run(async move {
        let calls = (0..5).map(|index| {
            let peer = peer.clone();
            async move { peer.call(&mutation(&index.to_string()), None).await.unwrap_err() }
        });
        join_all(calls).await
    });
    assert!(errors.iter().all(|error| error.status() == Some(Status::SessionExpired)));
    assert_eq!(world.service.begun.borrow().len(), 1);
}

#[test]
fn idle_and_abandoned_connections_close() {
    (0..20).for_each(close_idle_and_abandoned);
}

fn close_idle_and_abandoned(seed: u64) {
    let world = World::new(seed);
    let peer = peer(&world.client);
    let first = peer.clone();
    let platform = world.client.clone();
    world.run(async move {
        first.call(&Echo {}, None).await.unwrap();
        platform.sleep(5 * SECOND).await;
        first.call(&Echo {}, None).await.unwrap();
        first.call(&Echo {}, None).await.unwrap();
    });
    world.wait(25 * SECOND);
    assert_eq!(world.service.disconnects.get(), 0);
    // Well before a session without a sign of life ends: it may hold nothing but this connection.
    world.wait(10 * SECOND);
    assert_eq!(world.service.disconnects.get(), 1, "seed {seed}: closed when idle");
    let second = peer.clone();
    world.run(async move { second.call(&Echo {}, None).await.unwrap() });
    drop(peer);
    world.wait(SECOND);
    assert_eq!(world.service.disconnects.get(), 2, "closed with the last peer");
    let simulation: &Simulation = &world.simulation;
    let asleep = simulation.run_until(|| false, 3600 * SECOND);
    assert_eq!(asleep, ringfs_platform::Outcome::Stalled, "no timer is left");
}

#[test]
fn a_newer_connection_of_the_session_takes_over() {
    let world = World::new(12);
    let (older, newer) = (peer(&world.client), peer(&world.client));
    world.run(async move {
        older.call(&Echo {}, None).await.unwrap();
        newer.call(&Echo {}, None).await.unwrap();
        older.call(&Echo {}, None).await.unwrap();
    });
    assert_eq!(world.service.hellos.borrow().len(), 3);
    assert_eq!(world.service.disconnects.get(), 0, "the session was never without connection");
}
