//! What a forger can do: signatures of the wrong kind, of the wrong form, and of the right form for lax
//! verifiers. Written by hand, as no library should offer it.

use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256, Sha512};

/// The order of Ed25519's base point, little-endian words (RFC 8032 section 5.1).
const ORDER: [u64; 4] = [0x5812_631a_5cf5_d3ed, 0x14de_f9de_a2f7_9cd6, 0, 0x1000_0000_0000_0000];

/// All encodings of points of small order, as public keys: whoever has one has a signature for every text.
pub const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
];

/// HMAC-SHA256 (RFC 2104).
pub fn hmac(secret: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0; 64];
    match secret.len() {
        0..=64 => block[..secret.len()].copy_from_slice(secret),
        _ => block[..32].copy_from_slice(&Sha256::digest(secret)),
    }
    let keyed = |pad: u8, rest: &[u8]| {
        let padded = block.map(|byte| byte ^ pad);
        Sha256::digest([&padded[..], rest].concat())
    };
    keyed(0x5c, &keyed(0x36, text)).to_vec()
}

/// A good signature with the order of the group added to its second half: the same point.
pub fn malleated(key: &SigningKey, text: &[u8]) -> Vec<u8> {
    let mut signature = key.sign(text).to_bytes();
    let (sum, carry) = add(words(&signature[32..]), ORDER);
    assert!(!carry, "two numbers below 2^253");
    signature[32..].copy_from_slice(&bytes(sum));
    signature.to_vec()
}

/// A signature whose first half is the neutral point: S = k a fulfils the equation, and needs the key only
/// because the key's point is not small itself.
pub fn neutral(key: &SigningKey, text: &[u8]) -> Vec<u8> {
    let mut point = [0; 32];
    point[0] = 1;
    let public = key.verifying_key().to_bytes();
    let k = Sha512::digest([&point[..], &public, text].concat());
    let mut secret: [u8; 32] = Sha512::digest(key.to_bytes())[..32].try_into().expect("32 of 64");
    secret[0] &= 248;
    secret[31] = secret[31] & 127 | 64;
    let s = product(&k, &secret);
    [point, bytes(s)].concat()
}

/// The product of two little-endian numbers, modulo the order.
fn product(left: &[u8], right: &[u8]) -> [u64; 4] {
    let left = remainder(left);
    let mut sum = [0; 4];
    for bit in bits(right) {
        sum = reduced(add(sum, sum).0);
        if bit {
            sum = reduced(add(sum, left).0);
        }
    }
    sum
}

/// A little-endian number modulo the order.
fn remainder(number: &[u8]) -> [u64; 4] {
    let mut rest = [0; 4];
    for bit in bits(number) {
        rest = reduced(add(add(rest, rest).0, [u64::from(bit), 0, 0, 0]).0);
    }
    rest
}

/// The bits of a little-endian number, the highest first.
fn bits(number: &[u8]) -> impl Iterator<Item = bool> {
    number.iter().rev().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
}

/// A number below twice the order, which is far below 2^256, less the order where it is not below that.
fn reduced(number: [u64; 4]) -> [u64; 4] {
    let mut less = [0; 4];
    let mut borrow = false;
    for (at, word) in less.iter_mut().enumerate() {
        let (first, under) = number[at].overflowing_sub(ORDER[at]);
        let (second, under_again) = first.overflowing_sub(u64::from(borrow));
        (*word, borrow) = (second, under || under_again);
    }
    if borrow { number } else { less }
}

fn add(left: [u64; 4], right: [u64; 4]) -> ([u64; 4], bool) {
    let mut sum = [0; 4];
    let mut carry = false;
    for (at, word) in sum.iter_mut().enumerate() {
        let (first, over) = left[at].overflowing_add(right[at]);
        let (second, over_again) = first.overflowing_add(u64::from(carry));
        (*word, carry) = (second, over || over_again);
    }
    (sum, carry)
}

fn words(bytes: &[u8]) -> [u64; 4] {
    std::array::from_fn(|at| u64::from_le_bytes(bytes[at * 8..][..8].try_into().expect("8 bytes")))
}

fn bytes(words: [u64; 4]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// CRC-32 (IEEE 802.3), by which opaque keys are told from typos.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[test]
fn forgeries_are_what_they_are_said_to_be() {
    use ed25519_dalek::{Signature, Verifier as _};
    // RFC 4231, test case 2.
    let mac = hmac(b"Jefe", b"what do ya want for nothing?");
    assert_eq!(mac[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    let key = SigningKey::from_bytes(&[7; 32]);
    let public = key.verifying_key();
    // A verifier that is not strict takes the neutral one, so it is refused for no other reason.
    let neutral = Signature::from_slice(&neutral(&key, b"text")).expect("64 bytes");
    assert!(public.verify(b"text", &neutral).is_ok());
    assert!(public.verify_strict(b"text", &neutral).is_err());
    let good = key.sign(b"text").to_bytes();
    let malleated = malleated(&key, b"text");
    assert_eq!(malleated[..32], good[..32]);
    assert_eq!(remainder(&malleated[32..]), words(&good[32..]));
    assert_ne!(malleated[32..], good[32..]);
}
