//! Several kinds of clients at once: parties, each with requests, connections and a pace of its own.
//!
//! Owns who sends when. A party in a *closed loop* sends when the last answer has arrived; a *paced*
//! one at fixed times on each of its connections, whatever the server does (an open loop), and its
//! latencies count from the time at which a request was meant to leave: a late answer so delays no
//! question. For that the loop does not sleep while something is due within [`SPIN`].
//!
//! What is asked of an administrator (use, metrics) is a paced party too, whose replies are kept.
//! After the time is over nothing is sent, and what is under way is waited for.

use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::load::{self, Connection, STALL_LIMIT};
use super::progress::Progress;
use super::readiness::ReadySet;
use super::reply::{self, Reply};
use super::request::{Choice, Target, Template};

/// Sleeping wakes up to this late (the kernel rounds up to milliseconds), so it does not begin.
const SPIN: Duration = Duration::from_millis(2);

/// How often the loop looks up when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// When a connection sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When the last answer has arrived.
    Closed,
    /// At fixed times, those of a party's connections evenly spread.
    Every(Duration),
}

/// Clients of one kind.
#[derive(Clone)]
pub struct Party {
    /// What it is called in tables.
    pub name: &'static str,
    /// Where it goes.
    pub target: Target,
    /// What it sends.
    pub template: Template,
    /// What fills the holes; a connection's requests are those of its number, and each
    /// `connections`th from there: as many databases as connections means one each.
    pub choice: Choice,
    /// Connections, at least one.
    pub connections: u32,
    /// When they send.
    pub pace: Pace,
    /// Keep the bodies of good replies.
    pub keeps: bool,
}

/// What became of a party's requests, those of the warm-up left out.
#[derive(Default)]
pub struct Tally {
    /// Nanoseconds of good replies.
    pub latencies: Histogram,
    /// The same by window, of those who send at fixed times.
    pub windows: Windows,
    /// Requests sent, those of the warm-up too.
    pub sent: u64,
    /// Replies with 429 or 503.
    pub refused: u64,
    /// Other replies that are not good, and broken connections.
    pub failed: u64,
    /// The first of either, in words.
    pub first_error: Option<String>,
    /// Good replies' bodies and when they came, from the start on, where they are kept.
    pub kept: Vec<(Duration, Vec<u8>)>,
}

/// Latencies window by window. The machine may stop a process for some milliseconds once or twice a second:
/// that moves the quantiles of a run, but not those of most windows.
#[derive(Default)]
pub struct Windows {
    number: u128,
    values: Vec<u64>,
    high: Vec<u64>,
}

impl Windows {
    /// Long enough for some hundred requests, short enough to lie between two stops.
    pub const LENGTH: Duration = Duration::from_millis(100);

    fn record(&mut self, since_start: Duration, value: u64) {
        let number = since_start.as_nanos() / Self::LENGTH.as_nanos();
        if number != self.number {
            self.end();
            self.number = number;
        }
        self.values.push(value);
    }

    fn end(&mut self) {
        self.values.sort_unstable();
        let rank = (self.values.len() * 99).div_ceil(100);
        self.high.extend(rank.checked_sub(1).map(|index| self.values[index]));
        self.values.clear();
    }

    /// The 99th percentile of the median window, in nanoseconds; 0 without any.
    #[must_use]
    pub fn median_high(&self) -> u64 {
        let mut high = self.high.clone();
        high.sort_unstable();
        high.get(high.len() / 2).copied().unwrap_or(0)
    }
}

/// What a run measured.
pub struct Outcome {
    /// One a party, in their order.
    pub tallies: Vec<Tally>,
    /// From the end of the warm-up until nothing more was sent.
    pub elapsed: Duration,
}

impl Outcome {
    /// Add what another run of the same parties measured.
    pub fn add(&mut self, other: Outcome) {
        for (tally, more) in self.tallies.iter_mut().zip(other.tallies) {
            tally.latencies.add(&more.latencies);
            tally.windows.high.extend(more.windows.high);
            tally.sent += more.sent;
            tally.refused += more.refused;
            tally.failed += more.failed;
            tally.first_error = tally.first_error.take().or(more.first_error);
            tally.kept.extend(more.kept);
        }
        self.elapsed += other.elapsed;
    }

