//! Keys in the catalogue, and the secret that signs the server's own tokens.

use storage::TenantId;
use storage::sqlite::{SqliteError, Statement, ValueRef};

use super::nodes::{self, NodePath};
use super::rows::{blob_at, integer_at, read, run, text_at, text_or_null};
use super::{Missing, Outcome, Signing, find as find_database, now_s};
use crate::access::{KeyId, Role, Scope};
use crate::budget::{Priority, Unreadable};
use crate::catalogue::NodeId;
use crate::key_budget::KeyBudget;
use crate::limits;
use crate::session::PooledConnection;

/// The secret half of the server's own signing key. What it is must not be printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// What a key or token is for, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyScope {
    /// Everything.
    Machine,
    /// An organisation or group.
    Node(NodePath),
    /// A database.
    Database(String),
}

/// A key that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// What of it may be seen.
    pub public: Box<str>,
    /// Of all of it.
    pub hash: [u8; 32],
    /// For people.
    pub name: Option<Box<str>>,
    /// What it is for.
    pub scope: KeyScope,
    /// How much it may.
    pub role: Role,
    /// Its requests are not more urgent than this.
    pub priority: Option<Priority>,
    /// It is good for so many seconds; `None`: until it is revoked.
    pub lifetime_s: Option<u64>,
    /// What it may spend.
    pub budget: KeyBudget,
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its id.
    pub id: KeyId,
    /// What of it may be seen.
    pub public: Box<str>,
    /// Of all of it.
    pub hash: [u8; 32],
    /// For people.
    pub name: Option<Box<str>>,
    /// What it is for.
    pub scope: Scope,
    /// The same by its present name; `None` if that is gone.
    pub scope_name: Option<KeyScope>,
    /// How much it may.
    pub role: Role,
    /// Its requests are not more urgent than this.
    pub priority: Option<Priority>,
    /// When it was made, in seconds since 1970.
    pub created_s: i64,
    /// From when on it is not good any more.
    pub expires_s: Option<i64>,
    /// Since when it is revoked.
    pub revoked_s: Option<i64>,
    /// What it may spend.
    pub budget: KeyBudget,
}

/// The columns of [`key_at`], and which rows of them.
macro_rules! select_keys {
    ($rows:literal) => {
        concat!(
            "SELECT k.id, k.public, k.hash, k.name, k.scope, k.scope_id, k.role, k.priority, ",
            "k.created_s, k.expires_s, k.revoked_s, d.name, n.name, o.name, ",
            "k.request_cost, k.cost_per_second, k.cost_burst FROM keys k ",
            "LEFT JOIN databases d ON k.scope = 2 AND d.id = k.scope_id ",
            "LEFT JOIN nodes n ON k.scope = 1 AND n.id = k.scope_id ",
            "LEFT JOIN nodes o ON o.id = n.parent ",
            $rows
        )
    };
}

fn integer_or_none(statement: &Statement, index: usize) -> Option<i64> {
    match statement.column(index) {
        Ok(ValueRef::Integer(value)) => Some(value),
        _ => None,
    }
}

fn key_at(statement: &Statement) -> Result<KeyRow, Unreadable> {
    let text = |index| text_at(statement, index).map(String::into_boxed_str);
    let scope_id = integer_at(statement, 5) as u64;
    let role = Role::ALL.get(integer_at(statement, 6) as usize);
    let (scope, scope_name) = match integer_at(statement, 4) {
        0 => (Scope::Machine, Some(KeyScope::Machine)),
        1 => {
            // Of an organisation, the name stands first; of a group, its organisation's does.
            let path = text(12).map(|own| match text(13) {
                Some(organisation) => NodePath { organisation, group: Some(own) },
                None => NodePath { organisation: own, group: None },
            });
            (Scope::Node(NodeId(scope_id)), path.map(KeyScope::Node))
        }
        2 => {
            let name = text_at(statement, 11).map(KeyScope::Database);
            (Scope::Database(TenantId(scope_id)), name)
        }
        _ => return Err("scope".into()),
    };
    let priority = integer_or_none(statement, 7)
        .map(|place| Priority::ALL.get(place as usize).copied().ok_or("priority"));
    Ok(KeyRow {
        id: KeyId(integer_at(statement, 0) as u64),
        public: text(1).ok_or("public")?,
        hash: blob_at(statement, 2).ok_or("hash")?,
        name: text(3),
        scope,
        scope_name,
        role: *role.ok_or("role")?,
        priority: priority.transpose()?,
        created_s: integer_at(statement, 8),
        expires_s: integer_or_none(statement, 9),
        revoked_s: integer_or_none(statement, 10),
        budget: KeyBudget {
            request_cost: integer_or_none(statement, 14).map(i64::cast_unsigned),
            cost_per_second: integer_or_none(statement, 15).map(i64::cast_unsigned),
            cost_burst: integer_or_none(statement, 16).map(i64::cast_unsigned),
        },
    })
}

