//! Dumps that are sent before the database is made of them, as the `turso` CLI does.

use serde_json::json;

use crate::files::{everything, file};
use crate::good::compare;
use crate::process::{Launch, Response, Server, eventually, folder, problem};
use crate::{refusal, send, upload};

const DUMPS: &str = "/v1/organizations/acme/databases/dumps";

/// A form as Go's `mime/multipart` writes it.
fn form(sql: &[u8]) -> Vec<u8> {
    let head = "--b0und\r\nContent-Disposition: form-data; name=\"file\"; filename=\"/tmp/x.sql\"\r\n\
                Content-Type: application/octet-stream\r\n\r\n";
    [head.as_bytes(), sql, b"\r\n--b0und--\r\n"].concat()
}

fn send_dump(server: &Server, path: &str, sql: &[u8]) -> Response {
    send(server, path, "multipart/form-data; boundary=b0und", &form(sql)).expect("answered")
}

/// An organisation, and a dump that it has sent.
fn kept(server: &Server, sql: &[u8]) -> String {
    let response = server.admin().call("PUT", "/v1/organisations/acme", b"{}").expect("answered");
    assert_eq!(response.status, 200, "{}", response.text());
    let response = send_dump(server, DUMPS, sql);
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["dump_url"].as_str().expect("an address").to_owned()
}

fn create(server: &Server, organisation: &str, name: &str, url: &str) -> Response {
    let body = json!({ "name": name, "location": "", "seed": { "type": "dump", "url": url } });
    let path = format!("/v1/organizations/{organisation}/databases");
    server.admin().post(&path, &body).expect("answered")
}

/// Names of all that there is.
fn names(server: &Server) -> Vec<String> {
    let response = server.admin().call("GET", "/v1/namespaces", b"").expect("answered");
    let rows = response.json()["namespaces"].as_array().expect("a list").clone();
    rows.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn an_export_is_sent_and_becomes_a_database_that_equals_its_original() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    let bytes = file(made.path(), "first", |connection| everything(connection, 4096, "UTF-8"));
    assert_eq!(upload(&server, "first", &bytes).status, 200);
    // SQL text has no place for numbers of rows that no column shows.
    let numbered = "DELETE FROM \"odd name; --\"";
    server.database("first").rows(&[numbered]);
    let export = |name: &str| {
        let path = format!("/v1/namespaces/{name}/export?format=sql");
        server.admin().call("GET", &path, b"").expect("answered").body
    };
    let sql = export("first");
    let url = kept(&server, &sql);
    let response = create(&server, "acme", "second", &url);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["database"]["Name"], "second");
    let connection = rusqlite::Connection::open(made.path().join("first")).expect("it opens");
    connection.execute_batch(numbered).expect("gone");
    compare(&server, "second", &connection);
    assert_eq!(export("second"), sql, "the same text again");
    // It is used up, and gone with all that it held.
    eventually(10, "the dump is dropped", || names(&server) == ["first", "second"]);
    assert_eq!(refusal(&create(&server, "acme", "third", &url)), (404, "DUMP_NOT_FOUND".into()));
    assert_eq!(server.metric("unbooked_bytes"), 0);
    assert_eq!(server.metric("uneven_receipts_total"), 0);
    // Where sqld says it, and as text without a form.
    let response = send(&server, DUMPS, "application/sql", &sql).expect("answered");
    let url = response.json()["dump_url"].as_str().expect("an address").to_owned();
    let body = json!({ "dump_url": url });
    let response = server.admin().post("/v1/namespaces/sqld/create", &body).expect("answered");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["group"], json!(null));
    compare(&server, "sqld", &connection);
    server.stop();
}

