//! Opaque keys: what one looks like, and what is kept of it.
//!
//! ```text
//! myr_ <public, 16 of a-z 2-7> <secret, 43 of 0-9 A-Z a-z> <check, 6 of 0-9 A-Z a-z>
//! ```
//!
//! Public are 80 random bits, by which the key is found; the secret are 256, which no list of guesses
//! reaches, so one fast hash of both is all that is kept (`blake3::derive_key`). The check is the CRC-32
//! (IEEE 802.3) of what stands before it: a typo is told from a key without a look-up, and who scans
//! repositories for leaked secrets can tell one from noise.

use storage::io::Entropy;

const PREFIX: &str = "myr_";
const PUBLIC_BYTES: usize = 16;
const SECRET_BYTES: usize = 43;
const CHECK_BYTES: usize = 6;
const KEY_BYTES: usize = PREFIX.len() + PUBLIC_BYTES + SECRET_BYTES + CHECK_BYTES;

/// What the hash of a key is derived for; another use of the same bytes has another hash.
const CONTEXT: &str = "myriad api key v1";

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key as somebody has shown it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// What of it may be seen.
    pub public: [u8; PUBLIC_BYTES],
    /// Of all of it.
    pub hash: [u8; 32],
}

/// A key that was just made. Its text is shown once.
pub struct Made {
    /// All of it.
    pub text: String,
    /// What is kept of it.
    pub shown: Shown,
}

/// Make a key.
pub fn make(entropy: &mut impl Entropy) -> Made {
    let (mut id, mut secret) = ([0; 10], [0; 32]);
    entropy.fill(&mut id);
    entropy.fill(&mut secret);
    let mut text = String::from(PREFIX);
    for group in id.chunks_exact(5) {
        let bits = group.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for place in (0..8).rev() {
            text.push(char::from(BASE32[(bits >> (5 * place) & 31) as usize]));
        }
    }
    push_base62(&mut text, &mut secret, SECRET_BYTES);
    let check = crc32(text.as_bytes());
    push_base62(&mut text, &mut check.to_be_bytes(), CHECK_BYTES);
    let shown = read(&text).expect("what was made can be read");
    Made { text, shown }
}

/// The key that this text is, if it is one and has no typo.
#[must_use]
pub fn read(text: &str) -> Option<Shown> {
    let rest = text.strip_prefix(PREFIX)?;
    if text.len() != KEY_BYTES || !rest.is_ascii() {
        return None;
    }
    let (public, rest) = rest.split_at(PUBLIC_BYTES);
    let (secret, check) = rest.split_at(SECRET_BYTES);
    let is_of = |text: &str, alphabet: &[u8]| text.bytes().all(|byte| alphabet.contains(&byte));
    if !is_of(public, BASE32) || !is_of(secret, BASE62) {
        return None;
    }
    let (body, _) = text.split_at(KEY_BYTES - CHECK_BYTES);
    let mut expected = String::new();
    push_base62(&mut expected, &mut crc32(body.as_bytes()).to_be_bytes(), CHECK_BYTES);
    if check != expected {
        return None;
    }
    let material = &body.as_bytes()[PREFIX.len()..];
    let public = public.as_bytes().try_into().expect("it was cut to this length");
    Some(Shown { public, hash: blake3::derive_key(CONTEXT, material) })
}

/// The bytes as one number, in so many digits; the bytes are used up.
fn push_base62(text: &mut String, number: &mut [u8], digits: usize) {
    let start = text.len();
    for _ in 0..digits {
        let mut remainder = 0;
        for byte in number.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the remainder is below 62");
            remainder = value % 62;
        }
        text.insert(start, char::from(BASE62[remainder as usize]));
    }
    assert!(number.iter().all(|byte| *byte == 0), "the digits suffice");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) struct Fixed(pub u8);

    impl Entropy for Fixed {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_mul(31).wrapping_add(7);
                *byte = self.0;
            }
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_made_and_no_other_is_the_same() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let first = make(&mut Fixed(1));
        assert_eq!(first.text.len(), 69);
        assert!(first.text.starts_with("myr_"), "{}", first.text);
        assert!(read(&first.text) == Some(first.shown));
        let second = make(&mut Fixed(2));
        assert!(second.shown.public != first.shown.public);
        assert!(second.shown.hash != first.shown.hash);
        let highest = {
            struct Ones;
            impl Entropy for Ones {
                fn fill(&mut self, bytes: &mut [u8]) {
                    bytes.fill(0xff);
                }
            }
            make(&mut Ones)
        };
        assert!(highest.text.starts_with("myr_7777777777777777"), "{}", highest.text);
    }

    #[test]
    fn every_typo_is_noticed() {
        let key = make(&mut Fixed(3)).text;
        for index in 0..key.len() {
            for other in ["a", "7", "Z", "-", "\u{1}"] {
                let mut typo = key.clone();
                typo.replace_range(index..=index, other);
                assert!(typo == key || read(&typo).is_none(), "{typo}");
            }
            assert!(read(&key[..index]).is_none());
        }
        for text in ["", "myr_", "MYR_", &key[4..], &format!("{key}0"), &format!(" {key}"), "é"] {
            assert!(read(text).is_none(), "{text}");
        }
        // Swapped neighbours, the commonest typo.
        for index in 4..key.len() - 1 {
            let mut bytes = key.clone().into_bytes();
            bytes.swap(index, index + 1);
            let typo = String::from_utf8(bytes).expect("ASCII");
            assert!(typo == key || read(&typo).is_none(), "{typo}");
        }
    }
}
