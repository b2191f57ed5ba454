//! What stands below an organisation: its groups and databases.

use tenant::{Change, ControlCall, DEFAULT_GROUP, ImportFormat, KeyScope, NodePath};

use super::bodies;
use super::route::{LOCATION, Parts, Routed, absent, asked, one_location, rotation};
use super::{Asked, Shape};
use crate::control::keys::TokenWanted;
use crate::control::{AdminRequest, budgets, dumps, sum, usage};
use crate::http::{Method, TenantName};
use crate::problem::Problem;

/// What stands below an organisation.
pub(super) fn route(parts: &Parts<'_>, organisation: &str, rest: &[&str]) -> Routed {
    match rest {
        ["groups"] => groups(parts, organisation),
        ["groups", name, rest @ ..] => {
            let name = TenantName::new(name)?;
            let path =
                NodePath { organisation: organisation.into(), group: Some(name.as_str().into()) };
            group(parts, path, rest)
        }
        ["databases"] => databases(parts, organisation),
        // Begun by its head, its body is not held: see `server/uploads.rs`.
        ["databases", "dumps"] => parts.post(dumps::call(organisation, &[0; 16])?, Shape::Dump),
        ["databases", name, rest @ ..] => {
            let name = TenantName::new(name)?.as_str().to_owned();
            let asked = database(parts, name, rest)?;
            Ok(Asked { within: Some(organisation.into()), ..asked })
        }
        ["usage"] => {
            let path = NodePath { organisation: organisation.into(), group: None };
            parts.get_with(|query| sum(path, query), Shape::Sum)
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
        (["usage"], _) => parts.get_with(|query| sum(path, query), Shape::Sum),
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
        (["rename"], Method::Post) => {
            let name = bodies::name(parts.body)?.into();
            Ok(asked(ControlCall::RenameGroup(path, name), Shape::Group))
        }
        (["rename"], _) => Err(Problem::wrong_method("POST")),
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
            if create.sent {
                let (name, format) = (create.name, ImportFormat::File);
                let call = ControlCall::Import { name, change, format };
                return Ok(asked(call, Shape::Created));
            }
            let Some(from) = create.from else {
                return Ok(asked(ControlCall::Create(create.name, change), Shape::Created));
            };
            // Of its own organisation, whatever the server has under that name.
            let fork = ControlCall::Fork { from, to: create.name, change };
            Ok(Asked { within: Some(organisation.into()), ..asked(fork, Shape::Created) })
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
        (["usage"], _) => parts.get_with(|query| usage(name, query), Shape::Usage),
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
        (["seed"], _) => {
            Err(absent("uploads on this route: send the file to /v1/namespaces/{name}/upload"))
        }
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
