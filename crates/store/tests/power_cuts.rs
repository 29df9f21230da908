//! Random work, crashes at random moments, and what must be found afterwards: a prefix of the
//! committed groups that holds everything synced (after a kill: everything), and no byte of
//! another file anywhere.

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::{Outcome, SimulationRng, Slice};
use ringfs_store::{HeadSlot, RangeKind, Record, State, Store, StoreError, StoreOptions};
use ringfs_wire::{Generation, HEAD_SIZE, InodeNumber, SessionId, Timestamp, XattrName};
use support::{DIRECTORY, World, file_record, options};

const SESSION: SessionId = SessionId(9);
const CHUNK: u32 = 16 << 10;
const FILES_PER_WORKER: u64 = 4;
const WORKERS: u64 = 3;
const CRASHES: u32 = 4;

/// What the engine was told, in order. Group n is `groups[n - 1]`.
#[derive(Default)]
struct Journal {
    groups: Vec<Vec<Record>>,
    written: u64,
    synced: u64,
    /// Contents of heads by inode: after which group, and what.
    heads: BTreeMap<InodeNumber, Vec<(u64, Vec<u8>)>>,
    /// For each file changed in this life, the group of the last change, if it is committed.
    changed: BTreeMap<InodeNumber, Option<u64>>,
    version: u8,
    next_inode: u64,
}

type Shared = Rc<RefCell<Journal>>;

/// Bytes of a file carry the file in the high half, so that foreign ones are seen.
fn tag(inode: InodeNumber, version: u8) -> u8 {
    (((inode.0 % 15 + 1) as u8) << 4) | (version % 15 + 1)
}

impl Journal {
    fn marker(&self) -> Record {
        let sequence = self.groups.len() as u64 + 1;
        Record::PutSlot { session: SESSION, slot: 0, sequence, reply: vec![1] }
    }

    fn head_of(&self, inode: InodeNumber, group: u64) -> Option<&(u64, Vec<u8>)> {
        self.heads.get(&inode)?.iter().rev().find(|(at, _)| *at <= group)
    }
}

struct Worker {
    store: Store,
    journal: Shared,
    random: SimulationRng,
    files: Vec<InodeNumber>,
}

impl Worker {
    fn commit(&self, mut records: Vec<Record>) -> ringfs_store::LogPosition {
        let mut journal = self.journal.borrow_mut();
        records.push(journal.marker());
        let mut tx = self.store.transaction();
        records.iter().cloned().for_each(|record| tx.put(record));
        journal.groups.push(records);
        tx.commit()
    }

    async fn run(mut self) -> Result<(), StoreError> {
        loop {
            match self.random.below(20) {
                0..=3 => self.create(),
                4..=10 => self.write_head().await?,
                11 => self.truncate().await?,
                12 => self.remove(),
                13..=14 => self.write_chunk().await?,
                15 => {
                    self.store.allocate(RangeKind::Operation).await?;
                }
                16 if self.random.below(8) == 0 => self.store.snapshot().await?,
                17 => self.change_xattr(),
                _ => self.sync().await?,
            }
        }
    }

    fn create(&mut self) {
        if self.files.len() as u64 >= FILES_PER_WORKER {
            return;
        }
        let mut journal = self.journal.borrow_mut();
        journal.next_inode += 1;
        let inode = InodeNumber(1000 + journal.next_inode);
        let group = journal.groups.len() as u64 + 1;
        journal.heads.insert(inode, vec![(group, Vec::new())]);
        drop(journal);
        self.commit(vec![Record::PutInode { inode: file_record(inode) }]);
        self.files.push(inode);
    }

    fn pick(&self) -> Option<InodeNumber> {
        let index = self.random.below(self.files.len().max(1) as u64) as usize;
        self.files.get(index).copied()
    }

    /// Picks a file whose head is about to change.
    fn pick_to_change(&self) -> Option<InodeNumber> {
        let inode = self.pick()?;
        self.journal.borrow_mut().changed.insert(inode, None);
        Some(inode)
    }

    async fn write_head(&mut self) -> Result<(), StoreError> {
        let Some(inode) = self.pick_to_change() else { return Ok(()) };
        let bound = [4096, 16_384, HEAD_SIZE][self.random.below(3) as usize];
        let offset = self.random.below(bound - 1);
        let len = 1 + self.random.below((bound - offset).min(9000)) as usize;
        let version = {
            let mut journal = self.journal.borrow_mut();
            journal.version = journal.version.wrapping_add(1);
            journal.version
        };
        let data = vec![tag(inode, version); len];
        let journal = self.journal.clone();
        let mut committed = Vec::new();
        let end = offset + len as u64;
        let slice = Slice::from(&data[..]);
        let now = Timestamp { seconds: 5, nanos: 0 };
        let extra = |_: &_| {
            committed.push(journal.borrow().marker());
            committed.clone()
        };
        let store = self.store.clone();
        let written =
            store.write_head(inode, Generation(1), offset, slice, end, 0, now, extra).await?;
        // Nothing awaits between the commit and here, so this is still the last group.
        let record = (*self.store.state().inodes[&inode]).clone();
        let group = self.note_write(inode, record, committed, offset, &data);
        self.store.written(written.1).await?;
        let mut journal = self.journal.borrow_mut();
        journal.written = journal.written.max(group);
        Ok(())
    }

