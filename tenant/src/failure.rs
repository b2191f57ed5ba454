//! From SQLite's result codes to the words that libSQL clients expect.

use storage::ledger::{Kind, Level, Refused};
use storage::meter::{Exceeded, PART_NAMES};
use storage::sometimes;
use storage::sqlite::{SqliteError, codes};

use crate::budget;
use crate::statement::{StatementError, StreamError};

/// Names of the primary result codes; plain `SQLITE_ERROR` is `SQLITE_UNKNOWN`, as libSQL has it.
pub(crate) fn name_of(primary: i32) -> &'static str {
    match primary {
        codes::SQLITE_INTERNAL => "SQLITE_INTERNAL",
        codes::SQLITE_PERM => "SQLITE_PERM",
        codes::SQLITE_ABORT => "SQLITE_ABORT",
        codes::SQLITE_BUSY => "SQLITE_BUSY",
        codes::SQLITE_LOCKED => "SQLITE_LOCKED",
        codes::SQLITE_NOMEM => "SQLITE_NOMEM",
        codes::SQLITE_READONLY => "SQLITE_READONLY",
        codes::SQLITE_INTERRUPT => "SQLITE_INTERRUPT",
        codes::SQLITE_IOERR => "SQLITE_IOERR",
        codes::SQLITE_CORRUPT => "SQLITE_CORRUPT",
        codes::SQLITE_NOTFOUND => "SQLITE_NOTFOUND",
        codes::SQLITE_FULL => "SQLITE_FULL",
        codes::SQLITE_CANTOPEN => "SQLITE_CANTOPEN",
        codes::SQLITE_PROTOCOL => "SQLITE_PROTOCOL",
        codes::SQLITE_SCHEMA => "SQLITE_SCHEMA",
        codes::SQLITE_TOOBIG => "SQLITE_TOOBIG",
        codes::SQLITE_CONSTRAINT => "SQLITE_CONSTRAINT",
        codes::SQLITE_MISMATCH => "SQLITE_MISMATCH",
        codes::SQLITE_MISUSE => "SQLITE_MISUSE",
        codes::SQLITE_NOLFS => "SQLITE_NOLFS",
        codes::SQLITE_AUTH => "SQLITE_AUTH",
        codes::SQLITE_RANGE => "SQLITE_RANGE",
        codes::SQLITE_NOTADB => "SQLITE_NOTADB",
        _ => "SQLITE_UNKNOWN",
    }
}

/// The end of a message about a statement that ended its transaction.
pub(crate) const ROLLED_BACK: &str = "; the transaction was rolled back";

/// What was known when a statement failed, beside SQLite's own words.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// What a budget refused last while the statement ran: memory, or temporary files.
    pub refused: Option<Refused>,
    /// A transaction was open before and is not any more.
    pub rolled_back: bool,
    /// How long its request may run, in nanoseconds; 0 where that is not known.
    pub request_ns: u64,
    /// A transaction is open.
    pub in_transaction: bool,
    /// The limit of its request's cost at which it was stopped.
    pub cost: Option<Exceeded>,
}

/// SQLite's words for who waited for the writer lock in vain.
const LOCKED: &str = "database is locked";

/// Who is beyond the limit of the request's cost.
const COST_LIMIT: &str = "COST_LIMIT";

/// A statement that does not begin, because the request is beyond its limit already.
#[must_use]
pub fn cost_refused(exceeded: &Exceeded) -> StatementError {
    sometimes!("a statement does not begin because of its request's cost");
    StatementError::new(COST_LIMIT, format!("{}; the statement did not run", limit_text(exceeded)))
}

fn limit_text(exceeded: &Exceeded) -> String {
    let &Exceeded { part, used, limit } = exceeded;
    match part {
        Some(part) => {
            let name = PART_NAMES[part];
            format!("the request has a limit of {name}={limit}, and is at {name}={used}")
        }
        None => {
            let (limit, used) = (RequestUnits(limit), RequestUnits(used));
            format!("the request has a limit of ru={limit}, and is at ru={used}")
        }
    }
}

