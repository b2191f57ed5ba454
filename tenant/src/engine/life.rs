//! A tenant's life: cold → opening → open → closing → cold; fenced and dropped aside.
//!
//! Nothing is kept for a cold tenant but its row in the catalogue. A checkpoint's end is told to
//! the catalogue first; only when that is durable does the log let go of what it covers (F1).

use std::collections::VecDeque;

use storage::TenantId;
use storage::io::Instant;
use storage::log::{Log, Sequence};
use storage::sometimes;
use storage::volume::{ConnectionId, Volume, VolumeOptions};

use super::budgets::Node;
use super::building::Building;
use super::context::Job;
use super::control::Asker;
use super::ephemeral::is_memory;
use super::keys::holders;
use super::places::Place;
use super::tasks::Work;
use super::views::{Served, TenantState};
use super::{Engine, Event, Phase, Refusal, RequestId, Timer};
use crate::access::{Access, Claim, Denial, Proven, Role, Scope};
use crate::budget::{Exceeded, Limits, Part, Usage};
use crate::catalogue::{Built, Call, DatabaseRow, NodeId, Outcome, RowState};
use crate::limits;
use crate::pool::Key;
use crate::session::PooledConnection;

/// A tenant that is not cold.
pub(super) struct Tenant<J> {
    pub name: Box<str>,
    pub id: TenantId,
    pub row: Option<DatabaseRow>,
    pub volume: Option<Volume>,
    /// What holds for it; the machine's own until its row is known.
    pub limits: Limits,
    /// Its group and that one's organisation, if it has them.
    pub chain: Vec<Node>,
    /// What it has used since it was created.
    pub usage: Usage,
    /// What of it was counted for an hour, as far as is known.
    pub noted: Usage,
    /// What it was served since it was opened, for oracles.
    pub served: Served,
    /// Requests that wait for the volume to open.
    pub waiting: VecDeque<(RequestId, Claim, J)>,
    /// Requests that wait for a fiber.
    pub queue: VecDeque<(RequestId, Access, J)>,
    /// What its own keys have signed, by the tokens' hashes, and until when that is good.
    pub proven: Vec<([u8; 32], Access, Instant)>,
    /// It is in the line of those whose requests wait for a fiber.
    pub queued: bool,
    /// Where it takes turns, once its row is known.
    pub place: Option<Place>,
    /// Fibers that run on it, and requests that wait for one.
    pub tasks: usize,
    /// Fibers that run for its clients.
    pub fibers: usize,
    /// Who waits for the writer lock, in order.
    pub writers: VecDeque<(Key, ConnectionId)>,
    pub idle: Vec<PooledConnection>,
    /// Copies that are being made of it.
    pub copies: usize,
    /// Streams in use or parked.
    pub streams: usize,
    /// Streams in use by running tasks.
    pub active: usize,
    /// Tasks that wait a moment for a connection in use, in order.
    pub openers: VecDeque<Key>,
    pub last_used: Instant,
    /// When a client's request came or ended.
    pub client_used: Instant,
    /// The catalogue was asked to end it, for its limit is reached.
    pub end_asked: bool,
    /// Groups that were asked whether it is to be made.
    pub asked_groups: Vec<NodeId>,
    /// It is in memory, and has given its connections back.
    pub resting: bool,
    /// SIEVE's mark: used since the hand passed.
    pub visited: bool,
    pub(super) checkpointing: bool,
    /// It was opened for its checkpoint, and nobody has asked for it since.
    pub only_checkpoint: bool,
    /// No checkpoint before this instant: the last one failed.
    pub retry_at: Instant,
    /// Checkpoints that failed since the server began to stop.
    pub stop_failures: u32,
    /// The batch in which the catalogue said that it exists, or an older one: what tells a client
    /// of its existence waits for that too.
    pub known_since: Sequence,
    /// What `dirty` says of it.
    pub redo: Option<Sequence>,
    pub fenced: Option<String>,
    /// There may be a file: the catalogue says so, or an earlier life of the server may have begun
    /// a first checkpoint.
    pub file: bool,
    /// It was dropped: end everything, then remove the file.
    pub dropped: bool,
    /// It is being filled: nobody finds it by its name.
    pub building: Option<Building>,
    /// Running jobs are told to end.
    pub ending: bool,
    /// Its connections and volume are to be closed.
    closing: bool,
}

