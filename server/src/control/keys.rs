//! Keys and tokens through the control API: what is asked for, and what is answered.
//!
//! K is `{"name":"ci","scope":S,"role":"read"|"write"|"admin","expires":"30d"|null,"priority":"background"}`,
//! of which `scope` and `role` must be there; S is `machine`, `organisation:acme`, `group:acme/web` or
//! `database:shop`. The secret is in the answer to its creation and nowhere else.
//!
//! A key may have `"budget":{"request_cost":0.5,"cost_per_second":100,"cost_burst":500}`, all in request
//! units: see `tenant::KeyBudget`.
//!
//! An expiration is `never`, or numbers with `w`, `d`, `h`, `m` and `s` after each other: `2w1d30m`.

use serde_json::{Value, json};
use tenant::access::Role;
use tenant::budget::Priority;
use tenant::{ControlCall, KeyBudget, KeyRow, KeyScope, NewKey, Secret, Signing};

use super::{AdminRequest, LIST_PAGE, budgets};
use crate::auth::key::Shown;
use crate::cost;
use crate::http::{Method, TenantName};
use crate::problem::Problem;

/// Most of a part of a key's budget, in parts of a million of a request unit: a thousand million units.
const COST_MAX: u64 = 1_000_000_000_000_000;

/// A key that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    name: Option<Box<str>>,
    scope: KeyScope,
    role: Role,
    priority: Option<Priority>,
    budget: KeyBudget,
    lifetime_s: Option<u64>,
}

impl Wanted {
    /// The key that may everything, which a first start makes.
    #[must_use]
    pub fn first() -> Wanted {
        Wanted {
            name: Some("made at the first start".into()),
            scope: KeyScope::Machine,
            role: Role::Admin,
            priority: None,
            budget: KeyBudget::default(),
            lifetime_s: None,
        }
    }

    /// A key of this name that may everything within its scope.
    #[must_use]
    pub fn admin(name: Box<str>, scope: KeyScope) -> Wanted {
        let name = Some(name);
        Wanted {
            name,
            scope,
            role: Role::Admin,
            priority: None,
            lifetime_s: None,
            budget: KeyBudget::default(),
        }
    }

    /// The call that makes it, with a key's public part and hash.
    #[must_use]
    pub fn call(self, shown: Shown) -> ControlCall {
        let Wanted { name, scope, role, priority, lifetime_s, budget } = self;
        let public = String::from_utf8_lossy(&shown.public).into_owned().into();
        let hash = shown.hash;
        let key = NewKey { public, hash, name, scope, role, priority, lifetime_s, budget };
        ControlCall::CreateKey(Box::new(key))
    }
}

/// A token that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWanted {
    /// What for.
    pub scope: KeyScope,
    /// Read, or write.
    pub role: Role,
    /// For how long; `None`: for ever.
    pub lifetime_s: Option<u64>,
}

impl TokenWanted {
    /// A token for `scope` with a query `expiration=…&authorization=full-access|read-only`, as Turso's
    /// Platform API has it.
    ///
    /// # Errors
    /// 400 for a value that cannot be meant.
    pub fn new(scope: KeyScope, query: &str) -> Result<TokenWanted, Problem> {
        let mut wanted = TokenWanted { scope, role: Role::Write, lifetime_s: None };
        for (key, value) in pairs(query) {
            match (key, value) {
                ("authorization", "full-access" | "") => wanted.role = Role::Write,
                ("authorization", "read-only") => wanted.role = Role::Read,
                ("authorization", _) => {
                    return Err(Problem::body("authorization must be full-access or read-only"));
                }
                ("expiration", "") => {}
                ("expiration", value) => wanted.lifetime_s = lifetime(value, "expiration")?,
                _ => {}
            }
        }
        Ok(wanted)
    }

    /// The call that it takes, with the secret that signs tokens if there is none yet.
    #[must_use]
    pub fn call(&self, candidate: Secret) -> ControlCall {
        ControlCall::Sign(self.scope.clone(), candidate)
    }
}

