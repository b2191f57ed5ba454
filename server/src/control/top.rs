//! `GET /v1/top`: the open tenants that use most, with their counters, for `myriad top` and scripts.
//!
//! ```text
//! GET /v1/top?by=cpu|io|memory|throttled&limit=20&since=NS
//! 200 {"now_ns":…,"by":"cpu","tenants":[{"id":…,"name":"shop","state":"running",
//!      "memory_bytes":…,"requests":…,"streams":…,"usage":{"cpu_ns":…,…}},…]}
//! ```
//!
//! Nothing is kept between two calls: the counters only grow, and rates are what a client makes of
//! two answers. With `since`, the `now_ns` of an earlier answer, only tenants are listed that have
//! been in use since then: the others have no rate. A call costs O(open tenants).

use serde_json::{Value, json};
use storage::io::Instant;
use tenant::{TenantState, TenantView};

use crate::problem::Problem;

/// Tenants in an answer unless the request says otherwise.
const LIMIT: usize = 20;

/// Tenants in an answer at most: half a MiB of it.
pub const LIMIT_MAX: usize = 1000;

/// What tenants are compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Processor time.
    #[default]
    Cpu,
    /// Bytes read and written.
    Io,
    /// Memory held now.
    Memory,
    /// Time that ceilings delayed it.
    Throttled,
}

impl By {
    const ALL: [By; 4] = [By::Cpu, By::Io, By::Memory, By::Throttled];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            By::Cpu => "cpu",
            By::Io => "io",
            By::Memory => "memory",
            By::Throttled => "throttled",
        }
    }

    fn number(self, view: &TenantView) -> u64 {
        match self {
            By::Cpu => view.usage.cpu_ns,
            By::Io => view.usage.io_read_bytes + view.usage.io_written_bytes,
            By::Memory => view.memory_bytes(),
            By::Throttled => view.usage.throttled_ns,
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Top {
    by: By,
    limit: usize,
    since: Option<Instant>,
}

/// What the query asks for.
///
/// # Errors
/// 400 for a value that cannot be meant.
pub(super) fn asked(query: &str) -> Result<Top, Problem> {
    let mut top = Top { by: By::default(), limit: LIMIT, since: None };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "by" => {
                let known = By::ALL.into_iter().find(|by| by.name() == value);
                let text = "by must be cpu, io, memory or throttled";
                top.by = known.ok_or_else(|| Problem::body(text))?;
            }
            "limit" => {
                top.limit = match value.parse() {
                    Ok(limit @ 1..=LIMIT_MAX) => limit,
                    _ => return Err(Problem::body("limit must be a number from 1 to 1000")),
                };
            }
            "since" => {
                let text = "since must be the now_ns of an earlier answer";
                let since = value.parse().map_err(|_| Problem::body(text))?;
                top.since = Some(Instant(since));
            }
            _ => {}
        }
    }
    Ok(top)
}

/// The answer, from all open tenants.
#[must_use]
pub fn answer(top: &Top, now: Instant, views: &[TenantView]) -> Vec<u8> {
    let concerned = |view: &&TenantView| {
        let since = top.since.unwrap_or(Instant(0));
        view.last_used >= since || view.requests > 0 || view.state != TenantState::Idle
    };
    let mut ranked: Vec<(u64, &TenantView)> =
        views.iter().filter(concerned).map(|view| (top.by.number(view), view)).collect();
    let order = |a: &(u64, &TenantView), b: &(u64, &TenantView)| {
        b.0.cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id))
    };
    if ranked.len() > top.limit {
        ranked.select_nth_unstable_by(top.limit, order);
        ranked.truncate(top.limit);
    }
    ranked.sort_unstable_by(order);
    let tenants: Vec<Value> = ranked.iter().map(|(_, view)| tenant(view)).collect();
    let answer = json!({ "now_ns": now.0, "by": top.by.name(), "tenants": tenants });
    answer.to_string().into_bytes()
}

fn tenant(view: &TenantView) -> Value {
    json!({
        "id": view.id.0,
        "name": view.name,
        "state": match view.state {
            TenantState::Opening => "opening",
            TenantState::Idle => "idle",
            TenantState::Running => "running",
            TenantState::Checkpointing => "checkpointing",
            TenantState::Closing => "closing",
            TenantState::Fenced => "fenced",
            TenantState::Dropped => "dropped",
        },
        "memory_bytes": view.memory_bytes(),
        "requests": view.requests,
        "streams": view.streams,
        "usage": super::budgets::counters(&view.usage),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use storage::TenantId;
    use tenant::budget::{Limits, Usage};

    use super::*;

    /// An open database of which nothing is known but its number and what it has used.
    pub(crate) fn view_of(number: u64, held: u64, usage: Usage) -> TenantView {
        TenantView {
            id: TenantId(number),
            name: format!("shop-{number}").into(),
            state: TenantState::Idle,
            checkpointing: false,
            held: [held; storage::ledger::KINDS],
            usage,
            requests: 0,
            writers_waiting: 0,
            client_requests: 0,
            streams: 0,
            limits: Limits::of_machine(0),
            chain: Vec::new(),
            served: tenant::Served::default(),
            last_used: Instant(number),
        }
    }

    fn view(number: u64, state: TenantState) -> TenantView {
        let usage = Usage { cpu_ns: number, throttled_ns: 7, ..Usage::default() };
        TenantView { state, ..view_of(number, 100 - number, usage) }
    }

    fn check(query: &str, expected: &[u64]) {
        let mut views: Vec<TenantView> =
            (1..30).map(|number| view(number, TenantState::Idle)).collect();
        views[2].state = TenantState::Checkpointing;
        let top = asked(query).expect(query);
        let text = answer(&top, Instant(50), &views);
        let value: Value = serde_json::from_slice(&text).expect("it is JSON");
        assert_eq!(value["now_ns"], 50);
        let tenants = value["tenants"].as_array().expect("a list").iter();
        let ids: Vec<u64> =
            tenants.map(|tenant| tenant["id"].as_u64().expect("a number")).collect();
        assert_eq!(ids, expected, "{query}");
    }

    #[test]
    fn the_first_are_listed_in_order() {
        check("limit=3", &[29, 28, 27]);
        check("by=memory&limit=2", &[1, 2]);
        check("by=throttled&limit=2", &[1, 2]);
        check("limit=5&since=28", &[29, 28, 3]);
        check("", &(10..30).rev().collect::<Vec<u64>>());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for query in ["by=size", "by", "limit=0", "limit=1001", "limit=x", "since=yesterday"] {
            assert_eq!(asked(query).expect_err(query).status, 400);
        }
    }
}
