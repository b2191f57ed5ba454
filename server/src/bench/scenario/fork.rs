//! Forks of a large database while it is written to: what its writers see before and during them, how
//! long each takes, and whether the copies are whole.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Bench, OK};
use crate::bench::load::{Outcome, Until};
use crate::bench::report::{Table, duration_text};
use crate::bench::request::{Choice, Order, Target, Template};
use crate::caller;

/// Rows of a kilobyte and a half each, with an index: what the database is filled with.
const ROW_BYTES: u64 = 1_500;

/// Rows of one request while it is filled.
const ROWS_AT_ONCE: u64 = 1_000;

/// One transaction of a writer: what two accounts hold together stays the same.
const WRITE: [&str; 4] = [
    "BEGIN IMMEDIATE",
    "UPDATE account SET money = money - 1 WHERE id = 1",
    "UPDATE account SET money = money + 1 WHERE id = 2",
    "INSERT INTO log(text) VALUES(hex(randomblob(100))); COMMIT",
];

/// The longest that one fork may take.
const FORK_TIMEOUT: Duration = Duration::from_secs(600);

impl Bench<'_> {
    pub(super) fn fork(&mut self) -> Result<(), String> {
        let name = "fork";
        let bytes = self.fill_for_forks(name)?;
        let mut table =
            Table::new("forks while it is written to", &["", "writes/s", "p50", "p99", "most"]);
        let before = self.write(name, "before")?;
        table.rows.push(row("before", &before));
        let admin = self.admin.clone().ok_or("fork needs the admin API: give --admin-url")?;
        let base = format!("{}-00000000", self.base_name(name));
        let over = AtomicBool::new(false);
        let (during, forks) = std::thread::scope(|scope| {
            let forking = scope.spawn(|| fork_until(&admin, &base, &over));
            let during = self.write(name, "during");
            over.store(true, Ordering::Relaxed);
            (during, forking.join())
        });
        let during = during?;
        let forks = forks.map_err(|_| "the thread that forks has ended".to_owned())??;
        table.rows.push(row("during", &during));
        for (index, took) in forks.iter().enumerate() {
            let copy = format!("{base}-copy-{index}");
            self.check_copy(&copy)?;
            let took = duration_text(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            table
                .notes
                .push(format!("fork {index}: {took}; integrity_check: ok, the sum is right"));
        }
        table.notes.push(format!(
            "{} MiB to begin with; one writer a connection, {} connections",
            bytes >> 20,
            self.options.connections
        ));
        self.tables.push(table);
        self.keep("fork-before", 1, before);
        self.keep("fork-during", 1, during);
        Ok(())
    }

    /// A database of about `--fork-bytes`.
    fn fill_for_forks(&mut self, name: &str) -> Result<u64, String> {
        let bytes = self.options.fork_bytes;
        let schema = "CREATE TABLE account(id INTEGER PRIMARY KEY, money INTEGER)";
        self.prepare(name, 1, 0)?;
        self.run_once(name, schema)?;
        self.run_once(name, "CREATE TABLE log(id INTEGER PRIMARY KEY, text TEXT)")?;
        self.run_once(name, "INSERT INTO account VALUES(1, 1000000), (2, 0)")?;
        let fill = format!(
            "INSERT INTO log(text) WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n \
             LIMIT {ROWS_AT_ONCE}) SELECT hex(randomblob({})) FROM n",
            ROW_BYTES / 2
        );
        for _ in 0..bytes.div_ceil(ROW_BYTES * ROWS_AT_ONCE) {
            self.run_once(name, &fill)?;
        }
        Ok(bytes)
    }

    fn write(&mut self, name: &str, label: &str) -> Result<Outcome, String> {
        // As a script, so that its transaction is one request.
        let script = WRITE.join("; ");
        let body = format!(
            r#"{{"requests":[{{"type":"sequence","sql":"{script}"}},{{"type":"close"}}]}}"#
        );
        let path = format!("/db/{}-00000000/v2/pipeline", self.base_name(name));
        let template = Template::new(self.target(), "POST", &path, &body, OK);
        let choice = Choice { order: Order::Sequential, tenants: 1, rows: 1 };
        let outcome = self.load(label, &template, choice, self.for_seconds())?;
        super::all_good(label, &outcome)?;
        Ok(outcome)
    }

    /// A statement, once.
    fn run_once(&mut self, name: &str, sql: &str) -> Result<(), String> {
        let template = Template::pipeline(self.target(), &self.base_name(name), &[(sql, None)], OK);
        let choice = Choice { order: Order::Sequential, tenants: 1, rows: 1 };
        let outcome = self.load("preparing", &template, choice, Until::Requests(1))?;
        super::all_good("preparing", &outcome)
    }

    fn check_copy(&mut self, copy: &str) -> Result<(), String> {
        let target = self.target().clone();
        for (sql, wanted) in
            [("PRAGMA integrity_check", "ok"), ("SELECT sum(money) = 1000000 FROM account", "1")]
        {
            let body = format!(
                r#"{{"requests":[{{"type":"execute","stmt":{{"sql":"{sql}"}}}},{{"type":"close"}}]}}"#
            );
            let path = format!("/db/{copy}/v2/pipeline");
            let (status, answer) = caller::call_for(&target, "POST", &path, &body, FORK_TIMEOUT)?;
            let found = &answer["results"][0]["response"]["result"]["rows"][0][0]["value"];
            if status != 200 || found != wanted {
                return Err(format!("{copy}: {sql}: {status} {answer}"));
            }
        }
        Ok(())
    }
}

/// One fork after the other until it is over, and at least one: how long each took.
fn fork_until(admin: &Target, base: &str, over: &AtomicBool) -> Result<Vec<Duration>, String> {
    let mut took = Vec::new();
    while took.is_empty() || !over.load(Ordering::Relaxed) {
        let path = format!("/v1/namespaces/{base}/fork/{base}-copy-{}", took.len());
        let begun = Instant::now();
        let (status, answer) = caller::call_for(admin, "POST", &path, "", FORK_TIMEOUT)?;
        if status != 200 {
            return Err(format!("{path}: {status} {answer}"));
        }
        took.push(begun.elapsed());
    }
    Ok(took)
}

fn row(what: &str, outcome: &Outcome) -> Vec<String> {
    let latency = |per_mille| duration_text(outcome.latencies.quantile(per_mille));
    vec![
        what.to_owned(),
        format!("{:.0}", outcome.per_second()),
        latency(500),
        latency(990),
        latency(1000),
    ]
}
