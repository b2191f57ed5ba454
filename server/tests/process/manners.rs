//! How the process behaves: starting, refusing to start, stopping, and what it says.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use serde_json::json;

use crate::process::{Ended, IOS, Launch, bare, create_path, eventually, folder, mount};

/// Exit codes, as the operations notes have them.
const START_REFUSED: i32 = 1;
const WRONG_ARGUMENTS: i32 = 2;
const IN_USE: i32 = 3;

/// A statement that takes a while.
const SLOW: &str = "INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c \
     LIMIT 1000000) SELECT count(*) FROM c";

fn assert_refused(ended: &Ended, code: i32, words: &[&str]) {
    let Ended { status, stderr, .. } = ended;
    assert_eq!(status.code(), Some(code), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr:?}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// The same, said in one line.
fn assert_refused_in_a_line(ended: &Ended, code: i32, words: &[&str]) {
    assert_refused(ended, code, words);
    assert_eq!(ended.stderr.trim().lines().count(), 1, "{}", ended.stderr);
}

// ---- stopping ----

#[test]
fn a_stop_answers_what_runs() {
    for io in IOS {
        let data = folder();
        let mut server = Launch::on(data.path()).io(io).start();
        let mut database = server.create("d");
        database.rows(&["CREATE TABLE t(a)"]);
        let mut idle = server.client();
        assert_eq!(idle.call("GET", "/health", b"").unwrap().status, 200);
        let begun = server.metric("jobs_total") + 1;
        database.send(&[SLOW]);
        eventually(5, "the statement runs", || server.metric("jobs_total") >= begun);
        server.terminate();
        // A connection without a request is closed, the one with a request is answered.
        assert!(idle.receive().is_err());
        assert_eq!(database.answer().unwrap(), Vec::<Vec<String>>::new());
        let (status, said) = server.wait();
        assert!(status.success(), "{status}: {said}");

        let server = Launch::on(data.path()).io(io).start();
        assert_eq!(server.database("d").rows(&["SELECT a FROM t"]), [["1000000"]]);
        server.stop();
    }
}

#[test]
fn a_stop_rolls_open_transactions_back() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut database = server.create("d");
    database.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
    database.step("BEGIN IMMEDIATE").unwrap();
    database.step("INSERT INTO t VALUES (2)").unwrap();
    server.stop();
    let server = Launch::on(data.path()).start();
    assert_eq!(server.database("d").rows(&["SELECT a FROM t"]), [["1"]]);
    server.stop();
}

#[test]
fn a_stop_at_once() {
    let data = folder();
    for _ in 0..3 {
        let mut server = Launch::on(data.path()).start();
        server.terminate();
        server.terminate();
        let (status, said) = server.wait();
        assert!(status.success(), "{status}: {said}");
    }
}

/// Cleanly stopped, a database without a file is no loss, and a database with one is in it whole.
#[test]
fn an_empty_database_survives() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    server.create("empty");
    server.stop();
    let server = Launch::on(data.path()).start();
    assert_eq!(server.database("empty").value("SELECT count(*) FROM sqlite_schema"), "0");
    let again = server.admin().post(&create_path("empty"), &json!({})).unwrap();
    assert_eq!(again.status, 400, "{}", again.text());
    server.stop();
}

// ---- one process for one folder ----

type Contents = BTreeMap<String, (u64, SystemTime, [u8; 32])>;

fn contents(folder: &Path) -> Contents {
    let mut found = Contents::new();
    add_contents(folder, "", &mut found);
    found
}

fn add_contents(folder: &Path, below: &str, found: &mut Contents) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{below}/{}", entry.file_name().to_string_lossy());
        let about = entry.metadata().unwrap();
        if about.is_dir() {
            add_contents(&entry.path(), &name, found);
            continue;
        }
        let hash = blake3::hash(&fs::read(entry.path()).unwrap());
        found.insert(name, (about.len(), about.modified().unwrap(), *hash.as_bytes()));
    }
}

#[test]
fn a_second_process_is_refused_and_changes_nothing() {
    for io in IOS {
        let data = folder();
        let server = Launch::on(data.path()).with(&["--log", "64MiB"]).start();
        let mut database = server.create("d");
        database.rows(&["CREATE TABLE t(a)"]);
        // The server makes a log segment ahead, and then rests.
        let mut before = Contents::new();
        eventually(10, "nothing changes any more", || {
            let now = contents(data.path());
            now.len() == 3 && std::mem::replace(&mut before, now) == before
        });

        let ended = Launch::on(data.path()).io(io).ended();
        let path = data.path().to_string_lossy();
        assert_refused_in_a_line(&ended, IN_USE, &["another process uses", &path]);

        assert!(before == contents(data.path()), "the second process changed the folder");
        database.rows(&["INSERT INTO t VALUES (1)"]);
        server.stop();
    }
}

// ---- addresses and folders ----

#[test]
fn a_port_in_use() {
    let data = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for io in IOS {
        for option in ["--listen", "--admin-listen"] {
            let ended = Launch::on(data.path()).io(io).with(&[option, &address]).ended();
            assert_refused_in_a_line(&ended, START_REFUSED, &["cannot listen on", &address]);
        }
    }
    // The refused starts left nothing in the way of a good one.
    Launch::on(data.path()).start().stop();
}

