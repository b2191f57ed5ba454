//! `SimulatedIo`: the seam of storage on a seeded world with one event queue and a virtual clock.
//!
//! Owns the clock, the queue, the operations in flight, and the disk and network behind them. Its
//! user drives it: let the server take a turn, call `run`, let the clients act on their wakes, and
//! again. The clock moves only in `run` (to the next event) and by what callbacks cost.
//!
//! Order: kernel effects (a write reaching the disk, a packet arriving) happen in order of time;
//! the callbacks of all operations that are over by then come in a drawn order. Nothing calls back
//! inside a submit.
//!
//! A crash is sudden for the disk and slow for the server: the world is *doomed*, every operation
//! fails soon, nothing reaches disk or network, and its user lets it run to its end before
//! `restart` begins the next process on the same disk.

mod clients;
mod clock;
mod crash;
mod finish;
pub(crate) mod operation;
mod plan;
mod submit;
#[cfg(test)]
mod tests;

pub use crash::Doom;
pub use plan::{OperationClass, PlannedFault};

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use storage::io::{Clock, Entropy, FileId, Instant, Io, ListenerId, SocketId, WallTime};

use crate::disk::SimulatedDisk;
use crate::draws::{Draws, Span, Stream, splitmix};
use crate::faults::{FaultCounts, FaultKind, Faults};
use crate::limits::{CALLBACKS_PER_RUN_MAX, DOOMED_EVENTS_MAX};
use crate::monitor::Monitor;
use crate::network::{Network, Packet, Signal, Surroundings, Wake};
use crate::trace::{Event as TraceEvent, Kind, Trace, hash_bytes};
use clock::ClockFaults;
use crash::CrashPlan;
use operation::{Event, Pending, Ready};
use plan::Plan;

/// EIO, the same number on every Unix.
const INPUT_OUTPUT_ERROR: i32 = 5;

/// EMFILE, the same number on every Unix.
const TOO_MANY_FILES: i32 = 24;

/// When an event is due: by time, then by a drawn lot, then by age.
type Due = (Instant, u64, u64);

/// A seeded world under a server of type `W`.
pub struct SimulatedIo<W> {
    now: Instant,
    clock: ClockFaults,
    draws: Draws,
    faults: Faults,
    queue: BTreeMap<Due, Event<W>>,
    queued: u64,
    ready: VecDeque<Ready<W>>,
    in_flight: usize,
    accepts: BTreeMap<ListenerId, VecDeque<Pending<W>>>,
    receives: BTreeMap<SocketId, Pending<W>>,
    sends: BTreeMap<SocketId, Pending<W>>,
    disk: SimulatedDisk,
    network: Network,
    wakes: VecDeque<Wake>,
    trace: Trace,
    /// Operations submitted so far.
    submitted: u64,
    /// Operations not over yet per open file: a busy file must not be closed.
    busy_files: BTreeMap<FileId, u32>,
    /// Writes of killed processes per file that will still land.
    late_files: BTreeMap<FileId, u32>,
    /// How many operations were submitted when the world was doomed.
    doomed_since: Option<u64>,
    crash_plan: Option<CrashPlan>,
    fault_counts: FaultCounts,
    planned: Option<Plan>,
    /// Looks at everything, and draws nothing.
    monitor: Monitor,
}

