//! Groups with a template: what is created there begins with it, one by one and many at a time.

use serde_json::{Value, json};

use crate::process::{Client, Launch, Server, eventually, folder};
use crate::{good, refused};

const SETTINGS: &str = "/v1/organisations/acme/groups/web/settings";

/// A group whose template has a table and three rows.
fn prepare(server: &Server) {
    for path in ["acme", "acme/groups/web", "acme/groups/other", "stranger", "stranger/groups/web"]
    {
        good(server, "PUT", &format!("/v1/organisations/{path}"), &json!({}));
    }
    good(server, "POST", "/v1/namespaces/base/create", &json!({ "group": "acme/web" }));
    server.database("base").rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES(1), (2), (3)"]);
    let shown = good(server, "PATCH", SETTINGS, &json!({ "template": "base" }));
    assert_eq!(shown["template"], "base");
}

fn count(server: &Server, name: &str) -> String {
    server.database(name).value("SELECT count(*) FROM t")
}

/// A client that has asked for many.
fn ask_bulk(server: &Server, body: &Value, key: &str) -> Client {
    let (mut client, body) = (server.admin(), body.to_string());
    let head = format!(
        "POST /v1/bulk/create HTTP/1.1\r\nhost: a\r\nidempotency-key: {key}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.send_raw((head + &body).as_bytes()).expect("sent");
    client
}

/// The last word about many.
fn bulk(server: &Server, body: &Value, key: &str) -> Value {
    let text = ask_bulk(server, body, key).receive().expect("answered").text();
    let line = text.lines().last().expect("a line");
    serde_json::from_str(line).expect("JSON")
}

#[test]
fn what_is_created_in_a_group_is_a_copy_of_its_template() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    prepare(&server);
    let create = |name: &str, body: &Value| {
        good(&server, "POST", &format!("/v1/namespaces/{name}/create"), body)
    };
    let made = create("one", &json!({ "group": "acme/web", "max_db_size": "1MiB", "ttl": "1h" }));
    assert_eq!((&made["state"], &made["group"]), (&json!("live"), &json!("acme/web")));
    assert!(made["ends_at"].is_i64(), "{made}");
    let budget = good(&server, "GET", "/v1/namespaces/one/budget", &Value::Null);
    assert_eq!(budget["budget"]["storage_bytes"], 1 << 20, "{budget}");
    assert_eq!(count(&server, "one"), "3");
    let body = json!({ "name": "two", "group": "web" });
    good(&server, "POST", "/v1/organizations/acme/databases", &body);
    assert_eq!(count(&server, "two"), "3");
    // As it is then, not as it was.
    server.database("base").rows(&["INSERT INTO t VALUES(4)"]);
    create("three", &json!({ "group": "acme/web" }));
    assert_eq!(count(&server, "three"), "4");
    // Not in another group, not where a seed says otherwise, not in memory.
    create("other", &json!({ "group": "acme/other" }));
    create(
        "seeded",
        &json!({ "group": "acme/web", "seed": { "type": "database", "name": "other" } }),
    );
    create("volatile", &json!({ "group": "acme/web", "class": "memory" }));
    for name in ["other", "seeded", "volatile"] {
        assert_eq!(
            server.database(name).value("SELECT count(*) FROM sqlite_schema"),
            "0",
            "{name}"
        );
    }
    // What is in the way is told as ever.
    let path = "/v1/namespaces/one/create";
    let taken = refused(&server, "POST", path, &json!({ "group": "acme/web" }));
    assert_eq!(taken, (400, "DATABASE_EXISTS".into()));
    let path = "/v1/namespaces/small/create";
    let small = json!({ "group": "acme/web", "max_db_size": "4KiB" });
    assert_eq!(refused(&server, "POST", path, &small).0, 400, "smaller than may be said");
    // An organisation's holds where its group says nothing.
    good(&server, "PATCH", "/v1/organisations/acme/settings", &json!({ "template": "base" }));
    create("inherited", &json!({ "group": "acme/other" }));
    assert_eq!(count(&server, "inherited"), "4");
    // Who is a template is no other organisation's, and is there.
    for (settings, name) in
        [("/v1/organisations/stranger/groups/web/settings", "base"), (SETTINGS, "absent")]
    {
        let code = refused(&server, "PATCH", settings, &json!({ "template": name }));
        assert_eq!(code, (404, "TEMPLATE_NOT_FOUND".into()), "{name}");
    }
    let path = "/v1/namespaces/one/settings";
    assert_eq!(refused(&server, "PATCH", path, &json!({ "template": "base" })).0, 400);
    // One that is gone is not replaced by another of its name, nor by nothing.
    server.drop_database("base");
    good(&server, "POST", "/v1/namespaces/base/create", &json!({ "group": "acme/web" }));
    let path = "/v1/namespaces/four/create";
    let gone = refused(&server, "POST", path, &json!({ "group": "acme/web" }));
    assert_eq!(gone, (404, "TEMPLATE_NOT_FOUND".into()));
    let line = bulk(&server, &json!({ "names": ["five"], "group": "acme/web" }), "a");
    assert_eq!(line["failed"], json!([{ "name": "five", "code": "TEMPLATE_NOT_FOUND" }]));
    good(&server, "PATCH", SETTINGS, &json!({ "template": null }));
    good(&server, "PATCH", "/v1/organisations/acme/settings", &json!({ "template": null }));
    create("four", &json!({ "group": "acme/web" }));
    assert_eq!(server.metric("unbooked_bytes"), 0);
    server.stop();
}

#[test]
fn many_are_copies_too_and_all_are_there_when_a_kill_came_between() {
    let data = folder();
    let mut server = Launch::on(data.path()).start();
    prepare(&server);
    server.database("base").rows(&["CREATE INDEX i ON t(a)"]);
    let body = json!({ "prefix": "ctx-", "count": 600, "group": "acme/web" });
    // Killed twice while it runs; then it is asked for until the end.
    for least in [150, 400] {
        let client = ask_bulk(&server, &body, "key");
        eventually(20, "some are made", || {
            let path = "/v1/namespaces?prefix=ctx-&limit=1000";
            let rows = good(&server, "GET", path, &Value::Null);
            rows["namespaces"].as_array().expect("a list").len() > least
        });
        drop((server.kill(), client));
        server = Launch::on(data.path()).start();
    }
    let line = bulk(&server, &body, "key");
    assert_eq!((&line["finished"], &line["succeeded"]), (&json!(true), &json!(600)), "{line}");
    assert_eq!(line["failed"], json!([]));
    for number in 0..600 {
        assert_eq!(count(&server, &format!("ctx-{number}")), "3", "{number}");
    }
    assert_eq!(bulk(&server, &body, "key"), line);
    server.stop();
}
