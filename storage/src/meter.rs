//! What work has cost, in units that depend on the database's state, the SQL and its parameters, and
//! on nothing else: not on caches, neighbours, evictions or restarts.
//!
//! Owns the cost vector, its price, the ceiling at which a statement is stopped, and the meter of a
//! fiber: what the statement that runs on it has used so far. Leaves to `fiber.rs` which meter is the
//! running one, and to `sqlite.rs` when a statement steps and when it is compiled anew.
//!
//! **What is not counted**: compiling. Whether a statement is compiled, and whether the schema is read
//! for it, depends on what its connection did before. A statement that finds the schema changed is
//! compiled anew in the middle of its first step: then its meter starts again.

use std::cell::Cell;
use std::ops::AddAssign;

use crate::allowance::Allowance;
use crate::log::transaction_cost_bytes;

/// A cost vector. All parts only grow while work goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Steps of SQLite's virtual machine.
    pub vm_steps: u64,
    /// Pages that statements asked the pager for, wherever they were found.
    pub pages_read: u64,
    /// Distinct pages of the transactions that were committed.
    pub pages_written: u64,
    /// Bytes that those take in the commit log, headers included, shared ones not.
    pub log_bytes: u64,
    /// Bytes of rows that were handed out, as SQLite holds them.
    pub result_bytes: u64,
}

/// Number of parts of a [`Cost`].
pub const PARTS: usize = 5;

/// Names of the parts in order, as headers, results and errors write them.
pub const PART_NAMES: [&str; PARTS] =
    ["vm_steps", "pages_read", "pages_written", "log_bytes", "result_bytes"];

impl Cost {
    /// The parts in the order of [`PART_NAMES`].
    #[must_use]
    pub const fn parts(&self) -> [u64; PARTS] {
        let Cost { vm_steps, pages_read, pages_written, log_bytes, result_bytes } = *self;
        [vm_steps, pages_read, pages_written, log_bytes, result_bytes]
    }

    /// What a transaction of so many distinct pages costs to commit.
    #[must_use]
    pub fn of_commit(pages: u32) -> Cost {
        let log_bytes = transaction_cost_bytes(pages);
        Cost { pages_written: u64::from(pages), log_bytes, ..Cost::default() }
    }
}

impl Cost {
    /// The same in a database that is only in memory: no log has it.
    #[must_use]
    pub fn of_memory_commit(pages: u32) -> Cost {
        Cost { pages_written: u64::from(pages), ..Cost::default() }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.vm_steps += other.vm_steps;
        self.pages_read += other.pages_read;
        self.pages_written += other.pages_written;
        self.log_bytes += other.log_bytes;
        self.result_bytes += other.result_bytes;
    }
}

/// What one unit of each part costs, in the order of [`PART_NAMES`], in parts of a million of a
/// request unit.
pub type Prices = [u64; PARTS];

/// The price of a cost vector, in the unit of `prices`. Ends at the greatest number instead of
/// beyond it.
#[must_use]
pub fn price(cost: &Cost, prices: &Prices) -> u64 {
    let parts = cost.parts();
    let mut total = 0u64;
    for (part, price) in parts.iter().zip(prices) {
        total = total.saturating_add(part.saturating_mul(*price));
    }
    total
}

/// What a request may cost: each part, and its price. A request that stays within is never stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Most of each part, in the order of [`PART_NAMES`].
    pub parts: [u64; PARTS],
    /// Highest price.
    pub price: u64,
    /// What the parts cost.
    pub prices: Prices,
}

impl Ceiling {
    /// None at all.
    pub const NONE: Ceiling =
        Ceiling { parts: [u64::MAX; PARTS], price: u64::MAX, prices: [0; PARTS] };

    /// The first limit that `cost` is beyond: its name, what is used of it, and the limit.
    #[must_use]
    pub fn exceeded(&self, cost: &Cost) -> Option<Exceeded> {
        let used = cost.parts();
        let part = (0..PARTS).find(|&part| used[part] > self.parts[part]);
        if let Some(part) = part {
            let limit = self.parts[part];
            return Some(Exceeded { part: Some(part), used: used[part], limit });
        }
        let used = price(cost, &self.prices);
        (used > self.price).then_some(Exceeded { part: None, used, limit: self.price })
    }
}

impl Default for Ceiling {
    fn default() -> Ceiling {
        Ceiling::NONE
    }
}

/// A limit that was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Index into [`PART_NAMES`]; `None` for the price.
    pub part: Option<usize>,
    /// What was used, or would have been.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

