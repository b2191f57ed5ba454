//! Draws: every decision of the world, from streams named after what they decide.
//!
//! `draw(stream, entity, n) = splitmix(seed ^ hash(stream, entity) + n)`. A stream is never shared
//! between two questions, so switching a fault off or removing a client leaves the others' draws as
//! they were; that is what makes shrinking by re-running work.

use std::collections::BTreeMap;

/// What a draw decides. The order of the variants is part of every seed: add new ones at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Stream {
    /// Options of a run, before it begins.
    Options = 1,
    /// Bytes handed out by the `Entropy` trait.
    Entropy,
    /// Order of completions that are ready at the same instant.
    Order,
    /// How long a disk operation takes; entity: file.
    DiskLatency,
    /// Whether and how short a disk transfer is; entity: file.
    DiskCount,
    /// Read errors; entity: file.
    ReadFault,
    /// Write errors; entity: file.
    WriteFault,
    /// Sync errors; entity: file.
    SyncFault,
    /// Refusals for lack of space; entity: file.
    SpaceFault,
    /// What of each file a crash keeps; entity: file.
    CrashFile,
    /// Which names a crash keeps.
    CrashNames,
    /// What becomes of operations in flight at a crash.
    CrashInFlight,
    /// How long a packet travels; entity: connection.
    NetworkLatency,
    /// How a stream is cut into segments; entity: connection.
    Segments,
    /// How short a send or receive is; entity: connection.
    NetworkCount,
    /// Properties of a connection; entity: connection.
    Connection,
    /// Errors of accept; entity: listener.
    AcceptFault,
    /// Delay between a socket becoming ready and the completion; entity: connection.
    Readiness,
    /// Delays in the doomed world.
    Doom,
    /// When a crash comes.
    CrashTime,
    /// What a client does; entity: client.
    Workload,
    /// What befalls a segment on its way; entity: connection.
    Weather,
    /// Which connections stand still together, and in which order they go on.
    Swizzle,
    /// When the clocks are disturbed, and how.
    Clock,
    /// What a stranger does; entity: stranger.
    Stranger,
    /// Rot and latent sectors; entity: kind of damage.
    Rot,
    /// Lost writes; entity: file.
    LostWrite,
    /// Misdirected writes; entity: file.
    MisdirectedWrite,
    /// Misdirected reads; entity: file.
    MisdirectedRead,
    /// Errors of opens.
    OpenFault,
    /// Pages that leave the page cache.
    Eviction,
    /// What people do to the server from outside.
    Operator,
    /// Budgets: whether there are any, who changes which, and when.
    Budgets,
    /// Fleet jobs: which, of what, and what is done to them.
    Jobs,
    /// Uploads: whether there are any, which, and when.
    Imports,
    /// Copies: whether there are any, of what, and when.
    Copies,
    /// Databases that end: whether there are any, which, and when.
    Mortals,
    /// Keys: whether anybody is asked for one, and what is done to them.
    Keys,
    /// Templates: whether there are any, which, and what is created of them.
    Casts,
}

/// An inclusive range of whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Smallest value.
    pub low: u64,
    /// Largest value.
    pub high: u64,
}

impl Span {
    /// From `low` to `high`, both possible.
    ///
    /// # Panics
    /// If `low` is larger than `high`.
    #[must_use]
    pub const fn new(low: u64, high: u64) -> Span {
        assert!(low <= high);
        Span { low, high }
    }
}

/// `-ln(1 - (i + 0.5) / 64) * 1024`, rounded: the quantiles of the exponential distribution, so
/// that no float takes part in a decision.
const EXPONENTIAL_QUANTILES: [u64; 64] = [
    8, 24, 41, 58, 75, 92, 110, 128, 146, 165, 184, 203, 223, 243, 263, 284, 305, 327, 349, 372,
    395, 419, 444, 469, 494, 520, 547, 575, 603, 633, 663, 694, 726, 759, 793, 828, 865, 903, 942,
    983, 1026, 1070, 1117, 1166, 1217, 1271, 1328, 1388, 1452, 1520, 1594, 1672, 1758, 1851, 1953,
    2067, 2195, 2342, 2513, 2719, 2976, 3320, 3844, 4968,
];

/// Parts per million: the unit of every rate.
pub const PER_MILLION: u64 = 1_000_000;

/// All streams of one seed, and how far each has been drawn.
#[derive(Clone, Debug)]
pub struct Draws {
    seed: u64,
    counts: BTreeMap<(Stream, u64), u64>,
    total: u64,
}

impl Draws {
    /// The streams of `seed`, none of them drawn yet.
    #[must_use]
    pub fn new(seed: u64) -> Draws {
        Draws { seed, counts: BTreeMap::new(), total: 0 }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Draws made so far, over all streams.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The next 64 bits of a stream.
    pub fn next(&mut self, stream: Stream, entity: u64) -> u64 {
        let count = self.counts.entry((stream, entity)).or_insert(0);
        let drawn = draw(self.seed, stream, entity, *count);
        *count += 1;
        self.total += 1;
        drawn
    }

    /// A number under `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, stream: Stream, entity: u64, bound: u64) -> u64 {
        assert!(bound > 0);
        let product = u128::from(self.next(stream, entity)) * u128::from(bound);
        (product >> 64) as u64
    }

