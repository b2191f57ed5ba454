//! HTTP over loopback in a few lines: one connection.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use crate::shared::stream::Post;

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

impl Post for Client {
    fn post(&mut self, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.request("POST", path, body)
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
