//! A whole world: the unchanged server on a simulated machine, its clients, its ends.
//!
//! Owns the loop: the server takes a turn, the kernel of the simulation goes on to its next event,
//! woken clients act. In between the server is killed, loses its power or is stopped, at drawn
//! moments, recovery included, and is started again on the same disk. At the end the faults are
//! switched off, every database must take a write and show all that it should (LIVE-1), the server
//! is stopped, and its files are read by plain SQLite (FMT-1).
//!
//! - `options`: what the seed says of sizes and rates.
//! - `stranger`: who asks wrongly, slowly, or not to the end.
//! - `client`, `workload`, `session`, `speech`: who asks, what, and how it is said; `mix`: how often.
//! - `model`, `journal`, `ground`, `names`: what was asked and answered, and the oracles.
//! - `ends`: when and how each life is over. `operator`: what is done from outside. `rehearsal`:
//!   recovery on copies (REC-1).
//! - `mortals`: databases that end by themselves, and storms of them.
//! - `copyist`: who copies databases and reads them as files.
//! - `caster`: databases created in a group with a template.
//! - `locksmith`: who makes, uses and revokes keys.
//! - `fleet`: fleet jobs, each exactly once.
//! - `landlord`: who gives budgets. `glutton`: who uses them up. `ceilings`: what must not be passed then.
//! - `link`: a request at a time, for who asks so.
//! - `importer`: who sends files and SQL text to become databases.
//! - `books`: what must agree between turns, and at rest.
//! - `settling`: what an end of the faults, and a fence, must look like.
//! - `files`: the oracle of the files. `report`: what a run prints.
//!
//! Oracles read without faults and draw nothing.

mod books;
mod caster;
mod ceilings;
pub(crate) mod client;
mod copyist;
mod ends;
pub(crate) mod files;
mod fleet;
mod glutton;
pub(crate) mod ground;
mod importer;
pub(crate) mod journal;
mod landlord;
mod link;
mod locksmith;
mod mix;
pub(crate) mod model;
mod mortals;
pub(crate) mod names;
mod operator;
mod options;
mod record;
mod rehearsal;
mod report;
mod session;
mod settling;
pub(crate) mod speech;
mod stranger;
mod workload;

pub use model::Violation;
pub use options::{ADMIN, LISTEN, Options, Profile};
pub use report::Outcome;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::rc::Rc;

use server::Server;
use storage::TenantId;
use storage::allocator::{self, Failing};
use storage::io::{Clock, Entropy, Instant, Io};

use crate::disk::Damage;
use crate::draws::{Span, Stream};
use crate::faults::FaultKind;
use crate::host::Host;
use crate::io::{Doom, SimulatedIo};
use crate::network::{ClientSocket, Wake};
use crate::recorder::Recording;
use crate::trace::{Checkpoint, Sink};
use caster::Caster;
use ceilings::Ceilings;
use client::Client;
use copyist::Copyist;
use ends::Ambush;
use fleet::Fleet;
use glutton::Gluttons;
use ground::Ground;
use importer::Importer;
use landlord::Landlord;
use link::Asker;
use locksmith::Locksmith;
use mortals::Mortals;
use operator::Operator;
use stranger::Strangers;
use workload::Task;

/// The server's machine.
type Sim = SimulatedIo<Server>;

/// Events after which a world counts as never ending (LIVE-4): some ten times the longest seen.
const EVENTS_MAX: u64 = 8_000_000;

/// Simulated time for each of the probe's requests when the faults are off.
const PROBE_NS_MAX: u64 = 60_000_000_000;

/// Simulated time in which the connections of clients that left end: 30 s of a request, 30 s of an
/// answer that nobody takes, for several requests that were sent at once.
const SILENCE_NS_MAX: u64 = 600_000_000_000;

/// Refused starts in a row after which the disk's errors end: someone has changed the disk.
const REFUSED_STARTS_MAX: u32 = 4;

/// What is counted over all lives of the server.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    clean_stops: u64,
    failed_exits: u64,
    refused_starts: u64,
    crashed_starting: u64,
    commits: u64,
    checkpoints: u64,
    fences: u64,
    gated: u64,
    /// Recoveries of copies that were interrupted.
    rehearsals: u64,
}

