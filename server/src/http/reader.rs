//! The state machine that turns a connection's received bytes into requests.
//!
//! Owns the receive buffer. A request stands in it from position 0: head, body (chunks already
//! joined), then bytes of later requests. After warm-up a small request costs no allocation: the
//! buffer is lent to each receive, and keeps its capacity from request to request.
//!
//! Invariants: `head_end <= body_end <= buffer.len()`, and all are 0 while a head is awaited.

use super::chunked::{self, Decoder};
use super::head::{self, BodyFraming, Head, ParsedHead};
use crate::limits::{
    BODY_BYTES_MAX, HEAD_BYTES_MAX, LEADING_EMPTY_LINES_MAX, RECEIVE_BYTES, RECEIVE_BYTES_KEPT,
    TARGET_BYTES_MAX,
};
use crate::problem::Problem;

/// How far the request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Receive more, then advance again.
    NeedMore,
    /// The head is there; said once per request. Advance again for the body.
    Head,
    /// Head and body are there.
    Complete,
}

#[derive(Clone, Copy, Debug)]
enum State {
    AwaitHead {
        scanned_bytes: usize,
        in_target: bool,
    },
    Body {
        framing: Framing,
    },
    /// The body is taken away in pieces.
    Streaming {
        framing: Framing,
        left_bytes: u64,
    },
    Complete,
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum Framing {
    /// Head done, the body's limit may still change.
    Undecided,
    Length {
        body_bytes: usize,
    },
    Chunked(Decoder),
}

/// Reads the requests of one connection, one after the other.
#[derive(Debug)]
pub struct RequestReader {
    buffer: Vec<u8>,
    state: State,
    empty_lines: u32,
    head: Option<ParsedHead>,
    head_end: usize,
    body_end: usize,
    body_bytes_max: u64,
}

/// One complete request that has left its connection's reader, to live with its job.
#[derive(Debug)]
pub struct Request {
    buffer: Vec<u8>,
    head: ParsedHead,
    head_end: usize,
}

impl Request {
    /// The head.
    #[must_use]
    pub fn head(&self) -> Head<'_> {
        Head::new(&self.head, &self.buffer[..self.head_end])
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.buffer[self.head_end..]
    }

    /// Bytes of its buffer.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// The buffer, empty, for the next [`RequestReader::take`]; it has no body after that.
    #[must_use]
    pub fn take_buffer(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.head_end = 0;
        buffer.clear();
        buffer.shrink_to(RECEIVE_BYTES_KEPT);
        buffer
    }
}

impl Default for RequestReader {
    fn default() -> RequestReader {
        RequestReader::new(Vec::new())
    }
}

impl RequestReader {
    /// A reader for a new connection; `buffer` is empty, its capacity is used.
    ///
    /// # Panics
    /// If the buffer holds bytes.
    #[must_use]
    pub fn new(buffer: Vec<u8>) -> RequestReader {
        assert!(buffer.is_empty());
        RequestReader {
            buffer,
            state: State::AwaitHead { scanned_bytes: 0, in_target: true },
            empty_lines: 0,
            head: None,
            head_end: 0,
            body_end: 0,
            body_bytes_max: BODY_BYTES_MAX,
        }
    }

    /// The buffer for a receive, which appends to it; its spare capacity fits what is awaited. It
    /// grows with what has arrived, not with what a client announces.
    #[must_use]
    pub fn lend_buffer(&mut self) -> Vec<u8> {
        let growth_bytes = self.growth_bytes();
        if growth_bytes > 0 {
            self.buffer.reserve_exact(growth_bytes);
        }
        std::mem::take(&mut self.buffer)
    }

