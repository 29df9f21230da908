//! A whole file system embedded in one process, over one directory: no server, no network.
//!
//! Virtual absolute paths lead to inodes of one [`Store`]; the root is inode 1. A path has names
//! between slashes; `.` and `..` are refused. Invariant: an operation that returns is in the
//! kernel (it survives the death of the process), and after [`LocalFileSystem::sync`] on the
//! device. Deliberately without permission checks, links and locks: one process is one user.

mod cache;
mod data;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use ringfs_platform::Platform;
use ringfs_wire::{
    Attributes, CHUNK_SIZE, ClusterId, Errno, FilePermissions, InodeNumber, InodeType, Name,
    Status, Step, StepResult, TargetId, Timestamp,
};

use crate::error::StoreError;
use crate::locks::Locks;
use crate::metadata::{DirectoryEntry, DirectoryMetadata, FileMetadata, LISTED_CHUNKS_MAX};
use crate::namespace::{self, find};
use crate::record::{RangeKind, Record};
use crate::state::State;
use crate::store::{Store, StoreOptions, Transaction};

pub use cache::MetadataCache;

/// Marks the directories of embedded file systems.
const CLUSTER: ClusterId = ClusterId(u128::from_le_bytes(*b"LocalFileSystem\0"));
/// The only target.
const TARGET: TargetId = TargetId(0);
/// An embedded file system reserves less log space than a server.
const LOG_SEGMENT_BYTES: u64 = 1 << 20;

/// How to open a [`LocalFileSystem`].
#[derive(Clone, Copy, Debug)]
pub struct LocalOptions {
    /// Mode and owner of the root directory when it is created.
    pub root: FilePermissions,
    /// Bytes in a chunk of new files.
    pub chunk_size: u32,
    /// Paths cached at most.
    pub cached_paths: usize,
}

impl Default for LocalOptions {
    fn default() -> Self {
        let root = FilePermissions { mode: 0o755, uid: 0, gid: 0 };
        Self { root, chunk_size: CHUNK_SIZE, cached_paths: 4096 }
    }
}

/// A file system in this process. Clones share it.
#[derive(Clone)]
pub struct LocalFileSystem(Rc<Inner>);

struct Inner {
    platform: Platform,
    store: Store,
    chunk_size: u32,
    cache: RefCell<MetadataCache>,
    /// Handles by inode: a file without a name lives on while it has one.
    handles: RefCell<BTreeMap<InodeNumber, u32>>,
    /// Files whose chunks beyond their size are known to be holes.
    clean_tails: RefCell<BTreeSet<InodeNumber>>,
    /// Writers of a file exclude everybody, readers only writers.
    content: Locks,
    latest: Cell<Timestamp>,
}

/// An open file. Dropping it closes it.
pub struct LocalFile {
    system: LocalFileSystem,
    inode: InodeNumber,
}

impl LocalFile {
    /// The inode of the file.
    pub fn inode(&self) -> InodeNumber {
        self.inode
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        let mut handles = self.system.0.handles.borrow_mut();
        let count = handles.get_mut(&self.inode).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if count > 0 {
            return;
        }
        handles.remove(&self.inode);
        drop(handles);
        let mut tx = self.system.0.store.transaction();
        namespace::reap(&mut tx, self.inode, &|_| false);
        tx.commit();
        self.system.start_cut(self.inode);
    }
}

/// A path split into its names.
fn names_of(path: &str) -> Result<Vec<Name>, StoreError> {
    let Some(rest) = path.strip_prefix('/') else { return Err(Errno::EINVAL.into()) };
    let names = rest.split('/').filter(|name| !name.is_empty());
    names.map(|name| Name::new(name.as_bytes()).map_err(StoreError::from)).collect()
}

/// The one spelling under which a path is cached.
fn spelling(names: &[Name]) -> String {
    let mut path = String::new();
    for name in names {
        path.push('/');
        path.push_str(&name.to_string());
    }
    path
}

