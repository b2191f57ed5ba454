//! Creates and drops of many: a part of them in one transaction, with the record of how far they are.
//!
//! A record is found by the caller's key, and written in the transaction of each part: so after a
//! crash whoever asks again with that key goes on where the last part that is durable ended, and who
//! asks after the end is told what was told before. Records are kept for a day, and the newest of
//! them: a hundred of an organisation, whoever of it has asked, and a thousand of all.

use storage::sqlite::{SqliteError, ValueRef};

use super::rows::{NodeId, integer_at, read, run, text_at};
use super::{Call, Outcome, carry_out_one, now_s};
use crate::access::Scope;
use crate::session::PooledConnection;

/// How long a record is kept, in seconds.
const KEPT_S: i64 = 86_400;

/// Records at most.
const RECORDS_MAX: i64 = 1_000;

/// Records at most of one organisation.
const RECORDS_OF_ONE_MAX: i64 = RECORDS_MAX / 10;

/// Old records that go with each new one.
const FORGOTTEN: i64 = 4;

/// A caller's key: another caller's of the same text finds nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkKey {
    /// What the caller may see.
    pub scope: Scope,
    /// The key.
    pub text: Box<str>,
}

/// How far a bulk call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkRecord {
    /// The caller's key.
    pub key: BulkKey,
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
    let of_record =
        record.map_or(0, |record| 16 + (record.outcome.len() + 32 * calls.len()) / 2048);
    of_calls + of_record as u32
}

/// Whose records this is one of: an organisation's, or 0 for the operator's.
fn owner(pooled: &mut PooledConnection, scope: Scope) -> Result<NodeId, SqliteError> {
    let (sql, id) = match scope {
        Scope::Machine | Scope::Name(_) => return Ok(NodeId(0)),
        Scope::Node(node) => {
            ("SELECT iif(parent = 0, id, parent) FROM nodes WHERE id = ?1", node.0)
        }
        Scope::Database(tenant) => (
            "SELECT g.parent FROM databases d JOIN nodes g ON g.id = d.group_id WHERE d.id = ?1",
            tenant.0,
        ),
    };
    let found = read(pooled, sql, &[ValueRef::Integer(id as i64)], |row| Ok(integer_at(row, 0)))?;
    Ok(NodeId(found.first().copied().unwrap_or(0) as u64))
}

/// How a key stands in its record: behind its owner and its scope.
fn stored(owner: NodeId, key: &BulkKey) -> String {
    let text = &key.text;
    match key.scope {
        Scope::Machine => format!("{}/machine:{text}", owner.0),
        Scope::Node(node) => format!("{}/node{}:{text}", owner.0, node.0),
        Scope::Database(tenant) => format!("{}/database{}:{text}", owner.0, tenant.0),
        Scope::Name(_) => format!("{}/name:{text}", owner.0),
    }
}

