//! Budgets through the control API of the real binary: the tree, its changes while databases are
//! open, every plain limit, use, and a data folder of version 1.

use std::path::Path;

use serde_json::{Value, json};

use crate::process::http::Client;
use crate::process::sql::execute;
use crate::process::{Launch, Server, Trouble, create_path, eventually, folder};

/// A call to the control API that succeeds: its JSON.
fn call(server: &Server, method: &str, path: &str, body: &Value) -> Value {
    let (status, answer) = ask(server, method, path, body);
    assert_eq!(status, 200, "{method} {path}: {answer}");
    answer
}

/// A call to the control API: status and JSON.
fn ask(server: &Server, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = server.admin().call(method, path, body.as_bytes()).expect("answered");
    (response.status, response.json())
}

fn get(server: &Server, path: &str) -> Value {
    call(server, "GET", path, &Value::Null)
}

/// What holds for a database: a part's value, and where it comes from.
fn holds(server: &Server, name: &str, part: &str) -> (Value, String) {
    let budget = get(server, &format!("/v1/namespaces/{name}/budget"));
    let entry = &budget["effective"][part];
    (entry["value"].clone(), entry["from"].as_str().expect("a source").to_owned())
}

fn create(server: &Server, name: &str, body: &Value) {
    call(server, "POST", &create_path(name), body);
}

const MIB: u64 = 1 << 20;