    /// Enters a committed write of a head; its group.
    fn note_write(
        &self,
        inode: InodeNumber,
        record: ringfs_store::Inode,
        mut group: Vec<Record>,
        offset: u64,
        data: &[u8],
    ) -> u64 {
        let end = offset as usize + data.len();
        let mut journal = self.journal.borrow_mut();
        let mut content = journal.heads[&inode].last().expect("created").1.clone();
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(data);
        group.insert(0, Record::PutInode { inode: record });
        journal.groups.push(group);
        let number = journal.groups.len() as u64;
        journal.heads.get_mut(&inode).expect("created").push((number, content));
        journal.changed.insert(inode, Some(number));
        number
    }

    async fn truncate(&mut self) -> Result<(), StoreError> {
        let Some(inode) = self.pick_to_change() else { return Ok(()) };
        let guard = self.store.lock_inode(inode).await;
        let mut record = (*self.store.state().inodes[&inode]).clone();
        let len = self.random.below(record.attributes.size + 100).min(HEAD_SIZE);
        record.head = self.store.shrink_head(&record, len).await?;
        record.attributes.size = len;
        self.commit(vec![Record::PutInode { inode: record }]);
        drop(guard);
        let mut journal = self.journal.borrow_mut();
        let group = journal.groups.len() as u64;
        let history = journal.heads.get_mut(&inode).expect("created");
        let mut content = history.last().expect("created").1.clone();
        content.resize(len as usize, 0);
        history.push((group, content));
        journal.changed.insert(inode, Some(group));
        Ok(())
    }

    fn remove(&mut self) {
        if self.files.is_empty() {
            return;
        }
        let inode = self.files.swap_remove(0);
        self.commit(vec![Record::DeleteInode { inode }]);
    }

    fn change_xattr(&mut self) {
        let Some(inode) = self.pick() else { return };
        let name = format!("user.{}", self.random.below(3));
        let name = XattrName::new(name.as_bytes()).expect("a valid name");
        let value = vec![tag(inode, 1); self.random.below(3000) as usize];
        self.commit(vec![match self.random.below(4) {
            0 => Record::DeleteXattr { inode, name },
            _ => Record::PutXattr { inode, name, value },
        }]);
    }

    async fn write_chunk(&mut self) -> Result<(), StoreError> {
        let Some(inode) = self.pick() else { return Ok(()) };
        let offset = self.random.below(u64::from(CHUNK) * 2000);
        let room = u64::from(CHUNK) - offset % u64::from(CHUNK);
        let data = vec![tag(inode, 1); 1 + self.random.below(room) as usize];
        let data = Slice::from(&data[..]);
        self.store.write_chunk(inode, Generation(1), CHUNK, offset, data).await.map(drop)
    }

    async fn sync(&mut self) -> Result<(), StoreError> {
        let groups = self.journal.borrow().groups.len() as u64;
        match self.random.below(3) {
            0 => self.store.sync_all().await?,
            _ => self.store.synced(self.store.position()).await?,
        }
        let mut journal = self.journal.borrow_mut();
        journal.synced = journal.synced.max(groups);
        Ok(())
    }
}

/// State that the journal gives, without what the engine logs for itself.
fn model(groups: &[Vec<Record>]) -> State {
    let mut state = State::default();
    groups.iter().flatten().for_each(|record| state.apply(record.clone()));
    state
}

async fn check(store: &Store, journal: &Shared, power: bool) {
    let (found, expected, least) = {
        let journal = journal.borrow();
        let state = store.state();
        let slots = state.sessions.get(&SESSION).and_then(|session| session.slots.get(&0));
        let found = slots.map_or(0, |slot| slot.sequence);
        let least = if power { journal.synced } else { journal.written };
        (found, model(&journal.groups[..found as usize]), least)
    };
    assert!(found >= least, "group {least} was promised, {found} is the last");
    {
        let state = store.state();
        let files = |state: &State| {
            let files = state.inodes.iter().filter(|(inode, _)| **inode != InodeNumber::ROOT);
            files.map(|(_, inode)| (**inode).clone()).collect::<Vec<_>>()
        };
        assert_eq!(files(&state), files(&expected), "a prefix of the groups");
        assert_eq!(state.xattrs, expected.xattrs, "a prefix of the groups");
        let slots: Vec<HeadSlot> = state.inodes.values().filter_map(|inode| inode.head).collect();
        let mut unique = slots.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(slots.len(), unique.len(), "two files share a slot");
    }
    let inodes: Vec<_> = expected.inodes.values().map(|inode| (**inode).clone()).collect();
    for inode in inodes {
        let number = inode.attributes.inode;
        let mut bytes =
            store.read_head(&inode, 0, HEAD_SIZE as usize).await.expect("read").to_vec();
        let size = inode.attributes.size as usize;
        assert!(bytes.iter().skip(size).all(|byte| *byte == 0), "zeros beyond the size");
        bytes.resize(size, 0);
        let own = |byte: &u8| *byte == 0 || *byte >> 4 == tag(number, 0) >> 4;
        assert!(bytes.iter().all(own), "bytes of another file in {number}");
        let journal = journal.borrow();
        let quiet = |last: &Option<u64>| last.is_some_and(|at| at <= least);
        if journal.changed.get(&number).is_none_or(quiet) {
            let (_, content) = journal.head_of(number, found).expect("created");
            assert_same(&bytes, content, number);
        }
        if let Some((_, durable)) = journal.head_of(number, least) {
            assert_stable(&journal, number, (durable, least), &bytes);
        }
    }
}

