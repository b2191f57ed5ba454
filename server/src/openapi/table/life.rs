//! Routes about how long databases live.

use super::{PATCH, Route, route};

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
];
