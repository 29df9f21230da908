//! Contents of one simulated file: what a reader sees, and what a power cut may leave.
//!
//! Invariant: `current` is what every reader sees. `durable` is what the device holds for sure.
//! Between them lie the versions written since the last sync, from which a power cut chooses per
//! block. Blocks are shared by reference, so copies of maps cost no contents; space that is
//! reserved but unwritten costs no memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use super::super::random::Generator;

/// The unit of caching and of loss.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// The unit in which a device writes.
const SECTOR_BYTES: usize = 512;
/// Versions kept per block, and of sizes per file, between two syncs.
const VERSIONS_MAX: usize = 6;

type Block = [u8; BLOCK_BYTES as usize];
type Blocks = BTreeMap<u64, Rc<Block>>;

/// One state that a block has had; `None` is a hole.
struct Version {
    sequence: u64,
    block: Option<Rc<Block>>,
}

/// Size and reserved space, which change together.
#[derive(Clone, Default)]
struct Extent {
    size: u64,
    /// Reserved runs of blocks, start to end, not touching one another.
    reserved: BTreeMap<u64, u64>,
}

/// One file.
#[derive(Default)]
pub(super) struct FileData {
    current: Blocks,
    extent: Extent,
    /// Blocks of disk space in use: written or reserved.
    used_blocks: u64,
    durable: Blocks,
    durable_extent: Extent,
    unsynced: BTreeMap<u64, Vec<Version>>,
    unsynced_extents: Vec<(u64, Extent)>,
    /// Counts changes; orders them against the start of a sync.
    sequence: u64,
    /// Syncs under way, which need every version that was current when they started.
    syncs: u32,
}

fn first_block(offset: u64) -> u64 {
    offset / BLOCK_BYTES
}

fn block_after(offset: u64) -> u64 {
    offset.div_ceil(BLOCK_BYTES)
}

impl Extent {
    fn is_reserved(&self, block: u64) -> bool {
        self.reserved.range(..=block).next_back().is_some_and(|(_, end)| block < *end)
    }

    fn reserved_blocks(&self) -> u64 {
        self.reserved.iter().map(|(start, end)| end - start).sum()
    }

    fn reserve(&mut self, mut run: Range<u64>) {
        while let Some((start, end)) =
            self.reserved.range(..=run.end).next_back().map(|(start, end)| (*start, *end))
            && end >= run.start
        {
            self.reserved.remove(&start);
            run = run.start.min(start)..run.end.max(end);
        }
        if run.start < run.end {
            self.reserved.insert(run.start, run.end);
        }
    }

    /// Gives back whole blocks: none if the run is empty, or ends before it begins.
    fn release(&mut self, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        while let Some((start, end)) =
            self.reserved.range(..run.end).next_back().map(|(start, end)| (*start, *end))
            && end > run.start
        {
            self.reserved.remove(&start);
            if start < run.start {
                self.reserved.insert(start, run.start);
            }
            if end > run.end {
                self.reserved.insert(run.end, end);
            }
        }
    }
}

impl FileData {
    pub(super) fn size(&self) -> u64 {
        self.extent.size
    }

    /// Blocks of disk space in use.
    pub(super) fn used_blocks(&self) -> u64 {
        self.used_blocks
    }

    fn count_used_blocks(&self) -> u64 {
        let written = self.current.keys().filter(|block| !self.extent.is_reserved(**block));
        written.count() as u64 + self.extent.reserved_blocks()
    }

    /// Blocks that a write to this range would newly use.
    pub(super) fn needed_blocks(&self, offset: u64, len: u64) -> u64 {
        (first_block(offset)..block_after(offset + len))
            .filter(|block| !self.current.contains_key(block) && !self.extent.is_reserved(*block))
            .count() as u64
    }

    /// Blocks that reserving this range would newly use.
    pub(super) fn unreserved_blocks(&self, offset: u64, len: u64) -> u64 {
        let mut extent = self.extent.clone();
        let run = first_block(offset)..block_after(offset + len);
        extent.reserve(run.clone());
        let known = self.current.range(run).filter(|(b, _)| !self.extent.is_reserved(**b)).count();
        extent.reserved_blocks() - self.extent.reserved_blocks() - known as u64
    }

