//! The engine: tenants' lives, fibers and their turns, the gate, and everything that they ask for.
//!
//! A state machine without I/O, as the commit log below it: it asks for disk operations as values
//! ([`Engine::next_disk_request`]), is told their results ([`Engine::on_disk`]), and hands events to
//! the server ([`Engine::next_event`]). Time comes with each [`Engine::turn`].
//!
//! - `tasks`: running fibers: what they wait for, what they ask.
//! - `turns`: whose turn it is, and who gets a fiber.
//! - `places`: where tenants, groups and organisations stand in ledger and schedulers.
//! - `remains`: what was left in the buckets of those that have closed.
//! - `pressure`: what goes when memory is short.
//! - `transfers`: whose bytes the disk moves next.
//! - `disk`: operations in flight and how each goes on.
//! - `life`: opening, checkpointing, closing, dropping and fencing tenants.
//! - `streams`: parked sessions, tickets, expiry, idle transactions.
//! - `gauges`: what is held beside its limit, for metrics and oracles.
//! - `ephemeral`: databases that are only in memory.
//! - `bulk`: creates and drops of many in one call.
//! - `drops`: from a tombstone to the receipt of all that the database held.
//! - `mortal`: databases that end by their age, their last use, or what they have used.
//! - `keys`: keys that requests come with, and what ends when one is revoked.
//! - `control`: the catalogue's calls and who waits for them.
//! - `budgets`: what holds for each open tenant, what changes it, and what it has used.
//! - `building`: databases that are being filled. `fork`: copies of others, page by page, by `copy`; small
//!   ones into the log (`logged`). `import`: from what a client sends.
//! - `periods`: use by hour and day. `startup`: from an unread log to serving. `views`: what each open tenant holds, for reports.
//!
//! **The gate**: nothing leaves the engine before what it may have seen is durable. Each event
//! carries the log batch that its tenant (or the catalogue) last committed to; events whose batch is
//! not durable wait in `gated`.

mod budgets;
mod building;
mod bulk;
mod checkpoint;
mod context;
mod control;
mod copy;
mod disk;
mod drops;
mod ephemeral;
mod fork;
mod gauges;
mod import;
mod keys;
mod life;
mod logged;
mod mortal;
mod pace;
mod patron;
mod periods;
mod places;
mod pressure;
mod remains;
mod startup;
mod streams;
mod tasks;
mod transfers;
mod turns;
mod views;
mod waits;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use storage::TenantId;
use storage::fiber::StackPool;
use storage::io::{Clock, FileId, Instant};
use storage::log::{Log, LogFile, LogOptions, RecoveredTenant, Sequence};
use storage::sometimes;

use crate::access::{Claim, Credential};
use crate::budget::Exceeded;
use crate::catalogue::jobs::JobRefusal;
use crate::catalogue::{DatabaseRow, Missing};
use crate::import::{ImportError, Progress};
use crate::life::Ending;
use crate::limits;
use crate::pool::{Key, Pool};
use crate::schedule::Scheduler;
use crate::statement::Ticket;

pub use budgets::{BudgetView, Node, UsageView};
pub use building::Unbuilt;
pub(crate) use bulk::words as bulk_words;
pub use bulk::{Bulk, BulkProgress, BulkWork};
pub use context::{Job, JobContext};
pub use control::{ControlCall, ControlReply};
pub use copy::CopyProgress;
pub(crate) use copy::{CopyFailure, begin_snapshot, may_go_on, unreadable};
pub use disk::{DiskOperation, DiskReply, DiskRequest};
pub use drops::Receipt;
pub use ephemeral::is_memory;
pub use gauges::Gauge;
pub(crate) use pace::Pace;
pub use views::{Served, TenantState, TenantView};

use bulk::Bulks;
use control::Catalogue;
use disk::Operation;
use drops::Dropping;
use ephemeral::Ephemeral;
use fork::Forks;
use import::Imports;
use keys::{Keys, Waiting};
use life::Tenant;
use logged::Logged;
use mortal::Mortality;
use periods::Hours;
use places::Places;
use startup::Startup;
use streams::Stream;
use tasks::Task;
use transfers::Transfers;

