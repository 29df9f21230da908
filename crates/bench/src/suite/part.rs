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
        }
    }

    /// Bytes that one operation writes or reads.
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Part::IorEasyWrite | Part::IorEasyRead => EASY_TRANSFER,
            Part::IorHardWrite | Part::IorHardRead => HARD_TRANSFER,
            Part::RandomWrite | Part::RandomRead | Part::SyncEach => RANDOM_TRANSFER,
            Part::MdtestHardWrite | Part::MdtestHardRead => SMALL_FILE,
            Part::MdtestEasyWrite
            | Part::MdtestEasyStat
            | Part::MdtestEasyDelete
            | Part::MdtestHardStat
            | Part::MdtestHardDelete
            | Part::Find => 0,
        }
    }

    /// What its rate counts.
    pub(crate) fn unit(self) -> Unit {
        match self.group() {
            Some(Group::Bandwidth) => Unit::Mebibytes,
            _ => Unit::Operations,
        }
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
            _ => Some(Group::Metadata),
        }
    }

    /// The part whose files it works on; `None` for those that make their own.
    pub(crate) fn made_by(self) -> Option<Part> {
        match self {
            Part::IorEasyRead => Some(Part::IorEasyWrite),
            Part::RandomRead => Some(Part::RandomWrite),
            Part::IorHardRead => Some(Part::IorHardWrite),
            Part::MdtestEasyStat | Part::MdtestEasyDelete => Some(Part::MdtestEasyWrite),
            Part::MdtestHardStat | Part::MdtestHardRead | Part::MdtestHardDelete => {
                Some(Part::MdtestHardWrite)
            }
            Part::IorEasyWrite
            | Part::RandomWrite
            | Part::MdtestEasyWrite
            | Part::IorHardWrite
            | Part::MdtestHardWrite
            | Part::SyncEach
            | Part::Find => None,
        }
    }

    /// Whether it reads what another part wrote.
    pub(crate) fn reads(self) -> bool {
        self.made_by().is_some() && self.bytes() > 0
    }

    /// Whether all clients go on to the count of the fastest, and its files are synced.
    pub(crate) fn wears_out(self) -> bool {
        self.made_by().is_none() && !matches!(self, Part::SyncEach | Part::Find)
    }

    /// Whether its files stay open over all operations and are synced in the end.
    pub(crate) fn is_synced(self) -> bool {
        matches!(self, Part::IorEasyWrite | Part::IorHardWrite | Part::RandomWrite)
    }

    /// What it is compared with when a cluster is measured. A walk has no limit of its own.
    pub(crate) fn limit(self) -> Option<LimitKind> {
        match self {
            Part::IorEasyWrite | Part::IorHardWrite => Some(LimitKind::BareWrite),
            Part::IorEasyRead | Part::IorHardRead => Some(LimitKind::BareRead),
            Part::Find => None,
            _ => Some(LimitKind::EchoRpc),
        }
    }
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
