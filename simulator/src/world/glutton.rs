//! Gluttons: clients who take what they can get, and more, so that budgets are reached.
//!
//! Owns who they are, their connections, what they ask, and the judgement of what they get. The fault
//! model:
//!
//! - One to three in each world with budgets (`gluttons` changes; the landlord gives their databases
//!   tighter budgets than the others get). A glutton makes one visit after the other, 1 ms to 100 s
//!   apart, to one of three databases that all of them share: a few statements of the same kind one
//!   after the other, or at once on up to eight connections. Kinds: counts of many VM steps, sorts that
//!   spill to the disk, large values, inserts, deletes, scans, and nothing much.
//! - Expected: the right numbers, or a refusal by a budget, the machine or a deadline; never a 500 that
//!   no other fault explains (ERR-1); an answer within the model's clients' time (LIVE-1). That no
//!   budget is overrun meanwhile is for `ceilings` to see.
//! - Outside: the model knows nothing of their databases. What strangers do, they leave out.

use serde_json::{Value, json};
use storage::io::Clock;

use super::Sim;
use super::books::ANSWER_NS_MAX;
use super::model::Violation;
use super::options::{ADMIN, LISTEN, Options};
use super::speech;
use crate::client::{Response, ResponseError, ResponseReader, request};
use crate::draws::{Span, Stream};
use crate::network::{ClientSocket, Wake};

/// Number of the first glutton in timers; strangers and the landlord are below.
const FIRST_ID: u64 = 1 << 22;

const TIMER_BITS: u32 = 32;

/// The first entity of their draws in the stream of budgets.
const FIRST_ENTITY: u64 = 100;

/// Databases of theirs.
pub(super) const DATABASES: u64 = 3;

/// Time between two visits; a cold database is one that rested for 120 s.
const PAUSE_NS: Span = Span::new(1_000_000, 200_000_000_000);

/// Visits of one glutton.
const VISITS_MAX: u64 = 60;

/// Connections of a visit that asks for everything at once.
const CONNECTIONS_MAX: u64 = 8;

/// VM steps that a glutton asks for in all: about a second of a core.
const STEPS_MAX: u64 = 40_000_000;

/// VM steps of a row of [`Kind::Count`], about.
const STEPS_PER_ROW: u64 = 14;

const RECEIVE_BYTES: usize = 64 * 1024;

/// The name of one of their databases.
pub(super) fn database(number: u64) -> String {
    format!("glutton-{number}")
}

/// What a visit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// So many rows, one VM step after the other.
    Count(u64),
    /// Sorts so many rows of some 800 bytes.
    Sort(u64),
    /// A value of so many bytes.
    Large(u64),
    Insert(u64),
    Delete,
    Scan,
    Nothing,
}

impl Kind {
    fn sql(self) -> String {
        let numbers = |rows: u64| {
            format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
            )
        };
        match self {
            Kind::Count(rows) => format!("{} SELECT count(*) FROM n", numbers(rows)),
            Kind::Sort(rows) => format!(
                "{} SELECT count(*) FROM (SELECT 1 FROM n GROUP BY hex(zeroblob(400)) || i)",
                numbers(rows)
            ),
            Kind::Large(bytes) => format!("SELECT length(hex(zeroblob({bytes}))) / 2"),
            Kind::Insert(rows) => {
                format!("{} INSERT INTO food SELECT i, hex(zeroblob(200)) FROM n", numbers(rows))
            }
            Kind::Delete => "DELETE FROM food WHERE a % 3 <> 0".to_owned(),
            Kind::Scan => "SELECT sum(length(b)) FROM food".to_owned(),
            Kind::Nothing => "SELECT 1".to_owned(),
        }
    }

    /// The number that the statement must give, if one follows from it.
    fn number(self) -> Option<u64> {
        match self {
            Kind::Count(number) | Kind::Sort(number) | Kind::Large(number) => Some(number),
            Kind::Nothing => Some(1),
            Kind::Insert(_) | Kind::Delete | Kind::Scan => None,
        }
    }

    fn steps(self) -> u64 {
        match self {
            Kind::Count(rows) => rows * STEPS_PER_ROW,
            Kind::Sort(rows) | Kind::Insert(rows) => rows * 4 * STEPS_PER_ROW,
            Kind::Large(_) | Kind::Delete | Kind::Scan | Kind::Nothing => 10_000,
        }
    }
}

/// All gluttons of a world.
#[derive(Default)]
pub(super) struct Gluttons {
    list: Vec<Glutton>,
    left: bool,
}

struct Glutton {
    id: u64,
    /// Timers with an older number mean nothing.
    timer: u32,
    visits: u64,
    steps: u64,
    links: Vec<Link>,
    /// A database that must be created first.
    missing: Option<u64>,
}

