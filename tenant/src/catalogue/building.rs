//! Databases that are made of others' bytes (a fork, an upload, a dump): they have a row while they are
//! being filled, and are there only once that is done.
//!
//! Such a row has the state of a dropped one, and a name: so the name is taken, a start removes the row
//! and its file as it does those of dropped databases, and only [`finish`] makes it one that is there.
//! Whoever fills it gives it up as it gives up a dropped one: its file is removed, then its row.

use storage::TenantId;
use storage::sometimes;
use storage::sqlite::{SqliteError, ValueRef};

use super::nodes::{self, Change, Columns, TemplateOf};
use super::rows::{DatabaseRow, RowState, run};
use super::{Missing, Outcome, bury, create, find, insert, integer, now_s};
use crate::budget::Budget;
use crate::life::Class;
use crate::session::PooledConnection;

/// A database that is to be filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Its name.
    pub name: String,
    /// The database that it is to be a copy of, if it is.
    pub from: Option<String>,
    /// Its place in the tree, and its budget. A copy stands in its original's group unless this says
    /// another.
    pub change: Change,
}

/// A database that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Its id.
    pub id: TenantId,
    /// It has a file: everything up to `txid` is in it.
    pub file: bool,
    /// What is in page 1 of that.
    pub stamp: u64,
    /// Its last transaction.
    pub txid: u64,
    /// Its size.
    pub bytes: u64,
}

/// A row for a database that is to be filled.
pub(super) fn begin(pooled: &mut PooledConnection, build: &Build) -> Result<Outcome, SqliteError> {
    let from = match &build.from {
        None => None,
        Some(name) => match find(pooled, name)? {
            None => return Ok(Outcome::NotFound),
            Some(row) => Some(row),
        },
    };
    if find(pooled, &build.name)?.is_some() {
        return Ok(Outcome::Exists);
    }
    // Nobody can tell of one that is not whole, or not as it was.
    if let Some(row) = &from
        && row.state != RowState::Live
    {
        return Ok(Outcome::Row(Box::new(row.clone())));
    }
    let change = build.placed(from.as_ref());
    match nodes::look_up(pooled, &change, &Budget::default())? {
        Ok(said) => fill(pooled, &build.name, (&change, &said), from),
        Err(missing) => Ok(Outcome::Missing(missing)),
    }
}

/// A row for a database that is created where a template is what databases begin with.
pub(super) fn of_template(
    pooled: &mut PooledConnection,
    template: &TemplateOf,
    (name, change): (&str, &Change),
    said: &Columns,
) -> Result<Outcome, SqliteError> {
    let row = find(pooled, &template.name)?.filter(|row| {
        row.state == RowState::Live
            && Some(row.id) == template.id
            && row.path.last().is_some_and(|node| node.id == template.organisation)
    });
    // It was dropped, or has gone elsewhere, or is damaged; another one of its name is not meant.
    let Some(row) = row else {
        sometimes!("the template of a group is no longer there");
        return Ok(Outcome::Missing(Missing::Template));
    };
    sometimes!("a database is to be a copy of its group's template");
    fill(pooled, name, (change, said), Some(row))
}

fn fill(
    pooled: &mut PooledConnection,
    name: &str,
    (change, said): (&Change, &Columns),
    from: Option<DatabaseRow>,
) -> Result<Outcome, SqliteError> {
    match insert(pooled, (name, now_s()), change, said)? {
        Outcome::Row(row) => {
            run(pooled, "UPDATE databases SET state = 1 WHERE id = ?1", &[integer(row.id)])?;
            let row = DatabaseRow { state: RowState::Building, ..*row };
            Ok(Outcome::Build(Box::new((row, from))))
        }
        other => Ok(other),
    }
}

/// A copy that a crash may have taken: made again if it is not there. What is created without a template
/// was as lasting as the word of it.
pub(super) fn remake(
    pooled: &mut PooledConnection,
    name: &str,
    change: &Change,
) -> Result<Outcome, SqliteError> {
    match find(pooled, name)? {
        // Somebody else's: a start has given up what this call was building.
        Some(row) if row.state == RowState::Building => return Ok(Outcome::Exists),
        Some(_) => return Ok(Outcome::Done),
        None => {}
    }
    match nodes::look_up(pooled, change, &Budget::default())? {
        Ok(Columns { template: Some(_), .. }) => {
            sometimes!("a copy that a crash has taken is made again");
            create(pooled, name, false, change)
        }
        _ => Ok(Outcome::Done),
    }
}

impl Build {
    /// What the new database is given: its original's group, where nothing is said of a group.
    pub(super) fn placed(&self, from: Option<&DatabaseRow>) -> Change {
        // What is built is built in a file, whatever its group says of what is created empty.
        let class = Some(Class::Durable);
        let mut change = Change { class, ..self.change.clone() };
        if change.group.is_none()
            && let Some(row) = from
        {
            change.group = row.group().map(Some);
        }
        change
    }
}

/// It will not be whole: its name is free again. What is left of it goes as what is left of dropped ones.
pub(super) fn give_up(pooled: &mut PooledConnection, id: TenantId) -> Result<Outcome, SqliteError> {
    let mut building = false;
    let sql = "SELECT 1 FROM databases WHERE id = ?1 AND state = 1 AND name IS NOT NULL";
    pooled.for_each_row(sql, &[integer(id)], |_| building = true)?;
    if building {
        bury(pooled, id)?;
    }
    Ok(Outcome::Done)
}

/// The database is there from now on.
pub(super) fn finish(pooled: &mut PooledConnection, built: &Built) -> Result<Outcome, SqliteError> {
    let sql = "UPDATE databases SET state = 0, file = ?2, stamp = ?3, txid = ?4, bytes = ?5 \
               WHERE id = ?1 AND state = 1 AND name IS NOT NULL";
    let arguments = [
        integer(built.id),
        ValueRef::Integer(i64::from(built.file)),
        ValueRef::Integer(built.stamp as i64),
        ValueRef::Integer(built.txid as i64),
        ValueRef::Integer(built.bytes as i64),
    ];
    run(pooled, sql, &arguments)?;
    // Somebody may have dropped it meanwhile: then it is not found.
    Ok(super::found(super::find_by_id(pooled, built.id)?))
}
