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
    route(
        "Platform API", POST, "/v1/organizations/{organization}/databases/dumps",
        "Send a dump for one database that is created after it; what is wrong with it is said here",
        &["progress"], "Dump", "T_Dump",
    ),
];
