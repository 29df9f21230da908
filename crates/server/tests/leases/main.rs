//! What a home leases to mounts, and that it asks for it back before it changes it.

mod support;

use std::time::Duration;

use ringfs_platform::{Buffer, Slice};
use ringfs_wire::{
    AttributeChanges, Errno, Extend, HeadWrite, InodeNumber, InodeType, Lease, Link,
    MetadataDelete, MetadataLookup, MetadataUpdate, ReadDirectory, References, Rename, RenameMode,
    Reserve, SessionClose, Status,
};

use support::{Mount, ROOT, WRITTEN, create, name, run};

const NAMED: Lease = Lease::ATTRIBUTES.or(Lease::NAMES);

fn unlink(directory: InodeNumber, text: &str) -> MetadataDelete {
    MetadataDelete { directory, name: name(text), is_directory: false }
}

fn data(bytes: &[u8]) -> Option<Slice> {
    Some(Slice::from(Buffer::from_slice(bytes)))
}

#[test]
fn a_create_waits_until_the_directory_is_cached_by_nobody_else() {
    run(|world| async move {
        let (a, b) = (world.mount(1).await, world.mount(2).await);
        assert_eq!(a.look(ROOT, None).await.unwrap().lease, WRITTEN);
        b.look(ROOT, None).await.unwrap();
        b.answers.set(false);
        let patience = Duration::from_secs(5);
        let request = create(ROOT, &name("f"), InodeType::File);
        let early = world.platform.timeout(patience, a.ask(ROOT, &request)).await;
        assert!(early.is_none(), "not acknowledged while the other mount may list the directory");
        assert_eq!(b.asked(), [(ROOT, Lease::CONTENT)]);
        b.answers.set(true);
        let made = a.ask(ROOT, &create(ROOT, &name("g"), InodeType::File)).await;
        made.unwrap();
        assert!(a.asked().is_empty(), "its own change");
    });
}

#[test]
fn each_change_takes_back_what_it_touches_and_no_more() {
    run(|world| async move {
        let (a, b) = (world.mount(1).await, world.mount(2).await);
        let inode = a.file(ROOT, "f").await;
        let take = async || {
            // What was taken back is not granted again at once.
            world.platform.sleep(Duration::from_millis(1100)).await;
            assert_eq!(b.look(ROOT, Some(&name("f"))).await.unwrap().lease, Lease::ALL);
            assert_eq!(a.look(ROOT, Some(&name("f"))).await.unwrap().lease, Lease::ALL);
        };
        take().await;
        a.chmod(inode, 0o600).await.unwrap();
        assert_eq!(b.asked(), [(inode, Lease::ATTRIBUTES)]);
        take().await;
        let generation = a.look(inode, None).await.unwrap().attributes.unwrap().generation;
        let write = HeadWrite { inode, generation, offset: 0, lazy: false, allocated: 0 };
        a.ask_with(inode, &write, data(b"bytes")).await.unwrap();
        assert_eq!(b.asked(), [(inode, WRITTEN)]);
        take().await;
        let reach = 1 << 20;
        let file = a.ask(inode, &Reserve { inode, reach }).await.unwrap();
        assert!(b.asked().is_empty(), "nothing to be seen of it");
        let generation = file.generation;
        let extend =
            Extend { inode, generation, end: 1 << 18, overwrite: false, lazy: false, allocated: 0 };
        a.ask(inode, &extend).await.unwrap();
        assert_eq!(b.asked(), [(inode, WRITTEN)]);
        take().await;
        let changes = AttributeChanges { size: Some(3), ..AttributeChanges::default() };
        a.ask(inode, &MetadataUpdate { inode, changes }).await.unwrap();
        assert_eq!(b.asked(), [(inode, WRITTEN)]);
        take().await;
        let link = Link { inode, kind: InodeType::File, directory: ROOT, name: name("also") };
        a.ask(ROOT, &link).await.unwrap();
        assert_eq!(b.asked(), [(inode, Lease::ATTRIBUTES)]);
        take().await;
        a.ask(ROOT, &unlink(ROOT, "f")).await.unwrap();
        assert_eq!(b.asked(), [(inode, NAMED)]);
        assert!(a.asked().is_empty(), "its own changes");
    });
}

