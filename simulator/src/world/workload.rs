//! What a client asks next: drawn when it is asked, from all that clients ask.
//!
//! Owns the choice of requests, and the interactive transaction: begin, inserts with pauses, a look
//! at its own rows, commit, rollback or silence.

use serde_json::Value;

use super::Sim;
use super::client::{AdminCall, Client, Pending, Purpose};
use super::ground::Ground;
use super::model::{Asked, EraserId, Shape, TransactionId, Violation};
use super::speech::{self, ReadForm, Refused};

/// Most bytes of padding in one transaction: twice what a tenant's WAL keeps in memory, so that
/// some spill, and a quarter of the smallest log, so that most fit.
const TRANSACTION_BYTES_MAX: u64 = 2 << 20;

/// Transactions of a tenant above which clients delete more than they write, so that reading all of
/// it stays cheap.
const LIVE_MAX: usize = 60;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Create the database; it may exist.
    Create(usize),
    /// Make the table.
    Setup(usize),
    /// Write.
    Write(usize),
    /// Read and compare.
    Read(usize),
}

impl Task {
    /// The tenant that it is about.
    pub fn tenant(self) -> usize {
        match self {
            Task::Create(tenant) | Task::Setup(tenant) => tenant,
            Task::Write(tenant) | Task::Read(tenant) => tenant,
        }
    }
}

/// A request of an interactive transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Begin.
    Begin,
    /// Insert so many more rows.
    Insert(u64),
    /// Count its own rows.
    Peek,
    /// Commit and close.
    Commit,
    /// Roll back and close.
    End,
}

/// An interactive transaction.
#[derive(Clone, Debug)]
pub struct Session {
    tenant: usize,
    id: TransactionId,
    shape: Shape,
    inserted: u64,
    baton: Option<String>,
    /// It ends with a commit, unless something fails.
    commits: bool,
}

type Request = (Pending, Vec<u8>);

impl Client {
    /// The next requests to send at once; none if there is nothing to do now.
    pub fn next_requests(&mut self, sim: &mut Sim, ground: &mut Ground) -> Vec<Request> {
        if let Some(script) = &mut self.script {
            while script.front().is_some_and(|task| ground.is_fenced(task.tenant())) {
                script.pop_front();
            }
            let Some(task) = script.front().copied() else {
                self.finished = true;
                return Vec::new();
            };
            return vec![self.task(sim, ground, task)];
        }
        if ground.operations_left == 0 {
            self.finished = true;
            self.session = None;
            return Vec::new();
        }
        if self.session.is_some() {
            return self.next_step(sim, ground);
        }
        ground.operations_left -= 1;
        if self.id == ground.options.clients as u64 {
            return vec![self.administrate(sim, ground)];
        }
        if let Some(tenant) = ground.bare.pop_first() {
            return vec![self.task(sim, ground, Task::Setup(tenant))];
        }
        let count = if self.draw(sim, 8) == 0 { 2 + self.draw(sim, 3) } else { 1 };
        let mut requests = Vec::new();
        for _ in 0..count {
            let tenant = self.draw_tenant(sim, ground);
            if count == 1 && self.draw(sim, 5) == 0 {
                self.begin_session(sim, ground, tenant);
                return self.next_step(sim, ground);
            }
            requests.push(self.choose(sim, ground, tenant));
        }
        requests
    }

    /// Some tenants are far more popular than others.
    fn draw_tenant(&self, sim: &mut Sim, ground: &Ground) -> usize {
        self.draw_span(sim, 1, ground.options.tenants as u64) as usize - 1
    }

    fn pending(&self, sim: &Sim, ground: &mut Ground, tenant: usize, purpose: Purpose) -> Pending {
        let (asked, name) = (ground.model.ask(), ground.name(tenant));
        Pending { tenant, asked, name, sent_at: sim.awake(), purpose }
    }

    fn task(&self, sim: &mut Sim, ground: &mut Ground, task: Task) -> Request {
        match task {
            Task::Create(tenant) => self.admin(sim, ground, AdminCall::Create(tenant)),
            Task::Setup(tenant) => {
                let sequence = serde_json::json!({ "type": "sequence", "sql": speech::SETUP });
                let bytes = speech::pipeline(tenant, None, vec![sequence], true);
                (self.pending(sim, ground, tenant, Purpose::Setup), bytes)
            }
            Task::Write(tenant) => self.inserts(sim, ground, tenant),
            Task::Read(tenant) => self.read(sim, ground, tenant),
        }
    }

