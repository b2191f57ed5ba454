//! A blocking HTTP/1.1 client on one connection: what it sends is plain, what it reads is strict.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than any answer may take: 15 s for the writer lock are the longest wait of the server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);

/// One connection.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
    framing: Framing,
    /// Sent with each request as `authorization: Bearer`.
    token: Option<String>,
}

/// How the rest of the body that is being read is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    End,
}

/// A response, read whole.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Client {
    /// Connect.
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let reader = BufReader::with_capacity(64 * 1024, stream);
        Ok(Client { reader, framing: Framing::End, token: None })
    }

    /// Come with this token or key.
    pub fn with_token(self, token: &str) -> Client {
        Client { token: Some(token.to_owned()), ..self }
    }

    /// Post JSON, read the whole response.
    pub fn post(&mut self, path: &str, body: &Value) -> io::Result<Response> {
        self.call("POST", path, body.to_string().as_bytes())
    }

    /// Send a request, read the whole response.
    pub fn call(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
        self.send(method, path, body)?;
        self.receive()
    }

    /// Send a request.
    pub fn send(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<()> {
        let authorization = match &self.token {
            Some(token) => format!("authorization: Bearer {token}\r\n"),
            None => String::new(),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}content-length: {}\r\n\r\n",
            body.len()
        );
        self.send_raw(&[head.as_bytes(), body].concat())
    }

    /// Send these bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Something has come already, or the connection has ended.
    pub fn is_answered(&mut self) -> bool {
        self.reader.get_ref().set_nonblocking(true).expect("a socket");
        let result = self.reader.fill_buf().map(<[u8]>::len);
        self.reader.get_ref().set_nonblocking(false).expect("a socket");
        !matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Read a whole response.
    pub fn receive(&mut self) -> io::Result<Response> {
        let mut response = self.receive_head()?;
        while self.receive_some(&mut response.body)? {}
        Ok(response)
    }

    /// Read a response up to its body.
    pub fn receive_head(&mut self) -> io::Result<Response> {
        assert!(self.framing == Framing::End, "the body before was not read to its end");
        let line = self.line()?;
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| digits.parse().ok());
        let status = status.ok_or_else(|| broken("no status line"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken("no header"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let response = Response { status, headers, body: Vec::new() };
        self.framing = match response.header("transfer-encoding") {
            Some("chunked") => Framing::Chunked,
            Some(_) => return Err(broken("an unknown transfer coding")),
            None => {
                let length = response.header("content-length").and_then(|text| text.parse().ok());
                Framing::Length(length.ok_or_else(|| broken("a body without a length"))?)
            }
        };
        Ok(response)
    }

    /// Read the next piece of the body behind `out`; false at its end.
    pub fn receive_some(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        match self.framing {
            Framing::End => return Ok(false),
            Framing::Length(bytes) => {
                self.exactly(bytes, out)?;
                self.framing = Framing::End;
            }
            Framing::Chunked => {
                let line = self.line()?;
                let bytes = u64::from_str_radix(&line, 16).map_err(|_| broken("no chunk size"))?;
                self.exactly(bytes, out)?;
                if !self.line()?.is_empty() {
                    return Err(broken("a chunk without an end"));
                }
                if bytes == 0 {
                    self.framing = Framing::End;
                }
            }
        }
        Ok(self.framing != Framing::End)
    }

    fn exactly(&mut self, bytes: u64, out: &mut Vec<u8>) -> io::Result<()> {
        match (&mut self.reader).take(bytes).read_to_end(out)? as u64 == bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.strip_suffix("\r\n").ok_or_else(|| broken("a line without an end"))?;
        Ok(line.to_owned())
    }
}
