//! The baseline: the same inserts on plain SQLite, an fsync for every commit.
//!
//! No server and no network: one thread commits single rows, one after the other, to one file or
//! spread over many, with SQLite's own VFS for Unix, `journal_mode=WAL` and `synchronous=FULL`. So
//! it is what an application gets that opens SQLite itself and keeps every commit. Many threads on
//! many files could share the file system's journal writes; that is not measured here.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::load::Outcome;
use super::progress::Progress;
use super::request::{Choice, Order};

/// More files than this do not change the result, as each insert waits for its own fsync, but
/// cost 3 descriptors and about 100 KiB each.
pub const FILES_MAX: u32 = 1_000;

/// Descriptors that one SQLite connection in WAL mode holds: file, WAL, wal-index.
pub const DESCRIPTORS_PER_FILE: u64 = 3;

/// The named VFS: our own is the default one where the server runs.
const VFS: &str = "unix";

/// One row, as the server's scenario inserts it.
const INSERT: &str = "INSERT INTO bench (value) VALUES (?)";

/// Inserts into `files` new databases in `folder`, spread over them, for `measured` after
/// `warm_up`.
///
/// # Errors
/// A database cannot be prepared. A failed insert is counted.
pub fn run(
    folder: &Path,
    files: u32,
    warm_up: Duration,
    measured: Duration,
    progress: &mut Progress,
) -> Result<Outcome, String> {
    assert!((1..=FILES_MAX).contains(&files));
    let mut connections = Vec::with_capacity(files as usize);
    for number in 0..files {
        let path = folder.join(format!("plain-{files}-{number:08}.db"));
        let connection =
            open(&path).map_err(|error| format!("fsync: {}: {error}", path.display()))?;
        connections.push(connection);
        progress.show(Instant::now(), || format!("fsync: {number} of {files} files prepared"));
    }
    let choice = Choice { order: Order::Spread, tenants: files, rows: 1_000 };
    let mut outcome = Outcome::default();
    let mut now = Instant::now();
    let measured_from = now + warm_up;
    let stop_at = measured_from + measured;
    while now < stop_at {
        let numbers = choice.numbers(outcome.sent);
        outcome.sent += 1;
        let value = format!("value-{}", numbers.value);
        let started = now;
        let result = connections[numbers.tenant as usize]
            .prepare_cached(INSERT)
            .and_then(|mut statement| statement.execute([value]));
        now = Instant::now();
        match result {
            Ok(_) if now >= measured_from => {
                let latency = now.duration_since(started).as_nanos();
                outcome.latencies.record(u64::try_from(latency).unwrap_or(u64::MAX));
            }
            Ok(_) => {}
            Err(error) => outcome.fail(|| error.to_string()),
        }
        progress.show(now, || format!("fsync, {files} files: {} inserts", outcome.sent));
    }
    progress.clear();
    outcome.elapsed = now.saturating_duration_since(measured_from);
    Ok(outcome)
}

/// A new database with the table that is inserted into.
fn open(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, VFS)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })?;
    // A thousand files would take their fsyncs' time to prepare, and none of it is measured.
    connection.pragma_update(None, "synchronous", "OFF")?;
    connection.execute_batch("CREATE TABLE bench (id INTEGER PRIMARY KEY, value TEXT)")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let time = Duration::from_millis(20);
        let outcome = run(folder.path(), 3, time, time, &mut Progress::new()).unwrap();
        assert_eq!(outcome.errors, 0);
        let mut rows = 0;
        for number in 0..3 {
            let path = folder.path().join(format!("plain-3-{number:08}.db"));
            let connection =
                Connection::open_with_flags_and_vfs(path, OpenFlags::SQLITE_OPEN_READ_WRITE, VFS)
                    .unwrap();
            let mode = |name| {
                connection.pragma_query_value(None, name, |row| row.get::<_, String>(0)).unwrap()
            };
            assert_eq!(mode("journal_mode"), "wal");
            let count = "SELECT count(*) FROM bench WHERE value LIKE 'value-1%'";
            rows += connection.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap();
        }
        assert_eq!(rows as u64, outcome.sent);
    }

    #[test]
    fn commits_are_synchronous() {
        let folder = tempfile::tempdir().unwrap();
        let connection = open(&folder.path().join("x.db")).unwrap();
        let synchronous =
            connection.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(synchronous, 2, "FULL");
        assert!(open(folder.path()).is_err(), "a folder is no database");
    }
}
