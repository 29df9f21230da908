//! Extended attributes, and what follows from them for modes.

use crate::support::{Session, create, run};
use ringfs_wire::{
    AttributeChanges, Errno, GetXattr, HeadWrite, InodeNumber, InodeType, ListXattrs,
    MetadataCreate, MetadataUpdate, RemoveXattr, SetXattr, XattrMode, XattrName,
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
        assert!(!before.has_xattrs);
        let after = session.ask(inode, &set(inode, "user.big", &big)).await.unwrap();
        assert!(after.changed > before.changed && after.has_xattrs);
        session.ask(inode, &set(inode, "trusted.a", b"")).await.unwrap();
        assert_eq!(session.ask(inode, &get(inode, "user.big")).await.unwrap(), big);
        let names = session.ask(inode, &ListXattrs { inode }).await.unwrap();
        assert_eq!(names, [xattr("trusted.a"), xattr("user.big")]);
        let remove = RemoveXattr { inode, name: xattr("user.big") };
        assert!(session.ask(inode, &remove).await.unwrap().has_xattrs, "one is left");
        let last = RemoveXattr { inode, name: xattr("trusted.a") };
        assert!(!session.ask(inode, &last).await.unwrap().has_xattrs);
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

async fn change(session: &Session, inode: InodeNumber, changes: AttributeChanges) -> u32 {
    let update = MetadataUpdate { inode, changes };
    session.ask(inode, &update).await.unwrap().permissions.mode
}

#[test]
fn a_program_loses_its_privileges_with_its_owner_or_bytes() {
    run(1, |session| async move {
        let change = |inode, changes| change(&session, inode, changes);
        let none = AttributeChanges::default();
        let kill = AttributeChanges { kill_privileges: true, ..none.clone() };
        let chown = AttributeChanges { uid: Some(5), ..none.clone() };
        let both = AttributeChanges { mode: Some(0o6755), ..chown.clone() };
        let file = file(&session, "f", 0o6755).await;
        let has_capability =
            async || session.ask(file, &get(file, "security.capability")).await.is_ok();
        session.ask(file, &set(file, "security.capability", b"x")).await.unwrap();
        assert_eq!(change(file, none.clone()).await, 0o6755);
        assert!(has_capability().await);
        assert_eq!(change(file, kill.clone()).await, 0o755);
        assert!(!has_capability().await);
        session.ask(file, &set(file, "security.capability", b"x")).await.unwrap();
        assert_eq!(change(file, both).await, 0o6755);
        assert!(!has_capability().await);
        assert_eq!(change(file, chown.clone()).await, 0o755);
        assert_eq!(
            change(file, AttributeChanges { mode: Some(0o2644), ..none.clone() }).await,
            0o2644
        );
        assert_eq!(
            change(file, kill.clone()).await,
            0o2644,
            "setgid without execution is no privilege"
        );
        let stranger = AttributeChanges { kill_setgid: true, ..kill };
        assert_eq!(change(file, stranger).await, 0o644);
        session.ask(file, &set(file, "security.capability", b"x")).await.unwrap();
        change(file, AttributeChanges { size: Some(1), ..none.clone() }).await;
        assert!(!has_capability().await);
        session.ask(file, &set(file, "security.capability", b"x")).await.unwrap();
        let generation = session.attributes(file).await.unwrap().generation;
        let write = HeadWrite { inode: file, generation, offset: 0, lazy: false, allocated: 0 };
        session.send(file, &write, b"bytes").await.unwrap();
        assert!(!has_capability().await);
        let directory = session.create(create(ROOT, "d", InodeType::Directory, 0o2755)).await;
        assert_eq!(change(directory, chown).await, 0o2755, "of a directory it means inheritance");
    });
}

/// An access control list of owner, user 9, group, mask and other.
fn acl(owner: u8, named: u8, group: u8, mask: u8, other: u8) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1, owner, 255), (2, named, 9), (4, group, 255), (16, mask, 255), (32, other, 255)]
    {
        let rest = if id == 255 { [255; 3] } else { [0; 3] };
        value.extend_from_slice(&[tag, 0, permissions, 0, id, rest[0], rest[1], rest[2]]);
    }
    value
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

