//! The server: everything that happens, in the order of time. Start here.
//!
//! 1. `start` listens. The engine reads the log; connections wait in the kernel's backlog.
//! 2. [`Server::turn`] runs after every round of completions and decides everything; the callbacks
//!    below it only note what arrived. A turn: requests that arrived go to the engine; the engine
//!    runs fibers and writes the log; its events become responses; its disk operations are submitted.
//! 3. `stop` drains: no new connections, running requests end, everything is checkpointed.
//!
//! Owns connections, their phases and deadlines, and the engine. Knows no kernel: the Io is a
//! parameter of every function that submits, and the simulator passes its own.
//!
//! - `admin`: requests on the admin address. `drafts`: databases that are sent in several requests. `jobs`: what fleet jobs ask of the engine. `submit`:
//!   requests that become jobs. `responses`: how answers leave. `uploads`: bodies in pieces.
//!   `strangers`: who has shown no good key yet.

mod admin;
mod bulk;
mod drafts;
mod jobs;
mod responses;
mod strangers;
mod submit;
mod uploads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use storage::io::{
    Accepted, Clock, Done, Instant, Io, ListenerId, Opened, Received, Sent, Token, Transferred,
};
use storage::ledger::{self, AccountId, Kind};
use storage::sometimes;
use tenant::{
    DiskOperation, DiskReply, Engine, EngineOptions, Event, Failure, Gauge, Key, Pool, RequestId,
};

use crate::auth::{AuthOptions, Authenticator, Place};
use crate::baton::BatonKey;
use crate::connection::{Connection, Exchange, Phase};
use crate::control;
use crate::cost;
use crate::http::response::CONTINUE;
use crate::http::{BodyFraming, Endpoint, Progress, TenantName, route};
use crate::jobs::Jobs;
use crate::limits;
use crate::metrics::Traffic;
use crate::peers::{PeerAddress, PeerBudgets, Peers};
use crate::platform::PublicHost;
use crate::problem::Problem;
use crate::work::{Asked, Work, WorkKind, WorkReply};

use self::admin::VERSION_TEXT;
pub(crate) use self::drafts::Chunk;
use self::drafts::Drafts;
use self::submit::Order;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address for SQL.
    pub listen: SocketAddr,
    /// Address for the control API.
    pub admin_listen: SocketAddr,
    /// The engine's.
    pub engine: EngineOptions,
    /// Bytes of requests and responses of all connections together.
    pub buffers_bytes_max: u64,
    /// Seals batons; random per process.
    pub baton_key: [u8; 32],
    /// Who is asked for a token or key.
    pub auth: AuthOptions,
    /// Where databases are reached, if not at `listen`.
    pub public_host: Option<PublicHost>,
}

/// Why a server has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to stop, and everything is in the tenants' files.
    Stopped,
    /// It must not go on.
    Failed(Failure),
}

/// Which listener a connection came in on; the index of its accept's token.
const PUBLIC: usize = 0;
const ADMIN: usize = 1;

/// See the head of the file.
pub struct Server {
    engine: Engine<Work>,
    now: Instant,
    ready: bool,
    listeners: [Option<ListenerId>; 2],
    addresses: [SocketAddr; 2],
    accepting: [bool; 2],
    accept_after: Instant,
    connections: Pool<Connection>,
    /// How many count for each database.
    by_database: BTreeMap<TenantName, u64>,
    touched: VecDeque<Key>,
    timers: BTreeSet<(Instant, Key)>,
    calls: BTreeMap<RequestId, admin::Pending>,
    jobs: Jobs,
    drafts: Drafts,
    auth: Authenticator,
    peers: Peers,
    peer_budgets: PeerBudgets,
    /// The key that may everything, made because there was none; told once.
    first_key: Option<String>,
    public_host: PublicHost,
    batons: BatonKey,
    buffers_bytes_max: u64,
    spare: Vec<Vec<u8>>,
    /// Boxes for requests on their way; what is in them is over.
    #[expect(clippy::vec_box, reason = "it is the boxes that are kept")]
    spare_asked: Vec<Box<Asked>>,
    scratch: Vec<u8>,
    stopping: Option<Instant>,
    engine_stopping: bool,
    exit: Option<Exit>,
    traffic: Traffic,
    /// Receives and sends of closed connections that have not come back.
    orphans: usize,
}

