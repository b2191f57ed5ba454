//! sqllogictest scripts: records of a statement or a query with its expected result.
//!
//! The crate `sqllogictest` reads another dialect: it takes no comment behind `skipif` and
//! `onlyif`, of which these scripts have 150,000, and does not tell its engine the column types,
//! by which values are formatted here (`I` as an integer whatever it is, `R` with three digits,
//! `T` with `@` for what is not printable). So this is a runner of its own, after
//! <https://www.sqlite.org/sqllogictest/doc/trunk/about.wiki>.

use super::differences::Differences;
use super::md5;
use super::outcome::{Outcome, Value};
use super::stream::{Course, Post, SqlStream};

/// Records of one request: few enough that a loaded machine ends them within the time that the
/// server gives a request.
pub const REQUEST_RECORDS_MAX: usize = 16;
/// Failures of one script.
const FAILURES_MAX: usize = 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    None,
    Rows,
    Values,
}

enum Expected<'a> {
    Ok,
    Error,
    Rows { types: &'a str, sort: Sort, lines: Vec<&'a str> },
}

struct Record<'a> {
    line: usize,
    sql: String,
    expected: Expected<'a>,
}

/// Run a script on a stream of its own; gives the number of records, and adds a text for each
/// failure. The scripts keep no state in a connection.
///
/// # Errors
/// The script or the server's answer could not be read.
pub fn run<P: Post>(
    stream: &mut SqlStream<P>,
    script: &str,
    differences: &Differences,
    course: &mut impl Course<P>,
    failures: &mut Vec<String>,
) -> Result<usize, String> {
    let records = parse(script)?;
    let mut rest = records.as_slice();
    while !rest.is_empty() {
        let count = course.statements_max().clamp(1, REQUEST_RECORDS_MAX).min(rest.len());
        let (part, after) = rest.split_at(count);
        rest = after;
        let statements: Vec<_> = part.iter().map(|record| record.sql.as_str()).collect();
        let outcomes = stream.execute_by_cursor(&statements)?;
        for (record, outcome) in part.iter().zip(&outcomes) {
            if let Err(failure) = outcome
                && differences.refuses(&record.sql, failure)
            {
                continue;
            }
            if let Err(error) = check(record, outcome) {
                failures.push(format!("{}: {error}: {}", record.line, record.sql));
            }
        }
        if failures.len() >= FAILURES_MAX {
            break;
        }
        course.between(stream, true);
    }
    stream.close()?;
    Ok(records.len())
}

fn parse(script: &str) -> Result<Vec<Record<'_>>, String> {
    let mut records = Vec::new();
    let mut lines = script.lines().enumerate().map(|(index, line)| (index + 1, line)).peekable();
    let mut wanted = true;
    while let Some((number, line)) = lines.next() {
        let words: Vec<_> = line.split_whitespace().collect();
        let expected = match words.as_slice() {
            [] | ["hash-threshold", ..] => continue,
            [first, ..] if first.starts_with('#') => continue,
            ["halt", ..] if wanted => break,
            ["halt", ..] => {
                wanted = true;
                continue;
            }
            ["skipif", name, ..] => {
                wanted &= *name != "sqlite";
                continue;
            }
            ["onlyif", name, ..] => {
                wanted &= *name == "sqlite";
                continue;
            }
            ["statement", "ok", ..] => Expected::Ok,
            ["statement", "error", ..] => Expected::Error,
            ["query", types, rest @ ..] => {
                let sort = match rest.first() {
                    None | Some(&"nosort") => Sort::None,
                    Some(&"rowsort") => Sort::Rows,
                    Some(&"valuesort") => Sort::Values,
                    Some(other) => return Err(format!("line {number}: sort mode {other}")),
                };
                Expected::Rows { types, sort, lines: Vec::new() }
            }
            _ => return Err(format!("line {number}: {line}")),
        };
        let mut sql = Vec::new();
        let mut results = Vec::new();
        let mut in_results = false;
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
            match line {
                "----" => in_results = true,
                line if in_results => results.push(line),
                line => sql.push(line),
            }
        }
        let expected = match expected {
            Expected::Rows { types, sort, .. } => Expected::Rows { types, sort, lines: results },
            other => other,
        };
        if std::mem::replace(&mut wanted, true) {
            records.push(Record { line: number, sql: sql.join("\n"), expected });
        }
    }
    Ok(records)
}

