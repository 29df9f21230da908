//! Names, paths and trees.

use ringfs_client::{Credentials, OpenMode};
use ringfs_wire::*;

use crate::fake::{OWNER, name, run};

const DIRECTORY: FilePermissions = FilePermissions { mode: 0o755, uid: 0, gid: 0 };

#[test]
fn paths_lead_through_directories_and_symlinks() {
    run(|client, _, _| async move {
        let root = InodeNumber::ROOT;
        let a = client.mkdir(root, &name("a"), DIRECTORY).await.unwrap().inode;
        let b = client.mkdir(a, &name("b"), DIRECTORY).await.unwrap().inode;
        let f = client.create(b, &name("f"), OWNER, true).await.unwrap().inode();
        client.symlink(root, &name("near"), b"a/b", OWNER).await.unwrap();
        client.symlink(b, &name("far"), b"/near/../b/f", OWNER).await.unwrap();
        client.symlink(root, &name("loop"), b"/loop", OWNER).await.unwrap();
        for (path, expect) in [
            ("/", Ok(root)),
            ("/..", Ok(root)),
            ("/a", Ok(a)),
            ("/a/", Ok(a)),
            ("//a/./b/../b", Ok(b)),
            ("/a/b/f", Ok(f)),
            ("/near/f", Ok(f)),
            ("/near/..", Ok(a)),
            ("/a/b/far", Ok(f)),
            ("/a/b/f/", Err(Errno::ENOTDIR)),
            ("/a/b/f/x", Err(Errno::ENOTDIR)),
            ("/a/x", Err(Errno::ENOENT)),
            ("/x/a", Err(Errno::ENOENT)),
            ("/loop", Err(Errno::ELOOP)),
            ("a", Err(Errno::EINVAL)),
            ("", Err(Errno::EINVAL)),
        ] {
            let found = client.resolve(path, true).await;
            assert_eq!(found.map(|a| a.inode).map_err(|e| e.errno()), expect, "{path}");
        }
        assert_eq!(client.resolve("/near", false).await.unwrap().kind, InodeType::Symlink);
        assert_eq!(client.resolve("/near/", false).await.unwrap().inode, b);
        let long = "/a".repeat(3_000);
        assert_eq!(client.resolve(long, true).await.unwrap_err().errno(), Errno::ENAMETOOLONG);
        let (parent, last) = client.resolve_parent("/near/new/").await.unwrap();
        assert_eq!((parent.inode, last), (b, name("new")));
        let error = client.resolve("/a/x", true).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot find /a/x: no such file or directory");
    });
}

#[test]
fn pages_carry_the_attributes_of_far_inodes() {
    run(|client, fake, _| async move {
        let root = InodeNumber::ROOT;
        for index in 0..40 {
            client.mkdir(root, &name(&format!("d{index}")), DIRECTORY).await.unwrap();
            client.create(root, &name(&format!("f{index}")), OWNER, true).await.unwrap();
        }
        let get = AttributesGet { inodes: Vec::new(), lease: Lease::NONE, named: None };
        let asked = fake.count(&get);
        let page = client.read_directory(root, 0, 1_000).await.unwrap();
        assert_eq!((page.items.len(), page.end), (80, true));
        assert!(page.items.iter().all(|item| {
            item.attributes.as_ref().is_some_and(|attributes| attributes.inode == item.inode)
        }));
        assert_eq!(fake.count(&get) - asked, 2, "one request per other home");
        let (mut after, mut seen) = (0, 0);
        loop {
            let page = client.read_directory(root, after, 7).await.unwrap();
            seen += page.items.len();
            after = page.items.last().map_or(after, |item| item.cookie);
            if page.end {
                break;
            }
        }
        assert_eq!(seen, 80);
    });
}

#[test]
fn trees_are_walked_and_removed() {
    run(|client, _, _| async move {
        let mut expect = vec!["/t".to_owned()];
        let t = client.mkdir(InodeNumber::ROOT, &name("t"), DIRECTORY).await.unwrap().inode;
        for outer in 0..3 {
            let d = client.mkdir(t, &name(&format!("d{outer}")), DIRECTORY).await.unwrap().inode;
            expect.push(format!("/t/d{outer}"));
            for inner in 0..4 {
                client.create(d, &name(&format!("f{inner}")), OWNER, true).await.unwrap();
                expect.push(format!("/t/d{outer}/f{inner}"));
            }
        }
        let mut walk = client.walk("/t").await.unwrap();
        let mut found = Vec::new();
        while let Some(entry) = walk.next().await {
            found.push(String::from_utf8(entry.unwrap().path).unwrap());
        }
        assert_eq!(found, expect);
        client.remove_all("/t").await.unwrap();
        assert_eq!(client.resolve("/t", true).await.unwrap_err().errno(), Errno::ENOENT);
        assert_eq!(client.remove_all("/").await.unwrap_err().errno(), Errno::EBUSY);
        assert_eq!(client.remove_all("/t").await.unwrap_err().errno(), Errno::ENOENT);
    });
}

#[test]
fn users_are_held_to_the_permissions() {
    run(|client, _, _| async move {
        let root = InodeNumber::ROOT;
        let shared = FilePermissions { mode: 0o1777, uid: 0, gid: 0 };
        let tmp = client.mkdir(root, &name("tmp"), shared).await.unwrap().inode;
        let closed = FilePermissions { mode: 0o700, uid: 0, gid: 0 };
        client.mkdir(root, &name("closed"), closed).await.unwrap();
        let user = |uid| client.with_credentials(Credentials { uid, gid: uid, groups: vec![] });
        let (one, two) = (user(1), user(2));
        let errno = |result: Result<_, ringfs_client::ClientError>| {
            result.map(drop).map_err(|error| error.errno())
        };
        let mine = FilePermissions { mode: 0o644, uid: 1, gid: 1 };
        let write = OpenMode { write: true, ..OpenMode::default() };
        errno(one.open_path("/tmp/x", OpenMode::REPLACE, mine).await).unwrap();
        errno(two.open_path("/tmp/x", OpenMode::READ, mine).await).unwrap();
        let denied = Err(Errno::EACCES);
        assert_eq!(errno(two.open_path("/tmp/x", write, mine).await), denied);
        assert_eq!(errno(two.open_path("/tmp/x", OpenMode::REPLACE, mine).await), denied);
        assert_eq!(errno(one.open_path("/new", OpenMode::REPLACE, mine).await), denied);
        assert_eq!(errno(one.open_path("/closed/x", OpenMode::READ, mine).await), denied);
        let removed = two.unlink(tmp, &name("x")).await;
        assert_eq!(removed.unwrap_err().errno(), Errno::EPERM, "the directory is sticky");
        one.unlink(tmp, &name("x")).await.unwrap();
    });
}
