//! Budgets, plans and use as JSON: what people write and read.
//!
//! A budget is an object of parts, each named with its unit. A number may be written as such, or as a
//! text with a unit of its own: `"64MiB"`, `"10MB"` (a million bytes each), `"1500ms"`, `"30s"`,
//! `"1h"`. `null` leaves a part out. A part that nobody knows is refused by its name.

use serde_json::{Map, Value, json};
use tenant::budget::periods::PeriodUse;
use tenant::budget::{Budget, Part, Priority, Resolved, Source, Unit, Usage};
use tenant::settings::SettingsChange;
use tenant::{
    BudgetChange, BudgetView, Change, DatabaseRow, NodePath, NodeRow, Plan, Said, Sum, UsageView,
};

use crate::http::TenantName;
use crate::problem::Problem;

type Object = Map<String, Value>;

/// The body's object; an empty body is an empty one.
pub(crate) fn object(body: &[u8]) -> Result<Object, Problem> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Object::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Problem::body("the body must be a JSON object, such as {}")),
    }
}

/// Words of a client, short enough to be said back.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

pub(crate) fn unknown(key: &str) -> Problem {
    if key == "dump_url" {
        let text = "dump_url is not fetched: send the dump itself to POST /v1/namespaces/{name}/upload as \
                    application/sql";
        return Problem::body(text);
    }
    Problem::body(format!("the option {:?} is not supported", shown(key)))
}

// ---- what people write ----

/// A budget.
pub(super) fn budget(object: &Object) -> Result<Budget, Problem> {
    let mut budget = Budget::default();
    for (name, value) in object {
        let part = Part::ALL.into_iter().find(|part| part.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Part::ALL.iter().map(|part| part.name()).collect();
            let known = names.join(", ");
            Problem::body(format!("no budget has a part {:?}; its parts are {known}", shown(name)))
        })?;
        budget.set(part, number(part, value)?);
    }
    Ok(budget)
}

/// The number that a part is given; `None` for null.
pub(crate) fn number(part: Part, value: &Value) -> Result<Option<u64>, Problem> {
    let number = match (value, part.unit()) {
        (Value::Null, _) => return Ok(None),
        (Value::String(word), Unit::Priority) => {
            Priority::ALL.iter().position(|priority| priority.name() == word).map(|at| at as u64)
        }
        (Value::Number(number), Unit::Bytes | Unit::Nanoseconds | Unit::Number) => number.as_u64(),
        (Value::String(text), unit) => with_unit(text, unit),
        _ => None,
    };
    let range = part.range();
    let number = number.filter(|number| range.contains(number));
    number.map(Some).ok_or_else(|| {
        let may_be = match part.unit() {
            Unit::Priority => "\"background\", \"normal\" or \"interactive\"".to_owned(),
            unit => {
                let example = match unit {
                    Unit::Bytes => ", or a text such as \"64MiB\"",
                    Unit::Nanoseconds => ", or a text such as \"30s\"",
                    Unit::Number | Unit::Priority => "",
                };
                format!("a whole number from {} to {}{example}", range.start(), range.end())
            }
        };
        Problem::body(format!("{} must be {may_be}", part.name()))
    })
}

/// A whole number and its unit, as `64MiB` or `30s`.
fn with_unit(text: &str, unit: Unit) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, word) = text.split_at(digits);
    let factor: u64 = match (unit, word.trim()) {
        (Unit::Bytes, "B" | "b") | (Unit::Nanoseconds, "ns") => 1,
        (Unit::Bytes, "KB" | "kB") | (Unit::Nanoseconds, "us" | "µs") => 1000,
        (Unit::Bytes, "MB") | (Unit::Nanoseconds, "ms") => 1_000_000,
        (Unit::Bytes, "GB") | (Unit::Nanoseconds, "s") => 1_000_000_000,
        (Unit::Bytes, "TB") => 1_000_000_000_000,
        (Unit::Bytes, "KiB") => 1 << 10,
        (Unit::Bytes, "MiB") => 1 << 20,
        (Unit::Bytes, "GiB") => 1 << 30,
        (Unit::Bytes, "TiB") => 1 << 40,
        (Unit::Nanoseconds, "m") => 60_000_000_000,
        (Unit::Nanoseconds, "h") => 3_600_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A plan of this name with the budget in `body`.
pub(crate) fn plan(name: &str, body: &[u8]) -> Result<Plan, Problem> {
    Ok(Plan { name: name.into(), budget: budget(&object(body)?)? })
}

fn plan_name(value: &Value) -> Result<Option<Box<str>>, Problem> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) => Ok(Some(TenantName::new(name)?.as_str().into())),
        _ => Err(Problem::body("plan must be a plan's name or null")),
    }
}

