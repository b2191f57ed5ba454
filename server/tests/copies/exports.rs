//! Exports: what SQLite itself makes of them.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use rusqlite::types::Value as SqlValue;
use serde_json::json;

use crate::process::{Client, Launch, Server, folder};
use crate::{Over, check, fill, transfer};

/// Everything of a kind: types, names, keys, generated columns, modules, what needs tables.
const SCHEMA: [&str; 22] = [
    "CREATE TABLE \"odd \"\"name\"\"\"(\"a b\" TEXT, [c;d] BLOB, 'e' REAL DEFAULT 1.5, f)",
    "INSERT INTO \"odd \"\"name\"\"\" VALUES('it''s', x'00ff27', 0.1, NULL), ('', zeroblob(0), 1e300, 7)",
    "INSERT INTO \"odd \"\"name\"\"\" VALUES('a' || char(10) || 'é' || char(0) || 'b', x'', -1e999, 1e999)",
    "INSERT INTO \"odd \"\"name\"\"\" VALUES(CAST(x'ff27' AS TEXT), 5, -0.5, 9223372036854775807)",
    "CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, text)",
    "INSERT INTO counted(text) VALUES('one'), ('two'), ('three')",
    "DELETE FROM counted WHERE id = 3",
    "CREATE TABLE keyed(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID",
    "INSERT INTO keyed VALUES(1, 'x'), (2, 'x'), (0, 'y')",
    "CREATE TABLE made(a INTEGER, b AS (a * 2) STORED, c AS (a + 1))",
    "INSERT INTO made(a) VALUES(1), (20)",
    "CREATE VIRTUAL TABLE words USING fts5(title, body)",
    "INSERT INTO words VALUES('first', 'the quick brown fox'), ('second', 'a lazy dog')",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)",
    "INSERT INTO boxes VALUES(1, 0.5, 2.5), (2, 7, 9)",
    "CREATE TABLE noted(what)",
    "CREATE TRIGGER noting AFTER INSERT ON counted BEGIN INSERT INTO noted VALUES(new.id); END",
    "CREATE VIEW seen AS SELECT count(*) AS n FROM counted",
    "CREATE INDEX by_text ON counted(text) WHERE text IS NOT NULL",
    "CREATE TABLE big(text, blob)",
    "INSERT INTO big VALUES(replace(hex(zeroblob(50000)), '00', 'it''s '), randomblob(100000))",
    "PRAGMA user_version = 42",
];

/// What must be equal.
const LOOKS: [&str; 12] = [
    "SELECT * FROM \"odd \"\"name\"\"\"",
    "SELECT typeof(\"a b\"), typeof(\"c;d\"), typeof(e), typeof(f) FROM \"odd \"\"name\"\"\"",
    "SELECT * FROM counted",
    "SELECT name, seq FROM sqlite_sequence",
    "SELECT * FROM keyed",
    "SELECT a, b, c FROM made",
    "SELECT * FROM words WHERE words MATCH 'quick OR lazy'",
    "SELECT * FROM boxes WHERE x0 > 1",
    "SELECT n FROM seen",
    "SELECT text, blob FROM big",
    "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name",
    "SELECT user_version FROM pragma_user_version",
];

fn export(client: &mut Client, path: &str) -> (Option<String>, Vec<u8>) {
    let response = client.call("GET", path, b"").expect("answered");
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    (response.header("content-type").map(str::to_owned), response.body)
}

/// Run SQL text, statement by statement: the whole of it may be longer than SQLite takes at once. No trigger
/// of these tests has a line that ends as a statement does.
fn run(connection: &Connection, text: &[u8]) {
    let mut statement = String::new();
    for line in String::from_utf8(text.to_vec()).expect("SQL is text").split_inclusive(";\n") {
        statement.push_str(line);
        if statement.matches('\'').count().is_multiple_of(2) {
            let done = connection.execute_batch(&statement);
            done.unwrap_or_else(|error| panic!("{error}: {statement:.1000}"));
            statement.clear();
        }
    }
    assert_eq!(statement, "");
}

