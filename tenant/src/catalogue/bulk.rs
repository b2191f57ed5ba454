//! Creates and drops of many: a part of them in one transaction, with the record of how far they are.
//!
//! A record is found by the caller's key, and written in the transaction of each part: so after a
//! crash whoever asks again with that key goes on where the last part that is durable ended, and who
//! asks after the end is told what was told before. Records are kept for a day, and the newest
//! thousand of them.

use storage::sqlite::{SqliteError, ValueRef};

use super::rows::{integer_at, read, run, text_at};
use super::{Call, Outcome, carry_out_one, now_s};
use crate::session::PooledConnection;

/// How long a record is kept, in seconds.
const KEPT_S: i64 = 86_400;

/// Records at most.
const RECORDS_MAX: i64 = 1_000;

/// Old records that go with each new one.
const FORGOTTEN: i64 = 4;

/// How far a bulk call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkRecord {
    /// The caller's key.
    pub key: Box<str>,
    /// Of what was asked.
    pub digest: [u8; 32],
    /// Names that have been gone through.
    pub done: usize,
    /// What came of them, as the engine writes it.
    pub outcome: Box<str>,
}

/// Pages that a part may change. New rows stand together, and so do their times; each name and each
/// place in a group may be on a leaf of its own, and a dropped one's keys too.
pub(super) fn pages(record: Option<&BulkRecord>, calls: &[Call]) -> u32 {
    let of_calls = 11 + 4 * calls.len() as u32;
    let of_record = record.map_or(0, |record| 8 + (record.outcome.len() + 32 * calls.len()) / 2048);
    of_calls + of_record as u32
}

/// The record of a key.
pub(super) fn find(pooled: &mut PooledConnection, key: &str) -> Result<Outcome, SqliteError> {
    let sql = "SELECT digest, done, outcome FROM bulk WHERE key = ?1 AND created_s > ?2";
    let arguments =
        [ValueRef::Text(key.as_bytes()), ValueRef::Integer(now_s().saturating_sub(KEPT_S))];
    let found = read(pooled, sql, &arguments, |statement| {
        Ok(BulkRecord {
            key: key.into(),
            digest: super::rows::blob_at(statement, 0).unwrap_or_default(),
            done: integer_at(statement, 1) as usize,
            outcome: text_at(statement, 2).unwrap_or_default().into(),
        })
    })?;
    Ok(Outcome::BulkRecord(found.into_iter().next().map(Box::new)))
}

/// Carry out a part, one call after the other; where there is a key, with its record. `note` writes
/// down what came of a call that was not carried out.
pub(super) fn carry_out(
    pooled: &mut PooledConnection,
    record: Option<&BulkRecord>,
    calls: &[Call],
) -> Result<Outcome, SqliteError> {
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(carry_out_one(pooled, call)?);
    }
    if let Some(record) = record {
        let mut outcome = record.outcome.to_string();
        for (index, of_one) in outcomes.iter().enumerate() {
            if let Some(word) = of_one.failure_word() {
                let space = if outcome.is_empty() { "" } else { " " };
                outcome.push_str(&format!("{space}{}={word}", record.done + index));
            }
        }
        let done = record.done + calls.len();
        put(pooled, &BulkRecord { outcome: outcome.into(), done, ..record.clone() })?;
    }
    Ok(Outcome::Many(outcomes))
}

/// A call that goes on looks at its last part again: what was done stays so.
fn put(pooled: &mut PooledConnection, record: &BulkRecord) -> Result<(), SqliteError> {
    let now_s = now_s();
    let sql = "INSERT INTO bulk(key, digest, created_s, done, outcome) VALUES(?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT(key) DO UPDATE SET digest = excluded.digest, done = max(done, excluded.done), \
               outcome = excluded.outcome, created_s = excluded.created_s";
    let arguments = [
        ValueRef::Text(record.key.as_bytes()),
        ValueRef::Blob(&record.digest),
        ValueRef::Integer(now_s),
        ValueRef::Integer(record.done as i64),
        ValueRef::Text(record.outcome.as_bytes()),
    ];
    run(pooled, sql, &arguments)?;
    let count = read(pooled, "SELECT count(*) FROM bulk", &[], |row| Ok(integer_at(row, 0)))?;
    let is_full = count.first().is_some_and(|&count| count > RECORDS_MAX);
    let before_s = if is_full { i64::MAX } else { now_s.saturating_sub(KEPT_S) };
    let sql = "DELETE FROM bulk WHERE key IN (SELECT key FROM bulk WHERE created_s < ?1 AND key <> ?3 \
               ORDER BY created_s LIMIT ?2)";
    let own = ValueRef::Text(record.key.as_bytes());
    run(pooled, sql, &[ValueRef::Integer(before_s), ValueRef::Integer(FORGOTTEN), own])
}

/// The end of a bulk call: what is said of all.
pub(super) fn end(
    pooled: &mut PooledConnection,
    key: &str,
    outcome: &str,
) -> Result<Outcome, SqliteError> {
    let sql = "UPDATE bulk SET outcome = ?2 WHERE key = ?1";
    run(pooled, sql, &[ValueRef::Text(key.as_bytes()), ValueRef::Text(outcome.as_bytes())])?;
    Ok(Outcome::Done)
}
