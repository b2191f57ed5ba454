//! The model: what was asked of each database, what was answered, and what may be found in it.
//!
//! Owns the oracles of contents. Each database is judged against the simplest one that is strictly
//! serializable: the journal in it says in which order the transactions took effect, and
//!
//! - what was acknowledged or seen stands in every later read (DUR-1), at its number, for ever;
//! - nobody stands before a transaction that had ended when he was asked for; numbers have no gaps;
//!   a snapshot is one moment; what it shows is what a map shows that replays the journal up to
//!   there (ISO-1, where it is an order that is wrong; ATOM-1, where a transaction shows in part,
//!   or though it was refused);
//! - only the tenant's own marks show (TEN-1), and nothing of what was dropped (DUR-4).
//!
//! An answer that is lost leaves its transaction unknown until a read shows it; one that was lost
//! in an earlier life of the server (`epoch`) and does not show has not happened. Time is a count
//! of requests and answers. Reads no disk and draws nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Change, Found, Journal, Shape, State};

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

/// Number of a drop of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropId {
    tenant: usize,
    index: usize,
}

/// How far something got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing was asked for that could make it happen, or it was refused.
    Open,
    /// Asked for, and not answered.
    Sent,
    /// The answer is lost; it may have happened in this epoch, not later.
    Lost(u64),
    /// It happened, known since then.
    Done(u64),
    /// It is not there: no read that was sent after this can show it. It had happened, or not.
    Gone(u64, bool),
}

#[derive(Clone, Debug)]
struct Transaction {
    tenant: usize,
    change: Change,
    sent: Asked,
    outcome: Outcome,
    /// Its incarnation and number there.
    place: Option<Place>,
    /// Rows that it said to have deleted.
    affected: Option<u64>,
}

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Who began the journal.
    pub incarnation: TransactionId,
    /// The number in it.
    pub n: u64,
}

#[derive(Clone, Copy, Debug)]
struct Dropping {
    sent: Asked,
    /// `Open` if it was refused.
    outcome: Outcome,
}

/// Something that found an incarnation there.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    asked: Asked,
    answered_at: u64,
}

#[derive(Clone, Debug, Default)]
struct Incarnation {
    journal: Journal,
    /// The newest few.
    sightings: Vec<Sighting>,
    /// No read that was sent after this can show it.
    dead_at: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Tenant {
    incarnations: BTreeMap<TransactionId, Incarnation>,
    /// The one that was seen last.
    current: Option<TransactionId>,
    /// Transactions that may stand somewhere, nobody knows where.
    waiting: BTreeSet<TransactionId>,
    drops: Vec<Dropping>,
}

/// What one read found, in one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Number 0 of the journal, its last one, and all from the asked one on.
    pub journal: BTreeMap<u64, String>,
    /// Rows by mark.
    pub marks: BTreeMap<String, Found>,
    /// What the accounts hold.
    pub balances: Vec<i64>,
    /// Number of the transaction that made the table `extra`.
    pub extra_table: Option<u64>,
    /// Whether the index is there.
    pub extra_index: bool,
}

