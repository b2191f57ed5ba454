//! The values that all clients send, from the shared file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libsql::Value;

/// One value: what it is, what SQLite's `typeof` must say, the value.
pub struct Labelled {
    pub label: String,
    pub kind: &'static str,
    pub value: Value,
}

/// Read the file at `path`.
///
/// # Panics
/// If it is not what the other clients read too.
pub fn read(path: &str) -> Vec<Labelled> {
    let text = std::fs::read_to_string(path).expect("the driver names the file of values");
    let entries: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    entries.iter().map(decode).collect()
}

fn decode(entry: &serde_json::Value) -> Labelled {
    let text = || entry["value"].as_str().expect("a string");
    let times = usize::try_from(entry["times"].as_u64().unwrap_or(1)).expect("small");
    let (kind, value) = match entry["type"].as_str().expect("a type") {
        "null" => ("null", Value::Null),
        "integer" => ("integer", Value::Integer(text().parse().expect("an integer"))),
        "float" => ("real", Value::Real(entry["value"].as_f64().expect("a float"))),
        "text" => ("text", Value::Text(text().repeat(times))),
        "blob" => ("blob", Value::Blob(STANDARD.decode(text()).expect("base64").repeat(times))),
        other => panic!("{other} is no type"),
    };
    Labelled { label: entry["label"].as_str().expect("a label").to_owned(), kind, value }
}