fn refused(status: Status) -> StoreError {
    StoreError::Refused(status.errno())
}

/// The inode that `names` lead to.
fn walk(state: &State, names: &[Name]) -> Result<InodeNumber, StoreError> {
    let mut inode = InodeNumber::ROOT;
    for name in names {
        namespace::directory(state, inode)?;
        inode = find(state, inode, name).ok_or(Errno::ENOENT)?.inode;
    }
    Ok(inode)
}

impl LocalFileSystem {
    /// Opens the file system in `directory`, creating it when that is empty or missing.
    pub async fn open(
        platform: &Platform,
        directory: &Path,
        options: LocalOptions,
    ) -> Result<Self, StoreError> {
        let mut store_options = StoreOptions::new(CLUSTER, TARGET);
        store_options.log_segment_bytes = LOG_SEGMENT_BYTES;
        store_options.root = Some(options.root);
        store_options.chunk_size = options.chunk_size;
        let store = Store::open(platform, directory, store_options).await?;
        let system = Self(Rc::new(Inner {
            platform: platform.clone(),
            store,
            chunk_size: options.chunk_size,
            cache: RefCell::new(MetadataCache::new(options.cached_paths)),
            handles: RefCell::default(),
            clean_tails: RefCell::default(),
            content: Locks::default(),
            latest: Cell::default(),
        }));
        system.drop_nameless();
        let cuts: Vec<InodeNumber> = system.0.store.state().cuts.keys().copied().collect();
        for inode in cuts {
            system.carry_out_cut(inode).await?;
        }
        Ok(system)
    }

    /// Files that lost their last name while they were open in an earlier life.
    fn drop_nameless(&self) {
        let nameless: Vec<InodeNumber> = {
            let state = self.0.store.state();
            let nameless = state.inodes.values().filter(|inode| inode.attributes.links == 0);
            nameless.map(|inode| inode.attributes.inode).collect()
        };
        for inode in nameless {
            let mut tx = self.0.store.transaction();
            namespace::reap(&mut tx, inode, &|_| false);
            tx.commit();
        }
    }

    /// The time, which never goes backwards here.
    fn now(&self) -> Timestamp {
        let now = Timestamp::from(self.0.platform.wall()).max(self.0.latest.get());
        self.0.latest.set(now);
        now
    }

    fn resolve(&self, names: &[Name]) -> Result<InodeNumber, StoreError> {
        let path = spelling(names);
        if let Some(inode) = self.0.cache.borrow_mut().get(&path) {
            return Ok(inode);
        }
        let inode = walk(&self.0.store.state(), names)?;
        self.0.cache.borrow_mut().insert(&path, inode);
        Ok(inode)
    }

