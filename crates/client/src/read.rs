//! Reading: the size and the head from the home, chunks from their owners, at the same time.
//!
//! Invariant: nothing is returned that did not lie below the size at the home at some moment of
//! the call, and every byte below it is as of a moment of the call, per piece. Chunks below a size
//! that the home has called settled are asked without it: an owner knows of every cut since, and
//! refuses. Otherwise chunks are asked
//! in parallel with the home only up to the size known before, under the generation known before;
//! when the home tells of a newer generation they are asked again, and what lies between the old
//! size and the new is asked after it.

use std::ops::Range;
use std::rc::Rc;

use futures_util::future::join;
use futures_util::{StreamExt, TryStreamExt, stream};
use ringfs_platform::{Buffer, Slice};
use ringfs_wire::{Attributes, ChunkRead, HEAD_SIZE, Status};

use crate::client::Deadline;
use crate::error::ClientError;
use crate::file::{FileState, OpenFile};
use crate::stripe::{chunk_part, head_part, pieces};

impl OpenFile {
    /// Up to `len` bytes from `offset`; fewer only where the file ends. Holes are zeros.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Slice, ClientError> {
        let mut slices = self.read_slices(offset, len).await?;
        if slices.len() <= 1 {
            return Ok(slices.pop().unwrap_or_default());
        }
        let mut buffer = Buffer::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        for slice in &slices {
            buffer.extend_from_slice(slice);
        }
        Ok(buffer.freeze())
    }

    /// As [`OpenFile::read_slices`], for a door that keeps what it reads: without a request where
    /// the bytes came with the open and are still true.
    pub async fn read_first(&self, offset: u64, len: usize) -> Result<Vec<Slice>, ClientError> {
        let shared = &self.file.client.shared;
        let cache = shared.cache.as_ref().filter(|_| offset == 0);
        let head = cache.and_then(|c| c.take_head(self.inode(), shared.platform.monotonic()));
        match head.filter(|head| head.bytes().len() <= len) {
            Some(head) => Ok(vec![Slice::from(head.bytes().to_vec())]),
            None => self.read_slices(offset, len).await,
        }
    }

    /// As [`OpenFile::read`], in the pieces the bytes arrived in: nothing is copied.
    pub async fn read_slices(&self, offset: u64, len: usize) -> Result<Vec<Slice>, ClientError> {
        let result = async {
            self.check_read()?;
            let end = offset.saturating_add(len as u64).min(i64::MAX as u64);
            if offset >= end {
                return Ok(Vec::new());
            }
            read_range(&self.file, offset..end, self.touches).await
        };
        result.await.map_err(|error| self.explain(error, "read"))
    }
}

async fn read_range(
    file: &Rc<FileState>,
    range: Range<u64>,
    touch: bool,
) -> Result<Vec<Slice>, ClientError> {
    let deadline = file.client.deadline();
    if let Some(known) = file.settled(&range, touch) {
        match read_chunks(file, range.clone(), &known, deadline).await {
            Err(error) if error.is_stale() => file.unsettle(),
            result => return result,
        }
    }
    let mut attempt = 0;
    loop {
        let known = file.attributes().clone();
        let early = below(chunk_part(&range), known.size);
        let (head, chunks) = join(
            read_head(file, head_part(&range), touch, deadline),
            read_chunks(file, early.clone(), &known, deadline),
        )
        .await;
        let (now, head) = head?;
        // A home that lost power may know less than it told before.
        if now.generation == known.generation && now.size >= early.end.min(known.size) {
            let late = below(chunk_part(&range), now.size);
            let late = late.start.max(early.end)..late.end;
            let result = match chunks {
                Ok(chunks) => {
                    read_chunks(file, late, &now, deadline).await.map(|late| (chunks, late))
                }
                Err(error) => Err(error),
            };
            match result {
                Ok((chunks, late)) => {
                    return Ok(head.into_iter().chain(chunks).chain(late).collect());
                }
                Err(error) if error.is_stale() => {}
                Err(error) => return Err(error),
            }
        }
        file.client.back_off(attempt, deadline, Status::Busy).await?;
        attempt += 1;
    }
}

/// The part of `range` below `size`.
fn below(range: Range<u64>, size: u64) -> Range<u64> {
    range.start..range.end.min(size).max(range.start)
}

/// The attributes of now, and the bytes of `range` below the size, if there are any.
async fn read_head(
    file: &FileState,
    range: Range<u64>,
    touch: bool,
    deadline: Deadline,
) -> Result<(Attributes, Option<Slice>), ClientError> {
    debug_assert!(range.end <= HEAD_SIZE, "heads end at the head size");
    let length = (range.end - range.start) as u32;
    let offset = if length == 0 { 0 } else { range.start };
    let (attributes, bytes) = file.read_head(offset, length, touch, deadline).await?;
    let expected = below(range, attributes.size);
    let bytes = padded(bytes, expected.end - expected.start);
    Ok((attributes, bytes.into_iter().next()))
}

/// The bytes of `range`, which lies in chunks, in order.
async fn read_chunks(
    file: &Rc<FileState>,
    range: Range<u64>,
    attributes: &Attributes,
    deadline: Deadline,
) -> Result<Vec<Slice>, ClientError> {
    let (inode, chunk_size) = (attributes.inode, attributes.chunk_size);
    let parallel = file.client.shared.options.parallel_chunks.max(1);
    let session = &file.session()?;
    let calls = pieces(range, chunk_size).map(|piece| async move {
        let length = piece.end - piece.start;
        let request = ChunkRead {
            inode,
            generation: attributes.generation,
            chunk_size,
            offset: piece.start,
            length: length as u32,
        };
        let index = piece.start / u64::from(chunk_size);
        let response = file
            .client
            .call_placed(session, |map| map.chunk_owner(inode, index), &request, None, deadline)
            .await?;
        Ok::<_, ClientError>(padded(response.bulk, length))
    });
    let found: Vec<Vec<Slice>> = stream::iter(calls).buffered(parallel).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// `bulk` cut or filled up with zeros to `len` bytes; nothing when that is zero.
pub(crate) fn padded(bulk: Option<Slice>, len: u64) -> Vec<Slice> {
    let len = len as usize;
    let bulk = bulk.unwrap_or_default();
    if len == 0 {
        return Vec::new();
    }
    if bulk.len() >= len {
        return vec![bulk.slice(0..len)];
    }
    let mut buffer = match bulk.try_into_buffer() {
        Ok(buffer) => buffer,
        Err(shared) => Buffer::from_slice(&shared),
    };
    buffer.resize(len, 0);
    vec![buffer.freeze()]
}
