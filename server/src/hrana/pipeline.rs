//! `POST /v2/pipeline`, `POST /v3/pipeline`: requests on one stream, in order, one answer each.
//!
//! ```text
//! {"results":[…],"baton":…,"base_url":null}
//! ```
//!
//! An error is its request's result and does not stop the later ones. The baton stands last,
//! because only then is it known whether the stream lives: it does unless the client closed it.
//! (It could be null for a stream that holds nothing; `last_insert_rowid()` and `changes()` across
//! requests, which a client's tests use, would then stop working.) `base_url` is null because a
//! tenant may be named by Host, which another URL would change.

use storage::ledger::Booking;
use tenant::{Ceiling, Cost, Gone, JobHost, SqlStream, StatementError};

use super::decode::{self, StreamRequest};
use super::output::{self, Output};
use super::stream::{self, Requests};
use super::{ProtocolVersion, Reply, batch, encode, statement};
use crate::baton::BatonKey;

const CONTENT_TYPE: &str = "application/json";

/// Run one pipeline request; `out` is an empty buffer to write into. If the reader goes away the
/// rest does not run, and the stream is closed: the client cannot have its baton.
///
/// # Panics
/// If `out` is not empty, or host and stream break their promises.
pub fn run_pipeline<H: JobHost>(
    host: &mut H,
    version: ProtocolVersion,
    body: &[u8],
    batons: &BatonKey,
    ceiling: Option<Box<Ceiling>>,
    out: Vec<u8>,
) -> Reply {
    let body = match decode::pipeline(body, version) {
        Ok(body) => body,
        Err(problem) => return Reply::refused(&problem, out),
    };
    let requests = Requests::Pipeline(&body.requests);
    let stream = match stream::acquire(host, batons, body.baton.as_deref(), &requests, ceiling) {
        Ok(stream) => stream,
        Err(problem) => return Reply::refused(&problem, out),
    };
    let output = Output::streamed(out, output::bytes_max(host));
    let mut pipeline =
        Pipeline { host, stream: Some(stream), cost: Cost::default(), output, copy: String::new() };
    let ran = pipeline.run(&body.requests);
    pipeline.note_cost();
    let cost = pipeline.cost;
    match ran {
        Ok(()) => {
            let (body, booking) = pipeline.finish(batons);
            Reply { booking, ..Reply::ok(CONTENT_TYPE, body, cost) }
        }
        Err(Gone) => {
            if let Some(stream) = pipeline.stream.take() {
                pipeline.host.close(stream);
            }
            Reply::ok(CONTENT_TYPE, Vec::new(), cost)
        }
    }
}

struct Pipeline<'h, H: JobHost> {
    host: &'h mut H,
    /// None after `close`, which decoding allows in the last place only.
    stream: Option<H::Stream>,
    /// What the stream's statements had cost when it was last asked.
    cost: Cost,
    output: Output,
    /// A stored SQL text while it runs.
    copy: String,
}

impl<H: JobHost> Pipeline<'_, H> {
    fn run(&mut self, requests: &[StreamRequest<'_>]) -> Result<(), Gone> {
        self.output.push("{\"results\":[");
        for (index, request) in requests.iter().enumerate() {
            if index > 0 {
                self.output.push(",");
            }
            self.request(request)?;
            self.output.flush_if_full(self.host)?;
        }
        Ok(())
    }

    fn note_cost(&mut self) {
        if let Some(stream) = &self.stream {
            self.cost = stream.request_cost();
        }
    }

    fn finish(self, batons: &BatonKey) -> (Vec<u8>, Booking) {
        let Output { bytes: mut out, booking, .. } = self.output;
        out.extend_from_slice(b"],\"baton\":");
        match self.stream {
            None => out.extend_from_slice(b"null"),
            Some(stream) => {
                let ticket = self.host.park(stream);
                out.push(b'"');
                batons.seal(&mut out, self.host.tenant_id(), ticket, self.host.now_ns());
                out.push(b'"');
            }
        }
        out.extend_from_slice(b",\"base_url\":null}");
        (out, booking)
    }

    /// Run one request and append its result.
    fn request(&mut self, request: &StreamRequest<'_>) -> Result<(), Gone> {
        if *request == StreamRequest::Close {
            self.note_cost();
            let stream = self.stream.take().expect("only the last request closes");
            self.host.close(stream);
            self.output.push("{\"type\":\"ok\",\"response\":{\"type\":\"close\"}}");
            return Ok(());
        }
        let stream = self.stream.as_mut().expect("only the last request closes");
        let start = self.output.bytes.len();
        self.output.push("{\"type\":\"ok\",\"response\":{\"type\":\"");
        if let StreamRequest::Batch(steps) = request {
            self.output.push("batch\",\"result\":");
            batch::run(self.host, stream, steps, &mut self.copy, &mut self.output)?;
        } else if let Err(error) = respond(stream, request, &mut self.copy, &mut self.output) {
            self.output.bytes.truncate(start);
            self.output.push("{\"type\":\"error\",\"error\":");
            encode::error(&mut self.output.bytes, &error);
            self.output.push("}");
            return Ok(());
        }
        self.output.push("}}");
        Ok(())
    }
}

/// Run a request that never flushes, and append its response from the value of `type` on.
fn respond<S: SqlStream>(
    stream: &mut S,
    request: &StreamRequest<'_>,
    copy: &mut String,
    output: &mut Output,
) -> Result<(), StatementError> {
    match request {
        StreamRequest::Execute(statement) => {
            output.push("execute\",\"result\":");
            statement::execute(stream, statement, copy, output)?;
        }
        StreamRequest::Sequence(text) => {
            let sql = statement::text(stream, text, copy)?;
            stream.sequence(sql)?;
            output.push("sequence\"");
        }
        StreamRequest::Describe(text) => {
            let sql = statement::text(stream, text, copy)?;
            let description = stream.describe(sql)?;
            output.push("describe\",\"result\":");
            encode::description(&mut output.bytes, &description);
        }
        StreamRequest::StoreSql { sql_id, sql } => {
            stream.store_sql(*sql_id, sql)?;
            output.push("store_sql\"");
        }
        StreamRequest::CloseSql { sql_id } => {
            stream.close_sql(*sql_id);
            output.push("close_sql\"");
        }
        StreamRequest::GetAutocommit => {
            output.push("get_autocommit\",\"is_autocommit\":");
            encode::boolean(&mut output.bytes, stream.is_autocommit());
        }
        StreamRequest::Close | StreamRequest::Batch(_) => {
            unreachable!("these need the host and were answered before")
        }
    }
    Ok(())
}
