//! A writer that uses the program instead of a mount: `put`, `mv`, `rm`, `get`.
//!
//! Invariant: a file whose command succeeded is as that left it; one whose command failed is never
//! touched again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use ringfs_tests::random::Random;
use ringfs_tests::{Outcome, Sandbox, random_bytes};

use crate::world::World;

/// Files that are kept, more or less.
const FILES_KEPT: usize = 20;
/// Longest file in bytes.
const BYTES_MAX: usize = 6 << 20;

pub(crate) struct Program<'a> {
    world: &'a World,
    sandbox: &'a Sandbox,
    random: Random,
    index: usize,
    /// Seed and length of what was put under each name.
    files: BTreeMap<String, (u64, usize)>,
    /// A file is under exactly one of two names.
    moves: Vec<(String, String, (u64, usize))>,
    made: u64,
}

impl<'a> Program<'a> {
    pub(crate) fn new(world: &'a World, sandbox: &'a Sandbox, index: usize, seed: u64) -> Self {
        let random = Random::new(seed, index);
        Self { world, sandbox, random, index, files: BTreeMap::new(), moves: Vec::new(), made: 0 }
    }

    /// Works until the world stops.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while !self.world.is_stopped() {
            let start = Instant::now();
            let names: Vec<String> = self.files.keys().cloned().collect();
            let done = match self.random.below(4) {
                0 if names.len() > FILES_KEPT => self.remove(&names),
                1 if !names.is_empty() => self.rename(&names),
                2 if !names.is_empty() => {
                    let name = self.random.pick(&names).clone();
                    self.check(&name).map(|()| false)
                }
                _ => self.put(),
            }?;
            if done {
                self.world.count(self.index, start.elapsed());
            }
        }
        Ok(())
    }

    fn scratch(&self) -> PathBuf {
        self.sandbox.path("put")
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("/program/{}", self.made)
    }

    fn put(&mut self) -> Result<bool, String> {
        let (seed, len) = (self.made + 1, self.random.below(BYTES_MAX));
        let len = if self.random.one_in(3) { len } else { len % 90_000 };
        let name = self.name();
        fs::write(self.scratch(), random_bytes(seed, len)).map_err(|error| error.to_string())?;
        let outcome = self.sandbox.run(["put", &self.scratch().to_string_lossy(), &name]);
        let done = is_done(&outcome, &name)?;
        if done {
            self.files.insert(name, (seed, len));
        }
        Ok(done)
    }

    fn rename(&mut self, names: &[String]) -> Result<bool, String> {
        let (from, to) = (self.random.pick(names).clone(), self.name());
        let outcome = self.sandbox.run(["mv", &from, &to]);
        let done = is_done(&outcome, &from)?;
        let file = self.files.remove(&from).expect("it was picked from them");
        match done {
            true => drop(self.files.insert(to, file)),
            false => self.moves.push((from, to, file)),
        }
        Ok(done)
    }

    fn remove(&mut self, names: &[String]) -> Result<bool, String> {
        let name = self.random.pick(names).clone();
        self.files.remove(&name);
        is_done(&self.sandbox.run(["rm", &name]), &name)
    }

    fn check(&self, name: &str) -> Result<(), String> {
        let outcome = self.sandbox.command(["cat", name]).output();
        let outcome = outcome.map_err(|error| error.to_string())?;
        let (seed, len) = self.files[name];
        if outcome.status.success() && outcome.stdout != random_bytes(seed, len) {
            return Err(format!("{name}: {} bytes, not the {len} put there", outcome.stdout.len()));
        }
        let errors = String::from_utf8_lossy(&outcome.stderr);
        match outcome.status.success() || !errors.contains("no such") {
            true => Ok(()),
            false => Err(format!("{name}: {errors}")),
        }
    }

    /// Compares everything; the cluster is whole again.
    pub(crate) fn verify(&self) -> Result<(), String> {
        let root = self.world.root(0);
        let compare = |name: &str, (seed, len): (u64, usize)| {
            let bytes = fs::read(root.join(&name[1..]));
            let bytes = bytes.map_err(|error| format!("{name}: {error}"))?;
            match bytes == random_bytes(seed, len) {
                true => Ok(()),
                false => Err(format!("{name}: {} bytes, not the {len} put there", bytes.len())),
            }
        };
        self.files.iter().try_for_each(|(name, file)| compare(name, *file))?;
        self.moves.iter().try_for_each(|(from, to, file)| {
            let there = |name: &str| root.join(&name[1..]).exists();
            match (there(from), there(to)) {
                (true, false) => compare(from, *file),
                (false, true) => compare(to, *file),
                both => Err(format!("{from} moved to {to}: there are {both:?}")),
            }
        })
    }
}

/// Whether a command succeeded. Failing is fine while servers are away, dying is not.
fn is_done(outcome: &Outcome, name: &str) -> Result<bool, String> {
    match outcome.code {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(format!("{name}: {outcome:?}")),
    }
}
