//! Strangers: hostile and clumsy clients beside those of the model.
//!
//! Owns who they are, their connections and the judgement of what they get. What a visit consists
//! of is `plan`'s, the broken requests are `malformed`'s. The fault model:
//!
//! - 0 to 8 strangers, none in half of the seeds; each makes one visit after the other, 1 ms to
//!   10 s apart, while the model's clients work: malformed requests, bytes sent or taken one by
//!   one, half-close, clients that vanish or reset in the middle, up to 50 requests at once, 1,000
//!   connects in a moment, retries, batons used twice or for another database.
//! - Expected of the server: the right refusal in the one error shape, or the close that the limits
//!   promise; a half-closed request is answered; never a 500 that no other fault explains (HTTP-1).
//!   A connection lives no longer than its limits, and when all have left, none remains (NET-1).
//! - They work on databases of their own, or on none: nothing that the model knows may change.
//!   No answer to them holds a row of the model's (TEN-1).
//! - Outside of the model: TLS, HTTP/2, bytes that are valid on purpose to exhaust SQL's budgets.
//!
//! That a connection may end without the answer that is due is excused by faults that were counted
//! while it lived; see `EXCUSES`.

mod malformed;
mod plan;

use std::collections::BTreeMap;

use serde_json::Value;
use server::limits::BODY_PATIENCE_NS;
use storage::io::{Clock, Instant};

use super::Sim;
use super::model::Violation;
use super::options::Options;
use crate::client::{Response, ResponseError, ResponseReader};
use crate::draws::{Span, Stream};
use crate::faults::FaultKind;
use crate::network::{ClientSocket, Wake};
use plan::{Ending, Expected, Pace, Plan};

/// Number of the first stranger in timers; the model's clients are far below.
const FIRST_ID: u64 = 1 << 20;

const TIMER_BITS: u32 = 32;

/// Time between two visits.
const PAUSE_NS: Span = Span::new(1_000_000, 10_000_000_000);

/// Visits of one stranger: some are a thousand connections, and a quiet world lasts for days.
const VISITS_MAX: u64 = 20;

/// Longest wait for an answer that is due, awake; as for the model's clients.
const PATIENCE_NS: u64 = super::books::ANSWER_NS_MAX;

/// How much later than its limit a connection may be seen to end: the way there and back, and what
/// keeps the server busy.
const SLACK_NS: u64 = 20_000_000_000;

/// Times that a stranger asks again.
const RETRIES_MAX: usize = 5;

/// Bytes that a stranger takes at a time.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Faults that explain a connection's end without an answer, if one was counted while it lived.
const EXCUSES: [FaultKind; 8] = [
    FaultKind::Kill,
    FaultKind::PowerLoss,
    FaultKind::CleanStop,
    FaultKind::Reset,
    FaultKind::HalfOpen,
    FaultKind::AcceptError,
    FaultKind::Clog,
    FaultKind::ClockJump,
];

fn excuses(sim: &Sim) -> u64 {
    EXCUSES.iter().map(|kind| sim.fault_counts().of(*kind).injected).sum()
}

/// All strangers of a world.
#[derive(Default)]
pub struct Strangers {
    list: Vec<Stranger>,
    routes: BTreeMap<ClientSocket, usize>,
    leaving: bool,
}

impl Strangers {
    /// As many as the options say; each begins soon.
    pub fn new(sim: &mut Sim, options: &Options) -> Strangers {
        let mut strangers = Strangers::default();
        for number in 0..options.strangers {
            let id = FIRST_ID + number as u64;
            let mut stranger =
                Stranger { id, number, timer: 0, timer_at: Instant(0), visits: 0, visit: None };
            stranger.pause(sim);
            strangers.list.push(stranger);
        }
        strangers
    }

    /// Take a wake that is a stranger's.
    ///
    /// # Errors
    /// If the server did what it must not.
    pub fn heed(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        wake: Wake,
    ) -> Result<bool, Violation> {
        let (index, socket) = match wake {
            Wake::Timer(tag) => {
                let Some(number) = (tag >> TIMER_BITS).checked_sub(FIRST_ID) else {
                    return Ok(false);
                };
                let index = number as usize;
                if self.leaving || self.list[index].timer != tag as u32 {
                    return Ok(true);
                }
                (index, None)
            }
            Wake::Connected(socket)
            | Wake::Refused(socket)
            | Wake::Readable(socket)
            | Wake::Writable(socket) => {
                let Some(&index) = self.routes.get(&socket) else { return Ok(false) };
                (index, Some(socket))
            }
        };
        let stranger = &mut self.list[index];
        match socket {
            None => stranger.on_timer(sim, options)?,
            Some(socket) => stranger.on_socket(sim, options, socket, wake)?,
        }
        self.route(index);
        Ok(true)
    }

