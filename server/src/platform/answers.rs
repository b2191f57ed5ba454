//! Answers of the Platform API, in the mixed capitals that its tools parse.

use serde_json::{Value, json};
use tenant::budget::Usage;
use tenant::budget::periods::PeriodUse;
use tenant::{
    ControlReply, DEFAULT_GROUP, DatabaseRow, KeyRow, KeyScope, NodeRow, RowState, Sum, UsageView,
};

use super::Shape;
use super::forms::{NEVER_S, Of, rfc_3339, uuid};
use super::host::PublicHost;
use super::route::LOCATION;
use crate::control::{budgets, dumps, period, sqld, uploads};

/// See [`Shape::answer`].
pub(super) fn answer(shape: &Shape, reply: &ControlReply, host: &PublicHost) -> Value {
    match (shape, reply) {
        (Shape::Fixed(body), _) => serde_json::from_str(body).expect("it is a constant"),
        (Shape::ExpiryOf(exp), _) => json!({ "exp": exp }),
        (Shape::Revoked(name), _) => json!({ "token": name }),
        (Shape::NoDatabases, _) => json!({ "databases": [], "pagination": { "next": null } }),
        (Shape::Organisations { limit }, ControlReply::Nodes(rows)) => {
            let next = rows.last().filter(|_| rows.len() == *limit).map(|row| &row.name);
            let rows: Vec<Value> = rows.iter().map(organisation).collect();
            json!({ "organizations": rows, "pagination": { "next": next } })
        }
        (Shape::Groups { limit }, ControlReply::Nodes(rows)) => {
            let next = rows.last().filter(|_| rows.len() == *limit).map(|row| &row.name);
            let rows: Vec<Value> = rows.iter().map(group).collect();
            json!({ "groups": rows, "pagination": { "next": next } })
        }
        (Shape::Organisation(name), ControlReply::Node(node)) => {
            json!({ *name: organisation(&node.0) })
        }
        (Shape::Group, ControlReply::Node(node)) => json!({ "group": group(&node.0) }),
        (Shape::GroupConfiguration, ControlReply::Node(node)) => {
            json!({ "delete_protection": node.0.settings().delete_protection })
        }
        (Shape::Dump, ControlReply::Imported(made)) => {
            let mut answer = json!({ "dump_url": dumps::address(&made.0.name) });
            answer["imported"] = uploads::imported(&made.1);
            answer
        }
        (Shape::Sum, ControlReply::Sum(view)) => sum(view),
        (Shape::Usage, ControlReply::Usage(view)) => json!({ "database": usage_of(view) }),
        (Shape::SqldStats, ControlReply::Usage(view)) => sqld::stats(view),
        (Shape::Tokens, ControlReply::Keys(rows)) => {
            let shown = rows.iter().filter(|row| is_api_token(row));
            json!({ "tokens": shown.map(token_entry).collect::<Vec<Value>>() })
        }
        (Shape::Expiry, ControlReply::Keys(rows)) => {
            let good = rows.first().filter(|row| row.revoked_s.is_none());
            // -1: it is none.
            let exp = good.map_or(-1, |row| row.expires_s.unwrap_or(NEVER_S as i64));
            json!({ "exp": exp })
        }
        (Shape::Databases { limit }, ControlReply::Databases(rows)) => {
            let last = rows.last().filter(|_| rows.len() == *limit);
            let next = last.map(|row| format!("{}.{}", group_name(row), row.name));
            let rows: Vec<Value> = rows.iter().map(|row| database(row, host)).collect();
            json!({ "databases": rows, "pagination": { "next": next } })
        }
        (_, ControlReply::Databases(rows)) => {
            rows.first().map_or_else(|| json!({}), |row| of_row(shape, row, host))
        }
        (_, ControlReply::Copying(copying)) => of_row(shape, &copying.0, host),
        (_, ControlReply::Dropped(dropped)) => {
            let (row, receipt) = &**dropped;
            let mut answer = of_row(shape, row, host);
            answer["receipt"] = crate::control::receipt::answer(receipt);
            answer
        }
        (_, ControlReply::Budget(view)) => of_row(shape, &view.row, host),
        _ => json!({}),
    }
}

/// An answer that is about one database.
fn of_row(shape: &Shape, row: &DatabaseRow, host: &PublicHost) -> Value {
    match shape {
        Shape::Database => json!({ "database": database(row, host) }),
        Shape::Created => json!({
            "database": {
                "DbId": uuid(Of::Database, row.id.0),
                "Name": row.name,
                "Hostname": host.hostname(&row.name),
                "url": host.url(&row.name),
            },
            "username": "operator",
        }),
        Shape::Dropped => json!({ "database": row.name }),
        Shape::Configuration => {
            let settings = row.settings();
            let size = row.said.budget().storage_bytes;
            json!({
                "size_limit": size.map(|bytes| format!("{bytes}B")),
                "allow_attach": false,
                "block_reads": settings.block_reads,
                "block_writes": settings.block_writes,
                "delete_protection": settings.delete_protection,
                "allowed_ips": [],
                "allowed_aws_vpc_ids": [],
            })
        }
        Shape::Instances => json!({ "instances": [instance(row, host)] }),
        Shape::Instance => json!({ "instance": instance(row, host) }),
        Shape::SqldConfig => sqld::config_answer(row),
        _ => json!({}),
    }
}

