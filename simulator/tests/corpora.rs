//! The public corpora on simulated machines with faults that nobody may notice.
//!
//! The same scripts, plain SQLite, differences and judgement as in `server/tests/corpora.rs`, which
//! runs them on the real binary. Here each script has a machine of its own: latencies and spikes,
//! short counts, tiny segments; and between two statements, where no later answer may depend on it,
//! a crash of the process or the machine (recovery crashes too), a clean stop, or the eviction of
//! the tenant. The answers must stay what they are.
//!
//! Fault model: only what is invisible. Outside of it: latencies so long that a statement passes its
//! 30 s; budgets so small that one is refused; crashes inside a transaction, or in scripts that ask
//! about their connection (`changes()`, `last_insert_rowid()`, pragmas).
//!
//! The sample of `server/tests/corpora/sample.sql` always runs. The archives are in the folder that
//! `MYRIAD_CORPORA` names; of them a part is run that `MYRIAD_SEED` chooses, so that each commit
//! can try another, and `MYRIAD_SIMULATED_CORPORA_EVERY=1` runs all.

#[path = "../../server/tests/corpora/shared.rs"]
mod shared;

use std::io;
use std::time::Instant;

use shared::archive;
use shared::differences::Differences;
use shared::logic_test;
use shared::recorded::{self, Tally};
use shared::stream::{Course, Post, SqlStream};
use simulator::client::request;
use simulator::world::{Options, Profile};
use simulator::{CrashMode, Door, End, Machine, Span, Stop, Stream};

/// Of the recorded scripts (7,528) every so manieth is run, of sqllogictest's (66) every so manieth.
const RECORDED_EVERY: usize = 10;
const LOGIC_EVERY: usize = 10;

/// Interruptions of one script: each costs a recovery.
const INTERRUPTIONS_MAX: u32 = 60;

/// One in so many boundaries between requests is an interruption, where it may be.
const INTERRUPTION_ODDS: u64 = 4;

/// Longer than a tenant without requests and streams stays open.
const EVICTION_NS: u64 = 75_000_000_000;

/// Failures that a report shows; one cause often has hundreds.
const FAILURES_SHOWN_MAX: usize = 100;

/// The line to the server.
const LINE: usize = 0;

/// A machine that carries requests, and what was done to it.
struct Carrier {
    machine: Machine,
    interruptions: u32,
}

impl Carrier {
    fn new(seed: u64) -> Carrier {
        let mut machine = Machine::new(options(seed));
        machine.start().expect("an empty machine starts");
        Carrier { machine, interruptions: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.machine.io.draws_mut().below(Stream::Workload, 0, bound)
    }

    fn within(&mut self, low: u64, high: u64) -> u64 {
        self.machine.io.draws_mut().logarithmic(Stream::Workload, 0, Span::new(low, high))
    }

    /// A crash, a stop or an eviction; the server serves again afterwards.
    fn interrupt(&mut self) -> Result<(), Stop> {
        let pause = self.within(1, 3_000_000_000);
        self.machine.pass(pause)?;
        match self.below(8) {
            0 => {
                self.machine.hang_up(LINE);
                return self.machine.pass(EVICTION_NS);
            }
            1 => self.machine.stop()?,
            _ => {
                let mode = self.crash_mode();
                self.machine.crash(mode)?;
            }
        }
        self.machine.hang_up(LINE);
        while self.below(3) == 0 {
            // The recovery crashes too.
            let at = self.machine.io.trace().sequence() + self.within(1, 400);
            let mode = self.crash_mode();
            self.machine.io.crash_at(at, mode);
            match self.machine.start() {
                Err(Stop::Ended(End::Crashed)) => {}
                started => {
                    self.machine.io.cancel_crash();
                    return started;
                }
            }
        }
        self.machine.start()
    }

    fn crash_mode(&mut self) -> CrashMode {
        CrashMode::ALL[self.below(CrashMode::ALL.len() as u64) as usize]
    }
}

impl Post for Carrier {
    fn post(&mut self, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let request = request("POST", path, "sim", &[], body);
        match self.machine.ask(LINE, Door::Public, &request) {
            Ok(Some(response)) => Ok((response.status, response.body)),
            Ok(None) => Err(io::ErrorKind::ConnectionReset.into()),
            Err(stop) => Err(io::Error::other(format!("{stop:?}"))),
        }
    }
}

/// Interruptions at drawn moments.
struct Interrupted {
    statements_max: usize,
    failure: Option<String>,
}

impl Course<Carrier> for Interrupted {
    fn statements_max(&mut self) -> usize {
        self.statements_max
    }

