//! Uploads: which requests they are, what they ask for, and what is said when there is no database.
//!
//! ```text
//! POST /v1/namespaces/{name}/upload?group=organisation/group&plan=   a SQLite file, or SQL text
//! ```
//!
//! With `progress=lines` the answer is one JSON object a line (`application/x-ndjson`), at most one a second
//! once all of the body has come: `{"state":"checking","bytes":…}`, `{"state":"writing","rows":…}`, and at the end
//! what the answer would be without, the problem with its `status` if it is one.
//!
//! What the body is, its content type says: `application/vnd.sqlite3`, `application/x-sqlite3` and
//! `application/octet-stream` are a database file, `application/sql`, `application/x-sql` and `text/plain`
//! are SQL.

use serde_json::{Value, json};
use tenant::{
    Blame, Change, ControlCall, DatabaseRow, ImportError, ImportFormat, Imported, Progress,
};

use super::{budgets, database, percent};
use crate::http::{Head, Method, TenantName};
use crate::problem::Problem;

/// Whether a request on the admin address is an upload: its body is not held.
#[must_use]
pub fn is_upload(head: &Head<'_>) -> bool {
    let mut segments = head.path().split('/').filter(|part| !part.is_empty());
    segments.next() == Some("v1")
        && segments.next() == Some("namespaces")
        && segments.next().is_some()
        && segments.next() == Some("upload")
        && segments.next().is_none()
        && head.method() == Method::Post
}

/// The media type of one JSON object a line.
pub const LINES: &str = "application/x-ndjson";

/// Whether lines are wanted about how far it is.
#[must_use]
pub fn wants_lines(head: &Head<'_>) -> bool {
    let pairs = percent::pairs(head.query().unwrap_or("")).unwrap_or_default();
    pairs.iter().any(|(key, value)| key == "progress" && value == "lines")
}

/// How far it is, in a line.
#[must_use]
pub fn progress_line(progress: Progress) -> Vec<u8> {
    let value = match progress {
        Progress::Checking { bytes } => json!({ "state": "checking", "bytes": bytes }),
        Progress::Writing { rows } => json!({ "state": "writing", "rows": rows }),
    };
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// The last line, where there is no database: the problem, with the status that it would have had.
#[must_use]
pub fn problem_line(problem: &Problem) -> Vec<u8> {
    let mut line = Vec::new();
    problem.write_body(&mut line);
    let mut value: Value = serde_json::from_slice(&line).expect("a problem is JSON");
    value["status"] = problem.status.into();
    value.to_string().into_bytes()
}

/// What an upload asks for, by its head.
///
/// # Errors
/// 400 for a name that no database can have, 415 for a content type that is neither.
pub fn route(head: &Head<'_>) -> Result<ControlCall, Problem> {
    let name = head.path().split('/').filter(|part| !part.is_empty()).nth(2).unwrap_or("");
    let name = TenantName::new(name)?.as_str().to_owned();
    let (change, said) = change(head.query().unwrap_or(""))?;
    let format = match said {
        Some(format) => format,
        // Who says nothing sends a file: it says itself what it is.
        None => head.content_type().map_or(Ok(ImportFormat::File), format_of)?,
    };
    Ok(ControlCall::Import { name, change, format })
}

fn format_of(content_type: &str) -> Result<ImportFormat, Problem> {
    let kind = content_type.split(';').next().unwrap_or("").trim();
    match kind.to_ascii_lowercase().as_str() {
        "application/vnd.sqlite3" | "application/x-sqlite3" | "application/octet-stream" => {
            Ok(ImportFormat::File)
        }
        "application/sql" | "application/x-sql" | "text/plain" => Ok(ImportFormat::Sql),
        _ => Err(wrong_type()),
    }
}

/// Whether the body says that it is a database file.
pub(super) fn says_file(head: &Head<'_>) -> Result<bool, Problem> {
    let format = head.content_type().map(format_of).transpose()?;
    Ok(format == Some(ImportFormat::File))
}

/// A body of a type that is taken nowhere, or not here.
pub(super) fn wrong_type() -> Problem {
    Problem::new(
        415,
        "UPLOAD_TYPE",
        "send a SQLite file to /v1/namespaces/{name}/upload as application/vnd.sqlite3 (or \
         application/octet-stream), SQL text there or to a dumps route as application/sql (or text/plain), \
         and a form to a dumps route only",
    )
}

/// Where the new database is to stand, and what the body is if the query says so.
fn change(query: &str) -> Result<(Change, Option<ImportFormat>), Problem> {
    let mut body = serde_json::Map::new();
    let mut format = None;
    for (key, value) in percent::pairs(query)? {
        match key.as_str() {
            "group" | "plan" => {
                body.insert(key, Value::String(value));
            }
            "format" => {
                format = Some(match value.as_str() {
                    "sqlite" => ImportFormat::File,
                    "sql" => ImportFormat::Sql,
                    _ => return Err(Problem::body("format must be sqlite or sql")),
                });
            }
            _ => {}
        }
    }
    let change = budgets::create(Value::Object(body).to_string().as_bytes())?;
    Ok((change, format))
}

/// The answer to an upload that became a database.
#[must_use]
pub fn answer(row: &DatabaseRow, imported: &Imported) -> Value {
    let mut value = database(row);
    value["imported"] = self::imported(imported);
    value
}

/// What was made.
pub(crate) fn imported(imported: &Imported) -> Value {
    let Imported { bytes, tables, rows } = *imported;
    json!({ "bytes": bytes, "tables": tables, "rows": rows })
}

/// What is said when there is no database.
#[must_use]
pub fn problem(error: &ImportError) -> Problem {
    let (status, log) = match error.blame {
        Blame::Kind => (415, "an upload is of another kind"),
        Blame::Size => (413, "an upload is too large"),
        Blame::Content => (422, "an upload is damaged, or not allowed"),
        Blame::Budget => (429, "an upload does not fit into its database's budget"),
        Blame::Server => (503, "an upload could not be carried out"),
        Blame::Sender => (408, "an upload was too slow, or broke off"),
    };
    let problem = Problem::detailed(status, error.code, log, error.message.clone());
    if status == 503 { problem.retry_after(1) } else { problem }
}

/// A body that announces more than any upload may have.
#[must_use]
pub fn too_large(bytes: u64) -> Problem {
    let limit = tenant::limits::IMPORT_BYTES_MAX;
    let text = format!("the upload has {bytes} bytes, and an upload may have {limit}");
    let log = "an upload is too large";
    Problem { close: true, ..Problem::detailed(413, "UPLOAD_TOO_LARGE", log, text) }
}

/// A body that comes too slowly.
#[must_use]
pub fn too_slow() -> Problem {
    Problem::protocol(408, "UPLOAD_TOO_SLOW", "the upload came too slowly and was given up")
}

/// A body that did not come to its end.
#[must_use]
pub fn broken_off() -> Problem {
    Problem::protocol(400, "UPLOAD_BROKEN_OFF", "the upload broke off before its end")
}
