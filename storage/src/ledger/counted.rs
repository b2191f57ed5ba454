//! What this thread's allocators hold, counted where they ask the system for memory: the other side of
//! the books. Nothing here knows of accounts.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static COUNTED: Cell<u64> = const { Cell::new(0) };
}

/// Bytes held now.
pub(super) fn bytes() -> u64 {
    COUNTED.get()
}

/// Memory was taken from the system.
#[inline]
pub(crate) fn count_taken(bytes: usize) {
    COUNTED.set(COUNTED.get() + bytes as u64);
}

/// Memory was given back to the system.
#[inline]
pub(crate) fn count_given(bytes: usize) {
    COUNTED.set(COUNTED.get() - bytes as u64);
}

/// Memory of storage's own, counted for as long as it lives; booking it is its owner's part.
#[derive(Debug)]
pub(crate) struct Counted<T>(Box<[T]>);

impl<T: Clone> Counted<T> {
    /// `count` times the same value.
    pub(crate) fn new(value: T, count: usize) -> Counted<T> {
        count_taken(count * size_of::<T>());
        Counted(vec![value; count].into_boxed_slice())
    }
}

impl<T> Deref for Counted<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Counted<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        count_given(size_of_val(&*self.0));
    }
}
