//! The list of what differs from plain SQLite on purpose.
//!
//! `differences.txt` holds blocks: lines that start with `#` say why, then come the entries.
//!
//! - `skip | SQL` not run at all: its result is not the same twice.
//! - `refused | code | message | SQL` the server refuses with this code and message; plain SQLite is
//!   not asked, so that both databases stay the same.
//! - `rows | SQL` both run it and both succeed or both fail; what they give may differ.
//!
//! Code, message and SQL are patterns: `*` stands for any text, case does not count, white space
//! in the SQL is one blank.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::outcome::Failure;

enum Kind {
    Skip,
    Refused { code: String, message: String },
    Rows,
}

struct Entry {
    line: &'static str,
    kind: Kind,
    sql: String,
    used: AtomicUsize,
}

/// The list.
pub struct Differences {
    entries: Vec<Entry>,
}

impl Differences {
    /// The list in the repository.
    ///
    /// # Panics
    /// If a line is not an entry, or an entry has no reason.
    pub fn read() -> Differences {
        let mut explained = false;
        let mut entries = Vec::new();
        for line in include_str!("differences.txt").lines() {
            if line.trim().is_empty() {
                explained = false;
            } else if line.starts_with('#') {
                explained = true;
            } else {
                assert!(explained, "no reason is given for: {line}");
                entries.push(entry(line));
            }
        }
        Differences { entries }
    }

    /// It is not run.
    pub fn skips(&self, sql: &str) -> bool {
        self.find(sql, |kind| matches!(kind, Kind::Skip))
    }

    /// The server may refuse it so.
    pub fn refuses(&self, sql: &str, failure: &Failure) -> bool {
        self.find(sql, |kind| match kind {
            Kind::Refused { code, message } => {
                matches(code, &failure.code) && matches(message, &failure.message)
            }
            Kind::Skip | Kind::Rows => false,
        })
    }

    /// It may give other rows.
    pub fn allows_other_rows(&self, sql: &str) -> bool {
        self.find(sql, |kind| matches!(kind, Kind::Rows))
    }

    fn find(&self, sql: &str, fits: impl Fn(&Kind) -> bool) -> bool {
        let mut flat = None;
        let found = self.entries.iter().find(|entry| {
            fits(&entry.kind) && matches(&entry.sql, flat.get_or_insert_with(|| flatten(sql)))
        });
        found.is_some_and(|entry| entry.used.fetch_add(1, Ordering::Relaxed) < usize::MAX)
    }

    /// Print how often each entry was needed.
    pub fn print_use(&self) {
        for entry in &self.entries {
            println!("{:>7} times {}", entry.used.load(Ordering::Relaxed), entry.line);
        }
    }
}

fn entry(line: &'static str) -> Entry {
    let fields: Vec<_> = line.split(" | ").map(|field| field.trim().to_owned()).collect();
    let (kind, sql) = match fields.as_slice() {
        [kind, sql] if kind == "skip" => (Kind::Skip, sql),
        [kind, sql] if kind == "rows" => (Kind::Rows, sql),
        [kind, code, message, sql] if kind == "refused" => {
            (Kind::Refused { code: code.clone(), message: message.clone() }, sql)
        }
        _ => panic!("not an entry: {line}"),
    };
    Entry { line, kind, sql: sql.clone(), used: AtomicUsize::new(0) }
}

/// White space made one blank, without comments in front.
fn flatten(sql: &str) -> String {
    let mut rest = sql.trim_start();
    loop {
        let after = if rest.starts_with("--") {
            rest.split_once('\n').map(|(_, after)| after)
        } else if rest.starts_with("/*") {
            rest.split_once("*/").map(|(_, after)| after)
        } else {
            break;
        };
        rest = after.unwrap_or("").trim_start();
    }
    rest.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `text` is as `pattern` says.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    unreachable!("the last part returns")
}

#[test]
fn patterns() {
    for (pattern, text, expected) in [
        ("a", "A", true),
        ("a", "ab", false),
        ("a*", "ab", true),
        ("*b", "ab", true),
        ("a*b*c", "a-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("a*a", "a", false),
        ("*", "", true),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
    assert_eq!(flatten(" -- why\n/* b */  SELECT\n\t1 "), "SELECT 1");
}
