//! Who asks: from a request's `Authorization` to what it may claim.
//!
//! Pure: values in, values out. Owns reading keys and tokens, verifying and signing, and remembering for
//! a moment what was found good. What a claim is worth for the database that is asked for is judged in the
//! engine (`tenant::access`); what each call takes stands in `rights`.
//!
//! - `Authorization: Bearer` and a token (`jwt`) or a key (`key`); on the admin address `basic` too, as
//!   sqld's has it. Two of these fields are 400, as of every field that decides something.
//! - Whatever is wrong with it, and whatever it is for: 401 in the same words. 403 only for somebody who
//!   has rights there and lacks this one.
//! - An operator's *root key* is compared as a whole, by its hash, in constant time.
//! - Where nobody is asked for a key (`required` is false), nothing here costs anything.

mod json;
pub mod jwt;
pub mod key;
#[doc(hidden)]
pub mod probe;
pub mod rights;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ed25519_dalek::{SigningKey, VerifyingKey};
use storage::io::{Clock, Instant};
use storage::sometimes;
use tenant::access::{Access, Credential, KeyProof, Name, Proven, Role, Scope};
use tenant::settings::PublicKey;
use tenant::{Secret, Signing};

use self::jwt::{Claims, Grant, Issue};
use crate::http::Head;
use crate::limits;
use crate::peers::PeerBudgets;
use crate::problem::Problem;

/// What the server is told about keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthOptions {
    /// Everybody is asked for a token or key.
    pub required: bool,
    /// The blake3 hash of the operator's key that may everything.
    pub root: Option<[u8; 32]>,
    /// Keys whose signatures are believed for every database.
    pub platform_keys: Vec<PublicKey>,
    /// Whose connections without a good key are counted, where one is asked for.
    pub peers: PeerBudgets,
}

/// When something is asked.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// On the clock that only goes forward.
    pub now: Instant,
    /// In seconds since 1970.
    pub now_s: u64,
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// A database, by its name.
    Database(&'a str),
    /// The control API.
    Control,
}

/// What a request claims.
#[derive(Debug)]
pub struct Claimed {
    /// For the engine.
    pub credential: Credential,
    /// What names who asks, for batons: `None` where nobody is asked.
    pub principal: Option<[u8; 32]>,
    /// What the engine is to ask back about a token that keys of the database may have signed.
    pub foreign: Option<Box<Foreign>>,
}

impl Claimed {
    /// Who asks where nobody is asked for a key.
    pub(crate) const OPEN: Claimed =
        Claimed { credential: Credential::Access(Access::MACHINE), principal: None, foreign: None };
}

/// A token that no key of the server's or the platform's has signed.
#[derive(Debug)]
pub struct Foreign {
    token: Box<str>,
    digest: [u8; 32],
    name: Box<str>,
    now_s: u64,
}

impl Foreign {
    /// Its hash.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What it may, if one of these keys has signed it: those of the database that is asked for, or of a
    /// group that it is in. It is never worth more than those keys' own place.
    #[must_use]
    pub fn prove(&self, holder: Scope, keys: &[PublicKey]) -> Option<Proven> {
        let keys: Vec<VerifyingKey> = keys.iter().filter_map(jwt::verifying_key).collect();
        let claims = jwt::verify(&self.token, &keys, false)?;
        if !claims.is_current(self.now_s) {
            return None;
        }
        let role = match &claims.grant {
            Grant::All(role) => *role,
            Grant::Names(names) => {
                let name = Name::new(&self.name)?;
                names.iter().find(|(other, _)| *other == name)?.1
            }
            Grant::Own(..) => return None,
        };
        sometimes!("a token that a database's own key has signed is believed");
        let issued_s = Some(claims.issued_s);
        let access = Access { role, scope: holder, issued_s, priority: None, key: None };
        let good_for_s = claims.expires_s.saturating_sub(self.now_s);
        Some(Proven { access, good_for_ns: good_for_s.saturating_mul(1_000_000_000) })
    }
}