/// `/v1/keys`.
pub(super) fn route(method: Method, query: &str, body: &[u8]) -> Result<AdminRequest, Problem> {
    match method {
        Method::Get => list(query).map(AdminRequest::Call),
        Method::Post => wanted(body).map(AdminRequest::CreateKey),
        _ => Err(Problem::wrong_method("GET, HEAD, POST")),
    }
}

/// `/v1/keys/{public}`.
pub(super) fn revoke(method: Method, public: &str) -> Result<ControlCall, Problem> {
    match method {
        // The whole key will do too: who has to revoke it may have nothing else at hand.
        Method::Delete => {
            let public =
                public.strip_prefix("myr_").map_or(public, |rest| rest.get(..16).unwrap_or(rest));
            Ok(ControlCall::RevokeKey(public.into()))
        }
        _ => Err(Problem::wrong_method("DELETE")),
    }
}

/// `/v1/namespaces/{name}/tokens`.
pub(super) fn token(method: Method, name: &str, query: &str) -> Result<AdminRequest, Problem> {
    let name = TenantName::new(name)?.as_str().to_owned();
    match method {
        Method::Post => TokenWanted::new(KeyScope::Database(name), query).map(AdminRequest::Token),
        _ => Err(Problem::wrong_method("POST")),
    }
}

fn list(query: &str) -> Result<ControlCall, Problem> {
    let (mut of, mut limit, mut after) = (None, LIST_PAGE, 0);
    for (key, value) in pairs(query) {
        match key {
            "scope" => of = Some(scope(value)?),
            "limit" => {
                limit = match value.parse() {
                    Ok(limit @ 1..=tenant::limits::LIST_PAGE_MAX) => limit,
                    _ => return Err(Problem::body("limit must be a number from 1 to 1000")),
                };
            }
            "after" => {
                let text = "after must be the next of an earlier answer";
                after = value.parse().map_err(|_| Problem::body(text))?;
            }
            _ => {}
        }
    }
    Ok(ControlCall::Keys { scope: of, after, limit })
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn wanted(body: &[u8]) -> Result<Wanted, Problem> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::body(format!("the body is no JSON: {error}")))?;
    let Value::Object(members) = body else {
        return Err(Problem::body("the body must be an object with scope and role"));
    };
    let (mut name, mut of, mut role, mut priority, mut lifetime_s) = (None, None, None, None, None);
    let mut budget = KeyBudget::default();
    for (key, value) in &members {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.as_str(),
            Value::Object(parts) if key == "budget" => {
                budget = budget_of(parts)?;
                continue;
            }
            _ => return Err(Problem::body(format!("{key} must be a text"))),
        };
        match key.as_str() {
            "name" if is_name(text) => name = Some(text.into()),
            "name" => {
                return Err(Problem::body(
                    "name must be up to 128 bytes, none of them control characters",
                ));
            }
            "scope" => of = Some(scope(text)?),
            "role" => {
                let known = Role::of_name(text);
                role =
                    Some(known.ok_or_else(|| Problem::body("role must be read, write or admin"))?);
            }
            "expires" => lifetime_s = lifetime(text, "expires")?,
            "priority" => {
                let mut known = Priority::ALL.into_iter();
                let text = known.find(|priority| priority.name() == text).ok_or_else(|| {
                    Problem::body("priority must be background, normal or interactive")
                })?;
                priority = Some(text);
            }
            _ => return Err(Problem::body(format!("{key:?} is not part of a key"))),
        }
    }
    let scope = of.ok_or_else(|| {
        Problem::body("scope is missing: machine, organisation:o, group:o/g or database:d")
    })?;
    let role = role.ok_or_else(|| Problem::body("role is missing: read, write or admin"))?;
    Ok(Wanted { name, scope, role, priority, lifetime_s, budget })
}

/// What a key may be called: it is shown on terminals and pages.
pub fn is_name(text: &str) -> bool {
    text.len() <= tenant::limits::KEY_NAME_BYTES_MAX && !text.contains(char::is_control)
}

