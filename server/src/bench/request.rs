//! Requests that are written once and patched: where they go, and their bytes.
//!
//! A template is a whole HTTP request with two holes of eight digits, one for the tenant and one
//! for a value. Making the next request overwrites sixteen bytes; the length, and so the
//! `Content-Length`, stays. Statements are constants of this program, without any character
//! that JSON would escape.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::mix;

/// Stands in a path or body where the tenant's number goes.
pub const TENANT_HOLE: &str = "TENANT__";

/// Stands in a path or body where the value goes.
pub const VALUE_HOLE: &str = "VALUE___";

/// Digits of a hole.
const HOLE_BYTES: usize = 8;

/// The first row's key. All keys have eight digits, so that they fill a hole without leading
/// zeros, which a strict server need not take for an integer.
pub const ROW_FIRST: u32 = 10_000_000;

/// Numbers must fit into a hole.
const NUMBER_MAX: u32 = 99_999_999;

const _: () = assert!(TENANT_HOLE.len() == HOLE_BYTES && VALUE_HOLE.len() == HOLE_BYTES);

/// A server's address, and what it is called in requests.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where connections go.
    pub address: SocketAddr,
    /// The `Host` header: host and port.
    authority: String,
    /// The whole `Authorization` header value, if one is sent.
    authorization: Option<String>,
}

