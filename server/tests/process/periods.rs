//! Use by period on the real binary: hours of a database, of its group when it has gone, over a restart.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::process::{Launch, Server, eventually, folder};

fn call(server: &Server, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = server.admin().call(method, path, body.as_bytes()).expect("answered");
    let answer = response.json();
    assert_eq!(response.status, 200, "{method} {path}: {answer}");
    answer
}

/// What is used in this hour and the ones before, by a path without its query.
fn used(server: &Server, path: &str) -> (u64, u64, Value) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let answer = call(server, "GET", &format!("{path}?from={}", now - 3600), &Value::Null);
    let count = |of: &Value| of["pages_written"].as_u64().expect("a number");
    let before = format!("{path}?from=2020-01-01&to={}", now - 7200);
    let before = call(server, "GET", &before, &Value::Null);
    assert_eq!(count(&before["period"]["used"]), 0, "{before}");
    (count(&answer["period"]["used"]), count(&answer["total"]), answer["period"].clone())
}

#[test]
fn hours_have_what_totals_have() {
    let data = folder();
    let mut server = Launch::on(data.path()).start();
    call(&server, "PUT", "/v1/organisations/acme", &json!({}));
    call(&server, "PUT", "/v1/organisations/acme/groups/web", &json!({}));
    for name in ["one", "two"] {
        let path = format!("/v1/namespaces/{name}/create");
        call(&server, "POST", &path, &json!({ "group": "acme/web" }));
        server.database(name).rows(&["CREATE TABLE a(b)", "INSERT INTO a VALUES(1)"]);
    }
    let group = "/v1/organisations/acme/groups/web/usage";
    let organisation = "/v1/organisations/acme/usage";
    let (one, total, period) = used(&server, "/v1/namespaces/one/usage");
    assert!(one > 0 && one == total, "{one} of {total}");
    assert!(period["from"].as_str().expect("a time").ends_with(":00:00Z"), "{period}");
    let (both, total, _) = used(&server, group);
    assert_eq!((both, total), (2 * one, 2 * one));

    // A restart keeps them; what is used after it is added.
    server.stop();
    server = Launch::on(data.path()).start();
    assert_eq!(used(&server, "/v1/namespaces/one/usage").0, one);
    assert_eq!(used(&server, organisation).0, 2 * one);
    server.database("one").rows(&["INSERT INTO a VALUES(2)"]);
    let (more, total, _) = used(&server, "/v1/namespaces/one/usage");
    assert!(more > one && more == total);

    // A database that goes leaves what it has used to its group.
    server.drop_database("one");
    eventually(10, "the last use of a dropped database is counted", || {
        let (left, total, _) = used(&server, group);
        left == more + one && total == one
    });
    assert_eq!(used(&server, organisation).0, more + one);

    // The Platform API has the same.
    let path = "/v1/organizations/acme/databases/two/usage?from=2020-01-01T00:00:00Z";
    let shown = call(&server, "GET", path, &Value::Null);
    assert_eq!(shown["database"]["usage"]["rows_written"], one);
    assert_eq!(shown["database"]["period"]["to"], Value::Null);
    let wrong = server.admin().call("GET", &format!("{group}?from=soon"), b"").expect("answered");
    assert_eq!(wrong.status, 400);
    server.stop();
}
