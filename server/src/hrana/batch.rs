//! A batch: steps in order, each under its condition, results and errors in two lists.
//!
//! A failing step does not stop the batch; conditions do. An SQL text that does not parse is its
//! step's error like any other (sqld refuses the whole batch; clients take both).

use tenant::{Gone, JobHost, SqlStream, StatementError};

use super::condition::StepOutcome;
use super::decode::Step;
use super::encode;
use super::output::Output;
use super::statement;
use crate::limits::BATCH_ERROR_BYTES_MAX;

/// Append `{"step_results":[…],"step_errors":[…]}`.
pub(super) fn run<H: JobHost>(
    host: &mut H,
    stream: &mut H::Stream,
    steps: &[Step<'_>],
    copy: &mut String,
    output: &mut Output,
) -> Result<(), Gone> {
    let mut outcomes: Vec<StepOutcome> = Vec::with_capacity(steps.len());
    let mut errors = Errors::default();
    output.push("{\"step_results\":[");
    for step in steps {
        if !outcomes.is_empty() {
            output.push(",");
        }
        let outcome = match step_runs(stream, step, &outcomes) {
            false => Ok(StepOutcome::Skipped),
            true => statement::execute(stream, &step.statement, copy, output)
                .map(|()| StepOutcome::Succeeded),
        };
        if outcome != Ok(StepOutcome::Succeeded) {
            output.push("null");
        }
        errors.push(outcome.as_ref().err());
        outcomes.push(outcome.unwrap_or(StepOutcome::Failed));
        output.flush_if_full(host)?;
    }
    assert_eq!(outcomes.len(), steps.len());
    output.push("],\"step_errors\":[");
    output.bytes.extend_from_slice(&errors.bytes);
    output.push("]}");
    Ok(())
}

/// The step's condition holds, or it has none.
pub(super) fn step_runs<S: SqlStream>(
    stream: &S,
    step: &Step<'_>,
    outcomes: &[StepOutcome],
) -> bool {
    let condition = step.condition.as_ref();
    condition.is_none_or(|condition| condition.holds(outcomes, stream.is_autocommit()))
}

/// The second list, encoded while the first one is written.
#[derive(Default)]
struct Errors {
    bytes: Vec<u8>,
    message_bytes: usize,
}

impl Errors {
    fn push(&mut self, error: Option<&StatementError>) {
        if !self.bytes.is_empty() {
            self.bytes.push(b',');
        }
        let Some(error) = error else {
            self.bytes.extend_from_slice(b"null");
            return;
        };
        if self.message_bytes > BATCH_ERROR_BYTES_MAX {
            let message = "too many errors in one batch; this one's message was left out";
            encode::error(&mut self.bytes, &StatementError::new(error.code, message));
            return;
        }
        let start = self.bytes.len();
        encode::error(&mut self.bytes, error);
        self.message_bytes += self.bytes.len() - start;
    }
}
