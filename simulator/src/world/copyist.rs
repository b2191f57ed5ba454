//! The copyist: databases of the clients copied to other names, and read as files, while they write.
//!
//! Fault model. In one world of three (`copies` orders, none in the others) somebody works the admin
//! address, a new connection for each request, 10 ms to 10 s between two: forks of clients' databases to a
//! few names of its own, reads of the copies, drops of them, copies of copies, and exports. Some requests
//! are given up before they are answered. Whatever happens to the server happens in the middle of that.
//!
//! Expected: a copy shows what its original showed at one moment after the fork was asked for, and the
//! model judges it as a read of the original that was sent then (DUR-1, ISO-1, ATOM-1, TEN-1); an export
//! too, which plain SQLite must open and find whole (FMT-1). What was acknowledged is there until it is
//! dropped; a fork whose answer was lost is there whole or not at all (FORK-1). At the end, without faults,
//! every copy that must be there is read once more, in bounded time (LIVE-1).
//!
//! Outside: copies are not written to, so what a copy of a copy shows is of the first original's moment.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::files;
use super::ground::Ground;
use super::link::{Answer, Asker, Link};
use super::model::{Asked, Snapshot, Violation, tenant_name};
use super::options::{ADMIN, LISTEN, Options};
use super::speech::{self, ReadForm, Refused};
use super::{Sim, World};
use crate::client::{Response, request};
use crate::draws::{Draws, Span, Stream};

/// The copyist's number in timers, behind the landlord's and that of fleet jobs; gluttons are above.
const ID: u64 = (1 << 21) + 2;

/// Time after which a request without an answer is given up, and the connection with it.
const PATIENCE_NS: u64 = 300_000_000_000;

/// Time after which a fork that is to be given up is.
const GIVE_UP_NS: Span = Span::new(1_000_000, 2_000_000_000);

/// Simulated time for each of those.
const LOOK_NS_MAX: u64 = 600_000_000_000;

/// Names that it uses at a time.
const SLOTS: usize = 4;

/// Orders of a world: in one of three.
pub(super) fn draw_copies(seed: u64) -> u64 {
    let mut draws = Draws::new(seed);
    let there = draws.below(Stream::Copies, 10, 3) == 0;
    let orders = draws.logarithmic(Stream::Copies, 11, Span::new(5, 60));
    if there { orders } else { 0 }
}

/// Pages of the largest copy of a world that goes into the commit log: most databases are small, and copies
/// are to be made in both ways.
pub(super) fn draw_logged_pages(seed: u64) -> u32 {
    let mut draws = Draws::new(seed);
    [0, 4, 64][draws.index(Stream::Copies, 12, 3)]
}

/// Of what a copy is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub tenant: usize,
    /// When it was asked for.
    pub asked: Asked,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Fork { slot: usize, origin: Origin, from: Option<usize> },
    Read { slot: usize },
    Drop { slot: usize },
    Export { origin: Origin },
}

/// A name, and what may be found under it.
#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u64,
    /// What it is a copy of, if it may be there.
    origin: Option<Origin>,
    /// It is there for sure.
    there: bool,
}

impl Slot {
    /// Use another name from now on.
    fn give_up(&mut self) {
        *self = Slot { generation: self.generation + 1, ..Slot::default() };
    }
}

/// See the head of the file.
pub(super) struct Copyist {
    left: u64,
    slots: Vec<Slot>,
    link: Link<Order>,
    /// It only looks at what must be there, at these.
    looking: Option<BTreeSet<usize>>,
}

impl Copyist {
    /// The copyist of a world.
    pub fn new(sim: &mut Sim, options: &Options) -> Copyist {
        let mut copyist = Copyist {
            left: options.copies,
            slots: vec![Slot::default(); SLOTS],
            link: Link::new("the copyist", ID, Stream::Copies),
            looking: None,
        };
        if copyist.left > 0 {
            copyist.link.rest(sim);
        }
        copyist
    }

    fn name(&self, slot: usize) -> String {
        format!("copy-{slot}-{}", self.slots[slot].generation)
    }

    fn draw(&mut self, sim: &mut Sim, ground: &mut Ground) -> Order {
        let draws = sim.draws_mut();
        let slot = draws.index(Stream::Copies, 1, SLOTS);
        let other = draws.index(Stream::Copies, 2, SLOTS);
        let tenant = draws.index(Stream::Copies, 3, ground.tenants());
        let (what, of_copy) =
            (draws.below(Stream::Copies, 4, 10), draws.below(Stream::Copies, 5, 4));
        let origin = Origin { tenant, asked: ground.model.ask() };
        match what {
            0 | 1 => Order::Export { origin },
            2 if self.slots[slot].origin.is_some() => Order::Drop { slot },
            2..=5 if self.slots[slot].origin.is_some() => Order::Read { slot },
            _ if self.slots[slot].origin.is_some() => Order::Drop { slot },
            _ => match self.slots[other].origin.filter(|_| of_copy == 0 && other != slot) {
                Some(origin) => Order::Fork { slot, origin, from: Some(other) },
                None => Order::Fork { slot, origin, from: None },
            },
        }
    }