fn own_budget(value: &Value) -> Result<Budget, Problem> {
    match value {
        Value::Null => Ok(Budget::default()),
        Value::Object(object) => budget(object),
        _ => Err(Problem::body("budget must be an object of parts or null")),
    }
}

/// What an organisation or group says: `{"plan":…,"budget":{…}}`.
pub(super) fn said(body: &[u8]) -> Result<Said, Problem> {
    let (mut plan, mut own) = (None, Budget::default());
    for (key, value) in &object(body)? {
        match key.as_str() {
            "plan" => plan = plan_name(value)?,
            "budget" => own = own_budget(value)?,
            _ => return Err(unknown(key)),
        }
    }
    Ok(Said::new(plan, own))
}

/// What a database is given: `{"group":"organisation/group","plan":…,"budget":{…}}`. What is absent
/// stays; what is null is taken away.
pub(super) fn change(body: &[u8]) -> Result<Change, Problem> {
    let mut change = Change::default();
    for (key, value) in &object(body)? {
        match key.as_str() {
            "group" => change.group = Some(group(value)?),
            "plan" => change.plan = Some(plan_name(value)?),
            "budget" => {
                change.budget = Some(BudgetChange::Replace(Box::new(own_budget(value)?)));
            }
            _ => return Err(unknown(key)),
        }
    }
    Ok(change)
}

/// The body of a create: what the database is given. sqld's options that have no meaning here are
/// refused unless they are null; `max_db_size` is `storage_bytes`.
pub(super) fn create(body: &[u8]) -> Result<Change, Problem> {
    let mut object = object(body)?;
    object.retain(|_, value| !value.is_null());
    let size = object.remove("max_db_size");
    let mut settings = SettingsChange::default();
    for name in SETTINGS {
        if let Some(value) = object.remove(name) {
            super::sqld::setting(&mut settings, name, &value)?;
        }
    }
    let mut read = Ok(());
    object.retain(|name, value| {
        let known = super::life::read(&mut settings.life, name, value);
        let known = known.map_err(|problem| read = Err(problem));
        known != Ok(true)
    });
    read?;
    let class = super::life::take_class(&mut settings.life);
    super::life::of_database(&settings)?;
    let settings = (settings != SettingsChange::default()).then(|| Box::new(settings));
    // What they would change they say no to.
    object.retain(|_, value| *value != Value::Bool(false));
    let mut own = object.remove("budget").map(|value| own_budget(&value)).transpose()?;
    if let Some(size) = size {
        let bytes = database_size(&size)?;
        own.get_or_insert_default().set(Part::StorageBytes, bytes);
    }
    let rest = Value::Object(object).to_string();
    let budget = own.map(|budget| BudgetChange::Replace(Box::new(budget)));
    Ok(Change { budget, settings, class, ..change(rest.as_bytes())? })
}

/// Settings that a create may have too.
const SETTINGS: [&str; 6] = [
    "block_reads",
    "block_writes",
    "block_reason",
    "jwt_key",
    "delete_protection",
    "durability_mode",
];

pub(super) fn database_size(value: &Value) -> Result<Option<u64>, Problem> {
    number(Part::StorageBytes, value)
        .map_err(|_| Problem::body("max_db_size must be a size such as \"10MB\", at least 8 KiB"))
}

fn group(value: &Value) -> Result<Option<NodePath>, Problem> {
    let refused = || Problem::body("group must be \"organisation/group\" or null");
    match value {
        Value::Null => Ok(None),
        Value::String(path) => {
            let (organisation, group) = path.split_once('/').ok_or_else(refused)?;
            node(organisation, Some(group)).map(Some)
        }
        _ => Err(refused()),
    }
}

/// The path of an organisation, or of a group in it.
pub(crate) fn node(organisation: &str, group: Option<&str>) -> Result<NodePath, Problem> {
    let checked = |name: &str| TenantName::new(name).map(|name| name.as_str().into());
    Ok(NodePath { organisation: checked(organisation)?, group: group.map(checked).transpose()? })
}

// ---- what people read ----

/// A part's number; without a limit it is null.
fn value_of(part: Part, number: u64) -> Value {
    match (part.unit(), number) {
        (Unit::Priority, place) => Priority::ALL[place as usize].name().into(),
        (_, u64::MAX) => Value::Null,
        _ => number.into(),
    }
}

fn parts(budget: &Budget) -> Value {
    let said = Part::ALL.into_iter().filter_map(|part| Some((part, budget.get(part)?)));
    said.map(|(part, number)| (part.name().to_owned(), value_of(part, number))).collect()
}

