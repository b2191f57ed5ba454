//! Getting the stream that a request runs on, and refusing the request while nothing has run.
//!
//! References to stored SQL are followed through the whole body first (what the stream keeps, plus
//! and minus what the body stores and closes before), because an unknown id is the whole request's
//! error. As in sqld the stream does not survive it: the baton is used up, and a refusal carries no
//! new one. A body that cannot be decoded is refused before its stream is touched.

use std::collections::BTreeMap;

use tenant::{Ceiling, JobHost, SqlStream, StreamError};

use super::decode::{SqlText, Statement, Step, StreamRequest};
use crate::baton::BatonKey;
use crate::problem::Problem;

/// The stream under `baton`, or a fresh one, on which `requests` refer to nothing unknown.
pub(super) fn acquire<H: JobHost>(
    host: &mut H,
    batons: &BatonKey,
    baton: Option<&str>,
    requests: &Requests<'_, '_>,
    ceiling: Option<Box<Ceiling>>,
) -> Result<H::Stream, Problem> {
    let Some(baton) = baton else {
        return open(host, requests, ceiling);
    };
    let claim = batons.open(host.tenant_id(), baton)?;
    let mut stream = match host.resume_stream(claim.ticket) {
        Ok(stream) => stream,
        Err(StreamError::Unknown) => return Err(claim.gone(host.now_ns())),
        Err(error) => return Err(refusal(error)),
    };
    if let Err(problem) = requests.check(|sql_id| stream.stored_sql(sql_id).is_some()) {
        host.close(stream);
        return Err(problem);
    }
    stream.begin_request(ceiling);
    Ok(stream)
}

/// A fresh stream, on which `requests` refer to nothing unknown.
pub(super) fn open<H: JobHost>(
    host: &mut H,
    requests: &Requests<'_, '_>,
    ceiling: Option<Box<Ceiling>>,
) -> Result<H::Stream, Problem> {
    requests.check(|_| false)?;
    let mut stream = host.open_stream().map_err(refusal)?;
    stream.begin_request(ceiling);
    Ok(stream)
}

/// What is going to run.
pub(super) enum Requests<'r, 'a> {
    Pipeline(&'r [StreamRequest<'a>]),
    Batch(&'r [Step<'a>]),
    Statement(&'r Statement<'a>),
}

impl Requests<'_, '_> {
    /// Follow all references to stored SQL, given what is stored at the start.
    pub fn check(&self, is_stored: impl Fn(i32) -> bool) -> Result<(), Problem> {
        // What the body has changed so far.
        let mut changed = BTreeMap::new();
        let mut ids = StoredIds { changed: &mut changed, is_stored: &is_stored };
        match self {
            Requests::Pipeline(requests) => requests.iter().try_for_each(|r| ids.request(r)),
            Requests::Batch(steps) => ids.steps(steps),
            Requests::Statement(statement) => ids.text(&statement.text),
        }
    }
}

struct StoredIds<'s, F> {
    changed: &'s mut BTreeMap<i32, bool>,
    is_stored: &'s F,
}

impl<F: Fn(i32) -> bool> StoredIds<'_, F> {
    fn request(&mut self, request: &StreamRequest<'_>) -> Result<(), Problem> {
        match request {
            StreamRequest::Execute(statement) => self.text(&statement.text),
            StreamRequest::Batch(steps) => self.steps(steps),
            StreamRequest::Sequence(text) | StreamRequest::Describe(text) => self.text(text),
            StreamRequest::StoreSql { sql_id, .. } => {
                if self.knows(*sql_id) {
                    return Err(Problem::detailed(
                        400,
                        "SQL_ID_IN_USE",
                        "a request stored SQL under an id in use",
                        format!("the stream keeps an SQL text with id {sql_id} already"),
                    ));
                }
                self.changed.insert(*sql_id, true);
                Ok(())
            }
            StreamRequest::CloseSql { sql_id } => {
                self.changed.insert(*sql_id, false);
                Ok(())
            }
            StreamRequest::Close | StreamRequest::GetAutocommit => Ok(()),
        }
    }

    fn steps(&self, steps: &[Step<'_>]) -> Result<(), Problem> {
        let mut texts = steps.iter().map(|step| &step.statement.text);
        texts.try_for_each(|text| self.text(text))
    }

    fn text(&self, text: &SqlText<'_>) -> Result<(), Problem> {
        match text {
            SqlText::Stored(sql_id) if !self.knows(*sql_id) => Err(Problem::detailed(
                400,
                "SQL_ID_UNKNOWN",
                "a request named SQL that is not stored",
                unknown_sql_id(*sql_id),
            )),
            _ => Ok(()),
        }
    }

    fn knows(&self, sql_id: i32) -> bool {
        let changed = self.changed.get(&sql_id).copied();
        changed.unwrap_or_else(|| (self.is_stored)(sql_id))
    }
}

/// Words for an id without a text.
pub(super) fn unknown_sql_id(sql_id: i32) -> String {
    format!("the stream keeps no SQL text with id {sql_id}")
}

/// Why there is no stream, for the client.
pub(crate) fn refusal(error: StreamError) -> Problem {
    match error {
        StreamError::Exceeded(exceeded) => Problem::exceeded(&exceeded),
        StreamError::MemoryFull => Problem::memory_full(),
        StreamError::Unavailable => {
            Problem::new(503, "DATABASE_UNAVAILABLE", "the database cannot be opened at the moment")
                .retry_after(1)
        }
        // Only resuming answers this, and it has words of its own.
        StreamError::Unknown => Problem::new(400, "BATON_INVALID", "Received an invalid baton"),
    }
}
