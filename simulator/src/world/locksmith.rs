//! The locksmith: keys made, used, and revoked, while the server ends and begins again.
//!
//! Fault model. In one world of four (`keys` orders, none in the others) everybody is asked for a key:
//! all other clients and those of the admin address have the operator's (`client::present`). The
//! locksmith works both addresses, a new connection for each request, 10 ms to 10 s between two: it makes
//! keys, opens a stream with one and comes back to it, revokes one, and tries those that are revoked, also
//! on the streams that they opened. Some requests are given up before they are answered.
//!
//! Expected: a key whose making was answered opens until somebody asks to revoke it (KEY-1). One whose
//! revocation was answered, or that was refused once since that was asked for, opens nothing ever again,
//! in no stream either (KEY-2): all of it across every end of the server. A key that never was is refused
//! always. At the end, without faults, each key is tried once more, in bounded time (LIVE-1).
//!
//! Outside: roles and scopes, which tests of the server's own go through; keys that expire.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use server::auth::key;
use storage::io::Entropy;

use super::ground::Ground;
use super::link::{Answer, Asker, Link};
use super::model::Violation;
use super::options::{ADMIN, LISTEN, Options};
use super::{Sim, World};
use crate::client::request;
use crate::draws::{Draws, Span, Stream};

/// The locksmith's number in timers, behind the copyist's; gluttons are above.
const ID: u64 = (1 << 21) + 3;

/// Time after which a request without an answer is given up, and the connection with it.
const PATIENCE_NS: u64 = 60_000_000_000;

/// Time after which a request that is to be given up is.
const GIVE_UP_NS: Span = Span::new(100_000, 1_000_000_000);

/// Simulated time for each of those.
const LOOK_NS_MAX: u64 = 120_000_000_000;

/// Keys at a time.
const SLOTS: usize = 4;

/// Forms of credentials that are none.
const STRANGE_FORMS: usize = 4;

/// Orders of a world: in one of four.
pub(super) fn draw_keys(seed: u64) -> u64 {
    let mut draws = Draws::new(seed);
    let there = draws.below(Stream::Keys, 10, 4) == 0;
    let orders = draws.logarithmic(Stream::Keys, 11, Span::new(10, 150));
    if there { orders } else { 0 }
}

/// Of a key in the right form that nobody has made.
struct Strange;

impl Entropy for Strange {
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Make {
        slot: usize,
    },
    /// A request with the key, in the stream that it has open if there is one.
    Use {
        slot: usize,
    },
    Revoke {
        slot: usize,
    },
    /// With a key that never was, with what is no key at all, or with nothing, on either address.
    Strange {
        admin: bool,
        form: usize,
    },
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It opens.
    Good,
    /// Its revocation was asked for, and not answered.
    Doubtful,
    /// It opens nothing any more.
    Revoked,
}

#[derive(Clone, Debug)]
struct Made {
    text: String,
    known: Known,
    /// A stream that it has opened.
    baton: Option<String>,
}

/// See the head of the file.
pub(super) struct Locksmith {
    left: u64,
    slots: Vec<Option<Made>>,
    link: Link<Order>,
    strange: String,
    /// It only tries these for the last time.
    looking: Option<BTreeSet<usize>>,
}

impl Locksmith {
    /// The locksmith of a world.
    pub fn new(sim: &mut Sim, options: &Options) -> Locksmith {
        let mut locksmith = Locksmith {
            left: options.keys,
            slots: vec![None; SLOTS],
            link: Link::new("the locksmith", ID, Stream::Keys),
            strange: key::make(&mut Strange).text,
            looking: None,
        };
        if locksmith.left > 0 {
            locksmith.link.rest(sim);
        }
        locksmith
    }

    fn draw(&mut self, sim: &mut Sim) -> Order {
        let draws = sim.draws_mut();
        let slot = draws.index(Stream::Keys, 1, SLOTS);
        let what = draws.below(Stream::Keys, 2, 16);
        let form = draws.index(Stream::Keys, 5, STRANGE_FORMS);
        match (&self.slots[slot], what) {
            (_, 0 | 1) => Order::Strange { admin: what == 0, form },
            (None, _) => Order::Make { slot },
            // Another takes its place; sometimes one that is tried again and again.
            (Some(made), 2 | 3) if made.known == Known::Revoked => Order::Make { slot },
            (Some(made), 4..=6) if made.known != Known::Revoked => Order::Revoke { slot },
            (Some(_), _) => Order::Use { slot },
        }
    }

    fn made(&self, slot: usize) -> &Made {
        self.slots[slot].as_ref().expect("only a key that was made is used")
    }

    /// What stands in a field for credentials that are none.
    fn strange(&self, form: usize) -> String {
        let forms: [String; STRANGE_FORMS] = [
            format!("Bearer {}", self.strange),
            "Bearer e30.e30.e30".to_owned(),
            "Bearer".to_owned(),
            String::new(),
        ];
        forms[form].clone()
    }

