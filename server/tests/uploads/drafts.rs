//! Databases that are created first and sent afterwards in several requests, as the `turso` CLI does.

use serde_json::{Value, json};

use crate::files::{everything, file};
use crate::good::compare;
use crate::process::{Client, Launch, Response, Server, eventually, folder};
use crate::refusal;

/// Create a database that is to be sent.
fn create(server: &Server, name: &str) -> Response {
    let _ = server.admin().call("PUT", "/v1/organisations/acme", b"{}").expect("answered");
    let body = json!({ "name": name, "location": "", "seed": { "type": "database_upload" } });
    server.admin().post("/v1/organizations/acme/databases", &body).expect("answered")
}

fn put(client: &mut Client, path: &str, body: &[u8]) -> Response {
    client.call("PUT", path, body).expect("answered")
}

/// The way to the next requests of an upload.
fn start(client: &mut Client, name: &str, bytes: usize) -> String {
    let body = json!({ "db_size_bytes": bytes }).to_string();
    let response = put(client, &format!("/db/{name}/v2/upload/start"), body.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
    let answer = response.json();
    assert_eq!(answer["chunk_size"], 16 << 20);
    format!("/db/{name}/v2/upload/{}", answer["upload_id"].as_str().expect("an id"))
}

fn state(server: &Server, name: &str) -> Value {
    let path = format!("/v1/namespaces/{name}");
    server.admin().call("GET", &path, b"").expect("answered").json()["state"].clone()
}

#[test]
fn a_file_that_is_sent_in_chunks_is_there_as_it_was() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    let bytes = file(made.path(), "f", |connection| everything(connection, 4096, "UTF-8"));
    let response = create(&server, "shop");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["database"]["Name"], "shop");
    assert_eq!(state(&server, "shop"), "building");
    let asked = server.database("shop").run(&["SELECT 1"]).expect_err("it is not there yet");
    assert_eq!(asked.code(), "DATABASE_BUILDING");
    let token =
        server.admin().post("/v1/organizations/acme/databases/shop/auth/tokens", &json!({}));
    assert_eq!(token.expect("answered").status, 200, "the CLI asks for one before it sends");
    let client = &mut server.client();
    let way = start(client, "shop", bytes.len());
    let chunk = |number: usize| format!("{way}/chunk/{number}");
    let cut = bytes.len() / 3;
    assert_eq!(refusal(&put(client, &chunk(1), b"x")), (409, "UPLOAD_OUT_OF_ORDER".into()));
    let client = &mut server.client();
    assert_eq!(put(client, &chunk(0), &bytes[..cut]).status, 200);
    // Its answer was lost; then one breaks off in the middle, and comes again.
    assert_eq!(put(client, &chunk(0), &bytes[..cut]).status, 200);
    let mut broken = server.client();
    let head = format!("PUT {} HTTP/1.1\r\nhost: a\r\ncontent-length: {cut}\r\n\r\n", chunk(1));
    broken.send_raw(head.as_bytes()).expect("sent");
    broken.send_raw(&bytes[cut..cut + cut / 2]).expect("sent");
    // Nobody else sends meanwhile.
    eventually(10, "it is begun", || {
        let refused = put(&mut server.client(), &format!("{way}/finalize"), b"");
        refused.status == 409 && refusal(&refused).1 == "UPLOAD_BUSY"
    });
    drop(broken);
    eventually(10, "the broken one is noticed", || {
        let response = put(&mut server.client(), &chunk(1), &bytes[cut..2 * cut]);
        assert!(matches!(response.status, 200 | 409), "{}", response.text());
        response.status == 200
    });
    assert_eq!(put(client, &chunk(2), &bytes[2 * cut..]).status, 200);
    let refused = put(client, "/db/shop/v2/upload/start", br#"{"db_size_bytes":1}"#);
    assert_eq!(refusal(&refused), (409, "UPLOAD_BEGUN".into()));
    let response = put(client, &format!("{way}/finalize"), b"");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["imported"]["bytes"], bytes.len());
    let connection = rusqlite::Connection::open(made.path().join("f")).expect("it opens");
    compare(&server, "shop", &connection);
    assert_eq!(refusal(&put(client, &format!("{way}/finalize"), b"")).0, 404);
    assert_eq!(server.metric("unbooked_bytes"), 0);
    server.stop();
}

#[test]
fn what_is_sent_in_chunks_and_cannot_be_leaves_nothing() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    let bytes = file(made.path(), "f", |connection| everything(connection, 4096, "UTF-8"));
    server.create("taken");
    assert_eq!(refusal(&create(&server, "taken")), (409, "DATABASE_EXISTS".into()));
    let client = &mut server.client();
    let refused = put(client, "/db/taken/v2/upload/start", br#"{"db_size_bytes":1}"#);
    assert_eq!(refusal(&refused), (404, "UPLOAD_NOT_FOUND".into()));
    // No file at all is refused while it comes; one that is cut, at its end.
    assert_eq!(create(&server, "noise").status, 200);
    let way = start(client, "noise", 4096);
    let response = put(&mut server.client(), &format!("{way}/chunk/0"), &[7; 100_000]);
    assert_eq!(refusal(&response), (422, "UPLOAD_NOT_SQLITE".into()), "{}", response.text());
    assert_eq!(create(&server, "cut").status, 200);
    let way = start(client, "cut", bytes.len());
    assert_eq!(put(client, &format!("{way}/chunk/0"), &bytes[..8192]).status, 200);
    let response = put(client, &format!("{way}/finalize"), b"");
    assert_eq!(refusal(&response), (422, "UPLOAD_TRUNCATED".into()), "{}", response.text());
    let client = &mut server.client();
    for body in [&b""[..], b"{}", br#"{"db_size_bytes":-1}"#] {
        assert_eq!(put(client, "/db/cut/v2/upload/start", body).status, 400);
    }
    // Dropped in the middle, as the CLI does when it cannot go on.
    assert_eq!(create(&server, "dropped").status, 200);
    let way = start(client, "dropped", bytes.len());
    assert_eq!(put(client, &format!("{way}/chunk/0"), &bytes[..8192]).status, 200);
    server.drop_database("dropped");
    assert_eq!(put(&mut server.client(), &format!("{way}/chunk/1"), &bytes[8192..]).status, 404);
    for name in ["noise", "cut", "dropped"] {
        eventually(10, "it is gone", || state(&server, name).is_null());
    }
    assert_eq!(server.metric("unbooked_bytes"), 0);
    // The server goes in the middle, and then is stopped in the middle.
    assert_eq!(create(&server, "broken").status, 200);
    let way = start(client, "broken", bytes.len());
    assert_eq!(put(client, &format!("{way}/chunk/0"), &bytes[..8192]).status, 200);
    drop(server.kill());
    let server = Launch::on(data.path()).start();
    eventually(10, "what was begun is gone", || state(&server, "broken").is_null());
    assert_eq!(create(&server, "broken").status, 200);
    server.stop();
}
