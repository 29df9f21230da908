//! The files of the bare mount, in memory: directories of names, and files as pieces that were
//! written. Invariant: a number is never used twice, and a removed file lives for as long as the
//! kernel knows its number.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ringfs_platform::Buffer;

use super::protocol::{DIRECTORY, Errno, FILE, Request};

/// The root's number.
const ROOT: u64 = 1;
/// Parts of the table of files, each with a lock of its own.
const PARTS: u64 = 64;
/// What holes read as, so many bytes at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Bytes that were written together.
#[derive(Clone)]
pub(super) struct Extent {
    /// `None` for zeros.
    buffer: Option<Arc<Buffer>>,
    range: Range<usize>,
}

impl Extent {
    pub(super) fn new(buffer: Buffer, range: Range<usize>) -> Self {
        Self { buffer: Some(Arc::new(buffer)), range }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        let all = self.buffer.as_ref().map_or(&ZEROS[..], |buffer| &buffer[..]);
        &all[self.range.clone()]
    }

    fn len(&self) -> u64 {
        self.range.len() as u64
    }

    /// The part of it from `from` up to `to`, both counted from its begin.
    fn part(&self, from: u64, to: u64) -> Self {
        let start = self.range.start;
        Self { buffer: self.buffer.clone(), range: start + from as usize..start + to as usize }
    }
}

impl From<&[u8]> for Extent {
    fn from(bytes: &[u8]) -> Self {
        Self::new(Buffer::from_slice(bytes), 0..bytes.len())
    }
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Content {
    size: u64,
    /// By offset; none overlaps another or reaches beyond the size.
    extents: BTreeMap<u64, Extent>,
}

impl Content {
    /// Writes.
    pub(super) fn put(&mut self, offset: u64, extent: Extent) {
        let end = offset + extent.len();
        self.drop_range(offset, end);
        self.size = self.size.max(end);
        self.extents.insert(offset, extent);
    }

    /// Reads up to the end.
    pub(super) fn get(&self, offset: u64, len: u64) -> Vec<Extent> {
        let end = self.size.min(offset.saturating_add(len));
        let mut found = Vec::with_capacity(1);
        let mut at = offset;
        let before = self.extents.range(..offset).next_back();
        for (&start, extent) in before.into_iter().chain(self.extents.range(offset..)) {
            let (from, to) = (start.max(at), end.min(start + extent.len()));
            if start >= end {
                break;
            }
            if from < to {
                zeros(at, from, &mut found);
                found.push(extent.part(from - start, to - start));
                at = to;
            }
        }
        zeros(at, end, &mut found);
        found
    }

    /// Shortens or prolongs.
    pub(super) fn cut(&mut self, size: u64) {
        self.drop_range(size, u64::MAX);
        self.size = size;
    }

    fn drop_range(&mut self, from: u64, to: u64) {
        // Appending overlaps nothing.
        if from >= self.size {
            return;
        }
        let before = self.extents.range(..from).next_back().map(|(start, _)| *start);
        let within = self.extents.range(from..to).map(|(start, _)| *start);
        let touched: Vec<u64> = before.into_iter().chain(within).collect();
        for start in touched {
            let Some(extent) = self.extents.remove(&start) else { continue };
            let end = start + extent.len();
            if start < from {
                self.extents.insert(start, extent.part(0, from.min(end) - start));
            }
            if end > to {
                self.extents.insert(to, extent.part(to - start, end - start));
            }
        }
    }
}

/// Appends zeros for what lies between two offsets.
fn zeros(from: u64, to: u64, found: &mut Vec<Extent>) {
    let mut left = to.saturating_sub(from) as usize;
    while left > 0 {
        let len = left.min(ZEROS.len());
        found.push(Extent { buffer: None, range: 0..len });
        left -= len;
    }
}

/// Names, and in which order they were made.
#[derive(Default)]
struct Names {
    numbers: HashMap<Vec<u8>, u64>,
    order: BTreeMap<u64, Vec<u8>>,
}

enum Kind {
    Directory(RwLock<Names>),
    File(RwLock<Content>),
}

/// A file or directory.
pub(super) struct Node {
    number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    /// How often the kernel was told of it.
    lookups: AtomicU64,
    removed: AtomicBool,
    kind: Kind,
}

impl Node {
    fn new(number: u64, mode: u32, uid: u32, gid: u32) -> Self {
        let (kind, bits) = if mode & DIRECTORY != 0 {
            (Kind::Directory(RwLock::default()), DIRECTORY)
        } else {
            (Kind::File(RwLock::default()), FILE)
        };
        let mode = bits | mode & 0o7777;
        let (lookups, removed) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { number, mode, uid, gid, lookups, removed, kind }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn mode(&self) -> u32 {
        self.mode
    }

    pub(super) fn owner(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    pub(super) fn size(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => read(content).size,
            Kind::Directory(_) => 0,
        }
    }

    pub(super) fn note_lookup(&self) {
        self.lookups.fetch_add(1, Ordering::Relaxed);
    }

    fn names(&self) -> Result<&RwLock<Names>, Errno> {
        match &self.kind {
            Kind::Directory(names) => Ok(names),
            Kind::File(_) => Err(Errno::NOT_DIRECTORY),
        }
    }
}

/// A file's content, to be locked.
pub(super) struct File(Arc<Node>);

impl File {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Content> {
        read(self.content())
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Content> {
        write(self.content())
    }

