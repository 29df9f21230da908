//! What the clients of some seeds contend for, doing little else.
//!
//! Most defects show only when a few calls meet on few objects, under the fault that matters. A
//! subject gives the operations that belong to it their weight, and the seed the shape in which
//! they meet.

use ringfs_platform::sim::SimulationRng;

use crate::strikes::Prey;
use crate::workload::{Choice, Swarm};

/// Of a thousand seeds, how many are about what; the others are about everything.
const SHARES: [(Subject, u64); 8] = [
    (Subject::Data, 140),
    (Subject::Locks, 60),
    (Subject::Names, 70),
    (Subject::Moves, 60),
    (Subject::Tails, 80),
    (Subject::Caches, 80),
    (Subject::Leases, 70),
    (Subject::Space, 50),
];

/// A subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The bytes of a few files.
    Data,
    /// Their locks.
    Locks,
    /// The names of a few directories.
    Names,
    /// Directories that move into each other.
    Moves,
    /// What is left beyond the end of a file when its home loses power.
    Tails,
    /// What mounts cache of a few inodes.
    Caches,
    /// The same while some of them are cut off for longer than a lease.
    Leases,
    /// A disk that is full for long.
    Space,
}

impl Subject {
    /// The one that belongs to a ticket of a thousand, if any does.
    pub(crate) fn of(mut ticket: u64) -> Option<Self> {
        for (subject, share) in SHARES {
            if ticket < share {
                return Some(subject);
            }
            ticket -= share;
        }
        None
    }

    /// How often it has something done that is usually done so often.
    pub(crate) fn weight(self, choice: Choice, usual: u64) -> u64 {
        match (self, choice) {
            (Self::Data | Self::Locks, Choice::Create | Choice::Open) => 2 * usual,
            (Self::Data, Choice::Write | Choice::Truncate) => 40,
            (Self::Data, Choice::Fallocate) => 20,
            (Self::Data, Choice::SyncFile) => 25,
            (Self::Data, Choice::Read) => usual,
            (Self::Locks, Choice::Lock | Choice::Unlock) => 40,
            (Self::Locks, Choice::Close) => usual,
            (Self::Names, Choice::MakeDirectory | Choice::RemoveDirectory) => 30,
            (Self::Names, Choice::Rename) => 40,
            (Self::Names, Choice::Create | Choice::Unlink | Choice::Lookup) => usual,
            (Self::Names, Choice::ReadDirectory | Choice::CreateNameless) => usual,
            (Self::Moves, Choice::MakeDirectory) => 40,
            (Self::Moves, Choice::Rename) => 120,
            (Self::Moves, Choice::RemoveDirectory | Choice::Lookup) => usual,
            (Self::Tails, Choice::Create | Choice::Open) => usual,
            (Self::Tails, Choice::Write) => 60,
            (Self::Tails, Choice::Append | Choice::Read) => usual,
            (Self::Caches | Self::Leases, choice) => cached(choice, usual),
            (Self::Space, Choice::SetXattr | Choice::Create) => 40,
            (Self::Space, Choice::Unlink | Choice::RemoveXattr) => 30,
            (Self::Space, Choice::Symlink | Choice::Chmod | Choice::RemoveDirectory) => usual,
            (Self::Space, Choice::MakeDirectory | Choice::Link | Choice::Close) => usual,
            _ => 0,
        }
    }

    /// Gives a seed the shape in which the subject matters.
    pub(crate) fn shape(self, swarm: &mut Swarm, rng: &SimulationRng) {
        match self {
            Self::Data => {
                (swarm.power_cut, swarm.ambush) = (swarm.power_cut.max(150), 800);
                swarm.script_len_max = 3;
            }
            Self::Locks | Self::Names => {}
            Self::Moves => {
                swarm.calm();
                swarm.clients = 3;
                swarm.mounted.truncate(3);
                swarm.mounted.resize(3, false);
                swarm.script_len_max = 3;
                swarm.pause = 0;
                swarm.rounds = 20;
            }
            Self::Tails => {
                swarm.labels = 1;
                (swarm.power_cut, swarm.ambush) = (400, 900);
                swarm.prey = Some(Prey::Change);
                swarm.rounds = 24;
                swarm.mounted.iter_mut().for_each(|mounted| *mounted = false);
                (swarm.partition, swarm.stall, swarm.full_disk) = (0, 0, 0);
            }
            Self::Caches => {
                swarm.mounted.iter_mut().for_each(|mounted| *mounted = true);
                swarm.shares_machine = false;
                swarm.script_len_max = 3;
                (swarm.partition, swarm.stall, swarm.full_disk) = (0, 0, 0);
                (swarm.power_cut, swarm.client_kill) = (0, 0);
                swarm.kill = [0, 300][rng.below(2) as usize];
            }
            Self::Leases => {
                swarm.calm();
                swarm.mounted.iter_mut().for_each(|mounted| *mounted = true);
                swarm.shares_machine = false;
                swarm.script_len_max = 3;
                swarm.pause = 700;
                (swarm.partition, swarm.is_long) = (700, true);
            }
            Self::Space => {
                swarm.full_disk = 500 + rng.below(500) as u32;
                swarm.is_long = true;
                swarm.log_segment_bytes = 16 << 10;
                (swarm.nodes, swarm.targets_per_node) =
                    [(1, 1), (1, 2), (2, 1)][rng.below(3) as usize];
                swarm.clients = 2;
                swarm.mounted.truncate(2);
                swarm.labels = 4;
                swarm.script_len_max = 8;
                (swarm.partition, swarm.stall, swarm.disk_error) = (0, 0, 0);
                (swarm.power_cut, swarm.client_kill) = (0, 0);
            }
        }
    }
}

/// What shows, or changes, what mounts cache.
fn cached(choice: Choice, usual: u64) -> u64 {
    match choice {
        Choice::Stat => 30,
        Choice::Lookup | Choice::Write => 20,
        Choice::Create | Choice::Open | Choice::Read | Choice::Rename => usual,
        Choice::Unlink | Choice::Append | Choice::Truncate => usual,
        Choice::Chmod | Choice::SetTimes => 5 * usual,
        Choice::MakeDirectory | Choice::ReadDirectory | Choice::Link => usual / 2,
        _ => 0,
    }
}
