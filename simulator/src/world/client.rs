//! A client: one connection, what was asked on it, and what becomes of the answers.
//!
//! Owns the mechanics (connect, send, receive, break off) and the meaning of answers for the model.
//! What to ask next is `workload`'s. A client acts when it is woken; nothing here waits.

use std::collections::VecDeque;

use serde_json::Value;
use storage::io::{Clock, Instant};

use super::ground::{Ground, NameSeen};
use super::journal::Change;
use super::model::{Asked, DropId, TransactionId, Violation, mark};
use super::options::{ADMIN, LISTEN};
use super::session::{Session, Stage};
use super::speech::{self, ReadForm, Refused};
use super::workload::{Task, Visit};
use super::{Sim, names};
use crate::client::{Response, ResponseReader};
use crate::draws::{Span, Stream};
use crate::network::{ClientSocket, Wake};

/// Bytes that a client asks for at a time.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Characters of an answer in the readable trace.
const REMARK_CHARS: usize = 200;

/// A call of the control API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminCall {
    /// Create a database.
    Create(usize),
    /// Drop one.
    Drop(usize),
    /// Ask for one.
    Show(usize),
    /// Ask for all.
    List,
    /// Ask for the numbers.
    Metrics,
}

/// What a request was for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Make the tables.
    Setup(TransactionId),
    /// A transaction per statement.
    Entries(Vec<TransactionId>),
    /// A transaction as one batch of so many steps.
    Batch {
        /// Which.
        id: TransactionId,
        /// It is to commit.
        commits: bool,
        /// Asked as a cursor.
        by_cursor: bool,
        /// Steps, begin and end included.
        steps: usize,
        /// The step that tells how many rows were deleted.
        deletes: Option<usize>,
    },
    /// Read everything.
    Read {
        /// How.
        form: ReadForm,
        /// The journal from there on.
        from: u64,
    },
    /// Count the rows of a transaction.
    Point(TransactionId),
    /// The next request of the interactive transaction.
    Step(Stage),
    /// End a transaction that was left alone.
    OldBaton,
    /// The control API, and the number of a drop.
    Admin(AdminCall, Option<DropId>),
}

/// A request without its answer.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The tenant that was asked.
    pub tenant: usize,
    /// When, for the model.
    pub asked: Asked,
    /// What was known of the name then.
    pub name: NameSeen,
    /// When, on the clock that does not count sleep.
    pub sent_at: Instant,
    /// What for.
    pub purpose: Purpose,
}

struct Link {
    socket: ClientSocket,
    admin: bool,
    /// In which life of the server it was established, once it is: what is asked by it goes to that one.
    life: Option<u64>,
    outbox: Vec<u8>,
    reader: ResponseReader,
}

/// How a client breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Reset,
    Close,
    Vanish,
}

/// See the head of the file.
pub struct Client {
    /// Its number; the entity of its draws.
    pub id: u64,
    link: Option<Link>,
    pending: VecDeque<Pending>,
    /// The interactive transaction in hand.
    pub session: Option<Session>,
    /// The visit in hand.
    pub visit: Option<Visit>,
    /// What the visit does first, in this order.
    pub plan: VecDeque<Task>,
    /// Time between the plan's requests.
    pub plan_gap_ns: u64,
    /// The stream of a transaction that was left alone.
    pub old_baton: Option<(usize, String)>,
    /// What is asked again if its answer does not come.
    pub again: Option<(usize, Change)>,
    /// What to do, in order, instead of drawing it; the probe's.
    pub script: Option<VecDeque<Task>>,
    /// Timers with an older number mean nothing.
    timer: u32,
    break_planned: bool,
    /// The last answer said that it was done.
    went_well: bool,
    /// Nothing more to do.
    pub finished: bool,
}

const TIMER_BITS: u32 = 32;

impl Client {
    /// A client that begins to act at `start`.
    pub fn new(sim: &mut Sim, id: u64, start: Instant) -> Client {
        let mut client = Client {
            id,
            link: None,
            pending: VecDeque::new(),
            session: None,
            visit: None,
            plan: VecDeque::new(),
            plan_gap_ns: 0,
            old_baton: None,
            again: None,
            script: None,
            timer: 0,
            break_planned: false,
            went_well: false,
            finished: false,
        };
        client.set_timer(sim, start);
        client
    }