#[test]
fn a_tree_of_budgets_is_kept_resolved_and_protected() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let plan = json!({"memory_bytes": "8MiB", "weight": 10, "streams": 2});
    assert_eq!(
        call(&server, "PUT", "/v1/plans/free", &plan),
        json!({"name": "free", "budget": {"memory_bytes": 8 * MIB, "weight": 10, "streams": 2}})
    );
    call(&server, "PUT", "/v1/plans/pro", &json!({"memory_bytes": "64MiB"}));
    assert_eq!(ask(&server, "PUT", "/v1/organisations/acme/groups/web", &json!({})).0, 404);
    let body = json!({"budget": {"memory_bytes": "32MiB"}});
    call(&server, "PUT", "/v1/organisations/acme", &body);
    let group = json!({"plan": "pro", "budget": {"request_ns": "10s"}});
    assert_eq!(
        call(&server, "PUT", "/v1/organisations/acme/groups/web", &group),
        json!({
            "organisation": "acme",
            "group": "web",
            "plan": "pro",
            "budget": {"request_ns": 10_000_000_000_u64},
        })
    );

    let place = json!({"group": "acme/web", "plan": "free", "budget": {"streams": 5}});
    create(&server, "shop", &place);
    create(&server, "plain", &Value::Null);
    for (name, part, value, from) in [
        ("shop", "memory_bytes", json!(8 * MIB), "plan free of database"),
        ("shop", "streams", json!(5), "database"),
        ("shop", "request_ns", json!(10_000_000_000_u64), "group acme/web"),
        ("shop", "io_bytes_per_second", Value::Null, "machine"),
        ("plain", "memory_bytes", json!(16 * MIB), "machine"),
        ("plain", "weight", json!(100), "machine"),
        ("plain", "priority", json!("normal"), "machine"),
    ] {
        assert_eq!(holds(&server, name, part), (value, from.to_owned()), "{name} {part}");
    }
    // A group's plan above its organisation's budget: the organisation's holds.
    call(&server, "PUT", "/v1/namespaces/shop/budget", &json!({"plan": null}));
    let from = "organisation acme".to_owned();
    assert_eq!(holds(&server, "shop", "memory_bytes"), (json!(32 * MIB), from));
    call(&server, "PUT", "/v1/namespaces/shop/budget", &json!({"plan": "free"}));
    let shown = get(&server, "/v1/namespaces/shop");
    assert_eq!((&shown["group"], &shown["plan"]), (&json!("acme/web"), &json!("free")));

    // What is in use stays; what is not there cannot be named.
    for (method, path, body, status, code) in [
        ("DELETE", "/v1/plans/free", Value::Null, 409, "IN_USE"),
        ("DELETE", "/v1/plans/pro", Value::Null, 409, "IN_USE"),
        ("DELETE", "/v1/organisations/acme", Value::Null, 409, "IN_USE"),
        ("DELETE", "/v1/organisations/acme/groups/web", Value::Null, 409, "IN_USE"),
        ("DELETE", "/v1/plans/gold", Value::Null, 404, "PLAN_NOT_FOUND"),
        ("GET", "/v1/plans/gold", Value::Null, 404, "PLAN_NOT_FOUND"),
        ("GET", "/v1/organisations/none", Value::Null, 404, "ORGANISATION_NOT_FOUND"),
        ("GET", "/v1/organisations/acme/groups/none", Value::Null, 404, "GROUP_NOT_FOUND"),
        ("PUT", "/v1/organisations/acme", json!({"plan": "gold"}), 404, "PLAN_NOT_FOUND"),
        ("PUT", "/v1/namespaces/shop/budget", json!({"plan": "gold"}), 404, "PLAN_NOT_FOUND"),
        ("POST", &create_path("new"), json!({"group": "acme/no"}), 404, "GROUP_NOT_FOUND"),
        ("GET", "/v1/namespaces/none/budget", Value::Null, 404, "DATABASE_NOT_FOUND"),
        ("PUT", "/v1/plans/bad", json!({"memory": 1}), 400, "REQUEST_INVALID"),
        ("POST", "/v1/plans/bad", json!({}), 405, "METHOD_NOT_ALLOWED"),
    ] {
        let (got, answer) = ask(&server, method, path, &body);
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{method} {path}: {answer}");
    }
    server.stop();

    // All of it is there after a restart, and can be taken down from the leaves.
    let server = Launch::on(data.path()).start();
    assert_eq!(holds(&server, "shop", "memory_bytes").0, json!(8 * MIB));
    let plans = get(&server, "/v1/plans");
    let names: Vec<_> = plans["plans"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, [&json!("free"), &json!("pro")]);
    server.drop_database("shop");
    call(&server, "DELETE", "/v1/organisations/acme/groups/web", &Value::Null);
    call(&server, "DELETE", "/v1/organisations/acme", &Value::Null);
    call(&server, "DELETE", "/v1/plans/free", &Value::Null);
    call(&server, "DELETE", "/v1/plans/pro", &Value::Null);
    assert_eq!(get(&server, "/v1/plans"), json!({"plans": []}));
    server.stop();
}

