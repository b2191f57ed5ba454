//! `myriad top`: which databases use most right now, from two answers of `GET /v1/top` at a time.
//!
//! A client program, as `bench` is: it alone uses the standard library's sockets and sleeps, and
//! shares no state with a server. Rates are differences of counters over the server's own clock, so
//! a slow answer makes no wrong rate. A database that is met for the first time has no rate yet:
//! its counters go back to its creation.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use serde_json::Value;

use crate::caller::{Admin, get};
pub use crate::control::top::By;
use crate::control::top::LIMIT_MAX;

/// Databases whose last counters are kept between samples; beyond it all are forgotten, and have no
/// rate once.
const KNOWN_MAX: usize = 100_000;

/// Columns of a database's name: the longest names are cut.
const NAME_COLUMNS: usize = 32;

/// Shorter intervals would measure the measuring.
const INTERVAL_MIN: f64 = 0.1;
const INTERVAL_MAX: f64 = 3600.0;

/// Clear the screen, and go to its first place (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// Shows which databases use most: processor, disk, memory, and what their budgets hold back.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Where it is.
    #[command(flatten)]
    pub admin: Admin,

    /// What the first ones are first by
    #[arg(long, value_enum, value_name = "NAME", default_value = "cpu")]
    pub by: By,

    /// Time between two looks, such as 1s or 500ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    pub interval: Duration,

    /// Databases shown
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=LIMIT_MAX as i64))]
    pub limit: u16,

    /// Print the difference of two looks once, and end
    #[arg(long)]
    pub once: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let (digits, scale) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1e-3),
        (None, Some(digits)) => (digits, 1.0),
        (None, None) => (text, 1.0),
    };
    let number: f64 = digits.trim().parse().map_err(|_| "not a time such as 1s or 500ms")?;
    let seconds = number * scale;
    // Also refuses NaN.
    if (INTERVAL_MIN..=INTERVAL_MAX).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("must be between 100ms and 3600s".to_owned())
    }
}

/// Look at the server until somebody ends this program, or twice.
///
/// # Errors
/// A sentence for the person at the terminal: the server does not answer, or is another one.
pub fn run(options: &Options) -> Result<(), String> {
    let target = options.admin.target()?;
    let mut view = View::default();
    view.take(&get(&target, &view.path(options.by))?)?;
    loop {
        std::thread::sleep(options.interval);
        let rows = view.take(&get(&target, &view.path(options.by))?)?;
        let table = table(rows, options);
        let screen = if options.once { table } else { format!("{CLEAR}{table}") };
        let mut out = std::io::stdout().lock();
        match out.write_all(screen.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(format!("cannot print the table: {error}")),
        }
        if options.once {
            return Ok(());
        }
    }
}

/// A database's counters at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    cpu_ns: u64,
    io_bytes: u64,
    requests: u64,
    throttled_ns: u64,
}

/// A database between two looks.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    name: String,
    state: String,
    memory_bytes: u64,
    /// Parts of a core, bytes, requests, parts of the time; a second. None when first met.
    rates: Option<[f64; 4]>,
}

/// What is known of the server.
#[derive(Clone, Debug, Default)]
struct View {
    now_ns: Option<u64>,
    /// Counters at the last look that listed them. Who is not listed has not been in use, so they
    /// still hold.
    known: BTreeMap<u64, Counted>,
}

impl View {
    /// What to ask for. Who was not in use since the last look still holds memory, but has no rate.
    fn path(&self, by: By) -> String {
        let mut path = format!("/v1/top?by={}&limit={LIMIT_MAX}", by.name());
        if let (Some(now_ns), true) = (self.now_ns, by != By::Memory) {
            path.push_str(&format!("&since={now_ns}"));
        }
        path
    }

