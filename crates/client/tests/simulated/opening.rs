//! Opening and closing: handles, references, sessions.

use std::time::Duration;

use ringfs_client::{ClientError, OpenMode};
use ringfs_wire::*;

use crate::fake::{OWNER, name, run};

const ROOT: InodeNumber = InodeNumber::ROOT;
const SETTLED: Duration = Duration::from_millis(100);

#[test]
fn a_reference_lives_as_long_as_the_last_handle() {
    run(|client, fake, platform| async move {
        let file = client.create(ROOT, &name("f"), OWNER, true).await.unwrap();
        let inode = file.inode();
        let second = client.open_path("/f", OpenMode::READ, OWNER).await.unwrap();
        file.close().await.unwrap();
        platform.sleep(SETTLED).await;
        assert!(fake.references.borrow().contains(&inode));
        drop(second);
        platform.sleep(SETTLED).await;
        assert!(fake.references.borrow().is_empty());
    });
}

#[test]
fn a_small_file_is_made_in_one_request_and_read_in_one() {
    run(|client, fake, platform| async move {
        client.mkdir(ROOT, &name("d"), OWNER).await.unwrap();
        let asked = fake.asked.borrow().len();
        let file = client.create_with(ROOT, &name("f"), OWNER, vec![7; 3_901]).await.unwrap();
        assert_eq!((fake.asked.borrow().len(), file.attributes().size), (asked + 1, 3_901));
        let again = client.create_with(ROOT, &name("f"), OWNER, vec![8]).await;
        assert_eq!(again.err().map(|error| error.errno()), Some(Errno::EEXIST));
        let asked = fake.asked.borrow().len();
        let (again, head) = client.open_with_head(ROOT, &name("f")).await.unwrap();
        assert_eq!(head[..], [7; 3_901][..]);
        assert_eq!(fake.asked.borrow().len(), asked + 1);
        // What the home leaves out at the end of a hole is zeros, and a longer file goes on.
        client.truncate(again.inode(), HEAD_SIZE + 1).await.unwrap();
        let (_, head) = client.open_with_head(ROOT, &name("f")).await.unwrap();
        assert_eq!((head.len() as u64, head[3_900], head[3_901]), (HEAD_SIZE, 7, 0));
        drop((file, again));
        platform.sleep(SETTLED).await;
        client.symlink(ROOT, &name("link"), b"f", OWNER).await.unwrap();
        let refused = client.open_with_head(ROOT, &name("link")).await;
        assert_eq!(refused.err().map(|error| error.errno()), Some(Errno::ELOOP));
    });
}

#[test]
fn reopening_while_a_drop_is_on_its_way_keeps_the_reference() {
    run(|client, fake, platform| async move {
        let file = client.create(ROOT, &name("f"), OWNER, true).await.unwrap();
        let inode = file.inode();
        // The drop is carried out late, after the open that was sent behind it.
        fake.delay(&References { take: Vec::new(), drop: Vec::new() }, SETTLED);
        file.close().await.unwrap();
        platform.sleep(SETTLED / 10).await;
        let by_name = client.open_path("/f", OpenMode::READ, OWNER).await.unwrap();
        platform.sleep(SETTLED * 3).await;
        assert!(fake.references.borrow().contains(&inode));
        by_name.close().await.unwrap();
        platform.sleep(SETTLED / 10).await;
        let _by_number = client.open(inode).await.unwrap();
        platform.sleep(SETTLED * 3).await;
        assert!(fake.references.borrow().contains(&inode));
    });
}

