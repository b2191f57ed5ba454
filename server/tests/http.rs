//! HTTP as text in, text out: what a connection's bytes become, and what answers look like.
//!
//! Every case runs three times: all bytes at once, byte by byte, and in pieces of seven bytes, with
//! one result. The transcript of a connection has a line per event.

use server::http::response::{self, CrossOrigin, ResponseHead};
use server::http::{BodyFraming, Progress, RequestReader, Version, chunked, route};
use server::problem::Problem;

/// Feed `bytes` in pieces, and tell what the reader said.
fn transcript(bytes: &[u8], piece_bytes: usize) -> String {
    let mut reader = RequestReader::default();
    let mut lines = Vec::new();
    let mut pieces = bytes.chunks(piece_bytes);
    loop {
        match reader.advance() {
            Ok(Progress::NeedMore) => match pieces.next() {
                Some(piece) => {
                    let mut buffer = reader.lend_buffer();
                    assert!(buffer.capacity() > buffer.len());
                    buffer.extend_from_slice(piece);
                    reader.return_buffer(buffer);
                }
                None => {
                    if !reader.is_idle() {
                        lines.push("waits".to_owned());
                    }
                    return lines.join(" | ");
                }
            },
            Ok(Progress::Head) => {
                lines.push(describe(&reader));
                // A small limit, so that cases about it stay small.
                reader.limit_body(4096);
            }
            Ok(Progress::Complete) => {
                if !reader.body().is_empty() {
                    lines.push(format!("{:?}", String::from_utf8_lossy(reader.body())));
                }
                reader.finish();
            }
            Err(problem) => {
                assert!(problem.close);
                lines.push(told(&problem));
                return lines.join(" | ");
            }
        }
    }
}

fn told(problem: &Problem) -> String {
    format!("{} {}", problem.status, problem.code)
}

fn describe(reader: &RequestReader) -> String {
    let head = reader.head();
    let mut line = match route(&head) {
        Ok(routed) => match routed.tenant {
            Some(tenant) => format!("{:?} of {}", routed.endpoint, tenant.as_str()),
            None => format!("{:?}", routed.endpoint),
        },
        Err(problem) => match problem.allow {
            Some(allow) => format!("{} allow {allow}", told(&problem)),
            None => told(&problem),
        },
    };
    if !head.keep_alive() {
        line += ", closes";
    }
    if head.expects_continue() {
        line += ", expects";
    }
    if head.framing() == BodyFraming::Chunked {
        line += ", chunked";
    }
    for (name, value) in [
        ("query", head.query()),
        ("auth", head.authorization()),
        ("type", head.content_type()),
        ("origin", head.origin()),
        ("asks", head.requested_headers()),
    ] {
        if let Some(value) = value {
            line += &format!(", {name} {value}");
        }
    }
    line
}

#[track_caller]
fn check_raw(request: &[u8], expected: &str) {
    for piece_bytes in [usize::MAX, 1, 7] {
        let piece_bytes = piece_bytes.min(request.len().max(1));
        let found = transcript(request, piece_bytes);
        let text = String::from_utf8_lossy(request);
        assert_eq!(found, expected, "{piece_bytes} at a time: {text:?}");
    }
}

/// As `check_raw`, with lines that end with LF here.
#[track_caller]
fn check(request: &str, expected: &str) {
    check_raw(request.replace('\n', "\r\n").as_bytes(), expected);
}

/// A POST to the pipeline with these header lines, after a Host.
#[track_caller]
fn check_post(headers: &str, expected: &str) {
    let request = format!("POST /v2/pipeline HTTP/1.1\nHost: a.b\n{headers}\n");
    check(&request, expected);
}

const PIPELINE: &str = "Pipeline(V2) of a";

