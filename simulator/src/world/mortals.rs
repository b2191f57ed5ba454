//! Mortals: databases that end by themselves, and storms of them, while everything else goes on.
//!
//! Fault model. In one world of three (`mortals` orders, none in the others) somebody works the admin
//! address, a new connection for each request, 10 ms to 10 s between two: databases are created, in
//! memory or durable, with drawn ages, idle times, budgets of statements and of spending, to be dropped
//! or frozen; they are used, shown, given other ages, and dropped. Now and then a storm: up to 300 are
//! created in one call and dropped in another, each with a key, asked again with it until it is
//! answered to its end. Whatever happens to the server happens in the middle of that.
//!
//! Expected: who was acknowledged is there until its time is over by the wall's clock, or until its
//! server ends if it is in memory, and no longer (LIFE-1; ages are not judged where that clock is
//! set); a receipt is even (BOOK-1); a call about many with a key of its own leaves out none of the
//! names that nobody else uses, and says the same when it is asked again (BULK-1). At the end, without
//! faults, who must be there is, and whose time is over goes in bounded time (LIVE-1).

use serde_json::{Value, json};
use storage::io::Clock;

use super::ground::Ground;
use super::link::{Answer, Asker, Link};
use super::model::Violation;
use super::options::{ADMIN, LISTEN, Options};
use super::speech;
use super::{Sim, World};
use crate::client::{Response, request};
use crate::draws::{Draws, Span, Stream};

/// Its number in timers.
const ID: u64 = 1 << 25;

/// Time after which a request without an answer is given up, and the connection with it.
const PATIENCE_NS: u64 = 300_000_000_000;

/// Simulated time for each look at the end, the longest age behind it.
const LOOK_NS_MAX: u64 = 900_000_000_000;

/// Names that it uses at a time.
const SLOTS: usize = 4;

const STORM_MAX: u64 = 300;

/// The longest age in seconds.
const AGE_MAX: u64 = 120;

/// Orders of a world: in one of three.
pub(super) fn draw_mortals(seed: u64) -> u64 {
    let mut draws = Draws::new(seed);
    let there = draws.below(Stream::Mortals, 10, 3) == 0;
    let orders = draws.logarithmic(Stream::Mortals, 11, Span::new(5, 80));
    if there { orders } else { 0 }
}

/// What is known of a name.
#[derive(Clone, Debug, Default)]
enum Known {
    /// Nobody has it.
    #[default]
    Absent,
    /// It was acknowledged.
    There(Mortal),
    /// An answer was lost.
    Unknown,
}

#[derive(Clone, Debug)]
struct Mortal {
    in_memory: bool,
    /// By its age, in seconds of the wall's clock.
    ends_s: Option<u64>,
    /// It may end before: by being idle, or by what it has used.
    may_end: bool,
    /// Of the server, in which it was made.
    life: u64,
}

#[derive(Clone, Debug)]
enum Order {
    Create {
        slot: usize,
        body: Value,
    },
    Show {
        slot: usize,
    },
    Use {
        slot: usize,
    },
    Age {
        slot: usize,
        ttl_s: u64,
    },
    Drop {
        slot: usize,
    },
    /// Drop what may be there still.
    Forget {
        name: String,
    },
    Storm {
        step: Step,
    },
}

/// An order, and when it was given by the wall's clock.
#[derive(Debug)]
pub(super) struct Asked {
    order: Order,
    at_s: u64,
}

/// A storm goes through these, each until it is answered to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    CreateAgain,
    Drop,
}

#[derive(Clone, Debug)]
struct Storm {
    number: u64,
    count: u64,
    in_memory: bool,
    /// Its databases have an age.
    ages: bool,
    step: Step,
    /// The last line of the answer to its creation.
    said: Option<Value>,
}

