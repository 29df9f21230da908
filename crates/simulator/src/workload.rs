//! What clients of a run do and what goes wrong, drawn from the seed.
//!
//! Each seed draws its own mix (swarm testing): which operations and faults exist and how often.
//! Concurrent data operations on one file are kept to what has a definite result: one writer
//! beside those who cut or extend, or readers, or appenders.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringfs_platform::sim::{Faults, SimulationRng};
use ringfs_wire::{HEAD_SIZE, InodeNumber, InodeType, LockMode, LockSpace, RenameMode, XattrMode};

use crate::content::Tag;
use crate::operation::{Key, LOCK_CELLS, Label, Operation, Place, Space};
use crate::strikes::Prey;
use crate::subjects::Subject;
use crate::tree::Tree;

/// Directories beyond which no more are made.
const DIRECTORIES_MAX: usize = 10;
/// Files, symlinks and directories beyond which no more names are made.
const INODES_MAX: usize = 30;
/// Bytes one operation reads or writes at most.
const DATA_LEN_MAX: u64 = 100 << 10;
/// Files a client has open at most.
const OPEN_MAX: usize = 4;

/// Who does what with a file's data in the current round.
#[derive(Clone, Debug, Default)]
struct Uses {
    readers: BTreeSet<usize>,
    writers: BTreeSet<usize>,
    cutters: BTreeSet<usize>,
    appenders: BTreeSet<usize>,
}

/// Kinds of operations, as the swarm weighs them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Choice {
    Lookup,
    Create,
    MakeDirectory,
    RemoveDirectory,
    Unlink,
    Symlink,
    ReadLink,
    Link,
    Rename,
    CreateNameless,
    ReadDirectory,
    ListPages,
    Stat,
    Chmod,
    SetTimes,
    SetXattr,
    GetXattr,
    ListXattrs,
    RemoveXattr,
    Open,
    Close,
    Truncate,
    Read,
    Write,
    Append,
    Fallocate,
    Lock,
    Unlock,
    SyncFile,
    SyncDirectory,
    SyncAll,
}

/// Every kind, with its usual weight.
const CHOICES: [(Choice, u64); 31] = [
    (Choice::Lookup, 6),
    (Choice::Create, 10),
    (Choice::MakeDirectory, 8),
    (Choice::RemoveDirectory, 4),
    (Choice::Unlink, 6),
    (Choice::Symlink, 2),
    (Choice::ReadLink, 1),
    (Choice::Link, 4),
    (Choice::Rename, 10),
    (Choice::CreateNameless, 3),
    (Choice::ReadDirectory, 3),
    (Choice::ListPages, 3),
    (Choice::Stat, 3),
    (Choice::Chmod, 2),
    (Choice::SetTimes, 2),
    (Choice::SetXattr, 3),
    (Choice::GetXattr, 2),
    (Choice::ListXattrs, 1),
    (Choice::RemoveXattr, 1),
    (Choice::Open, 8),
    (Choice::Close, 2),
    (Choice::Truncate, 4),
    (Choice::Read, 8),
    (Choice::Write, 12),
    (Choice::Append, 5),
    (Choice::Fallocate, 4),
    (Choice::Lock, 4),
    (Choice::Unlock, 3),
    (Choice::SyncFile, 2),
    (Choice::SyncDirectory, 1),
    (Choice::SyncAll, 1),
];

/// The mix of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) nodes: u32,
    pub(crate) targets_per_node: u32,
    pub(crate) clients: usize,
    /// The first two clients run on one machine.
    pub(crate) shares_machine: bool,
    /// Which clients are programs above a mount. Those of one machine share its mount.
    pub(crate) mounted: Vec<bool>,
    pub(crate) chunk_size: u32,
    pub(crate) rounds: u64,
    /// Operations of one client in one round, at most.
    pub(crate) script_len_max: u64,
    /// Chance in a thousand that a client waits before an operation.
    pub(crate) pause: u32,
    pub(crate) log_segment_bytes: u64,
    pub(crate) faults: Faults,
    /// Chances in a thousand, per round.
    pub(crate) kill: u32,
    pub(crate) power_cut: u32,
    pub(crate) partition: u32,
    pub(crate) client_kill: u32,
    pub(crate) break_links: u32,
    pub(crate) stall: u32,
    /// A disk that fails something, and how often it fails what.
    pub(crate) disk_error: u32,
    pub(crate) disk_faults: Faults,
    pub(crate) full_disk: u32,
    pub(crate) clock_jump: u32,
    /// Chance in a thousand that who is killed or loses power does so when a call has returned.
    pub(crate) ambush: u32,
    /// What kind of call, if always the same.
    pub(crate) prey: Option<Prey>,
    /// Partitions outlast leases, and disks are full for long.
    pub(crate) is_long: bool,
    /// Chance in a thousand that a partition stops one direction only.
    pub(crate) one_way: u32,
    /// Nanoseconds that wall clocks are off by, at most.
    pub(crate) skew_max: u64,
    pub(crate) labels: u8,
    weights: Vec<(Choice, u64)>,
}