impl<J> Tenant<J> {
    pub(super) fn new(name: &str) -> Tenant<J> {
        Tenant {
            name: name.into(),
            id: TenantId(u64::MAX),
            row: None,
            volume: None,
            limits: Limits::of_machine(limits::CATALOGUE_MEMORY_BYTES),
            chain: Vec::new(),
            usage: Usage::default(),
            noted: Usage::default(),
            served: Served::default(),
            waiting: VecDeque::new(),
            queue: VecDeque::new(),
            proven: Vec::new(),
            queued: false,
            place: None,
            tasks: 0,
            fibers: 0,
            writers: VecDeque::new(),
            idle: Vec::new(),
            copies: 0,
            streams: 0,
            active: 0,
            openers: VecDeque::new(),
            last_used: Instant(0),
            client_used: Instant(0),
            end_asked: false,
            asked_groups: Vec::new(),
            resting: false,
            visited: true,
            checkpointing: false,
            only_checkpoint: false,
            retry_at: Instant(0),
            stop_failures: 0,
            known_since: Sequence::default(),
            redo: None,
            fenced: None,
            file: false,
            dropped: false,
            building: None,
            ending: false,
            closing: false,
        }
    }

    /// The catalogue itself: it has no name that a request could ask for.
    pub fn catalogue() -> Tenant<J> {
        Tenant::new("")
    }

    /// Requests that wait for the volume to open.
    pub fn waiting_requests(&self) -> usize {
        self.waiting.len()
    }

    /// Requests of its clients: those that wait for the volume or a fiber, and those that run.
    pub fn client_requests(&self) -> usize {
        self.waiting.len() + self.queue.len() + self.fibers
    }

    /// Where it is in its life.
    pub fn state(&self) -> TenantState {
        match self {
            _ if self.dropped => TenantState::Dropped,
            _ if self.fenced.is_some() => TenantState::Fenced,
            _ if self.volume.is_none() => TenantState::Opening,
            _ if self.closing => TenantState::Closing,
            _ if self.checkpointing => TenantState::Checkpointing,
            _ if self.tasks > 0 => TenantState::Running,
            _ => TenantState::Idle,
        }
    }

    /// Bytes of the database as of its last commit.
    pub fn bytes(&self) -> u64 {
        let saved = self.row.as_ref().map_or(0, |row| row.bytes);
        self.volume.as_ref().and_then(Volume::database_bytes).unwrap_or(saved)
    }

    /// It was dropped, or is fenced.
    pub fn is_ended(&self) -> bool {
        self.dropped || self.fenced.is_some()
    }

    /// Why the budget does not allow this request.
    fn exceeds(&self, job: &J) -> Option<Exceeded>
    where
        J: Job,
    {
        let limit = self.limits.connections;
        if let Some(connections) = job.connections()
            && connections > limit
        {
            sometimes!("a tenant has too many connections");
            let (part, used) = (Part::Connections, connections - 1);
            return Some(Exceeded { part, limit, used, wanted: 1 });
        }
        self.has_no_room().or_else(|| self.is_too_long(job.request_bytes()))
    }

    /// Why the budget does not allow one more request.
    fn has_no_room(&self) -> Option<Exceeded> {
        let requests = (self.waiting.len() + self.queue.len() + self.fibers) as u64;
        let limit = self.limits.requests;
        (requests >= limit).then(|| {
            sometimes!("a tenant has too many requests");
            Exceeded { part: Part::Requests, limit, used: requests, wanted: 1 }
        })
    }

    /// Why the budget does not allow a request of so many bytes.
    pub fn is_too_long(&self, request_bytes: u64) -> Option<Exceeded> {
        let limit = self.limits.request_bytes;
        (request_bytes > limit).then(|| {
            sometimes!("a request is larger than its tenant's budget");
            Exceeded { part: Part::RequestBytes, limit, used: 0, wanted: request_bytes }
        })
    }

    /// It is a transaction in the log and nothing else, and is closed as that.
    pub fn is_logged(&self) -> bool {
        self.volume.as_ref().is_some_and(|volume| volume.logged_build.is_some())
    }

    /// Its connections and volume are being closed.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Nothing runs on it, nothing waits for it, nobody has a stream.
    pub fn is_unused(&self) -> bool {
        let at_rest = self.waiting.is_empty() && !self.checkpointing && self.building.is_none();
        self.tasks == 0 && self.streams == 0 && at_rest
    }
}

/// Tokens of its own keys that a tenant remembers.
const PROVEN_MAX: usize = 16;

