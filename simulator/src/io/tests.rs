//! A little server on the simulated Io: determinism, crashes, doom, back-pressure.

use std::net::SocketAddr;
use std::path::Path;

use storage::io::{
    Accepted, Buffer, Clock, Create, Disk, Done, Entropy, FileId, Instant, Io, ListenerId, Network,
    OpenOptions, Opened, Received, Sent, SocketId, Token, Transferred,
};

use super::{Doom, OperationClass, PlannedFault, SimulatedIo};
use crate::disk::CrashMode;
use crate::draws::Stream;
use crate::faults::{FaultKind, Faults};
use crate::network::{ClientSocket, Wake};
use crate::trace::Kind;

mod weather;

/// An echo server that appends what it echoes to a file.
#[derive(Debug, Default)]
struct Echo {
    listener: Option<ListenerId>,
    address: Option<SocketAddr>,
    file: Option<FileId>,
    offset: u64,
    echoed_bytes: u64,
    errors: u64,
    /// Successes heard of after the crash.
    unsound: u64,
    /// An error path that never gives up.
    stubborn: bool,
}

type World = SimulatedIo<Echo>;

const LOG: OpenOptions = OpenOptions {
    create: Create::IfMissing,
    write: true,
    direct: false,
    data_sync: true,
    lock: true,
};

fn token_of(socket: SocketId) -> Token {
    Token { index: socket.index, generation: socket.generation }
}

fn socket_of(token: Token) -> SocketId {
    SocketId { index: token.index, generation: token.generation }
}

impl Echo {
    fn hear(&mut self, io: &World, success: bool) {
        self.unsound += u64::from(success && io.doom() != Doom::Alive);
    }

    fn start(&mut self, io: &mut World) {
        io.open(Token::default(), Path::new("log"), LOG, on_opened);
        let any: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
        let (listener, address) = io.listen(any).expect("nobody listens there");
        (self.listener, self.address) = (Some(listener), Some(address));
        io.accept(Token::default(), listener, on_accepted);
    }
}

fn on_opened(echo: &mut Echo, io: &mut World, token: Token, opened: Opened) {
    match opened.result {
        Ok((file, size_bytes)) => (echo.file, echo.offset) = (Some(file), size_bytes),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock || echo.stubborn => {
            io.open(token, Path::new("log"), LOG, on_opened);
        }
        Err(_) => echo.errors += 1,
    }
}

fn on_accepted(echo: &mut Echo, io: &mut World, token: Token, accepted: Accepted) {
    echo.hear(io, accepted.result.is_ok());
    match accepted.result {
        Ok((socket, _)) => {
            io.receive(token_of(socket), socket, Vec::with_capacity(256), on_received);
        }
        Err(_) => echo.errors += 1,
    }
    if io.doom() == Doom::Alive {
        io.accept(token, echo.listener.expect("listening"), on_accepted);
    }
}

fn on_received(echo: &mut Echo, io: &mut World, token: Token, received: Received) {
    echo.hear(io, received.result.is_ok());
    let socket = socket_of(token);
    match (received.result, echo.file) {
        (Ok(count), Some(file)) if count > 0 => {
            let mut buffer = Buffer::zeroed(received.buffer.len());
            buffer.set_len(received.buffer.len());
            buffer.copy_from_slice(&received.buffer);
            let offset = echo.offset;
            echo.offset += received.buffer.len() as u64;
            io.write(Token::default(), file, offset, buffer, on_written);
            io.send(token, socket, received.buffer, 0, on_sent);
        }
        (result, _) => {
            echo.errors += u64::from(result.is_err());
            io.close_socket(socket);
        }
    }
}

fn on_written(echo: &mut Echo, io: &mut World, _: Token, written: Transferred) {
    echo.hear(io, written.result.is_ok());
    echo.errors += u64::from(written.result.is_err());
}

fn on_sent(echo: &mut Echo, io: &mut World, token: Token, sent: Sent) {
    echo.hear(io, sent.result.is_ok());
    let socket = socket_of(token);
    let Ok(count) = sent.result else {
        echo.errors += 1;
        io.close_socket(socket);
        return;
    };
    echo.echoed_bytes += count as u64;
    let mut buffer = sent.buffer;
    buffer.drain(..count);
    if buffer.is_empty() {
        io.receive(token, socket, Vec::with_capacity(256), on_received);
    } else {
        io.send(token, socket, buffer, 0, on_sent);
    }
}

