//! Files that are not as the server left them: damaged, cut, gone, swapped, or from yesterday.
//!
//! What is always the same: the tenant whose file it is says that it is damaged, also after a
//! restart; its neighbours are served; nothing wrong is ever answered.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::process::{Database, Launch, Server, Trouble, eventually, folder, ids, tenant_file};

const PAGE_BYTES: u64 = 4096;
/// Exit code of a start that is refused.
const START_REFUSED: i32 = 1;
/// Rows of each database: some 30 pages.
const ROWS: usize = 100;
/// A text that is found in the log: in rows of `broken` only.
const NEEDLE: &[u8] = b"a needle in the commit log";

/// A data folder with two databases, cleanly stopped.
struct Stopped {
    data: tempfile::TempDir,
    file: PathBuf,
}

impl Stopped {
    fn new() -> Stopped {
        let data = folder();
        let server = Launch::on(data.path()).start();
        for name in ["broken", "whole"] {
            fill(&mut server.create(name));
        }
        server.stop();
        let ids = ids(data.path());
        let file = tenant_file(data.path(), ids["broken"]);
        assert!(file.metadata().unwrap().len() > 20 * PAGE_BYTES, "it was checkpointed");
        Stopped { data, file }
    }

    fn path(&self) -> &Path {
        self.data.path()
    }
}

fn fill(database: &mut Database) {
    database.rows(&[
        "CREATE TABLE t(a INTEGER PRIMARY KEY, b)",
        &format!(
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT {ROWS}) \
             INSERT INTO t SELECT i, hex(zeroblob(500)) FROM c"
        ),
    ]);
}

