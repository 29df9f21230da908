//! Reading and writing.

use std::time::Duration;

use futures_util::future::join_all;
use ringfs_client::{ClientError, ClientOptions, OpenFile};
use ringfs_wire::*;

use crate::fake::{CHUNK, OWNER, name, run, run_with};

const CHUNK_WRITE: ChunkWrite =
    ChunkWrite { inode: InodeNumber(0), generation: Generation(0), chunk_size: 0, offset: 0 };
const EXTEND: Extend = Extend {
    inode: InodeNumber(0),
    generation: Generation(0),
    end: 0,
    overwrite: false,
    lazy: false,
    allocated: 0,
};
const DISCARD: DiscardTail = DiscardTail { inode: InodeNumber(0), allocated: 0 };
const RESERVE: Reserve = Reserve { inode: InodeNumber(0), reach: 0 };

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| (index * 31 + seed * 7 + index / 251) as u8 | 1).collect()
}

#[test]
fn what_is_written_is_read_wherever_it_lies() {
    run(|client, _, _| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        let mut model = Vec::new();
        let head = HEAD_SIZE as usize;
        let chunk = CHUNK as usize;
        let writes = [(0, 10), (head - 5, 10), (chunk - 1, 2), (3 * chunk, chunk), (7, head)];
        for (seed, (offset, len)) in writes.into_iter().enumerate() {
            let data = pattern(len, seed);
            file.write(offset as u64, data.clone()).await.unwrap();
            model.resize(model.len().max(offset + len), 0);
            model[offset..offset + len].copy_from_slice(&data);
            assert_eq!(file.attributes().size, model.len() as u64);
        }
        for (offset, len) in [(0, 4 * chunk + 9), (5, 100), (head - 1, 2), (2 * chunk, 10)] {
            let expect = &model[offset.min(model.len())..(offset + len).min(model.len())];
            let found = file.read(offset as u64, len).await.unwrap();
            assert!(*found == *expect, "{len} bytes at {offset}");
        }
        assert!(file.read(model.len() as u64, 5).await.unwrap().is_empty());
        assert!(file.read(u64::MAX, 5).await.unwrap().is_empty());
        file.truncate(100).await.unwrap();
        file.truncate(chunk as u64 * 2).await.unwrap();
        model.truncate(100);
        model.resize(chunk * 2, 0);
        assert!(*file.read(0, chunk * 3).await.unwrap() == *model);
        assert_eq!(file.append(pattern(3, 9)).await.unwrap(), chunk as u64 * 2);
        assert_eq!(file.write(i64::MAX as u64, vec![1]).await.unwrap_err().errno(), Errno::EFBIG);
    });
}

#[test]
fn a_sequential_writer_announces_rarely() {
    run(|client, fake, _| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        for index in 0..64 {
            file.write(index * CHUNK, vec![1; CHUNK as usize]).await.unwrap();
        }
        assert!(fake.count(&RESERVE) <= 7, "{}", fake.count(&RESERVE));
        assert_eq!(fake.attributes(file.inode()).size, 64 * CHUNK);
    });
}

#[test]
fn sizes_of_concurrent_writes_travel_together() {
    run(|client, fake, _| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        fake.delay(&EXTEND, Duration::from_millis(5));
        let data = pattern(32 * CHUNK as usize, 1);
        let writes = data.chunks(CHUNK as usize).enumerate().map(|(index, piece)| {
            let file = &file;
            async move { file.write(index as u64 * CHUNK, piece).await }
        });
        for result in join_all(writes).await {
            result.unwrap();
        }
        assert!(fake.count(&EXTEND) < 16, "{}", fake.count(&EXTEND));
        assert!(*file.read(0, data.len()).await.unwrap() == *data);
    });
}

#[test]
fn a_write_under_an_old_generation_is_done_again() {
    run(|client, fake, _| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        file.write(0, pattern(3 * CHUNK as usize, 1)).await.unwrap();
        // Somebody else cuts the file.
        fake.cut(file.inode(), 10);
        let data = pattern(2 * CHUNK as usize, 2);
        file.write(HEAD_SIZE, data.clone()).await.unwrap();
        let found = file.read(0, 4 * CHUNK as usize).await.unwrap();
        assert_eq!(found.len(), HEAD_SIZE as usize + data.len());
        assert!(found[10..HEAD_SIZE as usize].iter().all(|byte| *byte == 0));
        assert!(found[HEAD_SIZE as usize..] == data[..]);
        // The same when only the home notices.
        fake.fail(&EXTEND, &[Status::StaleGeneration]);
        file.write(5 * CHUNK, vec![7; 9]).await.unwrap();
        assert_eq!(*file.read(5 * CHUNK, 100).await.unwrap(), [7; 9]);
    });
}

