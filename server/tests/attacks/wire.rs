//! Raw bytes on connections, and what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use server::bench::battery::{self, Case};

use super::ground::Ground;
use super::process::{IOS, problem};

const FILE: &str = include_str!("http.txt");

/// Cases of the file at least.
const CASES_MIN: usize = 200;

/// What a server that asks for keys is started with.
const ROOT_KEY: &str = "a-root-key-for-the-attacks";

/// An answer takes no longer, but in cases about slowness.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// In those: ten seconds for a head, six for a body, and a debug build.
const PATIENT_MAX: Duration = Duration::from_secs(20);

/// What is to arrive before the next bytes has this time.
const PAUSE: Duration = Duration::from_millis(20);

/// For so long nothing may come from a server that waits.
const SILENCE: Duration = Duration::from_millis(30);

/// A byte of a slow client.
const DRIP: Duration = Duration::from_millis(500);

/// Where cases go: the SQL address, the admin address, and the SQL address of a server that asks for keys.
#[derive(Clone, Copy)]
struct Places {
    sql: SocketAddr,
    admin: SocketAddr,
    auth: SocketAddr,
}

#[test]
fn bytes_on_connections() {
    let cases = battery::cases(FILE);
    assert!(cases.len() >= CASES_MIN, "the file has {} cases", cases.len());
    for io in IOS {
        let mut ground = Ground::on(io, &[]);
        ground.server.create("d");
        let asking = asking(io);
        let places = Places {
            sql: ground.server.address,
            admin: ground.server.admin,
            auth: asking.server.address,
        };
        let wanted = || cases.iter().filter(|case| !Ground::skips(case.name));
        thread::scope(|scope| {
            let is_slow = |case: &&Case<'_>| case.setting("with") == Some("patience");
            let slow: Vec<_> = wanted()
                .filter(is_slow)
                .map(|case| (case, scope.spawn(move || told(case, places, PATIENT_MAX))))
                .collect();
            for case in wanted().filter(|case| !is_slow(case)) {
                judge(&mut ground, case, told(case, places, ANSWER_MAX));
            }
            for (case, thread) in slow {
                judge(&mut ground, case, thread.join().expect("a case does not panic"));
            }
        });
        ground.finish(&format!("bytes on connections, {io}"));
        asking.server.stop();
    }
}

/// A server that asks for keys, with a database.
struct Asking {
    server: super::process::Server,
    _data: tempfile::TempDir,
}

fn asking(io: &str) -> Asking {
    let data = super::process::folder();
    let file = data.path().join("key");
    std::fs::write(&file, ROOT_KEY).expect("a file");
    let file = file.display().to_string();
    let launch = super::process::Launch::on(&data.path().join("data")).io(io);
    let server = launch.with(&["--auth", "on", "--root-key-file", &file]).start();
    let mut admin = server.admin().with_token(ROOT_KEY);
    let created = admin.call("POST", "/v1/namespaces/d/create", b"{}").expect("answered");
    assert_eq!(created.status, 200, "{}", created.text());
    Asking { server, _data: data }
}

fn judge(ground: &mut Ground, case: &Case<'_>, told: Vec<String>) {
    let expected = |line: &&&str| line.starts_with("-> ") || line.starts_with("=> ");
    let expected: Vec<&str> = case.lines.iter().filter(expected).copied().collect();
    if told != expected {
        let (name, line) = (case.name, case.line);
        let (told, expected) = (told.join("\n"), expected.join("\n"));
        ground.fail(format!("{name} (line {line}) wanted\n{expected}\nbut heard\n{told}\n"));
    }
    ground.check(case.name);
}

/// What is done, one thing after the other.
enum Act {
    Send(Vec<u8>),
    Pause,
    Drip(Vec<u8>),
    End,
}

fn acts(case: &Case<'_>) -> Vec<Act> {
    let mut acts = Vec::new();
    let mut bytes = Vec::new();
    let is_answer = |line: &&&str| line.starts_with("-> ") || line.starts_with("=> ");
    for line in case.lines.iter().take_while(|line| !is_answer(line)) {
        if line.starts_with("with ") {
            continue;
        }
        let Some(act) = line.strip_prefix("~ ") else {
            match line.strip_suffix('\\') {
                Some(line) => bytes.extend(battery::bytes(line)),
                None => bytes.extend([&*battery::bytes(line), b"\r\n"].concat()),
            }
            continue;
        };
        acts.push(Act::Send(std::mem::take(&mut bytes)));
        acts.push(match act.split_once(' ') {
            Some(("drip", text)) => Act::Drip(battery::bytes(text)),
            None if act == "pause" => Act::Pause,
            None if act == "end" => Act::End,
            _ => panic!("{}: no such act: {act}", case.name),
        });
    }
    acts.push(Act::Send(bytes));
    acts
}

