//! What attackers do to quiet neighbours on the same core.
//!
//! - `neighbours`: ten databases with a connection each, a point select every [`PACE`] on each
//!   (an open loop), first alone, then beside each attacker, then beside all.
//! - `memory`: many databases in use and attacks on memory, under [`MEMORY`].

use std::time::Duration;

use storage::ledger::{KIND_NAMES, MEMORY_KINDS};

use super::{Bench, OK, ROWS, VALUE_PREFIX};
use crate::bench::crowd::Windows;
use crate::bench::crowd::{self, Outcome, Pace, Party, Tally};
use crate::bench::histogram::Histogram;
use crate::bench::load::{self, Phase, Until};
use crate::bench::report::{Table, duration_text};
use crate::bench::request::{Choice, Order, TENANT_HOLE, Template};

use super::Watch;

/// Quiet databases.
const QUIET: u32 = 10;

/// One select of each quiet database in this time: together 2,000 a second, some tenth of what a core
/// can do.
const PACE: Duration = Duration::from_millis(5);

/// How often the books are read.
const READING: Duration = Duration::from_secs(1);

/// Connections of an attacker, and of each database that competes.
pub(super) const CLIENTS: u32 = 4;

/// Sessions that the fourth attacker opens; its budget allows so many.
const SESSIONS: u32 = 1_000;

/// Attackers of a reservation, and of each kind on memory.
pub(super) const ATTACKERS: u32 = 100;

/// The server's memory in `memory`.
pub(super) const MEMORY: &str = "1GiB";

/// A second or two of one core.
pub(super) const COUNT_LONG: &str = "WITH RECURSIVE number(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM number \
                          LIMIT 5000000) SELECT count(*), max(x) FROM number";

/// 500 strings of a million letters, each made three times: as long as a value may be.
const STRINGS: &str = "WITH RECURSIVE number(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM number \
                       LIMIT 500) SELECT sum(length(replace(hex(zeroblob(499000 + x)), '00', 'ab'))) \
                       FROM number";

/// 1,000 rows in one statement.
const INSERT_MANY: &str = "INSERT INTO bench (value) WITH RECURSIVE number(x) AS (SELECT 1 UNION ALL \
                           SELECT x + 1 FROM number LIMIT 1000) SELECT 'value-' || x FROM number";

/// Sorts more than a database's memory holds.
const SORT: &str = "WITH RECURSIVE number(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM number LIMIT \
                    200000) SELECT max(y) FROM (SELECT hex(zeroblob(100)) || x AS y FROM number ORDER BY \
                    y DESC LIMIT 150000)";

/// One long value, piece by piece.
const CONCATENATE: &str = "WITH RECURSIVE number(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM number LIMIT \
                           70000) SELECT length(group_concat(x, '---------')) FROM number";

/// A request without `close`: its session stays.
const SESSION_BODY: &str = r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]}"#;

/// Requests of one large pipeline, and bytes of the argument of each.
const PIPELINE: (usize, usize) = (8, 1_000_000);

