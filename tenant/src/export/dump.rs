//! SQL text that makes an equal database, in the order and the words of `.dump` of SQLite's shell: tables
//! with their rows, then what needs them (views, triggers, indexes).
//!
//! Virtual tables are written as the shell writes them: a row of the schema, and their shadow tables as
//! ordinary ones. What differs from the shell's text: names are always in quotes; texts that hold a NUL or
//! are no UTF-8 are `CAST(x'…' AS TEXT)`, where the shell would cut them; numbers of the header that are
//! not 0 (`user_version`, `application_id`) are set.

use storage::sqlite::{Connection, SqliteError, Statement, ValueRef};

use super::{ExportError, Parts};
use crate::engine::{begin_snapshot, may_go_on};
use crate::session::PooledConnection;

/// Bytes of a text or blob that are written at a time.
const PIECE_BYTES: usize = 8 * 1024;

pub(super) fn write(
    pooled: &mut PooledConnection,
    parts: &mut Parts<'_>,
) -> Result<(), ExportError> {
    parts.set_pages(begin_snapshot(pooled)?.pages());
    let numbers = [
        ("user_version", pooled.query_integer("PRAGMA user_version")?),
        ("application_id", pooled.query_integer("PRAGMA application_id")?),
    ];
    parts.push(b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n");
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        parts.push(format!("PRAGMA {name}={number};\n").as_bytes());
    }
    let connection = pooled.connection();
    let mut dump = Dump { parts, writable_schema: false };
    let tables = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql IS NOT NULL \
                  ORDER BY tbl_name = 'sqlite_sequence', rowid";
    each_row(connection, tables, |connection, row| {
        let (name, sql) = (text_at(row, 0)?, text_at(row, 1)?);
        dump.table(connection, &name, &sql)
    })?;
    let others = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL \
                  AND type IN ('index', 'trigger', 'view') ORDER BY type DESC, rowid";
    each_row(connection, others, |_, row| {
        let sql = text_at(row, 0)?;
        dump.statement(sql.as_bytes())
    })?;
    if dump.writable_schema {
        parts.push(b"PRAGMA writable_schema=OFF;\n");
    }
    parts.push(b"COMMIT;\n");
    Ok(())
}

/// Run a statement of our own and look at each of its rows; statements may run meanwhile.
fn each_row(
    connection: &mut Connection,
    sql: &str,
    mut row: impl FnMut(&mut Connection, &Statement) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    connection.mark_statement();
    let (Some(mut statement), _) = connection.prepare(sql, false)? else {
        unreachable!("it is a statement")
    };
    while statement.step(connection)? {
        row(connection, &statement)?;
    }
    Ok(())
}

fn text_at(statement: &Statement, index: usize) -> Result<String, SqliteError> {
    Ok(match statement.column(index)? {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    })
}

/// A name in quotes.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_virtual(sql: &str) -> bool {
    const WORDS: &str = "CREATE VIRTUAL TABLE";
    sql.get(..WORDS.len()).is_some_and(|start| start.eq_ignore_ascii_case(WORDS))
}

struct Dump<'p, 'a> {
    parts: &'p mut Parts<'a>,
    /// Rows of the schema are written.
    writable_schema: bool,
}

impl Dump<'_, '_> {
    fn statement(&mut self, sql: &[u8]) -> Result<(), ExportError> {
        self.pieces(sql, |out, piece| out.extend_from_slice(piece))?;
        self.parts.push(b";\n");
        self.parts.flush_if_full()
    }

    fn table(
        &mut self,
        connection: &mut Connection,
        name: &str,
        sql: &str,
    ) -> Result<(), ExportError> {
        if name == "sqlite_sequence" {
            self.statement(b"DELETE FROM sqlite_sequence")?;
        } else if name.starts_with("sqlite_stat") {
            self.statement(b"ANALYZE sqlite_schema")?;
        } else if name.starts_with("sqlite_") {
            return Ok(());
        } else if is_virtual(sql) {
            return self.virtual_table(name, sql);
        } else {
            self.statement(sql.as_bytes())?;
        }
        self.rows(connection, name)
    }

    /// As the shell does: what the module would do is done already, in its shadow tables.
    fn virtual_table(&mut self, name: &str, sql: &str) -> Result<(), ExportError> {
        if !std::mem::replace(&mut self.writable_schema, true) {
            self.parts.push(b"PRAGMA writable_schema=ON;\n");
        }
        self.parts
            .push(b"INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table',");
        for text in [name, name] {
            self.value(ValueRef::Text(text.as_bytes()))?;
            self.parts.push(b",");
        }
        self.parts.push(b"0,");
        self.value(ValueRef::Text(sql.as_bytes()))?;
        self.parts.push(b");\n");
        self.parts.flush_if_full()
    }

