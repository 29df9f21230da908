//! What a run of the suite is to do, checked before anything is started, and whether there is
//! room for it.

use std::io;
use std::path::{Path, PathBuf};

use super::limits::LimitKind;
use super::part::{EASY_TRANSFER, HARD_TRANSFER, Part, RANDOM_TRANSFER, Reach};
use super::worker::LEASED_BYTES;
use crate::cluster::Cluster;
use crate::directory::WorkDirectory;
use crate::error::{BenchError, Context};

/// Most clients.
pub const CLIENTS_MAX: u32 = 1_024;
/// Most rounds.
const ROUNDS_MAX: u32 = 1_000;
/// Longest time of one part.
const SECONDS_MAX: f64 = 86_400.0;
/// Most bytes and files of one client in one part.
const SIZE_MAX: u64 = 1 << 50;
const FILES_MAX: u64 = 1 << 30;
/// Most targets of a cluster made for the run.
const TARGETS_MAX: u32 = 64;
/// Space that a small file takes with all that is kept about it, rounded up.
const SMALL_FILE_SPACE: u64 = 6 << 10;
/// The same of an empty file.
const EMPTY_FILE_SPACE: u64 = 1 << 10;
/// Space that a new target takes at once.
const TARGET_SPACE: u64 = 48 << 20;
/// Room for directories and for what is rounded.
const SLACK: u64 = 16 << 20;
/// What `statfs` calls a file system in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A cluster that runs already.
#[derive(Clone, Debug)]
pub struct Running {
    /// How to reach it.
    pub cluster: Cluster,
    /// Its name.
    pub name: String,
    /// Processes of this machine that serve it: its nodes, and the mount that is used.
    pub servers: Vec<u32>,
}

/// How files are reached.
#[derive(Clone, Debug)]
pub enum DoorChoice {
    /// Through the client library, in a running cluster or in one made for the run.
    Client(Option<Running>),
    /// Through a mount of a cluster made for the run.
    Mount,
    /// By system calls in a directory, which may be a mount of a running cluster.
    Directory(PathBuf, Option<Running>),
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How files are reached.
    pub door: DoorChoice,
    /// A directory in which the same is done in turn.
    pub against: Option<PathBuf>,
    /// Where a cluster made for the run keeps its data; else in memory.
    pub store: Option<PathBuf>,
    /// Client processes.
    pub clients: u32,
    /// Targets of a cluster made for the run.
    pub targets: u32,
    /// Rounds; each runs everything once.
    pub rounds: u32,
    /// Seconds after which parts that write end.
    pub seconds: f64,
    /// Seconds for which each limit is measured.
    pub limit_seconds: f64,
    /// Bytes after which they end, per client.
    pub size: u64,
    /// Files after which they end, per client.
    pub files: u64,
    /// Bytes that each client of the bare loops writes and reads.
    pub bare_bytes: u64,
    /// Begins of the names of the parts to run, with those whose files they use; all if empty.
    pub only: Vec<String>,
    /// Seconds for which the servers are watched at rest before the first round; 0 for not at all.
    pub idle_seconds: f64,
    /// Drop what this machine caches of files in a directory before they are read.
    pub drop_caches: bool,
    /// Do without io_uring.
    pub polling: bool,
    /// Damage a file on purpose, to see that it is noticed.
    pub damage: bool,
}

