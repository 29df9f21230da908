//! A client of the suite: a process that runs each part when it is told to, one operation at a
//! time, and checks every byte that it reads.
//!
//! Files are used by the client after the one that made them, so that nothing is found in a cache
//! of its maker. Deliberately absent: when to begin and when to end, which the parent decides for
//! all clients.

mod single;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ringfs_platform::{RuntimeOptions, Slice};
use serde::{Deserialize, Serialize};

use super::content::{Content, mix, shuffle};
use super::door::{Access, ClusterDoor, DirectoryDoor, Door, Walked};
use super::part::{Part, SMALL_FILE};
use crate::cluster::Cluster;
use crate::error::{BenchError, Context};
use crate::process::{Parent, Phase};
use crate::timing::{Measure, Recorder};
use single::LEASED;
pub(super) use single::LEASED_BYTES;

/// A step of the suite, told to all clients at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make the directories and shared files of a round; for one client.
    Make {
        /// Which round.
        round: u32,
    },
    /// Work in this round's directories from now on.
    Enter {
        /// Which round.
        round: u32,
    },
    /// Make and look at files of one's own for a part.
    Prepare {
        /// Which part.
        part: Part,
    },
    /// Begin a part, and end it after this time or this many operations.
    Begin {
        /// Which part.
        part: Part,
        /// The longest time.
        milliseconds: u64,
        /// The most operations.
        count: u64,
    },
    /// Go on with the part that was begun until it has this many operations.
    GoOn {
        /// The part.
        part: Part,
        /// How many in all.
        count: u64,
    },
    /// Sync and close the files of the part that was begun.
    Sync,
    /// Drop from the caches of this machine what a part is going to read.
    Forget {
        /// Which part.
        part: Part,
        /// How many operations it has.
        count: u64,
    },
    /// Close them.
    Close,
    /// Flip one bit of a file of ior-easy, to see that reading notices; for one client.
    Damage,
    /// Remove the directories of a round; for one client.
    Clean {
        /// Which round.
        round: u32,
    },
}

/// Where the files of the suite are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Site {
    /// In this directory of a cluster.
    Cluster(Cluster, String),
    /// In this directory, which shows the cluster if there is one.
    Directory(PathBuf, Option<Cluster>),
}

/// A client of the suite.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SuiteClient {
    pub(crate) site: Site,
    /// Its number, below `clients`.
    pub(crate) number: u32,
    pub(crate) clients: u32,
    /// Of the contents of files.
    pub(crate) seed: u64,
    /// Transfers of rnd4K that a client has room for; a power of two.
    pub(crate) random_transfers: u64,
}

/// What a removed round may leave in use, and how long its space may take to come back.
const REST_BYTES_MAX: u64 = 4 << 20;
const CLEAN_DEADLINE: Duration = Duration::from_secs(20);
const CLEAN_PAUSE: Duration = Duration::from_millis(20);
/// Where so little of it comes back in so long a time, nothing more will: others use the place as
/// well, and servers keep what they have set aside for later. Longer than anybody goes by an old
/// answer about space, and than servers wait with syncing what a removal frees.
const STEP_BYTES_MIN: u64 = 1 << 20;
const STEP_DEADLINE: Duration = Duration::from_secs(3);
/// Names that are tried until a directory lies where it should.
const DIRECTORY_ATTEMPTS: u32 = 1_000;
/// Leads through all that was written in an order that no cache foresees; a prime.
const STRIDE: u64 = 2_654_435_761;

/// Names of the directories of a round.
const EASY: &str = "ior-easy";
const HARD: &str = "ior-hard";
const RANDOM: &str = "ior-rnd4K";
const MANY: &str = "mdtest-easy";
const SMALL: &str = "mdtest-hard";
const SYNCED: &str = "write4K-fsync";
const DIRECTORIES: [&str; 6] = [EASY, HARD, RANDOM, MANY, SMALL, SYNCED];
/// The name of a file that all clients share.
const SHARED: &str = "file";

