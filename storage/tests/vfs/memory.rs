//! Every allocation of a script of SQL fails, one after the other.
//!
//! The script is a list of units: a statement, or a transaction. For each unit and each N: a new volume
//! over the file as the units before have left it; the Nth allocation from the opening of the connection
//! on fails (N odd: all later ones, too, until the unit is over); then memory is there again.
//! Expected each time: the unit ends with `SQLITE_NOMEM`, or is done; the database is as before it or as
//! after it, whole; the same connection reads and writes; nothing stays on the account.
//!
//! By default a few N of each unit, which `MYRIAD_SEED` moves; `MYRIAD_MEMORY=all` tries all of them, and
//! `MYRIAD_MEMORY=unit` (its number) all of one.

use storage::TenantId;
use storage::allocator::{Failing, fail_allocations, failed_allocations};
use storage::fiber::with_volume;
use storage::ledger;
use storage::page::{PAGE_BYTES, verify_tail};
use storage::sqlite::{self, Connection, SqliteError, Verdict};
use storage::volume::Volume;

use super::{World, checkpoint, run, volume};

/// Of each unit, unless all are asked for.
const RUNS_PER_UNIT: u64 = 20;

/// A unit each; the last of several statements ends its transaction.
const UNITS: &[&[&str]] = &[
    &["CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c BLOB)"],
    &["CREATE TABLE note(id INTEGER PRIMARY KEY, text TEXT UNIQUE, at REAL DEFAULT 1.5) STRICT"],
    &["CREATE TABLE pair(k TEXT, v, PRIMARY KEY(k, v)) WITHOUT ROWID"],
    &["CREATE INDEX t_b ON t(b, length(c)) WHERE b IS NOT NULL"],
    &["CREATE VIEW recent AS SELECT a, b FROM t WHERE a > 3"],
    &[
        "CREATE TRIGGER told AFTER INSERT ON t BEGIN INSERT OR IGNORE INTO pair VALUES(new.b, new.a); END",
    ],
    &["INSERT INTO t(b, c) VALUES('one', x'01'), ('two', zeroblob(9000)), (NULL, NULL)"],
    &["WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) \
       INSERT INTO t(b, c) SELECT 'row ' || i, zeroblob(i * 40) FROM n"],
    &["UPDATE t SET b = upper(b), c = NULL WHERE a % 3 = 0"],
    &["INSERT INTO t(a, b) VALUES(1, 'again') ON CONFLICT(a) DO UPDATE SET b = excluded.b || t.b"],
    &["DELETE FROM t WHERE a BETWEEN 10 AND 14 RETURNING a, b"],
    &["REPLACE INTO note(id, text) VALUES(1, 'x'), (2, 'y')"],
    &["SELECT a, count(*), group_concat(b, ', ') FROM t GROUP BY a % 7 ORDER BY 2 DESC, 1"],
    &[
        "SELECT a, sum(a) OVER (ORDER BY b ROWS BETWEEN 2 PRECEDING AND CURRENT ROW), rank() OVER (ORDER BY a % 5) FROM t",
    ],
    &["SELECT json_group_array(json_object('a', a, 'b', b)) FROM t"],
    &["SELECT key, value, fullkey FROM json_tree('{\"a\":[1,2,{\"b\":null}],\"c\":\"\\u00e9\"}')"],
    &[
        "SELECT json_patch('{\"a\":1,\"b\":{}}', '{\"b\":{\"c\":2}}'), json_set('[1]', '$[0]', 5) ->> 0",
    ],
    &["CREATE VIRTUAL TABLE words USING fts5(title, body, tokenize = 'porter unicode61')"],
    &[
        "INSERT INTO words SELECT b, 'the quick brown fox ' || a || ' jumps over ' || coalesce(b, '') FROM t",
    ],
    &[
        "SELECT rowid, snippet(words, 1, '<', '>', '…', 5), bm25(words) FROM words('quick NEAR fox*') ORDER BY rank",
    ],
    &[
        "BEGIN",
        "INSERT INTO words VALUES('first', 'fox of the transaction')",
        "INSERT INTO words SELECT b, 'slow green fox ' || a FROM t",
        "UPDATE words SET title = 'x' WHERE rowid < 9",
        "COMMIT",
    ],
    &["UPDATE words SET body = replace(body, 'fox', 'cat') WHERE rowid % 2"],
    &["INSERT INTO words(words) VALUES('optimize')"],
    &["SELECT highlight(words, 1, '[', ']') FROM words WHERE words MATCH 'body: \"brown cat\"'"],
    &["CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1, +name)"],
    &["INSERT INTO places SELECT a, a, a + 2, -a, 1 - a, b FROM t"],
    &["SELECT id, name FROM places WHERE x0 > 20 AND x1 < 40 AND y0 < 0"],
    &["DELETE FROM places WHERE id > 40"],
    &[
        "BEGIN",
        "INSERT INTO note(text) VALUES('in a transaction')",
        "UPDATE t SET b = 'all'",
        "COMMIT",
    ],
    &["BEGIN IMMEDIATE", "DELETE FROM t", "DROP TABLE note", "ROLLBACK"],
    &[
        "SAVEPOINT outer",
        "INSERT INTO note(text) VALUES('kept')",
        "SAVEPOINT inner",
        "UPDATE t SET c = zeroblob(3000) WHERE a < 20",
        "ROLLBACK TO inner",
        "INSERT INTO pair VALUES('k', 'v')",
        "RELEASE outer",
    ],
    &[
        "BEGIN",
        "CREATE TABLE made AS SELECT b, count(*) AS n FROM t GROUP BY b",
        "ALTER TABLE made ADD COLUMN z DEFAULT 7",
        "COMMIT",
    ],
    &["ALTER TABLE made RENAME COLUMN n TO counted"],
    &["ALTER TABLE t RENAME TO t2"],
    &["ALTER TABLE made DROP COLUMN z"],
    &["WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) \
       INSERT INTO pair SELECT hex(zeroblob(120 + i % 7)), i * 7919 % 1500 FROM n"],
    // More than a sorter holds in memory: runs go to a temporary file, and are merged.
    &["CREATE INDEX spilled ON pair(v, k)"],
    &["SELECT count(*) FROM (SELECT DISTINCT k || v FROM pair ORDER BY v DESC, k)"],
    &[
        "SELECT count(*) FROM pair a JOIN pair b ON a.v = b.v + 1 LEFT JOIN note n ON n.id = a.v WHERE a.k > '' ORDER BY 1",
    ],
    &["ANALYZE"],
    &["REINDEX"],
    &[
        "SELECT v FROM pair WHERE k IN (SELECT text FROM note UNION SELECT 'k') EXCEPT SELECT 1 ORDER BY 1 LIMIT 3 OFFSET 0",
    ],
    &[
        "SELECT printf('%08.3f|%s|%q', 1.5, 'x', 'it''s'), strftime('%Y', 0, 'unixepoch'), hex(randomblob(4)) > ''",
    ],
    &["DELETE FROM pair WHERE v < 700"],
    &["DROP INDEX spilled"],
    &["DROP TRIGGER told"],
    &["DROP TABLE words"],
];

