//! One request head: the bytes up to and with the empty line, checked and taken apart.
//!
//! `httparse` does the tokens; the rules it does not know are here, because two servers that read
//! one head differently are how requests are smuggled: line ends, one Host, one framing, one
//! tenant.
//! Fields that we do not use are checked for their form and dropped.
//!
//! A parsed head holds positions, not slices, so that it can stay beside its bytes while they move
//! from buffer to buffer.

use super::target;
use crate::limits::{CONTENT_LENGTH_DIGITS_MAX, HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};
use crate::problem::Problem;

/// A request's method. CONNECT and TRACE are answered 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the methods")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// The client's version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: no chunks in either direction, no 100 Continue, closes by default.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How long the request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// This many bytes; 0 without any body field.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A position in a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u16,
    end: u16,
}

/// A head's facts and positions, relative to its first byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParsedHead {
    method: Method,
    version: Version,
    framing: BodyFraming,
    keep_alive: bool,
    expects_continue: bool,
    path: Span,
    query: Option<Span>,
    host: Option<Span>,
    fields: Fields,
}

/// Positions of the fields that are kept as they are.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    authorization: Option<Span>,
    namespace: Option<Span>,
    max_cost: Option<Span>,
    priority: Option<Span>,
    idempotency_key: Option<Span>,
    content_type: Option<Span>,
    origin: Option<Span>,
    requested_headers: Option<Span>,
    upgrade: Option<Span>,
}

/// One request head, borrowed from the receive buffer.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    parsed: &'a ParsedHead,
    bytes: &'a [u8],
}

impl<'a> Head<'a> {
    pub(super) fn new(parsed: &'a ParsedHead, bytes: &'a [u8]) -> Head<'a> {
        Head { parsed, bytes }
    }

    fn text(&self, span: Span) -> &'a str {
        let bytes = &self.bytes[usize::from(span.start)..usize::from(span.end)];
        std::str::from_utf8(bytes).expect("kept fields were checked to be ASCII")
    }

    fn field(&self, span: Option<Span>) -> Option<&'a str> {
        span.map(|span| self.text(span))
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> Method {
        self.parsed.method
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.parsed.version
    }

    /// The body's framing.
    #[must_use]
    pub fn framing(&self) -> BodyFraming {
        self.parsed.framing
    }

    /// The client will send another request on this connection if we let it.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        self.parsed.keep_alive
    }

    /// The client waits for `100 Continue` before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.parsed.expects_continue
    }

    /// The target's path, as sent: starts with `/`, or is `*`.
    #[must_use]
    pub fn path(&self) -> &'a str {
        // Only an absolute-form target has an empty path, and it means the root.
        match self.text(self.parsed.path) {
            "" => "/",
            path => path,
        }
    }

    /// The target's query, without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.field(self.parsed.query)
    }

    /// Host field or the target's authority, with its port; never empty.
    #[must_use]
    pub fn host(&self) -> Option<&'a str> {
        self.field(self.parsed.host)
    }

    /// The one `authorization` field.
    #[must_use]
    pub fn authorization(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.authorization)
    }

    /// The one `x-namespace` field.
    #[must_use]
    pub fn namespace(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.namespace)
    }

    /// The one `x-myriad-max-cost` field.
    #[must_use]
    pub fn max_cost(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.max_cost)
    }

    /// The one `x-myriad-priority` field.
    #[must_use]
    pub fn priority(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.priority)
    }

    /// The one `idempotency-key` field.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.idempotency_key)
    }

    /// The body's media type. No endpoint of ours asks for one: the Rust client sends none.
    #[must_use]
    pub fn content_type(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.content_type)
    }

    /// The `origin` field, for the log only.
    #[must_use]
    pub fn origin(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.origin)
    }

    /// A preflight's `access-control-request-headers`.
    #[must_use]
    pub fn requested_headers(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.requested_headers)
    }

    /// The `upgrade` field.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'a str> {
        self.field(self.parsed.fields.upgrade)
    }
}

/// The first fields with a meaning, as they were found.
#[derive(Default)]
struct Found<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    encoded: bool,
    fields: Fields,
}