/// Request units, from parts of a million, as a decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestUnits(pub u64);

impl std::fmt::Display for RequestUnits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// The statement's error, as a client reads it.
#[must_use]
pub fn statement_error(error: &SqliteError, circumstances: Circumstances) -> StatementError {
    let text = &error.message;
    let primary = error.primary();
    if let Some(exceeded) = &circumstances.cost
        && matches!(primary, codes::SQLITE_INTERRUPT | codes::SQLITE_FULL)
    {
        sometimes!("a statement is stopped because of its request's cost");
        let transaction = match (circumstances.rolled_back, circumstances.in_transaction) {
            (true, _) => "; the transaction was rolled back",
            (_, true) => "; the transaction is still open",
            _ => "",
        };
        let limit = limit_text(exceeded);
        let message = format!("{limit}; the statement was stopped and has no effect{transaction}");
        return StatementError::new(COST_LIMIT, message);
    }
    let mut message = match primary {
        codes::SQLITE_ERROR if is_syntax(text) => {
            return StatementError::new(
                "SQL_PARSE_ERROR",
                format!("SQL string could not be parsed: {text}"),
            );
        }
        codes::SQLITE_ERROR if error.offset.is_some() => {
            let offset = error.offset.unwrap_or_default();
            return StatementError::new(
                "SQL_INPUT_ERROR",
                format!("SQL input error: {text} (at offset {offset})"),
            );
        }
        codes::SQLITE_NOMEM => match circumstances.refused.filter(|r| r.kind != Kind::Temporary) {
            // How much neighbours hold is not a tenant's to know.
            Some(refused) if refused.level == Level::Machine => {
                "SQLite error: out of memory: the server's memory for databases is used up; try again"
                    .to_owned()
            }
            Some(refused) => {
                sometimes!("a statement exceeds its tenant's memory");
                let (level, limit, held) = (refused.level.name(), refused.limit, refused.held);
                let missing = refused.missing();
                format!(
                    "SQLite error: out of memory: the statement needs {missing} bytes more than \
                     the {level}'s memory budget of {limit} bytes ({held} in use)"
                )
            }
            // Statements run under a time; they are compiled without.
            None if circumstances.request_ns > 0 => {
                "SQLite error: out of memory: it needs more than 32 MiB at once".to_owned()
            }
            None => "SQLite error: the statement is too complex: it compiles to too many steps"
                .to_owned(),
        },
        codes::SQLITE_AUTH => format!(
            "SQLite error: {text}: ATTACH, temporary tables, VACUUM, some pragmas and some \
             functions are not available"
        ),
        codes::SQLITE_INTERRUPT => format!(
            "SQLite error: {text}: the request ran longer than its budget of {} ms (request_ns), its \
             client has gone, or the database was dropped",
            match circumstances.request_ns {
                0 => crate::limits::REQUEST_NS,
                known => known,
            } / 1_000_000
        ),
        codes::SQLITE_BUSY if error.code == codes::SQLITE_BUSY_SNAPSHOT => format!(
            "SQLite error: {text}: another transaction has written since this one began to read; roll \
             back and begin it anew, with BEGIN IMMEDIATE if it is going to write"
        ),
        codes::SQLITE_BUSY if text == LOCKED => format!(
            "SQLite error: {text}: another transaction kept the writer lock for {} s; try again",
            crate::limits::WRITER_WAIT_NS / 1_000_000_000
        ),
        codes::SQLITE_FULL if is_temporary(circumstances.refused) => {
            let refused = circumstances.refused.expect("it is temporary");
            format!(
                "SQLite error: {text}: the statement needs {} bytes more of temporary files than \
                 the database's budget of {} bytes ({} in use); smaller transactions may pass",
                refused.missing(),
                refused.limit,
                refused.held
            )
        }
        codes::SQLITE_FULL => format!(
            "SQLite error: {text}: the transaction or its temporary data is too large, or the \
             commit log has no room; smaller transactions may pass"
        ),
        _ => format!("SQLite error: {text}"),
    };
    if circumstances.rolled_back {
        message.push_str(ROLLED_BACK);
    }
    StatementError::new(name_of(primary), message)
}

