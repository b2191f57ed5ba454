//! The simulated network: byte streams between simulated clients and the server.
//!
//! Owns listeners, connections and their two [`Pipe`]s. Knows the time only as an argument, and
//! asks for events through an outbox that the Io empties: packets to deliver, operations that may
//! go on now, clients to wake. Operations of the server wait at the Io, not here.
//!
//! The client's side outlives a crash of the server: its connections are reset a little later, or,
//! after a power loss, when the next packet finds nobody.

mod client;
mod connection;
mod pipe;
mod weather;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use storage::io::{Instant, ListenerId, SocketId};

use crate::draws::{Draws, Span, Stream};
use crate::faults::{FaultKind, Faults};
use crate::limits::{BACKLOG_MAX, SEGMENTS_PER_SEND_MAX};
use connection::{Connection, End, Side, Stage};
use pipe::Segment;

/// A client's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientSocket(pub u64);

/// Why a client is woken. A wake is a hint: the client tries its calls again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The connection is established.
    Connected(ClientSocket),
    /// Nobody listens there, or the backlog is full.
    Refused(ClientSocket),
    /// There is something to receive: bytes, the end, or a reset.
    Readable(ClientSocket),
    /// There is room to send again.
    Writable(ClientSocket),
    /// A time that the client asked for has come.
    Timer(u64),
}

/// What the network asks the Io for.
#[derive(Debug)]
pub(crate) enum Signal {
    /// Call [`Network::deliver`] with it at that instant.
    At(Instant, Packet),
    /// An accept on this listener may go on.
    Acceptable(ListenerId),
    /// A receive on this socket may go on.
    Receivable(SocketId),
    /// A send on this socket may go on.
    Sendable(SocketId),
    /// A client is woken.
    Wake(Wake),
    /// A fault struck that connection.
    Injected(FaultKind, u64),
}

/// Something on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// A client asks for a connection.
    Ask(u64),
    /// It was granted.
    Grant(u64),
    /// It was refused.
    Refuse(u64),
    /// The next segment towards that side.
    Segment(u64, Side),
    /// No packet: the connection stands still until then.
    Clog(u64, Instant),
}

impl Packet {
    pub fn connection(self) -> u64 {
        match self {
            Packet::Ask(id) | Packet::Grant(id) | Packet::Refuse(id) => id,
            Packet::Segment(id, _) | Packet::Clog(id, _) => id,
        }
    }
}

/// The world around a call.
pub(crate) struct Surroundings<'a> {
    pub now: Instant,
    pub draws: &'a mut Draws,
    pub faults: &'a Faults,
}

#[derive(Debug)]
struct Listener {
    address: SocketAddr,
    backlog: VecDeque<u64>,
}

#[derive(Debug)]
struct SocketSlot {
    generation: u32,
    connection: Option<u64>,
}

/// Listeners, connections, sockets.
#[derive(Debug, Default)]
pub(crate) struct Network {
    listeners: BTreeMap<ListenerId, Listener>,
    next_listener: u32,
    next_port: u16,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    sockets: Vec<SocketSlot>,
    free_sockets: Vec<u32>,
    /// Lives of the server that have ended.
    pub lives: u64,
    pub outbox: Vec<Signal>,
}

/// First port given out where 0 was asked for.
const FIRST_FREE_PORT: u16 = 40_000;

/// Streams of a connection, forgotten with it.
const CONNECTION_STREAMS: [Stream; 6] = [
    Stream::NetworkLatency,
    Stream::Segments,
    Stream::NetworkCount,
    Stream::Connection,
    Stream::Readiness,
    Stream::Weather,
];

