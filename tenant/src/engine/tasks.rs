//! Tasks: one fiber each, what it waits for, and what it asks.
//!
//! A task is *ready* (in the ready queue, with the input for its next resume) or *waiting* (somebody
//! will call `answer`). It runs until it waits; answers that are there at once do not leave the run.

use storage::fiber::{Answer, Fiber, Input, Loan, Step};
use storage::io::{Clock, Instant};
use storage::ledger;
use storage::sometimes;
use storage::volume::Volume;

use super::building::Unbuilt;
use super::checkpoint::{Checkpointed, run_checkpoint};
use super::context::{Ask, Job, JobContext, Permit, Reply};
use super::copy::{CopyFailure, CopyOrder, run_copy};
use super::import::run_import;
use super::{Engine, Event, Phase, Refusal, RequestId, Timer};
use crate::access::Holder;
use crate::budget::{Exceeded, Limits, Part, Priority, RequestLimits};
use crate::catalogue::{self, Call, Outcome};
use crate::import::{ImportError, ImportOrder, Imported};
use crate::limits;
use crate::pool::Key;
use crate::session::{PooledConnection, Session};
use crate::statement::{Gone, SqlStream, StreamError};

/// What a fiber does.
pub(super) enum Work<J> {
    Client(J, RequestLimits, Permit),
    Catalogue(Vec<Call>),
    Checkpoint(Option<PooledConnection>),
    /// Roll an idle transaction back; the session lives on.
    RollBack(Session),
    /// Close sessions' connections, or give them back to the tenant.
    Close(Vec<PooledConnection>),
    /// Close connections for good.
    Discard(Vec<PooledConnection>),
    /// Make the database from what a client sends.
    Import(ImportOrder, RequestLimits),
    /// Copy the database into another one that is being built.
    Copy(CopyOrder, Option<PooledConnection>),
}

/// What a fiber ends with.
pub(super) enum Ended<R> {
    Client(R),
    Catalogue(Vec<Outcome>),
    Checkpoint(Result<Checkpointed, i32>, Option<PooledConnection>),
    RolledBack(Option<Box<Session>>),
    Closed(Vec<PooledConnection>),
    Imported(Result<Imported, ImportError>),
    Copied(Result<(), CopyFailure>, Option<PooledConnection>),
}

/// Who a task works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Client(RequestId),
    Catalogue,
    Checkpoint,
    RollBack(crate::statement::Ticket),
    Close,
    Import(RequestId),
    Copy,
}

/// What a suspended task is to be resumed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// An answer to storage's wait.
    Storage,
    /// Its part of the response to leave.
    Flush,
    /// A stream's current user.
    Stream,
    /// A connection in use.
    Connection,
    /// The next piece of what is imported.
    Body,
    /// A checkpoint of its tenant.
    Checkpoint,
}

impl<J: Job> Task<J> {
    /// When its present wait is over, if that has an end.
    pub fn wait_ends(&self) -> Instant {
        self.wait_ends
    }

    /// Its request has run for longer than it may. One that keeps a snapshot has limits of its own.
    pub fn is_overdue(&self, limits: &Limits, now: Instant) -> bool {
        let most_ns = match self.kind {
            Kind::Import(_) => limits::IMPORT_NS,
            _ => self.run_ns.unwrap_or(limits.request_ns),
        };
        !self.holds_snapshot && now.since(self.started) > most_ns
    }

    /// It is suspended, and what it waits for has not come.
    pub fn is_waiting(&self) -> bool {
        self.input.is_none()
    }

    /// When it was made.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// What it is to be resumed with.
    pub fn input(&self) -> Option<&Input<Reply>> {
        self.input.as_ref()
    }
}

type TaskFiber<J> = Fiber<Ask, Reply, Ended<<J as Job>::Reply>>;