#[test]
fn routes() {
    for (line, expected) in [
        ("GET /health", "Health"),
        ("HEAD /health", "Health"),
        ("GET /version", "Version"),
        ("GET /v2", "Probe"),
        ("GET /v3/", "Probe"),
        ("GET /db/x/v2", "Probe"),
        ("GET /v3-protobuf", "404 NOT_FOUND"),
        ("GET /info", "Generation"),
        ("POST /info", "405 METHOD_NOT_ALLOWED allow GET, HEAD, OPTIONS"),
        ("GET /export/1", "Export(File) of t"),
        ("HEAD /export/1", "405 METHOD_NOT_ALLOWED allow GET, OPTIONS"),
        ("GET /export/2", "404 NOT_FOUND"),
        ("GET /sync/1/1/129", "404 NOT_FOUND"),
        ("PUT /v2/upload/start", "Upload(Start) of t"),
        ("POST /v2/upload/start", "405 METHOD_NOT_ALLOWED allow PUT, OPTIONS"),
        ("PUT /v2/upload/000000000000000000000000000000ff/chunk/7", "Upload(Chunk(255, 7)) of t"),
        (
            "PUT /db/x/v2/upload/000000000000000000000000000000ff/finalize",
            "Upload(Finalize(255)) of x",
        ),
        ("PUT /v2/upload/ff/finalize", "404 NOT_FOUND"),
        ("PUT /v2/upload/+00000000000000000000000000000ff/finalize", "404 NOT_FOUND"),
        ("PUT /v2/upload/000000000000000000000000000000ff/chunk/-1", "404 NOT_FOUND"),
        ("PUT /v2/upload/000000000000000000000000000000ff/chunk/7/8", "404 NOT_FOUND"),
        ("POST /v3-protobuf/pipeline", "404 NOT_FOUND"),
        ("GET /", "404 NOT_FOUND"),
        ("GET /db", "404 NOT_FOUND"),
        ("GET /db/x", "404 NOT_FOUND"),
        ("POST /v1/execute", "V1(Execute) of t"),
        ("POST /v1/batch", "V1(Batch) of t"),
        ("POST /v2/pipeline", "Pipeline(V2) of t"),
        ("POST //v2//pipeline/", "Pipeline(V2) of t"),
        ("POST /v2/pipeline?a=b?c", "Pipeline(V2) of t, query a=b?c"),
        ("POST /v2/pipeline/more", "404 NOT_FOUND"),
        ("POST /v2/pipeline/more/and/more", "404 NOT_FOUND"),
        ("POST /V2/pipeline", "404 NOT_FOUND"),
        ("POST /v2/../v3/pipeline", "404 NOT_FOUND"),
        ("POST /v3/pipeline", "Pipeline(V3) of t"),
        ("POST /v3/cursor", "Cursor of t"),
        ("POST /db/my-db/v3/cursor", "Cursor of my-db"),
        ("POST //db//my_DB//v3//cursor//", "Cursor of my_db"),
        ("POST /db/_x/v3/cursor", "400 DATABASE_NAME_INVALID"),
        ("POST /db/%61/v3/cursor", "400 DATABASE_NAME_INVALID"),
        ("GET /v3/pipeline", "405 METHOD_NOT_ALLOWED allow POST, OPTIONS"),
        ("DELETE /v3/cursor", "405 METHOD_NOT_ALLOWED allow POST, OPTIONS"),
        ("PATCH /health", "405 METHOD_NOT_ALLOWED allow GET, HEAD, OPTIONS"),
        ("PUT /nothing", "404 NOT_FOUND"),
        ("OPTIONS /v3/pipeline", "Preflight"),
        ("OPTIONS /nothing", "Preflight"),
        ("OPTIONS *", "Preflight"),
        ("POST http://t.example/v2/pipeline", "Pipeline(V2) of t"),
        ("POST HTTPS://T.example/v2/pipeline?q", "Pipeline(V2) of t, query q"),
        ("GET http://t.example", "404 NOT_FOUND"),
        ("GET http://t.example?x", "404 NOT_FOUND, query x"),
        ("GET http://u.example/health", "421 HTTP_TWO_HOSTS"),
        ("GET http://a@t.example/health", "400 HTTP_BAD_TARGET"),
        ("GET ftp://t.example/health", "400 HTTP_BAD_TARGET"),
        ("GET health", "400 HTTP_BAD_TARGET"),
        ("GET *", "400 HTTP_BAD_TARGET"),
        ("GET /health#x", "400 HTTP_BAD_TARGET"),
        ("GET /h\u{7f}", "400 HTTP_BAD_REQUEST"),
        ("CONNECT t.example:80", "501 HTTP_METHOD_UNKNOWN"),
        ("TRACE /", "501 HTTP_METHOD_UNKNOWN"),
        ("get /health", "501 HTTP_METHOD_UNKNOWN"),
    ] {
        check(&format!("{line} HTTP/1.1\nHost: t.example\n\n"), expected);
    }
}

