//! The caster: databases that begin as copies of a mould, the template of the group they are created in.
//!
//! Fault model. In one world of three (`casts` orders, none in the others) somebody works the admin address,
//! 10 ms to 10 s between two requests: an organisation and a group of its own, clients' databases moved into
//! it to be the group's template, one after the other, or none; databases created there, one by one, in calls
//! about many, and in memory; reads and drops of them. Some creates are given up before they are answered.
//! Meanwhile the moulds are written to, dropped and made again by clients, moved elsewhere by the landlord,
//! and whatever happens to the server happens in the middle of that.
//!
//! Expected: what was created shows what a mould of that time showed at one moment after it was asked for, and
//! the model judges it as a read of the mould that was sent then (DUR-1, ISO-1, ATOM-1, TEN-1); with no
//! template, or in memory, it begins empty. What was acknowledged is there until it is dropped, or until its
//! server ends if it is in memory; a create whose answer was lost made a whole copy or none; a name whose
//! create found no template is free (FORK-1). At the end, without faults, each that must be there is read
//! once more, in bounded time (LIVE-1).
//!
//! Outside: copies are not written to; templates that an organisation has, or a first use follows.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use storage::io::{Clock, Instant};

use super::copyist::{Origin, Shown, is_lost, judge, read, shown, whose};
use super::ground::Ground;
use super::link::{Answer, Asker, Link};
use super::model::{Violation, tenant_name};
use super::options::{ADMIN, LISTEN, Options};
use super::speech;
use super::{Sim, World};
use crate::client::{Response, request};
use crate::draws::{Draws, Span, Stream};

/// The caster's number in timers.
const ID: u64 = (1 << 25) + 1;

/// Time after which a request without an answer is given up, and the connection with it.
const PATIENCE_NS: u64 = 300_000_000_000;

/// Time after which a create that is to be given up is.
const GIVE_UP_NS: Span = Span::new(1_000_000, 2_000_000_000);

/// Longer than a request of somebody who has hung up is on its way.
const UNDER_WAY_NS: u64 = 60_000_000_000;

/// Simulated time for each look in the end.
const LOOK_NS_MAX: u64 = 600_000_000_000;

/// Names that it uses at a time.
const SLOTS: usize = 4;

/// Databases in a call about many.
const MANY_MAX: u64 = 20;

const ORGANISATION: &str = "/v1/organisations/foundry";
const GROUP: &str = "/v1/organisations/foundry/groups/moulds";
const GROUP_NAME: &str = "foundry/moulds";

/// Orders of a world: in one of three.
pub(super) fn draw_casts(seed: u64) -> u64 {
    let mut draws = Draws::new(seed);
    let there = draws.below(Stream::Casts, 10, 3) == 0;
    let orders = draws.logarithmic(Stream::Casts, 11, Span::new(10, 120));
    if there { orders } else { 0 }
}

/// How a database is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Alone,
    /// In a call about many.
    Many,
    InMemory,
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// The organisation, or the group in it.
    Prepare {
        path: &'static str,
    },
    /// A client's database comes into the group, to be its template.
    Move {
        tenant: usize,
    },
    Set {
        mould: Option<usize>,
    },
    Cast {
        slot: usize,
        form: Form,
    },
    /// One of those that were created in one call.
    Read {
        slot: usize,
        number: u64,
    },
    Drop {
        slot: usize,
    },
    /// Drop what was given up and may be in memory still.
    Forget,
}

/// A mould, or none, and what is as old as that at least.
type Cause = Option<Origin>;

/// A name, and what may be found under it.
#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u64,
    /// What it may be a cast of; empty if nobody has asked for it.
    causes: Vec<Cause>,
    in_memory: bool,
    /// The call about many that it was asked for in, and how many those are.
    call: Option<(u64, u64)>,
    /// It is there for sure, since this life of the server.
    there: Option<u64>,
}

impl Slot {
    fn is_asked_for(&self) -> bool {
        !self.causes.is_empty()
    }
}

/// An order, and when it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    order: Order,
    at: Instant,
}

