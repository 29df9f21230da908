//! Files that are born without a name.

use futures_util::future::join;
use ringfs_wire::{
    CreateNameless, Decide, Errno, FilePermissions, InodeNumber, InodeType, Lease, Link,
    MetadataDelete, MetadataLookup, OperationId, Prepare, PrepareReply, References, SessionId,
    Status, Step,
};

use crate::support::{Session, create, name, run};

const ROOT: InodeNumber = InodeNumber::ROOT;

fn create_nameless(directory: InodeNumber) -> CreateNameless {
    let permissions = FilePermissions { mode: 0o666, uid: 1, gid: 2 };
    CreateNameless { directory, permissions, umask: 0o022, lease: Lease::NONE }
}

async fn nameless(session: &Session, directory: InodeNumber) -> InodeNumber {
    let reply = session.ask(directory, &create_nameless(directory)).await.unwrap();
    let attributes = reply.attributes.unwrap();
    assert_eq!((attributes.links, attributes.permissions.mode), (0, 0o644));
    reply.inode
}

fn link(inode: InodeNumber, directory: InodeNumber, text: &str) -> Link {
    Link { inode, kind: InodeType::File, directory, name: name(text) }
}

async fn close(session: &Session, inode: InodeNumber) {
    let request = References { take: Vec::new(), drop: vec![inode] };
    session.ask(inode, &request).await.unwrap();
}

#[test]
fn a_nameless_file_goes_with_its_last_reference_unless_it_was_named() {
    run(2, |session| async move {
        let homes = session.directories(ROOT).await;
        for (index, directory) in homes.iter().enumerate() {
            let lost = nameless(&session, *directory).await;
            assert_eq!(session.attributes(lost).await.unwrap().size, 0);
            close(&session, lost).await;
            session.until_gone(lost).await;
            for other in [*directory, homes[1 - index]] {
                let kept = nameless(&session, *directory).await;
                let text = format!("from{index}");
                session.ask(other, &link(kept, other, &text)).await.unwrap();
                close(&session, kept).await;
                assert_eq!(session.find(other, &text).await, Ok(kept));
                assert_eq!(session.attributes(kept).await.unwrap().links, 1);
            }
        }
    });
}

#[test]
fn a_file_that_lost_its_last_name_gets_no_other() {
    run(2, |session| async move {
        let made = nameless(&session, ROOT).await;
        session.ask(ROOT, &link(made, ROOT, "once")).await.unwrap();
        let (directory, open) = (ROOT, true);
        let born = session.create(create(ROOT, "f", InodeType::File, 0o644)).await;
        let (name, head, lease) = (Some(name("f")), false, Lease::NONE);
        session
            .ask(
                ROOT,
                &MetadataLookup { directory, name: name.clone(), open, head, touch: false, lease },
            )
            .await
            .unwrap();
        for (inode, text) in [(made, "once"), (born, "f")] {
            let name = crate::support::name(text);
            let delete = MetadataDelete { directory, name, is_directory: false };
            session.ask(ROOT, &delete).await.unwrap();
            assert_eq!(session.attributes(inode).await.unwrap().links, 0);
            for directory in session.directories(ROOT).await {
                let again = link(inode, directory, "again");
                assert_eq!(session.refusal(directory, &again).await, Errno::ENOENT);
            }
        }
    });
}

#[test]
fn nothing_is_born_in_a_directory_whose_removal_is_decided() {
    run(2, |session| async move {
        for (number, directory) in (1..).zip(session.directories(ROOT).await) {
            let operation = OperationId { coordinator: session.home(ROOT), number };
            let steps = vec![Step::DropDirectory { inode: directory }];
            let prepare = Prepare { operation, steps, holder: SessionId::default() };
            let prepared = session.ask(directory, &prepare).await.unwrap();
            assert!(matches!(prepared, PrepareReply::Prepared(_)));
            // Decided elsewhere, and told only now.
            let request = create_nameless(directory);
            let decide = Decide { operation, commit: true };
            let born = session.refusal(directory, &request);
            let (refused, decided) = join(born, session.ask(directory, &decide)).await;
            decided.unwrap();
            assert_eq!(refused, Errno::ENOENT);
        }
    });
}

#[test]
fn what_is_prepared_late_is_not_carried_out_twice() {
    run(1, |session| async move {
        let file = session.create(create(ROOT, "f", InodeType::File, 0o644)).await;
        for text in ["g", "h"] {
            session.ask(ROOT, &link(file, ROOT, text)).await.unwrap();
        }
        let operation = OperationId { coordinator: session.home(ROOT), number: 1 };
        let steps = vec![Step::DropLink { inode: file }];
        let prepare = Prepare { operation, steps, holder: SessionId::default() };
        let decide = Decide { operation, commit: true };
        let prepared = session.ask(file, &prepare).await.unwrap();
        assert!(matches!(prepared, PrepareReply::Prepared(_)));
        session.ask(file, &decide).await.unwrap();
        // The same frame, from a connection that its sender has given up.
        let late = session.ask(file, &prepare).await.unwrap();
        assert_eq!(late, PrepareReply::Refused(Status::Busy));
        session.ask(file, &decide).await.unwrap();
        assert_eq!(session.attributes(file).await.unwrap().links, 2);
    });
}