/// The server's name for one of its requests.
pub type RequestId = u64;

/// Sizes and policies, given once.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Create a database when a request first names it.
    pub create_on_first_use: bool,
    /// Bytes of memory that databases may hold together.
    pub memory_bytes: u64,
    /// Bytes of memory for one tenant.
    pub tenant_memory_bytes: u64,
    /// Pages of the largest database that is copied into the commit log, not into a file:
    /// [`limits::LOGGED_COPY_PAGES_MAX`], but for tests.
    pub logged_copy_pages: u32,
    /// The commit log's shape.
    pub log: LogOptions,
    /// Seed of tenants' random generators.
    pub seed: [u8; 32],
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such database.
    NotFound,
    /// There is one of that name already.
    Exists,
    /// The database is damaged and fenced; the text says what was found.
    Fenced(String),
    /// The database has ended by its settings, and is no more.
    Expired(Ending),
    /// A budget does not allow it.
    Exceeded(Exceeded),
    /// A plan, organisation or group that the call names is not there.
    Missing(Missing),
    /// It cannot be removed while so many use it.
    InUse(u64),
    /// It has no meaning for a database that is only in memory.
    InMemory,
    /// A call is about so many databases, and may be about so many.
    TooMany(usize, usize),
    /// A call with the same key runs.
    KeyRuns,
    /// The key was used for another call.
    KeyReused,
    /// There are as many plans as there may be.
    TooManyPlans,
    /// The scope has as many keys as it may have.
    TooManyKeys,
    /// It is protected against being deleted.
    Protected,
    /// The database is being built, and not there yet.
    Building,
    /// It could not be built.
    Unbuilt(Unbuilt),
    /// It could not be made from what was sent.
    Import(ImportError),
    /// A job is not made, or not where that can be done to it.
    Job(JobRefusal),
    /// The key that it came with has spent its budget for now.
    KeySpent {
        /// In so many nanoseconds it has something again.
        again_ns: u64,
    },
    /// Who asked has no rights there; whether it exists is not said.
    Unauthorised,
    /// Who asked has rights there, and not this one.
    Forbidden,
    /// The server is stopping, or the database is being dropped or closed.
    Unavailable,
    /// Databases hold as much memory as they may together.
    Overloaded,
    /// The commit log, or the disk under it, has no room for what the catalogue has to write.
    LogFull,
    /// The catalogue or the kernel refused.
    Failed(String),
}

/// What the server is told.
#[derive(Debug)]
pub enum Event<R> {
    /// Recovery is over: requests are carried out.
    Ready,
    /// A part of a response; the job waits until [`Engine::flushed`].
    Part(RequestId, Vec<u8>),
    /// An import wants the next piece of what is sent, in this buffer: [`Engine::supply`].
    Wants(RequestId, Vec<u8>),
    /// An import is so far.
    Progress(RequestId, Progress),
    /// A job has ended.
    Finished(RequestId, R),
    /// A job or control call was refused; a job may have sent parts before.
    Refused(RequestId, Refusal),
    /// How far a call about many databases is; the next part waits until [`Engine::flushed`].
    Bulk(RequestId, Box<BulkProgress>),
    /// A control call has ended.
    Control(RequestId, ControlReply),
    /// Everything is checkpointed and closed.
    Stopped,
    /// The process must end: durability is unknown, or the start is refused.
    Failed(Failure),
}

/// Why the process must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Another process uses the data folder.
    InUse,
    /// The start is refused: the text says why and what to do.
    Start(String),
    /// Writing the commit log failed: what was in flight may or may not be durable.
    Log(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    WriterWait(Key),
    LogWait(Key),
    StreamExpiry(Ticket),
    TransactionIdle(Key),
    TenantIdle(Key),
    CheckpointRetry(Key),
    ConnectionWait(Key),
    LoggedRetry(TenantId),
    LogOpen,
    LogDisk,
    CatalogueRetry,
    CatalogueHeld,
    UsageDue,
    HourOver,
    Overdue,
    Endings,
}