/// What a scope is called, looked up; or what of it is missing.
enum Looked {
    Found(Scope, Signing),
    Missing(Outcome),
}

fn look_up(
    pooled: &mut PooledConnection,
    scope: &KeyScope,
    secret: Secret,
) -> Result<Looked, SqliteError> {
    let empty = Signing { secret, row: None, path: Vec::new() };
    Ok(match scope {
        KeyScope::Machine => Looked::Found(Scope::Machine, empty),
        KeyScope::Node(path) => match nodes::find_path(pooled, path)? {
            Ok(path) => {
                let id = path.first().expect("a path has a node").id;
                Looked::Found(Scope::Node(id), Signing { path, ..empty })
            }
            Err(missing) => Looked::Missing(Outcome::Missing(missing)),
        },
        KeyScope::Database(name) => match find_database(pooled, name)? {
            Some(row) => {
                let found = Signing { row: Some(Box::new(row.clone())), ..empty };
                Looked::Found(Scope::Database(row.id), found)
            }
            None => Looked::Missing(Outcome::NotFound),
        },
    })
}

/// The two columns of a scope.
fn columns_of(scope: Scope) -> [ValueRef<'static>; 2] {
    let (kind, id) = match scope {
        Scope::Machine => (0, 0),
        Scope::Node(id) => (1, id.0),
        Scope::Database(id) => (2, id.0),
        Scope::Name(_) => unreachable!("the catalogue's scopes are ids"),
    };
    [ValueRef::Integer(kind), ValueRef::Integer(id as i64)]
}

pub(super) fn create(pooled: &mut PooledConnection, key: &NewKey) -> Result<Outcome, SqliteError> {
    let scope = match look_up(pooled, &key.scope, Secret([0; 32]))? {
        Looked::Found(scope, _) => scope,
        Looked::Missing(outcome) => return Ok(outcome),
    };
    let [kind, id] = columns_of(scope);
    let sql = "SELECT count(*) FROM keys WHERE scope = ?1 AND scope_id = ?2";
    let count = read(pooled, sql, &[kind, id], |statement| Ok(integer_at(statement, 0)))?;
    if count.first().copied().unwrap_or(0) >= limits::KEYS_MAX as i64 {
        return Ok(Outcome::TooManyKeys);
    }
    let created_s = now_s();
    let expires_s =
        key.lifetime_s.and_then(|lifetime_s| created_s.checked_add_unsigned(lifetime_s));
    let number = |number: Option<i64>| number.map_or(ValueRef::Null, ValueRef::Integer);
    let place = |priority| Priority::ALL.iter().position(|&other| other == priority);
    let priority = key.priority.and_then(place).map(|place| place as i64);
    let sql = "INSERT INTO keys(public, hash, name, scope, scope_id, role, priority, created_s, \
               expires_s, request_cost, cost_per_second, cost_burst) \
               VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let arguments = [
        ValueRef::Text(key.public.as_bytes()),
        ValueRef::Blob(&key.hash),
        text_or_null(key.name.as_deref()),
        kind,
        id,
        ValueRef::Integer(key.role as i64),
        number(priority),
        ValueRef::Integer(created_s),
        number(expires_s),
        number(key.budget.request_cost.map(u64::cast_signed)),
        number(key.budget.cost_per_second.map(u64::cast_signed)),
        number(key.budget.cost_burst.map(u64::cast_signed)),
    ];
    run(pooled, sql, &arguments)?;
    Ok(Outcome::Keys(find(pooled, &key.public)?))
}

/// The key with this public part, if there is one.
pub(super) fn find(
    pooled: &mut PooledConnection,
    public: &str,
) -> Result<Vec<KeyRow>, SqliteError> {
    let sql = select_keys!("WHERE k.public = ?1");
    read(pooled, sql, &[ValueRef::Text(public.as_bytes())], key_at)
}

/// What this key may spend, if it is there.
pub(super) fn budget(
    pooled: &mut PooledConnection,
    key: KeyId,
) -> Result<Option<KeyBudget>, SqliteError> {
    let sql = select_keys!("WHERE k.id = ?1");
    let found = read(pooled, sql, &[ValueRef::Integer(key.0 as i64)], key_at)?.pop();
    Ok(found.map(|key| key.budget))
}

