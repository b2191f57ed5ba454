//! Requests that break HTTP, Hrana or the API, and what each of them has to be answered with.
//!
//! Written against RFC 9112 and the server's documented limits, not against its parser. A violation
//! of HTTP is answered once and ends the connection; a request that is merely wrong is answered
//! with an error, and the next one on the same connection is judged on its own.

use super::plan::Expected;
use crate::client::{credential_line, request};

/// A request, and its answer.
pub struct Malformed {
    /// For traces and violations.
    pub name: &'static str,
    /// All of it.
    pub bytes: Vec<u8>,
    /// The answer.
    pub expected: Expected,
}

/// Deeper than any parser's stack should follow.
const DEPTH: usize = 20_000;

/// Every kind, for a database of this name. Small: each is made in some microseconds.
pub fn all(database: &str) -> Vec<Malformed> {
    let mut all = heads();
    all.extend(bodies(database));
    all.extend(wrong(database));
    all
}

fn broken(name: &'static str, text: &str) -> Malformed {
    statuses(name, text, &[400])
}

fn statuses(name: &'static str, text: &str, expected: &'static [u16]) -> Malformed {
    Malformed { name, bytes: text.as_bytes().to_vec(), expected: Expected::Broken(expected) }
}

/// Violations in the head.
fn heads() -> Vec<Malformed> {
    let key = credential_line();
    let post = format!("POST /v2/pipeline HTTP/1.1\r\nHost: sim\r\n{key}");
    let long = "x".repeat(9_000);
    let field = format!("X-Filler: {}\r\n", "y".repeat(2_000));
    let fields = "X-Field: z\r\n".repeat(100);
    vec![
        broken("bare line feeds", "GET /health HTTP/1.1\nHost: sim\n\n"),
        broken("a bare carriage return", "GET /health HTTP/1.1\r\nHost: sim\rX: y\r\n\r\n"),
        broken("no host", "GET /health HTTP/1.1\r\n\r\n"),
        broken("two hosts", "GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        broken("NUL in a header", "GET /health HTTP/1.1\r\nHost: sim\r\nX: a\0b\r\n\r\n"),
        broken("NUL in the target", "GET /hea\0lth HTTP/1.1\r\nHost: sim\r\n\r\n"),
        broken("blanks before the colon", "GET /health HTTP/1.1\r\nHost : sim\r\n\r\n"),
        broken("a folded header", "GET /health HTTP/1.1\r\nHost: sim\r\nX: a\r\n b\r\n\r\n"),
        broken("no request line", "\r\n\r\n\r\n\r\n\r\n"),
        broken("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n"),
        broken("a length of no digits", &format!("{post}Content-Length: ten\r\n\r\n")),
        broken("a negative length", &format!("{post}Content-Length: -1\r\n\r\n")),
        broken("a signed length", &format!("{post}Content-Length: +1\r\n\r\nx")),
        broken(
            "a length over 64 bits",
            &format!("{post}Content-Length: {}\r\n\r\n", "9".repeat(30)),
        ),
        broken("two lengths", &format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy")),
        broken(
            "a length and chunks",
            &format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        statuses(
            "an unknown coding",
            &format!("{post}Transfer-Encoding: gzip\r\n\r\n"),
            &[400, 501],
        ),
        statuses("a huge length", &format!("{post}Content-Length: 99999999999\r\n\r\n"), &[413]),
        statuses("another version", "GET /health HTTP/3.9\r\nHost: sim\r\n\r\n", &[400, 505]),
        statuses("a long target", &format!("GET /{long} HTTP/1.1\r\nHost: sim\r\n\r\n"), &[414]),
        statuses(
            "a huge head",
            &format!("GET /health HTTP/1.1\r\nHost: sim\r\n{}\r\n", field.repeat(9)),
            &[431],
        ),
        statuses(
            "too many headers",
            &format!("GET /health HTTP/1.1\r\nHost: sim\r\n{fields}\r\n"),
            &[400, 431],
        ),
    ]
}

/// Violations in a chunked body.
fn bodies(database: &str) -> Vec<Malformed> {
    let chunked = format!(
        "POST /db/{database}/v2/pipeline HTTP/1.1\r\nHost: sim\r\n{}Transfer-Encoding: chunked\r\n\r\n",
        credential_line()
    );
    vec![
        broken("a chunk of no size", &format!("{chunked}zz\r\nab\r\n0\r\n\r\n")),
        broken("a chunk longer than it says", &format!("{chunked}1\r\nabc\r\n0\r\n\r\n")),
        broken("bare line feeds in chunks", &format!("{chunked}1\na\n0\n\n")),
        broken("a chunk size over 64 bits", &format!("{chunked}{}\r\n", "f".repeat(20))),
        broken("a colonless trailer", &format!("{chunked}0\r\nno colon\r\n\r\n")),
    ]
}

/// Well-formed HTTP that asks for nonsense.
fn wrong(database: &str) -> Vec<Malformed> {
    let path = format!("/db/{database}/v2/pipeline");
    let refused = |name, method: &str, path: &str, body: &[u8], statuses: &'static [u16]| {
        let bytes = request(method, path, "sim", &[], body);
        Malformed { name, bytes, expected: Expected::Refused(statuses) }
    };
    let body = |name, body: &[u8]| {
        // A database that is not there is missed before its body is read.
        let bytes = request("POST", &path, "sim", &[], body);
        Malformed { name, bytes, expected: Expected::NoSql }
    };
    let nested = |open: &str| {
        let args = open.repeat(DEPTH);
        format!(r#"{{"requests":[{{"type":"execute","stmt":{{"sql":"SELECT 1","args":{args}"#)
    };
    let condition = r#"{"type":"not","cond":"#.repeat(DEPTH);
    let steps =
        format!(r#"{{"requests":[{{"type":"batch","batch":{{"steps":[{{"condition":{condition}"#);
    vec![
        refused("an unknown path", "GET", "/wp-login.php", b"", &[404]),
        refused(
            "an unknown path below a database",
            "POST",
            &format!("/db/{database}/v9/x"),
            b"",
            &[404],
        ),
        refused("a wrong method", "DELETE", "/health", b"", &[405]),
        refused("a read of a pipeline", "GET", &path, b"", &[405]),
        refused("a name with blanks", "POST", "/db/a%20b/v2/pipeline", b"{}", &[400]),
        refused("a name that climbs", "POST", "/db/../v2/pipeline", b"{}", &[400, 404]),
        refused(
            "a name too long",
            "POST",
            &format!("/db/{}/v2/pipeline", "n".repeat(200)),
            b"{}",
            &[400],
        ),
        body("no body", b""),
        body("no JSON", b"SELECT 1"),
        body(
            "bad UTF-8",
            b"{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"\xff\xfe\"}}]}",
        ),
        body(
            "half a surrogate",
            b"{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"\\ud800\"}}]}",
        ),
        body("NUL in JSON", b"{\"requests\":[\0]}"),
        body("arrays without an end", nested("[").as_bytes()),
        body("objects without an end", nested("{\"a\":").as_bytes()),
        body("conditions without an end", steps.as_bytes()),
        body(
            "a number of a thousand digits",
            format!("{{\"requests\":{}}}", "9".repeat(1_000)).as_bytes(),
        ),
        body("a baton of another kind", b"{\"baton\":7,\"requests\":[]}"),
        body("a forged baton", forged_baton().as_bytes()),
        body(
            "a long baton",
            format!("{{\"baton\":\"{}\",\"requests\":[]}}", "A".repeat(5_000)).as_bytes(),
        ),
    ]
}

fn forged_baton() -> String {
    format!("{{\"baton\":\"{}\",\"requests\":[]}}", "QUJD".repeat(16))
}
