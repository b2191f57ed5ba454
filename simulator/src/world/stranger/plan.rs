//! What strangers do at their visits: bytes, their pace, how it ends, and what has to come of it.

use serde_json::{Value, json};

use super::malformed;
use crate::client::request;
use crate::draws::{Draws, Span, Stream};
use crate::faults::FaultKind;
use crate::world::options::{ADMIN, LISTEN};

/// How fast bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it goes.
    AtOnce,
    /// One byte, then a pause of so many nanoseconds.
    ByteEvery(u64),
    /// Not at all, for so many nanoseconds; then at once.
    After(u64),
}

/// What a stranger does to its end when it has sent what it wanted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Nothing: it waits for the answers.
    Stay,
    /// It sends its end, and waits for the answers.
    HalfClose,
    /// It is gone without a word.
    Vanish,
    /// It resets the connection.
    Reset,
}

/// What a request has to be answered with. Never 500, unless the world explains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// 200.
    Done,
    /// An error of one of these statuses, and the end of the connection.
    Broken(&'static [u16]),
    /// An error of one of these statuses; the connection goes on.
    Refused(&'static [u16]),
    /// 200 and so many rows in its first result, or a refusal that load or the database explain.
    Sql {
        /// Rows of the first result.
        rows: usize,
    },
    /// 200 and a cursor's lines, or such a refusal.
    Cursor,
    /// A refusal, whatever it is: never 200.
    NoSql,
    /// 200 or that the database exists.
    Created,
}

/// What follows an answer of 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Use the baton.
    Use,
    /// Use the one before again, which was used, and this one for another database.
    Misuse(String),
}

/// One visit.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For traces and violations.
    pub name: &'static str,
    /// What is counted when it begins.
    pub kind: Option<FaultKind>,
    /// Whom it visits.
    pub address: &'static str,
    /// Connections at once, each with the same bytes.
    pub links: usize,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// How much of it, at most, before the ending.
    pub cut: usize,
    /// How fast.
    pub write: Pace,
    /// How fast answers are taken.
    pub read: Pace,
    /// What follows the bytes.
    pub ending: Ending,
    /// The answers, in order.
    pub answers: Vec<Expected>,
    /// The answers have to come: only a fault explains the end of a connection without them.
    pub must_answer: bool,
    /// From its first byte on, the connection may not live longer than this.
    pub life_ns_max: Option<u64>,
    /// Nothing is waited for: the stranger leaves after this.
    pub stay_ns: Option<u64>,
    /// Ask again on a new connection if there is no answer after this.
    pub retry_ns: Option<u64>,
    /// What the baton of the answer is used for.
    pub follow: Option<Follow>,
}

impl Plan {
    fn new(name: &'static str, bytes: Vec<u8>, answers: Vec<Expected>) -> Plan {
        Plan {
            name,
            kind: None,
            address: LISTEN,
            links: 1,
            cut: bytes.len(),
            bytes,
            write: Pace::AtOnce,
            read: Pace::AtOnce,
            ending: Ending::Stay,
            answers,
            must_answer: true,
            life_ns_max: None,
            stay_ns: None,
            retry_ns: None,
            follow: None,
        }
    }

    /// The first visit: a database to ask.
    pub fn create(database: &str) -> Plan {
        let path = format!("/v1/namespaces/{database}/create");
        let bytes = request("POST", &path, "sim", &[], b"{}");
        Plan { address: ADMIN, ..Plan::new("a create", bytes, vec![Expected::Created]) }
    }

    /// Draw what stranger `id` does next.
    pub fn draw(draws: &mut Draws, id: u64, database: &str) -> Plan {
        let lot = draws.below(Stream::Stranger, id, 64);
        match lot {
            0..=3 => Plan::create(database),
            4..=19 => malformed_plan(draws, id, database),
            20..=25 => slow_writer(draws, id, database),
            26..=33 => slow_reader(draws, id, database),
            34..=39 => half_close(draws, id, database),
            40..=44 => broken_off(draws, id, database),
            45..=50 => pipelining(draws, id, database),
            51 => crowd(draws, id),
            52..=57 => retrier(draws, id, database),
            _ => batons(database),
        }
    }
}

/// Rows of a small answer.
const FEW_ROWS: usize = 3;

fn select(rows: usize, pad_bytes: usize) -> Value {
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
         SELECT i, hex(zeroblob({pad_bytes})) FROM n"
    );
    json!({ "sql": sql })
}

