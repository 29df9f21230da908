//! The parts of the suite, in the order in which they run: what each is called, what one
//! operation of it moves, what it is compared with, and where it counts. Pure.

use serde::{Deserialize, Serialize};

use super::limits::LimitKind;

/// Bytes of one transfer of ior-easy.
pub(crate) const EASY_TRANSFER: u64 = 1 << 20;
/// Bytes of one transfer of ior-hard: chosen by the IO500 to fit no block.
pub(crate) const HARD_TRANSFER: u64 = 47_008;
/// Bytes of one transfer of rnd4K, and of one write between two fsyncs.
pub(crate) const RANDOM_TRANSFER: u64 = 4 << 10;
/// Bytes of one file of mdtest-hard.
pub(crate) const SMALL_FILE: u64 = 3_901;

/// A part of the suite. Names of parts that the IO500 has are those of the IO500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Part {
    IorEasyWrite,
    RandomWrite,
    MdtestEasyWrite,
    IorHardWrite,
    MdtestHardWrite,
    SyncEach,
    Find,
    IorEasyRead,
    RandomRead,
    MdtestEasyStat,
    IorHardRead,
    MdtestHardStat,
    MdtestEasyDelete,
    MdtestHardRead,
    MdtestHardDelete,
    AloneCreate,
    CreateUnlink,
    DirectRead4K,
    DirectRead1M,
    LeaseStat,
    LeaseRead4K,
    LeaseRead1M,
    LeaseOpen,
}

/// Which mean of the score a part belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Bandwidth,
    Metadata,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// MiB per second.
    Mebibytes,
    /// Operations per second.
    Operations,
}

impl Unit {
    /// As tables show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::Mebibytes => "MiB/s",
            Unit::Operations => "ops/s",
        }
    }
}

impl Part {
    /// The suite.
    pub(crate) const ALL: [Part; 15] = [
        Part::IorEasyWrite,
        Part::RandomWrite,
        Part::MdtestEasyWrite,
        Part::IorHardWrite,
        Part::MdtestHardWrite,
        Part::SyncEach,
        Part::Find,
        Part::IorEasyRead,
        Part::RandomRead,
        Part::MdtestEasyStat,
        Part::IorHardRead,
        Part::MdtestHardStat,
        Part::MdtestEasyDelete,
        Part::MdtestHardRead,
        Part::MdtestHardDelete,
    ];

    /// Single costs, which run only where they are asked for.
    pub(crate) const SINGLE: [Part; 8] = [
        Part::AloneCreate,
        Part::CreateUnlink,
        Part::DirectRead4K,
        Part::DirectRead1M,
        Part::LeaseStat,
        Part::LeaseRead4K,
        Part::LeaseRead1M,
        Part::LeaseOpen,
    ];

