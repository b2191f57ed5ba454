//! Routes that make copies of databases, and files of them.

use super::{POST, Route, route};

/// See the head of the file.
#[rustfmt::skip]
pub(super) const TABLE: &[Route] = &[
    route(
        "Databases", POST, "/v1/namespaces/{name}/fork/{copy}",
        "A copy of it under another name, in its group; answered when the copy is there",
        &[], "Fork", "Done",
    ),
];
