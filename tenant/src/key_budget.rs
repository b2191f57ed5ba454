//! What a key may spend, whatever database it is spent on.
//!
//! Owns the numbers and the bucket that is left of them. Request units are counted in parts of a million,
//! as receipts are. A statement that would be beyond what one request may cost is stopped as by the
//! request's own limit; what a second may cost is a token bucket: a request that finds it empty is
//! refused and told when to come again, one that runs is not stopped, and its whole cost is spent. Buckets
//! are in memory: full at a start, and for a key that was not seen for so long that it was forgotten.

use std::collections::BTreeMap;

use storage::io::Instant;
use storage::sometimes;

use crate::access::KeyId;
use crate::schedule::{Bucket, Rate};

/// A key's own budget, in parts of a million of a request unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyBudget {
    /// What one request may cost.
    pub request_cost: Option<u64>,
    /// What requests may cost in a second, in the long run; at least 1.
    pub cost_per_second: Option<u64>,
    /// What may be saved up; what comes in a second if nothing is said. Without a rate it means nothing.
    pub cost_burst: Option<u64>,
}

impl KeyBudget {
    fn rate(&self) -> Option<Rate> {
        let per_second = self.cost_per_second?.max(1);
        Some(Rate { per_second, burst: self.cost_burst.unwrap_or(per_second).max(1) })
    }
}

/// Keys that have a budget and are remembered.
#[derive(Debug, Default)]
pub(crate) struct Spenders(BTreeMap<KeyId, (KeyBudget, Option<Bucket>)>);

impl Spenders {
    /// The key is remembered from now on. What it has left stays, where its rate does.
    pub fn remember(&mut self, key: KeyId, budget: KeyBudget, now: Instant) {
        if budget == KeyBudget::default() {
            self.0.remove(&key);
            return;
        }
        let fresh = || (budget, budget.rate().map(|rate| Bucket::full(rate, now)));
        let entry = self.0.entry(key).or_insert_with(fresh);
        assert!(entry.0 == budget, "a key's budget is for its life");
    }

    pub fn forget(&mut self, key: KeyId) {
        self.0.remove(&key);
    }

    /// What a request of the key may cost, or when it may come again.
    pub fn admit(&mut self, key: Option<KeyId>, now: Instant) -> Result<Option<u64>, Instant> {
        let Some((budget, bucket)) = key.and_then(|key| self.0.get_mut(&key)) else {
            return Ok(None);
        };
        if let Some(at) = bucket.as_mut().and_then(|bucket| bucket.ready_at(now)) {
            sometimes!("a key has spent its budget");
            return Err(at);
        }
        Ok(budget.request_cost)
    }

    /// A request of the key has cost so much.
    pub fn spend(&mut self, key: KeyId, micro: u64, now: Instant) {
        if let Some((_, Some(bucket))) = self.0.get_mut(&key) {
            bucket.spend(micro, now);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_again() {
        let key = KeyId(7);
        let budget = KeyBudget { cost_per_second: Some(1_000), ..KeyBudget::default() };
        let mut spenders = Spenders::default();
        spenders.remember(key, budget, Instant(0));
        assert_eq!(spenders.admit(Some(key), Instant(0)), Ok(None));
        spenders.spend(key, 3_000, Instant(0));
        let at = spenders.admit(Some(key), Instant(0)).expect_err("it is in debt");
        assert!((2_000_000_000..2_010_000_000).contains(&at.0), "{at:?}");
        spenders.remember(key, budget, Instant(1));
        assert!(
            spenders.admit(Some(key), Instant(1)).is_err(),
            "to be looked up again pays nothing"
        );
        assert_eq!(spenders.admit(Some(key), at), Ok(None));
        assert_eq!(spenders.admit(None, Instant(0)), Ok(None));
        assert_eq!(spenders.admit(Some(KeyId(8)), Instant(0)), Ok(None));
    }

    #[test]
    fn a_request_has_a_limit_of_its_own() {
        let key = KeyId(7);
        let mut spenders = Spenders::default();
        let budget = KeyBudget { request_cost: Some(5), ..KeyBudget::default() };
        spenders.remember(key, budget, Instant(0));
        spenders.spend(key, 1 << 40, Instant(0));
        assert_eq!(spenders.admit(Some(key), Instant(0)), Ok(Some(5)));
        spenders.forget(key);
        assert!(spenders.is_empty());
    }
}
