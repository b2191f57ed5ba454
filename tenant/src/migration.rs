//! A migration: statements of a fleet's job, run on one database in one transaction, exactly once.
//!
//! The transaction leaves the job's mark in page 1 of the database (`storage/src/sqlite/mark.rs`). So the
//! database itself knows whether the job has run on it, whatever a crash has left of the catalogue, and
//! every run begins by asking it. A mark takes the place of the one before: who runs jobs sees to it that
//! no other one begins on a database before what came of this one is known for good.
//!
//! Owns what happens between BEGIN and COMMIT. Leaves to the server which databases, when, how often and
//! what is kept of it.

use storage::fiber::with_volume;
use storage::sometimes;

pub use storage::page::Mark;

use crate::engine::JobContext;
use crate::session::{NoRows, Session};
use crate::statement::{
    Arguments, Cost, JobHost, SqlStream, StatementError, StreamError, ValueRef,
};

/// Statements, and how to run them.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// What its transaction leaves; not zeros.
    pub mark: Mark,
    /// In order.
    pub steps: Vec<Step>,
    /// Whether foreign keys are enforced statement by statement. If not, they are off while it runs, and
    /// looked at as a whole before the commit: tables can be built anew.
    pub foreign_keys: bool,
}

/// One part of a script.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Statements with `;` between them.
    Sequence(Box<str>),
    /// One statement, with arguments.
    Statement(Box<str>, Arguments<'static>),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Run the script, unless that was done.
    Run,
    /// Look whether it was done.
    Look,
}

/// How a migration of one database ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MigrationEnd {
    /// It was committed just now.
    Done {
        /// The database's transaction.
        txid: u64,
        /// What it cost.
        cost: Cost,
    },
    /// It was committed before.
    DoneBefore,
    /// It was not, and was only to be looked for.
    NotDone,
    /// It was rolled back.
    Failed {
        /// Why.
        error: StatementError,
        /// What it cost.
        cost: Cost,
    },
    /// It has not begun: somebody else writes, or there is no room for a connection just now.
    Busy(StatementError),
}

/// A statement of a script begins or ends a transaction.
pub(crate) fn transaction_refused() -> StatementError {
    let text = "a job runs in one transaction of its own for each database: leave out BEGIN, COMMIT, \
                ROLLBACK, SAVEPOINT and RELEASE";
    StatementError::new("TRANSACTION_NOT_ALLOWED", text)
}

/// Carry out an errand on the database of this job's fiber.
#[must_use]
pub fn migrate(host: &mut JobContext<'_>, script: &Script, errand: Errand) -> MigrationEnd {
    let mut session = match host.open_stream() {
        Ok(session) => session,
        Err(error) => return MigrationEnd::Busy(no_stream(&error)),
    };
    session.begin_request(None);
    if errand == Errand::Look {
        // Whatever is blocked meanwhile, it changes nothing.
        session.denials = None;
    }
    let end = on_session(&mut session, script, errand);
    // Rolls back what is open, and closes a connection that has left a mark.
    host.close(session);
    end
}

fn no_stream(error: &StreamError) -> StatementError {
    let (code, text) = match error {
        StreamError::Exceeded(exceeded) => {
            let part = exceeded.part.name();
            return StatementError::new(
                "BUDGET_EXCEEDED",
                format!("the database's budget has no room for a stream: {part}"),
            );
        }
        StreamError::MemoryFull => ("MEMORY_FULL", "the server's memory for databases is used up"),
        StreamError::Unknown | StreamError::Unavailable => {
            ("UNAVAILABLE", "the database is being closed or dropped")
        }
    };
    StatementError::new(code, text)
}

fn on_session(session: &mut Session, script: &Script, errand: Errand) -> MigrationEnd {
    let begun = begin(session, script);
    if let Err(error) = begun {
        return match error.code {
            "SQLITE_BUSY" => MigrationEnd::Busy(error),
            _ => MigrationEnd::Failed { error, cost: session.request_cost() },
        };
    }
    let mark = session.pooled.connection().mark();
    match mark {
        Err(error) => {
            let error = session.pooled.failure(&error);
            return MigrationEnd::Failed { error, cost: session.request_cost() };
        }
        Ok(mark) if mark == script.mark => {
            sometimes!("a job finds its mark in a database");
            return MigrationEnd::DoneBefore;
        }
        Ok(_) if errand == Errand::Look => return MigrationEnd::NotDone,
        Ok(_) => {}
    }
    session.keeps_transaction = true;
    let ran = run(session, script);
    session.keeps_transaction = false;
    let ended = ran.and_then(|()| execute(session, "COMMIT"));
    let cost = session.request_cost();
    match ended {
        Ok(()) => {
            let txid = with_volume(|volume| volume.marked_txid());
            MigrationEnd::Done { txid: txid.expect("it was committed with its mark"), cost }
        }
        Err(error) => {
            sometimes!("a job fails on a database");
            MigrationEnd::Failed { error, cost }
        }
    }
}

fn begin(session: &mut Session, script: &Script) -> Result<(), StatementError> {
    if !script.foreign_keys {
        execute(session, "PRAGMA foreign_keys=OFF")?;
    }
    execute(session, "BEGIN IMMEDIATE")
}

fn run(session: &mut Session, script: &Script) -> Result<(), StatementError> {
    let version = session.pooled.query_integer("PRAGMA user_version");
    let marked = version
        .and_then(|version| session.pooled.connection().set_mark(script.mark, version as i32));
    marked.map_err(|error| session.pooled.failure(&error))?;
    for step in &script.steps {
        match step {
            Step::Sequence(sql) => session.sequence(sql)?,
            Step::Statement(sql, arguments) => {
                session.execute(sql, arguments, false, &mut NoRows)?;
            }
        }
        // `ON CONFLICT ROLLBACK` fails, and some triggers do not: what is left has lost its mark.
        if session.is_autocommit() {
            return Err(transaction_refused());
        }
    }
    if !script.foreign_keys {
        check_foreign_keys(session)?;
    }
    Ok(())
}

fn check_foreign_keys(session: &mut Session) -> Result<(), StatementError> {
    let mut table = None;
    let checked = session.pooled.for_each_row("PRAGMA foreign_key_check", &[], |row| {
        if let Ok(ValueRef::Text(text)) = row.column(0) {
            table.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
        }
    });
    checked.map_err(|error| session.pooled.failure(&error))?;
    match table {
        None => Ok(()),
        Some(table) => {
            let text = format!("a row of table {table} would refer to one that is not there");
            Err(StatementError::new("FOREIGN_KEY_CHECK", text))
        }
    }
}

fn execute(session: &mut Session, sql: &str) -> Result<(), StatementError> {
    session.execute(sql, &Arguments::default(), false, &mut NoRows).map(|_| ())
}