#[test]
fn a_failed_write_leaves_nothing_beyond_the_size() {
    run(|client, fake, _| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        file.write(0, vec![1; 10]).await.unwrap();
        fake.fail(&CHUNK_WRITE, &[Errno::ENOSPC.into()]);
        let error = file.write(HEAD_SIZE, vec![2; 4 * CHUNK as usize]).await.unwrap_err();
        assert_eq!((error.errno(), error.is_outcome_unknown()), (Errno::ENOSPC, false));
        assert_eq!((fake.count(&DISCARD), fake.attributes(file.inode()).size), (1, 10));
        file.truncate(3 * CHUNK).await.unwrap();
        let found = file.read(10, 3 * CHUNK as usize).await.unwrap();
        assert!(found.iter().all(|byte| *byte == 0));
        // Inside the size nothing is cut.
        fake.fail(&CHUNK_WRITE, &[Errno::ENOSPC.into()]);
        file.write(CHUNK - 5, vec![2; 9]).await.unwrap_err();
        assert_eq!(fake.count(&DISCARD), 1);
    });
}

#[test]
fn what_others_wrote_before_the_call_is_seen() {
    run(|client, fake, _| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        let inode = file.inode();
        file.write(0, pattern(CHUNK as usize, 1)).await.unwrap();
        // A client of another session would be a second `Client`; the home knows no difference.
        fake.change(inode, |attributes| attributes.size = 2 * CHUNK);
        assert_eq!(file.read(0, 9 * CHUNK as usize).await.unwrap().len(), 2 * CHUNK as usize);
        fake.cut(inode, 5);
        assert_eq!(*file.read(0, 100).await.unwrap(), pattern(5, 1));
    });
}

#[test]
fn a_home_that_lost_power_is_not_taken_at_its_old_word() {
    run(|client, fake, _| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        let inode = file.inode();
        file.truncate(0).await.unwrap();
        file.write(0, pattern(3 * CHUNK as usize, 1)).await.unwrap();
        fake.change(inode, |attributes| {
            attributes.size = 20;
            attributes.generation.0 -= 1;
        });
        assert_eq!(file.read(0, 100).await.unwrap().len(), 20);
        fake.change(inode, |attributes| attributes.size = 10);
        file.write(2 * CHUNK, vec![3; 4]).await.unwrap();
        assert_eq!(fake.attributes(inode).size, 2 * CHUNK + 4, "no mere overwrite");
    });
}

#[test]
fn below_a_settled_size_chunks_are_read_without_the_home() {
    run(|client, fake, platform| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        file.write(0, vec![1; 3 * CHUNK as usize]).await.unwrap();
        fake.settled.set(2 * CHUNK);
        file.read(CHUNK, 10).await.unwrap();
        let homes_asked = async |offset, len| {
            fake.asked.borrow_mut().clear();
            assert_eq!(&file.read(offset, len).await.unwrap()[..], &vec![1; len]);
            let asked = fake.asked.take();
            asked.iter().filter(|(_, request)| matches!(request, AnyRequest::HeadRead(_))).count()
        };
        assert_eq!(homes_asked(2 * CHUNK - 10, 10).await, 0);
        assert_eq!(homes_asked(2 * CHUNK - 10, 11).await, 1, "beyond it");
        assert_eq!(homes_asked(HEAD_SIZE - 1, 10).await, 1, "the head is the home's");
        // An owner that knows of a cut refuses, and the home tells what is true now.
        fake.fail(&chunk_read(), &[Status::StaleGeneration]);
        assert_eq!(homes_asked(CHUNK, 10).await, 1);
        assert_eq!(homes_asked(CHUNK, 10).await, 0);
        // What was told long ago counts no more.
        platform.sleep(Duration::from_secs(11)).await;
        assert_eq!(homes_asked(CHUNK, 10).await, 1);
    });
}