    fn rows(&mut self, connection: &mut Connection, name: &str) -> Result<(), ExportError> {
        let table = quoted(name);
        let mut columns = Vec::new();
        // Generated ones are not in `table_info`, and are made again.
        each_row(connection, &format!("PRAGMA table_info({table})"), |_, row| {
            columns.push(quoted(&text_at(row, 1)?));
            Ok(())
        })?;
        if columns.is_empty() {
            return Ok(());
        }
        let begin = format!("INSERT INTO {table} VALUES(");
        let sql = format!("SELECT {} FROM {table}", columns.join(","));
        each_row(connection, &sql, |_, row| {
            self.parts.push(begin.as_bytes());
            for index in 0..columns.len() {
                if index > 0 {
                    self.parts.push(b",");
                }
                self.value(row.column(index)?)?;
            }
            self.parts.push(b");\n");
            self.parts.flush_if_full()
        })
    }

    fn value(&mut self, value: ValueRef<'_>) -> Result<(), ExportError> {
        match value {
            ValueRef::Null => self.parts.push(b"NULL"),
            ValueRef::Integer(number) => self.parts.push(number.to_string().as_bytes()),
            ValueRef::Real(number) => self.parts.push(real(number).as_bytes()),
            ValueRef::Text(text) if is_plain(text) => {
                self.parts.push(b"'");
                self.pieces(text, |out, piece| {
                    for &byte in piece {
                        out.push(byte);
                        if byte == b'\'' {
                            out.push(byte);
                        }
                    }
                })?;
                self.parts.push(b"'");
            }
            ValueRef::Text(text) => {
                self.parts.push(b"CAST(");
                self.blob(text)?;
                self.parts.push(b" AS TEXT)");
            }
            ValueRef::Blob(blob) => self.blob(blob)?,
        }
        Ok(())
    }

    fn blob(&mut self, blob: &[u8]) -> Result<(), ExportError> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.parts.push(b"X'");
        self.pieces(blob, |out, piece| {
            let digits = |byte: &u8| [byte >> 4, byte & 15].map(|half| DIGITS[half as usize]);
            out.extend(piece.iter().flat_map(digits));
        })?;
        self.parts.push(b"'");
        Ok(())
    }

    /// Write bytes piece by piece, letting parts leave in between: the row stays where it is meanwhile.
    fn pieces(
        &mut self,
        bytes: &[u8],
        write: impl Fn(&mut Vec<u8>, &[u8]),
    ) -> Result<(), ExportError> {
        for piece in bytes.chunks(PIECE_BYTES) {
            write(&mut self.parts.out, piece);
            self.parts.flush_if_full()?;
        }
        if bytes.len() > PIECE_BYTES { may_go_on().map_err(Into::into) } else { Ok(()) }
    }
}

/// A text that can stand in quotes.
fn is_plain(text: &[u8]) -> bool {
    !text.contains(&0) && std::str::from_utf8(text).is_ok()
}

/// A literal that SQLite reads as this very number; it stores no NaN.
fn real(number: f64) -> String {
    match number {
        f64::INFINITY => "1e999".to_owned(),
        f64::NEG_INFINITY => "-1e999".to_owned(),
        // 17 digits say which number it is, and the point or exponent that it is no integer.
        number => format!("{number:.16e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_as_the_numbers_that_they_are() {
        let connection = rusqlite::Connection::open_in_memory().expect("SQLite opens");
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        let mut numbers =
            vec![0.0, 0.1, 1.0, -1.5, 1e300, 5e-324, f64::MAX, f64::MIN_POSITIVE, 1e15];
        numbers.extend([f64::INFINITY, f64::NEG_INFINITY, 123_456_789_012_345_680.0]);
        for _ in 0..20_000 {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            numbers.extend(
                [f64::from_bits(bits), bits as f64 / 1e9].into_iter().filter(|n| n.is_finite()),
            );
        }
        let mut wrong = 0;
        for number in numbers {
            let sql = format!("SELECT {}", real(number));
            let read: f64 = connection.query_row(&sql, (), |row| row.get(0)).expect(&sql);
            wrong += u32::from(read != number);
        }
        assert_eq!(wrong, 0);
    }

    #[test]
    fn names_and_virtual_tables() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert!(is_virtual("create virtual table x using fts5(a)"));
        assert!(!is_virtual("CREATE TABLE virtual(a)") && !is_virtual("é"));
        assert!(is_plain("it's é".as_bytes()) && !is_plain(b"a\0b") && !is_plain(b"\xff"));
    }
}
