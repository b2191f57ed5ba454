//! What befalls connections between their ends. The fault model:
//!
//! - **Short counts**: a send or receive moves fewer bytes than it could, 0-30 % of the calls.
//!   Expected: the rest follows.
//! - **Clog**: a connection stands still for up to 5 s, in both directions; drawn per segment, at
//!   most 0.5 %. Nothing is lost and the order stays. Expected: delay, or a timeout's refusal.
//! - **Swizzle** (FoundationDB): half of the connections there are, 16 at most, are clogged one
//!   after the other and released in another order; at most 0.05 % of the segments begin one.
//! - **Reset under way**: a segment is lost and both ends hear of a reset, at most 0.2 % of the
//!   segments. Expected: the request happened or not, and its stream and transaction end in time.
//! - **Half-open**: a segment is lost, the client's end is gone, and the server never hears of it;
//!   at most 0.1 %. Expected: a timeout frees what the connection held. The client hears at once,
//!   as one does whose machine starts anew.
//! - **Backlog full** and **tiny segments** belong to the connection and are only counted here.
//!
//! Each class is off in half of the swarm's seeds. Outside of the model: bytes changed under way
//! (TCP's checksum and TLS), reordering and loss inside a stream, IPv6, a peer's urgent data.

use super::connection::{Side, Stage};
use super::pipe::Segment;
use super::{ClientSocket, Network, Packet, Signal, Surroundings, Wake};
use crate::draws::{Span, Stream};
use crate::faults::FaultKind;
use storage::io::Instant;

/// Connections of one swizzle.
const SWIZZLED_MAX: usize = 16;

/// Longest time between two steps of a swizzle.
const SWIZZLE_STEP_NS: u64 = 500_000_000;

impl Network {
    /// A segment departs: what befalls it? True if it is lost, with its connection.
    pub(super) fn befall(&mut self, id: u64, around: &mut Surroundings<'_>) -> bool {
        let connection = &self.connections[&id];
        let reset = [Side::Client, Side::Server].map(|side| connection.end(side).reset_sent);
        if connection.end(Side::Client).vanished || reset.contains(&true) {
            // It is broken already.
            return false;
        }
        let faults = around.faults;
        let mut strikes = |rate: u64| around.draws.chance(Stream::Weather, id, rate);
        let clogs = strikes(faults.clog_per_million);
        let swizzles = strikes(faults.swizzle_per_million);
        let resets = strikes(faults.network_reset_per_million);
        let vanishes = strikes(faults.half_open_per_million);
        if clogs {
            let duration = around.draws.within(Stream::Weather, id, faults.clog_ns);
            self.clog(id, around.now.after(duration));
        }
        if swizzles {
            self.swizzle(around);
        }
        if resets {
            self.reset_under_way(id, around);
        } else if vanishes {
            self.lose_client(id);
        }
        resets || vanishes
    }

    /// The connection stands still until then.
    pub(super) fn clog(&mut self, id: u64, until: Instant) {
        let connection = self.connection_mut(id);
        connection.clogged_until = connection.clogged_until.max(until);
        self.outbox.push(Signal::Injected(FaultKind::Clog, id));
    }

    /// Clog some connections one by one, and release them in another order.
    fn swizzle(&mut self, around: &mut Surroundings<'_>) {
        let established = |id: &u64| self.connections[id].stage == Stage::Established;
        let mut chosen: Vec<u64> = self.connections.keys().copied().filter(established).collect();
        around.draws.shuffle(Stream::Swizzle, 0, &mut chosen);
        chosen.truncate(chosen.len().div_ceil(2).min(SWIZZLED_MAX));
        let mut at = around.now;
        let mut step = |around: &mut Surroundings<'_>| {
            let span = Span::new(1, SWIZZLE_STEP_NS);
            at = at.after(around.draws.within(Stream::Swizzle, 1, span));
            at
        };
        let onsets: Vec<Instant> = chosen.iter().map(|_| step(around)).collect();
        let mut releases: Vec<Instant> = chosen.iter().map(|_| step(around)).collect();
        around.draws.shuffle(Stream::Swizzle, 2, &mut releases);
        for ((id, onset), release) in chosen.into_iter().zip(onsets).zip(releases) {
            self.outbox.push(Signal::At(onset, Packet::Clog(id, release)));
        }
    }

    /// Something between the ends resets the connection.
    fn reset_under_way(&mut self, id: u64, around: &mut Surroundings<'_>) {
        self.outbox.push(Signal::Injected(FaultKind::Reset, id));
        for side in [Side::Client, Side::Server] {
            self.connection_mut(id).end_mut(side).reset_sent = true;
            self.dispatch(id, side.other(), Segment::Reset, around);
        }
    }

    /// The client's end is gone, and only the client knows.
    fn lose_client(&mut self, id: u64) {
        self.outbox.push(Signal::Injected(FaultKind::HalfOpen, id));
        self.connection_mut(id).end_mut(Side::Client).vanished = true;
        self.outbox.push(Signal::Wake(Wake::Readable(ClientSocket(id))));
    }

    /// How many of `whole` bytes a call at `side` moves.
    pub(super) fn short(
        &mut self,
        id: u64,
        side: Side,
        whole: usize,
        around: &mut Surroundings<'_>,
    ) -> usize {
        let rate = around.faults.network_short_per_million;
        if !around.draws.chance(Stream::NetworkCount, id, rate) {
            return whole;
        }
        let count = around.draws.index(Stream::NetworkCount, id, whole) + 1;
        if count < whole && side == Side::Server {
            self.outbox.push(Signal::Injected(FaultKind::NetworkShort, id));
        }
        count
    }
}
