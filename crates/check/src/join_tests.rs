//! Hand-made records, each with one thing wrong with it.

use ringfs_placement::{MapParts, NodeEntry, TargetEntry};
use ringfs_wire::{ClusterId, Generation, NodeId, OperationId, Timestamp};

use super::*;

const TARGETS: u32 = 3;
const CHUNK: u32 = 1 << 20;

fn map() -> Rc<ClusterMap> {
    let node = NodeEntry { id: NodeId(0), address: "10.0.0.1:7000".to_owned() };
    let targets = (0..TARGETS).map(|id| TargetEntry { id: TargetId(id), node: NodeId(0) });
    let mut parts = MapParts::new(ClusterId(1), "test", vec![node], targets.collect());
    parts.chunk_size = CHUNK;
    Rc::new(ClusterMap::new(parts).unwrap())
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// A cluster in facts: a root with the directory `d`, which holds the files `a` and `b`.
struct Facts {
    map: Rc<ClusterMap>,
    unread: BTreeSet<TargetId>,
    inodes: Vec<InodeFact>,
    names: Vec<NameFact>,
    segments: Vec<(TargetId, SegmentFact)>,
    open: Vec<(TargetId, OpenOperation)>,
}

const D: InodeNumber = InodeNumber(0x1234 << 40 | 16);
const A: InodeNumber = InodeNumber(0x1234 << 40 | 17);
const B: InodeNumber = InodeNumber(0x1234 << 40 | 18);
/// Belongs to nobody.
const NOTHING: InodeNumber = InodeNumber(0x777 << 40 | 99);

fn inode(inode: InodeNumber, kind: InodeType, links: u32) -> InodeFact {
    InodeFact {
        inode,
        kind,
        links,
        size: 0,
        generation: Generation(1),
        reach: 0,
        chunk_size: CHUNK,
        changed: Timestamp { seconds: 5, nanos: 7 },
        head: None,
        open: false,
        busy: false,
        directory: None,
    }
}

fn directory(number: InodeNumber, place: Option<(InodeNumber, &str)>, sub: u32) -> InodeFact {
    let place = place.map(|(parent, text)| DirectoryPlace { parent, name: name(text) });
    let facts = DirectoryFact { place, entries: sub.into(), subdirectories: sub };
    let mut fact = inode(number, InodeType::Directory, 2 + sub);
    fact.size = sub.into();
    fact.directory = Some(facts);
    fact
}

fn entry(directory: InodeNumber, text: &str, inode: InodeNumber, kind: InodeType) -> NameFact {
    let cookie = 16 * u64::from(text.as_bytes()[0]);
    NameFact { directory, cookie, name: name(text), inode, kind, busy: false }
}

fn segment(inode: InodeNumber, chunks: &[(u64, u64)]) -> SegmentFact {
    let chunks = chunks.iter().map(|(start, end)| ChunkRange { start: *start, end: *end });
    SegmentFact {
        inode,
        run: 0,
        allocated: 4096,
        missing: false,
        generation: Generation(0),
        cutting: false,
        chunk_size: CHUNK,
        chunks: chunks.collect(),
    }
}

impl Facts {
    fn new() -> Self {
        let mut d = directory(D, Some((InodeNumber::ROOT, "d")), 0);
        d.size = 2;
        d.directory.as_mut().unwrap().entries = 2;
        let file = |number| inode(number, InodeType::File, 1);
        Self {
            map: map(),
            unread: BTreeSet::new(),
            inodes: vec![directory(InodeNumber::ROOT, None, 1), d, file(A), file(B)],
            names: vec![
                entry(InodeNumber::ROOT, "d", D, InodeType::Directory),
                entry(D, "a", A, InodeType::File),
                entry(D, "b", B, InodeType::File),
            ],
            segments: Vec::new(),
            open: Vec::new(),
        }
    }

    fn join(&mut self) -> Join {
        let suspects = self.inodes.iter().map(|fact| fact.inode).collect::<Vec<_>>();
        let mut join = Join::new(self.map.clone(), self.unread.clone(), suspects);
        self.inodes.sort_by_key(|fact| fact.inode);
        for (target, open) in &self.open {
            join.add_operations(*target, vec![open.clone()]);
        }
        let is_read = |target: &TargetId| !self.unread.contains(target);
        for fact in &self.inodes {
            let home = self.map.home(fact.inode);
            assert!(!is_read(&home) || join.add_inodes(home, std::slice::from_ref(fact)));
        }
        for fact in &self.names {
            let home = self.map.home(fact.directory);
            if is_read(&home) {
                join.add_names(home, vec![fact.clone()]);
            }
        }
        for (target, fact) in &self.segments {
            join.add_segments(*target, std::slice::from_ref(fact));
        }
        join
    }

    #[track_caller]
    fn expect(&mut self, expected: &[Finding]) {
        let found = self.join().findings();
        let found: Vec<_> = found.into_iter().map(|(_, finding)| finding).collect();
        assert_eq!(found, expected);
    }

    fn inode(&mut self, inode: InodeNumber) -> &mut InodeFact {
        self.inodes.iter_mut().find(|fact| fact.inode == inode).unwrap()
    }

    /// The owner of a chunk, and somebody who is not.
    fn owners(&self, inode: InodeNumber, chunk: u64) -> (TargetId, TargetId) {
        let owner = self.map.chunk_owner(inode, chunk);
        (owner, TargetId((owner.0 + 1) % TARGETS))
    }
}

#[test]
fn what_fits_is_no_finding() {
    let mut facts = Facts::new();
    facts.inode(A).reach = 3 * u64::from(CHUNK);
    let owner = facts.owners(A, 2).0;
    facts.segments.push((owner, segment(A, &[(2, 3)])));
    facts.expect(&[]);
    let join = facts.join();
    assert_eq!(join.counts(), Counts { inodes: 4, names: 3, chunks: 1, bytes: 4096 });
    assert_eq!(join.path(A).as_deref(), Some("/d/a"));
    assert_eq!(join.path(D).as_deref(), Some("/d"));
    assert_eq!(join.path(InodeNumber::ROOT).as_deref(), Some("/"));
}

#[test]
fn a_name_that_leads_to_nothing() {
    let mut facts = Facts::new();
    facts.names[1].inode = NOTHING;
    facts.inodes.retain(|fact| fact.inode != A);
    let dangling = Finding::DanglingName { directory: D, name: name("a"), inode: NOTHING };
    facts.expect(std::slice::from_ref(&dangling));
    // An operation is about to create it.
    facts.names[1].busy = true;
    facts.expect(&[]);
    facts.names[1].busy = false;
    let operation = OperationId { coordinator: TargetId(0), number: 3 };
    let (kind, inodes) = (OpenKind::Prepared, vec![NOTHING]);
    let open = OpenOperation { kind, operation, inodes: inodes.clone(), participants: Vec::new() };
    facts.open.push((TargetId(1), open));
    facts.expect(&[Finding::Unended { kind, operation, inodes }]);
}

#[test]
fn a_name_without_its_directory_or_of_the_wrong_type() {
    let mut facts = Facts::new();
    facts.names[1].directory = NOTHING;
    facts.names[2].kind = InodeType::Symlink;
    let (given, kind) = (InodeType::Symlink, InodeType::File);
    facts.expect(&[
        Finding::NameWithoutDirectory { directory: NOTHING, name: name("a"), inode: A },
        Finding::WrongType { directory: D, name: name("b"), inode: B, given, kind },
    ]);
}

#[test]
fn inodes_without_names() {
    let mut facts = Facts::new();
    facts.names.remove(1);
    facts.inode(A).size = 5;
    let changed = facts.inode(A).changed;
    let orphan = |is_empty| Finding::Orphan { inode: A, kind: InodeType::File, is_empty, changed };
    facts.expect(&[orphan(false)]);
    facts.inode(A).size = 0;
    facts.expect(&[orphan(true)]);
    facts.inode(A).busy = true;
    facts.expect(&[]);
    facts.inode(A).busy = false;
    facts.inode(A).links = 0;
    facts.expect(&[Finding::Unreleased { inode: A, changed }]);
    facts.inode(A).open = true;
    facts.expect(&[]);
}

#[test]
fn wrong_counts() {
    let mut facts = Facts::new();
    facts.inode(A).links = 2;
    facts.inode(D).size = 7;
    facts.inode(D).links = 3;
    let changed = facts.inode(A).changed;
    facts.expect(&[
        Finding::WrongCounts { inode: D, size: 7, entries: 2, links: 3, expected: 2 },
        Finding::WrongLinks { inode: A, links: 2, names: 1, changed },
    ]);
    // A second name makes the first count right.
    facts.names.push(entry(InodeNumber::ROOT, "z", A, InodeType::File));
    facts.inode(D).links = 2;
    facts.inode(D).size = 2;
    facts.expect(&[]);
}

#[test]
fn directories_that_are_elsewhere_or_twice() {
    let mut facts = Facts::new();
    facts.inode(D).directory.as_mut().unwrap().place =
        Some(DirectoryPlace { parent: InodeNumber::ROOT, name: name("other") });
    let changed = facts.inode(D).changed;
    let place = DirectoryPlace { parent: InodeNumber::ROOT, name: name("d") };
    facts.expect(&[Finding::WrongPlace { inode: D, place, changed }]);
    assert_eq!(facts.join().path(A).as_deref(), Some("/d/a"), "names count");
    facts.names.push(entry(InodeNumber::ROOT, "e", D, InodeType::Directory));
    facts.expect(&[Finding::ManyNames { inode: D, names: 2 }]);
}

#[test]
fn directories_that_lie_in_each_other() {
    let mut facts = Facts::new();
    let (x, y) = (InodeNumber(0x55 << 40 | 20), InodeNumber(0x66 << 40 | 21));
    facts.inodes.push(directory(x, Some((y, "x")), 1));
    facts.inodes.push(directory(y, Some((x, "y")), 1));
    facts.names.push(entry(x, "y", y, InodeType::Directory));
    facts.names.push(entry(y, "x", x, InodeType::Directory));
    facts.expect(&[Finding::Cycle { inode: x, count: 2 }]);
    assert_eq!(facts.join().path(x), None);
}

#[test]
fn chunks_that_nobody_misses() {
    let mut facts = Facts::new();
    let reach = u64::from(CHUNK);
    facts.inode(A).reach = reach;
    let owner = facts.owners(A, 5).0;
    facts.segments.push((TargetId(1), segment(NOTHING, &[(0, 4)])));
    facts.segments.push((owner, segment(A, &[(5, 6)])));
    let generation = Generation(1);
    let beyond = Finding::ChunksBeyond { inode: A, chunk: 5, reach, generation };
    let leaked = Finding::LeakedChunks { inode: NOTHING, bytes: 4096 };
    facts.expect(&[beyond, leaked]);
    // A cut is on its way.
    facts.segments[0].1.cutting = true;
    let operation = OperationId { coordinator: TargetId(0), number: 2 };
    let (kind, inodes) = (OpenKind::Cut, vec![A]);
    let open = OpenOperation { kind, operation, inodes: inodes.clone(), participants: Vec::new() };
    facts.open.push((facts.map.home(A), open));
    facts.expect(&[Finding::Unended { kind, operation, inodes }]);
}

#[test]
fn chunks_of_another_owner() {
    let mut facts = Facts::new();
    facts.inode(A).reach = u64::MAX;
    let stranger = facts.owners(A, 3).1;
    facts.segments.push((stranger, segment(A, &[(3, 4)])));
    let chunks = ChunkRange { start: 3, end: 4 };
    facts.expect(&[Finding::ChunksAstray { inode: A, chunks, chunk_size: CHUNK }]);
}

#[test]
fn a_segment_that_is_gone_and_one_that_is_ahead() {
    let mut facts = Facts::new();
    facts.inode(A).reach = u64::MAX;
    let owner = facts.owners(A, 0).0;
    let mut fact = segment(A, &[]);
    (fact.missing, fact.generation) = (true, Generation(4));
    facts.segments.push((owner, fact));
    let (home, generation) = (Generation(1), Generation(4));
    facts.expect(&[
        Finding::SegmentMissing { inode: A, run: 0 },
        Finding::GenerationAhead { inode: A, home, generation },
    ]);
}

#[test]
fn heads_and_homes_that_are_not_ones_own() {
    let mut facts = Facts::new();
    let head = HeadPlace { class: 2, index: 70 };
    facts.inode(A).head = Some(head);
    facts.inode(B).head = Some(head);
    facts.expect(&[Finding::SharedHead { inode: B, head }]);
    let mut join = facts.join();
    let stranger = TargetId((facts.map.home(A).0 + 1) % TARGETS);
    join.add_inodes(stranger, &[inode(A, InodeType::File, 1)]);
    assert!(join.findings().contains(&(stranger, Finding::WrongHome { inode: A })));
}

#[test]
fn what_cannot_be_read_is_not_judged() {
    let mut facts = Facts::new();
    let home = facts.map.home(A);
    let other = (0..TARGETS).map(TargetId).find(|target| *target != home).unwrap();
    facts.unread.insert(home);
    facts.names.clear();
    facts.segments.push((other, segment(A, &[(0, 1)])));
    facts.inodes.retain(|fact| fact.inode != InodeNumber::ROOT);
    facts.expect(&[]);
}

#[test]
fn inodes_come_in_order() {
    let mut join = Facts::new().join();
    let home = map().home(A);
    assert!(!join.add_inodes(home, &[inode(A, InodeType::File, 1)]));
}
