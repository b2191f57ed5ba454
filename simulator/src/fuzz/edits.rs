//! Mutations of inputs as bytes, without any knowledge of what they mean.

use super::Random;

/// Bytes at which parsers turn.
const BYTES: &[u8] = b"\x00\x01\x7f\x80\xff\r\n \t:;,.\"\\{}[]/?#%+-0179aAzZ_=";

/// Numbers at which parsers turn, as text.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740991",
    "9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999",
    "1e308",
    "1e309",
    "-0",
    "0.1",
    "1e-320",
];

/// Change an input a little, one to eight times.
pub fn mutate(
    input: &mut Vec<u8>,
    random: &mut Random,
    words: &[&str],
    other: &[u8],
    bytes_max: usize,
) {
    let times = 1 + random.size(3);
    for _ in 0..times {
        mutate_once(input, random, words, other);
    }
    input.truncate(bytes_max);
}

fn mutate_once(input: &mut Vec<u8>, random: &mut Random, words: &[&str], other: &[u8]) {
    let at = random.index(input.len() + 1);
    match random.below(14) {
        0 | 1 if at < input.len() => input[at] ^= 1 << random.below(8),
        2 if at < input.len() => input[at] = random.bits() as u8,
        3 if at < input.len() => input[at] = BYTES[random.index(BYTES.len())],
        4 => input.insert(at, BYTES[random.index(BYTES.len())]),
        5 => drop(input.drain(range(at, input.len(), random))),
        6 => {
            let copy = input[range(at, input.len(), random)].to_vec();
            insert(input, random, &copy);
        }
        7 => {
            let text = random.pick(NUMBERS);
            let digits = input[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            input.splice(at..at + digits, text.bytes());
        }
        8 | 9 if !words.is_empty() => {
            let word = random.pick(words);
            insert(input, random, word.as_bytes());
        }
        10 if !other.is_empty() => {
            // The start of one and the end of another.
            let from = random.index(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        11 if !other.is_empty() => {
            let from = random.index(other.len());
            let piece = other[range(from, other.len(), random)].to_vec();
            insert(input, random, &piece);
        }
        12 if !input.is_empty() => {
            // The same piece many times: depths and counts.
            let piece = input[range(at, input.len(), random)].to_vec();
            let times = 1 + random.size(7) as usize;
            let repeated = piece[..piece.len().min(64)].repeat(times);
            insert(input, random, &repeated);
        }
        _ if at + 1 < input.len() => {
            let other = random.index(input.len());
            input.swap(at, other);
        }
        _ => input.push(random.bits() as u8),
    }
}

fn insert(input: &mut Vec<u8>, random: &mut Random, piece: &[u8]) {
    let at = random.index(input.len() + 1);
    input.splice(at..at, piece.iter().copied());
}

fn range(at: usize, end: usize, random: &mut Random) -> std::ops::Range<usize> {
    let left = end - at;
    at..at + (random.size(9) as usize).min(left)
}