    /// The bytes of a request, and where it goes.
    fn request(&self, sim: &mut Sim, order: &Order) -> (Vec<u8>, &'static str) {
        match order {
            Order::Fork { slot, origin, from } => {
                let from = from.map_or_else(|| tenant_name(origin.tenant), |slot| self.name(slot));
                let to = self.name(*slot);
                if sim.draws_mut().below(Stream::Copies, 6, 2) == 0 {
                    let path = format!("/v1/namespaces/{from}/fork/{to}");
                    return (request("POST", &path, "sim", &[], b""), ADMIN);
                }
                let body = json!({ "seed": { "type": "database", "name": from } }).to_string();
                let path = format!("/v1/namespaces/{to}/create");
                (request("POST", &path, "sim", &[], body.as_bytes()), ADMIN)
            }
            Order::Drop { slot } => {
                let path = format!("/v1/namespaces/{}", self.name(*slot));
                (request("DELETE", &path, "sim", &[], b""), ADMIN)
            }
            Order::Read { slot } => {
                let origin = self.slots[*slot].origin.expect("it is read because it has one");
                (read(&self.name(*slot), &whose(origin)), LISTEN)
            }
            Order::Export { origin } => {
                let path = format!("/v1/namespaces/{}/export", tenant_name(origin.tenant));
                let whose = whose(*origin);
                (request("GET", &path, "sim", &[(WHOSE, whose.as_str())], b""), ADMIN)
            }
        }
    }

    fn ask(&mut self, sim: &mut Sim, order: Order) {
        let (outbox, address) = self.request(sim, &order);
        let mut patience_ns = PATIENCE_NS;
        let gives_up = sim.draws_mut().below(Stream::Copies, 7, 5) == 0;
        if gives_up && matches!(order, Order::Fork { .. } | Order::Export { .. }) {
            patience_ns = sim.draws_mut().logarithmic(Stream::Copies, 8, GIVE_UP_NS);
        }
        if let Order::Fork { slot, origin, .. } = order {
            self.slots[slot].origin = Some(origin);
        }
        self.link.ask(sim, address, &outbox, patience_ns, order);
    }

    fn give_up(&mut self, slot: usize) {
        self.slots[slot].give_up();
        if let Some(looking) = &mut self.looking {
            looking.remove(&slot);
        }
    }

    /// What a copy shows.
    fn hear_copy(
        &mut self,
        ground: &mut Ground,
        slot: usize,
        origin: Origin,
        response: &Response,
    ) -> Result<(), Violation> {
        speech::check_marks(origin.tenant, &response.body)?;
        let snapshot = match shown(response)? {
            Shown::Nothing => return Ok(()),
            Shown::Rows(snapshot) => Some(snapshot),
            // Reading may have made it, if the fork whose answer was lost has not.
            Shown::NoTable if !self.slots[slot].there && ground.options.create_on_first_use => {
                self.give_up(slot);
                return Ok(());
            }
            Shown::NoTable => None,
            Shown::Refused(refused) => {
                if is_lost(&ground.options, &refused, self.looking.is_some()) {
                    self.give_up(slot);
                }
                return ground.judge_copy_refusal(origin.tenant, &refused);
            }
        };
        // Whoever has the answer has all of it.
        self.slots[slot].there = true;
        if let Some(looking) = &mut self.looking {
            looking.remove(&slot);
        }
        judge(ground, origin, snapshot.as_ref())
    }

    /// From now on only look at what must be there.
    fn begin_to_look(&mut self, sim: &mut Sim) {
        self.hurry(sim);
        self.looking = Some((0..SLOTS).filter(|&slot| self.slots[slot].there).collect());
    }

    fn has_looked(&self) -> bool {
        self.looking.as_ref().is_some_and(BTreeSet::is_empty) && self.link.is_idle()
    }
}

/// The request that reads a copy: all that its original's clients would look at.
pub(super) fn read(name: &str, whose: &str) -> Vec<u8> {
    let read = speech::execute(ReadForm::Marks.statement(0));
    let body = json!({ "requests": [read, { "type": "close" }] }).to_string();
    let path = format!("/db/{name}/v3/pipeline");
    request("POST", &path, "sim", &[(WHOSE, whose)], body.as_bytes())
}

/// What came of that.
pub(super) enum Shown {
    /// The request was refused as a whole.
    Nothing,
    Rows(Snapshot),
    /// It is empty.
    NoTable,
    Refused(Refused),
}

/// What the answer says.
///
/// # Errors
/// HTTP-1 or FORK-1 if nobody can have written such rows.
pub(super) fn shown(response: &Response) -> Result<Shown, Violation> {
    let Ok(body) = speech::hear(response)? else { return Ok(Shown::Nothing) };
    match speech::results(&body, 2, response)?.swap_remove(0) {
        Ok(result) => match speech::found(&result) {
            Some(snapshot) => Ok(Shown::Rows(snapshot)),
            None => Err(Violation::new("FORK-1", format!("a copy shows strange rows: {result}"))),
        },
        Err(refused) if refused.is_no_table() => Ok(Shown::NoTable),
        Err(refused) => Ok(Shown::Refused(refused)),
    }
}

