//! The new database, from what the quarantine has: objects by the SQL that made them, rows one by one, in
//! transactions of a bounded size, so that the log and the write-ahead log stay small however large the
//! upload is.
//!
//! Tables and their rows come first, then what reads them: indexes (before the rows where the upload is
//! large, since an index is made in one transaction), virtual tables, views, triggers.

use storage::fiber;
use storage::quarantine;
use storage::sometimes;
use storage::sqlite::{SqliteError, Statement, ValueRef, codes};

use super::modules;
use super::schema::{Kind, Object, Source};
use super::sql::{Token, Tokens, quote};
use super::{Blame, ImportError, ImportHost, Progress};
use crate::limits;
use crate::room::FullBefore;
use crate::session::Session;
use crate::statement::Cost;

/// The new database, and the transaction that is open in it.
pub(super) struct Target<'a> {
    session: &'a mut Session,
    host: &'a mut dyn ImportHost,
    room: FullBefore,
    open: bool,
    rows: u64,
    /// Of the transaction that is open.
    batch_rows: u64,
    batch_bytes: u64,
    /// Steps of statements that ended in it.
    steps: u64,
}

impl<'a> Target<'a> {
    pub fn new(
        session: &'a mut Session,
        host: &'a mut dyn ImportHost,
    ) -> Result<Target<'a>, ImportError> {
        let room = session
            .limit_room()
            .map_err(|error| ImportError::new(Blame::Server, "IMPORT_IO_ERROR", error.message))?;
        let mut target = Target {
            session,
            host,
            room,
            open: false,
            rows: 0,
            batch_rows: 0,
            batch_bytes: 0,
            steps: 0,
        };
        // What refers to what is not looked at: SQLite itself would not when it opens the file.
        let off = target.run_alone("PRAGMA foreign_keys=OFF");
        off.map_err(|error| ImportError::refused("the new database", &error))?;
        Ok(target)
    }

    /// Give up what is open; the rows written.
    pub fn end(self) -> u64 {
        if self.open {
            fiber::end_run(self.steps);
            self.session.pooled.roll_back();
        }
        self.rows
    }

    fn run_alone(&mut self, sql: &str) -> Result<(), SqliteError> {
        let connection = self.session.pooled.connection();
        connection.mark_statement();
        let (statement, end) = connection.prepare(sql, false)?;
        let Some(mut statement) = statement else { return Ok(()) };
        if Tokens::of(&sql[end..]).any(|token| token != Token::Symbol(';')) {
            let message = "it is more than one statement".to_owned();
            return Err(SqliteError { code: codes::SQLITE_ERROR, message, offset: None });
        }
        while statement.step(connection)? {}
        self.steps += statement.take_steps();
        Ok(())
    }

    fn begin(&mut self) -> Result<(), ImportError> {
        if !self.open {
            self.open = true;
            self.steps = 0;
            fiber::start_run(Cost::default(), None, false);
            let begun = self.run_alone("BEGIN IMMEDIATE");
            begun.map_err(|error| self.explain("the new database", &error))?;
        }
        Ok(())
    }

    /// End the transaction that is open, and let others have a turn.
    pub fn commit(&mut self) -> Result<(), ImportError> {
        if !self.open {
            return Ok(());
        }
        let committed = self.run_alone("COMMIT");
        committed.map_err(|error| self.explain("the new database", &error))?;
        fiber::end_run(self.steps);
        self.open = false;
        (self.batch_rows, self.batch_bytes) = (0, 0);
        self.host.progress(Progress::Writing { rows: self.rows });
        self.host.pause();
        Ok(())
    }

    /// Run one statement in a transaction; `what` is what an error speaks of.
    pub fn run(&mut self, what: &str, sql: &str) -> Result<(), ImportError> {
        self.begin()?;
        self.run_alone(sql).map_err(|error| self.explain(what, &error))
    }

    /// Compile a statement that is run for each row.
    pub fn prepare(&mut self, what: &str, sql: &str) -> Result<Statement, ImportError> {
        self.begin()?;
        let prepared = self.session.pooled.connection().prepare(sql, true);
        let (statement, _) = prepared.map_err(|error| self.explain(what, &error))?;
        Ok(statement.expect("the text is a statement of ours"))
    }

    /// Run a compiled statement with these values. Ends the transaction when it is large enough.
    pub fn write<'v>(
        &mut self,
        what: impl Fn() -> String,
        statement: &mut Statement,
        values: impl Iterator<Item = Result<ValueRef<'v>, SqliteError>>,
    ) -> Result<(), ImportError> {
        self.begin()?;
        let mut bytes = 16;
        for (index, value) in values.enumerate() {
            let value = value.map_err(|error| ImportError::quarantined(&what(), &error))?;
            bytes += match value {
                ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() as u64 + 4,
                _ => 4,
            };
            let bound = statement.bind(index + 1, value);
            bound.map_err(|error| self.explain(&what(), &error))?;
        }
        let connection = self.session.pooled.connection();
        let stepped = statement.step(connection);
        statement.reset(connection);
        if let Err(error) = stepped {
            return Err(self.explain(&what(), &error));
        }
        self.rows += 1;
        self.batch_rows += 1;
        self.batch_bytes += bytes;
        if self.batch_bytes >= limits::IMPORT_BATCH_BYTES
            || self.batch_rows >= limits::IMPORT_BATCH_ROWS
        {
            self.steps += statement.take_steps();
            sometimes!("an import goes on in another transaction");
            self.commit()?;
        }
        Ok(())
    }

    /// The integers in the first column of what a statement of ours gives, or texts.
    pub fn texts(&mut self, sql: &str) -> Result<Vec<Vec<u8>>, ImportError> {
        let mut found = Vec::new();
        let pooled = &mut self.session.pooled;
        let read = pooled.for_each_row(sql, &[], |row| {
            if let Ok(ValueRef::Text(text)) = row.column(0) {
                found.push(text.to_vec());
            }
        });
        read.map_err(|error| self.explain("the new database", &error))?;
        Ok(found)
    }

    fn explain(&mut self, what: &str, error: &SqliteError) -> ImportError {
        if error.primary() != codes::SQLITE_FULL {
            return ImportError::refused(what, error);
        }
        let said = self.session.pooled.failure(error);
        let said = self.session.explain_full(said, self.room);
        ImportError::new(Blame::Size, "DATABASE_FULL", format!("{what}: {}", said.message))
    }
}

