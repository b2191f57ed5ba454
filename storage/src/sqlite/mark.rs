//! Marks: a transaction leaves 16 bytes in page 1 of its own database, so that whoever asks after a
//! crash finds them if and only if it was committed.
//!
//! They stand where SQLite reserves bytes of the header and never looks (`page.rs`), so no table, pragma or
//! export of schemas shows them. The VFS writes them; SQLite's own copy of page 1 on the connection lacks
//! them, so that connection must write nothing more afterwards: it is closed. Every other one reads the
//! page anew, because the commit has changed it.

use std::ffi::CString;

use super::{Connection, SqliteError};
use crate::fiber::with_volume;
use crate::page::Mark;
use crate::vfs;

impl Connection {
    /// The mark that the last transaction has left which left one. This connection is in a transaction
    /// that writes.
    ///
    /// # Errors
    /// SQLite's: the page cannot be read.
    pub fn mark(&mut self) -> Result<Mark, SqliteError> {
        assert!(with_volume(|volume| volume.locks.writer()) == Some(self.id));
        vfs::read_mark().map_err(SqliteError::of)
    }

    /// Let this connection's transaction, which writes, leave a mark. `user_version` is what the pragma of
    /// that name says: writing it again brings page 1 into the transaction.
    ///
    /// # Errors
    /// SQLite's: out of memory.
    pub fn set_mark(&mut self, mark: Mark, user_version: i32) -> Result<(), SqliteError> {
        assert!(!self.is_autocommit());
        with_volume(|volume| volume.set_mark(self.id, mark));
        let text = format!("PRAGMA main.user_version={user_version}");
        let text = CString::new(text).expect("a number has no NUL");
        self.set_own(true);
        let result = self.run(&text);
        self.set_own(false);
        if let Some(watch) = &self.watch {
            watch.tainted.set(true);
        }
        result
    }
}