fn request_id(key: Key) -> RequestId {
    u64::from(key.generation) << 32 | u64::from(key.index)
}

fn key_of(request: RequestId) -> Key {
    Key { index: request as u32, generation: (request >> 32) as u32 }
}

fn token_of(key: Key) -> Token {
    Token { index: key.index, generation: key.generation }
}

fn key_of_token(token: Token) -> Key {
    Key { index: token.index, generation: token.generation }
}

impl Server {
    /// Listen on both addresses and begin to read the log of the Io's data folder.
    ///
    /// # Errors
    /// What listening answers, with the address that it was for.
    pub fn start<I: Io<Server>>(
        io: &mut I,
        options: ServerOptions,
    ) -> Result<Server, (SocketAddr, io::Error)> {
        let mut listen = |address| io.listen(address).map_err(|error| (address, error));
        let public = listen(options.listen)?;
        let admin = listen(options.admin_listen)?;
        Ok(Server::on(io, options, public, admin))
    }

    /// As `start`, on listeners that are there already: each with the address that it is bound to.
    pub fn on<I: Io<Server>>(
        io: &mut I,
        options: ServerOptions,
        (public, public_address): (ListenerId, SocketAddr),
        (admin, admin_address): (ListenerId, SocketAddr),
    ) -> Server {
        Server {
            engine: Engine::new(options.engine),
            now: io.now(),
            ready: false,
            listeners: [Some(public), Some(admin)],
            addresses: [public_address, admin_address],
            accepting: [false; 2],
            accept_after: Instant(0),
            connections: Pool::default(),
            by_database: BTreeMap::new(),
            touched: VecDeque::new(),
            timers: BTreeSet::new(),
            calls: BTreeMap::new(),
            jobs: Jobs::default(),
            drafts: Drafts::default(),
            auth: Authenticator::new(&options.auth),
            peers: Peers::default(),
            peer_budgets: match options.auth.required {
                true => options.auth.peers,
                false => PeerBudgets::Off,
            },
            first_key: None,
            public_host: options
                .public_host
                .unwrap_or_else(|| PublicHost::of_address(public_address)),
            batons: BatonKey::new(options.baton_key),
            buffers_bytes_max: options.buffers_bytes_max,
            spare: Vec::new(),
            spare_asked: Vec::new(),
            scratch: Vec::new(),
            stopping: None,
            engine_stopping: false,
            exit: None,
            traffic: Traffic::default(),
            orphans: 0,
        }
    }

