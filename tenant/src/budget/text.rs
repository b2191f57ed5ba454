//! Budgets and usage as the catalogue keeps them: one JSON object without spaces, whose values are
//! whole numbers, and one word for a priority.
//!
//! ```text
//! {"memory_bytes":67108864,"priority":"normal"}
//! ```
//!
//! Canonical: only the parts that are there, in their order, so that equal budgets are equal texts.
//! The reader takes exactly what the writer writes. What people write is read by the server, which
//! knows JSON; this crate does not.

use std::fmt::{self, Write as _};

use super::{Budget, Part, Priority, Unit, Usage};

/// Number of counters in a [`Usage`].
pub(super) const COUNTERS: usize = 11;

/// A text that the writer has not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The first entry that is wrong.
    pub entry: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the entry {:?} cannot be read", self.entry)
    }
}

impl From<&str> for Unreadable {
    fn from(entry: &str) -> Unreadable {
        Unreadable { entry: entry.to_owned() }
    }
}

pub(super) fn write_budget(budget: &Budget) -> String {
    let entries = Part::ALL.into_iter().filter_map(|part| Some((part, budget.get(part)?)));
    write_object(entries.map(|(part, number)| (part.name(), word_of(part, number), number)))
}

fn word_of(part: Part, number: u64) -> Option<&'static str> {
    let priority = Priority::ALL.get(usize::try_from(number).ok()?)?;
    (part.unit() == Unit::Priority).then(|| priority.name())
}

pub(super) fn read_budget(text: &str) -> Result<Budget, Unreadable> {
    let mut budget = Budget::default();
    for (entry, name, value) in entries(text)? {
        let part = Part::ALL.into_iter().find(|part| part.name() == name).ok_or(entry)?;
        let number = match part.unit() {
            Unit::Priority => {
                let quoted = |priority: &Priority| value == format!("\"{}\"", priority.name());
                Priority::ALL.iter().position(quoted).map(|place| place as u64)
            }
            _ => number_of(value),
        };
        let number = number.filter(|number| part.range().contains(number)).ok_or(entry)?;
        if budget.get(part).is_some() {
            return Err(entry.into());
        }
        budget.set(part, Some(number));
    }
    Ok(budget)
}

/// Each counter with its name.
pub(super) fn counters(usage: &mut Usage) -> [(&'static str, &mut u64); COUNTERS] {
    let Usage { cost, cpu_ns, io_read_bytes, io_written_bytes, requests, statements, throttled_ns } =
        usage;
    [
        ("vm_steps", &mut cost.vm_steps),
        ("pages_read", &mut cost.pages_read),
        ("pages_written", &mut cost.pages_written),
        ("log_bytes", &mut cost.log_bytes),
        ("result_bytes", &mut cost.result_bytes),
        ("cpu_ns", cpu_ns),
        ("io_read_bytes", io_read_bytes),
        ("io_written_bytes", io_written_bytes),
        ("requests", requests),
        ("statements", statements),
        ("throttled_ns", throttled_ns),
    ]
}

pub(super) fn write_usage(usage: &Usage) -> String {
    let used = usage.counters().into_iter().filter(|&(_, number)| number > 0);
    write_object(used.map(|(name, number)| (name, None, number)))
}

pub(super) fn read_usage(text: &str) -> Result<Usage, Unreadable> {
    let mut usage = Usage::default();
    for (entry, name, value) in entries(text)? {
        let number = number_of(value).ok_or(entry)?;
        let mut all = counters(&mut usage).into_iter();
        let (_, counter) = all.find(|(counter, _)| *counter == name).ok_or(entry)?;
        *counter = number;
    }
    Ok(usage)
}

fn write_object<'a>(entries: impl Iterator<Item = (&'static str, Option<&'a str>, u64)>) -> String {
    let mut text = String::from("{");
    for (name, word, number) in entries {
        let comma = if text.len() > 1 { "," } else { "" };
        let wrote = match word {
            Some(word) => write!(text, "{comma}\"{name}\":\"{word}\""),
            None => write!(text, "{comma}\"{name}\":{number}"),
        };
        wrote.expect("a String takes every write");
    }
    text.push('}');
    text
}

/// The object's entries: each as a whole, its name, and its value as it stands there.
fn entries(text: &str) -> Result<Vec<(&str, &str, &str)>, Unreadable> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or(text)?;
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    let split = |entry| {
        let (name, value) = str::split_once(entry, ':').ok_or(entry)?;
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        Ok((entry, name.ok_or(entry)?, value))
    };
    inner.split(',').map(split).collect()
}

/// Digits without a sign, spaces or leading zeros.
fn number_of(value: &str) -> Option<u64> {
    let number: u64 = value.parse().ok()?;
    (number.to_string() == value).then_some(number)
}

#[cfg(test)]
mod tests {
    use storage::meter::Cost;

    use super::*;

    #[test]
    fn budgets_and_usage_come_back_as_they_were_written() {
        let mut budget = Budget::default();
        assert_eq!(budget.to_text(), "{}");
        assert_eq!(Budget::from_text("{}"), Ok(budget));
        budget.set(Part::MemoryBytes, Some(64 << 20));
        budget.set(Part::Priority, Some(2));
        let text = r#"{"memory_bytes":67108864,"priority":"interactive"}"#;
        assert_eq!(budget.to_text(), text);
        for part in Part::ALL {
            budget.set(part, Some(*part.range().end()));
            assert_eq!(Budget::from_text(&budget.to_text()), Ok(budget), "{part:?}");
            budget.set(part, Some(*part.range().start()));
            assert_eq!(Budget::from_text(&budget.to_text()), Ok(budget), "{part:?}");
        }
        let cost = Cost { log_bytes: 7, ..Cost::default() };
        let usage = Usage { cost, requests: u64::MAX, ..Usage::default() };
        assert_eq!(usage.to_text(), r#"{"log_bytes":7,"requests":18446744073709551615}"#);
        assert_eq!(Usage::from_text(&usage.to_text()), Ok(usage));
    }

    #[test]
    fn other_texts_are_not_read() {
        for text in [
            "",
            "[]",
            "{",
            r#"{"memory_bytes":}"#,
            r#"{"memory_bytes":01}"#,
            r#"{"memory_bytes":-1}"#,
            r#"{"memory_bytes":1}"#,
            r#"{"memory_bytes":67108864,}"#,
            r#"{ "memory_bytes":67108864}"#,
            r#"{"weight":5,"weight":5}"#,
            r#"{"weight":0}"#,
            r#"{"priority":1}"#,
            r#"{"priority":"urgent"}"#,
            r#"{"colour":1}"#,
        ] {
            assert!(Budget::from_text(text).is_err(), "{text}");
        }
        assert!(Usage::from_text(r#"{"weight":1}"#).is_err());
    }
}
