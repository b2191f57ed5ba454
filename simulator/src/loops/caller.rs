//! Who runs a script: asks, judges every answer by the world's model, and knows what a fault excuses.
//!
//! Owns the bookkeeping of requests without an answer: what a broken line or an ended process leaves
//! unknown. What is asked is `scripts`'; which fault strikes is the runner's.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use storage::allocator::{self, Failing};
use storage::io::Clock;
use tenant::Failure;

use super::Fault;
use super::budgets::Kept;
use crate::client::Response;
use crate::disk::CrashMode;
use crate::io::{OperationClass, PlannedFault};
use crate::machine::{Door, End, Machine, Stop};
use crate::world::client::{AdminCall, Pending, Purpose};
use crate::world::ground::{Ground, NameSeen};
use crate::world::journal::{Change, Shape};
use crate::world::model::{Asked, DropId, TransactionId, mark, tenant_name};
use crate::world::speech::{self, ReadForm, Refused};
use crate::world::{Options, Violation, files, names};

/// The line of the control API; scripts use lower numbers for SQL.
const ADMIN_LINE: usize = 100;

/// What a request was for.
#[derive(Clone, Debug)]
enum Purposes {
    /// Its answer is judged by its script.
    Statement,
    /// A transaction by one statement or batch.
    Commit(TransactionId, Form),
    /// One that is rolled back, as a batch of so many steps.
    RolledBack(usize),
    Read(ReadForm),
    Admin(AdminCall, Option<DropId>),
}

/// How a transaction is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One statement.
    Statement,
    /// A batch of so many steps, the last two are COMMIT and ROLLBACK.
    Batch(usize),
    /// The same as a cursor.
    Cursor(usize),
    /// The COMMIT of an open transaction.
    Commit,
}

/// A request without its answer.
struct Open {
    tenant: usize,
    asked: Asked,
    name: NameSeen,
    what: Purposes,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Heard {
    /// It was done; the result.
    Done(Value),
    /// It was refused, as a whole or its statement.
    Refused(Refused),
    /// Nobody knows.
    Lost,
}

/// An open transaction of the caller.
#[derive(Debug)]
pub struct Session {
    line: usize,
    tenant: usize,
    id: TransactionId,
    shape: Shape,
    inserted: u64,
    baton: Option<String>,
    /// Something was refused or lost: the transaction may be over already.
    failed: bool,
}

/// See the head of the file.
pub struct Caller {
    /// The server's machine.
    pub machine: Machine,
    ground: Ground,
    open: BTreeMap<usize, VecDeque<Open>>,
    fault: Option<Fault>,
    /// A crash is to come at this event.
    crash: Option<(u64, CrashMode)>,
    /// A fault that stays may cost a tenant.
    may_fence: bool,
    /// What was said about budgets and acknowledged.
    pub(super) kept: Vec<Kept>,
}

type Step<T = ()> = Result<T, Stop>;

impl Drop for Caller {
    /// Allocations are the thread's, not the machine's.
    fn drop(&mut self) {
        allocator::fail_allocations(Failing::Never);
    }
}

impl Caller {
    /// The caller of a new machine; no server runs.
    pub fn new(options: Options) -> Caller {
        Caller {
            machine: Machine::new(options.clone()),
            ground: Ground::new(options),
            open: BTreeMap::new(),
            fault: None,
            crash: None,
            may_fence: false,
            kept: Vec::new(),
        }
    }

    // ---- faults ----