/// Make everything: how many tables.
pub(super) fn all(
    source: &mut Source,
    target: &mut Target<'_>,
    index_bytes: u64,
) -> Result<u64, ImportError> {
    let objects = std::mem::take(&mut source.objects);
    let of = |kind| objects.iter().filter(move |object: &&Object| object.kind == kind);
    let plain = || of(Kind::Table).filter(|object| object.module.is_none());
    let make = |target: &mut Target<'_>, object: &Object| {
        target.run(&format!("the {}", object.title()), &object.sql)
    };
    for object in plain() {
        make(target, object)?;
    }
    let mut later = Vec::new();
    for object in of(Kind::Index) {
        if quarantine::size() > index_bytes && size_of_index(source, object)? > index_bytes {
            sometimes!("an index of a large upload is made before its rows");
            make(target, object)?;
        } else {
            later.push(object);
        }
    }
    for object in plain() {
        copy_table(source, target, object)?;
    }
    for object in later {
        target.commit()?;
        make(target, object)?;
    }
    // Those that index what another one has come behind it.
    for of_others in [false, true] {
        for object in of(Kind::Table) {
            let Some(module) = &object.module else { continue };
            if modules::reads_others(module) == of_others {
                make(target, object)?;
                modules::fill(source, target, object, module)?;
            }
        }
    }
    for kind in [Kind::View, Kind::Trigger] {
        of(kind).try_for_each(|object| make(target, object))?;
    }
    finish(source, target)?;
    target.commit()?;
    Ok(of(Kind::Table).count() as u64)
}

/// About how many bytes an index has: its columns' and some for each row, as if all rows were in it.
fn size_of_index(source: &mut Source, object: &Object) -> Result<u64, ImportError> {
    let damaged = |error: SqliteError| ImportError::quarantined(&object.title(), &error);
    let (mut parts, mut known) = (vec!["24".to_owned()], true);
    source
        .for_each(&format!("PRAGMA index_info({})", quote(&object.name)), |row| {
            match row.column_utf8(2) {
                Ok(ValueRef::Text(name)) => match std::str::from_utf8(name) {
                    Ok(name) => parts.push(format!("octet_length({})", quote(name))),
                    Err(_) => known = false,
                },
                // An expression, or the row's number.
                _ => known = false,
            }
        })
        .map_err(damaged)?;
    if !known {
        return Ok(u64::MAX);
    }
    let parts: Vec<String> = parts.iter().map(|part| format!("ifnull({part}, 0)")).collect();
    let sql = format!("SELECT total({}) FROM {}", parts.join(" + "), quote(&object.table));
    let mut bytes = 0.0;
    let read = source.for_each(&sql, |row| {
        if let Ok(ValueRef::Real(total)) = row.column(0) {
            bytes = total;
        }
    });
    read.map_err(damaged)?;
    // Pages that are filled in order are full but for their last row.
    Ok((bytes * 1.25) as u64)
}

/// A column of an ordinary table.
struct ColumnOf {
    name: String,
    generated: bool,
}

