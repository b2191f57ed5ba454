//! One statement, run into a result object.

use storage::ledger::Booking;
use tenant::{Column, Executed, Row, RowSink, SqlStream, StatementError};

use super::decode::{SqlText, Statement};
use super::encode::{self, RowRefused};
use super::output::Output;
use super::stream::unknown_sql_id;

/// The text to run: a stored one is copied into `copy`, since running it borrows the stream.
pub(super) fn text<'t, S: SqlStream>(
    stream: &S,
    text: &'t SqlText<'_>,
    copy: &'t mut String,
) -> Result<&'t str, StatementError> {
    match text {
        SqlText::Inline(text) => Ok(text),
        SqlText::Stored(sql_id) => {
            // The id was checked before the pipeline ran, but storing its text may have failed.
            let stored = stream.stored_sql(*sql_id);
            let stored = stored
                .ok_or_else(|| StatementError::new("SQL_ID_UNKNOWN", unknown_sql_id(*sql_id)))?;
            copy.clear();
            copy.push_str(stored);
            Ok(copy)
        }
    }
}

/// Run `statement` and append its result object; after an error `output` is as it was.
pub(super) fn execute<S: SqlStream>(
    stream: &mut S,
    statement: &Statement<'_>,
    copy: &mut String,
    output: &mut Output,
) -> Result<(), StatementError> {
    let start = output.bytes.len();
    let end = output.end();
    let executed = execute_at(stream, statement, copy, output, end);
    executed.map_err(|error| {
        output.bytes.truncate(start);
        if error.code == TOO_LARGE { output.too_large() } else { error }
    })
}

fn execute_at<S: SqlStream>(
    stream: &mut S,
    statement: &Statement<'_>,
    copy: &mut String,
    output: &mut Output,
    end: usize,
) -> Result<(), StatementError> {
    let sql = text(stream, &statement.text, copy)?;
    let Output { bytes: out, booking, .. } = output;
    let mut sink = ResultSink { out, booking, end, has_columns: false, has_rows: false };
    let executed: Executed =
        stream.execute(sql, &statement.arguments, statement.want_rows, &mut sink)?;
    assert!(sink.has_columns);
    assert!(statement.want_rows || !sink.has_rows);
    out.extend_from_slice(b"],");
    encode::executed(out, &executed);
    out.push(b'}');
    Ok(())
}

/// Writes a result object up to its last row.
struct ResultSink<'o> {
    out: &'o mut Vec<u8>,
    booking: &'o mut Booking,
    end: usize,
    has_columns: bool,
    has_rows: bool,
}

impl RowSink for ResultSink<'_> {
    fn columns(
        &mut self,
        columns: &mut dyn Iterator<Item = Column<'_>>,
    ) -> Result<(), StatementError> {
        assert!(!self.has_columns);
        self.has_columns = true;
        self.out.extend_from_slice(b"{\"cols\":[");
        let names_start = self.out.len();
        encode::columns(self.out, columns);
        // A statement without columns may run in a full response: it can be the COMMIT.
        let has_names = self.out.len() > names_start;
        self.out.extend_from_slice(b"],\"rows\":[");
        if has_names && self.out.len() > self.end {
            return Err(response_too_large());
        }
        Ok(())
    }

    fn row(&mut self, row: &dyn Row) -> Result<(), StatementError> {
        assert!(self.has_columns);
        if self.has_rows {
            self.out.push(b',');
        }
        self.has_rows = true;
        encode::row(self.out, self.booking, row, self.end).map_err(|refused| match refused {
            RowRefused::TooLarge => response_too_large(),
            RowRefused::NoMemory => tenant::response_refused(),
        })
    }
}

/// Stands for [`Output::too_large`] where the sink has only the bytes.
const TOO_LARGE: &str = "RESPONSE_TOO_LARGE";

fn response_too_large() -> StatementError {
    StatementError::new(TOO_LARGE, "the response is over its limit")
}
