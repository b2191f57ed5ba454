//! The trace: what happened, folded into one number, counted by kind, and printable.
//!
//! Every event of the world is folded as (sequence, kind, entity, length, time, payload hash). Two
//! runs of one seed must fold to the same number. Every [`CHECKPOINT_EVENTS`] events the number and
//! the count of draws are kept, so that a second run can stop at the first difference.

use std::collections::VecDeque;
use std::fmt;

use storage::io::Instant;

use crate::draws::splitmix;
use crate::limits::{CHECKPOINT_EVENTS, RECENT_EVENTS_MAX};

/// What an event was. The order of the variants is part of every trace hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum Kind {
    /// The server accepted a connection.
    Accept,
    /// The server received bytes.
    Receive,
    /// The server sent bytes.
    Send,
    /// A file was opened.
    Open,
    /// A file was read.
    Read,
    /// A file was written.
    Write,
    /// A file was synced.
    Sync,
    /// A file's size was set.
    Truncate,
    /// Space was reserved.
    Allocate,
    /// A directory was made.
    MakeDirectory,
    /// A directory was synced.
    SyncDirectory,
    /// A name was changed.
    Rename,
    /// A name was removed.
    Remove,
    /// A file was closed.
    CloseFile,
    /// The server closed a socket or a listener.
    CloseSocket,
    /// A packet arrived.
    Packet,
    /// A client called into the world.
    Client,
    /// A client was woken.
    Wake,
    /// A write of a killed process landed.
    LateLanding,
    /// The machine or the process died.
    Crash,
    /// A new process started.
    Restart,
    /// A fault was injected.
    Fault,
    /// A file as it is at the end of the run.
    Disk,
}

/// How many kinds there are.
pub const KINDS: usize = Kind::Disk as usize + 1;

/// How often a kind of event happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Events.
    pub events: u64,
    /// Of them, those that ended with an error.
    pub errors: u64,
    /// Bytes that they moved.
    pub bytes: u64,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// To whom: a file's, connection's or client's number.
    pub entity: u64,
    /// Bytes moved, or another number of the event's own.
    pub length: u64,
    /// Hash of the bytes moved, 0 if none.
    pub payload_hash: u64,
    /// Whether it ended with an error.
    pub failed: bool,
}

/// The state of a run after a number of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Events so far.
    pub sequence: u64,
    /// The trace hash.
    pub hash: u64,
    /// Draws so far.
    pub draws: u64,
}

/// Where two runs of one seed differ: between the checkpoint before this one and this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// What the first run had.
    pub expected: Checkpoint,
    /// What this run has.
    pub found: Checkpoint,
}

/// Takes the readable line of each event.
pub type Sink = Box<dyn FnMut(&str)>;

/// The account of one run.
#[derive(Default)]
pub struct Trace {
    hash: u64,
    sequence: u64,
    counts: [Count; KINDS],
    checkpoints: Vec<Checkpoint>,
    expected: Vec<Checkpoint>,
    divergence: Option<Divergence>,
    recent: VecDeque<(u64, Instant, Event)>,
    moments: Vec<(u64, Instant, Event)>,
    sink: Option<Sink>,
    /// First event that the sink is told of.
    sink_from: u64,
}

impl Trace {
    /// Fold one event. `draws` is how many draws were made so far.
    pub fn record(&mut self, now: Instant, draws: u64, event: Event) {
        self.sequence += 1;
        let flags = (event.kind as u64) << 1 | u64::from(event.failed);
        for word in [self.sequence, flags, event.entity, event.length, now.0, event.payload_hash] {
            self.hash = splitmix(self.hash ^ word);
        }
        let count = &mut self.counts[event.kind as usize];
        count.events += 1;
        if event.failed {
            count.errors += 1;
        } else {
            count.bytes += event.length;
        }
        if self.recent.len() == RECENT_EVENTS_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((self.sequence, now, event));
        if matches!(event.kind, Kind::Crash | Kind::Restart) {
            self.moments.push((self.sequence, now, event));
        }
        if let Some(sink) = &mut self.sink
            && self.sequence >= self.sink_from
        {
            sink(&line(self.sequence, now, &event));
        }
        if self.sequence.is_multiple_of(CHECKPOINT_EVENTS) {
            self.checkpoint(draws);
        }
    }

    fn checkpoint(&mut self, draws: u64) {
        let found = Checkpoint { sequence: self.sequence, hash: self.hash, draws };
        if let Some(expected) = self.expected.get(self.checkpoints.len())
            && *expected != found
            && self.divergence.is_none()
        {
            self.divergence = Some(Divergence { expected: *expected, found });
        }
        self.checkpoints.push(found);
    }

    /// The hash over all events so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Events so far.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How often a kind happened.
    #[must_use]
    pub fn count(&self, kind: Kind) -> Count {
        self.counts[kind as usize]
    }