    /// Take an answer: the rows since the one before.
    fn take(&mut self, answer: &Value) -> Result<Vec<Row>, String> {
        let wrong = || "the control API's answer is not that of GET /v1/top".to_owned();
        let now_ns = answer["now_ns"].as_u64().ok_or_else(wrong)?;
        let tenants = answer["tenants"].as_array().ok_or_else(wrong)?;
        let before_ns = self.now_ns.replace(now_ns).unwrap_or(now_ns);
        // A server that was started again counts from another zero.
        let passed_ns = now_ns.checked_sub(before_ns).filter(|&passed| passed > 0);
        if self.known.len() > KNOWN_MAX {
            self.known.clear();
        }
        let mut rows = Vec::with_capacity(tenants.len());
        for tenant in tenants {
            let id = tenant["id"].as_u64().ok_or_else(wrong)?;
            let usage = |name: &str| tenant["usage"][name].as_u64().ok_or_else(wrong);
            let counted = Counted {
                cpu_ns: usage("cpu_ns")?,
                io_bytes: usage("io_read_bytes")?.saturating_add(usage("io_written_bytes")?),
                requests: usage("requests")?,
                throttled_ns: usage("throttled_ns")?,
            };
            let before = self.known.insert(id, counted);
            rows.push(Row {
                name: name_of(id, tenant["name"].as_str().ok_or_else(wrong)?),
                state: tenant["state"].as_str().ok_or_else(wrong)?.to_owned(),
                memory_bytes: tenant["memory_bytes"].as_u64().ok_or_else(wrong)?,
                rates: before.zip(passed_ns).map(|(before, passed)| rates(before, counted, passed)),
            });
        }
        Ok(rows)
    }
}

fn rates(before: Counted, now: Counted, passed_ns: u64) -> [f64; 4] {
    let per_second = |before: u64, now: u64| {
        // A crash takes back what was not written down.
        now.saturating_sub(before) as f64 * 1e9 / passed_ns as f64
    };
    [
        per_second(before.cpu_ns, now.cpu_ns) / 1e9,
        per_second(before.io_bytes, now.io_bytes),
        per_second(before.requests, now.requests),
        per_second(before.throttled_ns, now.throttled_ns) / 1e9,
    ]
}

/// A name fit for a terminal, whoever answered.
fn name_of(id: u64, name: &str) -> String {
    if name.is_empty() {
        let catalogue = id == storage::TenantId::CATALOGUE.0;
        return if catalogue { "(catalogue)".into() } else { "(dropped)".into() };
    }
    name.chars().filter(|letter| !letter.is_control()).take(NAME_COLUMNS).collect()
}

