//! Rows of the catalogue as values, and reading them.

use storage::TenantId;
use storage::sqlite::{SqliteError, Statement, ValueRef, codes};

use super::nodes::NodePath;
use crate::budget::{Budget, Level, Unreadable, Usage};
use crate::life::{Ending, Life};
use crate::session::PooledConnection;
use crate::settings::Settings;

/// In the name of a database that is nobody's to name: what is kept for one that is still to be made. No
/// job is for it.
pub const PRIVATE_NAME: char = ':';

/// Stamps, transaction numbers, bytes and seconds are less: at a million a second it takes 146,000
/// years to come there, and whatever is added to one does not overflow. Another number is damage.
const NUMBER_MAX: i64 = 1 << 62;

/// Ids of databases in the catalogue, of organisations and of groups are less. From here up to twice as much
/// are those of databases in memory, which have no row (`engine/ephemeral.rs`); JSON's readers agree on numbers
/// up to 2^53. A row with another id is damage: to take it for one in memory would lose what is written to it.
pub const ID_END: u64 = 1 << 52;

/// State of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// In use.
    Live,
    /// Dropped; the row stays until its file is gone.
    Dropped,
    /// Damaged: answers nothing but why.
    Fenced,
    /// Not there yet: it is being filled. See `building.rs`.
    Building,
}

/// What somebody wrote down for a database or a node. Most databases have nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The name of its plan.
    pub plan: Option<Box<str>>,
    budget: Option<Box<Budget>>,
}

impl Said {
    /// A plan and a budget.
    #[must_use]
    pub fn new(plan: Option<Box<str>>, budget: Budget) -> Said {
        Said { plan, budget: (!budget.is_empty()).then(|| Box::new(budget)) }
    }

    /// Its own budget.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        static NOTHING: Budget = Budget::NOTHING;
        self.budget.as_deref().unwrap_or(&NOTHING)
    }

    /// What is to be resolved, with the plan's budget as `plan` finds it by name.
    pub fn level<'a>(&'a self, plan: impl Fn(&str) -> Option<&'a Budget>) -> Level<'a> {
        Level { own: self.budget(), plan: self.plan.as_deref().and_then(plan) }
    }

    pub(super) fn budget_text(&self) -> Option<String> {
        self.budget.as_ref().map(|budget| budget.to_text())
    }
}

/// Id of an organisation or group; never given again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// An organisation or group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Its id.
    pub id: NodeId,
    /// Its name, among its siblings'.
    pub name: Box<str>,
    /// What it says.
    pub said: Said,
    pub(crate) settings: Option<Box<Settings>>,
    /// When it was created, in wall-clock seconds since 1970; 0 where nobody has noted it.
    pub created_s: i64,
}

impl NodeRow {
    /// The row of a node that says nothing.
    #[must_use]
    pub fn new(id: NodeId, name: &str) -> NodeRow {
        NodeRow { id, name: name.into(), said: Said::default(), settings: None, created_s: 0 }
    }

    /// Its own settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        settings_or_none(&self.settings)
    }

    /// Give it other settings.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = boxed(settings);
    }
}

fn settings_or_none(settings: &Option<Box<Settings>>) -> &Settings {
    static NOTHING: Settings = Settings::NOTHING;
    settings.as_deref().unwrap_or(&NOTHING)
}

fn boxed(settings: Settings) -> Option<Box<Settings>> {
    (!settings.is_empty()).then(|| Box::new(settings))
}

/// A named budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: Box<str>,
    /// What who has it says by it.
    pub budget: Budget,
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
    /// What it says itself.
    pub said: Said,
    /// Its group and that one's organisation, or nothing: it is directly under the machine.
    pub path: Vec<NodeRow>,
    /// What it has used, as of its last checkpoint or close.
    pub usage: Usage,
    /// Its size as of its last checkpoint.
    pub bytes: u64,
    /// When to look whether its time is over, in wall-clock seconds since 1970.
    pub ends_s: Option<u64>,
    /// Its last use, as of its last checkpoint or close.
    pub used_s: u64,
    /// Why it is frozen, if it is.
    pub ended: Option<Ending>,
    pub(crate) settings: Option<Box<Settings>>,
}

