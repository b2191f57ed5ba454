//! The landlord: plans, organisations, groups and budgets, made and changed while everything runs.
//!
//! Fault model. In one world of three (`budgets` changes, none in the others) somebody works the admin
//! address with one connection, 10 ms to 10 s between two requests: plans, organisations and groups
//! get drawn budgets, databases get budgets and plans and move between groups, also to less than they
//! use. Databases of these worlds are created with budgets, too. Every other order is a tight one, for
//! gluttons' databases, or for plans and nodes. All of it is drawn from a stream of its own: the other
//! worlds keep their course.
//!
//! What a budget explains is excused, only for a database that had such a part since it was first
//! named, by itself or by a plan, group or organisation while it stood below one (`Granted`). When the
//! faults end, all budgets are taken back, each answered with 200 or 404 within a bounded time, so
//! that every database can take a write again (LIVE-1).
//!
//! Outside: nodes and plans are not removed while the world lasts.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::glutton;
use super::ground::Ground;
use super::link::{Answer, Asker, Link};
use super::model::{Violation, tenant_name};
use super::options::{ADMIN, Options};
use super::{Sim, World};
use crate::client::request;
use crate::draws::{Draws, Span, Stream};

/// The landlord's number in timers; strangers and clients are below.
const ID: u64 = 1 << 21;

/// Time after which a request without an answer is given up, and the connection with it.
const PATIENCE_NS: u64 = 60_000_000_000;

/// Simulated time for each budget that is taken back.
const TAKE_BACK_NS_MAX: u64 = 120_000_000_000;

const PLANS: [&str; 2] = ["free", "pro"];
const ORGANISATIONS: [&str; 2] = ["acme", "umbrella"];
const GROUPS: [&str; 2] = ["web", "batch"];

/// Parts that may make a statement slow.
const SLOW: [&str; 6] = [
    "cpu_per_million",
    "io_bytes_per_second",
    "io_burst_bytes",
    "weight",
    "priority",
    "request_ns",
];

/// Parts of budgets that a database had once.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    own: BTreeSet<String>,
    /// It stood in a group, or had a plan.
    shares: bool,
}

impl Granted {
    /// Whether one of these parts was said of it, `shared` by plans and nodes included.
    fn has(&self, shared: &BTreeSet<String>, parts: &[&str]) -> bool {
        let said =
            |part: &&str| self.own.contains(*part) || (self.shares && shared.contains(*part));
        parts.iter().any(said)
    }
}

/// What all databases were given, by their number.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    of: std::collections::BTreeMap<usize, Granted>,
    shared: BTreeSet<String>,
}

impl Grants {
    /// Note the body of a request about a database.
    pub fn note(&mut self, tenant: usize, body: &Value) {
        let granted = self.of.entry(tenant).or_default();
        granted.own.extend(names(&body["budget"]));
        granted.shares |= body["group"].is_string() || body["plan"].is_string();
    }

    /// Whether a budget explains this refusal.
    #[must_use]
    pub fn excuse(&self, tenant: usize, code: &str) -> bool {
        let Some(granted) = self.of.get(&tenant) else { return false };
        let parts: &[&str] = match code {
            "SQLITE_FULL" => &["storage_bytes"],
            "SQLITE_NOMEM" | "MEMORY_FULL" | "BUDGET_EXCEEDED" => &["memory_bytes"],
            "SQLITE_INTERRUPT" => &SLOW,
            _ => return false,
        };
        granted.has(&self.shared, parts)
    }

    /// Databases that were given anything.
    fn tenants(&self) -> impl Iterator<Item = usize> {
        self.of.keys().copied()
    }
}

fn budget_path(database: &str) -> String {
    format!("/v1/namespaces/{database}/budget")
}

fn names(budget: &Value) -> Vec<String> {
    budget.as_object().map(|parts| parts.keys().cloned().collect()).unwrap_or_default()
}

/// The body with which a database is created.
pub fn creation(draws: &mut Draws, entity: u64) -> Value {
    if draws.below(Stream::Budgets, entity, 2) == 0 {
        return json!({});
    }
    json!({ "budget": budget(draws, entity, &PARTS) })
}

