//! `simulator mutants`: bugs planted on purpose, and how soon a world finds each.
//!
//! A mutant is a patch in `simulator/mutants/`, one idea each. Its head says in a sentence what is
//! wrong with the server, and which properties may say so:
//!
//! ```text
//! A reply leaves while its batch is still being written.
//!
//! expected: DUR-1 DUR-2
//! seeds: 500            (optional: fewer than --seeds are enough)
//! profile: swarm        (optional: by default all, in turn)
//! set: budgets=100      (optional: an option of all its worlds)
//! blind spot: why       (optional: no world finds it yet; it is run only if it is named)
//! ```
//!
//! The sources are copied to `target/mutants/source`; each patch is applied there, built with a
//! target folder of its own, run, and taken back. A patch that does not apply, a mutant that
//! survives, and one that is found by another property than it says: each is a failure, for each
//! marks a blind spot or a test that has rotted.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use simulator::world::Profile;

use super::child::{self, Report};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples, from the top of the repository:
  simulator mutants
  simulator mutants --only gate --seeds 100 --jobs 2
  simulator mutants --some 3 --rotate 12345        three of them, others for another number";

/// Where the patches are, from the top of the repository.
const PATCHES: &str = "simulator/mutants";

/// Where copy and build go.
const SCRATCH: &str = "target/mutants";

#[derive(Debug, clap::Args)]
pub struct Mutants {
    /// Only those with this in their name.
    #[arg(long)]
    only: Option<String>,
    /// Only so many of them.
    #[arg(long)]
    some: Option<usize>,
    /// Which ones that are.
    #[arg(long, default_value_t = 0)]
    rotate: u64,
    /// Seeds after which a mutant has survived.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed_start: u64,
    /// Processes at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

/// A patch and its head.
#[derive(Debug)]
struct Mutant {
    name: String,
    path: PathBuf,
    expected: Vec<String>,
    seeds: Option<u64>,
    profile: Option<Profile>,
    /// An option of its worlds, as `name=value`.
    set: Option<String>,
    /// Why no world finds it yet.
    blind_spot: Option<String>,
}

/// The simulator as it is, and with the bug in hand.
struct Programs {
    clean: OsString,
    mutant: OsString,
}

/// How a mutant ended.
enum End {
    /// After so many seeds, by this report.
    Found(u64, Box<Report>),
    Survived(u64),
    Broken(String),
}

/// Try the mutants one after the other.
pub fn run(mutants: &Mutants) -> Result<bool, String> {
    let top = top()?;
    let chosen = choose(mutants, read_all(&top.join(PATCHES))?)?;
    let source = top.join(SCRATCH).join("source");
    eprintln!("copying the sources and building them once, without a bug");
    copy_sources(&top, &source)?;
    let program = build(&top, &source)?;
    let clean = top.join(SCRATCH).join("without-a-bug");
    fs::copy(&program, &clean).map_err(|error| cannot("make", &clean, &error))?;
    let programs = Programs { clean: clean.into(), mutant: program };
    println!("{:<32} {:>6}  {:<24} {:>7}  expected", "mutant", "seeds", "found by", "seconds");
    let mut passed = true;
    for mutant in &chosen {
        let begun = Instant::now();
        let end = try_one(mutants, mutant, &top, &source, &programs)?;
        passed &= print_row(mutant, &end, begun.elapsed().as_secs());
    }
    Ok(passed)
}

fn print_row(mutant: &Mutant, end: &End, seconds: u64) -> bool {
    let expected = mutant.expected.join(" ");
    let (seeds, found, good, detail) = match end {
        End::Found(seeds, report) => {
            let property = report.property.clone().unwrap_or_default();
            let name = property.split(' ').next().unwrap_or_default();
            let good = mutant.expected.iter().any(|expected| expected == name);
            let detail = (!good).then(|| report.line.clone());
            (*seeds, property.clone(), good, detail)
        }
        End::Survived(seeds) => (*seeds, "nothing: it survived".to_owned(), false, None),
        End::Broken(text) => (0, "does not apply or build".to_owned(), false, Some(text.clone())),
    };
    let verdict = if good { "" } else { "  <- NOT AS EXPECTED" };
    println!("{:<32} {seeds:>6}  {found:<24} {seconds:>7}  {expected}{verdict}", mutant.name);
    if let Some(detail) = detail {
        println!("    {}", detail.trim().replace('\n', "\n    "));
    }
    good
}

/// The folder with the workspace, from the present folder upwards.
fn top() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|error| format!("no present folder: {error}"))?;
    let top = here.ancestors().find(|folder| folder.join(PATCHES).is_dir());
    top.map(Path::to_owned).ok_or_else(|| format!("no folder here or above has {PATCHES}"))
}

