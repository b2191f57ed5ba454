//! `simulator coverage`: a swarm of which only the reach is asked for.

use super::swarm::{self, Swarm};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Example:
  simulator coverage --seeds 300 --seed-start 5000 --jobs 2

The same check as `simulator swarm --coverage`. The marks that are expected, and in how many seeds
each, stand in simulator/src/coverage.rs.";

#[derive(Debug, clap::Args)]
pub struct Coverage {
    /// So many seeds.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed_start: u64,
    /// Processes at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

/// Run the seeds, print what they reached and what is missing.
pub fn run(coverage: &Coverage) -> Result<bool, String> {
    swarm::run(&Swarm {
        seconds: None,
        seeds: Some(coverage.seeds),
        jobs: coverage.jobs,
        seed_start: coverage.seed_start,
        profile: None,
        twice_every: 0,
        coverage: true,
        json: None,
    })
}
