//! Writing: chunks first, then the head, then size and times.
//!
//! Invariant: a write has returned only when its data is at the owners, and size and times are at
//! the home. After the last of its chunks the home has confirmed the generation they were written
//! under, and a size that covers them.
//! A write whose generation has passed is done again as a whole. All pieces have come to an end,
//! well or not, before the write goes on: no piece of a write that failed can overwrite a later
//! one. What a failed write left beyond the size is cut off before the error is returned.

use std::ops::Range;
use std::rc::Rc;

use futures_util::{StreamExt, stream};
use ringfs_platform::Slice;
use ringfs_wire::{
    Append, Attributes, ChunkWrite, ChunkWriteExtend, DiscardTail, Errno, Extend, HEAD_SIZE,
    HeadWrite, MAX_BULK_LEN, Reserve, Status,
};

use crate::client::Deadline;
use crate::error::ClientError;
use crate::file::{FileState, OpenFile};
use crate::mutations::is_defective;
use crate::stripe::{chunk_part, head_part, pieces, reach_wanted};

impl OpenFile {
    /// Writes all of `data` at `offset`, or at the end if the file was opened for appending.
    pub async fn write(&self, offset: u64, data: impl Into<Slice>) -> Result<(), ClientError> {
        let data = data.into();
        if self.mode().append {
            return self.append(data).await.map(drop);
        }
        self.write_at(offset, data, false).await
    }

    /// Writes dirty pages at `offset`. Other mounts are asked to drop what they cache of the file
    /// but not waited for, since each may have dirty pages of it as well; [`OpenFile::sync`]
    /// waits for them.
    pub async fn write_back(&self, offset: u64, data: impl Into<Slice>) -> Result<(), ClientError> {
        self.write_at(offset, data.into(), true).await
    }

    async fn write_at(&self, offset: u64, data: Slice, lazy: bool) -> Result<(), ClientError> {
        let result = async {
            self.check_write()?;
            if data.is_empty() {
                return write_range(&self.file, offset, &data, lazy).await;
            }
            self.file.changing(write_range(&self.file, offset, &data, lazy)).await
        };
        result.await.map_err(|error| self.explain(error, "write"))
    }

    /// Appends `data`, and tells where it begins. Up to 8 MiB go as one piece that no other
    /// append can split; more go as several.
    pub async fn append(&self, data: impl Into<Slice>) -> Result<u64, ClientError> {
        let data = data.into();
        let result = async {
            self.check_write()?;
            if data.is_empty() {
                return append_all(&self.file, &data).await;
            }
            self.file.changing(append_all(&self.file, &data)).await
        };
        result.await.map_err(|error| self.explain(error, "append to"))
    }
}

async fn append_all(file: &Rc<FileState>, data: &Slice) -> Result<u64, ClientError> {
    let mut first = None;
    let mut start = 0;
    while start < data.len() {
        let end = data.len().min(start + MAX_BULK_LEN);
        let request = Append { inode: file.inode() };
        let deadline = file.client.deadline();
        let response = file.call(&request, Some(data.slice(start..end)), deadline).await?;
        let unsynced = &file.client.shared.unsynced;
        response.reply.owners.iter().for_each(|owner| unsynced.changed(file.inode(), *owner));
        file.accept(&response.reply.attributes)?;
        first.get_or_insert(response.reply.offset);
        start = end;
    }
    Ok(first.unwrap_or_else(|| file.attributes().size))
}

async fn write_range(
    file: &Rc<FileState>,
    offset: u64,
    data: &Slice,
    lazy: bool,
) -> Result<(), ClientError> {
    let end = offset.checked_add(data.len() as u64).filter(|end| *end <= i64::MAX as u64);
    let end = end.ok_or(Errno::EFBIG)?;
    if data.is_empty() {
        return Ok(());
    }
    let range = offset..end;
    let deadline = file.client.deadline();
    let known = file.attributes().clone();
    let defects = file.client.shared.options;
    let write = async |known: &Attributes| {
        if is_defective!(defects, size_before_data) && range.end > known.size {
            reserve(file, range.end, deadline).await?;
            extend(file, known, range.end, deadline).await?;
        }
        let confirmed = write_once(file, &range, data, known, lazy, deadline).await?;
        // The home has checked the generation with the head already.
        if is_defective!(defects, skip_overwrite_times) && range.end <= known.size {
            return Ok(());
        }
        match confirmed < range.end {
            true if lazy => extend_lazily(file, known, range.end, deadline).await,
            true => extend(file, known, range.end, deadline).await,
            false => Ok(()),
        }
    };
    until_current(file, &range, known, deadline, write).await
}

