//! Owned, page-aligned memory for everything that moves: disk transfers and bulk data of frames.
//!
//! Invariant: every byte up to `capacity` is initialised (fresh memory comes zeroed from the
//! kernel, recycled memory keeps its old bytes), so lengths may be set freely without undefined
//! behaviour and a buffer handed to a read is never zeroed first. Memory is recycled per thread;
//! a buffer that crosses threads joins the pool of the thread that drops it.

mod pool;

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

pub use pool::{BUFFER_ALIGNMENT, POOLED_CAPACITY_MAX};

/// An owned, growable run of bytes at a page boundary. Not `Clone`: bytes have one owner.
pub struct Buffer {
    pointer: NonNull<u8>,
    capacity: usize,
    len: usize,
}

// SAFETY: a buffer owns its memory alone and has no ties to the thread that allocated it; the
// pool it returns to is that of the dropping thread.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer can only be read.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer with room for at least `capacity` bytes. They are not zeroed.
    pub fn with_capacity(capacity: usize) -> Buffer {
        let (pointer, capacity) = pool::take(capacity);
        Buffer { pointer, capacity, len: 0 }
    }

    /// A buffer of `len` zeros.
    pub fn zeroed(len: usize) -> Buffer {
        let mut buffer = Buffer::with_capacity(len);
        buffer.resize(len, 0);
        buffer
    }

    /// A buffer with a copy of `bytes`.
    pub fn from_slice(bytes: &[u8]) -> Buffer {
        let mut buffer = Buffer::with_capacity(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// How long it can become without moving.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is zero.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sets the length to `len`. Bytes that come into view hold whatever this memory held last,
    /// so use it only where they have been, or are about to be, overwritten.
    ///
    /// # Panics
    /// When `len` exceeds the capacity.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length beyond the capacity of a buffer");
        self.len = len;
    }

    /// Sets the length to `len`; bytes that come into view are set to `value`.
    pub fn resize(&mut self, len: usize, value: u8) {
        self.reserve(len.saturating_sub(self.len));
        let old = self.len;
        self.len = len;
        if len > old {
            self[old..].fill(value);
        }
    }

    /// Shortens to `len` bytes; no effect when it is shorter already.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Appends `bytes`, moving to larger memory where needed.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        let old = self.len;
        self.len += bytes.len();
        self[old..].copy_from_slice(bytes);
    }

    /// Makes room for `additional` more bytes, at least doubling where it must move.
    pub fn reserve(&mut self, additional: usize) {
        let needed = self.len.checked_add(additional).expect("length of a buffer overflows");
        if needed <= self.capacity {
            return;
        }
        let mut larger = Buffer::with_capacity(needed.max(self.capacity.saturating_mul(2)));
        larger.len = self.len;
        larger.copy_from_slice(self);
        *self = larger;
    }

    /// Ends writing: the bytes become shareable.
    pub fn freeze(self) -> Slice {
        Slice::from(self)
    }

    /// Where the memory starts, for the kernel to write to; valid for `capacity` bytes.
    pub(crate) fn as_mut_pointer(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: pointer and capacity came from `pool::take` and nothing else refers to them.
        unsafe { pool::give(self.pointer, self.capacity) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` <= `capacity` bytes are owned and initialised (module invariant).
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len, self.capacity)
    }
}

/// A read-only range of a frozen [`Buffer`]; clones share the bytes.
#[derive(Clone)]
pub struct Slice {
    /// `None` only for slices made by [`Slice::empty`].
    buffer: Option<Rc<Buffer>>,
    start: usize,
    end: usize,
}

impl Slice {
    /// No bytes.
    pub fn empty() -> Slice {
        Slice { buffer: None, start: 0, end: 0 }
    }

    /// The part of this slice that `range` names.
    ///
    /// # Panics
    /// When `range` does not lie within the slice.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len(), "range beyond the slice");
        Slice {
            buffer: self.buffer.clone(),
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer itself again, if this slice is all of it and nobody shares it.
    pub fn try_into_buffer(self) -> Result<Buffer, Slice> {
        let Slice { buffer, start, end } = self;
        let Some(buffer) = buffer else {
            return Ok(Buffer::with_capacity(0));
        };
        if start != 0 || end != buffer.len() {
            return Err(Slice { buffer: Some(buffer), start, end });
        }
        Rc::try_unwrap(buffer).map_err(|buffer| Slice { buffer: Some(buffer), start, end })
    }
}

impl Default for Slice {
    fn default() -> Self {
        Slice::empty()
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer[self.start..self.end],
            None => &[],
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Buffer> for Slice {
    fn from(buffer: Buffer) -> Self {
        let end = buffer.len();
        Slice { buffer: Some(Rc::new(buffer)), start: 0, end }
    }
}

impl From<Vec<u8>> for Slice {
    fn from(bytes: Vec<u8>) -> Self {
        Buffer::from_slice(&bytes).freeze()
    }
}

impl From<&[u8]> for Slice {
    fn from(bytes: &[u8]) -> Self {
        Buffer::from_slice(bytes).freeze()
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Slice {}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_grow() {
        for capacity in [0, 1, 4096, 5000, 1 << 20, (8 << 20) + 1] {
            let buffer = Buffer::with_capacity(capacity);
            assert!(buffer.capacity() >= capacity && buffer.is_empty());
            assert_eq!(buffer.pointer.as_ptr() as usize % BUFFER_ALIGNMENT, 0);
        }
        let mut buffer = Buffer::from_slice(b"ring");
        buffer.resize(6000, 7);
        buffer.extend_from_slice(&[8; 3000]);
        assert_eq!(&buffer[..5], b"ring\x07");
        assert!(buffer[4..6000].iter().all(|b| *b == 7) && buffer[6000..] == [8; 3000]);
        buffer.truncate(2);
        assert_eq!(&*buffer, b"ri");
    }

    #[test]
    fn zeroed_memory_is_zero_after_recycling() {
        drop({
            let mut buffer = Buffer::with_capacity(4096);
            buffer.resize(4096, 0xff);
            buffer
        });
        assert!(Buffer::zeroed(4096).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn slices_share_and_give_back() {
        let slice = Buffer::from_slice(b"segment").freeze();
        let part = slice.slice(3..6);
        assert_eq!(&*part, b"men");
        assert_eq!(&*part.slice(1..2), b"e");
        let slice = slice.try_into_buffer().expect_err("shared");
        let part = part.try_into_buffer().expect_err("shared");
        drop(slice);
        let part = part.try_into_buffer().expect_err("only a part");
        drop(part);
        let whole = Slice::from(b"whole".to_vec());
        assert_eq!(&*whole.try_into_buffer().expect("whole and unique"), b"whole");
        assert!(Slice::empty().try_into_buffer().expect("nothing").is_empty());
    }
}
