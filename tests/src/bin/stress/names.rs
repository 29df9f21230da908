//! Names: created, removed, linked and renamed through one mount, looked up and listed through
//! both.
//!
//! Invariant: one register per name says which node it leads to, one per node how many names lead
//! there and with which mode. A change holds the pens of all registers it touches; a pen that
//! somebody else holds is not waited for.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use crate::oracle::{Register, Window};
use crate::world::{Failure, Mount, Step, Worker, patiently};

/// How many names each directory has. The last one needs more than one reply to list.
const DIRECTORY_SLOTS: [usize; 4] = [4, 12, 12, 400];
/// Files one thread keeps open.
const HELD_MAX: usize = 8;
/// The name inside every directory that comes and goes.
const CHILD: &str = "inside";
const FILE_MODE: u32 = 0o640;

/// What a name can lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
}

/// Something that names lead to.
pub(crate) struct Node {
    id: u64,
    kind: Kind,
    /// Zero until the maker knows it.
    inode: AtomicU64,
    /// The moment when its making was acknowledged; zero before.
    born: AtomicU64,
    links: Register<u64>,
    mode: Register<u32>,
}

impl fmt::Debug for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inode = self.inode.load(Ordering::SeqCst);
        write!(out, "{:?} {} with inode {inode}", self.kind, self.id)
    }
}

/// What an entry register holds.
type Entry = Option<Arc<Node>>;

/// A name that comes and goes.
#[derive(Debug)]
struct Slot {
    path: PathBuf,
    entry: Register<Entry>,
}

/// All names.
#[derive(Debug)]
pub(crate) struct Names {
    directories: Vec<Vec<Slot>>,
}

/// A file kept open.
#[derive(Debug)]
pub(crate) struct Held {
    node: Arc<Node>,
    file: File,
    mount: Mount,
    path: PathBuf,
}

/// What an observation showed of a name.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Nothing,
    Node { kind: Kind, inode: Option<u64>, id: Option<u64> },
}

impl Seen {
    fn matches(self, entry: &Entry) -> bool {
        match (self, entry) {
            (Self::Nothing, None) => true,
            (Self::Node { kind, inode, id }, Some(node)) => {
                let known = node.inode.load(Ordering::SeqCst);
                let same_inode = known == 0 || inode.is_none_or(|inode| inode == known);
                kind == node.kind && same_inode && id.is_none_or(|id| id == node.id)
            }
            _ => false,
        }
    }
}

impl Names {
    /// Makes the directories and shows them to both mounts.
    pub(crate) fn new(roots: &[PathBuf; 2]) -> io::Result<Self> {
        let mut directories = Vec::new();
        for (index, &count) in DIRECTORY_SLOTS.iter().enumerate() {
            let directory = PathBuf::from(format!("names-{index}"));
            fs::create_dir(roots[index % 2].join(&directory))?;
            let slot = |number: usize| Slot {
                path: directory.join(format!("name-{number}")),
                entry: Register::new(None),
            };
            directories.push((0..count).map(slot).collect());
        }
        Ok(Self { directories })
    }

    fn pick(&self, worker: &mut Worker<'_>) -> &Slot {
        let directory = worker.random.pick(&self.directories);
        worker.random.pick(directory)
    }

    /// One change through `mount`, looked at through both mounts before and after.
    pub(crate) fn hand_off(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let slot = self.pick(worker);
        // What the other mount has cached is what the change must revoke.
        if !worker.random.one_in(4) {
            self.observe(worker, slot, mount.other())?;
        }
        self.change(worker, slot, mount)?;
        self.observe(worker, slot, mount.other())?;
        if worker.random.one_in(4) { self.observe(worker, slot, mount) } else { Ok(()) }
    }

    /// One observation, most often of a name.
    pub(crate) fn look(&self, worker: &mut Worker<'_>, mount: Mount) -> Step {
        let slot = self.pick(worker);
        self.observe(worker, slot, mount)
    }

    fn observe(&self, worker: &mut Worker<'_>, slot: &Slot, mount: Mount) -> Step {
        match worker.random.below(16) {
            0..=6 => stat(worker, slot, mount),
            7..=9 => open(worker, slot, mount),
            10 => stat_child(worker, slot, mount),
            11 => read_link(worker, slot, mount),
            12..=14 => stat_held(worker),
            _ => {
                let directory = self
                    .directories
                    .iter()
                    .find(|slots| slots.iter().any(|other| other.path == slot.path));
                list(worker, directory.expect("a slot has a directory"), mount)
            }
        }
    }