    fn between(&mut self, stream: &mut SqlStream<Carrier>, loses_nothing: bool) {
        let carrier = stream.carrier();
        self.statements_max = carrier.within(1, 20) as usize;
        let may = loses_nothing && carrier.interruptions < INTERRUPTIONS_MAX;
        if !may || carrier.below(INTERRUPTION_ODDS) != 0 || self.failure.is_some() {
            return;
        }
        carrier.interruptions += 1;
        if let Err(stop) = carrier.interrupt() {
            self.failure = Some(format!("an interruption: {stop:?}"));
        }
        stream.forget();
    }
}

/// Times that no request's limit notices, and room for the largest transactions.
fn options(seed: u64) -> Options {
    let mut options = Options::draw(seed, Profile::Drawn);
    let faults = &mut options.faults;
    faults.calm_network_clock_and_memory();
    faults.disk_latency_mean_ns = faults.disk_latency_mean_ns.min(500_000);
    faults.disk_spike_per_million /= 20;
    faults.disk_spike_ns = Span::new(50_000_000, 300_000_000);
    let high = faults.network_latency_mean_ns.high.min(2_000_000);
    faults.network_latency_mean_ns = Span::new(100_000, high);
    faults.tiny_segments_per_million /= 4;
    faults.window_bytes = Span::new(16_384, faults.window_bytes.high.max(65_536));
    options.create_on_first_use = true;
    options.memory_bytes = [256 << 20, 64 << 20];
    options.log.segment_bytes = 16 << 20;
    options.step_cost_ns = 5;
    options
}

/// A seed of its own for each script.
fn seed_of(name: &str) -> u64 {
    let hash = simulator::trace::hash_bytes(name.as_bytes());
    hash ^ archive::number("MYRIAD_SEED", 1) as u64
}

/// Run a script on a machine of its own, and stop that cleanly.
fn with_machine(
    name: &str,
    run: impl FnOnce(&mut SqlStream<Carrier>, &mut Interrupted) -> Vec<String>,
) -> (u32, Vec<String>) {
    let mut stream = SqlStream::new(Carrier::new(seed_of(name)), "script");
    let mut course = Interrupted { statements_max: 8, failure: None };
    let mut failures = run(&mut stream, &mut course);
    failures.extend(course.failure);
    let carrier = stream.carrier();
    let interruptions = carrier.interruptions;
    carrier.machine.hang_up_all();
    if failures.is_empty()
        && let Err(stop) = carrier.machine.stop()
    {
        failures.push(format!("the last stop: {stop:?}"));
    }
    (interruptions, failures.into_iter().map(|failure| format!("{name}: {failure}")).collect())
}

fn report(what: &str, begun: Instant, numbers: &str, failures: &[String]) {
    println!("{what}: {numbers}; {:.1} s", begun.elapsed().as_secs_f64());
    let shown = failures[..failures.len().min(FAILURES_SHOWN_MAX)].join("\n");
    assert!(failures.is_empty(), "{} failures\n{shown}", failures.len());
}

fn compare(what: &str, scripts: &[(String, Vec<String>)]) -> Tally {
    let begun = Instant::now();
    let differences = Differences::read();
    let tally = Tally::default();
    let (mut interruptions, mut failures) = (0, Vec::new());
    for (name, statements) in scripts {
        let (count, found) = with_machine(name, |stream, course| {
            recorded::compare(stream, statements, &differences, course, &tally)
        });
        interruptions += count;
        failures.extend(found);
    }
    let count = scripts.len();
    report(
        what,
        begun,
        &format!("{count} scripts, {tally}, {interruptions} interruptions"),
        &failures,
    );
    tally
}

fn the_sample() {
    let statements = recorded::split_sample(include_str!("../../server/tests/corpora/sample.sql"));
    let scripts: Vec<_> =
        (0..5).map(|round| (format!("sample {round}"), statements.clone())).collect();
    assert!(compare("sample", &scripts).compared() >= 750);
}

fn recorded_scripts(every: usize, first: usize) {
    let Some(folder) = archive::unpack("sqlite-tcl-sql") else { return };
    let scripts = archive::read_scripts(&folder, "sql", every, first);
    let scripts = recorded::distinct(scripts);
    assert!(compare("recorded", &scripts).compared() > scripts.len());
}

fn sqllogictest_scripts(every: usize, first: usize) {
    let Some(folder) = archive::unpack("slt-sample") else { return };
    let scripts = archive::read_scripts(&folder, "test", every, first);
    let begun = Instant::now();
    let differences = Differences::read();
    let (mut records, mut interruptions, mut failures) = (0, 0, Vec::new());
    for (name, bytes) in &scripts {
        let text = String::from_utf8_lossy(bytes);
        let (count, found) = with_machine(name, |stream, course| {
            let mut failures = Vec::new();
            match logic_test::run(stream, &text, &differences, course, &mut failures) {
                Ok(count) => records += count,
                Err(error) => failures.push(format!("stopped: {error}")),
            }
            failures
        });
        interruptions += count;
        failures.extend(found);
    }
    let numbers =
        format!("{} scripts, {records} records, {interruptions} interruptions", scripts.len());
    report("sqllogictest", begun, &numbers, &failures);
}

/// One after the other on one thread: the books are one per thread, and SQLite's random generator is
/// one per process.
#[test]
fn corpora_give_their_answers_under_faults_that_nobody_may_notice() {
    let seed = archive::number("MYRIAD_SEED", 1);
    let every = |default| archive::number("MYRIAD_SIMULATED_CORPORA_EVERY", default);
    the_sample();
    recorded_scripts(every(RECORDED_EVERY), seed);
    sqllogictest_scripts(every(LOGIC_EVERY), seed);
}