#[test]
fn a_full_database_can_be_read_and_emptied_and_grows_again_with_its_budget() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    create(&server, "d", &json!({"max_db_size": "200KiB"}));
    let mut database = server.database("d");
    database.rows(&["CREATE TABLE t(a, b)", "CREATE INDEX i ON t(a)"]);
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10) \
                INSERT INTO t SELECT i, zeroblob(1000) FROM n";
    let full = |trouble: Trouble| match trouble {
        Trouble::Sql { code, message } => {
            assert_eq!(code, "SQLITE_FULL");
            assert!(
                message.contains("storage budget of 204800 bytes (storage_bytes; "),
                "{message}"
            );
            message
        }
        other => panic!("{other}"),
    };
    let mut rounds = 0;
    let message = loop {
        match database.run(&[fill]) {
            Ok(_) => rounds += 1,
            Err(trouble) => break full(trouble),
        }
        assert!(rounds < 30, "it never gets full");
    };
    assert!(rounds > 10, "{rounds} rounds");
    assert!(!message.contains("rolled back"), "{message}");
    // Full in a transaction that wrote before: said, as SQLite decides, and consistent.
    let inside =
        full(database.run(&["BEGIN", "DELETE FROM t WHERE a = 1", fill, fill]).unwrap_err());
    let count = database.value("SELECT count(*) FROM t");
    assert_eq!(count, (rounds * 10).to_string(), "{inside}");

    // Deletes and drops go on, on a new connection too, and what they free is used again.
    let mut other = server.database("d");
    other.rows(&["DELETE FROM t WHERE a <= 5"]);
    other.rows(&[fill]);
    other.rows(&["DROP INDEX i", "DROP TABLE t", "CREATE TABLE t(a, b)", fill]);
    while database.run(&[fill]).is_ok() {}

    // More room, at once and on connections that are open; then less than it has.
    let larger = json!({"block_reads": false, "block_writes": false, "max_db_size": "400KiB"});
    call(&server, "POST", "/v1/namespaces/d/config", &larger);
    database.rows(&[fill]);
    call(&server, "PUT", "/v1/namespaces/d/budget", &json!({"budget": {"storage_bytes": 8192}}));
    let trouble = database.run(&["CREATE TABLE more(a)"]).unwrap_err();
    assert!(trouble.to_string().contains("8192 bytes"), "{trouble}");
    assert_ne!(database.value("SELECT count(*) FROM t"), "0");
    database.rows(&["DELETE FROM t", "INSERT INTO t VALUES (1, 2)", "DROP TABLE t"]);
    call(&server, "PUT", "/v1/namespaces/d/budget", &json!({"budget": null}));
    database.rows(&["CREATE TABLE t(a, b)", fill, fill, fill, fill, fill, fill, fill, fill, fill]);
    server.stop();
}

#[test]
fn requests_streams_and_sizes_are_refused_with_their_limit() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let budget = json!({
        "streams": 2,
        "request_bytes": "2KiB",
        "response_bytes": "4KiB",
        "request_ns": "200ms",
    });
    create(&server, "d", &json!({"budget": budget}));
    let mut first = server.database("d");
    first.step("SELECT 1").unwrap();
    let mut second = server.database("d");
    second.step("SELECT 1").unwrap();
    let post = |body: &Value| {
        let response = server.client().post("/db/d/v2/pipeline", body).expect("answered");
        (response.status, response.header("retry-after").map(str::to_owned), response.json())
    };
    let one = json!({"requests": [execute("SELECT 1")]});
    let (status, retry, answer) = post(&one);
    assert_eq!((status, retry.as_deref()), (429, Some("1")), "{answer}");
    let keys = ["code", "budget", "limit", "used", "wanted"].map(|key| answer[key].clone());
    assert_eq!(keys, [json!("TOO_MANY_STREAMS"), json!("streams"), json!(2), json!(2), json!(1)]);
    second.finish();
    assert_eq!(post(&one).0, 200);

    let long = json!({"requests": [execute(&format!("SELECT '{}'", "x".repeat(3000)))]});
    let (status, retry, answer) = post(&long);
    assert_eq!((status, retry, &answer["code"]), (413, None, &json!("REQUEST_TOO_LARGE")));
    let keys = ["budget", "limit", "used"].map(|key| answer[key].clone());
    assert_eq!(keys, [json!("request_bytes"), json!(2048), json!(0)]);
    assert!(answer["wanted"].as_u64().unwrap() > 3000, "{answer}");

    let trouble = first.step("SELECT hex(zeroblob(5000))").unwrap_err();
    assert_eq!(trouble.code(), "RESPONSE_TOO_LARGE");
    assert!(trouble.to_string().contains("4096 bytes (response_bytes)"), "{trouble}");

    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT count(*) FROM n";
    let trouble = first.step(endless).unwrap_err();
    assert_eq!(trouble.code(), "SQLITE_INTERRUPT");
    assert!(trouble.to_string().contains("budget of 200 ms (request_ns)"), "{trouble}");
    first.finish();

    // No requests at all: the database is suspended, and served again once it may be.
    call(&server, "PUT", "/v1/namespaces/d/budget", &json!({"budget": {"requests": 0}}));
    let (status, retry, answer) = post(&one);
    assert_eq!((status, retry.as_deref()), (429, Some("1")));
    assert_eq!((&answer["budget"], &answer["limit"]), (&json!("requests"), &json!(0)));
    call(&server, "PUT", "/v1/namespaces/d/budget", &json!({"budget": null}));
    assert_eq!(post(&long).0, 200);
    server.stop();
}

