//! Forks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::process::{IOS, Launch, Server, Trouble, create_path, eventually, folder, tenant_file};
use crate::{Over, ask, check, fill, fork, good, refused, transfer};

/// Copies that are made one after the other while it is written to.
const COPIES: usize = 3;

/// Write to the database until told to stop; how many turns were acknowledged.
fn write_until(server: &Server, name: &str, first: u64, done: &AtomicBool, count: &AtomicU64) {
    let mut database = server.database(name);
    let mut turn = first;
    while !done.load(Ordering::Relaxed) {
        match transfer(&mut database, turn) {
            Ok(()) => {}
            Err(Trouble::Sql { code, .. }) if code == "SQLITE_BUSY" => continue,
            Err(trouble) => panic!("a writer is disturbed: {trouble}"),
        }
        count.fetch_add(1, Ordering::Relaxed);
        turn += 2;
    }
}

#[test]
fn a_database_that_is_written_to_is_copied_as_it_was_at_one_moment() {
    for io in IOS {
        let data = folder();
        let server = Launch::on(data.path()).io(io).start();
        fill(&mut server.create("source"), 1500);
        let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let (server, done, count) = (&server, &done, &count);
                scope.spawn(move || write_until(server, "source", writer, done, count));
            }
            let over = Over(&done);
            for copy in 0..COPIES {
                let name = format!("copy-{copy}");
                let mut source = server.database("source");
                source.rows(&[&format!("INSERT INTO log(text) VALUES('before {copy}')")]);
                let before = count.load(Ordering::Relaxed);
                fork(&server, "source", &name);
                let mut database = server.database(&name);
                check(&mut database);
                let marks = format!("SELECT count(*) FROM log WHERE text = 'before {copy}'");
                assert_eq!(database.value(&marks), "1", "what was answered before is in it");
                let turns = database.value("SELECT count(*) FROM log WHERE text LIKE 'turn %'");
                assert!(turns.parse::<u64>().expect("a count") >= before);
                // The copy goes its own way.
                database.rows(&["DELETE FROM account", "INSERT INTO log(text) VALUES('own')"]);
            }
            drop(over);
        });
        let mut source = server.database("source");
        check(&mut source);
        assert_eq!(source.value("SELECT count(*) FROM log WHERE text = 'own'"), "0");
        server.stop();
        let server = Launch::on(data.path()).io(io).start();
        for copy in 0..COPIES {
            let mut database = server.database(&format!("copy-{copy}"));
            assert_eq!(database.value("PRAGMA integrity_check"), "ok");
            assert_eq!(database.value("SELECT count(*) FROM account"), "0");
        }
        check(&mut server.database("source"));
        server.stop();
    }
}

#[test]
fn copies_of_cold_empty_and_small_databases() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    fill(&mut server.create("small"), 1);
    server.create("empty");
    fork(&server, "empty", "nothing");
    let mut nothing = server.database("nothing");
    assert_eq!(nothing.value("SELECT count(*) FROM sqlite_schema"), "0");
    nothing.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES(7)"]);
    server.stop();
    let server = Launch::on(data.path()).start();
    // Nobody has opened it since the start.
    fork(&server, "small", "again");
    check(&mut server.database("again"));
    fork(&server, "again", "and-again");
    check(&mut server.database("and-again"));
    fork(&server, "nothing", "something");
    assert_eq!(server.database("something").value("SELECT a FROM t"), "7");
    let list = good(&server, "GET", "/v1/namespaces", &Value::Null);
    let states = list["namespaces"].as_array().expect("a list");
    assert!(states.iter().all(|row| row["state"] == "live"), "{list}");
    server.stop();
}

#[test]
fn a_copy_has_the_group_of_its_original_and_a_budget_of_its_own() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    for (name, group) in [("web", "acme"), ("app", "acme"), ("web", "rival")] {
        good(&server, "PUT", &format!("/v1/organisations/{group}"), &json!({}));
        good(&server, "PUT", &format!("/v1/organisations/{group}/groups/{name}"), &json!({}));
    }
    good(&server, "POST", &create_path("shop"), &json!({ "group": "acme/web" }));
    fill(&mut server.database("shop"), 100);
    fork(&server, "shop", "shop-2");
    let shown = good(&server, "GET", "/v1/namespaces/shop-2", &Value::Null);
    assert_eq!(shown["group"], "acme/web");
    let seed = json!({ "type": "database", "name": "shop" });
    let body = json!({ "group": "acme/app", "seed": seed, "max_db_size": "1MiB" });
    let made = good(&server, "POST", &create_path("shop-3"), &body);
    assert_eq!((&made["group"], &made["state"]), (&json!("acme/app"), &json!("live")));
    check(&mut server.database("shop-3"));
    // Of the organisation's own only, and no larger than it may be.
    let body = json!({ "name": "stolen", "seed": seed });
    let path = "/v1/organizations/rival/databases";
    assert_eq!(refused(&server, "POST", path, &body), (404, "DATABASE_NOT_FOUND".into()));
    let body = json!({ "name": "shop-4", "group": "web", "seed": seed });
    let made = good(&server, "POST", "/v1/organizations/acme/databases", &body);
    assert_eq!(made["database"]["Name"], "shop-4");
    let body = json!({ "seed": seed, "max_db_size": "16KiB" });
    let (status, answer) = ask(&server, "POST", &create_path("tiny"), &body);
    assert_eq!((status, &answer["budget"]), (429, &json!("storage_bytes")), "{answer}");
    eventually(10, "the row of what failed is gone", || {
        ask(&server, "GET", "/v1/namespaces/tiny", &Value::Null).0 == 404
    });
    for (from, to, expected) in [
        ("shop", "shop-2", (400, "DATABASE_EXISTS")),
        ("nothing", "shop-5", (404, "DATABASE_NOT_FOUND")),
        ("shop", "no%20name", (400, "NAME_INVALID")),
    ] {
        let (status, code) =
            refused(&server, "POST", &format!("/v1/namespaces/{from}/fork/{to}"), &Value::Null);
        assert_eq!(status, expected.0, "{from} {to} {code}");
    }
    // What is only in memory is exported, not copied; a copy is durable whatever its group says.
    good(&server, "POST", &create_path("brief"), &json!({ "class": "memory" }));
    server.database("brief").rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES(7)"]);
    let memory = refused(&server, "POST", "/v1/namespaces/brief/fork/brief-2", &Value::Null);
    assert_eq!(memory, (409, "IN_MEMORY".into()));
    let sql = server.client().call("GET", "/db/brief/dump", b"").expect("answered").text();
    assert!(sql.contains("INSERT INTO \"t\" VALUES(7);"), "{sql}");
    let body = json!({ "seed": seed, "class": "memory" });
    assert_eq!(refused(&server, "POST", &create_path("brief-3"), &body).0, 400);
    let path = "/v1/namespaces/shop/fork/past";
    let (status, answer) =
        ask(&server, "POST", path, &json!({ "timestamp": "2024-01-01T00:00:00" }));
    assert_eq!(status, 400, "{answer}");
    server.stop();
}

