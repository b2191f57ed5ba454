//! Fleet jobs through the control API: what is asked for, and what is answered.
//!
//! ```text
//! POST   /v1/jobs                               J    200 the job, running
//! GET    /v1/jobs?group=&limit=&cursor=              200 {"jobs":[…],"next":cursor|null}
//! GET    /v1/jobs/{job}                              200 the job, how far it is and how fast it goes
//! GET    /v1/jobs/{job}/results?status=&limit=&cursor=   200 {"results":[…],"next":cursor|null}
//! POST   /v1/jobs/{job}/pause, /resume, /cancel, /retry-failed   200 the job
//! DELETE /v1/jobs/{job}                              200 the job, which is not there any more
//! ```
//!
//! J is `{"sql": TEXT | "statements": [...], "group": "o/g" | "o", "names": [...] | "prefix": TEXT}` with the
//! options of `jobs/options.rs`; statements are those of `jobs/script.rs`. Without a group it is for all
//! databases of the machine.

use serde_json::{Map, Value, json};
use tenant::jobs::{
    JobCall, JobId, JobRefusal, JobReply, JobResult, JobRow, JobState, NewJob, Order, ResultStatus,
    Targets,
};
use tenant::limits::LIST_PAGE_MAX;
use tenant::{ControlCall, NodePath, RequestUnits};

use super::budgets;
use crate::http::{Method, TenantName};
use crate::jobs::options::Options;
use crate::jobs::{Live, script};
use crate::limits;
use crate::problem::Problem;

/// Jobs or results in a page unless the request says otherwise.
const PAGE: usize = 100;

/// A route of jobs: what stands behind `/v1/jobs`. HEAD was made a GET.
///
/// # Errors
/// As `control::route`.
pub(super) fn route(
    method: Method,
    rest: &[&str],
    query: &str,
    body: &[u8],
) -> Result<ControlCall, Problem> {
    let call = match (rest, method) {
        ([], Method::Post) => JobCall::Create(Box::new(new_job(body)?)),
        ([], Method::Get) => list(query)?,
        ([], _) => return Err(Problem::wrong_method("GET, HEAD, POST")),
        ([id], Method::Get) => JobCall::Show(job_id(id)?),
        ([id], Method::Delete) => JobCall::Order(job_id(id)?, Order::Delete),
        ([_], _) => return Err(Problem::wrong_method("GET, HEAD, DELETE")),
        ([id, "results"], Method::Get) => results(job_id(id)?, query)?,
        ([_, "results"], _) => return Err(Problem::wrong_method("GET, HEAD")),
        ([id, word], method) => {
            let order = match *word {
                "pause" => Order::Pause,
                "resume" => Order::Resume,
                "cancel" => Order::Cancel,
                "retry-failed" => Order::Retry,
                _ => return Err(Problem::not_found()),
            };
            if method != Method::Post {
                return Err(Problem::wrong_method("POST"));
            }
            JobCall::Order(job_id(id)?, order)
        }
        _ => return Err(Problem::not_found()),
    };
    Ok(ControlCall::Job(call))
}

fn job_id(text: &str) -> Result<JobId, Problem> {
    // One that is no number is not there either.
    let number = Some(text).filter(|text| text.len() <= 10).and_then(|text| text.parse().ok());
    number.map(JobId).ok_or_else(problem_missing)
}

/// There is no such job, for who asks.
pub(super) fn problem_missing() -> Problem {
    Problem::new(404, "JOB_NOT_FOUND", "there is no such job")
}

// ---- what is asked for ----

fn new_job(body: &[u8]) -> Result<NewJob, Problem> {
    let members = budgets::object(body)?;
    let (mut options, mut node, mut targets) = (Options::default(), None, Targets::All);
    let mut one_of = |found: Targets| match targets {
        Targets::All => {
            targets = found;
            Ok(())
        }
        _ => Err(Problem::body("give either names or prefix")),
    };
    for (name, value) in &members {
        match name.as_str() {
            "sql" | "statements" => {}
            "group" => node = group(value)?,
            "names" => one_of(names(value)?)?,
            "prefix" => one_of(Targets::Prefix(prefix(value)?))?,
            name if options.take(name, value)? => {}
            name => return Err(budgets::unknown(name)),
        }
    }
    let script = script::read_body(members.get("sql"), members.get("statements"))?;
    let options = Value::Object(options.to_json()).to_string().into();
    Ok(NewJob { node, targets, script, options })
}

/// `organisation/group`, or an organisation alone.
fn group(value: &Value) -> Result<Option<NodePath>, Problem> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => node(text).map(Some),
        _ => Err(Problem::body("group must be \"organisation/group\" or \"organisation\"")),
    }
}

fn node(text: &str) -> Result<NodePath, Problem> {
    match text.split_once('/') {
        Some((organisation, group)) => budgets::node(organisation, Some(group)),
        None => budgets::node(text, None),
    }
}