/// What all clients of a run have learnt, and what they agreed not to do at once.
#[derive(Debug)]
pub(crate) struct Knowledge {
    directories: BTreeSet<InodeNumber>,
    others: BTreeMap<InodeNumber, InodeType>,
    uses: BTreeMap<InodeNumber, Uses>,
    /// Where directories seem to lie.
    pub(crate) tree: Tree,
    next_tag: Tag,
}

fn weights(subject: Option<Subject>, rng: &SimulationRng) -> Vec<(Choice, u64)> {
    let weight = |(choice, usual): (Choice, u64)| match subject {
        Some(subject) => (choice, subject.weight(choice, usual)),
        None => (choice, usual * [0, 1, 3, 3, 3, 6][rng.below(6) as usize]),
    };
    CHOICES.into_iter().map(weight).collect()
}

impl Swarm {
    /// The mix that belongs to a seed.
    pub(crate) fn draw(rng: &SimulationRng) -> Self {
        let sometimes = |chance: u32, most: u32| {
            if rng.chance(chance) { 1 + rng.below(u64::from(most)) as u32 } else { 0 }
        };
        let (nodes, targets_per_node) = match rng.below(10) {
            0 => (1, 1),
            1 => (1, 3),
            2 => (3, 1),
            _ => (2, 2),
        };
        let subject = Subject::of(rng.below(1_000));
        let weights = weights(subject, rng);
        let faults = Faults {
            connection_loss_per_mille: sometimes(500, 20),
            delay_max: Duration::from_micros(rng.below(5_000)),
            disk_latency_max: Duration::from_micros(rng.below(2_000)),
            hold_up_per_mille: sometimes(300, 20),
            hold_up_max: Duration::from_millis(rng.below(6_000)),
            ..Faults::default()
        };
        // Some of three, but never none.
        let fails = 1 + rng.below(7);
        let often = |bit: u64, most: u64| match fails & bit {
            0 => 0,
            _ => 1 + rng.below(most) as u32,
        };
        let disk_faults = Faults {
            fsync_failure_per_mille: often(1, 1_000),
            write_failure_per_mille: often(2, 300),
            read_failure_per_mille: often(4, 300),
            ..Faults::default()
        };
        let clients = 2 + rng.below(3) as usize;
        let share = [0, 500, 1_000][rng.below(3) as usize];
        let mut swarm = Self {
            nodes,
            targets_per_node,
            clients,
            mounted: (0..clients).map(|_| rng.chance(share)).collect(),
            shares_machine: rng.chance(200),
            chunk_size: (64 << 10) << rng.below(2),
            rounds: 10 + rng.below(15),
            script_len_max: 1 + rng.below(3),
            pause: sometimes(300, 500),
            log_segment_bytes: (16 << 10) << rng.below(3),
            faults,
            kill: sometimes(500, 300),
            power_cut: sometimes(400, 200),
            partition: sometimes(300, 200),
            client_kill: sometimes(300, 150),
            break_links: sometimes(300, 300),
            stall: sometimes(300, 200),
            disk_error: sometimes(300, 300),
            disk_faults,
            full_disk: sometimes(300, 300),
            clock_jump: sometimes(300, 300),
            ambush: sometimes(400, 700),
            prey: None,
            is_long: false,
            one_way: sometimes(500, 1_000),
            skew_max: [0, 1_000_000, 5_000_000_000][rng.below(3) as usize],
            labels: match subject {
                Some(_) => 2,
                None => 2 + rng.below(5) as u8,
            },
            weights,
        };
        if let Some(subject) = subject {
            subject.shape(&mut swarm, rng);
        }
        swarm
    }
}

