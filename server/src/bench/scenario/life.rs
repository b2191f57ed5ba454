//! What databases that live briefly cost: created one by one and in bulk, used once, and dropped; and
//! that nothing of them is left. `template` has those that do not begin empty.
//!
//! The cycle of create, first insert and drop runs on one client with a connection to each address, so
//! its times are what one caller waits; each is from the request to the last byte of its answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::neighbours::ledger;
use super::{Bench, CREATE_TABLE, INSERT, OK, all_good};
use crate::bench::histogram::Histogram;
use crate::bench::load::Until;
use crate::bench::reply;
use crate::bench::report::Table;
use crate::bench::request::{Choice, Order, TENANT_HOLE, Target, Template};

/// Databases of each class that go through the cycle.
const CYCLES: u32 = 1_000;

/// Most that one bulk call takes.
const BULK_MAX: u32 = 10_000;

const PATIENCE: Duration = Duration::from_secs(60);

/// How long is waited for the last of what was dropped to be given back: a checkpoint or two.
const SETTLE: Duration = Duration::from_secs(10);

/// One connection that is kept.
struct Line {
    target: Target,
    stream: TcpStream,
    input: Vec<u8>,
    answer: Vec<u8>,
}

impl Line {
    fn to(target: &Target) -> Result<Line, String> {
        let stream = target.connect(PATIENCE)?;
        Ok(Line { target: target.clone(), stream, input: Vec::new(), answer: Vec::new() })
    }

