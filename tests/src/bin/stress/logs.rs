//! Logs: all threads append records to a few files at once, with O_APPEND and no other order.
//!
//! Invariant: whoever reads a log finds every record acknowledged before, whole and once, and
//! nothing that nobody appended. What lies behind the last record acknowledged may be torn only
//! while somebody is appending.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use crate::world::{Failure, Mount, Step, Worker};

const LOGS: usize = 2;
/// A log is emptied when it is this long: longer than the head and than one page of replies.
const LENGTH_MAX: u64 = 200 << 10;
/// Length of the longest record.
const RECORD_MAX: usize = 400;
/// Identifier, length, and at least one byte.
const RECORD_MIN: usize = 17;

#[derive(Debug, Default)]
struct Records {
    /// Identifiers of records whose append has begun.
    begun: BTreeSet<u64>,
    /// Those that were acknowledged.
    acknowledged: BTreeSet<u64>,
}

#[derive(Debug)]
struct Log {
    path: PathBuf,
    records: Mutex<Records>,
    begun_bytes: AtomicU64,
    acknowledged_bytes: AtomicU64,
    /// Held for writing while the log is emptied.
    life: RwLock<()>,
    append: [File; 2],
    read: [File; 2],
}

/// All logs.
#[derive(Debug)]
pub(crate) struct Logs {
    logs: Vec<Log>,
}

impl Logs {
    /// Makes empty logs.
    pub(crate) fn new(roots: &[PathBuf; 2]) -> io::Result<Self> {
        let mut logs = Vec::new();
        for index in 0..LOGS {
            let path = PathBuf::from(format!("log-{index}"));
            File::create_new(roots[index % 2].join(&path))?;
            let append = |root: &PathBuf| OpenOptions::new().append(true).open(root.join(&path));
            logs.push(Log {
                records: Mutex::default(),
                begun_bytes: AtomicU64::new(0),
                acknowledged_bytes: AtomicU64::new(0),
                life: RwLock::new(()),
                append: [append(&roots[0])?, append(&roots[1])?],
                read: [File::open(roots[0].join(&path))?, File::open(roots[1].join(&path))?],
                path,
            });
        }
        Ok(Self { logs })
    }

    /// Appends a record; now and then empties the log.
    pub(crate) fn append(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let log = worker.random.pick(&self.logs);
        if log.begun_bytes.load(Ordering::SeqCst) > LENGTH_MAX {
            return log.empty(worker, mount);
        }
        log.append(worker, mount)
    }

    /// Reads or measures a log.
    pub(crate) fn look(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let log = worker.random.pick(&self.logs);
        if worker.random.one_in(4) { log.read(worker, mount) } else { log.measure(worker, mount) }
    }
}

/// A record: identifier, length, then bytes that follow from the identifier.
fn record(id: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(id.to_le_bytes());
    bytes.extend((length as u64).to_le_bytes());
    bytes.resize(length, id.to_le_bytes()[0] | 1);
    bytes
}

/// Splits a log into the identifiers of its whole records and what is left over.
fn parse(bytes: &[u8]) -> (Vec<u64>, usize) {
    let mut ids = Vec::new();
    let mut rest = bytes;
    while let Some((head, _)) = rest.split_at_checked(16) {
        let (id, length) = head.split_at(8);
        let id = u64::from_le_bytes(id.try_into().expect("eight bytes"));
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let whole = (RECORD_MIN..=RECORD_MAX).contains(&length)
            && rest.get(..length).is_some_and(|bytes| bytes == record(id, length));
        if !whole {
            break;
        }
        ids.push(id);
        rest = &rest[length..];
    }
    (ids, rest.len())
}