    /// Bring the routes up to date with a stranger's connections.
    fn route(&mut self, index: usize) {
        let stranger = &mut self.list[index];
        let Some(visit) = &mut stranger.visit else {
            self.routes.retain(|_, stranger| *stranger != index);
            return;
        };
        for link in &mut visit.links[visit.routed..] {
            self.routes.insert(link.socket, index);
        }
        visit.routed = visit.links.len();
    }

    /// The world's work is done: everybody goes, half of them without a word.
    pub fn leave(&mut self, sim: &mut Sim) {
        self.leaving = true;
        self.routes.clear();
        for stranger in &mut self.list {
            if let Some(visit) = stranger.visit.take() {
                stranger.drop_links(sim, visit);
            }
        }
    }

    /// Visits so far.
    pub fn visits(&self) -> u64 {
        self.list.iter().map(|stranger| stranger.visits).sum()
    }
}

struct Stranger {
    id: u64,
    number: usize,
    /// Timers with an older number mean nothing.
    timer: u32,
    timer_at: Instant,
    visits: u64,
    visit: Option<Visit>,
}

struct Visit {
    plan: Plan,
    links: Vec<Link>,
    /// How many of them have routes.
    routed: usize,
    /// On the clock that does not count sleep.
    began: Instant,
}

struct Link {
    socket: ClientSocket,
    connected: bool,
    rest: Vec<u8>,
    /// Bytes that are still sent; the ending comes then.
    cut: usize,
    reader: ResponseReader,
    answered: usize,
    first_byte: Option<Instant>,
    next_write: Instant,
    next_read: Instant,
    excuses: u64,
    ending_done: bool,
    over: bool,
}

impl Stranger {
    fn database(&self) -> String {
        format!("stranger-{}", self.number)
    }

    fn pause(&mut self, sim: &mut Sim) {
        let pause = sim.draws_mut().logarithmic(Stream::Stranger, self.id, PAUSE_NS);
        let at = sim.now().after(pause);
        self.set_timer(sim, at);
    }

    fn set_timer(&mut self, sim: &mut Sim, at: Instant) {
        self.timer = self.timer.wrapping_add(1);
        self.timer_at = at;
        sim.wake_at(at, self.id << TIMER_BITS | u64::from(self.timer));
    }

    fn on_timer(&mut self, sim: &mut Sim, options: &Options) -> Result<(), Violation> {
        let Some(mut visit) = self.visit.take() else {
            self.begin(sim, options);
            return Ok(());
        };
        for at in 0..visit.links.len() {
            visit.advance(sim, options, self.number, at)?;
        }
        visit.judge_times(sim, self.number)?;
        visit.retry(sim);
        self.go_on(sim, visit);
        Ok(())
    }

    fn on_socket(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        socket: ClientSocket,
        wake: Wake,
    ) -> Result<(), Violation> {
        let Some(mut visit) = self.visit.take() else { return Ok(()) };
        let found = visit.links.binary_search_by_key(&socket, |link| link.socket);
        let at = found.expect("a routed socket is a link's");
        match wake {
            Wake::Refused(_) => visit.links[at].over = true,
            Wake::Connected(_) => visit.links[at].connected = true,
            _ => {}
        }
        visit.advance(sim, options, self.number, at)?;
        if visit.is_over() {
            self.go_on(sim, visit);
            return Ok(());
        }
        let next = visit.next_timer(sim);
        if next < self.timer_at {
            self.set_timer(sim, next);
        }
        self.visit = Some(visit);
        Ok(())
    }

    fn begin(&mut self, sim: &mut Sim, options: &Options) {
        let database = self.database();
        let first = self.visits == 0 && !options.create_on_first_use;
        self.visits += 1;
        let plan = match first {
            true => Plan::create(&database),
            false => Plan::draw(sim.draws_mut(), self.id, &database),
        };
        sim.trace_mut().remark(|| format!("stranger {} begins: {}", self.number, plan.name));
        if let Some(kind) = plan.kind {
            sim.injected(kind, self.id);
        }
        let links = plan.links;
        let began = sim.awake();
        let mut visit = Visit { plan, links: Vec::new(), routed: 0, began };
        for _ in 0..links {
            visit.connect(sim);
        }
        self.go_on(sim, visit);
    }

