//! A new database made from what a stranger sends: a SQLite file, or SQL text.
//!
//! Runs as a job on a fiber of the new tenant. What comes goes into the tenant's *quarantine*
//! (`storage::quarantine`), a piece at a time: a file as it is, SQL text by running it there. Then the
//! quarantine is judged: its header, its pages (`PRAGMA quick_check`, under a budget of steps), its schema.
//! What is good is written anew, row by row, into the tenant's own database, by SQL that any client could
//! have sent: nothing that was crafted survives that but its rows. The file itself is never served.
//!
//! Virtual tables are made by their modules here and filled from what their shadow tables in the
//! quarantine say, as ordinary tables: no module reads a stranger's pages.
//!
//! - `receive`: from the body to the quarantine. `dump`: SQL text. `sql`: its tokens and statements.
//! - `schema`: what is in the quarantine, and whether it may be. `rebuild`: tables and rows, in bounded
//!   transactions. `modules`: FTS5 and R-Tree.
//!
//! Leaves to the engine that nobody sees the database before all is there, and that nothing is left of
//! one that fails.

mod dump;
mod modules;
#[doc(hidden)]
pub mod probe;
mod rebuild;
mod receive;
mod schema;
mod sql;

use storage::fiber;
use storage::quarantine::{self, Unkept};
use storage::sometimes;
use storage::sqlite::{SqliteError, codes};

use crate::failure::{Circumstances, statement_error};
use crate::limits;
use crate::session::Session;
use crate::statement::Gone;

use rebuild::Target;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportFormat {
    /// A SQLite database file.
    File,
    /// SQL statements.
    Sql,
}

/// What an import is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ImportOrder {
    /// What is sent.
    pub format: ImportFormat,
    /// An index of more bytes is made before its table's rows.
    pub index_bytes: u64,
}

/// What an import needs of who runs it.
pub trait ImportHost {
    /// The next piece of what is sent, of any length but 0; nothing at its end. The buffer is an empty one
    /// to be used again.
    ///
    /// # Errors
    /// The sender has gone.
    fn receive(&mut self, spare: Vec<u8>) -> Result<Option<Vec<u8>>, Gone>;

    /// Between two transactions: a checkpoint may be due.
    fn pause(&mut self);

    /// How far it is.
    fn progress(&mut self, progress: Progress);
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes have come, and are judged.
    Checking {
        /// Of the file, or that the SQL text has made.
        bytes: u64,
    },
    /// Rows are written.
    Writing {
        /// Written so far.
        rows: u64,
    },
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Bytes that were sent.
    pub bytes: u64,
    /// Tables, virtual ones too.
    pub tables: u64,
    /// Rows written.
    pub rows: u64,
}

/// Whose fault it is that there is no database, and so what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// What was sent is of another kind.
    Kind,
    /// What was sent is too large.
    Size,
    /// What was sent is damaged, or not allowed.
    Content,
    /// A budget of the new database does not suffice.
    Budget,
    /// The server cannot at the moment.
    Server,
    /// The sender has gone, or was too slow.
    Sender,
}

/// Why there is no database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// Whose fault it is.
    pub blame: Blame,
    /// Stable name for programs.
    pub code: &'static str,
    /// One sentence for people: what was wrong, and where.
    pub message: String,
}

impl ImportError {
    fn new(blame: Blame, code: &'static str, message: impl Into<String>) -> ImportError {
        ImportError { blame, code, message: message.into() }
    }

    /// What was sent is damaged.
    fn damaged(message: impl Into<String>) -> ImportError {
        ImportError::new(Blame::Content, "UPLOAD_DAMAGED", message)
    }

    /// Something in the schema may not be.
    fn schema(message: impl Into<String>) -> ImportError {
        ImportError::new(Blame::Content, "SCHEMA_REFUSED", message)
    }

    /// Who sends has gone.
    #[must_use]
    pub fn gone() -> ImportError {
        ImportError::new(Blame::Sender, "UPLOAD_BROKEN_OFF", "the upload broke off")
    }

    /// The new database cannot be opened.
    #[must_use]
    pub(crate) fn no_connection() -> ImportError {
        let text =
            "the new database could not be opened: its memory (memory_bytes) does not suffice";
        ImportError::new(Blame::Budget, "MEMORY_EXCEEDED", text)
    }

    fn too_large(bytes: u64, bytes_max: u64) -> ImportError {
        sometimes!("an upload is larger than it may be");
        ImportError::new(
            Blame::Size,
            "UPLOAD_TOO_LARGE",
            format!(
                "the database has {bytes} bytes or more, and may have {bytes_max}: its storage budget \
                 (storage_bytes), or what an upload may have"
            ),
        )
    }

    fn unkept(unkept: Unkept, bytes_max: u64) -> ImportError {
        match unkept {
            Unkept::TooLarge(bytes) => ImportError::too_large(bytes, bytes_max),
            Unkept::Full => ImportError::new(
                Blame::Server,
                "UPLOAD_NO_ROOM",
                "there is no room for the upload: the server's disk or memory is full; try again later",
            ),
            Unkept::Failed => ImportError::new(
                Blame::Server,
                "UPLOAD_IO_ERROR",
                "the server's disk failed while it kept the upload; try again",
            ),
        }
    }

