//! What was measured, as a table for people and as JSON for programs.
//!
//! Pure: outcomes in, text out.

use std::fmt::Write;

use serde_json::{Value, json};

use super::crowd::Tally;
use super::load::Outcome;

/// The ratios that say what the server adds to, or takes from, what is under it: requests per
/// second of the first, divided by those of the second.
const RATIOS: [(&str, &str, &str); 3] = [
    ("select", "empty", "what SQL costs beyond the HTTP loop; 1 would be nothing"),
    ("insert-one", "fsync-one", "durable inserts on one database, against plain SQLite"),
    ("insert-many", "fsync-many", "durable inserts on many databases, against plain SQLite"),
];

/// Waiting longer than this for a core means that other processes used it, and that the row says
/// more about them. On a quiet machine the share is under 2 %.
const CORE_WAIT_SHARE_NOTED: f64 = 0.1;

/// One measured scenario.
pub struct Row {
    /// The scenario's name.
    pub name: &'static str,
    /// Databases that took part.
    pub databases: u32,
    /// Clients that asked at the same time.
    pub clients: u32,
    /// What came out.
    pub outcome: Outcome,
}

/// A table of one scenario's own.
pub struct Table {
    /// What it shows.
    pub title: &'static str,
    /// One a column.
    pub heads: Vec<&'static str>,
    /// Cells, as many as heads.
    pub rows: Vec<Vec<String>>,
    /// Sentences under it.
    pub notes: Vec<String>,
}

