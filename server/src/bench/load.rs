//! The closed loop: every connection sends its next request when its answer has arrived.
//!
//! Owns the connections and measures. So the load adapts to the server: `connections` requests are
//! under way at any time, never more, and a stalled server is asked less. The latencies say
//! how long those requests took; they do not say what clients that arrive at a fixed rate, whatever
//! the server does (an open loop), would have waited.
//!
//! What counts: a phase that runs for a time warms up first; every reply after that is counted,
//! also those that arrive after the time is over, when nothing new is sent. So no slow
//! reply is cut off, and the time measured ends with the last reply. Failed requests are counted
//! as errors, at all times, and are in neither rate nor latencies.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::progress::Progress;
use super::readiness::ReadySet;
use super::reply::{self, Reply};
use super::request::{Choice, Target, Template};

/// A server that takes no connection for so long is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// No reply on any connection for so long: the server hangs, and so would we.
pub(super) const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How often the loop looks up from its sockets when nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// First size of a connection's receive buffer: a usual reply is under 1 KiB.
const RECEIVE_BYTES: usize = 4 * 1024;

/// Bytes of a failed reply that are shown.
const EXCERPT_BYTES: usize = 300;

/// When a phase ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After a time; what happens during the warm-up is not measured.
    Elapsed {
        /// Comes first.
        warm_up: Duration,
        /// Comes then.
        measured: Duration,
    },
    /// After so many requests, each of which is measured.
    Requests(u64),
}

/// One run of one request template.
#[derive(Clone, Copy)]
pub struct Phase<'a> {
    /// What is shown while it runs.
    pub label: &'a str,
    /// Where the connections go.
    pub target: &'a Target,
    /// What they send.
    pub template: &'a Template,
    /// What the template's holes are filled with.
    pub choice: Choice,
    /// How many connections there are.
    pub connections: u32,
    /// How long it goes on.
    pub until: Until,
}

/// What a phase measured.
#[derive(Default)]
pub struct Outcome {
    /// Nanoseconds from the first byte written to the last byte read, of good replies.
    pub latencies: Histogram,
    /// Failed requests.
    pub errors: u64,
    /// What the first failed one said.
    pub first_error: Option<String>,
    /// From the end of the warm-up to the last reply.
    pub elapsed: Duration,
    /// Requests sent, of any result, warm-up included.
    pub sent: u64,
    /// Share of the phase that the load generator, or the server it started, was ready to run and
    /// had no core; the larger of both. Whoever runs the phase fills it in.
    pub core_wait_share: f64,
}

impl Outcome {
    /// Good replies per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.latencies.count() as f64 / seconds } else { 0.0 }
    }

    /// Counts a failure.
    pub fn fail(&mut self, reason: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(reason);
    }
}

/// Runs one phase to its end.
///
/// # Errors
/// The server takes no connections or does not reply any more. Failed requests are no such error:
/// they are counted.
pub fn run(phase: Phase<'_>, progress: &mut Progress) -> Result<Outcome, String> {
    let mut load = Load::open(phase)?;
    load.start(Instant::now())?;
    let mut ready = Vec::new();
    while load.in_flight > 0 {
        load.wait(&mut ready)?;
        for &key in &ready {
            load.on_ready(key)?;
        }
        let now = Instant::now();
        if now.duration_since(load.replied_at) > STALL_LIMIT {
            let limit = STALL_LIMIT.as_secs();
            return Err(format!("{}: no reply for {limit} s", phase.label));
        }
        progress.show(now, || load.progress_text(now));
    }
    progress.clear();
    let mut outcome = load.outcome;
    outcome.elapsed = load.replied_at.saturating_duration_since(load.measured_from);
    Ok(outcome)
}

struct Load<'a> {
    phase: Phase<'a>,
    connections: Vec<Connection>,
    ready_set: ReadySet,
    /// The body of the reply that is being looked at.
    body: Vec<u8>,
    outcome: Outcome,
    in_flight: usize,
    measured_from: Instant,
    /// Nothing is sent from here on; unused when requests are counted.
    stop_at: Instant,
    replied_at: Instant,
}

/// One keep-alive connection with at most one request under way.
pub(super) struct Connection {
    pub(super) stream: Option<TcpStream>,
    /// The template's bytes, patched for the request under way.
    pub(super) request: Vec<u8>,
    pub(super) written_bytes: usize,
    pub(super) received: Vec<u8>,
    pub(super) received_bytes: usize,
    pub(super) sent_at: Instant,
    pub(super) awaits_reply: bool,
}

