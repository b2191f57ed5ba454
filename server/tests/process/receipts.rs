//! The receipts of the real server are those that the simulator recorded.

#[path = "../receipts/shared.rs"]
mod shared;

use crate::process::http::{Client, Response};
use crate::process::{Launch, folder};
use shared::{Line, RECEIPTS, SCRIPT};

fn ask(client: &mut Client, line: &Line, baton: Option<&str>) -> Response {
    let body = shared::body(line, baton);
    let mut head = format!(
        "POST /db/script/v3/pipeline HTTP/1.1\r\nHost: real\r\nContent-Length: {}\r\n",
        body.len()
    );
    if let Some(limit) = &line.limit {
        head.push_str(&format!("x-myriad-max-cost: {limit}\r\n"));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(&body);
    client.send_raw(&bytes).expect("the server reads");
    client.receive().expect("the server answers")
}

#[test]
fn receipts_are_those_of_the_simulator() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    server.create("script");
    let mut client = server.client();
    let lines = shared::lines(SCRIPT);
    let mut batons = [None, None, None];
    let mut receipts = Vec::new();
    for line in &lines {
        let baton = batons[line.stream].take();
        let response = ask(&mut client, line, baton.as_deref());
        let told = shared::told(response.header("x-myriad-cost"), &response.body);
        batons[line.stream] = told.baton;
        receipts.push(told.receipt);
    }
    assert_eq!(shared::show(&lines, &receipts), RECEIPTS);
    // What the control API says is the sum.
    let usage = server.admin().call("GET", "/v1/namespaces/script/usage", b"");
    let usage = usage.expect("the control API answers").json();
    for name in ["vm_steps", "pages_read", "pages_written", "log_bytes", "result_bytes"] {
        let part = format!("; {name}=");
        let parts = receipts.iter().map(|receipt| {
            let (_, rest) = receipt.split_once(&part).expect("a receipt has all parts");
            let digits = rest.split(';').next().unwrap_or_default();
            digits.parse::<u64>().expect("a part is a number")
        });
        assert_eq!(usage["total"][name], parts.sum::<u64>(), "{name}: {usage}");
    }
    server.stop();
}

#[test]
fn a_limit_that_is_not_understood_is_refused() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    server.create("script");
    let mut client = server.client();
    let line = Line { stream: 1, limit: Some("a lot".into()), sql: "SELECT 1".into() };
    let response = ask(&mut client, &line, None);
    assert_eq!((response.status, response.text().contains("MAX_COST_INVALID")), (400, true));
    // The connection goes on, and so does a request without a limit.
    let line = Line { limit: None, ..line };
    assert_eq!(ask(&mut client, &line, None).status, 200);
    server.stop();
}
