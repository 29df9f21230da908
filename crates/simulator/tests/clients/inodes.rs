//! Extended attributes, files without a name, and names that change places, as clients see them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringfs_client::{Client, ClientError, OpenMode};
use ringfs_wire::{
    Attributes, Errno, FilePermissions, InodeNumber, RenameMode, XattrMode, XattrName,
};

use crate::world::{OWNER, World, name, run};

const ROOT: InodeNumber = InodeNumber::ROOT;
const DIRECTORY: FilePermissions = FilePermissions { mode: 0o755, uid: 0, gid: 0 };

fn xattr(text: &str) -> XattrName {
    XattrName::new(text.as_bytes()).unwrap()
}

fn errno<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Errno {
    result.unwrap_err().errno()
}

/// Kills both servers and starts them again.
async fn restart(world: &World) {
    for node in [0, 1] {
        world.kill(node);
        world.start(node);
    }
    world.platform(0).sleep(Duration::from_secs(1)).await;
}

/// Directories enough to lie on several homes.
async fn directories(client: &Client) -> Vec<Attributes> {
    let mut made = Vec::new();
    for number in 0..6 {
        let text = name(&format!("d{number}"));
        made.push(client.mkdir(ROOT, &text, DIRECTORY).await.unwrap());
    }
    made
}

#[test]
fn attributes_are_shared_and_outlive_servers() {
    run(|world| async move {
        let (one, two) = (world.client(0), world.client(1));
        let file = one.create(ROOT, &name("f"), OWNER, true).await.unwrap();
        let file = file.attributes().inode;
        let value = vec![7; 64 << 10];
        one.set_xattr(file, &xattr("user.big"), &value, XattrMode::Create, false).await.unwrap();
        one.set_xattr(file, &xattr("user.a"), b"", XattrMode::Any, false).await.unwrap();
        restart(&world).await;
        assert_eq!(two.get_xattr(file, &xattr("user.big")).await.unwrap(), value);
        let names = two.list_xattrs(file).await.unwrap();
        assert_eq!(names, [xattr("user.a"), xattr("user.big")]);
        two.remove_xattr(file, &xattr("user.big")).await.unwrap();
        assert_eq!(errno(one.get_xattr(file, &xattr("user.big")).await), Errno::ENODATA);
        let long = vec![0; (64 << 10) + 1];
        let set = one.set_xattr(file, &xattr("user.a"), &long, XattrMode::Any, false).await;
        assert_eq!(errno(set), Errno::E2BIG);
    });
}

#[test]
fn a_nameless_file_is_written_then_named() {
    run(|world| async move {
        let (one, two) = (world.client(0), world.client(1));
        let homes = directories(&one).await;
        for (index, directory) in homes.iter().enumerate() {
            let make = one.create_nameless(directory.inode, OWNER, 0o077, OpenMode::READ_WRITE);
            let file = make.await.unwrap();
            assert_eq!(file.attributes().permissions.mode, 0o600);
            file.write(0, b"complete".to_vec()).await.unwrap();
            if index == 0 {
                restart(&world).await;
            }
            let (inode, to) = (file.attributes().inode, homes[(index + 1) % homes.len()].inode);
            one.link(inode, to, &name("named")).await.unwrap();
            drop(file);
            let found = two.lookup(to, &name("named")).await.unwrap();
            assert_eq!((found.inode, found.links, found.size), (inode, 1, 8));
        }
        let make = one.create_nameless(ROOT, OWNER, 0, OpenMode::READ_WRITE);
        let lost = make.await.unwrap();
        let inode = lost.attributes().inode;
        two.attributes(inode).await.unwrap();
        drop(lost);
        one.close().await.unwrap();
        world.platform(1).sleep(Duration::from_secs(50)).await;
        assert_eq!(errno(two.attributes(inode).await), Errno::ENOENT);
    });
}

#[test]
fn an_exchange_is_never_seen_half_done() {
    run(|world| async move {
        let (one, two) = (world.client(0), world.client(1));
        let homes = directories(&one).await;
        let (a, b) = (homes[0].inode, homes[1].inode);
        let first = one.mkdir(a, &name("x"), DIRECTORY).await.unwrap().inode;
        let second = one.create(b, &name("y"), OWNER, true).await.unwrap().attributes().inode;
        let (x, y) = (name("x"), name("y"));
        let looks = Rc::new(Cell::new(0));
        let looked = looks.clone();
        world.platform(1).spawn(async move {
            loop {
                let left = two.lookup(a, &name("x")).await.unwrap().inode;
                let right = two.lookup(b, &name("y")).await.unwrap().inode;
                assert!([first, second].contains(&left) && [first, second].contains(&right));
                looked.set(looked.get() + 1);
            }
        });
        for round in 0..9 {
            let (from, to) = if round % 2 == 0 { ((a, &x), (b, &y)) } else { ((b, &y), (a, &x)) };
            if round % 3 == 2 {
                world.kill(round / 3 % 2);
                world.start(round / 3 % 2);
            }
            one.rename(from.0, from.1, to.0, to.1, RenameMode::Exchange).await.unwrap();
            let left = one.lookup(a, &x).await.unwrap().inode;
            let right = one.lookup(b, &y).await.unwrap().inode;
            let expect = if round % 2 == 0 { (second, first) } else { (first, second) };
            assert_eq!((left, right), expect, "round {round}");
        }
        assert!(looks.get() > 0);
        let parent = one.attributes(first).await.unwrap().parent;
        assert_eq!(parent, b, "a directory knows where it is");
        for directory in [a, b] {
            let links = one.attributes(directory).await.unwrap().links;
            assert_eq!(links, if directory == b { 3 } else { 2 });
        }
    });
}