impl<'a> Load<'a> {
    fn open(phase: Phase<'a>) -> Result<Self, String> {
        assert!(phase.connections > 0);
        let now = Instant::now();
        let mut load = Self {
            phase,
            connections: (0..phase.connections)
                .map(|_| Connection::new(phase.template, now))
                .collect(),
            ready_set: ReadySet::new().map_err(|error| format!("epoll: {error}"))?,
            body: Vec::new(),
            outcome: Outcome::default(),
            in_flight: 0,
            measured_from: now,
            stop_at: now,
            replied_at: now,
        };
        for key in 0..load.connections.len() {
            load.connect(key)?;
        }
        Ok(load)
    }

    /// The clock starts when all connections are open.
    fn start(&mut self, now: Instant) -> Result<(), String> {
        self.measured_from = now;
        self.replied_at = now;
        if let Until::Elapsed { warm_up, measured } = self.phase.until {
            self.measured_from = now + warm_up;
            self.stop_at = self.measured_from + measured;
        }
        for key in 0..self.connections.len() {
            self.send_next(key, now)?;
        }
        Ok(())
    }

    fn wait(&mut self, ready: &mut Vec<usize>) -> Result<(), String> {
        let streams = self.connections.iter().enumerate().filter_map(|(key, connection)| {
            let writes = connection.written_bytes < connection.request.len();
            connection.stream.as_ref().map(|stream| (key, stream, writes))
        });
        self.ready_set
            .wait(streams, TICK, ready)
            .map_err(|error| format!("waiting for replies: {error}"))
    }

    /// A connection has bytes for us, or room for ours, or has ended.
    fn on_ready(&mut self, key: usize) -> Result<(), String> {
        let connection = &mut self.connections[key];
        if !connection.awaits_reply {
            // Nothing was asked, so this can only be the end; the next request connects anew.
            connection.stream = None;
            return Ok(());
        }
        if connection.written_bytes < connection.request.len() {
            match connection.write() {
                Ok(false) => {}
                Ok(true) => self.set_writes(key, false)?,
                Err(error) => return self.on_broken(key, format!("sending failed: {error}")),
            }
        }
        match self.connections[key].read() {
            Ok(()) => self.on_bytes(key),
            Err(error) if is_later(&error) => Ok(()),
            Err(error) => self.on_broken(key, format!("receiving failed: {error}")),
        }
    }

    /// More of a reply has arrived, perhaps all of it.
    fn on_bytes(&mut self, key: usize) -> Result<(), String> {
        let connection = &mut self.connections[key];
        let received = &connection.received[..connection.received_bytes];
        match reply::parse(received, &mut self.body) {
            Ok(None) => Ok(()),
            Ok(Some(reply)) if reply.bytes == received.len() => self.on_reply(key, reply),
            Ok(Some(_)) => self.on_broken(key, "bytes after the reply's end".to_owned()),
            Err(error) => self.on_broken(key, error.to_string()),
        }
    }

    /// A whole reply has arrived.
    fn on_reply(&mut self, key: usize, reply: Reply) -> Result<(), String> {
        let now = Instant::now();
        let connection = &mut self.connections[key];
        assert!(connection.awaits_reply);
        if is_good(reply, &self.body, self.phase.template.reply_contains) {
            if now >= self.measured_from {
                let latency = now.duration_since(connection.sent_at).as_nanos();
                self.outcome.latencies.record(u64::try_from(latency).unwrap_or(u64::MAX));
            }
        } else {
            self.outcome.fail(|| failure_text(reply, &self.body));
        }
        if !reply.keeps_alive || connection.written_bytes < connection.request.len() {
            // Either side has ended the connection: the server in words, or by replying early.
            connection.stream = None;
        }
        self.finish(key, now)
    }

    /// The connection ended in the middle of a request.
    fn on_broken(&mut self, key: usize, reason: String) -> Result<(), String> {
        self.outcome.fail(|| reason);
        self.connections[key].stream = None;
        self.finish(key, Instant::now())
    }

    /// The request under way is over, well or badly.
    fn finish(&mut self, key: usize, now: Instant) -> Result<(), String> {
        let connection = &mut self.connections[key];
        assert!(connection.awaits_reply);
        connection.awaits_reply = false;
        connection.received_bytes = 0;
        assert!(self.in_flight > 0);
        self.in_flight -= 1;
        self.replied_at = now;
        self.send_next(key, now)
    }

