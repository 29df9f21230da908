//! Texts: whole files whose length and bytes change together: written, extended, appended to, cut,
//! punched and emptied through one mount, read and measured through both. Some texts are open for
//! writing from beginning to end; others only while they are changed, so that mounts may cache what
//! is read in between.
//!
//! Invariant: one register per text holds all its bytes. A text starts at a place of its file that
//! lies just before the end of the head or of a chunk; nothing is ever written before that place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

use crate::bytes::check_bytes;
use crate::oracle::{Legal, Register, Window};
use crate::world::{Failure, Mount, Step, Worker};

/// Where the texts start: at the beginning, before the end of the head, before the end of a chunk.
const STARTS: [u64; 6] =
    [0, 0, (64 << 10) - 5000, (64 << 10) - 5000, (4 << 20) - 7000, (8 << 20) - 1];
/// So many texts are not kept open; they start as the first ones do.
const CLOSED: usize = 4;
/// Length of a text at most.
const LENGTH_MAX: usize = 48 << 10;
/// Bytes that one change writes at most.
const WRITE_MAX: usize = 9000;
/// States remembered per text; each is a copy of all its bytes.
const HISTORY_VERSIONS: usize = 128;

#[derive(Debug)]
struct Text {
    path: PathBuf,
    start: u64,
    bytes: Register<Arc<Vec<u8>>>,
    /// Open through either mount from beginning to end, unless it is opened anew for each call.
    kept: Option<[Open; 2]>,
}

/// A text open through one mount.
#[derive(Debug)]
struct Open {
    file: File,
    /// The same for appending.
    append: File,
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { file, append: OpenOptions::new().append(true).open(path)? })
    }
}

/// All texts.
#[derive(Debug)]
pub(crate) struct Texts {
    texts: Vec<Text>,
}

/// One way to change a text.
#[derive(Clone, Copy, Debug)]
enum Change {
    Write {
        at: usize,
        length: usize,
    },
    Append {
        length: usize,
    },
    Cut {
        length: usize,
    },
    Punch {
        at: usize,
        length: usize,
    },
    /// Opens with O_TRUNC; only where the text starts at the file's beginning.
    Empty,
}

impl Change {
    fn pick(worker: &mut Worker<'_>, text: &Text, now: usize) -> Self {
        let length = 1 + worker.random.below(WRITE_MAX);
        let at = worker.random.below(now + 1);
        match worker.random.below(12) {
            0..=2 => Self::Append { length },
            3 => Self::Cut { length: worker.random.below(LENGTH_MAX) },
            4 => Self::Cut { length: at },
            5 if worker.world.abilities.punch && at < now => {
                Self::Punch { at, length: length.min(now - at) }
            }
            6 if text.start == 0 => Self::Empty,
            // Leaves a hole behind the old end.
            7 => Self::Write { at: now + worker.random.below(2 * WRITE_MAX), length },
            _ => Self::Write { at, length },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Write { .. } => "text-write",
            Self::Append { .. } => "text-append",
            Self::Cut { .. } => "truncate",
            Self::Punch { .. } => "text-punch",
            Self::Empty => "open-truncate",
        }
    }

    /// The text after the change.
    fn apply(self, before: &[u8], byte: u8) -> Vec<u8> {
        let mut bytes = before.to_vec();
        match self {
            Self::Write { at, length } => {
                bytes.resize(bytes.len().max(at + length), 0);
                bytes[at..at + length].fill(byte);
            }
            Self::Append { length } => bytes.resize(before.len() + length, byte),
            Self::Cut { length } => bytes.resize(length, 0),
            Self::Punch { at, length } => bytes[at..at + length].fill(0),
            Self::Empty => bytes.clear(),
        }
        bytes
    }
}

impl Texts {
    /// Makes the files, each as long as the place where its text starts.
    pub(crate) fn new(roots: &[PathBuf; 2]) -> io::Result<Self> {
        let mut texts = Vec::new();
        let kept = STARTS.iter().map(|start| (*start, true));
        let closed = STARTS.iter().take(CLOSED).map(|start| (*start, false));
        for (index, (start, is_kept)) in kept.chain(closed).enumerate() {
            let path = PathBuf::from(format!("text-{index}"));
            File::create_new(roots[index % 2].join(&path))?.set_len(start)?;
            let open = |root: &PathBuf| Open::new(&root.join(&path));
            let kept = if is_kept { Some([open(&roots[0])?, open(&roots[1])?]) } else { None };
            texts.push(Text {
                kept,
                path,
                start,
                bytes: Register::with_history(Arc::default(), HISTORY_VERSIONS),
            });
        }
        Ok(Self { texts })
    }

    /// One change through `mount`, looked at through both mounts before and after.
    pub(crate) fn hand_off(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let text = worker.random.pick(&self.texts);
        if !worker.random.one_in(4) {
            text.observe(worker, mount.other())?;
        }
        text.change(worker, mount)?;
        text.observe(worker, mount.other())?;
        if worker.random.one_in(4) { text.observe(worker, mount) } else { Ok(()) }
    }

    /// One observation of a text.
    pub(crate) fn look(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        worker.random.pick(&self.texts).observe(worker, mount)
    }
}