#[test]
fn a_name_that_is_missing_is_leased_with_its_directory() {
    run(|world| async move {
        let (a, b) = (world.mount(1).await, world.mount(2).await);
        let missing = b.look(ROOT, Some(&name("f"))).await.unwrap();
        assert_eq!((missing.inode, missing.lease), (InodeNumber(0), Lease::CONTENT));
        let unleased = MetadataLookup {
            directory: ROOT,
            name: Some(name("f")),
            open: false,
            head: false,
            touch: false,
            lease: Lease::ATTRIBUTES,
        };
        let refused = b.ask(ROOT, &unleased).await;
        assert_eq!(refused, Err(Status::Failed(Errno::ENOENT)));
        a.file(ROOT, "f").await;
        assert_eq!(b.asked(), [(ROOT, Lease::CONTENT)]);
        let again = b.look(ROOT, Some(&name("g"))).await;
        assert_eq!(again, Err(Status::Failed(Errno::ENOENT)), "contested");
        assert_ne!(b.look(ROOT, Some(&name("f"))).await.unwrap().inode, InodeNumber(0));
    });
}

#[test]
fn a_listing_leases_what_lives_beside_its_name() {
    run(|world| async move {
        let a = world.mount(1).await;
        let file = a.file(ROOT, "f").await;
        let (far, _) = world.directory(&a, false).await;
        let request =
            ReadDirectory { directory: ROOT, after: 0, limit: 100, lease: NAMED, touch: false };
        let page = a.ask(ROOT, &request).await.unwrap();
        let lease = |inode| page.items.iter().find(|item| item.inode == inode).unwrap().lease;
        assert_eq!((lease(file), lease(far)), (NAMED, Lease::NONE));
        let uncached = world.client(77).ask(ROOT, &request).await.unwrap();
        assert!(uncached.items.iter().all(|item| item.lease.is_none()));
    });
}

#[test]
fn a_directory_elsewhere_is_leased_under_the_name_it_has() {
    run(|world| async move {
        let (a, b) = (world.mount(1).await, world.mount(2).await);
        let (far, its_name) = world.directory(&a, false).await;
        assert_eq!(b.look_far(far, &name("other")).await, WRITTEN);
        assert_eq!(b.look_far(far, &its_name).await, Lease::ALL);
        b.asked();
        let remove = MetadataDelete { directory: ROOT, name: its_name.clone(), is_directory: true };
        a.ask(ROOT, &remove).await.unwrap();
        assert_eq!(b.asked(), [(far, Lease::ALL)]);
    });
}

#[test]
fn a_rename_over_several_homes_takes_back_what_each_leased() {
    run(|world| async move {
        let (a, b) = (world.mount(1).await, world.mount(2).await);
        let (far, far_name) = world.directory(&a, false).await;
        let (moved, moved_name) = world.directory(&a, false).await;
        for mount in [&a, &b] {
            mount.look(ROOT, None).await.unwrap();
            mount.look_far(far, &far_name).await;
            mount.look_far(moved, &moved_name).await;
        }
        let rename = Rename {
            from_directory: ROOT,
            from_name: moved_name,
            to_directory: far,
            to_name: name("moved"),
            mode: RenameMode::Replace,
        };
        a.ask(far, &rename).await.unwrap();
        let mut expect = [(ROOT, Lease::CONTENT), (far, Lease::CONTENT), (moved, Lease::ALL)];
        expect.sort_by_key(|(inode, _)| *inode);
        assert_eq!(b.asked(), expect);
        assert!(a.asked().is_empty(), "its own change");
        assert_eq!(b.look(far, Some(&name("moved"))).await.unwrap().inode, moved);
    });
}

