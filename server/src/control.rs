//! The admin address: databases created, listed, shown and dropped, and the state of the server.
//!
//! Routes as sqld's admin API has them, and what it lacks:
//!
//! ```text
//! POST   /v1/namespaces/{name}/create   empty, {} or C    200 the database; 400 if it exists
//! POST   /v1/namespaces/{name}/upload   see `uploads`     200 the database, made from a file or SQL
//! GET    /v1/namespaces/{name}                            200 the database; 404
//! DELETE /v1/namespaces/{name}                            200 the database; 404
//! GET    /v1/namespaces?limit=&after=&prefix=             200 {"namespaces":[…],"next":name|null}
//! POST   /v1/namespaces/{name}/config   {"max_db_size":S} 200 its budget: S is its storage_bytes
//! GET    /v1/namespaces/{name}/budget                     200 own parts; what holds, and whence
//! PUT    /v1/namespaces/{name}/budget   C                 200 the same
//! GET    /v1/namespaces/{name}/usage                      200 totals, and what it holds now
//! GET    /v1/namespaces/{name}/config                     200 sqld's configuration
//! GET    /v1/namespaces/{name}/stats                      200 sqld's statistics
//! POST   /v1/namespaces/{name}/checkpoint                 200 {}: one has begun
//! POST   /v1/namespaces/{name}/fork/{copy}                200 {}: the copy is there
//! GET    /v1/namespaces/{name}/export?format=sqlite|sql   200 the database as a file
//! GET    /v1/plans                                        200 {"plans":[…]}
//! PUT, GET, DELETE  /v1/plans/{name}                      B         200 the plan
//! PUT, GET, DELETE  /v1/organisations/{o}                 N         200 the organisation
//! PUT, GET, DELETE  /v1/organisations/{o}/groups/{g}      N         200 the group
//! GET, PUT, PATCH  /v1/namespaces/{name}/settings  S       200 its settings: see `settings`
//! GET, PUT, PATCH  /v1/organisations/{o}/settings, /v1/organisations/{o}/groups/{g}/settings   the same
//! POST   /v1/namespaces/{name}/tokens?expiration=&authorization=   200 {"jwt":…}
//! POST   /v1/namespaces/{name}/tokens/rotate              200 {}; older tokens are refused
//! POST   /v1/keys                       K                 200 the key, once
//! GET    /v1/keys?scope=&limit=&after=                    200 {"keys":[…],"next":id|null}
//! DELETE /v1/keys/{public}                                200 the key, revoked
//! GET    /v1/organisations, …/{o}/groups  ?limit=&after=   200 {"organisations":[…],"next":name|null}
//! GET    /v1/organisations/{o}/usage, …/groups/{g}/usage  200 the sum of their databases'
//! POST   /v1/bulk/create, /v1/bulk/drop               200 line by line: see `bulk`
//! POST, GET  /v1/jobs; …/v1/jobs/{job}/…                200 fleet jobs: see `jobs`
//! GET    /v1/diagnostics                                  200 how full everything is, line by line
//! GET    /openapi.json                                    200 all routes: see `openapi`
//! GET    /v1/top?by=&limit=&since=                        200 who uses most: see `top`
//! GET    /health, /version, /metrics
//! ```
//!
//! B is a budget, `{"memory_bytes":"64MiB","weight":200,…}`; N is `{"plan":name|null,"budget":B}`, the
//! whole of it; C is `{"group":"organisation/group"|null,"plan":name|null,"budget":B|null}`, of which
//! what is absent stays as it is; a create takes `"seed":{"type":"database","name":S}` too, and `dump_url`: see `seed`. What is in use cannot be deleted: 409 says by how many.
//!
//! Pure: heads and bodies in, calls out; rows in, JSON out.
//!
//! - `bulk`: creates and drops of many.
//! - `dumps`: dumps that are sent before the create that uses them.
//! - `budgets`: bodies and answers about budgets, plans and use.
//! - `jobs`: one migration for many databases.
//! - `keys`: keys and tokens. `settings`: switches, and keys of a database's own.
//! - `seed`: what a new database begins with.
//! - `sqld`: a database's configuration and statistics as sqld says them.
//! - `life`: how long databases live.
//! - `receipt`: what a dropped database has given back.
//! - `percent`: texts in paths and queries. The routes of the Platform API are in `platform`.
//! - `top`: which open tenants use most. `uploads`: databases made from files and SQL text.

