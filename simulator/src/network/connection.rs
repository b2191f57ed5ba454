//! One connection: two ends, two pipes, and what was drawn for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use storage::io::Instant;

use super::Surroundings;
use super::pipe::Pipe;
use crate::draws::Stream;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Asked,
    Established,
    Refused,
}

/// The state of one end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct End {
    /// Sends no more.
    pub shut: bool,
    /// Sends and receives no more.
    pub closed: bool,
    /// Is gone without having said so.
    pub vanished: bool,
    /// Has sent a reset.
    pub reset_sent: bool,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    ends: [End; 2],
    pipes: [Pipe; 2],
    pub stage: Stage,
    /// The server's machine has answered: granted or refused.
    pub answered: bool,
    /// In which life of the server it was granted; it ends with that.
    pub life: Option<u64>,
    pub socket: Option<storage::io::SocketId>,
    pub server_address: SocketAddr,
    pub client_address: SocketAddr,
    pub latency_mean_ns: u64,
    pub tiny_segments: bool,
    /// Nothing arrives at either end before this instant.
    pub clogged_until: Instant,
}

impl Connection {
    /// Draw the properties of connection `id`.
    pub fn draw(id: u64, server_address: SocketAddr, around: &mut Surroundings<'_>) -> Connection {
        let faults = around.faults;
        let draws = &mut *around.draws;
        let s = Stream::Connection;
        let latency_mean_ns = draws.logarithmic(s, id, faults.network_latency_mean_ns);
        let tiny_segments = draws.chance(s, id, faults.tiny_segments_per_million);
        let mut window = || draws.logarithmic(s, id, faults.window_bytes) as usize;
        let octets = (id as u32).to_be_bytes();
        let ip = Ipv4Addr::new(10, octets[1], octets[2], octets[3]);
        Connection {
            ends: [End::default(); 2],
            pipes: [Pipe::new(window()), Pipe::new(window())],
            stage: Stage::Asked,
            answered: false,
            life: None,
            socket: None,
            server_address,
            client_address: SocketAddr::new(IpAddr::V4(ip), 50_000 + (id >> 24) as u16 % 10_000),
            latency_mean_ns,
            tiny_segments,
            clogged_until: Instant(0),
        }
    }

    pub fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    pub fn end_mut(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// The pipe whose bytes arrive at `side`.
    pub fn toward(&self, side: Side) -> &Pipe {
        &self.pipes[side as usize]
    }

    pub fn toward_mut(&mut self, side: Side) -> &mut Pipe {
        &mut self.pipes[side as usize]
    }

    /// The server's side is established once accepted, the client's when it hears of it.
    pub fn check_established(&self, side: Side) -> io::Result<()> {
        match (self.stage, side) {
            (Stage::Refused, _) => Err(io::ErrorKind::ConnectionRefused.into()),
            (Stage::Asked, Side::Client) => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    }

    /// Whether a send at `side` would not wait.
    pub fn may_send(&self, side: Side) -> bool {
        let gone = self.end(side).shut || self.toward(side).reset_arrived;
        gone || self.toward(side.other()).space() > 0
    }

    /// Nobody can notice this connection any more.
    pub fn is_over(&self) -> bool {
        let left = |end: &End| end.closed || end.vanished;
        let quiet = self.pipes.iter().all(|pipe| !pipe.in_transit());
        self.ends.iter().all(left) && quiet
    }
}
