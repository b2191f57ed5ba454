//! From a request head to an endpoint and a tenant.
//!
//! A tenant is named, in this order, by
//!
//! 1. the path's prefix, `/db/<name>/…`: works everywhere, needs no DNS;
//! 2. the `x-namespace` header, as sqld's clients send it;
//! 3. the first label of Host, `<name>.anything`. A Host that is an IP address or a single label
//!    (`localhost`), or is missing, names none: the tenant is then `default`.
//!
//! The path comes first because it cannot be there by accident. Empty path segments are ignored:
//! clients append `/v2/pipeline` to base URLs that end with `/`, and some end paths with one.
//! `X-Forwarded-Host` is not read: a proxy in front of us must pass Host on.

use super::head::{Head, Method};
use super::target::tenant_label;
use super::tenant_name::TenantName;
use tenant::ExportFormat;

use crate::export;
use crate::hrana::{ProtocolVersion, V1Call};
use crate::problem::Problem;

/// The one generation of every database: an export is of what it has now, and nothing follows it
/// (`GET /sync/…`, where the CLI asks for what does, is 404, which it takes for the end).
const GENERATION: &[u8] = b"1";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET /health`: 200, empty.
    Health,
    /// `GET /version`: 200, the server's version.
    Version,
    /// `GET /v2`, `GET /v3`: 200, without a token: "do you speak this?"
    Probe,
    /// OPTIONS on any path: 200 with CORS headers, without a token.
    Preflight,
    /// `POST /v2/pipeline`, `POST /v3/pipeline`.
    Pipeline(ProtocolVersion),
    /// `POST /v3/cursor`.
    Cursor,
    /// `POST /v1/execute`, `POST /v1/batch`.
    V1(V1Call),
    /// `GET /info`: which export is to be asked for, as `turso db export` does before.
    Generation,
    /// `GET /dump`, `GET /v1/export`, `GET /export/1`: the database as a file.
    Export(ExportFormat),
    /// `PUT /v2/upload/…`: a database that is sent in several requests.
    Upload(UploadStep),
}

/// A request of those that send a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadStep {
    /// `PUT /v2/upload/start`.
    Start,
    /// `PUT /v2/upload/{id}/chunk/{n}`: the upload, and which chunk of it.
    Chunk(u128, u64),
    /// `PUT /v2/upload/{id}/finalize`.
    Finalize(u128),
}

/// An endpoint and the tenant that it is for; no tenant where none is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// What is asked for.
    pub endpoint: Endpoint,
    /// Of which tenant.
    pub tenant: Option<TenantName>,
}

/// Route a request by its path, method, Host and `x-namespace`.
///
/// # Errors
/// 404, 405 with the allowed methods, 400 for a name that no tenant can have.
pub fn route(head: &Head<'_>) -> Result<Routed, Problem> {
    if head.method() == Method::Options {
        return Ok(Routed { endpoint: Endpoint::Preflight, tenant: None });
    }
    let segments = head.path().as_bytes().split(|byte| *byte == b'/');
    let mut segments = segments.filter(|segment| !segment.is_empty()).peekable();
    let named_by_path = match segments.next_if(|segment| *segment == b"db") {
        Some(_) => Some(segments.next().ok_or_else(Problem::not_found)?),
        None => None,
    };
    // One more than any route has, so that a longer path matches none; what follows is not read.
    let mut path: [&[u8]; 6] = [b""; 6];
    let mut count = 0;
    for (slot, segment) in path.iter_mut().zip(segments) {
        *slot = segment;
        count += 1;
    }
    let endpoint = match &path[..count] {
        [b"health"] => Endpoint::Health,
        [b"version"] => Endpoint::Version,
        [b"v2" | b"v3"] => Endpoint::Probe,
        [b"v2", b"pipeline"] => Endpoint::Pipeline(ProtocolVersion::V2),
        [b"v3", b"pipeline"] => Endpoint::Pipeline(ProtocolVersion::V3),
        [b"v3", b"cursor"] => Endpoint::Cursor,
        [b"v1", b"execute"] => Endpoint::V1(V1Call::Execute),
        [b"v1", b"batch"] => Endpoint::V1(V1Call::Batch),
        [b"info"] => Endpoint::Generation,
        [b"export", GENERATION] => Endpoint::Export(ExportFormat::File),
        [b"dump"] => Endpoint::Export(ExportFormat::Sql),
        [b"v1", b"export"] => Endpoint::Export(export::format(head.query().unwrap_or(""))?),
        [b"v2", b"upload", rest @ ..] => {
            Endpoint::Upload(step(rest).ok_or_else(Problem::not_found)?)
        }
        // /v3-protobuf too: a client that gets 404 there falls back to JSON.
        _ => return Err(Problem::not_found()),
    };
    match endpoint {
        Endpoint::Health | Endpoint::Version | Endpoint::Probe | Endpoint::Generation => {
            match head.method() {
                Method::Get | Method::Head => Ok(Routed { endpoint, tenant: None }),
                _ => Err(Problem::wrong_method("GET, HEAD, OPTIONS")),
            }
        }
        // Its length is not known before its end: HEAD is not for it.
        Endpoint::Export(_) if head.method() == Method::Get => {
            Ok(Routed { endpoint, tenant: Some(tenant(head, named_by_path)?) })
        }
        Endpoint::Export(_) => Err(Problem::wrong_method("GET, OPTIONS")),
        Endpoint::Upload(_) if head.method() == Method::Put => {
            Ok(Routed { endpoint, tenant: Some(tenant(head, named_by_path)?) })
        }
        Endpoint::Upload(_) => Err(Problem::wrong_method("PUT, OPTIONS")),
        _ if head.method() == Method::Post => {
            Ok(Routed { endpoint, tenant: Some(tenant(head, named_by_path)?) })
        }
        _ => Err(Problem::wrong_method("POST, OPTIONS")),
    }
}

fn step(path: &[&[u8]]) -> Option<UploadStep> {
    let id = |bytes: &[u8]| {
        let digits = bytes.len() == 32 && bytes.iter().all(u8::is_ascii_hexdigit);
        let text = str::from_utf8(bytes).ok().filter(|_| digits)?;
        u128::from_str_radix(text, 16).ok()
    };
    let number = |bytes: &[u8]| {
        let digits = bytes.iter().all(u8::is_ascii_digit);
        str::from_utf8(bytes).ok().filter(|_| digits)?.parse().ok()
    };
    Some(match path {
        [b"start"] => UploadStep::Start,
        [upload, b"chunk", chunk] => UploadStep::Chunk(id(upload)?, number(chunk)?),
        [upload, b"finalize"] => UploadStep::Finalize(id(upload)?),
        _ => return None,
    })
}

fn tenant(head: &Head<'_>, named_by_path: Option<&[u8]>) -> Result<TenantName, Problem> {
    if let Some(name) = named_by_path {
        return TenantName::of_bytes(name);
    }
    let name = head.namespace().or_else(|| head.host().and_then(tenant_label));
    name.map_or_else(|| Ok(TenantName::default_tenant()), TenantName::new)
}