/// What waits for a tenant's sealing to end.
enum Unsealed<R> {
    /// To be told.
    Event(Event<R>),
    /// A task that waits for durability.
    Task(Key),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    Stopping,
    Stopped,
    Failed,
}

/// Counters since the start; all only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs started.
    pub jobs: u64,
    /// Transactions appended to the log.
    pub commits: u64,
    /// Pages in them.
    pub commit_pages: u64,
    /// Checkpoints that completed.
    pub checkpoints: u64,
    /// Checkpoints that failed or were incomplete.
    pub checkpoint_failures: u64,
    /// Databases that were closed without their checkpoint, since the disk refused it while the server
    /// stopped: the commit log keeps what the next start is to finish.
    pub left_to_log: u64,
    /// Changes of the catalogue that a stop gave up.
    pub left_undone: u64,
    /// Databases that ended by their settings: dropped or frozen.
    pub ended: u64,
    /// Databases that were dropped, with all that they held.
    pub drops: u64,
    /// Of them, those that did not give back on their account what they had taken: any is a bug.
    pub uneven_receipts: u64,
    /// Volumes opened.
    pub opens: u64,
    /// Volumes closed.
    pub closes: u64,
    /// Tenants fenced.
    pub fences: u64,
    /// Fibers resumed.
    pub resumes: u64,
    /// VM steps, rounded down per resume.
    pub vm_steps: u64,
    /// Idle transactions that lost the writer lock.
    pub transactions_timed_out: u64,
    /// Events that waited in the gate.
    pub gated: u64,
    /// Processor time of all fibers, measured, in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes read from files and the log for tenants.
    pub io_read_bytes: u64,
    /// Bytes written to files and the log for tenants.
    pub io_written_bytes: u64,
    /// Delays of tenants that have closed since; see [`Engine::throttled_ns_total`].
    pub throttled_ns: u64,
    /// Turns that came later than the scheduler promises: any is a bug.
    pub late_turns: u64,
    /// Writers that others overtook until they were told that the database is busy: any is a bug.
    pub starved_writers: u64,
}

/// See the head of the file.
pub struct Engine<J: Job> {
    options: EngineOptions,
    /// Bytes of memory that databases may hold together now.
    memory_bytes: u64,
    now: Instant,
    phase: Phase,
    startup: Option<Startup>,
    log: Option<Log>,
    log_files: BTreeMap<LogFile, FileId>,
    log_opens: Vec<disk::LogOpen>,
    recovered: BTreeMap<TenantId, RecoveredTenant>,
    recovered_rows: BTreeMap<TenantId, DatabaseRow>,
    logged: Logged,
    dirty: BTreeSet<(Sequence, TenantId)>,
    tenants: Pool<Tenant<J>>,
    names: BTreeMap<Box<str>, Key>,
    ids: BTreeMap<TenantId, Key>,
    catalogue: Catalogue,
    catalogue_key: Key,
    keys: Keys<J>,
    hours: Hours,
    mortality: Mortality,
    /// Databases that were dropped and still hold something.
    drops: BTreeMap<TenantId, Dropping>,
    bulks: Bulks,
    ephemeral: Ephemeral,
    tasks: Pool<Task<J>>,
    stacks: StackPool,
    /// Clients' tasks that can go on.
    schedule: Scheduler<Key>,
    /// The engine's own, and those that others wait for.
    system: VecDeque<Key>,
    /// Connections to close that wait for a fiber, and whose they are.
    aside: VecDeque<(Key, tasks::Work<J>)>,
    /// The next turn is the system's, if it wants one.
    system_next: bool,
    /// Tenants whose requests wait for a fiber, in order.
    admission: VecDeque<Key>,
    by_request: Vec<(RequestId, Key)>,
    /// See [`Engine::holds_long`].
    holds_long: bool,
    log_waiters: VecDeque<Key>,
    batch_waiters: VecDeque<Key>,
    durable_waiters: BTreeMap<Sequence, Vec<Key>>,
    streams: BTreeMap<Ticket, Stream>,
    next_ticket: u64,
    operations: Pool<Operation>,
    transfers: Transfers,
    places: Places,
    /// Long jobs that wait for a checkpoint of their database.
    paused: Vec<Key>,
    imports: Imports,
    forks: Forks,
    requests: VecDeque<DiskRequest>,
    events: VecDeque<Event<J::Reply>>,
    gated: BTreeMap<Sequence, Vec<Event<J::Reply>>>,
    /// Events and tasks of tenants whose last commit is still on its way into the log.
    unsealed: BTreeMap<Key, Vec<Unsealed<J::Reply>>>,
    timers: BTreeSet<(Instant, Timer)>,
    evict_hand: u32,
    /// Charges that the machine's limit had refused when idle tenants last gave something back.
    refusals_heeded: u64,
    /// A timer will try again what the disk refused the log: a write, or its next segment.
    disk_retry: bool,
    /// Times that the disk refused the log since the stop began.
    stop_retries: u32,
    checkpoints_running: usize,
    /// A timer will look for tasks that have ended and wait for their budgets.
    tasks_watched: bool,
    doomed: bool,
    counters: Counters,
}

