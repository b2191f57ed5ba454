//! `simulator shrink`: the smallest world that still fails in the same way.
//!
//! Every decision of a world is drawn from a stream named after what it decides, so a world with
//! one fault less or fewer clients is much like the one before. So shrinking is running again: with
//! a fault class switched off, with half the operations, and so on; what still violates the same
//! property is kept. Runs that pass, or fail in another way, count as not shrunk.

use std::io::{IsTerminal as _, Write as _};

use simulator::settings::Settings as _;
use simulator::world::{Options, Profile};

use super::Choice;
use super::child::{self, Report};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Example:
  simulator shrink 42 --profile swarm --runs 100

Prints the smallest command that fails in the same way, and what was found not to matter.";

/// Sizes that are halved, in the order in which that saves most.
const SIZES: &[&str] =
    &["operations", "tenants", "clients", "crashes", "rows_max", "pad_words_max", "strangers"];

/// Sizes that may be 0.
const SIZES_MAY_BE_NONE: &[&str] = &["crashes", "strangers"];

#[derive(Debug, clap::Args)]
pub struct Shrink {
    #[command(flatten)]
    choice: Choice,
    /// Most worlds to run.
    #[arg(long, default_value_t = 200)]
    runs: u64,
}

struct Search {
    program: std::ffi::OsString,
    best: Choice,
    options: Options,
    calm: Options,
    property: String,
    report: Report,
    runs: u64,
    runs_max: u64,
    /// Reports of smaller worlds that were kept.
    kept: u64,
}

/// Find the smallest world, and print the way to it.
pub fn run(shrink: &Shrink) -> Result<bool, String> {
    let options = shrink.choice.options()?;
    let program = child::this_program()?;
    let report = child::run(&program, &shrink.choice.arguments())?;
    let Some(property) = report.property.clone() else {
        println!("{}\nnothing to shrink: it passes", report.line);
        return Ok(true);
    };
    println!("{}", report.line);
    let mut search = Search {
        program,
        best: shrink.choice.clone(),
        options,
        calm: Options::draw(shrink.choice.seed, Profile::Calm),
        property,
        report,
        runs: 1,
        runs_max: shrink.runs,
        kept: 0,
    };
    loop {
        let kept = search.kept;
        search.switch_off_faults()?;
        search.halve_sizes()?;
        if search.kept == kept || search.runs >= search.runs_max {
            break;
        }
    }
    search.print_end();
    Ok(false)
}

impl Search {
    /// Try a world with these options set; keep it if it fails in the same way.
    fn try_with(&mut self, set: &[(&str, String)]) -> Result<bool, String> {
        let news = set.iter().any(|(name, value)| self.value(name).as_ref() != Some(value));
        if !news || self.runs >= self.runs_max {
            return Ok(false);
        }
        let mut candidate = self.best.clone();
        for (name, value) in set {
            let prefix = format!("{name}=");
            candidate.set.retain(|assignment| !assignment.starts_with(&prefix));
            candidate.set.push(format!("{prefix}{value}"));
        }
        let tried = match set {
            [(name, value)] => format!("{name}={value}"),
            _ => format!("{} options calm", set.len()),
        };
        let options = candidate.options()?;
        self.try_candidate(candidate, options, &tried)
    }

    fn try_candidate(
        &mut self,
        candidate: Choice,
        options: Options,
        tried: &str,
    ) -> Result<bool, String> {
        self.runs += 1;
        let report = child::run(&self.program, &candidate.arguments())?;
        let same = report.property.as_deref() == Some(self.property.as_str());
        if same {
            self.options = options;
            self.best = candidate;
            self.report = report;
            self.kept += 1;
        }
        self.progress(tried);
        Ok(same)
    }

    fn value(&self, name: &str) -> Option<String> {
        let values = self.options.values();
        values.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// A calmer profile, with nothing of the faults set by hand; keep it if it fails in the same way.
    fn try_profile(&mut self, profile: Profile) -> Result<bool, String> {
        if profile >= self.best.profile || self.runs >= self.runs_max {
            return Ok(false);
        }
        let faults = self.calm.faults.values();
        let mut candidate = Choice { profile, ..self.best.clone() };
        candidate.set.retain(|assignment| {
            let name = assignment.split('=').next().unwrap_or_default();
            faults.iter().all(|(fault, _)| *fault != name)
        });
        let options = candidate.options()?;
        self.try_candidate(candidate, options, &format!("profile {profile}"))
    }

    /// Everything calm at once, or else one fault class after the other.
    fn switch_off_faults(&mut self) -> Result<(), String> {
        if self.try_profile(Profile::Calm)? || self.try_profile(Profile::Drawn)? {
            return Ok(());
        }
        let calm = self.calm.faults.values();
        let noisy = |search: &Search| -> Vec<(&'static str, String)> {
            let values = search.options.faults.values();
            let differs = |(now, calm): &(_, (&'static str, String))| *now != *calm;
            let pairs = values.into_iter().zip(calm.iter().cloned());
            pairs.filter(differs).map(|(_, calm)| calm).collect()
        };
        let all = noisy(self);
        if all.len() > 1 && self.try_with(&all)? {
            return Ok(());
        }
        let rates: Vec<_> =
            all.into_iter().filter(|(name, _)| name.ends_with("_per_million")).collect();
        if rates.len() > 1 && !self.try_with(&rates)? {
            for rate in rates {
                self.try_with(&[rate])?;
            }
        }
        for other in noisy(self) {
            self.try_with(&[other])?;
        }
        Ok(())
    }

    fn halve_sizes(&mut self) -> Result<(), String> {
        for name in SIZES {
            let Some(value) = self.value(name).and_then(|value| value.parse::<u64>().ok()) else {
                continue;
            };
            let least = u64::from(!SIZES_MAY_BE_NONE.contains(name));
            self.bisect(name, least, value)?;
        }
        Ok(())
    }

    /// The least value that still fails, as if all values between it and `high` failed as well.
    fn bisect(&mut self, name: &str, least: u64, high: u64) -> Result<(), String> {
        let (mut low, mut high) = (least, high);
        while low < high && self.runs < self.runs_max {
            let middle = low + (high - low) / 2;
            if self.try_with(&[(name, middle.to_string())])? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(())
    }

    fn progress(&self, tried: &str) {
        let end = if std::io::stderr().is_terminal() { '\r' } else { '\n' };
        let Search { runs, runs_max, kept, report, .. } = self;
        let line =
            format!("{runs}/{runs_max} runs, {kept} kept, {} events; {tried}", report.events);
        eprint!("{line:<78}{end}");
        let _ = std::io::stderr().flush();
    }

    fn print_end(&self) {
        let Search { runs, kept, report, best, .. } = self;
        println!("{}", report.line);
        println!("after {runs} runs, {kept} of them smaller and still {}:", self.property);
        println!("  simulator run {}", best.arguments().join(" "));
        let on = self.options.faults.values().into_iter().zip(self.calm.faults.values());
        let on: Vec<String> = on
            .filter(|(now, calm)| now != calm)
            .map(|((name, value), _)| format!("{name}={value}"))
            .collect();
        match on.is_empty() {
            true => println!("it needs no fault"),
            false => println!("it needs {}", on.join(" ")),
        }
    }
}
