//! Copying trees out of a cluster.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use ringfs_client::{Client, OpenFile};
use ringfs_platform::{Buffer, FileHandle, OpenFlags, Platform};
use ringfs_wire::{Attributes, InodeNumber, InodeType};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

use crate::error::CliError;
use crate::remote::{RemotePath, User};
use crate::transfer::budget::Budget;
use crate::transfer::pieces::{data_ranges, pieces};
use crate::transfer::progress::Progress;
use crate::transfer::queue::Queue;
use crate::transfer::{
    BYTES_IN_FLIGHT_MAX, Failure, LinkStep, LinkTable, PIECES_IN_FLIGHT, TransferOptions, WORKERS,
};

/// Entries asked for at a time.
const PAGE_LEN: u32 = 1_000;

/// A local directory that is being filled.
struct Target {
    path: PathBuf,
    /// Entries not yet settled.
    pending: Cell<usize>,
    /// What to set when it is full, and the directory that holds it; none for the destination.
    origin: Option<(Attributes, Rc<Target>)>,
}

/// One name to be copied.
struct Item {
    attributes: Attributes,
    into: Rc<Target>,
    local: PathBuf,
}

struct Get<'a> {
    platform: &'a Platform,
    client: &'a Client,
    user: User,
    options: TransferOptions,
    queue: Queue<Item>,
    links: RefCell<LinkTable<InodeNumber, PathBuf, Item>>,
    budget: Budget,
    progress: Progress,
}

/// Copies `sources` to `destination` as `cp -a` would.
pub(crate) async fn get(
    platform: &Platform,
    client: &Client,
    sources: &[RemotePath],
    destination: &Path,
    options: TransferOptions,
) -> Result<(), CliError> {
    let copy = Get {
        platform,
        client,
        user: User::current(),
        options,
        queue: Queue::new(),
        links: RefCell::new(LinkTable::new()),
        budget: Budget::new(BYTES_IN_FLIGHT_MAX),
        progress: Progress::new(platform),
    };
    copy.plan(sources, destination).await?;
    join_all((0..WORKERS).map(|_| copy.work())).await;
    if options.sync && !copy.progress.is_aborted() {
        sync_file_system(destination)?;
    }
    copy.progress.finish("get")
}

