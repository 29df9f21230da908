//! What is cached, for how long, and how it is given back.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use ringfs_client::{Client, OpenFile, OpenMode, Revoked, SharedClient};
use ringfs_platform::Platform;
use ringfs_wire::*;

use crate::fake::{Fake, OWNER, name, run_shared};

const ROOT: InodeNumber = InodeNumber::ROOT;

/// A door that takes its time to drop what it has.
struct Door {
    platform: Platform,
    fake: Rc<Fake>,
    /// What it was told, and how many releases had arrived when it had dropped it.
    told: RefCell<Vec<(InodeNumber, Lease, usize)>>,
}

impl Revoked for Door {
    fn revoked<'a>(&'a self, inode: InodeNumber, lease: Lease) -> LocalBoxFuture<'a, ()> {
        Box::pin(async move {
            self.platform.sleep(Duration::from_millis(50)).await;
            let released = self.fake.count(&LeaseRelease { releases: Vec::new() });
            self.told.borrow_mut().push((inode, lease, released));
        })
    }
}

/// Runs `body` on a client of a mount whose leases are kept.
fn leased<F: Future<Output = ()> + 'static>(
    cache_inodes: usize,
    body: impl FnOnce(Client, Rc<Fake>, Rc<Door>, SharedClient) -> F + 'static,
) {
    run_shared(Some(cache_inodes), move |shared, fake, platform| async move {
        let told = RefCell::default();
        let door = Rc::new(Door { platform: platform.clone(), fake: fake.clone(), told });
        let (keeper, revoked) = (shared.clone(), door.clone());
        let shard = platform.clone();
        platform.spawn(async move { keeper.keep_leases(&shard, revoked).await });
        let client = shared.client(&platform);
        // The first answer is without a promise: the target was not heard of before.
        let root = client.attributes_leased(ROOT).await.unwrap();
        assert_eq!(root.attributes_until, None);
        platform.sleep(Duration::from_secs(2)).await;
        body(client, fake, door, shared).await;
    });
}

fn lookups(fake: &Fake) -> usize {
    let (directory, lease) = (ROOT, Lease::NONE);
    let lookup =
        MetadataLookup { directory, name: None, open: false, head: false, touch: false, lease };
    let get = AttributesGet { inodes: Vec::new(), lease, named: None };
    fake.count(&lookup) + fake.count(&get)
}

fn asked_back(number: u64, inode: InodeNumber, lease: Lease) -> Revocation {
    Revocation { number, inode, lease }
}

#[test]
fn what_is_leased_is_asked_for_once() {
    leased(1_000, |client, fake, _, _| async move {
        let (file, made, _) = client
            .create_leased(ROOT, &name("f"), OWNER, 0, true, OpenMode::READ_WRITE)
            .await
            .unwrap();
        assert!(made.attributes_until.is_some() && made.names_until.is_some());
        let inode = made.value.inode;
        let missing = client.lookup_leased(ROOT, &name("missing")).await.unwrap();
        assert!(missing.value.is_none() && missing.names_until.is_some());
        let root = client.attributes_leased(ROOT).await.unwrap();
        assert!(root.attributes_until.is_some());
        let before = lookups(&fake);
        for _ in 0..3 {
            let found = client.lookup_leased(ROOT, &name("f")).await.unwrap();
            assert_eq!(found.value.unwrap().inode, inode);
            assert_eq!(found.content, made.content);
            assert!(client.lookup_leased(ROOT, &name("missing")).await.unwrap().value.is_none());
            assert_eq!(client.attributes_leased(ROOT).await.unwrap(), root);
            assert_eq!(client.content_lease(inode).await.unwrap(), made.content);
        }
        assert_eq!(lookups(&fake), before);
        // Own changes need no question either.
        file.write(0, vec![1; 10]).await.unwrap();
        assert_eq!(client.attributes_leased(inode).await.unwrap().value.size, 10);
        client.truncate(inode, 3).await.unwrap();
        assert_eq!(client.attributes_leased(inode).await.unwrap().value.size, 3);
        client.unlink(ROOT, &name("f")).await.unwrap();
        assert!(client.lookup_leased(ROOT, &name("f")).await.unwrap().value.is_none());
        // Nor for what they do to the directory, which is told with each.
        assert!(client.attributes_leased(ROOT).await.unwrap().attributes_until.is_some());
        assert_eq!(lookups(&fake), before);
    });
}

