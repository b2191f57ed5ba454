//! What sqld's admin API says of a database: its configuration and its statistics.
//!
//! A body that has both `block_reads` and `block_writes` is a whole configuration, as sqld takes it: what
//! is absent from it is reset, a public key too. One without both changes only what it has. What cannot be
//! promised here is refused rather than ignored. Every commit is durable before it is answered, so each
//! `durability_mode` is kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tenant::budget::Part;
use tenant::settings::SettingsChange;
use tenant::{BudgetChange, Change, DatabaseRow, UsageView};

use super::budgets::{self, database_size, unknown};
use crate::auth::jwt;
use crate::problem::Problem;

/// The words of sqld for how sure a commit is before it is answered.
const DURABILITY: [&str; 4] = ["off", "relaxed", "strong", "extra"];

/// The body of `POST …/config`.
pub(super) fn config(body: &[u8]) -> Result<Change, Problem> {
    let object = budgets::object(body)?;
    let is_switch = |name: &str| matches!(object.get(name), Some(Value::Bool(_)));
    let whole = is_switch("block_reads") && is_switch("block_writes");
    let mut change = Change::default();
    let mut settings = match whole {
        false => SettingsChange::default(),
        true => SettingsChange {
            block_reason: Some(None),
            jwt_keys: Some(Vec::new()),
            ..SettingsChange::default()
        },
    };
    for (key, value) in &object {
        match (key.as_str(), value) {
            ("max_db_size", value) => {
                let bytes = database_size(value)?;
                change.budget = Some(BudgetChange::Set(Part::StorageBytes, bytes));
            }
            _ => setting(&mut settings, key, value)?,
        }
    }
    if settings != SettingsChange::default() {
        change.settings = Some(Box::new(settings));
    }
    Ok(change)
}

/// One setting of a database by sqld's name.
pub(super) fn setting(
    settings: &mut SettingsChange,
    key: &str,
    value: &Value,
) -> Result<(), Problem> {
    match (key, value) {
        ("block_reads", Value::Bool(on)) => settings.block_reads = Some(*on),
        ("block_writes", Value::Bool(on)) => settings.block_writes = Some(*on),
        ("delete_protection", Value::Bool(on)) => settings.delete_protection = Some(*on),
        ("block_reason", value) => settings.block_reason = Some(super::settings::reason(value)?),
        ("jwt_key", Value::Null) => settings.jwt_keys = Some(Vec::new()),
        ("jwt_key", Value::String(text)) => {
            let keys = jwt::read_public_keys(text)
                .map_err(|why| Problem::body(format!("jwt_key: {why}")))?;
            if keys.len() > tenant::limits::JWT_KEYS_MAX {
                let most = tenant::limits::JWT_KEYS_MAX;
                return Err(Problem::body(format!("jwt_key: {most} keys at most")));
            }
            settings.jwt_keys = Some(keys);
        }
        ("durability_mode", Value::String(mode)) if DURABILITY.contains(&mode.as_str()) => {}
        (
            "block_reads" | "block_writes" | "delete_protection" | "jwt_key" | "durability_mode",
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
        ) => return Err(Problem::body(format!("{key} cannot be this"))),
        (_, Value::Null | Value::Bool(false)) => {}
        _ => return Err(unknown(key)),
    }
    Ok(())
}

/// The answer to `GET …/config`; what it says can be sent back.
pub(crate) fn config_answer(row: &DatabaseRow) -> Value {
    let settings = row.settings();
    let size = row.said.budget().storage_bytes.map(|bytes| format!("{bytes}B"));
    let jwt_key = match settings.jwt_keys.as_slice() {
        [] => None,
        [key] => Some(URL_SAFE_NO_PAD.encode(key)),
        keys => Some(jwt::write_public_keys(keys)),
    };
    json!({
        "block_reads": settings.block_reads,
        "block_writes": settings.block_writes,
        "block_reason": settings.block_reason,
        "delete_protection": settings.delete_protection,
        "max_db_size": size,
        "heartbeat_url": null,
        "jwt_key": jwt_key,
        "allow_attach": false,
        "txn_timeout_s": null,
        "durability_mode": "strong",
    })
}

/// The answer to `GET …/stats`. Rows are not counted here but pages, and no text of a query is kept.
pub(crate) fn stats(view: &UsageView) -> Value {
    let mut stats = budgets::counters(&view.total);
    for (name, value) in [
        ("id", json!(view.row.name)),
        ("rows_read_count", json!(view.total.cost.pages_read)),
        ("rows_written_count", json!(view.total.cost.pages_written)),
        ("storage_bytes_used", json!(view.bytes)),
        ("write_requests_delegated", json!(0)),
        ("replication_index", json!(view.row.txid)),
        ("top_queries", json!([])),
        ("slowest_queries", json!([])),
        ("embedded_replica_frames_replicated", json!(0)),
        ("query_count", json!(view.total.requests)),
        ("elapsed_ms", json!(view.total.cpu_ns / 1_000_000)),
        ("queries", Value::Null),
    ] {
        stats[name] = value;
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(body: &str) -> SettingsChange {
        *config(body.as_bytes()).expect(body).settings.unwrap_or_default()
    }

    #[test]
    fn a_whole_configuration_resets_what_it_leaves_out() {
        let whole = settings(r#"{"block_reads":false,"block_writes":true}"#);
        let blocked = SettingsChange {
            block_reads: Some(false),
            block_writes: Some(true),
            block_reason: Some(None),
            jwt_keys: Some(Vec::new()),
            ..SettingsChange::default()
        };
        assert_eq!(whole, blocked);
        let part = settings(r#"{"block_writes":true,"block_reason":"moved"}"#);
        assert_eq!((part.block_reads, part.jwt_keys), (None, None));
        assert_eq!(part.block_reason, Some(Some("moved".into())));
        assert_eq!(config(br#"{"max_db_size":"1MiB"}"#).expect("a part").settings, None);
    }

    #[test]
    fn what_get_says_can_be_posted() {
        let mut row = DatabaseRow::new(storage::TenantId(7), "shop", 0);
        row.set_settings(tenant::settings::Settings {
            block_writes: true,
            block_reason: Some("moved".into()),
            ..tenant::settings::Settings::NOTHING
        });
        let said = config_answer(&row).to_string();
        let change = *config(said.as_bytes()).expect(&said).settings.expect("it has settings");
        assert_eq!(row.settings().changed(&change, 0), *row.settings());
    }

    #[test]
    fn what_is_not_kept_is_refused() {
        for body in [
            r#"{"block_reads":1}"#,
            r#"{"block_reason":7}"#,
            r#"{"jwt_key":"no key"}"#,
            r#"{"jwt_key":7}"#,
            r#"{"allow_attach":true}"#,
            r#"{"txn_timeout_s":5}"#,
            r#"{"heartbeat_url":"http://example.com"}"#,
            r#"{"durability_mode":"never"}"#,
        ] {
            assert_eq!(config(body.as_bytes()).expect_err(body).status, 400);
        }
    }
}
