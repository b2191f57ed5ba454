//! Hrana over HTTP, versions 2 and 3 in JSON, and the two calls of version 1.
//!
//! Pure code between a request body and an engine: `decode` reads the whole body before anything
//! runs, so that what makes the request as a whole wrong (400) is known while nothing has happened;
//! `pipeline`, `cursor` and `v1` run it on a [`tenant::JobHost`]; `encode` writes results. Each
//! `run_…` is one job on one fiber: calls to the host may suspend it.
//!
//! Where the text in the comments says "sqld", it is the behaviour of version 0.24.33 as seen on
//! the wire; "specification" is the Hrana 3 specification in the libSQL repository. Left out on
//! purpose: protobuf (clients fall back to JSON), `replication_index` (there are no replicas),
//! WebSocket.

mod batch;
mod condition;
mod cursor;
mod decode;
pub mod encode;
mod fields;
mod output;
mod pipeline;
#[doc(hidden)]
pub mod probe;
mod statement;
mod stream;
mod text;
mod v1;
mod value;

pub use cursor::run_cursor;
pub use pipeline::run_pipeline;
pub(crate) use stream::refusal as stream_refusal;
pub use v1::run_v1;

use storage::ledger::Booking;
use tenant::Cost;

use crate::limits::RECEIVE_BYTES_KEPT;
use crate::problem::{self, Problem};

/// The version in the path. Version 3 adds `get_autocommit` and the condition `is_autocommit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the versions")]
pub enum ProtocolVersion {
    V2,
    V3,
}

/// The calls of version 1; each has a stream of its own that ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V1Call {
    /// One statement.
    Execute,
    /// One batch.
    Batch,
}

/// A response, or its end if parts of it have left by `JobHost::flush` already (always with status
/// 200 then, and with this content type).
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Exactly this, without parameters: clients compare it literally.
    pub content_type: &'static str,
    /// The body, or what was not flushed of it.
    pub body: Vec<u8>,
    /// When to try again.
    pub retry_after_seconds: Option<u32>,
    /// For the log, if the request was refused as a whole.
    pub log: Option<&'static str>,
    /// What its statements cost.
    pub cost: Cost,
    /// The body, on its database's account until it has left; its first bytes are not in it.
    pub booking: Booking,
}

impl Reply {
    pub(crate) fn ok(content_type: &'static str, body: Vec<u8>, cost: Cost) -> Reply {
        let booking = output::booking();
        let (retry_after_seconds, log) = (None, None);
        Reply { status: 200, content_type, body, retry_after_seconds, log, cost, booking }
    }

    /// A refusal; `body` is reused for its text.
    #[must_use]
    pub fn refused(problem: &Problem, mut body: Vec<u8>) -> Reply {
        body.clear();
        body.shrink_to(RECEIVE_BYTES_KEPT);
        problem.write_body(&mut body);
        Reply {
            status: problem.status,
            retry_after_seconds: problem.retry_after_seconds,
            log: Some(problem.log),
            ..Reply::ok(problem::CONTENT_TYPE, body, Cost::default())
        }
    }
}
