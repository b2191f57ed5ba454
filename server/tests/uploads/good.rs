//! Good files are there as they were.

use crate::files::{QUESTIONS, everything, file, rows};
use crate::process::{Launch, Server, folder};
use crate::{upload, upload_sql};

/// The new database says what the file says.
fn compare(server: &Server, name: &str, connection: &rusqlite::Connection) {
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

#[test]
fn a_dump_is_there_as_it_was() {
    let data = folder();
    let server = Launch::on(data.path()).start();
    let response = upload_sql(&server, "dumped", "CREATE TABLE t(a); INSERT INTO t VALUES(1);");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(server.database("dumped").value("SELECT a FROM t"), "1");
    server.stop();
}