fn names(value: &Value) -> Result<Targets, Problem> {
    let most = limits::JOB_NAMES_MAX;
    let list = value.as_array().filter(|list| (1..=most).contains(&list.len()));
    let list = list
        .ok_or_else(|| Problem::body(format!("names must be a list of 1 to {most} databases")))?;
    let mut names: Vec<Box<str>> = Vec::with_capacity(list.len());
    for name in list {
        let name = name.as_str().ok_or_else(|| Problem::body("a name is a text"))?;
        names.push(TenantName::new(name)?.as_str().into());
    }
    // In order, and each once.
    names.sort_unstable();
    names.dedup();
    Ok(Targets::Names(names))
}

fn prefix(value: &Value) -> Result<Box<str>, Problem> {
    let good = |text: &&str| {
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        fits && (1..=limits::TENANT_NAME_BYTES_MAX).contains(&text.len())
    };
    let text = value.as_str().filter(good);
    let text = text.ok_or_else(|| Problem::body("prefix must be the beginning of names"))?;
    Ok(text.to_ascii_lowercase().into())
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn limit(value: &str) -> Result<usize, Problem> {
    match value.parse() {
        Ok(limit @ 1..=LIST_PAGE_MAX) => Ok(limit),
        _ => Err(Problem::body("limit must be a number from 1 to 1000")),
    }
}

fn cursor(value: &str) -> Result<u64, Problem> {
    let number = value.parse().ok().filter(|&number: &u64| number <= u64::from(u32::MAX));
    number.ok_or_else(|| Problem::body("cursor must be the next of an earlier answer"))
}

fn list(query: &str) -> Result<JobCall, Problem> {
    let (mut of, mut before, mut most) = (None, u64::from(u32::MAX), PAGE);
    for (key, value) in pairs(query) {
        match key {
            "group" => {
                let text = super::percent::decoded(value);
                let text = text.ok_or_else(|| Problem::body("the query is no UTF-8"))?;
                of = Some(node(&text)?);
            }
            "limit" => most = limit(value)?,
            "cursor" => before = cursor(value)?,
            _ => {}
        }
    }
    Ok(JobCall::List { node: of, before, limit: most })
}

fn results(id: JobId, query: &str) -> Result<JobCall, Problem> {
    let (mut status, mut from, mut most) = (None, 0, PAGE);
    for (key, value) in pairs(query) {
        match key {
            "status" => {
                let known = ResultStatus::ALL.into_iter().find(|known| known.name() == value);
                let text = "status must be done, failed or skipped";
                status = Some(known.ok_or_else(|| Problem::body(text))?);
            }
            "limit" => most = limit(value)?,
            "cursor" => from = cursor(value)?,
            _ => {}
        }
    }
    Ok(JobCall::Results { id, status, from, limit: most })
}

// ---- what is answered ----

/// The answer to a call about jobs. `live` tells what each one does now.
#[must_use]
pub(crate) fn answer(
    call: &JobCall,
    reply: &JobReply,
    live: impl Fn(JobId) -> Option<Live>,
) -> Value {
    match (call, reply) {
        (_, JobReply::Job(row)) => job(row, live(row.id)),
        (JobCall::List { limit, .. }, JobReply::Jobs(rows)) => {
            let next = (rows.len() == *limit).then(|| rows.last().map(|row| row.id.0.to_string()));
            let jobs: Vec<Value> = rows.iter().map(|row| job(row, live(row.id))).collect();
            json!({ "jobs": jobs, "next": next.flatten() })
        }
        (JobCall::Results { limit, .. }, JobReply::Results(rows)) => {
            let last = rows.last().map(|row| (row.number + 1).to_string());
            let next = last.filter(|_| rows.len() == *limit);
            let results: Vec<Value> = rows.iter().map(result).collect();
            json!({ "results": results, "next": next })
        }
        _ => json!({}),
    }
}

fn ru(micro: u64) -> Value {
    // As a number with all its digits, as in the headers.
    let text = RequestUnits(micro).to_string();
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

/// The word for where a job is.
fn state(row: &JobRow) -> &'static str {
    match (row.state, row.open) {
        (JobState::Running, _) => "running",
        (JobState::Paused, true) => "pausing",
        (JobState::Paused, false) => "paused",
        (JobState::Cancelled, true) => "cancelling",
        (JobState::Cancelled, false) => "cancelled",
        (JobState::Completed, _) => "completed",
        (JobState::Deleting, _) => "deleted",
    }
}

fn job(row: &JobRow, live: Option<Live>) -> Value {
    let tally = &row.tally;
    let left = row.total.saturating_sub(tally.done + tally.failed + tally.skipped);
    let live = live.unwrap_or_default();
    let per_second = live.per_second.map(|rate| (rate * 10.0).round() / 10.0);
    let seconds_left =
        per_second.filter(|&rate| rate > 0.0).map(|rate| (left as f64 / rate).ceil());
    let group = row.path.as_ref().map(|path| match &path.group {
        Some(group) => format!("{}/{group}", path.organisation),
        None => path.organisation.to_string(),
    });
    let mut answer = json!({
        "id": row.id.0,
        "state": state(row),
        "reason": row.reason,
        "group": group,
        "prefix": row.prefix,
        "named": row.named,
        "created_at": row.created_s,
        "ended_at": row.ended_s,
        "total": row.total,
        "done": tally.done,
        "failed": tally.failed,
        "skipped": tally.skipped,
        "left": left,
        "running": live.running,
        "retrying": row.retries && row.state == JobState::Running,
        "per_second": per_second,
        "seconds_left": seconds_left,
        "cost_ru": ru(tally.cost_micro),
    });
    let members: Map<String, Value> = Options::read_kept(&row.options).to_json();
    if let Value::Object(answer) = &mut answer {
        answer.extend(members);
        let script = row.script.as_deref().and_then(|text| serde_json::from_str(text).ok());
        if let Some(Value::Object(script)) = script {
            answer.extend(script);
        }
    }
    answer
}

fn result(row: &JobResult) -> Value {
    json!({
        "database": row.name,
        "database_id": row.database.0,
        "status": row.status.name(),
        "code": row.code,
        "message": row.message,
        "cost_ru": row.cost_micro.map(ru),
        "txid": row.txid,
        "at": row.at_s,
    })
}

/// Why a job is not made, or not told what to do.
#[must_use]
pub(super) fn problem(refusal: JobRefusal) -> Problem {
    match refusal {
        JobRefusal::TooMany(count) => Problem::detailed(
            409,
            "TOO_MANY_JOBS",
            "there are as many jobs as there may be",
            format!("there are {count} jobs, the limit: delete some that have ended"),
        ),
        JobRefusal::TooManyActive(count) => Problem::detailed(
            429,
            "TOO_MANY_ACTIVE_JOBS",
            "as many jobs run as may at a time",
            format!("{count} jobs run, the limit: wait for one of them to end, or pause one"),
        )
        .retry_after(10),
        JobRefusal::Ended => Problem::new(
            409,
            "JOB_ENDED",
            "the job has ended: retry-failed goes on with those that failed, and a new job with others",
        ),
        JobRefusal::Running => Problem::new(
            409,
            "JOB_RUNNING",
            "the job has not come to rest: pause or cancel it, and wait until it says so",
        ),
        JobRefusal::NothingFailed => {
            Problem::new(409, "NOTHING_FAILED", "none of the job's databases has failed")
        }
        JobRefusal::NoIds => {
            Problem::new(409, "TOO_MANY_JOBS", "there have been as many jobs as there may be")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<NewJob, Problem> {
        new_job(body.to_string().as_bytes())
    }

    #[test]
    fn bodies() {
        let job = read(json!({
            "sql": "ALTER TABLE a ADD b", "group": "acme/web", "names": ["B", "a", "b"], "canary": "5%"
        }));
        let job = job.expect("it is good");
        assert_eq!(job.targets, Targets::Names(vec!["a".into(), "b".into()]));
        let group = Some("web".into());
        assert_eq!(job.node, Some(NodePath { organisation: "acme".into(), group }));
        let all = read(json!({ "sql": "SELECT 1", "group": "acme" })).expect("it is good");
        assert_eq!(all.node, Some(NodePath { organisation: "acme".into(), group: None }));
        for wrong in [
            json!({}),
            json!({ "sql": "COMMIT" }),
            json!({ "sql": "SELECT 1", "names": [] }),
            json!({ "sql": "SELECT 1", "names": ["a"], "prefix": "a" }),
            json!({ "sql": "SELECT 1", "names": ["a b"] }),
            json!({ "sql": "SELECT 1", "prefix": "a%" }),
            json!({ "sql": "SELECT 1", "group": 7 }),
            json!({ "sql": "SELECT 1", "colour": 7 }),
            json!({ "sql": "SELECT 1", "concurrency": 7000 }),
        ] {
            assert_eq!(read(wrong.clone()).expect_err(&wrong.to_string()).status, 400);
        }
    }

    #[test]
    fn routes() {
        let route = |method, rest: &[&str], query| route(method, rest, query, b"");
        assert_eq!(
            route(Method::Post, &["7", "retry-failed"], ""),
            Ok(ControlCall::Job(JobCall::Order(JobId(7), Order::Retry)))
        );
        let failed = JobCall::Results {
            id: JobId(7),
            status: Some(ResultStatus::Failed),
            from: 9,
            limit: 2,
        };
        let query = "status=failed&limit=2&cursor=9";
        assert_eq!(route(Method::Get, &["7", "results"], query), Ok(ControlCall::Job(failed)));
        for (method, rest, status) in [
            (Method::Get, &["x"][..], 404),
            (Method::Get, &["7", "pause"], 405),
            (Method::Post, &["7", "nothing"], 404),
            (Method::Put, &["7"], 405),
            (Method::Get, &["7", "results", "x"], 404),
        ] {
            assert_eq!(route(method, rest, "").expect_err("it is wrong").status, status);
        }
        assert_eq!(
            route(Method::Get, &["7", "results"], "status=x").map(drop).unwrap_err().status,
            400
        );
    }
}
