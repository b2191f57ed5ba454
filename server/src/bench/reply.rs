//! Reading an HTTP/1.1 reply from the bytes that have arrived so far.
//!
//! Pure: bytes in, a reply or "not yet" out. Replies are small (a few hundred bytes) and usually
//! arrive whole, so an incomplete one is simply parsed again from its start when more has come.
//! Bodies come by `Content-Length` or chunked; one that only the end of the connection would end
//! is refused, as it could not be told from a broken connection.

use std::fmt;

/// Header lines in one reply; our server sends fewer than ten.
const HEADERS_MAX: usize = 64;

/// Head, body and framing of one reply. The largest that a scenario asks for is under 1 KiB; the
/// bound keeps a wrong server from filling our memory.
pub const REPLY_BYTES_MAX: usize = 1 << 20;

/// A complete reply, without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// Bytes of the input that were this reply.
    pub bytes: usize,
    /// The server leaves the connection open for another request.
    pub keeps_alive: bool,
}

/// Bytes that are not an HTTP/1.1 reply that we could measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The head is not HTTP, or has too many headers.
    Head(httparse::Error),
    /// `Content-Length` is not a number, or appears twice with different ones.
    Length,
    /// A chunk has a bad size line or a bad end.
    Chunk,
    /// Neither `Content-Length` nor `Transfer-Encoding: chunked`.
    Unbounded,
    /// More than [`REPLY_BYTES_MAX`].
    TooLarge,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(error) => write!(formatter, "malformed reply head: {error}"),
            Self::Length => formatter.write_str("malformed content-length in a reply"),
            Self::Chunk => formatter.write_str("malformed chunk in a reply"),
            Self::Unbounded => {
                formatter.write_str("a reply with neither content-length nor chunked encoding")
            }
            Self::TooLarge => write!(formatter, "a reply of more than {REPLY_BYTES_MAX} bytes"),
        }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

/// Parses the reply at the start of `input`; `None`: it is not complete yet. The decoded body
/// replaces the contents of `body`, which the caller keeps from reply to reply.
///
/// # Errors
/// The bytes are no reply, whatever may follow.
pub fn parse(input: &[u8], body: &mut Vec<u8>) -> Result<Option<Reply>, ReplyError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let head_bytes = match head.parse(input).map_err(ReplyError::Head)? {
        httparse::Status::Complete(head_bytes) => head_bytes,
        httparse::Status::Partial => return incomplete(input.len()),
    };
    let status = head.code.expect("a complete head has a status");
    let keeps_alive = keeps_alive(head.version == Some(1), head.headers);
    let body_bytes = match framing(status, head.headers)? {
        Framing::Length(length) if length > REPLY_BYTES_MAX => return Err(ReplyError::TooLarge),
        Framing::Length(length) => {
            let Some(bytes) = input.get(head_bytes..head_bytes + length) else {
                return incomplete(input.len());
            };
            body.clear();
            body.extend_from_slice(bytes);
            length
        }
        Framing::Chunked => match decode_chunks(&input[head_bytes..], body)? {
            Some(bytes) => bytes,
            None => return incomplete(input.len()),
        },
    };
    Ok(Some(Reply { status, bytes: head_bytes + body_bytes, keeps_alive }))
}

/// An incomplete reply may grow only as long as it is below the bound.
fn incomplete(input_bytes: usize) -> Result<Option<Reply>, ReplyError> {
    if input_bytes < REPLY_BYTES_MAX { Ok(None) } else { Err(ReplyError::TooLarge) }
}

/// RFC 9112, section 9.3: 1.1 stays open unless told otherwise, 1.0 closes unless told otherwise.
fn keeps_alive(is_1_1: bool, headers: &[httparse::Header<'_>]) -> bool {
    let mut keeps_alive = is_1_1;
    for header in headers {
        if !header.name.eq_ignore_ascii_case("connection") {
            continue;
        }
        for option in header.value.split(|&byte| byte == b',') {
            if option.trim_ascii().eq_ignore_ascii_case(b"close") {
                return false;
            }
            keeps_alive |= option.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keeps_alive
}

/// RFC 9112, section 6.3, without the case that only a closed connection ends.
fn framing(status: u16, headers: &[httparse::Header<'_>]) -> Result<Framing, ReplyError> {
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(Framing::Length(0));
    }
    let mut length = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // Chunked is always the last encoding, and no other is asked for.
            let chunked = header.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
            return if chunked { Ok(Framing::Chunked) } else { Err(ReplyError::Unbounded) };
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let parsed = parse_length(header.value.trim_ascii()).ok_or(ReplyError::Length)?;
            if length.is_some_and(|length| length != parsed) {
                return Err(ReplyError::Length);
            }
            length = Some(parsed);
        }
    }
    length.map(Framing::Length).ok_or(ReplyError::Unbounded)
}

/// Digits only: `parse` alone would take a sign.
fn parse_length(value: &[u8]) -> Option<usize> {
    let digits = value.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(value).ok()?.parse().ok() } else { None }
}