/// How long a token that one of its own keys has signed is believed without another look.
const PROVEN_NS: u64 = 60 * limits::SECOND_NS;

/// What `claim` may in the database of this row: the check at the tenant's boundary.
fn judge<J: Job>(
    row: &DatabaseRow,
    proven: &mut Vec<([u8; 32], Access, Instant)>,
    claim: Claim,
    job: &J,
    now: Instant,
) -> Result<Access, Denial> {
    let access = match claim {
        Claim::Access(access) => access,
        Claim::Foreign => {
            let digest = job.foreign_token().ok_or(Denial::Unauthorised)?;
            proven.retain(|&(.., until)| now < until);
            match proven.iter().find(|(known, ..)| known == digest) {
                Some(&(_, access, _)) => access,
                None => {
                    let mut proofs = holders(row).filter_map(|(holder, settings)| {
                        let keys = Some(&settings.jwt_keys[..]).filter(|keys| !keys.is_empty())?;
                        job.prove(holder, keys)
                    });
                    let Proven { access, good_for_ns } =
                        proofs.next().ok_or(Denial::Unauthorised)?;
                    if proven.len() == PROVEN_MAX {
                        proven.remove(0);
                    }
                    proven.push((*digest, access, now.after(good_for_ns.min(PROVEN_NS))));
                    access
                }
            }
        }
    };
    access.enter(row).map(|()| access)
}

/// The group, or organisation, that a request has rights to write in, and no more.
fn group_of(claim: &Claim) -> Option<NodeId> {
    match claim {
        Claim::Access(Access { scope: Scope::Node(id), role, .. }) if *role >= Role::Write => {
            Some(*id)
        }
        _ => None,
    }
}

impl<J: Job> Engine<J> {
    // ---- opening ----

    /// The tenant of this name, found or begun to be opened.
    pub(super) fn tenant_by_name(&mut self, name: &str, claim: &Claim) -> Key {
        if let Some(&key) = self.names.get(name) {
            return key;
        }
        let key = self.tenants.insert(Tenant::new(name));
        self.names.insert(name.into(), key);
        let make = self.may_make(name, claim);
        self.find_in_catalogue(key, name.to_owned(), make);
        key
    }

    fn may_make(&self, name: &str, claim: &Claim) -> bool {
        let may = matches!(claim, Claim::Access(access) if access.may_make(name));
        may && self.options.create_on_first_use
    }

    pub(super) fn submit_to(&mut self, key: Key, request: RequestId, claim: Claim, job: J) {
        let now = self.now;
        let tenant = self.tenants.get_mut(key).expect("named just now");
        let Some(row) = &tenant.row else {
            if let Some(exceeded) = tenant.exceeds(&job) {
                return self.emit(Event::Refused(request, Refusal::Exceeded(exceeded)));
            }
            return tenant.waiting.push_back((request, claim, job));
        };
        let access = match judge(row, &mut tenant.proven, claim, &job, now) {
            Ok(access) => access,
            Err(denial) => return self.refuse_denied(request, denial),
        };
        tenant.visited = true;
        tenant.only_checkpoint = false;
        tenant.last_used = self.now;
        tenant.client_used = self.now;
        if std::mem::replace(&mut tenant.resting, false) {
            self.set_timer(limits::TENANT_IDLE_NS, Timer::TenantIdle(key));
        }
        let tenant = self.tenants.get_mut(key).expect("named just now");
        if let Some(reason) = &tenant.fenced {
            let refusal = Refusal::Fenced(reason.clone());
            return self.emit(Event::Refused(request, refusal));
        }
        if let Some(exceeded) = tenant.exceeds(&job) {
            return self.emit(Event::Refused(request, Refusal::Exceeded(exceeded)));
        }
        if tenant.closing && !tenant.ending {
            sometimes!("a request comes while its tenant closes");
            // Somebody comes back in time.
            tenant.closing = false;
            self.set_timer(limits::TENANT_IDLE_NS, Timer::TenantIdle(key));
        }
        let tenant = self.tenants.get_mut(key).expect("named just now");
        if tenant.volume.is_none() || tenant.closing || tenant.dropped {
            tenant.waiting.push_back((request, Claim::Access(access), job));
            return;
        }
        self.admit(key, request, access, job);
    }

