//! Seeds in processes of their own: starting one, reading its report, several at a time.
//!
//! The threads here only wait for processes; no world runs in a process with threads.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use super::run::JSON_PREFIX;

/// What a seed's process said.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The verdict.
    pub line: String,
    /// What was violated; `PANIC at …` if it panicked, `DET-1` if its two runs differ, `EXIT` if it
    /// ended in another way.
    pub property: Option<String>,
    /// The trace hash, if it came to one.
    pub hash: String,
    /// Events.
    pub events: u64,
    /// Simulated time.
    pub simulated_ms: u64,
    /// Real time.
    pub wall_ms: u64,
    /// Counts by name.
    pub counts: BTreeMap<String, u64>,
    /// Fault kinds that struck: times, and recoveries.
    pub faults: BTreeMap<String, [u64; 2]>,
    /// Marks that were reached.
    pub marks: Vec<String>,
    /// All that it printed, but for the line for programs.
    pub text: String,
}

/// Run `simulator run` with these arguments.
pub fn run(program: &OsString, arguments: &[String]) -> Result<Report, String> {
    let mut command = Command::new(program);
    command.arg("run").args(arguments).arg("--json");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output();
    let output = output.map_err(|error| format!("cannot run {arguments:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (data, said): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with(JSON_PREFIX));
    let data = data.first().map(|line| &line[JSON_PREFIX.len()..]);
    let mut report = match data.map(serde_json::from_str::<Value>) {
        Some(Ok(value)) => read(&value),
        Some(Err(error)) => return Err(format!("a seed's process said nonsense: {error}")),
        None => Report::default(),
    };
    report.text = said.join("\n");
    if !report.text.is_empty() {
        report.text.push('\n');
    }
    report.text.push_str(&String::from_utf8_lossy(&output.stderr));
    if data.is_none() {
        if output.status.code() == Some(2) {
            return Err(report.text);
        }
        let panicked = said.iter().find(|line| line.contains(" FAIL:PANIC "));
        report.property = Some(panicked.map_or("EXIT".to_owned(), |line| panic_of(line)));
        let arguments = arguments.join(" ");
        report.line = match panicked {
            Some(line) => (*line).to_owned(),
            None => format!("simulator run {arguments} FAIL:EXIT {}", output.status),
        };
    }
    Ok(report)
}

/// `PANIC` and where: two panics are the same if their places are.
fn panic_of(line: &str) -> String {
    let place = line.split_once("panicked at ").map(|(_, rest)| rest);
    let place = place.and_then(|rest| rest.split(": ").next()).unwrap_or_default();
    format!("PANIC at {}", place.trim_end_matches(':'))
}

fn read(value: &Value) -> Report {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let number = |name: &str| value[name].as_u64().unwrap_or_default();
    let entries = |name: &str| value[name].as_object().into_iter().flatten();
    let pair = |value: &Value| [0, 1].map(|index| value[index].as_u64().unwrap_or_default());
    Report {
        line: text("line"),
        property: value["property"].as_str().map(str::to_owned),
        hash: text("hash"),
        events: number("events"),
        simulated_ms: number("simulated_ms"),
        wall_ms: number("wall_ms"),
        counts: entries("counts")
            .map(|(name, count)| (name.clone(), count.as_u64().unwrap_or_default()))
            .collect(),
        faults: entries("faults").map(|(kind, count)| (kind.clone(), pair(count))).collect(),
        marks: value["marks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|mark| mark.as_str().map(str::to_owned))
            .collect(),
        text: String::new(),
    }
}

/// This program.
pub fn this_program() -> Result<OsString, String> {
    let program = std::env::current_exe();
    program.map(OsString::from).map_err(|error| format!("no program: {error}"))
}

/// Run worlds, `jobs` at a time, until `next` has no more arguments; `done` is told each report, in
/// the order in which they come, with the number of its world. It may end the rest by `false`.
pub fn run_all(
    program: &OsString,
    jobs: usize,
    next: impl FnMut() -> Option<Vec<String>> + Send,
    mut done: impl FnMut(Vec<String>, Report) -> bool,
) -> Result<(), String> {
    let next = Mutex::new(Some(next));
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                loop {
                    let arguments = match next.lock().expect("no thread panics").as_mut() {
                        Some(next) => next(),
                        None => None,
                    };
                    let Some(arguments) = arguments else { return };
                    let report = run(program, &arguments);
                    if sender.send((arguments, report)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut result = Ok(());
        for (arguments, report) in receiver {
            let goes_on = match report {
                Ok(report) => done(arguments, report),
                Err(text) => {
                    result = Err(text);
                    false
                }
            };
            if !goes_on {
                *next.lock().expect("no thread panics") = None;
                break;
            }
        }
        result
    })
}
