//! Both file systems side by side: each step on both, each outcome compared.

use std::io;
use std::path::{Path, PathBuf};

use ringfs_tests::Mapper;

use crate::differences;
use crate::side::{Outcome, Side};
use crate::step::Step;
use crate::tree;
use crate::watch::{self, Fate};

/// Steps after which the whole trees are compared.
const TREE_STEPS: usize = 100;
/// Bytes that are shown of an outcome.
const SHOWN: usize = 24;

/// The two, and how many steps they have taken.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) local: Side,
    mounted: Side,
    mapper: Mapper,
    steps: usize,
}

impl Pair {
    /// Empty directories on both.
    pub(crate) fn new(local: &Path, mounts: &[PathBuf; 2], name: &str) -> io::Result<Self> {
        Ok(Self {
            local: Side::new(&[local.to_owned(), local.to_owned()], name)?,
            mounted: Side::new(mounts, name)?,
            mapper: Mapper::start()?,
            steps: 0,
        })
    }

    /// Carries out a step on both; says how they differ.
    pub(crate) fn run(&mut self, step: &Step) -> Result<(), String> {
        self.steps += 1;
        let observer = self.steps % 2;
        let targets = watch::targets(step);
        let sides = [&mut self.local, &mut self.mounted];
        let mut outcomes = Vec::new();
        let mut seen = Vec::new();
        for side in sides {
            let before = watch::look(side, observer, &targets);
            outcomes.push(side.run(step, &mut self.mapper));
            let after = watch::look(side, observer, &targets);
            let fates = before.iter().zip(&after);
            let fates = fates.map(|(before, after)| Fate::new(before.as_ref(), after.as_ref()));
            seen.push(fates.collect::<Vec<_>>());
        }
        if outcomes[0] != outcomes[1] && !differences::is_intended(step, &outcomes[0], &outcomes[1])
        {
            return Err(tell_outcomes(&outcomes[0], &outcomes[1]));
        }
        for ((target, local), mounted) in targets.iter().zip(&seen[0]).zip(&seen[1]) {
            if !local.agrees(mounted) {
                return Err(format!("{target:?}:\n  local: {local}\n  mount: {mounted}"));
            }
        }
        if self.steps.is_multiple_of(TREE_STEPS) { self.compare_trees() } else { Ok(()) }
    }

    /// Compares everything.
    pub(crate) fn compare_trees(&self) -> Result<(), String> {
        let base = &self.mounted.bases[self.steps / TREE_STEPS % 2];
        let local = tree::describe_tree(&self.local.bases[0])
            .map_err(|error| format!("local tree: {error}"))?;
        let mounted =
            tree::describe_tree(base).map_err(|error| format!("tree of the mount: {error}"))?;
        tree::compare(&local, &mounted)
    }

    /// Removes both directories.
    pub(crate) fn end(self) -> Result<(), String> {
        let told = |error: io::Error| format!("clean-up: {error}");
        self.local.end().map_err(told)?;
        self.mounted.end().map_err(told)
    }
}

fn tell_outcomes(local: &Outcome, mounted: &Outcome) -> String {
    if let (Outcome::Bytes(local), Outcome::Bytes(mounted)) = (local, mounted) {
        let same = local.iter().zip(mounted).take_while(|(one, other)| one == other).count();
        let part = |bytes: &[u8]| bytes[same..].iter().take(SHOWN).copied().collect::<Vec<_>>();
        return format!(
            "{} and {} bytes, the same up to {same}\n  local: {:?}\n  mount: {:?}",
            local.len(),
            mounted.len(),
            part(local),
            part(mounted)
        );
    }
    format!("outcome:\n  local: {}\n  mount: {}", tell(local), tell(mounted))
}

fn tell(outcome: &Outcome) -> String {
    if let Outcome::Bytes(bytes) = outcome {
        return format!("{} bytes", bytes.len());
    }
    format!("{outcome:?}")
}