pub(crate) mod budgets;
pub(crate) mod bulk;
pub mod dumps;
pub(crate) mod jobs;
pub mod keys;
mod life;
pub(crate) mod percent;
pub(crate) mod period;
pub(crate) mod receipt;
pub(crate) mod seed;
pub mod settings;
pub(crate) mod sqld;
pub mod top;
pub mod uploads;

#[cfg(test)]
pub(crate) use budgets::plan as plan_of;

use serde_json::{Value, json};
use tenant::settings::SettingsChange;
use tenant::{
    ControlCall, ControlReply, CopyProgress, DatabaseRow, ExportFormat, KeyScope, Missing,
    NodePath, Refusal, RowState, Unbuilt, is_memory,
};

use crate::export;
use crate::http::{Head, Method, TenantName};
use crate::openapi;
use crate::platform::{self, Asked, Shape};
use crate::problem::Problem;

/// Databases in a page of a list unless the request says otherwise.
const LIST_PAGE: usize = 100;

/// What a request on the admin address asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminRequest {
    /// A call for the catalogue.
    Call(ControlCall),
    /// A new key, of which the server makes the secret.
    CreateKey(keys::Wanted),
    /// A token for a database.
    Token(keys::TokenWanted),
    /// `GET /health`.
    Health,
    /// `GET /version`.
    Version,
    /// `GET /metrics`.
    Metrics,
    /// A database as a file.
    Export(TenantName, ExportFormat),
    /// `GET /v1/top`.
    Top(top::Top),
    /// `GET /v1/diagnostics`.
    Diagnostics,
    /// `GET /openapi.json`.
    OpenApi,
    /// In the form that another server's tools send and parse.
    Shaped(Box<Asked>),
}

/// Whether a request on the admin address is for anybody: whether the server lives, and which it is.
#[must_use]
pub fn is_open(head: &Head<'_>) -> bool {
    let mut segments = head.path().split('/').filter(|part| !part.is_empty());
    let first = segments.next();
    matches!(first, Some("health" | "version" | "openapi.json")) && segments.next().is_none()
}

/// Route a request on the admin address. The body is needed only to be judged.
///
/// # Errors
/// 404, 405, 400 for a name that no database can have or a body that is not what the route takes.
pub fn route(head: &Head<'_>, body: &[u8]) -> Result<AdminRequest, Problem> {
    let segments: Vec<&str> = head.path().split('/').filter(|part| !part.is_empty()).collect();
    let request = find(head, &segments, body)?;
    // What the document does not have is not there: so it has everything.
    if openapi::has(head.method(), &segments) { Ok(request) } else { Err(Problem::not_found()) }
}

