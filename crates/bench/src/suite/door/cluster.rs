//! The door through the client library: directories are inode numbers, nothing is cached.

use ringfs_client::{Client, OpenFile, OpenMode};
use ringfs_platform::Slice;
use ringfs_wire::{FilePermissions, InodeNumber, Name, RenameMode};

use super::{Access, Door, WANTED_SIZE, Walked, is_wanted};
use crate::cluster::Cluster;
use crate::error::BenchError;

/// Entries asked for at once.
const PAGE_LEN: u32 = 1_000;

/// Files in a cluster.
pub(crate) struct ClusterDoor {
    client: Client,
    cluster: Cluster,
    /// The directory of this run.
    path: String,
    root: InodeNumber,
    permissions: FilePermissions,
}

impl ClusterDoor {
    pub(crate) async fn open(
        client: &Client,
        path: &str,
        cluster: &Cluster,
    ) -> Result<Self, BenchError> {
        let root = client.resolve(path, false).await?;
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let permissions = FilePermissions { mode: 0o755, uid: uid.as_raw(), gid: gid.as_raw() };
        let (client, cluster, path) = (client.clone(), cluster.clone(), path.to_owned());
        Ok(Self { client, cluster, path, root: root.inode, permissions })
    }
}

fn name(text: &str) -> Result<Name, BenchError> {
    Name::new(text.as_bytes()).map_err(|errno| BenchError::Unexpected(format!("{text}: {errno:?}")))
}

impl Door for ClusterDoor {
    type Place = InodeNumber;
    type File = OpenFile;

    fn root(&self) -> InodeNumber {
        self.root
    }

    async fn make_directory(
        &self,
        at: &InodeNumber,
        text: &str,
    ) -> Result<InodeNumber, BenchError> {
        Ok(self.client.mkdir(*at, &name(text)?, self.permissions).await?.inode)
    }

    async fn enter(&self, at: &InodeNumber, text: &str) -> Result<InodeNumber, BenchError> {
        Ok(self.client.lookup(*at, &name(text)?).await?.inode)
    }

    async fn create(&self, at: &InodeNumber, text: &str) -> Result<OpenFile, BenchError> {
        Ok(self.client.create(*at, &name(text)?, self.permissions, true).await?)
    }

    async fn open(
        &self,
        at: &InodeNumber,
        text: &str,
        access: Access,
    ) -> Result<OpenFile, BenchError> {
        let mode = match access {
            Access::Read | Access::ReadDirect => OpenMode::READ,
            Access::Write => OpenMode::READ_WRITE,
        };
        Ok(self.client.open_at(*at, &name(text)?, mode).await?)
    }

    async fn write(&self, file: &OpenFile, offset: u64, data: Slice) -> Result<(), BenchError> {
        Ok(file.write(offset, data).await?)
    }

    async fn read(
        &self,
        file: &OpenFile,
        offset: u64,
        len: usize,
    ) -> Result<Vec<Slice>, BenchError> {
        Ok(file.read_slices(offset, len).await?)
    }

    /// The bytes come with the create.
    async fn write_whole(
        &self,
        at: &InodeNumber,
        text: &str,
        data: Slice,
    ) -> Result<(), BenchError> {
        let file = self.client.create_with(*at, &name(text)?, self.permissions, data).await?;
        Ok(file.close().await?)
    }

    /// The head comes with the open.
    async fn read_whole(
        &self,
        at: &InodeNumber,
        text: &str,
        len: usize,
    ) -> Result<Vec<Slice>, BenchError> {
        let (file, head) = self.client.open_with_head(*at, &name(text)?).await?;
        file.close().await?;
        Ok(vec![head.slice(0..len.min(head.len()))])
    }

    async fn sync(&self, file: &OpenFile) -> Result<(), BenchError> {
        Ok(file.sync().await?)
    }

    async fn forget(&self, _file: &OpenFile) -> Result<(), BenchError> {
        // The library holds no bytes, and the servers' caches are their own.
        Ok(())
    }

    async fn close(&self, file: OpenFile) -> Result<(), BenchError> {
        Ok(file.close().await?)
    }

    async fn size(&self, at: &InodeNumber, text: &str) -> Result<u64, BenchError> {
        Ok(self.client.lookup(*at, &name(text)?).await?.size)
    }

    async fn remove(&self, at: &InodeNumber, text: &str) -> Result<(), BenchError> {
        Ok(self.client.unlink(*at, &name(text)?).await?)
    }

    fn has_targets(&self) -> bool {
        true
    }

    async fn is_at_turn(&self, place: &InodeNumber, who: u32) -> Result<bool, BenchError> {
        Ok(self.cluster.is_at_turn(*place, who))
    }

    async fn rename_directory(
        &self,
        at: &InodeNumber,
        from: &str,
        to: &str,
    ) -> Result<(), BenchError> {
        let mode = RenameMode::NoReplace;
        Ok(self.client.rename(*at, &name(from)?, *at, &name(to)?, mode).await?)
    }

    async fn remove_directory(&self, at: &InodeNumber, text: &str) -> Result<(), BenchError> {
        Ok(self.client.rmdir(*at, &name(text)?).await?)
    }

    async fn walk(&self, at: &InodeNumber) -> Result<Walked, BenchError> {
        let mut walked = Walked::default();
        let mut after = 0;
        loop {
            let page = self.client.read_directory(*at, after, PAGE_LEN).await?;
            walked.entries += page.items.len() as u64;
            let wanted = page.items.iter().filter(|item| {
                let size = item.attributes.as_ref().map(|attributes| attributes.size);
                is_wanted(item.name.as_bytes()) && size == Some(WANTED_SIZE)
            });
            walked.matches += wanted.count() as u64;
            match page.items.last() {
                Some(last) if !page.end => after = last.cookie,
                _ => return Ok(walked),
            }
        }
    }

    async fn remove_tree(&self, text: &str) -> Result<(), BenchError> {
        Ok(self.client.remove_all(format!("{}/{text}", self.path)).await?)
    }

    async fn used(&self) -> Result<Option<u64>, BenchError> {
        Ok(Some(self.client.statfs().await?.used))
    }
}
