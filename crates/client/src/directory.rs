//! Reading directories: pages of names with attributes.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use ringfs_wire::{
    Attributes, AttributesGet, AttributesResult, DirectoryPage, InodeNumber, Lease, ReadDirectory,
    TargetId,
};

use crate::client::{Client, Deadline};
use crate::credentials::Access;
use crate::error::{ClientError, Subject};

/// Most inodes asked for by one request.
const ATTRIBUTES_BATCH_MAX: usize = 1_024;

impl Client {
    /// A page of a directory after the entry with cookie `after` (0: from the start), at most
    /// `limit` entries. Entries whose inode lives elsewhere get their attributes from there; an
    /// entry is without attributes only if its inode vanished since the page was read.
    ///
    /// `.` and `..` are not among the entries.
    pub async fn read_directory(
        &self,
        directory: InodeNumber,
        after: u64,
        limit: u32,
    ) -> Result<DirectoryPage, ClientError> {
        let result = async {
            self.require(directory, Access::READ).await?;
            let deadline = self.deadline();
            let (begun, lease) = (self.begun(), self.wanted(directory));
            let touch = after == 0 && self.shared.options.access_times;
            let request = ReadDirectory { directory, after, limit, lease, touch };
            let mut page = self.ask_home(directory, &request, deadline).await?;
            self.note_read(directory, touch);
            for item in &page.items {
                let entered = item.attributes.as_ref();
                let names = entered.map_or(0, |known| self.enter(begun, known, item.lease));
                self.enter_name(begun, directory, &item.name, item.inode, names);
            }
            self.fill_in(&mut page, deadline).await?;
            Ok::<_, ClientError>(page)
        };
        result.await.map_err(|error| error.during("read directory", Subject::Inode(directory)))
    }

    /// Asks the homes of far inodes for their attributes, all homes at the same time.
    async fn fill_in(
        &self,
        page: &mut DirectoryPage,
        deadline: Deadline,
    ) -> Result<(), ClientError> {
        let map = self.map();
        let mut homes: BTreeMap<TargetId, Vec<InodeNumber>> = BTreeMap::new();
        for item in page.items.iter().filter(|item| item.attributes.is_none()) {
            homes.entry(map.home(item.inode)).or_default().push(item.inode);
        }
        let batches = homes.values().flat_map(|inodes| inodes.chunks(ATTRIBUTES_BATCH_MAX));
        let answers = join_all(batches.map(|batch| self.fetch_batch(batch, deadline))).await;
        let mut found = BTreeMap::new();
        for answer in answers {
            found.extend(answer?);
        }
        for item in &mut page.items {
            if item.attributes.is_none() {
                item.attributes = found.get(&item.inode).cloned();
            }
        }
        Ok(())
    }

    /// The attributes of those of `inodes`, all of one home, that exist.
    async fn fetch_batch(
        &self,
        inodes: &[InodeNumber],
        deadline: Deadline,
    ) -> Result<Vec<(InodeNumber, Attributes)>, ClientError> {
        let Some(first) = inodes.first() else { return Ok(Vec::new()) };
        let (begun, lease) = (self.begun(), self.wanted(*first).without(Lease::NAMES));
        let request = AttributesGet { inodes: inodes.to_vec(), lease, named: None };
        let results = self.ask_home(*first, &request, deadline).await?;
        let mut found = Vec::new();
        for result in results {
            if let AttributesResult::Found(attributes, granted) = result {
                self.note(&attributes)?;
                self.enter(begun, &attributes, granted);
                found.push((attributes.inode, *attributes));
            }
        }
        Ok(found)
    }
}
