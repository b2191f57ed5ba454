//! What one peer address may do before anything is known of it: a pure table of addresses and counts.
//!
//! A connection is a *stranger's* until a request on it has shown a key or token that is good. One address
//! may have [`limits::STRANGERS_MAX`] such connections; one more is closed when it is accepted. Each
//! refusal with 401 costs a token of its address' bucket; while that is empty, strangers of the address
//! hear 429 before anybody looks at their key, so that forged signatures and lookups cost no more than
//! that. Connections that have shown a good key go on as ever: whoever shares an address with an attacker
//! keeps what is open.
//!
//! An IPv6 address counts by its first 64 bits: whoever has one has all below them (RFC 6177). Rows go
//! when nothing is left to remember; of addresses without connections there are never more than
//! [`limits::PEERS_REMEMBERED`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use storage::io::Instant;

use crate::limits;

/// Whose connections are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PeerBudgets {
    /// Those of other machines: what comes from this one is a proxy, and everybody's.
    #[default]
    Auto,
    /// Everybody's.
    On,
    /// Nobody's: for servers behind a proxy on another machine.
    Off,
}

/// An address, or the network that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerAddress(u128);

impl PeerAddress {
    /// Whose budgets this peer's connections are on, if on any.
    #[must_use]
    pub fn of(peer: SocketAddr, budgets: PeerBudgets) -> Option<PeerAddress> {
        let address = peer.ip().to_canonical();
        match budgets {
            PeerBudgets::Off => return None,
            PeerBudgets::Auto if address.is_loopback() => return None,
            PeerBudgets::Auto | PeerBudgets::On => {}
        }
        Some(match address {
            // As the IPv6 address that stands for it.
            IpAddr::V4(address) => PeerAddress(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => PeerAddress(address.to_bits() >> 64 << 64),
        })
    }
}

/// One address.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    /// Connections that have shown no good key.
    strangers: u32,
    /// Failures that have not been forgotten, in billionths.
    failures_nano: u64,
    /// When that was so.
    at: Instant,
}

impl Peer {
    /// Forget what is long ago.
    fn pass(&mut self, now: Instant) {
        let forgotten = now.since(self.at).saturating_mul(limits::FAILURES_PER_S);
        self.failures_nano = self.failures_nano.saturating_sub(forgotten);
        self.at = now;
    }

    fn is_over(&self) -> bool {
        self.failures_nano > (limits::FAILURES_BURST - 1) * 1_000_000_000
    }
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Peers {
    peers: BTreeMap<PeerAddress, Peer>,
    /// The next sweep begins behind it.
    swept_to: Option<PeerAddress>,
}

impl Peers {
    /// Addresses that something is remembered of.
    #[must_use]
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// A stranger has connected; false if it is one too many, and not counted.
    pub fn connect(&mut self, address: PeerAddress, now: Instant) -> bool {
        self.sweep(now);
        let peer = self.peers.entry(address).or_insert(Peer { at: now, ..Peer::default() });
        if peer.strangers >= limits::STRANGERS_MAX {
            return false;
        }
        peer.strangers += 1;
        true
    }

    /// One of its strangers has shown a good key, or has gone.
    pub fn release(&mut self, address: PeerAddress, now: Instant) {
        let peer = self.peers.get_mut(&address).expect("its connection was counted");
        assert!(peer.strangers > 0);
        peer.strangers -= 1;
        peer.pass(now);
        let is_over = peer.failures_nano == 0;
        let is_gone = peer.strangers == 0;
        if is_gone && (is_over || self.peers.len() > limits::PEERS_REMEMBERED) {
            self.peers.remove(&address);
        }
    }

    /// Whether one of its strangers may show a key.
    pub fn may_try(&mut self, address: PeerAddress, now: Instant) -> bool {
        let peer = self.peers.get_mut(&address).expect("its connection was counted");
        peer.pass(now);
        !peer.is_over()
    }

    /// A key from there was none.
    pub fn fail(&mut self, address: PeerAddress, now: Instant) {
        let peer = self.peers.get_mut(&address).expect("its connection was counted");
        peer.pass(now);
        let most = limits::FAILURES_BURST * 1_000_000_000;
        peer.failures_nano = (peer.failures_nano + 1_000_000_000).min(most);
    }

    /// Look at a few rows: failures of addresses without connections are forgotten there.
    fn sweep(&mut self, now: Instant) {
        use std::ops::Bound::{Excluded, Unbounded};
        for _ in 0..limits::PEERS_PER_SWEEP {
            let from = self.swept_to.map_or(Unbounded, Excluded);
            let Some((&address, peer)) = self.peers.range_mut((from, Unbounded)).next() else {
                self.swept_to = None;
                return;
            };
            self.swept_to = Some(address);
            peer.pass(now);
            if peer.strangers == 0 && peer.failures_nano == 0 {
                self.peers.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, budgets: PeerBudgets) -> Option<PeerAddress> {
        PeerAddress::of(SocketAddr::new(text.parse().expect("an address"), 7), budgets)
    }

    fn address(text: &str) -> PeerAddress {
        of(text, PeerBudgets::On).expect("everybody is counted")
    }

    const SECOND: u64 = 1_000_000_000;

    /// After so long one failure is forgotten.
    const FORGET_NS: u64 = SECOND / limits::FAILURES_PER_S;

    #[test]
    fn networks_stand_for_addresses() {
        assert_eq!(address("10.0.0.1"), address("::ffff:10.0.0.1"));
        assert_ne!(address("10.0.0.1"), address("10.0.0.2"));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        for local in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(of(local, PeerBudgets::Auto), None);
            assert!(of(local, PeerBudgets::On).is_some());
        }
        assert!(of("10.0.0.1", PeerBudgets::Auto).is_some());
        assert_eq!(of("10.0.0.1", PeerBudgets::Off), None);
    }

    #[test]
    fn strangers_are_bounded_by_address() {
        let mut peers = Peers::default();
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        let now = Instant(5);
        for _ in 0..limits::STRANGERS_MAX {
            assert!(peers.connect(one, now));
        }
        assert!(!peers.connect(one, now));
        assert!(peers.connect(other, now));
        peers.release(one, now);
        assert!(peers.connect(one, now));
        for _ in 0..limits::STRANGERS_MAX {
            peers.release(one, now);
        }
        peers.release(other, now);
        assert_eq!(peers.len(), 0);
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        let mut peers = Peers::default();
        let one = address("10.0.0.1");
        let now = Instant(SECOND);
        assert!(peers.connect(one, now));
        for _ in 0..limits::FAILURES_BURST {
            assert!(peers.may_try(one, now));
            peers.fail(one, now);
        }
        assert!(!peers.may_try(one, now));
        assert!(peers.connect(address("10.0.0.2"), now));
        assert!(peers.may_try(address("10.0.0.2"), now));
        peers.release(address("10.0.0.2"), now);
        let later = now.after(FORGET_NS);
        assert!(peers.may_try(one, later));
        peers.fail(one, later);
        assert!(!peers.may_try(one, later));
        peers.release(one, later);
        assert_eq!(peers.len(), 1, "what failed is remembered without a connection");
        let long_after = later.after((limits::FAILURES_BURST + 1) * FORGET_NS);
        assert!(peers.connect(address("10.0.0.9"), long_after));
        assert_eq!(peers.len(), 1, "and is forgotten");
    }
}
