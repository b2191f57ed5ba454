//! Many databases, few of them used: what the others cost at a start and in memory.
//!
//! Small by default; `MYRIAD_SCALE=100000` makes as many. Numbers go to standard output; what is
//! asserted holds at every size: everything is there after a kill and after a stop, a start does
//! not wait for the many, and a database that nobody uses costs next to nothing.

#[path = "process/mod.rs"]
mod process;

use std::time::{Duration, Instant};

use process::sql::execute;
use process::{Launch, Server, create_path, number};
use serde_json::json;

/// Resident bytes that a database which nobody uses may cost: none of them is needed but an index
/// entry (100 bytes), and the catalogue's cache, WAL and log buffers are shared by all.
const COLD_BYTES_MAX: u64 = 1000;
/// Below so many databases a share of what the process needs anyway says nothing.
const COLD_COUNT_LEAST: usize = 50_000;
/// From the kill to the first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Connections that create and write at a time, each with a thread.
const CLIENTS: usize = 16;

#[test]
fn many_databases() {
    let count = number("MYRIAD_SCALE", 1000).max(200);
    let used = (count / 100).max(200);
    let data = process::folder();
    let launch = Launch::on(data.path());
    let mut server = launch.start();
    server.create(&name(0)).rows(&["CREATE TABLE t(a)"]);
    let with_one = server.resident_bytes();

    let begun = Instant::now();
    each(&server, 1..count, |server, names| {
        let mut admin = server.admin();
        for index in names {
            let response = admin.post(&create_path(&name(index)), &json!({})).unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
        }
    });
    let created_in = begun.elapsed();
    let with_all = server.resident_bytes();
    let cold_bytes = with_all.saturating_sub(with_one) / count as u64;
    println!(
        "scale {count}: created in {} ms ({} a second), {with_one} bytes resident with one \
         database, {with_all} with all: {cold_bytes} for each",
        created_in.as_millis(),
        count as u128 * 1000 / created_in.as_millis().max(1)
    );

    let step = count / used;
    each(&server, 0..used, |server, indexes| {
        for index in indexes {
            let sql = format!("INSERT INTO t VALUES ({index})");
            let statements = ["CREATE TABLE IF NOT EXISTS t(a)", &sql];
            server.database(&name(index * step)).rows(&statements);
        }
    });
    let with_used = server.resident_bytes();
    println!(
        "scale {count}: {used} of them used, {with_used} bytes resident: {} for each used",
        with_used.saturating_sub(with_all) / used as u64
    );

    drop(server.kill());
    server = restarted(&launch, "a kill", count);
    check(&server, count, used);
    server.stop();
    let mut server = restarted(&launch, "a stop", count);
    let after_stop = server.resident_bytes();
    println!(
        "scale {count}: {after_stop} bytes resident after a start, {} for each database more than \
         with one",
        after_stop.saturating_sub(with_one) / count as u64
    );
    check(&server, count, used);
    server.stop();
    assert!(count < COLD_COUNT_LEAST || cold_bytes < COLD_BYTES_MAX, "{cold_bytes} bytes each");
}

fn name(index: usize) -> String {
    format!("d-{index:07}")
}

/// Share the indexes among clients.
fn each(
    server: &Server,
    indexes: std::ops::Range<usize>,
    act: impl Fn(&Server, std::iter::StepBy<std::ops::Range<usize>>) + Sync,
) {
    let act = &act;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let own = (indexes.start + client..indexes.end).step_by(CLIENTS);
            scope.spawn(move || act(server, own));
        }
    });
}

/// Start again: when does the first answer come?
fn restarted(launch: &Launch, after: &str, count: usize) -> Server {
    let begun = Instant::now();
    let server = launch.start();
    let serves = begun.elapsed();
    let mut database = server.database(&name(0));
    let response = database.post(&json!({"requests": [execute("SELECT a FROM t")]})).unwrap();
    let first_answer = begun.elapsed();
    assert_eq!(response["results"][0]["type"], "ok", "{response}");
    assert!(first_answer < FIRST_ANSWER, "{first_answer:?}");
    println!(
        "scale {count}: after {after} it serves after {} ms, the first answer comes after {} ms",
        serves.as_millis(),
        first_answer.as_millis()
    );
    server
}

/// Every database is there, and every row.
fn check(server: &Server, count: usize, used: usize) {
    let mut admin = server.admin();
    let mut after = String::new();
    let mut listed = 0;
    loop {
        let path = format!("/v1/namespaces?limit=1000&after={after}");
        let page = admin.call("GET", &path, b"").unwrap().json();
        for row in page["namespaces"].as_array().unwrap() {
            assert_eq!(row["name"], name(listed));
            assert_eq!(row["state"], "live");
            listed += 1;
        }
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(listed, count);
    let step = count / used;
    each(server, 0..used, |server, indexes| {
        for index in indexes {
            let found = server.database(&name(index * step)).rows(&["SELECT a FROM t"]);
            assert_eq!(found, [[index.to_string()]]);
        }
    });
    // One that was never used.
    let mut unused = server.database(&name(1));
    assert_eq!(unused.value("SELECT count(*) FROM sqlite_schema"), "0");
}