impl Plan {
    /// Whether the numbers make sense.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let in_time = |seconds: f64| seconds > 0.0 && seconds <= SECONDS_MAX;
        let wrong = if !(1..=CLIENTS_MAX).contains(&self.clients) {
            format!("--clients takes 1 to {CLIENTS_MAX}")
        } else if !(1..=ROUNDS_MAX).contains(&self.rounds) {
            format!("--rounds takes 1 to {ROUNDS_MAX}")
        } else if !in_time(self.seconds) || !in_time(self.limit_seconds) {
            format!("--seconds takes more than 0, up to {SECONDS_MAX}")
        } else if !(EASY_TRANSFER..=SIZE_MAX).contains(&self.size) {
            "--size takes 1 MiB to 1 PiB".to_owned()
        } else if !(1..=FILES_MAX).contains(&self.files) {
            format!("--files takes 1 to {FILES_MAX}")
        } else if !(1..=TARGETS_MAX).contains(&self.targets) {
            format!("--targets takes 1 to {TARGETS_MAX}")
        } else if let Some(unknown) = self.only.iter().find(|only| !names_part(only)) {
            let names: Vec<_> = Part::every().map(Part::name).collect();
            format!("--only {unknown}: the phases are {}", names.join(", "))
        } else if !(0.0..=SECONDS_MAX).contains(&self.idle_seconds) {
            format!("--idle takes 0 to {SECONDS_MAX}")
        } else if let Some(part) = self.misplaced_part() {
            format!(
                "--only {}: it is about mounts and directories; say which by --door",
                part.name()
            )
        } else {
            return Ok(());
        };
        Err(BenchError::Usage(wrong))
    }

    fn misplaced_part(&self) -> Option<Part> {
        let is_library = self.reach() == Reach::Library;
        self.parts().into_iter().find(|part| is_library && part.needs_kernel())
    }

    /// How files are reached.
    pub(crate) fn reach(&self) -> Reach {
        match &self.door {
            DoorChoice::Client(_) => Reach::Library,
            DoorChoice::Mount | DoorChoice::Directory(_, Some(_)) => Reach::Mount,
            DoorChoice::Directory(_, None) => Reach::Directory,
        }
    }

    /// The parts to run, in their order.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let is_named = |part: &Part| self.only.iter().any(|only| part.name().starts_with(only));
        if self.only.is_empty() {
            return Part::ALL.to_vec();
        }
        with_makers(Part::every().filter(is_named).collect())
    }

    /// Those of them that are compared with the same on other files, in this run.
    pub(crate) fn parts_beside(&self, limit: LimitKind) -> Vec<Part> {
        let reach = self.reach();
        let parts = self.parts().into_iter().filter(|part| part.limit(reach) == Some(limit));
        with_makers(parts.collect())
    }

    /// Most transfers of ior-easy per client.
    pub(crate) fn easy_transfers(&self) -> u64 {
        (self.size / EASY_TRANSFER).max(1)
    }

    /// Most transfers of ior-hard per client.
    pub(crate) fn hard_transfers(&self) -> u64 {
        (self.size / HARD_TRANSFER).max(1)
    }

    /// Transfers of rnd4K that a client has room for: a power of two in a quarter of the size.
    pub(crate) fn random_transfers(&self) -> u64 {
        let most = (self.size / 4 / RANDOM_TRANSFER).max(1);
        1 << most.ilog2()
    }

    /// Space that one round takes at most.
    pub(crate) fn round_space(&self) -> u64 {
        let random = 2 * self.random_transfers() * RANDOM_TRANSFER;
        let files = self.files.saturating_mul(SMALL_FILE_SPACE + EMPTY_FILE_SPACE);
        let each = self.size.saturating_mul(2).saturating_add(random).saturating_add(files);
        let each = each.saturating_add(LEASED_BYTES);
        each.saturating_mul(u64::from(self.clients)).saturating_add(SLACK)
    }

    /// Space that the bare loops and a cluster made for the run take beside the rounds.
    pub(crate) fn work_space(&self) -> u64 {
        let bare = self.bare_bytes.saturating_mul(u64::from(self.clients));
        bare.saturating_add(u64::from(self.targets) * TARGET_SPACE)
    }

    /// Whether a cluster is made for the run.
    pub(crate) fn makes_cluster(&self) -> bool {
        matches!(self.door, DoorChoice::Client(None) | DoorChoice::Mount)
    }

    /// Whether all local places have room for what may be written to them.
    pub(crate) fn check_room(&self) -> Result<(), BenchError> {
        let mut needs = Vec::new();
        let in_store = if self.makes_cluster() { self.round_space() } else { 0 };
        let store = WorkDirectory::parent(self.store.as_deref());
        needs.push((store, in_store.saturating_add(self.work_space()), "--store"));
        if self.reach() == Reach::Mount && WorkDirectory::memory().is_dir() {
            // The bare mount keeps its files in memory; rounds end one after the other.
            needs.push((WorkDirectory::memory().to_owned(), self.round_space(), "--door"));
        }
        if let DoorChoice::Directory(path, None) = &self.door {
            needs.push((path.clone(), self.round_space(), "--door"));
        }
        if let Some(path) = &self.against {
            needs.push((path.clone(), self.round_space(), "--against"));
        }
        for (place, needed, option) in needs {
            let free = free_space(&place)?;
            let what = place.display().to_string();
            check_fits(needed, free, &what, &format!("another directory for {option}"))?;
        }
        Ok(())
    }
}

/// These parts and those that make their files, in the order in which they run.
fn with_makers(parts: Vec<Part>) -> Vec<Part> {
    let makers: Vec<Part> = parts.iter().filter_map(|part| part.made_by()).collect();
    Part::every().filter(|part| parts.contains(part) || makers.contains(part)).collect()
}

fn names_part(only: &str) -> bool {
    Part::every().any(|part| part.name().starts_with(only))
}

