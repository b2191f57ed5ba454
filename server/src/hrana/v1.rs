//! `POST /v1/execute`, `POST /v1/batch`: one statement or batch on a stream of its own.
//!
//! Only the Python client libsql-client still speaks it over HTTP. A statement's error is the
//! response's status here, so the response leaves as one.

use std::borrow::Cow;

use tenant::{Ceiling, Cost, JobHost, SqlStream as _};

use super::decode;
use super::output::{self, Output};
use super::stream::{self, Requests};
use super::{Reply, V1Call, batch, statement};
use crate::problem::Problem;

const CONTENT_TYPE: &str = "application/json";

/// Run one v1 call; `out` is an empty buffer to write into. There is no baton
/// in either direction.
///
/// # Panics
/// If `out` is not empty, or host and stream break their promises.
pub fn run_v1<H: JobHost>(
    host: &mut H,
    call: V1Call,
    body: &[u8],
    ceiling: Option<Box<Ceiling>>,
    out: Vec<u8>,
) -> Reply {
    let mut output = Output::whole(out, output::bytes_max(host));
    let mut cost = Cost::default();
    let ran = match call {
        V1Call::Execute => run_execute(host, body, ceiling, &mut output, &mut cost),
        V1Call::Batch => run_batch(host, body, ceiling, &mut output, &mut cost),
    };
    match ran {
        Ok(()) => Reply { booking: output.booking, ..Reply::ok(CONTENT_TYPE, output.bytes, cost) },
        Err(problem) => Reply { cost, ..Reply::refused(&problem, output.bytes) },
    }
}

fn run_execute<H: JobHost>(
    host: &mut H,
    body: &[u8],
    ceiling: Option<Box<Ceiling>>,
    output: &mut Output,
    cost: &mut Cost,
) -> Result<(), Problem> {
    let statement = decode::v1_execute(body)?;
    let mut stream = stream::open(host, &Requests::Statement(&statement), ceiling)?;
    output.push("{\"result\":");
    let executed = statement::execute(&mut stream, &statement, &mut String::new(), output);
    end(host, stream, output, cost);
    executed.map_err(|error| Problem {
        message: Cow::Owned(error.message),
        ..Problem::new(400, error.code, "a statement failed")
    })
}

fn run_batch<H: JobHost>(
    host: &mut H,
    body: &[u8],
    ceiling: Option<Box<Ceiling>>,
    output: &mut Output,
    cost: &mut Cost,
) -> Result<(), Problem> {
    let (steps, _booking) = decode::v1_batch(body)?;
    let mut stream = stream::open(host, &Requests::Batch(&steps), ceiling)?;
    output.push("{\"result\":");
    let ran = batch::run(host, &mut stream, &steps, &mut String::new(), output);
    assert!(ran.is_ok());
    end(host, stream, output, cost);
    Ok(())
}

/// The result is written: the call's stream is no more, and what it cost is known.
fn end<H: JobHost>(host: &mut H, stream: H::Stream, output: &mut Output, cost: &mut Cost) {
    output.push("}");
    *cost = stream.request_cost();
    host.close(stream);
}
