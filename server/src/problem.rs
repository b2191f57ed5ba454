//! Every error of every endpoint, as the client reads it and as the log keeps it.
//!
//! Owns the one error body: `{"message":…,"code":…,"error":…}` as `application/json`. Clients
//! read different keys of it (hrana-client-ts `message` and `code`, turso-cli `error`) and some
//! compare the content type literally, so there is one shape and no charset. A problem carries
//! two texts: `message` may quote the client's own words back to it; `log` is constant, because
//! SQL, arguments, tokens and batons never go to a log.

use std::borrow::Cow;

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
        }
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
        out.push(b'}');
    }
}
