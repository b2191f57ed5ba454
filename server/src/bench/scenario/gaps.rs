//! How long one statement keeps the loop from others: the longest stretch of processor time between two
//! looks at the turn, of each statement of the attack battery and of random ones.
//!
//! The server measures itself (`storage::stretch`) and tells at `GET /health`. One client asks, so a
//! stretch is of the statement that was just answered: its compiling, running and writing of the answer,
//! and its database's opening, if it was the first.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Bench;
use crate::bench::battery;
use crate::bench::generator::Generator;
use crate::bench::histogram::Histogram;
use crate::bench::report::Table;
use crate::bench::request::Target;
use crate::caller;

const BATTERY: &str = include_str!("../../../tests/attacks/statements.txt");

/// Random statements on one database, before the next seed's.
const STATEMENTS_PER_SEED: u32 = 250;

/// What the worst are shown with.
const WORST_SHOWN: usize = 12;

/// Bytes of a statement's text that are shown.
const SHOWN_BYTES: usize = 150;

const PATIENCE: Duration = Duration::from_secs(120);

/// The budget of a random statement's database: products of tables end.
const BUDGET: &str = r#"{"budget":{"request_ns":"250ms"}}"#;

/// Longest stretches by statement.
struct Stretches {
    histogram: Histogram,
    worst: Vec<(u64, String)>,
    failed: u64,
}

impl Stretches {
    fn new() -> Stretches {
        Stretches { histogram: Histogram::new(), worst: Vec::new(), failed: 0 }
    }

    fn record(&mut self, longest_ns: u64, sql: &str) {
        self.histogram.record(longest_ns);
        let last = self.worst.last().map_or(0, |(other, _)| *other);
        if self.worst.len() < WORST_SHOWN || longest_ns > last {
            let text: String = sql.chars().take(SHOWN_BYTES).collect();
            let at = self.worst.partition_point(|(other, _)| *other >= longest_ns);
            self.worst.insert(at, (longest_ns, text));
            self.worst.truncate(WORST_SHOWN);
        }
    }
}

/// A connection that reads answers of any length.
struct Line {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Line {
    fn to(target: &Target) -> Result<Line, String> {
        let stream = target.connect(PATIENCE)?;
        Ok(Line { stream, input: Vec::new() })
    }

    /// The body of the answer.
    fn ask(&mut self, method: &str, path: &str, cost: &str, body: &str) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("{method} {path}: {error}");
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\n{cost}content-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(head.as_bytes()).map_err(failed)?;
        let head = self.until(b"\r\n\r\n").map_err(failed)?;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if head.contains("\r\ntransfer-encoding: chunked\r\n") {
            let mut all = Vec::new();
            loop {
                let line = self.until(b"\r\n").map_err(failed)?;
                let digits = String::from_utf8_lossy(&line);
                let size = usize::from_str_radix(digits.trim(), 16).unwrap_or(0);
                all.extend(self.exactly(size).map_err(failed)?);
                self.exactly(2).map_err(failed)?;
                if size == 0 {
                    return Ok(all);
                }
            }
        }
        let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| {
            let (digits, _) = rest.split_once("\r\n")?;
            digits.parse().ok()
        });
        let length =
            length.ok_or_else(|| format!("{method} {path}: an answer without a length"))?;
        self.exactly(length).map_err(failed)
    }

    fn more(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.input.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    fn until(&mut self, end: &[u8]) -> std::io::Result<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.input, end) {
                return Ok(self.input.drain(..at + end.len()).collect());
            }
            self.more()?;
        }
    }

    fn exactly(&mut self, bytes: usize) -> std::io::Result<Vec<u8>> {
        while self.input.len() < bytes {
            self.more()?;
        }
        Ok(self.input.drain(..bytes).collect())
    }

    /// The longest stretch since the last question, in nanoseconds.
    fn longest_ns(&mut self) -> Result<u64, String> {
        let body = self.ask("GET", "/health", "", "")?;
        let text = String::from_utf8_lossy(&body);
        text.parse().map_err(|_| "the server does not measure: start it by this bench".to_owned())
    }
}

/// A statement's stream: the baton of the next request.
struct Stream<'a> {
    path: String,
    cost: Option<&'a str>,
    baton: Value,
}