    /// There is no such database: who may have it made asks again, the others are told, each what it may
    /// know.
    fn on_not_found(&mut self, key: Key) {
        let tenant = self.tenants.get_mut(key).expect("it is being opened");
        let name = tenant.name.clone();
        let group = tenant.waiting.iter().find_map(|(_, claim, _)| {
            group_of(claim).filter(|group| !tenant.asked_groups.contains(group))
        });
        if let Some(group) = group {
            // What that one says holds for the others too: they are judged by the row.
            tenant.asked_groups.push(group);
            let call = Call::Make(name.into(), group);
            return self.call_catalogue(Asker::Opening(key), call);
        }
        let waiting = std::mem::take(&mut tenant.waiting);
        for (request, claim, job) in waiting {
            if self.may_make(&name, &claim) {
                let tenant = self.tenants.get_mut(key).expect("it is being opened");
                tenant.waiting.push_back((request, claim, job));
                continue;
            }
            let refusal = match claim {
                Claim::Access(access) if access.knows(&name) => Refusal::NotFound,
                _ => Refusal::Unauthorised,
            };
            self.emit_gated(self.catalogue_key, Event::Refused(request, refusal));
        }
        if self.tenants.get(key).is_some_and(|tenant| tenant.waiting.is_empty()) {
            return self.refuse_waiting(key, &Refusal::NotFound);
        }
        sometimes!("a database is made for somebody who came after one who may not");
        self.find_in_catalogue(key, name.into(), true);
    }

    /// Refuse those who wait for a database and have no rights to it, now that its row is known.
    fn judge_waiting(&mut self, key: Key, row: &DatabaseRow) {
        let now = self.now;
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let mut refused = Vec::new();
        for (request, claim, job) in std::mem::take(&mut tenant.waiting) {
            match judge(row, &mut tenant.proven, claim, &job, now) {
                Ok(access) => tenant.waiting.push_back((request, Claim::Access(access), job)),
                Err(denial) => refused.push((request, denial)),
            }
        }
        for (request, denial) in refused {
            sometimes!("a request for a cold database of another is refused");
            self.refuse_denied(request, denial);
        }
    }

    /// The catalogue's answer for a tenant that is being opened.
    pub(super) fn on_found(&mut self, key: Key, outcome: Outcome) {
        let copied = self.fork_source_found(key, &outcome);
        match outcome {
            Outcome::Row(row) if row.state == RowState::Building => {
                self.judge_waiting(key, &row);
                self.refuse_waiting(key, &Refusal::Building);
            }
            Outcome::Row(row) if self.waits_for_pages(key, &row) => {}
            Outcome::Row(row) => {
                self.judge_waiting(key, &row);
                let wanted = self.tenants.get(key).is_some_and(|t| !t.waiting.is_empty());
                // What recovery found of it is left for its checkpoint.
                if wanted || copied {
                    self.open_row(key, *row)
                } else {
                    self.refuse_waiting(key, &Refusal::NotFound)
                }
            }
            Outcome::Memory(row) => {
                self.judge_waiting(key, &row);
                match self.tenants.get(key).is_some_and(|t| !t.waiting.is_empty()) {
                    true => drop(self.open_in_memory(key, *row)),
                    false => self.refuse_waiting(key, &Refusal::NotFound),
                }
            }
            Outcome::NotFound => self.on_not_found(key),
            Outcome::Failed(text) => self.refuse_waiting(key, &Refusal::Failed(text)),
            Outcome::Full => self.refuse_waiting(key, &Refusal::LogFull),
            Outcome::Missing(missing) => self.refuse_waiting(key, &Refusal::Missing(missing)),
            _ => unreachable!("a row was asked for"),
        }
    }

    /// Nothing to open: tell those who wait, and forget the tenant.
    pub(super) fn refuse_waiting(&mut self, key: Key, refusal: &Refusal) {
        let Some(tenant) = self.tenants.remove(key) else { return };
        assert!(tenant.volume.is_none() && tenant.tasks == 0);
        assert!(tenant.place.is_none());
        self.names.remove(&tenant.name);
        self.ids.remove(&tenant.id);
        for (request, ..) in tenant.waiting {
            self.emit_gated(self.catalogue_key, Event::Refused(request, refusal.clone()));
        }
    }