    /// One change of a name, or none if somebody else is changing it.
    fn change(&self, worker: &mut Worker<'_>, slot: &Slot, mount: Mount) -> Step {
        let another = self.pick(worker);
        let Some(pen) = slot.entry.try_pen() else { return Ok(()) };
        let Some(node) = pen.current() else {
            drop(pen);
            return match worker.random.below(10) {
                0..=3 => create(worker, slot, mount, Kind::File),
                4 => create(worker, slot, mount, Kind::Directory),
                5 => create(worker, slot, mount, Kind::Symlink),
                6 => create(worker, slot, mount, Kind::Fifo),
                7 => link(worker, another, slot, mount),
                _ => rename(worker, another, slot, mount),
            };
        };
        drop(pen);
        match worker.random.below(8) {
            0..=2 => remove(worker, slot, mount),
            3 | 4 => rename(worker, another, slot, mount),
            5 => exchange(worker, another, slot, mount),
            _ => change_mode(worker, &node, slot, mount),
        }
    }
}

impl Node {
    fn new(id: u64, kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            id,
            kind,
            inode: AtomicU64::new(0),
            born: AtomicU64::new(0),
            links: Register::new(1),
            mode: Register::new(FILE_MODE),
        })
    }

    /// The bytes of a file and the target of a symlink.
    fn text(&self) -> String {
        format!("node-{:020}", self.id)
    }
}

/// Makes one node with what belongs to it.
fn make(path: &Path, node: &Node) -> io::Result<u64> {
    match node.kind {
        Kind::File => {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(path)?;
            file.write_all(node.text().as_bytes())?;
            return Ok(file.metadata()?.ino());
        }
        Kind::Directory => {
            DirBuilder::new().mode(0o750).create(path)?;
            File::create_new(path.join(CHILD))?;
        }
        Kind::Symlink => std::os::unix::fs::symlink(node.text(), path)?,
        Kind::Fifo => {
            let mode = rustix::fs::Mode::from_raw_mode(FILE_MODE);
            rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, mode, 0)?;
        }
    }
    Ok(fs::symlink_metadata(path)?.ino())
}

fn create(worker: &mut Worker<'_>, slot: &Slot, mount: Mount, kind: Kind) -> Step {
    let world = worker.world;
    let Some(pen) = slot.entry.try_pen() else { return Ok(()) };
    if pen.current().is_some() {
        return Ok(());
    }
    let call = match kind {
        Kind::File => "create",
        Kind::Directory => "mkdir",
        Kind::Symlink => "symlink",
        Kind::Fifo => "mknod",
    };
    let node = Node::new(world.fresh_id(), kind);
    pen.begin(&world.clock, Some(Arc::clone(&node)), worker.by(mount, call));
    let path = world.path(mount, &slot.path);
    let (window, inode) = worker.must(call, mount, &slot.path, || make(&path, &node))?;
    if world.abilities.same_inodes {
        node.inode.store(inode, Ordering::SeqCst);
    }
    node.born.store(window.end, Ordering::SeqCst);
    pen.end(&world.clock);
    Ok(())
}

fn remove(worker: &mut Worker<'_>, slot: &Slot, mount: Mount) -> Step {
    let world = worker.world;
    let Some(pen) = slot.entry.try_pen() else { return Ok(()) };
    let Some(node) = pen.current() else { return Ok(()) };
    let Some(links) = node.links.try_pen() else { return Ok(()) };
    let call = if node.kind == Kind::Directory { "rmdir" } else { "unlink" };
    let by = worker.by(mount, call);
    pen.begin(&world.clock, None, by);
    links.begin(&world.clock, links.current() - 1, by);
    let path = world.path(mount, &slot.path);
    worker.must(call, mount, &slot.path, || {
        if node.kind == Kind::Directory {
            fs::remove_file(path.join(CHILD))?;
            return fs::remove_dir(&path);
        }
        fs::remove_file(&path)
    })?;
    links.end(&world.clock);
    pen.end(&world.clock);
    Ok(())
}