#[test]
fn tenants() {
    let long = "a".repeat(64);
    for (headers, expected) in [
        ("Host: db1.example.com", "db1"),
        ("Host: DB1.Example.com:8080", "db1"),
        ("Host: db.localhost", "db"),
        ("Host: localhost", "default"),
        ("Host: localhost.:80", "default"),
        ("Host: 127.0.0.1:8080", "default"),
        ("Host: 127.1", "default"),
        ("Host: [::1]:8080", "default"),
        ("Host:", "default"),
        ("Host: x.example\nX-Namespace: Other", "other"),
        ("Host: 10.0.0.1\nx-namespace: n-1", "n-1"),
        ("Host: -x.example", "400"),
        ("Host: a%20b.example", "400"),
        ("Host: ..", "400"),
        ("Host: x.example\nx-namespace: a.b", "400"),
        ("Host: x.example\nx-namespace:", "400"),
        (&format!("Host: x\nx-namespace: {long}"), &long),
        (&format!("Host: x\nx-namespace: {long}a"), "400"),
    ] {
        let expected = match expected {
            "400" => "400 DATABASE_NAME_INVALID".to_owned(),
            name => format!("Cursor of {name}"),
        };
        check(&format!("POST /v3/cursor HTTP/1.1\n{headers}\n\n"), &expected);
    }
    // The path wins over the header, the header over the Host.
    check("POST /db/a/v3/cursor HTTP/1.1\nHost: c.d\nx-namespace: b\n\n", "Cursor of a");
    check("POST /v3/cursor HTTP/1.0\n\n", "Cursor of default, closes");
    // A probe needs no tenant, so a bad name does not matter.
    check("GET /v2 HTTP/1.1\nHost: -.b\n\n", "Probe");
}

#[test]
fn hosts_are_exact() {
    let bad = "400 HTTP_BAD_REQUEST";
    for headers in [
        "",
        "Host: a.b\nHost: a.b\n",
        "Host: a b\n",
        "Host: a.b:port\n",
        "Host: a.b:123456\n",
        "Host: a.b/c\n",
        "Host: a,b.c?d\n",
        "Host: [::1\n",
        "Host: [v1.x]\n",
        "Host: :80\n",
        "Host: a%zz.b\n",
        "Host: é.b\n",
        "Host: a.b\nx-namespace: a\nx-namespace: a\n",
        "Host: a.b\nauthorization: Bearer a\nAuthorization: Bearer b\n",
        "Host: a.b\nauthorization: Bearer é\n",
    ] {
        check(&format!("GET /v2 HTTP/1.1\n{headers}\n"), bad);
    }
}

#[test]
fn kept_fields() {
    check_post(
        "Authorization: Bearer  x y \ncontent-type: text/plain;charset=UTF-8\nOrigin: https://o\n",
        &format!("{PIPELINE}, auth Bearer  x y, type text/plain;charset=UTF-8, origin https://o"),
    );
    check(
        "OPTIONS / HTTP/1.1\nHost: a\nAccess-Control-Request-Headers: authorization,x-a\n\n",
        "Preflight, asks authorization,x-a",
    );
    // Fields that decide nothing may be wrong.
    check_post("Origin: é\nContent-Type: ü\n", PIPELINE);
    check_post(&format!("{}: x\n", "n".repeat(40)), PIPELINE);
}

#[test]
fn connections() {
    for (version, headers, expected) in [
        ("1.1", "", "Probe"),
        ("1.1", "Connection: close\n", "Probe, closes"),
        ("1.1", "Connection: x, CLOSE ,y\n", "Probe, closes"),
        ("1.1", "Connection: x\nConnection: close\n", "Probe, closes"),
        ("1.1", "Connection: closed\n", "Probe"),
        ("1.0", "", "Probe, closes"),
        ("1.0", "Connection: Keep-Alive\n", "Probe"),
        ("1.0", "Connection: keep-alive, close\n", "Probe, closes"),
        ("1.0", "Expect: 100-continue\n", "Probe, closes"),
        ("1.0", "Expect: anything\n", "Probe, closes"),
        ("1.1", "Expect: 100-Continue\n", "Probe, expects"),
        ("1.1", "Expect: anything\n", "417 HTTP_EXPECTATION"),
        ("1.1", "Expect:\n", "417 HTTP_EXPECTATION"),
        ("2.0", "", "505 HTTP_VERSION"),
        ("1.2", "", "505 HTTP_VERSION"),
        ("0.9", "", "505 HTTP_VERSION"),
        ("1.10", "", "400 HTTP_BAD_REQUEST"),
    ] {
        let host = if version == "1.0" { "" } else { "Host: a\n" };
        check(&format!("GET /v2 HTTP/{version}\n{host}{headers}\n"), expected);
    }
}