/// See the head of the file.
pub(super) struct Mortals {
    left: u64,
    slots: [Known; SLOTS],
    generations: [u64; SLOTS],
    storm: Option<Storm>,
    storms: u64,
    /// The wall's clock is not set in this world.
    judges_ages: bool,
    link: Link<Asked>,
    /// Names that were given up and may be there.
    abandoned: Vec<String>,
    /// It only looks at what is left, from this name on.
    looking: Option<usize>,
    /// That one was found there.
    seen: bool,
}

impl Mortals {
    /// The mortals of a world.
    pub fn new(sim: &mut Sim, options: &Options) -> Mortals {
        let steps = sim.faults_mut().wall_steps > 0;
        let mut mortals = Mortals {
            left: options.mortals,
            slots: Default::default(),
            generations: [0; SLOTS],
            storm: None,
            storms: 0,
            judges_ages: !steps,
            link: Link::new("a mortal's owner", ID, Stream::Mortals),
            abandoned: Vec::new(),
            looking: None,
            seen: false,
        };
        if mortals.left > 0 {
            mortals.link.rest(sim);
        }
        mortals
    }

    fn name(&self, slot: usize) -> String {
        format!("mortal-{slot}-{}", self.generations[slot])
    }

    /// Nobody can say any more what is under this name: use another.
    fn abandon(&mut self, slot: usize) {
        self.abandoned.push(self.name(slot));
        self.give_up(slot);
    }

    /// Nothing is under this name any more.
    fn give_up(&mut self, slot: usize) {
        self.generations[slot] += 1;
        self.slots[slot] = Known::Absent;
    }

    fn draw(&mut self, sim: &mut Sim, options: &Options) -> Order {
        let draws = sim.draws_mut();
        let mut pick = |entity: u64, bound: u64| draws.below(Stream::Mortals, entity, bound);
        let slot = pick(1, SLOTS as u64) as usize;
        let (what, age) = (pick(2, 12), 1 + pick(3, AGE_MAX));
        if what == 0 {
            let (count, in_memory, ages) =
                (1 + pick(4, STORM_MAX), pick(5, 2) == 0, pick(6, 3) == 0);
            self.storms += 1;
            let (number, step) = (self.storms, Step::Create);
            self.storm = Some(Storm { number, count, in_memory, ages, step, said: None });
            return Order::Storm { step };
        }
        if matches!(self.slots[slot], Known::Absent) {
            let mut body = json!({});
            body["class"] = ["memory", "durable"][pick(5, 2) as usize].into();
            body["on_end"] = ["drop", "freeze"][pick(6, 2) as usize].into();
            match pick(7, 6) {
                0 => body["idle_ttl"] = age.into(),
                1 => body["max_statements"] = (1 + pick(8, 10)).into(),
                2 => body["max_spend"] = (1 + pick(8, 200) as i64).into(),
                3 => {}
                _ => body["ttl"] = age.into(),
            }
            return Order::Create { slot, body };
        }
        match what {
            // A name that is not there would be made by its use.
            1..=4 if !options.create_on_first_use => Order::Use { slot },
            1..=7 => Order::Show { slot },
            8 => Order::Age { slot, ttl_s: age },
            _ => Order::Drop { slot },
        }
    }

