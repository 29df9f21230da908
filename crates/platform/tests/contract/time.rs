//! Clocks, tasks, shards and mailboxes: their part of the contract.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{MailboxClosed, Platform, TrySendError, mailbox};

const TICK: Duration = Duration::from_millis(2);

/// Sleeps last, timeouts fire and clocks run.
pub(crate) async fn keeps_time(platform: Platform, _dir: PathBuf) {
    let start = platform.monotonic();
    let wall = platform.wall();
    platform.sleep(TICK).await;
    assert!(platform.monotonic() - start >= TICK);
    assert!(platform.wall() > wall);
    let never = std::future::pending::<()>();
    assert_eq!(platform.timeout(TICK, never).await, None);
    assert_eq!(platform.timeout(Duration::from_secs(60), async { 7 }).await, Some(7));
    platform.sleep(Duration::ZERO).await;
}

/// Spawned tasks run without being waited for, and stay on their thread.
pub(crate) async fn runs_tasks(platform: Platform, _dir: PathBuf) {
    let count = Rc::new(Cell::new(0));
    for index in 0..100 {
        let (platform, count) = (platform.clone(), count.clone());
        platform.clone().spawn(async move {
            platform.sleep(TICK * (index % 3)).await;
            count.set(count.get() + 1);
        });
    }
    while count.get() < 100 {
        platform.sleep(TICK).await;
    }
}

/// Randomness differs, the boot id stays.
pub(crate) async fn draws_numbers(platform: Platform, _dir: PathBuf) {
    assert_ne!(platform.random_u64(), platform.random_u64());
    let mut bytes = [0; 33];
    platform.random_bytes(&mut bytes);
    assert_ne!(bytes, [0; 33]);
    assert_ne!(platform.boot_id(), 0);
    assert_eq!(platform.boot_id(), platform.boot_id());
}

/// Shards run beside each other and talk through mailboxes.
pub(crate) async fn runs_shards(platform: Platform, _dir: PathBuf) {
    let (ask, questions) = mailbox::<u64>(4);
    let (answer, answers) = mailbox::<u64>(4);
    let mut shards = Vec::new();
    for _ in 0..3 {
        let (questions, answer) = (questions.clone(), answer.clone());
        shards.push(platform.start_shard("worker", move |platform: Platform| {
            Box::pin(async move {
                while let Some(question) = questions.receive().await {
                    platform.sleep(Duration::from_micros(question % 7)).await;
                    answer.send(question * 2).await.expect("asker waits");
                }
            })
        }));
    }
    drop((questions, answer));
    platform.spawn(async move {
        for question in 0..200 {
            ask.send(question).await.expect("workers wait");
        }
    });
    let mut sum = 0;
    while let Some(answer) = answers.receive().await {
        sum += answer;
    }
    assert_eq!(sum, 199 * 200);
    shards.into_iter().for_each(ringfs_platform::Shard::join);
}

/// A mailbox is bounded and tells when the other side is gone.
pub(crate) async fn bounds_mailboxes(platform: Platform, _dir: PathBuf) {
    let (sender, receiver) = mailbox::<u32>(2);
    sender.try_send(1).expect("room");
    sender.send(2).await.expect("room");
    assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
    assert!(platform.timeout(TICK, sender.send(3)).await.is_none(), "the bound makes it wait");
    assert_eq!(receiver.receive().await, Some(1));
    assert_eq!(receiver.try_receive(), Some(2));
    assert_eq!(receiver.try_receive(), None);
    drop(receiver);
    assert_eq!(sender.send(4).await, Err(MailboxClosed(4)));
    let (sender, receiver) = mailbox::<u32>(1);
    sender.send(5).await.expect("room");
    drop(sender);
    assert_eq!(receiver.receive().await, Some(5));
    assert_eq!(receiver.receive().await, None);
}
