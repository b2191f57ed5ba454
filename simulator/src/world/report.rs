//! What a run prints: a line with the verdict, a line with the numbers, and how to run it again.

use storage::io::Instant;

use super::model::Violation;
use super::options::Options;
use super::{Totals, World};
use crate::faults::{FaultCounts, FaultKind};
use crate::trace::{Checkpoint, Divergence, Kind};

/// How a world ended.
#[derive(Debug)]
pub struct Outcome {
    /// What it was made of.
    pub options: Options,
    /// The trace hash.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Simulated time at the end, or at the violation.
    pub at: Instant,
    /// What was violated.
    pub violation: Option<Violation>,
    /// Checkpoints of the trace, for a second run.
    pub checkpoints: Vec<Checkpoint>,
    /// Where this run differs from the expected one.
    pub divergence: Option<Divergence>,
    /// The last events.
    pub recent: Vec<String>,
    /// What was counted, by name.
    pub counts: Vec<(String, u64)>,
    /// What struck, and how often it was recovered from.
    pub faults: FaultCounts,
    /// Counts and faults as `name=value …`.
    pub numbers: String,
}

/// Which source this was built from, if the build says so.
pub const COMMIT: &str = match option_env!("MYRIAD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

pub(super) fn outcome(world: &World, verdict: Result<(), Violation>, at: Instant) -> Outcome {
    let trace = world.io.trace();
    let counts = counts(world);
    let faults = world.io.fault_counts().clone();
    Outcome {
        options: world.ground.options.clone(),
        hash: trace.hash(),
        events: trace.sequence(),
        at,
        violation: verdict.err(),
        checkpoints: trace.checkpoints().to_vec(),
        divergence: trace.divergence(),
        recent: trace.recent_lines(),
        numbers: numbers(&counts, &faults),
        counts,
        faults,
    }
}

fn counts(world: &World) -> Vec<(String, u64)> {
    let counts = &world.ground.counts;
    let Totals {
        clean_stops,
        failed_exits,
        refused_starts,
        crashed_starting,
        commits,
        checkpoints,
        fences,
        gated,
        rehearsals,
    } = world.totals;
    let trace = world.io.trace();
    let ends = trace.count(Kind::Crash).events;
    let power_losses = world.io.fault_counts().of(FaultKind::PowerLoss).injected;
    let looked = world.io.monitor().looked();
    let named = [
        ("requests_ok", counts.ok),
        ("requests_err", counts.refused.values().sum()),
        ("requests_unknown", counts.unknown),
        ("acknowledged", counts.acknowledged),
        ("reads", counts.reads),
        ("commits", commits),
        ("checkpoints", checkpoints),
        ("gated", gated),
        ("fences", fences),
        ("ends", ends),
        ("kills", ends - power_losses),
        ("power_losses", power_losses),
        ("starting", crashed_starting),
        ("clean_stops", clean_stops),
        ("failed_exits", failed_exits),
        ("refused_starts", refused_starts),
        ("visits", world.strangers.visits()),
        ("bytes_read", trace.count(Kind::Read).bytes),
        ("bytes_written", trace.count(Kind::Write).bytes),
        ("bytes_sent", trace.count(Kind::Send).bytes),
        ("rehearsals", rehearsals),
        ("batches", looked.batches),
        ("pages_written", looked.pages_written),
        ("pages_released", looked.pages_released),
        ("marks_sent", looked.marks_sent),
        ("gates", looked.acknowledged),
    ];
    let mut all: Vec<(String, u64)> =
        named.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    all.extend(counts.refused.iter().map(|(code, count)| (code.clone(), *count)));
    all
}

fn numbers(counts: &[(String, u64)], faults: &FaultCounts) -> String {
    let mut words: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
    for (kind, count) in faults.iter() {
        words.push(format!("{kind}={} {kind}-recovered={}", count.injected, count.recovered));
    }
    words.join(" ")
}

impl Outcome {
    /// The verdict as one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Outcome { options, hash, events, .. } = self;
        let changed: String = options.changed.iter().map(|set| format!(" --set {set}")).collect();
        let verdict = match &self.violation {
            None => "PASS".to_owned(),
            Some(Violation { property, detail }) => {
                let (seconds, rest) = (self.at.0 / 1_000_000_000, self.at.0 % 1_000_000_000);
                format!("FAIL:{property} at={seconds}.{rest:09}s {detail}")
            }
        };
        format!(
            "seed={} commit={COMMIT} hash={hash:016x} profile={}{changed} events={events} {verdict}",
            options.seed, options.profile
        )
    }

    /// How to see it again.
    #[must_use]
    pub fn commands(&self) -> String {
        let arguments = self.options.arguments();
        format!(
            "  simulator run {arguments}\n  simulator run {arguments} --trace trace.txt\n  \
             simulator shrink {arguments}"
        )
    }
}