    /// Fills `out` from `offset` on; it lies within the size.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = offset + done as u64;
            let within = (at % BLOCK_BYTES) as usize;
            let count = (out.len() - done).min(BLOCK_BYTES as usize - within);
            let target = &mut out[done..done + count];
            match self.current.get(&first_block(at)) {
                Some(block) => target.copy_from_slice(&block[within..within + count]),
                None => target.fill(0),
            }
            done += count;
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % BLOCK_BYTES) as usize;
            let count = (data.len() - done).min(BLOCK_BYTES as usize - within);
            let mut block = match self.current.get(&first_block(at)) {
                Some(block) => Rc::clone(block),
                None => Rc::new([0; BLOCK_BYTES as usize]),
            };
            Rc::make_mut(&mut block)[within..within + count]
                .copy_from_slice(&data[done..done + count]);
            self.put(first_block(at), Some(block));
            done += count;
        }
        let end = offset + data.len() as u64;
        if end > self.extent.size {
            self.set_extent(Extent { size: end, ..self.extent.clone() });
        }
    }

    pub(super) fn truncate(&mut self, size: u64) {
        if size < self.extent.size {
            self.zero(size..block_after(self.extent.size) * BLOCK_BYTES);
        }
        let mut extent = Extent { size, ..self.extent.clone() };
        extent.release(block_after(size)..u64::MAX);
        self.set_extent(extent);
    }

    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        self.zero(offset..end.min(self.extent.size));
        let mut extent = self.extent.clone();
        extent.release(block_after(offset)..first_block(end));
        self.set_extent(extent);
    }

    pub(super) fn reserve(&mut self, offset: u64, len: u64) {
        let mut extent = self.extent.clone();
        extent.reserve(first_block(offset)..block_after(offset + len));
        extent.size = extent.size.max(offset + len);
        self.set_extent(extent);
    }

    /// The first written byte at or after `offset`, within the size.
    pub(super) fn next_data(&self, offset: u64) -> Option<u64> {
        let (block, _) = self.current.range(first_block(offset)..).next()?;
        let data = offset.max(block * BLOCK_BYTES);
        (data < self.extent.size).then_some(data)
    }

    /// The first hole at or after `offset`, at most the size.
    pub(super) fn next_hole(&self, offset: u64) -> u64 {
        let mut block = first_block(offset);
        while self.current.contains_key(&block) {
            block += 1;
        }
        offset.max(block * BLOCK_BYTES).min(self.extent.size)
    }

    /// Makes a range read as zeros: whole blocks become holes, ends are overwritten.
    fn zero(&mut self, range: Range<u64>) {
        let whole = block_after(range.start)..first_block(range.end);
        for edge in [first_block(range.start), first_block(range.end)] {
            let Some(block) = self.current.get(&edge) else { continue };
            if whole.contains(&edge) {
                continue;
            }
            let start = edge * BLOCK_BYTES;
            let from = range.start.clamp(start, start + BLOCK_BYTES) - start;
            let to = range.end.clamp(start, start + BLOCK_BYTES) - start;
            if from < to {
                let mut block = Rc::clone(block);
                Rc::make_mut(&mut block)[from as usize..to as usize].fill(0);
                self.put(edge, Some(block));
            }
        }
        if whole.start < whole.end {
            let blocks: Vec<u64> = self.current.range(whole).map(|(block, _)| *block).collect();
            for block in blocks {
                self.put(block, None);
            }
        }
    }

    fn put(&mut self, number: u64, block: Option<Rc<Block>>) {
        let was = match &block {
            Some(block) => self.current.insert(number, Rc::clone(block)),
            None => self.current.remove(&number),
        };
        if was.is_some() != block.is_some() && !self.extent.is_reserved(number) {
            if block.is_some() {
                self.used_blocks += 1;
            } else {
                self.used_blocks -= 1;
            }
        }
        self.sequence += 1;
        let versions = self.unsynced.entry(number).or_default();
        versions.push(Version { sequence: self.sequence, block });
        if versions.len() > VERSIONS_MAX && self.syncs == 0 {
            versions.remove(VERSIONS_MAX / 2);
        }
    }

    fn set_extent(&mut self, extent: Extent) {
        self.sequence += 1;
        self.unsynced_extents.push((self.sequence, extent.clone()));
        let reserved = std::mem::replace(&mut self.extent, extent).reserved;
        if reserved != self.extent.reserved {
            self.used_blocks = self.count_used_blocks();
        }
        if self.unsynced_extents.len() > VERSIONS_MAX && self.syncs == 0 {
            self.unsynced_extents.remove(VERSIONS_MAX / 2);
        }
    }

    /// Notes the start of a sync: it covers at least what was written until now.
    pub(super) fn start_sync(&mut self) -> u64 {
        self.syncs += 1;
        self.sequence
    }

    fn end_sync(&mut self) {
        self.syncs = self.syncs.saturating_sub(1);
    }

    /// No sync is under way any more: the process is dead.
    pub(super) fn forget_syncs(&mut self) {
        self.syncs = 0;
    }

    /// Ends a sync that started at `sequence`; by chance it covers what was written since as well.
    pub(super) fn finish_sync(&mut self, sequence: u64, generator: &mut Generator) {
        self.end_sync();
        let covered = if generator.chance(500) { self.sequence } else { sequence };
        let durable = &mut self.durable;
        self.unsynced.retain(|number, versions| {
            let count = versions.partition_point(|version| version.sequence <= covered);
            if let Some(version) = versions.drain(..count).next_back() {
                match version.block {
                    Some(block) => durable.insert(*number, block),
                    None => durable.remove(number),
                };
            }
            !versions.is_empty()
        });
        let count = self.unsynced_extents.partition_point(|(at, _)| *at <= covered);
        if let Some((_, extent)) = self.unsynced_extents.drain(..count).next_back() {
            self.durable_extent = extent;
        }
    }

    /// Ends a sync that failed: as in the kernel, the dirty data counts as clean afterwards, so a
    /// later sync succeeds without it.
    pub(super) fn fail_sync(&mut self) {
        self.end_sync();
        self.unsynced.clear();
        self.unsynced_extents.clear();
    }

    /// Reduces the file to what a power cut leaves of it.
    pub(super) fn power_cut(&mut self, generator: &mut Generator) {
        for (number, versions) in std::mem::take(&mut self.unsynced) {
            let block = surviving_block(self.durable.get(&number), &versions, generator);
            match block {
                Some(block) => self.durable.insert(number, block),
                None => self.durable.remove(&number),
            };
        }
        let extents = std::mem::take(&mut self.unsynced_extents);
        let chosen = generator.below(extents.len() as u64 + 1) as usize;
        if let Some((_, extent)) = extents.into_iter().take(chosen).next_back() {
            self.durable_extent = extent;
        }
        self.extent = self.durable_extent.clone();
        let _beyond = self.durable.split_off(&block_after(self.extent.size));
        self.current = self.durable.clone();
        self.syncs = 0;
        // What lies behind the end must read as zeros when the file grows again.
        let tail = self.extent.size % BLOCK_BYTES;
        if tail != 0
            && let Some(block) = self.durable.get_mut(&first_block(self.extent.size))
        {
            Rc::make_mut(block)[tail as usize..].fill(0);
            let block = Rc::clone(block);
            self.current.insert(first_block(self.extent.size), block);
        }
        self.used_blocks = self.count_used_blocks();
    }
}

/// What remains of a block: one of its versions, or a mix of two neighbours by sectors.
fn surviving_block(
    durable: Option<&Rc<Block>>,
    versions: &[Version],
    generator: &mut Generator,
) -> Option<Rc<Block>> {
    let version = |index: u64| match index.checked_sub(1) {
        None => durable.cloned(),
        Some(index) => versions[index as usize].block.clone(),
    };
    let chosen = generator.below(versions.len() as u64 + 1);
    let old = version(chosen);
    let torn = chosen < versions.len() as u64 && generator.chance(250);
    if !torn {
        return old;
    }
    let new = version(chosen + 1);
    let zeros: Rc<Block> = Rc::new([0; BLOCK_BYTES as usize]);
    let mut mixed = old.unwrap_or_else(|| Rc::clone(&zeros));
    let new = new.unwrap_or(zeros);
    let sectors = Rc::make_mut(&mut mixed).chunks_mut(SECTOR_BYTES);
    for (sector, written) in sectors.zip(new.chunks(SECTOR_BYTES)) {
        if generator.chance(500) {
            sector.copy_from_slice(written);
        }
    }
    Some(mixed)
}
