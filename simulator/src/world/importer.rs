//! The importer: files and SQL text sent to become databases, good ones and others.
//!
//! Fault model. In one world of three (`imports` orders, none in the others) somebody works the admin
//! address, a new connection for each request, 10 ms to 10 s between two: uploads under a few names, of
//! SQL text and of files, in one piece or in chunks; text that fails at its end; files that are cut, have
//! flipped bits, or are none; uploads that break off in the middle. SQL text is sent as the `turso` CLI does
//! in half of the cases: as a dump first, and then a database is created of it. In between it looks at what
//! is there, and drops it. Whatever happens to the server happens in the middle of that.
//!
//! Expected (IMP-1): what was acknowledged is there, whole, until it is dropped; what was refused is not
//! there; an upload whose answer was lost is there whole or not at all; what cannot be good is refused, and
//! what is good is not, unless a fault explains it. A dump that was acknowledged is there for the create that
//! follows. At the end, without faults, every database that should
//! be there is read once more, in bounded time (LIVE-1).
//!
//! Outside: what a file with flipped bits becomes, if it is taken. A name whose drop was not answered is
//! given up. The model of the other clients knows nothing of these databases.

mod draft;
mod file;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::ground::Ground;
use super::link::{Answer, Asker, Link};
use super::model::Violation;
use super::options::{ADMIN, LISTEN, Options};
use super::{Sim, World};
use crate::client::{Response, credential_line, request};
use crate::draws::{Span, Stream};
use draft::{Draft, Step};
use file::Contents;

/// The importer's number in timers; gluttons, the landlord, strangers and clients are below.
const ID: u64 = 1 << 23;

/// Time after which a request without an answer is given up, and the connection with it.
const PATIENCE_NS: u64 = 300_000_000_000;

/// Time until an upload that is to break off does.
const BREAK_NS: Span = Span::new(1_000_000, 2_000_000_000);

/// Simulated time for each of those.
const LOOK_NS_MAX: u64 = 600_000_000_000;

/// Names that it uses at a time.
const SLOTS: usize = 3;

/// The organisation that dumps and drafts are for.
const ORGANISATION: &str = "imports";

/// Statements that no import carries out.
const FAILING: [&str; 3] =
    ["INSERT INTO missing VALUES(1);", "INSERT INTO t VALUES(1,'x';", "ATTACH 'x' AS y;"];

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sql,
    File,
    /// SQL text whose last statement fails.
    FailingSql,
    /// A file without its end.
    Cut,
    /// A file of which some bits are others.
    Flipped,
    /// What is no file at all.
    Noise,
    /// SQL or a file that breaks off.
    Broken,
}

#[derive(Clone, Debug)]
pub(super) enum Order {
    Upload {
        slot: usize,
        kind: Kind,
        contents: Contents,
    },
    /// SQL text, kept for a create.
    Dump {
        slot: usize,
        kind: Kind,
        contents: Contents,
    },
    /// A step of the draft in hand.
    Draft(Step),
    /// The organisation that dumps and drafts are for.
    Organisation,
    /// A database of the dump at this address.
    Seed {
        slot: usize,
        contents: Contents,
        address: String,
    },
    /// Whether it is there, by the admin address.
    Show {
        slot: usize,
    },
    /// What is in it, by SQL.
    Read {
        slot: usize,
    },
    Drop {
        slot: usize,
    },
}

/// A name, and what may be found under it.
#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u64,
    /// What is there for sure; nothing where nobody knows, or nothing is there.
    there: Option<Contents>,
    /// It was made of a file that nobody can judge.
    unjudged: bool,
    /// Uploads without an answer: each may still come to be there.
    lost: BTreeMap<u64, Contents>,
    /// An upload's answer was lost: its name may be taken for a while.
    unsettled: bool,
}

impl Slot {
    fn is_empty(&self) -> bool {
        self.there.is_none() && !self.unjudged
    }

    /// Use another name from now on.
    fn give_up(&mut self) {
        *self = Slot { generation: self.generation + 1, ..Slot::default() };
    }
}

/// See the head of the file.
pub(super) struct Importer {
    /// Orders that are still to come.
    left: u64,
    serial: u64,
    slots: Vec<Slot>,
    link: Link<Order>,
    draft: Option<Draft>,
    /// It only looks at what must be there, at these.
    looking: Option<BTreeSet<usize>>,
}