#[test]
fn modes_decide_what_a_path_opens() {
    run(|client, _, _| async move {
        let open = |path: &'static str, mode| client.open_path(path, mode, OWNER);
        let errno = |result: Result<_, ClientError>| {
            result.map(drop).map_err(|error: ClientError| error.errno())
        };
        let exclusive = OpenMode { exclusive: true, ..OpenMode::REPLACE };
        let append = OpenMode { append: true, create: true, ..OpenMode::READ_WRITE };
        assert_eq!(errno(open("/f", OpenMode::READ).await), Err(Errno::ENOENT));
        let file = open("/f", exclusive).await.unwrap();
        file.write(0, vec![1; 10]).await.unwrap();
        assert_eq!(file.read(0, 1).await.unwrap_err().errno(), Errno::EBADF);
        assert_eq!(errno(open("/f", exclusive).await), Err(Errno::EEXIST));
        let appending = open("/f", append).await.unwrap();
        appending.write(0, vec![2; 5]).await.unwrap();
        assert_eq!(appending.read(0, 100).await.unwrap().len(), 15);
        assert_eq!(appending.attributes().size, 15);
        let reading = open("/f", OpenMode::READ).await.unwrap();
        assert_eq!(reading.write(0, vec![1]).await.unwrap_err().errno(), Errno::EBADF);
        open("/f", OpenMode::REPLACE).await.unwrap();
        assert_eq!(reading.read(0, 100).await.unwrap().len(), 0);
        let directory = FilePermissions { mode: 0o755, uid: 0, gid: 0 };
        client.mkdir(ROOT, &name("d"), directory).await.unwrap();
        assert_eq!(errno(open("/d", OpenMode::READ).await), Err(Errno::EISDIR));
        assert_eq!(errno(open("/d", OpenMode::REPLACE).await), Err(Errno::EISDIR));
        // A symbolic link to nothing: creating goes through it, exclusive creating does not.
        client.symlink(ROOT, &name("link"), b"d/target", OWNER).await.unwrap();
        assert_eq!(errno(open("/link", exclusive).await), Err(Errno::EEXIST));
        let through = open("/link", OpenMode::REPLACE).await.unwrap();
        assert_eq!(client.resolve("/d/target", false).await.unwrap().inode, through.inode());
    });
}

#[test]
fn a_session_is_kept_alive_while_it_holds_something() {
    run(|client, fake, platform| async move {
        let renew = SessionRenew {};
        client.resolve("/", true).await.unwrap();
        platform.sleep(Duration::from_secs(20)).await;
        assert_eq!(fake.count(&renew), 0, "looking around holds nothing");
        let _file = client.create(ROOT, &name("f"), OWNER, true).await.unwrap();
        platform.sleep(Duration::from_secs(20)).await;
        assert!((5..=8).contains(&fake.count(&renew)), "{}", fake.count(&renew));
        client.close().await.unwrap();
        let (renewed, closed) = (fake.count(&renew), fake.count(&SessionClose {}));
        platform.sleep(Duration::from_secs(20)).await;
        assert_eq!((fake.count(&renew), closed), (renewed, 1));
    });
}

#[test]
fn an_expired_session_makes_handles_stale_and_the_client_goes_on() {
    run(|client, fake, _| async move {
        let file = client.create(ROOT, &name("f"), OWNER, true).await.unwrap();
        let head = HeadRead { inode: ROOT, offset: 0, length: 0, touch: false };
        fake.fail(&head, &[Status::SessionExpired]);
        let error = file.read(0, 10).await.unwrap_err();
        assert!(matches!(error, ClientError::SessionExpired { .. }) && error.is_outcome_unknown());
        client.renew_session();
        assert_eq!(file.read(0, 10).await.unwrap_err().errno(), Errno::ESTALE);
        assert_eq!(file.write(0, vec![1]).await.unwrap_err().errno(), Errno::ESTALE);
        drop(file);
        let file = client.open_path("/f", OpenMode::READ_WRITE, OWNER).await.unwrap();
        file.write(0, vec![1; 4]).await.unwrap();
        file.close().await.unwrap();
        // With nothing open a look-up needs no help.
        let get = AttributesGet { inodes: Vec::new(), lease: Lease::NONE, named: None };
        fake.fail(&get, &[Status::SessionExpired]);
        client.attributes(ROOT).await.unwrap();
    });
}