fn assert_same(found: &[u8], expected: &[u8], inode: InodeNumber) {
    assert_eq!(found.len(), expected.len(), "size of {inode}");
    let differs = (0..found.len()).find(|index| found[*index] != expected[*index]);
    if let Some(at) = differs {
        panic!("byte {at} of {inode} is {}, not {}", found[at], expected[at]);
    }
}

/// Bytes that no change after `least` touched are what they were then.
fn assert_stable(
    journal: &Journal,
    inode: InodeNumber,
    (durable, least): (&[u8], u64),
    bytes: &[u8],
) {
    if journal.changed.get(&inode) == Some(&None) {
        return;
    }
    let later: Vec<_> = journal.heads[&inode].iter().filter(|(at, _)| *at > least).collect();
    for (index, byte) in bytes.iter().enumerate().take(durable.len()) {
        let touched = later.iter().any(|(_, content)| content.get(index) != Some(&durable[index]));
        assert!(touched || *byte == durable[index], "byte {index} of {inode} was durable");
    }
}

fn run(seed: u64, adjust: fn(&mut StoreOptions)) {
    let world = World::new(seed);
    let journal = Shared::default();
    let random = world.simulation.random();
    let mut power = true;
    for _ in 0..=CRASHES {
        let (checked, platform) = (Rc::new(RefCell::new(false)), world.platform());
        let (done, shared) = (checked.clone(), journal.clone());
        let (task_platform, task_random) = (platform.clone(), world.simulation.random());
        platform.spawn(async move {
            let mut options = options();
            options.log_segment_bytes = 32 << 10;
            options.snapshot_after_bytes = 100 << 10;
            adjust(&mut options);
            let opened = Store::open(&task_platform, DIRECTORY.as_ref(), options).await;
            let store = opened.expect("recovered");
            check(&store, &shared, power).await;
            start(&task_platform, store, &shared, task_random).await;
            *done.borrow_mut() = true;
        });
        let outcome = world.simulation.run_until(|| *checked.borrow(), Duration::from_secs(60));
        assert_eq!(outcome, Outcome::Done, "seed {seed}");
        world.pass(Duration::from_micros(random.below(12_000)));
        power = random.below(3) > 0;
        if power { world.power_cut() } else { world.kill() }
    }
}

/// Forgets what was lost, and starts the workers on what was found.
async fn start(
    platform: &ringfs_platform::Platform,
    store: Store,
    journal: &Shared,
    random: SimulationRng,
) {
    let files: Vec<InodeNumber> =
        store.state().inodes.keys().copied().filter(|inode| *inode != InodeNumber::ROOT).collect();
    let mut heads = BTreeMap::new();
    for inode in &files {
        let record = (*store.state().inodes[inode]).clone();
        let mut bytes =
            store.read_head(&record, 0, HEAD_SIZE as usize).await.expect("read").to_vec();
        bytes.resize(record.attributes.size as usize, 0);
        heads.insert(*inode, vec![(0, bytes)]);
    }
    {
        let mut journal = journal.borrow_mut();
        let slots = store.state().sessions.get(&SESSION).map(|session| session.slots[&0].sequence);
        let found = slots.unwrap_or(0);
        journal.groups.truncate(found as usize);
        journal.heads = heads;
        journal.changed.clear();
        journal.written = found;
        journal.synced = found;
    }
    for worker in 0..WORKERS {
        let files = files.iter().copied().filter(|inode| inode.0 % WORKERS == worker).collect();
        let (store, journal, random) = (store.clone(), journal.clone(), random.clone());
        let worker = Worker { store, journal, random, files };
        platform.spawn(async move {
            worker.run().await.expect("no faults");
        });
    }
}

#[test]
fn recovery_finds_a_prefix_with_everything_promised() {
    let seeds = 0..40;
    for seed in seeds {
        println!("seed {seed}");
        run(seed, |_| {});
    }
}

/// The test itself is tested: an engine that does not sync its log is found out.
#[cfg(feature = "mutations")]
#[test]
fn a_log_that_is_not_synced_is_caught() {
    let caught = (0..40).any(|seed| {
        std::panic::catch_unwind(|| run(seed, |options| options.mutations.skip_log_sync = true))
            .is_err()
    });
    assert!(caught);
}
