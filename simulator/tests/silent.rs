//! Clients that begin to send a database and then say nothing: they are told so, and nothing stays.

use simulator::client::request;
use simulator::world::{Options, Profile};
use simulator::{Door, Machine};

const LINE: usize = 0;
const NAMES: usize = 1;

/// The status and code of the answer to what breaks off.
fn told(machine: &mut Machine, door: Door, head: &str, body: &[u8]) -> (u16, String) {
    let head = format!("{head} HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n");
    let bytes = [head.as_bytes(), b"content-type: application/sql\r\n\r\n", body].concat();
    let response = machine.ask(LINE, door, &bytes).expect("nothing fails here");
    let response = response.expect("the server answers");
    machine.hang_up(LINE);
    let value: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    (response.status, value["code"].as_str().unwrap_or_default().to_owned())
}

fn control(
    machine: &mut Machine,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, serde_json::Value) {
    let bytes = request(method, path, "host", &[], body.as_bytes());
    let response = machine.ask(NAMES, Door::Admin, &bytes).expect("nothing fails here");
    let response = response.expect("the server answers");
    (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
}

#[test]
fn an_upload_of_which_nothing_comes_is_answered() {
    let mut options = Options::draw(1, Profile::Calm);
    options.keys = 0;
    let mut machine = Machine::new(options);
    machine.start().expect("an empty machine starts");
    let too_slow = (408, "UPLOAD_TOO_SLOW".to_owned());
    let post = "POST /v1/namespaces/shop/upload";
    for body in [&b""[..], b"CREATE TABLE t(a);\n"] {
        assert_eq!(told(&mut machine, Door::Admin, post, body), too_slow);
        assert_eq!(control(&mut machine, "GET", "/v1/namespaces/shop", "").0, 404);
    }

    for path in ["/v1/organisations/acme", "/v1/organisations/acme/groups/default"] {
        assert_eq!(control(&mut machine, "PUT", path, "{}").0, 200);
    }
    let create = r#"{"name":"sent","group":"default","seed":{"type":"database_upload"}}"#;
    assert_eq!(control(&mut machine, "POST", "/v1/organizations/acme/databases", create).0, 200);
    let start = request("PUT", "/db/sent/v2/upload/start", "host", &[], br#"{"db_size_bytes":9}"#);
    let response = machine.ask(LINE, Door::Public, &start).expect("nothing fails here");
    let body = response.expect("the server answers").body;
    let started: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    machine.hang_up(LINE);
    let id = started["upload_id"].as_str().expect("it has begun");
    let put = format!("PUT /db/sent/v2/upload/{id}/chunk/0");
    assert_eq!(told(&mut machine, Door::Public, &put, b"SQLite format 3\0"), too_slow);
    // It may be sent again.
    let state = control(&mut machine, "GET", "/v1/namespaces/sent", "").1;
    assert_eq!(state["state"], "building");
}
