//! Memory runs out in the middle of FTS5's work, on streams that go on: nothing of what was half done is
//! ever written, and nobody meets it later.

use serde_json::json;

use crate::process::{Launch, Server, create_path, folder};

/// A budget that opens a database and compiles, and that FTS5's own pages do not fit into.
const BUDGET: &str = "1536KiB";

/// Texts without a common word, more than FTS5 may hold until its commit.
const LARGE: &str = "INSERT INTO f WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40000) \
                     SELECT hex(randomblob(30)) || ' ' || i FROM n";

const CHECK: &str = "INSERT INTO f(f) VALUES ('integrity-check')";

fn starved(server: &Server, name: &str) {
    let body = json!({"budget": {"memory_bytes": BUDGET}});
    let created = server.admin().post(&create_path(name), &body).expect("answered");
    assert_eq!(created.status, 200, "{}", created.text());
    let mut database = server.database(name);
    database.rows(&["CREATE VIRTUAL TABLE f USING fts5(words)", "INSERT INTO f VALUES ('first')"]);
}

/// Run what does not fit: the message.
fn fails(stream: &mut crate::process::Database, sql: &str) -> String {
    let trouble = stream.step(sql).expect_err("it does not fit");
    assert_eq!(trouble.code(), "SQLITE_NOMEM", "{trouble}");
    trouble.to_string()
}

#[test]
fn a_transaction_ends_where_fts5_had_no_memory() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    starved(&server, "d");
    let mut stream = server.database("d");
    for round in 0..3 {
        stream.step("BEGIN").expect("it begins");
        stream.step("INSERT INTO f VALUES ('of a transaction')").expect("it fits");
        let told = fails(&mut stream, LARGE);
        assert!(told.ends_with("; the transaction was rolled back"), "{told}");
        let trouble = stream.step("COMMIT").expect_err("there is nothing to commit");
        assert!(trouble.to_string().contains("no transaction is active"), "{trouble}");
        // The stream goes on.
        stream.step(CHECK).expect("the index is whole");
        stream.step(&format!("INSERT INTO f VALUES ('after {round}')")).expect("it fits");
        stream.step(CHECK).expect("the index is whole");
    }
    stream.finish();
    let mut other = server.database("d");
    other.rows(&[CHECK]);
    assert_eq!(other.value("SELECT count(*) FROM f"), "4");
    assert_eq!(other.value("SELECT count(*) FROM f WHERE f MATCH 'transaction'"), "0");
    assert_eq!(other.value("SELECT count(*) FROM f WHERE f MATCH 'after'"), "3");
    server.stop();
}

#[test]
fn a_stream_forgets_what_fts5_did_not_finish() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    starved(&server, "d");
    let mut stream = server.database("d");
    // What is too large to be compiled, and what is while it runs.
    let terms = vec!["words"; 12_000].join(",");
    let compiled = format!("SELECT * FROM f WHERE words IN ({terms})");
    for sql in [LARGE, &compiled, LARGE] {
        let trouble = stream.step(sql).expect_err("it does not fit");
        assert_eq!(trouble.code(), "SQLITE_NOMEM", "{trouble}");
        stream.step(CHECK).expect("the index is whole");
        stream.step("INSERT INTO f VALUES ('after')").expect("it fits");
        stream.step("BEGIN").expect("it begins");
        stream.step("INSERT INTO f VALUES ('and again')").expect("it fits");
        stream.step("COMMIT").expect("it commits");
        assert_eq!(server.database("d").value("PRAGMA integrity_check"), "ok");
    }
    stream.finish();
    let mut other = server.database("d");
    other.rows(&[CHECK]);
    assert_eq!(other.value("SELECT count(*) FROM f"), "7");
    server.stop();
}
