//! One script that checks the seam's promises on any Io: both kernel Ios and the simulated one.
//!
//! Owns the world that records every answer, and the script's steps. Knows no kernel: the Io under
//! test brings its own clock, and the outside peer of its network is a [`Peer`].
//!
//! That no callback runs inside a submit needs no check: a submit is not given the world. The
//! rest is asserted, so a broken promise ends the script with the line that found it.

mod disk;
mod network;
mod outside;
mod wheel;

pub use outside::Outside;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use super::{Accepted, Done, Instant, Io, Opened, Received, Sent, Token, Transferred};

/// Rounds in which an answer must come: of at most [`ROUND_NS`] each, so it waits for 60 s.
const ROUNDS_MAX: u32 = 60_000;

/// How long one round of the script waits for a completion.
const ROUND_NS: u64 = 1_000_000;

/// Rounds in which nothing may happen, before the script believes that nothing will.
const QUIET_ROUNDS: u32 = 20;

/// The outside end of a connection. Nothing here waits: what cannot be done now answers
/// `WouldBlock`, and the script turns the Io's wheel before it tries again.
pub trait Peer<I> {
    /// One connection, seen from outside.
    type Connection;

    /// Start to connect; the listener need not have accepted when this returns.
    ///
    /// # Errors
    /// If nobody listens there.
    fn connect(&mut self, io: &mut I, address: SocketAddr) -> io::Result<Self::Connection>;

    /// Send some of `bytes`; returns how many.
    ///
    /// # Errors
    /// `WouldBlock` if none can be sent now; else the connection is broken.
    fn send(
        &mut self,
        io: &mut I,
        connection: &mut Self::Connection,
        bytes: &[u8],
    ) -> io::Result<usize>;

    /// Receive into `bytes`; returns how many, 0 when the other end sends no more.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there now; else the connection is broken.
    fn receive(
        &mut self,
        io: &mut I,
        connection: &mut Self::Connection,
        bytes: &mut [u8],
    ) -> io::Result<usize>;

    /// Send no more.
    fn shutdown(&mut self, io: &mut I, connection: &mut Self::Connection);

    /// Close both ways.
    fn close(&mut self, io: &mut I, connection: Self::Connection);
}

/// What a callback was told.
#[derive(Debug)]
enum Answer {
    Accepted(Accepted),
    Received(Received),
    Sent(Sent),
    Opened(Opened),
    Transferred(Transferred),
    Done(Done),
}

/// The world of the script: remembers who was told what.
#[derive(Debug, Default)]
pub struct ConformanceWorld {
    /// Answers that the script has not looked at yet, by token index.
    answers: BTreeMap<u32, Answer>,
    /// Per token index: whether it was called back.
    called: Vec<bool>,
    called_count: u32,
}

impl ConformanceWorld {
    fn record(&mut self, token: Token, answer: Answer) {
        assert_eq!(token.generation, generation(token.index), "a token came back changed");
        let called = self.called.get_mut(token.index as usize);
        let called = called.expect("a callback for an operation that was never submitted");
        assert!(!*called, "a callback ran twice");
        *called = true;
        self.called_count += 1;
        self.answers.insert(token.index, answer);
    }
}

/// Some number that differs from token to token, to see that tokens come back whole.
fn generation(index: u32) -> u32 {
    index.wrapping_mul(0x9e37_79b9).wrapping_add(7)
}

fn on_accepted<I>(world: &mut ConformanceWorld, _: &mut I, token: Token, accepted: Accepted) {
    world.record(token, Answer::Accepted(accepted));
}

fn on_received<I>(world: &mut ConformanceWorld, _: &mut I, token: Token, received: Received) {
    world.record(token, Answer::Received(received));
}

fn on_sent<I>(world: &mut ConformanceWorld, _: &mut I, token: Token, sent: Sent) {
    world.record(token, Answer::Sent(sent));
}

fn on_opened<I>(world: &mut ConformanceWorld, _: &mut I, token: Token, opened: Opened) {
    world.record(token, Answer::Opened(opened));
}

fn on_transferred<I>(world: &mut ConformanceWorld, _: &mut I, token: Token, moved: Transferred) {
    world.record(token, Answer::Transferred(moved));
}

