//! One server on a simulated machine, driven by one caller who waits for each answer.
//!
//! Owns the plain form of a world for what is written as a script: every-fault loops, corpora. A
//! script says what is asked on which line (a connection that is made when it is first used), waits,
//! lets time pass, stops, kills and starts the server. Worlds with many clients that act at drawn
//! moments are `world`'s.
//!
//! When the process ends, by a crash that was planned or by its own will, the doomed server runs to
//! its end, must leave nothing on any account, and the caller hears of it as [`Stop::Ended`]; then
//! it starts the next one. Nothing here judges answers; the monitor of the Io judges what the server
//! does.

use std::collections::{BTreeMap, VecDeque};

use server::{Exit, Server};
use storage::io::{Clock, Entropy, Instant, Io};
use storage::ledger::{self, AccountId};
use tenant::Failure;

use crate::client::{Response, ResponseError, ResponseReader};
use crate::disk::{CrashMode, SimulatedDisk};
use crate::host::{Host, STOP_NS_MAX};
use crate::io::{Doom, SimulatedIo};
use crate::network::{ClientSocket, Wake};
use crate::world::{ADMIN, LISTEN, Options, Violation};

/// Longest simulated time that a caller waits for an answer: a statement may run 30 s and wait 15 s
/// for the writer and 5 s for the log, and a connection is given up after 60 s at the latest.
const ANSWER_NS_MAX: u64 = 150_000_000_000;

/// Longest simulated time from a start to a server that serves, or refuses to.
const START_NS_MAX: u64 = 300_000_000_000;

/// Turns within one wait after which it counts as endless (LIVE-4). The longest statements of the
/// corpora take some 100,000.
const TURNS_MAX: u64 = 5_000_000;

/// Bytes that a caller takes at a time.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A planned crash.
    Crashed,
    /// It was told to stop, and did.
    Stopped,
    /// It did not go on.
    Failed(Failure),
}

/// Why a script cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The process ended; [`Machine::start`] begins the next.
    Ended(End),
    /// A property does not hold.
    Violated(Violation),
}

impl From<Violation> for Stop {
    fn from(violation: Violation) -> Stop {
        Stop::Violated(violation)
    }
}

/// Which address a line goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// SQL.
    Public,
    /// The control API.
    Admin,
}

/// A connection of the caller.
struct Line {
    socket: ClientSocket,
    connected: bool,
    outbox: Vec<u8>,
    reader: ResponseReader,
    /// With the moment when its end was given to a send, for the monitor.
    heard: VecDeque<(Response, Option<Instant>)>,
    /// No more answers come.
    over: bool,
}

/// See the head of the file.
pub struct Machine {
    /// The simulated machine under the server.
    pub io: SimulatedIo<Server>,
    options: Options,
    server: Option<Server>,
    lines: BTreeMap<usize, Line>,
    vm_steps: u64,
    /// When the end of the answer in hand was given to a send.
    answered_at: Option<Instant>,
    /// Accounts and bytes of this thread before the first server.
    baseline: (usize, u64),
}

impl Machine {
    /// A machine with an empty disk; nothing runs on it yet.
    #[must_use]
    pub fn new(options: Options) -> Machine {
        let io = SimulatedIo::new(options.seed, options.faults);
        Machine::over(io, options)
    }

    /// A machine with a disk that was made before; its monitor judges nothing.
    #[must_use]
    pub fn on_disk(options: Options, disk: SimulatedDisk) -> Machine {
        let io = SimulatedIo::on_disk(options.seed, options.faults, disk);
        Machine::over(io, options)
    }

    fn over(io: SimulatedIo<Server>, options: Options) -> Machine {
        storage::sqlite::initialise();
        crate::client::present(options.root_key());
        let lines = BTreeMap::new();
        let baseline = held();
        Machine { io, options, server: None, lines, vm_steps: 0, answered_at: None, baseline }
    }

    /// The server, while one runs.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    /// DUR-2: the answer in hand acknowledged the transaction of `mark`.
    pub fn acknowledged(&mut self, mark: &str) {
        if let Some(at) = self.answered_at {
            self.io.monitor_mut().acknowledged(mark, at);
        }
    }

    // ---- the process ----

    /// Start a server, and wait until it serves.
    ///
    /// # Errors
    /// The process ended before, or LIVE-1 if it neither serves nor ends.
    ///
    /// # Panics
    /// If one runs.
    pub fn start(&mut self) -> Result<(), Stop> {
        assert!(self.server.is_none(), "one server at a time");
        let mut random = [[0; 32]; 2];
        for bytes in &mut random {
            self.io.fill(bytes);
        }
        let server = Server::start(&mut self.io, self.options.server(random));
        let server = server.map_err(|(address, error)| {
            Violation::new("START", format!("cannot listen on {address}: {error}"))
        })?;
        self.server = Some(server);
        self.vm_steps = 0;
        let ready = |machine: &Machine| machine.server.as_ref().is_some_and(Server::is_ready);
        match self.run_until(START_NS_MAX, ready)? {
            true => Ok(()),
            false => Err(Violation::new("LIVE-1", "a start does not end").into()),
        }
    }

