//! The simulated Io against the conformance script of the kernel Ios, in calm and drawn worlds.

use std::io;
use std::net::SocketAddr;

use simulator::{ClientSocket, Faults, SimulatedIo, Span};
use storage::io::conformance::{ConformanceWorld, Peer, check};

type World = SimulatedIo<ConformanceWorld>;

struct Clients;

impl Peer<World> for Clients {
    type Connection = ClientSocket;

    fn connect(&mut self, io: &mut World, address: SocketAddr) -> io::Result<ClientSocket> {
        Ok(io.client_connect(address))
    }

    fn send(
        &mut self,
        io: &mut World,
        connection: &mut ClientSocket,
        bytes: &[u8],
    ) -> io::Result<usize> {
        io.client_send(*connection, bytes)
    }

    fn receive(
        &mut self,
        io: &mut World,
        connection: &mut ClientSocket,
        bytes: &mut [u8],
    ) -> io::Result<usize> {
        let received = io.client_receive(*connection, bytes.len())?;
        bytes[..received.len()].copy_from_slice(&received);
        Ok(received.len())
    }

    fn shutdown(&mut self, io: &mut World, connection: &mut ClientSocket) {
        io.client_shutdown(*connection);
    }

    fn close(&mut self, io: &mut World, connection: ClientSocket) {
        io.client_close(connection);
    }
}

#[test]
fn a_calm_world_keeps_every_promise() {
    check(&mut || (World::new(1, Faults::calm()), Clients));
}

#[test]
fn drawn_worlds_keep_every_promise() {
    for seed in 0..10 {
        // The script waits a minute at most, so the megabyte that it echoes must not crawl.
        let faults = Faults {
            network_latency_mean_ns: Span::new(10_000, 500_000),
            window_bytes: Span::new(8_192, 1 << 20),
            ..Faults::drawn(seed)
        };
        check(&mut || (World::new(seed, faults), Clients));
    }
}
