//! A connection on which several requests may be on their way, answered in order.
//!
//! The socket does not block: one thread looks at many of these. What is to be sent waits here until the
//! kernel takes it, what has come until an answer is whole.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::bench::reply::{self, ReplyError};
use crate::bench::request::Target;

/// A connection is made within this time.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How long [`Line::wait`] sleeps between two looks.
const LOOK_INTERVAL: Duration = Duration::from_micros(200);

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 * 1024;

/// A connection; `T` is what is known of each request.
pub struct Line<T> {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    body: Vec<u8>,
    asked: VecDeque<T>,
    moved_at: Instant,
    ended: bool,
}

/// An answer.
pub struct Answer<T> {
    /// What was asked.
    pub asked: T,
    /// Its status.
    pub status: u16,
    /// Its body, without framing.
    pub body: Vec<u8>,
    /// Its head.
    pub head: Vec<u8>,
}

impl<T> Line<T> {
    /// Connect.
    ///
    /// # Errors
    /// The kernel's.
    pub fn connect(target: &Target) -> io::Result<Line<T>> {
        let stream = TcpStream::connect_timeout(&target.address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Line {
            stream,
            output: Vec::new(),
            input: Vec::new(),
            body: Vec::new(),
            asked: VecDeque::new(),
            moved_at: Instant::now(),
            ended: false,
        })
    }

    /// Put a request behind what is to be sent.
    pub fn send(&mut self, bytes: &[u8], asked: T) {
        if self.asked.is_empty() {
            self.moved_at = Instant::now();
        }
        self.output.extend_from_slice(bytes);
        self.asked.push_back(asked);
    }

    /// Nothing is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// The server has ended it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// For so long nothing has moved although something is on its way.
    #[must_use]
    pub fn waited(&self) -> Duration {
        if self.asked.is_empty() { Duration::ZERO } else { self.moved_at.elapsed() }
    }

    /// Send and receive what the kernel takes and has: true if there was something.
    pub fn advance(&mut self) -> bool {
        let mut moved = false;
        while !self.output.is_empty() && !self.ended {
            match self.stream.write(&self.output) {
                Ok(count) => {
                    self.output.drain(..count);
                    moved = true;
                }
                Err(error) if is_later(&error) => break,
                // What it has answered before may still be read.
                Err(_) => self.output.clear(),
            }
        }
        let mut buffer = [0; READ_BYTES];
        while !self.ended {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.input.extend_from_slice(&buffer[..count]);
                    moved = true;
                }
                Err(error) if is_later(&error) => break,
                Err(_) => self.ended = true,
            }
        }
        if moved {
            self.moved_at = Instant::now();
        }
        moved
    }

    /// The next answer, if it is there.
    ///
    /// # Errors
    /// What came is no answer.
    pub fn answer(&mut self) -> Result<Option<Answer<T>>, ReplyError> {
        if self.asked.is_empty() || self.input.is_empty() {
            return Ok(None);
        }
        let Some(reply) = reply::parse(&self.input, &mut self.body)? else { return Ok(None) };
        let raw: Vec<u8> = self.input.drain(..reply.bytes).collect();
        let head_end = memchr::memmem::find(&raw, b"\r\n\r\n").map_or(raw.len(), |at| at + 4);
        Ok(Some(Answer {
            asked: self.asked.pop_front().expect("looked at above"),
            status: reply.status,
            body: std::mem::take(&mut self.body),
            head: raw[..head_end].to_vec(),
        }))
    }

    /// Wait for the next answer.
    ///
    /// # Errors
    /// A sentence: it did not come, or is none.
    pub fn wait(&mut self, patience: Duration) -> Result<Answer<T>, String> {
        loop {
            self.advance();
            if let Some(answer) = self.answer().map_err(|error| error.to_string())? {
                return Ok(answer);
            }
            if self.ended {
                return Err("the server ended the connection".to_owned());
            }
            if self.waited() > patience {
                return Err(format!("no answer in {} s", patience.as_secs()));
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Send only so much of what waits to be sent.
    pub fn cut(&mut self, bytes: usize) {
        self.output.truncate(bytes);
    }

    /// What has come and is no whole answer, and what it would have been an answer to.
    pub fn rest(&mut self) -> (Option<T>, Vec<u8>) {
        (self.asked.pop_front(), std::mem::take(&mut self.input))
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.output.len()
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