/// Parts of budgets with their least and greatest numbers.
type Parts = [(&'static str, u64, u64); 11];

/// What a database needs to get on, some day.
const PARTS: Parts = [
    ("memory_bytes", 1 << 20, 32 << 20),
    ("storage_bytes", 64 << 10, 64 << 20),
    ("cpu_per_million", 1_000, 900_000),
    ("cpu_burst_ns", 1_000_000, 50_000_000),
    ("cpu_reserved_per_million", 1_000, 300_000),
    ("io_bytes_per_second", 64 << 10, 8 << 20),
    ("io_burst_bytes", 8 << 10, 1 << 20),
    ("weight", 1, 1_000),
    ("requests", 1, 64),
    ("streams", 1, 16),
    ("request_ns", 100_000_000, 30_000_000_000),
];

/// What a glutton uses up at once.
const TIGHT_PARTS: Parts = [
    ("memory_bytes", 256 << 10, 8 << 20),
    ("storage_bytes", 64 << 10, 4 << 20),
    ("cpu_per_million", 100, 50_000),
    ("cpu_burst_ns", 1_000_000, 4_000_000),
    ("cpu_reserved_per_million", 100, 10_000),
    ("io_bytes_per_second", 16 << 10, 256 << 10),
    ("io_burst_bytes", 4 << 10, 64 << 10),
    ("weight", 1, 1_000),
    ("requests", 1, 8),
    ("streams", 1, 4),
    ("request_ns", 1_000_000_000, 30_000_000_000),
];

/// A budget of some of these parts.
fn budget(draws: &mut Draws, entity: u64, parts: &Parts) -> Value {
    let of = parts;
    let mut parts = Map::new();
    for &(name, low, high) in of {
        let number = draws.logarithmic(Stream::Budgets, entity, Span::new(low, high));
        // Without its burst, a second of the machine's, a ceiling is reached by nobody here.
        let belongs = match name {
            "cpu_burst_ns" => parts.contains_key("cpu_per_million"),
            "io_burst_bytes" => parts.contains_key("io_bytes_per_second"),
            _ => false,
        };
        if draws.below(Stream::Budgets, entity, 3) == 0 || belongs {
            parts.insert(name.to_owned(), number.into());
        }
    }
    let priority = draws.index(Stream::Budgets, entity, 9);
    if let Some(priority) = ["background", "normal", "interactive"].get(priority) {
        parts.insert("priority".to_owned(), (*priority).into());
    }
    Value::Object(parts)
}

/// A request of the landlord's.
#[derive(Clone, Debug)]
pub(super) struct Order {
    path: String,
    body: Value,
}

/// See the head of the file.
pub(super) struct Landlord {
    /// Changes that are still to come.
    left: u64,
    tenants: u64,
    /// Gluttons have databases, too.
    gluttons: bool,
    link: Link<Order>,
    /// What is still to be taken back, the next at the end; first of all once the faults end.
    taking_back: Option<Vec<Order>>,
    /// Nodes and plans that there are.
    made: BTreeSet<String>,
}

impl Landlord {
    /// The landlord of a world.
    pub fn new(sim: &mut Sim, options: &Options) -> Landlord {
        let mut landlord = Landlord {
            left: options.budgets,
            tenants: options.tenants as u64,
            gluttons: options.gluttons > 0,
            link: Link::kept("the landlord", ID, Stream::Budgets),
            taking_back: None,
            made: BTreeSet::new(),
        };
        if landlord.left > 0 {
            landlord.link.rest(sim);
        }
        landlord
    }

    fn draw(&mut self, sim: &mut Sim, grants: &mut Grants) -> Order {
        let draws = sim.draws_mut();
        let mut pick = |bound: usize| draws.index(Stream::Budgets, 1, bound);
        let (what, organisation, group) = (pick(10), pick(2), pick(2));
        let (plan, plan_given) = (PLANS[pick(2)], pick(3));
        let tenant = pick(self.tenants as usize);
        let (moves, leaves) = (pick(2) == 0, pick(4) == 0);
        // Every other order is about those who are not content.
        let greedy = self.gluttons && draws.below(Stream::Budgets, 4, 2) == 0;
        let eaten = draws.below(Stream::Budgets, 4, glutton::DATABASES);
        let own = budget(draws, 2, if greedy { &TIGHT_PARTS } else { &PARTS });
        let organisation_path = format!("/v1/organisations/{}", ORGANISATIONS[organisation]);
        let group_path = format!("{organisation_path}/groups/{}", GROUPS[group]);
        let plan_path = |name: &str| format!("/v1/plans/{name}");
        let has_plan = self.made.contains(&plan_path(plan)) && plan_given == 0;
        let said = json!({ "plan": has_plan.then_some(plan), "budget": own });
        let shared = names(&own);
        let path = match what {
            0 => plan_path(plan),
            1 => organisation_path,
            2 | 3 if self.made.contains(&organisation_path) => group_path,
            2 | 3 => organisation_path,
            _ => {
                let mut body = said;
                if moves {
                    let name = format!("{}/{}", ORGANISATIONS[organisation], GROUPS[group]);
                    let there = self.made.contains(&group_path) && !leaves;
                    body["group"] = if there { name.into() } else { Value::Null };
                }
                if greedy {
                    return Order { path: budget_path(&glutton::database(eaten)), body };
                }
                grants.note(tenant, &body);
                return Order { path: budget_path(&tenant_name(tenant)), body };
            }
        };
        grants.shared.extend(shared);
        Order { body: if what == 0 { own } else { said }, path }
    }

    /// From now on, take everything back: twice, for what is still under way meanwhile.
    fn begin_to_take_back(&mut self, sim: &mut Sim, grants: &Grants) {
        let mut orders = Vec::new();
        for _ in 0..2 {
            for plan in PLANS {
                orders.push(Order { path: format!("/v1/plans/{plan}"), body: json!({}) });
            }
            for organisation in ORGANISATIONS {
                let path = format!("/v1/organisations/{organisation}");
                let body = json!({ "plan": null, "budget": {} });
                for group in GROUPS {
                    let path = format!("{path}/groups/{group}");
                    orders.push(Order { path, body: body.clone() });
                }
                orders.push(Order { path, body });
            }
            let gluttons = if self.gluttons { glutton::DATABASES } else { 0 };
            let names = (0..gluttons).map(glutton::database);
            for name in grants.tenants().map(tenant_name).chain(names) {
                let body = json!({ "group": null, "plan": null, "budget": null });
                orders.push(Order { path: budget_path(&name), body });
            }
        }
        self.hurry(sim);
        self.taking_back = Some(orders);
    }

    fn has_taken_all_back(&self) -> bool {
        self.taking_back.as_ref().is_some_and(Vec::is_empty) && self.link.is_idle()
    }
}

impl Asker for Landlord {
    type Asked = Order;

    fn link(&mut self) -> &mut Link<Order> {
        &mut self.link
    }

    fn act(&mut self, sim: &mut Sim, ground: &mut Ground) -> Result<(), Violation> {
        let order = match &mut self.taking_back {
            Some(orders) => orders.last().cloned(),
            None if self.left == 0 => None,
            None => {
                self.left -= 1;
                Some(self.draw(sim, &mut ground.grants))
            }
        };
        match order {
            Some(order) => {
                let body = order.body.to_string();
                let bytes = request("PUT", &order.path, "sim", &[], body.as_bytes());
                self.link.ask(sim, ADMIN, &bytes, PATIENCE_NS, order);
            }
            None => self.link.hang_up(sim),
        }
        Ok(())
    }

    /// It may hold or not: what it excuses was noted before.
    fn lose(&mut self, _: &mut Sim, _: Order) {}

    fn hear(
        &mut self,
        _: &mut Sim,
        ground: &mut Ground,
        answer: &Answer<Order>,
    ) -> Result<(), Violation> {
        let Answer { asked: order, response, .. } = answer;
        let status = response.status;
        let excused = match status {
            200 => {
                self.made.insert(order.path.clone());
                true
            }
            // Databases come and go; a node may be known to have been made, and lost by a crash.
            404 => true,
            _ => ground.options.excuses(status),
        };
        if !excused {
            let text = String::from_utf8_lossy(&response.body);
            let text = format!("PUT {} {}: {status} {text}", order.path, order.body);
            return Err(Violation::new("ERR-1", text));
        }
        if let Some(orders) = &mut self.taking_back
            && orders.last().is_some_and(|last| last.path == order.path)
            && matches!(status, 200 | 404)
        {
            orders.pop();
        }
        Ok(())
    }
}

impl World {
    /// The faults have ended: budgets end, too.
    pub(super) fn take_budgets_back(&mut self) -> Result<(), Violation> {
        if self.ground.options.budgets == 0 {
            return Ok(());
        }
        self.landlord.begin_to_take_back(&mut self.io, &self.ground.grants);
        let count = self.landlord.taking_back.as_ref().map_or(0, Vec::len) as u64;
        let left = |world: &World| {
            let left = world.landlord.taking_back.as_ref().and_then(|left| left.last());
            format!("a budget is not taken back: {left:?}")
        };
        let is_done = |world: &World| world.landlord.has_taken_all_back();
        self.go_on_until((count + 1) * TAKE_BACK_NS_MAX, is_done, left)
    }
}