fn link(worker: &mut Worker<'_>, from: &Slot, to: &Slot, mount: Mount) -> Step {
    let world = worker.world;
    let Some(pen) = to.entry.try_pen() else { return Ok(()) };
    let Some(source) = from.entry.try_pen() else { return Ok(()) };
    let (None, Some(node)) = (pen.current(), source.current()) else { return Ok(()) };
    if node.kind != Kind::File {
        return Ok(());
    }
    let Some(links) = node.links.try_pen() else { return Ok(()) };
    let by = worker.by(mount, "link");
    pen.begin(&world.clock, Some(Arc::clone(&node)), by);
    links.begin(&world.clock, links.current() + 1, by);
    let (old, new) = (world.path(mount, &from.path), world.path(mount, &to.path));
    worker.must("link", mount, &to.path, || fs::hard_link(&old, &new))?;
    links.end(&world.clock);
    pen.end(&world.clock);
    Ok(())
}

/// Renames whatever is at `from` to `to`, over what is there if the kinds allow it.
fn rename(worker: &mut Worker<'_>, from: &Slot, to: &Slot, mount: Mount) -> Step {
    let world = worker.world;
    let Some(target) = to.entry.try_pen() else { return Ok(()) };
    let Some(source) = from.entry.try_pen() else { return Ok(()) };
    let Some(node) = source.current() else { return Ok(()) };
    let over = target.current();
    let directory = node.kind == Kind::Directory;
    if let Some(over) = &over {
        // Two names of one file stay as they are; a directory and another kind refuse each other.
        if Arc::ptr_eq(over, &node) || directory != (over.kind == Kind::Directory) {
            return Ok(());
        }
    }
    let links = match &over {
        Some(over) => match over.links.try_pen() {
            Some(links) => Some(links),
            None => return Ok(()),
        },
        None => None,
    };
    let by = worker.by(mount, "rename");
    source.begin(&world.clock, None, by);
    target.begin(&world.clock, Some(Arc::clone(&node)), by);
    if let Some(links) = &links {
        links.begin(&world.clock, links.current() - 1, by);
    }
    let (old, new) = (world.path(mount, &from.path), world.path(mount, &to.path));
    worker.must("rename", mount, &to.path, || {
        if over.is_some() && directory {
            fs::remove_file(new.join(CHILD))?;
        }
        fs::rename(&old, &new)
    })?;
    if let Some(links) = &links {
        links.end(&world.clock);
    }
    target.end(&world.clock);
    source.end(&world.clock);
    Ok(())
}

fn exchange(worker: &mut Worker<'_>, one: &Slot, other: &Slot, mount: Mount) -> Step {
    let world = worker.world;
    if !world.abilities.rename_flags {
        return Ok(());
    }
    let Some(first) = one.entry.try_pen() else { return Ok(()) };
    let Some(second) = other.entry.try_pen() else { return Ok(()) };
    let (Some(a), Some(b)) = (first.current(), second.current()) else { return Ok(()) };
    let by = worker.by(mount, "exchange");
    first.begin(&world.clock, Some(b), by);
    second.begin(&world.clock, Some(a), by);
    let (old, new) = (world.path(mount, &one.path), world.path(mount, &other.path));
    worker.must("exchange", mount, &one.path, || {
        renameat_with(CWD, &old, CWD, &new, RenameFlags::EXCHANGE).map_err(io::Error::from)
    })?;
    second.end(&world.clock);
    first.end(&world.clock);
    Ok(())
}

fn change_mode(worker: &mut Worker<'_>, node: &Arc<Node>, slot: &Slot, mount: Mount) -> Step {
    let world = worker.world;
    let Some(entry) = slot.entry.try_pen() else { return Ok(()) };
    let same = entry.current().is_some_and(|now| Arc::ptr_eq(&now, node));
    if !same || !matches!(node.kind, Kind::File | Kind::Fifo) {
        return Ok(());
    }
    let Some(pen) = node.mode.try_pen() else { return Ok(()) };
    let bits = u32::try_from(worker.random.below(0o100)).expect("nine bits");
    pen.begin(&world.clock, 0o600 | bits, worker.by(mount, "chmod"));
    let path = world.path(mount, &slot.path);
    worker.must("chmod", mount, &slot.path, || {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600 | bits))
    })?;
    pen.end(&world.clock);
    Ok(())
}

fn kind_of(kind: fs::FileType) -> Option<Kind> {
    if kind.is_file() {
        Some(Kind::File)
    } else if kind.is_dir() {
        Some(Kind::Directory)
    } else if kind.is_symlink() {
        Some(Kind::Symlink)
    } else {
        kind.is_fifo().then_some(Kind::Fifo)
    }
}

