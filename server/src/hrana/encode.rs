//! Results as JSON, straight into a buffer, without allocation per value.
//!
//! `serde_json` writes numbers and strings: integers and floats from tables and by the shortest
//! form that reads back as the same float, strings with the escapes that JSON wants. Everything
//! around them is constant bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Serialize;
use storage::ledger::Booking;
use tenant::{Column, Description, Executed, Row, StatementError, ValueRef};

use super::{output, text};
use crate::cost;
use crate::limits::ERROR_MESSAGE_BYTES_MAX;

/// Why a row is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowRefused {
    /// It would pass the limit of its response.
    TooLarge,
    /// Its database's memory has no room for it.
    NoMemory,
}

/// A text up to this long is taken to need six bytes for each of its own; the escapes of longer
/// ones are counted, so that a limit is not missed by megabytes.
const SHORT_TEXT_BYTES: usize = 4096;

/// More than stands around a value, and than a number takes.
const AROUND_VALUE_BYTES: usize = 64;

fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a Vec takes every write, and keys are none here");
}

/// A JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    json(out, text);
}

/// A JSON string, or null.
pub fn optional_string(out: &mut Vec<u8>, text: Option<&str>) {
    json(out, &text);
}

/// A JSON number.
pub fn integer(out: &mut Vec<u8>, number: u64) {
    json(out, &number);
}

/// `true` or `false`.
pub fn boolean(out: &mut Vec<u8>, value: bool) {
    json(out, &value);
}

/// An SQL value. A float stays one (`2.0`); NaN and infinities, which JSON lacks, are null inside
/// a float, as sqld has it; invalid UTF-8 becomes U+FFFD; a blob has no padding, as sqld's.
pub fn value(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"{\"type\":\"null\"}"),
        ValueRef::Integer(integer) => {
            out.extend_from_slice(b"{\"type\":\"integer\",\"value\":\"");
            json(out, &integer);
            out.extend_from_slice(b"\"}");
        }
        ValueRef::Real(float) => {
            out.extend_from_slice(b"{\"type\":\"float\",\"value\":");
            json(out, &float);
            out.push(b'}');
        }
        ValueRef::Text(bytes) => {
            out.extend_from_slice(b"{\"type\":\"text\",\"value\":");
            text::write(out, bytes);
            out.push(b'}');
        }
        ValueRef::Blob(bytes) => {
            out.extend_from_slice(b"{\"type\":\"blob\",\"base64\":\"");
            base64(out, bytes);
            out.extend_from_slice(b"\"}");
        }
    }
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    let encoded_bytes =
        base64::encoded_len(bytes.len(), false).expect("a blob is shorter than half the memory");
    out.resize(start + encoded_bytes, 0);
    let written = STANDARD_NO_PAD.encode_slice(bytes, &mut out[start..]);
    assert_eq!(written, Ok(encoded_bytes));
}

/// A row as a JSON array, if `out` stays within `end` bytes and what it grows by can be booked; else
/// `out` is as it was.
///
/// # Errors
/// [`RowRefused`].
pub fn row(
    out: &mut Vec<u8>,
    booking: &mut Booking,
    row: &dyn Row,
    end: usize,
) -> Result<(), RowRefused> {
    let start = out.len();
    out.push(b'[');
    for index in 0..row.column_count() {
        let item = row.value(index);
        let bound = out.len().saturating_add(bytes_bound(item));
        let refused = if bound > end && !fits(out.len(), item, end) {
            Some(RowRefused::TooLarge)
        } else if !output::is_reserved(booking, bound)
            && !output::reserve(out, booking, AROUND_VALUE_BYTES + encoded_bytes(item))
        {
            Some(RowRefused::NoMemory)
        } else {
            None
        };
        if let Some(refused) = refused {
            out.truncate(start);
            return Err(refused);
        }
        if index > 0 {
            out.push(b',');
        }
        value(out, item);
    }
    out.push(b']');
    if out.len() > end {
        out.truncate(start);
        return Err(RowRefused::TooLarge);
    }
    Ok(())
}

