//! Connections to the quarantine of the running fiber's volume (`crate::quarantine`).
//!
//! What lies there may have been made to harm whoever reads it, so none of SQLite's modules of virtual
//! tables looks at it: they are taken off the connection, and their tables are ordinary ones then.

use super::{Connection, SqliteError, Statement, ValueRef, ffi, slice, vfs};

/// What a connection to the quarantine is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineUse {
    /// To read what lies there.
    Read,
    /// To make a database there by SQL, without a journal: what fails is thrown away as a whole.
    Make,
    /// To go on with that where the SQL writes the schema's table itself.
    MakeSchema,
}

impl Connection {
    /// Open the quarantine. Must run on a fiber whose volume has one.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open_quarantine(purpose: QuarantineUse) -> Result<Connection, SqliteError> {
        let access = match purpose {
            QuarantineUse::Read => ffi::SQLITE_OPEN_READONLY,
            QuarantineUse::Make | QuarantineUse::MakeSchema => ffi::SQLITE_OPEN_READWRITE,
        };
        let mut connection = Connection::open_named(vfs::QUARANTINE_NAME, access)?;
        if purpose != QuarantineUse::Make {
            // SAFETY: an open connection without statements; null keeps none.
            let code = unsafe { ffi::sqlite3_drop_modules(connection.db, std::ptr::null_mut()) };
            connection.check(code)?;
        }
        if purpose != QuarantineUse::Read {
            connection.set_own(true);
            // Before the switches: a defensive connection keeps its journal.
            connection.run(c"PRAGMA journal_mode=OFF")?;
            connection.run(c"PRAGMA synchronous=OFF")?;
            connection.set_own(false);
        }
        connection.harden()?;
        connection.run(c"PRAGMA foreign_keys=OFF")?;
        if purpose == QuarantineUse::MakeSchema {
            for (switch, value) in
                [(ffi::SQLITE_DBCONFIG_DEFENSIVE, 0), (ffi::SQLITE_DBCONFIG_WRITABLE_SCHEMA, 1)]
            {
                connection.switch(switch, value)?;
            }
        }
        Ok(connection)
    }
}

impl Statement {
    /// As [`Statement::column`], with texts in UTF-8 however the database has them.
    ///
    /// # Errors
    /// `SQLITE_NOMEM` if SQLite has no memory to show it.
    pub fn column_utf8(&self, index: usize) -> Result<ValueRef<'_>, SqliteError> {
        let number = index as std::ffi::c_int;
        // SAFETY: a live statement.
        if unsafe { ffi::sqlite3_column_type(self.handle, number) } != ffi::SQLITE_TEXT {
            return self.column(index);
        }
        // SAFETY: a live statement. The bytes stay until the next step or reset, which need `&mut`, or
        // until the same value is asked for in another encoding, which nobody does.
        let start = unsafe { ffi::sqlite3_column_text(self.handle, number) };
        if start.is_null() {
            return Err(SqliteError::of(ffi::SQLITE_NOMEM));
        }
        // SAFETY: as above; the length is that of the text just given.
        let length = unsafe { ffi::sqlite3_column_bytes(self.handle, number) }.max(0) as usize;
        // SAFETY: SQLite gave so many bytes there.
        Ok(ValueRef::Text(unsafe { slice::from_raw_parts(start, length) }))
    }
}
