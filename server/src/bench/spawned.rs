//! The server that the load generator starts for itself, and the folder both work in.
//!
//! The server's standard output and error go to a file: a pipe would have to be drained while the
//! load runs, or the server would block on it. The file is read while waiting for the two
//! lines that say where it listens, and shown if anything goes wrong. Both the server and the
//! folder are gone when their guards are dropped; an interrupt from the terminal ends the
//! server too (it is of the same process group), but leaves the folder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::cores::{self, Cores};

/// A server without databases starts in milliseconds, one with a thousand written ones replays its
/// log; more than this is a fault.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A clean stop may checkpoint every tenant that was written.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How often the log file or the child is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// How much of the server's output is shown when it failed.
const OUTPUT_SHOWN_BYTES: usize = 4_000;

/// What stands before the server's addresses in its output.
const LISTENING: &str = "listening on http://";
/// The same for the admin API.
const ADMIN: &str = "admin on http://";

/// A folder of our own, removed when dropped.
pub struct Workspace {
    path: PathBuf,
}

impl Workspace {
    /// Makes a new folder inside `parent`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(parent: &Path) -> Result<Self, String> {
        let process = std::process::id();
        let mut attempt = 0_u32;
        loop {
            let path = parent.join(format!("myriad-bench-{process}-{attempt}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
                Err(error) => return Err(format!("cannot make {}: {error}", path.display())),
            }
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("{} is left behind: {error}", self.path.display());
        }
    }
}

/// How to start the server.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where its output goes.
    pub output: PathBuf,
    /// The core it runs on, and ours.
    pub cores: Option<Cores>,
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    launch: Launch,
    /// `http://address` of the SQL side.
    pub url: String,
    /// `http://address` of the admin API.
    pub admin_url: String,
}

impl Server {
    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not say in time where it listens; with its output.
    pub fn start(launch: Launch) -> Result<Self, String> {
        let program = launch.program.display();
        let output = File::create(&launch.output)
            .map_err(|error| format!("cannot write {}: {error}", launch.output.display()))?;
        let error_output =
            output.try_clone().map_err(|error| format!("cannot share the output: {error}"))?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).stdin(Stdio::null()).stdout(output).stderr(error_output);
        // A process inherits its parent's core, so it never runs anywhere else.
        let spawned = match &launch.cores {
            Some(cores) => cores.on_server_core(|| command.spawn())?,
            None => command.spawn(),
        };
        let child = spawned.map_err(|error| format!("cannot start {program}: {error}"))?;
        let mut server = Self { child, launch, url: String::new(), admin_url: String::new() };
        server.wait_for_addresses()?;
        Ok(server)
    }

    /// Files and connections that it has open, where the system tells, but for the commit log's: that
    /// goes on to its next file when it comes to it.
    #[must_use]
    pub fn descriptors(&self) -> Option<u64> {
        let folder = format!("/proc/{}/fd", self.child.id());
        let entries = std::fs::read_dir(folder).ok()?.flatten();
        let of_log = |entry: &std::fs::DirEntry| {
            let path = std::fs::read_link(entry.path()).unwrap_or_default();
            path.components().any(|part| part.as_os_str() == "log")
        };
        Some(entries.filter(|entry| !of_log(entry)).count() as u64)
    }

    /// Stops it cleanly and starts it again, on other ports.
    ///
    /// # Errors
    /// It does not stop within the limit, ends badly, or does not start.
    pub fn restart(mut self) -> Result<Self, String> {
        self.stop()?;
        Self::start(self.launch.clone())
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// It does not end within the limit, or reports a failure.
    pub fn stop(&mut self) -> Result<(), String> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .map_err(|error| format!("cannot stop the server: {error}"))?;
        let started = Instant::now();
        while started.elapsed() < STOP_LIMIT {
            if let Some(status) = self.exited()? {
                // A server that does not listen to the signal is ended by it: not clean, but over.
                if status.success() || status.signal() == Some(Signal::TERM.as_raw()) {
                    return Ok(());
                }
                return Err(self.failure(&format!("the server's stop failed ({status})")));
            }
            thread::sleep(LOOK_INTERVAL);
        }
        let seconds = STOP_LIMIT.as_secs();
        Err(self.failure(&format!("the server did not stop within {seconds} s")))
    }

    fn wait_for_addresses(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            // Looked at first: an ended server's output is complete.
            let exited = self.exited()?;
            let output = self.output();
            if let (Some(url), Some(admin_url)) =
                (address_after(&output, LISTENING), address_after(&output, ADMIN))
            {
                self.url = url;
                self.admin_url = admin_url;
                return Ok(());
            }
            if let Some(status) = exited {
                return Err(self.failure(&format!("the server did not start ({status})")));
            }
            thread::sleep(LOOK_INTERVAL);
        }
        let seconds = START_LIMIT.as_secs();
        Err(self.failure(&format!("the server did not say within {seconds} s where it listens")))
    }

    /// How long it was ready to run and had no core, since its start.
    #[must_use]
    pub fn core_wait(&self) -> Option<Duration> {
        cores::core_wait(&self.child.id().to_string())
    }

    /// The most memory that it has had at a time, where the kernel says so (`VmHWM` in
    /// `/proc/<process>/status`, proc(5)).
    #[must_use]
    pub fn peak_resident_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let rest = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>, String> {
        self.child.try_wait().map_err(|error| format!("cannot watch the server: {error}"))
    }

    /// What the server has said; unreadable output reads as none, and the time limit decides.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.launch.output).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What went wrong, with the end of the server's output.
    #[must_use]
    pub fn failure(&self, what: &str) -> String {
        let output = self.output();
        let mut from = output.len().saturating_sub(OUTPUT_SHOWN_BYTES);
        while !output.is_char_boundary(from) {
            from += 1;
        }
        match output[from..].trim() {
            "" => format!("{what}, and it wrote nothing"),
            said => format!("{what}; it wrote:\n{said}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has already ended and been waited for.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            eprintln!("the server (process {}) may still run", self.child.id());
        }
    }
}