/// What a fiber's present statement has used so far. A *run* is one execution of one statement, from
/// its first step to its reset.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// SQLite is inside a step of the run, and not compiling.
    stepping: Cell<bool>,
    running: Cell<bool>,
    /// A connection is being opened.
    opening: Cell<bool>,
    /// The run's own transaction may still begin, so that what was read before it does not count:
    /// another try of a busy one, or the schema.
    beginning: Cell<bool>,
    /// A read transaction has begun in this run.
    has_begun: Cell<bool>,
    pages_read: Cell<u64>,
    /// Steps as the progress handler has seen them: of each statement the hundreds.
    progress_steps: Cell<u64>,
    result_bytes: Cell<u64>,
    committed: Cell<Cost>,
    /// What the request's earlier statements have cost.
    before: Cell<Cost>,
    ceiling: Cell<Option<Ceiling>>,
    exceeded: Cell<Option<Exceeded>>,
    /// The database's allowance holds for the run.
    bounded: Cell<bool>,
    /// What of the run the allowance has been charged with.
    charged: Cell<u64>,
    /// The allowance has stopped the run.
    overspent: Cell<bool>,
    /// What the runs that ended since the last [`Meter::take_total`] cost.
    total: Cell<Cost>,
}

impl Meter {
    /// A statement of a client begins to run, in a request whose earlier statements cost `before`.
    /// `bounded`: its database's allowance may stop it.
    pub fn start_run(&self, before: Cost, ceiling: Option<Ceiling>, bounded: bool) {
        assert!(!self.running.replace(true), "one statement runs on a fiber at a time");
        self.has_begun.set(false);
        self.start_again();
        self.result_bytes.set(0);
        self.committed.set(Cost::default());
        self.before.set(before);
        self.ceiling.set(ceiling);
        self.exceeded.set(None);
        self.bounded.set(bounded);
        self.charged.set(0);
        self.overspent.set(false);
    }

    /// The run came to nothing: its statement does not compile.
    pub fn void_run(&self) {
        self.has_begun.set(false);
        self.start_again();
    }

    /// The run is over: what it cost, given the steps that its statements' own counters tell.
    pub fn end_run(&self, counted_steps: u64) -> Cost {
        assert!(self.running.replace(false) && !self.stepping.get());
        let seen = self.progress_steps.get();
        // The counters have 32 bits; the progress handler has seen how often they began anew.
        let missing = seen.saturating_sub(counted_steps);
        let wrapped = (missing.saturating_add(1 << 31) >> 32) << 32;
        // Statements that a module finalised within the run took their counters with them.
        let vm_steps = (counted_steps + wrapped).max(seen);
        let mut cost = self.committed.get();
        cost += Cost {
            vm_steps,
            pages_read: self.pages_read.get(),
            result_bytes: self.result_bytes.get(),
            ..Cost::default()
        };
        let mut total = self.total.get();
        total += cost;
        self.total.set(total);
        cost
    }

    /// A connection is being opened, or no more.
    pub fn set_opening(&self, opening: bool) {
        self.opening.set(opening);
    }

    /// What is fetched from a page cache that is being made now counts as read: the one of a new
    /// connection, or of a table that lives as long as its statement. SQLite opens the database of
    /// temporary tables when it compiles.
    pub fn is_cache_counted(&self) -> bool {
        self.opening.get() || self.stepping.get()
    }

    /// SQLite enters or leaves a step. Gives what was before.
    pub fn set_stepping(&self, stepping: bool) -> bool {
        self.stepping.replace(stepping && self.running.get())
    }

    /// The run's statement is being compiled anew: what it did so far came to nothing, but for the look
    /// at page 1 with which it began a transaction that goes on. (One that does not go on begins again.)
    pub fn start_again(&self) {
        self.pages_read.set(u64::from(self.has_begun.get()));
        self.progress_steps.set(0);
        self.beginning.set(true);
    }

    /// A statement inside the run's own is being compiled: the run's transaction has begun.
    pub fn on_inner_statement(&self) {
        self.beginning.set(false);
    }

    /// A read transaction begins.
    pub fn on_read_begin(&self) {
        if self.beginning.get() {
            self.has_begun.set(true);
            self.pages_read.set(0);
        }
    }

    #[inline]
    pub fn count_page(&self) {
        if self.stepping.get() {
            self.pages_read.set(self.pages_read.get() + 1);
        }
    }

    pub fn count_result_bytes(&self, bytes: u64) {
        self.result_bytes.set(self.result_bytes.get() + bytes);
    }

    /// A transaction is committed at this cost. One of the server's own, without a run, is on
    /// nobody's receipt.
    pub fn on_commit(&self, cost: Cost) {
        if self.running.get() {
            let mut committed = self.committed.get();
            committed += cost;
            self.committed.set(committed);
        }
    }