    /// A draw of this client's stream.
    pub fn draw(&self, sim: &mut Sim, bound: u64) -> u64 {
        sim.draws_mut().below(Stream::Workload, self.id, bound)
    }

    /// A draw with small and large numbers alike.
    pub fn draw_span(&self, sim: &mut Sim, low: u64, high: u64) -> u64 {
        sim.draws_mut().logarithmic(Stream::Workload, self.id, Span::new(low, high))
    }

    fn set_timer(&mut self, sim: &mut Sim, at: Instant) {
        self.timer = self.timer.wrapping_add(1);
        sim.wake_at(at, self.id << TIMER_BITS | u64::from(self.timer));
    }

    /// The client of a timer's tag.
    pub fn of_tag(tag: u64) -> u64 {
        tag >> TIMER_BITS
    }

    /// Its socket, to route wakes.
    pub fn socket(&self) -> Option<ClientSocket> {
        self.link.as_ref().map(|link| link.socket)
    }

    /// The oldest request without an answer.
    pub fn oldest(&self) -> Option<&Pending> {
        self.pending.front()
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Nothing more to do: close the connection, and leave an open transaction alone.
    pub fn leave(&mut self, sim: &mut Sim) {
        assert!(self.pending.is_empty(), "it has heard all its answers");
        self.finished = true;
        self.session = None;
        self.timer = self.timer.wrapping_add(1);
        if let Some(link) = self.link.take() {
            sim.client_close(link.socket);
        }
    }

    // ---- waking ----

    /// Something happened, or a time has come.
    ///
    /// # Errors
    /// If an answer violates a property.
    pub fn wake(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        wake: Wake,
    ) -> Result<(), Violation> {
        match wake {
            Wake::Timer(tag) => {
                if tag as u32 != self.timer {
                    return Ok(());
                }
                if self.break_planned {
                    self.break_off(sim, ground);
                } else if self.pending.is_empty() {
                    return self.act(sim, ground);
                }
                return Ok(());
            }
            Wake::Refused(_) => {
                self.lose(sim, ground);
                return Ok(());
            }
            Wake::Connected(_) => {
                if let Some(link) = &mut self.link {
                    link.life = sim.life_of(link.socket);
                }
            }
            Wake::Readable(_) | Wake::Writable(_) => {}
        }
        self.push(sim);
        self.pull(sim, ground)
    }

    /// Send what is to be sent, as far as it goes.
    fn push(&mut self, sim: &mut Sim) {
        let Some(link) = &mut self.link else { return };
        while link.life.is_some() && !link.outbox.is_empty() {
            match sim.client_send(link.socket, &link.outbox) {
                Ok(count) => drop(link.outbox.drain(..count)),
                // Full for now, or broken: receiving tells which.
                Err(_) => return,
            }
        }
    }

    /// Receive what is there, and take the answers in it.
    fn pull(&mut self, sim: &mut Sim, ground: &mut Ground) -> Result<(), Violation> {
        loop {
            let Some(link) = &mut self.link else { return Ok(()) };
            let mut ended = false;
            match sim.client_receive(link.socket, RECEIVE_BYTES) {
                Ok(bytes) if bytes.is_empty() => {
                    ended = true;
                    link.reader.end();
                }
                Ok(bytes) => link.reader.push(&bytes),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => {
                    self.lose(sim, ground);
                    return Ok(());
                }
            }
            while let Some(link) = &mut self.link {
                match link.reader.next_response() {
                    Ok(Some(response)) => self.answered(sim, ground, &response)?,
                    Ok(None) => break,
                    Err(crate::client::ResponseError::Truncated) if ended => break,
                    Err(error) => return Err(Violation::new("HTTP-1", error.to_string())),
                }
            }
            if ended {
                self.lose(sim, ground);
                return Ok(());
            }
        }
    }

    fn answered(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        response: &Response,
    ) -> Result<(), Violation> {
        let pending = self.pending.pop_front().expect("the reader counts requests");
        sim.trace_mut().remark(|| {
            let body = String::from_utf8_lossy(&response.body);
            let start: String = body.chars().take(REMARK_CHARS).collect();
            format!("client {} hears {} {start} to {pending:?}", self.id, response.status)
        });
        self.again = None;
        let finish = response.closes;
        let ok_before = ground.counts.ok;
        ground.answered_at = self.link.as_ref().and_then(|link| {
            sim.monitor().submitted_at(link.socket.0, link.reader.response_end() - 1)
        });
        ground.asked = Some(pending.name);
        self.hear(ground, &pending, response)?;
        self.went_well = ground.counts.ok > ok_before || response.status == 400;
        if finish {
            self.lose(sim, ground);
        } else if self.pending.is_empty() {
            self.rest(sim, ground);
        }
        Ok(())
    }

    /// Think, then act again.
    fn rest(&mut self, sim: &mut Sim, ground: &mut Ground) {
        self.break_planned = false;
        if std::mem::take(&mut self.went_well)
            && let Some(script) = &mut self.script
        {
            script.pop_front();
        }
        if self.plan.is_empty() {
            self.plan_gap_ns = 0;
        }
        let pause = self.draw_pause(sim, ground);
        let at = sim.now().after(pause);
        self.set_timer(sim, at);
    }

    // ---- acting ----

    fn act(&mut self, sim: &mut Sim, ground: &mut Ground) -> Result<(), Violation> {
        let requests = self.next_requests(sim, ground);
        let Some((first, _)) = requests.first() else {
            if self.finished {
                if let Some(link) = self.link.take() {
                    sim.client_close(link.socket);
                }
            } else {
                self.rest(sim, ground);
            }
            return Ok(());
        };
        let admin = matches!(first.purpose, Purpose::Admin(..));
        if self.link.as_ref().is_some_and(|link| link.admin != admin || self.draw_renewal(sim)) {
            let link = self.link.take().expect("looked at just now");
            sim.client_close(link.socket);
        }
        if self.link.is_none() {
            let address = if admin { ADMIN } else { LISTEN };
            let socket = sim.client_connect(address.parse().expect("an address"));
            let reader = ResponseReader::default();
            let outbox = Vec::new();
            self.link = Some(Link { socket, admin, life: None, outbox, reader });
        }
        let link = self.link.as_mut().expect("made just now");
        for (pending, bytes) in requests {
            sim.trace_mut().remark(|| format!("client {} asks {pending:?}", self.id));
            link.outbox.extend_from_slice(&bytes);
            link.reader.expect(false);
            self.pending.push_back(pending);
        }
        self.plan_break(sim, ground);
        self.push(sim);
        Ok(())
    }

    fn draw_renewal(&self, sim: &mut Sim) -> bool {
        self.draw(sim, 50) == 0
    }

    fn plan_break(&mut self, sim: &mut Sim, ground: &Ground) {
        let impatient = self.again.is_some() && self.draw(sim, 4) == 0;
        let rate = ground.options.break_per_million;
        if self.script.is_none() && (impatient || self.draw(sim, 1_000_000) < rate) {
            self.break_planned = true;
            let longest = if impatient { 100_000_000 } else { 20_000_000_000 };
            let patience = self.draw_span(sim, 1_000, longest);
            let at = sim.now().after(patience);
            self.set_timer(sim, at);
        }
    }

    fn break_off(&mut self, sim: &mut Sim, ground: &mut Ground) {
        self.break_planned = false;
        let how = [Break::Reset, Break::Close, Break::Vanish][self.draw(sim, 3) as usize];
        if let Some(link) = &self.link {
            match how {
                Break::Reset => sim.client_reset(link.socket),
                Break::Close => sim.client_close(link.socket),
                Break::Vanish => sim.client_vanish(link.socket),
            }
        }
        self.lose(sim, ground);
    }

    /// The connection is gone, and with it the answers.
    fn lose(&mut self, sim: &mut Sim, ground: &mut Ground) {
        let link = self.link.take();
        if let Some(link) = &link {
            sim.client_close(link.socket);
        }
        let life = link.and_then(|link| link.life);
        for pending in std::mem::take(&mut self.pending) {
            ground.counts.unknown += 1;
            let Asked { at, epoch } = pending.asked;
            let asked = Asked { at, epoch: life.unwrap_or(epoch) };
            match pending.purpose {
                Purpose::Entries(ids) => ids.iter().for_each(|id| ground.model.lost(*id, asked)),
                Purpose::Setup(id) | Purpose::Batch { id, .. } => ground.model.lost(id, asked),
                Purpose::Step(_) => self.lose_session(ground, asked),
                Purpose::Admin(AdminCall::Create(tenant), _) => ground.name_lost(tenant, asked),
                Purpose::Admin(AdminCall::Drop(tenant), drop) => {
                    ground.model.drop_lost(drop.expect("it has a number"), asked);
                    ground.name_lost(tenant, asked);
                }
                Purpose::Read { .. } | Purpose::Point(_) | Purpose::OldBaton => {}
                Purpose::Admin(..) => {}
            }
        }
        self.rest(sim, ground);
    }

    // ---- hearing ----

    fn hear(
        &mut self,
        ground: &mut Ground,
        pending: &Pending,
        response: &Response,
    ) -> Result<(), Violation> {
        if let Purpose::Admin(call, drop) = pending.purpose {
            return names::hear(ground, pending, call, drop, response);
        }
        let tenant = pending.tenant;
        speech::check_marks(tenant, &response.body)?;
        if response.status == 404 {
            ground.check_name(tenant, pending.name, false)?;
        }
        let ok_before = ground.counts.ok;
        self.hear_answer(ground, pending, response)?;
        // An answer of nothing but errors says nothing about the name.
        if response.status == 200 && ground.counts.ok > ok_before {
            ground.check_name(tenant, pending.name, true)?;
        }
        Ok(())
    }

    fn hear_answer(
        &mut self,
        ground: &mut Ground,
        pending: &Pending,
        response: &Response,
    ) -> Result<(), Violation> {
        if let Purpose::Batch { by_cursor: true, steps, .. } = pending.purpose
            && response.status == 200
        {
            let steps = speech::entries(response, steps)?;
            return self.hear_batch(ground, pending, &steps);
        }
        if let Purpose::Read { form: ReadForm::Cursor, from } = pending.purpose
            && response.status == 200
        {
            let mut steps = speech::entries(response, 1)?;
            let result = steps.remove(0).unwrap_or(Ok(Value::Null));
            return self.hear_read(ground, pending, from, result);
        }
        let body = match speech::hear(response)? {
            Ok(body) => body,
            Err(refused) => return self.hear_refusal(ground, pending, &refused),
        };
        self.hear_body(ground, pending, response, &body)
    }

    fn hear_body(
        &mut self,
        ground: &mut Ground,
        pending: &Pending,
        response: &Response,
        body: &Value,
    ) -> Result<(), Violation> {
        let tenant = pending.tenant;
        let one = |count: usize| {
            let mut results = speech::results(body, count, response)?;
            Ok::<_, Violation>(results.swap_remove(0))
        };
        match &pending.purpose {
            Purpose::Entries(ids) => {
                let results = speech::results(body, ids.len() + 1, response)?;
                for (id, result) in ids.iter().zip(results) {
                    self.hear_commit(ground, (tenant, *id), None, None, result.err())?;
                }
            }
            Purpose::Batch { .. } => match one(2)? {
                Ok(result) => self.hear_batch(ground, pending, &speech::steps(&result))?,
                Err(refused) => return self.hear_batch(ground, pending, &[Some(Err(refused))]),
            },
            Purpose::Read { from, .. } => self.hear_read(ground, pending, *from, one(2)?)?,
            Purpose::Point(id) => self.hear_point(ground, pending, *id, one(2)?)?,
            Purpose::Setup(id) => {
                let result = one(2)?;
                ground.set_ready(tenant, result.is_ok());
                self.hear_commit(ground, (tenant, *id), None, None, result.err())?;
            }
            Purpose::Step(stage) => {
                let result = one(Client::step_results(*stage))?;
                let baton = body["baton"].as_str().map(str::to_owned);
                self.hear_step(ground, pending, *stage, baton, result)?;
            }
            // There may be nothing to roll back any more.
            Purpose::OldBaton => ground.counts.ok += u64::from(one(2)?.is_ok()),
            Purpose::Admin(..) => unreachable!("heard before"),
        }
        Ok(())
    }

    /// A transaction's end was answered.
    pub fn hear_commit(
        &mut self,
        ground: &mut Ground,
        (tenant, id): (usize, TransactionId),
        place: Option<(&str, u64)>,
        affected: Option<u64>,
        refused: Option<Refused>,
    ) -> Result<(), Violation> {
        match refused {
            None => {
                ground.counts.ok += 1;
                ground.counts.acknowledged += 1;
                // Tables that were there already leave no mark of who asked for them again.
                if !matches!(ground.model.change(id), Change::Setup) {
                    let answered = ground.answered_at.map(|at| (mark(tenant, id), at));
                    ground.acknowledged.extend(answered);
                }
                ground.model.committed(id, place, affected)
            }
            Some(refused) => {
                ground.model.refused(id)?;
                ground.judge_refusal(tenant, &refused)
            }
        }
    }

    fn hear_batch(
        &mut self,
        ground: &mut Ground,
        pending: &Pending,
        steps: &[Option<Result<Value, Refused>>],
    ) -> Result<(), Violation> {
        let Purpose::Batch { id, commits, steps: count, deletes, .. } = pending.purpose else {
            unreachable!("a batch was asked for")
        };
        let of = (pending.tenant, id);
        let done = |step: usize| steps.get(step)?.as_ref()?.as_ref().ok();
        if commits && done(count - 2).is_some() {
            let place = done(count - 3).and_then(speech::noted);
            let strange = || Violation::new("HTTP-1", "an entry without its number");
            let place = place.ok_or_else(strange)?;
            let affected = deletes.and_then(done).and_then(|it| it["affected_row_count"].as_u64());
            return self.hear_commit(ground, of, Some(place), affected, None);
        }
        if commits {
            ground.model.refused(id)?;
        }
        match steps.iter().find_map(|step| step.as_ref()?.as_ref().err()) {
            Some(refused) => ground.judge_refusal(pending.tenant, refused),
            None if commits => {
                Err(Violation::new("HTTP-1", "a batch neither committed nor failed"))
            }
            None => {
                ground.counts.ok += 1;
                Ok(())
            }
        }
    }

    fn hear_read(
        &mut self,
        ground: &mut Ground,
        pending: &Pending,
        from: u64,
        result: Result<Value, Refused>,
    ) -> Result<(), Violation> {
        let Pending { tenant, asked, .. } = *pending;
        let found = match result {
            Ok(result) => {
                let bad = || Violation::new("HTTP-1", format!("rows of another shape: {result}"));
                Some(speech::found(&result).ok_or_else(bad)?)
            }
            Err(refused) if refused.is_no_table() => None,
            Err(refused) => return ground.judge_refusal(tenant, &refused),
        };
        ground.set_ready(tenant, found.is_some());
        ground.counts.ok += 1;
        ground.counts.reads += 1;
        ground.model.judge_read(tenant, asked, from, found.as_ref())
    }

    fn hear_point(
        &mut self,
        ground: &mut Ground,
        pending: &Pending,
        id: TransactionId,
        result: Result<Value, Refused>,
    ) -> Result<(), Violation> {
        let Pending { tenant, asked, .. } = *pending;
        match result {
            Ok(result) => {
                let bad = || Violation::new("HTTP-1", format!("rows of another shape: {result}"));
                let (rows, last, incarnation) = speech::peeked(&result).ok_or_else(bad)?;
                ground.counts.ok += 1;
                ground.model.judge_point(tenant, asked, (incarnation, last), (id, rows))
            }
            Err(refused) => ground.judge_refusal(tenant, &refused),
        }
    }

    /// The request as a whole was refused: nothing of it was done, unless the tenant is damaged.
    fn hear_refusal(
        &mut self,
        ground: &mut Ground,
        pending: &Pending,
        refused: &Refused,
    ) -> Result<(), Violation> {
        let damaged = refused.code == "DATABASE_DAMAGED";
        let (asked, tenant) = (pending.asked, pending.tenant);
        match &pending.purpose {
            Purpose::Entries(ids) => {
                for id in ids {
                    end(ground, *id, damaged, asked)?;
                }
            }
            Purpose::Setup(id) | Purpose::Batch { id, commits: true, .. } => {
                end(ground, *id, damaged, asked)?;
            }
            Purpose::Step(_) if damaged => self.lose_session(ground, asked),
            Purpose::Step(_) => self.refuse_session(ground)?,
            // A database that does not exist holds nothing.
            Purpose::Read { from, .. } if refused.status == 404 => {
                ground.model.judge_read(tenant, asked, *from, None)?;
            }
            _ => {}
        }
        ground.judge_refusal(tenant, refused)
    }
}

/// A commit that was refused; or, of a damaged tenant, whose outcome nobody knows.
fn end(
    ground: &mut Ground,
    id: TransactionId,
    damaged: bool,
    asked: Asked,
) -> Result<(), Violation> {
    if damaged {
        ground.model.lost(id, asked);
        return Ok(());
    }
    ground.model.refused(id)
}