#[test]
fn a_holder_that_is_dead_delays_a_change_no_longer_than_its_lease() {
    run(|world| async move {
        let (a, b) = (world.client(1), world.mount(2).await);
        let inode = a.file(ROOT, "f").await;
        b.look(ROOT, Some(&name("f"))).await.unwrap();
        b.lives.set(false);
        b.answers.set(false);
        let before = world.platform.monotonic();
        a.chmod(inode, 0o600).await.unwrap();
        let took = world.platform.monotonic() - before;
        assert!(took > Duration::from_secs(5) && took < Duration::from_secs(12), "{took:?}");
    });
}

#[test]
fn after_a_restart_nothing_changes_until_every_holder_knows() {
    run(|world| async move {
        let (a, b, c) = (world.client(1), world.mount(2).await, world.mount(3).await);
        let inode = a.file(ROOT, "f").await;
        for mount in [&b, &c] {
            mount.look(ROOT, Some(&name("f"))).await.unwrap();
        }
        world.restart().await;
        let before = world.platform.monotonic();
        a.chmod(inode, 0o600).await.unwrap();
        let took = world.platform.monotonic() - before;
        assert!(took < Duration::from_secs(5), "all came back soon: {took:?}");
        c.lives.set(false);
        world.platform.sleep(Duration::from_secs(2)).await;
        world.restart().await;
        let before = world.platform.monotonic();
        a.chmod(inode, 0o640).await.unwrap();
        let took = world.platform.monotonic() - before;
        assert!(took > Duration::from_secs(5) && took < Duration::from_secs(12), "{took:?}");
        assert!(b.asked().is_empty(), "its leases went with the restart");
    });
}

#[test]
fn two_mounts_that_change_in_turns_both_get_on() {
    run(|world| async move {
        let (a, b) = (world.mount(1).await, world.mount(2).await);
        let inode = a.file(ROOT, "f").await;
        let before = world.platform.monotonic();
        for round in 0..20 {
            for mount in [&a, &b] {
                a.look(ROOT, Some(&name("f"))).await.unwrap();
                b.look(ROOT, Some(&name("f"))).await.unwrap();
                mount.chmod(inode, 0o600 + round).await.unwrap();
            }
        }
        let took = world.platform.monotonic() - before;
        assert!(took < Duration::from_secs(5), "{took:?}");
    });
}

#[test]
fn two_mounts_that_write_at_once_each_drop_what_they_cached() {
    run(|world| async move {
        let (a, b) = (world.mount(1).await, world.mount(2).await);
        let inode = a.file(ROOT, "f").await;
        for mount in [&a, &b] {
            mount.look(ROOT, Some(&name("f"))).await.unwrap();
        }
        let generation = a.look(inode, None).await.unwrap().attributes.unwrap().generation;
        let write = async |mount: &Mount, offset: u64| {
            let request = HeadWrite { inode, generation, offset, lazy: false, allocated: 0 };
            mount.ask_with(inode, &request, data(b"bytes")).await.unwrap();
        };
        futures_util::future::join(write(&a, 0), write(&b, 100)).await;
        for mount in [&a, &b] {
            let asked = mount.asked();
            assert!(asked.iter().any(|(of, lease)| *of == inode && lease.contains(Lease::CONTENT)));
        }
    });
}

#[test]
fn a_session_that_ends_with_an_open_file_takes_back_its_content() {
    run(|world| async move {
        let (a, b) = (world.client(1), world.mount(2).await);
        let inode = a.file(ROOT, "f").await;
        a.ask(inode, &References { take: vec![inode], drop: Vec::new() }).await.unwrap();
        b.look(ROOT, Some(&name("f"))).await.unwrap();
        a.ask(inode, &SessionClose {}).await.unwrap();
        world.platform.sleep(Duration::from_millis(100)).await;
        assert_eq!(b.asked(), [(inode, Lease::CONTENT)]);
    });
}
