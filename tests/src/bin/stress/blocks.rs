//! Blocks: many threads overwrite and read the blocks of a few large files, by system calls and
//! through memory mappings.
//!
//! Invariant: one register per block holds the stamp that its bytes repeat. The blocks of aligned
//! files are pages; those of the others lie askew to pages, to the head and to chunks, so that
//! neighbours written through different mounts share pages. Mapped writes happen in aligned files
//! only: a store into a mapping writes whole pages.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::bytes::{Stamp, check_bytes};
use crate::oracle::{Register, Window};
use crate::world::{Failure, Mount, Step, Worker};

const PAGE: usize = 4096;
/// A length that shares no factor with anything.
const ASKEW: usize = 4133;
const FILES: u16 = 6;
/// Where the runs of blocks start: the file's beginning, across the end of the head (64 KiB), and
/// across the ends of the first chunks (4 MiB).
const RUN_STARTS: [u64; 4] = [0, 60 << 10, (4 << 20) - (16 << 10), (8 << 20) - (16 << 10)];
const RUN_BLOCKS: usize = 9;
/// Blocks that one call covers at most.
const SPAN_MAX: usize = 4;

#[derive(Debug)]
struct Block {
    offset: u64,
    stamp: Register<Stamp>,
}

#[derive(Debug)]
struct BlockFile {
    number: u16,
    path: PathBuf,
    block_length: usize,
    blocks: Vec<Block>,
    /// Open through either mount from beginning to end.
    open: [File; 2],
    next_sequence: AtomicU32,
}

/// All files of blocks.
#[derive(Debug)]
pub(crate) struct Blocks {
    files: Vec<BlockFile>,
}

impl Blocks {
    /// Makes the files, as long as they will be.
    pub(crate) fn new(roots: &[PathBuf; 2]) -> io::Result<Self> {
        let files = (0..FILES).map(|number| BlockFile::new(number, roots));
        Ok(Self { files: files.collect::<io::Result<_>>()? })
    }

    /// One change through `mount`, looked at through both mounts before and after.
    pub(crate) fn hand_off(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let (file, first, count) = self.pick(worker);
        if !worker.random.one_in(4) {
            file.read(worker, first, count, mount.other())?;
        }
        file.change(worker, first, count, mount)?;
        file.read(worker, first, count, mount.other())?;
        if worker.random.one_in(4) { file.read(worker, first, count, mount) } else { Ok(()) }
    }

    /// One read of a few blocks.
    pub(crate) fn look(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let (file, first, count) = self.pick(worker);
        file.read(worker, first, count, mount)
    }

    /// A file and a few blocks of one run.
    fn pick(&self, worker: &mut Worker<'_>) -> (&BlockFile, usize, usize) {
        let file = worker.random.pick(&self.files);
        let within = worker.random.below(RUN_BLOCKS);
        let first = worker.random.below(RUN_STARTS.len()) * RUN_BLOCKS + within;
        let count = 1 + worker.random.below(SPAN_MAX.min(RUN_BLOCKS - within));
        (file, first, count)
    }
}

impl BlockFile {
    fn new(number: u16, roots: &[PathBuf; 2]) -> io::Result<Self> {
        let path = PathBuf::from(format!("blocks-{number}"));
        let block_length = if number.is_multiple_of(2) { PAGE } else { ASKEW };
        let mut blocks = Vec::new();
        for start in RUN_STARTS {
            for index in 0..RUN_BLOCKS {
                let offset = start + (index * block_length) as u64;
                blocks.push(Block { offset, stamp: Register::new(Stamp::default()) });
            }
        }
        let end = blocks.last().map_or(0, |block| block.offset) + block_length as u64;
        let maker = File::create_new(roots[usize::from(number % 2)].join(&path))?;
        maker.set_len(end.next_multiple_of(PAGE as u64))?;
        let open =
            |root: &PathBuf| OpenOptions::new().read(true).write(true).open(root.join(&path));
        let open = [open(&roots[0])?, open(&roots[1])?];
        let next_sequence = AtomicU32::new(1);
        Ok(Self { number, path, block_length, blocks, open, next_sequence })
    }

    fn aligned(&self) -> bool {
        self.block_length == PAGE
    }

