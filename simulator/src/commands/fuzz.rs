//! `simulator fuzz`: one target for a while, or one input again.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use simulator::fuzz::{Entry, Fuzzer, TARGETS, find};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  simulator fuzz                                    the targets, and what each must hold
  simulator fuzz http-head --seconds 300
  simulator fuzz recovery --seed 5 --runs 1000      the same inputs each time
  simulator fuzz token --replay fuzz-token-17.bin   an input that failed, again";

/// Time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// The clock is looked at once in so many runs.
const RUNS_PER_LOOK: u64 = 16;

#[derive(Debug, clap::Args)]
pub struct Fuzz {
    /// What is fuzzed; without it, all targets are listed.
    target: Option<String>,
    /// Stop after so long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Stop after so many inputs instead.
    #[arg(long)]
    runs: Option<u64>,
    /// All inputs follow from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run the input in this file, and no other.
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// Where inputs that fail are kept.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    keep: PathBuf,
}

thread_local! {
    /// Where the input that runs goes if it ends in a panic, and the input.
    static RUNNING: RefCell<Option<(PathBuf, Vec<u8>)>> = const { RefCell::new(None) };
}

/// Fuzz, and say what came of it.
pub fn run(fuzz: &Fuzz) -> Result<bool, String> {
    let Some(name) = &fuzz.target else {
        for entry in TARGETS {
            println!("{:<10} {}", entry.name, entry.about);
        }
        return Ok(true);
    };
    let entry = find(name).ok_or_else(|| {
        let names: Vec<&str> = TARGETS.iter().map(|entry| entry.name).collect();
        format!("there is no target {name}; there are {}", names.join(", "))
    })?;
    match &fuzz.replay {
        Some(path) => replay(entry, path),
        None => explore(entry, fuzz),
    }
}

fn replay(entry: &Entry, path: &Path) -> Result<bool, String> {
    let input = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let replayed = Fuzzer::new(entry, 0).replay(&input);
    match &replayed {
        Ok(()) => println!("{} bytes: nothing wrong with the answers", input.len()),
        Err(reason) => println!("{} bytes: {reason}", input.len()),
    }
    Ok(replayed.is_ok())
}

fn explore(entry: &'static Entry, fuzz: &Fuzz) -> Result<bool, String> {
    keep_input_of_panics(entry);
    let mut fuzzer = Fuzzer::new(entry, fuzz.seed);
    let begun = Instant::now();
    let mut newest_after = Duration::ZERO;
    let mut told = Duration::ZERO;
    let limit = Duration::from_secs(fuzz.seconds);
    loop {
        let elapsed = begun.elapsed();
        let is_over = match fuzz.runs {
            Some(runs) => fuzzer.executions >= runs,
            None => elapsed >= limit,
        };
        if is_over {
            break;
        }
        if elapsed >= told + PROGRESS {
            told = elapsed;
            println!("{}", line(entry, &fuzzer, elapsed, newest_after));
        }
        for _ in 0..RUNS_PER_LOOK.min(fuzz.runs.unwrap_or(u64::MAX) - fuzzer.executions) {
            let input = fuzzer.next_input().to_vec();
            let path = fuzz.keep.join(format!("fuzz-{}-{}.bin", entry.name, fuzzer.executions));
            RUNNING.with_borrow_mut(|running| *running = Some((path.clone(), input)));
            let newest_at = fuzzer.newest_at;
            if let Err(failure) = fuzzer.run() {
                println!("{}", line(entry, &fuzzer, begun.elapsed(), newest_after));
                println!("it fails: {}", failure.reason);
                keep(entry, &path, &failure.input);
                return Ok(false);
            }
            if fuzzer.newest_at > newest_at {
                newest_after = begun.elapsed();
            }
        }
    }
    RUNNING.with_borrow_mut(|running| *running = None);
    println!("{}", line(entry, &fuzzer, begun.elapsed(), newest_after));
    Ok(true)
}

fn line(entry: &Entry, fuzzer: &Fuzzer, elapsed: Duration, newest_after: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    format!(
        "{}: {} executions in {seconds:.1} s, {:.0} a second; {} behaviours, {} inputs kept; the \
         last new one at execution {}, after {:.1} s",
        entry.name,
        fuzzer.executions,
        fuzzer.executions as f64 / seconds,
        fuzzer.behaviours(),
        fuzzer.kept(),
        fuzzer.newest_at,
        newest_after.as_secs_f64(),
    )
}

fn keep(entry: &Entry, path: &Path, input: &[u8]) {
    match std::fs::write(path, input) {
        Ok(()) => {
            println!("again:\n  simulator fuzz {} --replay {}", entry.name, path.display());
        }
        Err(error) => println!("{} cannot be written: {error}; it is {input:?}", path.display()),
    }
}

/// A panic ends the process (it may be in C frames): write down what ran.
fn keep_input_of_panics(entry: &'static Entry) {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        previous(panic);
        if let Some((path, input)) = RUNNING.take() {
            keep(entry, &path, &input);
        }
    }));
}
