//! The locksmith: keys made, used, and revoked, while the server ends and begins again.
//!
//! Fault model. In one world of four (`keys` orders, none in the others) everybody is asked for a key:
//! all other clients and those of the admin address have the operator's (`client::present`). The
//! locksmith works both addresses, a new connection for each request, 10 ms to 20 s between two: it makes
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
use storage::io::{Clock, Entropy};

use super::model::Violation;
use super::options::{ADMIN, LISTEN, Options};
use super::{Sim, World};
use crate::client::{Response, ResponseReader, request};
use crate::draws::{Draws, Span, Stream};
use crate::network::{ClientSocket, Wake};

/// The locksmith's number in timers, behind the copyist's; gluttons are above.
const ID: u64 = (1 << 21) + 3;

const TIMER_BITS: u32 = 32;

/// Time between two requests.
const PAUSE_NS: Span = Span::new(10_000_000, 20_000_000_000);

/// Time after which a request without an answer is given up, and the connection with it.
const PATIENCE_NS: u64 = 60_000_000_000;

/// Time after which a request that is to be given up is.
const GIVE_UP_NS: Span = Span::new(100_000, 1_000_000_000);

/// Time between two tries in the end.
const RETRY_NS: u64 = 1_000_000_000;

/// Simulated time for each of those.
const LOOK_NS_MAX: u64 = 120_000_000_000;

/// Keys at a time.
const SLOTS: usize = 4;

const RECEIVE_BYTES: usize = 64 * 1024;

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
enum Order {
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
    /// With a key that never was, on either address.
    Strange {
        admin: bool,
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

struct Link {
    socket: ClientSocket,
    connected: bool,
    outbox: Vec<u8>,
    reader: ResponseReader,
}

/// See the head of the file.
pub(super) struct Locksmith {
    left: u64,
    slots: Vec<Option<Made>>,
    timer: u32,
    link: Option<Link>,
    pending: Option<Order>,
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
            timer: 0,
            link: None,
            pending: None,
            strange: key::make(&mut Strange).text,
            looking: None,
        };
        if locksmith.left > 0 {
            locksmith.pause(sim);
        }
        locksmith
    }

    fn pause(&mut self, sim: &mut Sim) {
        let pause_ns = match self.looking {
            None => sim.draws_mut().logarithmic(Stream::Keys, 0, PAUSE_NS),
            Some(_) => RETRY_NS,
        };
        self.set_timer(sim, pause_ns);
    }

    fn set_timer(&mut self, sim: &mut Sim, pause_ns: u64) {
        self.timer = self.timer.wrapping_add(1);
        let at = sim.now().after(pause_ns);
        sim.wake_at(at, ID << TIMER_BITS | u64::from(self.timer));
    }

    /// Take a wake that is the locksmith's.
    ///
    /// # Errors
    /// If the server answered what it must not.
    pub fn heed(
        &mut self,
        sim: &mut Sim,
        options: &Options,
        wake: Wake,
    ) -> Result<bool, Violation> {
        let socket = match wake {
            Wake::Timer(tag) if tag >> TIMER_BITS != ID => return Ok(false),
            Wake::Timer(tag) => {
                if tag as u32 == self.timer {
                    self.act(sim);
                }
                return Ok(true);
            }
            Wake::Connected(socket)
            | Wake::Refused(socket)
            | Wake::Readable(socket)
            | Wake::Writable(socket) => socket,
        };
        let Some(link) = self.link.as_mut().filter(|link| link.socket == socket) else {
            return Ok(false);
        };
        match wake {
            Wake::Refused(_) => self.lose(sim),
            Wake::Connected(_) => link.connected = true,
            _ => {}
        }
        self.push(sim);
        self.pull(sim, options)?;
        Ok(true)
    }

    /// The time for the next request has come, or that for the answer is over.
    fn act(&mut self, sim: &mut Sim) {
        if self.pending.is_some() {
            return self.lose(sim);
        }
        let order = match &self.looking {
            Some(slots) => slots.first().map(|&slot| Order::Use { slot }),
            None if self.left == 0 => None,
            None => {
                self.left -= 1;
                Some(self.draw(sim))
            }
        };
        let Some(order) = order else { return };
        self.ask(sim, order);
    }