    fn content(&self) -> &RwLock<Content> {
        match &self.0.kind {
            Kind::File(content) => content,
            Kind::Directory(_) => unreachable!("checked when the file was found"),
        }
    }
}

/// Everything.
pub(super) struct Tree {
    parts: Vec<RwLock<HashMap<u64, Arc<Node>>>>,
    next: AtomicU64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let tree = Self {
            parts: (0..PARTS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(ROOT + 1),
        };
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        tree.insert(Node::new(ROOT, DIRECTORY | 0o755, uid.as_raw(), gid.as_raw()));
        tree
    }

    fn part(&self, number: u64) -> &RwLock<HashMap<u64, Arc<Node>>> {
        &self.parts[(number % PARTS) as usize]
    }

    fn insert(&self, node: Node) -> Arc<Node> {
        let node = Arc::new(node);
        write(self.part(node.number)).insert(node.number, node.clone());
        node
    }

    pub(super) fn node(&self, number: u64) -> Result<Arc<Node>, Errno> {
        read(self.part(number)).get(&number).cloned().ok_or(Errno::NO_ENTRY)
    }

    pub(super) fn file(&self, number: u64) -> Result<File, Errno> {
        let node = self.node(number)?;
        match &node.kind {
            Kind::File(_) => Ok(File(node)),
            Kind::Directory(_) => Err(Errno::IS_DIRECTORY),
        }
    }

    pub(super) fn look_up(&self, directory: u64, name: &[u8]) -> Result<Arc<Node>, Errno> {
        let directory = self.node(directory)?;
        let number = read(directory.names()?).numbers.get(name).copied();
        self.node(number.ok_or(Errno::NO_ENTRY)?)
    }

    /// Makes a directory if `mode` says so or the request is for one, else a file.
    pub(super) fn make(
        &self,
        directory: u64,
        request: &Request<'_>,
        mode: u32,
        name: &[u8],
    ) -> Result<Arc<Node>, Errno> {
        let directory = self.node(directory)?;
        let mut names = write(directory.names()?);
        if names.numbers.contains_key(name) {
            return Err(Errno::EXISTS);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let kind = if request.opcode == super::opcode::MKDIR { DIRECTORY } else { FILE };
        let node = self.insert(Node::new(number, kind | mode & 0o7777, request.uid, request.gid));
        names.numbers.insert(name.to_vec(), number);
        names.order.insert(number, name.to_vec());
        Ok(node)
    }

    pub(super) fn remove(&self, directory: u64, name: &[u8]) -> Result<(), Errno> {
        let node = self.look_up(directory, name)?;
        if let Kind::Directory(names) = &node.kind
            && !read(names).numbers.is_empty()
        {
            return Err(Errno::NOT_EMPTY);
        }
        let directory = self.node(directory)?;
        let mut names = write(directory.names()?);
        names.numbers.remove(name);
        names.order.remove(&node.number);
        node.removed.store(true, Ordering::Release);
        Ok(())
    }

    /// Lets go of a removed file when the kernel has done so.
    pub(super) fn forget(&self, number: u64, count: u64) {
        let Ok(node) = self.node(number) else { return };
        let left = node.lookups.fetch_sub(count, Ordering::AcqRel).wrapping_sub(count);
        if left == 0 && node.removed.load(Ordering::Acquire) {
            write(self.part(number)).remove(&number);
        }
    }

    /// Shows the entries of a directory made after number `after`, until `show` has enough.
    pub(super) fn list(
        &self,
        directory: u64,
        after: u64,
        mut show: impl FnMut(&[u8], &Node) -> bool,
    ) -> Result<(), Errno> {
        let directory = self.node(directory)?;
        let names = read(directory.names()?);
        for (number, name) in names.order.range(after + 1..) {
            if !show(name, &*self.node(*number)?) {
                break;
            }
        }
        Ok(())
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &Content, offset: u64, len: u64) -> Vec<u8> {
        content.get(offset, len).iter().flat_map(|extent| extent.bytes().to_vec()).collect()
    }

    #[test]
    fn the_last_write_is_read() {
        let mut content = Content::default();
        content.put(4, Extent::from(&b"abcdef"[..]));
        assert_eq!(text(&content, 2, 100), b"\0\0abcdef");
        content.put(6, Extent::from(&b"XY"[..]));
        assert_eq!(text(&content, 0, 100), b"\0\0\0\0abXYef");
        assert_eq!(text(&content, 5, 2), b"bX");
        content.put(3, Extent::from(&b"1234"[..]));
        assert_eq!(text(&content, 0, 100), b"\0\0\x001234Yef");
        content.cut(5);
        content.cut(7);
        assert_eq!(text(&content, 0, 100), b"\0\0\x0012\0\0");
        assert!(text(&content, 7, 1).is_empty());
    }
}