impl Text {
    fn change(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let world = worker.world;
        let Some(pen) = self.bytes.try_pen() else { return Ok(()) };
        let before = pen.current();
        let mut change = Change::pick(worker, self, before.len());
        let byte = u8::try_from(1 + world.fresh_id() % 251).expect("a byte");
        let mut after = change.apply(&before, byte);
        if after.len() > LENGTH_MAX {
            change = Change::Cut { length: worker.random.below(WRITE_MAX) };
            after = change.apply(&before, byte);
        }
        let name = change.name();
        pen.begin(&world.clock, Arc::new(after), worker.by(mount, name));
        let path = world.path(mount, &self.path);
        let through_handle = worker.random.one_in(2);
        worker.must(name, mount, &self.path, || {
            let fresh = if self.kept.is_none() { Some(Open::new(&path)?) } else { None };
            let kept = self.kept.as_ref().map(|kept| &kept[mount.index()]);
            let Open { file, append } = kept.or(fresh.as_ref()).expect("one of the two");
            match change {
                Change::Write { at, length } => {
                    file.write_all_at(&vec![byte; length], self.start + at as u64)
                }
                Change::Append { length } => {
                    io::Write::write_all(&mut &*append, &vec![byte; length])
                }
                Change::Cut { length } if through_handle => {
                    file.set_len(self.start + length as u64)
                }
                Change::Cut { length } => {
                    OpenOptions::new().write(true).open(&path)?.set_len(self.start + length as u64)
                }
                Change::Punch { at, length } => {
                    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    let offset = self.start + at as u64;
                    fallocate(file, flags, offset, length as u64).map_err(io::Error::from)
                }
                Change::Empty => {
                    OpenOptions::new().write(true).truncate(true).open(&path).map(drop)
                }
            }
        })?;
        pen.end(&world.clock);
        if worker.random.one_in(4) { self.agree(worker) } else { Ok(()) }
    }

    /// Between two changes both mounts show the same times.
    fn agree(&self, worker: &mut Worker<'_>) -> Step {
        let mut seen = Vec::new();
        for mount in [worker.home, worker.home.other()] {
            let path = worker.world.path(mount, &self.path);
            let (_, metadata) =
                worker.must("text-times", mount, &self.path, || fs::metadata(&path))?;
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            seen.push((modified, (metadata.ctime(), metadata.ctime_nsec())));
        }
        if seen[0] == seen[1] {
            return Ok(());
        }
        Err(Failure::Stale {
            object: format!("mtime and ctime of {}", self.path.display()),
            mount: worker.home.other(),
            expected: format!("{:?}, as the other mount just showed", seen[0]),
            seen: format!("{:?}", seen[1]),
        })
    }

    fn observe(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let path = worker.world.path(mount, &self.path);
        let kept = self.kept.as_ref().map(|kept| &kept[mount.index()].file);
        match worker.random.below(6) {
            0 => {
                let done = worker.must("text-stat", mount, &self.path, || fs::metadata(&path))?;
                self.judge_length(worker, mount, done.0, done.1.len())
            }
            1 => {
                let done = worker.must("text-fstat", mount, &self.path, || match kept {
                    Some(file) => file.metadata(),
                    None => File::open(&path)?.metadata(),
                })?;
                self.judge_length(worker, mount, done.0, done.1.len())
            }
            2..4 => {
                let done = worker.must("text-read", mount, &self.path, || {
                    read_from(&File::open(&path)?, self.start)
                })?;
                self.judge_bytes(worker, mount, done.0, &done.1)
            }
            _ => {
                let done = worker.must("text-pread", mount, &self.path, || match kept {
                    Some(file) => read_from(file, self.start),
                    None => read_from(&File::open(&path)?, self.start),
                })?;
                self.judge_bytes(worker, mount, done.0, &done.1)
            }
        }
    }

    fn judge_length(
        &self,
        worker: &mut Worker<'_>,
        mount: Mount,
        window: Window,
        length: u64,
    ) -> Step {
        let lengths = self.bytes.legal(window).map(|bytes| self.start + bytes.len() as u64);
        let object = || format!("length of {}", self.path.display());
        worker.judge(&lengths, mount, object, &length, |_| spans(&lengths, length))
    }

    /// With one legal state the read is that state; a read that overlaps changes is as long as one
    /// of the states, or ends between two of them, and mixes their bytes.
    fn judge_bytes(
        &self,
        worker: &mut Worker<'_>,
        mount: Mount,
        window: Window,
        seen: &[u8],
    ) -> Step {
        let legal = self.bytes.legal(window);
        let lengths = legal.map(|bytes| bytes.len() as u64);
        let object = || format!("length read of {} from {}", self.path.display(), self.start);
        let length = seen.len() as u64;
        worker.judge(&lengths, mount, object, &length, |_| spans(&lengths, length))?;
        if !legal.complete {
            return Ok(());
        }
        let mut states: Vec<&[u8]> =
            legal.versions.iter().map(|version| version.value.as_slice()).collect();
        // A length taken before a change and bytes taken after it: zeros behind the end.
        let zeros = vec![0; seen.len()];
        if states.len() > 1 {
            states.push(&zeros);
        }
        check_bytes(seen, &states).map_err(|wrong| Failure::Stale {
            object: format!("{} from {}", self.path.display(), self.start),
            mount,
            expected: legal.map(|bytes| format!("{} bytes", bytes.len())).describe(),
            seen: wrong.seen,
        })
    }
}

/// Whether a length is legal. One that grows does so in steps while its change is in flight.
fn spans(lengths: &Legal<u64>, length: u64) -> bool {
    let values = lengths.versions.iter().map(|version| version.value);
    let (shortest, longest) = (values.clone().min(), values.max());
    shortest.is_some_and(|least| least <= length) && longest.is_some_and(|most| length <= most)
}

/// Everything from `offset` to the end.
fn read_from(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; LENGTH_MAX + 1];
    let mut filled = 0;
    loop {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