struct World {
    io: Sim,
    server: Option<Server>,
    clients: Vec<Client>,
    routes: BTreeMap<ClientSocket, usize>,
    strangers: Strangers,
    landlord: Landlord,
    importer: Importer,
    gluttons: Gluttons,
    fleet: Fleet,
    copyist: Copyist,
    caster: Caster,
    locksmith: Locksmith,
    mortals: Mortals,
    ceilings: Ceilings,
    /// When the turn in hand began.
    turn_at: Instant,
    ground: Ground,
    totals: Totals,
    /// Drawn ends that are still to come.
    ends_left: u32,
    stop_at: Option<u64>,
    refused_starts: u32,
    /// Databases that the last clean stop could not bring into their files.
    left_to_log: u64,
    ambush: Option<Ambush>,
    operator: Operator,
    turns: u64,
    vm_steps: u64,
    /// Those that are counted already.
    failed_allocations: u64,
    recording: Option<Rc<RefCell<Recording>>>,
}

/// How a world is looked at; nothing in it changes what happens.
#[derive(Default)]
pub struct Watch {
    /// An earlier run's checkpoints to compare with.
    pub expected: Vec<Checkpoint>,
    /// Takes the readable trace.
    pub sink: Option<Sink>,
    /// The first event of that.
    pub sink_from: u64,
    /// Takes samples.
    pub recording: Option<Rc<RefCell<Recording>>>,
}

/// Run the world of a seed. `expected` are an earlier run's checkpoints to compare with; `sink`
/// takes the readable trace.
#[must_use]
pub fn run(options: Options, expected: Vec<Checkpoint>, sink: Option<Sink>) -> Outcome {
    run_watched(options, Watch { expected, sink, ..Watch::default() })
}

/// Run the world of these options under watch.
#[must_use]
pub fn run_watched(options: Options, watch: Watch) -> Outcome {
    storage::sqlite::initialise();
    files::prepare();
    storage::sqlite::reset();
    let mut world = World::new(options);
    let trace = world.io.trace_mut();
    trace.expect(watch.expected);
    trace.set_sink(watch.sink);
    trace.set_sink_from(watch.sink_from);
    world.recording = watch.recording;
    world.fail_allocations();
    let verdict = world.live();
    let at = world.io.now();
    world.end_recording(verdict.as_ref().err());
    if let Err(Violation { property, detail }) = &verdict {
        // What comes after it, the end of the process, explains nothing.
        let trace = world.io.trace_mut();
        trace.remark(|| format!("violated: {property}: {detail}"));
        trace.set_sink(None);
    }
    world.tear_down();
    allocator::fail_allocations(Failing::Never);
    world.io.fold_disk();
    report::outcome(&world, verdict, at)
}

impl World {
    fn new(options: Options) -> World {
        let mut io = Sim::new(options.seed, options.faults);
        let clients = (0..=options.clients as u64)
            .map(|id| {
                let span = Span::new(1_000_000, 3_000_000_000);
                let delay = io.draws_mut().logarithmic(Stream::Workload, id, span);
                let start = io.now().after(delay);
                Client::new(&mut io, id, start)
            })
            .collect();
        let operator = Operator::draw(&mut io, options.profile);
        let strangers = Strangers::new(&mut io, &options);
        let landlord = Landlord::new(&mut io, &options);
        let importer = Importer::new(&mut io, &options);
        let gluttons = Gluttons::new(&mut io, &options);
        let fleet = Fleet::new(&mut io, &options);
        let copyist = Copyist::new(&mut io, &options);
        let caster = Caster::new(&mut io, &options);
        let mortals = Mortals::new(&mut io, &options);
        let locksmith = Locksmith::new(&mut io, &options);
        crate::client::present(options.root_key());
        World {
            turn_at: io.now(),
            io,
            landlord,
            importer,
            gluttons,
            fleet,
            copyist,
            caster,
            locksmith,
            mortals,
            ceilings: Ceilings::default(),
            operator,
            ambush: None,
            server: None,
            strangers,
            clients,
            routes: BTreeMap::new(),
            ends_left: options.crashes,
            ground: Ground::new(options),
            totals: Totals::default(),
            stop_at: None,
            refused_starts: 0,
            left_to_log: 0,
            turns: 0,
            vm_steps: 0,
            failed_allocations: 0,
            recording: None,
        }
    }

