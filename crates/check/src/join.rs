//! Putting the records of all targets together.
//!
//! The order is fixed: what is open and all inodes of all targets first, then names and segments.
//! Targets that cannot be read are named at the start; about what they may hold nothing is said.
//! What an operation is at work on is left out. Deliberately without time and without I/O: whether
//! a finding stays is seen by looking twice.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringfs_placement::ClusterMap;
use ringfs_wire::{
    ChunkRange, DirectoryFact, DirectoryPlace, HeadPlace, InodeFact, InodeNumber, InodeType, Name,
    NameFact, OpenKind, OpenOperation, SegmentFact, TargetId,
};

use crate::finding::Finding;
use crate::table::{Known, Table};
use crate::tree;

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inodes.
    pub inodes: u64,
    /// Names.
    pub names: u64,
    /// Chunks that hold data.
    pub chunks: u64,
    /// Bytes that heads and chunks take on disk.
    pub bytes: u64,
}

/// A finding and the target that told of it.
pub(crate) type Located = (TargetId, Finding);

/// Findings to look for: their inodes, and a name of each once one was seen.
type Suspects = BTreeMap<InodeNumber, Option<DirectoryPlace>>;

/// Smallest slot of a slab, in bytes; each class is twice the one before.
const SLOT_MIN: u64 = 4096;
/// Classes of slots.
const SLOT_CLASSES: u8 = 5;

/// The records of all targets, as they come in.
pub struct Join {
    map: Rc<ClusterMap>,
    unread: BTreeSet<TargetId>,
    tables: BTreeMap<TargetId, Table>,
    /// Where directories say that they are; none for the root.
    places: BTreeMap<InodeNumber, Option<DirectoryPlace>>,
    /// Names of directories that are not where these say.
    elsewhere: BTreeMap<InodeNumber, DirectoryPlace>,
    /// Slots in use, 64 to a word.
    heads: BTreeMap<(TargetId, u8, u32), u64>,
    /// Inodes that prepared operations are about.
    prepared: BTreeSet<InodeNumber>,
    /// Inodes with a cut that not every owner knows of.
    cut: BTreeSet<InodeNumber>,
    leaked: BTreeMap<(TargetId, InodeNumber), u64>,
    suspects: Suspects,
    findings: Vec<Located>,
    counts: Counts,
}