/// Entries of a round's directories when every client has made so many files (`own` of those of
/// ior-easy and of syncs, and small ones), and those of them that a walk looks for.
pub(crate) fn expected(clients: u32, own: u64, easy: u64, hard: u64) -> Walked {
    let directories = DIRECTORIES.len() as u64;
    let each = u64::from(clients);
    // And a directory per client, and two shared files.
    let entries = directories + each * (own + easy + hard + 1) + 2;
    let names = (0..clients).flat_map(|who| (0..hard).map(move |index| small_name(who, index)));
    let matches = names.filter(|name| super::door::is_wanted(name.as_bytes())).count() as u64;
    Walked { entries, matches }
}

fn round_name(round: u32) -> String {
    format!("round-{round}")
}

fn small_name(who: u32, index: u64) -> String {
    format!("file.mdtest.{who}.{index}")
}

fn own_name(who: u32) -> String {
    format!("file.{who}")
}

impl SuiteClient {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        match &self.site {
            Site::Cluster(cluster, path) => cluster.run_client(async |client| {
                let door = ClusterDoor::open(client, path, cluster).await?;
                Worker::new(&self, door).serve(parent).await
            }),
            Site::Directory(path, cluster) => {
                let door = DirectoryDoor::new(path, cluster.clone());
                let serve = Worker::new(&self, door);
                let run = ringfs_platform::run(RuntimeOptions::default(), |_| serve.serve(parent));
                run.context("start a runtime")?
            }
        }
    }
}

/// The directories of a round.
struct Tree<P> {
    all: Vec<P>,
    easy: P,
    hard: P,
    random: P,
    /// Of mdtest-easy: of each client.
    many: Vec<P>,
    small: P,
    synced: P,
}

/// Where one operation reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    file: u64,
    offset: u64,
    len: usize,
}

struct Worker<'a, D: Door> {
    task: &'a SuiteClient,
    door: D,
    content: Content,
    tree: Option<Tree<D::Place>>,
    /// Of the part that was begun.
    open: Option<D::File>,
    done: u64,
    /// Operations that the part has at most: for reads, all that was written.
    count: u64,
    /// Bytes in use before the round.
    used_before: Option<u64>,
}

impl<'a, D: Door> Worker<'a, D> {
    fn new(task: &'a SuiteClient, door: D) -> Self {
        let content = Content::new(task.seed);
        let (tree, open, used_before) = (None, None, None);
        Self { task, door, content, tree, open, done: 0, count: 0, used_before }
    }

