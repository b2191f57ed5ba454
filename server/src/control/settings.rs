//! Settings through the control API: what is asked for, and what is answered.
//!
//! A body is `{"delete_protection":bool,"block_reads":bool,"block_writes":bool,"block_reason":text|null,
//! "jwt_keys":[KEY,…]}`, of a group or organisation `"template":name|null` too, and what `life` reads, of which what is absent stays as it is; a KEY is an Ed25519 public key as PEM or in
//! base64url, and tokens that it has signed are believed for this database, group or organisation alone.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tenant::settings::{PublicKey, Settings, SettingsChange, Template};

use crate::auth::jwt;
use crate::http::TenantName;
use crate::problem::Problem;

/// Longest reason for a block, in bytes: it is in each answer that it refuses.
const REASON_BYTES_MAX: usize = 512;

/// The change that a body asks for.
///
/// # Errors
/// 400 for what cannot be meant.
pub(super) fn change(body: &[u8]) -> Result<SettingsChange, Problem> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::body(format!("the body is no JSON: {error}")))?;
    let Value::Object(members) = body else {
        return Err(Problem::body("the body must be an object of settings"));
    };
    let mut change = SettingsChange::default();
    for (name, value) in &members {
        let switch = || {
            let text = || Problem::body(format!("{name} must be true or false"));
            value.as_bool().ok_or_else(text)
        };
        match name.as_str() {
            "delete_protection" => change.delete_protection = Some(switch()?),
            "block_reads" => change.block_reads = Some(switch()?),
            "block_writes" => change.block_writes = Some(switch()?),
            "block_reason" => change.block_reason = Some(reason(value)?),
            "jwt_keys" => change.jwt_keys = Some(keys(value)?),
            "template" => change.template = Some(template(value)?),
            name if super::life::read(&mut change.life, name, value)? => {}
            _ => return Err(Problem::body(format!("{name:?} is no setting"))),
        }
    }
    Ok(change)
}

/// The database that others begin as copies of.
fn template(value: &Value) -> Result<Option<Template>, Problem> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) => {
            Ok(Some(Template { name: TenantName::new(name)?.as_str().into(), id: None }))
        }
        _ => Err(Problem::body("template must be null or the name of a database")),
    }
}

/// Why something is blocked.
///
/// # Errors
/// 400 for what is no text, or too long.
pub fn reason(value: &Value) -> Result<Option<Box<str>>, Problem> {
    match value {
        Value::Null => Ok(None),
        Value::String(text)
            if text.len() <= REASON_BYTES_MAX && !text.contains(char::is_control) =>
        {
            Ok(Some(text.as_str().into()))
        }
        _ => Err(Problem::body(
            "block_reason must be null or a text of up to 512 bytes without control characters",
        )),
    }
}

/// Public keys; null is none.
///
/// # Errors
/// 400 with what is wrong with one.
pub fn keys(value: &Value) -> Result<Vec<PublicKey>, Problem> {
    let texts = match value {
        Value::Null => &[][..],
        Value::Array(texts) => texts,
        _ => return Err(Problem::body("jwt_keys must be a list of public keys")),
    };
    let mut keys = Vec::new();
    for text in texts {
        let text = text.as_str().ok_or_else(|| Problem::body("a public key is a text"))?;
        let read = jwt::read_public_keys(text);
        keys.extend(read.map_err(|error| Problem::body(format!("jwt_keys: {error}")))?);
    }
    let most = tenant::limits::JWT_KEYS_MAX;
    if keys.len() > most {
        return Err(Problem::body(format!("jwt_keys: {most} keys at most")));
    }
    Ok(keys)
}

/// Settings, as [`change`] takes them; without the tokens' time, which is not set but moved on.
#[must_use]
pub(super) fn answer(settings: &Settings) -> Value {
    let keys: Vec<String> =
        settings.jwt_keys.iter().map(|key| URL_SAFE_NO_PAD.encode(key)).collect();
    let mut answer = json!({
        "delete_protection": settings.delete_protection,
        "block_reads": settings.block_reads,
        "block_writes": settings.block_writes,
        "block_reason": settings.block_reason,
        "jwt_keys": keys,
        "template": settings.template.as_ref().map(|template| &*template.name),
    });
    if let Value::Object(members) = &mut answer {
        super::life::answer(&settings.life, members);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let read = |body: &str| change(body.as_bytes());
        assert_eq!(read("{}"), Ok(SettingsChange::default()));
        let changed = read(r#"{"block_writes":true,"block_reason":null}"#).expect("it is good");
        assert_eq!((changed.block_writes, changed.block_reason), (Some(true), Some(None)));
        assert_eq!(read(r#"{"jwt_keys":null}"#).expect("it is good").jwt_keys, Some(Vec::new()));
        for body in [
            "",
            "[]",
            r#"{"colour":1}"#,
            r#"{"block_reads":1}"#,
            r#"{"block_reason":7}"#,
            r#"{"jwt_keys":"x"}"#,
            r#"{"jwt_keys":["x"]}"#,
            r#"{"template":7}"#,
            r#"{"template":"no name"}"#,
            r#"{"tokens_after_s":1}"#,
        ] {
            assert_eq!(read(body).expect_err(body).status, 400);
        }
        let long = format!("{{\"block_reason\":\"{}\"}}", "x".repeat(REASON_BYTES_MAX + 1));
        assert_eq!(read(&long).expect_err("it is long").status, 400);
    }
}