/// See the head of the file.
pub(super) struct Caster {
    left: u64,
    calls: u64,
    slots: Vec<Slot>,
    link: Link<Asked>,
    /// What is to be made before anything is cast, the next at the end.
    unprepared: Vec<&'static str>,
    /// What the template may be.
    moulds: Vec<Option<usize>>,
    /// When an answer about that was lost: for a while it may still change.
    doubtful_since: Option<Instant>,
    /// Another one is wanted.
    wants_mould: bool,
    /// The one that has come into the group.
    moved: Option<usize>,
    /// A call about many whose answer was lost: it is asked for again.
    again: Option<usize>,
    /// Names that were given up, and may be in memory: nobody else ends those.
    abandoned: Vec<String>,
    /// It only looks at what must be there, at these.
    looking: Option<BTreeSet<usize>>,
}

impl Caster {
    /// The caster of a world.
    pub fn new(sim: &mut Sim, options: &Options) -> Caster {
        let mut caster = Caster {
            left: options.casts,
            calls: 0,
            slots: vec![Slot::default(); SLOTS],
            link: Link::new("the caster", ID, Stream::Casts),
            unprepared: vec![GROUP, ORGANISATION],
            moulds: vec![None],
            doubtful_since: None,
            wants_mould: true,
            moved: None,
            again: None,
            abandoned: Vec::new(),
            looking: None,
        };
        if caster.left > 0 {
            caster.link.rest(sim);
        }
        caster
    }

    fn name(&self, slot: usize, number: u64) -> String {
        format!("cast-{slot}-{}-{number}", self.slots[slot].generation)
    }

    /// All that were asked for together.
    fn names(&self, slot: usize) -> Vec<String> {
        let count = self.slots[slot].call.map_or(1, |(_, count)| count);
        (0..count).map(|number| self.name(slot, number)).collect()
    }

    /// This may be the template from now on, also for what was asked for before.
    fn will_be(&mut self, mould: Option<usize>, ground: &mut Ground) {
        if !self.moulds.contains(&mould) {
            self.moulds.push(mould);
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.is_asked_for()) {
            if slot.there.is_none() {
                let origin = |tenant| Origin { tenant, asked: ground.model.ask() };
                slot.causes.push(mould.map(origin));
            }
        }
    }

    fn draw(&mut self, sim: &mut Sim, ground: &Ground) -> Order {
        if let Some(path) = self.unprepared.last() {
            return Order::Prepare { path };
        }
        if let Some(tenant) = self.moved.take() {
            return Order::Set { mould: Some(tenant) };
        }
        if let Some(slot) = self.again.take() {
            return Order::Cast { slot, form: Form::Many };
        }
        let draws = sim.draws_mut();
        let mut pick = |entity: u64, bound: usize| draws.index(Stream::Casts, entity, bound);
        let (slot, what) = (pick(1, SLOTS), pick(2, 12));
        let tenant = pick(3, ground.tenants());
        let form = [Form::Alone, Form::Alone, Form::Many, Form::Many, Form::InMemory][pick(4, 5)];
        if std::mem::take(&mut self.wants_mould) || what == 0 {
            return match pick(5, 12) {
                0 => Order::Set { mould: None },
                _ => Order::Move { tenant },
            };
        }
        match what {
            1..=5 if self.slots[slot].is_asked_for() => Order::Drop { slot },
            // The same call goes on where the one that was lost has ended.
            7.. if self.slots[slot].call.is_some() && self.slots[slot].there.is_none() => {
                Order::Cast { slot, form: Form::Many }
            }
            _ if self.slots[slot].is_asked_for() => {
                let count = self.slots[slot].call.map_or(1, |(_, count)| count);
                Order::Read { slot, number: pick(6, count as usize) as u64 }
            }
            _ => Order::Cast { slot, form },
        }
    }