fn find(head: &Head<'_>, segments: &[&str], body: &[u8]) -> Result<AdminRequest, Problem> {
    let get = matches!(head.method(), Method::Get | Method::Head);
    let only = |allowed: bool, allow: &'static str, request: AdminRequest| {
        if allowed { Ok(request) } else { Err(Problem::wrong_method(allow)) }
    };
    let method = if get { Method::Get } else { head.method() };
    if let Some(asked) = platform::route(head, method, segments, body) {
        return asked.map(|asked| AdminRequest::Shaped(Box::new(asked)));
    }
    let query = head.query().unwrap_or("");
    let call = match segments {
        ["health"] => return only(get, "GET, HEAD", AdminRequest::Health),
        ["version"] => return only(get, "GET, HEAD", AdminRequest::Version),
        ["metrics"] => return only(get, "GET, HEAD", AdminRequest::Metrics),
        ["openapi.json"] => return only(get, "GET, HEAD", AdminRequest::OpenApi),
        ["v1", "diagnostics"] => return only(get, "GET, HEAD", AdminRequest::Diagnostics),
        ["v1", "namespaces"] if get => list(query),
        ["v1", "bulk", what @ ("create" | "drop")] => bulk::route(head, method, what, body),
        ["v1", "plans"] if get => Ok(ControlCall::Plans),
        ["v1", "top"] if get => {
            return top::asked(query).map(AdminRequest::Top);
        }
        ["v1", "keys"] => return keys::route(method, query, body),
        ["v1", "jobs", rest @ ..] => jobs::route(method, rest, query, body),
        ["v1", "keys", public] => keys::revoke(method, public),
        ["v1", "namespaces", name, "tokens"] => {
            return keys::token(method, name, query);
        }
        ["v1", "namespaces", _, "upload"] if method == Method::Post => uploads::route(head),
        ["v1", "namespaces" | "plans" | "top"] => Err(Problem::wrong_method("GET, HEAD")),
        ["v1", "namespaces", name, "export"] => {
            // Its length is not known before its end: HEAD is not for it.
            let name = TenantName::new(name)?;
            let request = AdminRequest::Export(name, export::format(query)?);
            return only(head.method() == Method::Get, "GET", request);
        }
        ["v1", "namespaces", name, rest @ ..] => {
            let name = TenantName::new(name)?.as_str().to_owned();
            match as_sqld(method, &name, rest, body) {
                Some(asked) => return asked.map(|asked| AdminRequest::Shaped(Box::new(asked))),
                None => namespace(method, name, rest, query, body),
            }
        }
        ["v1", "organisations"] if get => nodes(None, query),
        ["v1", "organisations", organisation, "groups"] if get => nodes(Some(organisation), query),
        ["v1", "organisations", organisation, "usage"] if get => {
            sum(budgets::node(organisation, None)?, query)
        }
        ["v1", "organisations", organisation, "groups", group, "usage"] if get => {
            sum(budgets::node(organisation, Some(group))?, query)
        }
        ["v1", "organisations"]
        | ["v1", "organisations", _, "groups" | "usage"]
        | ["v1", "organisations", _, "groups", _, "usage"] => {
            Err(Problem::wrong_method("GET, HEAD"))
        }
        ["v1", "plans", name] => plan(method, name, body),
        ["v1", "organisations", organisation] => {
            node(method, budgets::node(organisation, None)?, body)
        }
        ["v1", "organisations", organisation, "groups", group] => {
            node(method, budgets::node(organisation, Some(group))?, body)
        }
        ["v1", "organisations", organisation, "settings"] => {
            node_settings(method, budgets::node(organisation, None)?, body)
        }
        ["v1", "organisations", organisation, "groups", group, "settings"] => {
            node_settings(method, budgets::node(organisation, Some(group))?, body)
        }
        _ => Err(Problem::not_found()),
    };
    call.map(AdminRequest::Call)
}

/// A route of one database. HEAD was made a GET.
fn namespace(
    method: Method,
    name: String,
    rest: &[&str],
    query: &str,
    body: &[u8],
) -> Result<ControlCall, Problem> {
    match (rest, method) {
        ([], Method::Get) => Ok(ControlCall::Show(name)),
        ([], Method::Delete) => Ok(ControlCall::Drop(name)),
        ([], _) => Err(Problem::wrong_method("GET, HEAD, DELETE")),
        (["create"], Method::Post) => seed::create(name, body),
        (["config"], Method::Post) => Ok(ControlCall::Place(name, sqld::config(body)?)),
        (["config"], _) => Err(Problem::wrong_method("GET, HEAD, POST")),
        (["create" | "upload"], _) => Err(Problem::wrong_method("POST")),
        (["budget"], Method::Get) => Ok(ControlCall::Budget(name)),
        (["budget"], Method::Put) => Ok(ControlCall::Place(name, budgets::change(body)?)),
        (["budget"], _) => Err(Problem::wrong_method("GET, HEAD, PUT")),
        (["tokens", "rotate"], Method::Post) => {
            let rotate = SettingsChange { rotate_tokens: true, ..SettingsChange::default() };
            Ok(ControlCall::Set(name, rotate))
        }
        (["settings"], Method::Get) => Ok(ControlCall::Settings(name)),
        (["settings"], Method::Put | Method::Patch) => {
            let change = settings::change(body)?;
            life::of_database(&change)?;
            Ok(ControlCall::Set(name, change))
        }
        (["settings"], _) => Err(Problem::wrong_method("GET, HEAD, PUT, PATCH")),
        (["tokens", "rotate"], _) => Err(Problem::wrong_method("POST")),
        (["usage"], Method::Get) => usage(name, query),
        (["usage"], _) => Err(Problem::wrong_method("GET, HEAD")),
        _ => Err(Problem::not_found()),
    }
}