    /// The progress handler is called: whether the run has to stop.
    pub fn on_progress(&self, steps: u64) -> bool {
        self.progress_steps.set(self.progress_steps.get() + steps);
        self.is_beyond(Cost::default())
    }

    /// Whether the request would be beyond its ceiling with `more`; noted if so.
    pub fn is_beyond(&self, more: Cost) -> bool {
        let Some(ceiling) = self.ceiling.get() else { return false };
        if !self.running.get() {
            return false;
        }
        let mut cost = self.before.get();
        cost += more;
        cost += self.seen();
        self.exceeded.set(ceiling.exceeded(&cost));
        self.exceeded.get().is_some()
    }

    /// What the run has cost, as far as is known before its end.
    fn seen(&self) -> Cost {
        let mut cost = self.committed.get();
        cost += Cost {
            vm_steps: self.progress_steps.get(),
            pages_read: self.pages_read.get(),
            result_bytes: self.result_bytes.get(),
            ..Cost::default()
        };
        cost
    }

    /// Charge what the run has cost by now, with `more`, to its database's allowance: whether that is
    /// more than is left, and the run has to stop.
    pub fn overspends(&self, allowance: &mut Allowance, more: Cost) -> bool {
        if allowance.price_max == u64::MAX || !self.running.get() || !self.bounded.get() {
            return false;
        }
        let mut cost = self.seen();
        cost += more;
        let price = price(&cost, &allowance.prices);
        if allowance.charge(self.charged.get(), price) {
            self.charged.set(price);
            return false;
        }
        self.overspent.set(true);
        true
    }

    /// The allowance has stopped the run.
    pub fn is_overspent(&self) -> bool {
        self.overspent.get()
    }

    /// The run is over and cost this: the allowance has it all.
    pub fn settle(&self, allowance: &mut Allowance, cost: &Cost) {
        if self.bounded.replace(false) {
            allowance.settle(self.charged.replace(0), price(cost, &allowance.prices));
        }
    }

    /// The limit at which the run was stopped.
    pub fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded.get()
    }

    /// What the runs that ended since the last call cost.
    pub fn take_total(&self) -> Cost {
        self.total.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(vm_steps: u64, pages_read: u64) -> Cost {
        Cost { vm_steps, pages_read, ..Cost::default() }
    }

    #[test]
    fn a_ceiling_is_exceeded_only_beyond_it() {
        let ceiling = Ceiling {
            parts: [100, 7, u64::MAX, u64::MAX, u64::MAX],
            price: 1_000,
            prices: [8, 40, 0, 0, 0],
        };
        for (used, exceeded) in [
            (cost(100, 5), None),
            (cost(101, 0), Some(Exceeded { part: Some(0), used: 101, limit: 100 })),
            (cost(0, 8), Some(Exceeded { part: Some(1), used: 8, limit: 7 })),
            (cost(100, 6), Some(Exceeded { part: None, used: 1_040, limit: 1_000 })),
        ] {
            assert_eq!(ceiling.exceeded(&used), exceeded);
        }
        assert_eq!(Ceiling::NONE.exceeded(&cost(u64::MAX, u64::MAX)), None);
        assert_eq!(price(&cost(u64::MAX, 1), &[2; PARTS]), u64::MAX);
    }

    #[test]
    fn counters_of_32_bits_and_finalised_statements() {
        // What the counters say, what the progress handler saw, what it was.
        for (counted, seen, steps) in [
            (0, 0, 0),
            (42, 0, 42),
            (142, 100, 142),
            (30, 2_000, 2_000),
            (10, (1 << 32) - 96, (1 << 32) + 10),
            (1 << 31, (3 << 32) + (1 << 31) - 48, (3 << 32) + (1 << 31)),
        ] {
            let meter = Meter::default();
            meter.start_run(Cost::default(), None, false);
            assert!(!meter.on_progress(seen));
            assert_eq!(meter.end_run(counted).vm_steps, steps, "{counted} {seen}");
            assert_eq!(meter.take_total().vm_steps, steps);
        }
    }

    #[test]
    fn only_what_the_last_try_reads_counts() {
        let meter = Meter::default();
        meter.count_page();
        meter.start_run(Cost::default(), None, false);
        let read = |pages| {
            meter.set_stepping(true);
            (0..pages).for_each(|_| meter.count_page());
            meter.set_stepping(false);
        };
        read(3);
        meter.start_again();
        read(5);
        meter.on_read_begin();
        read(1);
        meter.on_inner_statement();
        meter.on_read_begin();
        read(1);
        meter.on_commit(Cost::of_commit(2));
        meter.count_page();
        let cost = meter.end_run(9);
        assert_eq!((cost.pages_read, cost.pages_written, cost.vm_steps), (2, 2, 9));
    }
}
