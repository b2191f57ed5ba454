//! Tokens: JSON Web Tokens (RFC 7519) with EdDSA signatures (RFC 8037), as libSQL servers read them.
//!
//! Owns reading, verifying and signing; no general library does it, because most of what such a library
//! can is what must not be possible here. What a token says is looked at only after its signature was
//! found good, and what is not understood is not a right:
//!
//! - `alg` is EdDSA by our word, not by the token's. `kid` decides nothing: a signature is tried with
//!   each key of the place, at most four.
//! - A member twice, a time that is no whole number, and claims that would narrow the token in ways that
//!   nobody here enforces, refuse the token.
//! - Claims of sqld: `p` (`{"rw":{"ns":["name"]},"ro":…}`), else `id` and `a` (`rw`, `ro`; none is `rw`).
//!   A token without `id` and `p` has a right only where its key has a place of its own: a database's or
//!   group's key, that one; the platform's, the control API. sqld takes such a token for everything.
//! - The server's own tokens say `database_id` or `node_id` and `a`: a database that is dropped takes its
//!   tokens along, and the next one of its name knows nothing of them. Nobody else may say these.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use storage::TenantId;
use tenant::NodeId;
use tenant::access::{Name, Role, Scope};
use tenant::settings::PublicKey;

use super::json::Json;
use crate::limits::{CLAIMED_NAMES_MAX, TOKEN_BYTES_MAX};

/// How far clocks may be apart, in seconds.
const LEEWAY_S: u64 = 30;

/// Members of a header that change what is signed, or bring a key along (RFC 7515 section 4.1).
const HEADER_REFUSED: [&str; 9] =
    ["crit", "jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256", "b64", "zip"];

/// Claims that would narrow a token in ways that nobody here enforces: an audience (RFC 7519 section
/// 4.1.3), a holder's own key (RFC 7800), Turso's tables and operations.
const CLAIMS_REFUSED: [&str; 6] = ["aud", "cnf", "t", "tables", "perm", "permissions"];

/// What a token grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    /// By the server itself.
    Own(Scope, Role),
    /// No database is named.
    All(Role),
    /// Databases by name, each with the most that is said of it.
    Names(Vec<(Name, Role)>),
}

/// What a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub grant: Grant,
    /// In seconds since 1970; 0 where it does not say.
    pub issued_s: u64,
    /// Not before this, and not from this on.
    not_before_s: u64,
    pub expires_s: u64,
}

impl Claims {
    /// Whether it is good at this time.
    pub fn is_current(&self, now_s: u64) -> bool {
        let begun = now_s + LEEWAY_S >= self.not_before_s.max(self.issued_s);
        begun && now_s < self.expires_s.saturating_add(LEEWAY_S)
    }
}

/// Whether this text has a token's form; no opaque key has.
pub(super) fn is_token(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The claims of a token that one of `keys` has signed. Whether it is current is another question.
pub(super) fn verify<'k>(
    token: &str,
    keys: impl IntoIterator<Item = &'k VerifyingKey>,
    own: bool,
) -> Option<Claims> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut parts = token.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    // This engine refuses padding, other alphabets and left-over bits: one text a value.
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    if !is_header(&Json::read(&decode(header)?)?) {
        return None;
    }
    let signature = Signature::from_slice(&decode(signature)?).ok()?;
    let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
    let is_good = |key: &&VerifyingKey| key.verify_strict(signed, &signature).is_ok();
    keys.into_iter().find(is_good)?;
    claims(&Json::read(&decode(payload)?)?, own)
}

fn is_header(header: &Json) -> bool {
    let Json::Object(_) = header else { return false };
    let typ = header.member("typ").map(|typ| typ.text().unwrap_or(""));
    header.member("alg").and_then(Json::text) == Some("EdDSA")
        && typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"))
        && header.member("kid").is_none_or(|kid| kid.text().is_some())
        && HEADER_REFUSED.iter().all(|name| header.member(name).is_none())
}

fn claims(payload: &Json, own: bool) -> Option<Claims> {
    let Json::Object(_) = payload else { return None };
    if CLAIMS_REFUSED.iter().any(|name| payload.member(name).is_some()) {
        return None;
    }
    // There and no time is not the same as not there (CVE-2026-25537).
    let time = |name: &str, absent: u64| match payload.member(name) {
        None => Some(absent),
        Some(value) => value.natural(),
    };
    let grant = match own {
        true => own_grant(payload)?,
        false => foreign_grant(payload)?,
    };
    Some(Claims {
        grant,
        issued_s: time("iat", 0)?,
        not_before_s: time("nbf", 0)?,
        expires_s: time("exp", u64::MAX)?,
    })
}

fn legacy_role(payload: &Json) -> Option<Role> {
    match payload.member("a") {
        None => Some(Role::Write),
        Some(value) => match value.text()? {
            "rw" => Some(Role::Write),
            "ro" | "roa" => Some(Role::Read),
            _ => None,
        },
    }
}

fn own_grant(payload: &Json) -> Option<Grant> {
    let id = |name: &str| payload.member(name).map(|value| value.natural());
    let scope = match (id("database_id"), id("node_id")) {
        (Some(id), None) => Scope::Database(TenantId(id?)),
        (None, Some(id)) => Scope::Node(NodeId(id?)),
        _ => return None,
    };
    Some(Grant::Own(scope, legacy_role(payload)?))
}