    /// The addresses really listened on: for SQL, and for the control API.
    #[must_use]
    pub fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.addresses[PUBLIC], self.addresses[ADMIN])
    }

    /// Recovery is over and requests are carried out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The key that may everything, if the first start has made one; it is told once.
    pub fn take_first_key(&mut self) -> Option<String> {
        self.first_key.take()
    }

    /// It was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Why the server has ended, once it has.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// The engine, for reports.
    #[must_use]
    pub fn engine(&self) -> &Engine<Work> {
        &self.engine
    }

    /// Databases on which something of a fleet job runs now.
    #[must_use]
    pub fn job_runs(&self) -> usize {
        self.jobs.running()
    }

    /// From now on databases may hold so much memory together: see [`Engine::limit_memory`].
    pub fn limit_memory(&mut self, bytes: u64) {
        self.engine.limit_memory(bytes);
    }

    /// Everything countable that a limit bounds, the engine's included.
    #[must_use]
    pub fn bounds(&self) -> Vec<Gauge> {
        let connections = limits::CONNECTIONS_MAX + limits::ADMIN_CONNECTIONS_KEPT;
        let keys = self.connections.keys().into_iter();
        let open = keys.filter_map(|key| self.connections.get(key));
        let out = open.map(|connection| connection.out.len() + connection.next_out.len()).max();
        let response = limits::RESPONSE_BYTES_MAX + limits::HEAD_BYTES_MAX;
        let mut gauges = self.engine.gauges();
        gauges.push(Gauge::new("connections", self.connections.len(), connections));
        gauges.push(Gauge::new("job_runs", self.job_runs(), limits::JOB_RUNS_MAX));
        let peers = connections + limits::PEERS_REMEMBERED;
        gauges.push(Gauge::new("peers", self.peers.remembered(), peers));
        gauges.push(Gauge::new("proofs", self.auth.proofs(), limits::PROOFS_MAX));
        gauges.push(Gauge::new("spare_buffers", self.spare.len(), limits::SPARE_BUFFERS_MAX));
        let boxes = self.spare_asked.len();
        gauges.push(Gauge::new("spare_requests", boxes, limits::SPARE_BUFFERS_MAX));
        gauges.push(Gauge::new("connection_out_bytes", out.unwrap_or(0), response));
        gauges
    }

    /// Operations that the Io has for this server, by its own books.
    #[must_use]
    pub fn operations_in_flight(&self) -> usize {
        let accepts = self.accepting.iter().filter(|accepting| **accepting).count();
        let keys = self.connections.keys().into_iter();
        let open = keys.filter_map(|key| self.connections.get(key));
        let transfers: usize = open
            .map(|connection| usize::from(connection.receiving) + usize::from(connection.sending))
            .sum();
        self.engine.operations_in_flight() + accepts + transfers + self.orphans
    }

    /// Connections open now.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Bytes held for the connection that holds most; looks at all of them.
    #[must_use]
    pub fn connection_bytes_max(&self) -> usize {
        let keys = self.connections.keys();
        let connections = keys.into_iter().filter_map(|key| self.connections.get(key));
        connections.map(Connection::held_bytes).max().unwrap_or(0)
    }

    /// End a doomed world: see [`Engine::doom`].
    pub fn doom(mut self, clock: &dyn Clock) {
        for key in self.connections.keys() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.release_tenant();
            }
        }
        let booked = ledger::held(AccountId::CONNECTIONS)[Kind::Buffer as usize];
        ledger::credit(AccountId::CONNECTIONS, Kind::Buffer, booked);
        self.engine.doom(clock);
    }

    /// Stop: answer what runs, close everything, then [`Exit::Stopped`].
    pub fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(self.now.after(limits::STOP_GRACE_NS));
        }
    }

    /// When the next turn is due if nothing completes before.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if !self.touched.is_empty() {
            return Some(self.now);
        }
        let accept = self.wants_accept().then_some(self.accept_after);
        let timer = self.timers.first().map(|&(at, _)| at);
        let jobs = self.jobs.deadline(self.now);
        let drafts = self.drafts.deadline();
        [self.engine.deadline(), timer, self.stopping, accept, jobs, drafts]
            .into_iter()
            .flatten()
            .min()
    }

    /// One turn: see the head of the file.
    pub fn turn<I: Io<Server>>(&mut self, io: &mut I) {
        self.now = io.now();
        self.drain_for_stop(io);
        for _ in 0..self.touched.len() {
            let Some(key) = self.touched.pop_front() else { break };
            self.advance(io, key);
        }
        self.turn_jobs();
        self.end_drafts(false);
        self.engine.turn(io);
        self.follow_engine(io);
        self.fire_timers(io);
        self.accept_more(io);
        if self.engine.holds_long() {
            // Answers do not wait for those that take long.
            io.submit();
            self.engine.turn_long(io);
            self.follow_engine(io);
        }
    }

    /// What follows from what fibers did.
    fn follow_engine<I: Io<Server>>(&mut self, io: &mut I) {
        self.now = io.now();
        while let Some(event) = self.engine.next_event() {
            self.on_event(io, event);
        }
        self.submit_disk(io);
    }

    // ---- connections come ----

    fn wants_accept(&self) -> bool {
        self.ready && self.stopping.is_none() && (self.may_accept(PUBLIC) || self.may_accept(ADMIN))
    }

    /// The admin address keeps a few connections for itself: a crowd must not lock the operator out.
    fn may_accept(&self, index: usize) -> bool {
        let limit = match index {
            ADMIN => limits::CONNECTIONS_MAX + limits::ADMIN_CONNECTIONS_KEPT,
            _ => limits::CONNECTIONS_MAX,
        };
        !self.accepting[index] && self.connections.len() < limit
    }

    fn accept_more<I: Io<Server>>(&mut self, io: &mut I) {
        if !self.wants_accept() || self.now < self.accept_after {
            return;
        }
        for index in [PUBLIC, ADMIN] {
            if let Some(listener) = self.listeners[index]
                && self.may_accept(index)
            {
                self.accepting[index] = true;
                let token = Token { index: index as u32, generation: 0 };
                io.accept(token, listener, on_accepted::<I>);
            }
        }
    }

    // ---- requests arrive ----

    /// Look at a connection to which something happened.
    fn advance<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        self.look_at(io, key);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.book();
        }
    }

    fn look_at<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        self.flush(io, key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        match connection.phase {
            Phase::Reading => self.read_requests(io, key),
            Phase::Running if connection.upload.is_some() => self.feed_upload(io, key),
            // One receive stays posted, to notice a peer that resets; more waits in the kernel.
            Phase::Running if !connection.waiting_bytes => self.receive(io, key),
            Phase::Running | Phase::Withholding | Phase::Responding | Phase::Pausing => {}
            Phase::Draining => self.drain(io, key),
        }
    }

    fn read_requests<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.receiving || connection.phase != Phase::Reading {
                return;
            }
            match connection.reader.advance() {
                Ok(Progress::NeedMore) => return self.await_more(io, key),
                Ok(Progress::Head) => {
                    connection.in_head = false;
                    connection.in_body = true;
                    connection.body_began = self.now;
                    connection.exchange = Exchange::of(&connection.reader.head());
                    let deadline = connection.body_deadline();
                    self.set_deadline(key, deadline);
                    match self.begin_upload(io, key) {
                        Ok(true) => return,
                        Ok(false) => {}
                        Err(problem) => return self.refuse(io, key, &problem),
                    }
                    if let Err(problem) = self.on_head(io, key) {
                        return self.refuse(io, key, &problem);
                    }
                }
                Ok(Progress::Complete) => {
                    connection.in_body = false;
                    self.traffic.requests += 1;
                    self.on_request(io, key);
                }
                Err(problem) => return self.refuse(io, key, &problem),
            }
        }
    }

    fn await_more<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.ended {
            return self.close(io, key);
        }
        // The time for a phase counts from its start, not from its last byte.
        let idle_deadline = self.now.after(limits::KEEP_ALIVE_NS);
        let head_deadline = self.now.after(limits::HEAD_NS).min(connection.deadline);
        connection.in_head = !connection.reader.is_idle() && !connection.in_body;
        if connection.reader.is_idle() {
            if free_bytes(self.buffers_bytes_max) < self.buffers_bytes_max / 2 {
                sometimes!("an idle connection gives its buffer back");
                connection.reader.shrink_idle();
            }
            self.set_deadline(key, idle_deadline);
        } else if !connection.in_body {
            sometimes!("a request's head comes in pieces");
            self.set_deadline(key, head_deadline);
        } else {
            let deadline = connection.body_deadline();
            self.set_deadline(key, deadline);
        }
        self.receive(io, key);
    }

    fn receive<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.receiving || connection.ended {
            return;
        }
        if connection.in_body
            && let Some(problem) = self.body_problem(key)
        {
            return self.refuse(io, key, &problem);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let free_bytes = free_bytes(self.buffers_bytes_max);
        let held_bytes = connection.reader.held_bytes() as u64;
        let growth_bytes = connection.reader.growth_bytes() as u64;
        // As long as none has more than is left for all others, something is left for small ones,
        // however many large ones there are (Choudhury and Hahne, as for fibers).
        let grows = connection.upload.is_none() && held_bytes > 0 && growth_bytes > 0;
        if grows && held_bytes + growth_bytes > free_bytes {
            sometimes!("a request is refused because buffers are used up");
            return self.refuse(io, key, &Problem { close: true, ..buffers_full() });
        }
        connection.receiving = true;
        let buffer = connection.reader.lend_buffer();
        connection.lent_bytes[0] = buffer.capacity();
        connection.book();
        io.receive(token_of(key), connection.socket, buffer, on_received::<I>);
    }

    /// More of a body is to come: why its database's budget does not allow it, if that is open.
    fn body_problem(&self, key: Key) -> Option<Problem> {
        let connection = self.connections.get(key).filter(|connection| !connection.admin)?;
        let head = connection.reader.head();
        let bytes = match head.framing() {
            BodyFraming::Length(bytes) => bytes,
            BodyFraming::Chunked => connection.reader.body_bytes() as u64,
        };
        let name = route(&head).ok()?.tenant?;
        let exceeded = self.engine.refuses_bytes(name.as_str(), bytes)?;
        sometimes!("a request is refused before its body has arrived");
        Some(Problem { close: true, ..Problem::exceeded(&exceeded) })
    }

    /// The head is there: refuse early what would only send a body in vain.
    fn on_head<I: Io<Server>>(&mut self, io: &mut I, key: Key) -> Result<(), Problem> {
        let connection = self.connections.get_mut(key).expect("its head was read");
        let head = connection.reader.head();
        let large = match head.framing() {
            BodyFraming::Length(bytes) => bytes > limits::RECEIVE_BYTES_KEPT as u64,
            BodyFraming::Chunked => true,
        };
        if self.auth.is_required() && (large || head.expects_continue()) {
            let routed = if connection.admin { Ok(None) } else { route(&head).map(Some) };
            let claimed = routed.and_then(|routed| match routed.map(|routed| routed.tenant) {
                None => self.claimed(io, key, Place::Control).map(drop),
                Some(Some(name)) => self.claimed(io, key, Place::Database(name.as_str())).map(drop),
                Some(None) => Ok(()),
            });
            claimed.map_err(|problem| Problem { close: true, ..problem })?;
        }
        let connection = self.connections.get_mut(key).expect("its head was read");
        let head = connection.reader.head();
        if !head.expects_continue() || head.framing() == BodyFraming::Length(0) {
            return Ok(());
        }
        let routed = if connection.admin {
            control::route(&head, b"").map(drop)
        } else {
            route(&head).map(drop)
        };
        routed.map_err(|problem| Problem { close: true, ..problem })?;
        if matches!(head.framing(), BodyFraming::Length(bytes) if bytes > limits::BODY_BYTES_MAX) {
            // Refused when the reader goes on, before anything was invited.
            return Ok(());
        }
        if let Some(problem) = self.body_problem(key) {
            return Err(problem);
        }
        let connection = self.connections.get_mut(key).expect("looked at just now");
        connection.out.extend_from_slice(CONTINUE);
        self.flush(io, key);
        Ok(())
    }

    /// A request is complete: answer it, or give it to the engine.
    fn on_request<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        self.set_deadline(key, Instant(u64::MAX));
        let connection = self.connections.get_mut(key).expect("its request was read");
        connection.phase = Phase::Running;
        if connection.admin {
            return self.on_admin_request(io, key);
        }
        let head = connection.reader.head();
        let limited = route(&head).and_then(|routed| {
            let ceiling = head.max_cost().map(cost::parse_limit).transpose()?.map(Box::new);
            let priority = head.priority().map(cost::parse_priority).transpose()?;
            Ok((routed.endpoint, routed.tenant, ceiling, priority))
        });
        let (endpoint, tenant, ceiling, priority) = match limited {
            Ok(limited) => limited,
            Err(problem) => {
                connection.reader.finish();
                return self.answer_problem(io, key, &problem);
            }
        };
        let kind = match endpoint {
            Endpoint::Pipeline(version) => WorkKind::Pipeline(version),
            Endpoint::Cursor => WorkKind::Cursor,
            Endpoint::V1(call) => WorkKind::V1(call),
            Endpoint::Export(format) => WorkKind::Export(format),
            Endpoint::Upload(step) => {
                let name = tenant.expect("an upload is for a database");
                return self.on_draft_step(io, key, step, name);
            }
            Endpoint::Health => return self.answer_health(io, key),
            Endpoint::Version => return self.answer_text(io, key, VERSION_TEXT),
            Endpoint::Probe => return self.answer_text(io, key, "Hrana is spoken here\n"),
            Endpoint::Generation => return self.answer_generation(io, key),
            Endpoint::Preflight => return self.answer_preflight(io, key),
        };
        let Some(name) = tenant else { unreachable!("Hrana's endpoints are for a tenant") };
        let claimed = match self.claimed(io, key, Place::Database(name.as_str())) {
            Ok(claimed) => claimed,
            Err(problem) => {
                let connection = self.connections.get_mut(key).expect("its request was read");
                connection.reader.finish();
                return self.answer_problem(io, key, &problem);
            }
        };
        self.submit_work(io, key, Order { name, kind, claimed, ceiling, priority });
    }

    /// From now on a connection counts for this database: how many do.
    fn count_for(&mut self, key: Key, name: TenantName) -> u64 {
        self.uncount(key);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.database = Some(name);
        }
        let count = self.by_database.entry(name).or_default();
        *count += 1;
        *count
    }

    fn uncount(&mut self, key: Key) {
        let database = self.connections.get_mut(key).and_then(|other| other.database.take());
        self.forget_one_of(database);
    }

    fn forget_one_of(&mut self, database: Option<TenantName>) {
        let Some(name) = database else { return };
        let count = self.by_database.get_mut(&name).expect("its connection was counted");
        *count -= 1;
        if *count == 0 {
            self.by_database.remove(&name);
        }
    }

    /// While a request runs: notice a peer that resets, unless the next request is here already.
    fn watch<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.reader.is_idle() {
            self.receive(io, key);
        } else {
            sometimes!("a request comes before the answer to the one before");
            // A receive would lend the buffer in which it waits.
            connection.waiting_bytes = true;
        }
    }

    // ---- the engine works ----

    fn on_event<I: Io<Server>>(&mut self, io: &mut I, event: Event<WorkReply>) {
        let Some(event) = self.hand_to_jobs(event) else { return };
        match event {
            Event::Ready => self.on_ready(io),
            Event::Part(request, part) => self.on_part(io, key_of(request), part),
            Event::Wants(request, spare) if drafts::is_own(request) => {
                self.recycle(spare);
                self.on_draft_wants(io, request);
            }
            Event::Refused(request, refusal) if drafts::is_own(request) => {
                self.on_draft_refused(io, request, &refusal);
            }
            Event::Control(request, reply) if drafts::is_own(request) => {
                self.on_draft_made(io, request, &reply);
            }
            Event::Wants(request, spare) => self.on_wants(io, request, spare),
            Event::Progress(request, progress) => self.on_upload_progress(io, request, progress),
            Event::Finished(request, WorkReply::Request(asked)) => {
                self.on_finished(io, key_of(request), asked);
            }
            Event::Finished(_, WorkReply::Migration(_)) => unreachable!("it is a job's"),
            Event::Refused(request, refusal) => self.on_refused(io, request, &refusal),
            Event::Bulk(request, progress) => self.on_bulk(io, request, &progress),
            Event::Control(request, reply) => self.on_control(io, request, &reply),
            Event::Stopped => self.exit = Some(Exit::Stopped),
            Event::Failed(failure) => self.exit = Some(Exit::Failed(failure)),
        }
    }

    fn submit_disk<I: Io<Server>>(&mut self, io: &mut I) {
        while let Some(request) = self.engine.next_disk_request() {
            let token = request.token;
            match request.operation {
                DiskOperation::Open(path, options) => {
                    io.open(token, Path::new(&path), options, on_opened::<I>);
                }
                DiskOperation::Read(file, offset, buffer) => {
                    io.read(token, file, offset, buffer, on_moved::<I>);
                }
                DiskOperation::Write(file, offset, buffer) => {
                    io.write(token, file, offset, buffer, on_moved::<I>);
                }
                DiskOperation::Sync(file) => io.sync(token, file, on_done::<I>),
                DiskOperation::Truncate(file, size) => {
                    io.truncate(token, file, size, on_done::<I>);
                }
                DiskOperation::Allocate(file, size) => {
                    io.allocate(token, file, size, on_done::<I>);
                }
                DiskOperation::MakeDirectory(path) => {
                    io.make_directory(token, Path::new(&path), on_done::<I>);
                }
                DiskOperation::SyncDirectory(path) => {
                    io.sync_directory(token, Path::new(&path), on_done::<I>);
                }
                DiskOperation::Remove(path) => io.remove(token, Path::new(&path), on_done::<I>),
                DiskOperation::Close(file) => io.close_file(file),
            }
        }
    }

    // ---- connections go ----

    fn close<I: Io<Server>>(&mut self, io: &mut I, key: Key) {
        self.release_stranger(key);
        let Some(mut connection) = self.connections.remove(key) else { return };
        io.close_socket(connection.socket);
        self.forget_one_of(connection.database);
        // What is being sent outlives the connection, and may outlive its fiber.
        connection.release_tenant();
        connection.book();
        // What the Io has still is booked until it comes back.
        let lent_bytes: usize = connection.lent_bytes.iter().sum();
        let given_bytes = connection.booked_bytes - lent_bytes as u64;
        ledger::credit(AccountId::CONNECTIONS, Kind::Buffer, given_bytes);
        self.orphans += usize::from(connection.receiving) + usize::from(connection.sending);
        self.calls.remove(&request_id(key));
        self.leave_drafts(key);
        if connection.phase == Phase::Running {
            sometimes!("a connection ends while its request runs");
            self.engine.cancel(request_id(key));
        }
        if let Some(at) = connection.timer_at {
            self.timers.remove(&(at, key));
        }
    }

    fn set_deadline(&mut self, key: Key, deadline: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.deadline = deadline;
        // A timer that fires too early looks again: so a request costs no timer.
        if connection.timer_at.is_none_or(|at| deadline < at) && deadline != Instant(u64::MAX) {
            if let Some(at) = connection.timer_at.replace(deadline) {
                self.timers.remove(&(at, key));
            }
            self.timers.insert((deadline, key));
        }
    }

    fn fire_timers<I: Io<Server>>(&mut self, io: &mut I) {
        while let Some(&(at, key)) = self.timers.first() {
            if at > self.now {
                return;
            }
            self.timers.pop_first();
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.timer_at = None;
            let deadline = connection.deadline;
            if deadline > self.now {
                self.set_deadline(key, deadline);
            } else {
                match connection.phase {
                    Phase::Reading if !connection.in_head && !connection.in_body => {
                        sometimes!("an idle connection is closed");
                    }
                    Phase::Reading => {
                        sometimes!("a request that comes too slowly is given up");
                        self.refuse(io, key, &too_slow());
                        continue;
                    }
                    Phase::Withholding => {
                        self.release_refusal(io, key);
                        continue;
                    }
                    Phase::Pausing => {
                        self.read_on(key);
                        continue;
                    }
                    Phase::Running => {
                        if self.stall_upload(io, key) {
                            continue;
                        }
                        sometimes!("a client reads a streamed answer too slowly");
                    }
                    Phase::Responding => sometimes!("a client reads its answer too slowly"),
                    Phase::Draining => sometimes!("a refused client does not hang up"),
                }
                self.close(io, key);
            }
        }
    }

    /// When stopping: no new connections, idle ones end, and the engine stops when the last request
    /// is answered, or when the time for that is over.
    fn drain_for_stop<I: Io<Server>>(&mut self, io: &mut I) {
        let Some(grace_ends) = self.stopping else { return };
        if self.engine_stopping {
            self.stopping = Some(Instant(u64::MAX));
            return;
        }
        for listener in self.listeners.iter_mut().filter_map(Option::take) {
            io.close_listener(listener);
        }
        let over = self.now >= grace_ends;
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key) else { continue };
            let rests = matches!(connection.phase, Phase::Reading | Phase::Pausing);
            let idle = rests && connection.reader.is_idle();
            if idle || over {
                self.close(io, key);
            }
        }
        if self.connections.is_empty() {
            self.engine_stopping = true;
            self.end_drafts(true);
            self.stop_jobs();
            self.engine.stop();
        }
    }
}

