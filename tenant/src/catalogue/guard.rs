//! What somebody with less than all rights may ask of the catalogue: looked up in the transaction that
//! then carries it out.
//!
//! The caller has compared the role with what the call takes; here the scope is compared with what the
//! call is about. What an organisation's or group's own budget is, and its name, is for who is above it.

use storage::sqlite::SqliteError;

use super::jobs::{self, JobCall};
use super::keys::{self, KeyRow, KeyScope};
use super::nodes::{self, Change, NodePath};
use super::{Build, Call, Outcome, find};
use crate::access::{Access, Denial, Scope};
use crate::budget::Priority;
use crate::key_budget::KeyBudget;
use crate::session::PooledConnection;
use crate::settings::SettingsChange;

type Verdict = Result<Result<(), Denial>, SqliteError>;

const ALLOWED: Verdict = Ok(Ok(()));
const UNAUTHORISED: Verdict = Ok(Err(Denial::Unauthorised));
const FORBIDDEN: Verdict = Ok(Err(Denial::Forbidden));

/// Whether `access` covers what `call` is about.
pub(super) fn judge(pooled: &mut PooledConnection, access: &Access, call: &Call) -> Verdict {
    match call {
        Call::FindIn(name, _) | Call::Find(name) | Call::Drop(name) | Call::Set(name, _) => {
            database(pooled, access, name)
        }
        Call::Within(_, call) => judge(pooled, access, call),
        Call::Create { change, .. } | Call::Remake(_, change) => match &change.group {
            Some(Some(path)) => group(pooled, access, path),
            _ => FORBIDDEN,
        },
        // What is copied must be its own, and so must the place of the copy.
        Call::Build(build) => build_of(pooled, access, build),
        Call::Place(name, change) => match database(pooled, access, name)? {
            Ok(()) => place(pooled, access, change),
            denied => Ok(denied),
        },
        // What is to be copied for everybody in a group must be its own to give.
        Call::SetNode(path, SettingsChange { template: Some(Some(template)), .. }) => {
            match database(pooled, access, &template.name)? {
                Ok(()) => node(pooled, access, path),
                denied => Ok(denied),
            }
        }
        Call::FindNode(path) | Call::SetNode(path, _) | Call::Sum(path) | Call::SumIn(path, _) => {
            node(pooled, access, path)
        }
        Call::Members { path, .. } => node(pooled, access, path),
        Call::Nodes { of: Some(name), .. } => {
            node(pooled, access, &NodePath { organisation: name.clone(), group: None })
        }
        // Of all organisations it is shown its own.
        Call::Nodes { of: None, .. } => ALLOWED,
        Call::PutNode(path, _)
        | Call::DropNode(path)
        | Call::CreateNode(path)
        | Call::RenameGroup(path, _) => above(pooled, access, path),
        Call::Keys { scope: Some(of), .. } => scope(pooled, access, of),
        Call::Sign(of, _) => match may_mint(pooled, access, None)? {
            true => scope(pooled, access, of),
            false => FORBIDDEN,
        },
        Call::Job(call) => job(pooled, access, call),
        Call::CreateKey(key) if key.role > access.role => FORBIDDEN,
        Call::CreateKey(key) => match may_mint(pooled, access, key.priority)? {
            true => scope(pooled, access, &key.scope),
            false => FORBIDDEN,
        },
        Call::RevokeKey(public) => {
            let found = keys::find(pooled, public)?.pop();
            match found.and_then(|key| key.scope_name) {
                Some(of) => scope(pooled, access, &of),
                None => UNAUTHORISED,
            }
        }
        Call::FindKey(public) => {
            let found = keys::find(pooled, public)?.pop();
            match found {
                // What it has shown it may see.
                Some(key) if access.key == Some(key.id) => ALLOWED,
                Some(KeyRow { scope_name: Some(of), .. }) => scope(pooled, access, &of),
                _ => UNAUTHORISED,
            }
        }
        // Lists of everything, plans, and what only the engine asks.
        _ => FORBIDDEN,
    }
}

/// Who has a budget hands out nothing that has none, and who is not urgent nothing that is more so. A
/// token has no priority of its own.
fn may_mint(
    pooled: &mut PooledConnection,
    access: &Access,
    priority: Option<Priority>,
) -> Result<bool, SqliteError> {
    let least = priority.unwrap_or(Priority::Interactive);
    if access.priority.is_some_and(|most| least > most) {
        return Ok(false);
    }
    let Some(key) = access.key else { return Ok(true) };
    let budget = keys::budget(pooled, key)?;
    Ok(budget.is_none_or(|budget| budget == KeyBudget::default()))
}

