//! `simulator replay`: what a swarm's log says failed, once more, with what came last.
//!
//! `run` makes one world from its arguments. `replay` reads whatever stands in a log: a failing
//! seed's line (`seed=… hash=… profile=…`), a command (`simulator run …`), or a bare seed. It runs
//! each of them twice, prints the last lines of the trace, and says whether the seed still fails,
//! and whether it takes the very course that the log's hash tells of.

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use super::child::{self, Report};

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  simulator replay 42
  simulator replay 'seed=42 commit=… hash=00c0ffee00c0ffee profile=swarm events=… FAIL:…'
  simulator swarm --seconds 60 2>&1 | simulator replay
  simulator replay --file swarm.log --tail 100";

#[derive(Debug, clap::Args)]
pub struct Replay {
    /// Seeds, failing lines or commands; without any, they are read from the standard input.
    lines: Vec<String>,
    /// Read them from this file.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Lines of the trace to print before the end of each.
    #[arg(long, default_value_t = 40)]
    tail: usize,
}

/// A world named in a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    arguments: Vec<String>,
    /// The trace hash that it had, if the log says.
    hash: Option<String>,
}

/// Run all that the lines name.
pub fn run(replay: &Replay) -> Result<bool, String> {
    let worlds = worlds(&lines(replay)?);
    if worlds.is_empty() {
        return Err("nothing to replay: no line names a seed".to_owned());
    }
    let program = child::this_program()?;
    let mut failed = 0;
    for world in &worlds {
        let mut arguments = world.arguments.clone();
        arguments.extend(["--twice".into(), "--tail".into(), replay.tail.to_string()]);
        let report = child::run(&program, &arguments)?;
        println!("== simulator run {}", world.arguments.join(" "));
        print!("{}", report.text);
        println!("-- {}\n", verdict(world, &report));
        failed += usize::from(report.property.is_some());
    }
    println!("{failed} of {} fail", worlds.len());
    Ok(failed == 0)
}

fn verdict(world: &Named, report: &Report) -> String {
    let verdict = match &report.property {
        Some(property) => format!("it fails with {property}"),
        None => "it passes".to_owned(),
    };
    let course = match &world.hash {
        Some(hash) if *hash == report.hash => "; the same course as in the log",
        Some(_) if !report.hash.is_empty() => "; not the course of the log: the code has changed",
        _ => "",
    };
    format!("{verdict}{course}")
}

fn lines(replay: &Replay) -> Result<Vec<String>, String> {
    if let Some(path) = &replay.file {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        return Ok(text.lines().map(str::to_owned).collect());
    }
    if !replay.lines.is_empty() {
        return Ok(replay.lines.clone());
    }
    let input = std::io::stdin();
    if input.is_terminal() {
        return Err("give seeds or lines, or pipe a log into it".to_owned());
    }
    let lines: std::io::Result<Vec<String>> = input.lock().lines().collect();
    lines.map_err(|error| format!("cannot read the standard input: {error}"))
}

/// The worlds that the lines name, each once, in the order of their first mention. A line with the
/// verdict PASS names none.
fn worlds(lines: &[String]) -> Vec<Named> {
    let mut seen = BTreeSet::new();
    let named = lines.iter().filter_map(|line| named(line));
    named.filter(|world| seen.insert(world.arguments.clone())).collect()
}

fn named(line: &str) -> Option<Named> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if let [seed] = words[..]
        && seed.parse::<u64>().is_ok()
    {
        return Some(Named { arguments: vec![seed.to_owned()], hash: None });
    }
    if words.contains(&"PASS") {
        return None;
    }
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let after = |name: &str| {
        let at = words.iter().position(|word| *word == name)?;
        words.get(at + 1).copied()
    };
    let seed = value("seed=").or_else(|| after("run")).filter(|seed| seed.parse::<u64>().is_ok());
    let mut arguments = vec![seed?.to_owned()];
    if let Some(profile) = value("profile=").or_else(|| after("--profile")) {
        arguments.extend(["--profile".to_owned(), profile.to_owned()]);
    }
    for pair in words.windows(2).filter(|pair| pair[0] == "--set") {
        arguments.extend(["--set".to_owned(), pair[1].to_owned()]);
    }
    Some(Named { arguments, hash: value("hash=").map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, arguments: &str, hash: Option<&str>) {
        let named = named(line).expect("a world");
        assert_eq!(named.arguments.join(" "), arguments);
        assert_eq!(named.hash.as_deref(), hash);
    }

    #[test]
    fn lines_of_a_log_name_worlds() {
        check("42", "42", None);
        let line = "seed=7 commit=unknown hash=00ff profile=calm --set a=1 events=5 FAIL:DUR-1 x";
        check(line, "7 --profile calm --set a=1", Some("00ff"));
        check("  again: simulator run 9 --profile drawn --twice", "9 --profile drawn", None);
        assert_eq!(named("seed=7 commit=unknown hash=00ff profile=calm events=5 PASS"), None);
        assert_eq!(named("8 seeds, 1 of them twice, 0 failed"), None);
        assert_eq!(named(""), None);
    }

    #[test]
    fn a_world_is_run_once() {
        let lines = ["3", "simulator run 3", "simulator run 3 --profile calm"];
        assert_eq!(worlds(&lines.map(str::to_owned)).len(), 2);
    }
}