/// Whether a copy that answers so can never be read again. A block that cannot be read stays so until it is
/// written, which does not happen `in_the_end`.
pub(super) fn is_lost(options: &Options, refused: &Refused, in_the_end: bool) -> bool {
    let is_latent = in_the_end && options.faults.latent_sector_per_million > 0;
    refused.code == "SQLITE_IOERR" && is_latent
        || refused.code == "DATABASE_DAMAGED"
        || refused.code.starts_with("SQLITE_CORRUPT")
}

/// The field in which a request says to the monitor whose marks its answer may hold; the server does not
/// read it.
pub(super) const WHOSE: &str = "x-whose";

/// Its value for a copy of this.
pub(super) fn whose(origin: Origin) -> String {
    format!("/db/{}/", tenant_name(origin.tenant))
}

/// Judge what a copy or export shows as a read of its original when it was asked for.
pub(super) fn judge(
    ground: &mut Ground,
    origin: Origin,
    snapshot: Option<&Snapshot>,
) -> Result<(), Violation> {
    let Origin { tenant, asked } = origin;
    if ground.is_fenced(tenant) || ground.swapped.contains(&tenant) {
        // Nobody can say what it was.
        return Ok(());
    }
    ground.model.judge_read(tenant, asked, 0, snapshot)
}

impl Asker for Copyist {
    type Asked = Order;

    fn link(&mut self) -> &mut Link<Order> {
        &mut self.link
    }

    fn act(&mut self, sim: &mut Sim, ground: &mut Ground) -> Result<(), Violation> {
        let order = match &self.looking {
            Some(slots) => slots.first().map(|&slot| Order::Read { slot }),
            None if self.left == 0 => None,
            None => {
                self.left -= 1;
                Some(self.draw(sim, ground))
            }
        };
        if let Some(order) = order {
            self.ask(sim, order);
        }
        Ok(())
    }

    /// It may have been dropped, or a fork may still come to be there.
    fn lose(&mut self, _: &mut Sim, order: Order) {
        if let Order::Drop { slot } = order {
            self.slots[slot].give_up();
        }
    }

    fn hear(
        &mut self,
        _: &mut Sim,
        ground: &mut Ground,
        answer: &Answer<Order>,
    ) -> Result<(), Violation> {
        let Answer { asked: order, response, .. } = answer;
        let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let code = value["code"].as_str().unwrap_or_default();
        let excused = ground.options.excuses(response.status)
            || response.status == 409 && code == "DATABASE_DROPPED";
        let wrong = |what: &str| {
            let body = String::from_utf8_lossy(&response.body);
            let text = format!("{order:?}: {what}: {} {body:.300}", response.status);
            Err(Violation::new("FORK-1", text))
        };
        match *order {
            Order::Fork { slot, .. } => match response.status {
                200 => self.slots[slot].there = true,
                400 if code == "DATABASE_EXISTS" => return wrong("the name is free"),
                // Its original is not there, or is a copy that was never made.
                404 => self.slots[slot].give_up(),
                503 if code == "DATABASE_DAMAGED" => self.slots[slot].give_up(),
                _ if excused => self.slots[slot].give_up(),
                _ => return wrong("it cannot be made"),
            },
            Order::Drop { slot } => match response.status {
                404 if self.slots[slot].there => return wrong("it must be there"),
                200 | 404 => self.slots[slot].give_up(),
                _ if excused => self.slots[slot].give_up(),
                _ => return wrong("it cannot be dropped"),
            },
            Order::Read { slot } => {
                let origin = self.slots[slot].origin.expect("it is read because it has one");
                match response.status {
                    200 => return self.hear_copy(ground, slot, origin, response),
                    404 if self.slots[slot].there => return wrong("it must be there"),
                    404 | 503 => {
                        if code == "DATABASE_DAMAGED" && ground.options.has_disk_errors() {
                            self.give_up(slot);
                        }
                    }
                    _ if excused => {}
                    _ => return wrong("it cannot be read"),
                }
            }
            Order::Export { origin } => match response.status {
                200 => {
                    let snapshot = files::exported(&response.body)?;
                    judge(ground, origin, snapshot.as_ref())?;
                }
                404 | 503 => {}
                _ if excused => {}
                _ => return wrong("it cannot be exported"),
            },
        }
        Ok(())
    }
}

impl World {
    /// Without faults: what was acknowledged is there.
    pub(super) fn look_at_copies(&mut self) -> Result<(), Violation> {
        if self.ground.options.copies == 0 {
            return Ok(());
        }
        self.copyist.begin_to_look(&mut self.io);
        let left = |world: &World| format!("copies are not read: {:?}", world.copyist.looking);
        self.go_on_until((SLOTS as u64 + 1) * LOOK_NS_MAX, |it| it.copyist.has_looked(), left)
    }
}
