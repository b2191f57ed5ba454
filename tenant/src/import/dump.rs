//! SQL text, statement by statement, into a database in the quarantine.
//!
//! The text is run under the policy of clients' SQL, with what dumps have in common understood: the
//! transaction around everything is ours, so `BEGIN` and `COMMIT` are only noted; pragmas that set up a
//! connection change nothing; and where `PRAGMA writable_schema` is switched on, as the `sqlite3` shell
//! does for virtual tables, the rest runs where no module can read what it writes.
//!
//! There is no journal: the first statement that fails ends the import.

use storage::fiber;
use storage::ledger::Booking;
use storage::sometimes;
use storage::sqlite::{Connection, QuarantineUse, SqliteError, codes};

use super::sql::{Splitter, Token, Tokens};
use super::{Blame, ImportError, ImportHost};
use crate::limits;
use crate::policy;
use crate::statement::Cost;

/// Pragmas of dumps that set up a connection or a file: ours are what they are.
const PRAGMAS_PASSED_OVER: &[&str] = &[
    "foreign_keys",
    "defer_foreign_keys",
    "ignore_check_constraints",
    "recursive_triggers",
    "encoding",
    "journal_mode",
    "locking_mode",
    "synchronous",
    "temp_store",
    "cache_size",
    "page_size",
    "auto_vacuum",
    "wal_autocheckpoint",
    "busy_timeout",
    "trusted_schema",
    "legacy_alter_table",
    "mmap_size",
];

/// What a statement is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// To be run.
    Run,
    /// To be left out.
    PassOver,
    /// It begins the dump's transaction.
    Begin,
    /// It ends it.
    Commit,
    /// It ends it by undoing everything, or a part.
    RollBack,
    /// The schema's table is written from here on, or no more.
    WritableSchema(bool),
}

fn classify(sql: &str) -> Class {
    let mut tokens = Tokens::of(sql);
    let Some(first) = tokens.next() else { return Class::PassOver };
    match first {
        Token::Symbol(';') => Class::PassOver,
        first if first.is("begin") => Class::Begin,
        first if first.is("commit") || first.is("end") => Class::Commit,
        first if first.is("rollback") => Class::RollBack,
        first if first.is("pragma") => {
            let name = tokens.next().and_then(|token| token.name()).unwrap_or_default();
            // `schema.name`: which schema it is changes nothing here.
            let dotted = tokens.clone().next() == Some(Token::Symbol('.'));
            let name = match dotted {
                true => tokens.nth(1).and_then(|token| token.name()).unwrap_or_default(),
                false => name,
            };
            if name.eq_ignore_ascii_case("writable_schema") {
                let value = tokens.nth(1).and_then(|token| token.name()).unwrap_or_default();
                let on = ["on", "yes", "true", "1"].iter().any(|on| value.eq_ignore_ascii_case(on));
                return Class::WritableSchema(on);
            }
            match PRAGMAS_PASSED_OVER.iter().any(|other| name.eq_ignore_ascii_case(other)) {
                true => Class::PassOver,
                false => Class::Run,
            }
        }
        _ => Class::Run,
    }
}

/// Run all that comes: its bytes.
pub(super) fn run(host: &mut dyn ImportHost, bytes_max: u64) -> Result<u64, ImportError> {
    let mut maker = Maker::open(bytes_max)?;
    let mut splitter = Splitter::default();
    let mut booking = Booking::on(fiber::account());
    let (mut bytes, mut spare) = (0, Vec::new());
    while let Some(piece) = host.receive(spare).map_err(|_| ImportError::gone())? {
        bytes += piece.len() as u64;
        if bytes > limits::IMPORT_BYTES_MAX {
            return Err(ImportError::too_large(bytes, limits::IMPORT_BYTES_MAX));
        }
        if bytes == piece.len() as u64
            && let Err(bad @ storage::quarantine::header::BadHeader::Compressed(_)) =
                storage::quarantine::header::check_start(&piece)
        {
            return Err(bad.into());
        }
        splitter.feed(&piece);
        if !booking.grow_to(splitter.held_bytes() as u64) {
            let text =
                "the database's memory (memory_bytes) has no room for a statement of the dump";
            return Err(ImportError::new(Blame::Budget, "MEMORY_EXCEEDED", text));
        }
        maker.run_whole(&mut splitter)?;
        spare = piece;
        spare.clear();
    }
    let rest = splitter.pending().to_vec();
    maker.run_one(splitter.line(), &rest)?;
    maker.end()?;
    Ok(bytes)
}

