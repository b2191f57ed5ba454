//! The catalogue: which databases exist, under which name, and what is known of their files.
//!
//! It is itself a tenant (id 0) with a file and the same log, so create and drop are commits like
//! any other. One row a database, found by name or id through an index: a database that nobody uses
//! costs its row and nothing in memory, and a start reads none of them.
//!
//! ```sql
//! CREATE TABLE databases(
//!   id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given again
//!   name TEXT UNIQUE,                      -- NULL once dropped: the name is free, the id is not
//!   state INTEGER NOT NULL,                -- 0 live, 1 dropped (its file is being removed), 2 fenced
//!   reason TEXT,                           -- why it is fenced
//!   created_s INTEGER NOT NULL,            -- wall-clock seconds since 1970
//!   file INTEGER NOT NULL,                 -- 1: a checkpoint has made its file (F1)
//!   stamp INTEGER NOT NULL,                -- what that checkpoint wrote into page 1 (F10)
//!   txid INTEGER NOT NULL                  -- the last transaction that it covered
//! );
//! CREATE INDEX unsettled ON databases(state) WHERE state = 1;
//! ```
//!
//! Runs on a fiber of tenant 0, many calls in one transaction, and knows nothing of who asked.

use storage::TenantId;
use storage::fiber;
use storage::sqlite::{SQLITE_FULL, SqliteError, ValueRef};

use crate::session::PooledConnection;

/// The version of the schema above, kept in `user_version`.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE databases(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT UNIQUE,
  state INTEGER NOT NULL,
  reason TEXT,
  created_s INTEGER NOT NULL,
  file INTEGER NOT NULL,
  stamp INTEGER NOT NULL,
  txid INTEGER NOT NULL
);
CREATE INDEX unsettled ON databases(state) WHERE state = 1;
PRAGMA user_version = 1;
";

/// State of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// In use.
    Live,
    /// Dropped; the row stays until its file is gone.
    Dropped,
    /// Damaged: answers nothing but why.
    Fenced,
}

/// A row of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRow {
    /// The tenant's id.
    pub id: TenantId,
    /// Its name; empty once dropped.
    pub name: String,
    /// Its state.
    pub state: RowState,
    /// Why it is fenced.
    pub reason: Option<String>,
    /// When it was created, in wall-clock seconds since 1970.
    pub created_s: i64,
    /// It has a file.
    pub file: bool,
    /// Stamp of its last checkpoint.
    pub stamp: u64,
    /// The last transaction that it covered.
    pub txid: u64,
}

/// What may be asked of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Make the schema if it is missing; answer with the rows of these ids, and of all that are
    /// dropped and not yet removed.
    Start(Vec<TenantId>),
    /// The row of a name.
    Find(String),
    /// A new database; with `exists_ok` the row that is there will do.
    Create {
        /// Its name.
        name: String,
        /// Do not fail if there is one.
        exists_ok: bool,
    },
    /// Drop by name.
    Drop(String),
    /// Up to `limit` live rows with names after `after`, starting with `prefix`, in order.
    List {
        /// Names behind this one.
        after: String,
        /// Names that begin so.
        prefix: String,
        /// At most so many.
        limit: usize,
    },
    /// A checkpoint has made the tenant's file complete.
    Checkpointed {
        /// Whose file.
        id: TenantId,
        /// What it wrote into page 1.
        stamp: u64,
        /// The last transaction that it covered.
        txid: u64,
    },
    /// The tenant is damaged.
    Fence(TenantId, String),
    /// The dropped tenant's file is gone: remove its row.
    Forget(TenantId),
}

impl Call {
    /// Whether it may change the catalogue.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Call::Find(_) | Call::List { .. })
    }

    /// Whether it needs log space and makes none: it must leave what checkpoints and fences need.
    #[must_use]
    pub fn grows(&self) -> bool {
        matches!(self, Call::Create { .. } | Call::Drop(_) | Call::Forget(_))
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; nothing to tell.
    Done,
    /// The row; for a create the new one, for a drop the one that was.
    Row(DatabaseRow),
    /// Rows.
    Rows(Vec<DatabaseRow>),
    /// There is no such database.
    NotFound,
    /// There is one of that name already.
    Exists,
    /// SQLite refused; the transaction was rolled back, so no call of it took effect.
    Failed(String),
    /// As `Failed`, for lack of room in the commit log or on its disk.
    Full,
}

/// Carry out calls in one transaction, in order.
pub fn carry_out(pooled: &mut PooledConnection, calls: &[Call]) -> Vec<Outcome> {
    match try_all(pooled, calls) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            pooled.roll_back();
            let full = error.primary() == SQLITE_FULL;
            let outcome = if full { Outcome::Full } else { Outcome::Failed(error.message) };
            vec![outcome; calls.len()]
        }
    }
}

fn try_all(pooled: &mut PooledConnection, calls: &[Call]) -> Result<Vec<Outcome>, SqliteError> {
    let writes = calls.iter().any(Call::writes);
    let begin = if writes { "BEGIN IMMEDIATE" } else { "BEGIN" };
    query(pooled, begin, &[])?;
    let outcomes =
        calls.iter().map(|call| carry_out_one(pooled, call)).collect::<Result<_, _>>()?;
    query(pooled, "COMMIT", &[])?;
    Ok(outcomes)
}

const COLUMNS: &str = "id, coalesce(name, ''), state, reason, created_s, file, stamp, txid";

