//! What this target keeps, told record by record to whoever checks the cluster.
//!
//! Each page shows one moment, without waiting for anybody: what an operation is at work on is
//! marked, and the checker looks again later. Nothing is judged here.

use std::collections::BTreeSet;

use ringfs_store::{Inode, State};
use ringfs_wire::{
    ChunkRange, DirectoryFact, DirectoryPlace, HeadPlace, InodeFact, InodeNumber, InodePage,
    InodeType, NameFact, NamePage, OpenKind, OpenOperation, OperationId, SCAN_PAGE_MAX, ScanInodes,
    ScanNames, ScanSegments, SegmentFact, SegmentPage, Step, Verify,
};

use crate::locks::LockKey;
use crate::target::{Answer, Target, reply};

/// Entries of directories counted for one page, about; one directory is counted whole.
const COUNTED_MAX: u64 = 100_000;
/// Ranges of chunks in one page, about.
const RANGES_MAX: usize = 2_048;
/// Open operations told at once.
const OPERATIONS_MAX: usize = 4_096;

impl Target {
    pub(crate) fn scan_inodes(&self, request: &ScanInodes) -> Answer {
        let limit = request.limit.clamp(1, SCAN_PAGE_MAX) as usize;
        let state = self.store.state();
        let mut following = state.inodes.range(InodeNumber(request.after.0.saturating_add(1))..);
        let (mut items, mut counted) = (Vec::new(), 0);
        let mut end = true;
        for (_, inode) in following.by_ref() {
            if items.len() == limit || counted > COUNTED_MAX {
                end = false;
                break;
            }
            let fact = self.inode_fact(&state, inode);
            counted += fact.directory.as_ref().map_or(0, |directory| directory.entries);
            items.push(fact);
        }
        reply(&InodePage { items, end })
    }

    fn inode_fact(&self, state: &State, found: &Inode) -> InodeFact {
        let known = &found.attributes;
        let inode = known.inode;
        let is_directory = known.kind == InodeType::Directory;
        InodeFact {
            inode,
            kind: known.kind,
            links: known.links,
            size: known.size,
            generation: known.generation,
            reach: known.reach,
            chunk_size: known.chunk_size,
            changed: known.changed,
            head: found.head.map(|slot| HeadPlace { class: slot.class as u8, index: slot.index }),
            open: self.is_referenced(inode),
            busy: self.is_busy(inode),
            directory: is_directory.then(|| directory_fact(state, found)),
        }
    }

    /// Whether an operation or a cut is at work on an inode.
    pub(crate) fn is_busy(&self, inode: InodeNumber) -> bool {
        let keys = [LockKey::Inode(inode), LockKey::Content(inode)];
        !self.locks.is_free(&keys) || self.store.state().cuts.contains_key(&inode)
    }

    pub(crate) fn scan_names(&self, request: &ScanNames) -> Answer {
        let limit = request.limit.clamp(1, SCAN_PAGE_MAX) as usize;
        let state = self.store.state();
        let after = (request.directory, request.cookie.saturating_add(1));
        let mut following = state.dentries.range(after..);
        let items = following.by_ref().take(limit).map(|((directory, cookie), entry)| {
            let (directory, name) = (*directory, entry.name.clone());
            let busy = !self.locks.is_free(&[LockKey::Name(directory, name.clone())]);
            let (cookie, inode, kind) = (*cookie, entry.inode, entry.kind);
            NameFact { directory, cookie, name, inode, kind, busy }
        });
        let items = items.collect();
        let end = following.next().is_none();
        reply(&NamePage { items, end })
    }

    pub(crate) async fn scan_segments(&self, request: &ScanSegments) -> Answer {
        let limit = request.limit.clamp(1, SCAN_PAGE_MAX) as usize;
        let keys = self.store.segments_after(request.inode, request.run, limit + 1);
        let mut end = keys.len() <= limit;
        let (mut items, mut ranges) = (Vec::new(), 0);
        for (inode, run) in keys.into_iter().take(limit) {
            if ranges > RANGES_MAX {
                end = false;
                break;
            }
            let fact = self.segment_fact(inode, run).await?;
            ranges += fact.as_ref().map_or(0, |fact| fact.chunks.len());
            items.extend(fact);
        }
        if items.is_empty() && !end {
            // All of them went while this looked: from where it started, others follow.
            return Err(ringfs_wire::Status::Busy);
        }
        reply(&SegmentPage { items, end })
    }