    /// Good replies per second of party `index`. Those that came after the end are counted, too.
    #[must_use]
    pub fn per_second(&self, index: usize) -> f64 {
        self.tallies[index].latencies.count() as f64 / self.elapsed.as_secs_f64()
    }
}

/// A connection and its times.
struct Seat {
    party: usize,
    connection: Connection,
    /// Numbers of its requests; the next one.
    sequence: u64,
    /// When its next request leaves; of a closed loop, when the last was answered.
    due: Instant,
}

struct Crowd<'a> {
    label: &'a str,
    parties: &'a [Party],
    seats: Vec<Seat>,
    ready_set: ReadySet,
    body: Vec<u8>,
    tallies: Vec<Tally>,
    in_flight: usize,
    started: Instant,
    measured_from: Instant,
    stop_at: Instant,
    replied_at: Instant,
}

/// Runs all parties together for a time.
///
/// # Errors
/// The server takes no connections, or does not reply any more.
pub fn run(
    label: &str,
    parties: &[Party],
    (warm_up, measured): (Duration, Duration),
    progress: &mut Progress,
) -> Result<Outcome, String> {
    let mut crowd = Crowd::open(label, parties, warm_up, measured)?;
    let mut ready = Vec::new();
    loop {
        let now = Instant::now();
        crowd.send_due(now)?;
        if now >= crowd.stop_at && crowd.in_flight == 0 {
            break;
        }
        if crowd.in_flight > 0 && now.duration_since(crowd.replied_at) > STALL_LIMIT {
            return Err(format!("{label}: no reply for {} s", STALL_LIMIT.as_secs()));
        }
        progress.show(now, || {
            let (seconds, of) = (now.duration_since(crowd.started), warm_up + measured);
            format!("{label}: {:.1} of {:.1} s", seconds.as_secs_f64(), of.as_secs_f64())
        });
        crowd.wait(now, &mut ready)?;
        for &key in &ready {
            crowd.on_ready(key)?;
        }
    }
    progress.clear();
    Ok(Outcome { tallies: crowd.tallies, elapsed: measured })
}

impl<'a> Crowd<'a> {
    fn open(
        label: &'a str,
        parties: &'a [Party],
        warm_up: Duration,
        measured: Duration,
    ) -> Result<Self, String> {
        let now = Instant::now();
        let mut crowd = Self {
            label,
            parties,
            seats: Vec::new(),
            ready_set: ReadySet::new().map_err(|error| format!("epoll: {error}"))?,
            body: Vec::new(),
            tallies: parties.iter().map(|_| Tally::default()).collect(),
            in_flight: 0,
            started: now,
            measured_from: now,
            stop_at: now,
            replied_at: now,
        };
        for (index, party) in parties.iter().enumerate() {
            assert!(party.connections > 0);
            for number in 0..party.connections {
                let connection = Connection::new(&party.template, now);
                let sequence = u64::from(number);
                crowd.seats.push(Seat { party: index, connection, sequence, due: now });
                crowd.connect(crowd.seats.len() - 1)?;
            }
        }
        crowd.started = Instant::now();
        crowd.replied_at = crowd.started;
        crowd.measured_from = crowd.started + warm_up;
        crowd.stop_at = crowd.measured_from + measured;
        for seat in &mut crowd.seats {
            let party = &parties[seat.party];
            seat.due = crowd.started;
            if let Pace::Every(interval) = party.pace {
                // A seat's first sequence is its number in the party.
                let number = u32::try_from(seat.sequence).expect("it came from one");
                seat.due += interval * number / party.connections;
            }
        }
        Ok(crowd)
    }

    fn connect(&mut self, key: usize) -> Result<(), String> {
        let seat = &mut self.seats[key];
        let party = &self.parties[seat.party];
        let address = party.target.address;
        seat.connection.open(address, &mut self.ready_set, key).map_err(|error| {
            format!("{}: {}: cannot connect to {address}: {error}", self.label, party.name)
        })
    }