impl Importer {
    /// The importer of a world.
    pub fn new(sim: &mut Sim, options: &Options) -> Importer {
        let mut importer = Importer {
            left: options.imports,
            serial: 0,
            slots: vec![Slot::default(); SLOTS],
            link: Link::new("the importer", ID, Stream::Imports),
            draft: None,
            looking: None,
        };
        if importer.left > 0 {
            importer.link.rest(sim);
        }
        importer
    }

    fn name(&self, slot: usize) -> String {
        format!("import-{slot}-{}", self.slots[slot].generation)
    }

    fn draw(&mut self, sim: &mut Sim) -> Option<Order> {
        self.left = self.left.checked_sub(1)?;
        let draws = sim.draws_mut();
        let slot = draws.index(Stream::Imports, 1, SLOTS);
        let what = draws.below(Stream::Imports, 2, 10);
        let kind = match draws.below(Stream::Imports, 3, 16) {
            0..=3 => Kind::Sql,
            4..=7 => Kind::File,
            8 => Kind::FailingSql,
            9 | 10 => Kind::Cut,
            11 | 12 => Kind::Flipped,
            13 => Kind::Noise,
            _ => Kind::Broken,
        };
        let rows = draws.logarithmic(Stream::Imports, 4, Span::new(1, 3_000)) - 1;
        let text_bytes = draws.logarithmic(Stream::Imports, 5, Span::new(1, 300));
        let there = !self.slots[slot].is_empty();
        Some(match what {
            0..=2 if there => Order::Drop { slot },
            0..=6 if there => Order::Show { slot },
            7 => Order::Show { slot },
            _ => {
                self.serial += 1;
                let contents = Contents { serial: self.serial, rows, text_bytes };
                let is_text = matches!(kind, Kind::Sql | Kind::FailingSql | Kind::Broken);
                match draws.below(Stream::Imports, 9, 2) {
                    0 if is_text => Order::Dump { slot, kind, contents },
                    0 => {
                        let (bytes, _) = body(sim, kind, &contents);
                        self.begin_draft(slot, kind, contents, bytes)
                    }
                    _ => Order::Upload { slot, kind, contents },
                }
            }
        })
    }

    /// The bytes of a request, and where it goes.
    fn request(&self, sim: &mut Sim, order: &Order) -> (Vec<u8>, &'static str) {
        match order {
            Order::Upload { slot, kind, contents } => {
                (upload(sim, &self.name(*slot), *kind, contents), ADMIN)
            }
            Order::Dump { kind, contents, .. } => (dump(sim, *kind, contents), ADMIN),
            Order::Draft(step) => self.step_request(*step),
            Order::Organisation => {
                let path = format!("/v1/organisations/{ORGANISATION}");
                (request("PUT", &path, "sim", &[], b"{}"), ADMIN)
            }
            Order::Seed { slot, address, .. } => {
                let path = format!("/v1/namespaces/{}/create", self.name(*slot));
                let body = json!({ "dump_url": address }).to_string();
                (request("POST", &path, "sim", &[], body.as_bytes()), ADMIN)
            }
            Order::Show { slot } => {
                let path = format!("/v1/namespaces/{}", self.name(*slot));
                (request("GET", &path, "sim", &[], b""), ADMIN)
            }
            Order::Drop { slot } => {
                let path = format!("/v1/namespaces/{}", self.name(*slot));
                (request("DELETE", &path, "sim", &[], b""), ADMIN)
            }
            Order::Read { slot } => {
                let sql = "SELECT count(*), coalesce(sum(n), 0), coalesce(sum(length(v)), 0), \
                           (SELECT user_version FROM pragma_user_version) FROM t";
                let step = json!({ "type": "execute", "stmt": { "sql": sql } });
                let body = json!({ "requests": [step, { "type": "close" }] }).to_string();
                let path = format!("/db/{}/v2/pipeline", self.name(*slot));
                (request("POST", &path, "sim", &[], body.as_bytes()), LISTEN)
            }
        }
    }

    fn ask(&mut self, sim: &mut Sim, order: Order) {
        let (mut outbox, address) = self.request(sim, &order);
        let mut patience_ns = PATIENCE_NS;
        let breaks = match order {
            Order::Upload { kind, .. } | Order::Dump { kind, .. } => kind == Kind::Broken,
            Order::Draft(Step::Chunk) => sim.draws_mut().below(Stream::Imports, 14, 6) == 0,
            _ => false,
        };
        if breaks {
            // Of a chunk that came whole only the answer may be lost.
            let whole = matches!(order, Order::Draft(_)) as usize * outbox.len() / 2;
            let keep = sim.draws_mut().index(Stream::Imports, 6, outbox.len() + whole);
            outbox.truncate(keep);
            patience_ns = sim.draws_mut().logarithmic(Stream::Imports, 7, BREAK_NS);
        }
        self.link.ask(sim, address, &outbox, patience_ns, order);
    }

