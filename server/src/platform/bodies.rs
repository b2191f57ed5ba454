//! Bodies and queries of the Platform API. Names of members are read in either case; what nobody here
//! knows is skipped, as the service does; what would promise something that is not kept is refused.

use serde_json::{Map, Value};
use tenant::budget::{Budget, Part};
use tenant::settings::SettingsChange;
use tenant::{BudgetChange, Change, KeyScope};

use crate::control::{budgets, keys, percent, seed};
use crate::http::TenantName;
use crate::problem::Problem;

type Object = Map<String, Value>;

/// The body's object, its names in lower case, without what is null.
fn object(body: &[u8]) -> Result<Object, Problem> {
    let object = budgets::object(body)?;
    let members = object.into_iter().filter(|(_, value)| !value.is_null());
    Ok(members.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
}

fn text<'a>(object: &'a Object, name: &str) -> Result<Option<&'a str>, Problem> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Problem::body(format!("{name} must be a text"))),
    }
}

fn switch(object: &Object, name: &str) -> Result<Option<bool>, Problem> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(*on)),
        Some(_) => Err(Problem::body(format!("{name} must be true or false"))),
    }
}

/// A member that would promise what is not kept, unless it says no.
fn refuse(object: &Object, name: &str, why: &str) -> Result<(), Problem> {
    let says_no = match object.get(name) {
        None | Some(Value::Bool(false)) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        Some(_) => false,
    };
    if says_no { Ok(()) } else { Err(Problem::body(format!("{name} is not supported: {why}"))) }
}

/// The name of what is to be created.
pub(super) fn name(body: &[u8]) -> Result<String, Problem> {
    let object = object(body)?;
    let name = text(&object, "name")?.ok_or_else(|| Problem::body("name is missing"))?;
    Ok(TenantName::new(name)?.as_str().to_owned())
}

/// `{"overages":bool}` of an organisation.
pub(super) fn organisation(body: &[u8]) -> Result<(), Problem> {
    let object = object(body)?;
    match switch(&object, "overages")? {
        Some(true) => Err(Problem::body("overages cannot be allowed: a budget is a limit here")),
        _ => Ok(()),
    }
}

/// A database that is to be created.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Create {
    pub name: String,
    pub group: Option<Box<str>>,
    pub budget: Option<BudgetChange>,
    /// The database of which it is to be a copy, if it is.
    pub from: Option<String>,
    /// It is sent when it has been created.
    pub sent: bool,
}

pub(super) fn create(body: &[u8]) -> Result<Create, Problem> {
    let object = object(body)?;
    let name = text(&object, "name")?.ok_or_else(|| Problem::body("name is missing"))?;
    let group = text(&object, "group")?.filter(|name| !name.is_empty());
    for (member, why) in [
        ("group_id", "name the group by `group`"),
        ("is_schema", "there are no schema databases"),
        ("schema", "there are no schema databases"),
        ("use_tursodb", "databases are SQLite's"),
        ("remote_encryption", "encrypt the disk"),
        ("allow_attach", "no database can read another"),
    ] {
        refuse(&object, member, why)?;
    }
    let mut budget = Budget::default();
    if let Some(size) = object.get("size_limit").filter(|size| *size != "") {
        budget.set(Part::StorageBytes, Some(size_limit(size)?));
    }
    let budget = (!budget.is_empty()).then(|| BudgetChange::Replace(Box::new(budget)));
    let sent = object.get(seed::SEED).is_some_and(seed::is_sent);
    let from = object.get(seed::SEED).filter(|_| !sent);
    let group = group.map(|name| TenantName::new(name).map(|name| name.as_str().into()));
    Ok(Create {
        name: TenantName::new(name)?.as_str().to_owned(),
        group: group.transpose()?,
        budget,
        from: from.map(seed::source).transpose()?.flatten(),
        sent,
    })
}

/// `256mb`, `1GB`, or a number of bytes.
fn size_limit(value: &Value) -> Result<u64, Problem> {
    let upper = match value {
        Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{text}B").into()
        }
        Value::String(text) => match text.to_ascii_uppercase() {
            text if text.ends_with("IB") => text.replace("IB", "iB").into(),
            text => text.into(),
        },
        other => other.clone(),
    };
    let found = budgets::number(Part::StorageBytes, &upper).ok().flatten();
    found
        .ok_or_else(|| Problem::body("size_limit must be a size such as \"256mb\", at least 8 KiB"))
}

