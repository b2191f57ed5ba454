//! When databases end: each row's time to be looked at, and the end itself.
//!
//! `ends_s` is never later than what a row's times say by its `used_s`; it may be earlier, because a
//! use is not written to it. So whoever comes by it looks again, and moves it on.

use storage::TenantId;
use storage::sqlite::{SqliteError, ValueRef};

use super::nodes::{self, Change, Columns, NodePath};
use super::rows::{self, NodeId, Said, integer_at, read, run, select, text_at};
use super::{DatabaseRow, Outcome, bury, create, find, find_by_id, integer, now_s};
use crate::budget::Budget;
use crate::life::{Class, Ending, OnEnd};
use crate::session::PooledConnection;

/// Databases in one step of [`rearm`].
const REARM_ROWS: usize = 64;

/// Pages that such a step may change: a leaf of the table and two of the index for each row, and the
/// group's own.
pub(super) const REARM_PAGES: u32 = 3 * REARM_ROWS as u32 + 2;

/// The row of this name, with the time that its settings give it now.
pub(super) fn settled(pooled: &mut PooledConnection, name: &str) -> Result<Outcome, SqliteError> {
    let Some(mut row) = find(pooled, name)? else { return Ok(Outcome::NotFound) };
    set_end(pooled, &mut row)?;
    Ok(Outcome::Row(Box::new(row)))
}

/// Give a row the time that its settings say; one that is frozen has none.
fn set_end(pooled: &mut PooledConnection, row: &mut DatabaseRow) -> Result<(), SqliteError> {
    let ends = row.life().ends_s(row.created_s as u64, row.used_s).map(|(ends_s, _)| ends_s);
    let ends_s = ends.filter(|_| row.ended.is_none());
    if ends_s == row.ends_s {
        return Ok(());
    }
    row.ends_s = ends_s;
    let ends_s = ends_s.map_or(ValueRef::Null, |ends_s| ValueRef::Integer(ends_s as i64));
    run(pooled, "UPDATE databases SET ends_s = ?2 WHERE id = ?1", &[integer(row.id), ends_s])
}

/// End a database, if it is to end: by its limit, or because its time is over.
pub(super) fn end(
    pooled: &mut PooledConnection,
    id: TenantId,
    used_s: u64,
    ending: Option<Ending>,
) -> Result<Outcome, SqliteError> {
    let Some(mut row) = find_by_id(pooled, id)? else { return Ok(Outcome::NotFound) };
    if row.ended.is_some() {
        return Ok(Outcome::NotYet(Box::new(row)));
    }
    let life = row.life();
    let by_time = || {
        let (ends_s, ending) = life.ends_s(row.created_s as u64, row.used_s.max(used_s))?;
        (ends_s <= now_s() as u64).then_some(ending)
    };
    let Some(ending) = ending.or_else(by_time) else {
        if used_s > row.used_s {
            row.used_s = used_s;
            let used_s = ValueRef::Integer(used_s as i64);
            let sql = "UPDATE databases SET used_s = ?2 WHERE id = ?1";
            run(pooled, sql, &[integer(id), used_s])?;
        }
        set_end(pooled, &mut row)?;
        return Ok(Outcome::NotYet(Box::new(row)));
    };
    // What is protected against being dropped is not dropped by its age either.
    if life.on_end() == OnEnd::Drop && !row.settings().delete_protection {
        bury(pooled, id)?;
        return Ok(Outcome::Ended(Box::new(row), ending));
    }
    row.ended = Some(ending);
    row.ends_s = None;
    let sql = "UPDATE databases SET ended = ?2, ends_s = NULL WHERE id = ?1";
    run(pooled, sql, &[integer(id), ValueRef::Integer(ending.number().into())])?;
    Ok(Outcome::Ended(Box::new(row), ending))
}

/// A page of the index of times, up to `until_s`.
pub(super) fn endings(
    pooled: &mut PooledConnection,
    (after_s, after): (u64, TenantId),
    until_s: u64,
    limit: usize,
) -> Result<Outcome, SqliteError> {
    let sql = "SELECT ends_s, id FROM databases WHERE ends_s IS NOT NULL \
               AND (ends_s, id) > (?1, ?2) AND ends_s <= ?3 ORDER BY ends_s, id LIMIT ?4";
    let arguments = [
        ValueRef::Integer(after_s as i64),
        integer(after),
        ValueRef::Integer(until_s as i64),
        ValueRef::Integer(limit as i64),
    ];
    let found = read(pooled, sql, &arguments, |statement| {
        Ok((integer_at(statement, 0) as u64, TenantId(integer_at(statement, 1) as u64)))
    })?;
    let more = found.len() == limit;
    Ok(Outcome::Endings(found, more))
}