#[test]
fn a_new_directory_is_filled_without_a_question() {
    leased(1_000, |client, fake, door, _| async move {
        let made = client.mkdir_leased(ROOT, &name("d"), OWNER, 0).await.unwrap();
        let (directory, mode) = (made.value.inode, OpenMode::READ_WRITE);
        // Its home may be heard of for the first time.
        door.platform.sleep(Duration::from_secs(2)).await;
        client.attributes_leased(directory).await.unwrap();
        let before = lookups(&fake);
        for number in 0..3 {
            let name = name(&number.to_string());
            assert!(client.lookup_leased(directory, &name).await.unwrap().value.is_none());
            client.create_leased(directory, &name, OWNER, 0, true, mode).await.unwrap();
            assert!(client.lookup_leased(directory, &name).await.unwrap().value.is_some());
            client.attributes_leased(directory).await.unwrap();
            client.unlink(directory, &name).await.unwrap();
        }
        assert_eq!(lookups(&fake), before);
    });
}

#[test]
fn a_file_opened_again_under_a_lease_asks_nobody() {
    leased(1_000, |client, fake, door, _| async move {
        let mode = OpenMode::READ_WRITE;
        let made = client.create_leased(ROOT, &name("f"), OWNER, 0, true, mode).await.unwrap();
        let inode = made.1.value.inode;
        made.0.close().await.unwrap();
        let before = lookups(&fake);
        for _ in 0..3 {
            let (file, found) = client.open_leased(inode, OpenMode::READ).await.unwrap();
            assert!(found.attributes_until.is_some());
            file.close().await.unwrap();
        }
        assert_eq!(lookups(&fake), before);
        assert!(fake.references.borrow().contains(&inode));
        // Nobody needs it for a while.
        door.platform.sleep(Duration::from_millis(1_500)).await;
        assert!(!fake.references.borrow().contains(&inode));
        client.open_leased(inode, OpenMode::READ).await.unwrap();
        assert_eq!(lookups(&fake), before + 1);
        // What was removed is given back at once.
        client.unlink(ROOT, &name("f")).await.unwrap();
        door.platform.sleep(Duration::from_millis(100)).await;
        assert!(!fake.references.borrow().contains(&inode));
    });
}

#[test]
fn the_bytes_of_a_small_file_come_with_the_open() {
    leased(1_000, |client, fake, door, shared| async move {
        let other = shared.client(&door.platform);
        let made = client
            .create_leased(ROOT, &name("f"), OWNER, 0, true, OpenMode::READ_WRITE)
            .await
            .unwrap();
        let inode = made.1.value.inode;
        made.0.write(0, vec![7; 3_901]).await.unwrap();
        made.0.close().await.unwrap();
        door.platform.sleep(Duration::from_millis(1_500)).await;
        client.attributes_leased(inode).await.unwrap();
        let reads = || fake.count(&HeadRead { inode, offset: 0, length: 0, touch: false });
        let before = (lookups(&fake), reads());
        let (file, _) = client.open_leased(inode, OpenMode::READ).await.unwrap();
        // By whichever worker.
        let attached =
            other.attach(&file.attributes(), OpenMode::READ, file.told_losses()).unwrap();
        let bytes = attached.read_first(0, 4_096).await.unwrap();
        assert_eq!(bytes[0][..], [7; 3_901][..]);
        assert_eq!((lookups(&fake), reads()), (before.0 + 1, before.1));
        assert_eq!(attached.read_first(0, 4_096).await.unwrap()[0][..], bytes[0][..]);
        assert_eq!(reads(), before.1 + 1, "given out once");
    });
}