    /// From now on this fault is planned.
    pub fn plan(&mut self, fault: Fault) {
        self.fault = Some(fault);
        match fault {
            Fault::None => {}
            Fault::Allocation { nth, forever } => {
                allocator::fail_allocations(Failing::Nth { n: nth - 1, forever });
            }
            Fault::Operation(planned) => self.machine.io.plan_fault(planned),
            Fault::Crash { event, mode, .. } => {
                let at = self.machine.io.trace().sequence() + event;
                self.crash = Some((at, mode));
                self.machine.io.crash_at(at, mode);
            }
        }
        let faults = &mut self.ground.options.faults;
        use OperationClass as Class;
        match fault {
            Fault::Operation(PlannedFault { operation, forever, .. }) => match operation {
                Class::Read | Class::Write | Class::Sync | Class::Open | Class::Rename => {
                    faults.read_error_per_million = 1;
                    self.may_fence = forever;
                }
                Class::Allocate => faults.no_space_per_million = 1,
                Class::Send | Class::Receive | Class::Accept => {}
            },
            // The catalogue's, whose calls are refused as a full disk's are.
            Fault::Allocation { .. } => faults.no_space_per_million = 1,
            Fault::None | Fault::Crash { .. } => {}
        }
    }

    /// Whether the planned fault struck.
    pub fn struck(&self) -> bool {
        match self.fault {
            None | Some(Fault::None | Fault::Crash { .. }) => false,
            Some(Fault::Allocation { .. }) => allocator::failed_allocations() > 0,
            Some(Fault::Operation(_)) => self.machine.io.planned_fault_struck(),
        }
    }

    /// Everything works again.
    pub fn calm_down(&mut self) {
        self.fault = None;
        self.crash = None;
        allocator::fail_allocations(Failing::Never);
        self.machine.io.clear_planned_fault();
        self.machine.io.cancel_crash();
        let faults = &mut self.ground.options.faults;
        faults.read_error_per_million = 0;
        faults.no_space_per_million = 0;
    }

    /// EXIT: whether the process may end so.
    fn judge_end(&self, end: &End) -> Result<(), Violation> {
        let disk = match self.fault {
            Some(Fault::Operation(planned)) => !matches!(
                planned.operation,
                OperationClass::Send | OperationClass::Receive | OperationClass::Accept
            ),
            _ => false,
        };
        let memory = matches!(self.fault, Some(Fault::Allocation { .. }));
        let named = match end {
            End::Crashed | End::Stopped => true,
            End::Failed(Failure::Log(_)) => self.struck() && disk,
            End::Failed(Failure::Start(_)) => self.struck() && (disk || memory),
            End::Failed(Failure::InUse) => false,
        };
        match named {
            true => Ok(()),
            false => Err(Violation::new("EXIT", format!("the server ended: {end:?}"))),
        }
    }

    // ---- the process ----

    /// The process has ended: what has no answer gets none.
    pub(super) fn on_stop(&mut self, stop: Stop) -> Stop {
        if let Stop::Ended(end) = &stop {
            if let Err(violation) = self.judge_end(end) {
                return violation.into();
            }
            self.lose_all();
            self.ground.model.epoch += 1;
        }
        stop
    }

    fn lose_all(&mut self) {
        self.machine.hang_up_all();
        for open in std::mem::take(&mut self.open).into_values().flatten() {
            self.lose(&open);
        }
    }

    /// Start a server and wait until it serves.
    pub fn start(&mut self) -> Step {
        self.machine.start().map_err(|stop| self.on_stop(stop))
    }

    /// Stop it cleanly. With a fault that stays it may not end: then its operator kills it.
    pub fn stop(&mut self) -> Step {
        self.lose_all();
        match self.machine.stop() {
            Ok(()) => self.on_stop(Stop::Ended(End::Stopped)),
            Err(Stop::Violated(found)) if found.property == "LIVE-1" && self.stays() => {
                return self.crash(CrashMode::Kill);
            }
            Err(stop) => return Err(self.on_stop(stop)),
        };
        Ok(())
    }

    /// A fault has struck, and goes on.
    fn stays(&self) -> bool {
        let forever = match self.fault {
            Some(Fault::Allocation { forever, .. }) => forever,
            Some(Fault::Operation(planned)) => planned.forever,
            _ => false,
        };
        forever && self.struck()
    }

    /// Crash it; a crash that is planned stays planned.
    pub fn crash(&mut self, mode: CrashMode) -> Step {
        self.machine.crash(mode)?;
        self.on_stop(Stop::Ended(End::Crashed));
        if let Some((at, mode)) = self.crash {
            self.machine.io.crash_at(at, mode);
        }
        Ok(())
    }

