//! The clients' ends of connections.

use std::io;
use std::net::SocketAddr;

use super::connection::{Connection, Side};
use super::{ClientSocket, Network, Packet, Signal, Surroundings};
use crate::faults::FaultKind;

impl Network {
    /// A client asks for a connection.
    pub fn connect(&mut self, address: SocketAddr, around: &mut Surroundings<'_>) -> ClientSocket {
        let id = self.next_connection;
        self.next_connection += 1;
        let connection = Connection::draw(id, address, around);
        let travel = connection.latency_mean_ns;
        if connection.tiny_segments {
            self.outbox.push(Signal::Injected(FaultKind::TinySegments, id));
        }
        self.connections.insert(id, connection);
        self.outbox.push(Signal::At(around.now.after(travel + 1), Packet::Ask(id)));
        ClientSocket(id)
    }

    /// In which life of the server the connection was granted, from 0 on.
    pub fn life_of(&self, socket: ClientSocket) -> Option<u64> {
        self.connections.get(&socket.0)?.life
    }

    /// The client's `send`: `WouldBlock` while the window is full.
    pub fn client_send(
        &mut self,
        socket: ClientSocket,
        bytes: &[u8],
        around: &mut Surroundings<'_>,
    ) -> io::Result<usize> {
        self.check_client(socket)?;
        self.send_at(socket.0, Side::Client, bytes, around)
    }

    /// The client's `receive`: empty at the end, `WouldBlock` while there is nothing.
    pub fn client_receive(
        &mut self,
        socket: ClientSocket,
        limit: usize,
        around: &mut Surroundings<'_>,
    ) -> io::Result<Vec<u8>> {
        assert!(limit > 0);
        self.check_client(socket)?;
        self.receive_at(socket.0, Side::Client, limit, around)
    }

    fn check_client(&self, socket: ClientSocket) -> io::Result<()> {
        let connection = self.connections.get(&socket.0);
        let connection = connection.ok_or(io::ErrorKind::NotConnected)?;
        let end = connection.end(Side::Client);
        if end.closed || end.vanished {
            return Err(io::ErrorKind::NotConnected.into());
        }
        Ok(())
    }

    /// The client's end is there and open. A client that lost it may still let go of it.
    fn has_client(&self, socket: ClientSocket) -> bool {
        self.check_client(socket).is_ok()
    }

    pub fn client_shutdown(&mut self, socket: ClientSocket, around: &mut Surroundings<'_>) {
        if self.has_client(socket) {
            self.outbox.push(Signal::Injected(FaultKind::HalfClose, socket.0));
            self.shut(socket.0, Side::Client, around);
        }
    }

    pub fn client_close(&mut self, socket: ClientSocket, around: &mut Surroundings<'_>) {
        if self.has_client(socket) {
            self.close_end(socket.0, Side::Client, around);
        }
    }

    pub fn client_reset(&mut self, socket: ClientSocket, around: &mut Surroundings<'_>) {
        if self.has_client(socket) {
            self.outbox.push(Signal::Injected(FaultKind::Reset, socket.0));
            self.reset_end(socket.0, Side::Client, around);
        }
    }

    /// The client disappears without a word: half-open for the server.
    pub fn client_vanish(&mut self, socket: ClientSocket, around: &mut Surroundings<'_>) {
        if self.has_client(socket) {
            self.outbox.push(Signal::Injected(FaultKind::HalfOpen, socket.0));
            self.connection_mut(socket.0).end_mut(Side::Client).vanished = true;
            self.forget_if_over(socket.0, around);
        }
    }
}