    /// The visit goes on until its next timer, or is over.
    fn go_on(&mut self, sim: &mut Sim, visit: Visit) {
        let stayed = sim.awake().since(visit.began);
        let leaves = visit.plan.stay_ns.is_some_and(|stay| stayed >= stay);
        if visit.is_over() || leaves {
            self.drop_links(sim, visit);
            if self.visits < VISITS_MAX {
                self.pause(sim);
            }
            return;
        }
        let at = visit.next_timer(sim);
        self.set_timer(sim, at);
        self.visit = Some(visit);
    }

    /// Let go of all connections, one way or another.
    fn drop_links(&mut self, sim: &mut Sim, visit: Visit) {
        for link in visit.links.iter().filter(|link| !link.over) {
            match sim.draws_mut().below(Stream::Stranger, self.id, 4) {
                0 => sim.client_vanish(link.socket),
                1 => sim.client_reset(link.socket),
                _ => sim.client_close(link.socket),
            }
        }
    }
}

impl Visit {
    fn connect(&mut self, sim: &mut Sim) {
        let socket = sim.client_connect(self.plan.address.parse().expect("an address"));
        let now = sim.now();
        let mut reader = ResponseReader::default();
        self.plan.answers.iter().for_each(|_| reader.expect(false));
        let next_read = match self.plan.read {
            Pace::After(pause) => now.after(pause),
            Pace::AtOnce | Pace::ByteEvery(_) => now,
        };
        self.links.push(Link {
            socket,
            connected: false,
            rest: self.plan.bytes.clone(),
            cut: self.plan.cut,
            reader,
            answered: 0,
            first_byte: None,
            next_write: now,
            next_read,
            excuses: excuses(sim),
            ending_done: false,
            over: false,
        });
    }

    fn is_over(&self) -> bool {
        self.links.iter().all(|link| link.over)
    }

    /// When the stranger looks at it again, if nothing happens.
    fn next_timer(&self, sim: &Sim) -> Instant {
        let now = sim.now();
        let mut at = now.after(PATIENCE_NS / 8);
        for link in self.links.iter().filter(|link| !link.over && link.connected) {
            if matches!(self.plan.write, Pace::ByteEvery(_)) && link.cut > 0 {
                at = at.min(link.next_write);
            }
            if self.plan.read != Pace::AtOnce && link.next_read > now {
                at = at.min(link.next_read);
            }
        }
        let stayed = sim.awake().since(self.began);
        for limit in [self.plan.stay_ns, self.plan.retry_ns].into_iter().flatten() {
            if limit > stayed {
                at = at.min(now.after(limit - stayed));
            }
        }
        if let Some(retry) = self.plan.retry_ns
            && self.links.len() <= RETRIES_MAX
        {
            at = at.min(now.after(retry));
        }
        at.max(now.after(1))
    }

    /// Send and take what may be sent and taken now.
    fn advance(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        number: usize,
        at: usize,
    ) -> Result<(), Violation> {
        let link = &mut self.links[at];
        if link.over || !link.connected {
            return Ok(());
        }
        link.write(sim, self.plan.write);
        if link.cut == 0 && !std::mem::replace(&mut link.ending_done, true) {
            match self.plan.ending {
                Ending::Stay => {}
                Ending::HalfClose => sim.client_shutdown(link.socket),
                Ending::Vanish => sim.client_vanish(link.socket),
                Ending::Reset => sim.client_reset(link.socket),
            }
            link.over = matches!(self.plan.ending, Ending::Vanish | Ending::Reset);
        }
        while !self.links[at].over && self.links[at].may_read(sim, self.plan.read) {
            if !self.take(sim, options, number, at)? {
                break;
            }
        }
        let link = &mut self.links[at];
        let said_all = self.plan.stay_ns.is_none() && !self.plan.answers.is_empty();
        if !link.over && said_all && link.answered == self.plan.answers.len() && link.cut == 0 {
            sim.client_close(link.socket);
            link.over = true;
        }
        Ok(())
    }