    /// Let time pass.
    pub fn pass(&mut self, nanoseconds: u64) -> Step {
        self.machine.pass(nanoseconds).map_err(|stop| self.on_stop(stop))
    }

    /// Close a line without waiting for what comes.
    pub fn hang_up(&mut self, line: usize) {
        self.machine.hang_up(line);
        self.lose_line(line);
    }

    /// Reset it.
    pub fn reset(&mut self, line: usize) {
        self.machine.reset(line);
        self.lose_line(line);
    }

    // ---- asking ----

    fn send(&mut self, line: usize, tenant: usize, what: Purposes, bytes: &[u8]) {
        let asked = self.ground.model.ask();
        self.send_asked(line, tenant, asked, what, bytes);
    }

    fn send_asked(
        &mut self,
        line: usize,
        tenant: usize,
        asked: Asked,
        what: Purposes,
        bytes: &[u8],
    ) {
        let name = self.ground.name(tenant);
        self.open.entry(line).or_default().push_back(Open { tenant, asked, name, what });
        let door = if line == ADMIN_LINE { Door::Admin } else { Door::Public };
        self.machine.send(line, door, bytes);
    }

    /// Send a transaction of `rows` rows with `pad_words` words of padding each.
    pub fn send_write(&mut self, line: usize, tenant: usize, rows: u64, pad_words: u64) {
        let change = Change::Insert(self.ground.model.shape(rows, pad_words));
        self.send_entry(line, tenant, change);
    }

    /// Send a transaction of one statement.
    fn send_entry(&mut self, line: usize, tenant: usize, change: Change) {
        let id = self.ground.model.begin(tenant, change);
        self.ground.model.commit_sent(id);
        let statement = speech::execute(speech::entry(tenant, id, change));
        let bytes = speech::pipeline(tenant, None, vec![statement], true);
        self.send(line, tenant, Purposes::Commit(id, Form::Statement), &bytes);
    }

    /// Send a read.
    pub fn send_read(&mut self, line: usize, tenant: usize, form: ReadForm) {
        let bytes = match form {
            ReadForm::Cursor => {
                speech::cursor(tenant, &json!({ "steps": [{ "stmt": form.statement(0) }] }))
            }
            _ => speech::pipeline(tenant, None, vec![speech::execute(form.statement(0))], true),
        };
        self.send(line, tenant, Purposes::Read(form), &bytes);
    }

    /// Write a transaction and wait.
    pub fn write(&mut self, tenant: usize, rows: u64, pad_words: u64) -> Step<Heard> {
        self.send_write(0, tenant, rows, pad_words);
        self.hear(0)
    }

    /// Read everything and judge it.
    pub fn read(&mut self, tenant: usize) -> Step<Heard> {
        self.send_read(0, tenant, ReadForm::Marks);
        self.hear(0)
    }

    /// Read everything by another form.
    pub fn read_as(&mut self, tenant: usize, form: ReadForm) -> Step<Heard> {
        self.send_read(0, tenant, form);
        self.hear(0)
    }

    /// A statement, or several, that touch no rows.
    pub fn sequence(&mut self, tenant: usize, sql: &str) -> Step<Heard> {
        let sequence = json!({ "type": "sequence", "sql": sql });
        let bytes = speech::pipeline(tenant, None, vec![sequence], true);
        self.send(0, tenant, Purposes::Statement, &bytes);
        self.hear(0)
    }

    /// Make the tables.
    pub fn setup(&mut self, tenant: usize) -> Step<Heard> {
        let id = self.ground.model.begin(tenant, Change::Setup);
        self.ground.model.commit_sent(id);
        let bytes = speech::pipeline(tenant, None, vec![speech::setup(tenant, id)], true);
        self.send(0, tenant, Purposes::Commit(id, Form::Statement), &bytes);
        self.hear(0)
    }

