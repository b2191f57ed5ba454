//! Receipts depend on the database's state, the SQL and its parameters, and on nothing else.
//!
//! One script of statements on two streams of one database, once alone on a quiet machine, then on
//! machines where everything else happens too: neighbours that scan, sort, fail and write; readers of
//! the same database that keep its WAL from starting anew; pauses, evictions, crashes, clean stops and
//! checkpoints between any two statements outside of a transaction; latencies, tiny segments. Each
//! statement's receipt must be the same to the byte, failed and stopped ones too.
//!
//! Outside of the fault model: a transaction that reads before it writes. A checkpoint writes page 1, so
//! it may find a newer commit than it has seen, and get SQLITE_BUSY although its tenant did nothing.
//!
//! Each seed has a script of its own: the recorded one, with lines drawn from it again at drawn places.
//! `MYRIAD_RECEIPTS` sets the number of seeds, `MYRIAD_SEED` the first.

#[path = "../../server/tests/receipts/shared.rs"]
mod shared;

use shared::{Line, RECEIPTS, SCRIPT, Told};
use simulator::client::{Response, request};
use simulator::world::{Options, Profile};
use simulator::{CrashMode, Door, Machine, Span, Stream};

/// Seeds of an ordinary run.
const SEEDS: u64 = 100;

/// Seeds that have found something.
const FOUND: [u64; 1] = [3_007_387];

/// Longer than a tenant without requests and streams stays open.
const EVICTION_NS: u64 = 75_000_000_000;

/// The lines of neighbours, from here on; the script's streams have theirs below.
const NEIGHBOURS: usize = 10;
const NEIGHBOURS_MAX: usize = 4;
/// The line of a reader of the same database.
const READER: usize = 9;

/// What neighbours do.
const NOISE: &[&str] = &[
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT sum(i) FROM n",
    "CREATE TABLE IF NOT EXISTS x (a, b)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) INSERT INTO x SELECT i, hex(zeroblob(200)) FROM n",
    "SELECT a, b FROM x ORDER BY b DESC, a LIMIT 5",
    "DELETE FROM x WHERE a % 3 = 0",
    "SELECT hex(zeroblob(300000)) IS NULL",
    "SELECT * FROM missing",
    "ANALYZE",
];

/// One run of a script on a machine of its own.
struct Play {
    machine: Machine,
    noisy: bool,
    batons: [Option<String>; 3],
    in_transaction: [bool; 3],
    waiting: Vec<usize>,
    reader: Option<String>,
    lonely: u64,
}

fn options(seed: u64) -> Options {
    let mut options = Options::draw(seed, Profile::Drawn);
    let faults = &mut options.faults;
    faults.calm_network_clock_and_memory();
    faults.disk_latency_mean_ns = faults.disk_latency_mean_ns.min(500_000);
    faults.disk_spike_per_million /= 20;
    faults.disk_spike_ns = Span::new(50_000_000, 300_000_000);
    let high = faults.network_latency_mean_ns.high.min(2_000_000);
    faults.network_latency_mean_ns = Span::new(100_000, high);
    options.create_on_first_use = true;
    options.memory_bytes = [256 << 20, 64 << 20];
    options.log.segment_bytes = options.log.segment_bytes.max(2 << 20);
    options.step_cost_ns = 5;
    options
}

