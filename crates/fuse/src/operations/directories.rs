//! Listing directories.
//!
//! An entry's offset is its cookie at the server, so a listing goes on where it stopped whatever
//! was created or removed meanwhile, and any worker can carry it on. Cookies leave the smallest
//! numbers to the start, to `.` and to `..`.

use ringfs_client::LeasedEntry;
use ringfs_wire::{InodeNumber, InodeType};

use crate::abi::{Abi, DirectoryEntry, EntryOut, ReadIn, Reply};
use crate::failure::{Failure, gone_is_stale};
use crate::kernel_cache::{Answer, ListedEntry, put_entry};
use crate::operations::Outcome;
use crate::operations::stat::entry_kind;
use crate::worker::Worker;

/// Offset behind `.`.
const AFTER_SELF: u64 = 1;
/// Offset behind `..`.
const AFTER_PARENT: u64 = 2;
/// Length of a name that the number of entries asked for is reckoned with, in bytes.
const NAME_LEN_TYPICAL: usize = 16;
/// Entries asked for at a time, at most.
const ENTRIES_MAX: usize = 4_096;

/// A listing being filled.
struct Listing {
    entries: Vec<ListedEntry>,
    /// Bytes left for entries.
    room: usize,
    /// Whether each entry comes with its inode.
    plus: bool,
}

impl Listing {
    /// Adds an entry if it fits.
    fn push(&mut self, listed: ListedEntry) -> bool {
        let head = if self.plus { EntryOut::SIZE } else { 0 };
        let len = head + (DirectoryEntry::SIZE + listed.name.len()).next_multiple_of(8);
        if len > self.room {
            return false;
        }
        self.room -= len;
        self.entries.push(listed);
        true
    }

    fn finish(self) -> Answer {
        if self.plus {
            return Answer::Listing(self.entries);
        }
        let mut bytes = Vec::new();
        for listed in &self.entries {
            put_entry(&listed.entry, &listed.name, &mut bytes);
        }
        Reply::bytes(bytes).into()
    }
}

impl Worker {
    pub(crate) async fn read_directory(
        &self,
        directory: InodeNumber,
        arguments: &ReadIn,
        plus: bool,
    ) -> Outcome {
        let room = arguments.size as usize;
        let mut listing = Listing { entries: Vec::new(), room, plus };
        if arguments.offset < AFTER_PARENT {
            self.push_dots(&mut listing, directory, arguments.offset).await?;
        }
        let mut after = if arguments.offset <= AFTER_PARENT { 0 } else { arguments.offset };
        let head = if plus { EntryOut::SIZE } else { 0 };
        loop {
            let typical = head + DirectoryEntry::SIZE + NAME_LEN_TYPICAL;
            let limit = (listing.room / typical).clamp(1, ENTRIES_MAX) as u32;
            let page = self.client.read_directory_leased(directory, after, limit).await;
            let page = page.map_err(gone_is_stale)?;
            let (end, is_empty) = (page.end, page.entries.is_empty());
            for entry in page.entries {
                after = entry.cookie;
                if !listing.push(listed(entry)) {
                    return Ok(listing.finish());
                }
            }
            // A buffer that is mostly full is worth more than another round trip.
            if end || is_empty || listing.room < room / 4 {
                return Ok(listing.finish());
            }
        }
    }

    async fn push_dots(
        &self,
        listing: &mut Listing,
        directory: InodeNumber,
        offset: u64,
    ) -> Result<(), Failure> {
        let found = self.client.attributes_leased(directory).await.map_err(gone_is_stale)?;
        let parent = if directory == InodeNumber::ROOT { directory } else { found.value.parent };
        if offset < AFTER_SELF {
            listing.push(dot(directory, AFTER_SELF, b"."));
        }
        listing.push(dot(parent, AFTER_PARENT, b".."));
        Ok(())
    }
}

fn dot(inode: InodeNumber, offset: u64, name: &[u8]) -> ListedEntry {
    let kind = entry_kind(InodeType::Directory);
    let entry = DirectoryEntry { inode: inode.0, offset, name_len: name.len() as u32, kind };
    ListedEntry { entry, name: name.to_vec(), attributes: None }
}

fn listed(entry: LeasedEntry) -> ListedEntry {
    let name = entry.name.as_bytes().to_vec();
    ListedEntry {
        entry: DirectoryEntry {
            inode: entry.inode.0,
            offset: entry.cookie,
            name_len: name.len() as u32,
            kind: entry_kind(entry.kind),
        },
        name,
        attributes: entry.attributes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_takes_what_fits() {
        let mut listing = Listing { entries: Vec::new(), room: 2 * 32 + 10, plus: false };
        assert!(listing.push(dot(InodeNumber(1), AFTER_SELF, b".")));
        assert!(listing.push(dot(InodeNumber(1), AFTER_PARENT, b"..")));
        assert!(!listing.push(dot(InodeNumber(1), 16, b"more")));
        assert_eq!((listing.entries.len(), listing.room), (2, 10));
    }
}