fn read_all(folder: &Path) -> Result<Vec<Mutant>, String> {
    let entries = fs::read_dir(folder).map_err(|error| cannot("list", folder, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| cannot("list", folder, &error))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    paths.sort_unstable();
    paths.into_iter().map(read_one).collect()
}

fn read_one(path: PathBuf) -> Result<Mutant, String> {
    let text = fs::read_to_string(&path).map_err(|error| cannot("read", &path, &error))?;
    let head: Vec<&str> = text.lines().take_while(|line| !line.starts_with("diff ")).collect();
    let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let wrong = |name: &str| format!("{}: no good line {name:?} in its head", path.display());
    let expected = value("expected:").ok_or_else(|| wrong("expected:"))?;
    let seeds = value("seeds:").map(|seeds| seeds.parse().map_err(|_| wrong("seeds:")));
    let profile = value("profile:").map(|profile| profile.parse::<Profile>());
    Ok(Mutant {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        expected: expected.split_whitespace().map(str::to_owned).collect(),
        seeds: seeds.transpose()?,
        profile: profile.transpose()?,
        set: value("set:").map(str::to_owned),
        blind_spot: value("blind spot:").map(str::to_owned),
        path,
    })
}

fn choose(mutants: &Mutants, mut all: Vec<Mutant>) -> Result<Vec<Mutant>, String> {
    if let Some(only) = &mutants.only {
        all.retain(|mutant| mutant.name.contains(only.as_str()));
    }
    if mutants.only.is_none() {
        for mutant in all.extract_if(.., |mutant| mutant.blind_spot.is_some()) {
            println!("{}: a blind spot: {}", mutant.name, mutant.blind_spot.unwrap_or_default());
        }
    }
    if all.is_empty() {
        return Err("no mutant has such a name".to_owned());
    }
    if let Some(some) = mutants.some {
        let first = (mutants.rotate % all.len() as u64) as usize;
        all.rotate_left(first);
        all.truncate(some);
    }
    Ok(all)
}

fn try_one(
    mutants: &Mutants,
    mutant: &Mutant,
    top: &Path,
    source: &Path,
    programs: &Programs,
) -> Result<End, String> {
    if let Err(text) = apply(source, &mutant.path, false) {
        return Ok(End::Broken(text));
    }
    let built = build(top, source);
    let end = built.map_or_else(|text| Ok(End::Broken(text)), |_| hunt(mutants, mutant, programs));
    apply(source, &mutant.path, true)?;
    end
}

/// Run seeds until one fails that does not fail without the bug as well.
fn hunt(mutants: &Mutants, mutant: &Mutant, programs: &Programs) -> Result<End, String> {
    let limit = mutant.seeds.map_or(mutants.seeds, |seeds| seeds.min(mutants.seeds));
    let mut seed = mutants.seed_start;
    let next = || {
        let turn = (seed % Profile::ALL.len() as u64) as usize;
        let profile = mutant.profile.unwrap_or(Profile::ALL[turn]);
        seed += 1;
        let begun = seed - mutants.seed_start;
        let arguments = || {
            let plain = [(seed - 1).to_string(), "--profile".into(), profile.to_string()];
            let set = mutant.set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]);
            plain.into_iter().chain(set).collect()
        };
        (begun <= limit).then(arguments)
    };
    let mut ended = 0;
    let mut found = None;
    let mut failed = None;
    child::run_all(&programs.mutant, mutants.jobs, next, |arguments, report| {
        ended += 1;
        if report.property.is_some() {
            match child::run(&programs.clean, &arguments) {
                Ok(clean) if clean.property == report.property => {
                    eprintln!("not counted, it fails without the bug too: {}", report.line);
                }
                Ok(_) => found = Some(report),
                Err(text) => failed = Some(text),
            }
        }
        found.is_none() && failed.is_none()
    })?;
    if let Some(text) = failed {
        return Err(text);
    }
    Ok(match found {
        Some(report) => End::Found(ended, Box::new(report)),
        None => End::Survived(ended),
    })
}

/// Make `source` hold the files that git tracks or would, and no others. A file that is the same
/// already is not touched, so that cargo builds only what changed.
fn copy_sources(top: &Path, source: &Path) -> Result<(), String> {
    let all = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = command("git", &all, top)?;
    let names = listed.split('\0').filter(|name| !name.is_empty());
    let names: BTreeSet<&Path> =
        names.map(Path::new).filter(|name| top.join(name).is_file()).collect();
    remove_others(source, source, &names)?;
    for name in names {
        let (from, to) = (top.join(name), source.join(name));
        let wanted = fs::read(&from).map_err(|error| cannot("read", &from, &error))?;
        if fs::read(&to).is_ok_and(|there| there == wanted) {
            continue;
        }
        let folder = to.parent().expect("a file lies in a folder");
        fs::create_dir_all(folder).map_err(|error| cannot("make", folder, &error))?;
        fs::copy(&from, &to).map_err(|error| cannot("copy", &from, &error))?;
    }
    Ok(())
}

/// Remove the files below `folder` that are not named.
fn remove_others(source: &Path, folder: &Path, names: &BTreeSet<&Path>) -> Result<(), String> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(|error| cannot("list", folder, &error))? {
        let path = entry.map_err(|error| cannot("list", folder, &error))?.path();
        if path.is_dir() {
            remove_others(source, &path, names)?;
        } else if !names.contains(path.strip_prefix(source).expect("it lies below")) {
            fs::remove_file(&path).map_err(|error| cannot("remove", &path, &error))?;
        }
    }
    Ok(())
}

/// Build the copy; gives the program.
fn build(top: &Path, source: &Path) -> Result<OsString, String> {
    let target = top.join(SCRATCH).join("build");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "simulator"]).current_dir(source);
    command.env("CARGO_TARGET_DIR", &target);
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(target.join("debug").join("simulator").into())
}

fn apply(source: &Path, patch: &Path, back: bool) -> Result<(), String> {
    let patch = patch.to_string_lossy();
    let mut arguments = vec!["apply", "-C1", "--whitespace=nowarn"];
    if back {
        arguments.push("--reverse");
    }
    arguments.push(&patch);
    command("git", &arguments, source).map(drop)
}

/// Run a program in a folder that counts as outside of every repository.
fn command(program: &str, arguments: &[&str], folder: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    if folder.ends_with("source") {
        // Inside of a repository `git apply` passes over files that git does not track.
        command.env("GIT_CEILING_DIRECTORIES", folder.parent().expect("the scratch folder"));
    }
    let output = command.output().map_err(|error| format!("cannot run {program}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program} {}: {text}", arguments.join(" ")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
