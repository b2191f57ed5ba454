//! The `simulator` binary: arguments in, the world of a seed out.
//!
//! It shows the options of a seed. Running the server in that world is not built yet, and both
//! commands say so and fail rather than print a result that nothing stands behind.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use simulator::Faults;

/// Runs Myriad in a seeded world.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one seed.
    Run {
        /// The seed; everything else follows from it.
        seed: u64,
    },
    /// Run seeds one after the other.
    Swarm {
        /// For so long, in seconds of the real clock.
        #[arg(long)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { seed } => {
            println!("seed={seed} options: {}", Faults::swarm(seed));
            eprintln!("not run: there is no server to run in this world yet");
        }
        Command::Swarm { seconds } => {
            eprintln!("not run for {seconds} s: there is no server to run in these worlds yet");
        }
    }
    ExitCode::FAILURE
}