/// See the head of the file.
pub(super) struct Task<J: Job> {
    pub tenant: Key,
    /// The other database that it works on, if it copies one into another; it stays open, too.
    pub other: Option<Key>,
    pub kind: Kind,
    /// Whose turn it is first, at the processor and at the disk.
    pub priority: Priority,
    fiber: TaskFiber<J>,
    input: Option<Input<Reply>>,
    /// When it started, later by the time that its client took to read.
    pub started: Instant,
    /// How long it may run, if not as long as its tenant's requests.
    run_ns: Option<u64>,
    /// Since when a part of its response is with the client.
    pub flushing_since: Instant,
    pub cancelled: bool,
    /// Who holds its rights, if it is a client's.
    pub holder: Option<Holder>,
    /// It keeps a snapshot for longer than a request as a rule.
    pub holds_snapshot: bool,
    /// When it was made.
    began: Instant,
    /// Its snapshot cannot be kept: it ends.
    pub overtaken: bool,
    /// They are no more: it ends, and what comes of it is not told.
    revoked: bool,
    /// It has used up a slice.
    pub is_long: bool,
    /// Its database was dropped while a part of its answer was on the way: the rest is not told.
    broken_off: bool,
    pub waits_for: WaitsFor,
    /// Bytes that it has with the disk.
    pub transfer_bytes: u64,
    /// Bytes of its commit that were charged before.
    pub commit_charged_bytes: u64,
    /// It waits for log space for so many pages.
    pub log_pages: Option<u32>,
    /// When its present wait is over, if that has an end: a timer of an earlier wait finds a later
    /// instant here and does nothing.
    pub wait_ends: Instant,
}

fn body<J: Job>(work: Work<J>, handle: &storage::fiber::Handle<'_, Ask, Reply>) -> Ended<J::Reply> {
    match work {
        Work::Client(job, limits, permit) => {
            let tenant_id = storage::fiber::with_volume(|volume| volume.tenant().0);
            Ended::Client(job.run(&mut JobContext::new(handle, tenant_id, limits, permit)))
        }
        Work::Import(order, limits) => Ended::Imported(run_import(handle, order, limits)),
        Work::Catalogue(calls) => Ended::Catalogue(run_catalogue(handle, &calls)),
        Work::Checkpoint(pooled) => run_checkpoint(pooled),
        Work::Copy(order, pooled) => {
            let (result, pooled) = run_copy(handle, order, pooled);
            Ended::Copied(result, pooled)
        }
        Work::RollBack(mut session) => {
            session.pooled.roll_back();
            // Without memory even that fails; closing the connection needs none.
            Ended::RolledBack(session.is_autocommit().then(|| Box::new(session)))
        }
        Work::Discard(connections) => {
            drop(connections);
            Ended::Closed(Vec::new())
        }
        Work::Close(connections) => Ended::Closed(
            connections
                .into_iter()
                .filter_map(|mut pooled| {
                    pooled.roll_back();
                    pooled.set_read_only(false);
                    pooled.is_clean().then_some(pooled)
                })
                .collect(),
        ),
    }
}

fn run_catalogue(handle: &storage::fiber::Handle<'_, Ask, Reply>, calls: &[Call]) -> Vec<Outcome> {
    let failed = |text: String| vec![Outcome::Failed(text); calls.len()];
    let connection = match handle.ask(Ask::Open) {
        Reply::Connection(Ok(connection)) => connection,
        _ => return failed("the catalogue has no connection".into()),
    };
    let mut pooled = match connection.map_or_else(PooledConnection::open_catalogue, Ok) {
        Ok(pooled) => pooled,
        Err(error) => {
            handle.ask(Ask::OpenFailed);
            return failed(error.message);
        }
    };
    let outcomes = catalogue::carry_out(&mut pooled, calls);
    pooled.roll_back();
    if let Reply::Closed(unwanted) = handle.ask(Ask::Close(pooled, None)) {
        drop(unwanted);
    }
    outcomes
}

