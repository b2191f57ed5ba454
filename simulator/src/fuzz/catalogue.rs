//! A damaged catalogue: rows that no program of ours would write, behind pages whose checks are good.
//!
//! The folder is that of a server that stopped. An input is a list of changes of the catalogue by SQL.
//! Expected: the server starts or refuses; nothing panics; a database shows its own rows or none; a clean stop
//! ends, although what it wants to write may not fit into the rows that are there.

use std::path::Path;

use rusqlite::Connection;
use storage::TenantId;
use storage::page::{PAGE_BYTES, set_tail, verify_tail};

use super::place::{Answer, Place};
use super::plain::Plain;
use super::program::Program;
use super::{Random, Seen, Target};
use crate::disk::SimulatedDisk;
use crate::machine::{End, Stop};
use crate::world::Violation;

const NAMES: [&str; 3] = ["north", "east", "south"];

/// Changes of one input, and the bytes of each.
const CHANGES_MAX: usize = 6;
const CHANGE_BYTES: usize = 8;

/// Where a file says whether it has a WAL.
const FORMAT_VERSIONS: std::ops::Range<usize> = 18..20;

/// Values for columns of any kind, as SQL.
const VALUES: &[&str] = &[
    "NULL",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "4503599627370496",
    "9223372036854775807",
    "-9223372036854775808",
    "1.5",
    "1e300",
    "''",
    "'north'",
    "'a b'",
    "'{}'",
    "'{'",
    "'[]'",
    "x''",
    "x'00ff'",
    "zeroblob(32)",
    "zeroblob(5000)",
    "replace(hex(zeroblob(3000)), '00', 'é')",
    "'{\"memory_bytes\":1}'",
    "'{\"storage_bytes\":18446744073709551615,\"rows_read\":18446744073709551615}'",
    "'delete_protection=1 block_reads=1 block_reason=x'",
    "'tokens_after_s=18446744073709551615'",
    "'jwt_keys=0000000000000000000000000000000000000000000000000000000000000000'",
    "'expires_s=0 idle_s=0'",
];

/// See the head of the file.
pub struct Catalogue {
    disk: SimulatedDisk,
    plain: Plain,
    rows: Vec<Answer>,
}

impl Catalogue {
    /// With a folder made anew.
    ///
    /// # Panics
    /// If a server without faults does not do what it is asked for.
    pub fn new() -> Catalogue {
        let plain = Plain::new();
        let mut place = Place::new();
        let mut rows = Vec::new();
        let prepared = prepare(&mut place, &mut rows);
        prepared.expect("a folder is made without faults");
        Catalogue { disk: place.machine.io.disk().clone(), plain, rows }
    }
}

fn prepare(place: &mut Place, rows: &mut Vec<Answer>) -> Result<(), Stop> {
    place.machine.start()?;
    for name in NAMES {
        place.create(name)?;
        let sql = format!("INSERT INTO t VALUES('{name}'), ('{name} too') RETURNING v");
        rows.push(place.sql(name, &["CREATE TABLE t(v TEXT)", &sql])?);
    }
    place.machine.stop()
}

impl Target for Catalogue {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let changes = 1 + random.index(CHANGES_MAX);
        random.bytes(changes * CHANGE_BYTES)
    }

    fn input_bytes_max(&self) -> usize {
        CHANGES_MAX * CHANGE_BYTES
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let mut renamed = false;
        let mut place = self.changed(|connection| renamed = change(connection, input, seen))?;
        match self.live(&mut place, renamed, seen) {
            Ok(()) => Ok(()),
            Err(Stop::Ended(End::Failed(failure))) => {
                let text = format!("{failure:?}");
                let text: String = text.chars().filter(|l| !l.is_ascii_digit()).take(90).collect();
                seen.note(&text);
                Ok(())
            }
            Err(Stop::Ended(end)) => Err(format!("the server ended: {end:?}")),
            Err(Stop::Violated(violation)) => Err(format!("{violation:?}")),
        }
    }
}

