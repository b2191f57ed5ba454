//! `simulator run`: one world in this process.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use simulator::trace::Sink;
use simulator::world::{self, Options, Outcome, Watch};

use super::Choice;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  simulator run 42 --profile drawn
  simulator run 42 --twice                          run it again and compare the traces
  simulator run 42 --trace trace.txt --from 80000   every event from the 80,000th on, as text
  simulator run 42 --set crashes=0 --set sync_error_per_million=5000";

/// What a child's line for its parent begins with.
pub const JSON_PREFIX: &str = "json ";

#[derive(Debug, clap::Args)]
pub struct Run {
    #[command(flatten)]
    choice: Choice,
    /// Write the readable trace to this file; `-` is the standard output.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Begin the trace with this event.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Print the last so many lines of the trace in the end, also after a panic.
    #[arg(long, default_value_t = 0)]
    tail: usize,
    /// Run it twice and compare the traces; the second one is written to a file of the same name
    /// that ends with `.second`.
    #[arg(long)]
    twice: bool,
    /// Print one more line, for programs.
    #[arg(long, hide = true)]
    json: bool,
}

thread_local! {
    /// The last lines of the trace, where a panic's hook finds them.
    static TAIL: RefCell<VecDeque<String>> = const { RefCell::new(VecDeque::new()) };
}

/// Run the world, and print what came of it.
pub fn run(run: &Run) -> Result<bool, String> {
    let options = run.choice.options()?;
    announce_panics(&options);
    let written = Rc::new(RefCell::new(Ok(())));
    let sink = sink_of(run, false, &options, &written)?;
    let begun = Instant::now();
    let watch = Watch { sink, sink_from: run.from, ..Watch::default() };
    let outcome = world::run_watched(options.clone(), watch);
    let wall = begun.elapsed();
    println!("{}", outcome.line());
    println!("{}", time_line(&outcome, wall));
    print_tail();
    let mut diverged = false;
    if run.twice {
        let sink = sink_of(run, true, &options, &written)?;
        diverged = !is_same(&outcome, options.clone(), sink, run.from);
    }
    written.borrow_mut().as_ref().map_err(|error| format!("cannot write the trace: {error}"))?;
    let passed = outcome.violation.is_none() && !diverged;
    if run.json {
        println!("{JSON_PREFIX}{}", json_line(&outcome, wall, diverged));
    }
    if !passed {
        println!("options: {options}");
        println!("again:\n{}", outcome.commands());
    }
    Ok(passed)
}

/// Say which seed it was when something panics: the process ends there (it may be in C frames).
fn announce_panics(options: &Options) {
    let arguments = options.arguments();
    let line = format!("seed={} profile={}", options.seed, options.profile);
    let changed: String = options.changed.iter().map(|set| format!(" --set {set}")).collect();
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string().replace('\n', " ");
        println!("{line}{changed} FAIL:PANIC {text}");
        print_tail();
        println!("again:\n  simulator run {arguments}");
        previous(panic);
    }));
}

fn time_line(outcome: &Outcome, wall: Duration) -> String {
    let simulated = outcome.at.0 / 1_000_000;
    let milliseconds = wall.as_millis().max(1) as u64;
    format!(
        "time sim={}.{:03}s wall={milliseconds}ms x{} {}",
        simulated / 1000,
        simulated % 1000,
        simulated / milliseconds,
        outcome.numbers
    )
}

fn json_line(outcome: &Outcome, wall: Duration, diverged: bool) -> Value {
    let property = match &outcome.violation {
        Some(violation) => Some(violation.property.to_string()),
        None => diverged.then(|| "DET-1".to_owned()),
    };
    let counts: Map<String, Value> =
        outcome.counts.iter().map(|(name, count)| (name.clone(), json!(count))).collect();
    let faults: Map<String, Value> = outcome
        .faults
        .iter()
        .map(|(kind, count)| (kind.to_string(), json!([count.injected, count.recovered])))
        .collect();
    json!({
        "line": outcome.line(),
        "hash": format!("{:016x}", outcome.hash),
        "property": property,
        "events": outcome.events,
        "simulated_ms": outcome.at.0 / 1_000_000,
        "wall_ms": wall.as_millis() as u64,
        "counts": counts,
        "faults": faults,
        "marks": storage::sometimes::reached(),
    })
}

type Written = Rc<RefCell<std::io::Result<()>>>;

/// Where the trace goes: to a file, to the tail, or to neither.
fn sink_of(
    run: &Run,
    second: bool,
    options: &Options,
    written: &Written,
) -> Result<Option<Sink>, String> {
    let path = match &run.trace {
        Some(path) => Some(path.clone()),
        None => (run.from > 0).then(|| PathBuf::from("-")),
    };
    match path {
        Some(path) if second && path == Path::new("-") => Ok(None),
        Some(path) if second => sink_to(&path.with_extension("second"), options, written).map(Some),
        Some(path) => sink_to(&path, options, written).map(Some),
        None if run.tail > 0 && !second => Ok(Some(tail_sink(run.tail))),
        None => Ok(None),
    }
}

fn sink_to(path: &Path, options: &Options, written: &Written) -> Result<Sink, String> {
    let mut file: Box<dyn Write> = if path == Path::new("-") {
        Box::new(std::io::stdout())
    } else {
        let file = File::create(path);
        let file = file.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Box::new(BufWriter::new(file))
    };
    let written = Rc::clone(written);
    *written.borrow_mut() = writeln!(file, "{options}");
    Ok(Box::new(move |line| {
        let mut written = written.borrow_mut();
        if written.is_ok() {
            *written = writeln!(file, "{line}");
        }
    }))
}

fn tail_sink(lines: usize) -> Sink {
    Box::new(move |line| {
        TAIL.with_borrow_mut(|tail| {
            if tail.len() == lines {
                tail.pop_front();
            }
            tail.push_back(line.to_owned());
        });
    })
}

fn print_tail() {
    for line in TAIL.take() {
        println!("  {line}");
    }
}

/// Run it again, and print where the two differ.
fn is_same(first: &Outcome, options: Options, sink: Option<Sink>, sink_from: u64) -> bool {
    let expected = first.checkpoints.clone();
    let second =
        world::run_watched(options, Watch { expected, sink, sink_from, ..Watch::default() });
    if second.hash == first.hash && second.divergence.is_none() {
        return true;
    }
    println!("DIVERGED: {:016x}, then {:016x}", first.hash, second.hash);
    if let Some(divergence) = second.divergence {
        println!("first difference at or before {divergence:?}");
    }
    for (first, second) in first.recent.iter().zip(&second.recent) {
        println!("first  {first}\nsecond {second}");
    }
    false
}