/// Each stream has a connection; what does not fit is refused as what it is, not as a database that
/// cannot be opened.
#[test]
fn streams_that_do_not_fit_into_memory_say_so() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let budget = json!({"budget": {"memory_bytes": MIB, "streams": 1000}});
    create(&server, "narrow", &budget);
    let body = json!({"requests": [{"type": "execute", "stmt": {"sql": "SELECT 1"}}]}).to_string();
    let mut client = server.client();
    let refused = (0..200).find_map(|_| {
        let response = client.call("POST", "/db/narrow/v2/pipeline", body.as_bytes());
        let response = response.expect("answered");
        (response.status != 200).then(|| (response.status, response.json()))
    });
    let (status, answer) = refused.expect("200 connections do not fit into 1 MiB");
    assert_eq!((status, answer["code"].as_str()), (429, Some("BUDGET_EXCEEDED")), "{answer}");
    assert_eq!((&answer["budget"], &answer["limit"]), (&json!("memory_bytes"), &json!(MIB)));
}

#[test]
fn connections_are_counted_by_the_database_of_their_last_request() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    create(&server, "d", &json!({"budget": {"connections": 2}}));
    create(&server, "other", &Value::Null);
    let one = json!({"requests": [execute("SELECT 1"), {"type": "close"}]});
    let ask = |client: &mut Client, name: &str| {
        client.post(&format!("/db/{name}/v2/pipeline"), &one).expect("answered")
    };
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients[..2] {
        assert_eq!(ask(client, "d").status, 200);
        assert_eq!(ask(client, "d").status, 200);
    }
    let refused = ask(&mut clients[2], "d");
    let answer = refused.json();
    assert_eq!((refused.status, refused.header("connection")), (429, Some("close")), "{answer}");
    let keys = ["code", "budget", "limit", "used", "wanted"].map(|key| answer[key].clone());
    let wanted =
        [json!("TOO_MANY_CONNECTIONS"), json!("connections"), json!(2), json!(2), json!(1)];
    assert_eq!(keys, wanted);

    // One that turns to another database is free, and so is one that ends.
    assert_eq!(ask(&mut clients[0], "other").status, 200);
    assert_eq!(ask(&mut server.client(), "d").status, 200);
    eventually(20, "the connection that ended does not count", || {
        ask(&mut server.client(), "d").status == 200
    });
    assert_eq!(ask(&mut clients[1], "d").status, 200);
    server.stop();
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_has_arrived() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    create(&server, "d", &json!({"budget": {"request_bytes": "2KiB"}}));
    server.database("d").rows(&["SELECT 1"]);
    let path = "POST /db/d/v2/pipeline HTTP/1.1\r\nhost: localhost\r\n";
    let requests = [
        format!("{path}content-length: 5000000\r\n\r\n{{"),
        format!("{path}content-length: 5000000\r\nexpect: 100-continue\r\n\r\n"),
        format!("{path}transfer-encoding: chunked\r\n\r\nbb8\r\n{}\r\n", "x".repeat(3000)),
    ];
    for (request, wanted) in requests.iter().zip([5_000_000, 5_000_000, 3_000]) {
        let mut client = server.client();
        client.send_raw(request.as_bytes()).expect("sent");
        let refused = client.receive().expect("answered before all of it was sent");
        let answer = refused.json();
        assert_eq!(
            (refused.status, refused.header("connection")),
            (413, Some("close")),
            "{answer}"
        );
        let keys = ["budget", "limit", "wanted"].map(|key| answer[key].clone());
        assert_eq!(keys, [json!("request_bytes"), json!(2048), json!(wanted)]);
    }
    server.stop();
}

