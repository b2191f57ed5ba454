//! What somebody with less than all rights may ask of the catalogue: looked up in the transaction that
//! then carries it out.
//!
//! The caller has compared the role with what the call takes; here the scope is compared with what the
//! call is about. What an organisation's or group's own budget is, and its name, is for who is above it.

use storage::sqlite::SqliteError;

use super::keys::{self, KeyScope};
use super::nodes::{self, Change, NodePath};
use super::{Call, find};
use crate::access::{Access, Denial};
use crate::session::PooledConnection;

type Verdict = Result<Result<(), Denial>, SqliteError>;

const ALLOWED: Verdict = Ok(Ok(()));
const UNAUTHORISED: Verdict = Ok(Err(Denial::Unauthorised));
const FORBIDDEN: Verdict = Ok(Err(Denial::Forbidden));

/// Whether `access` covers what `call` is about.
pub(super) fn judge(pooled: &mut PooledConnection, access: &Access, call: &Call) -> Verdict {
    match call {
        Call::Find(name) | Call::Drop(name) | Call::Set(name, _) => database(pooled, access, name),
        Call::Create { change, .. } => match &change.group {
            Some(Some(path)) => node(pooled, access, path),
            _ => FORBIDDEN,
        },
        Call::Place(name, change) => match database(pooled, access, name)? {
            Ok(()) => place(pooled, access, change),
            denied => Ok(denied),
        },
        Call::FindNode(path) | Call::SetNode(path, _) => node(pooled, access, path),
        Call::PutNode(path, _) | Call::DropNode(path) => above(pooled, access, path),
        Call::Keys { scope: Some(of), .. } | Call::Sign(of, _) => scope(pooled, access, of),
        Call::CreateKey(key) if key.role > access.role => FORBIDDEN,
        Call::CreateKey(key) => scope(pooled, access, &key.scope),
        Call::RevokeKey(public) => {
            let found = keys::find(pooled, public)?.pop();
            match found.and_then(|key| key.scope_name) {
                Some(of) => scope(pooled, access, &of),
                None => UNAUTHORISED,
            }
        }
        // Lists of everything, plans, and what only the engine asks.
        _ => FORBIDDEN,
    }
}

fn scope(pooled: &mut PooledConnection, access: &Access, scope: &KeyScope) -> Verdict {
    match scope {
        KeyScope::Machine => UNAUTHORISED,
        KeyScope::Node(path) => node(pooled, access, path),
        KeyScope::Database(name) => database(pooled, access, name),
    }
}

fn database(pooled: &mut PooledConnection, access: &Access, name: &str) -> Verdict {
    let row = find(pooled, name)?;
    Ok(row.map_or(Err(Denial::Unauthorised), |row| access.enter(&row)))
}

fn node(pooled: &mut PooledConnection, access: &Access, path: &NodePath) -> Verdict {
    let found = nodes::find_path(pooled, path)?;
    Ok(found.map_or(Err(Denial::Unauthorised), |path| access.enter_node(&path)))
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
        Some(Some(path)) => node(pooled, access, path),
    }
}