/// Run a case: the lines of what came back.
fn told(case: &Case<'_>, places: Places, patience: Duration) -> Vec<String> {
    let address = match case.setting("with") {
        Some("admin") => places.admin,
        Some("auth") => places.auth,
        _ => places.sql,
    };
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let sender = stream.try_clone().expect("a socket");
    let acts = acts(case);
    let lines: Vec<&str> = case.lines.clone();
    thread::scope(|scope| {
        // A server that has refused reads no more: sending may fail, and nobody minds.
        let sending = scope.spawn(move || perform(sender, acts));
        let mut conversation = Conversation {
            stream: stream.try_clone().expect("a socket"),
            bytes: Vec::new(),
            ended: false,
            deadline: Instant::now() + patience,
        };
        let mut told = Vec::new();
        for line in lines.iter().filter(|line| line.starts_with("-> ")) {
            match conversation.response(line.ends_with(" bodyless")) {
                Some(response) => told.push(response),
                None => break,
            }
        }
        let waits = lines.contains(&"=> waits");
        if waits {
            sending.join().expect("sending does not panic");
        }
        told.push(conversation.end(waits));
        // Whoever still drips ends now.
        let _ = stream.shutdown(Shutdown::Both);
        told
    })
}

fn perform(mut stream: TcpStream, acts: Vec<Act>) {
    for act in acts {
        let done = match act {
            Act::Send(bytes) => stream.write_all(&bytes),
            Act::Pause => {
                thread::sleep(PAUSE);
                Ok(())
            }
            Act::Drip(bytes) => bytes.chunks(1).try_for_each(|byte| {
                stream.write_all(byte)?;
                thread::sleep(DRIP);
                Ok(())
            }),
            Act::End => stream.shutdown(Shutdown::Write),
        };
        if done.is_err() {
            return;
        }
    }
}

struct Conversation {
    stream: TcpStream,
    bytes: Vec<u8>,
    ended: bool,
    deadline: Instant,
}

impl Conversation {
    /// Read more, until then: false if nothing came.
    fn read(&mut self, until: Instant) -> bool {
        let left = until.saturating_duration_since(Instant::now());
        if self.ended || left.is_zero() {
            return false;
        }
        self.stream.set_read_timeout(Some(left)).expect("a socket");
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.ended = true,
            Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => self.ended = true,
        }
        !self.ended
    }

    /// The next response, as a line of the file.
    fn response(&mut self, bodyless: bool) -> Option<String> {
        let head_end = loop {
            if let Some(at) = self.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let until = self.deadline;
            if !self.read(until) {
                return None;
            }
        };
        let head = String::from_utf8(self.bytes.drain(..head_end).collect()).expect("ASCII");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.unwrap_or_else(|| panic!("no status line: {head}")).to_owned();
        if bodyless {
            return Some(format!("-> {status} bodyless"));
        }
        let body = self.body(&head.to_ascii_lowercase())?;
        Some(match status.as_str() {
            "200" => format!("-> {status}"),
            _ => format!("-> {status} {}", problem(&body).0),
        })
    }

    fn body(&mut self, head: &str) -> Option<Vec<u8>> {
        if head.contains("\r\ntransfer-encoding: chunked\r\n") {
            let mut body = Vec::new();
            loop {
                let line_end = loop {
                    if let Some(at) = self.bytes.windows(2).position(|window| window == b"\r\n") {
                        break at;
                    }
                    let until = self.deadline;
                    if !self.read(until) {
                        return None;
                    }
                };
                let line: Vec<u8> = self.bytes.drain(..line_end + 2).collect();
                let digits = std::str::from_utf8(&line[..line_end]).expect("digits");
                let size = usize::from_str_radix(digits, 16).expect("a size");
                body.extend(self.take(size)?);
                self.take(2)?;
                if size == 0 {
                    return Some(body);
                }
            }
        }
        let length = head.split("\r\ncontent-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        self.take(length.unwrap_or_else(|| panic!("no length: {head}")))
    }

    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while self.bytes.len() < bytes {
            let until = self.deadline;
            if !self.read(until) {
                return None;
            }
        }
        Some(self.bytes.drain(..bytes).collect())
    }

    /// What becomes of the connection, as a line of the file.
    fn end(&mut self, waits: bool) -> String {
        if waits {
            while self.read(Instant::now() + SILENCE) && !self.bytes.is_empty() {}
            return match (self.ended, self.bytes.is_empty()) {
                (false, true) => "=> waits".to_owned(),
                (ended, _) => format!("=> ended {ended}, after {:?}", self.shown()),
            };
        }
        // A server that closes has said so, or is silent: then the next request shows it.
        let soon = Instant::now() + SILENCE / 6;
        while !self.ended && Instant::now() < soon && self.bytes.is_empty() {
            self.read(soon);
        }
        if !self.ended && self.bytes.is_empty() {
            let _ = self.stream.write_all(b"GET /health HTTP/1.1\r\nHost: probe\r\n\r\n");
            match self.response(false) {
                Some(line) if line == "-> 200" && self.bytes.is_empty() => {
                    return "=> open".to_owned();
                }
                // A key is asked for on the admin address, which has no such path.
                Some(line) if line == "-> 404 NOT_FOUND" && self.bytes.is_empty() => {
                    return "=> open".to_owned();
                }
                Some(line) => {
                    return format!("=> answers a request with {line}, {:?}", self.shown());
                }
                None => {}
            }
        }
        loop {
            let until = self.deadline;
            if !self.read(until) {
                break;
            }
        }
        match (self.ended, self.bytes.is_empty()) {
            (true, true) => "=> close".to_owned(),
            (ended, _) => format!("=> ended {ended}, after {:?}", self.shown()),
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(300)]).into_owned()
    }
}
