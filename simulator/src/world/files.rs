//! The files of a stopped server, read by plain SQLite (FMT-1).
//!
//! Every page's tail must check, page 1 must carry the stamp that the catalogue knows, SQLite's
//! integrity check must pass, and the contents must be what the model says. The bytes are taken
//! from the simulated disk into a temporary file of the real one; nothing of it is traced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use storage::TenantId;
use storage::page::{PAGE_BYTES, verify_tail};

use super::ground::Ground;
use super::journal::Found;
use super::model::{Snapshot, Violation, tenant_name};
use super::speech::{self, READ_MARKS};
use crate::disk::SimulatedDisk;
use crate::monitor::catalogue_rows;

/// A row of the catalogue.
struct Row {
    id: u64,
    name: Option<String>,
    state: i64,
    reason: Option<String>,
    file: bool,
    stamp: u64,
}

/// Where a file says whether it has a WAL (SQLite's file format, section 1.3.3).
const FORMAT_VERSIONS: std::ops::Range<usize> = 18..20;

/// The folder of the copies; removed with it.
struct Copies(PathBuf);

impl Drop for Copies {
    fn drop(&mut self) {
        // A folder that stays behind is the machine's business, not the world's.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Open a file with plain SQLite before a world begins: the first file that its `unix` VFS opens in
/// a process resets SQLite's random generator, which in the middle of a world would be seen.
///
/// # Panics
/// If the machine has no room for a temporary file: nothing can be judged then.
pub fn prepare() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let copies = Copies(folder.keep());
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let path = copies.0.join("first.db");
    let connection = Connection::open_with_flags_and_vfs(path, flags, "unix");
    let version = connection.and_then(|connection| {
        connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(version, Ok(0), "an empty file opens");
}

/// Judge all files of the data folder.
///
/// # Errors
/// The first violation.
pub fn judge(disk: &SimulatedDisk, ground: &mut Ground) -> Result<(), Violation> {
    let folder = tempfile::tempdir().map_err(|error| bad(format!("no folder: {error}")))?;
    let copies = Copies(folder.keep());
    let catalogue = match disk.bytes(Path::new(&TenantId::CATALOGUE.paths().file)) {
        Some(bytes) => {
            check_pages(TenantId::CATALOGUE, &bytes)?;
            rows(&open(&copies, 0, &bytes)?)?
        }
        None => return Err(bad("a stopped server leaves no catalogue".to_owned())),
    };
    let by_name: BTreeMap<&str, &Row> =
        catalogue.iter().filter_map(|row| Some((row.name.as_deref()?, row))).collect();
    let mut contents = vec![Some(None); ground.tenants()];
    for (tenant, found) in contents.iter_mut().enumerate() {
        let name = tenant_name(tenant);
        let row = by_name.get(name.as_str());
        let seen = ground.name(tenant);
        ground.check_name(tenant, seen, row.is_some())?;
        let Some(row) = row else { continue };
        if ground.swapped.contains(&tenant) {
            // Nobody has looked at it yet, or it is fenced: there is nothing to compare.
            *found = None;
            continue;
        }
        *found = judge_tenant(disk, &copies, row)?;
    }
    check_orphans(disk, &catalogue)?;
    for (tenant, found) in contents.into_iter().enumerate() {
        if let Some(found) = found {
            let asked = ground.model.ask();
            ground.model.judge_read(tenant, asked, 0, found.as_ref())?;
        }
    }
    Ok(())
}

/// What a file shows that the server has sent, if it has tables; it must be whole.
///
/// # Errors
/// FMT-1.
pub fn exported(bytes: &[u8]) -> Result<Option<Snapshot>, Violation> {
    let folder = tempfile::tempdir().map_err(|error| bad(format!("no folder: {error}")))?;
    let copies = Copies(folder.keep());
    let journals = bytes.get(FORMAT_VERSIONS);
    if !bytes.len().is_multiple_of(PAGE_BYTES) || journals != Some(&[1, 1]) {
        return Err(bad(format!("an export of {} bytes is no file", bytes.len())));
    }
    contents(&open(&copies, u64::MAX, bytes)?, "an export")
}

/// Ids and names of the databases in use, by the catalogue's file.
#[must_use]
pub fn names(disk: &SimulatedDisk) -> Vec<(u64, String)> {
    let bytes = disk.bytes(Path::new(&TenantId::CATALOGUE.paths().file)).unwrap_or_default();
    let rows = catalogue_rows(&bytes).unwrap_or_default();
    rows.into_iter().filter(|row| row.2 == 0).map(|(id, name, _)| (id, name)).collect()
}

fn bad(text: String) -> Violation {
    Violation::new("FMT-1", text)
}

/// What a tenant's file holds, if it has tables; nothing to say of a fenced one.
fn judge_tenant(
    disk: &SimulatedDisk,
    copies: &Copies,
    row: &Row,
) -> Result<Option<Option<Snapshot>>, Violation> {
    let name = row.name.as_deref().unwrap_or_default();
    if row.state == 2 {
        return match disk.ledger().concerns(TenantId(row.id)) {
            true => Ok(None),
            false => {
                let Row { id, reason, .. } = row;
                let text = format!("{name} ({id}) is fenced, and was not struck: {reason:?}");
                Err(Violation::new("COR-1", text))
            }
        };
    }
    if !row.file {
        return Ok(Some(None));
    }
    let id = TenantId(row.id);
    let path = id.paths().file;
    let bytes = disk.bytes(Path::new(&path));
    let bytes = bytes.ok_or_else(|| bad(format!("{name} has no file {path}")))?;
    let stamp = check_pages(id, &bytes)?;
    if stamp < row.stamp {
        let known = row.stamp;
        return Err(bad(format!("{path} has stamp {stamp}, the catalogue says {known}")));
    }
    let connection = open(copies, row.id, &bytes)?;
    Ok(Some(contents(&connection, &path)?))
}

/// Check every page's tail; gives page 1's stamp.
fn check_pages(id: TenantId, bytes: &[u8]) -> Result<u64, Violation> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(PAGE_BYTES) {
        return Err(bad(format!("the file of tenant {} has {} bytes", id.0, bytes.len())));
    }
    let mut first = 0;
    for (number, page) in (1..).zip(bytes.chunks_exact(PAGE_BYTES)) {
        let stamp = verify_tail(id, number, page);
        let stamp = stamp.ok_or_else(|| bad(format!("tenant {}: page {number} is bad", id.0)))?;
        if number == 1 {
            first = stamp;
        }
    }
    Ok(first)
}

/// Open a copy with plain SQLite, and check it.
fn open(copies: &Copies, id: u64, bytes: &[u8]) -> Result<Connection, Violation> {
    // One file for all, and a rollback journal instead of a WAL, which would be two files more: most
    // of the time of a world was spent on making and removing such files.
    let path = copies.0.join("copy.db");
    let fail = |what: &str, text: String| bad(format!("tenant {id}: {what}: {text}"));
    let mut copy = bytes.to_vec();
    copy[FORMAT_VERSIONS].fill(1);
    std::fs::write(&path, copy).map_err(|error| fail("copy", error.to_string()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags_and_vfs(&path, flags, "unix");
    let connection = connection.map_err(|error| fail("open", error.to_string()))?;
    let checked = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    let checked: String = checked.map_err(|error| fail("integrity_check", error.to_string()))?;
    if checked != "ok" {
        return Err(fail("integrity_check", checked));
    }
    Ok(connection)
}

fn rows(connection: &Connection) -> Result<Vec<Row>, Violation> {
    let sql = "SELECT id, name, state, file, stamp, reason FROM databases";
    let read = || {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            Ok(Row {
                id: row.get::<_, i64>(0)? as u64,
                name: row.get(1)?,
                state: row.get(2)?,
                file: row.get(3)?,
                stamp: row.get::<_, i64>(4)? as u64,
                reason: row.get(5)?,
            })
        })?;
        rows.collect::<rusqlite::Result<Vec<Row>>>()
    };
    read().map_err(|error| bad(format!("the catalogue cannot be read: {error}")))
}

fn contents(connection: &Connection, path: &str) -> Result<Option<Snapshot>, Violation> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'journal'";
    let fail = |error: rusqlite::Error| bad(format!("{path} cannot be read: {error}"));
    let tables = connection.query_row(table, [], |row| row.get::<_, i64>(0)).map_err(fail)?;
    if tables == 0 {
        return Ok(None);
    }
    let mut statement = connection.prepare(READ_MARKS).map_err(fail)?;
    let lines = statement.query_map([0], |row| {
        let number = |index| row.get::<_, i64>(index).map(|number| number as u64);
        let found = Found {
            rows: number(2)?,
            first: number(3)?,
            last: number(4)?,
            pad_bytes: number(5)?,
            intact: number(6)?,
        };
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, found))
    });
    let mut snapshot = Snapshot::default();
    for line in lines.map_err(fail)? {
        let (kind, word, found) = line.map_err(fail)?;
        if kind == "rows" {
            snapshot.marks.insert(word, found);
            continue;
        }
        let (number, balance) = (found.rows, found.first as i64);
        let taken = speech::add_line(&mut snapshot, &kind, word, number, balance);
        taken.ok_or_else(|| bad(format!("{path} has a strange line of {kind}")))?;
    }
    Ok(Some(snapshot))
}

/// Every file belongs to a row of the catalogue.
fn check_orphans(disk: &SimulatedDisk, catalogue: &[Row]) -> Result<(), Violation> {
    for path in disk.paths() {
        let Some(text) = path.strip_prefix("tenants/") else { continue };
        let id = text.rsplit('/').next().and_then(|name| name.strip_suffix(".db"));
        let id: Option<u64> = id.and_then(|id| id.parse().ok());
        let known = id.is_some_and(|id| id == 0 || catalogue.iter().any(|row| row.id == id));
        if !known {
            return Err(bad(format!("{path} belongs to no database")));
        }
    }
    Ok(())
}
