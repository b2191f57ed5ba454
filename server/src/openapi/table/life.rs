//! Routes about how long databases live, and about many of them.

use super::{PATCH, POST, Route, route};

/// See the head of the file.
#[rustfmt::skip]
pub(super) const TABLE: &[Route] = &[
    route(
        "Databases", PATCH, "/v1/namespaces/{name}/settings",
        "Change its settings; what is absent stays",
        &[], "SettingsChange", "Settings",
    ),
    route(
        "Plans and places", PATCH, "/v1/organisations/{organisation}/settings",
        "Change its settings; what is absent stays",
        &[], "NodeSettingsChange", "Settings",
    ),
    route(
        "Plans and places", PATCH, "/v1/organisations/{organisation}/groups/{group}/settings",
        "Change its settings; what is absent stays",
        &[], "NodeSettingsChange", "Settings",
    ),
    route(
        "Databases", POST, "/v1/bulk/create",
        "Create many databases; the answer is one JSON object a line, the last one with finished",
        &["idempotency_key"], "BulkCreate", "Lines of BulkLine",
    ),
    route(
        "Databases", POST, "/v1/bulk/drop",
        "Drop many databases; the answer is one JSON object a line, the last one with finished",
        &["idempotency_key"], "BulkNames", "Lines of BulkLine",
    ),
];