    /// Receive once; whether there may be more.
    fn take(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        number: usize,
        at: usize,
    ) -> Result<bool, Violation> {
        let link = &mut self.links[at];
        let limit = match self.plan.read {
            Pace::ByteEvery(pause) => {
                link.next_read = sim.now().after(pause);
                1
            }
            Pace::AtOnce | Pace::After(_) => RECEIVE_BYTES,
        };
        let mut ended = false;
        match sim.client_receive(link.socket, limit) {
            Ok(bytes) if bytes.is_empty() => {
                ended = true;
                link.reader.end();
            }
            Ok(bytes) => link.reader.push(&bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
            Err(_) => {
                self.lose(sim, number, at)?;
                return Ok(false);
            }
        }
        while !self.links[at].over {
            match self.links[at].reader.next_response() {
                Ok(Some(response)) => self.answered(sim, options, number, at, &response)?,
                Ok(None) => break,
                Err(ResponseError::Truncated) if ended => break,
                Err(error) => return Err(self.violation("HTTP-1", number, &error.to_string())),
            }
        }
        if ended && !self.links[at].over {
            self.lose(sim, number, at)?;
        }
        Ok(!ended)
    }

    /// The connection has ended before all answers were there.
    fn lose(&mut self, sim: &mut Sim, number: usize, at: usize) -> Result<(), Violation> {
        let link = &mut self.links[at];
        sim.client_close(link.socket);
        link.over = true;
        let missing = link.answered < self.plan.answers.len();
        // On a slow network even a willing client may not bring its body in time.
        let late = sim.awake().since(self.began) >= BODY_PATIENCE_NS;
        if missing && !late && self.plan.must_answer && link.excuses == excuses(sim) {
            return Err(self.violation("HTTP-1", number, "the connection ended without an answer"));
        }
        Ok(())
    }

    fn answered(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        number: usize,
        at: usize,
        response: &Response,
    ) -> Result<(), Violation> {
        let link = &mut self.links[at];
        let expected = self.plan.answers[link.answered];
        link.answered += 1;
        let name = self.plan.name;
        sim.trace_mut().remark(|| format!("stranger {number} ({name}) hears {}", response.status));
        // Neither may one that is slow on purpose, or on whose clock an hour passes at once.
        let late =
            sim.awake().since(self.began) >= BODY_PATIENCE_NS || options.faults.clock_jumps > 0;
        if response.status == 408 && late {
            sim.client_close(link.socket);
            link.over = true;
            return Ok(());
        }
        if let Err(text) = judge(options, expected, response) {
            let body = String::from_utf8_lossy(&response.body);
            let start: String = body.chars().take(200).collect();
            let status = response.status;
            let text = format!("{text}, not {expected:?}: status {status} body {start:?}");
            return Err(self.violation("HTTP-1", number, &text));
        }
        if find(&response.body, b"\"mark:").is_some() {
            return Err(self.violation("TEN-1", number, "an answer holds a row of somebody else"));
        }
        let link = &mut self.links[at];
        if response.closes {
            // A server that stops ends the connection with the answer in hand.
            sim.client_close(link.socket);
            link.over = true;
        } else if response.status == 200 {
            self.follow(sim, number, at, response);
        }
        Ok(())
    }

    fn follow(&mut self, sim: &mut Sim, number: usize, at: usize, response: &Response) {
        if self.plan.follow.is_none() {
            return;
        }
        let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let Some(baton) = body["baton"].as_str() else { return };
        let link = &mut self.links[at];
        for (bytes, expected) in self.plan.go_on(&format!("stranger-{number}"), baton) {
            if expected == Expected::NoSql {
                sim.injected(FaultKind::Malformed, FIRST_ID + number as u64);
            }
            link.cut += bytes.len();
            link.rest.extend(bytes);
            link.reader.expect(false);
            self.plan.answers.push(expected);
        }
        link.write(sim, Pace::AtOnce);
    }

    /// NET-1 and LIVE-1: nothing lives longer than its limit, and what is due comes.
    fn judge_times(&self, sim: &Sim, number: usize) -> Result<(), Violation> {
        let now = sim.awake();
        for link in self.links.iter().filter(|link| !link.over && link.connected) {
            let lived = link.first_byte.map_or(0, |first| now.since(first));
            let limit = self.plan.life_ns_max.map(|limit| limit + SLACK_NS);
            if limit.is_some_and(|limit| lived > limit) && link.excuses == excuses(sim) {
                let text = format!("the connection lives on after {lived} ns");
                return Err(self.violation("NET-1", number, &text));
            }
            let due = self.plan.must_answer && link.cut == 0;
            if due && now.since(self.began) > PATIENCE_NS {
                return Err(self.violation("LIVE-1", number, "it waits in vain"));
            }
        }
        Ok(())
    }

    /// Ask again on a new connection if the answer is late.
    fn retry(&mut self, sim: &mut Sim) {
        let Some(retry) = self.plan.retry_ns else { return };
        let late = retry.saturating_mul(self.links.len() as u64);
        let unanswered = self.links.iter().all(|link| link.answered == 0 && !link.over);
        if unanswered && self.links.len() <= RETRIES_MAX && sim.awake().since(self.began) >= late {
            let entity = self.links[0].socket.0;
            sim.injected(FaultKind::Retry, entity);
            self.connect(sim);
        }
    }

    fn violation(&self, property: &'static str, number: usize, text: &str) -> Violation {
        let name = self.plan.name;
        Violation::new(property, format!("stranger {number}, {name}: {text}"))
    }
}

impl Link {
    fn may_read(&self, sim: &Sim, pace: Pace) -> bool {
        pace == Pace::AtOnce || sim.now() >= self.next_read
    }

