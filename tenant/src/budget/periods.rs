//! Use by period: what was used in each of the last hours and days, as the catalogue keeps it.
//!
//! ```text
//! 1                        version
//! counters                 what of the total is in here, or was and is too old
//! {start, length, counters}…   ascending; start in hours since 1970, length 1 or 24 hours
//! ```
//!
//! All numbers are LEB128, counters in the order of [`Usage::counters`]. Hours are kept for two days, then
//! they become days (UTC), kept for two months; so a database that is in use always has some 3 KB, one
//! that was used once 40 bytes.

use super::Usage;
use super::text::{self, COUNTERS, Unreadable};

/// Seconds of an hour.
pub const HOUR_S: u64 = 3600;

/// Hours that are kept one by one.
pub const HOURS_KEPT: u64 = 48;

/// Days that are kept.
pub const DAYS_KEPT: u64 = 62;

const DAY_HOURS: u64 = 24;
const VERSION: u64 = 1;

/// A time from one second to another, in seconds since 1970; the end is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first second.
    pub from_s: u64,
    /// The one behind the last.
    pub to_s: u64,
}

/// What was used in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeriodUse {
    /// The time that was asked for, made whole: the hours or days that it touches.
    pub from_s: u64,
    /// Its end.
    pub to_s: u64,
    /// What was used in it.
    pub usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bucket {
    start: u64,
    length: u64,
    usage: Usage,
}

/// See the head of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Periods {
    counted: Usage,
    buckets: Vec<Bucket>,
}

impl Periods {
    /// The total is so much now: what was not counted was used in this hour.
    pub fn note(&mut self, total: &Usage, hour: u64) {
        let since = total.since(&self.counted);
        self.counted = *total;
        self.add(&since, hour);
    }

    /// So much was used in this hour.
    pub fn add(&mut self, usage: &Usage, hour: u64) {
        if *usage == Usage::default() {
            return;
        }
        // A clock that was set back: what stands there gets it.
        let last = self.buckets.last().map_or(0, |bucket| bucket.start + bucket.length - 1);
        let hour = hour.max(last);
        match self.buckets.last_mut().filter(|bucket| hour < bucket.start + bucket.length) {
            Some(bucket) => bucket.usage.add(usage),
            None => self.buckets.push(Bucket { start: hour, length: 1, usage: *usage }),
        }
        self.fold(hour);
    }

    /// Old hours become days, and old days go.
    fn fold(&mut self, hour: u64) {
        let oldest_hour = hour.saturating_sub(HOURS_KEPT - 1);
        let oldest_day = (hour / DAY_HOURS).saturating_sub(DAYS_KEPT - 1) * DAY_HOURS;
        let mut folded: Vec<Bucket> = Vec::with_capacity(self.buckets.len());
        for bucket in self.buckets.drain(..) {
            let day = bucket.start / DAY_HOURS * DAY_HOURS;
            // A day is whole: as long as one of its hours is young, all of them stay.
            if bucket.length == DAY_HOURS || day + DAY_HOURS > oldest_hour {
                folded.push(bucket);
                continue;
            }
            match folded.last_mut().filter(|last| last.start == day && last.length == DAY_HOURS) {
                Some(last) => last.usage.add(&bucket.usage),
                None => folded.push(Bucket { start: day, length: DAY_HOURS, ..bucket }),
            }
        }
        folded.retain(|bucket| bucket.start >= oldest_day);
        self.buckets = folded;
    }

    /// What of a total is not counted in any hour yet.
    #[must_use]
    pub fn uncounted(&self, total: &Usage) -> Usage {
        total.since(&self.counted)
    }

    /// What was used in the hours and days that a time touches, and which those are.
    #[must_use]
    pub fn within(&self, range: Range) -> PeriodUse {
        let (first, end) = hours_of(range);
        let mut found =
            PeriodUse { from_s: first * HOUR_S, to_s: end * HOUR_S, usage: Usage::default() };
        for bucket in &self.buckets {
            let behind = bucket.start + bucket.length;
            if bucket.start < end && first < behind {
                found.usage.add(&bucket.usage);
                found.from_s = found.from_s.min(bucket.start * HOUR_S);
                found.to_s = found.to_s.max(behind * HOUR_S);
            }
        }
        found
    }