    /// The bytes of a request, and where it goes.
    fn request(&self, order: &Order) -> (Vec<u8>, &'static str) {
        let (method, path, body, address) = match order {
            Order::Create { slot, body } => {
                let path = format!("/v1/namespaces/{}/create", self.name(*slot));
                ("POST", path, body.to_string(), ADMIN)
            }
            Order::Show { slot } => {
                ("GET", format!("/v1/namespaces/{}", self.name(*slot)), String::new(), ADMIN)
            }
            Order::Drop { slot } => {
                ("DELETE", format!("/v1/namespaces/{}", self.name(*slot)), String::new(), ADMIN)
            }
            Order::Forget { name } => {
                ("DELETE", format!("/v1/namespaces/{name}"), String::new(), ADMIN)
            }
            Order::Age { slot, ttl_s } => {
                let path = format!("/v1/namespaces/{}/settings", self.name(*slot));
                ("PATCH", path, json!({ "ttl": ttl_s }).to_string(), ADMIN)
            }
            Order::Use { slot } => {
                let statements = [
                    "CREATE TABLE IF NOT EXISTS t(a)",
                    "INSERT INTO t VALUES (randomblob(2000))",
                    "SELECT count(*) FROM t",
                ];
                let mut requests: Vec<Value> =
                    statements.iter().map(|sql| speech::execute(json!({ "sql": sql }))).collect();
                requests.push(json!({ "type": "close" }));
                let path = format!("/db/{}/v2/pipeline", self.name(*slot));
                ("POST", path, json!({ "requests": requests }).to_string(), LISTEN)
            }
            Order::Storm { step } => {
                let storm = self.storm.as_ref().expect("there is one");
                let (what, mut body) = match step {
                    Step::Drop => ("drop", json!({})),
                    _ => (
                        "create",
                        json!({ "class": if storm.in_memory { "memory" } else { "durable" } }),
                    ),
                };
                if storm.ages && *step != Step::Drop {
                    body["ttl"] = 3.into();
                }
                body["prefix"] = format!("storm-{}-", storm.number).into();
                body["count"] = storm.count.into();
                let key = format!("{what}-{}", storm.number);
                let bytes = request(
                    "POST",
                    &format!("/v1/bulk/{what}"),
                    "sim",
                    &[("idempotency-key", key.as_str())],
                    body.to_string().as_bytes(),
                );
                return (bytes, ADMIN);
            }
        };
        (request(method, &path, "sim", &[], body.as_bytes()), address)
    }

    fn may_end(&mut self, slot: usize) {
        if let Known::There(mortal) = &mut self.slots[slot] {
            mortal.may_end = true;
        }
    }

    /// What its row says.
    fn see(&mut self, slot: usize, heard: &Heard, value: &Value) {
        let before = match &self.slots[slot] {
            Known::There(mortal) => Some(mortal.clone()),
            _ => None,
        };
        let frozen = value["state"] == "frozen";
        self.slots[slot] = Known::There(Mortal {
            in_memory: value["class"] == "memory",
            ends_s: value["ends_at"].as_u64(),
            // What its own words are, nobody remembers.
            may_end: before.as_ref().is_none_or(|mortal| mortal.may_end) && !frozen,
            life: before.map_or(heard.life, |mortal| mortal.life),
        });
        let over = value["ends_at"].as_u64().is_some_and(|ends_s| ends_s <= heard.now_s + AGE_MAX);
        self.seen = (!over || frozen) && self.looking == Some(slot);
    }

    fn look_at_next(&mut self, slot: usize) {
        if self.looking == Some(slot) {
            self.looking = Some(slot + 1);
            self.seen = false;
        }
    }

    /// It is not there: why it should be.
    fn is_too_early(&self, slot: usize, heard: &Heard) -> Option<&'static str> {
        let Known::There(mortal) = &self.slots[slot] else { return None };
        let lost = mortal.in_memory && heard.life != mortal.life;
        let over = mortal.ends_s.is_some_and(|ends_s| heard.now_s >= ends_s);
        let judged = mortal.ends_s.is_none() || self.judges_ages;
        (!lost && !mortal.may_end && !over && judged).then_some("it has ended too early")
    }

    /// It is there: why it should not be.
    fn is_too_late(&self, slot: usize, heard: &Heard) -> Option<&'static str> {
        let Known::There(mortal) = &self.slots[slot] else { return None };
        let ended = mortal.in_memory && heard.life != mortal.life;
        ended.then_some("it was in the memory of another life")
    }

    /// A storm's answer, to its end or broken off.
    fn hear_storm(
        &mut self,
        step: Step,
        heard: &Heard,
        response: &Response,
    ) -> Result<(), Violation> {
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let last: Value = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .unwrap_or(Value::Null);
        if last["finished"] != true {
            return Ok(());
        }
        let storm = self.storm.as_mut().expect("it was asked for");
        let failed = last["failed"].as_array().map_or(0, Vec::len) as u64;
        let wrong = |what: &str| {
            let text = format!("{storm:?}: {what}: {last:.800}; {heard:?}");
            Err(Violation::new("BULK-1", text))
        };
        if last["done"] != storm.count || last["succeeded"] != storm.count - failed {
            return wrong("its numbers do not fit");
        }
        match step {
            Step::Create if failed > 0 => return wrong("a name of its own was not free"),
            Step::Create => {
                storm.said = Some(last);
                storm.step = Step::CreateAgain;
            }
            Step::CreateAgain if storm.said.as_ref() != Some(&last) => {
                return wrong("the second answer is another");
            }
            Step::CreateAgain => storm.step = Step::Drop,
            Step::Drop => {
                let may_have_gone = storm.ages || storm.in_memory;
                if failed > 0 && !may_have_gone {
                    return wrong("what was created is not there to be dropped");
                }
                if last["receipt"]["taken"]["heap"] != last["receipt"]["returned"]["heap"] {
                    return wrong("the sum of its receipts is not even");
                }
                self.storm = None;
            }
        }
        Ok(())
    }

    /// From now on only look at what is left.
    fn begin_to_look(&mut self, sim: &mut Sim) {
        self.hurry(sim);
        self.looking = Some(0);
    }

    fn has_looked(&self) -> bool {
        let all = self.looking == Some(SLOTS) && self.abandoned.is_empty();
        all && self.link.is_idle() && self.storm.is_none()
    }
}

