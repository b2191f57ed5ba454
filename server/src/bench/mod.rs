//! `myriad bench`: the built-in load generator.
//!
//! A client program, not a part of the server: it alone uses the standard library's clock and
//! sockets, and it shares no state with the server's loop. One thread drives all connections over
//! non-blocking sockets.
//!
//! Without an address it starts a server from the same binary in a folder of its own, puts
//! server and load on a core each, runs every scenario, and prints one table. The load is a
//! *closed loop*: see `load.rs` for what that does and does not measure.
//!
//! - `scenario.rs` what is measured: preparing databases, requests, restarts.
//! - `load.rs` the closed loop; `readiness.rs`, `request.rs` and `reply.rs` under it.
//! - `crowd.rs` several kinds of clients at once; `scenario/neighbours.rs` what they do to each other.
//! - `against.rs` two builds in turn, and their ratio.
//! - `histogram.rs`, `report.rs`, `progress.rs` what comes out.
//! - `battery.rs` the attack battery as text; `scenario/gaps.rs` what it takes at a stretch.
//! - `canary/` a load of which every answer is looked through for others' bytes.
//! - `spawned.rs`, `cores.rs` the server's process; `plain.rs` the baseline without a server.

mod against;
pub mod battery;
mod canary;
mod cores;
mod crowd;
mod generator;
mod histogram;
mod load;
mod plain;
mod progress;
mod readiness;
pub(crate) mod reply;
mod report;
pub(crate) mod request;
mod scenario;
mod spawned;

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

pub use histogram::Histogram;

/// Each connection costs the server and the load generator a descriptor and a few KiB.
const CONNECTIONS_MAX: i64 = 10_000;

/// Tenant numbers have eight digits in a request; more than a million takes hours to prepare.
const TENANTS_MAX: i64 = 1_000_000;

/// More than the load generator can send.
const RATE_MAX: i64 = 1_000_000;

/// Longer runs do not sharpen any number of the table.
const SECONDS_MAX: f64 = 3_600.0;

/// The warm-up before each measurement, unless that is shorter itself.
const WARM_UP_MAX: Duration = Duration::from_secs(1);

/// Measures a server: requests per second and latencies.
///
/// Without --url it starts a server itself, in a temporary folder, and stops it again.
/// The load is a closed loop, in which each connection sends its next request when the answer has arrived;
/// with --rate an open one.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Measure this running server (http://host:port) instead of starting one
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,

    /// The admin API of the running server (http://host:port)
    #[arg(long, value_name = "URL", requires = "url")]
    pub admin_url: Option<String>,

    /// Authorization header for the running server, such as "Bearer TOKEN"
    #[arg(long, value_name = "VALUE", requires = "url")]
    #[arg(env = "MYRIAD_BENCH_AUTHORIZATION", hide_env_values = true)]
    pub authorization: Option<String>,

    /// Authorization header for the running server's admin API
    #[arg(long, value_name = "VALUE", requires = "admin_url")]
    #[arg(env = "MYRIAD_BENCH_ADMIN_AUTHORIZATION", hide_env_values = true)]
    pub admin_authorization: Option<String>,

    /// What to measure, separated by commas; if not given, all that is possible and not marked "not by default"
    #[arg(long, value_enum, value_name = "NAME", value_delimiter = ',')]
    pub scenario: Vec<Scenario>,

    /// Connections that send requests at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: u32,

    /// Requests a second, sent at fixed times whatever the server does (an open loop): a latency then counts
    /// from when its request was meant to leave. If not given, each connection sends when its answer has come
    #[arg(long, value_name = "RATE")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=RATE_MAX))]
    pub rate: Option<u32>,

    /// Databases in the scenarios that use many
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=TENANTS_MAX))]
    pub tenants: u32,

    /// Bytes of the database that is forked
    #[arg(long, value_name = "BYTES", default_value_t = 100 << 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(1 << 20..=100 << 30))]
    pub fork_bytes: u64,

    /// Random statements of the scenario gaps
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub statements: u32,

    /// Seconds measured in each scenario, after a warm-up of a second or as much
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = parse_seconds)]
    pub seconds: f64,

    /// Measure in turn with this program's server and with that of another build of it, and print ratios
    #[arg(long, value_name = "PROGRAM", conflicts_with = "url")]
    pub against: Option<PathBuf>,

    /// Rounds of what is measured in turn: --against, and the phases of the scenario neighbours
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// The kernel interface that the started server uses; its own choice if not given
    #[arg(long, value_enum, value_name = "NAME", conflicts_with = "url")]
    pub io: Option<Interface>,

    /// Where to make the temporary folder; the current folder if not given
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
}

