//! Interactive transactions: begin, work with pauses, looks at what is there, an entry in the
//! journal, commit, rollback or silence.
//!
//! Owns what a transaction must see of itself and of others while it is open: its own rows
//! (ISO-2), one snapshot from its first look on, and a number that follows what it looked at
//! (ISO-1: else somebody's update is lost).

use serde_json::Value;

use super::Sim;
use super::client::{Client, Pending, Purpose};
use super::ground::Ground;
use super::journal::{Change, Shape, Transfer};
use super::model::{Asked, TransactionId, Violation};
use super::speech::{self, Refused};
use super::workload::Request;

/// A request of an interactive transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Begin.
    Begin,
    /// Insert so many more rows.
    Insert(u64),
    /// Ask what the accounts hold.
    Look,
    /// Set the account that gives, or the one that takes.
    Set(bool),
    /// Count its own rows, and look at the journal's end.
    Peek,
    /// Write its entry.
    Note,
    /// Commit and close.
    Commit,
    /// Roll back and close.
    End,
}

/// What it is to change.
#[derive(Clone, Debug)]
pub enum Work {
    /// Insert rows, some at a time.
    Insert {
        /// Which.
        shape: Shape,
        /// So many are in.
        inserted: u64,
    },
    /// Read two balances, and write what should be there.
    Transfer {
        /// Which.
        transfer: Transfer,
        /// What was read.
        balances: Vec<i64>,
        /// How many are written.
        written: u64,
    },
}

impl Work {
    /// Nothing of it is done.
    pub fn insert(shape: Shape) -> Work {
        Work::Insert { shape, inserted: 0 }
    }

    /// Nothing of it is done.
    pub fn transfer(transfer: Transfer) -> Work {
        Work::Transfer { transfer, balances: Vec::new(), written: 0 }
    }

    fn change(&self) -> Change {
        match self {
            Work::Insert { shape, .. } => Change::Insert(*shape),
            Work::Transfer { transfer, .. } => Change::Transfer(*transfer),
        }
    }

    fn inserted(&self) -> u64 {
        match self {
            Work::Insert { inserted, .. } => *inserted,
            Work::Transfer { .. } => 0,
        }
    }
}

/// An interactive transaction.
#[derive(Clone, Debug)]
pub struct Session {
    tenant: usize,
    id: TransactionId,
    work: Work,
    baton: Option<String>,
    /// It ends with a commit, unless something fails.
    commits: bool,
    /// A statement failed: who knows what is there.
    failed: bool,
    /// Pauses may be long.
    held: bool,
    /// It falls silent after so many requests.
    silent_after: Option<u64>,
    begun: Option<Asked>,
    /// The incarnation and the last number at the first look.
    glimpse: Option<(String, u64)>,
    /// Its own incarnation and number.
    noted: Option<(String, u64)>,
}

impl Session {
    /// Whether its pauses may be long.
    pub fn is_held(&self) -> bool {
        self.held
    }
}

impl Client {
    /// Take a transaction in hand; nothing is sent yet.
    pub fn begin_session(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        tenant: usize,
        work: Work,
        held: bool,
    ) {
        let id = ground.model.begin(tenant, work.change());
        let commits = self.draw(sim, 4) != 0;
        let abandoned = ground.moment(storage::io::Clock::now(sim)).abandoned;
        let silent = held && self.draw(sim, 100) < abandoned;
        let silent_after = silent.then(|| 1 + self.draw(sim, 4));
        self.session = Some(Session {
            tenant,
            id,
            work,
            baton: None,
            commits,
            failed: false,
            held,
            silent_after,
            begun: None,
            glimpse: None,
            noted: None,
        });
    }