    /// All there are, in the order in which they run.
    pub(crate) fn every() -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().chain(Part::SINGLE)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Part::IorEasyWrite => "ior-easy-write",
            Part::RandomWrite => "rnd4K-write",
            Part::MdtestEasyWrite => "mdtest-easy-write",
            Part::IorHardWrite => "ior-hard-write",
            Part::MdtestHardWrite => "mdtest-hard-write",
            Part::SyncEach => "write4K-fsync",
            Part::Find => "find",
            Part::IorEasyRead => "ior-easy-read",
            Part::RandomRead => "rnd4K-read",
            Part::MdtestEasyStat => "mdtest-easy-stat",
            Part::IorHardRead => "ior-hard-read",
            Part::MdtestHardStat => "mdtest-hard-stat",
            Part::MdtestEasyDelete => "mdtest-easy-delete",
            Part::MdtestHardRead => "mdtest-hard-read",
            Part::MdtestHardDelete => "mdtest-hard-delete",
            Part::AloneCreate => "alone-create",
            Part::CreateUnlink => "create-unlink",
            Part::DirectRead4K => "direct4K-read",
            Part::DirectRead1M => "direct1M-read",
            Part::LeaseStat => "lease-stat",
            Part::LeaseRead4K => "lease-read4K",
            Part::LeaseRead1M => "lease-read1M",
            Part::LeaseOpen => "lease-open",
        }
    }

    /// Bytes that one operation writes or reads.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Part::IorEasyWrite | Part::IorEasyRead | Part::DirectRead1M | Part::LeaseRead1M => {
                EASY_TRANSFER
            }
            Part::IorHardWrite | Part::IorHardRead => HARD_TRANSFER,
            Part::RandomWrite
            | Part::RandomRead
            | Part::SyncEach
            | Part::DirectRead4K
            | Part::LeaseRead4K => RANDOM_TRANSFER,
            Part::MdtestHardWrite | Part::MdtestHardRead => SMALL_FILE,
            _ => 0,
        }
    }

    /// What its rate counts.
    pub(crate) fn unit(self) -> Unit {
        let is_bandwidth = matches!(self, Part::DirectRead1M | Part::LeaseRead1M)
            || self.group() == Some(Group::Bandwidth);
        if is_bandwidth { Unit::Mebibytes } else { Unit::Operations }
    }

    /// Operations to what [`Part::unit`] counts.
    pub(crate) fn in_unit(self, operations: f64) -> f64 {
        match self.unit() {
            Unit::Mebibytes => operations * self.bytes() as f64 / f64::from(1 << 20),
            Unit::Operations => operations,
        }
    }

    /// Where it counts in the score; parts that the IO500 lists apart count nowhere.
    pub(crate) fn group(self) -> Option<Group> {
        match self {
            Part::IorEasyWrite | Part::IorHardWrite | Part::IorEasyRead | Part::IorHardRead => {
                Some(Group::Bandwidth)
            }
            Part::RandomWrite | Part::RandomRead | Part::SyncEach => None,
            _ if Part::SINGLE.contains(&self) => None,
            _ => Some(Group::Metadata),
        }
    }

    /// The part whose files it works on; `None` for those that make their own.
    pub(crate) fn made_by(self) -> Option<Part> {
        match self {
            Part::IorEasyRead | Part::DirectRead1M => Some(Part::IorEasyWrite),
            Part::RandomRead | Part::DirectRead4K => Some(Part::RandomWrite),
            Part::IorHardRead => Some(Part::IorHardWrite),
            Part::MdtestEasyStat | Part::MdtestEasyDelete => Some(Part::MdtestEasyWrite),
            Part::MdtestHardStat | Part::MdtestHardRead | Part::MdtestHardDelete => {
                Some(Part::MdtestHardWrite)
            }
            _ => None,
        }
    }

    /// Whether it reads what another part wrote.
    pub(crate) fn reads(self) -> bool {
        self.made_by().is_some() && self.bytes() > 0
    }

    /// Whether it ends after a time although it works on what another part made.
    pub(crate) fn is_timed(self) -> bool {
        matches!(self, Part::RandomRead | Part::DirectRead4K | Part::DirectRead1M)
    }

    /// Whether all clients go on to the count of the fastest, and its files are synced.
    pub(crate) fn wears_out(self) -> bool {
        let makes = Part::ALL.contains(&self) && self.made_by().is_none();
        makes && !matches!(self, Part::SyncEach | Part::Find)
    }

    /// Whether its files stay open over all operations and are synced in the end.
    pub(crate) fn is_synced(self) -> bool {
        matches!(self, Part::IorEasyWrite | Part::IorHardWrite | Part::RandomWrite)
    }

    /// Whether clients make and look at files of their own before its time begins, so that
    /// whatever may be cached of them is.
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, Part::LeaseStat | Part::LeaseRead4K | Part::LeaseRead1M | Part::LeaseOpen)
    }

    /// Whether one client runs it alone.
    pub(crate) fn is_alone(self) -> bool {
        self == Part::AloneCreate
    }

    /// Whether it is about what the kernel does, and so means nothing through the library.
    pub(crate) fn needs_kernel(self) -> bool {
        self.is_prepared() || matches!(self, Part::DirectRead4K | Part::DirectRead1M)
    }

    /// What it is compared with. A walk through a cluster has no limit of its own.
    pub(crate) fn limit(self, reach: Reach) -> Option<LimitKind> {
        match (reach, self) {
            (Reach::Mount, Part::LeaseStat | Part::LeaseRead4K | Part::LeaseRead1M) => {
                Some(LimitKind::Plain)
            }
            (Reach::Mount, _) => Some(LimitKind::BareMount),
            (Reach::Directory, _) if self.group() == Some(Group::Bandwidth) => {
                Some(LimitKind::Memory)
            }
            (Reach::Directory, _) | (Reach::Library, Part::Find) => None,
            (Reach::Library, Part::IorEasyWrite | Part::IorHardWrite) => Some(LimitKind::BareWrite),
            (Reach::Library, Part::IorEasyRead | Part::IorHardRead) => Some(LimitKind::BareRead),
            (Reach::Library, Part::AloneCreate) => Some(LimitKind::EchoAlone),
            (Reach::Library, _) => Some(LimitKind::EchoRpc),
        }
    }
}

/// How a door reaches files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Through the client library.
    Library,
    /// Through a mount of a cluster.
    Mount,
    /// In a directory of whatever it is.
    Directory,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_has_the_parts_of_the_io500() {
        let count = |group| Part::ALL.iter().filter(|part| part.group() == Some(group)).count();
        assert_eq!((count(Group::Bandwidth), count(Group::Metadata)), (4, 8));
    }

    #[test]
    fn files_are_made_before_they_are_used() {
        for (index, part) in Part::ALL.iter().enumerate() {
            if let Some(maker) = part.made_by() {
                assert!(Part::ALL[..index].contains(&maker), "{}", part.name());
                assert!(maker.wears_out(), "{}", maker.name());
            }
        }
    }
}
