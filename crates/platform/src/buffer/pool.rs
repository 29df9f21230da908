//! Recycled memory, per thread and size class.
//!
//! Invariant: all memory handed out is page-aligned and initialised; each class keeps a bounded
//! number of bytes. Larger than the largest class is mapped and unmapped each time.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

/// Alignment of every buffer: one page, as direct I/O wants it.
pub const BUFFER_ALIGNMENT: usize = 4096;
/// The largest capacity that is recycled.
pub const POOLED_CAPACITY_MAX: usize = 8 << 20;
/// From this capacity on memory comes straight from the kernel, which hands out zero pages
/// lazily; smaller sizes would waste a system call each.
const MAPPED_CAPACITY_MIN: usize = 128 << 10;
/// Classes are powers of two from one page to `POOLED_CAPACITY_MAX`.
const CLASS_COUNT: usize = (POOLED_CAPACITY_MAX / BUFFER_ALIGNMENT).ilog2() as usize + 1;
/// What one class keeps per thread, so a thread at rest holds at most 12 times this.
const CLASS_BYTES_MAX: usize = 16 << 20;

struct Pool {
    classes: [Vec<NonNull<u8>>; CLASS_COUNT],
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (class, buffers) in self.classes.iter_mut().enumerate() {
            for pointer in buffers.drain(..) {
                // SAFETY: pooled memory was allocated with the capacity of its class.
                unsafe { release(pointer, class_capacity(class)) }
            }
        }
    }
}

thread_local! {
    static POOL: RefCell<Pool> =
        const { RefCell::new(Pool { classes: [const { Vec::new() }; CLASS_COUNT] }) };
}

const fn class_capacity(class: usize) -> usize {
    BUFFER_ALIGNMENT << class
}

/// The class whose capacity is exactly `capacity`; capacities are rounded up before.
fn class_of(capacity: usize) -> Option<usize> {
    debug_assert!(capacity >= BUFFER_ALIGNMENT);
    (capacity <= POOLED_CAPACITY_MAX).then(|| (capacity / BUFFER_ALIGNMENT).ilog2() as usize)
}

/// Memory for at least `wanted` bytes, and its real capacity.
pub(super) fn take(wanted: usize) -> (NonNull<u8>, usize) {
    let capacity = if wanted <= POOLED_CAPACITY_MAX {
        wanted.max(BUFFER_ALIGNMENT).next_power_of_two()
    } else {
        wanted.checked_next_multiple_of(BUFFER_ALIGNMENT).expect("capacity of a buffer overflows")
    };
    let recycled = class_of(capacity).and_then(|class| {
        POOL.try_with(|pool| pool.borrow_mut().classes[class].pop()).ok().flatten()
    });
    (recycled.unwrap_or_else(|| allocate(capacity)), capacity)
}

/// Takes memory back.
///
/// # Safety
/// `pointer` and `capacity` came from [`take`] and are not used afterwards.
pub(super) unsafe fn give(pointer: NonNull<u8>, capacity: usize) {
    let kept = class_of(capacity).is_some_and(|class| {
        POOL.try_with(|pool| {
            let buffers = &mut pool.borrow_mut().classes[class];
            let room = (buffers.len() + 1) * capacity <= CLASS_BYTES_MAX;
            if room {
                buffers.push(pointer);
            }
            room
        })
        .unwrap_or(false)
    });
    if !kept {
        // SAFETY: the caller gives up the memory and the pool did not keep it.
        unsafe { release(pointer, capacity) }
    }
}

fn layout(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, BUFFER_ALIGNMENT).expect("capacity of a buffer overflows")
}

fn allocate(capacity: usize) -> NonNull<u8> {
    let layout = layout(capacity);
    let pointer = if capacity >= MAPPED_CAPACITY_MIN {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping touches no existing memory.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), capacity, access, flags, -1, 0) };
        if mapped == libc::MAP_FAILED { std::ptr::null_mut() } else { mapped.cast() }
    } else {
        // SAFETY: the layout has a size above zero, as capacities are at least a page.
        unsafe { alloc_zeroed(layout) }
    };
    NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Returns memory to where [`allocate`] got it.
///
/// # Safety
/// `pointer` came from `allocate(capacity)` and is not used afterwards.
unsafe fn release(pointer: NonNull<u8>, capacity: usize) {
    if capacity >= MAPPED_CAPACITY_MIN {
        // SAFETY: this mapping of `capacity` bytes was made by `allocate`.
        unsafe { libc::munmap(pointer.as_ptr().cast(), capacity) };
    } else {
        // SAFETY: allocated by `allocate` with the same layout.
        unsafe { dealloc(pointer.as_ptr(), layout(capacity)) }
    }
}