    /// The next request of the transaction in hand; none if it falls silent.
    pub fn next_step(&mut self, sim: &mut Sim, ground: &mut Ground) -> Vec<Request> {
        let Some(mut session) = self.session.take() else { return Vec::new() };
        if let Some(left) = &mut session.silent_after {
            if *left == 0 {
                // The stream is left to expire; someone may come back with its baton.
                self.old_baton = session.baton.map(|baton| (session.tenant, baton));
                return Vec::new();
            }
            *left -= 1;
        }
        let stage = self.draw_stage(sim, &session);
        let (tenant, id) = (session.tenant, session.id);
        let immediate = self.draw(sim, 3) != 0;
        let statement = match stage {
            Stage::Begin if immediate => speech::plain("BEGIN IMMEDIATE"),
            Stage::Begin => speech::plain("BEGIN"),
            Stage::Peek => speech::peek(tenant, id),
            Stage::Note => speech::note(tenant, id),
            Stage::Commit => speech::plain("COMMIT"),
            Stage::End => speech::plain("ROLLBACK"),
            Stage::Look => speech::balances(),
            Stage::Insert(rows) => {
                let Work::Insert { shape, inserted } = session.work else {
                    unreachable!("it inserts")
                };
                speech::insert(tenant, id, shape, inserted, rows)
            }
            Stage::Set(target) => set_statement(&session.work, target),
        };
        if stage == Stage::Commit {
            ground.model.commit_sent(id);
        }
        let closes = matches!(stage, Stage::Commit | Stage::End);
        let requests = vec![speech::execute(statement)];
        let bytes = speech::pipeline(tenant, session.baton.as_deref(), requests, closes);
        let pending = self.pending(sim, ground, tenant, Purpose::Step(stage));
        session.begun.get_or_insert(pending.asked);
        self.session = Some(session);
        vec![(pending, bytes)]
    }

    fn draw_stage(&self, sim: &mut Sim, session: &Session) -> Stage {
        if session.baton.is_none() {
            return Stage::Begin;
        }
        if self.draw(sim, 6) == 0 {
            return Stage::Peek;
        }
        if session.failed || (!session.commits && self.draw(sim, 2) == 0) {
            return Stage::End;
        }
        match &session.work {
            Work::Insert { shape, inserted } if *inserted < shape.rows => {
                Stage::Insert(self.draw_span(sim, 1, shape.rows - inserted))
            }
            Work::Transfer { balances, .. } if balances.is_empty() => Stage::Look,
            Work::Transfer { written, .. } if *written < 2 => Stage::Set(*written == 1),
            _ if !session.commits => Stage::End,
            _ if session.noted.is_none() => Stage::Note,
            _ => Stage::Commit,
        }
    }

    /// Come back with the baton of a transaction that was left alone: it may be gone.
    pub fn use_old_baton(&mut self, sim: &mut Sim, ground: &mut Ground) -> Vec<Request> {
        let Some((tenant, baton)) = self.old_baton.take() else { return Vec::new() };
        let requests = vec![speech::execute(speech::plain("ROLLBACK"))];
        let bytes = speech::pipeline(tenant, Some(&baton), requests, true);
        vec![(self.pending(sim, ground, tenant, Purpose::OldBaton), bytes)]
    }

    /// How many results the answer to a step has.
    pub fn step_results(stage: Stage) -> usize {
        if matches!(stage, Stage::Commit | Stage::End) { 2 } else { 1 }
    }

    /// A step was answered.
    ///
    /// # Errors
    /// ISO-1 and ISO-2, see the head of the file; what a commit or refusal violates.
    pub fn hear_step(
        &mut self,
        ground: &mut Ground,
        pending: &Pending,
        stage: Stage,
        baton: Option<String>,
        result: Result<Value, Refused>,
    ) -> Result<(), Violation> {
        let Some(session) = &mut self.session else { return Ok(()) };
        session.baton = baton;
        let id = session.id;
        match (stage, result) {
            (Stage::Commit, result) => {
                let place = session.noted.take();
                self.session = None;
                let place = place.as_ref().map(|(incarnation, n)| (incarnation.as_str(), *n));
                return self.hear_commit(ground, (pending.tenant, id), place, None, result.err());
            }
            // There may be nothing to roll back any more.
            (Stage::End, _) => self.session = None,
            (Stage::Begin, Err(refused)) => {
                self.session = None;
                return ground.judge_refusal(pending.tenant, &refused);
            }
            (_, Err(refused)) => {
                session.failed = true;
                return ground.judge_refusal(pending.tenant, &refused);
            }
            (_, Ok(result)) => session.hear(ground, stage, &result)?,
        }
        ground.counts.ok += 1;
        Ok(())
    }

