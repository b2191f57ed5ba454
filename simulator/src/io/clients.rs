//! The clients' side of the world: sockets that answer at once, wakes, timers.

use std::io;
use std::net::SocketAddr;

use storage::io::Instant;

use super::SimulatedIo;
use super::operation::Event;
use crate::network::{ClientSocket, Wake};
use crate::trace::{Kind, hash_bytes};

impl<W> SimulatedIo<W> {
    /// A client connects. It hears by [`Wake::Connected`] or [`Wake::Refused`].
    pub fn client_connect(&mut self, address: SocketAddr) -> ClientSocket {
        let socket = self.with_network(|network, around| network.connect(address, around));
        self.record(Kind::Client, socket.0, 0, 0, false);
        socket
    }

    /// Lives of the server that have ended: the number of the one that runs.
    #[must_use]
    pub fn lives(&self) -> u64 {
        self.network.lives
    }

    /// In which life of the server this connection was granted, from 0 on; none answers for another.
    /// `None` before that, and once both ends are closed.
    #[must_use]
    pub fn life_of(&self, socket: ClientSocket) -> Option<u64> {
        self.network.life_of(socket)
    }

    /// A client sends; returns how many bytes went.
    ///
    /// # Errors
    /// `WouldBlock` until connected and while the window is full, `ConnectionReset` and
    /// `BrokenPipe` as usual, `NotConnected` on a closed socket.
    pub fn client_send(&mut self, socket: ClientSocket, bytes: &[u8]) -> io::Result<usize> {
        let result =
            self.with_network(|network, around| network.client_send(socket, bytes, around));
        let count = *result.as_ref().unwrap_or(&0);
        self.monitor.asked(socket.0, &bytes[..count]);
        let hash = hash_bytes(&bytes[..count]);
        self.record(Kind::Client, socket.0, count as u64, hash, result.is_err());
        result
    }

    /// A client receives up to `limit` bytes (more than 0); none at the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` while there is nothing, `ConnectionReset`, `ConnectionRefused`, `NotConnected`.
    pub fn client_receive(&mut self, socket: ClientSocket, limit: usize) -> io::Result<Vec<u8>> {
        let result =
            self.with_network(|network, around| network.client_receive(socket, limit, around));
        let bytes = result.as_deref().unwrap_or(&[]);
        let (length, hash) = (bytes.len() as u64, hash_bytes(bytes));
        self.record(Kind::Client, socket.0, length, hash, result.is_err());
        result
    }

    /// A client sends no more, and still receives.
    pub fn client_shutdown(&mut self, socket: ClientSocket) {
        self.record(Kind::Client, socket.0, 1, 0, false);
        self.with_network(|network, around| network.client_shutdown(socket, around));
    }

    /// A client closes: a FIN, or a reset if it left bytes unread.
    pub fn client_close(&mut self, socket: ClientSocket) {
        self.record(Kind::Client, socket.0, 2, 0, false);
        self.with_network(|network, around| network.client_close(socket, around));
    }

    /// A client resets the connection.
    pub fn client_reset(&mut self, socket: ClientSocket) {
        self.record(Kind::Client, socket.0, 3, 0, false);
        self.with_network(|network, around| network.client_reset(socket, around));
    }

    /// A client disappears without a word.
    pub fn client_vanish(&mut self, socket: ClientSocket) {
        self.record(Kind::Client, socket.0, 4, 0, false);
        self.with_network(|network, around| network.client_vanish(socket, around));
    }

    /// Wake the clients' side at `at` with [`Wake::Timer`] and this tag.
    pub fn wake_at(&mut self, at: Instant, tag: u64) {
        self.schedule(at, Event::Timer(tag));
    }

    /// The next wake for the clients' side, if there is one.
    pub fn next_wake(&mut self) -> Option<Wake> {
        self.wakes.pop_front()
    }
}