impl Swarm {
    /// The same without anything going wrong.
    pub(crate) fn calm(&mut self) {
        self.faults.connection_loss_per_mille = 0;
        (self.kill, self.power_cut, self.partition) = (0, 0, 0);
        (self.client_kill, self.break_links, self.stall) = (0, 0, 0);
        (self.disk_error, self.full_disk, self.clock_jump) = (0, 0, 0);
        self.faults.hold_up_per_mille = 0;
    }
}

impl Knowledge {
    pub(crate) fn new() -> Self {
        Self {
            directories: BTreeSet::from([InodeNumber::ROOT]),
            others: BTreeMap::new(),
            uses: BTreeMap::new(),
            tree: Tree::default(),
            next_tag: 1,
        }
    }

    /// The same, having forgotten all inodes.
    pub(crate) fn renewed(&self) -> Self {
        Self { next_tag: self.next_tag, ..Self::new() }
    }

    /// A new round: what was agreed in the last one is over.
    pub(crate) fn begin_round(&mut self) {
        self.uses.clear();
        self.tree.begin_round();
    }

    /// Somebody saw this inode.
    pub(crate) fn learn(&mut self, inode: InodeNumber, kind: InodeType) {
        match kind {
            InodeType::Directory => {
                self.directories.insert(inode);
            }
            _ => {
                self.others.insert(inode, kind);
            }
        }
    }

    /// Somebody was told that this inode does not exist.
    pub(crate) fn forget(&mut self, inode: InodeNumber) {
        if inode != InodeNumber::ROOT {
            self.tree.forget(inode);
            self.directories.remove(&inode);
            self.others.remove(&inode);
        }
    }

    /// The next operation of `client`, which has `held` open. Nothing if what was drawn cannot be
    /// done now.
    pub(crate) fn next_operation(
        &mut self,
        swarm: &Swarm,
        rng: &SimulationRng,
        client: usize,
        held: &[InodeNumber],
    ) -> Option<Operation> {
        let total: u64 = swarm.weights.iter().map(|(_, weight)| weight).sum();
        let mut ticket = rng.below(total);
        let (choice, _) = swarm.weights.iter().find(|(_, weight)| {
            let is_drawn = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            is_drawn
        })?;
        let operation = self.draw(*choice, swarm, rng, held)?;
        self.agree(&operation, client).then_some(operation)
    }

    fn draw(
        &mut self,
        choice: Choice,
        swarm: &Swarm,
        rng: &SimulationRng,
        held: &[InodeNumber],
    ) -> Option<Operation> {
        let count = self.directories.len() + self.others.len();
        let has_room = count < INODES_MAX;
        let place = self.place(swarm, rng);
        let mode = 0o400 + rng.below(0o100) as u32;
        Some(match choice {
            Choice::Lookup => Operation::Lookup { place },
            Choice::Create if has_room && held.len() < OPEN_MAX => {
                Operation::Create { place, exclusive: rng.chance(500), mode }
            }
            Choice::MakeDirectory if self.directories.len() < DIRECTORIES_MAX => {
                Operation::MakeDirectory { place, mode }
            }
            Choice::Symlink if has_room => Operation::Symlink { place, tag: self.tag() },
            Choice::CreateNameless if has_room && held.len() < OPEN_MAX => {
                Operation::CreateNameless { directory: place.directory, mode }
            }
            Choice::Create | Choice::MakeDirectory | Choice::Symlink | Choice::CreateNameless => {
                Operation::Unlink { place }
            }
            Choice::RemoveDirectory => Operation::RemoveDirectory { place },
            Choice::Unlink => Operation::Unlink { place },
            Choice::Link => {
                // What is open may be waiting for its first name.
                let open = if rng.chance(400) { pick(rng, held) } else { None };
                Operation::Link { inode: open.or_else(|| self.other(rng, None))?, place }
            }
            Choice::Rename => {
                if let Some(crossing) = self.tree.crossing(rng) {
                    return Some(crossing);
                }
                let mode = match rng.below(10) {
                    0 | 1 => RenameMode::NoReplace,
                    2 | 3 => RenameMode::Exchange,
                    _ => RenameMode::Replace,
                };
                Operation::Rename { from: place, to: self.place(swarm, rng), mode }
            }
            Choice::ReadDirectory => Operation::ReadDirectory { directory: place.directory },
            Choice::ListPages => {
                let limit = 1 + rng.below(3) as u32;
                Operation::ListPages { directory: place.directory, limit }
            }
            Choice::SyncDirectory => Operation::SyncDirectory { directory: place.directory },
            Choice::SyncAll => Operation::SyncAll,
            Choice::ReadLink
            | Choice::Stat
            | Choice::Chmod
            | Choice::SetTimes
            | Choice::SetXattr
            | Choice::GetXattr
            | Choice::ListXattrs
            | Choice::RemoveXattr => return self.draw_on_attributes(choice, rng, mode),
            _ => return self.draw_on_file(choice, swarm, rng, held),
        })
    }

