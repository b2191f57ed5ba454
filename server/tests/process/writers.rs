//! Writers for the kill tests: each knows what it asked for and what was acknowledged, so that
//! after a crash it can say what must be there, what may be, and what must not.
//!
//! A writer does one thing after the other. What is there then is what it did up to some act that
//! is at least the last one acknowledged and at most the last one asked for, whole.

use serde_json::json;

use crate::process::{Client, Database, Server, Trouble, create_path, problem};

/// Rows of one transaction that takes several requests.
const PARTS: u64 = 5;
/// Rows of a big transaction, 2 KiB each: with its pages' rest well over 1 MiB.
const BULK_ROWS: u64 = 700;
/// Above every number of a transaction that is meant to stay.
const ROLLED_BACK: u64 = 1_000_000_000;
/// What a row of `log` must hold: from a few bytes to a kilobyte, by its number.
const LOG_TEXT: &str = "printf('%d.%d.', writer, n) \
     || substr(replace(hex(zeroblob(500)), '00', 'xy'), 1, n * 37 % 1000)";
/// What a row of `bulk` must hold: 2 KiB that say which generation it is of.
const BULK_TEXT: &str = "replace(hex(zeroblob(128)), '00', printf('%016d', n))";

/// The tables of a tenant that writers share.
pub const SCHEMA: [&str; 3] = [
    "CREATE TABLE log(writer, n, text, PRIMARY KEY(writer, n)) WITHOUT ROWID",
    "CREATE TABLE parts(writer, n, part, PRIMARY KEY(writer, n, part)) WITHOUT ROWID",
    "CREATE TABLE bulk(writer, part, n, text, PRIMARY KEY(writer, part))",
];
/// Everything that is in them, to compare.
pub const CONTENT: [&str; 3] = [
    "SELECT writer, n, text FROM log ORDER BY writer, n",
    "SELECT writer, n, part FROM parts ORDER BY writer, n, part",
    "SELECT writer, part, n, substr(text, 1, 20), length(text) FROM bulk ORDER BY writer, part",
];

/// What a writer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One row in autocommit.
    Insert,
    /// A transaction of several requests; every seventh time one that is rolled back comes first.
    Parts,
    /// All rows of its own in one transaction of more than 1 MiB.
    Bulk,
    /// Create a database of its own, write a row into it, drop it.
    Churn,
}

/// One writer's memory.
#[derive(Debug)]
pub struct Writer {
    pub kind: Kind,
    number: u64,
    pub tenant: String,
    asked: u64,
    acknowledged: u64,
}

/// One writer's connections, good until the server goes.
#[derive(Debug)]
pub struct Wires {
    database: Database,
    admin: Client,
}

impl Writer {
    /// A writer that has done nothing yet.
    pub fn new(kind: Kind, number: u64, tenant: String) -> Writer {
        Writer { kind, number, tenant, asked: 0, acknowledged: 0 }
    }

    /// Connections to this server.
    pub fn wires(&self, server: &Server) -> Wires {
        Wires { database: server.database(&self.tenant), admin: server.admin() }
    }

    /// Do the next thing.
    pub fn act(&mut self, wires: &mut Wires) -> Result<(), Trouble> {
        assert_eq!(self.asked, self.acknowledged, "{self:?} acts before it knows how it stands");
        self.asked += 1;
        match self.kind {
            Kind::Insert => self.insert(&mut wires.database)?,
            Kind::Parts => self.parts(&mut wires.database)?,
            Kind::Bulk => self.bulk(&mut wires.database)?,
            Kind::Churn => self.churn(wires)?,
        }
        self.acknowledged = self.asked;
        Ok(())
    }

    /// After a restart: what is there, checked, and taken over as acknowledged.
    pub fn check(&mut self, database: &mut Database) {
        let found = match self.kind {
            Kind::Insert => self.found_log(database),
            Kind::Parts => self.found_parts(database),
            Kind::Bulk => self.found_bulk(database),
            Kind::Churn => self.found_life(database),
        };
        assert!(found >= self.acknowledged, "{self:?}: acknowledged and gone, {found} is left");
        assert!(found <= self.asked, "{self:?}: never asked for, {found} is there");
        self.asked = found;
        self.acknowledged = found;
    }

    fn insert(&self, database: &mut Database) -> Result<(), Trouble> {
        let (writer, n) = (self.number, self.asked);
        let sql = format!(
            "INSERT INTO log SELECT writer, n, {LOG_TEXT} FROM (SELECT {writer} writer, {n} n)"
        );
        database.run(&[&sql]).map(|_| ())
    }

