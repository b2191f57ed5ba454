//! One call of the control API at a time, for the commands that are its clients (`top`, `apply`).
//!
//! With the standard library's sockets: it runs in a program of its own, never in a server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::bench::reply;
use crate::bench::request::{Target, Template};

/// An answer takes the server some milliseconds; after this it is not there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the control API is, and what to come with.
#[derive(Clone, Debug, clap::Args)]
pub struct Admin {
    /// The control API of the running server (http://host:port)
    #[arg(long = "admin", value_name = "URL", default_value = "http://127.0.0.1:8081")]
    #[arg(env = "MYRIAD_ADMIN")]
    pub url: String,

    /// A key or token for it, where it asks for one
    #[arg(long, value_name = "KEY", env = "MYRIAD_KEY", hide_env_values = true)]
    pub key: Option<String>,
}

impl Admin {
    /// The server that is meant.
    ///
    /// # Errors
    /// A sentence for the person at the terminal.
    pub fn target(&self) -> Result<Target, String> {
        let authorization = self.key.as_ref().map(|key| format!("Bearer {key}"));
        Target::resolve(&self.url, authorization.as_deref())
    }
}

/// The answer to a GET that is to succeed.
///
/// # Errors
/// A sentence for the person at the terminal: the server does not answer, or is another one.
pub fn get(target: &Target, path: &str) -> Result<Value, String> {
    match call(target, "GET", path, "")? {
        (200, answer) => Ok(answer),
        (401 | 403, _) => {
            let hint = "it asks for a key that may do this: give one with --key or MYRIAD_KEY";
            Err(sentence("may not ask", target, &hint))
        }
        (status, _) => {
            let failed = format!("it answers {path} with status {status}");
            Err(sentence("is this", target, &failed))
        }
    }
}

/// One call on a connection of its own: status and body.
///
/// # Errors
/// As [`get`], but any status is an answer.
pub fn call(target: &Target, method: &str, path: &str, body: &str) -> Result<(u16, Value), String> {
    call_for(target, method, path, body, ANSWER_TIMEOUT)
}

/// As [`call`], for what may take so long.
///
/// # Errors
/// As [`call`].
pub fn call_for(
    target: &Target,
    method: &str,
    path: &str,
    body: &str,
    patience: Duration,
) -> Result<(u16, Value), String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| sentence(what, target, error);
    let mut stream = TcpStream::connect_timeout(&target.address, ANSWER_TIMEOUT)
        .map_err(|error| failed("cannot reach", &error))?;
    let limited = stream.set_read_timeout(Some(patience));
    let limited = limited.and_then(|()| stream.set_write_timeout(Some(ANSWER_TIMEOUT)));
    let request = Template::new(target, method, path, body, "");
    limited
        .and_then(|()| stream.write_all(request.bytes()))
        .map_err(|error| failed("cannot ask", &error))?;
    let (mut input, mut answer, mut buffer) = (Vec::new(), Vec::new(), [0; 16 * 1024]);
    let status = loop {
        let parsed = reply::parse(&input, &mut answer);
        if let Some(reply) = parsed.map_err(|error| failed("cannot read", &error))? {
            break reply.status;
        }
        match stream.read(&mut buffer).map_err(|error| failed("cannot read", &error))? {
            0 => return Err(failed("cannot read", &"it ended the connection")),
            count => input.extend_from_slice(&buffer[..count]),
        }
    };
    let answer = serde_json::from_slice(&answer);
    Ok((status, answer.map_err(|error| failed("cannot understand", &error))?))
}

fn sentence(what: &str, target: &Target, error: &dyn std::fmt::Display) -> String {
    format!("{what} the control API on {}: {error}", target.address)
}
