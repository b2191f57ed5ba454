//! The course of a world, sampled: what a report is drawn from.
//!
//! A recording holds at most [`SAMPLES_MAX`] samples: when it is full, every second one is let go,
//! and from then on half as many are taken. So a world's length need not be known before, and the
//! samples lie evenly over its events. Taking one reads and draws nothing: the trace stays the same.

use storage::io::Instant;
use storage::ledger::KINDS;

use crate::faults::FaultKind;

/// Most samples: two per pixel column of a page are enough.
const SAMPLES_MAX: usize = 1_000;

/// Events between samples in the beginning.
const EVERY_FIRST: u64 = 8;

/// What the server's process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Life {
    /// There is none.
    Down,
    /// It reads the log.
    Starting,
    /// It serves.
    Serving,
    /// It was told to stop.
    Stopping,
    /// It has crashed and runs to its end without a kernel.
    Doomed,
}

/// A tenant at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantSample {
    /// Its name's place in [`Recording::names`].
    pub name: usize,
    /// [`tenant::TenantState`] by its number.
    pub state: u8,
    /// Bytes of memory that it holds.
    pub memory_bytes: u64,
}

/// A world at a moment. Counts are those since its beginning.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Events so far.
    pub event: u64,
    /// Simulated time.
    pub at: Instant,
    /// The server.
    pub life: Life,
    /// Bytes that all accounts hold, by kind.
    pub held: [u64; KINDS],
    /// Bytes of the commit log in use, and its capacity.
    pub log_bytes: [u64; 2],
    /// Connections; fibers; parked streams; requests that wait; writers that wait.
    pub queues: [usize; 5],
    /// Requests answered, refused, never answered; transactions acknowledged.
    pub counts: [u64; 4],
    /// Faults by kind.
    pub faults: Vec<u64>,
    /// The tenants that are not cold.
    pub tenants: Vec<TenantSample>,
}

/// Something that happened once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Events so far.
    pub event: u64,
    /// Simulated time.
    pub at: Instant,
    /// What it was.
    pub text: String,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Recording {
    /// Samples in order.
    pub samples: Vec<Sample>,
    /// Ends and starts of the server, and the violation.
    pub moments: Vec<Moment>,
    /// Names of tenants, in the order of their first sight.
    pub names: Vec<String>,
    every: u64,
    next: u64,
}

impl Recording {
    /// Whether a sample is due after so many events.
    #[must_use]
    pub fn is_due(&self, event: u64) -> bool {
        event >= self.next
    }

    /// Keep a sample.
    pub fn add(&mut self, sample: Sample) {
        assert_eq!(sample.faults.len(), FaultKind::ALL.len());
        self.every = self.every.max(EVERY_FIRST);
        if self.samples.len() == SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every *= 2;
        }
        self.next = sample.event + self.every;
        self.samples.push(sample);
    }

    /// The place of a name.
    pub fn name(&mut self, name: &str) -> usize {
        match self.names.iter().position(|known| known == name) {
            Some(index) => index,
            None => {
                self.names.push(name.to_owned());
                self.names.len() - 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_lie_evenly_however_long_it_takes() {
        let mut recording = Recording::default();
        for event in 0..1_000_000 {
            if recording.is_due(event) {
                recording.add(Sample {
                    event,
                    at: Instant(event),
                    life: Life::Serving,
                    held: [0; KINDS],
                    log_bytes: [0; 2],
                    queues: [0; 5],
                    counts: [0; 4],
                    faults: vec![0; FaultKind::ALL.len()],
                    tenants: Vec::new(),
                });
            }
        }
        let events: Vec<u64> = recording.samples.iter().map(|sample| sample.event).collect();
        assert!((SAMPLES_MAX / 2..=SAMPLES_MAX).contains(&events.len()));
        let step = events[1] - events[0];
        assert!(events.windows(2).all(|pair| pair[1] - pair[0] == step), "{step}");
    }
}
