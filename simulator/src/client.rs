//! What simulated clients need of HTTP/1.1: the text of a request, and a parser of responses.
//!
//! Written apart from the server's own HTTP code on purpose: a misreading that both shared would
//! go unseen. The parser takes bytes in any segmentation and is strict: whatever the server may
//! not send (RFC 9112) is an error, never a guess. Bodies: `Content-Length`, chunked (trailers are
//! refused), none for 1xx, 204, 304 and answers to HEAD; a body that ends with the connection is
//! taken only if the response says `Connection: close`.

use std::cell::Cell;
use std::fmt;

/// Longest head of a response in bytes; the server's heads are a few hundred.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest body that a client takes: more than any response limit of the server.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code, 100 to 599.
    pub status: u16,
    /// Names in lower case and values without surrounding blanks, in order.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    /// The server ends the connection after it.
    pub closes: bool,
}

impl Response {
    /// The value of a header that stands there once; `name` in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|header| header.0 == name);
        found.map(|header| header.1.as_str())
    }
}

/// What was wrong with the bytes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// The status line is not `HTTP/1.1 ddd text`.
    StatusLine,
    /// A header line has no name, a bad byte or no colon.
    HeaderLine,
    /// The head is longer than 16 KiB.
    HeadTooLong,
    /// `Content-Length` is no number, stands twice, or stands beside `Transfer-Encoding`.
    Length,
    /// A transfer encoding other than `chunked`, or a bad chunk.
    Chunk,
    /// The body is longer than 64 MiB.
    BodyTooLong,
    /// Neither length nor chunks nor the end of the connection delimits the body.
    Undelimited,
    /// The connection ended in the middle of a response.
    Truncated,
    /// There are bytes where no response was asked for.
    Unasked,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            ResponseError::StatusLine => "bad status line",
            ResponseError::HeaderLine => "bad header line",
            ResponseError::HeadTooLong => "head too long",
            ResponseError::Length => "bad content length",
            ResponseError::Chunk => "bad chunk",
            ResponseError::BodyTooLong => "body too long",
            ResponseError::Undelimited => "body without an end",
            ResponseError::Truncated => "truncated response",
            ResponseError::Unasked => "bytes that nobody asked for",
        };
        f.write_str(text)
    }
}

impl std::error::Error for ResponseError {}

/// How the body of the response in hand ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    Connection,
}

/// Reads responses from bytes as they come.
#[derive(Debug, Default)]
pub struct ResponseReader {
    bytes: Vec<u8>,
    /// Per request that waits for its response: whether it was a HEAD.
    waiting: std::collections::VecDeque<bool>,
    /// The response whose body is being read.
    partial: Option<(Response, Framing)>,
    ended: bool,
    /// Bytes that were pushed.
    received: u64,
}

impl ResponseReader {
    /// A request was sent: one more response will come.
    pub fn expect(&mut self, head_only: bool) {
        self.waiting.push_back(head_only);
    }