/// When something was asked and heard, in seconds of the wall's clock, and which life of the server
/// answered.
#[derive(Debug)]
struct Heard {
    #[expect(dead_code, reason = "it is printed")]
    asked_s: u64,
    now_s: u64,
    life: u64,
}

impl Asker for Mortals {
    type Asked = Asked;

    fn link(&mut self) -> &mut Link<Asked> {
        &mut self.link
    }

    fn act(&mut self, sim: &mut Sim, ground: &mut Ground) -> Result<(), Violation> {
        let order = match (&self.storm, self.looking) {
            (Some(storm), _) => Some(Order::Storm { step: storm.step }),
            (None, Some(slot)) if slot < SLOTS && self.seen => Some(Order::Drop { slot }),
            (None, Some(slot)) if slot < SLOTS => Some(Order::Show { slot }),
            (None, Some(_)) => {
                self.abandoned.last().map(|name| Order::Forget { name: name.clone() })
            }
            (None, None) if self.left == 0 => None,
            (None, None) => {
                self.left -= 1;
                Some(self.draw(sim, &ground.options))
            }
        };
        if let Some(order) = order {
            let (bytes, address) = self.request(&order);
            let asked = Asked { order, at_s: sim.wall().0 / 1_000_000_000 };
            self.link.ask(sim, address, &bytes, PATIENCE_NS, asked);
        }
        Ok(())
    }

    fn lose(&mut self, _: &mut Sim, asked: Asked) {
        match asked.order {
            Order::Drop { slot } => self.abandon(slot),
            Order::Create { slot, .. } | Order::Age { slot, .. } => {
                self.slots[slot] = Known::Unknown;
            }
            Order::Use { slot } => self.may_end(slot),
            Order::Show { .. } | Order::Forget { .. } | Order::Storm { .. } => {}
        }
    }

