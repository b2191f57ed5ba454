//! A small source of numbers for fuzzers: splitmix64 on a counter.

use crate::draws::splitmix;

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// From the start of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random { state: splitmix(seed) }
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(1);
        splitmix(self.state)
    }

    /// A number under `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// As [`Random::below`], for lengths and indexes.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// True once in so many times.
    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// One of some.
    pub fn pick<'t, T: ?Sized>(&mut self, items: &[&'t T]) -> &'t T {
        items[self.index(items.len())]
    }

    /// A number of which small and large are both frequent.
    pub fn size(&mut self, bits_max: u64) -> u64 {
        let bits = self.below(bits_max + 1);
        if bits == 0 { 0 } else { self.bits() >> (64 - bits) }
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits() as u8).collect()
    }
}
