//! The request target (RFC 9112 section 3.2) and the Host field's grammar (RFC 3986 section 3.2).
//!
//! Both decide which tenant a request is for, so there must be one reading of them: what two
//! parsers could read differently is refused.

use crate::problem::Problem;

/// A target taken apart; all parts are borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// `host[:port]` of an absolute-form target.
    pub authority: Option<&'a str>,
    /// Starts with `/`, or is `*`, or is empty in an absolute-form target and means `/`.
    pub path: &'a str,
    /// What stands after the first `?`.
    pub query: Option<&'a str>,
}

/// Take an origin-form, absolute-form or (for OPTIONS) asterisk-form target apart.
///
/// # Errors
/// 400 for anything else.
pub fn parse(target: &str, is_options: bool) -> Result<Target<'_>, Problem> {
    let visible = target.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if !visible || target.contains('#') {
        return Err(bad_target());
    }
    if target == "*" && is_options {
        return Ok(Target { authority: None, path: target, query: None });
    }
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else {
        let (scheme, rest) = target.split_once("://").ok_or_else(bad_target)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(bad_target());
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if !is_host(authority) {
            return Err(bad_target());
        }
        (Some(authority), rest)
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    Ok(Target { authority, path, query })
}

/// `uri-host [":" port]` with a host that is not empty.
#[must_use]
pub fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let port_fits =
        port.is_none_or(|port| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()));
    port_fits && (is_registered_name(name) || is_address_literal(name))
}

fn is_registered_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let allowed = |index: usize| match bytes[index] {
        b'%' => {
            let digits = bytes.get(index + 1..index + 3);
            digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
        }
        b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
        | b',' | b';' | b'=' => true,
        byte => byte.is_ascii_alphanumeric(),
    };
    !bytes.is_empty() && (0..bytes.len()).all(allowed)
}

/// An IPv6 address in brackets. Future address forms (`[v1.…]`) do not exist.
fn is_address_literal(name: &str) -> bool {
    let inner = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    // An IPv6 literal holds colons; the port's colon stands after its bracket.
    let name_end = host.rfind(']').map_or(0, |bracket| bracket + 1);
    match host[name_end..].find(':') {
        Some(colon) => (&host[..name_end + colon], Some(&host[name_end + colon + 1..])),
        None => (host, None),
    }
}

/// The label of a Host that names a tenant: the first of at least two. An IP address names none;
/// neither does `localhost`, with or without its root dot.
#[must_use]
pub fn tenant_label(host: &str) -> Option<&str> {
    let (name, _) = split_port(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    let (first, _) = name.split_once('.')?;
    let last = name.rsplit('.').next().unwrap_or(name);
    // No top-level domain is a number; URL parsers read such a host as an IPv4 address
    // (WHATWG URL section 3.5), also in its short forms like 127.1.
    let is_address = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    (!is_address).then_some(first)
}

fn bad_target() -> Problem {
    Problem::protocol(
        400,
        "HTTP_BAD_TARGET",
        "the request target is neither a path nor an http URL",
    )
}
