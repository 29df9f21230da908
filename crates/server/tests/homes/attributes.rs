//! Extended attributes, and what follows from them for modes.

use crate::support::{Session, create, run};
use ringfs_wire::{
    Errno, GetXattr, InodeNumber, InodeType, ListXattrs, RemoveXattr, SetXattr, XattrMode,
    XattrName,
};

const ROOT: InodeNumber = InodeNumber::ROOT;

fn xattr(text: &str) -> XattrName {
    XattrName::new(text.as_bytes()).expect("valid")
}

fn set(inode: InodeNumber, text: &str, value: &[u8]) -> SetXattr {
    let (name, value) = (xattr(text), value.to_vec());
    SetXattr { inode, name, value, mode: XattrMode::Any, kill_sgid: false }
}

fn get(inode: InodeNumber, text: &str) -> GetXattr {
    GetXattr { inode, name: xattr(text) }
}

async fn file(session: &Session, text: &str, mode: u32) -> InodeNumber {
    session.create(create(ROOT, text, InodeType::File, mode)).await
}

#[test]
fn attributes_are_set_listed_and_removed() {
    run(1, |session| async move {
        let inode = file(&session, "f", 0o644).await;
        let big = vec![7; 64 << 10];
        let before = session.attributes(inode).await.unwrap();
        let after = session.ask(inode, &set(inode, "user.big", &big)).await.unwrap();
        assert!(after.changed > before.changed);
        session.ask(inode, &set(inode, "trusted.a", b"")).await.unwrap();
        assert_eq!(session.ask(inode, &get(inode, "user.big")).await.unwrap(), big);
        let names = session.ask(inode, &ListXattrs { inode }).await.unwrap();
        assert_eq!(names, [xattr("trusted.a"), xattr("user.big")]);
        let remove = RemoveXattr { inode, name: xattr("user.big") };
        session.ask(inode, &remove).await.unwrap();
        assert_eq!(session.refusal(inode, &remove).await, Errno::ENODATA);
        assert_eq!(session.refusal(inode, &get(inode, "user.big")).await, Errno::ENODATA);
    });
}

#[test]
fn attributes_are_refused_as_linux_does() {
    run(1, |session| async move {
        let inode = file(&session, "f", 0o644).await;
        let replace = SetXattr { mode: XattrMode::Replace, ..set(inode, "user.a", b"1") };
        assert_eq!(session.refusal(inode, &replace).await, Errno::ENODATA);
        let fresh = SetXattr { mode: XattrMode::Create, ..set(inode, "user.a", b"1") };
        session.ask(inode, &fresh).await.unwrap();
        let again = SetXattr { value: vec![2], ..fresh };
        assert_eq!(session.refusal(inode, &again).await, Errno::EEXIST);
        let big = set(inode, "user.b", &vec![0; (64 << 10) + 1]);
        assert_eq!(session.refusal(inode, &big).await, Errno::E2BIG);
        let pipe = session.create(create(ROOT, "p", InodeType::Fifo, 0o644)).await;
        assert_eq!(session.refusal(pipe, &set(pipe, "user.a", b"1")).await, Errno::EPERM);
        session.ask(pipe, &set(pipe, "trusted.a", b"1")).await.unwrap();
        for number in 0..15 {
            let name = format!("user.full{number}");
            session.ask(inode, &set(inode, &name, &[0; 64 << 10])).await.unwrap();
        }
        let full = set(inode, "user.more", &[0; 64 << 10]);
        assert_eq!(session.refusal(inode, &full).await, Errno::ENOSPC);
    });
}