/// A route of one database whose answer is sqld's, if it is one.
fn as_sqld(
    method: Method,
    name: &str,
    rest: &[&str],
    body: &[u8],
) -> Option<Result<Asked, Problem>> {
    let asked = |call: fn(String) -> ControlCall, shape| {
        let request = AdminRequest::Call(call(name.to_owned()));
        Ok(Asked { request, within: None, shape })
    };
    Some(match (rest, method) {
        (["config"], Method::Get) => asked(ControlCall::Show, Shape::SqldConfig),
        (["stats"], Method::Get) => asked(ControlCall::Usage, Shape::SqldStats),
        (["stats"], _) => Err(Problem::wrong_method("GET, HEAD")),
        // No query's text is kept: there is nothing to forget.
        (["stats", "top" | "slowest"], Method::Delete) => asked(ControlCall::Show, Shape::Done),
        (["stats", "top" | "slowest"], _) => Err(Problem::wrong_method("DELETE")),
        (["checkpoint"], Method::Post) => asked(ControlCall::Checkpoint, Shape::Done),
        (["checkpoint"], _) => Err(Problem::wrong_method("POST")),
        (["fork", to], Method::Post) => seed::fork(name, to, body).map(|call| {
            let request = AdminRequest::Call(call);
            Asked { request, within: None, shape: Shape::Forked }
        }),
        (["fork", _], _) => Err(Problem::wrong_method("POST")),
        _ => return None,
    })
}

/// What a database has used, in all or in a time.
pub(crate) fn usage(name: String, query: &str) -> Result<ControlCall, Problem> {
    Ok(match period::range(query)? {
        Some(range) => ControlCall::UsageIn(name, range),
        None => ControlCall::Usage(name),
    })
}

/// What was used there, in all or in a time.
pub(crate) fn sum(path: NodePath, query: &str) -> Result<ControlCall, Problem> {
    Ok(match period::range(query)? {
        Some(range) => ControlCall::SumIn(path, range),
        None => ControlCall::Sum(path),
    })
}

/// Organisations, or the groups of one.
fn nodes(of: Option<&str>, query: &str) -> Result<ControlCall, Problem> {
    let ControlCall::List { after, limit, .. } = list(query)? else {
        unreachable!("a list is asked for by a list")
    };
    let of = of.map(TenantName::new).transpose()?.map(|name| name.as_str().into());
    Ok(ControlCall::Nodes { of, after: after.into(), limit })
}

/// A route of one plan.
fn plan(method: Method, name: &str, body: &[u8]) -> Result<ControlCall, Problem> {
    let name = TenantName::new(name)?.as_str().to_owned();
    match method {
        Method::Get => Ok(ControlCall::Plan(name)),
        Method::Put => Ok(ControlCall::PutPlan(budgets::plan(&name, body)?)),
        Method::Delete => Ok(ControlCall::DropPlan(name)),
        _ => Err(Problem::wrong_method("GET, HEAD, PUT, DELETE")),
    }
}

/// A route of one organisation or group.
fn node(method: Method, path: NodePath, body: &[u8]) -> Result<ControlCall, Problem> {
    match method {
        Method::Get => Ok(ControlCall::Node(path)),
        Method::Put => Ok(ControlCall::PutNode(path, budgets::said(body)?)),
        Method::Delete => Ok(ControlCall::DropNode(path)),
        _ => Err(Problem::wrong_method("GET, HEAD, PUT, DELETE")),
    }
}

