//! Texts of the catalogue's rows: what is read of any text is written as a text that reads the same.

use std::fmt::Debug;

use tenant::budget::{Budget, Usage};
use tenant::settings::Settings;

use super::{Random, Seen, Target};

const WORDS: &[&str] = &[
    "{",
    "}",
    ",",
    ":",
    " ",
    "=",
    "%20",
    "%",
    "\"memory_bytes\":1",
    "\"storage_bytes\":{\"limit\":5}",
    "\"cpu_percent\":50",
    "\"requests_per_second\":10",
    "\"priority\":2",
    "\"rows_read\":1",
    "\"cpu_ns\":18446744073709551615",
    "\"requests\":3",
    "delete_protection=1",
    "block_reads=1",
    "block_writes=0",
    "block_reason=a%20b",
    "tokens_after_s=5",
    "jwt_keys=",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    "expires_s=100",
    "idle_s=100",
    "null",
];

/// See the head of the file.
pub struct Texts;

impl Target for Texts {
    fn invent(&mut self, random: &mut Random) -> Vec<u8> {
        let (requests, cpu_ns) = (random.size(64), random.size(64));
        let numbers = Usage { requests, cpu_ns, ..Usage::default() };
        let text = match random.below(3) {
            0 => numbers.to_text(),
            1 => {
                let words = (0..random.size(3)).map(|_| random.pick(&WORDS[16..26]));
                words.collect::<Vec<&str>>().join(" ")
            }
            _ => {
                let words = (0..random.size(3)).map(|_| random.pick(&WORDS[8..16]));
                format!("{{{}}}", words.collect::<Vec<&str>>().join(","))
            }
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
