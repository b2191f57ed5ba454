//! Plain SQLite in this process: the same library, compiled with the same flags, without our
//! storage, authorizer and limits.

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, OpenFlags};

use super::outcome::{Failure, Outcome, Rows, Value};

/// A database in memory with the settings of a session.
pub struct Plain {
    connection: Connection,
}

impl Plain {
    /// An empty database.
    pub fn open() -> Plain {
        // The system's VFS by name, for temporary files: where our storage is in the process too,
        // the default is ours, and works on fibers only.
        let connection =
            Connection::open_in_memory_with_flags_and_vfs(OpenFlags::default(), "unix")
                .expect("SQLite opens");
        for (switch, on) in [
            (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
            (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
            (DbConfig::SQLITE_DBCONFIG_WRITABLE_SCHEMA, false),
        ] {
            connection.set_db_config(switch, on).expect("SQLite knows the switch");
        }
        Plain { connection }
    }

    /// Run one statement to its end.
    pub fn execute(&self, sql: &str) -> Outcome {
        self.run(sql).map_err(|error| match error {
            Error::SqliteFailure(code, message) => Failure {
                code: name_of(code.extended_code).to_owned(),
                message: message.unwrap_or_default(),
            },
            Error::SqlInputError { error, msg, .. } => {
                Failure { code: name_of(error.extended_code).to_owned(), message: msg }
            }
            Error::MultipleStatement => {
                Failure { code: "SQL_MANY_STATEMENTS".to_owned(), message: String::new() }
            }
            other => panic!("{other}: {sql}"),
        })
    }

    /// Nothing but comments and white space.
    pub fn is_no_statement(&self, sql: &str) -> bool {
        self.connection.prepare(sql).is_ok_and(|statement| statement.expanded_sql().is_none())
    }

    fn run(&self, sql: &str) -> Result<Rows, Error> {
        let mut statement = self.connection.prepare(sql)?;
        let names: Vec<_> = statement.column_names().map(str::to_owned).collect();
        let mut found = Vec::new();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let values = (0..names.len()).map(|index| Ok(value(row.get_ref(index)?)));
            found.push(values.collect::<Result<_, Error>>()?);
        }
        drop(rows);
        Ok(Rows { names, rows: found })
    }

    /// No transaction is open.
    pub fn is_autocommit(&self) -> bool {
        self.connection.is_autocommit()
    }

    /// The server's transaction was rolled back by an error that is not ours to have.
    pub fn roll_back(&self) {
        if !self.is_autocommit() {
            self.connection.execute_batch("ROLLBACK").expect("a transaction is open");
        }
    }
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => Value::Integer(integer),
        ValueRef::Real(real) => Value::Real(real),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
    }
}

/// Primary result codes by number, as SQLite's documentation lists them.
fn name_of(code: i32) -> &'static str {
    const NAMES: [&str; 27] = [
        "SQLITE_OK",
        "SQLITE_ERROR",
        "SQLITE_INTERNAL",
        "SQLITE_PERM",
        "SQLITE_ABORT",
        "SQLITE_BUSY",
        "SQLITE_LOCKED",
        "SQLITE_NOMEM",
        "SQLITE_READONLY",
        "SQLITE_INTERRUPT",
        "SQLITE_IOERR",
        "SQLITE_CORRUPT",
        "SQLITE_NOTFOUND",
        "SQLITE_FULL",
        "SQLITE_CANTOPEN",
        "SQLITE_PROTOCOL",
        "SQLITE_EMPTY",
        "SQLITE_SCHEMA",
        "SQLITE_TOOBIG",
        "SQLITE_CONSTRAINT",
        "SQLITE_MISMATCH",
        "SQLITE_MISUSE",
        "SQLITE_NOLFS",
        "SQLITE_AUTH",
        "SQLITE_FORMAT",
        "SQLITE_RANGE",
        "SQLITE_NOTADB",
    ];
    usize::try_from(code & 0xff)
        .ok()
        .and_then(|index| NAMES.get(index))
        .unwrap_or(&"SQLITE_UNKNOWN")
}
