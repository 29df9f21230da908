//! A client of the cluster as a library: operations straight on a `Client`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ringfs_client::{Client, ClientError, OpenFile, OpenMode};
use ringfs_platform::{Buffer, Platform, Slice};
use ringfs_wire::{
    AttributeChanges, Attributes, DirectoryItem, Errno, FileLock, FilePermissions, InodeNumber,
    LockOwner, LockRange, LockSpace, Timestamp,
};

use crate::content;
use crate::operation::{
    Key, Label, Listed, Operation, Page, Reply, Shown, Space, symlink_target, xattr_value,
};

/// Entries a page of a directory holds: all of them, because several pages are not one moment.
const PAGE_LIMIT: u32 = 64;

/// A client and what it has open.
pub(crate) struct RawDoor {
    platform: Platform,
    client: Client,
    /// The number under which it locks.
    owner: u64,
    handles: RefCell<BTreeMap<InodeNumber, OpenFile>>,
}

impl RawDoor {
    pub(crate) fn new(platform: &Platform, client: Client, owner: u64) -> Self {
        Self { platform: platform.clone(), client, owner, handles: RefCell::default() }
    }

    /// The client; its files are closed.
    pub(crate) fn into_client(self) -> Client {
        self.client
    }

    /// Inodes it has open.
    pub(crate) fn held(&self) -> Vec<InodeNumber> {
        self.handles.borrow().keys().copied().collect()
    }

    /// Closes everything without waiting for it.
    pub(crate) fn drop_handles(&self) {
        for inode in self.handles.take().into_keys() {
            let (client, owner) = (self.client.clone(), self.owner);
            self.platform.spawn(async move {
                // What cannot be given back ends with the session.
                let _ = release_locks(&client, inode, owner).await;
            });
        }
    }

    fn lock_owner(&self, space: LockSpace) -> LockOwner {
        LockOwner { space, id: self.owner }
    }

    fn handle(&self, inode: InodeNumber) -> Result<OpenFile, ClientError> {
        let handle = self.handles.borrow().get(&inode).cloned();
        handle.ok_or(ClientError::from(Errno::EBADF))
    }

    /// Keeps an open file. One that was open before is closed, with its locks.
    async fn keep(&self, file: OpenFile) -> Result<(), ClientError> {
        let inode = file.inode();
        let old = self.handles.borrow_mut().insert(inode, file);
        match old {
            Some(_) => release_locks(&self.client, inode, self.owner).await,
            None => Ok(()),
        }
    }

    /// Carries out one operation.
    pub(crate) async fn perform(&self, operation: &Operation) -> Result<Reply, ClientError> {
        let client = self.client.clone();
        let shown = |attributes: Attributes| Reply::Attributes(Shown::from(&attributes));
        Ok(match *operation {
            Operation::Lookup { place } => {
                shown(client.lookup(place.directory, &place.label.name()).await?)
            }
            Operation::Create { place, exclusive, mode } => {
                let name = place.label.name();
                let file =
                    client.create(place.directory, &name, permissions(mode), exclusive).await?;
                let is_new = !self.handles.borrow().contains_key(&file.inode());
                // A handle shared with an older one may know more than this reply said.
                let attributes = if is_new { file.attributes() } else { file.refresh().await? };
                self.keep(file).await?;
                shown(attributes)
            }
            Operation::MakeDirectory { place, mode } => {
                let name = place.label.name();
                shown(client.mkdir(place.directory, &name, permissions(mode)).await?)
            }
            Operation::Symlink { place, tag } => {
                let (name, target) = (place.label.name(), symlink_target(tag));
                let permissions = permissions(0o777);
                shown(client.symlink(place.directory, &name, &target, permissions).await?)
            }
            Operation::Unlink { place } => {
                client.unlink(place.directory, &place.label.name()).await?;
                Reply::Nothing
            }
            Operation::RemoveDirectory { place } => {
                client.rmdir(place.directory, &place.label.name()).await?;
                Reply::Nothing
            }
            Operation::Link { inode, place } => {
                client.link(inode, place.directory, &place.label.name()).await?;
                Reply::Nothing
            }
            Operation::Rename { from, to, mode } => {
                let (old, new) = (from.label.name(), to.label.name());
                client.rename(from.directory, &old, to.directory, &new, mode).await?;
                Reply::Nothing
            }
            Operation::CreateNameless { directory, mode } => {
                let (permissions, mode) = (permissions(mode), OpenMode::READ_WRITE);
                let file = client.create_nameless(directory, permissions, 0, mode).await?;
                let attributes = file.attributes();
                self.keep(file).await?;
                shown(attributes)
            }
            Operation::ReadDirectory { directory } => list(&client, directory).await?,
            Operation::ListPages { directory, limit } => {
                list_pages(&client, directory, limit).await?
            }
            Operation::ReadLink { inode } => Reply::Target(client.read_link(inode).await?),
            Operation::Stat { inode } => shown(client.attributes(inode).await?),
            Operation::SyncDirectory { directory } => {
                client.sync(directory).await?;
                Reply::Nothing
            }
            Operation::SyncAll => {
                client.sync_all().await?;
                Reply::Nothing
            }
            _ => self.perform_on_inode(&client, operation).await?,
        })
    }

