//! The writers of one round. Each notes what a sync has acknowledged, and when.
//!
//! Invariant: a promise counts only if it was given before the power was cut; what was asked for and
//! not promised may be there or not. Each writer has one directory, so one home.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ringfs_tests::random::Random;
use ringfs_tests::random_bytes;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::pieces::{self, BLOCK_BYTES};

/// Blocks of the file that is overwritten: its head, and two chunks of 4 MiB.
const BLOCKS: usize = (6 << 20) / BLOCK_BYTES;
/// Longest file in bytes.
const FILE_BYTES_MAX: usize = 300 << 10;
const RECORD_BYTES_MAX: usize = 20_000;

/// A thing that a writer does until the power goes.
pub(crate) trait Writer: Send {
    /// Begins anew in an empty directory.
    fn begin(&mut self, directory: &Path) -> io::Result<()>;
    /// One step; an error is taken for the end of the world.
    fn step(&mut self) -> io::Result<()>;
    /// What is wrong after the power was cut at `moment`, if anything.
    fn verify(&self, directory: &Path, moment: Instant) -> Result<(), String>;
    /// Promises given before `moment`.
    fn promises(&self, moment: Instant) -> usize;
}

/// Steps until stopped or cut off; returns an error that no loss of power explains.
pub(crate) fn run(writer: &mut dyn Writer, stop: &AtomicBool) -> Result<(), String> {
    while !stop.load(Ordering::SeqCst) {
        if let Err(error) = writer.step() {
            // What a writer sees of the end: dead servers and a dead mount. One that outlived its
            // servers may also meet the past.
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            let is_end = matches!(errno, Some(Errno::NOTCONN | Errno::CONNABORTED | Errno::IO));
            return if is_end || stop.load(Ordering::SeqCst) {
                Ok(())
            } else {
                Err(error.to_string())
            };
        }
    }
    Ok(())
}

fn before(promised: Option<Instant>, moment: Instant) -> bool {
    promised.is_some_and(|promised| promised < moment)
}

/// Syncs, or only says so: what is promised then gets lost, which has to be seen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Syncs {
    Carried,
    Omitted,
}

impl Syncs {
    fn file(self, file: &File) -> io::Result<()> {
        match self {
            Self::Carried => file.sync_all(),
            Self::Omitted => Ok(()),
        }
    }

    fn data(self, file: &File) -> io::Result<()> {
        match self {
            Self::Carried => file.sync_data(),
            Self::Omitted => Ok(()),
        }
    }

    fn directory(self, directory: &Path) -> io::Result<()> {
        self.file(&File::open(directory)?)
    }
}

/// Makes files and syncs most of them and their names; removes some again, and syncs that.
pub(crate) struct Files {
    syncs: Syncs,
    directory: PathBuf,
    random: Random,
    /// Per file its length, when it was promised, and when its removal was asked for and promised.
    files: Vec<MadeFile>,
}

struct MadeFile {
    len: usize,
    promised: Option<Instant>,
    removal: Option<Option<Instant>>,
}

impl Files {
    pub(crate) fn new(random: Random, syncs: Syncs) -> Self {
        Self { syncs, directory: PathBuf::new(), random, files: Vec::new() }
    }

    fn content(index: usize, len: usize) -> Vec<u8> {
        random_bytes(index as u64 + 77, len)
    }

    fn remove(&mut self, index: usize) -> io::Result<()> {
        self.files[index].removal = Some(None);
        fs::remove_file(self.directory.join(index.to_string()))?;
        self.syncs.directory(&self.directory)?;
        self.files[index].removal = Some(Some(Instant::now()));
        Ok(())
    }
}

impl Writer for Files {
    fn begin(&mut self, directory: &Path) -> io::Result<()> {
        self.directory = directory.to_owned();
        self.files.clear();
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        let index = self.files.len();
        if index > 4 && self.random.one_in(4) {
            let chosen = self.random.below(index);
            if self.files[chosen].removal.is_none() {
                return self.remove(chosen);
            }
        }
        let len = self.random.below(FILE_BYTES_MAX);
        let len = if self.random.one_in(2) { len % 9_000 } else { len };
        self.files.push(MadeFile { len, promised: None, removal: None });
        let mut file = File::create_new(self.directory.join(index.to_string()))?;
        file.write_all(&Self::content(index, len))?;
        if !self.random.one_in(4) {
            self.syncs.file(&file)?;
            self.syncs.directory(&self.directory)?;
            self.files[index].promised = Some(Instant::now());
        }
        Ok(())
    }

