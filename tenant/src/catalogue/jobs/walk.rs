//! Which databases of a job are next.
//!
//! A position is a text that only this file reads: the name of the last database, with its group's id
//! before it where there are groups; of listed names, how many were taken; of those that failed, the
//! number of the last result. Each page reads an index from there on, so it costs its rows.

use std::collections::BTreeSet;

use storage::TenantId;
use storage::sqlite::{SqliteError, ValueRef};

use super::super::Outcome;
use super::super::rows::{NodeId, PRIVATE_NAME, integer_at, read, text_at};
use super::{JobReply, JobRow, number, result_key};
use crate::limits;
use crate::session::PooledConnection;

/// A database that is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its id; 0 if there is none of that name.
    pub id: TenantId,
    /// Its name; empty if it was dropped.
    pub name: Box<str>,
    /// Whether it can be migrated.
    pub state: TargetState,
    /// The number of its result, if it has one that failed.
    pub number: Option<u64>,
    /// Where the walk is behind it.
    pub position: Box<str>,
}

/// Whether a database can be migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// It can.
    Live,
    /// It is fenced.
    Fenced,
    /// It was dropped, never was, or is not the job's.
    Missing,
    /// It has its result.
    Known,
}

/// Databases that are next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order of the walk.
    pub targets: Vec<Target>,
    /// Where the walk is behind all that were looked at.
    pub position: Box<str>,
    /// There are no more.
    pub ended: bool,
}

/// The next databases behind a position.
pub(super) fn walk(
    pooled: &mut PooledConnection,
    job: &JobRow,
    after: &str,
    limit: usize,
) -> Result<Outcome, SqliteError> {
    let mut found = if job.retries {
        failed(pooled, job, after, limit)?
    } else if job.named {
        named(pooled, job, after, limit)?
    } else if let Some(node) = job.node {
        in_groups(pooled, job, node, after, limit)?
    } else {
        everywhere(pooled, job, after, limit)?
    };
    let ended = found.len() < limit;
    let position = found.last().map_or(after.into(), |target| target.position.clone());
    if !job.retries {
        let (known, missing) = recent(pooled, job)?;
        for target in &mut found {
            if known.contains(&target.id) || (target.id.0 == 0 && missing.contains(&target.name)) {
                target.state = TargetState::Known;
            }
        }
    }
    Ok(Outcome::Job(JobReply::Page(Page { targets: found, position, ended })))
}

/// What is said of a name that nobody has.
#[must_use]
pub fn missing_text(name: &str) -> String {
    format!("{MISSING}{name}")
}

const MISSING: &str = "no such database: ";

/// Databases, and names that nobody has, whose results may be ahead of the job's position. Whatever is
/// ahead was in the window with each one that ended later and is not: the last results of twice as many
/// as a window may hold have all of them.
fn recent(
    pooled: &mut PooledConnection,
    job: &JobRow,
) -> Result<(BTreeSet<TenantId>, BTreeSet<Box<str>>), SqliteError> {
    let last = job.tally.results;
    let first = last.saturating_sub(2 * limits::JOB_WINDOW_MAX as u64);
    let sql = "SELECT database, CASE database WHEN 0 THEN message END FROM job_results \
               WHERE id >= ?1 AND id < ?2";
    let (first, last) = (result_key(job.id, first), result_key(job.id, last));
    let arguments = [ValueRef::Integer(first), ValueRef::Integer(last)];
    let (mut known, mut missing) = (BTreeSet::new(), BTreeSet::new());
    read(pooled, sql, &arguments, |row| {
        let message = text_at(row, 1).unwrap_or_default();
        match (integer_at(row, 0), message.strip_prefix(MISSING)) {
            (0, Some(name)) => missing.insert(name.into()),
            (0, None) => false,
            (id, _) => known.insert(TenantId(id as u64)),
        };
        Ok(())
    })?;
    Ok((known, missing))
}

fn state_of(state: i64) -> TargetState {
    match state {
        0 => TargetState::Live,
        1 => TargetState::Missing,
        _ => TargetState::Fenced,
    }
}

fn last_id(pooled: &mut PooledConnection, job: &JobRow) -> Result<u64, SqliteError> {
    let sql = "SELECT last_id FROM jobs WHERE id = ?1";
    let found = read(pooled, sql, &[number(job.id.0)], |row| Ok(integer_at(row, 0) as u64))?;
    Ok(found.first().copied().unwrap_or(0))
}

/// By name, wherever they are.
fn everywhere(
    pooled: &mut PooledConnection,
    job: &JobRow,
    after: &str,
    limit: usize,
) -> Result<Vec<Target>, SqliteError> {
    let private = PRIVATE_NAME.to_string();
    let sql = "SELECT id, name, state FROM databases \
               WHERE name > ?1 AND name >= ?2 AND name < ?2 || x'ff' AND id <= ?3 \
               AND instr(name, ?5) = 0 \
               ORDER BY name LIMIT ?4";
    let arguments = [
        ValueRef::Text(after.as_bytes()),
        ValueRef::Text(job.prefix.as_deref().unwrap_or("").as_bytes()),
        number(last_id(pooled, job)?),
        number(limit as u64),
        ValueRef::Text(private.as_bytes()),
    ];
    read(pooled, sql, &arguments, |row| {
        let name = text_at(row, 1).unwrap_or_default();
        Ok(Target {
            id: TenantId(integer_at(row, 0) as u64),
            state: state_of(integer_at(row, 2)),
            number: None,
            position: name.as_str().into(),
            name: name.into(),
        })
    })
}

