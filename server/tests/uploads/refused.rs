//! What is refused says why, and leaves nothing: neither name nor file, also over a crash.

use serde_json::json;

use crate::files::{everything, file};
use crate::process::{Launch, Server, eventually, folder, problem};
use crate::{begin, refusal, send, upload, upload_sql};

/// Nothing of the name is left, and the server has its books closed.
fn gone(server: &Server, name: &str) {
    let path = format!("/v1/namespaces/{name}");
    let response = server.admin().call("GET", &path, b"").expect("answered");
    assert_eq!(response.status, 404, "{}", response.text());
    assert_eq!(server.metric("unbooked_bytes"), 0);
}

#[test]
fn a_dump_that_fails_says_at_which_line() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    for (sql, code, said) in [
        ("CREATE TABLE t(a);\n\nINSERT INTO t\n VALUES(1, 2);", "DUMP_FAILED", "line 3: "),
        ("CREATE TABLE t(a);\nINSERT INTO t VALUES('x\ny');\nSELEC 1;", "DUMP_FAILED", "line 4: "),
        ("CREATE TABLE t(a UNIQUE);\nINSERT INTO t VALUES(1),\n(1);", "DUMP_FAILED", "line 2: "),
        ("BEGIN;\nCREATE TABLE t(a);\n", "DUMP_INCOMPLETE", "cut off"),
        ("BEGIN;\nCREATE TABLE t(a);\nROLLBACK; -- due to errors\n", "DUMP_INCOMPLETE", "line 3: "),
        ("CREATE TABLE t(a);\nINSERT INTO t VALUES(1", "DUMP_FAILED", "line 2: "),
        ("ATTACH '/etc/passwd' AS p;", "DUMP_FAILED", "line 1: "),
        ("SELECT load_extension('x');", "DUMP_FAILED", "line 1: "),
        (".read /etc/passwd\n;", "DUMP_FAILED", "line 1: "),
        ("CREATE VIRTUAL TABLE v USING dbstat;", "DUMP_FAILED", "line 1: "),
        (
            "PRAGMA writable_schema=ON; CREATE VIRTUAL TABLE v USING fts5(a);",
            "DUMP_FAILED",
            "line 1: ",
        ),
        ("CREATE TABLE t(a);\u{ff}", "DUMP_FAILED", "UTF-8"),
    ] {
        let path = "/v1/namespaces/dumped/upload";
        // A byte that no text has, where the case asks for one.
        let bytes: Vec<u8> = sql.chars().map(|letter| letter as u8).collect();
        let response = send(&server, path, "text/plain; charset=utf-8", &bytes).expect("answered");
        let (found, message) = problem(&response.body);
        assert_eq!((response.status, found.as_str()), (422, code), "{sql}: {message}");
        assert!(message.contains(said), "{sql}: {message}");
        gone(&server, "dumped");
    }
    let long = format!("INSERT INTO t VALUES('{}');", "x".repeat(1 << 20));
    assert_eq!(refusal(&upload_sql(&server, "long", &long)), (413, "STATEMENT_TOO_LONG".into()));
    let text =
        format!("CREATE TABLE t(a); INSERT INTO t VALUES(zeroblob(1000)); {}", ";".repeat(3000));
    assert_eq!(upload_sql(&server, "long", &text).status, 200);
    server.stop();
}

#[test]
fn what_does_not_fit_is_refused_by_the_name_of_the_limit() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    let bytes = file(made.path(), "f", |connection| everything(connection, 4096, "UTF-8"));
    let small = json!({ "budget": { "storage_bytes": "64KiB" } });
    let put = |path: &str, body: &serde_json::Value| {
        let response =
            server.admin().call("PUT", path, body.to_string().as_bytes()).expect("answered");
        assert_eq!(response.status, 200, "{path}: {}", response.text());
    };
    put("/v1/organisations/acme", &json!({}));
    put("/v1/organisations/acme/groups/small", &small);
    let path = "/v1/namespaces/f/upload?group=acme/small";
    let response = send(&server, path, "application/octet-stream", &bytes).expect("answered");
    assert_eq!(refusal(&response), (413, "UPLOAD_TOO_LARGE".into()), "{}", response.text());
    let (_, message) = problem(&response.body);
    assert!(message.contains("may have 65536"), "{message}");
    gone(&server, "f");
    // A few bytes that claim to be many are refused at once, and the rest is not asked for.
    let mut client = begin(
        &server,
        "f",
        "content-type: application/vnd.sqlite3\r\ncontent-length: 18000000000\r\nexpect: 100-continue\r\n",
    );
    let response = client.receive().expect("answered");
    assert_eq!(refusal(&response), (413, "UPLOAD_TOO_LARGE".into()), "{}", response.text());
    server.stop();
}