    /// A transaction in two inserts, around one that a savepoint takes back. A cursor commits.
    pub fn batch(&mut self, tenant: usize, commits: bool, by_cursor: bool) -> Step<Heard> {
        assert!(commits || !by_cursor);
        let model = &mut self.ground.model;
        let (shape, undone_shape) = (model.shape(6, 50), model.shape(40, 400));
        let id = model.begin(tenant, Change::Insert(shape));
        let undone = model.begin(tenant, Change::Insert(undone_shape));
        let statements = vec![
            speech::insert(tenant, id, shape, 0, 2),
            speech::plain("SAVEPOINT point"),
            speech::insert(tenant, undone, undone_shape, 0, 40),
            speech::plain("ROLLBACK TO point"),
            speech::plain("RELEASE point"),
            speech::insert(tenant, id, shape, 2, 4),
            speech::note(tenant, id),
        ];
        let steps = statements.len() + 3;
        let batch = speech::batch(statements, commits);
        if commits {
            self.ground.model.commit_sent(id);
        }
        let form = if by_cursor { Form::Cursor(steps) } else { Form::Batch(steps) };
        let bytes = match by_cursor {
            true => speech::cursor(tenant, &batch),
            false => {
                let request = json!({ "type": "batch", "batch": batch });
                speech::pipeline(tenant, None, vec![request], true)
            }
        };
        let what = match commits {
            true => Purposes::Commit(id, form),
            false => Purposes::RolledBack(steps),
        };
        self.send(0, tenant, what, &bytes);
        self.hear(0)
    }

    /// Delete some acknowledged transaction's rows.
    pub fn delete(&mut self, tenant: usize) -> Step<Heard> {
        let Some(victim) = self.ground.model.victim(tenant, 0) else { return Ok(Heard::Lost) };
        self.send_entry(0, tenant, Change::Delete(victim));
        self.hear(0)
    }

    /// A call of the control API.
    pub fn admin(&mut self, call: AdminCall) -> Step<Heard> {
        let path = |tenant| format!("/v1/namespaces/{}", tenant_name(tenant));
        let (tenant, method, path) = match call {
            AdminCall::Create(tenant) => (tenant, "POST", format!("{}/create", path(tenant))),
            AdminCall::Drop(tenant) => (tenant, "DELETE", path(tenant)),
            AdminCall::Show(tenant) => (tenant, "GET", path(tenant)),
            AdminCall::List => (0, "GET", "/v1/namespaces?limit=1000".to_owned()),
            AdminCall::Metrics => (0, "GET", "/metrics".to_owned()),
        };
        let asked = self.ground.model.ask();
        let name = self.ground.name(tenant);
        if matches!(call, AdminCall::Create(_) | AdminCall::Drop(_)) {
            self.ground.name_asked(tenant);
        }
        let drop = match call {
            AdminCall::Drop(tenant) => Some(self.ground.model.drop_sent(tenant, asked)),
            _ => None,
        };
        let what = Purposes::Admin(call, drop);
        let open = Open { tenant, asked, name, what };
        self.open.entry(ADMIN_LINE).or_default().push_back(open);
        self.machine.send(ADMIN_LINE, Door::Admin, &speech::admin(method, &path));
        self.hear(ADMIN_LINE)
    }

    /// Bytes that are no request, or none that can be met: the status of the answer.
    pub fn nonsense(&mut self, door: Door, bytes: &[u8]) -> Step<Option<u16>> {
        let line = 50;
        let heard = self.machine.ask(line, door, bytes).map_err(|stop| self.on_stop(stop))?;
        let status = heard.map(|response| response.status);
        match status {
            Some(200..=299) => {
                Err(Violation::new("HTTP-1", "nonsense was answered as if it were none").into())
            }
            None if !self.struck() => {
                Err(Violation::new("LIVE-1", "nonsense was not answered").into())
            }
            _ => Ok(status),
        }
    }

    // ---- interactive transactions ----

    /// Begin; `None` if that was refused or is lost.
    pub fn begin(&mut self, line: usize, tenant: usize, rows: u64) -> Step<Option<Session>> {
        let shape = self.ground.model.shape(rows, 100);
        let id = self.ground.model.begin(tenant, Change::Insert(shape));
        let mut session =
            Session { line, tenant, id, shape, inserted: 0, baton: None, failed: false };
        let heard = self.step(&mut session, speech::plain("BEGIN IMMEDIATE"), false)?;
        Ok(matches!(heard, Heard::Done(_)).then_some(session))
    }

