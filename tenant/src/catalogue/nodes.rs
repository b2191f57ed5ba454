//! Plans, organisations and groups, databases' places among them, and settings.

use storage::TenantId;
use storage::sqlite::{SqliteError, ValueRef};

use super::rows::{
    self, NodeId, NodeRow, Plan, Said, integer_at, node_at, read, run, text_or_null,
};
use super::{Missing, Outcome};
use crate::access::Scope;
use crate::budget::{Budget, Part};
use crate::life::Class;
use crate::limits;
use crate::session::PooledConnection;
use crate::settings::SettingsChange;

/// The name of an organisation, or of a group in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePath {
    /// The organisation.
    pub organisation: Box<str>,
    /// The group in it, if one is meant.
    pub group: Option<Box<str>>,
}

/// What a database is given; what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Its group; inside, `None` for directly under the machine.
    pub group: Option<Option<NodePath>>,
    /// Its plan; inside, `None` for none.
    pub plan: Option<Option<Box<str>>>,
    /// Its own budget.
    pub budget: Option<BudgetChange>,
    /// Its settings.
    pub settings: Option<Box<SettingsChange>>,
    /// Its class, where it is created; else its group's word for it holds.
    pub class: Option<Class>,
}

/// The group of an organisation that is made when a database is first put into it.
pub const DEFAULT_GROUP: &str = "default";

/// What a database's own budget becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetChange {
    /// Another budget.
    Replace(Box<Budget>),
    /// The same but for one part.
    Set(Part, Option<u64>),
}

impl Change {
    /// It creates a database in memory, and nothing else: the catalogue need not be written to.
    pub(super) fn is_in_memory(&self) -> bool {
        let makes_group = matches!(
            &self.group,
            Some(Some(path)) if path.group.as_deref() == Some(DEFAULT_GROUP)
        );
        self.class == Some(Class::Memory) && !makes_group
    }

    /// Its row has nothing of it: at most a class is said.
    pub(super) fn says_nothing(&self) -> bool {
        let Change { group, plan, budget, settings, class: _ } = self;
        group.is_none() && plan.is_none() && budget.is_none() && settings.is_none()
    }