#[test]
fn pages_fill_the_cache() {
    leased(1_000, |client, fake, _, _| async move {
        for number in 0..20 {
            client
                .mknod(ROOT, &name(&number.to_string()), InodeType::File, OWNER, 0)
                .await
                .unwrap();
        }
        let page = client.read_directory_leased(ROOT, 0, 100).await.unwrap();
        let before = lookups(&fake);
        for entry in page.entries.iter().filter(|entry| entry.kind == InodeType::File) {
            let known = entry.attributes.as_ref().unwrap();
            assert!(known.attributes_until.is_some() && known.names_until.is_some());
            let found = client.lookup_leased(ROOT, &entry.name).await.unwrap();
            assert_eq!(found.value.unwrap().inode, entry.inode);
        }
        assert_eq!((page.entries.len(), lookups(&fake)), (20, before));
    });
}

#[test]
fn the_door_drops_a_lease_before_it_is_given_back() {
    leased(1_000, |client, fake, door, shared| async move {
        let made = client.mknod(ROOT, &name("f"), InodeType::File, OWNER, 0).await.unwrap();
        let inode = made.inode;
        let first = client.content_lease(inode).await.unwrap();
        fake.revocations.borrow_mut().push(asked_back(1, inode, Lease::CONTENT));
        let platform = &door.platform;
        platform.sleep(Duration::from_millis(40)).await;
        // While the door is at it, nothing new is promised.
        assert_eq!(client.content_lease(inode).await.unwrap(), None);
        platform.sleep(Duration::from_millis(300)).await;
        assert_eq!(*door.told.borrow(), [(inode, Lease::CONTENT, 0)]);
        assert!(fake.revocations.borrow().is_empty(), "it was given back");
        let second = client.content_lease(inode).await.unwrap();
        assert!(second.is_some() && second != first);
        // Names and attributes were not asked back.
        let before = lookups(&fake);
        let found = client.lookup_leased(ROOT, &name("f")).await.unwrap();
        assert!(found.names_until.is_some() && lookups(&fake) == before);
        shared.end();
        platform.sleep(Duration::from_secs(1)).await;
        assert!(
            door.told
                .borrow()
                .iter()
                .any(|(told, lease, _)| (*told, *lease) == (inode, Lease::ALL))
        );
        assert!(fake.count(&SessionClose {}) > 0);
        assert_eq!(client.attributes_leased(inode).await.unwrap().attributes_until, None);
    });
}

/// Reads a file of `len` bytes by small pieces in order; tells how many requests that took.
async fn read_in_pieces(fake: &Fake, file: &OpenFile, len: usize, expected: u8) -> usize {
    let read = HeadRead { inode: InodeNumber(0), offset: 0, length: 0, touch: false };
    let before = fake.count(&read);
    let mut offset = 0;
    loop {
        let found = file.read_on(offset, 4_096).await.unwrap();
        assert!(found.iter().all(|slice| slice.iter().all(|byte| *byte == expected)));
        let count: usize = found.iter().map(|slice| slice.len()).sum();
        if count == 0 {
            break;
        }
        offset += count as u64;
    }
    assert_eq!(offset, len as u64);
    fake.count(&read) - before
}

#[test]
fn what_is_read_ahead_is_used_under_its_lease_only() {
    leased(1_000, |client, fake, door, shared| async move {
        let len = 1 << 20;
        let mode = OpenMode::READ_WRITE;
        let (file, made, _) =
            client.create_leased(ROOT, &name("f"), OWNER, 0, true, mode).await.unwrap();
        file.write(0, vec![1; len]).await.unwrap();
        let requests = read_in_pieces(&fake, &file, len, 1).await;
        assert!(requests <= 6, "{requests} requests");
        // Another thread of this process changes it.
        let other = shared.client(&door.platform);
        let (writer, _) = other.open_leased(made.value.inode, mode).await.unwrap();
        file.read_on(0, 4_096).await.unwrap();
        file.read_on(4_096, 4_096).await.unwrap();
        writer.write(8_192, vec![2; 4_096]).await.unwrap();
        let found = file.read_on(8_192, 4_096).await.unwrap();
        assert!(found.iter().all(|slice| slice.iter().all(|byte| *byte == 2)));
        // Another process has changed it.
        let inode = made.value.inode;
        file.read_on(12_288, 4_096).await.unwrap();
        fake.revocations.borrow_mut().push(asked_back(1, inode, Lease::CONTENT));
        door.platform.sleep(Duration::from_millis(300)).await;
        let read = HeadRead { inode, offset: 0, length: 0, touch: false };
        let before = fake.count(&read);
        file.read_on(16_384, 4_096).await.unwrap();
        assert_eq!(fake.count(&read), before + 1);
    });
}

