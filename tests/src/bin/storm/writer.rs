//! A writer: random changes of its own directory and appends to shared files, through whichever
//! mount is there, each recorded after its call has returned.
//!
//! Invariant: the model holds what was acknowledged, and what has unknown outcome is told apart by
//! the error of the very call.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ringfs_tests::random::Random;
use rustix::io::Errno;

use crate::model::{Change, Model, Node};
use crate::records;
use crate::world::World;

/// Names that a writer keeps, more or less.
const NAMES_KEPT: usize = 60;
/// Longest write in bytes.
const WRITE_BYTES_MAX: usize = 200 << 10;
/// Longest file in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// A change that never happened is tried again for so long.
const PATIENCE: Duration = Duration::from_secs(100);
const PAUSE: Duration = Duration::from_millis(20);

/// What is wrong, in words. It ends the run.
pub(crate) type Finding = String;

/// What a call of a writer came to.
enum Outcome {
    Done,
    /// It certainly did not happen.
    NotDone(Errno),
    /// It may have happened, or may happen yet.
    Unknown(Errno),
    Refused(io::Error),
}

impl Outcome {
    fn of(result: io::Result<()>) -> Self {
        let Err(error) = result else { return Self::Done };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            // The mount had died before it was asked; names that were moved elsewhere meanwhile.
            Some(errno @ (Errno::NOTCONN | Errno::STALE | Errno::INTR)) => Self::NotDone(errno),
            Some(errno @ (Errno::CONNABORTED | Errno::IO)) => Self::Unknown(errno),
            _ => Self::Refused(error),
        }
    }

    /// The same of a call that changes nothing.
    fn of_question(result: io::Result<()>) -> Self {
        match Self::of(result) {
            Self::Unknown(errno) => Self::NotDone(errno),
            other => other,
        }
    }
}

