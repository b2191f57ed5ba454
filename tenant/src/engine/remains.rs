//! What is left in the buckets of databases, groups and organisations that have closed.
//!
//! A place is free when its database closes, but a debt to a ceiling is not paid by that: who opens
//! again gets what was left, filled up by the time that has passed. It is kept until it would be full
//! anyway. Of more than [`limits::REMAINS_MAX`] those are given up that would be full soonest. A
//! restart of the server fills all buckets, and dropping a database forgets its.

use std::collections::{BTreeMap, BTreeSet};

use storage::TenantId;
use storage::io::Instant;

use crate::catalogue::NodeId;
use crate::limits;
use crate::schedule::Buckets;

/// Whose buckets they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Database(TenantId),
    Node(NodeId),
}

/// What one place had left at the processor and at the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remainder {
    pub turns: Buckets,
    pub transfers: Buckets,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// With when all of it will be full.
    kept: BTreeMap<Owner, (Instant, Remainder)>,
    by_time: BTreeSet<(Instant, Owner)>,
}

impl Remains {
    /// Keep what somebody's place had left, unless that is all that it could have.
    pub fn keep(&mut self, owner: Owner, remainder: Remainder, now: Instant) {
        assert!(!self.kept.contains_key(&owner), "its place was taken without what it had left");
        self.forget_full(now);
        let full_at = remainder.turns.full_at(now).max(remainder.transfers.full_at(now));
        let Some(full_at) = full_at else { return };
        self.kept.insert(owner, (full_at, remainder));
        self.by_time.insert((full_at, owner));
        if self.kept.len() > limits::REMAINS_MAX {
            let (_, soonest) = self.by_time.pop_first().expect("there are too many");
            self.kept.remove(&soonest);
        }
        assert!(self.kept.len() == self.by_time.len());
    }

    /// Take what somebody had left, if it is not full by now.
    pub fn take(&mut self, owner: Owner) -> Option<Remainder> {
        let (full_at, remainder) = self.kept.remove(&owner)?;
        self.by_time.remove(&(full_at, owner));
        Some(remainder)
    }

    fn forget_full(&mut self, now: Instant) {
        while let Some(&(at, owner)) = self.by_time.first()
            && at <= now
        {
            self.by_time.pop_first();
            self.kept.remove(&owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Priority;
    use crate::schedule::{Rate, Scheduler, Share};

    /// A node's buckets after it spent so much of a burst of 1,000 at 1,000 a second.
    fn spent(units: u64, now: Instant) -> Remainder {
        let mut scheduler = Scheduler::new(1);
        let ceiling = Some(Rate { per_second: 1_000, burst: 1_000 });
        let share = Share { weight: 1, ceiling, reservation: None };
        let leaf = scheduler.add(scheduler.root(), share, now);
        scheduler.push(leaf, Priority::Normal, (), now);
        let turn = scheduler.next(now).expect("it has work");
        scheduler.charge(&turn, units, now);
        let left = scheduler.remove(leaf);
        Remainder { turns: left, transfers: Buckets::default() }
    }

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn what_is_not_full_is_kept_until_it_would_be() {
        let mut remains = Remains::default();
        let start = Instant(5);
        let [full, empty, owes] = [1, 2, 3].map(|id| Owner::Database(TenantId(id)));
        remains.keep(full, spent(0, start), start);
        remains.keep(empty, spent(1_000, start), start);
        remains.keep(owes, spent(3_000, start), start);
        assert!(remains.take(full).is_none());
        // One more comes when what was empty is full again.
        let later = start.after(SECOND_NS);
        remains.keep(Owner::Node(NodeId(3)), spent(1, later), later);
        assert!(remains.take(empty).is_none());
        let left = remains.take(owes).expect("it still owes");
        assert_eq!(left.turns.full_at(later), Some(start.after(3 * SECOND_NS)));
        assert!(remains.take(owes).is_none());
        assert!(remains.take(Owner::Node(NodeId(3))).is_some());
        assert!(remains.kept.is_empty() && remains.by_time.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_gives_up_what_is_nearly_full() {
        let mut remains = Remains::default();
        let now = Instant(0);
        for id in 0..limits::REMAINS_MAX as u64 + 10 {
            // The later ones owe less.
            remains.keep(Owner::Database(TenantId(id)), spent(1_000_000 - id, now), now);
        }
        assert_eq!(remains.kept.len(), limits::REMAINS_MAX);
        assert!(remains.take(Owner::Database(TenantId(0))).is_some());
        let last = limits::REMAINS_MAX as u64 + 9;
        assert!(remains.take(Owner::Database(TenantId(last))).is_none());
    }
}