    /// How many responses are still to come.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(!self.ended, "no bytes follow the end");
        self.received += bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
    }

    /// Where in the stream of bytes the newest response ended.
    #[must_use]
    pub fn response_end(&self) -> u64 {
        self.received - self.bytes.len() as u64
    }

    /// The connection sends no more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next whole response, `None` until it is there. Interim (1xx) responses are skipped.
    ///
    /// # Errors
    /// If the bytes are no response; the connection is of no use then.
    pub fn next_response(&mut self) -> Result<Option<Response>, ResponseError> {
        loop {
            if self.partial.is_none() && !self.begin()? {
                return Ok(None);
            }
            let Some(response) = self.body()? else {
                return Ok(None);
            };
            if response.status >= 200 {
                self.waiting.pop_front();
                return Ok(Some(response));
            }
        }
    }

    /// Read the head; false if it is not whole yet.
    fn begin(&mut self) -> Result<bool, ResponseError> {
        let Some(&head_only) = self.waiting.front() else {
            return match self.bytes.is_empty() {
                true => Ok(false),
                false => Err(ResponseError::Unasked),
            };
        };
        let Some(head_bytes) = find(&self.bytes, b"\r\n\r\n") else {
            return match (self.bytes.len() > HEAD_BYTES_MAX, self.ended) {
                (true, _) => Err(ResponseError::HeadTooLong),
                (false, true) => Err(ResponseError::Truncated),
                (false, false) => Ok(false),
            };
        };
        if head_bytes > HEAD_BYTES_MAX {
            return Err(ResponseError::HeadTooLong);
        }
        let head: Vec<u8> = self.bytes.drain(..head_bytes + 4).collect();
        let response = parse_head(&head[..head_bytes])?;
        let framing = framing(&response, head_only)?;
        self.partial = Some((response, framing));
        Ok(true)
    }

    /// Read the body; `None` if it is not whole yet.
    fn body(&mut self) -> Result<Option<Response>, ResponseError> {
        let (mut response, framing) = self.partial.take().expect("a head was read");
        let whole = match framing {
            Framing::Length(length_bytes) => {
                let missing = length_bytes - response.body.len();
                let count = missing.min(self.bytes.len());
                response.body.extend(self.bytes.drain(..count));
                count == missing
            }
            Framing::Chunked => self.chunks(&mut response.body)?,
            Framing::Connection => {
                response.body.append(&mut self.bytes);
                self.ended
            }
        };
        if response.body.len() > BODY_BYTES_MAX {
            return Err(ResponseError::BodyTooLong);
        }
        if whole {
            return Ok(Some(response));
        }
        if self.ended {
            return Err(ResponseError::Truncated);
        }
        self.partial = Some((response, framing));
        Ok(None)
    }

    /// Take whole chunks; true once the last one was there.
    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<bool, ResponseError> {
        loop {
            let Some(line_bytes) = find(&self.bytes, b"\r\n") else {
                let longest_line = 16;
                let too_long = self.bytes.len() > longest_line;
                return if too_long { Err(ResponseError::Chunk) } else { Ok(false) };
            };
            let size = chunk_size(&self.bytes[..line_bytes])?;
            if body.len() + size > BODY_BYTES_MAX {
                return Err(ResponseError::BodyTooLong);
            }
            let data = line_bytes + 2;
            let Some(end) = self.bytes.get(data + size..data + size + 2) else {
                return Ok(false);
            };
            if end != b"\r\n" {
                return Err(ResponseError::Chunk);
            }
            body.extend_from_slice(&self.bytes[data..data + size]);
            self.bytes.drain(..data + size + 2);
            if size == 0 {
                return Ok(true);
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn chunk_size(line: &[u8]) -> Result<usize, ResponseError> {
    let short = (1..=8).contains(&line.len());
    if !short || !line.iter().all(u8::is_ascii_hexdigit) {
        return Err(ResponseError::Chunk);
    }
    let text = str::from_utf8(line).expect("hexadecimal digits");
    usize::from_str_radix(text, 16).map_err(|_| ResponseError::Chunk)
}

fn parse_head(head: &[u8]) -> Result<Response, ResponseError> {
    let head = str::from_utf8(head).map_err(|_| ResponseError::HeaderLine)?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = parse_status(status_line).ok_or(ResponseError::StatusLine)?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(ResponseError::HeaderLine)?;
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let bad_name = name.is_empty() || !name.bytes().all(is_token);
        if bad_name || value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
            return Err(ResponseError::HeaderLine);
        }
        let value = value.trim_matches([' ', '\t']);
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let is_close = |header: &(String, String)| {
        header.0 == "connection" && header.1.eq_ignore_ascii_case("close")
    };
    let closes = headers.iter().any(is_close);
    Ok(Response { status, headers, body: Vec::new(), closes })
}

fn parse_status(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ")?;
    let (code, reason) = rest.split_at_checked(3)?;
    let digits = code.bytes().all(|byte| byte.is_ascii_digit());
    let printable = reason.starts_with(' ') && !reason.bytes().any(|byte| byte.is_ascii_control());
    let status: u16 = code.parse().ok()?;
    (digits && printable && (100..600).contains(&status)).then_some(status)
}

fn framing(response: &Response, head_only: bool) -> Result<Framing, ResponseError> {
    let values = |name: &str| {
        let all = response.headers.iter().filter(|header| header.0 == name);
        all.map(|header| header.1.clone()).collect::<Vec<String>>()
    };
    let lengths = values("content-length");
    let encodings = values("transfer-encoding");
    if lengths.len() + encodings.len() > 1 {
        return Err(ResponseError::Length);
    }
    let bodyless = head_only || response.status < 200 || matches!(response.status, 204 | 304);
    if let Some(encoding) = encodings.first() {
        if !encoding.eq_ignore_ascii_case("chunked") {
            return Err(ResponseError::Chunk);
        }
        return Ok(if bodyless { Framing::Length(0) } else { Framing::Chunked });
    }
    if let Some(length) = lengths.first() {
        let digits = (1..=10).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit());
        let length_bytes: usize = length.parse().map_err(|_| ResponseError::Length)?;
        return match (digits, length_bytes > BODY_BYTES_MAX, bodyless) {
            (false, ..) => Err(ResponseError::Length),
            (true, _, true) => Ok(Framing::Length(0)),
            (true, true, false) => Err(ResponseError::BodyTooLong),
            (true, false, false) => Ok(Framing::Length(length_bytes)),
        };
    }
    match (bodyless, response.closes) {
        (true, _) => Ok(Framing::Length(0)),
        (false, true) => Ok(Framing::Connection),
        (false, false) => Err(ResponseError::Undelimited),
    }
}

thread_local! {
    /// The key that the present world's clients have.
    static PRESENTED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// From now on, requests of this thread come with this key, if they do not say otherwise.
pub fn present(key: Option<&'static str>) {
    PRESENTED.set(key);
}

/// The line of a head with that key; empty where there is none.
#[must_use]
pub fn credential_line() -> String {
    PRESENTED.get().map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"))
}

/// The bytes of a request with a body of known length.
#[must_use]
pub fn request(
    method: &str,
    path: &str,
    host: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
        text.push_str(&credential_line());
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Read `text` as the answers to `requests` plain requests: whole, and byte by byte.
    fn check(text: &str, requests: usize) -> Result<Vec<Response>, ResponseError> {
        let whole = read(&[text.as_bytes()], requests);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes, requests), whole, "segmentation changes nothing");
        whole
    }

    fn read(segments: &[&[u8]], requests: usize) -> Result<Vec<Response>, ResponseError> {
        let mut reader = ResponseReader::default();
        (0..requests).for_each(|_| reader.expect(false));
        let mut responses = Vec::new();
        for segment in segments {
            reader.push(segment);
            while let Some(response) = reader.next_response()? {
                responses.push(response);
            }
        }
        reader.end();
        while let Some(response) = reader.next_response()? {
            responses.push(response);
        }
        Ok(responses)
    }

    #[test]
    fn pipelined_responses_come_one_by_one() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A:  b \r\n\r\nhello\
                    HTTP/1.1 100 Continue\r\n\r\n\
                    HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n\
                    3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n\
                    HTTP/1.1 204 No Content\r\n\r\n\
                    HTTP/1.1 500 \r\nConnection: close\r\n\r\nuntil the end";
        let responses = check(text, 4).expect("all are fine");
        let seen: Vec<(u16, &[u8])> =
            responses.iter().map(|r| (r.status, r.body.as_slice())).collect();
        let expected: [(u16, &[u8]); 4] =
            [(200, b"hello"), (404, b"abc0123456789"), (204, b""), (500, b"until the end")];
        assert_eq!(seen, expected);
        assert_eq!(responses[0].header("x-a"), Some("b"));
        assert!(!responses[0].closes && responses[3].closes);
    }

    #[test]
    fn what_a_server_may_not_send_is_refused() {
        use ResponseError::*;
        let ok = "HTTP/1.1 200 OK\r\n";
        for (text, error) in [
            ("HTTP/1.0 200 OK\r\n\r\n".to_owned(), StatusLine),
            ("HTTP/1.1 20 OK\r\n\r\n".to_owned(), StatusLine),
            ("HTTP/1.1 +20 OK\r\n\r\n".to_owned(), StatusLine),
            (format!("{ok}bad name: x\r\n\r\n"), HeaderLine),
            (format!("{ok}no colon\r\n\r\n"), HeaderLine),
            (format!("{ok}a: b\nc: d\r\n\r\n"), HeaderLine),
            (format!("{ok}Content-Length: -1\r\n\r\n"), Length),
            (format!("{ok}Content-Length: +1\r\n\r\nx"), Length),
            (format!("{ok}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"), Length),
            (format!("{ok}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx"), Length),
            (format!("{ok}Content-Length: 999999999\r\n\r\n"), BodyTooLong),
            (format!("{ok}Transfer-Encoding: gzip\r\n\r\n"), Chunk),
            (format!("{ok}Transfer-Encoding: chunked\r\n\r\nx\r\n"), Chunk),
            (format!("{ok}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"), Chunk),
            (format!("{ok}Transfer-Encoding: chunked\r\n\r\n5\r\nab"), Truncated),
            (format!("{ok}Content-Length: 5\r\n\r\nabcd"), Truncated),
            (format!("{ok}\r\n"), Undelimited),
            (ok.to_owned(), Truncated),
            (format!("{ok}Content-Length: 0\r\n\r\nmore"), Unasked),
        ] {
            assert_eq!(check(&text, 1), Err(error), "{text:?}");
        }
        let long = format!("{ok}a: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(check(&long, 1), Err(HeadTooLong));
    }

    #[test]
    fn the_answer_to_a_head_request_has_no_body() {
        let mut reader = ResponseReader::default();
        reader.expect(true);
        reader.push(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        let response = reader.next_response().expect("fine").expect("whole");
        assert_eq!((response.body.len(), reader.waiting()), (0, 0));
        assert_eq!(response.header("content-length"), Some("5"));
    }

    #[test]
    fn requests_say_their_length() {
        let bytes = request("POST", "/v2/pipeline", "a.b", &[("X", "y")], b"{}");
        let text = String::from_utf8(bytes).expect("text");
        assert_eq!(
            text,
            "POST /v2/pipeline HTTP/1.1\r\nHost: a.b\r\nX: y\r\nContent-Length: 2\r\n\r\n{}"
        );
    }
}