#[test]
fn access_lists_and_modes_are_in_step() {
    run(1, |session| async move {
        let inode = file(&session, "f", 0o2644).await;
        let list = set(inode, ACCESS, &acl(7, 6, 5, 6, 1));
        assert_eq!(session.ask(inode, &list).await.unwrap().permissions.mode, 0o2761);
        let killing = SetXattr { kill_sgid: true, ..list };
        assert_eq!(session.ask(inode, &killing).await.unwrap().permissions.mode, 0o761);
        let mode = AttributeChanges { mode: Some(0o640), ..Default::default() };
        assert_eq!(change(&session, inode, mode).await, 0o640);
        let now = session.ask(inode, &get(inode, ACCESS)).await.unwrap();
        assert_eq!(now, acl(6, 6, 5, 4, 0));
        let mut trivial = acl(6, 0, 4, 0, 4);
        trivial.drain(28..36);
        trivial.drain(12..20);
        let after = session.ask(inode, &set(inode, ACCESS, &trivial)).await.unwrap();
        assert_eq!(after.permissions.mode, 0o644);
        assert_eq!(session.refusal(inode, &get(inode, ACCESS)).await, Errno::ENODATA);
        assert_eq!(session.refusal(inode, &set(inode, ACCESS, b"junk")).await, Errno::EINVAL);
        let default = set(inode, DEFAULT, &acl(7, 6, 5, 6, 1));
        assert_eq!(session.refusal(inode, &default).await, Errno::EACCES);
    });
}

#[test]
fn default_lists_are_inherited_by_what_is_created_at_either_home() {
    run(2, |session| async move {
        let plain =
            MetadataCreate { umask: 0o027, ..create(ROOT, "plain", InodeType::File, 0o666) };
        let plain = session.create(plain).await;
        assert_eq!(session.attributes(plain).await.unwrap().permissions.mode, 0o640);
        for parent in session.directories(ROOT).await {
            let list = acl(7, 6, 5, 7, 1);
            session.ask(parent, &set(parent, DEFAULT, &list)).await.unwrap();
            let new = |text, kind, mode| {
                session.create(MetadataCreate { umask: 0o077, ..create(parent, text, kind, mode) })
            };
            let mode = async |inode| session.attributes(inode).await.unwrap().permissions.mode;
            let file = new("f", InodeType::File, 0o666).await;
            assert_eq!(mode(file).await, 0o660);
            assert!(session.attributes(file).await.unwrap().has_xattrs);
            assert_eq!(session.ask(file, &get(file, ACCESS)).await, Ok(acl(6, 6, 5, 6, 0)));
            assert_eq!(session.refusal(file, &get(file, DEFAULT)).await, Errno::ENODATA);
            for text in ["a", "b", "c", "d"] {
                let directory = new(text, InodeType::Directory, 0o2755).await;
                assert_eq!(mode(directory).await, 0o2751);
                assert!(session.attributes(directory).await.unwrap().has_xattrs);
                let own = session.ask(directory, &get(directory, ACCESS)).await;
                assert_eq!(own, Ok(acl(7, 6, 5, 5, 1)));
                let default = session.ask(directory, &get(directory, DEFAULT)).await;
                assert_eq!(default.as_ref(), Ok(&list));
            }
            let link = MetadataCreate {
                symlink: b"f".to_vec(),
                ..create(parent, "l", InodeType::Symlink, 0o777)
            };
            assert_eq!(mode(session.create(link).await).await, 0o777);
            let node = MetadataCreate {
                device: 0x103,
                ..create(parent, "n", InodeType::BlockDevice, 0o600)
            };
            let node = session.create(node).await;
            assert_eq!(session.attributes(node).await.unwrap().device, 0x103);
        }
    });
}
