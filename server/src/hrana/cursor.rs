//! `POST /v3/cursor`: a batch whose rows stream, one JSON object per line.
//!
//! ```text
//! {"baton":"…","base_url":null}
//! {"type":"step_begin","step":0,"cols":[…]}
//! {"type":"row","row":[…]}
//! {"type":"step_end","affected_row_count":0,"last_insert_rowid":null,"cost":{…}}
//! {"type":"step_error","step":1,"error":{"message":"…","code":"…"}}
//! ```
//!
//! Only these entries: hrana-client-ts throws on sqld's `replication_index`. Every error is a
//! `step_error`; the fatal `error` entry, on whose form clients disagree, is never needed.
//!
//! The baton is promised before the batch runs, so the client may use it while the cursor still
//! streams. The first part leaves when it is full, or at a row or step end after
//! `CURSOR_FIRST_PART_NS`: a short batch then leaves in one piece, with its length. (A first line
//! sent at once cost every short query a packet, and a `step_error` apart from the end of the
//! response trips an upstream test of hrana-client-ts.)

use storage::ledger::Booking;
use tenant::{Ceiling, Column, Executed, JobHost, Row, RowSink, SqlStream, StatementError};

use super::condition::StepOutcome;
use super::decode::{self, Step};
use super::encode::RowRefused;
use super::stream::{self, Requests};
use super::{Reply, batch, encode, output, statement};
use crate::baton::BatonKey;
use crate::cost;
use crate::limits::{CURSOR_FIRST_PART_NS, OUTPUT_FLUSH_BYTES};

/// As sqld's; no client looks at it.
const CONTENT_TYPE: &str = "text/plain";

/// Run one cursor request; `out` is an empty buffer to write into. If the reader goes away the
/// batch stops, and the stream is parked: the client has its baton from the first line.
///
/// # Panics
/// If `out` is not empty, or host and stream break their promises.
pub fn run_cursor<H: JobHost>(
    host: &mut H,
    body: &[u8],
    batons: &BatonKey,
    ceiling: Option<Box<Ceiling>>,
    out: Vec<u8>,
) -> Reply {
    assert!(out.is_empty());
    let body = match decode::cursor(body) {
        Ok(body) => body,
        Err(problem) => return Reply::refused(&problem, out),
    };
    let requests = Requests::Batch(&body.steps);
    let mut stream = match stream::acquire(host, batons, body.baton.as_deref(), &requests, ceiling)
    {
        Ok(stream) => stream,
        Err(problem) => return Reply::refused(&problem, out),
    };
    let promised = host.promise(&mut stream);
    let started_ns = host.now_ns();
    let booking = output::booking();
    let mut cursor = Cursor { out, booking, host, started_ns, has_left: false, is_gone: false };
    cursor.out.extend_from_slice(b"{\"baton\":\"");
    batons.seal(&mut cursor.out, cursor.host.tenant_id(), promised, started_ns);
    cursor.out.extend_from_slice(b"\",\"base_url\":null}\n");
    cursor.run(&mut stream, &body.steps);
    let Cursor { out, booking, host, .. } = cursor;
    let cost = stream.request_cost();
    let ticket = host.park(stream);
    assert_eq!(ticket, promised);
    Reply { booking, ..Reply::ok(CONTENT_TYPE, out, cost) }
}

struct Cursor<'h, H: JobHost> {
    out: Vec<u8>,
    /// Those bytes, on the database's account until they have left.
    booking: Booking,
    host: &'h mut H,
    started_ns: u64,
    /// A part has left.
    has_left: bool,
    /// Nobody reads any more; nothing else is written.
    is_gone: bool,
}