/// Decodes a chunked body into `body`; returns its encoded bytes, trailers included.
fn decode_chunks(input: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, ReplyError> {
    body.clear();
    let mut at = 0;
    loop {
        let (line_bytes, chunk_bytes) = match httparse::parse_chunk_size(&input[at..]) {
            Ok(httparse::Status::Complete(sizes)) => sizes,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(ReplyError::Chunk),
        };
        at += line_bytes;
        if chunk_bytes == 0 {
            return Ok(end_of_trailers(&input[at..]).map(|bytes| at + bytes));
        }
        if chunk_bytes > REPLY_BYTES_MAX as u64 {
            return Err(ReplyError::TooLarge);
        }
        let end = at + usize::try_from(chunk_bytes).expect("it is under the bound");
        let Some(framed) = input.get(at..end + 2) else {
            return Ok(None);
        };
        let (chunk, line_end) = framed.split_at(end - at);
        if line_end != b"\r\n" {
            return Err(ReplyError::Chunk);
        }
        body.extend_from_slice(chunk);
        at = end + 2;
    }
}

/// Bytes up to and including the empty line that ends the trailers, if it is there.
fn end_of_trailers(input: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line_bytes = input[at..].windows(2).position(|pair| pair == b"\r\n")?;
        at += line_bytes + 2;
        if line_bytes == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `input` whole and in every incomplete length; gives status, body and what is left.
    fn check(input: &str, expected: &str) {
        let mut body = Vec::new();
        let seen = match parse(input.as_bytes(), &mut body) {
            Ok(Some(reply)) => {
                for cut in 0..reply.bytes {
                    let partial = parse(&input.as_bytes()[..cut], &mut body);
                    assert_eq!(partial, Ok(None), "{cut} bytes of {input:?}");
                }
                parse(input.as_bytes(), &mut body).unwrap();
                let body = std::str::from_utf8(&body).unwrap();
                let open = if reply.keeps_alive { "open" } else { "close" };
                format!("{} {open} {body:?} {:?}", reply.status, &input[reply.bytes..])
            }
            Ok(None) => "more".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(seen, expected, "{input:?}");
    }

    #[test]
    fn replies_with_a_length() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", r#"200 open "hi" """#);
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhirest", r#"200 open "hi" "rest""#);
        check("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", r#"503 open "" """#);
        check("HTTP/1.1 204 No Content\r\n\r\n", r#"204 open "" """#);
        check(
            "HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 0\r\n\r\n",
            r#"200 close "" """#,
        );
        check("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", r#"200 close "x" """#);
        check(
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx",
            r#"200 open "x" """#,
        );
    }

    #[test]
    fn replies_in_chunks() {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        check(&format!("{head}2\r\nhi\r\n0\r\n\r\n"), r#"200 open "hi" """#);
        check(
            &format!("{head}1\r\nh\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"),
            r#"200 open "h0123456789" """#,
        );
        check(&format!("{head}0\r\n\r\nrest"), r#"200 open "" "rest""#);
        check(&format!("{head}1\r\nx\r\n0\r\na: b\r\nc: d\r\n\r\n"), r#"200 open "x" """#);
        check(&format!("{head}1\r\nxyz\r\n0\r\n\r\n"), "malformed chunk in a reply");
        check(&format!("{head}zz\r\n"), "malformed chunk in a reply");
        check(&format!("{head}ffffffff\r\n"), "a reply of more than 1048576 bytes");
    }

    #[test]
    fn what_is_no_reply() {
        check("", "more");
        check("SSH-2.0-x\r\n", "malformed reply head: invalid HTTP version");
        check("HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nhi", {
            "malformed content-length in a reply"
        });
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
            "malformed content-length in a reply",
        );
        check("HTTP/1.1 200 OK\r\n\r\nhi", {
            "a reply with neither content-length nor chunked encoding"
        });
        check("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", {
            "a reply of more than 1048576 bytes"
        });
    }
}
