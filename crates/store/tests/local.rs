//! The embedded file system against a reference model, on the simulated and on the real disk.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ringfs_platform::{Platform, RuntimeOptions, Slice};
use ringfs_store::{LocalFileSystem, LocalOptions, StoreError};
use ringfs_wire::{Errno, FilePermissions, InodeType};
use support::{DIRECTORY, World};

const PERMISSIONS: FilePermissions = FilePermissions { mode: 0o644, uid: 1, gid: 2 };
/// Small, so that files span chunks and, with 64 KiB heads, both kinds of storage.
const CHUNK: u32 = 16 << 10;
const NAMES: [&str; 3] = ["a", "b", "c"];
const DEPTH: usize = 3;
const OFFSET_MAX: u64 = 150_000;

#[derive(Clone, Debug)]
enum Operation {
    CreateFile(String),
    CreateDirectory(String),
    Unlink(String),
    RemoveDirectory(String),
    Rename(String, String),
    Write(String, u64, usize, u8),
    Truncate(String, u64),
    Reopen,
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&NAMES[..]), 1..=DEPTH)
        .prop_map(|names| format!("/{}", names.join("/")))
}

fn operation() -> impl Strategy<Value = Operation> {
    let len = prop_oneof![1..200usize, 1..60_000usize];
    prop_oneof![
        4 => path().prop_map(Operation::CreateFile),
        4 => path().prop_map(Operation::CreateDirectory),
        2 => path().prop_map(Operation::Unlink),
        2 => path().prop_map(Operation::RemoveDirectory),
        4 => (path(), path()).prop_map(|(from, to)| Operation::Rename(from, to)),
        6 => (path(), 0..OFFSET_MAX, len, 1..=255u8)
            .prop_map(|(path, offset, len, byte)| Operation::Write(path, offset, len, byte)),
        3 => (path(), 0..OFFSET_MAX).prop_map(|(path, size)| Operation::Truncate(path, size)),
        1 => Just(Operation::Reopen),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(Vec<u8>),
    Directory,
}

/// What a file system is: the tree by path; the root is the empty path.
struct Model(BTreeMap<String, Node>);

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Model {
    fn new() -> Self {
        Self(BTreeMap::from([(String::new(), Node::Directory)]))
    }

    /// Fails if the parent is missing, or a component on the way is a file.
    fn check_parent(&self, path: &str) -> Result<(), Errno> {
        let mut prefix = String::new();
        for name in parent(path).split('/').filter(|name| !name.is_empty()) {
            prefix = format!("{prefix}/{name}");
            match self.0.get(&prefix) {
                None => return Err(Errno::ENOENT),
                Some(Node::File(_)) => return Err(Errno::ENOTDIR),
                Some(Node::Directory) => {}
            }
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Result<&Node, Errno> {
        self.check_parent(path)?;
        self.0.get(path).ok_or(Errno::ENOENT)
    }

    fn is_empty(&self, path: &str) -> bool {
        !self.0.keys().any(|other| other.starts_with(&format!("{path}/")))
    }

    fn file(&mut self, path: &str) -> Result<&mut Vec<u8>, Errno> {
        self.get(path)?;
        match self.0.get_mut(path) {
            Some(Node::File(bytes)) => Ok(bytes),
            _ => Err(Errno::EISDIR),
        }
    }

    fn create(&mut self, path: &str, node: Node) -> Result<(), Errno> {
        match self.get(path) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {
                self.check_parent(path)?;
                self.0.insert(path.to_owned(), node);
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    fn remove_directory(&mut self, path: &str) -> Result<(), Errno> {
        match self.get(path)? {
            Node::File(_) => Err(Errno::ENOTDIR),
            Node::Directory if !self.is_empty(path) => Err(Errno::ENOTEMPTY),
            Node::Directory => {
                self.0.remove(path);
                Ok(())
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), Errno> {
        let source = self.get(from)?.clone();
        self.check_parent(to)?;
        if source == Node::Directory && to.starts_with(&format!("{from}/")) {
            return Err(Errno::EINVAL);
        }
        if from == to {
            return Ok(());
        }
        match (&source, self.0.get(to)) {
            (_, None) | (Node::File(_), Some(Node::File(_))) => {}
            (Node::Directory, Some(Node::File(_))) => return Err(Errno::ENOTDIR),
            (Node::File(_), Some(Node::Directory)) => return Err(Errno::EISDIR),
            (Node::Directory, Some(Node::Directory)) if self.is_empty(to) => {}
            _ => return Err(Errno::ENOTEMPTY),
        }
        let below = format!("{from}/");
        let moved: Vec<String> = self
            .0
            .keys()
            .filter(|path| *path == from || path.starts_with(&below))
            .cloned()
            .collect();
        for path in moved {
            let node = self.0.remove(&path).expect("listed");
            self.0.insert(format!("{to}{}", &path[from.len()..]), node);
        }
        Ok(())
    }

    fn apply(&mut self, operation: &Operation) -> Result<(), Errno> {
        match operation {
            Operation::CreateFile(path) => self.create(path, Node::File(Vec::new())),
            Operation::CreateDirectory(path) => self.create(path, Node::Directory),
            Operation::Unlink(path) => {
                self.file(path)?;
                self.0.remove(path);
                Ok(())
            }
            Operation::RemoveDirectory(path) => self.remove_directory(path),
            Operation::Rename(from, to) => self.rename(from, to),
            Operation::Write(path, offset, len, byte) => {
                let (bytes, end) = (self.file(path)?, *offset as usize + len);
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset as usize..end].fill(*byte);
                Ok(())
            }
            Operation::Truncate(path, size) => {
                self.file(path)?.resize(*size as usize, 0);
                Ok(())
            }
            Operation::Reopen => Ok(()),
        }
    }
}

async fn open(platform: &Platform, directory: &Path) -> LocalFileSystem {
    let options = LocalOptions { chunk_size: CHUNK, cached_paths: 4, ..LocalOptions::default() };
    LocalFileSystem::open(platform, directory, options).await.expect("opened")
}

async fn apply(system: &LocalFileSystem, operation: &Operation) -> Result<(), Errno> {
    let done = match operation {
        Operation::CreateFile(path) => system.create_file(path, PERMISSIONS).await.map(drop),
        Operation::CreateDirectory(path) => {
            system.create_directory(path, PERMISSIONS).await.map(drop)
        }
        Operation::Unlink(path) => system.unlink_file(path).await,
        Operation::RemoveDirectory(path) => system.remove_directory(path).await,
        Operation::Rename(from, to) => system.rename(from, to).await,
        Operation::Write(path, offset, len, byte) => match system.open_file(path) {
            Ok(file) => file.write(*offset, Slice::from(vec![*byte; *len])).await,
            Err(error) => Err(error),
        },
        Operation::Truncate(path, size) => match system.open_file(path) {
            Ok(file) => file.truncate(*size).await,
            Err(error) => Err(error),
        },
        Operation::Reopen => Ok(()),
    };
    done.map_err(|error| match error {
        StoreError::Refused(errno) => errno,
        other => panic!("{operation:?}: {other}"),
    })
}

/// Compares everything there is.
async fn compare(system: &LocalFileSystem, model: &Model) {
    for (path, node) in &model.0 {
        let shown = if path.is_empty() { "/" } else { path };
        match node {
            Node::Directory => {
                let listed = system.list_directory(shown).expect("a directory");
                let names: Vec<String> =
                    listed.iter().map(|entry| format!("{path}/{}", entry.name)).collect();
                let children = model.0.keys().filter(|other| !other.is_empty());
                let expected: Vec<&String> =
                    children.filter(|other| parent(other) == path).collect();
                assert_eq!(names.iter().collect::<Vec<_>>(), expected, "names in {shown}");
                let directories =
                    listed.iter().filter(|entry| entry.kind == InodeType::Directory).count();
                let stat = system.stat(shown).expect("stat");
                assert_eq!(stat.links as usize, 2 + directories, "links of {shown}");
                assert_eq!(stat.size as usize, listed.len(), "size of {shown}");
            }
            Node::File(bytes) => {
                let metadata = system.file_metadata(shown).expect("a file");
                assert_eq!(metadata.size as usize, bytes.len(), "size of {shown}");
                assert_eq!(metadata.chunk_locations.len() as u64, metadata.chunk_count);
                let file = system.open_file(shown).expect("opened");
                let read = file.read(0, OFFSET_MAX as usize * 2).await.expect("read");
                let differs = read.iter().zip(bytes).position(|(found, wanted)| found != wanted);
                assert_eq!((read.len(), differs), (bytes.len(), None), "content of {shown}");
            }
        }
    }
}

async fn run(platform: Platform, directory: PathBuf, operations: Vec<Operation>) {
    let mut system = open(&platform, &directory).await;
    let mut model = Model::new();
    for operation in &operations {
        if matches!(operation, Operation::Reopen) {
            system.close().await.expect("closed");
            system = reopen(&platform, &directory).await;
            compare(&system, &model).await;
        }
        let (found, expected) = (apply(&system, operation).await, model.apply(operation));
        assert_eq!(found, expected, "{operation:?}");
    }
    compare(&system, &model).await;
    system.close().await.expect("closed");
}

/// The tasks of a closed store end soon, and with them its lock.
async fn reopen(platform: &Platform, directory: &Path) -> LocalFileSystem {
    let options = LocalOptions { chunk_size: CHUNK, cached_paths: 4, ..LocalOptions::default() };
    loop {
        match LocalFileSystem::open(platform, directory, options).await {
            Err(StoreError::Locked(_)) => platform.sleep(std::time::Duration::from_millis(1)).await,
            opened => return opened.expect("opened again"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model_on_the_simulated_disk(
        seed in any::<u64>(),
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        World::new(seed).run(|platform| run(platform, DIRECTORY.into(), operations));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model_on_the_real_disk(
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store");
        ringfs_platform::run(RuntimeOptions::default(), |platform| run(platform, path, operations))
            .expect("a runtime");
    }
}

/// One life of the process: what was there, then `operations`, then perhaps a sync.
async fn life(
    platform: Platform,
    mut model: Model,
    operations: Vec<Operation>,
    sync: bool,
) -> Model {
    let system = open(&platform, DIRECTORY.as_ref()).await;
    compare(&system, &model).await;
    for operation in &operations {
        let (found, expected) = (apply(&system, operation).await, model.apply(operation));
        assert_eq!(found, expected, "{operation:?}");
    }
    if sync {
        system.sync().await.expect("synced");
    }
    platform.spawn(async move {
        let _held = system;
        std::future::pending::<()>().await;
    });
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn kills_and_synced_power_cuts_lose_nothing(
        seed in any::<u64>(),
        lives in prop::collection::vec(
            (prop::collection::vec(operation(), 1..25), any::<bool>()),
            1..5,
        ),
    ) {
        let world = World::new(seed);
        let mut model = Model::new();
        for (operations, power) in lives {
            model = world.run(|platform| life(platform, model, operations, power));
            if power { world.power_cut() } else { world.kill() }
        }
        world.run(|platform| life(platform, model, Vec::new(), false));
    }
}

#[test]
fn a_kill_loses_nothing_that_returned() {
    for seed in 0..20 {
        let world = World::new(seed);
        world.run(|platform| async move {
            let system = open(&platform, DIRECTORY.as_ref()).await;
            system.create_directory("/a", PERMISSIONS).await.expect("created");
            let file = system.create_file("/a/b", PERMISSIONS).await.expect("created");
            file.write(60_000, Slice::from(vec![5; 50_000])).await.expect("written");
            system.rename("/a/b", "/c").await.expect("renamed");
            let gone = system.create_file("/gone", PERMISSIONS).await.expect("created");
            gone.write(100_000, Slice::from(vec![6; 10])).await.expect("written");
            system.unlink_file("/gone").await.expect("unlinked");
            assert_eq!(gone.read(100_000, 10).await.expect("still open").len(), 10);
            // A killed process closes nothing in order.
            platform.spawn(async move {
                let _held = (file, gone, system);
                std::future::pending::<()>().await;
            });
        });
        world.kill();
        world.run(|platform| async move {
            let system = open(&platform, DIRECTORY.as_ref()).await;
            assert!(system.list_directory("/a").expect("listed").is_empty());
            let file = system.open_file("/c").expect("opened");
            let bytes = file.read(0, 200_000).await.expect("read");
            assert_eq!(bytes.len(), 110_000);
            assert!(bytes[..60_000].iter().all(|byte| *byte == 0));
            assert!(bytes[60_000..].iter().all(|byte| *byte == 5));
            drop(file);
            system.unlink_file("/c").await.expect("unlinked");
            platform.sleep(std::time::Duration::from_secs(30)).await;
            system.sync().await.expect("synced");
            let mut left = Vec::new();
            for item in platform.disk().list("/store/segments".as_ref()).await.expect("listed") {
                let shard = Path::new("/store/segments").join(item.name);
                left.extend(platform.disk().list(&shard).await.expect("listed"));
            }
            assert!(left.is_empty(), "chunks of removed files are gone: {left:?}");
        });
    }
}

#[test]
fn paths_are_checked() {
    World::new(1).run(|platform| async move {
        let system = open(&platform, DIRECTORY.as_ref()).await;
        let refused = |result: Result<_, StoreError>| match result {
            Err(StoreError::Refused(errno)) => errno,
            other => panic!("{:?}", other.map(|_: ringfs_wire::Attributes| ())),
        };
        assert_eq!(refused(system.stat("relative")), Errno::EINVAL);
        assert_eq!(refused(system.stat("/a/../b")), Errno::EINVAL);
        assert_eq!(refused(system.stat("/none")), Errno::ENOENT);
        assert_eq!(system.stat("/").expect("the root").inode, ringfs_wire::InodeNumber::ROOT);
        system.create_directory("/a", PERMISSIONS).await.expect("created");
        assert_eq!(system.stat("//a/").expect("slashes").kind, InodeType::Directory);
        assert_eq!(system.rename("/", "/b").await, Err(Errno::EBUSY.into()));
        assert_eq!(system.remove_directory("/").await, Err(Errno::EBUSY.into()));
    });
}