impl DatabaseRow {
    /// Its own settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        settings_or_none(&self.settings)
    }

    /// How long it lives after all: what it says, its group, and its organisation.
    #[must_use]
    pub fn life(&self) -> Life {
        let above = self.path.iter().map(|node| &node.settings().life);
        above.fold(self.settings().life, |life, above| life.or(above))
    }

    /// Give it other settings.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = boxed(settings);
    }

    /// The name of its group and that one's organisation, if it is in one.
    #[must_use]
    pub fn group(&self) -> Option<NodePath> {
        let [group, organisation] = &self.path[..] else { return None };
        let (organisation, group) = (organisation.name.clone(), Some(group.name.clone()));
        Some(NodePath { organisation, group })
    }

    /// The row of a database that was created just now.
    #[must_use]
    pub fn new(id: TenantId, name: &str, created_s: i64) -> DatabaseRow {
        DatabaseRow {
            id,
            name: name.to_owned(),
            state: RowState::Live,
            reason: None,
            created_s,
            file: false,
            stamp: 0,
            txid: 0,
            said: Said::default(),
            path: Vec::new(),
            usage: Usage::default(),
            bytes: 0,
            ends_s: None,
            used_s: 0,
            ended: None,
            settings: None,
        }
    }
}

/// The columns of [`database`], and which rows of them.
macro_rules! select {
    ($rows:literal) => {
        concat!(
            "SELECT d.id, coalesce(d.name, ''), d.state, d.reason, d.created_s, d.file, d.stamp, ",
            "d.txid, d.plan, d.budget, d.usage, d.settings, d.bytes, ",
            "d.ends_s, d.used_s, d.ended, ",
            "g.id, g.name, g.plan, g.budget, g.settings, g.created_s, ",
            "o.id, o.name, o.plan, o.budget, o.settings, o.created_s ",
            "FROM databases d LEFT JOIN nodes g ON g.id = d.group_id ",
            "LEFT JOIN nodes o ON o.id = g.parent ",
            $rows
        )
    };
}
pub(super) use select;

/// A row that cannot be read: damage of the catalogue, or another program's doing.
fn unreadable(error: &Unreadable) -> SqliteError {
    let message = format!("the catalogue holds what cannot be read: {error}");
    SqliteError { code: codes::SQLITE_ERROR, message, offset: None }
}