/// Check and take apart `bytes`, which end with the head's empty line and hold no bare CR or LF.
///
/// # Errors
/// The violation, with its status; the connection must be closed after it.
pub(super) fn parse(bytes: &[u8]) -> Result<ParsedHead, Problem> {
    assert!(bytes.ends_with(b"\r\n\r\n"));
    assert!(bytes.len() <= HEAD_BYTES_MAX);
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length_bytes)) if length_bytes == bytes.len() => {}
        Ok(_) => return Err(bad("the request head is malformed")),
        Err(error) => return Err(bad_tokens(error)),
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Err(bad("the request line is malformed"));
    };
    let version = match version {
        0 => Version::Http10,
        _ => Version::Http11,
    };
    let method = method_named(method)?;
    if target.len() > TARGET_BYTES_MAX {
        return Err(target_too_long());
    }
    let target = target::parse(target, method == Method::Options)?;
    let found = collect(bytes, request.headers)?;
    let host = pick_host(found.host, target.authority, version)?;
    let framing = pick_framing(&found, version)?;
    if found.encoded && framing != BodyFraming::Length(0) {
        return Err(Problem::protocol(
            415,
            "HTTP_CONTENT_ENCODING",
            "the body must not be compressed",
        ));
    }
    let expects_continue = match (version, found.expect) {
        (Version::Http10, _) | (_, None) => false,
        (_, Some(value)) if value.eq_ignore_ascii_case(b"100-continue") => true,
        _ => {
            return Err(Problem::protocol(
                417,
                "HTTP_EXPECTATION",
                "the only expectation that can be met is 100-continue",
            ));
        }
    };
    Ok(ParsedHead {
        method,
        version,
        framing,
        keep_alive: !found.close && (version == Version::Http11 || found.keep_alive),
        expects_continue,
        path: span(bytes, target.path.as_bytes()),
        query: target.query.map(|query| span(bytes, query.as_bytes())),
        host: host.map(|host| span(bytes, host.as_bytes())),
        fields: found.fields,
    })
}

fn collect<'a>(bytes: &'a [u8], headers: &[httparse::Header<'a>]) -> Result<Found<'a>, Problem> {
    let mut found = Found::default();
    // Longer than every name below.
    let mut name = [0; 32];
    for header in headers {
        let Some(name) = name.get_mut(..header.name.len()) else {
            continue;
        };
        name.copy_from_slice(header.name.as_bytes());
        name.make_ascii_lowercase();
        let value = header.value;
        match &*name {
            b"host" => once(&mut found.host, value)?,
            b"content-length" => once(&mut found.content_length, value)?,
            b"transfer-encoding" => once(&mut found.transfer_encoding, value)?,
            b"expect" => once(&mut found.expect, value)?,
            b"authorization" => once(&mut found.fields.authorization, text(bytes, value)?)?,
            b"x-namespace" => once(&mut found.fields.namespace, text(bytes, value)?)?,
            b"x-myriad-max-cost" => once(&mut found.fields.max_cost, text(bytes, value)?)?,
            b"x-myriad-priority" => once(&mut found.fields.priority, text(bytes, value)?)?,
            b"idempotency-key" => {
                once(&mut found.fields.idempotency_key, text(bytes, value)?)?;
            }
            b"content-encoding" => {
                found.encoded |= !value.is_empty() && !value.eq_ignore_ascii_case(b"identity");
            }
            b"connection" => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    found.close |= token.eq_ignore_ascii_case(b"close");
                    found.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            // Fields that decide nothing: the first one counts, and only if it is text.
            b"content-type" => first(&mut found.fields.content_type, bytes, value),
            b"origin" => first(&mut found.fields.origin, bytes, value),
            b"upgrade" => first(&mut found.fields.upgrade, bytes, value),
            b"access-control-request-headers" => {
                first(&mut found.fields.requested_headers, bytes, value);
            }
            _ => {}
        }
    }
    Ok(found)
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Problem> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad("a header that must be unique was sent twice")),
    }
}

fn first(slot: &mut Option<Span>, bytes: &[u8], value: &[u8]) {
    if slot.is_none() {
        *slot = text(bytes, value).ok();
    }
}

