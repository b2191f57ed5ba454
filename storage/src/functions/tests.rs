//! Our functions beside SQLite's, on drawn and on long arguments.

use std::cell::Cell;

use rusqlite::Connection;
use rusqlite::types::Value;

use super::*;
use crate::sqlite;

thread_local! {
    /// Functions are ours though no fiber runs, and how often they were called.
    static OURS: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A connection, and whose functions it calls.
struct Side {
    connection: Connection,
    is_ours: bool,
}

fn side(is_ours: bool) -> Side {
    sqlite::initialise();
    Side { connection: Connection::open_in_memory().expect("memory"), is_ours }
}

fn plain() -> Side {
    side(false)
}

fn ours() -> Side {
    side(true)
}

/// The result and its type, or the error's text.
fn run(side: &Side, sql: &str, arguments: &[Value]) -> Result<Value, String> {
    OURS.set(side.is_ours.then_some(0));
    let result = run_on(&side.connection, sql, arguments);
    let calls = OURS.take();
    assert!(result.is_err() || calls != Some(0), "ours were not asked: {sql}");
    result
}

/// Whether a call made now is ours.
pub(super) fn count_call() -> bool {
    OURS.set(OURS.get().map(|calls| calls + 1));
    OURS.get().is_some()
}

fn run_on(connection: &Connection, sql: &str, arguments: &[Value]) -> Result<Value, String> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| error.to_string())?;
    let parameters = rusqlite::params_from_iter(arguments.iter());
    statement.query_row(parameters, |row| row.get(0)).map_err(|error| error.to_string())
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Few letters, so that they repeat; some of several bytes, some halves of such, some NUL.
fn drawn(state: &mut u64) -> Value {
    const PIECES: [&[u8]; 12] = [
        b"a",
        b"b",
        b"ab",
        b" ",
        b"A",
        "ä".as_bytes(),
        "€".as_bytes(),
        b"\xc3",
        b"\xa4",
        b"\x82",
        b"\0",
        b"7",
    ];
    let draw = splitmix(state);
    let kinds = if draw.is_multiple_of(5) { PIECES.len() } else { 7 };
    let pieces = (draw >> 8) % [2, 4, 20, 60][(draw >> 16) as usize % 4];
    let bytes: Vec<u8> =
        (0..pieces).flat_map(|_| PIECES[splitmix(state) as usize % kinds].to_vec()).collect();
    match (draw >> 24) % 12 {
        0 => Value::Null,
        1 => Value::Integer((draw >> 40) as i64 % 200),
        2 => Value::Real((draw >> 40) as f64 / 8.0),
        3 | 4 => Value::Blob(bytes),
        _ => Value::Text(String::from_utf8(bytes).unwrap_or_else(|_| "aäb".into())),
    }
}

const CALLS: [(&str, usize); 12] = [
    ("SELECT instr(?1, ?2)", 2),
    ("SELECT replace(?1, ?2, ?3)", 3),
    ("SELECT trim(?1)", 1),
    ("SELECT ltrim(?1)", 1),
    ("SELECT rtrim(?1)", 1),
    ("SELECT trim(?1, ?2)", 2),
    ("SELECT ltrim(?1, ?2)", 2),
    ("SELECT rtrim(?1, ?2)", 2),
    ("SELECT hex(?1)", 1),
    ("SELECT upper(?1)", 1),
    ("SELECT lower(?1)", 1),
    // What is no UTF-8 reaches a function as text like this, and leaves it as bytes.
    ("SELECT CAST(replace(CAST(?1 AS TEXT), CAST(?2 AS TEXT), CAST(?3 AS TEXT)) AS BLOB)", 3),
];

/// As `CALLS`, with texts that are no UTF-8.
const CALLS_OF_BYTES: [&str; 5] = [
    "SELECT instr(CAST(?1 AS TEXT), CAST(?2 AS TEXT))",
    "SELECT hex(trim(CAST(?1 AS TEXT), CAST(?2 AS TEXT)))",
    "SELECT hex(ltrim(CAST(?1 AS TEXT), CAST(?2 AS TEXT)))",
    "SELECT hex(rtrim(CAST(?1 AS TEXT), CAST(?2 AS TEXT)))",
    "SELECT hex(upper(CAST(?1 AS TEXT)))",
];

#[test]
fn results_are_those_of_sqlite() {
    let (ours, plain) = (ours(), plain());
    let mut state = 1;
    for _ in 0..20_000 {
        let arguments = [drawn(&mut state), drawn(&mut state), drawn(&mut state)];
        for (sql, count) in CALLS {
            let results = [&ours, &plain].map(|side| run(side, sql, &arguments[..count]));
            assert_eq!(results[0], results[1], "{sql} {arguments:?}");
        }
        for sql in CALLS_OF_BYTES {
            let count = sql.matches('?').count();
            let results = [&ours, &plain].map(|side| run(side, sql, &arguments[..count]));
            assert_eq!(results[0], results[1], "{sql} {arguments:?}");
        }
    }
}

