//! HTTP heads and bodies: the server's reader against itself in pieces, streamed, and a plain reader.

use server::http::{BodyFraming, Head, Progress, RequestReader, Version, chunked};
use server::limits::{CONTENT_LENGTH_DIGITS_MAX, HEAD_BYTES_MAX, HEADERS_MAX};
use server::problem::Problem;

use super::reference::{self, Request};
use super::{Random, Seen, Target, pieces};

/// What a body may have, so that limits are reached by small inputs.
const BODY_BYTES_MAX: u64 = 3_000;

/// Requests of one input that are looked at.
const REQUESTS_MAX: usize = 40;

/// Words of heads and bodies.
const WORDS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ": ",
    "GET / HTTP/1.1\r\n",
    "POST /v3/pipeline HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "GET http://a/ HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "Host: a\r\n",
    "Host: b:80\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length:\t10 \r\n",
    "Content-Length: +1\r\n",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding: CHUNKED\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, x\r\n",
    "Expect: 100-continue\r\n",
    "Content-Encoding: gzip\r\n",
    "Authorization: Bearer x\r\n",
    "X-Namespace: a\r\n",
    "Upgrade: websocket\r\n",
    " folded\r\n",
    "0\r\n\r\n",
    "0\r\nTrailer: x\r\n\r\n",
    "5\r\nabcde\r\n",
    "5;a=b\r\nabcde\r\n",
    "00000000000000005\r\nabcde\r\n",
    "ffffffffffffffff\r\n",
    "hello",
];

/// See the head of the file.
pub struct Http {
    bodies: bool,
}

impl Http {
    /// Inputs that are mostly heads.
    pub fn heads() -> Http {
        Http { bodies: false }
    }

    /// Inputs that are mostly bodies.
    pub fn bodies() -> Http {
        Http { bodies: true }
    }
}

impl Target for Http {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let mut input = Vec::new();
        for _ in 0..1 + random.size(2) {
            match self.bodies {
                true => body_request(&mut input, random),
                false => head_request(&mut input, random),
            }
        }
        input
    }

    fn words(&self) -> &'static [&'static str] {
        WORDS
    }

    fn input_bytes_max(&self) -> usize {
        // Heads of 16 KiB and more are made by repeating.
        if self.bodies { 8 * 1024 } else { 20 * 1024 }
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let whole = read([input]);
        note(&whole, seen);
        for salt in 0..2 {
            let cut = pieces(input, salt);
            let other = read(cut.iter().copied());
            if other != whole {
                return Err(format!("in {} pieces: {other:?}, whole: {whole:?}", cut.len()));
            }
            let streamed = stream(cut.iter().copied());
            if streamed != whole {
                return Err(format!("streamed: {streamed:?}, whole: {whole:?}"));
            }
        }
        judge(input, &whole)
    }
}

fn head_request(input: &mut Vec<u8>, random: &mut Random) {
    let methods = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"];
    let targets =
        ["/", "/db/a/v3/pipeline", "/v2?x=y", "*", "http://a/x", "http://a", "/%00", "/#"];
    let versions = ["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.2"];
    let line = [random.pick(&methods), random.pick(&targets), random.pick(&versions)].join(" ");
    input.extend_from_slice(line.as_bytes());
    input.extend_from_slice(b"\r\n");
    if !random.one_in(8) {
        input.extend_from_slice(b"Host: a\r\n");
    }
    for _ in 0..random.size(3) {
        let word = random.pick(&WORDS[12..29]);
        input.extend_from_slice(word.as_bytes());
    }
    input.extend_from_slice(b"\r\n");
    let body = random.size(4) as usize;
    input.extend(random.bytes(body));
}

fn body_request(input: &mut Vec<u8>, random: &mut Random) {
    input.extend_from_slice(b"POST / HTTP/1.1\r\nHost: a\r\n");
    if random.one_in(4) {
        let length = random.size(12) as usize;
        input.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        input.extend(random.bytes(length));
        return;
    }
    input.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    for _ in 0..random.size(3) {
        let length = 1 + random.size(10) as usize;
        let zeros = "0".repeat(random.size(4) as usize);
        let extension = random.pick(&["", "", "", ";a", ";a=\"b\"", " ;a", "; \t"]);
        input.extend_from_slice(format!("{zeros}{length:x}{extension}\r\n").as_bytes());
        input.extend(random.bytes(length));
        input.extend_from_slice(b"\r\n");
    }
    let end =
        random.pick(&["0\r\n\r\n", "0\r\n\r\n", "000;x\r\n\r\n", "0\r\nA: b\r\nC: d\r\n\r\n"]);
    input.extend_from_slice(end.as_bytes());
}