/// A connection to the quarantine on which statements run.
struct Maker {
    connection: Option<Connection>,
    writes_schema: bool,
    /// The dump has begun a transaction and not ended it.
    begun: bool,
    bytes_max: u64,
}

impl Maker {
    fn open(bytes_max: u64) -> Result<Maker, ImportError> {
        let mut maker = Maker { connection: None, writes_schema: false, begun: false, bytes_max };
        maker.connect(QuarantineUse::Make)?;
        Ok(maker)
    }

    fn connect(&mut self, purpose: QuarantineUse) -> Result<(), ImportError> {
        let failed = |error: SqliteError| ImportError::quarantined("the dump", &error);
        let mut connection = Connection::open_quarantine(purpose).map_err(failed)?;
        policy::confine(&mut connection);
        connection
            .set_limit(codes::SQLITE_LIMIT_SQL_LENGTH, limits::DUMP_STATEMENT_BYTES_MAX as i32);
        self.connection = Some(connection);
        self.step("BEGIN").map_err(failed)
    }

    /// Run all statements that are whole.
    fn run_whole(&mut self, splitter: &mut Splitter) -> Result<(), ImportError> {
        loop {
            let Some(end) = splitter.next_end() else {
                let pending = splitter.pending_bytes();
                if pending > limits::DUMP_STATEMENT_BYTES_MAX {
                    let line = splitter.line();
                    return Err(too_long(line, pending));
                }
                return Ok(());
            };
            if end > limits::DUMP_STATEMENT_BYTES_MAX {
                return Err(too_long(splitter.line(), end));
            }
            let result = self.run_one(splitter.line(), &splitter.pending()[..end]);
            splitter.take(end);
            result?;
        }
    }

    fn run_one(&mut self, line: u64, sql: &[u8]) -> Result<(), ImportError> {
        let Ok(sql) = std::str::from_utf8(sql) else {
            return Err(failed(line, sql, 0, "it is not UTF-8"));
        };
        match classify(sql) {
            Class::PassOver => Ok(()),
            Class::Begin => {
                self.begun = true;
                Ok(())
            }
            Class::Commit => {
                self.begun = false;
                Ok(())
            }
            Class::RollBack => Err(ImportError::new(
                Blame::Content,
                "DUMP_INCOMPLETE",
                format!(
                    "line {}: the dump takes back what it did (ROLLBACK), as one that was not made to \
                     its end does",
                    line_of(line, sql.as_bytes(), start_of(sql))
                ),
            )),
            Class::WritableSchema(on) => self.write_schema(on),
            Class::Run => {
                let result = self.step(sql);
                result.map_err(|error| self.explain(line, sql, &error))
            }
        }
    }

    /// Once its text writes the schema's table, no module may look at what it writes beside.
    fn write_schema(&mut self, on: bool) -> Result<(), ImportError> {
        if !on || self.writes_schema {
            return Ok(());
        }
        sometimes!("a dump writes the table of the schema");
        self.close()?;
        self.writes_schema = true;
        self.connect(QuarantineUse::MakeSchema)
    }

