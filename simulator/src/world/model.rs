//! The model: what was asked of each database, what was answered, and what may be found in it.
//!
//! Owns the oracles of contents: DUR-1 (an acknowledged transaction is there), ATOM-1 (whole or not
//! at all, never before its commit), TEN-1 (only the tenant's own marks), and DUR-4's part about
//! rows (a drop takes them all). Reads no disk and draws nothing.
//!
//! A transaction inserts rows under one mark. Whether it is there is known, or not known yet: its
//! answer was lost, or something that erases it (a delete, a drop) is under way. What a read shows
//! of an unknown outcome holds from then on. Time is a count of requests and answers (`at`); an
//! epoch is a life of the server: what was lost in an earlier one cannot happen any more.

use std::collections::{BTreeMap, BTreeSet};

/// What a violated property is called, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property's id.
    pub property: &'static str,
    /// What was expected and found.
    pub detail: String,
}

impl Violation {
    /// A violation.
    #[must_use]
    pub fn new(property: &'static str, detail: impl Into<String>) -> Violation {
        Violation { property, detail: detail.into() }
    }
}

/// When a request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// On the model's count.
    pub at: u64,
    /// In which life of the server.
    pub epoch: u64,
}

/// Number of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionId(pub u64);

/// Number of a delete or drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EraserId(pub usize);

/// How far something got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing was asked for that could make it happen.
    Open,
    /// Asked for, and not answered.
    Sent,
    /// The answer is lost; it may have happened in this epoch, not later.
    Lost(u64),
    /// It happened, known since then.
    Done(u64),
    /// It happened and was erased; no read that was sent after this can show it.
    Gone(u64),
}

/// Rows under one mark.
#[derive(Clone, Debug)]
struct Transaction {
    shape: Shape,
    outcome: Outcome,
    erasers: Vec<EraserId>,
}

#[derive(Clone, Copy, Debug)]
struct Eraser {
    sent_at: u64,
    epoch: u64,
    /// A drop takes everything, and later transactions that overtake it.
    is_drop: bool,
    outcome: Outcome,
    failed: bool,
    tenant: usize,
}

/// What a transaction inserts: rows `first` to `first + rows - 1`, each with so much padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Of which tenant.
    pub tenant: usize,
    /// Id of the first row.
    pub first: u64,
    /// How many rows.
    pub rows: u64,
    /// Words of 8 bytes of padding per row.
    pub pad_words: u64,
}

/// What was found under one mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many rows.
    pub rows: u64,
    /// Smallest row id.
    pub first: u64,
    /// Largest row id.
    pub last: u64,
    /// Bytes of padding, together.
    pub pad_bytes: u64,
    /// Rows whose padding is what it should be.
    pub intact: u64,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Model {
    count: u64,
    /// Life of the server.
    pub epoch: u64,
    transactions: BTreeMap<TransactionId, Transaction>,
    /// Per tenant those that may be there.
    live: BTreeMap<usize, BTreeSet<TransactionId>>,
    erasers: Vec<Eraser>,
    next_transaction: u64,
    next_row: u64,
}

/// Name of a tenant by its number.
#[must_use]
pub fn tenant_name(tenant: usize) -> String {
    format!("tenant-{tenant}")
}

/// The number of a tenant by its name.
#[must_use]
pub fn parse_tenant_name(name: &str) -> Option<usize> {
    name.strip_prefix("tenant-")?.parse().ok()
}

/// The mark of a transaction: every row carries its owner's name.
#[must_use]
pub fn mark(tenant: usize, id: TransactionId) -> String {
    format!("mark:{}:{}", tenant_name(tenant), id.0)
}

/// The tenant's name and the transaction in a mark.
#[must_use]
pub fn parse_mark(mark: &str) -> Option<(&str, TransactionId)> {
    let (name, number) = mark.strip_prefix("mark:")?.split_once(':')?;
    Some((name, TransactionId(number.parse().ok()?)))
}

impl Model {
    /// A request is sent now.
    pub fn ask(&mut self) -> Asked {
        self.count += 1;
        Asked { at: self.count, epoch: self.epoch }
    }

