//! Canaries: a word of its own in every database's rows, and whoever else sees one has seen a leak.
//!
//! A load that is as mixed as clients can make it, all of it from one seed: `population.rs` has the
//! databases, their keys, batons, and what is left of those that were dropped; `traffic.rs` invents the next
//! request; `line.rs` is a connection with several databases' requests on their way at a time; `watch.rs`
//! looks through every byte that comes back. `scenario/canary.rs` runs them.
//!
//! Pure but for `line.rs`: the order in which answers arrive, and so the choice of what follows, is the
//! kernel's.

pub mod line;
pub mod population;
pub mod traffic;
pub mod watch;

use super::mix;

/// A source of choices: the same seed gives the same ones.
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The one of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        Chance { state: mix(seed ^ 0x6361_6e61_7279) }
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0);
        self.state = self.state.wrapping_add(1);
        (mix(self.state) % bound as u64) as usize
    }

    /// True once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// One of a list.
    ///
    /// # Panics
    /// If it is empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}