    /// The bytes of a request, and where it goes.
    fn request(&self, order: &Order) -> (Vec<u8>, &'static str) {
        let admin = |method: &str, path: &str, body: Value| {
            let bytes = request(method, path, "sim", &[], body.to_string().as_bytes());
            (bytes, ADMIN)
        };
        match order {
            Order::Prepare { path } => admin("PUT", path, json!({})),
            Order::Move { tenant } => {
                let path = format!("/v1/namespaces/{}/budget", tenant_name(*tenant));
                admin("PUT", &path, json!({ "group": GROUP_NAME }))
            }
            Order::Set { mould } => {
                let path = format!("{GROUP}/settings");
                admin("PATCH", &path, json!({ "template": mould.map(tenant_name) }))
            }
            Order::Cast { slot, form: Form::Many } => {
                let (call, _) = self.slots[*slot].call.expect("it was counted");
                let body = json!({ "names": self.names(*slot), "group": GROUP_NAME }).to_string();
                let key = format!("cast-{call}");
                let fields = [("idempotency-key", key.as_str())];
                (request("POST", "/v1/bulk/create", "sim", &fields, body.as_bytes()), ADMIN)
            }
            Order::Cast { slot, form } => {
                let class = if *form == Form::InMemory { "memory" } else { "durable" };
                let path = format!("/v1/namespaces/{}/create", self.name(*slot, 0));
                admin("POST", &path, json!({ "group": GROUP_NAME, "class": class }))
            }
            Order::Drop { slot } if self.slots[*slot].call.is_some() => {
                admin("POST", "/v1/bulk/drop", json!({ "names": self.names(*slot) }))
            }
            Order::Drop { slot } => {
                let path = format!("/v1/namespaces/{}", self.name(*slot, 0));
                (request("DELETE", &path, "sim", &[], b""), ADMIN)
            }
            Order::Forget => {
                let name = self.abandoned.last().expect("it is asked for");
                (request("DELETE", &format!("/v1/namespaces/{name}"), "sim", &[], b""), ADMIN)
            }
            Order::Read { slot, number } => {
                let causes = self.slots[*slot].causes.iter().flatten();
                let whose: Vec<String> = causes.map(|origin| whose(*origin)).collect();
                (read(&self.name(*slot, *number), &whose.join(" ")), LISTEN)
            }
        }
    }

    /// Whether it was acknowledged, and what it is in has not ended before this life of the server.
    fn must_be_there(&self, slot: usize, life: u64) -> bool {
        let Slot { there, in_memory, .. } = self.slots[slot];
        there.is_some_and(|since| !in_memory || since == life)
    }

    /// What came of a create.
    fn hear_cast(
        &mut self,
        options: &Options,
        slot: usize,
        form: Form,
        answer: &Answer<Asked>,
    ) -> Result<(), Violation> {
        let Answer { asked, response, life } = answer;
        let text = String::from_utf8_lossy(&response.body);
        let (mut made, mut code) = (response.status == 200, String::new());
        let said: Option<Value> =
            text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        let said = said.unwrap_or(Value::Null);
        if form == Form::Many && made {
            if said["finished"] != true {
                // It was broken off: nobody knows.
                return Ok(());
            }
            let words = said["failed"].as_array().into_iter().flatten();
            let words: BTreeSet<&str> = words.filter_map(|one| one["code"].as_str()).collect();
            // What a name that is free hears comes first.
            let word = words.get("DATABASE_EXISTS").or(words.first());
            if let Some(word) = word {
                (made, code) = (false, (*word).to_owned());
            }
        } else {
            said["code"].as_str().unwrap_or_default().clone_into(&mut code);
        }
        if made {
            self.slots[slot].there = Some(*life);
            return Ok(());
        }
        match code.as_str() {
            "IDEMPOTENCY_KEY_IN_USE" if form == Form::Many => {}
            "DATABASE_EXISTS" => return wrong(asked, "the name is free", response),
            "TEMPLATE_NOT_FOUND" => {
                let nothing_else = self.slots[slot].causes.iter().all(Option::is_none);
                if nothing_else {
                    return wrong(asked, "there is no template", response);
                }
                self.wants_mould = true;
                if form == Form::Many {
                    // Some of them may have been made before.
                    self.give_up(slot);
                } else {
                    // The name is as free as before.
                    let Slot { generation, .. } = self.slots[slot];
                    self.slots[slot] = Slot { generation, ..Slot::default() };
                }
            }
            // Of many each has its own word.
            _ if form == Form::Many && response.status == 200 => self.give_up(slot),
            "DATABASE_DROPPED" => self.give_up(slot),
            _ if options.excuses(response.status) => self.give_up(slot),
            _ => return wrong(asked, "it cannot be created", response),
        }
        Ok(())
    }

    /// Use another name from now on.
    fn give_up(&mut self, slot: usize) {
        if self.slots[slot].in_memory {
            self.abandoned.push(self.name(slot, 0));
        }
        let generation = self.slots[slot].generation + 1;
        self.slots[slot] = Slot { generation, ..Slot::default() };
        if let Some(looking) = &mut self.looking {
            looking.remove(&slot);
        }
    }