#[test]
fn whoever_is_refused_hears_it_and_a_name_in_use_stays() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    let bytes = file(made.path(), "f", |connection| everything(connection, 4096, "UTF-8"));
    server.create("taken").rows(&["CREATE TABLE mine(a)", "INSERT INTO mine VALUES(1)"]);
    assert_eq!(refusal(&upload(&server, "taken", &bytes)), (400, "DATABASE_EXISTS".into()));
    assert_eq!(server.database("taken").value("SELECT a FROM mine"), "1");
    let path = "/v1/namespaces/new/upload?progress=lines";
    let damaged = [&bytes[..bytes.len() - 4096], &[7; 4096]].concat();
    let kind = "application/octet-stream";
    let response = send(&server, path, kind, &damaged).expect("answered");
    let text = response.text();
    let last = text.lines().last().expect("a line");
    assert!(last.contains("\"UPLOAD_DAMAGED\"") && last.contains("\"status\":422"), "{text}");
    let path = "/v1/namespaces/new/upload";
    let response = send(&server, path, "application/json", b"{}").expect("answered");
    assert_eq!(refusal(&response), (415, "UPLOAD_TYPE".into()));
    let response = server.admin().call("PUT", path, b"").expect("answered");
    assert_eq!(response.status, 405, "{}", response.text());
    // Chunks, in pieces, with another request behind them on the same connection.
    let mut client = begin(
        &server,
        "new",
        "content-type: application/x-sqlite3\r\ntransfer-encoding: chunked\r\n",
    );
    for piece in bytes.chunks(10_007) {
        client.send_raw(format!("{:x}\r\n", piece.len()).as_bytes()).expect("sent");
        client.send_raw(piece).expect("sent");
        client.send_raw(b"\r\n").expect("sent");
    }
    client.send_raw(b"0\r\n\r\nGET /v1/namespaces/new HTTP/1.1\r\nhost: a\r\n\r\n").expect("sent");
    let response = client.receive().expect("answered");
    assert_eq!(response.status, 200, "{}", response.text());
    let response = client.receive().expect("answered");
    assert_eq!(response.json()["state"], "live", "{}", response.text());
    server.stop();
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing_also_over_a_crash() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    let bytes = file(made.path(), "f", |connection| everything(connection, 4096, "UTF-8"));
    let head =
        format!("content-type: application/vnd.sqlite3\r\ncontent-length: {}\r\n", bytes.len());
    // The client goes in the middle.
    let mut client = begin(&server, "broken", &head);
    client.send_raw(&bytes[..bytes.len() / 2]).expect("sent");
    let path = "/v1/namespaces/broken";
    let state = |server: &Server| {
        let response = server.admin().call("GET", path, b"").expect("answered");
        (response.status, response.json()["state"].as_str().map(str::to_owned))
    };
    eventually(10, "it is being built", || state(&server) == (200, Some("building".into())));
    let asked = server.database("broken").run(&["SELECT 1"]).expect_err("it is not there yet");
    assert_eq!(asked.code(), "DATABASE_BUILDING");
    drop(client);
    eventually(10, "it is given up", || state(&server).0 == 404);
    gone(&server, "broken");
    // The server goes in the middle.
    let mut client = begin(&server, "broken", &head);
    client.send_raw(&bytes[..bytes.len() / 2]).expect("sent");
    eventually(10, "it is being built", || state(&server) == (200, Some("building".into())));
    drop(server.kill());
    let server = Launch::on(data.path()).start();
    // A start begins to serve before all that was being built is removed.
    eventually(10, "it is removed", || state(&server).0 == 404);
    assert_eq!(upload(&server, "broken", &bytes).status, 200);
    server.stop();
    // The server is stopped in the middle: it does not wait for ever.
    let mut server = Launch::on(data.path()).start();
    let mut client = begin(&server, "other", &head);
    client.send_raw(&bytes[..bytes.len() / 2]).expect("sent");
    eventually(10, "it is being built", || server.metric("open_tenants") == 2);
    server.terminate();
    drop(client);
    assert!(server.wait().0.success());
}