impl Target {
    /// A connection on which nobody waits longer than `patience`.
    ///
    /// # Errors
    /// Nobody listens there, in words.
    pub fn connect(&self, patience: Duration) -> Result<TcpStream, String> {
        let failed = |error| format!("cannot reach {}: {error}", self.address);
        let stream = TcpStream::connect_timeout(&self.address, patience).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(patience)).map_err(failed)?;
        Ok(stream)
    }

    /// Resolves an `http://host:port` URL.
    ///
    /// # Errors
    /// The URL is of another form, or its host has no address.
    pub fn resolve(url: &str, authorization: Option<&str>) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix("http://") else {
            return Err(format!("{url}: only plain HTTP is spoken here: give http://host:port"));
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(|letter: char| letter == '/' || !letter.is_ascii_graphic()) {
            return Err(format!("{url}: give http://host:port without a path"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| {
            !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        if authorization.is_some_and(|value| value.bytes().any(|byte| byte.is_ascii_control())) {
            return Err("the authorization value holds a control character".to_owned());
        }
        let mut addresses =
            with_port.to_socket_addrs().map_err(|error| format!("{url}: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("{url}: the host has no address"))?;
        Ok(Self {
            address,
            authority: authority.to_owned(),
            authorization: authorization.map(str::to_owned),
        })
    }
}

/// One request with its holes, and what a good reply to it says.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    tenant_at: Option<usize>,
    value_at: Option<usize>,
    /// A good reply's body contains this.
    pub reply_contains: &'static str,
}

impl Template {
    /// A request whose `path` and `body` may hold each hole once.
    #[must_use]
    pub fn new(
        target: &Target,
        method: &str,
        path: &str,
        body: &str,
        reply_contains: &'static str,
    ) -> Self {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", target.authority);
        if let Some(value) = &target.authorization {
            text += &format!("authorization: {value}\r\n");
        }
        if method != "GET" {
            let length = body.len();
            text += &format!("content-type: application/json\r\ncontent-length: {length}\r\n");
        }
        text += "\r\n";
        text += body;
        let find = |hole: &str| {
            assert!(text.matches(hole).count() <= 1);
            text.find(hole)
        };
        let (tenant_at, value_at) = (find(TENANT_HOLE), find(VALUE_HOLE));
        Self { bytes: text.into_bytes(), tenant_at, value_at, reply_contains }
    }

    /// A pipeline of statements on the tenants `<name>-<number>`. A statement is SQL and, where it
    /// has a parameter, the argument as JSON.
    #[must_use]
    pub fn pipeline(
        target: &Target,
        name: &str,
        statements: &[(&str, Option<&str>)],
        reply_contains: &'static str,
    ) -> Self {
        let mut body = String::from(r#"{"requests":["#);
        for (sql, argument) in statements {
            assert!(!sql.contains(['"', '\\', '\n']));
            let arguments = argument.unwrap_or_default();
            body += r#"{"type":"execute","stmt":{"sql":""#;
            body += sql;
            body += r#"","args":["#;
            body += arguments;
            body += "]}},";
        }
        body += r#"{"type":"close"}]}"#;
        let path = format!("/db/{name}-{TENANT_HOLE}/v2/pipeline");
        Self::new(target, "POST", &path, &body, reply_contains)
    }

    /// The request's bytes, holes unfilled: what a connection keeps and patches.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fills the holes of `bytes`, a copy of this template's bytes.
    pub fn patch(&self, bytes: &mut [u8], numbers: Numbers) {
        assert_eq!(bytes.len(), self.bytes.len());
        if let Some(at) = self.tenant_at {
            write_digits(&mut bytes[at..at + HOLE_BYTES], numbers.tenant);
        }
        if let Some(at) = self.value_at {
            write_digits(&mut bytes[at..at + HOLE_BYTES], numbers.value);
        }
    }
}

/// What the holes of one request are filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The tenant, from 0.
    pub tenant: u32,
    /// A row's key, from [`ROW_FIRST`].
    pub value: u32,
}

/// In which order requests go through the tenants and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One after the other, so that each is met once before any is met twice.
    Sequential,
    /// Uniformly spread; the same spread in every run.
    Spread,
}

/// The tenants and rows that requests choose from.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// How they are chosen.
    pub order: Order,
    /// Number of tenants, at least 1.
    pub tenants: u32,
    /// Rows in each tenant, at least 1.
    pub rows: u32,
}

impl Choice {
    /// The numbers of request `sequence`.
    #[must_use]
    pub fn numbers(&self, sequence: u64) -> Numbers {
        assert!(self.tenants >= 1 && self.tenants - 1 <= NUMBER_MAX);
        assert!(self.rows >= 1 && self.rows <= NUMBER_MAX - ROW_FIRST);
        let (tenant, row) = match self.order {
            Order::Sequential => (sequence, sequence),
            // Two mixes, so that tenant and row are independent of each other.
            Order::Spread => (mix(sequence), mix(!sequence)),
        };
        let within = |number: u64, bound: u32| (number % u64::from(bound)) as u32;
        Numbers { tenant: within(tenant, self.tenants), value: ROW_FIRST + within(row, self.rows) }
    }
}

/// Fills `hole` with `number`, zeros in front.
fn write_digits(hole: &mut [u8], mut number: u32) {
    assert!(number <= NUMBER_MAX);
    for digit in hole.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |url: &str, expected: &str| {
            let seen = match Target::resolve(url, None) {
                Ok(target) => format!("{} {}", target.address, target.authority),
                Err(error) => error,
            };
            assert_eq!(seen, expected);
        };
        check("http://127.0.0.1:8080", "127.0.0.1:8080 127.0.0.1:8080");
        check("http://127.0.0.1:8080/", "127.0.0.1:8080 127.0.0.1:8080");
        check("http://127.0.0.1", "127.0.0.1:80 127.0.0.1");
        check("http://[::1]:7", "[::1]:7 [::1]:7");
        check(
            "http://127.0.0.1/db/x",
            "http://127.0.0.1/db/x: give http://host:port without a path",
        );
        check(
            "https://127.0.0.1",
            "https://127.0.0.1: only plain HTTP is spoken here: give http://host:port",
        );
        assert!(Target::resolve("http://127.0.0.1:1", Some("a\r\nb: c")).is_err());
    }

    #[test]
    fn a_template_is_patched_in_place() {
        let target = Target::resolve("http://127.0.0.1:80", Some("Bearer x")).unwrap();
        let argument = format!(r#"{{"type":"integer","value":"{VALUE_HOLE}"}}"#);
        let statements = [("SELECT ?", Some(argument.as_str()))];
        let template = Template::pipeline(&target, "t", &statements, "");
        let mut bytes = template.bytes().to_vec();
        for tenant in [99_999_999, 7] {
            template.patch(&mut bytes, Numbers { tenant, value: ROW_FIRST + 5 });
        }
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            head,
            format!(
                "POST /db/t-00000007/v2/pipeline HTTP/1.1\r\nhost: 127.0.0.1:80\r\n\
                 authorization: Bearer x\r\ncontent-type: application/json\r\n\
                 content-length: {}",
                body.len()
            )
        );
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["requests"][0]["stmt"]["args"][0]["value"], "10000005");
        assert_eq!(json["requests"][1]["type"], "close");
    }

    #[test]
    fn choices_cover_everything_and_nothing_else() {
        for order in [Order::Sequential, Order::Spread] {
            let choice = Choice { order, tenants: 10, rows: 20 };
            let mut met = [[false; 20]; 10];
            for sequence in 0..10_000 {
                let numbers = choice.numbers(sequence);
                met[numbers.tenant as usize][(numbers.value - ROW_FIRST) as usize] = true;
            }
            let pairs = met.iter().flatten().filter(|met| **met).count();
            // In sequence a tenant meets every tenth row: 10 x 2.
            assert_eq!(pairs, if order == Order::Spread { 200 } else { 20 });
        }
    }
}
