//! What a database may still do in its life: how much its statements may cost together, and how many
//! may begin. Only counted here, statement by statement, where all its connections meet: who ends the
//! database, and how, is the engine's to say.
//!
//! **How exact**: what a statement costs is taken from the allowance while it runs, each 100 steps
//! and before its commit, whichever of the database's statements run beside it; the one that would
//! take more than is left is stopped and has no effect. What it did since the last look (fewer than
//! 100 steps, the pages that they asked for, and a row) is counted after all, so the sum can be beyond
//! the limit by that and by no more.

use crate::meter::Prices;

/// Which of the two is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedUp {
    /// What statements may cost together.
    Price,
    /// How many may begin.
    Statements,
}

/// See the head of the file.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Most that its statements may cost; `u64::MAX` for no limit.
    pub price_max: u64,
    /// What they have cost, those that run included as far as was looked.
    pub price_used: u64,
    /// What the parts of a cost are priced at.
    pub prices: Prices,
    /// Most statements that may begin; `u64::MAX` for no limit.
    pub statements_max: u64,
    /// Statements that have begun.
    pub statements_used: u64,
    /// It has ended, and is read only: no limit holds any more.
    pub frozen: bool,
    /// It has ended, and is being dropped.
    pub expired: bool,
    running: u64,
    used_up: Option<UsedUp>,
}

impl Default for Allowance {
    fn default() -> Allowance {
        Allowance {
            price_max: u64::MAX,
            price_used: 0,
            prices: Prices::default(),
            statements_max: u64::MAX,
            statements_used: 0,
            frozen: false,
            expired: false,
            running: 0,
            used_up: None,
        }
    }
}

impl Allowance {
    /// Set the limits anew.
    pub fn limit(&mut self, price_max: u64, statements_max: u64, frozen: bool) {
        self.price_max = if frozen { u64::MAX } else { price_max };
        self.statements_max = if frozen { u64::MAX } else { statements_max };
        self.frozen = frozen;
        self.used_up = None;
        self.look();
    }

    /// Which limit is reached, so that the database is to end.
    #[must_use]
    pub fn used_up(&self) -> Option<UsedUp> {
        self.used_up
    }

    fn look(&mut self) {
        if self.price_used >= self.price_max {
            self.used_up.get_or_insert(UsedUp::Price);
        }
        // The last one that may begin ends first.
        if self.statements_used >= self.statements_max && self.running == 0 {
            self.used_up.get_or_insert(UsedUp::Statements);
        }
    }

    /// A statement begins: count it.
    ///
    /// # Errors
    /// It may not begin: what is used up.
    pub fn begin(&mut self) -> Result<(), UsedUp> {
        if let Some(used_up) = self.used_up {
            return Err(used_up);
        }
        if self.statements_used >= self.statements_max {
            return Err(UsedUp::Statements);
        }
        self.statements_used += 1;
        self.running += 1;
        Ok(())
    }

    /// A statement that has been counted at `before` costs `price` by now; `false` if that is more than
    /// is left, and it has to stop.
    #[must_use]
    pub(crate) fn charge(&mut self, before: u64, price: u64) -> bool {
        let others = self.price_used.saturating_sub(before);
        if self.price_max - others.min(self.price_max) < price {
            self.used_up = Some(UsedUp::Price);
            return false;
        }
        self.price_used = others + price;
        true
    }

    /// A statement that has begun has ended, whatever came of it.
    pub(crate) fn settle(&mut self, before: u64, price: u64) {
        let others = self.price_used.saturating_sub(before);
        self.price_used = others.saturating_add(price);
        self.running -= 1;
        self.look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_together_stays_within_together() {
        let mut allowance = Allowance { price_max: 100, ..Allowance::default() };
        assert_eq!((allowance.begin(), allowance.begin()), (Ok(()), Ok(())));
        assert!(allowance.charge(0, 60), "one");
        assert!(allowance.charge(0, 40), "another beside it");
        assert!(!allowance.charge(40, 41), "not one more");
        assert_eq!((allowance.price_used, allowance.used_up()), (100, Some(UsedUp::Price)));
        allowance.settle(60, 10);
        assert_eq!(allowance.price_used, 50, "the first was compiled anew and cost less");
        assert_eq!(allowance.begin(), Err(UsedUp::Price), "it stays used up");
        allowance.settle(40, 40);
        allowance.limit(200, 0, false);
        assert_eq!(allowance.used_up(), Some(UsedUp::Statements));
        allowance.limit(1, 0, true);
        assert_eq!(allowance.begin(), Ok(()), "who is frozen may read");
    }

    #[test]
    fn as_many_statements_as_may_begin() {
        let mut allowance = Allowance::default();
        allowance.limit(u64::MAX, 2, false);
        assert_eq!(allowance.begin(), Ok(()));
        allowance.settle(0, 5);
        assert_eq!(allowance.used_up(), None);
        assert_eq!(allowance.begin(), Ok(()));
        assert_eq!(allowance.begin(), Err(UsedUp::Statements));
        assert_eq!(allowance.used_up(), None, "the last one runs");
        allowance.settle(0, 5);
        assert_eq!(allowance.used_up(), Some(UsedUp::Statements));
    }
}