/// A quick upper bound for an encoded value.
fn bytes_bound(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => AROUND_VALUE_BYTES,
        ValueRef::Text(bytes) => AROUND_VALUE_BYTES + bytes.len() * 6,
        ValueRef::Blob(bytes) => AROUND_VALUE_BYTES + bytes.len() * 2,
    }
}

/// Near the limit: a closer look. Short values may overshoot and are taken back with their row.
fn fits(length_bytes: usize, value: ValueRef<'_>, end: usize) -> bool {
    let value_bytes = match value {
        ValueRef::Text(bytes) if bytes.len() <= SHORT_TEXT_BYTES => bytes.len(),
        value => encoded_bytes(value),
    };
    length_bytes.saturating_add(value_bytes) <= end
}

/// Bytes of a text or blob as JSON. A stray byte of invalid UTF-8 may become three.
fn encoded_bytes(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 0,
        ValueRef::Text(bytes) => bytes.iter().map(|byte| escaped_bytes(*byte)).sum(),
        ValueRef::Blob(bytes) => bytes.len() / 3 * 4,
    }
}

/// What one byte of text becomes; a stray byte of invalid UTF-8 becomes U+FFFD, three bytes.
fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..=0x1f => 6,
        _ => 1,
    }
}

/// `{"name":…,"decltype":…},…`: the items of `cols`.
pub fn columns(out: &mut Vec<u8>, columns: &mut dyn Iterator<Item = Column<'_>>) {
    for (index, column) in columns.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        self::column(out, column.name, column.declared_type);
    }
}

fn column(out: &mut Vec<u8>, name: &str, declared_type: Option<&str>) {
    out.extend_from_slice(b"{\"name\":");
    string(out, name);
    out.extend_from_slice(b",\"decltype\":");
    optional_string(out, declared_type);
    out.push(b'}');
}

/// `"affected_row_count":…,"last_insert_rowid":…`: the fields of a result and of a cursor's
/// `step_end`. The row id is a string in both, as the specification says; sqld writes a number into
/// `step_end`, on which hrana-client-ts throws.
pub fn effect(out: &mut Vec<u8>, executed: &Executed) {
    out.extend_from_slice(b"\"affected_row_count\":");
    json(out, &executed.affected_rows);
    out.extend_from_slice(b",\"last_insert_rowid\":");
    match executed.last_insert_rowid {
        None => out.extend_from_slice(b"null"),
        Some(rowid) => {
            out.push(b'"');
            json(out, &rowid);
            out.push(b'"');
        }
    }
}

/// The rest of a result after its rows: what was done and what it took.
pub fn executed(out: &mut Vec<u8>, executed: &Executed) {
    effect(out, executed);
    out.extend_from_slice(b",\"replication_index\":null,\"rows_read\":");
    json(out, &executed.rows_read);
    out.extend_from_slice(b",\"rows_written\":");
    json(out, &executed.rows_written);
    out.extend_from_slice(b",\"query_duration_ms\":");
    #[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
    let milliseconds = executed.duration_ns as f64 / 1e6;
    json(out, &milliseconds);
    out.push(b',');
    cost::write_json(out, &executed.cost);
}

/// `{"message":…,"code":…}`; both strings always, the Rust client decodes nothing else.
pub fn error(out: &mut Vec<u8>, error: &StatementError) {
    let message = &error.message;
    let end = message.floor_char_boundary(ERROR_MESSAGE_BYTES_MAX);
    out.extend_from_slice(b"{\"message\":");
    string(out, &message[..end]);
    out.extend_from_slice(b",\"code\":");
    string(out, error.code);
    out.push(b'}');
}

/// A describe result.
pub fn description(out: &mut Vec<u8>, description: &Description) {
    out.extend_from_slice(b"{\"params\":[");
    for (index, name) in description.parameters.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        optional_string(out, name.as_deref());
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"cols\":[");
    for (index, (name, declared_type)) in description.columns.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        column(out, name, declared_type.as_deref());
    }
    out.extend_from_slice(b"],\"is_explain\":");
    boolean(out, description.is_explain);
    out.extend_from_slice(b",\"is_readonly\":");
    boolean(out, description.is_readonly);
    out.push(b'}');
}