    fn step(&mut self, session: &mut Session, statement: Value, closes: bool) -> Step<Heard> {
        let requests = vec![speech::execute(statement)];
        let bytes = speech::pipeline(session.tenant, session.baton.as_deref(), requests, closes);
        self.send(session.line, session.tenant, Purposes::Statement, &bytes);
        let (heard, baton) = self.hear_with_baton(session.line)?;
        session.baton = baton;
        session.failed |= !matches!(heard, Heard::Done(_));
        Ok(heard)
    }

    /// Insert more rows of a transaction.
    pub fn insert(&mut self, session: &mut Session, rows: u64) -> Step<Heard> {
        if session.failed {
            return Ok(Heard::Lost);
        }
        let Session { tenant, id, shape, inserted, .. } = *session;
        let statement = speech::insert(tenant, id, shape, inserted, rows);
        let heard = self.step(session, statement, false)?;
        if matches!(heard, Heard::Done(_)) {
            session.inserted += rows;
        }
        Ok(heard)
    }

    /// ISO-2: it sees its own rows.
    pub fn peek(&mut self, session: &mut Session) -> Step<Heard> {
        if session.failed {
            return Ok(Heard::Lost);
        }
        let heard = self.step(session, speech::peek(session.tenant, session.id), false)?;
        if let Heard::Done(result) = &heard
            && speech::peeked(result).map(|peeked| peeked.0) != Some(session.inserted)
        {
            let inserted = session.inserted;
            let text = format!("a transaction of {inserted} rows sees {result}");
            return Err(Violation::new("ISO-2", text).into());
        }
        Ok(heard)
    }

    /// Commit, if all went well; roll back otherwise.
    pub fn commit(&mut self, mut session: Session) -> Step<Heard> {
        if session.failed {
            return self.roll_back(session);
        }
        let note = speech::note(session.tenant, session.id);
        self.step(&mut session, note, false)?;
        if session.failed {
            return self.roll_back(session);
        }
        let requests = vec![speech::execute(speech::plain("COMMIT"))];
        let baton = session.baton.take();
        let bytes = speech::pipeline(session.tenant, baton.as_deref(), requests, true);
        self.ground.model.commit_sent(session.id);
        let what = Purposes::Commit(session.id, Form::Commit);
        self.send(session.line, session.tenant, what, &bytes);
        self.hear(session.line)
    }

    /// Roll back.
    pub fn roll_back(&mut self, mut session: Session) -> Step<Heard> {
        if session.baton.is_none() {
            return Ok(Heard::Lost);
        }
        self.step(&mut session, speech::plain("ROLLBACK"), true)
    }

    // ---- hearing ----

    /// The next answer on a line, judged.
    pub fn hear(&mut self, line: usize) -> Step<Heard> {
        self.hear_with_baton(line).map(|heard| heard.0)
    }

    fn hear_with_baton(&mut self, line: usize) -> Step<(Heard, Option<String>)> {
        let response = match self.machine.hear(line) {
            Ok(Some(response)) => response,
            Ok(None) => {
                self.lose_line(line);
                // Nothing but a fault breaks a line.
                return match self.struck() {
                    true => Ok((Heard::Lost, None)),
                    false => Err(Violation::new("LIVE-1", "an answer does not come").into()),
                };
            }
            Err(stop) => return Err(self.on_stop(stop)),
        };
        let open = self.open.get_mut(&line).and_then(VecDeque::pop_front);
        let open = open.expect("the reader counts requests");
        Ok(self.judge(&open, &response)?)
    }

