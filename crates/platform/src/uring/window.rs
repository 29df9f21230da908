//! Parts of buffers as the ring wants them.

use std::mem::MaybeUninit;
use std::ops::Range;

use compio::buf::{IoBuf, IoBufMut, SetLen};

use crate::{Buffer, Slice};

/// A range of a buffer that the kernel may write to.
pub(super) struct Window {
    pub(super) buffer: Buffer,
    range: Range<usize>,
}

impl Window {
    /// # Panics
    /// When `range` does not lie within the capacity of `buffer`.
    pub(super) fn new(buffer: Buffer, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= buffer.capacity(), "window too large");
        Window { buffer, range }
    }
}

impl IoBuf for Window {
    fn as_init(&self) -> &[u8] {
        &[]
    }
}

impl SetLen for Window {
    unsafe fn set_len(&mut self, _len: usize) {
        // Whoever made the window knows where it lies and sets the buffer's length.
    }
}

impl IoBufMut for Window {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let start = self.buffer.as_mut_pointer().wrapping_add(self.range.start);
        // SAFETY: the range lies within the capacity (checked in `new`, and a buffer never
        // shrinks), the buffer owns that memory, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), self.range.len()) }
    }
}

impl IoBuf for Slice {
    fn as_init(&self) -> &[u8] {
        self
    }
}