    /// The bytes of a request, and where it goes.
    fn request(&self, order: &Order) -> (Vec<u8>, &'static str) {
        let query = |key: &str, baton: Option<&str>| {
            let body = json!({
                "baton": baton,
                "requests": [{ "type": "execute", "stmt": { "sql": "SELECT 1" } }],
            });
            let fields = [("authorization", key)];
            let path = "/db/locksmith/v3/pipeline";
            request("POST", path, "sim", &fields, body.to_string().as_bytes())
        };
        match order {
            Order::Make { .. } => {
                let body = json!({ "scope": "machine", "role": "write" }).to_string();
                (request("POST", "/v1/keys", "sim", &[], body.as_bytes()), ADMIN)
            }
            Order::Use { slot } => {
                let Made { text, baton, .. } = self.made(*slot);
                (query(&format!("Bearer {text}"), baton.as_deref()), LISTEN)
            }
            Order::Revoke { slot } => {
                let path = format!("/v1/keys/{}", self.made(*slot).text);
                (request("DELETE", &path, "sim", &[], b""), ADMIN)
            }
            Order::Strange { admin: false, form } => (query(&self.strange(*form), None), LISTEN),
            Order::Strange { admin: true, form } => {
                let bearer = self.strange(*form);
                let fields = [("authorization", bearer.as_str())];
                (request("GET", "/v1/namespaces", "sim", &fields, b""), ADMIN)
            }
        }
    }

    fn ask(&mut self, sim: &mut Sim, order: Order) {
        let (outbox, address) = self.request(&order);
        let mut patience_ns = PATIENCE_NS;
        if self.looking.is_none() && sim.draws_mut().below(Stream::Keys, 3, 8) == 0 {
            patience_ns = sim.draws_mut().logarithmic(Stream::Keys, 4, GIVE_UP_NS);
        }
        if let Order::Revoke { slot } = order
            && let Some(made) = &mut self.slots[slot]
        {
            made.known = Known::Doubtful;
        }
        self.link.ask(sim, address, &outbox, patience_ns, order);
    }

    /// From now on only try each key for the last time.
    fn begin_to_look(&mut self, sim: &mut Sim) {
        self.hurry(sim);
        self.looking = Some((0..SLOTS).filter(|&slot| self.slots[slot].is_some()).collect());
    }

    fn has_looked(&self) -> bool {
        self.looking.as_ref().is_some_and(BTreeSet::is_empty) && self.link.is_idle()
    }
}

impl Asker for Locksmith {
    type Asked = Order;

    fn link(&mut self) -> &mut Link<Order> {
        &mut self.link
    }

    fn act(&mut self, sim: &mut Sim, _: &mut Ground) -> Result<(), Violation> {
        let order = match &self.looking {
            Some(slots) => slots.first().map(|&slot| Order::Use { slot }),
            None if self.left == 0 => None,
            None => {
                self.left -= 1;
                Some(self.draw(sim))
            }
        };
        if let Some(order) = order {
            self.ask(sim, order);
        }
        Ok(())
    }

    /// A baton may have been used, or a key made that nobody will ever know.
    fn lose(&mut self, _: &mut Sim, order: Order) {
        if let Order::Use { slot } = order
            && let Some(made) = &mut self.slots[slot]
        {
            made.baton = None;
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
        let status = response.status;
        let wrong = |oracle: &'static str, what: &str| {
            let body = String::from_utf8_lossy(&response.body);
            Err(Violation::new(oracle, format!("{order:?}: {what}: {status} {body:.300}")))
        };
        // Not everything is looked at before the key, and the catalogue that knows it may be out of reach.
        let excused = ground.options.excuses(status);
        match *order {
            Order::Strange { .. } if status == 401 || excused => {}
            Order::Strange { .. } => return wrong("KEY-2", "nobody has made this key"),
            Order::Make { slot } => match value["key"].as_str() {
                Some(key) if status == 200 || status == 201 => {
                    let text = key.to_owned();
                    self.slots[slot] = Some(Made { text, known: Known::Good, baton: None });
                }
                _ if excused => {}
                _ => return wrong("KEY-1", "it cannot be made"),
            },
            Order::Revoke { slot } => {
                let made = self.slots[slot].as_mut().expect("it was there when it was asked for");
                match status {
                    200 | 204 => made.known = Known::Revoked,
                    _ if excused => {}
                    _ => return wrong("KEY-1", "it cannot be revoked"),
                }
            }
            Order::Use { slot } => {
                let made = self.slots[slot].as_mut().expect("it was there when it was asked for");
                let used = made.baton.take();
                match (status, made.known) {
                    (401, Known::Good) => return wrong("KEY-1", "a good key is refused"),
                    (401, Known::Doubtful) => made.known = Known::Revoked,
                    (401, Known::Revoked) => {}
                    _ if excused => return Ok(()),
                    (_, Known::Revoked) => return wrong("KEY-2", "a revoked key opens"),
                    (200, _) => made.baton = value["baton"].as_str().map(str::to_owned),
                    // Its stream may be over; and there need not be such a database.
                    (400, _) if used.is_some() => {}
                    (404, _) => {}
                    _ => return wrong("KEY-1", "a good key does not open"),
                }
                if let Some(looking) = &mut self.looking {
                    looking.remove(&slot);
                }
            }
        }
        Ok(())
    }
}

impl World {
    /// Without faults: what was made and not revoked opens, what was revoked does not.
    pub(super) fn look_at_keys(&mut self) -> Result<(), Violation> {
        if self.ground.options.keys == 0 {
            return Ok(());
        }
        self.locksmith.begin_to_look(&mut self.io);
        let left = |world: &World| format!("keys are not judged: {:?}", world.locksmith.looking);
        self.go_on_until((SLOTS as u64 + 1) * LOOK_NS_MAX, |it| it.locksmith.has_looked(), left)
    }
}