impl Catalogue {
    /// The folder with another catalogue, and nobody who runs on it.
    fn changed(&self, by: impl FnOnce(&Connection)) -> Result<Place, String> {
        let path = TenantId::CATALOGUE.paths().file;
        let old = self.disk.bytes(Path::new(&path)).ok_or("there is no catalogue")?;
        let page_one = old.get(..PAGE_BYTES).ok_or("the catalogue has no page")?;
        let stamp = verify_tail(TenantId::CATALOGUE, 1, page_one).ok_or("page 1 is damaged")?;
        let mut bytes = old;
        bytes[FORMAT_VERSIONS].fill(1);
        bytes = self.plain.change(&bytes, by);
        if bytes.len() < PAGE_BYTES || !bytes.len().is_multiple_of(PAGE_BYTES) {
            return Err(format!("plain SQLite leaves {} bytes", bytes.len()));
        }
        bytes[FORMAT_VERSIONS].fill(2);
        for (number, page) in (1..).zip(bytes.chunks_exact_mut(PAGE_BYTES)) {
            set_tail(TenantId::CATALOGUE, number, stamp, page);
        }
        let mut disk = self.disk.clone();
        disk.plant(Path::new(&path), &bytes).map_err(|error| error.to_string())?;
        Ok(Place::on(disk))
    }

    fn live(&self, place: &mut Place, renamed: bool, seen: &mut Seen) -> Result<(), Stop> {
        place.machine.start()?;
        for (name, rows) in NAMES.iter().zip(&self.rows) {
            let answer = place.sql(name, &["SELECT v FROM t"])?;
            seen.note(&format!("read: {}", answer.shape()));
            if matches!(answer, Answer::Rows(_)) && answer != *rows && !renamed {
                return Err(Violation::new("TEN-1", format!("{name} shows {answer:?}")).into());
            }
            if answer == Answer::Nothing {
                return Err(Violation::new("LIVE-1", format!("{name} gives no answer")).into());
            }
            let written = place.sql(name, &["INSERT INTO t VALUES('after')"])?;
            seen.note(&format!("write: {}", written.shape()));
        }
        for (method, path) in [
            ("GET", "/v1/namespaces?limit=1000"),
            ("GET", "/v1/namespaces/north"),
            ("POST", "/v1/namespaces/fresh/create"),
            ("DELETE", "/v1/namespaces/south"),
            ("GET", "/metrics"),
        ] {
            let response = place.admin(method, path, "application/json", b"")?;
            let status = response.map_or(0, |response| response.status);
            seen.note(&format!("{method} {path} {status}"));
            if status == 0 {
                return Err(Violation::new("LIVE-1", format!("{path} is not answered")).into());
            }
        }
        place.machine.stop()
    }
}

