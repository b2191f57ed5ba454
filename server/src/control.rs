//! The admin address: databases created, listed, shown and dropped, and the state of the server.
//!
//! Routes as sqld's admin API has them, and a list, which it lacks:
//!
//! ```text
//! POST   /v1/namespaces/{name}/create   {} or empty       200 the database; 400 if it exists
//! GET    /v1/namespaces/{name}                            200 the database; 404
//! DELETE /v1/namespaces/{name}                            200 the database; 404
//! GET    /v1/namespaces?limit=&after=&prefix=             200 {"namespaces":[…],"next":name|null}
//! GET    /health, /version, /metrics
//! ```
//!
//! Pure: heads and bodies in, calls out; rows in, JSON out.

use serde_json::{Value, json};
use tenant::{ControlCall, Counters, DatabaseRow, Refusal, RowState};

use crate::http::{Head, Method, TenantName};
use crate::problem::Problem;

/// Databases in a page of a list unless the request says otherwise.
const LIST_PAGE: usize = 100;

/// What a request on the admin address asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// A call for the catalogue.
    Call(ControlCall),
    /// `GET /health`.
    Health,
    /// `GET /version`.
    Version,
    /// `GET /metrics`.
    Metrics,
}

/// Route a request on the admin address. The body is needed only to be judged.
///
/// # Errors
/// 404, 405, 400 for a name that no database can have or a body that is no JSON object.
pub fn route(head: &Head<'_>, body: &[u8]) -> Result<AdminRequest, Problem> {
    let segments: Vec<&str> = head.path().split('/').filter(|part| !part.is_empty()).collect();
    let get = matches!(head.method(), Method::Get | Method::Head);
    let only = |allowed: bool, allow: &'static str, request: AdminRequest| {
        if allowed { Ok(request) } else { Err(Problem::wrong_method(allow)) }
    };
    match segments.as_slice() {
        ["health"] => only(get, "GET, HEAD", AdminRequest::Health),
        ["version"] => only(get, "GET, HEAD", AdminRequest::Version),
        ["metrics"] => only(get, "GET, HEAD", AdminRequest::Metrics),
        ["v1", "namespaces"] if get => list(head.query().unwrap_or("")),
        ["v1", "namespaces"] => Err(Problem::wrong_method("GET, HEAD")),
        ["v1", "namespaces", name] => {
            let name = TenantName::new(name)?.as_str().to_owned();
            match head.method() {
                Method::Get | Method::Head => Ok(AdminRequest::Call(ControlCall::Show(name))),
                Method::Delete => Ok(AdminRequest::Call(ControlCall::Drop(name))),
                _ => Err(Problem::wrong_method("GET, HEAD, DELETE")),
            }
        }
        ["v1", "namespaces", name, "create"] => {
            let name = TenantName::new(name)?.as_str().to_owned();
            check_create_body(body)?;
            let call = AdminRequest::Call(ControlCall::Create(name));
            only(head.method() == Method::Post, "POST", call)
        }
        _ => Err(Problem::not_found()),
    }
}

/// sqld's options for a new database have no meaning here yet; a body that asks for one is refused
/// rather than ignored.
fn check_create_body(body: &[u8]) -> Result<(), Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let Ok(Value::Object(options)) = serde_json::from_slice::<Value>(body) else {
        return Err(Problem::body("the body must be a JSON object, such as {}"));
    };
    match options.iter().find(|(_, value)| !value.is_null()) {
        None => Ok(()),
        Some((name, _)) => {
            let name: String = name.chars().take(64).collect();
            Err(Problem::body(format!("the option {name:?} is not supported")))
        }
    }
}

fn list(query: &str) -> Result<AdminRequest, Problem> {
    let (mut after, mut prefix, mut limit) = (String::new(), String::new(), LIST_PAGE);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            // Names hold nothing that a URL would escape.
            "after" => after = value.to_ascii_lowercase(),
            "prefix" => prefix = value.to_ascii_lowercase(),
            "limit" => {
                limit = match value.parse() {
                    Ok(limit @ 1..=tenant::limits::LIST_PAGE_MAX) => limit,
                    _ => {
                        let text = "limit must be a number from 1 to 1000";
                        return Err(Problem::body(text));
                    }
                };
            }
            _ => {}
        }
    }
    Ok(AdminRequest::Call(ControlCall::List { after, prefix, limit }))
}

fn database(row: &DatabaseRow) -> Value {
    json!({
        "id": row.id.0,
        "name": row.name,
        "created_at": row.created_s,
        "state": match row.state {
            RowState::Live => "live",
            RowState::Dropped => "dropped",
            RowState::Fenced => "fenced",
        },
        "reason": row.reason,
    })
}