    /// The transaction's last request was refused as a whole.
    ///
    /// # Errors
    /// ATOM-1 if it had been seen.
    pub fn refuse_session(&mut self, ground: &mut Ground) -> Result<(), Violation> {
        match self.session.take() {
            Some(session) => ground.model.refused(session.id),
            None => Ok(()),
        }
    }

    /// The answer to its last request is lost.
    pub fn lose_session(&mut self, ground: &mut Ground, asked: Asked) {
        if let Some(session) = self.session.take() {
            ground.model.lost(session.id, asked);
        }
    }
}

fn set_statement(work: &Work, target: bool) -> Value {
    let Work::Transfer { transfer, balances, .. } = work else { unreachable!("it moves money") };
    let Transfer { source, target: taker, amount } = *transfer;
    let (account, amount) = if target { (taker, amount) } else { (source, -amount) };
    speech::set(account, balances[account] + amount)
}

impl Session {
    /// A statement of it went well.
    fn hear(&mut self, ground: &mut Ground, stage: Stage, result: &Value) -> Result<(), Violation> {
        let strange = || Violation::new("HTTP-1", format!("a result of another shape: {result}"));
        match stage {
            Stage::Begin | Stage::Commit | Stage::End => {}
            Stage::Insert(rows) => {
                if let Work::Insert { inserted, .. } = &mut self.work {
                    *inserted += rows;
                }
            }
            Stage::Set(_) => {
                if let Work::Transfer { written, .. } = &mut self.work {
                    *written += 1;
                }
            }
            Stage::Look => {
                let found = speech::column(result).ok_or_else(strange)?;
                if let Work::Transfer { balances, .. } = &mut self.work {
                    *balances = found;
                }
            }
            Stage::Peek => {
                let (rows, last, incarnation) = speech::peeked(result).ok_or_else(strange)?;
                return self.hear_peek(ground, rows, last, incarnation);
            }
            Stage::Note => {
                let (incarnation, n) = speech::noted(result).ok_or_else(strange)?;
                return self.hear_note(incarnation, n);
            }
        }
        Ok(())
    }

    fn hear_peek(
        &mut self,
        ground: &mut Ground,
        rows: u64,
        last: u64,
        incarnation: &str,
    ) -> Result<(), Violation> {
        let inserted = self.work.inserted();
        if rows != inserted && !self.failed {
            let text = format!("a transaction of {inserted} rows sees {rows} of them");
            return Err(Violation::new("ISO-2", text));
        }
        // After an error that rolled the transaction back, each look is one by itself.
        let before = self.noted.as_ref().or(self.glimpse.as_ref()).filter(|_| !self.failed);
        if let Some(before) = before {
            if (before.0.as_str(), before.1) != (incarnation, last) {
                let text = format!("a transaction sees {before:?}, then {incarnation} {last}");
                return Err(Violation::new("ISO-1", text));
            }
            return Ok(());
        }
        let begun = self.begun.expect("its first request was sent");
        ground.model.judge_glimpse(self.tenant, begun, incarnation, last)?;
        self.glimpse = Some((incarnation.to_owned(), last));
        Ok(())
    }

    fn hear_note(&mut self, incarnation: &str, n: u64) -> Result<(), Violation> {
        if let Some((before, last)) = &self.glimpse
            && (before != incarnation || last + 1 != n)
        {
            let text = format!("a transaction saw {before} end at {last}, and writes at {n}");
            return Err(Violation::new("ISO-1", text));
        }
        self.noted = Some((incarnation.to_owned(), n));
        Ok(())
    }
}