    /// What is about any inode.
    fn draw_on_attributes(
        &mut self,
        choice: Choice,
        rng: &SimulationRng,
        mode: u32,
    ) -> Option<Operation> {
        Some(match choice {
            Choice::ReadLink => {
                Operation::ReadLink { inode: self.other(rng, Some(InodeType::Symlink))? }
            }
            Choice::Stat => Operation::Stat { inode: self.any(rng) },
            Choice::Chmod => Operation::Chmod { inode: self.any(rng), mode },
            Choice::SetTimes => {
                let (accessed, modified) = (rng.below(1 << 30) as u32, rng.below(1 << 30) as u32);
                Operation::SetTimes { inode: self.any(rng), accessed, modified }
            }
            Choice::SetXattr => {
                let mode = match rng.below(4) {
                    0 => XattrMode::Create,
                    1 => XattrMode::Replace,
                    _ => XattrMode::Any,
                };
                Operation::SetXattr { inode: self.any(rng), key: key(rng), tag: self.tag(), mode }
            }
            Choice::GetXattr => Operation::GetXattr { inode: self.any(rng), key: key(rng) },
            Choice::ListXattrs => Operation::ListXattrs { inode: self.any(rng) },
            Choice::RemoveXattr => Operation::RemoveXattr { inode: self.any(rng), key: key(rng) },
            _ => unreachable!("drawn by its caller"),
        })
    }

    /// What is about files, mostly open ones.
    fn draw_on_file(
        &mut self,
        choice: Choice,
        swarm: &Swarm,
        rng: &SimulationRng,
        held: &[InodeNumber],
    ) -> Option<Operation> {
        Some(match choice {
            Choice::Open if held.len() < OPEN_MAX => {
                Operation::Open { inode: self.other(rng, Some(InodeType::File))? }
            }
            Choice::Open | Choice::Close => Operation::Close { inode: pick(rng, held)? },
            Choice::Truncate if rng.chance(300) => {
                let inode = self.other(rng, Some(InodeType::File))?;
                Operation::Truncate { inode, size: offset(swarm, rng) }
            }
            Choice::Truncate => {
                Operation::Truncate { inode: pick(rng, held)?, size: offset(swarm, rng) }
            }
            Choice::Read => {
                let (offset, len) = (offset(swarm, rng), 1 + rng.below(2 * DATA_LEN_MAX));
                Operation::Read { inode: pick(rng, held)?, offset, len }
            }
            Choice::Write => {
                let (offset, len, tag) = (offset(swarm, rng), len(rng), self.tag());
                Operation::Write { inode: pick(rng, held)?, offset, len, tag }
            }
            Choice::Append => {
                Operation::Append { inode: pick(rng, held)?, len: len(rng), tag: self.tag() }
            }
            Choice::Fallocate => {
                let space = match rng.below(5) {
                    0 | 1 => Space::Punch,
                    2 => Space::Allocate { keep_size: rng.chance(500) },
                    _ => Space::Zero { keep_size: rng.chance(500) },
                };
                let (offset, len) = (offset(swarm, rng), len(rng));
                Operation::Fallocate { inode: pick(rng, held)?, offset, len, space }
            }
            Choice::Lock => {
                let (inode, (space, range)) = (pick(rng, held)?, lock_range(rng));
                let mode = if rng.chance(600) { LockMode::Exclusive } else { LockMode::Shared };
                Operation::Lock { inode, space, range, mode }
            }
            Choice::Unlock => {
                let (inode, (space, range)) = (pick(rng, held)?, lock_range(rng));
                Operation::Unlock { inode, space, range }
            }
            Choice::SyncFile => Operation::SyncFile { inode: pick(rng, held)? },
            _ => unreachable!("drawn by its caller"),
        })
    }

