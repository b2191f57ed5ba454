//! Files as SQLite itself makes them: one with everything in it, by page size and encoding.

use std::path::Path;

use rusqlite::Connection;

/// Everything that a database may have, and that is to be there after an upload.
pub const EVERYTHING: &str = r#"
CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b TEXT, c REAL, d BLOB, e NUMERIC);
INSERT INTO plain VALUES(1, NULL, 'grüße, 世界', 1.5, x'00ff10', '12');
INSERT INTO plain VALUES(-5, 9223372036854775807, '', -0.0, zeroblob(3), 1e300);
INSERT INTO plain VALUES(1000000, 'text in any', 'a''b"c', 9e999, x'', -9e999);
CREATE TABLE "odd name; --"(rowid, "a""b", [c d], `e`);
INSERT INTO "odd name; --"(_rowid_, rowid, "a""b") VALUES(77, 'mine', 'quoted');
CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
INSERT INTO counted(v) VALUES('a'), ('b'), ('c');
DELETE FROM counted WHERE id = 3;
CREATE TABLE keyed(k TEXT, n INTEGER, v, PRIMARY KEY(k, n DESC)) WITHOUT ROWID;
INSERT INTO keyed VALUES('x', 1, 'one'), ('x', 2, 'two'), ('a', 3, NULL);
CREATE TABLE strict(i INTEGER NOT NULL, t TEXT, x ANY) STRICT;
INSERT INTO strict VALUES(1, 't', 2.5), (2, NULL, 'any');
CREATE TABLE derived(a INTEGER, v INTEGER AS (a * 2), s TEXT AS (a || '!') STORED, z INTEGER);
INSERT INTO derived(a, z) VALUES(4, 9), (5, 8);
CREATE TABLE parent(id INTEGER PRIMARY KEY);
CREATE TABLE child(p INTEGER REFERENCES parent(id), n INTEGER DEFAULT 7 CHECK(n > 0));
INSERT INTO child(p) VALUES(12345);
CREATE UNIQUE INDEX plain_b ON plain(b COLLATE NOCASE);
CREATE INDEX partial ON plain(a) WHERE a IS NOT NULL;
CREATE INDEX expression ON derived(abs(a) DESC);
CREATE VIEW seen AS SELECT id, b FROM plain WHERE id > 0;
CREATE TABLE log(what);
CREATE TRIGGER watch AFTER INSERT ON counted BEGIN
  INSERT INTO log VALUES('; in ' || new.v); SELECT CASE WHEN 1 THEN 2 END;
END;
CREATE VIRTUAL TABLE words USING fts5(title, body, tag UNINDEXED, tokenize = 'porter unicode61');
INSERT INTO words(rowid, title, body, tag) VALUES(3, 'Running', 'the quick brown fox', 't1');
INSERT INTO words(rowid, title, body, tag) VALUES(-9, 'Second', 'jumped over dogs', 2);
INSERT INTO words(words, rank) VALUES('rank', 'bm25(10.0, 5.0)');
CREATE TABLE notes(id INTEGER PRIMARY KEY, text);
INSERT INTO notes VALUES(1, 'external content'), (2, 'more of it');
CREATE VIRTUAL TABLE notes_index USING fts5(text, content = 'notes', content_rowid = 'id');
INSERT INTO notes_index(notes_index) VALUES('rebuild');
CREATE VIRTUAL TABLE terms USING fts5vocab(words, row);
CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1, +label TEXT);
CREATE VIRTUAL TABLE grid USING rtree_i32(id, low, high);
INSERT INTO grid VALUES(1, -5, 5), (2, 2147483647, 2147483647);
PRAGMA user_version = 42;
PRAGMA application_id = 252006674;
ANALYZE;
"#;

/// What tells whether it is all there; each statement is asked of both.
pub const QUESTIONS: &[&str] = &[
    "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name",
    "SELECT id, typeof(a), a, b, typeof(c), c, hex(d), typeof(e), e FROM plain ORDER BY id",
    "SELECT _rowid_, rowid, \"a\"\"b\", [c d] FROM \"odd name; --\"",
    "SELECT id, v FROM counted ORDER BY id",
    "SELECT name, seq FROM sqlite_sequence",
    "SELECT k, n, v FROM keyed ORDER BY k, n",
    "SELECT i, t, typeof(x), x FROM strict ORDER BY i",
    "SELECT a, v, s, z FROM derived ORDER BY a",
    "SELECT p, n FROM child",
    "SELECT id, b FROM seen ORDER BY id",
    "SELECT count(*) FROM log",
    "SELECT rowid, title, body, tag, typeof(tag) FROM words ORDER BY rowid",
    "SELECT rowid FROM words('run OR jump') ORDER BY rank",
    "SELECT rowid FROM notes_index('external')",
    "SELECT term, doc, cnt FROM terms ORDER BY term",
    "SELECT id, x0, x1, y0, y1, label FROM boxes ORDER BY id",
    "SELECT count(*), sum(id) FROM boxes WHERE x1 < 40 AND y0 >= 7",
    "SELECT id, low, high FROM grid ORDER BY id",
    "SELECT tbl, idx, stat FROM sqlite_stat1 ORDER BY tbl, idx",
    "PRAGMA user_version",
    "PRAGMA application_id",
    "PRAGMA integrity_check",
    "PRAGMA foreign_key_check",
];

/// Rows of text, as `Database::rows` of the process tests has them.
pub fn rows(connection: &Connection, sql: &str) -> Vec<Vec<String>> {
    use rusqlite::types::ValueRef;
    let mut statement = connection.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let count = statement.column_count();
    let mut rows = statement.query(()).expect("a query");
    let mut found = Vec::new();
    while let Some(row) = rows.next().expect("a row") {
        let text = |index| match row.get_ref(index).expect("a column") {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Integer(value) => value.to_string(),
            ValueRef::Real(value) => serde_json::json!(value).to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Blob(blob) => format!("{blob:02x?}"),
        };
        found.push((0..count).map(text).collect());
    }
    found
}

/// A file made by `make` on a new connection.
pub fn file(folder: &Path, name: &str, make: impl FnOnce(&Connection)) -> Vec<u8> {
    let path = folder.join(name);
    let connection = Connection::open(&path).expect("a new file");
    make(&connection);
    connection.close().expect("it closes");
    std::fs::read(&path).expect("the file is there")
}

/// A database with everything in it.
pub fn everything(connection: &Connection, page_bytes: u32, encoding: &str) {
    let set = format!("PRAGMA page_size = {page_bytes}; PRAGMA encoding = '{encoding}'");
    connection.execute_batch(&set).expect("they are set");
    connection.execute_batch("PRAGMA foreign_keys = OFF; BEGIN").expect("it begins");
    connection.execute_batch(EVERYTHING).expect("all of it");
    // Enough that the tree has several levels.
    for id in 0..600 {
        let (x, y) = (f64::from(id % 37), f64::from(id % 11));
        let row = (id, x, x + 1.25, y, y + 0.5, format!("box {id}"));
        let sql = "INSERT INTO boxes VALUES(?, ?, ?, ?, ?, ?)";
        connection.execute(sql, row).expect("a box");
    }
    connection.execute_batch("COMMIT").expect("it ends");
}
