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
    let mut database = create(&server, "brief", &json!({"ttl": 4}));
    let mut lasting = create(&server, "lasting", &json!({"ttl": "1h"}));
    lasting.rows(&["CREATE TABLE t(a)"]);
    database.rows(&["CREATE TABLE t(a)"]);
    database.step("BEGIN IMMEDIATE").expect("it begins");
    let (_, shown) = show(&server, "brief");
    let (created, ends) = (shown["created_at"].as_i64().unwrap(), shown["ends_at"].as_i64());
    assert_eq!(ends, Some(created + 4));
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
    let mut database = create(&server, "brief", &json!({"ttl": 3}));
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let (code, _) = sql_error(database.run(&[endless]).expect_err("it has no end"));
    assert_eq!(code, "DATABASE_EXPIRED");
}

#[test]
fn a_frozen_database_is_read_and_lives_again() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = create(&server, "ice", &json!({"ttl": 3, "on_end": "freeze"}));
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

#[test]
fn a_drop_is_answered_with_a_receipt() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let drop =
        |name: &str| good(&server, "DELETE", &format!("/v1/namespaces/{name}"), &Value::Null);
    create(&server, "untouched", &json!({}));
    let receipt = &drop("untouched")["receipt"];
    assert_eq!((&receipt["even"], &receipt["taken"]["files"]), (&json!(true), &json!(0)));
    let mut database = create(&server, "used", &json!({}));
    database.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (randomblob(100000))"]);
    // Somebody holds the writer lock, and somebody waits for it.
    database.step("BEGIN IMMEDIATE").expect("it begins");
    let mut other = Database::of(server.client(), "used");
    other.send(&["INSERT INTO t VALUES (1)"]);
    let begun = Instant::now();
    let answer = drop("used");
    assert!(begun.elapsed() < Duration::from_secs(5), "a drop waits for nobody");
    let receipt = &answer["receipt"];
    assert_eq!(receipt["taken"], receipt["returned"]);
    assert_eq!(receipt["even"], true);
    assert!(receipt["taken"]["wal"].as_u64().unwrap() > 100_000, "{receipt}");
    assert!(receipt["taken"]["pages"].as_u64().unwrap() > 20, "{receipt}");
    assert!(other.answer().is_err());
    let mut database = create(&server, "filed", &json!({}));
    database.rows(&["CREATE TABLE t(a)"]);
    good(&server, "POST", "/v1/namespaces/filed/checkpoint", &Value::Null);
    let folders = data.path().join("tenants");
    let files = || walk(&folders).into_iter().filter(|name| name != "0.db").count();
    until("it has a file", || files() == 1);
    let receipt = &drop("filed")["receipt"];
    assert_eq!((&receipt["even"], &receipt["returned"]["files"]), (&json!(true), &json!(1)));
    assert_eq!(files(), 0);
    assert_eq!(server.metric("uneven_receipts_total"), 0);
}

/// The names of all files below a folder.
fn walk(folder: &std::path::Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let of_one = |entry: std::fs::DirEntry| match entry.path().is_dir() {
        true => walk(&entry.path()),
        false => vec![entry.file_name().to_string_lossy().into_owned()],
    };
    entries.flat_map(of_one).collect()
}

/// Ask for many: all lines of the answer.
fn bulk(server: &Server, what: &str, body: &Value, key: &str) -> (u16, Vec<Value>) {
    let mut client = server.admin();
    let key = if key.is_empty() { String::new() } else { format!("idempotency-key: {key}\r\n") };
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST /v1/bulk/{what} HTTP/1.1\r\nhost: localhost\r\n{key}content-length: {length}\r\n\r\n"
    );
    client.send_raw((head + &body).as_bytes()).expect("sent");
    let response = client.receive().expect("answered");
    let text = response.text();
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON"));
    (response.status, lines.collect())
}

#[test]
fn many_are_created_and_dropped_in_one_call() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    create(&server, "ctx-7", &json!({}));
    let body = json!({"prefix": "ctx-", "count": 1000, "ttl": "1h"});
    let (status, lines) = bulk(&server, "create", &body, "first");
    assert_eq!(status, 200, "{lines:?}");
    let last = lines.last().unwrap();
    assert_eq!(lines.len(), 1000_usize.div_ceil(128) + 1, "word of how far it is");
    assert_eq!((&last["finished"], &last["succeeded"]), (&json!(true), &json!(999)));
    assert_eq!(last["failed"], json!([{"name": "ctx-7", "code": "DATABASE_EXISTS"}]));
    // The same again is answered the same, and makes nothing; after a crash too.
    let (_, again) = bulk(&server, "create", &body, "first");
    assert_eq!(again.last(), lines.last());
    let _ = server.kill();
    let server = Launch::on(data.path()).start();
    let (_, again) = bulk(&server, "create", &body, "first");
    assert_eq!(again.last(), lines.last());
    let (status, refused) = bulk(&server, "create", &json!({"names": ["other"]}), "first");
    assert_eq!((status, &refused[0]["code"]), (422, &json!("IDEMPOTENCY_KEY_REUSED")));
    let mut used = Database::of(server.client(), "ctx-999");
    used.rows(&["CREATE TABLE t(a)"]);
    let names = json!({"prefix": "ctx-", "count": 1001});
    let (_, lines) = bulk(&server, "drop", &names, "second");
    let last = lines.last().unwrap();
    assert_eq!((&last["succeeded"], &last["receipt"]["even"]), (&json!(1000), &json!(true)));
    assert_eq!(lines.len(), 1001_usize.div_ceil(128) + 1);
    assert_eq!(last["failed"], json!([{"name": "ctx-1000", "code": "DATABASE_NOT_FOUND"}]));
    let (_, again) = bulk(&server, "drop", &names, "second");
    assert_eq!(again.last(), lines.last());
    let left = good(&server, "GET", "/v1/namespaces", &Value::Null);
    assert_eq!(left["namespaces"], json!([]));
    for body in [
        json!({}),
        json!({"names": []}),
        json!({"prefix": "x", "count": 10_001}),
        json!({"names": ["_"]}),
    ] {
        assert_eq!(bulk(&server, "drop", &body, "").0, 400, "{body}");
    }
}