    /// Nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

/// A change as columns of a row, with every name looked up.
#[derive(Default)]
pub(super) struct Columns {
    pub group_id: Option<NodeId>,
    /// What databases begin with that are created there, and its organisation.
    pub template: Option<TemplateOf>,
    pub plan: Option<Box<str>>,
    pub budget: Option<String>,
}

/// The template of a group.
pub(super) struct TemplateOf {
    pub name: Box<str>,
    pub id: Option<TenantId>,
    pub organisation: NodeId,
}

/// What holds of a group's and its organisation's words, the nearest first.
fn template_of(path: &[NodeRow]) -> Option<TemplateOf> {
    let organisation = path.last()?.id;
    let said = path.iter().find_map(|node| node.settings().template.as_ref())?;
    Some(TemplateOf { name: said.name.clone(), id: said.id, organisation })
}

/// Look up what `change` names; what it leaves out is `None`. `before` is the budget until now.
pub(super) fn look_up(
    pooled: &mut PooledConnection,
    change: &Change,
    before: &Budget,
) -> Result<Result<Columns, Missing>, SqliteError> {
    let mut columns = Columns::default();
    if let Some(Some(path)) = &change.group {
        match find_path(pooled, path)? {
            Ok(nodes) => {
                columns.group_id = nodes.first().map(|node| node.id);
                columns.template = template_of(&nodes);
            }
            Err(Missing::Group) if path.group.as_deref() == Some(DEFAULT_GROUP) => {}
            Err(missing) => return Ok(Err(missing)),
        }
    }
    if let Some(Some(name)) = &change.plan {
        if !has_plan(pooled, name)? {
            return Ok(Err(Missing::Plan));
        }
        columns.plan = Some(name.clone());
    }
    // Last: what fails must leave no trace in a transaction that goes on.
    if let Some(Some(path)) = &change.group
        && columns.group_id.is_none()
        && let Outcome::Node(nodes) = put(pooled, path, &Said::default())?
    {
        columns.group_id = nodes.first().map(|node| node.id);
    }
    let budget = change.budget.as_ref().map(|change| change.applied(before));
    columns.budget = budget.filter(|budget| !budget.is_empty()).map(|budget| budget.to_text());
    Ok(Ok(columns))
}

/// Change a database's place or budget.
pub(super) fn place(
    pooled: &mut PooledConnection,
    name: &str,
    change: &Change,
) -> Result<Outcome, SqliteError> {
    let Some(row) = super::find(pooled, name)? else { return Ok(Outcome::NotFound) };
    let columns = match look_up(pooled, change, row.said.budget())? {
        Ok(columns) => columns,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let id = super::integer(row.id);
    if change.group.is_some() {
        let group = columns.group_id.map_or(ValueRef::Null, |id| ValueRef::Integer(id.0 as i64));
        run(pooled, "UPDATE databases SET group_id = ?2 WHERE id = ?1", &[id, group])?;
    }
    if change.plan.is_some() {
        let plan = text_or_null(columns.plan.as_deref());
        run(pooled, "UPDATE databases SET plan = ?2 WHERE id = ?1", &[id, plan])?;
    }
    if change.budget.is_some() {
        let budget = text_or_null(columns.budget.as_deref());
        run(pooled, "UPDATE databases SET budget = ?2 WHERE id = ?1", &[id, budget])?;
    }
    if let Some(settings) = &change.settings {
        set(pooled, name, settings)?;
    }
    super::life::settled(pooled, name)
}

/// Change a database's settings.
pub(super) fn set(
    pooled: &mut PooledConnection,
    name: &str,
    change: &SettingsChange,
) -> Result<Outcome, SqliteError> {
    let Some(mut row) = super::find(pooled, name)? else { return Ok(Outcome::NotFound) };
    let settings = row.settings().changed(change, super::now_s() as u64);
    let written = (!settings.is_empty()).then(|| settings.to_text());
    let sql = "UPDATE databases SET settings = ?2 WHERE id = ?1";
    run(pooled, sql, &[super::integer(row.id), text_or_null(written.as_deref())])?;
    row.set_settings(settings);
    if change.life.is_empty() {
        return Ok(super::found(Some(row)));
    }
    // Whatever ended it may not hold any more.
    run(pooled, "UPDATE databases SET ended = NULL WHERE id = ?1", &[super::integer(row.id)])?;
    super::life::settled(pooled, name)
}

/// Change the settings of an organisation or group.
pub(super) fn set_node(
    pooled: &mut PooledConnection,
    path: &NodePath,
    change: &SettingsChange,
) -> Result<Outcome, SqliteError> {
    let mut nodes = match find_path(pooled, path)? {
        Ok(nodes) => nodes,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let organisation = nodes.last().expect("a path has a node").id;
    let mut change = change.clone();
    if let Some(Some(template)) = &mut change.template {
        // Another organisation's is nobody's to give away.
        let row = super::find(pooled, &template.name)?;
        let row = row.filter(|row| row.path.last().is_some_and(|node| node.id == organisation));
        let Some(row) = row else { return Ok(Outcome::Missing(Missing::Template)) };
        template.id = Some(row.id);
    }
    let node = nodes.first_mut().expect("a path has a node");
    let settings = node.settings().changed(&change, super::now_s() as u64);
    let written = (!settings.is_empty()).then(|| settings.to_text());
    let id = ValueRef::Integer(node.id.0 as i64);
    let sql = "UPDATE nodes SET settings = ?2 WHERE id = ?1";
    run(pooled, sql, &[id, text_or_null(written.as_deref())])?;
    node.set_settings(settings);
    if change.life.changes_times() {
        let id = ValueRef::Integer(node.id.0 as i64);
        run(pooled, "UPDATE nodes SET rearm = '' WHERE id = ?1", &[id])?;
    }
    Ok(Outcome::Node(nodes))
}

// ---- plans ----

pub(super) fn plans(pooled: &mut PooledConnection) -> Result<Vec<Plan>, SqliteError> {
    read(pooled, "SELECT name, budget FROM plans ORDER BY name", &[], rows::plan)
}

pub(super) fn find_plan(pooled: &mut PooledConnection, name: &str) -> Result<Outcome, SqliteError> {
    let sql = "SELECT name, budget FROM plans WHERE name = ?1";
    let found = read(pooled, sql, &[text(name)], rows::plan)?;
    Ok(if found.is_empty() { Outcome::Missing(Missing::Plan) } else { Outcome::Plans(found) })
}

fn has_plan(pooled: &mut PooledConnection, name: &str) -> Result<bool, SqliteError> {
    Ok(count(pooled, "SELECT count(*) FROM plans WHERE name = ?1", text(name))? > 0)
}

pub(super) fn put_plan(pooled: &mut PooledConnection, plan: &Plan) -> Result<Outcome, SqliteError> {
    let others = "SELECT count(*) FROM plans WHERE name <> ?1";
    if count(pooled, others, text(&plan.name))? >= limits::PLANS_MAX as u64 {
        return Ok(Outcome::TooManyPlans);
    }
    let sql = "INSERT INTO plans(name, budget) VALUES(?1, ?2) \
               ON CONFLICT(name) DO UPDATE SET budget = excluded.budget";
    run(pooled, sql, &[text(&plan.name), text(&plan.budget.to_text())])?;
    Ok(Outcome::Plans(vec![plan.clone()]))
}

pub(super) fn drop_plan(pooled: &mut PooledConnection, name: &str) -> Result<Outcome, SqliteError> {
    if !has_plan(pooled, name)? {
        return Ok(Outcome::Missing(Missing::Plan));
    }
    let databases = "SELECT count(*) FROM databases WHERE plan = ?1";
    let nodes = "SELECT count(*) FROM nodes WHERE plan = ?1";
    let users = count(pooled, databases, text(name))? + count(pooled, nodes, text(name))?;
    if users > 0 {
        return Ok(Outcome::InUse(users));
    }
    run(pooled, "DELETE FROM plans WHERE name = ?1", &[text(name)])?;
    Ok(Outcome::Done)
}

// ---- organisations and groups ----

/// The parent of organisations.
const MACHINE: NodeId = NodeId(0);

fn find_one(
    pooled: &mut PooledConnection,
    parent: NodeId,
    name: &str,
) -> Result<Option<NodeRow>, SqliteError> {
    let sql = "SELECT id, name, plan, budget, settings, created_s FROM nodes \
               WHERE parent = ?1 AND name = ?2";
    let arguments = [ValueRef::Integer(parent.0 as i64), text(name)];
    let found = read(pooled, sql, &arguments, |statement| node_at(statement, 0))?;
    Ok(found.into_iter().flatten().next())
}

/// The nodes on a path, the named one first.
pub(super) fn find_path(
    pooled: &mut PooledConnection,
    path: &NodePath,
) -> Result<Result<Vec<NodeRow>, Missing>, SqliteError> {
    let Some(organisation) = find_one(pooled, MACHINE, &path.organisation)? else {
        return Ok(Err(Missing::Organisation));
    };
    let Some(name) = &path.group else { return Ok(Ok(vec![organisation])) };
    let group = find_one(pooled, organisation.id, name)?;
    Ok(group.map(|group| vec![group, organisation]).ok_or(Missing::Group))
}

/// The node of this id, and its organisation behind it if it is a group; empty if there is none.
pub(super) fn find_by_id(
    pooled: &mut PooledConnection,
    id: NodeId,
) -> Result<Vec<NodeRow>, SqliteError> {
    let sql = "SELECT id, name, plan, budget, settings, created_s FROM nodes WHERE id = ?1 \
               UNION ALL SELECT o.id, o.name, o.plan, o.budget, o.settings, o.created_s \
               FROM nodes g JOIN nodes o ON o.id = g.parent WHERE g.id = ?1";
    let id = ValueRef::Integer(id.0 as i64);
    let found = read(pooled, sql, &[id], |statement| node_at(statement, 0))?;
    Ok(found.into_iter().flatten().collect())
}

pub(super) fn find(pooled: &mut PooledConnection, path: &NodePath) -> Result<Outcome, SqliteError> {
    Ok(find_path(pooled, path)?.map_or_else(Outcome::Missing, Outcome::Node))
}

pub(super) fn put(
    pooled: &mut PooledConnection,
    path: &NodePath,
    said: &Said,
) -> Result<Outcome, SqliteError> {
    if let Some(plan) = &said.plan
        && !has_plan(pooled, plan)?
    {
        return Ok(Outcome::Missing(Missing::Plan));
    }
    let (parent, name) = match &path.group {
        None => (MACHINE, &path.organisation),
        Some(group) => match find_one(pooled, MACHINE, &path.organisation)? {
            Some(organisation) => (organisation.id, group),
            None => return Ok(Outcome::Missing(Missing::Organisation)),
        },
    };
    let sql = "INSERT INTO nodes(parent, name, plan, budget, created_s) \
               VALUES(?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT(parent, name) DO UPDATE SET plan = excluded.plan, \
               budget = excluded.budget";
    let budget = said.budget_text();
    let arguments = [
        ValueRef::Integer(parent.0 as i64),
        text(name),
        text_or_null(said.plan.as_deref()),
        text_or_null(budget.as_deref()),
        ValueRef::Integer(super::now_s()),
    ];
    run(pooled, sql, &arguments)?;
    find(pooled, path)
}

/// Make one that is not there.
pub(super) fn create(
    pooled: &mut PooledConnection,
    path: &NodePath,
) -> Result<Outcome, SqliteError> {
    match find_path(pooled, path)? {
        Ok(_) => Ok(Outcome::Exists),
        Err(_) => put(pooled, path, &Said::default()),
    }
}

/// Give a group another name: what is in it, its keys and its jobs stay its own.
pub(super) fn rename(
    pooled: &mut PooledConnection,
    path: &NodePath,
    name: &str,
) -> Result<Outcome, SqliteError> {
    let mut nodes = match find_path(pooled, path)? {
        Ok(nodes) => nodes,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let [group, organisation] = &mut nodes[..] else { return Ok(Outcome::Missing(Missing::Group)) };
    if *group.name != *name {
        if find_one(pooled, organisation.id, name)?.is_some() {
            return Ok(Outcome::Exists);
        }
        let id = ValueRef::Integer(group.id.0 as i64);
        run(pooled, "UPDATE nodes SET name = ?2 WHERE id = ?1", &[id, text(name)])?;
        group.name = name.into();
    }
    Ok(Outcome::Node(nodes))
}

/// Organisations, or the groups of one, in the order of their names.
pub(super) fn list(
    pooled: &mut PooledConnection,
    of: Option<&str>,
    after: &str,
    limit: usize,
) -> Result<Outcome, SqliteError> {
    let parent = match of {
        None => MACHINE,
        Some(name) => match find_one(pooled, MACHINE, name)? {
            Some(organisation) => organisation.id,
            None => return Ok(Outcome::Missing(Missing::Organisation)),
        },
    };
    let sql = "SELECT id, name, plan, budget, settings, created_s FROM nodes \
               WHERE parent = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
    let arguments =
        [ValueRef::Integer(parent.0 as i64), text(after), ValueRef::Integer(limit as i64)];
    let found = read(pooled, sql, &arguments, |statement| node_at(statement, 0))?;
    Ok(Outcome::Nodes(found.into_iter().flatten().collect()))
}

pub(super) fn drop(pooled: &mut PooledConnection, path: &NodePath) -> Result<Outcome, SqliteError> {
    let nodes = match find_path(pooled, path)? {
        Ok(nodes) => nodes,
        Err(missing) => return Ok(Outcome::Missing(missing)),
    };
    let node = nodes.first().expect("a path has a node");
    let id = ValueRef::Integer(node.id.0 as i64);
    // A dump is in none of its organisation's groups.
    let children = count(pooled, "SELECT count(*) FROM nodes WHERE parent = ?1", id)?
        + count(pooled, "SELECT count(*) FROM databases WHERE group_id = ?1", id)?;
    if children > 0 {
        return Ok(Outcome::InUse(children));
    }
    if node.settings().delete_protection {
        return Ok(Outcome::Protected);
    }
    run(pooled, "DELETE FROM nodes WHERE id = ?1", &[id])?;
    super::keys::forget(pooled, Scope::Node(node.id))?;
    super::periods::forget(pooled, node.id)?;
    Ok(Outcome::Node(nodes))
}

fn text(text: &str) -> ValueRef<'_> {
    ValueRef::Text(text.as_bytes())
}

fn count(
    pooled: &mut PooledConnection,
    sql: &str,
    argument: ValueRef<'_>,
) -> Result<u64, SqliteError> {
    let found = read(pooled, sql, &[argument], |statement| Ok(integer_at(statement, 0)))?;
    Ok(found.first().copied().unwrap_or(0) as u64)
}
