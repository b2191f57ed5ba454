//! A tiny HTTP server on a thread, for this program's own tests.
//!
//! It answers each request with what a function of its head and body returns, so a test decides
//! byte by byte what the load generator sees.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What to do with one request.
pub enum Answer {
    /// Send these bytes, in pieces of so many.
    Bytes(Vec<u8>, usize),
    /// Send these bytes, then close the connection.
    Last(Vec<u8>),
}

/// Head and body of a request to the answer.
pub type Answerer = fn(&str, &str) -> Answer;

/// The server; its threads end when it is dropped.
pub struct Responder {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    ends: Arc<AtomicBool>,
    accepter: Option<JoinHandle<()>>,
}

impl Responder {
    pub fn start(answerer: Answerer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (thread_heads, thread_ends) = (Arc::clone(&heads), Arc::clone(&ends));
        let accepter = thread::spawn(move || {
            for stream in listener.incoming() {
                if thread_ends.load(Ordering::SeqCst) {
                    return;
                }
                let heads = Arc::clone(&thread_heads);
                // A client that is done closes, which ends this thread too.
                thread::spawn(move || serve(stream.unwrap(), answerer, &heads));
            }
        });
        Self { address, heads, ends, accepter: Some(accepter) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// First lines of all requests so far.
    pub fn first_lines(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the accepter.
        drop(TcpStream::connect(self.address));
        self.accepter.take().unwrap().join().unwrap();
    }
}

/// Serves one connection until either side ends it.
fn serve(mut stream: TcpStream, answerer: Answerer, heads: &Mutex<Vec<String>>) {
    stream.set_nodelay(true).unwrap();
    let mut received = Vec::new();
    while let Ok(Some((head, body))) = next_request(&mut stream, &mut received) {
        heads.lock().unwrap().push(head.lines().next().unwrap().to_owned());
        let sent = match answerer(&head, &body) {
            Answer::Bytes(bytes, piece) => {
                bytes.chunks(piece).try_for_each(|piece| stream.write_all(piece))
            }
            Answer::Last(bytes) => {
                // Either way the connection ends here.
                let _ = stream.write_all(&bytes);
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn next_request(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
) -> io::Result<Option<(String, String)>> {
    loop {
        let text = String::from_utf8(received.clone()).unwrap();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if rest.len() >= length {
                assert_eq!(rest.len(), length, "a closed loop never sends ahead");
                received.clear();
                return Ok(Some((head.to_owned(), rest.to_owned())));
            }
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes)? {
            0 => return Ok(None),
            count => received.extend_from_slice(&bytes[..count]),
        }
    }
}

/// A reply with a `Content-Length`.
pub fn plain(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A reply in chunks of at most `chunk` bytes.
pub fn chunked(body: &str, chunk: usize) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body.as_bytes().chunks(chunk) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