impl<J: Job> Engine<J> {
    /// An engine that will read the log of the data folder before it serves.
    #[must_use]
    pub fn new(options: EngineOptions) -> Engine<J> {
        storage::sqlite::initialise();
        let memory_bytes = options.memory_bytes;
        storage::ledger::set_machine_limit(memory_bytes, pressure::kept_for_small(memory_bytes));
        let startup = Some(Startup::new(options.log));
        let ephemeral = Ephemeral::new(&options.seed);
        Engine {
            memory_bytes,
            options,
            now: Instant(0),
            phase: Phase::Starting,
            startup,
            log: None,
            log_files: BTreeMap::new(),
            log_opens: Vec::new(),
            recovered: BTreeMap::new(),
            recovered_rows: BTreeMap::new(),
            logged: Logged::default(),
            dirty: BTreeSet::new(),
            tenants: Pool::default(),
            names: BTreeMap::new(),
            ids: BTreeMap::new(),
            catalogue: Catalogue::default(),
            catalogue_key: Key::default(),
            keys: Keys::default(),
            hours: Hours::default(),
            mortality: Mortality::default(),
            drops: BTreeMap::new(),
            bulks: BTreeMap::new(),
            ephemeral,
            tasks: Pool::default(),
            stacks: StackPool::default(),
            schedule: Scheduler::new(limits::QUANTUM_NS / limits::WEIGHT),
            system: VecDeque::new(),
            aside: VecDeque::new(),
            system_next: false,
            admission: VecDeque::new(),
            by_request: Vec::new(),
            holds_long: false,
            log_waiters: VecDeque::new(),
            batch_waiters: VecDeque::new(),
            durable_waiters: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_ticket: 0,
            operations: Pool::default(),
            transfers: Transfers::default(),
            places: Places::default(),
            paused: Vec::new(),
            imports: Imports::default(),
            forks: Forks::default(),
            requests: VecDeque::new(),
            events: VecDeque::new(),
            gated: BTreeMap::new(),
            unsealed: BTreeMap::new(),
            timers: BTreeSet::new(),
            evict_hand: 0,
            refusals_heeded: storage::ledger::refused(storage::ledger::AccountId::MACHINE),
            disk_retry: false,
            stop_retries: 0,
            checkpoints_running: 0,
            tasks_watched: false,
            doomed: false,
            counters: Counters::default(),
        }
    }