    fn hear(
        &mut self,
        sim: &mut Sim,
        ground: &mut Ground,
        answer: &Answer<Asked>,
    ) -> Result<(), Violation> {
        let Answer { asked: Asked { order, at_s }, response, life } = answer;
        let heard = &Heard { asked_s: *at_s, now_s: sim.wall().0 / 1_000_000_000, life: *life };
        let options = &ground.options;
        let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let code = value["code"].as_str().unwrap_or_default().to_owned();
        let status = response.status;
        let excused = options.excuses(status) || status == 500 && code == "SQLITE_NOMEM";
        let wrong = |property: &'static str, what: &str| {
            let body = String::from_utf8_lossy(&response.body);
            let text = format!("{order:?}: {what}: {status} {body:.600}; {heard:?}");
            Err(Violation::new(property, text))
        };
        match order {
            Order::Create { slot, body } => match status {
                200 => {
                    let may_end = ["idle_ttl", "max_statements", "max_spend"]
                        .iter()
                        .any(|part| body[*part].is_u64());
                    self.slots[*slot] = Known::There(Mortal {
                        in_memory: body["class"] == "memory",
                        ends_s: value["ends_at"].as_u64(),
                        may_end,
                        life: *life,
                    });
                }
                400 if code == "DATABASE_EXISTS" => return wrong("LIFE-1", "the name is free"),
                _ if excused => self.slots[*slot] = Known::Unknown,
                _ => return wrong("ERR-1", "it cannot be created"),
            },
            Order::Show { slot } | Order::Age { slot, .. } => match status {
                200 => {
                    if let Some(what) = self.is_too_late(*slot, heard) {
                        return wrong("LIFE-1", what);
                    }
                    match order {
                        Order::Show { .. } => self.see(*slot, heard, &value),
                        // When that is, its row will say.
                        _ => self.slots[*slot] = Known::Unknown,
                    }
                }
                404 => {
                    if let Some(what) = self.is_too_early(*slot, heard) {
                        return wrong("LIFE-1", what);
                    }
                    self.give_up(*slot);
                    self.look_at_next(*slot);
                }
                503 if code == "DATABASE_DAMAGED" => self.abandon(*slot),
                _ if excused => {}
                _ => return wrong("ERR-1", "it cannot be looked at"),
            },
            Order::Use { slot } => match status {
                200 | 410 => {}
                404 => {
                    if let Some(what) = self.is_too_early(*slot, heard) {
                        return wrong("LIFE-1", what);
                    }
                    self.give_up(*slot);
                }
                503 if code == "DATABASE_DAMAGED" => self.abandon(*slot),
                _ if excused => {}
                _ => return wrong("ERR-1", "it cannot be used"),
            },
            Order::Drop { slot } => match status {
                200 => {
                    if value["receipt"]["taken"]["heap"] != value["receipt"]["returned"]["heap"]
                        || (value["receipt"]["even"] != true && !options.has_disk_errors())
                    {
                        return wrong("BOOK-1", "a receipt is not even");
                    }
                    self.give_up(*slot);
                    self.look_at_next(*slot);
                }
                404 => {
                    if let Some(what) = self.is_too_early(*slot, heard) {
                        return wrong("LIFE-1", what);
                    }
                    self.give_up(*slot);
                    self.look_at_next(*slot);
                }
                _ if excused => self.abandon(*slot),
                _ => return wrong("ERR-1", "it cannot be dropped"),
            },
            Order::Forget { .. } => match status {
                200 | 404 => drop(self.abandoned.pop()),
                _ if excused => {}
                _ => return wrong("ERR-1", "it cannot be dropped"),
            },
            Order::Storm { step } => match status {
                200 => return self.hear_storm(*step, heard, response),
                409 if code == "IDEMPOTENCY_KEY_IN_USE" => {}
                _ if excused => {}
                _ => return wrong("BULK-1", "a storm is refused"),
            },
        }
        Ok(())
    }
}

impl World {
    /// Without faults: who must be there is, and whose time is over goes.
    pub(super) fn look_at_mortals(&mut self) -> Result<(), Violation> {
        if self.ground.options.mortals == 0 {
            return Ok(());
        }
        self.mortals.begin_to_look(&mut self.io);
        let left = |world: &World| {
            let Mortals { looking, slots, storm, .. } = &world.mortals;
            format!("mortals do not end: {looking:?} {slots:?} {storm:?}")
        };
        self.go_on_until((SLOTS as u64 + 1) * LOOK_NS_MAX, |it| it.mortals.has_looked(), left)?;
        let counters = self.server.as_ref().map(|server| server.engine().counters());
        match counters.map_or(0, |counters| counters.uneven_receipts) {
            0 => Ok(()),
            uneven => Err(Violation::new("BOOK-1", format!("{uneven} receipts are not even"))),
        }
    }
}
