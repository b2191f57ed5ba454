//! Public corpora and a sample of our own, run by the real binary over HTTP.
//!
//! 1. `sample.sql`: statements over many features of SQL; always runs.
//! 2. `sqlite-tcl-sql`: SQL recorded from SQLite's own test suite. Like the sample it is run on
//!    plain SQLite in this process too, statement by statement: column names, rows and primary
//!    error codes must be equal, but for what `corpora/differences.txt` lists with reasons.
//! 3. `slt-sample`: sqllogictest scripts; the expected results stand in them.
//!
//! The archives of 2 and 3 are in the folder that `MYRIAD_CORPORA` names; without it their tests
//! say that they were skipped. `MYRIAD_CORPORA_EVERY=N` runs every Nth script only. Each script is
//! a database of its own and one stream; several run at once.

#[path = "corpora/client.rs"]
mod client;
#[path = "corpora/process.rs"]
mod process;
#[path = "corpora/shared.rs"]
mod shared;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::Client;
use process::Server;
use shared::archive;
use shared::differences::Differences;
use shared::logic_test;
use shared::outcome::{Rows, Value};
use shared::recorded::{self, Tally};
use shared::stream::{Post, SqlStream, Undisturbed};

/// Scripts at a time: enough that their commits share writes of the log.
const WORKERS: usize = 12;
/// Failures that a report shows; one cause often has hundreds.
const FAILURES_SHOWN_MAX: usize = 200;

/// Run `work` on each item, several at once, and fail with what it says was wrong.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(usize, &T) -> Vec<String> + Sync) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { break };
                    let found = work(index, item);
                    failures.lock().expect("no worker panics here").extend(found);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no worker panics here");
    assert!(
        failures.is_empty(),
        "{} failures\n{}",
        failures.len(),
        failures[..failures.len().min(FAILURES_SHOWN_MAX)].join("\n")
    );
}

fn stream(server: &Server, database: &str) -> SqlStream<Client> {
    SqlStream::new(Client::new(server.address()), database)
}

/// Run a script on the server and on plain SQLite, in a database of this name that is dropped
/// afterwards.
fn compare(
    server: &Server,
    database: &str,
    statements: &[String],
    differences: &Differences,
    tally: &Tally,
) -> Vec<String> {
    let mut stream = stream(server, database);
    let mut course = Undisturbed { statements_max: recorded::REQUEST_STATEMENTS_MAX };
    let mut failures = recorded::compare(&mut stream, statements, differences, &mut course, tally);
    let mut admin = Client::new(server.admin_address());
    match admin.request("DELETE", &format!("/v1/namespaces/{database}"), b"") {
        Ok((200, _)) => {}
        other => failures.push(format!("drop: {other:?}")),
    }
    failures
}

#[test]
fn the_sample_is_as_on_plain_sqlite() {
    let server = Server::start();
    let differences = Differences::read();
    let statements = recorded::split_sample(include_str!("corpora/sample.sql"));
    assert!(statements.len() >= 150, "{} statements", statements.len());
    let tally = Tally::default();
    let failures = compare(&server, "sample", &statements, &differences, &tally);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tally.compared() >= 150, "{tally}");
}

#[test]
fn the_recorded_scripts_are_as_on_plain_sqlite() {
    let Some(folder) = archive::unpack("sqlite-tcl-sql") else { return };
    let scripts = archive::read_scripts(&folder, "sql", archive::every(), 0);
    let scripts = recorded::distinct(scripts);
    let server = Server::start();
    let differences = Differences::read();
    let tally = Tally::default();
    in_parallel(&scripts, |index, (name, statements)| {
        let failures = compare(&server, &format!("r{index}"), statements, &differences, &tally);
        failures.into_iter().map(|failure| format!("{name}: {failure}")).collect()
    });
    println!("{} different scripts: {tally}", scripts.len());
    differences.print_use();
    assert!(tally.compared() > scripts.len());
}

#[test]
fn sqllogictest_scripts_give_the_results_in_them() {
    let Some(folder) = archive::unpack("slt-sample") else { return };
    let scripts = archive::read_scripts(&folder, "test", archive::every(), 0);
    let server = Server::start();
    let differences = Differences::read();
    let records = AtomicUsize::new(0);
    in_parallel(&scripts, |index, (name, bytes)| {
        let text = String::from_utf8_lossy(bytes);
        let mut failures = Vec::new();
        let database = format!("s{index}");
        let mut stream = stream(&server, &database);
        let mut course = Undisturbed { statements_max: logic_test::REQUEST_RECORDS_MAX };
        let run = logic_test::run(&mut stream, &text, &differences, &mut course, &mut failures);
        match run {
            Ok(count) => {
                records.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) => failures.push(format!("stopped: {error}")),
        }
        failures.into_iter().map(|failure| format!("{name}:{failure}")).collect()
    });
    let records = records.into_inner();
    println!("{} scripts, {records} records", scripts.len());
    assert!(records > scripts.len());
}