/// Carries out a change of `range` with the attributes known, again with newer ones for as long as
/// they turn out to be old. What a failure leaves beyond the size is cut off.
pub(crate) async fn until_current(
    file: &Rc<FileState>,
    range: &Range<u64>,
    mut known: Attributes,
    deadline: Deadline,
    change: impl AsyncFn(&Attributes) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let mut attempt = 0;
    loop {
        match change(&known).await {
            Err(error) if error.is_stale() => {
                let again = async {
                    file.client.back_off(attempt, deadline, Status::Busy).await?;
                    file.refresh_stale(deadline).await
                };
                known = match again.await {
                    Ok(now) => now,
                    Err(error) => {
                        discard_tail(file, range, &error, deadline).await;
                        return Err(error);
                    }
                };
                attempt += 1;
            }
            Err(error) => {
                discard_tail(file, range, &error, deadline).await;
                return Err(error);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// One attempt to place the bytes, under the generation known now. Gives the size that the home
/// has confirmed with the head.
async fn write_once(
    file: &Rc<FileState>,
    range: &Range<u64>,
    data: &Slice,
    known: &Attributes,
    lazy: bool,
    deadline: Deadline,
) -> Result<u64, ClientError> {
    let part = |part: Range<u64>| {
        data.slice((part.start - range.start) as usize..(part.end - range.start) as usize)
    };
    let chunks = chunk_part(range);
    if !chunks.is_empty() {
        reserve(file, range.end, deadline).await?;
        if is_at_home(file, range, known) {
            return write_at_home(file, range, data, known, lazy, deadline).await;
        }
        let slice = part(chunks.clone());
        write_chunks(file, chunks.clone(), &slice, known, deadline).await?;
    }
    let head = head_part(range);
    let mut confirmed = 0;
    if !head.is_empty() {
        let (inode, generation) = (known.inode, known.generation);
        let offset = head.start;
        let request = |allocated| HeadWrite { inode, generation, offset, lazy, allocated };
        confirmed = file.report(request, Some(part(head)), deadline).await?.size;
    }
    Ok(confirmed)
}

/// Whether all of a range is one piece of a chunk that the file's home owns.
fn is_at_home(file: &FileState, range: &Range<u64>, known: &Attributes) -> bool {
    let chunk_size = u64::from(known.chunk_size);
    let index = range.start / chunk_size;
    let is_piece = range.start >= HEAD_SIZE
        && index == (range.end - 1) / chunk_size
        && range.end - range.start <= MAX_BULK_LEN as u64;
    let map = file.client.map();
    is_piece && map.chunk_owner(known.inode, index) == map.home(known.inode)
}

/// The same where one request does for data and size.
async fn write_at_home(
    file: &FileState,
    range: &Range<u64>,
    data: &Slice,
    known: &Attributes,
    lazy: bool,
    deadline: Deadline,
) -> Result<u64, ClientError> {
    let Attributes { inode, generation, chunk_size, size, .. } = *known;
    let (offset, overwrite) = (range.start, range.end <= size);
    let request = |allocated| ChunkWriteExtend {
        inode,
        generation,
        chunk_size,
        offset,
        overwrite,
        lazy,
        allocated,
    };
    Ok(file.report(request, Some(data.clone()), deadline).await?.size)
}

/// Announces writes up to `end` and further, unless that has been done.
pub(crate) async fn reserve(
    file: &FileState,
    end: u64,
    deadline: Deadline,
) -> Result<(), ClientError> {
    if end <= file.attributes().reach {
        return Ok(());
    }
    let _guard = file.reserving.lock().await;
    let (known, chunk_size) = (file.attributes().reach, file.attributes().chunk_size);
    if end <= known {
        return Ok(());
    }
    let request = Reserve { inode: file.inode(), reach: reach_wanted(end, known, chunk_size) };
    let response = file.call(&request, None, deadline).await?;
    file.accept(&response.reply)?;
    if response.reply.reach < end {
        let home = file.session()?.home(file.inode());
        return Err(ClientError::protocol(home, "a reservation that falls short"));
    }
    Ok(())
}

/// Writes all pieces and waits for every one of them.
async fn write_chunks(
    file: &Rc<FileState>,
    range: Range<u64>,
    data: &Slice,
    known: &Attributes,
    deadline: Deadline,
) -> Result<(), ClientError> {
    let (inode, generation, chunk_size) = (known.inode, known.generation, known.chunk_size);
    let parallel = file.client.shared.options.parallel_chunks.max(1);
    let session = &file.session()?;
    let start = range.start;
    let calls = pieces(range, chunk_size).map(|piece| async move {
        let bulk = data.slice((piece.start - start) as usize..(piece.end - start) as usize);
        let request = ChunkWrite { inode, generation, chunk_size, offset: piece.start };
        let index = piece.start / u64::from(chunk_size);
        file.client
            .call_placed(
                session,
                |map| map.chunk_owner(inode, index),
                &request,
                Some(bulk),
                deadline,
            )
            .await
            .map(|response| file.note_chunks(&response))
    });
    let mut calls = stream::iter(calls).buffer_unordered(parallel);
    let mut failure: Option<ClientError> = None;
    while let Some(result) = calls.next().await {
        if let Err(error) = result {
            // Any other failure will be met again when the write is done again.
            if failure.as_ref().is_none_or(|_| error.is_stale()) {
                failure = Some(error);
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Tells the home that data is written up to `end`. One request is under way per file. It carries
/// the highest end there is, so that whoever waited for it need not send one, if it was begun
/// after their data was written.
pub(crate) async fn extend(
    file: &FileState,
    known: &Attributes,
    end: u64,
    deadline: Deadline,
) -> Result<(), ClientError> {
    let extension = &file.extension;
    let generation = known.generation;
    extension.add_pending(generation, end);
    let begun_before = extension.begun.get();
    let _guard = extension.sending.lock().await;
    let (number, told_under, told) = extension.told.get();
    if number > begun_before && told_under == generation && told >= end {
        return Ok(());
    }
    // Taken, so that an end that is refused now is not told again by somebody else.
    let (pending_under, pending) = extension.pending.take();
    let end = if pending_under == generation { pending.max(end) } else { end };
    let number = extension.begun.get() + 1;
    extension.begun.set(number);
    let overwrite = end <= known.size;
    let inode = file.inode();
    let request = |allocated| Extend { inode, generation, end, overwrite, lazy: false, allocated };
    let attributes = file.report(request, None, deadline).await?;
    extension.told.set((number, generation, attributes.size));
    Ok(())
}

/// As [`extend`], for a lazy write: nobody else may count on it.
async fn extend_lazily(
    file: &FileState,
    known: &Attributes,
    end: u64,
    deadline: Deadline,
) -> Result<(), ClientError> {
    let (inode, generation) = (file.inode(), known.generation);
    let overwrite = end <= known.size;
    let request = |allocated| Extend { inode, generation, end, overwrite, lazy: true, allocated };
    file.report(request, None, deadline).await.map(drop)
}

/// After a write failed for `error`: what it left beyond the size goes. When that cannot be done
/// in time it goes on in the background, as far as it can.
async fn discard_tail(
    file: &Rc<FileState>,
    range: &Range<u64>,
    error: &ClientError,
    deadline: Deadline,
) {
    let known = file.attributes().size;
    if chunk_part(range).is_empty() || range.end <= known {
        return;
    }
    if matches!(error, ClientError::Unreachable { .. }) {
        let file = file.clone();
        file.client.shared.platform.clone().spawn(async move {
            discard(&file, file.client.deadline()).await;
        });
    } else {
        discard(file, deadline).await;
    }
}

async fn discard(file: &FileState, deadline: Deadline) {
    let inode = file.inode();
    let request = |allocated| DiscardTail { inode, allocated };
    if let Err(error) = file.report(request, None, deadline).await {
        tracing::warn!(%error, "the rest of a failed write was not cut off");
    }
}