    /// End the process as if it or the machine had failed.
    ///
    /// # Errors
    /// What the doomed server violates.
    pub fn crash(&mut self, mode: CrashMode) -> Result<(), Violation> {
        self.io.cancel_crash();
        self.io.crash(mode);
        self.end_process()
    }

    /// Stop the server cleanly.
    ///
    /// # Errors
    /// The process ended otherwise, or LIVE-1 if it does not stop, MEM-6 if it leaves something.
    pub fn stop(&mut self) -> Result<(), Stop> {
        self.server.as_mut().expect("a server runs").stop();
        match self.run_until(STOP_NS_MAX, |_| false) {
            Ok(_) => Err(Violation::new("LIVE-1", "the server does not stop").into()),
            Err(Stop::Ended(End::Stopped)) => Ok(()),
            Err(stop) => Err(stop),
        }
    }

    /// Turns and events until `done`, or until `patience_ns` have passed: false then.
    fn run_until(
        &mut self,
        patience_ns: u64,
        done: impl Fn(&Machine) -> bool,
    ) -> Result<bool, Stop> {
        let until = self.io.now().after(patience_ns);
        for _ in 0..TURNS_MAX {
            if done(self) {
                return Ok(true);
            }
            if self.io.now() >= until {
                return Ok(false);
            }
            self.tick(until)?;
        }
        Err(Violation::new("LIVE-4", format!("more than {TURNS_MAX} turns")).into())
    }

    fn tick(&mut self, until: Instant) -> Result<(), Stop> {
        let server = self.server.as_mut().expect("a server runs");
        server.turn(&mut self.io);
        let vm_steps = server.engine().counters().vm_steps;
        self.io.charge((vm_steps - self.vm_steps) * self.options.step_cost_ns);
        self.vm_steps = vm_steps;
        if let Some(exit) = server.exit().cloned() {
            return Err(Stop::Ended(self.on_exit(exit)?));
        }
        let deadline = server.deadline().map_or(until, |deadline| deadline.min(until));
        self.io.run(server, Some(deadline));
        if self.io.doom() != Doom::Alive {
            self.end_process()?;
            return Err(Stop::Ended(End::Crashed));
        }
        Ok(self.attend()?)
    }

    fn on_exit(&mut self, exit: Exit) -> Result<End, Violation> {
        let clean = exit == Exit::Stopped;
        if clean {
            self.settle_leftovers()?;
        }
        let crashed = self.io.doom() != Doom::Alive;
        if !crashed {
            self.io.cancel_crash();
            self.io.crash(CrashMode::Kill);
        }
        self.end_process()?;
        Ok(match exit {
            Exit::Stopped if crashed => End::Crashed,
            Exit::Stopped => End::Stopped,
            Exit::Failed(failure) => End::Failed(failure),
        })
    }

    /// Let the doomed server run to its end, and take the machine back.
    fn end_process(&mut self) -> Result<(), Violation> {
        self.end_server()?;
        ledger::assert_closed();
        if held() != self.baseline {
            let text = format!("accounts and bytes {:?}, before {:?}", held(), self.baseline);
            return Err(Violation::new("MEM-5", text));
        }
        Ok(())
    }

    // ---- lines ----

    /// Send a request on a line, connecting it if need be. Its answer is [`Machine::hear`]'s.
    pub fn send(&mut self, number: usize, door: Door, request: &[u8]) {
        // The server may have closed it for being idle.
        if self.lines.get(&number).is_some_and(|line| line.over && line.heard.is_empty()) {
            self.hang_up(number);
        }
        if !self.lines.contains_key(&number) {
            let address = match door {
                Door::Public => LISTEN,
                Door::Admin => ADMIN,
            };
            let socket = self.io.client_connect(address.parse().expect("an address"));
            let line = Line {
                socket,
                connected: false,
                outbox: Vec::new(),
                reader: ResponseReader::default(),
                heard: VecDeque::new(),
                over: false,
            };
            self.lines.insert(number, line);
        }
        let line = self.lines.get_mut(&number).expect("made just now");
        line.outbox.extend_from_slice(request);
        line.reader.expect(false);
        self.push(number);
    }