fn flip(file: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Reading everything of it ends in an error that says it is damaged, until it is out of service.
fn assert_damaged(server: &Server, name: &str) {
    let mut database = server.database(name);
    eventually(5, "the database is out of service", || {
        let trouble = database.run(&["SELECT sum(length(b)) FROM t"]).unwrap_err();
        assert!(trouble.to_string().contains("damaged"), "{trouble}");
        matches!(trouble, Trouble::Refused { status: 503, code, .. } if code == "DATABASE_DAMAGED")
    });
    let trouble = database.run(&["INSERT INTO t(b) VALUES (1)"]).unwrap_err();
    assert_eq!(trouble.code(), "DATABASE_DAMAGED", "{trouble}");
}

fn assert_whole(server: &Server, name: &str) {
    let mut database = server.database(name);
    assert_eq!(database.value("SELECT sum(length(b)) >= 100000 FROM t"), "1", "{name}");
    assert_eq!(database.value("PRAGMA integrity_check"), "ok", "{name}");
    database.rows(&["INSERT INTO t(b) VALUES (1)"]);
}

/// `broken` is damaged and `whole` is not, now and after restarts of both kinds.
fn assert_fenced(data: &Path) {
    let server = Launch::on(data).start();
    assert_damaged(&server, "broken");
    assert_whole(&server, "whole");
    drop(server.kill());
    let server = Launch::on(data).start();
    assert_damaged(&server, "broken");
    assert_whole(&server, "whole");
    server.stop();
    let server = Launch::on(data).start();
    assert_damaged(&server, "broken");
    assert_whole(&server, "whole");
    // The operator sees it, and may drop it: the name is free again.
    let shown = server.admin().call("GET", "/v1/namespaces/broken", b"").unwrap().json();
    assert_eq!(shown["state"], "fenced", "{shown}");
    assert!(!shown["reason"].as_str().unwrap_or_default().is_empty(), "{shown}");
    server.drop_database("broken");
    fill(&mut server.create("broken"));
    assert_whole(&server, "broken");
    server.stop();
}

#[test]
fn a_flipped_bit_in_a_page() {
    let stopped = Stopped::new();
    flip(&stopped.file, 10 * PAGE_BYTES + 1234);
    assert_fenced(stopped.path());
}

#[test]
fn a_flipped_bit_in_the_first_page() {
    let stopped = Stopped::new();
    flip(&stopped.file, 40);
    assert_fenced(stopped.path());
}

#[test]
fn a_file_that_is_gone() {
    let stopped = Stopped::new();
    fs::remove_file(&stopped.file).unwrap();
    assert_fenced(stopped.path());
}

#[test]
fn a_file_that_was_cut() {
    for bytes in [0, 100, PAGE_BYTES, 20 * PAGE_BYTES, 20 * PAGE_BYTES + 10] {
        let stopped = Stopped::new();
        fs::File::options().write(true).open(&stopped.file).unwrap().set_len(bytes).unwrap();
        assert_fenced(stopped.path());
    }
}

#[test]
fn a_neighbours_file() {
    let stopped = Stopped::new();
    let whole = tenant_file(stopped.path(), ids(stopped.path())["whole"]);
    fs::copy(&whole, &stopped.file).unwrap();
    assert_fenced(stopped.path());
}

#[test]
fn a_file_that_somebody_else_wrote() {
    let stopped = Stopped::new();
    let connection = rusqlite::Connection::open(&stopped.file).unwrap();
    connection.execute("UPDATE t SET b = b || 'by hand' WHERE a = 50", ()).unwrap();
    drop(connection);
    assert_fenced(stopped.path());
}

/// F10: every page of it is intact.
#[test]
fn a_file_of_yesterday() {
    let stopped = Stopped::new();
    let copy = stopped.path().join("copy");
    fs::copy(&stopped.file, &copy).unwrap();
    let server = Launch::on(stopped.path()).start();
    for name in ["broken", "whole"] {
        server.database(name).rows(&["INSERT INTO t(b) VALUES ('today')"]);
    }
    server.stop();
    fs::copy(&copy, &stopped.file).unwrap();
    assert_fenced(stopped.path());
}

/// Without the catalogue nobody knows whose file is whose: the process ends, and says why.
#[test]
fn the_catalogues_file() {
    let stopped = Stopped::new();
    let catalogue = tenant_file(stopped.path(), 0);
    flip(&catalogue, 40);
    assert_start_refused(stopped.path(), "catalogue");
    flip(&catalogue, 40);
    // A start reads only what it needs. Where the rest is damaged, it is found when it is used.
    flip(&catalogue, PAGE_BYTES + 4000);
    let server = Launch::on(stopped.path()).start();
    assert!(server.database("whole").run(&["SELECT 1"]).is_err());
    let (status, said) = server.wait();
    assert_eq!(status.code(), Some(START_REFUSED), "{said}");
    assert!(said.contains("the catalogue is damaged"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    flip(&catalogue, PAGE_BYTES + 4000);
    let away = stopped.path().join("away");
    fs::rename(&catalogue, &away).unwrap();
    assert_start_refused(stopped.path(), "catalogue");
    // Nothing was changed: with its file back all is well.
    fs::rename(&away, &catalogue).unwrap();
    let server = Launch::on(stopped.path()).start();
    assert_whole(&server, "whole");
    assert_whole(&server, "broken");
    server.stop();
}

/// F10 for the catalogue: an old copy knows an old set of databases, and every page of it is intact.
#[test]
fn the_catalogues_file_of_yesterday() {
    let stopped = Stopped::new();
    let catalogue = tenant_file(stopped.path(), 0);
    let yesterday = stopped.path().join("yesterday");
    fs::copy(&catalogue, &yesterday).unwrap();
    let server = Launch::on(stopped.path()).start();
    fill(&mut server.create("today"));
    server.stop();
    let today = stopped.path().join("today");
    fs::rename(&catalogue, &today).unwrap();
    fs::copy(&yesterday, &catalogue).unwrap();
    assert_start_refused(stopped.path(), "old copy");
    fs::rename(&today, &catalogue).unwrap();
    let server = Launch::on(stopped.path()).start();
    assert_whole(&server, "today");
    server.stop();
}

fn assert_start_refused(data: &Path, word: &str) {
    let ended = Launch::on(data).ended();
    assert_eq!(ended.status.code(), Some(START_REFUSED), "{}", ended.stderr);
    assert!(ended.stderr.contains(word), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    assert_eq!(ended.stderr.trim().lines().count(), 1, "{}", ended.stderr);
}

// ---- the commit log ----

/// A data folder whose log holds commits of three databases that are in no file, in this order:
/// `whole`, `broken` with the needle, then many of `late`.
fn killed() -> tempfile::TempDir {
    let data = folder();
    let server = Launch::on(data.path()).start();
    for name in ["whole", "broken"] {
        fill(&mut server.create(name));
    }
    let needle = String::from_utf8_lossy(NEEDLE);
    server.database("broken").rows(&[&format!("INSERT INTO t(b) VALUES ('{needle}')")]);
    let mut late = server.create("late");
    fill(&mut late);
    for _ in 0..20 {
        late.rows(&["INSERT INTO t(b) VALUES (1)"]);
    }
    drop(server.kill());
    data
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> =
        entries.filter(|path| path.to_string_lossy().contains("segment-")).collect();
    segments.sort();
    assert!(!segments.is_empty());
    segments
}

fn positions(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows.filter(|(_, window)| *window == wanted).map(|(index, _)| index).collect()
}

/// F11: rot in one record takes one tenant out of service.
#[test]
fn a_flipped_bit_in_the_log() {
    let data = killed();
    let segment = &segments(data.path())[0];
    let found = positions(&fs::read(segment).unwrap(), NEEDLE);
    assert!(!found.is_empty(), "the commit is in the log");
    for offset in found {
        flip(segment, offset as u64);
    }
    assert_fenced(data.path());
}

/// Nobody can say whose commits they were: no start, no change, and words that say so.
#[test]
fn garbage_in_the_log() {
    let data = killed();
    let segment = &segments(data.path())[0];
    let file = fs::File::options().write(true).open(segment).unwrap();
    file.write_all_at(&vec![0xa5; 1 << 20], 0).unwrap();
    for _ in 0..2 {
        assert_start_refused(data.path(), "the commit log");
    }
}

#[test]
fn a_ring_of_garbage() {
    let data = killed();
    let ring = data.path().join("log/ring");
    let whole = fs::read(&ring).unwrap();
    fs::write(&ring, vec![0xa5; whole.len()]).unwrap();
    assert_start_refused(data.path(), "ring");
    fs::remove_file(&ring).unwrap();
    assert_start_refused(data.path(), "ring");
    // With its ring back nothing is lost.
    fs::write(&ring, whole).unwrap();
    let server = Launch::on(data.path()).start();
    for name in ["whole", "broken", "late"] {
        assert_whole(&server, name);
    }
    server.stop();
}

#[test]
fn a_log_segment_that_is_gone() {
    let data = killed();
    fs::remove_file(&segments(data.path())[0]).unwrap();
    assert_start_refused(data.path(), "segment-000");
}