    /// The checkpoints so far, for a second run's [`Trace::expect`].
    #[must_use]
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
    }

    /// Compare this run with the checkpoints of an earlier one as it goes.
    pub fn expect(&mut self, checkpoints: Vec<Checkpoint>) {
        assert!(self.checkpoints.is_empty(), "a run is compared from its start");
        self.expected = checkpoints;
    }

    /// The first checkpoint that differs from the expected ones, once there is one.
    #[must_use]
    pub fn divergence(&self) -> Option<Divergence> {
        self.divergence
    }

    /// Send the readable line of each event from now on to `sink`. Changes no decision.
    pub fn set_sink(&mut self, sink: Option<Sink>) {
        self.sink = sink;
    }

    /// Spare the sink all that comes before this event.
    pub fn set_sink_from(&mut self, sequence: u64) {
        self.sink_from = sequence;
    }

    /// Send a remark to the sink, if there is one. Changes no hash.
    pub fn remark(&mut self, text: impl FnOnce() -> String) {
        if let Some(sink) = &mut self.sink
            && self.sequence >= self.sink_from
        {
            sink(&text());
        }
    }

    /// All ends and starts of the server's process: event, time, and what it was.
    #[must_use]
    pub fn moments(&self) -> &[(u64, Instant, Event)] {
        &self.moments
    }

    /// The last events as lines, oldest first.
    #[must_use]
    pub fn recent_lines(&self) -> Vec<String> {
        let lines = self.recent.iter();
        lines.map(|(sequence, now, event)| line(*sequence, *now, event)).collect()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} events, {:016x})", self.sequence, self.hash)
    }
}

fn line(sequence: u64, now: Instant, event: &Event) -> String {
    let seconds = now.0 / 1_000_000_000;
    let nanoseconds = now.0 % 1_000_000_000;
    let end = if event.failed { " failed" } else { "" };
    format!(
        "{sequence:>9} {seconds:>6}.{nanoseconds:09} {kind:<13} {entity:>6} {length:>9} \
         {hash:016x}{end}",
        kind = format!("{:?}", event.kind),
        entity = event.entity,
        length = event.length,
        hash = event.payload_hash,
    )
}

/// A quick 64-bit hash of bytes, the same on every machine. Not for adversaries.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    // Two multiplications per 16 bytes: blake3 took most of a run's time here and buys nothing.
    let mut left = 0x243f_6a88_85a3_08d3 ^ bytes.len() as u64;
    let mut right = 0x1319_8a2e_0370_7344u64;
    let (pairs, rest) = bytes.as_chunks::<16>();
    for pair in pairs {
        let (first, second) = pair.split_at(8);
        left = step(left, word(first));
        right = step(right, word(second));
    }
    for chunk in rest.chunks(8) {
        left = step(left, word(chunk));
    }
    splitmix(left ^ splitmix(right))
}

fn step(state: u64, word: u64) -> u64 {
    (state.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn word(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(length: u64) -> Event {
        Event { kind: Kind::Write, entity: 1, length, payload_hash: 5, failed: false }
    }

    #[test]
    fn hashes_see_every_byte_and_the_length() {
        let mut bytes = vec![0u8; 100];
        let mut seen = vec![hash_bytes(&bytes), hash_bytes(&bytes[..99])];
        for index in 0..bytes.len() {
            bytes[index] = 1;
            seen.push(hash_bytes(&bytes));
            bytes[index] = 0;
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 102);
    }

    #[test]
    fn a_second_run_stops_at_the_first_difference() {
        let mut first = Trace::default();
        for index in 0..5 * CHECKPOINT_EVENTS {
            first.record(Instant(index), index, event(1));
        }
        let mut second = Trace::default();
        second.expect(first.checkpoints().to_vec());
        for index in 0..3 * CHECKPOINT_EVENTS {
            second.record(Instant(index), index, event(1));
        }
        assert_eq!(second.divergence(), None);
        second.record(Instant(3 * CHECKPOINT_EVENTS), 1, event(2));
        for index in 3 * CHECKPOINT_EVENTS + 1..5 * CHECKPOINT_EVENTS {
            second.record(Instant(index), index, event(1));
        }
        let divergence = second.divergence().expect("the length differed");
        assert_eq!(divergence.expected.sequence, 4 * CHECKPOINT_EVENTS);
        assert_ne!(second.hash(), first.hash());
        assert_eq!(second.recent_lines().len(), RECENT_EVENTS_MAX);
    }

    #[test]
    fn counts_keep_errors_and_bytes_apart() {
        let mut trace = Trace::default();
        trace.record(Instant(1), 0, event(10));
        let failed = Event { failed: true, ..event(99) };
        trace.record(Instant(2), 0, failed);
        let count = trace.count(Kind::Write);
        assert_eq!((count.events, count.errors, count.bytes), (2, 1, 10));
    }
}