/// What was found good.
#[derive(Clone)]
enum Proof {
    Key(key::Shown),
    Token(Arc<Claims>),
}

/// See the head of the file.
pub struct Authenticator {
    required: bool,
    root: Option<blake3::Hash>,
    platform: Vec<VerifyingKey>,
    own: Option<SigningKey>,
    /// By the hash of their text; good until then.
    proofs: BTreeMap<[u8; 32], (Proof, Instant)>,
    /// In the order in which they were found good.
    order: VecDeque<[u8; 32]>,
}

impl Authenticator {
    /// One that asks as it was told.
    #[must_use]
    pub fn new(options: &AuthOptions) -> Authenticator {
        Authenticator {
            required: options.required,
            root: options.root.map(blake3::Hash::from_bytes),
            platform: options.platform_keys.iter().filter_map(jwt::verifying_key).collect(),
            own: None,
            proofs: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Everybody is asked for a token or key.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// The time, where somebody is asked for something that has one.
    #[must_use]
    pub fn when(&self, now: Instant, clock: &impl Clock) -> When {
        let now_s = if self.required { clock.wall().0 / 1_000_000_000 } else { 0 };
        When { now, now_s }
    }

    /// The operator has given a key that may everything, or keys that sign tokens for it.
    #[must_use]
    pub fn has_operator(&self) -> bool {
        self.root.is_some() || !self.platform.is_empty()
    }

    /// Proofs that are remembered now.
    #[must_use]
    pub fn proofs(&self) -> usize {
        self.proofs.len()
    }

    /// The secret that signs the server's own tokens is known.
    pub fn set_own(&mut self, secret: Secret) {
        self.own = Some(SigningKey::from_bytes(&secret.0));
    }

    /// What the request with this head claims.
    ///
    /// # Errors
    /// 401.
    pub fn claimed(
        &mut self,
        head: &Head<'_>,
        place: Place<'_>,
        when: When,
    ) -> Result<Claimed, Problem> {
        if !self.required {
            return Ok(Claimed::OPEN);
        }
        self.judge(head.authorization(), place, when).ok_or_else(|| {
            sometimes!("a request without a good token or key is refused");
            Problem::unauthorised()
        })
    }

    fn judge(
        &mut self,
        authorization: Option<&str>,
        place: Place<'_>,
        when: When,
    ) -> Option<Claimed> {
        let (scheme, text) = authorization?.split_once(' ')?;
        let text = text.trim_matches(' ');
        let basic = matches!(place, Place::Control) && scheme.eq_ignore_ascii_case("basic");
        if !scheme.eq_ignore_ascii_case("bearer") && !basic {
            return None;
        }
        let digest = blake3::hash(text.as_bytes());
        let principal = Some(*digest.as_bytes());
        if self.root == Some(digest) {
            return Some(Claimed { principal, ..Claimed::OPEN });
        }
        let proof = match self.remembered(digest.as_bytes(), when.now) {
            Some(proof) => proof,
            None => match prove(text, self.own.as_ref(), &self.platform) {
                Some(proof) => self.remember(digest.as_bytes(), proof, when.now),
                None => return foreign(text, digest.as_bytes(), place, when),
            },
        };
        let credential = match proof {
            Proof::Key(shown) => {
                let key::Shown { public, hash } = shown;
                Credential::Key(KeyProof { public, hash, now_s: when.now_s })
            }
            Proof::Token(claims) => Credential::Access(access(&claims, place, when.now_s)?),
        };
        Some(Claimed { credential, principal, foreign: None })
    }

    fn remembered(&self, digest: &[u8; 32], now: Instant) -> Option<Proof> {
        let (proof, until) = self.proofs.get(digest)?;
        (now < *until).then(|| proof.clone())
    }

    fn remember(&mut self, digest: &[u8; 32], proof: Proof, now: Instant) -> Proof {
        let until = now.after(limits::PROOF_NS);
        if self.proofs.insert(*digest, (proof.clone(), until)).is_none() {
            self.order.push_back(*digest);
        }
        if self.proofs.len() > limits::PROOFS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            sometimes!("a proof is forgotten for another");
            self.proofs.remove(&oldest);
        }
        assert_eq!(self.proofs.len(), self.order.len());
        proof
    }

    /// A token for what the catalogue has found; `lifetime_s` is `None` for one that does not expire. It
    /// is issued at the instant of a rotation at the earliest.
    ///
    /// # Panics
    /// If `signing` is for nothing that has an id.
    pub fn mint(
        &mut self,
        signing: &Signing,
        role: Role,
        lifetime_s: Option<u64>,
        now_s: u64,
    ) -> String {
        let row = signing.row.as_deref();
        let path = row.map_or(&signing.path, |row| &row.path);
        let scope = match (row, path.first()) {
            (Some(row), _) => Scope::Database(row.id),
            (None, Some(node)) => Scope::Node(node.id),
            (None, None) => panic!("a token is for a database or node"),
        };
        let settings = path.iter().map(|node| node.settings()).chain(row.map(|row| row.settings()));
        let rotated_s = settings.map(|settings| settings.tokens_after_s).max().unwrap_or(0);
        let issued_s = now_s.max(rotated_s);
        let expires_s = lifetime_s.map(|lifetime_s| issued_s.saturating_add(lifetime_s));
        self.set_own(signing.secret);
        let own = self.own.as_ref().expect("set above");
        jwt::sign(own, &Issue { scope, role, issued_s, expires_s })
    }
}

/// What a text is, if its form or signature is good; whether it is current is asked each time.
fn prove(text: &str, own: Option<&SigningKey>, platform: &[VerifyingKey]) -> Option<Proof> {
    if !jwt::is_token(text) {
        return key::read(text).map(Proof::Key);
    }
    let own = own.map(SigningKey::verifying_key);
    let claims = jwt::verify(text, &own, true).or_else(|| jwt::verify(text, platform, false))?;
    Some(Proof::Token(Arc::new(claims)))
}

/// What verified claims are worth at a place; `None`: nothing.
fn access(claims: &Claims, place: Place<'_>, now_s: u64) -> Option<Access> {
    if !claims.is_current(now_s) {
        return None;
    }
    let (scope, role) = match (&claims.grant, place) {
        (Grant::Own(scope, role), _) => (*scope, *role),
        // Whoever names no database is the platform's operator, and that one has the admin address.
        (Grant::All(Role::Read), Place::Control) => (Scope::Machine, Role::Read),
        (Grant::All(_), Place::Control) => (Scope::Machine, Role::Admin),
        (Grant::All(_), Place::Database(_)) => return None,
        (Grant::Names(names), Place::Database(name)) => {
            let name = Name::new(name)?;
            let (_, role) = names.iter().find(|(other, _)| *other == name)?;
            (Scope::Name(name), *role)
        }
        (Grant::Names(names), Place::Control) => match names.as_slice() {
            [(name, role)] => (Scope::Name(*name), *role),
            _ => return None,
        },
    };
    Some(Access { role, scope, issued_s: Some(claims.issued_s), priority: None, key: None })
}

/// A token that a key of the database itself may have signed.
fn foreign(text: &str, digest: &[u8; 32], place: Place<'_>, when: When) -> Option<Claimed> {
    let Place::Database(name) = place else { return None };
    if !jwt::is_token(text) || text.len() > limits::TOKEN_BYTES_MAX {
        return None;
    }
    let foreign =
        Foreign { token: text.into(), digest: *digest, name: name.into(), now_s: when.now_s };
    Some(Claimed {
        credential: Credential::Foreign,
        principal: Some(*digest),
        foreign: Some(Box::new(foreign)),
    })
}

#[cfg(test)]
mod tests;
