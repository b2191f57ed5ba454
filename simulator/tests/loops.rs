//! Every fault of every short script, one after the other: see `simulator::loops`.
//!
//! By default a part of each loop is run, about a minute in all; `MYRIAD_SEED` chooses which, so that
//! each commit tries others. `MYRIAD_LOOPS=all` runs all of them, `MYRIAD_LOOPS=script` or
//! `MYRIAD_LOOPS=script:kind` all of one, and `MYRIAD_LOOPS=script:kind:n` or
//! `MYRIAD_LOOPS=script:kind:n:forever` one run.

use std::collections::BTreeMap;
use std::time::Instant;

use simulator::loops::{Lengths, LoopKind, Run, SCRIPTS, Script, measure, run};

/// Runs of one loop by default: of a short script, and of one with more than [`LONG_EVENTS`].
const RUNS_PER_LOOP: [u64; 2] = [4, 1];
const LONG_EVENTS: u64 = 400;

/// The world's seed of all runs: scripts, not seeds, make the difference.
const WORLD_SEED: u64 = 7;

/// A fault changes what comes after it, so that a loop may be longer than the script was: twice as
/// long and so many faults more, then it ends even if each one fails.
const BEYOND_LENGTH: u64 = 50;

/// Failures that a report shows.
const FAILURES_SHOWN_MAX: usize = 40;

/// What is to be run.
struct Choice {
    words: Vec<String>,
    all: bool,
    seed: u64,
}

impl Choice {
    fn read() -> Choice {
        let text = std::env::var("MYRIAD_LOOPS").unwrap_or_default();
        let words: Vec<String> = text.split(':').map(str::to_owned).collect();
        let all = !text.is_empty();
        let words = if text.is_empty() || text == "all" { Vec::new() } else { words };
        let seed = std::env::var("MYRIAD_SEED").ok().and_then(|text| text.parse().ok());
        Choice { words, all, seed: seed.unwrap_or(1) }
    }

    fn has(&self, index: usize, text: &str) -> bool {
        self.words.get(index).is_none_or(|word| word == text)
    }

    /// Which faults of a loop of this length to try: the first one, and each how manieth.
    fn steps(&self, length: u64, events: u64, salt: u64) -> (u64, u64) {
        if let Some(nth) = self.words.get(2) {
            return (nth.parse().expect("the third word is a number"), u64::MAX / 2);
        }
        if self.all {
            return (1, 1);
        }
        let runs = RUNS_PER_LOOP[usize::from(events > LONG_EVENTS)];
        let step = (length / runs).max(1);
        (1 + (self.seed + salt) % step, step)
    }
}

/// Counts of a cell of the table.
#[derive(Default)]
struct Cell {
    runs: u64,
    ended: u64,
    fenced: u64,
}

impl Cell {
    fn add(&mut self, run: Run) {
        self.runs += 1;
        self.ended += u64::from(run.ended);
        self.fenced += u64::from(run.fenced);
    }

    fn show(&self) -> String {
        match (self.ended, self.fenced) {
            (0, 0) => format!("{}", self.runs),
            (ended, 0) => format!("{}/{ended}", self.runs),
            (ended, fenced) => format!("{}/{ended}/{fenced}", self.runs),
        }
    }
}

fn go_through(
    script: &Script,
    kind: LoopKind,
    lengths: &Lengths,
    choice: &Choice,
    failures: &mut Vec<String>,
) -> Cell {
    let mut cell = Cell::default();
    let length = lengths.of(kind);
    for forever in [false, true] {
        let chosen = choice.words.len() <= 3 || forever == (choice.words[3] == "forever");
        if !chosen || forever && !kind.may_stay() {
            continue;
        }
        let (mut nth, step) = {
            let salt = kind_number(kind) + u64::from(forever);
            choice.steps(length, lengths.events(), salt)
        };
        loop {
            let stays = if forever { ":forever" } else { "" };
            let name = format!("{}:{kind}:{nth}{stays}", script.name);
            if choice.words.len() > 2 {
                println!("{name}");
            }
            match run(script, WORLD_SEED, kind.fault(nth, forever)) {
                Ok(run) if !run.struck => break,
                Ok(run) => cell.add(run),
                Err(violation) => {
                    cell.runs += 1;
                    println!("{name}: {} {}", violation.property, violation.detail);
                    failures.push(format!("{name}: {} {}", violation.property, violation.detail));
                }
            }
            nth += step;
            if nth > 2 * length + BEYOND_LENGTH {
                break;
            }
        }
    }
    cell
}

fn kind_number(kind: LoopKind) -> u64 {
    LoopKind::all().position(|other| other == kind).expect("one of all") as u64
}

#[test]
fn every_fault_is_survived() {
    let choice = Choice::read();
    let begun = Instant::now();
    let mut failures = Vec::new();
    let mut table: BTreeMap<(usize, LoopKind), Cell> = BTreeMap::new();
    for (index, script) in SCRIPTS.iter().enumerate() {
        if !choice.has(0, script.name) {
            continue;
        }
        let lengths = match measure(script, WORLD_SEED) {
            Ok(lengths) => lengths,
            Err(violation) => {
                failures.push(format!("{} without a fault: {violation:?}", script.name));
                continue;
            }
        };
        for kind in LoopKind::all().filter(|kind| choice.has(1, &kind.to_string())) {
            let cell = go_through(script, kind, &lengths, &choice, &mut failures);
            table.insert((index, kind), cell);
        }
        let (events, seconds) = (lengths.events(), begun.elapsed().as_secs_f64());
        println!("{}: {events} events, done after {seconds:.1} s", script.name);
    }
    print_table(&table);
    let runs: u64 = table.values().map(|cell| cell.runs).sum();
    println!("{runs} runs in {:.1} s", begun.elapsed().as_secs_f64());
    let shown = failures[..failures.len().min(FAILURES_SHOWN_MAX)].join("\n");
    assert!(failures.is_empty(), "{} failures\n{shown}", failures.len());
    assert!(runs > 0, "nothing was run: is there such a script and kind?");
}

/// Runs that the fault struck / of those, the process ended / and a tenant was fenced.
fn print_table(table: &BTreeMap<(usize, LoopKind), Cell>) {
    print!("{:>14}", "runs/ends/fences");
    for kind in LoopKind::all() {
        print!(" {kind:>10}");
    }
    println!();
    for (index, script) in SCRIPTS.iter().enumerate() {
        if !table.keys().any(|key| key.0 == index) {
            continue;
        }
        print!("{:>16}", script.name);
        for kind in LoopKind::all() {
            let text = table.get(&(index, kind)).map_or_else(String::new, Cell::show);
            print!(" {text:>10}");
        }
        println!();
    }
}