    fn verify(&self, directory: &Path, moment: Instant) -> Result<(), String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(|error| error.to_string())? {
            let entry = entry.map_err(|error| error.to_string())?;
            let bytes = fs::read(entry.path());
            let bytes = bytes.map_err(|error| format!("{:?}: {error}", entry.path()))?;
            found.insert(entry.file_name().to_string_lossy().into_owned(), bytes);
        }
        for (index, made) in self.files.iter().enumerate() {
            let expected = Self::content(index, made.len);
            let is_promised = before(made.promised, moment);
            let found = found.remove(&index.to_string());
            let judged = match (found, made.removal) {
                (Some(_), Some(removed)) if before(removed, moment) => {
                    Err("its removal was synced, and it is back".to_owned())
                }
                (None, None) if is_promised => Err("it was synced, and it is gone".to_owned()),
                (Some(bytes), _) if is_promised && bytes != expected => {
                    Err(format!("{} bytes were synced, {} others are there", made.len, bytes.len()))
                }
                (Some(bytes), _) => pieces::judge_unsynced(&bytes, &expected),
                (None, _) => Ok(()),
            };
            judged.map_err(|why| format!("file {index}: {why}"))?;
        }
        match found.pop_first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("{name}: nobody made it")),
        }
    }

    fn promises(&self, moment: Instant) -> usize {
        let made = self.files.iter().filter(|made| before(made.promised, moment)).count();
        let removed = |made: &&MadeFile| before(made.removal.flatten(), moment);
        made + self.files.iter().filter(removed).count()
    }
}

/// Overwrites blocks of one file in any order, and syncs it now and then.
pub(crate) struct Blocks {
    syncs: Syncs,
    random: Random,
    file: Option<File>,
    /// Per block all versions, asked for or acknowledged.
    written: Vec<Vec<u64>>,
    /// The version up to which everything was promised, and when.
    promised: Vec<(Instant, u64)>,
    version: u64,
}

impl Blocks {
    pub(crate) fn new(random: Random, syncs: Syncs) -> Self {
        Self { syncs, random, file: None, written: Vec::new(), promised: Vec::new(), version: 0 }
    }
}

impl Writer for Blocks {
    fn begin(&mut self, directory: &Path) -> io::Result<()> {
        self.written = vec![vec![0]; BLOCKS];
        self.promised.clear();
        let file = File::create_new(directory.join("blocks"))?;
        file.set_len((BLOCKS * BLOCK_BYTES) as u64)?;
        self.syncs.file(&file)?;
        self.syncs.directory(directory)?;
        self.promised.push((Instant::now(), self.version));
        self.file = Some(file);
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        let file = self.file.as_ref().expect("it has begun");
        if self.random.one_in(6) {
            self.syncs.data(file)?;
            self.promised.push((Instant::now(), self.version));
            return Ok(());
        }
        let first = self.random.below(BLOCKS);
        let count = (1 + self.random.below(40)).min(BLOCKS - first);
        self.version += 1;
        let mut bytes = Vec::with_capacity(count * BLOCK_BYTES);
        for index in first..first + count {
            self.written[index].push(self.version);
            bytes.extend(pieces::block(index, self.version));
        }
        file.write_all_at(&bytes, (first * BLOCK_BYTES) as u64)
    }

    fn verify(&self, directory: &Path, moment: Instant) -> Result<(), String> {
        let promised = self.promised.iter().rev().find(|(at, _)| *at < moment);
        let Some((_, promised)) = promised else { return Ok(()) };
        let found = fs::read(directory.join("blocks")).map_err(|error| error.to_string())?;
        if found.len() != BLOCKS * BLOCK_BYTES {
            return Err(format!("{} bytes", found.len()));
        }
        for (index, bytes) in found.chunks(BLOCK_BYTES).enumerate() {
            let versions = &self.written[index];
            let synced = versions.iter().rposition(|version| version <= promised).unwrap_or(0);
            pieces::judge_block(bytes, index, &versions[synced..])?;
        }
        Ok(())
    }

    fn promises(&self, moment: Instant) -> usize {
        self.promised.iter().filter(|(at, _)| *at < moment).count()
    }
}

/// Renames one file from name to name and from directory to directory.
pub(crate) struct Names {
    syncs: Syncs,
    random: Random,
    directory: PathBuf,
    /// The number in the name, as asked for.
    number: usize,
    promised: Vec<(Instant, usize)>,
}

impl Names {
    pub(crate) fn new(random: Random, syncs: Syncs) -> Self {
        Self { syncs, random, directory: PathBuf::new(), number: 0, promised: Vec::new() }
    }

    fn name(number: usize) -> String {
        format!("{}/n{number}", ["one", "two", "three"][number % 3])
    }

    fn sync(&mut self) -> io::Result<()> {
        for place in ["one", "two", "three"] {
            self.syncs.directory(&self.directory.join(place))?;
        }
        self.promised.push((Instant::now(), self.number));
        Ok(())
    }
}

impl Writer for Names {
    fn begin(&mut self, directory: &Path) -> io::Result<()> {
        self.directory = directory.to_owned();
        self.number = 0;
        self.promised.clear();
        for place in ["one", "two", "three"] {
            fs::create_dir(directory.join(place))?;
        }
        fs::write(directory.join(Self::name(0)), b"name")?;
        self.syncs.directory(directory)?;
        self.sync()
    }