    /// What a cast shows.
    fn hear_rows(
        &mut self,
        ground: &mut Ground,
        slot: usize,
        answer: &Answer<Asked>,
    ) -> Result<(), Violation> {
        let Answer { response, life, .. } = answer;
        let bad = |what: &str| {
            let text = String::from_utf8_lossy(&response.body);
            Err(Violation::new("FORK-1", format!("cast {slot}: {what}: {text:.600}")))
        };
        let Slot { causes, in_memory, .. } = self.slots[slot].clone();
        let shows = |origin: &&Origin| speech::check_marks(origin.tenant, &response.body).is_ok();
        let origin = causes.iter().flatten().find(shows).copied();
        if origin.is_none() && causes.iter().all(Option::is_some) {
            return bad("it shows rows of a database that was no template then");
        }
        let snapshot = match shown(response)? {
            Shown::Nothing => return Ok(()),
            Shown::Rows(_) if in_memory => return bad("in memory it begins empty"),
            Shown::Rows(_) if origin.is_none() => {
                return bad("it was created without a template, and is not empty");
            }
            Shown::Rows(snapshot) => Some(snapshot),
            // Reading may have made it, if the create has not, or its server has ended.
            Shown::NoTable
                if ground.options.create_on_first_use && !self.must_be_there(slot, *life) =>
            {
                self.give_up(slot);
                return Ok(());
            }
            Shown::NoTable => None,
            Shown::Refused(refused) => {
                if is_lost(&ground.options, &refused, self.looking.is_some()) {
                    self.give_up(slot);
                }
                let of = origin.map_or(0, |origin| origin.tenant);
                return ground.judge_copy_refusal(of, &refused);
            }
        };
        self.seen(slot, *life);
        match (origin, &snapshot) {
            // Of an empty one nobody can tell of which it is, if there are several.
            (Some(_), None) if in_memory || causes.len() > 1 => Ok(()),
            (Some(origin), snapshot) => judge(ground, origin, snapshot.as_ref()),
            (None, _) => Ok(()),
        }
    }

    /// It was read: whoever has the answer has all of it.
    fn seen(&mut self, slot: usize, life: u64) {
        let state = &mut self.slots[slot];
        // Of several each was made by itself.
        if state.call.is_none_or(|(_, count)| count == 1) {
            state.there.get_or_insert(life);
        }
        if let Some(looking) = &mut self.looking {
            looking.remove(&slot);
        }
    }

    /// From now on only look at what must be there.
    fn begin_to_look(&mut self, sim: &mut Sim) {
        if self.hurry(sim) {
            self.link.rest_for(sim, UNDER_WAY_NS);
        }
        for slot in 0..SLOTS {
            if self.slots[slot].in_memory {
                self.give_up(slot);
            }
        }
        let lasts = |&slot: &usize| self.slots[slot].there.is_some();
        let looking = (0..SLOTS).filter(lasts).collect();
        self.looking = Some(looking);
    }

    fn has_looked(&self) -> bool {
        let all = self.looking.as_ref().is_some_and(BTreeSet::is_empty);
        all && self.abandoned.is_empty() && self.link.is_idle()
    }
}

impl Asker for Caster {
    type Asked = Asked;

    fn link(&mut self) -> &mut Link<Asked> {
        &mut self.link
    }

    fn act(&mut self, sim: &mut Sim, ground: &mut Ground) -> Result<(), Violation> {
        let order = match &self.looking {
            Some(slots) => match (slots.first(), self.abandoned.last()) {
                (Some(&slot), _) => Some(Order::Read { slot, number: 0 }),
                (None, Some(_)) => Some(Order::Forget),
                (None, None) => None,
            },
            None if self.left == 0 => None,
            None => {
                self.left -= 1;
                Some(self.draw(sim, ground))
            }
        };
        let Some(order) = order else { return Ok(()) };
        let mut patience_ns = PATIENCE_NS;
        let gives_up = sim.draws_mut().below(Stream::Casts, 7, 5) == 0;
        match order {
            Order::Set { mould } => self.will_be(mould, ground),
            Order::Cast { slot, form } => {
                if gives_up {
                    patience_ns = sim.draws_mut().logarithmic(Stream::Casts, 8, GIVE_UP_NS);
                }
                let cause = |mould: &Option<usize>| {
                    mould.map(|tenant| Origin { tenant, asked: ground.model.ask() })
                };
                let state = &mut self.slots[slot];
                state.causes.extend(self.moulds.iter().map(cause));
                state.in_memory = form == Form::InMemory;
                if form == Form::Many && state.call.is_none() {
                    let span = Span::new(1, MANY_MAX);
                    let count = sim.draws_mut().logarithmic(Stream::Casts, 9, span);
                    self.calls += 1;
                    state.call = Some((self.calls, count));
                }
            }
            _ => {}
        }
        let (bytes, address) = self.request(&order);
        let asked = Asked { order, at: sim.now() };
        self.link.ask(sim, address, &bytes, patience_ns, asked);
        Ok(())
    }

