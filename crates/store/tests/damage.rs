//! Files of a store that a workload has made, damaged in every way a disk may: the store opens
//! with metadata that the contract allows, or it refuses and names file and offset.
//!
//! Bytes of heads and chunks carry no checksum here; what is checked of them is that nothing fails
//! but by an error.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringfs_platform::{FileKind, OpenFlags, Platform, SimulationRng, Slice};
use ringfs_store::{Dentry, Record, State, Store, StoreError, StoreOptions};
use ringfs_wire::{
    Generation, HEAD_SIZE, InodeNumber, InodeType, Name, SessionId, Timestamp, VerifyCursor,
    XattrName,
};
use support::{DIRECTORY, World, file_record, options};

const SESSION: SessionId = SessionId(9);
const CHUNK: u32 = 16 << 10;
const GROUPS: u64 = 200;
/// Per store.
const CASES: u64 = 80;
/// Damage comes in pieces of this many bytes, where a disk swaps or loses whole blocks.
const BLOCK: usize = 512;
const MODE: u32 = 0o600;

type Files = BTreeMap<PathBuf, Content>;

/// Bytes up to the last that is not zero, and the size of the file.
#[derive(Clone)]
struct Content {
    bytes: Vec<u8>,
    size: u64,
}

/// A store as a workload left it.
struct Image {
    files: Files,
    /// The state after each group; a marker in it says which.
    history: Vec<State>,
    /// The last group that was durable when the store was last opened.
    opened: u64,
    /// The last group that was synced.
    synced: u64,
}

fn store_options() -> StoreOptions {
    let mut options = options();
    options.log_segment_bytes = 16 << 10;
    options.snapshot_after_bytes = u64::MAX;
    options
}

async fn open(platform: &Platform) -> Result<Store, StoreError> {
    Store::open(platform, DIRECTORY.as_ref(), store_options()).await
}

fn marker(group: u64) -> Record {
    Record::PutSlot { session: SESSION, slot: 0, sequence: group, reply: vec![1] }
}

fn found(state: &State) -> u64 {
    let slot = state.sessions.get(&SESSION).and_then(|session| session.slots.get(&0));
    slot.map_or(0, |slot| slot.sequence)
}

struct Workload {
    platform: Platform,
    random: SimulationRng,
    history: Vec<State>,
    opened: u64,
    synced: u64,
}

impl Workload {
    /// Changes, a snapshot and a restart now and then, and an end in order or not.
    async fn run(mut self, clean: bool) -> Self {
        let mut store = open(&self.platform).await.expect("created");
        self.history.push(store.state().clone());
        for group in 1..=GROUPS {
            self.step(&store, group).await;
            self.history.push(store.state().clone());
            match self.random.below(40) {
                0 => store.snapshot().await.expect("a snapshot"),
                1..=4 => {
                    store.synced(store.position()).await.expect("synced");
                    self.synced = group;
                }
                5 => {
                    store.close().await.expect("closed");
                    store = open(&self.platform).await.expect("opened");
                    self.opened = group;
                    self.synced = group;
                }
                _ => {}
            }
        }
        if clean {
            store.close().await.expect("closed");
            (self.opened, self.synced) = (GROUPS, GROUPS);
        } else {
            store.written(store.position()).await.expect("written");
        }
        self
    }

