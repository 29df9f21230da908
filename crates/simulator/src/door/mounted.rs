//! A program above a mount: operations as system calls of the simulated kernel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ringfs_platform::Platform;
use ringfs_wire::{Errno, InodeNumber, InodeType};

use super::Trouble;
use crate::content;
use crate::kernel::{Attr, Change, Entry, File, Kernel, NOT_CONNECTED};
use crate::operation::{
    Key, Label, Listed, Operation, Page, Place, Reply, Shown, symlink_target, xattr_value,
};

/// Permission bits of a mode.
const PERMISSIONS: u32 = 0o7777;
/// Type of a directory in a directory entry.
const DIRECTORY: u32 = 4;
/// Type of a symlink there.
const SYMLINK: u32 = 10;

/// A mount's kernel side and what the program has open.
pub(crate) struct MountDoor {
    platform: Platform,
    kernel: Rc<Kernel>,
    /// The number under which it locks.
    owner: u64,
    handles: RefCell<BTreeMap<InodeNumber, Handles>>,
}

/// A file as the program has it open: for writing only once it writes, because what is open for
/// reading alone may be cached.
#[derive(Clone, Copy)]
struct Handles {
    reading: File,
    writing: Option<File>,
}

impl MountDoor {
    pub(crate) fn new(platform: &Platform, kernel: &Rc<Kernel>, owner: u64) -> Self {
        let (platform, kernel) = (platform.clone(), kernel.clone());
        Self { platform, kernel, owner, handles: RefCell::default() }
    }

    /// Inodes it has open.
    pub(crate) fn held(&self) -> Vec<InodeNumber> {
        self.handles.borrow().keys().copied().collect()
    }

    /// Closes everything without waiting for it.
    pub(crate) fn drop_handles(&self) {
        let all = self.handles.take();
        let files = all.into_values().flat_map(|both| [Some(both.reading), both.writing]);
        for file in files.flatten() {
            let kernel = self.kernel.clone();
            self.platform.spawn(async move {
                // A mount that is gone has closed it already.
                let _ = kernel.close(file).await;
            });
        }
    }

    fn handle(&self, inode: InodeNumber) -> Result<Handles, Errno> {
        self.handles.borrow().get(&inode).copied().ok_or(Errno::EBADF)
    }

    /// The handle to write through, opened when it is first needed.
    async fn writing(&self, inode: InodeNumber) -> Result<File, Errno> {
        let known = self.handle(inode)?;
        if let Some(file) = known.writing {
            return Ok(file);
        }
        let file = self.kernel.open(inode).await?;
        let both = Handles { writing: Some(file), ..known };
        self.handles.borrow_mut().insert(inode, both);
        Ok(file)
    }

    /// Opens a file for reading. It is also what locks belong to.
    async fn open_to_read(&self, inode: InodeNumber) -> Result<File, Errno> {
        Ok(self.kernel.open_to_read(inode).await?.owned_by(self.owner))
    }

    async fn keep(&self, both: Handles) -> Result<(), Errno> {
        let old = self.handles.borrow_mut().insert(both.reading.inode, both);
        match old {
            Some(old) => self.close(old).await,
            None => Ok(()),
        }
    }

    async fn close(&self, both: Handles) -> Result<(), Errno> {
        self.kernel.close(both.reading).await?;
        match both.writing {
            Some(file) => self.kernel.close(file).await,
            None => Ok(()),
        }
    }

    /// Carries out one operation.
    pub(crate) async fn perform(&self, operation: &Operation) -> Result<Reply, Trouble> {
        let is_held = operation.inode().is_some_and(|i| self.handles.borrow().contains_key(&i));
        let result = match self.attempt(operation).await {
            // A path that leads to something stale is walked again.
            Err(Errno::ESTALE) if !is_held => self.attempt(operation).await,
            result => result,
        };
        result.map_err(|errno| match errno {
            Errno::EIO | Errno::EROFS => Trouble::Unknown("I/O error".to_owned()),
            NOT_CONNECTED => Trouble::Unknown("the mount is gone".to_owned()),
            // The mount lost its session, and with it what was open.
            Errno::ESTALE if is_held => {
                self.drop_handles();
                Trouble::Unknown("stale handle".to_owned())
            }
            errno => Trouble::Failed(errno),
        })
    }