    async fn serve(mut self, parent: &Parent) -> Result<(), BenchError> {
        parent.ready(Vec::new())?;
        while let Some(phase) = parent.next().await {
            let Phase::Suite(order) = phase else {
                return Err(BenchError::Unexpected(format!("{phase:?} out of order")));
            };
            let measure = self.obey(order).await?;
            parent.done(measure)?;
        }
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<Measure, BenchError> {
        let mut measure = Measure::default();
        match order {
            Order::Make { round } => self.make(round).await?,
            Order::Enter { round } => self.enter(round).await?,
            Order::Prepare { part } => self.prepare(part).await?,
            Order::Begin { part: Part::Find, .. } => measure = self.walk().await?,
            Order::Begin { part, milliseconds, count } => {
                (self.done, self.count) = (0, count);
                measure = self.begin(part, Duration::from_millis(milliseconds)).await?;
            }
            Order::GoOn { part, count } => {
                self.count = count;
                let mut recorder = Recorder::new();
                self.repeat(part, None, &mut recorder).await?;
                measure = recorder.finish();
            }
            Order::Sync => {
                let mut recorder = Recorder::new();
                if let Some(file) = self.open.take() {
                    self.door.sync(&file).await?;
                    self.door.close(file).await?;
                }
                recorder.note(1, recorder.begin.elapsed());
                measure = recorder.finish();
            }
            Order::Forget { part, count } => self.forget(part, count).await?,
            Order::Close => {
                if let Some(file) = self.open.take() {
                    self.door.close(file).await?;
                }
            }
            Order::Damage => self.damage().await?,
            Order::Clean { round } => self.clean(round).await?,
        }
        Ok(measure)
    }

    async fn make(&mut self, round: u32) -> Result<(), BenchError> {
        self.used_before = self.door.used().await?;
        let root = self.door.root();
        let round = self.door.make_directory(&root, &round_name(round)).await?;
        for name in DIRECTORIES {
            let made = self.door.make_directory(&round, name).await?;
            match name {
                HARD | RANDOM => {
                    let file = self.door.create(&made, SHARED).await?;
                    self.door.close(file).await?;
                }
                MANY => {
                    for who in 0..self.task.clients {
                        self.make_spread(&made, who).await?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the directory of a client where its turn among the targets is, so that all of them
    /// have the same share.
    async fn make_spread(&self, at: &D::Place, who: u32) -> Result<(), BenchError> {
        if !self.door.has_targets() {
            return self.door.make_directory(at, &who.to_string()).await.map(drop);
        }
        for attempt in 0..DIRECTORY_ATTEMPTS {
            let name = format!("{who}.{attempt}");
            let made = self.door.make_directory(at, &name).await?;
            if self.door.is_at_turn(&made, who).await? {
                return self.door.rename_directory(at, &name, &who.to_string()).await;
            }
            self.door.remove_directory(at, &name).await?;
        }
        Err(BenchError::Unexpected(format!("no directory lies where that of client {who} should")))
    }

    async fn enter(&mut self, round: u32) -> Result<(), BenchError> {
        let round = self.door.enter(&self.door.root(), &round_name(round)).await?;
        let door = &self.door;
        let enter = async |name| door.enter(&round, name).await;
        let parent = enter(MANY).await?;
        let mut many = Vec::new();
        for who in 0..self.task.clients {
            many.push(door.enter(&parent, &who.to_string()).await?);
        }
        let (easy, hard, random) = (enter(EASY).await?, enter(HARD).await?, enter(RANDOM).await?);
        let (small, synced) = (enter(SMALL).await?, enter(SYNCED).await?);
        // The large ones first, so that clients share them evenly.
        let mut all = vec![small.clone()];
        all.extend(many.iter().cloned());
        all.extend([&easy, &hard, &random, &parent, &synced, &round].map(D::Place::clone));
        self.tree = Some(Tree { all, easy, hard, random, many, small, synced });
        Ok(())
    }

    fn tree(&self) -> Result<&Tree<D::Place>, BenchError> {
        let missing = || BenchError::Unexpected("a part before its round".to_owned());
        self.tree.as_ref().ok_or_else(missing)
    }

    /// Whose files this client uses in parts that do not make their own.
    fn neighbour(&self) -> u32 {
        (self.task.number + 1) % self.task.clients
    }

    /// Begins a part, and runs it until its count is reached or the time is over.
    async fn begin(&mut self, part: Part, limit: Duration) -> Result<Measure, BenchError> {
        let mut recorder = Recorder::new();
        self.open = self.open_for(part).await?;
        self.repeat(part, Some(limit), &mut recorder).await?;
        Ok(recorder.finish())
    }

    /// Goes on with a part; a limit of time leaves room for one operation at least.
    async fn repeat(
        &mut self,
        part: Part,
        limit: Option<Duration>,
        recorder: &mut Recorder,
    ) -> Result<(), BenchError> {
        let mut last = Instant::now();
        let begin = recorder.begin;
        let is_over = |last: Instant| limit.is_some_and(|limit| last - begin >= limit);
        while self.done < self.count && (self.done == 0 || !is_over(last)) {
            self.step(part, self.done).await?;
            self.done += 1;
            let now = Instant::now();
            recorder.note(1, now - last);
            last = now;
        }
        Ok(())
    }

    async fn forget(&self, part: Part, count: u64) -> Result<(), BenchError> {
        let tree = self.tree()?;
        if let Some(file) = self.open_for(part).await? {
            self.door.forget(&file).await?;
            self.door.close(file).await?;
        } else if part == Part::MdtestHardRead {
            for index in 0..count {
                let name = small_name(self.neighbour(), index);
                let file = self.door.open(&tree.small, &name, Access::Read).await?;
                self.door.forget(&file).await?;
                self.door.close(file).await?;
            }
        }
        Ok(())
    }

    /// The file that all operations of a part use, if there is one.
    async fn open_for(&self, part: Part) -> Result<Option<D::File>, BenchError> {
        let (tree, number) = (self.tree()?, self.task.number);
        let door = &self.door;
        let shared = async |at, access| door.open(at, SHARED, access).await;
        let neighbours =
            async |access| door.open(&tree.easy, &own_name(self.neighbour()), access).await;
        Ok(Some(match part {
            Part::IorEasyWrite => door.create(&tree.easy, &own_name(number)).await?,
            Part::IorEasyRead => neighbours(Access::Read).await?,
            Part::DirectRead1M => neighbours(Access::ReadDirect).await?,
            Part::IorHardWrite => shared(&tree.hard, Access::Write).await?,
            Part::IorHardRead => shared(&tree.hard, Access::Read).await?,
            Part::RandomWrite => shared(&tree.random, Access::Write).await?,
            Part::RandomRead => shared(&tree.random, Access::Read).await?,
            Part::DirectRead4K => shared(&tree.random, Access::ReadDirect).await?,
            Part::LeaseRead4K | Part::LeaseRead1M => {
                door.open(&tree.many[number as usize], LEASED, Access::Read).await?
            }
            Part::SyncEach => door.create(&tree.synced, &own_name(number)).await?,
            _ => return Ok(None),
        }))
    }

    /// One operation of a part.
    async fn step(&mut self, part: Part, index: u64) -> Result<(), BenchError> {
        let (number, neighbour) = (self.task.number, self.neighbour());
        match part {
            Part::IorEasyWrite | Part::IorHardWrite | Part::RandomWrite | Part::SyncEach => {
                let extent = self.extent(part, number, index);
                let data = self.content.make(extent.file, extent.offset, extent.len);
                let file = opened(&self.open)?;
                self.door.write(file, extent.offset, data).await?;
                if part == Part::SyncEach {
                    self.door.sync(file).await?;
                }
            }
            Part::IorEasyRead | Part::DirectRead1M => {
                self.read(Part::IorEasyWrite, neighbour, index).await?;
            }
            Part::IorHardRead => self.read(Part::IorHardWrite, neighbour, index).await?,
            Part::RandomRead | Part::DirectRead4K => {
                let index = index.wrapping_mul(STRIDE) % self.count;
                self.read(Part::RandomWrite, neighbour, index).await?;
            }
            Part::MdtestEasyWrite => {
                let at = &self.tree()?.many[number as usize];
                let file = self.door.create(at, &small_name(number, index)).await?;
                self.door.close(file).await?;
            }
            Part::MdtestHardWrite => self.write_small(index).await?,
            Part::MdtestHardRead => self.read_small(index).await?,
            Part::MdtestEasyStat | Part::MdtestHardStat => {
                let name = small_name(neighbour, index);
                let (at, wanted) = self.small_place(part)?;
                let size = self.door.size(at, &name).await?;
                if size != wanted {
                    let text = format!("{name} has {size} bytes, not {wanted}");
                    return Err(BenchError::Wrong(text));
                }
            }
            Part::MdtestEasyDelete | Part::MdtestHardDelete => {
                let (at, _) = self.small_place(part)?;
                self.door.remove(at, &small_name(neighbour, index)).await?;
            }
            Part::Find => return Err(BenchError::Unexpected("a step of a walk".to_owned())),
            _ => self.single_step(part, index).await?,
        }
        Ok(())
    }

    /// Where the small files of the neighbour lie that a part uses, and their size.
    fn small_place(&self, part: Part) -> Result<(&D::Place, u64), BenchError> {
        let tree = self.tree()?;
        Ok(match part.made_by() {
            Some(Part::MdtestEasyWrite) => (&tree.many[self.neighbour() as usize], 0),
            _ => (&tree.small, SMALL_FILE),
        })
    }

    /// What an operation of a writing part writes.
    fn extent(&self, part: Part, who: u32, index: u64) -> Extent {
        let (task, bytes) = (self.task, part.bytes());
        let (who, clients) = (u64::from(who), u64::from(task.clients));
        let (kind, offset) = match part {
            // Clients take turns in one file.
            Part::IorHardWrite => (2 << 32, (index * clients + who) * bytes),
            // Each has a region of one file.
            Part::RandomWrite => {
                let place = shuffle(index, task.random_transfers, task.seed ^ who);
                (3 << 32, (who * task.random_transfers + place) * bytes)
            }
            Part::SyncEach => ((4 << 32) | who, index * bytes),
            _ => ((1 << 32) | who, index * bytes),
        };
        Extent { file: kind, offset, len: bytes as usize }
    }

    async fn read(&mut self, maker: Part, who: u32, index: u64) -> Result<(), BenchError> {
        let extent = self.extent(maker, who, index);
        let file = opened(&self.open)?;
        let read = self.door.read(file, extent.offset, extent.len).await?;
        self.check(extent, &read, || match maker {
            Part::IorEasyWrite => format!("{EASY}/{}", own_name(who)),
            Part::IorHardWrite => format!("{HARD}/{SHARED}"),
            _ => format!("{RANDOM}/{SHARED}"),
        })
    }

    fn check(
        &mut self,
        extent: Extent,
        read: &[Slice],
        name: impl FnOnce() -> String,
    ) -> Result<(), BenchError> {
        let checked = self.content.check(extent.file, extent.offset, extent.len, read);
        checked.map_err(|offset| {
            let name = name();
            BenchError::Wrong(format!("{name}: the byte at {offset} is not what was written"))
        })
    }

    fn small_extent(who: u32, index: u64) -> Extent {
        let file = mix((5 << 32) | u64::from(who)) ^ index;
        Extent { file, offset: 0, len: SMALL_FILE as usize }
    }

    async fn write_small(&mut self, index: u64) -> Result<(), BenchError> {
        let number = self.task.number;
        let extent = Self::small_extent(number, index);
        let data = self.content.make(extent.file, 0, extent.len);
        self.door.write_whole(&self.tree()?.small, &small_name(number, index), data).await
    }

    async fn read_small(&mut self, index: u64) -> Result<(), BenchError> {
        let who = self.neighbour();
        let (extent, name) = (Self::small_extent(who, index), small_name(who, index));
        let read = self.door.read_whole(&self.tree()?.small, &name, extent.len).await?;
        self.check(extent, &read, || format!("{SMALL}/{name}"))
    }

    /// Goes through this client's share of the directories.
    async fn walk(&self) -> Result<Measure, BenchError> {
        let mut recorder = Recorder::new();
        let mut matches = 0;
        let mine = self.tree()?.all.iter().skip(self.task.number as usize);
        for place in mine.step_by(self.task.clients as usize) {
            let begin = Instant::now();
            let walked = self.door.walk(place).await?;
            recorder.note(walked.entries, begin.elapsed());
            matches += walked.matches;
        }
        Ok(Measure { matches, ..recorder.finish() })
    }

    async fn damage(&mut self) -> Result<(), BenchError> {
        let name = own_name(self.task.number);
        let file = self.door.open(&self.tree()?.easy, &name, Access::Write).await?;
        let read = self.door.read(&file, 1, 1).await?;
        let byte = read.first().and_then(|slice| slice.first()).copied().unwrap_or(0);
        self.door.write(&file, 1, Slice::from(vec![byte ^ 1])).await?;
        self.door.close(file).await
    }

    /// Removes a round and waits until its space has come back, or no more of it does.
    async fn clean(&mut self, round: u32) -> Result<(), BenchError> {
        self.tree = None;
        self.door.remove_tree(&round_name(round)).await?;
        let Some(before) = self.used_before else { return Ok(()) };
        let begin = Instant::now();
        let (mut least, mut stepped) = (u64::MAX, begin);
        while begin.elapsed() < CLEAN_DEADLINE && stepped.elapsed() < STEP_DEADLINE {
            match self.door.used().await? {
                Some(used) if used > before + REST_BYTES_MAX => {
                    if used < least.saturating_sub(STEP_BYTES_MIN) {
                        (least, stepped) = (used, Instant::now());
                    }
                }
                _ => break,
            }
            // Nothing tells when the space has come back.
            std::thread::sleep(CLEAN_PAUSE);
        }
        Ok(())
    }
}

fn opened<F>(open: &Option<F>) -> Result<&F, BenchError> {
    open.as_ref().ok_or_else(|| BenchError::Unexpected("no file is open".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_walk_finds_is_known_before() {
        let walked = expected(2, 2, 10, 12);
        assert_eq!(walked.entries, 6 + 2 + 2 * (1 + 1 + 1 + 10 + 12));
        // file.mdtest.0.1 and its like contain "01" nowhere.
        assert_eq!(walked.matches, 0);
        assert_eq!(expected(1, 0, 0, 102).matches, 1, "file.mdtest.0.101");
    }
}