/// A compiled statement kept its columns past a change of the schema: `SELECT *` came with the old
/// names, or with rows longer than its list of columns.
#[test]
fn columns_are_those_of_the_schema_now() {
    let server = Server::start();
    let names = |stream: &mut SqlStream<Client>, sql: &str| {
        let outcome = stream.execute(&[sql]).expect("an answer").remove(0);
        let rows = outcome.expect("no error");
        assert!(rows.rows.iter().all(|row| row.len() == rows.names.len()), "{rows:?}");
        rows.names
    };
    let mut one = stream(&server, "columns");
    let mut two = stream(&server, "columns");
    let all = "SELECT * FROM t";
    names(&mut one, "CREATE TABLE t AS SELECT 1 AS a");
    for stream in [&mut one, &mut two] {
        assert_eq!(names(stream, all), ["a"]);
        assert_eq!(stream.describe(all).expect("columns"), ["a"]);
    }
    names(&mut one, "ALTER TABLE t ADD COLUMN b");
    for stream in [&mut two, &mut one] {
        assert_eq!(stream.describe(all).expect("columns"), ["a", "b"]);
        assert_eq!(names(stream, all), ["a", "b"]);
    }
    names(&mut two, "ALTER TABLE t RENAME COLUMN b TO c");
    for stream in [&mut one, &mut two] {
        assert_eq!(names(stream, all), ["a", "c"]);
        assert_eq!(names(stream, "DELETE FROM t WHERE 0 RETURNING *"), ["a", "c"]);
    }
}

/// EXPLAIN, kept compiled while its tables were dropped, listed freed memory, or ended the server.
#[test]
fn an_explanation_outlives_no_table() {
    let server = Server::start();
    let mut stream = stream(&server, "explanation");
    let explain = "EXPLAIN INSERT INTO t1 SELECT * FROM t2";
    for columns in ["a, b", "a, b DEFAULT 'x'", "a, b COLLATE nocase", "a, b NOT NULL"].repeat(5) {
        let t1 = format!("CREATE TABLE t1({columns})");
        let script =
            [&t1, "CREATE TABLE t2(a, b)", explain, "DROP TABLE t1", "DROP TABLE t2", explain];
        let mut outcomes = stream.execute(&script).expect("the server answers");
        let last = outcomes.pop().expect("six outcomes").expect_err("its tables are gone");
        assert!(last.message.contains("no such table"), "{last:?}");
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }
}

/// A checkpoint waited for the writer lock like a client: after 5 s the only client lost its
/// transaction to it. And it wrote back the `user_version` that it had read before it waited.
#[test]
fn a_checkpoint_takes_nothing_from_a_transaction() {
    let server = Server::start();
    let mut stream = stream(&server, "patient");
    let mut run = |statements: &[&str]| -> Vec<Rows> {
        let outcomes = stream.execute(statements).expect("the server answers");
        outcomes.into_iter().collect::<Result<_, _>>().expect("no error")
    };
    // Rows of about a page: an update in place fills the WAL and leaves page 1 alone.
    let zeros = "replace(hex(zeroblob(750)), '00', ',0')";
    let fill = format!(
        "INSERT INTO t SELECT value, zeroblob(3500) FROM json_each('[0' || {zeros} || {zeros} || ']')"
    );
    run(&["CREATE TABLE t(a, b)", &fill]);
    for round in 1..=10 {
        let version = format!("PRAGMA user_version = {round}");
        // The last round's transaction is open for longer than an idle one may be.
        let open = Duration::from_millis(if round == 10 { 7_000 } else { 50 });
        run(&["UPDATE t SET a = a + 1", "BEGIN IMMEDIATE", &version]);
        let begun = Instant::now();
        while begun.elapsed() < open {
            run(&["SELECT count(*) FROM t"]);
        }
        run(&["COMMIT"]);
        while begun.elapsed() < open * 2 && round < 10 {
            run(&["SELECT count(*) FROM t"]);
        }
        let found = run(&["PRAGMA user_version"]).remove(0).rows.remove(0).remove(0);
        assert_eq!(found, Value::Integer(round));
    }
}

#[test]
fn a_refusal_names_the_database() {
    let server = Server::start_with(&["--create-on-first-use", "false"]);
    let mut client = Client::new(server.address());
    for prefix in ["v1/execute", "v2/pipeline", "v3/pipeline", "v3/cursor"] {
        let (status, body) =
            client.post(&format!("/db/Absent-1/{prefix}"), b"{}").expect("an answer");
        let body = String::from_utf8(body).expect("JSON is UTF-8");
        assert_eq!(status, 404, "{prefix}: {body}");
        assert!(body.contains("Namespace `absent-1` doesn't exist"), "{prefix}: {body}");
    }
}