/// A pipeline that reads; `closes` ends its stream.
pub fn pipeline(
    database: &str,
    baton: Option<&str>,
    rows: usize,
    pad: usize,
    closes: bool,
) -> Vec<u8> {
    let mut requests = vec![json!({ "type": "execute", "stmt": select(rows, pad) })];
    if closes {
        requests.push(json!({ "type": "close" }));
    }
    let body = json!({ "baton": baton, "requests": requests }).to_string();
    request("POST", &format!("/db/{database}/v3/pipeline"), "sim", &[], body.as_bytes())
}

fn small(database: &str) -> Vec<u8> {
    pipeline(database, None, FEW_ROWS, 10, true)
}

fn health() -> Vec<u8> {
    request("GET", "/health", "sim", &[], b"")
}

/// A request that is answered without the engine, or with it.
fn any(draws: &mut Draws, id: u64, database: &str) -> (Vec<u8>, Expected) {
    match draws.below(Stream::Stranger, id, 3) {
        0 => (health(), Expected::Done),
        _ => (small(database), Expected::Sql { rows: FEW_ROWS }),
    }
}

/// One that breaks the rules, and behind it, where the connection goes on, one that does not.
fn malformed_plan(draws: &mut Draws, id: u64, database: &str) -> Plan {
    let mut all = malformed::all(database);
    let chosen = all.swap_remove(draws.index(Stream::Stranger, id, all.len()));
    let mut plan = Plan::new(chosen.name, chosen.bytes, vec![chosen.expected]);
    plan.kind = Some(FaultKind::Malformed);
    if matches!(chosen.expected, Expected::Broken(_)) {
        // The rest of a long one may meet a server that has closed, and its reset then overtakes
        // the answer: so it is in the world too.
        plan.must_answer = plan.bytes.len() < 1_000;
        if draws.below(Stream::Stranger, id, 4) == 0 && !chosen.name.contains("chunk") {
            plan.address = ADMIN;
        }
        return plan;
    }
    plan.bytes.extend(health());
    plan.answers.push(Expected::Done);
    plan.cut = plan.bytes.len();
    plan
}

/// One byte after the other, of a head or of a body.
fn slow_writer(draws: &mut Draws, id: u64, database: &str) -> Plan {
    let pause = draws.logarithmic(Stream::Stranger, id, Span::new(20_000_000, 2_000_000_000));
    let (bytes, expected) = any(draws, id, database);
    let head_bytes = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(0) as u64 + 4;
    let body_bytes = bytes.len() as u64 - head_bytes;
    let mut plan = Plan::new("a slow request", bytes, vec![expected]);
    plan.kind = Some(FaultKind::SlowWriter);
    plan.write = Pace::ByteEvery(pause);
    let (head_ns, body_ns) = (head_bytes * pause, body_bytes * pause);
    plan.must_answer = head_ns < HEAD_NS / 2 && body_ns < BODY_PATIENCE_NS / 2;
    if !plan.must_answer {
        // Head and body have their times; how far it comes, it is over after both.
        plan.life_ns_max = Some(HEAD_NS + BODY_NS);
    }
    if head_ns > 2 * HEAD_NS {
        plan.life_ns_max = Some(HEAD_NS);
    }
    plan
}

const HEAD_NS: u64 = server::limits::HEAD_NS;
const BODY_NS: u64 = server::limits::BODY_NS;
const BODY_PATIENCE_NS: u64 = server::limits::BODY_PATIENCE_NS;

/// A large answer that is taken byte by byte, or not at all for a long time.
fn slow_reader(draws: &mut Draws, id: u64, database: &str) -> Plan {
    let rows = draws.logarithmic(Stream::Stranger, id, Span::new(100, 3_000)) as usize;
    let by_cursor = draws.below(Stream::Stranger, id, 2) == 0;
    let (bytes, expected) = if by_cursor {
        let body = json!({ "baton": null, "batch": { "steps": [{ "stmt": select(rows, 100) }] } });
        let path = format!("/db/{database}/v3/cursor");
        (request("POST", &path, "sim", &[], body.to_string().as_bytes()), Expected::Cursor)
    } else {
        (pipeline(database, None, rows, 100, true), Expected::Sql { rows })
    };
    let mut plan = Plan::new("a slow reader", bytes, vec![expected]);
    plan.kind = Some(FaultKind::SlowReader);
    let long = draws.logarithmic(Stream::Stranger, id, Span::new(1_000_000_000, 300_000_000_000));
    if draws.below(Stream::Stranger, id, 2) == 0 {
        plan.read = Pace::After(long);
    } else {
        plan.read = Pace::ByteEvery(1_000_000_000);
        plan.stay_ns = Some(long);
    }
    plan.must_answer = false;
    plan
}