    /// Run one statement to its end; rows are thrown away.
    fn step(&mut self, sql: &str) -> Result<(), SqliteError> {
        let connection = self.connection.as_mut().expect("it is open between statements");
        let (statement, end) = connection.prepare(sql, false)?;
        let Some(mut statement) = statement else { return Ok(()) };
        if Tokens::of(&sql[end..]).any(|token| token != Token::Symbol(';')) {
            let message = "there is a second statement behind the first".to_owned();
            return Err(SqliteError { code: codes::SQLITE_ERROR, message, offset: Some(end) });
        }
        fiber::start_run(Cost::default(), None, false);
        let result = loop {
            match statement.step(connection) {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        fiber::end_run(statement.take_steps());
        result
    }

    fn explain(&self, line: u64, sql: &str, error: &SqliteError) -> ImportError {
        let at = line_of(line, sql.as_bytes(), error.offset.unwrap_or_else(|| start_of(sql)));
        if error.primary() == codes::SQLITE_FULL {
            return self.full();
        }
        if let Some(stopped) = ImportError::stopped(&format!("line {at}"), error) {
            return stopped;
        }
        let said = crate::failure::statement_error(error, Default::default());
        failed(line, sql.as_bytes(), error.offset.unwrap_or_else(|| start_of(sql)), &said.message)
    }

    fn close(&mut self) -> Result<(), ImportError> {
        let committed = self.step("COMMIT");
        self.connection = None;
        committed.map_err(|error| match error.primary() {
            codes::SQLITE_FULL => self.full(),
            _ => ImportError::quarantined("the end of the dump", &error),
        })
    }

    /// What the dump makes is larger than it may be, or there is no room for it just now.
    fn full(&self) -> ImportError {
        let size = storage::quarantine::size();
        // Pages are written in any order: the one that was refused is far behind most others.
        match size >= self.bytes_max / 2 {
            true => ImportError::too_large(size, self.bytes_max),
            false => ImportError::unkept(storage::quarantine::Unkept::Full, self.bytes_max),
        }
    }

    fn end(mut self) -> Result<(), ImportError> {
        if self.begun {
            return Err(ImportError::new(
                Blame::Content,
                "DUMP_INCOMPLETE",
                "the dump begins a transaction and does not end it: it is cut off",
            ));
        }
        self.close()?;
        // A database in which nothing was made has no byte.
        if storage::quarantine::size() > 0 {
            return Ok(());
        }
        self.connect(QuarantineUse::Make)?;
        let made = self.step("PRAGMA user_version = 0");
        made.map_err(|error| ImportError::quarantined("the dump", &error))?;
        self.close()
    }
}

/// Where the statement itself begins, behind white space and comments.
fn start_of(sql: &str) -> usize {
    let mut tokens = Tokens::of(sql);
    let first = tokens.next();
    let length = match first {
        Some(Token::Word(text) | Token::Quoted(text)) => text.len(),
        Some(Token::Symbol(symbol)) => symbol.len_utf8(),
        None => 0,
    };
    tokens.offset() - length
}

fn line_of(line: u64, sql: &[u8], offset: usize) -> u64 {
    let before = &sql[..offset.min(sql.len())];
    line + before.iter().filter(|&&byte| byte == b'\n').count() as u64
}

fn failed(line: u64, sql: &[u8], offset: usize, text: &str) -> ImportError {
    sometimes!("a statement of a dump fails");
    let at = line_of(line, sql, offset);
    ImportError::new(Blame::Content, "DUMP_FAILED", format!("line {at}: {text}"))
}

fn too_long(line: u64, bytes: usize) -> ImportError {
    ImportError::new(
        Blame::Size,
        "STATEMENT_TOO_LONG",
        format!(
            "line {line}: a statement has {bytes} bytes or more, and may have {}",
            limits::DUMP_STATEMENT_BYTES_MAX
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dumps_have_in_common_is_understood() {
        for (sql, class) in [
            ("BEGIN TRANSACTION;", Class::Begin),
            (" -- c\n commit ;", Class::Commit),
            ("END;", Class::Commit),
            ("ROLLBACK; -- due to errors", Class::RollBack),
            ("PRAGMA foreign_keys=OFF;", Class::PassOver),
            ("pragma main.journal_mode(wal);", Class::PassOver),
            ("PRAGMA writable_schema=ON;", Class::WritableSchema(true)),
            ("PRAGMA writable_schema(0);", Class::WritableSchema(false)),
            ("PRAGMA user_version=3;", Class::Run),
            ("PRAGMA query_only=1;", Class::Run),
            ("INSERT INTO t VALUES(1);", Class::Run),
            (";", Class::PassOver),
            (" /* nothing */ ", Class::PassOver),
        ] {
            assert_eq!(classify(sql), class, "{sql}");
        }
        assert_eq!(line_of(3, b"\n\nSELECT", start_of("\n\nSELECT")), 5);
    }
}
