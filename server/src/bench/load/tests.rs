//! The closed loop against good and bad servers.

use super::*;
use crate::bench::request::Order;
use crate::bench::responder::{Answer, Answerer, Responder, chunked, plain};

const REQUESTS: u64 = 40;

/// Sends 40 requests on 3 connections; gives good replies, errors and the first error.
fn check(answerer: Answerer, expected: (u64, u64, Option<&str>)) {
    let responder = Responder::start(answerer);
    let outcome = run_on(&responder, Until::Requests(REQUESTS)).unwrap();
    let error = outcome.first_error.as_deref();
    assert_eq!((outcome.latencies.count(), outcome.errors, error), expected);
    assert_eq!(outcome.sent, REQUESTS);
    assert_eq!(responder.first_lines().len() as u64, REQUESTS);
}

fn run_on(responder: &Responder, until: Until) -> Result<Outcome, String> {
    let target = Target::resolve(&responder.url(), None).unwrap();
    let template = Template::new(&target, "POST", "/TENANT__", r#"{"x":"VALUE___"}"#, "ok");
    let choice = Choice { order: Order::Sequential, tenants: 1_000, rows: 1 };
    let phase = Phase {
        label: "test",
        target: &target,
        template: &template,
        choice,
        connections: 3,
        until,
    };
    run(phase, &mut Progress::new())
}

#[test]
fn good_replies_are_counted() {
    check(|_, _| Answer::Bytes(plain("200 OK", "ok"), 1_000), (40, 0, None));
    check(|_, _| Answer::Bytes(chunked("it is ok", 2), 1_000), (40, 0, None));
}

#[test]
fn replies_in_pieces_are_put_together() {
    check(|_, _| Answer::Bytes(plain("200 OK", "ok"), 1), (40, 0, None));
    check(|_, _| Answer::Bytes(chunked("it is ok", 3), 1), (40, 0, None));
}

#[test]
fn replies_larger_than_the_buffer_arrive() {
    let answerer: Answerer = |_, _| {
        let body = "x".repeat(100_000) + "ok";
        Answer::Bytes(plain("200 OK", &body), 10_000)
    };
    check(answerer, (40, 0, None));
}

#[test]
fn failures_are_errors_and_go_on() {
    check(
        |_, _| Answer::Bytes(plain("503 Busy", "ok, but \"full\""), 1_000),
        (0, 40, Some("HTTP 503: ok, but \"full\"")),
    );
    check(
        |_, _| Answer::Bytes(chunked(r#"{"ok":[{"type":"error"}]}"#, 5), 1_000),
        (0, 40, Some(r#"HTTP 200: {"ok":[{"type":"error"}]}"#)),
    );
    check(|_, _| Answer::Bytes(plain("200 OK", "no"), 1_000), (0, 40, Some("HTTP 200: no")));
    check(
        |_, _| Answer::Bytes(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), 1_000),
        (0, 40, Some("a reply with neither content-length nor chunked encoding")),
    );
    check(
        |_, _| Answer::Bytes([plain("200 OK", "ok"), b"more".to_vec()].concat(), 1_000),
        (0, 40, Some("bytes after the reply's end")),
    );
    check(
        |head, _| {
            let odd = head.as_bytes()["POST /0000000".len()] % 2 == 1;
            Answer::Bytes(plain(if odd { "404 Not Found" } else { "200 OK" }, "ok"), 1_000)
        },
        (20, 20, Some("HTTP 404: ok")),
    );
}

#[test]
fn ended_connections_are_opened_again() {
    check(
        |_, _| {
            let close = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
            Answer::Last(close.as_bytes().to_vec())
        },
        (40, 0, None),
    );
    check(
        |_, _| Answer::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no".to_vec()),
        (0, 40, Some("receiving failed: unexpected end of file")),
    );
}

#[test]
fn holes_are_filled_in_order() {
    let responder = Responder::start(|_, body| {
        assert_eq!(body, r#"{"x":"10000000"}"#);
        Answer::Bytes(plain("200 OK", "ok"), 1_000)
    });
    run_on(&responder, Until::Requests(5)).unwrap();
    let mut lines = responder.first_lines();
    lines.sort();
    let expected: Vec<_> = (0..5).map(|tenant| format!("POST /{tenant:08} HTTP/1.1")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn the_warm_up_is_not_measured() {
    let responder = Responder::start(|_, _| Answer::Bytes(plain("200 OK", "ok"), 1_000));
    let (warm_up, measured) = (Duration::from_millis(50), Duration::from_millis(50));
    let outcome = run_on(&responder, Until::Elapsed { warm_up, measured }).unwrap();
    assert!(outcome.latencies.count() > 0);
    assert!(outcome.sent > outcome.latencies.count());
    assert_eq!(outcome.sent, responder.first_lines().len() as u64);
    // The last replies arrive after the time, and within the time of a reply.
    let last = Duration::from_nanos(outcome.latencies.max());
    assert!(outcome.elapsed >= measured && outcome.elapsed <= measured + last);
    assert!(outcome.per_second() > 0.0);
}

#[test]
fn a_server_that_is_not_there() {
    let responder = Responder::start(|_, _| Answer::Last(Vec::new()));
    let target = Target::resolve(&responder.url(), None).unwrap();
    drop(responder);
    let template = Template::new(&target, "GET", "/", "", "");
    let phase = Phase {
        label: "gone",
        target: &target,
        template: &template,
        choice: Choice { order: Order::Spread, tenants: 1, rows: 1 },
        connections: 1,
        until: Until::Requests(1),
    };
    let error = run(phase, &mut Progress::new()).map(|_| ()).unwrap_err();
    assert!(error.starts_with("gone: cannot connect to 127.0.0.1:"), "{error}");
}

#[test]
fn requests_larger_than_the_socket_takes_are_sent_in_parts() {
    let responder = Responder::start(|_, body| {
        assert_eq!(body.len(), 8 << 20);
        Answer::Bytes(plain("200 OK", "ok"), 1_000)
    });
    let target = Target::resolve(&responder.url(), None).unwrap();
    let body = "x".repeat(8 << 20);
    let template = Template::new(&target, "POST", "/", &body, "ok");
    let phase = Phase {
        label: "large",
        target: &target,
        template: &template,
        choice: Choice { order: Order::Spread, tenants: 1, rows: 1 },
        connections: 2,
        until: Until::Requests(4),
    };
    let outcome = run(phase, &mut Progress::new()).unwrap();
    assert_eq!((outcome.latencies.count(), outcome.errors), (4, 0));
}
