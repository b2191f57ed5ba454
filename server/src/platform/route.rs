//! From a path of the Platform API to what is asked for, and the form of its answer.

use tenant::settings::SettingsChange;
use tenant::{Change, ControlCall, DEFAULT_GROUP, KeyScope, NodePath};

use super::{Asked, Shape, answers, bodies};
use crate::auth::key;
use crate::control::AdminRequest;
use crate::control::budgets;
use crate::control::keys::{TokenWanted, Wanted};
use crate::http::{Head, Method, TenantName};
use crate::problem::Problem;

type Routed = Result<Asked, Problem>;

/// The one place where databases are.
pub(super) const LOCATION: &str = "local";

const LOCATIONS: &str = r#"{"locations":{"local":"this server"}}"#;
const LOCATIONS_V2: &str = r#"{"locations":{"myriad":{"local":"this server"}}}"#;
const LOCATION_SHOWN: &str =
    r#"{"location":{"code":"local","description":"this server","closest":[]}}"#;
const USER: &str = r#"{"user":{"username":"operator","plan":"self-hosted"}}"#;

/// What a request is, taken apart.
struct Parts<'a> {
    method: Method,
    query: &'a str,
    body: &'a [u8],
    authorization: Option<&'a str>,
}

/// Route a request, if its path is one of these. HEAD was made a GET.
///
/// # Errors
/// 404 for what has no meaning here, 405, 400.
pub(crate) fn route(
    head: &Head<'_>,
    method: Method,
    segments: &[&str],
    body: &[u8],
) -> Option<Routed> {
    let query = head.query().unwrap_or("");
    let parts = Parts { method, query, body, authorization: head.authorization() };
    Some(match segments {
        ["v2", "organizations"] if method != Method::Get => Err(Problem::wrong_method("GET, HEAD")),
        ["v1" | "v2", "organizations"] => organisations(&parts),
        ["v1", "organizations", name] => match TenantName::new(name) {
            Ok(name) => organisation(&parts, name.as_str()),
            Err(problem) => Err(problem),
        },
        ["v1", "organizations", name, rest @ ..] => match TenantName::new(name) {
            Ok(name) => inside(&parts, name.as_str(), rest),
            Err(problem) => Err(problem),
        },
        ["v2", "organizations", _, "locations"] => parts.fixed(LOCATIONS_V2),
        ["v2", "organizations", _, "invites", ..] => Err(absent("invites")),
        ["v1", "locations"] => parts.fixed(LOCATIONS),
        ["v1", "locations", LOCATION] => parts.fixed(LOCATION_SHOWN),
        ["v1", "locations", _] => Err(one_location()),
        ["v1", "current-user"] => parts.fixed(USER),
        ["v1", "auth", "api-tokens"] => parts.get(keys(), Shape::Tokens),
        ["v1", "auth", "validate"] | ["v1", "auth", "api-tokens", "validate"]
            if method == Method::Get =>
        {
            Ok(validate(parts.authorization))
        }
        ["v1", "auth", "validate"] => Err(Problem::wrong_method("GET, HEAD")),
        ["v1", "auth", "invalidate"] => Err(Problem::detailed(
            404,
            "NOT_HERE",
            "a route without a meaning here",
            "keys are revoked one by one: DELETE /v1/auth/api-tokens/{name}, or /v1/keys/{public}",
        )),
        [version @ ("v1" | "v2"), "auth", "api-tokens", name] => {
            api_token(&parts, name, *version == "v2")
        }
        _ => return None,
    })
}

fn asked(call: ControlCall, shape: Shape) -> Asked {
    Asked { request: AdminRequest::Call(call), within: None, shape }
}

impl Parts<'_> {
    fn get(&self, call: ControlCall, shape: Shape) -> Routed {
        match self.method {
            Method::Get => Ok(asked(call, shape)),
            _ => Err(Problem::wrong_method("GET, HEAD")),
        }
    }

    fn post(&self, call: ControlCall, shape: Shape) -> Routed {
        match self.method {
            Method::Post => Ok(asked(call, shape)),
            _ => Err(Problem::wrong_method("POST")),
        }
    }

    fn fixed(&self, body: &'static str) -> Routed {
        self.get(ControlCall::Permit, Shape::Fixed(body))
    }
}

/// What has no meaning here.
fn absent(what: &str) -> Problem {
    Problem::detailed(
        404,
        "NOT_HERE",
        "a route without a meaning here",
        format!("there are no {what} on a server of your own"),
    )
}

fn one_location() -> Problem {
    Problem::new(404, "LOCATION_NOT_FOUND", "there is one location, `local`: this server")
}

fn rotation() -> SettingsChange {
    SettingsChange { rotate_tokens: true, ..SettingsChange::default() }
}

fn keys() -> ControlCall {
    ControlCall::Keys { scope: None, after: 0, limit: tenant::limits::LIST_PAGE_MAX }
}

