//! A client that asks for much and reads nothing costs little and hinders nobody.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{IOS, Launch, eventually, folder};

/// Rows of the result, of about a kilobyte each as JSON.
const ROWS: u64 = 200_000;
/// What the process may grow by while nobody reads: the kernel's buffers are not its own.
const GROWTH_BYTES_MAX: u64 = 8 << 20;
/// Clients that do not read, at a time.
const READERS: usize = 4;

#[test]
fn a_reader_that_does_not_read_with_uring() {
    reader_that_does_not_read(IOS[0]);
}

#[test]
fn a_reader_that_does_not_read_with_poll() {
    reader_that_does_not_read(IOS[1]);
}

fn reader_that_does_not_read(io: &str) {
    let data = folder();
    let mut server = Launch::on(data.path()).io(io).start();
    server.create("large");
    let mut other = server.create("other");
    other.rows(&["CREATE TABLE t(a)"]);
    for _ in 0..50 {
        other.rows(&["INSERT INTO t VALUES (randomblob(1000))"]);
    }
    let before = server.resident_bytes();

    let sql = format!(
        "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT {ROWS}) \
         SELECT i, hex(zeroblob(470)) FROM c"
    );
    let body = json!({"batch": {"steps": [{"stmt": {"sql": sql}}]}}).to_string();
    let begun = server.metric("jobs_total") + READERS as u64;
    let mut readers: Vec<_> = (0..READERS).map(|_| server.client()).collect();
    for reader in &mut readers {
        reader.send("POST", "/db/large/v3/cursor", body.as_bytes()).unwrap();
    }
    // They are stuck when all have begun and no fiber is resumed any more.
    let mut seen = 0;
    eventually(10, "the cursors are stuck", || {
        std::thread::sleep(Duration::from_millis(100));
        let resumes = server.metric("fiber_resumes_total");
        let rests = std::mem::replace(&mut seen, resumes) == resumes;
        rests && server.metric("jobs_total") >= begun
    });
    let grown = server.resident_bytes().saturating_sub(before);

    // Others are served meanwhile, the same database too.
    let asked = Instant::now();
    for _ in 0..50 {
        other.rows(&["INSERT INTO t VALUES (randomblob(1000))"]);
    }
    assert_eq!(other.value("SELECT count(*) FROM t"), "100");
    let mut neighbour = server.database("large");
    neighbour.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
    println!(
        "slow readers, {io}: {READERS} cursors of {} MB held, the process grew by {} KiB, 52 \
         requests of others took {} ms",
        ROWS / 1000,
        grown >> 10,
        asked.elapsed().as_millis()
    );
    assert!(grown < GROWTH_BYTES_MAX, "grew by {grown} bytes");

    // One of them goes on, and misses nothing; the others go away.
    let mut reader = readers.swap_remove(0);
    drop(readers);
    let response = reader.receive_head().unwrap();
    assert_eq!(response.status, 200);
    let mut lines = Lines::default();
    let mut piece = Vec::new();
    loop {
        let more = reader.receive_some(&mut piece).unwrap();
        lines.take(&piece);
        piece.clear();
        if !more {
            break;
        }
    }
    assert_eq!(lines.rows, ROWS);
    assert!(lines.ended && lines.rest.is_empty());
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "grew by {grown} bytes until the end");
    server.stop();
}

/// The lines of a cursor's answer, checked as they come.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    rows: u64,
    ended: bool,
}

impl Lines {
    fn take(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|&byte| byte == b'\n') {
            let line: Value = serde_json::from_slice(&self.rest[start..start + length]).unwrap();
            start += length + 1;
            match line["type"].as_str() {
                Some("row") => {
                    self.rows += 1;
                    assert_eq!(line["row"][0]["value"], self.rows.to_string());
                    assert_eq!(line["row"][1]["value"].as_str().unwrap().len(), 940);
                }
                Some("step_end") => self.ended = true,
                Some("step_begin") | None => {}
                Some(_) => panic!("{line}"),
            }
        }
        self.rest.drain(..start);
    }
}