fn seen_of(worker: &Worker<'_>, metadata: &fs::Metadata) -> Option<Seen> {
    let inode = worker.world.abilities.same_inodes.then(|| metadata.ino());
    kind_of(metadata.file_type()).map(|kind| Seen::Node { kind, inode, id: None })
}

fn other_kind(slot: &Slot, mount: Mount) -> Failure {
    Failure::Stale {
        object: slot.path.display().to_string(),
        mount,
        expected: "a kind that the checker makes".to_owned(),
        seen: "another".to_owned(),
    }
}

/// Judges what a name led to, and says which node it was if that is certain.
fn judge_entry(
    worker: &mut Worker<'_>,
    slot: &Slot,
    mount: Mount,
    window: Window,
    seen: Seen,
) -> Result<Option<Arc<Node>>, Failure> {
    let legal = slot.entry.legal(window);
    let object = || format!("name {}", slot.path.display());
    worker.judge(&legal, mount, object, &seen, |entry| seen.matches(entry))?;
    let mut matching = legal.versions.iter().filter(|version| seen.matches(&version.value));
    match (matching.next(), matching.next()) {
        (Some(version), None) if legal.complete => Ok(version.value.clone()),
        _ => Ok(None),
    }
}

/// Judges the attributes that came with a node.
fn judge_node(
    worker: &mut Worker<'_>,
    node: &Node,
    path: &Path,
    mount: Mount,
    window: Window,
    metadata: &fs::Metadata,
) -> Step {
    if matches!(node.kind, Kind::Directory | Kind::Symlink) {
        return Ok(());
    }
    let (links, mode) = (metadata.nlink(), metadata.mode() & 0o7777);
    let object = |what: &str| format!("{what} of {} (node {})", path.display(), node.id);
    let legal = node.links.legal(window);
    worker.judge(&legal, mount, || object("links"), &links, |&legal| legal == links)?;
    let legal = node.mode.legal(window).map(|mode| format!("{mode:#o}"));
    let mode = format!("{mode:#o}");
    worker.judge(&legal, mount, || object("mode"), &mode, |legal| *legal == mode)
}

fn stat(worker: &mut Worker<'_>, slot: &Slot, mount: Mount) -> Step {
    let path = worker.world.path(mount, &slot.path);
    let (window, result) =
        worker.call("stat", mount, &slot.path, patiently(|| fs::symlink_metadata(&path)));
    match result {
        Ok(metadata) => {
            let seen = seen_of(worker, &metadata).ok_or_else(|| other_kind(slot, mount))?;
            match judge_entry(worker, slot, mount, window, seen)? {
                Some(node) => judge_node(worker, &node, &slot.path, mount, window, &metadata),
                None => Ok(()),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            judge_entry(worker, slot, mount, window, Seen::Nothing).map(drop)
        }
        Err(error) => refused("stat", &slot.path, mount, error),
    }
}

fn refused(call: &'static str, path: &Path, mount: Mount, error: io::Error) -> Step {
    Err(Failure::Refused { call, object: path.display().to_string(), mount, error })
}

/// Opens by name, checks the open file and its bytes, and perhaps keeps it open.
fn open(worker: &mut Worker<'_>, slot: &Slot, mount: Mount) -> Step {
    let path = worker.world.path(mount, &slot.path);
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (window, result) = worker.call(
        "open",
        mount,
        &slot.path,
        patiently(|| rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).map(File::from)),
    );
    let symlink = Seen::Node { kind: Kind::Symlink, inode: None, id: None };
    let mut file = match result {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => {
            return judge_entry(worker, slot, mount, window, Seen::Nothing).map(drop);
        }
        Err(rustix::io::Errno::LOOP) => {
            return judge_entry(worker, slot, mount, window, symlink).map(drop);
        }
        Err(error) => return refused("open", &slot.path, mount, error.into()),
    };
    let (stat_window, metadata) = worker.must("fstat", mount, &slot.path, || file.metadata())?;
    let seen = seen_of(worker, &metadata).ok_or_else(|| other_kind(slot, mount))?;
    let Some(node) = judge_entry(worker, slot, mount, window, seen)? else { return Ok(()) };
    judge_node(worker, &node, &slot.path, mount, stat_window, &metadata)?;
    if node.kind != Kind::File {
        return Ok(());
    }
    let mut text = String::new();
    let (window, _) = worker.must("read", mount, &slot.path, || file.read_to_string(&mut text))?;
    let born = node.born.load(Ordering::SeqCst);
    let young = born == 0 || born > window.begin;
    if text != node.text() && !(young && node.text().starts_with(&text)) {
        return Err(Failure::Stale {
            object: format!("bytes of {}", slot.path.display()),
            mount,
            expected: node.text(),
            seen: format!("{text:?}"),
        });
    }
    if worker.random.one_in(4) {
        if worker.held.len() == HELD_MAX {
            let index = worker.random.below(HELD_MAX);
            worker.held.swap_remove(index);
        }
        worker.held.push(Held { node, file, mount, path: slot.path.clone() });
    }
    Ok(())
}