/// Bytes by which buffers of connections may grow, all together.
fn free_bytes(bytes_max: u64) -> u64 {
    bytes_max.saturating_sub(ledger::memory_held(AccountId::CONNECTIONS))
}

/// A head or body that does not come in its time (RFC 9110 section 15.5.9).
fn too_slow() -> Problem {
    Problem::protocol(408, "HTTP_TIMEOUT", "the request did not arrive in time")
}

fn buffers_full() -> Problem {
    Problem::new(
        503,
        "BUFFERS_FULL",
        "the server's memory for requests and responses is used up; try again",
    )
    .retry_after(1)
}

// ---- callbacks: they only note what arrived ----

fn on_accepted<I: Io<Server>>(server: &mut Server, io: &mut I, token: Token, accepted: Accepted) {
    let index = token.index as usize;
    server.accepting[index] = false;
    match accepted.result {
        Ok((socket, peer)) => {
            if server.stopping.is_some() {
                return io.close_socket(socket);
            }
            let stranger = PeerAddress::of(peer, server.peer_budgets);
            if stranger.is_some_and(|peer| !server.peers.connect(peer, server.now)) {
                sometimes!("a connection is closed because its peer has too many without a key");
                server.traffic.note_refusal("TOO_MANY_STRANGERS");
                return io.close_socket(socket);
            }
            let buffer = server.spare.pop().unwrap_or_default();
            let admin = index == ADMIN;
            let unset = Instant(u64::MAX);
            let key =
                server.connections.insert(Connection::new(socket, stranger, admin, buffer, unset));
            server.touched.push_back(key);
        }
        // Out of descriptors, or the peer has gone again: wait a little.
        Err(_) => {
            sometimes!("accepting pauses after an error");
            server.accept_after = server.now.after(limits::ACCEPT_RETRY_NS);
        }
    }
}