impl Stream<'_> {
    fn run(&mut self, line: &mut Line, sql: &str, is_sequence: bool) -> Result<bool, String> {
        let request = match is_sequence {
            true => json!({"type": "sequence", "sql": sql}),
            false => json!({"type": "execute", "stmt": {"sql": sql}}),
        };
        let body = json!({"baton": self.baton.take(), "requests": [request]}).to_string();
        let cost = self.cost.map(|cost| format!("x-myriad-max-cost: {cost}\r\n"));
        let answer = line.ask("POST", &self.path, &cost.unwrap_or_default(), &body)?;
        let mut answer: Value = serde_json::from_slice(&answer).unwrap_or(Value::Null);
        self.baton = answer["baton"].take();
        Ok(answer["results"][0]["type"] == "ok")
    }
}

impl Bench<'_> {
    pub(super) fn gaps(&mut self) -> Result<(), String> {
        let mut line = Line::to(self.target())?;
        let battery = self.gaps_of_battery(&mut line)?;
        let random = self.gaps_of_random(&mut line)?;
        let heads = ["statements", "count", "failed", "p50 ms", "p99 ms", "p99.9 ms", "worst ms"];
        let mut table = Table::new("longest stretch without a look at the turn", &heads);
        for (name, stretches) in [("of the battery", &battery), ("random", &random)] {
            let histogram = &stretches.histogram;
            let quantile = |per_mille| milliseconds(histogram.quantile(per_mille));
            table.rows.push(vec![
                name.to_owned(),
                histogram.count().to_string(),
                stretches.failed.to_string(),
                quantile(500),
                quantile(990),
                quantile(999),
                milliseconds(histogram.max()),
            ]);
        }
        table
            .notes
            .push("in processor time of the loop's thread, one value a statement".to_owned());
        self.tables.push(table);
        for (title, stretches) in
            [("worst of the battery", battery), ("worst random statements", random)]
        {
            let mut table = Table::new(title, &["ms", "statement"]);
            for (longest_ns, sql) in stretches.worst {
                table.rows.push(vec![milliseconds(longest_ns), sql]);
            }
            self.tables.push(table);
        }
        Ok(())
    }

    fn gaps_of_battery(&mut self, line: &mut Line) -> Result<Stretches, String> {
        let mut stretches = Stretches::new();
        for case in battery::cases(BATTERY) {
            self.progress.show(Instant::now(), || format!("gaps: {}", case.name));
            let name = self.base_name("gaps");
            let mut stream = self.attacked(&name, case.setting("with").unwrap_or("{}"))?;
            stream.cost = case.setting("cost");
            line.longest_ns()?;
            for attack in battery::attacks(&case) {
                let good = stream.run(line, &attack.sql, attack.is_sequence)?;
                stretches.failed += u64::from(!good);
                stretches.record(line.longest_ns()?, &attack.sql);
            }
            self.drop_attacked(&name)?;
        }
        Ok(stretches)
    }

    fn gaps_of_random(&mut self, line: &mut Line) -> Result<Stretches, String> {
        let mut stretches = Stretches::new();
        let wanted = self.options.statements;
        for seed in 0..wanted.div_ceil(STATEMENTS_PER_SEED) {
            self.progress
                .show(Instant::now(), || format!("gaps: random statements of seed {seed}"));
            let name = self.base_name("gaps");
            let mut stream = self.attacked(&name, BUDGET)?;
            let mut generator = Generator::new(u64::from(seed));
            for sql in generator.schema() {
                stream.run(line, &sql, false)?;
            }
            line.longest_ns()?;
            for _ in 0..STATEMENTS_PER_SEED.min(wanted - seed * STATEMENTS_PER_SEED) {
                let sql = generator.statement();
                let good = stream.run(line, &sql, false)?;
                stretches.failed += u64::from(!good);
                stretches.record(line.longest_ns()?, &sql);
            }
            self.drop_attacked(&name)?;
        }
        Ok(stretches)
    }

    fn attacked<'c>(&self, name: &str, settings: &str) -> Result<Stream<'c>, String> {
        let admin = self.admin.as_ref().expect("a server of ours has one");
        let path = format!("/v1/namespaces/{name}/create");
        match caller::call(admin, "POST", &path, settings)? {
            (200, _) => {}
            (status, answer) => return Err(format!("creating {name}: {status} {answer}")),
        }
        Ok(Stream { path: format!("/db/{name}/v3/pipeline"), cost: None, baton: Value::Null })
    }

    fn drop_attacked(&self, name: &str) -> Result<(), String> {
        let admin = self.admin.as_ref().expect("a server of ours has one");
        let path = format!("/v1/namespaces/{name}");
        caller::call_for(admin, "DELETE", &path, "", PATIENCE).map(drop)
    }
}

fn milliseconds(ns: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let milliseconds = ns as f64 / 1e6;
    format!("{milliseconds:.3}")
}