/// Run one statement and read its rows.
pub(super) fn read<T>(
    pooled: &mut PooledConnection,
    sql: &str,
    arguments: &[ValueRef<'_>],
    mut row: impl FnMut(&Statement) -> Result<T, Unreadable>,
) -> Result<Vec<T>, SqliteError> {
    let mut rows = Vec::new();
    let mut failed = None;
    pooled.for_each_row(sql, arguments, |statement| match row(statement) {
        Ok(row) => rows.push(row),
        Err(error) => failed = Some(unreadable(&error)),
    })?;
    failed.map_or(Ok(rows), Err)
}

/// Run one statement that has no rows.
pub(super) fn run(
    pooled: &mut PooledConnection,
    sql: &str,
    arguments: &[ValueRef<'_>],
) -> Result<(), SqliteError> {
    pooled.for_each_row(sql, arguments, |_| ())
}

pub(super) fn integer_at(statement: &Statement, index: usize) -> i64 {
    match statement.column(index) {
        Ok(ValueRef::Integer(value)) => value,
        _ => 0,
    }
}

pub(super) fn text_at(statement: &Statement, index: usize) -> Option<String> {
    match statement.column(index) {
        Ok(ValueRef::Text(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

pub(super) fn blob_at<const BYTES: usize>(
    statement: &Statement,
    index: usize,
) -> Option<[u8; BYTES]> {
    match statement.column(index) {
        Ok(ValueRef::Blob(bytes)) => bytes.try_into().ok(),
        _ => None,
    }
}

pub(super) fn text_or_null(text: Option<&str>) -> ValueRef<'_> {
    text.map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes()))
}

/// A plan's name and a budget, in two columns.
fn said_at(statement: &Statement, index: usize) -> Result<Said, Unreadable> {
    let budget = text_at(statement, index + 1).map(|text| Budget::from_text(&text)).transpose()?;
    let plan = text_at(statement, index).map(String::into_boxed_str);
    Ok(Said::new(plan, budget.unwrap_or_default()))
}

fn settings_at(statement: &Statement, index: usize) -> Result<Option<Box<Settings>>, Unreadable> {
    let settings = text_at(statement, index).map(|text| Settings::from_text(&text)).transpose()?;
    Ok(settings.and_then(boxed))
}

/// A node, in six columns; `None` if the first is NULL.
pub(super) fn node_at(statement: &Statement, index: usize) -> Result<Option<NodeRow>, Unreadable> {
    let Ok(ValueRef::Integer(id)) = statement.column(index) else { return Ok(None) };
    let name = text_at(statement, index + 1).unwrap_or_default().into();
    if !is_id(id as u64) {
        return Err(Unreadable::from("an organisation's or group's id"));
    }
    Ok(Some(NodeRow {
        id: NodeId(id as u64),
        name,
        said: said_at(statement, index + 2)?,
        settings: settings_at(statement, index + 4)?,
        created_s: integer_at(statement, index + 5),
    }))
}

pub(super) fn plan(statement: &Statement) -> Result<Plan, Unreadable> {
    let budget = text_at(statement, 1).map(|text| Budget::from_text(&text)).transpose()?;
    let name = text_at(statement, 0).unwrap_or_default().into();
    Ok(Plan { name, budget: budget.unwrap_or_default() })
}

/// Whether a row can have it; 0 is the catalogue itself, and the machine.
fn is_id(id: u64) -> bool {
    (1..ID_END).contains(&id)
}

/// A row of [`select`]. One with a number that cannot be is a damaged database's.
pub(super) fn database(statement: &Statement) -> Result<DatabaseRow, Unreadable> {
    let mut row = database_at(statement)?;
    let numbers = [row.stamp, row.txid, row.bytes, row.used_s, row.ends_s.unwrap_or(0)];
    let is_possible = |number: &u64| (0..NUMBER_MAX).contains(&(*number as i64));
    if !is_id(row.id.0) {
        return Err(Unreadable::from("a database's id"));
    }
    if !numbers.iter().all(is_possible) {
        if row.state == RowState::Live {
            row.state = RowState::Fenced;
            row.reason = Some("its row in the catalogue is damaged".to_owned());
        }
        (row.stamp, row.txid, row.bytes, row.used_s, row.ends_s) = (0, 0, 0, 0, None);
    }
    Ok(row)
}

fn database_at(statement: &Statement) -> Result<DatabaseRow, Unreadable> {
    let usage = text_at(statement, 10).map(|text| Usage::from_text(&text)).transpose()?;
    let group = node_at(statement, 16)?;
    let organisation = node_at(statement, 22)?;
    Ok(DatabaseRow {
        id: TenantId(integer_at(statement, 0) as u64),
        name: text_at(statement, 1).unwrap_or_default(),
        state: match integer_at(statement, 2) {
            0 => RowState::Live,
            1 if text_at(statement, 1).is_some_and(|name| !name.is_empty()) => RowState::Building,
            1 => RowState::Dropped,
            _ => RowState::Fenced,
        },
        reason: text_at(statement, 3),
        created_s: integer_at(statement, 4),
        file: integer_at(statement, 5) != 0,
        stamp: integer_at(statement, 6) as u64,
        txid: integer_at(statement, 7) as u64,
        said: said_at(statement, 8)?,
        path: group.into_iter().chain(organisation).collect(),
        usage: usage.unwrap_or_default(),
        settings: settings_at(statement, 11)?,
        bytes: integer_at(statement, 12) as u64,
        ends_s: match statement.column(13) {
            Ok(ValueRef::Integer(ends_s)) => Some(ends_s as u64),
            _ => None,
        },
        used_s: integer_at(statement, 14) as u64,
        ended: Ending::of_number(integer_at(statement, 15)),
    })
}
