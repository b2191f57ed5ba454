//! A door for fuzzers: tokens of any text, and what is found in one.

use ed25519_dalek::SigningKey;
use tenant::settings::PublicKey;

use super::jwt;

/// What a token of one of these keys grants, as text; nothing if it is refused.
#[must_use]
pub fn verify(token: &str, keys: &[PublicKey], own: bool) -> Option<String> {
    let keys: Vec<_> = keys.iter().filter_map(jwt::verifying_key).collect();
    jwt::verify(token, &keys, own).map(|claims| format!("{claims:?}"))
}

/// Sign any header and payload.
#[must_use]
pub fn sign(secret: &[u8; 32], header: &str, payload: &str) -> String {
    jwt::sign_raw(&SigningKey::from_bytes(secret), header, payload)
}

/// The key with which [`sign`]'s signatures are verified.
#[must_use]
pub fn public_key(secret: &[u8; 32]) -> PublicKey {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}