impl<H: JobHost> Cursor<'_, H> {
    fn run(&mut self, stream: &mut H::Stream, steps: &[Step<'_>]) {
        let mut outcomes: Vec<StepOutcome> = Vec::with_capacity(steps.len());
        let mut copy = String::new();
        for (index, step) in steps.iter().enumerate() {
            if !batch::step_runs(stream, step, &outcomes) {
                outcomes.push(StepOutcome::Skipped);
                continue;
            }
            let executed = self.step(stream, index, step, &mut copy);
            if self.is_gone {
                return;
            }
            outcomes.push(match executed {
                Ok(executed) => {
                    self.out.extend_from_slice(b"{\"type\":\"step_end\",");
                    encode::effect(&mut self.out, &executed);
                    self.out.push(b',');
                    cost::write_json(&mut self.out, &executed.cost);
                    StepOutcome::Succeeded
                }
                Err(error) => {
                    self.out.extend_from_slice(b"{\"type\":\"step_error\",\"step\":");
                    encode::integer(&mut self.out, index as u64);
                    self.out.extend_from_slice(b",\"error\":");
                    encode::error(&mut self.out, &error);
                    StepOutcome::Failed
                }
            });
            self.out.extend_from_slice(b"}\n");
            self.flush_if_due();
            if self.is_gone {
                return;
            }
        }
    }

    fn step(
        &mut self,
        stream: &mut H::Stream,
        index: usize,
        step: &Step<'_>,
        copy: &mut String,
    ) -> Result<Executed, StatementError> {
        let sql = statement::text(stream, &step.statement.text, copy)?;
        let mut sink = EntrySink { cursor: self, step: index, has_columns: false };
        let arguments = &step.statement.arguments;
        let executed = stream.execute(sql, arguments, step.statement.want_rows, &mut sink)?;
        assert!(sink.has_columns);
        Ok(executed)
    }

    fn flush_if_due(&mut self) {
        let is_late = || {
            !self.has_left
                && self.host.now_ns().saturating_sub(self.started_ns) >= CURSOR_FIRST_PART_NS
        };
        if self.out.len() < OUTPUT_FLUSH_BYTES && !is_late() {
            return;
        }
        self.has_left = true;
        match self.host.flush(std::mem::take(&mut self.out)) {
            Ok(out) => {
                assert!(out.is_empty());
                self.out = out;
                self.booking.clear();
            }
            Err(tenant::Gone) => self.is_gone = true,
        }
    }
}

/// Writes one step's entries up to its last row.
struct EntrySink<'c, 'h, H: JobHost> {
    cursor: &'c mut Cursor<'h, H>,
    step: usize,
    has_columns: bool,
}

impl<H: JobHost> RowSink for EntrySink<'_, '_, H> {
    fn columns(
        &mut self,
        columns: &mut dyn Iterator<Item = Column<'_>>,
    ) -> Result<(), StatementError> {
        assert!(!self.has_columns);
        self.has_columns = true;
        let out = &mut self.cursor.out;
        out.extend_from_slice(b"{\"type\":\"step_begin\",\"step\":");
        encode::integer(out, self.step as u64);
        out.extend_from_slice(b",\"cols\":[");
        encode::columns(out, columns);
        out.extend_from_slice(b"]}\n");
        Ok(())
    }

    fn row(&mut self, row: &dyn Row) -> Result<(), StatementError> {
        assert!(self.has_columns);
        assert!(!self.cursor.is_gone);
        let out = &mut self.cursor.out;
        let start = out.len();
        out.extend_from_slice(b"{\"type\":\"row\",\"row\":");
        // A row is held whole, so it has a limit even here.
        let bytes_max = output::bytes_max(self.cursor.host);
        let booking = &mut self.cursor.booking;
        if let Err(refused) = encode::row(out, booking, row, start + bytes_max) {
            out.truncate(start);
            return Err(match refused {
                RowRefused::TooLarge => StatementError::new(
                    "RESPONSE_TOO_LARGE",
                    format!("a row is over its limit of {bytes_max} bytes (response_bytes)"),
                ),
                RowRefused::NoMemory => tenant::response_refused(),
            });
        }
        out.extend_from_slice(b"}\n");
        self.cursor.flush_if_due();
        match self.cursor.is_gone {
            // Nobody reads this; it stops the statement.
            true => Err(StatementError::new("READER_GONE", "the reader has gone")),
            false => Ok(()),
        }
    }
}
