//! Real mounts, served by a few lines of hand-made protocol: one directory with one file.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::host_endian_bytes,
    reason = "these tests use the mount as other programs do, and speak the kernel's protocol"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::mount::UnmountFlags;

use ringfs_platform::fuse::{
    FuseChannel, FuseError, FuseMount, FuseNotifier, Liveness, MountRequest, MountState,
    mount_state, unmount_path,
};
use ringfs_platform::{Buffer, Platform, RuntimeOptions, Slice, run};

/// What a test may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tells a child process of a test to serve this directory.
const DIRECTORY_VARIABLE: &str = "RINGFS_TEST_MOUNT";
/// What such a child prints once it has mounted.
const SERVING: &str = "serving";
const SOURCE: &str = "ringfs#a, \\ test";
const CAPACITY: usize = (1 << 20) + 4096;
/// How long the kernel may believe what it is told, in seconds.
const VALID: u64 = 3600;
const FILE: u64 = 2;
const WRITE_HEADERS_LEN: usize = 80;

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const BATCH_FORGET: u32 = 42;

type Content = Arc<Mutex<Vec<u8>>>;

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

fn may_mount() -> bool {
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    let helper = Command::new("fusermount3").arg("-V").output();
    let may = device.is_ok() && (is_root() || helper.is_ok());
    if !may {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI has to run this test");
        eprintln!("skipped: it takes /dev/fuse, and root or fusermount3");
    }
    may
}

