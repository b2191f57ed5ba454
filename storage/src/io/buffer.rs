//! One aligned heap block, for direct I/O. The only file of `io` that touches raw memory.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Unit of direct I/O: buffers, offsets and lengths are multiples of it. Also SQLite's page size here.
pub const BLOCK_BYTES: usize = 4096;

/// Bytes aligned to [`BLOCK_BYTES`], with a length that may be set up to the capacity.
pub struct Buffer {
    start: NonNull<u8>,
    length_bytes: usize,
    capacity_bytes: usize,
}

// SAFETY: a Buffer owns its block like a Box<[u8]> does.
unsafe impl Send for Buffer {}

impl Buffer {
    /// A zeroed block of `capacity_bytes`, rounded up to [`BLOCK_BYTES`] (at least one), all of it in use.
    #[must_use]
    pub fn zeroed(capacity_bytes: usize) -> Buffer {
        let capacity_bytes = capacity_bytes.max(1).next_multiple_of(BLOCK_BYTES);
        let layout = Buffer::layout(capacity_bytes);
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout);
        };
        Buffer { start, length_bytes: capacity_bytes, capacity_bytes }
    }

    fn layout(capacity_bytes: usize) -> Layout {
        Layout::from_size_align(capacity_bytes, BLOCK_BYTES).expect("a buffer fits in memory")
    }

    /// Bytes that the block can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity_bytes
    }

    /// Use the first `length_bytes` of the block; what they hold stays as it was.
    ///
    /// # Panics
    /// If that is more than the capacity.
    pub fn set_len(&mut self, length_bytes: usize) {
        assert!(length_bytes <= self.capacity_bytes);
        self.length_bytes = length_bytes;
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the block holds capacity >= length initialised bytes, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length_bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length_bytes) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, and freed once.
        unsafe { dealloc(self.start.as_ptr(), Buffer::layout(self.capacity_bytes)) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.length_bytes, self.capacity_bytes)
    }
}
