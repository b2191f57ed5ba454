//! From a path of the Platform API to what is asked for, and the form of its answer.

use tenant::settings::SettingsChange;
use tenant::{ControlCall, NodePath};

use super::{Asked, Shape, bodies, forms, inside};
use crate::auth::key;
use crate::control::AdminRequest;
use crate::control::budgets;
use crate::control::keys::Wanted;
use crate::http::{Head, Method, TenantName};
use crate::problem::Problem;

pub(super) type Routed = Result<Asked, Problem>;

/// The one place where databases are.
pub(super) const LOCATION: &str = "local";

const LOCATIONS: &str = r#"{"locations":{"local":"this server"}}"#;
const LOCATIONS_V2: &str = r#"{"locations":{"myriad":{"local":"this server"}}}"#;
const LOCATION_SHOWN: &str =
    r#"{"location":{"code":"local","description":"this server","closest":[]}}"#;
const USER: &str = r#"{"user":{"username":"operator","plan":"self-hosted"}}"#;

/// What a request is, taken apart.
pub(super) struct Parts<'a> {
    pub method: Method,
    pub query: &'a str,
    pub body: &'a [u8],
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
            Ok(name) => inside::route(&parts, name.as_str(), rest),
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

pub(super) fn asked(call: ControlCall, shape: Shape) -> Asked {
    Asked { request: AdminRequest::Call(call), within: None, shape }
}

impl Parts<'_> {
    pub fn get(&self, call: ControlCall, shape: Shape) -> Routed {
        match self.method {
            Method::Get => Ok(asked(call, shape)),
            _ => Err(Problem::wrong_method("GET, HEAD")),
        }
    }

    /// The same with a query that may be wrong: another method is told first.
    pub fn get_with(
        &self,
        call: impl FnOnce(&str) -> Result<ControlCall, Problem>,
        shape: Shape,
    ) -> Routed {
        match self.method {
            Method::Get => Ok(asked(call(self.query)?, shape)),
            _ => Err(Problem::wrong_method("GET, HEAD")),
        }
    }

    pub fn post(&self, call: ControlCall, shape: Shape) -> Routed {
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
pub(super) fn absent(what: &str) -> Problem {
    Problem::detailed(
        404,
        "NOT_HERE",
        "a route without a meaning here",
        format!("there are no {what} on a server of your own"),
    )
}

pub(super) fn one_location() -> Problem {
    Problem::new(404, "LOCATION_NOT_FOUND", "there is one location, `local`: this server")
}

pub(super) fn rotation() -> SettingsChange {
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
            let exp = forms::expiry_of_token(text.trim());
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
