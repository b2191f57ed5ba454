//! A door for fuzzers: what this module's decoders make of a body, as text.

use super::{ProtocolVersion, decode};
use crate::problem::Problem;

/// Which body is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the calls")]
pub enum Call {
    PipelineV2,
    PipelineV3,
    Cursor,
    ExecuteV1,
    BatchV1,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 5] =
        [Call::PipelineV2, Call::PipelineV3, Call::Cursor, Call::ExecuteV1, Call::BatchV1];
}

/// Decode a body; equal texts are equal requests.
///
/// # Errors
/// What a client is told.
pub fn decode(call: Call, body: &[u8]) -> Result<String, Problem> {
    let pipeline = |version| {
        let body = decode::pipeline(body, version)?;
        Ok(format!("{:?} {:?}", body.baton, body.requests))
    };
    match call {
        Call::PipelineV2 => pipeline(ProtocolVersion::V2),
        Call::PipelineV3 => pipeline(ProtocolVersion::V3),
        Call::Cursor => {
            let body = decode::cursor(body)?;
            Ok(format!("{:?} {:?}", body.baton, body.steps))
        }
        Call::ExecuteV1 => Ok(format!("{:?}", decode::v1_execute(body)?)),
        Call::BatchV1 => Ok(format!("{:?}", decode::v1_batch(body)?.0)),
    }
}