/// The key that a request comes with, or when its token ends.
fn validate(authorization: Option<&str>) -> Asked {
    let text = authorization.and_then(|field| field.split_once(' ')).map_or("", |(_, text)| text);
    match key::read(text.trim()) {
        Some(shown) => {
            let public = String::from_utf8_lossy(&shown.public).into_owned().into();
            asked(ControlCall::ShowKey(public), Shape::Expiry)
        }
        None => {
            let exp = answers::expiry_of_token(text.trim());
            asked(ControlCall::Permit, Shape::ExpiryOf(exp))
        }
    }
}

fn organisations(parts: &Parts<'_>) -> Routed {
    match parts.method {
        Method::Get => {
            let (after, limit) = bodies::page(parts.query)?;
            let call = ControlCall::Nodes { of: None, after: after.into(), limit };
            Ok(asked(call, Shape::Organisations { limit }))
        }
        Method::Post => {
            let name = bodies::name(parts.body)?;
            let path = budgets::node(&name, None)?;
            Ok(asked(ControlCall::CreateNode(path), Shape::Organisation("org")))
        }
        _ => Err(Problem::wrong_method("GET, HEAD, POST")),
    }
}

fn organisation(parts: &Parts<'_>, name: &str) -> Routed {
    let path = NodePath { organisation: name.into(), group: None };
    match parts.method {
        Method::Get => Ok(asked(ControlCall::Node(path), Shape::Organisation("organization"))),
        Method::Patch => {
            bodies::organisation(parts.body)?;
            Ok(asked(ControlCall::Node(path), Shape::Organisation("organization")))
        }
        Method::Delete => Ok(asked(ControlCall::DropNode(path), Shape::Done)),
        _ => Err(Problem::wrong_method("GET, HEAD, PATCH, DELETE")),
    }
}

/// What stands below an organisation.
fn inside(parts: &Parts<'_>, organisation: &str, rest: &[&str]) -> Routed {
    match rest {
        ["groups"] => groups(parts, organisation),
        ["groups", name, rest @ ..] => {
            let name = TenantName::new(name)?;
            let path =
                NodePath { organisation: organisation.into(), group: Some(name.as_str().into()) };
            group(parts, path, rest)
        }
        ["databases"] => databases(parts, organisation),
        ["databases", "dumps"] => Err(absent("uploads yet")),
        ["databases", name, rest @ ..] => {
            let name = TenantName::new(name)?.as_str().to_owned();
            let asked = database(parts, name, rest)?;
            Ok(Asked { within: Some(organisation.into()), ..asked })
        }
        ["usage"] => {
            let path = NodePath { organisation: organisation.into(), group: None };
            parts.get(ControlCall::Sum(path), Shape::Sum)
        }
        ["members", ..] => Err(absent("members: keys say who may do what")),
        ["invite" | "invites", ..] => Err(absent("invites")),
        ["plan" | "plans" | "subscription" | "billing" | "invoices", ..] => {
            Err(absent("bills; /v1/plans are named budgets"))
        }
        ["audit-logs", ..] => Err(absent("audit logs")),
        ["jwks", ..] => Err(absent("key sets: give public keys with --jwt-key, or a database's")),
        ["locations", ..] => Err(one_location()),
        _ => Err(Problem::not_found()),
    }
}

fn groups(parts: &Parts<'_>, organisation: &str) -> Routed {
    match parts.method {
        Method::Get => {
            let (after, limit) = bodies::page(parts.query)?;
            let of = Some(organisation.into());
            let call = ControlCall::Nodes { of, after: after.into(), limit };
            Ok(asked(call, Shape::Groups { limit }))
        }
        Method::Post => {
            let name = bodies::name(parts.body)?;
            let path = budgets::node(organisation, Some(&name))?;
            Ok(asked(ControlCall::CreateNode(path), Shape::Group))
        }
        _ => Err(Problem::wrong_method("GET, HEAD, POST")),
    }
}

fn group(parts: &Parts<'_>, path: NodePath, rest: &[&str]) -> Routed {
    match (rest, parts.method) {
        ([], Method::Get) => Ok(asked(ControlCall::Node(path), Shape::Group)),
        ([], Method::Delete) => Ok(asked(ControlCall::DropNode(path), Shape::Group)),
        ([], _) => Err(Problem::wrong_method("GET, HEAD, DELETE")),
        (["configuration"], Method::Get) => {
            Ok(asked(ControlCall::Node(path), Shape::GroupConfiguration))
        }
        (["configuration"], Method::Patch) => {
            let change = bodies::group_configuration(parts.body)?;
            Ok(asked(ControlCall::SetNode(path, change), Shape::GroupConfiguration))
        }
        (["configuration"], _) => Err(Problem::wrong_method("GET, HEAD, PATCH")),
        (["usage"], _) => parts.get(ControlCall::Sum(path), Shape::Sum),
        (["auth", "tokens"], _) => token(parts, KeyScope::Node(path)),
        (["auth", "rotate"], _) => parts.post(ControlCall::SetNode(path, rotation()), Shape::Done),
        // Nothing is ever archived, and every group is in the one location already.
        (["unarchive"], _) => parts.post(ControlCall::Node(path), Shape::Group),
        (["locations", LOCATION], Method::Post)
        | (["locations", LOCATION, "wait"], Method::Get) => {
            Ok(asked(ControlCall::Node(path), Shape::Group))
        }
        (["locations", LOCATION, "wait"], _) => Err(Problem::wrong_method("GET, HEAD")),
        (["locations", LOCATION], Method::Delete) => Err(Problem::new(
            409,
            "LAST_LOCATION",
            "a group cannot leave its only location; delete the group instead",
        )),
        (["locations", LOCATION], _) => Err(Problem::wrong_method("POST, DELETE")),
        (["locations", ..], _) => Err(one_location()),
        (["rename"], _) => Err(absent("new names for groups: make another and move databases")),
        (["transfer"], _) => Err(absent("transfers between accounts")),
        _ => Err(Problem::not_found()),
    }
}

