use super::*;
use crate::control::{self, AdminRequest};
use crate::http::{Progress, RequestReader};
use crate::problem::Problem;

/// What the router makes of a request on the admin address.
pub(crate) fn route_text(method: &str, path: &str, body: &str) -> Result<AdminRequest, Problem> {
    let mut reader = RequestReader::default();
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n");
    // The token of one who asks how long it is good.
    let token = "authorization: Bearer e.e30.s\r\n\r\n";
    reader.receive(format!("{head}{token}{body}").as_bytes());
    while reader.advance().expect("it is HTTP") != Progress::Complete {}
    control::route(&reader.head(), reader.body())
}

/// The status with which a request is refused by the router; 200 if it is not.
fn routed(method: &str, path: &str, body: &str) -> u16 {
    route_text(method, path, body).map_or_else(|problem| problem.status, |_| 200)
}

/// A body that each route takes that must have one.
fn body_of(route: &Route) -> &'static str {
    match route.body {
        "T_Name" | "T_DatabaseCreate" => r#"{"name":"shop"}"#,
        "JobCreate" => r#"{"sql":"SELECT 1"}"#,
        "KeyCreate" => r#"{"scope":"machine","role":"read"}"#,
        "BulkCreate" | "BulkNames" => r#"{"names":["shop"]}"#,
        "" => "",
        _ => "{}",
    }
}

#[test]
fn each_route_of_the_document_is_there_and_takes_no_other_method() {
    for route in routes() {
        let path = route.path.replace("{job}", "7").replace(['{', '}'], "");
        let method = word_of(route.method).to_uppercase();
        assert_eq!(routed(&method, &path, body_of(route)), 200, "{method} {path}");
        let segments: Vec<&str> = route.segments().collect();
        for (other, word) in [
            (Method::Get, "GET"),
            (Method::Post, "POST"),
            (Method::Put, "PUT"),
            (Method::Patch, "PATCH"),
            (Method::Delete, "DELETE"),
        ] {
            if !has(other, &segments) {
                let status = routed(word, &path, "{}");
                assert!(matches!(status, 404 | 405 | 409), "{word} {path}: {status}");
            }
        }
    }
}

#[test]
fn what_is_not_in_the_document_is_not_there() {
    for path in ["/", "/v1", "/v1/nothing", "/v1/namespaces/a/b", "/v3/organizations/a/groups"] {
        assert_eq!(routed("GET", path, ""), 404, "{path}");
    }
}

#[test]
fn the_document_refers_to_nothing_that_it_lacks() {
    let document: Value = serde_json::from_slice(&document()).expect("it is JSON");
    let text = document.to_string();
    let mut count = 0;
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = &reference[..reference.find('"').expect("it ends")];
        assert!(document.pointer(pointer).is_some(), "{pointer}");
        count += 1;
    }
    assert!(count > 100);
    let mut ids: Vec<String> = routes().map(Route::operation_id).collect();
    ids.sort();
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "each operation has a name of its own");
    for name in document["components"]["schemas"].as_object().expect("an object").keys() {
        assert!(text.contains(&format!("schemas/{name}\"")), "nobody uses {name}");
    }
}
