//! Each fuzzer for a moment, and every input that ever failed.
//!
//! `MYRIAD_SEED` chooses the inputs, so that each commit tries others. Long runs: `simulator fuzz`.
//! `tests/found/TARGET/…` holds inputs that failed, each named after what was wrong.

use std::path::Path;

use simulator::fuzz::{Fuzzer, TARGETS, find};

fn seed() -> u64 {
    std::env::var("MYRIAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A moment with one target; it must find its way to more than one behaviour.
fn smoke(name: &str) {
    let entry = find(name).expect("it is in the table");
    let mut fuzzer = Fuzzer::new(entry, seed());
    for _ in 0..entry.smoke_runs {
        fuzzer.next_input();
        if let Err(failure) = fuzzer.run() {
            panic!("{name}: {}\ninput: {:?}", failure.reason, failure.input);
        }
    }
    println!("{name}: {} behaviours in {} runs", fuzzer.behaviours(), fuzzer.executions);
    assert!(fuzzer.behaviours() > 1, "an oracle that sees one thing sees nothing");
}

macro_rules! smoke_tests {
    ($($function:ident: $name:literal,)*) => {
        $(#[test] fn $function() { smoke($name) })*

        #[test]
        fn every_target_has_its_smoke_test() {
            let tested = [$($name),*];
            let all: Vec<&str> = TARGETS.iter().map(|entry| entry.name).collect();
            assert_eq!(all, tested);
        }
    };
}

smoke_tests! {
    http_heads: "http-head",
    http_bodies: "http-body",
    hrana_bodies: "hrana",
    tokens: "token",
    log_batches: "log-batch",
    pages: "page",
    settings_texts: "settings",
    split_dumps: "splitter",
    recoveries: "recovery",
    catalogues: "catalogue",
    imports: "import",
}

/// The same seed runs the same inputs.
#[test]
fn a_seed_is_a_course() {
    let course = |_| {
        let mut fuzzer = Fuzzer::new(find("hrana").expect("it is in the table"), 5);
        let mut inputs = Vec::new();
        for _ in 0..300 {
            inputs.push(fuzzer.next_input().to_vec());
            fuzzer.run().expect("a short course without failures");
        }
        (inputs, fuzzer.behaviours())
    };
    // Marks are reached once a thread: each course on a thread of its own.
    let courses = [0, 1].map(|number| {
        std::thread::spawn(move || course(number)).join().expect("it does not panic")
    });
    assert_eq!(courses[0], courses[1]);
}

/// What found something once finds nothing any more.
#[test]
fn nothing_found_comes_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/found");
    let mut replayed = 0;
    for entry in TARGETS {
        let Ok(files) = std::fs::read_dir(folder.join(entry.name)) else { continue };
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.sort_unstable();
        let mut fuzzer = Fuzzer::new(entry, 0);
        for path in paths {
            let input = std::fs::read(&path).expect("it can be read");
            if let Err(reason) = fuzzer.replay(&input) {
                panic!("{}: {reason}", path.display());
            }
            replayed += 1;
        }
    }
    println!("{replayed} inputs replayed");
}