    /// As the catalogue keeps it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, VERSION);
        put_usage(&mut bytes, &self.counted);
        for bucket in &self.buckets {
            put(&mut bytes, bucket.start);
            put(&mut bytes, bucket.length);
            put_usage(&mut bytes, &bucket.usage);
        }
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) has written.
    ///
    /// # Errors
    /// If it has not.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Periods, Unreadable> {
        let wrong = || Unreadable::from("periods");
        let rest = &mut bytes;
        if take(rest) != Some(VERSION) {
            return Err(wrong());
        }
        let counted = take_usage(rest).ok_or_else(wrong)?;
        let mut buckets: Vec<Bucket> = Vec::new();
        while !rest.is_empty() {
            let start = take(rest).filter(|&start| start < 1 << 40).ok_or_else(wrong)?;
            let length = take(rest).filter(|length| [1, DAY_HOURS].contains(length));
            let length = length.ok_or_else(wrong)?;
            let usage = take_usage(rest).ok_or_else(wrong)?;
            if buckets.last().is_some_and(|last| last.start + last.length > start) {
                return Err(wrong());
            }
            buckets.push(Bucket { start, length, usage });
        }
        Ok(Periods { counted, buckets })
    }
}

/// The hour of a second.
#[must_use]
pub fn hour_of(second: u64) -> u64 {
    second / HOUR_S
}

/// The first hour that a time touches, and the one behind the last.
fn hours_of(range: Range) -> (u64, u64) {
    (hour_of(range.from_s), range.to_s.div_ceil(HOUR_S).max(hour_of(range.from_s)))
}

impl PeriodUse {
    /// With what was used in this hour and is not counted yet, if the hour is in the time.
    pub fn add_if_within(&mut self, usage: &Usage, hour: u64) {
        if (self.from_s..self.to_s).contains(&(hour * HOUR_S)) {
            self.usage.add(usage);
        }
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn put_usage(bytes: &mut Vec<u8>, usage: &Usage) {
    for (_, counter) in usage.counters() {
        put(bytes, counter);
    }
}

fn take_usage(bytes: &mut &[u8]) -> Option<Usage> {
    let mut usage = Usage::default();
    let counters: [(&str, &mut u64); COUNTERS] = text::counters(&mut usage);
    for (_, counter) in counters {
        *counter = take(bytes)?;
    }
    Some(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(requests: u64) -> Usage {
        Usage { requests, ..Usage::default() }
    }

    fn requests(periods: &Periods, from: u64, to: u64) -> u64 {
        let range = Range { from_s: from * HOUR_S, to_s: to * HOUR_S };
        periods.within(range).usage.requests
    }

    #[test]
    fn totals_become_hours_and_hours_become_days() {
        let start = 20_000 * DAY_HOURS;
        let mut periods = Periods::default();
        // One request an hour for 100 days.
        for hour in 0..2400 {
            periods.note(&of(hour + 1), start + hour);
        }
        let now = start + 2400;
        assert_eq!(requests(&periods, now - 1, now), 1);
        assert_eq!(requests(&periods, now - 48, now), 48);
        assert_eq!(requests(&periods, now - 10 * 24, now - 3 * 24), 7 * 24);
        assert_eq!(requests(&periods, 0, now), DAYS_KEPT * 24);
        // Of a day that is folded, an hour is all of it, and that is said.
        let hour = Range { from_s: (now - 240) * HOUR_S, to_s: (now - 239) * HOUR_S };
        let found = periods.within(hour);
        assert_eq!((found.usage.requests, found.to_s - found.from_s), (24, 86_400));
        assert!(periods.buckets.len() <= 48 + 24 + 62);
        let bytes = periods.to_bytes();
        assert!(bytes.len() < 4000, "{}", bytes.len());
        assert_eq!(Periods::from_bytes(&bytes), Ok(periods));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_nothing() {
        let mut periods = Periods::default();
        periods.note(&of(1), 500);
        periods.note(&of(3), 490);
        assert_eq!(requests(&periods, 500, 501), 3);
        assert_eq!(periods.uncounted(&of(5)), of(2));
        let mut now = periods.within(Range { from_s: 500 * HOUR_S, to_s: 500 * HOUR_S + 1 });
        now.add_if_within(&of(2), 500);
        now.add_if_within(&of(7), 501);
        assert_eq!(now.usage, of(5));
    }

    #[test]
    fn other_bytes_are_not_read() {
        let mut periods = Periods::default();
        periods.note(&of(1), 500);
        let good = periods.to_bytes();
        assert!(good.len() < 40);
        for length in 0..good.len() {
            let cut = Periods::from_bytes(&good[..length]);
            assert!(cut.is_err() || length == 1 + COUNTERS, "{length}");
        }
        assert!(Periods::from_bytes(&[2]).is_err());
        assert!(Periods::from_bytes(&[&good[..], &good[1 + COUNTERS..]].concat()).is_err());
        assert!(Periods::from_bytes(&[0xff; 30]).is_err());
    }
}
