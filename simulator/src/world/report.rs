//! What a run prints: a line with the verdict, a line with the numbers, and how to run it again.

use std::fmt::Write as _;

use storage::io::Instant;

use super::model::Violation;
use super::options::Options;
use super::{Totals, World};
use crate::faults::FaultKind;
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
    /// `name=value …`.
    pub numbers: String,
}

/// Which source this was built from, if the build says so.
pub const COMMIT: &str = match option_env!("MYRIAD_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

pub(super) fn outcome(world: &World, verdict: Result<(), Violation>, at: Instant) -> Outcome {
    let trace = world.io.trace();
    Outcome {
        options: world.ground.options.clone(),
        hash: trace.hash(),
        events: trace.sequence(),
        at,
        violation: verdict.err(),
        checkpoints: trace.checkpoints().to_vec(),
        divergence: trace.divergence(),
        recent: trace.recent_lines(),
        numbers: numbers(world),
    }
}

fn numbers(world: &World) -> String {
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
    } = world.totals;
    let refused: u64 = counts.refused.values().sum();
    let trace = world.io.trace();
    let ends = trace.count(Kind::Crash).events;
    let faults = world.io.fault_counts();
    let power_losses = faults.of(FaultKind::PowerLoss).injected;
    let kills = ends - power_losses;
    let mut text = format!(
        "requests_ok={} requests_err={refused} requests_unknown={} acknowledged={} reads={} \
         commits={commits} checkpoints={checkpoints} gated={gated} fences={fences} \
         ends={ends} kills={kills} power_losses={power_losses} starting={crashed_starting} \
         clean_stops={clean_stops} failed_exits={failed_exits} refused_starts={refused_starts}",
        counts.ok, counts.unknown, counts.acknowledged, counts.reads,
    );
    let _ = write!(text, " visits={}", world.strangers.visits());
    for (code, count) in &counts.refused {
        let _ = write!(text, " {code}={count}");
    }
    for (kind, count) in faults.iter() {
        let _ = write!(text, " {kind}={} {kind}-recovered={}", count.injected, count.recovered);
    }
    text
}

impl Outcome {
    /// The verdict as one line.
    #[must_use]
    pub fn line(&self) -> String {
        let Outcome { options, hash, events, .. } = self;
        let verdict = match &self.violation {
            None => "PASS".to_owned(),
            Some(Violation { property, detail }) => {
                let (seconds, rest) = (self.at.0 / 1_000_000_000, self.at.0 % 1_000_000_000);
                format!("FAIL:{property} at={seconds}.{rest:09}s {detail}")
            }
        };
        format!(
            "seed={} commit={COMMIT} hash={hash:016x} profile={} events={events} {verdict}",
            options.seed, options.profile
        )
    }

    /// How to see it again.
    #[must_use]
    pub fn commands(&self) -> String {
        let Options { seed, profile, .. } = &self.options;
        let run = format!("simulator run {seed} --profile {profile}");
        format!("  {run}\n  {run} --trace trace.txt")
    }
}