    /// As [`Draws::below`], for lengths and indexes.
    pub fn index(&mut self, stream: Stream, entity: u64, bound: usize) -> usize {
        self.below(stream, entity, bound as u64) as usize
    }

    /// A number of `span`.
    pub fn within(&mut self, stream: Stream, entity: u64, span: Span) -> u64 {
        let width = span.high - span.low;
        if width == u64::MAX {
            return self.next(stream, entity);
        }
        span.low + self.below(stream, entity, width + 1)
    }

    /// Whether something of rate `per_million` happens now. A rate of 0 draws nothing.
    pub fn chance(&mut self, stream: Stream, entity: u64, per_million: u64) -> bool {
        per_million > 0 && self.below(stream, entity, PER_MILLION) < per_million
    }

    /// An exponentially distributed number with the mean `mean`, at most some five times as much.
    pub fn exponential(&mut self, stream: Stream, entity: u64, mean: u64) -> u64 {
        let quantile = EXPONENTIAL_QUANTILES[self.index(stream, entity, 64)];
        (u128::from(mean) * u128::from(quantile) / 1024) as u64
    }

    /// A number of `span` whose logarithm is evenly spread: small and large are both frequent.
    pub fn logarithmic(&mut self, stream: Stream, entity: u64, span: Span) -> u64 {
        let low_bits = 64 - span.low.max(1).leading_zeros();
        let high_bits = 64 - span.high.max(1).leading_zeros();
        let bits_span = Span::new(u64::from(low_bits), u64::from(high_bits));
        let bits = self.within(stream, entity, bits_span);
        let low = (1u64 << (bits - 1)).clamp(span.low, span.high);
        let high = (u64::MAX >> (64 - bits)).clamp(span.low, span.high);
        self.within(stream, entity, Span::new(low, high))
    }

    /// Put `items` into a drawn order.
    pub fn shuffle<T>(&mut self, stream: Stream, entity: u64, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.index(stream, entity, last + 1);
            items.swap(last, other);
        }
    }

    /// Fill `bytes` from a stream.
    pub fn fill(&mut self, stream: Stream, entity: u64, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.next(stream, entity).to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    /// Forget how far the streams of an entity were drawn, once its id can never come again.
    pub fn retire(&mut self, streams: &[Stream], entity: u64) {
        for stream in streams {
            self.counts.remove(&(*stream, entity));
        }
    }
}

/// The `n`th draw of a stream: a pure function of the seed.
#[must_use]
pub fn draw(seed: u64, stream: Stream, entity: u64, n: u64) -> u64 {
    let name = splitmix(splitmix(stream as u64) ^ entity);
    splitmix((splitmix(seed) ^ name).wrapping_add(n.wrapping_mul(GOLDEN_GAMMA)))
}

/// 2^64 divided by the golden ratio, odd: the increment of splitmix64.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
/// generators", OOPSLA 2014, with the constants of Vigna's reference code).
#[must_use]
pub fn splitmix(input: u64) -> u64 {
    let mut z = input.wrapping_add(GOLDEN_GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_matches_the_reference_code() {
        assert_eq!(splitmix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix(GOLDEN_GAMMA), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn one_stream_does_not_move_another() {
        let mut alone = Draws::new(7);
        let mut mixed = Draws::new(7);
        for _ in 0..100 {
            mixed.next(Stream::Order, 0);
            mixed.next(Stream::DiskLatency, 4);
            let expected = alone.next(Stream::DiskLatency, 3);
            assert_eq!(mixed.next(Stream::DiskLatency, 3), expected);
        }
        assert_eq!(alone.total(), 100);
        assert_eq!(mixed.total(), 300);
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_its_ends() {
        let mut draws = Draws::new(1);
        let span = Span::new(3, 6);
        let mut seen = [0u32; 8];
        for _ in 0..400 {
            seen[draws.within(Stream::Workload, 0, span) as usize] += 1;
        }
        assert_eq!(seen[..3], [0, 0, 0]);
        assert!(seen[3..=6].iter().all(|count| *count > 60));
        assert_eq!(seen[7], 0);
        for _ in 0..400 {
            let drawn = draws.logarithmic(Stream::Workload, 1, Span::new(5, 1_000));
            assert!((5..=1_000).contains(&drawn));
        }
    }

    #[test]
    fn the_exponential_table_has_its_mean() {
        let sum: u64 = EXPONENTIAL_QUANTILES.iter().sum();
        let mean = sum / 64;
        assert!((1_000..=1_040).contains(&mean), "mean {mean}");
        assert!(EXPONENTIAL_QUANTILES.is_sorted());
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut draws = Draws::new(2);
        let mut items: Vec<u32> = (0..50).collect();
        draws.shuffle(Stream::Order, 0, &mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<u32>>());
    }
}
