//! Routes that make copies of databases, and files of them.

use super::{GET, POST, Route, route};

/// See the head of the file.
#[rustfmt::skip]
pub(super) const TABLE: &[Route] = &[
    route(
        "Databases", POST, "/v1/namespaces/{name}/fork/{copy}",
        "A durable copy of it under another name, in its group; answered when the copy is there. 409 IN_MEMORY for one of class memory",
        &[], "Fork", "Done",
    ),
    route(
        "Databases", GET, "/v1/namespaces/{name}/export",
        "All of it as it is now: a file of SQLite's, or SQL text; one that breaks off is not whole",
        &["format"], "", "file",
    ),
];