    /// Sends whatever may leave by now.
    fn send_due(&mut self, now: Instant) -> Result<(), String> {
        if now >= self.stop_at {
            return Ok(());
        }
        for key in 0..self.seats.len() {
            if !self.seats[key].connection.awaits_reply && self.seats[key].due <= now {
                self.send(key)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, key: usize) -> Result<(), String> {
        if self.seats[key].connection.stream.is_none() {
            self.connect(key)?;
        }
        let seat = &mut self.seats[key];
        let party = &self.parties[seat.party];
        let connection = &mut seat.connection;
        party.template.patch(&mut connection.request, party.choice.numbers(seat.sequence));
        seat.sequence += u64::from(party.connections);
        self.tallies[seat.party].sent += 1;
        connection.sent_at = match party.pace {
            Pace::Closed => Instant::now(),
            Pace::Every(_) => seat.due,
        };
        if let Pace::Every(interval) = party.pace {
            seat.due += interval;
        }
        connection.written_bytes = 0;
        connection.awaits_reply = true;
        self.in_flight += 1;
        match connection.write() {
            Ok(true) => Ok(()),
            Ok(false) => self.set_writes(key, true),
            Err(error) => self.on_broken(key, format!("sending failed: {error}")),
        }
    }

    /// Waits for replies, and no longer than until something is due.
    fn wait(&mut self, now: Instant, ready: &mut Vec<usize>) -> Result<(), String> {
        let idle = self.seats.iter().filter(|seat| !seat.connection.awaits_reply);
        let due = idle.map(|seat| seat.due).filter(|_| now < self.stop_at).min();
        let timeout = due.map_or(TICK, |due| due.saturating_duration_since(now));
        let timeout = if timeout < SPIN { Duration::ZERO } else { (timeout - SPIN).min(TICK) };
        let streams = self.seats.iter().enumerate().filter_map(|(key, seat)| {
            let connection = &seat.connection;
            let writes = connection.written_bytes < connection.request.len();
            connection.stream.as_ref().map(|stream| (key, stream, writes))
        });
        self.ready_set
            .wait(streams, timeout, ready)
            .map_err(|error| format!("waiting for replies: {error}"))
    }

    fn on_ready(&mut self, key: usize) -> Result<(), String> {
        let connection = &mut self.seats[key].connection;
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
        let connection = &mut self.seats[key].connection;
        match connection.read() {
            Ok(()) => {}
            Err(error) if load::is_later(&error) => return Ok(()),
            Err(error) => return self.on_broken(key, format!("receiving failed: {error}")),
        }
        let received = &connection.received[..connection.received_bytes];
        match reply::parse(received, &mut self.body) {
            Ok(None) => Ok(()),
            Ok(Some(reply)) if reply.bytes == received.len() => {
                self.on_reply(key, reply);
                Ok(())
            }
            Ok(Some(_)) => self.on_broken(key, "bytes after the reply's end".to_owned()),
            Err(error) => self.on_broken(key, error.to_string()),
        }
    }

    fn on_reply(&mut self, key: usize, reply: Reply) {
        let now = Instant::now();
        let seat = &mut self.seats[key];
        let party = &self.parties[seat.party];
        let connection = &mut seat.connection;
        if !reply.keeps_alive || connection.written_bytes < connection.request.len() {
            connection.stream = None;
        }
        let tally = &mut self.tallies[seat.party];
        if now < self.measured_from {
            // What happens in the warm-up is not measured.
        } else if load::is_good(reply, &self.body, party.template.reply_contains) {
            let latency = now.duration_since(connection.sent_at).as_nanos();
            let latency = u64::try_from(latency).unwrap_or(u64::MAX);
            tally.latencies.record(latency);
            if matches!(party.pace, Pace::Every(_)) {
                tally.windows.record(now.duration_since(self.started), latency);
            }
            if party.keeps {
                tally.kept.push((now.duration_since(self.started), self.body.clone()));
            }
        } else {
            let refused = matches!(reply.status, 429 | 503);
            *(if refused { &mut tally.refused } else { &mut tally.failed }) += 1;
            tally.first_error.get_or_insert_with(|| load::failure_text(reply, &self.body));
        }
        self.finish(key, now);
    }

    fn on_broken(&mut self, key: usize, reason: String) -> Result<(), String> {
        let now = Instant::now();
        let seat = &mut self.seats[key];
        seat.connection.stream = None;
        if now >= self.measured_from {
            let tally = &mut self.tallies[seat.party];
            tally.failed += 1;
            tally.first_error.get_or_insert(reason);
        }
        self.finish(key, now);
        Ok(())
    }

    fn finish(&mut self, key: usize, now: Instant) {
        let seat = &mut self.seats[key];
        assert!(seat.connection.awaits_reply && self.in_flight > 0);
        seat.connection.awaits_reply = false;
        seat.connection.received_bytes = 0;
        if self.parties[seat.party].pace == Pace::Closed {
            seat.due = now;
        }
        self.in_flight -= 1;
        self.replied_at = now;
    }

    fn set_writes(&mut self, key: usize, writes: bool) -> Result<(), String> {
        let stream = self.seats[key].connection.stream.as_ref().expect("it was just written to");
        self.ready_set
            .set_writes(stream, key, writes)
            .map_err(|error| format!("waiting to send: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_in_one_window() {
        let mut windows = Windows::default();
        assert_eq!(windows.median_high(), 0);
        for number in 0..5_u32 {
            for value in 1..=200 {
                let slow = if number == 2 { 1_000_000 } else { 0 };
                windows.record(Windows::LENGTH * number, value + slow);
            }
        }
        windows.end();
        assert_eq!(windows.high, [198, 198, 1_000_198, 198, 198]);
        assert_eq!(windows.median_high(), 198);
    }
    use crate::bench::request::Order;
    use crate::bench::responder::{Answer, Responder, plain};

    fn party(name: &'static str, responder: &Responder, path: &str, pace: Pace) -> Party {
        let target = Target::resolve(&responder.url(), None).unwrap();
        let template = Template::new(&target, "POST", path, "x", "ok");
        let choice = Choice { order: Order::Sequential, tenants: 3, rows: 1 };
        Party { name, target, template, choice, connections: 3, pace, keeps: name == "paced" }
    }

    #[test]
    fn parties_keep_their_pace_and_their_databases() {
        let responder = Responder::start(|head, _| {
            let refused = head.contains("/closed");
            let status = if refused { "429 Too Many Requests" } else { "200 OK" };
            Answer::Bytes(plain(status, "ok"), 1_000)
        });
        let interval = Duration::from_millis(10);
        let parties = [
            party("paced", &responder, "/TENANT__", Pace::Every(interval)),
            party("closed", &responder, "/closed", Pace::Closed),
        ];
        let times = (Duration::ZERO, Duration::from_millis(100));
        let outcome = run("test", &parties, times, &mut Progress::new()).unwrap();
        let [paced, closed] = &outcome.tallies[..] else { panic!("two parties") };
        // Each of three connections at 0, 10, … 90 ms, however late; the last may not have left,
        // several on a busy machine.
        assert!((20..=30).contains(&paced.latencies.count()), "{}", paced.latencies.count());
        assert_eq!((paced.refused, paced.failed), (0, 0));
        assert_eq!(paced.kept.len() as u64, paced.latencies.count());
        assert!(paced.kept.iter().all(|(_, body)| body == b"ok"));
        assert!(closed.refused > 0 && closed.latencies.count() == 0 && closed.failed == 0);
        assert_eq!(closed.first_error.as_deref(), Some("HTTP 429: ok"));
        let lines = responder.first_lines();
        for tenant in 0..3 {
            let line = format!("POST /{tenant:08} HTTP/1.1");
            let count = lines.iter().filter(|seen| **seen == line).count();
            assert!((9..=10).contains(&count), "{line}: {count}");
        }
    }

    #[test]
    fn broken_connections_are_failures() {
        let responder = Responder::start(|_, _| Answer::Last(b"HTTP/1.1 200 OK\r\n".to_vec()));
        let parties = [party("broken", &responder, "/", Pace::Every(Duration::from_millis(5)))];
        let times = (Duration::ZERO, Duration::from_millis(20));
        let outcome = run("test", &parties, times, &mut Progress::new()).unwrap();
        let tally = &outcome.tallies[0];
        assert!(tally.failed > 0 && tally.latencies.count() == 0 && tally.refused == 0);
        assert_eq!(tally.first_error.as_deref(), Some("receiving failed: unexpected end of file"));
    }
}
