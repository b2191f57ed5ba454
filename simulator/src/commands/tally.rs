//! Sums over many seeds, as a line of progress, as tables, and as numbers for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::coverage;
use simulator::faults::FaultKind;

use super::child::Report;

/// Longest list of failed seeds.
const FAILURES_PRINTED_MAX: usize = 50;

/// How often a kind struck: times, recoveries, seeds.
#[derive(Clone, Copy, Debug, Default)]
struct Struck {
    injected: u64,
    recovered: u64,
    seeds: u64,
}

/// See the head of the file.
#[derive(Debug, Default)]
pub struct Tally {
    /// Seeds that ended.
    pub seeds: u64,
    /// Of them, those that ran twice.
    pub twice: u64,
    /// Their lines, and what makes them again.
    pub failures: Vec<(String, String)>,
    events: u64,
    simulated_ms: u64,
    counts: BTreeMap<String, u64>,
    faults: BTreeMap<String, Struck>,
    marks: BTreeMap<String, u64>,
    /// Simulated over real time of each seed.
    dilations: Vec<u64>,
}

impl Tally {
    /// A seed has ended.
    pub fn add(&mut self, arguments: &[String], report: &Report) {
        self.seeds += 1;
        self.twice += u64::from(arguments.iter().any(|argument| argument == "--twice"));
        self.events += report.events;
        self.simulated_ms += report.simulated_ms;
        self.dilations.extend(report.simulated_ms.checked_div(report.wall_ms));
        for (name, count) in &report.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        for (kind, [injected, recovered]) in &report.faults {
            let struck = self.faults.entry(kind.clone()).or_default();
            struck.injected += injected;
            struck.recovered += recovered;
            struck.seeds += 1;
        }
        for mark in &report.marks {
            *self.marks.entry(mark.clone()).or_default() += 1;
        }
        if report.property.is_some() {
            let again = format!("simulator run {}", arguments.join(" "));
            self.failures.push((report.line.clone(), again));
        }
    }

    /// One line about the seeds so far.
    pub fn progress(&self, elapsed: Duration) -> String {
        let seconds = elapsed.as_secs_f64().max(0.001);
        let mut groups: Vec<(&str, u64)> = Vec::new();
        for kind in FaultKind::ALL {
            let injected = self.faults.get(kind.name()).map_or(0, |struck| struck.injected);
            match groups.iter_mut().find(|(group, _)| *group == group_of(*kind)) {
                Some((_, sum)) => *sum += injected,
                None => groups.push((group_of(*kind), injected)),
            }
        }
        let groups: Vec<String> =
            groups.iter().map(|(group, sum)| format!("{group} {}", short(*sum))).collect();
        format!(
            "{:>6.0} s  {} seeds ({:.1}/s)  {:.1} h simulated (x{:.0})  faults: {}  {} failed",
            seconds,
            self.seeds,
            self.seeds as f64 / seconds,
            self.simulated_ms as f64 / 3_600_000.0,
            self.simulated_ms as f64 / 1_000.0 / seconds,
            groups.join(", "),
            self.failures.len()
        )
    }