/// The settings of an organisation or group.
fn node_settings(method: Method, path: NodePath, body: &[u8]) -> Result<ControlCall, Problem> {
    match method {
        Method::Get => Ok(ControlCall::NodeSettings(path)),
        Method::Put | Method::Patch => Ok(ControlCall::SetNode(path, settings::change(body)?)),
        _ => Err(Problem::wrong_method("GET, HEAD, PUT, PATCH")),
    }
}

fn list(query: &str) -> Result<ControlCall, Problem> {
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
    Ok(ControlCall::List { after, prefix, limit })
}

fn database(row: &DatabaseRow) -> Value {
    let (group, plan) = budgets::place_of(row);
    json!({
        "id": row.id.0,
        "name": row.name,
        "created_at": row.created_s,
        "state": match row.state {
            RowState::Live if row.ended.is_some() => "frozen",
            RowState::Live => "live",
            RowState::Dropped => "dropped",
            RowState::Fenced => "fenced",
            RowState::Building => "building",
        },
        "reason": row.reason.clone().or_else(|| row.ended.map(|ended| ended.name().to_owned())),
        "class": if is_memory(row.id) { "memory" } else { "durable" },
        "ends_at": row.ends_s,
        "group": group,
        "plan": plan,
    })
}

/// The JSON answer to a call that succeeded.
#[must_use]
pub fn answer(call: &ControlCall, reply: &ControlReply) -> Vec<u8> {
    let value = match (call, reply) {
        (ControlCall::List { limit, .. }, ControlReply::Databases(rows)) => {
            let next = (rows.len() == *limit).then(|| rows.last().map(|row| row.name.clone()));
            let namespaces: Vec<Value> = rows.iter().map(database).collect();
            json!({ "namespaces": namespaces, "next": next.flatten() })
        }
        (ControlCall::Set(_, change), ControlReply::Databases(_)) if change.rotate_tokens => {
            json!({})
        }
        (ControlCall::Set(..) | ControlCall::Settings(_), ControlReply::Databases(rows)) => {
            rows.first().map_or(Value::Null, |row| settings::answer(row.settings()))
        }
        (ControlCall::SetNode(..) | ControlCall::NodeSettings(_), ControlReply::Node(node)) => {
            settings::answer(node.0.settings())
        }
        (ControlCall::Keys { limit, .. }, ControlReply::Keys(rows)) => {
            keys::list_answer(rows, *limit)
        }
        (_, ControlReply::Keys(rows)) => rows.first().map_or(Value::Null, keys::key_answer),
        (_, ControlReply::Imported(made)) => uploads::answer(&made.0, &made.1),
        (_, ControlReply::Copying(copying)) => {
            let CopyProgress { age_s, pages, pages_total } = copying.1;
            let mut answer = database(&copying.0);
            answer["progress"] =
                json!({ "age_s": age_s, "pages": pages, "pages_total": pages_total });
            answer
        }
        (_, ControlReply::Databases(rows)) => rows.first().map_or(Value::Null, database),
        (_, ControlReply::Dropped(dropped)) => {
            let mut answer = database(&dropped.0);
            answer["receipt"] = receipt::answer(&dropped.1);
            answer
        }
        (ControlCall::Plans, ControlReply::Plans(plans)) => {
            let plans: Vec<Value> = plans.iter().map(budgets::plan_answer).collect();
            json!({ "plans": plans })
        }
        (_, ControlReply::Plans(plans)) => plans.first().map_or(Value::Null, budgets::plan_answer),
        (_, ControlReply::Budget(view)) => budgets::budget_answer(view),
        (_, ControlReply::Usage(view)) => budgets::usage_answer(view),
        (
            ControlCall::PutNode(path, _) | ControlCall::Node(path) | ControlCall::DropNode(path),
            ControlReply::Node(node),
        ) => budgets::node_answer(path, &node.0),
        (ControlCall::Nodes { of, limit, .. }, ControlReply::Nodes(rows)) => {
            budgets::nodes_answer(of.as_deref(), rows, *limit)
        }
        (_, ControlReply::Sum(sum)) => budgets::sum_answer(sum),
        (_, ControlReply::Nodes(_) | ControlReply::Bulk(_)) => json!({}),
        (ControlCall::Job(call), ControlReply::Job(reply)) => jobs::answer(call, reply, |_| None),
        // Clients of sqld read JSON from every answer.
        (
            _,
            ControlReply::Node(_)
            | ControlReply::Done
            | ControlReply::Signing(_)
            | ControlReply::Job(_),
        ) => json!({}),
    };
    value.to_string().into_bytes()
}