    /// Nobody knows what has become of an upload.
    fn lose_upload(&mut self, slot: usize, kind: Kind, contents: Contents) {
        let slot = &mut self.slots[slot];
        slot.unsettled = true;
        match kind {
            Kind::Sql | Kind::File => drop(slot.lost.insert(contents.serial, contents)),
            // What came of it nobody can judge.
            Kind::Flipped => slot.give_up(),
            _ => {}
        }
    }

    /// Nothing is left to look at there.
    fn has_seen(&mut self, slot: usize) {
        if let Some(looking) = &mut self.looking {
            looking.remove(&slot);
        }
    }

    /// Whether the rows that were read are those that must be there.
    fn hear_rows(&mut self, options: &Options, slot: usize, response: &Response) -> bool {
        let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let result = &value["results"][0];
        let state = &mut self.slots[slot];
        if response.status != 200 || result["type"] != "ok" {
            let code = match result["error"]["code"].as_str() {
                Some(code) => code.to_owned(),
                None => code_of(response),
            };
            if code == "DATABASE_DAMAGED" && options.has_disk_errors() {
                state.give_up();
                return true;
            }
            let status = if response.status == 200 { 503 } else { response.status };
            return is_excused(options, status, &code)
                && !code.is_empty()
                && code != "SQL_INPUT_ERROR";
        }
        let row = &result["response"]["result"]["rows"][0];
        let number =
            |index: usize| row[index]["value"].as_str().and_then(|text| text.parse::<u64>().ok());
        let [Some(rows), Some(sum), Some(bytes), Some(serial)] = [0, 1, 2, 3].map(number) else {
            return false;
        };
        let found = match &state.there {
            Some(contents) => *contents,
            None => match state.lost.get(&serial) {
                Some(contents) => *contents,
                None => return false,
            },
        };
        state.there = Some(found);
        found.serial == serial && found.sums() == [rows, sum, bytes]
    }

    /// From now on only look at what must be there.
    fn begin_to_look(&mut self, sim: &mut Sim) {
        self.hurry(sim);
        // Where nothing is known to be, nothing is left in the end, or something whole.
        self.draft = None;
        self.looking = Some((0..SLOTS).collect());
    }

    fn has_looked(&self) -> bool {
        self.looking.as_ref().is_some_and(BTreeSet::is_empty) && self.link.is_idle()
    }
}

impl Asker for Importer {
    type Asked = Order;

    fn link(&mut self) -> &mut Link<Order> {
        &mut self.link
    }

    fn act(&mut self, sim: &mut Sim, _: &mut Ground) -> Result<(), Violation> {
        let order = match &self.looking {
            Some(slots) => slots.first().map(|&slot| match self.slots[slot].there {
                Some(_) => Order::Read { slot },
                None => Order::Show { slot },
            }),
            None => self.go_on(sim).or_else(|| self.draw(sim)),
        };
        if let Some(order) = order {
            self.ask(sim, order);
        }
        Ok(())
    }

    fn lose(&mut self, _: &mut Sim, order: Order) {
        match order {
            Order::Upload { slot, kind, contents } => self.lose_upload(slot, kind, contents),
            Order::Draft(step) => self.lose_step(step),
            Order::Seed { slot, contents, .. } => {
                let slot = &mut self.slots[slot];
                slot.unsettled = true;
                slot.lost.insert(contents.serial, contents);
            }
            Order::Drop { slot } => self.slots[slot].give_up(),
            // A dump that nobody heard of ends by itself.
            Order::Dump { .. } | Order::Organisation => {}
            Order::Show { .. } | Order::Read { .. } => {}
        }
    }