    /// From the first start to the last look at the files.
    fn live(&mut self) -> Result<(), Violation> {
        self.start()?;
        while self.ground.operations_left > 0 {
            self.tick()?;
        }
        self.calm_down();
        self.strangers.leave(&mut self.io);
        self.gluttons.leave(&mut self.io);
        self.take_budgets_back()?;
        self.look_at_imports()?;
        self.bring_jobs_to_rest()?;
        self.look_at_copies()?;
        self.look_at_casts()?;
        self.look_at_mortals()?;
        self.look_at_keys()?;
        self.settle()?;
        self.await_silence()?;
        self.probe()?;
        self.come_to_rest()?;
        self.stop_for_good()
    }

    // ---- the server's life ----

    fn start(&mut self) -> Result<(), Violation> {
        let mut random = [[0; 32]; 2];
        for bytes in &mut random {
            self.io.fill(bytes);
        }
        let mut options = self.ground.options.server(random);
        if let Some([all, one]) = self.operator.memory_bytes() {
            options.engine.memory_bytes = all;
            options.engine.tenant_memory_bytes = one;
        }
        let server = Server::start(&mut self.io, options);
        self.server = Some(server.map_err(|(address, error)| {
            Violation::new("START", format!("cannot listen on {address}: {error}"))
        })?);
        self.vm_steps = 0;
        self.ceilings = Ceilings::default();
        self.plan_end();
        Ok(())
    }

    fn server_mut(&mut self) -> &mut Server {
        self.server.as_mut().expect("a server runs")
    }

    /// One turn of the server, one step of the machine, and the clients that it woke.
    fn tick(&mut self) -> Result<(), Violation> {
        self.turns += 1;
        self.record();
        let canary = self.ground.options.canary_requests;
        if canary > 0 && self.ground.counts.ok >= canary {
            return Err(Violation::new("CANARY", format!("{canary} requests were answered")));
        }
        let sequence = self.io.trace().sequence();
        if self.stop_at.is_some_and(|at| sequence >= at) {
            self.begin_stop();
        }
        self.spring_ambush();
        self.let_operator_act()?;
        self.turn_at = self.io.now();
        let server = self.server.as_mut().expect("a server runs");
        server.turn(&mut self.io);
        self.count_failed_allocations();
        let server = self.server.as_mut().expect("a server runs");
        let vm_steps = server.engine().counters().vm_steps;
        let cost = (vm_steps - self.vm_steps) * self.ground.options.step_cost_ns;
        self.vm_steps = vm_steps;
        self.io.charge(cost);
        if let Some(exit) = server.exit().cloned() {
            return self.on_exit(exit);
        }
        self.check_books()?;
        let server = self.server.as_mut().expect("a server runs");
        if server.is_ready() {
            self.refused_starts = 0;
        }
        let deadline = server.deadline();
        self.io.run(server, deadline);
        if self.io.doom() != Doom::Alive {
            return self.on_crash();
        }
        self.attend()?;
        self.look()
    }

    /// Let allocations fail from now on as the faults say.
    fn fail_allocations(&mut self) {
        self.failed_allocations = 0;
        let seed = self.ground.options.seed;
        allocator::fail_allocations(self.io.faults_mut().allocations(seed));
    }

    fn count_failed_allocations(&mut self) {
        let failed = allocator::failed_allocations();
        for _ in self.failed_allocations..failed {
            self.io.injected(FaultKind::AllocationFailure, 0);
        }
        self.failed_allocations = failed;
    }

    // ---- the end ----

    /// Faults off: from now on nothing excuses anything but what was broken before.
    fn calm_down(&mut self) {
        self.ends_left = 0;
        self.stop_at = None;
        self.ambush = None;
        self.free_disk();
        self.swap_nothing();
        self.io.cancel_crash();
        let faults = self.io.faults_mut();
        faults.calm_disk();
        faults.calm_network_clock_and_memory();
        let disk_bytes_max = faults.disk_bytes_max;
        self.io.disk_mut().set_size(disk_bytes_max);
        self.fail_allocations();
        self.bring_catalogue_back();
    }