#[test]
fn a_data_folder_that_is_a_file() {
    let data = folder();
    let file = data.path().join("file");
    fs::write(&file, "mine").unwrap();
    for path in [file.clone(), file.join("below")] {
        let ended = Launch::on(&path).ended();
        let path = path.to_string_lossy();
        assert_refused_in_a_line(&ended, START_REFUSED, &["data folder", &path]);
    }
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn a_data_folder_that_is_not_there_is_made() {
    let data = folder();
    let path = data.path().join("new/and/deep");
    let server = Launch::on(&path).start();
    server.create("d").rows(&["CREATE TABLE t(a)"]);
    server.stop();
    assert!(path.join("log/ring").is_file());
}

/// Permissions say no; for root, who is not asked for them, a file system that is read-only.
#[test]
fn a_data_folder_that_cannot_be_written() {
    let data = folder();
    let folder = data.path().join("locked");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let root = fs::write(folder.join("probe"), "").is_ok();
    let mounted = root.then(|| mount(&folder, "size=1m,ro"));
    if let Some(None) = mounted {
        println!("not tested: root, and no right to mount");
        return;
    }
    for io in IOS {
        let ended = Launch::on(&folder).io(io).ended();
        assert_refused_in_a_line(&ended, START_REFUSED, &["data folder"]);
    }
}

// ---- arguments ----

#[test]
fn help_and_version() {
    let version = bare(&["--version"]);
    assert!(version.status.success());
    assert_eq!(version.stdout, format!("myriad {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(version.stderr, "");
    let help = bare(&["--help"]);
    assert!(help.status.success());
    for word in ["serve", "Exit codes", "Try it"] {
        assert!(help.stdout.contains(word), "{word:?} is not in {}", help.stdout);
    }
    let help = bare(&["serve", "--help"]);
    assert!(help.status.success());
    for option in ["--data", "--listen", "--admin-listen", "--io", "--create-on-first-use"] {
        assert!(help.stdout.contains(option), "{option} is not in {}", help.stdout);
    }
}

#[test]
fn wrong_arguments() {
    assert_refused(&bare(&[]), WRONG_ARGUMENTS, &["Usage"]);
    assert_refused(&bare(&["serf"]), WRONG_ARGUMENTS, &["serf"]);
    assert_refused(&bare(&["serve", "--frobnicate"]), WRONG_ARGUMENTS, &["--frobnicate"]);
    let data = folder();
    for arguments in [
        ["--io", "epoll"],
        ["--listen", "nowhere"],
        ["--memory", "much"],
        ["--log", "12 parsecs"],
        ["--log", "1EiB"],
        ["--log", "1000GiB"],
    ] {
        let ended = Launch::on(&data.path().join("d")).with(&arguments).ended();
        assert_refused(&ended, WRONG_ARGUMENTS, &arguments);
    }
    assert!(!data.path().join("d").exists(), "a start that was refused made a folder");
}

#[test]
fn every_io_serves() {
    for io in ["auto", "uring", "poll"] {
        let data = folder();
        let server = Launch::on(data.path()).io(io).start();
        assert_eq!(server.create("d").value("SELECT 1 + 1"), "2");
        server.stop();
    }
}

/// A folder written through one Io is read through the other.
#[test]
fn the_ios_share_their_folders() {
    let data = folder();
    let server = Launch::on(data.path()).io("uring").start();
    server.create("d").rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"]);
    drop(server.kill());
    let server = Launch::on(data.path()).io("poll").start();
    let mut database = server.database("d");
    database.rows(&["INSERT INTO t VALUES (2)"]);
    server.stop();
    let server = Launch::on(data.path()).io("uring").start();
    assert_eq!(server.database("d").value("SELECT sum(a) FROM t"), "3");
    server.stop();
}

// ---- databases ----

#[test]
fn databases_come_on_request_only_unless_told() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let refused = server.database("new").run(&["SELECT 1"]).unwrap_err();
    assert_eq!(refused.code(), "DATABASE_NOT_FOUND", "{refused}");
    server.stop();
    let server = Launch::on(data.path()).with(&["--create-on-first-use", "true"]).start();
    assert_eq!(server.database("new").value("SELECT 1"), "1");
    server.stop();
    // It was created for good.
    let server = Launch::on(data.path()).start();
    assert_eq!(server.database("new").value("SELECT 1"), "1");
    server.stop();
}

#[test]
fn a_list_has_pages() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    for number in 0..12 {
        server.create(&format!("d-{number:02}"));
    }
    server.create("other");
    let mut admin = server.admin();
    let mut list = |query: &str| {
        let page = admin.call("GET", &format!("/v1/namespaces?{query}"), b"").unwrap().json();
        let rows = page["namespaces"].as_array().unwrap();
        let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
        (names.join(" "), page["next"].as_str().unwrap_or_default().to_owned())
    };
    let (names, next) = list("limit=5&prefix=d-");
    assert_eq!((names.as_str(), next.as_str()), ("d-00 d-01 d-02 d-03 d-04", "d-04"));
    let (names, _) = list(&format!("limit=100&prefix=d-&after={next}"));
    assert_eq!(names, "d-05 d-06 d-07 d-08 d-09 d-10 d-11");
    let (names, next) = list("after=d-11");
    assert_eq!((names.as_str(), next.as_str()), ("other", ""));
    server.stop();
}