fn text(bytes: &[u8], value: &[u8]) -> Result<Span, Problem> {
    if !value.is_ascii() {
        return Err(bad("a header value is not ASCII"));
    }
    Ok(span(bytes, value))
}

fn pick_host<'a>(
    host: Option<&'a [u8]>,
    authority: Option<&'a str>,
    version: Version,
) -> Result<Option<&'a str>, Problem> {
    let host = match host {
        None if version == Version::Http11 => {
            return Err(bad("an HTTP/1.1 request must have a Host header"));
        }
        // An empty Host is what a client sends that has no name for us (RFC 9112 section 3.2).
        None | Some(b"") => None,
        Some(value) => match std::str::from_utf8(value) {
            Ok(host) if target::is_host(host) => Some(host),
            _ => return Err(bad("the Host header is malformed")),
        },
    };
    match (host, authority) {
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => {
            Err(Problem::protocol(
                421,
                "HTTP_TWO_HOSTS",
                "the request target and the Host header name different hosts",
            ))
        }
        (host, authority) => Ok(host.or(authority)),
    }
}

fn pick_framing(found: &Found<'_>, version: Version) -> Result<BodyFraming, Problem> {
    match (found.content_length, found.transfer_encoding) {
        (None, None) => Ok(BodyFraming::Length(0)),
        (Some(_), Some(_)) => Err(bad("Content-Length and Transfer-Encoding exclude each other")),
        (Some(digits), None) => {
            let is_number = (1..=CONTENT_LENGTH_DIGITS_MAX).contains(&digits.len())
                && digits.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(digits).ok().filter(|_| is_number);
            match text.and_then(|text| text.parse().ok()) {
                Some(length_bytes) => Ok(BodyFraming::Length(length_bytes)),
                None => Err(bad("the Content-Length is not a number of up to 19 digits")),
            }
        }
        (None, Some(_)) if version == Version::Http10 => {
            Err(bad("HTTP/1.0 has no Transfer-Encoding"))
        }
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(BodyFraming::Chunked),
        (None, Some(_)) => Err(Problem::protocol(
            501,
            "HTTP_TRANSFER_ENCODING",
            "the only transfer encoding is chunked",
        )),
    }
}

fn method_named(name: &str) -> Result<Method, Problem> {
    match name {
        "GET" => Ok(Method::Get),
        "HEAD" => Ok(Method::Head),
        "POST" => Ok(Method::Post),
        "PUT" => Ok(Method::Put),
        "PATCH" => Ok(Method::Patch),
        "DELETE" => Ok(Method::Delete),
        "OPTIONS" => Ok(Method::Options),
        _ => Err(Problem::protocol(
            501,
            "HTTP_METHOD_UNKNOWN",
            "the method is not one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        )),
    }
}

/// Where `part`, a slice of `bytes`, stands in it.
fn span(bytes: &[u8], part: &[u8]) -> Span {
    let start = part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
    assert!(start <= bytes.len() && part.len() <= bytes.len() - start);
    let position = |at: usize| u16::try_from(at).expect("a head is shorter than 64 KiB");
    Span { start: position(start), end: position(start + part.len()) }
}

fn bad(text: &'static str) -> Problem {
    Problem::protocol(400, "HTTP_BAD_REQUEST", text)
}

/// The request target is over its limit.
pub(super) fn target_too_long() -> Problem {
    Problem::protocol(414, "HTTP_TARGET_TOO_LONG", "the request target is longer than 8 KiB")
}

/// The head is over its limits.
pub(super) fn head_too_large() -> Problem {
    Problem::protocol(
        431,
        "HTTP_HEAD_TOO_LARGE",
        "the request head is over 16 KiB or has over 64 headers",
    )
}

fn bad_tokens(error: httparse::Error) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => head_too_large(),
        httparse::Error::Version => {
            Problem::protocol(505, "HTTP_VERSION", "the version is neither HTTP/1.0 nor HTTP/1.1")
        }
        httparse::Error::HeaderName => bad("a header name is malformed"),
        httparse::Error::HeaderValue => bad("a header value is malformed"),
        _ => bad("the request line is malformed"),
    }
}