    fn judge(
        &mut self,
        open: &Open,
        response: &Response,
    ) -> Result<(Heard, Option<String>), Violation> {
        if let Purposes::Admin(call, drop) = open.what {
            return Ok((self.judge_admin(open, call, drop, response)?, None));
        }
        speech::check_marks(open.tenant, &response.body)?;
        if matches!(response.status, 200 | 404) {
            self.ground.check_name(open.tenant, open.name, response.status == 200)?;
        }
        if response.status != 200 {
            let refused = speech::hear(response)?.expect_err("its status says so");
            return Ok((self.refused(open, refused)?, None));
        }
        match open.what {
            Purposes::Commit(_, Form::Cursor(steps)) => {
                let steps = speech::entries(response, steps)?;
                return Ok((self.judge_steps(open, &steps)?, None));
            }
            Purposes::Read(ReadForm::Cursor) => {
                let result = speech::entries(response, 1)?.remove(0);
                let result = result.unwrap_or(Ok(Value::Null));
                return Ok((self.judge_result(open, result)?, None));
            }
            _ => {}
        }
        let body = speech::hear(response)?.expect("its status says so");
        let count = body["results"].as_array().map_or(0, Vec::len);
        let result = speech::results(&body, count, response)?.into_iter().next();
        let result =
            result.ok_or_else(|| Violation::new("HTTP-1", format!("no result in {body}")))?;
        let baton = body["baton"].as_str().map(str::to_owned);
        let heard = match (&open.what, result) {
            (Purposes::Commit(_, Form::Batch(_)) | Purposes::RolledBack(_), Ok(result)) => {
                self.judge_steps(open, &speech::steps(&result))?
            }
            (_, result) => self.judge_result(open, result)?,
        };
        Ok((heard, baton))
    }

    fn judge_result(
        &mut self,
        open: &Open,
        result: Result<Value, Refused>,
    ) -> Result<Heard, Violation> {
        let model = &mut self.ground.model;
        match (&open.what, result) {
            (Purposes::Read(_), Ok(result)) => {
                let found = speech::found(&result);
                let found = found.ok_or_else(|| Violation::new("HTTP-1", format!("{result}")))?;
                model.judge_read(open.tenant, open.asked, 0, Some(&found))?;
                Ok(Heard::Done(result))
            }
            (Purposes::Read(_), Err(refused)) if refused.is_no_table() => {
                model.judge_read(open.tenant, open.asked, 0, None)?;
                Ok(Heard::Refused(refused))
            }
            (Purposes::Commit(id, _), Ok(result)) => {
                model.committed(*id, None, None)?;
                // Tables that were there already leave no mark of who asked for them again.
                if !matches!(model.change(*id), Change::Setup) {
                    self.machine.acknowledged(&mark(open.tenant, *id));
                }
                Ok(Heard::Done(result))
            }
            (_, Ok(result)) => Ok(Heard::Done(result)),
            (_, Err(refused)) => self.refused(open, refused),
        }
    }

    fn judge_steps(
        &mut self,
        open: &Open,
        steps: &[Option<Result<Value, Refused>>],
    ) -> Result<Heard, Violation> {
        let count = match open.what {
            Purposes::Commit(_, Form::Batch(count) | Form::Cursor(count)) => count,
            Purposes::RolledBack(count) => count,
            _ => unreachable!("only these have steps"),
        };
        if let Some(Some(Ok(result))) = steps.get(count - 2) {
            if let Purposes::Commit(id, _) = open.what {
                let noted = steps[count - 3].as_ref().and_then(|step| step.as_ref().ok());
                let place = noted.and_then(speech::noted);
                self.ground.model.committed(id, place, None)?;
                self.machine.acknowledged(&mark(open.tenant, id));
            }
            return Ok(Heard::Done(result.clone()));
        }
        match steps.iter().find_map(|step| step.clone()?.err()) {
            Some(refused) => self.refused(open, refused),
            None => Err(Violation::new("HTTP-1", "a batch neither committed nor failed")),
        }
    }

    /// It was not done; nothing but a fault that struck excuses that.
    fn refused(&mut self, open: &Open, refused: Refused) -> Result<Heard, Violation> {
        let damaged = refused.code == "DATABASE_DAMAGED";
        match &open.what {
            Purposes::Commit(..) if damaged => self.lose(open),
            Purposes::Commit(id, _) => self.ground.model.refused(*id)?,
            Purposes::Read(_) if refused.status == 404 => {
                self.ground.model.judge_read(open.tenant, open.asked, 0, None)?;
            }
            _ => {}
        }
        self.excuse(open.tenant, &refused)?;
        Ok(Heard::Refused(refused))
    }