/// Change it by SQL; true if names or ids may mean something else now.
fn change(connection: &Connection, input: &[u8], seen: &mut Seen) -> bool {
    let list = |sql: &str| -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(mut statement) = connection.prepare(sql)
            && let Ok(rows) = statement.query_map([], |row| row.get::<_, String>(0))
        {
            found.extend(rows.flatten());
        }
        found
    };
    let tables = list("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1");
    let mut program = Program::of(input);
    let mut renamed = false;
    for _ in 0..CHANGES_MAX {
        if program.is_over() || tables.is_empty() {
            break;
        }
        let kind = program.byte();
        // Half of the changes to the databases' own rows.
        let table = match kind & 0x80 {
            0 => "databases",
            _ => &tables[program.below(tables.len())],
        };
        let columns = list(&format!("SELECT name FROM pragma_table_xinfo('{table}')"));
        if columns.is_empty() {
            continue;
        }
        let column = &columns[program.below(columns.len())];
        let value = VALUES[program.below(VALUES.len())];
        let rest = usize::from(program.byte());
        renamed |= matches!(&column[..], "id" | "name" | "group_id" | "parent") || kind % 16 > 11;
        let sql = match kind % 16 {
            0..=8 => {
                let some = if rest.is_multiple_of(2) { "true" } else { "rowid = 2" };
                format!("UPDATE \"{table}\" SET \"{column}\" = {value} WHERE {some}")
            }
            9 => format!("DELETE FROM \"{table}\""),
            10 => format!("ALTER TABLE \"{table}\" DROP COLUMN \"{column}\""),
            11 => format!("ALTER TABLE \"{table}\" ADD COLUMN more DEFAULT 7"),
            12 => {
                let values = vec![value; columns.len()].join(", ");
                format!("INSERT OR REPLACE INTO \"{table}\" VALUES({values})")
            }
            13 => format!("DROP TABLE \"{table}\""),
            14 => format!(
                "CREATE TRIGGER x{rest} AFTER UPDATE ON \"{table}\" BEGIN DELETE FROM \"{table}\"; END"
            ),
            _ => format!("PRAGMA user_version = {rest}"),
        };
        let done = connection.execute_batch(&sql).is_ok();
        seen.note(&format!("{} {table} {column} {done}", kind % 16));
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(place: &mut Place, method: &str, path: &str, body: &str) -> (u16, String) {
        let response = place.admin(method, path, "application/json", body.as_bytes());
        let response = response.expect("it is answered").expect("it is answered");
        (response.status, String::from_utf8_lossy(&response.body).into_owned())
    }

    fn with(sql: &str) -> (Catalogue, Place) {
        let catalogue = Catalogue::new();
        let place = catalogue.changed(|connection| connection.execute_batch(sql).unwrap()).unwrap();
        (catalogue, place)
    }

    /// From 2^52 on ids are of databases in memory: a row with one was taken for such a database, whose
    /// commits are nowhere.
    #[test]
    fn a_row_with_an_id_of_a_database_in_memory_is_damage() {
        for id in [1_u64 << 52, (1 << 52) + 1, (1 << 53) - 1, 1 << 53, 1 << 61] {
            let (catalogue, mut place) =
                with(&format!("UPDATE databases SET id = {id} WHERE name = 'south'"));
            place.machine.start().unwrap();
            let south = place.sql("south", &["INSERT INTO t VALUES('lost')"]).unwrap();
            assert!(!matches!(south, Answer::Rows(_)), "{id}: {south:?}");
            let (code, text) = status(&mut place, "GET", "/v1/namespaces/south", "");
            assert_eq!(code, 500, "{id}: {text}");
            for (name, rows) in NAMES.iter().zip(&catalogue.rows).take(2) {
                assert_eq!(place.sql(name, &["SELECT v FROM t"]).unwrap(), *rows, "{id}");
            }
            place.machine.stop().unwrap();
        }
    }

    /// The last id is given, the next one to nobody; what is there goes on.
    #[test]
    fn ids_end_where_those_of_databases_in_memory_begin() {
        let last = (1_u64 << 52) - 1;
        let (catalogue, mut place) = with(&format!(
            "UPDATE sqlite_sequence SET seq = {} WHERE name = 'databases'",
            last - 1
        ));
        place.machine.start().unwrap();
        let (code, text) = status(&mut place, "POST", "/v1/namespaces/last/create", "{}");
        assert_eq!(code, 200, "{text}");
        let rows = place.sql("last", &["CREATE TABLE t(v)", "SELECT 1"]).unwrap();
        assert!(matches!(rows, Answer::Rows(_)), "{rows:?}");
        for _ in 0..2 {
            let (code, text) = status(&mut place, "POST", "/v1/namespaces/more/create", "{}");
            assert_eq!(code, 500, "{text}");
            let (code, _) = status(&mut place, "GET", "/v1/namespaces/more", "");
            assert_eq!(code, 404);
        }
        let (code, text) = status(&mut place, "GET", "/v1/namespaces/last", "");
        assert_eq!(code, 200, "{text}");
        assert_eq!(place.sql("north", &["SELECT v FROM t"]).unwrap(), catalogue.rows[0]);
        place.machine.stop().unwrap();
        place.machine.start().unwrap();
        let rows = place.sql("last", &["SELECT count(*) FROM t"]).unwrap();
        assert!(matches!(rows, Answer::Rows(_)), "{rows:?}");
        place.machine.stop().unwrap();
    }

    /// As databases.
    #[test]
    fn ids_of_groups_end_too() {
        let change = "INSERT INTO sqlite_sequence SELECT 'nodes', 0 WHERE NOT EXISTS(SELECT 1 FROM \
                      sqlite_sequence WHERE name = 'nodes'); \
                      UPDATE sqlite_sequence SET seq = 4503599627370495 WHERE name = 'nodes'";
        let (catalogue, mut place) = with(change);
        place.machine.start().unwrap();
        let (code, text) = status(&mut place, "PUT", "/v1/organisations/much", "{}");
        assert_eq!(code, 500, "{text}");
        assert_eq!(place.sql("north", &["SELECT v FROM t"]).unwrap(), catalogue.rows[0]);
        place.machine.stop().unwrap();
    }
}