#[test]
fn a_dump_is_its_organisations_and_outlives_a_crash() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let sql = b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t(a);\n\
                INSERT INTO t VALUES('x');\nCOMMIT;\n";
    let url = kept(&server, sql);
    drop(server.kill());
    let server = Launch::on(data.path()).start();
    let response = server.admin().call("PUT", "/v1/organisations/other", b"{}").expect("answered");
    assert_eq!(response.status, 200);
    assert_eq!(refusal(&create(&server, "other", "a", &url)), (404, "DUMP_NOT_FOUND".into()));
    let list = server.admin().call("GET", "/v1/organizations/acme/databases", b"");
    assert_eq!(list.expect("answered").json()["databases"], json!([]), "it is no database yet");
    let response = server.admin().call("DELETE", "/v1/organizations/acme", b"").expect("answered");
    assert_eq!(refusal(&response), (409, "IN_USE".into()));
    // A name that is taken uses nothing up.
    server.create("taken");
    assert_eq!(refusal(&create(&server, "acme", "taken", &url)), (409, "DATABASE_EXISTS".into()));
    assert_eq!(create(&server, "acme", "a", &url).status, 200);
    assert_eq!(server.database("a").value("SELECT a FROM t"), "x");
    for url in ["http://127.0.0.1:1/dump.sql", "file:///etc/passwd", "myriad:dumps/../a"] {
        let refused = refusal(&create(&server, "acme", "b", url));
        assert_eq!(refused, (400, "DUMP_URL_ELSEWHERE".into()), "{url}");
    }
    server.stop();
}

#[test]
fn what_is_wrong_with_a_dump_is_said_when_it_comes_and_nothing_is_left() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let response = server.admin().call("PUT", "/v1/organisations/acme", b"{}").expect("answered");
    assert_eq!(response.status, 200);
    let response =
        send_dump(&server, DUMPS, b"CREATE TABLE t(a);\n\nINSERT INTO nothing VALUES(1);");
    let (code, message) = problem(&response.body);
    assert_eq!((response.status, code.as_str()), (422, "DUMP_FAILED"), "{message}");
    assert!(message.starts_with("line 3: "), "{message}");
    let absent = "/v1/organizations/absent/databases/dumps";
    let refused = refusal(&send_dump(&server, absent, b"SELECT 1;"));
    assert_eq!(refused, (404, "ORGANISATION_NOT_FOUND".into()));
    for (kind, body, wanted) in [
        ("multipart/form-data", &b"x"[..], (400, "FORM_INVALID")),
        ("multipart/form-data; boundary=b", b"--b--", (400, "FORM_INVALID")),
        ("multipart/form-data; boundary=b", b"SELECT 1;", (400, "FORM_INVALID")),
        ("application/vnd.sqlite3", b"SQLite format 3", (415, "UPLOAD_TYPE")),
        ("application/json", b"{}", (415, "UPLOAD_TYPE")),
    ] {
        let response = send(&server, DUMPS, kind, body).expect("answered");
        assert_eq!(refusal(&response), (wanted.0, wanted.1.to_owned()), "{kind}");
    }
    let refused = send(&server, "/v1/namespaces/n/upload", "multipart/form-data; boundary=b", b"")
        .expect("answered");
    assert_eq!(refusal(&refused), (415, "UPLOAD_TYPE".into()));
    let response = server.admin().call("GET", DUMPS, b"").expect("answered");
    assert_eq!(response.status, 405);
    // The server goes in the middle of one.
    let mut client = server.admin();
    let body = form(b"CREATE TABLE t(a);\n");
    let head = format!(
        "POST {DUMPS} HTTP/1.1\r\nhost: a\r\ncontent-type: multipart/form-data; boundary=b0und\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    client.send_raw(head.as_bytes()).expect("sent");
    client.send_raw(&body[..body.len() - 30]).expect("sent");
    eventually(10, "it is begun", || names(&server).len() == 1);
    drop(server.kill());
    let server = Launch::on(data.path()).start();
    eventually(10, "what was begun is gone", || names(&server).is_empty());
    assert_eq!(server.metric("unbooked_bytes"), 0);
    server.stop();
}
