//! HTTP and Hrana in a few lines: one connection, one stream.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value as Json, json};

use super::outcome::{Failure, Outcome, Rows, Value};

/// A kept-alive connection.
pub struct Client {
    address: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

impl Client {
    /// To this address; connects when it is first used.
    pub fn new(address: SocketAddr) -> Client {
        Client { address, stream: None }
    }

    /// POST and read the whole answer: status and body.
    pub fn post(&mut self, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.request("POST", path, body)
    }

    /// Any method.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                BufReader::new(stream)
            }
        };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        stream.get_mut().write_all(&request)?;
        let (status, body, keep_alive) = read_answer(&mut stream)?;
        self.stream = keep_alive.then_some(stream);
        Ok((status, body))
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let line = line.strip_suffix("\r\n").ok_or_else(|| invalid("an answer was cut"))?;
    Ok(line.to_owned())
}

fn read_answer(stream: &mut impl BufRead) -> io::Result<(u16, Vec<u8>, bool)> {
    let line = read_line(stream)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| invalid(&line))?;
    let (mut length, mut chunked, mut keep_alive) = (0, false, true);
    loop {
        let line = read_line(stream)?.to_ascii_lowercase();
        match line.split_once(": ") {
            None => break,
            Some(("content-length", text)) => {
                length = text.parse().map_err(|_| invalid("content-length"))?;
            }
            Some(("transfer-encoding", text)) => chunked = text == "chunked",
            Some(("connection", text)) => keep_alive = text != "close",
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    while chunked {
        let line = read_line(stream)?;
        let bytes = usize::from_str_radix(&line, 16).map_err(|_| invalid("chunk size"))?;
        let start = body.len();
        body.resize(start + bytes, 0);
        stream.read_exact(&mut body[start..])?;
        read_line(stream)?;
        chunked = bytes > 0;
    }
    Ok((status, body, keep_alive))
}

/// One Hrana stream on one database.
pub struct SqlStream {
    client: Client,
    path: String,
    baton: Option<String>,
}

impl SqlStream {
    /// A stream on `database`; the first statements open it.
    pub fn new(address: SocketAddr, database: &str) -> SqlStream {
        let path = format!("/db/{database}/v3/pipeline");
        SqlStream { client: Client::new(address), path, baton: None }
    }

    /// Run statements in order, whatever the earlier ones did.
    ///
    /// # Errors
    /// What was wrong with the request as a whole.
    pub fn execute(&mut self, statements: &[&str]) -> Result<Vec<Outcome>, String> {
        let requests: Vec<_> = statements
            .iter()
            .map(|sql| json!({"type": "execute", "stmt": {"sql": sql}}))
            .collect();
        let results = self.pipeline(&requests)?;
        if results.len() != statements.len() {
            return Err(format!("{} results for {} statements", results.len(), statements.len()));
        }
        results.iter().map(|result| outcome(result).ok_or_else(|| format!("result {result}"))).collect()
    }

    /// Close the stream.
    ///
    /// # Errors
    /// As for `execute`.
    pub fn close(mut self) -> Result<(), String> {
        self.pipeline(&[json!({"type": "close"})]).map(drop)
    }

    fn pipeline(&mut self, requests: &[Json]) -> Result<Vec<Json>, String> {
        let body = json!({"baton": self.baton, "requests": requests}).to_string();
        let (status, body) =
            self.client.post(&self.path, body.as_bytes()).map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("status {status}: {}", String::from_utf8_lossy(&body)));
        }
        let mut body: Json = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        self.baton = body["baton"].as_str().map(str::to_owned);
        match body["results"].take() {
            Json::Array(results) => Ok(results),
            other => Err(format!("results {other}")),
        }
    }
}

fn outcome(result: &Json) -> Option<Outcome> {
    if result["type"] == "error" {
        let text = |key: &str| result["error"][key].as_str().map(str::to_owned);
        return Some(Err(Failure { code: text("code")?, message: text("message")? }));
    }
    let result = &result["response"]["result"];
    let names = result["cols"].as_array()?.iter().map(|column| Some(column["name"].as_str()?.into()));
    let rows = result["rows"].as_array()?.iter().map(|row| row.as_array()?.iter().map(value).collect());
    Some(Ok(Rows { names: names.collect::<Option<_>>()?, rows: rows.collect::<Option<_>>()? }))
}

fn value(value: &Json) -> Option<Value> {
    Some(match value["type"].as_str()? {
        "null" => Value::Null,
        "integer" => Value::Integer(value["value"].as_str()?.parse().ok()?),
        // JSON has no word for an infinite number: it comes as null.
        "float" if value["value"].is_null() => Value::Real(f64::INFINITY),
        "float" => Value::Real(value["value"].as_f64()?),
        "text" => Value::Text(value["value"].as_str()?.to_owned()),
        "blob" => Value::Blob(decode_base64(value["base64"].as_str()?)?),
        _ => return None,
    })
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).ok()
}
