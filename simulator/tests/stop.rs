//! A stop on a disk that has no room for a database's file: it ends, and the log keeps the commits.

use simulator::client::request;
use simulator::world::{Options, Profile};
use simulator::{Door, Machine};

const LINE: usize = 0;

fn execute(machine: &mut Machine, sql: &str) -> String {
    let body = serde_json::json!({ "requests": [
        { "type": "execute", "stmt": { "sql": sql } }, { "type": "close" },
    ] });
    let post = request("POST", "/db/notes/v2/pipeline", "host", &[], body.to_string().as_bytes());
    let response = machine.ask(LINE, Door::Public, &post).expect("nothing fails here");
    let response = response.expect("the server answers");
    assert_eq!(response.status, 200);
    String::from_utf8(response.body).expect("JSON")
}

#[test]
fn a_stop_on_a_full_disk_ends_and_loses_nothing() {
    let mut options = Options::draw(1, Profile::Calm);
    options.create_on_first_use = true;
    let room = options.faults.disk_bytes_max;
    let mut machine = Machine::new(options);
    machine.start().expect("an empty machine starts");
    execute(&mut machine, "CREATE TABLE notes(text)");
    execute(&mut machine, "INSERT INTO notes VALUES('kept in the log')");

    let full = machine.io.disk().used_bytes();
    machine.io.disk_mut().set_size(full);
    machine.stop().expect("it stops");
    let file = storage::TenantId(1).paths().file;
    let written = machine.io.disk().bytes(std::path::Path::new(&file)).unwrap_or_default();
    assert!(written.is_empty(), "there was no room for it");

    machine.io.disk_mut().set_size(room);
    machine.start().expect("it starts with what the log kept");
    assert!(execute(&mut machine, "SELECT text FROM notes").contains("kept in the log"));
    machine.stop().expect("it stops");
    let written = machine.io.disk().bytes(std::path::Path::new(&file)).unwrap_or_default();
    assert!(!written.is_empty(), "now it has its file");
}