/// What a response is told whose bytes its database's memory has no room for.
#[must_use]
pub fn response_refused() -> StatementError {
    sometimes!("a response exceeds its tenant's memory");
    memory_refused("the response", "; ask for fewer rows, or read them by a cursor")
}

/// What a request is told that its database's memory has no room for before it has run.
#[must_use]
pub fn request_refused() -> StreamError {
    match storage::ledger::last_refusal(storage::fiber::account()) {
        Some(refused) => memory_exceeded(&refused),
        None => StreamError::MemoryFull,
    }
}

/// Whose memory does not suffice.
pub(crate) fn memory_exceeded(refused: &Refused) -> StreamError {
    match refused.level {
        Level::Machine => StreamError::MemoryFull,
        _ => StreamError::Exceeded(budget::Exceeded {
            part: budget::Part::MemoryBytes,
            limit: refused.limit,
            used: refused.held,
            wanted: refused.wanted,
        }),
    }
}

/// What is told of bytes that are not SQLite's, and that its database's memory has no room for.
pub(crate) fn memory_refused(what: &str, advice: &str) -> StatementError {
    let refused = storage::ledger::last_refusal(storage::fiber::account());
    let message = match refused {
        // How much neighbours hold is not a tenant's to know.
        Some(refused) if refused.level != Level::Machine => format!(
            "out of memory: {what} needs {} bytes more than the {}'s memory budget of {} bytes \
             (memory_bytes; {} in use){advice}",
            refused.missing(),
            refused.level.name(),
            refused.limit,
            refused.held
        ),
        _ => "out of memory: the server's memory for databases is used up; try again".to_owned(),
    };
    StatementError::new(name_of(codes::SQLITE_NOMEM), message)
}

fn is_temporary(refused: Option<Refused>) -> bool {
    refused.is_some_and(|refused| refused.kind == Kind::Temporary)
}

fn is_syntax(text: &str) -> bool {
    text.ends_with("syntax error")
        || text == "incomplete input"
        || text.starts_with("unrecognized token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let error =
            |code, message: &str, offset| SqliteError { code, message: message.into(), offset };
        for (error, code, message) in [
            (
                error(codes::SQLITE_BUSY, LOCKED, None),
                "SQLITE_BUSY",
                "SQLite error: database is locked: another transaction kept the writer lock for 15 s; \
                 try again",
            ),
            (
                error(codes::SQLITE_BUSY_SNAPSHOT, LOCKED, None),
                "SQLITE_BUSY",
                "SQLite error: database is locked: another transaction has written since this one \
                 began to read; roll back and begin it anew, with BEGIN IMMEDIATE if it is going to \
                 write",
            ),
            (
                error(codes::SQLITE_ERROR, "near \"SELEC\": syntax error", Some(0)),
                "SQL_PARSE_ERROR",
                "SQL string could not be parsed: near \"SELEC\": syntax error",
            ),
            (
                error(codes::SQLITE_ERROR, "no such column: nope", Some(7)),
                "SQL_INPUT_ERROR",
                "SQL input error: no such column: nope (at offset 7)",
            ),
            (
                error(codes::SQLITE_ERROR, "no such table: nope", None),
                "SQLITE_UNKNOWN",
                "SQLite error: no such table: nope",
            ),
            (
                error(codes::SQLITE_CONSTRAINT_UNIQUE, "UNIQUE constraint failed: t.a", None),
                "SQLITE_CONSTRAINT",
                "SQLite error: UNIQUE constraint failed: t.a",
            ),
        ] {
            let got = statement_error(&error, Circumstances::default());
            assert_eq!((got.code, got.message.as_str()), (code, message));
        }
    }
}