#[test]
fn framing() {
    let whole = |text: &str| format!("{PIPELINE} | {text:?}");
    check_post("", PIPELINE);
    check_post("Content-Length: 0\n", PIPELINE);
    let raw = |headers: &str, text: &str, expected: &str| {
        check(&format!("POST /v2/pipeline HTTP/1.1\nHost: a.b\n{headers}\n\n{text}"), expected);
    };
    raw("Content-Length: 5", "hello", &whole("hello"));
    raw("Content-Length: 005", "hello", &whole("hello"));
    raw("content-LENGTH:5 ", "hello", &whole("hello"));
    raw("Content-Length: 5", "hell", &format!("{PIPELINE} | waits"));
    raw("Content-Length: 4096", "", &format!("{PIPELINE} | waits"));
    let too_large = format!("{PIPELINE} | 413 REQUEST_TOO_LARGE");
    raw("Content-Length: 4097", "", &too_large);
    raw("Content-Length: 9999999999999999999", "", &too_large);
    for bad in [
        "Content-Length: 10000000000000000000",
        "Content-Length: 00000000000000000001",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 5 5",
        "Content-Length: 5, 5",
        "Content-Length: 0x5",
        "Content-Length:",
        "Content-Length: 5\nContent-Length: 5",
        "Content-Length: 5\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\nTransfer-Encoding: chunked",
        "Content-Length : 5",
        " Content-Length: 5",
        "X: a\n folded: b",
        "No colon",
        ": empty name",
        "X: a\u{0}b",
    ] {
        raw(bad, "hello", "400 HTTP_BAD_REQUEST");
    }
    for coding in ["gzip", "gzip, chunked", "chunked, chunked", "xchunked", "identity", ""] {
        let header = format!("Transfer-Encoding: {coding}");
        raw(&header, "", "501 HTTP_TRANSFER_ENCODING");
    }
    let encoded = "Content-Encoding: gzip\nContent-Length: 5";
    raw(encoded, "hello", "415 HTTP_CONTENT_ENCODING");
    raw("Content-Encoding: gzip", "", PIPELINE);
    raw("Content-Encoding: identity\nContent-Length: 1", "x", &whole("x"));
    check("POST / HTTP/1.0\nTransfer-Encoding: chunked\n\n", "400 HTTP_BAD_REQUEST");
    // A body where none is expected is read and belongs to its request.
    check(
        "GET /v2 HTTP/1.1\nHost: a\nContent-Length: 3\n\nabcGET /v3 HTTP/1.1\nHost: a\n\n",
        "Probe | \"abc\" | Probe",
    );
}

#[test]
fn chunks() {
    let raw = |text: &str, expected: &str| {
        let head = "POST /v2/pipeline HTTP/1.1\nHost: a.b\nTransfer-Encoding: Chunked\n\n";
        let expected = match expected {
            "" => format!("{PIPELINE}, chunked"),
            expected => format!("{PIPELINE}, chunked | {expected}"),
        };
        check(&format!("{head}{text}"), &expected);
    };
    raw("0\n\n", "");
    raw("5\nhello\n0\n\n", "\"hello\"");
    raw("2\nhe\n3\nllo\n0\n\n", "\"hello\"");
    raw("00000000000000A\n0123456789\n0\n\n", "\"0123456789\"");
    raw("5;x=\"y\"\nhello\n0;z\n\n", "\"hello\"");
    raw("5\nhello\n0\nTrailer: x\nMore: y\n\n", "\"hello\"");
    raw("5\nhello\n0\n\nGET /v2 HTTP/1.1\nHost: a\n\n", "\"hello\" | Probe");
    raw("5\nhello\n0\n", "waits");
    raw("5\nhello", "waits");
    let bad = "400 HTTP_BAD_CHUNK";
    raw("\nhello\n0\n\n", bad);
    raw("g\nhello\n0\n\n", bad);
    raw(" 5\nhello\n0\n\n", bad);
    raw("5 \nhello\n0\n\n", bad);
    raw("0x5\nhello\n0\n\n", bad);
    raw("-5\nhello\n0\n\n", bad);
    raw("5,\nhello\n0\n\n", bad);
    raw("4\nhello\n0\n\n", bad);
    raw("6\nhello\n0\n\n", bad);
    raw("5;\u{1}\nhello\n0\n\n", bad);
    raw("00000000000000005\nhello\n0\n\n", bad);
    raw(&format!("5;{}\nhello\n0\n\n", "x".repeat(256)), bad);
    raw(&format!("5;{}", "x".repeat(400)), bad);
    raw("5\nhello\n0\nNo colon\n\n", bad);
    raw("5\nhello\n0\nBad name: x\n\n", bad);
    raw(&format!("0\nX: {}", "x".repeat(5000)), bad);
    let too_large = "413 REQUEST_TOO_LARGE";
    raw("1001\n", too_large);
    raw("ffffffffffffffff\n", too_large);
    raw("1\nx\nffffffffffffffff\n", too_large);
    // 4096 / 4 bytes of framing at about 5 a chunk.
    raw(&format!("{}0\n\n", "1\nx\n".repeat(300)), bad);
    raw(&format!("{}0\n\n", "1\nx\n".repeat(100)), &format!("{:?}", "x".repeat(100)));
    for bytes in [
        b"5\nhello\r\n0\r\n\r\n".as_slice(),
        b"5\r\nhello\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n",
    ] {
        let mut request =
            b"POST /v2/pipeline HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec();
        request.extend_from_slice(bytes);
        check_raw(&request, &format!("{PIPELINE}, chunked | {bad}"));
    }
}