/// One writer and what it knows.
pub(crate) struct Writer<'a> {
    world: &'a World,
    pub(crate) name: String,
    pub(crate) model: Model,
    random: Random,
    journal: File,
    /// Appended records that were acknowledged, and those of unknown outcome, by (file, number).
    pub(crate) appended: BTreeSet<(usize, u64)>,
    pub(crate) appended_maybe: BTreeSet<(usize, u64)>,
    appends: u64,
    index: usize,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(world: &'a World, index: usize, seed: u64) -> io::Result<Self> {
        let name = format!("w{index}");
        fs::create_dir(world.root(0).join(&name))?;
        Ok(Self {
            world,
            journal: File::create(world.journal(&name))?,
            name,
            model: Model::default(),
            random: Random::new(seed, index),
            appended: BTreeSet::new(),
            appended_maybe: BTreeSet::new(),
            appends: 0,
            index,
        })
    }

    /// Works until the world stops.
    pub(crate) fn run(&mut self) -> Result<(), Finding> {
        while !self.world.is_stopped() {
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Finding> {
        let is_full = self.model.len() > NAMES_KEPT;
        match self.random.below(20) {
            0..4 if !is_full => self.create(),
            4 if !is_full => {
                let path = self.model.fresh('d');
                self.change(Change::Mkdir { path })
            }
            5 if !is_full => self.link(),
            0..6 => self.remove(),
            6..9 => self.rename(),
            9..12 => self.write(false),
            12..14 => self.write(true),
            14 => self.resize(),
            15..18 => self.append(),
            _ => self.look(),
        }
    }

    fn create(&mut self) -> Result<(), Finding> {
        let path = self.fresh_path();
        self.change(Change::Create { path: path.clone() })?;
        let is_there = self.model.files().iter().any(|(name, _)| *name == path);
        if is_there && !self.random.one_in(8) {
            let data = self.bytes();
            self.change(Change::Write { path, offset: 0, data })?;
        }
        Ok(())
    }

    /// A new name in one of the directories.
    fn fresh_path(&mut self) -> String {
        let directories = self.model.directories();
        let parent = match self.random.below(directories.len() + 1).checked_sub(1) {
            Some(index) => format!("{}/", directories[index]),
            None => String::new(),
        };
        format!("{parent}{}", self.model.fresh('f'))
    }

    fn pick_file(&mut self) -> Option<(String, usize)> {
        let files = self.model.files();
        if files.is_empty() {
            return None;
        }
        let (path, file) = self.random.pick(&files);
        Some(((*path).to_owned(), *file))
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.random.below(3) {
            0 => 1 + self.random.below(5_000),
            1 => 1 + self.random.below(70 << 10),
            _ => 1 + self.random.below(WRITE_BYTES_MAX),
        };
        ringfs_tests::random_bytes(self.random.below(usize::MAX) as u64, len)
    }

    fn write(&mut self, at_end: bool) -> Result<(), Finding> {
        let Some((path, file)) = self.pick_file() else { return self.create() };
        let len = self.model.content(file).bytes.len();
        let offset = if at_end { len } else { self.random.below(len + 1) };
        if offset > FILE_BYTES_MAX {
            return self.change(Change::Resize { path, len: 1000 });
        }
        let data = self.bytes();
        self.change(Change::Write { path, offset, data })
    }

    fn resize(&mut self) -> Result<(), Finding> {
        let Some((path, file)) = self.pick_file() else { return self.create() };
        let len = self.random.below(self.model.content(file).bytes.len() + 10_000);
        self.change(Change::Resize { path, len })
    }

    fn link(&mut self) -> Result<(), Finding> {
        let Some((from, _)) = self.pick_file() else { return self.create() };
        let to = self.fresh_path();
        self.change(Change::Link { from, to })
    }

    fn remove(&mut self) -> Result<(), Finding> {
        let directories = self.model.directories();
        let empty = directories.into_iter().find(|path| self.model.is_empty(path));
        if let Some(path) = empty.map(str::to_owned)
            && self.random.one_in(3)
        {
            return self.change(Change::Rmdir { path });
        }
        let Some((path, _)) = self.pick_file() else { return self.create() };
        self.change(Change::Unlink { path })
    }

    fn rename(&mut self) -> Result<(), Finding> {
        let directories = self.model.directories();
        let certain: Vec<&str> =
            directories.into_iter().filter(|path| self.model.is_certain(path)).collect();
        if !certain.is_empty() && self.random.one_in(4) {
            let from = (*self.random.pick(&certain)).to_owned();
            let to = self.model.fresh('d');
            return self.change(Change::Rename { from, to });
        }
        let Some((from, file)) = self.pick_file() else { return self.create() };
        let over = self.pick_file().filter(|(to, other)| *to != from && *other != file);
        let to = match over {
            Some((to, _)) if self.random.one_in(4) => to,
            _ => self.fresh_path(),
        };
        self.change(Change::Rename { from, to })
    }

    /// Carries out a change until its outcome is known, or known to be unknown.
    fn change(&mut self, change: Change) -> Result<(), Finding> {
        let sync = self.random.one_in(8);
        let start = Instant::now();
        loop {
            let outcome = self.world.on_a_mount(self.index, self.random.below(2), |root| {
                execute(&root.join(&self.name), &change, sync)
            });
            self.record(&change, &outcome)?;
            match outcome {
                Outcome::Done => {
                    self.world.count(self.index, start.elapsed());
                    self.model.apply(&change);
                    return Ok(());
                }
                Outcome::Unknown(_) => {
                    self.model.doubt(&change);
                    return Ok(());
                }
                Outcome::NotDone(_) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Outcome::NotDone(errno) => {
                    return Err(format!("{}: {change:?}: still {errno}", self.name));
                }
                Outcome::Refused(error) => {
                    return Err(format!("{}: {change:?}: {error}", self.name));
                }
            }
        }
    }

    fn record(&mut self, change: &Change, outcome: &Outcome) -> Result<(), Finding> {
        let ending = match outcome {
            Outcome::Done => "done".to_owned(),
            Outcome::NotDone(errno) => format!("not done: {errno}"),
            Outcome::Unknown(errno) => format!("unknown: {errno}"),
            Outcome::Refused(error) => format!("refused: {error}"),
        };
        let what = match change {
            Change::Write { path, offset, data } => format!("write {path} {offset}+{}", data.len()),
            other => format!("{other:?}"),
        };
        let written = writeln!(self.journal, "{:9.3} {what}: {ending}", self.world.seconds());
        written.map_err(|error| format!("the journal of {}: {error}", self.name))
    }

    /// Appends a record to a shared file.
    fn append(&mut self) -> Result<(), Finding> {
        let file = self.random.below(records::FILES);
        self.appends += 1;
        let (number, len) = (self.appends, self.random.below(100 << 10));
        let len = if self.random.one_in(2) { len % 500 } else { len };
        let record = records::encode(self.index as u64, number, len);
        let start = Instant::now();
        loop {
            let outcome = self.world.on_a_mount(self.index, self.random.below(2), |root| {
                append(&root.join(records::path(file)), &record)
            });
            match outcome {
                Outcome::Done => {
                    self.world.count(self.index, start.elapsed());
                    self.appended.insert((file, number));
                    return Ok(());
                }
                Outcome::Unknown(_) => {
                    self.appended_maybe.insert((file, number));
                    return Ok(());
                }
                Outcome::NotDone(_) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Outcome::NotDone(errno) => return Err(format!("append {number}: still {errno}")),
                Outcome::Refused(error) => return Err(format!("append {number}: {error}")),
            }
        }
    }

    /// Reads one of its files: what was acknowledged is there at any time.
    fn look(&mut self) -> Result<(), Finding> {
        let Some((path, file)) = self.pick_file() else { return self.create() };
        let start = Instant::now();
        loop {
            let mut found = Vec::new();
            let outcome = self.world.on_a_mount(self.index, self.random.below(2), |root| {
                let read = fs::read(root.join(&self.name).join(&path));
                Outcome::of_question(read.map(|bytes| found = bytes))
            });
            match outcome {
                Outcome::Done => {
                    let judged = self.model.content(file).judge(&found);
                    return judged.map_err(|why| self.finding(&path, &why));
                }
                Outcome::NotDone(_) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Outcome::NotDone(error) | Outcome::Unknown(error) => {
                    return Err(self.finding(&path, &format!("reading: still {error}")));
                }
                Outcome::Refused(error) => {
                    return Err(self.finding(&path, &format!("reading: {error}")));
                }
            }
        }
    }

    /// What is wrong with a path, and the part of the journal that tells how it came to be.
    fn finding(&self, path: &str, why: &str) -> Finding {
        let journal = fs::read_to_string(self.world.journal(&self.name)).unwrap_or_default();
        let told = |line: &&str| line.split([' ', '"']).any(|word| word == path);
        let history: Vec<&str> = journal.lines().filter(told).collect();
        format!("{}/{path}: {why}\n{}", self.name, history.join("\n"))
    }

    /// Compares everything with what the mounts show.
    pub(crate) fn verify(&self) -> Result<(), Finding> {
        for index in 0..crate::world::MOUNTS {
            let root = self.world.root(index).join(&self.name);
            let mut found = BTreeSet::new();
            list(&root, Path::new(""), &mut found)
                .map_err(|error| self.finding("", &error.to_string()))?;
            let expected = self.model.settled(|path| found.contains(path));
            let expected = expected.map_err(|why| self.finding("", &why))?;
            if let Some(path) = found.iter().find(|path| !expected.contains_key(*path)) {
                return Err(
                    self.finding(path, "it is there, though nobody made it or it was removed")
                );
            }
            for (path, node) in &expected {
                if !found.contains(path) {
                    return Err(self.finding(path, "it is gone"));
                }
                if let Node::File(file) = node {
                    let bytes = fs::read(root.join(path));
                    let bytes = bytes.map_err(|error| self.finding(path, &error.to_string()))?;
                    let judged = self.model.content(*file).judge(&bytes);
                    judged.map_err(|why| self.finding(path, &why))?;
                }
            }
        }
        Ok(())
    }
}

fn list(root: &Path, below: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        }
        found.insert(path.to_string_lossy().into_owned());
    }
    Ok(())
}

