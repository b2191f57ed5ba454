//! Response heads: status line, framing, and the headers that every answer carries.
//!
//! No header value comes from a tenant or a request, except the names of a preflight's requested
//! headers, which are checked letter by letter.

use std::io::Write as _;

use tenant::Cost;

use super::chunked;
use super::head::Version;
use crate::cost;
use crate::hrana::encode;
use crate::limits::REQUESTED_HEADERS_BYTES_MAX;
use crate::problem::{self, Problem};

/// Tells a client that waits for it to send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How the client learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// This many bytes.
    Bytes(usize),
    /// Chunks: see [`chunked::frame`].
    Chunked,
    /// By the end of the connection: a stream to an HTTP/1.0 client.
    UntilClose,
}

/// Who may read the answer from a web page of another origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossOrigin<'a> {
    /// Nobody: the admin API.
    Refused,
    /// Everybody; credentials are tokens in a header, never cookies.
    Allowed,
    /// Everybody, and this answers a preflight that asks for these headers. They are given back
    /// because a literal `*` does not cover `authorization` (Fetch standard, CORS-safelisting).
    Preflight(Option<&'a str>),
}

/// What a response head says.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    /// Status, 200 or above.
    pub status: u16,
    /// Media type of the body; without one for an empty body.
    pub content_type: Option<&'static str>,
    /// The body's framing.
    pub length: BodyLength,
    /// The connection stays open.
    pub keep_alive: bool,
    /// Seconds after which to try again.
    pub retry_after_seconds: Option<u32>,
    /// The path's methods, with status 405.
    pub allow: Option<&'static str>,
    /// CORS.
    pub cross_origin: CrossOrigin<'a>,
    /// The request's receipt, if it ran SQL.
    pub cost: Option<Cost>,
}

impl ResponseHead<'_> {
    /// A head of this status for a body of `body_bytes`.
    #[must_use]
    pub fn new(status: u16, content_type: &'static str, body_bytes: usize) -> Self {
        ResponseHead {
            status,
            content_type: (body_bytes > 0).then_some(content_type),
            length: BodyLength::Bytes(body_bytes),
            keep_alive: true,
            retry_after_seconds: None,
            allow: None,
            cross_origin: CrossOrigin::Allowed,
            cost: None,
        }
    }

    /// A head for the first part of a body of unknown length.
    #[must_use]
    pub fn streamed(content_type: &'static str, version: Version) -> Self {
        ResponseHead {
            content_type: Some(content_type),
            length: match version {
                Version::Http10 => BodyLength::UntilClose,
                Version::Http11 => BodyLength::Chunked,
            },
            ..ResponseHead::new(200, content_type, 0)
        }
    }

    /// Append the head to `out`.
    ///
    /// # Panics
    /// If the status has no body.
    pub fn write(&self, out: &mut Vec<u8>) {
        assert!(self.status >= 200 && !matches!(self.status, 204 | 304));
        match self.status {
            200 => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            status => line(out, format_args!("HTTP/1.1 {status} {}", reason(status))),
        }
        if let Some(content_type) = self.content_type {
            out.extend_from_slice(b"content-type: ");
            out.extend_from_slice(content_type.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        match self.length {
            BodyLength::Bytes(bytes) => {
                out.extend_from_slice(b"content-length: ");
                encode::integer(out, bytes as u64);
                out.extend_from_slice(b"\r\n");
            }
            BodyLength::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            BodyLength::UntilClose => {}
        }
        let keep_alive = self.keep_alive && self.length != BodyLength::UntilClose;
        out.extend_from_slice(match keep_alive {
            true => b"connection: keep-alive\r\n".as_slice(),
            false => b"connection: close\r\n".as_slice(),
        });
        if let Some(seconds) = self.retry_after_seconds {
            line(out, format_args!("retry-after: {seconds}"));
        }
        if let Some(allow) = self.allow {
            line(out, format_args!("allow: {allow}"));
        }
        if let Some(cost) = &self.cost {
            cost::write_header(out, cost);
        }
        if self.status == 401 {
            out.extend_from_slice(b"www-authenticate: Bearer\r\n");
        }
        out.extend_from_slice(
            b"cache-control: no-store\r\n\
              x-content-type-options: nosniff\r\n",
        );
        self.write_cross_origin(out);
        out.extend_from_slice(b"\r\n");
    }

    fn write_cross_origin(&self, out: &mut Vec<u8>) {
        if self.cross_origin == CrossOrigin::Refused {
            return;
        }
        out.extend_from_slice(b"access-control-allow-origin: *\r\n");
        let CrossOrigin::Preflight(requested) = self.cross_origin else {
            // Scripts see few headers unless they are named (Fetch standard, CORS-safelisting).
            if self.cost.is_some() {
                out.extend_from_slice(b"access-control-expose-headers: x-myriad-cost\r\n");
            }
            return;
        };
        out.extend_from_slice(
            b"access-control-allow-methods: GET, POST, OPTIONS\r\n\
              access-control-max-age: 86400\r\n\
              access-control-allow-headers: authorization, content-type",
        );
        let requested = requested.filter(|list| list.len() <= REQUESTED_HEADERS_BYTES_MAX);
        for name in requested.unwrap_or("").split(',').map(str::trim) {
            let known = ["authorization", "content-type"]
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name));
            if !known && is_token(name) {
                out.extend_from_slice(b", ");
                out.extend_from_slice(name.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Put the head in front of `body`, in place; to a HEAD request without the body.
    ///
    /// # Panics
    /// If the head says another length.
    pub fn prepend_to(&self, body: &mut Vec<u8>, is_head_request: bool, scratch: &mut Vec<u8>) {
        if let BodyLength::Bytes(bytes) = self.length {
            assert_eq!(bytes, body.len());
        }
        scratch.clear();
        self.write(scratch);
        if is_head_request {
            body.clear();
        }
        chunked::prepend(body, scratch);
    }
}

/// Append the whole answer to a refused request: head and error body.
pub fn write_problem(
    out: &mut Vec<u8>,
    problem: &Problem,
    keep_alive: bool,
    is_head_request: bool,
    cross_origin: CrossOrigin<'_>,
) {
    let mut body = Vec::new();
    problem.write_body(&mut body);
    let head = ResponseHead {
        keep_alive: keep_alive && !problem.close,
        retry_after_seconds: problem.retry_after_seconds,
        allow: problem.allow,
        cross_origin,
        ..ResponseHead::new(problem.status, problem::CONTENT_TYPE, body.len())
    };
    head.write(out);
    if !is_head_request {
        out.extend_from_slice(&body);
    }
}

fn line(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every write");
    out.extend_from_slice(b"\r\n");
}

/// A token of RFC 9110 section 5.6.2.
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The status's phrase; nobody reads it, but the grammar wants the space before it.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}