    async fn attempt(&self, operation: &Operation) -> Result<Reply, Errno> {
        match self.perform_on_names(operation).await {
            None => self.perform_on_inode(operation).await,
            Some(result) => result,
        }
    }

    async fn perform_on_names(&self, operation: &Operation) -> Option<Result<Reply, Errno>> {
        let kernel = &self.kernel;
        let done = |result: Result<(), Errno>| result.map(|()| Reply::Nothing);
        Some(match *operation {
            Operation::Lookup { place } => shown(kernel.stat_name(at(place, &spell(place))).await),
            Operation::Create { place, exclusive, mode } => {
                self.create(place, exclusive, mode).await
            }
            Operation::MakeDirectory { place, mode } => {
                shown(kernel.make_directory(at(place, &spell(place)), mode).await)
            }
            Operation::Symlink { place, tag } => {
                shown(kernel.symlink(at(place, &spell(place)), &symlink_target(tag)).await)
            }
            Operation::Unlink { place } => {
                done(kernel.remove(at(place, &spell(place)), false).await)
            }
            Operation::RemoveDirectory { place } => {
                done(kernel.remove(at(place, &spell(place)), true).await)
            }
            Operation::Link { inode, place } => {
                done(kernel.link(inode, at(place, &spell(place))).await)
            }
            Operation::Rename { from, to, mode } => {
                let (old, new) = (spell(from), spell(to));
                done(kernel.rename(at(from, &old), at(to, &new), mode).await)
            }
            Operation::CreateNameless { directory, mode } => {
                let made = kernel.create_nameless(directory, mode).await;
                match made {
                    Ok((file, attr)) => self.keep_new(file, attr).await,
                    Err(errno) => Err(errno),
                }
            }
            Operation::ReadDirectory { directory } => self.list(directory).await,
            Operation::ListPages { directory, limit } => self.list_pages(directory, limit).await,
            Operation::SyncDirectory { directory } => done(kernel.sync_directory(directory).await),
            Operation::SyncAll => done(kernel.sync_all().await),
            _ => return None,
        })
    }

    async fn perform_on_inode(&self, operation: &Operation) -> Result<Reply, Errno> {
        let kernel = &self.kernel;
        match *operation {
            Operation::ReadLink { inode } => Ok(Reply::Target(kernel.read_link(inode).await?)),
            Operation::Stat { inode } => shown(kernel.attr(inode).await),
            Operation::Chmod { inode, mode } => {
                let change = Change { mode: Some(mode), ..Change::default() };
                shown(kernel.change(inode, change).await)
            }
            Operation::SetTimes { inode, accessed, modified } => {
                let change = Change { times: Some((accessed, modified)), ..Change::default() };
                shown(kernel.change(inode, change).await)
            }
            Operation::SetXattr { inode, key, tag, mode } => {
                kernel.set_xattr(inode, &key.name(), &xattr_value(tag), mode).await?;
                Ok(Reply::Nothing)
            }
            Operation::GetXattr { inode, key } => {
                Ok(Reply::Value(kernel.get_xattr(inode, &key.name()).await?))
            }
            Operation::ListXattrs { inode } => {
                let names = kernel.list_xattrs(inode).await?;
                let keys = names.split(|byte| *byte == 0).filter_map(Key::parse);
                Ok(Reply::Keys(keys.collect()))
            }
            Operation::RemoveXattr { inode, key } => {
                kernel.remove_xattr(inode, &key.name()).await?;
                Ok(Reply::Nothing)
            }
            _ => self.perform_on_file(operation).await,
        }
    }