impl Get<'_> {
    /// Decides what becomes what.
    async fn plan(&self, sources: &[RemotePath], destination: &Path) -> Result<(), CliError> {
        let is_directory = !self.options.no_target_directory && destination.is_dir();
        if sources.len() > 1 && !is_directory {
            return Err(CliError::failed(format!(
                "{} is not a directory: make it with `mkdir`",
                destination.display()
            )));
        }
        let into =
            Rc::new(Target { path: destination.to_owned(), pending: Cell::new(0), origin: None });
        for source in sources {
            let attributes = self.client.resolve(source, false).await?;
            let local = match source.name() {
                Some(name) if is_directory => destination.join(OsStr::from_bytes(name.as_bytes())),
                _ => destination.to_owned(),
            };
            self.push(attributes, &into, local);
        }
        Ok(())
    }

    fn push(&self, attributes: Attributes, into: &Rc<Target>, local: PathBuf) {
        into.pending.set(into.pending.get() + 1);
        self.queue.push(Item { attributes, into: into.clone(), local });
    }

    async fn work(&self) {
        while let Some(item) = self.queue.next().await {
            let into = item.into.clone();
            // An entry that waits for another, or has entries of its own, settles later.
            if self.progress.is_aborted() || self.copy_and_tell(item).await {
                self.settle(into);
            }
            self.queue.done();
        }
    }

    /// Copies one entry; returns whether it is settled.
    async fn copy_and_tell(&self, item: Item) -> bool {
        let local = item.local.clone();
        match self.copy(item).await {
            Ok(is_settled) => is_settled,
            Err(failure) => {
                failure.tell(&local, &self.progress);
                true
            }
        }
    }

    /// An entry of `target` is settled; if it was the last, the directory is finished too, and so
    /// on upwards.
    fn settle(&self, mut target: Rc<Target>) {
        loop {
            let pending = target.pending.get() - 1;
            target.pending.set(pending);
            let Some((attributes, parent)) = target.origin.as_ref().filter(|_| pending == 0) else {
                return;
            };
            if !self.progress.is_aborted() {
                match self.set_attributes(&target.path, attributes) {
                    Ok(()) => self.progress.directory_done(),
                    Err(error) => self.progress.fail(&error),
                }
            }
            let parent = parent.clone();
            target = parent;
        }
    }

    async fn copy(&self, item: Item) -> Result<bool, Failure> {
        if item.attributes.kind == InodeType::Directory {
            return self.copy_directory(item).await;
        }
        if item.attributes.links > 1 {
            return self.copy_linked(item).await;
        }
        self.copy_single(&item).await.map(|()| true)
    }

    async fn copy_directory(&self, item: Item) -> Result<bool, Failure> {
        // Until it is full its owner must be able to fill it, and nobody else needs to look.
        match std::fs::DirBuilder::new().mode(0o700).create(&item.local) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // A link to a directory counts as one only where the user named it.
                let is_top = item.into.origin.is_none();
                let found = look(&item.local)?;
                let is_fine =
                    found.is_some_and(|found| found.is_dir()) || (is_top && item.local.is_dir());
                if !is_fine {
                    return Err(CliError::local("create the directory", &item.local, error).into());
                }
            }
            result => result
                .map_err(|error| CliError::local("create the directory", &item.local, error))?,
        }
        let directory = item.attributes.inode;
        let origin = Some((item.attributes, item.into));
        // One entry more than there are, so that it is not finished before all are known.
        let target = Rc::new(Target { path: item.local, pending: Cell::new(1), origin });
        let listed = self.push_entries(directory, &target).await;
        if let Err(failure) = listed {
            failure.tell(&target.path, &self.progress);
        }
        self.settle(target);
        Ok(false)
    }

    /// Pushes what is in a directory of the cluster.
    async fn push_entries(
        &self,
        directory: InodeNumber,
        target: &Rc<Target>,
    ) -> Result<(), Failure> {
        let mut after = 0;
        loop {
            let page = self.client.read_directory(directory, after, PAGE_LEN).await?;
            for entry in page.items {
                after = entry.cookie;
                // An entry without attributes was removed since the page was read.
                if let Some(attributes) = entry.attributes {
                    let name = OsStr::from_bytes(entry.name.as_bytes());
                    self.push(attributes, target, target.path.join(name));
                }
            }
            if page.end {
                return Ok(());
            }
        }
    }

    /// Copies one name of a file that has several.
    async fn copy_linked(&self, item: Item) -> Result<bool, Failure> {
        let key = item.attributes.inode;
        let Item { attributes, into, local } = item;
        let again =
            || Item { attributes: attributes.clone(), into: into.clone(), local: local.clone() };
        let step = self.links.borrow_mut().step(&key, again);
        match step {
            LinkStep::Wait => Ok(false),
            LinkStep::Link(copy) => {
                link_locally(&copy, &local)?;
                self.progress.file_done();
                Ok(true)
            }
            LinkStep::CopyFile => {
                let result = self.copy_single(&again()).await;
                let copy = result.is_ok().then_some(local);
                let waiting = self.links.borrow_mut().finish(&key, copy);
                waiting.into_iter().for_each(|item| self.queue.push(item));
                result.map(|()| true)
            }
        }
    }

    /// Copies anything but a directory.
    async fn copy_single(&self, item: &Item) -> Result<(), Failure> {
        let (attributes, local) = (&item.attributes, &item.local);
        match attributes.kind {
            InodeType::File => self.copy_file(item).await?,
            InodeType::Symlink => {
                let target = self.client.read_link(attributes.inode).await?;
                clear(local)?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), local)
                    .map_err(|error| CliError::local("create the link", local, error))?;
            }
            _ => {
                clear(local)?;
                let kind = match attributes.kind {
                    InodeType::Fifo => FileType::Fifo,
                    InodeType::Socket => FileType::Socket,
                    InodeType::CharacterDevice => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(CWD, local, kind, mode, attributes.device)
                    .map_err(|error| CliError::local("create", local, error))?;
            }
        }
        self.set_attributes(local, attributes)?;
        self.progress.file_done();
        Ok(())
    }

    async fn copy_file(&self, item: &Item) -> Result<(), Failure> {
        let local = self.create_local(&item.local).await?;
        let size = item.attributes.size;
        self.progress.expect(size);
        if size > 0 {
            let file = self.client.open(item.attributes.inode).await?;
            self.copy_data(item, size, &local, &file).await?;
            if self.options.checksum {
                self.compare(item, size, &local, &file).await?;
            }
            file.close().await?;
        }
        let closed = self.platform.disk().close(local).await;
        Ok(closed.map_err(|error| CliError::local("close", &item.local, error))?)
    }

    /// Creates an empty local file, or empties the one there is.
    async fn create_local(&self, path: &Path) -> Result<FileHandle, CliError> {
        if look(path)?.is_some_and(|found| !found.is_file()) {
            clear(path)?;
        }
        let disk = self.platform.disk();
        let flags = OpenFlags::CREATE.with_truncate();
        match disk.open(path, flags, 0o600).await {
            Ok(file) => Ok(file),
            // A file that its owner may not write can still be replaced.
            Err(error) if error.errno() == libc::EACCES => {
                clear(path)?;
                disk.open(path, flags, 0o600)
                    .await
                    .map_err(|error| CliError::local("create", path, error))
            }
            Err(error) => Err(CliError::local("create", path, error)),
        }
    }

    async fn copy_data(
        &self,
        item: &Item,
        size: u64,
        local: &FileHandle,
        file: &OpenFile,
    ) -> Result<(), Failure> {
        let disk = self.platform.disk();
        let failed = |error| CliError::local("write", &item.local, error);
        stream::iter(pieces(0..size))
            .map(Ok)
            .try_for_each_concurrent(PIECES_IN_FLIGHT, async |piece: Range<u64>| {
                let len = (piece.end - piece.start) as usize;
                let _share = self.budget.take(len).await;
                let mut at = piece.start;
                for slice in file.read_slices(piece.start, len).await? {
                    for range in data_ranges(at, &slice) {
                        let start = at + range.start as u64;
                        disk.write(local, start, slice.slice(range)).await.map_err(failed)?;
                    }
                    at += slice.len() as u64;
                }
                self.progress.advance(len as u64);
                Ok::<_, Failure>(())
            })
            .await?;
        // The last block may have been left out as a hole.
        Ok(disk.truncate(local, size).await.map_err(failed)?)
    }

    /// Reads both sides again and compares them.
    async fn compare(
        &self,
        item: &Item,
        size: u64,
        local: &FileHandle,
        file: &OpenFile,
    ) -> Result<(), Failure> {
        let disk = self.platform.disk();
        stream::iter(pieces(0..size))
            .map(Ok)
            .try_for_each_concurrent(PIECES_IN_FLIGHT, async |piece: Range<u64>| {
                let len = (piece.end - piece.start) as usize;
                let _share = self.budget.take(2 * len).await;
                let original = file.read(piece.start, len).await?;
                let buffer = Buffer::with_capacity(len);
                let (result, copy) = disk.read(local, piece.start, buffer, len).await;
                result.map_err(|error| CliError::local("read", &item.local, error))?;
                if *original == *copy {
                    return Ok(());
                }
                Err(Failure::Local(CliError::failed(format!(
                    "{}: the copy differs from the original between bytes {} and {}",
                    item.local.display(),
                    piece.start,
                    piece.end
                ))))
            })
            .await
    }

    /// Gives a copy the owner, if root copies, the mode and the times of the original.
    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> Result<(), CliError> {
        let set = || -> Result<(), rustix::io::Errno> {
            let permissions = &attributes.permissions;
            if self.user.is_root() {
                let (uid, gid) = (Uid::from_raw(permissions.uid), Gid::from_raw(permissions.gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(CWD, path, Some(uid), Some(gid), flags)?;
            }
            // After the owner, since a change of owner takes setuid bits away.
            if attributes.kind != InodeType::Symlink {
                let mode = Mode::from_raw_mode(permissions.mode);
                rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())?;
            }
            let time = |time: ringfs_wire::Timestamp| Timespec {
                tv_sec: time.seconds,
                tv_nsec: time.nanos.into(),
            };
            let times = Timestamps {
                last_access: time(attributes.accessed),
                last_modification: time(attributes.modified),
            };
            rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        };
        set().map_err(|error| CliError::local("set the attributes of", path, error))
    }
}

/// What lies at a local path, without following a link.
fn look(path: &Path) -> Result<Option<Metadata>, CliError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::local("look at", path, error)),
    }
}

/// Makes way at a local path: removes what is there, unless it is a directory.
fn clear(path: &Path) -> Result<(), CliError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(CliError::local("replace", path, error))
        }
        _ => Ok(()),
    }
}

/// Makes `path` another name of the local file `copy`.
fn link_locally(copy: &Path, path: &Path) -> Result<(), CliError> {
    let original = look(copy)?;
    if let (Some(original), Some(found)) = (original, look(path)?) {
        if (original.dev(), original.ino()) == (found.dev(), found.ino()) {
            return Ok(());
        }
        clear(path)?;
    }
    std::fs::hard_link(copy, path).map_err(|error| CliError::local("create the link", path, error))
}

/// Makes everything on the file system of `path` durable.
fn sync_file_system(path: &Path) -> Result<(), CliError> {
    let sync = || -> std::io::Result<()> {
        let file = std::fs::File::open(path)?;
        Ok(rustix::fs::syncfs(&file)?)
    };
    sync().map_err(|error| CliError::local("sync the file system of", path, error))
}