    fn write(&mut self, sim: &mut Sim, pace: Pace) {
        while self.connected && self.cut > 0 {
            let limit = match pace {
                Pace::ByteEvery(_) if sim.now() < self.next_write => return,
                Pace::ByteEvery(_) => 1,
                Pace::AtOnce | Pace::After(_) => self.cut,
            };
            match sim.client_send(self.socket, &self.rest[..limit]) {
                Ok(count) => {
                    self.cut -= count;
                    drop(self.rest.drain(..count));
                    self.first_byte.get_or_insert(sim.awake());
                }
                // Full for now, or broken: receiving tells which.
                Err(_) => return,
            }
            if let Pace::ByteEvery(pause) = pace {
                self.next_write = sim.now().after(pause);
            }
        }
    }
}

/// Whether the answer is what was to come; if not, what is wrong with it.
fn judge(options: &Options, expected: Expected, response: &Response) -> Result<(), String> {
    let status = response.status;
    if status == 200 {
        return judge_success(expected, response);
    }
    let code = error_code(response)?;
    if status == 500 {
        let text = String::from_utf8_lossy(&response.body);
        let excused =
            options.has_disk_errors() || options.has_full_disk() || options.is_out_of_memory(&text);
        let engine = !matches!(expected, Expected::Broken(_) | Expected::Done);
        return if excused && engine { Ok(()) } else { Err("an internal error".into()) };
    }
    let damaged = code == "DATABASE_DAMAGED";
    if damaged && !options.has_disk_errors() {
        return Err("a fence that nothing explains".into());
    }
    let of_database = matches!(
        code.as_str(),
        "DATABASE_NOT_FOUND"
            | "TOO_MANY_REQUESTS"
            | "UNAVAILABLE"
            | "MEMORY_FULL"
            | "BUDGET_EXCEEDED"
            | "DATABASE_UNAVAILABLE"
            | "LOG_FULL"
    ) || damaged;
    let of_stream = code.starts_with("BATON_") || code.starts_with("STREAM_");
    let fits = match expected {
        Expected::Done => false,
        Expected::Broken(statuses) => statuses.contains(&status) && response.closes,
        Expected::Refused(statuses) => statuses.contains(&status),
        Expected::Sql { .. } | Expected::Cursor => {
            of_database
                || of_stream
                || matches!(code.as_str(), "TOO_MANY_STREAMS" | "RESPONSE_TOO_LARGE")
        }
        Expected::NoSql => of_database || status == 400,
        Expected::Created => of_database || code == "DATABASE_EXISTS",
    };
    if fits { Ok(()) } else { Err(format!("a refusal {code}")) }
}

fn judge_success(expected: Expected, response: &Response) -> Result<(), String> {
    let json = || serde_json::from_slice::<Value>(&response.body).map_err(|e| e.to_string());
    match expected {
        Expected::Done => Ok(()),
        Expected::Created => json().map(drop),
        Expected::Cursor => {
            let text = str::from_utf8(&response.body).map_err(|error| error.to_string())?;
            let line = |line: &str| serde_json::from_str::<Value>(line).map(drop);
            text.lines().try_for_each(line).map_err(|error| error.to_string())
        }
        Expected::Sql { rows } => {
            let first = &json()?["results"][0];
            let found = first["response"]["result"]["rows"].as_array().map(Vec::len);
            match first["type"].as_str() {
                Some("ok") if found == Some(rows) => Ok(()),
                Some("error") if first["error"]["code"].is_string() => Ok(()),
                _ => Err(format!("{found:?} rows of {rows}")),
            }
        }
        Expected::Broken(_) | Expected::Refused(_) | Expected::NoSql => Err("a success".into()),
    }
}

/// The code of an error in the one shape that all errors have.
fn error_code(response: &Response) -> Result<String, String> {
    if response.header("content-type") != Some("application/json") {
        return Err("an error of another content type".into());
    }
    let body: Value =
        serde_json::from_slice(&response.body).map_err(|_| "an error that is no JSON")?;
    let part = |name: &str| body[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if part("message").is_none() || part("message") != part("error") {
        return Err("an error of another shape".into());
    }
    part("code").ok_or_else(|| "an error without a code".into())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
