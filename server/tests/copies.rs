//! Copies of databases, and files of them, on the real binary: while they are written to, cold and warm,
//! over kill -9.

#[path = "process/mod.rs"]
mod process;

#[path = "copies/exports.rs"]
mod exports;

#[path = "copies/forks.rs"]
mod forks;

#[path = "copies/small.rs"]
mod small;

#[path = "copies/templates.rs"]
mod templates;

use serde_json::Value;

use process::{Database, Server};

/// Accounts among which money moves; their sum is in no transaction another.
const ACCOUNTS: u64 = 50;
/// What they have together.
const MONEY: u64 = ACCOUNTS * 1000;

fn ask(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = server.admin().call(method, path, body.as_bytes()).expect("answered");
    (response.status, response.json())
}

fn good(server: &Server, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(server, method, path, body);
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

fn refused(server: &Server, method: &str, path: &str, body: &Value) -> (u16, String) {
    let (status, answer) = ask(server, method, path, body);
    (status, answer["code"].as_str().expect("a code").to_owned())
}

/// Copy one database to another name.
fn fork(server: &Server, from: &str, to: &str) {
    good(server, "POST", &format!("/v1/namespaces/{from}/fork/{to}"), &Value::Null);
}

/// Tables with a sum that never changes, and rows of a kilobyte each.
fn fill(database: &mut Database, rows: u64) {
    let accounts = format!(
        "INSERT INTO account WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n \
         LIMIT {ACCOUNTS}) SELECT id, 1000 FROM n"
    );
    let log = format!(
        "INSERT INTO log(text) WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n \
         LIMIT {rows}) SELECT printf('%d %s', id, hex(randomblob(500))) FROM n"
    );
    database.rows(&[
        "CREATE TABLE account(id INTEGER PRIMARY KEY, money INTEGER NOT NULL)",
        "CREATE TABLE log(id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT)",
        "CREATE INDEX logged ON log(text)",
        &accounts,
        &log,
    ]);
}

/// Tells writers to stop when the test is over, however it ends.
struct Over<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Move money once, and write of it.
fn transfer(database: &mut Database, turn: u64) -> Result<(), process::Trouble> {
    let (from, to) = (turn % ACCOUNTS + 1, (turn * 7 + 3) % ACCOUNTS + 1);
    database.run(&[
        "BEGIN IMMEDIATE",
        &format!("UPDATE account SET money = money - {} WHERE id = {from}", turn % 9),
        &format!("UPDATE account SET money = money + {} WHERE id = {to}", turn % 9),
        &format!("INSERT INTO log(text) VALUES('turn {turn} ' || hex(randomblob(200)))"),
        "COMMIT",
    ])?;
    Ok(())
}

/// The database is whole, and the sum is what it must be.
fn check(database: &mut Database) {
    assert_eq!(database.value("PRAGMA integrity_check"), "ok");
    assert_eq!(database.value("SELECT sum(money) FROM account"), MONEY.to_string());
}