impl Table {
    /// Without rows.
    #[must_use]
    pub fn new(title: &'static str, heads: &[&'static str]) -> Self {
        Self { title, heads: heads.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Says once what the first request of `who` that was refused or failed was told.
    pub fn note_first_error(&mut self, who: &str, tally: &Tally) {
        let told = |error: &String| format!("{who} was told: {error}");
        let Some(note) = tally.first_error.as_ref().map(told) else { return };
        let prefix = &note[..note.find(": ").expect("it was just put there")];
        if !self.notes.iter().any(|known| known.starts_with(prefix)) {
            self.notes.push(note);
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.heads[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut put = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> =
                cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
            line(&mut text, format_args!("{}", padded.join("  ").trim_end()));
        };
        put(&mut self.heads.iter().copied());
        for row in &self.rows {
            put(&mut row.iter().map(String::as_str));
        }
        for note in &self.notes {
            line(&mut text, format_args!("- {note}"));
        }
        text
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let row = |row: &Vec<String>| -> Value {
            let cells = self.heads.iter().zip(row);
            cells.map(|(head, cell)| ((*head).to_owned(), json!(cell))).collect()
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        json!({ "title": self.title, "rows": rows, "notes": self.notes })
    }
}

/// All that was measured in one run, and how.
pub struct Report {
    /// One row per measurement, in the order of running.
    pub rows: Vec<Row>,
    /// Of the scenarios that have one of their own, in the same order.
    pub tables: Vec<Table>,
    /// Seconds measured in each scenario that runs for a time.
    pub seconds: f64,
    /// Requests a second of an open loop.
    pub rate: Option<u32>,
    /// The server's core and the load generator's, if each had its own.
    pub cores: Option<(usize, usize)>,
    /// Why the run ended before its last scenario.
    pub failure: Option<String>,
}

impl Report {
    /// Whether everything was measured and every request succeeded.
    ///
    /// # Errors
    /// Why the run ended early, or how many requests failed and how the first did.
    pub fn verdict(&self) -> Result<(), String> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let first =
            self.rows.iter().find_map(|row| Some((row.name, row.outcome.first_error.as_ref()?)));
        let Some((name, error)) = first else {
            return Ok(());
        };
        let errors: u64 = self.rows.iter().map(|row| row.outcome.errors).sum();
        Err(format!("{errors} requests failed; the first, in {name}: {error}"))
    }

    /// The table, the ratios under it, and how it was measured.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            line(&mut text, format_args!("{}", table.text()));
        }
        if self.rows.is_empty() {
            line(&mut text, format_args!("{}", self.places()));
            return text;
        }
        let heads = ["mean", "p50", "p90", "p99", "p99.9", "max"]
            .map(|head| format!("{head:>10}"))
            .concat();
        line(
            &mut text,
            format_args!(
                "{:<12}{:>10}{:>8}{:>12}{heads}{:>8}",
                "scenario", "databases", "clients", "requests/s", "errors"
            ),
        );
        for row in &self.rows {
            let times = latencies(&row.outcome).map(|(_, ns)| format!("{:>10}", duration_text(ns)));
            line(
                &mut text,
                format_args!(
                    "{:<12}{:>10}{:>8}{:>12.0}{}{:>8}",
                    row.name,
                    row.databases,
                    row.clients,
                    row.outcome.per_second(),
                    times.concat(),
                    row.outcome.errors
                ),
            );
        }
        let ratios = self.ratios();
        if !ratios.is_empty() {
            text.push('\n');
        }
        for (name, ratio, meaning) in ratios {
            line(&mut text, format_args!("{name:<26}{ratio:>10.2}   {meaning}"));
        }
        line(&mut text, format_args!("\n{}", self.conditions()));
        for row in &self.rows {
            let share = row.outcome.core_wait_share;
            if share > CORE_WAIT_SHARE_NOTED {
                line(
                    &mut text,
                    format_args!(
                        "{}: not to be trusted, {:.0} % of the time was spent waiting for a core \
                         that others used",
                        row.name,
                        share * 100.0
                    ),
                );
            }
        }
        text
    }

    /// The same as one JSON object; latencies in nanoseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let latencies = latencies(&row.outcome).map(|(name, ns)| (name.to_owned(), json!(ns)));
            json!({
                "scenario": row.name,
                "databases": row.databases,
                "clients": row.clients,
                "requests": row.outcome.latencies.count(),
                "requests_per_second": row.outcome.per_second(),
                "elapsed_seconds": row.outcome.elapsed.as_secs_f64(),
                "latency_ns": serde_json::Map::from_iter(latencies),
                "core_wait_share": row.outcome.core_wait_share,
                "errors": row.outcome.errors,
                "first_error": row.outcome.first_error,
            })
        });
        let ratios = self.ratios().into_iter().map(|(name, ratio, _)| (name, json!(ratio)));
        json!({
            "loop": if self.rate.is_some() { "open" } else { "closed" },
            "rate": self.rate,
            "seconds": self.seconds,
            "server_core": self.cores.map(|cores| cores.0),
            "client_core": self.cores.map(|cores| cores.1),
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
            "scenarios": rows.collect::<Vec<_>>(),
            "ratios": serde_json::Map::from_iter(ratios),
            "failure": self.failure,
        })
    }

    /// The ratios of which both sides were measured, and are not zero.
    fn ratios(&self) -> Vec<(String, f64, &'static str)> {
        let rate = |name: &str| {
            let row = self.rows.iter().find(|row| row.name == name)?;
            Some(row.outcome.per_second()).filter(|rate| *rate > 0.0)
        };
        let ratio = |(over, under, meaning): (&str, &str, &'static str)| {
            Some((format!("{over}/{under}"), rate(over)? / rate(under)?, meaning))
        };
        RATIOS.into_iter().filter_map(ratio).collect()
    }

    /// How the scenarios with rows were measured.
    fn conditions(&self) -> String {
        let places = self.places();
        match self.rate {
            None => format!(
                "closed loop: each client sends its next request when the answer has arrived; {places}"
            ),
            Some(rate) => format!(
                "open loop: {rate} requests a second at fixed times, latencies from when a request was \
                 meant to leave; {places}"
            ),
        }
    }

    /// How long and where, of every scenario.
    fn places(&self) -> String {
        let cores = match self.cores {
            Some((server, own)) => format!("server on core {server}, load on core {own}"),
            None => "server and load not pinned to cores".to_owned(),
        };
        format!("{} s each; {cores}", self.seconds)
    }
}

