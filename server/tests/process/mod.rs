//! The real binary as a child process, and clients for it: what the process tests share.
//!
//! Owns starting, stopping and killing `myriad`, a blocking HTTP client and a small SQL client on
//! top of it. A test's waits have deadlines and no lengths: a child that does not say what it
//! should say in time fails the test with everything that it did say.

// Each test file uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod http;
pub mod sql;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use http::{Client, Response};
pub use sql::{Database, Rows, Trouble};

/// How long a child may take to serve or to end: a debug build on a loaded machine, and 2 s of
/// patience for the log's lock.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The Ios of this machine's kernel that the binary offers by name.
pub const IOS: [&str; 2] = ["uring", "poll"];

/// How to start the binary.
#[derive(Clone, Debug)]
pub struct Launch {
    data: PathBuf,
    arguments: Vec<String>,
}

/// How a child that should not serve ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Launch {
    /// `myriad serve` on this data folder, on ports of the kernel's choice, and with databases made
    /// by request only.
    pub fn on(data: &Path) -> Launch {
        Launch { data: data.to_owned(), arguments: Vec::new() }
    }

    /// With this Io.
    pub fn io(self, io: &str) -> Launch {
        self.with(&["--io", io])
    }

    /// With more arguments.
    pub fn with(mut self, arguments: &[&str]) -> Launch {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_myriad"));
        command.arg("serve").arg("--data").arg(&self.data);
        let defaults = [
            ["--listen", "127.0.0.1:0"],
            ["--admin-listen", "127.0.0.1:0"],
            ["--create-on-first-use", "false"],
        ];
        for default in defaults {
            if !self.arguments.iter().any(|argument| argument == default[0]) {
                command.args(default);
            }
        }
        command.args(&self.arguments).stdin(Stdio::null());
        without_settings(&mut command);
        command
    }

    /// Start it and wait until it serves.
    pub fn start(&self) -> Server {
        self.spawn().serving()
    }

    /// Start it, and do not wait.
    pub fn spawn(&self) -> Starting {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary was built for this test");
        let stderr = child.stderr.take().expect("stderr is a pipe");
        Starting { child: Running(Some(child)), lines: read_lines(stderr), said: Vec::new() }
    }

    /// Start it and wait until it ends by itself.
    pub fn ended(&self) -> Ended {
        ended(&mut self.command())
    }
}

/// Run a command that ends by itself.
pub fn ended(command: &mut Command) -> Ended {
    ended_within(command, PATIENCE)
}

fn ended_within(command: &mut Command, patience: Duration) -> Ended {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary was built for this test");
    let deadline = Instant::now() + patience;
    while child.try_wait().expect("the child is ours").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("the child is ours");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("the child is ours");
    Ended {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The binary with these arguments only.
pub fn bare(arguments: &[&str]) -> Ended {
    bare_within(arguments, PATIENCE)
}

/// The same, for what may take so long.
pub fn bare_within(arguments: &[&str], patience: Duration) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myriad"));
    command.args(arguments).stdin(Stdio::null());
    without_settings(&mut command);
    ended_within(&mut command, patience)
}

/// Settings of the person who runs the tests do not reach the child.
fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name == "RUST_LOG" || name.to_string_lossy().starts_with("MYRIAD_") {
            command.env_remove(name);
        }
    }
}

fn read_lines(stderr: ChildStderr) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A child that is killed when the test forgets it, whatever became of the test.
#[derive(Debug)]
struct Running(Option<Child>);

impl Running {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was not reaped yet")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A child that has not said yet that it serves.
#[derive(Debug)]
pub struct Starting {
    child: Running,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Starting {
    /// Wait until it serves.
    pub fn serving(mut self) -> Server {
        let address = self.word_after("listening on http://");
        let admin = self.word_after("admin on http://");
        let lines = Mutex::new(self.lines);
        Server { child: self.child, lines, said: self.said, address, admin }
    }

    fn word_after(&mut self, words: &str) -> SocketAddr {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.said.iter().find_map(|line| line.split_once(words));
            if let Some((_, rest)) = found {
                let word = rest.split_whitespace().next().expect("an address follows");
                return word.parse().expect("an address follows");
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.child().wait();
                    panic!("ended with {status:?} instead of serving: {:#?}", self.said)
                }
                Err(RecvTimeoutError::Timeout) => panic!("does not serve: {:#?}", self.said),
            }
        }
    }
}

