//! Calls whose answers say for how long they hold: the doors that cache use these.
//!
//! A client that caches nothing answers with no leases.

use std::time::Duration;

use ringfs_wire::{Attributes, Errno, FilePermissions, InodeNumber, InodeType, Name};

use crate::client::Client;
use crate::error::ClientError;
use crate::file::OpenFile;
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
        match self.lookup(directory, name).await {
            Ok(attributes) => Ok(Leased::unleased(Some(attributes))),
            Err(error) if error.is(Errno::ENOENT) => Ok(Leased::unleased(None)),
            Err(error) => Err(error),
        }
    }

    /// As [`Client::attributes`].
    pub async fn attributes_leased(
        &self,
        inode: InodeNumber,
    ) -> Result<Leased<Attributes>, ClientError> {
        self.attributes(inode).await.map(Leased::unleased)
    }

    /// The number of the lease on the content of an inode, as [`Leased::content`]; it is asked for
    /// if it is not held.
    pub async fn content_lease(&self, inode: InodeNumber) -> Result<Option<u64>, ClientError> {
        let _ = inode;
        Ok(None)
    }

    /// Opens a regular file; `create`, `exclusive` of `mode` mean nothing here.
    pub async fn open_leased(
        &self,
        inode: InodeNumber,
        mode: OpenMode,
    ) -> Result<(OpenFile, Leased<Attributes>), ClientError> {
        let file = self.open_as(inode, mode).await?;
        let attributes = Leased::unleased(file.attributes());
        Ok((file, attributes))
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
        let (file, created) = self.create_as(directory, name, new, mode).await?;
        let attributes = Leased::unleased(file.attributes());
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
        self.mkdir_masked(directory, name, permissions, umask).await.map(Leased::unleased)
    }

    /// As [`Client::symlink`].
    pub async fn symlink_leased(
        &self,
        directory: InodeNumber,
        name: &Name,
        target: &[u8],
        permissions: FilePermissions,
    ) -> Result<Leased<Attributes>, ClientError> {
        self.symlink(directory, name, target, permissions).await.map(Leased::unleased)
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
        let made = self.mknod_masked(directory, name, kind, permissions, umask, device).await;
        made.map(Leased::unleased)
    }

    /// As [`Client::link`], with the attributes of the inode after it.
    pub async fn link_leased(
        &self,
        inode: InodeNumber,
        directory: InodeNumber,
        name: &Name,
    ) -> Result<Leased<Attributes>, ClientError> {
        self.link(inode, directory, name).await?;
        self.attributes_leased(inode).await
    }

    /// As [`Client::read_directory`].
    pub async fn read_directory_leased(
        &self,
        directory: InodeNumber,
        after: u64,
        limit: u32,
    ) -> Result<LeasedPage, ClientError> {
        let page = self.read_directory(directory, after, limit).await?;
        let entries = page.items.into_iter().map(|item| LeasedEntry {
            cookie: item.cookie,
            name: item.name,
            inode: item.inode,
            kind: item.kind,
            attributes: item.attributes.map(Leased::unleased),
        });
        Ok(LeasedPage { entries: entries.collect(), end: page.end })
    }
}
