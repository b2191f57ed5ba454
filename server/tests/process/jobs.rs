//! Fleet jobs on the real binary: a migration of many databases, with failures, canaries and `kill -9`.
//!
//! The migration adds a row to a table, so a second run on a database would show.

use serde_json::{Value, json};

use crate::process::{Launch, Server, eventually, folder, number};

fn ask(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = server.admin().call(method, path, body.as_bytes()).expect("answered");
    (response.status, response.json())
}

fn call(server: &Server, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(server, method, path, body);
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

fn get(server: &Server, path: &str) -> Value {
    call(server, "GET", path, &Value::Null)
}

/// Databases `d-0000` and so on in the group `acme/web`, each with a table; those whose number ends with
/// `broken` lack it.
fn settle(server: &Server, count: usize, broken: impl Fn(usize) -> bool) {
    call(server, "PUT", "/v1/organisations/acme", &json!({}));
    call(server, "PUT", "/v1/organisations/acme/groups/web", &json!({}));
    for number in 0..count {
        let name = format!("d-{number:04}");
        let path = format!("/v1/namespaces/{name}/create");
        call(server, "POST", &path, &json!({ "group": "acme/web" }));
        if !broken(number) {
            server.database(&name).rows(&["CREATE TABLE runs(job)"]);
        }
    }
}

/// How often the migration ran on a database.
fn runs(server: &Server, name: &str) -> String {
    server.database(name).value("SELECT count(*) FROM runs")
}

/// All results of a status, page by page.
fn results(server: &Server, job: &Value, status: &str) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let path =
            format!("/v1/jobs/{}/results?status={status}&limit=37&cursor={cursor}", job["id"]);
        let page = get(server, &path);
        all.extend(page["results"].as_array().expect("a list").iter().cloned());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
}

fn wait_for(server: &Server, job: &Value, state: &str) -> Value {
    let path = format!("/v1/jobs/{}", job["id"]);
    let mut shown = Value::Null;
    eventually(120, state, || {
        shown = get(server, &path);
        shown["state"] == state
    });
    shown
}

#[test]
fn a_migration_goes_over_a_group() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    settle(&server, 60, |number| number % 20 == 7);
    let body = json!({
        "sql": "INSERT INTO runs VALUES(1); ALTER TABLE runs ADD COLUMN note TEXT DEFAULT ';'",
        "group": "acme/web", "on_error": "continue",
    });
    let job = call(&server, "POST", "/v1/jobs", &body);
    let job = wait_for(&server, &job, "completed");
    assert_eq!((&job["total"], &job["done"], &job["failed"]), (&json!(60), &json!(57), &json!(3)));
    assert!(job["cost_ru"].as_f64().expect("a number") > 0.0, "{job}");
    let failed = results(&server, &job, "failed");
    let names: Vec<&str> = failed.iter().filter_map(|row| row["database"].as_str()).collect();
    assert_eq!(names.len(), 3);
    assert!(names.contains(&"d-0007"));
    assert_eq!(failed[0]["code"], "SQLITE_UNKNOWN", "{}", failed[0]);
    assert!(failed[0]["message"].as_str().expect("a text").contains("no such table: runs"));
    let done = results(&server, &job, "done");
    assert_eq!(done.len(), 57);
    assert!(done.iter().all(|row| row["txid"].is_u64() && row["cost_ru"].is_f64()));
    assert_eq!(runs(&server, "d-0000"), "1");

    // What is exported has no mark, and is a database like any other.
    let path = "/v1/namespaces/d-0000/export?format=sqlite";
    let file = server.admin().call("GET", path, b"").expect("answered").body;
    assert!(file.len() > 4096 && file[72..92].iter().all(|&byte| byte == 0));

    // The three get their table, and are tried again.
    for name in &names {
        server.database(name).rows(&["CREATE TABLE runs(job)"]);
    }
    let path = format!("/v1/jobs/{}/retry-failed", job["id"]);
    call(&server, "POST", &path, &Value::Null);
    let job = wait_for(&server, &job, "completed");
    assert_eq!((&job["done"], &job["failed"]), (&json!(60), &json!(0)));
    for number in 0..60 {
        assert_eq!(runs(&server, &format!("d-{number:04}")), "1");
    }
    assert_eq!(ask(&server, "POST", &path, &Value::Null).1["code"], "NOTHING_FAILED");

    let path = format!("/v1/jobs/{}", job["id"]);
    call(&server, "DELETE", &path, &Value::Null);
    assert_eq!(ask(&server, "GET", &path, &Value::Null).0, 404);
    assert_eq!(get(&server, "/v1/jobs")["jobs"], json!([]));
    server.stop();
}