fn request(directory: &Path) -> MountRequest {
    MountRequest {
        directory: directory.to_owned(),
        source: SOURCE.to_owned(),
        allow_other: is_root(),
        read_only: false,
        max_read: 1 << 20,
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

/// `fuse_attr` of the directory or the file.
fn attributes(inode: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in [inode, size as u64, 1, 0, 0, 0] {
        bytes.extend(u64::to_ne_bytes(value));
    }
    let mode = if inode == FILE { 0o100_666 } else { 0o40_755 };
    for value in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
        bytes.extend(u32::to_ne_bytes(value));
    }
    bytes
}

fn numbers<const N: usize>(values: [u64; N]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// Fixed part and bulk of the answer to `message`, or an errno.
fn answer(message: &[u8], content: &Content) -> Result<(Vec<u8>, Vec<Slice>), i32> {
    let inode = u64_at(message, 16);
    let mut content = content.lock().expect("content");
    let body = &message[40..];
    let fixed = match u32_at(message, 4) {
        INIT => {
            let mut init =
                [7, 31, 1 << 20, 1 << 5, 64 << 16 | 64, 1 << 20, 1].map(u32::to_ne_bytes).concat();
            init.resize(64, 0);
            init
        }
        LOOKUP if body == b"file\0" => {
            [numbers([FILE, 0, VALID, VALID, 0]), attributes(FILE, content.len())].concat()
        }
        LOOKUP => return Err(libc::ENOENT),
        GETATTR => {
            let size = if inode == FILE { content.len() } else { 0 };
            [numbers([VALID, 0]), attributes(inode, size)].concat()
        }
        OPEN => numbers([0, 2]),
        READ => {
            let start = content.len().min(u64_at(body, 8) as usize);
            let end = content.len().min(start + u32_at(body, 16) as usize);
            let middle = start.midpoint(end);
            let bulk =
                vec![Slice::from(&content[start..middle]), Slice::from(&content[middle..end])];
            return Ok((Vec::new(), bulk));
        }
        WRITE => {
            let (start, len) = (u64_at(body, 8) as usize, u32_at(body, 16) as usize);
            let end = content.len().max(start + len);
            content.resize(end, 0);
            content[start..start + len].copy_from_slice(&message[WRITE_HEADERS_LEN..]);
            numbers([len as u64])
        }
        STATFS => vec![0; 80],
        FLUSH | RELEASE => Vec::new(),
        _ => return Err(libc::ENOSYS),
    };
    Ok((fixed, Vec::new()))
}

async fn serve_one(channel: &FuseChannel, message: &Buffer, content: &Content) {
    assert_eq!(u32_at(message, 0) as usize, message.len());
    if matches!(u32_at(message, 4), FORGET | BATCH_FORGET) {
        return;
    }
    let (errno, fixed, bulk) = match answer(message, content) {
        Ok((fixed, bulk)) => (0, fixed, bulk),
        Err(errno) => (-errno, Vec::new(), Vec::new()),
    };
    let len = 16 + fixed.len() + bulk.iter().map(Slice::len).sum::<usize>();
    let mut head = (len as u32).to_ne_bytes().to_vec();
    head.extend(errno.to_ne_bytes());
    head.extend(&message[8..16]);
    head.extend(fixed);
    channel.reply(head, bulk).await.expect("reply");
}

async fn serve(channel: &FuseChannel, content: &Content) {
    while let Some(message) = channel.receive(CAPACITY).await.expect("receive") {
        serve_one(channel, &message, content).await;
    }
}

async fn mount_and_greet(
    platform: &Platform,
    directory: &Path,
    content: &Content,
) -> (FuseMount, FuseChannel) {
    let mount = platform.mount_fuse(&request(directory)).await.expect("mount");
    let channel = mount.first().expect("first").adopt(platform).expect("adopt");
    let init = channel.receive(CAPACITY).await.expect("receive").expect("INIT");
    assert_eq!(u32_at(&init, 4), INIT);
    serve_one(&channel, &init, content).await;
    (mount, channel)
}

/// Ends every wait for a mount that fails to answer: a process that waits for itself could not
/// even be killed.
struct Watchdog {
    _done: mpsc::Sender<()>,
}

impl Watchdog {
    fn start(directory: &Path) -> Watchdog {
        let (done, is_done) = mpsc::channel::<()>();
        let directory = directory.to_owned();
        std::thread::spawn(move || {
            if is_done.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("the mount does not answer");
                let flags = UnmountFlags::FORCE | UnmountFlags::DETACH;
                // Fails where nothing is mounted any more.
                let _ = rustix::mount::unmount(&directory, flags);
            }
        });
        Watchdog { _done: done }
    }
}

/// A mount served by a thread of its own until it is unmounted.
struct Served {
    directory: PathBuf,
    content: Content,
    notifier: FuseNotifier,
    server: Option<JoinHandle<()>>,
    _watchdog: Watchdog,
}

impl Served {
    fn start(directory: &Path, options: RuntimeOptions) -> Served {
        let watchdog = Watchdog::start(directory);
        let content = Content::default();
        let (ready, is_ready) = mpsc::channel();
        let (served, place) = (content.clone(), directory.to_owned());
        let server = std::thread::spawn(move || {
            let body = |platform| async move {
                let (mount, channel) = mount_and_greet(&platform, &place, &served).await;
                ready.send(mount.notifier()).expect("the test");
                serve(&channel, &served).await;
            };
            run(options, body).expect("a runtime");
        });
        let notifier = is_ready.recv().expect("a mount");
        Served {
            directory: directory.to_owned(),
            content,
            notifier,
            server: Some(server),
            _watchdog: watchdog,
        }
    }

    fn stop(mut self) {
        unmount_path(&self.directory).expect("unmount");
        self.server.take().expect("a server").join().expect("the server ends with the mount");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.server.is_some() {
            // The test has failed already.
            let _ = unmount_path(&self.directory);
        }
    }
}

fn polling() -> RuntimeOptions {
    RuntimeOptions { polling: true, ..RuntimeOptions::default() }
}

fn inval_inode(inode: u64) -> Vec<u8> {
    let mut message = [40, 2].map(u32::to_ne_bytes).concat();
    message.extend(numbers([0, inode, 0, 0]));
    message
}

/// Waits for a notify on a runtime of its own.
fn notify(notifier: &FuseNotifier, message: Vec<u8>) {
    let notified = notifier.notify(message);
    run(RuntimeOptions::default(), |_| notified).expect("a runtime").expect("notify");
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory to work in")
}

#[test]
fn requests_are_served_by_either_driver() {
    for options in [RuntimeOptions::default(), polling()] {
        if !may_mount() {
            return;
        }
        let dir = dir();
        let served = Served::start(dir.path(), options);
        assert_eq!(fs::metadata(dir.path()).expect("stat").ino(), 1);
        let missing = fs::metadata(dir.path().join("other")).expect_err("no such file");
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let mut file = fs::File::options().write(true).open(dir.path().join("file")).expect("open");
        file.write_all(&bytes).expect("write");
        drop(file);
        assert!(*served.content.lock().expect("content") == bytes);
        assert!(fs::read(dir.path().join("file")).expect("read") == bytes);
        served.stop();
        assert_ne!(fs::metadata(dir.path()).expect("stat").ino(), 1);
    }
}

#[test]
fn another_shard_serves_a_handed_off_channel() {
    if !may_mount() {
        return;
    }
    let dir = dir();
    let place = dir.path().to_owned();
    let _watchdog = Watchdog::start(&place);
    let (looked, has_looked) = mpsc::channel();
    let content = Content::default();
    let user = |place: PathBuf| {
        move || {
            looked.send(fs::metadata(place).map(|metadata| metadata.ino())).expect("the test");
        }
    };
    run(RuntimeOptions::default(), |platform| async move {
        let (mount, channel) = mount_and_greet(&platform, &place, &content).await;
        let handoff = mount.handoff().expect("handoff");
        // The first channel serves nothing from here on; what comes is the other shard's.
        let shard = platform.start_shard("second", move |platform| {
            Box::pin(async move {
                let channel = handoff.adopt(&platform).expect("adopt");
                serve(&channel, &content).await;
            })
        });
        std::thread::spawn(user(place)).join().expect("a user");
        mount.unmount().await.expect("unmount");
        mount.unmount().await.expect("unmounting twice does no harm");
        shard.join();
        assert!(channel.receive(CAPACITY).await.expect("receive").is_none());
    })
    .expect("a runtime");
    assert_eq!(has_looked.recv().expect("a look").expect("stat"), 1);
}

#[test]
fn notifies_drop_what_the_kernel_caches() {
    if !may_mount() {
        return;
    }
    let dir = dir();
    let served = Served::start(dir.path(), RuntimeOptions::default());
    *served.content.lock().expect("content") = b"older".to_vec();
    let mut file = fs::File::open(dir.path().join("file")).expect("open");
    let mut read = || {
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).expect("seek");
        file.read_to_string(&mut text).expect("read");
        text
    };
    assert_eq!(read(), "older");
    *served.content.lock().expect("content") = b"newer".to_vec();
    assert_eq!(read(), "older");
    notify(&served.notifier, inval_inode(FILE));
    assert_eq!(read(), "newer");
    notify(&served.notifier, inval_inode(99));
    drop(file);
    let notifier = served.notifier.clone();
    served.stop();
    notify(&notifier, inval_inode(FILE));
}