pub(super) fn list(
    pooled: &mut PooledConnection,
    scope: Option<&KeyScope>,
    after: u64,
    limit: usize,
) -> Result<Outcome, SqliteError> {
    let page = [ValueRef::Integer(after as i64), ValueRef::Integer(limit as i64)];
    let Some(scope) = scope else {
        let sql = select_keys!("WHERE k.id > ?1 ORDER BY k.id LIMIT ?2");
        return Ok(Outcome::Keys(read(pooled, sql, &page, key_at)?));
    };
    let scope = match look_up(pooled, scope, Secret([0; 32]))? {
        Looked::Found(scope, _) => scope,
        Looked::Missing(outcome) => return Ok(outcome),
    };
    let [kind, id] = columns_of(scope);
    let sql =
        select_keys!("WHERE k.scope = ?3 AND k.scope_id = ?4 AND k.id > ?1 ORDER BY k.id LIMIT ?2");
    Ok(Outcome::Keys(read(pooled, sql, &[page[0], page[1], kind, id], key_at)?))
}

pub(super) fn revoke(pooled: &mut PooledConnection, public: &str) -> Result<Outcome, SqliteError> {
    let sql = "UPDATE keys SET revoked_s = ?2 WHERE public = ?1 AND revoked_s IS NULL";
    run(pooled, sql, &[ValueRef::Text(public.as_bytes()), ValueRef::Integer(now_s())])?;
    let found = find(pooled, public)?;
    Ok(if found.is_empty() { Outcome::Missing(Missing::Key) } else { Outcome::Keys(found) })
}

/// Revoke the keys of a name. Those of databases are not looked at: there may be a million.
pub(super) fn revoke_named(
    pooled: &mut PooledConnection,
    name: &str,
) -> Result<Outcome, SqliteError> {
    let name = ValueRef::Text(name.as_bytes());
    let which = select_keys!(
        "WHERE k.scope IN (0, 1) AND k.name = ?1 AND k.revoked_s IS NULL ORDER BY k.id"
    );
    let mut found = read(pooled, which, &[name], key_at)?;
    let revoked_s = now_s();
    for key in &mut found {
        let sql = "UPDATE keys SET revoked_s = ?2 WHERE id = ?1";
        run(pooled, sql, &[ValueRef::Integer(key.id.0 as i64), ValueRef::Integer(revoked_s)])?;
        key.revoked_s = Some(revoked_s);
    }
    Ok(if found.is_empty() { Outcome::Missing(Missing::Key) } else { Outcome::Keys(found) })
}

/// What keys are for is gone: so are they.
pub(super) fn forget(pooled: &mut PooledConnection, scope: Scope) -> Result<(), SqliteError> {
    run(pooled, "DELETE FROM keys WHERE scope = ?1 AND scope_id = ?2", &columns_of(scope))
}

/// What signs tokens, if there is one.
pub(super) fn signing(pooled: &mut PooledConnection) -> Result<Option<Secret>, SqliteError> {
    let secret = |statement: &Statement| Ok(Secret(blob_at(statement, 0).ok_or("secret")?));
    Ok(read(pooled, "SELECT secret FROM signing ORDER BY id LIMIT 1", &[], secret)?.pop())
}

/// Whether there is a key that may everything.
pub(super) fn has_admin(pooled: &mut PooledConnection) -> Result<bool, SqliteError> {
    let sql = "SELECT 1 FROM keys WHERE scope = 0 AND scope_id = 0 AND role = 2 \
               AND revoked_s IS NULL AND coalesce(expires_s > ?1, 1) LIMIT 1";
    Ok(!read(pooled, sql, &[ValueRef::Integer(now_s())], |_| Ok(()))?.is_empty())
}

pub(super) fn sign(
    pooled: &mut PooledConnection,
    scope: &KeyScope,
    candidate: &Secret,
) -> Result<Outcome, SqliteError> {
    let found = match look_up(pooled, scope, *candidate)? {
        Looked::Found(_, found) => found,
        Looked::Missing(outcome) => return Ok(outcome),
    };
    if let Some(secret) = signing(pooled)? {
        return Ok(Outcome::Signing(Signing { secret, ..found }));
    }
    let sql = "INSERT INTO signing(secret, created_s) VALUES(?1, ?2)";
    run(pooled, sql, &[ValueRef::Blob(&candidate.0), ValueRef::Integer(now_s())])?;
    Ok(Outcome::Signing(found))
}
