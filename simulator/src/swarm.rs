//! `simulator swarm`: seeds in processes of their own, progress, sums at the end.

use std::collections::{BTreeMap, VecDeque};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use simulator::world::Profile;

/// One seed in so many is run twice, and its traces compared.
const TWICE_EVERY: u64 = 10;

/// Seeds between two lines of progress.
const PROGRESS_SEEDS: u64 = 50;

/// Longest list of failed seeds at the end.
const FAILURES_PRINTED_MAX: usize = 50;

/// Options of `swarm`.
#[derive(Debug, clap::Args)]
pub struct Swarm {
    /// For so long, in seconds of the real clock.
    #[arg(long)]
    seconds: u64,
    /// Processes at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed_start: u64,
    /// Only this profile; by default all, in turn.
    #[arg(long)]
    profile: Option<Profile>,
}

struct Job {
    seed: u64,
    profile: Profile,
    child: Child,
}

#[derive(Default)]
struct Sums {
    seeds: u64,
    twice: u64,
    numbers: BTreeMap<String, u64>,
    failures: Vec<String>,
}

/// Run seeds until the time is over, then end those that run.
pub fn run(swarm: &Swarm) -> ExitCode {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(swarm.seconds);
    let mut sums = Sums::default();
    let mut jobs: VecDeque<Job> = VecDeque::new();
    let mut seed = swarm.seed_start;
    loop {
        while jobs.len() < swarm.jobs.max(1) && Instant::now() < end {
            match start(swarm, seed) {
                Ok(job) => jobs.push_back(job),
                Err(text) => {
                    eprintln!("simulator: {text}");
                    return ExitCode::from(2);
                }
            }
            seed += 1;
        }
        let Some(job) = jobs.pop_front() else { break };
        if let Err(text) = finish(job, &mut sums) {
            eprintln!("simulator: {text}");
            return ExitCode::from(2);
        }
        if sums.seeds.is_multiple_of(PROGRESS_SEEDS) {
            let seconds = begun.elapsed().as_secs();
            eprintln!("{seconds:>6} s  {} seeds, {} failed", sums.seeds, sums.failures.len());
        }
    }
    summary(&sums, begun.elapsed())
}

fn start(swarm: &Swarm, seed: u64) -> Result<Job, String> {
    let turn = (seed % Profile::ALL.len() as u64) as usize;
    let profile = swarm.profile.unwrap_or(Profile::ALL[turn]);
    let program = std::env::current_exe().map_err(|error| format!("no program: {error}"))?;
    let mut command = Command::new(program);
    command.args(["run", &seed.to_string(), "--profile", &profile.to_string()]);
    if seed.is_multiple_of(TWICE_EVERY) {
        command.arg("--twice");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("cannot start seed {seed}: {error}"))?;
    Ok(Job { seed, profile, child })
}

fn finish(job: Job, sums: &mut Sums) -> Result<(), String> {
    let Job { seed, profile, child } = job;
    let output = child.wait_with_output();
    let output = output.map_err(|error| format!("seed {seed} cannot be waited for: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    sums.seeds += 1;
    sums.twice += u64::from(seed.is_multiple_of(TWICE_EVERY));
    for word in
        text.lines().filter(|line| line.starts_with("time ")).flat_map(str::split_whitespace)
    {
        if let Some((name, value)) = word.split_once('=') {
            let value = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let whole = value.split('.').next().unwrap_or_default();
            *sums.numbers.entry(name.to_owned()).or_default() += whole.parse().unwrap_or(0);
        }
    }
    if !output.status.success() {
        let verdict = text.lines().next().unwrap_or("no output").to_owned();
        eprintln!("FAILED seed={seed} profile={profile} {}", output.status);
        eprint!("{text}{}", String::from_utf8_lossy(&output.stderr));
        sums.failures.push(verdict);
    }
    Ok(())
}

fn summary(sums: &Sums, elapsed: Duration) -> ExitCode {
    let Sums { seeds, twice, numbers, failures } = sums;
    println!(
        "{seeds} seeds in {} s, {twice} of them twice, {} failed",
        elapsed.as_secs(),
        failures.len()
    );
    let numbers: Vec<String> =
        numbers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    println!("{}", numbers.join(" "));
    for failure in failures.iter().take(FAILURES_PRINTED_MAX) {
        println!("{failure}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