#[test]
fn a_fork_that_is_killed_leaves_all_of_it_or_nothing() {
    let data = folder();
    let (mut whole, mut none) = (0, 0);
    for round in 0..6_u64 {
        let server = Launch::on(data.path()).start();
        if round == 0 {
            fill(&mut server.create("source"), 6000);
        }
        let name = format!("copy-{round}");
        let mut admin = server.admin();
        admin.send("POST", &format!("/v1/namespaces/source/fork/{name}"), b"").expect("sent");
        std::thread::sleep(std::time::Duration::from_millis(round * 40));
        drop(server.kill());
        drop(admin);
        let mut server = Launch::on(data.path()).start();
        let path = format!("/v1/namespaces/{name}");
        eventually(10, "what was being built is gone or whole", || {
            let (status, answer) = ask(&server, "GET", &path, &Value::Null);
            status == 404 || answer["state"] == "live"
        });
        match ask(&server, "GET", &path, &Value::Null).0 {
            200 => {
                whole += 1;
                check(&mut server.database(&name));
                server.drop_database(&name);
            }
            _ => {
                none += 1;
                // The name is free.
                server.create(&name);
                server.drop_database(&name);
            }
        }
        check(&mut server.database("source"));
        assert!(server.lives());
        server.stop();
        let files: Vec<u64> = (1..60).filter(|id| tenant_file(data.path(), *id).exists()).collect();
        assert_eq!(files, [1], "files of databases that are not there");
    }
    assert_eq!(whole + none, 6);
}

#[test]
fn what_is_being_copied_can_be_dropped_and_what_is_dropped_is_not_copied() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    fill(&mut server.create("source"), 6000);
    let mut admin = server.admin();
    admin.send("POST", "/v1/namespaces/source/fork/copy", b"").expect("sent");
    eventually(10, "there is a row for it", || {
        ask(&server, "GET", "/v1/namespaces/copy", &Value::Null).0 == 200
    });
    // It may be there by now.
    server.drop_database("copy");
    let answer = admin.receive().expect("answered");
    assert!(matches!(answer.status, 200 | 409), "{}", answer.text());
    admin.send("POST", "/v1/namespaces/source/fork/copy", b"").expect("sent");
    eventually(10, "there is a row for it", || {
        ask(&server, "GET", "/v1/namespaces/copy", &Value::Null).0 == 200
    });
    server.drop_database("source");
    let answer = admin.receive().expect("answered");
    match answer.status {
        200 => check(&mut server.database("copy")),
        status => assert_eq!(status, 404, "{}", answer.text()),
    }
    server.stop();
}

#[test]
fn a_large_copy_says_how_far_it_is() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    fill(&mut server.create("source"), 7000);
    let pages = server.database("source").value("PRAGMA page_count");
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            let _over = Over(&done);
            fork(&server, "source", "copy");
        });
        let mut seen = Vec::new();
        let mut admin = server.admin();
        while !done.load(Ordering::Relaxed) {
            let shown = admin.call("GET", "/v1/namespaces/copy", b"").expect("answered").json();
            if let Some(pages) = shown["progress"]["pages"].as_u64() {
                assert_eq!(shown["state"], "building", "{shown}");
                seen.push((pages, shown["progress"]["pages_total"].as_u64().expect("a number")));
            }
        }
        seen
    });
    assert!(seen.is_sorted(), "{seen:?}");
    let total: u64 = pages.parse().expect("a number");
    assert!(seen.iter().any(|&(pages, of)| pages > 0 && pages < of && of == total), "{seen:?}");
    let shown = good(&server, "GET", "/v1/namespaces/copy", &Value::Null);
    assert_eq!((&shown["state"], &shown["progress"]), (&json!("live"), &Value::Null));
    server.stop();
}