#[test]
fn a_canary_pauses_and_failures_do() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    settle(&server, 40, |number| number >= 30);
    let body = json!({
        "statements": [{ "sql": "INSERT INTO runs VALUES(:job)", "args": { "job": 7 } }],
        "group": "acme", "canary": "25%", "max_failures": 2, "concurrency": 1,
    });
    let job = call(&server, "POST", "/v1/jobs", &body);
    let job = wait_for(&server, &job, "paused");
    assert_eq!((&job["done"], &job["reason"]), (&json!(10), &json!("canary")));
    let resume = format!("/v1/jobs/{}/resume", job["id"]);
    call(&server, "POST", &resume, &Value::Null);
    let job = wait_for(&server, &job, "paused");
    assert_eq!((&job["done"], &job["reason"]), (&json!(30), &json!("failures")));
    assert_eq!(job["failed"], 2);
    let cancel = format!("/v1/jobs/{}/cancel", job["id"]);
    call(&server, "POST", &cancel, &Value::Null);
    let job = wait_for(&server, &job, "cancelled");
    assert_eq!(job["left"], 8);
    assert_eq!(ask(&server, "POST", &resume, &Value::Null).1["code"], "JOB_ENDED");
    server.stop();
}

#[test]
fn databases_that_are_not_there_or_busy() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    settle(&server, 4, |_| false);
    // A client holds the writer lock, and lets go of it.
    let mut busy = server.database("d-0002");
    busy.step("BEGIN IMMEDIATE").expect("nobody else writes");
    let body = json!({
        "sql": "INSERT INTO runs VALUES(1)", "names": ["d-0001", "d-0002", "nobody"],
    });
    let job = call(&server, "POST", "/v1/jobs", &body);
    busy.finish();
    let job = wait_for(&server, &job, "completed");
    assert_eq!((&job["done"], &job["skipped"], &job["total"]), (&json!(2), &json!(1), &json!(3)));
    let skipped = results(&server, &job, "skipped");
    assert_eq!(skipped[0]["code"], "DATABASE_NOT_FOUND");
    assert_eq!(skipped[0]["message"], "no such database: nobody");
    for (name, count) in [("d-0000", "0"), ("d-0001", "1"), ("d-0002", "1"), ("d-0003", "0")] {
        assert_eq!(runs(&server, name), count, "{name}");
    }
    for (body, code) in [
        (json!({ "sql": "COMMIT" }), "REQUEST_INVALID"),
        (json!({ "sql": "SELECT 1", "group": "nobody/web" }), "ORGANISATION_NOT_FOUND"),
    ] {
        let (_, answer) = ask(&server, "POST", "/v1/jobs", &body);
        assert_eq!(answer["code"], code, "{answer}");
    }
    server.stop();
}

/// Killed and started again until it has ended: each database exactly once, and all results there. Issue
/// 5 has ten thousand: `MYRIAD_FLEET=10000 cargo test -p server --test process fleet`.
#[test]
fn a_fleets_migration_survives_kills() {
    let (count, kills) = (number("MYRIAD_FLEET", 500), 3);
    let data = folder();
    let mut server = Launch::on(data.path()).start();
    settle(&server, count, |number| number % 100 == 50);
    let body = json!({
        "sql": "INSERT INTO runs VALUES(1)", "group": "acme/web", "on_error": "continue",
        "concurrency": 16,
    });
    let job = call(&server, "POST", "/v1/jobs", &body);
    for kill in 1..=kills {
        let share = (kill * count / (kills + 1)) as u64;
        let path = format!("/v1/jobs/{}", job["id"]);
        eventually(600, "a part is done", || {
            get(&server, &path)["done"].as_u64().expect("a number") >= share
        });
        server.kill();
        server = Launch::on(data.path()).start();
    }
    let job = wait_for(&server, &job, "completed");
    let failing = (count + 49) / 100;
    assert_eq!(job["done"], count - failing);
    assert_eq!((&job["failed"], &job["skipped"]), (&json!(failing), &json!(0)));
    let mut ids: Vec<u64> = ["done", "failed"]
        .iter()
        .flat_map(|status| results(&server, &job, status))
        .map(|row| row["database_id"].as_u64().expect("a number"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "each database has its one result");
    for number in (0..count).filter(|number| number % 100 != 50) {
        assert_eq!(runs(&server, &format!("d-{number:04}")), "1", "database {number}");
    }
    server.stop();
}