    pub(super) fn open_row(&mut self, key: Key, mut row: DatabaseRow) {
        if row.state == RowState::Fenced {
            let reason = row.reason.clone().unwrap_or_else(|| "it was fenced".into());
            return self.refuse_waiting(key, &Refusal::Fenced(reason));
        }
        if let Some(reason) = self.catalogue.fence_under_way(row.id) {
            let refusal = Refusal::Fenced(reason.to_owned());
            return self.refuse_waiting(key, &refusal);
        }
        let recovered = self.recovered.remove(&row.id);
        self.was_asked(row.id);
        let file = row.file || recovered.is_some();
        let redo = recovered.as_ref().map(|recovered| recovered.first_sequence);
        let (limits, chain) = self.limits_of(&row);
        let unsaved = self.catalogue.used.remove(&row.id);
        if let Some((usage, used_s)) = unsaved {
            row.usage = usage;
            row.used_s = used_s;
        }
        let place = self.take_place(row.id, &limits, &chain);
        let opened = Volume::open(VolumeOptions {
            tenant: row.id,
            memory_limit: limits.memory_bytes,
            temporary_limit: limits.temporary_bytes,
            parent: match row.id {
                TenantId::CATALOGUE => Some(storage::ledger::AccountId::CATALOGUE),
                _ => place.account,
            },
            file_exists: row.file,
            stamp_min: row.stamp,
            last_txid: row.txid,
            recovered,
            memory: is_memory(row.id),
            seed: self.options.seed,
            nonce: self.counters.opens,
        });
        self.counters.opens += 1;
        self.ids.insert(row.id, key);
        let (now, known_since) = (self.now, self.catalogue_sequence());
        let tenant = self.tenants.get_mut(key).expect("it is being opened");
        tenant.known_since = known_since;
        tenant.id = row.id;
        tenant.limits = limits;
        tenant.chain = chain;
        tenant.place = Some(place);
        tenant.usage = row.usage;
        tenant.noted = row.usage;
        tenant.row = Some(row);
        tenant.file = file;
        tenant.last_used = now;
        tenant.client_used = now;
        tenant.redo = redo;
        match opened {
            Ok(mut volume) => {
                volume.allowance.price_used = limits::request_units_micro(&tenant.usage.cost);
                volume.allowance.prices = limits::PRICES;
                volume.allowance.statements_used = tenant.usage.statements;
                tenant.volume = Some(volume);
                self.renew_allowance(key);
                let tenant = self.tenants.get_mut(key).expect("it is being opened");
                let waiting = std::mem::take(&mut tenant.waiting);
                for (request, claim, job) in waiting {
                    self.submit_to(key, request, claim, job);
                }
                self.set_timer(crate::limits::TENANT_IDLE_NS, Timer::TenantIdle(key));
            }
            Err(reason) => {
                self.fence(key, reason);
            }
        }
    }

    // ---- after each task ----

    pub(super) fn damage(&self, key: Key) -> Option<String> {
        let tenant = self.tenants.get(key)?;
        let found = tenant.volume.as_ref().and_then(|volume| volume.damage());
        tenant.fenced.as_deref().or(found).map(str::to_owned)
    }