/// The URL that follows `words` in a complete line. Colour codes of a log may follow it.
fn address_after(output: &str, words: &str) -> Option<String> {
    let lines = output.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let rest = lines.filter_map(|line| line.split_once(words)).map(|(_, rest)| rest).next()?;
    let is_address = |letter: char| letter.is_ascii_alphanumeric() || ".:[]-".contains(letter);
    let address = &rest[..rest.find(|letter| !is_address(letter))?];
    if address.is_empty() { None } else { Some(format!("http://{address}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_complete_lines() {
        let check = |output: &str, expected: Option<&str>| {
            assert_eq!(address_after(output, LISTENING).as_deref(), expected, "{output:?}");
        };
        check("listening on http://127.0.0.1:80", None);
        check("listening on http://127.0.0.1:80\n", Some("http://127.0.0.1:80"));
        check("x\n1 INFO listening on http://[::1]:80 (tcp)\ny", Some("http://[::1]:80"));
        check("\x1b[1mlistening on http://a-b:80\x1b[0m\r\n", Some("http://a-b:80"));
        check("admin on http://127.0.0.1:80\n", None);
        check("listening on http:// \n", None);
    }

    /// A shell script stands for the server.
    fn launch(script: &str, workspace: &Workspace) -> Launch {
        Launch {
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into()],
            output: workspace.path().join("output"),
            cores: None,
        }
    }

    const READY: &str = "echo listening on http://127.0.0.1:1; echo admin on http://[::1]:2 >&2;";

    #[test]
    fn a_server_starts_restarts_and_is_gone_when_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let workspace = Workspace::create(parent.path()).unwrap();
        let second = Workspace::create(parent.path()).unwrap();
        assert_ne!(workspace.path(), second.path());
        let script = format!("trap 'exit 0' TERM; {READY} while :; do :; done");
        let server = Server::start(launch(&script, &workspace)).unwrap();
        assert_eq!(server.url, "http://127.0.0.1:1");
        assert_eq!(server.admin_url, "http://[::1]:2");
        let server = server.restart().unwrap();
        let process = Pid::from_child(&server.child);
        drop(server);
        assert!(rustix::process::test_kill_process(process).is_err(), "it still runs");
        drop((workspace, second));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn failures_show_the_output() {
        let parent = tempfile::tempdir().unwrap();
        let workspace = Workspace::create(parent.path()).unwrap();
        let start = |script: &str| Server::start(launch(script, &workspace)).map(|_| ());
        assert_eq!(
            start("echo no such disk >&2; exit 3"),
            Err("the server did not start (exit status: 3); it wrote:\nno such disk".to_owned())
        );
        assert_eq!(
            start("exit 0"),
            Err("the server did not start (exit status: 0), and it wrote nothing".to_owned())
        );
        let mut missing = launch("", &workspace);
        missing.program = workspace.path().join("missing");
        assert!(Server::start(missing).map(|_| ()).unwrap_err().starts_with("cannot start "));
        let script = format!("trap 'echo torn; exit 4' TERM; {READY} while :; do :; done");
        let server = Server::start(launch(&script, &workspace)).unwrap();
        let error = server.restart().map(|_| ()).unwrap_err();
        assert!(error.starts_with("the server's stop failed (exit status: 4)"), "{error}");
        assert!(error.ends_with("\ntorn"), "{error}");
    }
}