/// The record of a key.
pub(super) fn find(pooled: &mut PooledConnection, key: &BulkKey) -> Result<Outcome, SqliteError> {
    let sql = "SELECT digest, done, outcome FROM bulk WHERE key = ?1 AND created_s > ?2";
    let stored = stored(owner(pooled, key.scope)?, key);
    let arguments =
        [ValueRef::Text(stored.as_bytes()), ValueRef::Integer(now_s().saturating_sub(KEPT_S))];
    let found = read(pooled, sql, &arguments, |statement| {
        Ok(BulkRecord {
            key: key.clone(),
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
        let mut found = failures::read(&record.outcome);
        let words = outcomes.iter().map(Outcome::failure_word);
        found.extend((record.done..).zip(words).filter_map(|(index, word)| Some((index, word?))));
        let outcome = failures::write(&found);
        let done = record.done + calls.len();
        put(pooled, &BulkRecord { outcome: outcome.into(), done, ..record.clone() })?;
    }
    Ok(Outcome::Many(outcomes))
}

/// A call that goes on looks at its last part again: what was done stays so.
fn put(pooled: &mut PooledConnection, record: &BulkRecord) -> Result<(), SqliteError> {
    let now_s = now_s();
    let owner = owner(pooled, record.key.scope)?;
    let key = stored(owner, &record.key);
    let sql = "INSERT INTO bulk(key, digest, created_s, done, outcome) VALUES(?1, ?2, ?3, ?4, ?5) \
               ON CONFLICT(key) DO UPDATE SET digest = excluded.digest, done = max(done, excluded.done), \
               outcome = excluded.outcome, created_s = excluded.created_s";
    let arguments = [
        ValueRef::Text(key.as_bytes()),
        ValueRef::Blob(&record.digest),
        ValueRef::Integer(now_s),
        ValueRef::Integer(record.done as i64),
        ValueRef::Text(record.outcome.as_bytes()),
    ];
    run(pooled, sql, &arguments)?;
    // Who has too many loses of its own. Where all together are too many, so does who has the most.
    let of_one = count(pooled, owner)?;
    let loser = if owner != NodeId(0) && of_one > RECORDS_OF_ONE_MAX {
        Some(owner)
    } else if count_all(pooled)? > RECORDS_MAX {
        let sql = "SELECT CAST(key AS INTEGER) AS owner FROM bulk GROUP BY owner ORDER BY count(*) DESC LIMIT 1";
        let most = read(pooled, sql, &[], |row| Ok(integer_at(row, 0)))?;
        most.first().map(|&owner| NodeId(owner as u64))
    } else {
        None
    };
    if let Some(loser) = loser {
        let (from, to) = range(loser);
        let sql = "DELETE FROM bulk WHERE key IN (SELECT key FROM bulk WHERE key > ?1 AND key < ?2 AND \
                   key <> ?3 ORDER BY created_s LIMIT ?4)";
        let arguments = [
            ValueRef::Text(from.as_bytes()),
            ValueRef::Text(to.as_bytes()),
            ValueRef::Text(key.as_bytes()),
            ValueRef::Integer(FORGOTTEN),
        ];
        run(pooled, sql, &arguments)?;
    }
    let sql = "DELETE FROM bulk WHERE key IN (SELECT key FROM bulk WHERE created_s < ?1 AND key <> ?3 \
               ORDER BY created_s LIMIT ?2)";
    let before_s = ValueRef::Integer(now_s.saturating_sub(KEPT_S));
    run(pooled, sql, &[before_s, ValueRef::Integer(FORGOTTEN), ValueRef::Text(key.as_bytes())])
}

/// Between which texts the records of an owner stand.
fn range(owner: NodeId) -> (String, String) {
    // What comes behind the stroke.
    (format!("{}/", owner.0), format!("{}0", owner.0))
}

fn count(pooled: &mut PooledConnection, owner: NodeId) -> Result<i64, SqliteError> {
    let (from, to) = range(owner);
    let sql = "SELECT count(*) FROM bulk WHERE key > ?1 AND key < ?2";
    let arguments = [ValueRef::Text(from.as_bytes()), ValueRef::Text(to.as_bytes())];
    let count = read(pooled, sql, &arguments, |row| Ok(integer_at(row, 0)))?;
    Ok(count.first().copied().unwrap_or(0))
}

fn count_all(pooled: &mut PooledConnection) -> Result<i64, SqliteError> {
    let count = read(pooled, "SELECT count(*) FROM bulk", &[], |row| Ok(integer_at(row, 0)))?;
    Ok(count.first().copied().unwrap_or(0))
}

/// The end of a bulk call: what is said of all.
pub(super) fn end(
    pooled: &mut PooledConnection,
    key: &BulkKey,
    outcome: &str,
) -> Result<Outcome, SqliteError> {
    let sql = "UPDATE bulk SET outcome = ?2 WHERE key = ?1";
    let key = stored(owner(pooled, key.scope)?, key);
    run(pooled, sql, &[ValueRef::Text(key.as_bytes()), ValueRef::Text(outcome.as_bytes())])?;
    Ok(Outcome::Done)
}

/// What was not carried out, as a record keeps it: a letter for each name in its place, behind how many
/// names in a row it is for if that is not 1. A call about as many names as may be takes as many bytes at
/// most, whatever came of them; in words it was twenty times that, written anew with each part.
pub(crate) mod failures {
    use crate::engine::bulk_words;

    /// Stands for a name of which there is nothing to say.
    const DONE: char = '-';

    fn letter(index: usize) -> char {
        char::from(b'A' + index as u8)
    }

    /// The text of these places and words.
    pub(crate) fn write(failures: &[(usize, &'static str)]) -> String {
        let mut failures = failures.to_vec();
        failures.sort_unstable();
        failures.dedup_by_key(|(index, _)| *index);
        let mut runs: Vec<(usize, char)> = Vec::new();
        let mut push = |count: usize, letter: char| match runs.last_mut() {
            Some((before, last)) if *last == letter => *before += count,
            _ if count == 0 => {}
            _ => runs.push((count, letter)),
        };
        let mut next = 0;
        for (index, word) in failures {
            push(index - next, DONE);
            let place = bulk_words().position(|known| known == word);
            push(1, letter(place.expect("the words of failures are listed")));
            next = index + 1;
        }
        let text = |&(count, letter): &(usize, char)| match count {
            1 => letter.to_string(),
            _ => format!("{count}{letter}"),
        };
        runs.iter().map(text).collect()
    }

    /// What was written. Other text is passed over.
    pub(crate) fn read(text: &str) -> Vec<(usize, &'static str)> {
        let mut failures = Vec::new();
        let (mut index, mut count) = (0_usize, None);
        for letter in text.chars() {
            if let Some(digit) = letter.to_digit(10) {
                count = Some(
                    count.unwrap_or(0_usize).saturating_mul(10).saturating_add(digit as usize),
                );
                continue;
            }
            let end = index + count.take().unwrap_or(1).min(crate::limits::BULK_MAX);
            let place = (letter as usize).wrapping_sub('A' as usize);
            if let Some(word) = bulk_words().nth(place) {
                failures.extend((index..end).map(|index| (index, word)));
            }
            index = end;
        }
        failures
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_written_is_read() {
            let words: Vec<&str> = bulk_words().collect();
            let mut random = 1_u64;
            for names in [0, 1, 5, 300] {
                for _ in 0..200 {
                    let mut draw = |bound: u64| {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (random >> 33) % bound
                    };
                    let kinds = 1 + draw(words.len() as u64);
                    let mut failures: Vec<(usize, &str)> = Vec::new();
                    for index in 0..names {
                        if draw(3) > 0 {
                            failures.push((index, words[draw(kinds) as usize]));
                        }
                    }
                    let text = write(&failures);
                    assert_eq!(read(&text), failures, "{text}");
                    assert!(text.len() <= names, "{text}");
                }
            }
            let all: Vec<(usize, &str)> = (0..10_000).map(|index| (index, "FORBIDDEN")).collect();
            assert_eq!(write(&all).len(), 6);
            assert_eq!(read("99999999999999999999999A!?"), read("10000A"));
            assert_eq!(read("3=DATABASE_EXISTS"), read("3-DATABASE_EXISTS"));
        }
    }
}
