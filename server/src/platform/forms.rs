//! Forms in which tools expect ids and times.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// When what never ends is said to end: 9999-12-31T23:59:59Z. -1 would say that it is not good.
pub(super) const NEVER_S: u64 = 253_402_300_799;

/// What an id is of: it stands in the form that tools expect ids to have.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Organisation = 1,
    Group = 2,
    Database = 3,
    Key = 4,
}

/// An id in the form of a UUID (RFC 9562 section 5.8: version 8, for one's own uses).
pub(super) fn uuid(of: Of, id: u64) -> String {
    format!("00000000-0000-8{:03x}-8{:03x}-{:012x}", of as u8, id >> 48, id & 0xffff_ffff_ffff)
}

/// When a token ends that was found good: its claim `exp`.
pub(super) fn expiry_of_token(token: &str) -> u64 {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = payload.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    claims.and_then(|claims| claims["exp"].as_u64()).unwrap_or(NEVER_S)
}

/// Seconds since 1970 as a date and time (RFC 3339 section 5.6). The calendar's arithmetic is that of
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub(crate) fn rfc_3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_read_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_790_000_000, "2026-09-21T14:13:20Z"),
            (NEVER_S, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc_3339(seconds), text);
        }
    }

    #[test]
    fn tokens_say_when_they_end() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"exp":1790000000}"#);
        assert_eq!(expiry_of_token(&format!("e.{payload}.s")), 1_790_000_000);
        for text in ["", "a.b.c", "myr_x"] {
            assert_eq!(expiry_of_token(text), NEVER_S);
        }
    }

    #[test]
    fn ids_of_different_things_differ() {
        assert_eq!(uuid(Of::Database, 7), "00000000-0000-8003-8000-000000000007");
        assert_ne!(uuid(Of::Database, u64::MAX), uuid(Of::Group, u64::MAX));
        assert_eq!(uuid(Of::Key, (1 << 60) - 1).len(), 36);
    }
}
