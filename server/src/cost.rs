//! Costs on the wire: the receipt that every answer carries, the limit that a request may set, and how
//! urgent it is.
//!
//! ```text
//! x-myriad-cost: ru=0.001234; vm_steps=14; pages_read=3; pages_written=0; log_bytes=0; result_bytes=40
//! x-myriad-max-cost: 0.5
//! x-myriad-max-cost: vm_steps=100000; result_bytes=1000000
//! x-myriad-priority: background
//! ```
//!
//! The receipt depends on the database's state, the SQL and its parameters only (`storage::meter`). A
//! statement's own costs stand in its result as `"cost":{"ru":0.001234,"vm_steps":14,…}`.
//!
//! A limit holds for all statements of its request together. It is looked at each 100 steps of a
//! statement, before a commit, and before each statement; who is beyond it is stopped there.
//!
//! A priority is `background`, `normal` or `interactive`. It rises no higher than the database's own,
//! which holds where none is said, and decides only whose turn is next: never what is answered.

use tenant::budget::Priority;
use tenant::{Ceiling, Cost, PRICES, request_units_micro};

use crate::hrana::encode;
use crate::problem::Problem;

/// Digits of a number in a limit: 18 always fit into 64 bits, and nobody pays more.
const DIGITS_MAX: usize = 18;
/// Digits after the point of a number of request units.
const FRACTION_DIGITS: usize = 6;
/// Parts of a request unit that are counted.
const MICRO: u64 = 10u64.pow(FRACTION_DIGITS as u32);

/// What stands before each part's number, in the order of `storage::meter::PART_NAMES`.
const IN_HEADER: [&str; 5] =
    ["; vm_steps=", "; pages_read=", "; pages_written=", "; log_bytes=", "; result_bytes="];
const IN_JSON: [&str; 5] = [
    ",\"vm_steps\":",
    ",\"pages_read\":",
    ",\"pages_written\":",
    ",\"log_bytes\":",
    ",\"result_bytes\":",
];