    fn choose(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        let crowded = ground.model.live_count(tenant) > LIVE_MAX;
        match self.draw(sim, 100) {
            0..=29 => self.read(sim, ground, tenant),
            30..=39 => self.delete(sim, ground, tenant),
            _ if crowded => self.delete(sim, ground, tenant),
            40..=69 => self.inserts(sim, ground, tenant),
            _ => self.batch(sim, ground, tenant),
        }
    }

    fn begin(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> (TransactionId, Shape) {
        let pad_words = self.draw_span(sim, 1, ground.options.pad_words_max) - 1;
        let fitting = TRANSACTION_BYTES_MAX / (pad_words * 8 + 64);
        let rows = self.draw_span(sim, 1, ground.options.rows_max.min(fitting).max(1));
        ground.model.begin(tenant, rows, pad_words)
    }

    /// One to four transactions of one statement each.
    fn inserts(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        let count = 1 + self.draw(sim, 4);
        let (mut ids, mut requests) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (id, shape) = self.begin(sim, ground, tenant);
            ground.model.commit_sent(id);
            requests.push(speech::execute(speech::insert(id, shape, 0, shape.rows)));
            ids.push(id);
        }
        let bytes = speech::pipeline(tenant, None, requests, true);
        (self.pending(sim, ground, tenant, Purpose::Inserts(ids)), bytes)
    }

    /// A transaction of several statements in one batch; one in eight rolls back.
    fn batch(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        let (id, shape) = self.begin(sim, ground, tenant);
        let commits = self.draw(sim, 8) != 0;
        let by_cursor = self.draw(sim, 3) == 0;
        let mut statements = Vec::new();
        let mut from = 0;
        while from < shape.rows {
            let rows = self.draw_span(sim, 1, shape.rows - from);
            statements.push(speech::insert(id, shape, from, rows));
            from += rows;
        }
        if self.draw(sim, 4) == 0 {
            // Rows of a transaction that is taken back before the commit.
            let (undone, undone_shape) = self.begin(sim, ground, tenant);
            let rows = speech::insert(undone, undone_shape, 0, undone_shape.rows);
            statements.push(speech::plain("SAVEPOINT point"));
            statements.push(rows);
            statements.push(speech::plain("ROLLBACK TO point"));
            statements.push(speech::plain("RELEASE point"));
        }
        if by_cursor && self.draw(sim, 2) == 0 {
            statements.push(speech::plain(speech::READ_MARKS));
        }
        let steps = statements.len() + 3;
        let batch = speech::batch(statements, commits);
        if commits {
            ground.model.commit_sent(id);
        }
        let bytes = if by_cursor {
            speech::cursor(tenant, &batch)
        } else {
            let request = serde_json::json!({ "type": "batch", "batch": batch });
            speech::pipeline(tenant, None, vec![request], true)
        };
        let purpose = Purpose::Batch { id, commits, by_cursor, steps };
        (self.pending(sim, ground, tenant, purpose), bytes)
    }

    fn read(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        let form = match self.draw(sim, 8) {
            0 => ReadForm::Rows,
            1 => ReadForm::Cursor,
            _ => ReadForm::Marks,
        };
        let statement = form.statement();
        let bytes = if form == ReadForm::Cursor {
            let step = serde_json::json!({ "stmt": statement });
            speech::cursor(tenant, &serde_json::json!({ "steps": [step] }))
        } else {
            speech::pipeline(tenant, None, vec![speech::execute(statement)], true)
        };
        (self.pending(sim, ground, tenant, Purpose::Read(form)), bytes)
    }

    fn delete(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        let index = self.draw(sim, u64::from(u32::MAX));
        let Some(victim) = ground.model.victim(tenant, index) else {
            return self.read(sim, ground, tenant);
        };
        let asked = ground.model.ask();
        let eraser = ground.model.delete_sent(victim, asked);
        let statement = speech::execute(speech::delete(tenant, victim));
        let bytes = speech::pipeline(tenant, None, vec![statement], true);
        (self.pending(sim, ground, tenant, Purpose::Delete(victim, eraser)), bytes)
    }

    // ---- the control API ----

    fn administrate(&self, sim: &mut Sim, ground: &mut Ground) -> Request {
        let tenant = self.draw_tenant(sim, ground);
        let by_use = ground.options.create_on_first_use;
        let call = match self.draw(sim, 20) {
            0..=2 => AdminCall::Drop(tenant),
            3..=5 if by_use => AdminCall::Show(tenant),
            3..=14 => AdminCall::Create(tenant),
            15..=16 => AdminCall::Show(tenant),
            17..=18 => AdminCall::List,
            _ => AdminCall::Metrics,
        };
        self.admin(sim, ground, call)
    }