#[test]
fn a_database_in_memory_leaves_nothing_on_disk() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let drop = |server: &Server, name: &str| {
        good(server, "DELETE", &format!("/v1/namespaces/{name}"), &Value::Null)
    };
    let commits = server.metric("commits_total");
    let mut database = create(&server, "thought", &json!({"class": "memory"}));
    assert_eq!(show(&server, "thought").1["class"], "memory");
    database.rows(&["CREATE TABLE t(a, b)", "CREATE INDEX i ON t(b)"]);
    // Large enough for checkpoints, which only bring it from one place in memory to another.
    for _ in 0..20 {
        database
            .rows(&["WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) \
             INSERT INTO t SELECT i, randomblob(200) FROM n"]);
    }
    database.step("BEGIN IMMEDIATE").expect("it begins");
    database.step("DELETE FROM t").expect("it deletes");
    database.step("ROLLBACK").expect("it rolls back");
    database.finish();
    assert_eq!(database.value("SELECT count(*) FROM t"), "10000");
    assert_eq!(database.value("PRAGMA integrity_check"), "ok");
    assert!(server.metric("checkpoints_total") > 0);
    assert_eq!(server.metric("commits_total"), commits, "no log has any of it");
    assert_eq!(walk(&data.path().join("tenants")), Vec::<String>::new());
    // A name is of one database, whatever its class.
    for class in ["memory", "durable"] {
        let (status, refused) =
            call(&server, "POST", &create_path("thought"), &json!({ "class": class }));
        assert_eq!((status, &refused["code"]), (400, &json!("DATABASE_EXISTS")), "{class}");
    }
    create(&server, "written", &json!({}));
    let (status, _) = call(&server, "POST", &create_path("written"), &json!({"class": "memory"}));
    assert_eq!(status, 400);
    let page = good(&server, "GET", "/v1/namespaces", &Value::Null);
    let names: Vec<&Value> =
        page["namespaces"].as_array().unwrap().iter().map(|n| &n["name"]).collect();
    assert_eq!(names, [&json!("thought"), &json!("written")]);
    // More than its budget it may not hold, anywhere.
    let budget = json!({"budget": {"memory_bytes": "8MiB"}});
    good(&server, "PUT", "/v1/namespaces/thought/budget", &budget);
    let large = "INSERT INTO t SELECT a, randomblob(1000) FROM t";
    let (code, message) = sql_error(database.run(&[large]).expect_err("it is too much"));
    assert_eq!(code, "SQLITE_NOMEM", "{message}");
    assert_eq!(database.value("SELECT count(*) FROM t"), "10000");
    let receipt = drop(&server, "thought")["receipt"].clone();
    assert_eq!(receipt["even"], true, "{receipt}");
    assert!(receipt["taken"]["main"].as_u64().unwrap() > 2_000_000, "{receipt}");
    assert_eq!(show(&server, "thought").0, 404);
    create(&server, "thought", &json!({}));
    drop(&server, "thought");
    create(&server, "thought", &json!({"class": "memory", "ttl": 1}));
    until("it has ended", || show(&server, "thought").0 == 404);
    create(&server, "kept", &json!({"class": "memory"}));
    let _ = server.kill();
    let server = Launch::on(data.path()).start();
    assert_eq!((show(&server, "kept").0, show(&server, "written").0), (404, 200));
    let (_, lines) =
        bulk(&server, "create", &json!({"prefix": "m-", "count": 300, "class": "memory"}), "");
    assert_eq!(lines.last().unwrap()["succeeded"], 300);
    let (_, lines) = bulk(&server, "drop", &json!({"prefix": "m-", "count": 300}), "");
    assert_eq!(lines.last().unwrap()["succeeded"], 300, "{lines:?}");
}

#[test]
fn a_group_says_where_its_databases_are() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    good(&server, "PUT", "/v1/organisations/acme", &json!({}));
    good(&server, "PUT", "/v1/organisations/acme/groups/mind", &json!({}));
    let settings = "/v1/organisations/acme/groups/mind/settings";
    good(&server, "PATCH", settings, &json!({"class": "memory", "max_statements": 3}));
    let mut database = create(&server, "idea", &json!({"group": "acme/mind"}));
    create(&server, "file", &json!({"group": "acme/mind", "class": "durable"}));
    assert_eq!(show(&server, "idea").1["class"], "memory");
    assert_eq!(show(&server, "file").1["class"], "durable");
    assert_eq!(show(&server, "idea").1["group"], "acme/mind");
    let (status, refused) =
        call(&server, "DELETE", "/v1/organisations/acme/groups/mind", &Value::Null);
    assert_eq!((status, &refused["code"]), (409, &json!("IN_USE")));
    database.rows(&["CREATE TABLE t(a)", "SELECT 1", "SELECT 2"]);
    until("it has ended by its group's word", || show(&server, "idea").0 == 404);
}
