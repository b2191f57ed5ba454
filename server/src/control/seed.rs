//! What a new database begins with: nothing, all that another one has, or a dump that was sent before.
//!
//! `{"seed":{"type":"database","name":"shop"}}` in the body of a create, in our own API and in the Platform
//! API (whose CLI says `value` for `name`); `{"seed":{"type":"dump","url":…}}` or, as sqld says it,
//! `{"dump_url":…}`: see `dumps`.

use serde_json::{Map, Value};
use tenant::ControlCall;
use tenant::life::Class;

use super::{budgets, dumps};
use crate::http::TenantName;
use crate::problem::Problem;

/// The member of a body that says what a database begins with.
pub(crate) const SEED: &str = "seed";

/// sqld's member for the same, where it is a dump.
const DUMP_URL: &str = "dump_url";

/// The body of `POST /v1/namespaces/{name}/create`.
pub(super) fn create(name: String, body: &[u8]) -> Result<ControlCall, Problem> {
    let mut object = budgets::object(body)?;
    let mut from = object.remove(SEED).map(|seed| source(&seed)).transpose()?.flatten();
    match object.remove(DUMP_URL) {
        None | Some(Value::Null) => {}
        Some(_) if from.is_some() => {
            return Err(Problem::body("seed and dump_url are two beginnings: say one"));
        }
        Some(url) => from = Some(dumps::at(url.as_str().unwrap_or_default())?),
    }
    let mut change = budgets::create(Value::Object(object).to_string().as_bytes())?;
    if from.as_deref().is_some_and(dumps::is_dump) {
        // A copy stands beside its original unless something else is said; a dump stands nowhere.
        change.group.get_or_insert(None);
    }
    if from.is_some() && change.class == Some(Class::Memory) {
        return Err(Problem::body("class memory has no seed: a copy is durable"));
    }
    Ok(match from {
        Some(from) => ControlCall::Fork { from, to: name, change },
        None => ControlCall::Create(name, change),
    })
}

/// The body of sqld's `POST …/{from}/fork/{to}`.
pub(super) fn fork(from: &str, to: &str, body: &[u8]) -> Result<ControlCall, Problem> {
    let object = budgets::object(body)?;
    for (key, value) in &object {
        match (key.as_str(), value) {
            (_, Value::Null) => {}
            ("timestamp", _) => return Err(no_past()),
            _ => return Err(budgets::unknown(key)),
        }
    }
    let (from, to) = (from.to_owned(), TenantName::new(to)?.as_str().to_owned());
    Ok(ControlCall::Fork { from, to, change: tenant::Change::default() })
}

/// Whether a seed says that the database is sent after its create.
pub(crate) fn is_sent(seed: &Value) -> bool {
    seed["type"] == "database_upload"
}

/// The database that a seed names, or the dump's; `None` for a seed that says nothing.
pub(crate) fn source(seed: &Value) -> Result<Option<String>, Problem> {
    let seed = match seed {
        Value::Null => return Ok(None),
        Value::Object(seed) if seed.is_empty() => return Ok(None),
        Value::Object(seed) => seed,
        _ => return Err(Problem::body("seed must be an object such as {\"type\":\"database\",…}")),
    };
    if said(seed, "timestamp") {
        return Err(no_past());
    }
    match seed.get("type") {
        Some(Value::String(kind)) if kind == "database" => {}
        Some(Value::String(kind)) if kind == "dump" => {
            let url = seed.get("url").and_then(Value::as_str);
            return url
                .ok_or_else(|| Problem::body("seed.url is missing: the dump_url of a dump"))
                .and_then(|url| dumps::at(url).map(Some));
        }
        Some(Value::String(kind)) if kind == "database_upload" => {
            let text = "a database cannot be seeded with this here: send the file itself to POST \
                        /v1/namespaces/{name}/upload, or name another database by \
                        {\"type\":\"database\",\"name\":…}";
            return Err(Problem::body(text));
        }
        _ => return Err(Problem::body("seed.type must be \"database\" or \"dump\"")),
    }
    let name = [seed.get("name"), seed.get("value")].into_iter().flatten().find_map(Value::as_str);
    let name = name.ok_or_else(|| Problem::body("seed.name is missing: the database to copy"))?;
    Ok(Some(TenantName::new(name)?.as_str().to_owned()))
}

