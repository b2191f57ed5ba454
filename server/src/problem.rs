//! Every error of every endpoint, as the client reads it and as the log keeps it.
//!
//! Owns the one error body: `{"message":…,"code":…,"error":…}` as `application/json`; where a budget
//! is the reason, `"budget":part,"limit":…,"used":…,"wanted":…` behind it. Clients
//! read different keys of it (hrana-client-ts `message` and `code`, turso-cli `error`) and some
//! compare the content type literally, so there is one shape and no charset. A problem carries
//! two texts: `message` may quote the client's own words back to it; `log` is constant, because
//! SQL, arguments, tokens and batons never go to a log.

use std::borrow::Cow;

use tenant::budget::{Exceeded, Part};

use crate::hrana::encode;

/// Content type of every problem; compared literally by clients.
pub const CONTENT_TYPE: &str = "application/json";

/// Why a request was refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status, 400 or above.
    pub status: u16,
    /// Stable name for programs.
    pub code: &'static str,
    /// One sentence for the client.
    pub message: Cow<'static, str>,
    /// One sentence for the operator; holds nothing of the request.
    pub log: &'static str,
    /// When to try again, if trying again helps.
    pub retry_after_seconds: Option<u32>,
    /// The methods that the path takes, with status 405.
    pub allow: Option<&'static str>,
    /// The connection cannot be used any more: its next bytes have no known meaning.
    pub close: bool,
    /// The budget that did not allow it.
    pub exceeded: Option<Exceeded>,
}

impl Problem {
    /// A problem whose two texts are the same constant.
    #[must_use]
    pub fn new(status: u16, code: &'static str, text: &'static str) -> Problem {
        assert!((400..600).contains(&status));
        Problem {
            status,
            code,
            message: Cow::Borrowed(text),
            log: text,
            retry_after_seconds: None,
            allow: None,
            close: false,
            exceeded: None,
        }
    }

    /// All databases together have used up the machine's memory. How much neighbours hold is not a
    /// tenant's to know.
    #[must_use]
    pub fn memory_full() -> Problem {
        let text = "the server's memory for databases is used up; try again";
        Problem::new(503, "MEMORY_FULL", text).retry_after(1)
    }

    /// A budget does not allow it. Trying again helps where others' work has to end first; not where
    /// the request itself is too large.
    #[must_use]
    pub fn exceeded(exceeded: &Exceeded) -> Problem {
        let Exceeded { part, limit, used, wanted } = *exceeded;
        let problem = match part {
            Part::Requests => Problem::detailed(
                429,
                "TOO_MANY_REQUESTS",
                "the tenant's queue is full",
                format!(
                    "the database has {used} requests waiting or running, and its budget allows \
                     {limit}; try again"
                ),
            ),
            Part::Streams => Problem::detailed(
                429,
                "TOO_MANY_STREAMS",
                "the tenant has too many streams",
                format!(
                    "the database has {used} open streams, and its budget allows {limit}; close some"
                ),
            ),
            Part::Connections => Problem {
                close: true,
                ..Problem::detailed(
                    429,
                    "TOO_MANY_CONNECTIONS",
                    "the tenant has too many connections",
                    format!(
                        "the database has {used} connections, and its budget allows {limit}; close some"
                    ),
                )
            },
            Part::RequestBytes => Problem::detailed(
                413,
                "REQUEST_TOO_LARGE",
                "a request is larger than its tenant's budget",
                format!(
                    "the request's body has {wanted} bytes, and the database's budget allows {limit}; \
                     send it in smaller pieces"
                ),
            ),
            _ => Problem::detailed(
                429,
                "BUDGET_EXCEEDED",
                "a tenant's budget does not allow it",
                format!(
                    "the database's budget of {limit} ({}) does not allow {wanted} more: {used} are \
                     in use; try again",
                    part.name()
                ),
            ),
        };
        let retry_after_seconds = (problem.status == 429).then_some(1);
        Problem { exceeded: Some(*exceeded), retry_after_seconds, ..problem }
    }

    /// A problem that tells the client more than the log.
    #[must_use]
    pub fn detailed(
        status: u16,
        code: &'static str,
        log: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Problem {
        Problem { message: message.into(), ..Problem::new(status, code, log) }
    }

    /// A violation of HTTP: answered once, then the connection is closed.
    #[must_use]
    pub fn protocol(status: u16, code: &'static str, text: &'static str) -> Problem {
        Problem { close: true, ..Problem::new(status, code, text) }
    }

    /// A request body that is not what the endpoint takes.
    #[must_use]
    pub fn body(message: impl Into<Cow<'static, str>>) -> Problem {
        Problem::detailed(400, "REQUEST_INVALID", "a request body was refused", message)
    }

    /// The same, and the client should try again after `seconds`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Problem {
        Problem { retry_after_seconds: Some(seconds), ..self }
    }

    /// Whoever asks has no rights here: the same words whatever was wrong, and whether or not there is
    /// anything here.
    #[must_use]
    pub fn unauthorised() -> Problem {
        let text = "Unauthorized: a valid token or key for this is needed";
        Problem::new(401, "UNAUTHORIZED", text)
    }

    /// Whoever asks has rights here, and not this one.
    #[must_use]
    pub fn forbidden() -> Problem {
        Problem::new(403, "FORBIDDEN", "the token or key does not have the right to do this")
    }

    /// No such path.
    #[must_use]
    pub fn not_found() -> Problem {
        Problem::new(404, "NOT_FOUND", "there is nothing at this path")
    }

    /// The path takes other methods.
    #[must_use]
    pub fn wrong_method(allow: &'static str) -> Problem {
        Problem {
            allow: Some(allow),
            ..Problem::new(405, "METHOD_NOT_ALLOWED", "this path does not take this method")
        }
    }

    /// Append the error body.
    pub fn write_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"message\":");
        encode::string(out, &self.message);
        out.extend_from_slice(b",\"code\":");
        encode::string(out, self.code);
        out.extend_from_slice(b",\"error\":");
        encode::string(out, &self.message);
        if let Some(Exceeded { part, limit, used, wanted }) = self.exceeded {
            out.extend_from_slice(b",\"budget\":");
            encode::string(out, part.name());
            let numbers = [("limit", limit), ("used", used), ("wanted", wanted)];
            for (name, number) in numbers {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                encode::integer(out, number);
            }
        }
        out.push(b'}');
    }
}