impl<J: Job> Engine<J> {
    /// Start a fiber on the tenant. Fails if the kernel refuses memory for its stack.
    pub(super) fn start_task(&mut self, tenant: Key, kind: Kind, work: Work<J>) -> Option<Key> {
        let stack = self.stacks.take().ok()?;
        // The engine's own work has a queue of its own, and counts for its tenant as most requests do.
        let priority = match &work {
            Work::Client(job, _, permit) => {
                let most = self.tenants.get(tenant).map_or(Priority::Normal, |t| t.limits.priority);
                let most = permit.priority.map_or(most, |cap| most.min(cap));
                job.priority().map_or(most, |asked| asked.min(most))
            }
            Work::Import(..) => Priority::Background,
            Work::Copy(order, _) if order.is_small => Priority::Normal,
            Work::Copy(..) => Priority::Background,
            _ => Priority::Normal,
        };
        let holder = match &work {
            Work::Client(_, _, permit) => Some(permit.holder),
            _ => None,
        };
        let holds_snapshot = match &work {
            Work::Client(job, ..) => job.exports(),
            work => matches!(work, Work::Copy(..)),
        };
        let run_ns = match &work {
            Work::Client(job, ..) => job.run_ns(),
            _ => None,
        };
        let fiber = Fiber::new(stack, move |handle| body(work, handle));
        let key = self.tasks.insert(Task {
            tenant,
            other: None,
            kind,
            priority,
            fiber,
            input: Some(Input::Start),
            started: self.now,
            run_ns,
            flushing_since: self.now,
            cancelled: false,
            holder,
            holds_snapshot,
            began: self.now,
            overtaken: false,
            revoked: false,
            broken_off: false,
            waits_for: WaitsFor::Storage,
            is_long: false,
            transfer_bytes: 0,
            commit_charged_bytes: 0,
            log_pages: None,
            wait_ends: Instant(0),
        });
        if let Some(tenant) = self.tenants.get_mut(tenant) {
            tenant.tasks += 1;
            tenant.fibers += usize::from(matches!(kind, Kind::Client(_)));
        }
        if let Kind::Client(request) | Kind::Import(request) = kind {
            let place = self.by_request.partition_point(|&(other, _)| other < request);
            self.by_request.insert(place, (request, key));
            self.counters.jobs += u64::from(matches!(kind, Kind::Client(_)));
        }
        self.enqueue(key);
        if !self.tasks_watched {
            self.watch_tasks();
        }
        Some(key)
    }

    /// What the task waited for has come.
    pub(super) fn answer(&mut self, key: Key, answer: Answer) {
        self.wake(key, Input::Answer(answer));
    }

    pub(super) fn wake(&mut self, key: Key, input: Input<Reply>) {
        if let Some(task) = self.tasks.get_mut(key) {
            assert!(task.input.is_none(), "a task is woken once");
            task.input = Some(input);
            self.enqueue(key);
        }
    }

