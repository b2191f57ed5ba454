//! `kill -9` under load, restarted at once, again and again: what was acknowledged is there, whole.
//!
//! A hundred writers on as many connections write rows, transactions of several requests, big
//! transactions, and create and drop databases. The process is killed in the middle, and its
//! successor started before it is reaped: a write of the dead process may still be under way
//! (the log's lock has to hold the successor back). The successor is killed too, in the middle of its
//! recovery's checkpoints. Then every writer looks for what it wrote, and
//! SQLite checks every database. In the end the files are opened by SQLite without any of ours.
//!
//! `MYRIAD_KILL_ROUNDS` says how often; a line for each round goes to standard output.

#[path = "process/mod.rs"]
mod process;
#[path = "process/writers.rs"]
mod writers;

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use process::{Launch, Rows, Server, eventually, number};
use writers::{CONTENT, Kind, SCHEMA, Writer};

/// Databases that several writers share.
const TENANTS: u64 = 20;
/// Writers of each kind: 100 together.
const WRITERS: [(Kind, u64); 4] =
    [(Kind::Insert, 42), (Kind::Parts, 30), (Kind::Bulk, 8), (Kind::Churn, 20)];
/// Acts acknowledged in a round before the kill, at least, and how many more at most.
const ACTS_LEAST: u64 = 300;
const ACTS_MORE: u64 = 700;
/// Every so many rounds one is long: so long that the log goes round, with checkpoints under load.
const LONG_EVERY: usize = 3;
/// And so many times longer.
const LONG_TIMES: u64 = 5;
/// The smallest log, which goes round soonest.
const LOG: [&str; 2] = ["--log", "64MiB"];
/// The longest round: a debug build with fewer cores than threads takes a few seconds.
const ROUND_SECONDS: u64 = 60;

#[test]
fn kills_under_load_with_uring() {
    kills_under_load("uring");
}

#[test]
fn kills_under_load_with_poll() {
    kills_under_load("poll");
}

fn kills_under_load(io: &'static str) {
    let rounds = number("MYRIAD_KILL_ROUNDS", 3);
    let data = process::folder();
    let launch = Launch::on(data.path()).io(io).with(&LOG);
    let mut server = launch.start();
    for tenant in 0..TENANTS {
        server.create(&tenant_name(tenant)).rows(&SCHEMA);
    }
    let mut writers = all_writers();
    let mut draws = 0x9e37_79b9_7f4a_7c15;
    for round in 1..=rounds {
        let mut acts = ACTS_LEAST + draw(&mut draws) % ACTS_MORE;
        if round.is_multiple_of(LONG_EVERY) {
            acts *= LONG_TIMES;
        }
        let (acknowledged, killed_at, next) = round_of_load(server, &launch, &mut writers, acts);
        let served_after = killed_at.elapsed();
        server = next;
        check(&server, &mut writers);
        println!(
            "kill {io}, round {round} of {rounds}: {acknowledged} acknowledged, served again \
             after {} ms, {TENANTS} databases and {} writers checked in {} ms",
            served_after.as_millis(),
            writers.len(),
            (killed_at.elapsed() - served_after).as_millis()
        );
    }
    let contents = (0..TENANTS).map(|tenant| content(&server, tenant)).collect::<Vec<_>>();
    server.stop();
    check_files(data.path(), &contents);
}

fn tenant_name(tenant: u64) -> String {
    format!("shared-{tenant}")
}

fn all_writers() -> Vec<Writer> {
    let kinds = WRITERS.iter().flat_map(|&(kind, count)| (0..count).map(move |_| kind));
    let writer = |(number, kind)| {
        let number = number as u64;
        let tenant = match kind {
            Kind::Churn => format!("churn-{number}"),
            _ => tenant_name(number % TENANTS),
        };
        Writer::new(kind, number, tenant)
    };
    kinds.enumerate().map(writer).collect()
}

