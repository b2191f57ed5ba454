//! Databases that end by themselves, on the real binary: by their age, their last use, what they
//! have spent and how many statements they have run.

#[path = "process/mod.rs"]
mod process;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use process::{Database, Launch, Server, Trouble, create_path, folder};

/// How long a database that is due may take to end.
const PATIENCE: Duration = Duration::from_secs(15);

fn call(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = server.admin().call(method, path, body.as_bytes()).expect("answered");
    (response.status, response.json())
}

fn good(server: &Server, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = call(server, method, path, body);
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

fn create(server: &Server, name: &str, body: &Value) -> Database {
    good(server, "POST", &create_path(name), body);
    Database::of(server.client(), name)
}

fn show(server: &Server, name: &str) -> (u16, Value) {
    call(server, "GET", &format!("/v1/namespaces/{name}"), &Value::Null)
}

/// Wait until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come to it that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn sql_error(trouble: Trouble) -> (String, String) {
    match trouble {
        Trouble::Sql { code, message } => (code, message),
        other => panic!("no statement failed: {other}"),
    }
}

#[test]
fn a_database_ends_by_its_age_and_those_who_use_it_are_told_once() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = create(&server, "brief", &json!({"ttl": 2}));
    let mut lasting = create(&server, "lasting", &json!({"ttl": "1h"}));
    lasting.rows(&["CREATE TABLE t(a)"]);
    database.rows(&["CREATE TABLE t(a)"]);
    database.step("BEGIN IMMEDIATE").expect("it begins");
    let (_, shown) = show(&server, "brief");
    let (created, ends) = (shown["created_at"].as_i64().unwrap(), shown["ends_at"].as_i64());
    assert_eq!(ends, Some(created + 2));
    until("the database has gone", || show(&server, "brief").0 == 404);
    let told = database.step("SELECT 1").expect_err("it has ended");
    assert!(
        matches!(&told, Trouble::Refused { status: 410, code, .. } if code == "DATABASE_EXPIRED"),
        "{told}"
    );
    let gone = database.run(&["SELECT 1"]).expect_err("it is no more");
    assert!(matches!(&gone, Trouble::Refused { status: 404, .. }), "{gone}");
    assert_eq!(lasting.value("SELECT count(*) FROM t"), "0");
    assert_eq!(
        good(&server, "GET", "/v1/namespaces?limit=9", &Value::Null)["namespaces"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn what_runs_when_its_database_ends_is_told_why() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = create(&server, "brief", &json!({"ttl": 1}));
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let (code, _) = sql_error(database.run(&[endless]).expect_err("it has no end"));
    assert_eq!(code, "DATABASE_EXPIRED");
}

#[test]
fn a_frozen_database_is_read_and_lives_again() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = create(&server, "ice", &json!({"ttl": 1, "on_end": "freeze"}));
    database.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
    until("it is frozen", || show(&server, "ice").1["state"] == "frozen");
    assert_eq!(show(&server, "ice").1["reason"], "ttl");
    assert_eq!(database.value("SELECT a FROM t"), "1");
    let (code, _) = sql_error(database.run(&["INSERT INTO t VALUES (2)"]).expect_err("frozen"));
    assert_eq!(code, "DATABASE_FROZEN");
    // It stays so after a restart.
    let _ = server.kill();
    let server = Launch::on(data.path()).start();
    let mut database = Database::of(server.client(), "ice");
    assert_eq!(database.value("SELECT a FROM t"), "1");
    let (code, _) = sql_error(database.run(&["DELETE FROM t"]).expect_err("frozen"));
    assert_eq!(code, "DATABASE_FROZEN");
    good(&server, "PATCH", "/v1/namespaces/ice/settings", &json!({"ttl": null}));
    assert_eq!(show(&server, "ice").1["state"], "live");
    database.rows(&["DELETE FROM t"]);
}

#[test]
fn who_is_used_does_not_end_by_being_idle() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = create(&server, "busy", &json!({"idle_ttl": 2}));
    create(&server, "idle", &json!({"idle_ttl": 2}));
    database.rows(&["CREATE TABLE t(a)"]);
    until("the idle one has gone", || {
        database.rows(&["INSERT INTO t VALUES (1)"]);
        show(&server, "idle").0 == 404
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        database.rows(&["SELECT count(*) FROM t"]);
        std::thread::sleep(Duration::from_millis(50));
    }
    until("the other one has gone", || show(&server, "busy").0 == 404);
}

#[test]
fn as_many_statements_as_may_run_do() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let body = json!({"max_statements": 3, "on_end": "freeze"});
    let mut database = create(&server, "three", &body);
    database.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
    let (code, _) = sql_error(
        database
            .run(&["INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (3)"])
            .expect_err("the fourth is too many"),
    );
    assert_eq!(code, "STATEMENT_LIMIT");
    until("it is frozen", || show(&server, "three").1["state"] == "frozen");
    assert_eq!(database.value("SELECT count(*) FROM t"), "2");
}

#[test]
fn the_statement_that_would_spend_too_much_has_no_effect() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = create(&server, "thrifty", &json!({"max_spend": 0.2, "on_end": "freeze"}));
    database.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) \
                INSERT INTO t SELECT i FROM n";
    let (code, message) = sql_error(database.run(&[many]).expect_err("it costs too much"));
    assert_eq!(code, "SPEND_LIMIT", "{message}");
    until("it is frozen", || show(&server, "thrifty").1["state"] == "frozen");
    assert_eq!(show(&server, "thrifty").1["reason"], "max_spend");
    assert_eq!(database.value("SELECT count(*) FROM t"), "1", "nothing of it stayed");
    good(&server, "PATCH", "/v1/namespaces/thrifty/settings", &json!({"max_spend": 1000}));
    database.rows(&[many]);
}

#[test]
fn a_group_says_how_long_its_databases_live() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    good(&server, "PUT", "/v1/organisations/acme", &json!({}));
    good(&server, "PUT", "/v1/organisations/acme/groups/web", &json!({}));
    for number in 0..150 {
        create(&server, &format!("of-group-{number}"), &json!({"group": "acme/web"}));
    }
    create(&server, "own", &json!({"group": "acme/web", "ttl": 0}));
    assert_eq!(show(&server, "of-group-7").1["ends_at"], Value::Null);
    let settings = "/v1/organisations/acme/settings";
    good(&server, "PATCH", settings, &json!({"ttl": "1h"}));
    until("all have an end", || {
        (0..150).all(|number| !show(&server, &format!("of-group-{number}")).1["ends_at"].is_null())
    });
    assert_eq!(show(&server, "own").1["ends_at"], Value::Null, "its own word is nearer");
    // By a stop and a start nothing of it is lost.
    assert_eq!(good(&server, "GET", settings, &Value::Null)["ttl"], 3600);
    good(&server, "PATCH", settings, &json!({"ttl": 1}));
    until("all have gone", || {
        let page = good(&server, "GET", "/v1/namespaces?limit=9", &Value::Null);
        page["namespaces"].as_array().unwrap().len() == 1
    });
    let (status, _) =
        call(&server, "PUT", "/v1/namespaces/own/settings", &json!({"class": "memory"}));
    assert_eq!(status, 400);
}