#[test]
fn line_ends_are_exact() {
    let bad = "400 HTTP_BAD_REQUEST";
    for request in [
        b"GET /v2 HTTP/1.1\nHost: a\n\n".as_slice(),
        b"GET /v2 HTTP/1.1\r\nHost: a\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\n\n",
        b"GET /v2 HTTP/1.1\rHost: a\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\r\nHost: a\r\n\r\n",
        b"GET  /v2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2 HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET\t/v2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b" GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2\r\nHost: a\r\n\r\n",
        b"GET\r\n\r\n",
        b"\n",
        b"\r\n\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"{}",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        check_raw(request, bad);
    }
    let utf8_path = "GET /é HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes();
    check_raw(utf8_path, "400 HTTP_BAD_TARGET");
    check_raw(b"", "");
    check_raw(b"\r\n", "");
    check_raw(b"\r\n\r\nGET /v2 HTTP/1.1\r\nHost: a\r\n\r\n", "Probe");
    let two_spaces = b"GET /v2  HTTP/1.1\r\nHost: a\r\n\r\n";
    check_raw(two_spaces, "505 HTTP_VERSION");
    check_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 HTTP_VERSION");
}

#[test]
fn heads_have_limits() {
    let get = |path: &str, headers: &str| format!("GET {path} HTTP/1.1\nHost: a\n{headers}\n");
    let path = |bytes: usize| format!("/{}", "x".repeat(bytes - 1));
    check(&get(&path(8192), ""), "404 NOT_FOUND");
    check(&get(&path(8193), ""), "414 HTTP_TARGET_TOO_LONG");
    check(&get(&path(20_000), ""), "414 HTTP_TARGET_TOO_LONG");
    check(&get("/v2", &"X: y\n".repeat(63)), "Probe");
    check(&get("/v2", &"X: y\n".repeat(64)), "431 HTTP_HEAD_TOO_LARGE");
    let frame_bytes = "GET /v2 HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    let value = |bytes: usize| format!("X: {}\n", "y".repeat(bytes - frame_bytes));
    check(&get("/v2", &value(16_384)), "Probe");
    check(&get("/v2", &value(16_385)), "431 HTTP_HEAD_TOO_LARGE");
}

#[test]
fn pipelined_requests_come_one_by_one() {
    let one = "POST /v2/pipeline HTTP/1.1\nHost: a.b\nContent-Length: 2\n\n{}";
    check(
        &format!("{one}{one}GET /v2 HTTP/1.1\nHost: a\n\n{one}"),
        "Pipeline(V2) of a | \"{}\" | Pipeline(V2) of a | \"{}\" | Probe | Pipeline(V2) of a | \"{}\"",
    );
}