impl Network {
    /// As `Network::listen` of the seam.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        let mut address = address;
        if address.port() == 0 {
            address.set_port(self.free_port(address)?);
        }
        if self.listener_at(address).is_some() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = ListenerId(self.next_listener);
        self.next_listener += 1;
        self.listeners.insert(id, Listener { address, backlog: VecDeque::new() });
        Ok((id, address))
    }

    fn free_port(&mut self, address: SocketAddr) -> io::Result<u16> {
        for _ in FIRST_FREE_PORT..=u16::MAX {
            let port = self.next_port.max(FIRST_FREE_PORT);
            self.next_port = port.wrapping_add(1);
            let mut candidate = address;
            candidate.set_port(port);
            if self.listener_at(candidate).is_none() {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn listener_at(&self, address: SocketAddr) -> Option<ListenerId> {
        let at = |listener: &Listener| {
            let any = listener.address.ip().is_unspecified() || address.ip().is_unspecified();
            let same_ip = any || listener.address.ip() == address.ip();
            same_ip && listener.address.port() == address.port()
        };
        let mut listeners = self.listeners.iter();
        listeners.find(|(_, listener)| at(listener)).map(|(id, _)| *id)
    }

    pub fn is_listening(&self, listener: ListenerId) -> bool {
        self.listeners.contains_key(&listener)
    }

    pub fn has_backlog(&self, listener: ListenerId) -> bool {
        let found = self.listeners.get(&listener);
        found.is_some_and(|listener| !listener.backlog.is_empty())
    }

    /// Take a connection from the backlog; `None` if there is none.
    pub fn accept(
        &mut self,
        listener: ListenerId,
        around: &mut Surroundings<'_>,
    ) -> Option<io::Result<(SocketId, SocketAddr)>> {
        let id = self.listeners.get_mut(&listener)?.backlog.pop_front()?;
        let Some(connection) = self.connections.get(&id) else {
            return Some(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        if connection.toward(Side::Server).reset_arrived {
            self.drop_end(id, Side::Server);
            self.forget_if_over(id, around);
            return Some(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let peer = connection.client_address;
        let socket = self.add_socket(id);
        self.connection_mut(id).socket = Some(socket);
        Some(Ok((socket, peer)))
    }

    fn add_socket(&mut self, connection: u64) -> SocketId {
        let index = self.free_sockets.pop().unwrap_or_else(|| {
            self.sockets.push(SocketSlot { generation: 0, connection: None });
            (self.sockets.len() - 1) as u32
        });
        let slot = &mut self.sockets[index as usize];
        assert!(slot.connection.is_none());
        slot.connection = Some(connection);
        SocketId { index, generation: slot.generation }
    }

    /// The connection of an open socket of the server's.
    pub fn connection_of(&self, socket: SocketId) -> Option<u64> {
        let slot = self.sockets.get(socket.index as usize)?;
        let connection = slot.connection.filter(|_| slot.generation == socket.generation)?;
        Some(connection)
    }

    /// Open sockets of the server.
    pub fn socket_count(&self) -> usize {
        self.sockets.len() - self.free_sockets.len()
    }

    /// Connections of which either side is still there.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    fn connection_mut(&mut self, id: u64) -> &mut Connection {
        self.connections.get_mut(&id).expect("the connection is there")
    }

    /// Whether a receive of the server's would not wait.
    pub fn is_receivable(&self, socket: SocketId) -> bool {
        let Some(id) = self.connection_of(socket) else {
            return true;
        };
        self.connections[&id].toward(Side::Server).is_readable()
    }

    /// Whether a send of the server's would not wait.
    pub fn is_sendable(&self, socket: SocketId) -> bool {
        let Some(id) = self.connection_of(socket) else {
            return true;
        };
        self.connections[&id].may_send(Side::Server)
    }

    /// Receive up to `limit` bytes at the server's side; empty at the end of the stream.
    pub fn receive(
        &mut self,
        socket: SocketId,
        limit: usize,
        around: &mut Surroundings<'_>,
    ) -> io::Result<Vec<u8>> {
        let id = self.connection_of(socket);
        let id = id.ok_or(io::ErrorKind::NotConnected)?;
        self.receive_at(id, Side::Server, limit, around)
    }

    /// Send at the server's side; returns how many bytes went.
    pub fn send(
        &mut self,
        socket: SocketId,
        bytes: &[u8],
        around: &mut Surroundings<'_>,
    ) -> io::Result<usize> {
        let id = self.connection_of(socket);
        let id = id.ok_or(io::ErrorKind::NotConnected)?;
        self.send_at(id, Side::Server, bytes, around)
    }

    fn receive_at(
        &mut self,
        id: u64,
        side: Side,
        limit: usize,
        around: &mut Surroundings<'_>,
    ) -> io::Result<Vec<u8>> {
        let connection = self.connections.get_mut(&id);
        let connection = connection.ok_or(io::ErrorKind::NotConnected)?;
        connection.check_established(side)?;
        let pipe = connection.toward_mut(side);
        if pipe.arrived_bytes() == 0 {
            return match (pipe.reset_arrived, pipe.fin_arrived) {
                (true, _) => Err(io::ErrorKind::ConnectionReset.into()),
                (false, true) => Ok(Vec::new()),
                (false, false) => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        let whole = limit.min(pipe.arrived_bytes());
        assert!(whole > 0);
        let count = self.short(id, side, whole, around);
        let pipe = self.connection_mut(id).toward_mut(side);
        let was_full = pipe.space() == 0;
        let bytes = pipe.take(count);
        if was_full {
            self.tell_writable(id, side.other());
        }
        Ok(bytes)
    }

    /// The window towards the other side has room again.
    fn tell_writable(&mut self, id: u64, side: Side) {
        let connection = &self.connections[&id];
        match (side, connection.socket) {
            (Side::Client, _) => {
                let wake = Wake::Writable(ClientSocket(id));
                self.outbox.push(Signal::Wake(wake));
            }
            (Side::Server, Some(socket)) => self.outbox.push(Signal::Sendable(socket)),
            (Side::Server, None) => {}
        }
    }

    fn tell_readable(&mut self, id: u64, side: Side) {
        let connection = &self.connections[&id];
        match (side, connection.socket) {
            (Side::Client, _) => {
                let wake = Wake::Readable(ClientSocket(id));
                self.outbox.push(Signal::Wake(wake));
            }
            (Side::Server, Some(socket)) => self.outbox.push(Signal::Receivable(socket)),
            (Side::Server, None) => {}
        }
    }

    fn send_at(
        &mut self,
        id: u64,
        side: Side,
        bytes: &[u8],
        around: &mut Surroundings<'_>,
    ) -> io::Result<usize> {
        let connection = self.connections.get(&id);
        let connection = connection.ok_or(io::ErrorKind::NotConnected)?;
        connection.check_established(side)?;
        let end = connection.end(side);
        if end.shut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if connection.toward(side).reset_arrived {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if bytes.is_empty() {
            return Ok(0);
        }
        let whole = connection.toward(side.other()).space().min(bytes.len());
        if whole == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = self.short(id, side, whole, around);
        for piece in self.cut(id, &bytes[..count], around) {
            if self.befall(id, around) {
                break;
            }
            self.dispatch(id, side.other(), Segment::Bytes(piece), around);
        }
        Ok(count)
    }

    /// Cut a send into segments, tiny ones on the connections that were drawn so.
    fn cut(&self, id: u64, bytes: &[u8], around: &mut Surroundings<'_>) -> Vec<Vec<u8>> {
        let tiny = self.connections[&id].tiny_segments;
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() && pieces.len() + 1 < SEGMENTS_PER_SEND_MAX {
            let longest = if tiny { rest.len().min(7) } else { rest.len() };
            let shape = around.draws.below(Stream::Segments, id, 4);
            let length = match shape {
                0 => 1,
                1 => around.draws.index(Stream::Segments, id, longest) + 1,
                _ => longest,
            };
            let (piece, after) = rest.split_at(length);
            pieces.push(piece.to_vec());
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(rest.to_vec());
        }
        pieces
    }

    /// Put a segment on its way, behind those before it.
    fn dispatch(&mut self, id: u64, toward: Side, segment: Segment, around: &mut Surroundings<'_>) {
        let connection = self.connections.get_mut(&id).expect("the connection is there");
        let mean = connection.latency_mean_ns;
        let travel = around.draws.exponential(Stream::NetworkLatency, id, mean);
        let pipe = connection.toward_mut(toward);
        let arrival = around.now.after(travel + 1).max(pipe.last_arrival);
        pipe.last_arrival = arrival;
        pipe.depart(segment);
        self.outbox.push(Signal::At(arrival, Packet::Segment(id, toward)));
    }

    /// A packet arrives.
    pub fn deliver(&mut self, packet: Packet, around: &mut Surroundings<'_>) {
        if !self.connections.contains_key(&packet.connection()) {
            return;
        }
        match packet {
            Packet::Ask(id) => self.answer_ask(id, around),
            Packet::Grant(id) => {
                let connection = self.connection_mut(id);
                if connection.stage == Stage::Asked {
                    connection.stage = Stage::Established;
                    let wake = Wake::Connected(ClientSocket(id));
                    self.outbox.push(Signal::Wake(wake));
                }
            }
            Packet::Refuse(id) => {
                self.connection_mut(id).stage = Stage::Refused;
                let wake = Wake::Refused(ClientSocket(id));
                self.outbox.push(Signal::Wake(wake));
            }
            Packet::Segment(id, toward) => self.deliver_segment(id, toward, around),
            Packet::Clog(id, until) => self.clog(id, until),
        }
        self.forget_if_over(packet.connection(), around);
    }

    fn answer_ask(&mut self, id: u64, around: &mut Surroundings<'_>) {
        let connection = self.connection_mut(id);
        connection.answered = true;
        let travel = connection.latency_mean_ns;
        let address = connection.server_address;
        let arrival = around.now.after(travel + 1);
        let listener = self.listener_at(address);
        let backlog = listener.map_or(0, |listener| self.listeners[&listener].backlog.len());
        let is_full = backlog >= BACKLOG_MAX;
        if is_full {
            self.outbox.push(Signal::Injected(FaultKind::BacklogFull, id));
        }
        let listener = listener.filter(|_| !is_full);
        let Some(listener) = listener else {
            self.connection_mut(id).end_mut(Side::Server).closed = true;
            self.outbox.push(Signal::At(arrival, Packet::Refuse(id)));
            return;
        };
        let found = self.listeners.get_mut(&listener).expect("just found");
        found.backlog.push_back(id);
        self.connection_mut(id).life = Some(self.lives);
        // The server may answer at once; the client hears of the connection first.
        self.connection_mut(id).toward_mut(Side::Client).last_arrival = arrival.after(1);
        self.outbox.push(Signal::At(arrival, Packet::Grant(id)));
        self.outbox.push(Signal::Acceptable(listener));
    }

    fn deliver_segment(&mut self, id: u64, toward: Side, around: &mut Surroundings<'_>) {
        let connection = self.connection_mut(id);
        if connection.clogged_until > around.now {
            let at = connection.clogged_until;
            self.outbox.push(Signal::At(at, Packet::Segment(id, toward)));
            return;
        }
        let End { closed, vanished, .. } = *connection.end(toward);
        let Some(segment) = connection.toward_mut(toward).arrive() else {
            return;
        };
        if vanished {
            // Nobody answers: the sender's window stays full for ever.
            if let Segment::Bytes(bytes) = segment {
                connection.toward_mut(toward).keep(&bytes);
            }
            return;
        }
        let pipe = connection.toward_mut(toward);
        match segment {
            Segment::Bytes(_) if closed => {
                if !connection.end(toward).reset_sent {
                    connection.end_mut(toward).reset_sent = true;
                    self.dispatch(id, toward.other(), Segment::Reset, around);
                }
                return;
            }
            Segment::Bytes(_) if pipe.reset_arrived => return,
            Segment::Bytes(bytes) => pipe.keep(&bytes),
            Segment::Fin => pipe.fin_arrived = true,
            Segment::Reset => {
                pipe.reset();
                if !closed {
                    self.tell_writable(id, toward);
                }
            }
        }
        if !closed {
            self.tell_readable(id, toward);
        }
    }

    /// As `Network::shutdown` of the seam.
    pub fn shutdown(&mut self, socket: SocketId, around: &mut Surroundings<'_>) {
        if let Some(id) = self.connection_of(socket) {
            self.shut(id, Side::Server, around);
        }
    }

    fn shut(&mut self, id: u64, side: Side, around: &mut Surroundings<'_>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let gone = connection.toward(side).reset_arrived || connection.end(side).closed;
        if gone || std::mem::replace(&mut connection.end_mut(side).shut, true) {
            return;
        }
        self.dispatch(id, side.other(), Segment::Fin, around);
    }

    /// As `Network::close_socket` of the seam; the socket must be open.
    pub fn close(&mut self, socket: SocketId, around: &mut Surroundings<'_>) {
        let id = self.connection_of(socket).expect("the socket is open");
        let slot = &mut self.sockets[socket.index as usize];
        slot.connection = None;
        slot.generation += 1;
        self.free_sockets.push(socket.index);
        self.connection_mut(id).socket = None;
        self.close_end(id, Side::Server, around);
    }

    /// Close one end: a FIN, or a reset if there were bytes that nobody read.
    fn close_end(&mut self, id: u64, side: Side, around: &mut Surroundings<'_>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.end(side).closed {
            return;
        }
        if connection.toward(side).arrived_bytes() > 0 {
            self.reset_end(id, side, around);
            return;
        }
        self.shut(id, side, around);
        self.drop_end(id, side);
        self.forget_if_over(id, around);
    }

    fn reset_end(&mut self, id: u64, side: Side, around: &mut Surroundings<'_>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.end(side).closed {
            return;
        }
        if !std::mem::replace(&mut connection.end_mut(side).reset_sent, true) {
            self.dispatch(id, side.other(), Segment::Reset, around);
        }
        self.drop_end(id, side);
        self.forget_if_over(id, around);
    }

    fn drop_end(&mut self, id: u64, side: Side) {
        let connection = self.connection_mut(id);
        connection.end_mut(side).closed = true;
        let pipe = connection.toward_mut(side);
        let unread = pipe.arrived_bytes();
        drop(pipe.take(unread));
    }

    /// Forget a connection when both ends are closed and nothing is under way.
    fn forget_if_over(&mut self, id: u64, around: &mut Surroundings<'_>) {
        if self.connections.get(&id).is_some_and(Connection::is_over) {
            self.connections.remove(&id);
            around.draws.retire(&CONNECTION_STREAMS, id);
        }
    }

    /// As `Network::close_listener` of the seam: those in the backlog are reset.
    pub fn close_listener(&mut self, listener: ListenerId, around: &mut Surroundings<'_>) {
        let listener = self.listeners.remove(&listener);
        for id in listener.expect("the listener is open").backlog {
            self.reset_end(id, Side::Server, around);
        }
    }

    /// The server's process died. After a kill the kernel resets its connections; after a power
    /// loss nobody answers until the machine is back, up to two seconds later.
    pub fn crash(&mut self, power: bool, around: &mut Surroundings<'_>) {
        self.lives += 1;
        self.listeners.clear();
        for slot in self.sockets.iter_mut() {
            if slot.connection.take().is_some() {
                slot.generation += 1;
            }
        }
        self.free_sockets = (0..self.sockets.len() as u32).rev().collect();
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for id in ids {
            let connection = self.connection_mut(id);
            if !connection.answered {
                // Its question is still under way, and finds the next process, or nobody.
                continue;
            }
            connection.socket = None;
            if power {
                let span = Span::new(1, 2_000_000_000);
                let delay = around.draws.within(Stream::Connection, id, span);
                let pipe = self.connection_mut(id).toward_mut(Side::Client);
                pipe.last_arrival = pipe.last_arrival.max(around.now.after(delay));
            }
            self.reset_end(id, Side::Server, around);
        }
    }
}
