//! A point read on a hot database allocates nothing on the Rust side.
//!
//! SQLite's own allocations go to its allocator and are not counted: they are the tenant's, and on
//! its account.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use server::auth::AuthOptions;
use server::{Server, ServerOptions};
use storage::counting::{CountingAllocator, allocations};
use storage::io::{Io, PollIo};
use storage::log::LogOptions;
use tenant::EngineOptions;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn options() -> ServerOptions {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    ServerOptions {
        listen: loopback,
        admin_listen: loopback,
        buffers_bytes_max: server::limits::BUFFERS_BYTES_MAX,
        engine: EngineOptions {
            create_on_first_use: true,
            memory_bytes: 1 << 28,
            tenant_memory_bytes: 1 << 24,
            logged_copy_pages: tenant::limits::LOGGED_COPY_PAGES_MAX,
            log: LogOptions::default(),
            seed: [1; 32],
        },
        baton_key: [2; 32],
        auth: AuthOptions::default(),
        public_host: None,
    }
}

/// Serve until told to stop; after each turn say how often this thread has allocated.
fn serve<I: Io<Server>>(
    mut io: I,
    address: &mpsc::Sender<SocketAddr>,
    counted: &AtomicU64,
    stop: &AtomicBool,
) {
    let mut server = Server::start(&mut io, options()).expect("loopback has a free port");
    address.send(server.addresses().0).expect("the test waits for it");
    while server.exit().is_none() {
        if stop.load(Ordering::Relaxed) {
            server.stop();
        }
        server.turn(&mut io);
        counted.store(allocations(), Ordering::SeqCst);
        let soon = io.now().after(5_000_000);
        let deadline = server.deadline().map_or(soon, |at| at.min(soon));
        io.run(&mut server, Some(deadline));
        counted.store(allocations(), Ordering::SeqCst);
    }
}

struct Client(TcpStream);

impl Client {
    fn ask(&mut self, body: &str) -> String {
        let length = body.len();
        let head = format!(
            "POST /db/hot/v2/pipeline HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(head.as_bytes()).expect("the server reads");
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        loop {
            let bytes = self.0.read(&mut part).expect("the server answers");
            assert!(bytes > 0, "the server closed the connection");
            answer.extend_from_slice(&part[..bytes]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .and_then(|length| length.parse::<usize>().ok());
                if Some(body.len()) == length {
                    return text.into_owned();
                }
            }
        }
    }
}

#[test]
fn a_point_read_on_a_hot_database_allocates_nothing() {
    const WARM_UP: u32 = 300;
    const ROUNDS: u32 = 5;
    const MEASURED: u32 = 100;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (sender, receiver) = mpsc::channel();
    let counted = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let path = folder.path().to_owned();
    let thread = {
        let (counted, stop) = (Arc::clone(&counted), Arc::clone(&stop));
        std::thread::spawn(move || {
            serve(PollIo::open(&path).expect("the folder is there"), &sender, &counted, &stop);
        })
    };
    let address = receiver.recv().expect("the server starts");
    let mut client = Client(TcpStream::connect(address).expect("the server listens"));
    let execute = |sql: &str, id: u32| {
        format!(
            "{{\"requests\":[{{\"type\":\"execute\",\"stmt\":{{\"sql\":\"{sql}\",\"args\":[{{\"type\":\
             \"integer\",\"value\":\"{id}\"}}]}}}},{{\"type\":\"close\"}}]}}"
        )
    };
    client.ask(
        &execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", 0)
            .replace("\"args\":[{\"type\":\"integer\",\"value\":\"0\"}]", "\"args\":[]"),
    );
    for id in 0..100 {
        client.ask(&execute("INSERT INTO t VALUES (?, 'value')", id));
    }
    let read = |id: u32| execute("SELECT v FROM t WHERE id = ?", id % 100);
    for id in 0..WARM_UP {
        assert!(client.ask(&read(id)).contains("\"value\""));
    }
    // What the server does each second is in some of the rounds, not in all.
    let rounds: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let before = counted.load(Ordering::SeqCst);
            for id in 0..MEASURED {
                assert!(client.ask(&read(id)).contains("\"value\""));
            }
            counted.load(Ordering::SeqCst) - before
        })
        .collect();
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("the server ends");
    let least = rounds.iter().min();
    assert_eq!(
        least,
        Some(&0),
        "allocations of the server's thread in {MEASURED} reads: {rounds:?}"
    );
}