/// All values that a statement gives.
fn look(connection: &Connection, sql: &str) -> Vec<Vec<SqlValue>> {
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = statement.column_count();
    let rows = statement.query_map((), |row| {
        (0..columns)
            .map(|index| {
                row.get::<_, SqlValue>(index).or_else(|_| {
                    // Text that is no UTF-8.
                    let bytes = row.get_ref(index)?.as_bytes()?.to_vec();
                    Ok(SqlValue::Blob(bytes))
                })
            })
            .collect::<Result<Vec<_>, rusqlite::Error>>()
    });
    rows.expect(sql).collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn open(bytes: &[u8], folder: &std::path::Path, name: &str) -> Connection {
    let file = folder.join(name);
    std::fs::write(&file, bytes).expect("a file");
    let connection = Connection::open(&file).expect("SQLite opens it");
    let ok: String = connection.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(ok, "ok");
    connection
}

#[test]
fn what_is_exported_is_equal_as_a_file_and_as_text() {
    let (data, files) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    let mut database = server.create("shop");
    for sql in SCHEMA {
        database.rows(&[sql]);
    }
    let path = "/v1/namespaces/shop/export";
    let (kind, bytes) = export(&mut server.admin(), path);
    assert_eq!(kind.as_deref(), Some("application/vnd.sqlite3"));
    assert_eq!(bytes.len() % 4096, 0);
    let file = open(&bytes, files.path(), "file.db");
    let mode: String = file.query_row("PRAGMA journal_mode", (), |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete", "it opens where nothing can be written beside it");
    let (kind, text) = export(&mut server.admin(), &format!("{path}?format=sql"));
    assert_eq!(kind.as_deref(), Some("application/sql"));
    let copy = open(b"", files.path(), "text.db");
    run(&copy, &text);
    drop(copy);
    // Shadow tables became those of modules by being read again.
    let copy = Connection::open(files.path().join("text.db")).expect("SQLite opens it");
    for sql in LOOKS {
        let (of_file, of_text) = (look(&file, sql), look(&copy, sql));
        assert!(!of_file.is_empty(), "{sql}");
        assert_eq!(of_file, of_text, "{sql}");
    }
    for sql in
        ["SELECT count(*) FROM keyed", "SELECT sum(length(text)) FROM big", "SELECT n FROM seen"]
    {
        let here: i64 = file.query_row(sql, (), |row| row.get(0)).expect(sql);
        assert_eq!(database.value(sql), here.to_string());
    }
    copy.execute("INSERT INTO words VALUES('third', 'new')", ()).expect("a module works on");
    // The same on the address for SQL, as users of libSQL know it.
    let sql = export(&mut server.client(), "/db/shop/dump").1;
    assert!(sql == text);
    assert_eq!(export(&mut server.client(), "/db/shop/v1/export").1, bytes);
    // As `turso db export` asks for it.
    let info = export(&mut server.client(), "/db/shop/info").1;
    assert_eq!(info, br#"{"current_generation":1}"#);
    assert_eq!(export(&mut server.client(), "/db/shop/export/1").1, bytes);
    let (_, empty) =
        (server.create("empty"), export(&mut server.client(), "/db/empty/v1/export").1);
    assert_eq!(
        look(&open(&empty, files.path(), "empty.db"), "SELECT * FROM sqlite_schema").len(),
        0
    );
    server.stop();
}

fn refused(client: &mut Client, method: &str, path: &str) -> (u16, String) {
    let response = client.call(method, path, b"").expect("answered");
    (response.status, response.json()["code"].as_str().expect("a code").to_owned())
}

#[test]
fn what_is_not_there_is_not_made_and_what_is_blocked_is_not_read() {
    let data = folder();
    let server = Launch::on(data.path()).with(&["--create-on-first-use", "true"]).start();
    server.create("shop");
    let path = "/v1/namespaces/nothing/export";
    assert_eq!(refused(&mut server.admin(), "GET", path), (404, "DATABASE_NOT_FOUND".into()));
    assert_eq!(refused(&mut server.client(), "GET", "/db/nothing/dump").0, 404);
    let path = "/v1/namespaces/shop/export";
    assert_eq!(refused(&mut server.admin(), "GET", &format!("{path}?format=csv")).0, 400);
    assert_eq!(refused(&mut server.admin(), "POST", path).0, 405);
    assert_eq!(refused(&mut server.client(), "POST", "/db/shop/dump").0, 405);
    let settings = json!({ "block_reads": true, "block_reason": "moved" }).to_string();
    let changed = server.admin().call("PUT", "/v1/namespaces/shop/settings", settings.as_bytes());
    assert_eq!(changed.expect("answered").status, 200);
    assert_eq!(refused(&mut server.admin(), "GET", path), (403, "BLOCKED".into()));
    server.stop();
}

#[test]
fn an_export_beside_writers_is_of_one_moment_and_a_slow_reader_costs_little() {
    let (data, files) = (folder(), folder());
    let mut server = Launch::on(data.path()).start();
    fill(&mut server.create("shop"), 8000);
    let done = AtomicBool::new(false);
    let before = server.resident_bytes();
    std::thread::scope(|scope| {
        let (server, done) = (&server, &done);
        scope.spawn(move || {
            let (mut database, mut turn) = (server.database("shop"), 0);
            while !done.load(Ordering::Relaxed) {
                transfer(&mut database, turn).expect("a writer goes on");
                turn += 1;
            }
        });
        let over = Over(done);
        for round in 0..2 {
            let bytes = export(&mut server.client(), "/db/shop/v1/export").1;
            assert!(bytes.len() > 8_000_000, "{}", bytes.len());
            let file = open(&bytes, files.path(), &format!("{round}.db"));
            let sum: i64 =
                file.query_row("SELECT sum(money) FROM account", (), |row| row.get(0)).unwrap();
            assert_eq!(sum, crate::MONEY as i64);
            let sql = export(&mut server.client(), "/db/shop/dump").1;
            let copy = Connection::open_in_memory().expect("SQLite opens");
            run(&copy, &sql);
            let sum: i64 =
                copy.query_row("SELECT sum(money) FROM account", (), |row| row.get(0)).unwrap();
            assert_eq!(sum, crate::MONEY as i64);
        }
        // Readers that take nothing, and go.
        let mut lazy: Vec<Client> = (0..8).map(|_| server.client()).collect();
        for client in &mut lazy {
            client.send("GET", "/db/shop/v1/export", b"").expect("sent");
        }
        let mut database = server.database("shop");
        for turn in 0..50 {
            transfer(&mut database, turn).expect("a writer goes on");
        }
        drop(over);
    });
    let after = server.resident_bytes();
    assert!(after < before + (64 << 20), "{before} {after}");
    check(&mut server.database("shop"));
    server.stop();
}

/// What a server answers whose database ends in the middle of an export.
#[test]
fn an_export_that_breaks_off_is_seen_to() {
    let data = folder();
    let server: Server = Launch::on(data.path()).start();
    fill(&mut server.create("shop"), 8000);
    let mut client = server.client();
    client.send("GET", "/db/shop/v1/export", b"").expect("sent");
    // The first part is in the kernel's buffers, the last is not.
    let mut response = client.receive_head().expect("it begins");
    std::thread::sleep(std::time::Duration::from_millis(100));
    server.drop_database("shop");
    let rest = loop {
        match client.receive_some(&mut response.body) {
            Ok(true) => {}
            end => break end,
        }
    };
    assert!(rest.is_err(), "the last chunk does not come");
    server.stop();
}
