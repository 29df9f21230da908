//! What syncs tell after a server has lost what it had acknowledged.

use ringfs_client::{Client, ClientError, OpenFile, OpenMode};
use ringfs_wire::{Errno, InodeNumber, TargetId};

use crate::world::{CHUNK, NODES, OWNER, World, name, run};

fn outcome(result: Result<(), ClientError>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}

const OK: Option<Errno> = None;
const LOST: Option<Errno> = Some(Errno::EIO);

/// A new file whose head and chunks lie everywhere.
async fn spread_file(client: &Client, text: &str) -> OpenFile {
    let file = client.create(InodeNumber::ROOT, &name(text), OWNER, true).await.unwrap();
    file.write(0, vec![1; 12 * CHUNK as usize]).await.unwrap();
    file
}

fn node_of(client: &Client, target: TargetId) -> u32 {
    client.map().node_of(target).unwrap().id.0
}

/// A machine loses power, or its server dies, and comes back.
fn strike(world: &World, node: u32, power: bool) {
    if power {
        world.cut_power(node)
    } else {
        world.kill(node)
    }
    world.start(node);
}

#[test]
fn a_sync_after_a_loss_of_power_fails_once_for_each_open_file() {
    for node in 0..NODES {
        run(move |world| async move {
            let client = world.client(0);
            let file = spread_file(&client, "f").await;
            let other = client.open(file.inode()).await.unwrap();
            strike(&world, node, true);
            let late = client.open(file.inode()).await;
            assert_eq!(outcome(file.sync().await), LOST);
            assert_eq!(outcome(file.sync().await), OK);
            assert_eq!(outcome(other.sync().await), LOST);
            assert_eq!(outcome(other.sync().await), OK);
            if let Ok(late) = late {
                assert_eq!(outcome(late.sync().await), LOST, "the loss had not been found");
            }
            assert_eq!(outcome(client.sync_all().await), LOST);
            assert_eq!(outcome(client.sync_all().await), OK);
            file.write(0, vec![2; 12 * CHUNK as usize]).await.unwrap();
            assert_eq!(outcome(file.sync().await), OK);
        });
    }
}

#[test]
fn a_sync_after_a_kill_succeeds() {
    run(|world| async move {
        let client = world.client(0);
        let file = spread_file(&client, "f").await;
        (0..NODES).for_each(|node| strike(&world, node, false));
        assert_eq!(outcome(file.sync().await), OK);
        assert_eq!(outcome(client.sync(InodeNumber::ROOT).await), OK);
        (0..NODES).for_each(|node| strike(&world, node, true));
        assert_eq!(file.read(0, 13 * CHUNK as usize).await.unwrap().len() as u64, 12 * CHUNK);
        assert_eq!(outcome(file.sync().await), OK, "nothing was changed since");
        assert_eq!(outcome(client.sync_all().await), OK);
    });
}

#[test]
fn a_loss_is_told_to_other_threads_of_the_process() {
    run(|world| async move {
        let process = world.process(0);
        let (one, other) = (process.client(&world.platform(0)), process.client(&world.platform(0)));
        let file = spread_file(&one, "f").await;
        let mode = OpenMode::READ_WRITE;
        let same = other.attach(&file.attributes(), mode, file.told_losses()).unwrap();
        strike(&world, 0, true);
        assert_eq!(outcome(same.sync().await), LOST);
        assert_eq!(outcome(file.sync().await), OK, "it is the same open file");
        let stranger = world.client(1).open(file.inode()).await;
        if let Ok(stranger) = stranger {
            assert_eq!(outcome(stranger.sync().await), OK, "it has changed nothing");
        }
    });
}

#[test]
fn what_was_appended_at_other_targets_is_missed() {
    run(|world| async move {
        let client = world.client(0);
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        let home = node_of(&client, client.map().home(file.inode()));
        for _ in 0..12 {
            file.append(vec![1; CHUNK as usize]).await.unwrap();
        }
        file.sync().await.unwrap();
        let mut is_away = false;
        while !is_away {
            file.append(vec![1; CHUNK as usize]).await.unwrap();
            let placement = client.placement(file.inode()).await.unwrap();
            let last = placement[placement.len() - 1].target;
            is_away = node_of(&client, last) != home;
        }
        strike(&world, 1 - home, true);
        assert_eq!(outcome(file.sync().await), LOST);
        assert_eq!(outcome(file.sync().await), OK);
    });
}

#[test]
fn lost_names_are_missed_by_the_sync_of_their_directory() {
    run(|world| async move {
        let client = world.client(0);
        let root = InodeNumber::ROOT;
        let home = node_of(&client, client.map().home(root));
        client.sync(root).await.unwrap();
        client.create(root, &name("f"), OWNER, true).await.unwrap();
        strike(&world, home, true);
        assert_eq!(outcome(client.sync(root).await), LOST);
        assert_eq!(outcome(client.sync(root).await), OK);
        client.create(root, &name("g"), OWNER, true).await.unwrap();
        strike(&world, home, false);
        assert_eq!(outcome(client.sync(root).await), OK);
    });
}
