//! The databases of an organisation or group: listed page by page, and what they have used together.

use storage::sqlite::{SqliteError, ValueRef};

use super::nodes::{self, NodePath};
use super::rows::{self, NodeRow, integer_at, read, select, text_at};
use super::{Outcome, Sum};
use crate::budget::Usage;
use crate::session::PooledConnection;

/// Up to `limit` databases behind a group and a name, in the order of groups and names. It reads the
/// index `grouped` from there on: a page costs its rows, however many stand before it.
pub(super) fn list(
    pooled: &mut PooledConnection,
    path: &NodePath,
    (after_group, after_name): &(Box<str>, Box<str>),
    limit: usize,
) -> Result<Outcome, SqliteError> {
    let found = match nodes::find_path(pooled, path)? {
        Ok(found) => found,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let organisation = found.last().expect("a path has a node");
    let in_group = select!("WHERE d.group_id = ?1 AND d.name > ?2 ORDER BY d.name LIMIT ?3");
    let mut page = Vec::new();
    let mut after_name: &str = after_name;
    for group in groups_from(pooled, path, organisation, &found, after_group)? {
        // What it stands behind counts in the group that it names only.
        let after = if group.name == *after_group { after_name } else { "" };
        let left = limit - page.len();
        if left == 0 {
            break;
        }
        let arguments = [
            ValueRef::Integer(group.id.0 as i64),
            ValueRef::Text(after.as_bytes()),
            ValueRef::Integer(left as i64),
        ];
        page.extend(read(pooled, in_group, &arguments, rows::database)?);
        after_name = "";
    }
    Ok(Outcome::Rows(page))
}

/// The groups that are meant, from the one of this name on, in order.
fn groups_from(
    pooled: &mut PooledConnection,
    path: &NodePath,
    organisation: &NodeRow,
    found: &[NodeRow],
    after_group: &str,
) -> Result<Vec<NodeRow>, SqliteError> {
    if path.group.is_some() {
        let group = found.first().filter(|group| &*group.name >= after_group);
        return Ok(group.cloned().into_iter().collect());
    }
    let sql = "SELECT id, name, plan, budget, settings, created_s FROM nodes \
               WHERE parent = ?1 AND name >= ?2 ORDER BY name";
    let arguments =
        [ValueRef::Integer(organisation.id.0 as i64), ValueRef::Text(after_group.as_bytes())];
    let groups = read(pooled, sql, &arguments, |statement| rows::node_at(statement, 0))?;
    Ok(groups.into_iter().flatten().collect())
}

/// What all have used, by their rows: one look at each.
pub(super) fn sum(pooled: &mut PooledConnection, path: &NodePath) -> Result<Outcome, SqliteError> {
    let found = match nodes::find_path(pooled, path)? {
        Ok(found) => found,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let id = ValueRef::Integer(found.first().expect("a path has a node").id.0 as i64);
    let (of_groups, groups) = match path.group {
        Some(_) => ("SELECT usage, bytes FROM databases WHERE group_id = ?1", 1),
        None => {
            let sql = "SELECT count(*) FROM nodes WHERE parent = ?1";
            let count = read(pooled, sql, &[id], |statement| Ok(integer_at(statement, 0)))?;
            let sql = "SELECT d.usage, d.bytes FROM nodes g CROSS JOIN databases d \
                       ON d.group_id = g.id WHERE g.parent = ?1";
            (sql, count.first().copied().unwrap_or(0) as u64)
        }
    };
    let mut sum =
        Sum { path: found, usage: Usage::default(), bytes: 0, databases: 0, groups, period: None };
    // Added up as they are read, not kept: there may be a million.
    read(pooled, of_groups, &[id], |statement| {
        let usage = text_at(statement, 0).map(|text| Usage::from_text(&text)).transpose()?;
        sum.usage.add(&usage.unwrap_or_default());
        sum.bytes += integer_at(statement, 1) as u64;
        sum.databases += 1;
        Ok(())
    })?;
    Ok(Outcome::Sum(Box::new(sum)))
}