    /// One request that is to succeed; its answer's body.
    fn call(&mut self, method: &str, path: &str, body: &str) -> Result<&[u8], String> {
        let template = Template::new(&self.target, method, path, body, "");
        let failed = |what: String| format!("{method} {path}: {what}");
        self.stream.write_all(template.bytes()).map_err(|error| failed(error.to_string()))?;
        self.input.clear();
        let mut buffer = [0; 64 * 1024];
        loop {
            let parsed = reply::parse(&self.input, &mut self.answer);
            if let Some(reply) = parsed.map_err(|error| failed(error.to_string()))? {
                if reply.status != 200 {
                    let text = String::from_utf8_lossy(&self.answer).into_owned();
                    return Err(failed(format!("{} {text}", reply.status)));
                }
                return Ok(&self.answer);
            }
            match self.stream.read(&mut buffer).map_err(|error| failed(error.to_string()))? {
                0 => return Err(failed("the server ended the connection".to_owned())),
                count => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }

    fn timed(
        &mut self,
        histogram: &mut Histogram,
        (method, path, body): (&str, &str, &str),
    ) -> Result<u64, String> {
        let begun = Instant::now();
        self.call(method, path, body)?;
        let took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        histogram.record(took_ns);
        Ok(took_ns)
    }
}

fn micros(nanoseconds: u64) -> String {
    format!("{:.0} us", nanoseconds as f64 / 1e3)
}

/// What stands on disk and in the books.
#[derive(PartialEq, Eq)]
struct Standing {
    files: u64,
    bytes: u64,
    descriptors: Option<u64>,
    /// Of databases, without the catalogue.
    ledger: Vec<(String, u64)>,
}

impl Bench<'_> {
    pub(super) fn life(&mut self) -> Result<(), String> {
        self.create()?;
        self.bulk_life()?;
        self.cycles()?;
        self.used_once()?;
        // Last: its databases stay, and what is left open of them would disturb the others.
        self.seeded()
    }

    fn admin_line(&self) -> Result<Line, String> {
        Line::to(self.admin.as_ref().ok_or("life needs the admin API")?)
    }

    /// Creates and drops in one call each.
    fn bulk_life(&mut self) -> Result<(), String> {
        let count = self.options.tenants.min(BULK_MAX);
        let heads = ["class", "databases", "created", "a second", "dropped", "a second"];
        let mut table = Table::new("in bulk", &heads);
        for class in ["durable", "memory"] {
            let mut line = self.admin_line()?;
            let names = format!(r#""prefix":"{}-","count":{count}"#, self.base_name("bulk"));
            let begun = Instant::now();
            let create = format!(r#"{{{names},"class":"{class}"}}"#);
            finished(line.call("POST", "/v1/bulk/create", &create)?, count)?;
            let created = begun.elapsed();
            let begun = Instant::now();
            finished(line.call("POST", "/v1/bulk/drop", &format!("{{{names}}}"))?, count)?;
            let dropped = begun.elapsed();
            let rate = |took: Duration| format!("{:.0}", f64::from(count) / took.as_secs_f64());
            let time = |took: Duration| format!("{:.3} s", took.as_secs_f64());
            table.rows.push(vec![
                class.to_owned(),
                count.to_string(),
                time(created),
                rate(created),
                time(dropped),
                rate(dropped),
            ]);
        }
        self.tables.push(table);
        Ok(())
    }

    /// Create, first insert, drop, one after the other.
    fn cycles(&mut self) -> Result<(), String> {
        let heads = ["class", "step", "p50", "p99", "max"];
        let mut table = Table::new("create, first insert, drop", &heads);
        let count = CYCLES.min(self.options.tenants);
        for class in ["durable", "memory"] {
            let (mut admin, mut client) = (self.admin_line()?, Line::to(self.target())?);
            let mut steps: [Histogram; 4] = std::array::from_fn(|_| Histogram::new());
            let base = self.base_name("cycle");
            let create_body = format!(r#"{{"class":"{class}"}}"#);
            let statement = |sql: &str| format!(r#"{{"type":"execute","stmt":{{"sql":"{sql}"}}}}"#);
            let insert = INSERT.replace('?', "'first'");
            let insert_body = format!(
                r#"{{"requests":[{},{},{{"type":"close"}}]}}"#,
                statement(CREATE_TABLE),
                statement(&insert)
            );
            for number in 0..count {
                let name = format!("{base}-{number}");
                let path = format!("/v1/namespaces/{name}");
                let [create, use_once, drop, all] = &mut steps;
                let mut took_ns =
                    admin.timed(create, ("POST", &format!("{path}/create"), &create_body))?;
                let sql = format!("/db/{name}/v2/pipeline");
                took_ns += client.timed(use_once, ("POST", &sql, &insert_body))?;
                took_ns += admin.timed(drop, ("DELETE", &path, ""))?;
                all.record(took_ns);
                self.progress
                    .show(Instant::now(), || format!("life, {class}: {number} of {count}"));
            }
            let names = ["create", "table and first insert", "drop", "all three"];
            for (step, histogram) in names.into_iter().zip(&steps) {
                table.rows.push(vec![
                    class.to_owned(),
                    step.to_owned(),
                    micros(histogram.quantile(500)),
                    micros(histogram.quantile(990)),
                    micros(histogram.max()),
                ]);
            }
        }
        self.tables.push(table);
        Ok(())
    }

    /// Many are created, used once and dropped: what there is before and after.
    fn used_once(&mut self) -> Result<(), String> {
        let count = self.options.tenants.min(BULK_MAX);
        let heads = ["", "files", "bytes in files", "descriptors", "ledger"];
        let mut table = Table::new("created, used once, dropped", &heads);
        let base = self.base_name("once");
        let names: Vec<String> =
            (0..count).map(|number| format!(r#""{base}-{number:08}""#)).collect();
        let names = format!(r#""names":[{}]"#, names.join(","));
        let mut admin = self.admin_line()?;
        let before = self.standing(&mut admin)?;
        finished(admin.call("POST", "/v1/bulk/create", &format!("{{{names}}}"))?, count)?;
        let statements = [(CREATE_TABLE, None), ("INSERT INTO bench VALUES (1, 'once')", None)];
        let template = Template::pipeline(self.target(), &base, &statements, OK);
        let choice = Choice { order: Order::Sequential, tenants: count, rows: 1 };
        let until = Until::Requests(u64::from(count));
        let outcome = self.load("life: using each once", &template, choice, until)?;
        all_good("life: using each once", &outcome)?;
        let between = self.standing(&mut admin)?;
        let dropped = admin.call("POST", "/v1/bulk/drop", &format!("{{{names}}}"))?;
        let even = finished(dropped, count)?;
        let deadline = Instant::now() + SETTLE;
        let mut after = self.standing(&mut admin)?;
        while after != before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
            after = self.standing(&mut admin)?;
        }
        for (when, standing) in [("before", &before), ("used", &between), ("after", &after)] {
            let ledger: Vec<String> =
                standing.ledger.iter().map(|(kind, bytes)| format!("{kind} {bytes}")).collect();
            table.rows.push(vec![
                when.to_owned(),
                standing.files.to_string(),
                standing.bytes.to_string(),
                standing.descriptors.map_or("?".to_owned(), |count| count.to_string()),
                ledger.join(", "),
            ]);
        }
        table.notes.push(format!("the sum of all receipts is even: {even}"));
        table.notes.push(format!("the same before and after: {}", before == after));
        self.tables.push(table);
        debug_assert_eq!(TENANT_HOLE.len(), 8, "names have eight digits");
        Ok(())
    }

    fn standing(&self, admin: &mut Line) -> Result<Standing, String> {
        let text = admin.call("GET", "/metrics", "")?;
        // The catalogue's file and caches are its own, so of kinds only what it has none of.
        let kept = ["temporary", "main"];
        let books = ledger(text).into_iter().filter(|(kind, _)| kept.contains(&kind.as_str()));
        let text = String::from_utf8_lossy(text);
        let machine = r#"myriad_ledger_account_bytes{account="machine"} "#;
        let memory = text.lines().find_map(|line| line.strip_prefix(machine)?.parse().ok());
        let ledger = books.chain([("memory".to_owned(), memory.unwrap_or(u64::MAX))]).collect();
        let (files, bytes) = count_files(&self.folder().join("data/tenants"));
        let descriptors = self.server.as_ref().and_then(|server| server.descriptors());
        Ok(Standing { files, bytes, descriptors, ledger })
    }
}

/// Regular files below a folder, and their bytes, without the catalogue's own.
fn count_files(folder: &std::path::Path) -> (u64, u64) {
    let Ok(entries) = std::fs::read_dir(folder) else { return (0, 0) };
    let mut sums = (0, 0);
    for entry in entries.flatten() {
        let path = entry.path();
        let (files, bytes) = match entry.metadata() {
            Ok(known) if known.is_dir() => count_files(&path),
            Ok(known) if !path.ends_with("0.db") => (1, known.len()),
            _ => (0, 0),
        };
        sums = (sums.0 + files, sums.1 + bytes);
    }
    sums
}

/// The last line of an answer to a bulk call says that all was done: whether its receipt is even.
fn finished(lines: &[u8], count: u32) -> Result<bool, String> {
    let text = String::from_utf8_lossy(lines);
    let last = text.lines().last().unwrap_or_default();
    let value: Value = serde_json::from_str(last).map_err(|error| format!("{error}: {last}"))?;
    if value["succeeded"] != u64::from(count) {
        let last: String = last.chars().take(500).collect();
        return Err(format!("not all of {count} were done: {last}"));
    }
    Ok(value["receipt"]["even"] == true)
}