    fn draw(&mut self, sim: &mut Sim) -> Order {
        let draws = sim.draws_mut();
        let slot = draws.index(Stream::Keys, 1, SLOTS);
        let what = draws.below(Stream::Keys, 2, 16);
        match (&self.slots[slot], what) {
            (_, 0 | 1) => Order::Strange { admin: what == 0 },
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

    /// The bytes of a request, and where it goes.
    fn request(&self, order: &Order) -> (Vec<u8>, &'static str) {
        let query = |key: &str, baton: Option<&str>| {
            let body = json!({
                "baton": baton,
                "requests": [{ "type": "execute", "stmt": { "sql": "SELECT 1" } }],
            });
            let bearer = format!("Bearer {key}");
            let fields = [("authorization", bearer.as_str())];
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
                (query(text, baton.as_deref()), LISTEN)
            }
            Order::Revoke { slot } => {
                let path = format!("/v1/keys/{}", self.made(*slot).text);
                (request("DELETE", &path, "sim", &[], b""), ADMIN)
            }
            Order::Strange { admin: false } => (query(&self.strange, None), LISTEN),
            Order::Strange { admin: true } => {
                let bearer = format!("Bearer {}", self.strange);
                let fields = [("authorization", bearer.as_str())];
                (request("GET", "/v1/namespaces", "sim", &fields, b""), ADMIN)
            }
        }
    }

    fn ask(&mut self, sim: &mut Sim, order: Order) {
        sim.trace_mut().remark(|| format!("the locksmith asks {order:?}"));
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
        let socket = sim.client_connect(address.parse().expect("an address"));
        let mut reader = ResponseReader::default();
        reader.expect(false);
        self.link = Some(Link { socket, connected: false, outbox, reader });
        self.pending = Some(order);
        self.set_timer(sim, patience_ns);
        self.push(sim);
    }

    fn push(&mut self, sim: &mut Sim) {
        let Some(link) = &mut self.link else { return };
        while link.connected && !link.outbox.is_empty() {
            match sim.client_send(link.socket, &link.outbox) {
                Ok(count) => drop(link.outbox.drain(..count)),
                // Full for now, or broken: receiving tells which.
                Err(_) => return,
            }
        }
    }

    fn pull(&mut self, sim: &mut Sim, options: &Options) -> Result<(), Violation> {
        while let Some(link) = &mut self.link {
            let ended = match sim.client_receive(link.socket, RECEIVE_BYTES) {
                Ok(bytes) if bytes.is_empty() => true,
                Ok(bytes) => {
                    link.reader.push(&bytes);
                    false
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => true,
            };
            let response = link.reader.next_response();
            let response = response.map_err(|error| Violation::new("HTTP-1", error.to_string()))?;
            if let Some(response) = response {
                self.hang_up(sim);
                let Some(order) = self.pending.take() else { return Ok(()) };
                let status = response.status;
                sim.trace_mut().remark(|| format!("the locksmith hears {status} to {order:?}"));
                self.hear(options, &order, &response)?;
                self.pause(sim);
            } else if ended {
                self.lose(sim);
            }
        }
        Ok(())
    }

    /// The connection is gone, and the answer with it: a baton may have been used, or a key made that
    /// nobody will ever know.
    fn lose(&mut self, sim: &mut Sim) {
        self.hang_up(sim);
        match self.pending.take() {
            Some(Order::Use { slot }) => {
                if let Some(made) = &mut self.slots[slot] {
                    made.baton = None;
                }
            }
            Some(_) => {}
            None => return,
        }
        self.pause(sim);
    }

    fn hang_up(&mut self, sim: &mut Sim) {
        if let Some(link) = self.link.take() {
            sim.client_close(link.socket);
        }
    }

    fn hear(
        &mut self,
        options: &Options,
        order: &Order,
        response: &Response,
    ) -> Result<(), Violation> {
        let value: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let status = response.status;
        let wrong = |oracle: &'static str, what: &str| {
            let body = String::from_utf8_lossy(&response.body);
            Err(Violation::new(oracle, format!("{order:?}: {what}: {status} {body:.300}")))
        };
        // Not everything is looked at before the key, and the catalogue that knows it may be out of reach.
        let excused = matches!(status, 408 | 429 | 503 | 507)
            || status == 500 && (options.has_disk_errors() || options.has_small_memory());
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

    /// From now on only try each key for the last time.
    fn begin_to_look(&mut self, sim: &mut Sim) {
        self.lose(sim);
        self.looking = Some((0..SLOTS).filter(|&slot| self.slots[slot].is_some()).collect());
        self.pause(sim);
    }

    fn has_looked(&self) -> bool {
        self.looking.as_ref().is_some_and(BTreeSet::is_empty) && self.link.is_none()
    }
}

impl World {
    /// Without faults: what was made and not revoked opens, what was revoked does not.
    pub(super) fn look_at_keys(&mut self) -> Result<(), Violation> {
        if self.ground.options.keys == 0 {
            return Ok(());
        }
        self.locksmith.begin_to_look(&mut self.io);
        let (begun, limit) = (self.io.now(), (SLOTS as u64 + 1) * LOOK_NS_MAX);
        while !self.locksmith.has_looked() {
            self.tick()?;
            if self.io.now().since(begun) > limit {
                let left = &self.locksmith.looking;
                let text = format!("without faults, keys are not judged: {left:?}");
                return Err(Violation::new("LIVE-1", text));
            }
        }
        Ok(())
    }
}
