//! Routes whose bodies are files.

use super::{POST, Route, route};

/// See the head of the file.
#[rustfmt::skip]
pub(super) const TABLE: &[Route] = &[
    route(
        "Databases", POST, "/v1/namespaces/{name}/upload",
        "Make a database from a SQLite file or from SQL text",
        &["upload_group", "upload_plan", "format", "progress"], "Upload", "Uploaded",
    ),
];
