//! The server's memory for requests on their way is bounded, and small requests pass large ones.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{Client, Launch, Trouble, create_path, eventually, folder, problem};

/// The least that is taken: 64 MiB for requests and responses.
const MEMORY: &str = "402MiB";
/// Bytes of them.
const BUFFERS_BYTES: u64 = 64 << 20;
/// What a client announces, nearly as much as may be, and what it sends of it.
const ANNOUNCED_BYTES: usize = 9_900_000;
const SENT_BYTES: usize = 9_800_000;
/// Clients that send nearly all of a request and then wait: together more than the bound.
const CLIENTS: usize = 16;
/// Bytes that they send at a time.
static PIECE: [u8; 64 << 10] = [b' '; 64 << 10];

/// Send most of a large request; false if it was answered before that.
fn send_most(client: &mut Client) -> bool {
    let head = format!(
        "POST /db/large/v2/pipeline HTTP/1.1\r\nhost: localhost\r\ncontent-length: \
         {ANNOUNCED_BYTES}\r\n\r\n"
    );
    client.send_raw(head.as_bytes()).expect("it is read");
    let mut sent = 0;
    while sent < SENT_BYTES {
        if client.is_answered() || client.send_raw(&PIECE).is_err() {
            return false;
        }
        sent += PIECE.len();
    }
    true
}

#[test]
fn a_request_is_refused_because_buffers_are_used_up() {
    let data = folder();
    let server = Launch::on(data.path()).with(&["--memory", MEMORY]).start();
    server.create("large");
    let mut quiet = server.create("quiet");
    quiet.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
    let booked = || server.metric("ledger_account_bytes{account=\"connections\"}");

    let mut waiting = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = server.client();
        match send_most(&mut client) {
            true => waiting.push(client),
            false => refused.push(client),
        }
        // What was sent is taken from the kernel a little later.
        let (mut before, deadline) = (0, Instant::now() + Duration::from_secs(5));
        while booked() != before && Instant::now() < deadline {
            before = booked();
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(before <= BUFFERS_BYTES, "{before} bytes of buffers");
        assert_eq!(quiet.value("SELECT a FROM t"), "1", "a small one passes");
    }
    // Some were refused after they had sent everything into the kernel.
    for mut client in std::mem::take(&mut waiting) {
        match client.is_answered() {
            true => refused.push(client),
            false => waiting.push(client),
        }
    }
    assert!(waiting.len() >= 3, "{} are taken", waiting.len());
    assert!(refused.len() >= 8, "{} are refused", refused.len());
    assert!(server.metric("refusals_total{code=\"BUFFERS_FULL\"}") >= refused.len() as u64);
    for mut client in refused {
        let response = client.receive().expect("it says why");
        assert_eq!(response.status, 503, "{}", response.text());
        assert_eq!(problem(&response.body).0, "BUFFERS_FULL");
        assert_eq!(response.header("retry-after"), Some("1"));
    }

    drop(waiting);
    eventually(5, "the buffers are given back", || booked() < 1 << 20);
    let text = json!({"type": "text", "value": "x".repeat(900_000)});
    let request = json!({"type": "execute", "stmt": {"sql": "SELECT length(?)", "args": [text]}});
    let body = json!({"requests": vec![request; 10]});
    let response = server.client().post("/db/large/v2/pipeline", &body).expect("answered");
    assert_eq!(response.status, 200);
    assert_eq!(response.text().matches("900000").count(), 10, "{}", response.text());
    server.stop();
}

#[test]
fn a_response_counts_against_its_databases_memory() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let body = json!({"budget": {"memory_bytes": "1MiB"}});
    let path = create_path("small");
    let created = server.admin().post(&path, &body).expect("answered");
    assert_eq!(created.status, 200, "{}", created.text());
    let mut small = server.database("small");
    let sql = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 2000) \
               SELECT hex(zeroblob(500)) FROM c";
    let Err(Trouble::Sql { code, message }) = small.run(&[sql]) else {
        panic!("two megabytes do not fit into one")
    };
    assert_eq!(code, "SQLITE_NOMEM", "{message}");
    assert!(message.contains("the database's memory budget of 1048576 bytes"), "{message}");
    assert!(message.contains("memory_bytes"), "{message}");
    // What fits does, and a cursor holds no more than a part.
    let fewer = sql.replace("2000", "300");
    assert_eq!(small.rows(&[&fewer]).len(), 300);
    let body = json!({"batch": {"steps": [{"stmt": {"sql": sql}}]}});
    let answer = server.client().post("/db/small/v3/cursor", &body).expect("answered");
    assert_eq!(answer.text().matches("\"row\":[").count(), 2000);
    // Nothing stays booked.
    let usage = server.admin().call("GET", "/v1/namespaces/small/usage", b"").expect("answered");
    assert_eq!(usage.json()["now"]["held_bytes"]["buffer"], json!(0), "{}", usage.text());
    assert_eq!(server.metric("unbooked_bytes"), 0);
    server.stop();
}