/// Append the receipt's header line.
pub fn write_header(out: &mut Vec<u8>, cost: &Cost) {
    out.extend_from_slice(b"x-myriad-cost: ru=");
    request_units(out, cost);
    for (name, part) in IN_HEADER.iter().zip(cost.parts()) {
        out.extend_from_slice(name.as_bytes());
        encode::integer(out, part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Append `"cost":{…}`.
pub fn write_json(out: &mut Vec<u8>, cost: &Cost) {
    out.extend_from_slice(b"\"cost\":{\"ru\":");
    request_units(out, cost);
    for (name, part) in IN_JSON.iter().zip(cost.parts()) {
        out.extend_from_slice(name.as_bytes());
        encode::integer(out, part);
    }
    out.push(b'}');
}

fn request_units(out: &mut Vec<u8>, cost: &Cost) {
    let micro = request_units_micro(cost);
    encode::integer(out, micro / MICRO);
    let mut digits = [b'.'; 1 + FRACTION_DIGITS];
    // Less than a million: divided faster than 64 bits.
    let mut rest = (micro % MICRO) as u32;
    for digit in digits[1..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
}

/// The limit that the header's value sets.
///
/// # Errors
/// 400 if it is not understood: to run without the limit would be worse.
pub fn parse_limit(text: &str) -> Result<Ceiling, Problem> {
    let mut ceiling = Ceiling { prices: PRICES, ..Ceiling::NONE };
    for item in text.split([';', ',']).map(str::trim) {
        let (name, value) = item.split_once('=').unwrap_or(("ru", item));
        let (name, value) = (name.trim(), value.trim());
        if name == "ru" {
            ceiling.price = micro_units(value).ok_or_else(invalid)?;
            continue;
        }
        let part = storage::meter::PART_NAMES.iter().position(|known| *known == name);
        ceiling.parts[part.ok_or_else(invalid)?] = number(value).ok_or_else(invalid)?;
    }
    Ok(ceiling)
}

/// The priority that the header's value asks for.
///
/// # Errors
/// 400 if it is none: work that was to be out of the way would stand in it.
pub fn parse_priority(text: &str) -> Result<Priority, Problem> {
    let text = text.trim();
    let known = Priority::ALL.into_iter().find(|priority| priority.name() == text);
    known.ok_or_else(|| {
        Problem::new(
            400,
            "PRIORITY_INVALID",
            "x-myriad-priority is one of background, normal and interactive",
        )
    })
}

fn number(digits: &str) -> Option<u64> {
    let is_number = (1..=DIGITS_MAX).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse().ok() } else { None }
}

/// A decimal number of request units in parts of a million; finer digits are not understood.
pub fn micro_units(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.len() > FRACTION_DIGITS {
        return None;
    }
    let scale = 10u64.pow((FRACTION_DIGITS - fraction.len()) as u32);
    let whole = number(whole)?.checked_mul(MICRO)?;
    whole.checked_add(number(fraction)? * scale)
}

fn invalid() -> Problem {
    Problem::new(
        400,
        "MAX_COST_INVALID",
        "x-myriad-max-cost is a number of request units like 0.5, or a list like \
         vm_steps=1000; pages_read=100 of ru, vm_steps, pages_read, pages_written, log_bytes, \
         result_bytes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_their_names() {
        for (index, name) in storage::meter::PART_NAMES.iter().enumerate() {
            assert_eq!(IN_HEADER[index], format!("; {name}="));
            assert_eq!(IN_JSON[index], format!(",\"{name}\":"));
        }
    }

    #[test]
    fn receipts_are_written() {
        let cost = Cost {
            vm_steps: 14,
            pages_read: 3,
            pages_written: 2,
            log_bytes: 8264,
            result_bytes: 40,
        };
        let micro = request_units_micro(&cost);
        let mut out = Vec::new();
        write_header(&mut out, &cost);
        let ru = format!("{}.{micro:06}", 0);
        let parts = "vm_steps=14; pages_read=3; pages_written=2; log_bytes=8264; result_bytes=40";
        let line = String::from_utf8(out).expect("headers are ASCII");
        assert_eq!(line, format!("x-myriad-cost: ru={ru}; {parts}\r\n"));
        let mut out = Vec::new();
        write_json(&mut out, &cost);
        let body = format!("{{{}}}", String::from_utf8(out).expect("JSON is UTF-8"));
        let value: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
        assert_eq!(value["cost"]["log_bytes"], 8264);
        assert_eq!(value["cost"]["ru"].to_string().parse::<f64>(), ru.parse::<f64>());
    }

    #[test]
    fn priorities_are_understood_or_refused() {
        for priority in Priority::ALL {
            assert_eq!(parse_priority(&format!(" {} ", priority.name())), Ok(priority));
        }
        for text in ["", "urgent", "Normal", "normal, background", "1"] {
            let problem = parse_priority(text).expect_err(text);
            assert_eq!((problem.status, problem.code), (400, "PRIORITY_INVALID"));
        }
    }

    #[test]
    fn limits_are_understood_or_refused() {
        for (text, price, steps) in [
            ("1", 1_000_000, u64::MAX),
            ("0.5", 500_000, u64::MAX),
            ("0.000001", 1, u64::MAX),
            ("ru=12.25", 12_250_000, u64::MAX),
            ("vm_steps=1000", u64::MAX, 1000),
            (" vm_steps = 7 ; ru=0 ", 0, 7),
            ("ru=1, vm_steps=2", 1_000_000, 2),
        ] {
            let ceiling = parse_limit(text).expect(text);
            assert_eq!((ceiling.price, ceiling.parts[0]), (price, steps), "{text}");
        }
        for text in [
            "",
            ";",
            "x",
            "-1",
            "1.",
            ".5",
            "0.0000001",
            "vm_steps",
            "vm_steps=",
            "vm_steps=1.5",
            "steps=1",
            "1e3",
            "9999999999999999999",
            "ru=999999999999999999",
        ] {
            let problem = parse_limit(text).expect_err(text);
            assert_eq!((problem.status, problem.code), (400, "MAX_COST_INVALID"));
        }
    }
}