/// A client that says `bytes` once connected, and what it heard back.
struct Talker {
    socket: ClientSocket,
    rest: Vec<u8>,
    heard: Vec<u8>,
    over: Option<std::io::ErrorKind>,
}

impl Talker {
    fn connect(io: &mut World, address: SocketAddr, bytes: Vec<u8>) -> Talker {
        let socket = io.client_connect(address);
        Talker { socket, rest: bytes, heard: Vec::new(), over: None }
    }

    fn act(&mut self, io: &mut World) {
        while !self.rest.is_empty() {
            match io.client_send(self.socket, &self.rest) {
                Ok(count) => drop(self.rest.drain(..count)),
                Err(error) => {
                    self.note(error.kind());
                    break;
                }
            }
        }
        loop {
            match io.client_receive(self.socket, 1_000) {
                Ok(bytes) if bytes.is_empty() => {
                    return self.note(std::io::ErrorKind::UnexpectedEof);
                }
                Ok(bytes) => self.heard.extend(bytes),
                Err(error) => return self.note(error.kind()),
            }
        }
    }

    fn note(&mut self, kind: std::io::ErrorKind) {
        if kind != std::io::ErrorKind::WouldBlock {
            self.over = Some(kind);
        }
    }
}

fn wake_of(wake: Wake) -> Option<ClientSocket> {
    match wake {
        Wake::Connected(s) | Wake::Refused(s) | Wake::Readable(s) | Wake::Writable(s) => Some(s),
        Wake::Timer(_) => None,
    }
}

/// Drive server and clients until `done` or nothing happens any more.
fn drive(io: &mut World, echo: &mut Echo, talkers: &mut [Talker], until: Instant) {
    while io.now() < until && !io.is_idle() && io.doom() != Doom::Overrun {
        io.run(echo, Some(until));
        while let Some(wake) = io.next_wake() {
            let woken = talkers.iter_mut().find(|talker| Some(talker.socket) == wake_of(wake));
            if let Some(talker) = woken {
                talker.act(io);
            }
        }
    }
}

fn started(seed: u64, faults: Faults) -> (World, Echo) {
    let mut io = World::new(seed, faults);
    let mut echo = Echo::default();
    echo.start(&mut io);
    while echo.file.is_none() {
        io.run(&mut echo, None);
    }
    (io, echo)
}

fn speech(length_bytes: usize) -> Vec<u8> {
    (0..length_bytes).map(|index| (index * 7 + index / 256) as u8).collect()
}

fn conversation(seed: u64) -> (World, Echo, Vec<Talker>) {
    let (mut io, mut echo) = started(seed, Faults::drawn(seed));
    let address = echo.address.expect("listening");
    let mut talkers: Vec<Talker> =
        (0..4).map(|index| Talker::connect(&mut io, address, speech(3_000 + index))).collect();
    let until = io.now().after(3_600_000_000_000);
    drive(&mut io, &mut echo, &mut talkers, until);
    (io, echo, talkers)
}