    pub(super) fn answer_flush(&mut self, key: Key, result: Result<Vec<u8>, Gone>) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        if task.waits_for == WaitsFor::Flush && task.input.is_none() {
            task.started = task.started.after(self.now.since(task.flushing_since));
            self.wake(key, Input::Host(Reply::Flushed(result)));
        }
    }

    pub(super) fn cancel_task(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.cancelled = true;
        if let Kind::Import(request) = task.kind {
            return self.supply(request, Err(Gone));
        }
        self.answer_flush(key, Err(Gone));
    }

    /// The task's snapshot cannot be kept: it goes on only to its end, and that is told.
    pub(super) fn overtake_task(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.overtaken = true;
        self.answer_flush(key, Err(Gone));
    }

    /// The task's database is no more: it waits for nobody.
    pub(super) fn release_task(&mut self, key: Key) {
        if let Some(task) = self.tasks.get_mut(key) {
            task.broken_off |= task.waits_for == WaitsFor::Flush && task.input.is_none();
        }
        self.answer_flush(key, Err(Gone));
        self.writer_timed_out(key);
    }

    /// The task's rights are no more: it goes on only to its end, and waits for nobody.
    pub(super) fn revoke_task(&mut self, key: Key) {
        let Some(task) = self.tasks.get_mut(key) else { return };
        task.revoked = true;
        self.answer_flush(key, Err(Gone));
        self.writer_timed_out(key);
    }

    /// In a doomed world: let every wait fail until no fiber is left.
    ///
    /// # Panics
    /// If they do not end in a bounded number of resumes.
    pub(super) fn finish_fibers(&mut self, clock: &dyn Clock) {
        /// A fiber that retries for ever would never end (F7).
        const ROUNDS_MAX: usize = 10_000;
        for _ in 0..ROUNDS_MAX {
            let keys = self.tasks.keys();
            if keys.is_empty() {
                return;
            }
            for key in keys {
                let Some(task) = self.tasks.get_mut(key) else { continue };
                task.input.get_or_insert_with(|| match task.waits_for {
                    WaitsFor::Storage => Input::Answer(Answer::Failed(std::io::ErrorKind::Other)),
                    WaitsFor::Body => Input::Host(Reply::Received(Err(Gone))),
                    WaitsFor::Checkpoint => Input::Host(Reply::Done),
                    WaitsFor::Flush => Input::Host(Reply::Flushed(Err(Gone))),
                    WaitsFor::Connection => {
                        Input::Host(Reply::Connection(Err(StreamError::Unavailable)))
                    }
                    WaitsFor::Stream => Input::Host(Reply::Stream(Err(StreamError::Unavailable))),
                });
                self.run_task(key, clock);
            }
        }
        panic!("a fiber of a doomed world does not end");
    }

    /// Resume the task until it waits or ends, or its quantum is used up. What it cost, in nanoseconds
    /// of the processor, and when it ended: what the clock says, or what its steps are worth where the
    /// clock stands still.
    pub(super) fn run_task(&mut self, key: Key, clock: &dyn Clock) -> (u64, Instant) {
        let started = clock.now();
        let steps = self.run_quantum(key, clock, started);
        let ended = clock.now();
        match ended.since(started) {
            0 => (limits::RESUME_NS + steps * limits::STEP_NS, ended),
            measured_ns => (measured_ns, ended),
        }
    }

    /// The VM steps that it took.
    fn run_quantum(&mut self, key: Key, clock: &dyn Clock, started: Instant) -> u64 {
        let mut steps = 0;
        let Some(task) = self.tasks.get_mut(key) else { return steps };
        let tenant_key = task.tenant;
        let Some(mut input) = task.input.take() else { return steps };
        let slice_ends = started.after(limits::QUANTUM_NS);
        loop {
            let stopping = self.is_stopping();
            let other_ends = self.other_ends(key);
            let task = self.tasks.get_mut(key).expect("the task runs");
            let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
            let volume = tenant.volume.as_mut().expect("a tenant with tasks has a volume");
            let client = matches!(task.kind, Kind::Client(_) | Kind::Import(_));
            let overdue = client && task.is_overdue(&tenant.limits, self.now);
            if overdue {
                sometimes!("a request takes too long");
            }
            if task.cancelled {
                sometimes!("a job runs on after its client went");
            }
            let given_up = task.kind == Kind::Copy && (tenant.ending || other_ends || stopping);
            let loan = Loan {
                volume,
                clock,
                quantum_steps: limits::QUANTUM_STEPS.saturating_sub(steps),
                slice_ends,
                interrupt: self.doomed
                    || overdue
                    || task.cancelled
                    || task.revoked
                    || task.overtaken
                    || given_up
                    || (client && tenant.ending),
            };
            // The log is everybody's, and only a checkpoint lets go of it.
            let aided = task.kind == Kind::Checkpoint;
            if aided {
                ledger::begin_extra(limits::CHECKPOINT_EXTRA_BYTES);
            }
            let account = loan.volume.account();
            let (step, taken) = task.fiber.resume(loan, input);
            if aided {
                ledger::end_extra(account);
            }
            let cost = task.fiber.take_cost();
            tenant.usage.cost += cost;
            if let Some(key) = task.holder.and_then(|holder| holder.key)
                && !self.keys.spenders.is_empty()
            {
                self.keys.spenders.spend(key, limits::request_units_micro(&cost), self.now);
            }
            steps += taken;
            self.counters.resumes += 1;
            self.counters.vm_steps += taken;
            let mut over = steps >= limits::QUANTUM_STEPS;
            let next = match step {
                Step::Waits(wait) => {
                    over |= clock.now() >= slice_ends;
                    task.is_long |= over;
                    task.waits_for = WaitsFor::Storage;
                    self.on_wait(key, tenant_key, wait).map(Input::Answer)
                }
                Step::Asks(ask) => self.on_ask(key, tenant_key, ask).map(Input::Host),
                Step::Ends(ended) => {
                    self.end_task(key, tenant_key, ended);
                    return steps;
                }
            };
            // Who has asked something and goes on at once has not come out as far as others can see.
            let goes_on = !over && matches!(next, Some(Input::Host(_)));
            if !goes_on {
                self.settle(tenant_key);
            }
            let Some(next) = next else { return steps };
            if over && !self.doomed {
                self.wake(key, next);
                return steps;
            }
            input = next;
        }
    }

    /// After a fiber of the tenant ran: carry out what it left in the volume.
    pub(super) fn settle(&mut self, tenant_key: Key) {
        let Some(tenant) = self.tenants.get_mut(tenant_key) else { return };
        let Some(volume) = &mut tenant.volume else { return };
        let closing = volume.take_closing();
        self.counters.starved_writers += std::mem::take(&mut volume.locks.starved);
        if let Some(log) = &mut self.log {
            for pages in volume.unused_pages.drain(..) {
                log.unreserve(log.transaction_bytes(pages));
            }
            if let Some(transaction) = volume.abandoned.take() {
                log.abandon(transaction);
            }
        }
        for file in closing {
            self.close_file(file);
        }
        self.grant_writer(tenant_key);
        self.note_redo(tenant_key);
        self.note_allowance(tenant_key);
        self.settle_unsealed(tenant_key);
    }

    // ---- asks ----

    fn on_ask(&mut self, key: Key, tenant_key: Key, ask: Ask) -> Option<Reply> {
        let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
        match ask {
            Ask::Open => self.open_stream(key, tenant_key).map(Reply::Connection),
            Ask::OpenFailed => {
                tenant.streams -= 1;
                tenant.active -= 1;
                Some(Reply::Done)
            }
            Ask::Resume(ticket) => {
                let task = self.tasks.get_mut(key).expect("the task runs");
                task.waits_for = WaitsFor::Stream;
                self.resume_stream(key, tenant_key, ticket).map(Reply::Stream)
            }
            Ask::Promise => Some(Reply::Ticket(self.promise_stream(tenant_key))),
            Ask::Park(session) => {
                let ticket = self.park_stream(tenant_key, session);
                if self.tasks.get(key).is_some_and(|task| task.revoked) {
                    self.stream_expired(ticket);
                }
                Some(Reply::Ticket(ticket))
            }
            Ask::Close(pooled, promised) => {
                Some(Reply::Closed(self.close_stream(tenant_key, pooled, promised)))
            }
            Ask::Flush(part) => self.flush_part(key, tenant_key, part),
            Ask::Receive(spare) => self.on_receive(key, spare),
            Ask::Pause => self.on_pause(key, tenant_key),
            Ask::Tell(progress) => Some(self.on_progress(key, progress)),
            Ask::Copied(pages, total) => {
                self.note_copied(key, (pages, total));
                Some(Reply::Done)
            }
            Ask::Switch => {
                self.switch(key);
                None
            }
        }
    }

    /// A connection for a new stream: an idle one, or leave to open one; `None` if the task waits a
    /// moment for one in use.
    fn open_stream(
        &mut self,
        key: Key,
        tenant_key: Key,
    ) -> Option<Result<Option<PooledConnection>, StreamError>> {
        let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
        if self.doomed || tenant.ending {
            return Some(Err(StreamError::Unavailable));
        }
        let (used, limit) = (tenant.streams as u64, tenant.limits.streams);
        if used >= limit {
            sometimes!("a tenant has too many streams");
            let exceeded = Exceeded { part: Part::Streams, limit, used, wanted: 1 };
            return Some(Err(StreamError::Exceeded(exceeded)));
        }
        tenant.streams += 1;
        if tenant.idle.is_empty() && tenant.active > 0 {
            sometimes!("a request waits for a connection in use");
            tenant.openers.push_back(key);
            self.tasks.get_mut(key).expect("the task runs").waits_for = WaitsFor::Connection;
            self.bound_wait(key, limits::CONNECTION_WAIT_NS, Timer::ConnectionWait(key));
            return None;
        }
        tenant.active += 1;
        Some(Ok(tenant.idle.pop()))
    }

    /// No connection came free in time: open one.
    pub(super) fn connection_wait_over(&mut self, key: Key) {
        if !self.wait_is_over(key) {
            return;
        }
        let Some(task) = self.tasks.get(key) else { return };
        let Some(tenant) = self.tenants.get_mut(task.tenant) else { return };
        let Some(index) = tenant.openers.iter().position(|&opener| opener == key) else { return };
        tenant.openers.remove(index);
        tenant.active += 1;
        self.wake(key, Input::Host(Reply::Connection(Ok(None))));
    }

    fn flush_part(&mut self, key: Key, tenant_key: Key, part: Vec<u8>) -> Option<Reply> {
        let over = self.damage(tenant_key).is_some()
            || self.tenants.get(tenant_key).is_none_or(|tenant| tenant.dropped);
        let task = self.tasks.get_mut(key).expect("the task runs");
        let Kind::Client(request) = task.kind else {
            unreachable!("only a client's job has a response")
        };
        task.broken_off |= over;
        if task.cancelled || task.revoked || task.overtaken || self.doomed || over {
            return Some(Reply::Flushed(Err(Gone)));
        }
        task.waits_for = WaitsFor::Flush;
        task.flushing_since = self.now;
        self.hasten_snapshot(key);
        self.emit_gated(tenant_key, Event::Part(request, part));
        None
    }

    // ---- ends ----

    fn end_task(&mut self, key: Key, tenant_key: Key, ended: Ended<J::Reply>) {
        let task = self.tasks.remove(key).expect("the task runs");
        self.stacks.give(task.fiber.into_stack());
        let tenant = self.tenants.get_mut(tenant_key).expect("a task keeps its tenant");
        tenant.tasks -= 1;
        tenant.fibers -= usize::from(matches!(task.kind, Kind::Client(_)));
        tenant.last_used = self.now;
        if matches!(task.kind, Kind::Client(_)) {
            tenant.client_used = self.now;
        }
        if task.holds_snapshot {
            // Checkpoints that it stood in the way of need not wait to be tried again.
            tenant.retry_at = self.now;
        }
        self.settle(tenant_key);
        match (task.kind, ended) {
            (Kind::Client(request), Ended::Client(reply)) => {
                let place = self.by_request.binary_search_by_key(&request, |&(other, _)| other);
                self.by_request.remove(place.expect("a client's task is found by its request"));
                let event = match self.damage(tenant_key) {
                    _ if task.revoked => Event::Refused(request, Refusal::Unauthorised),
                    _ if task.overtaken => {
                        Event::Refused(request, Refusal::Unbuilt(Unbuilt::Overtaken))
                    }
                    None if task.broken_off => Event::Refused(request, Refusal::Unavailable),
                    Some(reason) => Event::Refused(request, Refusal::Fenced(reason)),
                    None => Event::Finished(request, reply),
                };
                if !task.cancelled {
                    self.emit_gated(tenant_key, event);
                }
            }
            (Kind::Import(request), Ended::Imported(result)) => {
                self.by_request.retain(|&(_, task)| task != key);
                self.import_ended(tenant_key, request, result);
            }
            (Kind::Catalogue, Ended::Catalogue(outcomes)) => self.catalogue_done(outcomes),
            (Kind::Checkpoint, Ended::Checkpoint(result, pooled)) => {
                self.keep_idle(tenant_key, pooled);
                self.checkpoint_done(tenant_key, result);
            }
            (Kind::RollBack(ticket), Ended::RolledBack(session)) => {
                self.rolled_back(tenant_key, ticket, session);
            }
            (Kind::Copy, Ended::Copied(result, pooled)) => {
                self.keep_idle(tenant_key, pooled);
                let target = task.other.expect("a copy has its original");
                self.copied(tenant_key, target, task.overtaken, result);
                if !self.doomed {
                    self.pump_forks();
                }
            }
            (Kind::Close, Ended::Closed(connections)) => {
                self.keep_idle(tenant_key, connections);
            }
            _ => unreachable!("a task ends as what it began"),
        }
        self.after_task(tenant_key);
    }

    /// Somebody waits for room in the log.
    pub(super) fn has_log_waiters(&self) -> bool {
        !self.log_waiters.is_empty() || self.catalogue.held_since.is_some()
    }

    /// Requests are carried out.
    pub(super) fn is_serving(&self) -> bool {
        self.phase == Phase::Serving
    }

    /// Whether the engine is past its serving life.
    pub(super) fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping | Phase::Stopped | Phase::Failed)
    }

    /// A session that is being parked without a user of its own: whether it must be rolled back.
    pub(super) fn holds_writer(volume: &Volume, session: &Session) -> bool {
        !session.is_autocommit() && volume.locks.writer() == Some(session.pooled.id())
    }
}
