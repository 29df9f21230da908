//! Copying local trees into a cluster.

use std::cell::{Cell, RefCell};
use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use ringfs_client::{Client, OpenFile};
use ringfs_platform::{Buffer, FileHandle, OpenFlags, Platform, Slice};
use ringfs_wire::{
    AttributeChanges, Errno, FilePermissions, HEAD_SIZE, InodeNumber, InodeType, Name, Timestamp,
};

use crate::error::CliError;
use crate::remote::{RemotePath, User};
use crate::transfer::budget::Budget;
use crate::transfer::pieces::pieces;
use crate::transfer::progress::Progress;
use crate::transfer::queue::Queue;
use crate::transfer::{
    BYTES_IN_FLIGHT_MAX, Failure, LinkStep, LinkTable, PIECES_IN_FLIGHT, TransferOptions, WORKERS,
};

/// A directory of the cluster that is being filled.
struct Target {
    inode: InodeNumber,
    /// Entries not yet settled.
    pending: Cell<usize>,
    /// Where it comes from; none for the destination.
    origin: Option<Origin>,
}

/// The local directory behind a [`Target`].
struct Origin {
    local: PathBuf,
    /// What to set when the copy is full.
    changes: AttributeChanges,
    /// The directory that holds the copy.
    into: Rc<Target>,
}

/// One name to be copied.
struct Item {
    local: PathBuf,
    into: Rc<Target>,
    name: Name,
}

/// The file a local name leads to: device and inode number.
type LocalFile = (u64, u64);

struct Put<'a> {
    platform: &'a Platform,
    client: &'a Client,
    user: User,
    options: TransferOptions,
    queue: Queue<Item>,
    links: RefCell<LinkTable<LocalFile, InodeNumber, Item>>,
    budget: Budget,
    progress: Progress,
}

/// Copies `sources` to `destination` as `cp -a` would.
pub(crate) async fn put(
    platform: &Platform,
    client: &Client,
    sources: &[PathBuf],
    destination: &RemotePath,
    options: TransferOptions,
) -> Result<(), CliError> {
    let copy = Put {
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
        client.sync_all().await?;
    }
    copy.progress.finish("put")
}

