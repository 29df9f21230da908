//! What the crowd does in its directory.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;

/// Where it meets.
pub(crate) const DIRECTORY: &str = "crowded";

/// One thing that all of it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Create,
    List,
    Stat,
    Remove,
}

impl Phase {
    /// In this order.
    pub(crate) const ALL: [Self; 4] = [Self::Create, Self::List, Self::Stat, Self::Remove];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::List => "list",
            Self::Stat => "stat",
            Self::Remove => "remove",
        }
    }

    /// The phase of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.name() == name)
    }

    /// A list is read by one process.
    pub(crate) fn processes_max(self) -> usize {
        if self == Self::List { 1 } else { usize::MAX }
    }
}

/// The entries that one process of several takes care of.
pub(crate) fn share(entries: usize, processes: usize, number: usize) -> Range<usize> {
    entries * number / processes..entries * (number + 1) / processes
}

/// What one process does in a phase.
pub(crate) fn perform(
    place: &Path,
    phase: Phase,
    share: Range<usize>,
    entries: usize,
) -> io::Result<()> {
    let directory = place.join(DIRECTORY);
    let path = |index: usize| directory.join(format!("entry-{index:07}"));
    match phase {
        Phase::Create => {
            share.into_iter().try_for_each(|index| File::create_new(path(index)).map(drop))
        }
        Phase::Stat => share.into_iter().try_for_each(|index| fs::metadata(path(index)).map(drop)),
        Phase::Remove => share.into_iter().try_for_each(|index| fs::remove_file(path(index))),
        Phase::List => list(&directory, entries),
    }
}

/// Reads the whole directory: each entry is there exactly once.
fn list(directory: &Path, entries: usize) -> io::Result<()> {
    let mut seen = vec![false; entries];
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let index =
            name.to_str().and_then(|name| name.strip_prefix("entry-")?.parse::<usize>().ok());
        // Others are the bystander's.
        if let Some(seen) = index.and_then(|index| seen.get_mut(index)) {
            if *seen {
                return Err(io::Error::other(format!("listed twice: {}", name.display())));
            }
            *seen = true;
        }
    }
    match seen.iter().position(|seen| !seen) {
        None => Ok(()),
        Some(index) => Err(io::Error::other(format!("not listed: entry {index}"))),
    }
}
