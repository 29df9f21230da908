//! Calls whose answers say for how long they hold: the doors that cache use these.
//!
//! Invariant: what was entered into the cache and still holds is answered without a request; a
//! promise is made only for what is in the cache when the answer is given, so that whoever is
//! told of a revocation has been told of the promise. A client that caches nothing promises
//! nothing.

use std::time::Duration;

use ringfs_wire::{
    AttributeChanges, Attributes, DirectoryItem, Errno, FilePermissions, InodeNumber, InodeType,
    Name,
};

use crate::cache::Found;
use crate::client::Client;
use crate::credentials::Access;
use crate::error::{ClientError, Subject};
use crate::file::OpenFile;
use crate::metadata::entry;
use crate::open::{NewFile, OpenMode};

/// A value, and for how long it may be cached. Moments are of the monotonic clock; a revocation
/// can end everything earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leased<T> {
    /// The value.
    pub value: T,
    /// Until when the attributes hold, those of a directory with its times and size.
    pub attributes_until: Option<Duration>,
    /// Until when the name holds under which the inode was found; for a name that was not found,
    /// until when it stays missing.
    pub names_until: Option<Duration>,
    /// Which lease on the content of the inode is held: a lease that was lost in between has
    /// another number. Of a name that was not found, of the directory.
    pub content: Option<u64>,
}

impl<T> Leased<T> {
    /// A value that nobody promised to keep.
    pub fn unleased(value: T) -> Self {
        Self { value, attributes_until: None, names_until: None, content: None }
    }

    /// The same leases on something made of the value.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Leased<U> {
        Leased {
            value: make(self.value),
            attributes_until: self.attributes_until,
            names_until: self.names_until,
            content: self.content,
        }
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeasedEntry {
    /// Where to go on after it.
    pub cookie: u64,
    /// Its name.
    pub name: Name,
    /// The inode named.
    pub inode: InodeNumber,
    /// The inode's type.
    pub kind: InodeType,
    /// The inode's attributes, unless it vanished since the page was read.
    pub attributes: Option<Leased<Attributes>>,
}

/// A page of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeasedPage {
    /// The entries, by cookie.
    pub entries: Vec<LeasedEntry>,
    /// Whether these are the last.
    pub end: bool,
}