impl Bench<'_> {
    pub(super) fn neighbours(&mut self) -> Result<(), String> {
        self.prepare("quiet", QUIET, ROWS)?;
        let counts = self.attacker("counts", COUNT_LONG, CLIENTS)?;
        let strings = self.attacker("strings", STRINGS, CLIENTS)?;
        let inserts = self.attacker("inserts", INSERT_MANY, CLIENTS)?;
        let sessions = self.sessions(CLIENTS)?;
        let heads = [
            "beside",
            "selects/s",
            "p50",
            "p99",
            "p99.9",
            "max",
            "p50 ratio",
            "p99 ratio",
            "p99 of the median window",
            "its ratio",
            "refused",
            "failed",
            "core wait",
            "late turns",
            "attackers' good (refused) a second",
        ];
        let mut table = Table::new("neighbours", &heads);
        let single = [counts, strings, inserts, sessions];
        let mut phases: Vec<(&str, Vec<Party>)> = vec![("nobody", Vec::new())];
        phases.extend(single.iter().map(|party| (party.name, vec![party.clone()])));
        phases.push(("all of them", single.to_vec()));
        let parties_of = |bench: &Self, attackers: &[Party]| {
            let mut parties = vec![bench.quiet(), bench.metrics()];
            parties.extend_from_slice(attackers);
            parties
        };
        let mut measured: Vec<Option<(Outcome, f64)>> = phases.iter().map(|_| None).collect();
        // One after the other and again: what the machine does meanwhile is then in all of them.
        let rounds = self.options.rounds;
        for round in 1..=rounds {
            for ((beside, attackers), sum) in phases.iter().zip(&mut measured) {
                let label = format!("round {round} of {rounds}, {beside}");
                let (outcome, wait) = self.crowd(&label, &parties_of(self, attackers))?;
                match sum {
                    Some((all, waits)) => {
                        all.add(outcome);
                        *waits += wait;
                    }
                    None => *sum = Some((outcome, wait)),
                }
            }
        }
        let mut alone: Option<(Histogram, u64)> = None;
        for ((beside, attackers), sum) in phases.into_iter().zip(measured) {
            let parties = parties_of(self, &attackers);
            let (outcome, waits) = sum.expect("there was a round");
            let quiet = &outcome.tallies[0];
            let high = quiet.windows.median_high();
            let (first, first_high) =
                alone.as_ref().map_or((&quiet.latencies, high), |(all, high)| (all, *high));
            let mut row = vec![beside.to_owned(), format!("{:.0}", outcome.per_second(0))];
            row.extend(latency_cells(&quiet.latencies, first));
            row.extend([duration_text(high), ratio_text(high, first_high)]);
            row.extend([quiet.refused.to_string(), quiet.failed.to_string()]);
            row.push(percent(waits / f64::from(rounds)));
            row.push(late_turns(&outcome.tallies[1]));
            row.push(attacker_text(&parties, &outcome));
            table.rows.push(row);
            table.note_first_error("a quiet one", quiet);
            for (party, tally) in parties.iter().zip(&outcome.tallies).skip(2) {
                table.note_first_error(party.name, tally);
            }
            let latencies = outcome.tallies.into_iter().next().expect("the quiet").latencies;
            alone.get_or_insert((latencies, high));
        }
        table.notes.push(format!(
            "open loop: {QUIET} databases, a point select every {PACE:?} each, latency from when it \
             was meant to leave; attackers in closed loops of {CLIENTS} connections; windows of {:?}; \
             {rounds} rounds of all phases",
            Windows::LENGTH
        ));
        self.tables.push(table);
        Ok(())
    }

    pub(super) fn memory(&mut self) -> Result<(), String> {
        let tenants = self.options.tenants;
        let before = self.peak_bytes();
        self.prepare("memory", tenants, ROWS)?;
        let prepared = self.peak_bytes();
        let mut selects = self.party("selects", self.select_template("memory"), 30);
        selects.choice = Choice { order: Order::Spread, tenants, rows: ROWS };
        let mut parties = vec![self.metrics(), selects];
        for (name, sql) in [("sorts", SORT), ("concatenations", CONCATENATE), ("strings", STRINGS)]
        {
            self.prepare(name, ATTACKERS, 0)?;
            let template = self.statement(name, sql);
            parties.push(self.party(name, template, ATTACKERS));
        }
        self.prepare("pipelines", ATTACKERS, 0)?;
        let template = self.large_pipeline("pipelines");
        parties.push(self.party("pipelines", template, 30));
        parties.push(self.sessions(CLIENTS)?);
        let (outcome, wait) = self.crowd("attacks on memory", &parties)?;
        let peak = self.peak_bytes();
        let read = outcome.tallies[0].kept.iter().map(|(_, text)| ledger(text));
        let ledger = read.max_by_key(|kinds| sum(kinds)).unwrap_or_default();
        let mut table = Table::new("memory", &["what", "MiB"]);
        let peaks = [
            ("peak resident, before anything", before),
            ("peak resident, databases made and filled", prepared),
            ("peak resident, attacked", peak),
            ("the ledger's sum, the largest that was read", Some(sum(&ledger))),
        ];
        let peaks = peaks.map(|(what, bytes)| (what.to_owned(), bytes));
        let kinds = ledger.iter().map(|(kind, bytes)| (format!("of it {kind}"), Some(*bytes)));
        for (what, bytes) in peaks.into_iter().chain(kinds) {
            let mebibytes = bytes.map_or("-".to_owned(), |bytes| (bytes >> 20).to_string());
            table.rows.push(vec![what, mebibytes]);
        }
        table.notes.push(format!(
            "serve --memory {MEMORY}, {tenants} databases; good (refused) a second: {}; waiting for \
             a core: {}",
            attacker_text(&parties[1..], &outcome),
            percent(wait)
        ));
        for (party, tally) in parties.iter().zip(&outcome.tallies) {
            table.note_first_error(party.name, tally);
        }
        self.tables.push(table);
        Ok(())
    }

    // ---- parties ----

    pub(super) fn party(&self, name: &'static str, template: Template, connections: u32) -> Party {
        let choice = Choice { order: Order::Sequential, tenants: connections, rows: ROWS };
        let target = self.target().clone();
        Party { name, target, template, choice, connections, pace: Pace::Closed, keeps: false }
    }

    fn quiet(&self) -> Party {
        let template = self.select_template("quiet");
        Party { pace: Pace::Every(PACE), ..self.party("quiet", template, QUIET) }
    }

    /// A database of its own, and who repeats a statement on it.
    pub(super) fn attacker(
        &mut self,
        name: &'static str,
        sql: &str,
        clients: u32,
    ) -> Result<Party, String> {
        self.prepare(name, 1, 0)?;
        let mut party = self.party(name, self.statement(name, sql), clients);
        party.choice.tenants = 1;
        Ok(party)
    }

    /// Who opens sessions and leaves them open.
    fn sessions(&mut self, clients: u32) -> Result<Party, String> {
        let name = "sessions";
        self.prepare(name, 1, 0)?;
        self.budget(name, &format!(r#"{{"streams":{SESSIONS}}}"#))?;
        let path = format!("/db/{}-{TENANT_HOLE}/v2/pipeline", self.base_name(name));
        let template = Template::new(self.target(), "POST", &path, SESSION_BODY, OK);
        let mut party = self.party(name, template, clients);
        party.choice.tenants = 1;
        Ok(party)
    }

    pub(super) fn statement(&self, name: &str, sql: &str) -> Template {
        Template::pipeline(self.target(), &self.base_name(name), &[(sql, None)], OK)
    }

    fn large_pipeline(&self, name: &str) -> Template {
        let (requests, bytes) = PIPELINE;
        let argument =
            format!(r#"{{"type":"text","value":"{VALUE_PREFIX}{}"}}"#, "x".repeat(bytes));
        let statements = vec![("SELECT length(?)", Some(argument.as_str())); requests];
        Template::pipeline(self.target(), &self.base_name(name), &statements, OK)
    }

    /// Who reads an admin path once a second.
    fn reader(&self, name: &'static str, path: &str) -> Party {
        let target = self.admin.clone().expect("the server is ours");
        let template = Template::new(&target, "GET", path, "", "");
        Party { target, pace: Pace::Every(READING), keeps: true, ..self.party(name, template, 1) }
    }

    fn metrics(&self) -> Party {
        self.reader("metrics", "/metrics")
    }

    pub(super) fn usage(&self, name: &'static str, database: &str) -> Party {
        let path = format!("/v1/namespaces/{}-00000000/usage", self.base_name(database));
        self.reader(name, &path)
    }

    /// Gives the first database of `name` a budget.
    pub(super) fn budget(&mut self, name: &str, budget: &str) -> Result<(), String> {
        let path = format!("/v1/namespaces/{}-00000000/budget", self.base_name(name));
        self.put(&path, &format!(r#"{{"budget":{budget}}}"#))
    }

    /// One call of the admin API.
    pub(super) fn put(&mut self, path: &str, body: &str) -> Result<(), String> {
        let admin = self.admin.clone().expect("the server is ours");
        let template = Template::new(&admin, "PUT", path, body, "");
        let choice = Choice { order: Order::Sequential, tenants: 1, rows: 1 };
        let label = format!("PUT {path}");
        let phase = Phase {
            label: &label,
            target: &admin,
            template: &template,
            choice,
            connections: 1,
            until: Until::Requests(1),
        };
        let outcome = load::run(phase, &mut self.progress)?;
        super::all_good(&label, &outcome)
    }

    /// Runs the parties, and says what share of the time a core was waited for.
    pub(super) fn crowd(
        &mut self,
        label: &str,
        parties: &[Party],
    ) -> Result<(Outcome, f64), String> {
        let watch = Watch::start(self.server.as_ref());
        let times = (self.options.warm_up(), self.options.measured());
        let server = self.server.as_ref();
        match crowd::run(label, parties, times, &mut self.progress) {
            Ok(outcome) => Ok((outcome, watch.share(server))),
            Err(error) => Err(server.map_or(error.clone(), |server| server.failure(&error))),
        }
    }

    /// The most memory that the server's process has had.
    fn peak_bytes(&self) -> Option<u64> {
        self.server.as_ref().and_then(crate::bench::spawned::Server::peak_resident_bytes)
    }
}

// ---- numbers as texts ----

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// p50, p99, p99.9 and the largest, and the first two against those of `first`.
fn latency_cells(latencies: &Histogram, first: &Histogram) -> Vec<String> {
    let times = [500, 990, 999].map(|per_mille| latencies.quantile(per_mille));
    let mut cells: Vec<String> = times.map(duration_text).into();
    cells.push(duration_text(latencies.max()));
    for per_mille in [500, 990] {
        let (now, then) = (latencies.quantile(per_mille), first.quantile(per_mille));
        cells.push(ratio_text(now, then));
    }
    cells
}

fn ratio_text(now: u64, then: u64) -> String {
    format!("{:.2}", now as f64 / then.max(1) as f64)
}

fn attacker_text(parties: &[Party], outcome: &Outcome) -> String {
    let own =
        parties.iter().zip(outcome.tallies.iter().skip(outcome.tallies.len() - parties.len()));
    let seconds = outcome.elapsed.as_secs_f64();
    let texts: Vec<String> = own
        .filter(|(party, _)| !party.keeps && party.pace == Pace::Closed)
        .map(|(party, tally)| {
            let (good, bad) = (tally.latencies.count(), tally.refused + tally.failed);
            let (good, bad) = (good as f64 / seconds, bad as f64 / seconds);
            format!("{} {good:.1} ({bad:.1})", party.name)
        })
        .collect();
    texts.join(", ")
}

/// The value of a line `name value` of the last metrics read.
fn late_turns(metrics: &Tally) -> String {
    let Some((_, text)) = metrics.kept.last() else { return "-".to_owned() };
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find_map(|line| line.strip_prefix("myriad_late_turns_total "));
    line.unwrap_or("-").to_owned()
}

/// Bytes held, by kind.
pub(super) fn ledger(metrics: &[u8]) -> Vec<(String, u64)> {
    let text = String::from_utf8_lossy(metrics);
    let kind = |line: &str| {
        let rest = line.strip_prefix("myriad_ledger_bytes{kind=\"")?;
        let (kind, bytes) = rest.split_once("\"} ")?;
        Some((kind.to_owned(), bytes.parse().ok()?))
    };
    text.lines().filter_map(kind).collect()
}

/// Bytes of memory: files and counts stand beside them.
fn sum(kinds: &[(String, u64)]) -> u64 {
    let is_memory = |kind: &str| KIND_NAMES[..MEMORY_KINDS].contains(&kind);
    kinds.iter().filter(|(kind, _)| is_memory(kind)).map(|(_, bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text = b"# x\nmyriad_late_turns_total 3\nmyriad_ledger_bytes{kind=\"heap\"} 5\n\
                     myriad_ledger_bytes{kind=\"stack\"} 6\nmyriad_ledger_bytes{kind=\"file\"} 7\n";
        let kinds = [("heap", 5), ("stack", 6), ("file", 7)];
        assert_eq!(ledger(text), kinds.map(|(kind, bytes)| (kind.to_owned(), bytes)));
        assert_eq!(sum(&ledger(text)), 11);
        let kept = vec![(Duration::ZERO, text.to_vec())];
        assert_eq!(late_turns(&Tally { kept, ..Tally::default() }), "3");
    }
}
