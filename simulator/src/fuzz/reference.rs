//! Requests by the plainest reading of RFC 9112, for comparison: what any other server between a client
//! and this one might make of the same bytes.
//!
//! Written apart from the server's code. Lax on purpose wherever servers are: what the strict reader
//! accepts must mean the same here, or two servers can be made to disagree about where a request ends.

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The words of the request line.
    pub method: String,
    pub target: String,
    pub version: String,
    /// Names as sent, values without surrounding blanks.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Everything up to and with the empty line, without empty lines before.
    pub head: Vec<u8>,
    /// The body, if it is all there.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// The values of all fields of this name.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| &value[..]).collect()
    }
}

/// The requests in these bytes, as far as they can be told apart.
pub fn requests(mut bytes: &[u8]) -> Vec<Request> {
    let mut requests = Vec::new();
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let Some((mut request, rest)) = head(bytes) else { return requests };
        let body = body(&request, rest);
        let Some((body, rest)) = body else {
            requests.push(request);
            return requests;
        };
        request.body = Some(body);
        requests.push(request);
        bytes = rest;
    }
}

fn head(bytes: &[u8]) -> Option<(Request, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let (head, rest) = bytes.split_at(end);
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let mut word = || words.next().map(str::to_owned);
    let (method, target, version) = (word()?, word()?, word()?);
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = value.trim_matches([' ', '\t']).chars().map(|letter| letter as u8).collect();
        fields.push((name.to_owned(), value));
    }
    let request = Request { method, target, version, fields, head: head.to_vec(), body: None };
    Some((request, rest))
}

fn body<'a>(request: &Request, bytes: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
    let coded = request
        .all("transfer-encoding")
        .iter()
        .any(|value| value.to_ascii_lowercase().windows(7).any(|window| window == b"chunked"));
    if coded {
        return chunks(bytes);
    }
    let length = match request.all("content-length").first() {
        Some(digits) => std::str::from_utf8(digits).ok()?.parse().ok()?,
        None => 0,
    };
    bytes.split_at_checked(length).map(|(body, rest)| (body.to_vec(), rest))
}

fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.windows(2).position(|window| window == b"\r\n")?;
    Some((&bytes[..end], &bytes[end + 2..]))
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (size, rest) = line(bytes)?;
        let size = size.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?.trim(), 16).ok()?;
        bytes = rest;
        if size == 0 {
            break;
        }
        let (data, rest) = bytes.split_at_checked(size)?;
        body.extend_from_slice(data);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, rest) = line(bytes)?;
        bytes = rest;
        if trailer.is_empty() {
            return Some((body, bytes));
        }
    }
}
