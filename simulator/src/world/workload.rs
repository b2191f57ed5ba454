//! What a client asks next: drawn when it is asked, from all that clients ask.
//!
//! Owns the visits: which kind, of which database, and the requests of each kind. Interactive
//! transactions are `session`'s; who comes how often, `mix`'s.

use std::collections::VecDeque;

use serde_json::{Value, json};
use storage::io::Clock;

use super::Sim;
use super::client::{AdminCall, Client, Pending, Purpose};
use super::ground::Ground;
use super::journal::{ACCOUNTS, Change, Shape, Transfer};
use super::landlord;
use super::mix::{Kind, Moment, draw_kind};
use super::model::{TransactionId, tenant_name};
use super::session::Work;
use super::speech::{self, ReadForm};
use crate::faults::FaultKind;

/// Most bytes of padding in one ordinary transaction: twice what a tenant's WAL keeps in memory, so
/// that some spill, and a quarter of the smallest log, so that most fit.
const TRANSACTION_BYTES_MAX: u64 = 2 << 20;

/// Most bytes of a bulk load: more than the smallest log holds.
const BULK_BYTES_MAX: u64 = 8 << 20;

/// Bulk loads of a world: each costs tens of milliseconds here, and every later read of it.
const BULK_LOADS_MAX: u64 = 5;

/// Transactions of a tenant above which clients delete more than they write, so that reading all of
/// it stays cheap.
const LIVE_MAX: usize = 60;

/// Entries of the journal that a read asks for though they are known.
const KNOWN_READ_AGAIN: u64 = 8;

/// Databases made for short contexts, at most: as many as the names that clients share.
const CONTEXTS_MAX: usize = 2_000;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Create the database; it may exist.
    Create(usize),
    /// Make the tables.
    Setup(usize),
    /// Write.
    Write(usize),
    /// Read and compare.
    Read(usize),
    /// Drop the database.
    Drop(usize),
}

impl Task {
    /// The tenant that it is about.
    pub fn tenant(self) -> usize {
        match self {
            Task::Create(tenant) | Task::Setup(tenant) | Task::Drop(tenant) => tenant,
            Task::Write(tenant) | Task::Read(tenant) => tenant,
        }
    }
}

/// A client's visit.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// What it is like.
    pub kind: Kind,
    tenant: usize,
    left: u64,
}

