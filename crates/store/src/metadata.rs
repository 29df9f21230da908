//! What callers are shown of files and directories: copies, never the stored records.
//!
//! Paths, owner nodes and placements are filled in for the caller; no inode stores them.

use ringfs_wire::{
    Attributes, CHUNK_SIZE, FilePermissions, InodeNumber, InodeType, Name, NodeId, TargetId,
    Timestamp,
};

/// Chunks whose placement is listed, at most; a sparse file can have billions.
pub const LISTED_CHUNKS_MAX: u64 = 1 << 16;

/// A file as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMetadata {
    /// Its inode.
    pub inode: InodeNumber,
    /// The path it was asked for by.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Bytes in a whole chunk.
    pub chunk_bytes: u32,
    /// Chunks that `size` spans.
    pub chunk_count: u64,
    /// The target of each chunk, up to [`LISTED_CHUNKS_MAX`]; empty where not asked for.
    pub chunk_locations: Vec<TargetId>,
    /// Mode and owner.
    pub permissions: FilePermissions,
    /// Birth.
    pub created: Timestamp,
    /// Last change of content.
    pub modified: Timestamp,
    /// Last access.
    pub accessed: Timestamp,
    /// The node that keeps the inode.
    pub owner_node: NodeId,
}

impl FileMetadata {
    /// An empty file.
    pub fn new(inode: InodeNumber, path: &str, permissions: FilePermissions) -> Self {
        let never = Timestamp::default();
        Self {
            inode,
            path: path.to_owned(),
            size: 0,
            chunk_bytes: CHUNK_SIZE,
            chunk_count: 0,
            chunk_locations: Vec::new(),
            permissions,
            created: never,
            modified: never,
            accessed: never,
            owner_node: NodeId(0),
        }
    }

    /// What `attributes` say of the file at `path`.
    pub fn from_attributes(attributes: &Attributes, path: &str) -> Self {
        let mut metadata = Self::new(attributes.inode, path, attributes.permissions);
        metadata.size = attributes.size;
        metadata.chunk_bytes = attributes.chunk_size;
        metadata.created = attributes.created;
        metadata.modified = attributes.modified;
        metadata.accessed = attributes.accessed;
        metadata.chunk_count = metadata.calculate_chunk_count();
        metadata
    }

    /// Chunks that the size spans.
    pub fn calculate_chunk_count(&self) -> u64 {
        self.size.div_ceil(u64::from(self.chunk_bytes.max(1)))
    }

    /// Where a chunk starts in the file, in bytes.
    pub fn chunk_offset(&self, index: u64) -> u64 {
        index.saturating_mul(u64::from(self.chunk_bytes))
    }

    /// Bytes in a chunk: the last one is shorter, one behind the end has none.
    pub fn chunk_size(&self, index: u64) -> u64 {
        self.size.saturating_sub(self.chunk_offset(index)).min(u64::from(self.chunk_bytes))
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name.
    pub name: Name,
    /// What it names.
    pub inode: InodeNumber,
    /// The type of that.
    pub kind: InodeType,
}

/// A directory as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryMetadata {
    /// Its inode.
    pub inode: InodeNumber,
    /// The path it was asked for by.
    pub path: String,
    /// Mode and owner.
    pub permissions: FilePermissions,
    /// Last change of the entries.
    pub modified: Timestamp,
    /// The entries, sorted by name.
    children: Vec<DirectoryEntry>,
}

impl DirectoryMetadata {
    /// An empty directory.
    pub fn new(inode: InodeNumber, path: &str, permissions: FilePermissions) -> Self {
        let modified = Timestamp::default();
        Self { inode, path: path.to_owned(), permissions, modified, children: Vec::new() }
    }

    /// The entries, sorted by name.
    pub fn children(&self) -> &[DirectoryEntry] {
        &self.children
    }

    /// Adds an entry; false, with nothing changed, if its name is taken.
    pub fn add_child(&mut self, entry: DirectoryEntry) -> bool {
        match self.position(&entry.name) {
            Ok(_) => false,
            Err(index) => {
                self.children.insert(index, entry);
                true
            }
        }
    }

    /// Removes the entry of a name.
    pub fn remove_child(&mut self, name: &Name) -> Option<DirectoryEntry> {
        self.position(name).ok().map(|index| self.children.remove(index))
    }

    /// The entry of a name.
    pub fn find_child(&self, name: &Name) -> Option<&DirectoryEntry> {
        self.position(name).ok().map(|index| &self.children[index])
    }

    fn position(&self, name: &Name) -> Result<usize, usize> {
        self.children.binary_search_by(|entry| entry.name.cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERMISSIONS: FilePermissions = FilePermissions { mode: 0o644, uid: 1, gid: 1 };

    #[test]
    fn the_last_chunk_is_shorter() {
        let chunk = u64::from(CHUNK_SIZE);
        let check = |size: u64, count: u64, sizes: &[u64]| {
            let mut file = FileMetadata::new(InodeNumber(2), "/f", PERMISSIONS);
            file.size = size;
            assert_eq!(file.calculate_chunk_count(), count, "{size}");
            for (index, expected) in sizes.iter().enumerate() {
                assert_eq!(file.chunk_size(index as u64), *expected, "chunk {index} of {size}");
                assert_eq!(file.chunk_offset(index as u64), index as u64 * chunk);
            }
        };
        check(0, 0, &[0]);
        check(1, 1, &[1, 0]);
        check(chunk, 1, &[chunk, 0]);
        check(2 * chunk + 5, 3, &[chunk, chunk, 5, 0]);
    }

    #[test]
    fn children_are_found_by_name() {
        let mut directory = DirectoryMetadata::new(InodeNumber::ROOT, "/", PERMISSIONS);
        let entry = |name: &str, inode| DirectoryEntry {
            name: Name::new(name.as_bytes()).expect("valid"),
            inode: InodeNumber(inode),
            kind: InodeType::File,
        };
        assert!(directory.add_child(entry("b", 3)) && directory.add_child(entry("a", 2)));
        assert!(!directory.add_child(entry("a", 4)));
        assert_eq!(directory.children(), [entry("a", 2), entry("b", 3)]);
        assert_eq!(directory.find_child(&entry("b", 0).name), Some(&entry("b", 3)));
        assert_eq!(directory.remove_child(&entry("a", 0).name), Some(entry("a", 2)));
        assert_eq!(directory.find_child(&entry("a", 0).name), None);
    }
}
