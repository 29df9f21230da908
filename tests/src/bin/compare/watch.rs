//! What a step does to attributes: of all files and directories that it names, before and after.
//!
//! Times are compared by whether they moved, not by what they are. Access times are left out: whoever
//! reads may move one at any time, and it may be told late (docs/semantics.md, "Access times").

use std::fmt;

use rustix::fs::Stat;

use crate::side::{Side, describe};
use crate::step::{On, Step};

/// What is watched while a step runs.
pub(crate) fn targets(step: &Step) -> Vec<On> {
    let mut targets = Vec::new();
    for path in step.call.paths() {
        let path = path.trim_end_matches('/');
        let parent = path.rsplit_once('/').map_or(".", |(parent, _)| parent);
        targets.extend([On::Itself(path.to_owned()), On::Path(parent.to_owned())]);
    }
    targets.extend(step.call.slots().into_iter().map(On::Slot));
    targets
}

/// All that is told about each target.
pub(crate) fn look(side: &Side, mount: usize, targets: &[On]) -> Vec<Option<Stat>> {
    targets.iter().map(|target| side.stat(mount, target).ok()).collect()
}

/// What became of a target. Access times do not count: they follow the grain of clocks.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    described: String,
    /// Which times moved; not known of what was not there before. A file system may give the number of
    /// an inode that has just gone to the next one.
    moved: Option<&'static str>,
}

impl Fate {
    /// What became of a target that was one thing before and is one after.
    pub(crate) fn new(before: Option<&Stat>, after: Option<&Stat>) -> Self {
        let described = after.map_or_else(|| "not there".to_owned(), describe);
        let same = before.zip(after).filter(|(before, after)| before.st_ino == after.st_ino);
        let moved = same.map(|(before, after)| {
            let modified = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
            let changed = |stat: &Stat| (stat.st_ctime, stat.st_ctime_nsec);
            match (modified(before) == modified(after), changed(before) == changed(after)) {
                (true, true) => "no time moved",
                (true, false) => "change time moved",
                (false, true) => "modification time moved",
                (false, false) => "both times moved",
            }
        });
        Self { described, moved }
    }

    /// Whether the other can have come of the same step.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        let both = self.moved.zip(other.moved);
        self.described == other.described && both.is_none_or(|(one, other)| one == other)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = self.moved.unwrap_or("another one than before");
        write!(out, "{}, {moved}", self.described)
    }
}