fn databases(parts: &Parts<'_>, organisation: &str) -> Routed {
    match parts.method {
        Method::Get => {
            let list = bodies::list(parts.query)?;
            let path = NodePath { organisation: organisation.into(), group: list.group };
            if list.nothing {
                return Ok(asked(ControlCall::Node(path), Shape::NoDatabases));
            }
            let (after, limit) = (list.after, list.limit);
            let call = ControlCall::Members { path, after, limit };
            Ok(asked(call, Shape::Databases { limit }))
        }
        Method::Post => {
            let create = bodies::create(parts.body)?;
            let group = create.group.unwrap_or_else(|| DEFAULT_GROUP.into());
            let path = NodePath { organisation: organisation.into(), group: Some(group) };
            let change =
                Change { group: Some(Some(path)), budget: create.budget, ..Change::default() };
            Ok(asked(ControlCall::Create(create.name, change), Shape::Created))
        }
        _ => Err(Problem::wrong_method("GET, HEAD, POST")),
    }
}

fn database(parts: &Parts<'_>, name: String, rest: &[&str]) -> Routed {
    match (rest, parts.method) {
        ([], Method::Get) => Ok(asked(ControlCall::Show(name), Shape::Database)),
        ([], Method::Delete) => Ok(asked(ControlCall::Drop(name), Shape::Dropped)),
        ([], _) => Err(Problem::wrong_method("GET, HEAD, DELETE")),
        (["configuration"], Method::Get) => {
            Ok(asked(ControlCall::Show(name), Shape::Configuration))
        }
        (["configuration"], Method::Patch) => {
            let change = bodies::configuration(parts.body)?;
            Ok(asked(ControlCall::Place(name, change), Shape::Configuration))
        }
        (["configuration"], _) => Err(Problem::wrong_method("GET, HEAD, PATCH")),
        (["auth", "tokens"], _) => token(parts, KeyScope::Database(name)),
        (["auth", "rotate"], _) => parts.post(ControlCall::Set(name, rotation()), Shape::Done),
        (["usage"], _) => {
            bodies::period(parts.query)?;
            parts.get(ControlCall::Usage(name), Shape::Usage)
        }
        (["usage", "queries"], _) => Err(absent("queries kept: SQL is nobody else's to read")),
        (["instances"], Method::Post) => Err(one_location()),
        (["instances"], _) => parts.get(ControlCall::Show(name), Shape::Instances),
        (["instances", "primary"], Method::Delete) => Err(one_location()),
        (["instances", "primary"], _) | (["instances", "primary", "wait"], _) => {
            parts.get(ControlCall::Show(name), Shape::Instance)
        }
        (["instances", ..], _) => {
            Err(Problem::new(404, "INSTANCE_NOT_FOUND", "a database has one instance, `primary`"))
        }
        // It is always as new as the server, and awake when it is asked.
        (["update" | "wakeup"], _) => parts.post(ControlCall::Show(name), Shape::Done),
        (["transfer"], _) => Err(absent("transfers between accounts")),
        (["seed"], _) => Err(absent("uploads yet")),
        _ => Err(Problem::not_found()),
    }
}

/// A token for a database or group.
fn token(parts: &Parts<'_>, scope: KeyScope) -> Routed {
    if parts.method != Method::Post {
        return Err(Problem::wrong_method("POST"));
    }
    bodies::permissions(parts.body)?;
    let wanted = TokenWanted::new(scope, parts.query)?;
    Ok(Asked { request: AdminRequest::Token(wanted), within: None, shape: Shape::Jwt })
}

/// An API token: a key, by its name.
fn api_token(parts: &Parts<'_>, name: &str, nested: bool) -> Routed {
    let name: Box<str> = bodies::key_name(name)?;
    match parts.method {
        Method::Post => {
            let scope = bodies::key_scope(parts.body)?;
            let request = AdminRequest::CreateKey(Wanted::admin(name, scope));
            Ok(Asked { request, within: None, shape: Shape::Token { nested } })
        }
        Method::Delete => {
            let shape = Shape::Revoked(name.clone());
            Ok(asked(ControlCall::RevokeNamed(name), shape))
        }
        _ => Err(Problem::wrong_method("POST, DELETE")),
    }
}
