//! Holes and reserved space: finding data, punching, zeroing, allocating.
//!
//! Invariant: as for a write, chunks are changed under a content generation, then the home is told,
//! which confirms generation and size and moves the times. Where data lies is asked of the home
//! and of every owner in the course of the call; data is never called a hole.

use std::ops::Range;
use std::rc::Rc;

use ringfs_wire::{
    ALLOCATE_CHUNKS_MAX, Attributes, ChunkAllocate, ChunkExtents, ChunkPunch, Errno, Extent,
    HEAD_SIZE, HeadAllocate, HeadPunch, Status,
};

use crate::client::Deadline;
use crate::error::ClientError;
use crate::file::{FileState, OpenFile};
use crate::stripe::{chunk_part, head_part};
use crate::write::{extend, reserve, until_current};

/// Extents asked of each target at a time in search of a hole.
const EXTENTS_PER_REQUEST: u32 = 1_024;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Data,
    Hole,
}

impl OpenFile {
    /// The first byte at or after `offset` that may be something else than a hole; `ENXIO` if
    /// there is none below the size.
    pub async fn seek_data(&self, offset: u64) -> Result<u64, ClientError> {
        let found = seek(&self.file, offset, Wanted::Data).await;
        found.map_err(|error| self.explain(error, "seek in"))
    }

    /// The first byte at or after `offset` that lies in a hole; the end of the file counts as one.
    /// `ENXIO` if `offset` is not below the size.
    pub async fn seek_hole(&self, offset: u64) -> Result<u64, ClientError> {
        let found = seek(&self.file, offset, Wanted::Hole).await;
        found.map_err(|error| self.explain(error, "seek in"))
    }

    /// Makes a range a hole: it reads as zeros and takes no space. The size stays.
    pub async fn punch(&self, range: Range<u64>) -> Result<(), ClientError> {
        let result = async {
            self.check_write()?;
            check_range(&range)?;
            let deadline = self.file.client.deadline();
            self.file.changing(punch(&self.file, &range, deadline)).await
        };
        result.await.map_err(|error| self.explain(error, "punch a hole into"))
    }

    /// Makes a range zeros with space reserved for it. The file extends to its end, unless
    /// `keep_size`.
    pub async fn zero(&self, range: Range<u64>, keep_size: bool) -> Result<(), ClientError> {
        let result = async {
            self.check_write()?;
            check_range(&range)?;
            let deadline = self.file.client.deadline();
            let change = async {
                punch(&self.file, &range, deadline).await?;
                allocate(&self.file, &range, keep_size, deadline).await
            };
            self.file.changing(change).await
        };
        result.await.map_err(|error| self.explain(error, "zero a range of"))
    }

    /// Reserves space for a range; bytes stay as they are. The file extends to its end, unless
    /// `keep_size`.
    pub async fn allocate(&self, range: Range<u64>, keep_size: bool) -> Result<(), ClientError> {
        let result = async {
            self.check_write()?;
            check_range(&range)?;
            let deadline = self.file.client.deadline();
            self.file.changing(allocate(&self.file, &range, keep_size, deadline)).await
        };
        result.await.map_err(|error| self.explain(error, "allocate space for"))
    }
}

fn check_range(range: &Range<u64>) -> Result<(), Errno> {
    if range.is_empty() {
        return Err(Errno::EINVAL);
    }
    if range.end > i64::MAX as u64 { Err(Errno::EFBIG) } else { Ok(()) }
}