    /// The operator's hand: while the catalogue cannot be read, nothing can be opened, and a server
    /// cannot start. Its right bytes are brought back, in its file and in the log.
    fn bring_catalogue_back(&mut self) {
        let struck = |damage: &&Damage| damage.tenants.contains(&TenantId::CATALOGUE);
        let damages = self.io.disk().ledger().active().filter(struck);
        let mut paths: Vec<String> = damages.map(|damage| damage.path.clone()).collect();
        paths.dedup();
        for path in paths {
            self.io.disk_mut().heal_path(Path::new(&path));
        }
    }

    /// NET-1: those who have left hold nothing once their time is over.
    fn await_silence(&mut self) -> Result<(), Violation> {
        let begun = self.io.now();
        loop {
            self.tick()?;
            let ready = self.server.as_ref().is_some_and(Server::is_ready);
            let count = self.server_mut().connection_count();
            if ready && count == 0 {
                return Ok(());
            }
            if self.io.now().since(begun) > SILENCE_NS_MAX {
                let text = format!("all clients have left, and {count} connections have not");
                return Err(Violation::new("NET-1", text));
            }
        }
    }

    /// LIVE-1: every database takes a write and shows all of it, within a bounded time.
    fn probe(&mut self) -> Result<(), Violation> {
        let tasks = |tenant| {
            [Task::Create(tenant), Task::Setup(tenant), Task::Write(tenant), Task::Read(tenant)]
        };
        let script: VecDeque<Task> = self.ground.probed().flat_map(tasks).collect();
        let think_ns = self.ground.options.think_ns.high;
        let limit = script.len() as u64 * (think_ns + PROBE_NS_MAX);
        let (id, now) = (self.clients.len() as u64, self.io.now());
        let mut client = Client::new(&mut self.io, id, now);
        client.script = Some(script);
        self.clients.push(client);
        let index = self.clients.len() - 1;
        while !self.clients[index].finished {
            self.tick()?;
            if self.io.now().since(now) > limit {
                let left = &self.clients[index].script;
                let left = left.as_ref().and_then(|left| left.front());
                let refused = &self.ground.counts.refused;
                let bounds = self.server.as_ref().map(Server::bounds);
                let text = format!(
                    "without faults the probe stops at {left:?}; {refused:?}; held: {bounds:?}"
                );
                return Err(Violation::new("LIVE-1", text));
            }
        }
        Ok(())
    }

    /// FMT-1, and the contents once more.
    fn judge_files(&mut self) -> Result<(), Violation> {
        files::judge(self.io.disk(), &mut self.ground)
    }
}

impl Host for World {
    fn parts(&mut self) -> (&mut Sim, &mut Option<Server>) {
        (&mut self.io, &mut self.server)
    }

    fn attend(&mut self) -> Result<(), Violation> {
        while let Some(wake) = self.io.next_wake() {
            let World { io, ground, .. } = self;
            let is_anothers = self.landlord.heed(io, ground, wake)?
                || self.importer.heed(io, ground, wake)?
                || self.gluttons.heed(io, &ground.options, wake)?
                || self.fleet.heed(io, ground, wake)?
                || self.copyist.heed(io, ground, wake)?
                || self.caster.heed(io, ground, wake)?
                || self.locksmith.heed(io, ground, wake)?
                || self.mortals.heed(io, ground, wake)?
                || self.strangers.heed(io, &ground.options, wake)?;
            if is_anothers {
                continue;
            }
            let index = match wake {
                Wake::Timer(tag) => Some(Client::of_tag(tag) as usize),
                Wake::Connected(socket)
                | Wake::Refused(socket)
                | Wake::Readable(socket)
                | Wake::Writable(socket) => self.routes.get(&socket).copied(),
            };
            let Some(index) = index else { continue };
            let client = &mut self.clients[index];
            let before = client.socket();
            let served = self.ground.counts.ok;
            let stale = match wake {
                Wake::Timer(_) => false,
                Wake::Connected(socket)
                | Wake::Refused(socket)
                | Wake::Readable(socket)
                | Wake::Writable(socket) => before != Some(socket),
            };
            if stale {
                continue;
            }
            client.wake(&mut self.io, &mut self.ground, wake)?;
            if self.ground.counts.ok > served {
                self.io.served();
            }
            let after = client.socket();
            if before != after {
                before.map(|socket| self.routes.remove(&socket));
                after.map(|socket| self.routes.insert(socket, index));
            }
            self.judge_fences()?;
        }
        Ok(())
    }
}