#[test]
fn a_request_can_leave_with_its_buffer() {
    let one = b"POST /v2/pipeline HTTP/1.1\r\nHost: a.b\r\nContent-Length: 2\r\n\r\n{}";
    let mut reader = RequestReader::new(Vec::with_capacity(4096));
    let mut spare = Vec::with_capacity(4096);
    reader.receive(one);
    reader.receive(one);
    let mut addresses = Vec::new();
    for round in 0..4 {
        assert_eq!(reader.advance(), Ok(Progress::Head));
        assert_eq!(reader.advance(), Ok(Progress::Complete));
        let mut request = reader.take(std::mem::take(&mut spare));
        assert_eq!(request.body(), b"{}");
        assert_eq!(request.head().path(), "/v2/pipeline");
        addresses.push(request.body().as_ptr());
        spare = request.take_buffer();
        if round < 2 {
            reader.receive(one);
        }
    }
    assert!(reader.is_idle());
    // Two buffers take turns: nothing was allocated after the first two requests.
    assert_eq!(addresses[0], addresses[2]);
    assert_eq!(addresses[1], addresses[3]);
}

#[test]
fn a_buffer_grows_with_what_arrives() {
    let mut reader = RequestReader::default();
    reader.receive(b"POST /v2/pipeline HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
    assert_eq!(reader.advance(), Ok(Progress::Head));
    assert_eq!(reader.advance(), Ok(Progress::NeedMore));
    let buffer = reader.lend_buffer();
    assert!(buffer.capacity() < 16 * 1024);
    reader.return_buffer(buffer);
    for _ in 0..10_000 {
        let mut buffer = reader.lend_buffer();
        let before = buffer.len();
        let spare = buffer.capacity() - buffer.len();
        assert!(spare > 0);
        buffer.resize(before + spare.min(10_000), b' ');
        assert!(buffer.capacity() <= 3 * buffer.len().max(4096));
        reader.return_buffer(buffer);
        if reader.advance() == Ok(Progress::Complete) {
            break;
        }
    }
    let body_bytes = reader.body().len();
    assert_eq!(body_bytes, 10_000_000);
    reader.finish();
    assert!(reader.held_bytes() <= 64 * 1024);
}

#[test]
fn response_heads() {
    let mut out = Vec::new();
    ResponseHead::new(200, "application/json", 2).write(&mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        "HTTP/1.1 200 OK\r\n\
         content-type: application/json\r\n\
         content-length: 2\r\n\
         connection: keep-alive\r\n\
         cache-control: no-store\r\n\
         x-content-type-options: nosniff\r\n\
         access-control-allow-origin: *\r\n\r\n"
    );
    let has = |head: ResponseHead<'_>, lines: &[&str], lacks: &[&str]| {
        let mut out = Vec::new();
        head.write(&mut out);
        let text = String::from_utf8(out).expect("a head is ASCII");
        for line in lines {
            assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
        }
        for name in lacks {
            assert!(!text.contains(name), "{name} in {text}");
        }
    };
    has(
        ResponseHead::streamed("text/plain", Version::Http11),
        &["transfer-encoding: chunked", "connection: keep-alive", "content-type: text/plain"],
        &["content-length"],
    );
    has(
        ResponseHead::streamed("text/plain", Version::Http10),
        &["connection: close"],
        &["content-length", "transfer-encoding"],
    );
    has(
        ResponseHead {
            keep_alive: false,
            retry_after_seconds: Some(7),
            cross_origin: CrossOrigin::Refused,
            ..ResponseHead::new(401, "application/json", 2)
        },
        &["connection: close", "retry-after: 7", "www-authenticate: Bearer"],
        &["access-control"],
    );
    let asked = Some("X-Namespace, authorization,bad name, x:y,é,, x-turso-encryption-key");
    has(
        ResponseHead {
            cross_origin: CrossOrigin::Preflight(asked),
            ..ResponseHead::new(200, "text/plain", 0)
        },
        &[
            "content-length: 0",
            "access-control-allow-methods: GET, POST, OPTIONS",
            "access-control-max-age: 86400",
            "access-control-allow-headers: authorization, content-type, X-Namespace, \
             x-turso-encryption-key",
        ],
        &["content-type:", "allow-credentials"],
    );
    let long = "x".repeat(2000);
    has(
        ResponseHead {
            cross_origin: CrossOrigin::Preflight(Some(&long)),
            ..ResponseHead::new(200, "text/plain", 0)
        },
        &["access-control-allow-headers: authorization, content-type"],
        &[&long],
    );
}

