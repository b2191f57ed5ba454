//! Good files are there as they were.

use crate::files::{QUESTIONS, everything, file, rows};
use crate::process::{Launch, Server, folder, number};
use crate::{send, upload, upload_sql};

/// The new database says what the file says.
pub fn compare(server: &Server, name: &str, connection: &rusqlite::Connection) {
    let mut database = server.database(name);
    for question in QUESTIONS {
        let own = rows(connection, question);
        let there = database.run(&[question]).unwrap_or_else(|error| panic!("{question}: {error}"));
        assert_eq!(there, own, "{name}: {question}");
    }
}

#[test]
fn a_file_of_any_page_size_and_encoding_is_there_as_it_was() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    for (index, page_bytes) in [512, 1024, 4096, 16_384, 65_536].into_iter().enumerate() {
        let encoding = ["UTF-8", "UTF-16le", "UTF-16be"][index % 3];
        let name = format!("p{page_bytes}");
        let bytes =
            file(made.path(), &name, |connection| everything(connection, page_bytes, encoding));
        let response = upload(&server, &name, &bytes);
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        assert_eq!(response.json()["imported"]["bytes"], bytes.len());
        let connection = rusqlite::Connection::open(made.path().join(&name)).expect("it opens");
        compare(&server, &name, &connection);
    }
    server.stop();
}

/// What the `sqlite3` shell's `.dump` prints, in its words.
fn dump(connection: &rusqlite::Connection) -> String {
    let text = |sql: &str| rows(connection, sql);
    let mut out = "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n".to_owned();
    let tables = text(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND sql IS NOT NULL \
         ORDER BY name = 'sqlite_sequence', rowid",
    );
    let mut writable = false;
    for table in &tables {
        let (name, sql) = (&table[0], &table[1]);
        let quoted = format!("'{}'", name.replace('\'', "''"));
        if name == "sqlite_sequence" {
            out += "DELETE FROM sqlite_sequence;\n";
        } else if name.starts_with("sqlite_stat") {
            out += "ANALYZE sqlite_schema;\n";
        } else if sql.starts_with("CREATE VIRTUAL TABLE") {
            if !std::mem::replace(&mut writable, true) {
                out += "PRAGMA writable_schema=ON;\n";
            }
            let sql = sql.replace('\'', "''");
            out += &format!(
                "INSERT INTO sqlite_schema(type,name,tbl_name,rootpage,sql)VALUES('table',{quoted},\
                 {quoted},0,'{sql}');\n"
            );
            continue;
        } else if let Some(rest) = sql.strip_prefix("CREATE TABLE ") {
            let shadow = rest.starts_with('\'') || rest.starts_with('"') && name.contains('_');
            let guard = if shadow { "IF NOT EXISTS " } else { "" };
            out += &format!("CREATE TABLE {guard}{rest};\n");
        }
        let columns = text(&format!("SELECT name FROM pragma_table_info({quoted})"));
        let names: Vec<String> =
            columns.iter().map(|row| format!("\"{}\"", row[0].replace('"', "\"\""))).collect();
        let values: Vec<String> = names.iter().map(|name| format!("quote({name})")).collect();
        let table = format!("\"{}\"", name.replace('"', "\"\""));
        let list = names.join(",");
        for row in text(&format!("SELECT {} FROM {table}", values.join(", "))) {
            out += &format!("INSERT INTO {table}({list}) VALUES({});\n", row.join(","));
        }
    }
    for row in text(
        "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND type <> 'table' ORDER BY type, rowid",
    ) {
        out += &format!("{};\n", row[0]);
    }
    if writable {
        out += "PRAGMA writable_schema=OFF;\n";
    }
    out + "COMMIT;\n"
}