#[test]
fn the_state_of_a_mount_is_told() {
    if !may_mount() {
        return;
    }
    let dir = dir();
    let place = dir.path().join("with space");
    fs::create_dir(&place).expect("mkdir");
    let mounted = |liveness| MountState::Ringfs { source: SOURCE.to_owned(), liveness };
    let _watchdog = Watchdog::start(&place);
    let served = Served::start(&place, RuntimeOptions::default());
    assert_eq!(mount_state(&place).expect("state"), mounted(Liveness::Alive));
    run(RuntimeOptions::default(), |platform| async move {
        let refusal = platform.mount_fuse(&request(&served.directory)).await;
        assert!(matches!(refusal, Err(FuseError::AlreadyMounted(_))), "{refusal:?}");
        served.stop();
        let state = mount_state(&place).expect("state");
        assert_eq!(state, MountState::NotMounted);

        // Mounted, greeted, and everything dropped.
        drop(mount_and_greet(&platform, &place, &Content::default()).await);
        // An attempt to use it waits until the kernel has noticed.
        assert!(fs::metadata(place.join("file")).is_err());
        assert_eq!(mount_state(&place).expect("state"), mounted(Liveness::Dead));
        let refusal = platform.mount_fuse(&request(&place)).await;
        assert!(matches!(refusal, Err(FuseError::Stale(_))), "{refusal:?}");
        unmount_path(&place).expect("unmount");
        assert_eq!(mount_state(&place).expect("state"), MountState::NotMounted);
    })
    .expect("a runtime");
}

#[test]
fn unusable_places_are_refused() {
    if !may_mount() {
        return;
    }
    let dir = dir();
    fs::write(dir.path().join("file"), "").expect("write");
    let place = dir.path().to_owned();
    run(RuntimeOptions::default(), |platform| async move {
        let missing = platform.mount_fuse(&request(&place.join("missing"))).await;
        assert!(matches!(missing, Err(FuseError::MountPointMissing(_))), "{missing:?}");
        let missing = platform.mount_fuse(&request(&place.join("missing/deep"))).await;
        assert!(matches!(missing, Err(FuseError::MountPointMissing(_))), "{missing:?}");
        let file = platform.mount_fuse(&request(&place.join("file"))).await;
        assert!(matches!(file, Err(FuseError::NotADirectory(_))), "{file:?}");
        let other = platform.mount_fuse(&request(Path::new("/proc"))).await;
        assert!(matches!(other, Err(FuseError::AlreadyMounted(_))), "{other:?}");
    })
    .expect("a runtime");
}

/// Serves until the first READ, then leaves that unanswered and sends a notify that has to wait
/// for its pages.
fn serve_until_stuck(directory: &Path) {
    let content = Arc::new(Mutex::new(vec![1; 4096]));
    run(RuntimeOptions::default(), |platform| async move {
        let (mount, channel) = mount_and_greet(&platform, directory, &content).await;
        println!("{SERVING}");
        while let Some(message) = channel.receive(CAPACITY).await.expect("receive") {
            if u32_at(&message, 4) == READ {
                let _ = mount.notifier().notify(inval_inode(FILE)).await;
            }
            serve_one(&channel, &message, &content).await;
        }
    })
    .expect("a runtime");
}

/// Whether the thread of `process` that writes notifies sleeps without being interruptible.
fn notify_waits(process: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("threads");
    threads.filter_map(Result::ok).any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.contains("(fuse-notify) D")
    })
}

#[test]
fn a_killed_process_lets_go_of_its_mount_while_a_notify_waits() {
    if let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) {
        return serve_until_stuck(Path::new(&directory));
    }
    if !may_mount() {
        return;
    }
    let dir = dir();
    let _watchdog = Watchdog::start(dir.path());
    let mut server = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "a_killed_process_lets_go_of_its_mount_while_a_notify_waits"])
        .arg("--nocapture")
        .env(DIRECTORY_VARIABLE, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a server");
    let lines = BufReader::new(server.stdout.take().expect("its output")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains(SERVING)), "it mounts");
    let file = dir.path().join("file");
    let reader = std::thread::spawn(move || fs::read(file));
    while !notify_waits(server.id()) && !reader.is_finished() {
        std::thread::yield_now();
    }
    server.kill().expect("kill");
    server.wait().expect("the server is gone");
    assert!(reader.join().expect("a reader").is_err());
    unmount_path(dir.path()).expect("unmount");
}
