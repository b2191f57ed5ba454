//! Creates and drops of many: what is asked for, and the lines of the answer.
//!
//! ```text
//! POST /v1/bulk/create  {"names":[…]} or {"prefix":"ctx-","count":10000}, and what a create may have
//! POST /v1/bulk/drop    {"names":[…]} or {"prefix":"ctx-","count":10000}
//! ```
//!
//! A prefix and a count are the names `ctx-0`, `ctx-1` and so on. The answer is one JSON object a
//! line (`application/x-ndjson`): how far it is, `{"done":64,"of":10000,"failed":[…]}`, and at the end
//! `{"finished":true,"done":10000,"of":10000,"succeeded":9999,"failed":[{"name":…,"code":…}]}`, which
//! for drops has the sum of all receipts. An answer that ends without it was broken off; with the same
//! `idempotency-key` the call goes on where it was.

use serde_json::{Map, Value, json};
use tenant::{Bulk, BulkProgress, BulkWork, ControlCall};

use super::{budgets, receipt};
use crate::http::{Head, Method, TenantName};
use crate::problem::Problem;

/// Longest key of a caller, in bytes: a UUID or two.
const KEY_BYTES_MAX: usize = 128;

/// What a request asks for.
///
/// # Errors
/// 400 for what cannot be meant, 405.
pub(super) fn route(
    head: &Head<'_>,
    method: Method,
    what: &str,
    body: &[u8],
) -> Result<ControlCall, Problem> {
    if method != Method::Post {
        return Err(Problem::wrong_method("POST"));
    }
    let mut object = budgets::object(body)?;
    let names = names(&mut object)?;
    let work = match what {
        "create" => {
            let rest = Value::Object(object).to_string();
            BulkWork::Create(Box::new(budgets::create(rest.as_bytes())?))
        }
        _ => match object.keys().next() {
            Some(key) => return Err(budgets::unknown(key)),
            None => BulkWork::Drop,
        },
    };
    let key = head.idempotency_key().map(|key| match key.len() {
        1..=KEY_BYTES_MAX => Ok(key.into()),
        _ => Err(Problem::body("idempotency-key must have 1 to 128 characters")),
    });
    let mut digest = blake3::Hasher::new();
    digest.update(what.as_bytes());
    digest.update(&[0]);
    digest.update(body);
    let digest = *digest.finalize().as_bytes();
    Ok(ControlCall::Bulk(Box::new(Bulk { work, names, key: key.transpose()?, digest })))
}

fn names(object: &mut Map<String, Value>) -> Result<Vec<Box<str>>, Problem> {
    let most = tenant::limits::BULK_MAX;
    let wanted = || {
        Problem::body(format!(
            "say \"names\", a list of 1 to {most} names, or \"prefix\" and \"count\", up to {most}"
        ))
    };
    let found = (object.remove("names"), object.remove("prefix"), object.remove("count"));
    let texts: Vec<String> = match found {
        (Some(Value::Array(names)), None, None) => {
            let text = |name: Value| match name {
                Value::String(name) => Ok(name),
                _ => Err(wanted()),
            };
            names.into_iter().map(text).collect::<Result<_, _>>()?
        }
        (None, Some(Value::String(prefix)), Some(Value::Number(count))) => {
            let count = count.as_u64().filter(|&count| count <= most as u64).ok_or_else(wanted)?;
            (0..count).map(|number| format!("{prefix}{number}")).collect()
        }
        _ => return Err(wanted()),
    };
    if texts.is_empty() || texts.len() > most {
        return Err(wanted());
    }
    let name = |text: &String| Ok(TenantName::new(text)?.as_str().into());
    texts.iter().map(name).collect()
}

fn failed(progress: &BulkProgress) -> Vec<Value> {
    progress.failed.iter().map(|(name, code)| json!({ "name": name, "code": code })).collect()
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// A line of how far it is.
#[must_use]
pub(crate) fn progress_line(progress: &BulkProgress) -> Vec<u8> {
    let (done, of) = (progress.done, progress.of);
    line(&json!({ "done": done, "of": of, "failed": failed(progress) }))
}

/// The last line.
#[must_use]
pub(crate) fn last_line(progress: &BulkProgress) -> Vec<u8> {
    let mut last = json!({
        "finished": true,
        "done": progress.done,
        "of": progress.of,
        "succeeded": progress.done - progress.failures,
        "failed": failed(progress),
    });
    if let Some(sum) = &progress.receipt {
        last["receipt"] = receipt::answer(sum);
    }
    line(&last)
}
