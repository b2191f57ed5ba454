//! Scripts of statements, run by the server and by plain SQLite.
//!
//! A recorded script has a line about its origin, then statements, each ended by
//! `; -- clock=<number>` and a new line; most have a `;` of their own before that.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::differences::Differences;
use super::outcome::{Failure, Outcome, difference};
use super::plain::Plain;
use super::stream::{Course, Post, SqlStream};

/// Statements of one request: their number and their bytes.
pub const REQUEST_STATEMENTS_MAX: usize = 32;
const REQUEST_SQL_BYTES_MAX: usize = 512 * 1024;
/// Failures of one script; what follows the first is often its consequence.
const FAILURES_MAX: usize = 5;

/// How many statements were compared, and why others were not.
#[derive(Default)]
pub struct Tally {
    compared: AtomicUsize,
    skipped: AtomicUsize,
    refused: AtomicUsize,
    other_rows: AtomicUsize,
}

impl Tally {
    /// Statements that gave the same on both sides.
    pub fn compared(&self) -> usize {
        self.compared.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        write!(
            f,
            "{} statements equal, {} refused on purpose, {} with other rows on purpose, {} skipped",
            of(&self.compared),
            of(&self.refused),
            of(&self.other_rows),
            of(&self.skipped)
        )
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The statements of a recorded script; those that are not UTF-8, which JSON cannot carry, and
/// those with a zero character, where SQLite would stop reading, are left out.
pub fn split(script: &[u8]) -> Vec<String> {
    let mut statements = Vec::new();
    let mut current: Vec<u8> = Vec::new();
    let origin = b"-- Main database is ";
    for line in script.split_inclusive(|&byte| byte == b'\n') {
        if current.is_empty() && statements.is_empty() && line.starts_with(origin) {
            continue;
        }
        current.extend_from_slice(line);
        if let Some(end) = end_of_statement(&current) {
            current.truncate(end);
            let statement = String::from_utf8(std::mem::take(&mut current));
            statements.extend(statement.ok().filter(|text| !text.contains('\0')));
        }
    }
    statements
}

/// Where the statement ends, if its last line ends with the recorder's mark.
fn end_of_statement(text: &[u8]) -> Option<usize> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let digits = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let text = text[..text.len() - digits].strip_suffix(b"; -- clock=")?;
    (digits > 0).then_some(text.len())
}

/// The statements of each script, without the scripts that hold the same as one before.
pub fn distinct(scripts: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<String>)> {
    let mut seen = BTreeSet::new();
    let split = scripts.into_iter().map(|(name, script)| (name, split(&script)));
    split.filter(|(_, statements)| seen.insert(statements.clone())).collect()
}

/// The statements of a file of ours: an empty line ends each, `--` starts a comment line.
pub fn split_sample(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with("--"));
    let text = lines.collect::<Vec<_>>().join("\n");
    text.split("\n\n").map(str::trim).filter(|sql| !sql.is_empty()).map(str::to_owned).collect()
}

/// Words of statements whose results depend on what their connection did before.
const ASKING: [&str; 2] = ["changes(", "last_insert_rowid"];

/// Pragmas that set nothing, or something in the file.
const HARMLESS_PRAGMAS: [&str; 8] = [
    "_info",
    "_xinfo",
    "_list",
    "_check",
    "user_version",
    "application_id",
    "data_version",
    "page_count",
];

/// The statement sets something that ends with its connection, or, with statistics of the planner,
/// something that only the next connection notices.
fn sets_state(sql: &str) -> bool {
    let pragma = sql.contains("pragma") && !HARMLESS_PRAGMAS.iter().any(|word| sql.contains(word));
    pragma || sql.contains("sqlite_stat")
}