fn on_done<I>(world: &mut ConformanceWorld, _: &mut I, token: Token, done: Done) {
    world.record(token, Answer::Done(done));
}

/// Check every promise. `make` returns a fresh Io on an empty data folder, and its outside peer,
/// each time it is called; the Ios are used one after the other.
///
/// # Panics
/// At the first promise that is broken.
pub fn check<I, P>(make: &mut dyn FnMut() -> (I, P))
where
    I: Io<ConformanceWorld>,
    P: Peer<I>,
{
    let steps: [fn(&mut Script<I, P>); 22] = [
        wheel::time_and_entropy,
        wheel::deadlines,
        wheel::many_at_once,
        wheel::callbacks_submit,
        disk::open_creates_and_measures,
        disk::bytes_read_back,
        disk::sizes,
        disk::direct_and_data_sync,
        disk::unnamed_files,
        disk::lock_is_exclusive,
        disk::names,
        disk::dead_file_ids,
        network::listen_binds,
        network::echo_through_small_buffers,
        network::receive_appends,
        network::half_close,
        network::close_ends_a_receive,
        network::close_ends_a_send,
        network::vanished_peer,
        network::close_listener_ends_accepts,
        network::many_connections,
        network::dead_socket_ids,
    ];
    for step in steps {
        let (io, peer) = make();
        let mut script = Script::new(io, peer);
        step(&mut script);
        script.end();
    }
    let (io, peer) = make();
    wheel::drop_with_operations_in_flight(Script::new(io, peer));
}

/// An Io under test, the outside, and what was said so far.
struct Script<I, P> {
    io: I,
    peer: P,
    world: ConformanceWorld,
}

impl<I, P> Script<I, P>
where
    I: Io<ConformanceWorld>,
    P: Peer<I>,
{
    fn new(io: I, peer: P) -> Self {
        let world = ConformanceWorld::default();
        Script { io, peer, world }
    }

    /// Submit one operation under a token of its own.
    fn submit(&mut self, act: impl FnOnce(&mut I, Token)) -> Token {
        let index = u32::try_from(self.world.called.len()).expect("a short script");
        let generation = generation(index);
        let token = Token { index, generation };
        self.world.called.push(false);
        let before = self.io.in_flight();
        act(&mut self.io, token);
        assert_eq!(self.io.in_flight(), before + 1, "a submitted operation is in flight");
        token
    }

    /// Turn the wheel once.
    fn round(&mut self) {
        let deadline = self.io.now().after(ROUND_NS);
        let called_before = self.world.called_count;
        let in_flight_before = self.io.in_flight();
        self.io.run(&mut self.world, Some(deadline));
        let called = (self.world.called_count - called_before) as usize;
        assert_eq!(self.io.in_flight() + called, in_flight_before, "each callback counts down");
    }

    fn answered(&self, token: Token) -> bool {
        self.world.answers.contains_key(&token.index)
    }

    /// Turn the wheel until the operation is answered.
    fn answer(&mut self, token: Token) -> Answer {
        for _ in 0..ROUNDS_MAX {
            if let Some(answer) = self.world.answers.remove(&token.index) {
                return answer;
            }
            self.round();
        }
        panic!("operation {} was never answered", token.index);
    }

    /// Turn the wheel for a while; what is pending is expected to stay so.
    fn stay_quiet(&mut self) {
        for _ in 0..QUIET_ROUNDS {
            self.round();
        }
    }

    fn done(&mut self, act: impl FnOnce(&mut I, Token)) -> io::Result<()> {
        let token = self.submit(act);
        match self.answer(token) {
            Answer::Done(done) => done.result,
            other => panic!("another operation's answer: {other:?}"),
        }
    }

    fn now(&self) -> Instant {
        self.io.now()
    }

    /// Nothing is left over, and nothing comes late.
    fn end(mut self) {
        assert_eq!(self.io.in_flight(), 0, "operations are left over");
        let called_count = self.world.called_count;
        self.stay_quiet();
        assert_eq!(self.world.called_count, called_count, "a callback came late");
        assert_eq!(self.world.called.len(), called_count as usize, "a callback never ran");
        assert!(self.world.answers.is_empty(), "an answer that nobody looked at");
    }
}
