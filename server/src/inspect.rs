//! `myriad inspect`: the formats on disk, printed for a person. Reads files, changes nothing.

use std::fs;
use std::io::Write;
use std::path::Path;

use storage::TenantId;
use storage::io::BLOCK_BYTES;
use storage::log::describe_batch;
use storage::page::{PAGE_BYTES, verify_tail};

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Print; a reader that has gone (`| head`) ends it quietly.
fn print(text: &str) -> Result<(), String> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("cannot print: {error}"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Print every batch in the segments of a log.
///
/// # Errors
/// A sentence if a file cannot be read or there is no log.
pub fn log(path: &Path) -> Result<(), String> {
    let inner = path.join("log");
    let folder = if inner.is_dir() { inner.as_path() } else { path };
    let entries = fs::read_dir(folder)
        .map_err(|error| format!("cannot read the folder {}: {error}", folder.display()))?;
    let mut segments: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("segment-"))
        })
        .collect();
    segments.sort();
    if segments.is_empty() {
        return Err(format!("there is no segment of a commit log in {}", folder.display()));
    }
    for segment in segments {
        let bytes = read(&segment)?;
        print(&format!("{} ({} bytes)", segment.display(), bytes.len()))?;
        let mut batches = 0;
        for (index, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            // A header starts with bytes that no SQLite page starts with.
            if !block.starts_with(&[0xff; 4]) {
                continue;
            }
            batches += 1;
            let text = describe_batch(&bytes[index * BLOCK_BYTES..]);
            print(&format!("  at {}:", index * BLOCK_BYTES))?;
            for line in text.lines() {
                print(&format!("    {line}"))?;
            }
        }
        print(&format!("  {batches} batch headers"))?;
    }
    Ok(())
}

/// Check every page of a tenant's file and print what is known of it.
///
/// # Errors
/// A sentence if the file cannot be read or its name is no tenant's.
pub fn tenant(path: &Path) -> Result<(), String> {
    let id = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .and_then(|stem| stem.parse().ok())
        .map(TenantId)
        .ok_or("the file's name must be <tenant id>.db: pages are checked with the id")?;
    let bytes = read(path)?;
    let word = |at: usize| {
        bytes
            .get(at..at + 4)
            .map_or(0, |word| u32::from_be_bytes(word.try_into().expect("four bytes")))
    };
    print(&format!(
        "tenant {}: {} pages of {PAGE_BYTES} bytes, {} bytes left over\n\
         database header: {} pages, schema cookie {}, user version {}, reserved bytes {}",
        id.0,
        bytes.len() / PAGE_BYTES,
        bytes.len() % PAGE_BYTES,
        word(28),
        word(40),
        word(60),
        bytes.get(20).copied().unwrap_or(0),
    ))?;
    let (mut damaged, mut newest, mut oldest) = (0, 0, u64::MAX);
    for (number, page) in (1..).zip(bytes.chunks_exact(PAGE_BYTES)) {
        match verify_tail(id, number, page) {
            Some(stamp) => {
                newest = newest.max(stamp);
                oldest = oldest.min(stamp);
                if number == 1 {
                    print(&format!("page 1 carries the stamp of transaction {stamp}"))?;
                }
            }
            None => {
                damaged += 1;
                print(&format!("page {number} is damaged: its tail does not match"))?;
            }
        }
    }
    if newest > 0 {
        print(&format!("stamps from {oldest} to {newest}"))?;
    }
    print(&format!("{damaged} damaged pages"))?;
    if damaged > 0 { Err(format!("{damaged} pages are damaged")) } else { Ok(()) }
}