/// The numbers of a row that are times, in nanoseconds.
fn latencies(outcome: &Outcome) -> [(&'static str, u64); 6] {
    let latencies = &outcome.latencies;
    [
        ("mean", latencies.mean()),
        ("p50", latencies.quantile(500)),
        ("p90", latencies.quantile(900)),
        ("p99", latencies.quantile(990)),
        ("p99.9", latencies.quantile(999)),
        ("max", latencies.max()),
    ]
}

/// Three digits and a unit.
pub(super) fn duration_text(ns: u64) -> String {
    let (value, unit) = match ns {
        0 => return "-".to_owned(),
        1..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {unit}")
}

/// Appends one line.
fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn row(name: &'static str, latencies_us: &[u64], errors: u64) -> Row {
        let mut outcome = Outcome { elapsed: Duration::from_millis(500), ..Outcome::default() };
        for latency in latencies_us {
            outcome.latencies.record(latency * 1_000);
        }
        for error in 0..errors {
            outcome.fail(|| format!("error {error}"));
        }
        Row { name, databases: 1, clients: 30, outcome }
    }

    fn report() -> Report {
        let rows = vec![
            row("empty", &[10; 40], 0),
            row("select", &[20; 30], 0),
            row("insert-one", &[2_000, 3_000_000], 2),
            row("cold", &[], 0),
        ];
        Report {
            rows,
            tables: Vec::new(),
            seconds: 0.5,
            rate: None,
            cores: Some((0, 1)),
            failure: None,
        }
    }

    #[test]
    fn the_table() {
        let expected = "\
scenario     databases clients  requests/s      mean       p50       p90       p99     p99.9       max  errors
empty                1      30          80   10.0 µs   10.0 µs   10.0 µs   10.0 µs   10.0 µs   10.0 µs       0
select               1      30          60   20.0 µs   20.0 µs   20.0 µs   20.0 µs   20.0 µs   20.0 µs       0
insert-one           1      30           4    1.50 s   2.02 ms    3.00 s    3.00 s    3.00 s    3.00 s       2
cold                 1      30           0         -         -         -         -         -         -       0

select/empty                    0.75   what SQL costs beyond the HTTP loop; 1 would be nothing

closed loop: each client sends its next request when the answer has arrived; 0.5 s each; server on core 0, load on core 1
";
        let table = report().table();
        let mut disturbed = report();
        disturbed.rows[1].outcome.core_wait_share = 0.5;
        let note = "select: not to be trusted, 50 % of the time was spent waiting for a core that \
                    others used\n";
        assert_eq!(disturbed.table(), format!("{expected}{note}"));
        assert_eq!(table, expected, "\n{table}");
        let mut report = report();
        let verdict = "2 requests failed; the first, in insert-one: error 0";
        assert_eq!(report.verdict(), Err(verdict.to_owned()));
        report.failure = Some("the disk is gone".to_owned());
        assert_eq!(report.verdict(), Err("the disk is gone".to_owned()));
        report.failure = None;
        report.rows.remove(2);
        assert_eq!(report.verdict(), Ok(()));
    }

    #[test]
    fn a_table_of_its_own() {
        let mut report = report();
        report.rows.clear();
        let mut table = Table::new("shares", &["second", "µs"]);
        table.rows.push(vec!["1".to_owned(), "long cell".to_owned()]);
        let mut tally = Tally::default();
        table.note_first_error("a", &tally);
        tally.first_error = Some("HTTP 429: full".to_owned());
        table.note_first_error("a", &tally);
        table.note_first_error("a", &tally);
        report.tables.push(table);
        let expected = "\
shares
second  µs
1       long cell
- a was told: HTTP 429: full

0.5 s each; server on core 0, load on core 1
";
        assert_eq!(report.table(), expected);
        let json = &report.json()["tables"][0];
        assert_eq!(json["rows"], json!([{"second": "1", "µs": "long cell"}]));
    }

    #[test]
    fn the_json() {
        let json = report().json();
        assert_eq!(json["ratios"], json!({"select/empty": 0.75}));
        assert_eq!(json["scenarios"][0]["requests_per_second"], 80.0);
        assert_eq!(json["scenarios"][0]["latency_ns"]["p99"], 10_000);
        assert_eq!(json["scenarios"][2]["errors"], 2);
        assert_eq!(json["scenarios"][2]["first_error"], "error 0");
        assert_eq!(json["client_core"], 1);
    }

    #[test]
    fn durations() {
        let check = |ns, expected: &str| assert_eq!(duration_text(ns), expected);
        check(0, "-");
        check(999, "999 ns");
        check(1_000, "1.00 µs");
        check(9_996, "10.0 µs");
        check(99_949, "99.9 µs");
        check(99_951, "100 µs");
        check(1_000_000, "1.00 ms");
        check(61_000_000_000, "61.0 s");
    }
}