/// Sightings kept of an incarnation: more than clients ask at once in most worlds.
const SIGHTINGS_MAX: usize = 16;

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Model {
    count: u64,
    /// Life of the server.
    pub epoch: u64,
    transactions: BTreeMap<TransactionId, Transaction>,
    tenants: BTreeMap<usize, Tenant>,
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

    fn tenant(&mut self, tenant: usize) -> &mut Tenant {
        self.tenants.entry(tenant).or_default()
    }

    fn transaction(&mut self, id: TransactionId) -> &mut Transaction {
        self.transactions.get_mut(&id).expect("it was begun")
    }

    fn name(&self, id: TransactionId) -> String {
        let Transaction { tenant, change, place, .. } = &self.transactions[&id];
        let name = tenant_name(*tenant);
        let at = place.map_or_else(String::new, |place| format!(" at {}", place.n));
        format!("transaction {} ({change:?}) of {name}{at}", id.0)
    }

    // ---- transactions ----

    /// A transaction that nobody was asked to commit yet.
    pub fn begin(&mut self, tenant: usize, change: Change) -> TransactionId {
        let id = TransactionId(self.next_transaction);
        self.next_transaction += 1;
        let (sent, outcome) = (Asked { at: 0, epoch: self.epoch }, Outcome::Open);
        let transaction =
            Transaction { tenant, change, sent, outcome, place: None, affected: None };
        self.transactions.insert(id, transaction);
        id
    }

    /// Ids for so many rows that nobody else uses.
    pub fn shape(&mut self, rows: u64, pad_words: u64) -> Shape {
        assert!(rows > 0);
        let first = self.next_row + 1;
        self.next_row += rows;
        Shape { first, rows, pad_words }
    }

    /// What a transaction changes.
    #[must_use]
    pub fn change(&self, id: TransactionId) -> Change {
        self.transactions[&id].change
    }

    /// Its commit is sent.
    pub fn commit_sent(&mut self, id: TransactionId) {
        let sent = self.ask();
        let transaction = self.transaction(id);
        assert_eq!(transaction.outcome, Outcome::Open, "a transaction is committed once");
        transaction.outcome = Outcome::Sent;
        transaction.sent = sent;
        let tenant = transaction.tenant;
        self.tenant(tenant).waiting.insert(id);
    }

    /// Its commit was acknowledged, with its number if that was asked for.
    ///
    /// # Errors
    /// If the number cannot be.
    pub fn committed(
        &mut self,
        id: TransactionId,
        place: Option<(&str, u64)>,
        affected: Option<u64>,
    ) -> Result<(), Violation> {
        let now = self.answer();
        let transaction = self.transaction(id);
        transaction.affected = affected;
        if matches!(transaction.outcome, Outcome::Sent) {
            transaction.outcome = Outcome::Done(now);
        }
        let (tenant, sent) = (transaction.tenant, transaction.sent);
        let Some((incarnation, n)) = place else { return Ok(()) };
        let incarnation = self.judge_mark(tenant, sent, incarnation)?;
        self.judge_incarnation(tenant, sent, incarnation)?;
        self.sighted(tenant, incarnation, sent, now);
        self.place(tenant, sent, id, Place { incarnation, n }, now)?;
        self.advance(tenant, incarnation)
    }

    /// Its commit was refused: it did not happen, or nobody will ever ask for it.
    ///
    /// # Errors
    /// ATOM-1 if it was seen already.
    pub fn refused(&mut self, id: TransactionId) -> Result<(), Violation> {
        let transaction = self.transaction(id);
        if matches!(transaction.outcome, Outcome::Done(_) | Outcome::Gone(_, true)) {
            let text = format!("{} was seen, then its commit was refused", self.name(id));
            return Err(Violation::new("ATOM-1", text));
        }
        transaction.outcome = Outcome::Open;
        let tenant = transaction.tenant;
        self.tenant(tenant).waiting.remove(&id);
        Ok(())
    }

    /// No answer will come: it may have happened, or may yet in this life of the server.
    pub fn lost(&mut self, id: TransactionId, asked: Asked) {
        let transaction = self.transaction(id);
        if transaction.outcome == Outcome::Sent {
            transaction.outcome = Outcome::Lost(asked.epoch);
        }
    }

    /// A transaction whose rows are there, the `index`th of them modulo their number.
    #[must_use]
    pub fn victim(&self, tenant: usize, index: u64) -> Option<TransactionId> {
        let tenant = self.tenants.get(&tenant)?;
        tenant.incarnations[&tenant.current?].journal.victim(index)
    }

    /// Transactions whose rows may be there.
    #[must_use]
    pub fn live_count(&self, tenant: usize) -> usize {
        let Some(tenant) = self.tenants.get(&tenant) else { return 0 };
        let journal = |id: TransactionId| &tenant.incarnations[&id].journal;
        tenant.current.map_or(0, |id| journal(id).live_count()) + tenant.waiting.len()
    }

    /// Numbers of the journal that are known: a read need not ask for all of these.
    #[must_use]
    pub fn known(&self, tenant: usize) -> u64 {
        let Some(tenant) = self.tenants.get(&tenant) else { return 0 };
        tenant.current.map_or(0, |id| tenant.incarnations[&id].journal.len())
    }

    // ---- drops ----

    /// A drop of a tenant is sent.
    pub fn drop_sent(&mut self, tenant: usize, sent: Asked) -> DropId {
        let drops = &mut self.tenant(tenant).drops;
        drops.push(Dropping { sent, outcome: Outcome::Sent });
        DropId { tenant, index: drops.len() - 1 }
    }

    fn drop_at(&mut self, id: DropId) -> &mut Dropping {
        &mut self.tenant(id.tenant).drops[id.index]
    }

    /// It was acknowledged: all that had ended before it was sent is gone.
    pub fn dropped(&mut self, id: DropId) {
        let now = self.answer();
        let dropping = self.drop_at(id);
        dropping.outcome = Outcome::Done(now);
        let sent_at = dropping.sent.at;
        let tenant = self.tenants.get_mut(&id.tenant).expect("it was sent");
        for incarnation in tenant.incarnations.values_mut() {
            let before = incarnation.sightings.iter().any(|seen| seen.answered_at < sent_at);
            if before && incarnation.dead_at.is_none() {
                incarnation.dead_at = Some(now);
            }
        }
        for id in tenant.waiting.clone() {
            let transaction = self.transactions.get_mut(&id).expect("it was begun");
            if matches!(transaction.outcome, Outcome::Done(at) if at < sent_at) {
                transaction.outcome = Outcome::Gone(now, true);
                tenant.waiting.remove(&id);
            }
        }
    }

    /// It was refused: nothing was dropped.
    pub fn drop_refused(&mut self, id: DropId) {
        self.drop_at(id).outcome = Outcome::Open;
    }

    /// Its answer is lost.
    pub fn drop_lost(&mut self, id: DropId, asked: Asked) {
        self.drop_at(id).outcome = Outcome::Lost(asked.epoch);
    }

    /// Whether a drop may have come after a moment between `since` and now.
    fn may_be_dropped(&self, tenant: usize, since: Asked) -> bool {
        let drops = self.tenants.get(&tenant).map_or(&[][..], |tenant| &tenant.drops);
        drops.iter().any(|dropping| match dropping.outcome {
            Outcome::Sent => true,
            Outcome::Lost(epoch) => epoch >= since.epoch,
            Outcome::Done(at) => at > since.at,
            Outcome::Open | Outcome::Gone(..) => false,
        })
    }

    // ---- reads ----

    /// Judge what a read that was sent at `asked` found, and remember what it settled. It asked for
    /// the journal from `from` on; `None` if there was no database, or no table.
    ///
    /// # Errors
    /// What the read shows cannot be.
    pub fn judge_read(
        &mut self,
        tenant: usize,
        asked: Asked,
        from: u64,
        snapshot: Option<&Snapshot>,
    ) -> Result<(), Violation> {
        let now = self.answer();
        let mut seen = None;
        let mut whole = true;
        if let Some(snapshot) = snapshot {
            let incarnation = self.judge_journal(tenant, asked, from, snapshot, now)?;
            self.advance(tenant, incarnation)?;
            let last = *snapshot.journal.last_key_value().expect("it was judged").0;
            let journal = &self.tenants[&tenant].incarnations[&incarnation].journal;
            whole = last < journal.len();
            if whole {
                let state = journal.state(last);
                self.judge_state(tenant, last, &state, snapshot)?;
            }
            self.sighted(tenant, incarnation, asked, now);
            self.tenant(tenant).current = Some(incarnation);
            seen = Some(incarnation);
        }
        self.judge_others(tenant, asked, seen, now)?;
        if whole {
            self.judge_waiting(tenant, asked, seen.is_some(), now)?;
        }
        Ok(())
    }

    /// A look at the end of the journal inside of a transaction whose first request was `asked`.
    ///
    /// # Errors
    /// If it misses something that had ended before.
    pub fn judge_glimpse(
        &mut self,
        tenant: usize,
        asked: Asked,
        incarnation: &str,
        last: u64,
    ) -> Result<TransactionId, Violation> {
        let id = self.judge_mark(tenant, asked, incarnation)?;
        self.judge_incarnation(tenant, asked, id)?;
        self.judge_end(tenant, asked, id, last)?;
        Ok(id)
    }

    /// A count of one transaction's rows, in a snapshot of this incarnation and last number.
    ///
    /// # Errors
    /// If the replay has another number of them there, or something that had ended is missing.
    pub fn judge_point(
        &mut self,
        tenant: usize,
        asked: Asked,
        (incarnation, last): (&str, u64),
        (id, rows): (TransactionId, u64),
    ) -> Result<(), Violation> {
        let incarnation = self.judge_glimpse(tenant, asked, incarnation, last)?;
        let known = self.tenants.get(&tenant).and_then(|it| it.incarnations.get(&incarnation));
        let Some(known) = known.filter(|known| last < known.journal.len()) else { return Ok(()) };
        let expected = known.journal.rows(id, last);
        if rows == expected {
            return Ok(());
        }
        let text = format!("{} has {rows} rows after {last}, not {expected}", self.name(id));
        Err(Violation::new("ISO-1", text))
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
        if transaction.tenant != tenant {
            return Err(nowhere());
        }
        match transaction.outcome {
            Outcome::Open => {
                let text = format!("{} shows, though it never committed", self.name(id));
                Err(Violation::new("ATOM-1", text))
            }
            Outcome::Gone(at, happened) if at < asked.at => {
                let property = if happened { "DUR-4" } else { "ATOM-1" };
                let text = format!("{} shows, though it was gone", self.name(id));
                Err(Violation::new(property, text))
            }
            _ => Ok(id),
        }
    }

    /// Whether an incarnation may be seen by what was asked then.
    fn judge_incarnation(
        &self,
        tenant: usize,
        asked: Asked,
        id: TransactionId,
    ) -> Result<(), Violation> {
        if self.transactions[&id].change != Change::Setup {
            let text = format!("the journal begins with {}", self.name(id));
            return Err(Violation::new("ISO-1", text));
        }
        let known = self.tenants.get(&tenant).and_then(|tenant| tenant.incarnations.get(&id));
        match known.and_then(|incarnation| incarnation.dead_at) {
            Some(at) if at < asked.at => {
                let text = format!("{} shows, though its database was dropped", self.name(id));
                Err(Violation::new("DUR-4", text))
            }
            _ => Ok(()),
        }
    }

    /// DUR-1: everything that had ended when it was asked for stands at or before `last`.
    fn judge_end(
        &self,
        tenant: usize,
        asked: Asked,
        incarnation: TransactionId,
        last: u64,
    ) -> Result<(), Violation> {
        let known = self.tenants.get(&tenant).and_then(|it| it.incarnations.get(&incarnation));
        let Some(known) = known else { return Ok(()) };
        let mut ended = known.journal.backwards().filter(
            |(_, id)| matches!(self.transactions[id].outcome, Outcome::Done(at) if at < asked.at),
        );
        match ended.next() {
            Some((n, id)) if n > last => {
                let name = self.name(id);
                let text = format!("{name} was acknowledged or seen; the journal ends at {last}");
                Err(Violation::new("DUR-1", text))
            }
            _ => Ok(()),
        }
    }

    fn judge_journal(
        &mut self,
        tenant: usize,
        asked: Asked,
        from: u64,
        snapshot: &Snapshot,
        now: u64,
    ) -> Result<TransactionId, Violation> {
        let name = tenant_name(tenant);
        let Some(first) = snapshot.journal.get(&0) else {
            let text = format!("{name} has tables, and a journal without a beginning");
            return Err(Violation::new("ATOM-1", text));
        };
        let incarnation = self.judge_mark(tenant, asked, first)?;
        self.judge_incarnation(tenant, asked, incarnation)?;
        let last = *snapshot.journal.last_key_value().expect("it has number 0").0;
        let tail = from.min(last)..=last;
        if let Some(gap) = tail.clone().find(|n| !snapshot.journal.contains_key(n)) {
            let text = format!("the journal of {name} ends at {last} and has no {gap}");
            return Err(Violation::new("ISO-1", text));
        }
        self.judge_end(tenant, asked, incarnation, last)?;
        for (n, mark) in &snapshot.journal {
            let id = self.judge_mark(tenant, asked, mark)?;
            self.place(tenant, asked, id, Place { incarnation, n: *n }, now)?;
        }
        Ok(incarnation)
    }

    /// A transaction stands there: remember it, if nothing speaks against it.
    fn place(
        &mut self,
        tenant: usize,
        asked: Asked,
        id: TransactionId,
        place: Place,
        now: u64,
    ) -> Result<(), Violation> {
        let there = self.transactions[&id].place;
        let incarnations = &mut self.tenants.entry(tenant).or_default().incarnations;
        let journal = &mut incarnations.entry(place.incarnation).or_default().journal;
        match journal.at(place.n) {
            Some(known) if known == id => return Ok(()),
            Some(known) => {
                let outcome = self.transactions[&known].outcome;
                let ended = matches!(outcome, Outcome::Done(at) if at < asked.at);
                let property = if ended { "DUR-1" } else { "ISO-1" };
                let (known, other) = (self.name(known), self.name(id));
                let text = format!("{known} stood where {other} stands now, at {}", place.n);
                return Err(Violation::new(property, text));
            }
            None => {}
        }
        if let Some(there) = there {
            let text = format!("{} stands at {there:?} and {place:?}", self.name(id));
            return Err(Violation::new("ISO-1", text));
        }
        journal.place(place.n, id);
        self.tenant(tenant).waiting.remove(&id);
        let transaction = self.transaction(id);
        transaction.place = Some(place);
        if !matches!(transaction.outcome, Outcome::Done(_) | Outcome::Gone(..)) {
            transaction.outcome = Outcome::Done(now);
        }
        Ok(())
    }

    /// Replay what is known now without a gap.
    fn advance(&mut self, tenant: usize, incarnation: TransactionId) -> Result<(), Violation> {
        let incarnations = &mut self.tenants.get_mut(&tenant).expect("placed").incarnations;
        let journal = &mut incarnations.get_mut(&incarnation).expect("placed").journal;
        while let Some(id) = journal.next() {
            let transaction = &self.transactions[&id];
            let n = journal.len();
            let asked_before = journal.asked_before(n);
            if let Outcome::Done(at) = transaction.outcome
                && asked_before > at
            {
                let name = self.name(id);
                let text = format!("{name} stands behind one that was asked for after its end");
                return Err(Violation::new("ISO-1", text));
            }
            let rows = journal.apply(id, transaction.sent.at, transaction.change);
            if let Some(affected) = transaction.affected
                && affected != rows
            {
                let text = format!("{} said to delete {affected} rows of {rows}", self.name(id));
                return Err(Violation::new("ATOM-1", text));
            }
        }
        Ok(())
    }

    /// What a snapshot shows is what the replay shows after its last number.
    fn judge_state(
        &self,
        tenant: usize,
        last: u64,
        state: &State,
        snapshot: &Snapshot,
    ) -> Result<(), Violation> {
        let mut missing: BTreeSet<TransactionId> = state.rows.keys().copied().collect();
        for (shown, found) in &snapshot.marks {
            let asked = Asked { at: 0, epoch: 0 };
            let id = self.judge_mark(tenant, asked, shown)?;
            let Some(expected) = state.rows.get(&id) else {
                let name = self.name(id);
                let text = format!("rows of {name} show in a snapshot that ends at {last}");
                return Err(Violation::new("ISO-1", text));
            };
            if found != expected {
                let text = format!("{} shows as {found:?}, not {expected:?}", self.name(id));
                return Err(Violation::new("ATOM-1", text));
            }
            missing.remove(&id);
        }
        if let Some(id) = missing.first() {
            let text = format!("the journal has {}, its rows are not there", self.name(*id));
            return Err(Violation::new("ATOM-1", text));
        }
        let expected = (state.balances.as_slice(), state.extras.table, state.extras.index);
        let table = snapshot.extra_table.map(TransactionId);
        let found = (snapshot.balances.as_slice(), table, snapshot.extra_index);
        if expected != found {
            let name = tenant_name(tenant);
            let text = format!("{name} after {last} shows {found:?}, not {expected:?}");
            return Err(Violation::new("ISO-1", text));
        }
        Ok(())
    }

    fn sighted(&mut self, tenant: usize, id: TransactionId, asked: Asked, answered_at: u64) {
        let incarnation = self.tenant(tenant).incarnations.entry(id).or_default();
        if incarnation.sightings.len() == SIGHTINGS_MAX {
            incarnation.sightings.remove(0);
        }
        incarnation.sightings.push(Sighting { asked, answered_at });
    }

    /// Incarnations that were there before, and are not what a read shows: someone dropped them.
    fn judge_others(
        &mut self,
        tenant: usize,
        asked: Asked,
        seen: Option<TransactionId>,
        now: u64,
    ) -> Result<(), Violation> {
        let Some(known) = self.tenants.get(&tenant) else { return Ok(()) };
        let mut dead = Vec::new();
        for (id, incarnation) in &known.incarnations {
            if Some(*id) == seen || incarnation.dead_at.is_some() {
                continue;
            }
            let before = incarnation.sightings.iter().filter(|it| it.answered_at < asked.at);
            let Some(latest) = before.max_by_key(|it| it.asked.at) else { continue };
            if !self.may_be_dropped(tenant, latest.asked) {
                let (name, other) = (self.name(*id), seen.map(|other| self.name(other)));
                let text = format!("what {name} began is gone; a read shows {other:?}");
                return Err(Violation::new("DUR-1", text));
            }
            dead.push(*id);
        }
        for id in dead {
            let incarnations = &mut self.tenant(tenant).incarnations;
            incarnations.get_mut(&id).expect("just seen").dead_at = Some(now);
        }
        Ok(())
    }

    /// Transactions that stand nowhere in what a read knows in full.
    fn judge_waiting(
        &mut self,
        tenant: usize,
        asked: Asked,
        shows: bool,
        now: u64,
    ) -> Result<(), Violation> {
        let Some(known) = self.tenants.get(&tenant) else { return Ok(()) };
        for id in known.waiting.clone() {
            let Transaction { outcome, change, sent, .. } = self.transactions[&id];
            let happened = match outcome {
                // Tables that were there already: nothing to be seen of it.
                Outcome::Done(at) if at < asked.at && change == Change::Setup && shows => true,
                Outcome::Done(at) if at < asked.at => {
                    if !self.may_be_dropped(tenant, sent) {
                        let text = format!("{} was acknowledged, and is gone", self.name(id));
                        return Err(Violation::new("DUR-1", text));
                    }
                    true
                }
                Outcome::Lost(epoch) if epoch < asked.epoch => false,
                _ => continue,
            };
            self.transaction(id).outcome = Outcome::Gone(now, happened);
            self.tenant(tenant).waiting.remove(&id);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
