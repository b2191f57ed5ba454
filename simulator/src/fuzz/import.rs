//! Database files as hostile programs: sent to become a database.
//!
//! An input is a choice of a good file and edits of its bytes. Expected: it is taken, or refused as the
//! sender's mistake; what SQLite finds nothing wrong with and nobody edited is taken; what was taken holds
//! the rows that plain SQLite reads in the file, and leaves as a file that SQLite finds sound; the
//! neighbour is as before.

use rusqlite::Connection;

use super::place::{Answer, Place};
use super::plain::{Plain, Tables};
use super::program::Program;
use super::{Random, Seen, Target};
use crate::disk::SimulatedDisk;
use crate::machine::Stop;
use crate::world::Violation;

/// Edits of one input, and the bytes of each.
const EDITS_MAX: usize = 10;
const EDIT_BYTES: usize = 7;

/// What good files are made by.
const SCRIPTS: &[&str] = &[
    "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c BLOB); CREATE INDEX i ON t(b, a DESC);
     INSERT INTO t VALUES(1, 'one', x'00'), (2, 'two', zeroblob(20000)), (-5, NULL, 1.5);",
    "PRAGMA page_size = 1024; PRAGMA auto_vacuum = FULL;
     CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
     CREATE TABLE g(a INTEGER, b INTEGER AS (a * 2) STORED, c INTEGER AS (a + 1), CHECK (a < 1000000)) STRICT;
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
       INSERT INTO w SELECT 'key ' || i, i FROM n;
     INSERT INTO g(a) VALUES(1), (2), (3); DELETE FROM w WHERE v % 3 = 0;
     CREATE VIEW v AS SELECT k FROM w; CREATE TRIGGER r AFTER INSERT ON g BEGIN DELETE FROM w; END;",
    "CREATE VIRTUAL TABLE f USING fts5(title, body); CREATE VIRTUAL TABLE p USING rtree(id, x0, x1);
     INSERT INTO f VALUES('a', 'quick brown fox'), ('b', 'lazy dog'); INSERT INTO p VALUES(1, 0, 1), (2, 5, 9);",
    "PRAGMA page_size = 512; PRAGMA encoding = 'UTF-16le'; PRAGMA user_version = 77;
     CREATE TABLE u(a TEXT COLLATE NOCASE UNIQUE, b DEFAULT (1 + 2)); INSERT INTO u(a) VALUES('é'), ('😀');
     CREATE TABLE \"odd \"\"name\"(x INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO \"odd \"\"name\" VALUES(9);",
];

/// See the head of the file.
pub struct Import {
    disk: SimulatedDisk,
    plain: Plain,
    files: Vec<Vec<u8>>,
}

impl Import {
    /// With a folder and files made anew.
    ///
    /// # Panics
    /// If a server without faults does not do what it is asked for.
    pub fn new() -> Import {
        let plain = Plain::new();
        let mut place = Place::new();
        let prepared = (|| {
            place.machine.start()?;
            place.create("neighbour")?;
            let sql = ["CREATE TABLE t(v TEXT)", "INSERT INTO t VALUES('mine')"];
            place.sql("neighbour", &sql)?;
            place.machine.stop()
        })();
        prepared.expect("a folder is made without faults");
        let make = |script: &&str| {
            plain.change(b"", |connection: &Connection| {
                connection.execute_batch(script).expect("a good script");
            })
        };
        let files = SCRIPTS.iter().map(make).collect();
        Import { disk: place.machine.io.disk().clone(), plain, files }
    }
}

impl Target for Import {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let edits = random.index(EDITS_MAX);
        random.bytes(1 + edits * EDIT_BYTES)
    }

    fn input_bytes_max(&self) -> usize {
        1 + EDITS_MAX * EDIT_BYTES
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let mut program = Program::of(input);
        let chosen = usize::from(program.byte()) % self.files.len();
        let original = &self.files[chosen];
        let mut file = original.clone();
        for _ in 0..EDITS_MAX {
            if !program.is_over() && !file.is_empty() {
                edit(&mut program, &mut file);
            }
        }
        let tables = self.plain.tables(&file);
        seen.note(&format!("file {chosen}, sound: {}", tables.is_some()));
        let mut place = Place::on(self.disk.clone());
        match self.live(&mut place, &file, file == *original, tables, seen) {
            Ok(()) => Ok(()),
            Err(Stop::Violated(violation)) => Err(format!("{violation:?}")),
            Err(Stop::Ended(end)) => Err(format!("the server ended: {end:?}")),
        }
    }
}

/// An edit, most of them in the first page or at the start of another: where the numbers are.
fn edit(program: &mut Program<'_>, file: &mut Vec<u8>) {
    let kind = program.byte();
    let at = usize::from(program.short());
    let value = program.byte();
    let from = usize::from(program.short());
    let count = 1 + usize::from(program.byte() % 16);
    let at = match kind >> 6 {
        0 => at % 108,
        1 => at % 40 * 512 + from % 12,
        _ => at * 7,
    } % file.len();
    let end = (at + count).min(file.len());
    match kind % 8 {
        0..=2 => file[at] ^= 1 << (value % 8),
        3 | 4 => file[at] = value,
        5 => file[at..end].fill(value),
        6 => {
            let from = from % file.len();
            let piece = file[from..(from + end - at).min(file.len())].to_vec();
            file[at..at + piece.len()].copy_from_slice(&piece);
        }
        _ if kind & 8 == 0 => file.truncate(at),
        _ => {
            let piece = file[at..end].to_vec();
            file.extend(piece);
        }
    }
}

impl Import {
    fn live(
        &self,
        place: &mut Place,
        file: &[u8],
        is_original: bool,
        tables: Option<Tables>,
        seen: &mut Seen,
    ) -> Result<(), Stop> {
        let wrong = |text: String| Err(Violation::new("IMP-1", text).into());
        place.machine.start()?;
        let path = "/v1/namespaces/sent/upload";
        let response = place.admin("POST", path, "application/vnd.sqlite3", file)?;
        let Some(response) = response else { return wrong("an upload is not answered".to_owned()) };
        let told = String::from_utf8_lossy(&response.body);
        let shape: String =
            told.chars().filter(|letter| !letter.is_ascii_digit()).take(90).collect();
        seen.note(&format!("{} {shape}", response.status));
        match response.status {
            200 => {
                let path = "/v1/namespaces/sent/export";
                let exported = place.admin("GET", path, "application/json", b"")?;
                let Some(exported) = exported.filter(|exported| exported.status == 200) else {
                    return wrong("what was taken cannot be exported".to_owned());
                };
                let Some(found) = self.plain.tables(&exported.body) else {
                    return wrong("what was taken is exported as a damaged file".to_owned());
                };
                seen.count("tables", found.len());
                if let Some(tables) = tables
                    && tables != found
                {
                    return wrong(format!("it holds {found:?}, the file {tables:?}"));
                }
            }
            _ if is_original => return wrong(format!("a good file is refused: {told}")),
            400 | 413 | 415 | 422 => {}
            status => return wrong(format!("refused with {status}: {told}")),
        }
        match place.sql("neighbour", &["SELECT v FROM t"])? {
            Answer::Rows(rows) if rows == [["mine"]] => {}
            other => return wrong(format!("the neighbour shows {other:?}")),
        }
        place.machine.stop()
    }
}
