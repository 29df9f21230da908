//! How the suite reaches files: through the client library, or by system calls in any directory.

mod cluster;
mod directory;

use ringfs_platform::Slice;

use crate::error::BenchError;

pub(crate) use cluster::ClusterDoor;
pub(crate) use directory::DirectoryDoor;

/// What a walk looks for, as the IO500 does: names that contain a text, of files of one size.
pub(crate) const WANTED_TEXT: &[u8] = b"01";
/// The size of the files that a walk looks for.
pub(crate) const WANTED_SIZE: u64 = super::part::SMALL_FILE;

/// What a walk through one directory came upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Walked {
    /// Entries.
    pub(crate) entries: u64,
    /// Those that were looked for.
    pub(crate) matches: u64,
}

/// Whether a name may be one that a walk looks for.
pub(crate) fn is_wanted(name: &[u8]) -> bool {
    name.windows(WANTED_TEXT.len()).any(|window| window == WANTED_TEXT)
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// Reading past the caches of the kernel: whole blocks into whole blocks of memory.
    ReadDirect,
    /// Writing, and reading as well.
    Write,
}

/// A way to files. Implementors: [`ClusterDoor`] and [`DirectoryDoor`].
pub(crate) trait Door {
    /// A directory.
    type Place: Clone;
    /// An open file.
    type File;

    /// The directory of this run.
    fn root(&self) -> Self::Place;
    async fn make_directory(&self, at: &Self::Place, name: &str)
    -> Result<Self::Place, BenchError>;
    async fn enter(&self, at: &Self::Place, name: &str) -> Result<Self::Place, BenchError>;
    /// Creates and opens a file that does not exist.
    async fn create(&self, at: &Self::Place, name: &str) -> Result<Self::File, BenchError>;
    async fn open(
        &self,
        at: &Self::Place,
        name: &str,
        access: Access,
    ) -> Result<Self::File, BenchError>;
    /// Opens a file for writing, created if it does not exist.
    async fn create_or_open(&self, at: &Self::Place, name: &str) -> Result<Self::File, BenchError> {
        match self.size(at, name).await {
            Ok(_) => self.open(at, name, Access::Write).await,
            Err(_) => self.create(at, name).await,
        }
    }
    async fn write(&self, file: &Self::File, offset: u64, data: Slice) -> Result<(), BenchError>;
    /// Up to `len` bytes; fewer only at the end of the file.
    async fn read(
        &self,
        file: &Self::File,
        offset: u64,
        len: usize,
    ) -> Result<Vec<Slice>, BenchError>;
    /// Creates a file that does not exist, writes `data` into it, and closes it.
    async fn write_whole(
        &self,
        at: &Self::Place,
        name: &str,
        data: Slice,
    ) -> Result<(), BenchError> {
        let file = self.create(at, name).await?;
        self.write(&file, 0, data).await?;
        self.close(file).await
    }
    /// Opens a file, reads up to `len` bytes from its beginning, and closes it.
    async fn read_whole(
        &self,
        at: &Self::Place,
        name: &str,
        len: usize,
    ) -> Result<Vec<Slice>, BenchError> {
        let file = self.open(at, name, Access::Read).await?;
        let read = self.read(&file, 0, len).await?;
        self.close(file).await?;
        Ok(read)
    }
    async fn sync(&self, file: &Self::File) -> Result<(), BenchError>;
    /// Drops what the caches of this machine hold of the file, as far as that can be asked for.
    async fn forget(&self, file: &Self::File) -> Result<(), BenchError>;
    async fn close(&self, file: Self::File) -> Result<(), BenchError>;
    /// The size of a file, by its name.
    async fn size(&self, at: &Self::Place, name: &str) -> Result<u64, BenchError>;
    async fn remove(&self, at: &Self::Place, name: &str) -> Result<(), BenchError>;
    /// Whether anything is known of targets.
    fn has_targets(&self) -> bool;
    /// Whether a directory lies on the target whose turn it is if each client has one; true where
    /// nothing is known of targets.
    async fn is_at_turn(&self, place: &Self::Place, who: u32) -> Result<bool, BenchError>;
    async fn rename_directory(
        &self,
        at: &Self::Place,
        from: &str,
        to: &str,
    ) -> Result<(), BenchError>;
    async fn remove_directory(&self, at: &Self::Place, name: &str) -> Result<(), BenchError>;
    /// Goes through one directory.
    async fn walk(&self, at: &Self::Place) -> Result<Walked, BenchError>;
    /// Removes a directory of the root with everything in it.
    async fn remove_tree(&self, name: &str) -> Result<(), BenchError>;
    /// Bytes in use, where their return after a removal is worth waiting for.
    async fn used(&self) -> Result<Option<u64>, BenchError>;
}