/// Carries out a change below `root`. What only prepares it, such as an open, changes nothing.
fn execute(root: &Path, change: &Change, sync: bool) -> Outcome {
    let at = |path: &String| root.join(path);
    let result = match change {
        Change::Create { path } => {
            File::options().write(true).create_new(true).open(at(path)).map(drop)
        }
        Change::Mkdir { path } => fs::create_dir(at(path)),
        Change::Unlink { path } => fs::remove_file(at(path)),
        Change::Rmdir { path } => fs::remove_dir(at(path)),
        Change::Link { from, to } => fs::hard_link(at(from), at(to)),
        Change::Rename { from, to } => fs::rename(at(from), at(to)),
        Change::Write { path, offset, data } => match open(&at(path), false) {
            Ok(file) => {
                return write(&file, sync, |file| file.write_at(data, *offset as u64), data.len());
            }
            Err(outcome) => return outcome,
        },
        Change::Resize { path, len } => match open(&at(path), false) {
            Ok(file) => file.set_len(*len as u64),
            Err(outcome) => return outcome,
        },
    };
    Outcome::of(result)
}

fn append(path: &Path, record: &[u8]) -> Outcome {
    match open(path, true) {
        Ok(file) => write(&file, false, |mut file| file.write(record), record.len()),
        Err(outcome) => outcome,
    }
}

fn open(path: &Path, append: bool) -> Result<File, Outcome> {
    let opened = File::options().write(true).append(append).open(path);
    opened.map_err(|error| Outcome::of_question(Err(error)))
}

/// One write call, and a sync if asked for: its failure takes nothing back.
fn write(
    file: &File,
    sync: bool,
    call: impl Fn(&File) -> io::Result<usize>,
    len: usize,
) -> Outcome {
    match call(file) {
        Ok(written) if written == len => {
            if sync {
                // What was written is acknowledged whatever comes of this.
                let _ = file.sync_all();
            }
            Outcome::Done
        }
        // The rest failed, or nobody would have told.
        Ok(_) => Outcome::Unknown(Errno::IO),
        Err(error) => Outcome::of(Err(error)),
    }
}