/// The rows for people, the first by what was asked for.
fn table(mut rows: Vec<Row>, options: &Options) -> String {
    let key = |row: &Row| match (options.by, row.rates) {
        (By::Memory, _) => row.memory_bytes as f64,
        (_, None) => -1.0,
        (By::Cpu, Some([cpu, ..])) => cpu,
        (By::Io, Some([_, io, ..])) => io,
        (By::Throttled, Some([.., throttled])) => throttled,
    };
    rows.sort_by(|a, b| key(b).total_cmp(&key(a)).then_with(|| a.name.cmp(&b.name)));
    let mut text = format!(
        "{:<NAME_COLUMNS$} {:>7} {:>10} {:>11} {:>11} {:>11}  STATE\n",
        "DATABASE", "CPU %", "IO MiB/s", "MEMORY MiB", "REQUESTS/s", "THROTTLED %"
    );
    for row in rows.iter().take(usize::from(options.limit)) {
        let [cpu, io, requests, throttled] = match row.rates {
            Some([cpu, io, requests, throttled]) => [
                format!("{:.1}", cpu * 100.0),
                format!("{:.2}", io / MIB),
                format!("{requests:.1}"),
                format!("{:.1}", throttled * 100.0),
            ],
            None => std::array::from_fn(|_| "-".to_owned()),
        };
        let memory = row.memory_bytes as f64 / MIB;
        text.push_str(&format!(
            "{:<NAME_COLUMNS$} {cpu:>7} {io:>10} {memory:>11.2} {requests:>11} {throttled:>11}  {}\n",
            row.name, row.state
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenant(id: u64, name: &str, cpu_ns: u64, requests: u64) -> Value {
        json!({
            "id": id, "name": name, "state": "idle", "memory_bytes": 3 << 20,
            "usage": {
                "cpu_ns": cpu_ns, "io_read_bytes": 0, "io_written_bytes": cpu_ns / 1000,
                "requests": requests, "throttled_ns": cpu_ns / 2,
            },
        })
    }

    fn options(by: By) -> Options {
        let admin = Admin { url: "http://127.0.0.1:1".to_owned(), key: None };
        Options { admin, by, interval: Duration::from_secs(1), limit: 2, once: true }
    }

    #[test]
    fn rates_are_differences_over_the_servers_clock() {
        let mut view = View::default();
        assert_eq!(view.path(By::Cpu), "/v1/top?by=cpu&limit=1000");
        let first =
            json!({"now_ns": 1_000_000_000, "tenants": [tenant(2, "shop", 500_000_000, 10)]});
        assert_eq!(view.take(&first).expect("it is good")[0].rates, None);
        assert_eq!(view.path(By::Cpu), "/v1/top?by=cpu&limit=1000&since=1000000000");
        assert_eq!(view.path(By::Memory), "/v1/top?by=memory&limit=1000");
        let second = json!({"now_ns": 3_000_000_000_u64, "tenants": [
            tenant(3, "new", 900_000_000, 5), tenant(2, "shop", 1_500_000_000, 30),
        ]});
        let rows = view.take(&second).expect("it is good");
        assert_eq!(rows[0].rates, None, "its counters go back to its creation");
        assert_eq!(rows[1].rates, Some([0.5, 500_000.0, 10.0, 0.25]));
        // It was not listed meanwhile, so it was not in use: what was known of it still holds.
        let idle = json!({"now_ns": 4_000_000_000_u64, "tenants": []});
        assert_eq!(view.take(&idle), Ok(Vec::new()));
        let back = json!({"now_ns": 5_000_000_000_u64, "tenants": [
            tenant(2, "shop", 1_600_000_000, 31),
        ]});
        let rows = view.take(&back).expect("it is good");
        assert_eq!(rows[0].rates.map(|[cpu, ..]| cpu), Some(0.1));
    }

    #[test]
    fn a_server_that_was_started_again_makes_no_rate() {
        let mut view = View::default();
        let first = json!({"now_ns": 9_000, "tenants": [tenant(2, "shop", 500, 10)]});
        view.take(&first).expect("it is good");
        let second = json!({"now_ns": 100, "tenants": [tenant(2, "shop", 400, 9)]});
        assert_eq!(view.take(&second).expect("it is good")[0].rates, None);
        assert!(view.take(&json!({"tenants": []})).is_err());
        assert!(view.take(&json!({"now_ns": 1, "tenants": [{"id": 1}]})).is_err());
    }

    #[test]
    fn the_table_is_sorted_and_cut() {
        let row = |name: &str, memory_mib: u64, rates| Row {
            name: name_of(7, name),
            state: "idle".into(),
            memory_bytes: memory_mib << 20,
            rates,
        };
        let rows = vec![
            row("new", 9, None),
            row("small", 1, Some([0.01, 0.0, 1.0, 0.5])),
            row("large\x1b[2J", 2, Some([0.5, 3.0 * MIB, 100.0, 0.0])),
        ];
        let names = |by| {
            let text = table(rows.clone(), &options(by));
            let lines = text.lines().skip(1);
            lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(By::Cpu), ["large[2J", "small"]);
        assert_eq!(names(By::Memory), ["new", "large[2J"]);
        assert_eq!(names(By::Throttled), ["small", "large[2J"]);
        let text = table(rows.clone(), &options(By::Cpu));
        let numbers: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().skip(1).collect();
        assert_eq!(numbers, ["50.0", "3.00", "2.00", "100.0", "0.0", "idle"]);
        let widths: Vec<usize> = text.lines().map(|line| line.rfind("  ").unwrap()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn intervals_have_units_and_bounds() {
        assert_eq!(parse_interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_interval("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_interval("0.1"), Ok(Duration::from_millis(100)));
        for text in ["", "s", "1m", "0s", "99ms", "-1s", "NaN", "2h", "3601"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}
