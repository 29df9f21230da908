//! From paths to inodes: absolute paths, `.`, `..`, and symbolic links on the way.
//!
//! `..` goes back along the way that was taken, which after a symbolic link is the way through
//! the link's target, as the kernel does it.

use ringfs_wire::{Attributes, Errno, InodeNumber, InodeType, Name};

use crate::client::{Client, Deadline};
use crate::credentials::Access;
use crate::error::ClientError;

/// Longest path, in bytes (`PATH_MAX` without its NUL).
pub const MAX_PATH_LEN: usize = 4_095;

/// Most symbolic links followed on one way.
pub const MAX_SYMLINKS_FOLLOWED: u32 = 40;

/// Where a path leads.
#[derive(Debug)]
pub(crate) enum Destination {
    /// A directory that the path does not name itself: it ends in `/`, `.` or `..`.
    Directory(InodeNumber),
    /// A name, and what it names if it exists.
    Entry {
        /// The directory of the name.
        directory: InodeNumber,
        /// The name.
        name: Name,
        /// The inode.
        found: Option<Box<Attributes>>,
    },
}

impl Client {
    /// The inode at an absolute path. `follow` decides about a symbolic link at the very end.
    pub async fn resolve(
        &self,
        path: impl AsRef<[u8]>,
        follow: bool,
    ) -> Result<Attributes, ClientError> {
        let path = path.as_ref();
        let result = async {
            let deadline = self.deadline();
            match self.walk_to(path, follow, deadline).await? {
                Destination::Directory(inode) => self.fetch(inode, deadline).await,
                Destination::Entry { found: Some(attributes), .. } => Ok(*attributes),
                Destination::Entry { found: None, .. } => Err(Errno::ENOENT.into()),
            }
        };
        result.await.map_err(|error| error.on_path("find", path))
    }

    /// The directory that holds, or would hold, the last name of a path, and that name. Slashes
    /// at the end are ignored.
    pub async fn resolve_parent(
        &self,
        path: impl AsRef<[u8]>,
    ) -> Result<(Attributes, Name), ClientError> {
        let path = path.as_ref();
        let result = async {
            let (parent, name) = split_last(path)?;
            let attributes = self.resolve(parent, true).await?;
            if attributes.kind != InodeType::Directory {
                return Err(Errno::ENOTDIR.into());
            }
            Ok::<_, ClientError>((attributes, name))
        };
        result.await.map_err(|error| error.on_path("find the directory of", path))
    }

    /// Walks along `path` to its last name.
    pub(crate) async fn walk_to(
        &self,
        path: &[u8],
        follow: bool,
        deadline: Deadline,
    ) -> Result<Destination, ClientError> {
        if path.len() > MAX_PATH_LEN {
            return Err(Errno::ENAMETOOLONG.into());
        }
        if path.first() != Some(&b'/') {
            return Err(Errno::EINVAL.into());
        }
        let mut ahead = Vec::new();
        push_components(&mut ahead, path);
        let mut way = vec![InodeNumber::ROOT];
        let mut followed = 0;
        while let Some(component) = ahead.pop() {
            let here = way.last().copied().unwrap_or(InodeNumber::ROOT);
            match &component[..] {
                b"." => continue,
                b".." => {
                    if way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let name = Name::new(&component)?;
            self.require(here, Access::SEARCH).await?;
            let is_last = ahead.is_empty();
            let (inode, kind, found) = if is_last {
                match self.find_attributes(here, &name, deadline).await {
                    Err(error) if error.is(Errno::ENOENT) => {
                        return Ok(Destination::Entry { directory: here, name, found: None });
                    }
                    result => result.map(|found| (found.inode, found.kind, Some(found)))?,
                }
            } else {
                let reply = self.find(here, &name, deadline).await?;
                (reply.inode, reply.kind, None)
            };
            match kind {
                InodeType::Symlink if follow || !is_last => {
                    followed += 1;
                    if followed > MAX_SYMLINKS_FOLLOWED {
                        return Err(Errno::ELOOP.into());
                    }
                    let target = self.read_link(inode).await?;
                    if target.first() == Some(&b'/') {
                        way.truncate(1);
                    }
                    push_components(&mut ahead, &target);
                }
                InodeType::Directory if !is_last => way.push(inode),
                _ if !is_last => return Err(Errno::ENOTDIR.into()),
                _ => {
                    let found = found.map(Box::new);
                    return Ok(Destination::Entry { directory: here, name, found });
                }
            }
        }
        Ok(Destination::Directory(way.last().copied().unwrap_or(InodeNumber::ROOT)))
    }
}

/// Puts the components of `path` in front of what is `ahead`, whose next component is its last
/// item. A slash at the end counts as `.`: what is before it must be a directory.
fn push_components(ahead: &mut Vec<Box<[u8]>>, path: &[u8]) {
    if path.ends_with(b"/") {
        ahead.push(Box::from(&b"."[..]));
    }
    let components = path.split(|byte| *byte == b'/').filter(|component| !component.is_empty());
    ahead.extend(components.rev().map(Box::from));
}

/// A path without its last name, and that name.
pub(crate) fn split_last(path: &[u8]) -> Result<(&[u8], Name), Errno> {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    if path.is_empty() {
        return Err(Errno::EBUSY);
    }
    let start = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::EINVAL)? + 1;
    Ok((&path[..start], Name::new(&path[start..])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fall_into_components() {
        let check = |path: &str, expect: &[&str]| {
            let mut ahead = Vec::new();
            push_components(&mut ahead, path.as_bytes());
            let found: Vec<String> =
                ahead.iter().rev().map(|c| String::from_utf8_lossy(c).into_owned()).collect();
            assert_eq!(found, expect, "{path}");
        };
        check("/", &["."]);
        check("/a", &["a"]);
        check("//a/./b//", &["a", ".", "b", "."]);
        check("../c", &["..", "c"]);
        check("", &[]);
    }

    #[test]
    fn the_last_name_is_split_off() {
        let check = |path: &str, expect: Result<(&str, &str), Errno>| {
            let found = split_last(path.as_bytes());
            let found = found.as_ref().map(|(parent, name)| (*parent, name.as_bytes()));
            let expect = expect.as_ref().map(|(parent, name)| (parent.as_bytes(), name.as_bytes()));
            assert_eq!(found, expect, "{path}");
        };
        check("/a", Ok(("/", "a")));
        check("/a/b//", Ok(("/a/", "b")));
        check("//a", Ok(("//", "a")));
        check("/", Err(Errno::EBUSY));
        check("a", Err(Errno::EINVAL));
        check("/a/..", Err(Errno::EINVAL));
        check("/a/.", Err(Errno::EINVAL));
    }
}