#[test]
fn a_ceiling_of_i_o_delays_commits() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let budget = json!({"io_bytes_per_second": "64KiB", "io_burst_bytes": "64KiB"});
    create(&server, "d", &json!({"budget": budget}));
    let mut database = server.database("d");
    let fill = "INSERT INTO t VALUES (zeroblob(60000))";
    database.rows(&["CREATE TABLE t(a)"]);
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        database.rows(&[fill]);
    }
    // About 280 KiB, 64 of them saved up; the last one is owed.
    assert!(begun.elapsed().as_millis() > 2_000, "{:?}", begun.elapsed());
    let usage = get(&server, "/v1/namespaces/d/usage");
    assert!(usage["total"]["throttled_ns"].as_u64().unwrap() > 1_500_000_000, "{usage}");
    server.stop();
}

#[test]
fn memory_and_idle_time_change_while_a_database_is_open() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    call(&server, "PUT", "/v1/plans/small", &json!({}));
    create(&server, "d", &json!({"plan": "small"}));
    let mut database = server.database("d");
    let heavy = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 4000) \
                 SELECT length(group_concat(i || 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', \
                 ',')) FROM n";
    database.rows(&["CREATE TABLE t(a)", heavy]);
    call(&server, "PUT", "/v1/plans/small", &json!({"memory_bytes": "256KiB"}));
    let trouble = database.run(&[heavy]).unwrap_err();
    assert_eq!(trouble.code(), "SQLITE_NOMEM", "{trouble}");
    assert!(trouble.to_string().contains("262144 bytes"), "{trouble}");
    call(&server, "PUT", "/v1/plans/small", &json!({"transaction_idle_ns": "100ms"}));
    database.rows(&[heavy]);

    let mut holder = server.database("d");
    holder.step("BEGIN IMMEDIATE").unwrap();
    let begun = std::time::Instant::now();
    database.rows(&["INSERT INTO t VALUES (1)"]);
    assert!(begun.elapsed().as_secs() < 4, "the default is 5 s, its plan says 100 ms");
    assert_eq!(holder.step("SELECT 1").unwrap_err().code(), "TRANSACTION_TIMEOUT");
    holder.finish();
    server.stop();
}

#[test]
fn databases_of_a_group_share_its_memory() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let group = "/v1/organisations/acme/groups/web";
    let budget = |bytes: &str| json!({"budget": {"memory_bytes": bytes}});
    call(&server, "PUT", "/v1/organisations/acme", &json!({}));
    call(&server, "PUT", group, &budget("1MiB"));
    for name in ["first", "second"] {
        create(&server, name, &json!({"group": "acme/web"}));
    }
    create(&server, "stranger", &Value::Null);
    let [mut first, mut second, mut stranger] =
        ["first", "second", "stranger"].map(|name| server.database(name));
    let heavy = "SELECT length(hex(randomblob(250000)))";
    second.rows(&[heavy]);
    // Commits that are in no file yet: what they hold in memory cannot go.
    first.rows(&["CREATE TABLE t(a)"]);
    first.rows(&["INSERT INTO t VALUES (randomblob(40000))"; 10]);
    let trouble = second.run(&[heavy]).unwrap_err();
    assert_eq!(trouble.code(), "SQLITE_NOMEM", "{trouble}");
    assert!(
        trouble.to_string().contains("the group's memory budget of 1048576 bytes"),
        "{trouble}"
    );
    stranger.rows(&[heavy]);
    call(&server, "PUT", group, &budget("8MiB"));
    second.rows(&[heavy]);
    call(&server, "PUT", group, &budget("1MiB"));
    assert!(second.run(&[heavy]).is_err());
    // Out of the group, with all that it holds.
    call(&server, "PUT", "/v1/namespaces/first/budget", &json!({"group": null}));
    second.rows(&[heavy]);
    server.stop();
}