#[test]
fn an_argument_keeps_its_type() {
    for side in [ours(), plain()] {
        let sql = "SELECT typeof(x) FROM (SELECT CAST('abc' AS BLOB) AS x) WHERE instr(x, 'b') = 2";
        assert_eq!(run(&side, sql, &[]), Ok(Value::Text("blob".into())));
    }
}

#[test]
fn lengths_end_where_those_of_sqlite_do() {
    let (ours, plain) = (ours(), plain());
    for side in [&ours, &plain] {
        // SAFETY: an open connection.
        unsafe { ffi::sqlite3_limit(side.connection.handle(), ffi::SQLITE_LIMIT_LENGTH, 100) };
    }
    let mut refused = 0;
    for length in [48, 49, 50, 51, 98, 99, 100] {
        let text = Value::Text("a".repeat(length));
        for (replacement, pattern) in
            [("b", "a"), ("bb", "a"), ("", "aa"), ("bbb", "aa"), ("b", "x")]
        {
            let arguments =
                [text.clone(), Value::Text(pattern.into()), Value::Text(replacement.into())];
            for (sql, count) in CALLS {
                let results = [&ours, &plain].map(|side| run(side, sql, &arguments[..count]));
                assert_eq!(results[0], results[1], "{sql} {arguments:?}");
                refused += u32::from(results[0].is_err());
            }
        }
    }
    assert!(refused > 20, "{refused} results were too long");
}

/// Patterns of each way to search, at each place of the windows in which it is done.
#[test]
fn long_texts_are_searched_whole() {
    let ours = ours();
    for length in [1, 8, 9, 100, STRETCH_BYTES, STRETCH_BYTES + 1, 3 * STRETCH_BYTES] {
        let needle = format!("{}b", "a".repeat(length - 1));
        for before in [0, 1, STRETCH_BYTES - 1, STRETCH_BYTES, STRETCH_BYTES + 1, 100_000] {
            let text = format!("{}{needle}{needle}c", "-".repeat(before));
            let values = [Value::Text(text), Value::Text(needle.clone()), Value::Text("€".into())];
            let place = run(&ours, "SELECT instr(?1, ?2)", &values[..2]);
            assert_eq!(place, Ok(Value::Integer(before as i64 + 1)), "{length} {before}");
            let replaced = run(&ours, "SELECT replace(?1, ?2, ?3)", &values);
            let expected = format!("{}€€c", "-".repeat(before));
            assert_eq!(replaced, Ok(Value::Text(expected)), "{length} {before}");
        }
        let absent = Value::Text("a".repeat(200_000));
        let place = run(&ours, "SELECT instr(?1, ?2)", &[absent, Value::Text(needle)]);
        assert_eq!(place, Ok(Value::Integer(0)), "{length}");
    }
}

/// What `length()` counts, letter by letter: up to the first NUL, and what continues a character of
/// several bytes does not count.
fn characters(text: &[u8]) -> i64 {
    let text = text.split(|byte| *byte == 0).next().expect("a part");
    let mut count = 0;
    let mut is_open = false;
    for byte in text {
        count += i64::from(!is_open || byte & 0xc0 != 0x80);
        is_open = *byte >= 0x80;
    }
    count
}

/// `length()` is SQLite's for short texts, and of `myriad_hooks.h` for long ones.
#[test]
fn long_texts_have_as_many_characters_as_short_ones() {
    let plain = plain();
    let mut state = 5;
    let pieces: [&[u8]; 8] = [
        b"a",
        b"abcdefgh",
        "ä".as_bytes(),
        "€".as_bytes(),
        b"\xc3",
        b"\x80\x80",
        b"\xff",
        b"12345678",
    ];
    for round in 0..400_u64 {
        let bytes_min = [0, 100, 16_384, 65_536, 200_000][round as usize % 5];
        let kinds = if round % 3 == 0 { 2 } else { pieces.len() as u64 };
        let mut text = Vec::new();
        while text.len() <= bytes_min || !splitmix(&mut state).is_multiple_of(9) {
            text.extend_from_slice(pieces[(splitmix(&mut state) % kinds) as usize]);
        }
        if round % 4 == 0 {
            let place = splitmix(&mut state) as usize % text.len();
            text[place] = 0;
        }
        let expected = Ok(Value::Integer(characters(&text)));
        let sql = "SELECT length(CAST(?1 AS TEXT))";
        assert_eq!(run(&plain, sql, &[Value::Blob(text)]), expected, "round {round}");
    }
}