async fn seek(file: &Rc<FileState>, offset: u64, wanted: Wanted) -> Result<u64, ClientError> {
    let deadline = file.client.deadline();
    let mut attempt = 0;
    loop {
        // One byte tells whether there is a head at all.
        let (now, head) = file.read_head(0, 1, false, deadline).await?;
        if offset >= now.size {
            return Err(Errno::ENXIO.into());
        }
        let head = head.is_some_and(|bulk| !bulk.is_empty());
        let found = match boundary_in_head(&now, head, offset, wanted) {
            Some(found) => Ok(found),
            None => seek_chunks(file, &now, offset.max(HEAD_SIZE), wanted, deadline).await,
        };
        match found {
            Ok(found) if found < now.size => return Ok(found),
            Ok(_) if wanted == Wanted::Data => return Err(Errno::ENXIO.into()),
            Ok(_) => return Ok(now.size),
            Err(error) if error.is_stale() => {
                file.client.back_off(attempt, deadline, Status::Busy).await?;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Where it is if the head tells; a place not below the size means nowhere.
fn boundary_in_head(now: &Attributes, head: bool, offset: u64, wanted: Wanted) -> Option<u64> {
    if offset < HEAD_SIZE && head == (wanted == Wanted::Data) {
        return Some(offset);
    }
    (now.size <= HEAD_SIZE).then_some(now.size)
}

async fn seek_chunks(
    file: &Rc<FileState>,
    now: &Attributes,
    offset: u64,
    wanted: Wanted,
    deadline: Deadline,
) -> Result<u64, ClientError> {
    let limit = if wanted == Wanted::Data { 1 } else { EXTENTS_PER_REQUEST };
    let mut at = offset;
    while at < now.size {
        let (extents, until) = extents(file, now, at, limit, deadline).await?;
        match wanted {
            Wanted::Data => {
                if let Some(first) = extents.first() {
                    return Ok(first.start.max(at));
                }
                at = until;
            }
            Wanted::Hole => {
                at = first_gap(&extents, at);
                if at < until {
                    return Ok(at);
                }
            }
        }
    }
    Ok(at)
}

/// Where the data that begins at `at` ends: there, if none begins there.
fn first_gap(extents: &[Extent], at: u64) -> u64 {
    extents.iter().fold(at, |at, extent| if extent.start <= at { at.max(extent.end) } else { at })
}

/// Where all owners together have data from `from` on, ascending, and up to where that is known.
async fn extents(
    file: &FileState,
    now: &Attributes,
    from: u64,
    limit: u32,
    deadline: Deadline,
) -> Result<(Vec<Extent>, u64), ClientError> {
    let request = ChunkExtents {
        inode: now.inode,
        generation: now.generation,
        chunk_size: now.chunk_size,
        offset: from,
        limit,
    };
    // Beyond the reach nobody has written anything.
    let owners = file.owners(from..now.size.min(now.reach));
    let replies = file.call_owners(&owners, &request, deadline).await?;
    let until = replies.iter().map(|reply| reply.until).min().unwrap_or(u64::MAX);
    if until <= from {
        let home = file.session()?.home(now.inode);
        return Err(ClientError::protocol(home, "a list of extents that ends where it begins"));
    }
    let mut extents: Vec<Extent> = replies
        .into_iter()
        .flat_map(|reply| reply.extents)
        .filter(|extent| extent.start < until && extent.end > from)
        .map(|extent| Extent { start: extent.start, end: extent.end.min(until) })
        .collect();
    extents.sort_unstable_by_key(|extent| extent.start);
    Ok((extents, until))
}

async fn punch(
    file: &Rc<FileState>,
    range: &Range<u64>,
    deadline: Deadline,
) -> Result<(), ClientError> {
    let known = file.refresh(deadline).await?;
    // Nothing is left beyond the size by a punch that fails.
    let nothing = 0..0;
    let change = async |known: &Attributes| punch_once(file, range, known, deadline).await;
    until_current(file, &nothing, known, deadline, change).await
}

async fn punch_once(
    file: &Rc<FileState>,
    range: &Range<u64>,
    known: &Attributes,
    deadline: Deadline,
) -> Result<(), ClientError> {
    let range = range.start..range.end.min(known.size);
    if range.is_empty() {
        // Only the times move.
        return extend(file, known, known.size, deadline).await;
    }
    let Attributes { inode, generation, chunk_size, .. } = *known;
    // Beyond the reach nobody has written anything.
    let written = range.start..range.end.min(known.reach);
    for Range { start, end } in windows(chunk_part(&written), chunk_size) {
        let request = ChunkPunch { inode, generation, chunk_size, start, end };
        file.change_owners(&file.owners(start..end), &request, deadline).await?;
    }
    let head = head_part(&range);
    if head.is_empty() {
        return extend(file, known, range.end, deadline).await;
    }
    let Range { start, end } = head;
    let request = |allocated| HeadPunch { inode, generation, start, end, allocated };
    file.report(request, None, deadline).await.map(drop)
}

async fn allocate(
    file: &Rc<FileState>,
    range: &Range<u64>,
    keep_size: bool,
    deadline: Deadline,
) -> Result<(), ClientError> {
    let known = file.refresh(deadline).await?;
    let change =
        async |known: &Attributes| allocate_once(file, range, keep_size, known, deadline).await;
    until_current(file, range, known, deadline, change).await
}

async fn allocate_once(
    file: &Rc<FileState>,
    range: &Range<u64>,
    keep_size: bool,
    known: &Attributes,
    deadline: Deadline,
) -> Result<(), ClientError> {
    let Attributes { inode, generation, chunk_size, .. } = *known;
    let (head, chunks) = (head_part(range), chunk_part(range));
    if !head.is_empty() {
        let request = HeadAllocate { inode, generation, end: head.end };
        let response = file.call(&request, None, deadline).await?;
        file.accept(&response.reply)?;
    }
    if !chunks.is_empty() {
        reserve(file, range.end, deadline).await?;
    }
    for Range { start, end } in windows(chunks, chunk_size) {
        let request = ChunkAllocate { inode, generation, chunk_size, start, end };
        file.change_owners(&file.owners(start..end), &request, deadline).await?;
    }
    let end = if keep_size { range.end.min(known.size) } else { range.end };
    extend(file, known, end, deadline).await
}

/// `range` in parts of as many chunks as one request may span.
fn windows(range: Range<u64>, chunk_size: u32) -> impl Iterator<Item = Range<u64>> {
    let window = u64::from(chunk_size) * ALLOCATE_CHUNKS_MAX;
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min((start / window + 1).saturating_mul(window));
        let part = start..end;
        start = end;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_found_behind_joined_extents() {
        let check = |extents: &[(u64, u64)], at, expect| {
            let extents: Vec<_> =
                extents.iter().map(|(start, end)| Extent { start: *start, end: *end }).collect();
            assert_eq!(first_gap(&extents, at), expect, "{extents:?} from {at}");
        };
        check(&[], 5, 5);
        check(&[(0, 10), (10, 20), (30, 40)], 5, 20);
        check(&[(0, 10), (4, 8), (9, 12)], 5, 12);
        check(&[(6, 10)], 5, 5);
    }

    #[test]
    fn windows_cover_the_range() {
        let window = ALLOCATE_CHUNKS_MAX << 16;
        let parts: Vec<_> = windows(70_000..2 * window + 1, 1 << 16).collect();
        assert_eq!(parts, [70_000..window, window..2 * window, 2 * window..2 * window + 1]);
        assert_eq!(windows(5..5, 1 << 16).next(), None);
    }
}