/// What a key may spend: numbers of request units, or texts of them.
fn budget_of(parts: &serde_json::Map<String, Value>) -> Result<KeyBudget, Problem> {
    let mut budget = KeyBudget::default();
    for (name, value) in parts {
        let part = match name.as_str() {
            "request_cost" => &mut budget.request_cost,
            "cost_per_second" => &mut budget.cost_per_second,
            "cost_burst" => &mut budget.cost_burst,
            _ => {
                return Err(Problem::body(format!(
                    "{name:?} is not part of a key's budget: request_cost, cost_per_second and \
                     cost_burst are"
                )));
            }
        };
        let wrong = || {
            Problem::body(format!(
                "{name} must be a number of request units above 0 with at most 6 decimals, such as 0.5"
            ))
        };
        let micro = match value {
            Value::Null => continue,
            Value::String(text) => cost::micro_units(text),
            Value::Number(number) => cost::micro_units(&number.to_string()),
            _ => None,
        };
        let fits = |micro: &u64| (1..=COST_MAX).contains(micro);
        *part = Some(micro.filter(fits).ok_or_else(wrong)?);
    }
    if budget.cost_burst.is_some() && budget.cost_per_second.is_none() {
        return Err(Problem::body("cost_burst means nothing without cost_per_second"));
    }
    Ok(budget)
}

/// A part of a budget, as a number of request units.
fn units(micro: Option<u64>) -> Value {
    micro.map_or(Value::Null, |micro| json!(micro as f64 / 1e6))
}

/// A scope by its words.
fn scope(text: &str) -> Result<KeyScope, Problem> {
    let wrong = || Problem::body("scope must be machine, organisation:o, group:o/g or database:d");
    match text.split_once(':').unwrap_or((text, "")) {
        ("machine", "") if text == "machine" => Ok(KeyScope::Machine),
        ("organisation", name) => Ok(KeyScope::Node(budgets::node(name, None)?)),
        ("group", path) => {
            let (organisation, group) = path.split_once('/').ok_or_else(wrong)?;
            Ok(KeyScope::Node(budgets::node(organisation, Some(group))?))
        }
        ("database", name) => Ok(KeyScope::Database(TenantName::new(name)?.as_str().to_owned())),
        _ => Err(wrong()),
    }
}

/// Seconds of `2w1d30m`; `None` for `never`.
fn lifetime(text: &str, what: &str) -> Result<Option<u64>, Problem> {
    if text == "never" {
        return Ok(None);
    }
    let wrong = || Problem::body(format!("{what} must be never, or a time like 2w1d30m"));
    let (mut seconds, mut number) = (0_u64, None);
    for character in text.chars() {
        let unit_s = match character {
            '0'..='9' => {
                let digit = u64::from(character as u8 - b'0');
                let grown = number.unwrap_or(0_u64).checked_mul(10);
                number = Some(grown.and_then(|n| n.checked_add(digit)).ok_or_else(wrong)?);
                continue;
            }
            'w' => 7 * 24 * 3600,
            'd' => 24 * 3600,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let count = number.take().ok_or_else(wrong)?;
        let added = count.checked_mul(unit_s).and_then(|more| seconds.checked_add(more));
        // A thousand years, so that no sum of times is ever too large.
        seconds = added.filter(|sum| *sum < 32_000_000_000).ok_or_else(wrong)?;
    }
    if number.is_some() || seconds == 0 { Err(wrong()) } else { Ok(Some(seconds)) }
}

fn scope_text(scope: &KeyScope) -> String {
    match scope {
        KeyScope::Machine => "machine".into(),
        KeyScope::Node(path) => match &path.group {
            None => format!("organisation:{}", path.organisation),
            Some(group) => format!("group:{}/{group}", path.organisation),
        },
        KeyScope::Database(name) => format!("database:{name}"),
    }
}

/// A key, without its secret.
#[must_use]
pub fn key_answer(row: &KeyRow) -> Value {
    json!({
        "id": row.id.0,
        "public": row.public,
        "name": row.name,
        "scope": row.scope_name.as_ref().map(scope_text),
        "role": row.role.name(),
        "priority": row.priority.map(Priority::name),
        "created_at": row.created_s,
        "expires_at": row.expires_s,
        "revoked_at": row.revoked_s,
        "budget": {
            "request_cost": units(row.budget.request_cost),
            "cost_per_second": units(row.budget.cost_per_second),
            "cost_burst": units(row.budget.cost_burst),
        },
    })
}

/// A key that was just made, with its secret.
#[must_use]
pub fn created_answer(row: &KeyRow, secret: &str) -> Vec<u8> {
    let mut answer = key_answer(row);
    answer["key"] = secret.into();
    answer.to_string().into_bytes()
}

pub(super) fn list_answer(rows: &[KeyRow], limit: usize) -> Value {
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| row.id.0);
    let keys: Vec<Value> = rows.iter().map(key_answer).collect();
    json!({ "keys": keys, "next": next })
}