impl Put<'_> {
    /// Decides what becomes what.
    async fn plan(&self, sources: &[PathBuf], destination: &RemotePath) -> Result<(), CliError> {
        let found = match self.options.no_target_directory {
            true => None,
            false => match self.client.resolve(destination, true).await {
                Ok(attributes) => Some(attributes),
                Err(error) if error.errno() == Errno::ENOENT => None,
                Err(error) => return Err(error.into()),
            },
        };
        if let Some(directory) = found.filter(|found| found.kind == InodeType::Directory) {
            let into =
                Rc::new(Target { inode: directory.inode, pending: Cell::new(0), origin: None });
            for source in sources {
                match source_name(source)? {
                    Some(name) => self.push(source.clone(), &into, name),
                    None => self.push_entries(source, &into)?,
                }
            }
            return Ok(());
        }
        let [source] = sources else {
            return Err(CliError::failed(format!(
                "{destination} is not a directory of the cluster: make it with `ringfs mkdir -p \
                 {destination}`"
            )));
        };
        let (parent, name) = self.client.resolve_parent(destination).await?;
        let into = Rc::new(Target { inode: parent.inode, pending: Cell::new(0), origin: None });
        self.push(source.clone(), &into, name);
        Ok(())
    }

    fn push(&self, local: PathBuf, into: &Rc<Target>, name: Name) {
        into.pending.set(into.pending.get() + 1);
        self.queue.push(Item { local, into: into.clone(), name });
    }

    /// Pushes what is in a local directory.
    fn push_entries(&self, local: &Path, into: &Rc<Target>) -> Result<(), CliError> {
        let failed = |error| CliError::local("read the directory", local, error);
        for entry in std::fs::read_dir(local).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let remote = Name::new(name.as_bytes())
                .map_err(|errno| CliError::failed(format!("{}: {errno}", local.display())))?;
            self.push(local.join(&name), into, remote);
        }
        Ok(())
    }

    async fn work(&self) {
        while let Some(item) = self.queue.next().await {
            let into = item.into.clone();
            // An entry that waits for another, or has entries of its own, settles later.
            if self.progress.is_aborted() || self.copy_and_tell(item).await {
                self.settle(into).await;
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
    async fn settle(&self, mut target: Rc<Target>) {
        loop {
            let pending = target.pending.get() - 1;
            target.pending.set(pending);
            let Some(origin) = target.origin.as_ref().filter(|_| pending == 0) else { return };
            if !self.progress.is_aborted() {
                match self.client.update(target.inode, origin.changes.clone()).await {
                    Ok(_) => self.progress.directory_done(),
                    Err(error) => Failure::from(error).tell(&origin.local, &self.progress),
                }
            }
            let parent = origin.into.clone();
            target = parent;
        }
    }

    async fn copy(&self, item: Item) -> Result<bool, Failure> {
        let metadata = std::fs::symlink_metadata(&item.local)
            .map_err(|error| CliError::local("read", &item.local, error))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return self.copy_directory(&item, &metadata).await;
        }
        if metadata.nlink() > 1 {
            return self.copy_linked(item, &metadata).await;
        }
        self.copy_single(&item, &metadata).await.map(|_| true)
    }

    /// Copies one name of a file that has several.
    async fn copy_linked(&self, item: Item, metadata: &Metadata) -> Result<bool, Failure> {
        let key = (metadata.dev(), metadata.ino());
        let Item { local, into, name } = item;
        let again = || Item { local: local.clone(), into: into.clone(), name: name.clone() };
        let step = self.links.borrow_mut().step(&key, again);
        match step {
            LinkStep::Wait => Ok(false),
            LinkStep::Link(inode) => {
                self.link(inode, &into, &name).await?;
                self.progress.file_done();
                Ok(true)
            }
            LinkStep::CopyFile => {
                let result = self.copy_single(&again(), metadata).await;
                let copy = result.as_ref().ok().copied();
                let waiting = self.links.borrow_mut().finish(&key, copy);
                waiting.into_iter().for_each(|item| self.queue.push(item));
                result.map(|_| true)
            }
        }
    }

    async fn link(&self, inode: InodeNumber, into: &Target, name: &Name) -> Result<(), Failure> {
        match self.client.link(inode, into.inode, name).await {
            Err(error) if error.errno() == Errno::EEXIST => {
                let found = self.client.lookup(into.inode, name).await?;
                if found.inode == inode {
                    return Ok(());
                }
                self.client.unlink(into.inode, name).await?;
                Ok(self.client.link(inode, into.inode, name).await?)
            }
            result => Ok(result?),
        }
    }

    async fn copy_directory(&self, item: &Item, metadata: &Metadata) -> Result<bool, Failure> {
        // Until it is full its owner must be able to fill it.
        let open = FilePermissions { mode: 0o700, ..self.permissions(metadata) };
        let inode = match self.client.mkdir(item.into.inode, &item.name, open).await {
            Ok(attributes) => attributes.inode,
            Err(error) if error.errno() == Errno::EEXIST => {
                let found = self.client.lookup(item.into.inode, &item.name).await?;
                if found.kind != InodeType::Directory {
                    return Err(CliError::failed(format!(
                        "{}: its place in the cluster is taken by something else than a directory",
                        item.local.display()
                    ))
                    .into());
                }
                found.inode
            }
            Err(error) => return Err(error.into()),
        };
        let origin = Some(Origin {
            local: item.local.clone(),
            changes: self.changes(metadata),
            into: item.into.clone(),
        });
        // One entry more than there are, so that it is not finished before all are known.
        let target = Rc::new(Target { inode, pending: Cell::new(1), origin });
        if let Err(error) = self.push_entries(&item.local, &target) {
            self.progress.fail(&error);
        }
        self.settle(target).await;
        Ok(false)
    }

    /// Copies anything but a directory; returns the copy's inode.
    async fn copy_single(&self, item: &Item, metadata: &Metadata) -> Result<InodeNumber, Failure> {
        let kind = metadata.file_type();
        let inode = if kind.is_file() {
            self.copy_file(item, metadata).await?
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&item.local)
                .map_err(|error| CliError::local("read", &item.local, error))?;
            let target = target.as_os_str().as_bytes();
            let permissions = FilePermissions { mode: 0o777, ..self.permissions(metadata) };
            let make = async || {
                self.client.symlink(item.into.inode, &item.name, target, permissions).await
            };
            let result = make().await;
            let made = match result {
                Err(error) if error.errno() == Errno::EEXIST => {
                    self.clear(item).await?;
                    make().await
                }
                result => result,
            };
            made?.inode
        } else {
            self.copy_node(item, metadata).await?
        };
        self.client.update(inode, self.changes(metadata)).await?;
        self.progress.file_done();
        Ok(inode)
    }

    async fn copy_node(&self, item: &Item, metadata: &Metadata) -> Result<InodeNumber, Failure> {
        let kind = metadata.file_type();
        let kind = match () {
            () if kind.is_fifo() => InodeType::Fifo,
            () if kind.is_socket() => InodeType::Socket,
            () if kind.is_char_device() => InodeType::CharacterDevice,
            () => InodeType::BlockDevice,
        };
        let permissions = self.permissions(metadata);
        let make = async || {
            let (directory, name) = (item.into.inode, &item.name);
            self.client.mknod(directory, name, kind, permissions, metadata.rdev()).await
        };
        match make().await {
            Err(error) if error.errno() == Errno::EEXIST => {
                self.clear(item).await?;
                Ok(make().await?.inode)
            }
            result => Ok(result?.inode),
        }
    }

    /// Makes way for an entry: removes what is there, unless it is a directory.
    async fn clear(&self, item: &Item) -> Result<(), Failure> {
        match self.client.unlink(item.into.inode, &item.name).await {
            Err(error) if error.errno() == Errno::ENOENT => Ok(()),
            result => Ok(result?),
        }
    }

    async fn copy_file(&self, item: &Item, metadata: &Metadata) -> Result<InodeNumber, Failure> {
        let size = metadata.len();
        self.progress.expect(size);
        let local = match size {
            0 => None,
            _ => Some(self.open_local(item).await?),
        };
        let made = match &local {
            Some(local) => self.make_small(item, metadata, local).await?,
            None => None,
        };
        let file = match made {
            Some(file) => file,
            None => {
                let file = self.open_copy(item, metadata).await?;
                if let Some(local) = &local {
                    self.copy_data(item, metadata, local, &file).await?;
                }
                file
            }
        };
        if let Some(local) = local.filter(|_| self.options.checksum) {
            self.compare(item, size, &local, &file).await?;
        }
        let inode = file.inode();
        file.close().await?;
        Ok(inode)
    }

    async fn open_local(&self, item: &Item) -> Result<FileHandle, CliError> {
        let opened = self.platform.disk().open(&item.local, OpenFlags::READ, 0).await;
        opened.map_err(|error| CliError::local("open", &item.local, error))
    }

    /// Copies a small file without holes in one request, unless its name is taken.
    async fn make_small(
        &self,
        item: &Item,
        metadata: &Metadata,
        local: &FileHandle,
    ) -> Result<Option<OpenFile>, Failure> {
        let size = metadata.len();
        if size > HEAD_SIZE || metadata.blocks() * 512 < size {
            return Ok(None);
        }
        let _share = self.budget.take(size as usize).await;
        let bytes = self.read_local(item, local, 0..size).await?;
        let permissions = self.permissions(metadata);
        let made = self.client.create_with(item.into.inode, &item.name, permissions, bytes).await;
        match made {
            Err(error) if error.errno() == Errno::EEXIST => Ok(None),
            result => {
                let file = result?;
                self.progress.advance(size);
                Ok(Some(file))
            }
        }
    }

    /// Opens the copy of a file, empty.
    async fn open_copy(&self, item: &Item, metadata: &Metadata) -> Result<OpenFile, Failure> {
        let (directory, name) = (item.into.inode, &item.name);
        let permissions = self.permissions(metadata);
        let opened = self.client.create(directory, name, permissions, false).await;
        let file = match opened {
            Err(error) if error.errno() == Errno::EEXIST => {
                self.clear(item).await?;
                self.client.create(directory, name, permissions, true).await?
            }
            result => result?,
        };
        if file.attributes().size > 0 {
            file.truncate(0).await?;
        }
        Ok(file)
    }

    async fn copy_data(
        &self,
        item: &Item,
        metadata: &Metadata,
        local: &FileHandle,
        file: &OpenFile,
    ) -> Result<(), Failure> {
        let size = metadata.len();
        let extents = self.extents(item, metadata, local).await?;
        let end = extents.last().map_or(0, |extent| extent.end);
        let data: u64 = extents.iter().map(|extent| extent.end - extent.start).sum();
        stream::iter(extents.into_iter().flat_map(pieces))
            .map(Ok)
            .try_for_each_concurrent(PIECES_IN_FLIGHT, async |piece: Range<u64>| {
                let len = (piece.end - piece.start) as usize;
                let _share = self.budget.take(len).await;
                let bytes = self.read_local(item, local, piece.clone()).await?;
                file.write(piece.start, bytes).await?;
                self.progress.advance(len as u64);
                Ok::<_, Failure>(())
            })
            .await?;
        if end < size {
            file.truncate(size).await?;
        }
        self.progress.advance(size - data);
        Ok(())
    }

    /// The parts of a local file that hold data.
    async fn extents(
        &self,
        item: &Item,
        metadata: &Metadata,
        local: &FileHandle,
    ) -> Result<Vec<Range<u64>>, CliError> {
        /// Bytes that `st_blocks` counts in.
        const STAT_BLOCK_LEN: u64 = 512;
        let size = metadata.len();
        if metadata.blocks() * STAT_BLOCK_LEN >= size {
            return Ok(std::iter::once(0..size).collect());
        }
        let failed = |error| CliError::local("find the holes of", &item.local, error);
        let disk = self.platform.disk();
        let mut extents = Vec::new();
        let mut at = 0;
        while at < size {
            let Some(start) = disk.next_data(local, at).await.map_err(failed)? else { break };
            if start >= size {
                break;
            }
            let end = disk.next_hole(local, start).await.map_err(failed)?.min(size);
            extents.push(start..end);
            at = end;
        }
        Ok(extents)
    }

    /// Reads all of a range of a local file.
    async fn read_local(
        &self,
        item: &Item,
        local: &FileHandle,
        range: Range<u64>,
    ) -> Result<Slice, CliError> {
        let len = (range.end - range.start) as usize;
        let disk = self.platform.disk();
        let (result, buffer) = disk.read(local, range.start, Buffer::with_capacity(len), len).await;
        let read = result.map_err(|error| CliError::local("read", &item.local, error))?;
        if read < len {
            return Err(CliError::failed(format!(
                "{} became shorter while it was copied: copy it again when nobody writes to it",
                item.local.display()
            )));
        }
        Ok(buffer.freeze())
    }

    /// Reads the copy back and compares it with the original.
    async fn compare(
        &self,
        item: &Item,
        size: u64,
        local: &FileHandle,
        file: &OpenFile,
    ) -> Result<(), Failure> {
        stream::iter(pieces(0..size))
            .map(Ok)
            .try_for_each_concurrent(PIECES_IN_FLIGHT, async |piece: Range<u64>| {
                let len = (piece.end - piece.start) as usize;
                let _share = self.budget.take(2 * len).await;
                let original = self.read_local(item, local, piece.clone()).await?;
                let copy = file.read(piece.start, len).await?;
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

    /// Owner and mode of the copy: the owner stays only if root copies.
    fn permissions(&self, metadata: &Metadata) -> FilePermissions {
        let mode = metadata.mode() & 0o7777;
        match self.user.is_root() {
            true => FilePermissions { mode, uid: metadata.uid(), gid: metadata.gid() },
            false => FilePermissions { mode, uid: self.user.uid, gid: self.user.gid },
        }
    }

    /// The attributes that a copy gets in the end.
    fn changes(&self, metadata: &Metadata) -> AttributeChanges {
        let time = |seconds, nanos: i64| Timestamp { seconds, nanos: nanos as u32 };
        let permissions = self.permissions(metadata);
        let owner = |id| self.user.is_root().then_some(id);
        AttributeChanges {
            mode: (!metadata.is_symlink()).then_some(permissions.mode),
            uid: owner(permissions.uid),
            gid: owner(permissions.gid),
            size: None,
            accessed: Some(time(metadata.atime(), metadata.atime_nsec())),
            modified: Some(time(metadata.mtime(), metadata.mtime_nsec())),
            ..AttributeChanges::default()
        }
    }
}

/// The name that a source has in a directory; none for `.`, `dir/.` and `/`, whose entries are
/// copied instead.
fn source_name(source: &Path) -> Result<Option<Name>, CliError> {
    let bytes = source.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let start = bytes[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    match &bytes[start..end] {
        b"" | b"." => Ok(None),
        b".." => Err(CliError::Usage(format!(
            "{}: say the directory by its name, or {}/. for what is in it",
            source.display(),
            source.display()
        ))),
        name => Name::new(name)
            .map(Some)
            .map_err(|errno| CliError::failed(format!("{}: {errno}", source.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_named_as_cp_does() {
        let check = |source: &str, expected: Option<&str>| {
            let name = source_name(Path::new(source)).unwrap();
            assert_eq!(name.map(|name| name.to_string()).as_deref(), expected, "{source}");
        };
        check("a", Some("a"));
        check("/usr/include/", Some("include"));
        check("a/.", None);
        check(".", None);
        check("/", None);
        assert!(source_name(Path::new("a/..")).is_err());
    }
}