/// Groups of a job's organisation from this id on, or its one group.
fn groups(pooled: &mut PooledConnection, node: NodeId, from: u64) -> Result<Vec<u64>, SqliteError> {
    let sql = "SELECT id FROM nodes WHERE id = ?1 AND parent <> 0 AND id >= ?2 \
               UNION ALL SELECT id FROM nodes WHERE parent = ?1 AND id >= ?2 ORDER BY 1";
    read(pooled, sql, &[number(node.0), number(from)], |row| Ok(integer_at(row, 0) as u64))
}

fn in_groups(
    pooled: &mut PooledConnection,
    job: &JobRow,
    node: NodeId,
    after: &str,
    limit: usize,
) -> Result<Vec<Target>, SqliteError> {
    let (after_group, mut after_name) = after.split_once('/').unwrap_or(("0", ""));
    let after_group: u64 = after_group.parse().unwrap_or(0);
    let last_id = last_id(pooled, job)?;
    let sql = "SELECT id, name, state FROM databases \
               WHERE group_id = ?1 AND name > ?2 AND name >= ?3 AND name < ?3 || x'ff' AND id <= ?4 \
               ORDER BY name LIMIT ?5";
    let mut found: Vec<Target> = Vec::new();
    for group in groups(pooled, node, after_group)? {
        if found.len() == limit {
            break;
        }
        if group != after_group {
            after_name = "";
        }
        let arguments = [
            number(group),
            ValueRef::Text(after_name.as_bytes()),
            ValueRef::Text(job.prefix.as_deref().unwrap_or("").as_bytes()),
            number(last_id),
            number((limit - found.len()) as u64),
        ];
        found.extend(read(pooled, sql, &arguments, |row| {
            let name = text_at(row, 1).unwrap_or_default();
            Ok(Target {
                id: TenantId(integer_at(row, 0) as u64),
                state: state_of(integer_at(row, 2)),
                number: None,
                position: format!("{group}/{name}").into(),
                name: name.into(),
            })
        })?);
    }
    Ok(found)
}

/// Those of the list, looked up one by one.
fn named(
    pooled: &mut PooledConnection,
    job: &JobRow,
    after: &str,
    limit: usize,
) -> Result<Vec<Target>, SqliteError> {
    let taken: usize = after.parse().unwrap_or(0);
    let sql = "SELECT which FROM jobs WHERE id = ?1";
    let list = read(pooled, sql, &[number(job.id.0)], |row| Ok(text_at(row, 0)))?.pop().flatten();
    let list = list.unwrap_or_default();
    let last_id = last_id(pooled, job)?;
    let sql = "SELECT d.id, d.state FROM databases d LEFT JOIN nodes g ON g.id = d.group_id \
               WHERE d.name = ?1 AND d.id <= ?2 AND (?3 IS NULL OR g.id = ?3 OR g.parent = ?3)";
    let mut found = Vec::new();
    for (index, name) in list.split('\n').enumerate().skip(taken).take(limit) {
        let node = super::optional(job.node.map(|node| node.0));
        let arguments = [ValueRef::Text(name.as_bytes()), number(last_id), node];
        let row = read(pooled, sql, &arguments, |row| {
            Ok((TenantId(integer_at(row, 0) as u64), state_of(integer_at(row, 1))))
        })?;
        let (id, state) = row.first().copied().unwrap_or((TenantId(0), TargetState::Missing));
        found.push(Target {
            id,
            name: name.into(),
            state,
            number: None,
            position: (index + 1).to_string().into(),
        });
    }
    Ok(found)
}

/// Those that failed, in the order of their results.
fn failed(
    pooled: &mut PooledConnection,
    job: &JobRow,
    after: &str,
    limit: usize,
) -> Result<Vec<Target>, SqliteError> {
    let from: u64 = after.parse().map_or(0, |last: u64| last + 1);
    let sql = "SELECT r.id, r.database, coalesce(d.name, ''), coalesce(d.state, 1) \
               FROM job_results r INDEXED BY job_failures LEFT JOIN databases d \
               ON d.id = r.database \
               WHERE r.id >= ?1 AND r.id < ?2 AND r.status = 1 ORDER BY r.id LIMIT ?3";
    let arguments = [
        ValueRef::Integer(result_key(job.id, from)),
        ValueRef::Integer(result_key(job.id, job.tally.results)),
        number(limit as u64),
    ];
    read(pooled, sql, &arguments, |row| {
        let number = integer_at(row, 0) as u64 & u64::from(u32::MAX);
        Ok(Target {
            id: TenantId(integer_at(row, 1) as u64),
            name: text_at(row, 2).unwrap_or_default().into(),
            state: state_of(integer_at(row, 3)),
            number: Some(number),
            position: number.to_string().into(),
        })
    })
}

/// How many databases a job is for, if it names none.
pub(super) fn count(
    pooled: &mut PooledConnection,
    node: Option<NodeId>,
    prefix: &str,
) -> Result<u64, SqliteError> {
    let prefix = ValueRef::Text(prefix.as_bytes());
    let counted = |pooled: &mut PooledConnection, sql: &str, arguments: &[ValueRef<'_>]| {
        let rows = read(pooled, sql, arguments, |row| Ok(integer_at(row, 0) as u64));
        rows.map(|rows| rows.first().copied().unwrap_or(0))
    };
    let Some(node) = node else {
        let sql = "SELECT count(*) FROM databases WHERE name >= ?1 AND name < ?1 || x'ff' \
                   AND instr(name, ?2) = 0";
        let private = PRIVATE_NAME.to_string();
        return counted(pooled, sql, &[prefix, ValueRef::Text(private.as_bytes())]);
    };
    let sql = "SELECT count(*) FROM databases \
               WHERE group_id = ?1 AND name >= ?2 AND name < ?2 || x'ff'";
    let mut total = 0;
    for group in groups(pooled, node, 0)? {
        total += counted(pooled, sql, &[number(group), prefix])?;
    }
    Ok(total)
}