#[test]
fn leases_of_a_target_end_with_its_memory_of_them() {
    leased(1_000, |client, fake, door, _| async move {
        let first = client.attributes_leased(ROOT).await.unwrap();
        assert!(first.attributes_until.is_some());
        fake.incarnation.set(2);
        door.platform.sleep(Duration::from_secs(2)).await;
        assert!(door.told.borrow().iter().any(|(inode, ..)| *inode == ROOT));
        let before = lookups(&fake);
        let second = client.attributes_leased(ROOT).await.unwrap();
        assert_eq!(lookups(&fake), before + 1);
        assert!(second.attributes_until.is_some() && second.content != first.content);
    });
}

#[test]
fn leases_lapse_when_a_target_is_silent_and_come_back() {
    leased(1_000, |client, fake, door, _| async move {
        let until = client.attributes_leased(ROOT).await.unwrap().attributes_until.unwrap();
        let poll = LeasePoll { after: 0, incarnation: 0 };
        fake.delay(&poll, Duration::from_secs(60));
        let platform = &door.platform;
        platform.sleep(until + Duration::from_secs(2) - platform.monotonic()).await;
        assert!(door.told.borrow().iter().any(|(inode, ..)| *inode == ROOT));
        assert_eq!(client.attributes_leased(ROOT).await.unwrap().attributes_until, None);
        fake.delays.borrow_mut().clear();
        platform.sleep(Duration::from_secs(10)).await;
        assert!(client.attributes_leased(ROOT).await.unwrap().attributes_until.is_some());
    });
}

#[test]
fn an_expired_lease_session_starts_anew() {
    leased(1_000, |client, fake, door, _| async move {
        assert!(client.attributes_leased(ROOT).await.unwrap().attributes_until.is_some());
        fake.fail(&LeasePoll { after: 0, incarnation: 0 }, &[Status::SessionExpired; 3]);
        fake.incarnation.set(2);
        door.platform.sleep(Duration::from_secs(4)).await;
        assert!(!door.told.borrow().is_empty());
        client.attributes_leased(ROOT).await.unwrap();
        assert!(client.attributes_leased(ROOT).await.unwrap().attributes_until.is_some());
    });
}

#[test]
fn what_does_not_fit_is_given_back() {
    leased(1, |client, fake, door, _| async move {
        for number in 0..2_000 {
            let name = name(&number.to_string());
            client.mknod(ROOT, &name, InodeType::File, OWNER, 0).await.unwrap();
        }
        door.platform.sleep(Duration::from_secs(2)).await;
        let release = LeaseRelease { releases: Vec::new() };
        assert!(!door.told.borrow().is_empty() && fake.count(&release) > 0);
        let released: usize = fake
            .asked
            .borrow()
            .iter()
            .map(|(_, request)| match request {
                AnyRequest::LeaseRelease(release) => release.releases.len(),
                _ => 0,
            })
            .sum();
        assert_eq!(released, door.told.borrow().len());
    });
}

#[test]
fn a_worker_uses_what_another_one_opened() {
    run_shared(None, |shared, fake, platform| async move {
        let (opener, other) = (shared.client(&platform), shared.client(&platform));
        let file = opener.create(ROOT, &name("f"), OWNER, true).await.unwrap();
        file.write(0, vec![1; 100]).await.unwrap();
        let attached =
            other.attach(&file.attributes(), OpenMode::READ_WRITE, file.told_losses()).unwrap();
        attached.write(50, vec![2; 100]).await.unwrap();
        assert_eq!(&file.read(0, 200).await.unwrap()[..], [[1; 50], [2; 50], [2; 50]].concat());
        drop(attached);
        platform.sleep(Duration::from_secs(1)).await;
        assert!(fake.references.borrow().contains(&file.inode()));
        drop(file);
        platform.sleep(Duration::from_secs(1)).await;
        assert!(fake.references.borrow().is_empty());
    });
}