/// The end behind the request: it has to be answered all the same.
fn half_close(draws: &mut Draws, id: u64, database: &str) -> Plan {
    let (bytes, expected) = any(draws, id, database);
    Plan { ending: Ending::HalfClose, ..Plan::new("a half-close", bytes, vec![expected]) }
}

/// Gone at some byte of the request, or with the answer under way.
fn broken_off(draws: &mut Draws, id: u64, database: &str) -> Plan {
    let (bytes, expected) = any(draws, id, database);
    let mut plan = Plan::new("a request broken off", bytes, vec![expected]);
    plan.cut = draws.index(Stream::Stranger, id, plan.bytes.len()) + 1;
    if draws.below(Stream::Stranger, id, 3) == 0 {
        plan.cut = plan.bytes.len();
    }
    let endings = [Ending::Vanish, Ending::Vanish, Ending::Reset, Ending::HalfClose];
    plan.ending = endings[draws.index(Stream::Stranger, id, endings.len())];
    plan.must_answer = false;
    plan.life_ns_max = (plan.cut < plan.bytes.len()).then_some(HEAD_NS + BODY_NS);
    plan
}

/// Up to fifty requests at once, answered in order.
fn pipelining(draws: &mut Draws, id: u64, database: &str) -> Plan {
    let count = draws.within(Stream::Stranger, id, Span::new(2, 50));
    let mut plan = Plan::new("requests at once", Vec::new(), Vec::new());
    for _ in 0..count {
        let (bytes, expected) = any(draws, id, database);
        plan.bytes.extend(bytes);
        plan.answers.push(expected);
    }
    plan.cut = plan.bytes.len();
    plan
}

/// A thousand connects in a moment, most of which say nothing.
fn crowd(draws: &mut Draws, id: u64) -> Plan {
    let stay = draws.logarithmic(Stream::Stranger, id, Span::new(1_000_000, 90_000_000_000));
    let mut plan = Plan::new("a crowd", Vec::new(), Vec::new());
    if draws.below(Stream::Stranger, id, 2) == 0 {
        plan = Plan::new("a crowd that asks", health(), vec![Expected::Done]);
    }
    plan.links = 1_000;
    plan.must_answer = false;
    plan.stay_ns = Some(stay);
    plan
}

/// The same question again on a new connection, because the answer is late.
fn retrier(draws: &mut Draws, id: u64, database: &str) -> Plan {
    let patience = draws.logarithmic(Stream::Stranger, id, Span::new(100_000, 2_000_000_000));
    let expected = Expected::Sql { rows: FEW_ROWS };
    Plan { retry_ns: Some(patience), ..Plan::new("a retry", small(database), vec![expected]) }
}

/// A stream whose batons are used, used again, and taken abroad.
fn batons(database: &str) -> Plan {
    let bytes = pipeline(database, None, FEW_ROWS, 1, false);
    let expected = Expected::Sql { rows: FEW_ROWS };
    Plan { follow: Some(Follow::Use), ..Plan::new("batons", bytes, vec![expected]) }
}

impl Plan {
    /// What follows an answer with this baton: requests and their answers.
    pub fn go_on(&mut self, database: &str, baton: &str) -> Vec<(Vec<u8>, Expected)> {
        let ask = |database: &str, baton: &str| pipeline(database, Some(baton), FEW_ROWS, 1, false);
        match self.follow.take() {
            None => Vec::new(),
            Some(Follow::Use) => {
                self.follow = Some(Follow::Misuse(baton.to_owned()));
                vec![(ask(database, baton), Expected::Sql { rows: FEW_ROWS })]
            }
            Some(Follow::Misuse(used)) => {
                let abroad = format!("{database}-abroad");
                vec![
                    (ask(database, &used), Expected::NoSql),
                    (ask(&abroad, baton), Expected::NoSql),
                ]
            }
        }
    }
}