fn find(pooled: &mut PooledConnection, name: &str) -> Result<Option<DatabaseRow>, SqliteError> {
    let sql = "SELECT id, coalesce(name, ''), state, reason, created_s, file, stamp, txid \
               FROM databases WHERE name = ?1";
    Ok(query(pooled, sql, &[ValueRef::Text(name.as_bytes())])?.pop())
}

fn carry_out_one(pooled: &mut PooledConnection, call: &Call) -> Result<Outcome, SqliteError> {
    let integer = |id: &TenantId| ValueRef::Integer(id.0 as i64);
    match call {
        Call::Start(ids) => start(pooled, ids),
        Call::Find(name) => Ok(find(pooled, name)?.map_or(Outcome::NotFound, Outcome::Row)),
        Call::Create { name, exists_ok } => create(pooled, name, *exists_ok),
        Call::Drop(name) => {
            let Some(row) = find(pooled, name)? else { return Ok(Outcome::NotFound) };
            let sql = "UPDATE databases SET state = 1, name = NULL WHERE id = ?1";
            query(pooled, sql, &[integer(&row.id)])?;
            Ok(Outcome::Row(row))
        }
        Call::List { after, prefix, limit } => {
            let sql = "SELECT id, coalesce(name, ''), state, reason, created_s, file, stamp, txid \
                       FROM databases WHERE name > ?1 AND name >= ?2 AND name < ?2 || x'ff' \
                       ORDER BY name LIMIT ?3";
            let arguments = [
                ValueRef::Text(after.as_bytes()),
                ValueRef::Text(prefix.as_bytes()),
                ValueRef::Integer(*limit as i64),
            ];
            Ok(Outcome::Rows(query(pooled, sql, &arguments)?))
        }
        Call::Checkpointed { id, stamp, txid } => {
            let sql = "UPDATE databases SET file = 1, stamp = ?2, txid = ?3 WHERE id = ?1";
            let arguments =
                [integer(id), ValueRef::Integer(*stamp as i64), ValueRef::Integer(*txid as i64)];
            query(pooled, sql, &arguments)?;
            Ok(Outcome::Done)
        }
        Call::Fence(id, reason) => {
            let sql = "UPDATE databases SET state = 2, reason = ?2 WHERE id = ?1 AND state = 0";
            query(pooled, sql, &[integer(id), ValueRef::Text(reason.as_bytes())])?;
            Ok(Outcome::Done)
        }
        Call::Forget(id) => {
            let sql = "DELETE FROM databases WHERE id = ?1 AND state = 1";
            query(pooled, sql, &[integer(id)])?;
            Ok(Outcome::Done)
        }
    }
}

fn create(
    pooled: &mut PooledConnection,
    name: &str,
    exists_ok: bool,
) -> Result<Outcome, SqliteError> {
    if let Some(row) = find(pooled, name)? {
        return Ok(if exists_ok { Outcome::Row(row) } else { Outcome::Exists });
    }
    let created_s = fiber::wall().map_or(0, |wall| (wall.0 / 1_000_000_000) as i64);
    let sql = "INSERT INTO databases(name, state, created_s, file, stamp, txid) VALUES(?1, 0, ?2, 0, 0, 0)";
    query(pooled, sql, &[ValueRef::Text(name.as_bytes()), ValueRef::Integer(created_s)])?;
    Ok(Outcome::Row(DatabaseRow {
        id: TenantId(pooled.connection().last_insert_rowid() as u64),
        name: name.to_owned(),
        state: RowState::Live,
        reason: None,
        created_s,
        file: false,
        stamp: 0,
        txid: 0,
    }))
}

fn start(pooled: &mut PooledConnection, ids: &[TenantId]) -> Result<Outcome, SqliteError> {
    let version = pooled.query_integer("PRAGMA user_version")?;
    if version == 0 {
        for statement in SCHEMA.split_inclusive(';').filter(|text| text.trim() != "") {
            query(pooled, statement, &[])?;
        }
    } else if version != SCHEMA_VERSION {
        let message = format!(
            "the data folder's catalogue has version {version}, this program knows version \
             {SCHEMA_VERSION}: use a newer program"
        );
        return Err(SqliteError {
            code: storage::sqlite::codes::SQLITE_ERROR,
            message,
            offset: None,
        });
    }
    let mut rows = query(pooled, &format!("SELECT {COLUMNS} FROM databases WHERE state = 1"), &[])?;
    for id in ids {
        let sql = "SELECT id, coalesce(name, ''), state, reason, created_s, file, stamp, txid \
                   FROM databases WHERE id = ?1 AND state <> 1";
        rows.extend(query(pooled, sql, &[ValueRef::Integer(id.0 as i64)])?);
    }
    Ok(Outcome::Rows(rows))
}

/// Run one statement; rows are rows of the catalogue.
fn query(
    pooled: &mut PooledConnection,
    sql: &str,
    arguments: &[ValueRef<'_>],
) -> Result<Vec<DatabaseRow>, SqliteError> {
    let mut rows = Vec::new();
    pooled.for_each_row(sql, arguments, |statement| {
        let integer = |index| match statement.column(index) {
            Ok(ValueRef::Integer(value)) => value,
            _ => 0,
        };
        let text = |index| match statement.column(index) {
            Ok(ValueRef::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        rows.push(DatabaseRow {
            id: TenantId(integer(0) as u64),
            name: text(1).unwrap_or_default(),
            state: match integer(2) {
                0 => RowState::Live,
                1 => RowState::Dropped,
                _ => RowState::Fenced,
            },
            reason: text(3),
            created_s: integer(4),
            file: integer(5) != 0,
            stamp: integer(6) as u64,
            txid: integer(7) as u64,
        });
    })?;
    Ok(rows)
}