/// The places between statements at which the answers to come would stay the same if the connection
/// changed, as long as no transaction is open there: by the number of statements before them.
fn places_without_state(statements: &[String]) -> Range<usize> {
    let lower: Vec<String> = statements.iter().map(|sql| sql.to_ascii_lowercase()).collect();
    let asks = |sql: &String| ASKING.iter().any(|word| sql.contains(word));
    let from = lower.iter().rposition(asks).map_or(0, |index| index + 1);
    let until = lower.iter().position(|sql| sets_state(sql)).unwrap_or(lower.len());
    from..until + 1
}

/// Run a script on both sides, the server's on a stream of its own. Gives what differs and is not
/// on the list.
pub fn compare<P: Post>(
    stream: &mut SqlStream<P>,
    statements: &[String],
    differences: &Differences,
    course: &mut impl Course<P>,
    tally: &Tally,
) -> Vec<String> {
    let plain = Plain::open();
    let places = places_without_state(statements);
    let mut failures = Vec::new();
    let mut rest: &[String] = statements;
    while !rest.is_empty() && failures.len() < FAILURES_MAX {
        let (part, after) = rest.split_at(part_of(rest, course.statements_max()));
        rest = after;
        let (run, skipped): (Vec<_>, Vec<_>) =
            part.iter().map(String::as_str).partition(|sql| !differences.skips(sql));
        tally.skipped.fetch_add(skipped.len(), Ordering::Relaxed);
        let served = match stream.execute(&run) {
            Ok(served) => served,
            Err(error) => {
                failures.push(format!("request with {:?}…: {error}", run.first()));
                break;
            }
        };
        for (sql, served) in run.iter().zip(&served) {
            failures.extend(compare_one(&plain, sql, served, differences, tally));
        }
        let place = statements.len() - rest.len();
        course.between(stream, places.contains(&place) && plain.is_autocommit());
    }
    failures.truncate(FAILURES_MAX);
    failures.extend(stream.close().err());
    failures
}

fn part_of(statements: &[String], statements_max: usize) -> usize {
    let mut bytes = 0;
    let count_max = statements_max.clamp(1, REQUEST_STATEMENTS_MAX);
    let fitting = statements.iter().take(count_max).take_while(|sql| {
        bytes += sql.len();
        bytes <= REQUEST_SQL_BYTES_MAX
    });
    fitting.count().max(1)
}

fn compare_one(
    plain: &Plain,
    sql: &str,
    served: &Outcome,
    differences: &Differences,
    tally: &Tally,
) -> Option<String> {
    if let Err(failure) = served {
        if failure.code == "SQL_NO_STATEMENT" {
            count(&tally.compared);
            let same = plain.is_no_statement(sql);
            return (!same).then(|| format!("{sql:?}: served SQL_NO_STATEMENT"));
        }
        if differences.refuses(sql, failure) {
            count(&tally.refused);
            if is_rolled_back(failure) {
                plain.roll_back();
            }
            return None;
        }
    }
    let expected = plain.execute(sql);
    if difference(served, &expected).is_none() {
        count(&tally.compared);
        return None;
    }
    if served.is_ok() == expected.is_ok() && differences.allows_other_rows(sql) {
        count(&tally.other_rows);
        return None;
    }
    difference(served, &expected).map(|text| format!("{sql:?}: {text}"))
}

fn is_rolled_back(failure: &Failure) -> bool {
    failure.message.ends_with("the transaction was rolled back")
}

#[test]
fn splitting() {
    let script =
        b"-- Main database is 'x'\nSELECT ';\n--';; -- clock=12\nSELECT\n 2; -- clock=13\nSELECT 3";
    assert_eq!(split(script), ["SELECT ';\n--';", "SELECT\n 2"]);
    let script = ["SELECT changes()", "SELECT 1", "PRAGMA foreign_keys=0", "SELECT 2"];
    assert_eq!(places_without_state(&script.map(str::to_owned)), 1..3);
    assert_eq!(places_without_state(&[script[0].to_owned(), script[1].to_owned()]), 1..3);
    assert_eq!(split_sample("-- a\nSELECT 1;\n\n\nSELECT\n2;\n"), ["SELECT 1;", "SELECT\n2;"]);
}
