//! Two hundred files that were made to harm, from a few base files by seed: each is refused, or opened
//! safely; after each the neighbour answers, and in the end nothing is left of those that were refused.

use crate::files::{everything, file};
use crate::process::{Launch, Server, folder, number};
use crate::{refusal, send, upload};

/// Linear congruential, as in Knuth's MMIX: the same battery everywhere.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }
}

/// Schemas that no honest file has, written through `writable_schema`.
const CRAFTED: &[&str] = &[
    // Names and texts that do not belong together.
    "UPDATE sqlite_schema SET sql = 'CREATE TABLE other(a)' WHERE name = 'plain'",
    "UPDATE sqlite_schema SET name = 'sqlite_hidden', tbl_name = 'sqlite_hidden' WHERE name = 'plain'",
    "UPDATE sqlite_schema SET type = 'wardrobe' WHERE name = 'seen'",
    "UPDATE sqlite_schema SET sql = NULL WHERE name = 'plain'",
    "UPDATE sqlite_schema SET sql = 'DROP TABLE plain' WHERE name = 'seen'",
    "UPDATE sqlite_schema SET sql = 'CREATE VIEW seen AS SELECT load_extension(''x'')' WHERE name = 'seen'",
    // Pages that two tables share, or that are not there.
    "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'keyed') WHERE name = 'plain'",
    "UPDATE sqlite_schema SET rootpage = 99999999 WHERE name = 'plain'",
    "UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'plain'",
    "UPDATE sqlite_schema SET rootpage = -3 WHERE name = 'plain'",
    // Functions where a schema calls them without being asked.
    "UPDATE sqlite_schema SET sql = 'CREATE TABLE plain(id INTEGER PRIMARY KEY, a CHECK(load_extension(a)), b, c, d, e)' WHERE name = 'plain'",
    "UPDATE sqlite_schema SET sql = 'CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b, c, d, e, g AS (fts3_tokenizer(a)))' WHERE name = 'plain'",
    "UPDATE sqlite_schema SET sql = 'CREATE INDEX partial ON plain(a) WHERE readfile(''/etc/passwd'') IS NOT NULL' WHERE name = 'partial'",
    "UPDATE sqlite_schema SET sql = 'CREATE INDEX expression ON derived(randomblob(1000000000))' WHERE name = 'expression'",
    "UPDATE sqlite_schema SET sql = 'CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b, c, d, e, CHECK(instr(zeroblob(900000), zeroblob(400000)) < 9))' WHERE name = 'plain'",
    // Virtual tables.
    "INSERT INTO sqlite_schema VALUES('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING csv(filename=''/etc/passwd'')')",
    "INSERT INTO sqlite_schema VALUES('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING dbstat')",
    "INSERT INTO sqlite_schema VALUES('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING fts5(a, tokenize=''icu'')')",
    "INSERT INTO sqlite_schema VALUES('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING rtree(id, a)')",
    "INSERT INTO sqlite_schema VALUES('view', 'v_content', 'v_content', 0, 'CREATE VIEW v_content AS SELECT 1 AS id, 2 AS c0'); INSERT INTO sqlite_schema VALUES('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING fts5(a)')",
    "UPDATE words_data SET block = randomblob(length(block))",
    "UPDATE words_data SET block = x'00'",
    "UPDATE boxes_node SET data = randomblob(length(data))",
    "UPDATE boxes_node SET data = substr(data, 1, 9)",
    "UPDATE boxes_rowid SET nodeno = 424242",
    "DELETE FROM words_content",
    "UPDATE words_content SET c0 = zeroblob(500000)",
    "INSERT INTO words_content(id, c0) SELECT id + 100, c0 FROM words_content",
    // Triggers and views that turn in circles.
    "INSERT INTO sqlite_schema VALUES('view', 'r1', 'r1', 0, 'CREATE VIEW r1 AS SELECT * FROM r2'); INSERT INTO sqlite_schema VALUES('view', 'r2', 'r2', 0, 'CREATE VIEW r2 AS SELECT * FROM r1')",
    "INSERT INTO sqlite_schema VALUES('trigger', 'loop', 'plain', 0, 'CREATE TRIGGER loop AFTER INSERT ON plain BEGIN INSERT INTO plain DEFAULT VALUES; END')",
    "INSERT INTO sqlite_schema VALUES('trigger', 'gone', 'nowhere', 0, 'CREATE TRIGGER gone AFTER INSERT ON nowhere BEGIN SELECT 1; END')",
    // Too much of something.
    "INSERT INTO plain(d) VALUES(zeroblob(3000000))",
    "UPDATE sqlite_schema SET sql = 'CREATE TABLE plain(' || substr(replace(hex(zeroblob(3000)), '00', 'c,'), 1, 8001) || ')' WHERE name = 'plain'",
    "UPDATE sqlite_sequence SET seq = 'not a number'",
    "DELETE FROM sqlite_sequence",
    "INSERT INTO sqlite_schema VALUES('table', 'sqlite_stat1', 'sqlite_stat1', 0, 'CREATE VIEW sqlite_stat1 AS SELECT 1 AS tbl')",
];

