//! Holes and reserved space.

use ringfs_client::{ClientError, OpenFile};
use ringfs_wire::{Errno, HEAD_SIZE, InodeNumber};

use crate::world::{CHUNK, OWNER, World, name, run};

async fn new_file(world: &World, text: &str) -> OpenFile {
    let client = world.client(0);
    client.create(InodeNumber::ROOT, &name(text), OWNER, true).await.unwrap()
}

/// Where data lies, as a program finds out.
async fn map_of(file: &OpenFile) -> Vec<(u64, u64)> {
    let mut extents = Vec::new();
    let mut at = 0;
    loop {
        match file.seek_data(at).await {
            Ok(start) => {
                at = file.seek_hole(start).await.unwrap();
                extents.push((start, at));
            }
            Err(error) => {
                assert_eq!(error.errno(), Errno::ENXIO);
                return extents;
            }
        }
        if at >= file.attributes().size {
            return extents;
        }
    }
}

fn errno<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Errno {
    result.unwrap_err().errno()
}

#[test]
fn a_hole_that_another_client_has_cut_off_is_not_read() {
    run(|world| async move {
        let file = new_file(&world, "f").await;
        file.truncate(3 * CHUNK).await.unwrap();
        file.sync().await.unwrap();
        let other = world.client(1).open(file.inode()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(other.read(CHUNK, 100).await.unwrap().len(), 100);
        }
        file.truncate(0).await.unwrap();
        assert_eq!(other.read(CHUNK, 100).await.unwrap().len(), 0);
    });
}

#[test]
fn holes_are_found_across_chunks_and_targets() {
    run(|world| async move {
        let file = new_file(&world, "f").await;
        assert_eq!(errno(file.seek_data(0).await), Errno::ENXIO, "empty");
        file.truncate(40 * CHUNK).await.unwrap();
        assert_eq!(map_of(&file).await, []);
        assert_eq!(file.seek_hole(7).await.unwrap(), 7);
        // Data over several chunks is one extent.
        file.write(3 * CHUNK, vec![1; 4 * CHUNK as usize]).await.unwrap();
        file.write(20 * CHUNK + 8192, vec![1; 4096]).await.unwrap();
        let expect = [(3 * CHUNK, 7 * CHUNK), (20 * CHUNK + 8192, 20 * CHUNK + 12288)];
        assert_eq!(map_of(&file).await, expect);
        assert_eq!(file.seek_data(4 * CHUNK + 5).await.unwrap(), 4 * CHUNK + 5);
        assert_eq!(file.seek_hole(4 * CHUNK + 5).await.unwrap(), 7 * CHUNK);
        assert_eq!(errno(file.seek_data(21 * CHUNK).await), Errno::ENXIO);
        assert_eq!(errno(file.seek_hole(40 * CHUNK).await), Errno::ENXIO);
        // The head counts as a whole.
        file.write(10, b"x".to_vec()).await.unwrap();
        assert_eq!(map_of(&file).await[0], (0, HEAD_SIZE));
        let small = new_file(&world, "g").await;
        small.write(0, b"abc".to_vec()).await.unwrap();
        assert_eq!(map_of(&small).await, [(0, 3)]);
    });
}

#[test]
fn a_punched_range_reads_as_zeros_on_every_client() {
    run(|world| async move {
        let file = new_file(&world, "f").await;
        let len = 6 * CHUNK as usize;
        file.write(0, vec![7; len]).await.unwrap();
        let before = file.attributes().modified;
        let other = world.client(1).open(file.inode()).await.unwrap();
        let mut model = vec![7; len];
        let ranges = [
            (CHUNK + 4096, 4 * CHUNK - 8192),
            (100, 200),
            (HEAD_SIZE - 10, HEAD_SIZE + 4096),
            (5 * CHUNK + 4096, 9 * CHUNK),
        ];
        for (start, end) in ranges {
            file.punch(start..end).await.unwrap();
            model[start as usize..(end as usize).min(len)].fill(0);
            assert!(*other.read(0, 2 * len).await.unwrap() == *model, "{start}..{end}");
        }
        assert!(other.refresh().await.unwrap().modified > before);
        let expect = [
            (0, HEAD_SIZE),
            (HEAD_SIZE + 4096, CHUNK + 4096),
            (4 * CHUNK - 8192, 5 * CHUNK + 4096),
        ];
        assert_eq!(map_of(&file).await, expect);
        // The whole head goes, and a file that shrinks to it later keeps its zeros.
        file.punch(0..HEAD_SIZE).await.unwrap();
        model[..HEAD_SIZE as usize].fill(0);
        assert!(file.seek_data(0).await.unwrap() > HEAD_SIZE);
        assert!(*other.read(0, 2 * len).await.unwrap() == *model);
        file.write(5, vec![3; 5]).await.unwrap();
        assert_eq!(*other.read(0, 12).await.unwrap(), [0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 0, 0]);
        // Beyond the end there is nothing to do.
        file.punch(100 * CHUNK..101 * CHUNK).await.unwrap();
        assert_eq!(file.attributes().size, len as u64);
        assert_eq!(errno(file.punch(5..5).await), Errno::EINVAL);
    });
}

#[test]
fn allocating_extends_and_keeps_every_byte() {
    run(|world| async move {
        let file = new_file(&world, "f").await;
        file.write(0, vec![7; CHUNK as usize + 5]).await.unwrap();
        let other = world.client(1).open(file.inode()).await.unwrap();
        file.allocate(CHUNK..5 * CHUNK, true).await.unwrap();
        assert_eq!(other.refresh().await.unwrap().size, CHUNK + 5);
        file.allocate(CHUNK..3 * CHUNK + 1, false).await.unwrap();
        let mut model = vec![7; CHUNK as usize + 5];
        model.resize(3 * CHUNK as usize + 1, 0);
        assert!(*other.read(0, 9 * CHUNK as usize).await.unwrap() == *model);
        file.zero(100..2 * CHUNK, false).await.unwrap();
        model[100..2 * CHUNK as usize].fill(0);
        assert!(*other.read(0, 9 * CHUNK as usize).await.unwrap() == *model);
        file.zero(3 * CHUNK..4 * CHUNK, true).await.unwrap();
        assert_eq!(other.refresh().await.unwrap().size, 3 * CHUNK + 1);
        file.zero(3 * CHUNK..4 * CHUNK, false).await.unwrap();
        model.resize(4 * CHUNK as usize, 0);
        assert!(*other.read(0, 9 * CHUNK as usize).await.unwrap() == *model);
        // Within the head alone.
        let small = new_file(&world, "g").await;
        small.allocate(10..100, false).await.unwrap();
        assert_eq!(*small.read(0, 200).await.unwrap(), [0; 100]);
        assert_eq!(errno(small.allocate(1..u64::MAX, false).await), Errno::EFBIG);
    });
}

#[test]
fn a_range_beyond_what_was_ever_written_is_punched_at_once() {
    run(|world| async move {
        let file = new_file(&world, "f").await;
        file.truncate(1 << 40).await.unwrap();
        file.punch(HEAD_SIZE + 1..1 << 40).await.unwrap();
        file.punch(0..1 << 40).await.unwrap();
        assert_eq!(file.refresh().await.unwrap().size, 1 << 40);
        assert_eq!(map_of(&file).await, []);
    });
}