    /// The directory that holds the last name of a path, and that name.
    fn resolve_parent<'a>(
        &self,
        names: &'a [Name],
        root: Errno,
    ) -> Result<(InodeNumber, &'a Name), StoreError> {
        let (name, parents) = names.split_last().ok_or(root)?;
        let directory = self.resolve(parents)?;
        namespace::directory(&self.0.store.state(), directory)?;
        Ok((directory, name))
    }

    fn attributes(&self, inode: InodeNumber) -> Result<Attributes, StoreError> {
        let state = self.0.store.state();
        Ok(state.inodes.get(&inode).ok_or(Errno::ENOENT)?.attributes.clone())
    }

    /// Checks all steps, then carries all of them out as one group.
    async fn run(&self, steps: &[Step], growing: bool) -> Result<(), StoreError> {
        self.0.store.room(growing)?;
        for step in steps {
            namespace::check(&self.0.store.state(), step).map_err(refused)?;
        }
        let now = self.now();
        let mut tx = self.0.store.transaction();
        for step in steps {
            self.execute(&mut tx, step, now);
        }
        self.0.store.written(tx.commit()).await
    }

    fn execute(&self, tx: &mut Transaction, step: &Step, now: Timestamp) {
        let handles = self.0.handles.borrow();
        let result = StepResult { inode: InodeNumber::ROOT };
        namespace::execute(tx, step, result, now, &|inode| handles.contains_key(&inode));
    }

    async fn new_number(&self) -> Result<InodeNumber, StoreError> {
        Ok(InodeNumber::new(0, self.0.store.allocate(RangeKind::Inode).await?))
    }

    /// Creates an inode and its name.
    async fn create(
        &self,
        names: &[Name],
        kind: InodeType,
        permissions: FilePermissions,
    ) -> Result<InodeNumber, StoreError> {
        let (directory, name) = self.resolve_parent(names, Errno::EEXIST)?;
        if find(&self.0.store.state(), directory, name).is_some() {
            return Err(Errno::EEXIST.into());
        }
        self.0.store.room(true)?;
        let inode = self.new_number().await?;
        let put = Step::PutName { directory, name: name.clone(), inode, kind, replaces: None };
        namespace::check(&self.0.store.state(), &put).map_err(refused)?;
        let now = self.now();
        let mut record = namespace::new_inode(inode, kind, permissions, directory, now);
        record.attributes.chunk_size = self.0.chunk_size;
        if kind == InodeType::Directory {
            record = record.with_name(name.clone());
        }
        let mut tx = self.0.store.transaction();
        tx.put(Record::PutInode { inode: record });
        self.execute(&mut tx, &put, now);
        let position = tx.commit();
        self.0.clean_tails.borrow_mut().insert(inode);
        self.0.store.written(position).await?;
        Ok(inode)
    }

    /// Creates and opens a file; its name must be free.
    pub async fn create_file(
        &self,
        path: &str,
        permissions: FilePermissions,
    ) -> Result<LocalFile, StoreError> {
        let inode = self.create(&names_of(path)?, InodeType::File, permissions).await?;
        Ok(self.handle(inode))
    }

    /// Opens an existing file.
    pub fn open_file(&self, path: &str) -> Result<LocalFile, StoreError> {
        let inode = self.resolve(&names_of(path)?)?;
        match self.attributes(inode)?.kind {
            InodeType::File => Ok(self.handle(inode)),
            _ => Err(Errno::EISDIR.into()),
        }
    }

    fn handle(&self, inode: InodeNumber) -> LocalFile {
        *self.0.handles.borrow_mut().entry(inode).or_default() += 1;
        LocalFile { system: self.clone(), inode }
    }

    /// Removes the name of a file; the file goes with its last handle.
    pub async fn unlink_file(&self, path: &str) -> Result<(), StoreError> {
        let names = names_of(path)?;
        let (directory, name) = self.resolve_parent(&names, Errno::EISDIR)?;
        let entry = find(&self.0.store.state(), directory, name).ok_or(Errno::ENOENT)?;
        let inode = entry.inode;
        let take = Step::TakeName { directory, name: name.clone(), inode };
        self.0.cache.borrow_mut().invalidate(&spelling(&names));
        let done = self.run(&[take, Step::DropLink { inode }], false).await;
        self.start_cut(inode);
        done
    }

    /// Creates a directory.
    pub async fn create_directory(
        &self,
        path: &str,
        permissions: FilePermissions,
    ) -> Result<InodeNumber, StoreError> {
        self.create(&names_of(path)?, InodeType::Directory, permissions).await
    }

    /// Removes an empty directory.
    pub async fn remove_directory(&self, path: &str) -> Result<(), StoreError> {
        let names = names_of(path)?;
        let (directory, name) = self.resolve_parent(&names, Errno::EBUSY)?;
        let entry = find(&self.0.store.state(), directory, name).ok_or(Errno::ENOENT)?;
        let inode = entry.inode;
        let take = Step::TakeName { directory, name: name.clone(), inode };
        self.0.cache.borrow_mut().invalidate(&spelling(&names));
        self.run(&[take, Step::DropDirectory { inode }], false).await
    }

    /// Moves a name, replacing a file by a file and an empty directory by a directory.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (names_of(from)?, names_of(to)?);
        let (from_directory, from_name) = self.resolve_parent(&from, Errno::EBUSY)?;
        let source = find(&self.0.store.state(), from_directory, from_name).ok_or(Errno::ENOENT)?;
        let (to_directory, to_name) = self.resolve_parent(&to, Errno::EBUSY)?;
        if source.kind == InodeType::Directory && to.len() > from.len() && to.starts_with(&from) {
            return Err(Errno::EINVAL.into());
        }
        let target = find(&self.0.store.state(), to_directory, to_name);
        if target.as_ref().is_some_and(|target| target.inode == source.inode) {
            return Ok(());
        }
        let mut steps = vec![
            Step::TakeName {
                directory: from_directory,
                name: from_name.clone(),
                inode: source.inode,
            },
            Step::PutName {
                directory: to_directory,
                name: to_name.clone(),
                inode: source.inode,
                kind: source.kind,
                replaces: target.as_ref().map(|target| target.inode),
            },
            Step::Move { inode: source.inode, directory: to_directory, name: to_name.clone() },
        ];
        if let Some(target) = &target {
            steps.push(match (source.kind, target.kind) {
                (InodeType::Directory, InodeType::Directory) => {
                    Step::DropDirectory { inode: target.inode }
                }
                (InodeType::Directory, _) => return Err(Errno::ENOTDIR.into()),
                (_, InodeType::Directory) => return Err(Errno::EISDIR.into()),
                _ => Step::DropLink { inode: target.inode },
            });
        }
        self.0.cache.borrow_mut().invalidate(&spelling(&from));
        self.0.cache.borrow_mut().invalidate(&spelling(&to));
        let done = self.run(&steps, false).await;
        target.into_iter().for_each(|target| self.start_cut(target.inode));
        done
    }

    /// The entries of a directory, sorted by name.
    pub fn list_directory(&self, path: &str) -> Result<Vec<DirectoryEntry>, StoreError> {
        Ok(self.directory_metadata(path)?.children().to_vec())
    }

    /// A directory with its entries.
    pub fn directory_metadata(&self, path: &str) -> Result<DirectoryMetadata, StoreError> {
        let inode = self.resolve(&names_of(path)?)?;
        let state = self.0.store.state();
        let attributes = &namespace::directory(&state, inode)?.attributes;
        let mut directory = DirectoryMetadata::new(inode, path, attributes.permissions);
        directory.modified = attributes.modified;
        for (_, entry) in state.dentries.range((inode, 0)..=(inode, u64::MAX)) {
            let (name, inode, kind) = (entry.name.clone(), entry.inode, entry.kind);
            directory.add_child(DirectoryEntry { name, inode, kind });
        }
        Ok(directory)
    }

    /// What `stat` shows of anything.
    pub fn stat(&self, path: &str) -> Result<Attributes, StoreError> {
        self.attributes(self.resolve(&names_of(path)?)?)
    }

    /// A file with the placement of its chunks: all of them are here.
    pub fn file_metadata(&self, path: &str) -> Result<FileMetadata, StoreError> {
        let attributes = self.stat(path)?;
        if attributes.kind != InodeType::File {
            return Err(Errno::EISDIR.into());
        }
        let mut metadata = FileMetadata::from_attributes(&attributes, path);
        let listed = metadata.chunk_count.min(LISTED_CHUNKS_MAX) as usize;
        metadata.chunk_locations = vec![TARGET; listed];
        Ok(metadata)
    }

    /// Look-ups that the cache of paths answered, and that it did not.
    pub fn cache_hits_and_misses(&self) -> (u64, u64) {
        self.0.cache.borrow().hits_and_misses()
    }

    /// Makes everything durable.
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.0.store.sync_all().await
    }

    /// Syncs everything and closes the file system in order. Nobody may use it meanwhile.
    pub async fn close(self) -> Result<(), StoreError> {
        self.0.store.clone().close().await
    }
}