    fn of(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    fn dilation_median(&self) -> u64 {
        let mut sorted = self.dilations.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }

    /// Tables and sums over all seeds.
    pub fn summary(&self, elapsed: Duration) -> String {
        let mut text = String::from("fault kind                injected  recovered   seeds\n");
        for kind in FaultKind::ALL {
            let struck = self.faults.get(kind.name()).copied().unwrap_or_default();
            let Struck { injected, recovered, seeds } = struck;
            let _ = writeln!(text, "{kind:<24} {injected:>9} {recovered:>10} {seeds:>7}");
        }
        let minutes = elapsed.as_secs_f64().max(0.001) / 60.0;
        let per_minute = |count: u64| short((count as f64 / minutes) as u64);
        let counts: Vec<String> =
            self.counts.iter().map(|(name, count)| format!("{name}={count}")).collect();
        let _ = writeln!(text, "\n{}", counts.join(" "));
        let _ = writeln!(
            text,
            "{:.1} h simulated in {:.0} s, {} events; simulated over real time: median of seeds \
             x{}, overall x{:.0}",
            self.simulated_ms as f64 / 3_600_000.0,
            elapsed.as_secs_f64(),
            self.events,
            self.dilation_median(),
            self.simulated_ms as f64 / 1_000.0 / elapsed.as_secs_f64().max(0.001)
        );
        let _ = writeln!(
            text,
            "per real minute: {} requests answered, {} commits, {} ends of the server, {} events",
            per_minute(self.of("requests_ok") + self.of("requests_err")),
            per_minute(self.of("commits")),
            per_minute(self.of("ends") + self.of("clean_stops")),
            per_minute(self.events)
        );
        let Tally { seeds, twice, failures, .. } = self;
        let _ = writeln!(text, "{seeds} seeds, {twice} of them twice, {} failed", failures.len());
        for (line, again) in failures.iter().take(FAILURES_PRINTED_MAX) {
            let _ = writeln!(text, "{line}\n  again: {again}");
        }
        if failures.len() > FAILURES_PRINTED_MAX {
            let _ = writeln!(text, "… and {} more", failures.len() - FAILURES_PRINTED_MAX);
        }
        text
    }

    /// What was reached of all that should be, and whether that is enough.
    pub fn coverage(&self) -> (String, bool) {
        let struck = |kind: FaultKind| self.faults.get(kind.name()).map_or(0, |s| s.seeds);
        let missing = coverage::missing(self.seeds, &self.marks, struck);
        let mut text = String::from("marked place                                       seeds\n");
        for mark in coverage::MARKS {
            let seeds = self.marks.get(mark.text).copied().unwrap_or(0);
            let _ = writeln!(text, "{:<50} {seeds:>5}", mark.text);
        }
        let (reached, all) = (self.marks.len(), coverage::MARKS.len());
        let kinds = FaultKind::ALL.iter().filter(|kind| struck(**kind) > 0).count();
        let _ = writeln!(
            text,
            "coverage of {} seeds: {reached} of {all} marks, {kinds} of {} kinds of faults",
            self.seeds,
            FaultKind::ALL.len()
        );
        for line in &missing {
            let _ = writeln!(text, "COVERAGE: {line}");
        }
        (text, missing.is_empty())
    }

    /// All of it for programs.
    pub fn json(&self, elapsed: Duration) -> Value {
        let faults: BTreeMap<&str, Value> = FaultKind::ALL
            .iter()
            .map(|kind| {
                let struck = self.faults.get(kind.name()).copied().unwrap_or_default();
                let Struck { injected, recovered, seeds } = struck;
                let value = json!({"injected": injected, "recovered": recovered, "seeds": seeds});
                (kind.name(), value)
            })
            .collect();
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|(line, again)| json!({"line": line, "again": again}))
            .collect();
        json!({
            "seeds": self.seeds,
            "twice": self.twice,
            "failed": self.failures.len(),
            "failures": failures,
            "wall_ms": elapsed.as_millis() as u64,
            "simulated_ms": self.simulated_ms,
            "events": self.events,
            "dilation_median": self.dilation_median(),
            "counts": self.counts,
            "faults": faults,
            "marks": self.marks,
        })
    }
}

/// The family of a kind, as the headings in the list of kinds say.
pub fn group_of(kind: FaultKind) -> &'static str {
    match kind {
        _ if kind <= FaultKind::DiskShort => "slow",
        _ if kind <= FaultKind::ReadOnlyDisk => "disk",
        _ if kind <= FaultKind::PageEvicted => "sync",
        _ if kind <= FaultKind::LostWrite => "damage",
        _ if kind <= FaultKind::FileSwapped => "ends",
        _ if kind <= FaultKind::BacklogFull => "network",
        _ => "memory and clock",
    }
}

/// A number in four or five characters.
fn short(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{}k", number / 1_000),
        _ => format!("{}M", number / 1_000_000),
    }
}
