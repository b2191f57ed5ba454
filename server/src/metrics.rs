//! `/metrics`: Prometheus text, from values.
//!
//! Labels are memory too, here and with whoever collects them: kinds, named accounts, statuses and
//! problem codes are fixed sets, and of databases only the first few by processor time, I/O and
//! memory are named. A call costs O(open tenants).
//!
//! The top databases' counters are since each was created, so that one that closes, opens, or leaves
//! the list goes on where it was. Totals are since the start.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use storage::ledger::{self, AccountId, KIND_NAMES};
use tenant::{Counters, TenantView};

/// Databases that are named for each resource.
const TOP_TENANTS: usize = 10;

/// Upper ends of the histogram's buckets: nanoseconds, and the same in seconds as Prometheus writes
/// it. From an answer without any wait to the longest time that a request has by default.
const BUCKETS: [(u64, &str); 15] = [
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
];

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// What the server counts of its requests since the start.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Requests received.
    pub requests: u64,
    /// Answers to requests for databases, by HTTP status: as many entries as we use statuses.
    responses: BTreeMap<u16, u64>,
    /// Requests refused as a whole, by the code in the answer: constants of this program.
    refusals: BTreeMap<&'static str, u64>,
    /// Times by bucket; the last entry has those above all of them.
    times: [u64; BUCKETS.len() + 1],
    times_sum_ns: u64,
}

impl Traffic {
    /// The answer to a request for a database has begun, so long after the request was complete.
    pub fn note_response(&mut self, status: u16, took_ns: u64) {
        *self.responses.entry(status).or_default() += 1;
        self.times[BUCKETS.partition_point(|&(end_ns, _)| end_ns < took_ns)] += 1;
        self.times_sum_ns = self.times_sum_ns.saturating_add(took_ns);
    }

    /// A request was refused.
    pub fn note_refusal(&mut self, code: &'static str) {
        *self.refusals.entry(code).or_default() += 1;
    }
}

/// Numbers of the server and its engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Counters of the engine.
    pub counters: Counters,
    /// Bytes that databases may hold together now.
    pub memory_bytes: u64,
    /// Connections open now.
    pub connections: usize,
    /// Databases open now.
    pub open_tenants: usize,
    /// Streams parked now.
    pub parked_streams: usize,
    /// Bytes of the commit log in use.
    pub log_used_bytes: u64,
    /// Bytes of the commit log.
    pub log_capacity_bytes: u64,
    /// Nanoseconds that budgets have delayed tenants.
    pub throttled_ns: u64,
}