/// The kernel interface of a server's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Interface {
    /// io_uring
    Uring,
    /// epoll or kqueue
    Poll,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// The empty reply of GET /health: what the loop and HTTP cost
    Empty,
    /// Select one of 1,000 rows by primary key, on one database
    Select,
    /// Not by default: the same, spread over many databases
    SelectMany,
    /// Insert single rows into one database
    InsertOne,
    /// Insert single rows, spread over many databases
    InsertMany,
    /// Insert single rows with plain SQLite and fsync, without a server: one file, then many
    Fsync,
    /// The first query on each of many databases after a restart of the started server
    Cold,
    /// Create databases through the admin API
    Create,
    /// Not by default: ten quiet databases alone, beside each of four attackers, and beside all
    Neighbours,
    /// Not by default: shares of processor and disk by weight, and a reservation under 100 attackers
    Shares,
    /// Not by default: the process's peak memory beside the ledger's, under attacks, with --tenants
    Memory,
    /// Not by default: forks of a large database while it is written to, with --fork-bytes
    Fork,
    /// Not by default: the longest stretch without a look at the turn, over the attack battery and over
    /// --statements random ones
    Gaps,
    /// Not by default: databases that live briefly, one by one and in bulk, with --tenants
    Life,
    /// Not by default: mixed traffic of --tenants databases, and whether anybody sees what is another's
    Canary,
}

/// The order of a run without `--scenario`.
const SCENARIOS: [Scenario; 7] = [
    Scenario::Empty,
    Scenario::Select,
    Scenario::InsertOne,
    Scenario::InsertMany,
    Scenario::Fsync,
    Scenario::Cold,
    Scenario::Create,
];

impl Options {
    /// What to measure, in order. Without a wish: everything that the server allows; a server
    /// that is not ours is not restarted, and databases are created only where there is an
    /// admin API.
    fn scenarios(&self) -> Vec<Scenario> {
        if !self.scenario.is_empty() {
            return self.scenario.clone();
        }
        let possible = |scenario: &Scenario| match scenario {
            Scenario::Cold => self.url.is_none(),
            Scenario::Create => self.url.is_none() || self.admin_url.is_some(),
            _ => true,
        };
        SCENARIOS.into_iter().filter(possible).collect()
    }

    fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warm_up(&self) -> Duration {
        self.measured().min(WARM_UP_MAX)
    }
}

/// Runs the scenarios and prints what came out on standard output.
///
/// # Errors
/// A sentence for the person at the terminal: the server did not start (with what it wrote), a
/// scenario could not be prepared, or requests failed (after the table is printed).
pub fn run(options: Options) -> Result<(), String> {
    let program = std::env::current_exe()
        .map_err(|error| format!("cannot find this program's own file: {error}"))?;
    if let Some(other) = &options.against {
        let table = against::measure(&options, &program, other)?;
        let json = options.json.then(|| against::json(&table));
        return print(&json.map_or_else(|| table.text(), |json| format!("{json:#}\n")));
    }
    let report = scenario::measure(&options, program)?;
    let text = if options.json {
        format!("{:#}\n", report.json())
    } else if report.rows.is_empty() && report.tables.is_empty() {
        String::new()
    } else {
        report.table()
    };
    print(&text)?;
    report.verdict()
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| format!("cannot print the result: {error}"))
}

/// A positive number of seconds with a bound.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    // Also refuses NaN.
    if (0.001..=SECONDS_MAX).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("must be between 0.001 and {SECONDS_MAX}"))
    }
}

/// One number spread over all 64 bits: the output step of SplitMix64 (Steele, Lea and Flood 2014).
/// So every run chooses the same tenants and rows, without any state.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod responder;
#[cfg(test)]
mod tests;
