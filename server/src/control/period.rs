//! Times in queries about use: `from` and `to`, as RFC 3339 or in seconds since 1970.

use serde_json::{Value, json};
use tenant::budget::periods::{PeriodUse, Range};

use super::percent;
use crate::platform::rfc_3339;
use crate::problem::Problem;

/// The end of a time that has none: 9999-12-31T23:59:59Z.
const NEVER_S: u64 = 253_402_300_799;

/// The time that a query asks for, if it does.
///
/// # Errors
/// 400 for what is no time, and for one that ends before it begins.
pub(crate) fn range(query: &str) -> Result<Option<Range>, Problem> {
    let (mut from_s, mut to_s) = (None, None);
    for (key, value) in percent::pairs(query)? {
        let place = match key.as_str() {
            "from" => &mut from_s,
            "to" => &mut to_s,
            _ => continue,
        };
        if !value.is_empty() {
            let text = || format!("{key} must be a time such as 2026-01-31T00:00:00Z");
            *place = Some(second_of(&value).ok_or_else(|| Problem::body(text()))?);
        }
    }
    if from_s.is_none() && to_s.is_none() {
        return Ok(None);
    }
    let range = Range { from_s: from_s.unwrap_or(0), to_s: to_s.unwrap_or(NEVER_S) };
    if range.from_s >= range.to_s {
        return Err(Problem::body("from must be earlier than to"));
    }
    Ok(Some(range))
}

/// A time that was asked for, as answers show it: the whole hours or days that it touches.
pub(crate) fn bounds(period: &PeriodUse) -> Value {
    let time = |second: u64| (second < NEVER_S / 3600 * 3600).then(|| rfc_3339(second));
    json!({ "from": time(period.from_s), "to": time(period.to_s) })
}

/// Seconds since 1970 of a date, with or without a time (RFC 3339 section 5.6), or of a number.
fn second_of(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() >= 9 {
        return text.parse().ok().filter(|&second| second < NEVER_S);
    }
    let (date, time) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, '-')?;
    if !(1970..=9998).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let midnight = days_of(year, month, day) * 86_400;
    let Some(time) = time.strip_prefix(['T', 't', ' ']) else {
        return time.is_empty().then_some(midnight);
    };
    let zone_at = time.find(['Z', 'z', '+', '-', ' ']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let clock = clock.split_once('.').map_or(clock, |(clock, _)| clock);
    let clock = if clock.len() == 5 { format!("{clock}:00") } else { clock.to_owned() };
    let [hour, minute, second] = numbers(&clock, ':')?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = midnight + hour * 3600 + minute * 60 + second;
    match zone.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => Some(local),
        // In a query a plus that was not escaped is a space.
        Some((sign, offset)) => {
            let [hours, minutes, _] = numbers(&format!("{offset}:00"), ':')?;
            let offset = hours * 3600 + minutes * 60;
            if sign == "-" { local.checked_add(offset) } else { local.checked_sub(offset) }
        }
    }
}

/// Three numbers of two or four digits with a sign between them.
fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let mut parts = text.split(between).map(|part| {
        let good = matches!(part.len(), 2 | 4) && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|_| good)
    });
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

/// Days from 1970 to a date. The calendar's arithmetic is that of Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `days_from_civil`.
fn days_of(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for second in [0, 951_782_399, 951_782_400, 1_790_000_000, 4_102_444_800] {
            assert_eq!(second_of(&rfc_3339(second)), Some(second));
        }
        for (text, second) in [
            ("2026-09-21", 1_789_948_800),
            ("2026-09-21T14:13:20.500Z", 1_790_000_000),
            ("2026-09-21T14:13", 1_789_999_980),
            ("2026-09-21T16:13:20+02:00", 1_790_000_000),
            ("2026-09-21T12:13:20-02:00", 1_790_000_000),
            ("1790000000", 1_790_000_000),
        ] {
            assert_eq!(second_of(text), Some(second), "{text}");
        }
        for text in ["", "today", "2026-13-01", "2026-1-1", "2026-09-21T25:00", "2026-09-21x", "17"]
        {
            assert_eq!(second_of(text), None, "{text}");
        }
    }

    #[test]
    fn queries() {
        assert_eq!(range("limit=1"), Ok(None));
        let asked = range("from=2026-09-21&to=2026-09-22").expect("it is good");
        assert_eq!(asked, Some(Range { from_s: 1_789_948_800, to_s: 1_790_035_200 }));
        assert_eq!(range("from=1790000000").expect("it is good").map(|r| r.to_s), Some(NEVER_S));
        for wrong in ["from=x", "to=2026-13-01", "from=2026-09-22&to=2026-09-21"] {
            assert_eq!(range(wrong).expect_err(wrong).status, 400);
        }
    }
}