    /// Sends the next request, if there is one. A connection that breaks at once costs an error
    /// and a request each time, so this ends with the phase.
    fn send_next(&mut self, key: usize, mut now: Instant) -> Result<(), String> {
        while self.goes_on(now) {
            if self.connections[key].stream.is_none() {
                self.connect(key)?;
                now = Instant::now();
            }
            let numbers = self.phase.choice.numbers(self.outcome.sent);
            self.outcome.sent += 1;
            let connection = &mut self.connections[key];
            self.phase.template.patch(&mut connection.request, numbers);
            connection.written_bytes = 0;
            connection.sent_at = now;
            match connection.write() {
                Ok(whole) => {
                    connection.awaits_reply = true;
                    self.in_flight += 1;
                    return if whole { Ok(()) } else { self.set_writes(key, true) };
                }
                Err(error) => {
                    connection.stream = None;
                    self.outcome.fail(|| format!("sending failed: {error}"));
                    now = Instant::now();
                }
            }
        }
        Ok(())
    }

    fn goes_on(&self, now: Instant) -> bool {
        match self.phase.until {
            Until::Elapsed { .. } => now < self.stop_at,
            Until::Requests(count) => self.outcome.sent < count,
        }
    }

    fn connect(&mut self, key: usize) -> Result<(), String> {
        let address = self.phase.target.address;
        self.connections[key].open(address, &mut self.ready_set, key).map_err(|error| {
            let label = self.phase.label;
            format!("{label}: cannot connect to {address} (connection {key}): {error}")
        })
    }

    fn set_writes(&mut self, key: usize, writes: bool) -> Result<(), String> {
        let stream = self.connections[key].stream.as_ref().expect("it was just written to");
        self.ready_set
            .set_writes(stream, key, writes)
            .map_err(|error| format!("waiting to send: {error}"))
    }

    fn progress_text(&self, now: Instant) -> String {
        let measured = now.saturating_duration_since(self.measured_from).as_secs_f64();
        let good = self.outcome.latencies.count();
        let label = self.phase.label;
        let errors = self.outcome.errors;
        match self.phase.until {
            Until::Elapsed { .. } if now < self.measured_from => format!("{label}: warming up"),
            Until::Elapsed { measured: of, .. } => {
                let rate = good as f64 / measured;
                let of = of.as_secs_f64();
                format!("{label}: {measured:.1} of {of:.1} s, {rate:.0}/s, {errors} errors")
            }
            Until::Requests(count) => format!("{label}: {good} of {count}, {errors} errors"),
        }
    }
}

impl Connection {
    /// Of a template, not connected yet.
    pub(super) fn new(template: &Template, now: Instant) -> Self {
        Self {
            stream: None,
            request: template.bytes().to_vec(),
            written_bytes: 0,
            received: vec![0; RECEIVE_BYTES],
            received_bytes: 0,
            sent_at: now,
            awaits_reply: false,
        }
    }

    /// Opens it for `key` of `ready_set`; nothing is to be written then.
    pub(super) fn open(
        &mut self,
        address: SocketAddr,
        ready_set: &mut ReadySet,
        key: usize,
    ) -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        ready_set.add(&stream, key)?;
        self.stream = Some(stream);
        self.written_bytes = self.request.len();
        self.received_bytes = 0;
        Ok(())
    }

    /// Writes what the socket takes; true when the request is sent.
    pub(super) fn write(&mut self) -> io::Result<bool> {
        let mut stream = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        while self.written_bytes < self.request.len() {
            match stream.write(&self.request[self.written_bytes..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.written_bytes += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads once: a reply usually comes whole, and a socket that has more is reported again.
    pub(super) fn read(&mut self) -> io::Result<()> {
        if self.received_bytes == self.received.len() {
            // `reply::parse` refuses what does not end within its bound.
            assert!(self.received.len() <= reply::REPLY_BYTES_MAX);
            self.received.resize(self.received.len() * 2, 0);
        }
        let mut stream = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        match stream.read(&mut self.received[self.received_bytes..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => {
                self.received_bytes += bytes;
                Ok(())
            }
        }
    }
}

/// Nothing to read yet, or a signal came in between: the socket is reported again.
pub(super) fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The server did what was asked: Hrana replies 200 to SQL that failed, and says so inside.
pub(super) fn is_good(reply: Reply, body: &[u8], contains: &str) -> bool {
    reply.status == 200
        && find(body, br#""type":"error""#).is_none()
        && find(body, contains.as_bytes()).is_some()
}

/// The beginning of a failed reply, on one line.
pub(super) fn failure_text(reply: Reply, body: &[u8]) -> String {
    let excerpt = String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES)]);
    let dots = if body.len() > EXCERPT_BYTES { "…" } else { "" };
    format!(
        "HTTP {}: {}{dots}",
        reply.status,
        excerpt.escape_debug().to_string().replace("\\\"", "\"")
    )
}

/// Where `needle` is first found. Bodies have a few hundred bytes: a search by first byte is fast
/// enough there.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let Some(&first) = needle.first() else {
        return Some(0);
    };
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|&byte| byte == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests;