fn check(record: &Record<'_>, outcome: &Outcome) -> Result<(), String> {
    match (&record.expected, outcome) {
        (Expected::Ok, Ok(_)) | (Expected::Error, Err(_)) => Ok(()),
        (Expected::Error, Ok(_)) => Err("no error".to_owned()),
        (Expected::Ok | Expected::Rows { .. }, Err(failure)) => {
            Err(format!("{} {}", failure.code, failure.message))
        }
        (Expected::Rows { types, sort, lines }, Ok(rows)) => {
            if rows.names.len() != types.len() {
                return Err(format!("{} columns", rows.names.len()));
            }
            let mut formatted: Vec<Vec<String>> = rows
                .rows
                .iter()
                .map(|row| row.iter().zip(types.chars()).map(|(v, t)| format(v, t)).collect())
                .collect();
            if *sort == Sort::Rows {
                formatted.sort_unstable();
            }
            let mut values: Vec<String> = formatted.into_iter().flatten().collect();
            if *sort == Sort::Values {
                values.sort_unstable();
            }
            compare(&values, lines)
        }
    }
}

fn compare(values: &[String], lines: &[&str]) -> Result<(), String> {
    if let [line] = lines
        && let Some((count, hash)) = line.split_once(" values hashing to ")
    {
        let text: String = values.iter().flat_map(|value| [value.as_str(), "\n"]).collect();
        let found = md5::hex(text.as_bytes());
        let same = count.parse() == Ok(values.len()) && found == hash;
        return same.then_some(()).ok_or(format!("{} values {found}, not {line}", values.len()));
    }
    let same = values.iter().map(String::as_str).eq(lines.iter().copied());
    same.then_some(()).ok_or_else(|| format!("{values:?}, not {lines:?}"))
}

fn format(value: &Value, kind: char) -> String {
    match (value, kind) {
        (Value::Null, _) => "NULL".to_owned(),
        (value, 'I') => integer(value).to_string(),
        (value, 'R') => three_digits(real(value)),
        (value, _) => {
            let text = match value {
                Value::Null => unreachable!("matched above"),
                Value::Integer(integer) => integer.to_string(),
                Value::Real(real) => real.to_string(),
                Value::Text(text) => text.clone(),
                Value::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            };
            if text.is_empty() {
                return "(empty)".to_owned();
            }
            text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '@' }).collect()
        }
    }
}

/// As SQLite's `%.3f`, which knows 16 digits and fills up with zeros.
fn three_digits(real: f64) -> String {
    if real.abs() < 1e15 {
        return format!("{real:.3}");
    }
    let scientific = format!("{real:.15e}");
    let (digits, exponent) = scientific.split_once('e').expect("it is in scientific notation");
    let exponent: usize = exponent.parse().expect("it is not negative");
    let sign = if real < 0.0 { "-" } else { "" };
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    format!("{sign}{digits:0<width$}.000", width = exponent + 1)
}

/// As `sqlite3_column_int64`.
fn integer(value: &Value) -> i64 {
    match value {
        Value::Null => 0,
        Value::Integer(integer) => *integer,
        #[expect(clippy::cast_possible_truncation, reason = "truncation is what SQLite does")]
        Value::Real(real) => *real as i64,
        Value::Text(text) => leading_integer(text),
        Value::Blob(bytes) => leading_integer(&String::from_utf8_lossy(bytes)),
    }
}

fn leading_integer(text: &str) -> i64 {
    let text = text.trim_start();
    let signs = usize::from(text.starts_with(['-', '+']));
    let digits = text[signs..].bytes().take_while(u8::is_ascii_digit).count();
    text[..signs + digits].parse().unwrap_or(0)
}

/// As `sqlite3_column_double`, for what scripts put into `R` columns.
fn real(value: &Value) -> f64 {
    match value {
        Value::Null | Value::Blob(_) => 0.0,
        #[expect(clippy::cast_precision_loss, reason = "it is what SQLite does")]
        Value::Integer(integer) => *integer as f64,
        Value::Real(real) => *real,
        Value::Text(text) => {
            let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
            let end = text.find(|c| !numeric(c)).unwrap_or(text.len());
            text[..end].parse().unwrap_or(0.0)
        }
    }
}

#[test]
fn formats() {
    for (real, expected) in [
        (1.25, "1.250"),
        (-0.0004, "-0.000"),
        (-9_223_372_036_854_775_808.0, "-9223372036854776000.000"),
        (18_446_744_073_709_551_616.0, "18446744073709550000.000"),
    ] {
        assert_eq!(three_digits(real), expected);
    }
    assert_eq!(format(&Value::Text("-12x".to_owned()), 'I'), "-12");
    assert_eq!(format(&Value::Text(String::new()), 'T'), "(empty)");
    assert_eq!(format(&Value::Text("a\té".to_owned()), 'T'), "a@@");
    assert_eq!(format(&Value::Real(2.9), 'I'), "2");
}