    fn hear(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        answer: &Answer<Order>,
    ) -> Result<(), Violation> {
        let Answer { asked: order, response, life } = answer;
        let options = &ground.options;
        let code = code_of(response);
        let wrong = |what: &str| {
            let text = String::from_utf8_lossy(&response.body).into_owned();
            Err(Violation::new("IMP-1", format!("{order:?}: {what}: {} {text}", response.status)))
        };
        match order {
            Order::Dump { slot, kind, contents } => match response.status {
                200 if *kind == Kind::Sql => {
                    let value: Value = serde_json::from_slice(&response.body).unwrap_or_default();
                    let Some(address) = value["dump_url"].as_str() else {
                        return wrong("it has no address");
                    };
                    let (slot, contents, address) = (*slot, *contents, address.to_owned());
                    self.ask(sim, Order::Seed { slot, contents, address });
                    return Ok(());
                }
                200 => return wrong("it cannot be good"),
                404 if code == "ORGANISATION_NOT_FOUND" => {
                    self.ask(sim, Order::Organisation);
                    return Ok(());
                }
                status if is_excused(options, status, &code) => {}
                422 if *kind != Kind::Sql => {}
                400 if *kind == Kind::Broken => {}
                _ => return wrong("it is refused in no known way"),
            },
            Order::Draft(step) => self.hear_step(sim, options, *step, (*life, response))?,
            Order::Organisation => match response.status {
                200 => {}
                status if is_excused(options, status, &code) => {}
                _ => return wrong("it cannot be made"),
            },
            Order::Seed { slot, contents, .. } => {
                let slot = &mut self.slots[*slot];
                match response.status {
                    _ if code == "DATABASE_EXISTS" => {
                        if slot.is_empty() && slot.lost.is_empty() && !slot.unsettled {
                            return wrong("the name is free");
                        }
                    }
                    200 if !slot.is_empty() => return wrong("the name is taken"),
                    200 => {
                        slot.there = Some(*contents);
                    }
                    status if is_excused(options, status, &code) => {}
                    _ => return wrong("the dump was taken"),
                }
            }
            Order::Upload { slot, kind, contents } => {
                let (made, refused) = (response.status == 200, response.status);
                let slot = &mut self.slots[*slot];
                match kind {
                    _ if code == "DATABASE_EXISTS" => {
                        if slot.is_empty() && slot.lost.is_empty() && !slot.unsettled {
                            return wrong("the name is free");
                        }
                    }
                    _ if made && !slot.is_empty() => return wrong("the name is taken"),
                    Kind::Sql | Kind::File if made => {
                        slot.there = Some(*contents);
                    }
                    Kind::Flipped if made => slot.unjudged = true,
                    _ if made => return wrong("it cannot be good"),
                    Kind::Sql | Kind::File if is_excused(options, refused, &code) => {}
                    Kind::Sql | Kind::File => return wrong("it is good"),
                    _ if matches!(refused, 413 | 415 | 422) => {}
                    // It was not looked at, or broke off.
                    _ if is_excused(options, refused, &code) || refused == 400 => {}
                    _ => return wrong("it is refused in no known way"),
                }
            }
            Order::Show { slot } => match (response.status, state_of(response).as_str()) {
                (404, _) => {
                    if self.slots[*slot].there.is_some() {
                        return wrong("it must be there");
                    }
                    self.slots[*slot].unjudged = false;
                    self.has_seen(*slot);
                }
                (200, "live") => {
                    let known = !self.slots[*slot].is_empty();
                    if !known && self.slots[*slot].lost.is_empty() {
                        return wrong("nothing of the name was made");
                    }
                    if !self.slots[*slot].unjudged {
                        self.ask(sim, Order::Read { slot: *slot });
                        return Ok(());
                    }
                    self.has_seen(*slot);
                }
                (200, "building") if self.slots[*slot].is_empty() => {}
                (200, "fenced") if options.has_disk_errors() => {
                    self.slots[*slot].give_up();
                    self.has_seen(*slot);
                }
                (200, _) => return wrong("it is in a state that it cannot be in"),
                (status, _) if is_excused(options, status, &code) => {}
                _ => return wrong("it cannot be shown"),
            },
            Order::Read { slot } => {
                if !self.hear_rows(options, *slot, response) {
                    return wrong("that is not what was sent");
                }
                // One that is damaged is given up: nothing is left to look at.
                if response.status == 200 || self.slots[*slot].is_empty() {
                    self.has_seen(*slot);
                }
            }
            Order::Drop { slot } => match response.status {
                200 => {
                    let state = &mut self.slots[*slot];
                    (state.there, state.unjudged) = (None, false);
                }
                404 if self.slots[*slot].there.is_some() => return wrong("it must be there"),
                404 => self.slots[*slot].unjudged = false,
                // It may have been dropped or not.
                status if is_excused(options, status, &code) => self.slots[*slot].give_up(),
                _ => return wrong("it cannot be dropped"),
            },
        }
        Ok(())
    }
}

