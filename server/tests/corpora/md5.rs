//! MD5 (RFC 1321), in which sqllogictest scripts give long results. Not for anything that matters.

const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The digest of `bytes`, in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476_u32];
    let table: [u32; 64] = std::array::from_fn(|index| {
        // RFC 1321, section 3.4: the integer part of 2^32 × |sin(index + 1)|.
        let sine = f64::from(u8::try_from(index + 1).expect("at most 64")).sin().abs();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let scaled = (sine * 4_294_967_296.0) as u32;
        scaled
    });
    let mut message = bytes.to_owned();
    message.push(0x80);
    message.resize(message.len().next_multiple_of(64), 0);
    if message.len() - bytes.len() < 9 {
        message.resize(message.len() + 64, 0);
    }
    let length = message.len();
    let bits = u64::try_from(bytes.len()).expect("64-bit lengths") * 8;
    message[length - 8..].copy_from_slice(&bits.to_le_bytes());
    for block in message.chunks_exact(64) {
        mix(&mut state, block, &table);
    }
    state.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect()
}

fn mix(state: &mut [u32; 4], block: &[u8], table: &[u32; 64]) {
    let word = |index: usize| {
        let bytes = &block[index * 4..][..4];
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    };
    let [mut a, mut b, mut c, mut d] = *state;
    for (step, &constant) in table.iter().enumerate() {
        let round = step / 16;
        let (mixed, index) = match round {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
            2 => (b ^ c ^ d, (3 * step + 5) % 16),
            _ => (c ^ (b | !d), (7 * step) % 16),
        };
        let sum = a.wrapping_add(mixed).wrapping_add(constant).wrapping_add(word(index));
        (a, d, c) = (d, c, b);
        b = b.wrapping_add(sum.rotate_left(SHIFTS[round][step % 4]));
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(added);
    }
}

#[test]
fn vectors_of_the_standard() {
    for (text, digest) in [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        (
            "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
            "57edf4a22be3c955ac49da2e2107b67a",
        ),
    ] {
        assert_eq!(hex(text.as_bytes()), digest, "{text}");
    }
}
