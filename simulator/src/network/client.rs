//! The clients' ends of connections.

use std::io;
use std::net::SocketAddr;

use super::connection::{Connection, Side};
use super::{ClientSocket, Network, Packet, Signal, Surroundings};

impl Network {
    /// A client asks for a connection.
    pub fn connect(&mut self, address: SocketAddr, around: &mut Surroundings<'_>) -> ClientSocket {
        let id = self.next_connection;
        self.next_connection += 1;
        let connection = Connection::draw(id, address, around);
        let travel = connection.latency_mean_ns;
        self.connections.insert(id, connection);
        self.outbox.push(Signal::At(around.now.after(travel + 1), Packet::Ask(id)));
        ClientSocket(id)
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

    pub fn client_shutdown(&mut self, socket: ClientSocket, around: &mut Surroundings<'_>) {
        self.shut(socket.0, Side::Client, around);
    }

    pub fn client_close(&mut self, socket: ClientSocket, around: &mut Surroundings<'_>) {
        self.close_end(socket.0, Side::Client, around);
    }

    pub fn client_reset(&mut self, socket: ClientSocket, around: &mut Surroundings<'_>) {
        self.reset_end(socket.0, Side::Client, around);
    }

    /// The client disappears without a word: half-open for the server.
    pub fn client_vanish(&mut self, socket: ClientSocket) {
        if let Some(connection) = self.connections.get_mut(&socket.0) {
            connection.end_mut(Side::Client).vanished = true;
        }
    }
}