fn organisation(row: &NodeRow) -> Value {
    let settings = row.settings();
    json!({
        "id": uuid(Of::Organisation, row.id.0),
        "name": row.name,
        "slug": row.name,
        "type": "personal",
        "overages": false,
        "blocked_reads": settings.block_reads,
        "blocked_writes": settings.block_writes,
    })
}

fn group(row: &NodeRow) -> Value {
    json!({
        "uuid": uuid(Of::Group, row.id.0),
        "name": row.name,
        "version": env!("CARGO_PKG_VERSION"),
        "locations": [LOCATION],
        "primary": LOCATION,
        "archived": false,
        "delete_protection": row.settings().delete_protection,
        "status": { "locations": [{ "name": LOCATION, "status": "up" }] },
    })
}

/// The name of the group that a database is in; whoever is here has one.
fn group_name(row: &DatabaseRow) -> &str {
    row.path.first().map_or(DEFAULT_GROUP, |group| &group.name)
}

fn database(row: &DatabaseRow, host: &PublicHost) -> Value {
    let settings = row.settings();
    json!({
        "Name": row.name,
        "DbId": uuid(Of::Database, row.id.0),
        "Hostname": host.hostname(&row.name),
        "url": host.url(&row.name),
        "regions": [LOCATION],
        "primaryRegion": LOCATION,
        "type": "logical",
        "database_type": "libsql",
        "version": env!("CARGO_PKG_VERSION"),
        "group": group_name(row),
        "sleeping": false,
        "archived": false,
        "allow_attach": false,
        "block_reads": settings.block_reads,
        "block_writes": settings.block_writes,
        "delete_protection": settings.delete_protection,
        "schema": "",
        "is_schema": false,
        "parent": null,
        "damaged": row.state == RowState::Fenced,
    })
}

fn instance(row: &DatabaseRow, host: &PublicHost) -> Value {
    json!({
        "uuid": uuid(Of::Database, row.id.0),
        "name": "primary",
        "type": "primary",
        "region": LOCATION,
        "hostname": host.hostname(&row.name),
    })
}

/// What was used, as tools read it, and then as it is counted.
fn usage(usage: &Usage, storage_bytes: u64) -> Value {
    let mut all = budgets::counters(usage);
    all["rows_read"] = usage.cost.pages_read.into();
    all["rows_written"] = usage.cost.pages_written.into();
    all["storage_bytes"] = storage_bytes.into();
    all["bytes_synced"] = 0.into();
    all
}

/// The time that numbers are of.
fn period_of(period: Option<&PeriodUse>) -> Value {
    period.map_or_else(|| "all".into(), period::bounds)
}

fn usage_of(view: &UsageView) -> Value {
    let total = usage(&view.total, view.bytes);
    let used = match &view.period {
        Some(period) => usage(&period.usage, view.bytes),
        None => total.clone(),
    };
    let uuid = uuid(Of::Database, view.row.id.0);
    json!({
        "uuid": uuid,
        "instances": [{ "uuid": uuid, "usage": used }],
        "usage": used,
        "total": total,
        "period": period_of(view.period.as_ref()),
        "since": view.row.created_s,
    })
}

fn sum(view: &Sum) -> Value {
    let mut used =
        usage(view.period.as_ref().map_or(&view.usage, |period| &period.usage), view.bytes);
    used["databases"] = view.databases.into();
    used["groups"] = view.groups.into();
    used["locations"] = 1.into();
    let node = view.path.first().expect("a path has a node");
    let (name, of) = match view.path.len() {
        1 => ("organization", Of::Organisation),
        _ => ("group", Of::Group),
    };
    // Each database's own is at its own usage: there may be a million.
    json!({
        name: {
            "uuid": uuid(of, node.id.0),
            "name": node.name,
            "usage": used,
            "databases": [],
            "period": period_of(view.period.as_ref()),
        }
    })
}

// ---- API tokens ----

fn is_api_token(row: &KeyRow) -> bool {
    row.revoked_s.is_none() && !matches!(row.scope_name, Some(KeyScope::Database(_)) | None)
}

fn token_entry(row: &KeyRow) -> Value {
    json!({
        "id": uuid(Of::Key, row.id.0),
        "name": row.name.as_deref().unwrap_or(&row.public),
        "created_at": rfc_3339(row.created_s.max(0) as u64),
    })
}

/// See [`Shape::created`].
pub(super) fn api_token(shape: &Shape, row: &KeyRow, secret: &str) -> Value {
    let id = uuid(Of::Key, row.id.0);
    match shape {
        Shape::Token { nested: true } => {
            json!({ "token": { "id": id, "name": row.name, "value": secret } })
        }
        _ => json!({ "id": id, "name": row.name, "token": secret }),
    }
}