#[test]
fn every_drawn_world_echoes_everything() {
    for seed in 0..40 {
        let (io, echo, talkers) = conversation(seed);
        for (index, talker) in talkers.iter().enumerate() {
            assert_eq!(talker.over, None, "seed {seed}");
            assert!(talker.heard == speech(3_000 + index), "seed {seed}");
        }
        assert_eq!(echo.errors, 0);
        assert_eq!(io.trace().count(Kind::Send).bytes, echo.echoed_bytes);
        assert_eq!(io.trace().count(Kind::Accept).events, 4);
        let delays = [
            FaultKind::DiskSpike,
            FaultKind::DiskShort,
            FaultKind::TinySegments,
            FaultKind::NetworkShort,
        ];
        let mut kinds = io.fault_counts().iter().map(|(kind, _)| kind);
        assert_eq!(kinds.find(|kind| !delays.contains(kind)), None, "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let mut hashes = Vec::new();
    for seed in 0..10 {
        let (first, ..) = conversation(seed);
        let (second, ..) = conversation(seed);
        assert_eq!(first.trace_hash(), second.trace_hash());
        assert_eq!(first.trace().checkpoints(), second.trace().checkpoints());
        assert_eq!(first.trace().recent_lines(), second.trace().recent_lines());
        assert_eq!(first.now(), second.now());
        hashes.push(first.trace_hash());
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 10);
}

#[test]
fn every_crash_mode_dooms_the_world_and_the_next_one_works() {
    for mode in CrashMode::ALL {
        for seed in 0..40 {
            let (mut io, mut echo) = started(seed, Faults::drawn(seed));
            let address = echo.address.expect("listening");
            let mut talkers = vec![Talker::connect(&mut io, address, speech(20_000))];
            io.crash_at(40 + seed * 7, mode);
            let until = io.now().after(3_600_000_000_000);
            drive(&mut io, &mut echo, &mut talkers, until);
            assert_eq!(io.doom(), Doom::Ended, "{mode:?} {seed}");
            assert_eq!((io.in_flight(), echo.unsound), (0, 0));
            assert_eq!(io.server_socket_count(), 0);
            assert!(talkers[0].over.is_some(), "the client noticed");
            assert!(io.listen(address).is_err(), "nothing works in a doomed world");

            io.restart();
            let mut next = Echo::default();
            next.start(&mut io);
            // A late write of the killed process may keep the lock for up to a second.
            while next.file.is_none() {
                io.run(&mut next, None);
            }
            let mut talkers = vec![Talker::connect(&mut io, address, speech(500))];
            let until = io.now().after(3_600_000_000_000);
            drive(&mut io, &mut next, &mut talkers, until);
            assert!(talkers[0].heard == speech(500), "{mode:?} {seed}");
        }
    }
}

#[test]
fn acknowledged_data_sync_writes_survive_every_power_loss() {
    for mode in CrashMode::ALL {
        let (mut io, mut echo) = started(3, Faults::calm());
        io.sync_directory(Token::default(), Path::new(""), |echo: &mut Echo, _, _, done: Done| {
            echo.errors += u64::from(done.result.is_err());
        });
        let address = echo.address.expect("listening");
        let mut talkers = vec![Talker::connect(&mut io, address, speech(5_000))];
        let until = io.now().after(3_600_000_000_000);
        drive(&mut io, &mut echo, &mut talkers, until);
        assert_eq!((echo.offset, io.in_flight()), (5_000, 2), "an accept and a receive wait");
        io.crash(mode);
        let bytes = io.disk().bytes(Path::new("log")).expect("the name was synced");
        assert!(bytes == speech(5_000));
    }
}

#[test]
fn an_error_path_that_never_gives_up_is_found() {
    let mut io = World::new(1, Faults::calm());
    let mut echo = Echo { stubborn: true, ..Echo::default() };
    echo.start(&mut io);
    io.crash(CrashMode::Kill);
    let until = io.now().after(3_600_000_000_000);
    drive(&mut io, &mut echo, &mut [], until);
    assert_eq!(io.doom(), Doom::Overrun);
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer() {
    let (mut io, mut echo) = started(5, Faults::calm());
    let socket = io.client_connect(echo.address.expect("listening"));
    let mut sent_bytes = 0;
    let until = io.now().after(10_000_000_000);
    while io.now() < until && !io.is_idle() {
        io.run(&mut echo, Some(until));
        while io.next_wake().is_some() {
            while let Ok(count) = io.client_send(socket, &[1; 50_000]) {
                sent_bytes += count as u64;
            }
        }
    }
    let window = io.faults_mut().window_bytes.high;
    assert_eq!(echo.echoed_bytes, window, "one window of echo");
    assert!((window..=3 * window).contains(&sent_bytes), "{sent_bytes}");
    io.client_reset(socket);
    let until = io.now().after(10_000_000_000);
    drive(&mut io, &mut echo, &mut [], until);
    assert_eq!(echo.errors, 1);
    assert_eq!((io.server_socket_count(), io.connection_count()), (0, 0));
}

#[test]
fn a_vanished_client_leaves_its_connection_half_open() {
    let (mut io, mut echo) = started(5, Faults::calm());
    let mut talkers = vec![Talker::connect(&mut io, echo.address.expect("there"), speech(10))];
    let until = io.now().after(10_000_000_000);
    drive(&mut io, &mut echo, &mut talkers, until);
    assert_eq!(talkers[0].heard.len(), 10);
    io.client_vanish(talkers[0].socket);
    let until = io.now().after(10_000_000_000);
    drive(&mut io, &mut echo, &mut [], until);
    assert_eq!((io.server_socket_count(), echo.errors), (1, 0));
}

#[test]
fn timers_wake_the_clients_side_at_their_time_and_refusals_are_told() {
    let mut io = World::new(1, Faults::calm());
    let mut echo = Echo::default();
    let at = io.now().after(5_000_000_000);
    io.wake_at(at, 77);
    let nobody: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let socket = io.client_connect(nobody);
    let mut wakes = Vec::new();
    while !io.is_idle() {
        io.run(&mut echo, None);
        while let Some(wake) = io.next_wake() {
            wakes.push((io.now(), wake));
        }
    }
    assert_eq!(wakes[0].1, Wake::Refused(socket));
    assert_eq!(wakes[1], (at, Wake::Timer(77)));
}

#[test]
fn the_wall_clock_steps_and_the_monotonic_one_does_not() {
    let mut io = World::new(1, Faults::calm());
    let (now, wall) = (io.now(), io.wall());
    io.step_wall(-3_600_000_000_000);
    assert_eq!(io.now(), now);
    assert_eq!(io.wall().0, wall.0 - 3_600_000_000_000);
}

#[test]
fn faults_strike_at_their_rate_and_stand_in_the_trace() {
    let faults = Faults { write_error_per_million: 500_000, ..Faults::calm() };
    let (mut io, mut echo) = started(5, faults);
    let address = echo.address.expect("listening");
    let mut talkers = vec![Talker::connect(&mut io, address, speech(20_000))];
    let until = io.now().after(3_600_000_000_000);
    drive(&mut io, &mut echo, &mut talkers, until);
    let writes = io.trace().count(Kind::Write);
    assert_eq!(writes.errors, echo.errors);
    assert_eq!(io.trace().count(Kind::Fault).events, echo.errors);
    assert!((writes.events / 4..writes.events * 3 / 4).contains(&writes.errors));
}

#[test]
fn entropy_is_seeded() {
    let mut bytes = [[0u8; 32]; 3];
    for (seed, bytes) in [1, 1, 2].into_iter().zip(&mut bytes) {
        let mut io = World::new(seed, Faults::calm());
        io.draws_mut().next(Stream::Workload, 0);
        io.fill(bytes);
    }
    assert_eq!(bytes[0], bytes[1]);
    assert_ne!(bytes[0], bytes[2]);
}

const DIRECT: OpenOptions = OpenOptions {
    create: Create::IfMissing,
    write: true,
    direct: true,
    data_sync: true,
    lock: true,
};

#[test]
fn direct_writes_of_a_killed_process_land_late_and_hold_the_lock() {
    let mut late_count = 0;
    for seed in 0..30 {
        let mut io = World::new(seed, Faults::calm());
        let mut echo = Echo::default();
        io.open(Token::default(), Path::new("log"), DIRECT, on_opened);
        while echo.file.is_none() {
            io.run(&mut echo, None);
        }
        let file = echo.file.expect("opened");
        for block in 0..8 {
            let mut buffer = Buffer::zeroed(4096);
            buffer.fill(7);
            io.write(Token::default(), file, block * 4096, buffer, on_written);
        }
        io.crash(CrashMode::Kill);
        while io.doom() == Doom::Ending {
            io.run(&mut echo, None);
        }
        assert_eq!(echo.errors, 8, "the doomed world hears of no success");
        io.restart();
        let crashed_at = io.now();
        let waiting = io.next_event().is_some();
        let mut next = Echo::default();
        io.open(Token::default(), Path::new("log"), DIRECT, on_opened);
        while next.file.is_none() {
            io.run(&mut next, None);
        }
        // Who has the lock has the file for itself: nothing lands behind its back.
        let landed = io.trace().count(Kind::LateLanding).events;
        assert_eq!(landed > 0, waiting);
        assert!(io.now().since(crashed_at) < 1_100_000_000);
        let before = io.disk().bytes(Path::new("log"));
        let until = io.now().after(2_000_000_000);
        drive(&mut io, &mut next, &mut [], until);
        assert_eq!(io.disk().bytes(Path::new("log")), before);
        assert_eq!(io.disk().open_count(), 1);
        late_count += landed;
    }
    assert!(late_count > 30, "{late_count}");
}

#[test]
fn a_power_loss_takes_late_writes_along() {
    for seed in 0..30 {
        let mut io = World::new(seed, Faults::calm());
        let mut echo = Echo::default();
        io.open(Token::default(), Path::new("log"), DIRECT, on_opened);
        while echo.file.is_none() {
            io.run(&mut echo, None);
        }
        let file = echo.file.expect("opened");
        io.write(Token::default(), file, 0, Buffer::zeroed(4096), on_written);
        for mode in [CrashMode::Kill, CrashMode::Kill, CrashMode::PowerGarbage] {
            io.crash(mode);
            while io.doom() == Doom::Ending {
                io.run(&mut echo, None);
            }
            io.restart();
        }
        assert_eq!(io.disk().open_count(), 0);
        let until = io.now().after(5_000_000_000);
        drive(&mut io, &mut echo, &mut [], until);
        assert_eq!(io.trace().count(Kind::LateLanding).events, 0);
    }
}

#[test]
fn a_connection_asked_for_before_a_crash_finds_the_next_process() {
    let (mut io, mut echo) = started(5, Faults::calm());
    let address = echo.address.expect("listening");
    let mut talkers = vec![Talker::connect(&mut io, address, speech(100))];
    io.crash(CrashMode::Kill);
    while io.doom() == Doom::Ending {
        io.run(&mut echo, None);
    }
    io.restart();
    assert_eq!((io.lives(), io.life_of(talkers[0].socket)), (1, None), "nobody has heard it");
    let mut next = Echo::default();
    next.start(&mut io);
    while io.life_of(talkers[0].socket).is_none() {
        io.run(&mut next, None);
    }
    assert_eq!(io.life_of(talkers[0].socket), Some(1));
    let until = io.now().after(5_000_000_000);
    drive(&mut io, &mut next, &mut talkers, until);
    assert!(talkers[0].heard == speech(100));
}

/// Three lives of a server in a world with faults, each ended by a crash; returns the trace hash.
fn three_lives(seed: u64) -> u64 {
    // The little server waits for its file for ever.
    let faults = Faults { read_only_at_ns: 0, open_error_per_million: 0, ..Faults::swarm(seed) };
    let mut io = World::new(seed, faults);
    for life in 0..3 {
        let mut echo = Echo { stubborn: true, ..Echo::default() };
        echo.start(&mut io);
        while echo.file.is_none() {
            io.run(&mut echo, None);
        }
        echo.stubborn = false;
        let address = echo.address.expect("listening");
        let mut talkers: Vec<Talker> =
            (0..3).map(|_| Talker::connect(&mut io, address, speech(4_000))).collect();
        let mode = CrashMode::ALL[(seed + life) as usize % 6];
        io.crash_at(io.trace().sequence() + 20 + seed, mode);
        let until = io.now().after(60_000_000_000);
        drive(&mut io, &mut echo, &mut talkers, until);
        if io.doom() == Doom::Alive {
            io.crash(mode);
            while io.doom() == Doom::Ending {
                io.run(&mut echo, None);
            }
        }
        for talker in &talkers {
            assert!(speech(4_000).starts_with(&talker.heard), "seed {seed}");
        }
        assert_eq!((io.doom(), echo.unsound), (Doom::Ended, 0), "seed {seed}");
        io.restart();
    }
    io.trace_hash()
}

#[test]
fn worlds_with_faults_and_crashes_are_the_same_twice() {
    for seed in 0..60 {
        assert_eq!(three_lives(seed), three_lives(seed), "seed {seed}");
    }
}

/// What a plan lets fail: the errors of five writes, in order.
fn planned(fault: Option<PlannedFault>) -> Vec<Option<i32>> {
    #[derive(Default)]
    struct Heard(Vec<Option<i32>>);
    fn heard(heard: &mut Heard, _: &mut SimulatedIo<Heard>, _: Token, written: Transferred) {
        heard.0.push(written.result.err().and_then(|error| error.raw_os_error()));
    }
    let mut io = SimulatedIo::<Heard>::new(1, Faults::calm());
    let file = io.disk_mut().open(Path::new("log"), LOG).expect("it opens").0;
    if let Some(fault) = fault {
        io.plan_fault(fault);
    }
    let mut world = Heard::default();
    for index in 0..5 {
        let mut buffer = Buffer::zeroed(4_096);
        buffer.set_len(4_096);
        io.write(Token::default(), file, index * 4_096, buffer, heard);
        while io.in_flight() > 0 {
            io.run(&mut world, None);
        }
    }
    assert_eq!(io.planned_fault_struck(), world.0.iter().any(Option::is_some));
    io.close_file(file);
    world.0
}

#[test]
fn a_planned_fault_strikes_the_nth_operation_of_its_class_once_or_for_ever() {
    let write = PlannedFault { operation: OperationClass::Write, nth: 3, forever: false };
    let eio = Some(5);
    assert_eq!(planned(None), [None; 5]);
    assert_eq!(planned(Some(write)), [None, None, eio, None, None]);
    let forever = PlannedFault { forever: true, ..write };
    assert_eq!(planned(Some(forever)), [None, None, eio, eio, eio]);
    assert_eq!(planned(Some(PlannedFault { nth: 6, ..write })), [None; 5]);
    let read = PlannedFault { operation: OperationClass::Read, nth: 1, forever: true };
    assert_eq!(planned(Some(read)), [None; 5]);
}
