//! Token buckets, exact: nothing is lost to rounding, whatever the rate and however often one looks.

use storage::io::Instant;

const SECOND_NS: i128 = 1_000_000_000;

/// So many units a second, and so many saved up at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units that come in a second; at least 1.
    pub per_second: u64,
    /// Units that may be saved up; at least 1.
    pub burst: u64,
}

/// A bucket of a [`Rate`]. What is spent may exceed what is there: the debt is paid before the bucket
/// has anything again.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    /// What is there, in parts of a thousand million of a unit; negative: a debt.
    level: i128,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(rate: Rate, now: Instant) -> Bucket {
        assert!(rate.per_second > 0 && rate.burst > 0);
        Bucket { rate, level: i128::from(rate.burst) * SECOND_NS, filled_at: now }
    }

    /// The bucket's rate.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Another rate from now on; what is there stays, up to the new burst.
    pub fn set_rate(&mut self, rate: Rate, now: Instant) {
        assert!(rate.per_second > 0 && rate.burst > 0);
        self.fill(now);
        self.rate = rate;
        self.level = self.level.min(i128::from(rate.burst) * SECOND_NS);
    }

    fn fill(&mut self, now: Instant) {
        let elapsed_ns = i128::from(now.since(self.filled_at));
        self.filled_at = self.filled_at.max(now);
        let full = i128::from(self.rate.burst) * SECOND_NS;
        self.level = (self.level + elapsed_ns * i128::from(self.rate.per_second)).min(full);
    }

    /// Take units out, whether they are there or not.
    pub fn spend(&mut self, units: u64, now: Instant) {
        self.fill(now);
        self.level -= i128::from(units) * SECOND_NS;
    }

    /// Take units out, but for a debt of no more than `debt_max`: what is beyond is forgiven.
    pub fn spend_down_to(&mut self, units: u64, debt_max: u64, now: Instant) {
        self.fill(now);
        let least = (-i128::from(debt_max) * SECOND_NS).min(self.level);
        self.level = (self.level - i128::from(units) * SECOND_NS).max(least);
    }

    /// When nothing more comes in: `None` if it is full now.
    #[must_use]
    pub fn full_at(&mut self, now: Instant) -> Option<Instant> {
        self.fill(now);
        let lacks = i128::from(self.rate.burst) * SECOND_NS - self.level;
        if lacks <= 0 {
            return None;
        }
        let wait_ns = (lacks - 1) / i128::from(self.rate.per_second) + 1;
        Some(now.after(u64::try_from(wait_ns).unwrap_or(u64::MAX / 2)))
    }

    /// When there is something in it: `None` if there is now.
    #[must_use]
    pub fn ready_at(&mut self, now: Instant) -> Option<Instant> {
        self.fill(now);
        if self.level > 0 {
            return None;
        }
        let wait_ns = -self.level / i128::from(self.rate.per_second) + 1;
        Some(now.after(u64::try_from(wait_ns).unwrap_or(u64::MAX / 2)))
    }

    /// Whole units that are there; negative: a debt.
    #[must_use]
    pub fn level(&mut self, now: Instant) -> i64 {
        self.fill(now);
        i64::try_from(self.level.div_euclid(SECOND_NS)).unwrap_or(i64::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_to_the_unit_however_often_one_looks() {
        for step_ns in [1_u64, 7, 999, 1_000_003] {
            let rate = Rate { per_second: 3_333, burst: 10 };
            let mut now = Instant(0);
            let mut bucket = Bucket::full(rate, now);
            bucket.spend(1_010, now);
            // 1,000 units of debt at 3,333 a second are paid after 300,030,003.0003 ns.
            while bucket.ready_at(now).is_some() {
                now = now.after(step_ns);
            }
            assert!((300_030_003..300_030_004 + step_ns).contains(&now.0), "{step_ns}: {now:?}");
        }
    }

    #[test]
    fn ready_at_is_the_first_moment() {
        let mut bucket = Bucket::full(Rate { per_second: 7, burst: 1 }, Instant(5));
        bucket.spend(4, Instant(5));
        let at = bucket.ready_at(Instant(5)).expect("it is empty");
        assert!(bucket.clone().ready_at(Instant(at.0 - 1)).is_some());
        assert_eq!(bucket.ready_at(at), None);
    }

    #[test]
    fn what_is_saved_up_is_bounded_and_a_new_rate_keeps_it() {
        let mut bucket = Bucket::full(Rate { per_second: 10, burst: 5 }, Instant(0));
        let later = Instant(3_600_000_000_000);
        assert_eq!(bucket.level(later), 5);
        bucket.set_rate(Rate { per_second: 1, burst: 3 }, later);
        assert_eq!(bucket.level(later), 3);
        bucket.spend(5, later);
        assert_eq!(bucket.level(later), -2);
        bucket.set_rate(Rate { per_second: 1_000, burst: 3 }, later);
        assert_eq!(bucket.ready_at(later), Some(later.after(2_000_001)));
    }
}