/// A token.
#[must_use]
pub fn token_answer(jwt: &str) -> Vec<u8> {
    json!({ "jwt": jwt }).to_string().into_bytes()
}

/// Whether a token can be made for what was found.
#[must_use]
pub fn is_for_something(signing: &Signing) -> bool {
    signing.row.is_some() || !signing.path.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        for (text, seconds) in [
            ("never", Some(None)),
            ("1s", Some(Some(1))),
            ("2w1d30m", Some(Some(2 * 604_800 + 86_400 + 1_800))),
            ("30d", Some(Some(30 * 86_400))),
            ("90m30m", Some(Some(7_200))),
            ("", None),
            ("d", None),
            ("30", None),
            ("30d5", None),
            ("0d", None),
            ("-1d", None),
            ("1y", None),
            ("1 d", None),
            ("99999999999999999999d", None),
            ("999999999999w", None),
        ] {
            assert_eq!(lifetime(text, "expires").ok(), seconds, "{text}");
        }
    }

    #[test]
    fn scopes_and_bodies() {
        for text in ["machine", "organisation:acme", "group:acme/web", "database:shop"] {
            assert_eq!(scope_text(&scope(text).expect(text)), text);
        }
        for text in ["", "machines", "machine:x", "group:acme", "database:", "database:A B", "shop"]
        {
            assert!(scope(text).is_err(), "{text}");
        }
        let body = r#"{"name":"ci","scope":"database:shop","role":"read","expires":"1d"}"#;
        let wanted = wanted(body.as_bytes()).expect("it is good");
        assert_eq!((wanted.role, wanted.lifetime_s), (Role::Read, Some(86_400)));
        for body in [
            "",
            "[]",
            "{}",
            r#"{"scope":"machine"}"#,
            r#"{"role":"read"}"#,
            r#"{"name":"a\u0000b","scope":"machine","role":"read"}"#,
            r#"{"name":"\u001b[2J","scope":"machine","role":"read"}"#,
            r#"{"scope":"machine","role":"root"}"#,
            r#"{"scope":"machine","role":2}"#,
            r#"{"scope":"machine","role":"read","expires":"soon"}"#,
            r#"{"scope":"machine","role":"read","priority":"high"}"#,
            r#"{"scope":"machine","role":"read","budget":"1"}"#,
            r#"{"scope":"machine","role":"read","budget":{"cost":1}}"#,
            r#"{"scope":"machine","role":"read","budget":{"request_cost":0}}"#,
            r#"{"scope":"machine","role":"read","budget":{"request_cost":-1}}"#,
            r#"{"scope":"machine","role":"read","budget":{"request_cost":"0.0000001"}}"#,
            r#"{"scope":"machine","role":"read","budget":{"request_cost":1e300}}"#,
            r#"{"scope":"machine","role":"read","budget":{"cost_burst":1}}"#,
        ] {
            assert_eq!(super::wanted(body.as_bytes()).expect_err(body).status, 400);
        }
    }
}
