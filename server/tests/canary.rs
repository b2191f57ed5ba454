//! Whether one database's bytes reach another's client: some seconds of `myriad bench --scenario canary`,
//! on both Ios. `--tenants 1000 --seconds 600` of the same is for people.

#[path = "process/mod.rs"]
mod process;

use std::time::Duration;

use serde_json::Value;

use process::{IOS, bare_within, folder, number};

/// What is asked rightly, and must have been answered at least once.
const PLAIN: [&str; 9] = [
    "select",
    "insert",
    "batch",
    "cursor",
    "sequence",
    "version 1",
    "dump",
    "stream opened",
    "stream gone on with",
];

/// What is never to be let in, and must have been tried.
const REFUSED: [&str; 7] = [
    "forged baton",
    "replayed baton",
    "swapped baton",
    "dropped database's baton",
    "another's key",
    "dropped database's key",
    "no key",
];

#[test]
fn no_canary_is_seen_elsewhere() {
    let seconds = number("MYRIAD_CANARY_SECONDS", 3);
    // It makes a hundred databases before, and waits for answers after.
    let patience = Duration::from_secs(seconds as u64 + 120);
    let seconds_text = seconds.to_string();
    for io in IOS {
        let data = folder();
        let data = data.path().to_str().expect("a temporary folder's name is text");
        let what = ["bench", "--scenario", "canary", "--json", "--io", io, "--data", data];
        let size = ["--tenants", "120", "--seconds", &seconds_text];
        let ended = bare_within(&[&what[..], &size].concat(), patience);
        assert!(ended.status.success(), "{io}: {}{}", ended.stdout, ended.stderr);
        let report: Value = serde_json::from_str(&ended.stdout).expect("it prints JSON");
        let rows = report["tables"][0]["rows"].as_array().expect("a table");
        let cell = |name: &str, column: &str| -> u64 {
            let row = rows.iter().find(|row| row["requests"] == name);
            let row = row.unwrap_or_else(|| panic!("no {name} in {report:#}"));
            row[column].as_str().and_then(|text| text.parse().ok()).expect("a number")
        };
        for name in PLAIN {
            assert!(cell(name, "200") > 0, "{io}: no {name} is answered: {report:#}");
        }
        for name in REFUSED {
            // Few databases are dropped in seconds while somebody has a stream there.
            let is_rare = name == "dropped database's baton" && seconds < 60;
            let tried = cell(name, "refused");
            assert!(tried > 0 || is_rare, "{io}: no {name} is tried: {report:#}");
            assert_eq!(cell(name, "200"), 0, "{io}: {name}");
        }
        assert!(cell("all", "own canaries") > cell("all", "200"), "{io}: {report:#}");
        assert_eq!(cell("all", "foreign"), 0);
    }
}
