//! The corpora's archives: finding, unpacking, reading.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Unpack `<name>.tar.xz` of the folder that `MYRIAD_CORPORA` names, unless it was before; `None`,
/// and a line that says so, where the variable is not set.
pub fn unpack(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("MYRIAD_CORPORA") else {
        println!("skipped: MYRIAD_CORPORA does not name the folder of {name}.tar.xz");
        return None;
    };
    let archive = Path::new(&folder).join(format!("{name}.tar.xz"));
    let bytes = fs::metadata(&archive)
        .unwrap_or_else(|error| panic!("{}: {error}", archive.display()))
        .len();
    // Another archive of the same name has another length: it is not mistaken for this one.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{bytes}"));
    if !target.exists() {
        let partial = target.with_extension(std::process::id().to_string());
        fs::create_dir_all(&partial).expect("the target folder takes folders");
        let status = Command::new("tar")
            .arg("-xJf")
            .arg(&archive)
            .arg("-C")
            .arg(&partial)
            .status()
            .expect("tar runs");
        assert!(status.success(), "tar: {status}");
        fs::rename(&partial, &target).expect("nobody else unpacked it");
    }
    Some(target)
}

/// Every how manieth script is run: all, unless `MYRIAD_CORPORA_EVERY` says otherwise.
pub fn every() -> usize {
    number("MYRIAD_CORPORA_EVERY", 1)
}

/// The number from 1 in an environment variable, or `default` where it is not set.
pub fn number(variable: &str, default: usize) -> usize {
    let Ok(text) = std::env::var(variable) else { return default };
    let number = text.parse().ok().filter(|&number| number > 0);
    number.unwrap_or_else(|| panic!("{variable} is a number from 1"))
}

/// Every `every`th file with this extension below `folder`, from the `first`th on (modulo `every`),
/// with its name; large ones first, so that none of them is left for the end.
pub fn read_scripts(
    folder: &Path,
    extension: &str,
    every: usize,
    first: usize,
) -> Vec<(String, Vec<u8>)> {
    let mut paths = Vec::new();
    collect(folder, extension, &mut paths);
    paths.sort();
    let mut scripts: Vec<_> = paths
        .iter()
        .skip(first % every.min(paths.len()))
        .step_by(every)
        .map(|path| {
            let name = path.strip_prefix(folder).expect("found below it");
            (name.display().to_string(), fs::read(path).expect("a readable script"))
        })
        .collect();
    assert!(!scripts.is_empty(), "no script in {}", folder.display());
    scripts.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.len()));
    scripts
}

fn collect(folder: &Path, extension: &str, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, extension, paths);
        } else if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
}