    fn step(&mut self) -> io::Result<()> {
        if self.random.one_in(5) {
            return self.sync();
        }
        let from = self.directory.join(Self::name(self.number));
        self.number += 1;
        fs::rename(from, self.directory.join(Self::name(self.number)))
    }

    fn verify(&self, directory: &Path, moment: Instant) -> Result<(), String> {
        let promised = self.promised.iter().rev().find(|(at, _)| *at < moment);
        let Some((_, low)) = promised else { return Ok(()) };
        let is_there = |number: &usize| directory.join(Self::name(*number)).exists();
        let found: Vec<usize> = (0..=self.number).filter(is_there).collect();
        match found[..] {
            [one] if one >= *low => Ok(()),
            _ => Err(format!("names {found:?}, not one from {low} to {}", self.number)),
        }
    }

    fn promises(&self, moment: Instant) -> usize {
        self.promised.iter().filter(|(at, _)| *at < moment).count()
    }
}

/// Appends to one file, and syncs it now and then; or has the system sync each record.
pub(crate) struct Appends {
    syncs: Syncs,
    each: OFlags,
    random: Random,
    file: Option<File>,
    written: Vec<u8>,
    promised: Vec<(Instant, usize)>,
}

impl Appends {
    pub(crate) fn new(random: Random, syncs: Syncs, each: OFlags) -> Self {
        let (written, promised) = (Vec::new(), Vec::new());
        Self { syncs, each, random, file: None, written, promised }
    }
}

impl Writer for Appends {
    fn begin(&mut self, directory: &Path) -> io::Result<()> {
        self.written.clear();
        self.promised.clear();
        let path = directory.join("log");
        let flags = self.each.bits().cast_signed();
        let file = File::options().append(true).create_new(true).custom_flags(flags).open(path)?;
        self.syncs.file(&file)?;
        self.syncs.directory(directory)?;
        self.promised.push((Instant::now(), 0));
        self.file = Some(file);
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        let mut file = self.file.as_ref().expect("it has begun");
        if self.random.one_in(4) {
            self.syncs.file(file)?;
            self.promised.push((Instant::now(), self.written.len()));
            return Ok(());
        }
        let len = 1 + self.random.below(RECORD_BYTES_MAX);
        let record = random_bytes(self.written.len() as u64, len);
        self.written.extend(&record);
        file.write_all(&record)?;
        if !self.each.is_empty() {
            self.promised.push((Instant::now(), self.written.len()));
        }
        Ok(())
    }

    fn verify(&self, directory: &Path, moment: Instant) -> Result<(), String> {
        let promised = self.promised.iter().rev().find(|(at, _)| *at < moment);
        let Some((_, synced)) = promised else { return Ok(()) };
        let found = fs::read(directory.join("log")).map_err(|error| error.to_string())?;
        if found.len() < *synced || found[..*synced] != self.written[..*synced] {
            let (found, synced) = (found.len(), synced);
            return Err(format!("of {synced} bytes synced {found} are there, or others"));
        }
        Ok(())
    }

    fn promises(&self, moment: Instant) -> usize {
        self.promised.iter().filter(|(at, _)| *at < moment).count()
    }
}

/// Makes files in one directory and never syncs: they disappear latest first.
pub(crate) struct Order {
    directory: PathBuf,
    /// When each was acknowledged.
    made: Vec<Option<Instant>>,
}

impl Order {
    pub(crate) fn new() -> Self {
        Self { directory: PathBuf::new(), made: Vec::new() }
    }
}

/// A background sync begins within a second, and this is what it may take on a busy machine.
const BACKGROUND_SYNC_SECONDS_MAX: f64 = 8.0;

impl Writer for Order {
    fn begin(&mut self, directory: &Path) -> io::Result<()> {
        self.directory = directory.to_owned();
        self.made.clear();
        Ok(())
    }

    fn step(&mut self) -> io::Result<()> {
        self.made.push(None);
        let name = (self.made.len() - 1).to_string();
        File::create_new(self.directory.join(name))?;
        if let Some(last) = self.made.last_mut() {
            *last = Some(Instant::now());
        }
        Ok(())
    }

    fn verify(&self, directory: &Path, moment: Instant) -> Result<(), String> {
        let is_there = |index: usize| directory.join(index.to_string()).exists();
        // What was under way may be carried out when the servers are back.
        let made = self.made.iter().filter(|made| before(**made, moment)).count();
        let kept = (0..made).take_while(|index| is_there(*index)).count();
        if let Some(later) = (kept..made).find(|index| is_there(*index)) {
            return Err(format!("file {kept} is lost, and the younger {later} is not"));
        }
        let oldest_lost = self.made.get(kept).copied().flatten();
        let age =
            oldest_lost.map_or(0.0, |made| moment.saturating_duration_since(made).as_secs_f64());
        match age < BACKGROUND_SYNC_SECONDS_MAX {
            true => Ok(()),
            false => Err(format!("file {kept} is lost, {age:.1} s after it was acknowledged")),
        }
    }

    fn promises(&self, _: Instant) -> usize {
        0
    }
}