    /// Bytes by which the buffer will have to grow before it is lent.
    #[must_use]
    pub fn growth_bytes(&self) -> usize {
        if matches!(self.state, State::Streaming { .. }) {
            let free_bytes = self.buffer.capacity() - self.buffer.len();
            return if free_bytes < RECEIVE_BYTES { RECEIVE_BYTES_KEPT } else { 0 };
        }
        let missing_bytes = match self.state {
            State::Body { framing: Framing::Length { body_bytes } } => {
                (self.head_end + body_bytes).saturating_sub(self.buffer.len())
            }
            _ => RECEIVE_BYTES,
        };
        let growth_bytes = missing_bytes.min(self.buffer.len().max(RECEIVE_BYTES));
        let free_bytes = self.buffer.capacity() - self.buffer.len();
        if free_bytes < growth_bytes.clamp(1, RECEIVE_BYTES) { growth_bytes.max(1) } else { 0 }
    }

    /// The buffer comes back from a receive.
    ///
    /// # Panics
    /// If bytes of the request being read are missing.
    pub fn return_buffer(&mut self, buffer: Vec<u8>) {
        assert!(self.buffer.is_empty());
        assert!(buffer.len() >= self.body_end);
        self.buffer = buffer;
    }

    /// Append bytes, where they were not received into the lent buffer.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// No byte of a request has arrived: the connection is idle, and may be closed without harm.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.buffer.is_empty() && matches!(self.state, State::AwaitHead { .. })
    }

    /// Give back what an idle connection does not need for its next head.
    pub fn shrink_idle(&mut self) {
        if self.is_idle() {
            self.buffer.shrink_to(RECEIVE_BYTES);
        }
    }

    /// Bytes held for this connection, for its account.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes of the body that have arrived.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body_end - self.head_end
    }

    /// Limit this request's body; between `Progress::Head` and the next [`RequestReader::advance`].
    ///
    /// # Panics
    /// At any other time.
    pub fn limit_body(&mut self, body_bytes_max: u64) {
        assert!(matches!(self.state, State::Body { framing: Framing::Undecided }));
        self.body_bytes_max = body_bytes_max;
    }

    /// Let this request's body be taken in pieces ([`RequestReader::take_piece`]), up to so many bytes;
    /// between `Progress::Head` and the next [`RequestReader::advance`], which is not called any more.
    ///
    /// # Errors
    /// 413 if its head announces more. Answer it, and close.
    ///
    /// # Panics
    /// At any other time.
    pub fn stream_body(&mut self, body_bytes_max: u64) -> Result<(), Problem> {
        assert!(matches!(self.state, State::Body { framing: Framing::Undecided }));
        self.body_bytes_max = body_bytes_max;
        let left_bytes = match self.head().framing() {
            BodyFraming::Chunked => 0,
            BodyFraming::Length(bytes) if bytes > body_bytes_max => {
                self.state = State::Failed;
                return Err(chunked::body_too_large());
            }
            BodyFraming::Length(bytes) => bytes,
        };
        let framing = self.decide_framing()?;
        self.state = State::Streaming { framing, left_bytes };
        Ok(())
    }

    /// Move what has arrived of a streamed body to the end of `out`. True if that was all of it: then the
    /// request is complete, with an empty body here.
    ///
    /// # Errors
    /// As [`RequestReader::advance`].
    ///
    /// # Panics
    /// If the body is not streamed, or was complete before.
    pub fn take_piece(&mut self, out: &mut Vec<u8>) -> Result<bool, Problem> {
        let State::Streaming { mut framing, mut left_bytes } = self.state else {
            panic!("the body is not streamed")
        };
        let complete = match &mut framing {
            Framing::Chunked(decoder) => {
                decoder.decode(&mut self.buffer, &mut self.body_end).inspect_err(|problem| {
                    assert!(problem.close);
                    self.state = State::Failed;
                })?
            }
            _ => {
                let there_bytes = (self.buffer.len() - self.head_end) as u64;
                let piece_bytes = there_bytes.min(left_bytes);
                left_bytes -= piece_bytes;
                self.body_end = self.head_end + piece_bytes as usize;
                left_bytes == 0
            }
        };
        out.extend_from_slice(&self.buffer[self.head_end..self.body_end]);
        self.buffer.drain(self.head_end..self.body_end);
        self.body_end = self.head_end;
        self.state = match complete {
            true => State::Complete,
            false => State::Streaming { framing, left_bytes },
        };
        Ok(complete)
    }

    /// Go as far as the bytes allow. Two calls without a receive between them are needed for a
    /// request that arrived whole: one for the head, one for the body.
    ///
    /// # Errors
    /// The violation. Answer it, and close: later bytes have no meaning. The head stays readable
    /// if it was.
    ///
    /// # Panics
    /// If called after an error.
    pub fn advance(&mut self) -> Result<Progress, Problem> {
        let progress = self.advance_state();
        if let Err(problem) = &progress {
            assert!(problem.close);
            self.state = State::Failed;
        }
        progress
    }

    fn advance_state(&mut self) -> Result<Progress, Problem> {
        match self.state {
            State::AwaitHead { scanned_bytes, in_target } => {
                self.await_head(scanned_bytes, in_target)
            }
            State::Body { framing } => self.await_body(framing),
            State::Complete => Ok(Progress::Complete),
            State::Streaming { .. } => panic!("a streamed body is taken in pieces"),
            State::Failed => panic!("the connection has failed and must be closed"),
        }
    }

    fn await_head(&mut self, scanned: usize, in_target: bool) -> Result<Progress, Problem> {
        // What was scanned before an empty first line is at most its CR.
        let (scanned, in_target) = match self.skip_empty_lines()? {
            true => (0, true),
            false => (scanned, in_target),
        };
        let Scan { head_end, in_target } = scan(&self.buffer, scanned, in_target)?;
        let Some(head_end) = head_end else {
            let scanned_bytes = self.buffer.len();
            self.state = State::AwaitHead { scanned_bytes, in_target };
            return Ok(Progress::NeedMore);
        };
        self.head = Some(head::parse(&self.buffer[..head_end])?);
        self.head_end = head_end;
        self.body_end = head_end;
        self.body_bytes_max = BODY_BYTES_MAX;
        self.state = State::Body { framing: Framing::Undecided };
        Ok(Progress::Head)
    }

    /// True if there were any.
    fn skip_empty_lines(&mut self) -> Result<bool, Problem> {
        let before = self.empty_lines;
        while self.buffer.starts_with(b"\r\n") {
            self.empty_lines += 1;
            if self.empty_lines > LEADING_EMPTY_LINES_MAX {
                return Err(bad("there are empty lines before the request line"));
            }
            self.buffer.drain(..2);
        }
        Ok(self.empty_lines > before)
    }

    fn await_body(&mut self, framing: Framing) -> Result<Progress, Problem> {
        let mut framing = match framing {
            Framing::Undecided => self.decide_framing()?,
            decided => decided,
        };
        let complete = match &mut framing {
            Framing::Undecided => unreachable!("it was decided above"),
            Framing::Length { body_bytes } => {
                let end = self.head_end + *body_bytes;
                self.body_end = end.min(self.buffer.len());
                self.body_end == end
            }
            Framing::Chunked(decoder) => decoder.decode(&mut self.buffer, &mut self.body_end)?,
        };
        if complete {
            self.state = State::Complete;
            return Ok(Progress::Complete);
        }
        self.state = State::Body { framing };
        Ok(Progress::NeedMore)
    }

    fn decide_framing(&self) -> Result<Framing, Problem> {
        match self.head().framing() {
            BodyFraming::Chunked => Ok(Framing::Chunked(Decoder::new(self.body_bytes_max))),
            BodyFraming::Length(body_bytes) => {
                if body_bytes > self.body_bytes_max {
                    return Err(chunked::body_too_large());
                }
                let body_bytes = usize::try_from(body_bytes);
                let body_bytes = body_bytes.map_err(|_| chunked::body_too_large())?;
                Ok(Framing::Length { body_bytes })
            }
        }
    }

    /// A head was read, and its request has not been finished or taken.
    #[must_use]
    pub fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// The head.
    ///
    /// # Panics
    /// Before `Progress::Head`, see [`RequestReader::has_head`].
    #[must_use]
    pub fn head(&self) -> Head<'_> {
        let parsed = self.head.as_ref().expect("the head was announced");
        Head::new(parsed, &self.buffer[..self.head_end])
    }

    /// The whole body.
    ///
    /// # Panics
    /// Before `Progress::Complete`.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        assert!(matches!(self.state, State::Complete));
        &self.buffer[self.head_end..self.body_end]
    }

    /// Forget the complete request and start with the next one, whose bytes may be there already.
    ///
    /// # Panics
    /// Before `Progress::Complete`.
    pub fn finish(&mut self) {
        assert!(matches!(self.state, State::Complete));
        self.buffer.drain(..self.body_end);
        self.buffer.shrink_to(RECEIVE_BYTES_KEPT);
        *self = RequestReader::with_bytes(std::mem::take(&mut self.buffer));
    }

    /// Move the complete request out, and go on with the next one in `spare`, an empty buffer.
    ///
    /// # Panics
    /// Before `Progress::Complete`, or if `spare` holds bytes.
    #[must_use]
    pub fn take(&mut self, mut spare: Vec<u8>) -> Request {
        assert!(matches!(self.state, State::Complete));
        assert!(spare.is_empty());
        spare.extend_from_slice(&self.buffer[self.body_end..]);
        self.buffer.truncate(self.body_end);
        let request = Request {
            buffer: std::mem::take(&mut self.buffer),
            head: self.head.take().expect("a complete request has a head"),
            head_end: self.head_end,
        };
        *self = RequestReader::with_bytes(spare);
        request
    }

    fn with_bytes(buffer: Vec<u8>) -> RequestReader {
        RequestReader { buffer, ..RequestReader::default() }
    }
}

