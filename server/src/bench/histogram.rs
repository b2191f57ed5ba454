//! Latencies, counted in buckets of bounded relative width.
//!
//! Owns the counting and the reading of quantiles; knows no clock. The layout follows HDR
//! histograms: every power of two is cut into 64 equal sub-buckets, so a bucket is at most 1/64
//! (1.6 %) of its lowest value wide, and a quantile is read at most that much too high. Values
//! under 64 have a bucket each and are exact.
//!
//! The memory is the same for ten values as for ten billion: (64 - 6 + 1) x 64 = 3,776 counters of
//! 8 bytes, 30 KiB, which cover all of `u64`. So no value is ever clipped or refused.

/// log2 of the sub-buckets in one power of two.
const SUB_BUCKET_BITS: u32 = 6;

/// Sub-buckets in one power of two.
const SUB_BUCKETS: usize = 1 << SUB_BUCKET_BITS;

/// The exact values 0..64 are one group; each power of two from 2^6 to 2^63 is another.
const BUCKETS: usize = (u64::BITS - SUB_BUCKET_BITS + 1) as usize * SUB_BUCKETS;

const _: () = assert!(BUCKETS == 3_776);
const _: () = assert!(bucket_of(u64::MAX) == BUCKETS - 1);

/// Counts of values, usually nanoseconds.
pub struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    /// An empty histogram; it never allocates again.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), count: 0, sum: 0, max: 0 }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket_of(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// Counts all that another has counted.
    pub fn add(&mut self, other: &Self) {
        for (own, count) in self.counts.iter_mut().zip(&other.counts) {
            *own += count;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value, exact; 0 when empty.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The arithmetic mean, rounded down from the exact sum; 0 when empty.
    #[must_use]
    pub fn mean(&self) -> u64 {
        let mean = self.sum.checked_div(u128::from(self.count)).unwrap_or(0);
        u64::try_from(mean).expect("a mean of u64 values fits into u64")
    }

    /// The value that `per_mille` thousandths of all values do not exceed (500: median), at most
    /// 1/64 too high; 0 when empty.
    #[must_use]
    pub fn quantile(&self, per_mille: u32) -> u64 {
        assert!(per_mille <= 1_000);
        if self.count == 0 {
            return 0;
        }
        let rank = rank_of(self.count, per_mille);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return highest_of(bucket).min(self.max);
            }
        }
        unreachable!("the buckets hold {seen} values of {}", self.count);
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The rank (from 1) of a quantile among `count` sorted values: nearest-rank method.
fn rank_of(count: u64, per_mille: u32) -> u64 {
    let rank = (u128::from(count) * u128::from(per_mille)).div_ceil(1_000).max(1);
    u64::try_from(rank).expect("a rank is at most the count")
}

/// The bucket that counts `value`.
const fn bucket_of(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let exponent = u64::BITS - 1 - value.leading_zeros();
    let shift = exponent - SUB_BUCKET_BITS;
    let group = shift as usize + 1;
    // The leading one is worth 64, so the group's first sub-bucket is 0.
    let sub_bucket = (value >> shift) as usize - SUB_BUCKETS;
    group * SUB_BUCKETS + sub_bucket
}

/// The highest value that `bucket` counts.
fn highest_of(bucket: usize) -> u64 {
    let group = bucket / SUB_BUCKETS;
    let sub_bucket = (bucket % SUB_BUCKETS) as u64;
    if group == 0 {
        return sub_bucket;
    }
    let shift = group as u32 - 1;
    let lowest = (SUB_BUCKETS as u64 + sub_bucket) << shift;
    lowest + ((1_u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::mix;

    /// Records `values` and compares every interesting quantile with the sorted truth.
    fn check(mut values: Vec<u64>) {
        let mut histogram = Histogram::new();
        for &value in &values {
            histogram.record(value);
        }
        values.sort_unstable();
        assert_eq!(histogram.count(), values.len() as u64);
        assert_eq!(histogram.max(), *values.last().unwrap());
        let sum: u128 = values.iter().map(|&value| u128::from(value)).sum();
        assert_eq!(u128::from(histogram.mean()), sum / values.len() as u128);
        for per_mille in [0, 1, 10, 100, 250, 500, 750, 900, 990, 999, 1_000] {
            let exact = values[rank_of(values.len() as u64, per_mille) as usize - 1];
            let read = histogram.quantile(per_mille);
            assert!(read >= exact, "{per_mille}: {read} is below {exact}");
            assert!(read - exact <= exact / 64, "{per_mille}: {read} is far above {exact}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_values() {
        check(vec![0]);
        check(vec![u64::MAX]);
        check(vec![0, u64::MAX]);
        check((0..64).collect());
        check((0..100_000).collect());
        check((0..64).map(|bit| 1 << bit).collect());
        check((0..64).map(|bit| (1 << bit) - 1).collect());
        for seed in 0..20 {
            // Values of every magnitude, as the latencies of a loaded server are.
            let value = |index| mix(seed << 32 | index) >> (mix(index) % 60);
            check((0..5_000).map(value).collect());
        }
    }

    #[test]
    fn an_empty_histogram_reads_as_zero() {
        let histogram = Histogram::new();
        assert_eq!((histogram.count(), histogram.max(), histogram.mean()), (0, 0, 0));
        assert_eq!(histogram.quantile(999), 0);
    }

    #[test]
    fn buckets_are_adjacent_and_ordered() {
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(highest_of(bucket)), bucket);
            assert_eq!(bucket_of(highest_of(bucket) + 1), bucket + 1);
        }
        assert_eq!(highest_of(BUCKETS - 1), u64::MAX);
    }
}