fn foreign_grant(payload: &Json) -> Option<Grant> {
    if payload.member("database_id").is_some() || payload.member("node_id").is_some() {
        return None;
    }
    if let Some(permissions) = payload.member("p") {
        return Some(Grant::Names(permitted(permissions)?));
    }
    let role = legacy_role(payload)?;
    match payload.member("id") {
        None => Some(Grant::All(role)),
        Some(id) => Some(Grant::Names(vec![(Name::new(id.text()?)?, role)])),
    }
}

/// What `p` says of databases by name. Words that are not known, and groups by tag, give nothing.
fn permitted(permissions: &Json) -> Option<Vec<(Name, Role)>> {
    let Json::Object(words) = permissions else { return None };
    let mut names: Vec<(Name, Role)> = Vec::new();
    for (word, scope) in words {
        let role = match word.as_str() {
            "rw" | "rwa" | "ddl" => Role::Write,
            "ro" | "roa" => Role::Read,
            _ => continue,
        };
        let Json::Object(members) = scope else { return None };
        if members.iter().any(|(member, _)| !matches!(member.as_str(), "ns" | "tags")) {
            // It narrows the word in a way that is not enforced here.
            continue;
        }
        let listed = match scope.member("ns") {
            None => &[][..],
            Some(Json::List(listed)) => listed,
            Some(_) => return None,
        };
        for name in listed {
            // A name that no database can have names none.
            let Some(name) = Name::new(name.text()?) else { continue };
            match names.iter_mut().find(|(other, _)| *other == name) {
                Some((_, known)) => *known = role.max(*known),
                None => names.push((name, role)),
            }
        }
    }
    (names.len() <= CLAIMED_NAMES_MAX).then_some(names)
}

/// A token of the server's own.
pub(super) struct Issue {
    /// A database's or node's id.
    pub scope: Scope,
    /// Read, or write.
    pub role: Role,
    pub issued_s: u64,
    /// `None`: never.
    pub expires_s: Option<u64>,
}

/// Sign a token.
///
/// # Panics
/// If the scope has no id.
pub(super) fn sign(key: &SigningKey, issue: &Issue) -> String {
    let (name, id) = match issue.scope {
        Scope::Database(id) => ("database_id", id.0),
        Scope::Node(id) => ("node_id", id.0),
        Scope::Machine | Scope::Name(_) => panic!("the server's own tokens have ids"),
    };
    let access = if issue.role == Role::Read { "ro" } else { "rw" };
    let expires = issue.expires_s.map_or_else(String::new, |at| format!(",\"exp\":{at}"));
    let payload =
        format!("{{\"a\":\"{access}\",\"{name}\":{id},\"iat\":{}{expires}}}", issue.issued_s);
    sign_raw(key, "{\"alg\":\"EdDSA\",\"typ\":\"JWT\"}", &payload)
}

pub(super) fn sign_raw(key: &SigningKey, header: &str, payload: &str) -> String {
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = key.sign(token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.to_bytes(), &mut token);
    token
}

/// A key that signatures can be verified with: not one of the few whose signatures fit many texts.
pub(super) fn verifying_key(bytes: &PublicKey) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}

/// What stands before the 32 bytes in a SubjectPublicKeyInfo of Ed25519.
const DER_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// Public keys as PEM, one behind the other.
#[must_use]
pub fn write_public_keys(keys: &[PublicKey]) -> String {
    let pem = |key: &PublicKey| {
        let digits =
            base64::engine::general_purpose::STANDARD.encode([&DER_PREFIX[..], &key[..]].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{digits}\n-----END PUBLIC KEY-----\n")
    };
    keys.iter().map(pem).collect()
}

/// The public keys in a text: 32 bytes in base64url, or PEM with one or more (RFC 8410).
///
/// # Errors
/// What is wrong with it, for the one who wrote it.
pub fn read_public_keys(text: &str) -> Result<Vec<PublicKey>, String> {
    let text = text.trim();
    let mut keys = Vec::new();
    if text.starts_with("-----BEGIN") {
        for block in text.split("-----BEGIN PUBLIC KEY-----").skip(1) {
            let (body, _) = block
                .split_once("-----END PUBLIC KEY-----")
                .ok_or("a PEM block has no end line")?;
            let digits: String = body.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(digits);
            let bytes = bytes.map_err(|error| format!("a PEM block is no base64: {error}"))?;
            let key = bytes.strip_prefix(&DER_PREFIX).and_then(|key| key.try_into().ok());
            keys.push(key.ok_or("a PEM block is no Ed25519 public key")?);
        }
    } else {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let bytes = bytes.map_err(|error| format!("it is neither PEM nor base64url: {error}"))?;
        keys.push(bytes.try_into().map_err(|_| "a public key has 32 bytes")?);
    }
    match keys.iter().all(|key| verifying_key(key).is_some()) {
        _ if keys.is_empty() => Err("it holds no PUBLIC KEY".into()),
        true => Ok(keys),
        false => Err("it is no point of the curve, or one that signs anything".into()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