struct Scan {
    head_end: Option<usize>,
    in_target: bool,
}

/// Look for the empty line that ends a head, from `scanned` on, and refuse the line ends that
/// other parsers would read differently. `in_target`: the first line has not ended before.
fn scan(buffer: &[u8], scanned: usize, mut in_target: bool) -> Result<Scan, Problem> {
    if let Some(first) = buffer.first()
        && !matches!(first, b'\r' | b'A'..=b'Z' | b'a'..=b'z')
    {
        // Most likely TLS; waiting for a line end would only time out.
        return Err(bad("this is not an HTTP request"));
    }
    let check = |index: usize, in_target: bool| {
        if in_target && index > TARGET_BYTES_MAX + "OPTIONS  HTTP/1.1\r".len() {
            return Err(head::target_too_long());
        }
        if index >= HEAD_BYTES_MAX { Err(head::head_too_large()) } else { Ok(()) }
    };
    let mut from = scanned - usize::from(buffer[..scanned].ends_with(b"\r"));
    while let Some(found) = memchr::memchr2(b'\r', b'\n', &buffer[from..]) {
        let found = from + found;
        check(found, in_target)?;
        if buffer[found] == b'\n' {
            return Err(bad("a line feed without a carriage return"));
        }
        let Some(&next) = buffer.get(found + 1) else {
            return Ok(Scan { head_end: None, in_target });
        };
        check(found + 1, in_target)?;
        if next != b'\n' {
            return Err(bad("a carriage return without a line feed"));
        }
        in_target = false;
        from = found + 2;
        if buffer[..from].ends_with(b"\r\n\r\n") {
            return Ok(Scan { head_end: Some(from), in_target });
        }
    }
    check(buffer.len().saturating_sub(1), in_target)?;
    Ok(Scan { head_end: None, in_target })
}

fn bad(text: &'static str) -> Problem {
    Problem::protocol(400, "HTTP_BAD_REQUEST", text)
}
