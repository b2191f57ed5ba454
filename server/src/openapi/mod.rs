//! The document of all routes of the admin address, in OpenAPI 3.1: `GET /openapi.json`.
//!
//! `table` has one line a route; `schemas.json` has what goes in and out. A route that is not in the table
//! is not there (`control::route` asks [`has`]), and a test sends each route of the table through the router:
//! so neither has what the other lacks. `tests/clients/api.py` sends what the document allows, and more, to
//! a real server and compares the answers with it.

mod table;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::http::Method;
use table::{Route, routes};

/// Whether a path, without its empty segments, takes this method. HEAD is where GET is.
#[must_use]
pub fn has(method: Method, segments: &[&str]) -> bool {
    let method = if method == Method::Head { Method::Get } else { method };
    routes().any(|route| route.method == method && route.matches(segments))
}

/// Begins the name of a schema of which each line of an answer is one.
const LINES_OF: &str = "Lines of ";

impl Route {
    fn segments(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter(|part| !part.is_empty())
    }

    fn matches(&self, segments: &[&str]) -> bool {
        let fits = |(own, other): (&str, &&str)| own.starts_with('{') || own == *other;
        self.segments().count() == segments.len() && self.segments().zip(segments).all(fits)
    }

    /// The words that stand for themselves in its path, with the method before them: its one name.
    fn operation_id(&self) -> String {
        let words = self.segments().map(|part| part.trim_matches(['{', '}']));
        let words: Vec<&str> = std::iter::once(word_of(self.method)).chain(words).collect();
        words.join("_").replace(['-', '.'], "_")
    }

    fn operation(&self) -> Value {
        let in_path = self.segments().filter(|part| part.starts_with('{'));
        let reference = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
        let parameters: Vec<Value> = in_path
            .map(|part| reference(part.trim_matches(['{', '}'])))
            .chain(self.query.iter().map(|name| reference(name)))
            .collect();
        let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
        let good = match self.answer {
            "" => json!({ "description": "it is so" }),
            "text" => json!({
                "description": "text",
                "content": { "text/plain": { "schema": { "type": "string" } } },
            }),
            "file" => json!({
                "description": "all of it",
                "content": {
                    "application/vnd.sqlite3": { "schema": { "type": "string" } },
                    "application/sql": { "schema": { "type": "string" } },
                },
            }),
            name if name.starts_with(LINES_OF) => json!({
                "description": "line by line",
                "content": { "application/x-ndjson": { "schema": schema(&name[LINES_OF.len()..]) } },
            }),
            name => json!({
                "description": "done",
                "content": { "application/json": { "schema": schema(name) } },
            }),
        };
        let mut operation = json!({
            "operationId": self.operation_id(),
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": parameters,
            "responses": {
                "200": good,
                "default": { "$ref": "#/components/responses/Problem" },
            },
        });
        if self.body == "Upload" {
            let content =
                |kind: &str, schema: Value| (kind.to_owned(), json!({ "schema": schema }));
            let file = || json!({ "$ref": "#/components/schemas/Upload" });
            let kinds: Map<String, Value> = [
                content("application/vnd.sqlite3", file()),
                content("application/octet-stream", file()),
                content("application/sql", json!({ "type": "string" })),
                content("text/plain", json!({ "type": "string" })),
            ]
            .into_iter()
            .collect();
            operation["requestBody"] = json!({ "required": true, "content": kinds });
        } else if self.body == "Dump" {
            let form = json!({
                "type": "object",
                "required": ["file"],
                "properties": { "file": { "type": "string", "format": "binary" } },
            });
            operation["requestBody"] = json!({ "required": true, "content": {
                "multipart/form-data": { "schema": form },
                "application/sql": { "schema": { "type": "string" } },
            } });
        } else if !self.body.is_empty() {
            operation["requestBody"] =
                json!({ "content": { "application/json": { "schema": schema(self.body) } } });
        }
        operation
    }
}

fn word_of(method: Method) -> &'static str {
    match method {
        Method::Get | Method::Head => "get",
        Method::Post => "post",
        Method::Put => "put",
        Method::Patch => "patch",
        Method::Delete => "delete",
        Method::Options => "options",
    }
}

/// The document. Anybody may ask for it, so it is made once: that takes two milliseconds.
///
/// # Panics
/// Never: the schemas are a constant, and a test reads them.
#[must_use]
pub fn document() -> Vec<u8> {
    static DOCUMENT: LazyLock<Vec<u8>> = LazyLock::new(write);
    DOCUMENT.clone()
}

fn write() -> Vec<u8> {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[word_of(route.method)] = route.operation();
    }
    let components: Value =
        serde_json::from_str(include_str!("schemas.json")).expect("a test has read it");
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Myriad: the admin address",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Databases created, listed, shown, limited and dropped.",
        },
        "security": [{ "key": [] }, {}],
        "paths": paths,
        "components": components,
    });
    document.to_string().into_bytes()
}

#[cfg(test)]
pub(crate) mod tests;