impl<W> SimulatedIo<W> {
    /// The world of `seed` with an empty disk.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> SimulatedIo<W> {
        let disk = SimulatedDisk::new(&faults);
        let monitor = Monitor::watching();
        SimulatedIo { monitor, ..SimulatedIo::on_disk(seed, faults, disk) }
    }

    /// The world of `seed` on a disk that was made before.
    #[must_use]
    pub fn on_disk(seed: u64, faults: Faults, disk: SimulatedDisk) -> SimulatedIo<W> {
        faults.assert_sound();
        let mut draws = Draws::new(seed);
        SimulatedIo {
            now: Instant(1_000_000_000),
            clock: ClockFaults::draw(&mut draws, &faults),
            draws,
            faults,
            queue: BTreeMap::new(),
            queued: 0,
            ready: VecDeque::new(),
            in_flight: 0,
            accepts: BTreeMap::new(),
            receives: BTreeMap::new(),
            sends: BTreeMap::new(),
            disk,
            network: Network::default(),
            wakes: VecDeque::new(),
            trace: Trace::default(),
            submitted: 0,
            busy_files: BTreeMap::new(),
            late_files: BTreeMap::new(),
            doomed_since: None,
            crash_plan: None,
            fault_counts: FaultCounts::default(),
            planned: None,
            monitor: Monitor::default(),
        }
    }

    /// The monitor of this world; it judges nothing on a disk that was made before.
    #[must_use]
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// The monitor, to tell it what clients hear, and to ask for violations.
    pub fn monitor_mut(&mut self) -> &mut Monitor {
        &mut self.monitor
    }

    /// The disk, to look at.
    #[must_use]
    pub fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// The disk, for an operator's or a fault's hand.
    pub fn disk_mut(&mut self) -> &mut SimulatedDisk {
        &mut self.disk
    }

    /// The options of this world. They may change at any time: phase two switches faults off.
    pub fn faults_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }

    /// The draws, for workloads: their streams are their own.
    pub fn draws_mut(&mut self) -> &mut Draws {
        &mut self.draws
    }

    /// What happened so far.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The trace, to set a sink or expectations.
    pub fn trace_mut(&mut self) -> &mut Trace {
        &mut self.trace
    }

    /// The hash over all events so far.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// Fold every file's name and bytes into the trace, what reads see and what is durable: two runs
    /// of a seed must leave the same disk.
    pub fn fold_disk(&mut self) {
        for (index, path) in self.disk.paths().into_iter().enumerate() {
            let path = Path::new(&path);
            let mut folded = hash_bytes(path.as_os_str().as_encoded_bytes());
            let mut length = 0;
            for bytes in [self.disk.bytes(path), self.disk.durable_bytes(path)] {
                let bytes = bytes.unwrap_or_default();
                length += bytes.len() as u64;
                folded = splitmix(folded ^ hash_bytes(&bytes));
            }
            self.record(Kind::Disk, index as u64, length, folded, false);
        }
    }

    /// Let work of the server take time: its VM steps, copies and hashes.
    pub fn charge(&mut self, nanoseconds: u64) {
        self.now = self.now.after(nanoseconds);
    }

    /// Whether nothing will ever happen again unless someone asks for it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.ready.is_empty() && self.wakes.is_empty()
    }

    /// When the next event is due.
    #[must_use]
    pub fn next_event(&self) -> Option<Instant> {
        self.queue.keys().next().map(|due| due.0)
    }

    /// What struck so far, and how often.
    #[must_use]
    pub fn fault_counts(&self) -> &FaultCounts {
        &self.fault_counts
    }

    /// A request was served: what struck before is recovered from.
    pub fn served(&mut self) {
        self.fault_counts.served();
    }

    /// Something struck `entity`: count it, and let it stand in the trace.
    pub fn injected(&mut self, kind: FaultKind, entity: u64) {
        self.fault_counts.injected(kind);
        self.monitor.injected(kind);
        self.record(Kind::Fault, entity, kind as u64, 0, false);
    }

    /// Sockets that the server has open.
    #[must_use]
    pub fn server_socket_count(&self) -> usize {
        self.network.socket_count()
    }

    /// Files that the server has open and knows of: what is kept open by late writes of a killed
    /// process, or opened and not told yet, is not counted.
    #[must_use]
    pub fn server_file_count(&self) -> usize {
        let untold = self.ready.iter().filter(|ready| ready.has_opened()).count();
        self.disk.open_count() - self.late_files.len() - untold
    }

    /// Connections of which at least one side is there.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.network.connection_count()
    }

    fn schedule(&mut self, at: Instant, event: Event<W>) {
        let lot = self.draws.next(Stream::Order, 0);
        let at = at.max(self.now.after(1));
        let previous = self.queue.insert((at, lot, self.queued), event);
        assert!(previous.is_none());
        self.queued += 1;
    }

    fn record(&mut self, kind: Kind, entity: u64, length: u64, payload_hash: u64, failed: bool) {
        let event = TraceEvent { kind, entity, length, payload_hash, failed };
        self.trace.record(self.now, self.draws.total(), event);
    }

    /// Call into the network, then do what its outbox asks for.
    fn with_network<R>(
        &mut self,
        call: impl FnOnce(&mut Network, &mut Surroundings<'_>) -> R,
    ) -> R {
        let mut around =
            Surroundings { now: self.now, draws: &mut self.draws, faults: &self.faults };
        let result = call(&mut self.network, &mut around);
        for signal in std::mem::take(&mut self.network.outbox) {
            self.heed(signal);
        }
        result
    }

    fn heed(&mut self, signal: Signal) {
        match signal {
            Signal::At(at, packet) => self.schedule(at, Event::Packet(packet)),
            Signal::Acceptable(listener) => self.unpark_accept(listener),
            Signal::Receivable(socket) => {
                if let Some(pending) = self.receives.remove(&socket) {
                    self.schedule_ready(pending);
                }
            }
            Signal::Sendable(socket) => {
                if let Some(pending) = self.sends.remove(&socket) {
                    self.schedule_ready(pending);
                }
            }
            Signal::Wake(wake) => self.wake(wake),
            Signal::Injected(kind, connection) => self.injected(kind, connection),
        }
    }

    fn unpark_accept(&mut self, listener: ListenerId) {
        let parked = self.accepts.get_mut(&listener);
        if let Some(pending) = parked.and_then(VecDeque::pop_front) {
            self.schedule_ready(pending);
        }
    }

    /// Let an operation that need not wait any more end within a few microseconds.
    fn schedule_ready(&mut self, pending: Pending<W>) {
        let connection = pending.operation.socket();
        let connection = connection.and_then(|socket| self.network.connection_of(socket));
        let entity = connection.unwrap_or(u64::MAX);
        let span = Span::new(1, 20_000);
        let delay = self.draws.within(Stream::Readiness, entity, span);
        let at = self.now.after(delay);
        self.schedule(at, Event::Operation(Box::new(pending)));
    }

    fn wake(&mut self, wake: Wake) {
        let (entity, length) = match wake {
            Wake::Connected(socket) => (socket.0, 0),
            Wake::Refused(socket) => (socket.0, 1),
            Wake::Readable(socket) => (socket.0, 2),
            Wake::Writable(socket) => (socket.0, 3),
            Wake::Timer(tag) => (tag, 4),
        };
        self.record(Kind::Wake, entity, length, 0, false);
        self.wakes.push_back(wake);
    }

    /// Let the world's kernel do everything that is due, in order of time.
    fn settle(&mut self) {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= self.now
        {
            match entry.remove() {
                Event::Operation(pending) => self.finish(*pending),
                Event::Packet(packet) => self.arrive(packet),
                Event::Timer(tag) => self.wake(Wake::Timer(tag)),
                Event::LateLanding(write) => self.land(&write),
            }
            self.crash_if_planned();
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let direction = match packet {
            Packet::Ask(_) => 0,
            Packet::Grant(_) => 1,
            Packet::Refuse(_) => 2,
            Packet::Segment(_, side) => 3 + side as u64,
            Packet::Clog(..) => 5,
        };
        self.record(Kind::Packet, packet.connection(), direction, 0, false);
        self.with_network(|network, around| network.deliver(packet, around));
    }

    /// Run the callbacks of what is over, in a drawn order, up to the bound.
    fn deliver_ready(&mut self, world: &mut W) {
        let ready = self.ready.make_contiguous();
        self.draws.shuffle(Stream::Order, 1, ready);
        let count = self.ready.len().min(CALLBACKS_PER_RUN_MAX);
        for _ in 0..count {
            if self.doom() == Doom::Overrun {
                return;
            }
            let next = self.ready.pop_front().expect("callbacks add none");
            assert!(self.in_flight > 0);
            self.in_flight -= 1;
            self.charge(self.faults.callback_cost_ns);
            next.deliver(world, self);
        }
    }
}

impl<W> Clock for SimulatedIo<W> {
    fn now(&self) -> Instant {
        self.now
    }

    fn wall(&self) -> WallTime {
        self.clock.wall(self.now, &self.faults)
    }
}

impl<W> Entropy for SimulatedIo<W> {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.draws.fill(Stream::Entropy, 0, bytes);
    }
}

