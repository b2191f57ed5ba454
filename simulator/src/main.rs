//! The `simulator` binary: one seed or many, and what helps to understand a seed that failed.
//!
//! Every command is a file in `commands/`. Commands that run many seeds run each in a process of its
//! own, this program again: a panic then costs its seed only, and every seed starts in a new process
//! with another address layout.

mod commands;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Parser, Subcommand};
use signal_hook::consts::SIGPIPE;

use commands::{coverage, fuzz, mutants, page, replay, run, shrink, swarm};

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
    #[command(after_help = run::EXAMPLES)]
    Run(run::Run),
    /// Run seeds that failed once more, twice each, and print their last events.
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::Replay),
    /// Run many seeds, and print sums.
    #[command(after_help = swarm::EXAMPLES)]
    Swarm(swarm::Swarm),
    /// Make a seed that fails as small as it gets.
    #[command(after_help = shrink::EXAMPLES)]
    Shrink(shrink::Shrink),
    /// Run seeds, and fail if some fault never struck or some marked place was never reached.
    #[command(after_help = coverage::EXAMPLES)]
    Coverage(coverage::Coverage),
    /// Draw the course of one seed as a page for a browser.
    #[command(after_help = page::EXAMPLES)]
    Report(page::Report),
    /// Feed hostile bytes to one parser or to a whole server, and judge what comes back.
    #[command(after_help = fuzz::EXAMPLES)]
    Fuzz(fuzz::Fuzz),
    /// Plant bugs, one at a time, and see how soon the simulator finds each.
    #[command(after_help = mutants::EXAMPLES)]
    Mutants(mutants::Mutants),
}

/// What a shell calls the end by this signal.
const ENDED_BY_PIPE: i32 = 128 + SIGPIPE;

fn main() -> ExitCode {
    // Whoever reads may have seen enough (`| head`): that is no reason to panic, as `println!` would.
    let always = Arc::new(AtomicBool::new(true));
    if let Err(error) =
        signal_hook::flag::register_conditional_shutdown(SIGPIPE, ENDED_BY_PIPE, always)
    {
        eprintln!("simulator: cannot listen for signals: {error}");
        return ExitCode::from(2);
    }
    let passed = match Arguments::parse().command {
        Command::Run(command) => run::run(&command),
        Command::Replay(command) => replay::run(&command),
        Command::Swarm(command) => swarm::run(&command),
        Command::Shrink(command) => shrink::run(&command),
        Command::Coverage(command) => coverage::run(&command),
        Command::Report(command) => page::run(&command),
        Command::Fuzz(command) => fuzz::run(&command),
        Command::Mutants(command) => mutants::run(&command),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("simulator: {text}");
            ExitCode::from(2)
        }
    }
}