#[test]
fn a_dump_is_there_as_it_was() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    file(made.path(), "dumped", |connection| everything(connection, 4096, "UTF-8"));
    let connection = rusqlite::Connection::open(made.path().join("dumped")).expect("it opens");
    // Numbers that a dump does not have.
    connection
        .execute_batch("DELETE FROM \"odd name; --\"; PRAGMA user_version = 0")
        .expect("gone");
    connection.execute_batch("PRAGMA application_id = 0").expect("gone");
    let text = dump(&connection);
    let response = upload_sql(&server, "dumped", &text);
    assert_eq!(response.status, 200, "{}", response.text());
    compare(&server, "dumped", &connection);
    // Without the transaction, with modules at work, in odd pieces, and by its other name.
    let sql = "CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f(rowid, a) VALUES(5, 'one two');\n\
               PRAGMA user_version = 7; CREATE TABLE t(a); INSERT INTO t VALUES(1)";
    let path = "/v1/namespaces/plain/upload?group=default/default&format=sql";
    let response = crate::send(&server, path, "", sql.as_bytes()).expect("answered");
    assert_eq!(response.status, 404, "there is no such group: {}", response.text());
    let path = "/v1/namespaces/plain/upload?format=sql";
    let response = crate::send(&server, path, "", sql.as_bytes()).expect("answered");
    assert_eq!(response.status, 200, "{}", response.text());
    let mut plain = server.database("plain");
    assert_eq!(plain.value("SELECT rowid FROM f('two')"), "5");
    assert_eq!(plain.value("PRAGMA user_version"), "7");
    let response = upload_sql(&server, "empty", " -- nothing\n");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(server.database("empty").value("SELECT count(*) FROM sqlite_schema"), "0");
    server.stop();
}

#[test]
fn what_is_exported_can_be_uploaded_again() {
    let (data, made) = (folder(), folder());
    let server = Launch::on(data.path()).start();
    let bytes = file(made.path(), "first", |connection| everything(connection, 4096, "UTF-8"));
    assert_eq!(upload(&server, "first", &bytes).status, 200);
    let connection = rusqlite::Connection::open(made.path().join("first")).expect("it opens");
    for format in ["sqlite", "sql"] {
        let path = format!("/v1/namespaces/first/export?format={format}");
        let exported = server.admin().call("GET", &path, b"").expect("answered");
        assert_eq!(exported.status, 200, "{format}");
        let path = format!("/v1/namespaces/{format}/upload?format={format}");
        let kind = "application/octet-stream";
        let response = send(&server, &path, kind, &exported.body).expect("answered");
        assert_eq!(response.status, 200, "{format}: {}", response.text());
        if format == "sql" {
            // SQL text has no place for numbers of rows that no column shows.
            let numbered = "DELETE FROM \"odd name; --\"";
            connection.execute_batch(numbered).expect("gone");
            server.database(format).rows(&[numbered]);
        }
        compare(&server, format, &connection);
    }
    server.stop();
}

/// A database of so many bytes, more or less, with an index over all of it.
pub fn large(connection: &rusqlite::Connection, bytes: u64) {
    let rows = bytes / 420;
    connection
        .execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b BLOB)")
        .expect("made");
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
               INSERT INTO t SELECT i, hex(randomblob(40)), randomblob(200) FROM n";
    connection.execute(sql, [rows as i64]).expect("rows");
    connection.execute_batch("CREATE INDEX by_a ON t(a)").expect("an index");
}

#[test]
fn a_large_file_takes_bounded_memory_and_a_clean_restart_has_it() {
    let (data, made) = (folder(), folder());
    let megabytes = number("MYRIAD_UPLOAD_MIB", 50) as u64;
    let mut server = Launch::on(data.path()).start();
    let bytes = file(made.path(), "large", |connection| large(connection, megabytes << 20));
    let before = server.resident_bytes();
    let began = std::time::Instant::now();
    let path = "/v1/namespaces/large/upload?progress=lines";
    let response = send(&server, path, "application/vnd.sqlite3", &bytes).expect("answered");
    let text = response.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("{\"bytes\":"), "{text}");
    assert!(lines[lines.len() - 1].contains("\"imported\":"), "{text}");
    let grown = server.resident_bytes().saturating_sub(before) >> 20;
    println!(
        "{} MiB uploaded in {:?}, {grown} MiB more resident",
        bytes.len() >> 20,
        began.elapsed()
    );
    assert!(grown < 48, "{grown} MiB more are resident");
    server.stop();
    let server = Launch::on(data.path()).start();
    let mut large = server.database("large");
    assert_eq!(large.value("SELECT count(*) FROM t"), ((megabytes << 20) / 420).to_string());
    assert_eq!(large.value("PRAGMA quick_check"), "ok");
    server.stop();
}
