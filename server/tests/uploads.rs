//! Databases made from what strangers send, on the real binary: good files of every kind are there as
//! they were, two hundred hostile ones are refused or opened safely, and nothing is left of those that
//! fail.

#[path = "uploads/drafts.rs"]
mod drafts;
#[path = "uploads/dumps.rs"]
mod dumps;
#[path = "uploads/files.rs"]
mod files;
#[path = "uploads/good.rs"]
mod good;
#[path = "uploads/hostile.rs"]
mod hostile;
#[path = "process/mod.rs"]
mod process;
#[path = "uploads/refused.rs"]
mod refused;

use process::{Client, Response, Server};

/// Send a body of this type, whole; what is answered, or how the connection ended.
pub fn send(server: &Server, path: &str, kind: &str, body: &[u8]) -> std::io::Result<Response> {
    let mut client = server.admin();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\n\r\n"
    );
    client.send_raw(head.as_bytes())?;
    // Who is refused early may not take all of it.
    let sent = client.send_raw(body);
    client.receive().or_else(|error| sent.and(Err(error)))
}

/// Upload a file as a new database.
pub fn upload(server: &Server, name: &str, body: &[u8]) -> Response {
    let path = format!("/v1/namespaces/{name}/upload");
    send(server, &path, "application/vnd.sqlite3", body).expect("answered")
}

/// Upload SQL text.
pub fn upload_sql(server: &Server, name: &str, sql: &str) -> Response {
    let path = format!("/v1/namespaces/{name}/upload");
    send(server, &path, "application/sql", sql.as_bytes()).expect("answered")
}

/// Status and code of a refusal.
pub fn refusal(response: &Response) -> (u16, String) {
    (response.status, process::problem(&response.body).0)
}

/// A client whose request has this head; the body is sent by hand.
pub fn begin(server: &Server, name: &str, head: &str) -> Client {
    let mut client = server.admin();
    let head = format!("POST /v1/namespaces/{name}/upload HTTP/1.1\r\nhost: a\r\n{head}\r\n");
    client.send_raw(head.as_bytes()).expect("it is sent");
    client
}