#[test]
fn use_is_counted_and_survives_a_restart() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    create(&server, "d", &Value::Null);
    let path = "/v1/namespaces/d/usage";
    assert_eq!(get(&server, path)["now"], Value::Null);
    let mut database = server.database("d");
    database.rows(&["CREATE TABLE t(a)"]);
    database.rows(&["SELECT 1"]);
    database.step("SELECT 1").unwrap();
    let usage = get(&server, path);
    assert_eq!(usage["total"]["requests"], 3, "{usage}");
    assert_eq!((&usage["now"]["streams"], &usage["now"]["requests"]), (&json!(1), &json!(0)));
    assert!(usage["now"]["held_bytes"]["heap"].as_u64().unwrap() > 0, "{usage}");
    server.stop();

    // A database that was only read has no checkpoint that could take its use along.
    let server = Launch::on(data.path()).start();
    assert_eq!(get(&server, path)["total"]["requests"], 3);
    server.database("d").rows(&["SELECT 1"]);
    server.stop();
    let server = Launch::on(data.path()).start();
    assert_eq!(get(&server, path)["total"]["requests"], 4);
    server.stop();
}

/// Copy what an older version left at a clean stop. Its log was empty and is left out.
fn left_by(version: &str, data: &Path) {
    let before = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/process").join(version);
    for file in ["tenants/00/00/0.db", "tenants/01/00/1.db"] {
        let to = data.join(file);
        std::fs::create_dir_all(to.parent().expect("in a folder")).unwrap();
        std::fs::copy(before.join(file), to).unwrap();
    }
}

/// `process/version-1` is what version 1 left at a clean stop: databases `old` (id 1, one row in `t`)
/// and `other` (id 2, never checkpointed), and `gone`, dropped.
#[test]
fn a_data_folder_of_version_1_opens() {
    let data = folder();
    left_by("version-1", data.path());
    let server = Launch::on(data.path()).start();
    assert_eq!(server.database("old").value("SELECT a FROM t"), "7");
    assert_eq!(server.database("other").value("SELECT 1"), "1");
    let listed = get(&server, "/v1/namespaces");
    let names: Vec<_> =
        listed["namespaces"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
    assert_eq!(names, [&json!("old"), &json!("other")]);
    call(&server, "PUT", "/v1/plans/free", &json!({"weight": 7}));
    call(&server, "PUT", "/v1/namespaces/old/budget", &json!({"plan": "free"}));
    create(&server, "new", &json!({"plan": "free"}));
    assert_eq!(holds(&server, "new", "weight").0, json!(7));
    // A crash here: the log has to bring the new schema over the old file again.
    let killed = server.kill();
    drop(killed);
    let server = Launch::on(data.path()).start();
    eventually(10, "the plan is back", || holds(&server, "old", "weight").0 == json!(7));
    assert_eq!(server.database("old").value("SELECT a FROM t"), "7");
    server.stop();
    let server = Launch::on(data.path()).start();
    assert_eq!(holds(&server, "new", "weight").0, json!(7));
    server.stop();
}

/// `process/version-2` has the same databases, `old` in the group `acme/web` of the plan `free`.
#[test]
fn a_data_folder_of_version_2_opens() {
    let data = folder();
    left_by("version-2", data.path());
    let server = Launch::on(data.path()).start();
    assert_eq!(server.database("old").value("SELECT a FROM t"), "7");
    let group = "/v1/organisations/acme/groups/web";
    assert_eq!(get(&server, group)["plan"], "free");
    create(&server, "new", &json!({"group": "acme/web"}));
    // A crash here: the log has to bring the new schema over the old file again.
    drop(server.kill());
    let server = Launch::on(data.path()).start();
    assert_eq!(get(&server, "/v1/namespaces/new")["group"], "acme/web");
    assert_eq!(get(&server, group)["plan"], "free");
    assert_eq!(server.database("old").value("SELECT a FROM t"), "7");
    server.drop_database("new");
    server.stop();
}