    async fn segment_fact(
        &self,
        inode: InodeNumber,
        run: u32,
    ) -> Result<Option<SegmentFact>, ringfs_wire::Status> {
        let floor = self.store.state().floors.get(&inode).copied();
        let chunk_size = floor.map_or(self.map.chunk_size(), |floor| floor.chunk_size);
        let found = self.store.segment(inode, run, chunk_size).await;
        let Some(found) = found.map_err(|error| error.status())? else { return Ok(None) };
        let range = |range: std::ops::Range<u64>| ChunkRange { start: range.start, end: range.end };
        Ok(Some(SegmentFact {
            inode,
            run,
            allocated: found.allocated,
            missing: found.missing,
            generation: floor.map(|floor| floor.generation).unwrap_or_default(),
            cutting: floor.is_some_and(|floor| floor.pending.is_some()),
            chunk_size,
            chunks: found.chunks.into_iter().map(range).collect(),
        }))
    }

    pub(crate) fn scan_operations(&self) -> Answer {
        let state = self.store.state();
        let prepared = state.prepared.values().map(|prepared| {
            let inodes: BTreeSet<_> = prepared
                .steps
                .iter()
                .flat_map(|(step, result)| touched(step, result.inode))
                .collect();
            OpenOperation {
                kind: OpenKind::Prepared,
                operation: prepared.operation,
                inodes: inodes.into_iter().collect(),
                participants: Vec::new(),
            }
        });
        let committed = state.committed.iter().map(|(operation, participants)| OpenOperation {
            kind: OpenKind::Committed,
            operation: *operation,
            inodes: Vec::new(),
            participants: participants.clone(),
        });
        let cuts = state.cuts.values().map(|cut| OpenOperation {
            kind: OpenKind::Cut,
            operation: OperationId { coordinator: self.id, number: cut.generation.0 },
            inodes: vec![cut.inode],
            participants: Vec::new(),
        });
        let all: Vec<_> = prepared.chain(committed).chain(cuts).take(OPERATIONS_MAX).collect();
        reply(&all)
    }

    pub(crate) async fn verify(&self, request: &Verify) -> Answer {
        reply(&self.store.verify(request.cursor).await.map_err(|error| error.status())?)
    }
}

fn directory_fact(state: &State, found: &Inode) -> DirectoryFact {
    let inode = found.attributes.inode;
    let inside = state.dentries.range((inode, 0)..=(inode, u64::MAX));
    let (mut entries, mut subdirectories) = (0, 0);
    for (_, entry) in inside {
        entries += 1;
        subdirectories += u32::from(entry.kind == InodeType::Directory);
    }
    let parent = found.attributes.parent;
    let place = found.name().map(|name| DirectoryPlace { parent, name: name.clone() });
    DirectoryFact { place, entries, subdirectories }
}

/// The inodes that a step changes, or whose names it does.
fn touched(step: &Step, result: InodeNumber) -> Vec<InodeNumber> {
    let inodes = match step {
        Step::PutName { directory, inode, replaces, .. } => {
            vec![*directory, *inode, replaces.unwrap_or_default()]
        }
        Step::TakeName { directory, inode, .. } | Step::Move { directory, inode, .. } => {
            vec![*directory, *inode]
        }
        Step::CreateDirectory { parent, .. } => vec![*parent, result],
        Step::AddLink { inode } | Step::DropLink { inode } | Step::DropDirectory { inode } => {
            vec![*inode]
        }
        Step::LockRenames {} => Vec::new(),
    };
    inodes.into_iter().filter(|inode| *inode != InodeNumber::default()).collect()
}