/// A change of a database's settings.
pub(super) fn configuration(body: &[u8]) -> Result<Change, Problem> {
    let object = object(body)?;
    refuse(&object, "allow_attach", "no database can read another")?;
    refuse(&object, "allowed_ips", "addresses are not looked at; use a proxy or a firewall")?;
    refuse(&object, "allowed_aws_vpc_ids", "addresses are not looked at")?;
    let mut change = Change::default();
    if let Some(size) = object.get("size_limit") {
        let bytes = if size == "" { None } else { Some(size_limit(size)?) };
        change.budget = Some(BudgetChange::Set(Part::StorageBytes, bytes));
    }
    let settings = SettingsChange {
        delete_protection: switch(&object, "delete_protection")?,
        block_reads: switch(&object, "block_reads")?,
        block_writes: switch(&object, "block_writes")?,
        ..SettingsChange::default()
    };
    if settings != SettingsChange::default() {
        change.settings = Some(Box::new(settings));
    }
    Ok(change)
}

/// A change of a group's settings.
pub(super) fn group_configuration(body: &[u8]) -> Result<SettingsChange, Problem> {
    let object = object(body)?;
    let delete_protection = switch(&object, "delete_protection")?;
    Ok(SettingsChange { delete_protection, ..SettingsChange::default() })
}

/// What a token may beside reading and writing: nothing that is not checked.
pub(super) fn permissions(body: &[u8]) -> Result<(), Problem> {
    let object = object(body)?;
    refuse(&object, "fine_grained_permissions", "a token is for whole databases")?;
    let Some(permissions) = object.get("permissions") else { return Ok(()) };
    let others = match permissions {
        Value::Object(members) => members.iter().any(|(_, member)| match member {
            Value::Object(read_attach) => read_attach.iter().any(|(_, databases)| {
                !matches!(databases, Value::Null) && *databases != Value::Array(Vec::new())
            }),
            member => !member.is_null(),
        }),
        _ => true,
    };
    match others {
        true => Err(Problem::body("permissions are not supported: no database can read another")),
        false => Ok(()),
    }
}

/// A key's name as it stands in a path.
pub(super) fn key_name(name: &str) -> Result<Box<str>, Problem> {
    let name = percent::decoded(name).filter(|name| !name.is_empty() && keys::is_name(name));
    let text = "a token's name has 1 to 128 bytes of UTF-8, none of them control characters";
    name.map(String::into_boxed_str).ok_or_else(|| Problem::body(text))
}

/// What an API token is for: everything, unless it says less.
pub(super) fn key_scope(body: &[u8]) -> Result<KeyScope, Problem> {
    let object = object(body)?;
    refuse(&object, "scopes", "make a key with a role by POST /v1/keys")?;
    let organisation = text(&object, "organization")?.filter(|name| !name.is_empty());
    let group = text(&object, "group")?.filter(|name| !name.is_empty());
    match (organisation, group) {
        (None, None) => Ok(KeyScope::Machine),
        (None, Some(_)) => Err(Problem::body("organization is missing")),
        (Some(organisation), group) => Ok(KeyScope::Node(budgets::node(organisation, group)?)),
    }
}

/// Which databases are listed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct List {
    pub group: Option<Box<str>>,
    /// Only such as there are none of here.
    pub nothing: bool,
    pub after: (Box<str>, Box<str>),
    pub limit: usize,
}

fn limit(value: &str) -> Result<usize, Problem> {
    match value.parse() {
        Ok(limit @ 1..=tenant::limits::LIST_PAGE_MAX) => Ok(limit),
        _ => Err(Problem::body("limit must be a number from 1 to 1000")),
    }
}

pub(super) fn list(query: &str) -> Result<List, Problem> {
    let mut list = List {
        group: None,
        nothing: false,
        after: Default::default(),
        limit: tenant::limits::LIST_PAGE_MAX,
    };
    for (key, value) in percent::pairs(query)? {
        match (key.as_str(), value.as_str()) {
            ("group" | "limit" | "cursor" | "schema" | "type" | "parent", "") => {}
            ("group", name) => list.group = Some(TenantName::new(name)?.as_str().into()),
            ("limit", value) => list.limit = limit(value)?,
            ("cursor", value) => {
                let text = "cursor must be the next of an earlier answer";
                let (group, name) = value.split_once('.').ok_or_else(|| Problem::body(text))?;
                list.after = (group.into(), name.into());
            }
            // No database is a schema, or has one, or was forked from another.
            ("schema" | "parent", _) => list.nothing = true,
            ("type", kind) => list.nothing |= kind != "logical",
            _ => {}
        }
    }
    Ok(list)
}

/// The name that a list begins behind, and how long it may be.
pub(super) fn page(query: &str) -> Result<(String, usize), Problem> {
    let (mut after, mut most) = (String::new(), tenant::limits::LIST_PAGE_MAX);
    for (key, value) in percent::pairs(query)? {
        match key.as_str() {
            "limit" => most = limit(&value)?,
            "cursor" => after = value.to_ascii_lowercase(),
            _ => {}
        }
    }
    Ok((after, most))
}
