//! Use by period in the catalogue: of each database that was used, and of each organisation and group.
//!
//! A row has a database's id, or an organisation's or group's below zero. A database's use is counted for
//! where it stands when it is noted: at its close, when an hour is over, before it moves, and when it is
//! dropped. So what a group has used stays with the group when its databases have gone.

use storage::TenantId;
use storage::sqlite::{SqliteError, Statement, ValueRef};

use super::rows::{NodeId, read, run};
use super::{NodePath, Outcome, find, integer, members, now_s, rows};
use crate::budget::periods::{PeriodUse, Periods, Range, hour_of};
use crate::budget::{Unreadable, Usage};
use crate::session::PooledConnection;

fn periods_at(row: &Statement) -> Result<Periods, Unreadable> {
    match row.column(0) {
        Ok(ValueRef::Blob(bytes)) => Periods::from_bytes(bytes),
        _ => Ok(Periods::default()),
    }
}

fn load(pooled: &mut PooledConnection, key: i64) -> Result<Periods, SqliteError> {
    let sql = "SELECT buckets FROM periods WHERE id = ?1";
    let found = read(pooled, sql, &[ValueRef::Integer(key)], periods_at)?;
    Ok(found.into_iter().next().unwrap_or_default())
}

fn store(pooled: &mut PooledConnection, key: i64, periods: &Periods) -> Result<(), SqliteError> {
    let bytes = periods.to_bytes();
    let sql = "INSERT OR REPLACE INTO periods(id, buckets) VALUES(?1, ?2)";
    run(pooled, sql, &[ValueRef::Integer(key), ValueRef::Blob(&bytes)])
}

fn key_of(node: NodeId) -> i64 {
    -(node.0 as i64)
}

/// A database has used so much in all: what was not counted was used at this second.
pub(super) fn note(
    pooled: &mut PooledConnection,
    id: TenantId,
    total: &Usage,
    at_s: u64,
) -> Result<(), SqliteError> {
    let mut periods = load(pooled, id.0 as i64)?;
    let since = periods.uncounted(total);
    if since == Usage::default() {
        return Ok(());
    }
    periods.note(total, hour_of(at_s));
    store(pooled, id.0 as i64, &periods)?;
    let sql =
        "SELECT g.id, g.parent FROM databases d JOIN nodes g ON g.id = d.group_id WHERE d.id = ?1";
    let nodes = read(pooled, sql, &[integer(id)], |row| {
        Ok([0, 1].map(|index| NodeId(rows::integer_at(row, index) as u64)))
    })?;
    for node in nodes.into_iter().flatten().filter(|node| node.0 > 0) {
        spent(pooled, node, &since, at_s)?;
    }
    Ok(())
}

/// Databases of an organisation or group have used so much at this second.
pub(super) fn spent(
    pooled: &mut PooledConnection,
    node: NodeId,
    usage: &Usage,
    at_s: u64,
) -> Result<(), SqliteError> {
    let mut periods = load(pooled, key_of(node))?;
    periods.add(usage, hour_of(at_s));
    store(pooled, key_of(node), &periods)
}

/// A database is about to be dropped: what it has used stays with its group.
pub(super) fn bury(pooled: &mut PooledConnection, id: TenantId) -> Result<(), SqliteError> {
    let sql = "SELECT usage, used_s FROM databases WHERE id = ?1 AND usage IS NOT NULL";
    let used = read(pooled, sql, &[integer(id)], |row| {
        let usage = rows::text_at(row, 0).map(|text| Usage::from_text(&text)).transpose()?;
        Ok((usage.unwrap_or_default(), rows::integer_at(row, 1)))
    })?;
    if let Some((usage, used_s)) = used.first() {
        let at_s = if *used_s > 0 { *used_s } else { now_s() };
        note(pooled, id, usage, at_s as u64)?;
        run(pooled, "DELETE FROM periods WHERE id = ?1", &[integer(id)])?;
    }
    Ok(())
}

/// An organisation or group goes.
pub(super) fn forget(pooled: &mut PooledConnection, node: NodeId) -> Result<(), SqliteError> {
    let key = ValueRef::Integer(key_of(node));
    run(pooled, "DELETE FROM periods WHERE id = ?1", &[key])
}

/// A database, and what it has used in a time. What its row has and no hour counts yet, because of a
/// crash, was used when it was last in use.
pub(super) fn of_database(
    pooled: &mut PooledConnection,
    name: &str,
    range: Range,
) -> Result<Outcome, SqliteError> {
    let Some(row) = find(pooled, name)? else { return Ok(Outcome::NotFound) };
    let periods = load(pooled, row.id.0 as i64)?;
    let mut found: PeriodUse = periods.within(range);
    let uncounted = periods.uncounted(&row.usage);
    let sql = "SELECT used_s FROM databases WHERE id = ?1";
    let used = read(pooled, sql, &[integer(row.id)], |row| Ok(rows::integer_at(row, 0)))?;
    let used_s = used.first().copied().filter(|&used_s| used_s > 0).unwrap_or_else(now_s);
    found.add_if_within(&uncounted, hour_of(used_s as u64));
    Ok(Outcome::RowIn(Box::new((row, found))))
}

/// An organisation or group, and what its databases have used in a time.
pub(super) fn of_node(
    pooled: &mut PooledConnection,
    path: &NodePath,
    range: Range,
) -> Result<Outcome, SqliteError> {
    let outcome = members::sum(pooled, path)?;
    let Outcome::Sum(mut sum) = outcome else { return Ok(outcome) };
    let node = sum.path.first().expect("a path has a node").id;
    sum.period = Some(load(pooled, key_of(node))?.within(range));
    Ok(Outcome::Sum(sum))
}