/// xorshift64: rounds differ, runs do not.
fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Let everybody write until `acts` are acknowledged, kill the server, start the next one. Gives
/// the acts that were acknowledged, when the kill was, and the next server.
fn round_of_load(
    server: Server,
    launch: &Launch,
    writers: &mut [Writer],
    acts: u64,
) -> (u64, Instant, Server) {
    let acknowledged = AtomicU64::new(0);
    let (troubles, late) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let count = writers.len() as u64;
    let wires: Vec<_> = writers.iter().map(|writer| writer.wires(&server)).collect();
    let (killed_at, next) = std::thread::scope(|scope| {
        for (writer, mut wires) in writers.iter_mut().zip(wires) {
            let (acknowledged, troubles, late) = (&acknowledged, &troubles, &late);
            scope.spawn(move || {
                let trouble = loop {
                    match writer.act(&mut wires) {
                        Ok(()) => acknowledged.fetch_add(1, Ordering::Relaxed),
                        Err(trouble) => break trouble,
                    };
                };
                // Where other work takes the cores, a transaction idles for five seconds between two requests.
                if trouble.code() == "TRANSACTION_TIMEOUT" {
                    late.fetch_add(1, Ordering::Relaxed);
                } else if !trouble.is_lost() {
                    troubles.lock().unwrap().push(format!("{writer:?}: {trouble}"));
                }
            });
        }
        eventually(ROUND_SECONDS, "enough is acknowledged", || {
            let troubled = !troubles.lock().unwrap().is_empty();
            acknowledged.load(Ordering::Relaxed) >= acts || troubled
        });
        let killed_at = Instant::now();
        let killed = server.kill();
        let next = launch.spawn();
        drop(killed);
        // The next one is killed as well, as soon as it serves: what recovery found is on its way
        // into the files then.
        let killed = next.serving().kill();
        let next = launch.spawn();
        drop(killed);
        (killed_at, next.serving())
    });
    let troubles = troubles.into_inner().unwrap();
    assert!(troubles.is_empty(), "refused under load: {troubles:#?}");
    let late = late.into_inner();
    assert!(late <= count / 20, "{late} of {count} writers lost their transactions");
    (acknowledged.into_inner(), killed_at, next)
}

fn check(server: &Server, writers: &mut [Writer]) {
    for tenant in 0..TENANTS {
        let found = server.database(&tenant_name(tenant)).value("PRAGMA integrity_check");
        assert_eq!(found, "ok", "{}", tenant_name(tenant));
    }
    for writer in writers {
        writer.check(&mut server.database(&writer.tenant));
    }
}

/// All rows of a shared database, through the server.
fn content(server: &Server, tenant: u64) -> Vec<Rows> {
    let mut database = server.database(&tenant_name(tenant));
    CONTENT.iter().map(|sql| database.rows(&[sql])).collect()
}

/// After a clean stop each file is an ordinary SQLite database with the same rows in it.
fn check_files(data: &Path, contents: &[Vec<Rows>]) {
    let ids = process::ids(data);
    let copies = process::folder();
    for (tenant, content) in contents.iter().enumerate() {
        let name = tenant_name(tenant as u64);
        let id = ids[&name];
        let connection = process::open_copy(&process::tenant_file(data, id), copies.path());
        for (sql, rows) in CONTENT.iter().zip(content) {
            assert_eq!(&file_rows(&connection, sql), rows, "{name}: {sql}");
        }
        let found = file_rows(&connection, "PRAGMA integrity_check");
        assert_eq!(found, [["ok"]], "{name}");
        check_by_shell(&copies.path().join(format!("{id}.db")));
    }
}

fn file_rows(connection: &rusqlite::Connection, sql: &str) -> Rows {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let value = |row: &rusqlite::Row<'_>, column| match row.get_ref(column)? {
        rusqlite::types::ValueRef::Integer(number) => Ok(number.to_string()),
        other => Ok::<_, rusqlite::Error>(other.as_str().expect("a number or a text").to_owned()),
    };
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| value(row, column)).collect();
    statement.query_map((), row).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The `sqlite3` program, where there is one, says the same.
fn check_by_shell(file: &Path) {
    let output = Command::new("sqlite3").arg(file).arg("PRAGMA integrity_check").output();
    let Ok(output) = output else { return };
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(said, "ok", "{}: {output:?}", file.display());
}