    async fn perform_on_inode(
        &self,
        client: &Client,
        operation: &Operation,
    ) -> Result<Reply, ClientError> {
        let shown = |attributes: Attributes| Reply::Attributes(Shown::from(&attributes));
        Ok(match *operation {
            Operation::Chmod { inode, mode } => {
                let changes = AttributeChanges { mode: Some(mode), ..Default::default() };
                shown(client.update(inode, changes).await?)
            }
            Operation::SetTimes { inode, accessed, modified } => {
                let at = |seconds: u32| Timestamp { seconds: i64::from(seconds), nanos: 0 };
                let (accessed, modified) = (Some(at(accessed)), Some(at(modified)));
                let changes = AttributeChanges { accessed, modified, ..Default::default() };
                shown(client.update(inode, changes).await?)
            }
            Operation::SetXattr { inode, key, tag, mode } => {
                client.set_xattr(inode, &key.name(), &xattr_value(tag), mode, false).await?;
                Reply::Nothing
            }
            Operation::GetXattr { inode, key } => {
                Reply::Value(client.get_xattr(inode, &key.name()).await?)
            }
            Operation::ListXattrs { inode } => {
                let names = client.list_xattrs(inode).await?;
                let keys = names.iter().filter_map(|name| Key::parse(name.as_bytes()));
                Reply::Keys(keys.collect())
            }
            Operation::RemoveXattr { inode, key } => {
                client.remove_xattr(inode, &key.name()).await?;
                Reply::Nothing
            }
            _ => self.perform_on_file(client, operation).await?,
        })
    }

    async fn perform_on_file(
        &self,
        client: &Client,
        operation: &Operation,
    ) -> Result<Reply, ClientError> {
        Ok(match *operation {
            Operation::Open { inode } => {
                let file = client.open(inode).await?;
                self.keep(file).await?;
                Reply::Nothing
            }
            Operation::Close { inode } => {
                let file = self.handles.borrow_mut().remove(&inode);
                if let Some(file) = file {
                    release_locks(client, inode, self.owner).await?;
                    file.close().await?;
                }
                Reply::Nothing
            }
            Operation::Truncate { inode, size } => {
                if let Ok(file) = self.handle(inode) {
                    file.truncate(size).await?;
                    return Ok(Reply::Nothing);
                }
                Reply::Attributes(Shown::from(&client.truncate(inode, size).await?))
            }
            Operation::Read { inode, offset, len } => {
                let data = self.handle(inode)?.read(offset, len as usize).await?;
                Reply::Data((&data[..]).into())
            }
            Operation::Write { inode, offset, len, tag } => {
                self.handle(inode)?.write(offset, data(tag, offset, len)).await?;
                Reply::Nothing
            }
            Operation::Append { inode, len, tag } => {
                // The bytes must not depend on where they land.
                Reply::Offset(self.handle(inode)?.append(data(tag, 0, len)).await?)
            }
            Operation::Fallocate { inode, offset, len, space } => {
                let (file, range) = (self.handle(inode)?, offset..offset + len);
                match space {
                    Space::Allocate { keep_size } => file.allocate(range, keep_size).await?,
                    Space::Punch => file.punch(range).await?,
                    Space::Zero { keep_size } => file.zero(range, keep_size).await?,
                }
                Reply::Nothing
            }
            Operation::Lock { inode, space, range: (start, last), mode } => {
                let (owner, range) = (self.lock_owner(space), lock_range(space, start, last));
                client.lock(inode, FileLock { owner, range, mode, pid: 1 }, false).await?;
                Reply::Nothing
            }
            Operation::Unlock { inode, space, range: (start, last) } => {
                let range = lock_range(space, start, last);
                client.unlock(inode, self.lock_owner(space), range).await?;
                Reply::Nothing
            }
            Operation::SyncFile { inode } => {
                self.handle(inode)?.sync().await?;
                Reply::Nothing
            }
            _ => unreachable!("carried out by its caller"),
        })
    }
}

/// An flock is about the whole file.
fn lock_range(space: LockSpace, start: u64, last: u64) -> LockRange {
    match space {
        LockSpace::Posix => LockRange { start, last },
        LockSpace::Flock => LockRange::ALL,
    }
}

async fn release_locks(client: &Client, inode: InodeNumber, id: u64) -> Result<(), ClientError> {
    for space in [LockSpace::Posix, LockSpace::Flock] {
        client.release_locks(inode, LockOwner { space, id }).await?;
    }
    Ok(())
}

fn permissions(mode: u32) -> FilePermissions {
    FilePermissions { mode, uid: 0, gid: 0 }
}

fn data(tag: content::Tag, offset: u64, len: u64) -> Slice {
    let mut buffer = Buffer::zeroed(len as usize);
    content::fill(tag, offset, &mut buffer);
    buffer.freeze()
}

/// All names of a directory.
async fn list(client: &Client, directory: InodeNumber) -> Result<Reply, ClientError> {
    let page = client.read_directory(directory, 0, PAGE_LIMIT).await?;
    Ok(Reply::Entries(listed(&page.items)))
}

/// The same, a few at a time.
async fn list_pages(
    client: &Client,
    directory: InodeNumber,
    limit: u32,
) -> Result<Reply, ClientError> {
    let (mut pages, mut after) = (Vec::new(), 0);
    loop {
        let page = client.read_directory(directory, after, limit).await?;
        let last = page.items.last().map(|item| item.cookie).filter(|_| !page.end);
        let until = last.unwrap_or(u64::MAX);
        pages.push(Page { after, until, entries: listed(&page.items) });
        match last {
            Some(last) => after = last,
            None => return Ok(Reply::Pages(pages)),
        }
    }
}

fn listed(items: &[DirectoryItem]) -> Vec<Listed> {
    let listed = items.iter().filter_map(|item| {
        let label = Label::parse(&item.name)?;
        Some(Listed { label, inode: item.inode, kind: item.kind })
    });
    let mut listed: Vec<Listed> = listed.collect();
    listed.sort_unstable();
    listed
}
