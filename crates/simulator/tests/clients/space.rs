//! The space that files take, as programs are told.

use futures_util::future::join_all;
use ringfs_client::{Client, OpenFile};
use ringfs_wire::{HEAD_SIZE, InodeNumber};

use crate::world::{CHUNK, OWNER, World, name, run};

/// Longest file of the random changes, in bytes.
const LENGTH_MAX: u64 = 30 * CHUNK;
/// Random changes of one file.
const CHANGES: u64 = 60;

async fn new_file(client: &Client, text: &str) -> OpenFile {
    client.create(InodeNumber::ROOT, &name(text), OWNER, true).await.unwrap()
}

/// What the targets hold of all files.
async fn used(client: &Client) -> u64 {
    // Slots of heads that were replaced are free once that is durable.
    client.sync_all().await.unwrap();
    let mut used = 0;
    for entry in client.map().targets() {
        used += client.target_status(entry.id).await.unwrap().used;
    }
    used
}

async fn space(file: &OpenFile) -> u64 {
    file.refresh().await.unwrap().space()
}

#[test]
fn space_is_what_is_written_and_reserved() {
    run(|world| async move {
        let client = world.client(0);
        let file = new_file(&client, "f").await;
        let other = world.client(1).open(file.inode()).await.unwrap();
        assert_eq!(space(&file).await, 0);
        file.truncate(1 << 40).await.unwrap();
        assert_eq!(space(&other).await, 0, "a hole takes nothing");
        file.write(0, vec![1; 4 * CHUNK as usize]).await.unwrap();
        file.write((1 << 40) - CHUNK, vec![1; CHUNK as usize]).await.unwrap();
        assert_eq!(space(&other).await, 5 * CHUNK, "both ends");
        file.write(CHUNK, vec![2; 2 * CHUNK as usize]).await.unwrap();
        assert_eq!(space(&other).await, 5 * CHUNK, "written over");
        file.punch(CHUNK..2 * CHUNK).await.unwrap();
        file.punch(0..HEAD_SIZE).await.unwrap();
        assert_eq!(space(&other).await, 4 * CHUNK - HEAD_SIZE, "punched");
        file.zero(CHUNK..2 * CHUNK, false).await.unwrap();
        assert_eq!(space(&other).await, 5 * CHUNK - HEAD_SIZE, "zeros with space");
        assert_eq!(used(&client).await, 5 * CHUNK - HEAD_SIZE);
        file.truncate(3 * CHUNK).await.unwrap();
        assert_eq!(space(&other).await, 3 * CHUNK - HEAD_SIZE, "cut in the middle");
        file.truncate(0).await.unwrap();
        assert_eq!(space(&other).await, 0, "empty");
        file.write(0, b"ten bytes!".to_vec()).await.unwrap();
        assert_eq!(space(&other).await, 4096, "a small file takes a block");
        file.append(vec![3; CHUNK as usize]).await.unwrap();
        assert_eq!(space(&other).await, CHUNK + 4096, "appended");
        file.allocate(CHUNK..3 * CHUNK, true).await.unwrap();
        assert_eq!(space(&other).await, 3 * CHUNK, "reserved beyond the end");
        let reserved = new_file(&client, "g").await;
        reserved.allocate(0..10_000, false).await.unwrap();
        assert_eq!(space(&reserved).await, 12_288, "a part of the head");
        reserved.allocate(0..2 * CHUNK, false).await.unwrap();
        assert_eq!(space(&reserved).await, 2 * CHUNK, "head and chunks");
        reserved.write(5_000, vec![1; CHUNK as usize]).await.unwrap();
        assert_eq!(space(&reserved).await, 2 * CHUNK, "written where space was reserved");
    });
}

/// One change chosen by a number, and what it shows in a failure.
async fn change(file: &OpenFile, random: &mut u64) -> String {
    let mut below = |limit: u64| {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*random >> 33) % limit
    };
    let kind = below(9);
    let start = below(LENGTH_MAX);
    let len_max = [100, 5_000, 4 * CHUNK][below(3) as usize];
    let len = 1 + below(len_max);
    let end = start + len;
    let result = match kind {
        0..=3 => file.write(start, vec![7; len as usize]).await,
        4 => file.punch(start..end).await,
        5 => file.zero(start..end, len % 2 == 0).await,
        6 => file.allocate(start..end, len % 2 == 0).await,
        7 => file.truncate(start).await,
        _ => file.append(vec![7; len as usize]).await.map(drop),
    };
    result.unwrap();
    format!("{kind} of {start}..{end}")
}

#[test]
fn reports_add_up_to_what_the_targets_hold() {
    run(|world| async move {
        let clients = [world.client(0), world.client(1)];
        let file = new_file(&clients[0], "f").await;
        let other = clients[1].open(file.inode()).await.unwrap();
        let mut random = 7;
        for number in 0..CHANGES {
            let writer = if number % 3 == 0 { &other } else { &file };
            let done = change(writer, &mut random).await;
            let told = file.refresh().await.unwrap().allocated;
            assert_eq!(told, used(&clients[0]).await, "change {number}: {done}");
        }
    });
}

#[test]
fn writers_beside_one_another_report_every_block_once() {
    run(|world| async move {
        let clients = [world.client(0), world.client(1)];
        let file = new_file(&clients[0], "f").await;
        let other = clients[1].open(file.inode()).await.unwrap();
        // Interleaved pieces that share blocks, as parallel programs write one file.
        let len = 47_008;
        let write = |writer: OpenFile, index: u64| async move {
            writer.write(index * len, vec![1; len as usize]).await.unwrap();
        };
        let handle = |index: u64| if index.is_multiple_of(2) { &file } else { &other };
        join_all((0..64).map(|index| write(handle(index).clone(), index))).await;
        let told = file.refresh().await.unwrap();
        assert_eq!(told.allocated, used(&clients[0]).await);
        assert_eq!(told.space(), (64 * len).next_multiple_of(4096));
    });
}

#[test]
fn a_server_that_died_leaves_the_count_within_the_size() {
    run(|world: World| async move {
        let client = world.client(0);
        let file = new_file(&client, "f").await;
        file.write(0, vec![1; 8 * CHUNK as usize]).await.unwrap();
        world.kill(1);
        world.start(1);
        file.write(0, vec![2; 12 * CHUNK as usize]).await.unwrap();
        assert_eq!(space(&file).await, 12 * CHUNK);
        file.punch(CHUNK..3 * CHUNK).await.unwrap();
        assert_eq!(space(&file).await, 10 * CHUNK);
        file.truncate(CHUNK).await.unwrap();
        assert_eq!(space(&file).await, CHUNK);
    });
}