impl Log {
    fn append(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let world = worker.world;
        let _alive = self.life.read().unwrap_or_else(PoisonError::into_inner);
        let id = world.fresh_id();
        let length = RECORD_MIN + worker.random.below(RECORD_MAX - RECORD_MIN + 1);
        let bytes = record(id, length);
        self.records().begun.insert(id);
        self.begun_bytes.fetch_add(length as u64, Ordering::SeqCst);
        let mut file = &self.append[mount.index()];
        let (_, written) = worker.must("append", mount, &self.path, || file.write(&bytes))?;
        if written != length {
            let expected = format!("{length} bytes appended");
            return Err(self.stale(mount, expected, format!("{written} bytes")));
        }
        self.records().acknowledged.insert(id);
        self.acknowledged_bytes.fetch_add(length as u64, Ordering::SeqCst);
        // The hand-off: whoever looks now, by the other mount, finds it.
        if worker.random.one_in(8) { self.read_alive(worker, mount.other()) } else { Ok(()) }
    }

    fn empty(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let path = worker.world.path(mount, &self.path);
        let Ok(_dead) = self.life.try_write() else { return Ok(()) };
        if self.begun_bytes.load(Ordering::SeqCst) <= LENGTH_MAX {
            return Ok(());
        }
        self.read_alive(worker, mount)?;
        worker.must("log-empty", mount, &self.path, || {
            OpenOptions::new().write(true).truncate(true).open(&path)
        })?;
        *self.records() = Records::default();
        self.begun_bytes.store(0, Ordering::SeqCst);
        self.acknowledged_bytes.store(0, Ordering::SeqCst);
        Ok(())
    }

    fn measure(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let _alive = self.life.read().unwrap_or_else(PoisonError::into_inner);
        let path = worker.world.path(mount, &self.path);
        let least = self.acknowledged_bytes.load(Ordering::SeqCst);
        let (_, metadata) = worker.must("log-stat", mount, &self.path, || fs::metadata(&path))?;
        let most = self.begun_bytes.load(Ordering::SeqCst);
        if (least..=most).contains(&metadata.len()) {
            return Ok(());
        }
        let seen = format!("length {}", metadata.len());
        Err(self.stale(mount, format!("length from {least} to {most}"), seen))
    }

    fn read(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let _alive = self.life.read().unwrap_or_else(PoisonError::into_inner);
        self.read_alive(worker, mount)
    }

    fn read_alive(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let expected = self.records().acknowledged.clone();
        let path = worker.world.path(mount, &self.path);
        let fresh = worker.random.one_in(2);
        let open = &self.read[mount.index()];
        let (_, bytes) = worker.must("log-read", mount, &self.path, || {
            let mut bytes = Vec::new();
            if fresh {
                io::Read::read_to_end(&mut File::open(&path)?, &mut bytes)?;
            } else {
                bytes = vec![0; 2 * usize::try_from(LENGTH_MAX).map_err(io::Error::other)?];
                let count = std::os::unix::fs::FileExt::read_at(open, &mut bytes, 0)?;
                bytes.truncate(count);
            }
            Ok(bytes)
        })?;
        let (ids, rest) = parse(&bytes);
        let records = self.records();
        let found: BTreeSet<u64> = ids.iter().copied().collect();
        if found.len() != ids.len() {
            return Err(self.stale(mount, "each record once".to_owned(), "one twice".to_owned()));
        }
        if let Some(strange) = found.difference(&records.begun).next() {
            let expected = "records that were appended".to_owned();
            return Err(self.stale(mount, expected, format!("record {strange}")));
        }
        if let Some(lost) = expected.difference(&found).next() {
            let after = format!("{} whole records and {rest} other bytes", ids.len());
            let expected = format!("acknowledged record {lost} (of {})", expected.len());
            return Err(self.stale(mount, expected, format!("not in {after}")));
        }
        Ok(())
    }

    fn stale(&self, mount: Mount, expected: String, seen: String) -> Failure {
        Failure::Stale { object: self.path.display().to_string(), mount, expected, seen }
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, record};

    #[test]
    fn whole_records_are_found_and_a_torn_one_is_not() {
        let mut bytes = [record(7, 17), record(300, 250)].concat();
        assert_eq!(parse(&bytes), (vec![7, 300], 0));
        bytes.truncate(200);
        assert_eq!(parse(&bytes), (vec![7], 183));
        bytes[20] ^= 1;
        assert_eq!(parse(&bytes).0, [7]);
    }
}