#[test]
fn problems_are_whole_responses() {
    let mut out = Vec::new();
    let problem = Problem::wrong_method("POST, OPTIONS");
    response::write_problem(&mut out, &problem, true, false, CrossOrigin::Allowed);
    let text = String::from_utf8(out).expect("ASCII");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
    assert!(
        head.starts_with("HTTP/1.1 405 Method Not Allowed\r\ncontent-type: application/json\r\n")
    );
    assert!(head.contains("\r\nallow: POST, OPTIONS\r\n"));
    assert!(head.contains("\r\nconnection: keep-alive\r\n"));
    assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", body.len())));
    assert_eq!(
        body,
        r#"{"message":"this path does not take this method","code":"METHOD_NOT_ALLOWED","error":"this path does not take this method"}"#
    );
    let mut out = Vec::new();
    let problem = Problem::protocol(400, "X", "y");
    response::write_problem(&mut out, &problem, true, true, CrossOrigin::Allowed);
    let text = String::from_utf8(out).expect("ASCII");
    assert!(text.contains("connection: close") && text.ends_with("\r\n\r\n"));
}

#[test]
fn chunks_are_framed_in_place() {
    for (text, expected) in
        [("", ""), ("x", "1\r\nx\r\n"), ("0123456789abcdef", "10\r\n0123456789abcdef\r\n")]
    {
        let mut part = text.as_bytes().to_vec();
        chunked::frame(&mut part);
        assert_eq!(String::from_utf8_lossy(&part), expected);
        let mut last = text.as_bytes().to_vec();
        chunked::frame_last(&mut last);
        assert_eq!(String::from_utf8_lossy(&last), format!("{expected}0\r\n\r\n"));
    }
    let mut part = b"body".to_vec();
    let head = ResponseHead::new(200, "text/plain", 4);
    head.prepend_to(&mut part, false, &mut Vec::new());
    assert!(part.starts_with(b"HTTP/1.1 200 OK\r\n") && part.ends_with(b"\r\n\r\nbody"));
    let mut part = b"body".to_vec();
    head.prepend_to(&mut part, true, &mut Vec::new());
    assert!(part.ends_with(b"\r\n\r\n"));
    // What is framed decodes again.
    let mut request =
        b"POST /v3/cursor HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let mut reader = RequestReader::default();
    for bytes in [1, 15, 16, 255, 4096, 40_000] {
        let mut part = vec![b'x'; bytes];
        chunked::frame(&mut part);
        request.extend_from_slice(&part);
    }
    request.extend_from_slice(chunked::LAST_CHUNK);
    reader.receive(&request);
    assert_eq!(reader.advance(), Ok(Progress::Head));
    assert_eq!(reader.advance(), Ok(Progress::Complete));
    assert_eq!(reader.body().len(), 44_383);
}

/// A small generator: the tests need no quality, only repetition.
struct Generator(u64);

impl Generator {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let high = usize::try_from(self.0 >> 33).expect("31 bits");
        high % bound
    }
}

/// Valid requests with bytes changed, dropped, doubled and moved: never a panic, never a request
/// that depends on how its bytes were cut, and never a byte read after an error.
#[test]
fn mutated_requests_never_panic() {
    let seeds: [&[u8]; 4] = [
        b"POST /db/x/v2/pipeline HTTP/1.1\r\nHost: a.b\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /v3/cursor HTTP/1.1\r\nHost: a.b:80\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: x\r\n\r\n",
        b"OPTIONS http://a.b/v1?x HTTP/1.1\r\nhost: a.b\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        b"GET /v2 HTTP/1.0\r\nx-namespace: n\r\nauthorization: Bearer t\r\n\r\nGET /v3 HTTP/1.0\r\n\r\n",
    ];
    let alphabet = b"\r\n :;,/0159afGP\0\x7f\xff[]%";
    for seed in 0..6000 {
        let mut generator = Generator(seed);
        let mut bytes = seeds[generator.below(seeds.len())].to_vec();
        for _ in 0..=generator.below(4) {
            let at = generator.below(bytes.len());
            match generator.below(4) {
                0 => bytes[at] = alphabet[generator.below(alphabet.len())],
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, alphabet[generator.below(alphabet.len())]),
                _ => {
                    let end = at + generator.below(bytes.len() - at);
                    bytes.extend_from_within(at..end);
                }
            }
        }
        let whole = transcript(&bytes, bytes.len());
        for piece_bytes in [1, 3] {
            let cut = transcript(&bytes, piece_bytes);
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(whole, cut, "seed {seed}, {piece_bytes} at a time: {text:?}");
        }
    }
}
