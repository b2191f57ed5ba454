//! Room for a database's file: its storage budget on each connection, and what is said when it is
//! used up.
//!
//! SQLite has the limit (`max_page_count`), a connection's own and never below what the database has
//! at that moment: so reads, deletes and drops go on in a database that is full, or larger than a
//! budget that was made smaller, and pages that they free are used again. A connection is told before
//! a statement if its limit has changed since; most never are. FTS5 deletes by adding to its index,
//! so where nothing is free its rows cannot be deleted one by one, but its table can be dropped.

use storage::fiber::with_volume;
use storage::page::PAGE_BYTES;
use storage::sometimes;
use storage::sqlite::codes;

use crate::limits;
use crate::session::Session;
use crate::statement::StatementError;

/// Times that others than SQLite had no room, before a statement began.
#[derive(Clone, Copy)]
pub(crate) struct FullBefore(u64);

fn full_answers() -> u64 {
    with_volume(|volume| volume.full_answers)
}

impl Session {
    /// Before a statement: let its connection know the storage budget.
    pub(crate) fn limit_room(&mut self) -> Result<FullBefore, StatementError> {
        let pages = self.limits.storage_bytes / PAGE_BYTES as u64;
        let pages = u32::try_from(pages).unwrap_or(limits::PAGES_MAX).clamp(1, limits::PAGES_MAX);
        if self.pooled.pages_max != pages {
            let connection = self.pooled.connection();
            connection.mark_statement();
            let told = connection.limit_pages(pages);
            told.map_err(|error| self.pooled.failure(&error))?;
            self.pooled.pages_max = pages;
        }
        Ok(FullBefore(full_answers()))
    }

    /// After a statement failed: if that was for the storage budget, say so.
    pub(crate) fn explain_full(
        &mut self,
        error: StatementError,
        before: FullBefore,
    ) -> StatementError {
        let full = error.code == crate::failure::name_of(codes::SQLITE_FULL);
        if !full || full_answers() != before.0 {
            return error;
        }
        sometimes!("a database is as large as it may be");
        // The limit stays at what the database had when it was told: it may have grown since.
        self.pooled.pages_max = 0;
        let pages = self.pooled.query_integer("PRAGMA page_count").unwrap_or(0);
        let used = pages as u64 * PAGE_BYTES as u64;
        let rolled_back = if error.message.ends_with(crate::failure::ROLLED_BACK) {
            crate::failure::ROLLED_BACK
        } else {
            ""
        };
        let message = format!(
            "SQLite error: database is full: it would pass its storage budget of {} bytes \
             (storage_bytes; {used} in use); reads, deletes and drops go on{rolled_back}",
            self.limits.storage_bytes
        );
        StatementError::new(error.code, message)
    }
}