/// Refuses what does not fit.
pub(crate) fn check_fits(
    needed: u64,
    free: u64,
    place: &str,
    other: &str,
) -> Result<(), BenchError> {
    if needed <= free {
        return Ok(());
    }
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Err(BenchError::NoRoom(format!(
        "the benchmark may take {} MiB in {place}, where {} MiB are free: choose a smaller --size \
         or fewer --files or --clients, or {other}",
        mebibytes(needed),
        free >> 20
    )))
}

/// Bytes that can be written below `path`. What lies in memory cannot take more than there is.
fn free_space(path: &Path) -> Result<u64, BenchError> {
    let action = || format!("look at the file system of {}", path.display());
    let found = rustix::fs::statfs(path).map_err(io::Error::from).context(action())?;
    let free = found.f_bavail.saturating_mul(found.f_bsize as u64);
    if found.f_type != TMPFS_MAGIC {
        return Ok(free);
    }
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Ok(available_memory(&text).map_or(free, |available| free.min(available)))
}

fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kibibytes << 10)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn plan() -> Plan {
        Plan {
            door: DoorChoice::Client(None),
            against: None,
            store: None,
            clients: 2,
            targets: 2,
            rounds: 1,
            seconds: 1.0,
            limit_seconds: 1.0,
            size: 64 << 20,
            files: 100,
            bare_bytes: 1 << 20,
            only: Vec::new(),
            idle_seconds: 0.0,
            drop_caches: false,
            polling: false,
            damage: false,
        }
    }

    #[test]
    fn numbers_are_checked() {
        let check = |change: fn(&mut Plan), flag: Option<&str>| {
            let mut plan = plan();
            change(&mut plan);
            match (plan.check(), flag) {
                (Ok(()), None) => {}
                (Err(BenchError::Usage(text)), Some(flag)) => assert!(text.contains(flag)),
                (result, _) => panic!("{flag:?}: {result:?}"),
            }
        };
        check(|_| {}, None);
        check(|plan| plan.clients = 0, Some("--clients"));
        check(|plan| plan.rounds = 0, Some("--rounds"));
        check(|plan| plan.seconds = f64::NAN, Some("--seconds"));
        check(|plan| plan.size = 1000, Some("--size"));
        check(|plan| plan.files = 0, Some("--files"));
        check(|plan| plan.targets = 65, Some("--targets"));
        check(|plan| plan.only = vec!["rnd4K".to_owned()], None);
        check(|plan| plan.only = vec!["rnd8K".to_owned()], Some("--only"));
        check(|plan| plan.only = vec!["lease".to_owned()], Some("--door"));
        check(|plan| plan.idle_seconds = -1.0, Some("--idle"));
    }

    #[test]
    fn sizes_become_transfers() {
        let plan = plan();
        assert_eq!((plan.easy_transfers(), plan.hard_transfers()), (64, 1427));
        assert_eq!(plan.random_transfers(), 4096);
        let least = 2 * (64 << 20) * 2;
        assert!(plan.round_space() > least && plan.round_space() < 2 * least);
    }

    #[test]
    fn parts_come_with_those_whose_files_they_use() {
        let check = |only: &[&str], expected: &[Part]| {
            let only = only.iter().map(|&name| name.to_owned()).collect();
            assert_eq!(Plan { only, ..plan() }.parts(), expected);
        };
        check(&[], &Part::ALL);
        check(&["find", "rnd4K-read"], &[Part::RandomWrite, Part::Find, Part::RandomRead]);
        check(&["ior-easy"], &[Part::IorEasyWrite, Part::IorEasyRead]);
        check(&["direct4K"], &[Part::RandomWrite, Part::DirectRead4K]);
    }

    #[test]
    fn a_mount_is_compared_with_a_bare_one_and_with_a_plain_directory() {
        let only = vec!["lease".to_owned(), "direct1M".to_owned()];
        let plan = Plan { door: DoorChoice::Mount, only, ..plan() };
        let bare = plan.parts_beside(LimitKind::BareMount);
        assert_eq!(bare, [Part::IorEasyWrite, Part::DirectRead1M, Part::LeaseOpen]);
        let plain = plan.parts_beside(LimitKind::Plain);
        assert_eq!(plain, [Part::LeaseStat, Part::LeaseRead4K, Part::LeaseRead1M]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_advice() {
        assert!(check_fits(5, 5, "here", "x").is_ok());
        let error = check_fits(3 << 20, 2 << 20, "/tmp", "another directory").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("3 MiB in /tmp, where 2 MiB are free"), "{text}");
        assert_eq!(available_memory("MemAvailable:  4 kB\n"), Some(4096));
    }
}
