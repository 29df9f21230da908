//! Times of inodes, and what they take from their directory.

use ringfs_wire::{
    AttributeChanges, FilePermissions, HeadRead, HeadWrite, InodeNumber, InodeType, Lease,
    MetadataCreate, MetadataUpdate, ReadDirectory, ReadLink, Timestamp,
};

use crate::support::{Session, create, run};

const ROOT: InodeNumber = InodeNumber::ROOT;

fn read(inode: InodeNumber, touch: bool) -> HeadRead {
    HeadRead { inode, offset: 0, length: 10, touch }
}

async fn accessed(session: &Session, inode: InodeNumber) -> Timestamp {
    session.attributes(inode).await.unwrap().accessed
}

#[test]
fn times_do_not_go_backwards_when_the_clock_does() {
    run(1, |session| async move {
        let inode = session.create(create(ROOT, "f", InodeType::File, 0o644)).await;
        let before = session.attributes(inode).await.unwrap();
        session.set_clock(-5);
        let changes = AttributeChanges { mode: Some(0o600), ..Default::default() };
        session.ask(inode, &MetadataUpdate { inode, changes }).await.unwrap();
        let changed = session.attributes(inode).await.unwrap().changed;
        assert!(changed >= before.changed);
        session.set_clock(5);
        let made = session.create(create(ROOT, "g", InodeType::File, 0o644)).await;
        let now = session.attributes(made).await.unwrap().created;
        assert!(now.seconds - changed.seconds >= 5 * 3600, "the clock counts again");
    });
}

#[test]
fn reading_moves_the_access_time_when_it_is_due() {
    run(1, |session| async move {
        let inode = session.create(create(ROOT, "f", InodeType::File, 0o644)).await;
        let generation = session.attributes(inode).await.unwrap().generation;
        let write = HeadWrite { inode, generation, offset: 0, lazy: false, allocated: 0 };
        session.send(inode, &write, b"text").await.unwrap();
        let first = accessed(&session, inode).await;
        session.ask(inode, &read(inode, false)).await.unwrap();
        assert_eq!(accessed(&session, inode).await, first, "nobody has read");
        let told = session.ask(inode, &read(inode, true)).await.unwrap().attributes;
        let second = accessed(&session, inode).await;
        assert!(second > told.modified && second == told.accessed, "read since the last write");
        session.set_clock(23);
        session.ask(inode, &read(inode, true)).await.unwrap();
        assert_eq!(accessed(&session, inode).await, second, "that is known");
        session.set_clock(25);
        session.ask(inode, &read(inode, true)).await.unwrap();
        assert!(accessed(&session, inode).await > second, "a day has gone by");
    });
}

#[test]
fn directories_and_symlinks_are_read_as_well() {
    run(1, |session| async move {
        let request = MetadataCreate {
            symlink: b"f".to_vec(),
            ..create(ROOT, "l", InodeType::Symlink, 0o777)
        };
        let inode = session.create(request).await;
        let (link, root) = (accessed(&session, inode).await, accessed(&session, ROOT).await);
        session.ask(inode, &ReadLink { inode, touch: true }).await.unwrap();
        let list =
            ReadDirectory { directory: ROOT, after: 0, limit: 9, lease: Lease::NONE, touch: true };
        session.ask(ROOT, &list).await.unwrap();
        assert!(accessed(&session, inode).await > link && accessed(&session, ROOT).await > root);
    });
}

#[test]
fn what_is_made_in_a_setgid_directory_takes_its_group() {
    run(3, |session| async move {
        let permissions = FilePermissions { mode: 0o2775, uid: 3, gid: 50 };
        let shared = create(ROOT, "shared", InodeType::Directory, 0);
        let shared = session.create(MetadataCreate { permissions, ..shared }).await;
        let mut directories = session.directories(shared).await;
        directories.push(session.create(create(shared, "f", InodeType::File, 0o644)).await);
        for inode in directories {
            let found = session.attributes(inode).await.unwrap();
            let mode = if found.kind == InodeType::Directory { 0o2755 } else { 0o644 };
            assert_eq!((found.permissions.gid, found.permissions.mode), (50, mode), "{found:?}");
            assert_eq!(found.permissions.uid, 0);
        }
    });
}
