//! Routes of fleet jobs: as in `table`.

use super::{DELETE, GET, POST, Route, route};

/// All of them.
#[rustfmt::skip]
pub(super) const JOBS: &[Route] = &[
    route(
        "Jobs", POST, "/v1/jobs",
        "Run a migration on many databases, each in one transaction and exactly once",
        &[], "JobCreate", "Job",
    ),
    route(
        "Jobs", GET, "/v1/jobs",
        "Jobs, the newest first",
        &["job_group", "limit", "job_cursor"], "", "Jobs",
    ),
    route(
        "Jobs", GET, "/v1/jobs/{job}",
        "A job: how far it is, and how fast it goes",
        &[], "", "Job",
    ),
    route(
        "Jobs", DELETE, "/v1/jobs/{job}",
        "Forget a job that has come to rest, and its results",
        &[], "", "Job",
    ),
    route(
        "Jobs", GET, "/v1/jobs/{job}/results",
        "What came of each database",
        &["status", "limit", "job_cursor"], "", "JobResults",
    ),
    route(
        "Jobs", POST, "/v1/jobs/{job}/pause",
        "Begin on no further database",
        &[], "", "Job",
    ),
    route(
        "Jobs", POST, "/v1/jobs/{job}/resume",
        "Go on",
        &[], "", "Job",
    ),
    route(
        "Jobs", POST, "/v1/jobs/{job}/cancel",
        "End: databases that have not begun are left alone",
        &[], "", "Job",
    ),
    route(
        "Jobs", POST, "/v1/jobs/{job}/retry-failed",
        "Try those again that failed",
        &[], "", "Job",
    ),
];