/// A connection, and what is still to be asked on it.
struct Link {
    socket: ClientSocket,
    connected: bool,
    outbox: Vec<u8>,
    reader: ResponseReader,
    database: u64,
    kind: Kind,
    /// Requests after the one that is under way.
    more: u64,
    creates: bool,
    /// On the clock that does not count sleep.
    asked_at: storage::io::Instant,
}

impl Gluttons {
    /// As many as the options say; each begins soon.
    pub fn new(sim: &mut Sim, options: &Options) -> Gluttons {
        let mut gluttons = Gluttons::default();
        let count = if options.budgets > 0 { options.gluttons } else { 0 };
        for number in 0..count as u64 {
            let mut glutton = Glutton {
                id: number,
                timer: 0,
                visits: 0,
                steps: 0,
                links: Vec::new(),
                missing: None,
            };
            glutton.pause(sim);
            gluttons.list.push(glutton);
        }
        gluttons
    }

    /// Take a wake that is a glutton's.
    ///
    /// # Errors
    /// If the server did what it must not.
    pub fn heed(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        wake: Wake,
    ) -> Result<bool, Violation> {
        let socket = match wake {
            Wake::Timer(tag) => {
                // Numbers beyond theirs are others'.
                let number = (tag >> TIMER_BITS).checked_sub(FIRST_ID);
                let Some(index) = number.filter(|&number| number < FIRST_ID) else {
                    return Ok(false);
                };
                let glutton = &mut self.list[index as usize];
                if !self.left && glutton.timer == tag as u32 {
                    glutton.act(sim)?;
                }
                return Ok(true);
            }
            Wake::Connected(socket)
            | Wake::Refused(socket)
            | Wake::Readable(socket)
            | Wake::Writable(socket) => socket,
        };
        for glutton in &mut self.list {
            let found = glutton.links.iter().position(|link| link.socket == socket);
            if let Some(index) = found {
                glutton.attend(sim, options, index, wake)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The world's work is done: everybody goes.
    pub fn leave(&mut self, sim: &mut Sim) {
        self.left = true;
        for link in self.list.iter_mut().flat_map(|glutton| glutton.links.drain(..)) {
            sim.client_close(link.socket);
        }
    }
}

impl Glutton {
    fn below(&self, sim: &mut Sim, bound: u64) -> u64 {
        sim.draws_mut().below(Stream::Budgets, FIRST_ENTITY + self.id, bound)
    }

    fn number(&self, sim: &mut Sim, low: u64, high: u64) -> u64 {
        let span = Span::new(low, high);
        sim.draws_mut().logarithmic(Stream::Budgets, FIRST_ENTITY + self.id, span)
    }

    fn pause(&mut self, sim: &mut Sim) {
        let pause = self.number(sim, PAUSE_NS.low, PAUSE_NS.high);
        self.set_timer(sim, pause);
    }

    fn set_timer(&mut self, sim: &mut Sim, pause_ns: u64) {
        self.timer = self.timer.wrapping_add(1);
        let at = sim.now().after(pause_ns);
        sim.wake_at(at, (FIRST_ID + self.id) << TIMER_BITS | u64::from(self.timer));
    }

    /// The pause is over, or the time for the answers of a visit.
    fn act(&mut self, sim: &mut Sim) -> Result<(), Violation> {
        let now = sim.awake();
        if let Some(late) = self.links.iter().find(|link| now.since(link.asked_at) > ANSWER_NS_MAX)
        {
            let text = format!("a glutton waits in vain: {:?} on {}", late.kind, late.database);
            return Err(Violation::new("LIVE-1", text));
        }
        if self.links.is_empty() {
            self.visit(sim);
        }
        if !self.links.is_empty() {
            self.set_timer(sim, ANSWER_NS_MAX / 4);
        }
        Ok(())
    }

    fn visit(&mut self, sim: &mut Sim) {
        if self.visits >= VISITS_MAX {
            return;
        }
        self.visits += 1;
        let database = self.missing.unwrap_or_else(|| self.below(sim, DATABASES));
        let creates = self.missing.take().is_some();
        let kind = self.draw_kind(sim);
        let requests = self.number(sim, 1, 20);
        self.steps += kind.steps() * requests;
        let at_once = !creates && self.below(sim, 2) == 0;
        let connections = if at_once { requests.min(CONNECTIONS_MAX) } else { 1 };
        let more = if creates || at_once { 0 } else { requests - 1 };
        for _ in 0..connections {
            let address = if creates { ADMIN } else { LISTEN };
            let link = Link {
                socket: sim.client_connect(address.parse().expect("an address")),
                connected: false,
                outbox: Vec::new(),
                reader: ResponseReader::default(),
                database,
                kind,
                more,
                creates,
                asked_at: sim.awake(),
            };
            self.links.push(link);
            let index = self.links.len() - 1;
            self.links[index].ask(sim);
        }
    }

    fn draw_kind(&self, sim: &mut Sim) -> Kind {
        let kind = self.below(sim, 12);
        if self.steps > STEPS_MAX {
            return if kind < 6 { Kind::Insert(1) } else { Kind::Scan };
        }
        match kind {
            // Once in a while more than what may be reserved in advance.
            0 => Kind::Count(self.number(sim, 100_000, 500_000)),
            1..4 => Kind::Count(self.number(sim, 100, 50_000)),
            4 => Kind::Sort(self.number(sim, 100, 10_000)),
            5 => Kind::Large(self.number(sim, 10_000, 8_000_000)),
            6..8 => Kind::Insert(self.number(sim, 1, 500)),
            8 => Kind::Delete,
            9..11 => Kind::Scan,
            _ => Kind::Nothing,
        }
    }

    /// Something happened to a connection.
    fn attend(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        index: usize,
        wake: Wake,
    ) -> Result<(), Violation> {
        let link = &mut self.links[index];
        let mut over = false;
        match wake {
            Wake::Refused(_) => over = true,
            Wake::Connected(_) => link.connected = true,
            _ => {}
        }
        link.push(sim);
        while !over {
            match sim.client_receive(link.socket, RECEIVE_BYTES) {
                Ok(bytes) if bytes.is_empty() => {
                    link.reader.end();
                    over = true;
                }
                Ok(bytes) => link.reader.push(&bytes),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => over = true,
            }
            let response = match link.reader.next_response() {
                Ok(None) => continue,
                Ok(Some(response)) => response,
                Err(ResponseError::Truncated) if over => break,
                Err(error) => return Err(Violation::new("HTTP-1", error.to_string())),
            };
            link.hear(sim, options, &response)?;
            if response.status == 404 {
                self.missing = Some(link.database);
            }
            over |= response.closes || link.more == 0;
            if !over {
                link.more -= 1;
                link.ask(sim);
            }
        }
        if over {
            let link = self.links.remove(index);
            sim.client_close(link.socket);
            if self.links.is_empty() {
                self.pause(sim);
            }
        }
        Ok(())
    }
}

impl Link {
    fn ask(&mut self, sim: &mut Sim) {
        let name = database(self.database);
        sim.trace_mut().remark(|| format!("a glutton asks {name} for {:?}", self.kind));
        let bytes = if self.creates {
            speech::admin_with("POST", &format!("/v1/namespaces/{name}/create"), Some(&json!({})))
        } else {
            let mut requests = Vec::new();
            if matches!(self.kind, Kind::Insert(_)) {
                let table = speech::plain("CREATE TABLE IF NOT EXISTS food(a, b)");
                requests.push(speech::execute(table));
            }
            requests.push(speech::execute(speech::plain(&self.kind.sql())));
            requests.push(json!({ "type": "close" }));
            let body = json!({ "baton": null, "requests": requests }).to_string();
            request("POST", &format!("/db/{name}/v3/pipeline"), "sim", &[], body.as_bytes())
        };
        self.outbox.extend_from_slice(&bytes);
        self.reader.expect(false);
        self.asked_at = sim.awake();
        self.push(sim);
    }

    fn push(&mut self, sim: &mut Sim) {
        while self.connected && !self.outbox.is_empty() {
            match sim.client_send(self.socket, &self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                // Full for now, or broken: receiving tells which.
                Err(_) => return,
            }
        }
    }

    fn hear(&self, sim: &mut Sim, options: &Options, response: &Response) -> Result<(), Violation> {
        let status = response.status;
        let text = String::from_utf8_lossy(&response.body);
        sim.trace_mut().remark(|| {
            let start: String = text.chars().take(200).collect();
            format!("a glutton hears {status} {start}")
        });
        let body = match speech::hear(response)? {
            Ok(body) => body,
            Err(_) if self.creates => return Ok(()),
            Err(_) => {
                let excused = status != 500
                    || options.has_disk_errors()
                    || options.has_full_disk()
                    || options.has_small_memory()
                    || options.is_out_of_memory(&text);
                let wrong = || Violation::new("ERR-1", format!("{:?}: {status} {text}", self.kind));
                return if excused { Ok(()) } else { Err(wrong()) };
            }
        };
        let Some(number) = self.kind.number().filter(|_| !self.creates) else { return Ok(()) };
        let result = &body["results"][0];
        let heard = &result["response"]["result"]["rows"][0][0]["value"];
        if result["type"] == "ok" && *heard != Value::String(number.to_string()) {
            let text = format!("{:?} gave {heard}", self.kind);
            return Err(Violation::new("ISO-2", text));
        }
        Ok(())
    }
}