    /// What SQLite said of the quarantine.
    fn quarantined(what: &str, error: &SqliteError) -> ImportError {
        let text = &error.message;
        match error.primary() {
            codes::SQLITE_CORRUPT | codes::SQLITE_NOTADB => {
                sometimes!("a damaged upload is found out");
                ImportError::damaged(format!("{what}: {text}"))
            }
            codes::SQLITE_TOOBIG => ImportError::new(
                Blame::Content,
                "VALUE_TOO_LARGE",
                format!("{what}: a text or blob is larger than the limit of 1048576 bytes"),
            ),
            codes::SQLITE_NOMEM if is_beyond_file() => {
                sometimes!("an upload has a row that says to be larger than all of it");
                ImportError::damaged(format!("{what}: it has a row that is larger than the file"))
            }
            _ => ImportError::stopped(what, error)
                .unwrap_or_else(|| ImportError::damaged(format!("{what}: {text}"))),
        }
    }

    /// What SQLite said of the new database.
    fn refused(what: &str, error: &SqliteError) -> ImportError {
        ImportError::stopped(what, error).unwrap_or_else(|| {
            let said = statement_error(error, Circumstances::default());
            let code = match error.primary() {
                codes::SQLITE_CONSTRAINT | codes::SQLITE_MISMATCH => "ROW_REFUSED",
                codes::SQLITE_TOOBIG => "VALUE_TOO_LARGE",
                _ => "SCHEMA_REFUSED",
            };
            ImportError::new(Blame::Content, code, format!("{what}: {}", said.message))
        })
    }

    /// It did not fail for what was sent, but was stopped, or had no room.
    fn stopped(what: &str, error: &SqliteError) -> Option<ImportError> {
        let account = fiber::account();
        let refused = storage::ledger::last_refusal(account);
        let circumstances = Circumstances { refused, ..Circumstances::default() };
        let said = || format!("{what}: {}", statement_error(error, circumstances).message);
        Some(match error.primary() {
            codes::SQLITE_INTERRUPT if fiber::exceeded().is_some() => {
                sometimes!("an upload takes too much work to be checked");
                ImportError::new(
                    Blame::Content,
                    "CHECK_TOO_LONG",
                    format!("{what}: checking it takes more work than its size allows"),
                )
            }
            codes::SQLITE_INTERRUPT => ImportError::new(
                Blame::Sender,
                "IMPORT_STOPPED",
                format!(
                    "{what}: the import took longer than {} s, its sender has gone, or the server stops",
                    limits::IMPORT_NS / limits::SECOND_NS
                ),
            ),
            // Nobody was refused memory: what was sent is too complex for SQLite's limits.
            codes::SQLITE_NOMEM if refused.is_none() => return None,
            codes::SQLITE_NOMEM => ImportError::new(Blame::Budget, "MEMORY_EXCEEDED", said()),
            codes::SQLITE_FULL => ImportError::new(Blame::Size, "DATABASE_FULL", said()),
            codes::SQLITE_IOERR | codes::SQLITE_CANTOPEN | codes::SQLITE_BUSY => {
                ImportError::new(Blame::Server, "IMPORT_IO_ERROR", said())
            }
            _ => return None,
        })
    }
}

/// What was refused memory wanted a block that no sound file of this size takes: SQLite makes its list of a row's
/// overflow pages as long as the row says to be, before it looks for the first of them.
fn is_beyond_file() -> bool {
    let most = quarantine::size().saturating_mul(2).saturating_add(limits::CHECK_BLOCK_BYTES);
    storage::ledger::last_refusal(fiber::account()).is_some_and(|refused| refused.wanted > most)
}

/// Make the new database of `session` from what `host` receives. Either all of it is there afterwards, in
/// committed transactions, or what is there is to be dropped.
///
/// # Errors
/// Why it cannot be made.
pub(crate) fn import(
    host: &mut dyn ImportHost,
    session: &mut Session,
    order: ImportOrder,
) -> Result<Imported, ImportError> {
    let bytes_max = session.limits.storage_bytes.min(limits::IMPORT_BYTES_MAX);
    quarantine::begin(bytes_max);
    let result = import_through(host, session, order, bytes_max);
    quarantine::end();
    result
}

fn import_through(
    host: &mut dyn ImportHost,
    session: &mut Session,
    order: ImportOrder,
    bytes_max: u64,
) -> Result<Imported, ImportError> {
    let bytes = match order.format {
        ImportFormat::File => receive::file(host, bytes_max)?,
        ImportFormat::Sql => dump::run(host, bytes_max)?,
    };
    let header = receive::header()?;
    host.progress(Progress::Checking { bytes: quarantine::size() });
    let mut source = schema::open(&header)?;
    let mut target = Target::new(session, host)?;
    let result = rebuild::all(&mut source, &mut target, order.index_bytes);
    let rows = target.end();
    let tables = result?;
    sometimes!("a database is made from an upload");
    Ok(Imported { bytes, tables, rows })
}