    async fn step(&mut self, store: &Store, group: u64) {
        let inode = InodeNumber(1000 + self.random.below(40));
        let name = Name::new(format!("file-{}", inode.0).as_bytes()).expect("a name");
        let cookie = 16 * inode.0;
        let exists = store.state().inodes.contains_key(&inode);
        let mut records = vec![marker(group)];
        match self.random.below(8) {
            0 if exists => {
                records.push(Record::DeleteInode { inode });
                records.push(Record::DeleteDentry { directory: InodeNumber::ROOT, cookie });
            }
            1..=3 if exists => return self.write_head(store, inode, records).await,
            4 if exists => {
                let data = Slice::from(&vec![7u8; 3000][..]);
                let at = u64::from(CHUNK) * (self.random.below(3) + 1024 * self.random.below(2));
                let written = store.write_chunk(inode, Generation(1), CHUNK, at, data).await;
                written.map(drop).expect("written");
            }
            5 if exists => {
                let value = vec![3; self.random.below(2000) as usize];
                let name = XattrName::new(b"user.some").expect("a name");
                records.push(Record::PutXattr { inode, name, value });
            }
            _ if !exists => {
                let (directory, kind) = (InodeNumber::ROOT, InodeType::File);
                records.push(Record::PutInode { inode: file_record(inode) });
                let dentry = Dentry { directory, cookie, name, inode, kind };
                records.push(Record::PutDentry { dentry });
            }
            _ => {}
        }
        let mut transaction = store.transaction();
        records.into_iter().for_each(|record| transaction.put(record));
        transaction.commit();
    }

    async fn write_head(&self, store: &Store, inode: InodeNumber, records: Vec<Record>) {
        let offset = self.random.below(9000);
        let len = 1 + self.random.below(5000);
        let data = Slice::from(&vec![5u8; len as usize][..]);
        let (end, now) = (offset + len, Timestamp { seconds: 5, nanos: 0 });
        let extra = |_: &_| records.clone();
        let written = store.write_head(inode, Generation(1), offset, data, end, 0, now, extra);
        written.await.map(drop).expect("written");
    }
}

async fn read_files(platform: &Platform, directory: &Path, files: &mut Files) {
    let disk = platform.disk();
    for item in disk.list(directory).await.expect("listed") {
        let path = directory.join(&item.name);
        if item.kind == FileKind::Directory {
            Box::pin(read_files(platform, &path, files)).await;
            continue;
        }
        let file = disk.open(&path, OpenFlags::READ, 0).await.expect("opened");
        let len = disk.stat_handle(&file).await.expect("there").size as usize;
        let buffer = ringfs_platform::Buffer::with_capacity(len);
        let (result, bytes) = disk.read(&file, 0, buffer, len).await;
        result.expect("read");
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        files.insert(path, Content { bytes: bytes[..used].to_vec(), size: len as u64 });
    }
}

async fn write_files(platform: &Platform, files: Files) {
    let disk = platform.disk();
    disk.mkdir(DIRECTORY.as_ref(), 0o700).await.expect("made");
    for (path, content) in files {
        let below = path.strip_prefix(DIRECTORY).expect("in the store");
        let parents: Vec<_> =
            below.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            // It may be there.
            let _ = disk.mkdir(&Path::new(DIRECTORY).join(parent), 0o700).await;
        }
        let file = disk.open(&path, OpenFlags::CREATE, MODE).await.expect("made");
        disk.write(&file, 0, content.bytes.into()).await.expect("written");
        disk.truncate(&file, content.size).await.expect("sized");
    }
}

fn make_image(seed: u64, clean: bool) -> Image {
    let world = World::new(seed);
    let random = world.simulation.random();
    let workload = world.run(|platform| {
        let workload = Workload { platform, random, history: Vec::new(), opened: 0, synced: 0 };
        workload.run(clean)
    });
    world.kill();
    let files = world.run(|platform| async move {
        let mut files = Files::new();
        read_files(&platform, DIRECTORY.as_ref(), &mut files).await;
        files
    });
    let Workload { history, opened, synced, .. } = workload;
    Image { files, history, opened, synced }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Flip,
    Truncate,
    Swap,
    Zero,
    Remove,
}

