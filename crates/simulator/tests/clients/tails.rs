//! What writers leave beyond the size of a file whose home then loses power.

use std::time::Duration;

use ringfs_platform::SimulatedNode;
use ringfs_wire::InodeNumber;

use crate::world::{CHUNK, OWNER, World, name, run};

const LEN: u64 = 1_000;

/// A file, and the offset of a chunk of it that another server keeps than its home.
async fn file_over_two_servers(world: &World, text: &str) -> (InodeNumber, u64, SimulatedNode) {
    let client = world.client(0);
    let file = client.create(InodeNumber::ROOT, &name(text), OWNER, true).await.unwrap();
    let (inode, map) = (file.inode(), client.map());
    let node = |target| map.targets().iter().find(|entry| entry.id == target).unwrap().node.0;
    let home = node(map.home(inode));
    let is_far = |index: &u64| node(map.chunk_owner(inode, *index)) != home;
    let index = (1..100).find(is_far).expect("chunks spread");
    client.sync_all().await.unwrap();
    drop(file);
    client.close().await.unwrap();
    (inode, index * CHUNK, SimulatedNode(home))
}

#[test]
fn a_tail_whose_size_was_lost_is_never_shown() {
    run(|world| async move {
        for round in 0..10 {
            let (inode, offset, home) = file_over_two_servers(&world, &round.to_string()).await;
            let writer = world.client(1);
            let file = writer.open(inode).await.unwrap();
            file.write(offset, vec![7; LEN as usize]).await.unwrap();
            world.simulation.power_cut(home);
            world.kill(home.0);
            drop((file, writer));
            world.start(home.0);
            let next = world.client(2);
            let file = next.open(inode).await.unwrap();
            let was_lost = file.attributes().size == 0;
            // Within what the first writer had announced.
            file.write(offset + 2 * LEN, vec![8; LEN as usize]).await.unwrap();
            let read = file.read(offset, 3 * LEN as usize).await.unwrap();
            let first = if was_lost { 0 } else { 7 };
            assert_eq!(read[..LEN as usize], [first; LEN as usize], "round {round}");
            assert_eq!(read[LEN as usize..2 * LEN as usize], [0; LEN as usize]);
            assert_eq!(read[2 * LEN as usize..], [8; LEN as usize]);
            drop(file);
            next.close().await.unwrap();
            world.platform(3).sleep(Duration::from_secs(2)).await;
        }
    });
}