fn columns(source: &mut Source, object: &Object) -> Result<Vec<ColumnOf>, ImportError> {
    let mut columns = Vec::new();
    let mut good = true;
    let sql = format!("PRAGMA table_xinfo({})", quote(&object.name));
    let read = source.for_each(&sql, |row| {
        let name = match row.column_utf8(1) {
            Ok(ValueRef::Text(name)) => std::str::from_utf8(name).ok().map(str::to_owned),
            _ => None,
        };
        let generated = !matches!(row.column(6), Ok(ValueRef::Integer(0)));
        good &= name.is_some();
        columns.extend(name.map(|name| ColumnOf { name, generated }));
    });
    read.map_err(|error| ImportError::quarantined(&object.title(), &error))?;
    if !good || columns.is_empty() {
        return Err(ImportError::damaged(format!(
            "the {}: its columns cannot be read",
            object.title()
        )));
    }
    Ok(columns)
}

/// The table's own number of a row, by a name that no column of it has.
fn row_number(source: &mut Source, object: &Object, columns: &[ColumnOf]) -> Option<&'static str> {
    // A table without one does not know the name.
    let free = |name: &&&str| columns.iter().all(|column| !column.name.eq_ignore_ascii_case(name));
    let name = ["rowid", "_rowid_", "oid"].iter().find(free)?;
    let sql = format!("SELECT {name} FROM {}", quote(&object.name));
    source.connection.prepare(&sql, false).is_ok().then_some(*name)
}

fn copy_table(
    source: &mut Source,
    target: &mut Target<'_>,
    object: &Object,
) -> Result<(), ImportError> {
    let columns = columns(source, object)?;
    let number = row_number(source, object, &columns);
    let stored = columns.iter().filter(|column| !column.generated);
    let mut names: Vec<String> = number.into_iter().map(str::to_owned).collect();
    names.extend(stored.map(|column| quote(&column.name)));
    if names.is_empty() {
        return Ok(());
    }
    let (table, list) = (quote(&object.name), names.join(", "));
    let places = vec!["?"; names.len()].join(", ");
    let title = object.title();
    let select = source.prepare(&format!("SELECT {list} FROM {table}"));
    let mut select = select.map_err(|error| ImportError::quarantined(&title, &error))?;
    let insert = format!("INSERT INTO {table}({list}) VALUES({places})");
    let mut insert = target.prepare(&format!("the {title}"), &insert)?;
    let has_number = number.is_some();
    loop {
        let next = select.step(&source.connection);
        if !next.map_err(|error| ImportError::quarantined(&format!("the {title}"), &error))? {
            break;
        }
        let what = || match select.column(0) {
            Ok(ValueRef::Integer(number)) if has_number => format!("the {title}, row {number}"),
            _ => format!("the {title}"),
        };
        let values = (0..names.len()).map(|index| select.column_utf8(index));
        target.write(what, &mut insert, values)?;
    }
    target.steps += select.take_steps() + insert.take_steps();
    Ok(())
}

/// What is no object: counters of AUTOINCREMENT, the planner's statistics, numbers in the header.
fn finish(source: &mut Source, target: &mut Target<'_>) -> Result<(), ImportError> {
    let has = |target: &mut Target<'_>, name: &str| {
        let sql = format!("SELECT name FROM sqlite_schema WHERE name = '{name}'");
        target.texts(&sql).map(|found| !found.is_empty())
    };
    if source.has_sequence && has(target, "sqlite_sequence")? {
        target.run("sqlite_sequence", "DELETE FROM sqlite_sequence")?;
        copy(source, target, "sqlite_sequence", "name, seq")?;
    }
    if source.has_statistics {
        target.run("sqlite_stat1", "ANALYZE sqlite_schema")?;
        if has(target, "sqlite_stat1")? {
            target.run("sqlite_stat1", "DELETE FROM sqlite_stat1")?;
            copy(source, target, "sqlite_stat1", "tbl, idx, stat")?;
        }
    }
    let (user_version, application_id) = (source.user_version, source.application_id);
    target.run("the header", &format!("PRAGMA user_version={user_version}"))?;
    target.run("the header", &format!("PRAGMA application_id={application_id}"))
}

/// Rows of a table of SQLite's own.
fn copy(
    source: &mut Source,
    target: &mut Target<'_>,
    table: &str,
    list: &str,
) -> Result<(), ImportError> {
    let damaged = |error: SqliteError| ImportError::quarantined(table, &error);
    let mut select = source.prepare(&format!("SELECT {list} FROM {table}")).map_err(damaged)?;
    let count = select.column_count();
    let places = vec!["?"; count].join(", ");
    let insert = format!("INSERT INTO {table}({list}) VALUES({places})");
    let mut insert = target.prepare(table, &insert)?;
    while select.step(&source.connection).map_err(damaged)? {
        let values = (0..count).map(|index| select.column_utf8(index));
        target.write(|| table.to_owned(), &mut insert, values)?;
    }
    target.steps += select.take_steps() + insert.take_steps();
    Ok(())
}