    fn admin(&self, sim: &mut Sim, ground: &mut Ground, call: AdminCall) -> Request {
        let path = |tenant| format!("/v1/namespaces/{}", super::model::tenant_name(tenant));
        let (tenant, bytes) = match call {
            AdminCall::Create(t) => (t, speech::admin("POST", &format!("{}/create", path(t)))),
            AdminCall::Drop(t) => (t, speech::admin("DELETE", &path(t))),
            AdminCall::Show(t) => (t, speech::admin("GET", &path(t))),
            AdminCall::List => (0, speech::admin("GET", "/v1/namespaces?limit=1000")),
            AdminCall::Metrics => (0, speech::admin("GET", "/metrics")),
        };
        let mut pending = self.pending(sim, ground, tenant, Purpose::Admin(call, None));
        let changes = matches!(call, AdminCall::Create(_) | AdminCall::Drop(_));
        if changes {
            ground.name_asked(tenant);
        }
        if matches!(call, AdminCall::Drop(_)) {
            let eraser: EraserId = ground.model.drop_sent(tenant, pending.asked);
            pending.purpose = Purpose::Admin(call, Some(eraser));
        }
        (pending, bytes)
    }

    // ---- interactive transactions ----

    fn begin_session(&mut self, sim: &mut Sim, ground: &mut Ground, tenant: usize) {
        let (id, shape) = self.begin(sim, ground, tenant);
        let commits = self.draw(sim, 4) != 0;
        self.session = Some(Session { tenant, id, shape, inserted: 0, baton: None, commits });
    }

    fn next_step(&mut self, sim: &mut Sim, ground: &mut Ground) -> Vec<Request> {
        let Some(session) = self.session.clone() else { return Vec::new() };
        let Session { tenant, id, shape, inserted, .. } = session;
        let rows_left = shape.rows - inserted;
        let stage = if session.baton.is_none() {
            Stage::Begin
        } else if self.draw(sim, 20) == 0 {
            // Silence: the stream is left to expire.
            self.session = None;
            return Vec::new();
        } else if self.draw(sim, 6) == 0 {
            Stage::Peek
        } else if rows_left > 0 && (session.commits || self.draw(sim, 2) == 0) {
            Stage::Insert(self.draw_span(sim, 1, rows_left))
        } else if session.commits {
            Stage::Commit
        } else {
            Stage::End
        };
        let (statement, closes) = match stage {
            Stage::Begin if self.draw(sim, 3) == 0 => (speech::plain("BEGIN"), false),
            Stage::Begin => (speech::plain("BEGIN IMMEDIATE"), false),
            Stage::Insert(rows) => (speech::insert(id, shape, inserted, rows), false),
            Stage::Peek => (speech::peek(tenant, id), false),
            Stage::Commit => (speech::plain("COMMIT"), true),
            Stage::End => (speech::plain("ROLLBACK"), true),
        };
        if stage == Stage::Commit {
            ground.model.commit_sent(id);
        }
        let requests = vec![speech::execute(statement)];
        let bytes = speech::pipeline(tenant, session.baton.as_deref(), requests, closes);
        vec![(self.pending(sim, ground, tenant, Purpose::Step(stage)), bytes)]
    }

    /// How many results the answer to a step has.
    pub fn step_results(stage: Stage) -> usize {
        if matches!(stage, Stage::Commit | Stage::End) { 2 } else { 1 }
    }

    /// A step was answered.
    ///
    /// # Errors
    /// ISO-2 if a transaction does not see its own rows; what a commit or refusal violates.
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
        let (id, inserted) = (session.id, session.inserted);
        match (stage, result) {
            (Stage::Commit, result) => {
                self.session = None;
                return self.hear_commit(ground, pending.tenant, id, result.err());
            }
            // There may be nothing to roll back any more.
            (Stage::End, _) => self.session = None,
            (Stage::Begin, Err(refused)) => {
                self.session = None;
                return ground.judge_refusal(pending.tenant, &refused);
            }
            (_, Err(refused)) => {
                session.commits = false;
                session.inserted = session.shape.rows;
                return ground.judge_refusal(pending.tenant, &refused);
            }
            (Stage::Begin, Ok(_)) => {}
            (Stage::Insert(rows), Ok(_)) => session.inserted += rows,
            (Stage::Peek, Ok(result)) => {
                let seen = speech::single(&result);
                let failed_before = !session.commits;
                if seen != Some(inserted) && !failed_before {
                    let text = format!("a transaction of {inserted} rows sees {seen:?} of them");
                    return Err(Violation::new("ISO-2", text));
                }
            }
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