    fn found_log(&self, database: &mut Database) -> u64 {
        let writer = self.number;
        let sql = format!(
            "SELECT count(*), ifnull(max(n), 0), ifnull(sum(text IS {LOG_TEXT}), 0) \
             FROM log WHERE writer = {writer}"
        );
        let row = numbers(database, &sql);
        assert!(row.iter().all(|&number| number == row[0]), "{self:?}: gap or half a row: {row:?}");
        row[0]
    }

    fn parts(&self, database: &mut Database) -> Result<(), Trouble> {
        if self.asked.is_multiple_of(7) {
            database.step("BEGIN IMMEDIATE")?;
            database.step(&self.part(self.asked + ROLLED_BACK, 1))?;
            database.step("ROLLBACK")?;
        }
        database.step("BEGIN IMMEDIATE")?;
        for part in 1..=PARTS {
            database.step(&self.part(self.asked, part))?;
        }
        database.step("COMMIT")?;
        Ok(())
    }

    fn part(&self, n: u64, part: u64) -> String {
        format!("INSERT INTO parts VALUES ({}, {n}, {part})", self.number)
    }

    fn found_parts(&self, database: &mut Database) -> u64 {
        let writer = self.number;
        let sql = format!(
            "SELECT count(DISTINCT n), ifnull(max(n), 0), count(*) / {PARTS}, \
             (count(*) + {PARTS} - 1) / {PARTS} FROM parts WHERE writer = {writer}"
        );
        let row = numbers(database, &sql);
        assert!(row.iter().all(|&number| number == row[0]), "{self:?}: half there: {row:?}");
        row[0]
    }

    fn bulk(&self, database: &mut Database) -> Result<(), Trouble> {
        let (writer, n) = (self.number, self.asked);
        let sql = format!(
            "WITH RECURSIVE parts(part) AS (SELECT 1 UNION ALL SELECT part + 1 FROM parts \
             LIMIT {BULK_ROWS}) \
             INSERT OR REPLACE INTO bulk SELECT {writer}, part, n, {BULK_TEXT} \
             FROM parts, (SELECT {n} n)"
        );
        database.run(&[&sql]).map(|_| ())
    }

    fn found_bulk(&self, database: &mut Database) -> u64 {
        let writer = self.number;
        let sql = format!(
            "SELECT count(*), ifnull(min(n), 0), ifnull(max(n), 0), \
             ifnull(sum(text IS {BULK_TEXT}), 0) FROM bulk WHERE writer = {writer}"
        );
        let row = numbers(database, &sql);
        let rows = if row[2] == 0 { 0 } else { BULK_ROWS };
        assert_eq!(row, [rows, row[2], row[2], rows], "{self:?}: half there");
        row[2]
    }

    /// Acts 1, 4, 7, … create, 2, 5, 8, … write, 3, 6, 9, … drop.
    fn churn(&self, wires: &mut Wires) -> Result<(), Trouble> {
        let answer = match self.asked % 3 {
            1 => wires.admin.post(&create_path(&self.tenant), &json!({})),
            2 => {
                let sql = format!("CREATE TABLE life AS SELECT {} AS n", self.asked / 3);
                return wires.database.run(&[&sql]).map(|_| ());
            }
            _ => wires.admin.call("DELETE", &format!("/v1/namespaces/{}", self.tenant), b""),
        };
        let response = answer.map_err(Trouble::Lost)?;
        if response.status == 200 {
            return Ok(());
        }
        let (code, message) = problem(&response.body);
        Err(Trouble::Refused { status: response.status, code, message })
    }

    /// The act that left the database as it is now, as near as possible to what is known.
    fn found_life(&self, database: &mut Database) -> u64 {
        let state = match database.run(&["SELECT n FROM life"]) {
            Ok(rows) => {
                let lives = (self.acknowledged / 3).to_string();
                assert_eq!(rows, [[lives]], "{self:?}: rows of an earlier database of this name");
                2
            }
            Err(Trouble::Sql { message, .. }) if message.contains("no such table") => 1,
            Err(Trouble::Refused { status: 404, .. }) => 0,
            Err(trouble) => panic!("{self:?}: {trouble}"),
        };
        [self.acknowledged, self.asked].into_iter().find(|act| act % 3 == state).unwrap_or_else(
            || panic!("{self:?}: the database is in state {state} (absent, empty, with a row)"),
        )
    }
}

fn numbers(database: &mut Database, sql: &str) -> Vec<u64> {
    let row = &database.rows(&[sql])[0];
    row.iter().map(|text| text.parse().expect("a count")).collect()
}
