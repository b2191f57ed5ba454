//! Plain SQLite on bytes, beside the server's: what anybody else would read in a file.

use std::path::PathBuf;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use crate::world::files;

/// Tables by name, each row as text, in order of the texts.
pub type Tables = Vec<(String, Vec<String>)>;

/// A folder with one file; removed with it.
pub struct Plain {
    folder: PathBuf,
}

impl Drop for Plain {
    fn drop(&mut self) {
        // A folder that stays behind is the machine's business.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Plain {
    /// An empty folder.
    ///
    /// # Panics
    /// If the machine has no room for a temporary file: nothing can be judged then.
    pub fn new() -> Plain {
        storage::sqlite::initialise();
        files::prepare();
        Plain { folder: tempfile::tempdir().expect("a folder for temporary files").keep() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("plain.db")
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        Connection::open_with_flags_and_vfs(self.path(), flags, "unix")
    }

    /// Change these bytes by SQL; as much of it as works.
    pub fn change(&self, bytes: &[u8], by: impl FnOnce(&Connection)) -> Vec<u8> {
        let path = self.path();
        std::fs::write(&path, bytes).expect("room for a temporary file");
        if let Ok(connection) = self.open() {
            by(&connection);
        }
        let bytes = std::fs::read(&path).expect("it was written just now");
        for name in ["plain.db", "plain.db-journal", "plain.db-wal", "plain.db-shm"] {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        bytes
    }

    /// The ordinary tables of a file that SQLite finds nothing wrong with, by name, each value as SQL; but
    /// generated columns, which SQLite does not check, and an import computes anew.
    pub fn tables(&self, bytes: &[u8]) -> Option<Tables> {
        let mut tables = None;
        self.change(bytes, |connection| tables = read(connection).ok().flatten());
        tables
    }
}

fn read(connection: &Connection) -> rusqlite::Result<Option<Tables>> {
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(None);
    }
    let names = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
                 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
    let mut statement = connection.prepare(names)?;
    let names: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut tables = Vec::new();
    for name in names {
        let sql = format!("SELECT {} FROM \"{}\"", columns_of(connection, &name)?, quoted(&name));
        let mut statement = connection.prepare(&sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        let mut lines = Vec::new();
        while let Some(row) = rows.next()? {
            let mut line = String::new();
            for column in 0..columns {
                line += &match row.get_ref(column)? {
                    ValueRef::Null => "NULL,".to_owned(),
                    ValueRef::Integer(number) => format!("{number},"),
                    ValueRef::Real(number) => format!("{number:?},"),
                    ValueRef::Text(bytes) => format!("t{bytes:?},"),
                    ValueRef::Blob(bytes) => format!("b{bytes:?},"),
                };
            }
            lines.push(line);
        }
        lines.sort_unstable();
        tables.push((name, lines));
    }
    Ok(Some(tables))
}

/// The columns that are not generated.
fn columns_of(connection: &Connection, table: &str) -> rusqlite::Result<String> {
    let sql = "SELECT name FROM pragma_table_xinfo(?1) WHERE hidden < 2";
    let mut statement = connection.prepare(sql)?;
    let names = statement.query_map([table], |row| row.get::<_, String>(0))?;
    let names: rusqlite::Result<Vec<_>> =
        names.map(|name| Ok(format!("\"{}\"", quoted(&name?)))).collect();
    Ok(names?.join(", "))
}

fn quoted(name: &str) -> String {
    name.replace('"', "\"\"")
}