    /// The next answer on a line; `None` if it broke, or nothing came in time. It is hung up then.
    ///
    /// # Errors
    /// The process ended, or HTTP-1 if what came is no answer.
    pub fn hear(&mut self, number: usize) -> Result<Option<Response>, Stop> {
        let settled = |machine: &Machine| {
            machine.lines.get(&number).is_none_or(|line| line.over || !line.heard.is_empty())
        };
        self.run_until(ANSWER_NS_MAX, settled)?;
        let Some(line) = self.lines.get_mut(&number) else { return Ok(None) };
        let heard = line.heard.pop_front();
        let over = line.heard.is_empty() && line.over;
        let Some((response, answered_at)) = heard else {
            self.hang_up(number);
            return Ok(None);
        };
        self.answered_at = answered_at;
        if over || response.closes {
            self.hang_up(number);
        }
        Ok(Some(response))
    }

    /// Ask on a line and wait for the answer.
    ///
    /// # Errors
    /// As [`Machine::hear`].
    pub fn ask(
        &mut self,
        number: usize,
        door: Door,
        request: &[u8],
    ) -> Result<Option<Response>, Stop> {
        self.send(number, door, request);
        self.hear(number)
    }

    /// Let time pass.
    ///
    /// # Errors
    /// The process ended, or a violation.
    pub fn pass(&mut self, nanoseconds: u64) -> Result<(), Stop> {
        self.run_until(nanoseconds, |_| false).map(drop)
    }

    /// Close a line, if it is there.
    pub fn hang_up(&mut self, number: usize) {
        if let Some(line) = self.lines.remove(&number) {
            self.io.client_close(line.socket);
        }
    }

    /// Close all lines.
    pub fn hang_up_all(&mut self) {
        while let Some((_, line)) = self.lines.pop_first() {
            self.io.client_close(line.socket);
        }
    }

    /// Reset a line, if it is there.
    pub fn reset(&mut self, number: usize) {
        if let Some(line) = self.lines.remove(&number) {
            self.io.client_reset(line.socket);
        }
    }

    fn push(&mut self, number: usize) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        while line.connected && !line.outbox.is_empty() {
            match self.io.client_send(line.socket, &line.outbox) {
                Ok(count) => drop(line.outbox.drain(..count)),
                // Full for now, or broken: receiving tells which.
                Err(_) => return,
            }
        }
    }

    fn pull(&mut self, number: usize) -> Result<(), Violation> {
        let line = self.lines.get_mut(&number).expect("it was woken");
        while !line.over {
            match self.io.client_receive(line.socket, RECEIVE_BYTES) {
                Ok(bytes) if bytes.is_empty() => {
                    line.over = true;
                    line.reader.end();
                }
                Ok(bytes) => line.reader.push(&bytes),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    line.over = true;
                    break;
                }
            }
            loop {
                match line.reader.next_response() {
                    Ok(Some(response)) => {
                        let end = line.reader.response_end() - 1;
                        let at = self.io.monitor().submitted_at(line.socket.0, end);
                        line.heard.push_back((response, at));
                    }
                    Ok(None) => break,
                    Err(ResponseError::Truncated) if line.over => break,
                    Err(error) => return Err(Violation::new("HTTP-1", error.to_string())),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Machine {
    /// End the process, so that nothing of it is left for the next machine.
    fn drop(&mut self) {
        if self.server.is_none() || std::thread::panicking() {
            return;
        }
        if self.io.doom() == Doom::Alive {
            self.io.cancel_crash();
            self.io.crash(CrashMode::Kill);
        }
        self.lines.clear();
        let mut server = self.server.take().expect("looked at just now");
        while self.io.doom() == Doom::Ending {
            let deadline = server.deadline();
            self.io.run(&mut server, deadline);
            while self.io.next_wake().is_some() {}
        }
        if self.io.doom() == Doom::Ended {
            server.doom(&self.io);
        }
    }
}

/// Open accounts, and bytes on all of them; not the system's, which pays for oracles too.
fn held() -> (usize, u64) {
    let system: u64 = ledger::held(AccountId::SYSTEM).iter().sum();
    (ledger::open_accounts(), ledger::total().iter().sum::<u64>() - system)
}

impl Host for Machine {
    fn parts(&mut self) -> (&mut SimulatedIo<Server>, &mut Option<Server>) {
        (&mut self.io, &mut self.server)
    }

    fn attend(&mut self) -> Result<(), Violation> {
        while let Some(wake) = self.io.next_wake() {
            let (socket, refused, connected) = match wake {
                Wake::Timer(_) => continue,
                Wake::Refused(socket) => (socket, true, false),
                Wake::Connected(socket) => (socket, false, true),
                Wake::Readable(socket) | Wake::Writable(socket) => (socket, false, false),
            };
            let found = self.lines.iter_mut().find(|(_, line)| line.socket == socket);
            let Some((&number, line)) = found else { continue };
            line.over |= refused;
            line.connected |= connected;
            self.push(number);
            self.pull(number)?;
        }
        match self.io.monitor_mut().take_violation() {
            Some(violation) => Err(violation),
            None => Ok(()),
        }
    }
}
