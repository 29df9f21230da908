//! Whole trees: walking one, removing one.
//!
//! Memory is bounded by one page of names per level; depth is bounded by nothing but the tree, so
//! nothing here recurses.

use std::collections::VecDeque;

use futures_util::{StreamExt, TryStreamExt, stream};
use ringfs_wire::{
    Attributes, DirectoryItem, Errno, InodeNumber, InodeType, Lease, Name, ReadDirectory,
};

use crate::client::Client;
use crate::error::ClientError;
use crate::path::Destination;

/// Entries asked for at a time.
const PAGE_LEN: u32 = 1_000;

/// How often a directory that others fill again is emptied before giving up.
const EMPTYING_ATTEMPTS_MAX: u32 = 10;

/// One thing found by a [`Walk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkEntry {
    /// Its path, beginning with the path of the walk.
    pub path: Vec<u8>,
    /// Its attributes.
    pub attributes: Attributes,
}

/// One directory on the way down.
struct Level {
    inode: InodeNumber,
    path: Vec<u8>,
    waiting: VecDeque<DirectoryItem>,
    after: u64,
    end: bool,
}

/// One directory being emptied.
struct Emptying {
    parent: InodeNumber,
    name: Name,
    inode: InodeNumber,
    /// Directories in it that are still to be removed.
    below: Vec<(Name, InodeNumber)>,
    attempts: u32,
}

/// A walk through a tree, directories before what is in them. Symbolic links are not followed.
/// What changes meanwhile is seen or not.
pub struct Walk {
    client: Client,
    first: Option<WalkEntry>,
    levels: Vec<Level>,
}

impl Client {
    /// Walks through the tree at `path`, beginning with what is there itself.
    pub async fn walk(&self, path: impl AsRef<[u8]>) -> Result<Walk, ClientError> {
        let path = path.as_ref();
        let attributes = self.resolve(path, false).await?;
        let first = WalkEntry { path: path.to_vec(), attributes };
        Ok(Walk { client: self.clone(), first: Some(first), levels: Vec::new() })
    }

    /// Removes what is at `path`, and if it is a directory, everything in it first.
    pub async fn remove_all(&self, path: impl AsRef<[u8]>) -> Result<(), ClientError> {
        let path = path.as_ref();
        let result = async {
            match self.walk_to(path, false, self.deadline()).await? {
                Destination::Directory(_) => Err(Errno::EBUSY.into()),
                Destination::Entry { found: None, .. } => Err(Errno::ENOENT.into()),
                Destination::Entry { directory, name, found: Some(found) } => {
                    if found.kind == InodeType::Directory {
                        self.remove_tree(directory, name, found.inode).await
                    } else {
                        self.unlink(directory, &name).await
                    }
                }
            }
        };
        result.await.map_err(|error| error.on_path("remove", path))
    }

    /// Empties and removes directories from the bottom up, with a list of those on the way.
    async fn remove_tree(
        &self,
        parent: InodeNumber,
        name: Name,
        inode: InodeNumber,
    ) -> Result<(), ClientError> {
        let mut way = vec![Emptying { parent, name, inode, below: Vec::new(), attempts: 0 }];
        while let Some(level) = way.last_mut() {
            if level.below.is_empty() {
                level.below = self.remove_files(level.inode).await?;
            }
            if let Some((name, inode)) = level.below.pop() {
                let parent = level.inode;
                way.push(Emptying { parent, name, inode, below: Vec::new(), attempts: 0 });
                continue;
            }
            match self.rmdir(level.parent, &level.name).await {
                Err(error)
                    if error.errno() == Errno::ENOTEMPTY
                        && level.attempts < EMPTYING_ATTEMPTS_MAX =>
                {
                    level.attempts += 1;
                }
                Err(error) if error.errno() != Errno::ENOENT => return Err(error),
                _ => {
                    way.pop();
                }
            }
        }
        Ok(())
    }

    /// Removes what is no directory from a directory, until it meets a page with directories.
    async fn remove_files(
        &self,
        directory: InodeNumber,
    ) -> Result<Vec<(Name, InodeNumber)>, ClientError> {
        let mut after = 0;
        loop {
            let request = ReadDirectory {
                directory,
                after,
                limit: PAGE_LEN,
                lease: Lease::NONE,
                touch: false,
            };
            let page = match self.ask_home(directory, &request, self.deadline()).await {
                Err(error) if error.errno() == Errno::ENOENT => return Ok(Vec::new()),
                result => result?,
            };
            let end = page.end || page.items.is_empty();
            after = page.items.last().map_or(after, |item| item.cookie);
            let is_directory = |item: &DirectoryItem| item.kind == InodeType::Directory;
            let (below, files): (Vec<_>, Vec<_>) = page.items.into_iter().partition(is_directory);
            stream::iter(files)
                .map(|item| async move {
                    match self.unlink(directory, &item.name).await {
                        Err(error) if error.errno() != Errno::ENOENT => Err(error),
                        _ => Ok(()),
                    }
                })
                .buffer_unordered(self.shared.options.parallel_chunks.max(1))
                .try_collect::<()>()
                .await?;
            if !below.is_empty() || end {
                return Ok(below.into_iter().map(|item| (item.name, item.inode)).collect());
            }
        }
    }
}

impl Walk {
    /// The next entry; `None` at the end. After an error the walk goes on with what is left.
    pub async fn next(&mut self) -> Option<Result<WalkEntry, ClientError>> {
        if let Some(first) = self.first.take() {
            self.descend(&first);
            return Some(Ok(first));
        }
        loop {
            let level = self.levels.last_mut()?;
            if let Some(item) = level.waiting.pop_front() {
                // An entry without attributes vanished since its page was read.
                let Some(attributes) = item.attributes else { continue };
                let mut path = level.path.clone();
                if path.last() != Some(&b'/') {
                    path.push(b'/');
                }
                path.extend_from_slice(item.name.as_bytes());
                let entry = WalkEntry { path, attributes };
                self.descend(&entry);
                return Some(Ok(entry));
            }
            if level.end {
                self.levels.pop();
                continue;
            }
            match self.client.read_directory(level.inode, level.after, PAGE_LEN).await {
                Ok(page) => {
                    level.after = page.items.last().map_or(level.after, |item| item.cookie);
                    level.end = page.end || page.items.is_empty();
                    level.waiting = page.items.into();
                }
                Err(error) if error.errno() == Errno::ENOENT => level.end = true,
                Err(error) => {
                    level.end = true;
                    return Some(Err(error.on_path("read directory", &level.path.clone())));
                }
            }
        }
    }

    /// Makes the contents of a directory come next.
    fn descend(&mut self, entry: &WalkEntry) {
        if entry.attributes.kind == InodeType::Directory {
            self.levels.push(Level {
                inode: entry.attributes.inode,
                path: entry.path.clone(),
                waiting: VecDeque::new(),
                after: 0,
                end: false,
            });
        }
    }
}