    pub(super) fn keep_idle(
        &mut self,
        key: Key,
        connections: impl IntoIterator<Item = PooledConnection>,
    ) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        tenant.idle.extend(connections);
        if tenant.idle.len() > limits::IDLE_CONNECTIONS_MAX && !self.doomed {
            let excess = tenant.idle.split_off(limits::IDLE_CONNECTIONS_MAX);
            self.start_aside(key, Work::Discard(excess));
        }
    }

    /// A task of the tenant has ended or its state changed: what is next in its life?
    pub(super) fn after_task(&mut self, key: Key) {
        if self.doomed {
            return;
        }
        let Some(tenant) = self.tenants.get(key) else { return };
        if tenant.fenced.is_none()
            && let Some(reason) = tenant.volume.as_ref().and_then(|volume| volume.damage())
        {
            let reason = reason.to_owned();
            return self.fence(key, reason);
        }
        let large = tenant
            .volume
            .as_ref()
            .is_some_and(|volume| volume.wal_bytes() > limits::CHECKPOINT_WAL_BYTES);
        if tenant.closing || tenant.dropped || tenant.fenced.is_some() {
            self.go_on_closing(key);
        } else if large {
            sometimes!("a checkpoint because of a large WAL");
            self.start_checkpoint(key);
            let volume = self.tenants.get(key).and_then(|tenant| tenant.volume.as_ref());
            if volume.is_some_and(|v| v.wal_bytes() > limits::SNAPSHOT_WAL_BYTES_MAX) {
                self.end_snapshots();
            }
        }
    }

    // ---- closing ----

    pub(super) fn tenant_idle(&mut self, key: Key) {
        let Some(tenant) = self.tenants.get(key) else { return };
        if tenant.id == TenantId::CATALOGUE || tenant.volume.is_none() {
            return;
        }
        let idle_ns = self.now.since(tenant.last_used);
        if is_memory(tenant.id) && tenant.is_unused() && idle_ns >= limits::TENANT_IDLE_NS {
            return self.rest_in_memory(key);
        }
        if tenant.is_unused() && idle_ns >= limits::TENANT_IDLE_NS {
            self.begin_closing(key);
        } else {
            let left = limits::TENANT_IDLE_NS.saturating_sub(idle_ns).max(limits::SECOND_NS);
            self.set_timer(left, Timer::TenantIdle(key));
        }
    }

    pub(super) fn begin_closing(&mut self, key: Key) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        if is_memory(tenant.id) && !tenant.is_ended() {
            // It is nowhere else.
            return self.rest_in_memory(key);
        }
        if !tenant.closing {
            tenant.closing = true;
            self.go_on_closing(key);
        }
    }

    /// Close an account's connections in a doomed world.
    pub(super) fn discard_doomed(&mut self, key: Key, connections: Vec<PooledConnection>) {
        self.start_aside(key, Work::Discard(connections));
    }

    /// Close all volumes of a doomed world.
    pub(super) fn close_doomed(&mut self) {
        for key in self.tenants.keys() {
            let Some(mut tenant) = self.tenants.remove(key) else { continue };
            assert!(tenant.tasks == 0 && tenant.idle.is_empty());
            if let Some(mut volume) = tenant.volume.take() {
                volume.abandon_sealing();
                let _ = volume.close();
            }
        }
        self.close_branches();
        storage::ledger::assert_closed();
        assert_eq!(storage::ledger::open_accounts(), 0, "an account is left over");
    }

    /// The next step towards a closed volume; called again when something ends.
    pub(super) fn go_on_closing(&mut self, key: Key) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let discard = tenant.dropped || tenant.fenced.is_some();
        let reopen = !discard && !tenant.waiting.is_empty() && self.phase == Phase::Serving;
        if reopen && tenant.volume.is_some() {
            tenant.closing = false;
            tenant.ending = false;
            let waiting = std::mem::take(&mut tenant.waiting);
            for (request, claim, job) in waiting {
                self.submit_to(key, request, claim, job);
            }
            self.set_timer(limits::TENANT_IDLE_NS, Timer::TenantIdle(key));
            return;
        }
        if tenant.tasks > 0 || tenant.checkpointing {
            return;
        }
        if tenant.streams > 0 {
            return self.close_streams_of(key);
        }
        // Where one has tried for long, the others need not: the disk is full or broken.
        let tries = if self.counters.left_to_log > 0 { 1 } else { limits::STOP_RETRIES_MAX };
        let give_up = tenant.stop_failures >= tries;
        if tenant.redo.is_some() && !discard && !give_up && !tenant.is_logged() {
            sometimes!("a checkpoint because the tenant closes");
            if self.checkpoints_running >= limits::CHECKPOINTS_MAX && self.phase == Phase::Serving {
                // Nobody else would come back to it: it would stay open until it is used again.
                self.set_timer(limits::CHECKPOINT_RETRY_NS, Timer::CheckpointRetry(key));
            }
            return self.start_checkpoint(key);
        }
        if !tenant.idle.is_empty() {
            let idle = std::mem::take(&mut tenant.idle);
            tenant.ending = true;
            return self.start_aside(key, Work::Discard(idle));
        }
        self.close_volume(key);
    }

    fn close_volume(&mut self, key: Key) {
        let Some(mut tenant) = self.tenants.remove(key) else { return };
        self.counters.closes += 1;
        self.names.remove(&tenant.name);
        self.ids.remove(&tenant.id);
        self.recovered_rows.remove(&tenant.id);
        if is_memory(tenant.id) {
            self.forget_in_memory(&tenant);
        }
        if let Some(redo) = tenant.redo.take() {
            if tenant.is_ended() {
                self.dirty.remove(&(redo, tenant.id));
            } else if !tenant.is_logged() {
                // The entry stays, so that the log keeps what the next start is to finish.
                assert!(self.phase == Phase::Stopping, "a tenant is closed before its checkpoint");
                sometimes!("a tenant is left to the log");
                self.counters.left_to_log += 1;
            }
        }
        tenant.usage = self.usage_of(&tenant);
        self.note_use(&tenant);
        let logged = tenant.volume.as_ref().and_then(|volume| volume.logged_build);
        match logged {
            Some(build) if tenant.is_ended() || !build.is_whole() => self.forget_places(&build),
            Some(build) => self.keep_logged(tenant.id, build),
            None => {}
        }
        let mut file = tenant.file;
        let closed = tenant.volume.as_ref().map(|volume| Built {
            id: tenant.id,
            file: volume.main.exists,
            stamp: volume.main.stamp,
            txid: volume.last_txid(),
            bytes: volume.database_bytes().unwrap_or(0),
        });
        if let Some(mut volume) = tenant.volume.take() {
            file |= volume.main.exists;
            volume.abandon_sealing();
            let pages = volume.database_bytes().unwrap_or(0) / storage::page::PAGE_BYTES as u64;
            let (handles, turnover) = volume.close();
            for handle in handles {
                self.close_file(handle);
            }
            self.note_returned(tenant.id, pages, turnover);
        }
        if let Some(place) = tenant.place.take() {
            self.counters.throttled_ns += self.throttled_ns(&place);
            self.leave_place(&tenant, &place);
        }
        if let Some(building) = tenant.building.take() {
            self.building_closed(&tenant, building, closed);
        } else if tenant.dropped {
            self.remove_dropped(tenant.id, file);
        }
        if let Some(reason) = &tenant.fenced {
            for (request, ..) in tenant.waiting {
                self.emit(Event::Refused(request, Refusal::Fenced(reason.clone())));
            }
        } else if self.phase == Phase::Serving {
            for (request, claim, job) in tenant.waiting {
                let key = self.tenant_by_name(&tenant.name, &claim);
                self.submit_to(key, request, claim, job);
            }
        } else {
            for (request, ..) in tenant.waiting {
                self.emit(Event::Refused(request, Refusal::Unavailable));
            }
        }
        self.trim_log();
    }

    // ---- fencing ----

    /// Something of the tenant is damaged: it answers nothing but why, now and after a restart.
    pub(super) fn fence(&mut self, key: Key, reason: String) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        if tenant.fenced.is_some() {
            return;
        }
        sometimes!("a tenant is fenced");
        self.counters.fences += 1;
        let id = tenant.id;
        tenant.fenced = Some(reason.clone());
        tenant.ending = true;
        if id == TenantId::CATALOGUE {
            // Without it no database can be opened and no checkpoint settled.
            return self.fail_for_catalogue(&reason);
        }
        for (request, ..) in std::mem::take(&mut tenant.waiting) {
            self.emit(Event::Refused(request, Refusal::Fenced(reason.clone())));
        }
        self.fence_in_catalogue(id, reason);
        self.go_on_closing(key);
    }

    // ---- stopping ----

    /// When stopping: close everything, the catalogue last.
    pub(super) fn pump_stop(&mut self) {
        if self.phase != Phase::Stopping {
            return;
        }
        self.write_usage();
        let keys = self.tenants.keys();
        let mut others = 0;
        for key in keys {
            if key == self.catalogue_key {
                continue;
            }
            others += 1;
            if self.stacks.taken() >= limits::FIBERS_CLIENTS_MAX {
                continue;
            }
            let Some(tenant) = self.tenants.get_mut(key) else { continue };
            if tenant.volume.is_some() {
                tenant.closing = true;
                self.go_on_closing(key);
            }
        }
        let recovered_left = !self.recovered_rows.is_empty() || self.has_logged();
        if others > 0 || recovered_left || !self.catalogue.is_idle() {
            return;
        }
        if let Some(tenant) = self.tenants.get_mut(self.catalogue_key) {
            tenant.closing = true;
            return self.go_on_closing(self.catalogue_key);
        }
        // What is left to say in the log is said first: that nothing in it is needed any more.
        if let Some(log) = &mut self.log {
            log.say_last_word();
        }
        self.pump_log();
        let idle = |log: &Log| log.requests_in_flight() == 0 && log.write_refused().is_none();
        let log_idle = self.log.as_ref().is_none_or(idle);
        if log_idle && self.operations.is_empty() {
            for (_, file) in std::mem::take(&mut self.log_files) {
                self.close_file(file);
            }
            self.phase = Phase::Stopped;
            self.events.push_back(Event::Stopped);
        }
    }
}
