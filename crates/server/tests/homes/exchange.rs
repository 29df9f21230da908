//! Two names that change places, at one home and at two.

use ringfs_wire::{Errno, InodeNumber, InodeType, Link, Rename, RenameMode};

use crate::support::{Session, create, name, run};

const ROOT: InodeNumber = InodeNumber::ROOT;

fn exchange(from: (InodeNumber, &str), to: (InodeNumber, &str)) -> Rename {
    Rename {
        from_directory: from.0,
        from_name: name(from.1),
        to_directory: to.0,
        to_name: name(to.1),
        mode: RenameMode::Exchange,
    }
}

async fn make(session: &Session, at: InodeNumber, text: &str, kind: InodeType) -> InodeNumber {
    session.create(create(at, text, kind, 0o755)).await
}

async fn links(session: &Session, inode: InodeNumber) -> u32 {
    session.attributes(inode).await.unwrap().links
}

async fn check_pair(session: &Session, a: InodeNumber, b: InodeNumber) {
    let before = (links(session, a).await, links(session, b).await);
    let directory = make(session, a, "x", InodeType::Directory).await;
    make(session, directory, "inside", InodeType::File).await;
    let file = make(session, b, "y", InodeType::File).await;
    session.ask(b, &exchange((a, "x"), (b, "y"))).await.unwrap();
    assert_eq!(session.find(a, "x").await, Ok(file));
    assert_eq!(session.find(b, "y").await, Ok(directory));
    assert_eq!(session.attributes(directory).await.unwrap().parent, b);
    if a != b {
        assert_eq!((links(session, a).await, links(session, b).await), (before.0, before.1 + 1));
    }
    // The directory knows its new name, too: it is found, and it is not empty.
    let other = make(session, a, "z", InodeType::Directory).await;
    session.ask(a, &exchange((b, "y"), (a, "z"))).await.unwrap();
    assert_eq!(session.find(a, "z").await, Ok(directory));
    assert_eq!(session.find(b, "y").await, Ok(other));
    for (inode, parent) in [(directory, a), (other, b)] {
        assert_eq!(session.attributes(inode).await.unwrap().parent, parent);
    }
    assert!(session.find(directory, "inside").await.is_ok());
}

#[test]
fn two_names_change_places() {
    run(3, |session| async move {
        let homes = session.directories(ROOT).await;
        check_pair(&session, homes[0], homes[0]).await;
        for (a, b) in [(0, 1), (1, 2), (2, 0)] {
            let a = make(&session, homes[a], "pair", InodeType::Directory).await;
            let b = make(&session, homes[b], "pairs", InodeType::Directory).await;
            check_pair(&session, a, b).await;
        }
    });
}

#[test]
fn an_exchange_is_refused_where_a_name_is_missing_or_a_cycle_would_form() {
    run(2, |session| async move {
        let parent = make(&session, ROOT, "p", InodeType::Directory).await;
        let child = make(&session, parent, "c", InodeType::Directory).await;
        make(&session, child, "f", InodeType::File).await;
        make(&session, child, "d", InodeType::Directory).await;
        let missing = exchange((parent, "c"), (ROOT, "none"));
        assert_eq!(session.refusal(ROOT, &missing).await, Errno::ENOENT);
        let missing = exchange((parent, "none"), (ROOT, "p"));
        assert_eq!(session.refusal(ROOT, &missing).await, Errno::ENOENT);
        for inside in ["f", "d"] {
            let down = exchange((ROOT, "p"), (child, inside));
            assert_eq!(session.refusal(child, &down).await, Errno::EINVAL);
            let up = exchange((child, inside), (ROOT, "p"));
            assert_eq!(session.refusal(ROOT, &up).await, Errno::EINVAL);
        }
        let (inode, kind) = (session.find(child, "f").await.unwrap(), InodeType::File);
        let link = Link { inode, kind, directory: ROOT, name: name("l") };
        session.ask(ROOT, &link).await.unwrap();
        session.ask(ROOT, &exchange((child, "f"), (ROOT, "l"))).await.unwrap();
        assert_eq!(session.find(ROOT, "l").await, Ok(inode), "one inode has both names");
    });
}