impl Play {
    fn new(seed: u64, noisy: bool) -> Play {
        let mut machine = Machine::new(options(seed));
        machine.start().expect("an empty machine starts");
        Play {
            machine,
            noisy,
            batons: [None, None, None],
            in_transaction: [false; 3],
            waiting: Vec::new(),
            reader: None,
            lonely: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.machine.io.draws_mut().below(Stream::Workload, 0, bound)
    }

    fn run(&mut self, line: &Line) -> String {
        if self.noisy {
            self.disturb();
        }
        let response = self.ask(line);
        let expired = response.status == 400 && !self.in_transaction[line.stream];
        let response = if expired { self.ask(line) } else { response };
        let told = shared::told(response.header("x-myriad-cost"), &response.body);
        let Told { receipt, baton, is_autocommit } = told;
        self.in_transaction[line.stream] = !is_autocommit;
        self.batons[line.stream] = baton;
        receipt
    }

    fn ask(&mut self, line: &Line) -> Response {
        let baton = self.batons[line.stream].take();
        let body = shared::body(line, baton.as_deref());
        let mut headers = Vec::new();
        if let Some(limit) = &line.limit {
            headers.push(("x-myriad-max-cost", limit.as_str()));
        }
        let request = request("POST", "/db/script/v3/pipeline", "sim", &headers, &body);
        let answer = self.machine.ask(line.stream, Door::Public, &request);
        answer.expect("the server runs").expect("an answer comes")
    }

    /// What else may happen before a statement.
    fn disturb(&mut self) {
        for _ in 0..self.below(3) {
            self.make_noise();
        }
        let quiet = !self.in_transaction.contains(&true);
        match self.below(12) {
            0 if quiet => {
                // Streams end, the database is closed, and its log is checkpointed.
                self.leave();
                self.machine.pass(EVICTION_NS).expect("time passes");
            }
            1 if quiet => {
                self.leave();
                self.machine.stop().expect("a stop ends");
                self.machine.start().expect("a start ends");
            }
            2 | 3 if quiet => {
                let mode = CrashMode::ALL[self.below(CrashMode::ALL.len() as u64) as usize];
                self.leave();
                self.machine.crash(mode).expect("a crash violates nothing");
                self.machine.start().expect("a start ends");
            }
            4 if quiet => {
                // A stream expires, the database stays.
                let stream = 1 + self.below(2) as usize;
                self.batons[stream] = None;
            }
            5 if quiet => self.batons = [None, None, None],
            6 => self.read_beside(),
            7 => {
                // Far below what a stream may be idle.
                let pause = 1 + self.below(500_000_000);
                self.machine.pass(pause).expect("time passes");
            }
            _ => {}
        }
    }

    /// A neighbour asks something; its answer is taken later.
    fn make_noise(&mut self) {
        let number = NEIGHBOURS + self.below(NEIGHBOURS_MAX as u64) as usize;
        if self.waiting.contains(&number) {
            self.waiting.retain(|&waiting| waiting != number);
            let _ = self.machine.hear(number).expect("the server runs");
        }
        let sql = NOISE[self.below(NOISE.len() as u64) as usize].to_owned();
        let line = Line { stream: 0, limit: None, sql };
        let path = format!("/db/neighbour-{}/v3/pipeline", self.below(8));
        let request = request("POST", &path, "sim", &[], &shared::body(&line, None));
        self.machine.send(number, Door::Public, &request);
        self.waiting.push(number);
    }

    /// Somebody else reads the same database, in a transaction that stays open for a while.
    fn read_beside(&mut self) {
        let statements = match self.reader {
            None => &["BEGIN", "SELECT count(*) FROM sqlite_schema"][..],
            Some(_) => &["COMMIT"],
        };
        for sql in statements {
            let line = Line { stream: 0, limit: None, sql: (*sql).to_owned() };
            let body = shared::body(&line, self.reader.take().as_deref());
            let request = request("POST", "/db/script/v3/pipeline", "sim", &[], &body);
            let answer = self.machine.ask(READER, Door::Public, &request).expect("the server runs");
            let body = answer.expect("an answer comes").body;
            let body: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
            self.reader = body["baton"].as_str().map(str::to_owned);
        }
        if statements.len() == 1 {
            self.reader = None;
        }
        self.lonely += 1;
    }

    /// Nobody is connected any more, and no stream is remembered.
    fn leave(&mut self) {
        self.machine.hang_up_all();
        self.waiting.clear();
        self.batons = [None, None, None];
        self.reader = None;
    }

    fn finish(mut self) {
        self.leave();
        self.machine.stop().expect("the last stop ends");
    }
}

/// Receipts of the script.
fn receipts(seed: u64, noisy: bool, script: &[Line]) -> Vec<String> {
    let mut play = Play::new(seed, noisy);
    // Pauses between requests stay below what a stream may be idle.
    let receipts = script.iter().map(|line| play.run(line)).collect();
    play.finish();
    receipts
}

/// The recorded script, in which some lines come again at once or later.
fn drawn_script(seed: u64, lines: &[Line]) -> Vec<Line> {
    let mut draws = simulator::Draws::new(seed);
    let mut below = |bound: u64| draws.below(Stream::Workload, 1, bound);
    let mut script = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        script.push(line.clone());
        if below(4) == 0 {
            let mut again = lines[below(index as u64 + 1) as usize].clone();
            again.stream = line.stream;
            let in_reading = script
                .iter()
                .rfind(|line: &&Line| ends(line))
                .is_some_and(|line| line.sql == "BEGIN");
            // A statement that opens a transaction would lock the other stream out.
            if !ends(&again) && !again.sql.starts_with("SAVEPOINT") && !in_reading {
                script.push(again);
            }
        }
    }
    script
}

/// It begins or ends a transaction.
fn ends(line: &Line) -> bool {
    ["BEGIN", "COMMIT", "ROLLBACK"].iter().any(|word| line.sql.starts_with(word))
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |text| text.parse().expect("a number"))
}

/// Says which seed it was if that one ends with a panic.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("MYRIAD_SEED={seed} MYRIAD_RECEIPTS=1 shows it again");
        }
    }
}

#[track_caller]
fn check_equal(what: &str, script: &[Line], found: &[String], expected: &[String]) {
    let different = (0..script.len()).find(|&index| found[index] != expected[index]);
    if let Some(index) = different {
        let sql = &script[index].sql;
        panic!("{what}, line {index}: {sql}\n   {}\n   {}", found[index], expected[index]);
    }
}

/// On one thread: the books are one per thread, and SQLite's random generator is one per process.
#[test]
fn receipts_do_not_depend_on_what_else_happens() {
    let lines = shared::lines(SCRIPT);
    let recorded = receipts(1, false, &lines);
    if std::env::var("MYRIAD_UPDATE_RECEIPTS").is_ok() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/tests/receipts/receipts.txt");
        std::fs::write(path, shared::show(&lines, &recorded)).expect("it can be written");
    } else {
        assert_eq!(shared::show(&lines, &recorded), RECEIPTS);
    }
    let first = number("MYRIAD_SEED", 1);
    let drawn = first..first + number("MYRIAD_RECEIPTS", SEEDS);
    for seed in FOUND.into_iter().chain(drawn) {
        let _named = Named(seed);
        let script = drawn_script(seed, &lines);
        let expected = receipts(seed, false, &script);
        let found = receipts(seed ^ 0x5eed_0000, true, &script);
        check_equal(&format!("seed {seed}"), &script, &found, &expected);
    }
}