/// What the reader says, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Head(Facts),
    Body(Vec<u8>),
    Refused(u16, &'static str, String),
}

/// What it says of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Facts {
    method: String,
    is_newer: bool,
    target: String,
    framing: BodyFraming,
    host: Option<String>,
    others: String,
}

fn facts(head: Head<'_>) -> Facts {
    let query = head.query().map_or_else(String::new, |query| format!("?{query}"));
    let others = format!(
        "{:?}",
        (
            (head.keep_alive(), head.expects_continue(), head.authorization(), head.namespace()),
            (head.content_type(), head.origin(), head.requested_headers(), head.upgrade()),
            (head.max_cost(), head.priority(), head.idempotency_key()),
        )
    );
    Facts {
        method: format!("{:?}", head.method()).to_ascii_uppercase(),
        is_newer: head.version() == Version::Http11,
        target: format!("{}{query}", head.path()),
        framing: head.framing(),
        host: head.host().map(str::to_owned),
        others,
    }
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Said> {
    let mut reader = RequestReader::default();
    let mut said = Vec::new();
    for piece in pieces {
        reader.receive(piece);
        loop {
            match reader.advance() {
                Ok(Progress::NeedMore) => break,
                Ok(Progress::Head) => {
                    said.push(Said::Head(facts(reader.head())));
                    reader.limit_body(BODY_BYTES_MAX);
                }
                Ok(Progress::Complete) => {
                    said.push(Said::Body(reader.body().to_vec()));
                    reader.finish();
                    if said.len() >= 2 * REQUESTS_MAX {
                        return said;
                    }
                }
                Err(problem) => {
                    said.push(Said::Refused(problem.status, problem.code, problem.message.into()));
                    return said;
                }
            }
        }
    }
    said
}

/// The same by the other door for bodies.
fn stream<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Said> {
    let mut reader = RequestReader::default();
    let (mut said, mut body) = (Vec::new(), None);
    for piece in pieces {
        reader.receive(piece);
        loop {
            match stream_step(&mut reader, &mut body, &mut said) {
                Ok(false) => break,
                Ok(true) if said.len() >= 2 * REQUESTS_MAX => return said,
                Ok(true) => {}
                Err(problem) => {
                    said.push(Said::Refused(problem.status, problem.code, problem.message.into()));
                    return said;
                }
            }
        }
    }
    said
}

/// False if more bytes are needed.
fn stream_step(
    reader: &mut RequestReader,
    body: &mut Option<Vec<u8>>,
    said: &mut Vec<Said>,
) -> Result<bool, Problem> {
    if let Some(bytes) = body {
        if reader.take_piece(bytes)? {
            said.push(Said::Body(std::mem::take(bytes)));
            *body = None;
            reader.finish();
            return Ok(true);
        }
        return Ok(false);
    }
    if !matches!(reader.advance()?, Progress::Head) {
        return Ok(false);
    }
    said.push(Said::Head(facts(reader.head())));
    reader.stream_body(BODY_BYTES_MAX)?;
    *body = Some(Vec::new());
    Ok(true)
}

fn note(said: &[Said], seen: &mut Seen) {
    seen.count("answers", said.len());
    for (index, answer) in said.iter().enumerate() {
        let later = if index < 2 { "" } else { "later " };
        match answer {
            Said::Head(facts) => {
                let kind = match facts.framing {
                    BodyFraming::Length(0) => "none",
                    BodyFraming::Length(_) => "length",
                    BodyFraming::Chunked => "chunks",
                };
                let said = facts.others.matches("Some").count();
                seen.note(&format!("{later}{} {} {kind}", facts.method, facts.is_newer));
                seen.count(&format!("{later}fields"), said);
            }
            Said::Body(bytes) => seen.count(&format!("{later}body"), bytes.len()),
            Said::Refused(status, _, message) => seen.note(&format!("{later}{status} {message}")),
        }
    }
}

fn judge(input: &[u8], said: &[Said]) -> Result<(), String> {
    let plain = reference::requests(input);
    let mut heads = plain.iter();
    let mut current = None;
    for answer in said {
        match answer {
            Said::Head(facts) => {
                let request = heads.next().ok_or("a plain reader sees no request there")?;
                judge_head(facts, request).map_err(|text| format!("{text}: {request:?}"))?;
                current = Some((facts, request));
            }
            Said::Body(body) => {
                let (facts, request) = current.take().ok_or("a body without a head")?;
                if request.body.as_ref() != Some(body) {
                    return Err(format!("the body is {body:?}, of {request:?}"));
                }
                write_anew(facts, request, body)?;
            }
            Said::Refused(status, code, message) => {
                if !(400..=599).contains(status) || code.is_empty() || message.is_empty() {
                    return Err(format!("refused with {status} {code} {message}"));
                }
            }
        }
    }
    Ok(())
}

/// An accepted head keeps the rules, and a plain reader finds the same in it.
fn judge_head(facts: &Facts, request: &Request) -> Result<(), String> {
    let head = &request.head;
    if head.len() > HEAD_BYTES_MAX || request.fields.len() > HEADERS_MAX {
        return Err("the head is too large".into());
    }
    let lines: Vec<&[u8]> = head.split(|byte| *byte == b'\n').collect();
    if lines.iter().any(|line| !line.ends_with(b"\r") && !line.is_empty())
        || head.iter().filter(|byte| **byte == b'\r').count() != lines.len() - 1
    {
        return Err("a bare CR or LF".into());
    }
    if head.iter().any(|byte| *byte < b' ' && !b"\r\n\t".contains(byte) || *byte == 0x7f) {
        return Err("a control character".into());
    }
    let is_token = |name: &str| {
        let marks = "!#$%&'*+-.^_`|~";
        !name.is_empty()
            && name.chars().all(|letter| letter.is_ascii_alphanumeric() || marks.contains(letter))
    };
    if let Some((name, _)) = request.fields.iter().find(|(name, _)| !is_token(name)) {
        return Err(format!("{name:?} is no field's name"));
    }
    let version = if facts.is_newer { "HTTP/1.1" } else { "HTTP/1.0" };
    if facts.method != request.method || version != request.version {
        return Err(format!("{facts:?}"));
    }
    judge_framing(facts, request)?;
    let hosts = request.all("host");
    if hosts.len() > 1 || facts.is_newer && hosts.is_empty() {
        return Err("not one host".into());
    }
    let target = &request.target;
    let path = match target.split_once("://").filter(|_| !target.starts_with('/')) {
        None => target.clone(),
        Some((_, rest)) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let slash = if rest[at..].starts_with('/') { "" } else { "/" };
            let host = facts.host.as_deref().unwrap_or_default();
            if !host.eq_ignore_ascii_case(&rest[..at]) {
                return Err(format!("the host is {host:?}"));
            }
            format!("{slash}{}", &rest[at..])
        }
    };
    match path == facts.target {
        true => Ok(()),
        false => Err(format!("the target is {:?}", facts.target)),
    }
}