fn said(object: &Map<String, Value>, name: &str) -> bool {
    object.get(name).is_some_and(|value| !value.is_null() && value != "")
}

fn no_past() -> Problem {
    Problem::body(
        "timestamp is not supported: a copy is of what the database has now, its past is not kept",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: &str) -> ControlCall {
        create("copy".to_owned(), body.as_bytes()).expect(body)
    }

    #[test]
    fn a_seed_makes_a_create_a_fork() {
        assert!(matches!(call("{}"), ControlCall::Create(..)));
        assert!(matches!(call(r#"{"seed":null}"#), ControlCall::Create(..)));
        for seed in [
            r#"{"type":"database","name":"shop"}"#,
            r#"{"type":"database","value":"shop","timestamp":null}"#,
            r#"{"type":"database","value":"Shop","timestamp":""}"#,
        ] {
            let body = format!(r#"{{"seed":{seed},"max_db_size":"1MiB"}}"#);
            let ControlCall::Fork { from, to, change } = call(&body) else { panic!("{body}") };
            assert_eq!((from.as_str(), to.as_str()), ("shop", "copy"));
            assert!(change.budget.is_some());
        }
    }

    #[test]
    fn a_dump_stands_where_the_body_says() {
        let url = format!("myriad:dumps/{}", "0f".repeat(16));
        for body in [
            format!(r#"{{"seed":{{"type":"dump","url":"{url}"}}}}"#),
            format!(r#"{{"dump_url":"{url}","allow_attach":false}}"#),
        ] {
            let ControlCall::Fork { from, to, change } = call(&body) else { panic!("{body}") };
            assert_eq!((from, to.as_str()), (format!("dump:{}", "0f".repeat(16)), "copy"));
            assert_eq!(change.group, Some(None), "directly under the machine, as every create");
        }
        let body = format!(r#"{{"dump_url":"{url}","group":"acme/web"}}"#);
        let ControlCall::Fork { change, .. } = call(&body) else { panic!("{body}") };
        assert!(change.group.flatten().is_some());
        let both = format!(r#"{{"dump_url":"{url}","seed":{{"type":"dump","url":"{url}"}}}}"#);
        for body in [both.as_str(), r#"{"dump_url":"file:/etc/passwd"}"#, r#"{"dump_url":7}"#] {
            let problem = create("copy".to_owned(), body.as_bytes()).expect_err(body);
            assert_eq!(problem.status, 400, "{body}");
        }
        assert!(matches!(call(r#"{"dump_url":null}"#), ControlCall::Create(..)));
    }

    #[test]
    fn what_is_not_kept_is_refused() {
        for seed in [
            r#""shop""#,
            r#"{"type":"database"}"#,
            r#"{"type":"database","name":"no name"}"#,
            r#"{"type":"dump","url":"http://example.com/x"}"#,
            r#"{"type":"database_upload"}"#,
            r#"{"name":"shop"}"#,
            r#"{"type":"database","name":"shop","timestamp":"2024-01-01T00:00:00"}"#,
        ] {
            let body = format!(r#"{{"seed":{seed}}}"#);
            let problem = create("copy".to_owned(), body.as_bytes()).expect_err(&body);
            assert_eq!(problem.status, 400, "{body}");
        }
        assert!(fork("a", "b", b"").is_ok());
        assert!(fork("a", "b", br#"{"timestamp":null}"#).is_ok());
        assert_eq!(fork("a", "b", br#"{"timestamp":"2024-01-01"}"#).expect_err("past").status, 400);
    }
}