    fn answer(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    // ---- transactions ----

    /// A transaction that nobody was asked to commit yet.
    pub fn begin(&mut self, tenant: usize, rows: u64, pad_words: u64) -> (TransactionId, Shape) {
        let id = TransactionId(self.next_transaction);
        let shape = Shape { tenant, first: self.next_row + 1, rows, pad_words };
        self.next_transaction += 1;
        self.next_row += rows;
        let transaction = Transaction { shape, outcome: Outcome::Open, erasers: Vec::new() };
        self.transactions.insert(id, transaction);
        (id, shape)
    }

    /// Its commit is sent.
    pub fn commit_sent(&mut self, id: TransactionId) {
        let epoch = self.epoch;
        let transaction = self.transactions.get_mut(&id).expect("it was begun");
        assert_eq!(transaction.outcome, Outcome::Open, "a transaction is committed once");
        transaction.outcome = Outcome::Sent;
        let tenant = transaction.shape.tenant;
        // A drop that is under way may come after it.
        for (index, eraser) in self.erasers.iter().enumerate() {
            let pending = matches!(eraser.outcome, Outcome::Sent | Outcome::Lost(_));
            if eraser.is_drop && eraser.tenant == tenant && pending && eraser.epoch == epoch {
                transaction.erasers.push(EraserId(index));
            }
        }
        self.live.entry(tenant).or_default().insert(id);
    }

    /// Its commit was acknowledged.
    pub fn committed(&mut self, id: TransactionId) {
        let now = self.answer();
        let transaction = self.transactions.get_mut(&id).expect("it was begun");
        if matches!(transaction.outcome, Outcome::Sent) {
            transaction.outcome = Outcome::Done(now);
        }
    }

    /// Its commit was refused: it did not happen, or nobody will ever ask for it.
    ///
    /// # Errors
    /// ATOM-1 if it was seen already.
    pub fn refused(&mut self, id: TransactionId) -> Result<(), Violation> {
        let transaction = &self.transactions[&id];
        if matches!(transaction.outcome, Outcome::Done(_) | Outcome::Gone(_)) {
            let text = format!("{} was seen, then its commit was refused", self.name(id));
            return Err(Violation::new("ATOM-1", text));
        }
        self.forget(id);
        Ok(())
    }

    /// No answer will come: it may have happened, or may yet in this life of the server.
    pub fn lost(&mut self, id: TransactionId, asked: Asked) {
        let transaction = self.transactions.get_mut(&id).expect("it was begun");
        if transaction.outcome == Outcome::Sent {
            transaction.outcome = Outcome::Lost(asked.epoch);
        }
    }

    /// It is not there, for good.
    fn forget(&mut self, id: TransactionId) {
        let transaction = self.transactions.get_mut(&id).expect("it was begun");
        transaction.outcome = Outcome::Open;
        if let Some(live) = self.live.get_mut(&transaction.shape.tenant) {
            live.remove(&id);
        }
    }

    /// A read has shown that it is not there any more. One that was sent before may still show it.
    fn gone(&mut self, id: TransactionId, now: u64) {
        let erased = !self.transactions[&id].erasers.is_empty();
        self.forget(id);
        if erased {
            let transaction = self.transactions.get_mut(&id).expect("it was begun");
            transaction.outcome = Outcome::Gone(now);
        }
    }

    fn name(&self, id: TransactionId) -> String {
        let transaction = &self.transactions[&id];
        let shape = transaction.shape;
        format!("transaction {} ({} rows) of {}", id.0, shape.rows, tenant_name(shape.tenant))
    }

    /// An acknowledged transaction that nothing erases, the `index`th of them modulo their number.
    #[must_use]
    pub fn victim(&self, tenant: usize, index: u64) -> Option<TransactionId> {
        let live = self.live.get(&tenant)?;
        let safe = |id: &&TransactionId| {
            let transaction = &self.transactions[id];
            matches!(transaction.outcome, Outcome::Done(_)) && transaction.erasers.is_empty()
        };
        let count = live.iter().filter(safe).count();
        live.iter().filter(safe).nth((index % count.max(1) as u64) as usize).copied()
    }

    /// Transactions that may be there.
    #[must_use]
    pub fn live_count(&self, tenant: usize) -> usize {
        self.live.get(&tenant).map_or(0, BTreeSet::len)
    }

    // ---- what erases ----

    fn add_eraser(&mut self, tenant: usize, is_drop: bool, sent: Asked) -> EraserId {
        let outcome = Outcome::Sent;
        let (sent_at, epoch) = (sent.at, sent.epoch);
        self.erasers.push(Eraser { sent_at, epoch, is_drop, outcome, failed: false, tenant });
        EraserId(self.erasers.len() - 1)
    }

    /// A delete of one transaction's rows is sent.
    pub fn delete_sent(&mut self, victim: TransactionId, sent: Asked) -> EraserId {
        let tenant = self.transactions[&victim].shape.tenant;
        let eraser = self.add_eraser(tenant, false, sent);
        let transaction = self.transactions.get_mut(&victim).expect("it was begun");
        transaction.erasers.push(eraser);
        eraser
    }

    /// A drop of a tenant is sent.
    pub fn drop_sent(&mut self, tenant: usize, sent: Asked) -> EraserId {
        let eraser = self.add_eraser(tenant, true, sent);
        for id in self.live.get(&tenant).into_iter().flatten() {
            let transaction = self.transactions.get_mut(id).expect("it was begun");
            transaction.erasers.push(eraser);
        }
        eraser
    }

    /// It was acknowledged.
    pub fn erased(&mut self, eraser: EraserId) {
        let now = self.answer();
        self.erasers[eraser.0].outcome = Outcome::Done(now);
    }

    /// It was refused: nothing was erased.
    pub fn erase_refused(&mut self, eraser: EraserId) {
        self.erasers[eraser.0].failed = true;
        for transaction in self.transactions.values_mut() {
            transaction.erasers.retain(|id| *id != eraser);
        }
    }

    /// Its answer is lost.
    pub fn erase_lost(&mut self, eraser: EraserId, asked: Asked) {
        let eraser = &mut self.erasers[eraser.0];
        if eraser.outcome == Outcome::Sent {
            eraser.outcome = Outcome::Lost(asked.epoch);
        }
    }

    /// Whether the eraser, if it happened, took the transaction: it was there before.
    fn covers(&self, eraser: EraserId, id: TransactionId) -> bool {
        let sent_at = self.erasers[eraser.0].sent_at;
        matches!(self.transactions[&id].outcome, Outcome::Done(at) if at < sent_at)
    }

    /// How many rows a delete must report: all of its victim's, unless something else erases too.
    ///
    /// # Errors
    /// ATOM-1 if `affected` is another number.
    pub fn check_deleted(
        &self,
        victim: TransactionId,
        eraser: EraserId,
        affected: u64,
    ) -> Result<(), Violation> {
        let transaction = &self.transactions[&victim];
        let alone = transaction.erasers.iter().all(|id| *id == eraser);
        let rows = transaction.shape.rows;
        if affected == rows || (affected == 0 && !alone) || transaction.outcome == Outcome::Open {
            return Ok(());
        }
        let text = format!("a delete of {} removed {affected} rows", self.name(victim));
        Err(Violation::new("ATOM-1", text))
    }

    // ---- reads ----

    /// Judge what a read that was sent at `asked` found, and remember what it settled.
    ///
    /// # Errors
    /// What the read shows cannot be.
    pub fn judge_read(
        &mut self,
        tenant: usize,
        asked: Asked,
        found: &BTreeMap<String, Found>,
    ) -> Result<(), Violation> {
        let now = self.answer();
        let mut seen = BTreeSet::new();
        for (mark, found) in found {
            let id = self.judge_mark(tenant, asked, mark)?;
            self.judge_present(id, asked, found)?;
            if !matches!(self.transactions[&id].outcome, Outcome::Gone(_)) {
                self.settle_present(id, asked, now);
            }
            seen.insert(id);
        }
        let live = self.live.get(&tenant).cloned().unwrap_or_default();
        for id in live.difference(&seen) {
            self.judge_absent(*id, asked)?;
            self.settle_absent(*id, asked, now);
        }
        Ok(())
    }

    /// The transaction of a mark, if it is one of the tenant's that may be there.
    fn judge_mark(
        &self,
        tenant: usize,
        asked: Asked,
        mark: &str,
    ) -> Result<TransactionId, Violation> {
        let name = tenant_name(tenant);
        let nowhere = || Violation::new("DUR-1", format!("{name} holds {mark:?}, never written"));
        let (owner, id) = parse_mark(mark).ok_or_else(nowhere)?;
        if owner != name {
            let text = format!("{name} shows {mark:?}, a row of {owner}");
            return Err(Violation::new("TEN-1", text));
        }
        let transaction = self.transactions.get(&id).ok_or_else(nowhere)?;
        if transaction.shape.tenant != tenant {
            return Err(nowhere());
        }
        match transaction.outcome {
            Outcome::Open => {
                let text = format!("{} shows, though it never committed", self.name(id));
                Err(Violation::new("ATOM-1", text))
            }
            Outcome::Gone(at) if at < asked.at => {
                let text = format!("{} shows, though it was gone", self.name(id));
                Err(Violation::new("DUR-1", text))
            }
            _ => Ok(id),
        }
    }

    fn judge_present(
        &self,
        id: TransactionId,
        asked: Asked,
        found: &Found,
    ) -> Result<(), Violation> {
        let transaction = &self.transactions[&id];
        let shape = transaction.shape;
        let expected = Found {
            rows: shape.rows,
            first: shape.first,
            last: shape.first + shape.rows - 1,
            pad_bytes: shape.rows * shape.pad_words * 8,
            intact: shape.rows,
        };
        if *found != expected {
            let text = format!("{} shows as {found:?}, not {expected:?}", self.name(id));
            return Err(Violation::new("ATOM-1", text));
        }
        for eraser in &transaction.erasers {
            let Eraser { outcome, is_drop, .. } = self.erasers[eraser.0];
            let before = matches!(outcome, Outcome::Done(at) if at < asked.at);
            if before && self.covers(*eraser, id) {
                let property = if is_drop { "DUR-4" } else { "DUR-1" };
                let what = if is_drop { "its database was dropped" } else { "it was deleted" };
                let text = format!("{} shows, though {what}", self.name(id));
                return Err(Violation::new(property, text));
            }
        }
        Ok(())
    }

    fn settle_present(&mut self, id: TransactionId, asked: Asked, now: u64) {
        let mut failed = Vec::new();
        for eraser in self.transactions[&id].erasers.clone() {
            let survived = match self.erasers[eraser.0].outcome {
                Outcome::Done(at) => at < asked.at,
                Outcome::Lost(epoch) => {
                    let over = epoch < asked.epoch;
                    if over && self.covers(eraser, id) {
                        failed.push(eraser);
                    }
                    over
                }
                Outcome::Open | Outcome::Sent | Outcome::Gone(_) => false,
            };
            if survived {
                let transaction = self.transactions.get_mut(&id).expect("it was begun");
                transaction.erasers.retain(|other| *other != eraser);
            }
        }
        for eraser in failed {
            self.erase_refused(eraser);
        }
        let transaction = self.transactions.get_mut(&id).expect("it was begun");
        if !matches!(transaction.outcome, Outcome::Done(_)) {
            transaction.outcome = Outcome::Done(now);
        }
    }

    fn judge_absent(&self, id: TransactionId, asked: Asked) -> Result<(), Violation> {
        let transaction = &self.transactions[&id];
        match transaction.outcome {
            Outcome::Done(at) if at < asked.at && transaction.erasers.is_empty() => {
                let text = format!("{} was acknowledged or seen, and is gone", self.name(id));
                Err(Violation::new("DUR-1", text))
            }
            _ => Ok(()),
        }
    }

    fn settle_absent(&mut self, id: TransactionId, asked: Asked, now: u64) {
        let transaction = &self.transactions[&id];
        match transaction.outcome {
            Outcome::Done(at) if at < asked.at => {
                // Only one thing can have erased it: then that happened, to all that it covers.
                if let [only] = transaction.erasers[..]
                    && self.covers(only, id)
                    && matches!(self.erasers[only.0].outcome, Outcome::Lost(_))
                {
                    self.erasers[only.0].outcome = Outcome::Done(now);
                }
                self.gone(id, now);
            }
            Outcome::Lost(epoch) if epoch < asked.epoch => self.gone(id, now),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