impl Join {
    /// Nothing yet. Nothing is known about `unread` targets; `suspects` are inodes whose names are
    /// of interest.
    pub fn new(
        map: Rc<ClusterMap>,
        unread: BTreeSet<TargetId>,
        suspects: impl IntoIterator<Item = InodeNumber>,
    ) -> Self {
        Self {
            map,
            unread,
            tables: BTreeMap::new(),
            places: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            heads: BTreeMap::new(),
            prepared: BTreeSet::new(),
            cut: BTreeSet::new(),
            leaked: BTreeMap::new(),
            suspects: suspects.into_iter().map(|inode| (inode, None)).collect(),
            findings: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// What was looked at so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes what a target has not ended.
    pub fn add_operations(&mut self, target: TargetId, open: Vec<OpenOperation>) {
        for OpenOperation { kind, operation, inodes, participants: _ } in open {
            match kind {
                OpenKind::Prepared => self.prepared.extend(&inodes),
                OpenKind::Cut => self.cut.extend(&inodes),
                OpenKind::Committed => {}
            }
            // Whoever should end it may be among those that do not answer.
            if self.unread.is_empty() {
                self.findings.push((target, Finding::Unended { kind, operation, inodes }));
            }
        }
    }

    /// Takes inodes of a target; false if they do not come in order.
    pub fn add_inodes(&mut self, target: TargetId, facts: &[InodeFact]) -> bool {
        self.counts.inodes += facts.len() as u64;
        facts.iter().all(|fact| self.add_inode(target, fact))
    }

    fn add_inode(&mut self, target: TargetId, fact: &InodeFact) -> bool {
        let inode = fact.inode;
        if self.map.home(inode) != target {
            self.findings.push((target, Finding::WrongHome { inode }));
            return true;
        }
        if let Some(head) = fact.head {
            self.add_head(target, inode, head);
        }
        if let Some(directory) = &fact.directory {
            self.places.insert(inode, directory.place.clone());
            self.check_counts(target, fact, directory);
        }
        self.tables.entry(target).or_default().push(fact)
    }

    fn add_head(&mut self, target: TargetId, inode: InodeNumber, head: HeadPlace) {
        let HeadPlace { class, index } = head;
        let word = self.heads.entry((target, class, index / u64::BITS)).or_default();
        let bit = 1 << (index % u64::BITS);
        if *word & bit != 0 {
            self.findings.push((target, Finding::SharedHead { inode, head }));
        }
        *word |= bit;
        self.counts.bytes += SLOT_MIN << class.min(SLOT_CLASSES - 1);
    }

    fn check_counts(&mut self, target: TargetId, fact: &InodeFact, directory: &DirectoryFact) {
        let DirectoryFact { entries, subdirectories, .. } = *directory;
        let InodeFact { inode, size, links, .. } = *fact;
        let expected = 2 + subdirectories;
        let is_right = size == entries && links == expected;
        if links > 0 && !fact.busy && !is_right {
            let finding = Finding::WrongCounts { inode, size, entries, links, expected };
            self.findings.push((target, finding));
        }
    }

    /// Takes names of a target, after all inodes of all targets.
    pub fn add_names(&mut self, target: TargetId, facts: Vec<NameFact>) {
        self.counts.names += facts.len() as u64;
        facts.into_iter().for_each(|fact| self.add_name(target, fact));
    }

    fn add_name(&mut self, target: TargetId, fact: NameFact) {
        let NameFact { directory, name, inode, kind, busy, cookie: _ } = fact;
        let is_touched = busy || self.prepared.contains(&directory);
        let is_directory = |known: &Known| {
            known.kind == InodeType::Directory && known.links > 0 || known.is_busy()
        };
        if !is_touched && !self.lookup(directory).is_some_and(is_directory) {
            let finding = Finding::NameWithoutDirectory { directory, name: name.clone(), inode };
            self.findings.push((target, finding));
        }
        if let Some(place @ None) = self.suspects.get_mut(&inode) {
            *place = Some(DirectoryPlace { parent: directory, name: name.clone() });
        }
        let home = self.map.home(inode);
        if self.unread.contains(&home) {
            return;
        }
        let found = self.tables.get_mut(&home).and_then(|table| table.get_mut(inode));
        let Some(known) = found else {
            if !busy && !self.prepared.contains(&inode) {
                self.findings.push((target, Finding::DanglingName { directory, name, inode }));
            }
            return;
        };
        known.names += 1;
        if known.kind != kind {
            let finding =
                Finding::WrongType { directory, name, inode, given: kind, kind: known.kind };
            self.findings.push((target, finding));
        } else if kind == InodeType::Directory {
            self.place(inode, directory, name);
        }
    }

    /// A directory's name: is it where the directory says?
    fn place(&mut self, inode: InodeNumber, parent: InodeNumber, name: Name) {
        let place = DirectoryPlace { parent, name };
        if self.places.get(&inode) != Some(&Some(place.clone())) {
            self.elsewhere.insert(inode, place);
        }
    }

    fn lookup(&self, inode: InodeNumber) -> Option<&Known> {
        self.tables.get(&self.map.home(inode))?.get(inode)
    }

    /// Takes segments of a target, after all inodes of all targets.
    pub fn add_segments(&mut self, target: TargetId, facts: &[SegmentFact]) {
        facts.iter().for_each(|fact| self.add_segment(target, fact));
    }

    fn add_segment(&mut self, target: TargetId, fact: &SegmentFact) {
        let SegmentFact { inode, run, generation, .. } = *fact;
        self.counts.bytes += fact.allocated;
        self.counts.chunks += fact.chunks.iter().map(|range| range.end - range.start).sum::<u64>();
        if fact.missing {
            self.findings.push((target, Finding::SegmentMissing { inode, run }));
        }
        let is_touched = fact.cutting || self.cut.contains(&inode);
        if is_touched || self.unread.contains(&self.map.home(inode)) {
            return;
        }
        let Some(known) = self.lookup(inode).copied() else {
            *self.leaked.entry((target, inode)).or_default() += fact.allocated;
            return;
        };
        if known.is_busy() {
            return;
        }
        if generation > known.generation {
            let home = known.generation;
            let finding = Finding::GenerationAhead { inode, home, generation };
            self.findings.push((target, finding));
        }
        if known.chunk_size == fact.chunk_size {
            self.check_chunks(target, &known, &fact.chunks);
        }
    }

    fn check_chunks(&mut self, target: TargetId, known: &Known, ranges: &[ChunkRange]) {
        let Known { inode, reach, generation, chunk_size, .. } = *known;
        let mut astray: Vec<ChunkRange> = Vec::new();
        let mut beyond = None;
        for index in ranges.iter().flat_map(|range| range.start..range.end) {
            if self.map.chunk_owner(inode, index) != target {
                match astray.last_mut().filter(|last| last.end == index) {
                    Some(last) => last.end += 1,
                    None => astray.push(ChunkRange { start: index, end: index + 1 }),
                }
            } else if index.saturating_mul(u64::from(chunk_size)) >= reach {
                beyond = beyond.or(Some(index));
            }
        }
        let astray =
            astray.into_iter().map(|chunks| Finding::ChunksAstray { inode, chunks, chunk_size });
        let beyond = beyond.map(|chunk| Finding::ChunksBeyond { inode, chunk, reach, generation });
        self.findings.extend(astray.chain(beyond).map(|finding| (target, finding)));
    }

    /// What does not fit.
    pub fn findings(&self) -> Vec<(TargetId, Finding)> {
        let mut found = self.findings.clone();
        found.extend(self.leaked.iter().map(|((target, inode), bytes)| {
            (*target, Finding::LeakedChunks { inode: *inode, bytes: *bytes })
        }));
        // Without the names of all targets nothing is known about how many there are.
        if self.unread.is_empty() {
            for (target, table) in &self.tables {
                let wrong = table.iter().filter_map(|known| self.check_inode(known));
                found.extend(wrong.map(|finding| (*target, finding)));
            }
            let cycles = tree::cycles(self.places.keys(), |inode| self.parent(inode));
            found.extend(
                cycles
                    .into_iter()
                    .map(|(inode, count)| (self.map.home(inode), Finding::Cycle { inode, count })),
            );
        }
        found
    }

    fn check_inode(&self, known: &Known) -> Option<Finding> {
        let Known { inode, kind, links, names, .. } = *known;
        let changed = known.changed();
        if inode == InodeNumber::ROOT || known.is_busy() || self.prepared.contains(&inode) {
            return None;
        }
        if links == 0 {
            let is_left = names == 0 && !known.is_open();
            return is_left.then_some(Finding::Unreleased { inode, changed });
        }
        if names == 0 {
            let is_empty = known.is_empty();
            return Some(Finding::Orphan { inode, kind, is_empty, changed });
        }
        if kind != InodeType::Directory {
            let wrong = Finding::WrongLinks { inode, links, names, changed };
            return (links != names).then_some(wrong);
        }
        if names > 1 {
            return Some(Finding::ManyNames { inode, names });
        }
        let place = self.elsewhere.get(&inode)?.clone();
        Some(Finding::WrongPlace { inode, place, changed })
    }

    /// Where a directory lies, by its name.
    fn place_of(&self, inode: InodeNumber) -> Option<&DirectoryPlace> {
        self.elsewhere.get(&inode).or_else(|| self.places.get(&inode)?.as_ref())
    }

    /// The directory that a directory lies in; none for what no name leads to.
    fn parent(&self, inode: InodeNumber) -> Option<InodeNumber> {
        let known = self.lookup(inode).filter(|known| known.names > 0)?;
        self.place_of(known.inode).map(|place| place.parent)
    }

    /// A path of a directory or suspect, as far as it is known.
    pub fn path(&self, inode: InodeNumber) -> Option<String> {
        if inode == InodeNumber::ROOT {
            return Some("/".to_owned());
        }
        let mut names = Vec::new();
        let mut at = inode;
        let mut place = match self.places.contains_key(&inode) {
            true => self.place_of(inode),
            false => self.suspects.get(&inode)?.as_ref(),
        };
        while at != InodeNumber::ROOT {
            let DirectoryPlace { parent, name } = place?;
            names.push(name.to_string());
            // A cycle has no path.
            if names.len() > self.places.len() + 1 {
                return None;
            }
            at = *parent;
            place = self.place_of(at);
        }
        names.reverse();
        Some(format!("/{}", names.join("/")))
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