/// The text. `views`: all open tenants.
#[must_use]
pub fn metrics(gauges: &Gauges, traffic: &Traffic, views: &[TenantView]) -> Vec<u8> {
    let mut page = Page::default();
    page.server(gauges, traffic);
    page.engine(gauges);
    page.ledger();
    page.times(traffic);
    page.top(views);
    page.0.into_bytes()
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, kind: &str, name: &str, help: &str) {
        let text = format_args!("# HELP myriad_{name} {help}\n# TYPE myriad_{name} {kind}\n");
        self.0.write_fmt(text).expect("a String takes every write");
    }

    fn line(&mut self, name: &str, label: Option<(&str, &str)>, value: &str) {
        let text = &mut self.0;
        let written = match label {
            Some((key, label)) => writeln!(text, "myriad_{name}{{{key}=\"{label}\"}} {value}"),
            None => writeln!(text, "myriad_{name} {value}"),
        };
        written.expect("a String takes every write");
    }

    fn number(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        self.head(kind, name, help);
        self.line(name, None, &value.to_string());
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.number("gauge", name, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.number("counter", name, help, value);
    }

    fn server(&mut self, gauges: &Gauges, traffic: &Traffic) {
        self.counter("requests_total", "HTTP requests received.", traffic.requests);
        self.gauge("connections", "Connections open now.", gauges.connections as u64);
        self.head("counter", "responses_total", "Answers to requests for databases.");
        for (status, count) in &traffic.responses {
            let label = Some(("status", &*status.to_string()));
            self.line("responses_total", label, &count.to_string());
        }
        self.head("counter", "refusals_total", "Requests refused as a whole.");
        for (code, count) in &traffic.refusals {
            self.line("refusals_total", Some(("code", code)), &count.to_string());
        }
    }

    fn engine(&mut self, gauges: &Gauges) {
        let Gauges { counters, .. } = gauges;
        self.gauge("memory_limit_bytes", "Databases may hold together now.", gauges.memory_bytes);
        self.gauge("open_tenants", "Databases open now.", gauges.open_tenants as u64);
        self.gauge("parked_streams", "Streams parked now.", gauges.parked_streams as u64);
        self.gauge("log_used_bytes", "Commit log in use.", gauges.log_used_bytes);
        self.gauge("log_capacity_bytes", "Commit log.", gauges.log_capacity_bytes);
        self.head("counter", "cpu_seconds_total", "Processor time of fibers.");
        self.line("cpu_seconds_total", None, &seconds(counters.cpu_ns));
        self.head(
            "counter",
            "throttled_seconds_total",
            "Delays by ceilings, of groups and organisations too.",
        );
        self.line("throttled_seconds_total", None, &seconds(gauges.throttled_ns));
        let late = "Turns that came later than the scheduler promises: any is a bug.";
        let timed_out = "Idle transactions that lost the writer lock.";
        for (name, help, value) in [
            ("io_read_bytes_total", "Read for tenants.", counters.io_read_bytes),
            ("io_written_bytes_total", "Written for tenants.", counters.io_written_bytes),
            ("jobs_total", "Jobs started on fibers.", counters.jobs),
            ("commits_total", "Transactions committed.", counters.commits),
            ("checkpoints_total", "Checkpoints completed.", counters.checkpoints),
            ("checkpoint_failures_total", "Checkpoints failed.", counters.checkpoint_failures),
            ("tenant_opens_total", "Databases opened.", counters.opens),
            ("tenant_closes_total", "Databases closed.", counters.closes),
            ("tenant_fences_total", "Databases fenced.", counters.fences),
            ("ended_databases_total", "Databases ended by their settings.", counters.ended),
            ("dropped_databases_total", "Databases dropped, and all given back.", counters.drops),
            (
                "uneven_receipts_total",
                "Drops that did not give back what was taken: any is a bug.",
                counters.uneven_receipts,
            ),
            ("fiber_resumes_total", "Fibers resumed.", counters.resumes),
            ("vm_steps_total", "SQLite VM steps.", counters.vm_steps),
            ("transactions_timed_out_total", timed_out, counters.transactions_timed_out),
            ("gated_total", "Replies that waited for the log.", counters.gated),
            ("late_turns_total", late, counters.late_turns),
            (
                "starved_writers_total",
                "Writers overtaken until they were told of a busy database: any is a bug.",
                counters.starved_writers,
            ),
        ] {
            self.counter(name, help, value);
        }
    }

    fn ledger(&mut self) {
        self.head("gauge", "ledger_bytes", "Bytes booked, by what they are.");
        for (kind, bytes) in KIND_NAMES.into_iter().zip(ledger::total()) {
            self.line("ledger_bytes", Some(("kind", kind)), &bytes.to_string());
        }
        self.head("gauge", "ledger_account_bytes", "Memory booked; databases are machine's.");
        for (account, name) in AccountId::NAMED {
            let held = ledger::memory_held(account).to_string();
            self.line("ledger_account_bytes", Some(("account", name)), &held);
        }
        // Signed: what is booked twice counts below zero.
        self.head("gauge", "unbooked_bytes", "Bytes held and not booked: any is a bug.");
        self.line("unbooked_bytes", None, &ledger::unbooked().to_string());
    }

    fn times(&mut self, traffic: &Traffic) {
        let name = "request_seconds";
        self.head("histogram", name, "From a whole request to its answer's first byte.");
        let mut count = 0;
        let ends = BUCKETS.iter().map(|&(_, end)| end).chain(["+Inf"]);
        for (end, times) in ends.zip(traffic.times) {
            count += times;
            self.line("request_seconds_bucket", Some(("le", end)), &count.to_string());
        }
        self.line("request_seconds_sum", None, &seconds(traffic.times_sum_ns));
        self.line("request_seconds_count", None, &count.to_string());
    }

    fn top(&mut self, views: &[TenantView]) {
        let cpu = |view: &TenantView| view.usage.cpu_ns;
        let io = |view: &TenantView| view.usage.io_read_bytes + view.usage.io_written_bytes;
        self.head("counter", "top_cpu_seconds_total", "Databases that used most.");
        self.ranked("top_cpu_seconds_total", views, cpu, seconds);
        self.head("counter", "top_io_bytes_total", "Databases that read and wrote most.");
        self.ranked("top_io_bytes_total", views, io, |bytes| bytes.to_string());
        self.head("gauge", "top_memory_bytes", "Databases that hold most.");
        let memory = TenantView::memory_bytes;
        self.ranked("top_memory_bytes", views, memory, |bytes| bytes.to_string());
    }

    /// A line for each of the first by `number`. Only what has a name is a client's.
    fn ranked(
        &mut self,
        name: &str,
        views: &[TenantView],
        number: impl Fn(&TenantView) -> u64,
        text: impl Fn(u64) -> String,
    ) {
        let named = views.iter().filter(|view| !view.name.is_empty());
        let mut ranked: Vec<(u64, &str)> = named
            .map(|view| (number(view), &*view.name))
            .filter(|&(number, _)| number > 0)
            .collect();
        let order = |a: &(u64, &str), b: &(u64, &str)| b.0.cmp(&a.0).then(a.1.cmp(b.1));
        if ranked.len() > TOP_TENANTS {
            ranked.select_nth_unstable_by(TOP_TENANTS, order);
            ranked.truncate(TOP_TENANTS);
        }
        ranked.sort_unstable_by(order);
        for (number, database) in ranked {
            // Names hold nothing that a label would escape.
            self.line(name, Some(("database", database)), &text(number));
        }
    }
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> String {
    format!("{}.{:09}", ns / SECOND_NS, ns % SECOND_NS)
}

#[cfg(test)]
mod tests {
    use tenant::budget::Usage;

    use super::*;
    use crate::control::top::tests::view_of;

    fn view(number: u64) -> TenantView {
        let usage = Usage { cpu_ns: 1_500_000_000 * number, ..Usage::default() };
        view_of(number, number, usage)
    }

    fn page(traffic: &Traffic, views: &[TenantView]) -> String {
        let text = metrics(&Gauges::default(), traffic, views);
        String::from_utf8(text).expect("metrics are ASCII")
    }

    #[test]
    fn only_the_first_databases_are_named() {
        let mut views: Vec<TenantView> = (0..1000).map(view).collect();
        views.push(TenantView { name: "".into(), ..view(5000) });
        let text = page(&Traffic::default(), &views);
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("myriad_top_cpu_seconds")).collect();
        assert_eq!(lines.len(), TOP_TENANTS);
        let first = "myriad_top_cpu_seconds_total{database=\"shop-999\"} 1498.500000000";
        assert_eq!(lines[0], first);
        assert!(lines[9].contains("shop-990"));
        let memory = 999 * ledger::MEMORY_KINDS;
        let line = format!("myriad_top_memory_bytes{{database=\"shop-999\"}} {memory}\n");
        assert!(text.contains(&line));
        assert!(!text.contains("myriad_top_io_bytes_total{"), "nobody has read anything");
    }

    #[test]
    fn times_fall_into_buckets() {
        let mut traffic = Traffic::default();
        for took_ns in [0, 250_000, 250_001, 3_000_000, 31_000_000_000] {
            traffic.note_response(200, took_ns);
        }
        traffic.note_refusal("TOO_MANY_REQUESTS");
        let text = page(&traffic, &[]);
        for line in [
            "myriad_request_seconds_bucket{le=\"0.00025\"} 2",
            "myriad_request_seconds_bucket{le=\"0.0005\"} 3",
            "myriad_request_seconds_bucket{le=\"0.005\"} 4",
            "myriad_request_seconds_bucket{le=\"30\"} 4",
            "myriad_request_seconds_bucket{le=\"+Inf\"} 5",
            "myriad_request_seconds_sum 31.003500001",
            "myriad_request_seconds_count 5",
            "myriad_responses_total{status=\"200\"} 5",
            "myriad_refusals_total{code=\"TOO_MANY_REQUESTS\"} 1",
            "myriad_unbooked_bytes 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn buckets_are_in_order_and_say_what_they_are() {
        assert!(BUCKETS.is_sorted());
        for (ns, text) in BUCKETS {
            let named: f64 = text.parse().expect("a number");
            assert_eq!((named * SECOND_NS as f64).round() as u64, ns);
        }
    }
}
