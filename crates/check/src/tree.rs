//! Directories that lie in each other.

use std::collections::BTreeSet;

use ringfs_wire::InodeNumber;

/// The circles among directories, each by its smallest member and its length. `parent` tells where
/// a directory lies.
pub(crate) fn cycles<'a>(
    directories: impl Iterator<Item = &'a InodeNumber>,
    parent: impl Fn(InodeNumber) -> Option<InodeNumber>,
) -> Vec<(InodeNumber, u64)> {
    let mut done: BTreeSet<InodeNumber> = BTreeSet::from([InodeNumber::ROOT]);
    let mut found = Vec::new();
    for start in directories {
        let mut path = Vec::new();
        let mut seen = BTreeSet::new();
        let mut at = Some(*start);
        while let Some(inode) = at.filter(|inode| !done.contains(inode)) {
            if !seen.insert(inode) {
                let first = path.iter().position(|other| *other == inode).unwrap_or(0);
                let circle = &path[first..];
                let smallest = circle.iter().min().copied().unwrap_or(inode);
                found.push((smallest, circle.len() as u64));
                break;
            }
            path.push(inode);
            at = parent(inode);
        }
        done.extend(path);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parents: &[(u64, u64)], expected: &[(u64, u64)]) {
        let directories: Vec<_> = parents.iter().map(|(inode, _)| InodeNumber(*inode)).collect();
        let parent = |inode: InodeNumber| {
            let found = parents.iter().find(|(child, _)| *child == inode.0);
            found.map(|(_, parent)| InodeNumber(*parent))
        };
        let expected: Vec<_> = expected.iter().map(|(i, n)| (InodeNumber(*i), *n)).collect();
        assert_eq!(cycles(directories.iter(), parent), expected);
    }

    #[test]
    fn circles_are_told_once() {
        check(&[(2, 1), (3, 2), (4, 2)], &[]);
        check(&[(2, 1), (3, 4), (4, 3), (5, 4), (6, 5)], &[(3, 2)]);
        check(&[(5, 6), (6, 7), (7, 6), (9, 9)], &[(6, 2), (9, 1)]);
        // What leads nowhere is somebody else's finding.
        check(&[(5, 8)], &[]);
    }
}