    /// ERR-1, COR-1: whether a refusal may be.
    fn excuse(&mut self, tenant: usize, refused: &Refused) -> Result<(), Violation> {
        let told = format!("{} {}: {}", refused.status, refused.code, refused.message);
        if refused.code == "DATABASE_DAMAGED" {
            if self.may_fence {
                self.ground.options.faults.read_error_per_million = 1;
                let judged = self.ground.judge_refusal(tenant, refused);
                if self.fault.is_none() {
                    self.ground.options.faults.read_error_per_million = 0;
                }
                return judged;
            }
            return Err(Violation::new("COR-1", format!("{}: {told}", tenant_name(tenant))));
        }
        if self.struck() && self.is_consequence(refused) {
            return Ok(());
        }
        // A name that is not there is DUR-4's; a table that is not there is the model's.
        let plain = refused.status == 404 || refused.is_no_table();
        if !plain && self.fault.is_some() && !self.struck() {
            return Err(Violation::new("ERR-1", format!("before the fault: {told}")));
        }
        self.ground.judge_refusal(tenant, refused)
    }

    /// A statement before it did not happen; or the fault has a name of its own in SQLite.
    fn is_consequence(&self, refused: &Refused) -> bool {
        let opens = matches!(
            self.fault,
            Some(Fault::Operation(PlannedFault { operation: OperationClass::Open, .. }))
        );
        opens && refused.code == "SQLITE_CANTOPEN"
            || refused.code == "SQLITE_UNKNOWN"
                && ["no such ", "no transaction is active", "already exists"]
                    .iter()
                    .any(|text| refused.message.contains(text))
    }

    fn judge_admin(
        &mut self,
        open: &Open,
        call: AdminCall,
        drop: Option<DropId>,
        response: &Response,
    ) -> Result<Heard, Violation> {
        let pending = Pending {
            tenant: open.tenant,
            asked: open.asked,
            name: open.name,
            sent_at: self.machine.io.now(),
            purpose: Purpose::Admin(call, drop),
        };
        names::hear(&mut self.ground, &pending, call, drop, response)?;
        if response.status == 200 {
            return Ok(Heard::Done(Value::Null));
        }
        let refused = speech::hear(response)?.expect_err("its status says so");
        Ok(Heard::Refused(refused))
    }

    // ---- losing ----

    /// Hang up on all lines.
    pub fn forget_lines(&mut self) {
        self.lose_all();
    }

    fn lose_line(&mut self, line: usize) {
        for open in self.open.remove(&line).unwrap_or_default() {
            self.lose(&open);
        }
    }

    /// Its answer is lost.
    fn lose(&mut self, open: &Open) {
        let Open { tenant, asked, .. } = *open;
        let ground = &mut self.ground;
        match open.what {
            Purposes::Commit(id, _) => ground.model.lost(id, asked),
            Purposes::Admin(AdminCall::Create(_), _) => ground.name_lost(tenant, asked),
            Purposes::Admin(AdminCall::Drop(_), drop) => {
                ground.model.drop_lost(drop.expect("it has a number"), asked);
                ground.name_lost(tenant, asked);
            }
            Purposes::Statement
            | Purposes::RolledBack(_)
            | Purposes::Read(_)
            | Purposes::Admin(..) => {}
        }
    }

    // ---- the end ----

    /// Whether a tenant was lost to a fault that stayed.
    pub fn is_fenced(&self, tenant: usize) -> bool {
        self.ground.is_fenced(tenant)
    }

    /// FMT-1, and the contents once more, after a clean stop.
    pub fn judge_files(&mut self) -> Result<(), Violation> {
        self.ground.options.faults.read_error_per_million = u64::from(self.may_fence);
        files::judge(self.machine.io.disk(), &mut self.ground)
    }
}