/// A child that serves.
#[derive(Debug)]
pub struct Server {
    child: Running,
    lines: Mutex<Receiver<String>>,
    said: Vec<String>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Server {
    /// A client of the SQL address.
    pub fn client(&self) -> Client {
        Client::connect(self.address).expect("the server listens")
    }

    /// A client of the admin address.
    pub fn admin(&self) -> Client {
        Client::connect(self.admin).expect("the server listens")
    }

    /// A database, with a connection of its own.
    pub fn database(&self, name: &str) -> Database {
        Database::of(self.client(), name)
    }

    /// Create a database through the control API, and give it.
    pub fn create(&self, name: &str) -> Database {
        let response = self.admin().post(&create_path(name), &json!({})).expect("answered");
        assert_eq!(response.status, 200, "create {name}: {}", response.text());
        self.database(name)
    }

    /// Drop a database.
    pub fn drop_database(&self, name: &str) {
        let path = format!("/v1/namespaces/{name}");
        let response = self.admin().call("DELETE", &path, b"").expect("answered");
        assert_eq!(response.status, 200, "drop {name}: {}", response.text());
    }

    /// A number from `/metrics`, by its name without `myriad_`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.admin().call("GET", "/metrics", b"").expect("answered").text();
        let numbers = text.lines().filter_map(|line| line.strip_prefix("myriad_")?.split_once(' '));
        let found = numbers.into_iter().find(|&(key, _)| key == name);
        found.unwrap_or_else(|| panic!("no metric {name}")).1.parse().expect("a number")
    }

    /// Resident bytes of the process.
    pub fn resident_bytes(&mut self) -> u64 {
        let path = format!("/proc/{}/status", self.child.child().id());
        let status = std::fs::read_to_string(path).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
        let kilobytes = line.split_whitespace().nth(1).expect("a number follows");
        kilobytes.parse::<u64>().expect("a number follows") * 1024
    }

    /// Ask it to stop.
    pub fn terminate(&mut self) {
        let process = self.child.child().id().to_string();
        let status = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &process]).status();
        assert!(status.expect("there is a shell").success());
    }

    /// It has not ended.
    pub fn lives(&mut self) -> bool {
        self.child.child().try_wait().expect("the child is ours").is_none()
    }

    /// Wait until it has ended: how, and everything that it said.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.lives() {
            assert!(Instant::now() < deadline, "does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut child = self.child.0.take().expect("it was not reaped yet");
        let status = child.wait().expect("the child is ours");
        // The pipe is at its end: whatever is left comes without a wait.
        self.said.extend(self.lines.get_mut().expect("no thread panicked").iter());
        (status, self.said.join("\n"))
    }

    /// Stop it, cleanly.
    pub fn stop(mut self) -> String {
        self.terminate();
        let (status, said) = self.wait();
        assert!(status.success(), "a clean stop ended with {status}: {said}");
        said
    }

    /// Kill it, and do not wait until it is gone.
    pub fn kill(mut self) -> Killed {
        let mut child = self.child.0.take().expect("it was not reaped yet");
        child.kill().expect("the child is ours");
        let said = self.said();
        assert!(!said.contains("panicked"), "{said}");
        Killed(Running(Some(child)))
    }

    /// Everything that it said so far.
    pub fn said(&mut self) -> String {
        self.said.extend(self.lines.get_mut().expect("no thread panicked").try_iter());
        self.said.join("\n")
    }
}

/// A child that was killed; reaped when it is dropped.
#[derive(Debug)]
pub struct Killed(Running);

/// Path of the call that creates a database.
pub fn create_path(name: &str) -> String {
    format!("/v1/namespaces/{name}/create")
}

/// Look again and again until it is so, for `seconds` at most.
pub fn eventually(seconds: u64, what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A number from the environment: how large a test is when somebody asks for more.
pub fn number(variable: &str, default: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
        Err(_) => default,
    }
}

/// A folder for one test, gone after it.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("myriad-process-").tempdir().expect("a temporary folder")
}

/// A small file system in memory; gone after the test.
#[derive(Debug)]
pub struct Mounted(PathBuf);

/// Mount a tmpfs with these options on a folder; nothing without the right to.
pub fn mount(folder: &Path, options: &str) -> Option<Mounted> {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder);
    let mounted = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    mounted.then(|| Mounted(folder.to_owned()))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a child that is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The file of a tenant by its id.
pub fn tenant_file(data: &Path, id: u64) -> PathBuf {
    data.join(format!("tenants/{:02x}/{:02x}/{id}.db", id & 0xff, id >> 8 & 0xff))
}

/// Names and ids of the databases in a data folder that nobody serves, from its catalogue.
pub fn ids(data: &Path) -> std::collections::BTreeMap<String, u64> {
    let copies = folder();
    let catalogue = open_copy(&tenant_file(data, 0), copies.path());
    let mut rows = catalogue.prepare("SELECT name, id FROM databases WHERE state <> 1").unwrap();
    let rows = rows.query_map((), |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

/// A tenant's file opened by SQLite itself, from a copy: SQLite puts files beside it.
pub fn open_copy(file: &Path, copies: &Path) -> rusqlite::Connection {
    let copy = copies.join(file.file_name().expect("a file has a name"));
    std::fs::copy(file, &copy).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    rusqlite::Connection::open(&copy).expect("a database file")
}

/// The one error body that every endpoint has.
pub fn problem(body: &[u8]) -> (String, String) {
    let value: Value = serde_json::from_slice(body).expect("an error is JSON");
    let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    (word("code"), word("message"))
}