#[test]
fn the_home_is_told_once_after_each_change_that_somebody_reads() {
    let options = ClientOptions { access_times: true, ..ClientOptions::default() };
    run_with(options, None, |shared, fake, platform| async move {
        let client = shared.client(&platform);
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        file.write(0, vec![1; 3 * CHUNK as usize]).await.unwrap();
        fake.settled.set(2 * CHUNK);
        file.read(0, 10).await.unwrap();
        let homes_asked = async |file: &OpenFile| {
            fake.asked.borrow_mut().clear();
            file.read(CHUNK, 10).await.unwrap();
            let asked = fake.asked.take();
            asked.iter().filter(|(_, request)| matches!(request, AnyRequest::HeadRead(_))).count()
        };
        assert_eq!(homes_asked(&file).await, 0);
        file.write(CHUNK, vec![2; 10]).await.unwrap();
        let silent = client.open(file.inode()).await.unwrap().without_access_time();
        assert_eq!(homes_asked(&silent).await, 0);
        assert_eq!(homes_asked(&file).await, 1);
        let known = fake.attributes(file.inode());
        assert!(known.accessed > known.modified);
        assert_eq!(homes_asked(&file).await, 0);
        // A time that lies ahead stays later than that of any access.
        let ahead = Timestamp { seconds: 1 << 40, nanos: 0 };
        let changes = AttributeChanges { modified: Some(ahead), ..Default::default() };
        client.update(file.inode(), changes).await.unwrap();
        file.read(0, 10).await.unwrap();
        assert_eq!(homes_asked(&file).await, 0);
    });
}

fn chunk_read() -> ChunkRead {
    let (inode, generation) = (InodeNumber::ROOT, Generation(0));
    ChunkRead { inode, generation, chunk_size: 0, offset: 0, length: 0 }
}

#[test]
fn an_overwrite_tells_the_home_after_its_data_and_never_extends() {
    run(|client, fake, platform| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        let inode = file.inode();
        file.write(0, vec![1; 2 * CHUNK as usize]).await.unwrap();
        let before = fake.attributes(inode).modified;
        platform.sleep(Duration::from_millis(1)).await;
        fake.asked.borrow_mut().clear();
        file.write(CHUNK, vec![2; 10]).await.unwrap();
        let asked: Vec<_> = fake.asked.take().into_iter().map(|(_, request)| request).collect();
        let [AnyRequest::ChunkWrite(_), AnyRequest::Extend(told)] = &asked[..] else {
            panic!("{asked:?}");
        };
        assert!(told.overwrite && told.end == CHUNK + 10, "{told:?}");
        assert_ne!(fake.attributes(inode).modified, before);
        // The head's own request tells as much.
        file.write(HEAD_SIZE - 1, vec![2; 10]).await.unwrap();
        let asked: Vec<_> = fake.asked.take().into_iter().map(|(_, request)| request).collect();
        assert!(matches!(&asked[..], [AnyRequest::ChunkWrite(_), AnyRequest::HeadWrite(_)]));
        // The home lost the size: the write finds out and extends.
        fake.change(inode, |attributes| attributes.size = 5);
        file.write(CHUNK, vec![2; 10]).await.unwrap();
        assert_eq!(fake.attributes(inode).size, CHUNK + 10);
    });
}

#[test]
fn sync_asks_all_owners_and_the_home_last() {
    run(|client, fake, _| async move {
        let file = client.create(InodeNumber::ROOT, &name("f"), OWNER, true).await.unwrap();
        file.write(0, vec![1; 20 * CHUNK as usize]).await.unwrap();
        fake.asked.borrow_mut().clear();
        file.sync().await.unwrap();
        let asked = fake.asked.take();
        let synced: Vec<_> = asked
            .iter()
            .filter(|(_, request)| matches!(request, AnyRequest::Sync(_)))
            .map(|(target, _)| *target)
            .collect();
        assert_eq!(synced.last(), Some(&client.home(file.inode()).0));
        for target in 1..=3 {
            assert!(synced.contains(&TargetId(target)));
        }
        fake.fail(&Sync { inode: None }, &[Status::TargetFailed]);
        let error = file.sync().await.unwrap_err();
        assert!(matches!(error, ClientError::TargetFailed { .. }), "{error}");
    });
}