/// The JSON answer to a call that succeeded.
#[must_use]
pub fn answer(call: &ControlCall, rows: &[DatabaseRow]) -> Vec<u8> {
    let value = match call {
        ControlCall::List { limit, .. } => {
            let next = (rows.len() == *limit).then(|| rows.last().map(|row| row.name.clone()));
            let namespaces: Vec<Value> = rows.iter().map(database).collect();
            json!({ "namespaces": namespaces, "next": next.flatten() })
        }
        ControlCall::Create(_) | ControlCall::Drop(_) | ControlCall::Show(_) => {
            rows.first().map_or(Value::Null, database)
        }
    };
    value.to_string().into_bytes()
}

/// What a refusal of the engine is to a client.
#[must_use]
pub fn problem(refusal: &Refusal, name: &str) -> Problem {
    match refusal {
        Refusal::NotFound => Problem::detailed(
            404,
            "DATABASE_NOT_FOUND",
            "no such database",
            format!("Namespace `{name}` doesn't exist"),
        ),
        Refusal::Exists => Problem::detailed(
            400,
            "DATABASE_EXISTS",
            "the database exists",
            format!("Namespace `{name}` already exists"),
        ),
        Refusal::Fenced(reason) => Problem::detailed(
            503,
            "DATABASE_DAMAGED",
            "the database is fenced",
            format!(
                "the database is damaged and was taken out of service: {reason}; restore it from \
                 a backup, or drop it"
            ),
        ),
        Refusal::TooManyRequests => Problem::detailed(
            429,
            "TOO_MANY_REQUESTS",
            "the tenant's queue is full",
            format!(
                "the database has {} requests waiting or running, its limit; try again",
                tenant::limits::REQUESTS_MAX
            ),
        )
        .retry_after(1),
        Refusal::Unavailable => Problem::new(
            503,
            "UNAVAILABLE",
            "the server is starting or stopping, or the database is being closed; try again",
        )
        .retry_after(1),
        Refusal::LogFull => Problem::new(
            503,
            "LOG_FULL",
            "the commit log has no room, or its disk is full; databases that exist can be read, and \
             writing goes on when checkpoints have made room",
        )
        .retry_after(1),
        Refusal::Failed(text) => {
            Problem::detailed(500, "INTERNAL", "the engine refused", text.clone())
        }
    }
}

/// Numbers for `/metrics`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauges {
    /// Counters of the engine.
    pub counters: Counters,
    /// Connections open now.
    pub connections: usize,
    /// Requests received since the start.
    pub requests: u64,
    /// Databases open now.
    pub open_tenants: usize,
    /// Streams parked now.
    pub parked_streams: usize,
    /// Bytes of the commit log in use.
    pub log_used_bytes: u64,
    /// Bytes of the commit log.
    pub log_capacity_bytes: u64,
}

/// Prometheus text.
#[must_use]
pub fn metrics(gauges: &Gauges) -> Vec<u8> {
    let Gauges { counters, .. } = gauges;
    let mut text = String::new();
    let mut line = |kind: &str, name: &str, help: &str, value: u64| {
        text.push_str(&format!(
            "# HELP myriad_{name} {help}\n# TYPE myriad_{name} {kind}\nmyriad_{name} {value}\n"
        ));
    };
    line("counter", "requests_total", "HTTP requests received.", gauges.requests);
    line("gauge", "connections", "Connections open now.", gauges.connections as u64);
    line("gauge", "open_tenants", "Databases open now.", gauges.open_tenants as u64);
    line("gauge", "parked_streams", "Streams parked now.", gauges.parked_streams as u64);
    line("gauge", "log_used_bytes", "Commit log in use.", gauges.log_used_bytes);
    line("gauge", "log_capacity_bytes", "Commit log.", gauges.log_capacity_bytes);
    line("counter", "jobs_total", "Jobs started on fibers.", counters.jobs);
    line("counter", "commits_total", "Transactions committed.", counters.commits);
    line("counter", "checkpoints_total", "Checkpoints completed.", counters.checkpoints);
    line(
        "counter",
        "checkpoint_failures_total",
        "Checkpoints failed.",
        counters.checkpoint_failures,
    );
    line("counter", "tenant_opens_total", "Databases opened.", counters.opens);
    line("counter", "tenant_closes_total", "Databases closed.", counters.closes);
    line("counter", "tenant_fences_total", "Databases fenced.", counters.fences);
    line("counter", "fiber_resumes_total", "Fibers resumed.", counters.resumes);
    line("counter", "vm_steps_total", "SQLite VM steps.", counters.vm_steps);
    line(
        "counter",
        "transactions_timed_out_total",
        "Idle transactions that lost the writer lock.",
        counters.transactions_timed_out,
    );
    line("counter", "gated_total", "Replies that waited for the log.", counters.gated);
    line(
        "counter",
        "late_turns_total",
        "Turns that came later than the scheduler promises: any is a bug.",
        counters.late_turns,
    );
    for (kind, bytes) in storage::ledger::KIND_NAMES.iter().zip(storage::ledger::total()) {
        text.push_str(&format!("myriad_ledger_bytes{{kind=\"{kind}\"}} {bytes}\n"));
    }
    text.into_bytes()
}