impl<W> Io<W> for SimulatedIo<W> {
    /// Advances to the earliest event, or the deadline if that comes first; then delivers what is
    /// over. Returns early when a client is woken, and at once when nothing can ever happen and
    /// there is no deadline: [`SimulatedIo::is_idle`] tells.
    fn run(&mut self, world: &mut W, deadline: Option<Instant>) {
        if self.doom() == Doom::Overrun {
            return;
        }
        let wakes_before = self.wakes.len();
        self.charge(self.faults.run_cost_ns);
        self.disturb_clock();
        self.settle();
        while self.ready.is_empty() && self.wakes.len() == wakes_before {
            let Some(target) = earlier(self.next_event(), deadline) else {
                break;
            };
            self.now = self.now.max(target);
            self.disturb_clock();
            self.settle();
            if deadline.is_some_and(|deadline| deadline <= self.now) {
                break;
            }
        }
        self.deliver_ready(world);
    }

    /// An operation begins when it is asked for.
    fn submit(&mut self) {}

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl<W> SimulatedIo<W> {
    /// How far the end of this world is.
    #[must_use]
    pub fn doom(&self) -> Doom {
        match self.doomed_since {
            None => Doom::Alive,
            Some(_) if self.in_flight == 0 => Doom::Ended,
            Some(since) if self.submitted - since > DOOMED_EVENTS_MAX => Doom::Overrun,
            Some(_) => Doom::Ending,
        }
    }
}

fn earlier(left: Option<Instant>, right: Option<Instant>) -> Option<Instant> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (left, right) => left.or(right),
    }
}