type Rows = Vec<Vec<String>>;

/// What came of a run.
struct Ended {
    failed: u64,
    error: Option<SqliteError>,
    /// What had been done of a transaction was committed in spite of it.
    committed: bool,
    /// The contents after it, by the same connection; none where there was no connection.
    contents: Option<Rows>,
}

/// All of a database: the schema, and the rows of each table of it.
fn contents(connection: &mut Connection) -> Rows {
    let schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2";
    let mut rows = run(connection, schema);
    let tables: Vec<String> = rows
        .iter()
        .filter(|row| row[0] == "table" && !row[2].starts_with("CREATE VIRTUAL"))
        .map(|row| format!("SELECT * FROM \"{}\"", row[1]))
        .collect();
    for sql in tables {
        rows.extend(run(connection, &sql));
    }
    rows
}

fn steps(connection: &mut Connection, unit: &[&str]) -> Result<(), SqliteError> {
    for sql in unit {
        connection.mark_statement();
        let (statement, _) = connection.prepare(sql, false)?;
        let mut statement = statement.expect("a statement");
        while statement.step(connection)? {
            for index in 0..statement.column_count() {
                statement.column(index)?;
            }
        }
    }
    Ok(())
}

/// `commits`: a stream that goes on after the failure, and ends its transaction as if nothing had been. Not
/// where FTS5 has written in it: such a COMMIT may write an index that does not fit its table (seen here,
/// SQLite 3.54.1), and a session does not let it come to that.
fn attempt(unit: &'static [&'static str], failing: Failing, commits: bool) -> Ended {
    fail_allocations(failing);
    let opened = Connection::open();
    let mut connection = match opened {
        Ok(connection) => connection,
        Err(error) => {
            let failed = failed_allocations();
            fail_allocations(Failing::Never);
            return Ended { failed, error: Some(error), committed: false, contents: None };
        }
    };
    connection.set_authorizer(|_| Verdict::Allow);
    let error = steps(&mut connection, unit).err();
    let failed = failed_allocations();
    fail_allocations(Failing::Never);
    let mut committed = false;
    if !connection.is_autocommit() {
        assert!(error.is_some(), "a unit that is done leaves no transaction open");
        committed = commits && steps(&mut connection, &["COMMIT"]).is_ok();
        if !connection.is_autocommit() {
            run(&mut connection, "ROLLBACK");
        }
    }
    let contents = contents(&mut connection);
    let writes = "CREATE TABLE after(a); INSERT INTO after VALUES(1); SELECT a FROM after";
    assert_eq!(run(&mut connection, writes), [["1"]]);
    // After an INSERT without memory FTS5 may keep in the connection what it should have forgotten, and
    // its index seems malformed there (found here, SQLite 3.54.1). So such a connection says that nobody
    // else is to use it (`Connection::is_tainted`), and a stream that goes on has it forget its schema.
    if let Some(error) = &error {
        assert!(connection.is_tainted() && connection.is_starved(), "{unit:?}: {error:?}");
        connection.forget_schema().expect("memory is there again");
        assert!(connection.is_tainted() && !connection.is_starved());
    }
    assert_eq!(run(&mut connection, "PRAGMA integrity_check"), [["ok"]]);
    drop(connection);
    let mut other = Connection::open().expect("opens");
    assert_eq!(run(&mut other, "PRAGMA integrity_check"), [["ok"]]);
    Ended { failed, error, committed, contents: Some(contents) }
}