    /// Whether the operation has a definite result beside what others do in this round; then it
    /// is noted. A write is done again as a whole when a cut comes between, so these may meet.
    fn agree(&mut self, operation: &Operation, client: usize) -> bool {
        let Some(inode) = operation.inode() else { return true };
        let uses = self.uses.entry(inode).or_default();
        let alone = |others: &BTreeSet<usize>| others.iter().all(|other| *other == client);
        let is_cut_or_written = !uses.writers.is_empty() || !uses.cutters.is_empty();
        let (is_definite, mine) = match operation {
            Operation::Read { .. } => {
                (alone(&uses.writers) && alone(&uses.cutters), &mut uses.readers)
            }
            Operation::Write { .. } | Operation::Fallocate { .. } => {
                (alone(&uses.writers) && alone(&uses.readers), &mut uses.writers)
            }
            Operation::Truncate { .. } => (alone(&uses.readers), &mut uses.cutters),
            Operation::Append { .. } => {
                let is_definite = uses.readers.is_empty() && !is_cut_or_written;
                if is_definite {
                    uses.appenders.insert(client);
                }
                return is_definite;
            }
            _ => return true,
        };
        let is_definite = is_definite && uses.appenders.is_empty();
        if is_definite {
            mine.insert(client);
        }
        is_definite
    }

    fn tag(&mut self) -> Tag {
        self.next_tag += 1;
        self.next_tag
    }

    fn place(&self, swarm: &Swarm, rng: &SimulationRng) -> Place {
        let index = rng.below(self.directories.len() as u64) as usize;
        let directory = self.directories.iter().nth(index).copied().unwrap_or(InodeNumber::ROOT);
        Place { directory, label: Label(rng.below(u64::from(swarm.labels)) as u8) }
    }

    fn other(&self, rng: &SimulationRng, kind: Option<InodeType>) -> Option<InodeNumber> {
        let fitting = self.others.iter().filter(|(_, found)| kind.is_none_or(|k| k == **found));
        pick(rng, &fitting.map(|(inode, _)| *inode).collect::<Vec<_>>())
    }

    /// Any inode but a symlink.
    fn any(&self, rng: &SimulationRng) -> InodeNumber {
        let directory = self.place_directory(rng);
        if rng.chance(600) {
            return self.other(rng, Some(InodeType::File)).unwrap_or(directory);
        }
        directory
    }

    fn place_directory(&self, rng: &SimulationRng) -> InodeNumber {
        let all: Vec<_> = self.directories.iter().copied().collect();
        pick(rng, &all).unwrap_or(InodeNumber::ROOT)
    }
}

fn lock_range(rng: &SimulationRng) -> (LockSpace, (u64, u64)) {
    if rng.chance(300) {
        return (LockSpace::Flock, (0, LOCK_CELLS - 1));
    }
    let first = rng.below(LOCK_CELLS);
    (LockSpace::Posix, (first, first + rng.below(LOCK_CELLS - first)))
}

/// One of few, so that they meet.
fn key(rng: &SimulationRng) -> Key {
    Key(rng.below(2) as u8)
}

fn pick<T: Copy>(rng: &SimulationRng, from: &[T]) -> Option<T> {
    from.get(rng.below(from.len() as u64) as usize).copied()
}

/// An offset that is likely to hit a boundary: of the head, of a chunk, of a block.
fn offset(swarm: &Swarm, rng: &SimulationRng) -> u64 {
    let base = match rng.below(5) {
        0 if rng.chance(500) => return 0,
        0 => 0,
        1 => HEAD_SIZE,
        2 => u64::from(swarm.chunk_size) * rng.below(4),
        3 => 4096 * rng.below(64),
        _ => return rng.below(300 << 10),
    };
    match rng.below(3) {
        0 => base,
        1 => base + rng.below(5000),
        _ => base.saturating_sub(rng.below(5000)),
    }
}

fn len(rng: &SimulationRng) -> u64 {
    match rng.below(4) {
        0 => 1 + rng.below(100),
        1 => 4096 * (1 + rng.below(4)),
        2 => 1 + rng.below(20_000),
        _ => 1 + rng.below(DATA_LEN_MAX),
    }
}
