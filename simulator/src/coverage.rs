//! What a batch of seeds must have reached: every kind of fault, and the places in the server that
//! are marked with `sometimes!`. A fault that never strikes, or a path that no fault leads to, would
//! let all other checks pass for nothing.
//!
//! The list of marks is this file's; a test compares it with the sources, both ways. `seeds` says
//! how many seeds of mixed profiles reach a mark for sure: some three times the mean distance that
//! was measured. A smaller batch is not held to it.

use std::collections::BTreeMap;

use crate::faults::FaultKind;

/// A place in the server, marked with `sometimes!`.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Its text in the source.
    pub text: &'static str,
    /// A batch of so many seeds must reach it.
    pub seeds: u64,
}

const fn mark(text: &'static str, seeds: u64) -> Mark {
    Mark { text, seeds }
}

/// All marks, by what they are about.
pub const MARKS: &[Mark] = &[];

/// Kinds of faults that not every batch of [`FAULT_SEEDS`] meets, and how many seeds do.
const RARE_FAULTS: &[(FaultKind, u64)] = &[];

/// A batch of so many seeds must meet every kind of fault that is not rare.
const FAULT_SEEDS: u64 = 300;

/// What a batch of `seeds` has missed, or reached without being expected to: a sentence each.
#[must_use]
pub fn missing(
    seeds: u64,
    marks: &BTreeMap<String, u64>,
    struck: impl Fn(FaultKind) -> u64,
) -> Vec<String> {
    let mut lines = Vec::new();
    for kind in FaultKind::ALL {
        let rare = RARE_FAULTS.iter().find(|(rare, _)| rare == kind);
        let expected = rare.map_or(FAULT_SEEDS, |(_, seeds)| *seeds);
        if seeds >= expected && struck(*kind) == 0 {
            lines.push(format!("no seed met the fault {kind}"));
        }
    }
    for mark in MARKS {
        if seeds >= mark.seeds && !marks.contains_key(mark.text) {
            lines.push(format!("no seed reached: {}", mark.text));
        }
    }
    for text in marks.keys() {
        if !MARKS.iter().any(|mark| mark.text == text) {
            lines.push(format!("a mark that simulator/src/coverage.rs does not know: {text}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The texts of all `sometimes!` in the sources below `folder`.
    fn marks_below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                marks_below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("storage/src/sometimes.rs")
            {
                let source = std::fs::read_to_string(&path).expect("a source");
                let uses = source.split("sometimes!(").skip(1);
                let texts = uses.filter_map(|rest| rest.trim_start().strip_prefix('"'));
                found.extend(texts.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }

    #[test]
    fn the_list_is_the_sources() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
        let mut found = BTreeSet::new();
        for part in ["storage/src", "tenant/src", "server/src"] {
            marks_below(&root.join(part), &mut found);
        }
        let listed: BTreeSet<String> = MARKS.iter().map(|mark| mark.text.to_owned()).collect();
        assert_eq!(found, listed);
        assert_eq!(listed.len(), MARKS.len(), "a mark is listed once");
    }

    #[test]
    fn what_is_missing_and_what_is_unknown_is_said() {
        let mut marks: BTreeMap<String, u64> =
            MARKS.iter().map(|mark| (mark.text.to_owned(), 1)).collect();
        assert!(missing(u64::MAX, &marks, |_| 1).is_empty());
        let unmet = |kind| u64::from(kind != FaultKind::Kill);
        assert_eq!(missing(u64::MAX, &marks, unmet), ["no seed met the fault kill"]);
        assert!(missing(1, &marks, |_| 0).is_empty());
        marks.insert("nobody knows this".to_owned(), 1);
        assert_eq!(missing(1, &marks, |_| 0).len(), 1);
    }
}