    /// Carry out `job` on the database of this name, for somebody who comes with this. Who has no rights
    /// there is refused with [`Refusal::Unauthorised`], whether or not it exists.
    pub fn submit(&mut self, request: RequestId, name: &str, credential: Credential, job: J) {
        let claim = match credential {
            Credential::Access(access) => Claim::Access(access),
            Credential::Foreign => Claim::Foreign,
            Credential::Key(proof) => {
                if self.phase != Phase::Serving {
                    return self.emit(Event::Refused(request, Refusal::Unavailable));
                }
                let waiting = Waiting::Job(request, name.into(), job);
                let Some((access, waiting)) = self.access_of_key(proof, waiting) else { return };
                let Waiting::Job(_, _, job) = waiting else { unreachable!("a job was handed in") };
                return self.submit_as(request, name, Claim::Access(access), job);
            }
        };
        self.submit_as(request, name, claim, job);
    }

    fn submit_as(&mut self, request: RequestId, name: &str, claim: Claim, job: J) {
        if self.phase != Phase::Serving {
            self.emit(Event::Refused(request, Refusal::Unavailable));
            return;
        }
        if self.is_overloaded(name) {
            sometimes!("a request is refused because the machine's memory is used up");
            self.emit(Event::Refused(request, Refusal::Overloaded));
            return;
        }
        if self.is_told_of_end(request, name, &claim) {
            return;
        }
        // An export makes nothing.
        let claim = if job.exports() { claim.to_read() } else { claim };
        let key = self.tenant_by_name(name, &claim);
        self.submit_to(key, request, claim, job);
    }

    /// Why the budget of the database of this name does not allow a request of so many bytes, as far as
    /// that is known: one that is not open is judged when it is.
    #[must_use]
    pub fn refuses_bytes(&self, name: &str, request_bytes: u64) -> Option<Exceeded> {
        let tenant = self.tenants.get(*self.names.get(name)?)?;
        tenant.place.and_then(|_| tenant.is_too_long(request_bytes))
    }

    /// The task that works for `request`. The list is in order; it keeps its memory, as a map would
    /// not when the last request of a moment ends.
    fn task_of(&self, request: RequestId) -> Option<Key> {
        let found = self.by_request.binary_search_by_key(&request, |&(request, _)| request);
        found.ok().map(|index| self.by_request[index].1)
    }

    /// The part of `request`'s response has left: the job may go on, with this empty buffer.
    pub fn flushed(&mut self, request: RequestId, buffer: Vec<u8>) {
        if let Some(key) = self.task_of(request) {
            self.answer_flush(key, Ok(buffer));
        } else {
            self.bulk_flushed(request, false);
        }
    }

    /// Nobody waits for `request` any more: its job ends early. No event about it comes after the
    /// job has ended, but one may be on its way.
    pub fn cancel(&mut self, request: RequestId) {
        if let Some(key) = self.task_of(request) {
            self.cancel_task(key);
        } else {
            self.bulk_flushed(request, true);
        }
    }

    /// One turn: fire timers, run ready fibers (a bounded number), write the log.
    pub fn turn(&mut self, clock: &dyn Clock) {
        self.now = self.now.max(clock.now());
        self.note_wall(clock);
        self.look_at_hour();
        self.fire_timers();
        self.pump_startup();
        self.pump_endings();
        self.pump_catalogue();
        self.pump_aside();
        self.pump_admission();
        self.pump_forks();
        self.run_tasks(clock, false);
        self.hurry_forks(clock);
        self.follow_tasks();
    }

    /// It is the turn of a fiber that runs long, and `turn` has left it for [`Engine::turn_long`].
    #[must_use]
    pub fn holds_long(&self) -> bool {
        self.holds_long
    }

    /// The rest of a turn, after what the first part has answered was sent: a slice of a fiber that runs
    /// long.
    pub fn turn_long(&mut self, clock: &dyn Clock) {
        self.now = self.now.max(clock.now());
        self.run_tasks(clock, true);
        self.follow_tasks();
    }