/// Damages one file; which, and how.
fn damage(files: &mut Files, random: &SimulationRng) -> (PathBuf, Damage) {
    let damages = [Damage::Flip, Damage::Truncate, Damage::Swap, Damage::Zero, Damage::Remove];
    let kind = damages[random.below(5) as usize];
    // Metadata is what can be told, so most damage goes there.
    let (metadata, others): (Vec<_>, Vec<_>) = files.keys().cloned().partition(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("log-") || name.starts_with("snapshot-")
    });
    let pool = if random.below(3) < 2 { metadata } else { others };
    let path = pool[random.below(pool.len() as u64) as usize].clone();
    // Nobody would miss the zeros behind.
    let Content { bytes, size } = files.get_mut(&path).expect("one of them");
    let at = random.below(bytes.len().max(1) as u64) as usize;
    let blocks = bytes.len().div_ceil(BLOCK).max(1) as u64;
    match kind {
        Damage::Flip => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        Damage::Truncate => {
            bytes.truncate(at);
            *size = at as u64;
        }
        Damage::Swap => {
            let (a, b) = (random.below(blocks) as usize, random.below(blocks) as usize);
            for index in 0..BLOCK.min(bytes.len().saturating_sub(a.max(b) * BLOCK)) {
                bytes.swap(a * BLOCK + index, b * BLOCK + index);
            }
        }
        Damage::Zero => {
            let end = (at + 1 + random.below(2 * BLOCK as u64) as usize).min(bytes.len());
            bytes[at.min(end)..end].fill(0);
        }
        Damage::Remove => {
            files.remove(&path);
        }
    }
    (path, kind)
}

/// Opens what is left, checks it, closes it and opens it once more.
async fn examine(platform: Platform, files: Files) -> Result<State, StoreError> {
    write_files(&platform, files).await;
    let store = open(&platform).await?;
    let state = store.state().clone();
    for inode in state.inodes.values() {
        // The bytes may be damaged, or the file they were in may have gone.
        let _ = store.read_head(inode, 0, HEAD_SIZE as usize).await;
        let _ = store.read_chunk(inode.attributes.inode, Generation(1), CHUNK, 0, 100).await;
    }
    let mut cursor = Some(VerifyCursor::default());
    while let Some(at) = cursor {
        cursor = store.verify(at).await.expect("verified").next;
    }
    store.close().await.expect("closed");
    let again = open(&platform).await.expect("what opened opens again");
    assert_eq!(*again.state(), state, "the same state twice");
    Ok(state)
}

/// Damages a store once and looks; whether it was refused.
fn check_case(image: &Image, clean: bool, seed: u64) -> bool {
    let world = World::new(seed);
    let mut files = image.files.clone();
    let (path, kind) = damage(&mut files, &world.simulation.random());
    println!("case {seed}");
    let case = format!("case {seed}: {kind:?} in {}, closed in order: {clean}", path.display());
    match world.run(|platform| examine(platform, files)) {
        Ok(state) => {
            let group = found(&state);
            assert_eq!(state, image.history[group as usize], "{case}");
            assert!(group >= image.opened, "{case}: {group} of {}", image.opened);
            // What cuts off the marks behind a batch looks like a crash.
            let keeps_marks = matches!(kind, Damage::Flip);
            assert!(!keeps_marks || group >= image.synced, "{case}: {group} of {}", image.synced);
            false
        }
        Err(StoreError::Damaged { file, .. }) => {
            assert!(file.starts_with(DIRECTORY), "{case}: {}", file.display());
            true
        }
        Err(StoreError::WrongStore { .. }) => {
            assert!(path.ends_with("format"), "{case}");
            true
        }
        Err(error) => panic!("{case}: {error}"),
    }
}

/// Damages a store in many ways, one at a time.
fn check(image_seed: u64, clean: bool) {
    let image = make_image(image_seed, clean);
    let first = image_seed * CASES;
    let refused = (first..first + CASES).filter(|case| check_case(&image, clean, *case)).count();
    println!("{refused} of {CASES} refused");
    let usual = CASES as usize / 10..CASES as usize * 9 / 10;
    assert!(usual.contains(&refused), "both ways out are taken: {refused}");
}

#[test]
fn damage_is_recovered_or_refused_after_an_orderly_end() {
    check(0, true);
}

#[test]
fn damage_is_recovered_or_refused_after_a_kill() {
    check(1, false);
}

#[test]
fn damage_is_recovered_or_refused_after_another_kill() {
    check(2, false);
}
