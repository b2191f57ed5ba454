//! The supply chain: what `deny.toml` says of licences, versions and sources, held against the lockfile;
//! and the inventory of `unsafe` in storage's README.
//!
//! A look at what `cargo metadata` says, in a second; `cargo deny` checks the same and more, where it is
//! installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in a workspace").to_owned()
}

/// The platform whose dependencies were fetched: that of the test.
fn platform() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &platform()])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the lockfile is complete and committed: {told}");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    metadata["packages"].as_array().expect("a list").clone()
}

/// The strings of a list in `deny.toml`.
fn listed(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml is there");
    let start = format!("\n{name} = [");
    let (_, rest) = text.split_once(&start).expect("the list is there");
    let (list, _) = rest.split_once(']').expect("it ends");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with these licences.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    // No expression here has an OR within an AND's side that is not in brackets at its start or end.
    expression.split(" AND ").all(|side| {
        side.split(" OR ").any(|licence| allowed.iter().any(|other| other == licence.trim()))
    })
}

#[test]
fn dependencies_keep_to_deny_toml() {
    let (allowed, sources) = (listed("allow"), listed("allow-registry"));
    let packages = packages();
    let mut versions: BTreeMap<&str, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().expect("a name");
        *versions.entry(name).or_default() += 1;
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_met(licence, &allowed) {
            wrong.push(format!("{name}: its licence is {licence}"));
        }
        if let Some(source) = package["source"].as_str() {
            let known = |url: &String| source.strip_prefix("registry+") == Some(url);
            if !sources.iter().any(known) {
                wrong.push(format!("{name} comes from {source}"));
            }
        }
    }
    let skipped = listed("skip");
    for (name, count) in versions {
        match (count > 1, skipped.iter().any(|other| other == name)) {
            (true, false) => wrong.push(format!("there are {count} versions of {name}")),
            (false, true) => wrong.push(format!("{name} has one version: take it from `skip`")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(packages.len() > 50, "{} packages", packages.len());
}

#[test]
fn expressions_are_read() {
    let allowed = ["MIT", "Unicode-3.0"].map(str::to_owned);
    for good in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
        assert!(is_met(good, &allowed), "{good}");
    }
    for bad in ["none", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND GPL-3.0"] {
        assert!(!is_met(bad, &allowed), "{bad}");
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
}

/// Blocks and functions that are `unsafe`, without comments.
fn unsafe_in(text: &str) -> (usize, usize) {
    let code = || text.lines().map(|line| line.split("//").next().unwrap_or(line));
    let count = |word: &str| code().map(|line| line.matches(word).count()).sum::<usize>();
    (count("unsafe {"), count("unsafe fn") + count("unsafe extern") + count("unsafe impl"))
}

/// `storage/README.md` says in which files how much is `unsafe`; nowhere else anything is.
#[test]
fn the_inventory_of_unsafe_is_true() {
    let root = root();
    let readme = std::fs::read_to_string(root.join("storage/README.md")).expect("it is there");
    let mut found = Vec::new();
    for part in ["storage", "tenant", "server", "simulator"] {
        sources(&root.join(part).join("src"), &mut found);
    }
    let (mut expected, mut blocks_sum) = (Vec::new(), 0);
    for path in &found {
        let text = std::fs::read_to_string(path).expect("a source");
        let (blocks, items) = unsafe_in(&text);
        if blocks + items == 0 {
            continue;
        }
        let name = path.strip_prefix(&root).expect("below").display().to_string();
        let name = name.strip_prefix("storage/src/").map(str::to_owned);
        let name =
            name.unwrap_or_else(|| panic!("{} is unsafe, outside of storage", path.display()));
        blocks_sum += blocks;
        expected.push(format!("| `{name}` | {blocks} | {items} |"));
    }
    expected.sort_unstable();
    let (_, inventory) = readme.split_once("| file | blocks | functions |").expect("an inventory");
    let rows = inventory.lines().skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<&str> = rows.map(str::trim_end).collect();
    assert_eq!(rows, expected, "the inventory should say:\n{}", expected.join("\n"));
    println!("{blocks_sum} unsafe blocks in {} files", expected.len());
}
