//! Where attacks take place: a server with a neighbour on it, and what is looked at after each case.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{Client, Database, Launch, Server, create_path, folder};

/// The neighbour is answered within this, by a debug build on a machine with other tests on it.
/// `myriad bench --scenario neighbours` measures what it is on a quiet one.
pub const CONTROL_MAX: Duration = Duration::from_millis(500);

/// `--memory`: somewhat more than the least, so that a database's own budget is what it meets first.
const MEMORY: &str = "512MiB";
const MEMORY_BYTES: u64 = 512 << 20;

/// A server, its neighbour, and what has gone wrong so far.
pub struct Ground {
    // The server ends before its folder goes.
    pub server: Server,
    control: Database,
    pub worst: Duration,
    peak_bytes: u64,
    cases: usize,
    failures: Vec<String>,
    key: Option<String>,
    learns: bool,
    _data: tempfile::TempDir,
}

impl Ground {
    /// A server on this Io, with these arguments more.
    pub fn on(io: &str, arguments: &[&str]) -> Ground {
        Ground::with_key(io, arguments, None)
    }

    /// The same, on a server that asks for this key.
    pub fn with_key(io: &str, arguments: &[&str], key: Option<&str>) -> Ground {
        let data = folder();
        let launch = Launch::on(data.path()).io(io).with(&["--memory", MEMORY]);
        let server = launch.with(arguments).start();
        let named = |client: Client| match key {
            Some(key) => client.with_token(key),
            None => client,
        };
        let created = named(server.admin()).post(&create_path("control"), &json!({}));
        assert_eq!(created.expect("answered").status, 200);
        let mut control = Database::of(named(server.client()), "control");
        control
            .rows(&["CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (7, 42)"]);
        Ground {
            server,
            control,
            worst: Duration::ZERO,
            peak_bytes: 0,
            cases: 0,
            failures: Vec::new(),
            key: key.map(str::to_owned),
            learns: std::env::var("MYRIAD_ATTACK_LEARN").is_ok(),
            _data: data,
        }
    }

    /// Whether somebody has asked for others than this case.
    pub fn skips(name: &str) -> bool {
        std::env::var("MYRIAD_ATTACK").is_ok_and(|word| !name.contains(&word))
    }

    /// A case was answered otherwise than it should.
    pub fn fail(&mut self, text: String) {
        match self.learns {
            true => println!("{text}"),
            false => self.failures.push(text),
        }
    }

    /// After a case: the neighbour, the process and its memory.
    pub fn check(&mut self, name: &str) {
        self.cases += 1;
        let started = Instant::now();
        let rows = self.control.run(&["SELECT a FROM t WHERE id = 7"]);
        let took = started.elapsed();
        self.worst = self.worst.max(took);
        match rows {
            Ok(rows) if rows == [["42"]] => {}
            other => panic!("{name}: the neighbour hears {other:?}; {}", self.server.said()),
        }
        if took > CONTROL_MAX {
            self.failures.push(format!("{name}: the neighbour waits {took:?}"));
        }
        assert!(self.server.lives(), "{name}: the process has ended: {}", self.server.said());
        let resident = self.server.resident_bytes();
        self.peak_bytes = self.peak_bytes.max(resident);
        let bound = MEMORY_BYTES + server::memory::PROGRAM_BYTES;
        assert!(resident <= bound, "{name}: {resident} bytes are resident");
    }

    /// All cases were run.
    pub fn finish(self, what: &str) {
        let Ground { server, worst, peak_bytes, cases, failures, key, .. } = self;
        println!(
            "{what}: {cases} cases; the neighbour waited {:.1} ms at most; {} MiB resident at most",
            worst.as_secs_f64() * 1e3,
            peak_bytes >> 20
        );
        assert!(failures.is_empty(), "{what}:\n{}", failures.join("\n"));
        let mut admin = server.admin();
        if let Some(key) = key {
            admin = admin.with_token(&key);
        }
        let metrics = admin.call("GET", "/metrics", b"").expect("answered").text();
        for counter in
            ["uneven_receipts_total", "late_turns_total", "starved_writers_total", "unbooked_bytes"]
        {
            assert!(metrics.contains(&format!("\nmyriad_{counter} 0\n")), "{counter}");
        }
        server.stop();
    }
}