/// What a client sends: what for, and the bytes.
pub type Request = (Pending, Vec<u8>);

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
        let moment = ground.moment(sim.now());
        if moment.pace == 0 {
            return Vec::new();
        }
        if self.session.is_some() {
            return self.next_step(sim, ground);
        }
        ground.operations_left -= 1;
        if let Some(task) = self.plan.pop_front() {
            return vec![self.task(sim, ground, task)];
        }
        if self.id == ground.options.clients as u64 {
            return vec![self.administrate(sim, ground, &moment)];
        }
        self.visit_requests(sim, ground, &moment)
    }

    /// The next requests of the visit in hand, or of a new one.
    fn visit_requests(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        moment: &Moment,
    ) -> Vec<Request> {
        if let Some((tenant, change)) = self.again.take() {
            // The same once more, and another transaction: the first may have happened.
            sim.injected(FaultKind::Retry, self.id);
            let change = match change {
                Change::Insert(Shape { rows, pad_words, .. }) => {
                    Change::Insert(ground.model.shape(rows, pad_words))
                }
                other => other,
            };
            return vec![self.entry(sim, ground, tenant, change)];
        }
        let visit = match self.visit {
            Some(visit) => visit,
            None => self.begin_visit(sim, ground, moment),
        };
        self.visit = (visit.left > 1).then_some(Visit { left: visit.left - 1, ..visit });
        if self.plan.is_empty() && !matches!(visit.kind, Kind::ControlPlane | Kind::Context) {
            self.plan_setup(sim, ground, visit.tenant);
        }
        if let Some(task) = self.plan.pop_front() {
            return vec![self.task(sim, ground, task)];
        }
        if self.old_baton.is_some() && self.draw(sim, 20) == 0 {
            return self.use_old_baton(sim, ground);
        }
        let tenant = visit.tenant;
        match visit.kind {
            Kind::Holder => {
                let work = self.draw_work(sim, ground);
                self.begin_session(sim, ground, tenant, work, true);
                return self.next_step(sim, ground);
            }
            Kind::Bank if self.draw(sim, 3) == 0 => {
                let work = Work::transfer(self.draw_transfer(sim));
                self.begin_session(sim, ground, tenant, work, false);
                return self.next_step(sim, ground);
            }
            Kind::ControlPlane => return vec![self.administrate(sim, ground, moment)],
            _ => {}
        }
        let many = self.draw(sim, 8) == 0 || visit.kind == Kind::Batcher;
        let count = match moment.width {
            1 if many => 1 + self.draw(sim, 4),
            width => 1 + self.draw(sim, width),
        };
        let mut requests = vec![self.choose(sim, ground, visit.kind, tenant)];
        for _ in 1..count {
            let tenant = self.draw_tenant(sim, ground, moment);
            let tenant = if ground.is_ready(tenant) { tenant } else { visit.tenant };
            requests.push(self.choose(sim, ground, visit.kind, tenant));
        }
        requests
    }

    fn begin_visit(&mut self, sim: &mut Sim, ground: &mut Ground, moment: &Moment) -> Visit {
        let kind = draw_kind(sim.draws_mut(), self.id, &moment.weights);
        let span = ground.options.visit_requests;
        let left = self.draw_span(sim, span.low, span.high);
        if kind == Kind::Context && ground.tenants() < ground.options.tenants + CONTEXTS_MAX {
            let tenant = ground.new_tenant();
            self.plan_context(sim, tenant);
            return Visit { kind, tenant, left: self.plan.len() as u64 };
        }
        Visit { kind, tenant: self.draw_tenant(sim, ground, moment), left }
    }

    /// Make the database and its tables first, if nobody has heard of them.
    fn plan_setup(&mut self, sim: &mut Sim, ground: &Ground, tenant: usize) {
        if ground.is_ready(tenant) || self.draw(sim, 8) == 0 {
            return;
        }
        if ground.name(tenant).exists != Some(true) && !ground.options.create_on_first_use {
            self.plan.push_back(Task::Create(tenant));
        }
        self.plan.push_back(Task::Setup(tenant));
    }

    /// A short-lived database: 5 to 50 statements, then nothing is left of it.
    fn plan_context(&mut self, sim: &mut Sim, tenant: usize) {
        let lifetime_ns = self.draw_span(sim, 100_000_000, 3_600_000_000_000);
        let statements = self.draw_span(sim, 5, 50);
        let mut plan = VecDeque::from([Task::Create(tenant), Task::Setup(tenant)]);
        for _ in 0..statements {
            plan.push_back(if self.draw(sim, 3) == 0 {
                Task::Read(tenant)
            } else {
                Task::Write(tenant)
            });
        }
        plan.extend([Task::Read(tenant), Task::Read(tenant), Task::Drop(tenant)]);
        self.plan_gap_ns = lifetime_ns / plan.len() as u64;
        self.plan = plan;
    }

    /// Some tenants are far more popular than others.
    fn draw_tenant(&self, sim: &mut Sim, ground: &Ground, moment: &Moment) -> usize {
        match moment.focus {
            Some(tenant) if self.draw(sim, 8) != 0 => tenant,
            _ => ground.popularity.draw(sim.draws_mut(), self.id),
        }
    }

    /// A request that is about to be sent.
    pub fn pending(
        &self,
        sim: &Sim,
        ground: &mut Ground,
        tenant: usize,
        purpose: Purpose,
    ) -> Pending {
        let (asked, name) = (ground.model.ask(), ground.name(tenant));
        Pending { tenant, asked, name, sent_at: sim.awake(), purpose }
    }

    fn task(&self, sim: &mut Sim, ground: &mut Ground, task: Task) -> Request {
        match task {
            Task::Create(tenant) => self.admin(sim, ground, AdminCall::Create(tenant)),
            Task::Drop(tenant) => self.admin(sim, ground, AdminCall::Drop(tenant)),
            Task::Setup(tenant) => {
                let id = ground.model.begin(tenant, Change::Setup);
                ground.model.commit_sent(id);
                let bytes = speech::pipeline(tenant, None, vec![speech::setup(tenant, id)], true);
                (self.pending(sim, ground, tenant, Purpose::Setup(id)), bytes)
            }
            Task::Write(tenant) => {
                let change = Change::Insert(self.draw_shape(sim, ground, 4));
                self.entry(sim, ground, tenant, change)
            }
            Task::Read(tenant) => self.read(sim, ground, tenant, ReadForm::Marks),
        }
    }

    fn choose(&mut self, sim: &mut Sim, ground: &mut Ground, kind: Kind, tenant: usize) -> Request {
        match kind {
            Kind::PointReader => self.point(sim, ground, tenant),
            Kind::JournalChecker => self.read(sim, ground, tenant, ReadForm::Marks),
            Kind::Scanner => self.read(sim, ground, tenant, ReadForm::Rows),
            Kind::CursorStreamer if self.draw(sim, 2) == 0 => {
                self.read(sim, ground, tenant, ReadForm::Cursor)
            }
            Kind::CursorStreamer => self.batch(sim, ground, tenant, true),
            Kind::BulkLoader => self.bulk(sim, ground, tenant),
            Kind::SchemaChanger => {
                let index = self.draw(sim, 2) == 0;
                let id = ground.model.begin(tenant, Change::Schema { index });
                let commits = self.draw(sim, 4) != 0;
                self.send_batch(sim, ground, (tenant, id), speech::schema(id, index), commits)
            }
            Kind::Batcher if self.draw(sim, 2) == 0 => {
                let by_cursor = self.draw(sim, 3) == 0;
                self.batch(sim, ground, tenant, by_cursor)
            }
            Kind::Batcher => self.entries(sim, ground, tenant),
            Kind::Bank => self.transfer(sim, ground, tenant),
            Kind::Retrier => {
                let change = self.draw_change(sim, ground, tenant);
                self.again = Some((tenant, change));
                self.entry(sim, ground, tenant, change)
            }
            _ => {
                let change = self.draw_change(sim, ground, tenant);
                self.entry(sim, ground, tenant, change)
            }
        }
    }

    // ---- writes ----

    fn draw_shape(&self, sim: &mut Sim, ground: &mut Ground, rows_max: u64) -> Shape {
        let pad_words = self.draw_span(sim, 1, ground.options.pad_words_max) - 1;
        let fitting = TRANSACTION_BYTES_MAX / (pad_words * 8 + 64);
        let rows_max = rows_max.min(ground.options.rows_max).min(fitting).max(1);
        let rows = self.draw_span(sim, 1, rows_max);
        ground.model.shape(rows, pad_words)
    }

    fn draw_transfer(&self, sim: &mut Sim) -> Transfer {
        let source = self.draw(sim, ACCOUNTS as u64) as usize;
        let target = (source + 1 + self.draw(sim, ACCOUNTS as u64 - 1) as usize) % ACCOUNTS;
        Transfer { source, target, amount: self.draw_span(sim, 1, 1_000) as i64 }
    }

    fn draw_work(&self, sim: &mut Sim, ground: &mut Ground) -> Work {
        if self.draw(sim, 4) == 0 {
            return Work::transfer(self.draw_transfer(sim));
        }
        let rows_max = ground.options.rows_max;
        Work::insert(self.draw_shape(sim, ground, rows_max))
    }

    fn draw_change(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Change {
        let crowded = ground.model.live_count(tenant) > LIVE_MAX;
        let index = self.draw(sim, u64::from(u32::MAX));
        match (self.draw(sim, 100), ground.model.victim(tenant, index)) {
            (0..15, Some(victim)) => Change::Delete(victim),
            (_, Some(victim)) if crowded => Change::Delete(victim),
            (15..25, _) => Change::Transfer(self.draw_transfer(sim)),
            (drawn, _) => {
                let rows_max = if drawn < 40 { ground.options.rows_max } else { 3 };
                Change::Insert(self.draw_shape(sim, ground, rows_max))
            }
        }
    }

    fn begin_entry(
        &self,
        ground: &mut Ground,
        tenant: usize,
        change: Change,
    ) -> (TransactionId, Value) {
        let id = ground.model.begin(tenant, change);
        ground.model.commit_sent(id);
        (id, speech::execute(speech::entry(tenant, id, change)))
    }

    /// A transaction in one statement.
    fn entry(&self, sim: &Sim, ground: &mut Ground, tenant: usize, change: Change) -> Request {
        let (id, request) = self.begin_entry(ground, tenant, change);
        let bytes = speech::pipeline(tenant, None, vec![request], true);
        (self.pending(sim, ground, tenant, Purpose::Entries(vec![id])), bytes)
    }

    /// Two to eight of them in one pipeline.
    fn entries(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        let count = 2 + self.draw(sim, 7);
        let (mut ids, mut requests) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let change = self.draw_change(sim, ground, tenant);
            let (id, request) = self.begin_entry(ground, tenant, change);
            requests.push(request);
            ids.push(id);
        }
        let bytes = speech::pipeline(tenant, None, requests, true);
        (self.pending(sim, ground, tenant, Purpose::Entries(ids)), bytes)
    }

    /// Inserts of a shape in several statements.
    fn inserts(&self, sim: &mut Sim, tenant: usize, id: TransactionId, shape: Shape) -> Vec<Value> {
        let mut statements = Vec::new();
        let mut from = 0;
        while from < shape.rows {
            let rows = self.draw_span(sim, 1, shape.rows - from);
            statements.push(speech::insert(tenant, id, shape, from, rows));
            from += rows;
        }
        statements
    }

    /// A transaction of several statements in one batch; one in eight rolls back.
    fn batch(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize, by_cursor: bool) -> Request {
        let change = match self.draw_change(sim, ground, tenant) {
            Change::Insert(_) => {
                let rows_max = ground.options.rows_max;
                Change::Insert(self.draw_shape(sim, ground, rows_max))
            }
            other => other,
        };
        let id = ground.model.begin(tenant, change);
        let commits = self.draw(sim, 8) != 0;
        let mut statements = match change {
            Change::Insert(shape) => self.inserts(sim, tenant, id, shape),
            Change::Delete(victim) => vec![speech::delete(tenant, victim)],
            Change::Transfer(Transfer { source, target, amount }) => {
                vec![speech::add(source, -amount), speech::add(target, amount)]
            }
            Change::Setup | Change::Schema { .. } => unreachable!("not drawn"),
        };
        if self.draw(sim, 4) == 0 {
            // Rows of a transaction that is taken back before the commit.
            let shape = self.draw_shape(sim, ground, 300);
            let undone = ground.model.begin(tenant, Change::Insert(shape));
            statements.push(speech::plain("SAVEPOINT point"));
            statements.push(speech::insert(tenant, undone, shape, 0, shape.rows));
            statements.push(speech::plain("ROLLBACK TO point"));
            statements.push(speech::plain("RELEASE point"));
        }
        if by_cursor && self.draw(sim, 2) == 0 {
            statements.push(ReadForm::Marks.statement(0));
        }
        let deletes = matches!(change, Change::Delete(_)).then_some(1);
        let form = BatchForm { by_cursor, commits, deletes };
        self.send_batch_as(sim, ground, (tenant, id), statements, form)
    }

    fn transfer(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        let transfer = self.draw_transfer(sim);
        let Transfer { source, target, amount } = transfer;
        let change = Change::Transfer(transfer);
        if self.draw(sim, 2) == 0 {
            return self.entry(sim, ground, tenant, change);
        }
        let id = ground.model.begin(tenant, change);
        let statements = vec![speech::add(source, -amount), speech::add(target, amount)];
        let commits = self.draw(sim, 8) != 0;
        self.send_batch(sim, ground, (tenant, id), statements, commits)
    }

    /// As much as a tenth of the cache to twice of it, if there may be one more.
    fn bulk(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        if ground.bulk_loads >= BULK_LOADS_MAX {
            let change = self.draw_change(sim, ground, tenant);
            return self.entry(sim, ground, tenant, change);
        }
        ground.bulk_loads += 1;
        let cache = ground.options.memory_bytes[1];
        let bytes = self.draw_span(sim, cache / 10, cache * 2).min(BULK_BYTES_MAX);
        let pad_words = self.draw_span(sim, 16, 4_000);
        let shape = ground.model.shape((bytes / (pad_words * 8)).max(1), pad_words);
        let id = ground.model.begin(tenant, Change::Insert(shape));
        let statements = self.inserts(sim, tenant, id, shape);
        let commits = self.draw(sim, 4) != 0;
        self.send_batch(sim, ground, (tenant, id), statements, commits)
    }

    fn send_batch(
        &self,
        sim: &Sim,
        ground: &mut Ground,
        of: (usize, TransactionId),
        statements: Vec<Value>,
        commits: bool,
    ) -> Request {
        let form = BatchForm { by_cursor: false, commits, deletes: None };
        self.send_batch_as(sim, ground, of, statements, form)
    }

    /// The statements as one transaction that ends with its entry in the journal.
    fn send_batch_as(
        &self,
        sim: &Sim,
        ground: &mut Ground,
        (tenant, id): (usize, TransactionId),
        mut statements: Vec<Value>,
        form: BatchForm,
    ) -> Request {
        let BatchForm { by_cursor, commits, deletes } = form;
        statements.push(speech::note(tenant, id));
        let steps = statements.len() + 3;
        let batch = speech::batch(statements, commits);
        if commits {
            ground.model.commit_sent(id);
        }
        let bytes = if by_cursor {
            speech::cursor(tenant, &batch)
        } else {
            let request = json!({ "type": "batch", "batch": batch });
            speech::pipeline(tenant, None, vec![request], true)
        };
        let purpose = Purpose::Batch { id, commits, by_cursor, steps, deletes };
        (self.pending(sim, ground, tenant, purpose), bytes)
    }

    // ---- reads ----

    fn read(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize, form: ReadForm) -> Request {
        let known = ground.model.known(tenant).saturating_sub(KNOWN_READ_AGAIN);
        let from = if self.draw(sim, 4) == 0 { 0 } else { known };
        let statement = form.statement(from);
        let bytes = if form == ReadForm::Cursor {
            speech::cursor(tenant, &json!({ "steps": [{ "stmt": statement }] }))
        } else {
            speech::pipeline(tenant, None, vec![speech::execute(statement)], true)
        };
        (self.pending(sim, ground, tenant, Purpose::Read { form, from }), bytes)
    }

    /// The rows of one transaction.
    fn point(&self, sim: &mut Sim, ground: &mut Ground, tenant: usize) -> Request {
        let index = self.draw(sim, u64::from(u32::MAX));
        let Some(wanted) = ground.model.victim(tenant, index) else {
            return self.read(sim, ground, tenant, ReadForm::Marks);
        };
        let statement = speech::execute(speech::peek(tenant, wanted));
        let bytes = speech::pipeline(tenant, None, vec![statement], true);
        (self.pending(sim, ground, tenant, Purpose::Point(wanted)), bytes)
    }

    // ---- the control API ----

    fn administrate(&self, sim: &mut Sim, ground: &mut Ground, moment: &Moment) -> Request {
        let tenant = self.draw_tenant(sim, ground, moment);
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
        let path = |tenant| format!("/v1/namespaces/{}", tenant_name(tenant));
        let (tenant, bytes) = match call {
            AdminCall::Create(t) => {
                let path = format!("{}/create", path(t));
                let drawn = ground.options.budgets > 0 && self.script.is_none();
                let body = drawn.then(|| landlord::creation(sim.draws_mut(), 3));
                body.iter().for_each(|body| ground.grants.note(t, body));
                (t, speech::admin_with("POST", &path, body.as_ref()))
            }
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
            let drop = ground.model.drop_sent(tenant, pending.asked);
            pending.purpose = Purpose::Admin(call, Some(drop));
        }
        (pending, bytes)
    }

    // ---- pauses ----

    /// How long until the next request, in nanoseconds.
    pub fn draw_pause(&self, sim: &mut Sim, ground: &mut Ground) -> u64 {
        let options = &ground.options;
        let held = self.session.as_ref().is_some_and(|session| session.is_held());
        let span = if held {
            // Longer than a stream may be idle, now and then; never hurried.
            return self.draw_span(sim, 1_000_000, 60_000_000_000);
        } else if self.script.is_some() || self.session.is_some() || self.visit.is_some() {
            options.think_ns
        } else {
            options.pause_ns
        };
        let mut pause = self.draw_span(sim, span.low, span.high);
        if !self.plan.is_empty() && self.plan_gap_ns > 0 {
            pause = self.draw_span(sim, self.plan_gap_ns / 4, self.plan_gap_ns * 2);
        }
        if self.script.is_some() {
            return pause.min(PROBE_THINK_NS_MAX);
        }
        match ground.moment(sim.now()).pace {
            0 => STILL_NS,
            pace => (u128::from(pause) * 1_000 / u128::from(pace)) as u64,
        }
    }
}

/// How long a client rests that may do nothing.
const STILL_NS: u64 = 1_000_000_000;

/// The probe does not think longer than this.
const PROBE_THINK_NS_MAX: u64 = 100_000_000;

/// How a batch is asked for.
#[derive(Clone, Copy)]
struct BatchForm {
    by_cursor: bool,
    commits: bool,
    /// The step that deletes.
    deletes: Option<usize>,
}
