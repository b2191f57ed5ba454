//! Batons: a parked stream's ticket, sealed for its way through the client.
//!
//! Owns the sealing. Which streams are parked, and for how long, is the tenant crate's; a ticket
//! there is good for one use, so a baton is too.
//!
//! Layout before base64 (standard alphabet, 64 characters, no padding needed):
//!
//! ```text
//!  0..8   ticket, little-endian
//!  8..16  issued_at_ns, little-endian
//! 16..48  keyed blake3 over ticket ‖ issued_at_ns ‖ tenant id (8 bytes, little-endian)
//! ```
//!
//! The tenant id is under the MAC but does not travel: a baton opens only for the tenant that it
//! was sealed for. sqld does not check that, and hands tenant A's transaction to tenant B.
//! The key is new at each start of the process, so a baton never outlives its streams.
//!
//! A cursor's baton is sealed before its batch runs, so its age says nothing about how long the
//! stream has been idle. Age is therefore asked for only when the stream is not there any more:
//! an old baton has then expired, a young one was used before.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::sometimes;
use tenant::Ticket;

use crate::limits::{BATON_BYTES_MAX, STREAM_IDLE_NS};
use crate::problem::Problem;

const PAYLOAD_BYTES: usize = 16;
const SEALED_BYTES: usize = PAYLOAD_BYTES + blake3::OUT_LEN;
const ENCODED_BYTES: usize = SEALED_BYTES / 3 * 4;

// Base64 then needs no padding, whatever a client thinks of padding.
const _: () = assert!(SEALED_BYTES.is_multiple_of(3));
const _: () = assert!(ENCODED_BYTES <= BATON_BYTES_MAX);

/// The key that seals batons; random, one per process.
#[derive(Clone)]
pub struct BatonKey([u8; blake3::KEY_LEN]);

/// What a genuine baton says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The parked stream's ticket.
    pub ticket: Ticket,
    /// When the baton was sealed, on the clock of `JobHost::now_ns`.
    pub issued_at_ns: u64,
}

impl BatonKey {
    /// A key of these random bytes.
    #[must_use]
    pub fn new(random: [u8; blake3::KEY_LEN]) -> BatonKey {
        BatonKey(random)
    }

    /// The key for batons of one principal (whatever bytes name who may act: a token's or key's
    /// id), so that a leaked baton is worthless with another one's token.
    #[must_use]
    pub fn for_principal(&self, principal: &[u8]) -> BatonKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"baton principal");
        hasher.update(principal);
        BatonKey(*hasher.finalize().as_bytes())
    }

    /// Append the baton for `ticket` to `out`: 64 characters that JSON need not escape.
    pub fn seal(&self, out: &mut Vec<u8>, tenant_id: u64, ticket: Ticket, now_ns: u64) {
        let mut sealed = [0; SEALED_BYTES];
        sealed[..8].copy_from_slice(&ticket.0.to_le_bytes());
        sealed[8..PAYLOAD_BYTES].copy_from_slice(&now_ns.to_le_bytes());
        let mac = self.mac(&sealed[..PAYLOAD_BYTES], tenant_id);
        sealed[PAYLOAD_BYTES..].copy_from_slice(mac.as_bytes());
        let start = out.len();
        out.resize(start + ENCODED_BYTES, 0);
        let written = STANDARD.encode_slice(sealed, &mut out[start..]);
        assert_eq!(written, Ok(ENCODED_BYTES));
    }

    /// What `baton` claims, if we sealed it for this tenant.
    ///
    /// # Errors
    /// 400 for anything else, with sqld's words.
    pub fn open(&self, tenant_id: u64, baton: &str) -> Result<Claim, Problem> {
        let mut sealed = [0; BATON_BYTES_MAX];
        if baton.len() > BATON_BYTES_MAX {
            return Err(invalid());
        }
        let decoded = STANDARD.decode_slice(baton, &mut sealed);
        if decoded != Ok(SEALED_BYTES) {
            sometimes!("a baton is not even one of ours in shape");
            return Err(invalid());
        }
        let (payload, rest) = sealed.split_at(PAYLOAD_BYTES);
        let Ok(mac) = blake3::Hash::from_slice(&rest[..blake3::OUT_LEN]) else {
            return Err(invalid());
        };
        // Comparing two blake3 hashes takes constant time.
        if self.mac(payload, tenant_id) != mac {
            sometimes!("a baton of another tenant or process is refused");
            return Err(invalid());
        }
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&payload[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        Ok(Claim { ticket: Ticket(number(0)), issued_at_ns: number(8) })
    }

    fn mac(&self, payload: &[u8], tenant_id: u64) -> blake3::Hash {
        let mut message = [0; PAYLOAD_BYTES + 8];
        message[..PAYLOAD_BYTES].copy_from_slice(payload);
        message[PAYLOAD_BYTES..].copy_from_slice(&tenant_id.to_le_bytes());
        blake3::keyed_hash(&self.0, &message)
    }
}

impl Claim {
    /// Why the stream of this genuine baton is gone.
    #[must_use]
    pub fn gone(&self, now_ns: u64) -> Problem {
        if now_ns.saturating_sub(self.issued_at_ns) > STREAM_IDLE_NS {
            sometimes!("a baton comes after its stream expired");
            return Problem::new(400, "STREAM_EXPIRED", "The stream has expired due to inactivity");
        }
        sometimes!("a baton is used twice");
        Problem::new(400, "BATON_USED", "Received a baton that has already been used")
    }
}

fn invalid() -> Problem {
    Problem::new(400, "BATON_INVALID", "Received an invalid baton")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &BatonKey, tenant_id: u64) -> String {
        let mut out = Vec::new();
        key.seal(&mut out, tenant_id, Ticket(7), 1_000);
        String::from_utf8(out).expect("base64 is ASCII")
    }

    #[test]
    fn a_baton_opens_for_its_tenant_and_key_only() {
        let key = BatonKey::new([1; 32]);
        let baton = sealed(&key, 5);
        assert_eq!(baton.len(), ENCODED_BYTES);
        let claim = key.open(5, &baton).expect("it is ours");
        assert_eq!(claim.ticket, Ticket(7));
        assert_eq!(claim.issued_at_ns, 1_000);
        assert_eq!(key.open(6, &baton), Err(invalid()));
        assert_eq!(BatonKey::new([2; 32]).open(5, &baton), Err(invalid()));
        let alice = key.for_principal(b"alice");
        assert_eq!(alice.open(5, &baton), Err(invalid()));
        let bob = key.for_principal(b"bob");
        assert_eq!(bob.open(5, &sealed(&alice, 5)), Err(invalid()));
        assert!(alice.open(5, &sealed(&alice, 5)).is_ok());
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let key = BatonKey::new([1; 32]);
        let baton = sealed(&key, 5);
        for index in 0..baton.len() {
            let mut bytes = baton.clone().into_bytes();
            bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(key.open(5, &changed), Err(invalid()), "{changed}");
        }
        for text in ["", "x", "=", "AAAA", "é", &baton[..63], &"A".repeat(10_000)] {
            assert_eq!(key.open(5, text), Err(invalid()), "{text}");
        }
    }

    #[test]
    fn age_tells_expired_from_used() {
        let claim = Claim { ticket: Ticket(1), issued_at_ns: 50 };
        assert_eq!(claim.gone(50 + STREAM_IDLE_NS).code, "BATON_USED");
        assert_eq!(claim.gone(51 + STREAM_IDLE_NS).code, "STREAM_EXPIRED");
        // A clock that ran backwards is not an error here.
        assert_eq!(claim.gone(0).code, "BATON_USED");
    }
}
