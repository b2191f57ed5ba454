//! Percent-encoded texts in paths and queries (RFC 3986 section 2.1; in a query `+` is a space, as forms
//! write it).

use crate::problem::Problem;

/// The text that is meant; `None` if it is no UTF-8, or a `%` has not two digits behind it.
#[must_use]
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        bytes.push(match first {
            b'%' => {
                let [high, low, after @ ..] = rest else { return None };
                rest = after;
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                u8::try_from(digit(high)? << 4 | digit(low)?).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The pairs of a query.
///
/// # Errors
/// 400 for what is no text.
pub fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let one = |text: &str| {
        decoded(&text.replace('+', " ")).ok_or_else(|| Problem::body("the query is no UTF-8"))
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((one(key)?, one(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_meant() {
        assert_eq!(decoded("a%20b%C3%A9").as_deref(), Some("a bé"));
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
        let found = pairs("a=1+2&b&&c=%3D").expect("a query");
        let expected = [("a", "1 2"), ("b", ""), ("c", "=")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(found, expected);
    }
}