impl Client {
    /// As [`Client::lookup`]; a name that is not there is an answer too.
    pub async fn lookup_leased(
        &self,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<Leased<Option<Attributes>>, ClientError> {
        let result = async {
            self.require(directory, Access::SEARCH).await?;
            if let Some(known) = self.known_entry(directory, name).await? {
                return Ok(known);
            }
            match self.find_attributes(directory, name, self.deadline()).await {
                Ok(attributes) => Ok(self.shown_as(directory, name, attributes).map(Some)),
                Err(error) if error.is(Errno::ENOENT) => {
                    let known = self.known_name(directory, name);
                    Ok(missing(known).unwrap_or(Leased::unleased(None)))
                }
                Err(error) => Err(error),
            }
        };
        result.await.map_err(|error| error.during("look up", entry(directory, name)))
    }

    /// As [`Client::attributes`].
    pub async fn attributes_leased(
        &self,
        inode: InodeNumber,
    ) -> Result<Leased<Attributes>, ClientError> {
        if let Some(known) = self.known_attributes(inode) {
            return Ok(known);
        }
        let attributes = self.attributes(inode).await?;
        Ok(self.shown(attributes))
    }

    /// As [`Client::update`].
    pub async fn update_leased(
        &self,
        inode: InodeNumber,
        changes: AttributeChanges,
    ) -> Result<Leased<Attributes>, ClientError> {
        let attributes = self.update(inode, changes).await?;
        Ok(self.shown(attributes))
    }

    /// The number of the lease on the content of an inode, as [`Leased::content`]; it is asked for
    /// if it is not held.
    pub async fn content_lease(&self, inode: InodeNumber) -> Result<Option<u64>, ClientError> {
        let Some(cache) = &self.shared.cache else { return Ok(None) };
        let now = || self.shared.platform.monotonic();
        let held = cache.content(inode, now());
        if held.is_some() {
            return Ok(held);
        }
        let result = self.fetch(inode, self.deadline()).await;
        result.map_err(|error| error.during("lease", Subject::Inode(inode)))?;
        Ok(cache.content(inode, now()))
    }

    /// Opens a regular file; `create`, `exclusive` of `mode` mean nothing here.
    pub async fn open_leased(
        &self,
        inode: InodeNumber,
        mode: OpenMode,
    ) -> Result<(OpenFile, Leased<Attributes>), ClientError> {
        let (file, attributes) = self.open_as(inode, mode).await?;
        Ok((file, self.shown(attributes)))
    }

    /// Creates and opens a regular file; tells whether it is new. Without `exclusive` an existing
    /// one is opened, and cut to nothing if `mode` says so.
    pub async fn create_leased(
        &self,
        directory: InodeNumber,
        name: &Name,
        permissions: FilePermissions,
        umask: u32,
        exclusive: bool,
        mode: OpenMode,
    ) -> Result<(OpenFile, Leased<Attributes>, bool), ClientError> {
        let new = NewFile { permissions, umask, exclusive };
        let (file, found, created) = self.create_as(directory, name, new, mode).await?;
        let attributes = self.shown_as(directory, name, found);
        Ok((file, attributes, created))
    }

    /// As [`Client::mkdir`]; `umask` counts unless the directory has a default ACL.
    pub async fn mkdir_leased(
        &self,
        directory: InodeNumber,
        name: &Name,
        permissions: FilePermissions,
        umask: u32,
    ) -> Result<Leased<Attributes>, ClientError> {
        let attributes = self.mkdir_masked(directory, name, permissions, umask).await?;
        Ok(self.shown_as(directory, name, attributes))
    }

    /// As [`Client::symlink`].
    pub async fn symlink_leased(
        &self,
        directory: InodeNumber,
        name: &Name,
        target: &[u8],
        permissions: FilePermissions,
    ) -> Result<Leased<Attributes>, ClientError> {
        let attributes = self.symlink(directory, name, target, permissions).await?;
        Ok(self.shown_as(directory, name, attributes))
    }

    /// As [`Client::mknod`]; `umask` counts unless the directory has a default ACL.
    pub async fn mknod_leased(
        &self,
        directory: InodeNumber,
        name: &Name,
        kind: InodeType,
        permissions: FilePermissions,
        umask: u32,
        device: u64,
    ) -> Result<Leased<Attributes>, ClientError> {
        let attributes =
            self.mknod_masked(directory, name, kind, permissions, umask, device).await?;
        Ok(self.shown_as(directory, name, attributes))
    }

    /// As [`Client::link`], with the attributes of the inode after it.
    pub async fn link_leased(
        &self,
        inode: InodeNumber,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<Leased<Attributes>, ClientError> {
        self.link(inode, directory, name).await?;
        let attributes = self.attributes_leased(inode).await?.value;
        Ok(self.shown_as(directory, name, attributes))
    }

    /// As [`Client::read_directory`].
    pub async fn read_directory_leased(
        &self,
        directory: InodeNumber,
        after: u64,
        limit: u32,
    ) -> Result<LeasedPage, ClientError> {
        let page = self.read_directory(directory, after, limit).await?;
        let entries = page.items.into_iter().map(|item| self.shown_item(directory, item));
        Ok(LeasedPage { entries: entries.collect(), end: page.end })
    }

    fn shown_item(&self, directory: InodeNumber, item: DirectoryItem) -> LeasedEntry {
        let DirectoryItem { cookie, name, inode, kind, attributes, .. } = item;
        let attributes = attributes.map(|found| self.shown_as(directory, &name, found));
        LeasedEntry { cookie, name, inode, kind, attributes }
    }

    /// What the cache knows of an entry; at most the attributes have to be asked for.
    async fn known_entry(
        &self,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<Option<Leased<Option<Attributes>>>, ClientError> {
        let inode = match self.known_name(directory, name) {
            Found::Unknown => return Ok(None),
            Found::Inode(inode, _) => inode,
            known @ Found::Missing(..) => return Ok(missing(known)),
        };
        let known = match self.known_attributes(inode) {
            Some(known) => known,
            None => match self.fetch(inode, self.deadline()).await {
                Ok(attributes) => self.shown(attributes),
                // It has gone, and its name with it.
                Err(error) if error.is(Errno::ENOENT) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        // The name must hold still.
        Ok(match self.known_name(directory, name) {
            Found::Inode(found, until) if found == inode => {
                Some(Leased { names_until: Some(until), ..known.map(Some) })
            }
            _ => None,
        })
    }

    fn known_name(&self, directory: InodeNumber, name: &Name) -> Found {
        let now = self.shared.platform.monotonic();
        let cache = self.shared.cache.as_ref();
        cache.map_or(Found::Unknown, |cache| cache.name(directory, name, now))
    }

    pub(crate) fn known_attributes(&self, inode: InodeNumber) -> Option<Leased<Attributes>> {
        let now = self.shared.platform.monotonic();
        let (value, held) = self.shared.cache.as_ref()?.attributes(inode, now)?;
        let attributes_until = held.attributes_until;
        Some(Leased { value, attributes_until, names_until: None, content: held.content })
    }

    /// Attributes as the doors are shown them: those of the cache where it has some.
    pub(crate) fn shown(&self, attributes: Attributes) -> Leased<Attributes> {
        let inode = attributes.inode;
        self.known_attributes(inode).unwrap_or_else(|| {
            let now = self.shared.platform.monotonic();
            let cache = self.shared.cache.as_ref();
            let content = cache.and_then(|cache| cache.content(inode, now));
            Leased { content, ..Leased::unleased(attributes) }
        })
    }

    /// The same of an inode that was found or made under a name.
    fn shown_as(
        &self,
        directory: InodeNumber,
        name: &Name,
        attributes: Attributes,
    ) -> Leased<Attributes> {
        let names_until = match self.known_name(directory, name) {
            Found::Inode(inode, until) if inode == attributes.inode => Some(until),
            _ => None,
        };
        Leased { names_until, ..self.shown(attributes) }
    }
}

/// The answer for a name that is known to be missing.
fn missing(known: Found) -> Option<Leased<Option<Attributes>>> {
    let Found::Missing(until, content) = known else { return None };
    let names_until = Some(until);
    Some(Leased { value: None, attributes_until: None, names_until, content: Some(content) })
}