    /// Overwrites some blocks with new stamps, or with zeros by punching a hole.
    fn change(&self, worker: &mut Worker<'_>, first: usize, count: usize, mount: Mount) -> Step {
        let world = worker.world;
        let blocks = &self.blocks[first..first + count];
        let pens: Option<Vec<_>> = blocks.iter().map(|block| block.stamp.try_pen()).collect();
        let Some(pens) = pens else { return Ok(()) };
        let call = match worker.random.below(16) {
            0 if world.abilities.punch => "punch",
            1..=3 if world.abilities.mapping && self.aligned() => "map-write",
            4 if world.abilities.direct && self.aligned() => "direct-write",
            5 | 6 => "open-write",
            7 => "pwrite-sync",
            _ => "pwrite",
        };
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        let writer = u16::try_from(worker.thread).expect("threads are few");
        let mut bytes = Vec::new();
        for (index, pen) in pens.iter().enumerate() {
            let block = u16::try_from(first + index).expect("blocks are few");
            let sequence = if call == "punch" { 0 } else { sequence };
            let stamp = Stamp { file: self.number, block, sequence, writer };
            pen.begin(&world.clock, stamp, worker.by(mount, call));
            bytes.extend(stamp.fill(self.block_length));
        }
        self.write(worker, call, mount, blocks[0].offset, &bytes)?;
        for pen in &pens {
            pen.end(&world.clock);
        }
        Ok(())
    }

    fn write(
        &self,
        worker: &mut Worker<'_>,
        call: &'static str,
        mount: Mount,
        offset: u64,
        bytes: &[u8],
    ) -> Step {
        let path = worker.world.path(mount, &self.path);
        let open = &self.open[mount.index()];
        let length = bytes.len() as u64;
        if call == "map-write" {
            let done =
                worker.mapped(call, mount, &self.path, |mapper| mapper.write(&path, offset, bytes));
            return done.map(drop);
        }
        let done = worker.must(call, mount, &self.path, || match call {
            "punch" => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(open, flags, offset, length).map_err(io::Error::from)
            }
            "direct-write" => write_direct(&path, offset, bytes),
            "open-write" => OpenOptions::new().write(true).open(&path)?.write_all_at(bytes, offset),
            "pwrite-sync" => open.write_all_at(bytes, offset).and_then(|()| open.sync_data()),
            _ => open.write_all_at(bytes, offset),
        });
        done.map(drop)
    }

    /// Reads some blocks and judges each.
    fn read(&self, worker: &mut Worker<'_>, first: usize, count: usize, mount: Mount) -> Step {
        let offset = self.blocks[first].offset;
        let length = count * self.block_length;
        let path = worker.world.path(mount, &self.path);
        let open = &self.open[mount.index()];
        let abilities = worker.world.abilities;
        let (window, bytes) = match worker.random.below(16) {
            0..=2 if abilities.mapping => worker
                .mapped("map-read", mount, &self.path, |mapper| mapper.read(&path, offset, length)),
            3 if abilities.direct && self.aligned() => {
                worker.must("direct-read", mount, &self.path, || read_direct(&path, offset, length))
            }
            4..=7 => worker.must("open-read", mount, &self.path, || {
                read_at(&File::open(&path)?, offset, length)
            }),
            _ => worker.must("pread", mount, &self.path, || read_at(open, offset, length)),
        }?;
        for (index, seen) in bytes.chunks_exact(self.block_length).enumerate() {
            self.judge(worker, first + index, mount, window, seen)?;
        }
        Ok(())
    }

    fn judge(
        &self,
        worker: &mut Worker<'_>,
        index: usize,
        mount: Mount,
        window: Window,
        seen: &[u8],
    ) -> Step {
        let legal = self.blocks[index].stamp.legal(window);
        if !legal.complete {
            worker.unjudged += 1;
            return Ok(());
        }
        let states: Vec<Vec<u8>> =
            legal.versions.iter().map(|version| version.value.fill(self.block_length)).collect();
        let states: Vec<&[u8]> = states.iter().map(Vec::as_slice).collect();
        check_bytes(seen, &states).map_err(|wrong| Failure::Stale {
            object: format!(
                "{} block {index} ({} bytes at {})",
                self.path.display(),
                self.block_length,
                self.blocks[index].offset
            ),
            mount,
            expected: legal.describe(),
            seen: wrong.seen,
        })
    }
}

fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// A buffer with `length` bytes at a page boundary, and where they start.
fn aligned_buffer(length: usize) -> (Vec<u8>, usize) {
    let buffer = vec![0_u8; length + PAGE];
    let start = buffer.as_ptr().align_offset(PAGE);
    (buffer, start)
}

fn open_direct(path: &Path, write: bool) -> io::Result<File> {
    let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(!write).write(write).custom_flags(flags).open(path)
}

/// Reads whole pages past the page cache.
pub(crate) fn read_direct(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let (mut buffer, start) = aligned_buffer(length);
    open_direct(path, false)?.read_exact_at(&mut buffer[start..start + length], offset)?;
    Ok(buffer[start..start + length].to_vec())
}

/// Writes whole pages past the page cache.
pub(crate) fn write_direct(path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let (mut buffer, start) = aligned_buffer(bytes.len());
    buffer[start..start + bytes.len()].copy_from_slice(bytes);
    open_direct(path, true)?.write_all_at(&buffer[start..start + bytes.len()], offset)
}