fn scope(pooled: &mut PooledConnection, access: &Access, scope: &KeyScope) -> Verdict {
    match scope {
        KeyScope::Machine => UNAUTHORISED,
        KeyScope::Node(path) => node(pooled, access, path),
        KeyScope::Database(name) => database(pooled, access, name),
    }
}

/// A job is its organisation's or group's; those of the machine are for who has all of it.
fn job(pooled: &mut PooledConnection, access: &Access, call: &JobCall) -> Verdict {
    let id = match call {
        JobCall::Create(job) => match &job.node {
            Some(path) => return node(pooled, access, path),
            None => return FORBIDDEN,
        },
        JobCall::List { node: Some(path), .. } => return node(pooled, access, path),
        JobCall::Show(id) | JobCall::Results { id, .. } | JobCall::Order(id, _) => *id,
        // Lists of everything, and what only the server asks.
        _ => return FORBIDDEN,
    };
    let Some(of) = jobs::find(pooled, id)?.and_then(|job| job.node) else { return UNAUTHORISED };
    let path = nodes::find_by_id(pooled, of)?;
    Ok(if path.is_empty() { Err(Denial::Unauthorised) } else { access.enter_node(&path) })
}

fn database(pooled: &mut PooledConnection, access: &Access, name: &str) -> Verdict {
    let row = find(pooled, name)?;
    Ok(row.map_or(Err(Denial::Unauthorised), |row| access.enter(&row)))
}

fn node(pooled: &mut PooledConnection, access: &Access, path: &NodePath) -> Verdict {
    let found = nodes::find_path(pooled, path)?;
    Ok(found.map_or(Err(Denial::Unauthorised), |path| access.enter_node(&path)))
}

fn build_of(pooled: &mut PooledConnection, access: &Access, build: &Build) -> Verdict {
    let from = match &build.from {
        None => None,
        Some(name) => match database(pooled, access, name)? {
            Ok(()) => find(pooled, name)?,
            denied => return Ok(denied),
        },
    };
    match build.placed(from.as_ref()).group {
        Some(Some(path)) => group(pooled, access, &path),
        _ => FORBIDDEN,
    }
}

/// The group that a database is put into; `default` need not be there yet for who has the organisation.
fn group(pooled: &mut PooledConnection, access: &Access, path: &NodePath) -> Verdict {
    let is_default = path.group.as_deref() == Some(nodes::DEFAULT_GROUP);
    if is_default && nodes::find_path(pooled, path)?.is_err() {
        let organisation = NodePath { organisation: path.organisation.clone(), group: None };
        return node(pooled, access, &organisation);
    }
    node(pooled, access, path)
}

/// The organisations that somebody with less than all rights is shown: the one that it has, or has a
/// part of.
pub(super) fn organisations(
    pooled: &mut PooledConnection,
    access: &Access,
) -> Result<Outcome, SqliteError> {
    let path = match access.scope {
        Scope::Node(id) => nodes::find_by_id(pooled, id)?,
        Scope::Database(id) => super::find_by_id(pooled, id)?.map_or(Vec::new(), |row| row.path),
        Scope::Name(_) | Scope::Machine => Vec::new(),
    };
    let entered = path.iter().all(|node| !access.holder().is_older_than_node(node));
    Ok(Outcome::Nodes(path.into_iter().next_back().filter(|_| entered).into_iter().collect()))
}

/// A group may be made and changed by who has its organisation; an organisation, by nobody who asks
/// here.
fn above(pooled: &mut PooledConnection, access: &Access, path: &NodePath) -> Verdict {
    let organisation = NodePath { organisation: path.organisation.clone(), group: None };
    match node(pooled, access, &organisation)? {
        Ok(()) if path.group.is_none() => FORBIDDEN,
        Err(_) => match node(pooled, access, path)? {
            Ok(()) => FORBIDDEN,
            denied => Ok(denied),
        },
        allowed => Ok(allowed),
    }
}

/// A database that moves stays within what is covered.
fn place(pooled: &mut PooledConnection, access: &Access, change: &Change) -> Verdict {
    match &change.group {
        None => ALLOWED,
        Some(None) => FORBIDDEN,
        Some(Some(path)) => group(pooled, access, path),
    }
}