fn on_received<I: Io<Server>>(server: &mut Server, io: &mut I, token: Token, received: Received) {
    let key = key_of_token(token);
    let Some(connection) = server.connections.get_mut(key) else {
        return server.on_orphan(received.buffer);
    };
    connection.receiving = false;
    connection.lent_bytes[0] = 0;
    match (connection.phase, received.result) {
        (Phase::Draining, Ok(bytes)) => {
            connection.ended |= bytes == 0;
            connection.drain_bytes = connection.drain_bytes.saturating_sub(bytes);
        }
        (_, Ok(bytes)) => {
            connection.reader.return_buffer(received.buffer);
            connection.ended |= bytes == 0;
            if bytes == 0 && connection.phase == Phase::Running {
                sometimes!("a client ends its side while its request runs");
            }
            connection.waiting_bytes |= connection.phase != Phase::Reading;
        }
        (_, Err(_)) => {
            sometimes!("a connection is reset");
            return server.close(io, key);
        }
    }
    server.touched.push_back(key);
}

fn on_sent<I: Io<Server>>(server: &mut Server, io: &mut I, token: Token, sent: Sent) {
    let key = key_of_token(token);
    let Some(connection) = server.connections.get_mut(key) else {
        return server.on_orphan(sent.buffer);
    };
    connection.sending = false;
    connection.lent_bytes[1] = 0;
    connection.out = sent.buffer;
    match sent.result {
        Ok(bytes) => {
            connection.out_sent += bytes;
            if connection.out_sent < connection.out.len() {
                sometimes!("an answer leaves in pieces");
            }
            // A `100 Continue` leaves while the body's own deadline runs, or a withheld refusal's.
            if !matches!(connection.phase, Phase::Reading | Phase::Withholding) {
                let stall = server.now.after(limits::SEND_STALL_NS);
                server.set_deadline(key, stall);
            }
            server.touched.push_back(key);
        }
        Err(_) => server.close(io, key),
    }
}

fn on_opened<I: Io<Server>>(server: &mut Server, _: &mut I, token: Token, opened: Opened) {
    server.engine.on_disk(token, DiskReply::Opened(opened.result));
}

fn on_moved<I: Io<Server>>(server: &mut Server, _: &mut I, token: Token, moved: Transferred) {
    server.engine.on_disk(token, DiskReply::Moved(moved.buffer, moved.result));
}

fn on_done<I: Io<Server>>(server: &mut Server, _: &mut I, token: Token, done: Done) {
    server.engine.on_disk(token, DiskReply::Done(done.result));
}