/// What a battery's file is, in words, and its bytes.
fn hostile(base: &[Vec<u8>], crafted: &[(String, Vec<u8>)], index: usize) -> (String, Vec<u8>) {
    if let Some((name, bytes)) = crafted.get(index) {
        return (name.clone(), bytes.clone());
    }
    let mut draw = Draw(index as u64);
    draw.next(1);
    let which = draw.next(base.len());
    let mut bytes = base[which].clone();
    let page_bytes = match u16::from_be_bytes([bytes[16], bytes[17]]) {
        1 => 65_536,
        bytes => usize::from(bytes),
    };
    let what = match index % 8 {
        0 => {
            bytes.truncate(draw.next(bytes.len()));
            format!("cut to {}", bytes.len())
        }
        1 => {
            bytes.truncate((draw.next(bytes.len() / page_bytes) + 1) * page_bytes);
            // With a header that does not tell.
            let pages = (bytes.len() / page_bytes) as u32;
            bytes[28..32].copy_from_slice(&pages.to_be_bytes());
            format!("cut to {pages} pages")
        }
        2 => {
            let flips = 1 + draw.next(40);
            for _ in 0..flips {
                let at = draw.next(bytes.len());
                bytes[at] ^= 1 << draw.next(8);
            }
            format!("{flips} bits flipped")
        }
        3 => {
            let at = draw.next(108);
            bytes[at] = draw.next(256) as u8;
            format!("byte {at} of the header")
        }
        4 => {
            let claimed = [0u16, 1, 256, 512, 1024, 2048, 8192, 32_768, 65_535][draw.next(9)];
            bytes[16..18].copy_from_slice(&claimed.to_be_bytes());
            format!("page size {claimed} instead of {page_bytes}")
        }
        5 => {
            let at = draw.next(bytes.len() / page_bytes) * page_bytes;
            for byte in &mut bytes[at..at + page_bytes] {
                *byte = draw.next(256) as u8;
            }
            format!("page {} of noise", at / page_bytes + 1)
        }
        6 => {
            // The headers of pages and their cells' places.
            for _ in 0..6 {
                let page = draw.next(bytes.len() / page_bytes) * page_bytes;
                let at = page + if page == 0 { 100 } else { 0 } + draw.next(24);
                bytes[at] = draw.next(256) as u8;
            }
            "headers of pages".to_owned()
        }
        _ => {
            let (from, to) =
                (draw.next(bytes.len() / page_bytes), draw.next(bytes.len() / page_bytes));
            let (from, to) = (from * page_bytes, to * page_bytes);
            bytes.copy_within(from..from + page_bytes, to);
            format!("page {} twice", from / page_bytes + 1)
        }
    };
    (format!("base {which}, {what}"), bytes)
}

fn crafted() -> Vec<(String, Vec<u8>)> {
    let made = folder();
    let mut found = Vec::new();
    for (index, sql) in CRAFTED.iter().enumerate() {
        let bytes = file(made.path(), &format!("c{index}"), |connection| {
            everything(connection, 4096, "UTF-8");
            connection.execute_batch("PRAGMA writable_schema = ON").expect("it is switched on");
            connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        });
        found.push((format!("crafted: {sql}"), bytes));
    }
    let plain = found[0].1.clone();
    let mut bomb = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    bomb.resize(200_000, 0);
    found.push(("a zip bomb".into(), bomb));
    found.push(("an archive".into(), [b"PK\x03\x04", &plain[..50_000]].concat()));
    found.push(("nothing".into(), Vec::new()));
    found.push(("a text".into(), b"SQLite format 3, in words".to_vec()));
    found.push(("only zeros".into(), vec![0; 65_536]));
    let mut huge = plain[..8192].to_vec();
    huge[28..32].copy_from_slice(&u32::MAX.to_be_bytes());
    found.push(("a claim of 16 TiB".into(), huge));
    found
}

