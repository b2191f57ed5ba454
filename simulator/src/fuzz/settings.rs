//! Texts of the catalogue's rows: what is read of any text is written as a text that reads the same.

use std::fmt::Debug;

use tenant::budget::{Budget, Part, Usage};
use tenant::settings::Settings;

use super::{Random, Seen, Target};

/// Entries of settings, in the order in which they are written.
const SETTINGS: &[&str] = &[
    "delete_protection=1",
    "block_reads=1",
    "block_writes=1",
    "block_reason=a%20b",
    "tokens_after_s=5",
    "jwt_keys=3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    "template=a.7",
    "ttl_s=100",
    "idle_ttl_s=100",
    "max_spend=7",
    "max_statements=7",
    "on_end=1",
    "class=1",
    "on_missing=1",
];

const WORDS: &[&str] = &[
    "{",
    "}",
    ",",
    ":",
    " ",
    "=",
    "%20",
    "%",
    ".",
    "null",
    "\"memory_bytes\":67108864",
    "\"weight\":5",
    "\"priority\":\"normal\"",
    "\"cpu_ns\":18446744073709551615",
    "\"requests\":3",
    "\"vm_steps\":1",
    "block_writes=0",
    "jwt_keys=",
    "ttl_s=18446744073709551615",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "template=a.0",
];

/// See the head of the file.
pub struct Texts;

impl Target for Texts {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let text = match random.below(3) {
            0 => usage(random).to_text(),
            1 => {
                let some = SETTINGS.iter().filter(|_| random.one_in(3));
                some.copied().collect::<Vec<&str>>().join(" ")
            }
            _ => budget(random).to_text(),
        };
        text.into_bytes()
    }

    fn words(&self) -> &'static [&'static str] {
        WORDS
    }

    fn run(&mut self, input: &[u8], seen: &mut Seen) -> Result<(), String> {
        let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
        again("budget", Budget::from_text(text), Budget::to_text, Budget::from_text, seen)?;
        again("usage", Usage::from_text(text), Usage::to_text, Usage::from_text, seen)?;
        again("settings", Settings::from_text(text), Settings::to_text, Settings::from_text, seen)
    }
}

fn usage(random: &mut Random) -> Usage {
    let mut number = || if random.one_in(2) { 0 } else { random.size(64) };
    Usage {
        requests: number(),
        cpu_ns: number(),
        statements: number(),
        io_written_bytes: number(),
        ..Usage::default()
    }
}

fn budget(random: &mut Random) -> Budget {
    let mut budget = Budget::default();
    for part in Part::ALL {
        let (least, most) = part.range().into_inner();
        if random.one_in(4) {
            budget.set(part, Some(random.size(64).clamp(least, most)));
        }
    }
    budget
}

fn again<T: Debug + PartialEq, E: Debug>(
    what: &str,
    read: Result<T, E>,
    write: impl Fn(&T) -> String,
    reread: impl Fn(&str) -> Result<T, E>,
    seen: &mut Seen,
) -> Result<(), String> {
    let Ok(value) = read else {
        seen.note(what);
        return Ok(());
    };
    let text = write(&value);
    seen.count(what, text.split([' ', ',']).count());
    match reread(&text) {
        Ok(other) if other == value && write(&other) == text => Ok(()),
        other => Err(format!("{what} {value:?} is written as {text} and read as {other:?}")),
    }
}
