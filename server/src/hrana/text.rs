//! Texts as JSON strings, long ones in parts: between two of them the fiber looks at its turn.
//!
//! A text of a megabyte took 2 ms at a stretch, one of random bytes 7: each stray byte becomes U+FFFD. In parts it
//! takes no second copy of the whole text either.

use storage::fiber;

/// Bytes of a text that are written at a stretch.
const PART_BYTES: usize = 16 * 1024;

fn json(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every write");
}

/// A JSON string; invalid UTF-8 becomes U+FFFD.
pub(super) fn write(out: &mut Vec<u8>, mut bytes: &[u8]) {
    out.push(b'"');
    while bytes.len() > PART_BYTES {
        let (part, rest) = bytes.split_at(cut(bytes));
        append(out, part);
        bytes = rest;
        fiber::look();
    }
    append(out, bytes);
    out.push(b'"');
}

/// Where the first part ends: before a byte that begins a character, so that each part is read as in the whole.
/// Where none is near, four bytes that continue a character stand in a row: the last of them continues none.
fn cut(bytes: &[u8]) -> usize {
    let begins = |&at: &usize| bytes[at] & 0xc0 != 0x80;
    (PART_BYTES - 3..=PART_BYTES).rev().find(begins).unwrap_or(PART_BYTES)
}

/// Go on with a string: the quotes around the part are taken off again.
fn append(out: &mut Vec<u8>, part: &[u8]) {
    let before = out.pop().expect("the string has begun");
    let at = out.len();
    match std::str::from_utf8(part) {
        Ok(text) => json(out, text),
        Err(_) => json(out, &String::from_utf8_lossy(part)),
    }
    // The part's first quote stands where the last byte before it was.
    out[at] = before;
    let last = out.pop();
    assert_eq!(last, Some(b'"'));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Vec<u8> {
        let mut out = b"[".to_vec();
        json(&mut out, &String::from_utf8_lossy(bytes));
        out
    }

    fn in_parts(bytes: &[u8]) -> Vec<u8> {
        let mut out = b"[".to_vec();
        write(&mut out, bytes);
        out
    }

    /// Characters of all lengths, escapes, and bytes that are none, across the ends of parts.
    #[test]
    fn parts_are_written_as_the_whole() {
        let pieces: [&[u8]; 12] = [
            b"",
            b"a",
            b"\"",
            b"\n",
            "é".as_bytes(),
            "€".as_bytes(),
            "😀".as_bytes(),
            b"\x80",
            b"\x80\x80\x80\x80",
            b"\xf0\x9f\x98",
            b"\xff",
            b"\xe2\x82",
        ];
        for first in pieces {
            for second in pieces {
                for shift in 0..6 {
                    let mut bytes = vec![b'x'; PART_BYTES - shift];
                    bytes.extend_from_slice(first);
                    bytes.extend_from_slice(second);
                    bytes.extend_from_slice(&vec![b'y'; PART_BYTES]);
                    assert_eq!(in_parts(&bytes), whole(&bytes), "{first:?} {second:?} {shift}");
                    let mut bytes = [first, second].concat().repeat(PART_BYTES / 3);
                    bytes.extend_from_slice(&first[first.len().min(shift)..]);
                    assert_eq!(in_parts(&bytes), whole(&bytes), "{first:?} {second:?} {shift}");
                }
            }
        }
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..5 * PART_BYTES + 7).map(|_| random()).collect();
        assert_eq!(in_parts(&bytes), whole(&bytes));
    }
}