    fn lose(&mut self, sim: &mut Sim, asked: Asked) {
        match asked.order {
            Order::Drop { slot } => self.give_up(slot),
            Order::Set { .. } => self.doubtful_since = Some(sim.now()),
            Order::Move { .. } => self.wants_mould = true,
            Order::Cast { slot, form: Form::Many } => self.again = Some(slot),
            Order::Prepare { .. } | Order::Cast { .. } | Order::Read { .. } | Order::Forget => {}
        }
    }

    fn hear(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        answer: &Answer<Asked>,
    ) -> Result<(), Violation> {
        let Answer { asked, response, life } = answer;
        let (order, status) = (asked.order, response.status);
        let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let code = value["code"].as_str().unwrap_or_default();
        let excused = ground.options.excuses(status) || status == 409 && code == "DATABASE_DROPPED";
        match order {
            Order::Prepare { .. } if status == 200 => drop(self.unprepared.pop()),
            Order::Move { tenant } if status == 200 => self.moved = Some(tenant),
            Order::Move { .. } if status == 404 || excused => self.wants_mould = true,
            Order::Set { mould } if status == 200 => {
                let is_sure =
                    self.doubtful_since.is_none_or(|at| asked.at > at.after(UNDER_WAY_NS));
                if is_sure {
                    (self.moulds, self.doubtful_since) = (vec![mould], None);
                }
            }
            // It has been dropped since it came, or gone elsewhere. Where that was not said for sure, it may
            // have been set.
            Order::Set { .. } if status == 404 && code == "TEMPLATE_NOT_FOUND" => {
                self.wants_mould = true;
            }
            Order::Set { .. } if excused => self.doubtful_since = Some(sim.now()),
            Order::Cast { slot, form } => {
                return self.hear_cast(&ground.options, slot, form, answer);
            }
            Order::Drop { slot } => match status {
                404 if self.must_be_there(slot, *life) => {
                    return wrong(asked, "it must be there", response);
                }
                200 if self.slots[slot].there.is_some() && is_missing(response) => {
                    return wrong(asked, "all must be there", response);
                }
                200 | 404 => self.give_up(slot),
                _ if excused => self.give_up(slot),
                _ => return wrong(asked, "it cannot be dropped", response),
            },
            Order::Forget if matches!(status, 200 | 404) => drop(self.abandoned.pop()),
            Order::Read { slot, .. } => match status {
                200 => return self.hear_rows(ground, slot, answer),
                404 if self.must_be_there(slot, *life) => {
                    return wrong(asked, "it must be there", response);
                }
                404 => {}
                503 if code == "DATABASE_DAMAGED" && ground.options.has_disk_errors() => {
                    self.give_up(slot);
                }
                _ if excused => {}
                _ => return wrong(asked, "it cannot be read", response),
            },
            Order::Prepare { .. } | Order::Forget if excused => {}
            _ => return wrong(asked, "it cannot be done", response),
        }
        Ok(())
    }
}

/// Whether a call about many says that one of them is not there.
fn is_missing(response: &Response) -> bool {
    let text = String::from_utf8_lossy(&response.body);
    let last: Option<Value> = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let failed = last.unwrap_or(Value::Null)["failed"].take();
    let failed = failed.as_array();
    failed.is_some_and(|all| all.iter().any(|one| one["code"] == "DATABASE_NOT_FOUND"))
}

/// What the server answered cannot be.
fn wrong(asked: &Asked, what: &str, response: &Response) -> Result<(), Violation> {
    let text = String::from_utf8_lossy(&response.body);
    let text = format!("{asked:?}: {what}: {} {text:.300}", response.status);
    Err(Violation::new("FORK-1", text))
}

impl World {
    /// Without faults: what was acknowledged is there.
    pub(super) fn look_at_casts(&mut self) -> Result<(), Violation> {
        if self.ground.options.casts == 0 {
            return Ok(());
        }
        self.caster.begin_to_look(&mut self.io);
        let left = |world: &World| format!("casts are not read: {:?}", world.caster.looking);
        self.go_on_until((SLOTS as u64 + 1) * LOOK_NS_MAX, |it| it.caster.has_looked(), left)
    }
}
