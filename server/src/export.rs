//! Databases as files: `GET /dump` and `/v1/export` on the address for SQL, `…/export` on the admin address.
//!
//! What is wrong before the first part has left is an answer with a status; what goes wrong later can only
//! be told by an answer that breaks off, without its last chunk. sqld has `/dump`.

use tenant::{Cost, ExportError, ExportFormat, JobContext, StreamError};

use crate::control::percent;
use crate::hrana::{self, Reply};
use crate::problem::Problem;

/// Content type of an answer in this format.
#[must_use]
pub fn content_type(format: ExportFormat) -> &'static str {
    match format {
        ExportFormat::File => "application/vnd.sqlite3",
        ExportFormat::Sql => "application/sql",
    }
}

/// The format that a query asks for: a file, unless it says otherwise.
///
/// # Errors
/// 400.
pub fn format(query: &str) -> Result<ExportFormat, Problem> {
    let mut format = ExportFormat::File;
    for (key, value) in percent::pairs(query)? {
        match (key.as_str(), value.as_str()) {
            ("format", "sqlite") => format = ExportFormat::File,
            ("format", "sql") => format = ExportFormat::Sql,
            ("format", _) => return Err(Problem::body("format must be sqlite or sql")),
            _ => {}
        }
    }
    Ok(format)
}

/// Write the database of the running job; `out` is an empty buffer.
pub fn run(host: &mut JobContext<'_>, format: ExportFormat, out: Vec<u8>) -> Reply {
    match host.export(format, out) {
        Ok(rest) => Reply::ok(content_type(format), rest, Cost::default()),
        Err(error) => Reply::refused(&problem(&error), Vec::new()),
    }
}

fn problem(error: &ExportError) -> Problem {
    match error {
        ExportError::Blocked(reason) => Problem::detailed(
            403,
            "BLOCKED",
            "reading is blocked",
            match &**reason {
                "" => "Operation was blocked".to_owned(),
                reason => format!("Operation was blocked: {reason}"),
            },
        ),
        ExportError::Stream(StreamError::Unknown) => unreachable!("a new one was asked for"),
        ExportError::Stream(error) => hrana::stream_refusal(*error),
        ExportError::Gone | ExportError::Interrupted => Problem::new(
            503,
            "UNAVAILABLE",
            "the server is stopping, or the database is being closed or dropped; try again",
        )
        .retry_after(1),
        ExportError::Overtaken => Problem::new(
            503,
            "COPY_OVERTAKEN",
            "so much is being written that what was to be exported could not be kept any longer; try \
             again when less is written",
        )
        .retry_after(10),
        ExportError::NoMemory => Problem::new(
            503,
            "MEMORY_FULL",
            "memory for the export is used up: the database's, its group's or the server's; try again",
        )
        .retry_after(1),
        ExportError::Failed(text) => Problem::detailed(
            500,
            "EXPORT_FAILED",
            "a database could not be exported",
            format!("the database could not be read: {text}"),
        ),
    }
}
