//! How fast a job goes: databases in the last seconds.

use std::collections::VecDeque;

use storage::io::Instant;

/// Nanoseconds between two samples.
const SAMPLE_NS: u64 = 1_000_000_000;

/// Samples that are kept: the rate is of so many seconds.
const SAMPLES: usize = 10;

/// What a job does now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Live {
    /// Databases that it is on.
    pub running: usize,
    /// Databases a second, lately.
    pub per_second: Option<f64>,
}

/// How many databases had their results when.
#[derive(Debug, Default)]
pub(super) struct Pace {
    samples: VecDeque<(Instant, u64)>,
}

impl Pace {
    /// So many have theirs now.
    pub(super) fn note(&mut self, now: Instant, ended: u64) {
        let due = self.samples.back().is_none_or(|&(at, _)| now.since(at) >= SAMPLE_NS);
        if due {
            self.samples.push_back((now, ended));
            if self.samples.len() > SAMPLES {
                self.samples.pop_front();
            }
        }
    }

    /// Databases a second, if that can be said.
    pub(super) fn per_second(&self, now: Instant, ended: u64) -> Option<f64> {
        let &(since, before) = self.samples.front()?;
        let seconds = now.since(since) as f64 / SAMPLE_NS as f64;
        (seconds >= 0.1).then(|| ended.saturating_sub(before) as f64 / seconds)
    }
}
