//! The server's process, on a data folder of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A running `myriad serve`; killed when dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    admin_address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    _data: tempfile::TempDir,
}

impl Server {
    /// Start on free ports, and wait until it serves.
    pub fn start() -> Server {
        Server::start_with(&["--create-on-first-use", "true"])
    }

    /// The same with these arguments.
    pub fn start_with(arguments: &[&str]) -> Server {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(env!("CARGO_BIN_EXE_myriad"))
            .arg("serve")
            .arg("--data")
            .arg(data.path())
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut wait_for = |prefix: &str| {
            loop {
                let line = lines.next().and_then(Result::ok).unwrap_or_else(|| {
                    panic!("the server ended:\n{}", log.lock().expect("nobody panics with it"))
                });
                if let Some(address) = line.strip_prefix(prefix) {
                    return address.parse().expect("an address");
                }
                keep(&log, &line);
            }
        };
        let address = wait_for("listening on http://");
        let admin_address = wait_for("admin on http://");
        let kept = Arc::clone(&log);
        let read = move || lines.map_while(Result::ok).for_each(|line| keep(&kept, &line));
        let reader = Some(std::thread::spawn(read));
        Server { child, address, admin_address, log, reader, _data: data }
    }

    /// Where SQL is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where databases are created and dropped.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }
}

fn keep(log: &Mutex<String>, line: &str) {
    let mut log = log.lock().expect("nobody panics with it");
    log.push_str(line);
    log.push('\n');
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if ended.is_some() || std::thread::panicking() {
            let log = self.log.lock().map_or_else(|_| String::new(), |log| log.clone());
            eprintln!("the server had ended: {ended:?}; it said:\n{log}");
        }
    }
}