/// The world as some units have left it: the file, and its stamp.
#[derive(Clone)]
struct Image {
    bytes: Vec<u8>,
    stamp: u64,
    contents: Rows,
}

impl Image {
    fn place(&self) -> (World, Volume) {
        let mut world = World::default();
        if self.stamp > 0 {
            let (index, _) = world.file();
            world.main = Some(index);
            world.files.insert(index, self.bytes.clone());
        }
        (world, volume(self.stamp > 0, self.stamp))
    }

    /// As this unit leaves it.
    fn after(&self, unit: &'static [&'static str]) -> Image {
        let (mut world, mut volume) = self.place();
        let contents = world.run(&mut volume, move || {
            let mut connection = Connection::open().expect("opens");
            let done = steps(&mut connection, unit);
            let damage = with_volume(|volume| volume.damage().map(str::to_owned));
            assert!(done.is_ok(), "{unit:?}: {done:?}, {damage:?}");
            assert_eq!(run(&mut connection, "PRAGMA integrity_check"), [["ok"]], "{unit:?}");
            contents(&mut connection)
        });
        world.run(&mut volume, checkpoint).expect("the checkpoint works");
        let _ = volume.close();
        let bytes = world.files[&world.main.expect("the checkpoint made a file")].clone();
        let stamp = verify_tail(TenantId(5), 1, &bytes[..PAGE_BYTES]).expect("a good page");
        Image { bytes, stamp, contents }
    }
}

fn one(before: &Image, after: &Image, unit: &'static [&'static str], n: u64) -> u64 {
    let (mut world, mut volume) = before.place();
    let failing = Failing::Nth { n, forever: n % 2 == 1 };
    let commits = n % 4 >= 2 && !unit.iter().any(|sql| sql.contains("INTO words"));
    let ended = world.run(&mut volume, move || attempt(unit, failing, commits));
    let told = |text: &str| format!("{unit:?}, allocation {n}: {text}, {:?}", ended.error);
    assert_eq!(volume.damage(), None, "{}", told("the volume is damaged"));
    let _ = volume.close();
    ledger::assert_closed();
    if let Some(error) = &ended.error {
        let memory = matches!(error.primary(), sqlite::SQLITE_NOMEM | 10);
        assert!(memory && ended.failed > 0, "{}", told("no memory error"));
    }
    if let Some(contents) = &ended.contents {
        let whole = match ended.error {
            None => *contents == after.contents,
            // Some statements of it, and each of them whole: the checks of the database say so.
            Some(_) if ended.committed => true,
            Some(_) => *contents == before.contents || *contents == after.contents,
        };
        assert!(whole, "{}", told("the database is neither as before nor as after"));
    }
    ended.failed
}

#[test]
fn every_allocation_of_a_script_may_fail() {
    let chosen = std::env::var("MYRIAD_MEMORY").unwrap_or_default();
    let seed = std::env::var("MYRIAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let statements: usize = UNITS.iter().map(|unit| unit.len()).sum();
    assert!(statements >= 60, "{statements} statements");
    let mut before = Image { bytes: Vec::new(), stamp: 0, contents: Vec::new() };
    let (mut runs, mut allocations) = (0, 0);
    for (number, unit) in UNITS.iter().enumerate() {
        let after = before.after(unit);
        let count = count(&before, unit);
        allocations += count;
        let all = chosen == "all" || chosen == number.to_string();
        let step = if all { 1 } else { count.div_ceil(RUNS_PER_UNIT) };
        let mut n: u64 = if all { 0 } else { seed % step };
        // A failure may lead to more allocations than there were; then the last of those is the end.
        while one(&before, &after, unit, n) > 0 {
            runs += 1;
            n += step;
        }
        if all {
            println!("unit {number}: {n} allocations, {:.60}", unit[0]);
        }
        before = after;
    }
    println!("{statements} statements, {allocations} allocations, {runs} of them failed");
}

/// Allocations of a unit that none of them fails.
fn count(before: &Image, unit: &'static [&'static str]) -> u64 {
    let (mut world, mut volume) = before.place();
    let count = world.run(&mut volume, move || {
        fail_allocations(Failing::Nth { n: u64::MAX, forever: false });
        let mut connection = Connection::open().expect("opens");
        steps(&mut connection, unit).expect("it is done");
        let count = storage::allocator::allocations();
        fail_allocations(Failing::Never);
        count
    });
    let _ = volume.close();
    count
}