    /// What follows from what fibers did.
    fn follow_tasks(&mut self) {
        self.pump_forks();
        self.pump_aside();
        self.pump_catalogue();
        self.pump_checkpoints();
        self.relieve_pressure();
        self.pump_stop();
        self.pump_transfers();
        self.pump_log();
    }

    /// When the next turn is due if nothing else happens: now, if fibers are ready.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !self.events.is_empty() || self.mortality.is_pressing() {
            return Some(self.now);
        }
        let timer = self.timers.first().map(|&(at, _)| at);
        [self.turn_at(), self.transfers.ready_at(self.now), timer].into_iter().flatten().min()
    }

    /// The next disk operation to submit.
    pub fn next_disk_request(&mut self) -> Option<DiskRequest> {
        self.requests.pop_front()
    }

    /// The next thing to tell the server.
    pub fn next_event(&mut self) -> Option<Event<J::Reply>> {
        self.events.pop_front()
    }

    /// Finish what runs, checkpoint and close everything, then [`Event::Stopped`].
    pub fn stop(&mut self) {
        match self.phase {
            Phase::Serving => self.phase = Phase::Stopping,
            Phase::Starting => {
                self.phase = Phase::Stopped;
                self.events.push_back(Event::Stopped);
            }
            Phase::Stopping | Phase::Stopped | Phase::Failed => {}
        }
    }

    /// Counters since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let late_turns = self.schedule.violations() + self.transfers.schedule.violations();
        Counters { late_turns, ..self.counters }
    }

    /// Bytes of the commit log in use, and its capacity.
    #[must_use]
    pub fn log_bytes(&self) -> (u64, u64) {
        self.log.as_ref().map_or((0, 0), |log| (log.used_bytes(), log.capacity_bytes()))
    }

    /// Databases that are open now, the catalogue included.
    #[must_use]
    pub fn open_tenants(&self) -> usize {
        self.ids.len()
    }

    /// Fibers that run or wait now.
    #[must_use]
    pub fn running_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Streams that are parked or promised now.
    #[must_use]
    pub fn parked_streams(&self) -> usize {
        self.streams.len()
    }

    fn fail(&mut self, failure: Failure) {
        if self.phase != Phase::Failed {
            self.phase = Phase::Failed;
            self.events.push_back(Event::Failed(failure));
        }
    }

    // ---- the gate ----

    fn durable(&self) -> Sequence {
        self.log.as_ref().map_or(Sequence(0), Log::durable_sequence)
    }

    fn emit(&mut self, event: Event<J::Reply>) {
        self.events.push_back(event);
    }

    /// Tell the server once everything that `tenant` has committed is durable.
    fn emit_gated(&mut self, tenant: Key, event: Event<J::Reply>) {
        if self.is_sealing(tenant) {
            sometimes!("a reply waits for a commit that is being sealed");
            self.counters.gated += 1;
            self.unsealed.entry(tenant).or_default().push(Unsealed::Event(event));
            return;
        }
        let seen = self.tenants.get(tenant).map(|tenant| {
            let volume = tenant.volume.as_ref();
            let committed = volume.and_then(storage::volume::Volume::last_sequence);
            committed.unwrap_or_default().max(tenant.known_since)
        });
        match seen {
            Some(sequence) if sequence > self.durable() => {
                sometimes!("a reply waits in the gate");
                self.counters.gated += 1;
                self.gated.entry(sequence).or_default().push(event);
            }
            _ => self.emit(event),
        }
    }

    /// A commit of the tenant can be seen, and the batch that ends it is not known yet: SQLite
    /// publishes a commit before it releases the writer lock, and only then it is sealed.
    fn is_sealing(&self, tenant: Key) -> bool {
        let volume = self.tenants.get(tenant).and_then(|tenant| tenant.volume.as_ref());
        volume.is_some_and(|volume| volume.sealing.is_some())
    }

    /// The tenant's sealing may have ended: those who waited for it wait for its batch now.
    fn settle_unsealed(&mut self, tenant: Key) {
        if self.is_sealing(tenant) || self.doomed {
            return;
        }
        for waiting in self.unsealed.remove(&tenant).unwrap_or_default() {
            match waiting {
                Unsealed::Event(event) => match self.damage(tenant) {
                    Some(reason) => self.refuse_unsealed(event, reason),
                    None => self.emit_gated(tenant, event),
                },
                Unsealed::Task(task) => {
                    if let Some(answer) = self.wait_until_durable(task, tenant) {
                        self.answer(task, answer);
                    }
                }
            }
        }
    }

    /// The tenant's commit could not be logged: what may have seen it is not told.
    fn refuse_unsealed(&mut self, event: Event<J::Reply>, reason: String) {
        match event {
            Event::Part(request, _) | Event::Finished(request, _) => {
                sometimes!("a commit that cannot be logged is not told");
                self.emit(Event::Refused(request, Refusal::Fenced(reason)));
                self.cancel(request);
            }
            event => self.emit(event),
        }
    }

    fn open_gate(&mut self) {
        let durable = self.durable();
        while let Some(entry) = self.gated.first_entry() {
            if *entry.key() > durable {
                break;
            }
            self.events.extend(entry.remove());
        }
        while let Some(entry) = self.durable_waiters.first_entry() {
            if *entry.key() > durable {
                break;
            }
            for key in entry.remove() {
                self.answer(key, storage::fiber::Answer::Ready);
            }
        }
    }

    fn pump_log(&mut self) {
        if matches!(self.phase, Phase::Stopped | Phase::Failed) {
            return;
        }
        let Some(log) = &mut self.log else { return };
        log.flush();
        while let Some(request) = self.log.as_mut().and_then(Log::next_request) {
            self.submit_log(request);
        }
        // Somebody may wait for a batch that has no segment, without asking for more space.
        let refused = self.log.as_ref().is_some_and(|log| log.disk_refused().is_some());
        if refused && !std::mem::replace(&mut self.disk_retry, true) {
            sometimes!("the disk refuses the log room");
            self.set_timer(limits::SECOND_NS, Timer::LogDisk);
        }
        let failed = self.log.as_ref().and_then(Log::failed).map(str::to_owned);
        if let Some(reason) = failed {
            self.fail(Failure::Log(reason));
        }
    }

    // ---- timers ----

    fn set_timer(&mut self, after_ns: u64, timer: Timer) {
        self.timers.insert((self.now.after(after_ns), timer));
    }

    fn fire_timers(&mut self) {
        while let Some(&(at, timer)) = self.timers.first() {
            // Many timers end in a fiber that closes something: the rest in a later turn.
            if at > self.now || self.stacks.taken() >= limits::FIBERS_CLOSING_MAX {
                break;
            }
            self.timers.pop_first();
            match timer {
                Timer::WriterWait(task) => self.writer_wait_over(task),
                Timer::LogWait(task) => self.log_wait_timed_out(task),
                Timer::StreamExpiry(ticket) => self.stream_expired(ticket),
                Timer::TransactionIdle(tenant) => self.transaction_idle(tenant),
                Timer::TenantIdle(tenant) => self.tenant_idle(tenant),
                Timer::CheckpointRetry(tenant) => self.checkpoint_retry(tenant),
                Timer::ConnectionWait(task) => self.connection_wait_over(task),
                Timer::LoggedRetry(id) => drop(self.was_asked(id)),
                Timer::LogOpen => self.retry_log_open(),
                Timer::LogDisk => self.retry_log_disk(),
                Timer::CatalogueRetry => self.retry_catalogue(),
                Timer::CatalogueHeld => self.pump_catalogue(),
                Timer::UsageDue => self.write_usage(),
                Timer::HourOver => self.sweep_hour(),
                Timer::Overdue => self.hasten_ended(),
                // It has woken the loop, and each turn looks.
                Timer::Endings => {}
            }
        }
    }
}