/// What a file kept open shows, whatever became of its names.
fn stat_held(worker: &mut Worker<'_>) -> Step {
    if worker.held.is_empty() {
        return Ok(());
    }
    let index = worker.random.below(worker.held.len());
    let Held { node, file, mount, path } = worker.held.swap_remove(index);
    let (window, metadata) = worker.must("fstat-held", mount, &path, || file.metadata())?;
    judge_node(worker, &node, &path, mount, window, &metadata)?;
    worker.held.push(Held { node, file, mount, path });
    Ok(())
}

fn stat_child(worker: &mut Worker<'_>, slot: &Slot, mount: Mount) -> Step {
    let name = slot.path.join(CHILD);
    let path = worker.world.path(mount, &name);
    let (window, result) =
        worker.call("stat-child", mount, &name, patiently(|| fs::symlink_metadata(&path)));
    let there = match result {
        Ok(_) => true,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            false
        }
        Err(error) => return refused("stat-child", &name, mount, error),
    };
    let legal = slot.entry.legal(window);
    // A directory is emptied before it goes and filled after it came.
    let changing = legal.versions.len() > 1;
    let object = || format!("name {}", name.display());
    worker.judge(&legal, mount, object, &there, |entry| match entry {
        Some(node) if node.kind == Kind::Directory => there || changing,
        _ => !there,
    })
}

fn read_link(worker: &mut Worker<'_>, slot: &Slot, mount: Mount) -> Step {
    let path = worker.world.path(mount, &slot.path);
    let (window, result) =
        worker.call("readlink", mount, &slot.path, patiently(|| fs::read_link(&path)));
    let legal = slot.entry.legal(window);
    let object = || format!("target of {}", slot.path.display());
    let shown = result.as_ref().map_err(io::Error::kind);
    worker.judge(&legal, mount, object, &shown, |entry| match (&result, entry) {
        (Ok(target), Some(node)) => {
            node.kind == Kind::Symlink && target.as_os_str() == node.text().as_str()
        }
        (Err(error), None) => error.kind() == ErrorKind::NotFound,
        (Err(error), Some(node)) => {
            node.kind != Kind::Symlink && error.kind() == ErrorKind::InvalidInput
        }
        (Ok(_), None) => false,
    })
}

/// Lists a directory: every name that was there all the time must be listed once, none that was
/// absent all the time may be.
fn list(worker: &mut Worker<'_>, slots: &[Slot], mount: Mount) -> Step {
    let directory = slots[0].path.parent().expect("slots have a directory");
    let path = worker.world.path(mount, directory);
    let (window, entries) = worker.must("readdir", mount, directory, || {
        fs::read_dir(&path)?
            .map(|entry| {
                entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?, entry.ino())))
            })
            .collect::<io::Result<Vec<_>>>()
    })?;
    let with_inodes = worker.world.abilities.same_inodes;
    for slot in slots {
        let name = slot.path.file_name().expect("slots have a name");
        let found: Vec<_> = entries.iter().filter(|entry| entry.0 == name).collect();
        let seen = match found.first() {
            None => Seen::Nothing,
            Some((_, kind, inode)) => {
                let kind = kind_of(*kind).ok_or_else(|| other_kind(slot, mount))?;
                Seen::Node { kind, inode: with_inodes.then_some(*inode), id: None }
            }
        };
        judge_entry(worker, slot, mount, window, seen)?;
        if found.len() > 1 && slot.entry.legal(window).versions.len() == 1 {
            let (expected, seen) = ("listed once".to_owned(), format!("{} times", found.len()));
            let object = format!("name {}", slot.path.display());
            return Err(Failure::Stale { object, mount, expected, seen });
        }
    }
    Ok(())
}
