//! Streams in real time: idle transactions, expiry, and what a baton is good for.

use std::time::{Duration, Instant};

use crate::process::sql::execute;
use crate::process::{Launch, Trouble, eventually, folder};
use serde_json::json;

/// A transaction may sit idle so long while another writer waits (libSQL servers: 5 s).
const IDLE: Duration = Duration::from_secs(5);
/// What a machine with other work may add.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn an_idle_transaction_yields_to_a_writer() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut first = server.create("d");
    first.rows(&["CREATE TABLE t(a)"]);
    first.step("BEGIN IMMEDIATE").unwrap();
    first.step("INSERT INTO t VALUES ('first')").unwrap();

    let mut second = server.database("d");
    let asked = Instant::now();
    second.rows(&["INSERT INTO t VALUES ('second')"]);
    let waited = asked.elapsed();
    assert!(waited + SLACK > IDLE, "the transaction was not idle for long: {waited:?}");
    assert!(waited < IDLE + SLACK, "waited {waited:?}");

    // The first hears of it once; its stream goes on, in autocommit.
    let trouble = first.step("INSERT INTO t VALUES ('late')").unwrap_err();
    assert_eq!(trouble.code(), "TRANSACTION_TIMEOUT", "{trouble}");
    first.step("INSERT INTO t VALUES ('after')").unwrap();
    first.finish();
    assert_eq!(second.rows(&["SELECT a FROM t ORDER BY rowid"]), [["second"], ["after"]]);
    server.stop();
}

#[test]
fn a_busy_transaction_keeps_the_lock_for_longer() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut first = server.create("d");
    first.rows(&["CREATE TABLE t(a)"]);
    first.step("BEGIN IMMEDIATE").unwrap();
    let mut second = server.database("d");
    second.send(&["INSERT INTO t VALUES ('second')"]);
    // Its stream is parked again and again, never for long.
    let begun = Instant::now();
    eventually(10, "time passes", || {
        first.step("INSERT INTO t VALUES ('first')").unwrap();
        begun.elapsed() > IDLE + Duration::from_secs(1)
    });
    first.step("COMMIT").unwrap();
    first.finish();
    second.answer().unwrap();
    assert_eq!(second.value("SELECT count(*) FROM t WHERE a = 'second'"), "1");
    server.stop();
}

#[test]
fn a_transaction_without_rivals_may_sit_idle_longer() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut first = server.create("d");
    first.rows(&["CREATE TABLE t(a)"]);
    first.step("BEGIN IMMEDIATE").unwrap();
    first.step("INSERT INTO t VALUES (1)").unwrap();
    // Readers are no rivals. They look until the time of a contended transaction is long over.
    let begun = Instant::now();
    let mut reader = server.database("d");
    eventually(10, "time passes", || {
        assert_eq!(reader.value("SELECT count(*) FROM t"), "0");
        begun.elapsed() > IDLE + Duration::from_secs(1)
    });
    first.step("COMMIT").unwrap();
    first.finish();
    assert_eq!(reader.value("SELECT count(*) FROM t"), "1");
    server.stop();
}

#[test]
fn a_stream_expires_and_says_so() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = server.create("d");
    database.rows(&["CREATE TABLE t(a)"]);
    database.step("BEGIN").unwrap();
    database.step("INSERT INTO t VALUES (1)").unwrap();
    let begun = Instant::now();
    let parked = || server.metric("parked_streams") == 1;
    assert!(parked());
    eventually(13, "the stream expires", || !parked());
    assert!(begun.elapsed() > Duration::from_secs(9), "expired after {:?}", begun.elapsed());

    let baton = database.baton.clone();
    match database.step("COMMIT") {
        Err(Trouble::Refused { status: 400, code, .. }) => assert_eq!(code, "STREAM_EXPIRED"),
        other => panic!("{other:?}"),
    }
    database.baton = baton;
    assert_eq!(database.step("COMMIT").unwrap_err().code(), "STREAM_EXPIRED", "and again");
    // What it had open was rolled back.
    assert_eq!(database.value("SELECT count(*) FROM t"), "0");
    database.rows(&["INSERT INTO t VALUES (2)"]);
    server.stop();
}

#[test]
fn a_baton_is_good_once_and_for_one_database() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut one = server.create("one");
    let mut other = server.create("other");
    one.rows(&["CREATE TABLE secret(a)", "INSERT INTO secret VALUES (42)"]);
    one.step("BEGIN").unwrap();

    // Another database's baton.
    other.baton.clone_from(&one.baton);
    assert_refused(other.step("SELECT a FROM secret"));
    // The stream is unharmed by that, and its baton not used up.
    let used = one.baton.clone();
    assert_eq!(one.step("SELECT a FROM secret").unwrap(), [["42"]]);
    // The same baton twice.
    let mut thief = server.database("one");
    thief.baton = used;
    assert_refused(thief.step("SELECT a FROM secret"));
    // Bytes changed.
    let mut forged = one.baton.clone().unwrap().into_bytes();
    forged[10] ^= 1;
    thief.baton = Some(String::from_utf8_lossy(&forged).into_owned());
    assert_refused(thief.step("SELECT a FROM secret"));
    one.step("INSERT INTO secret VALUES (43)").unwrap();
    one.step("COMMIT").unwrap();
    one.finish();
    assert_eq!(one.value("SELECT count(*) FROM secret"), "2");

    // A baton of an earlier process.
    one.step("BEGIN").unwrap();
    let old = one.baton.clone();
    drop(server.kill());
    let server = Launch::on(data.path()).start();
    let mut one = server.database("one");
    one.baton = old;
    assert_refused(one.step("SELECT 1"));
    server.stop();
}

fn assert_refused<R: std::fmt::Debug>(answer: Result<R, Trouble>) {
    match answer {
        Err(Trouble::Refused { status: 400, .. }) => {}
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_stream_is_served_from_any_connection() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = server.create("d");
    database.step("BEGIN").unwrap();
    // The connection breaks, the stream does not.
    let baton = database.baton.take();
    drop(database);
    let mut database = server.database("d");
    let request = json!({"baton": baton, "requests": [execute("CREATE TABLE t(a)")]});
    let response = database.post(&request).unwrap();
    database.baton = response["baton"].as_str().map(str::to_owned);
    database.step("COMMIT").unwrap();
    database.finish();
    assert_eq!(database.value("SELECT count(*) FROM t"), "0");
    server.stop();
}

/// Found by a reader: the second request's bytes were lent to the next receive, and lay unread until
/// the connection timed out.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    server.create("d");
    let mut client = server.client();
    let mut bytes = Vec::new();
    for number in 1..=3 {
        let body =
            json!({"requests": [execute(&format!("SELECT {number}0 + 1")), {"type": "close"}]});
        let body = body.to_string();
        bytes.extend_from_slice(
            format!(
                "POST /db/d/v2/pipeline HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
    }
    client.send_raw(&bytes).unwrap();
    for number in 1..=3 {
        let answer = client.receive().unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains(&format!("\"{number}1\"")), "{}", answer.text());
    }
    // The same with control calls.
    let mut admin = server.admin();
    let call = "GET /v1/namespaces/d HTTP/1.1\r\nhost: x\r\n\r\n";
    admin.send_raw(call.repeat(2).as_bytes()).unwrap();
    for _ in 0..2 {
        assert_eq!(admin.receive().unwrap().status, 200);
    }
}