/// The name of a place in the tree, for people.
fn place(kind: &str, path: &[&NodeRow]) -> String {
    let names: Vec<&str> = path.iter().rev().map(|node| &*node.name).collect();
    format!("{kind} {}", names.join("/"))
}

/// A database's group as it is written: `organisation/group`.
fn group_of(row: &DatabaseRow) -> Option<String> {
    let names: Vec<&str> = row.path.iter().rev().map(|node| &*node.name).collect();
    (!names.is_empty()).then(|| names.join("/"))
}

/// What holds, part by part: the number, and who said so. `levels`: each one's name and what it
/// says, the nearest first.
fn effective(resolved: &Resolved, levels: &[(String, &Said)]) -> Value {
    let parts = Part::ALL.into_iter().zip(resolved.sources);
    let entry = |(part, source): (Part, Source)| {
        let from = match source {
            Source::Machine => "machine".to_owned(),
            Source::Level { level, plan } => {
                let (name, said) = &levels[level];
                match said.plan.as_deref().filter(|_| plan) {
                    Some(plan) => format!("plan {plan} of {name}"),
                    None => name.clone(),
                }
            }
        };
        let value = value_of(part, resolved.limits.get(part));
        (part.name().to_owned(), json!({ "value": value, "from": from }))
    };
    parts.map(entry).collect()
}

/// A database's budget.
pub(super) fn budget_answer(view: &BudgetView) -> Value {
    let BudgetView { row, resolved } = view;
    let mut levels = vec![("database".to_owned(), &row.said)];
    let path: Vec<&NodeRow> = row.path.iter().collect();
    for (index, node) in row.path.iter().enumerate() {
        let kind = if index + 1 < path.len() { "group" } else { "organisation" };
        levels.push((place(kind, &path[index..]), &node.said));
    }
    json!({
        "name": row.name,
        "group": group_of(row),
        "plan": row.said.plan,
        "budget": parts(row.said.budget()),
        "effective": effective(resolved, &levels),
    })
}

/// An organisation or group: what it says. What it does not say bounds nothing.
pub(super) fn node_answer(path: &NodePath, node: &NodeRow) -> Value {
    json!({
        "organisation": path.organisation,
        "group": path.group,
        "plan": node.said.plan,
        "budget": parts(node.said.budget()),
    })
}

/// A plan.
pub(super) fn plan_answer(plan: &Plan) -> Value {
    json!({ "name": plan.name, "budget": parts(&plan.budget) })
}

pub(crate) fn counters(usage: &Usage) -> Value {
    usage
        .counters()
        .into_iter()
        .map(|(name, number)| (name.to_owned(), Value::from(number)))
        .collect()
}

/// What a database has used, and holds now.
pub(super) fn usage_answer(view: &UsageView) -> Value {
    let UsageView { row, total, bytes, open, period } = view;
    let held = |held: [u64; storage::ledger::KINDS]| -> Object {
        let kinds = storage::ledger::KIND_NAMES.into_iter().zip(held);
        kinds.map(|(kind, bytes)| (kind.to_owned(), bytes.into())).collect()
    };
    let now = open.as_ref().map(|open| {
        json!({
            "held_bytes": held(open.held),
            "requests": open.requests,
            "streams": open.streams,
            "writers_waiting": open.writers_waiting,
        })
    });
    let mut answer = json!({
        "name": row.name,
        "since": row.created_s,
        "total": counters(total),
        "storage_bytes": bytes,
        "now": now,
    });
    add_period(&mut answer, period.as_ref());
    answer
}

/// What was used in a time, if that was asked for: `"period":{"from":…,"to":…,"used":{…}}`.
fn add_period(answer: &mut Value, period: Option<&PeriodUse>) {
    if let Some(period) = period {
        answer["period"] = super::period::bounds(period);
        answer["period"]["used"] = counters(&period.usage);
    }
}

/// What all databases of an organisation or group have used together.
pub(super) fn sum_answer(sum: &Sum) -> Value {
    let (node, above) = sum.path.split_first().expect("a path has a node");
    let organisation = above.first().unwrap_or(node);
    let mut answer = json!({
        "organisation": organisation.name,
        "group": above.first().map(|_| &node.name),
        "groups": sum.groups,
        "databases": sum.databases,
        "storage_bytes": sum.bytes,
        "total": counters(&sum.usage),
    });
    add_period(&mut answer, sum.period.as_ref());
    answer
}

/// Organisations, or the groups of one.
pub(super) fn nodes_answer(of: Option<&str>, rows: &[NodeRow], limit: usize) -> Value {
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| &row.name);
    let entry = |row: &NodeRow| {
        let path = match of {
            Some(name) => NodePath { organisation: name.into(), group: Some(row.name.clone()) },
            None => NodePath { organisation: row.name.clone(), group: None },
        };
        node_answer(&path, row)
    };
    let entries: Vec<Value> = rows.iter().map(entry).collect();
    match of {
        Some(_) => json!({ "groups": entries, "next": next }),
        None => json!({ "organisations": entries, "next": next }),
    }
}