/// What is held of temporary files, and files that are open: as it was, when all is over.
fn held(server: &Server) -> Vec<u64> {
    ["open_tenants", "parked_streams"].iter().map(|name| server.metric(name)).collect()
}

#[test]
fn hostile_files_are_refused_or_opened_safely() {
    let (data, made) = (folder(), folder());
    let mut server = Launch::on(data.path()).start();
    let mut neighbour = server.create("neighbour");
    neighbour.rows(&["CREATE TABLE t(a)", "INSERT INTO t VALUES(42)"]);
    let before = held(&server);
    let base: Vec<Vec<u8>> =
        [(512, "UTF-8"), (4096, "UTF-16le"), (4096, "UTF-8"), (65_536, "UTF-8")]
            .iter()
            .enumerate()
            .map(|(index, (page_bytes, encoding))| {
                let name = format!("b{index}");
                file(made.path(), &name, |connection| everything(connection, *page_bytes, encoding))
            })
            .collect();
    let crafted = crafted();
    let count = number("MYRIAD_HOSTILE_UPLOADS", 200);
    let (mut opened, mut refused) = (0, 0);
    for index in 0..count {
        let (what, bytes) = hostile(&base, &crafted, index);
        let response = upload(&server, "suspect", &bytes);
        let text = response.text();
        match response.status {
            200 => {
                opened += 1;
                let mut suspect = server.database("suspect");
                let check = suspect.value("PRAGMA integrity_check");
                assert_eq!(check, "ok", "{index}, {what}: it was opened");
                for table in ["words", "boxes", "plain", "seen"] {
                    let _ = suspect.run(&[&format!("SELECT * FROM {table} LIMIT 3")]);
                }
                drop(suspect);
                server.drop_database("suspect");
            }
            413 | 415 | 422 => {
                refused += 1;
                let (_, code) = refusal(&response);
                assert!(!code.is_empty() && code != "INTERNAL", "{index}, {what}: {text}");
            }
            other => panic!("{index}, {what}: {other} {text}"),
        }
        assert_eq!(neighbour.value("SELECT a FROM t"), "42", "{index}, {what}");
        assert!(server.lives(), "{index}, {what}: {}", server.said());
    }
    println!("{count} hostile uploads: {refused} refused, {opened} opened safely");
    assert!(refused > count / 2, "most of them are refused: {refused}");
    let path = "/v1/namespaces?limit=10";
    let list = server.admin().call("GET", path, b"").expect("answered").json();
    assert_eq!(list["namespaces"].as_array().expect("a list").len(), 1, "{list}");
    assert_eq!(server.metric("unbooked_bytes"), 0);
    assert_eq!(held(&server), before);
    // No file of them is left: the neighbour's and the catalogue's.
    let said = server.stop();
    assert!(!said.contains("panicked"), "{said}");
    let mut files = Vec::new();
    let mut folders = vec![data.path().join("tenants"), data.path().join("temporary")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() { folders.push(entry) } else { files.push(entry) }
        }
    }
    assert_eq!(files.len(), 2, "{files:?}");
}

#[test]
fn a_compressed_body_is_not_looked_into() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let mut client = server.admin();
    let head = "POST /v1/namespaces/bomb/upload HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\n\
                content-type: application/vnd.sqlite3\r\ncontent-length: 4\r\n\r\n\x1f\u{0}\u{0}\u{0}";
    client.send_raw(head.as_bytes()).expect("it is sent");
    let response = client.receive().expect("answered");
    assert_eq!(response.status, 415, "{}", response.text());
    let bomb = [0x1f, 0x8b, 8, 0];
    let path = "/v1/namespaces/bomb/upload";
    let response = send(&server, path, "application/sql", &bomb).expect("answered");
    assert_eq!(refusal(&response), (415, "UPLOAD_COMPRESSED".into()), "{}", response.text());
    server.stop();
}
