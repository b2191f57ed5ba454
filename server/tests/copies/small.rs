//! Copies of small databases, which have no file before their first checkpoint: over kill -9, a stop, and
//! drops; one by one and many at a time.

use serde_json::Value;

use crate::process::{IOS, Launch, Server, eventually, folder, ids, tenant_file};
use crate::{check, fill, fork, good};

/// Rows of the original: some 20 pages.
const ROWS: u64 = 20;

/// Copies of a test.
const COPIES: usize = 40;

/// Files of databases, without the catalogue's.
fn files(data: &std::path::Path) -> Vec<u64> {
    (1..200).filter(|id| tenant_file(data, *id).exists()).collect()
}

/// All at a time, each over a connection of its own.
fn fork_all(server: &Server, from: &str) {
    std::thread::scope(|scope| {
        for number in 0..COPIES {
            scope.spawn(move || fork(server, from, &format!("copy-{number}")));
        }
    });
}

#[test]
fn small_copies_are_in_the_log_and_whole_after_a_kill() {
    for io in IOS {
        let data = folder();
        let server = Launch::on(data.path()).io(io).start();
        fill(&mut server.create("source"), ROWS);
        fork_all(&server, "source");
        assert_eq!(files(data.path()), [0; 0], "nothing is in a file");
        check(&mut server.database("copy-0"));
        // One goes its own way, one is copied again before anybody has opened it.
        server.database("copy-1").rows(&["UPDATE account SET money = money + 1 WHERE id = 1"]);
        fork(&server, "copy-2", "again");
        drop(server.kill());
        let server = Launch::on(data.path()).io(io).start();
        for number in (0..COPIES).filter(|number| *number != 1) {
            check(&mut server.database(&format!("copy-{number}")));
        }
        check(&mut server.database("again"));
        let mut own = server.database("copy-1");
        assert_eq!(own.value("PRAGMA integrity_check"), "ok");
        assert_ne!(own.value("SELECT sum(money) FROM account"), crate::MONEY.to_string());
        server.stop();
        // A clean stop has brought all of them into their files.
        assert_eq!(files(data.path()).len(), COPIES + 2);
        assert_eq!(ids(data.path()).len(), COPIES + 2);
        let server = Launch::on(data.path()).io(io).start();
        check(&mut server.database("copy-7"));
        server.stop();
    }
}

#[test]
fn a_small_copy_that_nobody_has_opened_is_brought_into_its_file_at_a_stop() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    fill(&mut server.create("source"), ROWS);
    fork_all(&server, "source");
    server.stop();
    assert_eq!(files(data.path()).len(), COPIES + 1);
    let server = Launch::on(data.path()).start();
    for number in 0..COPIES {
        check(&mut server.database(&format!("copy-{number}")));
    }
    server.stop();
}

#[test]
fn small_copies_are_dropped_without_a_trace() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    fill(&mut server.create("source"), ROWS);
    fork_all(&server, "source");
    check(&mut server.database("copy-3"));
    for number in 0..COPIES {
        let path = format!("/v1/namespaces/copy-{number}");
        let receipt = good(&server, "DELETE", &path, &Value::Null);
        assert_eq!(receipt["receipt"]["even"], true, "{receipt}");
    }
    assert_eq!(server.metric("uneven_receipts_total"), 0);
    // Their names are free, and what the log still has of them is nobody's.
    fork_all(&server, "source");
    drop(server.kill());
    let server = Launch::on(data.path()).start();
    for number in 0..COPIES {
        check(&mut server.database(&format!("copy-{number}")));
    }
    server.stop();
    assert_eq!(files(data.path()).len(), COPIES + 1);
}

#[test]
fn more_small_copies_than_the_log_holds() {
    let data = folder();
    let server = Launch::on(data.path()).with(&["--log", "64MiB"]).start();
    fill(&mut server.create("source"), 30);
    let mut made = 0;
    while made < 600 {
        let first = made;
        std::thread::scope(|scope| {
            for number in first..first + 60 {
                let server = &server;
                scope.spawn(move || fork(server, "source", &format!("many-{number}")));
            }
        });
        made += 60;
    }
    for number in [0, 1, 299, 598, 599] {
        check(&mut server.database(&format!("many-{number}")));
    }
    eventually(60, "checkpoints have let go of most of them", || {
        (1..=601).filter(|id| tenant_file(data.path(), *id).exists()).count() > 300
    });
    drop(server.kill());
    let server = Launch::on(data.path()).start();
    for number in [0, 2, 300, 597, 599] {
        check(&mut server.database(&format!("many-{number}")));
    }
    server.stop();
}