/// What a database's row says of its place; part of how it is shown.
pub(super) fn place_of(row: &DatabaseRow) -> (Option<String>, Option<&str>) {
    (group_of(row), row.said.plan.as_deref())
}

#[cfg(test)]
mod tests {
    use super::super::sqld::config;
    use super::*;

    fn refused(body: &str) -> String {
        let problem = change(body.as_bytes()).expect_err(body);
        assert_eq!(problem.status, 400);
        problem.message.into_owned()
    }

    #[test]
    fn people_write_numbers_with_and_without_units() {
        let body = br#"{"memory_bytes":"64MiB","storage_bytes":"10MB","request_ns":"30s",
            "transaction_idle_ns":"1500ms","weight":300,"priority":"interactive","requests":null,
            "io_bytes_per_second":1048576,"cpu_burst_ns":"1m"}"#;
        let text = r#"{"memory_bytes":67108864,"storage_bytes":10000000,"cpu_burst_ns":60000000000,"io_bytes_per_second":1048576,"weight":300,"priority":"interactive","request_ns":30000000000,"transaction_idle_ns":1500000000}"#;
        assert_eq!(plan("free", body).map(|plan| plan.budget.to_text()), Ok(text.to_owned()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_name() {
        let unknown = refused(r#"{"budget":{"memory":1}}"#);
        assert!(unknown.starts_with("no budget has a part \"memory\"; its parts are memory_bytes"));
        assert_eq!(
            refused(r#"{"budget":{"weight":0}}"#),
            "weight must be a whole number from 1 to 10000"
        );
        for body in [
            r#"{"budget":{"memory_bytes":"64"}}"#,
            r#"{"budget":{"memory_bytes":"64 parsecs"}}"#,
            r#"{"budget":{"memory_bytes":"MiB"}}"#,
            r#"{"budget":{"memory_bytes":1.5}}"#,
            r#"{"budget":{"memory_bytes":-5}}"#,
            r#"{"budget":{"memory_bytes":"99999999999999999TiB"}}"#,
            r#"{"budget":{"request_ns":"3MiB"}}"#,
            r#"{"budget":{"weight":"3"}}"#,
            r#"{"budget":{"priority":2}}"#,
            r#"{"budget":{"priority":"urgent"}}"#,
            r#"{"budget":[]}"#,
            r#"{"group":"acme"}"#,
            r#"{"group":"acme/web/two"}"#,
            r#"{"group":7}"#,
            r#"{"plan":7}"#,
            r#"{"plan":"no such name!"}"#,
            r#"{"colour":"red"}"#,
            "[]",
        ] {
            assert!(!refused(body).is_empty(), "{body}");
        }
    }

    #[test]
    fn absent_stays_and_null_is_taken_away() {
        assert_eq!(change(b""), Ok(Change::default()));
        assert_eq!(
            change(br#"{"group":null,"plan":null,"budget":null}"#),
            Ok(Change {
                group: Some(None),
                plan: Some(None),
                budget: Some(BudgetChange::Replace(Box::default())),
                settings: None,
                class: None,
            })
        );
        let group = change(br#"{"group":"Acme/web"}"#).expect("a group").group;
        assert_eq!(group, Some(Some(node("acme", Some("web")).expect("a path"))));
    }

    #[test]
    fn sqld_s_size_is_the_storage_budget() {
        let set = |bytes| Change {
            budget: Some(BudgetChange::Set(Part::StorageBytes, bytes)),
            ..Change::default()
        };
        let body =
            br#"{"block_reads":false,"block_writes":false,"max_db_size":"10MB","jwt_key":null}"#;
        let sized = config(body).expect("it is whole").budget;
        assert_eq!(sized, set(Some(10_000_000)).budget);
        assert_eq!(config(br#"{"max_db_size":null}"#), Ok(set(None)));
        let protected = create(br#"{"delete_protection":true,"allow_attach":false}"#);
        assert!(
            protected.expect("it is known").settings.expect("one").delete_protection == Some(true)
        );
        assert!(create(br#"{"max_db_size":"1KB"}"#).is_err());
        let budget = Budget { storage_bytes: Some(1 << 20), ..Budget::default() };
        let created = create(br#"{"max_db_size":"1MiB","dump_url":null,"plan":null}"#);
        let budget = Some(BudgetChange::Replace(Box::new(budget)));
        assert_eq!(created, Ok(Change { budget, ..Change::default() }));
    }
}
