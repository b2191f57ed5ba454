//! `simulator swarm`: many seeds, a line of progress, sums at the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::SIGINT;
use simulator::world::Profile;

use super::child;
use super::tally::Tally;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  simulator swarm --seconds 60 --jobs 2
  simulator swarm --seeds 300 --seed-start 5000 --twice-every 1 --coverage
  simulator swarm --profile calm --json numbers.json      until Ctrl-C";

/// Time between two lines of progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Until when, how many at a time, and what is done with the numbers. Without `--seconds` and
/// `--seeds` it runs until Ctrl-C.
#[derive(Clone, Debug, clap::Args)]
pub struct Swarm {
    /// For so long, in seconds of the real clock; seeds that have begun are finished.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// So many seeds.
    #[arg(long)]
    pub seeds: Option<u64>,
    /// Processes at a time.
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub seed_start: u64,
    /// Only this profile; by default all, in turn.
    #[arg(long)]
    pub profile: Option<Profile>,
    /// Run one seed in so many twice and compare the traces; 0 is none.
    #[arg(long, default_value_t = 10)]
    pub twice_every: u64,
    /// Fail if a fault never struck or a marked place was never reached.
    #[arg(long)]
    pub coverage: bool,
    /// Write all numbers to this file.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

impl Swarm {
    /// The arguments of `simulator run` for a seed.
    fn arguments(&self, seed: u64) -> Vec<String> {
        let turn = (seed % Profile::ALL.len() as u64) as usize;
        let profile = self.profile.unwrap_or(Profile::ALL[turn]);
        let mut arguments = vec![seed.to_string(), "--profile".to_owned(), profile.to_string()];
        if self.twice_every > 0 && seed.is_multiple_of(self.twice_every) {
            arguments.push("--twice".to_owned());
        }
        arguments
    }
}

/// Run seeds until one of the limits, and print what came of them.
pub fn run(swarm: &Swarm) -> Result<bool, String> {
    let interrupted = Arc::new(AtomicBool::new(false));
    // A second Ctrl-C ends the program at once.
    signal_hook::flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&interrupted))
        .and_then(|_| signal_hook::flag::register(SIGINT, Arc::clone(&interrupted)))
        .map_err(|error| format!("Ctrl-C cannot be heeded: {error}"))?;
    let begun = Instant::now();
    let end = swarm.seconds.map(|seconds| begun + Duration::from_secs(seconds));
    let seed_end = swarm.seeds.map_or(u64::MAX, |seeds| swarm.seed_start.saturating_add(seeds));
    let mut seed = swarm.seed_start;
    let next = || {
        let over = seed >= seed_end || end.is_some_and(|end| Instant::now() >= end);
        if over || interrupted.load(Ordering::Relaxed) {
            return None;
        }
        seed += 1;
        Some(swarm.arguments(seed - 1))
    };
    let mut tally = Tally::default();
    let mut progress_at = begun + PROGRESS_EVERY;
    child::run_all(&child::this_program()?, swarm.jobs, next, |arguments, report| {
        // Ctrl-C reaches the seeds' processes too: how those ended says nothing.
        if interrupted.load(Ordering::Relaxed) && report.property.as_deref() == Some("EXIT") {
            return true;
        }
        tally.add(&arguments, &report);
        if report.property.is_some() {
            eprintln!("FAILED simulator run {}\n{}", arguments.join(" "), report.text);
        }
        if Instant::now() >= progress_at {
            progress_at = Instant::now() + PROGRESS_EVERY;
            eprintln!("{}", tally.progress(begun.elapsed()));
        }
        true
    })?;
    let elapsed = begun.elapsed();
    eprintln!("{}", tally.progress(elapsed));
    print!("{}", tally.summary(elapsed));
    let mut passed = tally.failures.is_empty();
    if swarm.coverage {
        let (text, complete) = tally.coverage();
        print!("{text}");
        passed &= complete;
    }
    if let Some(path) = &swarm.json {
        let text = format!("{:#}\n", tally.json(elapsed));
        let written = std::fs::write(path, text);
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(passed)
}