/// What a refusal of the engine is to a client.
#[must_use]
pub fn problem(refusal: &Refusal, name: &str) -> Problem {
    match refusal {
        Refusal::NotFound if dumps::is_dump(name) => dumps::missing(),
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
        Refusal::Expired(ending) => Problem::detailed(
            410,
            "DATABASE_EXPIRED",
            "the database has ended by its settings",
            format!(
                "the database has ended by its {} and was dropped; create it anew, with a later end if \
                 it is to live longer",
                ending.name()
            ),
        ),
        Refusal::Exceeded(exceeded) => Problem::exceeded(exceeded),
        Refusal::Missing(missing) => missing_problem(*missing),
        Refusal::InUse(users) => Problem::detailed(
            409,
            "IN_USE",
            "what was to be deleted is in use",
            format!("it cannot be deleted: {users} use it"),
        ),
        Refusal::InMemory => Problem::new(
            409,
            "IN_MEMORY",
            "a database of class memory keeps the group and plan that it was created with, is not copied \
             (export it), and has no token before the server has signed one for another: use a key of \
             its group, or create it anew",
        ),
        Refusal::TooMany(asked, most) => Problem::detailed(
            400,
            "TOO_MANY_DATABASES",
            "a call is about too many databases",
            format!("it is about {asked} databases, and {most} are the limit: make several calls"),
        ),
        Refusal::KeyRuns => Problem::new(
            409,
            "IDEMPOTENCY_KEY_IN_USE",
            "a call with this idempotency-key runs: wait for its end, and ask again to be told",
        ),
        Refusal::KeyReused => Problem::new(
            422,
            "IDEMPOTENCY_KEY_REUSED",
            "this idempotency-key was used for another call: use a new one for each",
        ),
        Refusal::TooManyPlans => Problem::detailed(
            409,
            "TOO_MANY_PLANS",
            "there are as many plans as there may be",
            format!("there are {} plans, the limit", tenant::limits::PLANS_MAX),
        ),
        Refusal::TooManyKeys => Problem::detailed(
            409,
            "TOO_MANY_KEYS",
            "a scope has as many keys as it may have",
            format!("it has {} keys, the limit", tenant::limits::KEYS_MAX),
        ),
        Refusal::Protected => Problem::new(
            409,
            "DELETE_PROTECTED",
            "it is protected against being deleted: change its setting delete_protection first",
        ),
        Refusal::Import(error) => uploads::problem(error),
        Refusal::Building => Problem::detailed(
            503,
            "DATABASE_BUILDING",
            "a database that is being built was asked for",
            format!("the database `{name}` is being built: try again when that has been answered"),
        )
        .retry_after(1),
        Refusal::Unbuilt(why) => unbuilt_problem(why),
        Refusal::Job(refusal) => jobs::problem(*refusal),
        Refusal::KeySpent { again_ns } => Problem::detailed(
            429,
            "KEY_BUDGET_EXCEEDED",
            "a key has spent its budget",
            "the key has spent its cost_per_second; try again when that has come back".to_owned(),
        )
        .retry_after(u32::try_from(again_ns.div_ceil(1_000_000_000)).unwrap_or(u32::MAX)),
        Refusal::Unauthorised => Problem::unauthorised(),
        Refusal::Forbidden => Problem::forbidden(),
        Refusal::Unavailable => Problem::new(
            503,
            "UNAVAILABLE",
            "the server is starting or stopping, or the database is being closed; try again",
        )
        .retry_after(1),
        Refusal::Overloaded => Problem::memory_full(),
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

fn unbuilt_problem(why: &Unbuilt) -> Problem {
    match why {
        Unbuilt::Dropped => Problem::new(
            409,
            "DATABASE_DROPPED",
            "the new database was dropped while it was being built",
        ),
        Unbuilt::Overtaken => Problem::new(
            503,
            "COPY_OVERTAKEN",
            "so much is being written (to the original, or by all databases together) that what \
             was to be copied could not be kept any longer; nothing was made: try again when less is \
             written",
        )
        .retry_after(10),
        Unbuilt::DiskFull => Problem::new(
            507,
            "DISK_FULL",
            "the disk has no room for the new database; nothing of it was kept",
        ),
        Unbuilt::NoMemory => Problem::memory_full(),
        Unbuilt::TooManyImports(limit) => Problem::detailed(
            503,
            "TOO_MANY_UPLOADS",
            "as many databases are being uploaded as may",
            format!("{limit} databases are being uploaded, the limit of this server; try again"),
        )
        .retry_after(5),
        Unbuilt::TooManyOfOne(limit) => Problem::detailed(
            429,
            "TOO_MANY_UPLOADS",
            "as many databases of this organisation are being uploaded as may",
            format!("{limit} databases of this organisation are being uploaded, its limit; try again"),
        )
        .retry_after(5),
        Unbuilt::TooMany(limit) => Problem::detailed(
            503,
            "TOO_MANY_COPIES",
            "as many databases wait to be copied as may",
            format!("{limit} databases wait to be copied, the limit; try again"),
        )
        .retry_after(5),
    }
}

fn missing_problem(missing: Missing) -> Problem {
    match missing {
        Missing::Plan => Problem::new(404, "PLAN_NOT_FOUND", "there is no such plan"),
        Missing::Organisation => Problem::new(
            404,
            "ORGANISATION_NOT_FOUND",
            "there is no such organisation; PUT /v1/organisations/{its name} makes it",
        ),
        Missing::Group => Problem::new(
            404,
            "GROUP_NOT_FOUND",
            "the organisation has no such group; PUT /v1/organisations/{organisation}/groups/{its \
             name} makes it",
        ),
        Missing::Template => Problem::new(
            404,
            "TEMPLATE_NOT_FOUND",
            "the group's template is not there (any more): make another database of its organisation the \
             template, or null",
        ),
        Missing::Job => jobs::problem_missing(),
        Missing::Key => Problem::new(404, "KEY_NOT_FOUND", "there is no such key"),
    }
}

/// The database that a refusal of a call is about: a copy's original, if it is not there.
#[must_use]
pub fn refused<'a>(call: &'a ControlCall, refusal: &Refusal) -> Option<&'a str> {
    match (call, refusal) {
        (ControlCall::Within(_, call), _) => refused(call, refusal),
        (ControlCall::Fork { from, .. }, Refusal::NotFound | Refusal::Building) => Some(from),
        _ => subject(call),
    }
}

/// The database that a call is about, if it is about one.
#[must_use]
pub fn subject(call: &ControlCall) -> Option<&str> {
    match call {
        ControlCall::Within(_, call) => subject(call),
        ControlCall::Create(name, _)
        | ControlCall::Import { name, .. }
        | ControlCall::Fork { to: name, .. }
        | ControlCall::Checkpoint(name)
        | ControlCall::Place(name, _)
        | ControlCall::Drop(name)
        | ControlCall::Show(name)
        | ControlCall::Budget(name)
        | ControlCall::Set(name, _)
        | ControlCall::Settings(name)
        | ControlCall::UsageIn(name, _)
        | ControlCall::Usage(name) => Some(name),
        ControlCall::Sign(KeyScope::Database(name), _) => Some(name),
        ControlCall::CreateKey(key) => match &key.scope {
            KeyScope::Database(name) => Some(name),
            _ => None,
        },
        ControlCall::Keys { scope: Some(KeyScope::Database(name)), .. } => Some(name),
        _ => None,
    }
}
