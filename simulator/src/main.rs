//! The `simulator` binary: one seed, or as many as fit into a time.
//!
//! `swarm` runs each seed in a process of its own, this program again: a panic then costs its seed
//! only, and every seed starts in a new process with another address layout.

mod swarm;

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use clap::{Parser, Subcommand};
use simulator::trace::Sink;
use simulator::world::{self, Options, Outcome, Profile};

/// Runs Myriad in seeded worlds.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one seed and print what came of it.
    Run(Run),
    /// Run seeds one after the other until the time is over.
    Swarm(swarm::Swarm),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The seed; everything else follows from it.
    seed: u64,
    /// Which faults there are: calm, drawn or swarm.
    #[arg(long, default_value = "swarm")]
    profile: Profile,
    /// Write the readable trace to this file.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Run it twice and compare the traces; the second one is written to a file of the same name
    /// that ends with `.second`.
    #[arg(long)]
    twice: bool,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(run) => match run_seed(&run) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(text) => {
                eprintln!("simulator: {text}");
                ExitCode::from(2)
            }
        },
        Command::Swarm(swarm) => swarm::run(&swarm),
    }
}

/// Say which seed it was when something panics: the process ends there (it may be in C frames).
fn announce_panics(options: &Options) {
    let line = format!("seed={} profile={} FAIL:PANIC", options.seed, options.profile);
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        println!("{line}");
        previous(panic);
    }));
}

fn run_seed(run: &Run) -> Result<bool, String> {
    let options = Options::draw(run.seed, run.profile);
    announce_panics(&options);
    let written = Rc::new(RefCell::new(Ok(())));
    let sink = match &run.trace {
        Some(path) => Some(sink_to(path, &options, &written)?),
        None => None,
    };
    let begun = Instant::now();
    let outcome = world::run(options.clone(), Vec::new(), sink);
    let wall = begun.elapsed();
    written.borrow_mut().as_ref().map_err(|error| format!("cannot write the trace: {error}"))?;
    println!("{}", outcome.line());
    let simulated = outcome.at.0 / 1_000_000;
    let milliseconds = wall.as_millis().max(1) as u64;
    println!(
        "time sim={}.{:03}s wall={milliseconds}ms x{} {}",
        simulated / 1000,
        simulated % 1000,
        simulated / milliseconds,
        outcome.numbers
    );
    let mut passed = outcome.violation.is_none();
    if run.twice {
        let second = run.trace.as_ref().map(|path| path.with_extension("second"));
        let second = match &second {
            Some(path) => Some(sink_to(path, &options, &written)?),
            None => None,
        };
        passed &= is_same(&outcome, options.clone(), second);
    }
    if !passed {
        println!("options: {options}");
        println!("again:\n{}", outcome.commands());
    }
    Ok(passed)
}

fn sink_to(
    path: &Path,
    options: &Options,
    written: &Rc<RefCell<std::io::Result<()>>>,
) -> Result<Sink, String> {
    let file = File::create(path).map_err(|error| format!("cannot write the trace: {error}"))?;
    let mut file = BufWriter::new(file);
    let written = Rc::clone(written);
    *written.borrow_mut() = writeln!(file, "{options}");
    Ok(Box::new(move |line| {
        let mut written = written.borrow_mut();
        if written.is_ok() {
            *written = writeln!(file, "{line}");
        }
    }))
}

/// Run it again, and print where the two differ.
fn is_same(first: &Outcome, options: Options, sink: Option<Sink>) -> bool {
    let second = world::run(options, first.checkpoints.clone(), sink);
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