/// There are groups whose databases have times that do not follow from what is said now.
pub(super) fn is_rearming(pooled: &mut PooledConnection) -> Result<bool, SqliteError> {
    Ok(next_rearming(pooled)?.is_some())
}

/// The next such node, whether it is an organisation, and behind which name its databases stand.
fn next_rearming(
    pooled: &mut PooledConnection,
) -> Result<Option<(NodeId, bool, String)>, SqliteError> {
    let sql = "SELECT id, parent, rearm FROM nodes WHERE rearm IS NOT NULL ORDER BY id LIMIT 1";
    let found = read(pooled, sql, &[], |statement| {
        let id = NodeId(integer_at(statement, 0) as u64);
        Ok((id, integer_at(statement, 1) == 0, text_at(statement, 2).unwrap_or_default()))
    })?;
    Ok(found.into_iter().next())
}

/// One step of what follows when a group or organisation says other times.
pub(super) fn rearm(pooled: &mut PooledConnection) -> Result<Outcome, SqliteError> {
    let Some((node, is_organisation, after)) = next_rearming(pooled)? else {
        return Ok(Outcome::Endings(Vec::new(), false));
    };
    let id = ValueRef::Integer(node.0 as i64);
    if is_organisation {
        run(pooled, "UPDATE nodes SET rearm = '' WHERE parent = ?1", &[id])?;
        run(pooled, "UPDATE nodes SET rearm = NULL WHERE id = ?1", &[id])?;
        return Ok(Outcome::Endings(Vec::new(), true));
    }
    let sql = select!("WHERE d.group_id = ?1 AND d.name > ?2 ORDER BY d.name LIMIT ?3");
    let limit = ValueRef::Integer(REARM_ROWS as i64);
    let page = read(pooled, sql, &[id, ValueRef::Text(after.as_bytes()), limit], rows::database)?;
    let last = page.last().filter(|_| page.len() == REARM_ROWS).map(|row| row.name.clone());
    let mut ends = Vec::new();
    for mut row in page {
        set_end(pooled, &mut row)?;
        ends.extend(row.ends_s.map(|ends_s| (ends_s, row.id)));
    }
    let rearm = rows::text_or_null(last.as_deref());
    run(pooled, "UPDATE nodes SET rearm = ?2 WHERE id = ?1", &[id, rearm])?;
    Ok(Outcome::Endings(ends, true))
}

/// The row of a database that is to be in memory, by its own word or its group's: it gets none in the
/// catalogue.
pub(super) fn in_memory(
    pooled: &mut PooledConnection,
    name: &str,
    change: &Change,
    columns: &Columns,
    created_s: i64,
) -> Result<Option<DatabaseRow>, SqliteError> {
    if change.class == Some(Class::Durable) {
        return Ok(None);
    }
    let path = match columns.group_id {
        Some(id) => nodes::find_by_id(pooled, id)?,
        None => Vec::new(),
    };
    let mut row = DatabaseRow { path, ..DatabaseRow::new(TenantId(0), name, created_s) };
    if change.class.is_none() && row.life().class() == Class::Durable {
        return Ok(None);
    }
    let budget = change.budget.as_ref().map(|change| change.applied(&Budget::default()));
    row.said = Said::new(columns.plan.clone(), budget.unwrap_or_default());
    if let Some(settings) = &change.settings {
        row.set_settings(row.settings().changed(settings, created_s as u64));
    }
    Ok(Some(row))
}

/// The row of this name; where there is none, a new one in a group that says so.
pub(super) fn make(
    pooled: &mut PooledConnection,
    name: &str,
    group: NodeId,
) -> Result<Outcome, SqliteError> {
    if let Some(row) = find(pooled, name)? {
        return Ok(Outcome::Row(Box::new(row)));
    }
    let path = nodes::find_by_id(pooled, group)?;
    // A key of an organisation does not say in which of its groups.
    let [group, organisation] = &path[..] else { return Ok(Outcome::NotFound) };
    let life = group.settings().life.or(&organisation.settings().life);
    if life.makes_missing() != Some(true) {
        return Ok(Outcome::NotFound);
    }
    let place =
        NodePath { organisation: organisation.name.clone(), group: Some(group.name.clone()) };
    let change = Change { group: Some(Some(place)), ..Change::default() };
    create(pooled, name, true, &change)
}