    async fn perform_on_file(&self, operation: &Operation) -> Result<Reply, Errno> {
        let kernel = &self.kernel;
        match *operation {
            Operation::Open { inode } => {
                let reading = self.open_to_read(inode).await?;
                self.keep(Handles { reading, writing: None }).await?;
                Ok(Reply::Nothing)
            }
            Operation::Close { inode } => {
                let both = self.handles.borrow_mut().remove(&inode);
                if let Some(both) = both {
                    self.close(both).await?;
                }
                Ok(Reply::Nothing)
            }
            Operation::Truncate { inode, size } => {
                let file = match self.handle(inode) {
                    Ok(_) => Some(self.writing(inode).await?),
                    Err(_) => None,
                };
                let change = Change { size: Some(size), file, ..Change::default() };
                shown(kernel.change(inode, change).await)
            }
            Operation::Read { inode, offset, len } => {
                let file = self.handle(inode)?.reading;
                Ok(Reply::Data(kernel.read(file, offset, len).await?.into()))
            }
            Operation::Write { inode, offset, len, tag } => {
                let file = self.writing(inode).await?;
                kernel.write(file, offset, &data(tag, offset, len)).await?;
                Ok(Reply::Nothing)
            }
            Operation::Append { inode, len, tag } => {
                self.handle(inode)?;
                // The bytes must not depend on where they land, which nobody is told.
                kernel.append(inode, &data(tag, 0, len)).await?;
                Ok(Reply::Nothing)
            }
            Operation::Fallocate { inode, offset, len, space } => {
                let file = self.writing(inode).await?;
                kernel.fallocate(file, offset, len, space).await?;
                Ok(Reply::Nothing)
            }
            Operation::Lock { inode, space, range, mode } => {
                kernel.lock(self.handle(inode)?.reading, space, range, Some(mode)).await?;
                Ok(Reply::Nothing)
            }
            Operation::Unlock { inode, space, range } => {
                kernel.lock(self.handle(inode)?.reading, space, range, None).await?;
                Ok(Reply::Nothing)
            }
            Operation::SyncFile { inode } => {
                kernel.sync(self.handle(inode)?.reading).await?;
                Ok(Reply::Nothing)
            }
            _ => unreachable!("an operation on names"),
        }
    }

    async fn create(&self, place: Place, exclusive: bool, mode: u32) -> Result<Reply, Errno> {
        let name = spell(place);
        let (file, attr) = self.kernel.create(at(place, &name), mode, exclusive).await?;
        self.keep_new(file, attr).await
    }

    async fn keep_new(&self, file: File, attr: Attr) -> Result<Reply, Errno> {
        // The one that made it stays; what is read goes through a handle of its own.
        let reading = self.open_to_read(attr.inode).await?;
        self.keep(Handles { reading, writing: Some(file) }).await?;
        shown(Ok(attr))
    }

    async fn list(&self, directory: InodeNumber) -> Result<Reply, Errno> {
        let entries = self.kernel.list(directory).await?;
        let mut listed: Vec<Listed> = entries.iter().filter_map(listed).collect();
        listed.sort_unstable();
        Ok(Reply::Entries(listed))
    }

    /// How many requests of the mount made up a page is not known here: each entry counts as a page
    /// of its own.
    async fn list_pages(&self, directory: InodeNumber, limit: u32) -> Result<Reply, Errno> {
        let entries = self.kernel.list_pages(directory, limit).await?;
        let (mut pages, mut after) = (Vec::new(), 0);
        for entry in &entries {
            let entries = listed(entry).into_iter().collect();
            pages.push(Page { after, until: entry.offset, entries });
            after = entry.offset;
        }
        pages.push(Page { after, until: u64::MAX, entries: Vec::new() });
        Ok(Reply::Pages(pages))
    }
}

fn listed(entry: &Entry) -> Option<Listed> {
    let name = ringfs_wire::Name::new(&entry.name).ok()?;
    let kind = match entry.kind {
        DIRECTORY => InodeType::Directory,
        SYMLINK => InodeType::Symlink,
        _ => InodeType::File,
    };
    Some(Listed { label: Label::parse(&name)?, inode: entry.inode, kind })
}

fn spell(place: Place) -> Vec<u8> {
    place.label.name().as_bytes().to_vec()
}

fn at(place: Place, name: &[u8]) -> (InodeNumber, &[u8]) {
    (place.directory, name)
}

fn data(tag: content::Tag, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    content::fill(tag, offset, &mut bytes);
    bytes
}

fn shown(attr: Result<Attr, Errno>) -> Result<Reply, Errno> {
    let attr = attr?;
    Ok(Reply::Attributes(Shown {
        inode: attr.inode,
        kind: attr.kind(),
        mode: attr.mode & PERMISSIONS,
        links: attr.links,
        size: attr.size,
        accessed: attr.accessed,
        modified: attr.modified,
    }))
}