fn code_of(response: &Response) -> String {
    let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    value["code"].as_str().unwrap_or_default().to_owned()
}

fn state_of(response: &Response) -> String {
    let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    value["state"].as_str().unwrap_or_default().to_owned()
}

/// Whether something else than what was asked explains this.
fn is_excused(options: &Options, status: u16, code: &str) -> bool {
    match status {
        413 => code == "DATABASE_FULL" && (options.has_small_log() || options.has_full_disk()),
        // SQLite says of some things without memory that they are not there.
        422 => options.has_small_memory(),
        _ => options.excuses(status),
    }
}

/// The request of a dump: a form as the `turso` CLI sends it, or the text itself.
fn dump(sim: &mut Sim, kind: Kind, contents: &Contents) -> Vec<u8> {
    let draws = sim.draws_mut();
    let mut bits = |bound: usize| draws.index(Stream::Imports, 8, bound);
    let mut sql = contents.sql();
    if kind == Kind::FailingSql {
        sql += FAILING[bits(FAILING.len())];
    }
    let path = format!("/v1/organizations/{ORGANISATION}/databases/dumps");
    if bits(4) == 0 {
        let head = [("content-type", "application/sql")];
        return request("POST", &path, "sim", &head, sql.as_bytes());
    }
    let form = format!(
        "--sim\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.sql\"\r\n\r\n{sql}\r\n\
         --sim--\r\n"
    );
    let head = [("content-type", "multipart/form-data; boundary=sim")];
    request("POST", &path, "sim", &head, form.as_bytes())
}

/// What is sent of a kind, and whether that is text.
fn body(sim: &mut Sim, kind: Kind, contents: &Contents) -> (Vec<u8>, bool) {
    let draws = sim.draws_mut();
    let mut bits = |bound: usize| draws.index(Stream::Imports, 8, bound);
    let (mut sql, file) = (contents.sql(), contents.file());
    match kind {
        Kind::Sql => (sql.into_bytes(), true),
        Kind::File => (file, false),
        Kind::FailingSql => {
            sql += FAILING[bits(FAILING.len())];
            (sql.into_bytes(), true)
        }
        Kind::Cut => {
            let keep = bits(file.len());
            (file[..keep].to_vec(), false)
        }
        Kind::Flipped => {
            let mut file = file;
            for _ in 0..1 + bits(20) {
                let at = bits(file.len());
                file[at] ^= 1 << bits(8);
            }
            (file, false)
        }
        Kind::Noise => {
            let length = bits(10_000);
            ((0..length).map(|_| bits(256) as u8).collect(), false)
        }
        Kind::Broken if bits(2) == 0 => (sql.into_bytes(), true),
        Kind::Broken => (file, false),
    }
}

/// The request of an upload.
fn upload(sim: &mut Sim, name: &str, kind: Kind, contents: &Contents) -> Vec<u8> {
    let (body, is_sql) = body(sim, kind, contents);
    let draws = sim.draws_mut();
    let mut bits = |bound: usize| draws.index(Stream::Imports, 8, bound);
    let path = format!("/v1/namespaces/{name}/upload");
    let kind = if is_sql { "application/sql" } else { "application/vnd.sqlite3" };
    if bits(2) == 0 {
        return request("POST", &path, "sim", &[("content-type", kind)], &body);
    }
    let head = [("content-type", kind), ("transfer-encoding", "chunked")];
    let mut bytes =
        format!("POST {path} HTTP/1.1\r\nHost: sim\r\n{}", credential_line()).into_bytes();
    for (name, value) in head {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(b"\r\n");
    let mut rest = &body[..];
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + bits(rest.len().min(30_000)));
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend(b"\r\n");
        rest = after;
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

impl World {
    /// Without faults: what was acknowledged is there.
    pub(super) fn look_at_imports(&mut self) -> Result<(), Violation> {
        if self.ground.options.imports == 0 {
            return Ok(());
        }
        self.importer.begin_to_look(&mut self.io);
        let left = |world: &World| {
            format!("imported databases are not read: {:?}", world.importer.looking)
        };
        self.go_on_until((SLOTS as u64 + 1) * LOOK_NS_MAX, |it| it.importer.has_looked(), left)
    }
}