fn judge_framing(facts: &Facts, request: &Request) -> Result<(), String> {
    let (lengths, codings) = (request.all("content-length"), request.all("transfer-encoding"));
    let expected = match (&lengths[..], &codings[..]) {
        ([], []) => Some(BodyFraming::Length(0)),
        ([digits], []) if digits.iter().all(u8::is_ascii_digit) => {
            let text = std::str::from_utf8(digits).ok();
            let text = text.filter(|text| text.len() <= CONTENT_LENGTH_DIGITS_MAX);
            text.and_then(|text| text.parse().ok()).map(BodyFraming::Length)
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && facts.is_newer => {
            Some(BodyFraming::Chunked)
        }
        _ => None,
    };
    match expected == Some(facts.framing) {
        true => Ok(()),
        false => Err(format!("{:?} instead of {expected:?}", facts.framing)),
    }
}

/// A request that was accepted, written by the book, is the same request.
fn write_anew(facts: &Facts, request: &Request, body: &[u8]) -> Result<(), String> {
    let mut anew =
        format!("{} {} {}\r\n", request.method, request.target, request.version).into_bytes();
    for (name, value) in &request.fields {
        anew.extend_from_slice(format!("{name}: ").as_bytes());
        anew.extend_from_slice(value);
        anew.extend_from_slice(b"\r\n");
    }
    anew.extend_from_slice(b"\r\n");
    if anew.len() > HEAD_BYTES_MAX {
        return Ok(());
    }
    let mut part = body.to_vec();
    if facts.framing == BodyFraming::Chunked {
        chunked::frame_last(&mut part);
    }
    anew.extend(part);
    let expected = [Said::Head(facts.clone()), Said::Body(body.to_vec())];
    match read([&anew[..]]) {
        said if said == expected => Ok(()),
        said => Err(format!("written anew: {said:?}, was {expected:?}")),
    }
}
